//! The settings of a file, as their definitions say: read from the JSON Schema of the file's type. Checks, environment
//! names, `config show` and the example file take names, help, defaults and allowed values from here.

use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::schema::{GroupFile, InstallFile};
use crate::domain::settings_macro::Span;

/// The definitions of one settings file.
pub(super) struct Definitions {
    /// `lazaret.toml`
    pub(super) file: &'static str,
    pub(super) schema: Json,
    pub(super) settings: Vec<Setting>,
    /// The keys of every table and setting.
    pub(super) names: Vec<Vec<String>>,
}

impl Definitions {
    fn of<T: JsonSchema>(file: &'static str) -> Self {
        let settings = settings::<T>();
        let paths = settings.iter().map(|setting| &setting.path);
        let mut names: Vec<Vec<String>> = paths
            .flat_map(|path| (1..=path.len()).filter_map(|n| path.get(..n)))
            .map(<[_]>::to_vec)
            .collect();
        names.sort();
        names.dedup();
        Self { file, schema: schemars::schema_for!(T).to_value(), settings, names }
    }
}

/// The type of a settings file.
pub(super) trait SettingsFile: DeserializeOwned + JsonSchema + Default {
    fn definitions() -> &'static Definitions;
}

impl SettingsFile for InstallFile {
    fn definitions() -> &'static Definitions {
        static ALL: LazyLock<Definitions> = LazyLock::new(|| Definitions::of::<InstallFile>("lazaret.toml"));
        &ALL
    }
}

impl SettingsFile for GroupFile {
    fn definitions() -> &'static Definitions {
        static ALL: LazyLock<Definitions> =
            LazyLock::new(|| Definitions::of::<GroupFile>("groups/NAME/group.toml"));
        &ALL
    }
}

/// Where a setting belongs, for a person.
pub(super) fn table_of(path: &[String]) -> String {
    match path.split_last() {
        Some((_, tables)) if !tables.is_empty() => format!("under [{}]", tables.join(".")),
        _ => "at the top of the file, above the first [table]".to_owned(),
    }
}

/// One setting.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// `["limits", "turn"]`
    pub(super) path: Vec<String>,
    /// Its part of the schema.
    pub(super) schema: Json,
}

/// Every setting of a file, in the order of the definitions. What stands below a key of the owner's choice
/// (`providers`) is not among them.
pub(super) fn settings<T: JsonSchema>() -> Vec<Setting> {
    let root = schemars::schema_for!(T).to_value();
    let mut found = Vec::new();
    walk(&root, &root, &mut Vec::new(), &mut found);
    found
}

fn walk(root: &Json, at: &Json, path: &mut Vec<String>, found: &mut Vec<Setting>) {
    let table = resolved(root, at);
    let Some(properties) = table.get("properties").and_then(Json::as_object) else {
        if !table.get("additionalProperties").is_some_and(Json::is_object) {
            found.push(Setting { path: path.clone(), schema: at.clone() });
        }
        return;
    };
    for key in table.get("order").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
        if let Some(inner) = properties.get(key) {
            path.push(key.to_owned());
            walk(root, inner, path, found);
            path.pop();
        }
    }
}

/// What a part of the schema refers to, with `null` or without.
pub(super) fn resolved<'a>(root: &'a Json, at: &'a Json) -> &'a Json {
    let of_either = |ways: &'a Json| ways.as_array()?.iter().find(|way| way.get("$ref").is_some());
    let at = at.get("anyOf").and_then(of_either).unwrap_or(at);
    let pointer = at.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(at)
}

impl Setting {
    /// `limits.turn`
    pub(super) fn name(&self) -> String {
        self.path.join(".")
    }

    /// `LAZARET_LIMITS_TURN`
    pub(super) fn variable(&self) -> String {
        format!("LAZARET_{}", self.path.join("_").to_uppercase())
    }

    /// Whether a group may only have less than the install.
    pub(super) fn is_at_most_install(&self) -> bool {
        self.schema.get("rule").is_some_and(|rule| rule == "at_most_install")
    }

    /// Its value in a table.
    pub(super) fn in_table<'a>(&self, table: &'a Table) -> Option<&'a Value> {
        let (leaf, tables) = self.path.split_last()?;
        tables.iter().try_fold(table, |table, key| table.get(key)?.as_table())?.get(leaf)
    }

    /// Puts its value into a table, and makes the tables on the way.
    pub(super) fn set(&self, table: &mut Table, value: Value) {
        let Some((leaf, tables)) = self.path.split_last() else { return };
        let mut at = table;
        for key in tables {
            let inner = at.entry(key).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = inner else { return };
            at = inner;
        }
        at.insert(leaf.clone(), value);
    }
}

