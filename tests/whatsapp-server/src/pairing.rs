//! Linking: by QR code or by pair code. The phone signs the keys of the device, the device signs them too, and the
//! server knows it from then on.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use buffa::Message as _;
use wacore::crypto::{calculate_curve_signature, generate_curve_key_pair, hkdf_sha256};
use wacore::libsignal::crypto::{CryptographicMac, aes_256_gcm_decrypt};
use wacore::libsignal::protocol::{KeyPair, PublicKey};
use wacore::pair_code::PairCodeUtils;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, SERVER_JID};
use waproto::whatsapp::{
    ADVDeviceIdentity, ADVEncryptionType, ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC,
};

use crate::account::{Device, NUMBER, SignedPrekey, public};
use crate::login::array;
use crate::passkey::Passkey;
use crate::session::{Connection, Refusal};
use crate::stanza::{attr, bytes, first, notification, now, refusal, result, with_bytes};
use crate::wire::WireError;
use crate::{Phone, Shared, State};

/// The number of QR codes that a device may show one after the other.
const CODES: u64 = 6;
/// The operating systems that WhatsApp knows. It links no device with another one by a pair code.
const SYSTEMS: [&str; 6] = ["Android", "iOS", "Linux", "Mac OS", "Windows", "Ubuntu"];
/// What the account's key signs, before the keys themselves.
const ACCOUNT_SIGNS: [u8; 2] = [6, 0];
/// What the device's key signs, before the keys themselves.
const DEVICE_SIGNS: [u8; 2] = [6, 1];

/// Why the phone does not link a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this is no code of WhatsApp")]
    NoCode,
    #[error("no device offers this code any more")]
    Expired,
    #[error("no device asked for a code for this number")]
    NobodyAsks,
    #[error("the code is another one than the device shows")]
    WrongCode,
}

/// The keys of a device that wants to be linked.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) noise: [u8; 32],
    pub(crate) identity: [u8; 32],
    pub(crate) registration_id: u32,
    pub(crate) signed_prekey: SignedPrekey,
}

/// The connection of a device that wants to be linked, and how far it is.
#[derive(Default)]
pub(crate) struct Pairing {
    open: Option<Open>,
    /// Numbers everything that must not come twice.
    counter: u64,
}

pub(crate) struct Open {
    pub(crate) connection: Connection,
    pub(crate) registration: Registration,
    /// The QR codes that were not used yet.
    codes: Vec<String>,
    typed: Option<Typed>,
    pub(crate) passkey: Option<Passkey>,
    offered: Option<Offered>,
}

/// A pair code, which the device shows and the phone's owner types.
struct Typed {
    reference: Vec<u8>,
    /// The device's ephemeral key, encrypted with the code.
    wrapped: Vec<u8>,
    /// The phone's ephemeral key and the device's, as the code that was typed decrypts it.
    entered: Option<(KeyPair, [u8; 32])>,
    outcome: Option<Result<(), Refused>>,
}

/// The device with the signature of the account. It becomes the linked one when it has signed too.
struct Offered {
    query: String,
    details: Vec<u8>,
    device: Device,
}

impl Pairing {
    pub(crate) fn closes(&mut self, number: u64) {
        self.open.take_if(|open| open.connection.number == number);
    }

    /// The connection that is to be linked.
    pub(crate) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    pub(crate) fn next(&mut self, what: &str) -> String {
        self.counter += 1;
        format!("{what}-{}", self.counter)
    }
}

/// Begins to link a device: it may show codes.
pub(crate) fn begins(shared: &Shared, connection: &Connection, registration: Registration) {
    let mut state = shared.state();
    let codes: Vec<String> = (0..CODES).map(|_| state.pairing.next("2@code")).collect();
    let references = codes.iter().map(|code| with_bytes("ref", code.as_bytes()));
    let offer = NodeBuilder::new("pair-device").children(references).build();
    let id = state.pairing.next("pair");
    let query = NodeBuilder::new("iq").attr("from", SERVER_JID).attr("type", "set").attr("xmlns", "md");
    connection.send(query.attr("id", id).children([offer]).build());
    let connection = connection.clone();
    let open = Open { connection, registration, codes, typed: None, passkey: None, offered: None };
    state.pairing.open = Some(open);
}

impl State {
    /// The connection with this number, if it is the one that is to be linked.
    pub(crate) fn pairing(&mut self, number: u64) -> Option<&mut Open> {
        self.pairing.open.as_mut().filter(|open| open.connection.number == number)
    }

    /// The phone trusts the device. `secret` is what only the two of them know.
    fn trusts(&mut self, secret: [u8; 32]) {
        if self.trouble.wants_passkey {
            let id = self.pairing.next("passkey");
            let Some(open) = self.pairing.open.as_mut() else { return };
            open.passkey = Some(Passkey::asks(&open.connection, id));
        } else if let (Some(success), Some(open)) = (self.signs(secret), self.pairing.open()) {
            open.connection.send(success);
        }
    }

