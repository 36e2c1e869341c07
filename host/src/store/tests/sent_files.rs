//! Files that agents send, as rows.

use super::*;
use crate::domain::outbound::{DeliveryStrategy, Part, SpooledFile};

fn file() -> SpooledFile {
    SpooledFile { sha256: "ab".repeat(32), name: "list.pdf".into(), bytes: 7 }
}

/// A file whose caption is too long for its platform: words follow it.
fn list() -> OutgoingText {
    let mut outgoing = reply("What we need.", "t-1:toolu_1");
    outgoing.parts[0].file = Some(Box::new(file()));
    outgoing.parts.push("And why.".to_owned().into());
    outgoing
}

fn text(text: &str, key: &str) -> TakenEffect {
    TakenEffect::Message { outgoing: reply(text, key), limit: 50 }
}

impl House {
    async fn sends(&self, run: &str) {
        let (run, verdict) = (run.parse().unwrap(), Verdict::Ok { result: 7.into() });
        let request = "t-1:toolu_1".parse().unwrap();
        self.store.send_file(run, TurnId(1), request, verdict, list(), T).await.unwrap();
    }

    async fn next(&self, terms: Terms) -> Part {
        match self.store.claim(chat("telegram:-1"), terms, T).await.unwrap() {
            NextPart::Part(part) => *part,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_file_goes_out_with_its_verdict_once_and_in_its_place() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.takes_from(RUN, 1, 1, Some(TurnId(1)), "t-1:2.0", text("first", "t-1:2.0")).await;
    let ask = || TakenEffect::Request { kind: "send_file".into(), body: "{}".into(), limit: 9 };
    let asked = h.takes_from(RUN, 2, 1, Some(TurnId(1)), "t-1:toolu_1", ask()).await;
    assert_eq!(asked, Taken::Perform);
    assert_eq!(h.store.files_sent(TurnId(1)).await.unwrap().files, 0);
    h.sends(RUN).await;
    // A host that lost the answer of the store says it again, and another run asks again.
    h.sends(RUN).await;
    let again = h.takes_from(RUN, 3, 1, Some(TurnId(1)), "t-1:toolu_1", ask()).await;
    assert!(!matches!(again, Taken::Perform), "{again:?}");
    let sent = h.store.files_sent(TurnId(1)).await.unwrap();
    assert_eq!((sent.files, sent.bytes), (1, 7));
    h.takes_from(RUN, 4, 1, Some(TurnId(1)), "t-1:3.0", text("last", "t-1:3.0")).await;

    let edit = Terms { delivery: Delivery::Edit, ..TERMS };
    for (text, file, way) in [
        ("first", None, DeliveryStrategy::Edit),
        ("What we need.", Some(file()), DeliveryStrategy::Resend),
        ("And why.", None, DeliveryStrategy::Edit),
        ("last", None, DeliveryStrategy::Edit),
    ] {
        let part = h.next(edit).await;
        assert_eq!((part.text.as_str(), part.file.as_deref(), part.strategy), (text, file.as_ref(), way));
        let waits =
            h.store.spool_in_use().await.unwrap().contains(&list().parts[0].file.as_ref().unwrap().sha256);
        assert_eq!(waits, !["And why.", "last"].contains(&text), "as long as its row waits");
        h.store.settle(part, SendOutcome::Arrived("1".into()), TERMS.retry, T).await.unwrap();
    }
    assert_eq!(h.store.claim(chat("telegram:-1"), edit, T).await.unwrap(), NextPart::Empty);
}
