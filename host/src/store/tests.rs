//! The store's three transactions, told as stories.

mod bounds_on_boxes;
mod choices;
mod cost_of_history;
mod history;
pub(super) mod opening_and_upgrade;
mod other_process;
mod permissions;
mod person_in_a_fire;
mod readers;
mod retention_and_restore;
mod sender_rules;
mod sent_files;
mod sessions;
mod stop_command;
mod tasks;
mod used_ids;

use std::time::Duration;

use ipc_schema::RefusalCode;
use ipc_schema::letters::to_agent::{InterruptWhy, Verdict};
use ipc_schema::requests::AskPerson;

use super::*;
use crate::domain::ending::TurnEnd;
use crate::domain::group_settings::{MayStop, SenderRules, TurnRate};
use crate::domain::message::{Addressee, Admitted, Command, Inbound, Press, Role, Sender};
use crate::domain::outbound::{Choice, Choices, Delivery, OutgoingText, Voice};
use crate::domain::{
    ChannelName, ChatId, ChatKind, Ending, GroupName, Lane, LetterId, MessageSeq, RunId, TurnId, WallMs,
};
use crate::policy::delivery::{Abilities, SendOutcome, Terms};
use crate::turns::{Collected, Placement};

const T: WallMs = WallMs(1_795_000_000_000);
const TERMS: Terms = Terms {
    delivery: Delivery::Resend,
    abilities: Abilities { own_id: false, edits: true },
    lifetime: Duration::from_secs(24 * 3600),
    retry: Duration::from_secs(24 * 3600),
};
const RUN: &str = "019ab000-0000-7000-8000-000000000001";
const RUN2: &str = "019ab000-0000-7000-8000-000000000002";

struct House {
    store: Store,
    _dir: tempfile::TempDir,
    written: i64,
}

fn family() -> GroupName {
    "family".parse().unwrap()
}

fn lane() -> Lane {
    Lane::conversation(family())
}

fn chat(text: &str) -> ChatId {
    text.parse().unwrap()
}

async fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("lazaret.db")).unwrap();
    store.group(&family(), T).await.unwrap();
    for id in ["telegram:-1", "telegram:-2"] {
        let admission = Admission {
            chat: chat(id),
            group: family(),
            kind: ChatKind::Room,
            title: "Family".into(),
            by: "test".into(),
            now: T,
        };
        store.admit_chat(admission).await.unwrap();
    }
    House { store, _dir: dir, written: 0 }
}

/// What Telegram has read, without a position.
pub(super) fn intake(admitted: Vec<Admitted>) -> Intake {
    Intake {
        channel: ChannelName::new("telegram"),
        account: String::new(),
        position: None,
        admitted,
        strangers: vec![],
        owners: vec![],
        counts: Default::default(),
        now: T,
    }
}

impl House {
    fn message(&mut self, in_chat: &str, text: &str, role: Role) -> Admitted {
        self.written += 1;
        let sender = Sender { id: "telegram:5".parse().unwrap(), name: "Ann".into(), is_bot: false };
        let inbound = Inbound {
            chat: chat(in_chat),
            kind: ChatKind::Room,
            title: "Family".into(),
            message_id: self.written.to_string(),
            version: 0,
            sender,
            text: text.into(),
            origin: None,
            service: false,
            reply_to: None,
            attachments: vec![],
            addressee: Addressee::Us,
            at: T,
            press: None,
        };
        let rules = SenderRules { may_stop: MayStop::Anyone, ..SenderRules::default() };
        Admitted { group: family(), role, owner: false, rules, inbound, attachments: vec![] }
    }

    /// A press that admission has taken: the command of the pressed choice.
    async fn presses(&mut self, in_chat: &str, command: &str, press: Press) -> Accepted {
        let order = Role::Command(Command::of(command).unwrap());
        let mut message = self.message(in_chat, command, order);
        message.inbound.message_id = format!("press:{}", press.id);
        message.inbound.press = Some(press);
        self.take_in(vec![message]).await.remove(0)
    }

    async fn take_in(&self, admitted: Vec<Admitted>) -> Vec<Accepted> {
        let position = Some(self.written.to_string());
        self.store.accept(Intake { position, ..intake(admitted) }).await.unwrap()
    }

