//! What a device that is logged in sends: queries, messages, acknowledgements.

use wacore::libsignal::crypto::CryptographicHash;
use wacore::libsignal::protocol::PublicKey;
use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;

use crate::account::Device;
use crate::login::{array, read_signed_prekey};
use crate::people::{self, Verdict};
use crate::session::Connection;
use crate::stanza::{attr, bytes, first, now, refusal, result, with_bytes};
use crate::trouble::Fate;
use crate::wire::WireError;
use crate::{Shared, appstate};

/// Takes a stanza of the device.
pub(crate) fn takes(shared: &Shared, connection: &Connection, stanza: &Node) -> Result<(), WireError> {
    match (&*stanza.tag, &*attr(stanza, "type")) {
        // The device answers a query of the server.
        ("iq", "result" | "error") => {}
        ("iq", _) => {
            if let Some(answer) = answers(shared, connection, stanza) {
                connection.send(answer);
            }
        }
        ("message", _) => return takes_message(shared, connection, stanza),
        ("receipt", _) => takes_receipt(shared, connection, stanza),
        ("ack", _) => shared.acknowledged(&attr(stanza, "class"), &attr(stanza, "id")),
        ("ib", _) => {
            if let Some(batch) = stanza.get_optional_child("offline_batch") {
                shared.state().line.hands_over(attr(batch, "count").parse().unwrap_or(0));
            }
        }
        ("presence" | "chatstate", _) => people::see(shared, stanza),
        (tag, _) => shared.violation(format!("the device sent a <{tag}>")),
    }
    shared.changed();
    Ok(())
}

/// Takes a message of the device, unless the test wants it otherwise, and acknowledges it.
fn takes_message(shared: &Shared, connection: &Connection, message: &Node) -> Result<(), WireError> {
    let ack = NodeBuilder::new("ack").attr("class", "message").attr("id", attr(message, "id"));
    let ack = ack.attr("from", attr(message, "to")).attr("t", now().to_string());
    let fate = shared.state().trouble.fate();
    let verdict = match fate {
        Fate::Cut => return Err(WireError::Gone),
        Fate::Refused(code) => Verdict::Refused(code),
        Fate::Taken | Fate::Unacknowledged => people::takes_message(shared, message),
    };
    shared.changed();
    if fate == Fate::Unacknowledged {
        return Err(WireError::Gone);
    }
    connection.send(match verdict {
        Verdict::Accepted(attributes) => ack.attrs(attributes).build(),
        Verdict::Refused(code) => ack.attr("error", code.to_string()).build(),
    });
    Ok(())
}

/// Takes a receipt of the device: it names one message, or several.
fn takes_receipt(shared: &Shared, connection: &Connection, receipt: &Node) {
    let more = receipt.get_optional_child("list").and_then(Node::children).unwrap_or_default();
    for id in std::iter::once(attr(receipt, "id")).chain(more.iter().map(|item| attr(item, "id"))) {
        match &*attr(receipt, "type") {
            "retry" => shared.state().line.asks_again(&id),
            _ => shared.acknowledged("message", &id),
        }
    }
    people::takes_receipt(shared, receipt);
    let ack = NodeBuilder::new("ack").attr("class", "receipt").attr("id", attr(receipt, "id"));
    connection.send(ack.attr("from", attr(receipt, "to")).attr("t", now().to_string()).build());
}

