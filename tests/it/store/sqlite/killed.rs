//! A process that is killed while it writes: what it had been told is stored is there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mikrotik_backup::adapters::sqlite::SqliteStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::attempt::{AttemptId, Outcome, Status};
use mikrotik_backup::ports::{Claim, Store};
use uuid::Uuid;

use super::contract::{begin, claim, listed, record, taken};
use super::{Operator, Shell, data_dir};
use crate::services::postgres::NewDevice;

const DATA_DIR: &str = "TEST_OF_KILLED_WRITERS_DATA_DIR";

/// The child: makes attempts at all devices at once, and prints each one that has been recorded.
/// Without its variable it is only a name in the list of tests.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_writes() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how a test tells its child that it is one"
    )]
    let Some(data) = std::env::var_os(DATA_DIR) else {
        return;
    };
    let store = SqliteStore::open(Path::new(&data), None, Clock::System)
        .await
        .expect("open");
    let devices = store
        .devices(&super::contract::all_buckets())
        .await
        .expect("the devices");
    let work = devices.into_iter().map(|listed| {
        let store = &store;
        async move {
            loop {
                let wish = Claim {
                    any_last: true,
                    ..claim(listed.device.id, None, "child")
                };
                let begun = begin(store, &wish).await;
                let text = wish.attempt.to_string();
                let done = record(
                    wish.attempt,
                    &begun.device,
                    Outcome::Delivered(taken(&text)),
                );
                store.record(&done, "child").await.expect("record");
                println!("recorded {}", wish.attempt);
            }
        }
    });
    futures_util::future::join_all(work).await;
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill(); // SIGKILL
        let _ = self.0.wait();
    }
}

/// Runs the child until it has recorded `count` attempts and a little longer, and kills it. The
/// attempts that it told of.
fn kill_after(data: &Path, count: usize, moment: Duration) -> Vec<AttemptId> {
    let itself: PathBuf = std::env::current_exe().expect("this program");
    let mut child = Command::new(itself)
        .args([
            "--exact",
            "store::sqlite::killed::child_that_writes",
            "--nocapture",
        ])
        .env(DATA_DIR, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start a child");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut child = Some(Killed(child));
    let mut recorded = vec![];
    let mut end = None;
    for line in output.lines() {
        let line = line.expect("a line");
        if let Some((_, id)) = line.split_once("recorded ") {
            recorded.push(AttemptId(Uuid::parse_str(id.trim()).expect("a whole line")));
        }
        if recorded.len() >= count {
            let end = *end.get_or_insert_with(|| Instant::now() + moment);
            if Instant::now() >= end {
                drop(child.take());
            }
        }
    }
    recorded
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_survives_a_kill() {
    let (_outer, data) = data_dir();
    let store = SqliteStore::open(&data, None, Clock::System)
        .await
        .expect("open");
    let shell = Shell::on(&data);
    let mut devices = vec![];
    for _ in 0..8 {
        devices.push(shell.insert(NewDevice::default()).await);
    }
    store.close().await;
    drop(store);
    for round in 0..5 {
        let recorded = kill_after(&data, 20, Duration::from_millis(37 * round));
        assert!(recorded.len() >= 20, "round {round}: {}", recorded.len());
        let store = SqliteStore::open(&data, None, Clock::System)
            .await
            .expect("open it again");
        let check = "SELECT integrity_check FROM pragma_integrity_check";
        assert_eq!(shell.text(check).await, "ok", "round {round}");
        for id in recorded {
            let (entry, _) = store.attempt(id).await.expect("a recorded attempt");
            assert_eq!(entry.status, Status::Success);
        }
        for id in &devices {
            let last = listed(&store, *id)
                .await
                .expect("listed")
                .last
                .expect("a last attempt");
            let state = shell.state(*id).await;
            assert_eq!(state["last_attempt_id"], Some(last.id.to_string()));
            let (entry, _) = store
                .attempt(last.id)
                .await
                .expect("journal and state agree");
            assert_eq!(entry.sha256_hash, state["last_hash"]);
        }
        store.close().await;
    }
}
