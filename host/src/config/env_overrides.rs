//! The environment over the file, and every setting with its source.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::schema::InstallFile;
use super::setting_list::{Setting, SettingsFile};
use super::{Mistake, Source, nearest};
use crate::domain::group_settings::ModelChoice;

/// Variables that begin like an override and are something else.
const NOT_SETTINGS: [&str; 3] = ["LAZARET_ROOT", "LAZARET_LOG", "LAZARET_RUNNER"];
/// Those of the crash program, in a build for it.
#[cfg(feature = "failpoints")]
const OF_TESTS: [&str; 3] = [::failpoint::RULES, ::failpoint::TRACE, ::failpoint::CLOCK];
#[cfg(not(feature = "failpoints"))]
const OF_TESTS: [&str; 0] = [];

/// One setting as `lazaret config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// `limits.turn`
    pub name: String,
    /// Its value, as it would stand in the file.
    pub value: String,
    /// `default`, the file's path, or the variable's name.
    pub source: String,
}

/// Puts `LAZARET_…` variables over the file and tells where each value comes from.
pub(super) fn over(
    file: InstallFile,
    source: &mut Source<'_>,
    env: &BTreeMap<String, String>,
) -> (InstallFile, Vec<Shown>) {
    let in_file = source.usable();
    let mut table = in_file.clone();
    let known = &InstallFile::definitions().settings;
    for (variable, value) in env.iter().filter(|(v, _)| is_override(v)) {
        let Some(setting) = known.iter().find(|setting| setting.variable() == **variable) else {
            source.mistakes.push(unknown_variable(variable, known));
            continue;
        };
        // The variable is read as a line of the file, so that the same checks hold.
        let line = format!("{} = {}", setting.name(), typed(value));
        let (_, of_variable) = Source::read_variable::<InstallFile>(variable, &line);
        match setting.in_table(&of_variable.usable()) {
            Some(value) if of_variable.mistakes.is_empty() => {
                setting.set(&mut table, value.clone());
                source.overrides.insert(setting.name(), variable.clone());
            }
            _ => source.mistakes.extend(of_variable.into_mistakes()),
        }
    }
    // Every value was read by itself, so the whole can be read.
    let settings: InstallFile = table.clone().try_into().unwrap_or(file);
    let effective = Table::try_from(&settings).unwrap_or_default();
    let file_name = |keys: &Setting| keys.in_table(&in_file).map(|_| source.name().to_owned());
    let show = |setting: &Setting| {
        let name = setting.name();
        let of_file = file_name(setting).unwrap_or_else(|| "default".to_owned());
        let source = source.overrides.get(&name).cloned().unwrap_or(of_file);
        Some(Shown { value: setting.in_table(&effective)?.to_string(), name, source })
    };
    let mut shown: Vec<Shown> = known.iter().filter_map(show).collect();
    let providers = effective.get("providers").and_then(Value::as_table);
    for (provider, value) in providers.into_iter().flatten() {
        for (key, value) in value.as_table().into_iter().flatten() {
            let (name, source) = (format!("providers.{provider}.{key}"), source.name().to_owned());
            shown.push(Shown { name, value: value.to_string(), source });
        }
    }
    (settings, shown)
}

fn unknown_variable(variable: &str, known: &[Setting]) -> Mistake {
    let names: Vec<String> = known.iter().map(Setting::variable).collect();
    let mistake = Mistake::of(variable, "overrides no setting").coded("config.unknown_key");
    match nearest(variable, names.iter().map(String::as_str)) {
        Some(near) => mistake.hint(format!("did you mean {near}?")),
        None => mistake.hint("`lazaret config show` lists every setting"),
    }
}

/// Adds what was chosen because nobody set it: the provider by what the environment offers, the model by its kind.
pub(super) fn with_choice(mut shown: Vec<Shown>, model: &ModelChoice) -> Vec<Shown> {
    for (name, value) in [("model.name", &model.model), ("model.provider", &model.provider)] {
        if !shown.iter().any(|s| s.name == name) {
            let source = "chosen by the providers there are".to_owned();
            shown.push(Shown { name: name.to_owned(), value: format!("{value:?}"), source });
        }
    }
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    shown
}

fn is_override(variable: &str) -> bool {
    variable.starts_with("LAZARET_") && !NOT_SETTINGS.contains(&variable) && !OF_TESTS.contains(&variable)
}

/// A variable's text as a value of TOML: a number, a boolean, a list; otherwise the text itself.
fn typed(text: &str) -> Value {
    let line = format!("x = {text}");
    toml::from_str::<Table>(&line)
        .ok()
        .and_then(|mut table| table.remove("x"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}
