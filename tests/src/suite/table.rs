//! The table of a suite, a row per scenario.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use operate::workspace_root;
use serde::Serialize;

use super::args::{Load, Scenario};

/// What a scenario measured.
pub trait Figures: Default + Serialize {
    /// The headings of the columns between the scenario's name and its verdict.
    const HEAD: &'static [&'static str];

    /// The cells of those columns.
    fn cells(&self) -> Vec<String>;

    /// Events that the devices were told are accepted.
    fn accepted(&self) -> u64;
}

/// What a scenario showed.
#[derive(Debug, Serialize)]
pub struct Row<F> {
    scenario: &'static str,
    what: &'static str,
    #[serde(flatten)]
    figures: F,
    /// Promises that were not kept, in words.
    pub wrong: Vec<String>,
}

impl<F: Figures> Row<F> {
    /// A scenario that was played.
    pub fn new(scenario: impl Scenario, figures: F, wrong: Vec<String>) -> Self {
        Self { scenario: scenario.name(), what: scenario.what(), figures, wrong }
    }

    /// A scenario that could not be played.
    pub(super) fn broken(scenario: impl Scenario, why: String) -> Self {
        Self::new(scenario, F::default(), vec![why])
    }

    fn cells(&self) -> Vec<String> {
        let held = if self.wrong.is_empty() { "held" } else { "WRONG" };
        [vec![self.scenario.to_owned()], self.figures.cells(), vec![held.to_owned()]].concat()
    }
}

/// The folder for the table of this suite, and for everything else that it writes.
///
/// # Errors
/// If the workspace is not found.
pub fn folder(name: &str) -> Result<PathBuf> {
    Ok(workspace_root()?.join("target/playhead").join(name))
}

/// All scenarios of a run.
#[derive(Debug, Serialize)]
pub(super) struct Table<F> {
    seed: u64,
    posts_per_second: f64,
    pub(super) seconds: u64,
    pub(super) rows: Vec<Row<F>>,
}

impl<F: Figures> Table<F> {
    pub(super) fn new(load: Load) -> Self {
        Self { seed: load.seed, posts_per_second: load.rate, seconds: 0, rows: Vec::new() }
    }

    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> =
            [&["scenario"], F::HEAD, &["promises"]].concat().into_iter().map(str::to_owned).collect();
        let mut text = line(&head) + &line(&vec!["---".to_owned(); head.len()]);
        for row in &self.rows {
            text += &line(&row.cells());
        }
        let accepted: u64 = self.rows.iter().map(|row| row.figures.accepted()).sum();
        text += &format!(
            "\n{accepted} events accepted in {} scenarios, seed {}, {} POSTs a second, {} s in all.\n",
            self.rows.len(),
            self.seed,
            self.posts_per_second,
            self.seconds
        );
        for row in self.rows.iter().filter(|row| !row.wrong.is_empty()) {
            text += &format!("\n{}:\n", row.scenario);
            text.extend(row.wrong.iter().map(|wrong| format!("- {wrong}\n")));
        }
        text
    }

    /// Writes the table as Markdown and JSON. Says where.
    pub(super) fn write(&self, name: &str) -> Result<PathBuf> {
        let folder = folder(name)?;
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{name}.md")), self.markdown())?;
        fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(self)?)?;
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Serialize)]
    struct Rain {
        accepted: u64,
    }

    impl Figures for Rain {
        const HEAD: &'static [&'static str] = &["accepted"];

        fn cells(&self) -> Vec<String> {
            vec![self.accepted.to_string()]
        }

        fn accepted(&self) -> u64 {
            self.accepted
        }
    }

    #[derive(Clone, Copy)]
    struct Falls(&'static str);

    impl Scenario for Falls {
        const ALL: &'static [Self] = &[];

        fn name(self) -> &'static str {
            self.0
        }

        fn what(self) -> &'static str {
            "something falls"
        }
    }

    #[test]
    fn a_row_per_scenario_and_below_what_was_not_kept() {
        let mut table = Table::new(Load { seed: 3, rate: 2.5 });
        table.rows.push(Row::new(Falls("rain"), Rain { accepted: 5 }, Vec::new()));
        table.rows.push(Row::broken(Falls("hail"), "no cloud".to_owned()));
        let lines = [
            "| scenario | accepted | promises |",
            "| --- | --- | --- |",
            "| rain | 5 | held |",
            "| hail | 0 | WRONG |",
            "",
            "5 events accepted in 2 scenarios, seed 3, 2.5 POSTs a second, 0 s in all.",
            "",
            "hail:",
            "- no cloud",
            "",
        ];
        assert_eq!(table.markdown(), lines.join("\n"));
        let row = serde_json::to_value(&table.rows[0]).unwrap();
        let expected = serde_json::json!({"scenario": "rain", "what": "something falls", "accepted": 5, "wrong": []});
        assert_eq!(row, expected);
    }
}
