//! The local cloud that all tests share, and what they read from it other than through its API.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use apply::DeadLetter;
use aws_sdk_dynamodb::types::AttributeValue;
pub(crate) use lambda::clock::now_ms;
use legacy::Legacy;
use local::functions::Environments;
use local::{LocalCloud, LocalDynamoDb, LocalOptions, Primary, Progress, Standby};
use operate::Endpoints;
use playback::session::SessionId;
use playhead_tests::queues::take_dead_letters;
use playhead_tests::within;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, RwLock};

use super::member::Viewing;

/// An item of the table of views.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// Name of the run's folder under `target/playhead`.
const RUN: &str = "end-to-end";
/// How long anything may take: far more than it takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// AWS emulator and brokers that run already, for all clouds of this suite. Without them each cloud
/// starts its own.
const AWS: &str = "PLAYHEAD_TEST_AWS";
const KAFKA: &str = "PLAYHEAD_TEST_KAFKA";
const FUNCTION_KAFKA: &str = "PLAYHEAD_TEST_FUNCTION_KAFKA";

static CLOUD: LazyLock<Result<Cloud>> = LazyLock::new(|| {
    let parameters = with([("AllowedOrigins", super::browsers::ALLOWED)]);
    Cloud::start(LocalOptions { parameters, ..options(RUN)? })
});
static WITHOUT_MSK: LazyLock<Result<Cloud>> = LazyLock::new(|| {
    let named = options(&format!("{RUN}-without-msk"))?;
    let parameters = with([("CandidateSample", "50%"), SETTLED_AFTER]);
    Cloud::start(LocalOptions { primary: Primary::Kinesis, standby: Standby::None, parameters, ..named })
});
static MOVING: LazyLock<Result<Moving>> = LazyLock::new(Moving::start);

/// Short, so tests need not wait.
const SETTLED_AFTER: (&str, &str) = ("CompareSettledAfterSeconds", "1");

/// The options of a run that the environment chooses.
fn options(run: &str) -> Result<LocalOptions> {
    let chosen = |name: &str| env::var(name).ok();
    let kafka = chosen(KAFKA).map(|brokers| brokers.parse()).transpose()?.unwrap_or_default();
    Ok(LocalOptions { aws: chosen(AWS), kafka, function_kafka: chosen(FUNCTION_KAFKA), ..LocalOptions::named(run)? })
}

/// What a test needs that a user's emulator may not have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// Functions on this machine: the test kills them, or gives them addresses of this process.
    FunctionsHere,
    /// A standby log.
    Standby,
    /// A change feed.
    Feed,
}

