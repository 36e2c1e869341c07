//! The wire: a WebSocket, the Noise handshake over it, and encrypted frames with one stanza each.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_websockets::{Limits, Message, ServerBuilder, WebSocketStream};
use wacore::crypto::{calculate_curve_signature, generate_curve_key_pair};
use wacore::framing::{FrameDecoder, encode_frame};
use wacore::libsignal::protocol::KeyPair;
use wacore::noise::{NoiseCipher, NoiseHandshake};
use wacore_binary::consts::{NOISE_PATTERN_IK, NOISE_PATTERN_XX, NOISE_PATTERN_XXFALLBACK, WA_CONN_HEADER};
use wacore_binary::{Node, OwnedNodeRef, marshal, util};
use waproto::codec::{handshake_message_decode, handshake_message_to_vec};
use waproto::whatsapp::cert_chain::{NoiseCertificate, noise_certificate};
use waproto::whatsapp::handshake_message::{ClientHello, ServerHello};
use waproto::whatsapp::{CertChain, ClientPayload, HandshakeMessage};

use buffa::Message as _;

/// The longest frame that the server reads.
const FRAME_BYTES: usize = 16 << 20;

/// Why a connection ended before the device could speak.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The other side is gone; no breach.
    #[error("the connection ended")]
    Gone,
    /// The device sent what WhatsApp's server does not accept.
    #[error("{0}")]
    Breach(String),
}

/// The keys of the server: its identity in the handshake, with its certificates.
pub(crate) struct ServerKeys {
    identity: KeyPair,
    certificates: Vec<u8>,
}

impl Default for ServerKeys {
    /// New keys, with a certificate of an authority that nobody knows. The library's check of it is turned off in the
    /// tests; everything else about the certificates is as the library wants it.
    fn default() -> Self {
        let identity = generate_curve_key_pair();
        let (root, intermediate) = (generate_curve_key_pair(), generate_curve_key_pair());
        let certificate = |serial: u32, issuer: &KeyPair, issuer_serial: u32, key: &KeyPair| {
            let details = noise_certificate::Details {
                serial: Some(serial),
                issuer_serial: Some(issuer_serial),
                key: Some(key.public_key.public_key_bytes().to_vec()),
                not_before: Some(1_700_000_000),
                not_after: Some(4_000_000_000),
            }
            .encode_to_vec();
            let signature = calculate_curve_signature(&issuer.private_key, &details).map(Vec::from);
            NoiseCertificate { signature: signature.ok(), details: Some(details) }
        };
        let chain = CertChain {
            leaf: certificate(2, &intermediate, 1, &identity).into(),
            intermediate: certificate(1, &root, 0, &intermediate).into(),
        };
        Self { identity, certificates: chain.encode_to_vec() }
    }
}

/// A connection after its handshake.
pub(crate) struct Wire {
    frames: Frames,
    read: (NoiseCipher, u32),
    write: (NoiseCipher, u32),
}

/// What the device says of itself in the handshake.
pub(crate) struct Hello {
    /// The device's own key, which it proved to have.
    pub(crate) noise: [u8; 32],
    pub(crate) payload: ClientPayload,
    /// The device knew the server's key already, and needed one message less.
    pub(crate) resumes: bool,
}

/// Frames in WebSocket messages.
struct Frames {
    socket: WebSocketStream<TcpStream>,
    decoder: FrameDecoder,
    /// Whether the header that opens the connection was read.
    opened: bool,
}

impl Wire {
    /// Accepts a connection: the WebSocket, then the handshake.
    pub(crate) async fn accept(stream: TcpStream, keys: &ServerKeys) -> Result<(Self, Hello), WireError> {
        let limits = Limits::default().max_payload_len(Some(FRAME_BYTES));
        let accepted = ServerBuilder::new().limits(limits).accept(stream).await;
        let (_, socket) = accepted.map_err(|_| WireError::Gone)?;
        let mut frames = Frames { socket, decoder: FrameDecoder::new(), opened: false };
        let hello = handshake_message(&frames.next().await?)?;
        let hello = hello.client_hello.into_option().ok_or_else(|| breach("the device did not say hello"))?;
        let ik = Ik::read(&hello, keys)?;
        let resumes = ik.is_some();
        let (read, write, noise, payload) = match ik {
            Some(ik) => ik.answer(&mut frames, keys).await?,
            None => xx(&hello, &mut frames, keys).await?,
        };
        let payload = ClientPayload::decode_from_slice(&payload)
            .map_err(|_| breach("the device's login is not a ClientPayload"))?;
        Ok((Self { frames, read: (read, 0), write: (write, 0) }, Hello { noise, payload, resumes }))
    }

