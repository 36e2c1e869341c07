//! Bad input on WhatsApp, and links that break. In each journey the host and the other channel go on. They run on the
//! engine stand-in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use journeys::model::Gate;
use journeys::telegram;
use journeys::world::{Engine, World};
use whatsapp_server::{Chat, Document, Person};

/// An install on two platforms: Ann is the owner and writes on Telegram to the group `main`; Bob writes on WhatsApp to
/// the group `bob`.
struct Both {
    world: World,
    ann: telegram::Person,
    anns: telegram::Chat,
    bob: Person,
    bobs: Chat,
}

const BOB: u64 = 491_517_654_321;

impl Both {
    async fn at_home() -> Self {
        let mut world = World::on(Engine::stand_in().await).await.with_whatsapp().await.with_telegram();
        let ann = world.telegram.person(5, "Ann");
        let anns = ann.direct();
        let bob = world.whatsapp().person(BOB, "Bob");
        let bobs = bob.direct();
        world.up().await;
        ann.says(&anns, "hello?");
        world.admit(&anns.address(), "main").await;
        bob.says(&bobs, "hello?");
        world.admit(&bobs.address(), "bob").await;
        Self { world, ann, anns, bob, bobs }
    }

    /// Bob asks on WhatsApp and hears the agent's reply next.
    async fn bob_is_answered(&self, question: &str) {
        self.answered(&self.bobs, question).await;
    }

    async fn answered(&self, chat: &Chat, question: &str) {
        let reply = format!("To {question:?}: yes.");
        self.world.model.on(question).says(&reply);
        if chat.address().ends_with("@g.us") {
            self.bob.mentions_device(chat, question);
        } else {
            self.bob.says(chat, question);
        }
        assert_eq!(self.heard(chat).await, reply);
    }

    async fn heard(&self, chat: &Chat) -> String {
        self.world.soon(&format!("{} hears something", chat.address()), chat.hears()).await
    }

    /// Waits until Ann is told something on Telegram that contains these words.
    async fn ann_is_told(&self, words: &str) -> String {
        self.world.soon(&format!("Ann is told {words:?}"), self.anns.comes_to_show(words)).await.text
    }

    /// Bob and Ann are still answered, and nobody hears more than that.
    async fn goes_on(mut self) {
        self.bob_is_answered("are you there on WhatsApp").await;
        while !self.anns.unheard().is_empty() {
            self.world.hears(&self.anns).await;
        }
        self.world.model.on("are you there on Telegram").says("Here too.");
        self.ann.says(&self.anns, "are you there on Telegram?");
        assert_eq!(self.world.hears(&self.anns).await, "Here too.");
        assert!(self.bobs.unheard().is_empty(), "{:?}", self.bobs.unheard());
        assert!(self.world.is_up(), "{}", self.world.log());
        self.world.finish().await;
    }

    /// Waits until the host has counted an event under this name.
    async fn counted(&self, name: &str) {
        let counted = async || self.world.lazaret(&["status"]).await.contains(name).then_some(());
        self.world.patiently(&format!("{name} is counted"), counted).await;
    }

