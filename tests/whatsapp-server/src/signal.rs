//! The Signal state of one phone: what it needs to write to the account's devices and to read what they write.
//!
//! Nothing here waits: the stores are in memory, so each future of the Signal library is ready at once.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use futures_util::FutureExt;
use rand::rngs::StdRng;
use wacore::crypto::calculate_curve_signature;
use wacore::libsignal::protocol::{
    CiphertextMessage, CiphertextMessageType, Direction, GenericSignedPreKey, IdentityChange, IdentityKey,
    IdentityKeyPair, IdentityKeyStore, KeyPair, PreKeyBundle, PreKeyId, PreKeyRecord, PreKeySignalMessage,
    PreKeyStore, ProtocolAddress, SenderKeyDistributionMessage, SenderKeyName, SenderKeyRecord,
    SenderKeyStore, SessionRecord, SessionStore, SignalMessage, SignalProtocolError, SignedPreKeyId,
    SignedPreKeyRecord, SignedPreKeyStore, Timestamp, UsePQRatchet, create_sender_key_distribution_message,
    group_decrypt, group_encrypt, message_decrypt, message_encrypt, process_prekey_bundle,
    process_sender_key_distribution_message,
};
use wacore::messages::{MessageUtils, decode_plaintext};
use waproto::whatsapp as wa;

type Result<T> = std::result::Result<T, SignalProtocolError>;

/// The version of the padding, which `<enc v="2">` states.
const PADDING: u8 = 2;
const SIGNED_PRE_KEY: u32 = 1;
/// The name under which a phone keeps its own sender keys.
const OWN: &str = "own";

/// An encrypted message, and the type of its `<enc>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// The keys of one phone.
pub(crate) struct Keys {
    identity: Identity,
    signed_pre_key: SignedPreKey,
    pre_keys: PreKeys,
    next_pre_key: u32,
    sessions: Sessions,
    sender_keys: SenderKeys,
    /// Who has the phone's key of a room: the room and the device.
    shared: HashSet<(String, String)>,
    random: StdRng,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new(IdentityKeyPair::generate(&mut rand::make_rng::<StdRng>()))
    }
}

impl Sealed {
    /// Changes a bit, so that nobody can decrypt it. What surrounds the text stays readable.
    pub(crate) fn garble(&mut self) {
        // The signature or the authentication code, which only a few bytes follow.
        let near_the_end = self.bytes.len().saturating_sub(10);
        if let Some(byte) = self.bytes.get_mut(near_the_end) {
            *byte ^= 1;
        }
    }
}

impl Keys {
    pub(crate) fn new(identity: IdentityKeyPair) -> Self {
        let mut random = rand::make_rng::<StdRng>();
        let pair = KeyPair::generate(&mut random);
        let signature = match calculate_curve_signature(identity.private_key(), &pair.public_key.serialize())
        {
            Ok(signature) => signature,
            Err(e) => panic!("a phone cannot sign its prekey: {e}"),
        };
        let record = SignedPreKeyRecord::new(
            SIGNED_PRE_KEY.into(),
            Timestamp::from_epoch_millis(1),
            &pair,
            &signature,
        );
        Self {
            identity: Identity { pair: identity, registration: 4242 },
            signed_pre_key: SignedPreKey { record },
            pre_keys: PreKeys::default(),
            next_pre_key: 0,
            sessions: Sessions::default(),
            sender_keys: SenderKeys::default(),
            shared: HashSet::new(),
            random,
        }
    }

    pub(crate) fn identity(&self) -> &IdentityKeyPair {
        &self.identity.pair
    }

    /// Returns what another device needs to write to this phone first, with a prekey that is used once.
    pub(crate) fn bundle(&mut self) -> Result<PreKeyBundle> {
        self.next_pre_key += 1;
        let id = PreKeyId::from(self.next_pre_key);
        let pair = KeyPair::generate(&mut self.random);
        self.pre_keys.0.insert(id, PreKeyRecord::new(id, &pair));
        let signed = &self.signed_pre_key.record;
        PreKeyBundle::new(
            self.identity.registration,
            0.into(),
            Some((id, pair.public_key)),
            signed.id()?,
            signed.public_key()?,
            signed.signature()?,
            *self.identity.pair.identity_key(),
        )
    }

    /// Whether the phone can write to the device with this identity without its bundle.
    pub(crate) fn knows(&self, device: &IdentityKey) -> bool {
        self.sessions.0.contains_key(address(device).as_str())
    }

    /// Starts a session with a device; an older one is forgotten.
    pub(crate) fn meets(&mut self, bundle: &PreKeyBundle) -> Result<()> {
        let to = address(bundle.identity_key()?);
        self.sessions.0.remove(to.as_str());
        let Self { sessions, identity, random, .. } = self;
        ready(process_prekey_bundle(&to, sessions, identity, bundle, random, UsePQRatchet::No))?;
        Ok(())
    }

