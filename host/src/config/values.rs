//! Checks values whose definition is only "text" or "a list": addresses, images, tools, and values that must fit each
//! other.

use reqwest::Url;

use ipc_schema::escaped;
use ipc_schema::names_and_paths::{RUN_COMMAND, TOOLS};

use super::schema::{GroupFile, InstallFile, ToolsFile, TriggerFile};
use super::{Mistake, Source, nearest};
use crate::channels::{ChannelsFile, Scheme};
use crate::domain::SenderId;
use crate::policy::image_verdict::check_name;
use crate::policy::letter_room;
use crate::policy::posture::acceptable;

/// The most bytes of a name in the agent's first letter.
const NAME_MAX: usize = 200;

pub(super) fn check_install(file: &InstallFile, source: &mut Source<'_>) {
    check_persona(Some(&file.persona), source);
    check_image(Some(&file.image), source);
    check_tools(&file.tools, source);
    check_length(&["model", "name"], file.model.name.as_ref(), source);
    check_answer_fits(file.model.max_tokens, file.model.window, source);
    on_known_channels("owners", file.owners.iter().map(SenderId::channel), source);
    if !file.engine.socket.starts_with("unix:///") {
        let what = format!("engine.socket = {:?} is no socket of this machine", file.engine.socket);
        let hint = "boxes mount directories of this machine; write unix:///PATH";
        source.refuse(&["engine", "socket"], Mistake::from(what).hint(hint));
    }
    for (n, name) in file.engine.accept.iter().enumerate() {
        if let Err(why) = acceptable(name) {
            source.refuse(&["engine", "accept", &n.to_string()], why);
        }
    }
    for channel in file.channels.all() {
        for (key, url, scheme) in channel.urls() {
            if let Err(why) = check_url_of(url, scheme) {
                let name = channel.name();
                source.refuse(&["channels", name.as_str(), key], format!("{key} = {url:?} {why}"));
            }
        }
    }
}

pub(super) fn check_group(file: &GroupFile, source: &mut Source<'_>) {
    check_persona(file.persona.as_ref(), source);
    check_image(file.image.as_ref(), source);
    file.tools.iter().for_each(|tools| check_tools(tools, source));
    let model = file.model.as_ref().and_then(|model| model.name.as_ref()).and_then(Option::as_ref);
    check_length(&["model", "name"], model, source);
    on_known_channels("chats", file.chats.iter().map(|chat| chat.channel()), source);
    on_known_channels("senders", file.senders.iter().flatten().map(SenderId::channel), source);
    if let TriggerFile::Words(words) = &file.trigger {
        if words.is_empty() {
            source.refuse(&["trigger"], "trigger has no word; leave it out, or write \"addressed\"");
        }
        for (n, _) in words.iter().enumerate().filter(|(_, word)| word.trim().is_empty()) {
            source.refuse(&["trigger", &n.to_string()], "this word is empty");
        }
    }
}

/// Refuses an address that no call can use.
///
/// # Errors
/// What is wrong, to follow the address.
pub(super) fn check_url(text: &str) -> Result<(), &'static str> {
    check_url_of(text, Scheme::Http)
}

fn check_url_of(text: &str, scheme: Scheme) -> Result<(), &'static str> {
    let (schemes, why) = match scheme {
        Scheme::Http => (["http", "https"], "begins with neither http:// nor https://"),
        Scheme::WebSocket => (["ws", "wss"], "begins with neither ws:// nor wss://"),
    };
    if !text.split_once("://").is_some_and(|(scheme, _)| schemes.contains(&scheme)) {
        return Err(why);
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("holds a blank");
    }
    match Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => Err("holds a name or password"),
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Err("has more than an address and a path")
        }
        Ok(url) if url.port() == Some(0) => Err("has the port 0"),
        Ok(_) => Ok(()),
        Err(_) => Err("is no address such as \"https://example.org/v1\""),
    }
}

/// The answer is a part of the window.
pub(super) fn check_answer_fits(max_tokens: u32, window: u32, source: &mut Source<'_>) {
    if max_tokens >= window {
        let what = format!("model.max_tokens = {max_tokens} leaves no room in model.window = {window}");
        let key = if source.has(&["model", "max_tokens"]) { "max_tokens" } else { "window" };
        source.refuse(&["model", key], what);
    }
}

fn check_persona(persona: Option<&String>, source: &mut Source<'_>) {
    if persona.is_some_and(|persona| persona.trim().is_empty()) {
        source.refuse(&["persona"], "persona is empty: people need a name to call the agent");
    }
    check_length(&["persona"], persona, source);
}

/// Refuses a name that takes too much of the agent's first letter.
fn check_length(keys: &[&str], name: Option<&String>, source: &mut Source<'_>) {
    if let Some(bytes) = name.map(|name| escaped::len(name)).filter(|bytes| *bytes > NAME_MAX) {
        source.refuse(keys, format!("{} has {bytes} bytes; a name has at most {NAME_MAX}", keys.join(".")));
    }
}

fn check_image(image: Option<&String>, source: &mut Source<'_>) {
    if let Some(Err(why)) = image.map(|image| check_name(image)) {
        source.refuse(&["image"], why);
    }
}

fn check_tools(tools: &ToolsFile, source: &mut Source<'_>) {
    let bytes = tools.rules.iter().map(|rule| letter_room::rule_bytes(&rule.tool, rule.command.as_deref()));
    let bytes: usize = bytes.sum();
    if bytes > letter_room::RULES {
        let what = format!(
            "the rules take {bytes} bytes of the agent's first letter; at most {}",
            letter_room::RULES
        );
        source.refuse(
            &["tools", "rules"],
            Mistake::from(what).hint("use fewer rules, with patterns for several commands"),
        );
    }
    for (n, rule) in tools.rules.iter().enumerate() {
        let n = n.to_string();
        if !TOOLS.contains(&rule.tool.as_str()) {
            let what = Mistake::from(format!("there is no tool {:?}", rule.tool));
            let hint = match nearest(&rule.tool, TOOLS.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are: {}", TOOLS.join(", ")),
            };
            source.refuse(&["tools", "rules", &n, "tool"], what.hint(hint));
        } else if let Some(command) = &rule.command {
            let keys = ["tools", "rules", &n, "command"];
            if rule.tool != RUN_COMMAND {
                source.refuse(&keys, format!("only {RUN_COMMAND} has a command; {} has none", rule.tool));
            } else if command.trim().is_empty() {
                source.refuse(&keys, "an empty pattern fits no command; leave it out to name every command");
            }
        }
    }
}

/// Refuses addresses of channels that this build does not have.
fn on_known_channels<'a>(key: &str, channels: impl Iterator<Item = &'a str>, source: &mut Source<'_>) {
    let known = ChannelsFile::default();
    for (n, name) in channels.enumerate().filter(|(_, name)| known.named(name).is_none()) {
        let names: Vec<&str> = known.all().map(|channel| channel.name().as_str()).collect();
        let what = Mistake::from(format!("there is no channel {name:?}"));
        source.refuse(&[key, &n.to_string()], what.hint(format!("there are: {}", names.join(", "))));
    }
}
