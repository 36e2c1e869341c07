//! The account: the keys of its phone, and the device that it linked.

use std::collections::VecDeque;

use wacore::crypto::generate_curve_key_pair;
use wacore::libsignal::protocol::KeyPair;
use wacore_binary::Jid;
use waproto::whatsapp::Message;

use crate::appstate;

/// The account's phone number.
pub const NUMBER: u64 = 491_510_000_001;
/// The account's other name, which hides the number.
pub const LID: u64 = 900_001;

/// The account, as its phone knows it.
pub(crate) struct Account {
    /// The account's address by phone number, without a device.
    pub(crate) jid: Jid,
    /// The account's address by LID, without a device.
    pub(crate) lid: Jid,
    pub(crate) name: String,
    /// The identity of the phone, which is device 0. It signs the linked device.
    pub(crate) identity: KeyPair,
    /// The passkey that the account's owner has in a browser.
    pub(crate) passkey: KeyPair,
    /// Encrypts the state that the devices share.
    pub(crate) app_state_key: [u8; 32],
    /// The number of devices that were ever linked.
    pub(crate) devices: u16,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            jid: Jid::pn(NUMBER.to_string()),
            lid: Jid::lid(LID.to_string()),
            name: "Lazaret's phone".to_owned(),
            identity: generate_curve_key_pair(),
            passkey: generate_curve_key_pair(),
            app_state_key: random(),
            devices: 0,
        }
    }
}

impl Account {
    /// The message by which the phone gives a new device the key to the state that the devices share. Until a new
    /// device has it, it waits and does not count itself connected.
    pub(crate) fn key_share(&self) -> Message {
        appstate::key_share(self)
    }
}

/// Returns the public half of a key.
pub(crate) fn public(pair: &KeyPair) -> [u8; 32] {
    let [_kind, key @ ..] = pair.public_key.serialize();
    key
}

pub(crate) fn random() -> [u8; 32] {
    std::array::from_fn(|_| fastrand::u8(..))
}

/// The linked device, as the server knows it.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// The device's number within the account: 1 or more.
    pub(crate) index: u16,
    /// The key by which the device proves at each login that it is this device.
    pub(crate) noise: [u8; 32],
    /// The device's public identity in Signal.
    pub(crate) identity: [u8; 32],
    pub(crate) registration_id: u32,
    pub(crate) signed_prekey: SignedPrekey,
    /// Public one-time prekeys: id and key.
    pub(crate) prekeys: VecDeque<(u32, [u8; 32])>,
    /// The identity as account and device signed it (an encoded `ADVSignedDeviceIdentity`): others ask for it.
    pub(crate) signed_identity: Vec<u8>,
    pub(crate) has_logged_in: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SignedPrekey {
    pub(crate) id: u32,
    pub(crate) key: [u8; 32],
    pub(crate) signature: [u8; 64],
}

impl Device {
    /// The device's address by phone number.
    pub(crate) fn jid(&self) -> Jid {
        Jid::pn_device(NUMBER.to_string(), self.index)
    }

    /// The device's address by LID.
    pub(crate) fn lid(&self) -> Jid {
        Jid::lid_device(LID.to_string(), self.index)
    }
}
