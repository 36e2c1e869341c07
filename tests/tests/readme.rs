//! Checks every page of the repository: its commands, make targets, paths, links and settings must exist. A page is a
//! Markdown file for people. Files for an agent (`CLAUDE.md`, prompts) do not count.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Readers begin with the front page, so it stays short.
const FRONT_PAGE_WORDS: usize = 1_400;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the path of every page in the repository.
fn pages() -> Vec<String> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name == ".github" || !(name.starts_with('.') || name == "target") {
                    collect(&path, found);
                }
            } else if matches!(name.as_str(), "README.md" | "CONTRIBUTING.md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&repository(), &mut found);
    let inside = |path: &PathBuf| path.strip_prefix(repository()).unwrap().to_string_lossy().into_owned();
    let mut pages: Vec<String> = found.iter().map(inside).collect();
    pages.sort();
    assert!(pages.len() >= 10, "only these pages were found: {pages:?}");
    pages
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns a page's code: each line of a fenced block, and each span between single backticks.
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

/// Returns the words after `program` in each call of it, up to a comment or the next program in the line.
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

/// Returns whether a word is a verb: it has lower-case letters only. Placeholders are in capitals, ids have a digit,
/// and `…` stands for more words.
fn is_verb(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
}

#[test]
fn every_command_line_is_one_that_the_program_knows() {
    let mut checked = 0;
    for readme in pages() {
        for line in calls(&code(&read(&readme)), "lazaret") {
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
    for readme in pages() {
        for line in calls(&code(&read(&readme)), "make") {
            for target in line.iter().filter(|word| is_verb(word)) {
                assert!(is_target(target), "{readme}: `make {target}` is no target of the Makefile");
                checked += 1;
            }
        }
    }
    assert!(checked >= 3, "only {checked} make targets were found: are the pages read rightly?");
}

/// Returns the verbs under `Commands:` in a help text.
fn verbs(help: &str) -> Vec<String> {
    let list =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn every_command_is_in_the_operators_table() {
    let described: BTreeSet<Vec<String>> = calls(&code(&read("host/README.md")), "lazaret");
    let has = |words: &[&str]| {
        described.iter().any(|line| line.len() >= words.len() && line.iter().zip(words).all(|(a, b)| a == b))
    };
    let all = verbs(&help(&[]).unwrap());
    assert!(all.len() >= 12, "only {all:?} were found: is the help read rightly?");
    for verb in all {
        let below = verbs(&help(&[verb.as_str()]).unwrap());
        assert!(has(&[verb.as_str()]), "host/README.md does not describe `lazaret {verb}`");
        for second in below {
            assert!(
                has(&[verb.as_str(), second.as_str()]),
                "host/README.md does not describe `lazaret {verb} {second}`"
            );
        }
    }
}

#[test]
fn every_make_target_is_in_the_tests_table() {
    let described = calls(&code(&read("tests/README.md")), "make");
    let makefile = read("Makefile");
    for line in makefile.lines().filter(|line| line.contains(": ## ") || line.contains(" ## ")) {
        let Some((target, _)) = line.split_once(':').filter(|(name, _)| is_verb(name)) else { continue };
        let known = target == "help" || described.iter().any(|words| words.iter().any(|word| word == target));
        assert!(known, "tests/README.md does not describe `make {target}`");
    }
}

#[test]
fn every_key_of_a_groups_file_is_on_its_page() {
    let output = lazaret(&["config", "schema", "group"], Path::new("/nonexistent"));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let page = code(&read("groups/README.md"));
    let limits = schema["properties"]["limits"]["$ref"].as_str().and_then(|at| at.strip_prefix('#'));
    let limits = limits.and_then(|at| schema.pointer(at)).expect("limits are a type of their own");
    for keys in [&schema["properties"], &limits["properties"]] {
        let keys = keys.as_object().unwrap();
        assert!(keys.len() >= 10, "is the schema read rightly? {keys:?}");
        for key in keys.keys() {
            let known = page.iter().any(|span| span == key || *span == format!("[{key}]"));
            assert!(known, "groups/README.md does not describe `{key}`");
        }
    }
}

#[test]
fn the_front_page_is_short() {
    let words = read("README.md").split_whitespace().count();
    assert!(words <= FRONT_PAGE_WORDS, "README.md has {words} words, at most {FRONT_PAGE_WORDS}");
}

/// Returns a page without its code, so that only the links for readers are left.
fn prose(markdown: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Returns the targets of `[text](target)` and `![text](target)`.
fn links(markdown: &str) -> Vec<String> {
    let prose = prose(markdown);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// Returns the anchors of a page's headings: lower case, hyphens for blanks, no punctuation.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = prose(markdown);
    let titles = headings.lines().filter(|line| line.starts_with('#'));
    let slug = |title: &str| -> String {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    titles.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn every_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let mut checked = 0;
    for readme in pages() {
        let text = read(&readme);
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(p, a)| (p, Some(a)));
            let beside = repository().join(&readme).parent().unwrap().to_owned();
            let target = if path.is_empty() { repository().join(&readme) } else { beside.join(path) };
            assert!(target.exists(), "{readme} links to {link}: there is no such file");
            if let Some(anchor) = anchor {
                let page = fs::read_to_string(&target).unwrap();
                assert!(
                    anchors(&page).contains(anchor),
                    "{readme} links to {link}: there is no such heading"
                );
            }
            checked += 1;
        }
    }
    assert!(checked >= 30, "only {checked} links were found: are the pages read rightly?");
}

#[test]
fn every_page_can_be_reached_from_the_front_page() {
    let mut open = vec!["README.md".to_owned()];
    let mut reached = BTreeSet::new();
    while let Some(page) = open.pop() {
        if !reached.insert(repository().join(&page).canonicalize().unwrap()) {
            continue;
        }
        let dir = Path::new(&page).parent().unwrap().to_owned();
        let files = links(&read(&page)).into_iter().filter(|link| !link.contains("://"));
        let files = files.map(|link| link.split('#').next().unwrap().to_owned());
        let files = files.filter(|path| path.ends_with(".md"));
        open.extend(files.map(|path| dir.join(path).to_string_lossy().into_owned()));
    }
    for page in pages() {
        let path = repository().join(&page).canonicalize().unwrap();
        assert!(reached.contains(&path), "no link leads to {page}");
    }
}

#[test]
fn every_folder_at_the_top_has_a_page() {
    for entry in fs::read_dir(repository()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            assert!(path.join("README.md").is_file(), "{name}/ has no README.md");
        }
    }
}

/// Checks the paths in code spans, relative to the repository or to the page. Paths of an install or a box do not
/// count.
#[test]
fn every_path_that_a_page_names_exists() {
    let rooms =
        ["host/", "ipc-schema/", "agent-runner/", "container/", "tests/", "golden/", "schemas/", "src/"];
    let mut checked = 0;
    for readme in pages() {
        let text = read(&readme);
        let (repository, beside) = (repository(), repository().join(&readme).parent().unwrap().to_owned());
        let spans = code(&text).into_iter().filter(|span| {
            let placeholder = span.contains(['<', '{', ' ', '*', '…']) || span.contains("NAME");
            rooms.iter().any(|room| span.starts_with(room)) && !placeholder
        });
        for path in spans {
            let exists = repository.join(&path).exists() || beside.join(&path).exists();
            assert!(exists, "{readme} names {path}");
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} paths were found: are the pages read rightly?");
}

/// Switches every setting of the example on, and creates the secrets that it names.
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
    assert!(!check().status.success(), "the check must find a wrong name");
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

#[test]
fn links_and_anchors_are_found_outside_of_code() {
    let page = "# A `first` title, really\n[x](a.md#b-c) ![y](../z.svg)\n```\n[no](link.md)\n# no title\n```\n## Two-part\n";
    assert_eq!(links(page), ["a.md#b-c", "../z.svg"]);
    assert_eq!(anchors(page), ["a-first-title-really".to_owned(), "two-part".to_owned()].into());
}
