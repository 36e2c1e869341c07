//! Scripts of dispatch: what happened, at which second, and which effects follow.

use std::time::Duration;

use ipc_schema::letters::to_agent::{CloseWhy, InterruptWhy};

use super::*;
use crate::domain::group_settings::Priority;

const FACTS: Facts = Facts {
    priority: Priority::Normal,
    idle_window: Duration::from_secs(300),
    turn_limit: Duration::from_secs(900),
    run_limit: Duration::from_secs(6 * 3600),
};

fn lane(group: &str) -> Lane {
    Lane::conversation(group.parse().unwrap())
}

/// A host and its clock.
struct Script {
    dispatch: Dispatch,
    now: Duration,
}

fn host(working: usize, boxes: usize) -> Script {
    Script {
        dispatch: Dispatch::new(Settings { working, boxes, drain: Duration::from_secs(30) }),
        now: Duration::ZERO,
    }
}

impl Script {
    fn at(&mut self, second: u64) -> &mut Self {
        self.now = Duration::from_secs(second);
        self
    }
    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.dispatch.handle(self.now, event)
    }
    fn wake(&mut self, group: &str) -> Vec<Effect> {
        self.on(Event::Wake { lane: lane(group), facts: FACTS })
    }
    fn wake_with(&mut self, group: &str, facts: Facts) -> Vec<Effect> {
        self.on(Event::Wake { lane: lane(group), facts })
    }
    /// What a renewal does to the only lane.
    fn renewal(&self) -> Renewal {
        self.dispatch.lanes().map(|(_, state)| state.renewal()).next().unwrap()
    }
    fn ready(&mut self, run: u64) -> Vec<Effect> {
        self.on(Event::Ready { run: RunNo(run) })
    }
    fn closed(&mut self, run: u64, next: bool) -> Vec<Effect> {
        let run = RunNo(run);
        let fed = self.dispatch.by_run(run).map_or(0, |(_, record)| record.feeds);
        self.on(Event::TurnClosed { run, next, fed })
    }
    fn ended(&mut self, run: u64) -> Vec<Effect> {
        self.on(Event::Ended { run: RunNo(run), after: After::Idle, fed: u64::MAX })
    }
    fn tick(&mut self) -> Vec<Effect> {
        self.on(Event::Tick)
    }
    /// Brings a group to a listening box.
    fn listening(&mut self, group: &str, run: u64) {
        assert_eq!(self.wake(group), [start(group, run)]);
        assert_eq!(self.ready(run), [feed(run)]);
        assert_eq!(self.closed(run, false), []);
    }
}

fn start(group: &str, run: u64) -> Effect {
    Effect::Start { lane: lane(group), run: RunNo(run) }
}
fn stop(group: &str) -> Event {
    Event::Stop { lane: lane(group), order: Some(MessageSeq(7)) }
}
fn end_turn(group: &str) -> Effect {
    Effect::EndTurn { lane: lane(group), order: Some(MessageSeq(7)) }
}
fn feed(run: u64) -> Effect {
    Effect::Feed { run: RunNo(run) }
}
fn close(run: u64, why: CloseWhy) -> Effect {
    Effect::Close { run: RunNo(run), why }
}
fn interrupt(run: u64, why: InterruptWhy) -> Effect {
    let order = (why == InterruptWhy::Stop).then_some(MessageSeq(7));
    Effect::Interrupt { run: RunNo(run), why, order }
}
fn kill(run: u64, ending: Ending) -> Effect {
    Effect::Kill { run: RunNo(run), ending }
}

#[test]
fn a_message_starts_a_box_and_the_next_one_finds_it_listening() {
    let mut h = host(4, 12);
    h.listening("ann", 1);
    assert_eq!(h.at(10).wake("ann"), [feed(1)]);
    assert_eq!(
        h.on(Event::FollowUp { lane: lane("ann"), facts: FACTS }),
        [feed(1)],
        "a follow-up joins the turn"
    );
    assert_eq!(h.closed(1, false), []);
    assert_eq!(
        h.on(Event::FollowUp { lane: lane("ann"), facts: FACTS }),
        [],
        "nobody works: nothing to follow up"
    );
    assert_eq!(h.at(310).tick(), [close(1, CloseWhy::Idle)], "the idle window counts from the last turn");
    assert_eq!(h.ended(1), []);
    assert_eq!(h.dispatch.load(), (0, 0));
}

