//! A device made of keys alone writes to phones: what they show, and what they find wrong.

use wacore::libsignal::protocol::{IdentityKey, PreKeyBundle};

use super::*;
use crate::account::{Device, SignedPrekey};
use crate::directory::signed_identity;
use crate::letters::{self, Quote};
use crate::signal::Keys;
use crate::{Chat, Person, WhatsAppServer};

/// A linked device without a connection, and a person.
struct Desk {
    server: WhatsAppServer,
    laz: Keys,
    ann: Person,
    chat: Chat,
    proof: Vec<u8>,
}

fn ann() -> Author {
    Author::Person { index: 0, device: PRIMARY }
}

fn raw(key: &IdentityKey) -> [u8; 32] {
    let [_kind, key @ ..] = key.serialize();
    key
}

impl Desk {
    async fn new() -> Self {
        let server = WhatsAppServer::start().await;
        let mut laz = Keys::default();
        let account = server.shared.state().account.identity.clone().into();
        let proof = signed_identity(&account, laz.identity()).unwrap_or_default();
        let Ok(Some(device)) = laz.bundle().map(|bundle| device(&bundle, &proof)) else {
            panic!("no bundle")
        };
        server.shared.state().device = Some(device);
        let ann = server.person(491_511_234_567, "Ann");
        let chat = ann.direct();
        Self { server, laz, ann, chat, proof }
    }

    /// The device encrypts for Ann's phone.
    fn seals(&mut self, message: &wa::Message) -> Node {
        let mut state = self.server.shared.state();
        let Some((keys, _)) = state.keys(ann()) else { panic!("Ann has a phone") };
        let identity = *keys.identity().identity_key();
        if !self.laz.knows(&identity) {
            let met = keys.bundle().and_then(|bundle| self.laz.meets(&bundle));
            assert!(met.is_ok());
        }
        let Ok(sealed) = self.laz.seals(&identity, message) else { panic!("not sealed") };
        NodeBuilder::new("enc").attr("v", "2").attr("type", sealed.kind).bytes(sealed.bytes).build()
    }

    fn stanza(&self, to: &Jid, id: &str, at: &Jid, enc: Node) -> NodeBuilder {
        let one = NodeBuilder::new("to").attr("jid", at).children([enc]).build();
        let all = NodeBuilder::new("participants").children([one]).build();
        let proof = NodeBuilder::new("device-identity").bytes(self.proof.clone()).build();
        NodeBuilder::new("message").attr("to", to).attr("id", id).attr("type", "text").children([all, proof])
    }

    /// Sends a message to Ann. Returns the error code of a refusal.
    fn sends(&mut self, id: &str, message: &wa::Message) -> Option<u16> {
        let enc = self.seals(message);
        let to = Jid::pn(self.ann.number().to_string());
        self.takes(&self.stanza(&to, id, &to, enc).build())
    }

    fn takes(&self, stanza: &Node) -> Option<u16> {
        match takes_message(&self.server.shared, stanza) {
            Verdict::Accepted(_) => None,
            Verdict::Refused(code) => Some(code),
        }
    }

    /// Returns what the phones found wrong, and forgets it.
    fn wrong(&self) -> Vec<String> {
        std::mem::take(&mut self.server.shared.state().violations)
    }
}

fn device(bundle: &PreKeyBundle, proof: &[u8]) -> Option<Device> {
    let signature = bundle.signed_pre_key_signature().ok()?.try_into().ok()?;
    let key = bundle.signed_pre_key_public().ok()?.public_key_bytes().try_into().ok()?;
    Some(Device {
        index: 1,
        noise: [0; 32],
        identity: raw(bundle.identity_key().ok()?),
        registration_id: bundle.registration_id().ok()?,
        signed_prekey: SignedPrekey { id: bundle.signed_pre_key_id().ok()?.into(), key, signature },
        prekeys: Vec::new().into(),
        signed_identity: proof.to_vec(),
        has_logged_in: true,
    })
}

#[tokio::test]
async fn a_message_that_comes_again_is_shown_once() {
    let mut desk = Desk::new().await;
    for _ in 0..3 {
        assert_eq!(desk.sends("A1", &letters::text("*hello*", None, &[])), None);
    }
    assert_eq!(desk.sends("A2", &letters::text("bye", None, &[])), None);
    assert_eq!((desk.chat.hears().await, desk.chat.hears().await), ("hello".to_owned(), "bye".to_owned()));
    assert_eq!(desk.chat.messages().iter().map(|m| m.copies).collect::<Vec<_>>(), [3, 1]);
    assert!(desk.chat.unheard().is_empty() && desk.wrong().is_empty());
}

