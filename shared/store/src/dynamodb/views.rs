//! [`ViewTable`] on DynamoDB.

use super::error::classify;
use super::item::{self, Item};
use super::{PlacedView, Views, pause_before};
use crate::erase::Erase;
use crate::table::{Erasure, Fault, READ_AT_ONCE, StoreError, Stored, ViewTable, Write, WriteError};
use aws_sdk_dynamodb::types::KeysAndAttributes;
use futures::stream::{self, StreamExt};
use playback::fold::ViewKey;
use playback::view::View;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// Concurrent BatchGetItem calls.
const CONCURRENT_READS: usize = 8;
/// How often to request keys that DynamoDB left unprocessed. The longest pause doubles each time.
const UNPROCESSED_ROUNDS: u32 = 5;
/// The longest pause before the second round.
const UNPROCESSED_PAUSE: Duration = Duration::from_millis(25);

impl ViewTable for Views {
    async fn read(&self, keys: &[ViewKey]) -> Vec<Result<Option<Stored>, StoreError>> {
        self.read_views(keys.iter(), false).await
    }

    async fn write(&self, writes: &[Write<'_>]) -> Vec<Result<(), WriteError>> {
        self.write_all(writes).await
    }

    async fn erasures(&self, keys: &[ViewKey]) -> Vec<Result<Erasure, StoreError>> {
        // Each view needs up to four marks, and views of one profile share some.
        let batches: Vec<_> = keys.chunks(READ_AT_ONCE / 4).map(|batch| self.erasures_of(batch)).collect();
        stream::iter(batches).buffered(CONCURRENT_READS).flat_map(stream::iter).collect().await
    }

    async fn erase(&self, erase: &Erase, deadline: Instant) -> Result<bool, StoreError> {
        self.mark_erased(erase).await?;
        self.delete_erased(erase, deadline).await
    }

    async fn session(&self, key: &ViewKey) -> Result<Option<Vec<View>>, StoreError> {
        let ulid = key.session_id.ulid;
        let (first, last) = (format!("{ulid}#"), format!("{ulid}#~"));
        let Some(page) = self.one_page_between(&key.profile_id, &first, &last).await? else { return Ok(None) };
        let own = item::view_sk(key, &self.writer);
        let is_other = |placed: &PlacedView| placed.session_id == key.session_id && placed.place.sk != own;
        Ok(Some(page.views.into_iter().filter(is_other).map(|placed| placed.view).collect()))
    }

    fn is_home_of(&self, key: &ViewKey) -> bool {
        key.session_id.home == self.writer
    }
}

impl Views {
    /// Where a view is.
    fn place(&self, key: &ViewKey) -> PrimaryKey {
        (key.profile_id.clone(), item::view_sk(key, &self.writer))
    }

    fn found(&self, found: &Found, key: &ViewKey, place: &PrimaryKey) -> Result<Option<Stored>, StoreError> {
        if let Some(fault) = found.fault_of(place) {
            return Err(self.error("BatchGetItem", key, fault.clone()));
        }
        let stored = found.items.get(place).map(item::stored).transpose();
        stored.map_err(|fault| self.error("BatchGetItem", key, fault))
    }

    /// Reads up to [`READ_AT_ONCE`] views, as last written or maybe a moment older.
    pub(super) async fn read_views(
        &self,
        keys: impl Iterator<Item = &ViewKey> + Clone,
        consistent: bool,
    ) -> Vec<Result<Option<Stored>, StoreError>> {
        let places: Vec<PrimaryKey> = keys.clone().map(|key| self.place(key)).collect();
        let wanted = places.iter().map(|(pk, sk)| item::primary_key(pk, sk)).collect();
        let found = if places.is_empty() { Found::default() } else { self.get_all(wanted, consistent).await };
        keys.zip(&places).map(|(key, place)| self.found(&found, key, place)).collect()
    }

    async fn erasures_of(&self, keys: &[ViewKey]) -> Vec<Result<Erasure, StoreError>> {
        let places = keys.iter().flat_map(marks_of);
        let places: HashSet<PrimaryKey> = places.collect();
        let wanted = places.into_iter().map(|(profile_id, sk)| item::primary_key(&profile_id, sk)).collect();
        // As last written: where a view has just disappeared, its mark is of this moment. It is asked
        // once per view, when it is new or gone.
        let found = self.get_all(wanted, true).await;
        let one = |key: &ViewKey| {
            let places = marks_of(key);
            if let Some(fault) = places.iter().find_map(|place| found.fault_of(place)) {
                return Err(self.error("BatchGetItem", key, fault.clone()));
            }
            let [everything, title, session, title_of_session] = places.map(|place| found.items.get(&place));
            let time = |item: Option<&Item>, name| item.and_then(|item| item::get_number(item, name));
            Ok(Erasure {
                everything: time(everything, "erased_at"),
                title: time(title, "forgotten_at"),
                whole: session.is_some() || title_of_session.is_some(),
            })
        };
        keys.iter().map(one).collect()
    }

