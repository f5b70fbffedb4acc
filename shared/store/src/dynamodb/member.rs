//! The member's queries (history, continue watching, a title's bookmark) and commands (hide,
//! unhide, erase).
//!
//! An unreadable row is logged and skipped: one bad item must not hide the others from a member.

use super::Views;
use super::error::classify;
use super::item::{self, AFTER_SESSIONS, ERASED, Item};
use crate::table::{Fault, StoreError};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use playback::history::{self, Entry, Row, assemble};
use playback::session::{SessionId, parse_ulid};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;
use ulid::Ulid;

/// Maximum number of sessions in a page.
pub const MAX_PAGE: usize = 100;
/// How many rows one request reads before it answers with what it has. Bounds the time spent on
/// hidden and erased sessions.
const MAX_ROWS: usize = 2_000;
/// How many of the newest sessions continue watching reads.
const CONTINUE_SESSIONS: usize = 500;
/// How many of a title's newest sessions its bookmark reads.
const BOOKMARK_SESSIONS: usize = 200;
/// Maximum number of items in one BatchWriteItem. Source: DynamoDB API reference, BatchWriteItem.
const BATCH_WRITE_ITEMS: usize = 25;
const UNPROCESSED_PAUSE: Duration = Duration::from_millis(50);

/// Where a page ended; opaque to members. It names no profile, so it cannot open another profile's
/// history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken {
    last: Ulid,
}

/// Not a `next_page_token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the `next_page_token` of an earlier page")]
pub struct MalformedPageToken;

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(format!("1{}", self.last)))
    }
}

impl FromStr for PageToken {
    type Err = MalformedPageToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| MalformedPageToken)?;
        let text = String::from_utf8(bytes).map_err(|_| MalformedPageToken)?;
        let last = text.strip_prefix('1').and_then(parse_ulid).ok_or(MalformedPageToken)?;
        Ok(Self { last })
    }
}

/// A request for a page of the history.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Maximum number of sessions, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// Where the previous page ended.
    pub after: Option<PageToken>,
    /// Whether hidden sessions are listed too.
    pub include_hidden: bool,
}

/// Sessions, newest first.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// At most as many as requested. Fewer does not mean that there are no more.
    pub entries: Vec<Entry>,
    /// Where to continue; `None` at the end.
    pub next: Option<PageToken>,
}

