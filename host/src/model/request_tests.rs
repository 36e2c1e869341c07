use super::*;
use serde_json::{Value, json};

fn refusal(body: &str) -> Option<String> {
    ModelRequest::parse(body.as_bytes()).err().map(|error| {
        assert_eq!((error.status, error.kind), (400, "invalid_request_error"));
        error.message
    })
}

/// Why a request with this field is refused.
fn with(name: &str, value: Value) -> Option<String> {
    let mut request = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    request[name] = value;
    refusal(&request.to_string())
}

fn with_content(role: &str, content: &Value) -> Option<String> {
    with("messages", json!([{ "role": role, "content": content }]))
}

fn assert_refused(refused: Option<String>, beginning: &str) {
    let refused = refused.expect(beginning);
    assert!(refused.starts_with(beginning), "{refused}\n{beginning}");
}

#[test]
fn g7_content_in_another_shape_is_refused_with_its_place() {
    let url = json!({ "type": "image_url", "image_url": { "url": "https://evil.example/?d=1" } });
    for role in ["user", "assistant"] {
        for shape in [url.clone(), json!(null), json!(7), json!(true), json!({})] {
            assert_refused(with_content(role, &shape), "`messages[0].content` is not of the Messages wire");
        }
        let nested = json!([[{ "type": "text", "text": "x" }]]);
        assert_refused(with_content(role, &nested), "`messages[0].content[0]` is not of the Messages wire");
    }
    let result = json!([{ "type": "tool_result", "tool_use_id": "t", "content": url }]);
    assert_refused(with_content("user", &result), "`messages[0].content[0].content` is not of");
    assert_refused(with("system", url), "`system` is not of");
    assert_refused(with("messages", json!({ "role": "user", "content": "x" })), "`messages` is not of");
    assert_refused(with("messages", json!(["hi"])), "`messages[0]` is not of");
}

#[test]
fn g7_a_block_of_another_type_is_refused_wherever_it_stands() {
    for kind in [
        "image_url",
        "input_image",
        "file",
        "input_file",
        "container_upload",
        "server_tool_use",
        "mcp_tool_use",
        "web_search_tool_result",
        "search_result",
        "video_url",
        "input_audio",
        "Image",
        "",
    ] {
        let block = json!([{ "type": kind, "text": "x", "file_id": "f", "image_url": { "url": "https://e.example" } }]);
        for role in ["user", "assistant"] {
            assert_refused(with_content(role, &block), "`messages[0].content[0].type` is ");
        }
        let result = json!([{ "type": "tool_result", "tool_use_id": "t", "content": block }]);
        assert_refused(with_content("user", &result), "`messages[0].content[0].content[0].type` is ");
        assert_refused(with("system", block), "`system[0].type` is ");
    }
    let mut result = json!({ "type": "tool_result", "tool_use_id": "t", "content": [] });
    result["content"] = json!([result]);
    assert_refused(with_content("user", &json!([result])), "`messages[0].content[0].content[0].type` is ");
    for role in ["system", "tool", "developer"] {
        assert_refused(with_content(role, &json!("x")), "`messages[0].role` is ");
    }
}

#[test]
fn g7_a_source_is_inline_bytes_and_nothing_else() {
    let inline = json!({ "type": "base64", "media_type": "image/png", "data": "iVBORw0=" });
    let image = |source: &Value| with_content("user", &json!([{ "type": "image", "source": source }]));
    assert_eq!(image(&inline), None);
    for (source, place) in [
        (json!({ "type": "url", "url": "https://evil.example/?d=1" }), ".type` is \"url\""),
        (json!({ "type": "file", "file_id": "f" }), ".type` is \"file\""),
        (json!([inline]), "` is not of"),
        (json!("https://evil.example"), "` is not of"),
        (json!({ "type": ["base64"], "media_type": "image/png", "data": "" }), ".type` is not of"),
        (json!({ "type": "base64", "media_type": "text/html", "data": "" }), ".media_type` is \"text/html\""),
        (json!({ "type": "base64", "media_type": "image/png", "data": "http://x" }), ".data` is not base64"),
        (json!({ "type": "base64", "media_type": "image/png", "data": { "url": "x" } }), ".data` is not of"),
        (json!({ "type": "base64", "media_type": "image/png" }), ".data` is missing"),
        (
            json!({ "type": "base64", "media_type": "image/png", "data": "", "url": "https://evil.example" }),
            "` has the field \"url\"; the gateway passes only type, media_type, data",
        ),
    ] {
        assert_refused(image(&source), &format!("`messages[0].content[0].source{place}"));
    }
    let content = json!({ "type": "content", "content": [{ "type": "image", "source": { "type": "url", "url": "x" } }] });
    let document = json!([{ "type": "document", "source": content }]);
    assert_refused(with_content("user", &document), "`messages[0].content[0].source.type` is \"content\"");
    let beside = json!([{ "type": "image", "source": inline, "image_url": "https://evil.example" }]);
    assert_refused(with_content("user", &beside), "`messages[0].content[0]` has the field \"image_url\"");
}

