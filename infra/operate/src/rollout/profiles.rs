//! The known profiles: those for which a preview can say by name who moves.

use crate::comparison::Sites;
use anyhow::{Context as _, Result, ensure};
use playback::contract::is_id;
use std::collections::BTreeSet;
use std::path::Path;

/// Maximum number of profiles read from a local cloud's tables. A preview should not wait for more.
const OF_TABLES: usize = 10_000;

/// Profiles, and where they come from.
#[derive(Debug, Clone, Default)]
pub struct Profiles {
    /// Their ids.
    pub ids: BTreeSet<String>,
    /// Where they come from, as the words after "profiles".
    pub(super) from: String,
}

impl Profiles {
    /// These profiles. `from` follows "Of 7 profiles" in the text.
    pub fn of(ids: impl IntoIterator<Item = String>, from: impl Into<String>) -> Self {
        Self { ids: ids.into_iter().collect(), from: from.into() }
    }

    /// The profiles in a file (`-` = standard input), one id per line.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is not a valid id.
    pub(super) fn of_file(file: &Path) -> Result<Self> {
        let text = match file == Path::new("-") {
            true => std::io::read_to_string(std::io::stdin()),
            false => std::fs::read_to_string(file),
        };
        let text = text.with_context(|| format!("reading {}", file.display()))?;
        Ok(Self::of(parse(&text)?, format!("of {}", file.display())))
    }

    /// The profiles in the tables of a local cloud's regions, up to [`OF_TABLES`].
    ///
    /// # Errors
    /// If a table cannot be read.
    pub(super) async fn of_tables(sites: &Sites) -> Result<Self> {
        let mut ids = BTreeSet::new();
        for (region, site) in sites.reached() {
            let client = aws_sdk_dynamodb::Client::new(&site.sdk);
            for table in &site.tables {
                let scan = client.scan().table_name(table).projection_expression("pk");
                let mut items = scan.into_paginator().items().send();
                while let Some(item) = items.next().await {
                    let item = item.with_context(|| format!("scanning {table} in {region}"))?;
                    // Our own marker items are not profile ids.
                    let id = item.get("pk").and_then(|pk| pk.as_s().ok()).filter(|id| is_id(id));
                    ids.extend(id.cloned());
                    if ids.len() >= OF_TABLES {
                        return Ok(Self::of(ids, "of the local cloud's tables (the first ones)"));
                    }
                }
            }
        }
        Ok(Self::of(ids, "of the local cloud's tables"))
    }

    /// Adds the profiles in lists.
    pub(super) fn add_listed<'a>(&mut self, listed: impl Iterator<Item = &'a String>) {
        let before = self.ids.len();
        self.ids.extend(listed.cloned());
        match (before, self.ids.len()) {
            (0, _) => self.from = "in the lists".to_owned(),
            (before, now) if now > before => self.from += " and in the lists",
            _ => {}
        }
    }
}

fn parse(text: &str) -> Result<Vec<String>> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            ensure!(is_id(line), "line {number} is not a profile id: {line:?}. Write one id per line");
            Ok(line.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_one_id_per_line() {
        assert_eq!(parse("p1\n\n  p2 \r\n").unwrap(), ["p1", "p2"]);
        let refused = parse("p1\np2 p3\n").unwrap_err().to_string();
        assert!(refused.contains("line 2 is not a profile id"), "{refused}");
    }
}
