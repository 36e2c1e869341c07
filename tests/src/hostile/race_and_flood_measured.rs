//! Measures two attacks over a longer time: the race for a letter's name, and floods.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ipc_schema::RefusalCode;
use ipc_schema::untrusted_fs::UntrustedDir;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use serde_json::{Value, json};

use super::expectation_kinds::name_of;
use super::harness::{Harness, TestGroup};
use super::letter_floods::count;

/// The content that a reader must never return.
const SECRET: &[u8] = b"this is the host's own canary\n";
/// The content that a reader may return.
const MINE: &[u8] = b"mine";

/// Two threads swap a letter with four other kinds of files in tight loops while a reader opens the letter's name. In a
/// real box the evil agent does the same against the host. The readers must return no byte of the host's file.
pub async fn race(seconds: u64, settings: &str) -> Value {
    let direct = tokio::task::spawn_blocking(move || race_direct(seconds));
    let boxed = race_in_a_box(seconds, settings).await;
    let direct = direct.await.unwrap_or(Value::Null);
    let leaks = direct["leaks"].as_u64().unwrap_or(1) + boxed["leaks"].as_u64().unwrap_or(1);
    json!({
        "seconds": seconds,
        "reads": direct["reads"],
        "taken": direct["taken"],
        "refused": direct["refused"],
        "by_code": direct["by_code"],
        "letters_swapped_in_a_box": boxed["rounds"],
        "swaps_in_a_box": boxed["swaps"],
        "refused_by_the_host": boxed["refused"],
        "told": boxed["told"],
        "leaks": leaks,
    })
}

fn race_direct(seconds: u64) -> Value {
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(e) => panic!("no place for a race: {e}"),
    };
    let (inside, secret) = (dir.path().join("letters"), dir.path().join("secret"));
    let at = |name: &str| inside.join(name);
    let prepared = std::fs::create_dir(&inside)
        .and_then(|()| std::fs::write(&secret, SECRET))
        .and_then(|()| std::fs::write(at("letter"), MINE))
        .and_then(|()| std::os::unix::fs::symlink(&secret, at(".link")))
        .and_then(|()| std::fs::hard_link(&secret, at(".hard")))
        .and_then(|()| std::fs::create_dir(at(".dir")));
    if let Err(e) = prepared {
        panic!("the race cannot be prepared: {e}");
    }
    let fifo = mknodat(CWD, at(".fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0);
    let reader = match UntrustedDir::open(&inside) {
        Ok(reader) => reader,
        Err(e) => panic!("{e}"),
    };
    let me = rustix::process::geteuid().as_raw();
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut reads, mut taken, mut leaks) = (0u64, 0u64, 0u64);
    let mut refused: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    std::thread::scope(|scope| {
        // The two threads use different orders.
        for others in [[".link", ".fifo", ".hard", ".dir"], [".hard", ".link", ".dir", ".fifo"]] {
            let (stop, swaps, inside) = (&stop, &swaps, &inside);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for other in others {
                        let there = inside.join(other);
                        let swap =
                            || renameat_with(CWD, inside.join("letter"), CWD, &there, RenameFlags::EXCHANGE);
                        // Two swaps, so that the plain file is back.
                        let done = u64::from(swap().is_ok()) + u64::from(swap().is_ok());
                        swaps.fetch_add(done, Ordering::Relaxed);
                    }
                }
            });
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            reads += 1;
            match reader.read(Path::new("letter"), me, 1024) {
                Ok(bytes) if bytes == MINE => taken += 1,
                Ok(_) => leaks += 1,
                Err(refusal) => *refused.entry(code(refusal.code)).or_default() += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    json!({
        "reads": reads,
        "taken": taken,
        "refused": refused.values().sum::<u64>(),
        "by_code": refused,
        "swaps": swaps.load(Ordering::Relaxed),
        "fifo": fifo.is_ok(),
        "leaks": leaks,
    })
}

fn code(code: RefusalCode) -> &'static str {
    code.as_str()
}

