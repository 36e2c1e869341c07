//! The passkey that an account may want before it links a device: the browser of the account's owner signs a challenge,
//! then phone and device agree on a key and show the same code.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use buffa::Message as _;
use serde_json::{Value, json};
use wacore::crypto::{calculate_curve_signature, generate_curve_key_pair};
use wacore::libsignal::crypto::{CryptographicHash, aes_256_gcm_decrypt};
use wacore::libsignal::protocol::KeyPair;
use wacore::shortcake::ShortcakeUtils;
use wacore_binary::Node;
use waproto::whatsapp::{
    CompanionEphemeralIdentity, EncryptedPairingRequest, PairingRequest, PrimaryEphemeralIdentity,
    ProloguePayload,
};

use crate::account::{public, random};
use crate::login::array;
use crate::session::Connection;
use crate::stanza::{bytes, content, notification, with_bytes};
use crate::{Phone, State};

/// The site whose passkeys WhatsApp takes.
const SITE: &str = "web.whatsapp.com";
const CREDENTIAL: &[u8] = b"the passkey of the account";
/// The time that the phone takes to answer. The library expects the phone's answer only when it has noted the server's,
/// and no phone is faster than that.
const PHONE_TAKES: Duration = Duration::from_millis(200);
const ANSWERS_WRONG: (u16, &str) = (400, "bad-request");

/// A passkey is asked for, and how far the answer is.
pub(crate) struct Passkey {
    challenge: [u8; 32],
    reference: String,
    /// The phone's key and nonce for this link.
    ephemeral: KeyPair,
    nonce: [u8; 32],
    /// What the device committed itself to, before it knew the phone's key.
    prologue: Option<ProloguePayload>,
    /// The code that the phone shows.
    code: Option<String>,
}

impl Passkey {
    /// Asks the device for a passkey.
    pub(crate) fn asks(connection: &Connection, id: String) -> Self {
        let challenge = random();
        let options = json!({
            "challenge": BASE64_URL_SAFE_NO_PAD.encode(challenge),
            "rpId": SITE,
            "timeout": 60_000,
            "userVerification": "required",
            "allowCredentials": [{ "type": "public-key", "id": BASE64_URL_SAFE_NO_PAD.encode(CREDENTIAL) }],
        });
        let options = with_bytes("passkey_request_options", options.to_string());
        let reference = format!("{id}-ref");
        connection.send(notification(id, "passkey_prologue_request", options));
        Self {
            challenge,
            reference,
            ephemeral: generate_curve_key_pair(),
            nonce: random(),
            prologue: None,
            code: None,
        }
    }

    /// Whether the passkey of the account signed the challenge on WhatsApp's site.
    fn is_signed(&self, prologue: &Node, key: &KeyPair) -> Option<()> {
        let assertion: Value = serde_json::from_slice(bytes(prologue, "webauthn_assertion")?).ok()?;
        let field = |value: &Value| BASE64_URL_SAFE_NO_PAD.decode(value.as_str()?.trim_end_matches('=')).ok();
        let response = &assertion["response"];
        let client = field(&response["clientDataJSON"])?;
        let data = field(&response["authenticatorData"])?;
        let signature = field(&response["signature"])?;
        let about: Value = serde_json::from_slice(&client).ok()?;
        let is_right = assertion["type"] == "public-key"
            && field(&assertion["rawId"])? == CREDENTIAL
            && bytes(prologue, "credential_id")? == CREDENTIAL
            && about["type"] == "webauthn.get"
            && field(&about["challenge"])? == self.challenge
            && about["origin"] == format!("https://{SITE}")
            && data.get(..32)? == sha256(&[SITE.as_bytes()])
            // The user was there, and proved who they are.
            && data.get(32)? & 0b101 == 0b101
            && key.public_key.verify_signature(&[&data[..], &sha256(&[&client])].concat(), &signature);
        is_right.then_some(())
    }
}

impl State {
    /// Answers the device's part of a link with a passkey. Returns the children of the answer.
    pub(crate) fn passkey(
        &mut self,
        connection: &Connection,
        query: &Node,
    ) -> Result<Vec<Node>, (u16, &'static str)> {
        let id = self.pairing.next("continuation");
        let key = self.account.passkey.clone();
        let open = self.pairing(connection.number).ok_or(ANSWERS_WRONG)?;
        let registration = open.registration.clone();
        let passkey = open.passkey.as_mut().ok_or(ANSWERS_WRONG)?;
        match &*query.tag {
            "ref" => Ok(vec![with_bytes("ref", passkey.reference.as_bytes())]),
            "passkey_prologue" => {
                passkey.is_signed(query, &key).ok_or((401, "not-authorized"))?;
                let payload = bytes(query, "prologue_payload").ok_or(ANSWERS_WRONG)?;
                passkey.prologue =
                    Some(ProloguePayload::decode_from_slice(payload).map_err(|_| ANSWERS_WRONG)?);
                let identity = PrimaryEphemeralIdentity {
                    public_key: Some(public(&passkey.ephemeral).to_vec()),
                    nonce: Some(passkey.nonce.to_vec()),
                };
                let identity = with_bytes("primary_ephemeral_identity", identity.encode_to_vec());
                let (connection, answer) =
                    (open.connection.clone(), notification(id, "crsc_continuation", identity));
                tokio::spawn(async move {
                    tokio::time::sleep(PHONE_TAKES).await;
                    connection.send(answer);
                });
                Ok(vec![])
            }
            "companion_nonce" => passkey.learns(query).map(|()| vec![]).ok_or(ANSWERS_WRONG),
            "encrypted_pairing_request" => {
                let request = passkey.opens(query).ok_or(ANSWERS_WRONG)?;
                let is_right = request.companion_public_key.as_deref() == Some(&registration.noise)
                    && request.companion_identity_key.as_deref() == Some(&registration.identity);
                let secret = array(request.adv_secret.as_deref()).filter(|_| is_right);
                self.signs(secret.ok_or(ANSWERS_WRONG)?);
                Ok(vec![])
            }
            _ => Err((501, "feature-not-implemented")),
        }
    }
}

