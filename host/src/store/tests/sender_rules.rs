//! What the rules of a group and of admission leave of a message.

use super::*;
use crate::domain::message::NameOf;

impl House {
    fn of(&mut self, sender: &str, text: &str, role: Role, rules: SenderRules) -> Admitted {
        let mut message = self.message("telegram:-1", text, role);
        message.inbound.sender.id = sender.parse().unwrap();
        message.inbound.sender.name = sender.to_owned();
        Admitted { rules, ..message }
    }

    /// Opens a turn for a message and ends it.
    async fn has_turn(&mut self, message: Admitted, now: WallMs) -> Placement {
        let mut placed = self.store.accept(Intake { now, ..intake(vec![message]) }).await.unwrap();
        self.store.end_turn(lane(), InterruptWhy::Stop, None, now).await.unwrap();
        placed.remove(0).placement
    }

    fn notices(&self) -> Vec<String> {
        let c = rusqlite::Connection::open(self._dir.path().join("lazaret.db")).unwrap();
        let sql = "SELECT text FROM outbox WHERE key LIKE 'notice:turns:%' OR key LIKE 'notice:may-not:%' ORDER BY id";
        let mut rows = c.prepare(sql).unwrap();
        rows.query_map([], |r| r.get(0)).unwrap().map(|row| row.unwrap()).collect()
    }
}

const HOUR: i64 = 3_600_000;
/// The beginning of an hour.
const START: WallMs = WallMs(1_000 * HOUR);

fn rate(of_sender: u32, of_chat: u32) -> SenderRules {
    SenderRules { rate: TurnRate { of_sender, of_chat }, may_stop: MayStop::Served }
}

#[tokio::test]
async fn turns_of_a_person_and_of_a_chat_have_a_limit_over_a_restart() {
    let mut h = house().await;
    let rules = rate(2, 3);
    for n in 0..2 {
        let message = h.of("telegram:5", "go", Role::Wake, rules);
        assert!(matches!(
            h.has_turn(message, START.plus(Duration::from_secs(n))).await,
            Placement::NewTurn(_)
        ));
    }
    let minute = START.plus(Duration::from_secs(60));
    for _ in 0..3 {
        let third = h.of("telegram:5", "go on", Role::Wake, rules);
        assert_eq!(h.has_turn(third, minute).await, Placement::Context);
    }
    assert_eq!(h.notices().len(), 1, "the person is told once: {:?}", h.notices());
    h.store = Store::open(&h._dir.path().join("lazaret.db")).unwrap();
    let third = h.of("telegram:5", "after a restart", Role::Wake, rules);
    assert_eq!(h.has_turn(third, minute).await, Placement::Context);
    let owner = Admitted { owner: true, ..h.of("telegram:5", "mine", Role::Wake, rules) };
    assert!(matches!(h.has_turn(owner, minute).await, Placement::NewTurn(_)), "owners are not limited");
    let other = h.of("telegram:6", "me", Role::Wake, rules);
    assert_eq!(h.has_turn(other, minute).await, Placement::Context, "three turns are all that the chat has");
    let told = h.notices();
    assert!(told.len() == 2 && told[0].contains("2 turns") && told[1].contains("3 turns"), "{told:?}");
    // What was not answered since the owner's turn is context of the next one, which a later hour has.
    let later = h.of("telegram:6", "now?", Role::Wake, rules);
    let later_at = START.plus(Duration::from_secs(3 * 3600));
    h.store.accept(Intake { now: later_at, ..intake(vec![later]) }).await.unwrap();
    h.starts("0198a000-0000-7000-8000-000000000001").await;
    let (texts, _) = h.is_given("0198a000-0000-7000-8000-000000000001").await.unwrap();
    assert_eq!(texts, ["me", "now?"]);
}

#[tokio::test]
async fn a_follow_up_is_no_turn_of_its_own() {
    let mut h = house().await;
    let rules = rate(2, 3);
    let messages: Vec<_> = (0..50).map(|n| h.of("telegram:5", &n.to_string(), Role::Wake, rules)).collect();
    let placed = h.take_in(messages).await;
    assert!(placed[1..].iter().all(|one| matches!(one.placement, Placement::FollowUp(_))), "{placed:?}");
}

