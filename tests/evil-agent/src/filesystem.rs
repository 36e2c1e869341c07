//! Attacks on the box's view of the system: mounts, disk limits, devices, kernel files, and other people's data.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FallocateFlags, Timespec, Timestamps, XattrFlags, fallocate, setxattr, utimensat};

use crate::Attack;
use crate::evidence::{Facts, and, code, errno, fact};
use crate::mailbox::Mailbox;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("a10_setuid_root_binary", setuid_binary),
    ("a10_file_capability", file_capability),
    ("a28_the_hosts_letters_cannot_be_changed", to_agent),
    ("a28_the_socket_cannot_be_replaced", socket_place),
    ("b1_personality_and_memory_are_links", links_for_the_host),
    ("b2_workspace_is_replaced", replace_places),
    ("b3_no_mount_below_what_the_box_writes", mounts),
    ("b5_a_file_beyond_the_limit", |_, _| crate::resources::in_child("big_file", "")),
    ("b5_workspace_without_end", |mailbox, _| disk(mailbox, "/workspace")),
    ("b5_session_without_end", |mailbox, _| disk(mailbox, "/session")),
    ("b5_a_file_without_a_name", nameless),
    ("b5_room_without_writing", allocate),
    ("b6_read_only_places", read_only),
    ("b8_workspace_with_a_tree_of_traps", traps),
    ("c11_no_engine_socket", sockets),
    ("c11_no_device", devices),
    ("c11_kernel_settings_cannot_be_written", kernel_settings),
    ("c16_host_paths_tell_nothing", host_paths),
    ("c16_masked_kernel_files", masked),
    ("c17_no_key_in_reach", keys),
    ("c19_only_its_own_socket", own_socket),
    ("c20_no_other_process", processes),
    ("c20_no_abstract_socket_of_the_host", abstract_sockets),
    ("g1_many_names_and_holes_in_an_archive", names_and_holes),
    ("g2_setuid_in_an_archive", special_modes),
];

/// Makes files that would take much more room in an archive than on the disk: one of 60 names, and 20 that are empty
/// and claim 500 MiB.
fn names_and_holes(_: &mut Mailbox, _: &[&str]) -> Facts {
    let deep = Path::new("/workspace").join("d".repeat(200));
    let big = deep.join("big");
    let made = fs::create_dir(&deep).and_then(|()| fs::write(&big, vec![b'x'; 8 << 20]));
    let linked = (0..59).filter(|n| fs::hard_link(&big, deep.join(format!("n{n}"))).is_ok()).count();
    let hollow = |n: &u32| {
        let file = File::create(Path::new("/workspace").join(format!("hole{n}")));
        file.and_then(|file| file.set_len(500 << 20)).is_ok()
    };
    let holes = (0..20).filter(hollow).count();
    and(and(fact("made", errno(&made)), "linked", linked), "holes", holes)
}

/// Sets every special bit that a box's user can set.
fn special_modes(_: &mut Mailbox, _: &[&str]) -> Facts {
    let path = Path::new("/workspace/tool");
    let made = fs::copy("/lazaret/agent-runner", path);
    let marked = fs::set_permissions(path, fs::Permissions::from_mode(0o7755));
    and(fact("made", errno(&made)), "marked", errno(&marked))
}

fn setuid_binary(_: &mut Mailbox, _: &[&str]) -> Facts {
    let path = Path::new("/workspace/suid");
    let copied = fs::copy("/lazaret/agent-runner", path);
    let owned = std::os::unix::fs::chown(path, Some(0), Some(0));
    let marked = fs::set_permissions(path, fs::Permissions::from_mode(0o6755));
    let uid = fs::metadata(path).map(|m| m.uid()).unwrap_or(0);
    let facts = and(fact("copied", errno(&copied)), "chown", errno(&owned));
    and(and(facts, "chmod", errno(&marked)), "uid", uid)
}

fn file_capability(_: &mut Mailbox, _: &[&str]) -> Facts {
    let path = "/workspace/capable";
    let _ = fs::write(path, "#!/bin/sh\n");
    // vfs_cap_data, revision 2, with the effective flag and every capability (capabilities(7)).
    let mut all = vec![0x01, 0, 0, 2];
    all.extend([0xff; 16]);
    fact("errno", code(&setxattr(path, "security.capability", &all, XattrFlags::empty())))
}

