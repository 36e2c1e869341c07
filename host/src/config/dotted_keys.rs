//! Settings by their dotted names: out of a table, out of a schema, into a table.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// Every leaf of a table under its dotted name.
pub(super) fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    collect(table, "", &mut found);
    found
}

fn collect(table: &Table, prefix: &str, found: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => collect(inner, &name, found),
            other => {
                found.insert(name, other.clone());
            }
        }
    }
}

/// Every leaf that a schema names. Maps with free keys (`providers`) have no leaves: they are for the file.
pub(super) fn of_schema(schema: &serde_json::Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    walk(schema, schema, &mut Vec::new(), &mut found);
    found
}

fn walk(
    root: &serde_json::Value,
    at: &serde_json::Value,
    path: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) {
    let resolved = at
        .get("$ref")
        .and_then(|r| r.as_str())
        .and_then(|r| r.strip_prefix('#'))
        .and_then(|pointer| root.pointer(pointer))
        .unwrap_or(at);
    match resolved.get("properties").and_then(|p| p.as_object()) {
        Some(properties) => {
            for (key, inner) in properties {
                path.push(key.clone());
                walk(root, inner, path, found);
                path.pop();
            }
        }
        None if resolved.get("additionalProperties").is_some_and(serde_json::Value::is_object) => {}
        None => found.push(path.clone()),
    }
}

/// `["limits", "turn"]` is overridden by `LAZARET_LIMITS_TURN`.
pub(super) fn variable(path: &[String]) -> String {
    format!("LAZARET_{}", path.join("_").to_uppercase())
}

/// Sets a leaf, making the tables on the way.
pub(super) fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [leaf] => {
            table.insert(leaf.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
