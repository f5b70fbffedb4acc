//! The local cloud: its parts, the order in which they start, and how they end together.

use super::abilities::{Abilities, ApiForm};
use super::aws::{Aws, UsersAws};
use super::broker;
use super::build::{assemble, build};
use super::deploy::{DeployRequest, Names, create_cluster};
use super::emulator::Emulator;
use super::kafka_cluster::{self, ApacheKafka};
use super::poller::{Checkpoints, Pollers, PollersConfig, take_over};
use super::progress::Progress;
use super::proxy::FaultProxy;
use super::servers::{BrokerState, Embedded, Kafka, Role, Servers};
use super::tools::{Tools, hex};
use anyhow::{Context as _, Result, bail, ensure};
use aws_config::SdkConfig;
use operate::run::{RunFolder, run_dir};
use operate::workspace_root;
use operate::{Endpoints, sdk_config};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The default region of a local cloud.
pub const DEFAULT_REGION: &str = "us-east-1";
/// The topic. On the user's brokers each run has its own topic: this name with a suffix.
const TOPIC: &str = "playback-events";
/// Likewise for sessions of other regions.
const REMOTE_TOPIC: &str = "playback-remote";
/// Below the ephemeral ports of common systems, so no port is taken between our choice and its use.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// AWS calls "within a second" typical.
pub(super) const DEFAULT_REPLICATION_DELAY: Duration = Duration::from_millis(500);
/// How long the deployed API of a user's emulator may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How often we check that the emulator runs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The service of the primary log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Primary {
    /// A Kafka topic
    #[default]
    Kafka,
    /// A Kinesis stream: starts no broker, and the stack has no MSK cluster
    Kinesis,
}

impl Primary {
    /// Its name on the command line and in the template.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Kinesis => "kinesis",
        }
    }
}

/// The service of the standby log, which accepts records that the primary cannot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Standby {
    /// No standby: events that the primary cannot accept are refused
    None,
    /// A Kinesis stream
    #[default]
    Kinesis,
    /// A separate cluster of Apache Kafka (needs Java 17, and Maven the first time)
    Apache,
}

impl Standby {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kinesis => "kinesis",
            Self::Apache => "apache",
        }
    }

    /// The value of the template's parameter `StandbyLog`.
    fn service(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kinesis => "kinesis",
            Self::Apache => "kafka",
        }
    }
}

/// The brokers of a primary log on Kafka.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Brokers {
    /// One small broker that keeps everything in memory.
    #[default]
    Embedded,
    /// A cluster of Apache Kafka.
    Apache,
    /// The user's plaintext brokers, as `host:port,host:port`. The run creates its own topic there
    /// and deletes it at the end.
    At(String),
}

impl FromStr for Brokers {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_address = |address: &str| {
            address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        match text {
            "embedded" => Ok(Self::Embedded),
            "apache" => Ok(Self::Apache),
            _ if text.split(',').all(is_address) => Ok(Self::At(text.to_owned())),
            _ => bail!("must be `embedded`, `apache`, or brokers as HOST:PORT, separated by commas"),
        }
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Apache => f.write_str("apache"),
            Self::At(brokers) => f.write_str(brokers),
        }
    }
}

/// Default size of an Apache Kafka cluster: as many brokers as each record has copies.
pub(super) const DEFAULT_BROKERS: u16 = 3;

/// Options of a local cloud.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Root of the workspace, see [`workspace_root`].
    pub workspace: PathBuf,
    /// Folder of the run, for one local cloud at a time. Logs stay there.
    pub run_dir: PathBuf,
    /// Its region.
    pub region: String,
    /// If there are several regions, all of them, including this one. [`super::LocalRegions`]
    /// starts them.
    pub regions: Vec<String>,
    /// Endpoint of an AWS emulator that the user runs, instead of one of ours.
    pub aws: Option<String>,
    /// How long a write of a view takes to reach the other regions.
    pub replication_delay: Duration,
    /// Endpoint of the functions' SQS clients, if it is not this cloud.
    pub sqs_endpoint: Option<String>,
    /// The service of the primary log.
    pub primary: Primary,
    /// The service of the standby log.
    pub standby: Standby,
    /// The brokers of a primary log on Kafka.
    pub kafka: Brokers,
    /// The primary's brokers as the functions reach them, if they cannot by the addresses of
    /// `kafka`.
    pub function_kafka: Option<String>,
    /// Number of brokers in each Apache Kafka cluster, primary or standby.
    pub brokers: u16,
    /// Partitions of each topic.
    pub partitions: i32,
    /// Template parameters. They override those of the local cloud.
    pub parameters: BTreeMap<String, String>,
    /// Batches of the logs have at most this many records, whatever the template says.
    pub max_batch: Option<usize>,
    /// URL of the live page, if there is one. Then the functions' calls of DynamoDB go through a
    /// [`FaultProxy`], so that the page can make the store fail.
    pub live_page: Option<String>,
}

