//! Simulated viewers with all that goes wrong on the way: the views must be what the simulator says, which computes them
//! apart from the code under test.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use simulate::expect::{Expected, check, expect};
use simulate::plan::Plan;
use simulate::send::{Auth, Pace, SendReport, Target, send};
use simulate::{Faults, Model};

use super::cloud::{Cloud, eventually, now_ms, run};
use super::member::{Member, Viewing, read_all};

/// A plan whose last POST is due now, with profiles of its own.
pub(crate) fn plan(name: &str, model: &Model) -> Result<Plan> {
    let mut plan = Plan::ending_at(model, i64::try_from(now_ms())?)?;
    for post in &mut plan.posts {
        let own = format!("{name}-{}", post.profile_id);
        for planned in &mut post.events {
            // A malformed event may name none, or one that is no id.
            if planned.event.profile_id.as_ref() == Some(&post.profile_id) {
                planned.event.profile_id = Some(own.clone());
            }
        }
        post.profile_id = own;
    }
    Ok(plan)
}

/// Sends all of it; every POST must get through.
pub(crate) async fn send_all(cloud: &Cloud, plan: &Plan) -> Result<SendReport> {
    let secret = cloud.endpoints.jwt_secret.clone();
    let auth = Auth::Secret { secret, issuer: None, audience: None };
    let target = Target { endpoint: cloud.endpoints.api.clone(), elsewhere: BTreeMap::new(), auth };
    let report = send(plan, &target, Pace { concurrency: 4, ..Pace::default() }, &ProgressBar::hidden()).await?;
    ensure!(report.failed_posts.is_empty(), "POSTs failed: {:?}", report.failures);
    Ok(report)
}

/// Waits until the history API says of every profile what it must say.
pub(crate) async fn agree(cloud: &'static Cloud, expected: &Expected) -> Result<()> {
    let profiles: BTreeSet<String> = expected.views.keys().map(|(profile, _)| profile.clone()).collect();
    let mut differences = Vec::new();
    let agreed = eventually("the views that the simulator expects", async || {
        differences = check(expected, &read_all(cloud, profiles.clone(), 3).await?);
        Ok(differences.is_empty().then_some(()))
    });
    let agreed = agreed.await;
    ensure!(agreed.is_ok(), "{} differences: {differences:#?}", differences.len());
    Ok(())
}

/// Waits until whatever was on the log before has been processed: sessions sent last, enough for each partition to have some.
pub(crate) async fn drain(cloud: &'static Cloud, name: &str) -> Result<()> {
    let member = Member::new(cloud, name);
    let last: Vec<Viewing> = (0..40).map(|_| Viewing::begin(&member, "t1")).collect();
    member.post(&last.iter().flat_map(|viewing| viewing.events(1)).collect::<Vec<_>>()).await?;
    let wanted: Vec<(&Viewing, u64)> = last.iter().map(|viewing| (viewing, 1)).collect();
    member.history_with(&wanted).await.map(|_| ())
}

#[test]
fn views_are_the_expected_ones_whatever_the_order_and_however_often() -> Result<()> {
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

        // All of it once more and backwards changes nothing.
        let again = Plan { posts: plan.posts.iter().rev().cloned().collect(), ..plan.clone() };
        send_all(cloud, &again).await?;
        drain(cloud, "simulated-last").await?;
        let profiles: BTreeMap<String, ()> = expected.views.keys().map(|(profile, _)| (profile.clone(), ())).collect();
        let differences = check(&expected, &read_all(cloud, profiles.into_keys(), 100).await?);
        assert!(differences.is_empty(), "{differences:#?}");
        Ok(())
    })
}
