//! Reads comparison reports, and runs `compare` to make new ones.

use super::sites::{Site, Sites};
use ::compare::{PREFIX, Report, key};
use anyhow::{Context as _, Result, bail};
use aws_sdk_lambda::primitives::Blob;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use lambda::clock::now_ms;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// How many reports are read at once.
const AT_ONCE: usize = 16;
/// Milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// What `compare` found, in all regions together.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Found {
    /// Start of the period, Unix milliseconds.
    pub since: u64,
    /// Number of reports, by region that was read.
    pub reports: BTreeMap<String, usize>,
    /// Regions where `compare` is not deployed.
    pub without: Vec<String>,
    /// Regions that could not be read, and why. The total does not include them.
    pub missed: BTreeMap<String, String>,
    /// The reports added up.
    pub total: Report,
    /// Share of compared sessions that matched, 0 to 1. `None` if none were compared.
    pub match_rate: Option<f64>,
}

/// The reports since `since` (Unix milliseconds).
pub async fn since(sites: &Sites, since: u64) -> Found {
    gather(sites, since, async |site, _| match &site.reports_bucket {
        Some(bucket) => read(site, bucket, since).await.map(Some),
        None => Ok(None),
    })
    .await
}

/// The reports of the last hour.
pub async fn last_hour(sites: &Sites) -> Found {
    since(sites, now_ms().saturating_sub(HOUR_MS)).await
}

/// Runs `compare` now in all regions, and returns what these runs found. They do not wait: sessions
/// that have not settled are not compared.
pub async fn run_now(sites: &Sites) -> Found {
    gather(sites, now_ms(), async |site, region| match &site.compare_function {
        Some(function) => invoke(site, function).await.map(Some).with_context(|| format!("compare in {region}")),
        None => Ok(None),
    })
    .await
}

/// Asks all regions at once. `ask` returns `None` for a region without `compare`.
async fn gather(sites: &Sites, since: u64, ask: impl AsyncFn(&Site, &str) -> Result<Option<(usize, Report)>>) -> Found {
    let answers = sites.0.iter().map(|(region, site)| {
        let ask = &ask;
        async move {
            let answer = match site {
                Ok(site) => ask(site, region).await.map_err(|error| format!("{error:#}")),
                Err(error) => Err(error.clone()),
            };
            (region.clone(), answer)
        }
    });
    let mut found = Found { since, ..Found::default() };
    for (region, answer) in join_all(answers).await {
        match answer {
            Ok(Some((reports, report))) => {
                found.total.merge(report);
                found.reports.insert(region, reports);
            }
            Ok(None) => found.without.push(region),
            Err(error) => drop(found.missed.insert(region, error)),
        }
    }
    found.match_rate = found.total.match_rate();
    found
}

/// The number of reports in a bucket since then, and their sum.
async fn read(site: &Site, bucket: &str, since: u64) -> Result<(usize, Report)> {
    let client = aws_sdk_s3::Client::new(&site.sdk);
    let listed = client.list_objects_v2().bucket(bucket).prefix(PREFIX).start_after(key(since, 0));
    let mut pages = listed.into_paginator().send();
    let mut keys: Vec<String> = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.with_context(|| format!("listing the bucket {bucket}"))?;
        keys.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
    }
    // Newest first: merging keeps the first examples.
    keys.reverse();
    let reports: Vec<Report> = stream::iter(&keys)
        .map(async |key| -> Result<Report> {
            let at = || format!("s3://{bucket}/{key}");
            let object = client.get_object().bucket(bucket).key(key).send().await.with_context(at)?;
            let body = object.body.collect().await.with_context(at)?;
            serde_json::from_slice(&body.into_bytes())
                .with_context(|| format!("{} cannot be read: is this tool older than the stack?", at()))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let mut total = Report::default();
    let count = reports.len();
    reports.into_iter().for_each(|report| total.merge(report));
    Ok((count, total))
}

async fn invoke(site: &Site, function: &str) -> Result<(usize, Report)> {
    let client = aws_sdk_lambda::Client::new(&site.sdk);
    let answer = client.invoke().function_name(function).payload(Blob::new("{}")).send().await;
    let answer = answer.with_context(|| format!("invoking {function}"))?;
    let payload = answer.payload().map_or(&b"null"[..], |payload| payload.as_ref());
    if answer.function_error().is_some() {
        let said: Value = serde_json::from_slice(payload).unwrap_or_default();
        bail!("{function} failed: {}", said["errorMessage"].as_str().unwrap_or("see its log"));
    }
    let report = serde_json::from_slice(payload).with_context(|| format!("{function} did not return a report"))?;
    Ok((1, report))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Region, report, sites};
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    #[tokio::test]
    async fn reports_add_up_over_pages_and_regions() {
        let (east, west) = tokio::join!(Region::start(), Region::start());
        east.keep(NOW - 2 * HOUR_MS, &report(1_000_000, 0));
        (0..7).for_each(|run| east.keep(NOW - run * 60_000, &report(10, 9)));
        west.keep(NOW, &report(30, 30));
        let sites = sites(vec![("us-east-1", Ok(east.site(true))), ("us-west-2", Ok(west.site(true)))]);
        let found = since(&sites, NOW - HOUR_MS).await;
        assert_eq!((found.total.compared, found.total.matched), (100, 93));
        assert_eq!((found.match_rate, found.reports["us-east-1"], found.reports["us-west-2"]), (Some(0.93), 7, 1));
        assert!(found.missed.is_empty() && found.without.is_empty(), "{found:?}");
    }

    #[tokio::test]
    async fn unreadable_region_is_named_and_never_counts_as_empty() {
        let (east, west) = tokio::join!(Region::start(), Region::start());
        west.put(&key(NOW, 1), r#"{"of": "tomorrow"}"#);
        let down = Err("it is down".to_owned());
        let regions = [("us-east-1", Ok(east.site(false))), ("us-west-2", Ok(west.site(true))), ("eu-west-1", down)];
        let found = since(&sites(regions.into()), NOW - HOUR_MS).await;
        assert_eq!(
            (found.total.is_empty(), found.reports.len(), &found.without[..]),
            (true, 0, &["us-east-1".into()][..])
        );
        assert!(found.missed["us-west-2"].contains("is this tool older than the stack?"), "{found:?}");
        assert!(found.warning().unwrap().contains("NOT INCLUDED: eu-west-1: it is down\n"), "{found:?}");
    }

    #[tokio::test]
    async fn run_returns_what_it_found_or_why_it_failed() {
        let (east, west) = tokio::join!(Region::start(), Region::start());
        east.will_find(report(12, 12));
        let sites = sites(vec![("us-east-1", Ok(east.site(true))), ("us-west-2", Ok(west.site(true)))]);
        let found = run_now(&sites).await;
        assert_eq!((found.total, found.reports["us-east-1"]), (report(12, 12), 1));
        assert!(found.missed["us-west-2"].ends_with("failed: the legacy system is down"), "{:?}", found.missed);
    }
}
