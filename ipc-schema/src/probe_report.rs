//! What a probe is told and what it reports: the box looked at from inside, before an agent is let into it.
//!
//! A probe box has the posture of a group's runs and one program, `agent-runner probe`. It takes its order from
//! to-agent, writes its report to from-agent and waits to be removed. The host holds the report against what it asked
//! the engine for, because an engine may take a limit and not keep it. The report is no letter: there is no run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The file name of the order in to-agent, and of the report in from-agent.
pub const FILE: &str = "0000000001-probe.json";

/// Among the calls, the one that takes room on the disk without writing it (fallocate(2)).
pub const ALLOCATE_WITHOUT_WRITING: &str = "fallocate";

/// A limit that is not there.
pub const NO_LIMIT: u64 = u64::MAX;

/// What the host wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeOrder {
    /// The report says it again: whoever wrote it has read what the host wrote.
    pub nonce: String,
    /// Addresses of the host itself, which the box must not reach.
    pub host_addresses: Vec<String>,
}

/// What the box is, from inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// The order's.
    pub nonce: String,
    /// Who the program is.
    pub identity: Identity,
    /// What it may do by right.
    pub rights: Rights,
    /// System calls that an agent has no use for.
    pub calls: Vec<Attempt>,
    /// Network interfaces.
    pub interfaces: Vec<String>,
    /// Ways to others: none of them may be done.
    pub network: Vec<Attempt>,
    /// Places, and whether something can be written there.
    pub places: Vec<Attempt>,
    /// Files of the kernel and of engines that must not be opened: none of them may be done.
    pub secrets: Vec<Attempt>,
    /// What is mounted.
    pub mounts: Vec<Mounted>,
    /// Limits of the control group, as the box sees them.
    pub cgroup: Cgroup,
    /// Resource limits of the process.
    pub rlimits: Rlimits,
    /// Whether the machine has swap at all.
    pub machine_swap: bool,
    /// Names in /dev.
    pub devices: Vec<String>,
    /// Names of the environment.
    pub environment: Vec<String>,
    /// Processes that can be seen.
    pub processes: u32,
    /// The confinement of a security module, as `/proc/self/attr/current` tells it.
    pub confinement: Option<String>,
}

/// Who the probe is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Groups beside that.
    pub groups: Vec<u32>,
}

/// What the kernel grants (proc_pid_status(5)). Sets of capabilities are in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// `CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb`; absent where the kernel does not tell.
    pub capabilities: Vec<Option<String>>,
    /// Whether a program can gain rights by `execve`.
    pub no_new_privileges: bool,
    /// 0: none; 1: strict; 2: a filter.
    pub seccomp: u32,
}

/// Something that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// What.
    pub what: String,
    /// What the system said against it; absent when it was done.
    pub refused: Option<String>,
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mounted {
    /// Where, in the box.
    pub target: String,
    /// Which part of its filesystem: of a bind mount, the path on the host's disk.
    pub root: String,
    /// Its filesystem.
    pub kind: String,
    /// Options of the mount and of the filesystem.
    pub options: String,
    /// Its size in bytes; of memory filesystems only.
    pub bytes: Option<u64>,
}

/// Limits of a control group; [`NO_LIMIT`] where there is none, absent where it cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cgroup {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Swap beside it, in bytes.
    pub swap: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processors in thousandths.
    pub milli_cpus: Option<u64>,
}

/// Resource limits, soft and hard being the same; [`NO_LIMIT`] where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rlimits {
    /// Open files.
    pub nofile: u64,
    /// The largest file, in bytes.
    pub fsize: u64,
    /// The largest core dump, in bytes.
    pub core: u64,
}

impl Cgroup {
    /// Reads the limits through `file`, which is given a controller and a file's name, and knows which version and
    /// which directory that means: version 1 has a tree for each controller, version 2 one for all.
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

/// Version 1 says "no limit" with the greatest number of whole pages.
fn v1_none(bytes: u64) -> u64 {
    if bytes >= 1 << 62 { NO_LIMIT } else { bytes }
}

/// `quota period`, both in microseconds.
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
