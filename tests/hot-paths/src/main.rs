//! What the hot paths cost in instructions and allocations, held to `figures.json`.
//!
//! A time says something about a machine at a moment; these counts repeat, so a check can hold them.
//! They say nothing about waiting, caches and the network: `cargo playhead bench` measures those.

mod callgrind;
mod figures;
mod input;
mod paths;

use anyhow::{Context, Result, bail};
use clap::Parser;
use figures::{Committed, Comparison, Spent, Toolchain, table};
use paths::{HotPath, PATHS};
use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.json");
const COMMAND: &str = "cargo run --release -p hot-paths";

/// Count the instructions and allocations of the hot paths, and compare them with figures.json
///
/// Fails if a path takes more than 10% more than committed, or if no figure is committed for it.
#[derive(Debug, Parser)]
struct Args {
    /// Write this run's counts to figures.json
    #[arg(long)]
    bless: bool,
    /// Run one path without counting: what valgrind runs
    #[arg(long, value_name = "PATH", hide = true)]
    once: Option<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    if let Some(name) = &args.once {
        HotPath::named(name)?.run()?;
        return Ok(ExitCode::SUCCESS);
    }
    if cfg!(debug_assertions) {
        bail!("only counts of a release build mean something: {COMMAND}");
    }
    let counts = count_all()?;
    let toolchain = toolchain();
    if args.bless {
        return bless(toolchain, &counts);
    }
    let committed = std::fs::read_to_string(FIGURES).with_context(|| format!("reading {FIGURES}"))?;
    let committed = serde_json::from_str(&committed).with_context(|| format!("reading {FIGURES}"))?;
    Ok(compare(&toolchain, &counts, &committed))
}

fn count_all() -> Result<Vec<(&'static HotPath, Spent)>> {
    let executable = std::env::current_exe()?;
    let folder = executable.parent().context("the executable is in no folder")?.join("hot-paths.profiles");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let count = |path| Ok((path, callgrind::count(path, &folder).with_context(|| format!("counting {}", path.name))?));
    PATHS.iter().map(count).collect()
}

fn bless(counted_with: Toolchain, counts: &[(&'static HotPath, Spent)]) -> Result<ExitCode> {
    let paths: BTreeMap<String, Spent> = counts.iter().map(|(path, spent)| (path.name.to_owned(), *spent)).collect();
    let committed = Committed { counted_with, paths };
    std::fs::write(FIGURES, serde_json::to_string_pretty(&committed)? + "\n").context("writing figures.json")?;
    println!("{}", table(&comparisons(counts, Some(&committed))));
    println!("figures.json has these counts now: read the diff.");
    Ok(ExitCode::SUCCESS)
}

/// Prints the table and what follows from it.
fn compare(toolchain: &Toolchain, counts: &[(&'static HotPath, Spent)], committed: &Committed) -> ExitCode {
    if toolchain.architecture != committed.counted_with.architecture {
        println!("{}", table(&comparisons(counts, None)));
        println!("!!! NOT COMPARED: the committed figures are of {}.", committed.counted_with.architecture);
        return ExitCode::SUCCESS;
    }
    let comparisons = comparisons(counts, Some(committed));
    println!("{}", table(&comparisons));
    let savings: Vec<String> = comparisons.iter().flat_map(Comparison::savings).collect();
    let mut failures: Vec<String> = comparisons.iter().flat_map(Comparison::failures).collect();
    let gone = committed.paths.keys().filter(|name| HotPath::named(name).is_err());
    failures.extend(gone.map(|name| format!("{name} is in figures.json, but there is no such path")));
    savings.iter().for_each(|saving| println!("{saving}"));
    failures.iter().for_each(|failure| println!("!!! {failure}"));
    if !failures.is_empty() && *toolchain != committed.counted_with {
        println!("The committed figures are by {}; these by {toolchain}.", committed.counted_with);
    }
    match (failures.is_empty(), savings.is_empty()) {
        (false, _) => println!("If the change is worth it: {COMMAND} -- --bless"),
        (true, false) => println!("To keep it so: {COMMAND} -- --bless"),
        (true, true) => println!("No path takes over 10% more than committed."),
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn comparisons(counts: &[(&'static HotPath, Spent)], committed: Option<&Committed>) -> Vec<Comparison> {
    let compare = |(path, spent): &(&'static HotPath, Spent)| Comparison {
        path: path.name,
        events: path.events,
        spent: *spent,
        committed: committed.and_then(|committed| committed.paths.get(path.name)).copied(),
    };
    counts.iter().map(compare).collect()
}

/// What this run's counts depend on beside the code.
fn toolchain() -> Toolchain {
    Toolchain {
        architecture: std::env::consts::ARCH.to_owned(),
        rustc: first_line("rustc", "--version"),
        libc: first_line("ldd", "--version"),
        valgrind: first_line("valgrind", "--version"),
    }
}

fn first_line(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().next().unwrap_or("unknown").to_owned()
}
