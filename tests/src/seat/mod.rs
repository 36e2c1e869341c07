//! People on any platform, for the journeys that every channel must pass. A [`Stage`] is an install whose people are on
//! one platform, and a [`Seat`] is one person in one chat of it.

mod terminal;

use serde_json::Value;

use crate::telegram;
use crate::world::{Engine, World};
use terminal::AtTerminal;

/// A chat platform of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    Terminal,
    Telegram,
    WhatsApp,
}

impl Platform {
    pub const ALL: [Self; 3] = [Self::Terminal, Self::Telegram, Self::WhatsApp];

    pub fn name(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Telegram => "telegram",
            Self::WhatsApp => "whatsapp",
        }
    }

    /// Returns what the platform does not have. A terminal shows lines to one person, who can only write.
    pub fn lacks(self) -> &'static [&'static str] {
        match self {
            Self::Terminal => &[
                "rooms",
                "files from people",
                "a longest message",
                "replies",
                "reactions",
                "edits",
                "a typing sign",
            ],
            Self::Telegram | Self::WhatsApp => &[],
        }
    }
}

/// An install whose people are on one platform. Its host runs.
pub struct Stage {
    pub world: World,
    pub platform: Platform,
    /// Ann and Bob, if they are on WhatsApp.
    on_whatsapp: Option<[whatsapp_server::Person; 2]>,
}

/// A person in a chat.
pub struct Seat(At);

enum At {
    Terminal(AtTerminal),
    Telegram(telegram::Person, telegram::Chat),
    WhatsApp(whatsapp_server::Person, whatsapp_server::Chat),
}

/// A message of the host, as a person sees it.
pub struct Heard {
    pub text: String,
    pub file: Option<Vec<u8>>,
    /// The message that it quotes.
    pub quotes: Option<String>,
    original: Original,
}

enum Original {
    Terminal,
    Telegram(Box<telegram::SentMessage>),
    WhatsApp(Box<whatsapp_server::Received>),
}

const ANN: (i64, u64) = (5, 491_511_234_567);
const BOB: (i64, u64) = (6, 491_517_654_321);

impl Stage {
    /// Starts a host on the engine's stand-in, with this platform alone.
    pub async fn on(platform: Platform) -> Self {
        let mut world = World::on(Engine::stand_in().await).await;
        match platform {
            Platform::Terminal => drop(world.unset("TELEGRAM_BOT_TOKEN")),
            Platform::Telegram => {}
            Platform::WhatsApp => world = world.with_whatsapp().await,
        }
        let on_whatsapp = (platform == Platform::WhatsApp).then(|| {
            [(ANN.1, "Ann"), (BOB.1, "Bob")].map(|(number, name)| world.whatsapp().person(number, name))
        });
        world.up().await;
        Self { world, platform, on_whatsapp }
    }

    fn on_whatsapp(&self) -> &[whatsapp_server::Person; 2] {
        self.on_whatsapp.as_ref().unwrap_or_else(|| panic!("nobody is on WhatsApp"))
    }

    /// Seats Ann in her own chat, which belongs to the group `main`.
    pub async fn ann(&self) -> Seat {
        let seat = match self.platform {
            Platform::Terminal => return Seat(At::Terminal(AtTerminal::join(self.world.root()))),
            Platform::Telegram => {
                let ann = self.world.telegram.person(ANN.0, "Ann");
                let direct = ann.direct();
                Seat(At::Telegram(ann, direct))
            }
            Platform::WhatsApp => {
                let [ann, _] = self.on_whatsapp();
                Seat(At::WhatsApp(ann.clone(), ann.direct()))
            }
        };
        seat.says("hello?");
        self.world.admit(&seat.address(), "main").await;
        seat
    }

    /// Seats Ann and Bob in a room, which belongs to the group `family`.
    pub async fn room(&self) -> (Seat, Seat) {
        let seats = match self.platform {
            Platform::Terminal => panic!("a terminal has no rooms"),
            Platform::Telegram => {
                let telegram = &self.world.telegram;
                let room = telegram.room(-100_123, "Family");
                let people = [(ANN.0, "Ann"), (BOB.0, "Bob")].map(|(id, name)| telegram.person(id, name));
                people.map(|person| Seat(At::Telegram(person, room.clone())))
            }
            Platform::WhatsApp => {
                let [ann, bob] = self.on_whatsapp();
                let room = self.world.whatsapp().room(120_363_001, "Family", &[ann, bob]);
                [ann, bob].map(|person| Seat(At::WhatsApp(person.clone(), room.clone())))
            }
        };
        let [ann, bob] = seats;
        bob.says("who is this bot?");
        self.world.admit(&bob.address(), "family").await;
        (ann, bob)
    }

    /// Takes the platform away: its server, or the person at the terminal.
    pub async fn goes_away(&self, ann: &Seat) {
        match &ann.0 {
            At::Terminal(terminal) => terminal.leaves(),
            At::Telegram(..) => self.world.telegram.goes_away().await,
            At::WhatsApp(..) => self.world.whatsapp().goes_away().await,
        }
    }

    pub async fn comes_back(&self, ann: &Seat) {
        match &ann.0 {
            At::Terminal(terminal) => terminal.returns(),
            At::Telegram(..) => self.world.telegram.comes_back().await,
            At::WhatsApp(..) => self.world.whatsapp().comes_back().await,
        }
    }

    /// Waits for the next message that this person hears.
    pub async fn hears(&self, seat: &Seat) -> Heard {
        self.world.soon(&format!("{} hears something", seat.address()), seat.next()).await
    }

    /// Waits until this person has heard this text.
    pub async fn hears_text(&self, seat: &Seat, text: &str) {
        assert_eq!(self.hears(seat).await.text, text, "{}", self.world.log());
    }

