//! A consumer as `docs/feed.md` says how to write one: it drops repeats by `sequence`, and erases
//! what it is told to.

use std::collections::{BTreeMap, BTreeSet};

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
    /// The greatest `sequence` by profile.
    last: BTreeMap<String, String>,
}

impl Consumer {
    /// Takes the next event of the feed.
    pub(crate) fn take(&mut self, event: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = text(&event["id"]);
        if self.seen.insert(id.clone()) {
            self.firsts.push(id);
        }
        let (profile, sequence) = (text(&event["partitionkey"]), text(&event["sequence"]));
        let last = self.last.entry(profile.clone()).or_default();
        if sequence <= *last {
            return; // a repeat
        }
        *last = sequence;
        let data = &event["data"];
        let key = (profile, text(&data["session_id"]), text(&data["title_id"]));
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
