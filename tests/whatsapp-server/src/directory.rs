//! What the server knows of people and tells the device: their devices, the keys to write to them, their rooms.

use wacore::adv::{AdvValidation, validate_adv_with_identity_key};
use wacore::crypto::calculate_curve_signature;
use wacore::iq::prekeys::{OneTimePreKeyNode, PreKeyBundleUserNode, SignedPreKeyNode};
use wacore::libsignal::protocol::{IdentityKey, IdentityKeyPair, PreKeyBundle, PublicKey};
use wacore::protocol::ProtocolNode;
use wacore::protocol::retry::extract_registration_id_from_node;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeContent};
use waproto::whatsapp as wa;

use crate::account::public;
use crate::people::{Author, PRIMARY, World};
use crate::signal::Keys;
use crate::stanza::{bytes, now};
use crate::{Shared, State, media, rooms};

/// What signatures of devices begin with: the account's and the device's own.
const OF_ACCOUNT: [u8; 2] = [6, 0];
const OF_DEVICE: [u8; 2] = [6, 1];

/// Answers a query of the device that concerns people: `usync`, `encrypt` (the bundles of prekeys), `w:g2`, `w:m`.
/// Returns the children of the result or an error code, and `None` for a query that is not people's.
pub(crate) fn answers(shared: &Shared, query: &Node) -> Option<Result<Vec<Node>, u16>> {
    let namespace = query.attrs().optional_string("xmlns")?;
    match &*namespace {
        "usync" => Some(Ok(vec![usync(&shared.state(), query.get_optional_child("usync")?)])),
        "encrypt" => Some(Ok(vec![bundles(&mut shared.state(), query.get_optional_child("key")?)])),
        "w:g2" => rooms::answers(&shared.state(), query),
        "w:m" => query.get_optional_child("media_conn").map(|_| Ok(vec![media::connection(shared.address)])),
        _ => None,
    }
}

/// Says of each user what the query asks for.
fn usync(state: &State, query: &Node) -> Node {
    let asked: Vec<&str> = match query.get_optional_child("query").and_then(Node::children) {
        Some(protocols) => protocols.iter().map(|protocol| &*protocol.tag).collect(),
        None => Vec::new(),
    };
    let users =
        query.get_optional_child("list").into_iter().flat_map(|list| list.get_children_by_tag("user"));
    let users = users.filter_map(|user| answer_of_user(state, user, &asked));
    let list = NodeBuilder::new("list").children(users).build();
    let copied = |name: &str| query.attrs().optional_string(name).unwrap_or_default().into_owned();
    NodeBuilder::new("usync")
        .attr("sid", copied("sid"))
        .attr("mode", copied("mode"))
        .attr("context", copied("context"))
        .attr("index", "0")
        .attr("last", "true")
        .children([list])
        .build()
}

fn answer_of_user(state: &State, user: &Node, asked: &[&str]) -> Option<Node> {
    let phone = user.get_optional_child("contact").and_then(Node::content_as_string);
    let by_phone = phone.map(|phone| Jid::pn(phone.trim_start_matches('+')));
    let jid = user.attrs().optional_jid("jid").or(by_phone)?.to_non_ad();
    let human = state.people.find(&jid).map(|index| &state.people.people[index]);
    let is_account = state.is_account(&jid);
    let is_known = human.is_some() || is_account;
    let mut children = Vec::new();
    for protocol in asked {
        match *protocol {
            "contact" => {
                children.push(
                    NodeBuilder::new("contact").attr("type", if is_known { "in" } else { "out" }).build(),
                );
            }
            "lid" if is_known => {
                let lid = human.map_or_else(|| state.account.lid.clone(), |human| human.lid());
                children.push(NodeBuilder::new("lid").attr("val", lid).build());
            }
            "devices" if is_known => children.push(devices(&match human {
                Some(human) => human.devices.keys().copied().collect(),
                None => own_devices(state),
            })),
            _ => {}
        }
    }
    (!children.is_empty()).then(|| NodeBuilder::new("user").attr("jid", jid).children(children).build())
}

fn own_devices(state: &State) -> Vec<u16> {
    [PRIMARY].into_iter().chain(state.device.as_ref().map(|device| device.index)).collect()
}

fn devices(numbers: &[u16]) -> Node {
    let each = numbers.iter().map(|number| {
        let device = NodeBuilder::new("device").attr("id", number.to_string());
        if *number == PRIMARY { device } else { device.attr("key-index", number.to_string()) }.build()
    });
    let list = NodeBuilder::new("device-list").children(each).build();
    NodeBuilder::new("devices").children([list, key_index_list(numbers)]).build()
}

