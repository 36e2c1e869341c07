//! A model that follows a script, inside the host (`kind = "demo"`): for people who have no key yet. The box, the tools
//! and the letters are real.
//!
//! It keeps nothing between calls: its next message follows from the transcript in the request alone, so a turn with it
//! can be interrupted, repeated and resumed as with any model.

use bytes::Bytes;
use serde_json::{Value, json};

use super::demo_plans::{self, Plan};
use super::openai_answer::{call_id, message_id};
use super::price::DEMO_MODEL;
use super::request::{Block, Entry, ModelRequest, Role, plain_text};
use super::token_meter::estimate;

/// Every final text begins with it, so that nobody takes the script for a model.
const LABEL: &str = "[demo model, no key set] ";

/// The longest quote of a tool's output.
const QUOTE_MAX_CHARS: usize = 1500;

/// One tool call of the open turn, with its result.
struct ToolOutcome {
    tool: String,
    output: String,
    failed: bool,
}

/// The next message: a tool call or the final text.
enum NextMessage {
    Call(&'static str, Value),
    Text(String),
}

/// Returns the next message, in the Messages wire.
pub fn answer(request: &ModelRequest<'_>, characters: usize) -> Bytes {
    let offered: Vec<_> = request.tools.iter().flatten().map(|tool| tool.name.read()).collect();
    let (input, done) = read_transcript(&request.messages);
    let offers = |tool: &str| offered.iter().any(|name| name == tool);
    let next = match input {
        Input::Fire { prompt, .. } if wants_note(&prompt) => note(&prompt, &done, &offers),
        Input::Fire { name, prompt } => NextMessage::Text(demo_plans::fired(&name, &prompt)),
        Input::Wish(wish) => match demo_plans::plan(&wish) {
            Some(plan) => planned(&plan, &done, &offers),
            None if wants_note(&wish) => note(&wish, &done, &offers),
            None => look_around(&wish, &done, &offers),
        },
    };
    let (content, reason) = match next {
        NextMessage::Call(name, input) => {
            (json!({ "type": "tool_use", "id": call_id(), "name": name, "input": input }), "tool_use")
        }
        NextMessage::Text(text) => (json!({ "type": "text", "text": format!("{LABEL}{text}") }), "end_turn"),
    };
    let message = json!({
        "id": message_id(), "type": "message", "role": "assistant", "model": DEMO_MODEL,
        "stop_reason": reason, "stop_sequence": null,
        "usage": { "input_tokens": estimate(characters), "output_tokens": estimate(content.to_string().len()) },
        "content": [content],
    });
    Bytes::from(message.to_string())
}

/// What a turn is about.
enum Input {
    /// A person's last message.
    Wish(String),
    /// A planned task that nobody wrote beside.
    Fire { name: String, prompt: String },
}

/// Returns what the turn is about and the tool calls since.
fn read_transcript(entries: &[Entry<'_>]) -> (Input, Vec<ToolOutcome>) {
    let spoke = |entry: &Entry<'_>| entry.role == Role::User && !plain_text(&entry.content.blocks).is_empty();
    let Some(at) = entries.iter().rposition(spoke) else { return (Input::Wish(String::new()), Vec::new()) };
    let input = last_input(&plain_text(&entries[at].content.blocks));
    let mut called: Vec<(&str, &str)> = Vec::new();
    let mut done = Vec::new();
    for block in entries[at + 1..].iter().flat_map(|entry| &entry.content.blocks) {
        match block {
            Block::ToolUse { id, name, .. } => called.push((&**id, &**name)),
            Block::ToolResult { tool_use_id, is_error, content, .. } => {
                let tool = called
                    .iter()
                    .find(|(call, _)| *call == &**tool_use_id)
                    .map(|(_, name)| (*name).to_owned());
                done.extend(tool.map(|tool| ToolOutcome {
                    tool,
                    output: content.as_ref().map(|content| plain_text(&content.blocks)).unwrap_or_default(),
                    failed: *is_error,
                }));
            }
            _ => {}
        }
    }
    (input, done)
}

/// Returns the text in the last `<message …>` frame, else the task in a `<task …>` frame, else all of the text.
fn last_input(text: &str) -> Input {
    if let Some((_, wish)) = last_frame(text, "message") {
        return Input::Wish(plain(wish));
    }
    match last_frame(text, "task") {
        Some((attributes, prompt)) => {
            let name = attributes.split_once(" name=\"").and_then(|(_, rest)| rest.split('"').next());
            Input::Fire { name: plain(name.unwrap_or_default()), prompt: plain(prompt) }
        }
        None => Input::Wish(plain(text)),
    }
}

/// Returns the attributes and the content of the last frame with this tag.
fn last_frame<'a>(text: &'a str, tag: &str) -> Option<(&'a str, &'a str)> {
    let frame = &text[text.rfind(&format!("<{tag} "))?..];
    let (attributes, inner) = frame.split_once('>')?;
    Some((attributes, inner.get(..inner.find(&format!("</{tag}>"))?)?))
}

fn plain(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    text.trim().to_owned()
}

/// Asks the host for the reminder or the task, and says what its verdict says.
fn planned(plan: &Plan, done: &[ToolOutcome], offers: &dyn Fn(&str) -> bool) -> NextMessage {
    let (tool, input) = plan.request();
    match done.iter().find(|done| done.tool == tool) {
        None if offers(tool) => NextMessage::Call(tool, input),
        None => {
            NextMessage::Text(format!("I would plan this with `{tool}` now, but that tool is not offered."))
        }
        Some(told) if told.failed => NextMessage::Text(format!(
            "I tried to plan this with `{tool}`, and was told:\n\n{}",
            fenced(&told.output)
        )),
        Some(told) => NextMessage::Text(plan.verdict(&told.output)),
    }
}

fn wants_note(wish: &str) -> bool {
    wish.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(|word| word == "note")
}

/// Writes the note, lists the files, and quotes the listing.
fn note(wish: &str, done: &[ToolOutcome], offers: &dyn Fn(&str) -> bool) -> NextMessage {
    let content = note_text(wish);
    let path = format!("notes/{}.md", slug(&content));
    let Some(written) = done.iter().find(|done| done.tool == "write_file") else {
        return match offers("write_file") {
            true => {
                NextMessage::Call("write_file", json!({ "path": path, "content": format!("{content}\n") }))
            }
            false => NextMessage::Text("I would write a note now, but no tool for it is offered.".to_owned()),
        };
    };
    if written.failed {
        return NextMessage::Text(format!(
            "I tried to write `{path}`, and was told:\n\n{}",
            fenced(&written.output)
        ));
    }
    let command = "ls -la notes";
    match listing(done, command, "notes", offers) {
        Ok(call) => call,
        Err(Some(seen)) => NextMessage::Text(format!(
            "I wrote `{path}` in my box. {}\n\n{}",
            seen_by(seen, command),
            fenced(&seen.output)
        )),
        Err(None) => {
            NextMessage::Text(format!("I wrote `{path}` in my box. No tool to list files with is offered."))
        }
    }
}

/// Runs one command and quotes its output.
fn look_around(wish: &str, done: &[ToolOutcome], offers: &dyn Fn(&str) -> bool) -> NextMessage {
    let command = "uname -sr; id -u; pwd";
    match listing(done, command, ".", offers) {
        Ok(call) => call,
        Err(None) => NextMessage::Text(format!(
            "You wrote {:?}. I follow a script and cannot answer that; set a key, and a model will.",
            shortened(wish, 200)
        )),
        Err(Some(seen)) if seen.tool == "run_command" && !seen.failed => {
            let lines: Vec<&str> =
                seen.output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            NextMessage::Text(format!(
                "I am in a box of my own and ran `{command}` there, which answered: {}. I follow a script, so try \
                 \"make a note that says hello, then list your files\", \"remind me in 1 minute to stretch\" or \"every day at \
                 8 tell me a joke\", or set a key to talk to a model.",
                shortened(&lines.join(" · "), QUOTE_MAX_CHARS)
            ))
        }
        Err(Some(seen)) => NextMessage::Text(format!(
            "I am in a box of my own and looked around. {}\n\n{}",
            seen_by(seen, command),
            fenced(&seen.output)
        )),
    }
}

/// Runs `command`, or lists `path` where there is no shell. `Err` holds the last result when nothing is left to try.
fn listing<'a>(
    done: &'a [ToolOutcome],
    command: &str,
    path: &str,
    offers: &dyn Fn(&str) -> bool,
) -> Result<NextMessage, Option<&'a ToolOutcome>> {
    let ran = done.iter().rfind(|done| done.tool == "run_command");
    let listed = done.iter().rfind(|done| done.tool == "list_files");
    let no_shell = ran.is_some_and(|ran| ran.failed && ran.output.to_lowercase().contains("no shell"));
    if ran.is_none() && listed.is_none() && offers("run_command") {
        return Ok(NextMessage::Call("run_command", json!({ "command": command })));
    }
    if listed.is_none() && (ran.is_none() || no_shell) && offers("list_files") {
        return Ok(NextMessage::Call("list_files", json!({ "path": path })));
    }
    Err(listed.or(ran))
}

