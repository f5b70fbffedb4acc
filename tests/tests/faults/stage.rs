//! What a scenario uses, and what it may break.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lambda::clock::now_ms;
use local::ApacheKafka;
use operate::Endpoints;
use playback::contract::{Event, Kind};
use playback::session::SessionId;
use playhead_tests::functions::Environments;
use playhead_tests::proxy::FaultProxy;
use playhead_tests::sample;
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use simulate::send::Valve;

/// How long it may take until all brokers are back.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Everything that a scenario's script may touch.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: &'a mut ApacheKafka,
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) proxy: Arc<FaultProxy>,
    pub(crate) valve: &'a Valve,
    pub(crate) poison: Arc<Poison>,
    pub(crate) chance: ChaCha8Rng,
    pub(crate) marks: Marks,
}

/// When something happened, Unix milliseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Marks {
    /// The first fault.
    pub(crate) fault: Option<u64>,
    /// Everything was repaired.
    pub(crate) healed: Option<u64>,
}

impl Stage<'_> {
    /// From now on something is broken.
    pub(crate) fn broken(&mut self) -> Result<()> {
        self.marks.fault.get_or_insert(now_ms());
        Ok(())
    }

    /// From now on nothing is broken.
    pub(crate) fn healed(&mut self) -> Result<()> {
        self.marks.healed = Some(now_ms());
        Ok(())
    }

    /// The broker that leads most partitions of the topic.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let leaders: Vec<usize> = self.cluster.leaders(&self.endpoints.topic).await?.into_iter().flatten().collect();
        let leads = |node: &usize| leaders.iter().filter(|leader| *leader == node).count();
        (0..self.cluster.brokers()).max_by_key(leads).context("a cluster without brokers")
    }

    /// Starts brokers that were killed or halted, and waits until all are back.
    pub(crate) async fn restart(&mut self, nodes: &[usize]) -> Result<()> {
        for node in nodes {
            self.cluster.restart(*node)?;
        }
        self.ready().await
    }

    /// Waits until all brokers are back.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        self.cluster.ready(READY_WITHIN).await
    }

    /// The processes of a function.
    pub(crate) fn environments(&self, function: &str) -> Environments {
        Environments::of(self.endpoints, function)
    }
}

/// Makes all brokers run again, whatever was done to them.
pub(crate) async fn heal(cluster: &mut ApacheKafka) -> Result<()> {
    for node in 0..cluster.brokers() {
        // Each call fails if there is nothing to heal. The last line checks that all is well.
        let _ = cluster.resume(node);
        let _ = cluster.restart(node);
    }
    cluster.ready(READY_WITHIN).await
}

/// Appends poison to the topic: bytes that are not an envelope, and envelopes of a future version.
pub(crate) struct Poison {
    producer: FutureProducer,
    topic: String,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Sent {
    /// Records that may be on the topic.
    pub(crate) tried: Vec<Vec<u8>>,
    /// Records that are on it, by index.
    pub(crate) acknowledged: Vec<usize>,
}

impl Poison {
    pub(crate) fn new(bootstrap: &str, topic: &str) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("acks", "all").set("enable.idempotence", "true");
        config.set("message.timeout.ms", "10000");
        Ok(Self { producer: config.create()?, topic: topic.to_owned(), sent: Mutex::default() })
    }

    pub(crate) fn sent(&self) -> Sent {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends one record per interval until it is stopped. It does not matter if no broker took one.
    pub(crate) async fn drip(self: Arc<Self>, every: Duration) -> Result<()> {
        let mut due = tokio::time::interval(every);
        loop {
            due.tick().await;
            let bytes = poison(self.sent().tried.len())?;
            let at = {
                let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                sent.tried.push(bytes.clone());
                sent.tried.len() - 1
            };
            let key = format!("poison-{at}");
            let record = FutureRecord::to(&self.topic).key(&key).payload(&bytes);
            if self.producer.send(record, Duration::from_secs(10)).await.is_ok() {
                self.sent.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.push(at);
            }
        }
    }
}

fn poison(number: usize) -> Result<Vec<u8>> {
    if number.is_multiple_of(2) {
        return Ok([b"\xff\xfe not an envelope ".as_slice(), number.to_string().as_bytes()].concat());
    }
    let now = now_ms();
    let event = Event { kind: Kind::Started, position_ms: 0, played_ms: 0, ..sample::event(0, now) };
    let session = SessionId::mint("use1".parse()?, now, number as u128);
    let envelope = sample::envelope(session, "poisoned", "t1", now, vec![event]);
    Ok(sample::invalid(&envelope.encode()))
}
