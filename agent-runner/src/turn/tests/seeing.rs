//! Turns with pictures and documents.

use super::*;
use crate::sight::tests::{jpeg, pdf};
use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::Attachment;
use serde_json::{Value, json};

fn attachment(name: &str, mime: &str) -> Attachment {
    Attachment {
        path: Some(format!("/inbox/{name}")),
        name: name.into(),
        mime: mime.into(),
        bytes: 9,
        problem: None,
        transcript: None,
        no_transcript: None,
    }
}

/// Ann sends files, which lie in the inbox.
fn sends(host: &Host, turn: TurnId, message: u64, files: &[(&str, &str, &[u8])]) {
    let inbox = host.paths().resolve("/inbox");
    std::fs::create_dir_all(&inbox).unwrap();
    let mut input = host::input(&[(message, "what is this?")]);
    for (name, mime, bytes) in files {
        std::fs::write(inbox.join(name), bytes).unwrap();
        input.messages[0].attachments.push(attachment(name, mime));
    }
    host.send(Some(turn), ToAgent::Input(input));
}

/// The blocks of the newest user message: of texts, the text; of others, the type.
fn last_blocks(request: &Value) -> Vec<String> {
    let blocks = request["messages"].as_array().unwrap().last().unwrap()["content"].as_array().unwrap();
    let shown = |block: &Value| block["text"].as_str().or(block["type"].as_str()).unwrap().to_owned();
    blocks.iter().map(shown).collect()
}

#[tokio::test]
async fn pictures_and_documents_follow_the_frames_in_order() {
    let host = Host::new();
    let script = Script::new([Script::says("a cat and a bill"), Script::says("as I said")]);
    host.begin();
    live(&host, &script, async {
        let files: [(&str, &str, &[u8]); 3] = [
            ("1.jpg", "image/jpeg", &jpeg()),
            ("2.jpg", "image/jpeg", b"just a text"),
            ("3.pdf", "application/pdf", &pdf(1)),
        ];
        sends(&host, TURN, 1, &files);
        assert_eq!(host.done(TURN).await.1.text, "a cat and a bill");
        std::fs::remove_file(host.paths().resolve("/inbox/1.jpg")).unwrap();
        host.says(NEXT, &[(2, "sure?")]);
        host.done(NEXT).await;
        host.close();
    })
    .await;
    let requests = script.requests();
    let blocks = last_blocks(&requests[0]);
    assert!(blocks[0].contains("path=\"/inbox/1.jpg\""), "{blocks:?}");
    assert_eq!(blocks[1..3], ["[/inbox/1.jpg]", "image"]);
    assert!(
        blocks[3].starts_with("[The picture /inbox/2.jpg could not be read: it is no JPEG"),
        "{blocks:?}"
    );
    assert_eq!(blocks[4..], ["[/inbox/3.pdf]", "document"]);
    let begins = |request: &Value| {
        let mut first = request["messages"][0].clone();
        first["content"].as_array_mut().unwrap().iter_mut().for_each(|block| {
            block.as_object_mut().unwrap().remove("cache_control");
        });
        first
    };
    assert_eq!(begins(&requests[0]), begins(&requests[1]), "the provider's cache holds");
    let lines = std::fs::read_to_string(host.paths().session().join("s.jsonl")).unwrap();
    assert!(lines.len() < 5_000, "the transcript holds no picture");
}

#[tokio::test]
async fn a_picture_of_the_workspace_is_looked_at_again() {
    let host = Host::new();
    let script = Script::new([
        Script::calls("a", "read_file", json!({ "path": "plot.jpg" })),
        Script::calls("b", "read_file", json!({ "path": "broken.png" })),
        Script::says("a rising line"),
    ]);
    std::fs::create_dir_all(host.paths().workspace()).unwrap();
    std::fs::write(host.paths().workspace().join("plot.jpg"), jpeg()).unwrap();
    std::fs::write(host.paths().workspace().join("broken.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "what does the plot show?")]);
        assert_eq!(host.done(TURN).await.1.text, "a rising line");
        host.close();
    })
    .await;
    let requests = script.requests();
    let result =
        |request: &Value| request["messages"].as_array().unwrap().last().unwrap()["content"][0].clone();
    let shown = &result(&requests[1])["content"];
    assert!(shown[0]["text"].as_str().unwrap().starts_with("/workspace/plot.jpg ("), "{shown}");
    assert_eq!(
        (&shown[1]["type"], &shown[1]["source"]["media_type"]),
        (&json!("image"), &json!("image/jpeg"))
    );
    let broken = &result(&requests[2])["content"][1]["text"];
    assert!(broken.as_str().unwrap().contains("/workspace/broken.png could not be read"), "{broken}");
}

#[tokio::test]
async fn a_provider_that_refuses_a_picture_gets_the_question_without_it() {
    let host = Host::new();
    let refused = || Play::Fails(script::refusal("model.invalid_request", "could not process image", false));
    let script =
        Script::new([refused(), refused(), Script::says("I cannot see it"), Script::says("now I do")]);
    host.begin();
    live(&host, &script, async {
        sends(&host, TURN, 1, &[("1.jpg", "image/jpeg", &jpeg())]);
        assert_eq!(host.done(TURN).await.1.text, "I cannot see it");
        sends(&host, NEXT, 2, &[("2.jpg", "image/jpeg", &jpeg())]);
        host.done(NEXT).await;
        host.close();
    })
    .await;
    let told = host.said().into_iter().find_map(|letter| match letter.body {
        FromAgent::Message(message) => Some(message.text),
        _ => None,
    });
    assert!(told.unwrap().contains("without its pictures and documents"));
    let requests = script.requests();
    assert!(last_blocks(&requests[1]).contains(&"image".to_owned()), "the request is repeated once as it is");
    let blocks = last_blocks(&requests[2]);
    assert!(blocks[1].contains("is not shown any more: the provider refused"), "{blocks:?}");
    assert_eq!(last_blocks(&requests[3]).last().unwrap(), "image", "a new picture is shown");
}
