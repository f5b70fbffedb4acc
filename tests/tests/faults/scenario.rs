//! The scenarios: what each breaks, for how long, and what must be seen for it to prove anything.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use local::Standby;
use local::functions::Environments;
use local::proxy::{Fault, Rule, When};
use playhead_tests::{suite, within};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rustix::process::Signal;

use super::settle::objects;
use super::stage::Stage;

/// Sending before anything breaks.
const BEFORE: Duration = Duration::from_secs(4);
/// Sending after everything is repaired, at least.
const AFTER: Duration = Duration::from_secs(5);
/// Long enough for the circuits to return to the primary by themselves, while devices send.
const RETURN: Duration = Duration::from_secs(12);
/// A full disk is noticed with the next write.
const HALTED_WITHIN: Duration = Duration::from_secs(30);
/// Deaths at each point.
const KILLS: usize = 2;
const KILLED_WITHIN: Duration = Duration::from_secs(90);
/// The pause between two poison records in scenarios that are not about poison. It is so long that
/// fewer pile up during an outage than `apply::decide` treats as a flood. A flood is held back by
/// design, longer than a scenario can wait.
const NOW_AND_THEN: Duration = Duration::from_secs(2);
/// With `1`, the store hangs for [`LONG_OUTAGE`] instead of [`SHORT_OUTAGE`].
pub(crate) const LONG: &str = "PLAYHEAD_TEST_LONG";
const LONG_OUTAGE: Duration = Duration::from_secs(1_200);
/// The first batches are given up after some 100 s.
const SHORT_OUTAGE: Duration = Duration::from_secs(120);
/// So few records that no batch by itself looks like an outage.
const SMALL_BATCH: usize = 5;
/// How long to wait until nothing is in flight.
const PATIENCE: Duration = Duration::from_secs(150);
/// `retry` never pauses longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// A batch is given up after ten retries.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(150);
/// What is not about a hot key is applied this soon.
const OTHERS_WITHIN: Duration = Duration::from_secs(15);
/// Rounds of the worst scenario.
const ROUNDS: usize = 6;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Baseline,
    NoStandby,
    LeaderKilled,
    BrokerPaused,
    TwoBrokersDown,
    PrimaryDown,
    BothDown,
    DynamoDb,
    ProcessKilled,
    SqsDown,
    StoreHangs,
    SqsHangs,
    S3Hangs,
    HotKey,
    Poison,
    FullDisk,
    Frozen,
    Worst,
}

/// What must be seen, or the scenario proved nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signs {
    /// Records on the standby during the fault, and on the primary after it.
    pub(crate) standby: bool,
    /// POSTs that were answered with `503`.
    pub(crate) refusals: bool,
    /// Every first attempt that began after the fault is answered with a `202`.
    pub(crate) at_once_after: bool,
    /// Every attempt, ever, is answered with a `202`.
    pub(crate) never_refused: bool,
    /// Poison: at least one record in a hundred.
    pub(crate) poison: bool,
    /// Records that were sent to the queue `retry`.
    pub(crate) retries: bool,
    /// Records that were given up into the failure bucket.
    pub(crate) given_up: bool,
    /// Only the hot session is late: nothing else was sent to `retry` or delivered again.
    pub(crate) one_session: bool,
}

