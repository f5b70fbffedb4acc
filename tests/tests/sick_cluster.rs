//! The durable log on an Apache Kafka cluster whose brokers fail: it keeps using a cluster that
//! accepts records, and never acknowledges what is not durable.
//!
//! It needs Java and Maven, so it runs only on request: `PLAYHEAD_TEST_APACHE_KAFKA=1`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use anyhow::{Result, ensure};
use aws_config::SdkConfig;
use local::ApacheKafka;
use playhead_tests::opted_in;
use std::time::{Duration, Instant};
use stream::{Ack, AppendError, DurableLog as _, KafkaConfig, KafkaLog, KafkaSecurity, LogRecord};
use tokio::sync::Mutex;
use tokio::time::sleep;

const OPT_IN: &str = "PLAYHEAD_TEST_APACHE_KAFKA";
const TOPIC: &str = "events";
const PARTITIONS: i32 = 12;
/// More than the cluster needs to recover on a busy machine.
const SOON: Duration = Duration::from_secs(90);
/// One cluster at a time.
static MACHINE: Mutex<()> = Mutex::const_new(());

/// A cluster that accepts records, and a log on it that knows its partitions.
async fn start(name: &str, brokers: u16) -> Result<(ApacheKafka, KafkaLog)> {
    let cluster = ApacheKafka::start(name, brokers).await?;
    cluster.create_topic(TOPIC, PARTITIONS).await?;
    let mut config = KafkaConfig::new(TOPIC, KafkaSecurity::Plaintext);
    config.bootstrap = Some(cluster.bootstrap().to_owned());
    let log = KafkaLog::connect(&config, &SdkConfig::builder().build()).await?;
    acknowledged_again(&log).await?;
    Ok((cluster, log))
}

/// Sessions on all partitions.
fn records() -> Vec<LogRecord> {
    let record = |n| LogRecord::new(format!("session-{n}"), format!("value-{n}"));
    (0..48).map(record).collect()
}

async fn appended(log: &KafkaLog) -> Vec<Result<Ack, AppendError>> {
    log.append(&records()).await
}

/// Appends until everything is acknowledged.
async fn acknowledged_again(log: &KafkaLog) -> Result<()> {
    let began = Instant::now();
    loop {
        let results = appended(log).await;
        if results.iter().all(Result::is_ok) {
            return Ok(());
        }
        ensure!(began.elapsed() < SOON, "the cluster is healthy, but: {results:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// With five brokers, each partition has two that it does not need. Until the cluster notices the
/// paused broker (6 s), no partition with a replica there acknowledges anything, whichever broker
/// leads it.
#[tokio::test]
async fn appends_are_acknowledged_with_one_of_five_brokers_paused() -> Result<()> {
    if !opted_in(OPT_IN, "Apache Kafka (it needs Java 17 and Maven)") {
        return Ok(());
    }
    let _machine = MACHINE.lock().await;
    let (mut cluster, log) = start("sick-cluster-of-five", 5).await?;
    cluster.pause(4)?;
    let (paused, mut copies) = (Instant::now(), 0);
    while paused.elapsed() < Duration::from_secs(10) {
        for result in appended(&log).await {
            copies += result?.copies - 1;
        }
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(copies > 0, "no record had to go elsewhere: the pause had no effect");
    cluster.resume(4)?;
    cluster.ready(SOON).await?;
    acknowledged_again(&log).await?;
    cluster.stop().await
}

/// One replica of three is not durable, however healthy its broker. The leader alone would
/// acknowledge.
#[tokio::test]
async fn one_of_three_brokers_acknowledges_nothing_alone() -> Result<()> {
    if !opted_in(OPT_IN, "Apache Kafka (it needs Java 17 and Maven)") {
        return Ok(());
    }
    let _machine = MACHINE.lock().await;
    let (mut cluster, log) = start("sick-cluster-of-three", 3).await?;
    cluster.kill(1).await?;
    cluster.kill(2).await?;
    for _ in 0..3 {
        for result in appended(&log).await {
            ensure!(matches!(result, Err(AppendError::Unavailable(_))), "{result:?}");
        }
    }
    cluster.restart(1)?;
    cluster.restart(2)?;
    cluster.ready(SOON).await?;
    acknowledged_again(&log).await?;
    cluster.stop().await
}