fn seen_by(seen: &ToolOutcome, command: &str) -> String {
    let tool = if seen.tool == "run_command" { format!("`{command}`") } else { format!("`{}`", seen.tool) };
    let verb = if seen.failed { "failed with" } else { "shows" };
    format!("{tool} {verb}:")
}

/// Returns the text for the note: the words after "says" or "saying", to the end of that part of the sentence.
fn note_text(wish: &str) -> String {
    let lower = wish.to_lowercase();
    // The lower-case text may have another byte length; then the whole message is the note.
    let after =
        ["says ", "saying ", "say "].iter().find_map(|word| lower.find(word).map(|at| at + word.len()));
    let rest = after.filter(|_| lower.len() == wish.len()).and_then(|at| wish.get(at..)).unwrap_or(wish);
    let end =
        [", then", " then ", ", and list", " and list", ". "].iter().filter_map(|end| rest.find(end)).min();
    let text = rest[..end.unwrap_or(rest.len())].trim().trim_matches(['"', '\'', '“', '”', '.', ',']);
    if text.is_empty() { "a note".to_owned() } else { text.to_owned() }
}

/// Makes a file name from the text's first words.
fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: String = words.take(5).collect::<Vec<_>>().join("-").to_lowercase().chars().take(40).collect();
    if name.is_empty() { "note".to_owned() } else { name }
}

