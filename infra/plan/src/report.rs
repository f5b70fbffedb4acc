//! What is printed of plans: tables for people, JSON for programs, and every formula with its
//! sources.

use crate::constants::Constant;
use crate::sheet::{Computed, figure};
use crate::sizing::{Demand, LogService, Sized};
use crate::surge::{Course, LATE, Occasion, Settings, SurgeResult};
use anyhow::{Context as _, Result};
use serde_json::json;

/// Which lines people see first, in this order.
const SHOWN: [&str; 27] = [
    "events",
    "POSTs",
    "duration of a POST",
    "environments of ingest",
    "concurrency that the quota counts",
    "until all are connected, from nothing",
    "instances",
    "bytes per event",
    "MB into the log",
    "partitions",
    "brokers",
    "size of a broker",
    "shards",
    "records in a batch",
    "duration of a batch",
    "invocations of process at once",
    "event pollers",
    "event poller units",
    "writes per event",
    "write units",
    "read units",
    "changes",
    "MB into the change feed",
    "GB on the log",
    "GB of views",
    "answered after",
    "readable after, at most",
];

/// Everything, for programs.
pub(crate) fn json(demand: &Demand, plans: &[Sized]) -> Result<String> {
    let plans: Vec<_> = plans
        .iter()
        .map(|plan| {
            let [on_demand, provisioned] = plan.total();
            json!({ "plan": plan, "total": { "on_demand": on_demand, "provisioned": provisioned } })
        })
        .collect();
    serde_json::to_string_pretty(&json!({ "demand": demand, "plans": plans })).context("writing JSON")
}

/// Everything that people want to see first, and with `explain` also where it comes from.
pub(crate) fn text(demand: &Demand, plans: &[Sized], logs: &[(LogService, Sized)], explain: bool) -> String {
    let mut text = format!(
        "A plan for {} events/s, {} in a POST, in {} region{}, on {}.\n",
        figure(demand.rate),
        figure(demand.events_per_post),
        demand.regions,
        if demand.regions == 1 { "" } else { "s" },
        demand.log.name(),
    );
    text += "List prices of us-east-1. Nothing here was measured on AWS; --explain shows every formula and source.\n";
    if let Some(plan) = plans.first() {
        text += &needs(plan);
        text += &limits(demand, plan);
    }
    text += &dollars(plans);
    text += &beside(plans);
    text += &by_log(logs);
    text += &elsewhere(plans);
    text += &sources(plans);
    if explain {
        for plan in plans {
            text += &explained(plan);
        }
        text += &constants(plans);
    }
    text
}

