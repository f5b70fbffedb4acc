//! One measured run of a function, and the figures that come of it.

use super::function::{Function, Program};
use super::proxy::{Counts, Proxy};
use crate::percentile::percentile_ms;
use anyhow::{Context as _, Result};
use axum::body::Bytes;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// A figure by its name in JSON, how a table shows it, and its decimals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) key: &'static str,
    pub(super) heading: [&'static str; 2],
    pub(super) decimals: usize,
}

const fn column(key: &'static str, heading: [&'static str; 2], decimals: usize) -> Column {
    Column { key, heading, decimals }
}

/// CPU of the function's process per event, microseconds.
pub(super) const CPU_PER_EVENT: &str = "cpu_us_per_event";
/// Requests to the store per event.
pub(super) const REQUESTS_PER_EVENT: &str = "requests_per_event";
/// Items written or tried to per session of a batch.
pub(super) const WRITES_PER_SESSION: &str = "writes_per_session";
/// The median time from handing an invocation out until its answer, milliseconds.
pub(super) const P50: &str = "p50_ms";
/// From the start of the process until it asks for its first invocation, milliseconds.
pub(super) const INIT: &str = "init_ms";
/// The greatest resident memory, MiB.
pub(super) const PEAK: &str = "peak_mib";

/// All figures, in the order of the table. A row has those that apply.
pub(super) const COLUMNS: [Column; 15] = [
    column(CPU_PER_EVENT, ["CPU µs", "/event"], 2),
    column("cpu_us_per_record", ["CPU µs", "/record"], 2),
    column("cpu_us_per_invocation", ["CPU µs", "/invoke"], 0),
    column(REQUESTS_PER_EVENT, ["requests", "/event"], 4),
    column("write_units_per_event", ["WCU", "/event"], 3),
    column(WRITES_PER_SESSION, ["writes", "/session"], 3),
    column("write_units_per_session", ["WCU", "/session"], 3),
    column("read_units_per_event", ["RCU", "/event"], 3),
    column("events_per_s", ["events", "/s"], 0),
    column(P50, ["p50", "ms"], 2),
    column("p99_ms", ["p99", "ms"], 2),
    column(INIT, ["init", "ms"], 1),
    column("first_invoke_ms", ["first", "ms"], 1),
    column(PEAK, ["peak", "MiB"], 1),
    column("binary_mib", ["binary", "MiB"], 1),
];

/// The figures of one run, by name.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// The invocations of a run.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// Invoked first and not measured, but for the first.
    pub(super) warm_up: &'a [Bytes],
    /// Measured.
    pub(super) measured: &'a [Bytes],
    /// How many at once.
    pub(super) in_flight: usize,
    /// Events in each measured one.
    pub(super) events_each: usize,
    /// Records in each measured one: on the log that is read, or written to.
    pub(super) records_each: usize,
    /// Sessions in each measured one.
    pub(super) sessions_each: usize,
    /// Looks at each answer.
    pub(super) check: fn(&[u8]) -> Result<()>,
}

/// Starts the program, does the work and measures it. `proxy` is where its calls of the store are
/// counted.
pub(super) async fn measure(program: &Program, work: &Work<'_>, proxy: Option<&Proxy>) -> Result<Figures> {
    let function = Function::start(program).await?;
    let (first, rest) = work.warm_up.split_first().context("there is nothing to warm up with")?;
    let first = function.drive(std::slice::from_ref(first), 1, work.check).await?;
    function.drive(rest, work.in_flight, work.check).await?;
    let mut figures = figures_of(&function, work, proxy).await?;
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    figures.insert(INIT, function.init.as_secs_f64() * 1e3);
    figures.insert("first_invoke_ms", percentile_ms(&first, 0.5));
    figures.insert(PEAK, mib(function.peak_memory()?));
    // A reference is no binary of its own.
    if program.arguments.is_empty() {
        figures.insert("binary_mib", mib(fs::metadata(&program.binary)?.len()));
    }
    Ok(figures)
}

/// Does the measured part of the work in a function that runs.
pub(super) async fn figures_of(function: &Function, work: &Work<'_>, proxy: Option<&Proxy>) -> Result<Figures> {
    proxy.map(Proxy::take);
    let (before, began) = (function.cpu()?, Instant::now());
    let times = function.drive(work.measured, work.in_flight, work.check).await?;
    let took = began.elapsed();
    let cpu = function.cpu()?.since(&before);

    let mut figures = rates(work, cpu, took, &times);
    if let Some(counts) = proxy.map(Proxy::take) {
        if counts.unreported > 0 {
            let of = counts.unreported;
            eprintln!("note: {of} writing requests reported no capacity; each write of them counts as one unit");
        }
        figures.extend(of_store(work, &counts));
    }
    Ok(figures)
}

fn rates(work: &Work<'_>, cpu: Duration, took: Duration, times: &[Duration]) -> Figures {
    let invocations = work.measured.len() as f64;
    let (events, records) = (invocations * work.events_each as f64, invocations * work.records_each as f64);
    let micros = cpu.as_secs_f64() * 1e6;
    BTreeMap::from([
        (CPU_PER_EVENT, micros / events),
        ("cpu_us_per_record", micros / records),
        ("cpu_us_per_invocation", micros / invocations),
        ("events_per_s", events / took.as_secs_f64()),
        (P50, percentile_ms(times, 0.5)),
        ("p99_ms", percentile_ms(times, 0.99)),
    ])
}

fn of_store(work: &Work<'_>, counts: &Counts) -> Figures {
    let invocations = work.measured.len() as f64;
    let (events, sessions) = (invocations * work.events_each as f64, invocations * work.sessions_each as f64);
    BTreeMap::from([
        (REQUESTS_PER_EVENT, counts.requests() as f64 / events),
        ("write_units_per_event", counts.write_units / events),
        ("write_units_per_session", counts.write_units / sessions),
        (WRITES_PER_SESSION, counts.write_statements as f64 / sessions),
        ("read_units_per_event", counts.read_units / events),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_event_record_and_session() {
        let measured = [Bytes::new(), Bytes::new()];
        let check = |_: &[u8]| Ok(());
        let work = Work {
            warm_up: &[],
            measured: &measured,
            in_flight: 1,
            events_each: 100,
            records_each: 50,
            sessions_each: 10,
            check,
        };
        let times = [Duration::from_millis(4), Duration::from_millis(6)];
        let figures = rates(&work, Duration::from_millis(2), Duration::from_secs(1), &times);
        assert_eq!((figures[CPU_PER_EVENT], figures["cpu_us_per_record"]), (10.0, 20.0));
        assert_eq!((figures["events_per_s"], figures["cpu_us_per_invocation"]), (200.0, 1_000.0));
        let counts = Counts {
            requests: BTreeMap::from([("BatchGetItem".to_owned(), 4), ("UpdateItem".to_owned(), 16)]),
            write_statements: 20,
            write_units: 30.0,
            read_units: 5.0,
            unreported: 0,
        };
        let store = of_store(&work, &counts);
        assert_eq!((store[REQUESTS_PER_EVENT], store["write_units_per_event"]), (0.1, 0.15));
        assert_eq!((store[WRITES_PER_SESSION], store["write_units_per_session"]), (1.0, 1.5));
    }
}
