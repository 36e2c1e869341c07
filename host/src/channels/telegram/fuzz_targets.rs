//! The fuzz targets of this channel: what they do with incoming and outgoing text, and what must hold.

use super::html::read_html;
use super::rendered_part::RenderedPart;
use super::split::{TEXT_UNITS, parts};
use super::update::{self, Me, News};
use crate::channels::markdown::units;
use crate::domain::message::Inbound;
use crate::domain::outbound::Voice;
use crate::text;

/// Parses an update as the poll does: it must give a message of this channel, or a reason.
pub fn update(data: &[u8]) -> Option<Inbound> {
    let text = String::from_utf8_lossy(data);
    let read = update::read(&text, &Me { id: 7, username: "laz_bot".into() });
    let Ok(News::Message { inbound, .. }) = read.news else { return None };
    assert!(read.update_id.is_some(), "a message in what is no update");
    assert_eq!(inbound.chat.channel(), super::NAME.as_str());
    assert_eq!(inbound.sender.id.channel(), super::NAME.as_str());
    Some(*inbound)
}

/// Splits and renders an agent's reply. Each part fits, every tag is closed in order, markup removes no text, and no
/// part looks like a notice.
pub fn reply(data: &[u8]) {
    for part in parts(&String::from_utf8_lossy(data)) {
        let RenderedPart { html, plain } =
            RenderedPart::of(Voice::Reply, &part.text, part.markup.as_deref(), TEXT_UNITS);
        balanced(&html);
        let seen = read_html(&html).text;
        assert!(units(&seen) <= TEXT_UNITS, "{} units", units(&seen));
        assert!(!text::looks_like_notice(&seen) && !text::looks_like_notice(&plain), "{seen}\n{plain}");
    }
}

fn balanced(html: &str) {
    let mut open = Vec::new();
    for tag in html.split('<').skip(1) {
        let Some((tag, _)) = tag.split_once('>') else { panic!("a tag has no end in {html}") };
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{html}"),
            None => open.push(tag.split(' ').next().unwrap_or_default()),
        }
    }
    assert!(open.is_empty(), "{open:?} stay open in {html}");
}