    async fn writes(&mut self, in_chat: &str, text: &str, role: Role) -> Accepted {
        let message = self.message(in_chat, text, role);
        self.take_in(vec![message]).await.remove(0)
    }

    async fn wakes(&mut self, in_chat: &str, text: &str) -> Placement {
        self.writes(in_chat, text, Role::Wake).await.placement
    }

    async fn starts(&self, run: &str) {
        let new = NewRun {
            run: run.parse().unwrap(),
            lane: lane(),
            session: "conversation-1".into(),
            image: "i".into(),
            runner: "r".into(),
            now: T,
        };
        self.store.new_run(new).await.unwrap();
        self.store.add_letter(run.parse().unwrap(), None, "begin", T, |_| Ok(vec![])).await.unwrap();
    }

    /// The texts of the next input letter, and how much context was left out.
    async fn is_given(&self, run: &str) -> Option<(Vec<String>, u64)> {
        let (told, texts) = std::sync::mpsc::channel();
        let context = crate::domain::limits::ContextLimits { messages: 2, tokens: 1000 };
        let limits = InputLimits { context, turn_tokens: 500 };
        let letter = self
            .store
            .compose_input(run.parse().unwrap(), lane(), limits, FileWait::Whole, T, move |_, state| {
                let texts: Vec<String> = state.messages.into_iter().map(|m| m.text).collect();
                told.send((texts, state.omitted)).unwrap();
                Ok(vec![])
            })
            .await
            .unwrap();
        matches!(letter, Composed::Letter(..)).then(|| texts.recv().unwrap())
    }

    async fn takes(&self, n: u64, ack: u64, turn: Option<TurnId>, effect: TakenEffect) -> Taken {
        self.takes_from(RUN, n, ack, turn, &format!("t-1:{n}.0"), effect).await
    }

    async fn takes_from(
        &self,
        run: &str,
        n: u64,
        ack: u64,
        turn: Option<TurnId>,
        id: &str,
        effect: TakenEffect,
    ) -> Taken {
        let take = Take {
            run: run.parse().unwrap(),
            n,
            id: id.parse().unwrap(),
            turn,
            ack,
            sha256: format!("{id} {effect:?}"),
            effect,
            now: T,
        };
        self.store.take(take).await.unwrap()
    }

    async fn said(&self, in_chat: &str) -> Vec<String> {
        let mut texts = Vec::new();
        while let NextPart::Part(part) = self.store.claim(chat(in_chat), TERMS, T).await.unwrap() {
            texts.push(part.text.clone());
            self.store.settle(*part, SendOutcome::Arrived("1".into()), TERMS.retry, T).await.unwrap();
        }
        texts
    }

    async fn state_of(&self, seq: u64) -> String {
        self.store.message_trace(MessageSeq(seq)).await.unwrap().unwrap().state
    }
}

/// A text with a choice for each command.
fn offering(in_chat: &ChatId, word: &str, commands: &[&str]) -> OutgoingText {
    let choice = |command: &&str| Choice { label: format!("do {command}"), command: (*command).to_owned() };
    let choices = Choices {
        list: commands.iter().map(choice).collect(),
        in_words: "Write /help.".into(),
        for_owners: false,
    };
    OutgoingText { choices: Some(choices), ..OutgoingText::notice(in_chat, word, "What now?".into()) }
}

fn reply(text: &str, key: &str) -> OutgoingText {
    OutgoingText {
        chat: chat("telegram:-1"),
        voice: Voice::Reply,
        key: key.into(),
        parts: vec![text.to_owned().into()],
        answers: None,
        choices: None,
    }
}

fn done(text: &str) -> TakenEffect {
    let end = TurnEnd { state: "done", why: "finished".into() };
    TakenEffect::TurnDone { end, texts: vec![reply(text, "t-1:9.0")], if_silent: None }
}

