//! The books: what the functions counted, summed from their metrics (CloudWatch Embedded Metric Format) in CloudWatch Logs.
//!
//! accepted = applied + duplicates + dead + in flight. On AWS, CloudWatch makes metrics of the same lines; the local cloud's
//! emulator does not, so they are summed here from the lines themselves.

use crate::local::Endpoints;
use anyhow::{Context as _, Result};
use aws_sdk_cloudwatchlogs::Client;
use lambda::metrics::NAMESPACE;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Sums of what was counted since the local cloud started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Events that a `202` called accepted.
    pub accepted: u64,
    /// Events that were rejected at the edge, by code.
    pub rejected: BTreeMap<String, u64>,
    /// Events folded into a view for the first time.
    pub applied: u64,
    /// Events that their view had already seen.
    pub duplicates: u64,
    /// Events of records that went to the dead-letter queue, by reason.
    pub dead: BTreeMap<String, u64>,
    /// Records that went to the dead-letter queue, by reason.
    pub dead_records: BTreeMap<String, u64>,
    /// Records that failed and came again, by cause.
    pub failed_records: BTreeMap<String, u64>,
    /// Records that the log acknowledged.
    pub appended_records: u64,
    /// Records that reached `process`.
    pub received_records: u64,
    /// Conditional writes of views.
    pub view_writes: u64,
    /// Views read by `process`.
    pub view_reads: u64,
    /// Conditional writes that lost a race.
    pub lost_races: u64,
}

/// Log streams named in one FilterLogEvents (100 at most). Few enough that their events fit one page, since the emulator
/// gives no second one; it makes a stream of each invocation.
const STREAMS: usize = 100;

/// Reads the books, and goes on where it stopped when asked again.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    groups: [String; 2],
    /// When each stream last grew, as far as it was read: by log group and stream, Unix milliseconds.
    read: HashMap<(String, String), i64>,
    /// The events that are in the books: a stream that grew is read again.
    counted: HashSet<String>,
    books: Books,
}

impl Reader {
    /// A reader of a local cloud's books.
    #[must_use]
    pub fn new(endpoints: &Endpoints) -> Self {
        let groups = [&endpoints.ingest_function, &endpoints.process_function];
        Self {
            client: Client::new(&endpoints.sdk_config()),
            groups: groups.map(|function| format!("/aws/lambda/{function}")),
            read: HashMap::new(),
            counted: HashSet::new(),
            books: Books::default(),
        }
    }

    /// Adds what was logged since the last call, and gives the sums.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn catch_up(&mut self) -> Result<&Books> {
        for group in self.groups.clone() {
            let mut grown = Vec::new();
            let mut pages = self.client.describe_log_streams().log_group_name(&group).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.with_context(|| format!("listing the streams of the log group {group}"))?;
                for stream in page.log_streams.unwrap_or_default() {
                    let at = stream.last_ingestion_time.unwrap_or_default();
                    if let Some(name) = stream.log_stream_name
                        && self.read.insert((group.clone(), name.clone()), at) != Some(at)
                    {
                        grown.push(name);
                    }
                }
            }
            for streams in grown.chunks(STREAMS) {
                self.read_streams(&group, streams).await?;
            }
        }
        Ok(&self.books)
    }

    async fn read_streams(&mut self, group: &str, streams: &[String]) -> Result<()> {
        let request = self.client.filter_log_events().log_group_name(group);
        let mut pages = request.set_log_stream_names(Some(streams.to_vec())).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.with_context(|| format!("reading the log group {group}"))?;
            for event in page.events.unwrap_or_default() {
                if event.event_id.is_none_or(|id| self.counted.insert(id)) {
                    self.books.add_lines(event.message.as_deref().unwrap_or_default());
                }
            }
        }
        Ok(())
    }
}

impl Books {
    /// Accepted events that are neither in a view nor dead yet. Negative when a record was delivered again after it had
    /// been counted: its events are then counted as duplicates once more.
    pub fn in_flight(&self) -> i64 {
        let ended = self.applied + self.duplicates + self.dead.values().sum::<u64>();
        self.accepted as i64 - ended as i64
    }

    /// Adds the metrics among the lines of a log event.
    fn add_lines(&mut self, lines: &str) {
        for line in lines.lines() {
            // Most lines are no metrics: the parser need not see them.
            if line.starts_with("{\"_aws\"")
                && let Ok(document) = serde_json::from_str::<Value>(line)
            {
                self.add(&document);
            }
        }
    }

    fn add(&mut self, document: &Value) {
        let directives = document.pointer("/_aws/CloudWatchMetrics").and_then(Value::as_array);
        for directive in directives.into_iter().flatten().filter(|directive| directive["Namespace"] == NAMESPACE) {
            for name in
                directive["Metrics"].as_array().into_iter().flatten().filter_map(|metric| metric["Name"].as_str())
            {
                let n = document[name].as_u64().unwrap_or_default();
                let of = |dimension: &str| document[dimension].as_str().unwrap_or_default().to_owned();
                match name {
                    "EventsAccepted" => self.accepted += n,
                    "EventsRejected" => *self.rejected.entry(of("Code")).or_default() += n,
                    "EventsApplied" => self.applied += n,
                    "EventsDuplicate" => self.duplicates += n,
                    "EventsDead" => *self.dead.entry(of("Reason")).or_default() += n,
                    "RecordsDead" => *self.dead_records.entry(of("Reason")).or_default() += n,
                    "RecordsFailed" => *self.failed_records.entry(of("Reason")).or_default() += n,
                    "RecordsAppended" => self.appended_records += n,
                    "RecordsReceived" => self.received_records += n,
                    "ViewWrites" => self.view_writes += n,
                    "ViewReads" => self.view_reads += n,
                    "LostRaces" => self.lost_races += n,
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda::metrics::{Emitter, Metric};
    use std::sync::{Arc, Mutex};

    #[test]
    fn the_books_add_up_what_the_functions_count() {
        let lines = Arc::new(Mutex::new(String::from("START RequestId\n{\"level\":\"INFO\"}\n")));
        let sink = Arc::clone(&lines);
        let emitter = Emitter::to("dev", "process", move |text| sink.lock().unwrap().push_str(text));
        for _ in 0..2 {
            let metrics = emitter.start(1);
            metrics.add(Metric::EventsAccepted, 10);
            metrics.add(Metric::EventsRejected("kind_unknown"), 1);
            metrics.add(Metric::EventsApplied, 6);
            metrics.add(Metric::EventsDuplicate, 2);
            metrics.add(Metric::EventsDead("invalid_envelope"), 1);
            metrics.add(Metric::ViewWrites, 3);
        }
        let mut books = Books::default();
        books.add_lines(&lines.lock().unwrap());
        assert_eq!((books.accepted, books.applied, books.duplicates, books.view_writes), (20, 12, 4, 6));
        assert_eq!(books.rejected, BTreeMap::from([("kind_unknown".to_owned(), 2)]));
        assert_eq!(books.in_flight(), 2);
    }
}
