//! `lazaret link` links an account of a chat platform to this host, and `lazaret unlink` ends the link. The channel
//! says what the person must do; this file shows it.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::chat::lines_of_stdin;
use super::{CliError, Done, Here, linked};
use crate::channels::linking::{LinkRequest, LinkStep, Linking};
use crate::terminal_output::{safe, safe_line};
use crate::text;

/// The exit code after Ctrl-C, as shells give it.
const INTERRUPTED: u8 = 130;

/// Link an account of a chat platform to this host. It ends by itself when the account is linked.
#[derive(Debug, Args)]
pub struct Link {
    /// The channel.
    channel: String,
    /// Link with a code that you type on the phone, instead of a QR code: the account's number with its country code.
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
}

/// End the link of an account, and remove its keys, also while the host runs.
#[derive(Debug, Args)]
pub struct Unlink {
    /// The channel.
    channel: String,
}

pub(super) async fn run(here: &Here, wanted: Link) -> Done {
    let linking = linking(here, &wanted.channel)?;
    let (mut interrupted, mut terminated) =
        (ctrl_c(SignalKind::interrupt())?, ctrl_c(SignalKind::terminate())?);
    let (steps, mut shown) = mpsc::channel(16);
    let mut screen = Screen::of(here);
    let linked = linking.link(LinkRequest { phone: wanted.phone }, steps, lines_of_stdin());
    tokio::pin!(linked);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let linked = loop {
        tokio::select! {
            biased;
            Some(step) = shown.recv() => screen.show(&step)?,
            linked = &mut linked => break linked?,
            _ = ticks.tick() => screen.tick(),
            _ = interrupted.recv() => return Ok(ExitCode::from(INTERRUPTED)),
            _ = terminated.recv() => return Ok(ExitCode::from(INTERRUPTED)),
        }
    };
    linked::tell(here, &wanted.channel, &linked).await
}

pub(super) async fn unlink(here: &Here, wanted: Unlink) -> Done {
    let told = linking(here, &wanted.channel)?.unlink().await?;
    here.print(&json!({ "unlinked": wanted.channel, "told": told }), &told);
    Ok(ExitCode::SUCCESS)
}

fn ctrl_c(kind: SignalKind) -> Result<tokio::signal::unix::Signal, CliError> {
    signal(kind).map_err(|e| CliError::Plain(format!("the command cannot take Ctrl-C: {e}")))
}

/// Returns the channel's means to link an account.
fn linking(here: &Here, name: &str) -> Result<Box<dyn Linking>, CliError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    here.is_install()?;
    let install = here.install()?;
    let channels = &install.file.channels;
    let Some(settings) = channels.named(name) else {
        let links = |folder| {
            channels.all().filter(move |c| c.linking(folder).is_some()).map(|c| c.name().to_string())
        };
        let names: Vec<String> = links(here.root.path()).collect();
        let names = if names.is_empty() { "none in this build".to_owned() } else { names.join(", ") };
        return Err(CliError::Plain(format!(
            "there is no channel {:?}; channels that link an account: {names}",
            safe_line(name)
        )));
    };
    if let Some(missing) = settings.missing() {
        return Err(CliError::Plain(missing.to_owned()));
    }
    settings.linking(&here.root.channel_folder(&settings.name())).ok_or_else(|| {
        let variable = settings.secret().map(|secret| format!("; it takes a token: {}", secret.variable));
        CliError::Plain(format!("the channel {name} links no account{}", variable.unwrap_or_default()))
    })
}

/// What the person sees.
struct Screen {
    json: bool,
    terminal: bool,
    /// The lines of the code that stands at the end of the screen.
    drawn: usize,
    valid_until: Option<Instant>,
}

impl Screen {
    fn of(here: &Here) -> Self {
        let terminal = std::io::stdout().is_terminal() && !here.json;
        Self { json: here.json, terminal, drawn: 0, valid_until: None }
    }

