//! The committed figures, and how a run compares with them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// What a path takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spent {
    /// Instructions executed, those of the C library included.
    pub(crate) instructions: u64,
    /// Calls of `malloc`, `calloc`, `realloc` and the like.
    pub(crate) allocations: u64,
}

/// What the figures depend on beside the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toolchain {
    /// Figures of different architectures cannot be compared.
    pub(crate) architecture: String,
    /// The compiler's version.
    pub(crate) rustc: String,
    /// The C library's version, whose allocator and copying count too.
    pub(crate) libc: String,
    /// Valgrind's version.
    pub(crate) valgrind: String,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { architecture, rustc, libc, valgrind } = self;
        write!(f, "{rustc}, {libc}, {valgrind}, {architecture}")
    }
}

/// `figures.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    /// Where they were counted.
    pub(crate) counted_with: Toolchain,
    /// By path.
    pub(crate) paths: BTreeMap<String, Spent>,
}

/// A path in this run, beside what is committed.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// The path's name.
    pub(crate) path: &'static str,
    /// How many events it handles.
    pub(crate) events: u64,
    /// What it took in this run.
    pub(crate) spent: Spent,
    /// What is committed, if it is comparable.
    pub(crate) committed: Option<Spent>,
}

/// How a number stands against the committed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// More than 10% above.
    Above,
    Within,
    /// More than 10% below.
    Below,
}

impl Standing {
    fn of(now: u64, committed: u64) -> Self {
        match (now * 10, committed) {
            (now, committed) if now > committed * 11 => Self::Above,
            (now, committed) if now < committed * 9 => Self::Below,
            _ => Self::Within,
        }
    }
}

impl Comparison {
    /// What is wrong with the path; nothing if its list is empty.
    pub(crate) fn failures(&self) -> Vec<String> {
        match self.committed {
            None => vec![format!("{} is not in figures.json", self.path)],
            Some(_) => self.changes(Standing::Above).collect(),
        }
    }

    /// What has become cheaper.
    pub(crate) fn savings(&self) -> Vec<String> {
        self.changes(Standing::Below).collect()
    }

    /// Sentences about the measures that stand like this.
    fn changes(&self, standing: Standing) -> impl Iterator<Item = String> {
        let measures = self.committed.into_iter().flat_map(|committed| {
            [
                ("instructions", self.spent.instructions, committed.instructions),
                ("allocations", self.spent.allocations, committed.allocations),
            ]
        });
        let of_this = measures.filter(move |(_, now, committed)| Standing::of(*now, *committed) == standing);
        let direction = if standing == Standing::Above { "above" } else { "below" };
        of_this.map(move |(measure, now, committed)| {
            let (now, committed) = (thousands(now), thousands(committed));
            format!("{} takes {now} {measure}: more than 10% {direction} the committed {committed}", self.path)
        })
    }
}

/// The table of a run, in Markdown.
pub(crate) fn table(comparisons: &[Comparison]) -> String {
    let heads =
        ["path", "instructions", "per event", "committed", "ratio", "allocations", "per event", "committed", "ratio"];
    let mut rows = vec![heads.map(str::to_owned)];
    for Comparison { path, events, spent, committed } in comparisons {
        let per_event = |n: u64| n as f64 / *events as f64;
        let ratio = |now: u64, of: fn(Spent) -> u64| match committed.map(of) {
            None => ["none".to_owned(), String::new()],
            Some(0) => ["0".to_owned(), String::new()],
            Some(committed) => [thousands(committed), format!("{:.3}", now as f64 / committed as f64)],
        };
        let [instructions, instructions_ratio] = ratio(spent.instructions, |spent| spent.instructions);
        let [allocations, allocations_ratio] = ratio(spent.allocations, |spent| spent.allocations);
        rows.push([
            (*path).to_owned(),
            thousands(spent.instructions),
            thousands(per_event(spent.instructions).round() as u64),
            instructions,
            instructions_ratio,
            thousands(spent.allocations),
            format!("{:.1}", per_event(spent.allocations)),
            allocations,
            allocations_ratio,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let (name, numbers) = (&row[0], row.iter().zip(widths).skip(1));
        let _ = write!(text, "| {name:<0$} |", widths[0]);
        numbers.for_each(|(cell, width)| {
            let _ = write!(text, " {cell:>width$} |");
        });
        text.push('\n');
        if number == 0 {
            let rules = widths.iter().skip(1).map(|width| format!("{:-<width$}:|", "-", width = width + 1));
            let _ = writeln!(text, "|{:-<1$}|{2}", "-", widths[0] + 2, rules.collect::<String>());
        }
    }
    text
}

/// A number with commas between thousands.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against(now: (u64, u64), committed: Option<(u64, u64)>) -> Comparison {
        let spent = |(instructions, allocations)| Spent { instructions, allocations };
        Comparison { path: "edge/1", events: 1, spent: spent(now), committed: committed.map(spent) }
    }

    #[track_caller]
    fn check(now: (u64, u64), committed: Option<(u64, u64)>, failures: usize, savings: usize) {
        let comparison = against(now, committed);
        let found = (comparison.failures(), comparison.savings());
        assert_eq!((found.0.len(), found.1.len()), (failures, savings), "{found:?}");
    }

    #[test]
    fn only_more_than_ten_percent_above_fails() {
        check((1_100, 10), Some((1_000, 10)), 0, 0);
        check((1_101, 10), Some((1_000, 10)), 1, 0);
        check((1_000, 12), Some((1_000, 10)), 1, 0);
        check((1_200, 12), Some((1_000, 10)), 2, 0);
        check((1_000, 1), Some((1_000, 0)), 1, 0);
    }

    #[test]
    fn more_than_ten_percent_below_can_be_blessed() {
        check((900, 10), Some((1_000, 10)), 0, 0);
        check((899, 10), Some((1_000, 10)), 0, 1);
        check((899, 12), Some((1_000, 10)), 1, 1);
        check((1_000, 0), Some((1_000, 0)), 0, 0);
    }

    #[test]
    fn path_without_committed_figure_fails() {
        check((1, 1), None, 1, 0);
    }

    #[test]
    fn failure_names_path_measure_and_both_numbers() {
        let failures = against((1_234_567, 10), Some((1_000_000, 10))).failures();
        assert_eq!(failures, ["edge/1 takes 1,234,567 instructions: more than 10% above the committed 1,000,000"]);
    }

    #[test]
    fn table_is_markdown() {
        let rows = [against((12_345, 2), Some((10_000, 2))), against((7, 0), None)];
        let expected = "\
| path   | instructions | per event | committed | ratio | allocations | per event | committed | ratio |
|--------|-------------:|----------:|----------:|------:|------------:|----------:|----------:|------:|
| edge/1 |       12,345 |    12,345 |    10,000 | 1.234 |           2 |       2.0 |         2 | 1.000 |
| edge/1 |            7 |         7 |      none |       |           0 |       0.0 |      none |       |
";
        assert_eq!(table(&rows), expected);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
