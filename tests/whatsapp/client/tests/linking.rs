//! A device is linked by QR code, by pair code and with a passkey, and by nothing else.

use library_against_server::{By, Device, folder};
use whatsapp_rust::pair_code::{PairCodeOptions, PairCodeRejection};
use whatsapp_rust::passkey::Assertion;
use whatsapp_rust::types::events::Event;
use whatsapp_server::{NUMBER, Refused, WhatsAppServer};

async fn is_linked(server: &WhatsAppServer, device: &mut Device) {
    device.sees("the link", |event| matches!(event, Event::PairSuccess(_)).then_some(())).await;
    server.phone().is_linked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_linked_by_qr_code() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    let mut device = Device::starts(&server, keys.path(), By::Qr).await;
    let code = device.shows_qr().await;
    let phone = server.phone();
    assert_eq!(phone.scans("https://example.org"), Err(Refused::NoCode));
    let (_, rest) = code.split_once(',').expect("a code has fields");
    assert_eq!(phone.scans(&format!("2@another,{rest}")), Err(Refused::Expired));
    assert_eq!(phone.scans(&code), Ok(()));
    is_linked(&server, &mut device).await;
    assert_eq!(phone.scans(&code), Err(Refused::Expired), "a code links one device");
    device.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_of_a_device_that_is_gone_links_nothing() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    let mut device = Device::starts(&server, keys.path(), By::Qr).await;
    let code = device.shows_qr().await;
    device.stops().await;
    server.nobody_is_there().await;
    assert_eq!(server.phone().scans(&code), Err(Refused::Expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_linked_by_the_code_that_it_shows_and_by_no_other() {
    let server = WhatsAppServer::start().await;
    let phone = server.phone();
    assert_eq!(phone.enters("ABCD-EFGH").await, Err(Refused::NobodyAsks));

    let keys = folder();
    let mut device = Device::starts(&server, keys.path(), By::Code).await;
    let code = |event: &Event| match event {
        Event::PairingCode(shown) => Some(shown.code.clone()),
        _ => None,
    };
    let code = device.sees("a pair code", code).await;
    phone.is_asked_for_a_code().await;
    assert_eq!(phone.enters("ABCD-EFGH").await, Err(Refused::WrongCode));
    assert_eq!(phone.enters(&code).await, Ok(()));
    is_linked(&server, &mut device).await;
    device.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_code_is_for_another_number_or_for_a_device_without_an_operating_system() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    let mut device = Device::starts(&server, keys.path(), By::Qr).await;
    device.shows_qr().await;
    let own = PairCodeOptions { phone_number: NUMBER.to_string(), ..PairCodeOptions::default() };
    for options in [
        PairCodeOptions { phone_number: (NUMBER + 1).to_string(), ..own.clone() },
        PairCodeOptions { display_os: Some("Lazaret".to_owned()), ..own.clone() },
    ] {
        let refused = device.client().pair_with_code(options).await.expect_err("the server refuses");
        assert_eq!(refused.rejection(), Some(PairCodeRejection::BadRequest));
    }
    device.client().pair_with_code(own).await.expect("the server gives a code");
    device.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_a_passkey_links_a_device_only_with_its_signature() {
    let server = WhatsAppServer::start().await;
    server.wants_passkey(true);
    let phone = server.phone();
    let keys = folder();
    let mut device = Device::starts(&server, keys.path(), By::Qr).await;
    let code = device.shows_qr().await;
    assert_eq!(phone.scans(&code), Ok(()));
    let options = |event: &Event| match event {
        Event::PairPasskeyRequest(request) => Some(request.request_options_json.clone()),
        _ => None,
    };
    let options = device.sees("the wish for a passkey", options).await;

    let assertion = |json: String| Assertion {
        assertion_json: json.into_bytes(),
        credential_id: phone.passkey_id().to_vec(),
    };
    let stolen = phone.signs_passkey_on(&options, "https://web.whatsapp.example");
    let refused = device.client().send_passkey_response(assertion(stolen)).await;
    assert!(refused.is_err(), "a signature for another site was taken");

    let signed = phone.signs_passkey(&options);
    device.client().send_passkey_response(assertion(signed)).await.expect("the signature is right");
    let shown = |event: &Event| match event {
        Event::PairPasskeyConfirmation(confirmation) => Some(confirmation.code.clone()),
        _ => None,
    };
    let shown = device.sees("the code to compare", shown).await;
    assert_eq!(shown, phone.shows_code().await);
    device.client().send_passkey_confirmation().await.expect("the phone takes the keys");
    is_linked(&server, &mut device).await;
    device.stops().await;
}