impl LocalOptions {
    /// The defaults: the embedded broker with four partitions and a standby on Kinesis. The run is
    /// in `target/playhead/<run>` of the current workspace.
    ///
    /// # Errors
    /// Outside a workspace.
    pub fn named(run: &str) -> Result<Self> {
        let workspace = workspace_root()?;
        Ok(Self {
            workspace,
            run_dir: run_dir(run)?,
            region: DEFAULT_REGION.to_owned(),
            regions: Vec::new(),
            aws: None,
            replication_delay: DEFAULT_REPLICATION_DELAY,
            sqs_endpoint: None,
            primary: Primary::default(),
            standby: Standby::default(),
            kafka: Brokers::default(),
            function_kafka: None,
            brokers: DEFAULT_BROKERS,
            partitions: 4,
            parameters: BTreeMap::new(),
            max_batch: None,
            live_page: None,
        })
    }

    /// Whether a log is on Kafka: its mappings need an MSK cluster.
    pub(super) fn needs_msk(&self) -> bool {
        self.primary == Primary::Kafka || self.standby == Standby::Apache
    }

    /// The primary's brokers as the functions reach them, if they run already.
    pub(super) fn brokers_for_functions(&self) -> Option<String> {
        match &self.kafka {
            Brokers::At(brokers) => Some(self.function_kafka.clone().unwrap_or_else(|| brokers.clone())),
            Brokers::Embedded | Brokers::Apache => None,
        }
    }

    fn uses_apache_kafka(&self) -> bool {
        self.standby == Standby::Apache || (self.primary == Primary::Kafka && self.kafka == Brokers::Apache)
    }
}

/// The installed tools and built functions that all local clouds share.
#[derive(Debug)]
pub(super) struct Prepared {
    tools: Tools,
    /// By function name.
    binaries: BTreeMap<String, PathBuf>,
    /// Of the user's emulator.
    abilities: Option<Abilities>,
}

impl Prepared {
    /// Asks a user's emulator what it can do, installs missing tools, and builds the functions.
    ///
    /// # Errors
    /// If any of it fails.
    pub(super) async fn new(options: &LocalOptions, progress: &Progress) -> Result<Self> {
        let abilities = match &options.aws {
            Some(endpoint) => {
                progress.step(format!("Trying what {endpoint} can do"));
                Some(Abilities::ask(endpoint, options).await?)
            }
            None => None,
        };
        progress.step("Preparing tools and building the functions");
        let apache = async {
            match options.uses_apache_kafka() {
                true => kafka_cluster::PROGRAM.install(&options.workspace).await.map(|_| ()),
                false => Ok(()),
            }
        };
        let (tools, binaries, ()) = tokio::try_join!(
            Tools::install(&options.workspace, progress),
            build(&options.workspace, progress),
            apache
        )?;
        Ok(Self { tools, binaries, abilities })
    }
}

/// A running local cloud. It ends when it is dropped or our process ends, even by SIGKILL.
#[derive(Debug)]
pub struct LocalCloud {
    // In drop order: readers first, the folder's lock last.
    pollers: Option<Pollers>,
    checkpoints: Checkpoints,
    max_batch: Option<usize>,
    aws: Aws,
    emulator_hangs: bool,
    primary: Option<Kafka>,
    standby: Option<Kafka>,
    partitions: i32,
    store: Option<Arc<FaultProxy>>,
    endpoints: Endpoints,
    folder: RunFolder,
}

