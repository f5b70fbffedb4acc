//! The walls between the crates, as cargo itself sees them: who compiles what, and the picture of
//! them in docs/.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Cargo's output. It runs offline: everything it needs was there to compile this test.
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

#[test]
fn operator_code_does_not_depend_on_the_emulator() {
    check_absent("operate", &["local", "simulate", "rdkafka", "legacy"]);
    check_absent("simulate", &["local", "rdkafka"]);
}

#[test]
fn ingest_compiles_no_store() {
    check_absent("ingest", &["store", "aws-sdk-dynamodb", "apply"]);
}

/// One of our crates: its top-level folder, and which of our crates it depends on.
struct Crate {
    room: String,
    uses: BTreeSet<String>,
}

/// Our crates by name, except the tests themselves.
fn crates() -> BTreeMap<String, Crate> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap()).strip_prefix(root()).unwrap();
        let room = manifest.iter().next().unwrap().to_str().unwrap().to_owned();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        let uses = normal.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
        found.insert(package["name"].as_str().unwrap().to_owned(), Crate { room, uses });
    }
    found.remove("playhead-tests");
    let ours: BTreeSet<String> = found.keys().cloned().collect();
    found.values_mut().for_each(|one| one.uses.retain(|name| ours.contains(name)));
    found
}

/// The number of arrows on the longest path from a crate to the domain.
fn height(name: &str, crates: &BTreeMap<String, Crate>) -> usize {
    crates[name].uses.iter().map(|used| height(used, crates) + 1).max().unwrap_or(0)
}

/// Whether `from` also reaches `to` through another crate: then a direct arrow adds nothing.
fn is_implied(from: &str, to: &str, crates: &BTreeMap<String, Crate>) -> bool {
    let reaches = |name: &String| name != to && (crates[name].uses.contains(to) || is_implied(name, to, crates));
    crates[from].uses.iter().any(reaches)
}

/// The crates as boxes, one row per height, the domain at the bottom. An arrow points to what a
/// crate depends on.
fn picture(crates: &BTreeMap<String, Crate>) -> String {
    const WIDTH: usize = 960;
    const ROW: usize = 84;
    let mut rows: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for name in crates.keys() {
        rows.entry(height(name, crates)).or_default().push(name);
    }
    for row in rows.values_mut() {
        row.sort_by_key(|name| (crates[*name].room.clone(), *name));
    }
    let tall = rows.len() * ROW + 20;
    let place = |name: &str| {
        let row = height(name, crates);
        let at = rows[&row].iter().position(|other| *other == name).unwrap();
        ((2 * at + 1) * WIDTH / (2 * rows[&row].len()), tall - 10 - row * ROW - ROW / 2)
    };
    let (mut arrows, mut boxes) = (String::new(), String::new());
    for (name, Crate { room, uses }) in crates {
        let (x, y) = place(name);
        for (to_x, to_y) in uses.iter().filter(|to| !is_implied(name, to, crates)).map(|to| place(to)) {
            let (begin, end) = (y + 17, to_y - 20);
            let middle = begin.midpoint(end);
            arrows += &format!("  <path d=\"M{x} {begin}C{x} {middle} {to_x} {middle} {to_x} {end}\"/>\n");
        }
        let left = x - 52;
        let top = y - 17;
        boxes += &format!("  <rect class=\"{room}\" x=\"{left}\" y=\"{top}\" width=\"104\" height=\"34\" rx=\"6\"/>\n");
        let baseline = y + 5;
        boxes += &format!("  <text x=\"{x}\" y=\"{baseline}\">{name}</text>\n");
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" role="img" font-family="system-ui, sans-serif">
  <title>The crates of the workspace; an arrow points to what a crate depends on</title>
  <style>
    path {{ fill: none; stroke: #8c959f; marker-end: url(#tip) }}
    text {{ font-size: 14px; text-anchor: middle; fill: #1f2328 }}
    rect {{ stroke: #57606a }}
    .functions {{ fill: #ddf4ff }} .shared {{ fill: #dafbe1 }} .infra {{ fill: #fff8c5 }} .tests {{ fill: #f6f8fa }}
  </style>
  <marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#8c959f;stroke:none;marker-end:none"/></marker>
  <rect width="100%" height="100%" style="fill:#ffffff;stroke:none"/>
{arrows}{boxes}</svg>
"##
    )
}

/// `PLAYHEAD_BLESS=1 cargo test -p playhead-tests --test crates` draws it again.
#[test]
fn picture_of_the_crates_is_what_cargo_sees() {
    let (path, picture) = (root().join("docs/crates.svg"), picture(&crates()));
    if std::env::var_os("PLAYHEAD_BLESS").is_some() {
        std::fs::write(&path, &picture).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), picture, "draw it again with PLAYHEAD_BLESS=1");
}
