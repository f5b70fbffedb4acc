//! Tells which regions wrote the sessions, from the keys of the items in the table.

use anyhow::{Context as _, Result};
use operate::Endpoints;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The regions that wrote the sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Writers {
    /// Sessions written only in their home region.
    pub at_home: usize,
    /// Sessions with a part from another region.
    pub elsewhere: usize,
    /// Items by home code of the writer region.
    pub items: BTreeMap<String, usize>,
}

impl Writers {
    /// Counts by the keys of views: see [`ViewPlace`].
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a (String, String)>) -> Self {
        let keys: BTreeSet<&(String, String)> = keys.into_iter().collect(); // of all regions: a replicated item counts once
        let mut sessions: BTreeMap<(&str, &str, &str), bool> = BTreeMap::new();
        let mut writers = Self::default();
        for (pk, sk) in keys {
            let Some(ViewPlace { ulid, home, writer }) = ViewPlace::of(sk) else { continue };
            *writers.items.entry(writer.to_owned()).or_default() += 1;
            *sessions.entry((pk, ulid, home)).or_default() |= writer != home;
        }
        writers.elsewhere = sessions.values().filter(|elsewhere| **elsewhere).count();
        writers.at_home = sessions.len() - writers.elsewhere;
        writers
    }
}

/// What the sort key of a view says: `<ULID>#<home>#~<title>` if the home region wrote it, with the
/// writer before the title if another did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewPlace<'a> {
    /// The session's ULID.
    pub ulid: &'a str,
    /// The code of its home region.
    pub home: &'a str,
    /// The code of the region that wrote it.
    pub writer: &'a str,
}

impl<'a> ViewPlace<'a> {
    /// Reads a sort key; `None` if it is not a view's.
    pub fn of(sk: &'a str) -> Option<Self> {
        let (place, _title) = sk.split_once("#~")?;
        let (ulid, regions) = place.split_once('#')?;
        let (home, writer) = regions.split_once('#').unwrap_or((regions, regions));
        Some(Self { ulid, home, writer })
    }
}

/// The keys (`pk`, `sk`) of all view items in a region's table.
///
/// # Errors
/// If it cannot be read.
pub async fn view_keys(region: &Endpoints) -> Result<BTreeSet<(String, String)>> {
    let client = aws_sdk_dynamodb::Client::new(&region.sdk_config());
    let scan = client.scan().table_name(&region.views_table).projection_expression("pk, sk").consistent_read(true);
    let mut pages = scan.into_paginator().items().send();
    let mut keys = BTreeSet::new();
    while let Some(item) = pages.next().await {
        let item = item.context("scanning the views")?;
        let part = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        if let (Some(pk), Some(sk)) = (part("pk"), part("sk"))
            && ViewPlace::of(&sk).is_some()
        {
            keys.insert((pk, sk));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_with_a_part_from_another_region_are_counted() {
        let views = ["A#use1#~t", "B#usw2#~t", "C#use1#~t", "C#use1#usw2#~t", "D#use1#usw2#~t"];
        let others = ["A#~hidden", "A#~forgotten#t", "~erased", "~watched#t"];
        let keys = views.into_iter().chain(others);
        let keys: Vec<_> = keys.map(|sk| ("p".to_owned(), sk.to_owned())).collect();
        let Writers { at_home, elsewhere, items } = Writers::of(&keys);
        assert_eq!((at_home, elsewhere), (2, 2));
        assert_eq!(items, BTreeMap::from([("use1".to_owned(), 2), ("usw2".to_owned(), 3)]));
    }
}