#[test]
fn with_no_idle_window_every_turn_has_its_own_box() {
    let mut h = host(4, 12);
    let facts = Facts { idle_window: Duration::ZERO, ..FACTS };
    assert_eq!(h.wake_with("ann", facts), [start("ann", 1)]);
    h.ready(1);
    assert_eq!(h.closed(1, true), [close(1, CloseWhy::Idle)]);
    assert_eq!(
        h.on(Event::Ended { run: RunNo(1), after: After::Wake(Duration::ZERO, facts), fed: u64::MAX }),
        [start("ann", 2)]
    );
}

#[test]
fn a_box_that_ignores_its_close_is_told_by_signal() {
    let mut h = host(4, 12);
    h.listening("ann", 1);
    assert_eq!(h.at(300).tick(), [close(1, CloseWhy::Idle)]);
    assert_eq!(h.at(309).tick(), []);
    assert_eq!(h.at(310).tick(), [Effect::Terminate { run: RunNo(1) }]);
    assert_eq!(h.at(400).tick(), [], "once");
}

#[test]
fn a_run_that_does_not_report_its_end_is_given_up_until_it_does() {
    let mut h = host(4, 12);
    h.listening("ann", 1);
    h.at(300).tick();
    h.at(310).tick();
    let give_up = || Effect::GiveUp { lane: lane("ann"), run: RunNo(1), ending: Ending::Finished };
    assert_eq!(h.at(909).tick(), []);
    assert_eq!(h.at(910).tick(), [give_up()], "ten minutes after the signal");
    assert_eq!(h.at(911).wake("ann"), [], "its box may still live");
    assert_eq!(h.at(1510).tick(), [give_up()]);
    assert_eq!(h.at(1511).ended(1), [start("ann", 2)]);
    let mut h = host(4, 12);
    h.wake("ann");
    h.ready(1);
    h.on(stop("ann"));
    assert_eq!(h.at(10).tick(), [kill(1, Ending::Stopped)]);
    assert_eq!(
        h.at(610).tick(),
        [Effect::GiveUp { lane: lane("ann"), run: RunNo(1), ending: Ending::Stopped }]
    );
}

#[test]
fn a_start_that_hangs_is_given_up_after_its_limit() {
    let mut h = host(1, 1);
    h.wake("ann");
    assert_eq!(h.dispatch.next_due(), Some(Duration::from_secs(900)));
    assert_eq!(h.at(899).tick(), []);
    let effects = h.at(900).tick();
    let [Effect::GiveUp { run: RunNo(1), ending: Ending::NeverStarted { code, why }, .. }] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert!(code == "run.start_timeout" && why.contains("15 minutes"), "{code}: {why}");
    assert_eq!(h.ready(1), [], "it comes too late");
    let after = After::Wake(Duration::from_secs(5), FACTS);
    assert_eq!(h.at(901).on(Event::Ended { run: RunNo(1), after, fed: 0 }), []);
    assert_eq!(h.at(906).tick(), [start("ann", 2)]);
}

#[test]
fn slots_are_few_and_the_longest_waiting_goes_first() {
    let mut h = host(1, 12);
    assert_eq!(h.wake("ann"), [start("ann", 1)]);
    assert_eq!(h.at(1).wake("bob"), []);
    assert_eq!(h.at(2).wake("cid"), []);
    h.ready(1);
    assert_eq!(h.at(3).closed(1, true), [start("bob", 2)], "ann has had a turn; her next one queues behind");
    h.ready(2);
    assert_eq!(h.at(4).closed(2, false), [start("cid", 3)]);
    h.ready(3);
    assert_eq!(h.at(5).closed(3, false), [feed(1)], "and ann's box is still warm");
}

#[test]
fn priority_goes_first_but_waiting_lifts() {
    let mut h = host(1, 12);
    let with = |priority| Facts { priority, ..FACTS };
    h.wake("busy");
    h.at(1).wake_with("low", with(Priority::Low));
    h.at(2).wake("normal");
    h.at(3).wake_with("high", with(Priority::High));
    h.ready(1);
    assert_eq!(h.at(4).closed(1, false), [start("high", 2)]);
    h.ready(2);
    // The low lane has waited for two minutes, so it precedes a normal lane that has just come.
    let told: Vec<_> = h.at(122).tick();
    assert!(told.contains(&Effect::TellWaiting { lane: lane("low") }));
    h.at(123).wake("fresh");
    assert_eq!(h.at(124).closed(2, false), [start("normal", 3)]);
    h.ready(3);
    assert_eq!(h.at(125).closed(3, false), [start("low", 4)]);
}

