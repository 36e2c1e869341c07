//! The outbox against a platform that remembers: whatever happens to each call, and wherever the host dies, what
//! stands on the platform is accounted for, in order, and nothing ends in silence.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::params;

use super::*;
use crate::domain::outbound::{Delivery, DeliveryStrategy, OutgoingText, Part, Voice};
use crate::domain::{ChatId, ChatKind, GroupName, MessageSeq, WallMs};
use crate::policy::delivery::{Abilities, SendOutcome, Terms};
use crate::policy::delivery_notices::HeldCommand;

const T: WallMs = WallMs(1_795_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const CHAT: &str = "telegram:-1";

/// What one call comes to: whether the platform obeys, and what the host learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Obeyed or not, and nobody says so.
    Cut(bool),
    /// Obeyed or not, and the host dies before it can write what it knows.
    Dies(bool),
    Busy,
    Refused,
    /// Somebody deletes the placeholder first.
    Deleted,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        4 => Just(Fate::Answered),
        2 => any::<bool>().prop_map(Fate::Cut),
        2 => any::<bool>().prop_map(Fate::Dies),
        1 => Just(Fate::Busy),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Deleted),
    ];
    prop::collection::vec(fate, 0..24)
}

/// What stands there: texts and placeholders (`None`), in the order in which they came.
#[derive(Debug, Default)]
struct Platform {
    messages: Vec<(String, Option<String>)>,
    ids: usize,
    keys: Vec<String>,
}

impl Platform {
    /// Obeys a call; the id it would answer with, or `None` where the message to edit is not there.
    fn obeys(&mut self, part: &Part) -> Option<String> {
        match (&part.placeholder, part.strategy) {
            (Some(id), DeliveryStrategy::Edit) => {
                let message = self.messages.iter_mut().find(|(known, _)| known == id)?;
                message.1 = Some(part.text.clone());
                Some(id.clone())
            }
            // It takes our id and drops what it has.
            (_, DeliveryStrategy::Keyed) if self.keys.contains(&part.idempotency_key) => Some("known".into()),
            (_, way) => {
                self.keys.push(part.idempotency_key.clone());
                self.ids += 1;
                let id = self.ids.to_string();
                self.messages.push((id.clone(), (way != DeliveryStrategy::Edit).then(|| part.text.clone())));
                Some(id)
            }
        }
    }

    fn copies(&self, text: &str) -> usize {
        self.messages.iter().filter(|(_, here)| here.as_deref() == Some(text)).count()
    }
}

async fn store(dir: &Path) -> Store {
    let store = Store::open(&dir.join("lazaret.db")).unwrap();
    let family: GroupName = "family".parse().unwrap();
    store.group(&family, T).await.unwrap();
    let (chat, kind) = (CHAT.parse().unwrap(), ChatKind::Room);
    let (title, by) = ("Family".into(), "test".into());
    store.admit_chat(Admission { chat, group: family, kind, title, by, now: T }).await.unwrap();
    store
}

/// A row at its end: text, state, uncertain copies, strays, whether a placeholder is still claimed.
type End = (String, String, usize, usize, bool);

