//! What the posture costs a box's start, against `docker run --network none` of the same image.
//!
//! The hardened box is the host's own: its body is taken from the call with which a real host makes the box of a turn
//! that is held open meanwhile, so that its mounts are real. Both sides are asked for through the same API, run the
//! same program (`/bin/true`), and are measured from the call that makes the box until its end is known, as
//! `docker run` is.
//!
//! The engine makes a network sandbox even for `none`, by running itself once more in a hook of runc. The host says
//! `NetworkDisabled`, which gives the box the same empty namespace without that. So that this does not hide what the
//! posture costs, a plain box with the same switch is measured too and told as `bare_ms`; no goal is held against it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hyper::Method;
use serde_json::{Value, json};

use super::median;
use crate::engine::{Proxy, ask};
use crate::model::Gate;
use crate::world::{Engine, World};

/// What it may cost.
const GOAL: f64 = 1.10;
/// Starts that are not counted, of each kind.
const WARM: usize = 3;

/// A kind of box: its name, its body, and what its starts took in milliseconds.
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

/// Measures `n` starts of each side and prints one line; with `parts`, also what each part of the posture costs when it
/// alone is added to the bare box, and saves when it alone is left out.
///
/// # Panics
/// When the host, the engine or a box does not do what it should.
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
    // The first was on trial, the last is the turn's.
    let Some(body) = between.created().pop() else { panic!("the host has made no box") };
    let hardened = with(body, "Entrypoint", json!(["/bin/true"]));
    // The labels by which what a broken run leaves is found and removed.
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

/// Parts of the posture, by the fields that make them.
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

/// One start of each kind, then the next round in the other direction: what changes on the machine meets all alike.
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
