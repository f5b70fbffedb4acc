//! Changes the document: reads it in all regions, changes it, checks it against the deployment, and
//! writes it to every region that answers.
//!
//! **Invariant:** nothing is written that functions would not follow, and no session is sent to a
//! region that does not answer (test `no_session_is_sent_to_a_region_that_is_down`).
//!
//! Parameter Store has no conditional write. If two operators write at the same time, the version
//! numbers show it afterwards, and both are told.

use super::copies::Copies;
use super::document::{Route, check, difference, read, rerouted, routes, same, text};
use super::parameter::{Copy, Parameter};
use crate::stack::Deployment;
use anyhow::{Result, bail};
use futures::future::join_all;
use lambda::routing::MAX_AGE;
use playback::routing::Document;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Exit status when only some regions were written, or another operator wrote at the same time.
const IN_PART: u8 = 2;

/// A change of the document.
#[derive(Debug, Clone, Copy)]
pub struct Edit<'a> {
    /// The deployment to change.
    pub deployment: &'a Deployment,
    /// The region whose copy to start from, if the regions may differ.
    pub from: Option<&'a str>,
    /// Whether to write nothing.
    pub dry_run: bool,
}

/// The result of an edit.
#[derive(Debug, Default)]
pub struct Edited {
    /// The changes, one line each, for each group of regions (with their versions) that have the
    /// same document now.
    changes: Vec<(Vec<String>, Vec<String>)>,
    /// The regions that were written, and their new versions.
    written: Vec<(String, i64)>,
    /// The regions that were not reached or refused the document, and why.
    missed: Vec<(String, String)>,
    /// Versions that another operator wrote between our read and our write, and that are now
    /// overwritten.
    overtaken: Vec<(String, i64)>,
    dry_run: bool,
    /// The command that copies the document to the missed regions.
    again: String,
}

impl Edit<'_> {
    /// Applies `change` to the document, and writes the result.
    ///
    /// # Errors
    /// If no region is reached, the regions differ and `from` does not choose one, the document
    /// cannot be read, `change` or the deployment refuses it, or no region accepts it.
    pub async fn run(&self, change: impl FnOnce(&Document) -> Result<Document>) -> Result<Edited> {
        let copies = Copies::read(self.deployment).await;
        let (region, copy) = copies.chosen(self.from)?;
        let document = read(&copy.text).map_err(|error| {
            error.context(format!(
                "the document in {region} cannot be changed, only replaced, with `routing set --file`"
            ))
        })?;
        self.write(&copies, region, change(&document)?).await
    }

    /// Replaces the document with this one.
    ///
    /// # Errors
    /// As [`Edit::run`], but the current document may be unreadable.
    pub async fn replace(&self, document: Document) -> Result<Edited> {
        let copies = Copies::read(self.deployment).await;
        let (region, _) = copies.chosen(self.from)?;
        self.write(&copies, region, document).await
    }

    async fn write(&self, copies: &Copies, chosen: &str, document: Document) -> Result<Edited> {
        let Self { deployment, dry_run, .. } = *self;
        let after = check(&document, &deployment.regions, deployment.has_standby)?;
        let text = text(&document)?;
        let mut edited = Edited { dry_run, ..Edited::default() };
        for (region, error) in copies.missed() {
            edited.missed.push((region.to_owned(), format!("{error:#}")));
        }
        let behind: Vec<(&str, &Copy)> = copies.reached().filter(|(_, copy)| !same(&copy.text, &text)).collect();
        for (region, copy) in &behind {
            let lines = self.changes(copies, copy, &document, &after)?;
            let region = format!("{region} (version {})", copy.version);
            match edited.changes.iter_mut().find(|(_, others)| *others == lines) {
                Some((regions, _)) => regions.push(region),
                None => edited.changes.push((vec![region], lines)),
            }
        }
        if !dry_run {
            let puts = behind.iter().filter_map(|(region, copy)| {
                let parameter = Parameter::of(deployment.sdks.get(*region)?, &deployment.routing_parameter);
                let text = &text;
                Some(async move { (*region, copy.version, parameter.write(text).await) })
            });
            for (region, before, put) in join_all(puts).await {
                match put {
                    Ok(version) => {
                        edited.overtaken.extend((before + 1..version).map(|version| (region.to_owned(), version)));
                        edited.written.push((region.to_owned(), version));
                    }
                    Err(error) => edited.missed.push((region.to_owned(), format!("{error:#}"))),
                }
            }
            if edited.written.is_empty() && !behind.is_empty() {
                bail!("no region accepted it:{}", list(&edited.missed));
            }
        }
        let from = edited.written.first().map_or(chosen, |(region, _)| region);
        edited.again = format!("cargo playhead routing set --from {from}{}", deployment.arguments());
        Ok(edited)
    }

    /// The changes for a region that has this copy, one line each.
    fn changes(&self, copies: &Copies, copy: &Copy, document: &Document, after: &[Route]) -> Result<Vec<String>> {
        let regions = &self.deployment.regions;
        // With an invalid copy, the functions follow their last good one, which is unknown here.
        let before = read(&copy.text).and_then(|before| Ok(routes(&before, regions)?));
        let (before, mut lines) = match before {
            Ok(before) => (before, Vec::new()),
            Err(error) => (routes(&Document::default(), regions)?, vec![format!("could not be followed: {error:#}")]),
        };
        for (before, Route { home, region, target }) in rerouted(&before, after) {
            if let Some((_, why)) = copies.missed().find(|(missed, _)| missed == target) {
                bail!(
                    "the sessions of {region} would go to {target}, which was not reached: {why:#}\nChoose a region that answers, or wait until it does"
                );
            }
            lines.push(format!("sessions of {region} ({home}): {} -> {target}", before.target));
        }
        let before = serde_json::from_str(&copy.text).unwrap_or_else(|_| Value::String(copy.text.clone()));
        lines.extend(difference(&before, document)?);
        Ok(lines)
    }
}