fn with<const N: usize>(parameters: [(&str, &str); N]) -> BTreeMap<String, String> {
    parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// A deployment that takes over from another system, and that system with its own database.
pub(crate) struct Moving {
    cloud: Cloud,
    pub(crate) legacy: Legacy,
    _database: LocalDynamoDb,
    /// The runtime that the system answers on.
    _runtime: Runtime,
}

impl Moving {
    fn start() -> Result<Self> {
        let runtime = Runtime::new()?;
        let (database, legacy) = runtime.block_on(async {
            let database = LocalDynamoDb::emulator(&format!("{RUN}-legacy")).await?;
            let legacy = Legacy::start(&database.sdk_config(), "viewings").await?;
            anyhow::Ok((database, legacy))
        })?;
        let (endpoint, sessions) = (format!("{}/v1/events", legacy.url), legacy.sessions_url());
        let parameters = with([
            ("LegacyEndpoint", &endpoint),
            ("LegacySessionsUrl", &sessions),
            ("LegacyMapping", legacy::MAPPING),
            SETTLED_AFTER,
        ]);
        let cloud = Cloud::start(LocalOptions { parameters, ..options(&format!("{RUN}-moving"))? })?;
        Ok(Self { cloud, legacy, _database: database, _runtime: runtime })
    }
}

/// A running local cloud, and the runtime of its poller.
pub(crate) struct Cloud {
    runtime: Runtime,
    /// Locked for reading by every test, for writing by one that breaks what others use.
    local: RwLock<LocalCloud>,
    pub(crate) endpoints: Endpoints,
    pub(crate) http: reqwest::Client,
    pub(crate) sqs: aws_sdk_sqs::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    /// Everything that was ever on the dead-letter queue.
    dead: Mutex<Vec<DeadLetter>>,
}

impl Cloud {
    fn start(options: LocalOptions) -> Result<Self> {
        let runtime = Runtime::new()?;
        let local = runtime.block_on(LocalCloud::start(options, &Progress::silent()))?;
        let endpoints = local.endpoints().clone();
        let sdk = endpoints.sdk_config();
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?,
            sqs: aws_sdk_sqs::Client::new(&sdk),
            dynamodb: aws_sdk_dynamodb::Client::new(&sdk),
            dead: Mutex::default(),
            local: RwLock::new(local),
            endpoints,
            runtime,
        })
    }

    /// Whether the cloud lacks something that the calling test needs. Says so, since the test is then
    /// left out.
    pub(crate) fn lacks(&self, needs: &[Need]) -> bool {
        let lacked = needs.iter().find_map(|need| match need {
            Need::FunctionsHere => {
                let here = Environments::of(&self.endpoints, &self.endpoints.query_function).ids();
                here.is_ok_and(|ids| ids.is_empty()).then_some("functions that run on this machine")
            }
            Need::Standby => self.endpoints.standby_stream.is_none().then_some("a standby log"),
            Need::Feed => self.endpoints.view_changes_stream.is_none().then_some("a change feed"),
        });
        let Some(lacked) = lacked.filter(|_| env::var_os(AWS).is_some()) else { return false };
        let thread = std::thread::current();
        let why = self.endpoints.left_out.join("; ");
        // Written directly, because the test harness captures what passing tests print.
        let test = thread.name().unwrap_or("a test");
        let _ = writeln!(std::io::stderr(), "\n*** LEFT OUT: {test}, which needs {lacked}. {why} ***\n");
        true
    }

    /// The cloud in `one`, which starts on first use.
    fn shared(one: &'static LazyLock<Result<Self>>) -> Result<&'static Self> {
        one.as_ref().map_err(|error| anyhow!("the local cloud did not start: {error:#}"))
    }

    /// Waits for the dead letter that `is_it` accepts. Other tests' letters are kept for them.
    pub(crate) async fn dead_letter(&self, what: &str, is_it: impl Fn(&DeadLetter) -> bool) -> Result<DeadLetter> {
        eventually(&format!("dead letter: {what}"), async || {
            self.collect_dead_letters().await?;
            Ok(self.dead.lock().await.iter().find(|letter| is_it(letter)).cloned())
        })
        .await
    }

    /// How many dead letters so far `is_one` accepts.
    pub(crate) async fn count_dead_letters(&self, is_one: impl Fn(&DeadLetter) -> bool) -> Result<usize> {
        self.collect_dead_letters().await?;
        Ok(self.dead.lock().await.iter().filter(|letter| is_one(letter)).count())
    }

    async fn collect_dead_letters(&self) -> Result<()> {
        take_dead_letters(&self.endpoints, &mut *self.dead.lock().await).await
    }

    /// The stored item of a viewing in the table of views.
    pub(crate) async fn stored(&self, viewing: &Viewing) -> Result<Option<Item>> {
        self.stored_in(&self.endpoints.views_table, viewing).await
    }

    /// The same in another table.
    pub(crate) async fn stored_in(&self, table: &str, viewing: &Viewing) -> Result<Option<Item>> {
        let Viewing { session: SessionId { ulid, home }, profile_id, title_id } = viewing;
        let answer = self
            .dynamodb
            .get_item()
            .table_name(table)
            .key("pk", AttributeValue::S(profile_id.clone()))
            .key("sk", AttributeValue::S(format!("{ulid}#{home}#~{title_id}")))
            .consistent_read(true)
            .send()
            .await?;
        Ok(answer.item)
    }

    /// Everything that the table of views has of a profile, by sort key.
    pub(crate) async fn items(&self, profile_id: &str) -> Result<BTreeMap<String, Item>> {
        let query = self.dynamodb.query().table_name(&self.endpoints.views_table).consistent_read(true);
        let query = query.key_condition_expression("pk = :profile");
        let query = query.expression_attribute_values(":profile", AttributeValue::S(profile_id.to_owned()));
        let items = query.into_paginator().items().send().collect::<Result<Vec<Item>, _>>().await?;
        let by_sort_key = |item: Item| Some((item.get("sk")?.as_s().ok()?.clone(), item));
        Ok(items.into_iter().filter_map(by_sort_key).collect())
    }
}

/// Runs a test alongside others.
pub(crate) fn run(test: impl AsyncFnOnce(&'static Cloud) -> Result<()>) -> Result<()> {
    run_on(Cloud::shared(&CLOUD)?, test)
}

/// Runs a test on a cloud whose only log is a Kinesis stream. No other test runs there meanwhile,
/// because everything that happens is compared.
pub(crate) fn run_without_msk(test: impl AsyncFnOnce(&'static Cloud) -> Result<()>) -> Result<()> {
    run_alone_on(Cloud::shared(&WITHOUT_MSK)?, test)
}

fn run_on(cloud: &'static Cloud, test: impl AsyncFnOnce(&'static Cloud) -> Result<()>) -> Result<()> {
    cloud.runtime.block_on(async {
        let _beside_others = cloud.local.read().await;
        test(cloud).await
    })
}

/// Runs a test on a cloud that takes over from another system. No other test runs there meanwhile,
/// because they share a routing document.
pub(crate) fn run_moving(test: impl AsyncFnOnce(&'static Cloud, &Legacy) -> Result<()>) -> Result<()> {
    let moving = MOVING.as_ref().map_err(|error| anyhow!("the local cloud did not start: {error:#}"))?;
    run_alone_on(&moving.cloud, async |cloud| {
        // The system listens in this process.
        if cloud.lacks(&[Need::FunctionsHere]) {
            return Ok(());
        }
        test(cloud, &moving.legacy).await
    })
}

fn run_alone_on(cloud: &'static Cloud, test: impl AsyncFnOnce(&'static Cloud) -> Result<()>) -> Result<()> {
    cloud.runtime.block_on(async {
        let _alone = cloud.local.write().await;
        test(cloud).await
    })
}

/// Runs a test while no other runs, because it breaks what they use.
pub(crate) fn run_alone(test: impl AsyncFnOnce(&'static Cloud, &mut LocalCloud) -> Result<()>) -> Result<()> {
    let cloud = Cloud::shared(&CLOUD)?;
    cloud.runtime.block_on(async { test(cloud, &mut *cloud.local.write().await).await })
}

/// Looks until there is something.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, look).await
}

/// The id of a session that begins at `started_at`, unique in this process.
pub(crate) fn session_at(started_at: u64) -> SessionId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    SessionId::mint("use1".parse().unwrap(), started_at, u128::from(number))
}
