//! The adapter against librdkafka's mock cluster, which speaks the protocol and injects broker
//! errors. The mock neither replicates nor elects: the end-to-end and fault suites use real
//! brokers.

use super::*;
use crate::log::{Ack, AppendError};

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "playback-events";
const PARTITIONS: i32 = 4;

/// The partition of the key `abc`: see the table of hashes below.
const OWN_OF_ABC: i32 = 479_470_107 % PARTITIONS;

type Mock = MockCluster<'static, DefaultProducerContext>;

/// Partition `n` is led by broker `n % brokers + 1`.
fn mock(brokers: i32) -> Mock {
    let mock = MockCluster::new(brokers).unwrap();
    mock.create_topic(TOPIC, PARTITIONS, brokers).unwrap();
    for partition in 0..PARTITIONS {
        mock.partition_leader(TOPIC, partition, Some(leader_of(partition, brokers))).unwrap();
    }
    mock
}

fn leader_of(partition: i32, brokers: i32) -> i32 {
    partition % brokers + 1
}

fn config_for(mock: &Mock) -> KafkaConfig {
    let mut config = KafkaConfig::new(TOPIC, KafkaSecurity::Plaintext);
    config.bootstrap = Some(mock.bootstrap_servers());
    config
}

async fn connect(config: &KafkaConfig) -> KafkaLog {
    let sdk = SdkConfig::builder().build();
    KafkaLog::connect(config, &sdk).await.unwrap()
}

fn record(key: &str, value: impl Into<Bytes>) -> LogRecord {
    LogRecord::new(key, value.into())
}

fn records(count: usize) -> Vec<LogRecord> {
    (0..count).map(|n| record(&format!("session-{n}"), format!("value-{n}"))).collect()
}

/// Reads `count` records back: partition, key, value.
fn read_back(mock: &Mock, count: usize) -> Vec<(i32, String, Vec<u8>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", mock.bootstrap_servers())
        .set("group.id", "test")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut found = Vec::new();
    while found.len() < count && Instant::now() < deadline {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.unwrap();
            let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            found.push((message.partition(), key, message.payload().unwrap().to_vec()));
        }
    }
    found
}

#[tokio::test]
async fn records_are_acknowledged_and_read_back_unchanged() {
    let mock = mock(3);
    let log = connect(&config_for(&mock)).await;
    let sent = records(50);
    let results = log.append(&sent).await;
    assert_eq!(results, vec![Ok(Ack::ONCE); 50]);
    let read: HashSet<(String, Vec<u8>)> =
        read_back(&mock, 50).into_iter().map(|(_, key, value)| (key, value)).collect();
    let expected = sent.into_iter().map(|r| (r.key, r.value.to_vec())).collect();
    assert_eq!(read, expected);
}

/// The hashes come from Kafka's test of its Java `Utils.murmur2`. For the first append, no
/// partitions are known and librdkafka chooses; the second is our choice.
#[tokio::test]
async fn a_session_lands_where_a_java_producer_would_put_it() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    let table: [(&str, i32); 4] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("abc", 479_470_107),
    ];
    let sent = table.map(|(key, _)| record(key, "v"));
    assert_eq!(log.append(&sent).await, vec![Ok(Ack::ONCE); 4]);
    log.warm_up().await.unwrap();
    assert_eq!(log.append(&sent).await, vec![Ok(Ack::ONCE); 4]);
    let mut found: Vec<(String, i32)> =
        read_back(&mock, 8).into_iter().map(|(partition, key, _)| (key, partition)).collect();
    let expected = table.map(|(key, hash)| (key.to_owned(), (hash & i32::MAX) % PARTITIONS));
    let mut expected = [expected.clone(), expected].concat();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn our_choice_matches_librdkafkas_for_any_key() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    let sent: Vec<_> = (0..200).map(|n| record(&"session-0123456789"[..n % 19], format!("{n}"))).collect();
    let sent: Vec<_> = sent.into_iter().enumerate().map(|(n, r)| record(&format!("{n}{}", r.key), r.value)).collect();
    assert_eq!(log.append(&sent).await, vec![Ok(Ack::ONCE); 200]);
    log.warm_up().await.unwrap();
    assert_eq!(log.append(&sent).await, vec![Ok(Ack::ONCE); 200]);
    let read: HashSet<(String, i32)> =
        read_back(&mock, 400).into_iter().map(|(partition, key, _)| (key, partition)).collect();
    assert_eq!(read.len(), 200, "a key lies on two partitions");
}

#[tokio::test]
async fn a_refused_record_goes_elsewhere_and_leaves_no_copy() {
    let mock = mock(3);
    let log = connect(&config_for(&mock)).await;
    log.warm_up().await.unwrap();
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS]);
    assert_eq!(log.append(&[record("abc", "v")]).await, [Ok(Ack::ONCE)]);
    let read = read_back(&mock, 1);
    assert_ne!(leader_of(read[0].0, 3), leader_of(OWN_OF_ABC, 3), "the next attempt goes to another leader");
}

