//! Each failpoint of the table occurs once in the code, and a release build has none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use failpoint::{Kind, Side, TABLE};

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => rust_files(&path, found),
            false => found.push(path),
        }
    }
}

/// Returns every failpoint in a crate's source, and whether it can return an error.
fn places(package: &str) -> BTreeMap<String, bool> {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src"), &mut files);
    let mut found = BTreeMap::new();
    for path in files {
        for place in fs::read_to_string(&path).unwrap().split("failpoint!(\"").skip(1) {
            let (name, rest) = place.split_once('"').unwrap();
            let twice = found.insert(name.to_owned(), rest.starts_with(','));
            assert!(twice.is_none(), "{name} is there twice, so its hits cannot be distinguished");
        }
    }
    found
}

#[test]
fn table_and_code_name_the_same_places() {
    for (side, package) in [(Side::Host, "host"), (Side::Runner, "agent-runner")] {
        let listed = TABLE.iter().filter(|point| point.side == side);
        let listed: BTreeMap<_, _> = listed.map(|p| (p.name.to_owned(), p.kind != Kind::Step)).collect();
        assert_eq!(places(package), listed, "{package}: code on the left, table on the right");
    }
    let count = |side| TABLE.iter().filter(|point| point.side == side).count();
    assert!(count(Side::Host) >= 40 && count(Side::Runner) >= 12);
}

/// `make test` runs this on the release binaries. A test build contains the name of the failpoints' environment
/// variable.
#[test]
fn what_people_run_holds_none() {
    for variable in ["LAZARET_BIN", "LAZARET_RUNNER_BIN"] {
        let Some(path) = std::env::var_os(variable) else { continue };
        let bytes = fs::read(&path).unwrap();
        let words = TABLE.iter().map(|point| point.name).chain([
            failpoint::RULES,
            failpoint::RULES_FILE,
            failpoint::CLOCK,
        ]);
        let any: Vec<String> = words.map(regex::escape).collect();
        if let Some(found) = regex::bytes::Regex::new(&any.join("|")).unwrap().find(&bytes) {
            let word = String::from_utf8_lossy(found.as_bytes());
            panic!("{} holds the failpoint {word}: build it without the feature", path.display());
        }
    }
}
