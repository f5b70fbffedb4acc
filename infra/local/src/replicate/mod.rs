//! Copies what is written in the table of one region to those of the others, in the place of DynamoDB's global tables.
//!
//! **It is an emulation**, made of the tables' streams and conditional writes, since the emulator of each region knows nothing of the others. As
//! AWS documents for global tables with eventual consistency ("How DynamoDB global tables work", read in November 2026): replication is
//! asynchronous and by item as a whole; of two regions' writes of an item the later one ends up everywhere; a deletion is a write; no region
//! waits for another, and while regions are cut off from each other each one goes on, and nothing is lost.
//!
//! **Where it differs from AWS's**:
//! - Times are those of the streams' records, which `emulator.py` makes milliseconds (AWS shows whole seconds there, and replicates by
//!   finer times that nobody sees). At the same millisecond the region with the greater name wins.
//! - A write arrives after a delay that is set, counted from when its record was read; writes of an item that arrive together arrive as the last of them.
//! - A copied write is on the stream of its region like any other; on AWS too, but there, with attributes that say so in older versions only.
//! - A copy can be told from a region's own write only as long as no region writes an item as it was before, a deletion apart
//!   (see [`core`]): true of views, whose version grows, and of registers, whose time does.
//! - Transactions, strong consistency, TTL and tables with other keys than `pk` and `sk` are not emulated.
//!
//! The core decides and is pure; this shell and `table` speak to the tables.
//!
//! **Invariant:** whatever the order of writes, deletions, reads, delays and cuts, all regions end with the last write of each item, and no
//! copy comes back as a write (test `any_interleaving_ends_with_the_last_write_in_every_region_and_nothing_echoes`).

mod core;
#[cfg(test)]
mod core_tests;
mod table;

pub use self::core::ReplicationStats;
use self::core::{Apply, Core};
use self::table::{Image, Key, Table};
use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

/// How long the streams are left alone where nothing is to be done: the shortest at first, twice as long each time.
const IDLE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(160));
/// How long to wait after an error.
const AFTER_ERROR: Duration = Duration::from_millis(500);
/// Writes under way at once.
const WRITERS: usize = 8;

/// Between the regions.
#[derive(Debug, Clone, Copy, Default)]
struct Ocean {
    delay: Duration,
    cut: bool,
}

/// The running replication of a table. Dropping it ends it.
#[derive(Debug)]
pub struct Replicator {
    ocean: watch::Sender<Ocean>,
    stats: watch::Receiver<ReplicationStats>,
    /// None if there is nothing to copy: with one table.
    task: Option<JoinHandle<()>>,
}

impl Replicator {
    /// Begins to copy between these tables, by the name of their region, and what was written before as well. Every write reaches the
    /// other regions `delay` after it was seen.
    ///
    /// # Errors
    /// If a table has no stream, or it cannot be read.
    pub async fn start(tables: BTreeMap<String, (SdkConfig, String)>, delay: Duration) -> Result<Self> {
        let (ocean, ocean_receiver) = watch::channel(Ocean { delay, cut: false });
        let (stats, stats_receiver) = watch::channel(ReplicationStats::default());
        if tables.len() < 2 {
            return Ok(Self { ocean, stats: stats_receiver, task: None });
        }
        let mut open = Vec::with_capacity(tables.len());
        for (region, (sdk, name)) in &tables {
            open.push(Table::open(sdk, name).await.with_context(|| format!("replicating the table of {region}"))?);
        }
        let shell =
            Shell { core: Core::new(open.len()), tables: open, ocean: ocean_receiver, stats, began: Instant::now() };
        Ok(Self { ocean, stats: stats_receiver, task: Some(tokio::spawn(shell.run())) })
    }

    /// From now on a write reaches the other regions so long after it was seen.
    pub fn delay(&self, delay: Duration) {
        self.ocean.send_modify(|ocean| ocean.delay = delay);
    }

    /// From now on no write reaches another region. None is lost: they wait until [`Replicator::heal`].
    pub fn cut(&self) {
        self.ocean.send_modify(|ocean| ocean.cut = true);
    }

    /// Ends the cut.
    pub fn heal(&self) {
        self.ocean.send_modify(|ocean| ocean.cut = false);
    }

    /// What was done up to now.
    #[must_use]
    pub fn stats(&self) -> ReplicationStats {
        *self.stats.borrow()
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

struct Shell {
    core: Core<Key, Image>,
    /// In the order of their regions' names.
    tables: Vec<Table>,
    ocean: watch::Receiver<Ocean>,
    stats: watch::Sender<ReplicationStats>,
    began: Instant,
}

impl Shell {
    async fn run(mut self) {
        let (shortest, longest) = IDLE;
        let mut idle = shortest;
        let mut failing = false; // an outage is told once
        loop {
            let (read, failed) = self.read().await;
            let (wrote, refused) = self.write().await;
            self.stats.send_replace(self.core.stats());
            if let Some(error) = failed.or(refused) {
                if !failing {
                    warn!(error = format!("{error:#}"), "replication failed; trying on");
                }
                failing = true;
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
            failing = false;
            idle = if read + wrote > 0 { shortest } else { longest.min(idle * 2) };
            tokio::time::sleep(idle).await;
        }
    }

    /// Reads each stream once; says how many records there were.
    async fn read(&mut self) -> (usize, Option<anyhow::Error>) {
        let reads = join_all(self.tables.iter_mut().map(Table::read)).await;
        let now = self.now();
        let (mut records, mut failed) = (0, None);
        for (region, read) in reads.into_iter().enumerate() {
            match read {
                Ok(changes) => {
                    records += changes.len();
                    for change in changes {
                        self.core.observe(region, &change.key, change.image, change.at, now);
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        (records, failed)
    }

    /// Makes the writes that are due; says how many there were.
    async fn write(&mut self) -> (usize, Option<anyhow::Error>) {
        let Ocean { delay, cut } = *self.ocean.borrow();
        let due = self.core.due(self.now(), u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), cut);
        let tables = &self.tables;
        let writes = due.into_iter().map(|apply: Apply<Key, Image>| async move {
            let result = match tables.get(apply.region) {
                Some(table) => table.apply(&apply).await,
                None => Ok(false),
            };
            (apply, result)
        });
        let results: Vec<_> = stream::iter(writes).buffer_unordered(WRITERS).collect().await;
        let (written, mut failed) = (results.len(), None);
        for (apply, result) in results {
            match result {
                Ok(done) => self.core.applied(apply, done),
                Err(error) => failed = Some(error), // still due
            }
        }
        (written, failed)
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
