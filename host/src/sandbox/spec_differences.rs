//! Compares the engine's description of a box with the request. This detects a field that an old engine ignored, and
//! one that a program between the host and the engine added.

use serde_json::{Map, Value};

use bollard::models::{ContainerCreateBody, ContainerInspectResponse};

use crate::policy::posture::Difference;

/// Fields of `HostConfig` that the engine sets itself. The probe checks each of them from inside the box.
const ENGINES_OWN: [&str; 6] =
    ["CgroupParent", "ConsoleSize", "Isolation", "MaskedPaths", "ReadonlyPaths", "Runtime"];

/// Objects to which the engine adds values of the image: labels, and the intervals of the disabled health check.
const IMAGES_TOO: [&str; 2] = ["Labels", "Healthcheck"];

/// Every field that differs from the request or was not in it.
pub(super) fn differences(asked: &ContainerCreateBody, told: &ContainerInspectResponse) -> Vec<Difference> {
    let object = |value: Result<Value, _>| match value {
        Ok(Value::Object(map)) => map,
        Ok(_) | Err(serde_json::Error { .. }) => Map::new(),
    };
    let mut config = object(serde_json::to_value(asked));
    let host = object(serde_json::to_value(&asked.host_config));
    config.remove("HostConfig");
    // The engine adds the image's labels and environment. Those of the request must be there.
    let told_config = object(serde_json::to_value(&told.config));
    let told_host = object(serde_json::to_value(&told.host_config));
    let mut found = Vec::new();
    for (name, asked) in &config {
        let told = told_config.get(name).unwrap_or(&Value::Null);
        if !holds(name, asked, told) {
            found.push(difference(name, asked, told));
        }
    }
    for (name, asked) in &host {
        let told = told_host.get(name).unwrap_or(&Value::Null);
        if !holds(name, asked, told) {
            found.push(difference(&format!("HostConfig.{name}"), asked, told));
        }
    }
    // A field that was not in the request must be empty: no device, no added capability, no namespace of the host.
    for (name, told) in &told_host {
        if !host.contains_key(name) && !is_nothing(told) && !ENGINES_OWN.contains(&name.as_str()) {
            found.push(difference(&format!("HostConfig.{name}"), &Value::Null, told));
        }
    }
    found
}

/// The names of a box's environment variables.
pub(super) fn environment(told: &ContainerInspectResponse) -> Vec<String> {
    let all = told.config.as_ref().and_then(|c| c.env.as_ref());
    all.into_iter().flatten().filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect()
}

fn difference(field: &str, asked: &Value, told: &Value) -> Difference {
    // A seccomp profile is pages long.
    let short = |value: &Value| value.to_string().chars().take(160).collect();
    Difference { field: field.to_owned(), asked: short(asked), told: short(told) }
}

