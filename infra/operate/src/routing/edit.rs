//! Changing the document: read in all regions, changed, held against the deployment, and written to every region that answers.
//!
//! **Invariant:** nothing is written that functions would not follow, and no session is sent to a region that does not answer (test
//! `nothing_is_sent_to_a_region_that_does_not_answer`).
//!
//! Parameter Store has no conditional write. Two who write at the same moment are told afterwards, by the versions.

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

/// Exit status when some regions were written and others not, or somebody else wrote at the same time.
const IN_PART: u8 = 2;

/// How a document is changed.
#[derive(Debug, Clone, Copy)]
pub struct Edit<'a> {
    /// Where.
    pub deployment: &'a Deployment,
    /// The region whose copy is meant, if they may differ.
    pub from: Option<&'a str>,
    /// Whether nothing is written.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What changes, for regions that have the same now: the regions with their versions, and a line a change.
    changes: Vec<(Vec<String>, Vec<String>)>,
    /// The regions that were written, and the versions of their copies now.
    written: Vec<(String, i64)>,
    /// The regions that were not reached, or did not take it, and why.
    missed: Vec<(String, String)>,
    /// The regions where somebody else's version, that one, came and went between reading and writing.
    overtaken: Vec<(String, i64)>,
    dry_run: bool,
    /// The command that brings the document to the regions that miss it.
    again: String,
}

impl Edit<'_> {
    /// Makes of the document what `change` makes of it.
    ///
    /// # Errors
    /// If no region is reached, they differ and nobody says which is right, the document cannot be read, `change` or the deployment refuses it, or
    /// no region takes it.
    pub async fn run(&self, change: impl FnOnce(&Document) -> Result<Document>) -> Result<Outcome> {
        let copies = Copies::read(self.deployment).await;
        let (region, copy) = copies.meant(self.from)?;
        let document = read(&copy.text).map_err(|error| {
            error.context(format!(
                "the document in {region} cannot be changed, only replaced, with `routing set --file`"
            ))
        })?;
        self.write(&copies, region, change(&document)?).await
    }

    /// Puts this document in the place of whatever there is.
    ///
    /// # Errors
    /// As [`Edit::run`], except that what is there need not be readable.
    pub async fn replace(&self, document: Document) -> Result<Outcome> {
        let copies = Copies::read(self.deployment).await;
        let (region, _) = copies.meant(self.from)?;
        self.write(&copies, region, document).await
    }

    async fn write(&self, copies: &Copies, meant: &str, document: Document) -> Result<Outcome> {
        let Self { deployment, dry_run, .. } = *self;
        let after = check(&document, &deployment.regions, deployment.has_standby)?;
        let text = text(&document)?;
        let mut outcome = Outcome { dry_run, ..Outcome::default() };
        for (region, error) in copies.missed() {
            outcome.missed.push((region.to_owned(), format!("{error:#}")));
        }
        let behind: Vec<(&str, &Copy)> = copies.reached().filter(|(_, copy)| !same(&copy.text, &text)).collect();
        for (region, copy) in &behind {
            let lines = self.changes(copies, copy, &document, &after)?;
            let region = format!("{region} (version {})", copy.version);
            match outcome.changes.iter_mut().find(|(_, others)| *others == lines) {
                Some((regions, _)) => regions.push(region),
                None => outcome.changes.push((vec![region], lines)),
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
                        outcome.overtaken.extend((before + 1..version).map(|version| (region.to_owned(), version)));
                        outcome.written.push((region.to_owned(), version));
                    }
                    Err(error) => outcome.missed.push((region.to_owned(), format!("{error:#}"))),
                }
            }
            if outcome.written.is_empty() && !behind.is_empty() {
                bail!("no region took it:{}", list(&outcome.missed));
            }
        }
        let from = outcome.written.first().map_or(meant, |(region, _)| region);
        outcome.again = format!("cargo playhead routing set --from {from}{}", deployment.arguments());
        Ok(outcome)
    }

    /// What changes for a region that has this copy, a line a change.
    fn changes(&self, copies: &Copies, copy: &Copy, document: &Document, after: &[Route]) -> Result<Vec<String>> {
        let regions = &self.deployment.regions;
        // Of what cannot be followed the functions follow nothing, but the last good copy, which nobody has here.
        let before = read(&copy.text).and_then(|before| Ok(routes(&before, regions)?));
        let (before, mut lines) = match before {
            Ok(before) => (before, Vec::new()),
            Err(error) => (routes(&Document::default(), regions)?, vec![format!("was not to be followed: {error:#}")]),
        };
        for (before, Route { home, region, target }) in rerouted(&before, after) {
            if let Some((_, why)) = copies.missed().find(|(missed, _)| missed == target) {
                bail!(
                    "the sessions of {region} would go to {target}, which was not reached: {why:#}\nName a region that answers, or wait until it does"
                );
            }
            lines.push(format!("sessions of {region} ({home}): {} -> {target}", before.target));
        }
        let before = serde_json::from_str(&copy.text).unwrap_or_else(|_| Value::String(copy.text.clone()));
        lines.extend(difference(&before, document)?);
        Ok(lines)
    }
}

