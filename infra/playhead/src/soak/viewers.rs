//! The simulated viewers of a soak: they send without end, in waves, and read their histories
//! meanwhile. What the views must be is computed from what was sent, wave by wave, so memory grows
//! with the views and not with the events.

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use lambda::clock::now_ms;
use operate::Endpoints;
use operate::token;
use playback::session::Home;
use rand::RngExt as _;
use serde::Serialize;
use simulate::expect::{Expected, expect_sent};
use simulate::http::Http;
use simulate::plan::Plan;
use simulate::send::{Attempt, Auth, Pace, SendReport, Target, Valve, send_through};
use simulate::{Faults, Model};
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Attempts in flight at once. The emulator starts an environment for each attempt that finds none
/// idle, so this also bounds their number.
const CONCURRENCY: usize = 16;
/// Devices never give up.
const ATTEMPTS: u32 = 100_000;
/// How long the last POSTs may take, once nothing is broken.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(300);
/// How long a wave takes. Short enough that its sessions end about now.
const WAVE: Duration = Duration::from_secs(30);
/// How many waves may be under way. A machine that has become too slow for the rate then sets the pace, and what waits to
/// be sent does not pile up.
const WAVES: usize = 3;
/// The simulator's sessions make about nine POSTs each.
const POSTS_PER_SESSION: f64 = 8.0;
/// Sessions of a wave that is sent as fast as it is taken: more than any machine takes in time.
const PLENTY: usize = 4_000;
/// The pause between two histories that are read.
const READ_EVERY: Duration = Duration::from_millis(200);
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Profiles that are read. The first of them are in every wave.
const MEMBERS: u32 = 20;
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// What viewers sent, what they were answered, and what the views must be.
#[derive(Debug, Default)]
pub(super) struct Played {
    /// What the views must be.
    pub(super) expected: Expected,
    pub(super) posts: usize,
    /// Events, including malformed ones and copies. Later attempts do not count again.
    pub(super) events: usize,
    /// Events that a `202` called accepted.
    pub(super) accepted: usize,
    /// Events that were rejected, by code.
    pub(super) rejected: BTreeMap<String, usize>,
    /// Attempts after the first one.
    pub(super) retries: usize,
    /// POSTs that were refused as a whole.
    pub(super) refused: usize,
    /// Why, for some of them.
    pub(super) failures: Vec<String>,
}

impl Played {
    fn of(plan: &Plan, report: SendReport) -> Self {
        Self {
            expected: expect_sent(plan, &report),
            posts: report.posts,
            events: report.events_sent,
            accepted: report.accepted,
            rejected: report.rejected,
            retries: report.retries,
            refused: report.failed_posts.len(),
            failures: report.failures,
        }
    }
}

impl AddAssign for Played {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.posts += other.posts;
        self.events += other.events;
        self.accepted += other.accepted;
        self.retries += other.retries;
        self.refused += other.refused;
        self.failures.extend(other.failures);
        for (code, n) in other.rejected {
            *self.rejected.entry(code).or_default() += n;
        }
    }
}

/// The viewers of a local cloud.
#[derive(Debug, Clone)]
pub(super) struct Viewers {
    target: Target,
    homes: Vec<Home>,
    seed: u64,
}

impl Viewers {
    pub(super) fn new(endpoints: &Endpoints, seed: u64) -> Self {
        let target = Target { endpoint: endpoints.api.clone(), elsewhere: BTreeMap::new(), auth: Auth::of(endpoints) };
        Self { target, homes: Home::of_region(&endpoints.region).into_iter().collect(), seed }
    }