#[test]
fn a_wait_of_over_a_minute_is_told_once() {
    let mut h = host(1, 12);
    h.wake("ann");
    h.wake("bob");
    assert_eq!(h.at(59).tick(), []);
    assert_eq!(h.dispatch.next_due(), Some(Duration::from_secs(60)));
    assert_eq!(h.at(60).tick(), [Effect::TellWaiting { lane: lane("bob") }]);
    assert_eq!(h.at(200).tick(), []);
}

#[test]
fn the_least_recently_used_listening_box_gives_way() {
    let mut h = host(2, 2);
    h.listening("ann", 1);
    h.at(5).listening("bob", 2);
    assert_eq!(h.at(6).wake("cid"), [close(1, CloseWhy::Yield)]);
    assert_eq!(h.at(7).wake("dan"), [], "one is on its way out already");
    assert_eq!(h.at(8).ended(1), [start("cid", 3), close(2, CloseWhy::Yield)]);
    assert_eq!(h.at(9).ended(2), [start("dan", 4)]);
}

#[test]
fn a_turn_has_its_time_and_then_two_seconds() {
    let mut h = host(4, 12);
    h.wake("ann");
    h.at(5).ready(1);
    assert_eq!(h.at(904).tick(), []);
    assert_eq!(h.at(905).tick(), [interrupt(1, InterruptWhy::Time)]);
    assert_eq!(
        h.at(906).on(Event::FollowUp { lane: lane("ann"), facts: FACTS }),
        [],
        "too late for this turn"
    );
    assert_eq!(h.at(907).tick(), [kill(1, Ending::TimedOut)]);
    assert_eq!(
        h.on(Event::Ended { run: RunNo(1), after: After::Wake(Duration::ZERO, FACTS), fed: u64::MAX }),
        [start("ann", 2)]
    );
}

#[test]
fn stop_keeps_a_box_that_obeys() {
    let mut h = host(4, 12);
    h.wake("ann");
    h.ready(1);
    assert_eq!(h.at(1).on(stop("ann")), [interrupt(1, InterruptWhy::Stop)]);
    assert_eq!(h.at(2).on(stop("ann")), [], "once is enough");
    assert_eq!(h.at(3).closed(1, false), []);
    assert_eq!(h.at(4).wake("ann"), [feed(1)]);
    h.at(5).on(stop("ann"));
    assert_eq!(h.at(15).tick(), [kill(1, Ending::Stopped)]);
}

#[test]
fn stop_reaches_a_turn_that_no_box_works_on() {
    let end = || end_turn("bob");
    let mut h = host(1, 12);
    h.wake("ann");
    h.wake("bob");
    assert_eq!(h.on(stop("bob")), [end()], "queued");
    let mut h = host(4, 12);
    h.wake("bob");
    assert_eq!(h.on(stop("bob")), [end(), kill(1, Ending::Killed)], "starting");
    let mut h = host(4, 12);
    h.wake("bob");
    h.on(Event::Ended { run: RunNo(1), after: After::Wake(Duration::from_secs(60), FACTS), fed: u64::MAX });
    assert_eq!(h.on(stop("bob")), [end()], "in back-off");
    assert_eq!(h.on(stop("bob")), [], "idle");
}

#[test]
fn a_box_that_never_came_up_waits_before_the_next() {
    let mut h = host(4, 12);
    h.wake("ann");
    let wait = Duration::from_secs(5);
    assert_eq!(
        h.at(1).on(Event::Ended { run: RunNo(1), after: After::Wake(wait, FACTS), fed: u64::MAX }),
        []
    );
    assert_eq!(h.at(5).tick(), []);
    assert_eq!(h.at(6).tick(), [start("ann", 2)]);
}

#[test]
fn a_new_session_or_image_gets_a_new_box() {
    let mut h = host(4, 12);
    h.listening("ann", 1);
    assert_eq!(h.renewal(), Renewal::Closes);
    assert_eq!(h.on(Event::Renew { lane: lane("ann") }), [close(1, CloseWhy::Renew)]);
    assert_eq!(h.renewal(), Renewal::Closes, "it is told to close already");
    h.ended(1);
    h.wake("ann");
    assert_eq!(h.renewal(), Renewal::ClosesAfterTurn);
    h.ready(2);
    assert_eq!(h.on(Event::Renew { lane: lane("ann") }), [], "after this turn");
    assert_eq!(h.closed(2, false), [close(2, CloseWhy::Renew)]);
}