impl LocalCloud {
    /// Installs missing tools, builds the functions, starts everything and deploys the template.
    ///
    /// # Errors
    /// If any step fails, or another process runs a local cloud in the same folder. Parts that were
    /// already started are ended.
    pub async fn start(options: LocalOptions, progress: &Progress) -> Result<Self> {
        let folder = RunFolder::take(&options.run_dir).await?;
        let prepared = Prepared::new(&options, progress).await?;
        let cloud = Self::start_in(folder, options, &prepared, progress).await?;
        cloud.publish(Vec::new())?;
        Ok(cloud)
    }

    /// Starts everything in this folder and deploys the template. Other processes cannot find the
    /// cloud before [`LocalCloud::publish`].
    ///
    /// # Errors
    /// If any step fails. Parts that were already started are ended.
    pub(super) async fn start_in(
        folder: RunFolder,
        options: LocalOptions,
        prepared: &Prepared,
        progress: &Progress,
    ) -> Result<Self> {
        let Prepared { tools, binaries, abilities } = prepared;
        let region = &options.region;
        progress.step("Starting the emulator and the log");
        let [aws_port, kafka_port] = free_ports()?;
        // Where there may be others, each run has names of its own.
        let unique = format!("-{}", hex(&rand::random::<[u8; 4]>()));
        let suffix = |is_shared: bool| if is_shared { unique.as_str() } else { "" };
        let names = Names::with(suffix(options.aws.is_some()));
        let on_users_brokers = matches!((options.primary, &options.kafka), (Primary::Kafka, Brokers::At(_)));
        let topic = format!("{TOPIC}{}", suffix(on_users_brokers));
        let remote_topic = (!options.regions.is_empty()).then(|| format!("{REMOTE_TOPIC}{}", suffix(on_users_brokers)));
        let start = Start {
            options: &options,
            names: &names,
            tools,
            folder: &folder,
            topic: &topic,
            remote_topic: remote_topic.as_deref(),
        };
        let (primary, standby) = tokio::try_join!(start.primary(kafka_port), start.standby())?;
        let (aws_endpoint, aws, store) = match &options.aws {
            Some(endpoint) => {
                let users = UsersAws::begin(endpoint, region, &names, &options.run_dir).await?;
                (endpoint.clone(), Aws::Users(users), None)
            }
            None => {
                let store = match &options.live_page {
                    Some(_) => Some(FaultProxy::start(&format!("http://127.0.0.1:{aws_port}"), rand::random()).await?),
                    None => None,
                };
                let emulator = Emulator {
                    port: aws_port,
                    region,
                    dynamodb_endpoint: store.as_ref().map(|store| store.url.as_str()),
                    sqs_endpoint: options.sqs_endpoint.as_deref(),
                    bootstrap: primary.as_ref().map(|kafka| kafka.bootstrap.as_str()),
                    folder: folder.temporary("emulator")?,
                    log: folder.log("emulator"),
                };
                (emulator.endpoint(), Aws::Ours(emulator.start(tools).await?), store)
            }
        };

        progress.step("Deploying template.yaml");
        let sdk = sdk_config(&aws_endpoint, region);
        let app = folder.temporary("app")?;
        assemble(&options.workspace, binaries, &app)?;
        let deployed = async {
            let mut parameters = parameters(&start, &sdk, primary.as_ref(), standby.as_ref()).await?;
            parameters.extend(abilities.iter().flat_map(Abilities::parameters));
            parameters.extend(options.parameters.clone());
            let request = DeployRequest {
                sdk: &sdk,
                names: &names,
                endpoint: &aws_endpoint,
                region,
                app: &app,
                folder: &folder.temporary("deploy")?,
                log: folder.log("deploy"),
                parameters: parameters.clone(),
            };
            let outputs = request.run(tools).await?;
            let api_id = outputs.get("ApiId").context("the stack has no output ApiId")?;
            let form = abilities.as_ref().map_or_else(ApiForm::default, |abilities| abilities.apis);
            let api = form.url(&aws_endpoint, api_id);
            if matches!(aws, Aws::Users(_)) {
                take_over(&sdk, &names.stack).await?;
                answers(&api).await?;
            }
            anyhow::Ok((parameters, outputs, api))
        };
        let (parameters, outputs, api) = match (deployed.await, &aws) {
            (Err(error), Aws::Users(users)) => {
                if let Err(left) = users.clone().delete().await {
                    tracing::warn!("parts of {} are still at {aws_endpoint}: {left:#}", names.stack);
                }
                return Err(error);
            }
            (deployed, _) => deployed?,
        };
        let jwt_secret = parameters.get("JwtSecret").cloned().unwrap_or_default();
        let legacy_endpoint = parameters.get("LegacyEndpoint").filter(|endpoint| !endpoint.is_empty()).cloned();
        let output = |name: &str| outputs.get(name).cloned().with_context(|| format!("the stack has no output {name}"));
        let bootstrap = |kafka: &Option<Kafka>| kafka.as_ref().map(|kafka| kafka.bootstrap.clone());
        let endpoints = Endpoints {
            api,
            aws_endpoint,
            log_bootstrap: bootstrap(&primary),
            standby_bootstrap: bootstrap(&standby),
            region: options.region,
            stack: names.stack,
            topic,
            events_stream: outputs.get("EventsStreamName").cloned(),
            standby_stream: outputs.get("StandbyStreamName").cloned(),
            views_table: output("ViewsTableName")?,
            view_changes_stream: outputs.get("ViewChangesStreamName").cloned(),
            remote_topic,
            remote_stream: outputs.get("RemoteStreamName").cloned(),
            remote_standby_stream: outputs.get("RemoteStandbyStreamName").cloned(),
            inbound_queue_url: output("InboundQueueUrl")?,
            retry_queue_url: output("RetryQueueUrl")?,
            dead_letter_queue_url: output("DeadLetterQueueUrl")?,
            failure_bucket: output("FailureBucketName")?,
            ingest_function: output("IngestFunctionName")?,
            process_function: output("ProcessFunctionName")?,
            retry_function: output("RetryFunctionName")?,
            query_function: output("QueryFunctionName")?,
            forward_function: outputs.get("ForwardFunctionName").cloned(),
            routing_parameter: output("RoutingParameterName")?,
            shadow_table: outputs.get("ShadowTableName").cloned(),
            reports_bucket: outputs.get("ReportsBucketName").cloned(),
            compare_function: outputs.get("CompareFunctionName").cloned(),
            publish_function: outputs.get("PublishFunctionName").cloned(),
            candidate_function: outputs.get("ProcessCandidateFunctionName").cloned(),
            legacy_endpoint,
            jwt_secret,
            run_dir: options.run_dir,
            pid: std::process::id(),
            live_page: options.live_page,
            left_out: abilities.as_ref().map(Abilities::left_out).unwrap_or_default(),
            peers: Vec::new(),
        };

        progress.step("Starting the pollers");
        let mut cloud = Self {
            pollers: None,
            checkpoints: Checkpoints::default(),
            max_batch: options.max_batch,
            aws,
            emulator_hangs: false,
            primary,
            standby,
            partitions: options.partitions,
            store,
            endpoints,
            folder,
        };
        cloud.start_poller().await?;
        progress.finish();
        Ok(cloud)
    }

