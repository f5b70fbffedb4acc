use super::*;
use clap::Parser as _;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    demand: Demand,
}

fn demand(line: &str) -> Demand {
    Line::try_parse_from(format!("plan {line}").split_whitespace()).unwrap_or_else(|error| panic!("{error}")).demand
}

fn planned(line: &str, approach: Approach) -> Sized {
    size(&demand(line), approach, &Constants::committed().unwrap()).unwrap()
}

#[track_caller]
fn check(plan: &Sized, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        let found = plan.value(name);
        assert!((found - value).abs() <= value.abs() * 1e-4, "{name}: {found}, by hand {value}");
    }
}

/// A million events per second, two in a POST, computed by hand:
///
/// - 1,000,000 / 2 = 500,000 POSTs/s.
/// - A POST has a batch header of 61 B, a record of 43 B, an envelope of 120 B and two events of 20 B: 264 B, 132 B per
///   event, 132 MB/s.
/// - 1,000,000 / 2,500 = 400 partitions. One gets 1,250 records/s, more than a batch of 500 in its window of 1 s.
/// - A batch has 1,000 events and 500 writes. A view takes (17.8 - 5.0) / (1/1.5 - 1/12) = 21.943 µs of CPU, an event
///   5.0 - 21.943 / 12 = 3.171 µs: 3.171 ms + 10.971 ms = 14.143 ms, on 1,024 / 1,769 = 0.57886 vCPUs 24.432 ms. With
///   10 ms and two rounds of 5 ms: 44.432 ms. 1,000 batches/s are 44.432 at once.
/// - 132 / 5 = 26.4, so 27 pollers; 27 / 10 = 2.7 and 132 / 20 = 6.6, so 7 units.
/// - 132 MB/s * 1.5 / 15.6 = 12.7 of the smallest brokers; a multiple of three is 15. Of the next size it would be 9,
///   which cost as much as 18.
/// - 0.5 writes per event, and 1/57 for the index: 517,544 write units/s.
/// - ingest: 231 + (1,496 - 231) / 499 = 233.54 µs, on 512 / 1,769 = 0.28943 vCPUs 0.80689 ms, with 10 ms for the
///   append 10.807 ms: 5,404 at once, but for the quota 500,000 / 10 = 50,000 count.
#[test]
fn capacity_is_what_it_is_by_hand() {
    let plan = planned("--rate 1M/s --events-per-post 2", Approach::Playhead);
    check(
        &plan,
        &[
            ("POSTs", 500_000.0),
            ("bytes per event", 132.0),
            ("MB into the log", 132.0),
            ("partitions", 400.0),
            ("records in a batch", 500.0),
            ("CPU of a view", 21.942_857),
            ("CPU of an event", 3.171_429),
            ("duration of a batch", 44.432_4),
            ("invocations of process at once", 44.432_4),
            ("event pollers", 27.0),
            ("event poller units", 7.0),
            ("brokers", 15.0),
            ("size of a broker", 1.0),
            ("write units", 517_543.86),
            ("read units", 250_000.0),
            ("duration of a POST", 10.806_89),
            ("environments of ingest", 5_404.0),
            ("concurrency that the quota counts", 50_000.0),
        ],
    );
}

