//! Builds requests of the Anthropic Messages API from the transcript. [`crate::turn`] calls it.
//!
//! The API is strict about shape: user and assistant take turns, and each `tool_use` is answered exactly once by a
//! `tool_result` in the very next user message. The transcript records what happened, crashes included. So this
//! module makes the shape anew for every request, whatever the entries look like: one bad entry must not make every
//! later request of the session fail.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ipc_schema::letters::from_agent::Outcome;
use ipc_schema::letters::to_agent;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::prompt::{self, SystemPrompt};
use crate::sight::{Seen, View};
use crate::transcript::{Body, Entry, FileKind, Omissions};

/// Builds the request for the next answer. `view` holds the pictures and documents.
///
/// # Errors
/// Never in practice: every type here can be serialized.
pub fn request(
    model: &to_agent::Model,
    system: &SystemPrompt,
    tools: &serde_json::Value,
    entries: &[Entry],
    omissions: &Omissions,
    view: &View,
) -> serde_json::Result<String> {
    serde_json::to_string(&Request {
        model: &model.name,
        max_tokens: model.max_tokens.min(model.window / 2).max(1),
        stream: true,
        system: [
            SystemBlock { kind: "text", text: &system.stable, cache_control: Some(CacheControl::EPHEMERAL) },
            SystemBlock { kind: "text", text: &system.facts, cache_control: None },
        ]
        .into_iter()
        .filter(|block| !block.text.is_empty())
        .collect(),
        tools,
        messages: messages(&model.id(), entries, omissions, view),
    })
}

/// A request with one user message, without tools.
///
/// # Errors
/// As [`request`].
pub fn plain_request(model: &to_agent::Model, system: &str, text: &str) -> serde_json::Result<String> {
    request_with_tools(model, system, text, &serde_json::Value::Null)
}

/// A request with one user message.
///
/// # Errors
/// As [`request`].
pub fn request_with_tools(
    model: &to_agent::Model,
    system: &str,
    text: &str,
    tools: &serde_json::Value,
) -> serde_json::Result<String> {
    let mut writer = Messages::default();
    writer.texts.push(Cow::Borrowed(text));
    serde_json::to_string(&Request {
        model: &model.name,
        max_tokens: model.max_tokens.min(model.window / 2).max(1),
        stream: true,
        system: vec![SystemBlock { kind: "text", text: system, cache_control: None }],
        tools,
        messages: writer.finish(),
    })
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    system: Vec<SystemBlock<'a>>,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    tools: &'a serde_json::Value,
    messages: Vec<Message<'a>>,
}

#[derive(Serialize)]
struct SystemBlock<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

/// A prompt-cache breakpoint: the provider caches everything before it ("Prompt caching", at most 4 in a request).
#[derive(Clone, Copy, Serialize)]
struct CacheControl {
    #[serde(rename = "type")]
    kind: &'static str,
}

