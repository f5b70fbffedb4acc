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
    /// Counts by item keys: `<ULID>#<home>` if the home region wrote it, `<ULID>#<home>#<writer>`
    /// if another did.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a (String, String)>) -> Self {
        let keys: BTreeSet<&(String, String)> = keys.into_iter().collect(); // of all regions: a replicated item counts once
        let mut sessions: BTreeMap<(&str, &str, &str), bool> = BTreeMap::new();
        let mut writers = Self::default();
        for (pk, sk) in keys {
            let mut parts = sk.split('#');
            let (ulid, home) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let writer = parts.next().unwrap_or(home);
            *writers.items.entry(writer.to_owned()).or_default() += 1;
            *sessions.entry((pk, ulid, home)).or_default() |= writer != home;
        }
        writers.elsewhere = sessions.values().filter(|elsewhere| **elsewhere).count();
        writers.at_home = sessions.len() - writers.elsewhere;
        writers
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
            && !sk.contains('~')
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
        let keys = ["A#use1", "B#usw2", "C#use1", "C#use1#usw2", "D#use1#usw2"];
        let keys = keys.map(|sk| ("p".to_owned(), sk.to_owned()));
        let Writers { at_home, elsewhere, items } = Writers::of(&keys);
        assert_eq!((at_home, elsewhere), (2, 2));
        assert_eq!(items, BTreeMap::from([("use1".to_owned(), 2), ("usw2".to_owned(), 3)]));
    }
}
