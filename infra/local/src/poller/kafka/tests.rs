//! The poller on real brokers that come and go. See `kafka_cluster/tests.rs` for how to enable it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::super::PollerStats;
use super::super::core::{Batching, Core};
use super::super::record::{Source, Topic};
use super::super::settle::Policy;
use super::super::shell::Shell;
use super::*;
use crate::broker::{LocalBroker, create_topic};
use crate::kafka_cluster::ApacheKafka;
use crate::kafka_cluster::tests::{opted_in, producer};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use operate::sdk_config;
use rdkafka::producer::FutureRecord;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::task::JoinHandle;

const TOPIC: &str = "events";
const GROUP: &str = "process";
const PARTITIONS: i32 = 4;
/// Longer than every time-out of the group.
const OUTAGE: Duration = Duration::from_secs(16);
const SOON: Duration = Duration::from_secs(90);

/// Where each record was read, by its number. (The producer may not know where it wrote it: its
/// first attempt may have succeeded without an answer.)
type Places = Arc<Mutex<BTreeMap<u32, (i32, i64)>>>;

/// Stands in for Lambda and the function. Accepts every batch.
async fn accept(State(accepted): State<Places>, event: Bytes) -> Json<Value> {
    let event: Value = serde_json::from_slice(&event).unwrap();
    let batches = event["records"].as_object().unwrap().values();
    let records = batches.flat_map(|records| records.as_array().unwrap());
    let place = |record: &Value| {
        let number = BASE64.decode(record["value"].as_str().unwrap()).unwrap();
        let partition = i32::try_from(record["partition"].as_i64().unwrap()).unwrap();
        (std::str::from_utf8(&number).unwrap().parse().unwrap(), (partition, record["offset"].as_i64().unwrap()))
    };
    accepted.lock().unwrap().extend(records.map(place));
    Json(Value::Null)
}

async fn lambda(accepted: &Places) -> aws_sdk_lambda::Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(accept).with_state(accepted.clone());
    tokio::spawn(async move { axum::serve(listener, app.layer(axum::extract::DefaultBodyLimit::disable())).await });
    aws_sdk_lambda::Client::new(&sdk_config(&endpoint, "us-east-1"))
}

type Running = (watch::Sender<bool>, watch::Receiver<PollerStats>, JoinHandle<anyhow::Result<()>>);

async fn poll(bootstrap: &str, accepted: &Places) -> Running {
    let log = KafkaLog::subscribe(bootstrap, TOPIC, GROUP, StartingPosition::TrimHorizon).unwrap();
    let joined = log.joined();
    let source = Source::Kafka(Topic {
        event_source_arn: "arn:aws:kafka:us-east-1:000000000000:cluster/c/1".to_owned(),
        bootstrap_servers: bootstrap.to_owned(),
        topic: TOPIC.to_owned(),
    });
    let policy = Policy { max_retries: None, max_age_ms: None, bisect: true, partial_answers: true };
    let batching = Batching { size: 100, window_ms: 100, payload_limit: 6_000_000, concurrency: 4 };
    let (stats, stats_receiver) = watch::channel(PollerStats::default());
    let (stop, stop_receiver) = watch::channel(false);
    let shell = Shell {
        core: Core::new(policy, batching, source.clone()),
        log,
        source,
        function_arn: "process".to_owned(),
        lambda: lambda(accepted).await,
        sink: None,
        stats,
    };
    let running = tokio::spawn(shell.run(stop_receiver));
    joined.await.unwrap();
    (stop, stats_receiver, running)
}