impl Edited {
    /// What was done, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (regions, lines) in &self.changes {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}:\n  {}", regions.join(", "), lines.join("\n  "));
        }
        let follow = MAX_AGE.as_secs();
        let written: Vec<String> =
            self.written.iter().map(|(region, version)| format!("{region} version {version}")).collect();
        let _ = match (self.changes.is_empty(), self.dry_run) {
            (true, _) => writeln!(text, "Nothing changes: every region that answers already has this document."),
            (false, true) => writeln!(text, "Nothing was written. This is what would be."),
            (false, false) => {
                writeln!(text, "Written: {}. Functions follow within {follow} seconds.", written.join(", "))
            }
        };
        text
    }

    /// What is left for the operator to do, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let mut text = String::new();
        if !self.missed.is_empty() {
            let _ = writeln!(
                text,
                "NOT REACHED, and probably unchanged:{}\nWhen they are back, copy the document there: {}",
                list(&self.missed),
                self.again
            );
        }
        for (region, version) in &self.overtaken {
            let _ = writeln!(
                text,
                "ANOTHER OPERATOR wrote version {version} of {region} at the same time. It is overwritten now: see \
                 `routing history`."
            );
        }
        (!text.is_empty()).then_some(text)
    }

    /// The exit status: 0 only if every region was written and nothing was overwritten.
    #[must_use]
    pub fn status(&self) -> ExitCode {
        if self.warning().is_some() { ExitCode::from(IN_PART) } else { ExitCode::SUCCESS }
    }
}

fn list(missed: &[(String, String)]) -> String {
    missed.iter().map(|(region, why)| format!("\n  {region}: {why}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::change::{drain, restore};
    use super::super::testing::{Ssm, deployment};
    use super::*;
    use playback::routing::Override;

    const NONE: &str = r#"{"version":1}"#;
    const DRAINED: &str = r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"us-east-1"}}}"#;

    async fn two() -> (Ssm, Ssm) {
        tokio::join!(Ssm::start(&[NONE]), Ssm::start(&[NONE]))
    }

    fn edit(deployment: &Deployment) -> Edit<'_> {
        Edit { deployment, from: None, dry_run: false }
    }

    async fn drain_west(edit: Edit<'_>) -> Result<Edited> {
        edit.run(|document| drain(document, &edit.deployment.regions, "us-west-2", "us-east-1")).await
    }

    fn because(refused: Result<Edited>) -> String {
        format!("{:#}", refused.unwrap_err())
    }

    #[tokio::test]
    async fn all_regions_get_the_same_text_once() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        let edited = drain_west(edit(&deployment)).await.unwrap();
        assert_eq!(east.versions(), [NONE, DRAINED]);
        assert_eq!(west.versions(), [NONE, DRAINED]);
        let expect = "\
us-east-1 (version 1), us-west-2 (version 1):
  sessions of us-west-2 (usw2): us-west-2 -> us-east-1
  + regions.us-west-2.state: \"draining\"
  + regions.us-west-2.to: \"us-east-1\"
