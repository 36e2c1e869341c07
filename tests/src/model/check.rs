//! The rules that the providers enforce for every request.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::conversation::{Conversation, Entry, Part, Role, Wire};
use super::media;
use super::strict::{self, Strict};
use super::{Allowed, KEY, Recorded};

/// The model's earlier output. A request must return it verbatim or leave it out.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Every thought and the model that had it, by its signature or its data.
    thoughts: HashMap<String, (Value, Value)>,
    /// Every answer with tool calls and the model that gave it, by the id of each call.
    answers: HashMap<String, (Value, Value)>,
}

impl Sent {
    /// Stores the content of an answer of `model`.
    pub fn remember(&mut self, model: &Value, content: &Value) {
        for block in content.as_array().into_iter().flatten() {
            if let Some(signature) = signature(block) {
                self.thoughts.insert(signature.to_owned(), (block.clone(), model.clone()));
            }
            if let Some(id) = block["id"].as_str() {
                self.answers.insert(id.to_owned(), (content.clone(), model.clone()));
            }
        }
    }
}

fn signature(thought: &Value) -> Option<&str> {
    thought["signature"].as_str().or(thought["data"].as_str())
}

/// Checks all rules. Returns the violations in words.
pub(super) fn request(
    request: &Recorded,
    conversation: &Conversation,
    sent: &Sent,
    allowed: Allowed,
) -> Vec<String> {
    let mut broken = Vec::new();
    if !allowed.keyless {
        broken.extend(key(conversation.wire, request));
    }
    broken.extend(settings(conversation.wire, &request.body, allowed));
    broken.extend(ends_and_turns(conversation));
    broken.extend(calls_and_results(conversation));
    match conversation.wire {
        Wire::Anthropic => {
            broken.extend(verbatim(&request.body["model"], conversation, sent));
            broken.extend(strict::violations(Strict::Messages, &request.body));
            broken.extend(media::violations(&request.body));
        }
        Wire::OpenAi => {
            broken.extend(strict::violations(Strict::Chat, &without_own_thoughts(request.body.clone())))
        }
    }
    broken
}

/// The scripted model thinks in this wire too, and its thoughts come back to it.
fn without_own_thoughts(mut body: Value) -> Value {
    let messages = body.get_mut("messages").and_then(Value::as_array_mut);
    for message in messages.into_iter().flatten().filter_map(Value::as_object_mut) {
        message.remove("reasoning_content");
    }
    body
}

fn key(wire: Wire, request: &Recorded) -> Option<String> {
    let (name, expected) = match wire {
        Wire::Anthropic => ("x-api-key", KEY.to_owned()),
        Wire::OpenAi => ("authorization", format!("Bearer {KEY}")),
    };
    let given = request.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value);
    (given != Some(&expected)).then(|| format!("the header {name} does not carry the key"))
}

fn settings(wire: Wire, body: &Value, allowed: Allowed) -> Vec<String> {
    let mut broken = Vec::new();
    let limit = match wire {
        Wire::Anthropic => body["max_tokens"].as_u64(),
        Wire::OpenAi => body["max_tokens"].as_u64().or(body["max_completion_tokens"].as_u64()),
    };
    if limit.is_none_or(|limit| limit == 0) {
        broken.push("max_tokens is not set".to_owned());
    }
    if body["model"].as_str().is_none_or(str::is_empty) {
        broken.push("no model is named".to_owned());
    }
    let streamed = body["stream"] == true;
    if !streamed && !allowed.unstreamed {
        broken.push("stream is not set".to_owned());
    }
    if wire == Wire::OpenAi && streamed && body["stream_options"]["include_usage"] != true {
        broken.push("a stream without stream_options.include_usage tells no usage".to_owned());
    }
    broken
}

fn ends_and_turns(conversation: &Conversation) -> Vec<String> {
    let mut broken = Vec::new();
    let roles: Vec<Role> = conversation.entries.iter().map(|entry| entry.role).collect();
    if roles.first() != Some(&Role::User) || roles.last() != Some(&Role::User) {
        broken.push("the transcript does not begin and end with the user".to_owned());
    }
    if let Some(at) = roles.windows(2).position(|pair| pair[0] == pair[1]) {
        broken.push(format!("entries {at} and {} are of one role", at + 1));
    }
    broken
}

