//! Boxes that ask for more than their part of the host: of its log, its processors, its memory.

use std::io;

use hyper::Method;
use tokio::time::Instant;

use super::*;
use crate::gateway::body_budget::{BODY_MAX_BYTES, SMALL_BYTES};

async fn world(body_time: Duration) -> (World, Provider) {
    let replies = vec![Reply::stream(&anthropic("hi"))];
    let settings = |providers| GatewaySettings { body_time, ..quick(providers) };
    World::over(ProviderKind::Anthropic, replies, settings).await
}

/// All log lines of one thread, which in these tests is all there is.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

impl World {
    /// Writes as much as the gateway takes and reads what it says, until it closes; how often it said `status`.
    async fn pour(&self, bytes: Vec<u8>, status: &str) -> usize {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut answers, mut wishes) = stream.into_split();
        // The end to write with is kept: a box that closes it wants no answers any more.
        let pouring = tokio::spawn(async move { (wishes.write_all(&bytes).await, wishes) });
        let mut told = Vec::new();
        // What was written and not read makes the close a reset.
        let _ = tokio::time::timeout(PATIENCE, answers.read_to_end(&mut told)).await.unwrap();
        let _ = pouring.await.unwrap();
        String::from_utf8(told).unwrap().matches(status).count()
    }

    /// A body of `length` bytes that begins, and does not go on.
    async fn slow_body(&self, length: usize) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let head =
            format!("POST /v1/messages HTTP/1.1\r\nhost: gateway\r\ncontent-length: {length}\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

#[tokio::test]
async fn f4_a_box_does_not_write_the_operators_log_through_the_gateway() {
    let (log, _listening) = Log::listen();
    let (world, _) = world(PATIENCE).await;
    let wish = format!("GET http://{}/ HTTP/1.1\r\nhost: x\r\n\r\n", "0".repeat(300));
    let told = world.pour(wish.repeat(1_000).into_bytes(), "HTTP/1.1 403 Forbidden").await;
    assert_eq!(told, 100, "then the connection is closed");
    let more =
        world.pour(b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(), "404").await;
    assert_eq!(more, 1, "and another one is served");

    let refused = Arc::clone(&world.refused);
    world.end().await;
    let lines = log.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("refused through the gateway")).count(), 20);
    assert!(lines.iter().any(|line| line.contains("81 more refusals")), "{lines:#?}");
    assert!(lines.len() < 25 && lines.iter().all(|line| line.len() < 600), "{lines:#?}");
    let counts = refused.lock().unwrap();
    assert_eq!((counts["gateway.egress_off"], counts["gateway.no_route"]), (100, 1), "and all are counted");
}

#[tokio::test]
async fn f4_bytes_that_are_no_http_are_counted_like_other_refusals() {
    let (log, _listening) = Log::listen();
    let (world, _) = world(PATIENCE).await;
    for _ in 0..30 {
        assert_eq!(world.pour(b"\0\r\n\r\n".to_vec(), "HTTP/1.1 400").await, 1);
    }
    let refused = Arc::clone(&world.refused);
    world.end().await;
    assert_eq!(log.lines().iter().filter(|line| line.contains("gateway.no_http")).count(), 20);
    assert_eq!(refused.lock().unwrap()["gateway.no_http"], 30);
}

#[tokio::test]
async fn what_is_served_does_not_use_up_a_connection() {
    let (world, _) = world(PATIENCE).await;
    let wish = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(999);
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(world.pour(format!("{wish}{last}").into_bytes(), "HTTP/1.1 200").await, 1_000);
}