Written: us-east-1 version 2, us-west-2 version 2. Functions follow within 10 seconds.
";
        assert_eq!((edited.text().as_str(), edited.warning()), (expect, None));

        let again = drain_west(edit(&deployment)).await.unwrap();
        assert!(again.text().starts_with("Nothing changes"), "{again:?}");
        assert_eq!(east.versions().len(), 2);

        let restored = edit(&deployment).run(|document| restore(document, &deployment.regions, "us-west-2")).await;
        assert!(restored.unwrap().text().contains("sessions of us-west-2 (usw2): us-east-1 -> us-west-2"));
        assert_eq!(west.versions(), [NONE, DRAINED, NONE]);
    }

    #[tokio::test]
    async fn dry_run_shows_the_changes_and_writes_nothing() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        let edited = drain_west(Edit { dry_run: true, ..edit(&deployment) }).await.unwrap();
        assert!(edited.text().contains("us-west-2 -> us-east-1") && edited.text().ends_with("what would be.\n"));
        assert_eq!((east.versions().len(), west.versions().len()), (1, 1));
    }

    #[tokio::test]
    async fn region_can_be_drained_while_down_and_catches_up_later() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        west.set_down(true);
        let edited = drain_west(edit(&deployment)).await.unwrap();
        assert_eq!((east.versions().len(), west.versions().len()), (2, 1));
        let warning = edited.warning().unwrap();
        assert!(warning.contains("us-west-2: ") && warning.contains("routing set --from us-east-1"), "{warning}");
        assert_eq!(edited.status(), ExitCode::from(2));

        west.set_down(false);
        let differ = because(drain_west(edit(&deployment)).await);
        assert!(differ.contains("The newest is --from us-east-1"), "{differ}");
        let copied = Edit { from: Some("us-east-1"), ..edit(&deployment) }.run(|document| Ok(document.clone())).await;
        assert_eq!(copied.unwrap().warning(), None);
        assert_eq!(west.versions(), [NONE, DRAINED]);
        assert_eq!(east.versions(), [NONE, DRAINED], "it already has it");
    }

    #[tokio::test]
    async fn no_session_is_sent_to_a_region_that_is_down() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        east.set_down(true);
        let refused = because(drain_west(edit(&deployment)).await);
        assert!(refused.contains("would go to us-east-1, which was not reached"), "{refused}");
        east.set_down(false);
        drain_west(edit(&deployment)).await.unwrap();
        west.set_down(true);
        let restored = edit(&deployment).run(|document| restore(document, &deployment.regions, "us-west-2")).await;
        assert!(because(restored).contains("would go to us-west-2"));
        assert_eq!(east.versions().len(), 2);
    }

    #[tokio::test]
    async fn edit_fails_if_no_region_answers_or_accepts_it() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        east.set_read_only(true);
        west.set_read_only(true);
        assert!(because(drain_west(edit(&deployment)).await).contains("no region accepted it:\n  us-east-1: "));
        east.set_read_only(false);
        let edited = drain_west(edit(&deployment)).await.unwrap();
        assert!(edited.warning().unwrap().contains("us-west-2: writing"), "{edited:?}");
        east.set_down(true);
        west.set_down(true);
        assert!(because(drain_west(edit(&deployment)).await).contains("no region was reached:\n  us-east-1: "));
    }

    #[tokio::test]
    async fn invalid_document_can_only_be_replaced() {
        let (east, west) = tokio::join!(Ssm::start(&["{"]), Ssm::start(&["{"]));
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        assert!(because(drain_west(edit(&deployment)).await).contains("only replaced, with `routing set --file`"));
        let document = Document { log: Override::Standby, ..Document::default() };
        let refused =
            Edit { deployment: &Deployment { has_standby: false, ..deployment.clone() }, ..edit(&deployment) };
        assert!(because(refused.replace(document.clone()).await).contains("StandbyLog=none"));
        let edited = edit(&deployment).replace(document).await.unwrap();
        assert!(edited.text().contains("could not be followed: "), "{edited:?}");
        assert_eq!(west.versions()[1..], [r#"{"version":1,"log":"standby"}"#]);
    }

    #[tokio::test]
    async fn concurrent_write_is_reported() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        let edit = edit(&deployment);
        let edited = edit.run(|document| {
            east.put("another one's");
            drain(document, &deployment.regions, "us-west-2", "us-east-1")
        });
        let warning = edited.await.unwrap().warning().unwrap();
        assert!(warning.contains("version 2 of us-east-1") && !warning.contains("of us-west-2"), "{warning}");
    }

    #[tokio::test]
    async fn region_that_refuses_connections_is_skipped_in_time() {
        let east = Ssm::start(&[NONE]).await;
        let gone = Ssm::nowhere().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &gone)]);
        let edited = drain_west(edit(&deployment)).await.unwrap();
        assert!(edited.warning().unwrap().contains("us-west-2: reading"), "{edited:?}");
        assert_eq!(east.versions(), [NONE, DRAINED]);
    }
}
