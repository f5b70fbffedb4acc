//! Where `forward` sends each record of a batch, and which records stay on the log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apply::DeadLetter;
use apply::testing::Letters;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use forward::Forward;
use forward::testing::MemoryQueues;
use lambda::batch::{Batch, Record, Source};
use lambda::metrics::{Emitter, Metric, Metrics};
use lambda::routing::Routing;
use lambda::runtime::{Invocation, ServeBatch};
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Head, Stamp, split_delimited, with_hop};
use playback::routing::Regions;
use playback::session::SessionId;
use proptest::prelude::*;

const NOW: u64 = 1_790_000_010_200;
const ALL_ACTIVE: &str = r#"{"version":1}"#;

fn routing(document: &'static str) -> Routing {
    let regions = Regions::parse("us-east-1", "us-east-1,us-west-2,eu-west-1").unwrap();
    Routing::read_by(regions, async move || Ok(document.to_owned()))
}

fn envelope(home: &str, number: u128, events: u16) -> Vec<u8> {
    envelope_of(home, number, events, false)
}

fn envelope_of(home: &str, number: u128, events: u16, shadow: bool) -> Vec<u8> {
    let event = |seq| Event {
        seq,
        kind: Kind::Progressed,
        position_ms: u64::from(seq) * 1_000,
        played_ms: 0,
        title_duration_ms: Some(100_000_000),
        credits_ms: None,
        occurred_at: Some(NOW),
        device: std::sync::Arc::new(Device { id: Some("d1".to_owned()), kind: Some("tv".to_owned()) }),
        country: None,
    };
    let envelope = Envelope {
        session_id: SessionId::mint(home.parse().unwrap(), NOW, number),
        profile_id: "p1".to_owned(),
        title_id: "t1".to_owned(),
        stamp: Stamp { received_at: NOW, sent_at: None, ingest_region: "us-east-1".to_owned(), trace_id: None, shadow },
        events: (0..events).map(event).collect(),
    };
    envelope.encode()
}

fn batch(values: Vec<Vec<u8>>) -> Batch {
    let record = |(offset, value): (usize, Vec<u8>)| Record {
        source: Source::Kafka { topic: "playback-remote".to_owned(), partition: 0, offset: offset as i64 },
        key: None,
        value: Ok(Bytes::from(value)),
        delivery: None,
    };
    Batch { records: values.into_iter().enumerate().map(record).collect() }
}

/// The same, of a shard of a stream.
fn on_stream(values: Vec<Vec<u8>>) -> Batch {
    let mut batch = batch(values);
    for (at, record) in batch.records.iter_mut().enumerate() {
        record.source = Source::Kinesis {
            stream: "arn:remote-standby".to_owned(),
            shard: "shardId-000000000000".to_owned(),
            sequence_number: at.to_string(),
        };
    }
    batch
}

fn forward(dead_letters_down: bool) -> Forward<MemoryQueues, Letters<DeadLetter>> {
    let dead_letters = Letters::new(dead_letters_down);
    Forward { inbound: MemoryQueues::default(), dead_letters, routing: routing(ALL_ACTIVE) }
}

fn metrics() -> Metrics {
    Emitter::to("dev", "forward", |_| ()).start(NOW)
}

/// Serves records. Returns the offsets of those that failed.
async fn serve(
    forward: &Forward<MemoryQueues, Letters<DeadLetter>>,
    metrics: &Metrics,
    values: Vec<Vec<u8>>,
) -> Vec<u64> {
    let answer = forward.serve(metrics, batch(values), Invocation::new(NOW, Duration::from_secs(60))).await.unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    let failures = answer["batchItemFailures"].as_array().unwrap().clone();
    failures.iter().map(|failure| failure["itemIdentifier"]["offset"].as_u64().unwrap()).collect()
}

