//! Devices: they send until they are accepted, sometimes again, sometimes in another region. And
//! somebody writes garbage to the logs.

use crate::region::{Region, World};
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp};
use playback::routing::Override;
use playback::session::SessionId;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use stream::LogRecord;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What devices know as accepted.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    pub(crate) envelopes: Vec<Envelope>,
    /// Records of garbage that a log took.
    pub(crate) poison: u64,
    /// Requests that were answered with a `503`.
    pub(crate) refused: u64,
}

/// How soon a device sends a refused request again.
const AGAIN: Duration = Duration::from_secs(30);

struct Session {
    id: SessionId,
    region: usize,
    profile: u64,
    next_seq: u16,
}

impl World {
    /// Devices send until `until` (Unix milliseconds), and then until everything they have is
    /// accepted.
    pub(crate) async fn live(&self, until: u64, posts_per_hour: u64) {
        let number = AtomicU64::new(0);
        let mut posts = JoinSet::new();
        let mut sessions: Vec<Session> = Vec::new();
        let every = 3_600_000 / (posts_per_hour * self.regions.len() as u64).max(1);
        while self.clock.now() < until {
            self.clock.until(self.clock.now() + self.dice.between(1, 2 * every)).await;
            let burst = if self.dice.permille(10) { self.dice.between(20, 60) } else { 1 };
            for _ in 0..burst {
                if self.dice.permille(10) {
                    let region = self.regions[usize::try_from(self.dice.between(0, 2)).unwrap_or_default()].clone();
                    let garbage = format!("garbage {}", number.fetch_add(1, Relaxed));
                    posts.spawn(spoil(region, garbage, Arc::clone(&self.accepted)));
                    continue;
                }
                if sessions.is_empty() || self.dice.permille(150) {
                    sessions.push(self.begin(number.fetch_add(1, Relaxed)));
                }
                let at = usize::try_from(self.dice.between(0, sessions.len() as u64)).unwrap_or_default();
                let session = &mut sessions[at];
                let events = self.watch(session);
                let travels = self.dice.permille(200);
                let region = if travels { (session.region + 1) % self.regions.len() } else { session.region };
                let post = Post { session: session.id.clone(), profile: session.profile, events };
                posts.spawn(post.send(self.regions[region].clone(), Arc::clone(&self.accepted)));
            }
            while posts.try_join_next().is_some() {}
        }
        while posts.join_next().await.is_some() {}
    }

    fn begin(&self, number: u64) -> Session {
        let region = usize::try_from(self.dice.between(0, self.regions.len() as u64)).unwrap_or_default();
        let home = self.regions[region].regions.here().home.clone();
        let id = SessionId::mint(home, self.clock.now(), number.into());
        Session { id, region, profile: self.dice.between(0, 20), next_seq: 0 }
    }

    /// One to five new events, or some that were sent before.
    fn watch(&self, session: &mut Session) -> Vec<Event> {
        let device = Arc::new(Device { id: None, kind: Some("tv".to_owned()) });
        let count = u16::try_from(self.dice.between(1, 6)).unwrap_or(1);
        let again = session.next_seq >= count && self.dice.permille(50);
        let first = if again { session.next_seq - count } else { session.next_seq };
        let event = |seq: u16| Event {
            seq,
            kind: Kind::Progressed,
            position_ms: u64::from(seq + 1) * 10_000,
            played_ms: 10_000,
            title_duration_ms: Some(7_200_000),
            credits_ms: None,
            occurred_at: None,
            device: Arc::clone(&device),
            country: None,
        };
        session.next_seq = session.next_seq.max(first + count);
        (first..first + count).map(event).collect()
    }
}

struct Post {
    session: SessionId,
    profile: u64,
    events: Vec<Event>,
}

impl Post {
    async fn send(self, region: Region, accepted: Arc<Mutex<Accepted>>) {
        loop {
            let envelope = self.envelope(&region);
            let is_local = envelope.session_id.home == region.regions.here().home;
            let log = if is_local { &region.events } else { &region.remote };
            let record = LogRecord::new(self.session.to_string(), envelope.encode());
            let appended = log.append(&[record], Override::Auto).await;
            let is_accepted = appended.fates.iter().all(|fate| fate.result.is_ok());
            let events = self.events.len() as u64;
            let copies: u64 = appended.fates.iter().map(|fate| u64::from(fate.copies)).sum();
            {
                let mut ledger = region.ledger.lock().unwrap_or_else(PoisonError::into_inner);
                ledger.books.accepted += if is_accepted { events } else { 0 };
                ledger.books.unclaimed += copies.saturating_sub(is_accepted.into()) * events;
            }
            {
                let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
                if is_accepted {
                    accepted.envelopes.push(envelope);
                    return;
                }
                accepted.refused += 1;
            }
            sleep(AGAIN).await;
        }
    }

    fn envelope(&self, region: &Region) -> Envelope {
        let stamp = Stamp {
            received_at: region.faults.clock.now(),
            sent_at: None,
            ingest_region: region.regions.here().name.clone(),
            trace_id: None,
            shadow: false,
        };
        Envelope {
            session_id: self.session.clone(),
            profile_id: format!("p{}", self.profile),
            title_id: "t1".to_owned(),
            stamp,
            events: self.events.clone(),
        }
    }
}

/// Writes garbage to a log, once.
async fn spoil(region: Region, garbage: String, accepted: Arc<Mutex<Accepted>>) {
    let record = LogRecord::new(garbage.clone(), garbage);
    let appended = region.events.append(&[record], Override::Auto).await;
    let copies = appended.fates.iter().any(|fate| fate.copies > 0 || fate.result.is_ok());
    accepted.lock().unwrap_or_else(PoisonError::into_inner).poison += u64::from(copies);
}
