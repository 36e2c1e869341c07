//! The tools that the model is offered, and the parsing of its calls. [`crate::turn`] calls it.
//!
//! *Local* tools act inside the box: [`Toolbox`] runs them, and one that fails, hangs or panics still answers with
//! what happened and what to do. The other tools ask the host by a letter; [`crate::turn`] performs those. A new tool
//! is one file and a line in [`LOCAL`] or [`REQUESTS`].

pub mod ask_person;
mod background;
#[cfg(test)]
mod conformance;
mod edit_file;
pub mod file_access;
mod list_and_search;
mod memory;
mod output_limit;
mod react;
mod read_file;
mod run_command;
mod search_history;
mod send_file;
mod shell_detect;
mod tasks;
mod update_personality;
mod write_file;

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use ipc_schema::letters::Request;
use ipc_schema::letters::to_agent::{Begin, Limits};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use memory::MemoryContext;
pub use run_command::{Ended, StartError, ending};
pub use shell_detect::Shell;

use crate::box_paths::BoxPaths;
use crate::transcript::ShownFile;

/// Added to a tool's own time limit for the deadline in status letters.
pub const TIME_LIMIT_MARGIN: Duration = Duration::from_secs(30);

/// The result of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub text: String,
    pub is_error: bool,
    /// A file that the model sees with the text.
    pub shown: Option<ShownFile>,
}

impl Output {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: false, shown: None }
    }

    /// The text says what happened and what to do.
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::ok(text) }
    }
}

/// A call of the model, parsed.
#[derive(Debug)]
pub enum Call {
    Local(Box<dyn LocalCall>),
    SendMessage(SendMessage),
    /// A request of the host.
    Ask(Box<Request>),
}

/// A parsed call of a local tool: the arguments, which know how to act.
pub trait LocalCall: Debug + Send {
    /// One line for a person: the command or the path of the call.
    fn detail(&self) -> String;

    /// The command line, for the tool policy.
    fn command(&self) -> Option<&str> {
        None
    }

    fn time_limit(&self, limits: &Limits) -> Duration {
        Duration::from_secs(limits.command_s.into())
    }

    /// Acts. Dropping the future kills a command with its process group; a file tool ends on its thread unseen.
    fn run(self: Box<Self>, toolbox: &Toolbox) -> Running<'_>;
}

/// The work of a local tool.
pub type Running<'a> = Pin<Box<dyn Future<Output = Output> + 'a>>;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Markdown.
    pub text: String,
}

/// The tool that sends an interim reply.
pub const SEND_MESSAGE: &str = "send_message";

/// Whether a call of this tool goes to the host by a letter. Such a call can be repeated after a crash. A local one
/// cannot, because nobody knows how far it came.
pub fn is_by_letter(name: &str) -> bool {
    name == SEND_MESSAGE || request_tool(name).is_some()
}

impl Call {
    /// Parses a call: the tool's name and its arguments as JSON.
    ///
    /// # Errors
    /// For an unknown tool or invalid arguments: what the model should correct.
    pub fn parse(name: &str, input: &str) -> Result<Self, String> {
        if name == SEND_MESSAGE {
            return args(name, input).map(Self::SendMessage);
        }
        if let Some(tool) = LOCAL.iter().find(|tool| tool.definition.name == name) {
            return (tool.read)(input).map(Self::Local);
        }
        let Some(tool) = request_tool(name) else {
            let known: Vec<_> = all_definitions().map(|tool| tool.name).collect();
            return Err(format!("there is no tool {name:?}; there are: {}", known.join(", ")));
        };
        (tool.read)(input).map(Box::new).map(Self::Ask)
    }

    /// The command line of `run_command`, for the tool policy.
    pub fn command(&self) -> Option<&str> {
        match self {
            Self::Local(call) => call.command(),
            _ => None,
        }
    }
}

/// The longest detail of a status letter, in characters.
const DETAIL_MAX: usize = 200;

/// A text for the detail of a status letter.
pub fn one_line(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= DETAIL_MAX {
        return line;
    }
    line.chars().take(DETAIL_MAX - 1).chain(['…']).collect()
}

fn args<'a, T: Deserialize<'a>>(name: &str, input: &'a str) -> Result<T, String> {
    // Serde would take a list as the fields in order.
    if !input.trim_start().starts_with('{') {
        return Err(format!("the arguments of {name} do not fit: they are no JSON object"));
    }
    serde_json::from_str(input).map_err(|e| format!("the arguments of {name} do not fit: {e}"))
}

