//! Moving from another system: which profile is on which path, that shadows are separate, and that
//! live traffic does not notice them. And trying a candidate beside the live code.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use clap::Parser;
use compare::Report;
use lambda::routing::MAX_AGE;
use legacy::Legacy;
use local::functions::configure;
use operate::comparison::{self, Sites};
use operate::rollout;
use operate::stack::Deployment;
use playback::rollout::{Share, bucket};
use playhead_tests::queues::queued;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::cloud::{Cloud, Item, eventually, run_moving, run_without_msk};
use super::member::{Member, Viewing};
use super::routing::command;

/// Puts profiles on paths by name and all others on the legacy path, and waits until every function
/// follows.
async fn roll_out(cloud: &Cloud, shadow: &[&Member], moved: &[&Member]) -> Result<()> {
    let ids = |members: &[&Member]| members.iter().map(|member| member.profile_id.clone()).collect::<Vec<_>>();
    let always = json!({ "shadow": ids(shadow), "async": ids(moved) });
    let document = json!({ "version": 1, "rollout": { "salt": "test", "always": always } });
    let file = cloud.endpoints.run_dir.join("rollout.json");
    std::fs::write(&file, document.to_string())?;
    let path = file.to_str().context("a path that is not text")?;
    command(&Deployment::local(&cloud.endpoints)?, &format!("set --file {path}")).await?;
    tokio::time::sleep(MAX_AGE).await;
    Ok(())
}

fn shadow_table(cloud: &Cloud) -> Result<&str> {
    cloud.endpoints.shadow_table.as_deref().context("there is no shadow table")
}

async fn in_shadow(cloud: &Cloud, viewing: &Viewing) -> Result<Option<Item>> {
    cloud.stored_in(shadow_table(cloud)?, viewing).await
}

async fn in_views(cloud: &Cloud, viewing: &Viewing) -> Result<bool> {
    Ok(cloud.stored(viewing).await?.is_some())
}

/// Waits until a session is in the shadow table.
async fn shadowed(cloud: &Cloud, viewing: &Viewing) -> Result<()> {
    eventually("the shadow view", async || in_shadow(cloud, viewing).await).await.map(drop)
}

/// How many events of a session the legacy system has; `None` if it does not know the session.
async fn in_legacy(cloud: &Cloud, legacy: &Legacy, viewing: &Viewing) -> Result<Option<u64>> {
    let url = format!("{}/v1/profiles/{}/sessions/{}", legacy.url, viewing.profile_id, viewing.id());
    let answer = cloud.http.get(url).send().await?;
    match answer.status() {
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_success() => Ok(answer.json::<Value>().await?["reports"]["count"].as_u64()),
        status => anyhow::bail!("the legacy system answers {status}"),
    }
}

/// How many sessions the shadow table holds.
async fn shadow_sessions(cloud: &Cloud) -> Result<u64> {
    let scan = cloud.dynamodb.scan().table_name(shadow_table(cloud)?).consistent_read(true);
    let sessions = scan.filter_expression("NOT begins_with(sk, :register)");
    let sessions = sessions.expression_attribute_values(":register", AttributeValue::S("~".to_owned()));
    Ok(sessions.send().await?.count().try_into()?)
}

/// Invokes `compare` as its schedule does until it has compared this many sessions. Returns the sum
/// of the reports in its bucket.
async fn compared(cloud: &Cloud, sessions: u64) -> Result<Report> {
    let sites = Sites::find(&Deployment::local(&cloud.endpoints)?).await;
    eventually("the comparison", async || {
        let run = comparison::run_now(&sites).await;
        ensure!(run.missed.is_empty() && run.without.is_empty(), "compare failed: {run:?}");
        let kept = comparison::since(&sites, 0).await;
        ensure!(kept.missed.is_empty(), "{kept:?}");
        Ok((kept.total.compared >= sessions).then_some(kept.total))
    })
    .await
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: rollout::Args,
}

/// What `playhead rollout …` prints if it succeeds.
async fn rollout_command(cloud: &Cloud, line: &str) -> Result<String> {
    let deployment = Deployment::local(&cloud.endpoints)?;
    let args = Line::try_parse_from(std::iter::once("rollout").chain(line.split(' ')))?.args;
    let mut printed = Vec::new();
    let status = rollout::run_on(&deployment, &Sites::find(&deployment).await, args, &mut printed).await?;
    assert_eq!(status, ExitCode::SUCCESS, "{line}: {}", String::from_utf8_lossy(&printed));
    Ok(String::from_utf8(printed)?)
}

