//! The durable log on Apache Kafka whose brokers fail: it stays inside a cluster that can take records, and calls nothing durable
//! that is not.
//!
//! It needs Java and, for its installation, Maven, so one asks for it: `PLAYHEAD_TEST_APACHE_KAFKA=1`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use anyhow::{Result, ensure};
use aws_config::SdkConfig;
use local::ApacheKafka;
use std::env::VarError;
use std::time::{Duration, Instant};
use stream::{Ack, AppendError, DurableLog as _, KafkaConfig, KafkaLog, KafkaSecurity, LogRecord};
use tokio::sync::Mutex;
use tokio::time::sleep;

const OPT_IN: &str = "PLAYHEAD_TEST_APACHE_KAFKA";
const TOPIC: &str = "events";
const PARTITIONS: i32 = 12;
/// More than the cluster needs to come back, on a busy machine.
const SOON: Duration = Duration::from_secs(90);
/// One cluster at a time.
static MACHINE: Mutex<()> = Mutex::const_new(());

fn opted_in() -> bool {
    match std::env::var(OPT_IN) {
        Ok(value) if value == "1" => true,
        Err(VarError::NotPresent) => {
            // Past the test harness, which keeps what passing tests print to itself.
            let said =
                format!("\n*** SKIPPED: to run Apache Kafka, install Java 17 and Maven, and set {OPT_IN}=1. ***\n");
            eprintln!("{said}");
            false
        }
        // A misspelt wish must not pass for a test.
        other => panic!("{OPT_IN} is {other:?}: set it to 1, or leave it unset to skip Apache Kafka"),
    }
}

/// A cluster that takes records, and a log on it that knows its partitions.
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

/// Appends until all of it is acknowledged.
async fn acknowledged_again(log: &KafkaLog) -> Result<()> {
    let began = Instant::now();
    loop {
        let results = appended(log).await;
        if results.iter().all(Result::is_ok) {
            return Ok(());
        }
        ensure!(began.elapsed() < SOON, "the cluster is well, yet: {results:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// With five brokers each partition has two that it does not need. Until the cluster misses the broker that stands still (6 s), the
/// partitions that wait for it acknowledge nothing, whoever leads them.
#[tokio::test]
async fn every_append_is_acknowledged_while_one_of_five_brokers_stands_still() -> Result<()> {
    if !opted_in() {
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
    ensure!(copies > 0, "nothing had to go elsewhere: the broker was not missed");
    cluster.resume(4)?;
    cluster.ready(SOON).await?;
    acknowledged_again(&log).await?;
    cluster.stop().await
}

/// One replica of three is not durable, however well its broker is. An acknowledgement by the leader alone would pass here.
#[tokio::test]
async fn nothing_is_acknowledged_by_one_of_three_brokers_and_the_same_client_goes_on_when_they_are_back() -> Result<()>
{
    if !opted_in() {
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
