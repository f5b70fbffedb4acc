//! Two regions side by side: sessions that change region, and members who hide and erase in one
//! region.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use indicatif::ProgressBar;
use lambda::clock::now_ms;
use local::{LocalOptions, LocalRegions, Progress};
use operate::books::{Books, Reader};
use operate::token;
use playback::session::SessionId;
use playhead_tests::within;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use simulate::expect::{check, expect};
use simulate::plan::Plan;
use simulate::send::{Auth, Pace, Target, elsewhere, send};
use simulate::writers::{Writers, view_keys};
use simulate::{Faults, Model, histories};
use tokio::runtime::Runtime;

const RUN: &str = "two-regions";
const EAST: &str = "us-east-1";
const WEST: &str = "us-west-2";
/// How long anything may take: far more than it takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

static WORLD: LazyLock<Result<World>> = LazyLock::new(World::start);

struct World {
    runtime: Runtime,
    regions: LocalRegions,
    http: Client,
    token: String,
}

impl World {
    fn start() -> Result<Self> {
        let runtime = Runtime::new()?;
        let regions = [EAST, WEST].map(str::to_owned).to_vec();
        let options = LocalOptions { regions, ..LocalOptions::named(RUN)? };
        let regions = runtime.block_on(LocalRegions::start(options, &Progress::silent()))?;
        let token = token::of_service(&regions.endpoints().jwt_secret, Duration::from_secs(3_600))?;
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { runtime, regions, http, token })
    }

    fn run(test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let world = WORLD.as_ref().map_err(|error| anyhow!("the regions did not start: {error:#}"))?;
        world.runtime.block_on(test(world))
    }

    async fn call(&self, region: &str, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let api = &self.regions.cloud(region)?.endpoints().api;
        let request = self.http.request(method, format!("{api}{path}")).bearer_auth(&self.token);
        let request = body.iter().fold(request, |request, body| request.json(body));
        let text = request.send().await?.error_for_status()?.text().await?;
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    /// Waits until a profile's history is as expected in both regions: for each session its number
    /// of events, and whether it is hidden.
    async fn everywhere(&self, profile: &str, expected: &[(u64, bool)]) -> Result<()> {
        for region in [EAST, WEST] {
            let path = format!("/v1/profiles/{profile}/history?include_hidden=true");
            let mut last = Value::Null;
            let what = format!("{expected:?} in {region}");
            let found = within(PATIENCE, &what, async || {
                last = self.call(region, Method::GET, &path, None).await?;
                let sessions = last["sessions"].as_array().context("sessions")?;
                let sessions = sessions.iter().map(|one| (one["events"].as_u64(), one["hidden"].as_bool()));
                let wanted = expected.iter().map(|(events, hidden)| (Some(*events), Some(*hidden)));
                Ok(sessions.eq(wanted).then_some(()))
            });
            let found = found.await;
            found.with_context(|| format!("the history is {last}"))?;
        }
        Ok(())
    }

    /// Sends events of a session through a region.
    async fn watch(&self, region: &str, session: &SessionId, profile: &str, seqs: std::ops::Range<u64>) -> Result<()> {
        let event = |seq: u64| {
            json!({
                "session_id": session.to_string(), "profile_id": profile, "title_id": "t1", "seq": seq, "kind": "progressed",
                "position_ms": 1_000 * (seq + 1), "played_ms": 1_000, "title_duration_ms": 100_000, "occurred_at": now_ms(),
                "device": {"id": "d1", "kind": "tv"}, "country": "US",
            })
        };
        let events: Vec<Value> = seqs.map(event).collect();
        let answer = self.call(region, Method::POST, "/v1/events", Some(json!({ "events": events }))).await?;
        ensure!(answer["accepted"] == events.len(), "{answer}");
        Ok(())
    }
}