/// Whether a value is the requested one. All forms of an empty value are equal. Additional members of an object or a
/// list are a difference, except for labels, environment, and members that the engine's defaults add.
fn holds(name: &str, asked: &Value, told: &Value) -> bool {
    match (asked, told) {
        _ if is_nothing(asked) && is_nothing(told) => true,
        (Value::Object(asked), Value::Object(told)) => {
            asked.iter().all(|(key, value)| holds(key, value, told.get(key).unwrap_or(&Value::Null)))
                && (IMAGES_TOO.contains(&name)
                    || told.iter().all(|(key, value)| asked.contains_key(key) || is_nothing(value)))
        }
        (Value::Array(asked), Value::Array(told)) if name == "Env" => {
            asked.iter().all(|pair| told.contains(pair))
        }
        (Value::Array(asked), Value::Array(told)) => {
            asked.len() == told.len() && asked.iter().zip(told).all(|(a, t)| holds("", a, t))
        }
        (asked, told) => asked == told,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        // Some fields use -1 for the kernel's default.
        Value::Number(number) => number.as_i64().is_some_and(|n| n == 0 || n == -1),
        Value::String(text) => text.is_empty() || text == "default",
        Value::Array(list) => list.iter().all(is_nothing),
        Value::Object(map) => map.values().all(is_nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::RunLimits;
    use crate::policy::sandbox_plan;
    use serde_json::json;

    fn asked() -> ContainerCreateBody {
        super::super::translate::container(&sandbox_plan::for_tests(&RunLimits::default()))
    }

    /// The report of an engine that made the box as requested, with a change.
    fn told(change: impl FnOnce(&mut Value)) -> ContainerInspectResponse {
        let mut config = serde_json::to_value(asked()).unwrap();
        let host = config.as_object_mut().unwrap().remove("HostConfig").unwrap();
        let mut told = json!({ "Config": config, "HostConfig": host });
        change(&mut told);
        serde_json::from_value(told).unwrap()
    }

    fn fields(change: impl FnOnce(&mut Value)) -> Vec<String> {
        differences(&asked(), &told(change)).into_iter().map(|d| d.field).collect()
    }

    #[test]
    fn an_engine_that_obeys_tells_what_it_was_asked() {
        assert_eq!(fields(|_| {}), Vec::<String>::new());
        let by_default = fields(|t| {
            t["HostConfig"]["Binds"] = json!(null);
            t["HostConfig"]["Devices"] = json!([]);
            t["HostConfig"]["PidMode"] = json!("");
            t["HostConfig"]["MemorySwappiness"] = json!(-1);
            t["HostConfig"]["Runtime"] = json!("runc");
            t["HostConfig"]["CgroupParent"] = json!("");
            t["HostConfig"]["MaskedPaths"] = json!(["/proc/kcore"]);
            t["HostConfig"]["RestartPolicy"]["MaximumRetryCount"] = json!(0);
            t["Config"]["Domainname"] = json!("");
            t["Config"]["Labels"]["of.the.image"] = json!("yes");
            t["Config"]["Healthcheck"]["Interval"] = json!(1_000_000_000);
            t["Config"]["Env"].as_array_mut().unwrap().push(json!("PYTHON_VERSION=3.12"));
        });
        assert_eq!(by_default, Vec::<String>::new());
    }

    #[test]
    fn a_field_that_was_ignored_is_found() {
        for field in [
            "NetworkMode",
            "IpcMode",
            "CgroupnsMode",
            "CapDrop",
            "SecurityOpt",
            "ReadonlyRootfs",
            "Init",
            "Mounts",
            "Tmpfs",
            "Memory",
            "MemorySwap",
            "NanoCpus",
            "PidsLimit",
            "ShmSize",
            "Ulimits",
            "LogConfig",
            "RestartPolicy",
        ] {
            let found = fields(|t| drop(t["HostConfig"].as_object_mut().unwrap().remove(field)));
            assert_eq!(found, [format!("HostConfig.{field}")]);
        }
        for field in [
            "User",
            "Entrypoint",
            "WorkingDir",
            "Healthcheck",
            "StopSignal",
            "Env",
            "Labels",
            "NetworkDisabled",
        ] {
            let found = fields(|t| drop(t["Config"].as_object_mut().unwrap().remove(field)));
            assert_eq!(found, [field]);
        }
        let rw = fields(|t| t["HostConfig"]["Mounts"][0]["ReadOnly"] = json!(false));
        assert_eq!(rw, ["HostConfig.Mounts"]);
        let fewer = fields(|t| drop(t["HostConfig"]["Ulimits"].as_array_mut().unwrap().pop()));
        assert_eq!(fewer, ["HostConfig.Ulimits"]);
    }

    #[test]
    fn c11_c12_what_was_not_asked_for_is_found() {
        for (field, value) in [
            ("Privileged", json!(true)),
            ("CapAdd", json!(["SYS_ADMIN"])),
            ("Binds", json!(["/:/host"])),
            ("PidMode", json!("host")),
            ("UTSMode", json!("host")),
            ("UsernsMode", json!("host")),
            ("NetworkMode", json!("container:other")),
            ("GroupAdd", json!(["docker"])),
            (
                "Devices",
                json!([{ "PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm", "CgroupPermissions": "rwm" }]),
            ),
            ("VolumesFrom", json!(["other"])),
            ("ExtraHosts", json!(["metadata:169.254.169.254"])),
            ("Sysctls", json!({ "net.ipv4.ip_forward": "1" })),
            ("AutoRemove", json!(true)),
            ("SecurityOpt", json!(["seccomp=unconfined"])),
        ] {
            assert_eq!(fields(|t| t["HostConfig"][field] = value), [format!("HostConfig.{field}")]);
        }
    }
}
