use super::group::Group;
use super::scaling::{Seen, Stabilized};
use super::*;
use crate::picture::Picture;
use proptest::prelude::*;

fn settings(peak: f64, partitions: usize, per_worker: f64) -> Settings {
    Settings {
        peak,
        partitions,
        per_worker,
        target: 0.7,
        start: 90.0,
        evaluate: 60.0,
        pause: 10.0,
        rebalance: Rebalance::Eager,
        seed: 1,
        worker_hour: 0.05,
    }
}

/// As the plan for a million events per second says, with fewer partitions, which is faster.
fn million() -> Settings {
    settings(1e6, 132, 44_000.0)
}

#[track_caller]
fn is_about(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found}, by hand {expected}");
}

/// One worker that processes 80 events/s gets 100/s for 10 s: 800 are processed, 200 wait. Then nothing arrives: they
/// take 200 / 80 = 2.5 s.
#[test]
fn lag_grows_and_drains_as_by_hand() {
    let mut group = Group::new(1, &settings(100.0, 1, 80.0));
    group.advance(0.0, 10.0, 100.0, 80.0);
    is_about(group.processed, 800.0);
    is_about(group.lag(), 200.0);
    group.advance(10.0, 12.0, 0.0, 80.0);
    is_about(group.lag(), 40.0);
    group.advance(12.0, 12.5, 0.0, 80.0);
    is_about(group.lag(), 0.0);
    is_about(group.busy, 12.5);
    group.advance(12.5, 20.0, 40.0, 80.0);
    // Half busy from then on.
    is_about(group.busy, 12.5 + 7.5 / 2.0);
}

/// A rebalance of 10 s at 100 events/s leaves 1,000 events. A worker that processes 150/s then takes 50/s more than
/// arrive, so it needs another 20 s.
#[test]
fn rebalance_costs_what_it_stops() {
    let settings = settings(100.0, 1, 150.0);
    let mut group = Group::new(1, &settings);
    is_about(group.resize(1, 0.0, &settings), 10.0);
    group.advance(0.0, 10.0, 100.0, 150.0);
    is_about(group.lag(), 1_000.0);
    is_about(group.busy, 0.0);
    group.advance(10.0, 20.0, 100.0, 150.0);
    is_about(group.lag(), 500.0);
    group.advance(20.0, 30.0, 100.0, 150.0);
    is_about(group.lag(), 0.0);
}

#[test]
fn cooperative_rebalance_stops_only_what_moves() {
    let settings = Settings { rebalance: Rebalance::Cooperative, ..settings(600.0, 6, 1e3) };
    let mut group = Group::new(2, &settings);
    group.resize(3, 0.0, &settings);
    group.advance(0.0, 1.0, 600.0, 1e3);
    // From three each to two each, two of six partitions move: a third of a second's events, as even as they are.
    assert!((170.0..230.0).contains(&group.lag()), "{}", group.lag());
    is_about(group.arrived, group.processed + group.lag());
}

/// With workers of 1,000 events/s that should be 70% busy, and a peak of 70,000: 100 for the peak, never below 10.
#[test]
fn rules_want_what_they_want_by_hand() {
    let settings = settings(70e3, 400, 1e3);
    let seen = |lag: f64, rate: f64, busy: f64| Seen { lag, rate, busy, workers: 50 };
    for (scaling, seen, wanted) in [
        (Scaling::Peak, seen(0.0, 7e3, 0.1), 100),
        // 28,000 / 700.
        (Scaling::Rate, seen(1e6, 28e3, 1.0), 40),
        // 50 * 1.0 / 0.7 = 71.4.
        (Scaling::Cpu, seen(1e6, 50e3, 1.0), 72),
        // Within a tenth of the target.
        (Scaling::Cpu, seen(0.0, 35e3, 0.75), 50),
        // 50 * 0.28 / 0.7.
        (Scaling::Cpu, seen(0.0, 14e3, 0.28), 20),
        // 1,000,000 / (10 s * 1,000).
        (Scaling::LagRatio, seen(1e6, 50e3, 1.0), 100),
        // Nothing waits, so it sees no need for any.
        (Scaling::LagRatio, seen(0.0, 50e3, 0.9), 10),
        // 1,000,000 events are 20 s of work of 50 workers: half as many more.
        (Scaling::LagSteps, seen(1e6, 50e3, 1.0), 75),
        (Scaling::LagSteps, seen(250e3, 50e3, 1.0), 50),
        (Scaling::LagSteps, seen(0.0, 50e3, 0.9), 45),
        (Scaling::LagUpCpuDown, seen(1e6, 50e3, 1.0), 75),
        (Scaling::LagUpCpuDown, seen(0.0, 50e3, 1.0), 50),
        (Scaling::LagUpCpuDown, seen(0.0, 14e3, 0.28), 20),
    ] {
        assert_eq!(scaling.wants(&seen, &settings), wanted, "{scaling:?} {seen:?}");
    }
}

