//! The part of a `POST /containers/create` body that the stand-in implements.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::Refused;

/// The part of a container's spec that the box's PID 1 needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BoxSpec {
    pub program: Vec<String>,
    /// The complete environment.
    pub env: Vec<String>,
    pub working_dir: String,
    pub hostname: String,
    pub uid: u32,
    pub gid: u32,
    pub read_only_root: bool,
    pub binds: Vec<Bind>,
    /// Target and options.
    pub tmpfs: Vec<(String, String)>,
    pub shm_bytes: u64,
    /// Name, soft limit and hard limit.
    pub ulimits: Vec<(String, u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bind {
    pub source: PathBuf,
    pub target: String,
    pub writable: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    image: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    hostname: Option<String>,
    user: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    host_config: Option<HostConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    readonly_rootfs: Option<bool>,
    mounts: Option<Vec<Mount>>,
    tmpfs: Option<HashMap<String, String>>,
    shm_size: Option<u64>,
    ulimits: Option<Vec<Ulimit>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mount {
    r#type: String,
    source: Option<PathBuf>,
    target: String,
    read_only: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    soft: u64,
    hard: u64,
}

/// The result of reading a valid body.
#[derive(Debug)]
pub(super) struct Wanted {
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub spec: BoxSpec,
}

/// Reads and checks a body. The first twelve characters of `id` are the default hostname.
pub(super) fn read(body: &Value, id: &str) -> Result<Wanted, Refused> {
    let body = Body::deserialize(body).map_err(|e| Refused::new(400, format!("invalid JSON: {e}")))?;
    let host = body.host_config.unwrap_or_default();
    let mut program = body.entrypoint.unwrap_or_default();
    program.extend(body.cmd.unwrap_or_default());
    if program.is_empty() {
        return Err(Refused::new(400, "No command specified"));
    }
    let (uid, gid) = user(body.user.as_deref().unwrap_or_default())?;
    let binds = host.mounts.unwrap_or_default().into_iter().map(bind).collect::<Result<_, _>>()?;
    let mut tmpfs: Vec<_> = host.tmpfs.unwrap_or_default().into_iter().collect();
    tmpfs.sort();
    let short: String = id.chars().take(12).collect();
    let spec = BoxSpec {
        program,
        env: body.env.unwrap_or_default(),
        working_dir: body.working_dir.filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into()),
        hostname: body.hostname.filter(|name| !name.is_empty()).unwrap_or(short),
        uid,
        gid,
        read_only_root: host.readonly_rootfs == Some(true),
        binds,
        tmpfs,
        shm_bytes: host.shm_size.filter(|bytes| *bytes > 0).unwrap_or(64 << 20),
        ulimits: host.ulimits.unwrap_or_default().into_iter().map(|u| (u.name, u.soft, u.hard)).collect(),
    };
    Ok(Wanted { image: body.image.unwrap_or_default(), labels: body.labels.unwrap_or_default(), spec })
}

/// Reads a user as `uid:gid` in numbers. The image knows no other users.
fn user(text: &str) -> Result<(u32, u32), Refused> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse().ok() };
    let unknown =
        || Refused::new(400, format!("unable to find user {uid}: no matching entries in passwd file"));
    number(uid).zip(number(gid)).ok_or_else(unknown)
}

fn bind(mount: Mount) -> Result<Bind, Refused> {
    let invalid = |why: String| {
        Err(Refused::new(400, format!("invalid mount config for type \"{}\": {why}", mount.r#type)))
    };
    let source = mount.source.unwrap_or_default();
    if mount.r#type != "bind" {
        return invalid("the stand-in has bind mounts only".into());
    }
    if !source.is_absolute() || !Path::new(&mount.target).is_absolute() {
        return invalid(format!("invalid mount path: '{}' mount path must be absolute", source.display()));
    }
    if !source.exists() {
        return invalid(format!("bind source path does not exist: {}", source.display()));
    }
    Ok(Bind { source, target: mount.target, writable: mount.read_only != Some(true) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_becomes_a_box() {
        let wanted = read(
            &json!({
                "Image": "i", "Entrypoint": ["/lazaret/agent-runner", "run"], "Cmd": [], "User": "70001:20000",
                "Labels": { "a": "b" }, "Healthcheck": null,
                "HostConfig": {
                    "ReadonlyRootfs": true, "Tmpfs": { "/tmp": "rw,size=1m" }, "ShmSize": 16,
                    "Mounts": [{ "Type": "bind", "Source": "/tmp", "Target": "/in", "ReadOnly": true }],
                    "Ulimits": [{ "Name": "core", "Soft": 0, "Hard": 0 }],
                },
            }),
            "0123456789abcdef",
        );
        let spec = wanted.unwrap().spec;
        assert_eq!((spec.uid, spec.gid, spec.read_only_root), (70_001, 20_000, true));
        assert_eq!((spec.hostname.as_str(), spec.working_dir.as_str()), ("0123456789ab", "/"));
        assert_eq!(spec.binds, [Bind { source: "/tmp".into(), target: "/in".into(), writable: false }]);
        assert_eq!(spec.ulimits, [("core".into(), 0, 0)]);
    }

    #[test]
    fn what_cannot_be_a_box_is_refused_in_the_engines_words() {
        let refused = |body: Value| read(&body, "x").unwrap_err();
        let mount = |mount: Value| json!({ "Cmd": ["/x"], "HostConfig": { "Mounts": [mount] } });
        assert_eq!(refused(json!({ "Image": "i" })), Refused::new(400, "No command specified"));
        assert_eq!(
            refused(mount(json!({ "Type": "bind", "Source": "/no/such", "Target": "/in" }))),
            Refused::new(
                400,
                "invalid mount config for type \"bind\": bind source path does not exist: /no/such"
            )
        );
        for bad in [
            mount(json!({ "Type": "volume", "Target": "/in" })),
            mount(json!({ "Type": "bind", "Source": "relative", "Target": "/in" })),
            json!({ "Cmd": ["/x"], "User": "ann" }),
            json!({ "Cmd": "/x" }),
        ] {
            assert!(read(&bad, "x").is_err(), "{bad}");
        }
    }
}
