//! The local cloud itself: what it is made of, the order in which that starts, and that it ends as a whole.

use super::broker;
use super::build::{assemble, build};
use super::child::Guarded;
use super::deploy::{Deployment, STACK, create_cluster};
use super::emulator::Emulator;
use super::endpoints::{Endpoints, sdk_config};
use super::poller::{Checkpoints, Pollers, PollersConfig};
use super::progress::Progress;
use super::run::RunFolder;
use super::tools::{Tools, hex};
use super::workspace::workspace_root;
use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const REGION: &str = "us-east-1";
/// The topic on the embedded broker. On a broker of the user's, each run has one of its own: this name and a suffix.
const TOPIC: &str = "playback-events";
/// Below the ports that systems hand out by themselves, so that none is taken between our choice and its use.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// Where the primary log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Primary {
    /// On Kafka.
    #[default]
    Kafka,
    /// On Kinesis: no broker is started, and no MSK cluster is in the stack.
    Kinesis,
}

impl Primary {
    /// The name that the command line and the template have for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Kinesis => "kinesis",
        }
    }
}

/// Where the standby log is, which takes what the primary cannot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Standby {
    /// Nowhere: what the primary cannot take is refused.
    None,
    /// On Kinesis.
    #[default]
    Kinesis,
}

impl Standby {
    /// The name that the command line and the template have for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kinesis => "kinesis",
        }
    }
}

/// What a local cloud is made from.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Root of the workspace, see [`workspace_root`].
    pub workspace: PathBuf,
    /// Folder of the run: one local cloud at a time. Logs stay there.
    pub run_dir: PathBuf,
    /// Where the primary log is.
    pub primary: Primary,
    /// Where the standby log is.
    pub standby: Standby,
    /// Brokers to use (`host:port,host:port`, plaintext) instead of the embedded one. The run makes a topic of its own there,
    /// and deletes it when stopped.
    pub kafka: Option<String>,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Template parameters, over those that the local cloud sets itself.
    pub parameters: BTreeMap<String, String>,
}

impl LocalOptions {
    /// The embedded broker with four partitions and a standby on Kinesis, in `target/playhead/<run>` of the present workspace.
    ///
    /// # Errors
    /// If there is no workspace here.
    pub fn named(run: &str) -> Result<Self> {
        let workspace = workspace_root()?;
        let run_dir = workspace.join("target/playhead").join(run);
        Ok(Self {
            workspace,
            run_dir,
            primary: Primary::default(),
            standby: Standby::default(),
            kafka: None,
            partitions: 4,
            parameters: BTreeMap::new(),
        })
    }
}

/// A running local cloud. Dropping it ends it, as does the end of our process, however that comes.
#[derive(Debug)]
pub struct LocalCloud {
    // In the order in which they are dropped: readers first, the folder's lock last.
    pollers: Option<Pollers>,
    checkpoints: Checkpoints,
    emulator: Guarded,
    broker: Option<Guarded>,
    endpoints: Endpoints,
    folder: RunFolder,
}

impl LocalCloud {
    /// Installs what is missing, builds the functions, starts everything and deploys the template.
    ///
    /// # Errors
    /// If any of it fails, or another process runs a local cloud in the same folder. What was started is ended again.
    pub async fn start(options: LocalOptions, progress: &Progress) -> Result<Self> {
        let folder = RunFolder::take(&options.run_dir).await?;

        progress.step("Preparing tools and building the functions");
        let (tools, binaries) =
            tokio::try_join!(Tools::install(&options.workspace, progress), build(&options.workspace, progress))?;

        progress.step("Starting the emulator and the log");
        let [aws_port, kafka_port] = free_ports()?;
        let kafka = match options.primary {
            Primary::Kafka => Some(Kafka::start(&options, &tools, &folder, kafka_port).await?),
            Primary::Kinesis => None,
        };
        let emulator = Emulator {
            port: aws_port,
            region: REGION,
            bootstrap: kafka.as_ref().map(|kafka| kafka.bootstrap.as_str()),
            folder: folder.temporary("emulator")?,
            log: folder.log("emulator"),
        };
        let aws_endpoint = emulator.endpoint();
        let emulator = emulator.start(&tools).await?;

        progress.step("Deploying template.yaml");
        let sdk = sdk_config(&aws_endpoint, REGION);
        let app = folder.temporary("app")?;
        assemble(&options.workspace, &binaries, &app)?;
        let mut parameters = parameters(&options, &sdk, kafka.as_ref()).await?;
        parameters.extend(options.parameters);
        let jwt_secret = parameters.get("JwtSecret").cloned().unwrap_or_default();
        let deployment = Deployment {
            sdk: &sdk,
            endpoint: &aws_endpoint,
            region: REGION,
            app: &app,
            folder: &folder.temporary("deploy")?,
            log: folder.log("deploy"),
            parameters,
        };
        let outputs = deployment.run(&tools).await?;
        let output = |name: &str| outputs.get(name).cloned().with_context(|| format!("the stack has no output {name}"));
        let (broker, log_bootstrap, topic) = match kafka {
            Some(Kafka { broker, bootstrap, topic }) => (broker, Some(bootstrap), topic),
            None => (None, None, TOPIC.to_owned()),
        };
        let endpoints = Endpoints {
            api: format!("{aws_endpoint}/_aws/execute-api/{}/$default", output("ApiId")?),
            aws_endpoint,
            log_bootstrap,
            standby_bootstrap: None,
            region: REGION.to_owned(),
            stack: STACK.to_owned(),
            topic,
            events_stream: outputs.get("EventsStreamName").cloned(),
            standby_stream: outputs.get("StandbyStreamName").cloned(),
            views_table: output("ViewsTableName")?,
            inbound_queue_url: output("InboundQueueUrl")?,
            retry_queue_url: output("RetryQueueUrl")?,
            dead_letter_queue_url: output("DeadLetterQueueUrl")?,
            failure_bucket: output("FailureBucketName")?,
            ingest_function: output("IngestFunctionName")?,
            process_function: output("ProcessFunctionName")?,
            retry_function: output("RetryFunctionName")?,
            query_function: output("QueryFunctionName")?,
            jwt_secret,
            run_dir: options.run_dir,
            pid: std::process::id(),
        };

        progress.step("Starting the pollers");
        let mut cloud =
            Self { pollers: None, checkpoints: Checkpoints::default(), emulator, broker, endpoints, folder };
        cloud.start_poller().await?;
        cloud.folder.publish(&cloud.endpoints)?;
        progress.finish();
        Ok(cloud)
    }

