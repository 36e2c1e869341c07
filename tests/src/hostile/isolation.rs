//! Attacks of parts B and C that take more than one system call: the filesystem, resources, networks, the gateway, and
//! boxes that do not end.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::expectations::{ENDED, Expectation, Seen};
use super::files::{every_fact_is_refused, nothing_of_the_host_was_read, the_log_is_printable};
use super::table::Case;
use crate::model::KEY;
use Expectation::{Check, Errno, Fact, Quiet};

pub fn cases() -> Vec<Case> {
    let mut all = filesystem();
    all.extend(host_views());
    all.extend(resources());
    all.extend(networks());
    all.extend(gateway());
    all.extend(ends());
    all
}

fn filesystem() -> Vec<Case> {
    let (own, shared) = (Case::own, Case::shared);
    vec![
        own(
            "b1_personality_and_memory_are_links",
            "CLAUDE.md, memory and transcripts become links to the host's files",
            vec![
                Fact("made", |n| n.as_u64().is_some_and(|n| n >= 5)),
                Check("never read", nothing_of_the_host_was_read),
                Quiet,
            ],
        )
        .with("limits.idle_window = 0"),
        shared(
            "b2_workspace_is_replaced",
            "the box's places are renamed and removed",
            vec![Check("impossible", no_fact_is_true)],
        ),
        shared(
            "b3_no_mount_below_what_the_box_writes",
            "what is mounted below a place that the box may write",
            vec![Fact("below", |below| below == "[]"), Fact("mounts", |n| n.as_u64().is_some_and(|n| n > 5))],
        ),
        own(
            "b5_a_file_beyond_the_limit",
            "one file that grows without end",
            vec![Fact("signal", |n| *n == 25), Check("512 MiB", big_file_is_bounded)],
        )
        .with("limits.idle_window = 0"),
        own(
            "b5_workspace_without_end",
            "the workspace is filled",
            filled("the limit is left", |seen| left(seen, 64)),
        )
        .with("limits.idle_window = 0\nlimits.workspace_mib = 64"),
        own(
            "b5_session_without_end",
            "the transcripts' place is filled",
            filled("told", |seen| expect_notice(seen, "transcripts")),
        )
        .with("limits.idle_window = 0\nlimits.session_mib = 16"),
        own(
            "b5_a_file_without_a_name",
            "a file grows that is in no directory any more",
            vec![Expectation::Ended(ENDED), Check("", |seen| expect_notice(seen, "filled its workspace"))],
        )
        .with("limits.idle_window = 0\nlimits.workspace_mib = 64"),
        own(
            "b5_room_without_writing",
            "256 MiB of the disk are taken in one call",
            vec![Errno("errno", &[1, 38, 95]), Quiet],
        )
        .with("limits.idle_window = 0\nlimits.workspace_mib = 64"),
        shared(
            "b6_read_only_places",
            "files are made in every place that is not the box's",
            vec![Check("EROFS|EACCES", every_fact_is_refused)],
        ),
        own(
            "b8_workspace_with_a_tree_of_traps",
            "loops, links to /, sockets, newlines and 400 directories in each other",
            vec![Fact("depth", |n| n.as_u64().is_some_and(|n| n >= 100)), Quiet],
        ),
    ]
}

/// The box's view of the host: sockets, devices, kernel files, keys, other processes.
fn host_views() -> Vec<Case> {
    let shared = Case::shared;
    vec![
        shared(
            "c11_no_engine_socket",
            "every socket that the box can see",
            vec![
                Fact("sockets", |all| all.as_array().is_some_and(|all| all.iter().all(own_socket))),
                Fact("seen", |n| n.as_u64().is_some_and(|n| n > 100)),
            ],
        ),
        shared(
            "c11_no_device",
            "every device that the box can see",
            vec![Fact("odd", is_empty), Fact("opened", is_empty)],
        ),
        shared(
            "c11_kernel_settings_cannot_be_written",
            "core_pattern, release_agent, sysrq, cgroups and all of /proc/sys",
            vec![
                Fact("opened", is_empty),
                Fact("writable", is_empty),
                Fact("tried", |n| n.as_u64().is_some_and(|n| n > 100)),
                Errno("oom_score", &[1, 13]),
            ],
        ),
        shared(
            "c16_host_paths_tell_nothing",
            "the sources of the box's mounts, as mountinfo tells them",
            vec![Check("no other group", no_other_group_is_named)],
        ),
        shared(
            "c16_masked_kernel_files",
            "/proc/kcore, keys, timers, addresses, firmware",
            vec![Fact("told", is_empty), Fact("firmware", |n| *n == 0)],
        ),
        shared(
            "c17_no_key_in_reach",
            "every file, environment and command line is searched for the host's keys",
            vec![
                Fact("hits", is_empty),
                Fact("env", |found| *found == false),
                Fact("files", |n| n.as_u64().is_some_and(|n| n > 20)),
                Check("0 hits", no_key_outside),
            ],
        ),
        shared(
            "c19_only_its_own_socket",
            "the folder of the gateway's socket and the one above it",
            vec![Fact("names", |names| *names == serde_json::json!(["gateway.sock"]))],
        ),
        shared(
            "c20_no_other_process",
            "every process that the box can see",
            vec![Fact("commands", |all| all.as_array().is_some_and(|all| !all.is_empty() && all.len() <= 4))],
        ),
        shared(
            "c20_no_abstract_socket_of_the_host",
            "every socket of the box's network, by name",
            vec![
                Fact("named", |all| all.as_array().is_some_and(|all| all.iter().all(own_socket))),
                Fact("read", |read| *read == true),
            ],
        ),
    ]
}

