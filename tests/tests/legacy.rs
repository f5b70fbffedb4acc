//! The reference legacy service on a real table: while healthy it matches the simulator's
//! expectation, and each of its bugs breaks that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::http::StatusCode;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use legacy::{Behaviour, Bug, Legacy};
use local::LocalDynamoDb;
use playhead_tests::sample::gzip;
use serde_json::Value;
use simulate::expect::{Expected, ExpectedView, expect};
use simulate::plan::Plan;
use simulate::{Faults, Model};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

static DYNAMODB: LazyLock<LocalDynamoDb> =
    LazyLock::new(|| RUNTIME.block_on(LocalDynamoDb::emulator("legacy-tests")).unwrap());

/// A service with its own table.
async fn start(table: &str) -> Result<(Legacy, reqwest::Client)> {
    let legacy = Legacy::start(&DYNAMODB.sdk_config(), table).await?;
    Ok((legacy, reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?))
}

fn run(test: impl Future<Output = Result<()>>) {
    LazyLock::force(&DYNAMODB); // outside the runtime, because starting it blocks on the runtime
    RUNTIME.block_on(test).unwrap();
}

/// Viewers with everything that can go wrong in transit, and the expected result.
fn plan(sessions: usize) -> Result<(Plan, Expected)> {
    let faults = Faults { duplicates: 0.05, reorder: 0.2, late: 0.1, lost: 0.01, malformed: 0.02 };
    let homes = vec!["use1".parse()?];
    let model = Model { sessions, viewers: None, titles: 20, homes, travel: None, seed: 5, faults };
    let plan = Plan::ending_at(&model, i64::try_from(lambda::clock::now_ms())?)?;
    let expected = expect(&plan, &BTreeSet::new());
    Ok((plan, expected))
}

async fn send(client: &reqwest::Client, legacy: &Legacy, plan: &Plan) -> Result<(u64, u64)> {
    let url = format!("{}/v1/events", legacy.url);
    let posts = plan.posts.iter().map(async |post| {
        let answer = client.post(&url).body(post.body()?).send().await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.text().await?);
        let answer: Value = answer.json().await?;
        ensure!(answer["ok"] == true);
        Ok((answer["stored"].as_u64().context("stored")?, answer["refused"].as_u64().context("refused")?))
    });
    stream::iter(posts).buffered(8).try_fold((0, 0), async |sum, one| Ok((sum.0 + one.0, sum.1 + one.1))).await
}

/// The fields in which a session's answer differs from the expected one.
fn differing(expected: &ExpectedView, answer: &Value) -> BTreeSet<&'static str> {
    let ms = |pointer: &str| answer.pointer(pointer).and_then(Value::as_f64).map(|s| (s * 1000.0).round() as i64);
    let stated = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let text = |pointer: &str| stated(pointer).unwrap_or_default();
    [
        ("title", text("/movie/id") == expected.title_id),
        ("length", ms("/movie/seconds") == expected.title_duration_ms),
        ("position", ms("/progress/resume_at_seconds") == Some(expected.position_ms)),
        ("played", ms("/progress/watched_seconds") == Some(expected.played_ms)),
        ("completed", answer["progress"]["finished"] == expected.completed),
        ("events", answer["reports"]["count"] == expected.events),
        ("device", stated("/device/serial") == expected.device.id && stated("/device/type") == expected.device.kind),
        ("country", text("/country") == expected.country),
    ]
    .into_iter()
    .filter_map(|(field, agrees)| (!agrees).then_some(field))
    .collect()
}

/// How many sessions differ, by field; `absent` counts those that do not exist.
async fn compare(
    client: &reqwest::Client,
    legacy: &Legacy,
    expected: &Expected,
) -> Result<BTreeMap<&'static str, usize>> {
    let mut fields = BTreeMap::new();
    for ((profile, session), view) in &expected.views {
        let answer = client.get(format!("{}/v1/profiles/{profile}/sessions/{session}", legacy.url)).send().await?;
        let differing = match answer.status() {
            StatusCode::OK => differing(view, &answer.json().await?),
            StatusCode::NOT_FOUND => BTreeSet::from(["absent"]),
            status => anyhow::bail!("{status}"),
        };
        for field in differing {
            *fields.entry(field).or_default() += 1;
        }
    }
    Ok(fields)
}