    /// Sends as fast as it is taken. Returns POSTs per second in the second half of this time, and
    /// what was sent.
    ///
    /// # Errors
    /// If an answer breaks the contract.
    pub(super) async fn fastest(&self, time: Duration) -> Result<(f64, Played)> {
        let pace = Pace { concurrency: CONCURRENCY, attempts: ATTEMPTS, ..Pace::default() };
        let (plan, valve) = (self.plan(0, PLENTY).await?, Valve::new(pace));
        let from = now_ms() + time.as_millis() as u64 / 2;
        let stop = async {
            sleep(time).await;
            valve.stop();
            now_ms()
        };
        let bar = ProgressBar::hidden();
        let (report, to) = tokio::join!(send_through(&valve, &plan, &self.target, pace, &bar), stop);
        let report = report?;
        let done = report.attempts.iter().filter(|attempt| attempt.succeeded());
        let done = done.filter(|attempt| (from..to).contains(&attempt.ended_at())).count();
        Ok((done as f64 * 1000.0 / to.saturating_sub(from).max(1) as f64, Played::of(&plan, report)))
    }

    /// Sends at this rate, POSTs per second, until it is stopped.
    pub(super) fn play(&self, rate: f64) -> Playing {
        let pace = Pace { concurrency: CONCURRENCY, per_second: Some(rate), attempts: ATTEMPTS, ..Pace::default() };
        let (told, attempts) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let valve = Arc::new(Valve::telling(pace, told));
        let task = tokio::spawn(self.clone().waves(rate, pace, valve, stopped));
        Playing { attempts, stop, task }
    }

    /// A new wave starts when the one before should have started all its POSTs, or later if too many are not done.
    async fn waves(
        self,
        rate: f64,
        pace: Pace,
        valve: Arc<Valve>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<Played> {
        let sessions = (rate * WAVE.as_secs_f64() / POSTS_PER_SESSION).ceil() as usize;
        let (mut waves, mut played, mut next) = (JoinSet::new(), Played::default(), Instant::now());
        'waves: for wave in 1.. {
            loop {
                tokio::select! {
                    biased;
                    // Also if nobody is there any more to stop them.
                    _ = stopped.wait_for(|stopped| *stopped) => break 'waves,
                    Some(done) = waves.join_next() => played += done??,
                    () = sleep_until(next), if waves.len() < WAVES => break,
                }
            }
            next = next.max(Instant::now());
            let plan = self.plan(wave, sessions).await?;
            next += Duration::from_secs_f64(plan.posts.len() as f64 / rate);
            let (valve, target) = (Arc::clone(&valve), self.target.clone());
            waves.spawn(async move {
                let report = send_through(&valve, &plan, &target, pace, &ProgressBar::hidden()).await?;
                anyhow::Ok(Played::of(&plan, report))
            });
        }
        valve.stop();
        while let Some(wave) = waves.join_next().await {
            played += wave??;
        }
        Ok(played)
    }

    /// A plan that ends now.
    async fn plan(&self, wave: u64, sessions: usize) -> Result<Plan> {
        let model = Model {
            sessions,
            viewers: None,
            titles: 500,
            homes: self.homes.clone(),
            travel: None,
            seed: self.seed.wrapping_mul(1_000_000).wrapping_add(wave),
            faults: Faults { late: 0.0, ..Faults::default() },
        };
        let now = i64::try_from(now_ms())?;
        tokio::task::spawn_blocking(move || Plan::ending_at(&model, now)).await?
    }
}

/// Viewers that send.
pub(super) struct Playing {
    /// Each attempt as it ends.
    pub(super) attempts: mpsc::UnboundedReceiver<Attempt>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Played>>,
}

impl Playing {
    /// Whether they have ended by themselves, which only an error does.
    pub(super) fn has_failed(&self) -> bool {
        self.task.is_finished()
    }

