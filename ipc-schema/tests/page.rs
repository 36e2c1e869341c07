//! The page of the protocol names every field of every letter, and every code of a refusal: a second implementation has
//! no other source.

use std::collections::BTreeSet;

use ipc_schema::RefusalCode;
use serde_json::Value;

const PAGE: &str = include_str!("../README.md");

/// The words in the page's code.
fn words() -> BTreeSet<&'static str> {
    let code = PAGE.split('`').skip(1).step_by(2);
    code.flat_map(|span| span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect()
}

/// The names of all fields, and the values that a field with a choice can have.
fn names(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("properties", Value::Object(properties)) => found.extend(properties.keys().cloned()),
                    ("const", Value::String(choice)) => drop(found.insert(choice.clone())),
                    ("enum", Value::Array(choices)) => {
                        found.extend(choices.iter().filter_map(|choice| choice.as_str().map(str::to_owned)));
                    }
                    _ => {}
                }
                names(value, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|one| names(one, found)),
        _ => {}
    }
}

#[test]
fn the_page_names_every_field_and_choice_of_the_schemas() {
    let mut found = BTreeSet::new();
    for schema in [include_str!("../schemas/from-agent.json"), include_str!("../schemas/to-agent.json")] {
        names(&serde_json::from_str(schema).unwrap(), &mut found);
    }
    assert!(found.len() > 100, "are the schemas read rightly? {found:?}");
    let words = words();
    let missing: Vec<_> = found.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "ipc-schema/README.md does not name {missing:?}");
}

#[test]
fn the_page_explains_every_code_of_a_refusal() {
    let told = |code: &RefusalCode| PAGE.contains(&format!("`{code}`"));
    // A file that is gone is no refusal: the reader tries again.
    let codes = RefusalCode::ALL.into_iter().filter(|code| *code != RefusalCode::Gone);
    let missing: Vec<_> = codes.filter(|code| !told(code)).collect();
    assert!(missing.is_empty(), "ipc-schema/README.md does not explain {missing:?}");
}
