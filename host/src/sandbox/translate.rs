//! Translates a spec into a request of the engine's API, and an error of the API into an [`EngineError`].
//! `policy::sandbox_plan` gives the reasons for the values.

use std::time::Duration;

use bollard::errors::Error as Bollard;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::{EngineError, with_causes};
use crate::policy::sandbox_plan::{ContainerSpec, Mount};

pub(super) fn container(spec: &ContainerSpec) -> ContainerCreateBody {
    let fixed = &spec.fixed;
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(spec.entrypoint.clone()),
        // Without an empty command the engine would append the image's command to the entrypoint.
        cmd: Some(Vec::new()),
        user: Some(spec.user.clone()),
        working_dir: Some(spec.working_dir.clone()),
        env: Some(spec.env.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        hostname: Some(fixed.hostname.into()),
        healthcheck: Some(HealthConfig { test: Some(strings(fixed.health_check)), ..Default::default() }),
        stop_signal: Some(fixed.stop_signal.into()),
        network_disabled: Some(fixed.network == "none"),
        attach_stdin: Some(fixed.attached),
        attach_stdout: Some(fixed.attached),
        attach_stderr: Some(fixed.attached),
        open_stdin: Some(fixed.attached),
        tty: Some(fixed.attached),
        host_config: Some(host_config(spec)),
        ..Default::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let signed = |n: u64| Some(i64::try_from(n).unwrap_or(i64::MAX));
    let fixed = &spec.fixed;
    HostConfig {
        runtime: spec.runtime.clone(),
        network_mode: Some(fixed.network.into()),
        ipc_mode: Some(fixed.ipc.into()),
        cgroupns_mode: fixed.cgroup_namespace.parse::<HostConfigCgroupnsModeEnum>().ok(),
        privileged: Some(fixed.privileged),
        cap_drop: Some(strings(fixed.capabilities_dropped)),
        security_opt: Some(spec.security.clone()),
        readonly_rootfs: Some(fixed.read_only_root),
        init: Some(fixed.init),
        mounts: Some(spec.mounts.iter().map(mount).collect()),
        tmpfs: Some(spec.tmpfs.iter().map(|t| (t.target.clone(), t.options.clone())).collect()),
        memory: signed(spec.memory),
        memory_swap: signed(spec.memory),
        nano_cpus: signed(spec.nano_cpus),
        pids_limit: Some(i64::from(spec.pids)),
        shm_size: signed(spec.shm_bytes),
        ulimits: Some(
            spec.ulimits
                .iter()
                .map(|(name, value)| ResourcesUlimits {
                    name: Some((*name).to_owned()),
                    soft: signed(*value),
                    hard: signed(*value),
                })
                .collect(),
        ),
        log_config: Some(HostConfigLogConfig {
            typ: Some(fixed.log_driver.into()),
            config: Some(
                fixed.log_options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ),
        }),
        auto_remove: Some(fixed.auto_remove),
        restart_policy: Some(RestartPolicy {
            name: fixed.restart.parse::<RestartPolicyNameEnum>().ok(),
            maximum_retry_count: None,
        }),
        ..Default::default()
    }
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

/// Uses `Mounts` and never `Binds`, because with `Binds` the engine creates a missing source as a directory of root.
fn mount(m: &Mount) -> EngineMount {
    EngineMount {
        typ: Some(MountType::BIND),
        source: Some(m.source.to_string_lossy().into_owned()),
        target: Some(m.target.clone()),
        read_only: Some(!m.writable),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::PRIVATE),
            non_recursive: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Turns an error of the engine's client into a variant. The API has no error codes besides the HTTP status, so this
/// function reads the engine's text. Nothing else does.
pub(super) fn error(e: Bollard, what: &'static str, within: Duration, socket: &str) -> EngineError {
    match e {
        Bollard::DockerResponseServerError { message, status_code } => {
            refusal(message, status_code, what, socket)
        }
        Bollard::RequestTimeoutError => EngineError::Hangs { what, seconds: within.as_secs() },
        other => EngineError::Away { socket: socket.to_owned(), why: with_causes(&other) },
    }
}

fn refusal(message: String, status: u16, what: &'static str, socket: &str) -> EngineError {
    let lower = message.to_lowercase();
    let last_word =
        || message.trim_end().rsplit(' ').next().unwrap_or_default().trim_matches(['"', '.']).to_owned();
    let says = |text: &str| lower.contains(text);
    // "client version 1.41 is too new. Maximum supported API version is 1.30"
    if says("is too new") {
        return EngineError::TooOld { socket: socket.to_owned(), found: last_word() };
    }
    // "Unknown runtime specified runsc", "unknown or invalid runtime name: runsc"
    if says("unknown runtime") || says("invalid runtime name") {
        return EngineError::NoRuntime { runtime: last_word() };
    }
    // "No such image: sha256:…", also when a container is made from one
    if says("no such image") {
        return EngineError::NoImage { image: last_word() };
    }
    if let Some(source) = missing_source(&message) {
        return EngineError::NoMountSource { what, path: source.into(), why: message };
    }
    match status {
        404 => EngineError::Absent { what, why: message },
        // "Container … is not running"
        409 if says("is not running") => EngineError::NotRunning { what, why: message },
        // "removal of container … is already in progress"
        409 if says("already in progress") => EngineError::RemovalInProgress { what, why: message },
        _ => EngineError::Refused { what, why: message },
    }
}

/// The mount source that the engine or its runtime does not find: `bind source path does not exist: /x`,
/// `error mounting "/x" to rootfs at "/y": … no such file or directory`.
fn missing_source(message: &str) -> Option<&str> {
    if let Some((_, source)) = message.split_once("source path does not exist: ") {
        return Some(source.trim_end());
    }
    let (source, rest) = message.split_once("mounting \"")?.1.split_once('"')?;
    rest.contains("no such file or directory").then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_texts_become_variants() {
        let code = |status, message: &str| {
            let e = refusal(message.to_owned(), status, "do it", "unix:///s");
            (e.code(), e)
        };
        let (old, e) = code(400, "client version 1.41 is too new. Maximum supported API version is 1.30");
        assert!(old == "engine.too_old" && e.to_string().contains("speaks API 1.30"), "{e}");
        for text in ["Unknown runtime specified runsc", "unknown or invalid runtime name: runsc"] {
            assert!(matches!(code(400, text).1, EngineError::NoRuntime { runtime } if runtime == "runsc"));
        }
        let (_, e) = code(404, "No such image: sha256:0123");
        assert!(matches!(e, EngineError::NoImage { image } if image == "sha256:0123"));
        for text in [
            "invalid mount config for type \"bind\": bind source path does not exist: /srv/a b",
            "failed to create task: OCI runtime create failed: container_linux.go:380: error mounting \"/srv/a b\" to \
             rootfs at \"/mnt\": stat /srv/a b: no such file or directory: unknown",
        ] {
            let (_, e) = code(400, text);
            assert!(
                matches!(&e, EngineError::NoMountSource { path, .. } if path.as_os_str() == "/srv/a b"),
                "{e}"
            );
        }
        assert!(matches!(code(404, "No such container: x").1, EngineError::Absent { .. }));
        assert!(matches!(code(409, "Container x is not running").1, EngineError::NotRunning { .. }));
        let removing = "removal of container x is already in progress";
        assert!(matches!(code(409, removing).1, EngineError::RemovalInProgress { .. }));
        assert_eq!(code(500, "no space left on device").0, "engine.refused");
    }
}
