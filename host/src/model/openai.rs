//! OpenAI-compatible providers: translates requests. `openai_answer` reads the answers.
//!
//! The wire is chat completions (<https://platform.openai.com/docs/api-reference/chat>), which many servers speak in
//! dialects. So this module writes only what all of them accept.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::configured_providers::ProviderSettings;
use super::error::ApiError;
use super::request::{Block, Entry, ModelRequest, Role, Tool, plain_text};

#[derive(Serialize)]
struct ChatRequest<'a> {
    model: &'a str,
    messages: Vec<ChatMessage<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ChatTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum ChatMessage<'a> {
    System {
        content: String,
    },
    User {
        content: UserContent,
    },
    Assistant {
        content: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ChatCall<'a>>,
    },
    Tool {
        tool_call_id: String,
        content: String,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum UserContent {
    /// Every server accepts this form.
    Text(String),
    Parts(Vec<Value>),
}

#[derive(Serialize)]
struct ChatCall<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: ChatFunction<'a>,
}

#[derive(Serialize)]
struct ChatFunction<'a> {
    name: String,
    arguments: &'a str,
}

#[derive(Deserialize)]
struct ToolChoice {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    disable_parallel_tool_use: bool,
}

/// Writes the body for a provider.
pub(super) fn body(
    request: &ModelRequest<'_>,
    settings: &ProviderSettings,
    model: &str,
    max_tokens: u32,
) -> Result<Vec<u8>, ApiError> {
    let unreadable = |error| ApiError::invalid(format!("tool_choice is not of the Messages wire: {error}"));
    let choice: Option<ToolChoice> =
        request.tool_choice.map(|raw| serde_json::from_str(raw.get())).transpose().map_err(unreadable)?;
    let limit = request.max_tokens.min(max_tokens);
    let chat = ChatRequest {
        model,
        messages: messages(request, settings)?,
        stream: request.stream,
        stream_options: (request.stream && settings.stream_options).then(|| json!({ "include_usage": true })),
        max_tokens: (!settings.max_completion_tokens).then_some(limit),
        max_completion_tokens: settings.max_completion_tokens.then_some(limit),
        tools: request.tools()?.into_iter().map(function).collect(),
        parallel_tool_calls: choice.as_ref().filter(|choice| choice.disable_parallel_tool_use).map(|_| false),
        tool_choice: choice.map(tool_choice),
        temperature: request.temperature,
        top_p: request.top_p,
        stop: request.stop_sequences,
    };
    let mut written = Vec::with_capacity(request.length());
    let failed = |e: serde_json::Error| ApiError::invalid(format!("the request cannot be written: {e}"));
    serde_json::to_writer(&mut written, &chat).map_err(failed)?;
    Ok(written)
}

/// A tool in this wire. Its schema passes as raw text: as a tree it would take a hundred times its bytes.
#[derive(Serialize)]
struct ChatTool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: ToolFunction<'a>,
}