/// Tries every way to change the host's letters.
fn to_agent(_: &mut Mailbox, _: &[&str]) -> Facts {
    let dir = Path::new("/ipc/to-agent");
    let letter = dir.join("0000000001-begin.json");
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = Timestamps { last_access: now, last_modification: now };
    let tries = [
        ("create", errno(&File::create(dir.join("0000000099-input.json")))),
        ("close", errno(&File::create(dir.join("_close")))),
        ("open", errno(&OpenOptions::new().write(true).open(&letter))),
        ("unlink", errno(&fs::remove_file(&letter))),
        ("chmod", errno(&fs::set_permissions(&letter, fs::Permissions::from_mode(0o777)))),
        ("chmod_dir", errno(&fs::set_permissions(dir, fs::Permissions::from_mode(0o777)))),
        ("chown", errno(&std::os::unix::fs::chown(&letter, Some(1), None))),
        ("times", code(&utimensat(CWD, &letter, &times, rustix::fs::AtFlags::empty()))),
        ("xattr", code(&setxattr(&letter, "user.evil", b"x", XattrFlags::empty()))),
        ("mkdir", errno(&fs::create_dir(dir.join("d")))),
        ("symlink", errno(&symlink("/etc", dir.join("l")))),
        ("rename", errno(&fs::rename(&letter, dir.join("x")))),
    ];
    tries.into_iter().fold(Facts::new(), |facts, (name, errno)| and(facts, name, errno))
}

fn socket_place(_: &mut Mailbox, _: &[&str]) -> Facts {
    let socket = Path::new("/run/lazaret/gateway.sock");
    let tries = [
        ("unlink", errno(&fs::remove_file(socket))),
        ("rename", errno(&fs::rename(socket, "/run/lazaret/other"))),
        ("create", errno(&File::create("/run/lazaret/evil.sock"))),
        ("bind", errno(&std::os::unix::net::UnixListener::bind("/run/lazaret/bound.sock"))),
        ("chmod", errno(&fs::set_permissions("/run/lazaret", fs::Permissions::from_mode(0o777)))),
    ];
    tries.into_iter().fold(Facts::new(), |facts, (name, errno)| and(facts, name, errno))
}

/// Creates names that the host or a person may open, as links to files of the host.
fn links_for_the_host(_: &mut Mailbox, _: &[&str]) -> Facts {
    let mut made = 0;
    for name in ["CLAUDE.md", "MEMORY.md", "memory", "group.toml", ".home"] {
        let path = Path::new("/workspace").join(name);
        let _ = fs::remove_dir_all(&path);
        made += u32::from(symlink("/etc/shadow", path).is_ok());
    }
    for entry in fs::read_dir("/session").into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
    for name in ["main.jsonl", "conversation.jsonl"] {
        made += u32::from(symlink("/proc/self/environ", Path::new("/session").join(name)).is_ok());
    }
    fact("made", made)
}

fn replace_places(_: &mut Mailbox, _: &[&str]) -> Facts {
    ["/workspace", "/session", "/inbox", "/global", "/lazaret", "/ipc", "/tmp"].into_iter().fold(
        Facts::new(),
        |facts, place| {
            let away = [
                errno(&fs::rename(place, "/workspace/away")),
                errno(&fs::rename(place, "/away")),
                errno(&fs::remove_dir(place)),
            ];
            and(facts, place, away.contains(&0))
        },
    )
}

/// Returns the root and the mount point of each mount (proc_pid_mountinfo(5)).
fn mountinfo() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(3);
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        })
        .collect()
}

fn mounts(_: &mut Mailbox, _: &[&str]) -> Facts {
    let points: Vec<String> = mountinfo().into_iter().map(|(_, point)| point).collect();
    let writable = ["/workspace/", "/session/", "/ipc/from-agent/", "/tmp/"];
    let below: Vec<&String> = points.iter().filter(|p| writable.iter().any(|w| p.starts_with(w))).collect();
    and(fact("mounts", points.len()), "below", format!("{below:?}"))
}

/// Writes until an error stops it, at most for 20 s. The files are not sparse, so they use disk blocks.
fn disk(_: &mut Mailbox, place: &str) -> Facts {
    let (began, mut written) = (Instant::now(), 0u64);
    let chunk = vec![b'x'; 1 << 20];
    for n in 0..4_096u32 {
        if began.elapsed() > Duration::from_secs(20) {
            break;
        }
        match fs::write(Path::new(place).join(format!("fill{n}")), &chunk) {
            Ok(()) => written += 1,
            Err(e) => {
                for n in 0..n {
                    let _ = fs::remove_file(Path::new(place).join(format!("fill{n}")));
                }
                return and(fact("mib", written), "errno", e.raw_os_error().unwrap_or(-1));
            }
        }
        // The pause limits the speed to that of a normal program, because the watchdog measures only at intervals.
        std::thread::sleep(Duration::from_millis(2));
    }
    and(fact("went_on", written), "errno", 0)
}

