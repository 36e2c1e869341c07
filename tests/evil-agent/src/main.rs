//! The evil agent replaces the runner in a real box and behaves like a compromised agent.
//!
//! The host starts it like its runner (`agent-runner run`). It writes its letters byte by byte itself. The message
//! `attack CASE [ARGUMENTS]` makes it perform that case with all privileges of a box. The turn ends with a valid
//! `turn_done` whose text is a report, one JSON object. This letter also shows that the host still reads letters.
//!
//! `evil-agent CASE` performs a case by hand, without a host, and prints the report. The program contains no exploit:
//! each attack asks the kernel or the host for something that must be refused.
//!
//! | file | contents |
//! |---|---|
//! | [`mailbox`] | reads and writes letters |
//! | [`files`] | files of every kind in a letter's place |
//! | [`letters`] | letters with hostile contents |
//! | [`floods`] | floods |
//! | [`filesystem`] | mounts, devices, other people's data |
//! | [`syscalls`] | system calls that the kernel must refuse |
//! | [`resources`] | memory, processors, processes, disk |
//! | [`gateway`] | the box's only socket |
//! | [`own_session`] | what a box leaves for the next one |
//! | [`termination`] | boxes that do not end |

mod evidence;
mod files;
mod filesystem;
mod floods;
mod gateway;
mod letters;
mod mailbox;
mod own_session;
mod resources;
mod syscalls;
mod termination;

use std::process::ExitCode;

use evidence::{Facts, fact};
use mailbox::{Heard, Mailbox};

/// One attack: a function of the mailbox and the words after the attack's name.
type Attack = fn(&mut Mailbox, &[&str]) -> Facts;

const TABLES: [&[(&str, Attack)]; 8] = [
    files::ATTACKS,
    letters::ATTACKS,
    floods::ATTACKS,
    filesystem::ATTACKS,
    resources::ATTACKS,
    gateway::ATTACKS,
    own_session::ATTACKS,
    termination::ATTACKS,
];

fn perform(mailbox: &mut Mailbox, name: &str, words: &[&str]) -> Facts {
    if name == "ping" {
        return Facts::new();
    }
    if let Some((_, attack)) = TABLES.iter().flat_map(|table| table.iter()).find(|(known, _)| *known == name)
    {
        return attack(mailbox, words);
    }
    syscalls::perform(name).unwrap_or_else(|| fact("error", format!("there is no attack {name}")))
}

/// Performs a turn: first the attack, then the report. If the host ended an earlier box in this turn, the new box does
/// not repeat the attack.
fn turn(mailbox: &mut Mailbox, text: &str) {
    let mut words = text.split_whitespace().skip_while(|word| *word != "attack").skip(1);
    let Some(name) = words.next() else { return mailbox.done("ping", Facts::new()) };
    let words: Vec<&str> = words.collect();
    if name != "ping" && !mailbox.first_time() {
        return mailbox.done(name, fact("resumed", true));
    }
    let facts = perform(mailbox, name, &words);
    mailbox.done(name, facts);
}

fn live(mut mailbox: Mailbox) -> ExitCode {
    mailbox.ready();
    loop {
        match mailbox.hear() {
            Heard::Input(text) => turn(&mut mailbox, &text),
            Heard::Close => return ExitCode::SUCCESS,
        }
    }
}

fn main() -> ExitCode {
    // The host reads the letters through a shared group, like the runner's.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o007));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run"] => own_session::honest().unwrap_or_else(|| match Mailbox::open() {
            Ok(mailbox) => live(mailbox),
            Err(why) => {
                eprintln!("evil-agent: {why}");
                ExitCode::FAILURE
            }
        }),
        // Before a group's first run, the host asks the runner to inspect the image and probe the posture. These calls
        // are not attacked here, so the real runner answers them.
        ["inspect-image" | "probe", ..] => agent_runner::main(),
        ["child", what, rest @ ..] => resources::child(what, rest),
        ["stubborn", rest @ ..] => termination::stubborn(rest),
        [name, rest @ ..] => {
            println!("{}", serde_json::Value::Object(perform(&mut Mailbox::detached(), name, rest)));
            ExitCode::SUCCESS
        }
        [] => {
            eprintln!("usage: evil-agent CASE [ARGUMENTS]");
            ExitCode::FAILURE
        }
    }
}