#[tokio::test]
async fn a_burst_is_one_turn_and_another_chat_is_the_next() {
    let mut h = house().await;
    assert_eq!(h.wakes("telegram:-1", "one").await, Placement::NewTurn(TurnId(1)));
    assert_eq!(h.wakes("telegram:-1", "two").await, Placement::FollowUp(TurnId(1)));
    assert_eq!(h.wakes("telegram:-2", "elsewhere").await, Placement::Waiting);
    h.starts(RUN).await;
    assert_eq!(h.is_given(RUN).await, Some((vec!["one".into(), "two".into()], 0)));
    assert_eq!(h.is_given(RUN).await, None, "once");
    let closed = h.takes(1, 2, Some(TurnId(1)), done("both")).await;
    assert_eq!(closed, Taken::Closed { next: Some(TurnId(2)) });
    assert_eq!(h.is_given(RUN).await, Some((vec!["elsewhere".into()], 0)));
    assert_eq!(h.said("telegram:-1").await, ["both"]);
    assert!(h.said("telegram:-2").await.is_empty());
}

#[tokio::test]
async fn a_message_that_is_handed_over_twice_is_one_message() {
    let mut h = house().await;
    let message = h.message("telegram:-1", "hi", Role::Wake);
    let first = h.take_in(vec![message.clone()]).await.remove(0);
    let again = h.take_in(vec![message]).await.remove(0);
    assert_eq!((again.seq, again.placement), (first.seq, Placement::Duplicate));
    assert_eq!(
        h.store.position(ChannelName::new("telegram"), String::new()).await.unwrap().as_deref(),
        Some("1")
    );
}

/// The follow-up was stored after the agent's last look, and before its `turn_done` was.
#[tokio::test]
async fn what_a_turn_did_not_see_is_the_next_turn() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.wakes("telegram:-1", "late").await;
    h.is_given(RUN).await;
    h.wakes("telegram:-1", "later").await;
    // Letter 2 held "one", letter 3 "late"; only letter 2 is acknowledged.
    let closed = h.takes(1, 2, Some(TurnId(1)), done("to one")).await;
    assert_eq!(closed, Taken::Closed { next: Some(TurnId(2)) });
    assert_eq!((h.state_of(1).await.as_str(), h.state_of(2).await.as_str()), ("done", "in_turn"));
    assert_eq!(
        h.is_given(RUN).await,
        Some((vec!["late".into(), "later".into()], 0)),
        "the same box gets it anew"
    );
    h.store.collect(RUN.parse().unwrap(), lane(), Ending::Finished, T).await.unwrap();
    h.starts(RUN2).await;
    assert_eq!(h.is_given(RUN2).await, Some((vec!["late".into(), "later".into()], 0)));
}

#[tokio::test]
async fn context_comes_newest_first_and_the_rest_is_counted() {
    let mut h = house().await;
    for text in ["a", "b", "c"] {
        assert_eq!(h.writes("telegram:-1", text, Role::Context).await.placement, Placement::Context);
    }
    h.wakes("telegram:-1", "wake").await;
    h.starts(RUN).await;
    assert_eq!(h.is_given(RUN).await, Some((vec!["b".into(), "c".into(), "wake".into()], 1)));
    h.takes(1, 2, Some(TurnId(1)), done("x")).await;
    h.wakes("telegram:-1", "again").await;
    assert_eq!(h.is_given(RUN).await, Some((vec!["again".into()], 0)), "given, or left out for good");
}

#[tokio::test]
async fn a_letter_is_taken_once_whatever_is_sent_again() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    let say = || TakenEffect::Message { outgoing: reply("working", "t-1:3.0"), limit: 50 };
    assert_eq!(h.takes(1, 1, Some(TurnId(1)), say()).await, Taken::Fresh);
    assert_eq!(h.takes(1, 1, Some(TurnId(1)), say()).await, Taken::Repeat);
    let other = h.takes_from(RUN, 1, 1, Some(TurnId(1)), "t-1:4.0", say()).await;
    assert!(matches!(other, Taken::Refused(r, None) if r.code == RefusalCode::Replay));
    // The next run repeats it under its own number, with the id it had.
    h.store.collect(RUN.parse().unwrap(), lane(), Ending::Killed, T).await.unwrap();
    h.starts(RUN2).await;
    assert_eq!(h.takes_from(RUN2, 1, 1, Some(TurnId(1)), "t-1:3.0", say()).await, Taken::Fresh);
    assert_eq!(h.said("telegram:-1").await, ["working"], "said once");
    let begin = h.store.begin_state(lane()).await.unwrap();
    let consumed: Vec<LetterId> = begin.open.unwrap().1;
    assert!(consumed.contains(&"t-1:3.0".parse().unwrap()));
}

