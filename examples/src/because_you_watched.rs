//! "Because you watched": titles that were watched by the same members, by how many.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Change, Key, Report, view_of};

/// A view counts as watched from this on, milliseconds.
const WATCHED_MS: u64 = 60_000;

/// The views that were watched.
#[derive(Debug, Default)]
pub struct BecauseYouWatched(BTreeSet<Key>);

impl BecauseYouWatched {
    /// For a title, the others that its viewers watched, with how many did.
    #[must_use]
    pub fn others(&self, title_id: &str) -> Vec<(String, usize)> {
        let mut titles_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (profile_id, _, watched) in &self.0 {
            titles_of.entry(profile_id).or_default().insert(watched);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for titles in titles_of.values().filter(|titles| titles.contains(title_id)) {
            for other in titles.iter().filter(|other| **other != title_id) {
                *counts.entry(other).or_default() += 1;
            }
        }
        let mut others: Vec<_> = counts.into_iter().map(|(title, viewers)| (title.to_owned(), viewers)).collect();
        others.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        others
    }
}

impl Report for BecauseYouWatched {
    const ABOUT: &str = "Titles that were watched by the same members, from the change feed";

    fn take(&mut self, change: &Change) {
        match view_of(change) {
            Some((key, Some(view))) if view.completed || view.played_ms >= WATCHED_MS => {
                self.0.insert(key);
            }
            Some((key, _)) => {
                self.0.remove(&key);
            }
            None => {}
        }
    }

    fn text(&self, lines: usize) -> String {
        let mut viewers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (profile_id, _, title_id) in &self.0 {
            viewers.entry(title_id).or_default().insert(profile_id);
        }
        let mut titles: Vec<_> = viewers.into_iter().map(|(title, viewers)| (viewers.len(), title)).collect();
        titles.sort_by(|a, b| b.cmp(a));
        let mut text = String::new();
        for (_, title) in titles.into_iter().take(lines) {
            let others = self.others(title);
            let best: Vec<String> = others.iter().take(3).map(|(other, n)| format!("{other} ({n})")).collect();
            text.push_str(&format!("because you watched {title}: {}\n", best.join(", ")));
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    fn change(kind: &str, of: [&str; 3], new: serde_json::Value) -> Change {
        let [profile_id, session_id, title_id] = of;
        let data = json!({"profile_id": profile_id, "session_id": session_id, "title_id": title_id, "new": new});
        let json = json!({
            "id": "e", "source": "/playhead/test/us-east-1", "type": kind, "partitionkey": profile_id, "sequence": "1",
            "data": data,
        });
        serde_json::from_value(json).unwrap()
    }

    pub(crate) fn changed(profile_id: &str, session_id: &str, title_id: &str, played_ms: u64) -> Change {
        let new = json!({"played_ms": played_ms, "completed": false});
        change("playhead.view.changed", [profile_id, session_id, title_id], new)
    }

    pub(crate) fn erased(profile_id: &str, session_id: &str, title_id: &str) -> Change {
        change("playhead.view.erased", [profile_id, session_id, title_id], serde_json::Value::Null)
    }

    #[test]
    fn titles_of_the_same_viewers_belong_together_until_one_is_erased() {
        let mut because = BecauseYouWatched::default();
        for (profile, title) in [("p1", "a"), ("p1", "b"), ("p2", "a"), ("p2", "b"), ("p2", "c"), ("p3", "c")] {
            because.take(&changed(profile, &format!("{profile}{title}"), title, 60_000));
        }
        because.take(&changed("p3", "s", "a", 59_999));
        assert_eq!(because.others("a"), [("b".to_owned(), 2), ("c".to_owned(), 1)]);
        because.take(&erased("p2", "p2b", "b"));
        assert_eq!(because.others("a"), [("b".to_owned(), 1), ("c".to_owned(), 1)]);
        assert_eq!(because.others("x"), []);
    }
}
