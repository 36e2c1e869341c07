//! OpenAI-compatible providers: translates requests. `openai_answer` reads the answers.
//!
//! The wire is chat completions (<https://platform.openai.com/docs/api-reference/chat>), which many servers speak in
//! dialects. So this module writes only what all of them accept.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::configured_providers::ProviderSettings;
use super::dialect::Dialect;
use super::error::ApiError;
use super::normalise::{CallIds, tool_name};
use super::opaque::{Fields, Opaque, maker};
use super::request::{Block, Entry, ModelRequest, Role, Source, Tool, ToolChoice, plain_text};
use super::strict_json::Text;

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
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a [Text<'a>]>,
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
        #[serde(flatten)]
        opaque: Fields<&'a RawValue>,
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
    #[serde(flatten)]
    opaque: Fields<&'a RawValue>,
}

#[derive(Serialize)]
struct ChatFunction<'a> {
    name: String,
    arguments: &'a str,
}

/// Writes the body for a provider.
pub(super) fn body(
    request: &ModelRequest<'_>,
    settings: &ProviderSettings,
    model: &str,
    max_tokens: u32,
    dialect: Dialect,
) -> Result<Vec<u8>, ApiError> {
    let choice = request.tool_choice.as_ref();
    let limit = request.max_tokens.min(max_tokens);
    let chat = ChatRequest {
        model,
        messages: Chat::new(settings, model, dialect)?.written(request),
        stream: request.stream,
        stream_options: (request.stream && dialect.stream_options).then(|| json!({ "include_usage": true })),
        max_tokens: (!dialect.max_completion_tokens).then_some(limit),
        max_completion_tokens: dialect.max_completion_tokens.then_some(limit),
        tools: request.tools.iter().flatten().map(function).collect(),
        parallel_tool_calls: choice.filter(|choice| choice.disable_parallel_tool_use).map(|_| false),
        tool_choice: choice.map(tool_choice),
        temperature: request.temperature,
        top_p: request.top_p,
        stop: request.stop_sequences.as_deref(),
    };
    let mut written = request.buffer();
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
    name: Text<'a>,
    description: Cow<'a, str>,
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

fn function<'a>(tool: &Tool<'a>) -> ChatTool<'a> {
    let parameters = match tool.input_schema {
        Some(schema) => Parameters::Given(schema),
        None => Parameters::Any { r#type: "object", properties: Empty {} },
    };
    let description = tool.description.map(Text::read).unwrap_or_default();
    ChatTool { kind: "function", function: ToolFunction { name: tool.name, description, parameters } }
}

fn tool_choice(choice: &ToolChoice<'_>) -> Value {
    match choice.kind {
        "any" => json!("required"),
        "none" => json!("none"),
        "tool" => {
            json!({ "type": "function", "function": { "name": choice.name.map(Text::read).unwrap_or_default() } })
        }
        _ => json!("auto"),
    }
}

/// The thought that stands for a missing one. An empty text would count as missing.
const NO_THOUGHT: &str = "\" \"";

/// The signature that stands for a missing one, as Google documents it for calls of other models.
const NO_SIGNATURE: &str = r#"{"google":{"thought_signature":"skip_thought_signature_validator"}}"#;

/// The messages of one request while they are written.
struct Chat<'a, 's> {
    settings: &'s ProviderSettings,
    maker: String,
    dialect: Dialect,
    ids: CallIds,
    messages: Vec<ChatMessage<'a>>,
    no_thought: &'a RawValue,
    no_signature: &'a RawValue,
}