/// Runs local tools.
#[derive(Debug)]
pub struct Toolbox {
    paths: BoxPaths,
    shell: Option<Shell>,
    limits: Limits,
    /// What the memory's tools know of the turn. [`crate::turn`] sets it before each call.
    pub memory: MemoryContext,
    jobs: background::Jobs,
}

impl Toolbox {
    pub fn new(paths: BoxPaths, shell: Option<Shell>, limits: Limits) -> Self {
        Self { paths, shell, limits, memory: MemoryContext::default(), jobs: background::Jobs::default() }
    }

    pub fn shell(&self) -> Option<&Shell> {
        self.shell.as_ref()
    }

    pub fn paths(&self) -> &BoxPaths {
        &self.paths
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs a gate script as `run_command` runs a command without options. Dropping the future kills it.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn run_script(&self, script: String) -> Result<Ended, StartError> {
        let args = run_command::Args::plain(script);
        run_command::run_to_end(&self.paths, self.shell.as_ref(), &self.limits, &args).await
    }

    /// The time limit of a gate script.
    pub fn script_limit(&self) -> Duration {
        run_command::time_limit(&run_command::Args::plain(String::new()), &self.limits)
    }

    /// File tools run on a thread of their own, because letters must not wait for a slow filesystem.
    async fn blocking<F>(&self, work: F) -> Output
    where
        F: FnOnce(&BoxPaths, &file_access::Stop) -> Result<Output, String> + Send + 'static,
    {
        let paths = self.paths.clone();
        let stop = file_access::Stop::default();
        let _on_drop = stop.guard();
        let theirs = stop.clone();
        let limit = Duration::from_secs(self.limits.command_s.into());
        match tokio::time::timeout(limit, tokio::task::spawn_blocking(move || work(&paths, &theirs))).await {
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

/// What the model is told of a tool.
#[derive(Debug)]
struct Definition {
    name: &'static str,
    about: &'static str,
    properties: fn() -> Value,
    required: &'static [&'static str],
}

const fn define(
    name: &'static str,
    about: &'static str,
    properties: fn() -> Value,
    required: &'static [&'static str],
) -> Definition {
    Definition { name, about, properties, required }
}

/// A tool that acts inside the box.
#[derive(Debug)]
struct LocalTool {
    definition: Definition,
    /// Reads the arguments of a call.
    read: fn(&str) -> Result<Box<dyn LocalCall>, String>,
}

/// The arguments of a call of `name` as the call of a local tool.
fn local<T: LocalCall + DeserializeOwned + 'static>(
    name: &str,
    input: &str,
) -> Result<Box<dyn LocalCall>, String> {
    args::<T>(name, input).map(|args| Box::new(args) as Box<dyn LocalCall>)
}

static LOCAL: &[&LocalTool] = &[
    &run_command::TOOL,
    &background::READ,
    &background::STOP,
    &read_file::TOOL,
    &write_file::TOOL,
    &edit_file::TOOL,
    &list_and_search::LIST,
    &list_and_search::SEARCH,
    &memory::SAVE,
    &memory::SEARCH,
    &memory::LIST,
    &memory::FORGET,
    &memory::LOG,
];

static SEND: Definition = define(
    SEND_MESSAGE,
    "Posts an interim reply to the chat of this turn, now. Your final answer is posted by itself; do not repeat it here.",
    || json!({ "text": { "type": "string", "description": "Markdown" } }),
    &["text"],
);

/// A tool whose calls become requests of the host. Its name is the request's kind.
#[derive(Debug)]
struct RequestTool {
    definition: Definition,
    /// Whether it is of use only in a chat that takes files.
    needs_files: bool,
    /// Reads the arguments of a call.
    read: fn(&str) -> Result<Request, String>,
    /// Says the host's answer in words.
    told: fn(&Value) -> Output,
}

static REQUESTS: &[&RequestTool] = &[
    &update_personality::TOOL,
    &ask_person::TOOL,
    &send_file::TOOL,
    &tasks::SCHEDULE,
    &tasks::LIST,
    &tasks::UPDATE,
    &tasks::PAUSE,
    &tasks::RESUME,
    &tasks::CANCEL,
    &tasks::HISTORY,
    &tasks::REMIND,
    &search_history::TOOL,
    &react::TOOL,
];

fn request_tool(name: &str) -> Option<&'static RequestTool> {
    REQUESTS.iter().find(|tool| tool.definition.name == name).copied()
}