/// Writes to a file without a name: it unlinks the file and keeps the descriptor.
fn nameless(_: &mut Mailbox, _: &[&str]) -> Facts {
    let path = Path::new("/workspace/nameless");
    let opened = File::create(path);
    let _ = fs::remove_file(path);
    let Ok(mut file) = opened else { return fact("error", "no file can be made") };
    let chunk = vec![b'x'; 1 << 20];
    for written in 0..256u32 {
        if let Err(e) = file.write_all(&chunk) {
            return and(fact("mib", written), "errno", e.raw_os_error().unwrap_or(-1));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_secs(15));
    and(fact("went_on", 256), "errno", 0)
}

/// Allocates a large file in one call. If this succeeds, it keeps the file for as long as the disk watchdog may need to
/// see it.
fn allocate(_: &mut Mailbox, _: &[&str]) -> Facts {
    let path = Path::new("/workspace/allocated");
    let Ok(file) = File::create(path) else { return fact("error", "no file can be made") };
    let done = fallocate(&file, FallocateFlags::empty(), 0, 256 << 20);
    if done.is_ok() {
        std::thread::sleep(Duration::from_secs(15));
    }
    let _ = fs::remove_file(path);
    fact("errno", code(&done))
}

fn read_only(_: &mut Mailbox, _: &[&str]) -> Facts {
    [
        "/",
        "/etc",
        "/bin",
        "/usr",
        "/var",
        "/root",
        "/lazaret",
        "/inbox",
        "/global",
        "/run/lazaret",
        "/ipc",
        "/dev",
    ]
    .into_iter()
    .filter(|place| Path::new(place).is_dir())
    .fold(
        and(
            fact("passwd", errno(&OpenOptions::new().append(true).open("/etc/passwd"))),
            "runner",
            errno(&OpenOptions::new().write(true).open("/lazaret/agent-runner")),
        ),
        |facts, place| and(facts, place, errno(&File::create(Path::new(place).join("evil-file")))),
    )
}

/// Creates entries in the workspace that are dangerous for a program that walks it.
fn traps(_: &mut Mailbox, _: &[&str]) -> Facts {
    let root = Path::new("/workspace/traps");
    let _ = fs::create_dir_all(root);
    let made = vec![
        errno(&symlink("..", root.join("loop"))),
        errno(&symlink("/", root.join("root"))),
        errno(&std::os::unix::net::UnixListener::bind(root.join("socket"))),
        errno(&File::create(root.join("new\nline \x1b[31m"))),
    ];
    let mut path = root.to_owned();
    let mut depth = 0;
    while depth < 400 && fs::create_dir(path.join("dddddddd")).is_ok() {
        path.push("dddddddd");
        depth += 1;
    }
    and(fact("made", made), "depth", depth)
}

fn walk(root: &str, most: usize, mut visit: impl FnMut(&Path, &fs::Metadata)) -> usize {
    let mut seen = 0;
    let mut dirs = vec![PathBuf::from(root)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            seen += 1;
            if seen > most {
                return seen;
            }
            let path = entry.path();
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            if about.is_dir() && !path.starts_with("/proc") && !path.starts_with("/sys") {
                dirs.push(path.clone());
            }
            visit(&path, &about);
        }
    }
    seen
}

fn sockets(_: &mut Mailbox, _: &[&str]) -> Facts {
    let mut found = BTreeSet::new();
    let seen = walk("/", 200_000, |path, about| {
        if about.file_type().is_socket() {
            found.insert(path.display().to_string());
        }
    });
    and(fact("seen", seen), "sockets", found.into_iter().collect::<Vec<_>>())
}

fn devices(_: &mut Mailbox, _: &[&str]) -> Facts {
    const HARMLESS: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx"];
    let mut odd = Vec::new();
    walk("/dev", 10_000, |path, about| {
        let kind = about.file_type();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if kind.is_block_device() || (kind.is_char_device() && !HARMLESS.contains(&name.as_str())) {
            odd.push(path.display().to_string());
        }
    });
    let opened = ["/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/net/tun"];
    let opened: Vec<&str> = opened.into_iter().filter(|d| File::open(d).is_ok()).collect();
    // The bind mount of `/dev/ptmx` is a device of the box's own devpts.
    odd.retain(|path| !path.starts_with("/dev/pts/"));
    and(fact("odd", odd), "opened", opened)
}