#[tokio::test]
async fn what_is_not_the_boxs_to_say_is_refused_and_uses_up_its_number() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    let refused = |taken: Taken| match taken {
        Taken::Refused(refusal, _) => refusal.code,
        other => panic!("{other:?}"),
    };
    let nothing = || TakenEffect::Nothing;
    assert_eq!(refused(h.takes(1, 1, Some(TurnId(7)), nothing()).await), RefusalCode::Stale);
    assert_eq!(
        refused(h.takes(2, 9, Some(TurnId(1)), nothing()).await),
        RefusalCode::Ack,
        "more than was written"
    );
    assert_eq!(h.takes(3, 2, Some(TurnId(1)), nothing()).await, Taken::Fresh);
    assert_eq!(refused(h.takes(4, 1, Some(TurnId(1)), nothing()).await), RefusalCode::Ack, "it fell");
    assert_eq!(h.takes(5, 2, Some(TurnId(1)), nothing()).await, Taken::Fresh);
    let numbers = h.store.summary().await.unwrap().numbers;
    assert!(
        numbers.contains(&("ipc.ack".into(), 2)) && numbers.contains(&("ipc.stale".into(), 1)),
        "{numbers:?}"
    );
}

#[tokio::test]
async fn a_request_is_performed_once_and_answered_again() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    let ask = || TakenEffect::Request { kind: "k".into(), body: "{}".into(), limit: 1 };
    let id = "t-1:toolu_1";
    assert_eq!(h.takes_from(RUN, 1, 1, Some(TurnId(1)), id, ask()).await, Taken::Perform);
    let run = || RUN.parse().unwrap();
    assert_eq!(
        h.store.open_requests(run()).await.unwrap().len(),
        1,
        "a host that dies here performs it again"
    );
    let verdict = Verdict::Ok { result: "done".into() };
    let letter = h.store.verdict(run(), TurnId(1), id.parse().unwrap(), verdict, T).await.unwrap();
    assert_eq!(letter.name, "0000000003-response.json");
    assert_eq!(h.store.open_requests(run()).await.unwrap(), []);
    let rows = h.store.unacknowledged(run()).await.unwrap();
    assert_eq!(rows.last(), Some(&letter), "the file can be made again from its row");
    h.store.collect(RUN.parse().unwrap(), lane(), Ending::Killed, T).await.unwrap();
    h.starts(RUN2).await;
    let again = h.takes_from(RUN2, 1, 1, Some(TurnId(1)), id, ask()).await;
    assert!(matches!(again, Taken::Answered(l) if String::from_utf8_lossy(&l.bytes).contains("\"done\"")));
    let more = h.takes_from(RUN2, 2, 1, Some(TurnId(1)), "t-1:toolu_2", ask()).await;
    assert!(matches!(more, Taken::Refused(r, Some(_)) if r.code == RefusalCode::Rate));
}

#[tokio::test]
async fn three_crashes_cost_three_attempts_and_end_in_a_notice() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    let crash = Ending::Crashed { code: Some(137), oom: true, why: "out of memory at 1 GiB".into() };
    for attempt in 1..=3u32 {
        let run: RunId = RUN.replace("0001", &format!("000{attempt}")).parse().unwrap();
        h.starts(run.as_str()).await;
        let collected = h.store.collect(run.clone(), lane(), crash.clone(), T).await.unwrap();
        assert_eq!(collected == Collected::Idle, attempt == 3, "given up");
        let again = h.store.collect(run, lane(), crash.clone(), T).await.unwrap();
        assert_eq!(again, Collected::Idle, "a run is collected once");
    }
    let said = h.said("telegram:-1").await;
    assert!(said.len() == 1 && said[0].contains("3 attempts") && said[0].contains("memory"), "{said:?}");
    assert_eq!(h.state_of(1).await, "done");
}

