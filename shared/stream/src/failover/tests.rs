//! Two scripted logs, and what the caller sees of them.

use super::*;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::time::sleep;

/// What a log does with a record.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// Keeps it, and acknowledges after this many milliseconds.
    Ack(u64),
    /// Keeps it, and reports a failure.
    Lie(u64),
    Unavailable(u64),
    Denied(u64),
    Throttled(u64),
    TooLarge,
    /// Keeps it, and never answers.
    Hang,
    /// Omits it from its answer.
    Forget,
}

/// A log that follows a script: one entry per append, then the usual act.
#[derive(Clone)]
struct ScriptedLog {
    inner: Arc<Script>,
}

struct Script {
    acts: Mutex<Vec<Vec<Act>>>,
    usual: Mutex<Act>,
    kept: Mutex<BTreeMap<String, u32>>,
    appends: AtomicUsize,
}

impl ScriptedLog {
    fn new(usual: Act, acts: Vec<Vec<Act>>) -> Self {
        let inner = Script {
            acts: Mutex::new(acts),
            usual: Mutex::new(usual),
            kept: Mutex::default(),
            appends: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    fn always(act: Act) -> Self {
        Self::new(act, Vec::new())
    }

    fn set_usual(&self, act: Act) {
        *self.inner.usual.lock().unwrap() = act;
    }

    /// Drops the rest of the script.
    fn end_script(&self) {
        self.inner.acts.lock().unwrap().clear();
    }

    fn appends(&self) -> usize {
        self.inner.appends.load(Ordering::SeqCst)
    }

    fn copies(&self, key: &str) -> u32 {
        self.inner.kept.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    fn keys(&self) -> Vec<String> {
        self.inner.kept.lock().unwrap().keys().cloned().collect()
    }

    async fn play(&self, index: usize, record: LogRecord, act: Act) -> Option<RecordResult> {
        let keep = || *self.inner.kept.lock().unwrap().entry(record.key.clone()).or_default() += 1;
        let attempt = |copies| Attempt { copies, ..Attempt::new("script", &record, "Scripted", "as scripted") };
        let after = async |ms| sleep(Duration::from_millis(ms)).await;
        let result = match act {
            Act::Ack(ms) => {
                keep();
                after(ms).await;
                Ok(Ack::ONCE)
            }
            Act::Lie(ms) => {
                keep();
                after(ms).await;
                Err(AppendError::Unavailable(attempt(1)))
            }
            Act::Unavailable(ms) => {
                after(ms).await;
                Err(AppendError::Unavailable(attempt(1)))
            }
            Act::Denied(ms) => {
                after(ms).await;
                Err(AppendError::Denied(attempt(0)))
            }
            Act::Throttled(ms) => {
                after(ms).await;
                Err(AppendError::Throttled(attempt(0)))
            }
            Act::TooLarge => Err(AppendError::TooLarge(attempt(0))),
            Act::Hang => {
                keep();
                std::future::pending().await
            }
            Act::Forget => return None,
        };
        Some((index, result))
    }
}

impl DurableLog for ScriptedLog {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        self.inner.appends.fetch_add(1, Ordering::SeqCst);
        let mut acts = self.inner.acts.lock().unwrap();
        let next = if acts.is_empty() { Vec::new() } else { acts.remove(0) };
        drop(acts);
        let usual = *self.inner.usual.lock().unwrap();
        let act = move |index: usize| next.get(index).copied().unwrap_or(usual);
        let played = records.iter().enumerate().map(|(index, record)| self.play(index, record.clone(), act(index)));
        played.collect::<futures::stream::FuturesUnordered<_>>().filter_map(std::future::ready)
    }
}

/// Times short enough for a test to see many of them.
fn short() -> Policy {
    let circuit = CircuitPolicy {
        rest: Duration::from_millis(40),
        probe_interval_max: Duration::from_millis(160),
        probe_timeout: Duration::from_millis(400),
        calm: Duration::ZERO,
        ..CircuitPolicy::default()
    };
    let ms = Duration::from_millis;
    Policy { patience: ms(300), total: ms(1000), grace: ms(100), circuit }
}

fn pair(primary: Act, standby: Act) -> (Failover<ScriptedLog>, ScriptedLog, ScriptedLog) {
    let (primary, standby) = (ScriptedLog::always(primary), ScriptedLog::always(standby));
    (Failover::new(primary.clone(), Some(standby.clone()), short()), primary, standby)
}

fn records(keys: &[&str]) -> Vec<LogRecord> {
    keys.iter().map(|key| LogRecord::new(*key, Bytes::from_static(b"v"))).collect()
}

/// For each record: where it became durable (`P`, `S`) or why not, and how many copies there may
/// be.
fn results_of(appended: &Appended) -> Vec<(&'static str, u32)> {
    let word = |fate: &Fate| match &fate.result {
        Ok(Role::Primary) => "P",
        Ok(Role::Standby) => "S",
        Err(error) => error.reason(),
    };
    appended.fates.iter().map(|fate| (word(fate), fate.copies)).collect()
}

/// Appends one record after another until the circuit is in this state.
async fn until(failover: &Failover<ScriptedLog>, state: CircuitState) -> (u32, u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut opened, mut closed) = (0, 0);
    while failover.state() != state {
        assert!(Instant::now() < deadline, "never {state}");
        let appended = failover.append(&records(&["until"]), Override::Auto).await;
        assert!(appended.fates[0].result.is_ok(), "{appended:?}");
        opened += appended.opened;
        closed += appended.closed;
        sleep(Duration::from_millis(5)).await;
    }
    let appended = failover.append(&[], Override::Auto).await;
    (opened + appended.opened, closed + appended.closed)
}

#[tokio::test]
async fn a_healthy_primary_gets_every_record() {
    let (failover, _, standby) = pair(Act::Ack(0), Act::Ack(0));
    for _ in 0..100 {
        assert_eq!(results_of(&failover.append(&records(&["a", "b"]), Override::Auto).await), [("P", 1), ("P", 1)]);
    }
    assert_eq!(standby.appends(), 0);
}

#[tokio::test]
async fn only_unacknowledged_records_go_to_the_standby() {
    let acts =
        vec![vec![Act::Ack(0), Act::Unavailable(0), Act::Denied(0), Act::Throttled(0), Act::TooLarge, Act::Forget]];
    let (primary, standby) = (ScriptedLog::new(Act::Ack(0), acts), ScriptedLog::always(Act::Ack(0)));
    let failover = Failover::new(primary, Some(standby.clone()), short());
    let appended = failover.append(&records(&["a", "b", "c", "d", "e", "f"]), Override::Auto).await;
    // an attempt that may have arrived counts as a copy; a refused one does not
    assert_eq!(results_of(&appended), [("P", 1), ("S", 2), ("S", 1), ("S", 1), ("too_large", 0), ("S", 2)]);
    assert_eq!(standby.keys(), ["b", "c", "d", "f"]);
}

#[tokio::test]
async fn a_silent_primary_is_not_waited_for() {
    let (failover, ..) = pair(Act::Hang, Act::Ack(0));
    let began = Instant::now();
    assert_eq!(results_of(&failover.append(&records(&["a"]), Override::Auto).await), [("S", 2)]);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_late_acknowledgement_counts_if_it_comes_first() {
    let (failover, _, standby) = pair(Act::Ack(600), Act::Hang);
    assert_eq!(results_of(&failover.append(&records(&["a"]), Override::Auto).await), [("P", 2)]);
    assert_eq!(standby.appends(), 1, "it was asked, but the primary was faster");
}

#[tokio::test]
async fn outages_and_denials_open_the_circuit() {
    for act in [Act::Unavailable(0), Act::Denied(0), Act::Lie(0), Act::Forget] {
        let (failover, primary, _) = pair(act, Act::Ack(0));
        let mut opened = 0;
        for _ in 0..3 {
            let appended = failover.append(&records(&["a"]), Override::Auto).await;
            assert_eq!(results_of(&appended)[0].0, "S");
            opened += appended.opened;
        }
        assert_eq!((failover.state(), opened), (CircuitState::Open, 1), "{act:?}");
        failover.append(&records(&["b"]), Override::Auto).await;
        assert_eq!(primary.appends(), 3, "records go straight to the standby");
    }
}

#[tokio::test]
async fn throttled_or_oversize_records_never_open_the_circuit() {
    for (act, expected) in [(Act::Throttled(0), "S"), (Act::TooLarge, "too_large")] {
        let (failover, primary, standby) = pair(act, Act::Ack(0));
        for _ in 0..50 {
            assert_eq!(results_of(&failover.append(&records(&["a"]), Override::Auto).await)[0].0, expected);
        }
        assert_eq!((failover.state(), primary.appends()), (CircuitState::Closed, 50));
        assert_eq!(standby.appends(), if expected == "S" { 50 } else { 0 });
    }
}

#[tokio::test]
async fn it_recovers_and_counts_each_opening_and_closing_once() {
    let (failover, primary, standby) = pair(Act::Unavailable(0), Act::Ack(0));
    for _ in 0..3 {
        let (opened, _) = until(&failover, CircuitState::Open).await;
        assert_eq!(opened, 1);
        primary.set_usual(Act::Ack(0));
        let (_, closed) = until(&failover, CircuitState::Closed).await;
        assert_eq!(closed, 1);
        let before = standby.appends();
        assert_eq!(results_of(&failover.append(&records(&["back"]), Override::Auto).await), [("P", 1)]);
        assert_eq!(standby.appends(), before);
        primary.set_usual(Act::Unavailable(0));
    }
}

/// In a frozen environment, a probe may end only during the next request, so that request waits
/// for it a little.
#[tokio::test]
async fn probes_succeed_in_an_environment_frozen_between_requests() {
    let (failover, primary, _) = pair(Act::Unavailable(0), Act::Ack(0));
    until(&failover, CircuitState::Open).await;
    primary.set_usual(Act::Ack(20));
    let deadline = Instant::now() + Duration::from_secs(30);
    while failover.state() != CircuitState::Closed {
        assert!(Instant::now() < deadline, "no probe ever ended");
        failover.append(&records(&["a"]), Override::Auto).await;
        // frozen: the thread stops, and with it every task of the runtime
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[tokio::test]
async fn a_probe_adds_a_copy_and_its_acknowledgement_counts() {
    let (failover, primary, standby) = pair(Act::Unavailable(0), Act::Ack(0));
    until(&failover, CircuitState::Open).await;
    primary.set_usual(Act::Ack(0));
    standby.set_usual(Act::Hang);
    sleep(Duration::from_millis(60)).await;
    let appended = failover.append(&records(&["probe"]), Override::Auto).await;
    assert_eq!(results_of(&appended), [("P", 2)], "the standby hangs, the probe does not");
    assert_eq!((primary.copies("probe"), standby.copies("probe")), (1, 1));
}

#[tokio::test]
async fn primary_is_the_last_resort_when_the_standby_fails() {
    let policy =
        Policy { circuit: CircuitPolicy { rest: Duration::from_secs(3600), ..CircuitPolicy::default() }, ..short() };
    let (primary, standby) = (ScriptedLog::always(Act::Unavailable(0)), ScriptedLog::always(Act::Ack(0)));
    let failover = Failover::new(primary.clone(), Some(standby.clone()), policy);
    until(&failover, CircuitState::Open).await;
    primary.set_usual(Act::Ack(0));
    for act in [Act::Unavailable(0), Act::Denied(0), Act::Hang] {
        standby.set_usual(act);
        let (word, _) = results_of(&failover.append(&records(&["a"]), Override::Auto).await)[0];
        assert_eq!(word, "P", "{act:?}");
    }
    assert_eq!(failover.state(), CircuitState::Closed, "three good results in a row close it, probes or not");
}

#[tokio::test]
async fn without_any_log_the_error_is_in_time_and_counts_attempts() {
    for (primary, standby) in [(Act::Lie(0), Act::Lie(0)), (Act::Hang, Act::Hang), (Act::Hang, Act::Unavailable(0))] {
        let (failover, ..) = pair(primary, standby);
        for _ in 0..2 {
            let began = Instant::now();
            let appended = failover.append(&records(&["a"]), Override::Auto).await;
            assert_eq!(results_of(&appended), [("unavailable", 2)], "{primary:?} and {standby:?}");
            assert!(began.elapsed() < Duration::from_secs(5));
        }
    }
}

#[tokio::test]
async fn operator_overrides_the_circuit() {
    let (primary, standby) = (ScriptedLog::always(Act::Denied(0)), ScriptedLog::always(Act::Ack(0)));
    let failover = Failover::new(primary.clone(), Some(standby.clone()), short());
    for _ in 0..5 {
        assert_eq!(results_of(&failover.append(&records(&["a"]), Override::Primary).await), [("denied", 0)]);
    }
    assert_eq!(standby.appends(), 0);
    let before = primary.appends();
    assert_eq!(results_of(&failover.append(&records(&["a"]), Override::Standby).await), [("S", 1)]);
    assert_eq!(primary.appends(), before);
}

#[tokio::test]
async fn without_a_standby_only_the_primary_is_used() {
    let failover = Failover::new(ScriptedLog::always(Act::Unavailable(0)), None, short());
    for _ in 0..5 {
        let appended = failover.append(&records(&["a"]), Override::Auto).await;
        assert_eq!((results_of(&appended), appended.opened), (vec![("unavailable", 1)], 0));
    }
    failover.primary().set_usual(Act::Ack(0));
    assert_eq!(results_of(&failover.append(&records(&["a"]), Override::Auto).await), [("P", 1)]);
}

#[tokio::test]
async fn an_empty_append_calls_no_log() {
    let (failover, primary, standby) = pair(Act::Ack(0), Act::Ack(0));
    assert!(failover.append(&[], Override::Auto).await.fates.is_empty());
    assert_eq!(primary.appends() + standby.appends(), 0);
}

#[test]
fn default_times_fit_into_the_functions_time_limit() {
    let Policy { patience, total, grace, circuit } = Policy::default();
    assert!(patience * 2 < total && total + grace <= Duration::from_secs(8));
    assert!(circuit.probe_timeout > patience);
}

fn act() -> impl Strategy<Value = Act> {
    let ms = || prop_oneof![6 => 0..3u64, 1 => 3..400u64];
    prop_oneof![
        6 => ms().prop_map(Act::Ack),
        2 => ms().prop_map(Act::Lie),
        2 => ms().prop_map(Act::Unavailable),
        1 => ms().prop_map(Act::Denied),
        1 => ms().prop_map(Act::Throttled),
        1 => Just(Act::TooLarge),
        1 => Just(Act::Hang),
        1 => Just(Act::Forget),
    ]
}

fn script() -> impl Strategy<Value = Vec<Vec<Act>>> {
    // also appends with three equal acts, to get runs
    let append = prop_oneof![act().prop_map(|act| vec![act; 3]), prop::collection::vec(act(), 3)];
    prop::collection::vec(append, 0..14)
}

/// Random logs under random load. Every acknowledged record is stored, every record gets one
/// result, no record has more copies than reported, and a primary that is healthy again is used
/// again.
async fn survives(primary: Vec<Vec<Act>>, standby: Vec<Vec<Act>>, pauses: Vec<u64>) {
    let (primary, standby) = (ScriptedLog::new(Act::Ack(0), primary), ScriptedLog::new(Act::Ack(0), standby));
    let failover = Failover::new(primary.clone(), Some(standby.clone()), short());
    let appends = pauses.iter().enumerate().map(|(n, pause)| {
        let (failover, primary, standby) = (&failover, &primary, &standby);
        async move {
            sleep(Duration::from_millis(*pause)).await;
            let keys: Vec<String> = (0..3).map(|i| format!("{n}-{i}")).collect();
            let batch = records(&keys.iter().map(String::as_str).collect::<Vec<_>>());
            let began = Instant::now();
            let appended = failover.append(&batch, Override::Auto).await;
            assert!(began.elapsed() < Duration::from_secs(20), "bounded time");
            assert_eq!(appended.fates.len(), 3);
            for (key, fate) in keys.iter().zip(&appended.fates) {
                match fate.result {
                    Ok(Role::Primary) => assert!(primary.copies(key) > 0, "{key} is not on the primary"),
                    Ok(Role::Standby) => assert!(standby.copies(key) > 0, "{key} is not on the standby"),
                    Err(_) => {}
                }
            }
            keys.into_iter().zip(appended.fates).collect::<Vec<_>>()
        }
    });
    let fates: Vec<(String, Fate)> = join_all(appends).await.into_iter().flatten().collect();
    primary.end_script();
    standby.end_script();
    until(&failover, CircuitState::Closed).await;
    assert_eq!(results_of(&failover.append(&records(&["z"]), Override::Auto).await), [("P", 1)], "back on the primary");
    let mut seen = HashSet::new();
    for (key, fate) in fates {
        let there = primary.copies(&key) + standby.copies(&key);
        assert!(there <= fate.copies, "{key}: {there} copies, reported {}", fate.copies);
        assert!(fate.result.is_err() || there >= 1);
        assert!(seen.insert(key));
    }
}

#[test]
fn acknowledged_records_are_durable_whatever_the_logs_do() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Cases mostly wait, so many run at once.
    let load = prop::collection::vec(0..600u64, 1..30);
    let case = (script(), script(), load);
    let cases = prop::collection::vec(case, 40);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 4,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&cases, |cases| {
        let all = cases.into_iter().map(|(primary, standby, pauses)| survives(primary, standby, pauses));
        runtime.block_on(join_all(all));
        Ok(())
    });
    outcome.unwrap();
}