/// A table: the first column to the left, the others to the right.
fn table(heading: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = format!("\n{heading}\n");
    for row in rows {
        let mut line = String::from("  ");
        for (column, width) in widths.iter().enumerate() {
            let cell = cell(row, column);
            line += &if column == 0 { format!("{cell:width$}") } else { format!("  {cell:>width$}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn needs(plan: &Sized) -> String {
    let line = |name: &&str| plan.lines.iter().find(|line| line.name == **name);
    let row = |line: &Computed| vec![line.name.clone(), figure(line.value), line.unit.to_owned()];
    let rows: Vec<_> = SHOWN.iter().filter_map(line).map(row).collect();
    // The units are read, not compared.
    let width = rows.iter().map(|row| row[2].chars().count()).max().unwrap_or_default();
    let rows: Vec<_> =
        rows.into_iter().map(|row| vec![row[0].clone(), row[1].clone(), format!("{:width$}", row[2])]).collect();
    table("What a region needs at the peak", &rows)
}

fn limits(demand: &Demand, plan: &Sized) -> String {
    let mut rows = vec![["limit", "before you ask", "needed", "reached at, events/s"].map(str::to_owned).to_vec()];
    rows.extend(
        plan.bounds.iter().map(|bound| {
            vec![bound.name.to_owned(), figure(bound.limit), figure(bound.needed), figure(bound.reached_at)]
        }),
    );
    let mut text = table("Limits, the first to be reached first", &rows);
    let below = plan.bounds.iter().filter(|bound| bound.reached_at < demand.rate);
    let advice: Vec<String> = below.map(|bound| format!("  {}: {}.\n", bound.name, bound.advice)).collect();
    text += if advice.is_empty() {
        "\nNone is reached at this rate.\n"
    } else {
        "\nReached below this rate. What to do:\n"
    };
    text += &advice.concat();
    text
}

fn dollars(plans: &[Sized]) -> String {
    let Some(plan) = plans.first() else { return String::new() };
    let mut rows = vec![["", "table on demand", "table provisioned"].map(str::to_owned).to_vec()];
    rows.extend(plan.dollars.iter().map(|part| {
        vec![
            part.part.to_owned(),
            format!("${}", figure(part.on_demand.round())),
            format!("${}", figure(part.provisioned.round())),
        ]
    }));
    let [on_demand, provisioned] = plan.total();
    rows.push(vec![
        "together".to_owned(),
        format!("${}", figure(on_demand.round())),
        format!("${}", figure(provisioned.round())),
    ]);
    table("Dollars a month", &rows)
}

fn beside(plans: &[Sized]) -> String {
    let column = |show: &dyn Fn(&Sized) -> String| plans.iter().map(show).collect::<Vec<_>>();
    let row = |name: &str, show: &dyn Fn(&Sized) -> String| [vec![name.to_owned()], column(show)].concat();
    let value = |name: &'static str| move |plan: &Sized| figure(plan.value(name));
    let rows = [
        row("", &|plan| plan.approach.name().to_owned()),
        row("MB/s into the log", &value("MB into the log")),
        row("partitions", &value("partitions")),
        row("invocations of process at once", &value("invocations of process at once")),
        row("write units per second", &value("write units")),
        row("dollars a month, table on demand", &|plan| format!("${}", figure(plan.total()[0].round()))),
        row("dollars a month, table provisioned", &|plan| format!("${}", figure(plan.total()[1].round()))),
        row("of it the store, on demand", &|plan| format!("${}", figure(plan.value("the store, on demand").round()))),
    ];
    table("Beside today's way, behind the same edge and log", &rows)
}

fn by_log(logs: &[(LogService, Sized)]) -> String {
    let mut rows =
        vec![["", "the log", "with transfer and pollers", "first limit, events/s"].map(str::to_owned).to_vec()];
    rows.extend(logs.iter().map(|(log, plan)| {
        let part = |name: &str| plan.dollars.iter().find(|part| part.part == name).map_or(0.0, |part| part.on_demand);
        let all = part("the log") + part("between zones") + part("pollers");
        // Those that are the log's own.
        let own = ["cluster", "connections", "MSK", "shards", "stream"];
        let bounds = plan.bounds.iter().filter(|bound| own.iter().any(|word| bound.name.contains(word)));
        let first = bounds.map(|bound| bound.reached_at).fold(f64::INFINITY, f64::min);
        vec![
            log.name().to_owned(),
            format!("${}", figure(part("the log").round())),
            format!("${}", figure(all.round())),
            figure(first),
        ]
    }));
    table("The log, by service, dollars a month", &rows)
}

/// What folding would cost on other platforms.
fn elsewhere(plans: &[Sized]) -> String {
    let Some(plan) = plans.first() else { return String::new() };
    let part = |name: &str| plan.dollars.iter().find(|part| part.part == name).map_or(0.0, |part| part.on_demand);
    let rows = [
        ("Lambda, with its pollers", part("process") + part("pollers")),
        ("Fargate, always there for the peak", plan.value("tasks of Fargate, a month")),
        ("Managed Flink, if it needed no more CPU", plan.value("KPUs of Flink, a month")),
    ];
    let rows = rows.map(|(name, dollars)| vec![name.to_owned(), format!("${}", figure(dollars.round()))]);
    table("Reading the log and folding, by platform, dollars a month", &rows)
}

/// How much of it rests on what.
fn sources(plans: &[Sized]) -> String {
    let Some(plan) = plans.first() else { return String::new() };
    let names = |wanted: &dyn Fn(&Constant) -> bool| {
        let names: Vec<&str> =
            plan.constants.iter().filter(|(_, one)| wanted(one)).map(|(key, _)| key.as_str()).collect();
        names.join(", ")
    };
    let mut text = format!("\nAssumed, not measured: {}.\n", names(&Constant::is_assumed));
    text += &format!("Prices and limits that no page at hand confirmed: {}.\n", names(&Constant::is_unconfirmed));
    text
}

fn explained(plan: &Sized) -> String {
    let mut text = format!("\nEvery number: {}\n", plan.approach.name());
    let mut part = "";
    for line in &plan.lines {
        if line.part != part {
            part = line.part;
            text += &format!("\n  {part}\n");
        }
        text += &format!("    {} = {} {}\n", line.name, figure(line.value), line.unit);
        if line.formula != line.figures {
            text += &format!("      = {}\n", line.formula);
        }
        text += &format!("      = {}\n", line.figures);
    }
    text
}

fn constants(plans: &[Sized]) -> String {
    let mut all = std::collections::BTreeMap::new();
    for plan in plans {
        all.extend(plan.constants.iter());
    }
    let mut text = "\nThe constants\n".to_owned();
    for (key, constant) in all {
        let Constant { name, value, unit, region, source, quoted_by, read } = constant;
        let region = if region.is_empty() { String::new() } else { format!(" [{region}]") };
        let quoted = quoted_by.as_ref().map(|by| format!(", as quoted by {by}")).unwrap_or_default();
        let quoted = if constant.is_unconfirmed() { ", unconfirmed".to_owned() } else { quoted };
        text += &format!("  {key} = {} {unit}{region}: {name}\n    {source}{quoted}, {read}\n", figure(*value));
    }
    text
}

/// The runs of an occasion.
type Runs = (Occasion, Vec<(SurgeResult, Course)>);

/// Everything of a simulation, for programs.
pub(crate) fn surge_json(settings: &Settings, runs: &[Runs]) -> Result<String> {
    let runs: Vec<_> = runs
        .iter()
        .flat_map(|(_, runs)| runs)
        .map(|(result, course)| json!({ "result": result, "course": course }))
        .collect();
    serde_json::to_string_pretty(&json!({ "settings": settings, "runs": runs })).context("writing JSON")
}

/// How each rule did in each occasion.
pub(crate) fn surge_text(settings: &Settings, runs: &[Runs]) -> String {
    let Settings { peak, partitions, per_worker, target, start, evaluate, pause, seed, worker_hour, .. } = settings;
    let mut text = format!(
        "Consumers of {partitions} partitions, up to {} events/s. A worker processes {} events/s and should be {:.0}% \
         busy; it costs ${worker_hour:.4} an hour.\n",
        figure(*peak),
        figure(*per_worker),
        target * 100.0
    );
    text += &format!(
        "A rule looks every {evaluate} s at the last {evaluate} s. A new worker joins after {start} s, and every change \
         of the group stops {} for {pause} s. Seed {seed}. A simulation, not a measurement.\n",
        match settings.rebalance {
            crate::surge::Rebalance::Eager => "all partitions",
            crate::surge::Rebalance::Cooperative => "the partitions that move",
        }
    );
    for (occasion, runs) in runs {
        let heading = [
            "scaled",
            "most lag, events",
            "longest wait, s",
            "late before, min",
            "during",
            "after",
            "rebalances",
            "turns",
            "workers",
            "worker-hours",
            "of ideal",
            "cost",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(runs.iter().map(|(result, _)| surge_row(result)));
        text += &table(&format!("{} (late: waits over {LATE} s)", occasion.name()), &rows);
    }
    text
}

fn surge_row(result: &SurgeResult) -> Vec<String> {
    vec![
        result.scaling.name().to_owned(),
        figure(result.peak_lag.round()),
        format!("{:.0}", result.worst_delay),
        format!("{:.1}", result.late_before),
        format!("{:.1}", result.late_during),
        format!("{:.1}", result.late_after),
        result.rebalances.to_string(),
        result.turns.to_string(),
        format!("{}-{}", result.workers[0], result.workers[1]),
        format!("{:.1}", result.worker_hours),
        format!("{:.2}", result.of_ideal),
        format!("${:.2}", result.dollars),
    ]
}