#[tokio::test]
async fn a_box_that_cannot_start_is_told_once() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    let never = Ending::NeverStarted { code: "image.missing".into(), why: "no image".into() };
    for attempt in 1..=4 {
        let run: RunId = RUN.replace("0001", &format!("000{attempt}")).parse().unwrap();
        h.starts(run.as_str()).await;
        let collected = h.store.collect(run, lane(), never.clone(), T).await.unwrap();
        assert!(matches!(collected, Collected::Next(TurnId(1), _)));
    }
    assert_eq!(h.said("telegram:-1").await.len(), 1);
    assert_eq!(h.store.open_turn(lane()).await.unwrap().unwrap().attempt, 1, "it costs no attempt");
}

#[tokio::test]
async fn an_edit_speaks_for_the_original_only_while_that_is_unanswered() {
    let mut h = house().await;
    let original = h.message("telegram:-1", "two plus too", Role::Wake);
    let mut edit = original.clone();
    (edit.inbound.version, edit.inbound.text) = (7, "two plus two".into());
    h.take_in(vec![original]).await;
    assert_eq!(h.take_in(vec![edit.clone()]).await[0].placement, Placement::FollowUp(TurnId(1)));
    h.starts(RUN).await;
    assert_eq!(h.is_given(RUN).await, Some((vec!["two plus two".into()], 0)), "nobody saw the first version");
    h.takes(1, 2, Some(TurnId(1)), done("four")).await;
    edit.inbound.version = 8;
    assert_eq!(h.take_in(vec![edit]).await[0].placement, Placement::Context, "no stale reply");
}