/// The same in dollars, in a month of 730 h = 2,628,000 s with 2.628e12 events and 1.314e12 POSTs:
///
/// - API: 1.314e12 * $0.90/M = $1,182,600.
/// - Writes: 2.628e12 * (0.5 + 1/57) * $0.625/M = $850,065.79; reads: 2.628e12 * 0.25 * $0.125/M = $82,125.
/// - Provisioned: 517,543.86 / 0.7 * $0.00065 * 730 h + 250,000 / 0.7 * $0.00013 * 730 h = $350,821.5 + $33,892.9.
/// - Log: 15 brokers * $0.408 * 730 h = $4,467.60; 346,896 GB * $0.01 = $3,468.96; a week of it on disk,
///   346,896 * 7 / 30.41667 = 79,833.6 GB * $0.10 = $7,983.36. Together $15,919.92.
/// - Pollers: 7 * $0.185 * 730 h = $945.35.
/// - Views: 2.628e12 / 57 * 12 = 5.5326e11 in a year, of 320 + 110 + 2 * 100 B: 348,556 GB * $0.45 = $156,850.1.
/// - Feed: 1.314e12 changes of 1,082 B, billed as 2,048 B: 2,691,072 GB * $0.12 = $322,928.64; six days of them on the
///   stream: 2,691,072 * 6 / 30.41667 = 530,841.6 GB * $0.10 = $53,084.16. Invocations: 2.628e9 * $0.20/M = $525.60, and
///   their time: 2.628e9 * 0.1 s * 0.5 GB = 1.314e8 GB-s, at the mean price of a GB-second.
#[test]
fn dollars_are_what_they_are_by_hand() {
    let plan = planned("--rate 1M/s --events-per-post 2", Approach::Playhead);
    check(
        &plan,
        &[
            ("the API", 1_182_600.0),
            ("the store, on demand", 850_065.79 + 82_125.0),
            ("the store, provisioned", 350_821.5 + 33_892.9),
            ("the log", 15_919.92),
            ("pollers", 945.35),
            ("storage", 156_850.1),
            ("the change feed", 322_928.64 + 53_084.16 + 525.6 + 1.314e8 * plan.value("mean price of a GB-second")),
        ],
    );
    // ingest: 1.314e12 POSTs of 11 ms and 0.5 GB are 7.227e9 GB-s, process: 2.628e9 batches of 45 ms and 1 GB are
    // 1.1826e8. The first 6e9 at $16.6667/M, the other 1.34526e9 at $15: $120,179.1 for 7.34526e9 GB-s.
    // On Fargate: 14.143 µs per event are 14.143 vCPUs, 70% busy 20.2, so 21 tasks of a vCPU and 2 GB:
    // 21 * ($0.04048 + 2 * $0.004445) * 730 h. On Flink one more: 22 * $0.11 * 730 h.
    check(&plan, &[("tasks of Fargate, a month", 756.84), ("KPUs of Flink, a month", 1_766.60)]);
    check(&plan, &[("GB-seconds", 7.345_26e9), ("mean price of a GB-second", 120_179.1 / 7.345_26e9)]);
    let [on_demand, provisioned] = plan.total();
    let difference = plan.value("the store, on demand") - plan.value("the store, provisioned");
    assert!((on_demand - provisioned - difference).abs() < 1.0);
}

/// 60 TB of log lines: 10 * $500 + 20 * $250 + 20 * $100 + 10 * $50 = $12,500, which is what the source of the tiers
/// says. A POST logs 604 + 315 = 919 B, so that 919 B * n = 60e12 B.
#[test]
fn log_lines_are_paid_for_in_tiers() {
    let posts_per_second = 60e12 / 919.0 / 2_628_000.0;
    let line = format!("--rate {posts_per_second} --events-per-post 1 --partitions 1");
    let plan = planned(&line, Approach::Playhead);
    // The lines of process come on top, at the last price.
    let more = plan.value("GB of log lines") - 60_000.0;
    check(&plan, &[("log lines", 12_500.0 + more * 0.05)]);
}

#[test]
fn today_is_planned_by_writes_per_event() {
    let one = planned("--rate 100k/s", Approach::WritePerEvent);
    let two = planned("--rate 100k/s", Approach::TwoWritesPerEvent);
    // 61 / 1.12 + 43 + 330 B on the log, and nothing is read.
    check(&one, &[("bytes per event", 427.464), ("writes per event", 1.0)]);
    check(&two, &[("writes per event", 2.0)]);
    assert_eq!(one.value("read units"), 0.0);
    assert!(two.total()[0] > one.total()[0]);
}

