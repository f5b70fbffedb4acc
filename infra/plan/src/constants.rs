//! The figures that everything is computed from: AWS's prices and limits (`data/aws.toml`), and what
//! was measured or had to be assumed (`data/measured.toml`). Each has its source and its date.
//!
//! It computes nothing. A file of the same form may replace some of them, for example with the
//! prices of another region, and so may the JSON of `cargo playhead bench`.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const AWS: &str = include_str!("../data/aws.toml");
const MEASURED: &str = include_str!("../data/measured.toml");
/// What stands in `quoted_by` if nothing that was read has the figure.
const UNCONFIRMED: &str = "unconfirmed";

/// A figure from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// What it is, for people.
    pub name: String,
    /// In [`Self::unit`].
    pub value: f64,
    /// Such as `$ per million`; empty for a ratio.
    pub unit: String,
    /// Where it holds; empty if it has nothing to do with a region.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Where it is stated, or which command measured it.
    pub source: String,
    /// Where it was read, if not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quoted_by: Option<String>,
    /// The day it was read or measured, as 2026-11-29.
    pub read: String,
}

impl Constant {
    /// Whether nothing that was read has the figure.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.quoted_by.as_deref() == Some(UNCONFIRMED)
    }

    /// Whether it is no fact but an assumption.
    #[must_use]
    pub fn is_assumed(&self) -> bool {
        self.source.starts_with("assumed")
    }
}

/// All constants by `section.name`.
#[derive(Debug, Clone)]
pub struct Constants(BTreeMap<String, Constant>);

/// Which row and figure of `cargo playhead bench --json` replaces which constant.
const BENCH: [[&str; 4]; 6] = [
    ["ingest.cpu_of_1", "POST of 1 event", "ingest", "cpu_us_per_invocation"],
    ["ingest.cpu_shared", "POST of 1 event, 64 at once", "ingest", "cpu_us_per_invocation"],
    ["ingest.cpu_of_500", "POST of 500 events", "ingest", "cpu_us_per_invocation"],
    ["process.cpu_at_fold_1_5", "fold 1.5, 500 records", "process", "cpu_us_per_event"],
    ["process.cpu_at_fold_12", "fold 12, 2000 records", "process", "cpu_us_per_event"],
    ["reference.cpu", "fold 1.5, 500 records", "plain Rust", "cpu_us_per_event"],
];

impl Constants {
    /// Those of this repository.
    ///
    /// # Errors
    /// Never in practice: a test reads the files.
    pub fn committed() -> Result<Self> {
        let mut all = Self(BTreeMap::new());
        for text in [AWS, MEASURED] {
            all.replace(text)?;
        }
        Ok(all)
    }

    /// Replaces and adds what a file of the same form has.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn replace_from(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        self.replace(&text).with_context(|| format!("reading {}", path.display()))
    }

    fn replace(&mut self, text: &str) -> Result<()> {
        let sections: BTreeMap<String, BTreeMap<String, Constant>> = toml::from_str(text)?;
        for (section, constants) in sections {
            self.0.extend(constants.into_iter().map(|(name, constant)| (format!("{section}.{name}"), constant)));
        }
        Ok(())
    }

    /// Takes the CPU from what `cargo playhead bench --json` saved. Rows that it lacks replace nothing.
    ///
    /// # Errors
    /// If it cannot be read, or has none of the rows.
    pub fn measured_by(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let report: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let empty = Vec::new();
        let rows = report["rows"].as_array().unwrap_or(&empty);
        let mut replaced = 0;
        for [key, scenario, program, figure] in BENCH {
            let row = rows.iter().find(|row| row["scenario"] == scenario && row["program"] == program);
            let median = row.and_then(|row| row["figures"][figure]["median"].as_f64());
            if let (Some(median), Some(constant)) = (median, self.0.get_mut(key)) {
                constant.value = median;
                constant.source = format!("cargo playhead bench: {} ({program}, {scenario}, {figure})", path.display());
                replaced += 1;
            }
        }
        anyhow::ensure!(replaced > 0, "{} has no row that a plan needs, such as {:?}", path.display(), BENCH[0][1]);
        Ok(())
    }

    /// A constant by its key, such as `lambda.request`.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, key: &str) -> Result<&Constant> {
        self.0.get(key).with_context(|| format!("there is no constant {key}"))
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Constant)> {
        self.0.iter().map(|(key, constant)| (key.as_str(), constant))
    }
}
