//! `status` and `failed`: the fleet on one screen, and what needs somebody's attention.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::process::ExitCode;

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::output::{colored, emit, emit_json};
use super::reading::{Reading, walk};
use super::{complain, dead_letters};
use crate::adapters::redis::{RedisCoordinator, Timeouts};
use crate::app::AppError;
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::ports::{Coordinator as _, CoordinatorError, Presence};
use crate::report::{Condition, Failed, Summary, render_failed};

/// Questions under way to Redis: enough to hide the way there and back.
const ASKED_AT_ONCE: usize = 64;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup status
  mikrotik-backup status --json | jq .conditions

CONFIG_BACKUP_INTERVAL must be that of the service: a device without a success for more than two
intervals is stale, unless REDIS_URL is set and says that it is offline. Works beside a running service; nothing is changed.")]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `failed`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup failed
  mikrotik-backup failed --json | jq -r '.[] | select(.blocked) | .device.name'
  mikrotik-backup failed --dead-letters

With REDIS_URL it also lists the dead letters of the outbox: snapshots that JetStream refused too
often. `retry --dead-letters` puts them back, all or by the id of an attempt or a device.

Works beside a running service; nothing is changed. Exit code 0 whether or not something has
failed, 3 when the database cannot be reached or DATA_DIR holds no store.")]
pub(super) struct FailedArgs {
    /// Show at most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only the dead letters of the outbox
    #[arg(long)]
    dead_letters: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the fleet on one screen.
pub(super) async fn status(config: &Config, args: &StatusArgs) -> Result<ExitCode, AppError> {
    let reading = Reading::open(config).await?;
    let now = Clock::System.now();
    let mut summary = Summary::new(config.interval, now);
    let mut idle = Vec::new();
    walk(reading.store(), false, |status| {
        match Condition::of(status, config.interval, now).depends_on_presence() {
            true => idle.push(status.clone()),
            false => summary.add(status, Presence::Unknown),
        }
    })
    .await?;
    reading.close().await;
    let reported = presence(config, idle.iter().map(|status| status.device.id)).await;
    for status in &idle {
        let presence = reported.get(&status.device.id);
        summary.add(status, presence.copied().unwrap_or(Presence::Unknown));
    }
    match args.json {
        true => emit_json(&summary),
        false => Ok(emit(&summary.render(colored(config)))),
    }
}

/// What Redis says of `devices`; nothing when it is not configured or away, which is no reason to
/// show nothing.
async fn presence(
    config: &Config,
    devices: impl ExactSizeIterator<Item = DeviceId>,
) -> HashMap<DeviceId, Presence> {
    let Mode::Cluster(cluster) = &config.mode else {
        return HashMap::new();
    };
    let Ok(url) = cluster.redis_url() else {
        return HashMap::new();
    };
    if devices.len() == 0 {
        return HashMap::new();
    }
    let asked = async {
        let redis = RedisCoordinator::connect(url, Timeouts::default())?;
        redis.ping().await?;
        Ok::<_, CoordinatorError>(redis)
    };
    let redis = match asked.await {
        Ok(redis) => redis,
        Err(error) => {
            let error = chain(&error);
            complain(&format!("devices that are offline count as stale: {error}"));
            return HashMap::new();
        }
    };
    let redis = &redis;
    stream::iter(devices)
        .map(async |id| (id, redis.presence(id).await))
        .buffer_unordered(ASKED_AT_ONCE)
        .collect()
        .await
}

/// Prints what failed or is blocked, the newest first.
pub(super) async fn failed(config: &Config, args: &FailedArgs) -> Result<ExitCode, AppError> {
    if args.dead_letters {
        return dead_letters::list(config, args.limit, args.json).await;
    }
    let reading = Reading::open(config).await?;
    let advice = reading.advice();
    let mut entries = Vec::new();
    walk(reading.store(), true, |status| {
        entries.extend(Failed::of(status, advice));
    })
    .await?;
    reading.close().await;
    entries.sort_by_key(|entry| (Reverse(entry.last_attempt_at), entry.device.id));
    let left_out = entries.len().saturating_sub(usize::from(args.limit));
    entries.truncate(usize::from(args.limit));
    if args.json {
        return emit_json(&entries);
    }
    let mut text = render_failed(&entries, Clock::System.now(), colored(config));
    if left_out > 0 {
        text.push_str(&format!("and {left_out} more, which --limit leaves out\n"));
    }
    text.push_str(&dead_letters::beside(config, args.limit).await);
    Ok(emit(&text))
}
