//! Opening Transit ciphertexts over real HTTP: what is asked, what is remembered, and what an
//! outage costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mikrotik_backup::credentials::{CredentialError, Credentials, Login, Transit};
use mikrotik_backup::domain::device::{CredentialSource, Device, DeviceId, Endpoint, TenantId};
use mikrotik_backup::domain::failure::{FailureKind, chain};
use mikrotik_backup::domain::host_key::Pin;
use mikrotik_backup::metrics::Metrics;
use secrecy::SecretString;
use uuid::Uuid;

use crate::cluster::poll::until;
use crate::services::openbao::{Mode, OpenBao, TOKEN};

const LOGIN: &[u8] = br#"{"username":"backup","password":"p4ss-in-Transit"}"#;

/// Longer than one request may take, and shorter than two.
const ONE_TIMEOUT: Duration = Duration::from_secs(9);

fn tenant(n: u128) -> Uuid {
    Uuid::from_u128(0x7000 + n)
}

fn device(n: u128, tenant: Uuid, credentials: CredentialSource) -> Device {
    Device {
        id: DeviceId(Uuid::from_u128(n)),
        tenant: TenantId(tenant),
        name: format!("edge-{n}"),
        endpoint: Endpoint {
            host: "192.0.2.1".into(),
            port: 22,
        },
        credentials,
        pin: Pin::Unpinned,
        routeros_version: None,
        settings: Default::default(),
    }
}

fn sealed_for(n: u128, tenant: Uuid, ciphertext: &str) -> Device {
    device(
        n,
        tenant,
        CredentialSource::DeviceTransit(ciphertext.into()),
    )
}

struct Bench {
    openbao: OpenBao,
    credentials: Credentials,
    metrics: Arc<Metrics>,
}

async fn bench() -> Bench {
    let openbao = OpenBao::start().await;
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let token = SecretString::from(TOKEN);
    let server = Transit::new(&openbao.url(), &token, metrics.clone()).expect("a client");
    Bench {
        openbao,
        credentials: Credentials::new(None).with_transit(Some(Arc::new(server))),
        metrics,
    }
}

impl Bench {
    async fn open(&self, device: &Device) -> Result<Login, CredentialError> {
        self.credentials.open(device).await
    }

