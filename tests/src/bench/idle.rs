//! Measures what a host with nothing to do costs: its memory, and how often it wakes up. It is connected to Telegram
//! and WhatsApp, to Telegram alone, and to neither. Each is a new host, whose agent has answered once in every chat.
//! The program is always the same: a release that takes the tests' server for WhatsApp's.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use serde_json::json;

use super::{median, status};
use crate::world::{Engine, World};

const BOB: u64 = 491_517_654_321;
/// How long the host is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// How long the host gets until the work of the last turn is over.
const REST: Duration = Duration::from_secs(5);

/// Measures the three hosts one after another, and prints one line.
pub async fn idle() {
    let all = measure(&["telegram", "whatsapp"]).await;
    let without_whatsapp = measure(&["telegram"]).await;
    let bare = measure(&[]).await;
    let line = json!({
        "show": "idle",
        "channels": ["telegram", "whatsapp"],
        "resident_mb": all.resident,
        "without_whatsapp_mb": without_whatsapp.resident,
        "bare_mb": bare.resident,
        "switches_per_second": all.switches,
        "without_whatsapp_switches_per_second": without_whatsapp.switches,
        "bare_switches_per_second": bare.switches,
        "seconds": WATCHED.as_secs(),
    });
    println!("{line}");
}

struct Idle {
    /// The median of the resident memory, in MB.
    resident: f64,
    /// Voluntary context switches of all threads in a second: a thread that waits has been woken so often.
    switches: f64,
}

/// Watches a host that is connected to these channels.
async fn measure(channels: &[&str]) -> Idle {
    let mut world = World::on(Engine::stand_in().await).await;
    world = if channels.contains(&"whatsapp") {
        world.with_whatsapp().await
    } else {
        let mut world = world.with_whatsapp_unlinked().await;
        world.set("LAZARET_CHANNELS_WHATSAPP_ENABLED", "false");
        world
    };
    if channels.contains(&"telegram") {
        world = world.with_telegram();
    }
    // The box is closed as soon as its turn is over.
    world.set("LAZARET_LIMITS_IDLE_WINDOW", "0s");
    world.up().await;
    for _ in 0..=channels.len() {
        world.model.on("are you there").says("Here.");
    }
    world.chat("are you there, in the terminal?\n").await;
    for channel in channels {
        match *channel {
            "telegram" => telegram_answers(&world).await,
            _ => whatsapp_answers(&world).await,
        }
    }
    world.patiently("the boxes are closed", async || world.boxes().await.is_empty().then_some(())).await;
    tokio::time::sleep(REST).await;
    let pid = world.host().pid().unwrap_or_default();
    let watched = watch(pid).await;
    world.finish().await;
    watched
}

async fn telegram_answers(world: &World) {
    let ann = world.telegram.person(5, "Ann");
    let direct = ann.direct();
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    ann.says(&direct, "are you there, on Telegram?");
    world.soon("an answer on Telegram", direct.comes_to_show("Here.")).await;
}

async fn whatsapp_answers(world: &World) {
    let bob = world.whatsapp().person(BOB, "Bob");
    let direct = bob.direct();
    bob.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    bob.says(&direct, "are you there, on WhatsApp?");
    world.soon("an answer on WhatsApp", direct.comes_to_show("Here.")).await;
}

/// Reads the memory once a second, and counts the switches over the whole time.
async fn watch(pid: u32) -> Idle {
    let before = switches(pid);
    let mut resident = Vec::new();
    for _ in 0..WATCHED.as_secs() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(kib) = status(&format!("/proc/{pid}"), "VmRSS") else { panic!("the host has ended") };
        resident.push(kib);
    }
    let times: f64 = switches(pid).iter().map(|(id, now)| now - before.get(id).unwrap_or(&0.0)).sum();
    let rounded = |value: f64| (value * 10.0).round() / 10.0;
    Idle {
        resident: rounded(median(resident) * 1024.0 / 1e6),
        switches: rounded(times / WATCHED.as_secs_f64()),
    }
}

/// Returns how often each thread of a process has waited. Threads come and go, and the process's own status counts its
/// first thread alone.
fn switches(pid: u32) -> HashMap<OsString, f64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |thread: std::fs::DirEntry| {
        Some((thread.file_name(), status(&thread.path().to_string_lossy(), "voluntary_ctxt_switches")?))
    };
    threads.filter_map(of).collect()
}