#[test]
fn each_profile_is_on_its_path_and_shadows_match() -> Result<()> {
    run_moving(async |cloud, legacy| {
        let [old, tried, moved] = ["old", "tried", "moved"].map(|name| Member::new(cloud, name));
        // Tests that ran before may have left some.
        let sessions = shadow_sessions(cloud).await? + 1;
        roll_out(cloud, &[&tried], &[&moved]).await?;
        let [of_old, of_tried, of_moved] = [&old, &tried, &moved].map(|member| Viewing::begin(member, "t1"));
        for (member, viewing) in [(&old, &of_old), (&tried, &of_tried)] {
            // Exactly the legacy system's answer, shadow or not.
            let answer = member.send(&viewing.events(4)).await?;
            assert_eq!((answer.status, answer.body), (StatusCode::OK, json!({"ok": true, "stored": 4, "refused": 0})));
        }
        moved.post(&of_moved.events(4)).await?;

        moved.history_with(&[(&of_moved, 4)]).await?;
        shadowed(cloud, &of_tried).await?;
        assert_eq!(in_legacy(cloud, legacy, &of_old).await?, Some(4));
        assert_eq!(in_legacy(cloud, legacy, &of_tried).await?, Some(4));
        assert_eq!(in_legacy(cloud, legacy, &of_moved).await?, None);
        for (viewing, shadow, views) in [(&of_old, false, false), (&of_tried, true, false), (&of_moved, false, true)] {
            let found = (in_shadow(cloud, viewing).await?.is_some(), in_views(cloud, viewing).await?);
            assert_eq!(found, (shadow, views), "{}", viewing.profile_id);
        }

        let report = compared(cloud, sessions).await?;
        assert_eq!((report.compared, report.matched), (sessions, sessions), "{report:?}");

        // So few sessions are too small a sample to move others.
        let refused = rollout_command(cloud, "set async=1% shadow=100%").await.unwrap_err().to_string();
        assert!(refused.contains("async stays at 0%") && refused.contains("--min-sample"), "{refused}");
        let set = rollout_command(cloud, "set async=1% shadow=100% --min-sample 1").await?;
        assert!(set.contains("99.00% of all profiles move legacy -> shadow"), "{set}");
        assert!(
            set.contains("of the local cloud's tables")
                && set.contains(&format!("{sessions} sessions compared, 100% match")),
            "{set}"
        );
        let shown = rollout_command(cloud, &format!("show --profile {}", moved.profile_id)).await?;
        assert!(shown.contains("async=1% shadow=100% salt=test") && shown.contains("async, by its list"), "{shown}");
        Ok(())
    })
}

#[test]
fn request_with_profiles_on_both_paths_is_split() -> Result<()> {
    run_moving(async |cloud, legacy| {
        let [old, moved] = ["split-old", "split-moved"].map(|name| Member::by_service(cloud, name));
        roll_out(cloud, &[], &[&moved]).await?;
        let [of_old, of_moved] = [&old, &moved].map(|member| Viewing::begin(member, "t1"));
        let mut events = of_old.events(2);
        events.extend(of_moved.events(3));
        moved.post(&events).await?;
        moved.history_with(&[(&of_moved, 3)]).await?;
        assert_eq!(in_legacy(cloud, legacy, &of_old).await?, Some(2));
        assert_eq!(in_legacy(cloud, legacy, &of_moved).await?, None);
        assert!(!in_views(cloud, &of_old).await?);
        Ok(())
    })
}

