//! The rules of the house that no compiler holds: which way the arrows point, and that every invariant names tests that exist.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The names in a section of a crate's manifest.
fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let lines =
        text.lines().skip_while(|line| line.trim() != section).skip(1).take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| Some(line.split(['.', ' ', '=']).next()?.to_owned()))
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn the_domain_depends_on_nothing_that_does_io() {
    let pure = ["prost", "serde", "serde_json", "sha2", "thiserror", "ulid"].map(str::to_owned);
    assert_eq!(dependencies("shared/playback/Cargo.toml", "[dependencies]"), BTreeSet::from(pure));
}

#[test]
fn arrows_point_from_functions_to_libraries_to_the_domain() {
    let ours = [
        "playback", "stream", "store", "lambda", "apply", "ingest", "process", "retry", "forward", "query", "compare",
        "playhead", "legacy", "queue", "local", "operate", "simulate",
    ];
    let check = |manifest: &str, allowed: &[&str]| {
        let used = dependencies(manifest, "[dependencies]");
        let wrong: Vec<&&str> = ours.iter().filter(|name| used.contains(**name) && !allowed.contains(name)).collect();
        assert!(!used.is_empty(), "{manifest} was not read");
        assert!(wrong.is_empty(), "{manifest} may not depend on {wrong:?}");
    };
    for library in ["stream", "queue", "store", "lambda"] {
        check(&format!("shared/{library}/Cargo.toml"), &["playback"]);
    }
    check("shared/apply/Cargo.toml", &["playback", "queue", "store", "lambda"]);
    // It must not share with us what it is compared with.
    check("tests/legacy/Cargo.toml", &["playback", "lambda"]);
    for function in ["ingest", "process", "retry", "forward", "query", "compare"] {
        check(&format!("functions/{function}/Cargo.toml"), &["playback", "stream", "store", "lambda", "apply"]);
    }
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut code = String::new();
    for folder in ["shared", "functions", "infra", "tests"] {
        read_code(&root().join(folder), &mut code);
    }
    let mut named = 0;
    // An invariant is one item of a list: it goes on in lines that are indented.
    let items = architecture.split("\n- ").filter_map(|item| item.trim_start().strip_prefix("**Invariant:**"));
    for item in items.map(|item| item.split("\n\n").next().unwrap()) {
        let tests: Vec<&str> = item.split('`').skip(1).step_by(2).filter(|name| is_test_name(name)).collect();
        assert!(!tests.is_empty(), "this invariant names no test:{item}");
        for test in tests {
            assert!(
                code.contains(&format!("fn {test}(")) || code.contains(&format!("{test} =>")),
                "there is no test {test}"
            );
            named += 1;
        }
    }
    assert!(named > 40, "only {named} tests were found in ARCHITECTURE.md");
}

fn is_test_name(text: &str) -> bool {
    text.matches('_').count() >= 2
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn read_code(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_code(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