    /// Returns a number from the host's database.
    pub fn count(&self, sql: &str) -> i64 {
        match self.world.database().query_row(sql, [], |r| r.get(0)) {
            Ok(count) => count,
            Err(e) => panic!("{sql}: {e}"),
        }
    }

    /// Returns the results of the agent's tools so far.
    pub fn results(&self) -> Vec<String> {
        self.world.model.tool_results()
    }

    /// Waits until the trace of a message shows that its turn is over and everything is sent.
    pub async fn settled(&self, message: &str) -> Value {
        self.world.settled(message).await
    }
}

impl Seat {
    /// Returns the chat's address in the host.
    pub fn address(&self) -> String {
        match &self.0 {
            At::Terminal(_) => terminal::ADDRESS.to_owned(),
            At::Telegram(_, chat) => chat.address(),
            At::WhatsApp(_, chat) => chat.address(),
        }
    }

    /// Writes a message, and returns its id.
    pub fn says(&self, text: &str) -> String {
        match &self.0 {
            At::Terminal(terminal) => terminal.says(text),
            At::Telegram(person, chat) => person.says(chat, text).to_string(),
            At::WhatsApp(person, chat) => person.says(chat, text),
        }
    }

    /// Writes a message that mentions the host's account.
    pub fn mentions(&self, text: &str) -> String {
        match &self.0 {
            At::Terminal(_) => self.lacks("rooms"),
            At::Telegram(person, chat) => {
                person.says(chat, &format!("@{} {text}", telegram::BOT_NAME)).to_string()
            }
            At::WhatsApp(person, chat) => person.mentions_device(chat, text),
        }
    }

    /// Writes a reply to a message of the host.
    pub fn answers(&self, to: &Heard, text: &str) -> String {
        match (&self.0, &to.original) {
            (At::Telegram(person, chat), Original::Telegram(to)) => {
                person.answers(chat, to, text).to_string()
            }
            (At::WhatsApp(person, chat), Original::WhatsApp(to)) => person.answers(chat, to, text),
            _ => self.lacks("replies"),
        }
    }

    pub fn edits(&self, message: &str, text: &str) {
        match &self.0 {
            At::Terminal(_) => drop(self.lacks("edits")),
            At::Telegram(person, chat) => person.edits(chat, number(message), text),
            At::WhatsApp(person, chat) => person.edits(chat, message, text),
        }
    }

    /// Sends a picture.
    pub fn shows(&self, picture: Vec<u8>, caption: &str) {
        match &self.0 {
            At::Terminal(_) => drop(self.lacks("files from people")),
            At::Telegram(person, chat) => {
                person.shows(chat, telegram::Photo { bytes: picture, caption: caption.to_owned() });
            }
            At::WhatsApp(person, chat) => drop(person.shows(chat, &picture, caption)),
        }
    }

    pub async fn sees_typing(&self) {
        match &self.0 {
            At::Terminal(_) => drop(self.lacks("a typing sign")),
            At::Telegram(_, chat) => chat.sees_typing().await,
            At::WhatsApp(_, chat) => chat.sees_typing().await,
        }
    }

    /// Waits until the host's account has put this reaction on a message of a person.
    pub async fn sees_reaction(&self, world: &World, message: &str, emoji: &str) {
        match &self.0 {
            At::Terminal(_) => drop(self.lacks("reactions")),
            At::Telegram(_, chat) => world.telegram.comes_to_react(chat, number(message), emoji).await,
            At::WhatsApp(_, chat) => chat.comes_to_react(message, emoji).await,
        }
    }

    /// Returns the texts that this person has not heard yet.
    pub fn unheard(&self) -> Vec<String> {
        let mut texts = match &self.0 {
            At::Terminal(terminal) => terminal.unheard(),
            At::Telegram(_, chat) => chat.unheard(),
            At::WhatsApp(_, chat) => chat.unheard(),
        };
        texts.retain(|text| !text.starts_with(telegram::ASKS));
        texts
    }

    async fn next(&self) -> Heard {
        match &self.0 {
            At::Terminal(terminal) => Heard::at_terminal(terminal.hears().await),
            At::Telegram(_, chat) => {
                let message = chat.hears_message().await;
                Heard {
                    text: message.text.clone(),
                    file: message.file.as_ref().map(|file| file.bytes.clone()),
                    quotes: message.quotes.map(|id| id.to_string()),
                    original: Original::Telegram(Box::new(message)),
                }
            }
            At::WhatsApp(_, chat) => loop {
                let message = chat.hears_message().await;
                if message.text.starts_with(telegram::ASKS) {
                    continue;
                }
                return Heard {
                    text: message.text.clone(),
                    file: message.file.as_ref().map(|file| file.bytes.clone()),
                    quotes: message.quotes.clone(),
                    original: Original::WhatsApp(Box::new(message)),
                };
            },
        }
    }

    fn lacks(&self, what: &str) -> String {
        panic!("{} has no {what}", self.address())
    }
}

impl Heard {
    /// The terminal shows where a file lies: `[file list, 1 KiB: /path]`.
    fn at_terminal(text: String) -> Self {
        let path = text.rsplit_once("[file ").and_then(|(_, rest)| rest.rsplit_once(": "));
        let file = path.and_then(|(_, path)| std::fs::read(path.trim_end().trim_end_matches(']')).ok());
        Self { text, file, quotes: None, original: Original::Terminal }
    }
}

/// Telegram's ids are numbers.
fn number(message: &str) -> i64 {
    message.parse().unwrap_or_else(|e| panic!("{message:?} is no message of Telegram: {e}"))
}
