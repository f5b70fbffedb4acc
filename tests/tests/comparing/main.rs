//! `compare` with real tables, a bucket and the reference legacy service: it finds what is wrong
//! and nothing else, and counts nothing twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use axum::http::StatusCode;
use compare::{Cause, CheckpointError, CompareError, Field, Report};
use legacy::{Behaviour, Bug, Bugs};
use playback::fold::ViewKey;
use stage::{PATIENCE, SETTLED_AFTER, Stage, all, plan, run, sdk_config, send};
use store::ViewTable as _;
use store::dynamodb::{PlacedView, Views};
use store::testing::write_one;
use tokio::time::{Duration, Instant};

/// Writes a view, replacing the stored one if there is one.
async fn put(table: &Views, view: &PlacedView) -> Result<()> {
    let (profile_id, title_id) = (view.place.profile_id.clone(), view.view.title_id.clone());
    let key = ViewKey { profile_id, session_id: view.session_id.clone(), title_id };
    let stored = table.read(std::slice::from_ref(&key)).await.remove(0)?;
    write_one(table, &key, &view.view, stored.map(|stored| stored.version)).await?;
    Ok(())
}

/// How many of these views have their first event; the others are not compared.
fn whole(views: &[PlacedView]) -> u64 {
    views.iter().filter(|view| view.view.first.seq == 0).count() as u64
}

#[test]
fn shadow_of_the_same_log_matches_and_is_compared_once() {
    run(async {
        let stage = Stage::new("same").await?;
        send(&plan(150)?, &[&stage.shadow, &stage.live], None).await?;
        let views = all(&stage.shadow).await?;
        let report = stage.run_to_the_end().await?;
        assert_eq!((report.compared, report.match_rate()), (whole(&views), Some(1.0)), "{report:?}");
        assert_eq!(report.compared + report.partial, views.len() as u64);
        assert!(report.partial < 10 && views.len() > 140);
        assert_eq!(stage.run_to_the_end().await?, Report::default(), "nothing has settled since");
        assert_eq!(stage.kept().await?.len(), 1, "a run that compared nothing leaves no report");

        let mut late = views.into_iter().find(|view| view.view.first.seq == 0).context("no view")?;
        late.view.latest.received_at = lambda::clock::now_ms() + 70_000;
        put(&stage.shadow, &late).await?;
        put(&stage.live, &late).await?;
        let (report, _) = stage.run_at(late.view.latest.received_at, Instant::now() + PATIENCE).await;
        assert_eq!(report?, Report::default(), "it has not settled yet");
        let settled_at = late.view.latest.received_at + SETTLED_AFTER.as_millis() as u64;
        let (report, counted) = stage.run_at(settled_at, Instant::now() + PATIENCE).await;
        assert_eq!((report?.compared, counted["MatchedSessions"]), (1, 1), "a late event makes it due again");
        Ok(())
    });
}

#[test]
fn differences_are_named_by_field_and_no_member_is() {
    run(async {
        let stage = Stage::new("wrong").await?;
        send(&plan(60)?, &[&stage.live], None).await?;
        let views = all(&stage.live).await?;
        // Three sessions of one profile: the second is missing in the shadow, the third differs
        // there.
        let of_one = views.chunk_by(|a, b| a.place.profile_id == b.place.profile_id);
        let of_one = of_one.filter(|views| whole(views) == views.len() as u64);
        let of_one = of_one.max_by_key(|views| views.len()).context("no profile")?;
        ensure!(of_one.len() >= 3);
        let mut differing = of_one[2].clone();
        differing.view.latest.position_ms += 1;
        // And one session of another profile that only the shadow has.
        let other = views.iter().find(|view| view.place.profile_id != of_one[0].place.profile_id).context("another")?;
        let mut only_here = other.clone();
        only_here.place.profile_id.push_str("-2");
        only_here.view.first.seq = 0;
        only_here.view.seen.insert(0..1);
        for view in views.iter().filter(|view| view.place != of_one[1].place && view.place != of_one[2].place) {
            put(&stage.shadow, view).await?;
        }
        put(&stage.shadow, &differing).await?;
        put(&stage.shadow, &only_here).await?;

        let report = stage.run_to_the_end().await?;
        let found = (report.differing, report.missing_live, report.missing_shadow);
        assert_eq!(found, (1, 1, 1), "{report:?}");
        assert_eq!(report.fields.keys().copied().collect::<Vec<_>>(), [Field::PositionMs]);
        assert_eq!(report.compared, whole(&views) + 1);

        let kept = stage.kept().await?;
        assert_eq!(kept.len(), 1);
        assert_eq!(serde_json::from_str::<Report>(&kept[0])?, report);
        assert_eq!(report.examples.len(), 3);
        for view in &views {
            let device = view.view.latest.device.id.clone().unwrap_or_else(|| view.place.profile_id.clone());
            let ids = [&view.place.profile_id, &device, &view.session_id.to_string()];
            assert!(ids.iter().all(|id| !kept[0].contains(id.as_str())), "{}", kept[0]);
        }
        Ok(())
    });
}

#[test]
fn run_that_stops_early_resumes_and_counts_nothing_twice() {
    run(async {
        let stage = Stage::new("early").await?;
        send(&plan(400)?, &[&stage.shadow, &stage.live], None).await?;
        let views = all(&stage.shadow).await?;
        let (mut report, mut runs) = (Report::default(), 0);
        loop {
            let (found, _) = stage.run(Instant::now() + Duration::from_millis(20)).await;
            report.merge(found?);
            runs += 1;
            let checkpoint = stage.compare.checkpoints.read().await?;
            if checkpoint.revision > 0 && checkpoint.under_way.is_none() {
                break;
            }
            ensure!(runs < 1000, "it never ends: {report:?}");
        }
        assert_eq!((report.compared, report.matched), (whole(&views), whole(&views)), "in {runs} runs");
        assert!(runs > 1, "it did not stop early");
        Ok(())
    });
}