    /// Returns the next stanza of the device.
    pub(crate) async fn next(&mut self) -> Result<Node, WireError> {
        let mut frame = self.frames.next().await?;
        let (cipher, counter) = &mut self.read;
        let decrypted = cipher.decrypt_in_place_with_counter(*counter, &mut frame);
        decrypted.map_err(|_| breach("the device sent a frame that does not decrypt"))?;
        *counter += 1;
        let stanza =
            util::unpack(&frame).map_err(|_| breach("the device sent a frame that does not unpack"))?;
        let stanza = OwnedNodeRef::new(stanza.into_owned());
        Ok(stanza.map_err(|_| breach("the device sent what is no stanza"))?.to_owned_node())
    }

    /// Sends a stanza to the device.
    pub(crate) async fn send(&mut self, stanza: &Node) -> Result<(), WireError> {
        let mut bytes =
            marshal(stanza).map_err(|e| breach(&format!("the server's own stanza is wrong: {e}")))?;
        let (cipher, counter) = &mut self.write;
        cipher.encrypt_in_place_with_counter(*counter, &mut bytes).map_err(|_| WireError::Gone)?;
        *counter += 1;
        self.frames.send(&bytes).await
    }

    /// Closes the connection as the platform does at the end of a stream.
    pub(crate) async fn close(&mut self) {
        // The other side may be gone already.
        let _ = self.frames.socket.close().await;
    }
}

impl Frames {
    async fn next(&mut self) -> Result<Vec<u8>, WireError> {
        loop {
            if let Some(frame) = self.decoder.decode_frame() {
                return Ok(frame.to_vec());
            }
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(_)) | None => return Err(WireError::Gone),
            };
            if message.is_close() {
                return Err(WireError::Gone);
            }
            if !message.is_binary() {
                continue;
            }
            let payload = message.into_payload();
            let mut bytes = &*payload;
            if !self.opened {
                bytes = bytes
                    .strip_prefix(&WA_CONN_HEADER[..])
                    .ok_or_else(|| breach("the connection does not begin with WhatsApp's header"))?;
                self.opened = true;
            }
            self.decoder.feed(bytes);
        }
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let frame = encode_frame(payload, None).map_err(|e| breach(&e.to_string()))?;
        self.socket.send(Message::binary(frame)).await.map_err(|_| WireError::Gone)
    }
}

fn breach(what: &str) -> WireError {
    WireError::Breach(what.to_owned())
}

fn handshake_message(frame: &[u8]) -> Result<HandshakeMessage, WireError> {
    handshake_message_decode(frame).map_err(|_| breach("a frame of the handshake is not a HandshakeMessage"))
}

fn key(bytes: Option<&[u8]>) -> Result<[u8; 32], WireError> {
    bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| breach("a key of the handshake has not 32 bytes"))
}

/// An error of the cipher means that the device's half of the handshake is wrong.
fn wrong<E: std::fmt::Display>(e: E) -> WireError {
    breach(&format!("the handshake is wrong: {e}"))
}

type Agreed = (NoiseCipher, NoiseCipher, [u8; 32], Vec<u8>);

/// A handshake of a device that knows the server's key (IK): its first message has its login already.
struct Ik {
    noise: NoiseHandshake,
    device_ephemeral: [u8; 32],
    device: [u8; 32],
    payload: Vec<u8>,
}

