//! The tools that the model is offered, and the parsing of its calls. [`crate::turn`] calls it.
//!
//! *Local* tools act inside the box: [`Toolbox`] runs them, and one that fails, hangs or panics still answers with
//! what happened and what to do. The other tools ask the host by a letter; [`crate::turn`] performs those. A new tool
//! needs a line in [`DEFINED`] and an arm in [`Call::parse`].

mod edit_file;
mod file_access;
mod list_and_search;
mod output_limit;
mod read_file;
mod run_command;
mod send_file;
mod shell_detect;
mod write_file;

use std::time::Duration;

use ipc_schema::letters::Request;
use ipc_schema::letters::request::{AskPerson, SendFile, UpdatePersonality};
use ipc_schema::letters::to_agent::Limits;
use serde::Deserialize;
use serde_json::{Value, json};

pub use send_file::told as file_sent;
pub use shell_detect::Shell;

use crate::box_paths::BoxPaths;
use crate::tool_policy::RUN_COMMAND;

/// Added to a tool's own time limit for the deadline in status letters.
pub const TIME_LIMIT_MARGIN: Duration = Duration::from_secs(30);

/// The result of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub text: String,
    pub is_error: bool,
}

impl Output {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: false }
    }

    /// The text says what happened and what to do.
    pub fn error(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: true }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Local(LocalCall),
    SendMessage(SendMessage),
    Ask(HostRequest),
}

/// A call that becomes a request to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRequest {
    Personality(NewPersonality),
    Person(AskPerson),
    File(SendFile),
}

impl HostRequest {
    /// The wire request. `base_sha256` is the digest of the personality that a new one replaces.
    ///
    /// # Errors
    /// For arguments that no letter can carry or the host would refuse: what to do.
    pub fn request(self, base_sha256: Option<String>) -> Result<Request, String> {
        match self {
            Self::Personality(text) => text.request(base_sha256).map(Request::UpdatePersonality),
            Self::Person(question) => checked(question).map(Request::AskPerson),
            Self::File(file) => send_file::checked(file).map(Request::SendFile),
        }
    }
}

fn checked(ask: AskPerson) -> Result<AskPerson, String> {
    let texts = || ask.choices.iter().chain([&ask.question]);
    if texts().any(|text| text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'))) {
        return Err("the question holds control characters; leave them out".into());
    }
    if texts().any(|text| text.trim().is_empty()) {
        return Err("the question, or one of its choices, is empty".into());
    }
    if ask.question.chars().count() > 4_000 || ask.choices.len() > 9 {
        return Err("at most 4,000 characters and 9 choices; ask shorter".into());
    }
    if ask.choices.iter().any(|choice| choice.chars().count() > 200) {
        return Err("a choice has at most 200 characters; explain it in the question".into());
    }
    Ok(ask)
}

#[derive(Debug, Clone, PartialEq)]
pub enum LocalCall {
    Run(run_command::Args),
    Read(read_file::Args),
    Write(write_file::Args),
    Edit(edit_file::Args),
    List(list_and_search::ListArgs),
    Search(list_and_search::SearchArgs),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Markdown.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPersonality {
    /// The complete new text.
    pub text: String,
}

impl NewPersonality {
    const MAX_BYTES: usize = 64 * 1024;

    /// The wire request. `base_sha256` is the digest of the personality that this one replaces.
    ///
    /// # Errors
    /// For a text that is too long or holds control characters: what to do.
    pub fn request(self, base_sha256: Option<String>) -> Result<UpdatePersonality, String> {
        if self.text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            return Err("the text holds control characters; leave them out".into());
        }
        let bytes = self.text.len();
        if bytes > Self::MAX_BYTES {
            return Err(format!(
                "{bytes} bytes; at most {}. Shorten it, or keep details in a file.",
                Self::MAX_BYTES
            ));
        }
        Ok(UpdatePersonality { text: self.text, base_sha256 })
    }
}

pub const SEND_MESSAGE: &str = "send_message";
pub const UPDATE_PERSONALITY: &str = "update_personality";
pub const ASK_PERSON: &str = "ask_person";

/// Whether a call of this tool goes to the host by a letter. Such a call can be repeated after a crash. A local one
/// cannot, because nobody knows how far it came.
pub fn is_by_letter(name: &str) -> bool {
    matches!(name, SEND_MESSAGE | UPDATE_PERSONALITY | ASK_PERSON | send_file::NAME)
}

