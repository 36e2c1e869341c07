//! Files of every kind in a letter's place: links, FIFOs, sockets, directories, devices, files that change while the
//! host reads them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipc_schema::names_and_paths::{box_path, letter_name};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};

use crate::Attack;
use crate::evidence::{Facts, and, code, errno, fact};
use crate::mailbox::Mailbox;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("a1_symlink_to_host_file", |mailbox, _| link(mailbox, "/etc/shadow")),
    ("a1_symlink_relative", |mailbox, _| link(mailbox, "../../../../../../etc/passwd")),
    ("a1_symlink_to_a_host_path", |mailbox, words| link(mailbox, words.first().unwrap_or(&"/etc/shadow"))),
    ("a1_symlink_to_a_letter_of_its_own", own_letter),
    ("a1_symlink_in_a_chain", chain),
    ("a2_symlink_to_the_hosts_environment", |mailbox, _| link(mailbox, "/proc/self/environ")),
    ("a2_symlink_to_a_host_descriptor", |mailbox, _| link(mailbox, "/proc/self/fd/3")),
    ("a4_letter_directory_is_replaced", replace_directory),
    ("a5_hard_links_of_one_letter", hard_links),
    ("a5_hard_link_from_another_mount", cross_link),
    ("a6_fifo", |mailbox, _| node(mailbox, FileType::Fifo, 0)),
    ("a7_socket", socket),
    ("a7_directory", |mailbox, _| directory(mailbox, false)),
    ("a7_directory_with_files", |mailbox, _| directory(mailbox, true)),
    ("a7_directory_without_a_number", odd_directory),
    ("a8_character_device", |mailbox, _| node(mailbox, FileType::CharacterDevice, makedev(1, 5))),
    ("a8_block_device", |mailbox, _| node(mailbox, FileType::BlockDevice, makedev(8, 0))),
    ("a11_sparse_file", |mailbox, _| sized(mailbox, 400 << 20, true)),
    ("a12_two_mebibytes", |mailbox, _| sized(mailbox, 2 << 20, false)),
    ("a12_one_byte_too_many", |mailbox, _| exact(mailbox, (256 << 10) + 1)),
    ("a12_the_largest_letter_is_taken", |mailbox, _| exact(mailbox, 256 << 10)),
    ("a14_truncated_while_read", truncate),
    ("a15_swapped_in_a_tight_loop", swap),
    ("a15_swapped_with_a_fifo_and_a_link", swap_all),
    ("a16_rewritten_after_the_rename", rewrite),
    ("a24_a_name_of_every_kind", names),
    ("a24_name_beyond_the_counter", far_ahead),
    ("a24_numbers_are_left_out", gap),
    ("a28_a_forged_close", forged_close),
    ("a30_file_without_rights", |mailbox, _| no_rights(mailbox, false)),
    ("a30_directory_without_rights", |mailbox, _| no_rights(mailbox, true)),
    ("a34_written_in_place", in_place),
    ("a36_removed_before_it_is_read", blink),
    ("a38_a_letter_that_is_the_runner", runner_link),
];

fn link(mailbox: &mut Mailbox, target: &str) -> Facts {
    let name = mailbox.next_name("message");
    let made = symlink(target, mailbox.from.join(&name));
    and(fact("made", errno(&made)), "gone", mailbox.goes(&name))
}