fn resources() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "c1_fork_bomb",
            "processes until there are no more",
            vec![Errno("errno", &[11]), Fact("processes", |n| n.as_u64().is_some_and(|n| n < 64))],
        )
        .with("limits.idle_window = 0\nlimits.pids = 64"),
        own(
            "c1_thread_bomb",
            "threads until there are no more",
            vec![Fact("said", |n| n.as_str().and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n < 64))],
        )
        .with("limits.idle_window = 0\nlimits.pids = 64"),
        own(
            "c2_memory_bomb",
            "memory until the kernel ends the agent",
            vec![Check("out of memory", out_of_memory_is_told)],
        )
        .with("limits.idle_window = 0\nlimits.memory_mib = 64"),
        own(
            "c2_memory_bomb_in_a_child",
            "memory until the kernel ends a child: the agent goes on",
            vec![Fact("signal", |n| *n == 9), Quiet],
        )
        .with("limits.idle_window = 0\nlimits.memory_mib = 128"),
        own(
            "c2_tmpfs_counts",
            "/tmp is filled",
            vec![Errno("errno", &[28]), Fact("mib", |n| n.as_u64().is_some_and(|n| n <= 256))],
        ),
        own(
            "c2_shared_memory",
            "/dev/shm is filled",
            vec![Errno("errno", &[28]), Fact("mib", |n| n.as_u64().is_some_and(|n| n <= 16))],
        ),
        own(
            "c3_processor_spin",
            "four processes spin for two seconds",
            vec![Check("one processor", one_processor)],
        )
        .with("limits.idle_window = \"1m\""),
        own(
            "c3_a_turn_without_end",
            "a turn of a minute, where four seconds are allowed, that does not hear",
            vec![Expectation::Ended("longer than its time limit")],
        )
        .with("limits.idle_window = 0\nlimits.turn = \"4s\""),
        own("c4_output_flood", "32 MiB on standard output", vec![Check("log capped", engine_log_is_small)])
            .with("limits.idle_window = \"1m\""),
        own(
            "c4_output_with_escapes",
            "the last words of a box are escapes and a forged log line",
            vec![Check("escaped", the_log_is_printable), Check("", no_forged_line)],
        ),
        own(
            "c5_names_in_tmp",
            "400,000 files in /tmp",
            vec![Errno("errno", &[28, 12]), Fact("names", |n| n.as_u64().is_some_and(|n| n < 400_000))],
        ),
        own(
            "c5_tmp_can_be_used",
            "a file in /tmp, whatever mode the image's own has: what is closed too far is worked around",
            vec![Errno("errno", &[0])],
        ),
        own(
            "c12_descriptors",
            "open files until there are no more",
            vec![Errno("errno", &[24]), Fact("open", |n| n.as_u64().is_some_and(|n| n <= 1_024))],
        ),
        own(
            "c25_core_dump",
            "a program aborts",
            vec![
                Fact("signal", |n| *n == 6),
                Fact("core", |core| *core == false),
                Fact("files", |n| *n == 0),
            ],
        ),
        own("c25_abort", "a program aborts, and the agent goes on", vec![Fact("signal", |n| *n == 6), Quiet]),
    ]
}

