//! An Apache Kafka cluster whose brokers are killed, paused and run out of disk: acknowledged
//! records stay, and the cluster recovers.
//!
//! It needs Java and, to install Kafka, Maven, so it is opt-in: `PLAYHEAD_TEST_APACHE_KAFKA=1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::*;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::env::VarError;
use std::sync::LazyLock;
use tokio::sync::{Mutex, MutexGuard};

const OPT_IN: &str = "PLAYHEAD_TEST_APACHE_KAFKA";
const TOPIC: &str = "events";
/// Long enough to notice a lost broker on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Larger than the space on a full disk.
const LARGE: usize = 100 * 1024;

/// Held while a cluster runs: one is enough for a machine with two processors.
static ONE_AT_A_TIME: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// `None` if the tests with Apache Kafka are not enabled.
pub(crate) async fn opted_in() -> Option<MutexGuard<'static, ()>> {
    match std::env::var(OPT_IN) {
        Ok(value) if value == "1" => Some(ONE_AT_A_TIME.lock().await),
        Err(VarError::NotPresent) => {
            eprintln!("\n*** SKIPPED: to run Apache Kafka, install Java 17 and Maven, and set {OPT_IN}=1. ***\n");
            None
        }
        // A misspelt value must not skip the test silently.
        other => panic!("{OPT_IN} is {other:?}: set it to 1, or leave it unset to skip Apache Kafka"),
    }
}

/// A producer that waits for all copies. Attempts are short: a hung broker must not hold a record
/// for long.
pub(crate) fn producer(bootstrap: &str) -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "60000")
        .set("request.timeout.ms", "4000")
        .set("socket.timeout.ms", "5000")
        .create()
        .unwrap()
}

/// A client that writes to one partition, and its acknowledged records.
struct Writer {
    producer: FutureProducer,
    bootstrap: String,
    acknowledged: BTreeSet<String>,
    next: usize,
}

impl Writer {
    fn new(bootstrap: &str) -> Self {
        Self { producer: producer(bootstrap), bootstrap: bootstrap.to_owned(), acknowledged: BTreeSet::new(), next: 0 }
    }

    async fn write(&mut self, bytes: usize) -> Result<(), KafkaError> {
        let (producer, id) = (self.producer.clone(), self.begin());
        Self::send(&producer, &id, bytes).await?;
        self.acknowledged.insert(id);
        Ok(())
    }

    fn begin(&mut self) -> String {
        self.next += 1;
        format!("record-{}", self.next)
    }

    async fn send(producer: &FutureProducer, id: &str, bytes: usize) -> Result<(), KafkaError> {
        let value = vec![b'x'; bytes];
        let record = FutureRecord::to(TOPIC).partition(0).key(id).payload(&value);
        producer.send(record, Duration::ZERO).await.map(|_| ()).map_err(|(error, _)| error)
    }

    /// Reads the partition from the beginning until all acknowledged records were seen.
    #[track_caller]
    fn assert_all_are_there(&self) {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "nobody")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut from_the_beginning = TopicPartitionList::new();
        from_the_beginning.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
        consumer.assign(&from_the_beginning).unwrap();
        let mut missing = self.acknowledged.clone();
        let deadline = Instant::now() + SOON;
        while !missing.is_empty() {
            assert!(Instant::now() < deadline, "acknowledged but lost: {missing:?}");
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
                missing.remove(std::str::from_utf8(message.key().unwrap()).unwrap());
            }
        }
    }
}