#[test]
fn an_old_box_is_renewed_between_turns() {
    let mut h = host(4, 12);
    let facts = Facts { run_limit: Duration::from_secs(100), ..FACTS };
    h.wake_with("ann", facts);
    h.ready(1);
    assert_eq!(h.at(50).closed(1, false), []);
    h.at(60).wake_with("ann", facts);
    assert_eq!(h.at(120).closed(1, false), [close(1, CloseWhy::Renew)]);
}

/// The store opened a turn right after it closed the last one, and the wake arrived before `TurnClosed`.
#[test]
fn a_wake_that_overtakes_the_closing_is_not_lost() {
    let mut h = host(4, 12);
    h.wake("ann");
    h.ready(1);
    assert_eq!(h.wake("ann"), []);
    assert_eq!(h.closed(1, false), [feed(1)]);
}

/// The same with a run that the store collected before it opened the turn.
#[test]
fn a_wake_that_overtakes_the_collection_is_not_lost() {
    let mut h = host(4, 12);
    h.listening("ann", 1);
    h.at(300).tick();
    assert_eq!(h.at(301).wake("ann"), []);
    assert_eq!(h.at(302).ended(1), [start("ann", 2)]);
}

#[test]
fn the_first_signal_drains() {
    let mut h = host(1, 12);
    h.listening("ann", 1);
    h.at(1).wake("bob");
    h.ready(2);
    h.at(2).wake("cid");
    assert_eq!(h.at(3).on(Event::Drain { unfinished: Unfinished::Closes }), [close(1, CloseWhy::Drain)]);
    assert_eq!(h.at(4).wake("dan"), [], "nothing starts any more");
    assert_eq!(h.ended(1), []);
    assert_eq!(h.at(5).closed(2, true), [close(2, CloseWhy::Drain)], "its next turn is the next host's");
    assert_eq!(h.ended(2), [Effect::Drained]);
}

#[test]
fn a_turn_that_outlasts_the_drain_is_left_to_the_next_host() {
    let mut h = host(4, 12);
    h.wake("ann");
    h.ready(1);
    h.at(10).on(Event::Drain { unfinished: Unfinished::Closes });
    assert_eq!(h.at(39).tick(), []);
    assert_eq!(h.at(40).tick(), [close(1, CloseWhy::Drain)]);
    assert_eq!(h.at(50).tick(), [Effect::Terminate { run: RunNo(1) }]);
    assert_eq!(
        h.on(Event::Ended { run: RunNo(1), after: After::Wake(Duration::ZERO, FACTS), fed: u64::MAX }),
        [Effect::Drained]
    );
}

#[test]
fn the_second_signal_ends_now() {
    let mut h = host(4, 12);
    h.wake("ann");
    h.listening("bob", 2);
    h.on(Event::Drain { unfinished: Unfinished::Closes });
    assert_eq!(h.on(Event::EndNow), [kill(1, Ending::Killed), kill(2, Ending::Killed)]);
    assert_eq!(h.ended(1), []);
    assert_eq!(h.ended(2), [Effect::Drained]);
}

#[test]
fn an_idle_host_is_drained_at_once() {
    assert_eq!(host(4, 12).on(Event::Drain { unfinished: Unfinished::Closes }), [Effect::Drained]);
}

#[test]
fn a_late_word_of_an_ended_run_changes_nothing() {
    let mut h = host(4, 12);
    h.wake("ann");
    h.on(Event::Ended { run: RunNo(1), after: After::Wake(Duration::ZERO, FACTS), fed: u64::MAX });
    assert_eq!(h.ready(1), []);
    assert_eq!(h.closed(1, false), []);
    assert_eq!(h.ended(1), []);
    assert_eq!(h.ready(2), [feed(2)]);
}

#[test]
fn boxes_of_an_earlier_host_take_their_places_before_anything_starts() {
    let mut h = host(1, 3);
    let mut adopt = |group: &str, found| h.on(Event::Adopt { lane: lane(group), facts: FACTS, found });
    let adopted = |group: &str, run| Effect::Adopt { lane: lane(group), run: RunNo(run) };
    assert_eq!(
        adopt("a", AdoptedState::Working),
        [adopted("a", 1), feed(1)],
        "a message may not have reached it"
    );
    assert_eq!(adopt("b", AdoptedState::Starting), [adopted("b", 2)]);
    assert_eq!(adopt("c", AdoptedState::Listening), [adopted("c", 3)]);
    assert_eq!(adopt("d", AdoptedState::Closing), [adopted("d", 4)]);
    assert_eq!(h.wake("c"), [], "two hold slots, where one may");
    assert_eq!(h.ready(2), [feed(2)]);
    assert_eq!(h.closed(1, false), []);
    assert_eq!(h.closed(2, false), [feed(3)]);
    assert_eq!(h.at(10).tick(), [Effect::Terminate { run: RunNo(4) }], "its grace begins anew");
}