    fn metric(&self, series: &str) -> u64 {
        let page = self.metrics.render().expect("a page");
        page.lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {series} in\n{page}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ciphertext_is_opened_once_and_again_when_somebody_says_so_or_it_changed() {
    let bench = bench().await;
    let first = bench.openbao.encrypt(tenant(1), LOGIN);
    let edge = sealed_for(1, tenant(1), &first);
    assert_eq!(bench.open(&edge).await.expect("opens").username, "backup");
    assert_eq!(bench.open(&edge).await.expect("opens").username, "backup");
    assert_eq!(bench.openbao.asked().decrypts, 1);
    // The same profile for many devices is one ciphertext.
    for n in 2..50 {
        let shared = CredentialSource::ProfileTransit(first.clone());
        bench
            .open(&device(n, tenant(1), shared))
            .await
            .expect("opens");
    }
    assert_eq!(bench.openbao.asked().decrypts, 1);

    bench.credentials.forget(edge.id);
    bench.open(&edge).await.expect("opens");
    assert_eq!(bench.openbao.asked().decrypts, 2);

    let changed = bench
        .openbao
        .encrypt(tenant(1), br#"{"username":"other","password":"x"}"#);
    let edited = sealed_for(1, tenant(1), &changed);
    assert_eq!(bench.open(&edited).await.expect("opens").username, "other");
    assert_eq!(bench.openbao.asked().decrypts, 3);
    let series = r#"mikrotik_openbao_decrypt_total{status="success"}"#;
    assert_eq!(bench.metric(series), 3);
    assert_eq!(
        bench.metric(r#"mikrotik_openbao_cache_total{result="miss"}"#),
        3
    );
    assert!(bench.metric(r#"mikrotik_openbao_cache_total{result="hit"}"#) >= 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_names_device_and_key_and_stops_nobody_else() {
    let bench = bench().await;
    let good = bench.openbao.encrypt(tenant(1), LOGIN);
    bench.openbao.make_key(tenant(2));
    bench.openbao.make_key(tenant(4));
    bench.openbao.forbid(tenant(4));
    for mode in [Mode::Well, Mode::Old] {
        bench.openbao.set_mode(mode);
        for (number, of, ciphertext, says) in [
            (10, 2, good.as_str(), "authentication failed"),
            (11, 3, good.as_str(), "key not found"),
            (12, 4, good.as_str(), "policy"),
            (13, 1, "c2VjcmV0LWNpcGhlcnRleHQ=", "no prefix"),
        ] {
            let bad = sealed_for(number, tenant(of), ciphertext);
            let error = bench.open(&bad).await.expect_err(says);
            let text = format!("{} {error:?}", chain(&error));
            assert!(text.contains(says), "{text}");
            assert!(text.contains(&bad.id.to_string()), "{text}");
            assert!(text.contains(&format!("tenant_{}", tenant(of))), "{text}");
            let leaks = text.contains(ciphertext) || text.contains(&ciphertext[9..]);
            assert!(!leaks && !text.contains(TOKEN), "{text}");
            assert!(!error.is_passing(), "{text}");
            assert_eq!(error.kind(), FailureKind::CredentialsUnreadable);
        }
        bench.credentials.forget(DeviceId(Uuid::from_u128(1)));
        bench
            .open(&sealed_for(1, tenant(1), &good))
            .await
            .expect("opens");
    }
    let series = r#"mikrotik_openbao_decrypt_total{status="refused"}"#;
    assert_eq!(bench.metric(series), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_found_out_once_and_passes() {
    let bench = bench().await;
    let sealed = bench.openbao.encrypt(tenant(1), LOGIN);
    for (mode, says) in [(Mode::Sealed, "sealed"), (Mode::Well, "token")] {
        bench.openbao.set_mode(mode);
        bench.openbao.set_token_valid(mode == Mode::Sealed);
        let transit = bench.credentials.transit().expect("it is there");
        assert!(transit.ping().await.expect_err("away").contains(says));
        let asked = bench.openbao.asked().decrypts;
        for n in 0..1000 {
            let fresh = transit_device(&bench, n);
            let error = bench.open(&fresh).await.expect_err("away");
            assert!(error.is_passing(), "{error:?}");
            assert!(chain(&error).contains(says), "{}", chain(&error));
        }
        let asked = bench.openbao.asked().decrypts - asked;
        assert!(asked < 10, "{asked} of a thousand asked");
        assert!(transit.ping().await.is_err());

        bench.openbao.set_mode(Mode::Well);
        bench.openbao.set_token_valid(true);
        until("it to be asked again", || async {
            let edge = sealed_for(1, tenant(1), &sealed);
            bench.credentials.forget(edge.id);
            bench.open(&edge).await.ok()
        })
        .await;
        transit.ping().await.expect("it is back");
    }
}

fn transit_device(bench: &Bench, n: u128) -> Device {
    let ciphertext = bench.openbao.encrypt(tenant(1), LOGIN);
    sealed_for(100 + n, tenant(1), &ciphertext)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_devices_do_not_each_wait_for_a_server_that_is_mute() {
    let bench = Arc::new(bench().await);
    bench.openbao.set_mode(Mode::Mute);
    let began = Instant::now();
    let opening: Vec<_> = (0..10_000)
        .map(|n| {
            let bench = bench.clone();
            tokio::spawn(async move {
                let edge = sealed_for(n, tenant(n % 7), &format!("vault:v1:{n}"));
                bench.open(&edge).await.expect_err("mute").is_passing()
            })
        })
        .collect();
    for opened in opening {
        assert!(opened.await.expect("no panic"));
    }
    assert!(began.elapsed() < ONE_TIMEOUT, "{:?}", began.elapsed());
    let asked = bench.openbao.asked();
    assert!(asked.decrypts <= 32 && asked.at_once <= 16, "{asked:?}");
    // Nobody listens at all.
    bench.openbao.stop();
    let error = bench.open(&sealed_for(1, tenant(1), "vault:v1:x")).await;
    assert!(error.expect_err("away").is_passing());
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_at_once_and_no_more() {
    let bench = Arc::new(bench().await);
    bench.openbao.set_takes(Duration::from_millis(20));
    let opening: Vec<_> = (0..200)
        .map(|n| {
            let (bench, edge) = (bench.clone(), transit_device(&bench, n));
            tokio::spawn(async move { bench.open(&edge).await.is_ok() })
        })
        .collect();
    for opened in opening {
        assert!(opened.await.expect("no panic"));
    }
    let asked = bench.openbao.asked();
    assert_eq!(asked.decrypts, 200);
    assert!((2..=16).contains(&asked.at_once), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_can_be_renewed_is() {
    let bench = bench().await;
    bench.openbao.set_token_ends(2, true);
    let credentials = bench.credentials.clone();
    let keeping = tokio::spawn(async move {
        let transit = credentials.transit().expect("it is there");
        transit.run().await;
    });
    until("two renewals", || async {
        (bench.openbao.asked().renewals >= 2).then_some(())
    })
    .await;
    keeping.abort();
}

#[tokio::test]
async fn without_openbao_its_ciphertexts_say_what_is_needed() {
    let edge = sealed_for(1, tenant(1), "vault:v1:AAAA");
    let error = Credentials::new(None).open(&edge).await.expect_err("none");
    let text = chain(&error);
    assert!(
        text.contains("OPENBAO_ADDR") && !text.contains("vault:v1"),
        "{text}"
    );
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let token = SecretString::from(TOKEN);
    for bad in ["openbao:8200", "not a url", ""] {
        let error = Transit::new(bad, &token, metrics.clone());
        assert!(chain(&error.expect_err(bad)).contains("OPENBAO_ADDR"));
    }
}