    /// Reads up to [`READ_AT_ONCE`] items by their primary keys, and asks again for what DynamoDB
    /// left unprocessed. What one round found is kept if a later one fails: a single hot key must
    /// not fail the others.
    async fn get_all(&self, keys: Vec<Item>, consistent: bool) -> Found {
        let mut found = Found::default();
        let mut wanted = keys;
        for round in 0..UNPROCESSED_ROUNDS {
            pause_before(round, UNPROCESSED_PAUSE).await;
            match self.get_some(&wanted, consistent).await {
                Ok((items, left)) => {
                    found.items.extend(items);
                    wanted = left;
                }
                Err(fault) => {
                    found.fail(&wanted, fault);
                    return found;
                }
            }
            if wanted.is_empty() {
                return found;
            }
        }
        found.fail(&wanted, Fault::Throttled(format!("left unprocessed {UNPROCESSED_ROUNDS} times")));
        found
    }

    /// Reads items in one call. Returns those that exist, and the keys left unprocessed.
    async fn get_some(&self, keys: &[Item], consistent: bool) -> Result<(Vec<(PrimaryKey, Item)>, Vec<Item>), Fault> {
        let asked = KeysAndAttributes::builder().set_keys(Some(keys.to_vec())).consistent_read(consistent).build();
        let asked = asked.map_err(|error| Fault::Unavailable(error.to_string()))?;
        let answer = self.client.batch_get_item().request_items(&self.table, asked).send().await;
        let answer = answer.map_err(|error| classify("BatchGetItem", &self.table, error).fault)?;
        let items = answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default();
        let left = answer.unprocessed_keys.unwrap_or_default().remove(&self.table);
        let placed = items.into_iter().filter_map(|item| Some((place(&item)?, item))).collect();
        Ok((placed, left.map(|left| left.keys).unwrap_or_default()))
    }

    /// Reads any number of items by their primary keys, as last written; fails if any of them is unavailable.
    pub(super) async fn get_items(&self, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let batches: Vec<_> = keys.chunks(READ_AT_ONCE).map(|batch| self.get_all(batch.to_vec(), true)).collect();
        let mut batches = stream::iter(batches).buffered(CONCURRENT_READS);
        let mut items = Vec::with_capacity(keys.len());
        while let Some(found) = batches.next().await {
            if let Some(fault) = found.failed.into_values().next() {
                return Err(StoreError { operation: "BatchGetItem", subject: self.table.clone(), fault });
            }
            items.extend(found.items.into_values());
        }
        Ok(items)
    }

    fn subject(&self, key: &ViewKey) -> String {
        format!("{} ({}, {})", self.table, key.profile_id, item::view_sk(key, &self.writer))
    }

    pub(super) fn error(&self, operation: &'static str, key: &ViewKey, fault: Fault) -> StoreError {
        StoreError { operation, subject: self.subject(key), fault }
    }
}

/// Where the marks are that may erase a view: everything, the title, the session, the title in the
/// session.
fn marks_of(key: &ViewKey) -> [PrimaryKey; 4] {
    let ulid = key.session_id.ulid;
    [
        item::ERASED.to_owned(),
        item::forgotten_title_sk(&key.title_id),
        item::forgotten_session_sk(ulid, None),
        item::forgotten_session_sk(ulid, Some(&key.title_id)),
    ]
    .map(|sk| (key.profile_id.clone(), sk))
}

/// (`pk`, `sk`).
type PrimaryKey = (String, String);

/// The items that BatchGetItem found, and the keys that it did not answer for.
#[derive(Default)]
struct Found {
    items: HashMap<PrimaryKey, Item>,
    failed: HashMap<PrimaryKey, Fault>,
}

impl Found {
    fn fail(&mut self, keys: &[Item], fault: Fault) {
        self.failed.extend(keys.iter().filter_map(place).map(|place| (place, fault.clone())));
    }

    fn fault_of(&self, place: &PrimaryKey) -> Option<&Fault> {
        self.failed.get(place)
    }
}

fn place(item: &Item) -> Option<PrimaryKey> {
    Some((item::get_text(item, "pk")?.to_owned(), item::get_text(item, "sk")?.to_owned()))
}
