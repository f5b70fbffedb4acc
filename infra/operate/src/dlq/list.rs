//! `playhead dlq list`: dead letters by reason, and the newest ones.

use super::letter::Found;
use super::queue::{DeadLetterQueue, Look};
use super::select::Filter;
use crate::text::{age, clock_time};
use anyhow::Result;
use lambda::batch::Source;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The dead letters.
#[derive(Debug, Default, Serialize)]
pub(super) struct List {
    letters_total: usize,
    reasons: BTreeMap<String, Group>,
    /// The newest letters, up to the limit.
    letters: Vec<Row>,
    /// Whether the whole queue was read.
    pub(super) complete: bool,
    /// When it was read, Unix milliseconds.
    listed_at: u64,
}

#[derive(Debug, Serialize)]
struct Group {
    letters: usize,
    /// Of letters whose number of events is known.
    events: u64,
    oldest: u64,
    newest: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    id: String,
    reason: String,
    dead_at: u64,
    source: String,
    attempts: Option<u32>,
    redrives: usize,
    events: Option<u64>,
}

impl List {
    /// Reads the queue.
    ///
    /// # Errors
    /// If a call to SQS fails.
    pub(super) async fn read(
        queue: &mut DeadLetterQueue,
        filter: &Filter,
        most: usize,
        now: u64,
    ) -> Result<(Self, Look)> {
        let mut list = Self { listed_at: now, ..Self::default() };
        let end = loop {
            match queue.next().await? {
                Look::Found(messages) => {
                    for found in messages.into_iter().map(Found::of).filter(|found| filter.takes(found, now)) {
                        list.add(&found);
                    }
                }
                end => break end,
            }
        };
        list.complete = matches!(end, Look::End);
        list.letters.sort_by(|a, b| b.dead_at.cmp(&a.dead_at).then_with(|| a.id.cmp(&b.id)));
        list.letters.truncate(most);
        Ok((list, end))
    }

    fn add(&mut self, found: &Found) {
        let (at, events) = (found.dead_at(), found.events());
        let first = || Group { letters: 0, events: 0, oldest: at, newest: at };
        let group = self.reasons.entry(found.reason().to_owned()).or_insert_with(first);
        group.letters += 1;
        group.events += events.unwrap_or_default();
        group.oldest = group.oldest.min(at);
        group.newest = group.newest.max(at);
        self.letters_total += 1;
        self.letters.push(Row {
            id: found.id.clone(),
            reason: found.reason().to_owned(),
            dead_at: at,
            source: source(found),
            attempts: found.letter().map(|letter| letter.attempts),
            redrives: found.letter().map_or(0, |letter| letter.redrives.len()),
            events,
        });
    }

    /// The list as text.
    pub(super) fn text(&self) -> String {
        if self.letters_total == 0 {
            return "No dead letters.\n".to_owned();
        }
        let ago = |at: u64| age(self.listed_at.saturating_sub(at));
        let mut text = format!("{:<24} {:>8} {:>8} {:>8} {:>8}\n", "reason", "letters", "events", "oldest", "newest");
        let mut total_events = 0;
        for (reason, Group { letters, events, oldest, newest }) in &self.reasons {
            total_events += events;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{reason:<24} {letters:>8} {events:>8} {:>8} {:>8}", ago(*oldest), ago(*newest));
        }
        let _ = writeln!(text, "{:<24} {:>8} {total_events:>8}\n", "total", self.letters_total);
        let _ = writeln!(
            text,
            "{:<36} {:<24} {:>5} {:>8} {:>8} {:>6}  source",
            "id", "reason", "age", "attempts", "redrives", "events"
        );
        for row in &self.letters {
            let known = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let (attempts, events) = (known(row.attempts.map(u64::from)), known(row.events));
            let Row { id, reason, redrives, source, .. } = row;
            let _ = writeln!(
                text,
                "{id:<36} {reason:<24} {:>5} {attempts:>8} {redrives:>8} {events:>6}  {source}",
                ago(row.dead_at)
            );
        }
        if self.letters_total > self.letters.len() {
            let _ = writeln!(text, "… and {} older ones (--limit)", self.letters_total - self.letters.len());
        }
        text
    }
}

/// Where a record came from: `topic[partition]@offset`, `stream/shard@sequence`, or the queue's
/// name.
pub(super) fn source(found: &Found) -> String {
    let name = |arn: &str| arn.rsplit([':', '/']).next().unwrap_or_default().to_owned();
    match found.letter().map(|letter| &letter.source) {
        Some(Source::Kafka { topic, partition, offset }) => format!("{topic}[{partition}]@{offset}"),
        Some(Source::Kinesis { stream, shard, sequence_number }) => {
            format!("{}/{shard}@{sequence_number}", name(stream))
        }
        Some(Source::Table { stream, sequence_number }) => format!("{stream}@{sequence_number}"),
        Some(Source::Sqs { queue, .. }) => name(queue),
        None => found.moved_from.as_deref().map_or_else(|| "?".to_owned(), name),
    }
}

/// A time, and how long ago it was.
pub(super) fn when(at: u64, now: u64) -> String {
    format!("{} ({} ago)", clock_time(at), age(now.saturating_sub(at)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dead, found};
    use super::*;

    #[test]
    fn table_is_by_reason_and_then_lists_the_newest_letters() {
        let mut list = List { listed_at: 7_200_000, complete: true, ..List::default() };
        for at in [0, 7_199_000] {
            list.add(&found(&serde_json::to_string(&dead("invalid_envelope", at)).unwrap()));
        }
        list.add(&found("hello"));
        list.letters.drain(1..);
        let expect = "\
reason                    letters   events   oldest   newest
invalid_envelope                2        2       2h       1s
raw                             1        0     119m     119m
total                           3        2

id                                   reason                     age attempts redrives events  source
m1                                   invalid_envelope            2h        0        0      1  playback-events[2]@77
… and 2 older ones (--limit)
";
        assert_eq!(list.text(), expect);
        assert_eq!(List::default().text(), "No dead letters.\n");
    }
}
