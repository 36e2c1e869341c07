//! Linking an account of WhatsApp: by QR code, by a code that is typed, with a passkey; and what ends a link.

#![cfg(test)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use journeys::recording_proxy::RecordingProxy;
use journeys::world::{ACCOUNT, Engine, LinkCommand, World};
use serde_json::Value;

async fn unlinked() -> World {
    World::on(Engine::stand_in().await).await.with_whatsapp_unlinked().await
}

fn keys(world: &World) -> PathBuf {
    world.root().join("state/channels/whatsapp/device.db")
}

fn names(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(keys(world).parent().unwrap()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("device.db"));
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Returns what `lazaret status --json` says of WhatsApp.
async fn channel(world: &World) -> Value {
    // Its exit code tells that a channel is in trouble.
    let output = world.run(&["status", "--json"], "").await.stdout;
    let status: Value = serde_json::from_slice(&output).unwrap();
    let channels = status["channels"].as_array().unwrap();
    channels.iter().find(|channel| channel["channel"] == "whatsapp").cloned().unwrap_or_default()
}

/// Waits until the state of WhatsApp has this code; `null` for no trouble.
async fn stands(world: &World, trouble: &str) -> String {
    world
        .patiently("the state of WhatsApp", async || {
            let found = channel(world).await;
            (found["trouble"].as_str().unwrap_or("none") == trouble).then(|| found["why"].to_string())
        })
        .await
}

#[tokio::test]
async fn an_account_is_linked_by_a_qr_code_that_fits_the_screen_and_the_running_host_uses_it_at_once() {
    let mut world = unlinked().await;
    world.up().await;
    stands(&world, "channel.off").await;
    let mut linking = world.begins_to_link(&[]);
    let code = linking.qr().await;
    world.whatsapp().phone().scans(&code).unwrap();
    let (ended_well, told) = linking.ends().await;
    assert!(ended_well && told.contains("uses the account from now on"), "{told}");
    stands(&world, "none").await;
    world.whatsapp().device_is_there().await;
    assert_eq!((names(&world)[0].as_str(), mode(&keys(&world))), ("device.db", 0o600));
    let again = world.run(&["link", "whatsapp"], "").await;
    let told = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && told.contains("lazaret unlink whatsapp"), "{told}");
    world.finish().await;
}

#[tokio::test]
async fn a_code_is_typed_on_the_phone_and_a_wrong_one_links_nothing() {
    let world = unlinked().await;
    let mut linking = world.begins_to_link(&["--phone", ACCOUNT]);
    linking.says("Link with phone number instead").await;
    let code = linking.code().await;
    let wrong = if code.starts_with('1') { code.replacen('1', "2", 1) } else { format!("1{}", &code[1..]) };
    assert!(world.whatsapp().phone().enters(&wrong).await.is_err());
    world.whatsapp().phone().enters(&code).await.unwrap();
    let (ended_well, told) = linking.ends().await;
    assert!(ended_well && told.contains("No host runs on") && told.contains("lazaret groups list"), "{told}");
    let refused = world.run(&["link", "whatsapp", "--phone", "0151 1234567"], "").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("country code"));
    world.finish().await;
}

