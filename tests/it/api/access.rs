//! Who is let in, and how much of it.

use super::client::{tcp, unix};
use crate::embedded::harness::Folder;

const STILL: (&str, &str) = ("CONFIG_BACKUP_INTERVAL", "86400");
const DEVICES: &str = "/api/v1/devices";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_except_on_the_socket() {
    let folder = Folder::new();
    let token = ("API_TOKEN", "t0ken-of-the-api-tests-1b2c3d4e");
    let service = folder.run("service", &[STILL, token]).await;
    let right = format!("Authorization: Bearer {}", token.1);
    let answer = tcp(&service.http, "GET", DEVICES, &[&right]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["devices"], serde_json::json!([]));
    let wrong = "Authorization: Bearer t0ken-of-the-api-tests-1b2c3d4f";
    for headers in [vec![], vec![wrong]] {
        // Whether a route is there is nobody's business.
        for path in [DEVICES, "/api/v1/openapi.json", "/api/v1/nothing", "/api"] {
            let answer = tcp(&service.http, "GET", path, &headers).await;
            if path != "/api" {
                answer.problem(401);
                assert!(
                    answer.head.contains("www-authenticate: bearer"),
                    "{answer:?}"
                );
            }
        }
    }
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        assert_eq!(tcp(&service.http, "GET", path, &[]).await.status, 200);
    }
    let socket = folder.data().join("control.sock");
    assert_eq!(unix(&socket, "GET", DEVICES).await.status, 200);
    assert!(!service.log().contains(token.1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_loopback_is_served() {
    let folder = Folder::new();
    let service = folder.run("loopback", &[STILL]).await;
    assert_eq!(tcp(&service.http, "GET", DEVICES, &[]).await.status, 200);
    // A page in a browser on this machine is not a program on this machine.
    let page = tcp(
        &service.http,
        "GET",
        DEVICES,
        &["Origin: https://page.example"],
    )
    .await;
    page.problem(403);
    drop(service);

    let folder = Folder::new();
    let open = folder.run_open("open", &[STILL]).await;
    let why = tcp(&open.http, "GET", DEVICES, &[]).await.problem(403);
    assert!(
        why.contains("API_TOKEN") && why.contains("HTTP_ADDR"),
        "{why}"
    );
    assert_eq!(tcp(&open.http, "GET", "/livez", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn size_and_rate_are_bounded_and_say_when_to_come_again() {
    let folder = Folder::new();
    let token = ("API_TOKEN", "t0ken-of-the-api-tests-1b2c3d4e");
    let service = folder.run("bounded", &[STILL, token]).await;
    let right = format!("Authorization: Bearer {}", token.1);
    let path = "/api/v1/devices/00000000-0000-0000-0000-000000000007/backup";
    let large = [right.as_str(), "Content-Length: 1000000"];
    tcp(&service.http, "POST", path, &large).await.problem(413);
    let endless = [right.as_str(), "Transfer-Encoding: chunked"];
    tcp(&service.http, "POST", path, &endless)
        .await
        .problem(413);

    let mut guesses = Vec::new();
    for guess in 0..200 {
        let guess = format!("Authorization: Bearer guess-{guess}");
        guesses.push(tcp(&service.http, "GET", DEVICES, &[&guess]).await);
        if guesses.last().is_some_and(|answer| answer.status == 429) {
            break;
        }
    }
    let last = guesses.last().expect("an answer");
    last.problem(429);
    assert!(last.head.contains("\r\nretry-after: "), "{last:?}");
    // Whoever guesses does not keep others out.
    assert_eq!(
        tcp(&service.http, "GET", DEVICES, &[&right]).await.status,
        200
    );
    let mut asked = 0;
    let refused = loop {
        let answer = tcp(&service.http, "GET", DEVICES, &[&right]).await;
        if answer.status != 200 {
            break Some(answer);
        }
        asked += 1;
        if asked == 5000 {
            break None;
        }
    };
    // A machine that is slower than the rate never meets the bound.
    if let Some(refused) = refused {
        assert!(asked >= 50, "{asked}");
        refused.problem(429);
    }
}
