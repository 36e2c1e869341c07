//! The HTTP side: maps paths to calls, and results to answers.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::answer::{self, Answer, Refused};
use super::box_output::Stream;
use super::container::Container;
use super::containers::Containers;
use super::image::{self, Image};
use super::query::{Query, decoded};

/// The API version of Docker Engine 20.10, the oldest engine that the host supports.
const API: (u32, u32) = (1, 41);

/// The signals by the names that the engine accepts, with and without `SIG`.
const SIGNALS: [(&str, Signal); 7] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("TERM", Signal::TERM),
];

pub(super) async fn accept(listener: UnixListener, containers: Arc<Containers>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let containers = Arc::clone(&containers);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let containers = Arc::clone(&containers);
                async move { Ok::<_, Infallible>(serve(&containers, request).await) }
            });
            // A host that is killed breaks its connections.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        // Drops the tasks of closed connections.
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(containers: &Arc<Containers>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let query = Query::read(head.uri.query().unwrap_or_default());
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return Refused::new(400, format!("the body was cut: {e}")).answer(),
    };
    let answered = match unversioned(head.uri.path()) {
        Ok(path) => {
            let path: Vec<String> = path.split('/').skip(1).map(decoded).collect();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            call(containers, &head.method, &path, &query, &body).await
        }
        Err(refused) => Err(refused),
    };
    answered.unwrap_or_else(|refused| refused.answer())
}

/// Returns the path without `/v1.41`. Refuses a later version, as the engine does.
fn unversioned(path: &str) -> Result<&str, Refused> {
    let rest = path.strip_prefix("/v").and_then(|rest| rest.split_once('/'));
    let Some((version, rest)) = rest.filter(|(version, _)| version.starts_with(|c: char| c.is_ascii_digit()))
    else {
        return Ok(path);
    };
    let number = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    if number.is_none_or(|number: (u32, u32)| number > API) {
        let most = format!("Maximum supported API version is {}.{}", API.0, API.1);
        return Err(Refused::new(400, format!("client version {version} is too new. {most}")));
    }
    path.get(path.len() - rest.len() - 1..).ok_or_else(|| Refused::new(404, "page not found"))
}

async fn call(
    containers: &Arc<Containers>,
    method: &Method,
    path: &[&str],
    query: &Query,
    body: &[u8],
) -> Result<Answer, Refused> {
    match (method, path) {
        (&Method::GET, ["version"]) => Ok(answer::json(200, &version())),
        (&Method::GET, ["info"]) => Ok(answer::json(200, &info())),
        // A name may contain slashes: registry.example/tools/python
        (&Method::GET, ["images", name @ .., "json"]) => {
            Ok(answer::json(200, &Image::inspect(&name.join("/"))?))
        }
        (&Method::GET, ["containers", "json"]) => {
            let listed = containers.list(query.flag("all"), query.get("filters").unwrap_or_default())?;
            Ok(answer::json(200, &json!(listed)))
        }
        (&Method::POST, ["containers", "create"]) => create(containers, query, body),
        (&Method::DELETE, ["containers", id]) => {
            containers.remove(containers.find(id)?, query.flag("force")).await?;
            Ok(answer::empty(204))
        }
        (method, ["containers", id, verb]) => {
            let container = containers.find(id)?;
            of_one(containers, method, verb, &container, query).await
        }
        _ => Err(Refused::new(404, "page not found")),
    }
}

async fn of_one(
    containers: &Containers,
    method: &Method,
    verb: &str,
    container: &Arc<Container>,
    query: &Query,
) -> Result<Answer, Refused> {
    match (method, verb) {
        (&Method::GET, "json") => Ok(answer::json(200, &container.inspect())),
        (&Method::POST, "start") => {
            let started = container.start(&containers.setup).await?;
            Ok(answer::empty(if started { 204 } else { 304 }))
        }
        (&Method::POST, "wait") => wait(container, query),
        (&Method::POST, "kill") => {
            container.signal(signal(query.get("signal").unwrap_or("SIGKILL"))?).await?;
            Ok(answer::empty(204))
        }
        (&Method::GET, "logs") => logs(container, query),
        (&Method::GET, "archive") => {
            let file = Image::archive(&container.id, query.get("path").unwrap_or_default())?;
            Ok(answer::bytes(200, "application/x-tar", file))
        }
        _ => Err(Refused::new(404, "page not found")),
    }
}

fn create(containers: &Containers, query: &Query, body: &[u8]) -> Result<Answer, Refused> {
    let body: Value =
        serde_json::from_slice(body).map_err(|e| Refused::new(400, format!("invalid JSON: {e}")))?;
    let made = containers.create(query.get("name").filter(|name| !name.is_empty()), body)?;
    Ok(answer::json(201, &json!({ "Id": made.id, "Warnings": [] })))
}

fn wait(container: &Arc<Container>, query: &Query) -> Result<Answer, Refused> {
    match query.get("condition").unwrap_or_default() {
        "" | "not-running" => {
            let container = Arc::clone(container);
            Ok(answer::later(async move { json!({ "Error": null, "StatusCode": container.ended().await }) }))
        }
        other => Err(Refused::new(400, format!("invalid condition: \"{other}\""))),
    }
}

fn signal(name: &str) -> Result<Signal, Refused> {
    let upper = name.to_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = SIGNALS.into_iter().find(|(known, s)| *known == short || s.as_raw().to_string() == short);
    found.map(|(_, signal)| signal).ok_or_else(|| Refused::new(400, format!("Invalid signal: {name}")))
}

fn logs(container: &Container, query: &Query) -> Result<Answer, Refused> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Refused::new(400, "Bad parameters: you must choose at least one stream"));
    }
    let wanted = |stream| if stream == Stream::Stdout { stdout } else { stderr };
    // The engine reads every value that is not a number as "all".
    let tail = query.get("tail").and_then(|tail| tail.parse().ok());
    Ok(answer::bytes(200, "application/vnd.docker.raw-stream", container.frames(wanted, tail)))
}

fn version() -> Value {
    json!({
        "Platform": { "Name": "Lazaret's engine stand-in" },
        "Version": "20.10.0",
        "ApiVersion": format!("{}.{}", API.0, API.1),
        "MinAPIVersion": "1.12",
        "Os": "linux",
        "Arch": image::architecture(),
    })
}

fn info() -> Value {
    json!({
        "ID": "stand-in",
        "Name": "stand-in",
        "ServerVersion": "20.10.0",
        "OSType": "linux",
        "Driver": "tmpfs",
        "CgroupVersion": "1",
        "DefaultRuntime": "runc",
        "Runtimes": { "runc": { "path": "runc" } },
        "SecurityOptions": ["name=seccomp,profile=default"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_with_and_without_a_version() {
        assert_eq!(unversioned("/v1.41/info"), Ok("/info"));
        assert_eq!(unversioned("/version"), Ok("/version"));
        assert_eq!(unversioned("/containers/json"), Ok("/containers/json"));
        assert!(format!("{:?}", unversioned("/v1.47/info")).contains("is too new"));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for name in ["SIGTERM", "term", "15"] {
            assert_eq!(signal(name), Ok(Signal::TERM), "{name}");
        }
        assert_eq!(signal("SIGFOO"), Err(Refused::new(400, "Invalid signal: SIGFOO")));
    }
}