fn networks() -> Vec<Case> {
    let shared = Case::shared;
    let unreachable = || {
        vec![
            Fact("reached", is_empty),
            Fact("errors", |all| {
                all.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|e| *e != 0))
            }),
        ]
    };
    vec![
        shared("c6_tcp_to_the_internet", "connections to four public addresses", unreachable()),
        shared(
            "c6_a_name_server_as_a_tunnel",
            "questions to five name servers",
            vec![Fact("answers", |n| *n == 0), Fact("resolved", is_empty)],
        ),
        shared(
            "c6_only_loopback",
            "the box's interfaces, routes and raw sockets",
            vec![
                Fact("names", |names| *names == serde_json::json!(["lo"])),
                Fact("routes", |n| n.as_u64().is_some_and(|n| n <= 1)),
                Errno("raw", &[1, 13]),
            ],
        ),
        shared("c7_metadata_service", "the metadata addresses of clouds", unreachable()),
        shared("c7_private_ranges", "private, shared and link-local addresses", unreachable()),
        shared("c8_services_of_the_host", "the host's own servers, one of which does listen", unreachable())
            .words("{port}"),
        shared("c9_other_boxes", "addresses that other boxes could have", unreachable()),
    ]
}

fn gateway() -> Vec<Case> {
    let (own, shared) = (Case::own, Case::shared);
    let refused = || {
        vec![
            Fact("statuses", |all| {
                let refused =
                    |status: &Value| status.as_u64().is_some_and(|s| s == 0 || (400..600).contains(&s));
                all.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(refused))
            }),
            Fact("healthy", |status| *status == 200),
        ]
    };
    let invalid = || vec![Fact("status", |status| *status == 400), Fact("key_seen", |seen| *seen == false)];
    let healthy = || vec![Fact("healthy", |status| *status == 200)];
    vec![
        shared("c7_metadata_through_the_gateway", "metadata by CONNECT and in absolute form", refused()),
        shared(
            "c18_other_paths",
            "paths that the gateway does not have, and disguises of the one it has",
            refused(),
        ),
        shared("c18_connect_to_another_host", "CONNECT", refused()),
        shared("c18_absolute_form", "whole addresses as a request's target", refused()),
        shared("c18_smuggled_request", "two lengths, chunks in disguise, folded headers", refused()),
        shared("c18_bytes_that_are_no_http", "NULs, HTTP/2, TLS", refused()),
        shared("c18_a_header_of_a_mebibyte", "one header of 1 MiB; ten thousand headers", refused()),
        shared(
            "c18_a_body_of_forty_mebibytes",
            "a body beyond the limit",
            vec![Fact("status", |status| *status == 413)],
        ),
        own(
            "c18_a_body_without_end",
            "chunk after chunk",
            vec![
                Fact("stopped", |stopped| *stopped == true),
                Check("<= 128 MiB more", |seen| seen.grew_less(128 << 10)),
            ],
        ),
        shared(
            "c18_keys_of_the_box_are_not_forwarded",
            "headers, model and limits of the box's own",
            vec![Fact("status", |status| *status == 200), Check("the host's only", what_the_provider_saw)],
        ),
        shared(
            "c18_a_model_that_says_the_key",
            "a provider that echoes the key",
            vec![Fact("key_seen", |seen| *seen == false)],
        ),
        shared("c18_a_tool_at_the_provider", "a tool that runs where there is a network", invalid()),
        shared("c18_an_image_by_url", "an image that the provider would fetch", invalid()),
        shared("c18_an_unknown_field", "a server that the provider would call", invalid()),
        own("c18_connections_without_end", "400 connections that say nothing", healthy()),
        own("c18_slow_headers", "400 connections that never end their headers", healthy()),
        own("c18_slow_bodies", "400 requests that never end their bodies", healthy()),
        own(
            "c18_a_thousand_requests_in_one_breath",
            "a thousand requests without reading an answer",
            vec![Fact("answers", |n| *n == 1_000)],
        ),
        own("c18_answers_that_are_not_read", "50,000 requests whose answers nobody reads", healthy()),
        own(
            "c21_calls_in_parallel",
            "twelve model calls at the same time",
            vec![Fact("statuses", |all| {
                let right = |status: &Value| [200, 429].map(Value::from).contains(status);
                all.as_array().is_some_and(|all| all.len() == 12 && all.iter().all(right))
            })],
        ),
    ]
}

