//! System calls that the kernel must refuse to a box, one per case.
//!
//! Safe Rust cannot make most of these calls, and this program has no `unsafe`. So for each call it writes an ELF file
//! of a few hundred bytes, which makes exactly one system call and exits with its error number. The case gets the
//! kernel's answer to the call number itself, without a library in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::evidence::{Facts, and, fact};

/// The address at which the ELF program is loaded, and the address of its data.
const BASE: u64 = 0x40_0000;
const DATA: u64 = BASE + 0x400;
/// A region of zeros, which is also used for output.
const ZERO: u64 = BASE + 0x2000;
const HERE: u64 = -100i64 as u64;
const NONE: u64 = u64::MAX;

/// A call: its case, its number on x86-64, its arguments, and the content of `DATA`.
type Call = (&'static str, u64, &'static [u64], &'static [u8]);

#[rustfmt::skip]
const CALLS: &[Call] = &[
    ("c13_unshare_user", 272, &[0x1000_0000], b""),
    ("c13_unshare_mount", 272, &[0x0002_0000], b""),
    ("c13_unshare_net", 272, &[0x4000_0000], b""),
    ("c13_unshare_pid", 272, &[0x2000_0000], b""),
    ("c13_unshare_cgroup", 272, &[0x0200_0000], b""),
    ("c13_unshare_ipc", 272, &[0x0800_0000], b""),
    ("c13_unshare_uts", 272, &[0x0400_0000], b""),
    ("c13_unshare_time", 272, &[0x80], b""),
    ("c13_clone_user", 56, &[0x1000_0000 | 17, 0, 0, 0, 0], b""),
    ("c13_clone3", 435, &[ZERO, 88], b""),
    ("c13_setns", 308, &[0, 0], b""),
    ("c13_mount", 165, &[DATA, DATA, DATA + 8, 0, 0], b"/tmp\0\0\0\0tmpfs\0"),
    ("c13_umount", 166, &[DATA, 0], b"/tmp\0"),
    ("c13_remount_root", 165, &[DATA, DATA, DATA, 0x20, 0], b"/\0"),
    ("c13_bind_mount", 165, &[DATA, DATA + 8, 0, 0x1000, 0], b"/etc\0\0\0\0/tmp\0"),
    ("c13_pivot_root", 155, &[DATA, DATA], b"/tmp\0"),
    ("c13_move_mount", 429, &[HERE, DATA, HERE, DATA, 0], b"/tmp\0"),
    ("c13_fsopen", 430, &[DATA, 0], b"tmpfs\0"),
    ("c13_fspick", 433, &[HERE, DATA, 0], b"/tmp\0"),
    ("c13_open_tree", 428, &[HERE, DATA, 1], b"/\0"),
    ("c13_mount_setattr", 442, &[HERE, DATA, 0, ZERO, 32], b"/\0"),
    ("c13_bpf_map", 321, &[0, DATA, 72], &[2, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]),
    ("c13_bpf_program", 321, &[5, DATA, 72], &[1, 0, 0, 0, 1, 0, 0, 0]),
    ("c13_perf_event_open", 298, &[DATA, 0, NONE, NONE, 0], &[1, 0, 0, 0, 120, 0, 0, 0, 1]),
    ("c13_keyctl", 250, &[0, -3i64 as u64, 1], b""),
    ("c13_add_key", 248, &[DATA, DATA + 8, DATA + 8, 4, -3i64 as u64], b"user\0\0\0\0evil\0"),
    ("c13_request_key", 249, &[DATA, DATA + 8, 0, -3i64 as u64], b"user\0\0\0\0evil\0"),
    ("c13_userfaultfd", 323, &[1], b""),
    ("c13_userfaultfd_kernel", 323, &[0], b""),
    ("c13_ptrace_traceme", 101, &[0, 0, 0, 0], b""),
    ("c13_ptrace_init", 101, &[16, 1, 0, 0], b""),
    ("c13_ptrace_seize_init", 101, &[0x4206, 1, 0, 0], b""),
    ("c13_process_vm_readv", 310, &[1, ZERO, 1, ZERO, 1, 0], b""),
    ("c13_process_vm_writev", 311, &[1, ZERO, 1, ZERO, 1, 0], b""),
    ("c13_pidfd_getfd", 438, &[0, 0, 0], b""),
    ("c13_kcmp", 312, &[1, 1, 0, 0, 0], b""),
    ("c13_open_by_handle_at", 304, &[HERE, DATA, 0], &[8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]),
    ("c13_name_to_handle_at", 303, &[HERE, DATA, ZERO, ZERO + 256, 0], b"/\0"),
    ("c13_init_module", 175, &[DATA, 4, DATA], b"evil\0"),
    ("c13_finit_module", 313, &[0, DATA, 0], b"\0"),
    ("c13_delete_module", 176, &[DATA, 0x800], b"overlay\0"),
    ("c13_kexec_load", 246, &[0, 0, ZERO, 0], b""),
    ("c13_kexec_file_load", 320, &[0, 0, 1, DATA, 0], b"\0"),
    ("c13_reboot", 169, &[0xfee1_dead, 672_274_793, 0, 0], b""),
    ("c13_swapon", 167, &[DATA, 0], b"/workspace/x\0"),
    ("c13_swapoff", 168, &[DATA], b"/workspace/x\0"),
    ("c13_acct", 163, &[0], b""),
    ("c13_quotactl", 179, &[0x8000_0100, DATA, 0, ZERO], b"/\0"),
    ("c13_syslog", 103, &[3, ZERO, 1024], b""),
    ("c13_iopl", 172, &[3], b""),
    ("c13_ioperm", 173, &[0x80, 8, 1], b""),
    ("c13_settimeofday", 164, &[DATA, 0], &[1]),
    ("c13_clock_settime", 227, &[0, DATA], &[1]),
    ("c13_adjtimex", 159, &[DATA], &[1, 0x40]),
    ("c13_clock_adjtime", 305, &[0, DATA], &[1, 0x40]),
    ("c13_sethostname", 170, &[DATA, 4], b"evil"),
    ("c13_setdomainname", 171, &[DATA, 4], b"evil"),
    ("c13_personality_no_randomize", 135, &[0x0004_0000], b""),
    ("c13_personality_read_implies_exec", 135, &[0x0040_0000], b""),
    ("c13_modify_ldt", 154, &[1, DATA, 16], &[0]),
    ("c13_vhangup", 153, &[], b""),
    ("c13_uselib", 134, &[DATA], b"/lazaret/agent-runner\0"),
    ("c13_fanotify_init", 300, &[0, 0], b""),
    ("c13_mbind", 237, &[ZERO, 4096, 0, 0, 0, 0], b""),
    ("c13_set_mempolicy", 238, &[0, 0, 0], b""),
    ("c13_migrate_pages", 256, &[1, 8, ZERO, ZERO], b""),
    ("c13_move_pages", 279, &[1, 0, 0, 0, ZERO, 0], b""),
    ("c13_memfd_secret", 447, &[0], b""),
    ("c13_lookup_dcookie", 212, &[1, ZERO, 16], b""),
    ("c14_io_uring_setup", 425, &[8, ZERO], b""),
    ("c14_io_uring_enter", 426, &[0, 1, 0, 0, 0, 0], b""),
    ("c14_io_uring_register", 427, &[0, 0, 0, 0], b""),
    ("c14_vsock", 41, &[40, 1, 0], b""),
    ("c14_vsock_datagram", 41, &[40, 2, 0], b""),
    ("c14_alg", 41, &[38, 5, 0], b""),
    ("c15_packet", 41, &[17, 3, 0x0300], b""),
    ("c15_packet_datagram", 41, &[17, 2, 0x0300], b""),
    ("c15_raw_icmp", 41, &[2, 3, 1], b""),
    ("c15_raw_tcp", 41, &[2, 3, 255], b""),
    ("c15_xdp", 41, &[44, 3, 0], b""),
    ("c15_key", 41, &[15, 3, 2], b""),
    ("c15_bluetooth", 41, &[31, 3, 1], b""),
    ("c15_can", 41, &[29, 3, 1], b""),
    ("c15_tipc", 41, &[30, 2, 0], b""),
    ("c15_rds", 41, &[21, 5, 0], b""),
    ("c15_appletalk", 41, &[5, 2, 0], b""),
    ("c15_mknod_character", 133, &[DATA, 0o020_666, 0x0105], b"/tmp/evil-zero\0"),
    ("c15_mknod_block", 133, &[DATA, 0o060_666, 0x0800], b"/tmp/evil-disk\0"),
    ("c15_chroot", 161, &[DATA], b"/tmp\0"),
    ("c15_setuid_root", 105, &[0], b""),
    ("c15_setresuid_root", 117, &[0, 0, 0], b""),
    ("c15_setgid_root", 106, &[0], b""),
    ("c15_setgroups", 116, &[1, ZERO], b""),
    ("c15_capset", 126, &[DATA, DATA + 8], &[0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("c15_ambient_capability", 157, &[47, 2, 21, 0, 0], b""),
    ("c15_chown_to_root", 92, &[DATA, 0, 0], b"/workspace\0"),
    ("c15_kill_init", 62, &[1, 9], b""),
    ("c15_nice", 141, &[0, 0, -20i64 as u64], b""),
    ("c15_realtime", 144, &[0, 1, DATA], &[50]),
    ("c15_io_realtime", 251, &[1, 0, 1 << 13], b""),
    ("c15_more_descriptors", 302, &[0, 7, DATA, 0], &[0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 16]),
    ("c15_larger_files", 302, &[0, 1, DATA, 0], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("c15_core_files", 302, &[0, 4, DATA, 0], &[0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 16]),
    ("c15_terminal_injection", 16, &[0, 0x5412, DATA], b"x"),
    ("c15_console_paste", 16, &[0, 0x541C, DATA], &[3]),
    ("c15_prctl_set_mm", 157, &[35, 1, BASE, 0, 0], b""),
    ("c15_x32_calls", 0x4000_0000 + 39, &[], b""),
];

/// Returns the facts of a case, or `None` if the case is not in this table.
pub fn perform(name: &str) -> Option<Facts> {
    let (_, number, arguments, data) = CALLS.iter().find(|(case, ..)| *case == name)?;
    Some(match ask_kernel(*number, arguments, data) {
        Ok(errno) => and(fact("errno", errno), "call", *number),
        Err(why) => fact("error", why),
    })
}

/// Returns the error number: 0 if the kernel performed the call, 255 if the kernel killed the program for it.
fn ask_kernel(number: u64, arguments: &[u64], data: &[u8]) -> Result<i32, String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("this table is for x86-64".to_owned());
    }
    let told = |e: std::io::Error| e.to_string();
    let bytes = program(number, arguments, data);
    // The ELF file may lie in any directory that is writable and executable. Another case tests whether `/tmp` is.
    let place = |dir: &str| {
        let path = Path::new(dir).join(format!("call-{number}"));
        fs::write(&path, &bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    };
    let path = place("/tmp").or_else(|_: std::io::Error| place("/workspace")).map_err(told)?;
    let ended = Command::new(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = fs::remove_file(path);
    Ok(ended.map_err(told)?.code().unwrap_or(255))
}

/// Builds an x86-64 program that makes one call and exits with its error number (elf(5), syscall(2)).
fn program(number: u64, arguments: &[u64], data: &[u8]) -> Vec<u8> {
    let mut code: Vec<u8> = Vec::new();
    const REGISTERS: [[u8; 2]; 6] =
        [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
    for (register, at) in REGISTERS.iter().zip(0..) {
        code.extend(register);
        code.extend(arguments.get(at).copied().unwrap_or(0).to_le_bytes());
    }
    code.extend([0x48, 0xb8]);
    code.extend(number.to_le_bytes());
    code.extend([
        0x0f, 0x05, // syscall
        0x31, 0xff, // xor edi, edi
        0x48, 0x85, 0xc0, // test rax, rax
        0x79, 0x05, // jns over the next two
        0x48, 0x89, 0xc7, // mov rdi, rax
        0xf7, 0xdf, // neg edi
        0xb8, 0xe7, 0, 0, 0, // mov eax, exit_group
        0x0f, 0x05, // syscall
    ]);
    let mut file = Vec::with_capacity(0x800);
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(2u16.to_le_bytes()); // executable
    file.extend(62u16.to_le_bytes()); // x86-64
    file.extend(1u32.to_le_bytes());
    file.extend((BASE + 120).to_le_bytes()); // entry point
    file.extend(64u64.to_le_bytes()); // program header
    file.extend(0u64.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes()); // PT_LOAD
    file.extend(7u32.to_le_bytes()); // read, write, execute
    for word in [0, BASE, BASE, 0x800, 0x4000, 0x1000u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file.resize(0x400, 0);
    file.extend(data);
    file.resize(0x800, 0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked_and_its_answer_comes_back() {
        // getpid succeeds; close of an unused descriptor fails with EBADF.
        assert_eq!(ask_kernel(39, &[], b""), Ok(0));
        assert_eq!(ask_kernel(3, &[9_999], b""), Ok(9));
        // chdir reads its path from the data.
        assert_eq!(ask_kernel(80, &[DATA], b"/tmp\0"), Ok(0));
        assert_eq!(ask_kernel(80, &[DATA], b"/not/there\0"), Ok(2));
    }

    #[test]
    fn every_case_is_named_once() {
        let names: std::collections::HashSet<_> = CALLS.iter().map(|call| call.0).collect();
        assert_eq!(names.len(), CALLS.len());
    }
}