#[tokio::test]
async fn in_a_room_only_whom_the_agent_serves_and_owners_end_its_work() {
    let mut h = house().await;
    let rules = rate(0, 0);
    let begins = h.of("telegram:5", "work", Role::Wake, rules);
    let joins = h.of("telegram:6", "more", Role::Wake, rules);
    h.take_in(vec![begins, joins]).await;
    for (sender, owner, command, expected) in [
        ("telegram:6", false, Command::Stop, false),
        ("telegram:7", false, Command::New, false),
        ("telegram:5", false, Command::Stop, true),
        ("telegram:7", true, Command::Stop, true),
    ] {
        let order = h.of(sender, command.word(), Role::Command(command), rules);
        let placed = h.take_in(vec![Admitted { owner, ..order }]).await.remove(0).placement;
        assert_eq!(placed == Placement::Command(command), expected, "{sender} {command:?}");
    }
    assert_eq!(h.notices().len(), 2, "once for each command");
    // The words after a `/new` that is refused begin nothing either.
    let order = h.of("telegram:7", "/new paint it", Role::Command(Command::New), rules);
    let mut words = h.of("telegram:7", "paint it", Role::First, rules);
    words.inbound.message_id = format!("{}:first", order.inbound.message_id);
    let placed = h.take_in(vec![order, words]).await;
    assert!(placed.iter().all(|one| one.placement == Placement::Context), "{placed:?}");
}

#[tokio::test]
async fn g11_a_flood_of_strangers_costs_the_owner_no_code() {
    let h = house().await;
    let owners = vec!["telegram:1".parse().unwrap()];
    let stranger = |n: i64| {
        let (id, owner) = (format!("telegram:{n}"), n == 1);
        StrangerSeen {
            chat: chat(&id),
            kind: ChatKind::Direct,
            title: "x".into(),
            sender: id.parse().unwrap(),
            sender_name: "x".into(),
            owner,
            code: format!("CODE{n}"),
            kept: None,
            asks: vec![],
        }
    };
    for n in std::iter::once(500).chain([1]).chain(1_000..1_500) {
        let (owners, now) = (owners.clone(), WallMs(n));
        h.store.accept(Intake { strangers: vec![stranger(n)], owners, now, ..intake(vec![]) }).await.unwrap();
    }
    let codes: Vec<String> = h.store.strangers().await.unwrap().into_iter().map(|s| s.code).collect();
    assert_eq!(codes.len(), 64);
    assert!(codes.contains(&"CODE1".into()) && codes.contains(&"CODE500".into()), "{codes:?}");
    let numbers = h.store.summary().await.unwrap().numbers;
    assert!(numbers.contains(&("strangers_without_code".into(), 438)), "{numbers:?}");
}

#[tokio::test]
async fn g11_a_name_belongs_to_who_had_it_first_and_an_owners_to_the_owner() {
    let mut h = house().await;
    let run = "0198a000-0000-7000-8000-000000000001";
    h.starts(run).await;
    let named = |h: &mut House, id: &str, name: &str, owner: bool| {
        let mut message = h.of(id, "hi", Role::Wake, SenderRules::default());
        message.inbound.sender.name = name.into();
        Admitted { owner, ..message }
    };
    let mut written = vec![
        named(&mut h, "telegram:5", "Bob", false),
        named(&mut h, "telegram:6", "\u{1d401}ob", false),
        named(&mut h, "telegram:5", "Bob", false),
        named(&mut h, "telegram:7", "Ann", false),
        named(&mut h, "telegram:1", "Ann", true),
        named(&mut h, "telegram:7", "ANN", false),
    ];
    let quotes = |from: &str, message: &str| {
        let (from, message) = (from.to_owned(), Some(message.to_owned()));
        Some(crate::domain::message::ReplyTo { from, text: "x".into(), message })
    };
    written[0].inbound.reply_to = quotes("Ann", "999");
    written[2].inbound.reply_to = quotes("Bob", &written[1].inbound.message_id);
    written[3].inbound.reply_to = quotes("Bob", &written[2].inbound.message_id);
    h.take_in(written).await;
    let (told, names) = std::sync::mpsc::channel();
    let context = crate::domain::limits::ContextLimits { messages: 2, tokens: 1000 };
    let limits = InputLimits { context, turn_tokens: 1_000_000 };
    let build = move |_, state: InputState| {
        told.send(state.messages.iter().map(|m| (m.name, m.quoted_name)).collect::<Vec<_>>()).unwrap();
        Ok(vec![])
    };
    h.store.compose_input(run.parse().unwrap(), lane(), limits, FileWait::Whole, T, build).await.unwrap();
    let (own, another) = (NameOf::Own, NameOf::Another);
    let expected =
        [(own, NameOf::Unknown), (another, own), (own, another), (another, own), (own, own), (another, own)];
    assert_eq!(names.recv().unwrap(), expected);
}
