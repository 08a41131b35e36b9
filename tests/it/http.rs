//! Integration tests: the HTTP server over real sockets, and the metrics page under promtool.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mikrotik_backup::domain::schedule::Condition;
use mikrotik_backup::http::client::{HealthcheckError, healthcheck};
use mikrotik_backup::http::{ListenError, Pages, Readiness, Server, router};
use mikrotik_backup::metrics::Metrics;
use mikrotik_backup::metrics::archive::ArchiveMetrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::services::process;

/// Much longer than anything here takes.
const BOUND: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

async fn serve(readiness: Readiness) -> Running {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let pages = Pages::new(metrics, Arc::new(readiness), |metrics| {
        metrics.set_devices(&[(Condition::Blocked, 4)].into());
    });
    serve_router(router(pages)).await
}

async fn serve_router(router: axum::Router) -> Running {
    let server = Server::bind("127.0.0.1:0".parse().expect("an address"))
        .await
        .expect("a free port");
    let address = server.address();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(server.serve(router, stop.clone()));
    Running {
        address,
        stop,
        ended,
    }
}

impl Running {
    /// Sends `request` as it is and reads until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = Vec::new();
        timeout(BOUND, stream.read_to_end(&mut answer))
            .await
            .expect("an answer in time")
            .expect("read");
        String::from_utf8(answer).expect("text")
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let answer = self.raw(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        Answer {
            status: head[9..12].parse().expect("a status"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        assert!(
            self.head.contains("content-type: application/json"),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).expect("JSON")
    }
}

#[tokio::test]
async fn health_is_ok_while_the_process_lives() {
    let http = serve(Readiness::new().with("redis", || async { Err("away".to_owned()) })).await;
    for path in ["/health", "/livez"] {
        let answer = http.ask("GET", path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"status":"ok"}"#)
        );
        assert!(!answer.head.contains("\r\nserver:"), "{}", answer.head);
        let head = http.ask("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
    }
}

#[tokio::test]
async fn readiness_names_what_is_away_and_comes_back() {
    let away = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&away);
    let readiness =
        Readiness::new()
            .with("postgres", || async { Ok(()) })
            .with("nats", move || {
                let away = state.load(Ordering::Relaxed);
                async move {
                    if away {
                        Err("connection refused".to_owned())
                    } else {
                        Ok(())
                    }
                }
            });
    let http = serve(readiness).await;
    let answer = http.ask("GET", "/readyz").await;
    assert_eq!(answer.status, 503);
    let expected = serde_json::json!({ "nats": "connection refused" });
    assert_eq!(answer.json()["failing"], expected);
    away.store(false, Ordering::Relaxed);
    let poll = async {
        loop {
            let answer = http.ask("GET", "/readyz").await;
            if answer.status == 200 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = timeout(BOUND, poll).await.expect("ready in time");
    assert_eq!(answer.json()["status"], "ready");
}

#[tokio::test]
async fn strange_requests_are_answered_as_json() {
    let http = serve(Readiness::new()).await;
    let missing = http.ask("GET", "/nothing").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"], "no such route");
    let posted = http.ask("POST", "/health").await;
    assert_eq!(posted.status, 405);
    assert!(posted.head.contains("allow: get,head"), "{}", posted.head);
    posted.json();
    let garbage = http.raw("\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let http = serve(Readiness::new()).await;
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    let mut stream = TcpStream::connect(http.address).await.expect("connect");
    // The server may close before everything is sent.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = vec![0; 12];
    let read = timeout(BOUND, stream.read_exact(&mut answer)).await;
    if read.expect("an end in time").is_ok() {
        assert_eq!(answer, b"HTTP/1.1 431");
    }
    assert_eq!(http.ask("GET", "/health").await.status, 200);
}

#[tokio::test]
async fn metrics_pass_promtool_and_are_refreshed_at_each_scrape() {
    let http = serve(Readiness::new()).await;
    let answer = http.ask("GET", "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    let blocked = "mikrotik_config_backup_devices{state=\"blocked\"} 4";
    assert!(answer.body.contains(blocked), "{}", answer.body);

    let Some(promtool) = process::require("promtool") else {
        return;
    };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    let mut stdin = child.stdin.take().expect("a pipe");
    let archive = ArchiveMetrics::new().expect("metrics").render();
    let archive = archive.expect("the page of the archive role");
    // What both pages have is there once.
    let ours = archive
        .lines()
        .filter(|line| line.contains("mikrotik_archive_"));
    let both = ours.fold(answer.body, |page, line| page + line + "\n");
    stdin.write_all(both.as_bytes()).expect("send the pages");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool's verdict");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_agreed_metrics_are_on_the_page() {
    let page = Metrics::new().expect("metrics").render().expect("a page");
    for (name, kind) in [
        ("mikrotik_config_backup_total", "counter"),
        ("mikrotik_config_backup_duration_seconds", "histogram"),
        ("mikrotik_config_backup_active", "gauge"),
        ("mikrotik_nats_publish_total", "counter"),
        ("mikrotik_redis_lock_total", "counter"),
    ] {
        let line = format!("# TYPE {name} {kind}\n");
        assert!(page.contains(&line), "{name} {kind}\n{page}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_named_with_its_variable() {
    let http = serve(Readiness::new()).await;
    let error = Server::bind(http.address).await.expect_err("in use");
    assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("HTTP_ADDR={}", http.address)),
        "{text}"
    );
    // 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    let foreign = Server::bind("192.0.2.1:0".parse().expect("an address")).await;
    assert!(
        matches!(foreign, Err(ListenError::NotAllowed { .. })),
        "{foreign:?}"
    );
}

#[tokio::test]
async fn stopping_lets_a_running_request_finish_and_closes_idle_connections() {
    let (began, mut beginning) = tokio::sync::mpsc::channel::<()>(1);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&gate);
    let slow = axum::Router::new().route(
        "/slow",
        axum::routing::get(move || async move {
            began.send(()).await.expect("the test waits");
            let _permit = held.acquire().await.expect("never closed");
            "done"
        }),
    );
    let http = serve_router(slow).await;
    let address = http.address;
    let mut idle = TcpStream::connect(address).await.expect("connect");
    let request = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let request = b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n";
        stream.write_all(request).await.expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    });
    beginning.recv().await.expect("the request begins");
    http.stop.cancel();
    let mut nothing = [0];
    let closed = timeout(BOUND, idle.read(&mut nothing))
        .await
        .expect("closed in time");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert!(!http.ended.is_finished());
    gate.add_permits(1);
    let answer = timeout(BOUND, request)
        .await
        .expect("answered")
        .expect("no panic");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"),
        "{answer}"
    );
    timeout(BOUND, http.ended)
        .await
        .expect("ended in time")
        .expect("no panic");
}

#[tokio::test]
async fn healthcheck_tells_whether_the_process_lives() {
    let http = serve(Readiness::new()).await;
    let wildcard = SocketAddr::from(([0, 0, 0, 0], http.address.port()));
    healthcheck(http.address).await.expect("it lives");
    healthcheck(wildcard).await.expect("it lives");

    let other = serve_router(axum::Router::new()).await;
    let error = healthcheck(other.address).await.expect_err("not ours");
    assert!(
        matches!(error, HealthcheckError::Status { .. }),
        "{error:?}"
    );

    // Bound and not listening: refused, and nobody else can take the port meanwhile.
    let reserved = tokio::net::TcpSocket::new_v4().expect("a socket");
    let loopback = "127.0.0.1:0".parse().expect("an address");
    reserved.bind(loopback).expect("a free port");
    let error = healthcheck(reserved.local_addr().expect("its address"))
        .await
        .expect_err("nobody listens");
    assert!(
        matches!(error, HealthcheckError::Unreachable { .. }),
        "{error:?}"
    );

    let mute = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let error = healthcheck(mute.local_addr().expect("its address")).await;
    assert!(
        matches!(error, Err(HealthcheckError::Late { .. })),
        "{error:?}"
    );
}
