//! What an agent may ask of its host: one file per request or family of requests, with wire types and limits.
//!
//! The runner's tool and the host's action both take names, limits and checks from here, so that each is written once.
//! A kind that this build does not know is not an error of the letter: it parses as [`Request::Unsupported`], and the
//! host answers it with the code `unsupported`. So a newer runner can work with an older host.

mod ask_permission;
mod ask_person;
mod react;
mod search_history;
mod send_file;
pub mod tasks;
mod update_personality;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};
use serde_json::value::RawValue;

pub use ask_permission::Permission;
pub use ask_person::Answer;

use crate::Refusal;

/// The arguments of one kind of request.
pub trait RequestArgs: Into<Request> + Serialize + DeserializeOwned {
    /// The kind as it is written. The tool that makes the request has this name too.
    const KIND: &'static str;

    /// Holds the arguments against the limits of this kind.
    ///
    /// # Errors
    /// What is wrong, and what the agent can do about it.
    fn check(&self) -> Result<(), Refusal>;
}

/// Makes [`Request`] of the list of kinds.
macro_rules! requests {
    ($($(#[$about:meta])* $file:ident::$args:ident,)*) => {
        $(pub use $file::$args;)*

        /// A request, by its `kind`.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Request {
            $($(#[$about])* $args($args),)*
            /// A kind that this build does not know. Its arguments are dropped unread.
            Unsupported {
                /// The kind, cut to 64 characters.
                kind: String,
            },
        }

        $(impl From<$args> for Request {
            fn from(args: $args) -> Self {
                Self::$args(args)
            }
        })*

        impl Request {
            /// The kinds that this build knows.
            pub const KINDS: &[&str] = &[$($args::KIND),*];

            /// The kind as it is written.
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$args(_) => $args::KIND,)*
                    Self::Unsupported { kind } => kind,
                }
            }

            /// Holds the arguments against the limits of their kind.
            ///
            /// # Errors
            /// What is wrong, and what the agent can do about it.
            pub fn check(&self) -> Result<(), Refusal> {
                match self {
                    $(Self::$args(args) => args.check(),)*
                    Self::Unsupported { .. } => Ok(()),
                }
            }
        }

        impl<'de> Deserialize<'de> for Request {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let Parts { kind, args } = Parts::deserialize(deserializer)?;
                match kind.as_str() {
                    $($args::KIND => {
                        serde_json::from_str(args.get()).map(Self::$args).map_err(de::Error::custom)
                    })*
                    _ => Ok(Self::Unsupported { kind: kind.chars().take(64).collect() }),
                }
            }
        }

        impl Serialize for Request {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut parts = serializer.serialize_struct("Request", 2)?;
                parts.serialize_field("kind", self.kind())?;
                match self {
                    $(Self::$args(args) => parts.serialize_field("args", args)?,)*
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
            $($(#[$about])* $args($args),)*
        }
    };
}

requests! {
    /// Replace the group's `CLAUDE.md`.
    update_personality::UpdatePersonality,
    /// Ask the people of the turn's chat.
    ask_person::AskPerson,
    /// Send a file of the workspace to the turn's chat.
    send_file::SendFile,
    /// Make a scheduled task.
    tasks::ScheduleTask,
    /// List the scheduled tasks.
    tasks::ListTasks,
    /// Change a scheduled task.
    tasks::UpdateTask,
    /// Stop a task from firing.
    tasks::PauseTask,
    /// Let a paused task fire again.
    tasks::ResumeTask,
    /// End a task.
    tasks::CancelTask,
    /// Show what became of a task's fires.
    tasks::TaskHistory,
    /// Post a text later.
    tasks::Remind,
    /// Search the group's messages and replies.
    search_history::SearchHistory,
    /// React to a message with an emoji.
    react::React,
    /// Ask an owner to allow a tool call. Since minor version 2.
    ask_permission::AskPermission,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    kind: String,
    args: Box<RawValue>,
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

/// A limit as people write it: `4,000`.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_written_in_groups_of_three_digits() {
        let written: Vec<String> = [0, 200, 1_000, 65_536, 1_000_000].into_iter().map(grouped).collect();
        assert_eq!(written, ["0", "200", "1,000", "65,536", "1,000,000"]);
    }
}
