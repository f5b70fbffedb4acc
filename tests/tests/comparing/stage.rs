//! A shadow table, what it is compared with, and the function that compares, on the emulator.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use compare::{Archive, Checkpoints, Compare, CompareError, Live, Report, Tolerances};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use lambda::clock::now_ms;
use lambda::metrics::{Emitter, Metric, Metrics};
use legacy::Legacy;
use local::LocalDynamoDb;
use playback::edge::{BodyText, SessionWindow, parse_request, validate};
use playback::envelope::{Envelope, group};
use playback::fold::fold;
use playback::session::Home;
use playhead_tests::sample::stamp;
use simulate::plan::Plan;
use simulate::{Faults, Model};
use store::dynamodb::{PlacedView, Views};
use store::testing::settle_in_time;
use tokio::runtime::Runtime;
use tokio::time::Instant;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

static EMULATOR: LazyLock<LocalDynamoDb> =
    LazyLock::new(|| RUNTIME.block_on(LocalDynamoDb::emulator("comparing-tests")).unwrap());

/// Long enough for any run of these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// The tables and the bucket of one test, and the function.
pub(crate) struct Stage {
    pub(crate) shadow: Views,
    pub(crate) live: Views,
    pub(crate) compare: Compare,
    s3: aws_sdk_s3::Client,
    bucket: String,
}

pub(crate) fn run(test: impl Future<Output = Result<()>>) {
    LazyLock::force(&EMULATOR); // outside the runtime, because starting it blocks on the runtime
    RUNTIME.block_on(test).unwrap();
}

/// Configuration of clients for the emulator.
pub(crate) fn sdk_config() -> aws_config::SdkConfig {
    EMULATOR.sdk_config()
}

fn home() -> Home {
    "use1".parse().unwrap()
}

impl Stage {
    /// With its own tables and bucket. The shadow is compared with the live views.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        let sdk = EMULATOR.sdk_config();
        let (client, s3) = (aws_sdk_dynamodb::Client::new(&sdk), aws_sdk_s3::Client::new(&sdk));
        let (shadow, live, bucket) = (format!("{name}-shadow"), format!("{name}-views"), format!("{name}-reports"));
        for table in [&shadow, &live] {
            let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
            let text = |name: &str| {
                AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()
            };
            let create = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
            let create = create.key_schema(key("pk", KeyType::Hash)?).key_schema(key("sk", KeyType::Range)?);
            create.attribute_definitions(text("pk")?).attribute_definitions(text("sk")?).send().await?;
        }
        s3.create_bucket().bucket(&bucket).send().await?;
        let views = |table: &str| Views::new(&sdk, table, home());
        let compare = Compare {
            shadow: views(&shadow),
            live: Live::Views(views(&live)),
            checkpoints: Checkpoints::new(client.clone(), &shadow),
            archive: Archive::new(s3.clone(), &bucket),
            tolerances: Tolerances::default(),
            settled_after: SETTLED_AFTER,
        };
        Ok(Self { shadow: views(&shadow), live: views(&live), compare, s3, bucket })
    }

    /// With a legacy system that the shadow is compared with.
    pub(crate) async fn with_legacy(name: &str) -> Result<(Self, Legacy)> {
        let mut stage = Self::new(name).await?;
        let legacy = Legacy::start(&EMULATOR.sdk_config(), &format!("{name}-legacy")).await?;
        let (url, mapping) = (legacy.sessions_url().parse()?, legacy::MAPPING.parse()?);
        stage.compare.live = Live::Legacy(compare::Legacy::new(url, mapping, None, Duration::from_secs(10))?);
        stage.compare.tolerances = Tolerances::of_another_clock();
        Ok((stage, legacy))
    }

    /// One run, when everything has settled, and what it counted.
    pub(crate) async fn run(&self, stop_at: Instant) -> (Result<Report, CompareError>, BTreeMap<&'static str, u64>) {
        self.run_at(now_ms() + 60_000, stop_at).await
    }

    pub(crate) async fn run_at(
        &self,
        now: u64,
        stop_at: Instant,
    ) -> (Result<Report, CompareError>, BTreeMap<&'static str, u64>) {
        let metrics = Emitter::to("test", "compare", |_| {}).start(now);
        let result = self.compare.run(&metrics, now, stop_at).await;
        (result, counted(&metrics))
    }

    /// A run that must reach the end.
    pub(crate) async fn run_to_the_end(&self) -> Result<Report> {
        let (result, counted) = self.run(Instant::now() + PATIENCE).await;
        let report = result?;
        ensure!(counted.get("ComparedSessions").copied().unwrap_or_default() == report.compared, "{counted:?}");
        ensure!(counted.get("MatchedSessions").copied().unwrap_or_default() == report.matched, "{counted:?}");
        Ok(report)
    }

    /// The reports in the bucket.
    pub(crate) async fn kept(&self) -> Result<Vec<String>> {
        let listed = self.s3.list_objects_v2().bucket(&self.bucket).prefix(compare::PREFIX).send().await?;
        let mut reports = Vec::new();
        for object in listed.contents.unwrap_or_default() {
            let key = object.key.context("an object without a key")?;
            let body = self.s3.get_object().bucket(&self.bucket).key(key).send().await?.body.collect().await?;
            reports.push(String::from_utf8(body.to_vec())?);
        }
        Ok(reports)
    }
}

