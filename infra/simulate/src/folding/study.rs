//! The study itself: which settings are compared, and what is printed of each.

use super::habit::{Audience, Habit, Sends};
use super::pickup::{Counted, KeyedBy, LogKind, Pickup, catch_up, read};
use crate::{Stream, rng};
use std::fmt::{self, Write as _};
use std::ops::Range;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
/// Events a day at a million per second.
const EVENTS_PER_DAY: f64 = 86.4e9;
/// List prices of us-east-1, dollars: a request of an HTTP API (above 300 million a month), a write
/// unit on demand, an invocation, and a second of it with 1,024 MB on x86.
const REQUEST: f64 = 0.9e-6;
const WRITE_UNIT: f64 = 0.625e-6;
const INVOCATION: f64 = 0.2e-6;
const SECOND_OF_INVOCATION: f64 = 16.6667e-6;

/// Partitions of the topic in `docs/deploy.md`'s example.
const PARTITIONS: usize = 96;
/// What the template sets.
pub(super) const DEFAULT: Pickup =
    Pickup { log: LogKind::Kafka, keyed_by: KeyedBy::Session, lanes: 1, window: SECOND, batch_size: 500 };
/// The most that Lambda takes.
const LARGEST: usize = 10_000;

/// The defaults of `sdk/web`.
const SDK: Habit = every(30, 10);
/// The simulator's viewers.
const SIMULATED: Habit = Habit { progress_every: 10 * SECOND, sends: Sends::Drawn };

/// Progress and sending every so many seconds.
const fn every(progress: i64, send: i64) -> Habit {
    Habit { progress_every: progress * SECOND, sends: Sends::Every(send * SECOND) }
}

/// Who sends how much to the lanes that are simulated.
#[derive(Debug, Clone, Copy)]
struct Viewership {
    habit: Habit,
    members: usize,
    seed: u64,
}

impl Viewership {
    /// As many members as send so many events per second.
    fn of(habit: Habit, events_per_second: f64, seed: u64) -> Self {
        let members = (events_per_second / Audience::events_per_second(habit, seed)).round() as usize;
        Self { habit, members: members.max(1), seed }
    }

    fn audience(&self) -> Audience {
        Audience::new(self.habit, self.members, self.seed)
    }

    fn read(&self, pickup: &Pickup, span: Range<i64>) -> Counted {
        read(self.audience(), pickup, span, &mut rng(self.seed, Stream::Folding))
    }
}

/// What makes each table of the study, as Markdown, from a seed.
pub(super) const TABLES: [fn(u64) -> Result<String, fmt::Error>; 6] = [windows, players, rates, outages, keys, shards];

/// 10,000 events per second over the partitions, with batches as large as Lambda allows, so that
/// the window closes them.
fn windows(seed: u64) -> Result<String, fmt::Error> {
    let mut out = heading(
        "The window: what it adds, what Lambda costs with it, and events per write by what the player does \
         (progress/send, s)",
        &[
            "window, s",
            "added, s",
            "batches/s of 10,000 events/s",
            "Lambda",
            "30/10 (`sdk/web`)",
            "30/60",
            "30/120",
            "simulated viewers",
        ],
    )?;
    let habits = [SDK, every(30, 60), every(30, 120), SIMULATED];
    let loads = habits.map(|habit| Viewership::of(habit, 10_000.0 / PARTITIONS as f64, seed));
    for window in [0, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 300_000] {
        let pickup = Pickup { window, batch_size: LARGEST, ..DEFAULT };
        let span = 200 * SECOND..200 * SECOND + (6 * window).max(400 * SECOND);
        let counted = loads.map(|load| load.read(&pickup, span.clone()));
        let sdk = &counted[0];
        let (added, lambda) = (p50_and_p99(&sdk.added), lambda_dollars(sdk));
        let batches = thousands(per_second(sdk, &span) * PARTITIONS as f64);
        write!(out, "| {} | {added} | {batches} | {lambda} |", window as f64 / 1e3)?;
        for counted in &counted {
            write!(out, " {:.2} = {} |", counted.fold(), write_dollars(counted))?;
        }
        out.push('\n');
    }
    Ok(out)
}

