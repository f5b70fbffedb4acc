//! The regions: every function with its ports, as the template wires them.

use crate::bucket::Bucket;
use crate::clock::{Clock, Dice};
use crate::devices::Accepted;
use crate::front::authenticator;
use crate::invoke::{Environment, Ledger};
use crate::log::Log;
use crate::member::Erased;
use crate::sqs::Queue;
use crate::table::Table;
use crate::weather::{Faults, Weather, What};
use apply::Recent;
use forward::{Forward, Inbound, InboundError};
use ingest::{Budgets, Ingest};
use lambda::routing::Routing;
use local::poller::{Mapping, MappingSettings};
use playback::edge::SessionWindow;
use playback::routing::{Region as Named, Regions};
use process::Process;
use retry::Retry;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::testing::MemoryTable;
use stream::{Failover, Policy};
use tokio::time::sleep;

/// Names of the regions.
pub(crate) const REGIONS: [&str; 2] = ["us-east-1", "us-west-2"];
/// The template's `RetryMaxAttempts`.
const MAX_ATTEMPTS: u32 = 16;
const FIVE_DAYS_MS: i64 = 5 * 24 * 3_600_000;
/// The template's mappings of `process`.
const OF_PROCESS: MappingSettings =
    MappingSettings { batch_size: 500, window_ms: 1_000, max_retries: 10, max_age_ms: FIVE_DAYS_MS };
/// And of `forward`.
const OF_FORWARD: MappingSettings = MappingSettings { batch_size: 1_000, max_retries: 10_000, ..OF_PROCESS };

/// One region.
#[derive(Clone)]
pub(crate) struct Region {
    pub(crate) regions: Regions,
    pub(crate) faults: Faults,
    pub(crate) table: Table,
    pub(crate) retry: Queue,
    pub(crate) dead: Queue,
    pub(crate) inbound: Queue,
    pub(crate) bucket: Bucket,
    pub(crate) ingest: Arc<Ingest<Log>>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

/// Both regions, and what devices know.
pub(crate) struct World {
    pub(crate) regions: Vec<Region>,
    pub(crate) accepted: Arc<Mutex<Accepted>>,
    pub(crate) erased: Arc<Mutex<Erased>>,
    pub(crate) clock: Clock,
    pub(crate) dice: Dice,
}

impl World {
    /// Builds everything and starts the mappings.
    pub(crate) fn build(clock: &Clock, dice: &Dice, weather: &Weather) -> Self {
        let weather = Arc::new(weather.clone());
        let replicas = REGIONS.map(|_| Arc::new(MemoryTable::new(0)));
        let region = |region| {
            Region::new(&Faults { weather: Arc::clone(&weather), region, clock: *clock, dice: dice.clone() }, &replicas)
        };
        let regions: Vec<Region> = (0..REGIONS.len()).map(region).collect();
        for region in &regions {
            region.start(regions.iter().map(|region| region.inbound.clone()).collect());
        }
        Self { regions, accepted: Arc::default(), erased: Arc::default(), clock: *clock, dice: dice.clone() }
    }

    /// Whether anything is on its way.
    fn is_busy(&self) -> bool {
        let is_waiting = |log: &Failover<Log>| {
            std::iter::once(log.primary()).chain(log.standby()).any(|log| log.waiting.load(Relaxed) > 0)
        };
        self.regions.iter().any(|region| {
            region.logs().any(|(_, log)| is_waiting(log))
                || region.retry.counts().0 > 0
                || region.inbound.counts().0 > 0
        })
    }

