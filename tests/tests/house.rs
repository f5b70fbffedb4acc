//! The rules of the house that no compiler enforces: which way the arrows point, that every
//! invariant names tests that exist, how long documents and `main.rs` may be, and that what
//! documents refer to is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Words that the glossary has better ones for. Split, so that this file does not contain them.
const BANNED: [&str; 6] = [
    concat!("m", "end"),
    concat!("m", "ends"),
    concat!("m", "ended"),
    concat!("m", "ending"),
    concat!("becomes", " of"),
    concat!("cannot be", " had"),
];

/// The greatest width of a line of Markdown outside tables and code blocks, in characters.
const WIDTH: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of the repository, relative to its root. Build output is left out.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.sort();
    assert!(found.len() > 300, "only {} files were found", found.len());
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && ![".git", ".aws-sam", "target", "node_modules", "dist", "build"].contains(&name.as_str()) {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
}

fn with_extension(extension: &str) -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

// ------------------------------------------------------------------------------------------ arrows

/// The names in a section of a crate's manifest.
fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let text = read(manifest);
    let lines =
        text.lines().skip_while(|line| line.trim() != section).skip(1).take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| Some(line.split(['.', ' ', '=']).next()?.to_owned()))
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
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
        "playback",
        "stream",
        "queue",
        "store",
        "lambda",
        "apply",
        "ingest",
        "process",
        "retry",
        "forward",
        "query",
        "compare",
        "playhead",
        "observe",
        "operate",
        "plan",
        "live",
        "local",
        "simulate",
        "legacy",
        "night",
        "hot-paths",
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
    // It must not share code with what it is compared with.
    check("tests/legacy/Cargo.toml", &["playback", "lambda"]);
    // Its release build must stay short, because CI compiles it for itself.
    check("tests/hot-paths/Cargo.toml", &["playback", "lambda", "apply"]);
    check("functions/ingest/Cargo.toml", &["playback", "stream", "lambda"]);
    for function in ["process", "retry", "forward"] {
        check(&format!("functions/{function}/Cargo.toml"), &["playback", "queue", "store", "lambda", "apply"]);
    }
    check("functions/query/Cargo.toml", &["playback", "queue", "store", "lambda"]);
    check("functions/compare/Cargo.toml", &["playback", "store", "lambda"]);
    // What is watched is known by the names of the metrics.
    check("infra/observe/Cargo.toml", &["lambda"]);
    // A plan is arithmetic: whatever it needs to know is in its constants.
    check("infra/plan/Cargo.toml", &[]);
    // Operator code works on AWS: it knows nothing of the emulator or of simulated viewers.
    check("infra/operate/Cargo.toml", &["playback", "queue", "store", "lambda", "apply", "compare"]);
}

#[test]
fn only_ingest_compiles_a_log_client() {
    let heavy = ["rdkafka", "rdkafka-sys", "openssl-sys", "openssl-src", "aws-sdk-kafka", "aws-sdk-kinesis"];
    let compiled_by = |function: &str| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut tree = Command::new(cargo);
        tree.args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"]);
        let tree = tree.args(["--format", "{p}", "--package", function]).current_dir(root()).output().unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let lines = String::from_utf8(tree.stdout).unwrap();
        let names: BTreeSet<String> =
            lines.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
        heavy.into_iter().filter(|name| names.contains(*name)).collect::<Vec<_>>()
    };
    assert!(compiled_by("ingest").contains(&"rdkafka"), "this test does not see what a function compiles");
    for function in ["process", "retry", "forward", "query", "compare"] {
        assert_eq!(compiled_by(function), Vec::<&str>::new(), "compiled by {function}");
    }
    // The change feed is a Kinesis stream.
    assert_eq!(compiled_by("publish"), ["aws-sdk-kinesis"]);
}

// -------------------------------------------------------------------------------------- invariants