/// A link to a valid letter. The host must not take it.
fn own_letter(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let name = mailbox.next_name("message");
    let bytes = mailbox.envelope(mailbox.n, "message", r#"{"text":"came through a link"}"#);
    let real = Path::new(box_path::WORKSPACE).join("letter");
    let made = fs::write(&real, bytes).and_then(|()| symlink(&real, mailbox.from.join(&name)));
    and(fact("made", errno(&made)), "gone", mailbox.goes(&name))
}

fn chain(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let name = mailbox.next_name("message");
    let (a, b) = (mailbox.from.join(".a"), mailbox.from.join(".b"));
    let made = symlink(".b", &a)
        .and_then(|()| symlink("/etc/passwd", b))
        .and_then(|()| symlink(".a", mailbox.from.join(&name)));
    and(fact("made", errno(&made)), "gone", mailbox.goes(&name))
}

fn replace_directory(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let (ipc, spare) = (Path::new(box_path::IPC), Path::new(box_path::WORKSPACE).join("spare"));
    let _ = fs::create_dir_all(&spare);
    let tries = [
        ("rename", errno(&fs::rename(&mailbox.from, ipc.join("other")))),
        ("rmdir", errno(&fs::remove_dir(&mailbox.from))),
        ("rename_to_agent", errno(&fs::rename(ipc.join("to-agent"), ipc.join("other")))),
        ("rename_over", errno(&fs::rename(&spare, &mailbox.from))),
        ("link_beside", errno(&symlink("/etc", ipc.join("evil")))),
        (
            "exchange",
            code(&renameat_with(CWD, &mailbox.from, CWD, ipc.join("to-agent"), RenameFlags::EXCHANGE)),
        ),
    ];
    tries.into_iter().fold(Facts::new(), |facts, (name, errno)| and(facts, name, errno))
}

fn hard_links(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let draft = mailbox.from.join(".one");
    let bytes = mailbox.envelope(mailbox.n + 1, "message", r#"{"text":"one of many links"}"#);
    let mut made = fs::write(&draft, bytes);
    let names: Vec<String> = (0..3).map(|_| mailbox.next_name("message")).collect();
    for name in &names {
        made = made.and_then(|()| fs::hard_link(&draft, mailbox.from.join(name)));
    }
    and(fact("made", errno(&made)), "gone", names.iter().all(|name| mailbox.goes(name)))
}

fn cross_link(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let file = Path::new(box_path::WORKSPACE).join("linked");
    let _ = fs::write(&file, "x");
    let name = letter_name(mailbox.n + 1, "message");
    fact("errno", errno(&fs::hard_link(file, mailbox.from.join(name))))
}

fn node(mailbox: &mut Mailbox, kind: FileType, device: u64) -> Facts {
    let name = letter_name(mailbox.n + 1, "message");
    let made = mknodat(CWD, mailbox.from.join(&name), kind, Mode::from_raw_mode(0o666), device);
    if made.is_err() {
        return and(fact("made", code(&made)), "gone", true);
    }
    mailbox.n += 1;
    and(fact("made", 0), "gone", mailbox.goes(&name))
}

fn socket(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let name = mailbox.next_name("message");
    let bound = UnixListener::bind(mailbox.from.join(&name));
    and(fact("made", errno(&bound)), "gone", mailbox.goes(&name))
}

fn directory(mailbox: &mut Mailbox, full: bool) -> Facts {
    let name = mailbox.next_name("message");
    let path = mailbox.from.join(&name);
    let made = if full {
        let draft = mailbox.from.join(".full");
        fs::create_dir(&draft)
            .and_then(|()| fs::write(draft.join("file"), "x"))
            .and_then(|()| fs::rename(draft, &path))
    } else {
        fs::create_dir(&path)
    };
    let facts = fact("made", errno(&made));
    if full {
        // The file may stay until the end of the run, but the host must take the letters after it earlier.
        sleep(Duration::from_millis(2500));
        return facts;
    }
    and(facts, "gone", mailbox.goes(&name))
}

fn odd_directory(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let path = mailbox.from.join("not-a-letter");
    let made = fs::create_dir(&path).and_then(|()| fs::write(path.join("file"), "x"));
    sleep(Duration::from_millis(2500));
    fact("made", errno(&made))
}

fn sized(mailbox: &mut Mailbox, bytes: u64, sparse: bool) -> Facts {
    let name = mailbox.next_name("message");
    let draft = mailbox.from.join(".big");
    let made = File::create(&draft).and_then(|mut file| {
        if sparse {
            file.set_len(bytes)
        } else {
            file.write_all(&vec![b' '; usize::try_from(bytes).unwrap_or(0)])
        }
    });
    let made = made.and_then(|()| fs::rename(draft, mailbox.from.join(&name)));
    and(fact("made", errno(&made)), "gone", mailbox.goes(&name))
}

/// Writes a valid draft letter of this size.
fn exact(mailbox: &mut Mailbox, bytes: usize) -> Facts {
    let name = mailbox.next_name("draft");
    let empty = mailbox.envelope(mailbox.n, "draft", r#"{"text":""}"#);
    mailbox.entry -= 1;
    let text = "x".repeat(bytes - empty.len());
    let letter = mailbox.envelope(mailbox.n, "draft", &format!(r#"{{"text":"{text}"}}"#));
    let made = mailbox.drop_in(&name, letter.as_bytes());
    and(and(fact("made", errno(&made)), "bytes", letter.len()), "gone", mailbox.goes(&name))
}

fn truncate(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    for _ in 0..200 {
        let name = mailbox.next_name("draft");
        let letter =
            mailbox.envelope(mailbox.n, "draft", &format!(r#"{{"text":"{}"}}"#, "x".repeat(200 << 10)));
        let draft = mailbox.from.join(".cut");
        let _ = fs::write(&draft, letter);
        let Ok(file) = OpenOptions::new().write(true).open(&draft) else { continue };
        let _ = fs::rename(&draft, mailbox.from.join(&name));
        for length in [100_000, 5_000, 1] {
            let _ = file.set_len(length);
        }
    }
    fact("gone", mailbox.taken())
}

/// For `words[1]` milliseconds, swaps each next letter between a plain file and a link to `words[0]`, until the host
/// takes it.
fn swap(mailbox: &mut Mailbox, words: &[&str]) -> Facts {
    let target = words.first().copied().unwrap_or("/etc/shadow");
    race(mailbox, words, |_, other| symlink(target, other))
}

fn swap_all(mailbox: &mut Mailbox, words: &[&str]) -> Facts {
    let target = words.first().copied().unwrap_or("/etc/shadow").to_owned();
    let workspace = PathBuf::from(box_path::WORKSPACE);
    race(mailbox, words, move |round, other| match round % 3 {
        0 => symlink(&target, other),
        1 => match mknodat(CWD, other, FileType::Fifo, Mode::from_raw_mode(0o666), 0) {
            Ok(()) => Ok(()),
            // A seccomp filter may refuse FIFOs; then it binds a socket.
            Err(_) => UnixListener::bind(other).map(drop),
        },
        _ => {
            let pair = other.with_file_name(".pair");
            let _ = fs::write(&pair, workspace.to_string_lossy().as_bytes());
            let linked = fs::hard_link(&pair, other);
            let _ = fs::remove_file(pair);
            linked
        }
    })
}

fn race(mailbox: &mut Mailbox, words: &[&str], other: impl Fn(u64, &Path) -> std::io::Result<()>) -> Facts {
    let millis = words.get(1).and_then(|ms| ms.parse().ok()).unwrap_or(1_000);
    let (began, mut swaps, mut rounds) = (Instant::now(), 0u64, 0u64);
    while began.elapsed() < Duration::from_millis(millis) {
        let name = mailbox.next_name("draft");
        let letter = mailbox.envelope(mailbox.n, "draft", r#"{"text":"mine"}"#);
        let (here, there) = (mailbox.from.join(&name), mailbox.from.join(".other"));
        let _ = fs::remove_file(&there);
        let _ = other(rounds, &there);
        let _ = mailbox.drop_in(&name, letter.as_bytes());
        while began.elapsed() < Duration::from_millis(millis + 5_000) {
            swaps += 1;
            if millis > 3_000 {
                // The host ends a box that floods it for a long time, so a long race swaps more slowly.
                std::thread::sleep(Duration::from_micros(400));
            }
            if trade(&here, &there).is_err() {
                break;
            }
        }
        rounds += 1;
        // The file under the name may now be the other one, which the host removes too.
        if !mailbox.goes(&name) {
            return and(fact("stuck", name), "rounds", rounds);
        }
    }
    and(fact("rounds", rounds), "swaps", swaps)
}

/// Exchanges two names. gVisor's kernel cannot exchange them in one step, so there it takes three renames. The first
/// rename fails if the host has already taken the file.
fn trade(here: &Path, there: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, here, CWD, there, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            let aside = there.with_file_name(".aside");
            fs::rename(here, &aside)?;
            fs::rename(there, here)?;
            fs::rename(aside, there)
        }
        done => Ok(done?),
    }
}

/// Keeps a descriptor open for writing after the rename. The host must take the same bytes that it checked.
fn rewrite(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let mut gone = true;
    for round in 0..20 {
        let name = mailbox.next_name("message");
        let first = mailbox.envelope(mailbox.n, "message", &format!(r#"{{"text":"round {round} first"}}"#));
        let second = first.replace("first", "other");
        let draft = mailbox.from.join(".held");
        let Ok(mut file) = File::create(&draft) else { continue };
        let _ = file.write_all(first.as_bytes());
        let _ = fs::rename(&draft, mailbox.from.join(&name));
        let asked = Instant::now();
        while fs::symlink_metadata(mailbox.from.join(&name)).is_ok()
            && asked.elapsed() < Duration::from_secs(8)
        {
            for text in [&second, &first] {
                let _ = rustix::io::pwrite(&file, text.as_bytes(), 0);
            }
        }
        gone &= mailbox.goes(&name);
    }
    fact("gone", gone)
}

/// Names that are not letter names.
fn names(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let long = "l".repeat(255);
    let names: [&[u8]; 14] = [
        b"new\nline.json",
        b"0000000009-message.json\n",
        b"\x1b]0;evil\x07\x1b[31m.json",
        b"-rf",
        b"%2e%2e%2f..%2fetc.json",
        b"\xff\xfe.json",
        long.as_bytes(),
        b"0000000000-message.json",
        b"00000000001-message.json",
        b"000000001-message.json",
        b"0000000009-Message.json",
        b"0000000009-message.json.json",
        "٠٠٠٠٠٠٠٠٠٩-message.json".as_bytes(),
        b" code=\"ipc.none\" run=forged",
    ];
    let mut made = 0;
    let mut stay = Vec::new();
    for name in names {
        let name = std::ffi::OsString::from_vec(name.to_vec());
        made += u32::from(fs::write(mailbox.from.join(&name), "x").is_ok());
        if !mailbox.goes(&name) {
            stay.push(name.to_string_lossy().escape_debug().to_string());
        }
    }
    and(and(fact("made", made), "gone", stay.is_empty()), "stay", stay)
}

/// A letter with a number far ahead. It must not use up the numbers before it.
fn far_ahead(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let n = 9_999_999_999;
    let letter = mailbox.envelope(n, "message", r#"{"text":"from the future"}"#);
    let name = letter_name(n, "message");
    let made = mailbox.drop_in(&name, letter.as_bytes());
    and(fact("made", errno(&made)), "gone", mailbox.goes(&name))
}

fn gap(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    mailbox.n += 100;
    fact("left_out", 100)
}

fn forged_close(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let letter = mailbox.envelope(1, "close", r#"{"why":"drain","reason":"forged"}"#);
    let made = mailbox.drop_in("_close", letter.as_bytes());
    and(fact("made", errno(&made)), "gone", mailbox.goes("_close"))
}

fn no_rights(mailbox: &mut Mailbox, dir: bool) -> Facts {
    let none = fs::Permissions::from_mode(0o000);
    if dir {
        let trees = [mailbox.from.join(".tree"), Path::new(box_path::WORKSPACE).join("tree")];
        let mut made = Ok(());
        for tree in trees {
            made = made
                .and_then(|()| fs::create_dir_all(tree.join("deep/er")))
                .and_then(|()| fs::write(tree.join("deep/er/file"), "x"))
                .and_then(|()| fs::set_permissions(tree.join("deep"), none.clone()))
                .and_then(|()| fs::set_permissions(&tree, none.clone()));
        }
        return fact("made", errno(&made));
    }
    let name = mailbox.next_name("message");
    let letter = mailbox.envelope(mailbox.n, "message", r#"{"text":"unreadable"}"#);
    let draft = mailbox.from.join(".none");
    let made = fs::write(&draft, letter)
        .and_then(|()| fs::set_permissions(&draft, none))
        .and_then(|()| fs::rename(&draft, mailbox.from.join(&name)));
    and(fact("made", errno(&made)), "gone", mailbox.goes(&name))
}

/// Writes half a letter under its final name, and the other half a little later.
fn in_place(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let name = mailbox.next_name("message");
    let letter = mailbox.envelope(mailbox.n, "message", r#"{"text":"in two halves"}"#);
    let (first, second) = letter.split_at(letter.len() / 2);
    let made = File::create(mailbox.from.join(&name)).and_then(|mut file| {
        file.write_all(first.as_bytes())?;
        sleep(Duration::from_millis(300));
        file.write_all(second.as_bytes())
    });
    and(fact("made", errno(&made)), "gone", mailbox.goes(&name))
}

/// Creates and removes letters while the host lists and reads.
fn blink(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let name = letter_name(mailbox.n + 1, "draft");
    let letter = mailbox.envelope(mailbox.n + 1, "draft", r#"{"text":"now you see me"}"#);
    for _ in 0..2_000 {
        let _ = mailbox.drop_in(&name, letter.as_bytes());
        let _ = fs::remove_file(mailbox.from.join(&name));
    }
    // The host may have taken a letter with this number meanwhile; then the next number is free.
    mailbox.n += 1;
    fact("blinked", 2_000)
}

/// Links the host's runner file under a letter's name.
fn runner_link(mailbox: &mut Mailbox, _: &[&str]) -> Facts {
    let name = letter_name(mailbox.n + 1, "message");
    fact("errno", errno(&fs::hard_link("/lazaret/agent-runner", mailbox.from.join(name))))
}