    /// Lets them finish what they have started. Returns the attempts that were not looked at yet, too.
    ///
    /// # Errors
    /// If an answer broke the contract, or POSTs are not accepted although nothing is broken.
    pub(super) async fn stop(mut self) -> Result<(Played, Vec<Attempt>)> {
        self.stop.send_replace(true);
        let ended = timeout(ACCEPTED_WITHIN, self.task).await;
        let ended = ended.with_context(|| format!("POSTs were not accepted within {} s", ACCEPTED_WITHIN.as_secs()))?;
        let played = ended.context("the viewers panicked")??;
        Ok((played, std::iter::from_fn(|| self.attempts.try_recv().ok()).collect()))
    }
}

/// Members who look at their history.
pub(super) struct Readers {
    read: watch::Receiver<Readings>,
    task: JoinHandle<Result<()>>,
}

/// How their requests were answered.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Readings {
    pub(super) answered: u64,
    /// No answer, or a status from 500 on: while the store fails, and when `query` is killed.
    pub(super) unavailable: u64,
    /// Any other answer, which no member should ever get.
    pub(super) refused: u64,
}

impl Readers {
    /// Reads one history after the other until it is stopped.
    ///
    /// # Errors
    /// If no token or HTTP client can be made.
    pub(super) fn start(endpoints: &Endpoints) -> Result<Self> {
        let token = token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?;
        let (api, http) = (endpoints.api.clone(), Http::new(|builder| builder.timeout(READ_WITHIN))?);
        let (tell, read) = watch::channel(Readings::default());
        let task = tokio::spawn(async move {
            loop {
                let profile = format!("p{:08}", rand::rng().random_range(0..MEMBERS));
                let url = format!("{api}/v1/profiles/{profile}/history");
                let answer = http.client(&api).get(url).bearer_auth(&token).send().await;
                tell.send_modify(|readings| match answer.map(|answer| answer.status()) {
                    Ok(status) if status.is_success() => readings.answered += 1,
                    Ok(status) if !status.is_server_error() => readings.refused += 1,
                    _ => readings.unavailable += 1,
                });
                sleep(READ_EVERY).await;
            }
        });
        Ok(Self { read, task })
    }

    /// Ends them.
    pub(super) fn stop(self) -> Readings {
        self.task.abort();
        *self.read.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simulate::expect::expect;
    use simulate::plan::DEFAULT_START_AT;
    use std::collections::BTreeSet;

    fn plan(seed: u64) -> Plan {
        let model = Model {
            sessions: 3,
            viewers: None,
            titles: 10,
            homes: vec!["use1".parse().unwrap()],
            travel: None,
            seed,
            faults: Faults::NONE,
        };
        Plan::new(&model, DEFAULT_START_AT).unwrap()
    }

    #[tokio::test]
    async fn viewers_whom_nobody_can_stop_any_more_end() {
        let target = Target { endpoint: "http://127.0.0.1:9".to_owned(), elsewhere: BTreeMap::new(), auth: Auth::None };
        let viewers = Viewers { target, homes: vec!["use1".parse().unwrap()], seed: 1 };
        let Playing { task, .. } = viewers.play(10.0);
        let played = timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
        assert_eq!(played.posts, 0);
    }

    #[test]
    fn waves_add_up_without_what_was_not_sent() {
        let (first, second) = (plan(1), plan(2));
        let last = first.posts.len() - 1;
        let report = SendReport {
            posts: last,
            accepted: 7,
            retries: 1,
            unsent: BTreeSet::from([last]),
            ..SendReport::default()
        };
        let all = expect(&first, &BTreeSet::new()).distinct + expect(&second, &BTreeSet::new()).distinct;
        let mut played = Played::of(&first, report);
        played += Played::of(&second, SendReport { posts: second.posts.len(), accepted: 5, ..SendReport::default() });
        assert_eq!((played.accepted, played.retries, played.posts), (12, 1, last + second.posts.len()));
        assert_eq!(played.expected.distinct, all - first.posts[last].events.len());
        let views = |plan, without: &[usize]| expect(plan, &without.iter().copied().collect()).views.len();
        assert_eq!(played.expected.views.len(), views(&first, &[last]) + views(&second, &[]));
    }
}
