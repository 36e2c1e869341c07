//! Journeys of the Telegram channel itself: its token, its position, and what people see of its troubles. They run on
//! the engine stand-in.

use journeys::recording_proxy::RecordingProxy;
use journeys::telegram::{OTHER_TOKEN, TOKEN};
use journeys::world::{Engine, World};

async fn shows(world: &World, words: &str) -> String {
    let shown = async || Some(world.lazaret(&["status"]).await).filter(|status| status.contains(words));
    world.patiently(&format!("status shows {words:?}"), shown).await
}

async fn doctor(world: &World) -> String {
    let output = world.run(&["doctor"], "").await;
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn another_bots_messages_are_new_although_their_numbers_are_not() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    for n in 1..4 {
        world.model.on(&format!("number {n}")).says(&format!("{n} from the first bot."));
        ann.says(&direct, &format!("number {n}"));
        assert_eq!(world.hears(&direct).await, format!("{n} from the first bot."));
    }
    world.stop_host().await;
    world.telegram.has_another_bot();
    world.set("TELEGRAM_BOT_TOKEN", OTHER_TOKEN);
    world.up().await;
    let answered =
        world.database().query_row("SELECT count(*) FROM message", [], |r| r.get::<_, i64>(0)).unwrap();
    for n in 4..7 {
        world.model.on(&format!("number {n}")).says(&format!("{n} from the other bot."));
        ann.says(&direct, &format!("number {n}"));
        assert_eq!(world.hears(&direct).await, format!("{n} from the other bot."));
    }
    let counted =
        world.database().query_row("SELECT count(*) FROM message", [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(counted, answered + 3);
    let positions: i64 = world
        .database()
        .query_row("SELECT count(*) FROM position WHERE channel = 'telegram'", [], |r| r.get(0))
        .unwrap();
    assert_eq!(positions, 2, "each bot has a position of its own");
    world.finish().await;
}

#[tokio::test]
async fn an_install_from_before_accounts_goes_on_without_a_doubled_message() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("before").says("Heard before.");
    ann.says(&direct, "before");
    assert_eq!(world.hears(&direct).await, "Heard before.");
    world.telegram.acknowledged().await;
    world.stop_host().await;
    // As schema 7 had it: a position without an account.
    world.database().execute("UPDATE position SET account = '' WHERE channel = 'telegram'", []).unwrap();
    ann.says(&direct, "after");
    world.model.on("after").says("Heard after.");
    world.up().await;
    assert_eq!(world.hears(&direct).await, "Heard after.");
    assert!(direct.unheard().is_empty());
    let account: String = world
        .database()
        .query_row("SELECT account FROM position WHERE channel = 'telegram'", [], |r| r.get(0))
        .unwrap();
    assert_eq!(account, "4242");
    world.finish().await;
}

#[tokio::test]
async fn one_refusal_of_the_token_is_told_and_does_not_turn_the_channel_off() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    shows(&world, "channel   telegram reads @laz_bot").await;
    world.stop_host().await;
    for _ in 0..2 {
        world.telegram.refuse_next("getUpdates", 401, "Unauthorized", None);
    }
    world.up().await;
    world.telegram.troubled().await;
    world.model.on("are you there").says("I am.");
    ann.says(&direct, "are you there?");
    assert_eq!(world.hears(&direct).await, "I am.");
    shows(&world, "channel   telegram reads @laz_bot").await;
    let told = world.chat("/status\n").await;
    assert!(
        told.contains("The channel telegram reads no messages: Telegram does not know this bot"),
        "{told}"
    );
    world.finish().await;
}

#[tokio::test]
async fn a_webhook_is_named_with_its_remedy_in_status_doctor_and_the_terminal() {
    let mut world = World::on(Engine::stand_in().await).await;
    let what = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
    for _ in 0..100 {
        world.telegram.refuse_next("getUpdates", 409, what, None);
    }
    world.up().await;
    let status = shows(&world, "telegram.webhook").await;
    assert!(status.contains("remove it with deleteWebhook") && status.contains("asks again at"), "{status}");
    assert_eq!(world.run(&["status"], "").await.status.code(), Some(4));
    let found = doctor(&world).await;
    assert!(found.contains("BAD  channel") && found.contains("deleteWebhook"), "{found}");
    let told = world.chat("/status\n").await;
    assert!(told.contains("The channel telegram reads no messages: a webhook is set"), "{told}");
    world.finish().await;
}

#[tokio::test]
async fn a_wrong_and_a_missing_token_and_a_platform_that_is_away_are_seen() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.telegram.refuse_token();
    world.up().await;
    shows(&world, "telegram.token").await;
    assert!(doctor(&world).await.contains("check TELEGRAM_BOT_TOKEN"));
    world.stop_host().await;

    world.telegram.goes_away().await;
    world.up().await;
    shows(&world, "telegram.unreachable").await;
    world.stop_host().await;

    world.unset("TELEGRAM_BOT_TOKEN");
    world.up().await;
    shows(&world, "channel   telegram: off: no token was found in TELEGRAM_BOT_TOKEN").await;
    assert!(doctor(&world).await.contains("ok   channel"));
    assert_eq!(world.run(&["status"], "").await.status.code(), Some(0), "a channel without a token is off");
    world.finish().await;
}

#[tokio::test]
async fn a_proxy_of_the_environment_sees_nothing_of_servers_of_ones_own() {
    let proxy = RecordingProxy::start().await;
    let all = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let address = proxy.at("http");
    let settings = all.map(|name| (name, address.as_str()));
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    world.model.on("hello").says("Hello.");
    ann.says(&direct, "hello");
    assert_eq!(world.hears(&direct).await, "Hello.");
    assert_eq!(proxy.heard(), Vec::<String>::new());
    assert!(doctor(&world).await.contains(&format!("ok   proxy        {address} (HTTPS_PROXY)")));
    world.finish().await;
}

#[tokio::test]
async fn a_proxy_is_asked_for_another_machine_and_never_sees_the_token() {
    for scheme in ["http", "socks5", "socks5h"] {
        let proxy = RecordingProxy::start().await;
        let mut world = World::on(Engine::stand_in().await).await;
        // This address resolves everywhere, and nobody answers there (RFC 5737).
        world.set("LAZARET_CHANNELS_TELEGRAM_BASE_URL", "https://192.0.2.7:8443");
        world.set("ALL_PROXY", &proxy.at(scheme));
        world.up().await;
        let asked = async || proxy.heard().first().cloned();
        let first = world.patiently(&format!("the {scheme} proxy is asked"), asked).await;
        match scheme {
            "http" => assert!(first.starts_with("CONNECT 192.0.2.7:8443 HTTP/1.1"), "{first}"),
            _ => assert!(first.starts_with("SOCKS5 \u{5}\u{1}"), "{first:?}"),
        }
        let secret = TOKEN.split(':').next_back().unwrap();
        assert!(proxy.heard().iter().all(|heard| !heard.contains(secret)));
        world.finish().await;
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_is_refused_by_name() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.set("LAZARET_CHANNELS_TELEGRAM_BASE_URL", "https://192.0.2.7:8443");
    world.set("all_proxy", "socks9://ann:canary@127.0.0.1:1080");
    for command in ["up", "doctor"] {
        let output = world.run(&[command], "").await;
        assert_eq!(output.status.code(), Some(1));
        let told =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("all_proxy names") && told.contains("socks5h://"), "{told}");
        assert!(!told.contains("canary"), "{told}");
    }
    world.finish().await;
}
