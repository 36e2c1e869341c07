//! A server that stands in for an endpoint of speech models. It takes what OpenAI's takes, as `multipart/form-data`,
//! and refuses what that one refuses.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::telegram::read_form;

/// The key that the server takes.
pub const SPEECH_KEY: &str = "sk-speech-0123456789abcdef";
/// The endings of names that tell the server the format.
const FORMATS: [&str; 10] = ["flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "oga", "wav", "webm"];
const MOST_BYTES: usize = 25 * 1024 * 1024;

#[derive(Debug, Clone, Default)]
enum Does {
    #[default]
    Nothing,
    Says(String),
    Hangs,
    Refuses(u16, String),
}

#[derive(Debug, Default)]
struct State {
    does: Does,
    heard: Vec<Recording>,
}

/// A recording that the server was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    pub bytes: Vec<u8>,
    pub language: Option<String>,
}

pub struct SpeechServer {
    state: Arc<Mutex<State>>,
    address: std::net::SocketAddr,
    /// Dropping it ends the server.
    _accepting: JoinSet<()>,
}

impl SpeechServer {
    pub async fn start() -> Self {
        let listener = match TcpListener::bind(("127.0.0.1", 0)).await {
            Ok(listener) => listener,
            Err(e) => panic!("no port for a speech server: {e}"),
        };
        let Ok(address) = listener.local_addr() else { panic!("the speech server has no address") };
        let state = Arc::new(Mutex::new(State::default()));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&state)));
        Self { state, address, _accepting: accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What it hears in every recording from now on.
    pub fn says(&self, text: &str) {
        locked(&self.state).does = Does::Says(text.to_owned());
    }

    /// It takes recordings and never answers.
    pub fn hangs(&self) {
        locked(&self.state).does = Does::Hangs;
    }

    pub fn refuses(&self, status: u16, message: &str) {
        locked(&self.state).does = Does::Refuses(status, message.to_owned());
    }

    /// The recordings so far.
    pub fn heard(&self) -> Vec<Recording> {
        locked(&self.state).heard.clone()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(serve(&state, request).await) }
            });
            // A host that was killed breaks the connection.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn serve(state: &Mutex<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let header =
        |name| head.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if head.method != Method::POST || head.uri.path() != "/v1/audio/transcriptions" {
        return refused(404, &format!("Invalid URL ({} {})", head.method, head.uri.path()));
    }
    if header(AUTHORIZATION) != format!("Bearer {SPEECH_KEY}") {
        return refused(401, "Incorrect API key provided");
    }
    let Some((form, file)) = read_form(header(CONTENT_TYPE), &bytes) else {
        return refused(400, "Could not parse multipart form");
    };
    if form["model"].as_str().is_none_or(str::is_empty) {
        return refused(400, "you must provide a model parameter");
    }
    if form["response_format"] != "json" {
        return refused(400, "this test reads json only");
    }
    let Some(file) = file.filter(|file| !file.bytes.is_empty()) else {
        return refused(400, "file: field required");
    };
    if file.bytes.len() > MOST_BYTES {
        return refused(413, "Maximum content size limit (26214400) exceeded");
    }
    if file.name.rsplit_once('.').is_none_or(|(_, ending)| !FORMATS.contains(&ending)) {
        return refused(400, "Unrecognized file format");
    }
    let language = form["language"].as_str().map(str::to_owned);
    let does = {
        let mut state = locked(state);
        state.heard.push(Recording { bytes: file.bytes, language });
        state.does.clone()
    };
    match does {
        Does::Hangs => std::future::pending().await,
        Does::Refuses(status, message) => refused(status, &message),
        Does::Says(text) => {
            answer(200, &json!({ "text": text, "usage": { "type": "duration", "seconds": 3 } }))
        }
        Does::Nothing => answer(200, &json!({ "text": "" })),
    }
}

fn refused(status: u16, message: &str) -> Response<Full<Bytes>> {
    let error = json!({ "message": message, "type": "invalid_request_error", "param": null, "code": null });
    answer(status, &json!({ "error": error }))
}

fn answer(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
