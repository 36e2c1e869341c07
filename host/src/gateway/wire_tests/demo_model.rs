//! The scripted model, end to end.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_conversation_with_the_demo_model_runs_real_tools_to_a_final_text() {
    let mut world = World::start(quick(vec![provider("demo", ProviderKind::Demo, "")]));
    let tools = json!([
        { "name": "write_file", "input_schema": {} },
        { "name": "run_command", "input_schema": {} },
        { "name": "list_files", "input_schema": {} },
    ]);
    let wish = "<message id=\"m-1\" from=\"Ann\">make a note that says hello, then list your files</message>";
    let mut transcript = vec![json!({ "role": "user", "content": [{ "type": "text", "text": wish }] })];
    let mut ids = std::collections::HashSet::new();
    for tool in ["write_file", "run_command"] {
        let request = json!({ "stream": true, "messages": transcript, "tools": tools });
        let events = world.ask(&request).await.events();
        let call = &events[1]["content_block"];
        assert_eq!((call["type"].as_str(), call["name"].as_str()), (Some("tool_use"), Some(tool)));
        let input: Value =
            serde_json::from_str(events[2]["delta"]["partial_json"].as_str().unwrap()).unwrap();
        assert!(ids.insert(call["id"].clone()), "every call has its own id");
        transcript.push(json!({ "role": "assistant", "content": [
            { "type": "tool_use", "id": call["id"], "name": tool, "input": input }] }));
        transcript.push(json!({ "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": call["id"], "content": format!("output of {tool}") }] }));
        let usage = world.booked().await;
        assert_eq!((usage.status, usage.estimated), (200, true));
        assert_eq!((usage.model.as_str(), usage.cost_micros), ("demo", Some(0)));
    }
    let answer = world.ask(&json!({ "messages": transcript, "tools": tools })).await.json();
    assert_eq!(answer["stop_reason"], "end_turn");
    let text = answer["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("[demo model, no key set] ") && text.contains("output of run_command"));
    let (records, _) = world.end().await;
    assert_eq!(records.len(), 6);
}
