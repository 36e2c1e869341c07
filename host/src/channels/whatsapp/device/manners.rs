//! What people see beside messages: that the agent writes, reactions, and read marks.

use whatsapp_rust::Client;

use crate::channels::ReactError;
use crate::domain::ChatId;

pub(super) async fn typing(_client: &Client, _chat: &ChatId) {}

pub(super) async fn react(
    _client: &Client,
    _chat: &ChatId,
    _message: &str,
    _emoji: Option<&str>,
) -> Result<(), ReactError> {
    Err(ReactError::Message("not built yet".into()))
}