impl suite::Scenario for Scenario {
    const ALL: &'static [Self] = &[
        Self::Baseline,
        Self::NoStandby,
        Self::LeaderKilled,
        Self::BrokerPaused,
        Self::TwoBrokersDown,
        Self::PrimaryDown,
        Self::BothDown,
        Self::DynamoDb,
        Self::ProcessKilled,
        Self::SqsDown,
        Self::StoreHangs,
        Self::SqsHangs,
        Self::S3Hangs,
        Self::HotKey,
        Self::Poison,
        Self::FullDisk,
        Self::Frozen,
        Self::Worst,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Baseline => "no-fault",
            Self::NoStandby => "no-fault-no-standby",
            Self::LeaderKilled => "leader-killed",
            Self::BrokerPaused => "broker-paused",
            Self::TwoBrokersDown => "two-brokers-down",
            Self::PrimaryDown => "primary-down",
            Self::BothDown => "both-logs-down",
            Self::DynamoDb => "dynamodb",
            Self::ProcessKilled => "process-killed",
            Self::SqsDown => "sqs-down",
            Self::StoreHangs => "store-hangs",
            Self::SqsHangs => "sqs-hangs",
            Self::S3Hangs => "s3-hangs",
            Self::HotKey => "hot-key",
            Self::Poison => "poison",
            Self::FullDisk => "full-disk",
            Self::Frozen => "frozen-ingest",
            Self::Worst => "worst",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Baseline => "nothing breaks",
            Self::NoStandby => "nothing breaks, and there is no standby: what a standby costs",
            Self::LeaderKilled => "the broker that leads most partitions is killed (SIGKILL) and restarted",
            Self::BrokerPaused => "a broker is paused (SIGSTOP) for 12 s",
            Self::TwoBrokersDown => "two of three brokers are killed: too few replicas; then they come back",
            Self::PrimaryDown => "all brokers are killed; then they come back",
            Self::BothDown => "all brokers are killed and the standby's API is cut off; then both come back",
            Self::DynamoDb => "DynamoDB throttles, fails, hangs and drops connections for a share of the calls",
            Self::ProcessKilled => {
                "process is killed before and after each read, write and message, poison on the topic"
            }
            Self::SqsDown => "SQS is down while DynamoDB fails and poison is on the topic",
            Self::StoreHangs => "DynamoDB does not answer, while batches are small; then it does",
            Self::SqsHangs => "SQS does not answer while DynamoDB fails and poison is on the topic",
            Self::S3Hangs => "S3 does not answer, and batches that DynamoDB's failure put there wait in it",
            Self::HotKey => "DynamoDB throttles all calls for one session, and no others",
            Self::Poison => "one record in a hundred can never be applied",
            Self::FullDisk => "a broker's disk is full; then it has room again",
            Self::Frozen => "ingest is frozen (SIGSTOP) while all brokers restart, then thawed",
            Self::Worst => "several of these at once, drawn by the seed",
        }
    }
}

impl Scenario {
    pub(crate) fn signs(self) -> Signs {
        let none = Signs::default();
        match self {
            Self::TwoBrokersDown | Self::PrimaryDown => Signs { standby: true, ..none },
            Self::BothDown => Signs { refusals: true, ..none },
            // Devices never notice what happens behind the log.
            Self::Baseline | Self::NoStandby | Self::ProcessKilled => Signs { never_refused: true, ..none },
            Self::DynamoDb => Signs { never_refused: true, retries: true, ..none },
            // On a busy machine a short outage may end before a batch has used its retries.
            Self::StoreHangs => Signs { never_refused: true, retries: true, given_up: outage() == LONG_OUTAGE, ..none },
            Self::S3Hangs => Signs { never_refused: true, given_up: true, ..none },
            Self::HotKey => Signs { never_refused: true, retries: true, one_session: true, ..none },
            Self::SqsDown | Self::SqsHangs => Signs { never_refused: true, ..none },
            Self::Poison => Signs { never_refused: true, poison: true, ..none },
            Self::Frozen => Signs { at_once_after: true, ..none },
            Self::LeaderKilled | Self::BrokerPaused | Self::FullDisk | Self::Worst => none,
        }
    }

    /// Where the standby is.
    pub(crate) fn standby(self) -> Standby {
        if self == Self::NoStandby { Standby::None } else { Standby::Kinesis }
    }

    /// How long the devices must have something to send, at most.
    pub(crate) fn longest(self) -> Duration {
        match self {
            Self::Worst => Duration::from_secs(330),
            Self::StoreHangs => outage() + Duration::from_secs(60),
            Self::S3Hangs => Duration::from_secs(210),
            _ => Duration::from_secs(150),
        }
    }

    /// How long to wait at the end until nothing is in flight. A letter pauses for about as long as
    /// it has waited, or twice that.
    pub(crate) fn patience(self) -> Duration {
        let pause = if self == Self::StoreHangs { (2 * outage()).min(LONGEST_PAUSE) } else { Duration::ZERO };
        PATIENCE + pause
    }

    /// POSTs per second. A long outage must leave no more behind than can be caught up with in the
    /// time of a test.
    pub(crate) fn rate(self, rate: f64) -> f64 {
        if self == Self::StoreHangs { rate / 5.0 } else { rate }
    }

    /// Maximum number of records in a batch, if it is not the template's.
    pub(crate) fn max_batch(self) -> Option<usize> {
        (self == Self::StoreHangs).then_some(SMALL_BATCH)
    }

