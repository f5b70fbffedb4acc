//! Changes the rollout: applies the change to the document, previews it, checks the evidence, and
//! writes it in all regions.
//!
//! **Invariant:** without `--force` the share of async is raised only if the last hour's
//! comparison, over all regions, allows it (test `async_is_raised_only_on_evidence`).

use super::change::{Change, nobody_moved};
use super::preview::Preview;
use super::profiles::Profiles;
use super::rule::{Rule, promotes};
use crate::comparison::{Found, Sites, last_hour};
use crate::routing::{Edit, Edited};
use anyhow::{Context as _, Result, bail};
use playback::rollout::Share;
use playback::routing::Document;
use std::fmt::Write as _;
use std::process::ExitCode;

/// The result of a change.
#[derive(Debug)]
pub struct Done {
    /// Who moves.
    pub preview: Preview,
    /// The last hour's comparison, if async is raised.
    pub evidence: Option<Found>,
    /// The objections that were overridden. In a dry run without `force`, those that would refuse
    /// the change.
    pub objections: Vec<String>,
    /// What was written where.
    pub edited: Edited,
    has_effect: bool,
    forced: bool,
}

/// Says that the rollout has no effect without a legacy system.
pub(super) const NO_EFFECT: &str =
    "The stack has no LegacyEndpoint: everybody is async, and the rollout has no effect until you set one.\n";

/// Makes this change, if the rule allows it. `profiles` are the known ones, for the preview.
///
/// # Errors
/// If the change is invalid, the rule refuses it, or as [`Edit::run`]. In a dry run the rule
/// refuses nothing; its objections are returned.
pub async fn set(edit: Edit<'_>, sites: &Sites, change: &Change, rule: &Rule, profiles: Profiles) -> Result<Done> {
    let has_effect = sites.may_have_legacy();
    // Read the reports first, since the document is then read, changed and written without a pause.
    let may_promote =
        has_effect && (change.asynchronous.is_some_and(|share| share > Share::NONE) || change.salt.is_some());
    let found = if may_promote { Some(last_hour(sites).await) } else { None };
    let (mut preview, mut evidence, mut objections) = (None, None, Vec::new());
    let edited = edit.run(|document| {
        let before = match &document.rollout {
            Some(rollout) => rollout.clone(),
            None => nobody_moved(change.salt.as_deref().unwrap_or(&edit.deployment.name))?,
        };
        let after = change.apply(&before)?;
        if let Some(found) = found.filter(|_| promotes(&before, &after)) {
            objections = rule.objections(&found);
            evidence = Some(found);
        }
        if !objections.is_empty() && !rule.force && !edit.dry_run {
            bail!("async stays at {}:{}\nTo raise it anyway, pass --force", before.async_share(), list(&objections));
        }
        preview = Some(Preview::of(before, after.clone(), profiles));
        Ok(Document { rollout: Some(after), ..document.clone() })
    });
    let edited = edited.await?;
    let preview = preview.context("the document was not changed")?;
    Ok(Done { preview, evidence, objections, edited, has_effect, forced: rule.force })
}

fn list(objections: &[String]) -> String {
    objections.iter().map(|objection| format!("\n  {objection}")).collect()
}

