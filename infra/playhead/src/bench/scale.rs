//! `playhead bench scale`: whether an event costs the same however many came before it and however
//! many views the table has.
//!
//! One process of `process` and one table take all events. Windows of them are measured, each at the
//! end of ten times as many events. Then views are added to the table until it has as many as asked
//! for, and one more window is measured. The store is DynamoDB Local, in memory.

use super::function::Function;
use super::measure::{CPU_PER_EVENT, Figures, Work, figures_of};
use super::process;
use super::process::load::{Load, Sessions, Shape};
use super::proxy::Proxy;
use super::report::{Row, Target};
use super::stage::{Options, Stage, Store, create_table, now_ms};
use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures::{StreamExt as _, TryStreamExt as _};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Measure whether an event costs the same after ten million events and with a million views
///
/// The store is DynamoDB Local, which needs Java 17 and Maven. All of it takes most of an hour; with
/// `--events 100000 --views 10000` it takes a minute.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many events to process in all
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    events: u64,
    /// How many views the table has in the end
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    views: u64,
    /// Stop adding events after this time, and say how far it came
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    #[command(flatten)]
    options: Options,
}

const SHAPE: Shape = Shape { records: 2_000, fold: 12.0, duplicates: 0.0, hot: 0, sessions: Sessions::Playing };
/// Events before the first window: until as many titles end as begin.
const WARM_UP: u64 = 100_000;
/// The greatest size of a window, events.
const WINDOW: u64 = 50_000;
/// How far a window's figure may be from that of another: 10 %.
const FLAT: f64 = 1.1;
/// Views are copied in requests of this size (DynamoDB's limit), so many at once.
const PUTS: usize = 25;
const CONCURRENT_PUTS: usize = 8;

/// Measures and adds to the report.
///
/// # Errors
/// If the store does not start, or the function fails.
pub(super) async fn run(args: Args) -> Result<()> {
    let Args { events, views, minutes, options } = args;
    let mut stage = Stage::set(Options { store: Store::DynamodbLocal, ..options }).await?;
    let store = stage.store().await?;
    let (sdk, proxy) = (store.sdk_config(), Proxy::start(store.endpoint()).await?);
    let table = "bench-scale";
    create_table(&sdk, table).await?;
    let mut program = process::program(&stage, &proxy.endpoint())?;
    program.variables.push(("VIEWS_TABLE", table.to_owned()));
    let function = Function::start(&program).await?;
    let mut course = Course { function, proxy, load: Load::new(SHAPE, stage.options.seed, now_ms()?), done: 0 };

    stage.progress.step("Warming up");
    course.feed(WARM_UP, &stage, None).await?;
    course.done = 0;
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let ends = std::iter::successors(Some(10_000_u64), |end| Some(end * 10)).take_while(|end| *end < events);
    for end in ends.chain([events]) {
        stage.progress.step(format!("Processing {end} events"));
        let window = (end - course.done).min(WINDOW);
        course.feed(end - course.done - window, &stage, Some(until)).await?;
        let figures = course.measure(window).await?;
        stage.report.add(Row::of(&format!("{} events", course.done), "process", &[figures]));
        if Instant::now() > until {
            eprintln!("note: {minutes} minutes are over after {} events", course.done);
            break;
        }
    }
    stage.progress.step(format!("Filling the table up to {views} views"));
    let added = fill(&Client::new(&sdk), table, views, &stage).await?;
    stage.progress.step("Measuring with these views");
    let figures = course.measure(WINDOW.min(events)).await?;
    stage.report.add(Row::of(&format!("{added} more views"), "process", &[figures]));
    add_target(&mut stage);
    stage.end()
}

/// The events so far.
struct Course {
    function: Function,
    proxy: Proxy,
    load: Load,
    done: u64,
}

impl Course {
    /// Has at least so many more events processed, or as many as time allows.
    async fn feed(&mut self, events: u64, stage: &Stage, until: Option<Instant>) -> Result<()> {
        let end = self.done + events;
        while self.done + SHAPE.records as u64 <= end && until.is_none_or(|until| Instant::now() < until) {
            let batch = self.load.batches(1)?;
            self.function.drive(&batch, 1, process::check).await?;
            self.done += SHAPE.records as u64;
            stage.progress.detail(format!("{} events", self.done));
        }
        Ok(())
    }

    /// Has so many more processed, and measures them.
    async fn measure(&mut self, events: u64) -> Result<Figures> {
        let batches = (events / SHAPE.records as u64).max(1) as usize;
        let measured = self.load.batches(batches)?;
        let work = Work {
            warm_up: &[],
            measured: &measured,
            in_flight: 1,
            events_each: SHAPE.records,
            records_each: SHAPE.records,
            sessions_each: self.load.sessions(),
            check: process::check,
        };
        self.done += (batches * SHAPE.records) as u64;
        figures_of(&self.function, &work, Some(&self.proxy)).await
    }
}

/// Adds copies of the table's own views under other keys until it has `wanted`. Returns how many
/// were added.
async fn fill(client: &Client, table: &str, wanted: u64, stage: &Stage) -> Result<u64> {
    let found = client.scan().table_name(table).limit(1_000).send().await.context("reading views")?;
    let originals = found.items.unwrap_or_default();
    ensure!(!originals.is_empty(), "there are no views to copy");
    let mut added = 0;
    let requests = (0..wanted.div_ceil(PUTS as u64)).map(|request| {
        let first = request * PUTS as u64;
        let copies = (first..(first + PUTS as u64).min(wanted)).map(|number| copy(&originals, number));
        let puts: Result<Vec<WriteRequest>> = copies.collect();
        async move {
            let puts = puts?;
            let count = puts.len() as u64;
            let written = client.batch_write_item().request_items(table, puts).send().await.context("adding views")?;
            ensure!(written.unprocessed_items.unwrap_or_default().is_empty(), "the store left views out");
            anyhow::Ok(count)
        }
    });
    let mut written = futures::stream::iter(requests).buffer_unordered(CONCURRENT_PUTS);
    while let Some(count) = written.try_next().await? {
        added += count;
        stage.progress.detail(format!("{added} of {wanted} views"));
    }
    Ok(added)
}

/// One of these views, under the key of another profile.
fn copy(originals: &[HashMap<String, AttributeValue>], number: u64) -> Result<WriteRequest> {
    let original = originals.get(number as usize % originals.len()).context("there are no views to copy")?;
    let mut item = original.clone();
    item.insert("pk".to_owned(), AttributeValue::S(format!("q{number:09}")));
    let put = PutRequest::builder().set_item(Some(item)).build()?;
    Ok(WriteRequest::builder().put_request(put).build())
}

/// The greatest figure must not be far above the least.
fn add_target(stage: &mut Stage) {
    let figures = || stage.report.rows.iter().filter_map(|row| row.median(CPU_PER_EVENT));
    let (least, greatest) = (figures().fold(f64::INFINITY, f64::min), figures().fold(0.0, f64::max));
    let what = "process: CPU per event, the greatest of these windows to the least";
    stage.report.targets.push(Target::at_most(what, greatest / least, FLAT));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_keys_of_their_own_and_the_views_bytes() {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let original = HashMap::from([
            ("pk".to_owned(), text("p1")),
            ("sk".to_owned(), text("s")),
            ("view".to_owned(), text("v")),
        ]);
        let item = |number| copy(std::slice::from_ref(&original), number).unwrap().put_request.unwrap().item;
        assert_eq!((&item(1)["view"], &item(1)["sk"]), (&text("v"), &text("s")));
        assert_ne!(item(1)["pk"], item(2)["pk"]);
    }
}
