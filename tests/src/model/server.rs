//! The HTTP side of the model server.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::check;
use super::conversation::{Conversation, Wire};
use super::odd::Oddity;
use super::render::{self, Answer};
use super::script::{Act, Block, Fault, Step};
use super::{Does, Recorded, Shared, State};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Serves connections until it is aborted. Aborting it closes its connections too.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(serve(&shared, request).await) }
            });
            // Some tests have clients that break the connection.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The status, the pace and the end of an answer.
struct Delivery {
    status: u16,
    kind: &'static str,
    retry_after: Option<u64>,
    chunks: Vec<Bytes>,
    pause: Duration,
    cut: bool,
}

impl Delivery {
    fn whole(status: u16, kind: &'static str, body: String) -> Self {
        let chunks = vec![Bytes::from(body)];
        Self { status, kind, retry_after: None, chunks, pause: Duration::ZERO, cut: false }
    }

    fn response(self) -> Response<Body> {
        let Self { pause, .. } = self;
        let chunks = stream::iter(self.chunks).then(move |chunk| async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            Ok(Frame::data(chunk))
        });
        let cut = stream::iter(self.cut.then_some(())).then(|()| async {
            // hyper sends buffered bytes when the stream is pending, and discards them on an error. So this step yields
            // once before the error.
            tokio::task::yield_now().await;
            Err(io::Error::other("cut by the script"))
        });
        let body = StreamBody::new(chunks.chain(cut));
        let mut response = Response::new(BodyExt::boxed_unsync(body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

async fn serve(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let wire = Wire::of_path(&path).filter(|_| head.method == Method::POST);
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (Some(wire), Ok(body)) = (wire, serde_json::from_slice::<Value>(&bytes)) else {
        shared.state().violations.push(format!("{} {path} is no model call", head.method));
        let error = render::error(Wire::Anthropic, "not_found_error", "no such path");
        return Delivery::whole(404, "application/json", error).response();
    };
    let header = |(name, value): (&hyper::header::HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let recorded = Recorded { path, headers: head.headers.iter().map(header).collect(), body };
    let step = take_in(shared, wire, &recorded);
    shared.count.send_modify(|count| *count += 1);
    if let Some(gate) = &step.gate {
        gate.pass().await;
    }
    let delivery = perform(&mut shared.state(), wire, &recorded.body, step);
    delivery.response()
}

/// Checks and records a request, and chooses the reaction.
fn take_in(shared: &Shared, wire: Wire, recorded: &Recorded) -> Step {
    let mut guard = shared.state();
    let state = &mut *guard;
    let conversation = Conversation::read(wire, &recorded.body);
    if state.agent.is_none() {
        state.requests.push(recorded.clone());
    }
    let broken = check::request(recorded, &conversation, &state.sent, state.allowed);
    let number = state.requests.len();
    state.violations.extend(broken.into_iter().map(|broken| format!("request {number}: {broken}")));
    let said = recorded.body["messages"].to_string();
    if state.refused.iter().any(|words| said.contains(words)) {
        let fault = Fault::Http { status: 400, error: "invalid_request_error".to_owned(), retry_after: None };
        return Step { act: Act::Fault(fault), gate: None, drip: None };
    }
    if let Some((counter, window)) = state.counter {
        let tokens = counter(&recorded.body);
        state.max_window_share = state.max_window_share.max(tokens as f64 / window as f64);
        if tokens > window {
            return Step { act: Act::Fault(Fault::TooLong { tokens, window }), gate: None, drip: None };
        }
    }
    let agent = state.agent.clone();
    match (scripted(state, &conversation), agent) {
        (Some(step), _) => step,
        (None, Some(agent)) => {
            let blocks = blocks_of(agent(&conversation));
            Step { act: Act::Answer { blocks, tokens: None }, gate: None, drip: state.drips_all }
        }
        (None, None) => {
            let text = format!("I have nothing scripted for: {}", conversation.last_text());
            if !state.allowed.unscripted {
                state.violations.push(format!("request {number}: {text}"));
            }
            let act = Act::Answer { blocks: vec![Block::Text(text)], tokens: None };
            Step { act, gate: None, drip: None }
        }
    }
}

fn blocks_of(does: Does) -> Vec<Block> {
    match does {
        Does::Says(text) => vec![Block::Text(text)],
        Does::Runs(tool, input) => vec![Block::Call { tool: tool.to_owned(), input }],
        Does::Thinks(thought, then) => [vec![Block::Thought(thought)], blocks_of(*then)].concat(),
    }
}

fn scripted(state: &mut State, conversation: &Conversation) -> Option<Step> {
    let place = state.script.place(conversation)?;
    let served = state.faults.entry((place.rule, conversation.fingerprint())).or_default();
    let step = state.script.step(place, *served)?;
    if matches!(step.act, Act::Fault(_)) {
        *served += 1;
    }
    Some(step)
}

fn perform(state: &mut State, wire: Wire, body: &Value, step: Step) -> Delivery {
    match step.act {
        Act::Fault(Fault::Http { status, error, retry_after }) => {
            let body = render::error(wire, &error, "as the script says");
            Delivery { retry_after, ..Delivery::whole(status, "application/json", body) }
        }
        Act::Fault(Fault::TooLong { tokens, window }) => {
            let words = format!("prompt is too long: {tokens} tokens > {window} maximum");
            Delivery::whole(400, "application/json", render::error(wire, "invalid_request_error", &words))
        }
        Act::Fault(Fault::Garbage) => {
            Delivery::whole(200, "text/html", "<html>this is no model</html>".to_owned())
        }
        Act::Fault(Fault::CutAfter(bytes)) => {
            let text = "This answer is cut before it ends. ".repeat(1 + bytes / 32);
            let mut delivery = answer(state, wire, body, &[Block::Text(text)], None, None);
            let whole: Vec<u8> = delivery.chunks.concat();
            delivery.chunks = vec![Bytes::copy_from_slice(&whole[..bytes.min(whole.len())])];
            Delivery { cut: true, ..delivery }
        }
        Act::Answer { blocks, tokens } => answer(state, wire, body, &blocks, tokens, step.drip),
    }
}

fn answer(
    state: &mut State,
    wire: Wire,
    request: &Value,
    blocks: &[Block],
    tokens: Option<(u64, u64)>,
    drip: Option<(usize, Duration)>,
) -> Delivery {
    let conversation = Conversation::read(wire, request);
    let content: Value = blocks.iter().map(|block| content_block(state, &conversation, block)).collect();
    if wire == Wire::Anthropic {
        state.sent.remember(&request["model"], &content);
    }
    state.last_id += 1;
    // Counts a token per four characters, as the providers' estimates do.
    let estimate = |text: String| text.len().div_ceil(4) as u64;
    let read = state.counter.map_or_else(|| estimate(request.to_string()), |(counter, _)| counter(request));
    let tokens = tokens.unwrap_or_else(|| (read, estimate(content.to_string())));
    let answer = Answer { model: &request["model"], id: state.last_id, content: &content, tokens };
    if request["stream"] != true {
        return Delivery::whole(200, "application/json", answer.whole(wire));
    }
    let stream = answer.stream(wire);
    let mut delivery = match state.odd.as_mut().and_then(|odd| odd.play(wire, stream.as_bytes())) {
        None => Delivery::whole(200, "text/event-stream", stream),
        Some(Oddity::Refusal(status, body)) => Delivery::whole(status, "application/json", body),
        Some(Oddity::Stream { bytes, cut }) => {
            let chunks = vec![Bytes::from(bytes)];
            Delivery { chunks, cut, ..Delivery::whole(200, "text/event-stream", String::new()) }
        }
    };
    if let Some((chunks, pause)) = drip {
        let whole: Vec<u8> = delivery.chunks.concat();
        let size = whole.len().div_ceil(chunks.max(1)).max(1);
        delivery.chunks = whole.chunks(size).map(Bytes::copy_from_slice).collect();
        delivery.pause = pause;
    }
    delivery
}

fn content_block(state: &mut State, conversation: &Conversation, block: &Block) -> Value {
    state.last_id += 1;
    match block {
        Block::Text(text) => json!({ "type": "text", "text": text }),
        Block::Quote(text) => {
            let results = conversation.last_results().join("\n");
            json!({ "type": "text", "text": format!("{text}\n{results}") })
        }
        Block::Thought(thought) => {
            let signature = format!("signature-{}", state.last_id);
            json!({ "type": "thinking", "thinking": thought, "signature": signature })
        }
        Block::Call { tool, input } => {
            json!({ "type": "tool_use", "id": format!("toolu_{:08}", state.last_id), "name": tool, "input": input })
        }
    }
}
