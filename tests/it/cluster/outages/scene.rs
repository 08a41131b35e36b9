//! A cluster at work that a fault is done to: servers, the networks to them, replicas, routers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use mikrotik_backup::adapters::jetstream::SnapshotEvent;
use mikrotik_backup::adapters::postgres::grants;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::backoff::period;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::sim::{Fleet, FleetOptions, Router};
use nix::sys::signal::Signal;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::table::{Check, Fault, NOTICED, Row};
use crate::cluster::harness::{Cluster, Replica};
use crate::cluster::judge::{Attempt, Evidence, insert_all, journal};
use crate::cluster::poll::until;
use crate::services::clock::wrong_by;
use crate::services::postgres::Postgres;
use crate::services::proxy::Proxy;

const INTERVAL: Duration = Duration::from_secs(5);
pub(super) const NAMES: [&str; 3] = ["replica-1", "replica-2", "replica-3"];
/// What the role of the replicas is called in a database server of one's own.
const ROLE: &str = "poller";
/// How wrong a clock is, in seconds.
const MINUTE: i32 = 60;

/// A replica in its own environment.
pub(super) async fn started(
    cluster: &Cluster,
    name: &str,
    settings: &BTreeMap<&'static str, String>,
) -> Replica {
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    cluster.replica(name, &settings).await
}

/// A cluster at work.
pub struct Scene {
    pub(super) cluster: Cluster,
    /// Its own PostgreSQL, where that is what fails.
    postgres: Option<Postgres>,
    /// Each replica's network to the server that fails.
    networks: Vec<Proxy>,
    pub(super) replicas: Vec<Replica>,
    /// What differs from the others' environment, by replica.
    pub(super) settings: Vec<BTreeMap<&'static str, String>>,
    pub(super) fleet: Fleet,
    devices: BTreeMap<Uuid, Router>,
    /// What was in the stream before somebody removed it.
    pub(super) removed: Vec<(String, SnapshotEvent)>,
    /// How many messages the stream had when NATS was stopped last.
    pub(super) held: usize,
    /// The replica that was killed and is not started again yet.
    pub(super) killed: Option<usize>,
}

impl Scene {
    pub async fn of_redis() -> Option<Self> {
        let cluster = Cluster::start().await?;
        let port = cluster.redis.port();
        let url = |port| ("REDIS_URL", format!("redis://127.0.0.1:{port}"));
        Some(Self::set(cluster, None, 71, Some(port), url).await)
    }

    pub async fn of_both() -> Option<Self> {
        let cluster = Cluster::start().await?;
        let nothing = |_| ("LOG_LEVEL", "debug".to_owned());
        Some(Self::set(cluster, None, 105, None, nothing).await)
    }

    pub async fn of_letters() -> Option<Self> {
        let cluster = Cluster::start().await?;
        let nothing = |_| ("LOG_LEVEL", "debug".to_owned());
        Some(Self::set(cluster, None, 84, None, nothing).await)
    }

    pub async fn of_postgres() -> Option<Self> {
        Self::with_postgres(72).await
    }

    pub async fn of_relaying() -> Option<Self> {
        Self::with_postgres(85).await
    }

    async fn with_postgres(second_byte: u8) -> Option<Self> {
        let mut cluster = Cluster::start().await?;
        let postgres = Postgres::start_private().await?;
        cluster.database = postgres.database("migrated").await;
        let (_, name) = cluster.database.url.rsplit_once('/')?;
        let name = name.to_owned();
        // A superuser may always connect.
        let role = format!("CREATE ROLE {ROLE} LOGIN; {}", grants(ROLE));
        cluster.database.sql(&role).await;
        let port = postgres.port();
        let url = move |port| {
            let url = format!("postgres://{ROLE}@127.0.0.1:{port}/{name}");
            ("DATABASE_URL", url)
        };
        Some(Self::set(cluster, Some(postgres), second_byte, Some(port), url).await)
    }

