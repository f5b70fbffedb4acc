//! The life of the local cloud as its user sees it: up, up again, killed, and down. Runs the real
//! program in a separate run, so a local cloud of the user is left alone.
//!
//! Linux only: processes are found through `/proc`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use local::LocalOptions;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const RUN: &str = "lifecycle-test";
const GONE_WITHIN: Duration = Duration::from_secs(20);

fn playhead(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_playhead");
    Command::new(program).args(["local", "--run", RUN]).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = playhead(arguments);
    assert!(status.success(), "{arguments:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn status() -> (Option<i32>, Value) {
    let Output { status, stdout, .. } = playhead(&["status", "--json"]);
    (status.code(), serde_json::from_slice(&stdout).unwrap())
}

fn run_dir() -> PathBuf {
    LocalOptions::named(RUN).unwrap().run_dir
}

/// Processes in the run's folder: emulator, functions, broker and their guards.
fn members() -> Vec<Pid> {
    let folder = run_dir().canonicalize().unwrap();
    let works_there = |pid: &Pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    processes.filter_map(Pid::from_raw).filter(works_there).collect()
}

/// The broker's own process, not its guard.
fn broker() -> Pid {
    let is_broker = |pid: &Pid| {
        let program = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        program.split(|byte| *byte == 0).next().is_some_and(|name| name.ends_with(b"/tansu"))
    };
    members().into_iter().find(is_broker).expect("no broker runs")
}

/// Posts JSON as the page at this address does, and returns the answer.
fn post(address: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn assert_nothing_is_left(aws_endpoint: &str) {
    let deadline = Instant::now() + GONE_WITHIN;
    while !members().is_empty() {
        assert!(Instant::now() < deadline, "still there after {} s: {:?}", GONE_WITHIN.as_secs(), members());
        std::thread::sleep(Duration::from_millis(50));
    }
    let address: SocketAddr = aws_endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    assert!(TcpStream::connect(address).is_err(), "a process still listens on {address}");
    assert_eq!(status(), (Some(1), serde_json::json!({ "running": false })));
}

/// Stops the cloud, however the test ends.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        playhead(&["down"]);
    }
}

/// Revives the broker by the live page, as soon as the page knows that it is gone.
fn revive_on(page: &str) {
    let revive = r#"{"do":"broker","region":"us-east-1","log":"primary","broker":0,"up":true}"#;
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        // Until it is noticed, the broker is "already running".
        let answer = post(page, "/controls", revive);
        if answer.starts_with("HTTP/1.1 204") {
            break;
        }
        assert!(answer.contains("already running") && Instant::now() < deadline, "{answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn local_cloud_comes_up_once_and_leaves_nothing_behind() {
    let _ended = Ended;
    succeeds(&["up"]);
    let (code, first) = status();
    assert_eq!((code, &first["running"]), (Some(0), &Value::Bool(true)));
    for field in ["api", "aws_endpoint", "log_bootstrap", "views_table", "inbound_queue_url", "dead_letter_queue_url"] {
        assert!(first[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {first}");
    }
    assert!(first.get("jwt_secret").is_none(), "the status shows the secret");
    assert!(members().len() >= 4, "emulator, broker and their guards: {:?}", members());

    // A broker that dies ends nothing: it can be revived on the live page, again and again.
    let page = first["live_page"].as_str().unwrap().strip_prefix("http://").unwrap().trim_end_matches('/');
    for _ in 0..2 {
        kill_process(broker(), Signal::KILL).unwrap();
        revive_on(page);
        assert_eq!(status().1, first, "the cloud is still the same");
        assert!(fs::exists(format!("/proc/{}", broker().as_raw_nonzero())).unwrap());
    }

    let again = succeeds(&["up"]);
    assert!(again.contains("already up"), "{again}");
    assert_eq!(status().1, first, "the second `up` must leave the first alone");

    let supervisor = Pid::from_raw(i32::try_from(first["pid"].as_i64().unwrap()).unwrap()).unwrap();
    kill_process(supervisor, Signal::KILL).unwrap();
    assert_nothing_is_left(first["aws_endpoint"].as_str().unwrap());

    // Files that the crash left in the folder do not stop the next `up`.
    succeeds(&["up"]);
    let (code, second) = status();
    assert_eq!(code, Some(0));
    assert_ne!(second["pid"], first["pid"]);
    succeeds(&["down"]);
    assert_nothing_is_left(second["aws_endpoint"].as_str().unwrap());
    succeeds(&["down"]);
    assert!(!run_dir().join("live").exists(), "the folder of a running cloud is still there");
}
