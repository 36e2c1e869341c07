//! Attacks that use up memory, processors, processes, descriptors and output.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Attack;
use crate::evidence::{Facts, and, errno, fact};
use crate::mailbox::Mailbox;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("c1_fork_bomb", forks),
    ("c1_thread_bomb", |_, _| in_child("threads", "")),
    ("c2_memory_bomb", |_, _| hog_memory()),
    ("c2_memory_bomb_in_a_child", |_, _| in_child("memory", "")),
    ("c2_tmpfs_counts", |_, _| fill_until_full("/tmp", 2_048)),
    ("c2_shared_memory", |_, _| fill_until_full("/dev/shm", 64)),
    ("c3_processor_spin", spin),
    ("c3_a_turn_without_end", |_, _| {
        std::thread::sleep(Duration::from_secs(60));
        fact("went_on", 60)
    }),
    ("c4_output_flood", output),
    ("c4_output_with_escapes", escapes),
    ("c5_names_in_tmp", tmp_names),
    ("c5_tmp_can_be_used", |_, _| {
        let path = "/tmp/used";
        let used = fs::write(path, "x").and_then(|()| fs::remove_file(path));
        fact("errno", errno(&used))
    }),
    ("c12_descriptors", descriptors),
    ("c25_core_dump", core_dump),
    ("c25_abort", |_, _| in_child("abort", "")),
];

/// Runs this program again as a child, for attacks that may kill it, and reports how the child ended.
pub fn in_child(what: &str, argument: &str) -> Facts {
    let child = Command::new("/proc/self/exe").args(["child", what, argument]).stdin(Stdio::null()).output();
    match child {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let (signal, code) = (output.status.signal().unwrap_or(0), output.status.code().unwrap_or(-1));
            let facts = and(fact("signal", signal), "code", code);
            and(and(facts, "core", output.status.core_dumped()), "said", said)
        }
        Err(e) => fact("error", e.to_string()),
    }
}

/// Performs the attack in such a child.
pub fn child(what: &str, rest: &[&str]) -> ExitCode {
    match what {
        "memory" => drop(hog_memory()),
        "threads" => println!("{}", threads()),
        "abort" => std::process::abort(),
        "sleep" => std::thread::sleep(Duration::from_secs(600)),
        "cpu" => {
            let began = Instant::now();
            let mut x = 0u64;
            while began.elapsed() < Duration::from_secs(2) {
                x = x.wrapping_mul(31).wrapping_add(7);
            }
            std::hint::black_box(x);
        }
        "big_file" => {
            let chunk = vec![b'x'; 8 << 20];
            let Ok(mut file) = File::create("/workspace/big") else { return ExitCode::FAILURE };
            while file.write_all(&chunk).is_ok() {}
        }
        "late" => crate::termination::late(rest),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// Allocates memory and writes to every page, because the kernel provides a page only on the first write. If no limit
/// applies, it stops at a multiple of a box's limit, so that it does not take the whole machine's memory.
fn hog_memory() -> Facts {
    let mut held: Vec<Vec<u8>> = Vec::new();
    while held.len() < 512 {
        held.push(vec![u8::try_from(held.len() % 251).unwrap_or(0) | 1; 4 << 20]);
    }
    fact("went_on", held.len() * 4)
}

fn forks(_: &mut Mailbox, _: &[&str]) -> Facts {
    let mut children = Vec::new();
    let stopped = loop {
        match Command::new("/proc/self/exe").args(["child", "sleep"]).stdin(Stdio::null()).spawn() {
            Ok(child) if children.len() < 5_000 => children.push(child),
            other => break errno(&other),
        }
    };
    let count = children.len();
    for child in &mut children {
        let _ = child.kill();
    }
    for child in &mut children {
        let _ = child.wait();
    }
    and(fact("processes", count), "errno", stopped)
}

fn threads() -> usize {
    static ALIVE: AtomicU64 = AtomicU64::new(0);
    let mut count = 0;
    while count < 5_000 {
        let spawned = std::thread::Builder::new().stack_size(32 << 10).spawn(|| {
            ALIVE.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs(30));
        });
        if spawned.is_err() {
            break;
        }
        count += 1;
    }
    count
}

fn fill_until_full(place: &str, most_mib: u64) -> Facts {
    let path = Path::new(place).join("fill");
    let chunk = vec![b'x'; 1 << 20];
    let (mut mib, mut stopped) = (0, 0);
    if let Ok(mut file) = File::create(&path) {
        while mib < most_mib && stopped == 0 {
            stopped = errno(&file.write_all(&chunk));
            mib += u64::from(stopped == 0);
        }
    }
    let _ = fs::remove_file(path);
    and(fact("mib", mib), "errno", stopped)
}

/// Lets four children spin for two seconds each, and reports their processor time together.
fn spin(_: &mut Mailbox, _: &[&str]) -> Facts {
    let began = Instant::now();
    let children: Vec<_> = (0..4)
        .filter_map(|_| {
            Command::new("/proc/self/exe").args(["child", "cpu"]).stdin(Stdio::null()).spawn().ok()
        })
        .collect();
    for mut child in children {
        let _ = child.wait();
    }
    let wall = began.elapsed().as_millis();
    // Fields 16 and 17 of /proc/self/stat: the processor time of children that were waited for, in ticks of 10 ms.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = rest.split_whitespace().skip(13).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    and(fact("wall_ms", u64::try_from(wall).unwrap_or(0)), "cpu_ms", ticks * 10)
}

fn output(_: &mut Mailbox, _: &[&str]) -> Facts {
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    let mut out = std::io::stdout().lock();
    let mut written = 0u64;
    for _ in 0..32 * 1024 {
        if out.write_all(&line).is_err() {
            break;
        }
        written += 1;
    }
    fact("kib", written)
}

fn escapes(_: &mut Mailbox, _: &[&str]) -> Facts {
    eprintln!("\x1b]0;owned\x07\x1b[2J WARN code=\"ipc.forged\" run=forged \u{202e}");
    std::process::exit(3);
}

fn tmp_names(_: &mut Mailbox, _: &[&str]) -> Facts {
    let dir = Path::new("/tmp/names");
    let _ = fs::create_dir(dir);
    let (mut made, mut stopped) = (0, 0);
    while made < 400_000 && stopped == 0 {
        stopped = errno(&File::create(dir.join(made.to_string())));
        made += u32::from(stopped == 0);
    }
    let _ = fs::remove_dir_all(dir);
    and(fact("names", made), "errno", stopped)
}

fn descriptors(_: &mut Mailbox, _: &[&str]) -> Facts {
    let mut held = Vec::new();
    let stopped = loop {
        match File::open("/dev/null") {
            Ok(file) if held.len() < 1 << 20 => held.push(file),
            other => break errno(&other),
        }
    };
    and(fact("open", held.len()), "errno", stopped)
}

fn core_dump(_: &mut Mailbox, _: &[&str]) -> Facts {
    let facts = in_child("abort", "");
    let cores = |dir: &str| {
        let names = fs::read_dir(dir).into_iter().flatten().flatten();
        names.filter(|e| e.file_name().to_string_lossy().starts_with("core")).count()
    };
    and(facts, "files", cores("/workspace") + cores("/tmp") + cores("."))
}
