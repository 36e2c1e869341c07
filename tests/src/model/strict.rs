//! What the strictest known server of each kind refuses in a conversation. The scripted model checks every request of a
//! journey with it, and the host's property test every request that a transcript can make.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// The servers whose rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strict {
    /// Anthropic Messages.
    Messages,
    /// OpenAI chat completions.
    Chat,
    /// Chat completions at Mistral: ids of nine letters and digits, and an answer after every tool's result.
    Mistral,
    /// Chat completions at DeepSeek with thinking: every answer has `reasoning_content`.
    DeepSeek,
    /// Chat completions at Google: the first call of every answer has a signature.
    Gemini,
}

/// The most cache breakpoints in one request of the Messages wire.
const CACHE_BREAKPOINTS_MAX: usize = 4;

/// Returns what the server would refuse, in words.
pub fn violations(server: Strict, body: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    match server {
        Strict::Messages => of_messages(messages, &mut broken),
        _ => of_chat(server, messages, &mut broken),
    }
    let breakpoints = body.to_string().matches("\"cache_control\":").count();
    if breakpoints > CACHE_BREAKPOINTS_MAX {
        broken.push(format!("{breakpoints} cache breakpoints, of which {CACHE_BREAKPOINTS_MAX} are allowed"));
    }
    broken
}

/// Collects violations. Each says where.
struct Rules<'a> {
    broken: &'a mut Vec<String>,
    at: String,
}

impl Rules<'_> {
    fn must(&mut self, holds: bool, rule: &str) {
        if !holds {
            self.broken.push(format!("{}: {rule}", self.at));
        }
    }

    fn only(&mut self, value: &Value, allowed: &[&str]) {
        for name in value.as_object().into_iter().flat_map(Map::keys) {
            self.must(allowed.contains(&name.as_str()), &format!("`{name}` is not permitted"));
        }
    }

    fn name(&mut self, name: &Value) {
        let name = name.as_str().unwrap_or_default();
        self.must(
            (1..=64).contains(&name.len()) && name.bytes().all(is_plain),
            "the name is ^[a-zA-Z0-9_-]{1,64}$",
        );
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_blank(text: &Value) -> bool {
    text.as_str().is_none_or(|text| text.trim().is_empty())
}

fn of_messages(messages: &[Value], broken: &mut Vec<String>) {
    let mut ids = HashSet::new();
    let mut open: Vec<String> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let user = index % 2 == 0;
        let mut rules = Rules { broken, at: format!("messages.{index}") };
        rules.must(
            message["role"] == if user { "user" } else { "assistant" },
            "roles alternate, the user first",
        );
        let Some(blocks) = message["content"].as_array() else {
            rules.must(!is_blank(&message["content"]), "the content is not empty");
            rules.must(open.is_empty(), "every call is answered");
            continue;
        };
        rules.must(!blocks.is_empty(), "the content is not empty");
        let results = blocks.iter().take_while(|block| block["type"] == "tool_result").count();
        for block in blocks.iter().skip(results) {
            rules.must(block["type"] != "tool_result", "results come first");
        }
        if user {
            let answered =
                blocks.iter().take(results).map(|block| block["tool_use_id"].as_str().unwrap_or_default());
            let mut answered: Vec<_> = answered.map(str::to_owned).collect();
            answered.sort();
            open.sort();
            rules.must(answered == open, "every call is answered once, and at once");
            open.clear();
        }
        for (at, block) in blocks.iter().enumerate() {
            let mut rules = Rules { broken, at: format!("messages.{index}.content.{at}") };
            block_of_messages(user, block, &mut rules);
            if block["type"] == "tool_use" {
                let id = block["id"].as_str().unwrap_or_default().to_owned();
                rules.must(ids.insert(id.clone()), "ids are unique");
                open.push(id);
            }
        }
        let last = blocks.last().map(|block| block["type"].as_str().unwrap_or_default());
        let mut rules = Rules { broken, at: format!("messages.{index}") };
        rules.must(!matches!(last, Some("thinking" | "redacted_thinking")), "no answer ends with a thought");
    }
    let mut rules = Rules { broken, at: "messages".into() };
    rules.must(messages.len() % 2 == 1, "the user speaks last");
    rules.must(open.is_empty(), "every call is answered");
    let last = messages.last().filter(|message| message["role"] == "assistant");
    let text = last.map_or("", |message| final_text(&message["content"]));
    rules.must(text == text.trim_end(), "the final assistant content does not end with whitespace");
}

fn final_text(content: &Value) -> &str {
    let block = content.as_array().and_then(|blocks| blocks.last());
    content.as_str().or_else(|| block?["text"].as_str()).unwrap_or_default()
}

