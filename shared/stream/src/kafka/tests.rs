//! The adapter against librdkafka's mock cluster, which speaks the protocol and injects broker errors.
//! Real brokers are for the end-to-end and fault suites: the mock neither replicates nor elects.

use super::*;

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "playback-events";
const PARTITIONS: i32 = 4;

type Mock = MockCluster<'static, DefaultProducerContext>;

/// Partition `n` is led by broker `n % brokers + 1`.
fn mock(brokers: i32) -> Mock {
    let mock = MockCluster::new(brokers).unwrap();
    mock.create_topic(TOPIC, PARTITIONS, brokers).unwrap();
    for partition in 0..PARTITIONS {
        let leader = partition % brokers + 1;
        mock.partition_leader(TOPIC, partition, Some(leader)).unwrap();
    }
    mock
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
    LogRecord { key: key.to_owned(), value: value.into() }
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
async fn every_record_is_acknowledged_and_read_back_with_its_key_and_bytes() {
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

/// The hashes are those of Kafka's own test of its Java `Utils.murmur2`.
#[tokio::test]
async fn a_session_lands_on_the_partition_that_a_java_producer_would_choose() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    let table: [(&str, i32); 4] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("abc", 479_470_107),
    ];
    let results = log.append(&table.map(|(key, _)| record(key, "v"))).await;
    assert_eq!(results, vec![Ok(Ack::ONCE); 4]);
    let found: HashSet<(String, i32)> =
        read_back(&mock, 4).into_iter().map(|(partition, key, _)| (key, partition)).collect();
    let expected = table.map(|(key, hash)| (key.to_owned(), (hash & i32::MAX) % PARTITIONS)).into();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn too_few_replicas_for_a_moment_is_retried_and_acknowledged_once() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    mock.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT],
    );
    assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)]);
    assert_eq!(read_back(&mock, 1).len(), 1);
}

#[tokio::test]
async fn lasting_retriable_errors_end_as_unavailable_in_time_and_then_it_recovers() {
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
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
            assert_eq!(attempt.value_bytes, 7);
        }
        mock.clear_request_errors(RDKafkaApiKey::Produce);
        assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)], "{error:?}");
    }
}

#[tokio::test]
async fn lasting_errors_of_the_broker_are_told_apart() {
    for (error, reason, code) in [
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "too_large", "MessageSizeTooLarge"),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "denied", "TopicAuthorizationFailed"),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, "unavailable", "InvalidRequiredAcks"),
    ] {
        let mock = mock(1);
        let log = connect(&config_for(&mock)).await;
        mock.request_errors(RDKafkaApiKey::Produce, &[error]);
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

/// That the sixth is refused while five are under way also shows that none was waited for before it.
#[tokio::test]
async fn a_full_queue_throttles_the_rest_at_once_and_delivers_what_it_holds() {
    let mock = mock(1);
    let mut config = config_for(&mock);
    config.queue_records = 5;
    let log = connect(&config).await;
    let results = log.append(&records(8)).await;
    assert_eq!(results[..5], vec![Ok(Ack::ONCE); 5]);
    for result in &results[5..] {
        assert!(matches!(result, Err(AppendError::Throttled(_))), "{result:?}");
    }
    assert_eq!(log.append(&records(5)).await, vec![Ok(Ack::ONCE); 5]);
}

#[tokio::test]
async fn a_lost_broker_is_unavailable_in_time_and_used_again_when_it_is_back() {
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
    while log.append(&records(1)).await != [Ok(Ack::ONCE)] {
        assert!(Instant::now() < deadline, "the broker is back but not used");
    }
}

#[tokio::test]
async fn a_closed_connection_is_made_again_within_the_same_append() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)]);
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT]);
    assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)]);
}

#[tokio::test]
async fn a_client_that_may_not_write_is_denied() {
    let mock = mock(1);
    mock.request_errors(
        RDKafkaApiKey::InitProducerId,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED],
    );
    let log = connect(&config_for(&mock)).await;
    for _ in ["while it breaks", "when it is broken"] {
        let failure = log.append(&records(1)).await.remove(0).unwrap_err();
        assert_eq!(failure.reason(), "denied", "{failure}");
        assert_eq!(failure.attempt().code, "ClusterAuthorizationFailed");
    }
}

#[tokio::test]
async fn a_client_broken_for_ever_is_replaced() {
    let mock = mock(1);
    let mut config = config_for(&mock);
    config.replace_interval = Duration::ZERO;
    let log = connect(&config).await;
    assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)]);
    // at the head of the line this error is fatal to an idempotent producer
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let result = log.append(&records(1)).await.remove(0);
    assert!(matches!(result, Err(AppendError::Unavailable(_))), "{result:?}");
    assert_eq!(log.append(&records(3)).await, vec![Ok(Ack::ONCE); 3]);
}

#[tokio::test]
async fn a_broken_client_says_why_until_it_may_be_replaced() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    assert_eq!(log.append(&records(1)).await, [Ok(Ack::ONCE)]);
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    assert!(log.append(&records(1)).await[0].is_err());
    let failure = log.append(&records(1)).await.remove(0).unwrap_err();
    assert_eq!(failure.attempt().code, "OutOfOrderSequenceNumber");
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
async fn warm_up_names_the_leaders_that_it_did_not_reach() {
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
async fn warm_up_says_what_is_wrong_within_its_bound() {
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
async fn nothing_to_append_is_no_result() {
    let mock = mock(1);
    let log = connect(&config_for(&mock)).await;
    assert!(log.append(&[]).await.is_empty());
}

/// librdkafka accepts the whole configuration for IAM, in particular OAUTHBEARER with our token callback.
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