impl Outcome {
    /// What was done, for a person.
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
            (true, _) => writeln!(text, "Nothing changes: every region that answers has this document already."),
            (false, true) => writeln!(text, "Nothing was written: this is what would be."),
            (false, false) => {
                writeln!(text, "Written: {}. Functions follow within {follow} seconds.", written.join(", "))
            }
        };
        text
    }

    /// What the operator must still do, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let mut text = String::new();
        if !self.missed.is_empty() {
            let _ = writeln!(
                text,
                "NOT REACHED, and probably as they were:{}\nWhen they are back, bring the document there: {}",
                list(&self.missed),
                self.again
            );
        }
        for (region, version) in &self.overtaken {
            let _ = writeln!(
                text,
                "SOMEBODY ELSE wrote version {version} of {region} at the same time, and it is overwritten: see `routing history`."
            );
        }
        (!text.is_empty()).then_some(text)
    }

    /// The exit status: 0 only if all is done.
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

    async fn drain_west(edit: Edit<'_>) -> Result<Outcome> {
        edit.run(|document| drain(document, &edit.deployment.regions, "us-west-2", "us-east-1")).await
    }

    fn because(refused: Result<Outcome>) -> String {
        format!("{:#}", refused.unwrap_err())
    }

    #[tokio::test]
    async fn all_regions_get_the_same_text_and_nothing_is_written_twice() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        let outcome = drain_west(edit(&deployment)).await.unwrap();
        assert_eq!(east.versions(), [NONE, DRAINED]);
        assert_eq!(west.versions(), [NONE, DRAINED]);
        let expect = "\
us-east-1 (version 1), us-west-2 (version 1):
  sessions of us-west-2 (usw2): us-west-2 -> us-east-1
  + regions.us-west-2.state: \"draining\"
  + regions.us-west-2.to: \"us-east-1\"
