//! Tests the scripted model over HTTP.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::*;

/// The response to a request.
struct Got {
    status: u16,
    retry_after: Option<String>,
    body: String,
    whole: bool,
    frames: usize,
}

async fn post(url: &str, path: &str, key: (&str, &str), body: &Value) -> Got {
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let body = Full::new(bytes::Bytes::from(body.to_string()));
    let request = Request::post(path).header("host", address).header(key.0, key.1).body(body).unwrap();
    let (head, mut stream) = sender.send_request(request).await.unwrap().into_parts();
    let (mut body, mut whole, mut frames) = (Vec::new(), true, 0);
    while let Some(frame) = stream.frame().await {
        frames += 1;
        match frame {
            Ok(frame) => body.extend_from_slice(frame.data_ref().unwrap()),
            Err(_) => whole = false,
        }
    }
    let retry_after = head.headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    Got { status: head.status.as_u16(), retry_after, body: String::from_utf8(body).unwrap(), whole, frames }
}

async fn ask(model: &ModelServer, messages: &[Value]) -> Got {
    let body =
        json!({ "model": "m", "max_tokens": 1, "stream": true, "system": "be kind", "messages": messages });
    post(&model.anthropic_url(), "/v1/messages", ("x-api-key", KEY), &body).await
}

/// Builds the content blocks of a stream of the Messages wire.
fn content(got: &Got) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut json = String::new();
    for line in got.body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(line).unwrap();
        let delta = &event["delta"];
        match event["type"].as_str().unwrap() {
            "content_block_start" => blocks.push(event["content_block"].clone()),
            "content_block_delta" => {
                let block = blocks.last_mut().unwrap();
                for name in ["text", "thinking", "signature"] {
                    if let Some(piece) = delta[name].as_str() {
                        block[name] = json!(format!("{}{piece}", block[name].as_str().unwrap()));
                    }
                }
                json.push_str(delta["partial_json"].as_str().unwrap_or_default());
            }
            "content_block_stop" if !json.is_empty() => {
                blocks.last_mut().unwrap()["input"] =
                    serde_json::from_str(&std::mem::take(&mut json)).unwrap();
            }
            _ => {}
        }
    }
    blocks
}

fn said(got: &Got) -> String {
    content(got).iter().filter_map(|block| block["text"].as_str().map(str::to_owned)).collect()
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": [{ "type": "text", "text": text }] })
}

fn model_said(content: Vec<Value>) -> Value {
    json!({ "role": "assistant", "content": content })
}

