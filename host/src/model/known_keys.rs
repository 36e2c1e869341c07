//! What a request to a provider may hold, written down a second time: the tests and the fuzz targets compare what the
//! writers wrote with these tables, and know nothing of the types that it was read into.

use serde_json::Value;

/// One kind of value in a request: where it stands (`[]` is any element), and its fields if it is an object, `LIST` if
/// it is a list, or `ANY` if it passes as it is. A name with `*` stands for all that begin so; they belong to the
/// provider and pass as they are. What is not in the table is a text, a number or a truth value.
pub type Table = [(&'static str, &'static str)];
const LIST: &str = "a list";
const ANY: &str = "anything";

pub const MESSAGES: &Table = &[
    (
        "",
        "model max_tokens stream messages system tools tool_choice temperature top_p top_k stop_sequences thinking \
         output_config cache_control metadata",
    ),
    ("messages", LIST),
    ("messages[]", "role content"),
    ("messages[].content", LIST),
    (
        "messages[].content[]",
        "type text cache_control source id name input tool_use_id content is_error thinking signature data",
    ),
    ("messages[].content[].cache_control", "type ttl"),
    ("messages[].content[].source", "type media_type data"),
    ("messages[].content[].input", ANY),
    ("messages[].content[].content", LIST),
    ("messages[].content[].content[]", "type text source cache_control"),
    ("messages[].content[].content[].cache_control", "type ttl"),
    ("messages[].content[].content[].source", "type media_type data"),
    ("system", LIST),
    ("system[]", "type text cache_control"),
    ("system[].cache_control", "type ttl"),
    ("tools", LIST),
    ("tools[]", "name description input_schema cache_control"),
    ("tools[].cache_control", "type ttl"),
    ("tools[].input_schema", ANY),
    ("tool_choice", "type name disable_parallel_tool_use"),
    ("stop_sequences", LIST),
    ("thinking", "type budget_tokens display"),
    ("output_config", "effort"),
    ("cache_control", "type ttl"),
    ("metadata", "user_id"),
];

pub const CHAT: &Table = &[
    (
        "",
        "model max_tokens max_completion_tokens stream stream_options messages tools tool_choice parallel_tool_calls \
         temperature top_p stop",
    ),
    ("stream_options", "include_usage"),
    ("messages", LIST),
    (
        "messages[]",
        "role content tool_calls tool_call_id reasoning* thinking* thought* extra_content* provider_specific_fields*",
    ),
    ("messages[].content", LIST),
    ("messages[].content[]", "type text image_url file"),
    ("messages[].content[].image_url", "url"),
    ("messages[].content[].file", "filename file_data"),
    ("messages[].tool_calls", LIST),
    (
        "messages[].tool_calls[]",
        "id type function reasoning* thinking* thought* extra_content* provider_specific_fields*",
    ),
    ("messages[].tool_calls[].function", "name arguments"),
    ("tools", LIST),
    ("tools[]", "type function"),
    ("tools[].function", "name description parameters"),
    ("tools[].function.parameters", ANY),
    ("tool_choice", "type function"),
    ("tool_choice.function", "name"),
    ("stop", LIST),
];

/// The types of blocks, sources, parts and calls.
const TYPES: [&str; 11] = [
    "text",
    "image",
    "document",
    "tool_use",
    "tool_result",
    "thinking",
    "redacted_thinking",
    "base64",
    "image_url",
    "file",
    "function",
];

/// What in a request no table allows.
pub fn strays(body: &Value, table: &Table) -> Vec<String> {
    let mut found = Vec::new();
    walk(body, "", table, &mut found);
    found
}

fn walk(value: &Value, path: &str, table: &Table, found: &mut Vec<String>) {
    let allowed = table.iter().find(|(place, _)| *place == path).map(|(_, allowed)| *allowed);
    let mut below_all = Vec::new();
    let mut stray = |what: &str| found.push(format!("{path}: {what}"));
    match value {
        _ if allowed == Some(ANY) => {}
        Value::Array(list) => {
            if allowed != Some(LIST) {
                stray("a list");
            }
            below_all.extend(list.iter().map(|element| (format!("{path}[]"), element)));
        }
        Value::Object(fields) => {
            let names: Vec<_> = allowed.unwrap_or_default().split_whitespace().collect();
            for (name, value) in fields {
                if names.iter().any(|known| known.strip_suffix('*').is_some_and(|own| name.starts_with(own)))
                {
                    continue;
                }
                if !names.contains(&name.as_str()) {
                    stray(name);
                }
                // Of blocks, sources and calls; a cache control has a type of its own.
                let is_kind =
                    name == "type" && path.starts_with("messages") && !path.ends_with("cache_control");
                if is_kind && !value.as_str().is_some_and(|kind| TYPES.contains(&kind)) {
                    stray(&format!("type {value}"));
                }
                let is_address = matches!(name.as_str(), "url" | "file_data");
                if is_address && !value.as_str().is_some_and(|url| url.starts_with("data:")) {
                    stray(&format!("{name} {value}"));
                }
                let below = format!("{path}.{name}");
                below_all.push((below.trim_start_matches('.').to_owned(), value));
            }
        }
        // An answer of calls alone has no content in chat completions.
        Value::Null if path != "messages[].content" => stray("null"),
        _ => {}
    }
    for (path, value) in below_all {
        walk(value, &path, table, found);
    }
}