    /// Breaks things and repairs them. Devices send all the while, and stop soon after.
    pub(crate) async fn script(self, stage: &mut Stage<'_>) -> Result<()> {
        tokio::time::sleep(BEFORE).await;
        match self {
            Self::Baseline | Self::NoStandby => tokio::time::sleep(3 * BEFORE).await,
            Self::LeaderKilled => leader_killed(stage).await?,
            Self::BrokerPaused => broker_paused(stage).await?,
            Self::TwoBrokersDown => brokers_down(stage, &[0, 1]).await?,
            Self::PrimaryDown => brokers_down(stage, &[0, 1, 2]).await?,
            Self::BothDown => both_down(stage).await?,
            Self::DynamoDb => dynamodb(stage).await?,
            Self::ProcessKilled => process_killed(stage).await?,
            Self::SqsDown => sqs_down(stage).await?,
            Self::StoreHangs => store_hangs(stage).await?,
            Self::SqsHangs => sqs_hangs(stage).await?,
            Self::S3Hangs => s3_hangs(stage).await?,
            Self::HotKey => hot_key(stage).await?,
            Self::Poison => poison(stage).await?,
            Self::FullDisk => full_disk(stage).await?,
            Self::Frozen => frozen(stage).await?,
            Self::Worst => worst(stage).await?,
        }
        tokio::time::sleep(AFTER).await;
        Ok(())
    }
}

async fn leader_killed(stage: &mut Stage<'_>) -> Result<()> {
    let leader = stage.leader().await?;
    stage.broken()?;
    stage.cluster.kill(leader).await?;
    tokio::time::sleep(Duration::from_secs(12)).await; // the cluster notices after 6 s
    stage.restart(&[leader]).await?;
    stage.healed()
}

async fn broker_paused(stage: &mut Stage<'_>) -> Result<()> {
    let leader = stage.leader().await?;
    stage.broken()?;
    stage.cluster.pause(leader)?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    stage.cluster.resume(leader)?;
    stage.ready().await?;
    stage.healed()
}