impl Ik {
    /// Reads a hello. Returns `None` if the device does not know the server's key, or knows another one.
    fn read(hello: &ClientHello, keys: &ServerKeys) -> Result<Option<Self>, WireError> {
        let (Some(device), Some(payload)) = (&hello.r#static, &hello.payload) else { return Ok(None) };
        let device_ephemeral = key(hello.ephemeral.as_deref())?;
        let mut noise = NoiseHandshake::new(NOISE_PATTERN_IK, &WA_CONN_HEADER).map_err(wrong)?;
        noise.authenticate(keys.identity.public_key.public_key_bytes());
        noise.authenticate(&device_ephemeral);
        let own = keys.identity.private_key.serialize();
        noise.mix_shared_secret(own, &device_ephemeral).map_err(wrong)?;
        let Ok(device) = noise.decrypt(device) else { return Ok(None) };
        let device = key(Some(&device))?;
        noise.mix_shared_secret(own, &device).map_err(wrong)?;
        let payload = noise.decrypt(payload).map_err(wrong)?;
        Ok(Some(Self { noise, device_ephemeral, device, payload }))
    }

    async fn answer(mut self, frames: &mut Frames, keys: &ServerKeys) -> Result<Agreed, WireError> {
        let ephemeral = generate_curve_key_pair();
        let own = ephemeral.private_key.serialize();
        self.noise.authenticate(ephemeral.public_key.public_key_bytes());
        self.noise.mix_shared_secret(own, &self.device_ephemeral).map_err(wrong)?;
        self.noise.mix_shared_secret(own, &self.device).map_err(wrong)?;
        let certificates = self.noise.encrypt(&keys.certificates).map_err(wrong)?;
        frames.send(&server_hello(&ephemeral, None, certificates)).await?;
        let (read, write) = self.noise.finish().map_err(wrong)?;
        Ok((read, write, self.device, self.payload))
    }
}

/// A handshake in which the device learns the server's key (XX). A device that tried IK with another key of the server
/// goes on from its first message.
async fn xx(hello: &ClientHello, frames: &mut Frames, keys: &ServerKeys) -> Result<Agreed, WireError> {
    let tried_ik = hello.r#static.is_some();
    let pattern = if tried_ik { NOISE_PATTERN_XXFALLBACK } else { NOISE_PATTERN_XX };
    let device_ephemeral = key(hello.ephemeral.as_deref())?;
    let mut noise = NoiseHandshake::new(pattern, &WA_CONN_HEADER).map_err(wrong)?;
    noise.authenticate(&device_ephemeral);

    let ephemeral = generate_curve_key_pair();
    noise.authenticate(ephemeral.public_key.public_key_bytes());
    let own = ephemeral.private_key.serialize();
    noise.mix_shared_secret(own, &device_ephemeral).map_err(wrong)?;
    let identity = noise.encrypt(keys.identity.public_key.public_key_bytes()).map_err(wrong)?;
    noise.mix_shared_secret(keys.identity.private_key.serialize(), &device_ephemeral).map_err(wrong)?;
    let certificates = noise.encrypt(&keys.certificates).map_err(wrong)?;
    frames.send(&server_hello(&ephemeral, Some(identity), certificates)).await?;

    let finish = handshake_message(&frames.next().await?)?;
    let finish = finish.client_finish.into_option().ok_or_else(|| breach("the handshake has no finish"))?;
    let device = noise.decrypt(finish.r#static.as_deref().unwrap_or_default()).map_err(wrong)?;
    let device = key(Some(&device))?;
    noise.mix_shared_secret(own, &device).map_err(wrong)?;
    let payload = noise.decrypt(finish.payload.as_deref().unwrap_or_default()).map_err(wrong)?;
    let (read, write) = noise.finish().map_err(wrong)?;
    Ok((read, write, device, payload))
}

fn server_hello(ephemeral: &KeyPair, identity: Option<Vec<u8>>, certificates: Vec<u8>) -> Vec<u8> {
    let hello = ServerHello {
        ephemeral: Some(ephemeral.public_key.public_key_bytes().to_vec()),
        r#static: identity,
        payload: Some(certificates),
        ..ServerHello::default()
    };
    handshake_message_to_vec(&HandshakeMessage { server_hello: hello.into(), ..HandshakeMessage::default() })
}