fn fenced(output: &str) -> String {
    // The fence is longer than any run of backticks within.
    let longest = output.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{}\n{fence}", shortened(output.trim_end(), QUOTE_MAX_CHARS))
}

fn shortened(text: &str, most: usize) -> String {
    let mut short: String = text.chars().take(most).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: [&str; 3] = ["write_file", "run_command", "list_files"];

    /// Plays a turn; `tool` answers the tool calls. Returns the calls and the final text.
    fn turn(
        wish: &str,
        offered: &[&str],
        tool: impl Fn(&str, &Value) -> (String, bool),
    ) -> (Vec<String>, String) {
        let mut transcript = vec![json!({ "role": "user", "content": [{ "type": "text", "text": wish }] })];
        let tools: Vec<Value> =
            offered.iter().map(|name| json!({ "name": name, "input_schema": {} })).collect();
        let mut calls = Vec::new();
        for _ in 0..5 {
            let body = json!({ "messages": transcript, "tools": tools }).to_string();
            let request = ModelRequest::parse(body.as_bytes()).unwrap();
            let message: Value = serde_json::from_slice(&answer(&request, body.len())).unwrap();
            let block = &message["content"][0];
            transcript.push(json!({ "role": "assistant", "content": message["content"] }));
            if block["type"] == "text" {
                return (calls, block["text"].as_str().unwrap().to_owned());
            }
            let name = block["name"].as_str().unwrap();
            calls.push(format!("{name} {}", block["input"]));
            let (output, failed) = tool(name, &block["input"]);
            transcript.push(json!({ "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": block["id"], "content": output, "is_error": failed }] }));
        }
        panic!("the script does not come to an end: {calls:?}");
    }

    #[test]
    fn a_note_is_written_listed_and_told() {
        let wish = "<context id=\"m-1\">make a note that says no</context>\n\
                    <message id=\"m-2\" from=\"Ann\">Make a note that says Hello &amp; welcome, then list your files</message>";
        let (calls, text) = turn(wish, &OFFERED, |name, _| (format!("{name} says hello-welcome.md"), false));
        assert_eq!(
            calls,
            [
                r#"write_file {"content":"Hello & welcome\n","path":"notes/hello-welcome.md"}"#,
                r#"run_command {"command":"ls -la notes"}"#
            ]
        );
        assert!(text.starts_with(LABEL) && text.contains("run_command says hello-welcome.md"), "{text}");
    }

    #[test]
    fn a_reminder_is_asked_for_and_the_hosts_verdict_is_told() {
        let offered = ["remind", "schedule_task"];
        let verdict = "task-1 \"stretch\": once, Mon 30 Nov 2026 14:01 UTC (UTC). Next: Mon 30 Nov 14:01 UTC, in 1 \
                       minute. State: active. Chat: terminal:local.\nTell the person.";
        let wish = "<message id=\"m-1\" from=\"Ann\">Remind me in 1 minute to stretch.</message>";
        let (calls, text) = turn(wish, &offered, |_, _| (verdict.into(), false));
        assert_eq!(calls, [r#"remind {"text":"stretch","when":"in 1 minute"}"#]);
        assert!(text.contains("\"stretch\" comes Mon 30 Nov 14:01 UTC, in 1 minute."), "{text}");
        let (_, text) = turn(wish, &offered, |_, _| ("task.quota: the group has 50 tasks".into(), true));
        assert!(text.contains("```\ntask.quota: the group has 50 tasks\n```"), "{text}");
        let (calls, text) = turn(wish, &[], |_, _| unreachable!());
        assert!(calls.is_empty() && text.contains("`remind`"), "{text}");
    }

    #[test]
    fn a_fire_is_answered_as_what_it_is() {
        let fire = "<task id=\"f-2\" task=\"task-1\" name=\"Ann &amp; Bob\" planned=\"Mon 08:00\">Tell me a \
                    joke.</task>";
        let (calls, text) = turn(fire, &OFFERED, |_, _| unreachable!());
        assert!(calls.is_empty() && text.contains("\"Ann & Bob\" has fired"), "{text}");
        let note = fire.replace("Tell me a joke.", "Make a note that says hello");
        assert_eq!(
            turn(&note, &OFFERED, |_, _| ("done".into(), false)).0.len(),
            2,
            "it is work like any other"
        );
        let beside = format!("{fire}\n<message id=\"m-3\">who are you?</message>");
        let (calls, _) = turn(&beside, &OFFERED, |_, _| ("Linux".into(), false));
        assert_eq!(calls.len(), 1, "a person goes first");
    }

    #[test]
    fn an_image_without_a_shell_is_listed_by_tool() {
        let tool = |name: &str, _: &Value| match name {
            "run_command" => ("This image has no shell.".to_owned(), true),
            _ => ("notes/hello.md".to_owned(), false),
        };
        let (calls, text) = turn("make a note that says hello", &OFFERED, tool);
        assert_eq!(calls.last().unwrap(), r#"list_files {"path":"notes"}"#);
        assert!(text.contains("`list_files` shows:\n\n```\nnotes/hello.md\n```"), "{text}");
    }

    #[test]
    fn any_other_text_is_answered_by_what_the_box_is() {
        let (calls, text) =
            turn("who are you?", &OFFERED, |_, _| ("Linux 6.1\n20001\n/workspace\n".into(), false));
        assert_eq!(calls, [r#"run_command {"command":"uname -sr; id -u; pwd"}"#]);
        assert!(text.contains("Linux 6.1 · 20001 · /workspace"), "{text}");
    }

    #[test]
    fn without_tools_and_with_tools_that_fail_it_still_comes_to_an_end() {
        let (calls, text) = turn("make a note", &[], |_, _| unreachable!());
        assert!(calls.is_empty() && text.starts_with(LABEL));
        let (calls, text) = turn("make a note", &OFFERED, |_, _| ("disk ``` full".into(), true));
        assert_eq!(calls.len(), 1);
        assert!(text.contains("````\ndisk ``` full\n````"), "{text}");
        let (_, text) = turn("hello", &OFFERED, |_, _| ("nothing works".into(), true));
        assert!(text.contains("nothing works"));
    }
}
