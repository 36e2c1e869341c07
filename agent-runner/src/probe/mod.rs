//! `agent-runner probe`: reports what this container can see and do, from inside.
//!
//! The host runs it in a container with the posture of a group's runs, before any agent runs in such a container. The
//! report repeats the host's nonce. The probe then waits to be removed, so that the host can also inspect the running
//! container from outside.
//!
//! It tries only what it can survive succeeding at: the container that it might damage is its own and is never used
//! again. Calls without a safe wrapper (`bpf`, `ptrace`, `keyctl`, `userfaultfd`) are not tried.

mod filesystem;
mod network;
mod process_and_limits;
mod syscalls;

use std::process::ExitCode;
use std::time::Duration;

use ipc_schema::letter_writer::LetterDir;
use ipc_schema::probe_report::{FILE, ProbeOrder, ProbeReport};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::umask;

use crate::box_paths::BoxPaths;

/// How long the probe waits for its removal. If the host died, its successor removes the container.
const LIFETIME: Duration = Duration::from_secs(120);

pub fn run(paths: &BoxPaths) -> ExitCode {
    umask(Mode::from_raw_mode(0o007));
    match report(paths) {
        Ok(()) => {
            std::thread::sleep(LIFETIME);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("probe: {why}");
            ExitCode::FAILURE
        }
    }
}

fn report(paths: &BoxPaths) -> Result<(), String> {
    let path = paths.ipc_to_agent().join(FILE);
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = std::fs::read(&path).map_err(|e| failed(&e))?;
    let order: ProbeOrder = serde_json::from_slice(&bytes).map_err(|e| failed(&e))?;
    let seen = serde_json::to_vec(&look(order)).map_err(|e| e.to_string())?;
    let out = paths.ipc_from_agent();
    let written = LetterDir::open(&out)
        .map_err(|e| e.to_string())
        .and_then(|dir| dir.put(FILE, &seen).map_err(|e| e.to_string()));
    written.map(drop).map_err(|why| format!("{}: {why}", out.display()))
}

/// Reads come first; attempts that would change the container if they succeeded come last.
fn look(order: ProbeOrder) -> ProbeReport {
    let mounts = filesystem::mounts();
    ProbeReport {
        nonce: order.nonce,
        identity: process_and_limits::identity(),
        rights: process_and_limits::rights(),
        interfaces: network::interfaces(),
        network: network::ways_out(&order.host_addresses),
        places: filesystem::places(&mounts),
        secrets: filesystem::secrets(),
        cgroup: process_and_limits::cgroup(),
        rlimits: process_and_limits::rlimits(),
        machine_swap: process_and_limits::machine_swap(),
        devices: filesystem::names("/dev"),
        environment: std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect(),
        processes: process_and_limits::processes(),
        confinement: process_and_limits::confinement(),
        mounts,
        calls: syscalls::all(),
    }
}

fn attempt<T>(what: impl Into<String>, done: Result<T, Errno>) -> ipc_schema::probe_report::Attempt {
    ipc_schema::probe_report::Attempt { what: what.into(), refused: done.err().map(errno) }
}

/// The error's name (errno(3)), or its number if no box is expected to meet it.
fn errno(error: Errno) -> String {
    const NAMES: [(Errno, &str); 28] = [
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::IO, "EIO"),
        (Errno::NXIO, "ENXIO"),
        (Errno::BADF, "EBADF"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::ACCESS, "EACCES"),
        (Errno::BUSY, "EBUSY"),
        (Errno::NODEV, "ENODEV"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::INVAL, "EINVAL"),
        (Errno::ROFS, "EROFS"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::NODATA, "ENODATA"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::PROTONOSUPPORT, "EPROTONOSUPPORT"),
        (Errno::SOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NETDOWN, "ENETDOWN"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::NOEXEC, "ENOEXEC"),
    ];
    let name = NAMES.iter().find(|(known, _)| *known == error);
    name.map_or_else(|| format!("errno {}", error.raw_os_error()), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_says_why_and_what_was_done_says_nothing() {
        assert_eq!(attempt("mount", Err::<(), _>(Errno::PERM)).refused.as_deref(), Some("EPERM"));
        assert_eq!(attempt("mount", Err::<(), _>(Errno::XDEV)).refused.as_deref(), Some("errno 18"));
        assert_eq!(attempt("mount", Ok(())).refused, None);
    }

    #[test]
    fn an_order_that_is_none_is_no_report() {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        assert!(report(&paths).unwrap_err().contains(FILE));
        std::fs::create_dir_all(paths.ipc_to_agent()).unwrap();
        std::fs::write(paths.ipc_to_agent().join(FILE), r#"{"nonce":"n"}"#).unwrap();
        assert!(report(&paths).unwrap_err().contains("host_addresses"));
    }
}
