//! What is printed: a table for people, JSON for programs, and how both compare with a saved JSON.

use super::measure::{COLUMNS, Column, Figures};
use super::statistics::Spread;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Everything that was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// In the order of measurement.
    pub(super) rows: Vec<Row>,
    /// What the figures should be.
    pub(super) targets: Vec<Target>,
}

/// The figures of a program in a scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) scenario: String,
    /// One of our functions, or a reference.
    pub(super) program: String,
    pub(super) figures: BTreeMap<String, Spread>,
}

/// What a figure should be at most.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) what: String,
    pub(super) figure: f64,
    pub(super) at_most: f64,
    pub(super) is_met: bool,
}

impl Target {
    /// Compares a figure with what it should be at most.
    pub(super) fn at_most(what: impl Into<String>, figure: f64, at_most: f64) -> Self {
        Self { what: what.into(), figure, at_most, is_met: figure <= at_most }
    }

    fn line(&self) -> String {
        let Self { what, figure, at_most, .. } = self;
        format!("{} {what}: {figure:.3} (at most {at_most:.3})", if self.is_met { "met   " } else { "MISSED" })
    }
}

impl Row {
    /// The median and the spread of each figure over all runs.
    pub(super) fn of(scenario: &str, program: &str, runs: &[Figures]) -> Self {
        let values = |key| runs.iter().filter_map(|run| run.get(key).copied()).collect::<Vec<f64>>();
        let spread = |column: &Column| Some((column.key.to_owned(), Spread::of(&values(column.key))?));
        let figures = COLUMNS.iter().filter_map(spread).collect();
        Self { scenario: scenario.to_owned(), program: program.to_owned(), figures }
    }

    /// The median of a figure.
    pub(super) fn median(&self, key: &str) -> Option<f64> {
        Some(self.figures.get(key)?.median)
    }
}

impl Report {
    /// Adds a row.
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The median of a program's figure in a scenario.
    pub(super) fn median(&self, scenario: &str, program: &str, key: &str) -> Option<f64> {
        self.row(scenario, program)?.median(key)
    }

    /// How a program's figure compares with a reference's.
    pub(super) fn ratio(&self, scenario: &str, [program, reference]: [&str; 2], key: &str) -> Option<f64> {
        Some(self.median(scenario, program, key)? / self.median(scenario, reference, key)?)
    }

    fn row(&self, scenario: &str, program: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.scenario == scenario && row.program == program)
    }

    /// Prints all of it, compared with a saved one if there is one, and saves it.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(super) fn publish(&self, json: Option<&Path>, baseline: Option<&Path>) -> Result<()> {
        println!("\nMedians; ± is half the distance between the least and the greatest run.\n");
        println!("{}", table(&self.rows, |figure, decimals| format!("{:.decimals$}", figure.median)));
        let spreads = self.spreads();
        if !spreads.is_empty() {
            println!("CPU per event, least to greatest, µs:\n{spreads}");
        }
        for target in &self.targets {
            println!("{}", target.line());
        }
        if let Some(path) = baseline {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let earlier: Self = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
            let ratios = self.compared_with(&earlier);
            println!("\nRatio of each figure to {} (below 1 is less):\n", path.display());
            println!("{}", table(&ratios, |figure, _| format!("{:.2}", figure.median)));
        }
        if let Some(path) = json {
            fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn spreads(&self) -> String {
        let line = |row: &Row| {
            let figure = row.figures.get(super::measure::CPU_PER_EVENT)?;
            let Spread { least, greatest, .. } = figure;
            let percent = figure.deviation() * 100.0;
            Some(format!("  {:38}{:12} {least:.2} to {greatest:.2} (± {percent:.0} %)\n", row.scenario, row.program))
        };
        self.rows.iter().filter_map(line).collect()
    }

    /// Rows whose figures are the ratios of ours to those of the same name in `earlier`.
    fn compared_with(&self, earlier: &Self) -> Vec<Row> {
        let ratio = |row: &Row| {
            let before = earlier.row(&row.scenario, &row.program)?;
            let figures = row.figures.iter().filter_map(|(key, now)| {
                let ratio = now.median / before.median(key)?;
                ratio.is_finite().then(|| Some((key.clone(), Spread::of(&[ratio])?)))?
            });
            Some(Row { figures: figures.collect(), ..row.clone() })
        };
        self.rows.iter().filter_map(ratio).collect()
    }
}

/// A table of rows, without the columns that no row has.
fn table(rows: &[Row], show: impl Fn(&Spread, usize) -> String) -> String {
    let columns: Vec<&Column> =
        COLUMNS.iter().filter(|column| rows.iter().any(|row| row.figures.contains_key(column.key))).collect();
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
    let names = width(&mut rows.iter().map(|row| row.scenario.chars().count())).max(8);
    let programs = width(&mut rows.iter().map(|row| row.program.chars().count())).max(8);
    let mut text = String::new();
    for (line, [scenario, program]) in [["", ""], ["scenario", "program"]].into_iter().enumerate() {
        text += &format!("{scenario:names$}  {program:programs$}");
        text.extend(columns.iter().map(|column| format!("{:>10}", column.heading[line])));
        text.push('\n');
    }
    for row in rows {
        text += &format!("{:names$}  {:programs$}", row.scenario, row.program);
        text.extend(columns.iter().map(|column| {
            let figure = row.figures.get(column.key).map(|figure| show(figure, column.decimals));
            format!("{:>10}", figure.unwrap_or_default())
        }));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::{CPU_PER_EVENT, P50};

    fn row(program: &str, cpu: &[f64]) -> Row {
        let runs: Vec<Figures> = cpu.iter().map(|cpu| Figures::from([(CPU_PER_EVENT, *cpu)])).collect();
        Row::of("fold 3", program, &runs)
    }

    #[test]
    fn ratios_are_of_medians_in_one_scenario() {
        let report =
            Report { rows: vec![row("process", &[1.0, 9.0, 2.0]), row("plain Rust", &[10.0])], targets: Vec::new() };
        let ratio = |key| report.ratio("fold 3", ["process", "plain Rust"], key);
        assert_eq!((ratio(CPU_PER_EVENT), ratio(P50)), (Some(0.2), None));
        assert_eq!(report.ratio("fold 12", ["process", "plain Rust"], CPU_PER_EVENT), None);
    }

    #[test]
    fn saved_report_is_compared_row_by_row() {
        let of = |cpu| Report { rows: vec![row("process", &[cpu])], targets: Vec::new() };
        let saved: Report = serde_json::from_str(&serde_json::to_string(&of(4.0)).unwrap()).unwrap();
        let ratios = of(3.0).compared_with(&saved);
        assert_eq!(ratios[0].median(CPU_PER_EVENT), Some(0.75));
        assert!(Report::default().compared_with(&saved).is_empty());
    }

    #[test]
    fn table_has_only_columns_with_figures() {
        let text = table(&[row("process", &[12.345])], |figure, decimals| format!("{:.decimals$}", figure.median));
        assert!(text.contains("CPU µs") && text.contains("12.3") && !text.contains("p50"), "{text}");
    }

    #[test]
    fn target_is_met_up_to_its_limit() {
        assert!(Target::at_most("x", 0.2, 0.2).is_met);
        assert!(Target::at_most("x", 0.21, 0.2).line().starts_with("MISSED x: 0.210"));
    }
}
