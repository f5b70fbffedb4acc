//! A release bundle, as `.ci/bundle` packs it, does what its README says: unpacked into an empty folder, it deploys with
//! the documented command, takes an event, and shows it in the history.
//!
//! It runs on request, because it needs a bundle: `PLAYHEAD_TEST_BUNDLE=target/bundle/….tar.gz`. A bundle for another
//! processor needs a program that runs its binaries, such as `PLAYHEAD_TEST_BUNDLE_UNDER="qemu-aarch64-static -L …"`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lambda::clock::now_ms;
use local::poller::{Checkpoints, Pollers, PollersConfig};
use local::{DEFAULT_REGION, LocalDynamoDb, Progress, Tools};
use operate::endpoints::DUMMY_CREDENTIALS;
use operate::stack::Stack;
use operate::token;
use playback::session::SessionId;
use playhead_tests::within;
use serde_json::{Value, json};
use tokio::process::Command;

const BUNDLE: &str = "PLAYHEAD_TEST_BUNDLE";
const UNDER: &str = "PLAYHEAD_TEST_BUNDLE_UNDER";
/// The stack that `samconfig.toml` names for the stage `cheap`.
const STACK: &str = "playhead-dev";
const SECRET: &str = "a-secret-of-a-development-stage-for-one-test";
const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than any of the commands takes: `sam deploy` packs the binaries first.
const ENDED_WITHIN: Duration = Duration::from_secs(600);
/// The AWS SAM CLI, which packs faster.
const SAM: &str = include_str!("../../infra/local/assets/deploy.py");

/// The bundle to test, from the root of the workspace.
fn bundle() -> Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(BUNDLE) else {
        // Written directly, because the test harness captures what passing tests print.
        let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: to deploy a bundle, give its path in {BUNDLE}. ***\n");
        return Ok(None);
    };
    let path = operate::workspace_root()?.join(path);
    ensure!(path.is_file(), "{BUNDLE}: there is no {}", path.display());
    Ok(Some(path))
}

/// Runs a command to its end, with nothing of the user's environment.
async fn run(name: &str, command: &mut Command, folder: &Path, variables: &[(&str, &str)]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.current_dir(folder).env_clear().env("PATH", path).env("LANG", "C.UTF-8").kill_on_drop(true);
    command.envs(variables.iter().copied());
    let ended = tokio::time::timeout(ENDED_WITHIN, command.output()).await;
    let output = ended.with_context(|| format!("{name} hangs"))??;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name}: {}\n{said}", output.status);
    Ok(())
}

/// Unpacks the bundle into an empty folder, and checks its sums. Returns the bundle's own folder there.
async fn unpack(bundle: &Path, into: &Path) -> Result<PathBuf> {
    run("tar", Command::new("tar").arg("-xzf").arg(bundle), into, &[]).await?;
    let mut entries = std::fs::read_dir(into)?;
    let folder = entries.next().context("the bundle is empty")??.path();
    ensure!(entries.next().is_none(), "a bundle has one folder, which has its name");
    run("sha256sum", Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]), &folder, &[]).await?;
    Ok(folder)
}

/// Makes each `bootstrap` a script that runs the binary under an emulator of its processor. The binaries move to `beside`.
fn run_under(emulator: &str, folder: &Path, beside: &Path) -> Result<()> {
    for function in std::fs::read_dir(folder.join("target/lambda"))? {
        let function = function?;
        let (bootstrap, binary) = (function.path().join("bootstrap"), beside.join(function.file_name()));
        std::fs::rename(&bootstrap, &binary)?;
        std::fs::write(&bootstrap, format!("#!/bin/sh\nexec {emulator} {}\n", binary.display()))?;
        std::fs::set_permissions(&bootstrap, std::fs::metadata(&binary)?.permissions())?;
    }
    Ok(())
}

/// The command of the bundle's README for the cheap stage, without the parts of AWS that the emulator lacks.
async fn deploy(folder: &Path, home: &Path, endpoint: &str) -> Result<()> {
    let tools = Tools::install(&operate::workspace_root()?, &Progress::silent()).await?;
    let home = home.to_string_lossy();
    let variables = [
        ("HOME", &*home),
        ("TMPDIR", &*home),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_DEFAULT_REGION", DEFAULT_REGION),
        ("AWS_ACCESS_KEY_ID", DUMMY_CREDENTIALS),
        ("AWS_SECRET_ACCESS_KEY", DUMMY_CREDENTIALS),
        ("SAM_CLI_TELEMETRY", "0"),
    ];
    let mut sam = Command::new(tools.deploy_python());
    sam.args(["-I", "-c", SAM, "deploy", "--config-env", "cheap"]);
    sam.args(["--parameter-overrides", "file://infra/stages/cheap.yaml", &format!("JwtSecret={SECRET}")]);
    // The emulator has no Logs Insights.
    sam.arg("SavedQueries=off");
    run("sam deploy", &mut sam, folder, &variables).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unpacked_bundle_deploys_and_shows_an_event_in_the_history() -> Result<()> {
    let Some(bundle) = bundle()? else { return Ok(()) };
    let (unpacked, home) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let folder = unpack(&bundle, unpacked.path()).await?;
    let binaries = tempfile::tempdir()?;
    if let Ok(emulator) = std::env::var(UNDER) {
        run_under(&emulator, &folder, binaries.path())?;
    }
    // The whole emulator, whatever the name says.
    let aws = LocalDynamoDb::emulator("bundle").await?;
    deploy(&folder, home.path(), aws.endpoint()).await?;

    let sdk = aws.sdk_config();
    let stack = Stack::describe(STACK.to_owned(), sdk.clone(), None).await?;
    let pollers = Pollers::start(PollersConfig {
        sdk,
        stack: STACK.to_owned(),
        bootstrap: None,
        standby_bootstrap: None,
        checkpoints: Checkpoints::default(),
        max_batch: None,
    });
    let pollers = pollers.await?;
    let api = format!("{}/_aws/execute-api/{}/$default", aws.endpoint(), stack.output("ApiId")?);
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let token = token::of_member(SECRET, vec!["p1".to_owned()], Duration::from_secs(600))?;
    let now = now_ms();
    let session = SessionId::mint("use1".parse()?, now, u128::from(now)).to_string();
    let event = json!({"session_id": session, "profile_id": "p1", "title_id": "t1", "seq": 0, "kind": "progressed",
        "position_ms": 10_000, "played_ms": 10_000, "title_duration_ms": 2_700_000, "occurred_at": now});
    let sent =
        http.post(format!("{api}/v1/events")).bearer_auth(&token).json(&json!({"events": [event]})).send().await?;
    let (status, answer) = (sent.status(), sent.text().await?);
    ensure!(status == 202 && serde_json::from_str::<Value>(&answer)?["accepted"] == 1, "{status} {answer}");
    let shown = within(PATIENCE, "the event in the history", async || {
        let history = http.get(format!("{api}/v1/profiles/p1/history")).bearer_auth(&token).send().await?;
        let history: Value = history.error_for_status()?.json().await?;
        Ok(history["sessions"].as_array().context("no sessions")?.first().cloned())
    });
    let shown = shown.await?;
    assert_eq!((&shown["session_id"], &shown["position_ms"]), (&json!(session), &json!(10_000)), "{shown}");
    pollers.stop().await.map(drop)
}
