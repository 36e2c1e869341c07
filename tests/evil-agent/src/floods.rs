//! Floods: attacks that write too many or too large files and letters.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{Activity, Draft, Message, Status};
use rustix::fs::inotify;

use crate::Attack;
use crate::evidence::{Facts, and, code, errno, fact};
use crate::mailbox::Mailbox;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("a17_bytes_in_drafts", |mailbox, _| {
        until_stopped(mailbox, |dir, n| fill(&dir.join(format!(".{n}")), 4 << 20))
    }),
    ("a17_one_draft_that_grows", |mailbox, _| {
        until_stopped(mailbox, |dir, _| fill(&dir.join(".one"), 4 << 20))
    }),
    ("a17_bytes_below_a_dot_directory", |mailbox, _| {
        let dir = mailbox.from.join(".hidden/deeper");
        let _ = fs::create_dir_all(&dir);
        until_stopped(mailbox, move |_, n| fill(&dir.join(n.to_string()), 4 << 20))
    }),
    ("a18_empty_files", |mailbox, words| {
        let most = words.first().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
        until_stopped(
            mailbox,
            move |dir, n| if n < most { touch(&dir.join(format!("junk{n}"))) } else { idle() },
        )
    }),
    ("a18_empty_drafts", |mailbox, _| {
        until_stopped(mailbox, |dir, n| touch(&dir.join(format!(".draft{n}"))))
    }),
    ("a18_names_below_a_dot_directory", |mailbox, _| {
        let dir = mailbox.from.join(".hidden");
        let _ = fs::create_dir_all(&dir);
        until_stopped(mailbox, move |_, n| touch(&dir.join(n.to_string())))
    }),
    ("a18_directories_within_directories", deep_tree),
    ("a19_interim_messages", |mailbox, _| {
        until_stopped_by_letters(mailbox, |n| FromAgent::Message(Message { text: format!("message {n}") }))
    }),
    ("a19_drafts", |mailbox, _| {
        few(mailbox, 3_000, |n| FromAgent::Draft(Draft { text: format!("draft {n}") }))
    }),
    ("a19_drafts_of_the_largest_size", |mailbox, _| {
        few(mailbox, 100, |n| FromAgent::Draft(Draft { text: format!("{n} {}", "x".repeat(200 << 10)) }))
    }),
    ("a19_status_letters", |mailbox, _| {
        few(mailbox, 3_000, |n| {
            let tool = Some("run_command".to_owned());
            FromAgent::Status(Status {
                state: Activity::Tool,
                tool,
                detail: Some(n.to_string()),
                deadline_s: None,
            })
        })
    }),
    ("a19_a_deadline_for_ever", |mailbox, _| {
        few(mailbox, 1, |_| {
            let deadline_s = Some(u32::MAX);
            FromAgent::Status(Status { state: Activity::Tool, tool: None, detail: None, deadline_s })
        })
    }),
    ("a19_letters_without_end", |mailbox, _| {
        until_stopped_by_letters(mailbox, |n| FromAgent::Draft(Draft { text: n.to_string() }))
    }),
    ("a19_requests", |mailbox, _| requests(mailbox, false)),
    ("a19_one_request_for_ever", |mailbox, _| requests(mailbox, true)),
    ("a19_refused_letters_without_end", refused),
    ("n4_refusals_do_not_fill_the_log", junk),
    ("a31_inotify_queue_overflows", overflow),
    ("a32_inotify_instances", instances),
];

fn fill(path: &Path, bytes: usize) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&vec![b'x'; bytes])
}

fn touch(path: &Path) -> std::io::Result<()> {
    File::create(path).map(drop)
}

fn idle() -> std::io::Result<()> {
    sleep(Duration::from_millis(10));
    Ok(())
}

/// Repeats a step until the host ends this box, at most for 10 s. If the box is not ended, it reports the number of
/// steps.
fn until_stopped(mailbox: &mut Mailbox, step: impl Fn(&PathBuf, u64) -> std::io::Result<()>) -> Facts {
    let began = Instant::now();
    let (mut done, mut failed) = (0u64, 0);
    while began.elapsed() < Duration::from_secs(10) && failed == 0 {
        match step(&mailbox.from, done) {
            Ok(()) => done += 1,
            Err(e) => failed = e.raw_os_error().unwrap_or(-1),
        }
    }
    if failed != 0 {
        // The directory has its own size limit and is full. Then the watchdog need not end the box. The files are
        // removed to make space for the report.
        let _ = fs::read_dir(&mailbox.from).map(|names| {
            for name in names.flatten() {
                let _ = fs::remove_file(name.path()).or_else(|_| fs::remove_dir_all(name.path()));
            }
        });
    }
    and(fact("went_on", done), "errno", failed)
}

