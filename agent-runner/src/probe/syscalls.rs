//! Tries system calls that an agent does not need, with arguments that do no harm outside this container.

use std::os::fd::AsFd;

use ipc_schema::names_and_paths::{FROM_AGENT, box_path};
use ipc_schema::probe_report::{ALLOCATE_WITHOUT_WRITING, Attempt};
use rustix::fs::{self, CWD, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, OpenTreeFlags, UnmountFlags};
use rustix::net::{AddressFamily, Protocol, SocketType, socket};
use rustix::process::{Gid, PidfdFlags, PidfdGetfdFlags, Uid};
use rustix::thread::UnshareFlags;
use rustix::time::{ClockId, Timespec};
use rustix::{process, system, thread, time};

use super::attempt;

/// Address families by number (`<linux/socket.h>`). AF_VSOCK connects a virtual machine to its hypervisor.
const FAMILIES: [(&str, u16); 9] = [
    ("AF_AX25", 3),
    ("AF_KEY", 15),
    ("AF_PACKET", 17),
    ("AF_RDS", 21),
    ("AF_TIPC", 30),
    ("AF_BLUETOOTH", 31),
    ("AF_ALG", 38),
    ("AF_VSOCK", 40),
    ("AF_XDP", 44),
];

/// Bytes to allocate: too few to matter, and refused by a system that refuses more.
const SPACE: u64 = 1 << 20;

/// Tries all calls. Those that would change this process come last.
pub(super) fn all() -> Vec<Attempt> {
    let mut tried = Vec::new();
    sockets(&mut tried);
    system_wide(&mut tried);
    filesystems(&mut tried);
    disk_space(&mut tried);
    own_process(&mut tried);
    tried
}

fn sockets(tried: &mut Vec<Attempt>) {
    for (name, number) in FAMILIES {
        let family = AddressFamily::from_raw(number);
        let kind = if name == "AF_ALG" { SocketType::SEQPACKET } else { SocketType::RAW };
        let made = match socket(family, kind, None) {
            // Each family supports its own socket types; try the usual ones too.
            Err(Errno::SOCKTNOSUPPORT | Errno::PROTONOSUPPORT | Errno::INVAL) => {
                socket(family, SocketType::STREAM, None).or_else(|_| socket(family, SocketType::DGRAM, None))
            }
            made => made,
        };
        tried.push(attempt(format!("socket {name}"), made));
    }
    let icmp = std::num::NonZeroU32::new(1).map(Protocol::from_raw);
    tried.push(attempt("socket raw icmp", socket(AddressFamily::INET, SocketType::RAW, icmp)));
}

fn system_wide(tried: &mut Vec<Attempt>) {
    tried.push(attempt("sethostname", system::sethostname(b"probe")));
    tried.push(attempt("setdomainname", system::setdomainname(b"probe")));
    // An invalid time: a kernel that rejects it has let the call through, and sets nothing.
    let never = Timespec { tv_sec: -1, tv_nsec: -1 };
    tried.push(attempt("clock_settime", time::clock_settime(ClockId::Realtime, never)));
    tried.push(attempt("init_module", system::init_module(&[], c"")));
    tried.push(attempt("delete_module", system::delete_module(c"lazaret_no_such_module", 0)));
}

fn filesystems(tried: &mut Vec<Attempt>) {
    tried.push(attempt("mount", rustix::mount::mount("none", "/tmp", "tmpfs", MountFlags::empty(), None)));
    tried.push(attempt("fsopen", rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)));
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    tried.push(attempt("open_tree", rustix::mount::open_tree(CWD, "/", clone)));
    tried.push(attempt("umount", rustix::mount::unmount("/ipc/to-agent", UnmountFlags::DETACH)));
    tried.push(attempt("pivot_root", process::pivot_root("/tmp", "/tmp")));
    tried.push(attempt("chroot", process::chroot("/tmp")));
    for (name, kind, device) in [
        ("mknod block device", FileType::BlockDevice, fs::makedev(8, 0)),
        ("mknod /dev/mem", FileType::CharacterDevice, fs::makedev(1, 1)),
    ] {
        let made = fs::mknodat(CWD, "/tmp/lazaret-probe-node", kind, Mode::from_raw_mode(0o600), device);
        if made.is_ok() {
            let _ = fs::unlink("/tmp/lazaret-probe-node");
        }
        tried.push(attempt(name, made));
    }
}

/// Tries to allocate disk space without writing. If the file cannot be created, nothing is known and nothing is
/// reported.
fn disk_space(tried: &mut Vec<Attempt>) {
    let path = format!("{}/{FROM_AGENT}/.room", box_path::IPC);
    let made = fs::open(&path, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR);
    if let Ok(file) = made {
        tried
            .push(attempt(ALLOCATE_WITHOUT_WRITING, fs::fallocate(&file, FallocateFlags::empty(), 0, SPACE)));
        let _ = fs::unlink(&path);
    }
}

fn own_process(tried: &mut Vec<Attempt>) {
    let own = process::pidfd_open(process::getpid(), PidfdFlags::empty());
    let stolen = own.and_then(|own| process::pidfd_getfd(own, 0, PidfdGetfdFlags::empty()));
    tried.push(attempt("pidfd_getfd", stolen));
    // Without namespace files there is no namespace to enter.
    if let Ok(uts) = fs::open("/proc/self/ns/uts", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        tried.push(attempt("setns", thread::move_into_link_name_space(uts.as_fd(), None)));
    }
    tried.push(attempt("setuid 0", thread::set_thread_uid(Uid::ROOT)));
    tried.push(attempt("setgid 0", thread::set_thread_gid(Gid::ROOT)));
    tried.push(attempt("setgroups", thread::set_thread_groups(&[Gid::ROOT])));
    for (name, flags) in [
        ("unshare net", UnshareFlags::NEWNET),
        ("unshare mount", UnshareFlags::NEWNS),
        ("unshare user", UnshareFlags::NEWUSER),
    ] {
        #[allow(deprecated, reason = "only descriptor tables make it unsafe, and those are not asked for")]
        tried.push(attempt(name, thread::unshare(flags)));
    }
}