/// The list by which an account says which devices it has.
pub(crate) fn key_index_list(numbers: &[u16]) -> Node {
    let list = wa::ADVKeyIndexList {
        raw_id: Some(1),
        timestamp: Some(now()),
        current_index: numbers.iter().copied().max().map(u32::from),
        valid_indexes: numbers.iter().copied().map(u32::from).collect(),
        ..wa::ADVKeyIndexList::default()
    };
    let signed = wa::ADVSignedKeyIndexList {
        details: Some(waproto::codec::adv_key_index_list_to_vec(&list)),
        ..wa::ADVSignedKeyIndexList::default()
    };
    NodeBuilder::new("key-index-list")
        .attr("ts", now().to_string())
        .bytes(waproto::codec::adv_signed_key_index_list_to_vec(&signed))
        .build()
}

/// Gives the device what it needs to write to others first.
fn bundles(state: &mut State, asked: &Node) -> Node {
    let users: Vec<Node> = asked.get_children_by_tag("user").filter_map(|user| bundle(state, user)).collect();
    NodeBuilder::new("list").children(users).build()
}

fn bundle(state: &mut State, user: &Node) -> Option<Node> {
    let jid = user.attrs().optional_jid("jid")?;
    let children = state.author_of(&jid).and_then(|author| {
        let identity = identity_of_companion(&state.people, author);
        let (keys, _) = state.keys(author)?;
        bundle_node(jid.clone(), keys, identity)
    });
    let children = children.unwrap_or_else(|| {
        vec![NodeBuilder::new("error").attr("code", "406").attr("text", "not-acceptable").build()]
    });
    Some(NodeBuilder::new("user").attr("jid", jid).children(children).build())
}

/// Returns a fresh bundle of a phone as the children of a `<user>`.
pub(crate) fn bundle_node(jid: Jid, keys: &mut Keys, identity: Option<Vec<u8>>) -> Option<Vec<Node>> {
    let bundle = keys.bundle().ok()?;
    match PreKeyBundleUserNode::from_bundle(jid, &bundle, identity).ok()?.into_node().content? {
        NodeContent::Nodes(children) => Some(children),
        _ => None,
    }
}

/// Reads the bundle of the device in a receipt by which it asks for a message again.
pub(crate) fn read_bundle(receipt: &Node, keys: &Node) -> Option<PreKeyBundle> {
    let identity = PublicKey::from_djb_public_key_bytes(bytes(keys, "identity")?).ok()?;
    let one = OneTimePreKeyNode::try_from_node(keys.get_optional_child("key")?).ok()?;
    let signed = SignedPreKeyNode::try_from_node(keys.get_optional_child("skey")?).ok()?;
    PreKeyBundle::new(
        extract_registration_id_from_node(receipt)?,
        0.into(),
        Some((one.id.into(), PublicKey::from_djb_public_key_bytes(&one.public_bytes).ok()?)),
        signed.id.into(),
        PublicKey::from_djb_public_key_bytes(&signed.public_bytes).ok()?,
        signed.signature,
        IdentityKey::new(identity),
    )
    .ok()
}

/// Returns the proof that a person's second device belongs to the person. The phone itself needs none.
pub(crate) fn identity_of_companion(world: &World, author: Author) -> Option<Vec<u8>> {
    let Author::Person { index, device } = author else { return None };
    if device == PRIMARY {
        return None;
    }
    let devices = &world.people.get(index)?.devices;
    signed_identity(devices.get(&PRIMARY)?.identity(), devices.get(&device)?.identity())
}

/// Signs that a device belongs to an account, with the keys of both.
pub(crate) fn signed_identity(account: &IdentityKeyPair, device: &IdentityKeyPair) -> Option<Vec<u8>> {
    let key = |pair: &IdentityKeyPair| pair.public_key().public_key_bytes().to_vec();
    let details = waproto::codec::adv_key_index_list_to_vec(&wa::ADVKeyIndexList {
        raw_id: Some(1),
        timestamp: Some(now()),
        ..wa::ADVKeyIndexList::default()
    });
    let (account_key, device_key) = (key(account), key(device));
    let by_account = [&OF_ACCOUNT[..], &details, &device_key].concat();
    let by_device = [&OF_DEVICE[..], &details, &device_key, &account_key].concat();
    let signed = wa::ADVSignedDeviceIdentity {
        account_signature: Some(calculate_curve_signature(account.private_key(), &by_account).ok()?.to_vec()),
        device_signature: Some(calculate_curve_signature(device.private_key(), &by_device).ok()?.to_vec()),
        account_signature_key: Some(account_key),
        details: Some(details),
    };
    Some(waproto::codec::adv_signed_device_identity_to_vec(&signed))
}

/// Phones start a session with a linked device only if the message proves that it belongs to the account.
pub(crate) fn check_identity(state: &State, message: &Node) -> Result<(), String> {
    let Some(proof) = bytes(message, "device-identity") else {
        return Err("a first message without the identity of the device".into());
    };
    let Some(device) = &state.device else { return Err("a message of no device".into()) };
    match validate_adv_with_identity_key(proof, &device.identity, Some(&public(&state.account.identity))) {
        AdvValidation::Valid => Ok(()),
        _ => Err("a first message whose identity of the device is not signed by the account".into()),
    }
}
