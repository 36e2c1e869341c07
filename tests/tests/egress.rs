//! A program in a box cannot reach the network, and the refusal says whom to ask.

use journeys::world::World;
use serde_json::json;

#[tokio::test]
async fn egress_is_off_and_says_how_to_ask() {
    let world = World::new().await;
    let script = "wget -q -O - http://example.org 2>&1; echo; \
                  (printf 'CONNECT example.org:443 HTTP/1.1\\r\\nHost: example.org\\r\\n\\r\\n'; sleep 1) | nc 127.0.0.1 3128; echo; \
                  nc -w 2 10.0.0.1 80 2>&1; nc -w 2 169.254.169.254 80 2>&1";
    world.model.on("go out").runs("run_command", json!({ "command": script })).says("I cannot.");
    let output = world.run(&["up", "--chat"], "go out\n").await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("I cannot."));
    let told = world.model.tool_results().join("\n");
    assert!(told.contains("403"), "{told}");
    assert!(told.contains("egress is off for this group"), "{told}");
    assert!(told.matches("unreachable").count() == 2, "{told}");
    world.finish().await;
}
