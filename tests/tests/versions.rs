//! Old and new code side by side on one table and one log: function by function, as a deployment and
//! a rollback leave them. The old binaries are built from a named commit.
//!
//! That takes minutes, so it runs only on request: `PLAYHEAD_TEST_VERSIONS=1`. What it can only
//! show for some events, `shared/playback/tests/versions.rs` holds for all, with bytes that the old
//! code wrote and a model of its rules.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::LastUpdateStatus;
use lambda::clock::now_ms;
use local::{LocalCloud, LocalOptions, Progress};
use operate::Endpoints;
use playback::session::SessionId;
use playhead_tests::queues::take_dead_letters;
use playhead_tests::{opted_in, within};
use serde_json::{Value, json};
use tokio::process::Command;

const OPT_IN: &str = "PLAYHEAD_TEST_VERSIONS";
/// The last commit before views were kept per title, with the contract of that time.
const OLD: &str = "5802b66";
const PATIENCE: Duration = Duration::from_secs(90);
const TITLE_MS: u64 = 2_700_000;

/// Runs a command in the workspace, or says what it said.
async fn command(program: &str, args: &[&str], envs: &[(&str, &Path)]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args).envs(envs.iter().copied()).current_dir(operate::workspace_root()?).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("starting {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}\n{said}", args.join(" "), output.status);
    Ok(())
}

/// Builds the old functions, and packs each as Lambda wants it. Returns the folder of the packages.
async fn build_old(functions: &[&str]) -> Result<PathBuf> {
    let folder = operate::workspace_root()?.join("target/versions");
    let (source, target) = (folder.join("source"), folder.join("target"));
    fs::create_dir_all(&source)?;
    let archive = folder.join("source.tar");
    let (archive_text, source_text) = (archive.to_string_lossy().into_owned(), source.to_string_lossy().into_owned());
    command("git", &["archive", "--output", &archive_text, OLD], &[])
        .await
        .with_context(|| format!("the history must hold the commit {OLD}: fetch it (git fetch --unshallow)"))?;
    command("tar", &["-xf", &archive_text, "-C", &source_text], &[]).await?;
    let manifest = source.join("Cargo.toml").to_string_lossy().into_owned();
    let bins = functions.iter().flat_map(|function| ["--bin", function]);
    let args = ["build", "--locked", "--manifest-path", &manifest].into_iter().chain(bins).collect::<Vec<_>>();
    command("cargo", &args, &[("CARGO_TARGET_DIR", &target), ("CARGO_PROFILE_DEV_DEBUG", Path::new("0"))]).await?;
    for function in functions {
        let packed = folder.join(function);
        fs::create_dir_all(&packed)?;
        fs::copy(target.join("debug").join(function), packed.join("bootstrap"))?;
        pack(&packed.join("bootstrap"), &folder.join(format!("{function}.zip"))).await?;
    }
    Ok(folder)
}

/// Packs a bootstrap, with Python's own module, which keeps that it may be run.
async fn pack(bootstrap: &Path, into: &Path) -> Result<()> {
    let (bootstrap, into) = (bootstrap.to_string_lossy(), into.to_string_lossy());
    command("python3", &["-m", "zipfile", "-c", &into, &bootstrap], &[]).await
}

/// A stage of which any function can be replaced by its old code and back.
struct Stage {
    _cloud: LocalCloud,
    endpoints: Endpoints,
    http: reqwest::Client,
    lambda: aws_sdk_lambda::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    old: PathBuf,
    new: PathBuf,
    session: SessionId,
}

