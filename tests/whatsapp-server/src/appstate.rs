//! The state that the devices of an account share. Here that is the account's name, in the collection in which WhatsApp
//! keeps it, encrypted with a key that the phone gives to the device.

use buffa::Message as _;
use wacore::appstate::hash::{HashState, generate_patch_mac};
use wacore::appstate::{encode_record, expand_app_state_keys};
use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;
use waproto::whatsapp::message::protocol_message::Type;
use waproto::whatsapp::message::{
    AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId,
    AppStateSyncKeyShare, ProtocolMessage,
};
use waproto::whatsapp::sync_action_value::PushNameSetting;
use waproto::whatsapp::syncd_mutation::SyncdOperation;
use waproto::whatsapp::{KeyId, Message, SyncActionValue, SyncdPatch, SyncdVersion};

use crate::account::Account;
use crate::stanza::{attr, with_bytes};

/// The collection with the account's name.
const CRITICAL: &str = "critical_block";
const KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];

/// The message by which the phone gives the key to the device.
pub(crate) fn key_share(account: &Account) -> Message {
    let data = AppStateSyncKeyData {
        key_data: Some(account.app_state_key.to_vec()),
        fingerprint: AppStateSyncKeyFingerprint {
            raw_id: Some(1),
            current_index: Some(0),
            device_indexes: (0..=account.devices.into()).collect(),
        }
        .into(),
        timestamp: Some(1),
    };
    let id = AppStateSyncKeyId { key_id: Some(KEY_ID.to_vec()) };
    let share =
        AppStateSyncKeyShare { keys: vec![AppStateSyncKey { key_id: id.into(), key_data: data.into() }] };
    let protocol = ProtocolMessage {
        r#type: Some(Type::APP_STATE_SYNC_KEY_SHARE),
        app_state_sync_key_share: share.into(),
        ..ProtocolMessage::default()
    };
    Message { protocol_message: protocol.into(), ..Message::default() }
}

/// Answers a query for collections: each is empty but the one with the name.
pub(crate) fn answers(account: &Account, sync: &Node) -> Node {
    let collections = sync.get_children_by_tag("collection").map(|asked| {
        let name = attr(asked, "name");
        let has = attr(asked, "version").parse().unwrap_or(0u64);
        let collection = NodeBuilder::new("collection").attr("name", &name);
        if name != CRITICAL || has > 0 {
            return collection.attr("version", has.to_string()).build();
        }
        let patch = with_bytes("patch", name_patch(account).encode_to_vec());
        let patches = NodeBuilder::new("patches").children([patch]).build();
        collection.attr("version", "1").children([patches]).build()
    });
    NodeBuilder::new("sync").children(collections).build()
}

/// The patch that sets the account's name.
fn name_patch(account: &Account) -> SyncdPatch {
    let keys = expand_app_state_keys(&account.app_state_key);
    let value = SyncActionValue {
        push_name_setting: PushNameSetting { name: Some(account.name.clone()) }.into(),
        timestamp: Some(1),
        ..SyncActionValue::default()
    };
    let index = br#"["setting_pushName"]"#;
    let (mutation, _) = encode_record(SyncdOperation::SET, index, &value, &keys, &KEY_ID, &[7; 16], 1);
    let mut state = HashState { version: 1, ..HashState::default() };
    // The collection was empty: nothing has a value before.
    let _ = state.update_hash(std::slice::from_ref(&mutation), |_, _| Ok(None));
    let mut patch = SyncdPatch {
        version: SyncdVersion { version: Some(1) }.into(),
        mutations: vec![mutation],
        snapshot_mac: Some(state.generate_snapshot_mac(CRITICAL, &keys.snapshot_mac)),
        key_id: KeyId { id: Some(KEY_ID.to_vec()) }.into(),
        ..SyncdPatch::default()
    };
    patch.patch_mac = Some(generate_patch_mac(&patch, CRITICAL, &keys.patch_mac, 1));
    patch
}
