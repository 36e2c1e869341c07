//! Runs the scripted model as a program, for experiments by hand.
//!
//! `scripted-model --port-file FILE [--script FILE.json]` writes its port to FILE and serves until it is killed. It
//! requires no key. Without a script it writes a note, lists the files, and quotes the list.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use journeys::model::ModelServer;

/// The script if none is given.
const DEFAULT_SCRIPT: &str = r#"[{ "on": "", "steps": [
    { "thinks": "A note first, then a look at the files." },
    { "runs": { "tool": "write_file", "input": { "path": "notes/hello.md", "content": "hello\n" } } },
    { "runs": { "tool": "run_command", "input": { "command": "ls -la notes" } } },
    { "quotes": "I wrote notes/hello.md, and this is what `ls -la notes` says:" }
] }]"#;

struct Arguments {
    port_file: PathBuf,
    script: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, String> {
    let usage = "usage: scripted-model --port-file FILE [--script FILE.json]";
    let mut given = std::env::args_os().skip(1);
    let (mut port_file, mut script) = (None, None);
    while let Some(name) = given.next() {
        let value = given.next().map(PathBuf::from).ok_or(usage)?;
        match name.to_str() {
            Some("--port-file") => port_file = Some(value),
            Some("--script") => script = Some(value),
            _ => return Err(usage.to_owned()),
        }
    }
    Ok(Arguments { port_file: port_file.ok_or(usage)?, script })
}

/// Writes a draft and renames it, so that a waiting reader never reads half a number.
fn write_port(path: &Path, port: &str) -> std::io::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, port)?;
    std::fs::rename(&draft, path)
}

async fn serve() -> Result<(), String> {
    let Arguments { port_file, script } = arguments()?;
    let script = match script {
        Some(path) => std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?,
        None => DEFAULT_SCRIPT.to_owned(),
    };
    let model = ModelServer::start().await;
    model.allow_keyless();
    model.allow_unscripted();
    model.allow_unstreamed();
    model.load(&script).map_err(|error| error.to_string())?;
    let url = model.anthropic_url();
    let port = url.rsplit(':').next().unwrap_or_default();
    write_port(&port_file, port).map_err(|error| format!("{}: {error}", port_file.display()))?;
    println!("Anthropic Messages at {url}, chat completions at {}", model.openai_url());
    tokio::signal::ctrl_c().await.map_err(|error| format!("cannot wait for a signal: {error}"))?;
    for violation in model.take_violations() {
        println!("a request broke a rule: {violation}");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
