//! The house stands as it is drawn: imports point down only, the pure floors stay pure, and no file outgrows its
//! reader.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room with its floor. Two rooms on one floor do not import each other.
/// The ground (10) lies under the rooms that do things; `domain` and the pure rooms know nothing of it.
const FLOORS: [(&str, u32); 32] = [
    ("main", 65),
    ("lib", 60),
    ("fuzz_targets", 57),
    ("cli", 55),
    ("daemon", 50),
    ("supervisor", 45),
    ("intake", 42),
    ("run", 42),
    ("delivery", 42),
    ("maintenance", 42),
    ("services", 41),
    ("gateway", 40),
    ("backup", 40),
    ("images", 40),
    ("channels", 30),
    ("store", 30),
    ("sandbox", 30),
    ("mailbox", 30),
    ("spool", 30),
    ("volumes", 30),
    ("config", 30),
    ("workers", 25),
    ("dispatch", 22),
    ("policy", 21),
    ("text", 20),
    ("telemetry", 10),
    ("disk", 10),
    ("report", 10),
    ("clock", 10),
    ("unix_socket", 10),
    ("http", 10),
    ("failpoint", 10),
];

const DOMAIN: &str = "domain";

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The room that a file belongs to: its folder or name directly below `src`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(source()).unwrap();
    inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// A file without its comments and without the tests that stand at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Rooms that a file names after `crate::`, one or many in braces.