#[test]
fn fewer_workers_only_after_five_minutes_of_wanting_no_more() {
    let mut stabilized = Stabilized::default();
    assert_eq!(stabilized.decide(0.0, 20, 20), 20);
    assert_eq!(stabilized.decide(60.0, 10, 20), 20);
    assert_eq!(stabilized.decide(299.0, 12, 20), 20);
    assert_eq!(stabilized.decide(300.0, 8, 20), 12);
    assert_eq!(stabilized.decide(360.0, 30, 12), 30);
}

#[test]
fn occasions_have_their_shapes() {
    for (occasion, minute, share) in [
        (Occasion::Surge, 0.0, 0.4),
        (Occasion::Surge, 37.5, 0.7),
        (Occasion::Surge, 60.0, 1.0),
        (Occasion::Surge, 120.0, 0.7),
        (Occasion::Surge, 200.0, 0.4),
        (Occasion::Release, 29.0, 0.3),
        (Occasion::Release, 30.0 + 10.0 / 60.0, 1.0),
        // 40 minutes later half of what is above 0.4 is left.
        (Occasion::Release, 70.0 + 10.0 / 60.0, 0.7),
        (Occasion::Evacuation, 29.0, 0.5),
        (Occasion::Evacuation, 30.5, 0.75),
        (Occasion::Evacuation, 31.0, 1.0),
        (Occasion::Evacuation, 90.5, 0.75),
        (Occasion::Evacuation, 92.0, 0.5),
    ] {
        is_about(occasion.share(minute * 60.0), share);
    }
}

/// One worker of 1,000 events/s, and a rate that doubles to 1,000/s in a minute. It can carry that, but for noise and
/// uneven partitions, and is to be 70% busy: so a second one is asked for, and its joining stops the group for 10 s, in
/// which 10,000 events arrive.
#[test]
fn one_rebalance_bounds_the_lag() {
    let settings = settings(1e3, 12, 1e3);
    let course = simulation::run(Occasion::Evacuation, Scaling::Rate, &settings);
    let peak = course.points.iter().map(|point| point.lag).fold(0.0, f64::max);
    assert!((9_000.0..13_000.0).contains(&peak), "{peak}");
    assert_eq!(course.rebalances, 2, "one more, and back");
}