fn kernel_settings(_: &mut Mailbox, _: &[&str]) -> Facts {
    const FILES: [&str; 13] = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv4/ping_group_range",
        "/proc/sysrq-trigger",
        "/proc/irq/0/smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/cgroup.procs",
    ];
    let opened: Vec<&str> =
        FILES.into_iter().filter(|path| OpenOptions::new().write(true).open(path).is_ok()).collect();
    let mut tried = 0;
    let mut writable = Vec::new();
    for root in ["/sys/fs/cgroup", "/sys/kernel", "/proc/sys"] {
        walk_all(Path::new(root), 4, &mut |path| {
            tried += 1;
            if OpenOptions::new().write(true).open(path).is_ok() {
                writable.push(path.display().to_string());
            }
        });
    }
    let score = fs::write("/proc/self/oom_score_adj", "-1000");
    let facts = and(fact("opened", opened), "writable", writable.into_iter().take(5).collect::<Vec<_>>());
    and(and(facts, "tried", tried), "oom_score", errno(&score))
}

fn walk_all(dir: &Path, depth: u32, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().take(500) {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => walk_all(&path, depth - 1, visit),
            Ok(kind) if kind.is_file() => visit(&path),
            _ => {}
        }
    }
}

/// Reports the host paths that the box can see: the sources of its mounts in mountinfo.
fn host_paths(_: &mut Mailbox, _: &[&str]) -> Facts {
    let roots: Vec<String> = mountinfo().into_iter().map(|(root, _)| root).filter(|r| r.len() > 1).collect();
    fact("roots", roots)
}

fn masked(_: &mut Mailbox, _: &[&str]) -> Facts {
    const FILES: [&str; 6] = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/latency_stats",
        "/proc/kallsyms",
    ];
    let mut told = Vec::new();
    for path in FILES {
        let mut start = [0u8; 4096];
        let read = File::open(path).and_then(|mut file| file.read(&mut start)).unwrap_or(0);
        let text = String::from_utf8_lossy(&start[..read]).into_owned();
        // Addresses that are all zero reveal nothing.
        let zeros = text.lines().all(|line| line.starts_with("0000000000000000"));
        if read > 0 && !zeros {
            told.push(path);
        }
    }
    let firmware = fs::read_dir("/sys/firmware").map(Iterator::count).unwrap_or(0);
    and(fact("told", told), "firmware", firmware)
}

/// Returns the canaries of the journeys' keys. It joins them at run time, so that this program's file does not contain
/// them.
fn needles() -> Vec<Vec<u8>> {
    // The parts are in reverse order, because a compiler stores constants in the order of their use, and the key would
    // then be in the file.
    let both = [["7f3a", "canary", "sk-journeys"], ["token", "canary", "4242:journeys"]];
    both.into_iter().map(|parts| parts.into_iter().rev().collect::<Vec<_>>().join("-").into_bytes()).collect()
}

fn keys(_: &mut Mailbox, _: &[&str]) -> Facts {
    let (needles, mut files, mut hits) = (needles(), 0u64, Vec::new());
    let mut search = |path: &Path| {
        let mut bytes = Vec::new();
        let Ok(file) = File::open(path) else { return };
        if file.take(8 << 20).read_to_end(&mut bytes).is_err() {
            return;
        }
        files += 1;
        if needles.iter().any(|needle| bytes.windows(needle.len()).any(|w| w == needle.as_slice())) {
            hits.push(path.display().to_string());
        }
    };
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for name in ["environ", "cmdline", "mountinfo", "status", "maps", "cgroup"] {
            search(&process.path().join(name));
        }
    }
    for root in ["/ipc", "/run", "/session", "/workspace", "/inbox", "/global", "/etc", "/tmp", "/lazaret"] {
        walk(root, 5_000, |path, about| {
            if about.is_file() {
                search(path);
            }
        });
    }
    let env = std::env::vars().any(|(_, value)| value.contains(&["journeys", "-canary"].concat()));
    and(and(fact("files", files), "hits", hits), "env", env)
}

fn own_socket(_: &mut Mailbox, _: &[&str]) -> Facts {
    let names: Vec<String> = fs::read_dir("/run/lazaret")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    let up = fs::read_dir("/run/lazaret/..").into_iter().flatten().flatten().count();
    and(fact("names", names), "up", up)
}

fn processes(_: &mut Mailbox, _: &[&str]) -> Facts {
    let mut commands = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            commands.push(String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned());
        }
    }
    fact("commands", commands)
}

fn abstract_sockets(_: &mut Mailbox, _: &[&str]) -> Facts {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let named: Vec<String> =
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(7)).map(str::to_owned).collect();
    and(fact("named", named), "read", !table.is_empty())
}
