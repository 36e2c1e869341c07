//! A second runner works in a real box: `tests/foreign-agent`, in Python, which was written from the protocol's page.

#![cfg(test)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use journeys::model::Gate;
use journeys::world::{Engine, World};
use serde_json::json;

/// The default image of the boxes. It has Python.
const IMAGE: &str = "lazaret-agent";

#[tokio::test]
async fn an_agent_that_was_written_from_the_protocols_page_works_in_a_real_box() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign-agent/agent.py");
    fs::copy(&agent, folder.path().join("agent.py")).unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let allow = format!("[{{ path = {:?} }}]", folder.path());
    let settings = [
        ("LAZARET_IMAGE", IMAGE),
        ("LAZARET_MOUNTS_ALLOW", allow.as_str()),
        ("LAZARET_HOST_QUESTION_WAIT", "0s"),
    ];
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), &settings).await;
    let mount = format!("mounts = [{{ source = {:?}, target = \"/mnt/agent\" }}]", folder.path());
    world.write("groups/main/group.toml", format!("runner = \"/mnt/agent/agent.py\"\n{mount}\n"));
    world.model.allow_unstreamed();

    // A turn with a tool.
    world
        .model
        .on("weather")
        .runs("run_command", json!({ "command": "echo rain >sky; cat sky" }))
        .says("It rains.");
    ann.says(&direct, "how is the weather?");
    assert_eq!(world.hears(&direct).await, "It rains.");
    assert_eq!(world.model.tool_results(), ["exit code 0\nrain\n"]);
    world.made_in_workspace("main", "sky").await;

    // A message that follows while the model thinks.
    let gate = Gate::new();
    let on = world.model.on("a long job").waits_for(&gate);
    on.runs("run_command", json!({ "command": "true" })).says("Done, in a hurry.");
    ann.says(&direct, "a long job, please");
    gate.arrived().await;
    ann.says(&direct, "and hurry up");
    world.patiently("the box has it", async || (world.inputs("main") == 3).then_some(())).await;
    gate.open();
    assert_eq!(world.hears(&direct).await, "Done, in a hurry.");
    assert!(world.model.last_request_text().contains("and hurry up"), "{}", world.model.last_request_text());

    // A request. The answer comes when the box is closed, and the next box asks for it.
    let milk = json!({ "question": "Which milk?", "choices": ["whole", "skimmed"] });
    world.model.on("buy milk").runs("ask_person", milk).says("Whole it is.");
    ann.says(&direct, "buy milk");
    let card = world.hears(&direct).await;
    let code = card.split("/answer ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    world.patiently("the box is closed", async || world.boxes().await.is_empty().then_some(())).await;
    ann.says(&direct, &format!("/answer {code} 1"));
    assert_eq!(world.hears(&direct).await, "Whole it is.");
    let verdict = world.model.tool_results().pop().unwrap();
    assert!(verdict.contains(r#""end": "answered""#) && verdict.contains(r#""text": "whole""#), "{verdict}");

    // A turn that a person stops.
    world.model.on("forever").runs("run_command", json!({ "command": "touch begun; sleep 1000" }));
    ann.says(&direct, "wait forever");
    world.made_in_workspace("main", "begun").await;
    ann.says(&direct, "/stop");
    let mut told = [world.hears(&direct).await, world.hears(&direct).await];
    told.sort();
    assert_eq!(told, ["[lazaret] Stopped.", "[lazaret] Stopping."]);
    assert_eq!(world.runs_of("main"), 2, "all the rest in one box");

    // A crash between an interim reply and the turn's end. The next box goes on, and says nothing twice.
    let on = world.model.on("the move").runs("send_message", json!({ "text": "Half way." }));
    on.runs("run_command", json!({ "command": "kill -9 $PPID" })).says("It is done.");
    ann.says(&direct, "the move, please");
    assert_eq!(world.hears(&direct).await, "Half way.");
    assert_eq!(world.hears(&direct).await, "It is done.");
    let lost = world.model.tool_results().pop().unwrap();
    assert!(lost.contains("it may have run"), "{lost}");
    assert_eq!(world.runs_of("main"), 3);
    assert!(direct.unheard().is_empty(), "{:?}", direct.unheard());
    world.finish().await;
}
