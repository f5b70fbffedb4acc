use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use super::super::record::samples::{record, sequence_number, sized, source, stream_source, streamed};
use super::super::record::{Record, Source};
use super::super::settle::{Batch, Condition, Policy, Resolution, Response};
use super::{Batching, Core, Step};

fn policy() -> Policy {
    Policy { max_retries: Some(2), max_age_ms: None, bisect: false, partial_answers: true }
}

fn batching() -> Batching {
    Batching { size: 3, window_ms: 500, payload_limit: 6 * 1024 * 1024, concurrency: 4 }
}

fn core() -> Core {
    Core::new(policy(), batching(), source())
}

fn success() -> Resolution {
    answer("null")
}

fn answer(payload: &str) -> Resolution {
    Resolution::Answered { payload: payload.as_bytes().to_vec(), response: Response::default() }
}

fn error() -> Resolution {
    Resolution::FunctionError { response: Response::default() }
}

fn invoke(step: Step) -> (u64, Batch) {
    match step {
        Step::Invoke { id, batch } => (id, batch),
        other => panic!("expected an invocation, got {other:?}"),
    }
}

fn places(batch: &Batch) -> Vec<(i32, i64)> {
    batch.records.iter().map(|r| (r.partition, r.offset)).collect()
}

#[test]
fn batch_leaves_when_the_window_ends_and_mixes_partitions() {
    let mut core = core();
    core.receive(record(1, 4, 0), 1_000);
    core.receive(record(0, 8, 0), 1_200);
    assert_eq!(core.next(1_499), Step::Wait(Some(1_500)));
    let (id, batch) = invoke(core.next(1_500));
    assert_eq!(places(&batch), [(0, 8), (1, 4)]);
    core.invoked(id, success(), 1_600);
    assert_eq!(core.take_commits(), [(0, 9), (1, 5)]);
    assert_eq!(core.next(1_600), Step::Wait(None));
}

