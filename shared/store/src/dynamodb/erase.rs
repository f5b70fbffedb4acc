//! Erasing: everything, a title, or a session.
//!
//! First a mark is written, which readers respect and which keeps `process` from writing anything of
//! it again. Then the items are deleted. A `process` that began before the mark may still write an
//! item, so the deletion must be repeated once no such invocation can be running: see
//! [`Erase::REPEAT_AFTER`].

use super::Views;
use super::error::classify;
use super::item::{self, AFTER_MARKS, AFTER_SESSIONS, ERASED, Item};
use super::page::{MAX_ROWS, ulid_of};
use crate::erase::Erase;
use crate::table::{Fault, StoreError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::types::{DeleteRequest, WriteRequest};
use futures::stream::{self, StreamExt};
use playback::history::Row;
use playback::session::SessionId;
use std::time::Duration;
use tokio::time::Instant;

/// Maximum number of items in one BatchWriteItem. Source: DynamoDB API reference, BatchWriteItem.
const BATCH_WRITE_ITEMS: usize = 25;
/// Registers that are deleted at once.
const CONCURRENT_DELETIONS: usize = 16;
const UNPROCESSED_PAUSE: Duration = Duration::from_millis(50);

impl Views {
    /// Writes the mark of an erasure: from here on, readers see nothing of what it covers.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn mark_erased(&self, erase: &Erase) -> Result<(), StoreError> {
        let Erase { profile_id, at, title_id, session_id } = erase;
        let (sk, clock) = match (session_id, title_id) {
            (Some(session), title_id) => {
                (item::forgotten_session_sk(session.ulid, title_id.as_deref()), "forgotten_at")
            }
            (None, Some(title_id)) => (item::forgotten_title_sk(title_id), "forgotten_at"),
            (None, None) => (ERASED.to_owned(), "erased_at"),
        };
        self.set_register(profile_id, sk, clock, *at, None).await
    }

    /// Deletes what an erasure covers, until `deadline`. Returns whether everything is deleted; call
    /// again to continue. The mark must be written already.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn delete_erased(&self, erase: &Erase, deadline: Instant) -> Result<bool, StoreError> {
        match (&erase.session_id, &erase.title_id) {
            (Some(session), _) => self.delete_session(erase, session, deadline).await,
            (None, Some(title_id)) => self.delete_title(erase, title_id, deadline).await,
            (None, None) => self.delete_everything(erase, deadline).await,
        }
    }

    async fn delete_everything(&self, erase: &Erase, deadline: Instant) -> Result<bool, StoreError> {
        let mut before = AFTER_MARKS.to_owned();
        loop {
            let (items, more) = self.rows_before(&erase.profile_id, &before, MAX_ROWS).await?;
            let Some(last) = items.last().and_then(|item| item::get_text(item, "sk")).map(str::to_owned) else {
                return Ok(true);
            };
            if !self.delete_covered(erase, &items, deadline).await? {
                return Ok(false);
            }
            if !more {
                return Ok(true);
            }
            before = last;
        }
    }

    async fn delete_title(&self, erase: &Erase, title_id: &str, deadline: Instant) -> Result<bool, StoreError> {
        let keys = self.keys_between(&erase.profile_id, "0", AFTER_SESSIONS, Some(title_id)).await?;
        let keys = keys.into_iter().chain([item::watched_sk(title_id)]);
        let items = self.get_items(keys.map(|sk| item::primary_key(&erase.profile_id, sk)).collect()).await?;
        self.delete_covered(erase, &items, deadline).await
    }

    /// Deletes all of a session, or one title of it if the erasure names one.
    async fn delete_session(&self, erase: &Erase, session: &SessionId, deadline: Instant) -> Result<bool, StoreError> {
        let (first, last) = (format!("{}#", session.ulid), format!("{}#~", session.ulid));
        let title_id = erase.title_id.as_deref();
        let mut keys = self.keys_between(&erase.profile_id, &first, &last, title_id).await?;
        if title_id.is_none() {
            keys.push(item::hidden_sk(session.ulid));
        }
        let keys: Vec<Item> = keys.into_iter().map(|sk| item::primary_key(&erase.profile_id, sk)).collect();
        self.delete_keys(&erase.profile_id, &keys, deadline).await
    }

    /// Deletes those of the items that an erasure covers.
    async fn delete_covered(&self, erase: &Erase, items: &[Item], deadline: Instant) -> Result<bool, StoreError> {
        let (mut keys, mut registers) = (Vec::new(), Vec::new());
        for item in items {
            let Some(sk) = item::get_text(item, "sk") else { continue };
            let key = item::primary_key(&erase.profile_id, sk);
            match covered(item, erase.at) {
                Covered::No => {}
                Covered::Yes => keys.push(key),
                Covered::Register(clock) => registers.push((key, clock)),
                // Its later events must stay erased, too, and no time says so.
                Covered::AheadOfTime(session) => {
                    if Instant::now() >= deadline {
                        return Ok(false);
                    }
                    let of_session = Erase { session_id: Some(session.clone()), ..erase.clone() };
                    self.mark_erased(&of_session).await?;
                    // With what was received after the erasure, and is of that session, too.
                    if !self.delete_session(&of_session, &session, deadline).await? {
                        return Ok(false);
                    }
                }
            }
        }
        if !self.delete_keys(&erase.profile_id, &keys, deadline).await? {
            return Ok(false);
        }
        let deletions = registers.into_iter().map(|(key, clock)| self.delete_register(erase, key, clock, deadline));
        let mut deletions = stream::iter(deletions.collect::<Vec<_>>()).buffer_unordered(CONCURRENT_DELETIONS);
        while let Some(is_deleted) = deletions.next().await {
            if !is_deleted? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes a register, unless the member has set it again since it was read. `false` if the
    /// deadline passed first.
    async fn delete_register(
        &self,
        erase: &Erase,
        key: Item,
        clock: &'static str,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .condition_expression("#clock <= :at")
            .expression_attribute_names("#clock", clock)
            .expression_attribute_values(":at", item::number(erase.at));
        match delete.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                // It was set again, or it is gone.
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(true),
                _ => Err(classify("DeleteItem", self.of_profile(&erase.profile_id), error)),
            },
        }
    }

    async fn delete_keys(&self, profile_id: &str, keys: &[Item], deadline: Instant) -> Result<bool, StoreError> {
        for batch in keys.chunks(BATCH_WRITE_ITEMS) {
            if !self.delete_batch(profile_id, batch, deadline).await? {
                return Ok(false);
            }
        }
        Ok(true)
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
}