/// Writes valid letters as fast as the host takes them, until the host ends this box, or up to a time limit and a
/// number.
fn until_stopped_by_letters(mailbox: &mut Mailbox, body: impl Fn(u64) -> FromAgent) -> Facts {
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < Duration::from_secs(20) && sent < 30_000 {
        mailbox.send(body(sent));
        sent += 1;
        if sent.is_multiple_of(1_000) {
            mailbox.taken();
        }
    }
    and(fact("went_on", sent), "gone", mailbox.taken())
}

fn few(mailbox: &mut Mailbox, count: u64, body: impl Fn(u64) -> FromAgent) -> Facts {
    for n in 0..count {
        mailbox.send(body(n));
        if n % 50 == 49 {
            mailbox.taken();
        }
    }
    and(fact("sent", count), "gone", mailbox.taken())
}

fn requests(mailbox: &mut Mailbox, same: bool) -> Facts {
    let mut sent = 0u64;
    for n in 0..1_000 {
        if same && n > 0 {
            mailbox.entry -= 1;
        }
        let name = mailbox.next_name("request");
        let letter = mailbox.envelope(mailbox.n, "request", r#"{"kind":"open_the_door","args":{}}"#);
        let _ = mailbox.drop_in(&name, letter.as_bytes());
        sent += 1;
        if n % 50 == 49 {
            mailbox.taken();
        }
    }
    let taken = mailbox.taken();
    let answers = mailbox.letters_of_host().iter().filter(|name| name.ends_with("-response.json")).count();
    and(and(fact("sent", sent), "gone", taken), "answers", answers)
}

/// A slow kernel needs this long to write as many letters as a turn may have.
const PERSISTENT: Duration = Duration::from_secs(50);

/// Writes invalid letters, each with the next number.
fn refused(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let began = Instant::now();
    let mut sent = 0u64;
    while began.elapsed() < PERSISTENT && sent < 30_000 {
        let name = mailbox.next_name("message");
        let _ = mailbox.drop_in(&name, b"{ torn");
        sent += 1;
        if sent.is_multiple_of(1_000) {
            mailbox.taken();
        }
    }
    and(fact("went_on", sent), "gone", mailbox.taken())
}

/// Writes files whose names have no number.
fn junk(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    for n in 0..3_000 {
        let _ = fs::write(mailbox.from.join(format!("junk {n} {}", "x".repeat(200))), b"");
        if n % 500 == 499 {
            mailbox.goes(format!("junk {n} {}", "x".repeat(200)));
        }
    }
    fact("made", 3_000)
}

/// Builds 2,000 nested directories, the innermost first.
fn deep_tree(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let root = mailbox.from.join(".tree");
    let mut made = fs::create_dir(&root);
    for n in 0..2_000 {
        let outer = mailbox.from.join(format!(".o{n}"));
        made = made
            .and_then(|()| fs::create_dir(&outer))
            .and_then(|()| fs::rename(&root, outer.join("d")))
            .and_then(|()| fs::rename(&outer, &root));
    }
    fact("made", errno(&made))
}

/// Causes more events than the host's inotify queue holds (16,384 by default), and then sends one valid letter.
fn overflow(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    for n in 0..30_000 {
        let path = mailbox.from.join(format!(".e{}", n % 7));
        let _ = touch(&path);
        let _ = fs::remove_file(path);
    }
    fact("events", 60_000)
}

/// Holds as many inotify instances and watches as the kernel allows, for a second.
fn instances(_: &mut Mailbox, _: &[&str]) -> Facts {
    let mut held = Vec::new();
    let stopped = loop {
        match inotify::init(inotify::CreateFlags::CLOEXEC) {
            Ok(instance) => {
                let _ = inotify::add_watch(&instance, "/workspace", inotify::WatchFlags::CREATE);
                held.push(instance);
            }
            error => break code(&error),
        }
    };
    sleep(Duration::from_secs(1));
    and(fact("instances", held.len()), "errno", stopped)
}
