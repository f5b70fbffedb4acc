//! Walks the steps under load. Each step writes the routing document while devices keep sending,
//! checks the answers against the promises, and compares settled sessions before more profiles are
//! moved.

use super::journey::{FOLLOWED_WITHIN, Journey, Step};
use super::proof::{Answers, distinct_events};
use crate::percentile::percentile_ms;
use anyhow::{Context as _, Result, bail};
use compare::Report;
use futures::future::join_all;
use indicatif::ProgressBar;
use lambda::clock::now_ms;
use legacy::Legacy;
use local::Progress;
use operate::Endpoints;
use operate::books::{Books, Reader};
use operate::comparison::{Found, Sites, run_now};
use operate::rollout::{self, Change, Done, Profiles, Rule};
use operate::routing::Edit;
use operate::stack::Deployment;
use playback::rollout::{Path, Rollout};
use playback::session::Home;
use serde::Serialize;
use simulate::plan::Plan;
use simulate::send::{self, Auth, Pace, SendReport, Target};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use store::dynamodb::Views;

/// Seconds without an event after which a session is compared.
pub(super) const SETTLED_AFTER_S: u64 = 4;
/// How long the shadow may take to fold what devices sent.
const FOLDED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Concurrent requests that wake all instances of `ingest`.
const WAKERS: usize = 8;
/// Attempts to run `compare`: its schedule may start it at the same moment, and then only one run
/// counts.
const ATTEMPTS: usize = 3;
const PAGE: u16 = 500;
/// Sessions that must be compared before anyone is moved. A demo is short: operators should use
/// more.
const MIN_SAMPLE: u64 = 10;

/// The result of a step.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Row {
    pub(super) step: &'static str,
    pub(super) posts: usize,
    pub(super) by_legacy: usize,
    pub(super) by_playhead: usize,
    /// Attempts without a 2xx answer.
    pub(super) errors: usize,
    /// Answers that are not byte for byte those of the legacy system.
    pub(super) changed: usize,
    /// Profiles that sent something once functions followed, by path.
    pub(super) legacy_profiles: usize,
    pub(super) shadow_profiles: usize,
    pub(super) async_profiles: usize,
    /// Profiles that were on the old path again after they had been on the new one, while not all
    /// functions followed.
    pub(super) to_and_fro: usize,
    pub(super) shadow_appended: u64,
    pub(super) shadow_missed: u64,
    pub(super) compared: u64,
    pub(super) matched: u64,
    /// Milliseconds, over the whole time in which functions followed.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// A walk and its results so far.
