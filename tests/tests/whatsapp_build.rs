//! Checks how WhatsApp is built: what people run checks that a server is WhatsApp's, and only the builds for the tests'
//! server do not. Without the feature, nothing of the library is built.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The features of the library that turn a check of the server's certificate off.
const UNCHECKED: [&str; 2] = ["danger-skip-cert-chain-verify", "danger-skip-tls-verify"];
const MAIN: &str = "Cargo.toml";
const FOR_TEST_SERVER: &str = "tests/whatsapp/Cargo.toml";
const FUZZ: &str = "tests/fuzz/Cargo.toml";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the packages that cargo builds for this machine, each with its features. The lock file decides. On a new
/// machine cargo first downloads what no build has needed yet.
fn tree(manifest: &str, what: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let asked = Command::new(env!("CARGO"))
        .current_dir(repository())
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p} [{f}]"])
        .args(["--manifest-path", manifest])
        .args(what)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "cargo tree of {manifest} {what:?}: {told}");
    let mut packages: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    // An empty line stands between the trees of a workspace.
    for line in String::from_utf8(asked.stdout).unwrap().lines().filter(|line| !line.is_empty()) {
        let Some((package, features)) = line.split_once(" [") else { panic!("{line}") };
        let features = features.split(']').next().unwrap_or_default().split(',').map(str::to_owned);
        let name = package.split(' ').next().unwrap_or_default();
        packages.entry(name.to_owned()).or_default().extend(features);
    }
    packages
}

fn unchecked(packages: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let off = |features: &BTreeSet<String>| UNCHECKED.iter().any(|feature| features.contains(*feature));
    packages.iter().filter(|(_, features)| off(features)).map(|(name, _)| name.clone()).collect()
}

#[test]
fn only_the_host_for_the_test_server_takes_any_server_for_whatsapps() {
    let release = tree(MAIN, &["--package", "lazaret", "--edges", "normal,build"]);
    assert!(release.contains_key("whatsapp-rust"), "a release has WhatsApp");
    for packages in [release, tree(MAIN, &["--workspace"]), tree(FUZZ, &["--workspace"])] {
        assert_eq!(unchecked(&packages), [""; 0]);
    }
    let for_tests = tree(FOR_TEST_SERVER, &["--workspace"]);
    assert_eq!(
        unchecked(&for_tests),
        ["wacore", "wacore-noise", "whatsapp-rust"],
        "else this test could not fail"
    );
}

#[test]
fn without_the_feature_nothing_of_the_library_is_built() {
    let without = tree(MAIN, &["--package", "lazaret", "--no-default-features", "--edges", "normal,build"]);
    let of_it = |name: &&String| ["whatsapp", "wacore", "waproto"].iter().any(|word| name.contains(word));
    assert_eq!(without.keys().filter(of_it).collect::<Vec<_>>(), [""; 0]);
}

/// Returns the versions of each package of a lock file.
fn locked(manifest: &str) -> BTreeMap<String, BTreeSet<String>> {
    let lock = std::fs::read_to_string(repository().join(manifest).with_extension("lock")).unwrap();
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
            line.unwrap_or_else(|| panic!("{package}")).trim_end_matches('"').to_owned()
        };
        versions.entry(value("name")).or_default().insert(value("version"));
    }
    versions
}

/// Else the tests would test another host than people run.
#[test]
fn the_workspaces_build_the_same_versions() {
    let main = locked(MAIN);
    for manifest in [FOR_TEST_SERVER, FUZZ] {
        let others: Vec<String> = locked(manifest)
            .into_iter()
            .filter_map(|(name, versions)| {
                let known = main.get(&name)?;
                (!versions.is_subset(known)).then(|| format!("{name}: {versions:?}, and {known:?} in {MAIN}"))
            })
            .collect();
        assert!(
            others.is_empty(),
            "{manifest}: set these with cargo update --precise:\n{}",
            others.join("\n")
        );
    }
}