#[test]
fn live_traffic_survives_a_missing_shadow_table() -> Result<()> {
    run_moving(async |cloud, _| {
        let [tried, moved] = ["untouched-tried", "untouched-moved"].map(|name| Member::new(cloud, name));
        roll_out(cloud, &[&tried], &[&moved]).await?;
        let process = &cloud.endpoints.process_function;
        let table = shadow_table(cloud)?.to_owned();
        configure(&cloud.endpoints, process, &[("SHADOW_TABLE", Some("no-such-table"))]).await?;
        let lost = Viewing::begin(&tried, "t1");
        let went_on = async {
            assert_eq!(tried.send(&lost.events(3)).await?.status, StatusCode::OK);
            let viewing = Viewing::begin(&moved, "t1");
            moved.post(&viewing.events(3)).await?;
            moved.history_with(&[(&viewing, 3)]).await.map(drop)
        };
        let went_on = went_on.await;
        configure(&cloud.endpoints, process, &[("SHADOW_TABLE", Some(&table))]).await?;
        went_on?;

        // With the table back, new events are folded, and earlier ones are forgotten.
        let found = Viewing::begin(&tried, "t2");
        assert_eq!(tried.send(&found.events(3)).await?.status, StatusCode::OK);
        shadowed(cloud, &found).await?;
        assert!(in_shadow(cloud, &lost).await?.is_none());
        assert_eq!(cloud.count_dead_letters(|_| true).await?, 0);
        assert_eq!(queued(&cloud.endpoints, &cloud.endpoints.retry_queue_url).await?, 0);
        Ok(())
    })
}

#[test]
fn shadowed_profiles_notice_nothing_with_both_logs_down() -> Result<()> {
    run_moving(async |cloud, legacy| {
        let [tried, moved] = ["logless-tried", "logless-moved"].map(|name| Member::new(cloud, name));
        roll_out(cloud, &[&tried], &[&moved]).await?;
        let ingest = &cloud.endpoints.ingest_function;
        let bootstrap = cloud.endpoints.log_bootstrap.as_deref();
        // Nobody listens there.
        let unreachable =
            [("KAFKA_BOOTSTRAP", Some("127.0.0.1:1")), ("AWS_ENDPOINT_URL_KINESIS", Some("http://127.0.0.1:1"))];
        configure(&cloud.endpoints, ingest, &unreachable).await?;
        let (of_tried, of_moved) = (Viewing::begin(&tried, "t1"), Viewing::begin(&moved, "t1"));
        let answered = async {
            for stored in [3, 3] {
                let answer = tried.send(&of_tried.events(3)).await?;
                let as_usual = json!({"ok": true, "stored": stored, "refused": 0});
                assert_eq!((answer.status, answer.body), (StatusCode::OK, as_usual));
            }
            // Moved profiles do notice: their devices keep their events.
            let refused = moved.send(&of_moved.events(3)).await?;
            assert_eq!(
                (refused.status, &refused.body["code"]),
                (StatusCode::SERVICE_UNAVAILABLE, &json!("log_unavailable"))
            );
            anyhow::Ok(())
        };
        let answered = answered.await;
        let back = [("KAFKA_BOOTSTRAP", bootstrap), ("AWS_ENDPOINT_URL_KINESIS", None)];
        configure(&cloud.endpoints, ingest, &back).await?;
        answered?;
        assert_eq!(in_legacy(cloud, legacy, &of_tried).await?, Some(3));
        moved.post(&of_moved.events(3)).await?;
        moved.history_with(&[(&of_moved, 3)]).await.map(drop)
    })
}

#[test]
fn candidate_folds_its_sample_and_matches_live_code() -> Result<()> {
    run_without_msk(async |cloud| {
        let members: Vec<Member> = (0..20).map(|number| Member::new(cloud, &format!("sampled-{number}"))).collect();
        let viewings: Vec<Viewing> = members.iter().map(|member| Viewing::begin(member, "t1")).collect();
        for (member, viewing) in members.iter().zip(&viewings) {
            member.post(&viewing.events(3)).await?;
        }
        let half: Share = "50%".parse()?;
        let is_sampled = |viewing: &&Viewing| bucket("candidate", &viewing.profile_id) < half.buckets();
        let (sampled, others): (Vec<&Viewing>, Vec<&Viewing>) = viewings.iter().partition(is_sampled);
        assert!(sampled.len() > 3 && others.len() > 3, "{} and {}", sampled.len(), others.len());
        for viewing in &sampled {
            shadowed(cloud, viewing).await?;
        }
        for (member, viewing) in members.iter().zip(&viewings) {
            member.history_with(&[(viewing, 3)]).await?;
        }
        for viewing in &others {
            assert!(in_shadow(cloud, viewing).await?.is_none(), "{}", viewing.profile_id);
        }
        // Sessions of other tests are in the sample too.
        let report = compared(cloud, sampled.len() as u64).await?;
        assert_eq!(report.matched, report.compared, "{report:?}");
        Ok(())
    })
}