    /// The phone signs the keys of the device, so that nobody but the holder of `secret` can believe it. Returns what
    /// the device is told.
    pub(crate) fn signs(&mut self, secret: [u8; 32]) -> Option<Node> {
        let query = self.pairing.next("pair-success");
        let open = self.pairing.open.as_mut()?;
        self.account.devices += 1;
        let index = self.account.devices;
        let registration = open.registration.clone();
        let details = ADVDeviceIdentity {
            raw_id: Some(1),
            timestamp: Some(now()),
            key_index: Some(index.into()),
            account_type: Some(ADVEncryptionType::E2EE),
            device_type: Some(ADVEncryptionType::E2EE),
        }
        .encode_to_vec();
        let account_key = public(&self.account.identity).to_vec();
        let message = [&ACCOUNT_SIGNS[..], &details, &registration.identity].concat();
        let signature = calculate_curve_signature(&self.account.identity.private_key, &message);
        let identity = ADVSignedDeviceIdentity {
            details: Some(details.clone()),
            account_signature_key: Some(account_key),
            account_signature: signature.ok().map(Vec::from),
            device_signature: None,
        }
        .encode_to_vec();
        let sealed = ADVSignedDeviceIdentityHMAC {
            hmac: Some(hmac(&secret, &identity)),
            details: Some(identity),
            account_type: Some(ADVEncryptionType::E2EE),
        };
        let device = Device::new(index, registration);
        let success = NodeBuilder::new("pair-success").children([
            with_bytes("device-identity", sealed.encode_to_vec()),
            NodeBuilder::new("platform").attr("name", "android").build(),
            NodeBuilder::new("device").attr("jid", device.jid()).attr("lid", device.lid()).build(),
        ]);
        let answer = NodeBuilder::new("iq").attr("from", SERVER_JID).attr("type", "set").attr("xmlns", "md");
        let answer = answer.attr("id", &query).attr("t", now().to_string()).children([success.build()]);
        open.offered = Some(Offered { query, details, device });
        Some(answer.build())
    }
}

impl Phone {
    /// Scans the QR code that a device shows.
    pub fn scans(&self, qr: &str) -> Result<(), Refused> {
        let qr = qr.strip_prefix("https://wa.me/settings/linked_devices#").unwrap_or(qr);
        let fields: Vec<&str> = qr.trim().split(',').collect();
        let [code, noise, identity, secret, _platform, ..] = fields[..] else { return Err(Refused::NoCode) };
        let key = |field: &str| array::<32>(BASE64_STANDARD.decode(field).ok().as_deref());
        let (Some(noise), Some(identity), Some(secret)) = (key(noise), key(identity), key(secret)) else {
            return Err(Refused::NoCode);
        };
        let mut state = self.shared.state();
        let open = state.pairing.open.as_mut().ok_or(Refused::Expired)?;
        let known = (open.registration.noise, open.registration.identity) == (noise, identity);
        let place = open.codes.iter().position(|c| known && c == code).ok_or(Refused::Expired)?;
        // A code that was scanned is worth nothing afterwards, and so are those before it.
        open.codes.drain(..=place);
        state.trusts(secret);
        Ok(())
    }

    /// Types the code that a device shows. Waits until the phone knows whether it is the right one.
    pub async fn enters(&self, code: &str) -> Result<(), Refused> {
        let code: String =
            code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase();
        let wrapped = {
            let state = self.shared.state();
            let typed = state.pairing.open.as_ref().and_then(|open| open.typed.as_ref());
            typed.ok_or(Refused::NobodyAsks)?.wrapped.clone()
        };
        let ephemeral = generate_curve_key_pair();
        let own = public(&ephemeral);
        // The derivation of the key from a code is slow on purpose.
        let derived = tokio::task::spawn_blocking(move || {
            let device = PairCodeUtils::decrypt_primary_ephemeral_pub(&wrapped, &code);
            device.map(|device| (device, PairCodeUtils::encrypt_ephemeral_pub(&own, &code)))
        });
        let Ok(Ok((device, answer))) = derived.await else { return Err(Refused::WrongCode) };
        self.shared.state().answers_code(ephemeral, device, &answer)?;
        let outcome =
            |state: &mut State| match state.pairing.open.as_mut().and_then(|open| open.typed.as_mut()) {
                Some(typed) => typed.outcome.take(),
                // The device is gone before it answered.
                None => Some(Err(Refused::NobodyAsks)),
            };
        self.shared.wait_for(outcome).await
    }

