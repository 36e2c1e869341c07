//! The evil agent: it takes the runner's place in a real box and behaves like a compromised agent.
//!
//! The host starts it as it starts its runner (`agent-runner run`). It writes its letters itself, byte by byte. The
//! message `attack CASE [ARGUMENTS]` makes it perform that case with all privileges of a box. The turn ends with a
//! valid `turn_done` whose text is a report, one JSON object; it also shows that the host still reads letters.
//!
//! `evil-agent CASE` performs a case by hand, where there is no host, and prints the report. It holds no exploit:
//! each attack asks the kernel or the host for something that must be refused.
//!
//! | file | what |
//! |---|---|
//! | [`mailbox`] | reads and writes letters |
//! | [`files`] | files of every kind in a letter's place |
//! | [`letters`] | letters with hostile contents |
//! | [`floods`] | floods |
//! | [`filesystem`] | mounts, devices, other people's data |
//! | [`syscalls`] | system calls that the kernel must refuse |
//! | [`resources`] | memory, processors, processes, disk |
//! | [`gateway`] | the box's only socket |
//! | [`termination`] | boxes that do not end |

mod evidence;
mod files;
mod filesystem;
mod floods;
mod gateway;
mod letters;
mod mailbox;
mod resources;
mod syscalls;
mod termination;

use std::process::ExitCode;

use evidence::{Facts, fact};
use mailbox::{Heard, Mailbox};

/// One attack: what it does, with the words behind its name.
type Attack = fn(&mut Mailbox, &[&str]) -> Facts;

const TABLES: [&[(&str, Attack)]; 7] = [
    files::ATTACKS,
    letters::ATTACKS,
    floods::ATTACKS,
    filesystem::ATTACKS,
    resources::ATTACKS,
    gateway::ATTACKS,
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

/// A turn: attack, then report. A box that comes after one that was ended does not repeat what ended it.
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
    // Letters are shared with the host through the group, as the runner's are.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o007));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run"] => match Mailbox::open() {
            Ok(mailbox) => live(mailbox),
            Err(why) => {
                eprintln!("evil-agent: {why}");
                ExitCode::FAILURE
            }
        },
        // Before any agent is let in, the host asks the runner what it sees; that is not what is attacked here.
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