impl CacheControl {
    const EPHEMERAL: Self = Self { kind: "ephemeral" };
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Vec<Content<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Verbatim(&'a RawValue),
    Ours(OurBlock<'a>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OurBlock<'a> {
    Text {
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        content: ResultContent<'a>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Image(Media<'a>),
    Document(Media<'a>),
}

/// A picture or a document.
#[derive(Serialize)]
struct Media<'a> {
    source: Source<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "base64")]
struct Source<'a> {
    media_type: &'static str,
    data: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ResultContent<'a> {
    Text(Cow<'a, str>),
    Blocks(Vec<OurBlock<'a>>),
}

/// The result for a call whose result is missing. The repair at the start leaves none; a damaged file may.
const NO_RESULT: &str = "the result is lost; it may have run";

fn messages<'a>(
    model: &str,
    entries: &'a [Entry],
    omissions: &Omissions,
    view: &'a View,
) -> Vec<Message<'a>> {
    let mut writer = Messages::default();
    let mut gap = Gap::default();
    for entry in entries {
        if omissions.omits(entry) {
            gap.add(entry, omissions);
            continue;
        }
        writer.texts.extend(gap.note().map(Cow::Owned));
        match &entry.body {
            Body::Input(input) => {
                writer.texts.push(Cow::Owned(prompt::frames(input)));
                writer.shown.extend(view.of(entry).iter().map(|file| (writer.texts.len(), file)));
            }
            Body::Gate(gate) => writer.texts.extend(gate.shown.as_deref().map(Cow::Borrowed)),
            Body::Assistant(answer) => {
                // A thought goes back to the model that had it. Old transcripts do not say which one that was.
                let thoughts = answer.model.as_deref().is_none_or(|maker| maker == model)
                    && !omissions.omits_thoughts(entry);
                writer.assistant(answer.blocks.iter().filter_map(|block| {
                    let view = block.view();
                    let sent = match view.kind.as_str() {
                        // The API refuses blank texts, but the model sometimes writes them.
                        "text" => view.text.is_some_and(|text| !text.trim().is_empty()),
                        "tool_use" => true,
                        _ => thoughts && block.is_thought(),
                    };
                    let call = (view.kind == "tool_use").then(|| view.id.unwrap_or_default());
                    sent.then_some((block.raw(), call))
                }));
            }
            Body::Results(results) => {
                writer.results.extend(results.blocks.iter().map(|result| {
                    let path = result.shown.as_ref().map(|file| &file.path);
                    let seen = view.of(entry).iter().find(|(shown, _)| Some(shown) == path);
                    let shown = Shown {
                        content: shown_part(&result.content, omissions.result_max(entry)),
                        is_error: result.is_error,
                        seen: seen.map(|(_, seen)| &**seen),
                    };
                    (&*result.tool_use_id, shown)
                }));
            }
            Body::Note(note) => writer.texts.push(Cow::Borrowed(&note.text)),
            Body::End(end) => writer.texts.extend(ending_note(end.outcome).map(Cow::Borrowed)),
            Body::Summary(summary) => writer.texts.push(Cow::Borrowed(&summary.text)),
            Body::Request(_) | Body::LeftOut(_) | Body::Shortened(_) | Body::Order(_) => {}
        }
    }
    writer.texts.extend(gap.note().map(Cow::Owned));
    writer.finish()
}

/// Neighbouring entries that are left out.
#[derive(Default)]
struct Gap {
    refused: bool,
    summary: Option<String>,
    tools: BTreeSet<String>,
}

impl Gap {
    fn add(&mut self, entry: &Entry, omissions: &Omissions) {
        if omissions.is_summed_up(entry) {
            self.summary = omissions.summary_at(entry).map(str::to_owned).or(self.summary.take());
            return;
        }
        self.refused = true;
        if let Body::Assistant(answer) = &entry.body {
            self.tools.extend(answer.blocks.iter().filter(|b| b.is_tool_use()).filter_map(|b| b.view().name));
        }
    }

    /// The note for the model in the place of the gap.
    fn note(&mut self) -> Option<String> {
        let Self { refused, summary, tools } = std::mem::take(self);
        let called = match tools.is_empty() {
            true => String::new(),
            false => {
                let tools = tools.into_iter().collect::<Vec<_>>().join(", ");
                format!(" You called tools in it ({tools}). Look before you repeat a step.")
            }
        };
        let refused = refused.then(|| {
            format!("[A part of the conversation is left out here: the provider refused it.{called}]")
        });
        let notes: Vec<_> = refused.into_iter().chain(summary).collect();
        (!notes.is_empty()).then(|| notes.join("\n\n"))
    }
}

/// A note for the model about a turn that did not end with its own final answer.
fn ending_note(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Finished => None,
        Outcome::Limit => Some("[The turn above was stopped by its limit of model calls.]"),
        Outcome::Interrupted => Some("[The turn above was interrupted.]"),
        Outcome::Failed => Some("[The turn above ended in an error; the person was told.]"),
    }
}

/// A tool's result, as far as it is shown.
struct Shown<'a> {
    content: Cow<'a, str>,
    is_error: bool,
    /// The file that it shows.
    seen: Option<&'a Seen>,
}

/// The part of a result that is shown, with a note on where the rest is. The API refuses an error without a text.
fn shown_part<'a>(content: &'a str, most: Option<(usize, &str)>) -> Cow<'a, str> {
    if content.is_empty() {
        return Cow::Borrowed("(nothing)");
    }
    let cut = most.and_then(|(most, archive)| Some((content.char_indices().nth(most)?.0, archive)));
    match cut {
        None => Cow::Borrowed(content),
        Some((at, archive)) => {
            let head = content.get(..at).unwrap_or_default();
            let whole = content.chars().count();
            Cow::Owned(format!("{head}… [cut to save room: {whole} characters, all of them in {archive}]"))
        }
    }
}

