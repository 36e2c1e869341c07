//! Links this host as a device of an account, and ends the link. A command runs this in a process of its own, beside a
//! host or without one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, timeout_at};
use whatsapp_rust::Client;
use whatsapp_rust::bot::Bot;
use whatsapp_rust::passkey::{Assertion, AssertionRequest, CallbackAuthenticator, PasskeyError};
use whatsapp_rust::types::events::{Event, EventHandler};

use super::super::WhatsAppSettings;
use super::client::{self, Use};
use super::credentials::{Credentials, account, has_ended};
use super::life::{forget, not_linked};
use super::link_words as words;
use super::network::Network;
use super::session::{self, GONE, Hook, UNREACHED};
use super::{orders, passkey, trouble};
use crate::channels::Account;
use crate::channels::linking::{LinkError, LinkRequest, LinkState, LinkStep, Linked, Linking};
use crate::host_files::blocking;

/// The server gives some codes at once, which last for about three minutes. After so many rounds the command ends.
const ROUNDS: u32 = 3;
/// How long the server may take until its first code, and until a login.
const ANSWERS_WITHIN: Duration = Duration::from_secs(45);
/// How long a login may take once the phone has confirmed. The library waits up to a minute for what was written
/// meanwhile, and up to three for the account's settings.
const LOGGED_IN_WITHIN: Duration = Duration::from_secs(270);
/// How long the command tries to reach a server that it cannot reach.
const REACHED_WITHIN: Duration = Duration::from_secs(6);
/// How long a person may take for what they must do in a browser.
const PERSON_WITHIN: Duration = Duration::from_secs(600);
/// How much longer than a code's own time the command waits.
const MARGIN: Duration = Duration::from_secs(30);

pub(in super::super) struct Link {
    settings: WhatsAppSettings,
    credentials: Credentials,
}

impl Link {
    pub fn new(settings: WhatsAppSettings, folder: &Path) -> Self {
        Self { settings, credentials: Credentials::of(folder) }
    }

    fn network(&self) -> Result<Network, LinkError> {
        Network::to(&self.settings.base_url).map_err(|why| words::no_network(&why))
    }
}

/// Passes the library's events on.
struct Events(UnboundedSender<Arc<Event>>);

impl EventHandler for Events {
    fn handle_event(&self, event: Arc<Event>) {
        let _ = self.0.send(event);
    }
}

/// The person at the terminal.
#[derive(Clone)]
struct Person {
    steps: mpsc::Sender<LinkStep>,
    pasted: Arc<Mutex<mpsc::Receiver<String>>>,
}

impl Person {
    /// Shows a step. Nobody may be there any more: then the command ends by itself.
    async fn show(&self, step: LinkStep) {
        let _ = self.steps.send(step).await;
    }

    async fn progress(&self, what: &str) {
        self.show(LinkStep::Progress(what.to_owned())).await;
    }

    /// Waits for a line; `None` if there is no more input.
    async fn pastes(&self, what_to_do: String) -> Option<String> {
        self.show(LinkStep::Paste { what_to_do }).await;
        self.pasted.lock().await.recv().await
    }

    async fn ask_for_passkey(&self, request: AssertionRequest) -> Result<Assertion, PasskeyError> {
        let line = passkey::javascript(&request).map_err(PasskeyError::InvalidOptions)?;
        let mut pasted = self.pastes(words::run_this(&line)).await;
        loop {
            let Some(line) = pasted else { return Err(PasskeyError::Cancelled) };
            match passkey::assertion(&line, &request) {
                Ok(assertion) => return Ok(assertion),
                Err(why) => pasted = self.pastes(words::pasted_wrong(&why)).await,
            }
        }
    }
}

/// How a round of codes ends.
enum Round {
    Linked(Account),
    /// Nobody has confirmed.
    Expired,
}

#[async_trait]
impl Linking for Link {
    fn state(&self) -> LinkState {
        self.credentials.state()
    }

