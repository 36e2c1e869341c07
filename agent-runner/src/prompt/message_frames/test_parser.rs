//! A strict parser of message frames, for tests and fuzzing. It knows the grammar and shares no code with the writer.

use ipc_schema::MessageSeq;
use ipc_schema::letters::to_agent::{Attachment, Chat, ChatKind, Fire, Input, Message, Person, Quote};
use ipc_schema::text_sanitize::clean;

use super::frames;
use crate::local_time;

/// Reads frames as a strict reader of the grammar would.
///
/// # Panics
/// Where the text is not of the grammar.
pub fn parse(text: &str) -> (Option<Fire>, Vec<Message>) {
    let mut rest = text;
    let mut messages = Vec::new();
    let fire = rest.starts_with("<task ").then(|| {
        let (whole, after) = split(rest, "</task>");
        rest = after.strip_prefix('\n').unwrap_or(after);
        let (head, prompt) = split(whole, ">");
        Fire {
            id: needed(head, "id"),
            task: needed(head, "task"),
            name: needed(head, "name"),
            prompt: unescape(prompt),
            planned: needed(head, "planned"),
            late: attr_of(head, "late").is_some(),
            silent: attr_of(head, "silent").is_some(),
            gate: None,
            model_calls: None,
        }
    });
    while !rest.is_empty() {
        let (tag, wakes) = if rest.starts_with("<message ") { ("message", true) } else { ("context", false) };
        let (whole, after) = split(rest, &format!("</{tag}>"));
        let (head, mut body) = split(whole, ">");
        let attr = |name: &str| attr_of(head, name);
        let reply_to = body.starts_with("<reply-to").then(|| {
            let (quote, after) = split(body, "</reply-to>\n");
            body = after;
            let (head, text) = split(quote, ">");
            Quote { from: needed(head, "from"), text: unescape(text) }
        });
        let mut attachments = vec![];
        while body.starts_with("<attachment") {
            let (head, after) = split(body, "/>\n");
            body = after;
            let transcript = body.strip_prefix("<transcript>").map(|heard| {
                let (text, after) = split(heard, "</transcript>\n");
                body = after;
                unescape(text)
            });
            attachments.push(Attachment {
                transcript,
                no_transcript: attr_of(head, "no-transcript"),
                path: attr_of(head, "path"),
                name: needed(head, "name"),
                mime: needed(head, "mime"),
                bytes: number(&needed(head, "bytes")),
                problem: attr_of(head, "problem"),
            });
        }
        let id = needed(head, "id").parse();
        let Ok(id) = id else { panic!("no id in {head}") };
        messages.push(Message {
            id,
            wakes,
            from: Person {
                id: needed(head, "sender"),
                name: needed(head, "from"),
                owner: attr("owner").is_some(),
            },
            at: needed(head, "at"),
            text: unescape(body),
            forwarded_from: attr("forwarded-from"),
            edited: attr("edited").is_some(),
            reply_to,
            attachments,
            order: None,
        });
        rest = after.strip_prefix('\n').unwrap_or(after);
    }
    (fire, messages)
}

fn split<'a>(text: &'a str, at: &str) -> (&'a str, &'a str) {
    text.split_once(at).unwrap_or_else(|| panic!("no {at:?} in {text:?}"))
}

/// Attributes are read one after the other: what stands in a value is no name, whatever it looks like.
fn attr_of(head: &str, name: &str) -> Option<String> {
    let mut rest = head.split_once(' ')?.1;
    while let Some((found, after)) = rest.split_once("=\"") {
        let (value, after) = split(after, "\"");
        if found.trim_start() == name {
            return Some(unescape(value));
        }
        rest = after;
    }
    None
}

fn needed(head: &str, name: &str) -> String {
    attr_of(head, name).unwrap_or_else(|| panic!("no {name} in {head:?}"))
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

fn seen_label(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

/// What a reader can see of a message: what is hidden is dropped on purpose, times are cut to the minute.
pub fn visible(mut m: Message) -> Message {
    m.from = Person { id: seen_label(&m.from.id), name: seen_label(&m.from.name), owner: m.from.owner };
    m.at = seen_label(&local_time::to_the_minute(&m.at));
    m.forwarded_from = m.forwarded_from.as_deref().map(seen_label);
    m.text = clean(&m.text);
    m.reply_to = m.reply_to.map(|q| Quote { from: seen_label(&q.from), text: clean(&q.text) });
    for file in &mut m.attachments {
        file.path = file.path.as_deref().map(seen_label);
        file.name = seen_label(&file.name);
        file.mime = seen_label(&file.mime);
        file.problem = file.problem.as_deref().map(seen_label);
        file.no_transcript = file.no_transcript.as_deref().map(seen_label);
        file.transcript = file.transcript.as_deref().map(clean);
    }
    m
}

/// The same of a fire. The model sees neither its gate script nor its limit.
pub fn visible_fire(fire: Fire) -> Fire {
    Fire {
        id: seen_label(&fire.id),
        task: seen_label(&fire.task),
        name: seen_label(&fire.name),
        prompt: clean(&fire.prompt),
        planned: seen_label(&local_time::to_the_minute(&fire.planned)),
        ..fire
    }
}

/// What the fuzz target does: fields between record separators become a fire and messages, are framed, and are read
/// back.
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let fields: Vec<&str> = text.split('\u{1e}').collect();
    let messages: Vec<Message> = fields.chunks(8).zip(1..).map(|(fields, n)| message(n, fields)).collect();
    let chat = Chat { id: "terminal:local".into(), kind: ChatKind::Direct, title: "Ann".into() };
    let fire = fire(&fields);
    let framed =
        frames(&Input { chat, messages: messages.clone(), context_omitted: 0, fire: Some(fire.clone()) });
    assert_eq!(
        parse(&framed),
        (Some(visible_fire(fire)), messages.into_iter().map(visible).collect::<Vec<_>>())
    );
}

fn fire(fields: &[&str]) -> Fire {
    let field = |at: usize| fields.get(at).copied().unwrap_or_default().to_owned();
    let (prompt, id, name, planned) = (field(0), field(1), field(2), field(3));
    let (late, silent) = (fields.len() > 2, fields.len() > 4);
    Fire { task: field(4), id, name, prompt, planned, late, silent, gate: None, model_calls: None }
}

fn message(n: u64, fields: &[&str]) -> Message {
    let field = |at: usize| fields.get(at).copied().unwrap_or_default().to_owned();
    let some = |at: usize| fields.get(at).map(|field| (*field).to_owned());
    let file = Attachment {
        path: some(5),
        name: field(6),
        mime: field(7),
        bytes: n,
        problem: some(3),
        transcript: some(2),
        no_transcript: some(4),
    };
    Message {
        id: MessageSeq(n),
        wakes: n % 2 == 1,
        from: Person { id: field(1), name: field(2), owner: n.is_multiple_of(3) },
        at: field(3),
        text: field(0),
        forwarded_from: n.is_multiple_of(7).then(|| field(6)),
        edited: n.is_multiple_of(5),
        reply_to: some(4).map(|text| Quote { from: field(2), text }),
        attachments: if fields.len() > 5 { vec![file] } else { vec![] },
        order: None,
    }
}