/// Whether an erasure covers an item.
enum Covered {
    No,
    Yes,
    /// It does, as long as this clock of the register does not move.
    Register(&'static str),
    /// It does, but the id of its session is later than the erasure.
    AheadOfTime(SessionId),
}

/// Whether an erasure up to `at` covers a stored item: by the time in its key, by when its first
/// event was received, or by its own clock. An unreadable item stays unless its key is old enough.
fn covered(item: &Item, at: u64) -> Covered {
    let register = |name| {
        let is_covered = item::get_number(item, name).is_some_and(|clock| clock <= at);
        if is_covered { Covered::Register(name) } else { Covered::No }
    };
    let Some(ulid) = ulid_of(item) else {
        let sk = item::get_text(item, "sk").unwrap_or_default();
        let is_register = sk.starts_with(AFTER_SESSIONS) && sk != ERASED;
        let clock = if item.contains_key("forgotten_at") { "forgotten_at" } else { "changed_at" };
        return if is_register { register(clock) } else { Covered::No };
    };
    if ulid.timestamp_ms() <= at {
        return Covered::Yes;
    }
    match item::row(item) {
        Ok((_, Row::Part { view, home })) if view.received_from <= at => Covered::AheadOfTime(SessionId { ulid, home }),
        Ok((_, Row::Hidden(_))) => register("changed_at"),
        // `Row::Forgotten` stays: nothing else keeps this session erased.
        _ => Covered::No,
    }
}
