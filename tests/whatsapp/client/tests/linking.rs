//! A device is linked by QR code, by pair code and with a passkey, and logs in again.

use library_against_server::{By, Device, folder};
use whatsapp_rust::types::events::Event;
use whatsapp_server::{Refused, WhatsAppServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_linked_by_qr_code() {
    let server = WhatsAppServer::start().await;
    let keys = folder();
    let mut device = Device::starts(&server, keys.path(), By::Qr).await;
    let code = device.shows_qr().await;
    assert_eq!(server.phone().scans("https://example.org"), Err(Refused::NoCode));
    assert_eq!(server.phone().scans(&code), Ok(()));
    device.sees("the link", |event| matches!(event, Event::PairSuccess(_)).then_some(())).await;
    server.phone().is_linked().await;
    assert_eq!(server.phone().scans(&code), Err(Refused::Expired), "a code links one device");
    device.stops().await;
}