    /// Waits until a device shows a pair code for this number.
    pub async fn is_asked_for_a_code(&self) {
        let asked = |state: &mut State| state.pairing.open.as_ref()?.typed.as_ref().map(|_| ());
        self.shared.wait_for(asked).await;
    }

    /// Waits until a device is linked, has logged in and receives messages.
    pub async fn is_linked(&self) {
        self.shared.wait_for(|state| (state.device.is_some() && state.line.is_live()).then_some(())).await;
    }
}

impl State {
    /// Tells the device that its code was typed.
    fn answers_code(&mut self, ephemeral: KeyPair, device: [u8; 32], answer: &[u8]) -> Result<(), Refused> {
        let id = self.pairing.next("hello");
        let open = self.pairing.open.as_mut().ok_or(Refused::NobodyAsks)?;
        let typed = open.typed.as_mut().ok_or(Refused::NobodyAsks)?;
        let identity = public(&self.account.identity);
        let hello = NodeBuilder::new("link_code_companion_reg").attr("stage", "primary_hello").children([
            with_bytes("link_code_pairing_wrapped_primary_ephemeral_pub", answer),
            with_bytes("primary_identity_pub", identity),
            with_bytes("link_code_pairing_ref", typed.reference.clone()),
        ]);
        typed.entered = Some((ephemeral, device));
        typed.outcome = None;
        open.connection.send(notification(id, "link_code_companion_reg", hello.build()));
        Ok(())
    }
}

/// Takes a stanza of a device that is not logged in.
pub(crate) fn takes(shared: &Shared, connection: &Connection, stanza: &Node) -> Result<(), WireError> {
    match (&*stanza.tag, &*attr(stanza, "type")) {
        ("iq", "result" | "error") => takes_answer(shared, connection, stanza),
        ("iq", _) => {
            let answer = answers(shared, connection, stanza);
            connection.send(answer);
            shared.changed();
            Ok(())
        }
        // Acknowledgements of notifications, and what the device tells about itself.
        ("ack" | "ib", _) => Ok(()),
        (tag, _) => Err(WireError::Breach(format!("a device that is not logged in sent a <{tag}>"))),
    }
}

/// Answers a query of a device that wants to be linked.
fn answers(shared: &Shared, connection: &Connection, query: &Node) -> Node {
    let child = first(query);
    let tag = child.map(|child| &*child.tag).unwrap_or_default();
    match (&*attr(query, "xmlns"), tag, child) {
        ("w:p" | "urn:xmpp:ping", ..) => result(query, vec![]),
        ("md", "link_code_companion_reg", Some(child)) => match &*attr(child, "stage") {
            "companion_hello" => shared.state().shows_code(connection, query, child),
            "companion_finish" => shared.state().finishes_code(connection, query, child),
            _ => refusal(query, 400, "bad-request"),
        },
        ("md", _, Some(child)) => match shared.state().passkey(connection, child) {
            Ok(children) => result(query, children),
            Err((code, text)) => refusal(query, code, text),
        },
        (namespace, ..) => {
            shared.violation(format!("a device that is not linked asks for {namespace} {tag}"));
            refusal(query, 501, "feature-not-implemented")
        }
    }
}

impl State {
    /// The device shows a pair code.
    fn shows_code(&mut self, connection: &Connection, query: &Node, hello: &Node) -> Node {
        let reference = self.pairing.next("ref").into_bytes();
        let Some(open) = self.pairing(connection.number) else { return refusal(query, 400, "bad-request") };
        let wrapped = bytes(hello, "link_code_pairing_wrapped_companion_ephemeral_pub").unwrap_or_default();
        let noise = bytes(hello, "companion_server_auth_key_pub").unwrap_or_default();
        let platform = bytes(hello, "companion_platform_display").unwrap_or_default();
        let is_right = attr(hello, "jid") == format!("{NUMBER}@s.whatsapp.net")
            && wrapped.len() == 80
            && noise == open.registration.noise
            && names_a_system(&String::from_utf8_lossy(platform));
        if !is_right {
            return refusal(query, 400, "bad-request");
        }
        let answer = NodeBuilder::new("link_code_companion_reg").attr("stage", "companion_hello");
        let answer = answer.children([with_bytes("link_code_pairing_ref", reference.clone())]).build();
        open.typed = Some(Typed { reference, wrapped: wrapped.to_vec(), entered: None, outcome: None });
        result(query, vec![answer])
    }

