//! `prune`, `config check`, `completions` and `man`.

use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::attempt::Outcome;
use mikrotik_backup::domain::failure::{Failure, FailureKind};
use mikrotik_backup::ports::JournalPage;
use time::Duration;

use super::fleet::{Ended, Fleet, PASSWORD, bare, finished};

#[tokio::test(flavor = "multi_thread")]
async fn pruning_an_embedded_store() {
    pruning_keeps_what_it_is_told_to(Fleet::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_a_shared_database() {
    if let Some(fleet) = Fleet::shared().await {
        pruning_keeps_what_it_is_told_to(fleet).await;
    }
}

async fn versions(fleet: &Fleet) -> usize {
    let list = ["snapshots", "list", "edge-1", "--json"];
    let json = fleet.run(&list).await.json();
    json.as_array().map_or(0, Vec::len)
}

async fn pruning_keeps_what_it_is_told_to(mut fleet: Fleet) {
    let id = fleet.add("edge-1").await;
    let now = Clock::System.now();
    for days in [200, 150, 100, 1] {
        let text = format!("/system note\nset note=\"{days}\"\n");
        fleet.archived(id, now - Duration::days(days), &text).await;
        let failure = Failure::new(FailureKind::Timeout, "an invented failure");
        let hours = u64::try_from(days).expect("positive") * 24;
        fleet.tried(id, hours, Outcome::Failed(failure)).await;
    }
    // Replaced 150, 100 and 1 days ago; the newest is still in force.
    let dry = ["prune", "--keep-all", "120", "--dry-run"];
    let told = fleet.run(&dry).await.done();
    assert!(told.contains("edge-1: 1 version would go\n"), "{told}");
    assert!(
        told.contains("1 of 4 versions of 1 device would be deleted\n"),
        "{told}"
    );
    assert!(
        told.contains("the journal would lose attempts older than 90 days"),
        "{told}"
    );
    assert_eq!(versions(&fleet).await, 4);
    let list = ["snapshots", "list", "edge-1", "--json"];
    let oldest = fleet.run(&list).await.json()[3].clone();
    let (version, at) = (&oldest["version"], &oldest["collected_at"]);
    let line = told.lines().nth(1).expect("a version");
    let start = format!("  {}  collected ", version.as_str().expect("an id"));
    assert!(line.starts_with(&start), "{told}");
    let end = format!(", replaced 150 d ago, {} bytes", oldest["bytes"]);
    assert!(line.ends_with(&end), "{told}");
    let json = fleet.run(&[&dry[..], &["--json"]].concat()).await.json();
    assert_eq!(
        (&json["devices"], &json["examined"]),
        (&1.into(), &4.into())
    );
    assert_eq!(json["journal_days"], 90);
    let doomed = json["versions"].as_array().expect("a list");
    assert_eq!(doomed.len(), 1, "{json}");
    assert_eq!(doomed[0]["device"], id.to_string());
    assert_eq!(doomed[0]["name"], "edge-1");
    assert_eq!(
        (&doomed[0]["version"], &doomed[0]["collected_at"]),
        (version, at)
    );
    assert_eq!(doomed[0]["bytes"], oldest["bytes"]);
    let age = doomed[0]["age_seconds"].as_i64().expect("an age");
    assert_eq!(age / 86_400, 150, "it counts from when it was replaced");
    // All that the tiers keep, oldest first; the last of its month is not among them.
    let three = ["prune", "--keep-all", "0", "--dry-run", "--json"];
    let json = fleet.run(&three).await.json();
    let replaced: Vec<_> = (0..3)
        .map(|at| &json["versions"][at]["age_seconds"])
        .collect();
    let days: Vec<_> = replaced
        .iter()
        .map(|it| it.as_i64().unwrap_or(0) / 86_400)
        .collect();
    assert_eq!(days, [150, 100, 1]);
    let nothing = ["prune", "--keep-all", "1000", "--dry-run", "--json"];
    let json = fleet.run(&nothing).await.json();
    assert_eq!(json["versions"], serde_json::json!([]));
    assert_eq!(fleet.run(&["prune", "--json"]).await.code, 2);
    assert_eq!(versions(&fleet).await, 4);

    let prune = ["prune", "--keep-all", "30"];
    let embedded = fleet.is_embedded();
    if embedded {
        let ended = fleet.run(&prune).await;
        // Neither a service that could be asked, nor a folder that could be taken.
        assert_eq!((ended.code, ended.out.as_str()), (3, ""), "{}", ended.err);
        let holder = format!("process {}", std::process::id());
        assert!(ended.err.contains(&holder), "{}", ended.err);
        assert_eq!(versions(&fleet).await, 4);
        fleet = fleet.stopped().await;
    }
    let told = fleet.run(&prune).await.done();
    assert!(
        told.contains("2 of 4 versions of 1 device deleted, and 2 texts"),
        "{told}"
    );
    assert!(
        told.contains("3 attempts older than 90 days left the journal"),
        "{told}"
    );
    assert_eq!(versions(&fleet).await, 2);
    let again = fleet.run(&["prune"]).await.done();
    assert_eq!(again, "0 attempts older than 90 days left the journal\n");
    assert_eq!(versions(&fleet).await, 2);
    if !embedded {
        let page = JournalPage {
            limit: 10,
            ..JournalPage::default()
        };
        let left = fleet
            .store()
            .attempts(page)
            .await
            .expect("read the journal");
        assert_eq!(left.len(), 1);
    }
    assert_eq!(fleet.run(&["prune", "--daily", "3"]).await.code, 2);
}

#[tokio::test]
async fn pruning_makes_no_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut command = bare();
    command.arg("prune").env("DATA_DIR", &data);
    let ended = finished(command).await;
    assert_eq!((ended.code, ended.out.as_str()), (3, ""), "{}", ended.err);
    assert!(!data.exists());
}

async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = bare();
    command.args(arguments).envs(variables.iter().copied());
    finished(command).await
}