/// Collects entries into messages of the shape that the API accepts.
#[derive(Default)]
struct Messages<'a> {
    done: Vec<Message<'a>>,
    /// Ids of the tool calls in the last assistant message, in order.
    calls: Vec<String>,
    results: HashMap<&'a str, Shown<'a>>,
    texts: Vec<Cow<'a, str>>,
    /// Files with their paths, each behind so many of the texts.
    shown: Vec<(usize, &'a (String, Arc<Seen>))>,
}

impl<'a> Messages<'a> {
    fn assistant(&mut self, blocks: impl Iterator<Item = (&'a RawValue, Option<String>)>) {
        let mut blocks = blocks.peekable();
        if blocks.peek().is_none() {
            return;
        }
        self.end_user();
        if self.done.is_empty() {
            let text = Cow::Borrowed("[The beginning of this conversation is lost.]");
            self.texts.push(text);
            self.end_user();
        }
        let (content, calls): (Vec<_>, Vec<_>) =
            blocks.map(|(raw, call)| (Content::Verbatim(raw), call)).unzip();
        self.calls = calls.into_iter().flatten().collect();
        match self.done.last_mut() {
            Some(last) if last.role == "assistant" => last.content.extend(content),
            _ => self.done.push(Message { role: "assistant", content }),
        }
    }

    /// Results come first, in the order of their calls: the API requires it.
    fn end_user(&mut self) {
        let mut results = std::mem::take(&mut self.results);
        let mut content: Vec<_> = std::mem::take(&mut self.calls)
            .into_iter()
            .map(|call| {
                let result = results.remove(&*call);
                let result =
                    result.unwrap_or(Shown { content: NO_RESULT.into(), is_error: true, seen: None });
                Content::Ours(OurBlock::ToolResult {
                    content: match result.seen {
                        Some(seen) => {
                            ResultContent::Blocks(vec![OurBlock::text(result.content), OurBlock::of(seen)])
                        }
                        None => ResultContent::Text(result.content),
                    },
                    is_error: result.is_error,
                    tool_use_id: Cow::Owned(call),
                    cache_control: None,
                })
            })
            .collect();
        let mut shown = std::mem::take(&mut self.shown).into_iter().peekable();
        for (text, number) in self.texts.drain(..).zip(1..) {
            if !text.trim().is_empty() {
                content.push(Content::Ours(OurBlock::text(text)));
            }
            while let Some((_, (path, seen))) = shown.next_if(|(behind, _)| *behind == number) {
                if matches!(**seen, Seen::Block { .. }) {
                    content.push(Content::Ours(OurBlock::text(format!("[{path}]"))));
                }
                content.push(Content::Ours(OurBlock::of(seen)));
            }
        }
        if !content.is_empty() {
            self.done.push(Message { role: "user", content });
        }
    }

    fn finish(mut self) -> Vec<Message<'a>> {
        self.end_user();
        // Two of the four breakpoints: this call writes the newest, and reads the one that the previous call wrote.
        for message in self.done.iter_mut().rev().filter(|m| m.role == "user").take(2) {
            if let Some(Content::Ours(block)) = message.content.last_mut() {
                *block.cache_control() = Some(CacheControl::EPHEMERAL);
            }
        }
        self.done
    }
}

