//! The circuit's rules one by one, and under random histories.

use super::*;
use proptest::prelude::*;

/// A circuit with its own clock.
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

    fn report(&mut self, ticket: Ticket, signal: Signal) {
        self.seen.extend(self.circuit.report(self.now, 0.5, ticket, signal));
    }

    fn append(&mut self, signal: Signal) {
        let Route::Primary(ticket) = self.circuit.route(self.now) else {
            panic!("the circuit is {}", self.circuit.state());
        };
        self.report(ticket, signal);
    }

    fn probe(&mut self) -> Option<Ticket> {
        match self.circuit.route(self.now) {
            Route::Primary(_) => None,
            Route::Standby { probe, .. } => probe,
        }
    }

    /// Advances time until a probe is due. Returns how long that took, and the ticket.
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
            self.append(Signal::Failed);
        }
        assert_eq!(self.circuit.state(), CircuitState::Open);
    }

    fn recover(&mut self) {
        while self.circuit.state() != CircuitState::Closed {
            let (_, ticket) = self.next_probe();
            self.report(ticket, Signal::Good);
        }
    }
}

#[test]
fn a_run_of_failures_opens_it_unless_a_good_append_breaks_it() {
    let mut bench = Bench::new();
    for signal in [Signal::Failed, Signal::Failed, Signal::Good, Signal::Failed, Signal::Failed] {
        bench.append(signal);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Closed);
    bench.append(Signal::Failed);
    let expected = Transition { from: CircuitState::Closed, to: CircuitState::Open, trigger: Trigger::Run(3) };
    assert_eq!(bench.seen, [expected]);
}

#[test]
fn a_share_of_failures_in_the_window_opens_it() {
    let alternate = |pause_ms| {
        let mut bench = Bench::new();
        for n in 0..40 {
            if bench.circuit.state() == CircuitState::Closed {
                bench.append(if n % 2 == 0 { Signal::Good } else { Signal::Failed });
                bench.wait(pause_ms);
            }
        }
        bench.seen
    };
    assert!(matches!(alternate(100)[..], [Transition { trigger: Trigger::Share(5, 10), .. }]));
    assert!(alternate(2_000).is_empty(), "only five of them are in ten seconds");
}

#[test]
fn throttling_is_not_an_outage() {
    let mut bench = Bench::new();
    for _ in 0..1_000 {
        bench.append(Signal::Neither);
        bench.wait(10);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Closed);
    assert!(bench.seen.is_empty());
}

#[test]
fn probes_come_one_at_a_time_at_growing_intervals() {
    let mut bench = Bench::new();
    bench.trip();
    assert_eq!(bench.probe(), None, "not immediately");
    let mut waits = Vec::new();
    for _ in 0..7 {
        let (waited, ticket) = bench.next_probe();
        waits.push(waited.as_secs_f64().round() as u64);
        assert_eq!(bench.probe(), None, "one at a time");
        bench.report(ticket, Signal::Failed);
    }
    assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
}

#[test]
fn only_good_probes_in_a_row_close_it() {
    let mut bench = Bench::new();
    bench.trip();
    for signal in [Signal::Good, Signal::Good, Signal::Failed, Signal::Good, Signal::Good, Signal::Good] {
        let (_, ticket) = bench.next_probe();
        bench.report(ticket, signal);
    }
    let states: Vec<_> = bench.seen.iter().map(|transition| transition.to).collect();
    let expected =
        [CircuitState::Open, CircuitState::HalfOpen, CircuitState::Open, CircuitState::HalfOpen, CircuitState::Closed];
    assert_eq!(states, expected);
}

#[test]
fn a_throttled_probe_changes_neither_state_nor_interval() {
    let mut bench = Bench::new();
    bench.trip();
    for _ in 0..5 {
        let (waited, ticket) = bench.next_probe();
        assert!(waited <= Duration::from_millis(1_300));
        bench.report(ticket, Signal::Neither);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Open);
}

#[test]
fn reopening_soon_doubles_the_rest_up_to_a_maximum() {
    let mut bench = Bench::new();
    let mut rests = Vec::new();
    for _ in 0..10 {
        bench.trip();
        rests.push(bench.circuit.rest.as_secs());
        let (waited, ticket) = bench.next_probe();
        assert!(waited.as_secs_f64() >= 0.75 * bench.circuit.rest.as_secs_f64());
        bench.report(ticket, Signal::Good);
        bench.recover();
    }
    assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]);
    bench.wait(601_000);
    bench.trip();
    assert_eq!(bench.circuit.rest.as_secs(), 1);
}

