//! Logins: what the server says to a device that has finished its handshake.

use crate::Shared;
use crate::session::Connection;
use crate::wire::{Hello, WireError};

/// Greets a device: it logs in, or begins to be linked, or is told why it may not.
pub(crate) fn greets(_shared: &Shared, _connection: &Connection, _hello: &Hello) -> Result<(), WireError> {
    Ok(())
}
