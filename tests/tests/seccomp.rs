//! Tests which calls the boxes' seccomp profile allows on both supported processors. It compiles the profile to the
//! kernel's filter program and runs this program for each call. An engine compiles the profile with a C library
//! instead. The journeys test that compiler, and programs under the profile, on the processor on which they run.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{BpfProgram, TargetArch, compile_from_json};
use serde::Deserialize;
use serde_json::{Value, json};

const PROCESSORS: [TargetArch; 2] = [TargetArch::x86_64, TargetArch::aarch64];

/// Calls that only x86-64 has. ARM64 has no numbers for them, and its programs use other calls.
const X86_ONLY: [&str; 37] = [
    "access",
    "alarm",
    "arch_prctl",
    "chmod",
    "chown",
    "creat",
    "dup2",
    "epoll_create",
    "epoll_wait",
    "eventfd",
    "fork",
    "get_thread_area",
    "getdents",
    "getpgrp",
    "inotify_init",
    "lchown",
    "link",
    "lstat",
    "mkdir",
    "mknod",
    "open",
    "pause",
    "pipe",
    "poll",
    "readlink",
    "rename",
    "rmdir",
    "select",
    "set_thread_area",
    "signalfd",
    "stat",
    "symlink",
    "time",
    "unlink",
    "utime",
    "utimes",
    "vfork",
];
/// Allowed calls that are too new for the compiler's tables.
const YOUNG: [&str; 6] =
    ["cachestat", "fchmodat2", "futex_requeue", "futex_wait", "futex_wake", "map_shadow_stack"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    arch_map: Vec<Value>,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    comment: String,
    names: Vec<String>,
    action: String,
    #[serde(default)]
    args: Vec<Argument>,
    errno_ret: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    value_two: u64,
    op: String,
}

fn profile() -> Profile {
    serde_json::from_str(include_str!("../../container/seccomp.json")).unwrap()
}

fn exists(name: &str, processor: TargetArch) -> bool {
    !YOUNG.contains(&name) && (processor == TargetArch::x86_64 || !X86_ONLY.contains(&name))
}

/// Compiles the calls that the profile allows to the kernel's filter program, which answers every other call with
/// EPERM.
fn compiled(processor: TargetArch) -> BpfProgram {
    let mut filter = Vec::new();
    for rule in profile().syscalls.into_iter().filter(|rule| rule.action == "SCMP_ACT_ALLOW") {
        let conditions: Vec<Value> = rule
            .args
            .iter()
            .map(|a| match a.op.as_str() {
                "SCMP_CMP_EQ" => json!({ "index": a.index, "type": "qword", "op": "eq", "val": a.value }),
                "SCMP_CMP_MASKED_EQ" => {
                    json!({ "index": a.index, "type": "qword", "op": { "masked_eq": a.value }, "val": a.value_two })
                }
                other => panic!("{other} in {:?}", rule.comment),
            })
            .collect();
        for name in rule.names.iter().filter(|name| exists(name, processor)) {
            filter.push(match conditions.is_empty() {
                true => json!({ "syscall": name }),
                false => json!({ "syscall": name, "args": conditions }),
            });
        }
    }
    program(&json!(filter), processor).unwrap()
}

fn program(filter: &Value, processor: TargetArch) -> Result<BpfProgram, String> {
    let whole =
        json!({ "box": { "mismatch_action": { "errno": 1 }, "match_action": "allow", "filter": filter } });
    let mut programs =
        compile_from_json(whole.to_string().as_bytes(), processor).map_err(|e| format!("{e:?}"))?;
    Ok(programs.remove("box").unwrap())
}

/// Returns the number of a call. It is the constant in a filter program that allows only this call.
fn number(name: &str, processor: TargetArch) -> u32 {
    let program = program(&json!([{ "syscall": name }]), processor).unwrap_or_else(|e| panic!("{name}: {e}"));
    let load_number = program.iter().position(|i| i.code == 0x20 && i.k == 0).unwrap();
    program[load_number + 1].k
}

