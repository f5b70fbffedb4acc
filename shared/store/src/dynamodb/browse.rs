//! Walks through views across profiles, for comparisons. Reads are eventually consistent, because
//! compared sessions settled long ago.
//!
//! An unreadable view is logged, counted and skipped: it does not stop the walk.

use super::Views;
use super::error::classify;
use super::item::{self, AFTER_SESSIONS, Item};
use crate::table::{Fault, StoreError};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use playback::fold::ViewKey;
use playback::history::Row;
use playback::session::SessionId;
use playback::view::{UnreadableView, View};

/// Most sessions have one view. One with more than this is not read as a whole.
const ONE_PAGE: i32 = 200;

/// The place of a view in the table, or where a walk stopped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The profile: `pk`.
    pub profile_id: String,
    /// See [`super`].
    pub sk: String,
}

/// A view and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedView {
    /// Its place.
    pub place: Place,
    /// The session.
    pub session_id: SessionId,
    /// The folded state.
    pub view: View,
    /// When it was written, Unix milliseconds, if the table says so
    /// ([`Views::with_write_times`]).
    pub written_at: Option<u64>,
}

/// A page of a walk through the table.
#[derive(Debug, Clone, Default)]
pub struct ViewsPage {
    /// Grouped by profile and sorted by sort key. A page may end inside a profile.
    pub views: Vec<PlacedView>,
    /// How many views could not be read.
    pub unreadable: u64,
    /// Where to continue; `None` at the end of the table.
    pub next: Option<Place>,
}

impl Place {
    /// The place of the view that a session's home region folds.
    pub fn of(key: &ViewKey) -> Self {
        Self { profile_id: key.profile_id.clone(), sk: item::view_sk(key, &key.session_id.home) }
    }

    /// Whether it holds a part that another region folded while the home was draining.
    pub fn is_part(&self) -> bool {
        // After the ULID and the home: nothing, the writer, the title, or both.
        self.sk.split('#').nth(2).is_some_and(|after_home| !after_home.starts_with('~'))
    }
}

impl Views {
    /// The views after `after` (`None`: from the start), in the table's order of profiles. Reads up
    /// to `limit` items.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn scan(&self, after: Option<&Place>, limit: u16) -> Result<ViewsPage, StoreError> {
        let after = after.map(|place| item::primary_key(&place.profile_id, &place.sk));
        let scan = self.client.scan().table_name(&self.table).limit(limit.into()).set_exclusive_start_key(after);
        let answer = scan.send().await.map_err(|error| classify("Scan", &self.table, error))?;
        let next = answer.last_evaluated_key.filter(|key| !key.is_empty()).as_ref().and_then(place);
        let mut page = self.placed(answer.items.unwrap_or_default());
        page.next = next;
        Ok(page)
    }

    /// The views of a profile with sort keys from `first` to `last`, both included.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn between(&self, profile_id: &str, first: &str, last: &str) -> Result<ViewsPage, StoreError> {
        let query = self.query_between(profile_id, first, last);
        Ok(self.placed(self.all_items(profile_id, query).await?))
    }

    /// All parts of the views of a session, as last written: one item per title and region. One that
    /// cannot be read is skipped, unless newer code wrote it: that one may tell more than the others.
    ///
    /// # Errors
    /// When the table cannot be read, or newer code wrote a part.
    pub async fn parts(&self, profile_id: &str, session_id: &SessionId) -> Result<Vec<PlacedView>, StoreError> {
        let SessionId { ulid, home } = session_id;
        let (first, last) = (format!("{ulid}#{home}"), format!("{ulid}#{home}#~~"));
        let query = self.query_between(profile_id, &first, &last).consistent_read(true);
        let items = self.all_items(profile_id, query).await?;
        for item in &items {
            if let Err(fault @ Fault::Unreadable(UnreadableView::Newer(_))) = item::row(item) {
                return Err(StoreError { operation: "Query", subject: self.of_profile(profile_id), fault });
            }
        }
        Ok(self.placed(items).views)
    }

    async fn all_items(&self, profile_id: &str, query: QueryFluentBuilder) -> Result<Vec<Item>, StoreError> {
        let mut pages = query.into_paginator().items().send();
        let mut items = Vec::new();
        while let Some(item) = pages.next().await {
            items.push(item.map_err(|error| classify("Query", self.of_profile(profile_id), error))?);
        }
        Ok(items)
    }

    /// The views of a profile between two sort keys, as last written; `None` if they are more than one page.
    pub(super) async fn one_page_between(
        &self,
        profile_id: &str,
        first: &str,
        last: &str,
    ) -> Result<Option<ViewsPage>, StoreError> {
        let query = self.query_between(profile_id, first, last).consistent_read(true).limit(ONE_PAGE);
        let answer = query.send().await.map_err(|error| classify("Query", self.of_profile(profile_id), error))?;
        let is_whole = answer.last_evaluated_key.is_none_or(|key| key.is_empty());
        Ok(is_whole.then(|| self.placed(answer.items.unwrap_or_default())))
    }

    pub(super) fn query_between(&self, profile_id: &str, first: &str, last: &str) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :profile AND sk BETWEEN :first AND :last")
            .expression_attribute_values(":profile", item::text(profile_id))
            .expression_attribute_values(":first", item::text(first))
            .expression_attribute_values(":last", item::text(last))
    }

    /// The sort keys of a profile from `first` to `last`, both included, as last written; only those
    /// of a title's views if one is given. The index is not asked: it may lag behind.
    pub(super) async fn keys_between(
        &self,
        profile_id: &str,
        first: &str,
        last: &str,
        title_id: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let query = self.query_between(profile_id, first, last).projection_expression("sk, title_id");
        let mut pages = query.consistent_read(true).into_paginator().items().send();
        let mut keys = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| classify("Query", self.of_profile(profile_id), error))?;
            if title_id.is_none() || item::get_text(&item, "title_id") == title_id {
                keys.extend(item::get_text(&item, "sk").map(str::to_owned));
            }
        }
        Ok(keys)
    }

    fn placed(&self, items: Vec<Item>) -> ViewsPage {
        let mut page = ViewsPage::default();
        for item in items {
            let Some(place) = place(&item) else { continue };
            // Not a view: a register or the erasure's mark.
            if place.profile_id.starts_with(AFTER_SESSIONS) || place.sk.starts_with(AFTER_SESSIONS) {
                continue;
            }
            match item::row(&item) {
                Ok((_, Row::Hidden(_) | Row::Forgotten(_))) => {}
                Ok((ulid, Row::Part { home, view })) => {
                    let (session_id, written_at) = (SessionId { ulid, home }, item::get_number(&item, "written_at"));
                    page.views.push(PlacedView { place, session_id, view: *view, written_at });
                }
                Err(fault) => {
                    tracing::error!(table = self.table, sk = place.sk, %fault, "skipped an unreadable view");
                    page.unreadable += 1;
                }
            }
        }
        page
    }
}

fn place(item: &Item) -> Option<Place> {
    Some(Place { profile_id: item::get_text(item, "pk")?.to_owned(), sk: item::get_text(item, "sk")?.to_owned() })
}