/// Answers a query. Returns `None` if the answer is on its way already, because more had to follow it.
fn answers(shared: &Shared, connection: &Connection, query: &Node) -> Option<Node> {
    let child = first(query);
    let tag = child.map(|child| &*child.tag).unwrap_or_default();
    Some(match (&*attr(query, "xmlns"), tag) {
        ("w:p" | "urn:xmpp:ping" | "urn:xmpp:whatsapp:dirty", _) => result(query, vec![]),
        ("passive", "active") => {
            connection.send(result(query, vec![]));
            shared.state().line.becomes_active();
            return None;
        }
        ("encrypt", "count" | "digest" | "registration" | "rotate") => keys(shared, query, tag),
        ("abt", "props") => result(query, vec![NodeBuilder::new("props").attr("protocol", "1").build()]),
        ("blocklist", "") => result(query, vec![NodeBuilder::new("list").build()]),
        // The device lets people know that it knows them. Nothing here depends on it.
        ("privacy", "tokens") => result(query, vec![]),
        ("privacy", "privacy") => result(query, vec![NodeBuilder::new("privacy").build()]),
        ("w:sync:app:state", "sync") => {
            let collections = child.map(|sync| appstate::answers(&shared.state().account, sync));
            result(query, collections.into_iter().collect())
        }
        ("md", "remove-companion-device") => {
            connection.send(result(query, vec![]));
            shared.unlinks();
            return None;
        }
        (namespace, _) => match people::answers(shared, query) {
            Some(Ok(children)) => result(query, children),
            Some(Err(code)) => refusal(query, code, "refused"),
            None => {
                shared.violation(format!(
                    "the device asks for {namespace} <{tag}>, which this server does not know"
                ));
                refusal(query, 501, "feature-not-implemented")
            }
        },
    })
}

/// Answers a query for the device's own keys, or takes new ones.
fn keys(shared: &Shared, query: &Node, tag: &str) -> Node {
    let mut state = shared.state();
    let Some(device) = state.device.as_mut() else { return refusal(query, 404, "item-not-found") };
    let taken = match tag {
        "count" => {
            let count = NodeBuilder::new("count").attr("value", device.prekeys.len().to_string());
            return result(query, vec![count.build()]);
        }
        "digest" if device.prekeys.is_empty() => return refusal(query, 404, "item-not-found"),
        "digest" => return result(query, vec![digest(device)]),
        "rotate" => query.get_optional_child("rotate").and_then(|rotate| takes_signed_prekey(device, rotate)),
        _ => takes_prekeys(device, query),
    };
    drop(state);
    if taken.is_none() {
        shared.violation("the device uploads keys that are wrong");
        return refusal(query, 406, "not-acceptable");
    }
    result(query, vec![])
}

/// Takes new one-time prekeys of the device.
fn takes_prekeys(device: &mut Device, upload: &Node) -> Option<()> {
    let is_device = bytes(upload, "identity")? == device.identity
        && bytes(upload, "registration")? == device.registration_id.to_be_bytes()
        && bytes(upload, "type")? == [5];
    if !is_device {
        return None;
    }
    takes_signed_prekey(device, upload)?;
    for key in upload.get_optional_child("list")?.children()? {
        let [a, b, c] = array(bytes(key, "id"))?;
        let value: [u8; 32] = array(bytes(key, "value"))?;
        PublicKey::from_djb_public_key_bytes(&value).ok()?;
        device.prekeys.push_back((u32::from_be_bytes([0, a, b, c]), value));
    }
    Some(())
}

fn takes_signed_prekey(device: &mut Device, parent: &Node) -> Option<()> {
    let skey = parent.get_optional_child("skey")?;
    let [id, value, signature] = ["id", "value", "signature"].map(|child| bytes(skey, child));
    device.signed_prekey = read_signed_prekey(id, value, signature, &device.identity)?;
    Some(())
}

/// What the server has of the device's keys, so that the device can compare.
fn digest(device: &Device) -> Node {
    let id = |id: u32| with_bytes("id", id.to_be_bytes()[1..].to_vec());
    let skey = &device.signed_prekey;
    let mut parts = vec![&device.identity[..], &skey.key, &skey.signature];
    parts.extend(device.prekeys.iter().map(|(_, key)| &key[..]));
    NodeBuilder::new("digest")
        .children([
            with_bytes("registration", device.registration_id.to_be_bytes()),
            with_bytes("type", [5]),
            with_bytes("identity", device.identity),
            NodeBuilder::new("skey")
                .children([
                    id(skey.id),
                    with_bytes("value", skey.key),
                    with_bytes("signature", skey.signature),
                ])
                .build(),
            NodeBuilder::new("list").children(device.prekeys.iter().map(|(number, _)| id(*number))).build(),
            with_bytes("hash", sha1(&parts)),
        ])
        .build()
}

fn sha1(parts: &[&[u8]]) -> Vec<u8> {
    let Ok(mut hash) = CryptographicHash::new("SHA-1") else { return Vec::new() };
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize()
}
