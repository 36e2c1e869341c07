//! The order and the report of `agent-runner probe`, and the reading of cgroup limits that both sides share.
//!
//! Before agents run in containers of a posture, the host starts a container with that posture and the probe in it.
//! The probe reads a [`ProbeOrder`] from to-agent, writes a [`ProbeReport`] to from-agent and waits until the host
//! removes the container. The host compares the report with what it asked the engine for, because an engine may
//! accept a limit and not apply it. The report is no letter: there is no run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The file name of the order in to-agent and of the report in from-agent.
pub const FILE: &str = "0000000001-probe.json";

/// The name in [`ProbeReport::calls`] of the call that allocates disk space without writing (fallocate(2)).
pub const ALLOCATE_WITHOUT_WRITING: &str = "fallocate";

/// Stands for "no limit" in [`Cgroup`] and [`Rlimits`].
pub const NO_LIMIT: u64 = u64::MAX;

/// The host's order to the probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeOrder {
    /// The report repeats it, which proves that its writer read this order.
    pub nonce: String,
    /// IP addresses of the host, which the box must not reach.
    pub host_addresses: Vec<String>,
}

/// What the box can see and do, from inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// The nonce of the order.
    pub nonce: String,
    /// User and groups of the probe.
    pub identity: Identity,
    /// Capabilities and seccomp state.
    pub rights: Rights,
    /// System calls that must fail, with their outcome.
    pub calls: Vec<Attempt>,
    /// Names of network interfaces; only the loopback is expected.
    pub interfaces: Vec<String>,
    /// Connections that must fail.
    pub network: Vec<Attempt>,
    /// Directories and files, with the outcome of an attempt to write there.
    pub places: Vec<Attempt>,
    /// Files of the kernel and sockets of engines that must not be readable.
    pub secrets: Vec<Attempt>,
    /// The mount table.
    pub mounts: Vec<Mounted>,
    /// Limits of the control group as the box sees them.
    pub cgroup: Cgroup,
    /// Resource limits (getrlimit(2)) of the process.
    pub rlimits: Rlimits,
    /// Whether the machine has swap.
    pub machine_swap: bool,
    /// File names in /dev.
    pub devices: Vec<String>,
    /// Names of the environment variables.
    pub environment: Vec<String>,
    /// The number of visible processes.
    pub processes: u32,
    /// The profile of a security module such as AppArmor (`/proc/self/attr/current`).
    pub confinement: Option<String>,
}

/// User and groups of the probe's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Rights of the process (proc_pid_status(5)). Capability sets are in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// `CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb`; absent where the kernel does not report the set.
    pub capabilities: Vec<Option<String>>,
    /// Whether a program can gain rights by `execve`.
    pub no_new_privileges: bool,
    /// 0: none; 1: strict; 2: a filter.
    pub seccomp: u32,
}

/// One attempt and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// What was tried, such as `mount` or `tcp 1.1.1.1:443`.
    pub what: String,
    /// The error name, such as `EPERM`; absent when the attempt succeeded.
    pub refused: Option<String>,
}

/// One mount, from `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mounted {
    /// The mount point in the box.
    pub target: String,
    /// The mounted part of the filesystem; for a bind mount, the path on the host's disk.
    pub root: String,
    /// The filesystem type.
    pub kind: String,
    /// Options of the mount and of the filesystem.
    pub options: String,
    /// The size in bytes, of memory filesystems only.
    pub bytes: Option<u64>,
}

/// Limits of a control group; [`NO_LIMIT`] where there is none, absent where it cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cgroup {
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// Swap limit in bytes, without memory.
    pub swap: Option<u64>,
    /// Limit of processes and threads.
    pub pids: Option<u64>,
    /// CPU limit in thousandths of a processor.
    pub milli_cpus: Option<u64>,
}

/// Hard resource limits; [`NO_LIMIT`] where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rlimits {
    /// The most open files (RLIMIT_NOFILE).
    pub nofile: u64,
    /// The largest file in bytes (RLIMIT_FSIZE).
    pub fsize: u64,
    /// The largest core dump in bytes (RLIMIT_CORE).
    pub core: u64,
}

impl Cgroup {
    /// Reads the limits of cgroup version 1 or 2. `file` gets a controller and a file name and returns the file's
    /// text; it knows the version's directories.
    pub fn read(file: impl Fn(&str, &str) -> Option<String>) -> Self {
        let number = |controller: &str, name: &str| file(controller, name).and_then(|text| limit(&text));
        let memory =
            number("memory", "memory.max").or_else(|| number("memory", "memory.limit_in_bytes").map(v1_none));
        let both = number("memory", "memory.memsw.limit_in_bytes").map(v1_none);
        let swap = number("memory", "memory.swap.max").or_else(|| match (memory, both?) {
            (_, NO_LIMIT) => Some(NO_LIMIT),
            (memory, both) => Some(both.saturating_sub(memory?)),
        });
        let quota = file("cpu", "cpu.max").or_else(|| {
            let quota = file("cpu", "cpu.cfs_quota_us")?;
            Some(format!("{} {}", quota.trim(), file("cpu", "cpu.cfs_period_us")?.trim()))
        });
        Self { memory, swap, pids: number("pids", "pids.max"), milli_cpus: quota.and_then(|q| cpus(&q)) }
    }
}

fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(NO_LIMIT),
        number => number.parse().ok(),
    }
}

/// Version 1 writes "no limit" as the greatest number of whole pages.
fn v1_none(bytes: u64) -> u64 {
    if bytes >= 1 << 62 { NO_LIMIT } else { bytes }
}

/// Thousandths of a processor, from `quota period` in microseconds.
fn cpus(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    if quota == "max" || quota == "-1" {
        return Some(NO_LIMIT);
    }
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.checked_mul(1000)?.checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Cgroup {
        Cgroup::read(|_, name| files.iter().find(|(n, _)| *n == name).map(|(_, text)| format!("{text}\n")))
    }

    #[test]
    fn limits_are_read_from_both_versions_of_control_groups() {
        let wanted = Cgroup { memory: Some(1 << 30), swap: Some(0), pids: Some(256), milli_cpus: Some(1500) };
        let v2 = [
            ("memory.max", "1073741824"),
            ("memory.swap.max", "0"),
            ("pids.max", "256"),
            ("cpu.max", "150000 100000"),
        ];
        assert_eq!(read(&v2), wanted);
        let v1 = [
            ("memory.limit_in_bytes", "1073741824"),
            ("memory.memsw.limit_in_bytes", "1073741824"),
            ("pids.max", "256"),
            ("cpu.cfs_quota_us", "150000"),
            ("cpu.cfs_period_us", "100000"),
        ];
        assert_eq!(read(&v1), wanted);
    }

    #[test]
    fn a_limit_that_is_not_there_is_told_from_one_that_cannot_be_read() {
        let v1 = [
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.cfs_period_us", "100000"),
        ];
        let none = Some(NO_LIMIT);
        assert_eq!(read(&v1), Cgroup { memory: none, swap: none, pids: None, milli_cpus: none });
        assert_eq!(read(&[("memory.max", "max"), ("cpu.max", "max 100000")]).memory, none);
        assert_eq!(read(&[]), Cgroup::default());
        assert_eq!(read(&[("cpu.max", "1 0"), ("pids.max", "many")]), Cgroup::default());
    }

    #[test]
    fn a_report_says_no_more_than_it_was_asked_for() {
        assert!(serde_json::from_str::<Cgroup>(r#"{"memory":1,"is_main":true}"#).is_err());
        assert!(serde_json::from_str::<Attempt>(r#"{"what":"a","what":"b","refused":null}"#).is_err());
    }
}
