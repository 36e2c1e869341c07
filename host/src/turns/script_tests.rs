//! Scripts of the life of a turn: what people and boxes do, and how the turn continues.

use super::test_store::{ASKED_FOR, Asked, Rows, State, crash, run_id};
use super::*;

const NOW: Duration = Duration::ZERO;

fn turn(n: u64) -> TurnId {
    TurnId(n)
}

/// A box works on turn 1 and has read its first message.
fn at_work() -> Rows {
    let mut lane = Rows::new();
    assert_eq!(lane.writes("a"), Placement::NewTurn(turn(1)));
    lane.starts();
    assert_eq!(lane.feeds(), 1);
    lane.reads();
    lane
}

/// Turn 1 has asked a person, and its box has closed.
fn suspended() -> Rows {
    let mut lane = at_work();
    lane.asks();
    let until = lane.now.plus(ASKED_FOR);
    assert_eq!(lane.ends(&Ending::Finished), Collected::Suspended(until));
    lane
}

fn end_of(lane: &Rows, n: usize) -> (&'static str, &str) {
    let end = lane.turns[n - 1].end.as_ref().unwrap();
    (end.state, &end.why)
}

fn was_told(lane: &Rows, n: u64, key: &str) -> bool {
    lane.said.contains(&(Some(turn(n)), format!("notice:{key}")))
}

#[test]
fn a_burst_is_one_turn_and_another_chat_is_the_next() {
    let mut lane = at_work();
    assert_eq!(lane.writes("a"), Placement::FollowUp(turn(1)));
    assert_eq!(lane.writes("b"), Placement::Waiting);
    assert_eq!(lane.feeds(), 1);
    lane.reads();
    assert_eq!(lane.done(), Collected::Next(turn(2), NOW));
    assert_eq!(lane.open().unwrap().chat, test_store::chat("b"));
}

#[test]
fn a_message_that_crosses_with_the_turns_end_is_the_next_turn() {
    let mut lane = at_work();
    lane.writes("a");
    lane.feeds();
    lane.writes("a");
    assert_eq!(lane.done(), Collected::Next(turn(2), NOW), "one was given and not read, one was not given");
    assert_eq!(lane.feeds(), 2, "the same box gets both anew");
    lane.reads();
    assert_eq!(lane.done(), Collected::Idle);
}

#[test]
fn what_was_put_back_is_older_than_what_waits_in_another_chat() {
    let mut lane = at_work();
    let (late, _) = lane.writes_as("a", Role::Wake, None);
    lane.writes("b");
    assert_eq!(lane.done(), Collected::Next(turn(2), NOW));
    assert_eq!(lane.message(late).turn, Some(turn(2)));
}

#[test]
fn a_box_that_reads_nothing_is_given_up_after_three_turns() {
    let mut lane = Rows::new();
    lane.writes("a");
    lane.starts();
    for n in 1..=2 {
        lane.feeds();
        assert_eq!(lane.done(), Collected::Next(turn(n + 1), NOW));
    }
    lane.feeds();
    assert_eq!(lane.done(), Collected::Idle);
    assert!(was_told(&lane, 3, "unread"));
}

/// The box works on the first letter of each turn, and the others cross with the turn's end.
#[test]
fn a_burst_is_read_however_many_turns_that_takes() {
    let mut lane = Rows::new();
    for _ in 0..20 {
        lane.writes("a");
    }
    lane.starts();
    for n in 1..=10 {
        assert_eq!(lane.feeds_at_most(2), 2);
        lane.reads();
        while lane.feeds_at_most(2) > 0 {}
        let next = if n == 10 { Collected::Idle } else { Collected::Next(turn(n + 1), NOW) };
        assert_eq!(lane.done(), next);
        assert!(!was_told(&lane, n, "unread"));
    }
    assert!(lane.messages.iter().all(|m| m.state == State::Done && m.returned == 0));
}