    /// Writes the endpoints, so other processes find the ready cloud and its peers.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn publish(&self, peers: Vec<Endpoints>) -> Result<()> {
        self.folder.publish(&Endpoints { peers, ..self.endpoints.clone() })
    }

    /// Starts the pollers of the stack's mappings on the current runtime, unless they run. Each
    /// resumes where it stopped.
    ///
    /// # Errors
    /// If a poller cannot read its mapping.
    pub async fn start_poller(&mut self) -> Result<()> {
        if self.pollers.is_none() {
            let pollers = Pollers::start(PollersConfig {
                sdk: self.endpoints.sdk_config(),
                stack: self.endpoints.stack.clone(),
                bootstrap: self.endpoints.log_bootstrap.clone(),
                standby_bootstrap: self.endpoints.standby_bootstrap.clone(),
                checkpoints: self.checkpoints.clone(),
                max_batch: self.max_batch,
            });
            self.pollers = Some(pollers.await?);
        }
        Ok(())
    }

    /// Stops only the pollers, with [`Pollers::stop`]. The logs fill up until
    /// [`LocalCloud::start_poller`].
    ///
    /// # Errors
    /// As [`Pollers::stop`].
    pub async fn stop_poller(&mut self) -> Result<()> {
        match self.pollers.take() {
            Some(pollers) => pollers.stop().await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// How to reach it.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The pollers, unless they were stopped.
    #[must_use]
    pub fn poller(&self) -> Option<&Pollers> {
        self.pollers.as_ref()
    }

    /// The Apache Kafka cluster of the primary log, if it has one. Tests make its brokers fail.
    pub fn primary_cluster_mut(&mut self) -> Option<&mut ApacheKafka> {
        self.primary.as_mut().and_then(Kafka::cluster)
    }

    /// The Apache Kafka cluster of the standby log, if it has one.
    pub fn standby_cluster_mut(&mut self) -> Option<&mut ApacheKafka> {
        self.standby.as_mut().and_then(Kafka::cluster)
    }

    /// Waits until the emulator ends by itself, and returns the reason. Does not return while it
    /// runs. A broker that ends does not count: see [`LocalCloud::brokers`].
    pub async fn failure(&mut self) -> anyhow::Error {
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Checks that the emulator runs.
    ///
    /// # Errors
    /// If it ended. The message shows the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.aws.check()
    }

    /// The states of a log's brokers, by number, and whether a broker that ends takes its records
    /// with it. Empty if the log is not on Kafka, or the brokers are the user's.
    pub fn brokers(&mut self, log: Role) -> (Vec<BrokerState>, bool) {
        let kafka = self.kafka(log).ok();
        kafka.map_or((Vec::new(), false), |kafka| (kafka.states(), kafka.in_memory()))
    }

    /// The running processes of our emulator and of our brokers, by name. The functions' are
    /// [`Environments`](super::functions::Environments).
    pub fn processes(&mut self) -> Vec<(String, Pid)> {
        let emulator = match &self.aws {
            Aws::Ours(emulator) => emulator.command_id().ok(),
            Aws::Users(_) => None,
        };
        let mut all: Vec<_> = emulator.map(|id| ("the emulator".to_owned(), id)).into_iter().collect();
        for (kafka, log) in [(&self.primary, "primary"), (&self.standby, "standby")] {
            let ids = kafka.iter().flat_map(Kafka::processes);
            all.extend(ids.map(|(number, id)| (format!("broker {number} of the {log} log"), id)));
        }
        all
    }

    /// Kills a broker (SIGKILL), like a machine that is lost. Apache Kafka's keeps its data. The
    /// embedded one loses it.
    ///
    /// # Errors
    /// If there is no such broker, it does not run, or it is the user's.
    pub async fn kill_broker(&mut self, log: Role, number: usize) -> Result<()> {
        self.kafka(log)?.kill(number).await
    }

    /// Starts a broker again. The embedded one comes back empty: its topics are created again, and
    /// the pollers begin anew. If that fails, it is down and nothing is polled until a later
    /// revival succeeds.
    ///
    /// # Errors
    /// If there is no such broker, it runs, or it does not start.
    pub async fn revive_broker(&mut self, log: Role, number: usize) -> Result<()> {
        let hangs = self.emulator_hangs;
        let kafka = self.kafka(log)?;
        if !kafka.in_memory() {
            return kafka.revive(number).await;
        }
        let state = kafka.states().get(number).copied();
        ensure!(
            state.with_context(|| format!("there is no broker {number}"))? == BrokerState::Down,
            "the broker is already running"
        );
        ensure!(!hangs, "the region hangs, and the pollers need it: let it go on first");
        // Before it runs: one that joins its group there and leaves would lock the group for good.
        if let Err(error) = self.stop_poller().await {
            // What they would commit is gone with the broker.
            tracing::warn!("the pollers could not commit to the lost broker: {error:#}");
        }
        self.kafka(log)?.revive(number).await?;
        let polled = self.begin_anew(log).await;
        if polled.is_err() {
            self.kafka(log)?.kill(number).await?;
        }
        polled
    }

    /// Creates the topics on an empty broker, and starts the pollers.
    async fn begin_anew(&mut self, log: Role) -> Result<()> {
        let bootstrap = self.kafka(log)?.bootstrap.clone();
        for topic in [Some(self.endpoints.topic.clone()), self.endpoints.remote_topic.clone()].into_iter().flatten() {
            broker::create_topic(&bootstrap, &topic, self.partitions, Some(1)).await?;
        }
        self.start_poller().await
    }

    /// Makes all running brokers of a log hang (SIGSTOP), or go on. They keep their data.
    ///
    /// # Errors
    /// If the log is not on Kafka, or the brokers are the user's.
    pub fn hang_log(&mut self, log: Role, hangs: bool) -> Result<()> {
        self.kafka(log)?.hang(hangs)
    }

    /// Makes all brokers of a log work again: hanging ones go on, ended ones are started.
    ///
    /// # Errors
    /// If a broker does not start.
    pub async fn repair_log(&mut self, log: Role) -> Result<()> {
        let (states, _) = self.brokers(log);
        if states.contains(&BrokerState::Hangs) {
            self.hang_log(log, false)?;
        }
        for (number, state) in states.into_iter().enumerate() {
            if state == BrokerState::Down {
                self.revive_broker(log, number).await?;
            }
        }
        Ok(())
    }

    /// Makes the whole region hang (the emulator and its functions, by SIGSTOP), or go on.
    ///
    /// # Errors
    /// If the signal cannot be sent, or the emulator is the user's.
    pub fn hang_region(&mut self, hangs: bool) -> Result<()> {
        self.aws.signal(if hangs { Signal::STOP } else { Signal::CONT })?;
        self.emulator_hangs = hangs;
        Ok(())
    }

    /// Whether [`LocalCloud::hang_region`] made it hang.
    #[must_use]
    pub fn region_hangs(&self) -> bool {
        self.emulator_hangs
    }

    /// The way from the functions to the store, if there is a live page.
    #[must_use]
    pub fn store(&self) -> Option<&FaultProxy> {
        self.store.as_deref()
    }

    fn kafka(&mut self, log: Role) -> Result<&mut Kafka> {
        let kafka = match log {
            Role::Primary => self.primary.as_mut(),
            Role::Standby => self.standby.as_mut(),
        };
        kafka.with_context(|| format!("the {log:?} log is not on Kafka"))
    }

    /// Ends it and waits until all parts are gone.
    ///
    /// # Errors
    /// If a part did not end cleanly. It is gone anyway.
    pub async fn stop(mut self) -> Result<()> {
        let polled = self.stop_poller().await;
        let deleted = match &self.primary {
            Some(Kafka { servers: Servers::Users, bootstrap }) => {
                let topics = [Some(&self.endpoints.topic), self.endpoints.remote_topic.as_ref()];
                let deleting = topics.into_iter().flatten().map(|topic| broker::delete_topic(bootstrap, topic));
                futures::future::try_join_all(deleting).await.map(|_| ())
            }
            _ => Ok(()),
        };
        self.aws.let_go();
        let mut logs: Vec<Kafka> = self.primary.into_iter().chain(self.standby).collect();
        logs.iter_mut().for_each(Kafka::let_go);
        self.aws.stop().await?;
        for log in logs {
            log.stop().await?;
        }
        drop(self.folder);
        polled.and(deleted)
    }
}

/// Starts the logs of a run.
struct Start<'a> {
    options: &'a LocalOptions,
    names: &'a Names,
    tools: &'a Tools,
    folder: &'a RunFolder,
    topic: &'a str,
    /// The topic for sessions of other regions, if there are any.
    remote_topic: Option<&'a str>,
}

