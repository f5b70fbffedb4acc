//! Apache Kafka: a cluster of several brokers on this machine, which tests can make fail.
//!
//! Every node is broker and controller in one (KRaft's combined mode). Its data is in the folder of
//! the run, and its Java process runs under the guard. Durability is as in production: three copies
//! of each partition, two of which must be in sync for a write, and no unclean election.
//! Differences from an MSK cluster:
//! - MSK has separate controllers. Here they fail with their brokers. With two of three nodes down
//!   there is no quorum: topics, leaders and in-sync replicas do not change until a second node is
//!   back.
//! - A broker is fenced after 6 s without a heartbeat, instead of 9, to make tests faster. All
//!   other timing is Kafka's default.
//! - Brokers write to the page cache and do not wait for the disk, which is Kafka's default. A
//!   killed process loses nothing. The copies are there for machines that lose their memory.

use super::broker;
use super::child::{Guarded, Program};
use super::cloud::free_ports;
use super::java::{Installed, JavaProgram};
use super::progress::Progress;
use super::servers::{BrokerState, reap};
use super::tools::Tools;
use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use operate::run::RunFolder;
use operate::workspace_root;
use rdkafka::metadata::MetadataPartition;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

pub(super) const PROGRAM: JavaProgram = JavaProgram {
    name: "Apache Kafka",
    folder: "apache-kafka",
    pom: include_str!("../assets/apache-kafka/pom.xml"),
    sums: include_str!("../assets/apache-kafka/sha256sums.txt"),
};
const STORAGE_TOOL: &str = "kafka.tools.StorageTool";
const SERVER: &str = "kafka.Kafka";
/// Tests are too short for the second compiler to pay off. Warnings go to standard error, the log.
const JAVA_OPTIONS: [&str; 2] = ["-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
/// A broker with a few partitions uses a third of it.
const HEAP_MB: u32 = 256;
/// One machine runs all of them.
const MOST_BROKERS: usize = 5;

/// After this time without a heartbeat a broker is fenced: it leads no partition and is in no set
/// of in-sync replicas.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
const FORMATTED_WITHIN: Duration = Duration::from_secs(60);
const READY_WITHIN: Duration = Duration::from_secs(90);
/// Between SIGKILL and the end of the process.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time limit of one metadata request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// With a full disk, no file can grow past this size. A broker's log needs less when it halts.
const FULL_AT_BYTES: u64 = 64 * 1024;

/// A running cluster. It ends when it is dropped or our process ends, even by SIGKILL.
///
/// Nodes are numbered from 0, as in Kafka.
#[derive(Debug)]
pub struct ApacheKafka {
    // In drop order: the folder's lock last.
    nodes: Vec<Node>,
    bootstrap: String,
    setting: Setting,
    _folder: Option<RunFolder>,
}

/// What all nodes share.
#[derive(Debug)]
struct Setting {
    /// The cluster's name in messages and logs.
    part: String,
    python: PathBuf,
    installed: Installed,
    /// Holds one folder per node.
    folder: PathBuf,
    logs: PathBuf,
}

#[derive(Debug)]
struct Node {
    port: u16,
    /// None after it was killed, or after it halted on a full disk.
    child: Option<Guarded>,
    paused: bool,
    full: bool,
    starts: u32,
}

impl ApacheKafka {
    /// Starts a cluster in `target/playhead/<name>`, and waits until all its brokers are ready.
    ///
    /// # Errors
    /// If there is no Java 17 or newer, or, the first time, no Maven to install Kafka. Also if it
    /// does not come up, or another process runs one in the same folder.
    pub async fn start(name: &str, brokers: u16) -> Result<Self> {
        let workspace = workspace_root()?;
        let folder = RunFolder::take(&workspace.join("target/playhead").join(name)).await?;
        // The guard is written in Python.
        let tools = Tools::install(&workspace, &Progress::silent()).await?;
        let mut cluster = Self::start_in(&workspace, &tools, &folder, "kafka", brokers).await?;
        cluster._folder = Some(folder);
        Ok(cluster)
    }

    /// Starts a cluster as a part of a larger run. `part` names its folder and its logs.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`].
    pub(super) async fn start_in(
        workspace: &Path,
        tools: &Tools,
        folder: &RunFolder,
        part: &str,
        brokers: u16,
    ) -> Result<Self> {
        let count = usize::from(brokers);
        ensure!((1..=MOST_BROKERS).contains(&count), "a cluster has 1 to {MOST_BROKERS} brokers, not {brokers}");
        let installed = PROGRAM.install(workspace).await?;
        let setting = Setting {
            part: part.to_owned(),
            python: tools.emulator_python(),
            installed,
            folder: folder.temporary(part)?,
            logs: folder.logs(),
        };
        // Chosen together, so all are different.
        let ports: [u16; 2 * MOST_BROKERS] = free_ports()?;
        let (broker_ports, controller_ports) = ports.split_at(MOST_BROKERS);
        let (broker_ports, controller_ports) = (&broker_ports[..count], &controller_ports[..count]);
        setting.format(broker_ports, controller_ports).await?;

        let address = |port: &u16| format!("127.0.0.1:{port}");
        let bootstrap = broker_ports.iter().map(address).collect::<Vec<_>>().join(",");
        let node = |port: &u16| Node { port: *port, child: None, paused: false, full: false, starts: 0 };
        let nodes = broker_ports.iter().map(node).collect();
        let mut cluster = Self { nodes, bootstrap, setting, _folder: None };
        for node in 0..count {
            cluster.restart(node)?;
        }
        cluster.ready(READY_WITHIN).await?;
        Ok(cluster)
    }

    /// All its plaintext brokers, as `host:port,host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The number of nodes, running or not.
    #[must_use]
    pub fn brokers(&self) -> usize {
        self.nodes.len()
    }

    /// Creates a topic with three copies, or as many as there are brokers.
    ///
    /// # Errors
    /// If the brokers do not answer, or refuse.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        broker::create_topic(&self.bootstrap, topic, partitions, None).await
    }

    /// Waits until every running node that is not paused has joined the cluster and accepts
    /// connections. A majority of all nodes must run.
    ///
    /// # Errors
    /// If a node ended, or it takes longer than `within`.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            self.check()?;
            let wanted = self.awake();
            if self.alive().await.is_ok_and(|alive| wanted.iter().all(|node| alive.contains(node)))
                && self.all_listen(&wanted).await
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let tails = wanted.iter().filter_map(|node| self.nodes[*node].child.as_ref()).map(Guarded::tail);
                let tails: Vec<String> = tails.collect();
                bail!("Apache Kafka was not ready within {} s; {}", within.as_secs(), tails.join("\n"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The leader of each partition, if it has one. Without a quorum, nodes return the last known
    /// state.
    ///
    /// # Errors
    /// If no broker answers, or there is no such topic.
    pub async fn leaders(&self, topic: &str) -> Result<Vec<Option<usize>>> {
        self.partitions(topic, |partition| usize::try_from(partition.leader()).ok()).await
    }

    /// The in-sync nodes of each partition.
    ///
    /// # Errors
    /// As [`ApacheKafka::leaders`].
    pub async fn in_sync(&self, topic: &str) -> Result<Vec<Vec<usize>>> {
        let numbers =
            |partition: &MetadataPartition| partition.isr().iter().flat_map(|id| usize::try_from(*id)).collect();
        self.partitions(topic, numbers).await
    }

    /// Kills a node (SIGKILL), like a machine that is lost. Its data stays.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self, node: usize) -> Result<()> {
        let mut child = self.node(node)?.child.take().with_context(|| format!("broker {node} is not running"))?;
        child.signal(Signal::KILL)?;
        child.finished(KILLED_WITHIN).await?;
        Ok(())
    }

    /// Hangs a node (SIGSTOP): its connections stay open, but it does not answer.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&mut self, node: usize) -> Result<()> {
        self.running(node)?.signal(Signal::STOP)?;
        self.node(node)?.paused = true;
        Ok(())
    }

    /// Resumes a paused node (SIGCONT).
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&mut self, node: usize) -> Result<()> {
        self.running(node)?.signal(Signal::CONT)?;
        self.node(node)?.paused = false;
        Ok(())
    }

    /// Starts a node again with its data and room on its disk. Does not wait for it: see
    /// [`ApacheKafka::ready`].
    ///
    /// # Errors
    /// If it runs, or does not start.
    pub fn restart(&mut self, number: usize) -> Result<()> {
        let setting = &self.setting;
        let node = self.nodes.get_mut(number).with_context(|| format!("there is no broker {number}"))?;
        ensure!(node.child.as_mut().is_none_or(|child| child.check().is_err()), "broker {number} is already running");
        node.child = Some(setting.start(number, node.starts)?);
        (node.paused, node.full, node.starts) = (false, false, node.starts + 1);
        Ok(())
    }

    /// Imitates a full disk under a node: none of its files can grow beyond 64 KiB, and a larger
    /// write fails (EFBIG, by the process limit RLIMIT_FSIZE). As on a full disk, Kafka then takes
    /// its log folder offline and, since it has no other, halts. See [`ApacheKafka::halted`].
    ///
    /// # Errors
    /// If it does not run.
    #[cfg(target_os = "linux")]
    pub fn fill_disk(&mut self, node: usize) -> Result<()> {
        self.limit_files(node, Some(FULL_AT_BYTES))?;
        self.node(node)?.full = true;
        Ok(())
    }

    /// Makes room on the disk of a node that still runs. Restart a node that halted.
    ///
    /// # Errors
    /// If it does not run.
    #[cfg(target_os = "linux")]
    pub fn free_disk(&mut self, node: usize) -> Result<()> {
        self.limit_files(node, getrlimit(Resource::Fsize).current)?;
        self.node(node)?.full = false;
        Ok(())
    }

    /// Waits until a node whose disk is full has halted.
    ///
    /// # Errors
    /// If it does not run, or does not halt in time.
    pub async fn halted(&mut self, node: usize, within: Duration) -> Result<()> {
        self.running(node)?.finished(within).await?;
        self.node(node)?.child = None;
        Ok(())
    }

    /// Checks that all nodes run, except killed ones and those with a full disk.
    ///
    /// # Errors
    /// If a node ended. The message shows the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let mut expected = self.nodes.iter_mut().filter(|node| !node.full).filter_map(|node| node.child.as_mut());
        expected.try_for_each(Guarded::check)
    }

    /// The state of each node. A node that has ended by itself is down from now on, and can be
    /// restarted.
    pub fn states(&mut self) -> Vec<BrokerState> {
        let state = |node: &mut Node| {
            reap(&mut node.child);
            match &node.child {
                None => BrokerState::Down,
                Some(_) if node.paused => BrokerState::Hangs,
                Some(_) => BrokerState::Up,
            }
        };
        self.nodes.iter_mut().map(state).collect()
    }

    /// The processes of running nodes, by number.
    pub(super) fn processes(&self) -> Vec<(usize, Pid)> {
        let running = self.nodes.iter().enumerate();
        running.filter_map(|(number, node)| Some((number, node.child.as_ref()?.command_id().ok()?))).collect()
    }

    /// Ends it and waits until all nodes are gone.
    ///
    /// # Errors
    /// If a node did not end cleanly. It is gone anyway.
    pub async fn stop(mut self) -> Result<()> {
        self.let_go();
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            child.finished(STOPPED_WITHIN).await?;
        }
        Ok(())
    }

    /// Starts to end it.
    pub(super) fn let_go(&mut self) {
        self.nodes.iter_mut().filter_map(|node| node.child.as_mut()).for_each(Guarded::let_go);
    }

    fn node(&mut self, node: usize) -> Result<&mut Node> {
        self.nodes.get_mut(node).with_context(|| format!("there is no broker {node}"))
    }

    fn running(&mut self, node: usize) -> Result<&mut Guarded> {
        self.node(node)?.child.as_mut().with_context(|| format!("broker {node} is not running"))
    }

    /// The nodes that should answer.
    fn awake(&self) -> Vec<usize> {
        let awake = |node: &Node| node.child.is_some() && !node.paused && !node.full;
        (0..self.nodes.len()).filter(|node| awake(&self.nodes[*node])).collect()
    }

    #[cfg(target_os = "linux")]
    fn limit_files(&mut self, node: usize, bytes: Option<u64>) -> Result<()> {
        let process = self.running(node)?.command_id()?;
        // Keep the inherited hard limit: we could not raise it again.
        let limit = Rlimit { current: bytes, maximum: getrlimit(Resource::Fsize).maximum };
        rustix::process::prlimit(Some(process), Resource::Fsize, limit)
            .with_context(|| format!("limiting the file size of broker {node}"))?;
        Ok(())
    }

    /// The nodes that the cluster considers alive.
    async fn alive(&self) -> Result<Vec<usize>> {
        self.metadata(None, |metadata| {
            Ok(metadata.brokers().iter().flat_map(|broker| usize::try_from(broker.id())).collect())
        })
        .await
    }

    async fn all_listen(&self, nodes: &[usize]) -> bool {
        for node in nodes {
            if TcpStream::connect(("127.0.0.1", self.nodes[*node].port)).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn partitions<T: Send + 'static>(
        &self,
        topic: &str,
        read: impl Fn(&MetadataPartition) -> T + Send + 'static,
    ) -> Result<Vec<T>> {
        let name = topic.to_owned();
        self.metadata(Some(topic), move |metadata| {
            let found = metadata.topics().iter().find(|found| found.name() == name && found.error().is_none());
            let mut partitions: Vec<_> =
                found.with_context(|| format!("there is no topic {name}"))?.partitions().iter().collect();
            partitions.sort_by_key(|partition| partition.id());
            Ok(partitions.into_iter().map(read).collect())
        })
        .await
    }

    /// Asks an awake broker with a new client, which has no old metadata.
    async fn metadata<T: Send + 'static>(
        &self,
        topic: Option<&str>,
        read: impl FnOnce(&rdkafka::metadata::Metadata) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let awake: Vec<String> =
            self.awake().iter().map(|node| format!("127.0.0.1:{}", self.nodes[*node].port)).collect();
        ensure!(!awake.is_empty(), "no broker is awake");
        let (bootstrap, topic) = (awake.join(","), topic.map(str::to_owned));
        tokio::task::spawn_blocking(move || {
            let client = broker::admin(&bootstrap)?;
            let metadata = client.inner().fetch_metadata(topic.as_deref(), REQUEST_TIMEOUT);
            read(&metadata.with_context(|| format!("asking {bootstrap} for metadata"))?)
        })
        .await
        .context("asking for metadata panicked")?
    }
}