async fn ends(store: &Store) -> Vec<End> {
    store
        .write(|c| {
            let sql =
                "SELECT text, state, uncertain, strays, placeholder IS NOT NULL FROM outbox ORDER BY id";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| {
                let number = |n: i64| usize::try_from(n).unwrap();
                Ok((r.get(0)?, r.get(1)?, number(r.get(2)?), number(r.get(3)?), r.get(4)?))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
        .unwrap()
}

/// One call and what becomes of it. `false` when there is nothing left to do.
async fn one_call(store: &Store, terms: Terms, platform: &mut Platform, fate: Fate, now: WallMs) -> bool {
    let chat: ChatId = CHAT.parse().unwrap();
    let part = match store.claim(chat, terms, now).await.unwrap() {
        NextPart::Part(part) => *part,
        NextPart::Expired(_) | NextPart::NotBefore(_) => return true,
        NextPart::Empty => return false,
    };
    let place = part.strategy == DeliveryStrategy::Edit && part.placeholder.is_none();
    let why = String::new;
    let happened = match fate {
        Fate::Cut(obeyed) | Fate::Dies(obeyed) => {
            if obeyed {
                platform.obeys(&part);
            }
            if let Fate::Dies(_) = fate {
                store.recover_sending(now).await.unwrap();
                return true;
            }
            SendOutcome::Cut { why: why() }
        }
        Fate::Busy => SendOutcome::NotArrived { why: why(), after: None },
        Fate::Refused => SendOutcome::Refused { why: why() },
        Fate::Deleted | Fate::Answered => {
            if fate == Fate::Deleted {
                let gone = |(id, text): &(String, Option<String>)| {
                    text.is_none() && Some(id) == part.placeholder.as_ref()
                };
                platform.messages.retain(|message| !gone(message));
            }
            match platform.obeys(&part) {
                Some(id) if place => SendOutcome::Claimed(id),
                Some(id) => SendOutcome::Arrived(id),
                None => SendOutcome::Lost { why: why(), stands: false },
            }
        }
    };
    store.settle(part, happened, DAY, now).await.unwrap();
    true
}

/// A person answers what is held: every other question with `/drop`.
async fn answers(store: &Store, now: WallMs) {
    for (n, held) in store.summary().await.unwrap().delivery.held.into_iter().enumerate() {
        let (word, order) =
            if n % 2 == 0 { (HeldCommand::Resend, "resend") } else { (HeldCommand::Drop, "drop") };
        let text = format!("/{order} {}", held.code);
        let seq: i64 = store
            .write(move |c| {
                let sql = "INSERT INTO message(chat, message_id, version, role, state, sender, sender_name, owner, text,
                                               attachments, sent_at, stored_at)
                           SELECT ?1, count(*), 0, 'command', 'waiting', 's', 's', 0, ?2, '[]', 0, 0 FROM message";
                c.execute(sql, params![CHAT, text])?;
                Ok(c.last_insert_rowid())
            })
            .await
            .unwrap();
        let (group, chat) = ("family".parse().unwrap(), CHAT.parse().unwrap());
        store.resolve_held(MessageSeq(seq.unsigned_abs()), group, chat, word, now).await.unwrap();
    }
}

async fn story(delivery: Delivery, own_id: bool, fates: Vec<Fate>) -> std::result::Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let abilities = Abilities { own_id, edits: true };
    let terms = Terms { delivery, abilities, lifetime: DAY, retry: DAY };
    let replies = [&["a"][..], &["b1", "b2", "b3"], &["c"]];
    for (n, parts) in replies.iter().enumerate() {
        let parts = parts.iter().map(|p| (*p).to_owned().into()).collect();
        let outgoing = OutgoingText {
            chat: CHAT.parse().unwrap(),
            voice: Voice::Reply,
            key: n.to_string(),
            parts,
            answers: None,
            choices: None,
        };
        store.say(None, outgoing, T).await.unwrap();
    }
    let mut platform = Platform::default();
    let mut now = T;
    for fate in fates {
        // Long enough for every wait; a person answers now and then.
        now = now.plus(Duration::from_secs(600));
        one_call(&store, terms, &mut platform, fate, now).await;
        answers(&store, now).await;
    }
    for _ in 0..200 {
        now = now.plus(Duration::from_secs(60));
        if !one_call(&store, terms, &mut platform, Fate::Answered, now).await {
            answers(&store, now).await;
        }
    }

    let rows = ends(&store).await;
    let mut notices = 0;
    for (text, state, ..) in &rows {
        // Two replies that failed for one reason leave the same words.
        let same: Vec<&End> = rows.iter().filter(|row| row.0 == *text).collect();
        let uncertain: usize = same.iter().map(|row| row.2).sum();
        let copies = platform.copies(text);
        prop_assert!(["sent", "failed", "expired"].contains(&state.as_str()), "{text} is {state}");
        prop_assert!(
            copies <= same.len() + uncertain,
            "{copies} of {text}, {uncertain} uncertain: {platform:?}"
        );
        prop_assert!(state != "sent" || copies >= 1, "{text} is said to be sent");
        let once = own_id || delivery == Delivery::Edit;
        prop_assert!(!once || (copies <= same.len() && uncertain == 0), "{text} stands {copies} times");
        notices += usize::from(text.contains("delivered"));
    }
    let gave_up = rows
        .iter()
        .any(|(text, state, ..)| state == "failed" && !text.contains(' ') && platform.copies(text) == 0);
    prop_assert!(!gave_up || delivery == Delivery::Hold || notices > 0, "silence: {rows:?}");
    let empty = platform.messages.iter().filter(|(_, text)| text.is_none()).count();
    let allowed: usize = rows
        .iter()
        .map(|(_, state, _, strays, claimed)| strays + usize::from(*claimed && state != "sent"))
        .sum();
    prop_assert!(empty <= allowed, "{empty} placeholders, {allowed} accounted for");
    // The first copies stand in the order in which they were said; what was held is where a person put it.
    if delivery != Delivery::Hold || own_id {
        let at = |text: &str| platform.messages.iter().position(|(_, here)| here.as_deref() == Some(text));
        let order: Vec<usize> = ["a", "b1", "b2", "b3", "c"].iter().filter_map(|text| at(text)).collect();
        prop_assert!(order.is_sorted(), "{platform:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_stands_on_the_platform_is_accounted_for(
        delivery in prop_oneof![Just(Delivery::Resend), Just(Delivery::Edit), Just(Delivery::Hold)],
        own_id in prop::bool::weighted(0.2),
        fates in fates(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(story(delivery, own_id, fates))?;
    }
}