    pub async fn of_nats() -> Option<Self> {
        let cluster = Cluster::start().await?;
        let port = cluster.nats.port();
        let url = |port| ("NATS_URL", format!("nats://127.0.0.1:{port}"));
        Some(Self::set(cluster, None, 73, Some(port), url).await)
    }

    pub async fn of_clocks() -> Option<Self> {
        let cluster = Cluster::start().await?;
        let fast = wrong_by(MINUTE, &cluster.directory())?;
        let slow = wrong_by(-MINUTE, &cluster.directory())?;
        let clocks = [fast, slow].map(|library| library.display().to_string());
        let preload = move |number: u16| {
            let library = clocks.get(usize::from(number)).cloned();
            ("LD_PRELOAD", library.unwrap_or_default())
        };
        Some(Self::set(cluster, None, 74, None, preload).await)
    }

    /// Starts routers and replicas. `setting` is what differs from replica to replica: by the port
    /// of its network to `upstream`, or without one by its number.
    async fn set(
        cluster: Cluster,
        postgres: Option<Postgres>,
        second_byte: u8,
        upstream: Option<u16>,
        setting: impl Fn(u16) -> (&'static str, String),
    ) -> Self {
        let fleet = Fleet::start(FleetOptions {
            routers: 24,
            delay: Duration::from_millis(500),
            base_address: Ipv4Addr::new(127, second_byte, 0, 1),
            ..FleetOptions::default()
        })
        .await
        .expect("start a fleet");
        let (mut networks, mut replicas, mut settings) = (Vec::new(), Vec::new(), Vec::new());
        for (name, number) in NAMES.into_iter().zip(0..) {
            let by = match upstream {
                Some(upstream) => {
                    let network = Proxy::start(upstream).await;
                    let port = network.port();
                    networks.push(network);
                    port
                }
                None => number,
            };
            let (variable, value) = setting(by);
            let its_own = BTreeMap::from([
                ("CONFIG_BACKUP_INTERVAL", "5".to_owned()),
                ("CONFIG_BACKUP_JITTER_MAX", "4".to_owned()),
                ("CONFIG_BACKUP_COMMAND_TIMEOUT", "5".to_owned()),
                ("OUTBOX_RETRY_INTERVAL", "1".to_owned()),
                (variable, value),
            ]);
            replicas.push(started(&cluster, name, &its_own).await);
            settings.push(its_own);
        }
        let devices = insert_all(&cluster, &fleet).await;
        let scene = Self {
            cluster,
            postgres,
            networks,
            replicas,
            settings,
            fleet,
            devices,
            removed: Vec::new(),
            held: 0,
            killed: None,
        };
        scene.backed_up_since(OffsetDateTime::UNIX_EPOCH).await;
        scene
    }

    /// One fault from its beginning to the time when nothing is left of it.
    pub async fn live_through(&mut self, row: &Row) {
        until("sessions", || async {
            (self.fleet.stats().open_sessions >= 2).then_some(())
        })
        .await;
        let began = Clock::System.now();
        self.begin(row.fault).await;
        let begun = Clock::System.now();
        match row.checked {
            Check::NoRouterIsTroubled | Check::WhatRunsIsHeld => {
                tokio::time::sleep(NOTICED).await;
                let noticed = self.fleet.stats().connections;
                tokio::time::sleep(row.lasts.saturating_sub(NOTICED)).await;
                let now = self.fleet.stats().connections;
                assert_eq!(now, noticed, "{row}: connections to routers");
                if row.checked == Check::WhatRunsIsHeld {
                    self.something_is_held().await;
                }
            }
            Check::TheOthersGoOn | Check::OneSuccessPerInterval => {
                tokio::time::sleep(row.lasts).await;
                let journal = journal(&self.cluster).await;
                let mut made = journal.values().flatten();
                let went_on = made.any(|made| made.status == "success" && made.started_at > began);
                assert!(went_on, "{row}: nobody was backed up");
            }
            Check::BackupsGoOn => {
                tokio::time::sleep(row.lasts).await;
                until("a backup that is made and kept", || async {
                    let journal = journal(&self.cluster).await;
                    let mut made = journal.values().flatten();
                    let kept = made.any(|made| made.status == "queued" && made.started_at > begun);
                    kept.then_some(())
                })
                .await;
            }
        }
        self.end_of(row.fault).await;
        let given_back = Clock::System.now();
        let waiting = Instant::now();
        self.backed_up_since(given_back).await;
        let took = waiting.elapsed();
        until("everything in the outbox to be delivered", || async {
            (self.cluster.attempts("status = 'queued'").await == 0).then_some(())
        })
        .await;
        let evidence = self.nothing_is_lost(row, given_back).await;
        eprintln!(
            "  every device again after {:.1} s; {}",
            took.as_secs_f64(),
            evidence.tally(given_back)
        );
        if row.checked == Check::OneSuccessPerInterval {
            self.assert_regular_on_wrong_clocks(&evidence).await;
        }
        let failed = evidence.journal().values().flatten().filter(|made| {
            let kind = made.kind.as_deref();
            made.finished_at > began && kind.is_some_and(|kind| !row.kinds.contains(&kind))
        });
        let failed: Vec<_> = failed.collect();
        assert!(failed.is_empty(), "{row}: {failed:#?}");
    }

    /// Ends the replicas, and judges what all of it has come to.
    pub async fn end(mut self) {
        for replica in &self.replicas {
            replica.signal(Signal::SIGTERM);
        }
        for replica in &mut self.replicas {
            assert_eq!(replica.exit_code().await, 0, "{}", replica.log());
        }
        let evidence = self.evidence().await;
        evidence.assert_sound();
        let tally = evidence.tally(Clock::System.now());
        assert!(tally.lost.is_empty(), "{:#?}", tally.lost);
        eprintln!("in all: {tally}");
    }

    async fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::RedisEmptied => self.cluster.redis.stop(),
            Fault::RedisFrozen => self.cluster.redis.freeze(),
            Fault::PostgresRestarted => self.postgres().stop().await,
            Fault::PostgresConnectionLimit => {
                let limit = format!("ALTER ROLE {ROLE} CONNECTION LIMIT 0");
                self.cluster.database.sql(&limit).await;
                // Now that nobody can come back.
                let end = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE usename = '{ROLE}'"
                );
                self.cluster.database.sql(&end).await;
            }
            Fault::NatsRestarted => self.cluster.nats.stop(),
            Fault::NatsStreamFull => self.limit_stream(true).await,
            Fault::RedisAndNatsAway => {
                self.in_the_middle_of_answers().await;
                // The other way around letters might be in it that are lost with it.
                self.cluster.redis.stop();
                self.cluster.nats.stop();
            }
            Fault::NetworkCut => self.networks.iter().for_each(Proxy::cut),
            Fault::NetworkSilentForOne => self.networks[0].freeze(),
            Fault::WrongClocks => {}
            Fault::LettersLost => {
                self.pile_up().await;
                self.cluster.redis.stop();
            }
            Fault::RelayKilled => {
                self.pile_up().await;
                self.kill_the_relay().await;
            }
            Fault::NatsStreamFullThenPurged => self.limit_stream(true).await,
            Fault::RedisFrozenWhileRelaying => {
                self.pile_up().await;
                self.freeze_redis_while_relaying().await;
            }
            Fault::PostgresAwayWhileRelaying => {
                self.pile_up().await;
                self.postgres().stop().await;
                self.cluster.nats.start().await;
                self.something_is_published().await;
            }
        }
    }

    async fn end_of(&mut self, fault: Fault) {
        match fault {
            Fault::RedisEmptied => self.cluster.redis.start().await,
            Fault::RedisFrozen => self.cluster.redis.thaw(),
            Fault::PostgresRestarted => self.postgres().launch().await,
            Fault::PostgresConnectionLimit => {
                let limit = format!("ALTER ROLE {ROLE} CONNECTION LIMIT -1");
                self.cluster.database.sql(&limit).await;
            }
            Fault::NatsRestarted => self.cluster.nats.start().await,
            Fault::NatsStreamFull => self.limit_stream(false).await,
            Fault::RedisAndNatsAway => {
                self.cluster.redis.start().await;
                self.cluster.nats.start().await;
            }
            Fault::NetworkCut | Fault::NetworkSilentForOne => {
                self.networks.iter().for_each(Proxy::give_back);
            }
            Fault::WrongClocks => {}
            Fault::LettersLost => {
                self.cluster.redis.start().await;
                self.cluster.nats.start().await;
            }
            Fault::RelayKilled => {
                self.cluster.nats.start().await;
                self.start_the_killed().await;
            }
            Fault::NatsStreamFullThenPurged => self.purge_stream().await,
            Fault::RedisFrozenWhileRelaying => self.cluster.redis.thaw(),
            Fault::PostgresAwayWhileRelaying => self.postgres().launch().await,
        }
    }

    async fn evidence(&self) -> Evidence {
        let removed = self.removed.clone();
        Evidence::gather_with(&self.cluster, &self.devices, removed).await
    }

    fn postgres(&mut self) -> &mut Postgres {
        self.postgres.as_mut().expect("a server of its own")
    }

    /// Waits until every device has a success that started after `then`.
    async fn backed_up_since(&self, then: OffsetDateTime) {
        until("every device to be backed up", || async {
            let journal = journal(&self.cluster).await;
            let again = |made: &Vec<Attempt>| {
                let mut made = made.iter().filter(|made| made.status == "success");
                made.any(|made| made.started_at > then)
            };
            let done = journal.values().filter(|made| again(made)).count();
            (done == self.devices.len()).then_some(())
        })
        .await;
    }

    /// Waits until nothing is missing that was served before `before`: an attempt may be recorded
    /// later than the next one of its device.
    async fn nothing_is_lost(&self, row: &Row, before: OffsetDateTime) -> Evidence {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            let evidence = self.evidence().await;
            let lost = evidence.tally(before).lost;
            if lost.is_empty() {
                return evidence;
            }
            assert!(Instant::now() < give_up, "{row}: lost {lost:#?}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn assert_regular_on_wrong_clocks(&self, evidence: &Evidence) {
        for (device, attempts) in evidence.journal() {
            let period = period(INTERVAL, DeviceId(*device));
            for (number, attempt) in attempts.iter().enumerate() {
                let since = attempt.started_at - attempts[0].started_at;
                let interval = (since / period).round();
                assert_eq!(interval, number as f64, "{device}: {attempts:#?}");
                assert_eq!(attempt.status, "success", "{device}: {attempts:#?}");
            }
        }
        let made: BTreeMap<_, _> = evidence
            .journal()
            .values()
            .flatten()
            .map(|made| (made.id.to_string(), made))
            .collect();
        let mut by_replica = BTreeMap::<&str, Vec<f64>>::new();
        for (id, event) in self.cluster.messages().await {
            // One that was published since the journal was read.
            let Some(made) = made.get(&id) else { continue };
            let off = (event.collected_at - made.started_at).as_seconds_f64();
            by_replica.entry(&made.replica).or_default().push(off);
        }
        for (name, off) in NAMES.into_iter().zip([MINUTE, -MINUTE, 0]) {
            let seen = &by_replica[name];
            let within = f64::from(off) - 1.0..f64::from(off) + 6.0;
            assert!(
                seen.iter().all(|seen| within.contains(seen)),
                "{name}: {seen:?}"
            );
        }
    }
}
