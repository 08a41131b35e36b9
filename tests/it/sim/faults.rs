//! Each fault is what its name says.

use std::io::ErrorKind;
use std::time::Duration;

use mikrotik_backup::sim::{Fault, RouterOptions, SECRET_MARK};
use russh::{ChannelMsg, client};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout as within};

use super::{
    GENEROUS, SILENCE, config, configuration, connect, exec, exec_until_silence, log_in,
    log_in_with, send, start, until,
};

#[tokio::test]
async fn the_tail_is_lost_when_the_window_is_used_up() {
    let router = start(RouterOptions {
        size_bytes: 400_000,
        ..RouterOptions::default()
    });
    router.set_fault(Fault::LoseTailFar);
    let narrow = || client::Config {
        window_size: 128 << 10,
        channel_buffer_size: 1,
        ..config()
    };
    let client = log_in_with(&router, narrow()).await;
    let heard = exec(&client, "/export").await;
    assert_eq!(heard.output.len(), 128 << 10);
    assert!(heard.ended_like_routeros(), "{:?}", heard.events);
    let wide = exec(&log_in(&router).await, "/export").await;
    assert!(wide.output.len() > 399_000, "{}", wide.output.len());

    // A client that does not read sends no adjustment either.
    router.set_fault(Fault::LoseTail);
    let client = log_in_with(&router, narrow()).await;
    let mut channel = client.channel_open_session().await.expect("open a channel");
    let sent = router.stats().bytes;
    channel
        .exec(true, "/export")
        .await
        .expect("send the command");
    until("the window is used up", || {
        router.stats().bytes == sent + (128 << 10)
    })
    .await;
    let mut length = 0;
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            length += data.len();
        }
    }
    assert_eq!(length, 128 << 10);
    assert_eq!(router.stats().exports_whole, 1, "only the wide one");
}

#[tokio::test]
async fn each_output_fault_is_what_its_name_says() {
    let router = start(RouterOptions {
        size_bytes: 40_000,
        ..RouterOptions::default()
    });
    let whole = exec(&log_in(&router).await, "/export").await;
    for (fault, expected) in [
        (Fault::ErrorText, Some("std failure: timeout (13)\r\n")),
        (
            Fault::PermissionDenied,
            Some("not enough permissions (9)\r\n"),
        ),
        (Fault::EmptyOutput, Some("")),
        (Fault::BannerOnly, None),
        (Fault::Html, None),
        (Fault::Noise(10_001), None),
        (Fault::Cut, None),
        (Fault::CutMidLine, None),
        (Fault::Interrupted, None),
        (Fault::MenuTimeout, None),
        (Fault::SecretsWithheld, None),
        (Fault::Size(100_000), None),
        (Fault::DataAfterExitStatus, None),
    ] {
        router.set_fault_for(fault, 1);
        let heard = exec(&log_in(&router).await, "/export show-sensitive").await;
        assert!(heard.ended_like_routeros(), "{fault}: {:?}", heard.events);
        assert_eq!(
            heard.data_after_status,
            fault == Fault::DataAfterExitStatus,
            "{fault}"
        );
        if let Some(expected) = expected {
            assert_eq!(heard.text(), expected, "{fault}");
            continue;
        }
        let text = String::from_utf8_lossy(&heard.output);
        let header = text.starts_with("# 20");
        let about_half = text.len() > 15_000 && text.len() < 38_500;
        let good = match fault {
            Fault::BannerOnly => text.contains("MikroTik RouterOS") && !header,
            Fault::Html => text.starts_with("<!DOCTYPE html>"),
            Fault::Noise(bytes) => heard.output.len() as u64 == bytes,
            Fault::Cut => header && about_half && text.ends_with("\r\n"),
            Fault::CutMidLine => header && about_half && !text.ends_with('\n'),
            Fault::Interrupted => text.ends_with("#error exporting /ip socks\r\n#interrupted\r\n"),
            Fault::MenuTimeout => {
                text.contains("\r\n#error exporting \"/ipv6/route\" (timeout)\r\n")
            }
            Fault::SecretsWithheld => configuration(&text) == configuration(whole.text()),
            Fault::Size(bytes) => (text.len() as u64).abs_diff(bytes) < 1_000,
            Fault::DataAfterExitStatus => text.ends_with("\r\n") && text.contains(SECRET_MARK),
            _ => unreachable!("{fault} is not in the table"),
        };
        assert!(good, "{fault}: {} bytes, {:.60}", text.len(), text);
    }
    let healthy = exec(&log_in(&router).await, "/export").await;
    assert_eq!(configuration(healthy.text()), configuration(whole.text()));
}

