//! No secret leaves the service but where it belongs: everything runs at trace level with
//! recognisable secrets, also where it fails, and every output is searched for them.

mod fleet;
mod search;

use mikrotik_backup::credentials::Key;
use mikrotik_backup::sim::SECRET_MARK;
use secrecy::ExposeSecret as _;
use serde_json::json;
use sqlx::AssertSqlSafe;

use self::fleet::{Planned, insert, router, start_fleet, user_key};
use self::search::{
    API_TOKEN, CONFIGURATION, DATABASE_PASSWORD, DEVICE_PASSWORD, FIREWALL_COMMENT, LOCKED_OUT,
    NATS_PASSWORD, NOTE, REDIS_PASSWORD, Secrets, UNREADABLE, forms, in_url,
};
use super::harness::{Cluster, KEY, Replica, get};
use super::poll::until;

#[tokio::test]
async fn no_output_shows_a_secret() {
    let nats = format!(
        "authorization {{ users: [ {{ user: poller, password: \"{NATS_PASSWORD}\" }}, \
         {{ user: test, password: test }} ] }}\nno_auth_user: test"
    );
    let Some(mut cluster) = Cluster::start_with(&["--requirepass", REDIS_PASSWORD], &nats).await
    else {
        return;
    };
    let (key, pem) = user_key();
    let secrets = Secrets::new(&pem);
    let settings = settings(&cluster, DATABASE_PASSWORD, REDIS_PASSWORD, NATS_PASSWORD);
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();

    let fleet = start_fleet(&cluster, &key, &pem).await;
    let replica = cluster.replica("secretive", &settings).await;
    until_tried(&cluster, &replica, &fleet).await;
    let with_nats_away = live_without_nats(&mut cluster, &replica, &secrets).await;

    let mut outputs = vec![
        ("the log".to_owned(), replica.log()),
        ("/readyz without NATS".to_owned(), with_nats_away),
    ];
    for path in ["/metrics", "/readyz", "/livez", "/health", "/nowhere"] {
        let page = get(&replica.http, path).await.expect("a page");
        outputs.push((path.to_owned(), page));
    }
    let tables = tables(&cluster).await;
    outputs.push(("the database".to_owned(), tables));
    let pid = replica.pid();
    let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("read cmdline");
    outputs.push(("the command line".to_owned(), cmdline));
    for device in &fleet {
        let output = run(&cluster, &settings, &["check", &device.name]).await;
        outputs.push((format!("check {}", device.name), output));
    }
    let count = cluster.messages().await.len().to_string();
    let output = run(&cluster, &settings, &["events", "--all", "--count", &count]).await;
    outputs.push(("events".to_owned(), output));
    outputs.push((
        "the log of a replica that is locked out".to_owned(),
        locked_out(&cluster).await,
    ));
    outputs.push((
        "a refused configuration".to_owned(),
        refused(&cluster).await,
    ));

    for (place, text) in &outputs {
        secrets.assert_none(place, text);
    }
    search_finds_what_is_there(&cluster, &fleet, &secrets, &outputs).await;
}

/// The search is not blind: the outputs are the real ones, and hold what may be seen.
async fn search_finds_what_is_there(
    cluster: &Cluster,
    fleet: &[Planned],
    secrets: &Secrets,
    outputs: &[(String, String)],
) {
    let output = |place: &str| {
        let found = outputs.iter().find(|(name, _)| name == place);
        found.map(|(_, text)| text.as_str()).expect("an output")
    };
    let published = cluster.messages_of(fleet[0].device).await;
    let (id, event) = &published[0];
    let text = event.config_text.as_ref().expect("a text").expose();
    for wanted in [SECRET_MARK, FIREWALL_COMMENT, NOTE, CONFIGURATION] {
        assert!(
            secrets.found_in(text).contains(&wanted),
            "{wanted} was never exported"
        );
    }
    for place in ["the log", "the database", "events"] {
        assert!(
            output(place).contains(&event.sha256_hash.to_string()),
            "{place}"
        );
    }
    for place in ["the log", "the database"] {
        assert!(output(place).contains(id.as_str()), "{place}");
        assert!(output(place).contains("auth_failed"), "{place}");
        assert!(output(place).contains("credentials_unreadable"), "{place}");
    }
    assert!(output("the log").contains("\"level\":\"debug\""));
    assert!(output("the log").contains("by-password"));
    assert!(output("check by-password").contains("by-password"));
    assert!(output("check refused").contains("auth_failed"));
    assert!(
        output("/metrics")
            .contains("mikrotik_config_backup_failures_total{kind=\"auth_failed\"} 1")
    );
    assert!(output("/readyz without NATS").contains("nats"));
    assert!(output("the command line").contains("run"));
    assert!(output("a refused configuration").contains("CREDENTIAL_ENCRYPTION_KEY"));
    let log = output("the log of a replica that is locked out");
    assert!(log.contains("waiting for the database"), "{log}");
    for form in forms(DEVICE_PASSWORD) {
        let hay = format!("before {form}, after");
        assert!(!secrets.found_in(&hay).is_empty(), "{form}");
    }
}

