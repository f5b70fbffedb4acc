//! The inputs that are kept, and that there are some for every target.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fuzz::{Target, targets};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_target_holds_for_its_corpus() {
    for (name, run) in targets() {
        let inputs = entries(&format!("corpus/{name}"));
        assert!(inputs.len() >= 3, "{name} has only {} inputs", inputs.len());
        for input in inputs {
            // Printed only if the test fails.
            println!("{}", input.display());
            run(&std::fs::read(input).unwrap());
        }
    }
}

#[test]
fn every_corpus_and_every_binary_has_a_target() {
    let targets: BTreeSet<String> = targets().map(|(name, _)| name.to_owned()).collect();
    let names = entries("corpus").into_iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), targets);
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer/Cargo.toml")).unwrap();
    let bins = manifest.split("[[bin]]").skip(1).map(|bin| bin.split('"').nth(1).unwrap().to_owned());
    assert_eq!(bins.collect::<BTreeSet<_>>(), targets);
}

/// A clone stays small, and the test fast.
#[test]
fn corpus_is_small() {
    let of_target = |(name, _): (&str, Target)| entries(&format!("corpus/{name}"));
    let bytes: u64 = targets().flat_map(of_target).map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes < 300_000, "{bytes} bytes");
}