fn results(content: &[Value], output: &str) -> Value {
    let calls = content.iter().filter(|block| block["type"] == "tool_use");
    let result =
        |call: &Value| json!({ "type": "tool_result", "tool_use_id": call["id"], "content": output });
    json!({ "role": "user", "content": calls.map(result).collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_conversation_goes_as_the_script_says() {
    let model = ModelServer::start().await;
    model
        .on("weather")
        .thinks("I should look at the sky before I answer.")
        .runs("run_command", json!({ "command": "cat sky" }))
        .and_runs("list_files", json!({ "path": "." }))
        .quotes("The sky says:")
        .counts(1000, 20);
    let mut transcript = vec![user("what is the weather like?")];
    let first = content(&ask(&model, &transcript).await);
    assert_eq!(first[0]["thinking"], "I should look at the sky before I answer.");
    assert_eq!(first[1]["input"], json!({ "command": "cat sky" }));
    assert_eq!(first[2]["name"], "list_files");
    transcript.push(model_said(first.clone()));
    transcript.push(results(&first, "grey"));
    let second = ask(&model, &transcript).await;
    assert_eq!(said(&second), "The sky says:\ngrey\ngrey");
    assert!(second.body.contains(r#""input_tokens":1000"#) && second.body.contains(r#""output_tokens":20"#));
    assert_eq!(model.tool_results(), ["grey", "grey"]);
    assert_eq!(model.last_request_text(), "what is the weather like?");
    model.wait_for_requests(2).await;
    model.finish();
}

#[tokio::test]
async fn the_last_text_that_matches_is_in_charge_until_another_one_does() {
    let model = ModelServer::start().await;
    model.on("weather").runs("a", json!({})).says("rain");
    model.on("news").says("none");
    model.on_system("summarise").says("a summary");
    let first = content(&ask(&model, &[user("context: news\nmessage: weather")]).await);
    assert_eq!(first[0]["name"], "a");

    let mut follow_up = results(&first, "x");
    follow_up["content"].as_array_mut().unwrap().push(json!({ "type": "text", "text": "and hurry" }));
    let transcript = [user("weather"), model_said(first.clone()), follow_up.clone()];
    assert_eq!(said(&ask(&model, &transcript).await), "rain", "a follow-up does not change the rule");

    follow_up["content"][1]["text"] = json!("no, the news");
    let transcript = [user("weather"), model_said(first), follow_up];
    assert_eq!(said(&ask(&model, &transcript).await), "none");

    let body = json!({ "model": "m", "max_tokens": 1, "stream": true, "system": "summarise this",
                       "messages": [user("weather")] });
    let summary = post(&model.anthropic_url(), "/v1/messages", ("x-api-key", KEY), &body).await;
    assert_eq!(said(&summary), "a summary");
    model.finish();
}

#[tokio::test]
async fn a_fault_comes_once_for_each_transcript_and_the_answer_stays() {
    let model = ModelServer::start().await;
    model
        .on("hello")
        .http(529, "overloaded_error", Some(3))
        .cut_after(40)
        .garbage()
        .says("hi")
        .http(500, "api_error", None)
        .says("bye");
    for group in ["hello from a", "hello from b"] {
        let mut transcript = vec![user(group)];
        let busy = ask(&model, &transcript).await;
        assert_eq!((busy.status, busy.retry_after.as_deref()), (529, Some("3")));
        let cut = ask(&model, &transcript).await;
        assert_eq!((cut.status, cut.whole, cut.body.len()), (200, false, 40));
        assert!(ask(&model, &transcript).await.body.contains("<html>"));
        for _again in 0..2 {
            assert_eq!(said(&ask(&model, &transcript).await), "hi");
        }
        transcript.extend([model_said(vec![json!({ "type": "text", "text": "hi" })]), user("go on")]);
        assert_eq!(ask(&model, &transcript).await.status, 500);
        assert_eq!(said(&ask(&model, &transcript).await), "bye");
    }
    model.finish();
}

#[tokio::test]
async fn a_gate_holds_a_call_until_the_test_opens_it() {
    let model = ModelServer::start().await;
    let gate = Gate::new();
    model.on("slow").waits_for(&gate).says("at last");
    model.on("quick").says("at once");
    let slow = [user("slow")];
    let held = ask(&model, &slow);
    let story = async {
        gate.arrived().await;
        assert_eq!(said(&ask(&model, &[user("quick")]).await), "at once", "the gate holds only its own call");
        gate.open();
    };
    let (held, ()) = tokio::join!(held, story);
    assert_eq!(said(&held), "at last");
    model.finish();
}

#[tokio::test]
async fn an_answer_can_drip() {
    let model = ModelServer::start().await;
    model.on("slow").drips(5, Duration::from_millis(1)).says("drop by drop");
    let got = ask(&model, &[user("slow")]).await;
    assert_eq!((said(&got).as_str(), got.frames), ("drop by drop", 5));
    model.finish();
}

#[tokio::test]
async fn the_other_wire_speaks_the_same_script() {
    let model = ModelServer::start().await;
    model.on("weather").runs("look", json!({ "at": "the sky" })).quotes("It says:");
    let chat = |messages: Value| {
        json!({ "model": "m", "max_tokens": 1, "stream": true, "stream_options": { "include_usage": true },
                "messages": messages })
    };
    let bearer = format!("Bearer {KEY}");
    let key = ("authorization", bearer.as_str());
    let first = post(&model.openai_url(), "/v1/chat/completions", key, &chat(json!([user("weather")]))).await;
    let chunks: Vec<Value> = first
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"))
        .map(|rest| serde_json::from_str(&format!("{{{rest}")).unwrap())
        .collect();
    let calls = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]);
    let arguments: String = calls.clone().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    assert_eq!(arguments, r#"{"at":"the sky"}"#);
    assert!(first.body.ends_with("data: [DONE]\n\n"));
    let id = calls.clone().find_map(|call| call["id"].as_str()).unwrap();

    let call =
        json!({ "id": id, "type": "function", "function": { "name": "look", "arguments": arguments } });
    let answered = chat(json!([
        { "role": "user", "content": "weather" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": id, "content": "grey" },
    ]));
    model.allow_unstreamed();
    let mut whole = answered.clone();
    whole["stream"] = json!(false);
    let got = post(&model.openai_url(), "/v1/chat/completions", key, &whole).await;
    let message: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(message["choices"][0]["message"]["content"], "It says:\ngrey");
    model.finish();
}

#[tokio::test]
#[should_panic(expected = "request 1: the header x-api-key does not carry the key")]
async fn a_broken_rule_fails_the_test_even_when_nobody_asks() {
    let model = ModelServer::start().await;
    model.on("hi").says("hi");
    let body = json!({ "model": "m", "max_tokens": 1, "stream": true, "messages": [user("hi")] });
    post(&model.anthropic_url(), "/v1/messages", ("x-api-key", "wrong"), &body).await;
}

#[tokio::test]
async fn what_is_not_scripted_is_said_and_is_a_violation_unless_it_is_allowed() {
    let model = ModelServer::start().await;
    model.on("weather").says("rain");
    let got = ask(&model, &[user("the news?")]).await;
    assert_eq!(said(&got), "I have nothing scripted for: the news?");
    assert_eq!(model.take_violations(), ["request 1: I have nothing scripted for: the news?"]);
    let past_the_end =
        [user("weather"), model_said(vec![json!({ "type": "text", "text": "rain" })]), user("go on")];
    ask(&model, &past_the_end).await;
    assert_eq!(model.take_violations().len(), 1);
    model.allow_unscripted();
    ask(&model, &[user("the news?")]).await;
    model.finish();
}

#[tokio::test]
async fn a_script_can_be_a_file() {
    let model = ModelServer::start().await;
    let script = r#"[
        { "on": "", "steps": [{ "says": "whatever" }] },
        { "on": "weather", "steps": ["garbage", { "http": { "status": 503, "error": "api_error", "retry_after": null } },
            { "thinks": "hm" }, { "drips": { "chunks": 2, "millis": 0 } }, { "says": "rain" },
            { "runs": { "tool": "a", "input": {} } }, { "and_runs": { "tool": "b", "input": {} } },
            { "cut_after": 3 }, { "quotes": "so" }] }
    ]"#;
    model.load(script).unwrap();
    assert!(ask(&model, &[user("weather")]).await.body.contains("<html>"));
    assert_eq!(ask(&model, &[user("weather")]).await.status, 503);
    assert_eq!(said(&ask(&model, &[user("weather")]).await), "rain");
    assert_eq!(
        said(&ask(&model, &[user("anything")]).await),
        "whatever",
        "the rule with the empty text answers"
    );
    let error = model.load(r#"[{ "on": "x", "steps": [{ "sings": "la" }] }]"#).unwrap_err();
    assert!(error.to_string().contains("unknown variant `sings`"), "{error}");
    model.finish();
}