#[test]
fn only_one_of_two_concurrent_runs_counts() {
    run(async {
        let stage = Stage::new("twice").await?;
        send(&plan(40)?, &[&stage.shadow, &stage.live], None).await?;
        let expected = whole(&all(&stage.shadow).await?);
        let stop_at = Instant::now() + PATIENCE;
        let ((_, one), (_, other)) = tokio::join!(stage.run(stop_at), stage.run(stop_at));
        let compared = |counted: &std::collections::BTreeMap<&str, u64>| counted.get("ComparedSessions").copied();
        assert_eq!(compared(&one).unwrap_or_default() + compared(&other).unwrap_or_default(), expected);

        let stale = stage.compare.checkpoints.read().await?;
        stage.compare.checkpoints.write(&stale).await?;
        let overtaken = stage.compare.checkpoints.write(&stale).await.unwrap_err();
        assert!(matches!(overtaken, CheckpointError::Overtaken(_)), "{overtaken}");
        Ok(())
    });
}

/// What a comparison finds for viewers whom a legacy system with these bugs served.
async fn found_with(name: &str, bugs: Bugs) -> Result<Report> {
    let (stage, legacy) = Stage::with_legacy(name).await?;
    legacy.behave(Behaviour { bugs, ..Behaviour::default() });
    send(&plan(60)?, &[&stage.shadow], Some(&legacy)).await?;
    let report = stage.run_to_the_end().await?;
    ensure!(report.compared > 40 && report.unanswered.is_empty(), "{report:?}");
    Ok(report)
}

#[test]
fn correct_legacy_system_matches_in_every_session() {
    run(async {
        let report = found_with("right", Bugs::new()).await?;
        assert_eq!(report.match_rate(), Some(1.0), "{report:?}");
        Ok(())
    });
}

#[test]
fn each_legacy_bug_is_found_and_named_by_field() {
    run(async {
        let check = async |name: &str, bug: Bug, named: &[Field], others: &[Field]| -> Result<()> {
            let report = found_with(name, [bug].into()).await?;
            let found: BTreeSet<Field> = report.fields.keys().copied().collect();
            assert!(report.match_rate() < Some(1.0), "{bug}: {report:?}");
            assert!(named.iter().all(|field| found.contains(field)), "{bug}: {report:?}");
            let allowed: BTreeSet<Field> = named.iter().chain(others).copied().collect();
            assert!(found.is_subset(&allowed), "{bug}: {report:?}");
            Ok(())
        };
        let moved = [Field::PositionMs, Field::DeviceId, Field::DeviceKind, Field::Completed];
        check("dropped", Bug::DroppedDuplicates, &[Field::Events, Field::PlayedMs], &Field::ALL).await?;
        check("arrival", Bug::LastArrivalWins, &[Field::PositionMs], &moved).await?;
        check("seek", Bug::LostSeek, &[Field::PositionMs], &[Field::Completed]).await
    });
}

#[test]
fn legacy_outage_compares_nothing_and_forgets_nothing() {
    run(async {
        let (stage, legacy) = Stage::with_legacy("outage").await?;
        send(&plan(30)?, &[&stage.shadow], Some(&legacy)).await?;
        legacy.behave(Behaviour { failure: Some(StatusCode::SERVICE_UNAVAILABLE), ..Behaviour::default() });
        let (result, counted) = stage.run(Instant::now() + PATIENCE).await;
        assert!(matches!(result, Err(CompareError::Live { .. })), "{result:?}");
        assert!(counted.is_empty(), "{counted:?}");
        legacy.behave(Behaviour::default());
        let report = stage.run_to_the_end().await?;
        assert_eq!((report.compared, report.match_rate()), (whole(&all(&stage.shadow).await?), Some(1.0)));
        Ok(())
    });
}

#[test]
fn few_unavailable_sessions_are_counted_and_block_no_other() {
    run(async {
        let (stage, legacy) = Stage::with_legacy("few").await?;
        send(&plan(3)?, &[&stage.shadow], Some(&legacy)).await?;
        legacy.behave(Behaviour { failure: Some(StatusCode::INTERNAL_SERVER_ERROR), ..Behaviour::default() });
        let report = stage.run_to_the_end().await?;
        assert_eq!((report.compared, report.unanswered[&Cause::Unavailable]), (0, 3));
        legacy.behave(Behaviour::default());
        assert_eq!(stage.run_to_the_end().await?, Report::default(), "they were skipped");
        Ok(())
    });
}

#[test]
fn authorization_is_read_from_a_secret_parameter() {
    run(async {
        let ssm = aws_sdk_ssm::Client::new(&sdk_config());
        let (name, secret) = ("/playhead/legacy-authorization", "Bearer do-not-show-this");
        let put = ssm.put_parameter().name(name).value(secret).r#type(aws_sdk_ssm::types::ParameterType::SecureString);
        put.send().await?;
        let read = compare::authorization(&ssm, name).await?;
        assert_eq!(read.expose(), secret);
        assert!(!format!("{read:?}").contains("do-not-show-this"));
        let missing = compare::authorization(&ssm, "/playhead/none").await.unwrap_err().to_string();
        assert!(missing.contains("/playhead/none") && missing.contains("ParameterNotFound"), "{missing}");
        Ok(())
    });
}