#[tokio::test]
async fn an_attempt_that_may_have_arrived_counts_as_a_copy() {
    let mock = mock(3);
    let log = connect(&config_for(&mock)).await;
    log.warm_up().await.unwrap();
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT; 2]);
    assert_eq!(log.append(&[record("abc", "v")]).await, [Ok(Ack { copies: 3 })]);
}

#[tokio::test]
async fn a_silent_leader_is_bypassed_and_then_avoided() {
    let mock = mock(3);
    let mut config = config_for(&mock);
    config.second_attempt_after = Duration::from_millis(300);
    let log = connect(&config).await;
    log.warm_up().await.unwrap();
    mock.broker_round_trip_time(leader_of(OWN_OF_ABC, 3), Duration::from_secs(60)).unwrap();
    assert_eq!(log.append(&[record("abc", "first")]).await, [Ok(Ack { copies: 2 })]);
    assert_eq!(log.append(&[record("abc", "second")]).await, [Ok(Ack::ONCE)]);
    let values: HashSet<Vec<u8>> = read_back(&mock, 2).into_iter().map(|(_, _, value)| value).collect();
    assert_eq!(values, HashSet::from([b"first".to_vec(), b"second".to_vec()]));
}

/// The first attempt fills the queue, so the second one cannot even be enqueued.
#[tokio::test]
async fn a_silent_attempt_is_awaited_when_no_other_can_begin() {
    let mock = mock(1);
    let mut config = config_for(&mock);
    config.second_attempt_after = Duration::from_millis(200);
    config.queue_kib = 1;
    let log = connect(&config).await;
    log.warm_up().await.unwrap();
    mock.broker_round_trip_time(1, Duration::from_millis(600)).unwrap();
    assert_eq!(log.append(&[record("abc", vec![0_u8; 700])]).await, [Ok(Ack::ONCE)]);
}

#[tokio::test]
async fn a_lost_leader_is_bypassed_within_the_append() {
    let mock = mock(3);
    let log = connect(&config_for(&mock)).await;
    log.warm_up().await.unwrap();
    mock.broker_down(leader_of(OWN_OF_ABC, 3)).unwrap();
    let results = log.append(&records(20)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test]
async fn a_partition_without_a_leader_is_skipped() {
    let mock = mock(3);
    mock.partition_leader(TOPIC, OWN_OF_ABC, None).unwrap();
    let log = connect(&config_for(&mock)).await;
    log.warm_up().await.unwrap();
    assert_eq!(log.append(&[record("abc", "v")]).await, [Ok(Ack::ONCE)]);
    assert_ne!(read_back(&mock, 1)[0].0, OWN_OF_ABC);
}

#[tokio::test]
async fn nowhere_to_write_is_unavailable_unless_metadata_is_old() {
    let mock = mock(1);
    let lead = |leader| (0..PARTITIONS).for_each(|it| mock.partition_leader(TOPIC, it, leader).unwrap());
    lead(None);
    let log = connect(&config_for(&mock)).await;
    assert!(matches!(log.warm_up().await, Err(WarmUpError::Topic { .. })));
    let began = Instant::now();
    let failure = log.append(&records(1)).await.remove(0).unwrap_err();
    assert!(began.elapsed() < config_for(&mock).delivery_timeout, "it does not wait in vain");
    assert_eq!((failure.reason(), failure.attempt().copies), ("unavailable", 0), "{failure}");
    lead(Some(1));
    // like an environment that was frozen meanwhile
    tokio::time::sleep(FRESH).await;
    assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)]);
}

#[tokio::test]
async fn lasting_transient_errors_end_as_unavailable_in_time() {
    // librdkafka retries NOT_LEADER as long as it lasts, so each attempt ends in silence
    for (error, copies) in [
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 0),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, 3),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, 1),
    ] {
        let mock = mock(1);
        let mut config = config_for(&mock);
        config.delivery_timeout = Duration::from_millis(1000);
        let log = connect(&config).await;
        log.warm_up().await.unwrap();
        mock.request_errors(RDKafkaApiKey::Produce, &[error; 500]);
        let began = Instant::now();
        let results = log.append(&records(2)).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{error:?}");
        for result in results {
            let Err(AppendError::Unavailable(attempt)) = result else {
                panic!("{error:?}: {result:?}");
            };
            assert_eq!((attempt.log.as_str(), attempt.key_bytes), (TOPIC, 9));
            assert_eq!((attempt.value_bytes, attempt.copies), (7, copies), "{error:?}");
        }
        mock.clear_request_errors(RDKafkaApiKey::Produce);
        assert!(log.append(&records(1)).await[0].is_ok(), "{error:?}");
    }
}