/// Checks that the next entry answers each call exactly once, and answers nothing else.
fn calls_and_results(conversation: &Conversation) -> Vec<String> {
    let mut broken = Vec::new();
    let mut known = HashSet::new();
    let mut open: Vec<&str> = Vec::new();
    for (at, entry) in conversation.entries.iter().enumerate() {
        for (id, _) in entry.results() {
            match open.iter().position(|call| *call == id) {
                Some(found) => drop(open.remove(found)),
                None => {
                    broken.push(format!("entry {at} answers `{id}`, which the entry before did not call"))
                }
            }
        }
        broken.extend(open.drain(..).map(|id| format!("entry {at} does not answer the call `{id}`")));
        for id in entry.calls() {
            if !known.insert(id) {
                broken.push(format!("the call id `{id}` is used twice"));
            }
            open.push(id);
        }
        broken.extend(results_after_text(at, entry));
    }
    broken.extend(open.into_iter().map(|id| format!("the call `{id}` is not answered")));
    broken
}

fn results_after_text(at: usize, entry: &Entry) -> Option<String> {
    let other = entry.parts.iter().position(|part| !matches!(part, Part::Result { .. }))?;
    let late = entry.parts[other..].iter().any(|part| matches!(part, Part::Result { .. }));
    late.then(|| format!("entry {at} has results behind other content"))
}

/// Checks that the model's earlier output comes back unchanged.
fn verbatim(model: &Value, conversation: &Conversation, sent: &Sent) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, entry) in conversation.entries.iter().enumerate() {
        let content = without_cache_control(&entry.raw);
        // Another model cannot read the thoughts of this one.
        let comes_back = |(said, of): &&(Value, Value)| match of == model {
            true => *said == content,
            false => without_thoughts(said) == without_thoughts(&content),
        };
        let answer = entry.calls().find_map(|id| sent.answers.get(id));
        if let Some((answer, _)) = answer.filter(|answer| !comes_back(answer)) {
            broken.push(format!("entry {at} is not what the model said: {content} instead of {answer}"));
        }
        for block in content.as_array().into_iter().flatten().filter(|block| is_thought(block)) {
            match signature(block).and_then(|signature| sent.thoughts.get(signature)) {
                Some((said, of)) if said == block && of == model => {}
                Some((said, of)) if said == block => {
                    broken.push(format!("entry {at} has a thought of another model, {of}: {block}"));
                }
                _ => broken.push(format!("entry {at} has a thought that the model never had: {block}")),
            }
        }
    }
    broken
}

fn is_thought(block: &Value) -> bool {
    matches!(block["type"].as_str(), Some("thinking" | "redacted_thinking"))
}

fn without_thoughts(content: &Value) -> Vec<&Value> {
    content.as_array().into_iter().flatten().filter(|block| !is_thought(block)).collect()
}