#[test]
fn same_seed_same_course() {
    let run = |seed| simulation::run(Occasion::Release, Scaling::Cpu, &Settings { seed, ..million() });
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// A surge that was sent to the local pipeline, and what its reader had been found to take just before.
#[derive(serde::Deserialize)]
struct Measured {
    /// A backlog being worked off.
    calibration: Vec<[f64; 3]>,
    /// Records per second in each second of the surge.
    rates: Vec<f64>,
    /// Seconds, records that had arrived, records that had been committed.
    surge: Vec<[f64; 3]>,
}

impl Measured {
    /// Records per second of a reader that always has a full batch waiting.
    fn capacity(&self) -> f64 {
        let busy = || self.calibration.iter().filter(|[_, arrived, done]| *done > 0.0 && arrived - done > 600.0);
        let ([from, _, before], [to, _, after]) = (busy().next().unwrap(), busy().next_back().unwrap());
        (after - before) / (to - from)
    }
}

/// The greatest lag, and when it had shrunk to less than a batch for good.
fn peak_and_end(points: impl Iterator<Item = (f64, f64)> + Clone) -> [f64; 2] {
    let peak = points.clone().map(|(_, lag)| lag).fold(0.0, f64::max);
    let end = points.filter(|(_, lag)| *lag > 500.0).last().map_or(0.0, |(at, _)| at);
    [peak, end]
}

/// `infra/plan/data/local-surge.json` is from `infra/plan/measure/surge.py`. The local poller has one batch at a time,
/// of all partitions, so it is a group of one worker.
#[test]
fn simulation_comes_close_to_measured_surges() {
    let all: Vec<Measured> = serde_json::from_str(include_str!("../../data/local-surge.json")).unwrap();
    assert!(!all.is_empty());
    for measured in all {
        let per_worker = measured.capacity();
        let settings = settings(per_worker * 0.5, 4, per_worker);
        let course = simulation::play(measured.rates.clone(), Scaling::Peak, &settings);
        let found = peak_and_end(measured.surge.iter().map(|[at, arrived, done]| (*at, arrived - done)));
        let simulated = peak_and_end(course.points.iter().map(|point| (point.at, point.lag)));
        let off = [0, 1].map(|index| simulated[index] / found[index] - 1.0);
        println!(
            "{per_worker:.0} records/s; peak lag and end: measured {found:.0?}, simulated {simulated:.0?}, off {off:.3?}"
        );
        assert!(off.iter().all(|off| off.abs() < 0.25), "{off:?}");
    }
}

/// The talk's answer: "lag helps to scale up but not down; CPU or requests per second work".
#[test]
fn lag_scales_up_but_not_down_and_cpu_or_rate_do_both() {
    for seed in 1..=2 {
        for occasion in Occasion::ALL {
            let runs = simulate(occasion, &Settings { seed, ..million() });
            let of = |scaling| &runs.iter().find(|(result, _)| result.scaling == scaling).unwrap().0;
            for scaling in [Scaling::LagRatio, Scaling::LagSteps] {
                let lag = of(scaling);
                // Up: it ends with workers enough for the peak.
                assert!(lag.workers[1] >= million().workers_for(1e6 * 0.9), "{lag:?}");
                // Down: it finds how many are too few by having too few, again and again, under a steady load as well.
                assert!(lag.turns >= 6 && lag.late_before + lag.late_after > 2.0, "{lag:?}");
            }
            for scaling in [Scaling::Cpu, Scaling::Rate] {
                let good = of(scaling);
                assert!(good.turns <= 2 && good.late_before == 0.0 && good.late_after <= 1.5, "{good:?}");
                assert!(good.of_ideal < 1.2, "{good:?}");
            }
            // At a sharp step the rate says at once how many are needed; CPU cannot say more than "all of it".
            if occasion != Occasion::Surge {
                assert!(of(Scaling::Rate).late_during < of(Scaling::Cpu).late_during, "{occasion:?}");
            }
            assert_eq!(of(Scaling::Peak).late_during, 0.0);
            assert!(of(Scaling::Peak).worker_hours > of(Scaling::Rate).worker_hours * 1.3);
        }
    }
}

#[test]
fn every_picture_is_drawn_as_svg_and_png() {
    let folder = tempfile::tempdir().unwrap();
    let settings = million();
    let runs = simulate(Occasion::Evacuation, &settings);
    let demand = <super::tests::Line as clap::Parser>::parse_from(["plan"]).demand;
    let constants = Constants::committed().unwrap();
    let plans: Vec<_> = Approach::ALL.iter().map(|approach| size(&demand, *approach, &constants).unwrap()).collect();
    for picture in [Picture::Surge(Occasion::Evacuation, &settings, &runs), Picture::Dollars(&plans)] {
        let [svg, png] = picture.draw(folder.path()).unwrap();
        let text = std::fs::read_to_string(&svg).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("on CPU") || text.contains("the change feed"));
        assert!(text.len() < 100_000, "{} has {} bytes", svg.display(), text.len());
        assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    }
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    demand: Demand,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn events_are_conserved_and_lag_is_never_negative(
        seed in any::<u64>(),
        occasion in 0..3_usize,
        scaling in 0..6_usize,
        partitions in 1..60_usize,
        per_worker in 1e3..1e5_f64,
        is_eager in any::<bool>(),
    ) {
        let rebalance = if is_eager { Rebalance::Eager } else { Rebalance::Cooperative };
        let settings = Settings { seed, rebalance, ..settings(1e6, partitions, per_worker) };
        let course = simulation::run(Occasion::ALL[occasion], Scaling::ALL[scaling], &settings);
        let difference = course.arrived - course.processed - course.lag;
        prop_assert!(difference.abs() <= course.arrived * 1e-9, "{difference} of {}", course.arrived);
        for point in &course.points {
            prop_assert!(point.lag >= 0.0 && point.delay >= 0.0);
            prop_assert!((1..=partitions).contains(&point.workers));
        }
    }
}
