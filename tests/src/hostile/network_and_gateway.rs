//! Attacks through networks and through the gateway's socket.

use serde_json::Value;

use super::cases::Case;
use super::expectation_kinds::{Expectation, Seen};
use super::filesystem::is_empty;
use Expectation::{Check, Errno, Fact};

pub fn cases() -> Vec<Case> {
    let mut all = networks();
    all.extend(gateway());
    all.extend(shapes_and_silence());
    all
}

fn networks() -> Vec<Case> {
    let shared = Case::shared;
    let unreachable = || {
        vec![
            Fact("reached", is_empty),
            Fact("errors", |all| {
                all.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|e| *e != 0))
            }),
        ]
    };
    vec![
        shared("c6_tcp_to_the_internet", "connections to four public addresses", unreachable()),
        shared(
            "c6_a_name_server_as_a_tunnel",
            "questions to five name servers",
            vec![Fact("answers", |n| *n == 0), Fact("resolved", is_empty)],
        ),
        shared(
            "c6_only_loopback",
            "the box's interfaces, routes and raw sockets",
            vec![
                Fact("names", |names| *names == serde_json::json!(["lo"])),
                Fact("routes", |n| n.as_u64().is_some_and(|n| n <= 1)),
                Errno("raw", &[1, 13]),
            ],
        ),
        shared("c7_metadata_service", "the metadata addresses of clouds", unreachable()),
        shared("c7_private_ranges", "private, shared and link-local addresses", unreachable()),
        shared("c8_services_of_the_host", "the host's own servers, one of which does listen", unreachable())
            .words("{port}"),
        shared("c9_other_boxes", "addresses that other boxes could have", unreachable()),
    ]
}

fn gateway() -> Vec<Case> {
    let (own, shared) = (Case::own, Case::shared);
    let refused = || {
        vec![
            Fact("statuses", |all| {
                let refused =
                    |status: &Value| status.as_u64().is_some_and(|s| s == 0 || (400..600).contains(&s));
                all.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(refused))
            }),
            Fact("healthy", |status| *status == 200),
        ]
    };
    let invalid = || vec![Fact("status", |status| *status == 400), Fact("key_seen", |seen| *seen == false)];
    let healthy = || vec![Fact("healthy", |status| *status == 200)];
    vec![
        shared("c7_metadata_through_the_gateway", "metadata by CONNECT and in absolute form", refused()),
        shared(
            "c18_other_paths",
            "paths that the gateway does not have, and disguises of the one it has",
            refused(),
        ),
        shared("c18_connect_to_another_host", "CONNECT", refused()),
        shared("c18_absolute_form", "whole addresses as a request's target", refused()),
        shared("c18_smuggled_request", "two lengths, chunks in disguise, folded headers", refused()),
        shared("c18_bytes_that_are_no_http", "NULs, HTTP/2, TLS", refused()),
        shared("c18_a_header_of_a_mebibyte", "one header of 1 MiB; ten thousand headers", refused()),
        shared(
            "c18_a_body_of_forty_mebibytes",
            "a body beyond the limit",
            vec![Fact("status", |status| *status == 413)],
        ),
        own(
            "c18_a_body_without_end",
            "chunk after chunk",
            vec![
                Fact("stopped", |stopped| *stopped == true),
                Check("<= 128 MiB more", |seen| seen.grew_less(128 << 10)),
            ],
        ),
        shared(
            "c18_keys_of_the_box_are_not_forwarded",
            "headers, model and limits of the box's own",
            vec![Fact("status", |status| *status == 200), Check("the host's only", what_the_provider_saw)],
        ),
        shared(
            "c18_a_model_that_says_the_key",
            "a provider that echoes the key",
            vec![Fact("key_seen", |seen| *seen == false)],
        ),
        shared("c18_a_tool_at_the_provider", "a tool that runs where there is a network", invalid()),
        shared("c18_an_image_by_url", "an image that the provider would fetch", invalid()),
        shared("c18_an_unknown_field", "a server that the provider would call", invalid()),
        own("c18_connections_without_end", "400 connections that say nothing", healthy()),
        own("c18_slow_headers", "400 connections that never end their headers", healthy()),
        own("c18_slow_bodies", "400 requests that never end their bodies", healthy()),
        own(
            "c18_a_thousand_requests_in_one_breath",
            "a thousand requests without reading an answer",
            vec![Fact("answers", |n| *n == 1_000)],
        ),
        own("c18_answers_that_are_not_read", "50,000 requests whose answers nobody reads", healthy()),
        own(
            "c21_calls_in_parallel",
            "twelve model calls at the same time",
            vec![Fact("statuses", |all| {
                let right = |status: &Value| [200, 429].map(Value::from).contains(status);
                all.as_array().is_some_and(|all| all.len() == 12 && all.iter().all(right))
            })],
        ),
    ]
}

fn shapes_and_silence() -> Vec<Case> {
    let (own, shared) = (Case::own, Case::shared);
    vec![
        shared(
            "g7_shapes_that_the_gateway_does_not_know",
            "content, sources and tools in other JSON shapes, unknown blocks, a field given twice",
            vec![
                Fact("passed", is_empty),
                Fact("without_a_place", is_empty),
                Fact("refused", |n| n.as_u64().is_some_and(|n| n >= 20)),
                Check("nothing reached the provider", |seen| {
                    let all = seen.harness.world.model.requests();
                    let got = all.iter().find(|request| request.body.to_string().contains("evil.example"));
                    got.map_or(Ok(()), |request| Err(format!("the provider was asked for {}", request.body)))
                }),
            ],
        ),
        shared(
            "g7_a_key_in_other_letters",
            "a provider that echoes the key in hexadecimal, base64, percent-encoded and reversed",
            vec![
                Fact("status", |status| *status == 200),
                Fact("hidden", |n| *n == 8),
                Fact("key_seen", |seen| *seen == false),
            ],
        ),
        own(
            "g7_connections_that_fall_silent",
            "eight connections without a word, in a head, in a body, after an answer; a ninth one",
            vec![
                Fact("ninth", |status| *status == 0),
                Fact("closed", |n| *n == 8),
                Fact("seconds", |all| {
                    all.as_array().is_some_and(|all| all.iter().all(within_the_idle_limit))
                }),
                Fact("healthy", |status| *status == 200),
            ],
        ),
    ]
}

/// A connection is closed after 30 s of silence. A host with much to do is late.
fn within_the_idle_limit(seconds: &Value) -> bool {
    seconds.as_u64().is_some_and(|seconds| (28..60).contains(&seconds))
}

/// Checks that the provider got the host's key, the group's model and the host's limit, and none of the box's headers.
fn what_the_provider_saw(seen: &Seen) -> Result<(), String> {
    let requests = seen.harness.world.model.requests();
    let text = |r: &crate::model::Recorded| r.body["messages"].to_string();
    let Some(request) = requests.iter().rev().find(|r| text(r).contains("attack headers")) else {
        return Err("no request reached the provider".to_owned());
    };
    let foreign = request.headers.iter().find(|(name, value)| {
        value.contains("evil") || (name.as_str() == "authorization") || name.starts_with("x-forwarded")
    });
    if let Some((name, value)) = foreign {
        return Err(format!("the provider was sent {name}: {value}"));
    }
    let right = request.body["model"] != "evil-model"
        && request.body["max_tokens"].as_u64().is_some_and(|n| n <= 8_192);
    if right { Ok(()) } else { Err(format!("the provider was asked for {}", request.body)) }
}
