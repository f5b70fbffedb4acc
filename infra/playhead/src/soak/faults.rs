//! What fails during a soak, and when: one thing at a time, each for a while, then time to recover.

use anyhow::{Context as _, Result};
use local::functions::{Environments, configure};
use local::proxy::{self, ENDPOINTS, FaultProxy, Rule, When};
use local::{LocalCloud, Role, append_poison};
use operate::Endpoints;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How long something is broken, seconds. `retry` gets work after some twenty.
const BROKEN_FOR_S: Range<u64> = 10..40;
/// From the repair until the next fault: time to catch up.
const RECOVERY: Duration = Duration::from_secs(20);
/// Records of poison at once: fewer than `apply::decide` treats as a flood.
const POISON: usize = 3;
/// Share of calls that a throttled store refuses. The SDK tries each call three times.
const THROTTLED_SHARE: f64 = 0.7;

/// Something that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// All brokers of the primary log hang (SIGSTOP).
    LogHangs,
    /// One broker is killed (SIGKILL) and started again. Only if it keeps its data.
    BrokerDies,
    /// All of them.
    LogDies,
    StoreThrottles,
    StoreFails,
    StoreHangs,
    QueuesFail,
    /// All environments of the function are killed (SIGKILL), whatever they are doing. Only in the first half of a
    /// soak: in the second, those that live show whether memory stays flat.
    IngestDies,
    ProcessDies,
    QueryDies,
    PublishDies,
    Poison,
}

impl Fault {
    const ALL: [Self; 12] = [
        Self::LogHangs,
        Self::BrokerDies,
        Self::LogDies,
        Self::StoreThrottles,
        Self::StoreFails,
        Self::StoreHangs,
        Self::QueuesFail,
        Self::IngestDies,
        Self::ProcessDies,
        Self::QueryDies,
        Self::PublishDies,
        Self::Poison,
    ];

    fn in_words(self) -> &'static str {
        match self {
            Self::LogHangs => "the primary log hangs",
            Self::BrokerDies => "a broker is killed",
            Self::LogDies => "all brokers are killed",
            Self::StoreThrottles => "the store throttles",
            Self::StoreFails => "the store fails and drops connections",
            Self::StoreHangs => "the store hangs",
            Self::QueuesFail => "SQS and the store fail",
            Self::IngestDies => "environments of ingest are killed",
            Self::ProcessDies => "environments of process are killed",
            Self::QueryDies => "environments of query are killed",
            Self::PublishDies => "environments of publish are killed",
            Self::Poison => "poison is on the primary log",
        }
    }

    /// Whether it can happen in this cloud.
    fn is_possible(self, cloud: &mut LocalCloud) -> bool {
        let (brokers, in_memory) = cloud.brokers(Role::Primary);
        match self {
            Self::LogHangs => !brokers.is_empty(),
            Self::BrokerDies => brokers.len() > 1 && !in_memory,
            Self::LogDies => !brokers.is_empty() && !in_memory,
            Self::PublishDies => cloud.endpoints().publish_function.is_some(),
            _ => true,
        }
    }

    /// Whether it ends environments.
    fn kills(self) -> bool {
        matches!(self, Self::IngestDies | Self::ProcessDies | Self::QueryDies | Self::PublishDies)
    }

    /// What the calls of AWS come to meanwhile.
    fn rules(self) -> Vec<Rule> {
        let some = |calls, share, when, fault| Rule { share, ..Rule::always(self.in_words(), calls, when, fault) };
        match self {
            Self::StoreThrottles => vec![some("DynamoDB", THROTTLED_SHARE, When::Before, proxy::Fault::Throttle)],
            Self::StoreFails => vec![
                some("DynamoDB", 0.3, When::Before, proxy::Fault::Error(500, "InternalServerError")),
                some("DynamoDB", 0.1, When::Before, proxy::Fault::Cut),
                some("DynamoDB", 0.1, When::After, proxy::Fault::Cut),
            ],
            Self::StoreHangs => vec![some("DynamoDB", 1.0, When::Before, proxy::Fault::Hang)],
            Self::QueuesFail => vec![
                some("AmazonSQS", 1.0, When::Before, proxy::Fault::Error(500, "InternalError")),
                some("DynamoDB", 0.6, When::Before, proxy::Fault::Error(500, "InternalServerError")),
            ],
            _ => Vec::new(),
        }
    }
}

/// The faults of a soak, in an order that the seed decides: all that are possible, again and again.
pub(super) struct Calendar {
    proxy: Arc<FaultProxy>,
    chance: ChaCha8Rng,
    possible: Vec<Fault>,
    /// The next ones, the last first.
    order: Vec<Fault>,
    now: Option<Fault>,
    /// When the next thing happens.
    due: Duration,
    /// From then on no environment is killed.
    half: Duration,
    happened: BTreeMap<&'static str, Happened>,
    /// Records of poison that the log acknowledged.
    pub(super) poison: u64,
}

