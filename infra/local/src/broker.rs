//! The embedded Kafka broker, and topics on any broker.

use super::child::{Guarded, Program};
use super::cloud::free_ports;
use super::progress::Progress;
use super::tools::Tools;
use anyhow::{Context as _, Result, bail};
use aws_sdk_kinesis::primitives::Blob;
use operate::Endpoints;
use operate::run::RunFolder;
use operate::topics::TopicSettings;
use operate::workspace_root;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;

/// The embedded broker needs milliseconds, but the machine may be busy.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Time limit of one administrative request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const POISON_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the embedded broker (tansu, in memory) and waits until it accepts connections.
///
/// # Errors
/// If it does not come up.
pub(super) async fn start_embedded(tools: &Tools, folder: &Path, log: PathBuf, port: u16) -> Result<Guarded> {
    let url = format!("tcp://127.0.0.1:{port}");
    let broker = tools.broker()?;
    let storage = "--storage-engine=memory://tansu/";
    let listener = [format!("--listener-url={url}"), format!("--advertised-listener-url={url}")];
    let mut command = vec![broker.to_string_lossy().into_owned(), "broker".to_owned(), storage.to_owned()];
    command.extend(listener);
    let mut child = Guarded::start(Program {
        name: "the broker",
        python: &tools.emulator_python(),
        command,
        environment: vec![("RUST_LOG".to_owned(), "warn".to_owned())],
        folder,
        log,
    })?;
    child.ready(READY_WITHIN, async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await?;
    Ok(child)
}

/// A running embedded broker without topics, in memory. It ends when it is dropped or our process
/// ends, even by SIGKILL.
#[derive(Debug)]
pub struct LocalBroker {
    // In drop order: the folder's lock last.
    _child: Guarded,
    port: u16,
    _folder: RunFolder,
}

impl LocalBroker {
    /// Starts one in `target/playhead/<name>`.
    ///
    /// # Errors
    /// If it cannot be installed, does not come up, or another process runs one in the same folder.
    pub async fn start(name: &str) -> Result<Self> {
        let workspace = workspace_root()?;
        let folder = RunFolder::take(&workspace.join("target/playhead").join(name)).await?;
        let tools = Tools::install(&workspace, &Progress::silent()).await?;
        let [port] = free_ports()?;
        let child = start_embedded(&tools, &folder.temporary("broker")?, folder.log("broker"), port).await?;
        Ok(Self { _child: child, port, _folder: folder })
    }

    /// Its address, as clients want it.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Creates a topic. `replication` is the number of copies, by default the broker's.
///
/// # Errors
/// If the brokers do not answer, or refuse.
pub async fn create_topic(bootstrap: &str, topic: &str, partitions: i32, replication: Option<i32>) -> Result<()> {
    let replication = TopicReplication::Fixed(replication.unwrap_or(-1));
    let new = NewTopic::new(topic, partitions, replication);
    let answers = admin(bootstrap)?.create_topics([&new], &options()).await;
    let answers = answers.with_context(|| format!("creating the topic `{topic}` on {bootstrap}"))?;
    one_answer(answers, &format!("creating the topic `{topic}` on {bootstrap}"))
}

/// Deletes a topic.
///
/// # Errors
/// If the brokers do not answer, or refuse.
pub async fn delete_topic(bootstrap: &str, topic: &str) -> Result<()> {
    let answers = admin(bootstrap)?.delete_topics(&[topic], &options()).await;
    let answers = answers.with_context(|| format!("deleting the topic `{topic}` on {bootstrap}"))?;
    one_answer(answers, &format!("deleting the topic `{topic}` on {bootstrap}"))
}

/// How a topic is set, the brokers' defaults included.
///
/// # Errors
/// If the brokers do not answer, or there is no such topic.
pub async fn topic_settings(bootstrap: &str, topic: &str) -> Result<TopicSettings> {
    let (admin, name) = (admin(bootstrap)?, topic.to_owned());
    let asked = format!("describing the topic `{topic}` on {bootstrap}");
    let answers = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()).await;
    let answer = answers.with_context(|| asked.clone())?.into_iter().next().context("no answer")?;
    let entries = answer.with_context(|| asked.clone())?.entries.into_iter();
    let settings = entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
    let metadata =
        tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(Some(&name), REQUEST_TIMEOUT)).await?;
    let metadata = metadata.with_context(|| asked.clone())?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    let copies = partitions.iter().map(|partition| partition.replicas().len()).min();
    Ok(TopicSettings {
        partitions: i32::try_from(partitions.len())?,
        // Of the partition with the fewest.
        replication_factor: i32::try_from(copies.context(asked)?)?,
        settings,
    })
}

/// Appends a record that is no envelope to the primary log, as a broken program would.
///
/// # Errors
/// If the log does not acknowledge it within a few seconds.
pub async fn append_poison(cloud: &Endpoints) -> Result<()> {
    let key = "poison";
    let garbage = b"\xff\xfe this was never an envelope";
    if let Some(bootstrap) = &cloud.log_bootstrap {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("message.timeout.ms", POISON_TIMEOUT.as_millis().to_string())
            .create()
            .with_context(|| format!("creating a Kafka client for {bootstrap}"))?;
        let record = FutureRecord::to(&cloud.topic).key(key).payload(&garbage[..]);
        let sent = producer.send(record, POISON_TIMEOUT).await;
        sent.map_err(|(error, _)| error).context("the primary log did not acknowledge the record")?;
    } else {
        let stream = cloud.events_stream.as_ref().context("the primary log is neither Kafka nor Kinesis")?;
        let kinesis = aws_sdk_kinesis::Client::new(&cloud.sdk_config());
        let put = kinesis.put_record().stream_name(stream).partition_key(key).data(Blob::new(&garbage[..]));
        put.send().await.context("the primary log did not acknowledge the record")?;
    }
    Ok(())
}

/// An administrative client for the brokers.
pub(super) fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    let client = ClientConfig::new().set("bootstrap.servers", bootstrap).set("client.id", "playhead-local").create();
    client.with_context(|| format!("creating a Kafka client for {bootstrap}"))
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT))
}

fn one_answer(answers: Vec<Result<String, (String, RDKafkaErrorCode)>>, asked: &str) -> Result<()> {
    match answers.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => bail!("{asked}: {code}"),
        None => bail!("{asked}: no answer"),
    }
}