impl Drop for ApacheKafka {
    fn drop(&mut self) {
        // All at once, before the nodes are dropped and waited for one by one.
        self.let_go();
    }
}

impl Setting {
    /// Writes each node's configuration and prepares its folder with Kafka's own tool.
    async fn format(&self, broker_ports: &[u16], controller_ports: &[u16]) -> Result<()> {
        // Kafka's form of an id. The first bit is 0, so it never starts with a hyphen like an
        // option.
        let cluster = URL_SAFE_NO_PAD.encode((rand::random::<u128>() >> 1).to_be_bytes());
        let voters = controller_ports.iter().enumerate().map(|(node, port)| format!("{node}@127.0.0.1:{port}"));
        let voters = voters.collect::<Vec<_>>().join(",");
        let mut tools = Vec::new();
        for (node, (port, controller)) in broker_ports.iter().zip(controller_ports).enumerate() {
            let folder = self.node_folder(node);
            fs::create_dir_all(&folder)?;
            fs::write(
                self.configuration(node),
                self.properties(node, *port, *controller, &voters, broker_ports.len()),
            )?;
            let configuration = self.configuration(node);
            let configuration = configuration.to_str().context("the path of the workspace is not UTF-8")?;
            let arguments = ["format", "--cluster-id", &cluster, "--config", configuration];
            tools.push(self.java(node, "format", STORAGE_TOOL, &arguments)?);
        }
        for mut tool in tools {
            let status = tool.finished(FORMATTED_WITHIN).await?;
            ensure!(status.success(), "preparing a broker's folder failed ({status}); {}", tool.tail());
        }
        Ok(())
    }