/// What players do, with the template's settings.
fn players(seed: u64) -> Result<String, fmt::Error> {
    let mut out = heading(
        "The player, with the template's settings",
        &[
            "progress/send, s",
            "events per POST",
            "events per write",
            "writes per event",
            "write units a day",
            "store",
            "API",
            "writes per hour watched",
            "pause or stop readable after, s",
            "other events, s",
        ],
    )?;
    let sdk = [(10, 10), (10, 60), (10, 120), (30, 10), (30, 30), (30, 60), (30, 120), (30, 300), (60, 10), (60, 120)];
    let sdk = sdk.map(|(progress, send)| (format!("{progress}/{send}"), every(progress, send)));
    for (name, habit) in sdk.into_iter().chain([("simulated viewers".to_owned(), SIMULATED)]) {
        let load = Viewership::of(habit, 10_000.0 / PARTITIONS as f64, seed);
        let span = 400 * SECOND..1_400 * SECOND;
        let hours = load.members as f64 * seconds(&span) / 3_600.0;
        let counted = load.read(&DEFAULT, span);
        let per_event = 1.0 / counted.fold();
        let figures = [
            format!("{:.2}", counted.events as f64 / counted.records as f64),
            format!("{:.2}", counted.fold()),
            format!("{per_event:.3}"),
            format!("{:.1} billion", per_event * EVENTS_PER_DAY / 1e9),
            write_dollars(&counted),
            post_dollars(&counted),
            format!("{:.0}", counted.writes as f64 / hours),
            p50_and_p99(&counted.ended),
            p50_and_p99(&counted.played),
        ];
        writeln!(out, "| {name} | {} |", figures.join(" | "))?;
    }
    Ok(out)
}

/// How full batches are, and whether a partition keeps up, with the player library's defaults.
fn rates(seed: u64) -> Result<String, fmt::Error> {
    let mut out = heading(
        "The rate and the batch size, with the player library's defaults",
        &[
            "events/s",
            "partitions",
            "batch size",
            "records in a batch",
            "batches/s",
            "a partition is busy",
            "added, s",
            "events per write",
        ],
    )?;
    for (rate, partitions) in [(10_000, 96), (100_000, 96), (1_000_000, 96), (1_000_000, 400)] {
        let load = Viewership::of(SDK, f64::from(rate) / f64::from(partitions), seed);
        for batch_size in [100, 500, 2_000, LARGEST] {
            let span = 30 * SECOND..if rate > 100_000 { 50 * SECOND } else { 180 * SECOND };
            let counted = load.read(&Pickup { batch_size, ..DEFAULT }, span.clone());
            let busy = busy(&counted, &span);
            let added = if busy < 0.99 { p50_and_p99(&counted.added) } else { "falls behind".to_owned() };
            writeln!(
                out,
                "| {} | {partitions} | {} | {} | {} | {:.0}% | {added} | {:.2} |",
                thousands(f64::from(rate)),
                thousands(batch_size as f64),
                thousands(counted.records as f64 / counted.batches as f64),
                thousands(per_second(&counted, &span) * f64::from(partitions)),
                (100.0 * busy).min(100.0),
                counted.fold(),
            )?;
        }
    }
    Ok(out)
}

/// Ten minutes of backlog.
fn outages(seed: u64) -> Result<String, fmt::Error> {
    let mut out = heading(
        "After ten minutes in which the log was not read: events per write, and how long it takes to catch up",
        &["events/s of a partition", "batch size 500", "2,000", "10,000"],
    )?;
    for rate in [1, 10, 100, 1_000] {
        let load = Viewership::of(SDK, f64::from(rate), seed);
        write!(out, "| {} |", thousands(f64::from(rate)))?;
        for batch_size in [500, 2_000, LARGEST] {
            let pickup = Pickup { batch_size, ..DEFAULT };
            let (counted, took) = catch_up(load.audience(), &pickup, 10 * MINUTE);
            write!(out, " {:.2}, {:.1} s |", counted.fold(), took as f64 / 1e3)?;
        }
        out.push('\n');
    }
    Ok(out)
}