/// What a turn does not take in is for the next one, also if the turn fails.
#[test]
fn messages_that_no_box_was_given_do_not_end_with_a_turn_that_crashes() {
    let mut lane = Rows::new();
    for _ in 0..3 {
        lane.writes("a");
    }
    for _ in 0..3 {
        lane.starts();
        lane.feeds_at_most(1);
        lane.ends(&crash());
    }
    assert_eq!(end_of(&lane, 1), ("failed", "attempts"));
    let open = lane.open().unwrap();
    assert_eq!(open.turn, turn(2));
    assert_eq!(lane.messages.iter().map(|m| m.turn.unwrap().0).collect::<Vec<_>>(), [1, 2, 2]);
}

/// A box gives the end of its turn the id of an earlier letter.
#[test]
fn a_refused_end_fails_the_turn_and_says_so() {
    let mut lane = at_work();
    let (late, _) = lane.writes_as("a", Role::Wake, None);
    lane.feeds();
    let run = run_id(0);
    let changes = lane.happen(&Event::EndRefused { run: &run, ack: 2 });
    assert_eq!(Collected::of(&changes), Collected::Next(turn(2), NOW));
    assert_eq!(end_of(&lane, 1), ("failed", "ipc.replay"));
    assert!(was_told(&lane, 1, "end"));
    assert_eq!(lane.message(late).turn, Some(turn(2)), "the refused letter acknowledges nothing");
}

#[test]
fn three_crashes_end_a_turn_and_the_message_after_them_is_a_turn_of_its_own() {
    let mut lane = Rows::new();
    lane.writes("a");
    for seconds in [1, 5] {
        lane.starts();
        lane.feeds();
        assert_eq!(lane.ends(&crash()), Collected::Next(turn(1), Duration::from_secs(seconds)));
    }
    lane.starts();
    assert_eq!(lane.writes("b"), Placement::Waiting);
    assert_eq!(lane.ends(&crash()), Collected::Next(turn(2), NOW));
    assert_eq!(end_of(&lane, 1), ("failed", "attempts"));
    assert!(was_told(&lane, 1, "end"));
}

#[test]
fn a_host_that_dies_costs_no_attempt() {
    let mut lane = Rows::new();
    lane.writes("a");
    for _ in 0..5 {
        lane.starts();
        lane.feeds();
        lane.reads();
        assert_eq!(lane.ends(&Ending::Killed), Collected::Next(turn(1), NOW));
    }
    lane.starts();
    assert_eq!(lane.feeds(), 1, "a new box gets everything of the turn");
    assert_eq!(lane.open().unwrap().attempt, 1);
}

#[test]
fn a_box_that_cannot_start_is_told_once_and_tried_again() {
    let mut lane = Rows::new();
    lane.writes("a");
    let never = Ending::NeverStarted { code: "image.missing".into(), why: "no image".into() };
    for seconds in [5, 10, 20] {
        lane.starts();
        assert_eq!(lane.ends(&never), Collected::Next(turn(1), Duration::from_secs(seconds)));
    }
    assert!(was_told(&lane, 1, "start"));
    assert_eq!(lane.said.len(), 1);
}

#[test]
fn a_stop_ends_what_was_written_before_it() {
    let mut lane = Rows::new();
    lane.writes("a");
    let order = lane.orders("a", Command::Stop);
    let (after, placed) = lane.writes_as("a", Role::Wake, None);
    assert_eq!(placed, Placement::FollowUp(turn(1)), "nobody has carried out the order yet");
    assert_eq!(lane.stops(order), Collected::Next(turn(2), NOW));
    assert_eq!(end_of(&lane, 1), ("stopped", "stop"));
    assert_eq!(lane.message(after).turn, Some(turn(2)));
    assert_eq!(lane.stops(order), Collected::Next(turn(2), NOW), "turn 2 is not meant, and goes on");
    assert_eq!(lane.open().unwrap().turn, turn(2));
}

