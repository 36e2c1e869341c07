//! What `lazaret link` says in the end: which account is linked, who uses it, and what comes next.

use std::process::ExitCode;

use serde_json::json;

use super::{Done, Here};
use crate::channels::linking::Linked;
use crate::terminal_output::safe_line;

pub(super) async fn tell(here: &Here, channel: &str, linked: &Linked) -> Done {
    let install = here.install()?;
    let is_off = install.file.channels.named(channel).is_some_and(|settings| settings.is_off());
    let root = here.root.path().display();
    let user = if linked.in_use {
        "The host that runs uses the account from now on.".to_owned()
    } else if is_off {
        format!(
            "The channel is off: set `enabled = true` under [channels.{channel}] in {root}/lazaret.toml, and start the \
             host anew."
        )
    } else if here.host_is_up().await {
        "A host runs, but does not use the account yet: start it anew. `lazaret status` shows how it fares."
            .to_owned()
    } else {
        format!("No host runs on {root}: start one with `lazaret up`.")
    };
    let (name, id) = (safe_line(&linked.account.name), safe_line(&linked.account.id));
    let text = format!(
        "linked: {name} ({id}). {user}\nThen write to {id} from another account. `lazaret groups list` shows the code of \
         that chat, and `lazaret groups admit CODE --group main` admits it."
    );
    let account = &linked.account;
    here.print(
        &json!({ "step": "linked", "account": account.id, "name": account.name, "in_use": linked.in_use }),
        text,
    );
    Ok(ExitCode::SUCCESS)
}
