//! What an agent may ask of its host.
//!
//! A request type that this build does not know is not an error of the letter: it parses as
//! [`Request::Unsupported`] and is answered `refused: unsupported`, so that a newer runner degrades instead of
//! being cut off.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};
use serde_json::value::RawValue;

/// A request, by its `kind`.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Replace the group's `CLAUDE.md`.
    UpdatePersonality(UpdatePersonality),
    /// Ask the people of the turn's chat.
    AskPerson(AskPerson),
    /// Send a file of the workspace to the turn's chat.
    SendFile(SendFile),
    /// A kind that this build does not know. Its arguments are dropped unread.
    Unsupported {
        /// What was asked for, cut to 64 characters.
        kind: String,
    },
}

impl Request {
    /// The kind as it is written.
    pub fn kind(&self) -> &str {
        match self {
            Self::UpdatePersonality(_) => "update_personality",
            Self::AskPerson(_) => "ask_person",
            Self::SendFile(_) => "send_file",
            Self::Unsupported { kind } => kind,
        }
    }
}

/// Replaces the whole text of the group's `CLAUDE.md`. Answered with `{"sha256": …}` of the new text, or refused
/// when the file is no longer the one the agent read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePersonality {
    /// The new text, at most 64 KiB.
    pub text: String,
    /// The digest of the text it is based on, as `begin` or the last answer gave it; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_sha256: Option<String>,
}

/// Asks the people of the turn's chat and waits for an answer, for a day by default. Answered with [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskPerson {
    /// The question, Markdown, at most 4,000 characters.
    pub question: String,
    /// Answers to choose from, at most 9, each at most 200 characters; none for a free answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// Sends a file of the workspace to the turn's chat, in order with what else is said there. Answered with
/// `{"sha256": …, "bytes": …}` once the host has copied it: what was copied is what is sent, whatever happens to the
/// file afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendFile {
    /// Below `/workspace`: absolute, or relative to it. A regular file with one name, over no link.
    pub path: String,
    /// Markdown, at most 1,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// What it is called in the chat; the path's last part if this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What became of a question: the `result` of its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum Answer {
    /// Somebody answered.
    Answered {
        /// The words.
        text: String,
        /// `telegram:12345`
        from: String,
        /// The name shown in the chat.
        name: String,
    },
    /// Somebody wrote something else instead. A late answer comes as a message of its own.
    Pending,
    /// Nobody answered in time.
    Expired,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    kind: String,
    args: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { kind, args } = Parts::deserialize(deserializer)?;
        match kind.as_str() {
            "update_personality" => {
                serde_json::from_str(args.get()).map(Self::UpdatePersonality).map_err(de::Error::custom)
            }
            "ask_person" => serde_json::from_str(args.get()).map(Self::AskPerson).map_err(de::Error::custom),
            "send_file" => serde_json::from_str(args.get()).map(Self::SendFile).map_err(de::Error::custom),
            _ => Ok(Self::Unsupported { kind: kind.chars().take(64).collect() }),
        }
    }
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_struct("Request", 2)?;
        parts.serialize_field("kind", self.kind())?;
        match self {
            Self::UpdatePersonality(args) => parts.serialize_field("args", args)?,
            Self::AskPerson(args) => parts.serialize_field("args", args)?,
            Self::SendFile(args) => parts.serialize_field("args", args)?,
            Self::Unsupported { .. } => parts.serialize_field("args", &serde_json::Map::new())?,
        }
        parts.end()
    }
}

/// The same shape for the schema generator: serde's derive cannot say "any other kind".
#[derive(JsonSchema)]
#[serde(tag = "kind", content = "args", rename_all = "snake_case")]
#[expect(dead_code, reason = "read by the schema generator only")]
enum Known {
    /// Replace the group's `CLAUDE.md`.
    UpdatePersonality(UpdatePersonality),
    /// Ask the people of the turn's chat.
    AskPerson(AskPerson),
    /// Send a file of the workspace to the turn's chat.
    SendFile(SendFile),
}

impl JsonSchema for Request {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Request".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Known::json_schema(generator);
        schema.insert(
            "description".into(),
            "A request, by its kind. A kind that the host does not know is answered `refused: unsupported`."
                .into(),
        );
        schema
    }
}
