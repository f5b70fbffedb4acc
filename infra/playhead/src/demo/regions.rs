//! What a demo with several regions has to show: that each region has every view, and that each session was written in its home only.

use crate::books::Books;
use crate::local::Endpoints;
use crate::simulate::expect::{self, Difference, Expected, SessionView};
use crate::simulate::histories;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long views may take to be the same everywhere.
const CONVERGED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What several regions did.
#[derive(Debug, Serialize)]
pub(super) struct Regions {
    pub(super) regions: Vec<RegionBooks>,
    /// Sessions that were sent through more than one region.
    pub(super) travelled: usize,
    pub(super) writers: Writers,
    pub(super) forwarding: Forwarding,
    /// Seconds from the end of the last event until all views were what they must be in all regions, or absent if they were not.
    pub(super) converged: Option<f64>,
    /// What does not hold, in words.
    pub(super) faults: Vec<String>,
}

/// The books of one region, in events.
#[derive(Debug, Serialize)]
pub(super) struct RegionBooks {
    pub(super) region: String,
    pub(super) accepted: u64,
    pub(super) forwarded: u64,
    pub(super) arrived: u64,
    pub(super) applied: u64,
}

/// Who wrote the sessions.
#[derive(Debug, Default, Serialize)]
pub(super) struct Writers {
    /// Sessions that were written in their home region and nowhere else.
    pub(super) at_home: usize,
    /// Sessions of which another region wrote a part.
    pub(super) elsewhere: usize,
    /// Items by the home code of the region that wrote them.
    pub(super) items: BTreeMap<String, usize>,
}

/// What forwarding cost.
#[derive(Debug, Serialize)]
pub(super) struct Forwarding {
    pub(super) events: u64,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) requests_per_event: f64,
    pub(super) bytes_per_event: f64,
}

/// The histories that a region's API gave, and how they differ from what they must be.
pub(super) struct Reading {
    pub(super) histories: BTreeMap<String, Vec<SessionView>>,
    pub(super) differences: Vec<Difference>,
}

/// Reads the histories of all profiles in each region. Where there are several, it reads again where they are not yet what they must be.
pub(super) async fn read_everywhere(
    endpoints: &Endpoints,
    token: &str,
    expected: &Expected,
    profiles: &BTreeSet<&String>,
) -> Result<Vec<Reading>> {
    let several = !endpoints.peers.is_empty();
    let began = Instant::now();
    let mut readings = Vec::new();
    for region in endpoints.regions() {
        loop {
            let histories = histories::read(&region.api, token, profiles.iter().copied()).await;
            let histories = histories.with_context(|| format!("in {}", region.region))?;
            let differences = expect::check(expected, &histories);
            if !several || differences.is_empty() || began.elapsed() > CONVERGED_WITHIN {
                readings.push(Reading { histories, differences });
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(readings)
}

/// What the regions did, if there are several. `converged` is how long after the last event had ended all views were right.
pub(super) async fn report(
    endpoints: &Endpoints,
    books: &[Books],
    travelled: usize,
    converged: Option<Duration>,
) -> Result<Option<Regions>> {
    if endpoints.peers.is_empty() {
        return Ok(None);
    }
    let row = |(region, books): (&Endpoints, &Books)| RegionBooks {
        region: region.region.clone(),
        accepted: books.accepted,
        forwarded: books.forwarded,
        arrived: books.arrived,
        applied: books.applied,
    };
    let all = super::account::sum(books);
    let per_event = |n: u64| n as f64 / (all.forwarded as f64).max(1.0);
    let mut keys = Vec::new();
    for region in endpoints.regions() {
        keys.push(view_keys(region).await.with_context(|| format!("in {}", region.region))?);
    }
    let writers = writers(keys.iter().flatten());
    let mut faults = Vec::new();
    if writers.elsewhere > 0 {
        faults.push(format!("{} sessions that nobody drained were written outside of their home", writers.elsewhere));
    }
    if keys.windows(2).any(|pair| pair[0] != pair[1]) {
        faults.push("the tables of the regions do not hold the same items".to_owned());
    }
    if travelled > 0 && all.forwarded == 0 {
        faults.push("sessions travelled, and nothing was forwarded".to_owned());
    }
    Ok(Some(Regions {
        regions: endpoints.regions().zip(books).map(row).collect(),
        travelled,
        writers,
        forwarding: Forwarding {
            events: all.forwarded,
            requests: all.forward_requests,
            bytes: all.forward_bytes,
            requests_per_event: per_event(all.forward_requests),
            bytes_per_event: per_event(all.forward_bytes),
        },
        converged: converged.map(|converged| converged.as_secs_f64()),
        faults,
    }))
}

/// The keys of all view items in a region's table.
async fn view_keys(region: &Endpoints) -> Result<BTreeSet<(String, String)>> {
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

/// Who wrote sessions, by the keys of their items: `<ULID>#<home>` in the home region, `<ULID>#<home>#<writer>` elsewhere.
fn writers<'a>(keys: impl IntoIterator<Item = &'a (String, String)>) -> Writers {
    let keys: BTreeSet<&(String, String)> = keys.into_iter().collect(); // of all regions: a copy counts once
    let mut sessions: BTreeMap<(&str, &str, &str), bool> = BTreeMap::new();
    let mut writers = Writers::default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_which_another_region_wrote_a_part_is_told_from_the_others() {
        let keys = ["A#use1", "B#usw2", "C#use1", "C#use1#usw2", "D#use1#usw2"];
        let keys = keys.map(|sk| ("p".to_owned(), sk.to_owned()));
        let Writers { at_home, elsewhere, items } = writers(&keys);
        assert_eq!((at_home, elsewhere), (2, 2));
        assert_eq!(items, BTreeMap::from([("use1".to_owned(), 2), ("usw2".to_owned(), 3)]));
    }
}
