//! The dead letters of the outbox: what `failed` lists of them, and how `retry` puts them back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::anyhow;
use serde::Serialize;
use uuid::Uuid;

use super::complain;
use super::output::{emit, emit_json};
use super::reading::configuration;
use crate::adapters::redis::RedisOutbox;
use crate::app::AppError;
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::domain::Timestamp;
use crate::domain::attempt::AttemptId;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::failure::chain;
use crate::fleet::outbox::letter::Filed;
use crate::ports::{Outbox as _, OutboxError};
use crate::report::{ago, count, printable};

/// A dead letter as it is listed.
#[derive(Serialize)]
struct Dead {
    attempt: AttemptId,
    device: DeviceId,
    tenant: TenantId,
    #[serde(with = "time::serde::rfc3339")]
    taken_at: Timestamp,
    #[serde(with = "time::serde::rfc3339::option")]
    dead_since: Option<Timestamp>,
    refusals: u32,
    reason: Option<String>,
}

impl Dead {
    fn of(letter: &Filed) -> Self {
        Self {
            attempt: letter.id,
            device: letter.device_id,
            tenant: letter.tenant_id,
            taken_at: letter.created_at,
            dead_since: letter.dead_since,
            refusals: letter.attempts,
            reason: letter.reason.clone(),
        }
    }
}

/// A line of the list in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Dead(&'a Dead),
    Unreadable { unreadable: &'a str },
}

impl<'a> Shown<'a> {
    fn of(line: &'a Line) -> Self {
        match line {
            Ok(dead) => Self::Dead(dead),
            Err(unreadable) => Self::Unreadable { unreadable },
        }
    }
}

fn outbox(config: &Config) -> Result<RedisOutbox, AppError> {
    let Mode::Cluster(cluster) = &config.mode else {
        return Err(configuration(anyhow!(
            "DATABASE_URL is not set: embedded mode has no outbox, and so no dead letters"
        )));
    };
    let url = cluster.redis_url().map_err(configuration)?;
    RedisOutbox::connect(url, &config.replica).map_err(configuration)
}

fn unreachable(error: OutboxError) -> AppError {
    AppError::Configuration(error.into())
}

/// A line of the list: what can be read of a letter, or how large it is and why it cannot.
type Line = Result<Dead, String>;

/// The oldest dead letters. Of each only what is listed is kept: their texts may be large.
async fn oldest(outbox: &RedisOutbox, limit: u16) -> Result<Vec<Line>, OutboxError> {
    let mut lines = Vec::new();
    for place in 0..limit.into() {
        let Some(text) = outbox.dead(place).await? else {
            break;
        };
        lines.push(match Filed::read(&text) {
            Ok(letter) => Ok(Dead::of(&letter)),
            Err(error) => Err(format!("{} bytes: {}", text.len(), chain(&error))),
        });
    }
    Ok(lines)
}

/// Lists nothing but dead letters.
pub(super) async fn list(config: &Config, limit: u16, json: bool) -> Result<ExitCode, AppError> {
    let lines = oldest(&outbox(config)?, limit).await;
    let lines = lines.map_err(unreachable)?;
    if json {
        let shown: Vec<_> = lines.iter().map(Shown::of).collect();
        return emit_json(&shown);
    }
    match lines.is_empty() {
        true => Ok(emit("there are no dead letters\n")),
        false => Ok(emit(&render(&lines))),
    }
}

/// The dead letters as a section below something else; empty when there are none, or nobody to ask.
pub(super) async fn beside(config: &Config, limit: u16) -> String {
    let Mode::Cluster(cluster) = &config.mode else {
        return String::new();
    };
    if cluster.redis_url().is_err() {
        return String::new();
    }
    let asked = async { oldest(&outbox(config)?, limit).await.map_err(unreachable) };
    match asked.await {
        Ok(lines) if lines.is_empty() => String::new(),
        Ok(lines) => format!("\n{}", render(&lines)),
        Err(AppError::Configuration(error) | AppError::Usage(error) | AppError::Failed(error)) => {
            let error = chain(error.as_ref());
            complain(&format!(
                "the dead letters of the outbox are not known: {error}"
            ));
            String::new()
        }
    }
}

fn render(lines: &[Line]) -> String {
    let now = Clock::System.now();
    let mut shown = format!(
        "{} in the outbox; once the cause is corrected, `mikrotik-backup retry --dead-letters` \
         puts them back, or with the id of an attempt or a device only those:\n",
        count(lines.len(), "dead letter")
    );
    for line in lines {
        let line = match line {
            Ok(dead) => format!(
                "device {}, taken {}, attempt {}, refused {}: {}",
                dead.device,
                ago(dead.taken_at, now),
                dead.attempt,
                count(dead.refusals as usize, "time"),
                dead.reason.as_deref().unwrap_or("no reason is known"),
            ),
            Err(problem) => problem.clone(),
        };
        let _ = writeln!(shown, "    {}", printable(&line));
    }
    shown
}

/// Puts dead letters back into the outbox: all, or those of the attempts and devices in `ids`.
pub(super) async fn put_back(config: &Config, ids: &[String]) -> Result<ExitCode, AppError> {
    let ids = ids
        .iter()
        .map(|id| wanted(id))
        .collect::<Result<Vec<_>, _>>()?;
    let outbox = outbox(config)?;
    let (mut revived, mut unreadable) = (0, 0);
    let mut found = BTreeSet::new();
    // Those that are there now: one that is refused again meanwhile comes to the end.
    let there = outbox.state().await.map_err(unreachable)?.dead;
    let mut place = 0;
    for _ in 0..there {
        let Some(text) = outbox.dead(place).await.map_err(unreachable)? else {
            break;
        };
        // Unless it leaves its place to the next one.
        place += 1;
        let Ok(letter) = Filed::read(&text) else {
            unreadable += 1;
            continue;
        };
        let named = |id: &&Uuid| [letter.id.0, letter.device_id.0].contains(*id);
        let by: Vec<_> = ids.iter().filter(named).copied().collect();
        if by.is_empty() && !ids.is_empty() {
            continue;
        }
        found.extend(by);
        let letter = letter.revived().letter();
        if outbox.revive(&text, &letter).await.map_err(unreachable)? {
            revived += 1;
        }
        place -= 1;
    }
    let mut said = format!("put {} back into the outbox\n", count(revived, "snapshot"));
    if unreadable > 0 && ids.is_empty() {
        let _ = writeln!(
            said,
            "{} cannot be read and stay where they are: LRANGE backup:outbox:dead 0 -1 shows them",
            count(unreadable, "dead letter")
        );
    }
    let code = emit(&said);
    let missing: Vec<_> = ids.iter().filter(|id| !found.contains(id)).collect();
    if missing.is_empty() {
        return Ok(code);
    }
    for id in missing {
        complain(&format!(
            "no dead letter is of an attempt or a device {id}: `failed --dead-letters` lists them"
        ));
    }
    Ok(ExitCode::FAILURE)
}

fn wanted(id: &str) -> Result<Uuid, AppError> {
    id.parse().map_err(|_| {
        AppError::Usage(anyhow!(
            "{id:?} is no id of an attempt or a device: `failed --dead-letters` shows those of the \
             dead letters"
        ))
    })
}