#[tokio::test]
async fn a_first_message_proves_whose_device_it_is() {
    let mut desk = Desk::new().await;
    desk.proof = b"forged".to_vec();
    assert_eq!(desk.sends("A1", &letters::text("hello", None, &[])), None);
    assert_eq!(desk.wrong().len(), 1);
}

#[tokio::test]
async fn a_stanza_that_whatsapp_would_not_take_is_refused() {
    let mut desk = Desk::new().await;
    let enc = desk.seals(&letters::text("hello", None, &[]));
    let (pn, lid) = (Jid::pn(desk.ann.number().to_string()), Jid::lid(desk.ann.lid().to_string()));
    let nobody = Jid::pn("4999");
    assert_eq!(desk.takes(&desk.stanza(&nobody, "A1", &nobody, enc.clone()).build()), Some(404));
    assert_eq!(desk.takes(&desk.stanza(&pn, "A2", &lid, enc.clone()).build()), Some(400));
    assert_eq!(desk.wrong().len(), 1);
    let room = desk.server.room(7, "Family", &[&desk.ann]).names_by_lid();
    let in_room = |mode: &str| {
        let stanza = desk.stanza(&room.place.jid(), "A3", &lid, enc.clone());
        desk.takes(&stanza.attr("addressing_mode", mode.to_owned()).build())
    };
    assert_eq!(in_room("pn"), Some(421));
    room.kicks_device();
    assert_eq!(in_room("lid"), Some(403));
    assert!(desk.chat.messages().is_empty());
}

#[tokio::test]
async fn what_a_message_says_of_another_one_must_be_true() {
    let mut desk = Desk::new().await;
    let id = desk.ann.says(&desk.chat, "how far is it?");
    let account = desk.server.shared.state().account.jid.clone();
    let pn = Jid::pn(desk.ann.number().to_string());
    let quote = |id: &str, author: &Jid| {
        let quote = Quote { id: id.to_owned(), author: author.clone(), text: "how far is it?".to_owned() };
        letters::text("ten miles", Some(quote), &[])
    };
    let react = |id: &str, chat: &Jid, from_me| {
        let key = wa::MessageKey {
            remote_jid: Some(chat.to_string()),
            from_me: Some(from_me),
            id: Some(id.to_owned()),
            participant: None,
        };
        letters::reaction(key, "👍")
    };
    for (at, (message, is_right)) in [
        (quote(&id, &pn), true),
        (quote(&id, &account), false),
        (quote("3A0", &pn), false),
        (react(&id, &pn, false), true),
        (react(&id, &account, false), false),
        (react(&id, &pn, true), false),
        (react("3A0", &pn, false), false),
        (letters::text("", None, &[]), false),
        (letters::text(&"x".repeat(LONGEST + 1), None, &[]), false),
        (letters::unknown_kind(), false),
    ]
    .into_iter()
    .enumerate()
    {
        desk.sends(&format!("A{at}"), &message);
        assert_eq!(desk.wrong().is_empty(), is_right, "message {at}");
    }
    assert_eq!(desk.chat.reactions(&id), ["👍"]);
}

#[tokio::test]
async fn a_phone_asks_again_with_its_keys_and_then_gives_up() {
    let mut desk = Desk::new().await;
    let pn = Jid::pn(desk.ann.number().to_string());
    let mut asked = Vec::new();
    for _ in 0..6 {
        let mut state = desk.server.shared.state();
        asked.extend(asks_again(&mut state, ann(), &pn, None, "A1"));
    }
    let has_keys: Vec<bool> =
        asked.iter().map(|receipt| receipt.get_optional_child("keys").is_some()).collect();
    assert_eq!(has_keys, [false, true, true, true]);
    // Nobody can decrypt it, so nobody shows it.
    let enc = NodeBuilder::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x33; 40]).build();
    assert_eq!(desk.takes(&desk.stanza(&pn, "A2", &pn, enc).build()), None);
    assert!(desk.chat.messages().is_empty());
    assert_eq!(desk.sends("A3", &letters::text("and now?", None, &[])), None);
    assert_eq!(desk.chat.shows(), ["and now?"]);
}
