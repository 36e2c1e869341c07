//! PID 1 of a box. It builds the root filesystem, drops all privileges, runs the program, forwards signals and reaps
//! orphans.
//!
//! Its standard input is a socket to the stand-in. It reads the order from the socket and writes the answer back, each
//! as one line of JSON. When the stand-in ends, the socket closes and the box ends. (Rejected: a parent-death signal.
//! The kernel clears it when the process changes its user.)

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid, WaitOptions, kill_process, setrlimit, wait};
use rustix::thread::{
    CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::filesystem;
use super::spawn::{Order, Report};
use super::spec::BoxSpec;

/// The exit code of the engine's init if the program does not exist.
const NO_PROGRAM: u8 = 127;
/// 128 + SIGKILL.
const KILLED: u8 = 137;

/// The signals that PID 1 forwards to the program.
const PASSED_ON: [(SignalKind, Signal); 6] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// Runs a box. `engine-stand-in --box` calls it.
pub fn live() -> ExitCode {
    match prepared().and_then(|(order, line, pid)| run_init(&order, line, pid)) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Does everything that needs privileges, then drops them. Privileges belong to a thread, and this process has only
/// one.
fn prepared() -> Result<(Order, UnixStream, i32), String> {
    let own = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("no standard input: {e}"))?;
    let mut line = UnixStream::from(own);
    let mut text = String::new();
    BufReader::new(&line).read_line(&mut text).map_err(|e| format!("no order: {e}"))?;
    let order: Order = serde_json::from_str(&text).map_err(|e| format!("no order: {e}"))?;
    let ready = pid_on_the_host()
        .and_then(|pid| network(&order).map(|()| pid))
        .and_then(|pid| filesystem::enter(&order).map(|()| pid))
        .and_then(|pid| drop_privileges(&order.spec).map(|()| pid));
    match ready {
        Ok(pid) => Ok((order, line, pid)),
        Err(why) => {
            Report::Failed(why.clone()).write(&mut line).map_err(|e| format!("{why} (and not told: {e})"))?;
            Err(why)
        }
    }
}

/// Returns the pid of this process on the host. At this point `/proc` is still the host's, so its `self` link has this
/// pid.
fn pid_on_the_host() -> Result<i32, String> {
    let link = std::fs::read_link("/proc/self").map_err(|e| format!("/proc/self: {e}"))?;
    link.to_str().and_then(|pid| pid.parse().ok()).ok_or_else(|| format!("/proc/self is {}", link.display()))
}

/// Sets the box's hostname and enables its loopback interface, its only network.
fn network(order: &Order) -> Result<(), String> {
    std::fs::write("/proc/sys/kernel/hostname", &order.spec.hostname)
        .map_err(|e| format!("the host's name: {e}"))?;
    let up = Command::new(order.image_bin.join("ip")).args(["link", "set", "lo", "up"]).status();
    match up {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("the loopback is not up: {other:?}")),
    }
}

/// Sets the limits, drops the capabilities, and sets the groups and the user. The order matters: each step needs a
/// right that a later step removes.
fn drop_privileges(spec: &BoxSpec) -> Result<(), String> {
    for (name, soft, hard) in &spec.ulimits {
        let resource = match name.as_str() {
            "nofile" => Resource::Nofile,
            "fsize" => Resource::Fsize,
            "core" => Resource::Core,
            "nproc" => Resource::Nproc,
            other => return Err(format!("the stand-in knows no ulimit {other}")),
        };
        let limit = Rlimit { current: Some(*soft), maximum: Some(*hard) };
        setrlimit(resource, limit).map_err(|e| format!("ulimit {name}: {e}"))?;
    }
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // This kernel does not know the capability.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(format!("{capability:?}: {e}")),
        }
    }
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .and_then(|()| set_no_new_privs(true))
        .map_err(|e| format!("the user {uid}:{gid}: {e}", uid = spec.uid, gid = spec.gid))
}

fn run_init(order: &Order, line: UnixStream, pid: i32) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |e: std::io::Error| format!("PID 1: {e}");
    runtime.map_err(failed)?.block_on(async { run_program(order, line, pid).await.map_err(failed) })
}

/// Runs the program until it ends. Reports the start only after the signal handlers are installed, because the kernel
/// discards every signal that PID 1 does not handle.
async fn run_program(order: &Order, line: UnixStream, pid: i32) -> std::io::Result<u8> {
    line.set_nonblocking(true)?;
    let mut line = tokio::net::UnixStream::from_std(line)?;
    let mut deaths = signal(SignalKind::child())?;
    let program = run(&order.spec);
    if let Some(program) = program {
        for (kind, passed) in PASSED_ON {
            let mut heard = signal(kind)?;
            tokio::spawn(async move {
                while heard.recv().await.is_some() {
                    // A program that has just ended needs no signal.
                    let _ = kill_process(program, passed);
                }
            });
        }
    }
    line.write_all(&Report::Started { pid }.line()).await?;
    let Some(program) = program else { return Ok(NO_PROGRAM) };
    loop {
        tokio::select! {
            _ = deaths.recv() => {
                if let Some(code) = reap(program)? {
                    return Ok(code);
                }
            }
            // The stand-in never writes after the order, so the read returns only when the socket closes.
            _ = line.read_u8() => return Ok(KILLED),
        }
    }
}

fn run(spec: &BoxSpec) -> Option<Pid> {
    let (program, arguments) = spec.program.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir(&spec.working_dir).stdin(Stdio::null());
    command.envs(spec.env.iter().filter_map(|pair| pair.split_once('=')));
    match command.spawn() {
        Ok(child) => i32::try_from(child.id()).ok().and_then(Pid::from_raw),
        Err(e) => {
            eprintln!("exec {program} failed: {e}");
            None
        }
    }
}

/// Reaps all dead children. Returns the program's exit code if it was among them.
fn reap(program: Pid) -> std::io::Result<Option<u8>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => {
                let signalled = status.terminating_signal().map(|signal| 128 + signal);
                let code = status.exit_status().or(signalled).unwrap_or_default();
                return Ok(Some(u8::try_from(code).unwrap_or(u8::MAX)));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}
