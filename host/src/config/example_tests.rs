//! `host/lazaret.example.toml`, which a new install gets: written from the definitions. This test writes it with
//! `UPDATE_GOLDEN=1`, and holds that it says nothing else than the definitions do.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::Source;
use super::schema::{GroupFile, InstallFile};
use super::setting_list::{self, Setting};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lazaret.example.toml");

const HEAD: &str = "\
# Lazaret's settings. Everything is optional: a line that begins with `#` and no space shows a default, or an example
# where there is none. `lazaret config show` prints every value and where it comes from.
# Each setting can come from the environment too: limits.turn is LAZARET_LIMITS_TURN.
";

/// Providers have names of the owner's choice, so no definition can show one.
const PROVIDERS: &str = "
# Keys are never written here: they come from the environment (ANTHROPIC_API_KEY, OPENAI_API_KEY, TELEGRAM_BOT_TOKEN) or
# from files of mode 0600.
#[providers.anthropic]
#kind = \"anthropic\"
#key_file = \"secrets/anthropic\"

#[providers.local]
#kind = \"openai\"
#base_url = \"http://127.0.0.1:11434/v1\"
";

fn example_of(setting: &Setting) -> Option<&Json> {
    setting.schema.get("examples").and_then(|examples| examples.get(0))
}

fn help(text: &str, out: &mut String) {
    let mut line = "#".to_owned();
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 120 {
            *out += &format!("{line}\n");
            "#".clone_into(&mut line);
        }
        line += &format!(" {word}");
    }
    *out += &format!("{line}\n");
}

fn example() -> String {
    let root = schemars::schema_for!(InstallFile).to_value();
    let mut out = HEAD.to_owned();
    let mut table: &[String] = &[];
    let settings = setting_list::settings::<InstallFile>();
    for setting in &settings {
        let Some((key, tables)) = setting.path.split_last() else { continue };
        if tables != table {
            if tables.first().is_some_and(|table| table == "channels") && !out.contains(PROVIDERS) {
                out += PROVIDERS;
            }
            let about = tables.iter().fold(&root, |at, key| {
                setting_list::resolved(&root, at).pointer(&format!("/properties/{key}")).unwrap()
            });
            out += "\n";
            help(about["description"].as_str().unwrap(), &mut out);
            out += &format!("[{}]\n", tables.join("."));
            table = tables;
        }
        out += if tables.is_empty() { "\n" } else { "" };
        help(setting.schema["description"].as_str().unwrap_or_default(), &mut out);
        let value = example_of(setting).or(setting.schema.get("default")).unwrap_or(&Json::Null);
        let value = Value::try_from(value).unwrap_or_else(|_| panic!("{} needs an example", setting.name()));
        out += &format!("#{key} = {value}\n");
    }
    out
}

/// The file as it is when every setting is switched on.
fn switched_on(text: &str) -> String {
    let is_setting = |line: &&str| !line.starts_with("# ");
    text.lines().filter(is_setting).map(|line| line.trim_start_matches('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_says_what_the_definitions_say() {
    let written = example();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(PATH, &written).unwrap();
    }
    assert_eq!(std::fs::read_to_string(PATH).unwrap(), written, "run this test with UPDATE_GOLDEN=1");
}

#[test]
fn every_setting_of_the_example_is_read_and_what_is_no_example_is_the_default() {
    let text = switched_on(&example());
    let (_, source) = Source::read::<InstallFile>(std::path::Path::new("example"), &text);
    assert_eq!(source.into_mistakes(), []);
    let mut table: Table = toml::from_str(&text).unwrap();
    let defaults = Table::try_from(InstallFile::default()).unwrap();
    for setting in setting_list::settings::<InstallFile>() {
        let name = setting.name();
        let shown = setting.in_table(&table).unwrap_or_else(|| panic!("{name} is missing")).clone();
        match (example_of(&setting), setting.in_table(&defaults)) {
            (Some(_), Some(default)) => setting.set(&mut table, default.clone()),
            (Some(_), None) => {
                let (key, tables) = setting.path.split_last().unwrap();
                let inner = tables.iter().fold(&mut table, |t, key| t[key].as_table_mut().unwrap());
                inner.remove(key);
            }
            (None, default) => assert_eq!(Some(&shown), default, "{name}"),
        }
    }
    table.remove("providers");
    assert_eq!(table.try_into::<InstallFile>().unwrap(), InstallFile::default());
}

#[test]
fn every_setting_of_the_groups_files_is_read() {
    for name in ["main", "template"] {
        let path = format!("{}/../groups/{name}/group.toml", env!("CARGO_MANIFEST_DIR"));
        let text = switched_on(&std::fs::read_to_string(path).unwrap());
        let (_, source) = Source::read::<GroupFile>(std::path::Path::new(name), &text);
        assert_eq!(source.into_mistakes(), []);
    }
}

#[test]
fn every_setting_has_help_and_a_variable_of_its_own() {
    let settings = setting_list::settings::<InstallFile>();
    let mut variables: Vec<String> = settings.iter().map(Setting::variable).collect();
    assert!(variables.len() > 50 && variables.contains(&"LAZARET_LIMITS_TURN".to_owned()));
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), settings.len());
    for setting in settings.iter().chain(&setting_list::settings::<GroupFile>()) {
        assert!(setting.schema.get("description").is_some(), "{} has no help", setting.name());
    }
}

#[test]
fn every_setting_that_the_readme_names_exists() {
    let known: Vec<String> = setting_list::settings::<InstallFile>()
        .into_iter()
        .chain(setting_list::settings::<GroupFile>())
        .map(|setting| setting.name())
        .collect();
    let tables = ["limits", "host", "keep", "engine", "context", "model", "mounts", "channels"];
    let mut variables: Vec<String> =
        setting_list::settings::<InstallFile>().iter().map(Setting::variable).collect();
    variables.extend(["ROOT", "LOG", "RUNNER"].map(|name| format!("LAZARET_{name}")));
    let mut named = 0;
    for page in
        ["README.md", "container/README.md", "groups/README.md", "host/README.md", "ipc-schema/README.md"]
    {
        let path = format!("{}/../{page}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for word in text.split('`').skip(1).step_by(2) {
            let name = word.split([' ', '=']).next().unwrap_or_default();
            if name.starts_with("LAZARET_") {
                assert!(variables.iter().any(|v| v == name), "{page} names {name}");
            }
            let of_table = name.split_once('.').is_some_and(|(table, _)| tables.contains(&table));
            if of_table
                && !name.ends_with(".sh")
                && name.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c))
            {
                assert!(known.iter().any(|k| k == name), "{page} names {name}");
                named += 1;
            }
        }
    }
    assert!(named >= 3, "only {named} were found");
}
