//! The circuit by its rules, and under random histories.

use super::*;
use proptest::prelude::*;

/// A circuit and its own clock.
struct Bench {
    circuit: Circuit,
    now: Instant,
    seen: Vec<Transition>,
}

impl Bench {
    fn new() -> Self {
        Self { circuit: Circuit::new(CircuitPolicy::default()), now: Instant::now(), seen: Vec::new() }
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn report(&mut self, ticket: Ticket, verdict: Verdict) {
        self.seen.extend(self.circuit.report(self.now, 0.5, ticket, verdict));
    }

    fn append(&mut self, verdict: Verdict) {
        let Route::Primary(ticket) = self.circuit.route(self.now) else {
            panic!("the circuit is {}", self.circuit.state());
        };
        self.report(ticket, verdict);
    }

    fn probe(&mut self) -> Option<Ticket> {
        match self.circuit.route(self.now) {
            Route::Primary(_) => None,
            Route::Standby { probe, .. } => probe,
        }
    }

    /// Lets time pass until a probe is due; how long that was, and its ticket.
    fn next_probe(&mut self) -> (Duration, Ticket) {
        let began = self.now;
        loop {
            if let Some(ticket) = self.probe() {
                return (self.now - began, ticket);
            }
            assert!(self.now - began < Duration::from_secs(600), "no probe for ten minutes");
            self.wait(10);
        }
    }

    fn trip(&mut self) {
        for _ in 0..3 {
            self.append(Verdict::Failed);
        }
        assert_eq!(self.circuit.state(), CircuitState::Open);
    }

    fn recover(&mut self) {
        while self.circuit.state() != CircuitState::Closed {
            let (_, ticket) = self.next_probe();
            self.report(ticket, Verdict::Good);
        }
    }
}

#[test]
fn a_run_of_failures_opens_it_and_a_good_append_between_them_does_not() {
    let mut bench = Bench::new();
    for verdict in [Verdict::Failed, Verdict::Failed, Verdict::Good, Verdict::Failed, Verdict::Failed] {
        bench.append(verdict);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Closed);
    bench.append(Verdict::Failed);
    let expected = Transition { from: CircuitState::Closed, to: CircuitState::Open, reason: Reason::Run(3) };
    assert_eq!(bench.seen, [expected]);
}

#[test]
fn a_share_of_failures_in_the_window_opens_it_and_old_ones_are_forgotten() {
    let alternate = |pause_ms| {
        let mut bench = Bench::new();
        for n in 0..40 {
            if bench.circuit.state() == CircuitState::Closed {
                bench.append(if n % 2 == 0 { Verdict::Good } else { Verdict::Failed });
                bench.wait(pause_ms);
            }
        }
        bench.seen
    };
    assert!(matches!(alternate(100)[..], [Transition { reason: Reason::Share(5, 10), .. }]));
    assert!(alternate(2_000).is_empty(), "only five of them are in ten seconds");
}

#[test]
fn throttling_is_not_an_outage() {
    let mut bench = Bench::new();
    for _ in 0..1_000 {
        bench.append(Verdict::Neither);
        bench.wait(10);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Closed);
    assert!(bench.seen.is_empty());
}

#[test]
fn probes_come_one_at_a_time_at_growing_intervals() {
    let mut bench = Bench::new();
    bench.trip();
    assert_eq!(bench.probe(), None, "not at once");
    let mut waits = Vec::new();
    for _ in 0..7 {
        let (waited, ticket) = bench.next_probe();
        waits.push(waited.as_secs_f64().round() as u64);
        assert_eq!(bench.probe(), None, "one at a time");
        bench.report(ticket, Verdict::Failed);
    }
    assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
}

#[test]
fn several_good_probes_in_a_row_close_it_and_a_failed_one_begins_again() {
    let mut bench = Bench::new();
    bench.trip();
    for verdict in [Verdict::Good, Verdict::Good, Verdict::Failed, Verdict::Good, Verdict::Good, Verdict::Good] {
        let (_, ticket) = bench.next_probe();
        bench.report(ticket, verdict);
    }
    let states: Vec<_> = bench.seen.iter().map(|transition| transition.to).collect();
    let expected =
        [CircuitState::Open, CircuitState::HalfOpen, CircuitState::Open, CircuitState::HalfOpen, CircuitState::Closed];
    assert_eq!(states, expected);
}

#[test]
fn a_throttled_probe_neither_closes_nor_lengthens() {
    let mut bench = Bench::new();
    bench.trip();
    for _ in 0..5 {
        let (waited, ticket) = bench.next_probe();
        assert!(waited <= Duration::from_millis(1_300));
        bench.report(ticket, Verdict::Neither);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Open);
}

#[test]
fn opening_again_soon_doubles_the_rest_up_to_a_bound_and_calm_forgets_it() {
    let mut bench = Bench::new();
    let mut rests = Vec::new();
    for _ in 0..10 {
        bench.trip();
        rests.push(bench.circuit.rest.as_secs());
        let (waited, ticket) = bench.next_probe();
        assert!(waited.as_secs_f64() >= 0.75 * bench.circuit.rest.as_secs_f64());
        bench.report(ticket, Verdict::Good);
        bench.recover();
    }
    assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]);
    bench.wait(601_000);
    bench.trip();
    assert_eq!(bench.circuit.rest.as_secs(), 1);
}