fn all_definitions() -> impl Iterator<Item = &'static Definition> {
    let local = LOCAL.iter().map(|tool| &tool.definition);
    local.chain([&SEND]).chain(REQUESTS.iter().map(|tool| &tool.definition))
}

/// The request, if a letter can carry it and the host can take it.
///
/// # Errors
/// What the model can do about it.
pub fn checked(request: Request) -> Result<Request, String> {
    if serde_json::to_value(&request).is_ok_and(|value| holds_control_characters(&value)) {
        return Err("an argument holds control characters; leave them out".into());
    }
    request.check().map(|()| request).map_err(|refusal| refusal.reason)
}

fn holds_control_characters(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')),
        Value::Array(values) => values.iter().any(holds_control_characters),
        Value::Object(fields) => fields.values().any(holds_control_characters),
        _ => false,
    }
}

/// What the host answered to a request, for the model.
pub fn told(request: &Request, result: &Value) -> Output {
    request_tool(request.kind()).map_or_else(|| Output::ok(result.to_string()), |tool| (tool.told)(result))
}

/// The `tools` of a request. Files are offered where the chat takes them.
pub fn definitions(files: bool) -> Value {
    let hidden = |name: &str| !files && request_tool(name).is_some_and(|tool| tool.needs_files);
    let tools = all_definitions().filter(|tool| !hidden(tool.name)).map(|tool| {
        json!({
            "name": tool.name,
            "description": tool.about,
            "input_schema": {
                "type": "object",
                "properties": (tool.properties)(),
                "required": tool.required,
                "additionalProperties": false,
            },
        })
    });
    Value::Array(tools.collect())
}

/// The `tools` of the requests of a run.
pub fn offered(begin: &Begin) -> Value {
    let mut tools = definitions(begin.files);
    if let Some(tools) = tools.as_array_mut() {
        tools.retain(|tool| begin.reactions || tool["name"] != react::NAME);
    }
    tools
}

#[cfg(test)]
mod tests {
    use ipc_schema::requests::{AskPerson, SendFile};

    use super::*;
    use crate::tool_policy::RUN_COMMAND;

    #[test]
    fn the_owner_can_write_rules_for_exactly_these_tools() {
        let mut names: Vec<_> = all_definitions().map(|tool| tool.name).collect();
        let mut known = ipc_schema::names_and_paths::TOOLS.to_vec();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn every_tool_that_is_offered_is_understood() {
        for tool in definitions(true).as_array().unwrap() {
            let name = tool["name"].as_str().unwrap();
            let schema = &tool["input_schema"];
            let value = |key: &str| match schema["properties"][key]["type"].as_str() {
                Some("integer") => json!(1),
                _ => json!("x"),
            };
            let required = schema["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap());
            let input: serde_json::Map<_, _> = required.map(|key| (key.to_owned(), value(key))).collect();
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
                        "string" if schema.get("pattern").is_some() => json!("m-1"),
                        "string" => schema.get("enum").map_or(json!("x"), |words| words[0].clone()),
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
    fn reactions_are_offered_where_the_chat_has_them() {
        let offers = |reactions| {
            let begin = Begin { reactions, ..crate::tests_support::host::begin() };
            offered(&begin).as_array().unwrap().iter().any(|tool| tool["name"] == "react")
        };
        assert!(offers(true) && !offers(false));
    }

    #[test]
    fn what_no_letter_carries_is_told_before_it_is_asked() {
        let file = |path: &str, caption: &str| {
            checked(SendFile { path: path.into(), caption: Some(caption.into()), name: None }.into())
        };
        assert!(file("a b/ü.pdf", "one\ntwo").is_ok());
        assert!(file("a\u{1b}[31m", "").unwrap_err().contains("control"));
        assert!(file("a", &"x".repeat(1_001)).unwrap_err().contains("1,000"));
        let choices = vec!["\u{7}".to_owned()];
        assert!(checked(AskPerson { question: "Go?".into(), choices }.into()).is_err());
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
        let Ok(Call::Local(call)) = Call::parse(RUN_COMMAND, &input) else { panic!() };
        let detail = call.detail();
        assert_eq!(detail.chars().count(), 200);
        assert!(detail.starts_with("echo a ä") && detail.ends_with('…'));
    }

    #[tokio::test]
    async fn a_tool_that_panics_is_an_answer() {
        let box_ = crate::tests_support::toolbox();
        let output = box_.blocking(|_, _| panic!("on purpose")).await;
        assert!(output.is_error);
    }
}