impl Stage {
    async fn start(functions: &[&str]) -> Result<Self> {
        let old = build_old(functions).await?;
        let options = LocalOptions::named("versions")?;
        let mut cloud = LocalCloud::start(options, &Progress::silent()).await?;
        cloud.start_poller().await?;
        let endpoints = cloud.endpoints().clone();
        let sdk = endpoints.sdk_config();
        let new = old.join("new");
        // Where this test itself was built, to which the local cloud has just added the functions.
        let this = std::env::current_exe()?;
        let built = this.ancestors().nth(2).context("the test is not in a target folder")?;
        for function in functions {
            fs::create_dir_all(new.join(function))?;
            let bootstrap = new.join(function).join("bootstrap");
            fs::copy(built.join(function), &bootstrap)?;
            pack(&bootstrap, &new.join(format!("{function}.zip"))).await?;
        }
        let now = now_ms();
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?,
            lambda: aws_sdk_lambda::Client::new(&sdk),
            dynamodb: aws_sdk_dynamodb::Client::new(&sdk),
            session: SessionId::mint("use1".parse()?, now, u128::from(now)),
            _cloud: cloud,
            endpoints,
            old,
            new,
        })
    }

    /// Replaces a function's code.
    async fn deploy(&self, function: &str, code: &Path) -> Result<()> {
        let name = match function {
            "ingest" => &self.endpoints.ingest_function,
            "process" => &self.endpoints.process_function,
            _ => &self.endpoints.query_function,
        };
        let zip = fs::read(code.join(format!("{function}.zip")))?;
        self.lambda.update_function_code().function_name(name).zip_file(Blob::new(zip)).send().await?;
        within(PATIENCE, "the function's new code", async || {
            let now = self.lambda.get_function_configuration().function_name(name).send().await?;
            Ok((now.last_update_status == Some(LastUpdateStatus::Successful)).then_some(()))
        })
        .await?;
        local::functions::publish(&self.lambda, name).await
    }

    fn event(&self, seq: u64) -> Value {
        json!({"session_id": self.session.to_string(), "profile_id": "p1", "title_id": "t1", "seq": seq,
            "kind": "progressed", "position_ms": seq * 10_000, "played_ms": if seq > 0 { 10_000 } else { 0 },
            "title_duration_ms": TITLE_MS, "occurred_at": now_ms(), "device": {"id": "d1", "kind": "tv"}, "country": "US"})
    }

    async fn send(&self, events: &[Value]) -> Result<()> {
        let url = format!("{}/v1/events", self.endpoints.api);
        let body = json!({"sent_at": now_ms(), "events": events});
        let answer = self.http.post(url).bearer_auth(self.token()?).json(&body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        let accepted = serde_json::from_str::<Value>(&text)?["accepted"] == events.len();
        ensure!(status == 202 && accepted, "{status} {text}");
        Ok(())
    }

    fn token(&self) -> Result<String> {
        operate::token::of_service(&self.endpoints.jwt_secret, Duration::from_secs(3600))
    }

    async fn history(&self) -> Result<Vec<Value>> {
        let url = format!("{}/v1/profiles/p1/history", self.endpoints.api);
        let answer = self.http.get(url).bearer_auth(self.token()?).send().await?.error_for_status()?;
        Ok(answer.json::<Value>().await?["sessions"].as_array().context("no sessions")?.clone())
    }

    /// Waits until the history shows so many events.
    async fn shows(&self, events: u64) -> Result<Value> {
        within(PATIENCE, &format!("{events} events in the history"), async || {
            let sessions = self.history().await?;
            let found = sessions.into_iter().find(|session| session["events"] == events);
            Ok(found)
        })
        .await
    }

    /// The item that today's code wrote.
    async fn item(&self) -> Result<Option<AttributeValue>> {
        let SessionId { ulid, home } = &self.session;
        let get = self.dynamodb.get_item().table_name(&self.endpoints.views_table).consistent_read(true);
        let get = get.key("pk", AttributeValue::S("p1".to_owned()));
        let answer = get.key("sk", AttributeValue::S(format!("{ulid}#{home}#~t1"))).send().await?;
        Ok(answer.item.and_then(|mut item| item.remove("view")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_code_lose_nothing_of_each_other() -> Result<()> {
    if !opted_in(OPT_IN, "the old binaries, whose build takes minutes") {
        return Ok(());
    }
    let stage = Stage::start(&["ingest", "process", "query"]).await?;
    let events = |seqs: std::ops::Range<u64>| seqs.map(|seq| stage.event(seq)).collect::<Vec<_>>();
    // All new: what only the new contract accepts.
    let mut odd = events(0..3);
    odd[1]["device"]["kind"] = json!("Android TV");
    odd[2].as_object_mut().unwrap().remove("title_duration_ms");
    stage.send(&odd).await?;
    stage.shows(3).await?;
    let before = stage.item().await?;
    assert!(before.is_some());

    // In the middle of a deployment or after a rollback of `process` alone: it must neither
    // dead-letter what the new `ingest` writes, nor take anything from the new item.
    stage.deploy("process", &stage.old).await?;
    let mut odd = events(3..7);
    odd[0].as_object_mut().unwrap().remove("device");
    odd[1]["position_ms"] = json!(TITLE_MS + 9);
    odd[2]["title_duration_ms"] = Value::Null;
    odd[3]["country"] = json!("us");
    stage.send(&odd).await?;
    stage.send(&events(0..3)).await?;
    stage.shows(7).await?;
    assert_eq!(stage.item().await?, before);

    stage.deploy("process", &stage.new).await?;
    stage.send(&events(7..9)).await?;
    stage.shows(9).await?;

    // Everything rolled back: members still see what they watched, and old players go on.
    for function in ["process", "query", "ingest"] {
        stage.deploy(function, &stage.old).await?;
    }
    stage.send(&events(9..12)).await?;
    stage.shows(12).await?;

    // And forward again, with everything sent once more.
    for function in ["process", "query", "ingest"] {
        stage.deploy(function, &stage.new).await?;
    }
    stage.send(&events(0..14)).await?;
    let session = stage.shows(14).await?;
    let shown = (&session["missing"], &session["position_ms"], &session["title_duration_ms"]);
    assert_eq!(shown, (&json!(0), &json!(130_000), &json!(TITLE_MS)), "{session}");
    // One event was past the end, with 10 s played up to there.
    assert_eq!((&session["completed"], &session["played_ms"]), (&json!(true), &json!(140_000)), "{session}");
    assert_eq!(session["device"], json!({"id": "d1", "kind": "tv"}));
    assert_eq!(stage.history().await?.len(), 1, "one session of one title");
    let mut dead = Vec::new();
    take_dead_letters(&stage.endpoints, &mut dead).await?;
    assert!(dead.is_empty(), "{dead:?}");
    Ok(())
}
