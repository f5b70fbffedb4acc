//! The command and its output.

use super::sums::MINUTE_MS;
use super::{Minute, Reader, from_cloudwatch};
use crate::endpoints::Endpoints;
use crate::stack::Which;
use crate::text::clock_time;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often `--watch` reads again. CloudWatch calls cost money, and its metrics have a resolution
/// of a minute.
const WATCH_LOCAL: Duration = Duration::from_secs(2);
const WATCH_CLOUDWATCH: Duration = Duration::from_secs(30);

/// Print the books: what happened to accepted events, by the minute of acceptance
///
/// accepted - applied - duplicates - dead = in flight, or lost if it does not fall to zero. For the
/// local cloud, the books are read from the functions' logs in all regions. With --stack they are
/// read from CloudWatch for one region only: forwarded events count as ended, and arrived events as
/// accepted. Exit status 1 if the books do not balance.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead books --since 10m
  cargo playhead books --stack playhead-prod --region us-east-1 --since 6h --json")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Events accepted since this long ago, such as 90s, 10m, 6h or 2d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    since: Duration,
    /// Print JSON: one object, or with --watch one object per line
    #[arg(long)]
    json: bool,
    /// Read again every few seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    minutes: Vec<Row>,
    /// The totals of each region, if there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    regions: BTreeMap<String, Minute>,
    totals: Minute,
    /// Events in flight or lost: the sum over the minutes with a positive loss.
    loss: u64,
    /// Events that ended more often than they were accepted: the sum over the minutes with a
    /// negative loss.
    surplus: u64,
    /// Sequence numbers still missing in sessions that have ended.
    holes: i64,
    balanced: bool,
    verdict: String,
}

#[derive(Debug, Serialize)]
struct Row {
    /// Its start, Unix milliseconds.
    minute: u64,
    #[serde(flatten)]
    counts: Minute,
    loss: i64,
}