impl Start<'_> {
    fn topics(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.topic).chain(self.remote_topic)
    }

    /// Starts the primary log, if it is on Kafka, and creates the run's topics.
    async fn primary(&self, port: u16) -> Result<Option<Kafka>> {
        let Self { options, tools, folder, .. } = self;
        let (kafka, replication) = match (options.primary, &options.kafka) {
            (Primary::Kinesis, _) => return Ok(None),
            (Primary::Kafka, Brokers::Apache) => return self.apache("kafka").await.map(Some),
            (Primary::Kafka, Brokers::At(brokers)) => {
                (Kafka { servers: Servers::Users, bootstrap: brokers.clone() }, None)
            }
            (Primary::Kafka, Brokers::Embedded) => {
                let broker = Embedded::start(tools, folder, port).await?;
                (Kafka { servers: Servers::Embedded(broker), bootstrap: format!("127.0.0.1:{port}") }, Some(1))
            }
        };
        for topic in self.topics() {
            broker::create_topic(&kafka.bootstrap, topic, options.partitions, replication).await?;
        }
        Ok(Some(kafka))
    }

    /// Starts the standby log, if it is on Kafka, with topics of the same names.
    async fn standby(&self) -> Result<Option<Kafka>> {
        match self.options.standby {
            Standby::None | Standby::Kinesis => Ok(None),
            Standby::Apache => self.apache("standby-kafka").await.map(Some),
        }
    }

    async fn apache(&self, part: &str) -> Result<Kafka> {
        let Self { options, tools, folder, .. } = self;
        let cluster = ApacheKafka::start_in(&options.workspace, tools, folder, part, options.brokers).await?;
        for topic in self.topics() {
            cluster.create_topic(topic, options.partitions).await?;
        }
        let bootstrap = cluster.bootstrap().to_owned();
        Ok(Kafka { servers: Servers::Apache(cluster), bootstrap })
    }
}

