//! What becomes of a linked device's connection: it logs in again, and is told why it may not.

use std::path::Path;

use library_against_server::{By, Device, folder};
use whatsapp_rust::types::events::Event;
use whatsapp_server::WhatsAppServer;

/// Links a device and waits until it has logged in.
async fn links(server: &WhatsAppServer, keys: &Path) -> Device {
    let mut device = Device::starts(server, keys, By::Qr).await;
    let code = device.shows_qr().await;
    server.phone().scans(&code).expect("the phone links the device");
    server.device_is_there().await;
    device
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_device_takes_up_its_handshake_when_it_logs_in_again() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    links(&server, keys.path()).await.stops().await;
    let logins = server.connections();

    let device = Device::starts(&server, keys.path(), By::Qr).await;
    server.connected(logins + 1).await;
    assert_eq!(server.resumed(), 1);
    device.stops().await;

    server.changes_its_key();
    let device = Device::starts(&server, keys.path(), By::Qr).await;
    server.connected(logins + 2).await;
    assert_eq!(server.resumed(), 1, "the key of the server is another one");
    device.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_comes_back_after_a_stream_error_a_cut_and_an_outage() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    let device = links(&server, keys.path()).await;
    for code in [503, 515] {
        let logins = server.connections();
        assert!(server.stream_error(code), "{code}");
        server.connected(logins + 1).await;
        server.device_is_there().await;
    }
    let logins = server.connections();
    server.cuts();
    server.connected(logins + 1).await;
    server.device_is_there().await;

    server.goes_away().await;
    server.comes_back().await;
    server.connected(logins + 2).await;
    server.device_is_there().await;
    device.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_error_that_ends_a_session_for_good_is_told() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    links(&server, keys.path()).await.stops().await;
    for (code, end) in [(401, "logged out"), (516, "logged out"), (409, "replaced")] {
        let logins = server.connections();
        let mut device = Device::starts(&server, keys.path(), By::Qr).await;
        server.connected(logins + 1).await;
        assert!(server.stream_error(code), "{code}");
        let told = |event: &Event| match event {
            Event::LoggedOut(_) => Some("logged out"),
            Event::StreamReplaced(_) => Some("replaced"),
            _ => None,
        };
        assert_eq!(device.sees("the end", told).await, end, "{code}");
        device.stops().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_phone_removes_is_told_so_at_once_or_at_its_next_login() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    let mut device = links(&server, keys.path()).await;
    server.phone().unlinks();
    let logged_out = |event: &Event| match event {
        Event::LoggedOut(end) => Some(end.on_connect),
        _ => None,
    };
    assert!(!device.sees("the end of the link", logged_out).await);
    device.stops().await;

    let mut device = Device::starts(&server, keys.path(), By::Qr).await;
    assert!(device.sees("the end of the link", logged_out).await);
    device.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_account_and_an_old_version_are_told_so() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    let mut device = links(&server, keys.path()).await;
    server.bans(3600);
    let banned = |event: &Event| match event {
        Event::TemporaryBan(ban) => Some(ban.expire.num_seconds()),
        _ => None,
    };
    assert_eq!(device.sees("the ban", banned).await, 3600);
    device.stops().await;

    server.outdated();
    let mut device = Device::starts(&server, keys.path(), By::Qr).await;
    device.sees("its age", |event| matches!(event, Event::ClientOutdated(_)).then_some(())).await;
    device.stops().await;

    server.forgives();
    let logins = server.connections();
    let device = Device::starts(&server, keys.path(), By::Qr).await;
    server.connected(logins + 1).await;
    device.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_with_the_same_keys_ends_the_first() {
    let server = WhatsAppServer::start().await;
    let (keys, copy) = (folder(), folder());
    links(&server, keys.path()).await.stops().await;
    for file in std::fs::read_dir(keys.path()).expect("the folder is there").flatten() {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("the file is copied");
    }
    let mut first = Device::starts(&server, keys.path(), By::Qr).await;
    server.device_is_there().await;
    let second = Device::starts(&server, copy.path(), By::Qr).await;
    first.sees("the other connection", |event| matches!(event, Event::StreamReplaced(_)).then_some(())).await;
    first.stops().await;
    second.stops().await;
}