impl Call {
    /// Parses a call: the tool's name and its arguments as JSON.
    ///
    /// # Errors
    /// For an unknown tool or invalid arguments: what the model should correct.
    pub fn parse(name: &str, input: &str) -> Result<Self, String> {
        Ok(match name {
            RUN_COMMAND => Self::Local(LocalCall::Run(args(name, input)?)),
            "read_file" => Self::Local(LocalCall::Read(args(name, input)?)),
            "write_file" => Self::Local(LocalCall::Write(args(name, input)?)),
            "edit_file" => Self::Local(LocalCall::Edit(args(name, input)?)),
            "list_files" => Self::Local(LocalCall::List(args(name, input)?)),
            "search_files" => Self::Local(LocalCall::Search(args(name, input)?)),
            SEND_MESSAGE => Self::SendMessage(args(name, input)?),
            UPDATE_PERSONALITY => Self::Ask(HostRequest::Personality(args(name, input)?)),
            ASK_PERSON => Self::Ask(HostRequest::Person(args(name, input)?)),
            send_file::NAME => Self::Ask(HostRequest::File(args(name, input)?)),
            _ => {
                let known: Vec<_> = DEFINED.iter().map(|tool| tool.0).collect();
                return Err(format!("there is no tool {name:?}; there are: {}", known.join(", ")));
            }
        })
    }

    /// The command line of `run_command`, for the tool policy.
    pub fn command(&self) -> Option<&str> {
        match self {
            Self::Local(LocalCall::Run(args)) => Some(&args.command),
            _ => None,
        }
    }

    /// One line for a person: the command, path or text of the call.
    pub fn detail(&self) -> String {
        let text = match self {
            Self::Local(LocalCall::Run(args)) => &args.command,
            Self::Local(LocalCall::Read(args)) => &args.path,
            Self::Local(LocalCall::Write(args)) => &args.path,
            Self::Local(LocalCall::Edit(args)) => &args.path,
            Self::Local(LocalCall::List(args)) => args.path.as_deref().unwrap_or("."),
            Self::Local(LocalCall::Search(args)) => &args.pattern,
            Self::SendMessage(SendMessage { text })
            | Self::Ask(HostRequest::Personality(NewPersonality { text })) => text,
            Self::Ask(HostRequest::Person(ask)) => &ask.question,
            Self::Ask(HostRequest::File(file)) => &file.path,
        };
        one_line(text)
    }
}

/// The longest detail of a status letter, in characters.
const DETAIL_MAX: usize = 200;

fn one_line(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= DETAIL_MAX {
        return line;
    }
    line.chars().take(DETAIL_MAX - 1).chain(['…']).collect()
}

fn args<'a, T: Deserialize<'a>>(name: &str, input: &'a str) -> Result<T, String> {
    serde_json::from_str(input).map_err(|e| format!("the arguments of {name} do not fit: {e}"))
}

/// Runs local tools.
#[derive(Debug)]
pub struct Toolbox {
    paths: BoxPaths,
    shell: Option<Shell>,
    limits: Limits,
}

impl Toolbox {
    pub fn new(paths: BoxPaths, shell: Option<Shell>, limits: Limits) -> Self {
        Self { paths, shell, limits }
    }

    pub fn shell(&self) -> Option<&Shell> {
        self.shell.as_ref()
    }

    /// The time limit of a call.
    pub fn time_limit(&self, call: &LocalCall) -> Duration {
        match call {
            LocalCall::Run(args) => run_command::time_limit(args, &self.limits),
            _ => self.file_tool_limit(),
        }
    }

    /// Runs a call. Dropping the future kills a command with its process group; a file tool ends on its thread
    /// unseen.
    pub async fn run(&self, call: LocalCall) -> Output {
        let paths = self.paths.clone();
        match call {
            LocalCall::Run(args) => run_command::run(&paths, self.shell.as_ref(), &self.limits, args).await,
            LocalCall::Read(args) => self.blocking(move |_| read_file::run(&paths, &args)).await,
            LocalCall::Write(args) => self.blocking(move |_| write_file::run(&paths, &args)).await,
            LocalCall::Edit(args) => self.blocking(move |_| edit_file::run(&paths, &args)).await,
            LocalCall::List(args) => {
                self.blocking(move |stop| list_and_search::list(&paths, &args, stop)).await
            }
            LocalCall::Search(args) => {
                self.blocking(move |stop| list_and_search::search(&paths, &args, stop)).await
            }
        }
    }

    fn file_tool_limit(&self) -> Duration {
        Duration::from_secs(self.limits.command_s.into())
    }

    /// File tools run on a thread of their own, because letters must not wait for a slow filesystem.
    async fn blocking<F>(&self, work: F) -> Output
    where
        F: FnOnce(&file_access::Stop) -> Result<Output, String> + Send + 'static,
    {
        let stop = file_access::Stop::default();
        let _on_drop = stop.guard();
        let theirs = stop.clone();
        let limit = self.file_tool_limit();
        match tokio::time::timeout(limit, tokio::task::spawn_blocking(move || work(&theirs))).await {
            Ok(Ok(Ok(output))) => output,
            Ok(Ok(Err(problem))) => Output::error(problem),
            // Only where a panic unwinds. The release build aborts, and the next run answers the call with
            // "interrupted".
            Ok(Err(_)) => Output::error("the tool broke down inside; try run_command for the same work"),
            Err(_) => Output::error(format!(
                "no end after {} s; narrow it down to a smaller directory, or use run_command",
                limit.as_secs()
            )),
        }
    }
}

/// Name, description, properties of the arguments, required arguments.
type Definition = (&'static str, &'static str, fn() -> Value, &'static [&'static str]);