impl Calendar {
    /// Puts a proxy between the functions and what may fail, for a soak of this length.
    ///
    /// # Errors
    /// If the emulator refuses.
    pub(super) async fn new(cloud: &mut LocalCloud, seed: u64, length: Duration) -> Result<Self> {
        let endpoints = &cloud.endpoints().clone();
        let proxy = FaultProxy::start(&endpoints.aws_endpoint, seed).await?;
        let [dynamodb, sqs, ..] = ENDPOINTS.map(|variable| (variable, Some(proxy.url.as_str())));
        configure(endpoints, &endpoints.process_function, &[dynamodb, sqs]).await?;
        // Their queues are spared: a letter whose pause `retry` cannot set waits for six minutes.
        for function in [&endpoints.retry_function, &endpoints.query_function] {
            configure(endpoints, function, &[dynamodb]).await?;
        }
        let possible = Fault::ALL.into_iter().filter(|fault| fault.is_possible(cloud)).collect();
        Ok(Self {
            proxy,
            chance: ChaCha8Rng::seed_from_u64(seed),
            possible,
            order: Vec::new(),
            now: None,
            due: RECOVERY,
            half: length / 2,
            happened: BTreeMap::new(),
            poison: 0,
        })
    }

    /// What is broken, in words.
    pub(super) fn now(&self) -> &'static str {
        self.now.map_or("nothing is broken", Fault::in_words)
    }

    /// Breaks or repairs what is due after this time.
    ///
    /// # Errors
    /// If it cannot be broken or repaired.
    pub(super) async fn advance(&mut self, cloud: &mut LocalCloud, elapsed: Duration) -> Result<()> {
        if elapsed < self.due {
            return Ok(());
        }
        if self.now.is_some() {
            self.due = elapsed + RECOVERY;
            return self.repair(cloud).await;
        }
        if self.order.is_empty() {
            self.order.clone_from(&self.possible);
            self.order.shuffle(&mut self.chance);
        }
        let Some(fault) = self.order.pop() else { return Ok(()) };
        if fault.kills() && elapsed >= self.half {
            return Ok(());
        }
        self.now = Some(fault);
        self.due = elapsed + Duration::from_secs(self.chance.random_range(BROKEN_FOR_S));
        let hit = self.begin(fault, cloud).await.with_context(|| fault.in_words())?;
        let happened = self.happened.entry(fault.in_words()).or_default();
        happened.times += 1;
        happened.hit += hit;
        Ok(())
    }

    /// Returns how many processes it hit, or records it appended. Calls of AWS that fail are counted by the proxy.
    async fn begin(&mut self, fault: Fault, cloud: &mut LocalCloud) -> Result<usize> {
        self.proxy.set(fault.rules());
        let endpoints = cloud.endpoints().clone();
        match fault {
            Fault::LogHangs => {
                cloud.hang_log(Role::Primary, true)?;
                Ok(cloud.brokers(Role::Primary).0.len())
            }
            Fault::BrokerDies => {
                let brokers = cloud.brokers(Role::Primary).0.len();
                cloud.kill_broker(Role::Primary, self.chance.random_range(0..brokers)).await?;
                Ok(1)
            }
            Fault::LogDies => {
                let brokers = cloud.brokers(Role::Primary).0.len();
                for number in 0..brokers {
                    cloud.kill_broker(Role::Primary, number).await?;
                }
                Ok(brokers)
            }
            Fault::IngestDies => kill(&endpoints, &endpoints.ingest_function),
            Fault::ProcessDies => kill(&endpoints, &endpoints.process_function),
            Fault::QueryDies => kill(&endpoints, &endpoints.query_function),
            Fault::PublishDies => kill(&endpoints, endpoints.publish_function.as_ref().context("there is no publish")?),
            Fault::Poison => {
                for _ in 0..POISON {
                    append_poison(&endpoints).await?;
                    self.poison += 1;
                }
                Ok(POISON)
            }
            Fault::StoreThrottles | Fault::StoreFails | Fault::StoreHangs | Fault::QueuesFail => Ok(0),
        }
    }

    /// Makes everything work again.
    ///
    /// # Errors
    /// If a broker does not start.
    pub(super) async fn repair(&mut self, cloud: &mut LocalCloud) -> Result<()> {
        self.now = None;
        self.proxy.set(Vec::new());
        cloud.repair_log(Role::Primary).await
    }

    /// What each fault did.
    pub(super) async fn summary(&self) -> BTreeMap<String, Happened> {
        let calls = self.proxy.done().await;
        let with_calls = |(fault, happened): (&&'static str, &Happened)| {
            let hit = happened.hit + calls.get(fault).copied().unwrap_or_default();
            ((*fault).to_owned(), Happened { hit, ..*happened })
        };
        self.happened.iter().map(with_calls).collect()
    }
}

/// Kills all environments of a function. Returns how many.
fn kill(endpoints: &Endpoints, function: &str) -> Result<usize> {
    Environments::of(endpoints, function).signal(Signal::KILL)
}

/// How often a fault happened, and what it hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Happened {
    pub(super) times: usize,
    /// Calls of AWS that failed, processes that hung or died, or records of poison.
    pub(super) hit: usize,
}
