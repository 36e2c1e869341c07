//! What the kernel reports about this process and its control group.

use std::fs::read_to_string;
use std::path::Path;

use ipc_schema::probe_report::{Cgroup, Identity, NO_LIMIT, Rights, Rlimits};
use rustix::process::{Resource, getegid, geteuid, getgroups, getrlimit};
use rustix::thread::{SecureComputingMode, no_new_privs, secure_computing_mode};

/// Capability sets, in the order of the report.
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

pub(super) fn identity() -> Identity {
    let groups = getgroups().unwrap_or_default().into_iter().map(|g| g.as_raw()).collect();
    Identity { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups }
}

pub(super) fn rights() -> Rights {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    Rights {
        capabilities: SETS.into_iter().map(field).collect(),
        no_new_privileges: no_new_privs().unwrap_or(false),
        seccomp: match secure_computing_mode() {
            Ok(SecureComputingMode::Filter) => 2,
            Ok(SecureComputingMode::Strict) => 1,
            _ => 0,
        },
    }
}

/// Reads the limits from the container's own cgroup view, which is mounted read-only where the engine gives it a
/// namespace.
pub(super) fn cgroup() -> Cgroup {
    let base = Path::new("/sys/fs/cgroup");
    Cgroup::read(|controller, name| {
        let v1 = read_to_string(base.join(controller).join(name));
        v1.or_else(|_| read_to_string(base.join(name))).ok()
    })
}

pub(super) fn rlimits() -> Rlimits {
    let of = |resource| getrlimit(resource).maximum.unwrap_or(NO_LIMIT);
    Rlimits { nofile: of(Resource::Nofile), fsize: of(Resource::Fsize), core: of(Resource::Core) }
}

pub(super) fn machine_swap() -> bool {
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("SwapTotal:"));
    total.is_none_or(|total| total.trim() != "0 kB")
}

pub(super) fn processes() -> u32 {
    let names = super::filesystem::names("/proc");
    let count = names.iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn confinement() -> Option<String> {
    let text = read_to_string("/proc/self/attr/current").ok()?;
    let text = text.trim_matches(['\0', '\n', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_told() {
        let rights = rights();
        assert_eq!(rights.capabilities.len(), SETS.len());
        assert!(rights.capabilities.iter().flatten().all(|set| u64::from_str_radix(set, 16).is_ok()));
        assert!(processes() > 0 && rlimits().nofile > 0);
    }
}
