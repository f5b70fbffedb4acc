//! What happens to a batch once its invocation ended.
//!
//! Pure: a policy, a batch and a resolution give a decision. Each record of the batch is in exactly
//! one part of the decision. Sources: AWS Lambda Developer Guide, "Configuring error handling
//! controls for Kafka event sources" and "Configuring partial batch response with Kinesis Data
//! Streams and Lambda". Where the first is silent, we follow the guide's pages for Kinesis.

use std::collections::BTreeSet;

use serde_json::Value;

use super::record::{Record, Source};

/// The error handling of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// Retries after the first invocation. `None` means no limit.
    pub(super) max_retries: Option<u32>,
    /// Maximum age of a record that is still sent to the function, in milliseconds. `None` means
    /// any.
    pub(super) max_age_ms: Option<i64>,
    /// `BisectBatchOnFunctionError`.
    pub(super) bisect: bool,
    /// `ReportBatchItemFailures`. Without it the content of an answer is ignored.
    pub(super) partial_answers: bool,
}

/// Records sent in one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Sorted by partition and offset; never empty.
    pub(super) records: Vec<Record>,
    /// Retries used so far. Splitting uses none.
    pub(super) retries: u32,
    /// Invocations so far.
    pub(super) invocations: u32,
    /// Must not be sent before this time, Unix milliseconds.
    pub(super) not_before: i64,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The function returned this payload.
    Answered { payload: Vec<u8>, response: Response },
    /// The function failed or timed out.
    FunctionError { response: Response },
    /// Lambda did not run the function: throttled or unreachable. Uses no retry.
    NotInvoked { cause: String },
}

/// What a failure record says about an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Response {
    pub(super) request_id: String,
    pub(super) status: i32,
    pub(super) executed_version: String,
    /// `Handled` or `Unhandled`. Absent if the function returned normally.
    pub(super) function_error: Option<String>,
}

/// Why records are discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// All retries failed.
    RetryAttemptsExhausted,
    /// Older than the maximum age.
    RecordAgeExceeded,
    /// One record alone exceeds the payload limit.
    MaximumPayloadSizeExceeded,
}

impl Condition {
    /// The word in the failure record.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
            Self::MaximumPayloadSizeExceeded => "MaximumPayloadSizeExceeded",
        }
    }
}

/// Records that go to the on-failure destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Discard {
    pub(super) batch: Batch,
    pub(super) condition: Condition,
    /// The last invocation, if there was one.
    pub(super) response: Option<Response>,
}

/// Where each record of a batch goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Decision {
    /// Succeeded: their offsets may be committed.
    pub(super) done: Vec<Record>,
    /// Must be sent again: one batch, or two after a split.
    pub(super) again: Vec<Batch>,
    pub(super) discard: Option<Discard>,
    /// The function made the whole batch fail.
    pub(super) failed: bool,
}

/// Decides what to do with a batch.
pub(super) fn settle(policy: &Policy, source: &Source, mut batch: Batch, resolution: Resolution, now: i64) -> Decision {
    let (response, payload) = match resolution {
        Resolution::NotInvoked { .. } => {
            batch.not_before = now + backoff_ms(batch.invocations + 1);
            batch.invocations += 1;
            return Decision { again: vec![batch], ..Decision::default() };
        }
        Resolution::FunctionError { response } => (response, None),
        Resolution::Answered { payload, response } => (response, Some(payload)),
    };
    batch.invocations += 1;
    let failures = match payload {
        None => None,
        Some(_) if !policy.partial_answers => Some(BTreeSet::new()),
        Some(payload) => failures(source, &batch.records, &payload),
    };
    let Some(failures) = failures else {
        return Decision { failed: true, ..retry(policy, batch, response, now, policy.bisect) };
    };
    let (failed, done): (Vec<_>, Vec<_>) =
        batch.records.into_iter().partition(|record| failures.contains(&(record.partition, record.offset)));
    batch.records = failed;
    if batch.records.is_empty() {
        return Decision { done, ..Decision::default() };
    }
    Decision { done, ..retry(policy, batch, response, now, false) }
}

/// Splits, retries or discards the batch.
fn retry(policy: &Policy, mut batch: Batch, response: Response, now: i64, split: bool) -> Decision {
    if split && batch.records.len() > 1 {
        let right = batch.records.split_off(batch.records.len() / 2);
        batch.not_before = now;
        let right = Batch { records: right, ..batch };
        return Decision { again: vec![batch, right], ..Decision::default() };
    }
    if policy.max_retries.is_some_and(|max| batch.retries >= max) {
        return Decision {
            discard: Some(Discard { batch, condition: Condition::RetryAttemptsExhausted, response: Some(response) }),
            ..Decision::default()
        };
    }
    batch.retries += 1;
    batch.not_before = now + backoff_ms(batch.retries);
    Decision { again: vec![batch], ..Decision::default() }
}

