//! The settings of a file, as their definitions say: read from the JSON Schema of the file's type. Checks, environment
//! names, `config show` and the example file take names, help, defaults and allowed values from here.

use serde_json::Value as Json;
use toml::{Table, Value};

use schemars::JsonSchema;

use crate::domain::settings_macro::Span;

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

    /// Holds a value against the definition's `in`.
    ///
    /// # Errors
    /// Which values are allowed.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        let Some(range) = self.schema.get("range") else { return Ok(()) };
        let bound = |name: &str| Value::try_from(range.get(name)?).ok();
        let (least, most) = (bound("start"), bound("end"));
        let below = least.as_ref().is_some_and(|least| measure(value) < measure(least));
        let above = most.as_ref().is_some_and(|most| measure(value) > measure(most));
        if below || above {
            let bounds = [least.map(|v| format!("at least {v}")), most.map(|v| format!("at most {v}"))];
            let bounds: Vec<String> = bounds.into_iter().flatten().collect();
            return Err(format!("{} = {value} is not allowed; it is {}", self.name(), bounds.join(" and ")));
        }
        Ok(())
    }
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
            part.retain(|key, value| !(key == "order" || key == "default" && value.is_null()));
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
