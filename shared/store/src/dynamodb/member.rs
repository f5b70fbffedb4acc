//! What a member asks about titles: continue watching, and where to resume.

use super::Views;
use super::error::classify;
use super::item;
use super::page::ulid_of;
use crate::table::{StoreError, ViewTable as _};
use futures::stream::{self, StreamExt, TryStreamExt};
use playback::fold::ViewKey;
use playback::history::{self, Entry, Marks, Rules, TitleState, assemble, title_states};
use playback::session::{SessionId, parse_ulid};
use playback::view::Sequence;
use std::collections::{HashMap, HashSet};

/// Maximum number of titles in one request.
pub const MAX_TITLES: usize = 100;
/// How many of the newest entries continue watching reads. Most profiles have fewer.
const NEWEST: usize = 500;
/// How many of a title's newest sessions decide its state. As many as [`NEWEST`], so that it does
/// not matter whether a title is read by itself or with others.
const TITLE_SESSIONS: usize = NEWEST;
/// From this many titles on, reading the profile's newest sessions is cheaper than each title.
const MANY_TITLES: usize = 4;
/// Titles that are read at once.
const CONCURRENT_TITLES: usize = 16;

impl Views {
    /// The resume points of the titles among the newest 500 entries, unless their session is hidden.
    /// Newest watch time first.
    ///
    /// In a profile with more entries, older ones may move a resume point that the newest 500 have,
    /// but add none.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn continue_watching(
        &self,
        profile_id: &str,
        limit: usize,
        rules: &Rules,
    ) -> Result<Vec<Entry>, StoreError> {
        let marks = self.marks(profile_id).await?;
        let page = self.newest(profile_id, &marks, NEWEST, None, |_| true).await?;
        let is_whole = page.next.is_none();
        let missing: HashMap<SessionId, u64> =
            page.entries.iter().map(|entry| (entry.session_id.clone(), entry.missing)).collect();
        let mut entries = history::continue_watching(title_states(page.entries, &marks, rules).into_values());
        if !is_whole {
            // Sessions that were not read may know better: ask for each title.
            entries.truncate(limit.max(MAX_TITLES));
            let titles: Vec<String> = entries.into_iter().map(|entry| entry.view.title_id).collect();
            let states = self.each_title(profile_id, &titles, &marks, rules).await?;
            entries = history::continue_watching(states.into_values());
        }
        entries.truncate(limit);
        if !is_whole {
            for entry in &mut entries {
                entry.missing = match missing.get(&entry.session_id) {
                    Some(missing) => *missing,
                    None => self.missing(profile_id, entry).await?,
                };
            }
        }
        Ok(entries)
    }

    /// The sequence numbers that never arrived of an entry's session, all its titles together.
    async fn missing(&self, profile_id: &str, entry: &Entry) -> Result<u64, StoreError> {
        let key = ViewKey {
            profile_id: profile_id.to_owned(),
            session_id: entry.session_id.clone(),
            title_id: entry.view.title_id.clone(),
        };
        let mut sequence = Sequence::of([&entry.view]);
        self.session(&key).await?.iter().flatten().for_each(|other| sequence.add(other));
        Ok(sequence.missing())
    }

    /// The state of each of these titles, of its newest 500 sessions. Hidden ones count: hiding
    /// concerns the lists, not where to resume. What an entry says is `missing` concerns only the
    /// title.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn titles(
        &self,
        profile_id: &str,
        title_ids: &[String],
        rules: &Rules,
    ) -> Result<HashMap<String, TitleState>, StoreError> {
        let marks = self.marks(profile_id).await?;
        let mut states = HashMap::new();
        let mut is_whole = false;
        if title_ids.len() >= MANY_TITLES {
            let page = self.newest(profile_id, &marks, NEWEST, None, |_| true).await?;
            is_whole = page.next.is_none();
            if is_whole {
                states = title_states(page.entries, &marks, rules);
            }
        }
        if !is_whole {
            states = self.each_title(profile_id, title_ids, &marks, rules).await?;
        }
        let state = |title: &String| {
            let unseen = || history::title_state([], marks.watched.get(title).copied(), rules);
            (title.clone(), states.remove(title).unwrap_or_else(unseen))
        };
        Ok(title_ids.iter().collect::<HashSet<_>>().into_iter().map(state).collect())
    }

    /// Reads the state of each title by itself.
    async fn each_title(
        &self,
        profile_id: &str,
        title_ids: &[String],
        marks: &Marks,
        rules: &Rules,
    ) -> Result<HashMap<String, TitleState>, StoreError> {
        let one = |title_id: String| async move {
            let entries = self.entries_of_title(profile_id, &title_id, marks).await?;
            let state = history::title_state(entries, marks.watched.get(&title_id).copied(), rules);
            Ok((title_id, state))
        };
        let reads: Vec<_> = title_ids.iter().cloned().map(one).collect();
        stream::iter(reads).buffer_unordered(CONCURRENT_TITLES).try_collect().await
    }

    async fn entries_of_title(
        &self,
        profile_id: &str,
        title_id: &str,
        marks: &Marks,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut sort_keys = self.keys_of_title(profile_id, title_id).await?;
        sort_keys.sort_unstable_by(|a, b| b.cmp(a));
        let mut sessions = HashSet::new();
        sort_keys.retain(|sk| {
            let Some(ulid) = sk.split('#').next().and_then(parse_ulid) else { return false };
            let is_kept = sessions.contains(&ulid) || sessions.len() < TITLE_SESSIONS;
            if is_kept {
                sessions.insert(ulid);
            }
            is_kept
        });
        let registers = sessions.into_iter().flat_map(|ulid| {
            let forgotten = |title| item::forgotten_session_sk(ulid, title);
            [item::hidden_sk(ulid), forgotten(None), forgotten(Some(title_id))]
        });
        let keys = sort_keys.iter().cloned().chain(registers).map(|sk| item::primary_key(profile_id, sk)).collect();
        let mut items = self.get_items(keys).await?;
        items.sort_unstable_by_key(|item| std::cmp::Reverse(ulid_of(item)));
        let mut entries = assemble(items.iter().filter_map(|item| self.readable(profile_id, item)), marks);
        // The index may lag behind an item of the first release, whose title could change.
        entries.retain(|entry| entry.view.title_id == title_id);
        Ok(entries)
    }

    /// The sort keys of a title's views.
    pub(super) async fn keys_of_title(&self, profile_id: &str, title_id: &str) -> Result<Vec<String>, StoreError> {
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
        Ok(sort_keys)
    }
}
