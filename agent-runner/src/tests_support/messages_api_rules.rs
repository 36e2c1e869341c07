//! Checks every request that a test makes against the Messages API's rules of shape.

use std::collections::HashSet;

use serde_json::Value;

pub fn check(request: &Value) {
    assert!(request["max_tokens"].as_u64().unwrap() > 0);
    assert_eq!(request["stream"], true);
    let messages = request["messages"].as_array().unwrap();
    let mut calls: Vec<&str> = vec![];
    let mut breakpoints = 0;
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap();
        assert_eq!(role, if index % 2 == 0 { "user" } else { "assistant" }, "roles take turns: {request:#}");
        let blocks = message["content"].as_array().unwrap();
        assert!(!blocks.is_empty());
        let results: Vec<_> = blocks
            .iter()
            .filter(|b| b["type"] == "tool_result")
            .map(|b| b["tool_use_id"].as_str().unwrap())
            .collect();
        assert_eq!(results, calls, "each call is answered once, in order: {request:#}");
        assert!(
            blocks.iter().take(results.len()).all(|b| b["type"] == "tool_result"),
            "results come first: {request:#}"
        );
        for block in blocks.iter().filter(|b| b["type"] == "text") {
            assert!(!block["text"].as_str().unwrap().trim().is_empty(), "no empty text: {request:#}");
        }
        breakpoints += blocks.iter().filter(|b| b.get("cache_control").is_some()).count();
        calls =
            blocks.iter().filter(|b| b["type"] == "tool_use").map(|b| b["id"].as_str().unwrap()).collect();
        assert_eq!(calls.iter().collect::<HashSet<_>>().len(), calls.len());
    }
    assert!(calls.is_empty(), "the last calls are answered");
    assert_eq!(messages.last().unwrap()["role"], "user", "it is the model's turn: {request:#}");
    breakpoints +=
        request["system"].as_array().unwrap().iter().filter(|b| b.get("cache_control").is_some()).count();
    assert!((1..=4).contains(&breakpoints) || request.get("tools").is_none());
}