impl Passkey {
    /// The device's key, to which it committed itself.
    fn theirs(&self) -> Option<(CompanionEphemeralIdentity, Vec<u8>)> {
        let identity = self.prologue.as_ref()?.companion_ephemeral_identity.clone()?;
        Some((CompanionEphemeralIdentity::decode_from_slice(&identity).ok()?, identity))
    }

    /// The device tells its nonce, which must be the one of its commitment.
    fn learns(&mut self, nonce: &Node) -> Option<()> {
        let nonce: [u8; 32] = array(content(nonce))?;
        let (theirs, identity) = self.theirs()?;
        let committed = self.prologue.as_ref()?.commitment.as_option()?.hash.clone()?;
        if committed != sha256(&[&identity, &nonce]) || theirs.r#ref.as_deref() != Some(&*self.reference) {
            return None;
        }
        let own = public(&self.ephemeral);
        let code = ShortcakeUtils::derive_verification_code(&nonce, &own, &self.nonce);
        let (front, back) = code.split_at_checked(4)?;
        self.code = Some(format!("{front}-{back}"));
        Some(())
    }

    /// Opens the device's keys.
    fn opens(&self, request: &Node) -> Option<PairingRequest> {
        // Only a device that told its nonce may go on.
        self.code.as_ref()?;
        let (theirs, _) = self.theirs()?;
        let public = array(theirs.public_key.as_deref())?;
        let platform = theirs.device_type?;
        let key = ShortcakeUtils::derive_encryption_key(&self.ephemeral, &public, platform, &self.reference)
            .ok()?;
        let sealed = EncryptedPairingRequest::decode_from_slice(content(request)?).ok()?;
        let mut opened = Vec::new();
        aes_256_gcm_decrypt(
            &key,
            &array(sealed.iv.as_deref())?,
            b"",
            sealed.encrypted_payload.as_deref()?,
            &mut opened,
        )
        .ok()?;
        PairingRequest::decode_from_slice(&opened).ok()
    }
}

impl Phone {
    /// Signs the options that WhatsApp sent with the account's passkey, as a browser on WhatsApp's site does. Returns
    /// the assertion as JSON. (The signature is one of Curve25519 instead of P-256.)
    pub fn signs_passkey(&self, options: &str) -> String {
        self.signs_passkey_on(options, &format!("https://{SITE}"))
    }

    /// Like [`Self::signs_passkey`], on another site.
    pub fn signs_passkey_on(&self, options: &str, origin: &str) -> String {
        let options: Value = serde_json::from_str(options).unwrap_or_default();
        let client = json!({ "type": "webauthn.get", "challenge": options["challenge"], "origin": origin });
        let client = client.to_string().into_bytes();
        let mut data = sha256(&[SITE.as_bytes()]).to_vec();
        data.extend([0b101, 0, 0, 0, 1]);
        let key = self.shared.state().account.passkey.clone();
        let message = [&data[..], &sha256(&[&client])].concat();
        let signature =
            calculate_curve_signature(&key.private_key, &message).map(Vec::from).unwrap_or_default();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "id": encode(CREDENTIAL),
            "rawId": encode(CREDENTIAL),
            "type": "public-key",
            "response": {
                "clientDataJSON": encode(&client),
                "authenticatorData": encode(&data),
                "signature": encode(&signature),
                "userHandle": null,
            },
        })
        .to_string()
    }

    /// Returns the id of the account's passkey.
    pub fn passkey_id(&self) -> &'static [u8] {
        CREDENTIAL
    }

    /// Waits for the code that the phone shows after the passkey: the device shows the same one.
    pub async fn shows_code(&self) -> String {
        let code = |state: &mut State| state.shown_code();
        self.shared.wait_for(code).await
    }
}

impl State {
    fn shown_code(&self) -> Option<String> {
        self.pairing.open()?.passkey.as_ref()?.code.clone()
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let Ok(mut hash) = CryptographicHash::new("SHA-256") else { return [0; 32] };
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize_sha256_array().unwrap_or_default()
}