#[test]
fn evacuated_region_is_carried_by_the_others() {
    let plan = planned("--rate 900k/s --regions 3 --no-change-feed", Approach::Playhead);
    check(&plan, &[("events", 450_000.0), ("mean events", 900_000.0)]);
    let alone = planned("--rate 900k/s", Approach::Playhead);
    check(&plan, &[("the store, on demand", 3.0 * writes(&alone) + reads(&alone))]);
    // Each replica's capacity is for the writes of all.
    check(&plan, &[("write capacity of a replica", alone.value("write units") / 0.7)]);
}

/// Each region's feed tells of all changes, and `publish` there reads what other regions have of each changed session.
/// 300,000 events/s, two in a POST, in three regions:
///
/// - 150,000 changes/s in each, though 150,000 events/s make only 75,000 of them there in an evacuation.
/// - `publish` takes 100 ms, and for 500 sessions, 8 at a time, 63 rounds of 5 ms: 415 ms. 300 batches/s are 124.5 at
///   once. Without other regions they are 300 * 0.1 = 30.
/// - Reads: 150,000 * 0.25 of folding, and a unit for each of 150,000 changes: 187,500/s.
/// - A month has 7.884e11 events and 3.942e11 changes. Store: 7.884e11 * (0.5 + 1/57) * 3 * $0.625/M = $765,059.21, reads
///   of folding 7.884e11 * 0.25 * $0.125/M = $24,637.50, of joining 3.942e11 * 3 * $0.125/M = $147,825.
/// - Feeds: 1.1826e12 changes billed as 2,048 B are 2,421,964.8 GB * $0.12 = $290,635.78; kept for six days 2,421,964.8 *
///   6 / 30.41667 * $0.10 = $47,775.74. 2.3652e9 invocations * $0.20/M = $473.04, of 0.415 s and 0.5 GB: 4.90779e8 GB-s.
#[test]
fn each_region_publishes_all_changes() {
    let plan = planned("--rate 300k/s --events-per-post 2 --regions 3", Approach::Playhead);
    check(
        &plan,
        &[
            ("changes", 150_000.0),
            ("duration of publish", 415.0),
            ("invocations of publish at once", 125.0),
            ("read units", 187_500.0),
            ("the store, on demand", 765_059.21 + 24_637.5 + 147_825.0),
            ("the change feed", 290_635.78 + 47_775.74 + 473.04 + 4.907_79e8 * plan.value("mean price of a GB-second")),
        ],
    );
    let alone = planned("--rate 300k/s --events-per-post 2", Approach::Playhead);
    check(&alone, &[("changes", 150_000.0), ("invocations of publish at once", 30.0), ("read units", 75_000.0)]);
    let silent = planned("--rate 300k/s --events-per-post 2 --regions 3 --no-change-feed", Approach::Playhead);
    check(&silent, &[("read units", 37_500.0)]);
    // A consumer that writes each event has no parts to join.
    let plain = planned("--rate 300k/s --events-per-post 2 --regions 3", Approach::TwoWritesPerEvent);
    check(&plain, &[("changes", 300_000.0), ("invocations of publish at once", 60.0)]);
}

/// 300,000 * (1 / 1.12 + 1 / 57) = 273,120.3 write units/s in each of three replicas. A table takes 40,000:
/// 300,000 * 40,000 / 273,120.3 = 43,936.7. A new one takes a tenth of that.
#[test]
fn each_replica_of_a_table_takes_all_writes() {
    let plan = planned("--rate 300k/s --regions 3", Approach::Playhead);
    check(&plan, &[("write units", 273_120.3), ("write capacity of a replica", 390_171.9)]);
    check_bound(&plan, "write units per second of the table", 273_120.3, 43_936.7);
    check_bound(&plan, "write units per second of a new table", 273_120.3, 4_393.67);
}

/// In three regions, one of them evacuated, 150,000 / 1.12 / 2 = 66,964.3 reads/s of folding and 300,000 / 1.12 =
/// 267,857.1 of joining are 334,821.4: a table's 40,000 are reached at 300,000 * 40,000 / 334,821.4 = 35,840 events/s,
/// before its writes are. A new table takes 12,000.
#[test]
fn reads_have_their_limits_too() {
    let plan = planned("--rate 300k/s --regions 3", Approach::Playhead);
    check_bound(&plan, "read units per second of the table", 334_821.4, 35_840.0);
    check_bound(&plan, "read units per second of a new table", 334_821.4, 10_752.0);
    let alone = planned("--rate 1M/s", Approach::Playhead);
    check_bound(&alone, "read units per second of the table", 446_428.6, 89_600.0);
}

