//! Logins: what the server says to a device that has finished its handshake.

use wacore::libsignal::protocol::PublicKey;
use wacore_binary::builder::NodeBuilder;
use waproto::whatsapp::client_payload::DevicePairingRegistrationData;

use crate::account::{LID, NUMBER, SignedPrekey};
use crate::pairing::{self, Registration};
use crate::session::{Connection, Order};
use crate::stanza::now;
use crate::trouble::Denial;
use crate::wire::{Hello, WireError};
use crate::{Shared, people};

/// Greets a device: it logs in, or begins to be linked, or is told why it may not.
pub(crate) fn greets(shared: &Shared, connection: &Connection, hello: &Hello) -> Result<(), WireError> {
    let denied = shared.state().trouble.denied;
    if let Some(denial) = denied {
        denies(connection, denial);
        return Ok(());
    }
    if let Some(number) = hello.payload.username {
        logs_in(shared, connection, hello, number);
        return Ok(());
    }
    let registration = hello.payload.device_pairing_data.as_option();
    let registration = registration.ok_or_else(|| breach("a login without a number and without keys"))?;
    pairing::begins(shared, connection, read_registration(hello.noise, registration)?);
    Ok(())
}

fn logs_in(shared: &Shared, connection: &Connection, hello: &Hello, number: u64) {
    let mut state = shared.state();
    let index = hello.payload.device.unwrap_or_default();
    let is_known =
        |device: &crate::Device| (number, index, hello.noise) == (NUMBER, device.index.into(), device.noise);
    let Some(device) = state.device.as_mut().filter(|device| is_known(device)) else {
        let failure = NodeBuilder::new("failure").attr("reason", "401").attr("location", "frc");
        connection.send(failure.build());
        connection.order(Order::Close);
        return;
    };
    let first = !std::mem::replace(&mut device.has_logged_in, true);
    let lid = device.lid();
    state.line.logs_in(connection, hello.resumes);
    drop(state);
    if first {
        people::meets_device(shared);
    }
    let success = NodeBuilder::new("success")
        .attr("t", now().to_string())
        .attr("lid", lid)
        .attr("display_name", LID.to_string())
        .attr("props", "1")
        .attr("location", "frc");
    connection.send(success.build());
}

fn denies(connection: &Connection, denial: Denial) {
    let failure = NodeBuilder::new("failure").attr("location", "frc");
    let failure = match denial {
        // 101 of the temporary bans: the account sent messages to too many people who do not know it.
        Denial::Banned { seconds } => {
            failure.attr("reason", "402").attr("code", "101").attr("expire", seconds.to_string())
        }
        Denial::Outdated => failure.attr("reason", "405"),
    };
    connection.send(failure.build());
    connection.order(Order::Close);
}

/// Reads the keys of a device that wants to be linked. Their signature must be right.
fn read_registration(
    noise: [u8; 32],
    data: &DevicePairingRegistrationData,
) -> Result<Registration, WireError> {
    let wrong = |what: &str| breach(&format!("the {what} of a device that wants to be linked is wrong"));
    let identity: [u8; 32] = array(data.e_ident.as_deref()).ok_or_else(|| wrong("identity"))?;
    let registration_id = array(data.e_regid.as_deref()).map(u32::from_be_bytes);
    let signed_prekey = read_signed_prekey(
        data.e_skey_id.as_deref(),
        data.e_skey_val.as_deref(),
        data.e_skey_sig.as_deref(),
        &identity,
    );
    if data.e_keytype.as_deref() != Some(&[5]) {
        return Err(wrong("kind of keys"));
    }
    Ok(Registration {
        noise,
        identity,
        registration_id: registration_id.ok_or_else(|| wrong("registration id"))?,
        signed_prekey: signed_prekey.ok_or_else(|| wrong("signed prekey"))?,
    })
}

/// Reads a signed prekey. Returns `None` unless `identity` signed it.
pub(crate) fn read_signed_prekey(
    id: Option<&[u8]>,
    key: Option<&[u8]>,
    signature: Option<&[u8]>,
    identity: &[u8; 32],
) -> Option<SignedPrekey> {
    let [a, b, c] = array(id)?;
    let (key, signature): ([u8; 32], [u8; 64]) = (array(key)?, array(signature)?);
    let signer = PublicKey::from_djb_public_key_bytes(identity).ok()?;
    let signed = PublicKey::from_djb_public_key_bytes(&key).ok()?.serialize();
    let is_right = signer.verify_signature(&signed, &signature);
    is_right.then_some(SignedPrekey { id: u32::from_be_bytes([0, a, b, c]), key, signature })
}

pub(crate) fn array<const N: usize>(bytes: Option<&[u8]>) -> Option<[u8; N]> {
    bytes?.try_into().ok()
}

fn breach(what: &str) -> WireError {
    WireError::Breach(what.to_owned())
}
