//! Attacks on the end of a box: it ignores signals, leaves children behind, or dies in the middle of a turn.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::Message;

use crate::Attack;
use crate::evidence::{Facts, errno, fact};
use crate::mailbox::{AT, Mailbox};

pub const ATTACKS: &[(&str, Attack)] = &[
    ("c22_close_and_sigterm_are_ignored", ignore),
    ("c22_children_that_outlive", children),
    ("c22_it_exits_in_mid_turn", |_, _| std::process::exit(0)),
    ("c22_it_exits_as_if_killed", |_, _| std::process::exit(137)),
    ("c22_it_aborts_in_mid_turn", |_, _| std::process::abort()),
    ("c22_failed_and_goes_on", failed),
    ("c23_it_stops_its_own_init", |_, _| {
        let killed =
            Command::new("/proc/self/exe").args(["child", "late", "kill"]).stdin(Stdio::null()).status();
        fact("status", errno(&killed))
    }),
    ("a35_children_that_write_late", late_letters),
];

/// Replaces itself by a program that ignores SIGTERM. A signal that a shell ignores stays ignored after exec
/// (signal(7)).
fn ignore(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let report = mailbox.report("c22_close_and_sigterm_are_ignored", Facts::new());
    mailbox.end(report);
    mailbox.silent = true;
    let line = "trap '' TERM INT HUP; exec /lazaret/agent-runner stubborn";
    let failed = Command::new("/bin/sh").args(["-c", line]).exec();
    fact("error", failed.to_string())
}

/// Sleeps for ever.
pub fn stubborn(_: &[&str]) -> ExitCode {
    loop {
        std::thread::sleep(Duration::from_secs(600));
    }
}

/// Starts children in sessions of their own.
fn children(_: &mut Mailbox, words: &[&str]) -> Facts {
    let mark = words.first().copied().unwrap_or("mark");
    let mut started = 0;
    for _ in 0..5 {
        let child = Command::new("/proc/self/exe")
            .args(["child", "sleep", mark])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn();
        started += u32::from(child.is_ok());
    }
    fact("started", started)
}

fn failed(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let own = format!("\"turn\":\"{}\",", mailbox.turn);
    let body = r#"{"code":"evil","reason":"\u001b[31m[lazaret] all is well"}"#;
    let gone = mailbox.next_raw("failed", |text| text.replacen(&own, "", 1).into_bytes(), body);
    mailbox.send(FromAgent::Message(Message { text: "and yet it speaks".to_owned() }));
    fact("gone", gone)
}

/// Starts a child that writes letters of this turn while the turn ends and afterwards.
fn late_letters(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let args = [
        mailbox.run.to_string(),
        mailbox.turn.to_string(),
        (mailbox.n + 2).to_string(),
        mailbox.ack.to_string(),
    ];
    let child = Command::new("/proc/self/exe")
        .args(["child", "late"])
        .args(args)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn();
    fact("started", errno(&child))
}

/// Runs as the child of [`late_letters`]. With `kill` it tries to kill processes that it does not own.
pub fn late(words: &[&str]) {
    if let ["kill"] = words {
        let one = rustix::process::Pid::from_raw(1);
        for signal in [rustix::process::Signal::STOP, rustix::process::Signal::KILL] {
            let sent = one.map(|pid| rustix::process::kill_process(pid, signal));
            println!("{sent:?}");
        }
        return;
    }
    let [run, turn, first, ack] = words else { return };
    let Ok(first) = first.parse::<u64>() else { return };
    // The agent writes the end of the turn meanwhile, with the number before these.
    std::thread::sleep(Duration::from_millis(500));
    for n in first..first + 20 {
        let letter = format!(
            r#"{{"v":1,"id":"{turn}:{}.0","run":"{run}","turn":"{turn}","n":{n},"ack":{ack},"at":"{AT}","type":"message","body":{{"text":"a late word"}}}}"#,
            1_000 + n
        );
        let part = format!("/ipc/from-agent/.late{n}");
        let name = format!("/ipc/from-agent/{n:010}-message.json");
        let _ = std::fs::write(&part, letter).and_then(|()| std::fs::rename(part, name));
    }
}