#[tokio::test]
async fn faulty_endings_of_a_channel() {
    let router = start(RouterOptions::default());
    router.set_fault(Fault::CloseWithoutExitStatus);
    let heard = exec(&log_in(&router).await, "/export").await;
    assert_eq!(heard.events, ["success", "close"]);

    router.set_fault(Fault::ExitStatus(3));
    let heard = exec(&log_in(&router).await, "/export").await;
    assert_eq!(heard.events, ["success", "status 3", "close"]);

    let whole = heard.output.len();
    router.set_fault(Fault::DropConnectionMidOutput);
    let client = log_in(&router).await;
    let heard = exec(&client, "/export").await;
    assert_eq!(heard.events, ["success"]);
    let part = heard.output.len();
    assert!(
        part > whole / 8 && part < whole * 3 / 4,
        "{part} of {whole}"
    );
    until("the client notices", || client.is_closed()).await;
}

#[tokio::test]
async fn stalls_last_until_the_client_goes() {
    let router = start(RouterOptions {
        size_bytes: 40_000,
        ..RouterOptions::default()
    });
    router.set_fault(Fault::StallBeforeOutput);
    let mut client = log_in(&router).await;
    let heard = exec_until_silence(&client, "/export").await;
    assert_eq!(
        (heard.output.len(), heard.events),
        (0, vec!["success".into()])
    );

    router.set_fault(Fault::StallMidOutput);
    client = log_in(&router).await;
    let heard = exec_until_silence(&client, "/export").await;
    assert!((19_000..21_500).contains(&heard.output.len()));

    let pause = Duration::from_millis(20);
    router.set_fault(Fault::SlowDrip(pause));
    client = log_in(&router).await;
    let mut channel = send(&client, "/export").await;
    let (begun, mut output) = (Instant::now(), Vec::new());
    while output.len() < 5 {
        let message = within(GENEROUS, channel.wait()).await.expect("in time");
        if let Some(ChannelMsg::Data { data }) = message {
            assert_eq!(data.len(), 1);
            output.extend_from_slice(&data);
        }
    }
    assert!(output.starts_with(b"# 20") && begun.elapsed() >= pause * 4);
    drop(channel);

    router.set_fault(Fault::StallAfterAuth);
    client = log_in(&router).await;
    let opening = within(SILENCE, client.channel_open_session());
    assert!(opening.await.is_err(), "no channel is confirmed");
    drop(client);

    for fault in [Fault::StallInKex, Fault::AcceptAndSayNothing] {
        router.set_fault(fault);
        let mut stream = TcpStream::connect(router.address())
            .await
            .expect("accepted");
        let mut greeting = Vec::new();
        if fault == Fault::StallInKex {
            let read = within(GENEROUS, stream.read_buf(&mut greeting)).await;
            read.expect("in time").expect("an identification");
            assert!(greeting.starts_with(b"SSH-2.0-"));
        }
        let reading = stream.read_to_end(&mut greeting);
        assert!(within(SILENCE, reading).await.is_err(), "it stays open");
        let silent = fault == Fault::AcceptAndSayNothing;
        assert_eq!(greeting.is_empty(), silent, "{fault}");
        drop(stream);
    }
    router.set_fault(Fault::StallInKex);
    let stalled = within(SILENCE, connect(&router, config())).await;
    assert!(stalled.is_err(), "the key exchange goes no further");

    // The client of the last line is one that russh cannot take back: its task still lives.
    until("their sockets are closed", || {
        router.stats().open_connections <= 1
    })
    .await;
    assert_eq!(router.stats().open_sessions, 0);
    assert_eq!(router.stats().exports_whole, 0);
}

#[tokio::test]
async fn faults_before_the_login() {
    let router = start(RouterOptions::default());
    router.set_fault(Fault::Refuse);
    let refused = TcpStream::connect(router.address()).await;
    assert_eq!(
        refused.expect_err("refused").kind(),
        ErrorKind::ConnectionRefused
    );
    router.clear_fault();
    log_in(&router).await;

    router.set_fault(Fault::AcceptAndClose);
    let mut stream = TcpStream::connect(router.address())
        .await
        .expect("accepted");
    assert_eq!(stream.read(&mut [0; 8]).await.expect("a clean end"), 0);

    let delay = Duration::from_millis(400);
    router.set_fault(Fault::SlowKex(delay));
    let begun = Instant::now();
    log_in(&router).await;
    assert!(begun.elapsed() >= delay);

    let ours = router.fingerprint();
    router.set_fault_for(Fault::RotateHostKey, 1);
    let (_, other) = connect(&router, config()).await.expect("connect");
    let (_, again) = connect(&router, config()).await.expect("connect");
    assert!(other != ours && again == ours, "{other} {again} {ours}");
    let rotated = router.rotate_host_key();
    let (_, seen) = connect(&router, config()).await.expect("connect");
    assert!(seen == rotated && seen != ours, "{seen}");

    router.set_fault(Fault::LegacyAlgorithmsOnly);
    let modern = connect(&router, client::Config::default()).await;
    assert!(
        modern.is_err(),
        "a client with defaults has no MAC in common"
    );
    log_in(&router).await;
}
