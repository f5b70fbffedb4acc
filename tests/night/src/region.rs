//! The regions: every function with its ports, as the template wires them.

use crate::bucket::Bucket;
use crate::clock::{Clock, Dice};
use crate::devices::Accepted;
use crate::invoke::{Environment, Ledger};
use crate::log::Log;
use crate::sqs::Queue;
use crate::table::Table;
use crate::weather::{Faults, Weather, What};
use apply::Recent;
use forward::{Forward, Inbound, InboundError};
use lambda::routing::Routing;
use local::poller::{Mapping, MappingSettings};
use playback::routing::{Region as Named, Regions};
use process::Process;
use retry::Retry;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
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
    /// Sessions that are folded here.
    pub(crate) events: Failover<Log>,
    /// Sessions of other regions.
    pub(crate) remote: Failover<Log>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

/// Both regions, and what devices know.
pub(crate) struct World {
    pub(crate) regions: Vec<Region>,
    pub(crate) accepted: Arc<Mutex<Accepted>>,
    pub(crate) clock: Clock,
    pub(crate) dice: Dice,
}

impl World {
    /// Builds everything and starts the mappings.
    pub(crate) fn build(clock: &Clock, dice: &Dice, weather: &Weather) -> Self {
        let weather = Arc::new(weather.clone());
        let region =
            |region| Region::new(&Faults { weather: Arc::clone(&weather), region, clock: *clock, dice: dice.clone() });
        let regions: Vec<Region> = (0..REGIONS.len()).map(region).collect();
        for region in &regions {
            region.start(regions.iter().map(|region| region.inbound.clone()).collect());
        }
        Self { regions, accepted: Arc::default(), clock: *clock, dice: dice.clone() }
    }

    /// Whether anything is on its way.
    fn is_busy(&self) -> bool {
        let logs = |region: &Region| {
            let logs = [&region.events, &region.remote].map(|log| (log.primary().clone(), log.standby().cloned()));
            logs.into_iter().flat_map(|(primary, standby)| std::iter::once(primary).chain(standby))
        };
        self.regions.iter().any(|region| {
            logs(region).any(|log| log.waiting.load(Relaxed) > 0)
                || region.retry.counts().0 > 0
                || region.inbound.counts().0 > 0
        })
    }

    /// Waits until nothing is on its way any more. Returns how long that took, if not too long.
    pub(crate) async fn settle(&self, at_most: Duration) -> Option<Duration> {
        let began = self.clock.now();
        loop {
            let waited = Duration::from_millis(self.clock.now() - began);
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
    fn new(faults: &Faults) -> Self {
        let here = REGIONS[faults.region];
        let regions = Regions::parse(here, &REGIONS.join(",")).expect("regions");
        let log = || {
            let standby = Some(Log::new(What::Standby, faults));
            Failover::with_random(Log::new(What::Primary, faults), standby, Policy::default(), || 0.5)
        };
        let retry = Queue::new("retry", What::Queues, faults);
        Self {
            regions,
            faults: faults.clone(),
            table: Table::new(faults),
            bucket: Bucket::new(faults, &retry),
            retry,
            dead: Queue::new("dead-letter", What::Queues, faults),
            inbound: Queue::new("inbound", What::Link, faults),
            events: log(),
            remote: log(),
            ledger: Arc::default(),
        }
    }

    /// Starts the mappings. `inbound` has the queues of all regions.
    fn start(&self, inbound: Vec<Queue>) {
        let here = self.clone();
        let process = || {
            let here = here.clone();
            Environment::new("process", &self.faults, &self.ledger, move || Process {
                table: here.table.clone(),
                shadow: None,
                retry: here.retry.clone(),
                dead_letters: here.dead.clone(),
                recent: Recent::default(),
            })
        };
        let retry = {
            let here = here.clone();
            Environment::new("retry", &self.faults, &self.ledger, move || Retry {
                table: here.table.clone(),
                shadow: None,
                retry: here.retry.clone(),
                dead_letters: here.dead.clone(),
                objects: here.bucket.clone(),
                pauses: here.retry.clone(),
                max_attempts: MAX_ATTEMPTS,
                jitter: || 0.5,
            })
        };
        let forward = || {
            let (here, links) = (here.clone(), Links { queues: inbound.clone(), faults: self.faults.clone() });
            Environment::new("forward", &self.faults, &self.ledger, move || Forward {
                inbound: links.clone(),
                dead_letters: here.dead.clone(),
                routing: Routing::read_by(here.regions.clone(), async || Ok(r#"{"version":1}"#.to_owned())),
            })
        };
        let bucket = || self.bucket.clone();
        tokio::spawn(self.events.primary().clone().map(Mapping::of_topic("events", OF_PROCESS), process(), bucket()));
        tokio::spawn(self.remote.primary().clone().map(Mapping::of_topic("remote", OF_FORWARD), forward(), bucket()));
        for (log, name) in [(&self.events, "events"), (&self.remote, "remote")] {
            let Some(standby) = log.standby().cloned() else { continue };
            match name {
                "events" => tokio::spawn(standby.map(Mapping::of_stream(name, OF_PROCESS), process(), bucket())),
                _ => tokio::spawn(standby.map(Mapping::of_stream(name, OF_FORWARD), forward(), bucket())),
            };
        }
        tokio::spawn(self.inbound.clone().map(process()));
        tokio::spawn(self.retry.clone().map(retry));
    }
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