#[test]
fn an_environment_thawed_in_the_middle_of_a_probe_probes_again_and_does_not_count_it() {
    let mut bench = Bench::new();
    bench.trip();
    let (_, frozen) = bench.next_probe();
    bench.wait(20 * 60 * 1000);
    // what the frozen probe says first is ignored, and so is what it says after a new one began
    let before = bench.seen.len();
    bench.report(frozen, Verdict::Failed);
    let again = bench.probe().expect("a probe is due");
    bench.report(frozen, Verdict::Good);
    assert_eq!((bench.seen.len(), bench.circuit.state()), (before, CircuitState::Open));
    bench.report(again, Verdict::Good);
    assert_eq!(bench.circuit.state(), CircuitState::HalfOpen);
}

#[test]
fn a_probe_that_never_reports_does_not_stop_the_next() {
    let mut bench = Bench::new();
    bench.trip();
    bench.next_probe();
    let (waited, _) = bench.next_probe();
    assert!(waited > CircuitPolicy::default().probe_timeout);
}

#[test]
fn reports_of_appends_from_before_the_opening_change_nothing() {
    let mut bench = Bench::new();
    let Route::Primary(late) = bench.circuit.route(bench.now) else { panic!("it is closed") };
    bench.trip();
    bench.report(late, Verdict::Good);
    assert_eq!(bench.circuit.state(), CircuitState::Open);
    bench.recover();
    for _ in 0..5 {
        bench.report(late, Verdict::Failed);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Closed);
}

#[test]
fn good_last_resorts_close_it_too() {
    let mut bench = Bench::new();
    bench.trip();
    for _ in 0..3 {
        let Route::Standby { last_resort, .. } = bench.circuit.route(bench.now) else { panic!("it is open") };
        bench.report(last_resort, Verdict::Good);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Closed);
}

/// A step of a random history: so long after the one before, an append is routed, and the oldest one under way of its
/// kind, chosen by the number, ends like this.
fn steps() -> impl Strategy<Value = Vec<(u64, usize, Verdict)>> {
    let verdict = prop_oneof![3 => Just(Verdict::Good), 3 => Just(Verdict::Failed), 1 => Just(Verdict::Neither)];
    let pause = prop_oneof![6 => 0..200u64, 3 => 200..5_000u64, 1 => 5_000..1_000_000u64];
    prop::collection::vec((pause, 0..8usize, verdict), 1..400)
}

proptest! {
    #[test]
    fn in_any_history_it_opens_only_on_failures_closes_only_on_good_ones_and_probes_one_at_a_time(
        steps in steps(),
        spread in 0.0..1.0f64,
    ) {
        let mut circuit = Circuit::new(CircuitPolicy::default());
        let mut now = Instant::now();
        let mut under_way: Vec<Ticket> = Vec::new();
        let mut probing: Option<(Instant, Ticket)> = None;
        let (mut failures, mut goods) = (0, 0);
        for (pause, which, verdict) in steps {
            now += Duration::from_millis(pause);
            let before = circuit.state();
            match circuit.route(now) {
                Route::Primary(ticket) => {
                    prop_assert_eq!(before, CircuitState::Closed);
                    under_way.push(ticket);
                }
                Route::Standby { probe, .. } => {
                    prop_assert_ne!(before, CircuitState::Closed);
                    if let Some(ticket) = probe {
                        if let Some((until, _)) = probing {
                            prop_assert!(until < now, "two probes at a time");
                        }
                        probing = Some((now + CircuitPolicy::default().probe_timeout, ticket));
                        under_way.push(ticket);
                    }
                }
            }
            if which >= under_way.len() {
                continue;
            }
            let ticket = under_way.remove(which);
            if probing.is_some_and(|(_, probe)| probe == ticket) {
                probing = None;
            }
            match verdict {
                Verdict::Good => goods += 1,
                Verdict::Failed => failures += 1,
                Verdict::Neither => {}
            }
            let transition = circuit.report(now, spread, ticket, verdict);
            let after = circuit.state();
            prop_assert_eq!(transition.is_some(), before != after, "each transition is told once");
            match (before, after) {
                (CircuitState::Closed, CircuitState::Closed) => {}
                (CircuitState::Closed, _) => {
                    prop_assert_eq!(verdict, Verdict::Failed);
                    prop_assert!(failures >= 3);
                    goods = 0;
                    probing = None;
                }
                (_, CircuitState::Closed) => {
                    prop_assert_eq!((before, verdict), (CircuitState::HalfOpen, Verdict::Good));
                    prop_assert!(goods >= 3);
                    failures = 0;
                    probing = None;
                }
                (CircuitState::Open, _) => prop_assert!(after == before || verdict == Verdict::Good),
                (CircuitState::HalfOpen, _) => prop_assert!(after == before || verdict == Verdict::Failed),
            }
        }
    }

    /// Whatever happened, a primary that is well from now on is used again after a bounded time.
    #[test]
    fn after_any_history_a_healthy_primary_is_used_again(steps in steps()) {
        let mut bench = Bench::new();
        for (pause, _, verdict) in steps {
            bench.wait(pause);
            match bench.circuit.route(bench.now) {
                Route::Primary(ticket) | Route::Standby { probe: Some(ticket), .. } => bench.report(ticket, verdict),
                Route::Standby { .. } => {}
            }
        }
        let began = bench.now;
        bench.recover();
        let policy = CircuitPolicy::default();
        prop_assert!(bench.now - began <= (policy.rest_max + policy.rest * 3).mul_f64(1.3));
    }
}