/// Runs the filter program for one call (bpf(4), seccomp(2)). Returns whether it allows the call.
fn lets_through(program: &BpfProgram, processor: TargetArch, number: u32, arguments: &[u64]) -> bool {
    let architecture: u32 = if processor == TargetArch::x86_64 { 0xc000_003e } else { 0xc000_00b7 };
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend([0; 8]);
    (0..6).for_each(|i| data.extend(arguments.get(i).unwrap_or(&0).to_le_bytes()));
    let (mut at, mut register) = (0, 0u32);
    loop {
        let step = &program[at];
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        at += 1;
        match step.code {
            0x20 => {
                let offset = usize::try_from(step.k).unwrap();
                register = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            0x54 => register &= step.k,
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => at += jump(register == step.k),
            0x25 => at += jump(register > step.k),
            0x35 => at += jump(register >= step.k),
            0x45 => at += jump(register & step.k != 0),
            0x06 => return step.k == 0x7fff_0000,
            other => panic!("an instruction {other:#x}"),
        }
    }
}

struct Kernel {
    processor: TargetArch,
    program: BpfProgram,
}

impl Kernel {
    fn takes(&self, name: &str, arguments: &[u64]) -> bool {
        lets_through(&self.program, self.processor, number(name, self.processor), arguments)
    }
}

fn kernels() -> impl Iterator<Item = Kernel> {
    PROCESSORS.into_iter().map(|processor| Kernel { processor, program: compiled(processor) })
}

#[test]
fn the_profile_names_both_processors_and_says_no_by_default() {
    let profile = profile();
    assert_eq!(profile.default_action, "SCMP_ACT_ERRNO");
    let processors: Vec<&Value> = profile.arch_map.iter().map(|a| &a["architecture"]).collect();
    assert_eq!(processors, ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]);
    assert!(
        profile.arch_map.iter().all(|a| a["subArchitectures"] == json!([])),
        "32-bit calls are not allowed"
    );
    let mut by_name: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for rule in &profile.syscalls {
        assert!(!rule.comment.is_empty(), "{:?}", rule.names);
        assert_eq!(rule.errno_ret.is_some(), rule.action == "SCMP_ACT_ERRNO", "{}", rule.comment);
        for name in &rule.names {
            by_name.entry(name).or_default().insert(&rule.action);
        }
    }
    assert!(by_name.values().all(|actions| actions.len() == 1), "each call has only one action");
}

#[test]
fn every_name_is_a_call_of_both_processors_or_of_one_that_is_known_here() {
    for rule in profile().syscalls.iter().filter(|rule| rule.action == "SCMP_ACT_ALLOW") {
        for name in &rule.names {
            for processor in PROCESSORS {
                let known = program(&json!([{ "syscall": name }]), processor).is_ok();
                let expected = exists(name, processor);
                assert!(
                    known == expected || YOUNG.contains(&name.as_str()),
                    "{name} on {processor:?}: {known}"
                );
            }
        }
    }
}

#[test]
fn what_programs_live_on_is_let_through() {
    for kernel in kernels() {
        for name in [
            "read",
            "write",
            "openat",
            "newfstatat",
            "execve",
            "mmap",
            "futex",
            "wait4",
            "exit_group",
            "rt_sigaction",
            "getdents64",
            "renameat2",
            "unlinkat",
            "faccessat2",
            "statx",
            "pipe2",
            "epoll_pwait",
            "ppoll",
            "getrandom",
            "memfd_create",
            "prlimit64",
            "sched_yield",
            "connect",
            "sendmsg",
            "ioctl",
            "prctl",
            "set_robust_list",
            "rseq",
            "inotify_init1",
            "copy_file_range",
        ] {
            assert!(kernel.takes(name, &[]), "{name} on {:?}", kernel.processor);
        }
    }
}

