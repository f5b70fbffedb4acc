//! From a rate of events to what it takes on AWS: capacity, limits, latency and dollars.
//!
//! Everything is a [`Computed`] line of a sheet. Capacity is that of one region at the peak;
//! dollars are those of all regions in a month of 730 hours at the mean rate, capacity included.
//!
//! Not in it: reads by members (`query`), the standby while it is idle, NAT and VPC endpoints, the
//! lookups of `compare`, and the few custom metrics.

mod bounds;
mod capacity;
mod money;
#[cfg(test)]
mod tests;

use crate::constants::{Constant, Constants};
use crate::quantity::{positive, rate, share};
use crate::sheet::{Computed, Sheet};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What to plan for.
#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct Demand {
    /// Events per second at the peak, over all regions: 1M/s, 250k/s, 90M/h
    #[arg(long, value_name = "RATE", default_value = "1M/s", value_parser = rate)]
    pub rate: f64,
    /// Events per second on average over the month, which is what is paid for (default: as --rate)
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub mean: Option<f64>,
    /// Events that a player sends in a POST: 1.12 with the web library's defaults, 2.37 if it sends every
    /// minute (docs/performance.md)
    #[arg(long, value_name = "N", default_value_t = 1.12, value_parser = at_least_one)]
    pub events_per_post: f64,
    /// POSTs of a session that share a write because they meet in a batch
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = at_least_one)]
    pub posts_per_write: f64,
    /// Regions that share the load; the others take over when one is evacuated
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub regions: u32,
    /// Share of the events that arrive away from their session's home region, with several regions
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    pub away: f64,
    /// How long views are kept
    #[arg(long, value_name = "TIME", default_value = "365days", value_parser = humantime::parse_duration)]
    pub history: Duration,
    /// The durable log
    #[arg(long, value_enum, default_value_t = LogService::MskExpress)]
    pub log: LogService,
    /// How long the log keeps records
    #[arg(long, value_name = "TIME", default_value = "7days", value_parser = humantime::parse_duration)]
    pub log_retention: Duration,
    /// Partitions of the topic (default: one for every 2,500 events per second)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub partitions: Option<f64>,
    /// How ingest runs: an environment for each request at a time, or Lambda managed instances, which share
    /// theirs and which the template does not deploy
    #[arg(long, value_enum, default_value_t = IngestOn::Lambda)]
    pub ingest: IngestOn,
    /// Processor of the functions
    #[arg(long, value_enum, default_value_t = Processor::X86)]
    pub arch: Processor,
    /// Without the change feed
    #[arg(long)]
    pub no_change_feed: bool,
}

fn at_least_one(text: &str) -> Result<f64> {
    let number = positive(text)?;
    anyhow::ensure!(number >= 1.0, "{text} is below 1");
    Ok(number)
}

/// Which service holds the durable log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogService {
    /// Amazon MSK, express brokers.
    MskExpress,
    /// Amazon MSK, standard brokers.
    MskStandard,
    /// Amazon MSK Serverless.
    MskServerless,
    /// Kinesis with shards.
    KinesisProvisioned,
    /// Kinesis on demand.
    KinesisOnDemand,
}

impl LogService {
    /// All of them, in the order in which they are compared.
    pub const ALL: [Self; 5] =
        [Self::MskExpress, Self::MskStandard, Self::MskServerless, Self::KinesisProvisioned, Self::KinesisOnDemand];

    fn is_kafka(self) -> bool {
        matches!(self, Self::MskExpress | Self::MskStandard | Self::MskServerless)
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MskExpress => "MSK, express brokers",
            Self::MskStandard => "MSK, standard brokers",
            Self::MskServerless => "MSK Serverless",
            Self::KinesisProvisioned => "Kinesis with shards",
            Self::KinesisOnDemand => "Kinesis on demand",
        }
    }
}

/// How `ingest` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum IngestOn {
    /// An environment serves one request at a time.
    Lambda,
    /// An environment serves many at once, on instances that are paid for by the hour.
    ManagedInstances,
}

/// Processor of the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Processor {
    /// x86_64.
    #[value(name = "x86_64")]
    X86,
    /// arm64: the prices are its own, the CPU is that measured on x86_64.
    Arm64,
}

/// How events become views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approach {
    /// Events of a session in a batch share a write, which also remembers what was seen.
    Playhead,
    /// Each event is a record in JSON and a write.
    WritePerEvent,
    /// Each event is a write, and another into a table of processed ids.
    TwoWritesPerEvent,
}

impl Approach {
    /// All of them, in the order in which they are compared.
    pub const ALL: [Self; 3] = [Self::Playhead, Self::WritePerEvent, Self::TwoWritesPerEvent];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Playhead => "Playhead",
            Self::WritePerEvent => "a write per event",
            Self::TwoWritesPerEvent => "two writes per event",
        }
    }
}

/// Dollars a month of a part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dollars {
    /// Which part.
    pub part: &'static str,
    /// With the table on demand.
    pub on_demand: f64,
    /// With the table's capacity provisioned for the peak.
    pub provisioned: f64,
}

/// A limit, and what is needed of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    /// Of what.
    pub name: &'static str,
    /// What AWS or the template allows before anybody asks for more.
    pub limit: f64,
    /// What the peak needs in a region.
    pub needed: f64,
    /// Events per second over all regions at which the limit is reached.
    pub reached_at: f64,
    /// What to do then.
    pub advice: &'static str,
}

/// A plan: all that was computed for one approach.
#[derive(Debug, Clone, Serialize)]
pub struct Sized {
    /// For what.
    pub approach: Approach,
    /// Every number with its formula.
    pub lines: Vec<Computed>,
    /// By part.
    pub dollars: Vec<Dollars>,
    /// The one that is reached first comes first.
    pub bounds: Vec<Bound>,
    /// The constants that formulas name.
    pub constants: BTreeMap<String, Constant>,
}

impl Sized {
    /// The value of a line; NaN if there is none of that name.
    #[must_use]
    pub fn value(&self, name: &str) -> f64 {
        self.lines.iter().find(|line| line.name == name).map_or(f64::NAN, |line| line.value)
    }

    /// Dollars a month with the table on demand, and with provisioned capacity.
    #[must_use]
    pub fn total(&self) -> [f64; 2] {
        self.dollars.iter().fold([0.0; 2], |[one, two], part| [one + part.on_demand, two + part.provisioned])
    }
}

/// Plans for a demand.
///
/// # Errors
/// If a constant is missing.
pub fn size(demand: &Demand, approach: Approach, constants: &Constants) -> Result<Sized> {
    let mut sheet = Sheet::new(constants);
    let capacity = capacity::compute(&mut sheet, demand, approach)?;
    let bounds = bounds::compute(&mut sheet, demand, &capacity)?;
    let dollars = money::compute(&mut sheet, demand, &capacity)?;
    let (lines, constants) = sheet.finish();
    Ok(Sized { approach, lines, dollars, bounds, constants })
}
