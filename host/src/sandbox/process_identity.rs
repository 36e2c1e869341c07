//! Identifies a process by its id and the time of its start. A process id alone does not: the kernel uses it again, and
//! a host in a container has the same one in every life.

use crate::host_files;

/// This process, as `ID@START`, where START counts clock ticks since the machine's start (proc_pid_stat(5)).
pub fn this_process() -> String {
    let pid = std::process::id().to_string();
    identity("self").unwrap_or_else(|| format!("{pid}@0"))
}

/// Returns whether the process that [`this_process`] named still exists.
pub fn is_alive(process: &str) -> bool {
    process.split_once('@').is_some_and(|(pid, _)| identity(pid).as_deref() == Some(process))
}

fn identity(pid: &str) -> Option<String> {
    let stat = host_files::read_text(&std::path::Path::new("/proc").join(pid).join("stat")).ok()?;
    // The second field is the program's name in parentheses, and the name may hold anything.
    let (pid, rest) = (stat.split(' ').next()?, stat.rsplit_once(") ")?.1);
    Some(format!("{pid}@{}", rest.split(' ').nth(19)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let me = this_process();
        assert!(is_alive(&me), "{me}");
        let (pid, start) = me.split_once('@').unwrap();
        assert_eq!(pid.parse(), Ok(std::process::id()));
        assert!(start.parse::<u64>().unwrap() > 0);
        assert!(!is_alive(&format!("{pid}@1")), "an earlier process with the same id");
        assert!(!is_alive(pid) && !is_alive("") && !is_alive("4294967295@1"));
    }
}
