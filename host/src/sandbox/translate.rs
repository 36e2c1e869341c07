//! Our spec in the engine's words. `policy::sandbox_plan` says why each value is what it is.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use crate::policy::sandbox_plan::{ContainerSpec, Mount};

pub(super) fn container(spec: &ContainerSpec) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(spec.entrypoint.clone()),
        // An empty command, or the image's own would be appended to our entrypoint.
        cmd: Some(Vec::new()),
        user: Some(spec.user.clone()),
        working_dir: Some(spec.working_dir.clone()),
        env: Some(spec.env.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        hostname: Some("box".into()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        stop_signal: Some("SIGTERM".into()),
        network_disabled: Some(true),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        open_stdin: Some(false),
        tty: Some(false),
        host_config: Some(host_config(spec)),
        ..Default::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let signed = |n: u64| Some(i64::try_from(n).unwrap_or(i64::MAX));
    HostConfig {
        network_mode: Some("none".into()),
        ipc_mode: Some("private".into()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(spec.security.clone()),
        readonly_rootfs: Some(true),
        init: Some(true),
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
            typ: Some("local".into()),
            config: Some(HashMap::from([("max-size".into(), "1m".into()), ("max-file".into(), "2".into())])),
        }),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        ..Default::default()
    }
}

/// A bind by `Mounts`, never by `Binds`: a missing source is an error, not a directory made by root.
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