async fn brokers_down(stage: &mut Stage<'_>, nodes: &[usize]) -> Result<()> {
    stage.broken()?;
    for node in nodes {
        stage.cluster.kill(*node).await?;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    stage.restart(nodes).await?;
    stage.healed()?;
    tokio::time::sleep(RETURN).await;
    Ok(())
}

async fn both_down(stage: &mut Stage<'_>) -> Result<()> {
    stage.broken()?;
    stage.proxy.set(vec![always("the standby is cut off", "Kinesis", Fault::Cut)]);
    for node in 0..stage.cluster.brokers() {
        stage.cluster.kill(node).await?;
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    stage.proxy.set(Vec::new());
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.restart(&[0, 1, 2]).await?;
    stage.healed()?;
    tokio::time::sleep(RETURN).await;
    Ok(())
}

async fn dynamodb(stage: &mut Stage<'_>) -> Result<()> {
    stage.broken()?;
    stage.proxy.set(a_bad_day_of_dynamodb());
    tokio::time::sleep(Duration::from_secs(20)).await;
    happened(stage).await?;
    stage.proxy.set(Vec::new());
    stage.healed()
}

/// Enough that the client's retries do not hide all of them.
fn a_bad_day_of_dynamodb() -> Vec<Rule> {
    let throttled = Fault::Error(400, "ProvisionedThroughputExceededException");
    vec![
        some("DynamoDB throttles", "DynamoDB", 0.3, When::Before, throttled),
        some("DynamoDB fails", "DynamoDB", 0.2, When::Before, Fault::Error(500, "InternalServerError")),
        some("DynamoDB hangs", "DynamoDB", 0.02, When::Before, Fault::Hang),
        some("DynamoDB drops connections", "DynamoDB", 0.1, When::Before, Fault::Cut),
        some("DynamoDB's answers are lost", "DynamoDB", 0.1, When::After, Fault::Cut),
    ]
}

/// Points between the read of a batch and its answer. Nothing can intervene between the last of
/// them and the answer itself, but a death there leaves the same behind as a death after the last
/// write or message.
async fn process_killed(stage: &mut Stage<'_>) -> Result<()> {
    let process = stage.environments(&stage.endpoints.process_function);
    let points = [
        ("killed before a read", "BatchGetItem", When::Before),
        ("killed after a read", "BatchGetItem", When::After),
        ("killed before a write", "BatchExecuteStatement", When::Before),
        ("killed after a write", "BatchExecuteStatement", When::After),
        ("killed before a message", "SendMessageBatch", When::Before),
        ("killed after a message", "SendMessageBatch", When::After),
    ];
    stage.broken()?;
    let drip = tokio::spawn(Arc::clone(&stage.poison).drip(NOW_AND_THEN));
    // One point after the other; otherwise one of them might always come first.
    for (name, calls, when) in points {
        let fault = Fault::Kill(process.clone());
        stage.proxy.set(vec![Rule { times: KILLS, ..Rule::always(name, calls, when, fault) }]);
        let proxy = Arc::clone(&stage.proxy);
        within(KILLED_WITHIN, name, async || {
            Ok((proxy.done().await.get(name).copied().unwrap_or_default() >= KILLS).then_some(()))
        })
        .await?;
    }
    stage.proxy.set(Vec::new());
    drip.abort();
    stage.healed()
}

async fn sqs_down(stage: &mut Stage<'_>) -> Result<()> {
    stage.broken()?;
    let drip = tokio::spawn(Arc::clone(&stage.poison).drip(NOW_AND_THEN));
    stage.proxy.set(sqs_is_down());
    tokio::time::sleep(Duration::from_secs(12)).await;
    happened(stage).await?;
    stage.proxy.set(Vec::new());
    drip.abort();
    stage.healed()
}

fn sqs_is_down() -> Vec<Rule> {
    vec![
        some("SQS drops connections", "AmazonSQS", 0.3, When::Before, Fault::Cut),
        always("SQS fails", "AmazonSQS", Fault::Error(500, "InternalError")),
        some("DynamoDB fails", "DynamoDB", 0.6, When::Before, Fault::Error(500, "InternalServerError")),
    ]
}

fn outage() -> Duration {
    if env::var_os(LONG).is_some() { LONG_OUTAGE } else { SHORT_OUTAGE }
}

async fn store_hangs(stage: &mut Stage<'_>) -> Result<()> {
    stage.broken()?;
    stage.proxy.set(vec![always("DynamoDB hangs", "DynamoDB", Fault::Hang)]);
    tokio::time::sleep(outage()).await;
    happened(stage).await?;
    stage.proxy.set(Vec::new());
    stage.healed()
}

async fn sqs_hangs(stage: &mut Stage<'_>) -> Result<()> {
    stage.broken()?;
    let drip = tokio::spawn(Arc::clone(&stage.poison).drip(NOW_AND_THEN));
    stage.proxy.set(vec![
        always("SQS hangs", "AmazonSQS", Fault::Hang),
        some("DynamoDB fails", "DynamoDB", 0.6, When::Before, dynamodb_fails()),
    ]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    happened(stage).await?;
    stage.proxy.set(Vec::new());
    drip.abort();
    stage.healed()
}

/// Nothing is in the bucket until batches have failed for a while. Then DynamoDB recovers first.
async fn s3_hangs(stage: &mut Stage<'_>) -> Result<()> {
    let s3_hangs = || always("S3 hangs", "S3", Fault::Hang);
    stage.broken()?;
    stage.proxy.set(vec![s3_hangs(), always("DynamoDB fails", "DynamoDB", dynamodb_fails())]);
    within(GIVEN_UP_WITHIN, "a call to S3", async || {
        Ok(stage.proxy.done().await.contains_key(s3_hangs().name).then_some(()))
    })
    .await?;
    happened(stage).await?;
    stage.proxy.set(vec![s3_hangs()]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    ensure!(objects(stage.endpoints).await? > 0, "nothing waits in the failure bucket");
    stage.proxy.set(Vec::new());
    stage.healed()
}

fn dynamodb_fails() -> Fault {
    Fault::Error(500, "InternalServerError")
}

/// While the key is throttled, all other events must reach their views.
async fn hot_key(stage: &mut Stage<'_>) -> Result<()> {
    let busy = Duration::from_secs(25);
    let hot = stage.busiest_session(BEFORE, BEFORE + busy)?;
    stage.broken()?;
    stage.proxy.set(vec![Rule::hot_key("one session is throttled", hot.text)]);
    tokio::time::sleep(busy + AFTER).await;
    happened(stage).await?;
    stage.only_waits(hot.events, OTHERS_WITHIN).await?;
    stage.proxy.set(Vec::new());
    stage.healed()
}

async fn poison(stage: &mut Stage<'_>) -> Result<()> {
    stage.broken()?;
    let drip = tokio::spawn(Arc::clone(&stage.poison).drip(Duration::from_millis(500)));
    tokio::time::sleep(Duration::from_secs(20)).await;
    drip.abort();
    stage.healed()
}

async fn full_disk(stage: &mut Stage<'_>) -> Result<()> {
    let leader = stage.leader().await?;
    stage.broken()?;
    stage.cluster.fill_disk(leader)?;
    stage.cluster.halted(leader, HALTED_WITHIN).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    stage.restart(&[leader]).await?;
    stage.healed()
}

/// Lambda may freeze an environment between two requests for any length of time. Devices send
/// nothing meanwhile, and all at once afterwards, so every environment gets its next request.
async fn frozen(stage: &mut Stage<'_>) -> Result<()> {
    let ingest = stage.environments(&stage.endpoints.ingest_function);
    let closed = stage.valve.close().await?;
    stage.broken()?;
    let frozen = ingest.signal(Signal::STOP)?;
    ensure!(frozen > 1, "only {frozen} environments of ingest");
    let restarted = async {
        for node in 0..stage.cluster.brokers() {
            stage.cluster.kill(node).await?;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.restart(&[0, 1, 2]).await
    };
    let restarted = restarted.await;
    let thawed = ingest.signal(Signal::CONT)?;
    restarted?;
    ensure!(thawed == frozen, "{frozen} environments were frozen, {thawed} thawed");
    stage.healed()?;
    drop(closed);
    Ok(())
}

/// A fault of the log and one behind it at once, again and again.
async fn worst(stage: &mut Stage<'_>) -> Result<()> {
    let process = stage.environments(&stage.endpoints.process_function);
    stage.broken()?;
    let drip = tokio::spawn(Arc::clone(&stage.poison).drip(NOW_AND_THEN));
    for round in 0..ROUNDS {
        let rules = match stage.chance.random_range(0..4) {
            0 => a_bad_day_of_dynamodb(),
            1 => sqs_is_down(),
            2 => vec![some("the standby fails", "Kinesis", 0.5, When::Before, Fault::Error(500, "InternalFailure"))],
            _ => a_death_now_and_then(&process),
        };
        stage.proxy.set(rules);
        let mut nodes = [0, 1, 2];
        rand::seq::SliceRandom::shuffle(nodes.as_mut_slice(), &mut stage.chance);
        // Each of the four comes once, then the seed decides.
        let kind = if round < 4 { round } else { *[0, 1, 2, 3].choose(&mut stage.chance).context("no kinds")? };
        let down = match kind {
            0 => &nodes[..1],
            1 => &nodes[..2],
            2 => &nodes[..3],
            3 => &[],
            _ => bail!("there are four kinds"),
        };
        for node in down {
            stage.cluster.kill(*node).await?;
        }
        if down.is_empty() {
            stage.cluster.pause(nodes[0])?;
        }
        let seconds = stage.chance.random_range(6.0..12.0);
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        if down.is_empty() {
            stage.cluster.resume(nodes[0])?;
            stage.ready().await?;
        } else {
            stage.restart(down).await?;
        }
        stage.proxy.set(Vec::new());
        tokio::time::sleep(AFTER).await;
    }
    drip.abort();
    stage.healed()?;
    tokio::time::sleep(RETURN).await;
    Ok(())
}

fn a_death_now_and_then(process: &Environments) -> Vec<Rule> {
    vec![
        some("killed before a write", "BatchExecuteStatement", 0.02, When::Before, Fault::Kill(process.clone())),
        some("killed after a write", "BatchExecuteStatement", 0.02, When::After, Fault::Kill(process.clone())),
    ]
}

/// Waits until every rule in force has applied: an API that nobody calls cannot fail.
async fn happened(stage: &Stage<'_>) -> Result<()> {
    within(KILLED_WITHIN, "every fault of the scenario", async || {
        let (wanted, done) = (stage.proxy.in_force(), stage.proxy.done().await);
        Ok(wanted.iter().all(|name| done.contains_key(name)).then_some(()))
    })
    .await
}

fn always(name: &'static str, calls: &'static str, fault: Fault) -> Rule {
    Rule::always(name, calls, When::Before, fault)
}

fn some(name: &'static str, calls: &'static str, share: f64, when: When, fault: Fault) -> Rule {
    Rule { share, ..Rule::always(name, calls, when, fault) }
}
