//! The brokers of a log on Kafka: ours, or the user's. A broker that fails, on request or on its own,
//! does not end the local cloud: the pipeline survives lost brokers, and the live page shows it.

use super::broker;
use super::child::Guarded;
use super::kafka_cluster::ApacheKafka;
use super::tools::Tools;
use anyhow::{Context as _, Result, bail, ensure};
use operate::run::RunFolder;
use rustix::process::{Pid, Signal};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The primary log.
    Primary,
    /// The standby log.
    Standby,
}

/// Whether a broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// Its process runs.
    Up,
    /// Its process is stopped (SIGSTOP): connections stay open, and nothing answers.
    Hangs,
    /// Its process has ended, by order or by itself.
    Down,
}

/// A log on Kafka, primary or standby.
#[derive(Debug)]
pub(super) struct Kafka {
    pub(super) servers: Servers,
    pub(super) bootstrap: String,
}

/// The brokers of a log on Kafka.
#[derive(Debug)]
pub(super) enum Servers {
    Embedded(Embedded),
    Apache(ApacheKafka),
    /// The user's: we neither start nor end them.
    Users,
}

impl Kafka {
    pub(super) fn cluster(&mut self) -> Option<&mut ApacheKafka> {
        match &mut self.servers {
            Servers::Apache(cluster) => Some(cluster),
            Servers::Embedded(_) | Servers::Users => None,
        }
    }

    /// Whether a broker that ends takes its records with it.
    pub(super) fn in_memory(&self) -> bool {
        matches!(self.servers, Servers::Embedded(_))
    }

    /// The state of each broker, by number. The user's brokers are not listed.
    pub(super) fn states(&mut self) -> Vec<BrokerState> {
        match &mut self.servers {
            Servers::Embedded(broker) => vec![broker.state()],
            Servers::Apache(cluster) => cluster.states(),
            Servers::Users => Vec::new(),
        }
    }

    /// The processes of running brokers, by number. The user's brokers are not listed.
    pub(super) fn processes(&self) -> Vec<(usize, Pid)> {
        match &self.servers {
            Servers::Embedded(broker) => {
                broker.child.iter().filter_map(|child| Some((0, child.command_id().ok()?))).collect()
            }
            Servers::Apache(cluster) => cluster.processes(),
            Servers::Users => Vec::new(),
        }
    }

    /// Kills a broker (SIGKILL), like a machine that is lost.
    ///
    /// # Errors
    /// If it does not run, or is not ours.
    pub(super) async fn kill(&mut self, number: usize) -> Result<()> {
        match &mut self.servers {
            Servers::Embedded(broker) => {
                one(number)?;
                broker.kill().await
            }
            Servers::Apache(cluster) => cluster.kill(number).await,
            Servers::Users => bail!("the brokers are yours: kill them yourself"),
        }
    }

    /// Starts a broker again. One in memory is empty then, and has no topics.
    ///
    /// # Errors
    /// If it runs, does not start, or is not ours.
    pub(super) async fn revive(&mut self, number: usize) -> Result<()> {
        match &mut self.servers {
            Servers::Embedded(broker) => {
                one(number)?;
                broker.restart().await
            }
            Servers::Apache(cluster) => cluster.restart(number),
            Servers::Users => bail!("the brokers are yours: start them yourself"),
        }
    }

    /// Stops all running brokers (SIGSTOP), or lets them go on (SIGCONT).
    ///
    /// # Errors
    /// If a signal cannot be sent, or they are not ours.
    pub(super) fn hang(&mut self, hangs: bool) -> Result<()> {
        let affected = if hangs { BrokerState::Up } else { BrokerState::Hangs };
        for (number, state) in self.states().into_iter().enumerate() {
            match &mut self.servers {
                _ if state != affected => {}
                Servers::Embedded(broker) => broker.hang(hangs)?,
                Servers::Apache(cluster) if hangs => cluster.pause(number)?,
                Servers::Apache(cluster) => cluster.resume(number)?,
                Servers::Users => {}
            }
        }
        ensure!(!matches!(self.servers, Servers::Users), "the brokers are yours: stop them yourself");
        Ok(())
    }

    pub(super) fn let_go(&mut self) {
        match &mut self.servers {
            Servers::Embedded(broker) => {
                if let Some(child) = &mut broker.child {
                    child.let_go();
                }
            }
            Servers::Apache(cluster) => cluster.let_go(),
            Servers::Users => {}
        }
    }

    pub(super) async fn stop(self) -> Result<()> {
        match self.servers {
            Servers::Embedded(Embedded { child: Some(mut child), .. }) => {
                child.finished(STOPPED_WITHIN).await.map(|_| ())
            }
            Servers::Apache(cluster) => cluster.stop().await,
            Servers::Embedded(_) | Servers::Users => Ok(()),
        }
    }

    /// The minimum number of copies of an acknowledged record, for `ingest`'s configuration.
    pub(super) fn min_in_sync(&self, brokers: u16) -> u16 {
        match self.servers {
            Servers::Apache(_) => brokers.min(2),
            // The embedded broker has no replicas. We do not know the setting of the user's
            // brokers.
            Servers::Embedded(_) | Servers::Users => 1,
        }
    }
}

fn one(number: usize) -> Result<()> {
    ensure!(number == 0, "there is no broker {number}");
    Ok(())
}

/// The embedded broker, which can be started again on its port.
#[derive(Debug)]
pub(super) struct Embedded {
    tools: Tools,
    folder: PathBuf,
    log: PathBuf,
    port: u16,
    /// None after it ended.
    child: Option<Guarded>,
    hangs: bool,
}

impl Embedded {
    /// Starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) async fn start(tools: &Tools, folder: &RunFolder, port: u16) -> Result<Self> {
        let (live, log) = (folder.temporary("broker")?, folder.log("broker"));
        let mut broker = Self { tools: tools.clone(), folder: live, log, port, child: None, hangs: false };
        broker.restart().await?;
        Ok(broker)
    }

    async fn restart(&mut self) -> Result<()> {
        ensure!(self.state() == BrokerState::Down, "the broker is already running");
        let child = broker::start_embedded(&self.tools, &self.folder, self.log.clone(), self.port).await?;
        (self.child, self.hangs) = (Some(child), false);
        Ok(())
    }

    fn state(&mut self) -> BrokerState {
        reap(&mut self.child);
        match &self.child {
            None => BrokerState::Down,
            Some(_) if self.hangs => BrokerState::Hangs,
            Some(_) => BrokerState::Up,
        }
    }

    async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the broker is not running")?;
        child.signal(Signal::KILL)?;
        child.finished(STOPPED_WITHIN).await?;
        Ok(())
    }

    fn hang(&mut self, hangs: bool) -> Result<()> {
        let child = self.child.as_ref().context("the broker is not running")?;
        child.signal(if hangs { Signal::STOP } else { Signal::CONT })?;
        self.hangs = hangs;
        Ok(())
    }
}

/// Forgets a child that has ended by itself. The warning shows the end of its log.
pub(super) fn reap(child: &mut Option<Guarded>) {
    if let Some(Err(ended)) = child.as_mut().map(Guarded::check) {
        tracing::warn!("{ended:#}");
        *child = None;
    }
}