#[test]
fn a_box_that_does_not_obey_a_stop_takes_nothing_along_that_came_after_it() {
    let mut lane = at_work();
    let (picture, _) = lane.writes_as("a", Role::Wake, None);
    let order = lane.orders("a", Command::Stop);
    let (after, _) = lane.writes_as("a", Role::Wake, None);
    lane.stops(order);
    assert_eq!(lane.message(picture).state, State::Done, "it waited for its file, and was meant too");
    assert_eq!(lane.ends(&Ending::Stopped), Collected::Next(turn(2), NOW));
    assert_eq!(lane.message(after).turn, Some(turn(2)));
}

#[test]
fn a_turn_whose_time_is_up_tells_its_chat() {
    let mut lane = at_work();
    assert_eq!(lane.ends(&Ending::TimedOut), Collected::Idle);
    assert_eq!(end_of(&lane, 1), ("stopped", "time"));
    assert!(was_told(&lane, 1, "end"));
}

#[test]
fn an_answer_in_time_resumes_the_turn() {
    let mut lane = suspended();
    assert_eq!(lane.answers(0), None);
    assert!(lane.wants_run && lane.open().unwrap().turn == turn(1));
    let answer = lane.questions[0].answer.clone();
    assert!(matches!(&answer, Some(Answer::Answered { text, .. }) if text == "yes"), "{answer:?}");
    lane.starts();
    lane.feeds();
    lane.reads();
    assert_eq!(lane.done(), Collected::Idle);
}

#[test]
fn a_question_expires_and_its_turn_goes_on() {
    let mut lane = suspended();
    lane.waits(ASKED_FOR);
    assert!(lane.wants_run);
    assert_eq!(lane.questions[0].answer, Some(Answer::Expired));
}

#[test]
fn who_writes_to_a_suspended_turn_is_the_next_turn_and_a_late_answer_is_one_too() {
    let mut lane = suspended();
    assert_eq!(lane.writes("b"), Placement::NewTurn(turn(2)));
    assert_eq!(end_of(&lane, 1), ("done", "pending"));
    assert_eq!(lane.answers(0), Some(Placement::Waiting), "turn 2 is at work");
    assert_eq!(lane.questions[0].state, Asked::Over);
    lane.starts();
    lane.feeds();
    lane.reads();
    assert_eq!(lane.done(), Collected::Next(turn(3), NOW));
}

#[test]
fn a_late_answer_comes_in_time_or_not_at_all() {
    let mut lane = suspended();
    lane.writes("b");
    lane.waits(ASKED_FOR);
    assert_eq!(lane.answers(0), None);
    assert_eq!(lane.questions[0].state, Asked::Pending);
}

#[test]
fn who_writes_while_the_box_waits_is_heard_before_the_answer() {
    let mut lane = at_work();
    lane.asks();
    assert_eq!(lane.writes("a"), Placement::FollowUp(turn(1)));
    assert_eq!(lane.questions[0].state, Asked::Open, "nobody has read it");
    lane.feeds();
    assert_eq!(lane.questions[0].answer, Some(Answer::Pending));
}

#[test]
fn who_writes_while_the_box_closes_for_its_question_is_heard_by_the_next() {
    let mut lane = at_work();
    lane.asks();
    lane.writes("a");
    assert_eq!(lane.ends(&Ending::Finished), Collected::Next(turn(1), NOW));
    assert_eq!(lane.questions[0].answer, Some(Answer::Pending));
}

#[test]
fn who_writes_in_another_chat_while_the_box_closes_does_not_wait_for_the_answer() {
    let mut lane = at_work();
    lane.asks();
    assert_eq!(lane.writes("b"), Placement::Waiting);
    assert_eq!(lane.ends(&Ending::Finished), Collected::Next(turn(2), NOW));
    assert_eq!((end_of(&lane, 1), lane.questions[0].state), (("done", "pending"), Asked::Pending));
}