pub(super) struct Walk<'a> {
    legacy: &'a Legacy,
    journey: &'a Journey,
    progress: &'a Progress,
    target: Target,
    http: reqwest::Client,
    deployment: Deployment,
    sites: Sites,
    shadow: Views,
    reader: Reader,
    books: Books,
    /// The rollout before the next step.
    before: Option<Rollout>,
    /// Which system answered which POST.
    pub(super) answers: Answers,
    pub(super) rows: Vec<Row>,
    /// The comparison so far.
    pub(super) found: Report,
    /// Events that Playhead accepted, as devices know.
    pub(super) accepted: u64,
    /// The promises that do not hold, in words.
    pub(super) faults: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(super) async fn new(
        endpoints: &'a Endpoints,
        legacy: &'a Legacy,
        journey: &'a Journey,
        progress: &'a Progress,
    ) -> Result<Self> {
        let deployment = Deployment::local(endpoints)?;
        let shadow = endpoints.shadow_table.as_deref().context("the stack has no shadow table")?;
        let home = Home::of_region(&endpoints.region).context("a region without a home code")?;
        let auth = Auth::of(endpoints);
        Ok(Self {
            legacy,
            journey,
            progress,
            target: Target { endpoint: endpoints.api.clone(), elsewhere: send::elsewhere(endpoints), auth },
            http: reqwest::Client::builder().no_proxy().build().context("an HTTP client")?,
            sites: Sites::find(&deployment).await,
            deployment,
            shadow: Views::new(&endpoints.sdk_config(), shadow, home),
            reader: Reader::new(endpoints),
            books: Books::default(),
            before: None,
            answers: Answers::default(),
            rows: Vec::new(),
            found: Report::default(),
            accepted: 0,
            faults: Vec::new(),
        })
    }

    /// Takes a step.
    pub(super) async fn step(&mut self, step: &Step) -> Result<()> {
        let posts = self.journey.plan.posts[step.posts.clone()].to_vec();
        self.progress.step(format!("{}: {} POSTs, {:.1} per second", step.name, posts.len(), self.journey.per_second));
        self.set(step, false).await?;
        let before = self.before.replace(step.rollout.clone());
        let moves = step.rollout.async_share().buckets() > 0;
        if !moves && before.is_some() {
            // Sessions must be shadowed from their beginning.
            tokio::time::sleep(FOLLOWED_WITHIN).await;
        }
        if !moves {
            self.wake().await;
        }
        let following = if moves { FOLLOWED_WITHIN } else { Duration::ZERO };
        let followed_at = now_ms() + following.as_millis() as u64;
        let plan = Plan { posts, applied: self.journey.plan.applied.clone() };
        let pace = Pace { per_second: Some(self.journey.per_second), concurrency: 256, ..Pace::default() };
        let report = send::send(&plan, &self.target, pace, &ProgressBar::hidden()).await?;
        let last_answer = Instant::now();

        let mut row = self.look_at(step, &plan, &report, before.as_ref(), followed_at);
        self.accepted += report.accepted as u64;
        let shadowed = step.rollout.shadow_share().buckets() > 0;
        if shadowed {
            self.wait_for_the_shadow().await?;
        }
        // An instance reports shadow appends of a request with its next request.
        self.wake().await;
        let settled = last_answer + Duration::from_secs(SETTLED_AFTER_S + 1);
        tokio::time::sleep_until(settled.into()).await;
        let books = self.reader.catch_up().await?.clone();
        row.shadow_appended = books.shadow_appended - self.books.shadow_appended;
        row.shadow_missed = books.shadow_missed - self.books.shadow_missed;
        self.books = books;
        if shadowed {
            let report = self.compare().await?;
            (row.compared, row.matched) = (report.compared, report.matched);
            self.found.merge(report);
        }
        self.rows.push(row);
        Ok(())
    }

    /// Why the promotion rule refuses this step, if it does.
    pub(super) async fn refuses(&self, step: &Step) -> Result<Option<String>> {
        let objections = self.set(step, true).await?.objections;
        Ok((!objections.is_empty()).then(|| objections.join("; ")))
    }

    /// Sets the rollout of a step, like `playhead rollout set`.
    async fn set(&self, step: &Step, dry_run: bool) -> Result<Done> {
        let edit = Edit { deployment: &self.deployment, from: None, dry_run };
        let change = Change {
            asynchronous: Some(step.rollout.async_share()),
            shadow: Some(step.rollout.shadow_share()),
            salt: Some(step.rollout.salt().to_owned()),
            ..Change::default()
        };
        let rule = Rule { min_sample: MIN_SAMPLE, ..Rule::default() };
        rollout::set(edit, &self.sites, &change, &rule, Profiles::default()).await
    }

    /// Checks the devices' answers against the rollout's promises and the legacy system's own list
    /// of answers.
    fn look_at(
        &mut self,
        step: &Step,
        plan: &Plan,
        report: &SendReport,
        before: Option<&Rollout>,
        followed_at: u64,
    ) -> Row {
        let said = self.legacy.answered();
        let seen = self.answers.add(step, plan, report, before, followed_at, &said);
        self.faults.extend(seen.faults);
        let profiles = |path: Path| {
            let of = |profile: &&String| step.rollout.path(profile) == path;
            seen.profiles.iter().filter(of).count()
        };
        let first_tries =
            report.attempts.iter().filter(|attempt| attempt.number == 0 && attempt.began_at >= followed_at);
        let took: Vec<Duration> = first_tries.map(|attempt| attempt.took).collect();
        Row {
            step: step.name,
            posts: report.posts,
            by_legacy: report.by_legacy.len(),
            by_playhead: report.posts - report.by_legacy.len() - report.failed_posts.len(),
            errors: report.attempts.iter().filter(|attempt| !attempt.succeeded()).count(),
            changed: seen.changed,
            legacy_profiles: profiles(Path::Legacy),
            shadow_profiles: profiles(Path::Shadow),
            async_profiles: profiles(Path::Async),
            to_and_fro: seen.to_and_fro,
            p50_ms: percentile_ms(&took, 0.50),
            p99_ms: percentile_ms(&took, 0.99),
            ..Row::default()
        }
    }

    /// Makes every instance of `ingest` read the routing document and report its counts, with
    /// requests without events, which no system accepts.
    async fn wake(&self) {
        for _ in 0..2 {
            let post = || {
                let url = format!("{}/v1/events", self.target.endpoint);
                self.http.post(url).header("content-type", "application/json").body(r#"{"events":[]}"#).send()
            };
            let answers = join_all((0..WAKERS).map(|_| post())).await;
            if let Some(error) = answers.into_iter().find_map(Result::err) {
                tracing::debug!(%error, "a request to wake ingest failed");
            }
        }
    }

    /// Waits until the shadow has every event that the legacy system accepted since the shadow
    /// started.
    async fn wait_for_the_shadow(&mut self) -> Result<()> {
        let first = self.journey.steps.first().map_or(0, |first| first.posts.end);
        let posts = self.answers.by_legacy.range(first..).map(|index| &self.journey.plan.posts[*index]);
        let expected = distinct_events(posts) as u64;
        let began = Instant::now();
        let found = loop {
            let (mut found, mut after) = (0, None);
            loop {
                let page = self.shadow.scan(after.as_ref(), PAGE).await?;
                found += page.views.iter().map(|placed| placed.view.events()).sum::<u64>();
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            if found == expected || began.elapsed() > FOLDED_WITHIN {
                break found;
            }
            self.progress.detail(format!("the shadow has {found} of {expected} events"));
            tokio::time::sleep(LOOK_EVERY).await;
        };
        if found != expected {
            self.faults.push(format!("the shadow has {found} events, but the legacy system accepted {expected}"));
        }
        Ok(())
    }

    /// Runs `compare` and returns the comparison.
    async fn compare(&self) -> Result<Report> {
        self.progress.detail("comparing");
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let Found { total, missed, .. } = run_now(&self.sites).await;
            match missed.into_values().next() {
                None => return Ok(total),
                Some(error) => why = error,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("{why}")
    }
}

/// The profiles of these POSTs.
pub(super) fn profiles(plan: &Plan) -> BTreeSet<&String> {
    plan.posts.iter().map(|post| &post.profile_id).collect()
}