#[test]
fn c13_c14_c15_c25_what_leads_out_is_not() {
    for kernel in kernels() {
        for name in [
            "unshare",
            "setns",
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "fsopen",
            "fsmount",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "bpf",
            "perf_event_open",
            "keyctl",
            "add_key",
            "request_key",
            "userfaultfd",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "kcmp",
            "process_madvise",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "io_setup",
            "init_module",
            "finit_module",
            "delete_module",
            "kexec_load",
            "reboot",
            "swapon",
            "clock_settime",
            "clock_adjtime",
            "settimeofday",
            "adjtimex",
            "sethostname",
            "setdomainname",
            "syslog",
            "acct",
            "quotactl",
            "name_to_handle_at",
            "open_by_handle_at",
            "fanotify_init",
            "lookup_dcookie",
            "vhangup",
            "nfsservctl",
            "clone3",
            "fallocate",
            "move_pages",
            "mbind",
            "set_mempolicy",
            "migrate_pages",
        ] {
            assert!(!kernel.takes(name, &[]), "{name} on {:?}", kernel.processor);
        }
    }
    let x86 = kernels().next().unwrap();
    for name in ["iopl", "ioperm", "modify_ldt", "uselib", "ustat", "sysfs", "kexec_file_load"] {
        assert!(!x86.takes(name, &[]), "{name}");
    }
}

#[test]
fn a_process_is_made_but_in_no_namespace_of_its_own() {
    for kernel in kernels() {
        const SIGCHLD: u64 = 17;
        const THREAD: u64 = 0x003d_0f00;
        assert!(kernel.takes("clone", &[SIGCHLD]) && kernel.takes("clone", &[THREAD]));
        for namespace in
            [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
        {
            assert!(!kernel.takes("clone", &[SIGCHLD | namespace]), "{namespace:#x}");
        }
    }
}

#[test]
fn a_socket_is_of_a_family_and_protocol_that_programs_use() {
    for kernel in kernels() {
        let (stream, datagram, raw) = (1, 2, 3);
        for [family, kind, protocol] in [
            [1, stream, 0],
            [2, stream, 0],
            [2, stream, 6],
            [2, datagram, 17],
            [2, datagram, 1],
            [10, stream, 6],
            [10, datagram, 58],
            [16, raw, 0],
        ] {
            assert!(kernel.takes("socket", &[family, kind, protocol]), "{family} {kind} {protocol}");
        }
        // The kernel would load the modules for SCTP, DCCP and MPTCP, for the whole machine. 16/12 is the packet filter
        // (netfilter).
        for [family, protocol] in [
            [2, 132],
            [2, 33],
            [2, 262],
            [2, 255],
            [10, 132],
            [16, 12],
            [16, 15],
            [17, 0],
            [38, 0],
            [40, 0],
            [44, 0],
        ] {
            assert!(!kernel.takes("socket", &[family, raw, protocol]), "{family} {protocol}");
        }
        assert!(
            !kernel.takes("socket", &[(1 << 32) | 40, stream, 0]),
            "bits that the kernel ignores must not change the answer"
        );
    }
}

#[test]
fn a_fifo_can_be_made_and_a_device_cannot() {
    for kernel in kernels() {
        let here = u64::MAX;
        assert!(kernel.takes("mknodat", &[here, 0, 0o010_600, 0]), "mkfifo");
        for device in [0o020_600, 0o060_600, 0o140_600] {
            assert!(!kernel.takes("mknodat", &[here, 0, device, 0x0800]), "{device:o}");
        }
    }
    let x86 = kernels().next().unwrap();
    assert!(x86.takes("mknod", &[0, 0o010_600, 0]) && !x86.takes("mknod", &[0, 0o060_600, 0x0800]));
}

#[test]
fn addresses_stay_random() {
    for kernel in kernels() {
        assert!(kernel.takes("personality", &[0]) && kernel.takes("personality", &[0xffff_ffff]));
        assert!(!kernel.takes("personality", &[0x0004_0000]), "ADDR_NO_RANDOMIZE");
    }
}
