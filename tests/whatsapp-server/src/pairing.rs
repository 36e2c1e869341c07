//! Linking: QR code, pair code, passkey.

use wacore_binary::Node;

use crate::session::Connection;
use crate::wire::WireError;
use crate::{Phone, Shared};

/// Why the phone does not link the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The phone's camera reads something else than a code of WhatsApp.
    NoCode,
    /// Nobody offers this code any more.
    Expired,
    /// No device asked for a code for this number.
    NobodyAsks,
    /// The code is another one than the device shows.
    WrongCode,
}

/// The connection that is to be linked, and how far it is.
#[derive(Default)]
pub(crate) struct Pairing {}

impl Pairing {
    pub(crate) fn closes(&mut self, _number: u64) {}
}

impl Phone {
    /// Scans the QR code of a device.
    pub fn scans(&self, _qr: &str) -> Result<(), Refused> {
        Err(Refused::Expired)
    }

    /// Types the code that a device shows. Waits until the phone knows whether it is the right one.
    pub async fn enters(&self, _code: &str) -> Result<(), Refused> {
        Err(Refused::NobodyAsks)
    }

    /// Waits until a device is linked and has logged in.
    pub async fn is_linked(&self) {
        self.shared.wait_for(|state| (state.device.is_some() && state.line.is_live()).then_some(())).await;
    }
}

/// Takes a stanza of a device that is not logged in.
pub(crate) fn takes(_shared: &Shared, _connection: &Connection, stanza: &Node) -> Result<(), WireError> {
    Err(WireError::Breach(format!("a device that is not linked sent a <{}>", stanza.tag)))
}