#[test]
fn an_answer_that_crosses_with_a_crash_is_kept_for_the_next_attempt() {
    let mut lane = at_work();
    lane.asks();
    assert_eq!(lane.answers(0), None);
    assert_eq!(lane.ends(&crash()), Collected::Next(turn(1), Duration::from_secs(1)));
    assert!(lane.questions[0].answer.is_some());
}

#[test]
fn a_stop_of_a_suspended_turn_ends_its_question() {
    let mut lane = suspended();
    let order = lane.orders("a", Command::Stop);
    let event = Event::Interrupt { why: InterruptWhy::Stop, order: Some(order) };
    assert_eq!(Collected::of(&lane.happen(&event)), Collected::Idle);
    assert_eq!(lane.questions[0].state, Asked::Over);
}

#[test]
fn an_edit_speaks_for_the_original_only_while_that_is_unanswered() {
    let mut lane = Rows::new();
    let (original, _) = lane.writes_as("a", Role::Wake, None);
    let (edit, placed) = lane.writes_as("a", Role::Wake, Some(original));
    assert_eq!(placed, Placement::FollowUp(turn(1)));
    assert_eq!(lane.message(original).state, State::Done, "nobody saw the first version");
    lane.starts();
    assert_eq!(lane.feeds(), 1);
    lane.reads();
    lane.done();
    assert_eq!(lane.writes_as("a", Role::Wake, Some(edit)).1, Placement::Context, "no stale reply");
}

#[test]
fn an_edit_of_what_a_suspended_turn_has_not_read_is_heard_once() {
    let mut lane = at_work();
    lane.asks();
    let (original, _) = lane.writes_as("a", Role::Wake, None);
    lane.questions[0].until = lane.now;
    lane.runs[0].ended = true;
    let (edit, placed) = lane.writes_as("a", Role::Wake, Some(original));
    assert_eq!(placed, Placement::NewTurn(turn(2)));
    assert_eq!((lane.message(original).state, lane.message(edit).state), (State::Done, State::InTurn));
}

#[test]
fn new_begins_a_session_with_the_message_that_orders_it() {
    let mut lane = at_work();
    let order = lane.orders("a", Command::New);
    assert_eq!((lane.session, lane.message(order).state), (2, State::Done));
    assert_eq!(lane.message(order).outcome.as_deref(), Some("session 2"));
    assert!(lane.said.contains(&(None, format!("notice:new:{order}"))));
}

#[test]
fn a_turn_that_says_nothing_in_a_direct_chat_is_explained() {
    let mut lane = at_work();
    lane.done();
    assert!(was_told(&lane, 1, "silent"));
}

#[test]
fn a_chat_that_moved_takes_its_messages_along() {
    let mut lane = at_work();
    let (late, _) = lane.writes_as("a", Role::Wake, None);
    let end = TurnEnd { state: "done", why: "finished".into() };
    let run = "019ab000-0000-7000-8000-000000000000".parse().unwrap();
    let event = Event::Done { run: &run, ack: 2, end: &end, texts: &[], if_silent: None };
    let mut view = lane.view(&event);
    view.details.moved = true;
    let changes = decide(&view, &event);
    assert!(changes.contains(&Change::GiveBack { messages: vec![late] }));
    assert_eq!(Collected::of(&changes), Collected::Idle, "the other group's lane opens it");
}

#[test]
fn a_stop_that_crosses_with_the_end_of_the_box_stops_the_turn() {
    for ending in [crash(), Ending::Silent { seconds: 60 }, Ending::Killed, Ending::Finished] {
        let mut lane = at_work();
        lane.orders("a", Command::Stop);
        let (later, _) = lane.writes_as("a", Role::Wake, None);
        lane.feeds();
        lane.reads();
        assert_eq!(lane.ends(&ending), Collected::Next(turn(2), Duration::ZERO));
        assert_eq!(lane.turns[0].end, Some(TurnEnd { state: "stopped", why: "stop".into() }));
        assert_eq!(lane.message(later).turn, Some(turn(2)), "it was written after the `/stop`");
    }
}