    async fn link(
        &self,
        request: LinkRequest,
        steps: mpsc::Sender<LinkStep>,
        pasted: mpsc::Receiver<String>,
    ) -> Result<Linked, LinkError> {
        let phone = request.phone.as_deref().map(words::digits).transpose()?;
        if let LinkState::Linked(account) = self.state() {
            return Err(words::already(&account));
        }
        let network = self.network()?;
        let credentials = self.credentials.clone();
        let new = blocking(move || credentials.begin()).await.map_err(words::files)?;
        let new = new.ok_or_else(words::in_progress)?;
        let person = Person { steps, pasted: Arc::new(Mutex::new(pasted)) };
        person.progress(words::CONNECTING).await;
        let mut left = ROUNDS;
        let account = loop {
            match round(&network, &new.path(), phone.as_deref(), &person).await? {
                Round::Linked(account) => break account,
                Round::Expired if left > 1 => person.progress(words::NEW_ROUND).await,
                Round::Expired => return Err(words::nobody(ROUNDS)),
            }
            left -= 1;
        };
        blocking(move || new.keep()).await.map_err(words::files)?;
        let in_use = orders::look(self.credentials.folder()).await;
        Ok(Linked { account, in_use })
    }

    async fn unlink(&self) -> Result<String, LinkError> {
        if let Some(unlinked) = orders::unlink(self.credentials.folder()).await {
            return unlinked;
        }
        let state = self.state();
        if state == LinkState::NotLinked {
            return Err(not_linked());
        }
        let lock = self.credentials.hold().map_err(words::files)?;
        let Some(_lock) = lock else { return Err(words::keys_in_use()) };
        let told = match state {
            LinkState::Linked(_) => self.unlink_at_server().await,
            LinkState::Broken { code, .. } if has_ended(code) => GONE.to_owned(),
            LinkState::NotLinked | LinkState::Broken { .. } => UNREACHED.to_owned(),
        };
        forget(&self.credentials, told).await
    }
}

impl Link {
    /// Logs in, and ends the link. Returns what the person is told.
    async fn unlink_at_server(&self) -> String {
        let Ok(network) = self.network() else { return UNREACHED.to_owned() };
        let (bot, mut events) = match build(&network, &self.credentials.keys(), Use::Unlink).await {
            Ok(built) => built,
            Err(_) => return UNREACHED.to_owned(),
        };
        let client = bot.client();
        let mut running = bot.spawn();
        let deadline = Instant::now() + ANSWERS_WITHIN;
        let told = loop {
            let Ok(Some(event)) = timeout_at(deadline, events.recv()).await else {
                break UNREACHED.to_owned();
            };
            match &*event {
                Event::Connected(_) => break session::unlink(&client, &mut events).await,
                event => match trouble::of(event) {
                    Some(trouble) if has_ended(trouble.code) => break GONE.to_owned(),
                    Some(_) => break UNREACHED.to_owned(),
                    None => {}
                },
            }
        };
        client::close(&mut running).await;
        told
    }
}

async fn build(
    network: &Network,
    keys: &Path,
    what_for: Use<Hook>,
) -> Result<(Bot, UnboundedReceiver<Arc<Event>>), LinkError> {
    let (sender, events) = mpsc::unbounded_channel();
    let bot = client::build(network, keys, Events(sender), what_for).await.map_err(words::files)?;
    Ok((bot, events))
}

/// Shows codes until the server has no more, or the account is linked and this device is logged in.
async fn round(
    network: &Network,
    keys: &Path,
    phone: Option<&str>,
    person: &Person,
) -> Result<Round, LinkError> {
    let (bot, mut events) = build(network, keys, Use::Link(phone.map(str::to_owned))).await?;
    let client = bot.client();
    let prover = person.clone();
    let authenticator = CallbackAuthenticator::new(move |request| {
        let prover = prover.clone();
        Box::pin(async move { prover.ask_for_passkey(request).await })
    });
    client.set_passkey_authenticator(Arc::new(authenticator)).await;
    let mut running = bot.spawn();
    let mut at = Pairing { by_code: phone.is_some(), ..Pairing::new() };
    let end = loop {
        let event = match timeout_at(at.deadline, events.recv()).await {
            Ok(Some(event)) => event,
            Err(_) if at.has_more_time(network) => continue,
            Ok(None) | Err(_) => break at.on_timeout(network),
        };
        match at.handle_event(&client, person, &event).await {
            Ok(None) => {}
            Ok(Some(round)) => break Ok(round),
            Err(e) => break Err(e),
        }
    };
    client::close(&mut running).await;
    end
}