fn counted(metrics: &Metrics) -> BTreeMap<&'static str, u64> {
    let names = [
        Metric::ComparedSessions,
        Metric::MatchedSessions,
        Metric::MissingLive,
        Metric::MissingShadow,
        Metric::PartialSessions,
        Metric::FieldDifferences("position_ms"),
        Metric::UnansweredSessions("unavailable"),
        Metric::UnansweredSessions("unreadable"),
    ];
    names.into_iter().map(|metric| (metric.name(), metrics.count(metric))).filter(|(_, n)| *n > 0).collect()
}

/// Viewers with everything that can go wrong in transit.
pub(crate) fn plan(sessions: usize) -> Result<Plan> {
    let faults = Faults { duplicates: 0.05, reorder: 0.2, late: 0.1, lost: 0.005, malformed: 0.02 };
    let homes = vec![home()];
    let model = Model { sessions, viewers: None, titles: 20, homes, travel: None, seed: 5, faults };
    Plan::ending_at(&model, i64::try_from(now_ms())?)
}

/// The envelopes of a POST, as `ingest` makes them.
fn envelopes(body: &[u8], now: u64) -> Result<Vec<Envelope>> {
    let body = BodyText::new(body);
    let valid =
        parse_request(&body)?.events.into_iter().filter_map(|raw| validate(raw, now, SessionWindow::default()).ok());
    Ok(group(valid.map(|valid| valid.event).collect(), &stamp(now)))
}

/// Folds all POSTs of a plan into each of the tables. If there is a legacy system, it answers them
/// first.
pub(crate) async fn send(plan: &Plan, tables: &[&Views], legacy: Option<&Legacy>) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let posts = plan.posts.iter().map(async |post| {
        let body = post.body()?;
        let now = now_ms();
        if let Some(legacy) = legacy {
            let answer = client.post(format!("{}/v1/events", legacy.url)).body(body.clone()).send().await?;
            ensure!(answer.status().is_success(), "{}", answer.text().await?);
        }
        envelopes(&body, now)
    });
    let all: Vec<Vec<Envelope>> = stream::iter(posts).buffered(8).try_collect().await?;
    let all: Vec<Envelope> = all.into_iter().flatten().collect();
    for batch in all.chunks(200) {
        for table in tables {
            let (settled, _) = settle_in_time(*table, fold(batch.iter().cloned().enumerate())).await;
            settled.into_iter().try_for_each(|one| one.result.map(drop))?;
        }
    }
    Ok(())
}

/// All views of a table.
pub(crate) async fn all(table: &Views) -> Result<Vec<PlacedView>> {
    let (mut views, mut after) = (Vec::new(), None);
    loop {
        let page = table.scan(after.as_ref(), 1000).await?;
        views.extend(page.views);
        after = page.next;
        if after.is_none() {
            return Ok(views);
        }
    }
}