impl<'a> OurBlock<'a> {
    fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text { text: text.into(), cache_control: None }
    }

    fn of(seen: &'a Seen) -> Self {
        match seen {
            Seen::Note(text) => Self::text(text),
            Seen::Block { kind, media_type, data } => {
                let media = Media { source: Source { media_type, data }, cache_control: None };
                match kind {
                    FileKind::Picture => Self::Image(media),
                    FileKind::Document => Self::Document(media),
                }
            }
        }
    }

    fn cache_control(&mut self) -> &mut Option<CacheControl> {
        match self {
            Self::Text { cache_control, .. }
            | Self::ToolResult { cache_control, .. }
            | Self::Image(Media { cache_control, .. })
            | Self::Document(Media { cache_control, .. }) => cache_control,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::messages_api_rules;
    use crate::transcript::ToolResult;
    use crate::transcript::{Assistant, Block, End, Note, Results, Usage};
    use ipc_schema::TurnId;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn entry(body: Body) -> Entry {
        Entry { entry: 1, turn: TurnId(1), at: String::new(), body }
    }

    fn assistant(blocks: &[Value]) -> Body {
        Body::Assistant(Assistant {
            blocks: blocks.iter().map(|b| Block::new(&b.to_string()).unwrap()).collect(),
            stop_reason: None,
            usage: Usage::default(),
            model: None,
            bad_inputs: Default::default(),
        })
    }

    fn note(text: &str) -> Body {
        Body::Note(Note { text: text.into() })
    }

    fn result(id: &str) -> Body {
        let block = ToolResult { tool_use_id: id.into(), content: "ok".into(), is_error: false, shown: None };
        Body::Results(Results { blocks: vec![block] })
    }

    fn call(id: &str) -> Value {
        json!({"type": "tool_use", "id": id, "name": "x", "input": {}})
    }

    fn made(bodies: Vec<Body>) -> Value {
        let entries: Vec<_> = bodies.into_iter().map(entry).collect();
        let model = to_agent::Model {
            name: "m".into(),
            provider: None,
            max_tokens: 10,
            window: 100,
            no_images: false,
        };
        let system = SystemPrompt { stable: "who".into(), facts: "now".into() };
        let text = request(
            &model,
            &system,
            &json!([{"name": "x"}]),
            &entries,
            &Omissions::of(&entries),
            &View::default(),
        )
        .unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn results_answer_in_the_order_of_their_calls_and_come_before_text() {
        let request = made(vec![
            note("go"),
            assistant(&[json!({"type": "text", "text": " "}), call("a"), call("b")]),
            result("b"),
            result("a"),
            note("more"),
        ]);
        messages_api_rules::check(&request);
        assert_eq!(
            request["messages"][1]["content"].as_array().unwrap().len(),
            2,
            "the blank text is left out"
        );
        let answers = request["messages"][2]["content"].as_array().unwrap();
        let ids: Vec<_> = answers.iter().map(|b| b["tool_use_id"].as_str().unwrap_or("text")).collect();
        assert_eq!(ids, ["a", "b", "text"]);
    }

    #[test]
    fn the_caches_end_is_the_last_user_block() {
        let request = made(vec![note("go"), assistant(&[call("a")]), result("a")]);
        assert!(request["system"][0]["cache_control"].is_object());
        assert!(request["system"][1].get("cache_control").is_none(), "facts of the moment are not cached");
        assert!(request["messages"][0]["content"][0]["cache_control"].is_object());
        assert!(request["messages"][2]["content"][0]["cache_control"].is_object());
    }

    #[test]
    fn a_failed_turn_leaves_one_user_message_for_the_next() {
        let failed = Body::End(End { outcome: Outcome::Failed, text: String::new(), error: None });
        let request = made(vec![note("one"), failed, note("two")]);
        messages_api_rules::check(&request);
        assert_eq!(request["messages"].as_array().unwrap().len(), 1);
        assert_eq!(request["messages"][0]["content"].as_array().unwrap().len(), 3);
    }

    fn any_body() -> impl Strategy<Value = Body> {
        let block = prop_oneof![
            "[a-d]".prop_map(|id| call(&id)),
            "[ x]{0,2}".prop_map(|text| json!({"type": "text", "text": text})),
        ];
        prop_oneof![
            "[ y]{0,2}".prop_map(|text| note(&text)),
            "[a-d]".prop_map(|id| result(&id)),
            proptest::collection::vec(block, 0..3).prop_map(|blocks| {
                // One answer never uses an id twice.
                let mut seen = std::collections::HashSet::new();
                let blocks: Vec<_> = blocks
                    .into_iter()
                    .filter(|b| b["id"].as_str().is_none_or(|id| seen.insert(id.to_owned())))
                    .collect();
                assistant(&blocks)
            }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_transcript_holds_the_request_is_well_formed(
            bodies in proptest::collection::vec(any_body(), 0..12),
        ) {
            let mut bodies = bodies;
            bodies.push(note("end"));
            messages_api_rules::check(&made(bodies));
        }
    }
}