/// The envelopes that a region was sent.
fn taken(queues: &MemoryQueues, region: &str) -> Vec<Vec<u8>> {
    let messages = queues.take(region).into_iter().map(|body| BASE64_STANDARD.decode(body).unwrap());
    messages
        .flat_map(|joined| split_delimited(&joined).unwrap().into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
        .collect()
}

#[tokio::test]
async fn record_goes_to_its_region_unchanged_with_one_more_hop() {
    let (forward, metrics) = (forward(false), metrics());
    let values = vec![envelope("usw2", 1, 3), envelope("euw1", 2, 1), envelope("usw2", 3, 2), envelope("apse2", 4, 1)];
    assert_eq!(serve(&forward, &metrics, values.clone()).await, Vec::<u64>::new());
    let hopped = |at: usize| with_hop(&values[at], "us-east-1");
    assert_eq!(taken(&forward.inbound, "us-west-2"), [hopped(0), hopped(2)]);
    assert_eq!(taken(&forward.inbound, "eu-west-1"), [hopped(1)]);
    assert_eq!(taken(&forward.inbound, "us-east-1"), [hopped(3)], "not of our regions: folded here");
    assert_eq!(metrics.count(Metric::EventsForwarded), 7);
    assert_eq!((metrics.count(Metric::RecordsForwarded), metrics.count(Metric::ForwardRequests)), (4, 3));
}

#[tokio::test]
async fn drained_regions_record_goes_to_its_successor() {
    let document = r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"us-east-1"}}}"#;
    let forward = Forward { routing: routing(document), ..forward(false) };
    assert!(serve(&forward, &metrics(), vec![envelope("usw2", 1, 1)]).await.is_empty());
    assert_eq!(taken(&forward.inbound, "us-east-1").len(), 1);
}

#[tokio::test]
async fn region_that_is_down_keeps_its_records_and_stops_no_other() {
    let (forward, counted) = (forward(false), metrics());
    forward.inbound.set_down("us-west-2", true);
    let values = vec![envelope("usw2", 1, 3), envelope("euw1", 2, 1), envelope("usw2", 3, 2)];
    assert_eq!(serve(&forward, &counted, values.clone()).await, [0, 2]);
    assert_eq!(taken(&forward.inbound, "eu-west-1").len(), 1);
    assert_eq!(counted.count(Metric::RecordsFailed("region_unavailable")), 2);
    assert_eq!(counted.count(Metric::EventsUnclaimed), 5, "a failed call may have arrived");
    forward.inbound.set_down("us-west-2", false);
    assert!(serve(&forward, &metrics(), vec![values[0].clone(), values[2].clone()]).await.is_empty());
    assert_eq!(taken(&forward.inbound, "us-west-2").len(), 2);
}

/// A shard resumes at its first failed record: poison behind it would be dead-lettered each time.
#[tokio::test]
async fn poison_in_a_shard_waits_for_the_region_that_is_down() {
    let forward = forward(false);
    forward.inbound.set_down("us-west-2", true);
    let values = vec![b"garbage".to_vec(), envelope("usw2", 1, 3), b"garbage".to_vec()];
    let serve = async || {
        let (metrics, invocation) = (metrics(), Invocation::new(NOW, Duration::from_secs(60)));
        let answer = forward.serve(&metrics, on_stream(values.clone()), invocation).await.unwrap();
        let answer = serde_json::to_value(answer).unwrap();
        (answer["batchItemFailures"].as_array().unwrap().len(), forward.dead_letters.take().len())
    };
    assert_eq!(serve().await, (3, 0));
    forward.inbound.set_down("us-west-2", false);
    assert_eq!(serve().await, (0, 2));
}

#[tokio::test]
async fn shadows_are_forwarded_and_are_in_no_books() {
    let (forward, metrics) = (forward(false), metrics());
    forward.inbound.set_down("us-west-2", true);
    let values = vec![envelope_of("usw2", 1, 3, true), envelope_of("euw1", 2, 2, true), envelope("euw1", 3, 1)];
    assert_eq!(serve(&forward, &metrics, values).await, [0]);
    assert_eq!(taken(&forward.inbound, "eu-west-1").len(), 2);
    assert_eq!((metrics.count(Metric::RecordsReceived), metrics.count(Metric::RecordsForwarded)), (3, 2));
    assert_eq!((metrics.count(Metric::EventsForwarded), metrics.count(Metric::EventsUnclaimed)), (1, 0));
}