/// 1,000,000 / 1.12 = 892,857 changes/s of 1,082 B are 966.07 MB/s. A new stream takes 4 MB/s: 1,000,000 * 4 / 966.07 =
/// 4,140.5 events/s, before a new table ends at 4,394. In three regions each feed has all of it.
#[test]
fn new_change_feed_ends_before_a_new_table() {
    for line in ["--rate 1M/s", "--rate 1M/s --regions 3", "--rate 1M/s --log kinesis-provisioned"] {
        let plan = planned(line, Approach::Playhead);
        check_bound(&plan, "MB/s into a new change feed", 966.071, 4_140.48);
        assert_eq!(plan.bounds[0].name, "MB/s into a new change feed", "{line}");
    }
    let silent = planned("--rate 1M/s --no-change-feed", Approach::Playhead);
    assert!(silent.bounds.iter().all(|bound| !bound.name.contains("change feed")), "{:?}", silent.bounds);
}

#[track_caller]
fn check_bound(plan: &Sized, name: &str, needed: f64, reached_at: f64) {
    let bound = plan.bounds.iter().find(|bound| bound.name == name).unwrap();
    for (found, value) in [(bound.needed, needed), (bound.reached_at, reached_at)] {
        assert!((found - value).abs() <= value * 1e-4, "{bound:?}, by hand {value}");
    }
}

fn writes(plan: &Sized) -> f64 {
    plan.value("events a month") * plan.value("write units per event") * 0.625e-6
}

fn reads(plan: &Sized) -> f64 {
    plan.value("events a month") * plan.value("read units per event") * 0.125e-6
}

#[test]
fn managed_instances_share_environments_and_connections() {
    let [own, shared] = ["", "--ingest managed-instances"].map(|line| planned(line, Approach::Playhead));
    let connections = |plan: &Sized| plan.bounds.iter().find(|bound| bound.name.starts_with("IAM")).unwrap().needed;
    assert!(connections(&own) > 3_000.0 && connections(&shared) < 3_000.0);
    // 892,857 POSTs/s * (125 + 0.12 * 2.535) µs / 0.7 / 4 vCPUs = 39.95.
    check(&shared, &[("instances", 40.0)]);
    let ingest = |plan: &Sized| plan.dollars.iter().find(|part| part.part == "ingest").unwrap().on_demand;
    assert!(ingest(&shared) < ingest(&own));
}

#[test]
fn first_limit_is_where_need_meets_it() {
    let plan = planned("--rate 1M/s", Approach::Playhead);
    assert!(plan.bounds.is_sorted_by(|one, two| one.reached_at <= two.reached_at));
    let api = plan.bounds.iter().find(|bound| bound.name.starts_with("requests")).unwrap();
    // 10,000 requests/s of 1.12 events.
    assert!((api.reached_at - 11_200.0).abs() < 1.0, "{api:?}");
    let at = planned(&format!("--rate {}", api.reached_at), Approach::Playhead);
    check(&at, &[("POSTs", 10_000.0)]);
}

/// All combinations of what can be chosen.
fn choices() -> Vec<String> {
    let logs = ["msk-express", "msk-standard", "msk-serverless", "kinesis-provisioned", "kinesis-on-demand"];
    let rest = ["", "--regions 3 --ingest managed-instances --arch arm64", "--regions 3 --no-change-feed"];
    logs.iter().flat_map(|log| rest.iter().map(move |rest| format!("--log {log} {rest}"))).collect()
}

