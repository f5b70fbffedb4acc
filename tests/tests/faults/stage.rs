//! What a scenario uses, and what it may break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lambda::clock::now_ms;
use local::ApacheKafka;
use local::functions::Environments;
use local::proxy::FaultProxy;
use operate::Endpoints;
use operate::books::Reader;
use playback::contract::{Event, Kind};
use playback::session::SessionId;
use playhead_tests::{sample, within};
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use simulate::plan::{Plan, PlannedEvent, Post};
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
    pub(crate) plan: &'a Plan,
    /// POSTs per second.
    pub(crate) rate: f64,
}

/// The session of which a key is hot.
pub(crate) struct Hot {
    /// The text that only its keys have.
    pub(crate) text: String,
    /// Its events, however often they are sent.
    pub(crate) events: u64,
}

/// When something happened, Unix milliseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Marks {
    /// The first fault.
    pub(crate) fault: Option<u64>,
    /// Everything was repaired.
    pub(crate) healed: Option<u64>,
    /// Events of the hot session.
    pub(crate) hot_events: Option<u64>,
    /// How long the last events of all others took to be in their views, meanwhile.
    pub(crate) others_took: Option<Duration>,
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

    /// The session with most POSTs between these times of the scenario.
    pub(crate) fn busiest_session(&mut self, from: Duration, to: Duration) -> Result<Hot> {
        let at = |time: Duration| ((time.as_secs_f64() * self.rate) as usize).min(self.plan.posts.len());
        let mut posts: BTreeMap<&str, usize> = BTreeMap::new();
        for session in self.plan.posts[at(from)..at(to)].iter().flat_map(Post::sessions) {
            *posts.entry(session).or_default() += 1;
        }
        let (id, posts) = posts.into_iter().max_by_key(|(_, posts)| *posts).context("nobody sends anything")?;
        ensure!(posts > 2, "no session sends more than {posts} POSTs in that time");
        let good = |planned: &&PlannedEvent| planned.rejected_as.is_none() && planned.event.session_id == id;
        let events = self.plan.events().filter(good).count() as u64;
        self.marks.hot_events = Some(events);
        Ok(Hot { text: id.parse::<SessionId>()?.ulid.to_string(), events })
    }

    /// Lets the devices pause, and waits until no more events wait than the hot session has.
    pub(crate) async fn only_waits(&mut self, hot_events: u64, patience: Duration) -> Result<()> {
        let mut reader = Reader::new(self.endpoints);
        reader.catch_up().await?;
        let paused = self.valve.close().await?;
        let began = Instant::now();
        let waiting = within(patience, "the events of all other sessions", async || {
            let books = reader.catch_up().await?;
            let waiting = books.accepted.saturating_sub(books.ended());
            Ok((waiting <= hot_events).then_some(waiting))
        });
        let waiting = waiting.await?;
        self.marks.others_took = Some(began.elapsed());
        drop(paused);
        ensure!(waiting > 0, "the hot session does not wait");
        Ok(())
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