#[test]
fn every_invariant_names_a_test_that_exists() {
    let code: String = with_extension("rs").iter().map(read).collect();
    let all = read("docs/invariants.md");
    let main = read("ARCHITECTURE.md");
    let items = |text: &str| text.split("\n- ").skip(1).map(str::to_owned).collect::<Vec<_>>();
    let marked = items(&main).into_iter().filter(|item| item.starts_with("**Invariant:**"));
    let mut named = BTreeSet::new();
    // An item ends at an empty line.
    for item in items(&all).into_iter().chain(marked) {
        let item = item.split("\n\n").next().unwrap();
        let tests: Vec<&str> = item.split('`').skip(1).step_by(2).filter(|name| is_test_name(name)).collect();
        assert!(!tests.is_empty(), "this invariant names no test: {item}");
        for test in tests {
            assert!(
                code.contains(&format!("fn {test}(")) || code.contains(&format!("{test} =>")),
                "there is no test {test}"
            );
            named.insert(test.to_owned());
        }
    }
    assert!(named.len() > 200, "only {} tests were found", named.len());
}

fn is_test_name(text: &str) -> bool {
    text.matches('_').count() >= 2
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

// ------------------------------------------------------------------------------------------- sizes

#[test]
fn front_doors_are_short() {
    for (document, lines, bytes) in [("README.md", 200, 15 * 1024), ("ARCHITECTURE.md", 250, 22 * 1024)] {
        let text = read(document);
        assert!(text.lines().count() <= lines, "{document} has {} lines", text.lines().count());
        assert!(text.len() <= bytes, "{document} has {} bytes", text.len());
    }
    let invariants = read("ARCHITECTURE.md").matches("**Invariant:**").count();
    assert!((15..=20).contains(&invariants), "ARCHITECTURE.md has {invariants} invariants; docs/invariants.md has all");
}

#[test]
fn main_functions_only_wire() {
    let (mut seen, mut long) = (0, Vec::new());
    for path in with_extension("rs") {
        let path = path.to_str().unwrap();
        if path.starts_with("functions/") && path.ends_with("/src/main.rs") {
            let most = if path.starts_with("functions/ingest/") { 60 } else { 40 };
            let lines = read(path).lines().count();
            if lines > most {
                long.push(format!("{path} has {lines} lines, of {most}"));
            }
            seen += 1;
        }
    }
    assert!(long.is_empty(), "{long:#?}");
    assert!(seen >= 6, "only {seen} functions were found");
}

// --------------------------------------------------------------------------------------- documents

/// The lines of a Markdown document outside code blocks, each with its number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (!code && !fence).then_some((index + 1, line))
    })
}

#[test]
fn lines_of_markdown_fit() {
    let mut wide = Vec::new();
    for document in with_extension("md") {
        for (number, line) in prose(&read(&document)).filter(|(_, line)| !line.trim_start().starts_with('|')) {
            let width = line.chars().count();
            if width > WIDTH {
                wide.push(format!("{}:{number} has {width} columns", document.display()));
            }
        }
    }
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn every_relative_link_resolves() {
    let (mut seen, mut broken) = (0, Vec::new());
    for document in with_extension("md") {
        let text = read(&document);
        let prose = prose(&text).map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        for target in link_targets(&prose).filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let resolves = root().join(&file).exists() && (anchor.is_empty() || anchors(&read(&file)).contains(anchor));
            if !resolves {
                broken.push(format!("{} links to {target}", document.display()));
            }
            seen += 1;
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 50, "only {seen} links were found");
}

/// What follows `](` up to `)`, outside inline code.
fn link_targets(prose: &str) -> impl Iterator<Item = &str> {
    let text = prose.split('`').step_by(2);
    text.flat_map(|text| text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)))
}

/// The anchors that GitHub makes of a document's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn anchors_are_those_of_github() {
    for (heading, expected) in [
        ("Bird's-eye view", "birds-eye-view"),
        ("`POST /v1/events`", "post-v1events"),
        ("What was tested, and what was not", "what-was-tested-and-what-was-not"),
    ] {
        assert_eq!(anchor(heading), expected);
    }
    assert_eq!(link_targets("[a](b) `[c](d)` ![e\nf](g#h)").collect::<Vec<_>>(), ["b", "g#h"]);
}

