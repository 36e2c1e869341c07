//! Attacks on what a box leaves for the next one: its session, the letter `begin`, and files that groups share.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use super::cases::{Action, Case};
use super::expectation_kinds::{Expectation, Seen};
use super::harness::{Harness, TestGroup};
use Expectation::{Check, Fact, Gone};

pub fn cases() -> Vec<Case> {
    let own = Case::own;
    vec![
        Case {
            action: Action::Scenario(|harness, test_group| Box::pin(planted(harness, test_group))),
            ..own(
                "g3_a_transcript_is_no_file",
                "FIFOs in the places of its transcript and of those to come; then the real runner, then /new",
                Vec::new(),
            )
        },
        own(
            "g5_a_personality_of_control_characters",
            "30,000 characters that take six bytes each in a letter",
            vec![Gone, Fact("verdict", |verdict| verdict["refused"] == "ipc.too_big")],
        ),
        own(
            "g5_drafts_with_long_ids",
            "2,500 drafts with long ids, and the box dies",
            vec![Check("the turn goes on", |seen| {
                if seen.resumed {
                    Ok(())
                } else {
                    Err(format!("no next box: {} {:?}", seen.facts, seen.heard))
                }
            })],
        ),
        own(
            "g12_files_that_groups_share",
            "the files that are the same ones in boxes of other groups",
            vec![
                Check("a passwd of its own", passwd_is_not_shared),
                Check("folders of its own", folders_are_its_own),
            ],
        )
        // gVisor gives files numbers of its own.
        .under("runsc", vec![Check("a passwd of its own", passwd_is_not_shared)]),
    ]
}

async fn planted(harness: &Harness, test_group: &TestGroup) -> Result<(), String> {
    const CASE: &str = "g3_a_transcript_is_no_file";
    let TestGroup { person, chat, .. } = test_group;
    let (report, heard) = harness.ask(test_group, &format!("attack {CASE}"), CASE).await;
    let facts = report.ok_or_else(|| format!("no report: {heard:?}"))?["facts"].clone();
    let session = facts["session"].as_str().unwrap_or_default().to_owned();
    if facts["made"] != 11 || session.len() != "conversation-1-".len() + 12 {
        return Err(format!("the box saw {facts}"));
    }
    // The next box runs the real runner.
    person.says(chat, "attack honestly");
    let (told, answer) = (chat.hears().await, chat.hears().await);
    if !told.starts_with("[lazaret] The record of this conversation cannot be used") || answer != "Here." {
        return Err(format!("the chat heard {told:?} and {answer:?}"));
    }
    person.says(chat, "/new");
    let told = chat.hears().await;
    if !told.starts_with("[lazaret] A new session begins") {
        return Err(format!("the chat heard {told:?}"));
    }
    let (report, heard) = harness.ask(test_group, "attack g3_look", "g3_look").await;
    let facts = report.ok_or_else(|| format!("no report: {heard:?}"))?["facts"].clone();
    let planted = |name: &Value| !name.as_str().is_some_and(|name| name.starts_with("attacked-"));
    if facts["names"].as_array().is_none_or(|names| names.iter().any(planted)) {
        return Err(format!("the new session began with {facts}"));
    }
    Ok(())
}

fn inode(path: &Path) -> Result<u64, String> {
    std::fs::metadata(path).map(|found| found.ino()).map_err(|e| format!("{}: {e}", path.display()))
}

/// Each box user has a file of its own.
fn passwd_is_not_shared(seen: &Seen) -> Result<(), String> {
    let dir = seen.harness.root().join("state/passwd");
    let paths =
        std::fs::read_dir(dir).map_err(|e| e.to_string())?.filter_map(|entry| Some(entry.ok()?.path()));
    let inodes: Vec<u64> = paths.map(|path| inode(&path)).collect::<Result<_, _>>()?;
    let different: BTreeSet<&u64> = inodes.iter().collect();
    if different.len() == inodes.len() && inodes.len() > 1 {
        Ok(())
    } else {
        Err(format!("the files are {inodes:?}"))
    }
}

/// The runner and `/global` are left as what groups share; `container/README.md` names them.
fn folders_are_its_own(seen: &Seen) -> Result<(), String> {
    for (place, own) in [("/workspace", "workspaces"), ("/inbox", "inbox")] {
        let found = seen.facts["places"][place]["inode"].as_u64();
        let expected = inode(&seen.harness.root().join("state").join(own).join(&seen.test_group.group))?;
        if found != Some(expected) {
            return Err(format!("{place} is {found:?}, and not the group's own"));
        }
    }
    Ok(())
}