#[tokio::test]
async fn a_command_is_carried_out_until_it_has_an_outcome() {
    let mut h = house().await;
    let placed = h.writes("telegram:-1", "/stop@laz_bot now", Role::Command(Command::Stop)).await;
    assert_eq!(placed.placement, Placement::Command(Command::Stop));
    let open = h.store.open_commands().await.unwrap();
    assert_eq!((open.len(), open[0].command, open[0].seq), (1, Command::Stop, placed.seq));
    h.store.command_done(placed.seq, "stopping".into()).await.unwrap();
    assert!(h.store.open_commands().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_strange_chat_leaves_a_code_and_a_count() {
    let h = house().await;
    for n in 0..3 {
        let stranger = StrangerSeen {
            chat: chat("telegram:77"),
            kind: ChatKind::Direct,
            title: "Eve".into(),
            sender: "telegram:77".parse().unwrap(),
            sender_name: "Eve".into(),
            owner: false,
            code: format!("CODE{n}"),
            kept: None,
            asks: vec![],
        };
        let strangers = vec![stranger];
        h.store.accept(Intake { strangers, ..intake(vec![]) }).await.unwrap();
    }
    let waiting = h.store.strangers().await.unwrap();
    assert_eq!((waiting.len(), waiting[0].messages, waiting[0].code.as_str()), (1, 3, "CODE0"));
    let admit = |code: &str, group: &str| {
        h.store.admit_code(code.into(), group.parse().unwrap(), "t".into(), None, T)
    };
    assert!(admit("WRONG", "main").await.unwrap().is_none());
    let admitted = admit("code0", "main").await.unwrap().unwrap();
    assert_eq!(admitted.owner.unwrap().as_str(), "telegram:77", "the first of main is the owner");
    assert!(h.store.strangers().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_order_to_admit_is_done_together_with_its_answer() {
    let mut h = house().await;
    let stranger = StrangerSeen {
        chat: chat("telegram:-9"),
        kind: ChatKind::Room,
        title: "Kin".into(),
        sender: "telegram:6".parse().unwrap(),
        sender_name: "Bob".into(),
        owner: false,
        code: "CODE9".into(),
        kept: None,
        asks: vec![],
    };
    h.store.accept(Intake { strangers: vec![stranger], ..intake(vec![]) }).await.unwrap();
    let line = h.message("telegram:-1", "/admit CODE9 kin", Role::Command(Command::Admit));
    let order = h.take_in(vec![line]).await[0].seq;
    let told = OutgoingText::notice(&chat("telegram:-1"), "admit", "Kin is admitted.".into());
    let admission = |code: &str| {
        let (code, group, by) = (code.into(), "kin".parse().unwrap(), "telegram:5".into());
        AdmissionOrder { order, code, group, by, first: None, told: told.clone() }
    };
    assert_eq!(h.store.admit_and_answer(admission("WRONG"), T).await.unwrap(), None);
    assert_eq!(h.store.open_commands().await.unwrap().len(), 1, "nothing has happened");
    assert_eq!(h.store.admit_and_answer(admission("CODE9"), T).await.unwrap(), Some(None));
    assert!(h.store.open_commands().await.unwrap().is_empty(), "the next host does not perform it again");
    let c = rusqlite::Connection::open(h._dir.path().join("lazaret.db")).unwrap();
    let said: String = c.query_row("SELECT text FROM outbox", [], |r| r.get(0)).unwrap();
    assert_eq!(said, "Kin is admitted.");
}

#[tokio::test]
async fn a_groups_user_is_never_anothers() {
    let h = house().await;
    let first = h.store.group(&family(), T).await.unwrap();
    assert_eq!(h.store.group(&family(), T).await.unwrap(), first);
    let other = h.store.group(&"work".parse().unwrap(), T).await.unwrap();
    assert_ne!(first.uid, other.uid);
}

/// Such a box repeats the replies that the run before it left, and the next host must know their chat.
#[tokio::test]
async fn a_new_host_knows_the_turn_of_a_box_that_goes_on_with_it_and_got_no_input_yet() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    let (run, session, image) = (RUN.parse().unwrap(), "conversation-1".into(), "i".into());
    h.store.new_run(NewRun { run, lane: lane(), session, image, runner: "r".into(), now: T }).await.unwrap();
    let begin = |_| Ok(br#"{"body":{"open":{"turn":"t-1","consumed":[]}}}"#.to_vec());
    h.store.add_letter(RUN.parse().unwrap(), None, "begin", T, begin).await.unwrap();
    let row = h.store.unended_runs().await.unwrap().remove(0);
    assert_eq!((row.turn, row.given), (Some((TurnId(1), chat("telegram:-1"))), false));
}

#[tokio::test]
async fn a_new_host_learns_where_every_run_of_the_old_one_stands() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    let row = async || h.store.unended_runs().await.unwrap().remove(0);
    assert!(matches!(row().await, RunRow { ready: false, taken: 0, container: None, turn: None, .. }));
    h.store.run_container(RUN.parse().unwrap(), "c1".into()).await.unwrap();
    h.takes(1, 1, None, TakenEffect::Ready { told: None }).await;
    assert!(
        matches!(row().await, RunRow { ready: true, taken: 1, turn: None, .. }),
        "it was given nothing yet"
    );
    h.is_given(RUN).await;
    assert!(row().await.given);
    assert_eq!(row().await.turn, Some((TurnId(1), chat("telegram:-1"))));
    let interrupt = |_| Ok(br#"{"body":{"why":"stop"}}"#.to_vec());
    h.store.add_letter(RUN.parse().unwrap(), Some(TurnId(1)), "interrupt", T, interrupt).await.unwrap();
    assert_eq!(row().await.interrupted, Some(InterruptWhy::Stop));
    let unread: Vec<u64> =
        h.store.unacknowledged(RUN.parse().unwrap()).await.unwrap().iter().map(|l| l.n).collect();
    assert_eq!(unread, [2, 3], "`begin` was acknowledged with `ready`");
    h.store.collect(RUN.parse().unwrap(), lane(), Ending::Killed, T).await.unwrap();
    assert_eq!(h.store.unended_runs().await.unwrap(), []);
}

impl House {
    /// A run that has asked, and what the chat reads is the code.
    async fn asks(&self, run: &str) {
        let id: LetterId = "t-1:toolu_1".parse().unwrap();
        let body = TakenEffect::Request { kind: "ask_person".into(), body: "{}".into(), limit: 9 };
        let taken = self.takes_from(run, 1, 2, Some(TurnId(1)), id.as_str(), body).await;
        assert_eq!(taken, Taken::Perform);
        self.asks_again(T).await;
    }

    async fn asks_again(&self, now: WallMs) {
        let new = NewQuestion {
            turn: TurnId(1),
            request: "t-1:toolu_1".parse().unwrap(),
            chat: chat("telegram:-1"),
            ask: AskPerson { question: "Milk?".into(), choices: vec!["whole".into(), "skimmed".into()] },
            permission: None,
            expires: T.plus(std::time::Duration::from_secs(60)),
            now,
        };
        let say = |code: &str| {
            let (voice, parts) = (Voice::Reply, vec![code.to_owned().into()]);
            let key = "t-1:toolu_1".to_owned();
            Some(OutgoingText { chat: chat("telegram:-1"), voice, key, parts, answers: None, choices: None })
        };
        self.store.ask(new, say).await.unwrap();
    }

    /// A person's `/answer`.
    async fn answers(&mut self, line: &str) -> AnswerTaken {
        let seq = self.writes("telegram:-1", line, Role::Command(Command::Answer)).await.seq;
        self.store.answer(seq, T).await.unwrap()
    }

    async fn told(&self, run: &str) -> Vec<String> {
        let letters = self.store.untold_verdicts(run.parse().unwrap(), T).await.unwrap();
        letters.into_iter().map(|l| String::from_utf8(l.bytes).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_question_is_asked_once_answered_once_and_told_once() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.asks(RUN).await;
    h.asks_again(T).await;
    let code = h.said("telegram:-1").await;
    assert_eq!(code.len(), 1, "asked once");
    assert_eq!(h.answers("/answer XX 1").await, AnswerTaken::Unknown);
    assert_eq!(h.told(RUN).await, Vec::<String>::new());
    assert_eq!(
        h.answers(&format!("/answer {} 2", code[0].to_lowercase())).await,
        AnswerTaken::GoesOn(lane())
    );
    assert_eq!(h.answers(&format!("/answer {} 1", code[0])).await, AnswerTaken::Unknown, "it has its answer");
    let told = h.told(RUN).await;
    assert!(told.len() == 1 && told[0].contains("skimmed") && told[0].contains("Ann"), "{told:?}");
    assert_eq!(h.told(RUN).await.len(), 0, "one letter");
}

#[tokio::test]
async fn a_turn_that_waits_for_a_person_is_suspended_and_its_answer_resumes_it() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.asks(RUN).await;
    assert_eq!(h.store.suspended().await.unwrap(), [], "its box waits");
    let until = T.plus(std::time::Duration::from_secs(60));
    let collected = h.store.collect(RUN.parse().unwrap(), lane(), Ending::Finished, T).await.unwrap();
    assert_eq!(collected, Collected::Suspended(until));
    assert_eq!(h.store.suspended().await.unwrap(), [Suspended { lane: lane(), until }]);
    assert_eq!(h.store.expire_questions(T).await.unwrap(), []);
    assert_eq!(h.store.expire_questions(until).await.unwrap(), [lane()]);
    assert_eq!(h.store.suspended().await.unwrap(), []);
    h.starts(RUN2).await;
    let ask = TakenEffect::Request { kind: "ask_person".into(), body: "{}".into(), limit: 9 };
    let again = h.takes_from(RUN2, 1, 1, Some(TurnId(1)), "t-1:toolu_1", ask).await;
    assert!(matches!(again, Taken::Answered(l) if String::from_utf8_lossy(&l.bytes).contains("expired")));
}

#[tokio::test]
async fn who_writes_past_a_question_is_the_next_turn_and_a_late_answer_is_one_too() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.asks(RUN).await;
    h.store.collect(RUN.parse().unwrap(), lane(), Ending::Finished, T).await.unwrap();
    let code = h.said("telegram:-1").await.remove(0);
    assert_eq!(h.wakes("telegram:-2", "two").await, Placement::NewTurn(TurnId(2)));
    assert_eq!(h.state_of(1).await, "done");
    let AnswerTaken::Late(accepted) = h.answers(&format!("/answer {code} 1")).await else { panic!() };
    assert_eq!((accepted.chat, accepted.placement), (chat("telegram:-1"), Placement::Waiting));
    assert_eq!(h.answers(&format!("/answer {code} 1")).await, AnswerTaken::Unknown, "once");
}

#[tokio::test]
async fn a_late_answer_comes_in_time_or_not_at_all() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.asks(RUN).await;
    h.store.collect(RUN.parse().unwrap(), lane(), Ending::Finished, T).await.unwrap();
    let code = h.said("telegram:-1").await.remove(0);
    h.wakes("telegram:-2", "two").await;
    let line = format!("/answer {code} 1");
    let late = h.writes("telegram:-1", &line, Role::Command(Command::Answer)).await.seq;
    let until = T.plus(std::time::Duration::from_secs(60));
    assert_eq!(h.store.answer(late, until).await.unwrap(), AnswerTaken::Unknown);
}

#[tokio::test]
async fn a_question_finds_a_code_of_its_own_when_every_short_one_is_taken() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    let all_of_two_and_three = "
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 31),
             sign(s) AS (SELECT substr('ABCDEFGHJKLMNPQRSTUVWXYZ2345678', i, 1) FROM n),
             two(s) AS (SELECT a.s || b.s FROM sign a, sign b)
        INSERT INTO question(code, turn, request, chat, text, choices, state, asked_at, expires_at)
        SELECT s, 1, s, 'telegram:-1', '', '[]', 'pending', ?1, ?1 + 60000
        FROM (SELECT s FROM two UNION ALL SELECT two.s || sign.s FROM two, sign) WHERE true";
    let taken = h.store.write(|c| Ok(c.execute(all_of_two_and_three, [T.0])?)).await.unwrap();
    assert_eq!(taken, 31 * 31 + 31 * 31 * 31);
    h.asks(RUN).await;
    let code = h.said("telegram:-1").await.remove(0);
    assert_eq!(code.len(), 4, "{code}");
}

#[tokio::test]
async fn who_writes_while_the_box_still_waits_is_heard_before_the_answer() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.asks(RUN).await;
    assert_eq!(h.wakes("telegram:-1", "never mind").await, Placement::FollowUp(TurnId(1)));
    h.is_given(RUN).await;
    let told = h.told(RUN).await;
    assert!(told.len() == 1 && told[0].contains("pending"), "{told:?}");
}

