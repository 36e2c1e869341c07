//! Data types that every floor shares: the vocabulary of the product. They do no I/O, read no clock and use no
//! runtime.

pub mod chat;
pub mod ending;
pub mod group_authority;
pub mod group_settings;
pub mod image;
pub mod lane;
pub mod limits;
pub mod message;
pub mod moment;
pub mod outbound;
pub mod permission;
pub mod provider;
pub mod secret;
pub mod session;
pub mod settings_macro;
pub mod task;
pub mod transcription;

pub use chat::{ChannelName, ChatId, ChatKind, SenderId};
pub use ending::Ending;
pub use group_authority::Authority;
pub use ipc_schema::{GroupName, LetterId, MessageSeq, RunId, TurnId};
pub use lane::Lane;
pub use moment::{Moment, WallMs, Zone};
pub use provider::ProviderKind;
pub use secret::{Secret, SecretSource};
pub use session::Session;
pub use task::{FireId, TaskId};