fn ends() -> Vec<Case> {
    let own = Case::own;
    vec![
        own(
            "c22_close_and_sigterm_are_ignored",
            "a box that hears neither _close nor SIGTERM",
            vec![Check("gone in 20 s", |seen| wait_until_gone(seen, 25))],
        ),
        own(
            "c22_children_that_outlive",
            "children in process groups of their own",
            vec![Fact("started", |n| *n == 5), Check("gone with the box", no_child_survives)],
        )
        .words("{canary}"),
        own(
            "c22_it_exits_in_mid_turn",
            "exit code 0 before the turn is done",
            vec![Check("the turn goes on", resumed)],
        ),
        own("c22_it_exits_as_if_killed", "exit code 137", vec![Check("the turn goes on", resumed)]),
        own("c22_it_aborts_in_mid_turn", "SIGABRT", vec![Check("the turn goes on", resumed)]),
        own(
            "c22_failed_and_goes_on",
            "a last letter with a notice in it, and words behind it",
            vec![Check("no notice", no_imitated_notice)],
        ),
        own("c23_it_stops_its_own_init", "SIGSTOP and SIGKILL to the first process", vec![Quiet]),
    ]
}

fn filled(word: &'static str, more: super::expectations::Check) -> Vec<Expectation> {
    // A quota answers with ENOSPC or EDQUOT. Without a quota, a watchdog ends the box and removes what exceeds the
    // limit.
    let stopped = |seen: &Seen| match seen.facts.is_null() {
        true => Expectation::Ended(ENDED).met(seen),
        false => Errno("errno", &[28, 122]).met(seen),
    };
    vec![Check("stopped", stopped), Check(word, more)]
}

fn expect_notice(seen: &Seen, words: &str) -> Result<(), String> {
    let told = seen.heard.iter().any(|text| text.contains(words)) || !seen.facts.is_null();
    if told { Ok(()) } else { Err(format!("the chat was told {:?}", seen.heard)) }
}

