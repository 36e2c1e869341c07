//! Data types that every floor shares: the vocabulary of the product. They do no I/O, read no clock and use no
//! runtime.

pub mod authority;
pub mod chat;
pub mod group;
pub mod image;
pub mod lane;
pub mod limits;
pub mod message;
pub mod moment;
pub mod outbound;
pub mod provider;
pub mod run;
pub mod secret;
pub mod settings;

pub use authority::Authority;
pub use chat::{ChannelName, ChatId, ChatKind, SenderId};
pub use ipc_schema::{GroupName, LetterId, MessageSeq, RunId, TurnId};
pub use lane::Lane;
pub use moment::{Moment, WallMs, Zone};
pub use provider::ProviderKind;
pub use run::Ending;
pub use secret::{Secret, SecretSource};