#[test]
fn every_choice_has_its_constants_and_names_are_unique() {
    for line in choices() {
        for approach in Approach::ALL {
            let plan = planned(&line, approach);
            let mut names = BTreeSet::new();
            let twice: Vec<&str> =
                plan.lines.iter().map(|line| line.name.as_str()).filter(|name| !names.insert(*name)).collect();
            assert!(twice.is_empty(), "{line}: {twice:?}");
            assert!(
                plan.lines.iter().all(|line| line.value.is_finite() && line.value >= 0.0),
                "{line}: {:#?}",
                plan.lines
            );
            assert!(plan.dollars.iter().all(|part| part.on_demand > 0.0), "{line}: {:?}", plan.dollars);
        }
    }
}

#[test]
fn every_constant_has_a_source_and_a_date_and_is_used() {
    let constants = Constants::committed().unwrap();
    let mut used = BTreeSet::new();
    for line in choices() {
        for approach in Approach::ALL {
            used.extend(planned(&line, approach).constants.into_keys());
        }
    }
    for (key, constant) in constants.iter() {
        assert!(!constant.name.is_empty() && !constant.source.is_empty(), "{key}");
        assert!(constant.read.len() == 10 && constant.read.starts_with("20"), "{key}: {}", constant.read);
        assert!(used.contains(key), "{key} is in no plan");
    }
}

#[test]
fn bench_replaces_what_it_measured() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let spread = serde_json::json!({ "median": 9.0, "least": 8.0, "greatest": 10.0 });
    let row = |scenario, program, figure: &str| serde_json::json!({ "scenario": scenario, "program": program, "figures": { figure: spread } });
    let rows = [
        row("fold 1.5, 500 records", "process", "cpu_us_per_event"),
        row("POST of 1 event", "ingest", "cpu_us_per_invocation"),
    ];
    std::fs::write(file.path(), serde_json::json!({ "rows": rows, "targets": [] }).to_string()).unwrap();
    let mut constants = Constants::committed().unwrap();
    constants.measured_by(file.path()).unwrap();
    assert_eq!(constants.get("process.cpu_at_fold_1_5").unwrap().value, 9.0);
    assert_eq!(constants.get("ingest.cpu_of_1").unwrap().value, 9.0);
    assert_eq!(constants.get("process.cpu_at_fold_12").unwrap().value, 5.0);
    std::fs::write(file.path(), "{}").unwrap();
    assert!(constants.measured_by(file.path()).unwrap_err().to_string().contains("has no row"));
}

#[test]
fn what_cannot_be_is_refused() {
    for line in [
        "--rate 0",
        "--rate fast",
        "--events-per-post 0.5",
        "--regions 0",
        "--away 200%",
        "--history never",
        "--log paper",
    ] {
        assert!(Line::try_parse_from(format!("plan {line}").split_whitespace()).is_err(), "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn more_rate_never_costs_less(
        rate in 1.0..3e6_f64,
        factor in 1.0..10.0_f64,
        events in 1.0..50.0_f64,
        choice in 0..15_usize,
    ) {
        let line = |rate: f64| format!("--rate {rate} --events-per-post {events} {}", choices()[choice]);
        for approach in Approach::ALL {
            let [less, more] = [rate, rate * factor].map(|rate| planned(&line(rate), approach));
            for (less, more) in less.dollars.iter().zip(&more.dollars) {
                prop_assert!(more.on_demand >= less.on_demand * (1.0 - 1e-9), "{less:?} {more:?}");
                prop_assert!(more.provisioned >= less.provisioned * (1.0 - 1e-9), "{less:?} {more:?}");
            }
        }
    }

    #[test]
    fn more_events_in_a_post_never_cost_more(rate in 1e3..3e6_f64, events in 1.0..50.0_f64, factor in 1.0..10.0_f64) {
        let line = |events: f64| format!("--rate {rate} --events-per-post {events}");
        let [less, more] = [events, events * factor].map(|events| planned(&line(events), Approach::Playhead));
        prop_assert!(more.total()[0] <= less.total()[0] * (1.0 + 1e-9));
        prop_assert!(more.value("write units") <= less.value("write units"));
    }
}