#[test]
fn g7_a_tool_is_the_runners_own() {
    let tool = |tool: Value| with("tools", json!([{ "name": "ls", "input_schema": {} }, tool]));
    assert_eq!(tool(json!({ "type": "custom", "name": "x", "description": "d" })), None);
    for (other, place) in [
        (json!({ "type": "web_fetch_20250910", "name": "web_fetch" }), ".type` is \"web_fetch_20250910\""),
        (json!({ "type": null, "name": "x" }), ".type` is not of"),
        (json!({ "type": ["custom"], "name": "x" }), ".type` is not of"),
        (json!([{ "type": "web_search_20250305", "name": "web_search" }]), "` is not of"),
        (json!(null), "` is not of"),
        (json!("web_search"), "` is not of"),
        (json!({}), ".name` is missing"),
        (json!({ "name": "x", "url": "https://evil.example" }), "` has the field \"url\""),
        (json!({ "name": "x", "input_schema": [{}] }), ".input_schema` is not an object"),
        (
            json!({ "name": "x", "input_schema": { "properties": { "a": { "$ref": "https://evil.example/?d=1" } } } }),
            ".input_schema` is not of the Messages wire as the gateway passes it: $ref leads out of the schema",
        ),
    ] {
        assert_refused(tool(other), &format!("`tools[1]{place}"));
    }
    assert_refused(with("tools", json!({ "type": "web_search_20250305" })), "`tools` is not of");
    assert_refused(with("tools", json!([[{ "name": "x" }]])), "`tools[0]` is not of");
}

#[test]
fn g7_options_have_known_fields_of_known_types() {
    for (name, value) in [
        ("tool_choice", json!({ "type": "tool", "name": "ls", "disable_parallel_tool_use": true })),
        ("thinking", json!({ "type": "enabled", "budget_tokens": 2000, "display": "omitted" })),
        ("output_config", json!({ "effort": "high" })),
        ("cache_control", json!({ "type": "ephemeral", "ttl": "1h" })),
        ("metadata", json!({ "user_id": "u" })),
        ("stop_sequences", json!(["END"])),
        ("top_k", json!(5)),
        ("temperature", json!(1)),
        ("system", json!([{ "type": "text", "text": "s", "cache_control": { "type": "ephemeral" } }])),
    ] {
        assert_eq!(with(name, value), None, "{name}");
    }
    for (name, value) in [
        ("mcp_servers", json!([{ "url": "https://evil.example" }])),
        ("container", json!("c")),
        ("context_management", json!({})),
        ("service_tier", json!("priority")),
        ("tool_choice", json!({ "type": "web_search" })),
        ("tool_choice", json!({ "type": "auto", "url": "https://evil.example" })),
        ("tool_choice", json!("auto")),
        ("thinking", json!({ "type": "adaptive", "url": "x" })),
        ("output_config", json!({ "format": { "type": "json_schema" } })),
        ("cache_control", json!(["ephemeral"])),
        ("metadata", json!({ "user_id": { "url": "x" } })),
        ("stop_sequences", json!([{ "url": "x" }])),
        ("stop_sequences", json!("END")),
        ("temperature", json!("0.5")),
        ("max_tokens", json!(-1)),
        ("stream", json!("yes")),
        ("model", json!({ "url": "x" })),
        ("system", json!(null)),
    ] {
        assert!(with(name, value.clone()).is_some(), "{name} {value}");
    }
    assert_refused(
        with("mcp_servers", json!([])),
        "the request has the field \"mcp_servers\"; the gateway passes only",
    );
}