    /// The device answers the phone with its keys, encrypted with what both derived from the code.
    fn finishes_code(&mut self, connection: &Connection, query: &Node, finish: &Node) -> Node {
        let identity = self.account.identity.clone();
        let opened = {
            let Some(open) = self.pairing(connection.number) else {
                return refusal(query, 400, "bad-request");
            };
            let device = open.registration.identity;
            let Some(typed) = open.typed.as_mut() else { return refusal(query, 400, "bad-request") };
            let is_right = bytes(finish, "link_code_pairing_ref") == Some(&*typed.reference)
                && bytes(finish, "companion_identity_public") == Some(&device[..]);
            let (true, Some((ephemeral, theirs))) = (is_right, typed.entered.take()) else {
                return refusal(query, 400, "bad-request");
            };
            let bundle = bytes(finish, "link_code_pairing_wrapped_key_bundle").unwrap_or_default();
            let secret = opens_bundle(&ephemeral, &theirs, &identity, &device, bundle);
            typed.outcome = Some(secret.map(|_| ()).ok_or(Refused::WrongCode));
            secret
        };
        if let Some(secret) = opened {
            self.trusts(secret);
        }
        // The server cannot tell a right bundle from a wrong one: only the phone can.
        result(query, vec![])
    }
}

/// Opens the keys that a device sends to the phone. Returns the secret that the two of them share; `None` if the device
/// shows another code than was typed.
fn opens_bundle(
    ephemeral: &KeyPair,
    theirs: &[u8; 32],
    identity: &KeyPair,
    device: &[u8; 32],
    bundle: &[u8],
) -> Option<[u8; 32]> {
    let (salt, rest) = bundle.split_at_checked(32)?;
    let (iv, sealed) = rest.split_at_checked(12)?;
    let agree = |own: &KeyPair, key: &[u8; 32]| {
        let key = PublicKey::from_djb_public_key_bytes(key).ok()?;
        own.private_key.calculate_agreement(&key).ok()
    };
    let shared = agree(ephemeral, theirs)?;
    let key = hkdf_sha256(&shared, 32, Some(salt), b"link_code_pairing_key_bundle_encryption_key").ok()?;
    let mut opened = Vec::new();
    aes_256_gcm_decrypt(&array(Some(&key))?, &array(Some(iv))?, b"", sealed, &mut opened).ok()?;
    let [companion, primary, random] = [opened.get(..32)?, opened.get(32..64)?, opened.get(64..96)?];
    if companion != device || primary != public(identity) {
        return None;
    }
    let material = [&shared[..], &agree(identity, device)?, random].concat();
    array(hkdf_sha256(&material, 32, None, b"adv_secret").ok().as_deref())
}

/// Whether a display name ends in an operating system: `Chrome (Linux)`.
fn names_a_system(display: &str) -> bool {
    let system = display.strip_suffix(')').and_then(|d| d.rsplit_once(" (")).map(|(_, system)| system);
    system.is_some_and(|system| SYSTEMS.contains(&system))
}

/// The device answers a query of the server: the codes arrived, or it is linked.
fn takes_answer(shared: &Shared, connection: &Connection, answer: &Node) -> Result<(), WireError> {
    let mut state = shared.state();
    let Some(open) = state.pairing(connection.number) else { return Ok(()) };
    let offered = open.offered.take_if(|offered| offered.query == attr(answer, "id"));
    let Some(Offered { details, mut device, .. }) = offered else { return Ok(()) };
    let signed =
        answer.get_optional_child("pair-device-sign").and_then(|sign| bytes(sign, "device-identity"));
    let Some(signed) = signed else { return Ok(()) };
    let account_key = public(&state.account.identity);
    if !is_signed(signed, &details, &device.identity, &account_key) {
        return Err(WireError::Breach("the linked device did not sign its identity".to_owned()));
    }
    device.signed_identity = signed.to_vec();
    // The account has one linked device here: a new one takes the place of the one before.
    state.line.forgets();
    state.device = Some(device);
    connection.ends(&Refusal::Code(515));
    drop(state);
    shared.changed();
    Ok(())
}

/// Whether the device signed what the account signed.
fn is_signed(signed: &[u8], details: &[u8], identity: &[u8; 32], account_key: &[u8; 32]) -> bool {
    let Ok(signed) = ADVSignedDeviceIdentity::decode_from_slice(signed) else { return false };
    let Ok(signer) = PublicKey::from_djb_public_key_bytes(identity) else { return false };
    let message = [&DEVICE_SIGNS[..], details, identity, account_key].concat();
    let signature = signed.device_signature.unwrap_or_default();
    signed.details.as_deref() == Some(details) && signer.verify_signature(&message, &signature)
}

fn hmac(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    let Ok(mut mac) = CryptographicMac::new("HmacSha256", key) else { return Vec::new() };
    mac.update(message);
    mac.finalize()
}

impl Device {
    fn new(index: u16, registration: Registration) -> Self {
        let Registration { noise, identity, registration_id, signed_prekey } = registration;
        Self {
            index,
            noise,
            identity,
            registration_id,
            signed_prekey,
            prekeys: VecDeque::new(),
            signed_identity: Vec::new(),
            has_logged_in: false,
        }
    }
}
