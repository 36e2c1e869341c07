//! Attacks of part C with one system call each, which the kernel must refuse to a box.

use super::cases::Case;
use super::expectation_kinds::Expectation;
use super::letter_files::DENIED;

/// Cases whose error number must be one of [`DENIED`].
const CALLS: &[(&str, &str)] = &[
    ("c13_unshare_user", "a user namespace"),
    ("c13_unshare_mount", "a mount namespace"),
    ("c13_unshare_net", "a network namespace"),
    ("c13_unshare_pid", "a process namespace"),
    ("c13_unshare_cgroup", "a cgroup namespace"),
    ("c13_unshare_ipc", "an ipc namespace"),
    ("c13_unshare_uts", "a name namespace"),
    ("c13_unshare_time", "a time namespace"),
    ("c13_clone_user", "a child in a user namespace"),
    ("c13_clone3", "clone3, whose flags no filter can read"),
    ("c13_setns", "another namespace"),
    ("c13_mount", "a tmpfs"),
    ("c13_umount", "/tmp unmounted"),
    ("c13_remount_root", "a writable root"),
    ("c13_bind_mount", "/etc over /tmp"),
    ("c13_pivot_root", "another root"),
    ("c13_move_mount", "a mount moved"),
    ("c13_fsopen", "a filesystem"),
    ("c13_fspick", "a filesystem's settings"),
    ("c13_open_tree", "a copy of the mount tree"),
    ("c13_mount_setattr", "other mount flags"),
    ("c13_bpf_map", "a BPF map"),
    ("c13_bpf_program", "a BPF program"),
    ("c13_perf_event_open", "a performance counter"),
    ("c13_keyctl", "the session's keyring"),
    ("c13_add_key", "a key in it"),
    ("c13_request_key", "a key of it"),
    ("c13_userfaultfd", "faults handled in user space"),
    ("c13_userfaultfd_kernel", "the kernel's faults, too"),
    ("c13_ptrace_traceme", "to be traced"),
    ("c13_ptrace_init", "to trace the first process"),
    ("c13_ptrace_seize_init", "to seize the first process"),
    ("c13_process_vm_readv", "another process's memory"),
    ("c13_process_vm_writev", "to write it"),
    ("c13_pidfd_getfd", "another process's files"),
    ("c13_kcmp", "to compare processes"),
    ("c13_open_by_handle_at", "a file by its inode"),
    ("c13_name_to_handle_at", "a file's inode as a handle"),
    ("c13_init_module", "a kernel module"),
    ("c13_finit_module", "one out of a file"),
    ("c13_delete_module", "a module removed"),
    ("c13_kexec_load", "another kernel"),
    ("c13_kexec_file_load", "one out of a file"),
    ("c13_reboot", "a reboot setting"),
    ("c13_swapon", "swap"),
    ("c13_swapoff", "no swap"),
    ("c13_acct", "process accounting"),
    ("c13_quotactl", "quotas"),
    ("c13_syslog", "the kernel's log"),
    ("c13_iopl", "all ports"),
    ("c13_ioperm", "eight ports"),
    ("c13_settimeofday", "the host's clock"),
    ("c13_clock_settime", "the host's clock, newer"),
    ("c13_adjtimex", "its speed"),
    ("c13_clock_adjtime", "its speed, newer"),
    ("c13_sethostname", "another name"),
    ("c13_setdomainname", "another domain"),
    ("c13_personality_no_randomize", "no randomized addresses"),
    ("c13_personality_read_implies_exec", "memory that all is executable"),
    ("c13_modify_ldt", "a segment"),
    ("c13_vhangup", "the terminal hung up"),
    ("c13_uselib", "an old library"),
    ("c13_fanotify_init", "to watch a filesystem"),
    ("c13_mbind", "memory of a node"),
    ("c13_set_mempolicy", "a memory policy"),
    ("c13_migrate_pages", "another's pages moved"),
    ("c13_move_pages", "pages moved"),
    ("c13_memfd_secret", "memory that the kernel cannot see"),
    ("c13_lookup_dcookie", "a path by its cookie"),
    ("c14_io_uring_setup", "an io_uring"),
    ("c14_io_uring_enter", "calls by an io_uring"),
    ("c14_io_uring_register", "an io_uring's files"),
    ("c14_vsock", "a socket to the machine's own host"),
    ("c14_vsock_datagram", "datagrams to it"),
    ("c14_alg", "the kernel's ciphers"),
    ("c15_packet", "raw frames"),
    ("c15_packet_datagram", "raw packets"),
    ("c15_raw_icmp", "raw ICMP"),
    ("c15_raw_tcp", "raw IP"),
    ("c15_xdp", "AF_XDP"),
    ("c15_key", "AF_KEY"),
    ("c15_bluetooth", "AF_BLUETOOTH"),
    ("c15_can", "AF_CAN"),
    ("c15_tipc", "AF_TIPC"),
    ("c15_rds", "AF_RDS"),
    ("c15_appletalk", "AF_APPLETALK"),
    ("c15_mknod_character", "a node of /dev/zero's kind"),
    ("c15_mknod_block", "a node of the host's disk"),
    ("c15_chroot", "another root directory"),
    ("c15_setuid_root", "to be root"),
    ("c15_setresuid_root", "to be root in every way"),
    ("c15_setgid_root", "root's group"),
    ("c15_setgroups", "another group"),
    ("c15_capset", "all capabilities"),
    ("c15_ambient_capability", "one that lasts over exec"),
    ("c15_chown_to_root", "its workspace as root's"),
    ("c15_nice", "to go before others"),
    ("c15_realtime", "real-time scheduling"),
    ("c15_io_realtime", "real-time disk access"),
    ("c15_more_descriptors", "a million open files"),
    ("c15_larger_files", "files without limit"),
    ("c15_core_files", "core files"),
    ("c15_prctl_set_mm", "its memory's layout"),
];

pub fn cases() -> Vec<Case> {
    let denied = |(name, what): &(&'static str, &'static str)| {
        Case::shared(name, what, vec![Expectation::Errno("errno", DENIED)])
    };
    let mut all: Vec<Case> = CALLS.iter().map(denied).collect();
    // These calls use another architecture's numbers. The filter has no rule for them and kills the program (exit code
    // 255).
    all.push(Case::shared(
        "c15_x32_calls",
        "a call by the x32 numbers, which a filter of names must know",
        vec![Expectation::Errno("errno", &[1, 38, 255])],
    ));
    // The box has no terminal.
    for (name, what) in [
        ("c15_terminal_injection", "TIOCSTI: to type in another's terminal"),
        ("c15_console_paste", "TIOCLINUX: to paste into the console"),
    ] {
        all.push(Case::shared(name, what, vec![Expectation::Errno("errno", &[1, 5, 13, 22, 25, 38])]));
    }
    all
}