impl Views {
    /// Reads a page of a profile's history, newest first. A page never splits a session.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn history(&self, profile_id: &str, request: Request) -> Result<HistoryPage, StoreError> {
        let listed = |entry: &Entry| request.include_hidden || !entry.hidden;
        self.newest(profile_id, request.limit, request.after, listed).await
    }

    /// The newest session of each title, unless it is hidden or completed. Reads the newest 500
    /// sessions.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn continue_watching(&self, profile_id: &str, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let page = self.newest(profile_id, CONTINUE_SESSIONS, None, |_| true).await?;
        let mut entries = history::continue_watching(page.entries);
        entries.truncate(limit);
        Ok(entries)
    }

    /// The session of a title that was received last, of its newest 200. Hidden ones count: hiding
    /// concerns the list, not where to resume.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn bookmark(&self, profile_id: &str, title_id: &str) -> Result<Option<Entry>, StoreError> {
        let erased_at = self.erased_at(profile_id).await?;
        let mut pages = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("by_title")
            .key_condition_expression("pk = :profile AND title_id = :title")
            .expression_attribute_values(":profile", item::text(profile_id))
            .expression_attribute_values(":title", item::text(title_id))
            .into_paginator()
            .items()
            .send();
        let mut sort_keys = Vec::new();
        while let Some(key) = pages.next().await {
            let key = key.map_err(|error| classify("Query", self.of_profile(profile_id), error))?;
            sort_keys.extend(item::get_text(&key, "sk").map(str::to_owned));
        }
        sort_keys.sort_unstable_by(|a, b| b.cmp(a));
        sort_keys.truncate(BOOKMARK_SESSIONS);
        let keys = sort_keys.into_iter().map(|sk| item::primary_key(profile_id, sk)).collect();
        let mut items = self.get_items(keys).await?;
        items.sort_unstable_by(|a, b| item::get_text(b, "sk").cmp(&item::get_text(a, "sk")));
        let entries = assemble(items.iter().filter_map(|item| self.readable(profile_id, item)));
        Ok(history::bookmark(entries.into_iter().filter(|entry| !entry.is_erased(erased_at))))
    }

    /// Hides a session or shows it again, as of `at` (Unix milliseconds). The later command wins,
    /// in whatever order they arrive. The session need not exist yet.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn set_hidden(
        &self,
        profile_id: &str,
        session: &SessionId,
        hidden: bool,
        at: u64,
    ) -> Result<(), StoreError> {
        let attribute = Some(("hidden", AttributeValue::Bool(hidden)));
        self.set_register(profile_id, item::hidden_sk(session), "changed_at", at, attribute).await
    }

    /// Erases everything up to `at` (Unix milliseconds). First it writes a mark that readers
    /// respect, then it deletes until `deadline`. Returns whether everything is deleted; call again
    /// to continue.
    ///
    /// # Errors
    /// When the table cannot be written. Once the mark is stored, reads are right whatever happens
    /// next.
    pub async fn erase(&self, profile_id: &str, at: u64, deadline: Instant) -> Result<bool, StoreError> {
        self.set_register(profile_id, ERASED.to_owned(), "erased_at", at, None).await?;
        let mut before = AFTER_SESSIONS.to_owned();
        loop {
            let (items, more) = self.rows_before(profile_id, &before, MAX_ROWS).await?;
            let Some(last) = items.last().and_then(|item| item::get_text(item, "sk")).map(str::to_owned) else {
                return Ok(true);
            };
            let erased = items
                .iter()
                .filter(|item| is_covered(item, at))
                .filter_map(|item| Some(item::primary_key(profile_id, item::get_text(item, "sk")?)));
            let erased: Vec<Item> = erased.collect();
            for batch in erased.chunks(BATCH_WRITE_ITEMS) {
                if !self.delete_batch(profile_id, batch, deadline).await? {
                    return Ok(false);
                }
            }
            if !more {
                return Ok(true);
            }
            before = last;
        }
    }

    /// The time up to which the profile's history is erased, Unix milliseconds; `None` if it never
    /// was.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn erased_at(&self, profile_id: &str) -> Result<Option<u64>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(item::primary_key(profile_id, ERASED)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| classify("GetItem", self.of_profile(profile_id), error))?;
        Ok(answer.item.as_ref().and_then(|item| item::get_number(item, "erased_at")))
    }

    /// The newest sessions that are `listed` and not erased.
    async fn newest(
        &self,
        profile_id: &str,
        limit: usize,
        after: Option<PageToken>,
        listed: impl Fn(&Entry) -> bool,
    ) -> Result<HistoryPage, StoreError> {
        let from = after.map_or_else(|| AFTER_SESSIONS.to_owned(), |token| token.last.to_string());
        let (erased_at, first) =
            tokio::try_join!(self.erased_at(profile_id), self.rows_before(profile_id, &from, limit * 2 + 1))?;
        let (mut items, mut more) = first;
        loop {
            let mut rows: Vec<(Ulid, Row)> = items.iter().filter_map(|item| self.readable(profile_id, item)).collect();
            // The last session may have more rows than were read.
            let cut = if more { items.last().and_then(ulid_of) } else { None };
            rows.retain(|(ulid, _)| Some(*ulid) != cut);
            let last_whole = rows.last().map(|(ulid, _)| *ulid);
            let mut entries = assemble(rows);
            entries.retain(|entry| listed(entry) && !entry.is_erased(erased_at));
            if entries.len() > limit {
                entries.truncate(limit);
                let next = entries.last().map(|entry| PageToken { last: entry.session_id.ulid });
                return Ok(HistoryPage { entries, next });
            }
            if !more {
                return Ok(HistoryPage { entries, next: None });
            }
            if items.len() >= MAX_ROWS.max(limit * 2 + 1)
                && let Some(last) = last_whole
            {
                return Ok(HistoryPage { entries, next: Some(PageToken { last }) });
            }
            let before = items.last().and_then(|item| item::get_text(item, "sk")).unwrap_or_default().to_owned();
            let (next_items, still_more) = self.rows_before(profile_id, &before, items.len()).await?;
            items.extend(next_items);
            more = still_more;
        }
    }

    /// Up to `limit` session rows with sort keys below `before`, newest first, and whether there
    /// are more. DynamoDB may return fewer, at 1 MB. The read is consistent, so what a member just
    /// hid is hidden.
    async fn rows_before(&self, profile_id: &str, before: &str, limit: usize) -> Result<(Vec<Item>, bool), StoreError> {
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :profile AND sk < :before")
            .expression_attribute_values(":profile", item::text(profile_id))
            .expression_attribute_values(":before", item::text(before))
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(|error| classify("Query", self.of_profile(profile_id), error))?;
        let more = answer.last_evaluated_key.is_some_and(|key| !key.is_empty());
        Ok((answer.items.unwrap_or_default(), more))
    }

    /// Sets a register's clock and attribute, if the register was last set before or at `at`. Uses
    /// placeholders for names, since some, such as `hidden`, are reserved words in DynamoDB.
    async fn set_register(
        &self,
        profile_id: &str,
        sk: String,
        clock: &str,
        at: u64,
        attribute: Option<(&str, AttributeValue)>,
    ) -> Result<(), StoreError> {
        let subject = format!("{} ({profile_id}, {sk})", self.table);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(item::primary_key(profile_id, sk)))
            .condition_expression("attribute_not_exists(#clock) OR #clock <= :at")
            .expression_attribute_names("#clock", clock)
            .expression_attribute_values(":at", item::number(at));
        let update = match attribute {
            None => update.update_expression("SET #clock = :at"),
            Some((name, value)) => update
                .update_expression("SET #clock = :at, #attribute = :attribute")
                .expression_attribute_names("#attribute", name)
                .expression_attribute_values(":attribute", value),
        };
        let result = update.send().await;
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                // A later command was stored already: it wins.
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(()),
                _ => Err(classify("UpdateItem", subject, error)),
            },
        }
    }

    /// Deletes a batch of items; `false` if the deadline passed first.
    async fn delete_batch(&self, profile_id: &str, keys: &[Item], deadline: Instant) -> Result<bool, StoreError> {
        let subject = || self.of_profile(profile_id);
        let mut wanted = Vec::with_capacity(keys.len());
        for key in keys {
            let delete = DeleteRequest::builder().set_key(Some(key.clone())).build();
            let delete = delete.map_err(|error| StoreError {
                operation: "BatchWriteItem",
                subject: subject(),
                fault: Fault::Unavailable(error.to_string()),
            })?;
            wanted.push(WriteRequest::builder().delete_request(delete).build());
        }
        while !wanted.is_empty() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            let answer = self.client.batch_write_item().request_items(&self.table, wanted).send().await;
            let answer = answer.map_err(|error| classify("BatchWriteItem", subject(), error))?;
            wanted = answer.unprocessed_items.unwrap_or_default().remove(&self.table).unwrap_or_default();
            if !wanted.is_empty() {
                tokio::time::sleep(UNPROCESSED_PAUSE).await;
            }
        }
        Ok(true)
    }

    fn readable(&self, profile_id: &str, item: &Item) -> Option<(Ulid, Row)> {
        item::row(item)
            .inspect_err(|fault| {
                let sk = item::get_text(item, "sk").unwrap_or_default();
                tracing::error!(table = self.table, profile_id, sk, %fault, "skipped an unreadable item");
            })
            .ok()
    }

    fn of_profile(&self, profile_id: &str) -> String {
        format!("{} ({profile_id})", self.table)
    }
}

/// The session that a row's key names.
fn ulid_of(item: &Item) -> Option<Ulid> {
    let (ulid, _) = item::get_text(item, "sk")?.split_once('#')?;
    parse_ulid(ulid)
}

/// Whether an erasure up to `at` covers a stored item, by the time in its key or by when its view
/// began. An unreadable item stays unless its key is old enough.
fn is_covered(item: &Item, at: u64) -> bool {
    let by_key = ulid_of(item).is_some_and(|ulid| ulid.timestamp_ms() <= at);
    by_key || matches!(item::row(item), Ok((_, Row::Part { view, .. })) if view.started_at <= at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_round_trip_and_other_text_is_rejected() {
        let token = PageToken { last: Ulid::from_parts(1_790_000_000_000, 42) };
        assert_eq!(token.to_string().parse(), Ok(token));
        for text in ["", "x", "MQ", "!!!!", &BASE64_URL_SAFE_NO_PAD.encode("101ARZ3NDEKTSV4RRFFQ69G5FA")] {
            assert_eq!(text.parse::<PageToken>(), Err(MalformedPageToken), "{text}");
        }
    }
}