Written: us-east-1 version 2, us-west-2 version 2. Functions follow within 10 seconds.
";
        assert_eq!((outcome.text().as_str(), outcome.warning()), (expect, None));

        let again = drain_west(edit(&deployment)).await.unwrap();
        assert!(again.text().starts_with("Nothing changes"), "{again:?}");
        assert_eq!(east.versions().len(), 2);

        let restored = edit(&deployment).run(|document| restore(document, &deployment.regions, "us-west-2")).await;
        assert!(restored.unwrap().text().contains("sessions of us-west-2 (usw2): us-east-1 -> us-west-2"));
        assert_eq!(west.versions(), [NONE, DRAINED, NONE]);
    }

    #[tokio::test]
    async fn a_dry_run_says_the_same_and_writes_nothing() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        let outcome = drain_west(Edit { dry_run: true, ..edit(&deployment) }).await.unwrap();
        assert!(outcome.text().contains("us-west-2 -> us-east-1") && outcome.text().ends_with("what would be.\n"));
        assert_eq!((east.versions().len(), west.versions().len()), (1, 1));
    }

    #[tokio::test]
    async fn a_region_that_is_away_can_be_drained_and_gets_the_document_when_it_is_back() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        west.set_away(true);
        let outcome = drain_west(edit(&deployment)).await.unwrap();
        assert_eq!((east.versions().len(), west.versions().len()), (2, 1));
        let warning = outcome.warning().unwrap();
        assert!(warning.contains("us-west-2: ") && warning.contains("routing set --from us-east-1"), "{warning}");
        assert_eq!(outcome.status(), ExitCode::from(2));

        west.set_away(false);
        let differ = because(drain_west(edit(&deployment)).await);
        assert!(differ.contains("The newest is --from us-east-1"), "{differ}");
        let mended = Edit { from: Some("us-east-1"), ..edit(&deployment) }.run(|document| Ok(document.clone())).await;
        assert_eq!(mended.unwrap().warning(), None);
        assert_eq!(west.versions(), [NONE, DRAINED]);
        assert_eq!(east.versions(), [NONE, DRAINED], "it has it already");
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_region_that_does_not_answer() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        east.set_away(true);
        let refused = because(drain_west(edit(&deployment)).await);
        assert!(refused.contains("would go to us-east-1, which was not reached"), "{refused}");
        east.set_away(false);
        drain_west(edit(&deployment)).await.unwrap();
        west.set_away(true);
        let restored = edit(&deployment).run(|document| restore(document, &deployment.regions, "us-west-2")).await;
        assert!(because(restored).contains("would go to us-west-2"));
        assert_eq!(east.versions().len(), 2);
    }

    #[tokio::test]
    async fn without_any_region_or_with_none_that_takes_it_nothing_is_done() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        east.set_read_only(true);
        west.set_read_only(true);
        assert!(because(drain_west(edit(&deployment)).await).contains("no region took it:\n  us-east-1: "));
        east.set_read_only(false);
        let outcome = drain_west(edit(&deployment)).await.unwrap();
        assert!(outcome.warning().unwrap().contains("us-west-2: writing"), "{outcome:?}");
        east.set_away(true);
        west.set_away(true);
        assert!(because(drain_west(edit(&deployment)).await).contains("no region was reached:\n  us-east-1: "));
    }

    #[tokio::test]
    async fn what_cannot_be_followed_can_only_be_replaced() {
        let (east, west) = tokio::join!(Ssm::start(&["{"]), Ssm::start(&["{"]));
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        assert!(because(drain_west(edit(&deployment)).await).contains("only replaced, with `routing set --file`"));
        let document = Document { log: Override::Standby, ..Document::default() };
        let refused =
            Edit { deployment: &Deployment { has_standby: false, ..deployment.clone() }, ..edit(&deployment) };
        assert!(because(refused.replace(document.clone()).await).contains("StandbyLog=none"));
        let outcome = edit(&deployment).replace(document).await.unwrap();
        assert!(outcome.text().contains("was not to be followed: "), "{outcome:?}");
        assert_eq!(west.versions()[1..], [r#"{"version":1,"log":"standby"}"#]);
    }

    #[tokio::test]
    async fn who_writes_at_the_same_moment_is_told() {
        let (east, west) = two().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        let edit = edit(&deployment);
        let outcome = edit.run(|document| {
            east.put("another one's");
            drain(document, &deployment.regions, "us-west-2", "us-east-1")
        });
        let warning = outcome.await.unwrap().warning().unwrap();
        assert!(warning.contains("version 2 of us-east-1") && !warning.contains("of us-west-2"), "{warning}");
    }

    #[tokio::test]
    async fn a_region_of_which_nothing_listens_is_left_behind_in_time() {
        let east = Ssm::start(&[NONE]).await;
        let gone = Ssm::nowhere().await;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &gone)]);
        let outcome = drain_west(edit(&deployment)).await.unwrap();
        assert!(outcome.warning().unwrap().contains("us-west-2: reading"), "{outcome:?}");
        assert_eq!(east.versions(), [NONE, DRAINED]);
    }
}
