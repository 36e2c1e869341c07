//! Which notices the chats of any group hear, and that these hold no shell command and no path: those are for the
//! operator.

use std::collections::BTreeSet;
use std::time::Duration;

use ipc_schema::requests::AskPermission;

use super::*;
use crate::domain::Ending;
use crate::domain::group_settings::{MayStop, Reached};

/// Notices to owners, and to the chats of `main`.
const FOR_OPERATOR: [&str; 22] = [
    "admitted",
    "begin_shortened",
    "channel_again",
    "channel_note",
    "channel_trouble",
    "chat_asks",
    "chat_refused",
    "disk_again",
    "disk_full",
    "disk_low",
    "disk_read_only",
    "group_cannot_start",
    "group_gone",
    "group_keeps_image",
    "image_kept",
    "model_gone",
    "names_low",
    "not_admitted",
    "person_moved",
    "task_without_chat",
    "unreachable",
    "which_group",
];

/// What is no notice of the host: parts of texts, and what a channel makes of an agent's words and files.
const NO_NOTICE: [&str; 14] = [
    "dollars",
    "draft_without_internal",
    "file_at",
    "file_name",
    "fire_state",
    "label",
    "look",
    "looks_like_notice",
    "model_code",
    "not_stored",
    "quoted_name",
    "render",
    "unambiguous_name",
    "without_internal",
];

/// A reason as the host has it for the operator.
const REASON_WITH_COMMANDS: &str =
    "the image x is gone; `lazaret image set family x` or docker pull x, see /etc/docker/daemon.json";

/// Every notice that a chat of any group may hear.
fn for_members() -> Vec<(&'static str, String)> {
    let (member, why) = (Reader::Member, REASON_WITH_COMMANDS);
    let facts = StatusFacts {
        group: "family".into(),
        lane: "idle",
        waiting: 1,
        working: (1, 2),
        boxes: (1, 2),
        model: "m at p".into(),
        image: "python:3.12".into(),
        up: Duration::ZERO,
    };
    let task =
        serde_json::json!({ "task": "task-3", "name": "news", "schedule": "every hour", "state": "paused" });
    let asked = AskPermission::of_arguments("write_file", "{}");
    let lost = Undelivered { whole: true, too_old: false, doubtful: true, why: "Bad Request" };
    let crash = Ending::Crashed { code: Some(1), oom: false, why: why.into() };
    let mut all = vec![
        ("cannot_start", cannot_start(member, "image.gone", why)),
        ("never_started", never_started(member, "box.posture", why)),
        ("settings_unusable", settings_unusable(member, why)),
        ("gave_up", gave_up(&crash, 3)),
        ("over_limit", over_limit("disk.workspace", "filled its workspace")),
        ("model_failed", model_failed("model.auth", "no key")),
        ("taken_back", taken_back(1, 1)),
        ("unread", unread(1)),
        ("end_refused", end_refused("ipc.replay")),
        ("nothing_said", nothing_said()),
        ("transcript_lost", transcript_lost(true) + &transcript_lost(false)),
        ("time_is_up", time_is_up()),
        ("waiting_for_slot", waiting_for_slot(1)),
        ("too_long", too_long(1, 1)),
        ("dropped", dropped("7F")),
        ("resending", resending("7F")),
        ("held", held("Hello", "7F").0),
        ("nothing_held", nothing_held("7F") + &nothing_held("")),
        ("placeholder", placeholder()),
        ("undelivered", undelivered(&lost)),
        ("for_another_bot", for_another_bot()),
        ("help", help("Laz", false)),
        ("new_session", new_session(1)),
        ("no_such_question", no_such_question()),
        ("models", models("m", true, &["m".into()])),
        ("model_chosen", model_chosen("m")),
        ("model_of_file", model_of_file("m")),
        ("may_not_choose_model", may_not_choose_model()),
        ("no_such_model", no_such_model("x", &["m".into()])),
        ("usage", usage(&UsageFacts::default())),
        ("nobody_asks", nobody_asks("7F")),
        ("may_not_admit", may_not_admit()),
        ("nothing_to_stop", nothing_to_stop()),
        ("may_not_stop", may_not_stop(MayStop::Served) + &may_not_stop(MayStop::Owners)),
        ("too_many_turns", too_many_turns(Reached::Sender(20)) + &too_many_turns(Reached::Chat(60))),
        ("question", question("Which?", &[], "7F").0),
        ("status", status(&facts)),
        ("stopped", stopped()),
        ("stopping", stopping()),
        ("already_decided", already_decided("yes")),
        ("may_not_press", may_not_press()),
        ("owners_decide", owners_decide()),
        ("permission", permission(&asked, "Laz", "7F").0),
        ("permission_is_over", permission_is_over()),
        ("outcome", outcome("Yes", "Ann")),
        ("reply_as_file", reply_as_file("Hello", 12)),
        ("unknown_button", unknown_button()),
        ("about_task", about_task("news", "It failed.")),
        ("gate_failed", gate_failed("the gate script printed nothing")),
        ("late_reminder", late_reminder("stretch", "09:00")),
        ("no_such_task", no_such_task("9")),
        ("task_changed", task_changed(&task)),
        ("task_fires_now", task_fires_now(&task)),
        ("task_history", task_history(&task)),
        ("task_list", task_list(&[]) + &task_list(&[task])),
        ("task_not_changed", task_not_changed("it fires at this moment")),
        ("task_of_operator", task_of_operator("3")),
        ("unknown_task_order", unknown_task_order("stop 3")),
    ];
    all.extend(super::turns::MODEL.map(|(code, _)| ("model_failed", model_failed(code, ""))));
    all.extend(COMMAND_LIST.map(|(_, what)| ("COMMAND_LIST", what.to_owned())));
    for code in
        ["image.link", "mount.gone", "config.value", "engine.away", "box.runtime", "disk.image", "state.dir"]
    {
        all.push(("cannot_start", cannot_start(member, code, why)));
    }
    all
}

#[test]
fn a_members_chat_hears_no_shell_command_and_no_path() {
    for (name, told) in for_members() {
        for word in
            ["lazaret ", "docker", "sudo", "systemctl", "apt-get", "`", ".toml", "groups/", "/etc/", " --"]
        {
            assert!(!told.contains(word), "{name} holds {word:?}: {told}");
        }
    }
    let told = cannot_start(Reader::Member, "image.gone", REASON_WITH_COMMANDS);
    assert_eq!(
        told,
        "The agent cannot start: its image cannot be used (image.gone). The operator was told. Your message is kept, \
         and I keep trying for a day."
    );
    assert!(
        cannot_start(Reader::Operator, "image.gone", REASON_WITH_COMMANDS)
            .contains("lazaret image set family x")
    );
}

/// A new notice must say who hears it.
#[test]
fn every_notice_is_for_everybody_or_for_the_operator() {
    let source = include_str!("../text.rs");
    let lists = source.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let names = lists.flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let modules = [
        "channels",
        "chat_commands",
        "choices",
        "delivery",
        "disk",
        "files",
        "impersonation",
        "internal",
        "permissions",
        "tasks",
        "turns",
    ];
    let exported: BTreeSet<&str> = names
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()) && !modules.contains(name))
        .collect();
    let mut sorted: BTreeSet<&str> = FOR_OPERATOR.into_iter().chain(NO_NOTICE).collect();
    sorted.extend(for_members().into_iter().map(|(name, _)| name).filter(|name| *name != "COMMAND_LIST"));
    assert_eq!(exported, sorted);
}
