//! Simulated viewers with everything that can go wrong in transit. The views must be what the
//! simulator computes independently of the code under test.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use playhead_tests::sample::rename_profiles;
use simulate::expect::{Expected, check, expect};
use simulate::plan::Plan;
use simulate::send::{Auth, Pace, SendReport, Target, send};
use simulate::{Faults, Model};

use super::cloud::{Cloud, eventually, now_ms, run};
use super::member::{Member, Viewing, events_of, read_all, with_events};

/// A plan whose last POST is due now, with its own profiles.
pub(crate) fn plan(name: &str, model: &Model) -> Result<Plan> {
    let mut plan = Plan::ending_at(model, i64::try_from(now_ms())?)?;
    rename_profiles(&mut plan, name);
    Ok(plan)
}

/// Sends everything; every POST must succeed.
pub(crate) async fn send_all(cloud: &Cloud, plan: &Plan) -> Result<SendReport> {
    let secret = cloud.endpoints.jwt_secret.clone();
    let auth = Auth::Secret { secret, issuer: None, audience: None };
    let target = Target { endpoint: cloud.endpoints.api.clone(), elsewhere: BTreeMap::new(), auth };
    let report = send(plan, &target, Pace { concurrency: 4, ..Pace::default() }, &ProgressBar::hidden()).await?;
    ensure!(report.failed_posts.is_empty(), "POSTs failed: {:?}", report.failures);
    Ok(report)
}

/// Waits until the history API shows the expected views of every profile.
pub(crate) async fn agree(cloud: &'static Cloud, expected: &Expected) -> Result<()> {
    let profiles: BTreeSet<String> = expected.views.keys().map(|(profile, _)| profile.clone()).collect();
    let mut differences = Vec::new();
    let agreed = eventually("the views that the simulator expects", async || {
        differences = check(expected, &read_all(cloud, profiles.clone(), 3).await?);
        Ok(differences.is_empty().then_some(()))
    });
    let agreed = agreed.await;
    agreed.with_context(|| format!("{} differences: {differences:#?}", differences.len()))
}

/// Waits until everything that is on the log has been processed: sends enough sessions to reach
/// each partition, and waits for those.
pub(crate) async fn drain(cloud: &'static Cloud, name: &str) -> Result<()> {
    let member = Member::new(cloud, name);
    let last: Vec<Viewing> = (0..40).map(|_| Viewing::begin(&member, "t1")).collect();
    member.post(&events_of(&last, 1)).await?;
    member.history_with(&with_events(&last, 1)).await.map(|_| ())
}

#[test]
fn views_match_in_any_order_and_any_duplication() -> Result<()> {
    run(async |cloud| {
        let faults = Faults { duplicates: 0.3, reorder: 0.4, late: 0.2, lost: 0.03, malformed: 0.05 };
        let model = Model {
            sessions: 45,
            viewers: Some(9),
            titles: 30,
            homes: vec!["use1".parse()?],
            travel: None,
            seed: 7,
            faults,
        };
        let plan = plan("simulated", &model)?;
        let expected = expect(&plan, &BTreeSet::new());
        assert!(expected.duplicates > 100 && expected.views.len() == 45 && !expected.rejected.is_empty());
        let report = send_all(cloud, &plan).await?;
        assert_eq!((report.accepted, &report.rejected), (expected.accepted, &expected.rejected));
        agree(cloud, &expected).await?;

        // Sending everything again, backwards, changes nothing.
        let again = Plan { posts: plan.posts.iter().rev().cloned().collect(), ..plan.clone() };
        send_all(cloud, &again).await?;
        drain(cloud, "simulated-last").await?;
        let profiles: BTreeMap<String, ()> = expected.views.keys().map(|(profile, _)| (profile.clone(), ())).collect();
        let differences = check(&expected, &read_all(cloud, profiles.into_keys(), 100).await?);
        assert!(differences.is_empty(), "{differences:#?}");
        Ok(())
    })
}