impl Done {
    /// What was done, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.preview.text();
        if let Some(found) = &self.evidence {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "In the last hour: {}", found.line());
        }
        text + "\n" + &self.edited.text()
    }

    /// Warnings for the operator, if any.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let mut text = String::new();
        if !self.has_effect {
            text.push_str(NO_EFFECT);
        }
        text.extend(self.preview.warning());
        if !self.objections.is_empty() {
            let what = if self.forced { "FORCED, despite this:" } else { "WOULD BE REFUSED without --force:" };
            let _ = writeln!(text, "{what}{}", list(&self.objections));
        }
        text.extend(self.edited.warning());
        (!text.is_empty()).then_some(text)
    }

    /// The exit status: 1 for a dry run of a change that would be refused, else as
    /// [`Edited::status`].
    #[must_use]
    pub fn status(&self) -> ExitCode {
        match self.objections.is_empty() || self.forced {
            true => self.edited.status(),
            false => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::testing::{Region, report, sites};
    use crate::routing::testing::{Ssm, deployment};
    use crate::stack::Deployment;
    use lambda::clock::now_ms;

    const SHADOWED: &str = r#"{"version":1,"log":"standby","rollout":{"salt":"s","async":"1%","shadow":"100%"}}"#;

    fn to(words: &str) -> Change {
        let words: Vec<_> = words.split(' ').map(|word| word.parse().unwrap()).collect();
        Change::of(&words, None, Vec::new()).unwrap()
    }

    async fn done(deployment: &Deployment, sites: &Sites, words: &str, rule: Rule, dry_run: bool) -> Result<Done> {
        set(Edit { deployment, from: None, dry_run }, sites, &to(words), &rule, Profiles::default()).await
    }

    fn because(refused: Result<Done>) -> String {
        format!("{:#}", refused.unwrap_err())
    }

    #[tokio::test]
    async fn async_is_raised_only_on_evidence() {
        let (ssm, other_ssm) = tokio::join!(Ssm::start(&[SHADOWED]), Ssm::start(&[SHADOWED]));
        let deployment = deployment(&[("us-east-1", &ssm), ("us-west-2", &other_ssm)]);
        let (east, west) = tokio::join!(Region::start(), Region::start());
        let both = sites(vec![("us-east-1", Ok(east.site(true))), ("us-west-2", Ok(west.site(true)))]);
        let rule = Rule::default;
        let raise = |sites: Sites| {
            let deployment = &deployment;
            async move { done(deployment, &sites, "async=25%", rule(), false).await }
        };

        east.keep(now_ms() - 2 * 3_600_000, &report(5_000, 5_000));
        east.keep(now_ms() - 60_000, &report(60, 60));
        let refused = because(raise(both.clone()).await);
        assert!(refused.contains("async stays at 1%:\n  60 sessions were compared"), "{refused}");
        assert!(refused.ends_with("To raise it anyway, pass --force"), "{refused}");

        west.keep(now_ms() - 60_000, &report(60, 59));
        let refused = because(raise(both.clone()).await);
        assert!(refused.contains("99.16% of 120 sessions match, and 99.9% must"), "{refused}");

        west.keep(now_ms() - 60_000, &report(2_000, 2_000));
        let without = sites(vec![("us-east-1", Ok(east.site(true))), ("us-west-2", Ok(west.site(false)))]);
        assert!(because(raise(without).await).contains("nothing is compared in us-west-2"));
        let down = sites(vec![("us-east-1", Ok(east.site(true))), ("us-west-2", Err("it is down".into()))]);
        assert!(because(raise(down).await).contains("of us-west-2 is unavailable: it is down"));
        assert_eq!((ssm.versions().len(), other_ssm.versions().len()), (1, 1), "a refused change is not written");

        let raised = raise(both).await.unwrap();
        let text = raised.text();
        assert!(text.contains("24.00% of all profiles move shadow -> async"), "{text}");
        assert!(text.contains("In the last hour: 2120 sessions compared, 99.95% match"), "{text}");
        assert!(text.ends_with("Functions follow within 10 seconds.\n") && raised.warning().is_none(), "{text}");
        let expect = SHADOWED.replace("\"1%\"", "\"25%\"");
        assert_eq!((&ssm.versions()[1..], &other_ssm.versions()[1..]), (&[expect.clone()][..], &[expect][..]));
    }

    #[tokio::test]
    async fn force_overrides_and_dry_run_shows_the_objections() {
        let ssm = Ssm::start(&[SHADOWED]).await;
        let deployment = deployment(&[("us-east-1", &ssm)]);
        let east = Region::start().await;
        let sites = sites(vec![("us-east-1", Ok(east.site(true)))]);
        let tried = done(&deployment, &sites, "async=2%", Rule::default(), true).await.unwrap();
        assert!(tried.warning().unwrap().contains("WOULD BE REFUSED without --force:\n  0 sessions"), "{tried:?}");
        assert_eq!((tried.status(), ssm.versions().len()), (ExitCode::FAILURE, 1));
        let forced = done(&deployment, &sites, "async=2%", Rule { force: true, ..Rule::default() }, false).await;
        let forced = forced.unwrap();
        assert!(forced.warning().unwrap().contains("FORCED, despite this:\n  0 sessions"), "{forced:?}");
        assert_eq!((forced.status(), ssm.versions().len()), (ExitCode::SUCCESS, 2));
    }

    #[tokio::test]
    async fn shadowing_and_going_back_need_no_evidence() {
        let ssm = Ssm::start(&[r#"{"version":1}"#]).await;
        let deployment = deployment(&[("us-east-1", &ssm)]);
        let east = Region::start().await;
        let sites = sites(vec![("us-east-1", Ok(east.site(false)))]);
        let first = done(&deployment, &sites, "shadow=100%", Rule::default(), false).await.unwrap();
        assert_eq!((first.warning(), first.evidence.is_none()), (None, true));
        let rollout = r#"{"version":1,"rollout":{"salt":"playhead-test","async":"0%","shadow":"100%"}}"#;
        assert_eq!(ssm.versions()[1], rollout);
        let back = done(&deployment, &sites, "shadow=50%", Rule::default(), false).await.unwrap();
        assert!(back.warning().unwrap().contains("PROFILES MOVE BACK"), "{back:?}");
    }

    #[tokio::test]
    async fn without_a_legacy_system_no_effect_is_reported() {
        let ssm = Ssm::start(&[r#"{"version":1}"#]).await;
        let deployment = deployment(&[("us-east-1", &ssm)]);
        let site = crate::comparison::Site { legacy_endpoint: None, ..Region::start().await.site(false) };
        let sites = sites(vec![("us-east-1", Ok(site))]);
        let set = done(&deployment, &sites, "async=50% shadow=100%", Rule::default(), false).await.unwrap();
        assert!(set.warning().unwrap().starts_with("The stack has no LegacyEndpoint: everybody is async"), "{set:?}");
        assert_eq!(ssm.versions().len(), 2);
    }
}
