//! Small helpers to read and to build stanzas.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeContent, SERVER_JID};

/// Returns an attribute, or nothing at all if it is missing.
pub(crate) fn attr(stanza: &Node, key: &str) -> String {
    stanza.attrs.get(key).map(|value| value.as_str().into_owned()).unwrap_or_default()
}

/// Returns the bytes of a child.
pub(crate) fn bytes<'a>(stanza: &'a Node, child: &str) -> Option<&'a [u8]> {
    content(stanza.get_optional_child(child)?)
}

/// Returns the bytes that a stanza contains.
pub(crate) fn content(stanza: &Node) -> Option<&[u8]> {
    match stanza.content.as_ref()? {
        NodeContent::Bytes(bytes) => Some(bytes),
        NodeContent::String(text) => Some(text.as_bytes()),
        NodeContent::Nodes(_) => None,
    }
}

/// Returns the first child.
pub(crate) fn first(stanza: &Node) -> Option<&Node> {
    stanza.children()?.first()
}

/// A child with bytes.
pub(crate) fn with_bytes(tag: &'static str, bytes: impl Into<Vec<u8>>) -> Node {
    NodeBuilder::new(tag).bytes(bytes).build()
}

/// The answer to a query.
pub(crate) fn result(query: &Node, children: Vec<Node>) -> Node {
    let result =
        NodeBuilder::new("iq").attr("from", SERVER_JID).attr("id", attr(query, "id")).attr("type", "result");
    if children.is_empty() { result.build() } else { result.children(children).build() }
}

/// The refusal of a query.
pub(crate) fn refusal(query: &Node, code: u16, text: &str) -> Node {
    let error = NodeBuilder::new("error").attr("code", code.to_string()).attr("text", text).build();
    let refusal =
        NodeBuilder::new("iq").attr("from", SERVER_JID).attr("id", attr(query, "id")).attr("type", "error");
    refusal.children([error]).build()
}

/// A notification of the server.
pub(crate) fn notification(id: String, kind: &str, child: Node) -> Node {
    let notification =
        NodeBuilder::new("notification").attr("from", SERVER_JID).attr("id", id).attr("type", kind);
    notification.attr("t", now().to_string()).children([child]).build()
}

/// The time in seconds, as stanzas have it.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