    fn show(&mut self, step: &LinkStep) -> Result<(), CliError> {
        if self.json {
            print(&format!("{}\n", as_json(step)));
            return Ok(());
        }
        let before = std::mem::take(&mut self.drawn);
        self.valid_until = None;
        match step {
            LinkStep::Progress(text) | LinkStep::Paste { what_to_do: text } => {
                print(&format!("{}\n", safe(text)))
            }
            LinkStep::Code { code, valid_for } => {
                print(&format!("\n    {}\n\n", safe_line(code)));
                self.counts(*valid_for);
            }
            LinkStep::Qr { content, valid_for } => {
                let lines = drawn(content);
                let width = lines.first().map_or(0, |line| line.chars().count());
                if self.terminal && columns().is_some_and(|columns| columns < width) {
                    return Err(CliError::Plain(format!(
                        "the QR code needs a terminal with {width} columns; make it wider and begin again, or link with \
                         --phone NUMBER"
                    )));
                }
                // On a terminal, a new code takes the place of the old one.
                let back = if self.terminal && before > 0 {
                    format!("\u{1b}[{before}F\u{1b}[J")
                } else {
                    String::new()
                };
                // Black on white, whatever the terminal's colours are.
                let (on, off) =
                    if self.terminal { ("\u{1b}[38;5;16;48;5;231m", "\u{1b}[0m") } else { ("", "") };
                let code: String = lines.iter().map(|line| format!("{on}{line}{off}\n")).collect();
                print(&format!("{back}{code}"));
                self.counts(*valid_for);
                self.drawn = lines.len() + 1;
            }
        }
        Ok(())
    }

    /// Begins to show how long a code is valid.
    fn counts(&mut self, valid_for: Duration) {
        print(&valid(valid_for));
        self.valid_until = Some(Instant::now() + valid_for);
    }

    fn tick(&self) {
        if let Some(until) = self.valid_until.filter(|_| self.terminal) {
            print(&format!("\u{1b}[1F\u{1b}[K{}", valid(until.saturating_duration_since(Instant::now()))));
        }
    }
}

fn valid(left: Duration) -> String {
    format!(
        "This code is valid for {}.\n",
        text::duration(Duration::from_secs(left.as_secs_f64().round() as u64))
    )
}

/// Writes to standard output. A reader that has gone ends the command by its next signal.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn columns() -> Option<usize> {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| size.ws_col.into())
        .filter(|columns| *columns > 0)
}

/// Draws a QR code with its quiet zone, two rows of it in one line.
fn drawn(content: &str) -> Vec<String> {
    match QrCode::with_error_correction_level(content, EcLevel::L) {
        Ok(code) => code.render::<Dense1x2>().build().lines().map(str::to_owned).collect(),
        // A code holds 2,953 bytes.
        Err(_) => vec![safe_line(content)],
    }
}

fn as_json(step: &LinkStep) -> serde_json::Value {
    match step {
        LinkStep::Qr { content, valid_for } => {
            json!({ "step": "qr", "content": content, "valid_s": valid_for.as_secs() })
        }
        LinkStep::Code { code, valid_for } => {
            json!({ "step": "code", "code": code, "valid_s": valid_for.as_secs() })
        }
        LinkStep::Paste { what_to_do } => json!({ "step": "paste", "what_to_do": what_to_do }),
        LinkStep::Progress(told) => json!({ "step": "progress", "told": told }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_messenger_fits_a_terminal_of_80_columns_and_40_rows() {
        // An address, three keys in base64 and a reference.
        let lines = drawn(&format!("https://wa.me/settings/linked_devices#{}", "2@aB3+/".repeat(35)));
        assert!(lines.len() < 40, "{} rows", lines.len());
        let width = lines[0].chars().count();
        assert!(width <= 80 && lines.iter().all(|line| line.chars().count() == width), "{width} columns");
        // The quiet zone is four modules wide.
        assert!(lines[..2].iter().all(|line| line.trim().is_empty()));
        assert!(lines.iter().all(|line| line.starts_with("    ") && line.ends_with("    ")));
    }

    #[test]
    fn steps_are_lines_of_json() {
        let minute = Duration::from_secs(60);
        for (step, line) in [
            (
                LinkStep::Qr { content: "2@a".into(), valid_for: minute },
                r#"{"content":"2@a","step":"qr","valid_s":60}"#,
            ),
            (
                LinkStep::Code { code: "ABCD-EFGH".into(), valid_for: minute },
                r#"{"code":"ABCD-EFGH","step":"code","valid_s":60}"#,
            ),
            (LinkStep::Paste { what_to_do: "run".into() }, r#"{"step":"paste","what_to_do":"run"}"#),
            (LinkStep::Progress("done".into()), r#"{"step":"progress","told":"done"}"#),
        ] {
            assert_eq!(as_json(&step).to_string(), line);
        }
    }
}
