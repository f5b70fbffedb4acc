//! The scenarios: what each breaks, for how long, and what must be seen for it to prove anything.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use local::Standby;
use playhead_tests::functions::Environments;
use playhead_tests::proxy::{Fault, Rule, When};
use playhead_tests::{suite, within};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rustix::process::Signal;

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
            Self::SqsDown => Signs { never_refused: true, ..none },
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
        Duration::from_secs(if self == Self::Worst { 330 } else { 150 })
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
        ("killed before a write", "UpdateItem", When::Before),
        ("killed after a write", "UpdateItem", When::After),
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
        some("killed before a write", "UpdateItem", 0.02, When::Before, Fault::Kill(process.clone())),
        some("killed after a write", "UpdateItem", 0.02, When::After, Fault::Kill(process.clone())),
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
