//! Reads which regions wrote the sessions, from the keys of their items in the table.

use anyhow::{Context as _, Result};
use operate::Endpoints;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Who wrote the sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Writers {
    /// Sessions that were written in their home region and nowhere else.
    pub at_home: usize,
    /// Sessions of which another region wrote a part.
    pub elsewhere: usize,
    /// Items by the home code of the region that wrote them.
    pub items: BTreeMap<String, usize>,
}

impl Writers {
    /// By the keys of their items: `<ULID>#<home>` of what the home region wrote, `<ULID>#<home>#<writer>` of what another did.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a (String, String)>) -> Self {
        let keys: BTreeSet<&(String, String)> = keys.into_iter().collect(); // of all regions: a copy counts once
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
/// When it cannot be read.
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
    fn a_session_of_which_another_region_wrote_a_part_is_told_from_the_others() {
        let keys = ["A#use1", "B#usw2", "C#use1", "C#use1#usw2", "D#use1#usw2"];
        let keys = keys.map(|sk| ("p".to_owned(), sk.to_owned()));
        let Writers { at_home, elsewhere, items } = Writers::of(&keys);
        assert_eq!((at_home, elsewhere), (2, 2));
        assert_eq!(items, BTreeMap::from([("use1".to_owned(), 2), ("usw2".to_owned(), 3)]));
    }
}