fn without_cache_control(content: &Value) -> Value {
    let mut content = content.clone();
    for block in content.as_array_mut().into_iter().flatten() {
        if let Some(block) = block.as_object_mut() {
            block.remove("cache_control");
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(content: Value) -> Value {
        json!({ "role": "user", "content": content })
    }

    fn model(content: Value) -> Value {
        json!({ "role": "assistant", "content": content })
    }

    fn call(id: &str) -> Value {
        json!({ "type": "tool_use", "id": id, "name": "ls", "input": {} })
    }

    fn result(id: &str) -> Value {
        json!({ "type": "tool_result", "tool_use_id": id, "content": "ok" })
    }

    fn text(text: &str) -> Value {
        json!({ "type": "text", "text": text })
    }

    fn broken_of(body: Value, sent: &Sent) -> Vec<String> {
        let conversation = Conversation::read(Wire::Anthropic, &body);
        let headers = vec![("x-api-key".to_owned(), KEY.to_owned())];
        let recorded = Recorded { path: "/v1/messages".into(), headers, body };
        request(&recorded, &conversation, sent, Allowed::default())
    }

    fn broken(messages: &[Value]) -> Vec<String> {
        let body = json!({ "model": "m", "max_tokens": 1, "stream": true, "messages": messages });
        broken_of(body, &Sent::default())
    }

    #[track_caller]
    fn breaks(messages: &[Value], words: &str) {
        let broken = broken(messages);
        assert!(broken.iter().any(|one| one.contains(words)), "{words:?} is not in {broken:?}");
    }

    #[test]
    fn a_proper_transcript_breaks_nothing() {
        let proper = [
            user(json!("hi")),
            model(json!([text("let me see"), call("a"), call("b")])),
            user(json!([result("b"), result("a"), text("hurry")])),
            model(json!("done")),
            user(json!("thanks")),
        ];
        assert_eq!(broken(&proper), Vec::<String>::new());
    }

    #[test]
    fn every_call_is_answered_once_and_at_once() {
        let hi = user(json!("hi"));
        let asks = model(json!([call("a")]));
        breaks(&[hi.clone(), asks.clone(), user(json!("no"))], "does not answer the call `a`");
        breaks(&[hi.clone(), asks.clone()], "the call `a` is not answered");
        breaks(&[hi.clone(), asks.clone(), user(json!([result("a"), result("a")]))], "answers `a`, which");
        breaks(&[user(json!([result("z")]))], "answers `z`, which");
        breaks(&[hi.clone(), model(json!([call("a"), call("a")]))], "used twice");
        breaks(&[hi, asks, user(json!([text("no"), result("a")]))], "results behind other content");
    }

    #[test]
    fn roles_alternate_between_a_user_at_both_ends() {
        breaks(&[user(json!("a")), user(json!("b"))], "of one role");
        breaks(&[model(json!("a")), user(json!("b"))], "begin and end with the user");
        breaks(&[], "begin and end with the user");
        breaks(&[user(json!([text("")]))], "a text is not blank");
    }

    #[test]
    fn what_the_model_said_comes_back_verbatim() {
        let thought = json!({ "type": "thinking", "thinking": "hm", "signature": "s1" });
        let said = json!([thought, call("a")]);
        let mut sent = Sent::default();
        sent.remember(&json!("m"), &said);
        let with = |content: Value| {
            let messages = json!([user(json!("hi")), model(content), user(json!([result("a")]))]);
            broken_of(json!({ "model": "m", "max_tokens": 1, "stream": true, "messages": messages }), &sent)
        };
        assert_eq!(with(said.clone()), Vec::<String>::new());
        let mut cached = said.clone();
        cached[1]["cache_control"] = json!({ "type": "ephemeral" });
        assert_eq!(with(cached), Vec::<String>::new());
        assert!(with(json!([call("a")]))[0].contains("is not what the model said"));
        let mut forged = said;
        forged[0]["thinking"] = json!("hmm");
        assert!(with(forged).iter().any(|one| one.contains("never had")));
        let redacted = json!([{ "type": "redacted_thinking", "data": "x" }, call("a")]);
        assert!(with(redacted).iter().any(|one| one.contains("never had")));
        sent.remember(&json!("another"), &json!([thought, call("a")]));
        let messages =
            json!([user(json!("hi")), model(json!([thought, call("a")])), user(json!([result("a")]))]);
        let body = json!({ "model": "m", "max_tokens": 1, "stream": true, "messages": messages });
        assert!(broken_of(body, &sent)[0].contains("a thought of another model"));
    }

    #[test]
    fn settings_and_key_are_needed() {
        let messages = json!([user(json!("hi"))]);
        let broken = broken_of(json!({ "messages": messages }), &Sent::default());
        assert_eq!(broken, ["max_tokens is not set", "no model is named", "stream is not set"]);

        let body = json!({ "model": "m", "max_completion_tokens": 1, "stream": true, "messages": messages });
        let conversation = Conversation::read(Wire::OpenAi, &body);
        let recorded = Recorded { path: String::new(), headers: Vec::new(), body };
        let broken = request(&recorded, &conversation, &Sent::default(), Allowed::default());
        let expected = [
            "the header authorization does not carry the key",
            "a stream without stream_options.include_usage tells no usage",
        ];
        assert_eq!(broken, expected);
    }

    #[test]
    fn a_chat_with_tools_is_held_to_the_same_rules() {
        let chat = |results: &[&str]| {
            let calls: Vec<_> = ["a", "b"].map(|id| json!({ "id": id, "function": {} })).to_vec();
            let mut messages = vec![
                json!({ "role": "system", "content": "s" }),
                user(json!("hi")),
                json!({ "role": "assistant", "content": null, "tool_calls": calls }),
            ];
            let tool = |id: &&str| json!({ "role": "tool", "tool_call_id": id, "content": "ok" });
            messages.extend(results.iter().map(tool));
            messages.push(user(json!("hurry")));
            calls_and_results(&Conversation::read(Wire::OpenAi, &json!({ "messages": messages })))
        };
        assert_eq!(chat(&["a", "b"]), Vec::<String>::new());
        assert!(chat(&["a"])[0].contains("does not answer the call `b`"));
        assert!(chat(&["a", "b", "c"])[0].contains("answers `c`, which"));
    }
}