    async fn with_room(&self) -> Chat {
        let room = self.world.whatsapp().room(120_363_001, "Family", &[&self.bob]);
        self.bob.says(&room, "who is this?");
        self.world.admit(&room.address(), "family").await;
        room
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_decrypted_costs_only_itself() {
    let both = Both::at_home().await;
    both.bob.sends_undecryptable(&both.bobs);
    both.counted("whatsapp.undecryptable").await;
    both.goes_on().await;
}

#[tokio::test]
async fn a_kind_that_nobody_knows_is_named_and_ends_nothing() {
    let both = Both::at_home().await;
    both.world.model.on("cannot read").says("I could not read that.");
    both.bob.sends_unknown_kind(&both.bobs);
    assert_eq!(both.heard(&both.bobs).await, "I could not read that.");
    both.goes_on().await;
}

#[tokio::test]
async fn an_edit_and_a_deletion_of_a_message_that_nobody_had_do_no_harm() {
    let both = Both::at_home().await;
    both.bob.edits(&both.bobs, "3EB0000000000000000000", "what was never said");
    both.bob.deletes(&both.bobs, "3EB0000000000000000001");
    both.bob_is_answered("and now").await;
    both.goes_on().await;
}

#[tokio::test]
async fn a_deleted_message_is_marked_for_the_agent() {
    let both = Both::at_home().await;
    let room = both.with_room().await;
    let gone = both.bob.says(&room, "the code is 1234");
    both.bob.deletes(&room, &gone);
    both.answered(&room, "what was the code").await;
    let asked = both.world.model.last_request_text();
    assert!(!asked.contains("1234") && asked.contains("deleted"), "{asked}");
    both.goes_on().await;
}

#[tokio::test]
async fn an_account_that_leaves_a_room_says_so_and_comes_back() {
    let both = Both::at_home().await;
    let room = both.with_room().await;
    both.answered(&room, "are you in").await;
    room.kicks_device();
    let told = both.ann_is_told("cannot be delivered").await;
    assert!(told.contains(&room.address()), "{told}");
    assert!(both.world.lazaret(&["status"]).await.contains("cut off"));
    room.adds_device();
    both.answered(&room, "are you in again").await;
    assert!(!both.world.lazaret(&["status"]).await.contains("cut off"));
    both.goes_on().await;
}

#[tokio::test]
async fn a_person_who_changes_the_number_keeps_the_chat() {
    let both = Both::at_home().await;
    both.bob_is_answered("before").await;
    both.bob.changes_number(491_700_000_001);
    let moved = async || both.world.log().contains("chat.moved").then_some(());
    both.world.patiently("the host knows the new number", moved).await;
    let bobs = both.bob.direct();
    assert_eq!(bobs.address(), "whatsapp:491700000001");
    both.answered(&bobs, "after").await;
    let transcript = both.world.model.requests().pop().map(|r| r.body.to_string()).unwrap_or_default();
    assert!(transcript.contains("before"), "the session goes on: {transcript}");
    Both { bobs, ..both }.goes_on().await;
}

/// One person is one chat, whether WhatsApp names the phone number, the LID or another device.
#[tokio::test]
async fn a_person_is_the_same_under_every_name() {
    let both = Both::at_home().await;
    both.bob.by_lid_only(true);
    both.bob_is_answered("by LID").await;
    both.bob.by_lid_only(false);
    let tablet = both.bob.from_device(2);
    both.world.model.on("from my tablet").says("On every device.");
    tablet.says(&both.bobs, "from my tablet");
    assert_eq!(both.heard(&both.bobs).await, "On every device.");
    let senders = "SELECT count(DISTINCT sender) FROM message WHERE chat LIKE 'whatsapp:%'";
    let senders: i64 = both.world.database().query_row(senders, [], |r| r.get(0)).unwrap();
    assert_eq!(senders, 1);
    both.goes_on().await;
}

#[tokio::test]
async fn a_video_of_90_mb_is_named_and_not_fetched() {
    let both = Both::at_home().await;
    both.world.model.on("look at this").says("It is too big for me.");
    let video = Document {
        bytes: vec![7; 1000],
        claims: Some(90 << 20),
        name: "holiday.mp4".into(),
        mime: "video/mp4".into(),
    };
    both.bob.films(&both.bobs, &video, "look at this");
    assert_eq!(both.heard(&both.bobs).await, "It is too big for me.");
    let asked = both.world.model.last_request_text();
    assert!(asked.contains("not stored: "), "{asked}");
    assert_eq!(both.world.whatsapp().downloads(), 0);
    both.goes_on().await;
}

#[tokio::test]
async fn a_clock_that_is_wrong_ends_no_turn() {
    let both = Both::at_home().await;
    for (n, clock) in [0, 1, 4_102_444_800, u64::MAX].into_iter().enumerate() {
        let question = format!("what time is it by clock {n}");
        both.world.model.on(&question).says(&format!("Time {n}."));
        both.bob.says_with_clock(&both.bobs, &question, clock);
        assert_eq!(both.heard(&both.bobs).await, format!("Time {n}."));
    }
    both.goes_on().await;
}

#[tokio::test]
async fn a_server_that_refuses_every_send_is_told_to_the_owner() {
    let both = Both::at_home().await;
    both.world.whatsapp().refuses_sends(Some(403));
    both.world.model.on("anybody there").says("Nobody hears this.");
    both.bob.says(&both.bobs, "anybody there?");
    let told = both.ann_is_told("cannot be delivered").await;
    assert!(told.contains(&both.bobs.address()), "{told}");
    both.world.whatsapp().refuses_sends(None);
    both.goes_on().await;
}

#[tokio::test]
async fn a_stream_error_each_minute_loses_and_doubles_nothing() {
    let both = Both::at_home().await;
    for (n, code) in [500, 503, 515, 500].into_iter().enumerate() {
        let (before, gate) = (both.world.whatsapp().connections(), Gate::new());
        let question = format!("question {n}");
        both.world.model.on(&question).waits_for(&gate).says(&format!("Answer {n}."));
        both.bob.says(&both.bobs, &question);
        both.world.soon("the agent works", gate.arrived()).await;
        assert!(both.world.whatsapp().stream_error(code), "the device is there");
        gate.open();
        assert_eq!(both.heard(&both.bobs).await, format!("Answer {n}."));
        assert!(both.world.whatsapp().connections() > before, "{code}: the host has connected again");
    }
    both.goes_on().await;
}

/// What the account's own phone writes, status broadcasts, newsletters and the history of other days wake nobody.
#[tokio::test]
async fn what_is_not_for_the_agent_is_ignored() {
    let both = Both::at_home().await;
    let phone = both.world.whatsapp().phone();
    phone.writes(&both.bobs, "I write this myself");
    both.bob.posts_status("my holiday");
    phone.reads_newsletter("news of the day");
    phone.syncs_history();
    both.bob_is_answered("and now").await;
    let asked = both.world.model.requests().iter().map(|r| r.body.to_string()).collect::<String>();
    for words in ["I write this myself", "my holiday", "news of the day"] {
        assert!(!asked.contains(words), "{words}");
    }
    assert_eq!(both.world.model.requests_so_far(), 1);
    both.goes_on().await;
}

/// The acknowledgement of a message gets lost. The host sends the message again under its id, and the phone shows it
/// once.
#[tokio::test]
async fn a_lost_acknowledgement_is_no_second_message() {
    let both = Both::at_home().await;
    let troubles = |lost_acks| whatsapp_server::Troubles {
        lost_acks,
        refused: 0.0,
        cut: 0.0,
        chance: fastrand::Rng::with_seed(1),
    };
    both.world.whatsapp().troubles(Some(troubles(1.0)));
    both.world.model.on("say it").says("Once.");
    both.bob.says(&both.bobs, "say it");
    assert_eq!(both.heard(&both.bobs).await, "Once.");
    both.world.whatsapp().troubles(None);
    both.world.settled("m-1").await;
    let shown = both.bobs.messages();
    let once = shown.iter().filter(|m| m.text == "Once.").collect::<Vec<_>>();
    assert!(once.len() == 1 && once[0].copies > 1, "it came again: {once:?}");
    let uncertain: i64 =
        both.world.database().query_row("SELECT sum(uncertain) FROM outbox", [], |r| r.get(0)).unwrap();
    assert_eq!(uncertain, 0);
    both.goes_on().await;
}

/// The platform has the message, and the host dies before it has the acknowledgement.
#[tokio::test]
async fn a_host_that_is_killed_between_send_and_acknowledgement_says_it_once() {
    let mut both = Both::at_home().await;
    let chance = fastrand::Rng::with_seed(1);
    let troubles = whatsapp_server::Troubles { lost_acks: 1.0, refused: 0.0, cut: 0.0, chance };
    both.world.whatsapp().troubles(Some(troubles));
    both.world.model.on("say it").says("Once.");
    both.bob.says(&both.bobs, "say it");
    assert_eq!(both.heard(&both.bobs).await, "Once.");
    both.world.kill_host().await;
    both.world.whatsapp().troubles(None);
    both.world.up().await;
    both.world.settled("m-1").await;
    assert_eq!(both.bobs.shows().iter().filter(|text| *text == "Once.").count(), 1);
    both.goes_on().await;
}

/// The phone removes this device while a turn runs. The owner is told on Telegram which command links again, and the
/// reply goes out once that is done.
#[tokio::test]
async fn a_device_that_is_logged_out_in_mid_turn_is_told_on_the_other_channel() {
    let both = Both::at_home().await;
    let gate = Gate::new();
    both.world.model.on("a long job").waits_for(&gate).says("The job is done.");
    both.bob.says(&both.bobs, "a long job, please");
    both.world.soon("the agent works", gate.arrived()).await;
    both.world.whatsapp().logs_out();
    let told = both.ann_is_told("lazaret link whatsapp").await;
    assert!(told.starts_with("[lazaret] "), "{told}");
    gate.open();
    both.world.model.on("are you well").says("Quite well.");
    both.ann.says(&both.anns, "are you well?");
    both.world.soon("Ann is answered", both.anns.comes_to_show("Quite well.")).await;
    assert!(both.bobs.unheard().is_empty());

    both.world.links_whatsapp().await;
    assert_eq!(both.heard(&both.bobs).await, "The job is done.");
    both.goes_on().await;
}

#[tokio::test]
async fn a_banned_account_is_told_on_the_other_channel() {
    let both = Both::at_home().await;
    both.world.whatsapp().bans(3600);
    both.ann_is_told("banned").await;
    both.world.model.on("are you well").says("Quite well.");
    both.ann.says(&both.anns, "are you well?");
    both.world.soon("Ann is answered", both.anns.comes_to_show("Quite well.")).await;
    both.world.finish().await;
}

/// The file with the keys is damaged: the channel refuses it, and names the command that links again.
#[tokio::test]
async fn a_damaged_credentials_file_is_refused_with_the_command_that_links_again() {
    let mut both = Both::at_home().await;
    both.world.stop_host().await;
    let folder = both.world.root().join("state/channels/whatsapp");
    let mut damaged = 0;
    for file in std::fs::read_dir(&folder).unwrap().flatten() {
        if file.file_name().to_string_lossy().contains(".db") {
            std::fs::write(file.path(), vec![0x55; 8192]).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "no credentials in {}", folder.display());
    both.world.up().await;
    let told = both.ann_is_told("lazaret link whatsapp").await;
    assert!(told.starts_with("[lazaret] "), "{told}");
    let status = both.world.lazaret(&["status"]).await;
    assert!(status.contains("lazaret link whatsapp"), "{status}");
    both.world.links_whatsapp().await;
    both.goes_on().await;
}
