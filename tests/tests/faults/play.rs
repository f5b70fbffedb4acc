//! One scenario from beginning to end, on its own local cloud: devices send, the script breaks
//! things, everything converges.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use lambda::clock::now_ms;
use local::functions::configure;
use local::proxy::{ENDPOINTS, FaultProxy};
use local::{ApacheKafka, Brokers, LocalCloud, LocalOptions, Progress};
use playhead_tests::suite::{Load, Row, Scenario as _, folder};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use simulate::plan::Plan;
use simulate::send::{Auth, Pace, Target, Valve, send_through};
use simulate::{Faults, Model};

use super::scenario::Scenario;
use super::settle::{complaints, settle};
use super::stage::{Marks, Poison, Stage, heal};
use super::table::{Figures, row};

const PARTITIONS: i32 = 6;
/// Attempts in flight at once. The emulator starts an environment for each attempt that finds none
/// idle, so this also bounds their number.
const CONCURRENCY: usize = 24;
/// Devices never give up within a scenario.
const ATTEMPTS: u32 = 10_000;
/// The simulator's sessions make about nine POSTs each.
const POSTS_PER_SESSION: f64 = 8.0;

/// Plays a scenario.
///
/// # Errors
/// If it could not be played. Broken promises are not an error: they are in the row.
pub(crate) async fn play(scenario: Scenario, cluster: &mut ApacheKafka, load: Load) -> Result<Row<Figures>> {
    heal(cluster).await?;
    let options = LocalOptions {
        standby: scenario.standby(),
        kafka: Brokers::At(cluster.bootstrap().to_owned()),
        partitions: PARTITIONS,
        max_batch: scenario.max_batch(),
        parameters: BTreeMap::from([("KafkaMinInsyncReplicas".to_owned(), "2".to_owned())]),
        ..LocalOptions::named("faults-cloud")?
    };
    let load = Load { rate: scenario.rate(load.rate), ..load };
    let mut cloud = LocalCloud::start(options, &Progress::silent()).await?;
    let played = play_on(scenario, &mut cloud, cluster, load).await;
    // Pass or fail, the next scenario needs a healthy cluster, and this one's topic must be
    // deletable.
    heal(cluster).await?;
    cloud.stop().await?;
    played
}

async fn play_on(
    scenario: Scenario,
    cloud: &mut LocalCloud,
    cluster: &mut ApacheKafka,
    load: Load,
) -> Result<Row<Figures>> {
    let endpoints = &cloud.endpoints().clone();
    let proxy = FaultProxy::start(&endpoints.aws_endpoint, load.seed).await?;
    let [dynamodb, sqs, kinesis, s3] = ENDPOINTS.map(|variable| (variable, Some(proxy.url.as_str())));
    configure(endpoints, &endpoints.ingest_function, &[kinesis]).await?;
    configure(endpoints, &endpoints.process_function, &[dynamodb, sqs]).await?;
    // Its queue is spared: if it cannot set a pause, the queue's own applies, which is six minutes.
    configure(endpoints, &endpoints.retry_function, &[dynamodb, s3]).await?;

    let sessions = (load.rate * scenario.longest().as_secs_f64() / POSTS_PER_SESSION).ceil() as usize;
    let faults = Faults { duplicates: 0.05, reorder: 0.1, late: 0.0, lost: 0.0, malformed: 0.01 };
    let model = Model {
        sessions,
        viewers: None,
        titles: 200,
        homes: vec!["use1".parse()?],
        travel: None,
        seed: load.seed,
        faults,
    };
    let plan = Plan::ending_at(&model, i64::try_from(now_ms())?)?;
    let auth = Auth::Secret { secret: endpoints.jwt_secret.clone(), issuer: None, audience: None };
    let target = Target { endpoint: endpoints.api.clone(), elsewhere: BTreeMap::new(), auth };
    let pace = Pace { concurrency: CONCURRENCY, per_second: Some(load.rate), attempts: ATTEMPTS, ..Pace::default() };
    let valve = Valve::new(pace);

    let mut stage = Stage {
        endpoints,
        proxy: Arc::clone(&proxy),
        valve: &valve,
        poison: Arc::new(Poison::new(cluster.bootstrap(), &endpoints.topic)?),
        cluster,
        chance: ChaCha8Rng::seed_from_u64(load.seed),
        marks: Marks::default(),
        plan: &plan,
        rate: load.rate,
    };
    let script = async {
        let done = scenario.script(&mut stage).await;
        if done.is_err() {
            // The devices must still get their answers.
            stage.proxy.set(Vec::new());
            heal(stage.cluster).await?;
        }
        valve.stop();
        done
    };
    let bar = ProgressBar::hidden();
    let sent = async { tokio::try_join!(send_through(&valve, &plan, &target, pace, &bar), script) };
    let report = tokio::select! {
        sent = sent => sent?.0,
        reason = cloud.failure() => return Err(reason.context("the local cloud broke")),
    };
    ensure!(!report.unsent.is_empty(), "the devices had nothing more to send before the scenario was over");
    let (marks, poison) = (stage.marks, stage.poison.sent());
    let converged = settle(endpoints, &plan, &report, scenario.patience()).await?;
    let polled = cloud.poller().context("no pollers")?.stats();
    let row = row(scenario, &report, marks, &poison, &converged, proxy.done().await, polled);
    if !row.wrong.is_empty() {
        let folder = folder("faults")?;
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.log", scenario.name())), complaints(endpoints).await?.join("\n"))?;
    }
    Ok(row)
}