    /// Waits until nothing is on its way any more. Returns how long that took after `repaired` (Unix
    /// milliseconds), if not too long.
    pub(crate) async fn settle(&self, repaired: u64, at_most: Duration) -> Option<Duration> {
        loop {
            let waited = Duration::from_millis(self.clock.now() - repaired);
            if !self.is_busy() {
                return Some(waited);
            }
            if waited > at_most {
                return None;
            }
            sleep(Duration::from_secs(10)).await;
        }
    }
}

impl Region {
    fn new(faults: &Faults, replicas: &[Arc<MemoryTable>]) -> Self {
        let here = REGIONS[faults.region];
        let regions = Regions::parse(here, &REGIONS.join(",")).expect("regions");
        let log = || {
            let standby = Some(Log::new(What::Standby, faults));
            Failover::with_random(Log::new(What::Primary, faults), standby, Policy::default(), || 0.5)
        };
        let retry = Queue::new("retry", What::Queues, faults);
        Self {
            faults: faults.clone(),
            table: Table::new(faults, faults.region, replicas),
            bucket: Bucket::new(faults, &retry),
            retry,
            dead: Queue::new("dead-letter", What::Queues, faults),
            inbound: Queue::new("inbound", What::Link, faults),
            ingest: Arc::new(Ingest {
                local: log(),
                remote: Some(log()),
                routing: routing(regions.clone()),
                authenticator: authenticator(),
                window: SessionWindow::default(),
                budgets: Budgets::new(0),
                legacy: None,
                shadows: Arc::default(),
            }),
            ledger: Arc::default(),
            regions,
        }
    }

    /// The logs of sessions that are folded here, and of the others.
    pub(crate) fn logs(&self) -> impl Iterator<Item = (&'static str, &Failover<Log>)> {
        std::iter::once(("events", &self.ingest.local)).chain(self.ingest.remote.iter().map(|log| ("remote", log)))
    }

    /// Starts the mappings. `inbound` has the queues of all regions.
    fn start(&self, inbound: Vec<Queue>) {
        let here = self.clone();
        let process = || {
            let here = here.clone();
            Environment::new("process", &self.faults, &self.ledger, move || Process {
                table: here.table.of(What::NextProcess),
                shadow: None,
                retry: here.retry.clone(),
                dead_letters: here.dead.clone(),
                recent: Recent::default(),
            })
            .with_next(What::NextProcess)
        };
        let retry = {
            let here = here.clone();
            Environment::new("retry", &self.faults, &self.ledger, move || Retry {
                table: here.table.of(What::NextRetry),
                shadow: None,
                retry: here.retry.clone(),
                dead_letters: here.dead.clone(),
                objects: here.bucket.clone(),
                pauses: here.retry.clone(),
                max_attempts: MAX_ATTEMPTS,
                jitter: || 0.5,
            })
            .with_next(What::NextRetry)
        };
        let forward = || {
            let (here, links) = (here.clone(), Links { queues: inbound.clone(), faults: self.faults.clone() });
            Environment::new("forward", &self.faults, &self.ledger, move || Forward {
                inbound: links.clone(),
                dead_letters: here.dead.clone(),
                routing: routing(here.regions.clone()),
            })
        };
        let bucket = || self.bucket.clone();
        for (name, log) in self.logs() {
            let primary = log.primary().clone();
            let Some(standby) = log.standby().cloned() else { continue };
            if name == "events" {
                tokio::spawn(primary.map(Mapping::of_topic(name, OF_PROCESS), process(), bucket()));
                tokio::spawn(standby.map(Mapping::of_stream(name, OF_PROCESS), process(), bucket()));
            } else {
                tokio::spawn(primary.map(Mapping::of_topic(name, OF_FORWARD), forward(), bucket()));
                tokio::spawn(standby.map(Mapping::of_stream(name, OF_FORWARD), forward(), bucket()));
            }
        }
        tokio::spawn(self.inbound.clone().map(process()));
        tokio::spawn(self.retry.clone().map(retry));
    }
}

fn routing(regions: Regions) -> Routing {
    Routing::read_by(regions, async || Ok(r#"{"version":1}"#.to_owned()))
}

/// The way to the queues `inbound` of all regions.
#[derive(Clone)]
struct Links {
    queues: Vec<Queue>,
    faults: Faults,
}

impl Inbound for Links {
    async fn send(&self, region: &Named, bodies: Vec<String>) -> Vec<Result<(), InboundError>> {
        let at = REGIONS.iter().position(|name| *name == region.name).unwrap_or_default();
        self.queues[at].send_from(&self.faults, bodies).await.into_iter().map(|sent| Ok(sent?)).collect()
    }
}