#[test]
fn travelling_sessions_match_in_both_and_are_written_at_home() -> Result<()> {
    World::run(async |world| {
        let endpoints = world.regions.endpoints();
        let faults = Faults { duplicates: 0.2, reorder: 0.3, late: 0.1, lost: 0.02, malformed: 0.02 };
        let homes = vec!["use1".parse()?, "usw2".parse()?];
        let travel = Some(0.4);
        let model = Model { sessions: 60, viewers: Some(20), titles: 30, homes, travel, seed: 4, faults };
        let plan = Plan::ending_at(&model, i64::try_from(now_ms())?)?;
        ensure!(plan.travelled().len() > 10, "{} travelled", plan.travelled().len());
        let (elsewhere, auth) = (elsewhere(endpoints), Auth::of(endpoints));
        let target = Target { endpoint: endpoints.api.clone(), elsewhere, auth };
        let report = send(&plan, &target, Pace { concurrency: 4, ..Pace::default() }, &ProgressBar::hidden()).await?;
        ensure!(report.failed_posts.is_empty(), "{:?}", report.failures);

        let expected = expect(&plan, &BTreeSet::new());
        let profiles: BTreeSet<&String> = expected.views.keys().map(|(profile, _)| profile).collect();
        for region in endpoints.regions() {
            let mut differences = Vec::new();
            let what = format!("the expected views in {}", region.region);
            let agreed = within(PATIENCE, &what, async || {
                let histories = histories::read(&region.api, &world.token, profiles.iter().copied()).await?;
                differences = check(&expected, &histories);
                Ok(differences.is_empty().then_some(()))
            });
            let agreed = agreed.await;
            agreed
                .with_context(|| format!("{} differences in {}: {differences:#?}", differences.len(), region.region))?;
        }

        let mut readers: Vec<Reader> = endpoints.regions().map(Reader::new).collect();
        let books = within(PATIENCE, "books that balance", async || {
            let mut books = Books::default();
            for reader in &mut readers {
                books += reader.catch_up().await?;
            }
            let settled = books.balance() && books.between_regions() == 0 && books.accepted >= report.accepted as u64;
            Ok(settled.then_some(books))
        });
        let books = books.await?;
        ensure!(books.forwarded > 100 && books.forward_requests > 0, "{books:?}");

        let of_plan = |keys: BTreeSet<(String, String)>| -> BTreeSet<(String, String)> {
            keys.into_iter().filter(|(profile, _)| profiles.contains(profile)).collect()
        };
        let east = of_plan(view_keys(world.regions.cloud(EAST)?.endpoints()).await?);
        let west = of_plan(view_keys(world.regions.cloud(WEST)?.endpoints()).await?);
        assert_eq!(east, west);
        let writers = Writers::of(&east);
        assert_eq!((writers.at_home, writers.elsewhere), (expected.views.len(), 0), "{writers:?}");
        assert_eq!(writers.items.len(), 2, "both regions wrote: {writers:?}");
        Ok(())
    })
}

#[test]
fn hiding_and_erasing_reach_the_other_region() -> Result<()> {
    World::run(async |world| {
        let profile = "hides-far-from-home";
        let session = SessionId::mint("usw2".parse()?, now_ms(), 1);
        let hidden = format!("/v1/profiles/{profile}/history/{session}/hidden");
        world.watch(EAST, &session, profile, 0..3).await?;
        world.everywhere(profile, &[(3, false)]).await?;
        world.call(EAST, Method::PUT, &hidden, None).await?;
        world.everywhere(profile, &[(3, true)]).await?;
        world.watch(WEST, &session, profile, 3..5).await?;
        world.watch(EAST, &session, profile, 5..6).await?;
        world.everywhere(profile, &[(6, true)]).await?;
        world.call(WEST, Method::DELETE, &hidden, None).await?;
        world.everywhere(profile, &[(6, false)]).await?;
        world.call(EAST, Method::DELETE, &format!("/v1/profiles/{profile}/history"), None).await?;
        world.everywhere(profile, &[]).await
    })
}