fn imports(code: &str) -> Vec<String> {
    let word = |rest: &str| -> String {
        rest.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    let of_use = |rest: &str| match rest.strip_prefix('{') {
        Some(list) => outermost(list).iter().map(|one| word(one)).collect(),
        None => vec![word(rest)],
    };
    let mut rooms: Vec<String> = code.split("crate::").skip(1).flat_map(of_use).collect();
    rooms.retain(|room| !room.is_empty());
    rooms.sort();
    rooms.dedup();
    rooms
}

/// What stands between the commas of a list, up to the brace that ends it; lists within it are left whole.
fn outermost(list: &str) -> Vec<String> {
    let (mut parts, mut deep) = (vec![String::new()], 0);
    for c in list.chars() {
        match c {
            '}' if deep == 0 => break,
            ',' if deep == 0 => {
                parts.push(String::new());
                continue;
            }
            '{' => deep += 1,
            '}' => deep -= 1,
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts
}

#[test]
fn imports_are_read_however_they_are_written() {
    let code = "use crate::disk;\nuse crate::{say, store::{A, b::C}, run};\nlet x = crate::clock::now();";
    assert_eq!(imports(code), ["clock", "disk", "run", "say", "store"]);
}

fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    files.sort();
    assert!(files.len() > 40, "the house was not found");
    files
}

#[test]
fn arrows_point_down_only() {
    let floors: BTreeMap<&str, u32> = FLOORS.into_iter().collect();
    let mut wrong = Vec::new();
    for path in files() {
        let from = room(&path);
        for to in imports(&code(&path)) {
            if to == from || to == DOMAIN {
                continue;
            }
            let here = if from == DOMAIN { Some(&0) } else { floors.get(from.as_str()) };
            match (here, floors.get(to.as_str())) {
                (Some(here), Some(there)) if here > there && !(*here < 30 && *there == 10) => {}
                _ => wrong.push(format!("{} (in {from}) imports {to}", path.display())),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that point up or sideways, or rooms without a floor:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_pure_floors_know_no_runtime_no_disk_and_no_clock() {
    const IMPURE: [&str; 9] = [
        "tokio",
        "rusqlite",
        "bollard",
        "reqwest",
        "std::fs",
        "std::net",
        "Instant::now",
        "SystemTime::now",
        "Utc::now",
    ];
    let mut wrong = Vec::new();
    for path in files() {
        if !["dispatch", "policy", "text", "domain"].contains(&room(&path).as_str()) {
            continue;
        }
        let code = code(&path);
        wrong
            .extend(IMPURE.iter().filter(|i| code.contains(**i)).map(|i| format!("{}: {i}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_platform_is_named_outside_its_folder() {
    for path in files() {
        let inside = path.strip_prefix(source()).unwrap().to_string_lossy().into_owned();
        if ["channels/telegram", "config", "daemon", "fuzz_targets", "domain/chat"]
            .iter()
            .any(|p| inside.starts_with(p))
        {
            continue;
        }
        assert!(!code(&path).contains("telegram::"), "{inside} reaches into the telegram channel");
    }
}

#[test]
fn every_file_can_be_read_in_one_sitting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for package in ["host/src", "agent-runner/src", "ipc-schema/src", "tests/src", "tests/tests"] {
        rust_files(&root.join(package), &mut all);
    }
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count();
    let long: Vec<String> = all
        .iter()
        .filter(|p| lines(p) > 800)
        .map(|p| format!("{} has {} lines", p.display(), lines(p)))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The formatter leaves comments as they are, and one that grows line by line is read by nobody.
#[test]
fn comments_fit_on_a_screen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for package in
        ["host/src", "agent-runner/src", "ipc-schema/src", "tests/src", "tests/tests", "tests/evil-agent/src"]
    {
        rust_files(&root.join(package), &mut all);
    }
    let mut long = Vec::new();
    for path in &all {
        for (n, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            let comment =
                line.trim_start().strip_prefix("//").map(|text| text.trim_start_matches(['/', '!', ' ']));
            let table = comment.is_some_and(|text| text.starts_with('|'));
            if comment.is_some() && !table && line.chars().count() > 120 {
                long.push(format!("{}:{}", path.display(), n + 1));
            }
        }
    }
    assert!(long.is_empty(), "wrap these:\n{}", long.join("\n"));
}

/// Files that open paths by name. Each says which paths of the host's own these are; everything else goes
/// through `untrusted_fs`, or asks `disk`, and clippy holds it (`disallowed-methods` in `.clippy.toml`).
const OPENERS: [&str; 24] = [
    "host/src/backup/archive.rs",
    "host/src/cli/secret_scan.rs",
    "host/src/config/edit.rs",
    "host/src/config/first.rs",
    "host/src/config/personality.rs",
    "host/src/config/secrets.rs",
    "host/src/daemon/state.rs",
    "host/src/disk.rs",
    "host/src/gateway/exchange_log.rs",
    "host/src/mailbox/archive.rs",
    "host/src/mailbox/tmpfs_mount.rs",
    "host/src/maintenance/retention.rs",
    "host/src/sandbox/mount_source.rs",
    "host/src/sandbox/procfs.rs",
    "host/src/spool.rs",
    "host/src/store/copy.rs",
    "host/src/store/open.rs",
    "host/src/store/restore.rs",
    "host/src/store/schema_upgrade.rs",
    "host/src/unix_socket.rs",
    "host/src/volumes/mod.rs",
    "host/src/volumes/mounts.rs",
    "ipc-schema/src/untrusted_fs.rs",
    "ipc-schema/src/write.rs",
];

#[test]
fn nobody_else_opens_paths_by_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for package in ["host/src", "ipc-schema/src"] {
        rust_files(&root.join(package), &mut all);
    }
    let allows = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let lint = text.lines().filter(|line| line.contains("clippy::disallowed_methods"));
        lint.filter(|line| !line.contains("cfg_attr(test")).count() > 0
    };
    let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    let mut openers: Vec<String> = all.iter().filter(|path| allows(path)).map(name).collect();
    openers.sort();
    assert_eq!(openers, OPENERS);

    // An `allow` for a whole file holds for every module below it, which the list would not show.
    let for_all_below = |path: &&PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let whole = text.contains("#![allow(clippy::disallowed_methods")
            || text.contains("#![allow(\n    clippy::disallowed_methods");
        let below = text.lines().filter(|line| line.starts_with("mod ") || line.starts_with("pub mod "));
        whole && below.filter(|line| line.ends_with(';')).count() > 0
    };
    let hidden: Vec<String> = all.iter().filter(for_all_below).map(name).collect();
    assert_eq!(hidden, ["ipc-schema/src/untrusted_fs.rs"], "whose walk is part of the way");
}

/// Only the wall's own module may open what an agent can write. (`cli` reads the host's own copies of letters.)
#[test]
fn there_is_one_reader_of_untrusted_files() {
    for path in files() {
        let code = code(&path);
        let names_it = code.contains("FROM_AGENT") || code.contains("from-agent");
        let reads =
            names_it && ["fs::read(", "fs::read_to_string(", "File::open("].iter().any(|r| code.contains(r));
        let reads = reads && room(&path) != "cli";
        assert!(!reads, "{} opens letters of the box by itself", path.display());
    }
}