#[test]
fn every_path_in_a_document_exists() {
    let (mut seen, mut missing) = (0, Vec::new());
    for document in with_extension("md") {
        for (number, line) in prose(&read(&document)) {
            for path in line.split('`').skip(1).step_by(2).filter(|path| is_path(path)) {
                if !root().join(path).exists() {
                    missing.push(format!("{}:{number} names {path}", document.display()));
                }
                seen += 1;
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(seen > 50, "only {seen} paths were found");
}

#[test]
fn one_version_is_in_the_changelog_and_in_all_packages() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("CHANGELOG.md");
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## "));
    assert_eq!(newest, Some(version), "the newest section of CHANGELOG.md");
    let package = read("sdk/web/package.json");
    assert!(package.contains(&format!("\"version\": \"{version}\"")), "sdk/web/package.json has another version");
}

/// Whether this is a path from the root of the repository to something that is kept in it.
fn is_path(text: &str) -> bool {
    let roots = [".ci/", "docs/", "events/", "functions/", "infra/", "proto/", "sdk/", "shared/", "tests/"];
    roots.iter().any(|root| text.starts_with(root)) && !text.contains(['*', '<', ' ', '…', ','])
}

#[test]
fn what_operators_and_players_see_is_documented() {
    let (template, metrics, outcome) =
        (read("template.yaml"), read("shared/lambda/src/metrics.rs"), read("shared/playback/src/outcome.rs"));
    let edge = read("shared/playback/src/edge.rs");
    let templates: String = with_extension("yaml").iter().map(read).collect();
    let parameters = section(&template, "Parameters:", |line| !line.starts_with([' ', '#']) && !line.is_empty());
    let variants = section(&metrics, "pub enum Metric {", |line| line.starts_with('}'));
    let named = [
        ("docs/deploy.md", keys(&parameters), 35),
        ("docs/operate.md", keys(&templates).into_iter().filter(|key| key.ends_with("Alarm")).collect(), 33),
        ("docs/metrics.md", variants.lines().filter_map(variant).collect(), 40),
        ("docs/operate.md docs/metrics.md", strings(&outcome), 15),
        ("docs/api.md", strings(&edge), 14),
    ];
    for (document, names, at_least) in named {
        let text: String = document.split(' ').map(read).collect();
        let missing: Vec<&String> = names
            .iter()
            .filter(|name| ![format!("`{name}`"), format!("### {name}\n")].iter().any(|named| text.contains(named)))
            .collect();
        assert!(names.len() >= at_least, "only {names:?} were found for {document}");
        assert!(missing.is_empty(), "{document} does not name {missing:?}");
    }
}

/// The lines after the one that begins a section, up to the one that ends it.
fn section(text: &str, begin: &str, ends: impl Fn(&str) -> bool) -> String {
    let lines = text.lines().skip_while(|line| *line != begin).skip(1).take_while(|line| !ends(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The keys of YAML that are indented by two.
fn keys(yaml: &str) -> BTreeSet<String> {
    let keys = yaml.lines().filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
    keys.filter(|key| key.bytes().all(|byte| byte.is_ascii_alphanumeric())).map(str::to_owned).collect()
}

/// The variant of an enum that a line declares.
fn variant(line: &str) -> Option<String> {
    let name = line.strip_prefix("    ")?.split(['(', ',']).next()?;
    name.starts_with(|first: char| first.is_ascii_uppercase()).then(|| name.to_owned())
}

/// The strings that the arms of a `match` give: `Code::FieldType => "field_type",`.
fn strings(code: &str) -> BTreeSet<String> {
    let arms =
        code.lines().filter_map(|line| Some(line.trim().strip_suffix("\",")?.split_once(" => \"")?.1.to_owned()));
    arms.filter(|text| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'))
        .collect()
}

#[test]
fn nothing_uses_a_banned_phrase() {
    let mut found = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.to_ascii_lowercase().lines().enumerate() {
            let phrases = BANNED.iter().filter(|phrase| has_phrase(line, phrase));
            found.extend(phrases.map(|phrase| format!("{}:{} says {phrase:?}", path.display(), number + 1)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether the phrase is there as whole words.
fn has_phrase(line: &str, phrase: &str) -> bool {
    let part_of_a_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(phrase)
        .any(|(at, _)| !line[..at].ends_with(part_of_a_word) && !line[at + phrase.len()..].starts_with(part_of_a_word))
}