const DEFINED: [Definition; 10] = [
    (RUN_COMMAND, run_command::ABOUT, run_command::properties, &["command"]),
    ("read_file", read_file::ABOUT, read_file::properties, &["path"]),
    ("write_file", write_file::ABOUT, write_file::properties, &["path", "content"]),
    ("edit_file", edit_file::ABOUT, edit_file::properties, &["path", "old", "new"]),
    ("list_files", list_and_search::LIST_ABOUT, list_and_search::list_properties, &[]),
    ("search_files", list_and_search::SEARCH_ABOUT, list_and_search::search_properties, &["pattern"]),
    (
        SEND_MESSAGE,
        "Posts an interim reply to the chat of this turn, now. Your final answer is posted by itself; do not repeat it here.",
        || json!({ "text": { "type": "string", "description": "Markdown" } }),
        &["text"],
    ),
    (
        UPDATE_PERSONALITY,
        "Replaces the whole text that stands under \"This group\" in your instructions, from the next turn on. Give the complete new text: what you leave out is gone. The host keeps the previous one and may refuse.",
        || json!({ "text": { "type": "string", "description": "the complete new text, Markdown, at most 64 KiB" } }),
        &["text"],
    ),
    (
        ASK_PERSON,
        "Asks the people of this chat one question and waits for the answer, for up to a day. Use it only when you cannot go on without them. What else they write instead arrives as the next message.",
        || {
            json!({
                "question": { "type": "string", "description": "Markdown, at most 4,000 characters" },
                "choices": {
                    "type": "array",
                    "items": { "type": "string" },
                    "description": "answers to choose from, at most 9; leave it out for a free answer",
                },
            })
        },
        &["question"],
    ),
    (send_file::NAME, send_file::ABOUT, send_file::properties, &["path"]),
];

/// The `tools` of an API request. `files` says whether the chat accepts files.
pub fn definitions(files: bool) -> Value {
    let offered = DEFINED.iter().filter(|tool| files || tool.0 != send_file::NAME);
    let tools = offered.map(|(name, about, properties, required)| {
        json!({
            "name": name,
            "description": about,
            "input_schema": {
                "type": "object",
                "properties": properties(),
                "required": required,
                "additionalProperties": false,
            },
        })
    });
    Value::Array(tools.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_that_is_offered_is_understood() {
        for tool in definitions(true).as_array().unwrap() {
            let name = tool["name"].as_str().unwrap();
            let required = tool["input_schema"]["required"].as_array().unwrap();
            let input: serde_json::Map<_, _> =
                required.iter().map(|key| (key.as_str().unwrap().to_owned(), json!("x"))).collect();
            let call = Call::parse(name, &Value::Object(input.clone()).to_string());
            assert!(call.is_ok(), "{name}: {call:?}");
            let mut more = input;
            more.insert("zzz".into(), json!(1));
            let refused = Call::parse(name, &Value::Object(more).to_string()).unwrap_err();
            assert!(refused.contains(name) && refused.contains("zzz"), "{refused}");
        }
    }

    #[test]
    fn every_property_that_is_offered_is_taken() {
        for tool in definitions(true).as_array().unwrap() {
            let properties = tool["input_schema"]["properties"].as_object().unwrap();
            let input: serde_json::Map<_, _> = properties
                .iter()
                .map(|(key, schema)| {
                    let value = match schema["type"].as_str().unwrap() {
                        "string" => json!("x"),
                        "integer" => json!(1),
                        "boolean" => json!(true),
                        "array" => json!(["x"]),
                        other => panic!("{other}"),
                    };
                    (key.clone(), value)
                })
                .collect();
            let name = tool["name"].as_str().unwrap();
            let call = Call::parse(name, &Value::Object(input).to_string());
            assert!(call.is_ok(), "{name}: {call:?}");
        }
    }

    #[test]
    fn files_are_offered_where_the_chat_takes_them() {
        let names = |files| {
            definitions(files).as_array().unwrap().iter().filter(|t| t["name"] == "send_file").count()
        };
        assert_eq!((names(true), names(false)), (1, 0));
    }

    #[test]
    fn an_unknown_tool_is_answered_with_the_known_ones() {
        let refused = Call::parse("open_door", "{}").unwrap_err();
        assert!(refused.contains("open_door") && refused.contains("run_command"));
    }

    #[test]
    fn a_detail_is_one_short_line() {
        let command = format!("echo a\n{}", "ä".repeat(300));
        let input = json!({ "command": command }).to_string();
        let detail = Call::parse(RUN_COMMAND, &input).unwrap().detail();
        assert_eq!(detail.chars().count(), 200);
        assert!(detail.starts_with("echo a ä") && detail.ends_with('…'));
    }

    #[tokio::test]
    async fn a_tool_that_panics_is_an_answer() {
        let box_ = crate::tests_support::toolbox();
        let output = box_.blocking(|_| panic!("on purpose")).await;
        assert!(output.is_error);
    }
}
