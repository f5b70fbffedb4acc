//! A table of views and its stream, with members who play, hide, mark, forget and erase.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use playback::contract::{Device, Event, Kind};
use playback::history::Rules;
use playback::session::SessionId;
use playback::view::{Receipt, View};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use store::dynamodb::{Place, PlacedView};

const BEGAN: u64 = 1_790_000_000_000;
const LENGTH: usize = 400;

/// The items by profile and sort key.
type Items = BTreeMap<(String, String), Item>;

#[derive(Debug, Clone)]
struct Item {
    session_id: Option<SessionId>,
    view: Option<View>,
    image: Value,
}

/// The table.
pub(crate) struct Table {
    rng: ChaCha8Rng,
    /// Whether two regions write views.
    regions: bool,
    items: Items,
    /// The stream.
    pub(crate) records: Vec<Value>,
    /// The ids of the records that consumers must be told of, in order.
    pub(crate) told: Vec<String>,
    /// The profile of each of them.
    pub(crate) profile_of: BTreeMap<String, String>,
}

impl Table {
    pub(crate) fn new(seed: u64, regions: bool) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            regions,
            items: Items::new(),
            records: Vec::new(),
            told: Vec::new(),
            profile_of: BTreeMap::new(),
        }
    }

    /// Whether enough has happened.
    pub(crate) fn is_over(&self) -> bool {
        self.records.len() >= LENGTH
    }

    pub(crate) fn profiles(&self) -> BTreeSet<String> {
        self.profile_of.values().cloned().collect()
    }

    /// A member does something.
    pub(crate) fn something_happens(&mut self) {
        if self.is_over() {
            return;
        }
        let profile = format!("p{}", self.rng.random_range(0..4));
        let session = SessionId::mint("use1".parse().unwrap(), BEGAN, self.rng.random_range(0..3));
        let title = format!("t{}", self.rng.random_range(0..2));
        let ulid = session.ulid;
        let yes: bool = self.rng.random();
        match self.rng.random_range(0..40) {
            0 => self.set(&profile, &format!("{ulid}#~hidden"), json!({"hidden": {"BOOL": yes}})),
            1 => {
                let watched = json!({"watched": {"BOOL": yes}, "changed_at": {"N": "7"}});
                self.set(&profile, &format!("~watched#{title}"), watched);
            }
            2 => {
                self.set(&profile, &format!("~forgotten#{title}"), json!({"forgotten_at": {"N": "7"}}));
                self.delete(&profile, |item| item.view.as_ref().is_some_and(|view| view.title_id == title));
            }
            3 => {
                self.set(&profile, &format!("{ulid}#~forgotten"), json!({"forgotten_at": {"N": "7"}}));
                self.delete(&profile, |item| item.session_id.as_ref() == Some(&session));
            }
            4 => {
                self.set(&profile, "~erased", json!({"erased_at": {"N": "7"}}));
                self.delete(&profile, |_| true);
            }
            _ => self.play(&profile, &session, &title),
        }
    }

    fn play(&mut self, profile: &str, session_id: &SessionId, title: &str) {
        let seq = self.rng.random_range(0..40);
        let event = Event {
            seq,
            kind: Kind::Progressed,
            position_ms: u64::from(seq) * 1_000,
            played_ms: self.rng.random_range(0..=u64::from(seq) * 1_000),
            title_duration_ms: self.rng.random_bool(0.5).then_some(40_000),
            credits_ms: None,
            occurred_at: Some(BEGAN + u64::from(seq)),
            device: Arc::new(Device { id: Some("d1".to_owned()), kind: None }),
            country: None,
        };
        let receipt = Receipt { received_at: BEGAN + u64::from(seq) + 7, sent_at: None, session_started_at: BEGAN };
        let away = self.regions && self.rng.random_bool(0.3);
        let sk = format!("{}#use1{}#~{title}", session_id.ulid, if away { "#usw2" } else { "" });
        let mut view = View::of(&event, title, receipt);
        let old = self.items.get(&(profile.to_owned(), sk.clone())).and_then(|item| item.view.clone());
        if let Some(old) = &old {
            view.merge(old);
        }
        if old.as_ref() == Some(&view) {
            return;
        }
        let image = json!({"view": {"B": BASE64_STANDARD.encode(view.pack())}, "version": {"N": "1"}});
        let item = Item { session_id: Some(session_id.clone()), view: Some(view), image };
        self.write(profile, &sk, Some(item));
    }

    fn set(&mut self, profile: &str, sk: &str, image: Value) {
        self.write(profile, sk, Some(Item { session_id: None, view: None, image }));
    }

    fn delete(&mut self, profile: &str, which: impl Fn(&Item) -> bool) {
        let of_profile =
            self.items.iter().filter(|((of, _), item)| of == profile && item.view.is_some() && which(item));
        let keys: Vec<String> = of_profile.map(|((_, sk), _)| sk.clone()).collect();
        keys.iter().for_each(|sk| self.write(profile, sk, None));
    }

    fn write(&mut self, profile: &str, sk: &str, new: Option<Item>) {
        let key = (profile.to_owned(), sk.to_owned());
        let image = |item: Option<&Item>| item.map_or(Value::Null, |item| item.image.clone());
        let (old, number) = (image(self.items.get(&key)), self.records.len());
        let id = format!("e{number}");
        self.records.push(json!({
            "eventID": id,
            "eventName": if new.is_none() { "REMOVE" } else if old.is_null() { "INSERT" } else { "MODIFY" },
            "eventSource": "aws:dynamodb",
            "eventSourceARN": "arn:aws:dynamodb:us-east-1:000000000000:table/views/stream/simulated",
            "dynamodb": {
                "ApproximateCreationDateTime": 1_790_000_000.5,
                "SequenceNumber": format!("{:021}", 98 + number),
                "Keys": {"pk": {"S": profile}, "sk": {"S": sk}},
                "OldImage": old,
                "NewImage": image(new.as_ref()),
            },
        }));
        self.profile_of.insert(id.clone(), profile.to_owned());
        self.told.push(id);
        match new {
            Some(new) => self.items.insert(key, new),
            None => self.items.remove(&key),
        };
    }

    /// The parts of the views of a session.
    pub(crate) fn parts(&self, profile: &str, session_id: &SessionId) -> Vec<PlacedView> {
        let of_session =
            self.items.iter().filter(|((of, _), item)| of == profile && item.session_id.as_ref() == Some(session_id));
        let placed = of_session.filter_map(|((profile_id, sk), item)| {
            Some(PlacedView {
                place: Place { profile_id: profile_id.clone(), sk: sk.clone() },
                session_id: session_id.clone(),
                view: item.view.clone()?,
                written_at: None,
            })
        });
        placed.collect()
    }

    /// The views that a reader sees, in the form of the feed.
    pub(crate) fn shown(&self) -> BTreeMap<(String, String, String), Value> {
        let mut views: BTreeMap<(String, String, String), View> = BTreeMap::new();
        for ((profile, _), item) in &self.items {
            let (Some(session_id), Some(view)) = (&item.session_id, &item.view) else { continue };
            let key = (profile.clone(), session_id.to_string(), view.title_id.clone());
            views.entry(key).and_modify(|into| into.merge(view)).or_insert_with(|| view.clone());
        }
        views.into_iter().map(|(key, view)| (key, shown(&view))).collect()
    }
}

/// The documented fields, written down again: the feed must not be compared with itself.
fn shown(view: &View) -> Value {
    json!({
        "started_at": view.first.watched_at, "watched_at": view.latest.watched_at,
        "last_received_at": view.latest.received_at, "position_ms": view.position_ms(),
        "played_ms": view.played_ms(), "title_duration_ms": view.title_duration_ms(),
        "completed": Rules::default().is_finished(view),
        "device": {"id": view.latest.device.id, "kind": view.latest.device.kind},
        "country": null, "events": view.events(),
    })
}