#[test]
fn a_turn_that_outlasts_the_drain_is_left_to_its_box() {
    let mut h = host(2, 4);
    h.listening("quiet", 1);
    h.wake("busy");
    h.ready(2);
    h.wake("coming");
    assert_eq!(
        h.at(10).on(Event::Drain { unfinished: Unfinished::GoesOn }),
        [close(1, CloseWhy::Drain)],
        "a box that only listens is closed"
    );
    h.ended(1);
    assert_eq!(h.at(39).tick(), []);
    let leave = |run| Effect::Leave { run: RunNo(run) };
    assert_eq!(h.at(40).tick(), [leave(2), leave(3), Effect::Drained]);
}

#[test]
fn boxes_that_wait_for_their_own_next_turns_do_not_block_the_line() {
    let mut h = host(1, 2);
    h.listening("a", 1);
    h.listening("b", 2);
    assert_eq!(h.at(1).wake("a"), [feed(1)]);
    assert_eq!(h.at(2).wake("c"), [], "the only slot is taken");
    assert_eq!(h.at(3).wake("b"), []);
    // The next turn of `a` is open already, so both boxes wait for their own lanes, and `c` is first in the queue.
    assert_eq!(h.at(4).closed(1, true), [feed(2)]);
}

#[test]
fn a_turn_that_waits_for_a_person_gives_its_slot_away_until_the_answer() {
    let mut h = host(1, 1);
    h.wake("a");
    h.ready(1);
    assert_eq!(h.at(1).wake("b"), [], "the only slot is taken");
    assert_eq!(h.at(50).on(Event::Suspend { run: RunNo(1) }), [close(1, CloseWhy::Question)]);
    let after = After::Suspended(Duration::from_secs(1000), FACTS);
    assert_eq!(h.at(51).on(Event::Ended { run: RunNo(1), after, fed: u64::MAX }), [start("b", 2)]);
    h.ready(2);
    let answered = || Event::Answered { lane: lane("a"), facts: FACTS };
    assert_eq!(h.at(70).on(answered()), [], "it waits for a slot again");
    assert_eq!(h.at(71).closed(2, false), [close(2, CloseWhy::Yield)]);
    assert_eq!(h.ended(2), [start("a", 3)]);
    h.ready(3);
    assert_eq!(h.on(answered()), [feed(3)], "an answer within the minute goes to the box that waits");
}

#[test]
fn a_question_that_nobody_answers_expires_and_the_order_to_end_it_is_repeated() {
    let mut h = host(1, 1);
    let left = Duration::from_secs(100);
    assert_eq!(h.on(Event::Suspended { lane: lane("a"), left, facts: FACTS }), [], "found at boot");
    assert_eq!(h.at(99).tick(), []);
    assert_eq!(h.at(100).tick(), [Effect::Expire { lane: lane("a") }]);
    assert_eq!(h.at(159).tick(), []);
    assert_eq!(
        h.at(160).tick(),
        [Effect::Expire { lane: lane("a") }],
        "nobody has reported that it is ended"
    );
    assert_eq!(h.on(Event::Answered { lane: lane("a"), facts: FACTS }), [start("a", 1)]);
}

#[test]
fn an_answer_that_comes_while_the_box_closes_is_not_forgotten() {
    let mut h = host(1, 1);
    h.wake("a");
    h.ready(1);
    h.on(Event::Suspend { run: RunNo(1) });
    assert_eq!(h.on(Event::Answered { lane: lane("a"), facts: FACTS }), []);
    let after = After::Suspended(Duration::from_secs(1000), FACTS);
    assert_eq!(h.on(Event::Ended { run: RunNo(1), after, fed: u64::MAX }), [start("a", 2)]);
}

#[test]
fn a_suspended_turn_can_be_stopped() {
    let mut h = host(1, 1);
    h.on(Event::Suspended { lane: lane("a"), left: Duration::from_secs(100), facts: FACTS });
    assert_eq!(h.on(stop("a")), [end_turn("a")]);
}