#[derive(Serialize)]
struct ToolFunction<'a> {
    name: String,
    description: String,
    parameters: Parameters<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Parameters<'a> {
    Given(&'a RawValue),
    Any { r#type: &'static str, properties: Empty },
}

#[derive(Serialize)]
struct Empty {}

fn function(tool: Tool<'_>) -> ChatTool<'_> {
    let parameters = match tool.input_schema {
        Some(schema) => Parameters::Given(schema),
        None => Parameters::Any { r#type: "object", properties: Empty {} },
    };
    let description = tool.description.unwrap_or_default();
    ChatTool { kind: "function", function: ToolFunction { name: tool.name, description, parameters } }
}

fn tool_choice(choice: ToolChoice) -> Value {
    match choice.kind.as_str() {
        "any" => json!("required"),
        "none" => json!("none"),
        "tool" => json!({ "type": "function", "function": { "name": choice.name } }),
        _ => json!("auto"),
    }
}

fn messages<'a>(
    request: &ModelRequest<'a>,
    settings: &ProviderSettings,
) -> Result<Vec<ChatMessage<'a>>, ApiError> {
    let mut messages = Vec::new();
    let system = request.system_text()?;
    if !system.is_empty() {
        messages.push(ChatMessage::System { content: system });
    }
    for entry in request.entries() {
        let entry = entry?;
        match entry.role {
            Role::Assistant => messages.push(assistant(entry)),
            Role::User => user(entry, settings, &mut messages),
        }
    }
    Ok(messages)
}

/// An entry of the model. Its thoughts are left out: they are signed for another model.
fn assistant(entry: Entry<'_>) -> ChatMessage<'_> {
    let text = plain_text(&entry.blocks);
    let calls = entry.blocks.into_iter().filter_map(|block| match block {
        Block::ToolUse { id, name, input } => {
            Some(ChatCall { id, kind: "function", function: ChatFunction { name, arguments: input.get() } })
        }
        _ => None,
    });
    let tool_calls: Vec<_> = calls.collect();
    // An entry of thoughts alone still separates two entries of the user; `null` is valid only beside a tool call.
    let content = Some(text).filter(|text| !text.is_empty() || tool_calls.is_empty());
    ChatMessage::Assistant { content, tool_calls }
}

/// An entry of people and tools. Tool results come first: the wire wants them right after the calls.
fn user<'a>(entry: Entry<'a>, settings: &ProviderSettings, messages: &mut Vec<ChatMessage<'a>>) {
    let mut parts = Vec::new();
    for block in entry.blocks {
        if let Block::ToolResult { id, is_error, content } = block {
            // A tool's message holds text only, so its pictures move to the user's message.
            let text = plain_text(&content);
            let mark = if is_error { "Error: " } else { "" };
            messages.push(ChatMessage::Tool { tool_call_id: id, content: format!("{mark}{text}") });
            let pictures = content.iter().filter(|block| !matches!(block, Block::Text(_)));
            parts.extend(pictures.filter_map(|block| part(block, settings)));
        } else {
            parts.extend(part(&block, settings));
        }
    }
    if !parts.is_empty() {
        messages.push(ChatMessage::User { content: user_content(parts) });
    }
}

fn user_content(parts: Vec<Value>) -> UserContent {
    if parts.iter().any(|part| part["type"] != "text") {
        return UserContent::Parts(parts);
    }
    let texts = parts.iter().filter_map(|part| part["text"].as_str());
    UserContent::Text(texts.collect::<Vec<_>>().join("\n\n"))
}

fn part(block: &Block<'_>, settings: &ProviderSettings) -> Option<Value> {
    let text = |text: &str| Some(json!({ "type": "text", "text": text }));
    match block {
        Block::Text(words) => text(words),
        Block::Image { media_type, data } if settings.images => {
            let url = format!("data:{media_type};base64,{data}");
            Some(json!({ "type": "image_url", "image_url": { "url": url } }))
        }
        Block::Image { .. } => text("[a picture was left out: this model takes none]"),
        Block::Other(kind) => {
            text(&format!("[a block of type `{kind}` was left out: this model takes none]"))
        }
        Block::Thinking | Block::ToolUse { .. } | Block::ToolResult { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ProviderKind;

    fn translated(request: &Value, change: impl FnOnce(&mut ProviderSettings)) -> Value {
        let mut settings = ProviderSettings::new("p", ProviderKind::Openai);
        change(&mut settings);
        let text = request.to_string();
        let request = ModelRequest::parse(text.as_bytes()).unwrap();
        serde_json::from_slice(&body(&request, &settings, "gpt", 100).unwrap()).unwrap()
    }

    #[test]
    fn a_transcript_with_tools_becomes_a_chat() {
        let asked = json!({
            "model": "x", "max_tokens": 999, "stream": true, "system": "be kind",
            "tools": [{ "name": "ls", "description": "lists", "input_schema": { "type": "object" } }],
            "tool_choice": { "type": "any", "disable_parallel_tool_use": true },
            "stop_sequences": ["END"], "thinking": { "type": "adaptive" },
            "messages": [
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "hm", "signature": "s" },
                    { "type": "text", "text": "looking" },
                    { "type": "tool_use", "id": "a", "name": "ls", "input": { "path": "." } },
                    { "type": "tool_use", "id": "b", "name": "ls", "input": {} } ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "a", "content": [{ "type": "text", "text": "x.md" }] },
                    { "type": "tool_result", "tool_use_id": "b", "is_error": true, "content": "no" },
                    { "type": "text", "text": "and hurry" } ] },
            ],
        });
        let call = |id, arguments| json!({ "id": id, "type": "function", "function": { "name": "ls", "arguments": arguments } });
        let expected = json!({
            "model": "gpt", "stream": true, "stream_options": { "include_usage": true },
            "max_completion_tokens": 100, "stop": ["END"],
            "tools": [{ "type": "function", "function":
                { "name": "ls", "description": "lists", "parameters": { "type": "object" } } }],
            "tool_choice": "required", "parallel_tool_calls": false,
            "messages": [
                { "role": "system", "content": "be kind" },
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": "looking",
                  "tool_calls": [call("a", r#"{"path":"."}"#), call("b", "{}")] },
                { "role": "tool", "tool_call_id": "a", "content": "x.md" },
                { "role": "tool", "tool_call_id": "b", "content": "Error: no" },
                { "role": "user", "content": "and hurry" },
            ],
        });
        assert_eq!(translated(&asked, |_| {}), expected);
        let plain = translated(&asked, |settings| settings.max_completion_tokens = false);
        assert_eq!(plain["max_tokens"], 100);
        assert_eq!(plain.get("max_completion_tokens"), None);
    }

    #[test]
    fn pictures_become_data_urls_or_a_note() {
        let source = json!({ "type": "base64", "media_type": "image/png", "data": "AAAA" });
        let image = json!({ "type": "image", "source": source });
        let asked = json!({ "messages": [{ "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": "a", "content": [image] },
            image,
            { "type": "text", "text": "look" },
        ]}]});
        let seen = translated(&asked, |_| {});
        assert_eq!(seen["messages"][0], json!({ "role": "tool", "tool_call_id": "a", "content": "" }));
        let parts = &seen["messages"][1]["content"];
        assert_eq!(parts[0]["image_url"]["url"], "data:image/png;base64,AAAA");
        assert_eq!(parts[2]["text"], "look");

        let blind = translated(&asked, |settings| settings.images = false);
        let text = blind["messages"][1]["content"].as_str().unwrap();
        assert!(text.contains("left out") && text.ends_with("look"), "{text}");
    }
}
