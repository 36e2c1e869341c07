//! The tools: what the model is offered, and what it meant by a call.
//!
//! Two kinds. *Local* tools act inside the box and are done by [`Toolbox`]; a local tool that fails, hangs or
//! panics answers with what happened and what to do instead. The others ask something of the host by a letter;
//! they are the turn's business, because letters are.

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

/// Above what a tool may take by itself, before a silence looks like a death.
pub const MARGIN: Duration = Duration::from_secs(30);

/// What a tool answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub text: String,
    pub is_error: bool,
}

impl Output {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: false }
    }

    /// It did not; the text says what to do.
    pub fn error(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: true }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Done inside the box.
    Local(Local),
    SendMessage(SendMessage),
    /// A request of the host.
    Ask(Wanted),
}

/// A call that becomes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `update_personality`
    Personality(NewPersonality),
    /// `ask_person`
    Person(AskPerson),
    /// `send_file`
    File(SendFile),
}

impl Wanted {
    /// The request; a personality is based on the text with this digest.
    ///
    /// # Errors
    /// What no letter carries or no host takes: what to do about it.
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

/// A call of a local tool.
#[derive(Debug, Clone, PartialEq)]
pub enum Local {
    /// `run_command`
    Run(run_command::Args),
    /// `read_file`
    Read(read_file::Args),
    /// `write_file`
    Write(write_file::Args),
    /// `edit_file`
    Edit(edit_file::Args),
    /// `list_files`
    List(list_and_search::ListArgs),
    /// `search_files`
    Search(list_and_search::SearchArgs),
}

/// `send_message`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Markdown.
    pub text: String,
}

/// `update_personality`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPersonality {
    /// The whole new text.
    pub text: String,
}

impl NewPersonality {
    const MAX_BYTES: usize = 64 * 1024;

    /// The request, based on the text with this digest.
    ///
    /// # Errors
    /// When the text is longer than the host takes, or holds what no letter carries: what to do about it.
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

/// The tool that sends an interim reply.
pub const SEND_MESSAGE: &str = "send_message";
/// The tool that asks for another personality.
pub const UPDATE_PERSONALITY: &str = "update_personality";
/// The tool that asks a person and waits.
pub const ASK_PERSON: &str = "ask_person";

/// Whether a call of this tool goes to the host by a letter. Such a call can be repeated after a crash; a local
/// one cannot, since nobody knows how far it came.
pub fn is_by_letter(name: &str) -> bool {
    matches!(name, SEND_MESSAGE | UPDATE_PERSONALITY | ASK_PERSON | send_file::NAME)
}

impl Call {
    /// Reads a call.
    ///
    /// # Errors
    /// For an unknown tool or arguments that do not fit: what the model should correct.
    pub fn parse(name: &str, input: &str) -> Result<Self, String> {
        Ok(match name {
            RUN_COMMAND => Self::Local(Local::Run(args(name, input)?)),
            "read_file" => Self::Local(Local::Read(args(name, input)?)),
            "write_file" => Self::Local(Local::Write(args(name, input)?)),
            "edit_file" => Self::Local(Local::Edit(args(name, input)?)),
            "list_files" => Self::Local(Local::List(args(name, input)?)),
            "search_files" => Self::Local(Local::Search(args(name, input)?)),
            SEND_MESSAGE => Self::SendMessage(args(name, input)?),
            UPDATE_PERSONALITY => Self::Ask(Wanted::Personality(args(name, input)?)),
            ASK_PERSON => Self::Ask(Wanted::Person(args(name, input)?)),
            send_file::NAME => Self::Ask(Wanted::File(args(name, input)?)),
            _ => {
                let known: Vec<_> = DEFINED.iter().map(|tool| tool.0).collect();
                return Err(format!("there is no tool {name:?}; there are: {}", known.join(", ")));
            }
        })
    }

    /// The command, for the policy.
    pub fn command(&self) -> Option<&str> {
        match self {
            Self::Local(Local::Run(args)) => Some(&args.command),
            _ => None,
        }
    }

    /// One line for a person: what it is about.
    pub fn detail(&self) -> String {
        let text = match self {
            Self::Local(Local::Run(args)) => &args.command,
            Self::Local(Local::Read(args)) => &args.path,
            Self::Local(Local::Write(args)) => &args.path,
            Self::Local(Local::Edit(args)) => &args.path,
            Self::Local(Local::List(args)) => args.path.as_deref().unwrap_or("."),
            Self::Local(Local::Search(args)) => &args.pattern,
            Self::SendMessage(SendMessage { text })
            | Self::Ask(Wanted::Personality(NewPersonality { text })) => text,
            Self::Ask(Wanted::Person(ask)) => &ask.question,
            Self::Ask(Wanted::File(file)) => &file.path,
        };
        one_line(text)
    }
}

/// The greatest length of a status letter's detail, in characters.
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

/// Does the local tools.
#[derive(Debug)]
pub struct Toolbox {
    paths: BoxPaths,
    shell: Option<Shell>,
    limits: Limits,
}

impl Toolbox {
    /// Tools for this box.
    pub fn new(paths: BoxPaths, shell: Option<Shell>, limits: Limits) -> Self {
        Self { paths, shell, limits }
    }

    /// The shell that commands run in.
    pub fn shell(&self) -> Option<&Shell> {
        self.shell.as_ref()
    }

    /// The longest that a call takes.
    pub fn patience(&self, call: &Local) -> Duration {
        match call {
            Local::Run(args) => run_command::time_limit(args, &self.limits),
            _ => self.file_tool_limit(),
        }
    }

    /// Does it. Dropping the future ends the command with its whole group, and leaves a file tool to end unseen.
    pub async fn run(&self, call: Local) -> Output {
        let paths = self.paths.clone();
        match call {
            Local::Run(args) => run_command::run(&paths, self.shell.as_ref(), &self.limits, args).await,
            Local::Read(args) => self.blocking(move |_| read_file::run(&paths, &args)).await,
            Local::Write(args) => self.blocking(move |_| write_file::run(&paths, &args)).await,
            Local::Edit(args) => self.blocking(move |_| edit_file::run(&paths, &args)).await,
            Local::List(args) => self.blocking(move |stop| list_and_search::list(&paths, &args, stop)).await,
            Local::Search(args) => {
                self.blocking(move |stop| list_and_search::search(&paths, &args, stop)).await
            }
        }
    }

    fn file_tool_limit(&self) -> Duration {
        Duration::from_secs(self.limits.command_s.into())
    }

    /// File tools run on a thread of their own: a filesystem may take its time, and letters must not wait for it.
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
            // Where a panic unwinds. The release build aborts instead, and the next run answers the call with
            // "interrupted".
            Ok(Err(_)) => Output::error("the tool broke down inside; try run_command for the same work"),
            Err(_) => Output::error(format!(
                "no end after {} s; narrow it down to a smaller directory, or use run_command",
                limit.as_secs()
            )),
        }
    }
}

/// Name, description, properties, required ones.
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

/// The `tools` of a request. Files are offered where the chat takes them.
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
