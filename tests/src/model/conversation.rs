//! A request's transcript, the same for both wires.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// The two wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI chat completions.
    OpenAi,
}

impl Wire {
    /// By its path.
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/messages" => Some(Self::Anthropic),
            "/v1/chat/completions" | "/chat/completions" => Some(Self::OpenAi),
            _ => None,
        }
    }
}

/// Who wrote an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The runner, for people and tools.
    User,
    /// The model.
    Assistant,
}

/// A part of an entry that rules and scripts look at.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Words.
    Text(String),
    /// A tool call.
    Call {
        /// Its id.
        id: String,
    },
    /// A tool's result.
    Result {
        /// The call's id.
        id: String,
        /// What the tool said.
        text: String,
    },
    /// Anything else.
    Other,
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who wrote it.
    pub role: Role,
    /// Its parts.
    pub parts: Vec<Part>,
    /// The content as it came.
    pub raw: Value,
}

impl Entry {
    /// The ids of its tool calls.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Call { id } => Some(id.as_str()),
            _ => None,
        })
    }

    /// Its tools' results: the call's id, and the words.
    pub fn results(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Result { id, text } => Some((id.as_str(), text.as_str())),
            _ => None,
        })
    }

    /// Its words.
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// One request's transcript.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// Which wire it came by.
    pub wire: Wire,
    /// The system prompt.
    pub system: String,
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
}

impl Conversation {
    /// Reads a request. What has no meaning here is kept as [`Part::Other`]: judging is the checks' business.
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

    /// What people wrote in the user's last entry that holds text.
    pub fn last_text(&self) -> String {
        let texts = self.entries.iter().rev().filter(|entry| entry.role == Role::User).map(Entry::text);
        texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// What tools said, in order.
    pub fn results(&self) -> Vec<String> {
        self.entries.iter().flat_map(Entry::results).map(|(_, text)| text.to_owned()).collect()
    }

    /// What tools said to the calls in the model's last entry.
    pub fn last_results(&self) -> Vec<String> {
        let last = self.entries.last().into_iter().flat_map(Entry::results);
        last.map(|(_, text)| text.to_owned()).collect()
    }

    /// Equal for equal transcripts.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for entry in &self.entries {
            entry.raw.to_string().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The text of a string, or of the text blocks of a list.
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

/// A chat's messages; results of tools and what the user says after them are one entry, as in the other wire.
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