#[test]
fn g7_a_key_given_twice_cannot_mean_two_things() {
    let entry = |blocks: &str| format!(r#"{{"messages":[{{"role":"user","content":[{blocks}]}}]}}"#);
    for body in [
        entry(r#"{"type":"image","source":{"type":"base64","type":"url"}}"#),
        entry(r#"{"type":"text","text":"a","\u0074ext":"b"}"#),
        r#"{"messages":[],"stream":false,"stream":true}"#.to_owned(),
        r#"{"messages":[{"role":"assistant","content":[{"type":"text","type":"tool_use"}]}]}"#.to_owned(),
    ] {
        let refused = refusal(&body).unwrap();
        assert!(refused.contains("each once"), "{refused}");
    }
}

#[test]
fn what_a_server_put_into_an_answer_is_left_out_and_the_answer_stays() {
    let body = json!({ "messages": [{ "role": "assistant", "content": [
        { "type": "text", "text": "hello", "citations": [{ "url": "https://x.example" }], "novel": {} },
        { "type": "text", "text": null },
        { "type": "thinking", "signature": "s" },
        { "type": "tool_use", "id": 7, "name": [], "input": "none", "caller": null },
    ]}]})
    .to_string();
    let request = ModelRequest::parse(body.as_bytes()).unwrap();
    let read = serde_json::to_value(&request.messages).unwrap();
    let call = json!({ "type": "tool_use", "id": "", "name": "", "input": {} });
    assert_eq!(read[0]["content"], json!([{ "type": "text", "text": "hello" }, call]));
}

#[test]
fn levels_and_lengths_are_bounded() {
    for body in [
        format!("{{\"messages\":[{}0]}}", "0,".repeat(PARTS_MAX)),
        format!("{{\"messages\":{}", "[".repeat(1_000_000)),
        format!("{{{}\"messages\":[]}}", (0..100).map(|n| format!("\"f{n}\":1,")).collect::<String>()),
    ] {
        assert!(refusal(&body).is_some());
    }
}

#[test]
fn the_parts_of_a_request_are_bounded_over_all_its_lists() {
    let block = r#"{"type":"text","text":""}"#;
    let entry = |blocks: usize| format!(r#"{{"role":"user","content":[{}]}}"#, vec![block; blocks].join(","));
    let body = |entries: usize, blocks: usize| {
        format!(r#"{{"messages":[{}]}}"#, vec![entry(blocks); entries].join(","))
    };
    assert_eq!(refusal(&body(100, 199)), None, "100 messages and 19,900 blocks");
    let many = refusal(&body(100, 200)).unwrap();
    assert!(many.contains("more than 20000 messages, blocks and tools together"), "{many}");
    assert!(refusal(&body(27, 90_000)).is_some(), "a list alone can be too long");

    let nested: Value = serde_json::from_str(&entry(10_000)).unwrap();
    let nested = json!({ "type": "tool_result", "tool_use_id": "t", "content": nested["content"] });
    assert!(with_content("user", &json!([nested, nested])).unwrap().contains("more than 20000"));
    let tools = format!(r#"{{"messages":[],"tools":[{}{{}}]}}"#, "{},".repeat(20_000));
    assert!(refusal(&tools).is_some());
}

#[test]
fn an_error_does_not_give_a_body_back() {
    let words = "x".repeat(1_000_000);
    for body in [
        format!(r#"{{"messages":[],"{words}":1}}"#),
        format!(r#"{{"messages":[],"tools":[{{"type":"{words}","name":"t"}}]}}"#),
        format!(r#"{{"messages":"{words}"}}"#),
    ] {
        assert!(refusal(&body).unwrap().len() < 1_000);
    }
}

#[test]
fn a_transcript_is_read_block_by_block() {
    let body = json!({
        "system": [{ "type": "text", "text": "be" }, { "type": "text", "text": "kind" }],
        "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "…", "signature": "s" },
                { "type": "tool_use", "id": "t1", "name": "ls", "input": { "a": [1] } } ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": "no" } ] },
        ],
    })
    .to_string();
    let request = ModelRequest::parse(body.as_bytes()).unwrap();
    assert_eq!(request.system_text(), "be\n\nkind");
    let blocks: Vec<_> = request.messages.iter().map(|entry| &entry.content.blocks).collect();
    assert_eq!(plain_text(blocks[0]), "hi");
    assert!(
        matches!(&blocks[1][..], [Block::Thinking { .. }, Block::ToolUse { input, .. }] if input.json() == r#"{"a":[1]}"#)
    );
    assert!(
        matches!(&blocks[2][..], [Block::ToolResult { is_error: true, content: Some(content), .. }] if plain_text(&content.blocks) == "no")
    );
}