    fn start(&self, node: usize, starts: u32) -> Result<Guarded> {
        let configuration = self.configuration(node);
        let configuration = configuration.to_str().context("the path of the workspace is not UTF-8")?;
        // One log per start: the previous log says why the node ended.
        let log = if starts == 0 { String::new() } else { format!("again-{starts}") };
        self.java(node, &log, SERVER, &[configuration])
    }

    fn java(&self, node: usize, log: &str, main: &str, arguments: &[&str]) -> Result<Guarded> {
        let folder = self.node_folder(node);
        let command = self.installed.command(HEAP_MB, &folder, &JAVA_OPTIONS, main, arguments)?;
        let separator = if log.is_empty() { "" } else { "-" };
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        Guarded::start(Program {
            name: &format!("broker {node} of {}", self.part),
            python: &self.python,
            command,
            environment: vec![("PATH".to_owned(), path), ("LANG".to_owned(), "C.UTF-8".to_owned())],
            folder: &folder,
            log: self.logs.join(format!("{}-{node}{separator}{log}.log", self.part)),
        })
    }

    fn node_folder(&self, node: usize) -> PathBuf {
        self.folder.join(node.to_string())
    }

    fn configuration(&self, node: usize) -> PathBuf {
        self.node_folder(node).join("server.properties")
    }

    fn properties(&self, node: usize, port: u16, controller: u16, voters: &str, brokers: usize) -> String {
        let copies = brokers.min(3);
        let in_sync = copies.min(2);
        let data = self.node_folder(node).join("data");
        let data = data.display();
        let session = SESSION_TIMEOUT.as_millis();
        format!(
            "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={data}
auto.create.topics.enable=false
unclean.leader.election.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms={session}
# The default is 128 MiB, but there is little to compact here.
log.cleaner.dedupe.buffer.size=4194304
"
        )
    }
}

#[cfg(all(test, target_os = "linux"))]
pub(super) mod tests;