#[test]
fn what_a_run_says_before_it_obeyed_its_last_feed_is_out_of_date() {
    let mut h = host(1, 1);
    h.wake("a");
    h.ready(1);
    assert_eq!(h.on(Event::FollowUp { lane: lane("a"), facts: FACTS }), [feed(1)]);
    // The run closed the turn before the second feed reached it. That feed may have given it the next turn.
    assert_eq!(h.on(Event::TurnClosed { run: RunNo(1), next: false, fed: 1 }), []);
    assert!(matches!(h.dispatch.lanes().next(), Some((_, LaneState::Working { .. }))));
    assert_eq!(h.on(Event::TurnClosed { run: RunNo(1), next: false, fed: 2 }), []);
    assert!(matches!(h.dispatch.lanes().next(), Some((_, LaneState::Listening { .. }))));
}

#[test]
fn a_drain_ends_although_the_engine_is_away() {
    let mut h = host(1, 2);
    h.listening("a", 1);
    assert_eq!(h.at(10).on(Event::Drain { unfinished: Unfinished::GoesOn }), [close(1, CloseWhy::Drain)]);
    assert_eq!(h.at(20).tick(), [Effect::Terminate { run: RunNo(1) }]);
    assert_eq!(h.at(40).tick(), []);
    assert_eq!(h.at(55).tick(), [Effect::Leave { run: RunNo(1) }, Effect::Drained]);
}

#[test]
fn a_follow_up_wakes_a_lane_that_was_forgotten() {
    let mut h = host(1, 1);
    assert_eq!(h.on(Event::FollowUp { lane: lane("a"), facts: FACTS }), [start("a", 1)]);
}

#[test]
fn a_question_whose_clock_fell_behind_is_asked_about_again() {
    let mut h = host(1, 1);
    let suspended =
        |left| Event::Suspended { lane: lane("a"), left: Duration::from_secs(left), facts: FACTS };
    h.on(suspended(100));
    assert_eq!(h.at(100).tick(), [Effect::Expire { lane: lane("a") }]);
    assert_eq!(h.on(suspended(2)), []);
    assert_eq!(h.at(102).tick(), [Effect::Expire { lane: lane("a") }]);
    h.on(Event::Answered { lane: lane("a"), facts: FACTS });
    assert_eq!(h.on(suspended(2)), [], "it goes on already");
    assert_eq!(h.ready(1), [feed(1)]);
}

#[test]
fn a_turn_can_be_stopped_while_its_box_closes_for_its_question() {
    let mut h = host(1, 1);
    h.wake("a");
    h.ready(1);
    h.on(Event::Suspend { run: RunNo(1) });
    assert_eq!(
        h.on(Event::Stop { lane: lane("a"), order: None }),
        [Effect::EndTurn { lane: lane("a"), order: None }]
    );
    assert_eq!(h.ended(1), []);
}

#[test]
fn a_message_that_was_handed_to_a_box_that_had_just_died_is_not_forgotten() {
    let mut h = host(1, 1);
    h.listening("a", 1);
    // The store has collected the run, and `Ended` is on its way. The next message opens a turn, and its wake arrives
    // first.
    assert_eq!(h.wake("a"), [feed(1)]);
    let ended = Event::Ended { run: RunNo(1), after: After::Idle, fed: 1 };
    assert_eq!(h.on(ended), [start("a", 2)]);
}

#[test]
fn a_stop_to_a_box_that_has_just_died_ends_the_turn_and_no_box_starts_for_it() {
    let mut h = host(4, 12);
    h.wake("ann");
    h.ready(1);
    h.on(stop("ann"));
    let after = After::Wake(Duration::from_secs(1), FACTS);
    let ended = Event::Ended { run: RunNo(1), after, fed: 1 };
    assert_eq!(h.on(ended), [Effect::EndTurn { lane: lane("ann"), order: Some(MessageSeq(7)) }]);
    assert_eq!(h.at(60).tick(), []);
    assert_eq!(h.wake("ann"), [start("ann", 2)], "what was written after the `/stop`");
}

#[test]
fn a_turn_that_waits_for_the_next_box_can_be_stopped() {
    let mut h = host(4, 12);
    h.listening("ann", 1);
    h.on(Event::Renew { lane: lane("ann") });
    assert_eq!(h.wake("ann"), []);
    assert_eq!(h.on(stop("ann")), [Effect::EndTurn { lane: lane("ann"), order: Some(MessageSeq(7)) }]);
    assert_eq!(h.ended(1), []);
}