async fn found_with(name: &str, bug: Bug) -> Result<BTreeMap<&'static str, usize>> {
    let (legacy, client) = start(name).await?;
    legacy.behave(Behaviour { bugs: [bug].into(), ..Behaviour::default() });
    let (plan, expected) = plan(60)?;
    send(&client, &legacy, &plan).await?;
    compare(&client, &legacy, &expected).await
}

#[test]
fn healthy_legacy_service_matches_the_simulator() {
    run(async {
        let (legacy, client) = start("well").await?;
        let (plan, expected) = plan(60)?;
        let counts = send(&client, &legacy, &plan).await?;
        assert_eq!(counts, (expected.accepted as u64, expected.rejected.values().sum::<usize>() as u64));
        assert!(expected.duplicates > 20 && expected.views.len() > 50, "{expected:?}");
        assert_eq!(compare(&client, &legacy, &expected).await?, BTreeMap::new());

        let (profile, _) = expected.views.keys().next().context("no profile")?;
        let list: Value =
            client.get(format!("{}/v1/profiles/{profile}/sessions", legacy.url)).send().await?.json().await?;
        let listed = list["viewings"].as_array().context("no list")?;
        assert_eq!(listed.len(), expected.views.keys().filter(|(of, _)| of == profile).count());
        assert!(listed.iter().all(|one| {
            let session = one["viewing"].as_str().unwrap().to_owned();
            differing(&expected.views[&(profile.clone(), session)], one).is_empty()
        }));
        Ok(())
    });
}

#[test]
fn dropped_duplicates_lose_events_and_what_was_played() {
    run(async {
        let found = found_with("dropped-duplicates", Bug::DroppedDuplicates).await?;
        assert!(found["events"] >= 5 && found["played"] >= 3, "{found:?}");
        Ok(())
    });
}

#[test]
fn last_arrival_wins_only_where_events_overtook() {
    run(async {
        let found = found_with("last-arrival", Bug::LastArrivalWins).await?;
        assert!(found["position"] >= 3, "{found:?}");
        let others = ["events", "played", "title", "length", "country", "absent"];
        assert!(others.iter().all(|field| !found.contains_key(field)), "{found:?}");
        Ok(())
    });
}

#[test]
fn a_lost_seek_shows_in_the_position_alone() {
    run(async {
        let found = found_with("lost-seek", Bug::LostSeek).await?;
        assert!(found["position"] >= 5, "{found:?}");
        assert!(found.keys().all(|field| ["position", "completed"].contains(field)), "{found:?}");
        Ok(())
    });
}

#[test]
fn it_can_be_slow_or_fail_and_recover() {
    run(async {
        let (legacy, client) = start("bad-day").await?;
        let url = format!("{}/v1/events", legacy.url);
        let post = async || anyhow::Ok(client.post(&url).body(r#"{"events":[]}"#).send().await?.status());
        legacy.behave(Behaviour { failure: Some(StatusCode::BAD_GATEWAY), ..Behaviour::default() });
        assert_eq!(post().await?, StatusCode::BAD_GATEWAY);
        legacy.behave(Behaviour { delay: Duration::from_secs(3600), ..Behaviour::default() });
        let hanging = client.post(&url).body(r#"{"events":[]}"#).timeout(Duration::from_millis(300)).send().await;
        assert!(hanging.unwrap_err().is_timeout());
        legacy.behave(Behaviour::default());
        assert_eq!(post().await?, StatusCode::OK);
        Ok(())
    });
}

#[test]
fn it_accepts_gzip_and_refuses_invalid_requests() {
    run(async {
        let (legacy, client) = start("forms").await?;
        let (plan, _) = plan(1)?;
        let url = format!("{}/v1/events", legacy.url);
        let body = gzip(&plan.posts[0].body()?)?;
        let answer = client.post(&url).header("content-encoding", "gzip").body(body).send().await?;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = client.post(&url).body("not json").send().await?;
        assert_eq!(
            (answer.status(), answer.json::<Value>().await?["ok"].clone()),
            (StatusCode::BAD_REQUEST, false.into())
        );
        let absent = format!("{}/v1/profiles/p/sessions/s", legacy.url);
        assert_eq!(client.get(absent).send().await?.status(), StatusCode::NOT_FOUND);
        Ok(())
    });
}