#[tokio::test]
async fn c18_connections_that_come_to_nothing_are_gone_when_they_are_closed() {
    for beginning in [
        "",
        "POST /v1/messages HTTP/1.1\r\nHost: ",
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{",
    ] {
        let (world, _) = world(PATIENCE).await;
        let mut held = Vec::new();
        for _ in 0..400 {
            let mut stream = UnixStream::connect(world.socket()).await.unwrap();
            stream.write_all(beginning.as_bytes()).await.unwrap();
            held.push(stream);
        }
        drop(held);
        let healthy = world.send(Method::GET, "/healthz", &[], Bytes::new());
        assert_eq!(tokio::time::timeout(PATIENCE, healthy).await.unwrap().status, 200);
    }
}

/// Reads until the gateway closes; what it said, and after how many seconds.
async fn closed(mut stream: UnixStream, from: Instant) -> (String, u64) {
    let mut told = String::new();
    let _ = stream.read_to_string(&mut told).await;
    (told, from.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn g7_a_connection_that_says_nothing_for_thirty_seconds_is_closed() {
    let (world, _) = world(Duration::from_secs(30)).await;
    let healthy = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (said, answer) in [
        ("", ""),
        ("POST /v1/messages HTTP/1.1\r\nhost: ", ""),
        ("POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{", "HTTP/1.1 408 "),
        (healthy, "HTTP/1.1 200 "),
    ] {
        let mut stream = UnixStream::connect(world.socket()).await.unwrap();
        let from = Instant::now();
        stream.write_all(said.as_bytes()).await.unwrap();
        let (told, seconds) = closed(stream, from).await;
        assert!(told.starts_with(answer) && seconds == 30, "{said}: {told} after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_byte_now_and_then_does_not_hold_a_connection() {
    let (world, upstream) = world(Duration::from_secs(30)).await;
    for begun in ["GET ", "POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n"] {
        let stream = UnixStream::connect(world.socket()).await.unwrap();
        let (from, (read, mut write)) = (Instant::now(), stream.into_split());
        write.write_all(begun.as_bytes()).await.unwrap();
        let drip = tokio::spawn(async move {
            while write.write_all(b"/").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(7)).await;
            }
        });
        let mut told = Vec::new();
        let _ = tokio::io::BufReader::new(read).read_to_end(&mut told).await;
        assert_eq!(from.elapsed().as_secs(), 30, "{begun}");
        drip.await.unwrap();
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn g7_a_box_has_eight_connections_and_the_ninth_waits() {
    let (world, _) = world(Duration::from_secs(30)).await;
    for (held, seconds) in [(7, 0), (8, 30)] {
        let mut silent = Vec::new();
        for _ in 0..held {
            silent.push(UnixStream::connect(world.socket()).await.unwrap());
        }
        let from = Instant::now();
        let mut last = UnixStream::connect(world.socket()).await.unwrap();
        last.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let (told, took) = closed(last, from).await;
        assert!(told.starts_with("HTTP/1.1 200 ") && took == seconds, "{held}: {told} after {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_an_answer_that_pauses_is_not_idle() {
    let gate = Arc::new(Semaphore::new(0));
    let answer = anthropic("hi");
    let (start, rest) = answer.split_at(answer.find("event: content_block_start").unwrap());
    let (world, _upstream) =
        World::over(ProviderKind::Anthropic, vec![Reply::gated(start, &gate, rest)], quick).await;
    let pause = async {
        world.arrived.acquire().await.unwrap().forget();
        tokio::time::sleep(Duration::from_secs(100)).await;
        gate.add_permits(1);
    };
    let body = Bytes::from(question(true).to_string());
    let (answer, ()) = tokio::join!(world.send(Method::POST, "/v1/messages", &[], body), pause);
    assert_eq!((answer.status, answer.whole), (200, true));
}

#[tokio::test]
async fn f6_slow_bodies_of_some_runs_do_not_keep_another_run_from_its_model() {
    let (first, upstream) = world(Duration::from_secs(3600)).await;
    let hostile =
        [World::beside(Arc::clone(&first.gateway)), World::beside(Arc::clone(&first.gateway)), first];
    let room = hostile[0].gateway.bodies.free();
    let mut held = Vec::new();
    for world in &hostile {
        for _ in 0..10 {
            held.push(world.slow_body(BODY_MAX_BYTES).await);
        }
    }
    let settled = async {
        while hostile[0].gateway.bodies.free() > room - 3 * BODY_MAX_BYTES {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.unwrap();

    let mut other = World::beside(Arc::clone(&hostile[0].gateway));
    let mut large = question(true);
    large["system"] = json!("x".repeat(8 * SMALL_BYTES));
    assert_eq!(other.ask(&large).await.status, 200);
    assert_eq!(other.ask(&question(true)).await.status, 200);
    assert_eq!(upstream.seen()[0].body["system"], large["system"]);
    assert_eq!((other.booked().await.status, other.booked().await.status), (200, 200));
    other.end().await;
    assert_eq!(hostile[0].gateway.bodies.free(), room - 3 * BODY_MAX_BYTES, "no run had more than its share");
    for world in hostile {
        world.end().await;
    }
}

#[tokio::test]
async fn f6_a_body_that_does_not_arrive_gives_its_room_back() {
    let (world, upstream) = world(Duration::from_millis(20)).await;
    let room = world.gateway.bodies.free();
    for length in [10, BODY_MAX_BYTES] {
        let mut answer = String::new();
        let mut stream = world.slow_body(length).await;
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("did not arrive"), "{answer}");
    }
    assert_eq!(world.gateway.bodies.free(), room);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn f6_an_answer_that_goes_on_holds_no_room() {
    let gate = Arc::new(Semaphore::new(0));
    let answer = anthropic("hi");
    let (start, rest) = answer.split_at(answer.find("event: content_block_start").unwrap());
    let replies = vec![Reply::gated(start, &gate, rest)];
    let (world, _upstream) = World::over(ProviderKind::Anthropic, replies, quick).await;
    let room = world.gateway.bodies.free();
    let mut large = question(true);
    large["system"] = json!("x".repeat(2 * SMALL_BYTES));
    let look = async {
        world.arrived.acquire().await.unwrap().forget();
        assert_eq!(world.gateway.bodies.free(), room, "while the model still speaks");
        gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(world.ask(&large), look);
    assert_eq!((answer.status, answer.whole), (200, true));
}

#[tokio::test]
async fn f6_a_request_of_many_parts_is_refused_in_words() {
    let (world, upstream) = world(PATIENCE).await;
    let blocks = vec![r#"{"type":"text","text":"a"}"#; 15_000].join(",");
    let entry = format!(r#"{{"role":"user","content":[{blocks}]}}"#);
    let body = format!(r#"{{"messages":[{entry},{entry}]}}"#);
    let answer = world.send(Method::POST, "/v1/messages", &[], Bytes::from(body)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().1.contains("more than 20000 messages, blocks and tools"), "{:?}", answer.error());
    assert!(upstream.seen().is_empty());
}
