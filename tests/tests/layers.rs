//! Enforces the structure of the code: imports point down only, no files use each other in a circle, the pure modules
//! do no I/O, and functions, files and comments stay short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "layers/import_graph.rs"]
mod import_graph;

/// Every module with its layer. Two modules on the same layer must not import each other. `config` lies above
/// `channels`, because each channel's settings type lies in the channel's folder. The ground (10) lies below the
/// modules that do I/O. `domain` and the pure modules do not use it.
const LAYERS: &[(&str, u32)] = &[
    ("main", 65),
    ("lib", 60),
    ("fuzz_targets", 57),
    ("cli", 55),
    ("daemon", 50),
    ("supervisor", 45),
    ("intake", 43),
    ("run", 43),
    ("delivery", 43),
    ("maintenance", 43),
    ("scheduler", 44),
    ("actions", 42),
    ("services", 41),
    ("gateway", 40),
    ("backup", 40),
    ("tasks", 40),
    ("images", 40),
    ("channels", 30),
    ("store", 30),
    ("sandbox", 30),
    ("mailbox", 30),
    ("model", 30),
    ("spool", 30),
    ("volumes", 30),
    ("config", 31),
    ("workers", 25),
    ("dispatch", 22),
    ("turns", 22),
    ("policy", 21),
    ("schedule", 20),
    ("text", 20),
    ("telemetry", 10),
    ("host_files", 10),
    ("terminal_output", 10),
    ("clock", 10),
    ("unix_socket", 10),
    ("http", 10),
    ("random", 10),
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

/// Returns the module of a file: its folder or name directly below `src`.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(source()).unwrap();
    inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Returns a file without its comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the modules that a file names after `crate::`, alone or in braces.
fn imports(code: &str) -> Vec<String> {
    let word = |rest: &str| -> String {
        rest.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    let of_use = |rest: &str| match rest.strip_prefix('{') {
        Some(list) => outermost(list).iter().map(|one| word(one)).collect(),
        None => vec![word(rest)],
    };
    let mut modules: Vec<String> = code.split("crate::").skip(1).flat_map(of_use).collect();
    modules.retain(|module| !module.is_empty());
    modules.sort();
    modules.dedup();
    modules
}

/// Splits a list at its commas, up to the closing brace. Nested lists stay whole.
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
fn imports_in_braces_and_inline_paths_are_found() {
    let code = "use crate::disk;\nuse crate::{say, store::{A, b::C}, run};\nlet x = crate::clock::now();";
    assert_eq!(imports(code), ["clock", "disk", "run", "say", "store"]);
}

fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    files.sort();
    assert!(files.len() > 40, "the sources were not found");
    files
}

#[test]
fn imports_point_down_only() {
    let layers: BTreeMap<&str, u32> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in files() {
        let from = module(&path);
        for to in imports(&code(&path)) {
            if to == from || to == DOMAIN {
                continue;
            }
            let here = if from == DOMAIN { Some(&0) } else { layers.get(from.as_str()) };
            match (here, layers.get(to.as_str())) {
                (Some(here), Some(there)) if here > there && !(*here < 30 && *there == 10) => {}
                _ => wrong.push(format!("{} (in {from}) imports {to}", path.display())),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that point up or sideways, or modules without a layer:\n{}",
        wrong.join("\n")
    );
}

/// Two files that use each other can only be read, moved and tested together. `import_graph` defines what counts as
/// use. To fix a circle, move shared items to a file below both, or move an item to the only file that needs it.
#[test]
fn no_files_use_each_other_in_a_circle() {
    let graph = import_graph::read(&source(), "lazaret");
    assert!(graph.len() > 40, "the sources were not found");
    let mut told = Vec::new();
    for circle in import_graph::circles(&graph) {
        told.push(format!("a circle of {} files:", circle.len()));
        let inside = |path: &Path| path.strip_prefix(source()).unwrap().display().to_string();
        for from in &circle {
            for (to, names) in graph[from].iter().filter(|(to, _)| circle.contains(*to)) {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                told.push(format!("  {} uses {}: {}", inside(from), inside(to), names.join(", ")));
            }
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn the_pure_rooms_do_no_io_and_read_no_clock() {
    const IMPURE: [&str; 15] = [
        "tokio",
        "rusqlite",
        "bollard",
        "reqwest",
        "std::fs",
        "std::net",
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        "Zoned::now",
        "TimeZone::system",
        "TimeZone::try_system",
        "TimeZone::get",
        "tz::db",
        "TimeZoneDatabase::from",
    ];
    let mut wrong = Vec::new();
    for path in files() {
        if !["dispatch", "turns", "policy", "schedule", "text", "domain"].contains(&module(&path).as_str()) {
            continue;
        }
        let code = code(&path);
        wrong
            .extend(IMPURE.iter().filter(|i| code.contains(**i)).map(|i| format!("{}: {i}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Decisions, and sentences for people, come from the pure modules.
#[test]
fn the_store_composes_no_sentences() {
    for path in files().iter().filter(|path| module(path) == "store") {
        let tests = ["tests", "delivery_tests", "delivery_model"];
        let test = path
            .components()
            .any(|part| tests.contains(&part.as_os_str().to_string_lossy().trim_end_matches(".rs")));
        assert!(test || !imports(&code(path)).contains(&"text".to_owned()), "{}", path.display());
    }
}

/// Platforms that the host supports or will support. (The terminal is the host's own.)
const PLATFORMS: [&str; 2] = ["telegram", "whatsapp"];
/// The registry of channels. Each platform's folder lies next to it.
const REGISTRY: &str = "channels/mod.rs";

/// Returns whether only tests and fuzz targets compile this file: the parent module declares it behind `cfg(test)`.
fn is_test_code(inside: &str) -> bool {
    let path = source().join(inside);
    path.ancestors().take_while(|path| *path != source()).any(|path| {
        let module = path.file_stem().unwrap().to_string_lossy();
        let folder = path.parent().unwrap();
        let parents = [folder.join("mod.rs"), folder.with_extension("rs"), folder.join("lib.rs")];
        let declared = |parent: &PathBuf| {
            let text = fs::read_to_string(parent).unwrap_or_default();
            let behind = |cfg: &str| {
                ["", "pub "].iter().any(|vis| text.contains(&format!("{cfg}\n{vis}mod {module};")))
            };
            behind("#[cfg(test)]") || behind("#[cfg(any(test, fuzzing))]")
        };
        parents.iter().any(declared)
    })
}

/// Splits identifiers and texts into lower-case words: `TelegramUpdate` and `telegram_update` hold `telegram`, and
/// `ImageChoice` holds no `echo`.
fn words(code: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for run in code.split(|c: char| !c.is_alphanumeric()) {
        let mut word = String::new();
        for c in run.chars() {
            if c.is_uppercase() && word.ends_with(char::is_lowercase) {
                words.insert(std::mem::take(&mut word));
            }
            word.extend(c.to_lowercase());
        }
        words.insert(word);
    }
    words
}

/// A channel is one folder and its entry in the registry. No other code may name a platform, in an identifier or in a
/// text. Comments may.
#[test]
fn no_platform_is_named_outside_its_folder() {
    let mut wrong = Vec::new();
    for path in files() {
        let inside = path.strip_prefix(source()).unwrap().to_string_lossy().into_owned();
        if inside == REGISTRY || is_test_code(&inside) {
            continue;
        }
        let words = words(&code(&path));
        let named = |platform: &&&str| {
            words.contains(**platform) && !inside.starts_with(&format!("channels/{platform}/"))
        };
        wrong.extend(PLATFORMS.iter().filter(named).map(|platform| format!("{inside} names {platform}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_have_at_most_800_lines() {
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

/// A longer function does several things. (The formatter gives a function's closing brace the same indentation as its
/// first line, so the test finds the end by that.)
#[test]
fn functions_have_less_than_a_hundred_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for package in ["host/src", "agent-runner/src", "ipc-schema/src", "tests/src"] {
        rust_files(&root.join(package), &mut all);
    }
    let begins =
        regex::Regex::new(r"^( *)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn (\w+)").unwrap();
    let mut long = Vec::new();
    for path in &all {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let Some(found) = begins.captures(line) else { continue };
            let end = format!("{}}}", &found[1]);
            let length = lines[n..].iter().position(|line| *line == end).map_or(1, |behind| behind + 1);
            // A function on one line and a declaration without a body have no closing brace on a separate line.
            let ends_here = line.ends_with('}') || line.ends_with(';');
            if !ends_here && length > 100 {
                long.push(format!("{}:{} {} has {length} lines", path.display(), n + 1, &found[2]));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The formatter does not wrap comments, so this test checks their width.
#[test]
fn comments_have_at_most_120_columns() {
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

/// Files that may open paths by name. Each file's `allow` says which of the host's own paths it opens. All other code
/// uses `untrusted_fs` or a function of these files. Clippy enforces this (`disallowed-methods` in `.clippy.toml`).
const OPENERS: [&str; 29] = [
    "host/src/backup/archive.rs",
    "host/src/backup/restore.rs",
    "host/src/channels/whatsapp/device/credentials.rs",
    "host/src/channels/whatsapp/device/outbound/media.rs",
    "host/src/cli/box_check/secret_scan.rs",
    "host/src/config/first.rs",
    "host/src/config/personality_file.rs",
    "host/src/config/secrets.rs",
    "host/src/config/set_group_image.rs",
    "host/src/daemon/state_dir.rs",
    "host/src/gateway/exchange_log.rs",
    "host/src/host_files.rs",
    "host/src/mailbox/archive.rs",
    "host/src/mailbox/tmpfs_mount.rs",
    "host/src/maintenance/retention.rs",
    "host/src/sandbox/memory_watch.rs",
    "host/src/sandbox/mount_source.rs",
    "host/src/sandbox/procfs.rs",
    "host/src/spool.rs",
    "host/src/store/backup_list.rs",
    "host/src/store/copy.rs",
    "host/src/store/open.rs",
    "host/src/store/restore.rs",
    "host/src/store/schema_upgrade.rs",
    "host/src/unix_socket.rs",
    "host/src/volumes/mod.rs",
    "host/src/volumes/mount_table.rs",
    "ipc-schema/src/letter_writer.rs",
    "ipc-schema/src/untrusted_fs.rs",
];

#[test]
fn only_listed_files_open_paths_by_name() {
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

    // An `allow` for a whole file also applies to its child modules, which this list would not show.
    let for_all_below = |path: &&PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let whole = text.contains("#![allow(clippy::disallowed_methods")
            || text.contains("#![allow(\n    clippy::disallowed_methods");
        let below = text.lines().filter(|line| line.starts_with("mod ") || line.starts_with("pub mod "));
        whole && below.filter(|line| line.ends_with(';')).count() > 0
    };
    let hidden: Vec<String> = all.iter().filter(for_all_below).map(name).collect();
    assert_eq!(
        hidden,
        ["ipc-schema/src/untrusted_fs.rs"],
        "only this file's child modules may inherit an `allow`"
    );
}

/// Only `mailbox` may open letters that an agent can write. (`cli` reads the host's own copies of letters.)
#[test]
fn only_the_mailbox_opens_letters_of_the_box() {
    for path in files() {
        let code = code(&path);
        let names_it = code.contains("FROM_AGENT") || code.contains("from-agent");
        let reads =
            names_it && ["fs::read(", "fs::read_to_string(", "File::open("].iter().any(|r| code.contains(r));
        let reads = reads && module(&path) != "cli";
        assert!(!reads, "{} opens letters of the box by itself", path.display());
    }
}