impl<'a, 's> Chat<'a, 's> {
    fn new(settings: &'s ProviderSettings, model: &str, dialect: Dialect) -> Result<Self, ApiError> {
        let constant = |json: &'static str| {
            serde_json::from_str(json)
                .map_err(|e| ApiError::invalid(format!("the request cannot be written: {e}")))
        };
        Ok(Self {
            settings,
            maker: maker(&settings.name, model),
            dialect,
            ids: CallIds::default(),
            messages: Vec::new(),
            no_thought: constant(NO_THOUGHT)?,
            no_signature: constant(NO_SIGNATURE)?,
        })
    }

    fn written(mut self, request: &ModelRequest<'a>) -> Vec<ChatMessage<'a>> {
        let system = request.system_text();
        if !system.is_empty() {
            self.messages.push(ChatMessage::System { content: system });
        }
        for Entry { role, content } in &request.messages {
            match role {
                Role::Assistant => self.answer(&content.blocks),
                Role::User => self.user(&content.blocks),
            }
        }
        if self.dialect.thoughts || self.messages.iter().any(ChatMessage::has_reasoning) {
            self.fill_reasoning();
        }
        self.messages
    }

    /// An entry of the model. Thoughts in the other wire are left out: they are signed for another model.
    fn answer(&mut self, blocks: &[Block<'a>]) {
        self.ids.begin_answer();
        let content = plain_text(blocks);
        let opaque = blocks.iter().find_map(|block| match block {
            Block::Opaque(opaque) if opaque.made_by(&self.maker) && !self.dialect.plain_answers => {
                Some(opaque)
            }
            _ => None,
        });
        let mut tool_calls: Vec<ChatCall<'_>> = Vec::new();
        for block in blocks {
            let Block::ToolUse { id, name, input, .. } = block else { continue };
            let function = ChatFunction { name: tool_name(name).into_owned(), arguments: input.json() };
            let mut fields = opaque.map(|opaque| opaque.call(id)).unwrap_or_default();
            if self.dialect.signature && tool_calls.is_empty() && fields.is_empty() {
                fields.push("extra_content", self.no_signature);
            }
            let id = self.ids.replaced(id);
            tool_calls.push(ChatCall { id, kind: "function", function, opaque: fields });
        }
        // An answer without text and calls is refused, and `null` is valid only beside a call.
        if content.is_empty() && tool_calls.is_empty() {
            return;
        }
        let opaque = opaque.map(Opaque::message).unwrap_or_default();
        self.messages.push(ChatMessage::Assistant {
            content: Some(content).filter(|text| !text.is_empty()),
            tool_calls,
            opaque,
        });
    }

    /// An entry of people and tools. Tool results come first: the wire wants them right after the calls.
    fn user(&mut self, blocks: &[Block<'_>]) {
        let mut parts = Vec::new();
        for block in blocks {
            if let Block::ToolResult { tool_use_id, is_error, content, .. } = block {
                // A tool's message holds text only, so its pictures move to the user's message.
                let content = content.as_ref().map_or(&[][..], |content| &content.blocks);
                let text = plain_text(content);
                let mark = if *is_error { "Error: " } else { "" };
                let tool_call_id = self.ids.of_result(tool_use_id);
                self.messages.push(ChatMessage::Tool { tool_call_id, content: format!("{mark}{text}") });
                let pictures = content.iter().filter(|block| !matches!(block, Block::Text { .. }));
                parts.extend(pictures.filter_map(|block| part(block, self.settings)));
            } else {
                parts.extend(part(block, self.settings));
            }
        }
        if parts.is_empty() {
            return;
        }
        match self.messages.last_mut() {
            // The answer between them was left out.
            Some(ChatMessage::User { content }) => {
                let before = std::mem::replace(content, UserContent::Parts(Vec::new()));
                *content = user_content(before.into_parts().into_iter().chain(parts).collect());
                return;
            }
            Some(ChatMessage::Tool { .. }) if self.dialect.answer_after_tool => {
                let content = Some("I go on with what is written next.".to_owned());
                let opaque = Fields::default();
                self.messages.push(ChatMessage::Assistant { content, tool_calls: Vec::new(), opaque });
            }
            _ => {}
        }
        self.messages.push(ChatMessage::User { content: user_content(parts) });
    }

    fn fill_reasoning(&mut self) {
        for message in &mut self.messages {
            if !message.has_reasoning()
                && let ChatMessage::Assistant { opaque, .. } = message
            {
                opaque.push(REASONING, self.no_thought);
            }
        }
    }
}

/// The field of DeepSeek and Kimi that every answer must have as soon as one has it.
const REASONING: &str = "reasoning_content";

impl ChatMessage<'_> {
    fn has_reasoning(&self) -> bool {
        matches!(self, Self::Assistant { opaque, .. } if opaque.has(REASONING))
    }
}

impl UserContent {
    fn into_parts(self) -> Vec<Value> {
        match self {
            Self::Text(text) => vec![json!({ "type": "text", "text": text })],
            Self::Parts(parts) => parts,
        }
    }
}

fn user_content(parts: Vec<Value>) -> UserContent {
    if parts.iter().any(|part| part["type"] != "text") {
        return UserContent::Parts(parts);
    }
    let texts = parts.iter().filter_map(|part| part["text"].as_str());
    UserContent::Text(texts.collect::<Vec<_>>().join("\n\n"))
}

fn data_url(source: &Source<'_>) -> String {
    format!("data:{};base64,{}", source.media_type, source.data.read())
}

fn part(block: &Block<'_>, settings: &ProviderSettings) -> Option<Value> {
    let text = |text: &str| Some(json!({ "type": "text", "text": text }));
    match block {
        Block::Text { text: words, .. } => text(&words.read()),
        Block::Image(media) => {
            Some(json!({ "type": "image_url", "image_url": { "url": data_url(&media.source) } }))
        }
        Block::Document(media) if settings.documents => {
            let data = data_url(&media.source);
            Some(json!({ "type": "file", "file": { "filename": "document.pdf", "file_data": data } }))
        }
        Block::Document(_) => text("[the document was left out: this provider takes none; read the file]"),
        Block::Thinking { .. }
        | Block::RedactedThinking { .. }
        | Block::Opaque(_)
        | Block::ToolUse { .. }
        | Block::ToolResult { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ProviderKind;

    fn translated(request: &Value, change: impl FnOnce(&mut ProviderSettings)) -> Value {
        let mut settings = ProviderSettings::new("p", ProviderKind::Openai);
        change(&mut settings);
        in_dialect(request, settings.dialect(), &settings)
    }

    fn in_dialect(request: &Value, dialect: Dialect, settings: &ProviderSettings) -> Value {
        let text = request.to_string();
        let request = ModelRequest::parse(text.as_bytes()).unwrap();
        serde_json::from_slice(&body(&request, settings, "gpt", 100, dialect).unwrap()).unwrap()
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
                  "tool_calls": [call("call00001", r#"{"path":"."}"#), call("call00002", "{}")] },
                { "role": "tool", "tool_call_id": "call00001", "content": "x.md" },
                { "role": "tool", "tool_call_id": "call00002", "content": "Error: no" },
                { "role": "user", "content": "and hurry" },
            ],
        });
        assert_eq!(translated(&asked, |_| {}), expected);
        let plain = translated(&asked, |settings| settings.max_completion_tokens = false);
        assert_eq!(plain["max_tokens"], 100);
        assert_eq!(plain.get("max_completion_tokens"), None);
    }

    fn answered(content: Value) -> Value {
        let result = |id: &str| json!({ "type": "tool_result", "tool_use_id": id, "content": "ok" });
        json!({ "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": content },
            { "role": "user", "content": [result("a"), result("b"), { "type": "text", "text": "hurry" }] },
            { "role": "assistant", "content": "done" },
            { "role": "user", "content": "thanks" },
        ]})
    }

    fn calls() -> [Value; 2] {
        ["a", "b"].map(|id| json!({ "type": "tool_use", "id": id, "name": "ls", "input": {} }))
    }

    #[test]
    fn what_belongs_to_a_provider_goes_back_to_it_and_to_no_other() {
        let signature = json!({ "google": { "thought_signature": "AbC=" } });
        let opaque = json!({ "type": "opaque", "maker": "p/gpt", "message": { "reasoning_content": "I should look" },
            "calls": { "b": { "extra_content": signature } } });
        let [a, b] = calls();
        let asked = answered(json!([a, b, opaque]));
        let seen = translated(&asked, |_| {});
        let answer = &seen["messages"][1];
        assert_eq!(answer["reasoning_content"], "I should look");
        assert_eq!(answer["tool_calls"][0].get("extra_content"), None);
        assert_eq!(answer["tool_calls"][1]["extra_content"], signature);
        assert_eq!(
            seen["messages"][5]["reasoning_content"], " ",
            "as soon as one answer has it, all have it"
        );
        let settings = ProviderSettings::new("p", ProviderKind::Openai);
        let plain = Dialect { plain_answers: true, ..settings.dialect() };
        let plain = in_dialect(&asked, plain, &settings);
        for other in [plain, translated(&asked, |settings| settings.name = "q".into())] {
            let other = other.to_string();
            assert!(!other.contains("reasoning_content") && !other.contains("extra_content"), "{other}");
        }
    }

    #[test]
    fn what_a_provider_misses_in_the_answers_of_others_is_filled_in() {
        let asked = answered(json!(calls()));
        let settings = ProviderSettings::new("p", ProviderKind::Openai);
        let dialect =
            Dialect { thoughts: true, signature: true, answer_after_tool: true, ..settings.dialect() };
        let seen = in_dialect(&asked, dialect, &settings);
        let roles: Vec<_> =
            seen["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool", "assistant", "user", "assistant", "user"]);
        let answers = seen["messages"].as_array().unwrap().iter().filter(|m| m["role"] == "assistant");
        assert!(answers.clone().all(|answer| answer["reasoning_content"] == " "));
        let calls = &seen["messages"][1]["tool_calls"];
        assert!(calls[0]["extra_content"]["google"]["thought_signature"].is_string());
        assert_eq!(calls[1].get("extra_content"), None, "the first call of an answer has the signature");
    }

    #[test]
    fn an_answer_of_thoughts_alone_does_not_separate_two_messages() {
        let asked = json!({ "messages": [
            { "role": "user", "content": "one" },
            { "role": "assistant", "content": [{ "type": "thinking", "thinking": "hm", "signature": "s" }] },
            { "role": "user", "content": "two" },
        ]});
        assert_eq!(
            translated(&asked, |_| {})["messages"],
            json!([{ "role": "user", "content": "one\n\ntwo" }])
        );
    }

    #[test]
    fn pictures_become_data_urls() {
        let source = json!({ "type": "base64", "media_type": "image/png", "data": "AAAA" });
        let image = json!({ "type": "image", "source": source });
        let asked = json!({ "messages": [{ "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": "a", "content": [image] },
            image,
            { "type": "text", "text": "look" },
        ]}]});
        let seen = translated(&asked, |_| {});
        assert_eq!(
            seen["messages"][0],
            json!({ "role": "tool", "tool_call_id": "call00001", "content": "" })
        );
        let parts = &seen["messages"][1]["content"];
        assert_eq!(parts[0]["image_url"]["url"], "data:image/png;base64,AAAA");
        assert_eq!(parts[2]["text"], "look");
    }

    #[test]
    fn documents_become_files_where_the_server_takes_them() {
        let source = json!({ "type": "base64", "media_type": "application/pdf", "data": "JVBERi0=" });
        let document = json!({ "type": "document", "source": source });
        let asked = json!({ "messages": [{ "role": "user", "content": [
            document, { "type": "text", "text": "look" },
        ]}]});
        let seen = translated(&asked, |_| {});
        let file = &seen["messages"][0]["content"][0]["file"];
        assert_eq!(file["file_data"], "data:application/pdf;base64,JVBERi0=");
        let seen = translated(&asked, |settings| settings.documents = false);
        let text = seen["messages"][0]["content"].as_str().unwrap();
        assert!(text.starts_with("[the document was left out") && text.ends_with("look"), "{text}");
    }
}
