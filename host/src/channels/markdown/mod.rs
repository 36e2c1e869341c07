//! Markdown as a platform without Markdown shows it: a text and its formatting. Channels whose platform has a markup of
//! its own call it, and write what it gives in that markup. It does no I/O.

mod reader;
mod rich_text;
mod table;

pub use reader::{Dialect, read};
pub use rich_text::{Look, Mark, RichText, is_visible, units};