#[tokio::test]
async fn unreadable_is_dead_lettered_and_newer_schema_passed_on() {
    let (forward, metrics) = (forward(false), metrics());
    let newer = {
        let mut bytes = envelope("usw2", 1, 2);
        assert_eq!(&bytes[..2], [8, 1], "the schema version comes first");
        bytes[1] = 9;
        bytes
    };
    let garbage = b"\xff\xff".to_vec();
    assert!(serve(&forward, &metrics, vec![garbage.clone(), newer]).await.is_empty());
    assert_eq!(taken(&forward.inbound, "us-west-2").len(), 1);
    let letters = forward.dead_letters.take();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].reason.as_str(), &letters[0].letter.value_base64),
        ("not_an_envelope", &BASE64_STANDARD.encode(garbage))
    );
    assert_eq!(metrics.count(Metric::RecordsDead("not_an_envelope")), 1);
}

#[tokio::test]
async fn refused_poison_and_a_flood_of_poison_stay_on_the_log() {
    let down = forward(true);
    assert_eq!(serve(&down, &metrics(), vec![vec![0xff], envelope("usw2", 1, 1)]).await, [0]);
    let forward = forward(false);
    let flood: Vec<Vec<u8>> = (0..20).map(|_| vec![0xff]).chain([envelope("usw2", 1, 1)]).collect();
    assert_eq!(serve(&forward, &metrics(), flood).await, (0..20).collect::<Vec<u64>>());
    assert!(forward.dead_letters.take().is_empty());
}

#[tokio::test]
async fn record_that_comes_round_is_folded_here() {
    let forward = forward(false);
    let round = with_hop(&with_hop(&envelope("usw2", 1, 1), "us-east-1"), "us-west-2");
    let long =
        ["a-b-1", "a-b-2", "a-b-3", "a-b-4"].iter().fold(envelope("usw2", 2, 1), |bytes, hop| with_hop(&bytes, hop));
    assert!(serve(&forward, &metrics(), vec![round, long]).await.is_empty());
    let here = taken(&forward.inbound, "us-east-1");
    let hops: Vec<usize> = here.into_iter().map(|bytes| Head::peek(bytes.into()).unwrap().hops.len()).collect();
    assert_eq!(hops, [3, 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each record is delivered until it has an outcome, while regions go down and come back.
    #[test]
    fn records_are_sent_or_stay_and_all_arrive_in_the_end(
        homes in prop::collection::vec(prop::sample::select(vec!["use1", "usw2", "euw1", "apse2", "poison"]), 1..60),
        outages in prop::collection::vec(prop::collection::btree_set(prop::sample::select(vec!["us-east-1", "us-west-2", "eu-west-1"]), 0..4), 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (forward, metrics) = (forward(false), metrics());
            let value = |(number, home): (usize, &&str)| match *home {
                "poison" => vec![0xff, number as u8],
                home => envelope(home, number as u128, 1 + number as u16 % 3),
            };
            let mut waiting: Vec<Vec<u8>> = homes.iter().enumerate().map(value).collect();
            let mut arrived: BTreeMap<&str, usize> = BTreeMap::new();
            let calm = BTreeSet::new();
            for down in outages.iter().chain([&calm]) {
                for region in ["us-east-1", "us-west-2", "eu-west-1"] {
                    forward.inbound.set_down(region, down.contains(region));
                }
                let failed: BTreeSet<u64> = serve(&forward, &metrics, waiting.clone()).await.into_iter().collect();
                let kept = waiting.into_iter().enumerate().filter(|(at, _)| failed.contains(&(*at as u64)));
                waiting = kept.map(|(_, value)| value).collect();
                for region in ["us-east-1", "us-west-2", "eu-west-1"] {
                    let taken = taken(&forward.inbound, region).len();
                    assert!(taken == 0 || !down.contains(region));
                    *arrived.entry(region).or_default() += taken;
                }
            }
            let of = |codes: &[&str]| homes.iter().filter(|home| codes.contains(*home)).count();
            assert_eq!(arrived["us-west-2"], of(&["usw2"]));
            assert_eq!(arrived["eu-west-1"], of(&["euw1"]));
            assert_eq!(arrived["us-east-1"], of(&["use1", "apse2"]));
            assert_eq!(waiting.len() + forward.dead_letters.take().len(), of(&["poison"]), "only a flood of poison stays");
        });
    }
}
