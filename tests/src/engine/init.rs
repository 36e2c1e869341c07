//! PID 1 of a box. It builds the root filesystem, drops all privileges, runs the program, forwards signals and reaps
//! orphans.
//!
//! Its standard input is a socket to the stand-in. It reads the order from there and writes the answer back, one line
//! of JSON each. When the stand-in ends, the socket closes and the box ends. (A parent-death signal would not work: the
//! kernel forgets it when the user changes.)

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

/// What the engine's init says when there is no such program.
const NO_PROGRAM: u8 = 127;
/// 128 + SIGKILL.
const KILLED: u8 = 137;

/// The signals that it forwards.
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
    match prepared().and_then(|(order, line, pid)| reign(&order, line, pid)) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Does everything that needs privileges, then drops them. Privileges belong to a thread; this process has one.
fn prepared() -> Result<(Order, UnixStream, i32), String> {
    let own = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("no standard input: {e}"))?;
    let mut line = UnixStream::from(own);
    let mut text = String::new();
    BufReader::new(&line).read_line(&mut text).map_err(|e| format!("no order: {e}"))?;
    let order: Order = serde_json::from_str(&text).map_err(|e| format!("no order: {e}"))?;
    let ready = pid_on_the_host()
        .and_then(|pid| network(&order).map(|()| pid))
        .and_then(|pid| filesystem::enter(&order).map(|()| pid))
        .and_then(|pid| give_up_rights(&order.spec).map(|()| pid));
    match ready {
        Ok(pid) => Ok((order, line, pid)),
        Err(why) => {
            Report::Failed(why.clone()).write(&mut line).map_err(|e| format!("{why} (and not told: {e})"))?;
            Err(why)
        }
    }
}

/// `/proc` is still the host's, and names this process by the host's number.
fn pid_on_the_host() -> Result<i32, String> {
    let link = std::fs::read_link("/proc/self").map_err(|e| format!("/proc/self: {e}"))?;
    link.to_str().and_then(|pid| pid.parse().ok()).ok_or_else(|| format!("/proc/self is {}", link.display()))
}

/// The box's name, and its loopback: all the network there is.
fn network(order: &Order) -> Result<(), String> {
    std::fs::write("/proc/sys/kernel/hostname", &order.spec.hostname)
        .map_err(|e| format!("the host's name: {e}"))?;
    let up = Command::new(order.image_bin.join("ip")).args(["link", "set", "lo", "up"]).status();
    match up {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("the loopback is not up: {other:?}")),
    }
}

/// Limits, capabilities, groups, user: in this order, for each needs what the next takes away.
fn give_up_rights(spec: &BoxSpec) -> Result<(), String> {
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
            // This kernel does not have it.
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

fn reign(order: &Order, line: UnixStream, pid: i32) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |e: std::io::Error| format!("PID 1: {e}");
    runtime.map_err(failed)?.block_on(async { outlive_the_program(order, line, pid).await.map_err(failed) })
}

/// Reports only once signals are heard: the kernel keeps from PID 1 every signal that it does not handle.
async fn outlive_the_program(order: &Order, line: UnixStream, pid: i32) -> std::io::Result<u8> {
    line.set_nonblocking(true)?;
    let mut line = tokio::net::UnixStream::from_std(line)?;
    let mut deaths = signal(SignalKind::child())?;
    let program = run(&order.spec);
    if let Some(program) = program {
        for (kind, passed) in PASSED_ON {
            let mut heard = signal(kind)?;
            tokio::spawn(async move {
                while heard.recv().await.is_some() {
                    // A program that has just ended needs none.
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
            // Nothing more is ever written: what is read is the end.
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
