//! Attacks on what a box leaves for the next one: the folder of its session, the letter `begin`, and files that the
//! boxes of several groups share.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use ipc_schema::LetterId;
use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{Draft, Message};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use serde_json::{Value, json};

use crate::Attack;
use crate::evidence::{Facts, and, code, fact};
use crate::mailbox::Mailbox;

/// If this file exists, the next box of the session runs the real runner.
const HONEST: &str = "/session/honest";
/// How many drafts a turn writes before its box dies.
const DRAFTS: u64 = 2_500;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("g3_a_transcript_is_no_file", spoil),
    ("g3_look", |_, _| fact("names", names())),
    ("g5_drafts_with_long_ids", long_ids),
    ("g12_files_that_groups_share", shared),
];

/// Runs the real runner after [`spoil`].
pub fn honest() -> Option<ExitCode> {
    Path::new(HONEST).exists().then(agent_runner::main)
}

fn names() -> Value {
    let names = fs::read_dir("/session").into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>().into()
}

/// Puts FIFOs in the places of its own transcript, of its archive and of transcripts to come.
fn spoil(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let _ = File::create(HONEST);
    let to_come = (1..=9).map(|n| format!("conversation-{n}.jsonl"));
    let own = [format!("{}.jsonl", mailbox.session), "archive".to_owned()];
    let made = to_come.chain(own).map(|name| {
        let path = Path::new("/session").join(name);
        code(&mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o400), 0))
    });
    let made = made.filter(|errno| *errno == 0).count();
    and(fact("made", made), "session", mailbox.session.clone())
}

/// Writes many drafts whose ids are as long as an id may be, and dies before the turn is done.
fn long_ids(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    for n in 0..DRAFTS {
        let id = format!("{}:{n}-{}", mailbox.turn, "x".repeat(120));
        let Ok(id) = id.parse::<LetterId>() else { return fact("error", "no id") };
        let body = match n % 500 {
            0 => FromAgent::Message(Message { text: format!("message {n}") }),
            _ => FromAgent::Draft(Draft { text: n.to_string() }),
        };
        mailbox.send_as(id, body);
    }
    // The host reads what the box has written before it starts the next box.
    std::process::exit(0)
}

/// The files that may be the same ones in the boxes of other groups, and whether this box can lock them.
fn shared(_: &mut Mailbox, _: &[&str]) -> Facts {
    let places = [
        "/lazaret/agent-runner",
        "/global",
        "/etc/passwd",
        "/inbox",
        "/ipc/to-agent",
        "/session",
        "/workspace",
    ];
    let seen = places.iter().map(|place| {
        let opened = File::open(place);
        let inode = opened.as_ref().ok().and_then(|file| file.metadata().ok()).map(|found| found.ino());
        let locked =
            opened.as_ref().is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok());
        ((*place).to_owned(), json!({ "inode": inode, "locked": locked }))
    });
    fact("places", Value::Object(seen.collect()))
}