#[test]
fn a_probe_interrupted_by_freezing_does_not_count() {
    let mut bench = Bench::new();
    bench.trip();
    let (_, frozen) = bench.next_probe();
    bench.wait(20 * 60 * 1000);
    // the frozen probe's reports are ignored, before and after a new probe begins
    let before = bench.seen.len();
    bench.report(frozen, Signal::Failed);
    let again = bench.probe().expect("a probe is due");
    bench.report(frozen, Signal::Good);
    assert_eq!((bench.seen.len(), bench.circuit.state()), (before, CircuitState::Open));
    bench.report(again, Signal::Good);
    assert_eq!(bench.circuit.state(), CircuitState::HalfOpen);
}

#[test]
fn a_probe_that_never_reports_does_not_block_the_next() {
    let mut bench = Bench::new();
    bench.trip();
    bench.next_probe();
    let (waited, _) = bench.next_probe();
    assert!(waited > CircuitPolicy::default().probe_timeout);
}

#[test]
fn late_reports_from_before_the_opening_change_nothing() {
    let mut bench = Bench::new();
    let Route::Primary(late) = bench.circuit.route(bench.now) else { panic!("it is closed") };
    bench.trip();
    bench.report(late, Signal::Good);
    assert_eq!(bench.circuit.state(), CircuitState::Open);
    bench.recover();
    for _ in 0..5 {
        bench.report(late, Signal::Failed);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Closed);
}

#[test]
fn good_last_resorts_close_it_too() {
    let mut bench = Bench::new();
    bench.trip();
    for _ in 0..3 {
        let Route::Standby { last_resort, .. } = bench.circuit.route(bench.now) else { panic!("it is open") };
        bench.report(last_resort, Signal::Good);
    }
    assert_eq!(bench.circuit.state(), CircuitState::Closed);
}

/// The steps of a random history: wait some milliseconds, route an append, then let the append in
/// progress with this index end with this result.
fn steps() -> impl Strategy<Value = Vec<(u64, usize, Signal)>> {
    let signal = prop_oneof![3 => Just(Signal::Good), 3 => Just(Signal::Failed), 1 => Just(Signal::Neither)];
    let pause = prop_oneof![6 => 0..200u64, 3 => 200..5_000u64, 1 => 5_000..1_000_000u64];
    prop::collection::vec((pause, 0..8usize, signal), 1..400)
}

proptest! {
    #[test]
    fn any_history_keeps_the_rules_of_the_circuit(
        steps in steps(),
        spread in 0.0..1.0f64,
    ) {
        let mut circuit = Circuit::new(CircuitPolicy::default());
        let mut now = Instant::now();
        let mut under_way: Vec<Ticket> = Vec::new();
        let mut probing: Option<(Instant, Ticket)> = None;
        let (mut failures, mut goods) = (0, 0);
        for (pause, which, signal) in steps {
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
                            prop_assert!(until < now, "two probes at once");
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
            match signal {
                Signal::Good => goods += 1,
                Signal::Failed => failures += 1,
                Signal::Neither => {}
            }
            let transition = circuit.report(now, spread, ticket, signal);
            let after = circuit.state();
            prop_assert_eq!(transition.is_some(), before != after, "each transition is reported once");
            match (before, after) {
                (CircuitState::Closed, CircuitState::Closed) => {}
                (CircuitState::Closed, _) => {
                    prop_assert_eq!(signal, Signal::Failed);
                    prop_assert!(failures >= 3);
                    goods = 0;
                    probing = None;
                }
                (_, CircuitState::Closed) => {
                    prop_assert_eq!((before, signal), (CircuitState::HalfOpen, Signal::Good));
                    prop_assert!(goods >= 3);
                    failures = 0;
                    probing = None;
                }
                (CircuitState::Open, _) => prop_assert!(after == before || signal == Signal::Good),
                (CircuitState::HalfOpen, _) => prop_assert!(after == before || signal == Signal::Failed),
            }
        }
    }

    /// After any history, a primary that stays healthy is used again within a bounded time.
    #[test]
    fn after_any_history_a_healthy_primary_is_used_again(steps in steps()) {
        let mut bench = Bench::new();
        for (pause, _, signal) in steps {
            bench.wait(pause);
            match bench.circuit.route(bench.now) {
                Route::Primary(ticket) | Route::Standby { probe: Some(ticket), .. } => bench.report(ticket, signal),
                Route::Standby { .. } => {}
            }
        }
        let began = bench.now;
        bench.recover();
        let policy = CircuitPolicy::default();
        prop_assert!(bench.now - began <= (policy.rest_max + policy.rest * 3).mul_f64(1.3));
    }
}