/// The records that failed according to a partial answer. `None` if the whole batch failed: the
/// answer does not have the documented form, or it names a record that was not in the batch. An
/// empty or null answer names nothing. On Kafka only the named records fail. On streams the lowest
/// of them is the checkpoint, and everything from there on is sent again.
fn failures(source: &Source, sent: &[Record], payload: &[u8]) -> Option<BTreeSet<(i32, i64)>> {
    let none = BTreeSet::new();
    if payload.is_empty() {
        return Some(none);
    }
    let items = match serde_json::from_slice(payload).ok()? {
        Value::Null => return Some(none),
        Value::Object(mut answer) => match answer.remove("batchItemFailures") {
            None | Some(Value::Null) => return Some(none),
            Some(Value::Array(items)) => items,
            Some(_) => return None,
        },
        _ => return None,
    };
    let named: Option<Vec<&Record>> = items
        .iter()
        .map(|item| {
            let id = item.get("itemIdentifier")?;
            sent.iter().find(|record| is_named(source, record, id))
        })
        .collect();
    let place = |record: &Record| (record.partition, record.offset);
    let named = named?.into_iter().map(place);
    match source {
        Source::Kafka(_) => Some(named.collect()),
        // All records are of one shard, so the least place has the lowest sequence number.
        Source::Kinesis(_) | Source::Table(_) => Some(
            named
                .min()
                .map_or(none, |checkpoint| sent.iter().map(place).filter(|place| *place >= checkpoint).collect()),
        ),
    }
}

/// Whether an `itemIdentifier` names this record.
fn is_named(source: &Source, record: &Record, id: &Value) -> bool {
    match source {
        Source::Kafka(_) => {
            id.get("partition").and_then(Value::as_str) == Some(&source.partition_name(record.partition))
                && id.get("offset").and_then(Value::as_i64) == Some(record.offset)
        }
        Source::Kinesis(_) | Source::Table(_) => id.as_str() == Some(&record.sequence_number),
    }
}