/// The template's parameters for a local cloud. Creates the MSK clusters that they name.
async fn parameters(
    start: &Start<'_>,
    sdk: &SdkConfig,
    primary: Option<&Kafka>,
    standby: Option<&Kafka>,
) -> Result<BTreeMap<String, String>> {
    let options = start.options;
    let secret = hex(&rand::random::<[u8; 32]>());
    let mut parameters = vec![
        ("Stage", "dev".to_owned()), // the only one that may have a shared secret
        ("Architecture", architecture().to_owned()),
        ("PrimaryLog", options.primary.name().to_owned()),
        ("StandbyLog", options.standby.service().to_owned()),
        ("JwtSecret", secret),
        ("SavedQueries", "off".to_owned()), // the emulator has no Logs Insights
        ("AllowedOrigins", "*".to_owned()), // a page on any port of this machine, with a token
    ];
    if let Some(primary) = primary {
        if options.aws.is_some() {
            let brokers = options.brokers_for_functions().unwrap_or_else(|| primary.bootstrap.clone());
            parameters.push(("KafkaBootstrap", brokers));
        }
        // Without KafkaBootstrap `ingest` asks MSK for its brokers, as on AWS.
        parameters.push(("KafkaClusterArn", create_cluster(sdk, &start.names.stack).await?));
    }
    if let Some(standby) = standby {
        parameters.push(("StandbyKafkaClusterArn", create_cluster(sdk, &start.names.standby_cluster()).await?));
        // The emulator's MSK returns the same brokers for every cluster.
        parameters.push(("StandbyKafkaBootstrap", standby.bootstrap.clone()));
    }
    // One parameter for both, so take the smaller number: a larger one would make `ingest` avoid
    // partitions that accept records.
    let min_in_sync = primary.into_iter().chain(standby).map(|kafka| kafka.min_in_sync(options.brokers)).min();
    if let Some(copies) = min_in_sync {
        parameters.push(("KafkaMinInsyncReplicas", copies.to_string()));
        parameters.push(("KafkaSecurity", "plaintext".to_owned()));
        parameters.push(("KafkaTopic", start.topic.to_owned()));
        parameters.extend(start.remote_topic.map(|topic| ("KafkaRemoteTopic", topic.to_owned())));
    }
    if !options.regions.is_empty() {
        parameters.push(("Regions", options.regions.join(",")));
    }
    Ok(parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Waits until `query` answers a request without a token as it should.
async fn answers(api: &str) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWERS_WITHIN).build().context("an HTTP client")?;
    let deadline = Instant::now() + ANSWERS_WITHIN;
    loop {
        let answer = client.get(format!("{api}/v1/profiles/nobody/history")).send().await;
        let status = answer.context("calling the deployed API")?.status();
        if status == reqwest::StatusCode::UNAUTHORIZED {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the functions do not run there: the API answers {status}. They are built for this machine's processor and \
             C library"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Free ports on the loopback interface.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let bind = || {
        let mut tries = (0..100).map(|_| TcpListener::bind(("127.0.0.1", rand::random_range(PORTS))));
        tries.find_map(Result::ok).context("no free port was found on the loopback interface")
    };
    let mut listeners = Vec::with_capacity(N); // all held until all are chosen
    for _ in 0..N {
        listeners.push(bind()?);
    }
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// The template's name for this machine's processor.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}