/// Writes until it is told to end. Returns the acknowledged records.
fn write(bootstrap: &str, mut stop: watch::Receiver<bool>) -> JoinHandle<BTreeSet<u32>> {
    let producer = producer(bootstrap);
    tokio::spawn(async move {
        let mut acknowledged = BTreeSet::new();
        let mut under_way = tokio::task::JoinSet::new();
        for n in 0_u32.. {
            if stop.has_changed().unwrap_or(true) {
                break;
            }
            let producer = producer.clone();
            under_way.spawn(async move {
                let key = n.to_string();
                let record = FutureRecord::to(TOPIC).key(&key).payload(&key);
                producer.send(record, Duration::ZERO).await.ok().map(|_| n)
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.mark_unchanged();
        acknowledged.extend(under_way.join_all().await.into_iter().flatten());
        acknowledged
    })
}

/// The group's committed offsets by partition.
fn committed(bootstrap: &str) -> BTreeMap<i32, i64> {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", GROUP).create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(TOPIC, 0, PARTITIONS - 1);
    let offsets = client.committed_offsets(partitions, Duration::from_secs(20)).unwrap();
    offsets.elements().iter().filter_map(|e| Some((e.partition(), e.offset().to_raw()?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_skipped_while_brokers_come_and_go() {
    let Some(_alone) = opted_in().await else { return };
    let mut cluster = ApacheKafka::start("poller-test", 3).await.unwrap();
    cluster.create_topic(TOPIC, PARTITIONS).await.unwrap();
    let bootstrap = cluster.bootstrap().to_owned();
    let accepted = Places::default();
    let (stop, stats, running) = poll(&bootstrap, &accepted).await;
    let (stop_writing, stop_receiver) = watch::channel(false);
    let writing = write(&bootstrap, stop_receiver);

    // One after the other, to hit each partition's leader, the group's coordinator and the
    // controller.
    for node in 0..3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.kill(node).await.unwrap();
        tokio::time::sleep(OUTAGE / 2).await;
        cluster.restart(node).unwrap();
        cluster.ready(SOON).await.unwrap();
        cluster.pause(node).unwrap();
        tokio::time::sleep(OUTAGE / 2).await;
        cluster.resume(node).unwrap();
        cluster.ready(SOON).await.unwrap();
    }
    // All at once: there is no broker for records or commits.
    for node in 0..3 {
        cluster.kill(node).await.unwrap();
    }
    tokio::time::sleep(OUTAGE).await;
    for node in 0..3 {
        cluster.restart(node).unwrap();
    }
    cluster.ready(SOON).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;

    stop_writing.send_replace(true);
    let acknowledged = writing.await.unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        let missing: Vec<u32> = {
            let accepted = accepted.lock().unwrap();
            acknowledged.iter().filter(|number| !accepted.contains_key(number)).copied().collect()
        };
        if missing.is_empty() {
            break;
        }
        assert!(!running.is_finished(), "the poller ended: {:?}", running.await);
        assert!(Instant::now() < deadline, "skipped {missing:?} of {}: {:?}", acknowledged.len(), *stats.borrow());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.send_replace(true);
    running.await.unwrap().unwrap();

    let committed = tokio::task::spawn_blocking(move || committed(&bootstrap)).await.unwrap();
    let places: BTreeSet<(i32, i64)> = accepted.lock().unwrap().values().copied().collect();
    for partition in 0..PARTITIONS {
        let last = places.range(..(partition + 1, 0)).next_back().unwrap();
        assert_eq!(committed.get(&partition), Some(&(last.1 + 1)), "committed offset of partition {partition}");
    }
    println!("{} acknowledged; {:?}", acknowledged.len(), *stats.borrow());
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_records_are_read_before_those_behind_them() {
    const RECORDS: i64 = 200;
    let broker = LocalBroker::start("test-skipped").await.unwrap();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, TOPIC, 1, None).await.unwrap();
    let producer = producer(&bootstrap);
    for n in 0..RECORDS {
        let key = n.to_string();
        producer.send(FutureRecord::to(TOPIC).key(&key).payload(&key), Duration::ZERO).await.unwrap();
    }
    let mut log = KafkaLog::subscribe(&bootstrap, TOPIC, GROUP, StartingPosition::TrimHorizon).unwrap();
    let mut offsets = Vec::new();
    let reading = async {
        while offsets.len() < RECORDS as usize {
            let read = log.read().await.unwrap().records;
            offsets.extend(read.iter().map(|record| record.offset));
            if offsets.len() == 10 && !read.is_empty() {
                // As if the broker had not shown those between.
                log.consumer.seek(TOPIC, 0, Offset::Offset(60), Duration::from_secs(5)).unwrap();
            }
        }
    };
    let read = tokio::time::timeout(SOON, reading).await;
    assert!(read.is_ok() && offsets == (0..RECORDS).collect::<Vec<_>>(), "{offsets:?}");
}

#[test]
fn record_that_is_in_no_log_is_given_up() {
    let (mut positions, now) = (Positions::default(), Instant::now());
    assert_eq!(positions.turn_of(0, 5, now), Turn::Its);
    assert_eq!(positions.turn_of(0, 7, now), Turn::Skipped(6));
    assert_eq!(positions.turn_of(0, 8, now), Turn::Early);
    assert_eq!(positions.turn_of(1, 3, now), Turn::Its, "of another partition");
    let later = |readings| now + READ_AGAIN_EVERY * readings;
    for reading in 1..READINGS {
        assert_eq!(positions.turn_of(0, 7, later(reading)), Turn::Skipped(6));
    }
    assert_eq!(positions.turn_of(0, 7, later(READINGS)), Turn::Its);
    assert_eq!(positions.turn_of(0, 8, later(READINGS)), Turn::Its);
    // The broker lost its log.
    assert_eq!(positions.turn_of(0, 0, later(READINGS)), Turn::Its);
    assert_eq!(positions.turn_of(0, 1, later(READINGS)), Turn::Its);
}
