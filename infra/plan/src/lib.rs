//! `playhead plan`: what a rate of events takes on AWS, what it costs, which limit is reached first,
//! and what a surge does to those who read the log.
//!
//! | module | what |
//! |---|---|
//! | [`constants`] | prices, limits, measured and assumed figures, each with its source |
//! | `sheet` | numbers that carry their formula |
//! | [`sizing`] | from a rate to capacity, limits, latency and dollars |
//! | [`surge`] | those who read the log in a surge, by discrete events |
//! | `report`, [`picture`] | what is printed and drawn of it |
//!
//! It talks to nobody: neither AWS nor the local cloud. Nothing here was measured on AWS; what was
//! assumed says so.

pub mod constants;
pub mod picture;
pub mod quantity;
mod report;
mod sheet;
pub mod sizing;
pub mod surge;

pub use sheet::{Computed, figure};

use anyhow::Result;
use constants::Constants;
use picture::Picture;
use sizing::{Approach, Demand, LogService, Sized, size};
use std::path::PathBuf;
use surge::{Occasion, Settings};

/// Show what a rate of events takes on AWS, what it costs a month, and which limit is reached first
///
/// Beside it is the same for today's way, with one write or two per event. With --surge it simulates
/// instead what a surge does to consumers of the log under several rules for scaling them. Nothing of
/// it was measured on AWS: docs/sizing.md says what it rests on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead plan --rate 1M/s --explain
  cargo playhead plan --rate 1M/s --events-per-post 4.26 --ingest managed-instances
  cargo playhead plan --rate 300k/s --mean 100k/s --regions 3 --log kinesis-provisioned
  cargo playhead plan --surge --rate 1M/s --rebalance cooperative")]
pub struct Args {
    #[command(flatten)]
    demand: Demand,
    /// Simulate a surge, a new season and a region's evacuation, and how rules for scaling consumers cope
    #[arg(long, conflicts_with = "explain")]
    surge: bool,
    #[command(flatten, next_help_heading = "With --surge")]
    simulation: surge::Options,
    /// Print every number with its formula, its figures and the sources of its constants
    #[arg(long)]
    explain: bool,
    /// Print JSON: all numbers, with formulas and sources; of a surge its courses
    #[arg(long, conflicts_with = "explain")]
    json: bool,
    /// Take the CPU from what `cargo playhead bench --json FILE` saved
    #[arg(long, value_name = "FILE")]
    bench: Option<PathBuf>,
    /// Replace constants by those of a file in the form of infra/plan/data/aws.toml, such as the prices of
    /// another region
    #[arg(long, value_name = "FILE")]
    constants: Option<PathBuf>,
    /// Where pictures go, as SVG and PNG (default: target/plan)
    #[arg(long, value_name = "FOLDER", default_value = "target/plan", hide_default_value = true)]
    pictures: PathBuf,
}

/// Runs `playhead plan`.
///
/// # Errors
/// If a file cannot be read or written, or lacks what is needed.
pub fn run(args: &Args) -> Result<()> {
    let mut constants = Constants::committed()?;
    if let Some(path) = &args.constants {
        constants.replace_from(path)?;
    }
    if let Some(path) = &args.bench {
        constants.measured_by(path)?;
    }
    if args.surge {
        return simulate(args, &constants);
    }
    let plans = plans(&args.demand, &constants)?;
    if args.json {
        println!("{}", report::json(&args.demand, &plans)?);
        return Ok(());
    }
    print!("{}", printed(&args.demand, &plans, &constants, args.explain)?);
    let [svg, png] = Picture::Dollars(&plans).draw(&args.pictures)?;
    println!("\nPictures: {}, {}", svg.display(), png.display());
    Ok(())
}

/// A plan for each approach.
fn plans(demand: &Demand, constants: &Constants) -> Result<Vec<Sized>> {
    Approach::ALL.iter().map(|approach| size(demand, *approach, constants)).collect()
}

/// What is printed of plans, beside one for each other log.
fn printed(demand: &Demand, plans: &[Sized], constants: &Constants, explain: bool) -> Result<String> {
    let with = |log| Ok((log, size(&Demand { log, ..demand.clone() }, Approach::Playhead, constants)?));
    let logs: Vec<(LogService, Sized)> = LogService::ALL.into_iter().map(with).collect::<Result<_>>()?;
    Ok(report::text(demand, plans, &logs, explain))
}

