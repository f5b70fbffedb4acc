//! Devices: they send until they are accepted, sometimes again, sometimes in another region. And
//! somebody writes garbage to the logs.

use crate::region::{Region, World};
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp};
use playback::routing::Override;
use playback::session::SessionId;
use serde_json::{Value, json};
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
    /// Others that a log may have taken.
    pub(crate) maybe_poison: u64,
    /// Requests that were not accepted as a whole.
    pub(crate) refused: u64,
    /// Events that were refused for good, as the answer put it.
    pub(crate) given_up: Vec<String>,
}

const TITLE: &str = "t1";
/// How soon a device sends a refused request again, at first and in the end.
const AGAIN: Duration = Duration::from_secs(30);
const AGAIN_AT_MOST: Duration = Duration::from_secs(600);

struct Session {
    id: SessionId,
    region: usize,
    profile: String,
    next_seq: u16,
}

/// How wrong devices' clocks are, milliseconds.
const CLOCKS: [i64; 6] = [0, 0, 0, 0, -3 * 24 * 3_600_000, 8 * 60_000];

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
                let post = Post { session: session.id.clone(), profile: session.profile.clone(), events };
                posts.spawn(post.send(self.regions[region].clone(), Arc::clone(&self.accepted)));
            }
            while posts.try_join_next().is_some() {}
        }
        while posts.join_next().await.is_some() {}
    }

    fn begin(&self, number: u64) -> Session {
        let region = usize::try_from(self.dice.between(0, self.regions.len() as u64)).unwrap_or_default();
        let home = self.regions[region].regions.here().home.clone();
        let started_at = self.clock.now().saturating_add_signed(self.dice.pick(&CLOCKS));
        let id = SessionId::mint(home, started_at, number.into());
        Session { id, region, profile: self.any_profile(), next_seq: 0 }
    }

    /// One of the members' profiles.
    pub(crate) fn any_profile(&self) -> String {
        format!("p{}", self.dice.between(0, 20))
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
    profile: String,
    events: Vec<Event>,
}

impl Post {
    /// Sends the events until all are accepted.
    async fn send(self, region: Region, accepted: Arc<Mutex<Accepted>>) {
        let (body, mut again) = (self.body(), AGAIN);
        loop {
            let answer = region.post(&self.profile, &body).await;
            {
                let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((202, answer)) = &answer
                    && answer["rejected"] == json!([])
                {
                    accepted.envelopes.push(self.envelope(&region));
                    return;
                }
                accepted.refused += 1;
                if let Some(lost) = answer.and_then(|(status, answer)| given_up(status, &answer)) {
                    accepted.given_up.push(lost);
                    return;
                }
            }
            sleep(again).await;
            again = AGAIN_AT_MOST.min(again * 2);
        }
    }

    fn body(&self) -> Value {
        let event = |event: &Event| {
            json!({
                "session_id": self.session.to_string(), "profile_id": self.profile, "title_id": TITLE, "seq": event.seq,
                "kind": "progressed", "position_ms": event.position_ms, "played_ms": event.played_ms,
                "title_duration_ms": event.title_duration_ms, "device": { "kind": event.device.kind },
            })
        };
        json!({ "events": self.events.iter().map(event).collect::<Vec<_>>() })
    }

    /// What `ingest` is to make of it.
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
            profile_id: self.profile.clone(),
            title_id: TITLE.to_owned(),
            stamp,
            events: self.events.clone(),
        }
    }
}

/// What a device that follows the advice of `docs/api.md` gives up: what is refused for good.
fn given_up(status: u16, answer: &Value) -> Option<String> {
    match status {
        202 => {
            let rejected = answer["rejected"].as_array()?;
            let for_good = rejected.iter().find(|rejection| rejection["retryable"] != json!(true));
            for_good.map(Value::to_string)
        }
        400..=499 => Some(answer.to_string()),
        _ => None,
    }
}

/// Writes garbage to a log, once.
async fn spoil(region: Region, garbage: String, accepted: Arc<Mutex<Accepted>>) {
    let (_, log) = region.logs().nth(garbage.len() % 2).expect("there are two logs");
    let record = LogRecord::new(garbage.clone(), garbage);
    let appended = log.append(&[record], Override::Auto).await;
    let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
    for fate in appended.fates {
        accepted.poison += u64::from(fate.result.is_ok());
        accepted.maybe_poison += u64::from(fate.result.is_err() && fate.copies > 0);
    }
}
