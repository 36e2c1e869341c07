//! WhatsApp in a world: its server, the host that may talk to it, and the link of the account.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use whatsapp_server::WhatsAppServer;

use super::{PATIENCE, World, built};
use crate::qr;

/// The rate limits of what the host sends over WhatsApp, so high that no test waits for them.
const PACE: [(&str, &str); 2] = [
    ("LAZARET_CHANNELS_WHATSAPP_CHAT_BURST", "1000000"),
    ("LAZARET_CHANNELS_WHATSAPP_PER_MINUTE", "1000000"),
];

/// The number of the account that the host is linked to.
pub const ACCOUNT: &str = "+491510000001";

impl World {
    /// Puts WhatsApp in the place of Telegram: its server, and the host of the tests, which believes it. An account is
    /// linked. Call this before the host is up.
    pub async fn with_whatsapp(self) -> Self {
        let world = self.with_whatsapp_unlinked().await;
        world.links_whatsapp().await;
        world
    }

    /// Like [`World::with_whatsapp`], without a linked account.
    pub async fn with_whatsapp_unlinked(mut self) -> Self {
        let server = WhatsAppServer::start().await;
        self.program = built("LAZARET_WHATSAPP_BIN", "lazaret-for-test-server");
        self.set("LAZARET_CHANNELS_WHATSAPP_BASE_URL", &server.url());
        for (limit, value) in PACE {
            self.set(limit, value);
        }
        self.unset("TELEGRAM_BOT_TOKEN");
        // `lazaret link` refuses a root without an install, and the host writes no settings over these.
        if !self.root().join("lazaret.toml").exists() {
            self.write("lazaret.toml", "");
        }
        self.whatsapp = Some(server);
        self
    }

    /// Brings Telegram back beside WhatsApp.
    #[must_use]
    pub fn with_telegram(mut self) -> Self {
        self.set("TELEGRAM_BOT_TOKEN", crate::telegram::TOKEN);
        self
    }

    pub fn whatsapp(&self) -> &WhatsAppServer {
        match &self.whatsapp {
            Some(server) => server,
            None => panic!("this world has no WhatsApp: World::with_whatsapp"),
        }
    }

    /// Links the account by a code that is typed on its phone.
    pub async fn links_whatsapp(&self) {
        let mut linking = self.begins_to_link(&["--phone", ACCOUNT]);
        let code = linking.code().await;
        let typed = self.whatsapp().phone().enters(&code).await;
        assert!(typed.is_ok(), "the phone refuses {code}: {typed:?}");
        let (ended_well, told) = linking.ends().await;
        assert!(ended_well, "the account is not linked:\n{told}");
    }

    /// Runs `lazaret link whatsapp` with more arguments.
    pub fn begins_to_link(&self, more: &[&str]) -> LinkCommand {
        let mut command = self.command(&["link", "whatsapp"]);
        command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => panic!("lazaret cannot be run: {e}"),
        };
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            panic!("the command has no pipes")
        };
        LinkCommand { child, input, lines: BufReader::new(output).lines(), told: String::new() }
    }
}

/// A `lazaret link` at work. Dropping it kills it.
pub struct LinkCommand {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    told: String,
}

impl LinkCommand {
    /// Waits for a line that contains these words, and returns it.
    pub async fn says(&mut self, words: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Waits for the code that a person types on the phone: `ABCD-EFGH`.
    pub async fn code(&mut self) -> String {
        loop {
            let line = self.line().await;
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            if let Some(code) = words.into_iter().find(|word| is_code(word)) {
                return code.to_owned();
            }
        }
    }

    /// Waits for a QR code, and returns what it holds.
    pub async fn qr(&mut self) -> String {
        let mut drawn: Vec<String> = Vec::new();
        loop {
            let line = self.line().await;
            if qr::is_drawn(&line) {
                drawn.push(line);
                continue;
            }
            if let Some(content) = qr::read(&drawn) {
                return content;
            }
            drawn.clear();
        }
    }

    /// Pastes a line.
    pub async fn pastes(&mut self, line: &str) {
        if let Err(e) = self.input.write_all(format!("{line}\n").as_bytes()).await {
            panic!("nobody reads what is pasted: {e}\n{}", self.told);
        }
    }

    /// Waits until the command ends by itself. Returns whether it ended with success, and all that it has said.
    pub async fn ends(mut self) -> (bool, String) {
        while let Some(line) = self.next_line().await {
            self.told += &format!("{line}\n");
        }
        match tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await {
            Ok(Ok(output)) => (output.status.success(), self.told + &String::from_utf8_lossy(&output.stderr)),
            other => panic!("the link command does not end: {other:?}\n{}", self.told),
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    async fn line(&mut self) -> String {
        match self.next_line().await {
            Some(line) => {
                self.told += &format!("{line}\n");
                line
            }
            None => {
                let complaint = self.complaint().await;
                panic!("the link command ended too early:\n{}{complaint}", self.told)
            }
        }
    }

    async fn next_line(&mut self) -> Option<String> {
        match tokio::time::timeout(PATIENCE, self.lines.next_line()).await {
            Ok(line) => line.ok().flatten(),
            Err(_) => panic!("the link command says nothing more:\n{}", self.told),
        }
    }

    /// What the command wrote to its standard error.
    async fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            // The text is only for the panic.
            let _ = errors.read_to_string(&mut text).await;
        }
        text
    }
}

fn is_code(word: &str) -> bool {
    let half =
        |text: &str| text.len() == 4 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    word.split_once('-').is_some_and(|(a, b)| half(a) && half(b))
}