fn block_of_messages(user: bool, block: &Value, rules: &mut Rules<'_>) {
    match (user, block["type"].as_str().unwrap_or_default()) {
        (_, "text") => {
            rules.only(block, &["type", "text", "cache_control"]);
            rules.must(!is_blank(&block["text"]), "a text is not blank");
        }
        (true, "tool_result") => {
            rules.only(block, &["type", "tool_use_id", "content", "is_error", "cache_control"]);
            for inner in block["content"].as_array().into_iter().flatten() {
                block_of_messages(true, inner, rules);
            }
            let empty = block["content"].as_str().is_some_and(str::is_empty);
            rules.must(!(empty && block["is_error"] == true), "an error has a content");
        }
        (true, "image" | "document") => rules.only(block, &["type", "source", "cache_control"]),
        (false, "tool_use") => {
            rules.only(block, &["type", "id", "name", "input", "cache_control"]);
            let id = block["id"].as_str().unwrap_or_default();
            rules.must(!id.is_empty() && id.bytes().all(is_plain), "the id is ^[a-zA-Z0-9_-]+$");
            rules.name(&block["name"]);
            rules.must(block["input"].is_object(), "the input is a dictionary");
        }
        (false, "thinking") => {
            rules.only(block, &["type", "thinking", "signature"]);
            rules
                .must(block["thinking"].is_string() && !is_blank(&block["signature"]), "a thought is signed");
        }
        (false, "redacted_thinking") => {
            rules.only(block, &["type", "data"]);
            rules.must(!is_blank(&block["data"]), "a redacted thought has its data");
        }
        (_, other) => rules.must(false, &format!("a block of type `{other}` is not expected")),
    }
}

fn of_chat(server: Strict, messages: &[Value], broken: &mut Vec<String>) {
    let mut ids = HashSet::new();
    let mut open: Vec<String> = Vec::new();
    let mut before = "";
    for (index, message) in messages.iter().enumerate() {
        let mut rules = Rules { broken, at: format!("messages[{index}]") };
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" {
            rules.must(open.is_empty(), "a tool message answers every call");
            open.clear();
        }
        match role {
            "system" => rules.must(index == 0, "the system speaks first"),
            "user" => {
                rules.only(message, &["role", "content"]);
                let parts = message["content"].as_array().is_some_and(|parts| !parts.is_empty());
                rules.must(parts || !is_blank(&message["content"]), "the content is not empty");
                rules.must(before != "user", "roles alternate");
                rules.must(server != Strict::Mistral || before != "tool", "no user after a tool");
            }
            "assistant" => {
                let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
                answer_of_chat(server, message, calls, &mut rules);
                for call in calls {
                    let id = call["id"].as_str().unwrap_or_default().to_owned();
                    rules.must(ids.insert(id.clone()), "ids are unique");
                    open.push(id);
                }
            }
            "tool" => {
                rules.only(message, &["role", "tool_call_id", "content"]);
                rules.must(message["content"].is_string(), "the content is a text");
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                let known = open.iter().position(|call| call == id);
                rules.must(known.is_some(), "a tool message answers a call of the answer before it");
                known.map(|at| open.remove(at));
            }
            other => rules.must(false, &format!("a role `{other}` is not expected")),
        }
        before = role;
    }
    let mut rules = Rules { broken, at: "messages".into() };
    rules.must(open.is_empty() && matches!(before, "user" | "tool"), "the user or a tool speaks last");
}

fn answer_of_chat(server: Strict, message: &Value, calls: &[Value], rules: &mut Rules<'_>) {
    let (thoughts, signatures) = (server == Strict::DeepSeek, server == Strict::Gemini);
    let own: &[&str] = if thoughts { &["reasoning_content"] } else { &[] };
    rules.only(message, &[&["role", "content", "tool_calls"], own].concat());
    rules.must(!is_blank(&message["content"]) || !calls.is_empty(), "an answer has a content or calls");
    let thought = message["reasoning_content"].as_str().is_some_and(|thought| !thought.is_empty());
    rules.must(!thoughts || thought, "the `reasoning_content` must be passed back");
    for (at, call) in calls.iter().enumerate() {
        let own: &[&str] = if signatures { &["extra_content"] } else { &[] };
        rules.only(call, &[&["id", "type", "function"], own].concat());
        let id = call["id"].as_str().unwrap_or_default();
        rules.must((1..=40).contains(&id.len()), "an id has 1 to 40 characters");
        let nine = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        rules.must(server != Strict::Mistral || nine, "an id is a-z, A-Z, 0-9, with a length of 9");
        rules.must(call["type"] == "function", "a call is a function");
        rules.name(&call["function"]["name"]);
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        let object = serde_json::from_str::<Map<String, Value>>(arguments).is_ok();
        rules.must(object, "the arguments are a JSON object");
        let signed = call["extra_content"]["google"]["thought_signature"].is_string();
        rules.must(!signatures || at > 0 || signed, "the call is missing a thought_signature");
    }
}
