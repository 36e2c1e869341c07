//! What a box may not do without end.

use super::*;

/// A box that closes every turn and never says that it has read anything.
#[tokio::test]
async fn a_message_that_no_box_reads_comes_back_three_times_and_is_then_given_up() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    for turn in 1..=2 {
        h.is_given(RUN).await;
        let closed = h.takes(turn, 0, Some(TurnId(turn)), done("")).await;
        assert_eq!(
            closed,
            Taken::Closed { next: Some(TurnId(turn + 1)) },
            "it may have crossed with the end"
        );
    }
    h.is_given(RUN).await;
    assert_eq!(h.takes(3, 0, Some(TurnId(3)), done("")).await, Taken::Closed { next: None });
    assert_eq!(h.state_of(1).await, "done");
    let said = h.said("telegram:-1").await;
    assert!(said.iter().any(|text| text.contains("did not read it")), "{said:?}");
    h.wakes("telegram:-1", "two").await;
    assert_eq!(h.state_of(2).await, "in_turn", "what comes later is another matter");
}

#[tokio::test]
async fn a_message_that_was_in_no_letter_waits_as_long_as_it_must() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    for turn in 1..=6 {
        h.wakes("telegram:-1", "late").await;
        let ack = h.store.highest_written(RUN.parse().unwrap()).await.unwrap();
        assert_eq!(
            h.takes(turn, ack, Some(TurnId(turn)), done("read")).await,
            Taken::Closed { next: Some(TurnId(turn + 1)) }
        );
        h.is_given(RUN).await;
    }
}

/// Of a burst, a turn takes in what the model can read. The rest is for the next turns, in order.
#[tokio::test]
async fn a_turn_takes_in_no_more_than_its_model_can_read() {
    let mut h = house().await;
    let long = |n: u64| format!("{n} {}", "a".repeat(1_000));
    for n in 1..=3 {
        h.wakes("telegram:-1", &long(n)).await;
    }
    h.wakes("telegram:-1", &"b".repeat(10_000)).await;
    h.starts(RUN).await;
    for (turn, texts) in [(1, vec![long(1)]), (2, vec![long(2)]), (3, vec![long(3)])] {
        let given = h.is_given(RUN).await.unwrap().0;
        assert_eq!(given, texts, "t-{turn}");
        assert_eq!(h.is_given(RUN).await, None, "no second letter makes it more");
        let ack = h.store.highest_written(RUN.parse().unwrap()).await.unwrap();
        h.takes(turn, ack, Some(TurnId(turn)), done("read")).await;
    }
    assert_eq!(h.is_given(RUN).await.unwrap().0[0].len(), 10_000, "one message is always read");
}

#[tokio::test]
async fn a_turn_does_not_talk_without_end_before_its_end() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    for n in 1..=5u64 {
        let say = TakenEffect::Message { outgoing: reply("and", &format!("t-1:{n}.0")), limit: 3 };
        let taken = h.takes_from(RUN, n, 1, Some(TurnId(1)), &format!("t-1:{n}.0"), say).await;
        match n {
            1..=3 => assert_eq!(taken, Taken::Fresh),
            _ => assert!(matches!(taken, Taken::Refused(r, None) if r.code == RefusalCode::Rate)),
        }
    }
    assert_eq!(h.takes(6, 2, Some(TurnId(1)), done("the end")).await, Taken::Closed { next: None });
    assert_eq!(
        h.said("telegram:-1").await,
        ["and", "and", "and", "the end"],
        "the reply itself is not refused"
    );
}