    /// Starts the pollers of the stack's mappings, on the present runtime, unless they run. Each goes on where it was stopped.
    ///
    /// # Errors
    /// If one cannot read its mapping.
    pub async fn start_poller(&mut self) -> Result<()> {
        if self.pollers.is_none() {
            let pollers = Pollers::start(PollersConfig {
                sdk: self.endpoints.sdk_config(),
                stack: STACK.to_owned(),
                bootstrap: self.endpoints.log_bootstrap.clone(),
                standby_bootstrap: self.endpoints.standby_bootstrap.clone(),
                checkpoints: self.checkpoints.clone(),
            });
            self.pollers = Some(pollers.await?);
        }
        Ok(())
    }

    /// Stops the pollers as [`Pollers::stop`] does, and leaves everything else as it is: the logs fill up until
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

    /// How to speak to it.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The pollers that stand in for Lambda's, unless they were stopped.
    #[must_use]
    pub fn poller(&self) -> Option<&Pollers> {
        self.pollers.as_ref()
    }

    /// Waits until a part of it ends by itself, and gives the reason. It does not return while all is well.
    pub async fn failure(&mut self) -> anyhow::Error {
        loop {
            for child in self.broker.iter_mut().chain([&mut self.emulator]) {
                if let Err(error) = child.check() {
                    return error;
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Ends it, and waits until all is gone.
    ///
    /// # Errors
    /// If a part did not end in order. It is gone all the same.
    pub async fn stop(mut self) -> Result<()> {
        let polled = self.stop_poller().await;
        let deleted = match (&self.broker, &self.endpoints.log_bootstrap) {
            (None, Some(bootstrap)) => broker::delete_topic(bootstrap, &self.endpoints.topic).await,
            _ => Ok(()),
        };
        let mut children: Vec<&mut Guarded> = self.broker.iter_mut().chain([&mut self.emulator]).collect();
        for child in &mut children {
            child.let_go();
        }
        for child in children {
            child.finished(STOPPED_WITHIN).await?;
        }
        drop(self.folder);
        polled.and(deleted)
    }
}

/// The primary log on Kafka.
struct Kafka {
    /// Ours, unless the user gave brokers.
    broker: Option<Guarded>,
    bootstrap: String,
    topic: String,
}

impl Kafka {
    /// Starts the embedded broker, unless there are others to use, and makes the run's topic.
    async fn start(options: &LocalOptions, tools: &Tools, folder: &RunFolder, port: u16) -> Result<Self> {
        let (kafka, replication) = match &options.kafka {
            Some(brokers) => {
                let topic = format!("{TOPIC}-{}", &hex(&rand::random::<[u8; 4]>()));
                (Self { broker: None, bootstrap: brokers.clone(), topic }, None)
            }
            None => {
                let live = folder.temporary("broker")?;
                let broker = broker::start_embedded(tools, &live, folder.log("broker"), port).await?;
                let bootstrap = format!("127.0.0.1:{port}");
                (Self { broker: Some(broker), bootstrap, topic: TOPIC.to_owned() }, Some(1))
            }
        };
        broker::create_topic(&kafka.bootstrap, &kafka.topic, options.partitions, replication).await?;
        Ok(kafka)
    }
}

/// The template's parameters for a local cloud, and what of MSK they name.
async fn parameters(
    options: &LocalOptions,
    sdk: &SdkConfig,
    kafka: Option<&Kafka>,
) -> Result<BTreeMap<String, String>> {
    let secret = hex(&rand::random::<[u8; 32]>());
    let mut parameters = vec![
        ("Stage", "dev".to_owned()), // the only one that may have a shared secret
        ("Architecture", architecture().to_owned()),
        ("PrimaryLog", options.primary.name().to_owned()),
        ("StandbyLog", options.standby.name().to_owned()),
        ("JwtSecret", secret),
    ];
    if let Some(kafka) = kafka {
        parameters.extend([
            ("KafkaClusterArn", create_cluster(sdk).await?),
            ("KafkaSecurity", "plaintext".to_owned()),
            ("KafkaTopic", kafka.topic.clone()),
            // The embedded broker is one, and knows nothing of replicas; what brokers of the user's keep is for their topic to say.
            ("KafkaMinInsyncReplicas", "1".to_owned()),
        ]);
    }
    Ok(parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Ports that nobody listens on.
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

/// The template's name for the processor that we run on.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}