/// Waits until every device was tried, and came to what was planned.
async fn until_tried(cluster: &Cluster, replica: &Replica, fleet: &[Planned]) {
    for planned in fleet.iter().filter(|planned| planned.recorded) {
        let what = format!("an attempt at {}", planned.name);
        let state = cluster.state_when(planned.device, &what, |_| true).await;
        let error = state.error.unwrap_or_default();
        assert_eq!(
            state.error_kind.as_deref(),
            planned.kind,
            "{}: {error}",
            planned.name
        );
    }
    until("the database to refuse a record", || async {
        replica
            .log()
            .contains("could not be recorded")
            .then_some(())
    })
    .await;
}

/// Takes NATS away while a device comes due; returns what /readyz said meanwhile.
async fn live_without_nats(cluster: &mut Cluster, replica: &Replica, secrets: &Secrets) -> String {
    cluster.nats.stop();
    let page = until("/readyz to miss NATS", || async {
        let page = get(&replica.http, "/readyz").await.expect("a page");
        page.contains("nats").then_some(page)
    })
    .await;
    let late = router("late", 200, None);
    let login = json!({ "username": "backup", "password": DEVICE_PASSWORD }).to_string();
    let sealed = Key::from_bytes(KEY).seal(rand::random(), login.as_bytes());
    let device = insert(cluster, &late, sealed).await;
    cluster
        .state_when(device, "the late device to be kept", |state| {
            state.status == "queued"
        })
        .await;
    cluster.nats.start().await;
    cluster
        .state_when(device, "the late device", |state| state.status == "success")
        .await;
    secrets.assert_none("/readyz", &page);
    page
}

/// The secrets of the process, where each is looked for by name.
fn settings(
    cluster: &Cluster,
    database: &str,
    redis: &str,
    nats: &str,
) -> Vec<(&'static str, String)> {
    let login = |password: &str| format!("poller:{}@", in_url(password));
    let nats = cluster.nats.url_as(&login(nats));
    let with_password = format!("//postgres:{}@", in_url(database));
    vec![
        (
            "DATABASE_URL",
            cluster
                .database
                .url
                .replacen("//postgres@", &with_password, 1),
        ),
        (
            "REDIS_URL",
            format!(
                "redis://:{}@127.0.0.1:{}",
                in_url(redis),
                cluster.redis.port()
            ),
        ),
        ("NATS_URL", nats.expose_secret().to_owned()),
        ("API_TOKEN", API_TOKEN.to_owned()),
        ("LOG_LEVEL", "trace".to_owned()),
    ]
}

/// The log of a replica whose passwords are all wrong, and what it answers meanwhile.
async fn locked_out(cluster: &Cluster) -> String {
    let mut settings = settings(cluster, LOCKED_OUT, LOCKED_OUT, LOCKED_OUT);
    // The tests' database trusts every password, so this one is away.
    let away = format!(
        "postgres://postgres:{}@127.0.0.1:1/away",
        in_url(LOCKED_OUT)
    );
    settings[0] = ("DATABASE_URL", away);
    settings.push(("LOG_FORMAT", "text".to_owned()));
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let replica = cluster.replica("locked-out", &settings).await;
    let page = until("/readyz to miss everything", || async {
        let page = get(&replica.http, "/readyz").await.expect("a page");
        let all = ["database", "redis", "nats"]
            .iter()
            .all(|name| page.contains(name));
        let waiting = replica.log().contains("waiting for the database");
        (all && waiting && page.contains("authorization violation")).then_some(page)
    })
    .await;
    format!("{}\n{page}", replica.log())
}

/// What a start says whose every secret is wrong in form.
async fn refused(cluster: &Cluster) -> String {
    let url = format!("mysql://u:{}@db/x", in_url(LOCKED_OUT));
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("REDIS_URL", url.as_str()),
        ("NATS_URL", url.as_str()),
        ("CREDENTIAL_ENCRYPTION_KEY", UNREADABLE),
        ("API_TOKEN", "marker-N0te of the operator"),
    ];
    run(cluster, &settings, &["run"]).await
}

/// Everything that a command prints.
async fn run(cluster: &Cluster, settings: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut command = cluster.command("command", settings);
    command.args(arguments);
    // Not blocking: the routers live in this runtime.
    let output = tokio::process::Command::from(command).output().await;
    let output = output.expect("run the command");
    let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    texts.concat()
}

/// Every row of every table of the service's schema, all columns.
async fn tables(cluster: &Cluster) -> String {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
         WHERE schemaname = 'mikrotik_backup'",
    )
    .fetch_all(cluster.pool())
    .await
    .expect("list the tables");
    assert!(
        names.iter().any(|name| name.ends_with(".attempts")),
        "{names:?}"
    );
    let mut text = String::new();
    for name in names {
        let rows = format!("SELECT to_jsonb(t)::text FROM {name} t");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(rows))
            .fetch_all(cluster.pool())
            .await
            .expect("read a table");
        text.push_str(&rows.join("\n"));
        text.push('\n');
    }
    text
}