    /// Encrypts for the device, which the phone has to know.
    pub(crate) fn seals(&mut self, device: &IdentityKey, message: &wa::Message) -> Result<Sealed> {
        let plain = MessageUtils::encode_and_pad(message);
        let sealed =
            ready(message_encrypt(&plain, &address(device), &mut self.sessions, &mut self.identity))?;
        let kind = match sealed.message_type() {
            CiphertextMessageType::PreKey => "pkmsg",
            _ => "msg",
        };
        Ok(Sealed { kind, bytes: sealed.serialize().to_vec() })
    }

    /// Decrypts what the device wrote to this phone alone. If it is a key of a room, the phone keeps it.
    pub(crate) fn opens(&mut self, device: &IdentityKey, kind: &str, bytes: &[u8]) -> Result<wa::Message> {
        let sealed = match kind {
            "pkmsg" => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(bytes)?),
            _ => CiphertextMessage::SignalMessage(SignalMessage::try_from(bytes)?),
        };
        let from = address(device);
        let Self { sessions, identity, pre_keys, signed_pre_key, random, .. } = self;
        let pq = UsePQRatchet::No;
        let opened =
            ready(message_decrypt(&sealed, &from, sessions, identity, pre_keys, signed_pre_key, random, pq))?;
        if let Some(used) = opened.consumed_prekey_id {
            self.pre_keys.0.remove(&used);
        }
        let message = read(&opened.plaintext)?;
        if let Some(key) = message.sender_key_distribution_message.as_option() {
            let room = key.group_id.as_deref().unwrap_or_default();
            let bytes = key.axolotl_sender_key_distribution_message.as_deref().unwrap_or_default();
            let key = SenderKeyDistributionMessage::try_from(bytes)?;
            let name = SenderKeyName::from_parts(room, from.as_str());
            ready(process_sender_key_distribution_message(&name, &key, &mut self.sender_keys))?;
        }
        Ok(message)
    }

    /// Returns the message by which a device learns the phone's key of a room.
    pub(crate) fn key_of_room(&mut self, room: &str) -> Result<wa::Message> {
        let name = SenderKeyName::from_parts(room, OWN);
        let key =
            ready(create_sender_key_distribution_message(&name, &mut self.sender_keys, &mut self.random))?;
        let key = wa::message::SenderKeyDistributionMessage {
            group_id: Some(room.to_owned()),
            axolotl_sender_key_distribution_message: Some(key.serialized().to_vec()),
        };
        Ok(wa::Message { sender_key_distribution_message: key.into(), ..wa::Message::default() })
    }

    /// Whether the device has to learn the phone's key of a room now. Says so once.
    pub(crate) fn shares_first(&mut self, room: &str, device: &IdentityKey) -> bool {
        self.shared.insert((room.to_owned(), address(device).as_str().to_owned()))
    }

    /// Encrypts for everybody who has the phone's key of the room.
    pub(crate) fn seals_for_room(&mut self, room: &str, message: &wa::Message) -> Result<Sealed> {
        let plain = MessageUtils::encode_and_pad(message);
        let name = SenderKeyName::from_parts(room, OWN);
        let sealed = ready(group_encrypt(&mut self.sender_keys, &name, &plain, &mut self.random))?;
        Ok(Sealed { kind: "skmsg", bytes: sealed.serialized().to_vec() })
    }

    /// Decrypts what the device wrote to a room.
    pub(crate) fn opens_for_room(
        &mut self,
        device: &IdentityKey,
        room: &str,
        bytes: &[u8],
    ) -> Result<wa::Message> {
        let name = SenderKeyName::from_parts(room, address(device).as_str());
        read(&ready(group_decrypt(bytes, &mut self.sender_keys, &name))?)
    }
}

fn read(padded: &[u8]) -> Result<wa::Message> {
    decode_plaintext(padded, PADDING).map_err(|_| SignalProtocolError::InvalidProtobufEncoding)
}

/// A device that links again has a new identity, and with it a new address.
fn address(device: &IdentityKey) -> ProtocolAddress {
    let name: String = device.serialize()[1..].iter().map(|byte| format!("{byte:02x}")).collect();
    ProtocolAddress::new(&name, 0.into())
}

fn ready<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match future.now_or_never() {
        Some(result) => result,
        None => panic!("a store in memory has to be ready"),
    }
}

struct Identity {
    pair: IdentityKeyPair,
    registration: u32,
}

#[async_trait]
impl IdentityKeyStore for Identity {
    async fn get_identity_key_pair(&self) -> Result<IdentityKeyPair> {
        Ok(self.pair.clone())
    }

    async fn get_local_registration_id(&self) -> Result<u32> {
        Ok(self.registration)
    }

    async fn save_identity(&mut self, _of: &ProtocolAddress, _key: &IdentityKey) -> Result<IdentityChange> {
        Ok(IdentityChange::NewOrUnchanged)
    }

    /// The address is the identity.
    async fn is_trusted_identity(
        &self,
        of: &ProtocolAddress,
        key: &IdentityKey,
        _way: Direction,
    ) -> Result<bool> {
        Ok(*of == address(key))
    }

    async fn get_identity(&self, _of: &ProtocolAddress) -> Result<Option<IdentityKey>> {
        Ok(None)
    }
}

struct SignedPreKey {
    record: SignedPreKeyRecord,
}