#[test]
fn a_stop_does_not_mean_a_turn_that_opened_after_it() {
    let mut lane = at_work();
    let (waited, _) = lane.writes_as("b", Role::Wake, None);
    let order = lane.orders("a", Command::Stop);
    lane.stops(order);
    assert_eq!(lane.ends(&Ending::Stopped), Collected::Next(turn(2), Duration::ZERO));
    assert_eq!(lane.message(waited).turn, Some(turn(2)));
    lane.waits(Duration::from_secs(1));
    lane.starts();
    lane.feeds();
    assert_eq!(lane.ends(&crash()), Collected::Next(turn(2), Duration::from_secs(1)), "it is tried again");
}

#[test]
fn an_edit_that_takes_the_last_message_from_the_agent_ends_the_turn() {
    let mut lane = Rows::new();
    let (first, placed) = lane.writes_as("a", Role::Wake, None);
    assert_eq!(placed, Placement::NewTurn(turn(1)));
    lane.writes("b");
    let (_, placed) = lane.writes_as("a", Role::Context, Some(first));
    assert_eq!(placed, Placement::Context);
    assert_eq!(lane.turns[0].end, Some(TurnEnd { state: "done", why: "withdrawn".into() }));
    assert_eq!(lane.open().map(|open| open.chat.clone()), Some(test_store::chat("b")), "the next in line");
    let mut lane = at_work();
    let (second, _) = lane.writes_as("a", Role::Wake, None);
    lane.writes_as("a", Role::Context, Some(second));
    assert!(lane.open().is_some(), "the box has the first message");
}

#[test]
fn the_words_after_new_wait_for_the_end_of_the_old_sessions_turn() {
    let mut lane = at_work();
    lane.orders("a", Command::New);
    assert_eq!(lane.writes_as("a", Role::First, None).1, Placement::Waiting);
    assert_eq!(lane.done(), Collected::Next(turn(2), NOW));
    let mut idle = Rows::new();
    assert_eq!(idle.writes_as("a", Role::First, None).1, Placement::NewTurn(turn(1)));
    let mut lane = suspended();
    assert_eq!(lane.writes_as("a", Role::First, None).1, Placement::NewTurn(turn(2)));
}

/// The end of the work of a task.
fn outcome_of(lane: &Rows, fire: FireId) -> Option<FireOutcome> {
    lane.fires.iter().find(|row| row.fire == fire).unwrap().outcome.clone()
}

fn answer(text: &str) -> [OutgoingText; 1] {
    let (voice, key, parts) = (Voice::Reply, "t-1:2.0".to_owned(), vec![text.to_owned().into()]);
    [OutgoingText { chat: test_store::chat("a"), voice, key, parts, answers: None, choices: None }]
}

#[test]
fn a_fire_opens_a_turn_and_its_end_is_the_outcome() {
    let mut lane = Rows::new();
    let fire = lane.fires("a", false);
    assert_eq!(lane.open().unwrap().fire, Some(fire));
    lane.starts();
    assert_eq!(lane.feeds(), 1);
    lane.reads();
    assert_eq!(lane.done_saying(&answer("all is well")), Collected::Idle);
    assert_eq!(outcome_of(&lane, fire), Some(FireOutcome::Ran));
    assert_eq!(lane.said, [(Some(turn(1)), "t-1:2.0".to_owned())]);
}

#[test]
fn an_agent_that_has_nothing_to_tell_says_nothing() {
    let mut lane = Rows::new();
    lane.fires("a", false);
    lane.starts();
    lane.feeds();
    lane.reads();
    lane.done();
    assert_eq!(lane.said, [], "nobody waits for a word");
}