#[tokio::test]
async fn a_root_without_an_install_gets_no_link() {
    let world = unlinked().await;
    std::fs::remove_file(world.root().join("lazaret.toml")).unwrap();
    let refused = world.run(&["link", "whatsapp"], "").await;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("there is no install at"), "{told}");
    assert_eq!(names(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_link_that_a_channel_does_not_use_says_why() {
    let mut world = unlinked().await;
    world.set("LAZARET_CHANNELS_WHATSAPP_ENABLED", "false");
    world.up().await;
    let mut linking = world.begins_to_link(&["--phone", ACCOUNT]);
    let code = linking.code().await;
    world.whatsapp().phone().enters(&code).await.unwrap();
    let (ended_well, told) = linking.ends().await;
    assert!(ended_well && told.contains("enabled = true"), "{told}");
    world.stop_host().await;
}

/// Begins to link an account that needs a passkey, and scans the code. Returns what the browser must sign, too.
async fn asked_for_a_passkey(world: &World) -> (LinkCommand, String) {
    world.whatsapp().wants_passkey(true);
    let mut linking = world.begins_to_link(&[]);
    let code = linking.qr().await;
    world.whatsapp().phone().scans(&code).unwrap();
    let line = linking.says("navigator.credentials.get").await;
    let options = line.split_once("const o=").unwrap().1.split_once(";const d=").unwrap().0;
    (linking, options.to_owned())
}

#[tokio::test]
async fn a_passkey_is_proved_in_a_browser_and_its_result_is_pasted() {
    let world = unlinked().await;
    let (mut linking, options) = asked_for_a_passkey(&world).await;
    linking.pastes("undefined").await;
    linking.says("Paste the line again").await;
    linking.pastes(&world.whatsapp().phone().signs_passkey(&options)).await;
    let shown = world.whatsapp().phone().shows_code().await;
    linking.says(&shown).await;
    linking.pastes("").await;
    let (ended_well, told) = linking.ends().await;
    assert!(ended_well, "{told}");
    world.finish().await;
}

#[tokio::test]
async fn a_passkey_of_another_site_ends_the_command_with_the_reason() {
    let world = unlinked().await;
    let (mut linking, options) = asked_for_a_passkey(&world).await;
    linking.pastes(&world.whatsapp().phone().signs_passkey_on(&options, "https://example.org")).await;
    let (ended_well, told) = linking.ends().await;
    assert!(!ended_well && told.contains("whatsapp.passkey"), "{told}");
    assert_eq!(names(&world), Vec::<String>::new(), "nothing is left");
}

#[tokio::test]
async fn a_link_ends_at_the_server_too_while_the_host_runs_and_without_one() {
    let mut world = unlinked().await;
    world.links_whatsapp().await;
    world.up().await;
    world.whatsapp().device_is_there().await;
    let told = world.lazaret(&["unlink", "whatsapp"]).await;
    assert!(told.contains("does not know this device"), "{told}");
    stands(&world, "channel.off").await;
    assert_eq!(names(&world), Vec::<String>::new());
    let nothing = world.run(&["unlink", "whatsapp"], "").await;
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no account is linked"));
    world.stop_host().await;

    world.links_whatsapp().await;
    let told = world.lazaret(&["unlink", "whatsapp"]).await;
    assert!(told.contains("does not know this device"), "{told}");
    world.links_whatsapp().await;
    world.whatsapp().goes_away().await;
    let told = world.lazaret(&["unlink", "whatsapp"]).await;
    assert!(told.contains("On the phone"), "{told}");
    assert_eq!(names(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_device_that_the_phone_removes_is_told_and_linked_again_without_a_restart() {
    let mut world = unlinked().await;
    world.links_whatsapp().await;
    world.up().await;
    world.whatsapp().device_is_there().await;
    world.whatsapp().phone().unlinks();
    let why = stands(&world, "whatsapp.logged_out").await;
    assert!(why.contains("lazaret link whatsapp"), "{why}");
    world.stop_host().await;
    world.up().await;
    assert_eq!(stands(&world, "whatsapp.logged_out").await, why, "a restart changes nothing");
    world.links_whatsapp().await;
    stands(&world, "none").await;
    world.whatsapp().device_is_there().await;
    world.whatsapp().phone().unlinks();
    stands(&world, "whatsapp.logged_out").await;
    let told = world.lazaret(&["unlink", "whatsapp"]).await;
    assert!(told.contains("had ended this link already"), "{told}");
    world.finish().await;
}

#[tokio::test]
async fn damaged_keys_are_refused_with_the_command_that_links_again_and_are_kept() {
    let mut world = unlinked().await;
    world.links_whatsapp().await;
    let garbage = "these are no keys, and the file is long enough to be a database. ".repeat(100);
    std::fs::write(keys(&world), garbage).unwrap();
    world.up().await;
    let why = stands(&world, "whatsapp.keys").await;
    assert!(why.contains("device.db") && why.contains("lazaret link whatsapp"), "{why}");
    let doctor = world.run(&["doctor"], "").await;
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains("BAD  link"), "{told}");
    world.links_whatsapp().await;
    stands(&world, "none").await;
    assert!(names(&world).contains(&"device.db.damaged-1".to_owned()));
    world.finish().await;
}

#[tokio::test]
async fn a_command_that_is_interrupted_leaves_nothing() {
    let world = unlinked().await;
    let mut linking = world.begins_to_link(&[]);
    linking.qr().await;
    assert_eq!(names(&world)[0], "device.db.linking");
    let beside = world.run(&["link", "whatsapp"], "").await;
    assert!(String::from_utf8_lossy(&beside.stderr).contains("whatsapp.linking"), "one links at a time");
    let pid = i32::try_from(linking.pid().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::INT)
        .unwrap();
    let (ended_well, told) = linking.ends().await;
    assert!(!ended_well && !told.contains("linked:"), "{told}");
    assert_eq!(names(&world), Vec::<String>::new());
}

#[tokio::test]
async fn the_server_is_reached_through_the_proxy_of_the_environment_or_the_proxy_is_refused_by_name() {
    let mut world = unlinked().await;
    world.set("LAZARET_CHANNELS_WHATSAPP_BASE_URL", "wss://chat.example.org/ws/chat");
    for (scheme, order) in [("http", "CONNECT chat.example.org:443"), ("socks5h", "chat.example.org")] {
        let proxy = RecordingProxy::start().await;
        world.set("HTTPS_PROXY", &proxy.at(scheme));
        let refused = world.run(&["link", "whatsapp"], "").await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("whatsapp.network"), "{told}");
        let heard = proxy.heard();
        assert!(!heard.is_empty() && heard.iter().all(|heard| heard.contains(order)), "{heard:?}");
    }
    world.set("HTTPS_PROXY", "socks9://10.0.0.1:1");
    let refused = world.run(&["link", "whatsapp"], "").await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("HTTPS_PROXY") && told.contains("socks9"), "{told}");
}

#[tokio::test]
async fn without_a_server_the_command_ends_and_says_why() {
    let world = unlinked().await;
    world.whatsapp().goes_away().await;
    let refused = world.run(&["link", "whatsapp"], "").await;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && told.contains("whatsapp.network"), "{told}");
    assert_eq!(names(&world), Vec::<String>::new());
}