/// Checks that the workspace holds no more than the limit after the newest files were removed.
pub(super) fn left(seen: &Seen, mib: u64) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let entries = std::fs::read_dir(seen.workspace()).into_iter().flatten().flatten();
        let bytes: u64 = entries.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum();
        if bytes <= mib << 20 {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(20) {
            return Err(format!("{} MiB are left, of {mib}", bytes >> 20));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(super) fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

fn own_socket(path: &Value) -> bool {
    // The box owns the sockets that earlier cases bound.
    let own = ["/run/lazaret/", "/workspace/", "/ipc/from-agent/", "/tmp/", "@"];
    path.as_str()
        .is_some_and(|path| path == "/gateway.sock" || own.iter().any(|place| path.starts_with(place)))
}

fn no_fact_is_true(seen: &Seen) -> Result<(), String> {
    let facts = seen.facts.as_object().ok_or("the box said nothing")?;
    let done: Vec<&String> = facts.iter().filter(|(_, done)| **done == true).map(|(name, _)| name).collect();
    if done.is_empty() && !facts.is_empty() { Ok(()) } else { Err(format!("the box could replace {done:?}")) }
}

fn big_file_is_bounded(seen: &Seen) -> Result<(), String> {
    let bytes = std::fs::metadata(seen.workspace().join("big")).map_err(|e| e.to_string())?.len();
    let _ = std::fs::remove_file(seen.workspace().join("big"));
    if bytes <= 512 << 20 { Ok(()) } else { Err(format!("the file has {bytes} bytes")) }
}

fn no_other_group_is_named(seen: &Seen) -> Result<(), String> {
    let roots = seen.list("roots");
    let install = std::fs::read_to_string(seen.harness.root().join("state/install")).unwrap_or_default();
    let foreign = roots.iter().find(|root| {
        ["neighbour", "/c1", "/home/", "group.toml"].iter().any(|word| root.contains(word))
            || (!install.trim().is_empty() && root.contains(install.trim()))
    });
    match foreign {
        Some(root) => Err(format!("a mount's source is {root}")),
        None if roots.is_empty() => Err("no mount's source was seen".to_owned()),
        None => Ok(()),
    }
}

/// Checks from outside that neither the engine's description nor its log of the box holds a key.
fn no_key_outside(seen: &Seen) -> Result<(), String> {
    for name in seen.harness.boxes_of(&seen.test_group.group) {
        for verb in ["inspect", "logs"] {
            let output = seen.harness.docker().args([verb, &name]).output().map_err(|e| e.to_string())?;
            let text = [output.stdout, output.stderr].concat();
            if text.windows(KEY.len()).any(|window| window == KEY.as_bytes()) {
                return Err(format!("the key stands in docker {verb}"));
            }
        }
    }
    if seen.harness.world.log().contains(KEY) {
        Err("the key stands in the host's log".to_owned())
    } else {
        Ok(())
    }
}

fn out_of_memory_is_told(seen: &Seen) -> Result<(), String> {
    let logged = seen.log.contains("out of memory");
    if !logged {
        return Err(format!("the operator was not told that it ran out of memory:\n{}", seen.log));
    }
    resumed(seen)
}

/// Checks that the next box continues a turn whose box died, or that the turn ended with a notice.
pub(super) fn resumed(seen: &Seen) -> Result<(), String> {
    let told = seen.heard.iter().any(|text| text.starts_with("[lazaret]"));
    if seen.resumed || told { Ok(()) } else { Err(format!("the turn was not taken up: {}", seen.facts)) }
}

fn one_processor(seen: &Seen) -> Result<(), String> {
    let (cpu, wall) =
        (seen.facts["cpu_ms"].as_f64().unwrap_or(0.0), seen.facts["wall_ms"].as_f64().unwrap_or(1.0));
    if cpu > 0.0 && cpu <= wall * 1.3 {
        Ok(())
    } else {
        Err(format!("{cpu} ms of processor time in {wall} ms"))
    }
}

/// Checks how much of the box's output the engine keeps on the host's disk.
fn engine_log_is_small(seen: &Seen) -> Result<(), String> {
    let kib = seen.facts["kib"].as_u64().unwrap_or(0);
    let names = seen.harness.boxes_of(&seen.test_group.group);
    let Some(name) = names.first() else { return Err("the box is gone".to_owned()) };
    let inspected = seen
        .harness
        .docker()
        .args(["inspect", "--format", "{{.Id}} {{.HostConfig.LogConfig}}", name])
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&inspected.stdout).into_owned();
    let id = text.split(' ').next().unwrap_or_default();
    let output = seen.harness.docker().args(["info", "--format", "{{.DockerRootDir}}"]).output();
    let root = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let dir = std::path::Path::new(&root).join("containers").join(id);
    let (mut bytes, mut dirs) = (0, vec![dir.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() { dirs.push(entry.path()) } else { bytes += about.len() }
        }
    }
    if !dir.is_dir() {
        return Err(format!("{} cannot be looked at", dir.display()));
    }
    if kib >= 32 * 1024 && bytes <= 4 << 20 {
        return Ok(());
    }
    Err(format!("of {kib} KiB the engine keeps {bytes} bytes ({})", text.trim()))
}

fn no_forged_line(seen: &Seen) -> Result<(), String> {
    let forged = seen.harness.world.log().lines().any(|line| {
        line.contains("code=\"ipc.forged\"")
            && !line.contains("said")
            && line.trim_start().starts_with("WARN")
    });
    if forged { Err("a box has written a line of the host's log".to_owned()) } else { resumed(seen) }
}

/// Checks that the provider got the host's key, the group's model and the host's limit, and none of the box's headers.
fn what_the_provider_saw(seen: &Seen) -> Result<(), String> {
    let requests = seen.harness.world.model.requests();
    let text = |r: &crate::model::Recorded| r.body["messages"].to_string();
    let Some(request) = requests.iter().rev().find(|r| text(r).contains("attack headers")) else {
        return Err("no request reached the provider".to_owned());
    };
    let foreign = request.headers.iter().find(|(name, value)| {
        value.contains("evil") || (name.as_str() == "authorization") || name.starts_with("x-forwarded")
    });
    if let Some((name, value)) = foreign {
        return Err(format!("the provider was sent {name}: {value}"));
    }
    let right = request.body["model"] != "evil-model"
        && request.body["max_tokens"].as_u64().is_some_and(|n| n <= 8_192);
    if right { Ok(()) } else { Err(format!("the provider was asked for {}", request.body)) }
}

fn wait_until_gone(seen: &Seen, seconds: u64) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let boxes = seen.harness.boxes_of(&seen.test_group.group);
        if boxes.is_empty() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(seconds) {
            return Err(format!("after {seconds} s there are {boxes:?}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Checks that no process outside this case's boxes has the install's path on its command line. The children of the box
/// have it.
fn no_child_survives(seen: &Seen) -> Result<(), String> {
    wait_until_gone(seen, 25)?;
    let mark = seen.harness.root().join("canary-of-the-host").to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            return Err(format!("process {} lives", entry.file_name().to_string_lossy()));
        }
    }
    Ok(())
}

fn no_imitated_notice(seen: &Seen) -> Result<(), String> {
    match seen.heard.iter().find(|text| text.contains("[lazaret] all is well")) {
        Some(text) => Err(format!("the chat heard {text:?}")),
        None => Ok(()),
    }
}
