//! A request's transcript, with the same type for both wires.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Anthropic,
    OpenAi,
}

impl Wire {
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/messages" => Some(Self::Anthropic),
            "/v1/chat/completions" | "/chat/completions" => Some(Self::OpenAi),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The runner, for people and tools.
    User,
    Assistant,
}

/// A part of an entry, as far as rules and scripts need it.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Text(String),
    Call {
        id: String,
    },
    Result {
        /// The id of the tool call.
        id: String,
        text: String,
    },
    /// Every other kind of part.
    Other,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub role: Role,
    pub parts: Vec<Part>,
    /// The content as the request had it.
    pub raw: Value,
}

impl Entry {
    /// Returns the ids of its tool calls.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Call { id } => Some(id.as_str()),
            _ => None,
        })
    }

    /// Returns the results of its tools: the call's id, and the text.
    pub fn results(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Result { id, text } => Some((id.as_str(), text.as_str())),
            _ => None,
        })
    }

    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// The transcript of one request.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub wire: Wire,
    pub system: String,
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
}

impl Conversation {
    /// Reads a request. A part of an unknown kind becomes [`Part::Other`]; the checks judge it.
    pub fn read(wire: Wire, body: &Value) -> Self {
        let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        match wire {
            Wire::Anthropic => Self {
                wire,
                system: text_of(&body["system"]),
                entries: messages.iter().map(anthropic_entry).collect(),
            },
            Wire::OpenAi => openai(messages),
        }
    }

    /// Returns the text of the user's last entry that holds text.
    pub fn last_text(&self) -> String {
        let texts = self.entries.iter().rev().filter(|entry| entry.role == Role::User).map(Entry::text);
        texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// Returns the results of all tools, in order.
    pub fn results(&self) -> Vec<String> {
        self.entries.iter().flat_map(Entry::results).map(|(_, text)| text.to_owned()).collect()
    }

    /// Returns the results of the calls in the model's last entry.
    pub fn last_results(&self) -> Vec<String> {
        let last = self.entries.last().into_iter().flat_map(Entry::results);
        last.map(|(_, text)| text.to_owned()).collect()
    }

    /// Returns a hash that is equal for equal transcripts.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for entry in &self.entries {
            entry.raw.to_string().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Returns the text of a string, or of the text blocks of a list.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn anthropic_entry(message: &Value) -> Entry {
    let role = if message["role"] == "assistant" { Role::Assistant } else { Role::User };
    let content = &message["content"];
    let parts = match content {
        Value::Array(blocks) => blocks.iter().map(anthropic_part).collect(),
        _ => vec![Part::Text(text_of(content))],
    };
    Entry { role, parts, raw: content.clone() }
}

fn anthropic_part(block: &Value) -> Part {
    match block["type"].as_str() {
        Some("text") => Part::Text(string(&block["text"])),
        Some("tool_use") => Part::Call { id: string(&block["id"]) },
        Some("tool_result") => {
            Part::Result { id: string(&block["tool_use_id"]), text: text_of(&block["content"]) }
        }
        _ => Part::Other,
    }
}

/// Reads the messages of chat completions. The results of tools and the user's next text become one entry, as in the
/// other wire.
fn openai(messages: &[Value]) -> Conversation {
    let mut conversation = Conversation { wire: Wire::OpenAi, system: String::new(), entries: Vec::new() };
    for message in messages {
        let text = text_of(&message["content"]);
        let (role, mut parts) = match message["role"].as_str() {
            Some("system" | "developer") => {
                conversation.system = text;
                continue;
            }
            Some("tool") => (Role::User, vec![Part::Result { id: string(&message["tool_call_id"]), text }]),
            Some("assistant") => (Role::Assistant, openai_answer(message, text)),
            _ => (Role::User, vec![Part::Text(text)]),
        };
        match conversation.entries.last_mut() {
            Some(last) if last.role == Role::User && role == Role::User => {
                last.parts.append(&mut parts);
                last.raw = Value::String(format!("{}{message}", last.raw));
            }
            _ => conversation.entries.push(Entry { role, parts, raw: message.clone() }),
        }
    }
    conversation
}

fn openai_answer(message: &Value, text: String) -> Vec<Part> {
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let mut parts: Vec<Part> = calls.map(|call| Part::Call { id: string(&call["id"]) }).collect();
    if !text.is_empty() {
        parts.insert(0, Part::Text(text));
    }
    parts
}
