//! The WhatsApp channel. This host is one linked device of an account, beside the phone. It is an unofficial client:
//! WhatsApp may end the link, or ban the number.
//!
//! The settings exist in every build. The rest uses the library `whatsapp-rust` and is behind the cargo feature
//! `whatsapp`. Nothing outside this folder knows the library, so an upgrade touches one folder.

#[cfg(feature = "whatsapp")]
mod device;
#[cfg(all(feature = "whatsapp", any(test, fuzzing)))]
pub mod fuzz_targets;
#[cfg(any(feature = "whatsapp", test, fuzzing))]
mod markup;
mod settings;

#[cfg(any(test, fuzzing))]
pub use markup::check_reply;
#[cfg(test)]
pub use markup::rendered_reply;
pub use settings::WhatsAppSettings;

use crate::domain::ChannelName;

const NAME: ChannelName = ChannelName::new("whatsapp");
/// What the local part of a room's id ends with (`whatsapp:12036302@g.us`). A person's chat is the phone number alone
/// (`whatsapp:491511234567`), or `NUMBER@lid` while WhatsApp does not tell the phone number.
const ROOM: &str = "@g.us";
