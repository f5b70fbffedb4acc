//! The walls between the crates, as cargo itself sees them: who compiles what, and the picture in ARCHITECTURE.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What cargo prints; without the network, since everything that compiled this test is here.
fn cargo(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO")).args(arguments).args(["--offline", "--locked"]).current_dir(root()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names of all crates that are compiled into `package`, its build scripts' included.
fn compiled_into(package: &str) -> BTreeSet<String> {
    let tree = cargo(&["tree", "--package", package, "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    tree.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

#[track_caller]
fn check_absent(package: &str, absent: &[&str]) {
    let compiled = compiled_into(package);
    assert!(compiled.contains("playback"), "{package}: {compiled:?}");
    let found: Vec<&&str> = absent.iter().filter(|name| compiled.contains(**name)).collect();
    assert!(found.is_empty(), "{package} compiles {found:?}");
}

const KAFKA: [&str; 6] =
    ["rdkafka", "rdkafka-sys", "openssl-sys", "aws-msk-iam-sasl-signer", "aws-sdk-kafka", "aws-sdk-kinesis"];

#[test]
fn only_ingest_among_the_functions_compiles_a_log() {
    for function in ["process", "retry", "forward", "query", "compare"] {
        check_absent(function, &KAFKA);
    }
    let ingest = compiled_into("ingest");
    assert!(ingest.contains("rdkafka") && ingest.contains("aws-sdk-kinesis"), "{ingest:?}");
}

#[test]
fn operator_code_does_not_depend_on_the_emulator() {
    check_absent("operate", &["local", "simulate", "rdkafka", "legacy"]);
    check_absent("simulate", &["local", "rdkafka"]);
}

#[test]
fn ingest_compiles_no_store() {
    check_absent("ingest", &["store", "aws-sdk-dynamodb", "apply"]);
}

/// The arrows among our crates, as Mermaid draws them.
fn picture() -> String {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).filter(|name| name != "playhead-tests").collect();
    let mut lines = vec!["graph TD".to_owned()];
    for room in ["functions", "shared", "infra", "tests"] {
        let inside = |package: &&Value| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            manifest.strip_prefix(root()).unwrap().starts_with(room) && ours.contains(&name(package))
        };
        let mut names: Vec<String> = packages.iter().filter(inside).map(name).collect();
        names.sort();
        lines.push(format!("  subgraph {room}\n    {}\n  end", names.join("\n    ")));
    }
    for package in packages.iter().filter(|package| ours.contains(&name(package))) {
        let dependencies = package["dependencies"].as_array().unwrap();
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
        let used: BTreeSet<String> = normal.map(name).filter(|name| ours.contains(name)).collect();
        let implied: BTreeSet<String> = used.iter().flat_map(|one| reached_from(one, packages)).collect();
        // An arrow that others imply says nothing new.
        lines.extend(used.difference(&implied).map(|to| format!("  {} --> {to}", name(package))));
    }
    lines.join("\n")
}

/// The crates that `from` depends on, directly or not.
fn reached_from(from: &str, packages: &[Value]) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let package = packages.iter().find(|package| package["name"] == from);
    for dependency in package.into_iter().flat_map(|package| package["dependencies"].as_array().unwrap()) {
        let name = dependency["name"].as_str().unwrap();
        if dependency["kind"].is_null() && packages.iter().any(|package| package["name"] == name) {
            reached.insert(name.to_owned());
            reached.extend(reached_from(name, packages));
        }
    }
    reached
}

/// `PLAYHEAD_BLESS=1 cargo test -p playhead-tests --test crates` draws it again.
#[test]
fn the_picture_in_architecture_is_what_cargo_sees() {
    let (path, fence) = (root().join("ARCHITECTURE.md"), "```mermaid\n");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(fence).expect("ARCHITECTURE.md has a mermaid block");
    let (drawn, after) = rest.split_once("\n```").unwrap();
    let picture = picture();
    if std::env::var_os("PLAYHEAD_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{fence}{picture}\n```{after}")).unwrap();
    } else {
        assert_eq!(drawn, picture, "draw it again with PLAYHEAD_BLESS=1");
    }
}
