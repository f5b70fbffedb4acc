//! Copies writes from one region's table to the others. Stands in for DynamoDB's global tables.
//!
//! **It is an emulation** made of table streams and conditional writes, since each region's
//! emulator does not know the others. It does what AWS documents for global tables with eventual
//! consistency ("How DynamoDB global tables work", read in November 2026):
//! - Replication is asynchronous, and replicates whole items.
//! - Of two regions' writes of an item, the later one ends up everywhere. A deletion is a write.
//! - No region waits for another. While regions are cut off, each one continues and nothing is
//!   lost.
//!
//! **Where it differs from AWS**:
//! - Times come from the streams' records. `emulator.py` gives them milliseconds; AWS shows whole
//!   seconds there and replicates by finer, invisible times. At the same millisecond the region
//!   with the greater name wins.
//! - A write arrives a configured delay after its record was read. Of an item's writes that arrive
//!   together, only the last one is made.
//! - A copy is on the stream of its region like any other write. That holds on AWS too, but older
//!   versions of global tables mark it with attributes.
//! - We can tell a copy from an own write only if no region writes an earlier image of an item
//!   again, except a deletion (see [`core`]). That holds for views, whose version grows, and for
//!   registers, whose time does.
//! - Transactions, strong consistency, TTL and keys other than `pk` and `sk` are not emulated.
//!
//! The core decides and is pure. This shell and `table` talk to the tables.
//!
//! **Invariant:** whatever the order of writes, deletions, reads, delays and cuts, all regions end
//! with the last write of each item, and no copy comes back as an own write (test
//! `any_interleaving_ends_with_the_last_write_everywhere`).

mod core;
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

/// Shortest and longest pause when there is nothing to do. It doubles each time.
const IDLE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(160));
/// Pause after an error.
const AFTER_ERROR: Duration = Duration::from_millis(500);
/// Concurrent writes.
const WRITERS: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
struct ReplicationSettings {
    delay: Duration,
    cut: bool,
}

/// The running replication of a table. It ends when it is dropped.
#[derive(Debug)]
pub struct Replicator {
    settings: watch::Sender<ReplicationSettings>,
    stats: watch::Receiver<ReplicationStats>,
    /// None with one table: there is nothing to copy.
    task: Option<JoinHandle<()>>,
}

impl Replicator {
    /// Starts copying between these tables, which are given by region name. Earlier writes are
    /// copied too. Every write reaches the other regions `delay` after it was read.
    ///
    /// # Errors
    /// If a table has no stream, or the stream cannot be read.
    pub async fn start(tables: BTreeMap<String, (SdkConfig, String)>, delay: Duration) -> Result<Self> {
        let (settings, settings_receiver) = watch::channel(ReplicationSettings { delay, cut: false });
        let (stats, stats_receiver) = watch::channel(ReplicationStats::default());
        if tables.len() < 2 {
            return Ok(Self { settings, stats: stats_receiver, task: None });
        }
        let mut open = Vec::with_capacity(tables.len());
        for (region, (sdk, name)) in &tables {
            open.push(Table::open(sdk, name).await.with_context(|| format!("replicating the table of {region}"))?);
        }
        let core = Core::new(open.len());
        let shell = Shell { core, tables: open, settings: settings_receiver, stats, began: Instant::now() };
        Ok(Self { settings, stats: stats_receiver, task: Some(tokio::spawn(shell.run())) })
    }

    /// Delays writes to other regions by this time from now on.
    pub fn delay(&self, delay: Duration) {
        self.settings.send_modify(|settings| settings.delay = delay);
    }

    /// Stops all writes to other regions. None is lost: they wait until [`Replicator::heal`].
    pub fn cut(&self) {
        self.settings.send_modify(|settings| settings.cut = true);
    }

    /// Ends the cut.
    pub fn heal(&self) {
        self.settings.send_modify(|settings| settings.cut = false);
    }

    /// The counts so far.
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
    settings: watch::Receiver<ReplicationSettings>,
    stats: watch::Sender<ReplicationStats>,
    began: Instant,
}

impl Shell {
    async fn run(mut self) {
        let (shortest, longest) = IDLE;
        let mut idle = shortest;
        let mut failing = false; // warn once per outage
        loop {
            let (read, failed) = self.read().await;
            let (wrote, refused) = self.write().await;
            self.stats.send_replace(self.core.stats());
            if let Some(error) = failed.or(refused) {
                if !failing {
                    warn!(error = format!("{error:#}"), "replication failed; will retry");
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

    /// Reads each stream once. Returns the number of records.
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

    /// Makes the due writes. Returns their number.
    async fn write(&mut self) -> (usize, Option<anyhow::Error>) {
        let ReplicationSettings { delay, cut } = *self.settings.borrow();
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