/// Where a round is.
struct Pairing {
    by_code: bool,
    stage: Stage,
    deadline: Instant,
    /// The server has got more time for its first code.
    is_slow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// A code is shown.
    Shown,
    /// The person proves the account's passkey in a browser.
    Passkey,
    /// The person has confirmed that both codes are the same.
    Compared,
    /// The phone has confirmed.
    Confirmed,
}

impl Pairing {
    fn new() -> Self {
        Self {
            by_code: false,
            stage: Stage::Connecting,
            deadline: Instant::now() + REACHED_WITHIN,
            is_slow: false,
        }
    }

    fn is_at(&mut self, stage: Stage, within: Duration) {
        self.stage = stage;
        self.deadline = Instant::now() + within;
    }

    /// Gives a server that can be reached, and is slow, more time for its first code.
    fn has_more_time(&mut self, network: &Network) -> bool {
        let more = self.stage == Stage::Connecting && !self.is_slow && !network.has_failed();
        if more {
            self.is_slow = true;
            self.deadline = Instant::now() + ANSWERS_WITHIN;
        }
        more
    }

    /// Nothing has happened for too long.
    fn on_timeout(&self, network: &Network) -> Result<Round, LinkError> {
        match self.stage {
            Stage::Connecting => Err(words::no_code(network.failure(), ANSWERS_WITHIN)),
            Stage::Shown => Ok(Round::Expired),
            Stage::Passkey => Err(words::no_passkey(PERSON_WITHIN)),
            Stage::Compared => Err(words::no_confirmation(ANSWERS_WITHIN)),
            Stage::Confirmed => Err(words::no_login()),
        }
    }

    /// Shows what an event means. Returns how the round ends; `None` if it goes on.
    async fn handle_event(
        &mut self,
        client: &Client,
        person: &Person,
        event: &Event,
    ) -> Result<Option<Round>, LinkError> {
        match event {
            Event::PairingQrCode(qr) if !self.by_code => {
                if self.stage == Stage::Connecting {
                    person.progress(words::SCAN).await;
                }
                person.show(LinkStep::Qr { content: qr.code.clone(), valid_for: qr.timeout }).await;
                self.is_at(Stage::Shown, qr.timeout + MARGIN);
            }
            Event::PairingCode(code) => {
                person.progress(words::TYPE).await;
                let (code, valid_for) = (words::grouped(&code.code), code.timeout);
                person.show(LinkStep::Code { code, valid_for }).await;
                self.is_at(Stage::Shown, valid_for + MARGIN);
            }
            Event::PairingCodeRefresh(_) => return Ok(Some(Round::Expired)),
            Event::PairingQrCodesExhausted(_) if !self.by_code => return Ok(Some(Round::Expired)),
            Event::PairingCodeError(refused) => return Err(words::code_refused(refused)),
            Event::QrScannedWithoutMultidevice(_) => return Err(words::old_phone()),
            Event::PairPasskeyRequest(_) => self.is_at(Stage::Passkey, PERSON_WITHIN),
            Event::PairPasskeyConfirmation(shown) if !shown.skip_handoff_ux => {
                let answer = tokio::time::timeout(PERSON_WITHIN, person.pastes(words::compare(&shown.code)));
                match answer.await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Err(words::no_input()),
                    Err(_) => return Err(words::not_compared(PERSON_WITHIN)),
                }
                client
                    .send_passkey_confirmation()
                    .await
                    .map_err(|e| words::passkey_refused(&e.to_string()))?;
                self.is_at(Stage::Compared, ANSWERS_WITHIN);
            }
            Event::PairPasskeyError(refused) => return Err(words::passkey_refused(&refused.error)),
            Event::PairError(refused) => return Err(words::pair_refused(&refused.error)),
            Event::PairSuccess(_) => {
                person.progress(words::CONFIRMED).await;
                self.is_at(Stage::Confirmed, LOGGED_IN_WITHIN);
            }
            // The server lets this device in: the link holds.
            Event::Connected(_) => {
                if let Some(jid) = client.pn() {
                    return Ok(Some(Round::Linked(account(&jid.to_string(), &client.push_name()))));
                }
            }
            other => {
                if let Some(trouble) = trouble::of(other) {
                    return Err(LinkError { code: trouble.code, why: trouble.why });
                }
            }
        }
        Ok(None)
    }
}
