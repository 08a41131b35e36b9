//! What a healthy simulated router exports.

use mikrotik_backup::clock::Clock;
use mikrotik_backup::sim::{Fault, RouterOptions, SECRET_MARK, SshProfile};
use russh::{ChannelMsg, client};
use std::collections::HashSet;
use time::macros::datetime;

use super::{config, configuration, exec, log_in, log_in_with, start};

#[tokio::test]
async fn an_exec_ends_with_status_then_close_and_small_messages() {
    let router = start(RouterOptions {
        size_bytes: 200_000,
        clock: Clock::following_tokio(datetime!(2026-03-04 05:06:07 UTC)),
        ..RouterOptions::default()
    });
    let client = log_in(&router).await;
    let heard = exec(&client, "/export show-sensitive").await;
    assert!(heard.ended_like_routeros(), "{:?}", heard.events);
    assert_eq!(heard.largest, 4095);
    assert!(!heard.data_after_status);
    let text = heard.text();
    assert!(text.starts_with("# 2026-03-04 05:06:0"), "{}", &text[..80]);
    let first = text.lines().next().expect("a header");
    assert!(first.ends_with(" by RouterOS 7.16.2"), "{first}");
    assert!(text.len().abs_diff(200_000) < 1_000, "{}", text.len());
    assert!(text.ends_with("\r\n") && text.matches('\n').count() == text.matches("\r\n").count());
    assert!(text.contains("SSID: office, CAPsMAN forwarding\r\n"));
    let widest = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::len);
    assert_eq!(widest.max(), Some(79));
}

#[tokio::test]
async fn version_7_hides_secrets_unless_asked() {
    let router = start(RouterOptions::default());
    let client = log_in(&router).await;
    let shown = exec(&client, "/export show-sensitive").await;
    let hidden = exec(&client, "/export").await;
    assert!(shown.text().contains(SECRET_MARK));
    assert!(!hidden.text().contains(SECRET_MARK));
    assert!(
        hidden
            .text()
            .contains("/ppp secret\r\nadd name=customer1 profile=")
    );
}

#[tokio::test]
async fn version_6_refuses_the_word_and_shows_secrets_without_it() {
    let router = start(RouterOptions {
        version: "6.49.18".to_owned(),
        profile: SshProfile::V6,
        clock: Clock::following_tokio(datetime!(2026-03-04 05:06:07 UTC)),
        ..RouterOptions::default()
    });
    let client = log_in(&router).await;
    let refused = exec(&client, "/export show-sensitive").await;
    assert_eq!(
        refused.text(),
        "expected end of command (line 1 column 9)\r\n"
    );
    assert!(refused.ended_like_routeros(), "{:?}", refused.events);
    let plain = exec(&client, "/export").await;
    assert!(plain.text().starts_with("# mar/04/2026 05:06:"));
    assert!(plain.text().contains(SECRET_MARK));
    let resource = exec(&client, "/system resource print").await;
    assert!(resource.text().contains("version: 6.49.18 (stable)\r\n"));
    let wrong = exec(&client, "/exprot").await;
    assert_eq!(
        wrong.text(),
        "bad command name exprot (line 1 column 2)\r\n"
    );
    assert_eq!(router.stats().exports_whole, 1);
}

#[tokio::test]
async fn an_unchanged_router_differs_only_in_comments_and_an_edit_shows() {
    let router = start(RouterOptions {
        size_bytes: 40_000,
        ..RouterOptions::default()
    });
    let client = log_in(&router).await;
    let first = exec(&client, "/export").await;
    let second = exec(&client, "/export").await;
    assert_ne!(first.text(), second.text(), "comments about state flap");
    assert_eq!(configuration(first.text()), configuration(second.text()));

    router.change(|configuration| configuration.add_firewall_rule("let \"them\" in"));
    let edited = configuration(exec(&client, "/export").await.text());
    let before: HashSet<_> = configuration(first.text()).into_iter().collect();
    let added: Vec<_> = edited
        .iter()
        .filter(|line| !before.contains(*line))
        .collect();
    assert_eq!(
        added,
        [r#"add action=accept chain=forward comment="let \"them\" in""#]
    );

    router.upgrade("7.20");
    let upgraded = exec(&client, "/export").await;
    let header = upgraded.text().lines().next().expect("a header");
    assert!(header.ends_with("by RouterOS 7.20"), "{header}");
    assert_eq!(configuration(upgraded.text()), edited);
}

#[tokio::test]
async fn a_fixture_is_exported_with_a_fresh_date() {
    let fixture =
        "# jan/01/2020 00:00:00 by RouterOS 6.47.10\n#\n/ip dns\nset servers=\\\n    192.0.2.53\n";
    let router = start(RouterOptions {
        fixture: Some(fixture.to_owned()),
        clock: Clock::following_tokio(datetime!(2026-03-04 05:06:07 UTC)),
        ..RouterOptions::default()
    });
    let client = log_in(&router).await;
    let refused = exec(&client, "/export show-sensitive").await;
    assert!(refused.text().starts_with("expected end of command"));
    let heard = exec(&client, "/export").await;
    let (header, rest) = heard.text().split_once("\r\n").expect("lines");
    assert!(header.starts_with("# mar/04/2026 05:06:"), "{header}");
    assert!(header.ends_with(" by RouterOS 6.47.10"), "{header}");
    assert_eq!(rest, "#\r\n/ip dns\r\nset servers=\\\r\n    192.0.2.53\r\n");
}

#[tokio::test]
async fn a_hundred_megabytes_are_streamed() {
    let router = start(RouterOptions::default());
    router.set_fault(Fault::Size(100 << 20));
    let wide = client::Config {
        window_size: 128 << 20,
        ..config()
    };
    let client = log_in_with(&router, wide).await;
    let mut channel = client.channel_open_session().await.expect("open a channel");
    channel
        .exec(true, "/export")
        .await
        .expect("send the command");
    let (mut length, mut status) = (0, None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => length += data.len(),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    assert!(length.abs_diff(100 << 20) < 1_000, "{length}");
    assert_eq!(status, Some(0));
    assert_eq!(router.stats().bytes, length as u64);
}
