//! A report: how many minutes of each title were watched, by how many members.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Change, Key, Report, view_of};

/// What was played of each view, milliseconds. A later change of a view replaces it, so the sum is
/// right however often a view changes.
#[derive(Debug, Default)]
pub struct MinutesWatched(BTreeMap<Key, u64>);

/// A title's line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The title.
    pub title_id: String,
    /// Whole minutes played.
    pub minutes: u64,
    /// Profiles that played it.
    pub viewers: usize,
}

impl MinutesWatched {
    /// The report, most watched first.
    #[must_use]
    pub fn report(&self) -> Vec<Line> {
        let mut titles: BTreeMap<&String, (u64, BTreeSet<&String>)> = BTreeMap::new();
        for ((profile_id, _, title_id), played_ms) in &self.0 {
            let (sum, viewers) = titles.entry(title_id).or_default();
            *sum += played_ms;
            viewers.insert(profile_id);
        }
        let line = |(title_id, (ms, viewers)): (&String, (u64, BTreeSet<_>))| Line {
            title_id: title_id.clone(),
            minutes: ms / 60_000,
            viewers: viewers.len(),
        };
        let mut lines: Vec<Line> = titles.into_iter().map(line).collect();
        lines.sort_by(|a, b| b.minutes.cmp(&a.minutes).then_with(|| a.title_id.cmp(&b.title_id)));
        lines
    }
}

impl Report for MinutesWatched {
    const ABOUT: &str = "How many minutes of each title were watched, from the change feed";

    fn take(&mut self, change: &Change) {
        match view_of(change) {
            Some((key, Some(view))) => drop(self.0.insert(key, view.played_ms)),
            Some((key, None)) => drop(self.0.remove(&key)),
            None => {}
        }
    }

    fn text(&self, lines: usize) -> String {
        let mut text = String::from("minutes  viewers  title\n");
        for Line { title_id, minutes, viewers } in self.report().iter().take(lines) {
            text.push_str(&format!("{minutes:>7}  {viewers:>7}  {title_id}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::because_you_watched::tests::{changed, erased};

    #[test]
    fn a_later_change_of_a_view_replaces_it_and_an_erased_one_counts_no_more() {
        let mut minutes = MinutesWatched::default();
        for change in
            [changed("p1", "s1", "t1", 60_000), changed("p1", "s1", "t1", 180_000), changed("p2", "s2", "t1", 59_999)]
        {
            minutes.take(&change);
        }
        let line = |minutes, viewers| Line { title_id: "t1".to_owned(), minutes, viewers };
        assert_eq!(minutes.report(), [line(3, 2)]);
        minutes.take(&erased("p1", "s1", "t1"));
        assert_eq!(minutes.report(), [line(0, 1)]);
    }
}