#[test]
fn the_answer_of_a_silent_task_is_kept_unless_a_person_joined() {
    let mut lane = Rows::new();
    let fire = lane.fires("a", true);
    lane.starts();
    lane.feeds();
    lane.reads();
    lane.done_saying(&answer("3 new"));
    assert_eq!((lane.said.len(), lane.fires[0].kept.as_deref()), (0, Some("3 new")));
    assert_eq!(outcome_of(&lane, fire), Some(FireOutcome::Ran));

    lane.fires("a", true);
    assert_eq!(lane.writes("a"), Placement::FollowUp(turn(2)));
    lane.feeds();
    lane.reads();
    lane.done_saying(&answer("3 new"));
    assert_eq!(lane.said.len(), 1, "the person gets an answer");
}

#[test]
fn a_person_goes_before_a_fire_that_waits() {
    let mut lane = at_work();
    let fire = lane.fires("a", false);
    assert_eq!(lane.writes("b"), Placement::Waiting);
    assert_eq!(lane.done(), Collected::Next(turn(2), NOW));
    assert_eq!(lane.open().unwrap().chat, test_store::chat("b"));
    lane.feeds();
    lane.reads();
    assert_eq!(lane.done(), Collected::Next(turn(3), NOW));
    assert_eq!(lane.open().unwrap().fire, Some(fire));
}

#[test]
fn a_fire_does_not_wait_for_a_persons_answer() {
    let mut lane = suspended();
    let fire = lane.fires("a", false);
    assert_eq!(lane.questions[0].state, Asked::Pending, "the question can still be answered");
    assert_eq!(end_of(&lane, 1), ("done", "pending"));
    assert_eq!(lane.open().unwrap().fire, Some(fire));
}

#[test]
fn a_box_that_dies_gets_the_fire_again_and_after_three_the_chat_hears_it_once() {
    let mut lane = Rows::new();
    let fail = |lane: &mut Rows| {
        for _ in 0..3 {
            lane.starts();
            assert_eq!(lane.feeds(), 1, "each box gets the fire");
            lane.ends(&crash());
        }
    };
    let first = lane.fires("a", false);
    fail(&mut lane);
    assert_eq!(outcome_of(&lane, first), Some(FireOutcome::Failed { why: "attempts".into() }));
    assert!(was_told(&lane, 1, "end"));
    lane.fires("a", false);
    fail(&mut lane);
    assert!(!was_told(&lane, 2, "end"), "the same failure is not told again");
}

#[test]
fn a_gate_that_fails_each_time_is_in_the_history_each_time_and_in_the_chat_once() {
    let mut lane = Rows::new();
    lane.starts();
    for (n, why) in [(1, "gate.exit"), (2, "gate.exit"), (3, "gate.time")] {
        let fire = lane.fires("a", false);
        lane.feeds();
        lane.reads();
        lane.done_as(
            "failed",
            why,
            &[OutgoingText::notice(&test_store::chat("a"), "end", format!("{why} {n}"))],
        );
        assert_eq!(outcome_of(&lane, fire), Some(FireOutcome::Failed { why: why.into() }));
        assert_eq!(lane.fires[n - 1].kept, Some(format!("{why} {n}")));
        assert_eq!(was_told(&lane, n as u64, "end"), n != 2, "{n}");
    }
}

#[test]
fn a_stop_ends_the_work_of_a_task_and_nothing_that_fires_later() {
    let mut lane = Rows::new();
    let order = lane.orders("a", Command::Stop);
    let fire = lane.fires("a", false);
    assert_eq!(lane.stops(order), Collected::Next(turn(1), NOW), "the order is older than the fire");
    let order = lane.orders("b", Command::Stop);
    assert_eq!(lane.stops(order), Collected::Idle);
    assert_eq!(outcome_of(&lane, fire), Some(FireOutcome::Failed { why: "stop".into() }));
}