fn simulate(args: &Args, constants: &Constants) -> Result<()> {
    let settings = Settings::of(&args.demand, &args.simulation, constants)?;
    let runs = Occasion::ALL.map(|occasion| (occasion, surge::simulate(occasion, &settings)));
    if args.json {
        println!("{}", report::surge_json(&settings, &runs)?);
    } else {
        print!("{}", report::surge_text(&settings, &runs));
    }
    for (occasion, runs) in &runs {
        let [svg, png] = Picture::Surge(*occasion, &settings, runs).draw(&args.pictures)?;
        eprintln!("Pictures: {}, {}", svg.display(), png.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::fs;
    use std::path::Path;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::try_parse_from(line.split_whitespace()).unwrap().args
    }

    /// The page with each block of code that follows a command in bold replaced by what the command prints.
    fn page(text: &str) -> String {
        let mut page = String::new();
        let mut parts = text.split("```text\n");
        page += parts.next().unwrap();
        for part in parts {
            let (_, rest) = part.split_once("```").unwrap();
            let command = page.trim_end().rsplit_once("**`cargo playhead ").unwrap().1.split_once('`').unwrap().0;
            page += &format!("```text\n{}```{rest}", output(command).trim_start());
        }
        page
    }

    fn output(command: &str) -> String {
        let args = args(command);
        let constants = Constants::committed().unwrap();
        if args.surge {
            let settings = Settings::of(&args.demand, &args.simulation, &constants).unwrap();
            let runs = Occasion::ALL.map(|occasion| (occasion, surge::simulate(occasion, &settings)));
            if std::env::var_os("PLAYHEAD_BLESS").is_some() {
                for (occasion, runs) in &runs {
                    let [_, png] = Picture::Surge(*occasion, &settings, runs).draw(&docs().join("images")).unwrap();
                    fs::remove_file(png).unwrap();
                }
            }
            return report::surge_text(&settings, &runs);
        }
        printed(&args.demand, &plans(&args.demand, &constants).unwrap(), &constants, args.explain).unwrap()
    }

    fn docs() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
    }

    /// With PLAYHEAD_BLESS=1 it rewrites the page and its pictures.
    #[test]
    fn sizing_page_shows_what_is_printed() {
        let path = docs().join("sizing.md");
        let found = fs::read_to_string(&path).unwrap();
        let expected = page(&found);
        if std::env::var_os("PLAYHEAD_BLESS").is_some() {
            fs::write(&path, &expected).unwrap();
        }
        assert!(found == expected || std::env::var_os("PLAYHEAD_BLESS").is_some(), "bless docs/sizing.md");
    }

    #[test]
    fn sizing_page_compares_what_is_computed() {
        let (text, constants) =
            (fs::read_to_string(docs().join("sizing.md")).unwrap(), Constants::committed().unwrap());
        for events in ["1.12", "2.37", "4.26", "10.75"] {
            let args = args(&format!("plan --events-per-post {events}"));
            let totals = plans(&args.demand, &constants).unwrap();
            let cells: Vec<String> =
                totals.iter().map(|plan| format!("${}", figure(plan.total()[0].round()))).collect();
            let row = text.lines().find(|line| line.starts_with(&format!("| {events} |"))).unwrap();
            assert!(row.ends_with(&format!("| {} |", cells.join(" | "))), "{row}: {cells:?}");
        }
    }

    #[test]
    fn platforms_page_compares_what_is_computed() {
        let text = fs::read_to_string(docs().join("decisions/which-platform.md")).unwrap();
        let constants = Constants::committed().unwrap();
        for (rate, name) in [("1k", "1,000"), ("10k", "10,000"), ("100k", "100,000"), ("1M", "1,000,000")] {
            let args = args(&format!("plan --rate {rate}/s"));
            let plan = size(&args.demand, Approach::Playhead, &constants).unwrap();
            let lambda = plan.value("process") + plan.value("pollers");
            let [fargate, flink] = ["tasks of Fargate, a month", "KPUs of Flink, a month"].map(|name| plan.value(name));
            let cells =
                [lambda, fargate, flink, plan.total()[0]].map(|dollars| format!("${}", figure(dollars.round())));
            let row = format!("| {name} | {} |", cells.join(" | "));
            assert!(text.contains(&row), "{row}");
        }
    }

    #[test]
    fn explanation_has_every_formula_and_source() {
        let text = output("plan --explain");
        for part in [
            "    write units = 910,401 /s\n      = rate * write units per event\n      = 1,000,000 * 0.9104\n",
            "  lambda.epu = 0.185 $ per hour [us-east-1]: an event poller unit of Kafka\n    https://docs.aws.amazon.com/",
            "Assumed, not measured: assumed.append",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn json_has_every_number_with_its_formula() {
        let (args, constants) = (args("plan --rate 250k/s --regions 2"), Constants::committed().unwrap());
        let text = report::json(&args.demand, &plans(&args.demand, &constants).unwrap()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["demand"]["rate"], 250_000.0);
        assert_eq!(json["plans"].as_array().unwrap().len(), 3);
        let lines = json["plans"][0]["plan"]["lines"].as_array().unwrap();
        assert!(lines.iter().any(|line| line["name"] == "GB between regions" && line["formula"] != ""));
        assert!(json["plans"][0]["total"]["on_demand"].as_f64().unwrap() > 0.0);
    }

    #[test]
    fn surge_options_make_its_settings() {
        let args =
            args("plan --surge --per-worker 10k/s --start 30s --pause 5s --rebalance cooperative --partitions 64");
        let constants = Constants::committed().unwrap();
        let settings = Settings::of(&args.demand, &args.simulation, &constants).unwrap();
        assert_eq!((settings.per_worker, settings.start, settings.pause), (10e3, 30.0, 5.0));
        // 64 partitions are too few for what process does at this rate: the plan takes as many as that needs.
        assert!(settings.partitions >= 64 && settings.rebalance == surge::Rebalance::Cooperative);
        let no_time =
            Args { simulation: surge::Options { evaluate: std::time::Duration::ZERO, ..args.simulation }, ..args };
        assert!(Settings::of(&no_time.demand, &no_time.simulation, &constants).is_err());
    }
}
