//! What a letter may not do twice, and what does not outlive its turn.

use super::*;

const TURN: Option<TurnId> = Some(TurnId(1));

fn is_refused(taken: &Taken, code: RefusalCode) -> bool {
    matches!(taken, Taken::Refused(refusal, None) if refusal.code == code)
}

async fn at_work() -> House {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h
}

fn say(text: &str, key: &str) -> TakenEffect {
    TakenEffect::Message { outgoing: reply(text, key), limit: 50 }
}

#[tokio::test]
async fn g9_the_first_content_of_an_id_counts_and_the_second_is_refused() {
    let h = at_work().await;
    let ask =
        |body: &str| TakenEffect::Request { kind: "update_personality".into(), body: body.into(), limit: 9 };
    assert_eq!(h.takes_from(RUN, 1, 2, TURN, "t-1:3.0", say("first", "t-1:3.0")).await, Taken::Fresh);
    assert_eq!(h.takes_from(RUN, 2, 2, TURN, "t-1:toolu_1", ask("{}")).await, Taken::Perform);
    let second = h.takes_from(RUN, 3, 2, TURN, "t-1:3.0", say("second", "t-1:3.0")).await;
    assert!(is_refused(&second, RefusalCode::Replay), "{second:?}");
    let second = h.takes_from(RUN, 4, 2, TURN, "t-1:toolu_1", ask("{\"a\":1}")).await;
    assert!(is_refused(&second, RefusalCode::Replay), "the first request has the answer: {second:?}");
    assert!(h.store.summary().await.unwrap().numbers.contains(&("ipc.replay".into(), 2)));
    // The next run repeats what the first one said, and nobody hears of it.
    h.store.collect(RUN.parse().unwrap(), lane(), Ending::Killed, T).await.unwrap();
    h.starts(RUN2).await;
    assert_eq!(h.takes_from(RUN2, 1, 1, TURN, "t-1:3.0", say("first", "t-1:3.0")).await, Taken::Repeat);
    assert_eq!(h.takes_from(RUN2, 2, 1, TURN, "t-1:toolu_1", ask("{}")).await, Taken::Perform);
    assert_eq!(h.said("telegram:-1").await, ["first"]);
}

#[tokio::test]
async fn g9_a_turns_end_with_the_id_of_a_message_fails_the_turn_with_a_notice() {
    let mut h = at_work().await;
    h.takes_from(RUN, 1, 2, TURN, "t-1:9.0", say("working", "t-1:9.0")).await;
    h.wakes("telegram:-1", "late").await;
    h.is_given(RUN).await;
    let taken = h.takes_from(RUN, 2, 3, TURN, "t-1:9.0", done("the answer")).await;
    let Taken::EndRefused { refusal, next } = taken else { panic!("{taken:?}") };
    assert_eq!((refusal.code, next), (RefusalCode::Replay, Some(TurnId(2))));
    assert_eq!(h.state_of(2).await, "in_turn", "what only the refused letter acknowledges is read again");
    let said = h.said("telegram:-1").await;
    assert_eq!(said[0], "working");
    assert!(said[1].contains("could not be taken (ipc.replay)") && said.len() == 2, "{said:?}");
    let turn = h.store.message_trace(MessageSeq(1)).await.unwrap().unwrap().turn.unwrap();
    assert_eq!((turn.state.as_str(), turn.why.as_deref()), ("failed", Some("ipc.replay")));
    let sql = "SELECT count(*) FROM audit WHERE who = 'agent:family' AND detail LIKE '%t-1:9.0%'";
    let audited = h.store.read(|c| Ok(c.query_row(sql, [], |r| r.get::<_, i64>(0))?)).await.unwrap();
    assert_eq!(audited, 1);
}

#[tokio::test]
async fn g10_a_refused_letter_acknowledges_nothing() {
    let h = at_work().await;
    let stale = h.takes(1, 2, Some(TurnId(7)), TakenEffect::Nothing).await;
    assert!(is_refused(&stale, RefusalCode::Stale), "{stale:?}");
    let unread = h.store.unacknowledged(RUN.parse().unwrap()).await.unwrap();
    assert_eq!(unread.iter().map(|letter| letter.n).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(h.takes(2, 1, TURN, TakenEffect::Nothing).await, Taken::Fresh, "it did not fall");
}

#[tokio::test]
async fn g4_a_run_says_ready_once() {
    let h = at_work().await;
    assert_eq!(h.takes_from(RUN, 1, 1, None, "run:1", TakenEffect::Ready { told: None }).await, Taken::Fresh);
    let again = h.takes_from(RUN, 2, 1, None, "run:2", TakenEffect::Ready { told: None }).await;
    assert!(is_refused(&again, RefusalCode::Replay), "{again:?}");
}

#[tokio::test]
async fn g8_a_question_counts_as_said_and_is_not_sent_after_its_turn() {
    let h = at_work().await;
    h.asks(RUN).await;
    assert_eq!(h.store.said_in_turn(TurnId(1)).await.unwrap(), Some(1));
    let more = TakenEffect::Message { outgoing: reply("more", "t-1:3.0"), limit: 1 };
    let more = h.takes_from(RUN, 2, 2, TURN, "t-1:3.0", more).await;
    assert!(is_refused(&more, RefusalCode::Rate), "{more:?}");
    h.takes(3, 2, TURN, done("the end")).await;
    assert_eq!(h.said("telegram:-1").await, ["the end"], "nobody is asked for a turn that is over");
    assert_eq!(h.store.said_in_turn(TurnId(1)).await.unwrap(), None);
    h.asks_again(T).await;
    let (run, id): (RunId, LetterId) = (RUN.parse().unwrap(), "t-1:toolu_2".parse().unwrap());
    let sent = Verdict::Ok { result: serde_json::json!({}) };
    let letter =
        h.store.send_file(run, TurnId(1), id, sent, reply("a file", "t-1:toolu_2"), T).await.unwrap();
    assert!(String::from_utf8(letter.bytes).unwrap().contains("ipc.stale"));
    assert!(h.said("telegram:-1").await.is_empty());
}

/// What people have seen stays, and its answer can still come.
#[tokio::test]
async fn a_question_that_was_sent_is_not_taken_back() {
    let h = at_work().await;
    h.asks(RUN).await;
    assert_eq!(h.said("telegram:-1").await.len(), 1);
    h.takes(2, 2, TURN, done("the end")).await;
    let turn = h.store.message_trace(MessageSeq(1)).await.unwrap().unwrap().turn.unwrap();
    let states: Vec<_> = turn.outbox.iter().map(|part| part.state.as_str()).collect();
    assert_eq!(states, ["sent", "ready"]);
}