#[tokio::test]
async fn who_writes_while_the_box_closes_for_its_question_is_heard_by_the_next() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    h.starts(RUN).await;
    h.is_given(RUN).await;
    h.asks(RUN).await;
    h.takes(2, 2, None, TakenEffect::Nothing).await;
    // The box has its `_close`: what comes now is in no letter.
    assert_eq!(h.wakes("telegram:-1", "never mind").await, Placement::FollowUp(TurnId(1)));
    let collected = h.store.collect(RUN.parse().unwrap(), lane(), Ending::Finished, T).await.unwrap();
    assert_eq!(collected, Collected::Next(TurnId(1), std::time::Duration::ZERO));
    assert_eq!(h.store.suspended().await.unwrap(), [], "it waits for nobody");
    h.starts(RUN2).await;
    let (texts, _) = h.is_given(RUN2).await.unwrap();
    assert_eq!(texts, ["one", "never mind"]);
}

#[tokio::test]
async fn a_chat_that_moves_to_another_group_takes_its_waiting_messages_along() {
    let mut h = house().await;
    h.wakes("telegram:-1", "one").await;
    assert_eq!(h.wakes("telegram:-2", "two").await, Placement::Waiting);
    let other: GroupName = "other".parse().unwrap();
    h.store.group(&other, T).await.unwrap();
    let admission = Admission {
        chat: chat("telegram:-2"),
        group: other.clone(),
        kind: ChatKind::Room,
        title: "Other".into(),
        by: "test".into(),
        now: T,
    };
    h.store.admit_chat(admission).await.unwrap();
    h.store.open_forgotten(T).await.unwrap();
    h.store.open_forgotten(T).await.unwrap();
    let open = h.store.open_turns().await.unwrap();
    let lanes: Vec<Lane> = open.into_iter().map(|turn| turn.lane).collect();
    assert_eq!(lanes, [lane(), Lane::conversation(other)]);
}
