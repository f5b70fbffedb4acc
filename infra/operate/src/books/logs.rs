//! Reads the books of a local cloud from its logs. CloudWatch would extract metrics from these
//! lines; the emulator does not.

use super::Books;
use crate::endpoints::Endpoints;
use anyhow::{Context as _, Result, ensure};
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use std::collections::BTreeSet;

/// Maximum number of events in one answer of FilterLogEvents. The emulator has no second page, so
/// the next page is requested by time.
const PAGE: usize = 10_000;
/// How late an event may appear in the logs, milliseconds. This much is read again.
const LATE_MS: i64 = 10_000;

/// Reads the books, and continues where it stopped. So the cost depends on what is new, not on the
/// size of the logs.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    stack: String,
    groups: Vec<Group>,
    books: Books,
}

#[derive(Debug)]
struct Group {
    name: String,
    /// Time of the newest event read, Unix milliseconds.
    newest: i64,
    /// Events that are counted and may be read again, by time and id.
    counted: BTreeSet<(i64, String)>,
}

impl Reader {
    /// A reader for a local cloud's books.
    #[must_use]
    pub fn new(endpoints: &Endpoints) -> Self {
        let client = Client::new(&endpoints.sdk_config());
        Self { client, stack: endpoints.stack.clone(), groups: Vec::new(), books: Books::default() }
    }

    /// Adds what was logged since the last call, and returns the sums.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn catch_up(&mut self) -> Result<&Books> {
        if self.groups.is_empty() {
            self.groups = self.find_groups().await?;
        }
        for group in &mut self.groups {
            let mut from = group.newest - LATE_MS;
            loop {
                let events = events_since(&self.client, &group.name, from).await?;
                let full = events.len() >= PAGE;
                let last = events.last().and_then(FilteredLogEvent::timestamp).unwrap_or(from);
                let mut added = false;
                for event in events {
                    let at = event.timestamp.unwrap_or_default();
                    let id = event.event_id.context("a log event without an id")?;
                    if group.counted.insert((at, id)) {
                        self.books.add_lines(event.message.as_deref().unwrap_or_default());
                        group.newest = group.newest.max(at);
                        added = true;
                    }
                }
                group.counted = group.counted.split_off(&(group.newest - LATE_MS, String::new()));
                if !full {
                    break;
                }
                ensure!(added || last > from, "more than {PAGE} lines within one millisecond in {}", group.name);
                from = last;
            }
        }
        Ok(&self.books)
    }

    /// The log groups of the stack's functions.
    async fn find_groups(&self) -> Result<Vec<Group>> {
        let prefix = format!("/aws/lambda/{}-", self.stack);
        let mut pages =
            self.client.describe_log_groups().log_group_name_prefix(&prefix).into_paginator().items().send();
        let mut groups = Vec::new();
        while let Some(group) = pages.next().await {
            let group = group.with_context(|| format!("listing the log groups {prefix}*"))?;
            let name = group.log_group_name.context("a log group without a name")?;
            groups.push(Group { name, newest: 0, counted: BTreeSet::new() });
        }
        ensure!(!groups.is_empty(), "there are no log groups {prefix}*");
        Ok(groups)
    }
}

/// The first [`PAGE`] events with metrics in a log group from this time on, oldest first.
async fn events_since(client: &Client, group: &str, from: i64) -> Result<Vec<FilteredLogEvent>> {
    let request = client.filter_log_events().log_group_name(group).start_time(from.max(0)).filter_pattern("_aws");
    let answer = request.send().await.with_context(|| format!("reading the log group {group}"))?;
    Ok(answer.events.unwrap_or_default())
}
