//! What the READMEs tell people to type and to read is there: commands, make targets, paths, settings.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const READMES: [&str; 3] = ["README.md", "container/README.md", "ipc-schema/README.md"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a page sets as code: each line of a fenced block, and each span between single backticks.
fn code(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    let mut prose = String::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            found.push(line.trim_start().trim_start_matches("$ ").to_owned());
        } else {
            prose.push_str(line);
            prose.push(' ');
        }
    }
    found.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    found
}

/// The words behind `program` wherever it is called, up to a comment or the next program of the line.
fn calls(code: &[String], program: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for line in code {
        for command in line.split(['|', '&', ';']) {
            let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
            let called = words.next().is_some_and(|word| word.rsplit('/').next() == Some(program));
            let rest: Vec<String> =
                words.take_while(|word| !word.starts_with('#')).map(str::to_owned).collect();
            if called && !rest.is_empty() {
                found.insert(rest);
            }
        }
    }
    found
}

fn lazaret(args: &[&str], root: &Path) -> Output {
    let beside = repository().join("target/release/lazaret");
    let binary = std::env::var_os("LAZARET_BIN").map_or(beside, PathBuf::from);
    let mut command = Command::new(&binary);
    let output = command.args(args).env_clear().env("LAZARET_ROOT", root).output();
    output.unwrap_or_else(|e| panic!("{}: {e}; run `make build`, or set LAZARET_BIN", binary.display()))
}

fn help(verbs: &[&str]) -> Option<String> {
    let output = lazaret(&[verbs, &["--help"]].concat(), Path::new("/nonexistent"));
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lower-case words are verbs; a placeholder is in capitals, an id has a digit, `…` stands for more.
fn is_verb(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
}

#[test]
fn every_command_line_is_one_that_the_program_knows() {
    let mut checked = 0;
    for readme in READMES {
        for line in calls(&code(&read(readme)), "lazaret") {
            let shown = format!("{readme}: `lazaret {}`", line.join(" "));
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            if !is_verb(words[0]) {
                assert!(words[0].starts_with('-') || words[0] == "…", "{shown} begins with no verb");
                continue;
            }
            let mut about = help(&words[..1]).unwrap_or_else(|| panic!("{shown}: there is no such verb"));
            if about.contains("\nCommands:") && words.get(1).is_some_and(|word| is_verb(word)) {
                about = help(&words[..2]).unwrap_or_else(|| panic!("{shown}: there is no such verb"));
            }
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(about.contains(flag), "{shown}: {flag} is not in its help:\n{about}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} command lines were found: are the pages read rightly?");
}

#[test]
fn every_make_target_is_in_the_makefile() {
    let makefile = read("Makefile");
    let is_target = |name: &str| makefile.lines().any(|line| line.starts_with(&format!("{name}:")));
    let mut checked = 0;
    for readme in READMES {
        for line in calls(&code(&read(readme)), "make") {
            for target in line.iter().filter(|word| is_verb(word)) {
                assert!(is_target(target), "{readme}: `make {target}` is no target of the Makefile");
                checked += 1;
            }
        }
    }
    assert!(checked >= 3, "only {checked} make targets were found: are the pages read rightly?");
}

/// The part of a page under a heading that contains `words`.
fn section<'a>(markdown: &'a str, words: &str) -> &'a str {
    let parts = markdown.split("\n## ").skip(1);
    let found = parts.into_iter().find(|part| part.lines().next().is_some_and(|title| title.contains(words)));
    found.unwrap_or_else(|| panic!("README.md has no heading with {words:?}"))
}

#[test]
fn the_map_is_of_this_house() {
    let readme = read("README.md");
    let map = section(&readme, "The house").split("```").nth(1).expect("the map is a fenced block");
    let mut rooms = 0;
    for line in map.lines().filter(|line| !line.trim().is_empty()) {
        let room = line.split_whitespace().next().unwrap();
        assert!(repository().join(room).exists(), "the map shows {room}");
        let files =
            line.split([' ', ';', ',']).filter(|word| word.ends_with(".md") || word.ends_with(".toml"));
        for file in files {
            let (beside, below) = (repository().join(file), repository().join(room).join(file));
            assert!(beside.exists() || below.exists(), "the map shows {file} in {room}");
        }
        rooms += 1;
    }
    assert!(rooms >= 5, "only {rooms} rooms are on the map");
}

#[test]
fn the_eight_files_to_read_first_exist_and_are_eight() {
    let readme = read("README.md");
    let list = section(&readme, "eight files");
    let links = list.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links: BTreeSet<&str> = links.collect();
    assert_eq!(links.len(), 8, "{links:?}");
    for link in links {
        assert!(repository().join(link).is_file(), "{link}");
    }
}

/// Paths in code spans: of the repository, or beside the page. What an install or a box has is none of them.
#[test]
fn every_path_that_a_page_names_exists() {
    let rooms =
        ["host/", "ipc-schema/", "agent-runner/", "container/", "tests/", "golden/", "schemas/", "src/"];
    let mut checked = 0;
    for readme in READMES {
        let text = read(readme);
        let (repository, beside) = (repository(), repository().join(readme).parent().unwrap().to_owned());
        let spans = code(&text).into_iter().filter(|span| {
            rooms.iter().any(|room| span.starts_with(room)) && !span.contains(['<', '{', ' ', '*', '…'])
        });
        for path in spans {
            let exists = repository.join(&path).exists() || beside.join(&path).exists();
            assert!(exists, "{readme} names {path}");
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} paths were found: are the pages read rightly?");
}

/// The example with every setting switched on, and the secrets that it names.
#[test]
fn every_setting_of_the_example_is_accepted() {
    let example = read("host/lazaret.example.toml");
    let settings: Vec<&str> = example
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| line.trim_start_matches('#'))
        .collect();
    let names = settings.iter().filter(|line| !line.starts_with('[')).count();
    assert!(names >= 8, "only {names} settings were found in the example: {settings:#?}");

    let root = tempfile::tempdir().unwrap();
    let check = || lazaret(&["config", "check"], root.path());
    for file in settings.iter().filter_map(|line| line.split_once("_file = \"")?.1.split('"').next()) {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "a-secret-for-nobody").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(root.path().join("lazaret.toml"), settings.join("\n")).unwrap();
    let output = check();
    assert!(output.status.success(), "{}\n{}", settings.join("\n"), String::from_utf8_lossy(&output.stderr));

    fs::write(root.path().join("lazaret.toml"), settings.join("\n").replace("persona", "persono")).unwrap();
    assert!(!check().status.success(), "a wrong name would be found");
}

#[test]
fn code_is_found_in_spans_and_in_blocks() {
    let page = "Run `lazaret up`, then\n`lazaret groups admit CODE\n--group main`.\n```console\n$ X=1 make run # go\n$ a | b/lazaret trace m-1 && make test\n```\n";
    let code = code(page);
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let lazaret = [words("groups admit CODE --group main"), words("trace m-1"), words("up")];
    assert_eq!(calls(&code, "lazaret"), lazaret.into());
    assert_eq!(calls(&code, "make"), [words("run"), words("test")].into());
}