/// 8 partitions of 25 events per second.
fn keys(seed: u64) -> Result<String, fmt::Error> {
    let mut out =
        heading("The key: events per write, over 8 partitions", &["window, s", "POST", "session", "profile", "none"])?;
    for (name, habit) in [("30/10", SDK), ("30/60", every(30, 60))] {
        let load = Viewership::of(habit, 8.0 * 25.0, seed);
        for window in [1, 60] {
            write!(out, "| {window} | {name} |")?;
            for keyed_by in [KeyedBy::Session, KeyedBy::Profile, KeyedBy::Nothing] {
                let pickup = Pickup { keyed_by, lanes: 8, window: window * SECOND, batch_size: LARGEST, ..DEFAULT };
                let span = 200 * SECOND..800 * SECOND;
                write!(out, " {:.2} |", load.read(&pickup, span).fold())?;
            }
            out.push('\n');
        }
    }
    Ok(out)
}

/// A shard that takes its 1,000 records per second, and one that takes a tenth of that.
fn shards(seed: u64) -> Result<String, fmt::Error> {
    let mut out = heading(
        "A Kinesis shard, with the player library's defaults",
        &[
            "events/s",
            "`ParallelizationFactor`",
            "records in a batch",
            "batches/s",
            "a part is busy",
            "added, s",
            "events per write",
        ],
    )?;
    for rate in [100, 1_000] {
        let load = Viewership::of(SDK, f64::from(rate), seed);
        for lanes in [1, 2, 4, 10] {
            let span = 30 * SECOND..180 * SECOND;
            let counted = load.read(&Pickup { log: LogKind::Kinesis, lanes, ..DEFAULT }, span.clone());
            let added = p50_and_p99(&counted.added);
            writeln!(
                out,
                "| {} | {lanes} | {:.0} | {:.1} | {:.0}% | {added} | {:.2} |",
                thousands(f64::from(rate)),
                counted.records as f64 / counted.batches as f64,
                per_second(&counted, &span),
                100.0 * busy(&counted, &span) / lanes as f64,
                counted.fold(),
            )?;
        }
    }
    Ok(out)
}

fn heading(title: &str, columns: &[&str]) -> Result<String, fmt::Error> {
    let mut out = format!("**{title}**\n\n");
    writeln!(out, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    Ok(out)
}

/// p50 and p99 in seconds.
fn p50_and_p99(ms: &[i64]) -> String {
    let mut sorted = ms.to_vec();
    sorted.sort_unstable();
    let percentile = |percent: usize| sorted.get(sorted.len().saturating_sub(1) * percent / 100);
    match (percentile(50), percentile(99)) {
        (Some(p50), Some(p99)) => format!("{:.1} / {:.1}", *p50 as f64 / 1e3, *p99 as f64 / 1e3),
        _ => "none".to_owned(),
    }
}

fn seconds(span: &Range<i64>) -> f64 {
    (span.end - span.start) as f64 / 1e3
}

/// Batches per second.
fn per_second(counted: &Counted, span: &Range<i64>) -> f64 {
    counted.batches as f64 / seconds(span)
}

/// Invocations at once, on average.
fn busy(counted: &Counted, span: &Range<i64>) -> f64 {
    counted.busy as f64 / 1e3 / seconds(span)
}

/// What the writes cost a day at a million events per second.
fn write_dollars(counted: &Counted) -> String {
    dollars(counted.writes as f64 * WRITE_UNIT, counted)
}

/// What the HTTP API's requests cost a day at a million events per second.
fn post_dollars(counted: &Counted) -> String {
    dollars(counted.records as f64 * REQUEST, counted)
}

/// What the invocations of `process` cost a day at a million events per second.
fn lambda_dollars(counted: &Counted) -> String {
    dollars(counted.batches as f64 * INVOCATION + counted.busy as f64 / 1e3 * SECOND_OF_INVOCATION, counted)
}

/// A cost of the counted events, as dollars a day at a million events per second, to the hundred.
fn dollars(cost: f64, counted: &Counted) -> String {
    let hundreds = (cost / counted.events as f64 * EVENTS_PER_DAY / 100.0).round();
    format!("${}", thousands(hundreds * 100.0))
}

/// A number without decimals, with commas.
pub(super) fn thousands(number: f64) -> String {
    let mut text = format!("{number:.0}");
    for at in (1..text.len()).rev().filter(|at| (text.len() - at) % 3 == 0).collect::<Vec<_>>() {
        text.insert(at, ',');
    }
    text
}