#[tokio::test]
async fn permanent_broker_errors_are_told_apart() {
    for (error, reason, code) in [
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "too_large", "MessageSizeTooLarge"),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "denied", "TopicAuthorizationFailed"),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "denied", "ClusterAuthorizationFailed"),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, "unavailable", "InvalidRequiredAcks"),
    ] {
        let mock = mock(1);
        let log = connect(&config_for(&mock)).await;
        mock.request_errors(RDKafkaApiKey::Produce, &[error; 3]);
        let result = log.append(&records(1)).await.remove(0);
        let failure = result.expect_err("the broker refused it");
        assert_eq!(failure.reason(), reason, "{failure}");
        assert_eq!(failure.attempt().code, code);
    }
}

#[tokio::test]
async fn an_oversize_record_fails_alone() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    let big = vec![0_u8; MAX_RECORD_BYTES + 1];
    let results = log.append(&[record("a", "v"), record("b", big), record("c", "v")]).await;
    assert_eq!(results[0], Ok(Ack::ONCE));
    assert!(matches!(&results[1], Err(AppendError::TooLarge(a)) if a.value_bytes == MAX_RECORD_BYTES + 1));
    assert_eq!(results[2], Ok(Ack::ONCE));
}

/// The sixth record is refused while five are in flight, which also shows that none was waited for
/// before it.
#[tokio::test]
async fn a_full_queue_throttles_the_rest_immediately() {
    let mock = mock(1);
    let mut config = config_for(&mock);
    config.queue_records = 5;
    let log = connect(&config).await;
    let results = log.append(&records(8)).await;
    assert_eq!(results[..5], vec![Ok(Ack::ONCE); 5]);
    for result in &results[5..] {
        assert!(matches!(result, Err(AppendError::Throttled(_))), "{result:?}");
    }
    // On a busy machine, librdkafka frees a record's place shortly after it reports the record.
    let again = async {
        while log.append(&records(5)).await != vec![Ok(Ack::ONCE); 5] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the queue has space again");
}

#[tokio::test]
async fn a_lost_broker_is_used_again_when_it_is_back() {
    let mock = mock(1);
    let mut config = config_for(&mock);
    config.delivery_timeout = Duration::from_millis(1000);
    let log = connect(&config).await;
    assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)]);
    mock.broker_down(-1).unwrap();
    let began = Instant::now();
    let result = log.append(&records(1)).await.remove(0);
    assert!(matches!(result, Err(AppendError::Unavailable(_))), "{result:?}");
    assert!(began.elapsed() < Duration::from_secs(4));
    mock.broker_up(-1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.append(&records(1)).await[0].is_err() {
        assert!(Instant::now() < deadline, "the broker is back but not used");
    }
}

#[tokio::test]
async fn a_closed_connection_is_reopened_within_the_append() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)]);
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT]);
    assert_eq!(log.append(&records(1)).await, [Ok(Ack { copies: 2 })]);
}

#[tokio::test]
async fn warm_up_reaches_every_leader() {
    let mock = mock(3);
    let log = connect(&config_for(&mock)).await;
    log.warm_up().await.unwrap();
    let leaders = log.leaders().await.unwrap();
    assert_eq!(leaders.into_keys().collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn warm_up_names_the_unreachable_leaders() {
    let mock = mock(3);
    let mut config = config_for(&mock);
    config.connect_timeout = Duration::from_secs(2);
    mock.broker_down(2).unwrap();
    let error = connect(&config).await.warm_up().await.unwrap_err();
    let WarmUpError::Leaders { failures, .. } = error else {
        panic!("{error}");
    };
    let unreached: Vec<i32> = failures.iter().map(|(leader, _)| *leader).collect();
    assert_eq!(unreached, [2]);
}

#[tokio::test]
async fn warm_up_reports_the_error_within_its_time_limit() {
    let mock = mock(1);
    let mut config = config_for(&mock);
    config.topic = "misspelt".to_owned();
    config.connect_timeout = Duration::from_secs(2);
    let log = connect(&config).await;
    let error = log.warm_up().await.unwrap_err();

    assert!(matches!(error, WarmUpError::Topic { .. }), "{error}");

    mock.broker_down(-1).unwrap();
    let began = Instant::now();
    let log = connect(&config).await;
    let error = log.warm_up().await.unwrap_err();
    assert!(matches!(error, WarmUpError::Metadata { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn an_empty_append_has_no_results() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    assert!(log.append(&[]).await.is_empty());
}

/// librdkafka accepts the whole IAM configuration, including OAUTHBEARER with our token callback.
#[cfg(feature = "tls")]
#[tokio::test]
async fn a_client_for_iam_can_be_created() {
    let security = KafkaSecurity::Iam { region: "us-east-1".to_owned() };
    let mut config = KafkaConfig::new(TOPIC, security);
    config.bootstrap = Some("127.0.0.1:1".to_owned());
    config.delivery_timeout = Duration::from_millis(500);
    let log = connect(&config).await;
    let failure = log.append(&records(1)).await.remove(0).unwrap_err();
    assert_eq!(failure.reason(), "unavailable", "{failure}");
}