async fn race_in_a_box(seconds: u64, settings: &str) -> Value {
    // Refused letters count against the turn's limit, so the limit is raised for the race.
    let many = [("LAZARET_LIMITS_TURN_LETTERS", "100000000")];
    let harness = Harness::with_ceiling(&format!("{settings}\nlimits.idle_window = \"1m\""), &many).await;
    let test_group = harness.spare_group(0);
    let canary = harness.root().join("canary-of-the-host");
    let text = format!("attack a15_swapped_in_a_tight_loop {} {}", canary.display(), seconds * 1_000);
    let before = harness.counters();
    let (report, heard) = harness.ask(&test_group, &text, "a15_swapped_in_a_tight_loop").await;
    let after = harness.counters();
    let refused = RefusalCode::ALL.iter().fold(0, |sum, code| {
        let of = |counters: &std::collections::BTreeMap<String, i64>| {
            counters.get(code.as_str()).copied().unwrap_or(0)
        };
        sum + of(&after) - of(&before)
    });
    let leaks = leaked(&harness.root().join("state/letters"));
    let facts = report.map_or_else(|| json!({ "told": heard }), |report| report["facts"].clone());
    harness.close().await;
    json!({ "rounds": facts["rounds"], "swaps": facts["swaps"], "refused": refused, "leaks": leaks, "told": facts["told"] })
}

/// Counts the copies of letters that hold the host's canary.
fn leaked(dir: &Path) -> u64 {
    let mut leaks = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                dirs.push(entry.path());
            } else if std::fs::read(entry.path()).is_ok_and(|b| b.windows(SECRET.len()).any(|w| w == SECRET))
            {
                leaks += 1;
            }
        }
    }
    leaks
}

/// Runs the floods one after the other. Measures how long each box lived, how many files it left, and the duration of
/// another group's turns with and without the flood.
pub async fn flood(settings: &str) -> Value {
    const FLOODS: [&str; 3] = ["a18_empty_files", "a17_bytes_in_drafts", "a19_letters_without_end"];
    let harness = Harness::open(&format!("{settings}\nlimits.idle_window = \"1m\"")).await;
    let neighbour = harness.spare_group(0);
    let _ = harness.ping(&neighbour).await;
    let mut calm = Vec::new();
    for _ in 0..100 {
        calm.extend(harness.ping(&neighbour).await);
    }
    let mut floods = Vec::new();
    let mut stormy = Vec::new();
    for (number, name) in FLOODS.into_iter().enumerate() {
        let test_group = harness.spare_group(number + 1);
        // The box starts before the measurement.
        let _ = harness.ping(&test_group).await;
        let running = AtomicBool::new(true);
        let watching = async {
            let mut times = Vec::new();
            while running.load(Ordering::Relaxed) || times.len() < 20 {
                match harness.ping(&neighbour).await {
                    Ok(took) => times.push(took),
                    Err(_) => break,
                }
            }
            times
        };
        let flooding = async {
            let told = one_flood(&harness, &test_group, name).await;
            running.store(false, Ordering::Relaxed);
            told
        };
        let (told, times) = tokio::join!(flooding, watching);
        stormy.extend(times);
        floods.push(told);
    }
    let value = json!({
        "floods": floods,
        "another_group_ms": { "without": of(&mut calm), "meanwhile": of(&mut stormy) },
        "host_alive": harness.lives(),
    });
    harness.close().await;
    value
}

async fn one_flood(harness: &Harness, test_group: &TestGroup, name: &str) -> Value {
    let ipc = harness.root().join("state/ipc").join(&test_group.group);
    let began = Instant::now();
    let (report, heard) = harness.ask(test_group, &format!("attack {name}"), name).await;
    let answered = began.elapsed();
    let (mut files, mut bytes) = (0, 0);
    if report.is_none() {
        // The host removes the run's files after the end of the box.
        for _ in 0..200 {
            (files, bytes) = (count(&ipc), size(&ipc));
            if files == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    } else {
        (files, bytes) = (count(&ipc), size(&ipc));
    }
    let gone = began.elapsed();
    let stopped = report.as_ref().map(|report| report["facts"]["errno"].as_i64().unwrap_or(0)).map(name_of);
    json!({
        "flood": name,
        "stopped_by": stopped.unwrap_or_else(|| "the host".to_owned()),
        "stopped_and_told_ms": u64::try_from(answered.as_millis()).unwrap_or(0),
        "cleared_ms": u64::try_from(gone.as_millis()).unwrap_or(0),
        "files_left": files,
        "bytes_left": bytes,
        "told": heard.last(),
    })
}

fn size(dir: &Path) -> u64 {
    let (mut bytes, mut dirs) = (0, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => dirs.push(entry.path()),
                Ok(about) => bytes += about.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Returns the median, the 95th percentile and the maximum.
fn of(times: &mut [u64]) -> Value {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied();
    json!({ "turns": times.len(), "p50": at(50), "p95": at(95), "max": times.last() })
}
