//! A consumer as `docs/feed.md` says how to write one: it drops repeats by `sequence`, and erases
//! what it is told to.

use std::collections::{BTreeMap, BTreeSet};

use examples::{Change, Repeats};
use serde::Deserialize as _;
use serde_json::Value;

/// What a consumer keeps.
#[derive(Debug, Default)]
pub(crate) struct Consumer {
    /// The `id` of each event that arrived.
    pub(crate) seen: BTreeSet<String>,
    /// The same in the order in which they arrived first.
    pub(crate) firsts: Vec<String>,
    /// The views, by profile, session and title.
    pub(crate) views: BTreeMap<(String, String, String), Value>,
    repeats: Repeats,
}

impl Consumer {
    /// Takes the next event of the feed.
    pub(crate) fn take(&mut self, event: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = text(&event["id"]);
        if self.seen.insert(id.clone()) {
            self.firsts.push(id);
        }
        if !self.repeats.is_new(&Change::deserialize(event).unwrap()) {
            return;
        }
        let data = &event["data"];
        let key = (text(&event["partitionkey"]), text(&data["session_id"]), text(&data["title_id"]));
        match event["type"].as_str() {
            Some("playhead.view.changed") => {
                self.views.insert(key, data["new"].clone());
            }
            Some("playhead.view.erased") => {
                self.views.remove(&key);
            }
            _ => {}
        }
    }
}