/// Waits until exactly these nodes are in sync.
async fn in_sync(cluster: &ApacheKafka, wanted: &[usize]) {
    let deadline = Instant::now() + SOON;
    loop {
        let mut found = cluster.in_sync(TOPIC).await.map(|partitions| partitions[0].clone()).unwrap_or_default();
        found.sort_unstable();
        if found == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "in sync are {found:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn leader(cluster: &ApacheKafka) -> usize {
    cluster.leaders(TOPIC).await.unwrap()[0].unwrap()
}

fn all_but(gone: &[usize]) -> Vec<usize> {
    (0..3).filter(|node| !gone.contains(node)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_every_broker_failure() {
    let Some(_alone) = opted_in().await else { return };
    let mut cluster = ApacheKafka::start("apache-kafka-test", 3).await.unwrap();
    cluster.create_topic(TOPIC, 1).await.unwrap();
    in_sync(&cluster, &[0, 1, 2]).await;
    let mut writer = Writer::new(cluster.bootstrap());
    writer.write(100).await.unwrap();

    // The leader is lost: another broker leads, and two copies are enough.
    let first = leader(&cluster).await;
    cluster.kill(first).await.unwrap();
    cluster.check().expect("a broker that was killed on purpose is no failure");
    writer.write(100).await.unwrap();
    in_sync(&cluster, &all_but(&[first])).await;
    assert_ne!(leader(&cluster).await, first);
    cluster.restart(first).unwrap();
    cluster.ready(SOON).await.unwrap();
    in_sync(&cluster, &[0, 1, 2]).await;

    // The leader hangs: it is fenced, and later continues as a follower.
    let second = leader(&cluster).await;
    cluster.pause(second).unwrap();
    writer.write(100).await.unwrap();
    in_sync(&cluster, &all_but(&[second])).await;
    cluster.resume(second).unwrap();
    cluster.ready(SOON).await.unwrap();
    in_sync(&cluster, &[0, 1, 2]).await;

    // The leader's disk is full: it halts, and catches up when there is room.
    let third = leader(&cluster).await;
    cluster.fill_disk(third).unwrap();
    writer.write(LARGE).await.unwrap();
    cluster.halted(third, SOON).await.unwrap();
    cluster.check().expect("a broker that halted on a full disk is not a failure");
    writer.write(100).await.unwrap();
    in_sync(&cluster, &all_but(&[third])).await;
    cluster.restart(third).unwrap();
    cluster.ready(SOON).await.unwrap();
    in_sync(&cluster, &[0, 1, 2]).await;

    // Two of three are lost: nothing is acknowledged until one of them is back. Then the pending
    // record is.
    let last = leader(&cluster).await;
    let lost = all_but(&[last]);
    for node in &lost {
        cluster.kill(*node).await.unwrap();
    }
    let (producer, id) = (writer.producer.clone(), writer.begin());
    let pending = tokio::spawn({
        let id = id.clone();
        async move { Writer::send(&producer, &id, 100).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!pending.is_finished(), "acknowledged by one copy of three: {:?}", pending.await);
    cluster.restart(lost[0]).unwrap();
    cluster.ready(SOON).await.unwrap();
    match pending.await.unwrap() {
        Ok(()) => drop(writer.acknowledged.insert(id)),
        Err(error) => assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageTimedOut), "{error}"),
    }
    writer.write(100).await.unwrap();
    cluster.restart(lost[1]).unwrap();
    cluster.ready(SOON).await.unwrap();
    in_sync(&cluster, &[0, 1, 2]).await;

    tokio::task::block_in_place(|| writer.assert_all_are_there());
    cluster.stop().await.unwrap();
}

/// The check of topics, on settings as Kafka tells them: a topic with the defaults of a cluster as
/// ours is right, and one that somebody made in a hurry is not, until its settings are corrected.
#[tokio::test(flavor = "multi_thread")]
async fn careless_topic_is_found_and_corrected() {
    use operate::topics::{Promise, judge, right};
    use rdkafka::admin::{AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
    let Some(_alone) = opted_in().await else { return };
    let cluster = ApacheKafka::start("apache-kafka-topics", 3).await.unwrap();
    cluster.create_topic(TOPIC, 6).await.unwrap();
    let promise = Promise { min_insync_replicas: 2, kept_by_brokers: false };
    let found = broker::topic_settings(cluster.bootstrap(), TOPIC).await.unwrap();
    assert_eq!((found.partitions, found.replication_factor), (6, 3));
    assert_eq!(judge(&found, promise), []);

    let careless = NewTopic::new("careless", 1, TopicReplication::Fixed(2))
        .set("min.insync.replicas", "1")
        .set("unclean.leader.election.enable", "true")
        .set("retention.ms", "86400000")
        .set("max.message.bytes", "900000")
        .set("cleanup.policy", "compact");
    let admin = broker::admin(cluster.bootstrap()).unwrap();
    let options = rdkafka::admin::AdminOptions::new();
    admin.create_topics([&careless], &options).await.unwrap();
    // Not every broker knows of a change at once.
    let wrong = async |done: fn(&BTreeSet<&str>) -> bool| {
        let deadline = Instant::now() + SOON;
        loop {
            let found = broker::topic_settings(cluster.bootstrap(), "careless").await;
            let wrong = found.map(|found| judge(&found, promise).into_iter().map(|wrong| wrong.setting).collect());
            match wrong {
                Ok(wrong) if done(&wrong) || Instant::now() > deadline => return wrong,
                Err(error) if Instant::now() > deadline => panic!("{error:#}"),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    let all = ["cleanup.policy", "max.message.bytes", "min.insync.replicas", "replication.factor", "retention.ms"];
    assert_eq!(wrong(|_| true).await, all.into_iter().chain(["unclean.leader.election.enable"]).collect());

    let settings = right(promise);
    let corrected = settings
        .iter()
        .fold(AlterConfig::new(ResourceSpecifier::Topic("careless")), |all, (name, value)| all.set(name, value));
    // This call puts every other setting back to its default.
    admin.alter_configs([&corrected], &options).await.unwrap();
    assert_eq!(wrong(|wrong| wrong.len() == 1).await, ["replication.factor"].into(), "copies cannot be set");
    assert!(broker::topic_settings(cluster.bootstrap(), "absent").await.is_err());
}

#[test]
fn compose_file_has_the_pinned_version() {
    let compose = include_str!("../../compose.yaml");
    let image = compose.split_once("image: apache/kafka:").unwrap().1;
    let version = image.split_whitespace().next().unwrap();
    assert!(PROGRAM.pom.contains(&format!("<version>{version}</version>")), "{version}");
}
