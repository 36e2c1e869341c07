//! What people order in a chat, and what they write right after it.

use super::*;

fn stop() -> Role {
    Role::Command(Command::Stop)
}

impl House {
    /// `/stop`, where no box works on the turn.
    async fn ends_for(&self, order: MessageSeq) -> Option<TurnId> {
        self.store.end_turn(lane(), InterruptWhy::Stop, Some(order), T).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_written_after_a_stop_is_the_next_turn() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    let burst = vec![
        h.message("telegram:-1", "/stop", stop()),
        h.message("telegram:-1", "do something else", Role::Wake),
    ];
    let placed = h.take_in(burst).await;
    assert_eq!(placed[1].placement, Placement::FollowUp(TurnId(1)), "the order is not carried out yet");
    assert_eq!(h.ends_for(placed[0].seq).await, Some(TurnId(2)));
    assert_eq!((h.state_of(1).await.as_str(), h.state_of(3).await.as_str()), ("done", "in_turn"));
    assert_eq!(h.said("telegram:-1").await, ["Stopped."]);
    h.starts(RUN).await;
    assert_eq!(h.is_given(RUN).await, Some((vec!["do something else".into()], 0)));
}

#[tokio::test]
async fn a_stop_does_not_end_a_turn_that_was_begun_after_it() {
    let mut h = house().await;
    let order = h.writes("telegram:-1", "/stop", stop()).await.seq;
    h.wakes("telegram:-1", "something else").await;
    assert_eq!(h.ends_for(order).await, Some(TurnId(1)), "it is open and wants its run");
    assert_eq!(h.state_of(2).await, "in_turn");
    assert_eq!(h.said("telegram:-1").await, [""; 0]);
}

/// The box was interrupted, did not obey, and was killed.
#[tokio::test]
async fn what_is_written_after_a_stop_is_not_killed_with_the_box() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.writes("telegram:-1", "/stop", stop()).await;
    h.wakes("telegram:-1", "do something else").await;
    let collected = h.store.collect(RUN.parse().unwrap(), lane(), Ending::Stopped, T).await.unwrap();
    assert_eq!(collected, Collected::Next(TurnId(2), Duration::ZERO));
    h.starts(RUN2).await;
    assert_eq!(h.is_given(RUN2).await, Some((vec!["do something else".into()], 0)));
}

/// A follow-up waits for its file while the box works on what came before.
#[tokio::test]
async fn what_no_box_was_given_before_a_stop_ends_with_the_turn() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.wakes("telegram:-1", "and this picture").await;
    let order = h.writes("telegram:-1", "/stop", stop()).await.seq;
    h.wakes("telegram:-1", "do something else").await;
    assert!(h.store.stop(lane(), order, T).await.unwrap());
    assert_eq!((h.state_of(2).await.as_str(), h.state_of(4).await.as_str()), ("done", "in_turn"));
    let collected = h.store.collect(RUN.parse().unwrap(), lane(), Ending::Stopped, T).await.unwrap();
    assert_eq!(collected, Collected::Next(TurnId(2), Duration::ZERO));
    h.starts(RUN2).await;
    assert_eq!(h.is_given(RUN2).await, Some((vec!["do something else".into()], 0)));
    assert!(!h.store.stop(lane(), order, T).await.unwrap(), "this one was begun after it");
}

#[tokio::test]
async fn the_stop_of_an_earlier_host_does_not_mean_a_later_turn() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    let order = h.writes("telegram:-1", "/stop", stop()).await.seq;
    assert!(h.store.is_meant(lane(), order).await.unwrap());
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.takes(1, 2, Some(TurnId(1)), done("to one")).await;
    assert!(!h.store.is_meant(lane(), order).await.unwrap(), "no turn is open");
    h.wakes("telegram:-1", "two").await;
    assert!(!h.store.is_meant(lane(), order).await.unwrap(), "this one was begun after it");
}

#[tokio::test]
async fn a_new_session_gets_no_talk_of_the_room_from_before_it() {
    let mut h = house().await;
    h.writes("telegram:-1", "before", Role::Context).await;
    h.writes("telegram:-1", "/new", Role::Command(Command::New)).await;
    h.writes("telegram:-1", "after", Role::Context).await;
    h.wakes("telegram:-1", "wake").await;
    h.starts(RUN).await;
    assert_eq!(h.is_given(RUN).await, Some((vec!["after".into(), "wake".into()], 0)));
}

/// Both came in one batch: the box of the message may be on its way before anybody has looked at the order.
#[tokio::test]
async fn a_message_after_new_is_of_the_new_session() {
    let mut h = house().await;
    let before = h.store.group(&family(), T).await.unwrap().session;
    let order = h.message("telegram:-1", "/new", Role::Command(Command::New));
    let batch = vec![order.clone(), h.message("telegram:-1", "hi", Role::Wake)];
    let placed = h.take_in(batch).await;
    assert_eq!(placed[0].placement, Placement::Command(Command::New), "the box before it is still to go");
    let begun = async || h.store.group(&family(), T).await.unwrap().session;
    assert_eq!(begun().await, before + 1, "with the message, or not at all");
    assert!(h.store.open_commands().await.unwrap().is_empty(), "nothing of it can be lost");
    // Handed over again, and found by a host that does not know whether it was carried out.
    h.take_in(vec![order]).await;
    let (seq, chat) = (placed[0].seq, chat("telegram:-1"));
    let row = CommandRow { seq, group: family(), chat, command: Command::New };
    h.store.new_session(row, T).await.unwrap();
    assert_eq!(begun().await, before + 1, "one order, one session");
    let told = h.said("telegram:-1").await;
    assert!(told.len() == 1 && told[0].starts_with("A new session begins"), "{told:?}");
}
