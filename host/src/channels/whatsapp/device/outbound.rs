//! Sends parts. A repeat has the id of the first try, so that people's phones drop it.

use std::path::Path;

use whatsapp_rust::Client;

use super::acks::Acks;
use crate::channels::SendError;
use crate::domain::outbound::{Part, PartText, SpooledFile};

pub(super) fn split(_markdown: &str) -> Vec<PartText> {
    Vec::new()
}

pub(super) async fn send(_client: &Client, _acks: &Acks, _part: &Part) -> Result<String, SendError> {
    Err(SendError::Refused { why: "not built yet".into() })
}

pub(super) async fn send_file(
    _client: &Client,
    _acks: &Acks,
    _part: &Part,
    _file: &SpooledFile,
    _path: &Path,
) -> Result<String, SendError> {
    Err(SendError::Refused { why: "not built yet".into() })
}
