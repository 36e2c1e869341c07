//! Compares the start of a hardened box with `docker run --network none` of the same image.
//!
//! The body of the hardened box comes from a real host: a proxy copies the call with which the host creates the box of
//! a turn. That turn stays open during the measurement, so the mounts of the body exist. Both kinds are created through
//! the same API and run the same program (`/bin/true`). The measured time begins with the call that creates the box and
//! ends when its end is known, as with `docker run`.
//!
//! The engine makes a network sandbox even for `none`: a hook of runc runs the engine's binary once more. The host sets
//! `NetworkDisabled`, which gives the box the same empty namespace without this step. This switch would hide a part of
//! the posture's cost, so the benchmark also measures a plain box with the same switch and reports it as `bare_ms`. No
//! goal applies to `bare_ms`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hyper::Method;
use serde_json::{Value, json};

use super::median;
use crate::engine::{Proxy, ask};
use crate::model::Gate;
use crate::world::{Engine, World};

/// The highest accepted ratio of the median of a hardened start to that of a plain start.
const GOAL: f64 = 1.10;
/// Warm-up starts of each kind, which are not counted.
const WARM: usize = 3;

/// A kind of box: its name, its body, and the duration of each start in milliseconds.
struct Kind {
    name: String,
    body: Value,
    took: Vec<f64>,
}

impl Kind {
    fn new(name: impl Into<String>, body: Value) -> Self {
        Self { name: name.into(), body, took: Vec::new() }
    }

    fn median(&self) -> f64 {
        median(self.took.clone())
    }
}

/// Measures `n` starts of each kind and prints one line. With `parts` it also prints the cost of each part of the
/// posture: how much slower the bare box starts with only this part, and how much faster the hardened box starts
/// without it.
pub async fn start(image: &str, n: usize, parts: bool) {
    let engine = Engine::docker();
    let socket = PathBuf::from(engine.socket().trim_start_matches("unix://"));
    let between = Proxy::new(&engine.socket(), |_| {});
    let settings = [("DOCKER_HOST", between.socket()), ("LAZARET_IMAGE", image.to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (world, ann, direct) = World::ann_at_home(engine, &settings).await;
    let gate = Gate::new();
    world.model.on("hold").waits_for(&gate).says("Done.");
    ann.says(&direct, "hold");
    world.soon("the turn is open", gate.arrived()).await;
    // The engine made the first box for the posture's trial, and the last one for the turn.
    let Some(body) = between.created().pop() else { panic!("the host has made no box") };
    let hardened = with(body, "Entrypoint", json!(["/bin/true"]));
    // With these labels, the boxes of an interrupted benchmark are found and removed.
    let plain = json!({
        "Labels": hardened["Labels"],
        "Image": hardened["Image"], "Entrypoint": ["/bin/true"], "Cmd": [],
        "HostConfig": { "NetworkMode": "none" },
    });
    let bare = with(plain.clone(), "NetworkDisabled", json!(true));
    let mut kinds = vec![Kind::new("plain", plain), Kind::new("hardened", hardened), Kind::new("bare", bare)];
    if parts {
        kinds.extend(one_more(&kinds[2].body, &kinds[1].body));
        kinds.extend(one_less(&kinds[1].body));
    }
    in_turns(&socket, &mut kinds, n).await;
    gate.open();
    assert_eq!(world.hears(&direct).await, "Done.");
    world.finish().await;
    tell(image, &kinds, n);
}

fn tell(image: &str, kinds: &[Kind], n: usize) {
    let rounded = |ms: f64| (ms * 10.0).round() / 10.0;
    let (plain, hardened, bare) = (kinds[0].median(), kinds[1].median(), kinds[2].median());
    let ratio = (hardened / plain * 1000.0).round() / 1000.0;
    for kind in kinds.iter().skip(3) {
        let than = if kind.name.starts_with('+') { bare } else { hardened };
        let line = json!({ "what": "start", "part": kind.name, "ms": rounded(kind.median()),
                           "difference_ms": rounded(kind.median() - than) });
        println!("{line}");
    }
    let line = json!({
        "what": "start", "image": image, "hardened_ms": rounded(hardened), "plain_ms": rounded(plain), "bare_ms": rounded(bare),
        "ratio": ratio, "goal": GOAL, "held": ratio <= GOAL, "n": n,
    });
    println!("{line}");
}

fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

/// The parts of the posture, and the fields of the body that switch each of them on.
const PARTS: [(&str, &[&str]); 9] = [
    ("seccomp and no-new-privileges", &["SecurityOpt"]),
    ("capabilities", &["CapDrop"]),
    ("read-only root", &["ReadonlyRootfs"]),
    ("init", &["Init"]),
    ("mounts", &["Mounts"]),
    ("tmpfs", &["Tmpfs", "ShmSize"]),
    ("limits", &["Memory", "MemorySwap", "NanoCpus", "PidsLimit", "Ulimits"]),
    ("namespaces", &["IpcMode", "CgroupnsMode"]),
    ("log driver", &["LogConfig"]),
];

fn one_more(bare: &Value, hardened: &Value) -> Vec<Kind> {
    let added = PARTS.iter().map(|(name, fields)| {
        let mut body = bare.clone();
        for field in *fields {
            body["HostConfig"][*field] = hardened["HostConfig"][*field].clone();
        }
        Kind::new(format!("+ {name}"), body)
    });
    added.collect()
}

fn one_less(hardened: &Value) -> Vec<Kind> {
    let left_out = PARTS.iter().map(|(name, fields)| {
        let mut body = hardened.clone();
        if let Some(host) = body["HostConfig"].as_object_mut() {
            host.retain(|field, _| !fields.contains(&field.as_str()));
        }
        Kind::new(format!("- {name}"), body)
    });
    left_out.collect()
}

/// Starts one box of each kind per round. Every other round has the reverse order, so that changes on the machine
/// affect all kinds alike.
async fn in_turns(socket: &Path, kinds: &mut [Kind], n: usize) {
    for round in 0..WARM + n {
        let mut order: Vec<usize> = (0..kinds.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let took =
                one_start(socket, &kinds[at].body, &format!("lazaret-bench-{}", uuid::Uuid::now_v7())).await;
            if round >= WARM {
                kinds[at].took.push(took);
            }
        }
    }
}

async fn one_start(socket: &Path, body: &Value, name: &str) -> f64 {
    let call =
        async |method: Method, path: String, body: Option<&Value>| match ask(socket, method, &path, body)
            .await
        {
            Ok(answered) if answered.status < 300 => answered.json(),
            other => panic!("{path}: {other:?}"),
        };
    let began = Instant::now();
    let made = call(Method::POST, format!("/v1.41/containers/create?name={name}"), Some(body)).await;
    let id = made["Id"].as_str().unwrap_or_default().to_owned();
    call(Method::POST, format!("/v1.41/containers/{id}/start"), None).await;
    let ended = call(Method::POST, format!("/v1.41/containers/{id}/wait"), None).await;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    call(Method::DELETE, format!("/v1.41/containers/{id}?force=1&v=1"), None).await;
    assert_eq!(ended["StatusCode"], 0, "{name}: {body}");
    took
}