/// Milliseconds to wait before attempt `n`, doubling from 0.1 s up to 10 s. Lambda waits longer and
/// does not document how long.
pub(super) fn backoff_ms(n: u32) -> i64 {
    (50_i64 << n.min(8)).min(10_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::record::samples::{record, sequence_number, source, stream_source, streamed};
    use super::{Batch, Condition, Decision, Policy, Resolution, Response, settle};

    fn policy() -> Policy {
        Policy { max_retries: Some(2), max_age_ms: None, bisect: false, partial_answers: true }
    }

    fn batch() -> Batch {
        Batch {
            records: vec![record(0, 100, 1), record(0, 101, 1), record(0, 102, 1), record(1, 7, 1)],
            retries: 0,
            invocations: 0,
            not_before: 0,
        }
    }

    fn error() -> Resolution {
        Resolution::FunctionError { response: Response::default() }
    }

    fn decide(policy: &Policy, batch: Batch, answer: &str) -> Decision {
        let resolution = Resolution::Answered { payload: answer.as_bytes().to_vec(), response: Response::default() };
        settle(policy, &source(), batch, resolution, 1_000)
    }

    fn offsets(batch: &Batch) -> Vec<(i32, i64)> {
        batch.records.iter().map(|r| (r.partition, r.offset)).collect()
    }

    #[test]
    fn empty_and_null_answers_are_success() {
        for answer in
            ["", "null", "{}", r#"{"batchItemFailures":null}"#, r#"{"batchItemFailures":[]}"#, r#"{"statusCode":200}"#]
        {
            let decision = decide(&policy(), batch(), answer);
            assert_eq!(decision.done.len(), 4, "{answer}");
            assert_eq!((decision.again.len(), decision.failed), (0, false));
        }
    }

    #[test]
    fn named_records_are_retried_and_the_others_are_done() {
        let answer = json!({"batchItemFailures": [
            {"itemIdentifier": {"partition": "events-0", "offset": 102}},
            {"itemIdentifier": {"partition": "events-0", "offset": 100}},
        ]});
        let decision = decide(&policy(), batch(), &answer.to_string());
        assert_eq!(offsets(&decision.again[0]), [(0, 100), (0, 102)]);
        assert_eq!(decision.again[0].retries, 1);
        assert_eq!(decision.again[0].not_before, 1_100);
        let done: Vec<_> = decision.done.iter().map(|r| (r.partition, r.offset)).collect();
        assert_eq!(done, [(0, 101), (1, 7)]);
    }

    #[test]
    fn answer_with_unknown_form_or_record_fails_the_whole_batch() {
        let item = |id| json!({"batchItemFailures": [{"itemIdentifier": id}]}).to_string();
        for answer in [
            item(json!({"partition": "events-9", "offset": 100})),
            item(json!({"partition": "events-0", "offset": 99})),
            item(json!({"partition": "events-1", "offset": 100})),
            item(json!({"partition": "events-0", "offset": "100"})),
            item(json!({"topic-partition": "events-0", "offset": 100})),
            item(json!("100")),
            item(json!(null)),
            json!({"batchItemFailures": {}}).to_string(),
            json!({"batchItemFailures": [
                {"itemIdentifier": {"partition": "events-0", "offset": 100}},
                {"itemIdentifier": {"partition": "events-0", "offset": 1}},
            ]})
            .to_string(),
            "[]".into(),
            "\"\"".into(),
            "not JSON".into(),
        ] {
            let decision = decide(&policy(), batch(), &answer);
            assert!(decision.failed && decision.done.is_empty(), "{answer}");
            assert_eq!(offsets(&decision.again[0]).len(), 4, "{answer}");
        }
    }

    /// What happens to records 3 to 6 of shard 2: the done ones, and those sent again.
    fn decide_of_a_shard(answer: &str) -> (Vec<i64>, Vec<i64>, bool) {
        let records = (3..7).map(|ordinal| streamed(2, ordinal, 1, 2)).collect();
        let batch = Batch { records, ..batch() };
        let resolution = Resolution::Answered { payload: answer.as_bytes().to_vec(), response: Response::default() };
        let decision = settle(&policy(), &stream_source(), batch, resolution, 1_000);
        assert!(decision.again.len() <= 1 && decision.discard.is_none());
        let again = decision.again.iter().flat_map(offsets).map(|(_, ordinal)| ordinal).collect();
        (decision.done.iter().map(|record| record.offset).collect(), again, decision.failed)
    }

    #[test]
    fn lowest_named_record_of_a_shard_is_the_checkpoint() {
        let item = |ordinal| json!({"itemIdentifier": sequence_number(ordinal)});
        let answer = |items: &[serde_json::Value]| json!({"batchItemFailures": items}).to_string();
        for (answer, done, again) in [
            ("null".to_owned(), vec![3, 4, 5, 6], vec![]),
            (answer(&[]), vec![3, 4, 5, 6], vec![]),
            (answer(&[item(6)]), vec![3, 4, 5], vec![6]),
            (answer(&[item(6), item(4)]), vec![3], vec![4, 5, 6]),
            (answer(&[item(3)]), vec![], vec![3, 4, 5, 6]),
        ] {
            assert_eq!(decide_of_a_shard(&answer), (done, again, false), "{answer}");
        }
    }

    #[test]
    fn answer_naming_a_foreign_record_fails_the_shards_whole_batch() {
        for id in [
            json!(""),
            json!(null),
            json!(sequence_number(7)),
            json!(format!("shardId-000000000002:{}", sequence_number(4))),
            json!({"partition": "shardId-000000000002", "offset": 4}),
            json!(4),
        ] {
            let items = [json!({"itemIdentifier": sequence_number(5)}), json!({ "itemIdentifier": id })];
            let answer = json!({ "batchItemFailures": items }).to_string();
            assert_eq!(decide_of_a_shard(&answer), (vec![], vec![3, 4, 5, 6], true), "{answer}");
        }
        let wrong_key = json!({"batchItemFailures": [{"identifier": sequence_number(5)}]}).to_string();
        assert_eq!(decide_of_a_shard(&wrong_key), (vec![], vec![3, 4, 5, 6], true));
    }

    #[test]
    fn answer_is_ignored_unless_partial_answers_are_on() {
        let policy = Policy { partial_answers: false, ..policy() };
        let answer = r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#;
        assert_eq!(decide(&policy, batch(), answer).done.len(), 4);
    }

    #[test]
    fn function_error_retries_the_batch_up_to_its_limit() {
        let mut current = batch();
        for retries in 1..=2 {
            let decision = settle(&policy(), &source(), current, error(), 0);
            current = decision.again[0].clone();
            assert_eq!(current.retries, retries);
        }
        let decision = settle(&policy(), &source(), current, error(), 0);
        let discard = decision.discard.expect("discarded");
        assert_eq!(discard.condition, Condition::RetryAttemptsExhausted);
        assert_eq!((discard.batch.invocations, discard.batch.records.len()), (3, 4));
    }

    #[test]
    fn function_error_splits_the_batch_without_using_a_retry() {
        let policy = Policy { bisect: true, ..policy() };
        let decision = settle(&policy, &source(), batch(), error(), 0);
        let halves: Vec<_> = decision.again.iter().map(offsets).collect();
        assert_eq!(halves, [[(0, 100), (0, 101)], [(0, 102), (1, 7)]]);
        assert!(decision.again.iter().all(|half| half.retries == 0));
    }

    #[test]
    fn invocation_that_did_not_happen_uses_no_retry() {
        let resolution = Resolution::NotInvoked { cause: "throttled".into() };
        let policy = Policy { max_retries: Some(0), bisect: true, ..policy() };
        let decision = settle(&policy, &source(), batch(), resolution, 0);
        assert_eq!(decision.again[0].records.len(), 4);
        assert_eq!(decision.again[0].retries, 0);
        assert!(decision.again[0].not_before > 0 && !decision.failed);
    }
}