#[async_trait]
impl SignedPreKeyStore for SignedPreKey {
    async fn get_signed_pre_key(&self, id: SignedPreKeyId) -> Result<SignedPreKeyRecord> {
        if u32::from(id) == SIGNED_PRE_KEY {
            Ok(self.record.clone())
        } else {
            Err(SignalProtocolError::InvalidSignedPreKeyId)
        }
    }

    async fn save_signed_pre_key(&mut self, _id: SignedPreKeyId, record: &SignedPreKeyRecord) -> Result<()> {
        self.record = record.clone();
        Ok(())
    }
}

#[derive(Default)]
struct PreKeys(HashMap<PreKeyId, PreKeyRecord>);

#[async_trait]
impl PreKeyStore for PreKeys {
    async fn get_pre_key(&self, id: PreKeyId) -> Result<PreKeyRecord> {
        self.0.get(&id).cloned().ok_or(SignalProtocolError::InvalidPreKeyId)
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> Result<()> {
        self.0.insert(id, record.clone());
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> Result<()> {
        self.0.remove(&id);
        Ok(())
    }
}

#[derive(Default)]
struct Sessions(HashMap<String, SessionRecord>);

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, with: &ProtocolAddress) -> Result<Option<SessionRecord>> {
        Ok(self.0.get(with.as_str()).cloned())
    }

    async fn has_session(&self, with: &ProtocolAddress) -> Result<bool> {
        Ok(self.0.contains_key(with.as_str()))
    }

    async fn store_session(&mut self, with: &ProtocolAddress, record: SessionRecord) -> Result<()> {
        self.0.insert(with.as_str().to_owned(), record);
        Ok(())
    }
}

#[derive(Default)]
struct SenderKeys(HashMap<SenderKeyName, SenderKeyRecord>);

#[async_trait]
impl SenderKeyStore for SenderKeys {
    async fn store_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord) -> Result<()> {
        self.0.insert(name.clone(), record);
        Ok(())
    }

    async fn load_sender_key(&self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>> {
        Ok(self.0.get(name).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &str) -> wa::Message {
        wa::Message { conversation: Some(words.to_owned()), ..wa::Message::default() }
    }

    fn opened(keys: &mut Keys, from: &IdentityKey, sealed: &Sealed) -> String {
        match keys.opens(from, sealed.kind, &sealed.bytes) {
            Ok(message) => message.conversation.unwrap_or_default(),
            Err(e) => panic!("not opened: {e}"),
        }
    }

    fn met() -> (Keys, IdentityKey, Keys, IdentityKey) {
        let (mut ann, mut laz) = (Keys::default(), Keys::default());
        let (ann_is, laz_is) = (*ann.identity().identity_key(), *laz.identity().identity_key());
        assert!(laz.bundle().and_then(|bundle| ann.meets(&bundle)).is_ok());
        (ann, ann_is, laz, laz_is)
    }

    fn seal(keys: &mut Keys, to: &IdentityKey, words: &str) -> Sealed {
        match keys.seals(to, &text(words)) {
            Ok(sealed) => sealed,
            Err(e) => panic!("not sealed: {e}"),
        }
    }

    #[test]
    fn two_phones_write_to_each_other() {
        let (mut ann, ann_is, mut laz, laz_is) = met();
        let hello = seal(&mut ann, &laz_is, "hello");
        assert_eq!((hello.kind, opened(&mut laz, &ann_is, &hello)), ("pkmsg", "hello".to_owned()));
        let answer = seal(&mut laz, &ann_is, "hello, Ann");
        assert_eq!((answer.kind, opened(&mut ann, &laz_is, &answer)), ("msg", "hello, Ann".to_owned()));
        let again = seal(&mut ann, &laz_is, "again");
        assert_eq!((again.kind, opened(&mut laz, &ann_is, &again)), ("msg", "again".to_owned()));
    }

    #[test]
    fn nobody_reads_a_message_twice_or_a_message_for_somebody_else() {
        let (mut ann, ann_is, mut laz, laz_is) = met();
        let hello = seal(&mut ann, &laz_is, "hello");
        assert!(Keys::default().opens(&ann_is, hello.kind, &hello.bytes).is_err());
        assert_eq!(opened(&mut laz, &ann_is, &hello), "hello");
        assert!(laz.opens(&ann_is, hello.kind, &hello.bytes).is_err());
    }

    #[test]
    fn who_has_the_key_of_a_room_reads_what_is_written_there() {
        let (mut ann, ann_is, mut laz, laz_is) = met();
        let room = "120363000000000001@g.us";
        let key = ann.key_of_room(room).and_then(|key| ann.seals(&laz_is, &key));
        let sealed = ann.seals_for_room(room, &text("to all"));
        let (Ok(key), Ok(sealed)) = (key, sealed) else { panic!("not sealed") };
        assert!(laz.opens_for_room(&ann_is, room, &sealed.bytes).is_err(), "without the key");
        assert!(laz.opens(&ann_is, key.kind, &key.bytes).is_ok());
        let read = laz.opens_for_room(&ann_is, room, &sealed.bytes);
        assert_eq!(read.ok().and_then(|message| message.conversation).as_deref(), Some("to all"));
    }
}
