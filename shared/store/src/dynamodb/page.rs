//! Pages of a profile's history.
//!
//! An unreadable row is logged and skipped: one bad item must not hide the others from a member.

use super::Views;
use super::error::classify;
use super::item::{self, AFTER_MARKS, AFTER_SESSIONS, BEFORE_WATCHED, Item};
use crate::table::{Fault, StoreError};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use playback::history::{Entry, Marks, Row, assemble};
use playback::session::parse_ulid;
use std::fmt;
use std::str::FromStr;
use ulid::Ulid;

/// Maximum number of entries that a page can be asked for.
pub const MAX_PAGE: usize = 100;
/// How many rows one request reads before it answers with what it has. Bounds the time spent on
/// hidden and erased sessions.
pub(super) const MAX_ROWS: usize = 2_000;

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
    /// Maximum number of entries, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// Where the previous page ended.
    pub after: Option<PageToken>,
    /// Whether hidden sessions are listed too.
    pub include_hidden: bool,
}

/// Entries, newest first.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// As many as requested, or fewer, which does not mean that there are no more. They are more
    /// only where one session has more titles than that.
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
        let marks = self.marks_up_to(profile_id, BEFORE_WATCHED).await?;
        let listed = |entry: &Entry| request.include_hidden || !entry.hidden;
        self.newest(profile_id, &marks, request.limit, request.after, listed).await
    }

    /// The time up to which the profile's history is erased, Unix milliseconds; `None` if it never
    /// was.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn erased_at(&self, profile_id: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.marks_up_to(profile_id, item::ERASED).await?.erased_at)
    }

    /// What the member said about the profile and its titles. What an erasure covers is left out,
    /// even before it is deleted.
    pub(super) async fn marks(&self, profile_id: &str) -> Result<Marks, StoreError> {
        self.marks_up_to(profile_id, AFTER_MARKS).await
    }

    /// The marks with sort keys up to `last`. What a member marked as watched comes last, and may be
    /// much.
    async fn marks_up_to(&self, profile_id: &str, last: &str) -> Result<Marks, StoreError> {
        let query = self.query_between(profile_id, AFTER_SESSIONS, last).consistent_read(true);
        let mut pages = query.into_paginator().items().send();
        let mut marks = Marks::default();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| classify("Query", self.of_profile(profile_id), error))?;
            if let Err(fault) = item::add_mark(&item, &mut marks) {
                self.log_unreadable(profile_id, &item, &fault);
            }
        }
        let mut watched = std::mem::take(&mut marks.watched);
        watched.retain(|title_id, mark| marks.erased_up_to(title_id).is_none_or(|erased_at| mark.at > erased_at));
        Ok(Marks { watched, ..marks })
    }

    /// The newest entries that are `listed`.
    pub(super) async fn newest(
        &self,
        profile_id: &str,
        marks: &Marks,
        limit: usize,
        after: Option<PageToken>,
        listed: impl Fn(&Entry) -> bool,
    ) -> Result<HistoryPage, StoreError> {
        let from = after.map_or_else(|| AFTER_SESSIONS.to_owned(), |token| token.last.to_string());
        let (mut items, mut more) = self.rows_before(profile_id, &from, limit * 2 + 1).await?;
        loop {
            let mut rows: Vec<(Ulid, Row)> = items.iter().filter_map(|item| self.readable(profile_id, item)).collect();
            // The last session may have more rows than were read.
            let cut = if more { items.last().and_then(ulid_of) } else { None };
            rows.retain(|(ulid, _)| Some(*ulid) != cut);
            let last_whole = rows.last().map(|(ulid, _)| *ulid);
            let mut entries = assemble(rows, marks);
            entries.retain(&listed);
            if let Some(end) = page_end(&entries, limit) {
                entries.truncate(end);
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
    pub(super) async fn rows_before(
        &self,
        profile_id: &str,
        before: &str,
        limit: usize,
    ) -> Result<(Vec<Item>, bool), StoreError> {
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

    pub(super) fn readable(&self, profile_id: &str, item: &Item) -> Option<(Ulid, Row)> {
        item::row(item).inspect_err(|fault| self.log_unreadable(profile_id, item, fault)).ok()
    }

    fn log_unreadable(&self, profile_id: &str, item: &Item, fault: &Fault) {
        let sk = item::get_text(item, "sk").unwrap_or_default();
        tracing::error!(table = self.table, profile_id, sk, %fault, "skipped an unreadable item");
    }

    pub(super) fn of_profile(&self, profile_id: &str) -> String {
        format!("{} ({profile_id})", self.table)
    }
}

/// Where a page of about `limit` entries ends, so that no session is split; `None` if all entries
/// fit.
fn page_end(entries: &[Entry], limit: usize) -> Option<usize> {
    let session = |at: usize| entries.get(at).map(|entry| entry.session_id.ulid);
    let is_boundary = |at: &usize| session(*at) != session(*at - 1);
    (entries.len() > limit).then(|| {
        let before = (1..=limit).rev().find(is_boundary);
        before.or_else(|| (limit..entries.len()).find(is_boundary)).unwrap_or(entries.len())
    })
}

/// The session that a row's key names.
pub(super) fn ulid_of(item: &Item) -> Option<Ulid> {
    let (ulid, _) = item::get_text(item, "sk")?.split_once('#')?;
    parse_ulid(ulid)
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
