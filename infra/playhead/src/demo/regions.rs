//! What a demo with several regions proves: each region has every view, and each session was
//! written only in its home region.

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use operate::Endpoints;
use operate::books::Books;
use serde::Serialize;
use simulate::expect::{self, Difference, Expected, SessionView};
use simulate::histories;
use simulate::writers::{self, Writers};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long the views may take to become the same everywhere.
const CONVERGED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the regions did.
#[derive(Debug, Serialize)]
pub(super) struct Regions {
    pub(super) regions: Vec<RegionBooks>,
    /// Sessions that were sent through more than one region.
    pub(super) travelled: usize,
    pub(super) writers: Writers,
    pub(super) forwarding: Forwarding,
    /// Seconds after the last event until all views were right in all regions. Absent if they never
    /// were.
    pub(super) converged: Option<f64>,
    /// The checks that do not hold, in words.
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

/// The cost of forwarding.
#[derive(Debug, Serialize)]
pub(super) struct Forwarding {
    pub(super) events: u64,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) requests_per_event: f64,
    pub(super) bytes_per_event: f64,
}

/// The histories from a region's API, and their differences from the expected ones.
pub(super) struct Reading {
    pub(super) histories: BTreeMap<String, Vec<SessionView>>,
    pub(super) differences: Vec<Difference>,
}

/// Reads the histories of all profiles in each region. With several regions, reads again while they
/// differ from the expected ones.
pub(super) async fn read_everywhere(
    endpoints: &Endpoints,
    token: &str,
    expected: &Expected,
    profiles: &BTreeSet<&String>,
) -> Result<Vec<Reading>> {
    let several = !endpoints.peers.is_empty();
    let began = Instant::now();
    let read = endpoints.regions().map(async |region| {
        loop {
            let histories = histories::read(&region.api, token, profiles.iter().copied()).await;
            let histories = histories.with_context(|| format!("in {}", region.region))?;
            let differences = expect::check(expected, &histories);
            if !several || differences.is_empty() || began.elapsed() > CONVERGED_WITHIN {
                return Ok(Reading { histories, differences });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    try_join_all(read).await
}

/// What the regions did, if there are several. `converged` is the time after the last event until
/// all views were right.
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
    let all = crate::settled::sum(books);
    let per_event = |n: u64| n as f64 / (all.forwarded as f64).max(1.0);
    let mut keys = Vec::new();
    for region in endpoints.regions() {
        keys.push(writers::view_keys(region).await.with_context(|| format!("in {}", region.region))?);
    }
    let writers = Writers::of(keys.iter().flatten());
    let mut faults = Vec::new();
    if writers.elsewhere > 0 {
        faults.push(format!("{} sessions were written outside their home region without a drain", writers.elsewhere));
    }
    if keys.windows(2).any(|pair| pair[0] != pair[1]) {
        faults.push("the regions' tables hold different items".to_owned());
    }
    if travelled > 0 && all.forwarded == 0 {
        faults.push("sessions travelled, but nothing was forwarded".to_owned());
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
