//! Our spec in the engine's words. `policy::sandbox_plan` says why each value is what it is.

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use crate::policy::sandbox_plan::{ContainerSpec, Mount};

pub(super) fn container(spec: &ContainerSpec) -> ContainerCreateBody {
    let fixed = &spec.fixed;
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(spec.entrypoint.clone()),
        // An empty command, or the image's own would be appended to our entrypoint.
        cmd: Some(Vec::new()),
        user: Some(spec.user.clone()),
        working_dir: Some(spec.working_dir.clone()),
        env: Some(spec.env.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        hostname: Some(fixed.hostname.into()),
        healthcheck: Some(HealthConfig { test: Some(words(fixed.health_check)), ..Default::default() }),
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
        cap_drop: Some(words(fixed.capabilities_dropped)),
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

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
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