/// Runs `playhead books`.
///
/// # Errors
/// If the books cannot be read. Books that do not balance are not an error, but exit status 1.
pub async fn run(args: Args) -> Result<ExitCode> {
    let stack = args.which.find().await?;
    let mut local: Vec<(String, Reader)> = stack.local.iter().flat_map(Endpoints::regions).map(reader).collect();
    loop {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let since = now.saturating_sub(u64::try_from(args.since.as_millis())?);
        let report = match &mut local[..] {
            [] => Report::of_region(
                from_cloudwatch(&stack.sdk, stack.parameter("Stage")?, &stack.functions(), since, now).await?,
            ),
            regions => Report::of_all(read(regions, since).await?),
        };
        let mut out = std::io::stdout().lock();
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            let clear = if args.watch && out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            write!(out, "{clear}{}", report.text())?;
        }
        drop(out);
        if !args.watch {
            return Ok(if report.balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let again = if !local.is_empty() { WATCH_LOCAL } else { WATCH_CLOUDWATCH };
        tokio::select! {
            () = tokio::time::sleep(again) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// Books by minute of acceptance.
type Minutes = BTreeMap<u64, Minute>;

fn reader(region: &Endpoints) -> (String, Reader) {
    (region.region.clone(), Reader::new(region))
}

/// The books of each region.
async fn read(regions: &mut [(String, Reader)], since: u64) -> Result<BTreeMap<String, Minutes>> {
    let mut all = BTreeMap::new();
    for (region, reader) in regions {
        let minutes = reader.catch_up().await?.minutes.clone().split_off(&(since - since % MINUTE_MS));
        all.insert(region.clone(), minutes);
    }
    Ok(all)
}

impl Report {
    /// For one region. What happens to its events elsewhere does not matter.
    fn of_region(minutes: Minutes) -> Self {
        Self::of(minutes, BTreeMap::new(), Minute::loss)
    }

    /// For all regions: events that left one and did not arrive in another are in flight, or lost.
    fn of_all(regions: BTreeMap<String, Minutes>) -> Self {
        let mut minutes = Minutes::new();
        let mut totals = BTreeMap::new();
        for (region, books) in regions {
            let total: &mut Minute = totals.entry(region).or_default();
            for (minute, counts) in books {
                *total += counts;
                *minutes.entry(minute).or_default() += counts;
            }
        }
        if totals.len() < 2 {
            totals.clear();
        }
        Self::of(minutes, totals, |minute| minute.loss() + minute.between_regions().cast_signed())
    }

    fn of(minutes: Minutes, regions: BTreeMap<String, Minute>, loss_of: fn(&Minute) -> i64) -> Self {
        let mut totals = Minute::default();
        let (mut loss, mut surplus) = (0, 0);
        for minute in minutes.values() {
            totals += *minute;
            match loss_of(minute) {
                over @ 0.. => loss += over.unsigned_abs(),
                under => surplus += under.unsigned_abs(),
            }
        }
        let (balanced, verdict) = verdict(&totals, loss, surplus);
        let row = |(minute, counts): (u64, Minute)| Row { minute, loss: loss_of(&counts), counts };
        let holes = totals.holes_opened.cast_signed() - totals.holes_closed.cast_signed();
        let minutes = minutes.into_iter().map(row).collect();
        Self { minutes, regions, totals, loss, surplus, holes, balanced, verdict }
    }

    fn text(&self) -> String {
        // Two columns that are needed only with several regions.
        let several = self.totals.forwarded + self.totals.arrived > 0;
        let crossing = |forwarded: &dyn Display, arrived: &dyn Display| match several {
            true => format!("{forwarded:>10} {arrived:>8} "),
            false => String::new(),
        };
        let mut text = format!(
            "{:<17} {:>10} {:>10} {:>10} {:>8} {:>8} {:>9} {}{:>8}\n",
            "accepted at (UTC)",
            "accepted",
            "applied",
            "duplicate",
            "dead",
            "retried",
            "unclaimed",
            crossing(&"forwarded", &"arrived"),
            "loss"
        );
        let mut line = |title: &str, counts: &Minute, loss: i64| {
            let Minute { accepted, applied, duplicates, retried, unclaimed, forwarded, arrived, .. } = counts;
            let dead = counts.dead.saturating_sub(counts.redriven);
            let crossing = crossing(forwarded, arrived);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{title:<17} {accepted:>10} {applied:>10} {duplicates:>10} {dead:>8} {retried:>8} {unclaimed:>9} {crossing}{loss:>8}"
            );
        };
        for row in &self.minutes {
            line(clock_time(row.minute).get(..16).unwrap_or_default(), &row.counts, row.loss);
        }
        for (region, totals) in &self.regions {
            line(region, totals, totals.loss());
        }
        line("total", &self.totals, self.loss.cast_signed() - self.surplus.cast_signed());
        let holes = match (self.totals.holes_opened, self.holes) {
            (0, _) => "No sequence number is missing in the sessions that have ended.".to_owned(),
            (opened, ..=0) => {
                format!("{opened} sequence numbers were missing when their sessions ended; all of them arrived later.")
            }
            (opened, left) => format!(
                "{opened} sequence numbers were missing when their sessions ended; {left} are still missing: devices lost them, or still hold them."
            ),
        };
        text + &format!("\n{}\n{holes}\n", self.verdict)
    }
}

/// Whether the books balance, and what that means in words.
fn verdict(totals: &Minute, loss: u64, surplus: u64) -> (bool, String) {
    let accepted = totals.accepted;
    match (loss, surplus) {
        (0, 0) if accepted == 0 => (true, "Nothing was accepted.".to_owned()),
        (0, 0) => (true, format!("They balance: each of the {accepted} accepted events is in a view, or dead.")),
        (0, more) if more <= totals.unclaimed => {
            (true, format!("They balance: nothing is lost. {more} events ended twice, which unclaimed copies explain."))
        }
        (0, more) => (
            false,
            format!(
                "Nothing is lost, but {more} events ended more often than they were accepted, and only {} are unclaimed: records were delivered again after they had been counted. Views still count each event once.",
                totals.unclaimed
            ),
        ),
        (missing, _) => (
            false,
            format!(
                "{missing} accepted events have not ended: in flight, or lost if the number stays. First check the lag of the log, the queue retry and the failure bucket."
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(minutes: &[(u64, u64, u64, u64)]) -> Report {
        let minute = |(at, accepted, applied, unclaimed): &(u64, u64, u64, u64)| {
            (
                at * MINUTE_MS,
                Minute { accepted: *accepted, applied: *applied, unclaimed: *unclaimed, ..Minute::default() },
            )
        };
        Report::of_region(minutes.iter().map(minute).collect())
    }

    #[test]
    fn surplus_in_one_minute_hides_no_loss_in_another() {
        let check = |minutes: &[(u64, u64, u64, u64)], balanced: bool, words: &str| {
            let report = report(minutes);
            assert_eq!(report.balanced, balanced, "{report:?}");
            assert!(report.verdict.contains(words), "{report:?}");
        };
        check(&[], true, "Nothing was accepted");
        check(&[(1, 10, 10, 0), (2, 5, 5, 0)], true, "each of the 15");
        check(&[(1, 10, 12, 3)], true, "2 events ended twice");
        check(&[(1, 10, 12, 1)], false, "only 1 are unclaimed");
        check(&[(1, 10, 9, 0)], false, "1 accepted events have not ended");
        check(&[(1, 10, 9, 0), (2, 10, 11, 1)], false, "1 accepted events have not ended");
    }

    #[test]
    fn table_has_one_line_per_minute_and_a_total() {
        let text = report(&[(29_833_334, 10, 9, 0), (29_833_335, 5, 5, 2)]).text();
        let expect = "\
accepted at (UTC)   accepted    applied  duplicate     dead  retried unclaimed     loss
2026-09-21 14:14          10          9          0        0        0         0        1
2026-09-21 14:15           5          5          0        0        0         2        0
total                     15         14          0        0        0         2        1
";
        assert!(text.starts_with(expect), "{text}");
    }

    #[test]
    fn forwarded_events_that_have_not_arrived_are_in_flight() {
        let of = |accepted, applied, forwarded, arrived| {
            let counts = Minute { accepted, applied, forwarded, arrived, ..Minute::default() };
            BTreeMap::from([(MINUTE_MS, counts)])
        };
        let all = |there| Report::of_all(BTreeMap::from([("a".to_owned(), of(10, 7, 3, 0)), ("b".to_owned(), there)]));
        let on_the_way = all(of(5, 5, 0, 0));
        assert_eq!((on_the_way.balanced, on_the_way.loss), (false, 3));
        let arrived = all(of(5, 8, 0, 3));
        assert_eq!((arrived.balanced, arrived.loss), (true, 0));
        let text = arrived.text();
        assert!(text.contains("forwarded  arrived") && text.contains("\na  "), "{text}");
        assert!(Report::of_region(of(10, 7, 3, 0)).balanced, "a region's own books end where its events leave it");
    }
}