#[tokio::test]
async fn a_checked_configuration_is_shown_without_secrets() {
    let url = format!("postgres://fleet:{PASSWORD}@db.example.net/fleet");
    let good = [("CONFIG_BACKUP_INTERVAL", "3600"), ("API_TOKEN", PASSWORD)];
    let ended = run(&["config", "check"], &good).await;
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert!(
        ended.out.contains("CONFIG_BACKUP_INTERVAL"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("nothing is wrong; mode: embedded"),
        "{}",
        ended.out
    );
    assert!(!ended.out.contains(PASSWORD), "{}", ended.out);

    let bad = [
        ("DATABASE_URL", url.as_str()),
        ("CONFIG_BACKUP_INTERVAL", "soon"),
    ];
    let ended = run(&["config", "check"], &bad).await;
    assert_eq!(ended.code, 3);
    for part in [
        "CONFIG_BACKUP_INTERVAL=\"soon\"",
        "REDIS_URL is not set",
        "NATS_URL is not set",
    ] {
        assert!(ended.out.contains(part), "{part} in {}", ended.out);
    }
    assert!(!ended.out.contains(PASSWORD), "{}", ended.out);
    let ended = run(&["config", "check", "--json"], &bad).await;
    assert_eq!(ended.code, 3);
    assert!(!ended.out.contains(PASSWORD), "{}", ended.out);
    let json: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert!(
        json["problems"].as_array().map_or(0, Vec::len) >= 3,
        "{json}"
    );
    assert!(
        json["settings"].as_array().map_or(0, Vec::len) > 20,
        "{json}"
    );
    let ended = run(&["config", "check", "--command", "status"], &[]).await;
    assert_eq!(ended.code, 0, "{}", ended.out);
}

#[tokio::test]
async fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell], &[]).await.done();
        assert!(script.contains("snapshots"), "{shell}");
    }
    let page = run(&["man"], &[]).await.done();
    assert!(page.contains(".TH mikrotik-backup 1"), "{page}");
    let page = run(&["man", "snapshots", "diff"], &[]).await.done();
    assert!(
        page.contains("mikrotik\\-backup snapshots diff")
            || page.contains("mikrotik-backup-snapshots-diff"),
        "{page}"
    );
    assert_eq!(run(&["man", "nothing"], &[]).await.code, 2);
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("man1");
    run(&["man", "--dir", dir.to_str().expect("UTF-8")], &[])
        .await
        .done();
    for page in [
        "mikrotik-backup.1",
        "mikrotik-backup-status.1",
        "mikrotik-backup-snapshots-search.1",
    ] {
        assert!(dir.join(page).exists(), "{page}");
    }
}