#[test]
fn full_batch_leaves_at_once_with_its_maximum_size() {
    let mut core = core();
    for offset in 0..4 {
        core.receive(record(0, offset, 0), 0);
    }
    let (_, batch) = invoke(core.next(0));
    assert_eq!(places(&batch), [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(core.next(9_000), Step::Wait(None), "partition 0 is blocked");
}

#[test]
fn payload_limit_ends_a_batch_and_discards_a_larger_record() {
    let limit = 2_000;
    let batching = Batching { payload_limit: limit, size: 100, ..batching() };
    let mut core = Core::new(policy(), batching, source());
    core.receive(sized(0, 0, 0, 700), 0);
    core.receive(sized(0, 1, 0, 700), 0);
    core.receive(sized(1, 0, 0, 4_000), 0);
    let (id, batch) = invoke(core.next(0));
    assert_eq!(places(&batch), [(0, 0)]);
    assert!(source().payload(&batch.records).len() <= limit);
    core.invoked(id, success(), 0);
    let (id, batch) = invoke(core.next(0));
    assert_eq!(places(&batch), [(0, 1)]);
    core.invoked(id, success(), 0);
    let Step::Deliver { id, discard } = core.next(0) else {
        panic!("nothing discarded");
    };
    assert_eq!(discard.condition, Condition::MaximumPayloadSizeExceeded);
    assert_eq!((places(&discard.batch), discard.response), (vec![(1, 0)], None));
    core.delivered(id, true, 0);
    assert_eq!(core.take_commits(), [(0, 2), (1, 1)]);
}

#[test]
fn poison_retried_for_ever_blocks_only_its_own_partition() {
    let policy = Policy { max_retries: None, ..policy() };
    let mut core = Core::new(policy, batching(), source());
    core.receive(record(0, 0, 0), 0);
    let (id, _) = invoke(core.next(500));
    core.receive(record(0, 1, 0), 600);
    core.invoked(id, error(), 600);
    for offset in 0..50 {
        let now = 2_000 + offset * 20_000;
        let (poison, batch) = invoke(core.next(now));
        assert_eq!(places(&batch), [(0, 0)]);
        core.receive(record(1, offset, 0), now - 600);
        let (other, batch) = invoke(core.next(now));
        assert_eq!(places(&batch), [(1, offset)]);
        core.invoked(other, success(), now);
        core.invoked(poison, error(), now);
        assert_eq!(core.take_commits(), [(1, offset + 1)]);
    }
}

#[test]
fn split_halves_of_one_partition_run_in_order() {
    let policy = Policy { bisect: true, ..policy() };
    let mut core = Core::new(policy, batching(), source());
    core.receive(record(0, 0, 0), 0);
    core.receive(record(0, 1, 0), 0);
    let (id, _) = invoke(core.next(500));
    core.invoked(id, error(), 500);
    let (left, batch) = invoke(core.next(500));
    assert_eq!(places(&batch), [(0, 0)]);
    assert_eq!(core.next(500), Step::Wait(None));
    core.invoked(left, success(), 500);
    let (_, batch) = invoke(core.next(500));
    assert_eq!(places(&batch), [(0, 1)]);
}

#[test]
fn expired_records_are_delivered_before_the_rest_is_sent() {
    let policy = Policy { max_age_ms: Some(60_000), ..policy() };
    let mut core = Core::new(policy, batching(), source());
    core.receive(record(0, 0, 1_000), 100_000);
    core.receive(record(0, 1, 99_000), 100_000);
    let Step::Deliver { id, discard } = core.next(100_500) else {
        panic!("nothing discarded");
    };
    assert_eq!(discard.condition, Condition::RecordAgeExceeded);
    assert_eq!(places(&discard.batch), [(0, 0)]);
    core.delivered(id, false, 100_500);
    assert_eq!(core.take_commits(), [], "the destination did not accept it");
    let Step::Deliver { id, .. } = core.next(200_000) else {
        panic!("delivery is not retried");
    };
    core.delivered(id, true, 200_000);
    assert_eq!(core.take_commits(), [(0, 1)]);
}

#[test]
fn result_of_work_from_before_a_reset_has_no_effect() {
    let mut core = core();
    core.receive(record(0, 0, 0), 0);
    let (id, _) = invoke(core.next(500));
    core.reset();
    core.receive(record(0, 0, 0), 600);
    core.invoked(id, success(), 700);
    assert_eq!(core.take_commits(), []);
    assert_eq!(core.positions(), [(0, 0)]);
}

#[test]
fn each_shard_has_its_own_batches_and_windows() {
    let mut core = Core::new(policy(), batching(), stream_source());
    core.receive(streamed(1, 0, 0, 2), 1_000);
    core.receive(streamed(0, 0, 0, 2), 1_200);
    assert_eq!(core.next(1_499), Step::Wait(Some(1_500)));
    let (first, batch) = invoke(core.next(1_500));
    assert_eq!(places(&batch), [(1, 0)]);
    core.receive(streamed(1, 1, 0, 2), 1_500);
    assert_eq!(core.next(1_500), Step::Wait(Some(1_700)));
    let (_, batch) = invoke(core.next(1_700));
    assert_eq!(places(&batch), [(0, 0)]);
    assert_eq!(core.next(9_000), Step::Wait(None), "a shard has one batch at a time");
    core.invoked(first, success(), 9_000);
    assert_eq!(places(&invoke(core.next(9_000)).1), [(1, 1)]);
    assert_eq!(core.take_commits(), [(1, 1)]);
}

#[test]
fn full_shard_leaves_at_once_whatever_others_hold() {
    let mut core = Core::new(policy(), batching(), stream_source());
    core.receive(streamed(0, 0, 0, 2), 0);
    for ordinal in 0..3 {
        core.receive(streamed(1, ordinal, 0, 2), 400);
    }
    assert_eq!(places(&invoke(core.next(400)).1), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(core.next(400), Step::Wait(Some(500)));
}

#[test]
fn records_from_the_checkpoint_on_are_resent_before_later_ones() {
    let mut core = Core::new(policy(), batching(), stream_source());
    for ordinal in 0..5 {
        core.receive(streamed(0, ordinal, 0, 2), 0);
    }
    let (id, _) = invoke(core.next(0));
    let failed = json!({"batchItemFailures": [{"itemIdentifier": sequence_number(1)}]});
    core.invoked(id, answer(&failed.to_string()), 0);
    assert_eq!(core.take_commits(), [(0, 1)]);
    assert_eq!(core.next(0), Step::Wait(Some(100)), "later records wait too");
    let (id, batch) = invoke(core.next(100));
    assert_eq!((places(&batch), batch.retries), (vec![(0, 1), (0, 2)], 1));
    core.invoked(id, success(), 200);
    assert_eq!(places(&invoke(core.next(600)).1), [(0, 3), (0, 4)]);
    assert_eq!(core.stats().waiting, 2);
}

#[test]
fn partition_with_two_batches_waiting_is_full() {
    let mut core = core();
    for offset in 0..6 {
        assert!(core.full_partitions().is_empty());
        core.receive(record(2, offset, 0), 0);
    }
    assert_eq!(core.full_partitions(), BTreeSet::from([2]));
}

/// The random result of one step.
#[derive(Debug, Clone, Copy)]
enum Luck {
    Success,
    Error,
    NotInvoked,
    Nonsense,
    /// The records at these bits fail.
    Partial(u8),
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        Just(Luck::Success),
        Just(Luck::Error),
        Just(Luck::NotInvoked),
        Just(Luck::Nonsense),
        any::<u8>().prop_map(Luck::Partial),
    ]
}

/// A kind of log for a property: its records, and what an answer means for it.
#[derive(Debug, Clone, Copy)]
enum Log {
    Kafka,
    Kinesis,
}

impl Log {
    fn source(self) -> Source {
        match self {
            Self::Kafka => source(),
            Self::Kinesis => stream_source(),
        }
    }

    fn record(self, partition: i32, offset: i64, timestamp: i64, bytes: usize) -> Record {
        match self {
            Self::Kafka => sized(partition, offset, timestamp, bytes),
            Self::Kinesis => streamed(partition, offset, timestamp, bytes),
        }
    }

    fn identifier(self, record: &Record) -> Value {
        match self {
            Self::Kafka => {
                json!({"partition": source().partition_name(record.partition), "offset": record.offset})
            }
            Self::Kinesis => json!(record.sequence_number),
        }
    }

    /// The answer, and which records of the batch succeed by it.
    fn play(self, luck: Luck, policy: &Policy, batch: &Batch) -> (Resolution, Vec<(i32, i64)>) {
        let all = places(batch);
        match luck {
            Luck::Success => (success(), all),
            Luck::Error => (error(), Vec::new()),
            Luck::NotInvoked => {
                let cause = "throttled".into();
                (Resolution::NotInvoked { cause }, Vec::new())
            }
            Luck::Nonsense => {
                let resolution = answer(r#"{"batchItemFailures":[{"itemIdentifier":"x"}]}"#);
                let done = if policy.partial_answers { Vec::new() } else { all };
                (resolution, done)
            }
            Luck::Partial(bits) => {
                let failing: Vec<usize> = (0..all.len()).filter(|index| bits & (1 << (index % 8)) != 0).collect();
                // In reverse: an answer may name them in any order.
                let items = failing.iter().rev().map(|index| &batch.records[*index]);
                let items: Vec<_> = items.map(|record| json!({"itemIdentifier": self.identifier(record)})).collect();
                let resolution = answer(&json!({ "batchItemFailures": items }).to_string());
                let is_done = |index: &usize| match self {
                    _ if !policy.partial_answers => true,
                    Self::Kafka => !failing.contains(index),
                    Self::Kinesis => failing.first().is_none_or(|checkpoint| index < checkpoint),
                };
                let done = all.into_iter().enumerate().filter(|(index, _)| is_done(index));
                (resolution, done.map(|(_, place)| place).collect())
            }
        }
    }
}

/// The input of a property: arriving records as (partition, bytes, age), and ends of steps as
/// (luck, which of the running ones, milliseconds that pass).
#[derive(Debug, Clone)]
struct Script {
    arrivals: Vec<(i32, usize, i64)>,
    lucks: Vec<(Luck, u16, i64)>,
    policy: Policy,
    size: usize,
    concurrency: usize,
}

fn script() -> impl Strategy<Value = Script> {
    let policy = (prop::option::of(0..3_u32), prop::option::of(2_000..20_000_i64), any::<bool>(), any::<bool>());
    let policy = policy.prop_map(|(max_retries, max_age_ms, bisect, partial_answers)| Policy {
        max_retries,
        max_age_ms,
        bisect,
        partial_answers,
    });
    (
        prop::collection::vec((0..4_i32, 0..3_000_usize, 0..2_000_i64), 1..60),
        prop::collection::vec((luck(), any::<u16>(), 0..3_000_i64), 1..150),
        policy,
        1..8_usize,
        1..4_usize,
    )
        .prop_map(|(arrivals, lucks, policy, size, concurrency)| Script {
            arrivals,
            lucks,
            policy,
            size,
            concurrency,
        })
}

/// Whatever functions answer, and in whatever order invocations end:
/// - Every record ends exactly once, done or delivered.
/// - No commit passes a record that has not ended.
/// - No two running invocations share a partition, and the limits hold.
/// - On a stream, each invocation has the first open records of one shard, without a gap.
fn nothing_is_lost_or_skipped(log: Log, script: Script) -> Result<(), TestCaseError> {
    let Script { arrivals, lucks, policy, size, concurrency } = script;
    let source = log.source();
    let batching = Batching { size, window_ms: 500, payload_limit: 2_500, concurrency };
    let mut core = Core::new(policy.clone(), batching, source.clone());
    let mut now = 10_000_i64;
    let mut next_offset = BTreeMap::<i32, i64>::new();
    let mut open = BTreeSet::<(i32, i64)>::new();
    let mut committed = BTreeMap::<i32, i64>::new();
    let mut running: Vec<Step> = Vec::new();
    let mut arrivals = arrivals.into_iter();
    let mut lucks = lucks.into_iter();
    let mut left = arrivals.len();
    for round in 0.. {
        prop_assert!(round < 5_000, "it never ends: {:?}", core);
        if let Some((partition, bytes, age)) = arrivals.next() {
            let offset = next_offset.entry(partition).or_default();
            open.insert((partition, *offset));
            core.receive(log.record(partition, *offset, now - age, bytes), now);
            *offset += 1;
            left -= 1;
        }
        let wait = loop {
            match core.next(now) {
                Step::Wait(until) => break until,
                step => running.push(step),
            }
        };
        prop_assert!(running.len() <= concurrency);
        let mut busy = BTreeSet::new();
        for step in &running {
            let batch = match step {
                Step::Invoke { batch, .. } => {
                    prop_assert!(batch.records.len() <= size);
                    prop_assert!(source.payload(&batch.records).len() <= 2_500);
                    if let Log::Kinesis = log {
                        let shard = batch.records[0].partition;
                        let first = open.range((shard, 0)..(shard + 1, 0)).copied().take(batch.records.len());
                        prop_assert_eq!(places(batch), first.collect::<Vec<_>>());
                    }
                    batch
                }
                Step::Deliver { discard, .. } => &discard.batch,
                Step::Wait(_) => unreachable!(),
            };
            prop_assert!(policy.max_retries.is_none_or(|max| batch.retries <= max));
            let partitions: BTreeSet<i32> = batch.records.iter().map(|r| r.partition).collect();
            prop_assert!(busy.is_disjoint(&partitions));
            busy.extend(partitions);
        }
        prop_assert_eq!(core.stats().waiting, open.len() as u64);
        if running.is_empty() {
            match wait {
                Some(until) => now = now.max(until),
                None if left > 0 => {}
                None => break,
            }
            continue;
        }
        // After the script every step succeeds, so unlimited retries end too.
        let (luck, which, pause) = lucks.next().unwrap_or((Luck::Success, 0, 1));
        now += pause;
        match running.remove(usize::from(which) % running.len()) {
            Step::Invoke { id, batch } => {
                let (resolution, done) = log.play(luck, &policy, &batch);
                for place in done {
                    prop_assert!(open.remove(&place), "{place:?} ended twice");
                }
                core.invoked(id, resolution, now);
            }
            Step::Deliver { id, discard } => {
                let accepted = matches!(luck, Luck::Success);
                for place in places(&discard.batch) {
                    prop_assert!(open.contains(&place), "{place:?} ended twice");
                    if accepted {
                        open.remove(&place);
                    }
                }
                core.delivered(id, accepted, now);
            }
            Step::Wait(_) => unreachable!(),
        }
        for (partition, offset) in core.take_commits() {
            let before = committed.insert(partition, offset);
            prop_assert!(before < Some(offset), "a commit goes back");
            let lowest = open.iter().find(|(p, _)| *p == partition).map(|(_, o)| *o);
            prop_assert!(lowest.is_none_or(|lowest| offset <= lowest), "a commit skips a record");
        }
    }
    prop_assert!(open.is_empty(), "never ended: {open:?}");
    prop_assert_eq!(&committed, &next_offset);
    let stats = core.stats();
    let total: i64 = next_offset.values().sum();
    prop_assert_eq!(stats.records_delivered + stats.discarded, total.cast_unsigned());
    Ok(())
}

proptest! {
    #[test]
    fn no_record_is_lost_or_skipped(script in script()) {
        nothing_is_lost_or_skipped(Log::Kafka, script)?;
    }

    #[test]
    fn no_record_of_a_shard_is_lost_or_skipped(script in script()) {
        nothing_is_lost_or_skipped(Log::Kinesis, script)?;
    }
}