/// The values that a setting takes.
pub(super) enum Allowed<'a> {
    Table,
    /// The schema of its members.
    List(&'a Json),
    Boolean,
    Number(Range),
    Span(Range),
    Text,
    /// The schema of an enumeration.
    OneOf(&'a Json),
    /// The type's own parser decides.
    Unknown,
}

/// Bounds as the definition writes them, inclusive.
pub(super) struct Range {
    least: Option<Value>,
    most: Option<Value>,
}

impl Range {
    fn holds(&self, measured: f64) -> bool {
        let bound = |bound: &Option<Value>| bound.as_ref().and_then(measure);
        bound(&self.least).is_none_or(|least| least <= measured)
            && bound(&self.most).is_none_or(|most| measured <= most)
    }

    fn in_words(&self) -> String {
        match (&self.least, &self.most) {
            (Some(least), Some(most)) => format!(" from {least} to {most}"),
            (Some(least), None) => format!(" of at least {least}"),
            (None, Some(most)) => format!(" of at most {most}"),
            (None, None) => String::new(),
        }
    }
}

impl<'a> Allowed<'a> {
    /// Reads a property and what it refers to.
    pub(super) fn of(property: &'a Json, schema: &'a Json) -> Self {
        let bound = |ours: &str, theirs: &str| {
            let bound = property.pointer(ours).or_else(|| schema.get(theirs))?;
            Value::try_from(bound).ok()
        };
        let range =
            || Range { least: bound("/range/start", "minimum"), most: bound("/range/end", "maximum") };
        let types = match schema.get("type") {
            Some(Json::Array(types)) => {
                types.iter().filter_map(Json::as_str).filter(|t| *t != "null").collect()
            }
            one => one.and_then(Json::as_str).into_iter().collect::<Vec<_>>(),
        };
        if schema.get("properties").is_some()
            || schema.get("additionalProperties").is_some_and(Json::is_object)
        {
            return Self::Table;
        }
        match types.as_slice() {
            _ if !choices(schema).is_empty() => Self::OneOf(schema),
            ["string", "integer"] => Self::Span(range()),
            ["integer"] => Self::Number(range()),
            ["string"] => Self::Text,
            ["boolean"] => Self::Boolean,
            ["array"] => schema.get("items").map_or(Self::Unknown, Self::List),
            _ => Self::Unknown,
        }
    }

    pub(super) fn takes_number(&self, n: i64) -> bool {
        match self {
            Self::Number(range) => range.holds(n as f64),
            Self::Span(range) => (0..=Span::MOST.0.as_secs() as i64).contains(&n) && range.holds(n as f64),
            Self::Unknown => true,
            _ => false,
        }
    }

    pub(super) fn takes_text(&self, text: &str) -> bool {
        match self {
            Self::Text | Self::Unknown => true,
            Self::OneOf(schema) => {
                choices(schema).contains(&text) || words(schema, "aliases").contains(&text)
            }
            Self::Span(range) => text.parse::<Span>().is_ok_and(|span| range.holds(span.0.as_secs_f64())),
            _ => false,
        }
    }

    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Table => "a table".into(),
            Self::List(_) => "a list in [ ]".into(),
            Self::Boolean => "true or false".into(),
            Self::Number(range) => format!("a whole number{}", range.in_words()),
            Self::Span(range) => {
                format!("a length of time such as \"5m\",{}", range.in_words()).trim_end_matches(',').into()
            }
            Self::Text => "text in quotes".into(),
            Self::OneOf(schema) => format!("one of `{}`", choices(schema).join("`, `")),
            Self::Unknown => "something else".into(),
        }
    }
}

/// The words of an enumeration.
fn choices(schema: &Json) -> Vec<&str> {
    let variants = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    let of = |part| {
        let one = Json::as_str(Json::get(part, "const").unwrap_or(&Json::Null));
        one.into_iter().chain(words(part, "enum"))
    };
    variants.chain([schema]).flat_map(of).collect()
}

fn words<'a>(schema: &'a Json, key: &str) -> Vec<&'a str> {
    schema.get(key).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
}

/// A number, or a length of time in seconds. Something else is no matter of more and less.
pub(super) fn measure(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::String(text) => text.parse::<Span>().ok().map(|span| span.0.as_secs_f64()),
        _ => None,
    }
}

/// The JSON Schema of a file, for editors: without what only the host understands.
pub(super) fn published<T: JsonSchema>() -> Json {
    let mut schema = schemars::schema_for!(T).to_value();
    publish(&mut schema);
    schema
}

fn publish(at: &mut Json) {
    match at {
        Json::Array(all) => all.iter_mut().for_each(publish),
        Json::Object(part) => {
            part.values_mut().for_each(publish);
            part.retain(|key, value| {
                !(key == "order" || key == "aliases" || key == "default" && value.is_null())
            });
            let mut more = Vec::new();
            if part.remove("rule").is_some() {
                more.push("A group may only have less than the install.".to_owned());
            }
            let range = part.remove("range").unwrap_or_default();
            for (ours, theirs, words) in [("start", "minimum", "At least"), ("end", "maximum", "At most")] {
                match range.get(ours) {
                    Some(bound @ Json::Number(_)) => drop(part.insert(theirs.into(), bound.clone())),
                    Some(bound) => more.push(format!("{words} {bound}.")),
                    None => {}
                }
            }
            if let Some(Json::String(help)) = part.get_mut("description") {
                more.iter().for_each(|more| *help += &format!(" {more}"));
            }
        }
        _ => {}
    }
}
