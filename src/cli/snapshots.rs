//! `snapshots`: the versions of a device's configuration, as the archive keeps them.

mod diff;
mod export;
mod search;
mod which;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::complain;
use super::output::{emit, emit_json};
use super::reading::{Reading, unreadable_archive};
use crate::app::AppError;
use crate::config::Config;
use crate::domain::Timestamp;
use crate::domain::archive::{Position, Version, VersionId};
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::digest::Digest;
use crate::domain::snapshot::Machine;
use crate::ports::{Archive as _, VersionPage};
use crate::report::{moment, printable, printable_line, table};
use crate::routeros::{self, Normalizer};
use which::{Which, parse_time};

/// Subcommands of `snapshots`.
#[derive(Debug, Subcommand)]
pub(super) enum Snapshots {
    /// List the versions of a device, newest first
    #[command(after_help = "Examples:
  mikrotik-backup snapshots list edge-7
  mikrotik-backup snapshots list edge-7 --before 2026-01-01 --json

A version is a change; until the next one, `last seen` is when it was found unchanged.")]
    List(ListArgs),
    /// Print one version
    #[command(after_help = "Examples:
  mikrotik-backup snapshots show edge-7                        the newest
  mikrotik-backup snapshots show edge-7 --at 2026-01-02        the one of that midnight, UTC
  mikrotik-backup snapshots show edge-7 --redact latest~1      the one before, masked
  mikrotik-backup snapshots show edge-7 > edge-7.rsc           whole, with its passwords

Passwords and keys are masked on a terminal unless --secrets is given; elsewhere the text is whole
unless --redact is.")]
    Show(ShowArgs),
    /// Show what changed between two versions
    #[command(after_help = "Examples:
  mikrotik-backup snapshots diff edge-7                        the last change
  mikrotik-backup snapshots diff edge-7 2026-01-01             since then
  mikrotik-backup snapshots diff edge-7 latest~5 latest~3

Each hunk names the menus it lies in. Passwords and keys are masked unless --secrets is given; a
changed one is a changed line all the same.")]
    Diff(diff::DiffArgs),
    /// Write the newest versions to files that only you can read
    #[command(after_help = "Examples:
  mikrotik-backup snapshots export edge-7 edge-8 --dir ./configs
  mikrotik-backup snapshots export --all --redact --dir ./for-review

Each file is NAME.rsc; one that is there is replaced. Without --redact it holds passwords.")]
    Export(export::ExportArgs),
    /// Search the newest configuration of every device, or every version
    #[command(after_help = "Examples:
  mikrotik-backup snapshots search '192\\.0\\.2\\.53'
  mikrotik-backup snapshots search --history --device edge-7 'chain=forward.*drop'

REGEX is matched against whole commands, wraps undone; `(?i)` at its start ignores case. With
--history it tells when a matching line appeared and when it went. Passwords and keys are masked,
and not searched, unless --secrets is given.")]
    Search(search::SearchArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// A device: its id, name or address
    device: String,
    /// Show at most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only those first seen before this time (UTC)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A device: its id, name or address
    device: String,
    /// A version: its id, `latest`, or `latest~N` for the Nth before it
    #[arg(default_value = "latest", conflicts_with = "at")]
    version: Which,
    /// The version that was in force at this time (UTC)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,
    /// Mask passwords and keys
    #[arg(long, conflicts_with = "secrets")]
    redact: bool,
    /// Show passwords and keys on a terminal, too
    #[arg(long)]
    secrets: bool,
    /// Show, instead of the text, what was left out when it was last seen: each rule with how often
    #[arg(long)]
    ignored: bool,
    /// With --ignored: print JSON
    #[arg(long, requires = "ignored")]
    json: bool,
}

/// Runs one of them.
pub(super) async fn snapshots(config: &Config, command: &Snapshots) -> Result<ExitCode, AppError> {
    let reading = Reading::open(config).await?;
    let done = match command {
        Snapshots::List(args) => list(&reading, args).await,
        Snapshots::Show(args) => show(&reading, args).await,
        Snapshots::Diff(args) => diff::diff(config, &reading, args).await,
        Snapshots::Export(args) => export::export(&reading, args).await,
        Snapshots::Search(args) => search::search(&reading, args).await,
    };
    reading.close().await;
    done
}

/// A device that has, or had, versions.
struct Subject {
    id: DeviceId,
    name: String,
}

/// The device that `text` means; an id also after the device has left the inventory.
async fn subject(reading: &Reading, text: &str) -> Result<Subject, AppError> {
    match reading.device(text).await {
        Ok(device) => Ok(Subject {
            id: device.id,
            name: device.name,
        }),
        Err(AppError::Failed(error)) => match text.parse() {
            Ok(id) => Ok(Subject {
                id: DeviceId(id),
                name: text.to_owned(),
            }),
            Err(_) => Err(AppError::Failed(error)),
        },
        Err(error) => Err(error),
    }
}

/// A version as JSON has it.
#[derive(Serialize)]
struct Listed {
    version: VersionId,
    device: DeviceId,
    #[serde(with = "time::serde::rfc3339")]
    collected_at: Timestamp,
    #[serde(with = "time::serde::rfc3339")]
    last_seen_at: Timestamp,
    routeros_version: String,
    sha256_hash: Digest,
    bytes: u64,
    lines_added: Option<u32>,
    lines_removed: Option<u32>,
    normalization_version: u32,
    incomplete_menus: Vec<String>,
    machine: Machine,
}

impl Listed {
    fn of(version: &Version) -> Self {
        Self {
            version: version.id,
            device: version.device,
            collected_at: version.first.position.at,
            last_seen_at: version.last.position.at,
            routeros_version: version.first.routeros_version.clone(),
            sha256_hash: version.first.hash,
            bytes: version.bytes,
            lines_added: version.lines.map(|lines| lines.added),
            lines_removed: version.lines.map(|lines| lines.removed),
            normalization_version: version.first.normalization.version,
            incomplete_menus: version.incomplete_menus.clone(),
            machine: version.machine.clone(),
        }
    }

    fn row(&self) -> Vec<String> {
        let change = self.lines_added.zip(self.lines_removed);
        vec![
            self.version.to_string(),
            moment(self.collected_at),
            moment(self.last_seen_at),
            printable(&self.routeros_version).into_owned(),
            self.bytes.to_string(),
            change.map_or_else(
                || "-".into(),
                |(added, removed)| format!("+{added} -{removed}"),
            ),
            match self.incomplete_menus.as_slice() {
                [] => String::new(),
                menus => format!("incomplete: no {}", printable(&menus.join(", "))),
            },
        ]
    }
}

async fn list(reading: &Reading, args: &ListArgs) -> Result<ExitCode, AppError> {
    let subject = subject(reading, &args.device).await?;
    let before = args.before.map_or(Position::END, |at| Position {
        at,
        attempt: AttemptId(uuid::Uuid::nil()),
    });
    let limit = args.limit.into();
    let page = VersionPage { before, limit };
    let archive = reading.archive().await?;
    let versions = archive.versions(subject.id, page).await;
    let versions = versions.map_err(unreadable_archive)?;
    let listed: Vec<_> = versions.iter().map(Listed::of).collect();
    if args.json {
        return emit_json(&listed);
    }
    if listed.is_empty() {
        let name = printable(&subject.name);
        return Ok(emit(&format!("no version of {name} is archived\n")));
    }
    let head = [
        "VERSION",
        "COLLECTED",
        "LAST SEEN",
        "ROUTEROS",
        "BYTES",
        "LINES",
        "INCOMPLETE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(listed.iter().map(Listed::row));
    Ok(emit(&(table(&rows).join("\n") + "\n")))
}

async fn show(reading: &Reading, args: &ShowArgs) -> Result<ExitCode, AppError> {
    let subject = subject(reading, &args.device).await?;
    let archive = reading.archive().await?;
    let which = args.at.map_or(args.version, Which::At);
    let version = which::find(&archive, &subject, which).await?;
    if args.ignored && args.json {
        return emit_json(&Ignored::of(&version));
    }
    if args.ignored {
        return Ok(emit(&ignored(&version)));
    }
    warn_of_gaps(None, &version);
    let opened = archive.open(version.id).await.map_err(unreadable_archive)?;
    let terminal = std::io::stdout().is_terminal();
    let redacted;
    let text = if args.redact || (terminal && !args.secrets) {
        redacted = routeros::redact(opened.text.expose());
        &redacted
    } else {
        opened.text.expose()
    };
    if terminal {
        let lines = text.lines().map(|line| printable_line(line) + "\n");
        return Ok(emit(&lines.collect::<String>()));
    }
    // The bytes that the router sent: a file made of them can be imported.
    let mut out = std::io::stdout().lock();
    let _ = out
        .write_all(&routeros::encode(text))
        .and_then(|()| out.flush());
    Ok(ExitCode::SUCCESS)
}

/// What was left out of a version's text when it was last seen, by the rules of that time, as JSON has
/// it.
#[derive(Serialize)]
struct Ignored<'a> {
    version: VersionId,
    device: DeviceId,
    #[serde(with = "time::serde::rfc3339")]
    last_seen_at: Timestamp,
    normalization_version: u32,
    normalization_rules: &'a str,
    /// How often each rule left something out; none where an older program saw it last.
    ignored: Option<&'a BTreeMap<String, u64>>,
    incomplete_menus: &'a [String],
}

impl<'a> Ignored<'a> {
    fn of(version: &'a Version) -> Self {
        Self {
            version: version.id,
            device: version.device,
            last_seen_at: version.last.position.at,
            normalization_version: version.last.normalization.version,
            normalization_rules: &version.last.normalization.rules,
            ignored: version.last.ledger.as_ref(),
            incomplete_menus: &version.incomplete_menus,
        }
    }
}

/// What was left out when `version` was last seen, and why.
fn ignored(version: &Version) -> String {
    let known = version.last.ledger.iter().flatten();
    let mut lines: Vec<String> = known
        .map(|(rule, times)| {
            let times = match times {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            };
            format!("{}: left out {times}", printable(rule))
        })
        .collect();
    if version.last.ledger.is_none() {
        lines.push(
            "what was left out when it was last seen is not known: an older program saw it".into(),
        );
    }
    let menus = version.incomplete_menus.iter();
    lines.extend(menus.map(|menu| format!("the router could not export {}", printable(menu))));
    if lines.is_empty() {
        lines.push("nothing was left out".into());
    }
    lines.join("\n") + "\n"
}

/// `normalizer`, and whatever comments the service ignored beside it when it saw `versions`: compared
/// without, these would look like a change of the router.
fn alike<'a>(
    normalizer: &Normalizer,
    versions: impl IntoIterator<Item = &'a Version>,
) -> Normalizer {
    let ledgers = versions
        .into_iter()
        .flat_map(|it| [&it.first.ledger, &it.last.ledger])
        .flatten();
    let rules: BTreeSet<&str> = ledgers
        .flat_map(|it| it.keys())
        .map(String::as_str)
        .collect();
    normalizer.and_recorded(rules.into_iter())
}

/// Says so where texts are compared by other rules than the newest of `versions` was made with.
fn warn_of_rules<'a>(
    normalizer: &Normalizer,
    versions: impl IntoIterator<Item = &'a Version>,
) -> bool {
    let newest = versions.into_iter().map(|version| &version.last);
    let newest = newest.max_by_key(|seen| seen.position);
    let ours = normalizer.renormalize().to;
    let other = newest
        .map(|seen| &seen.normalization)
        .is_some_and(|theirs| theirs.version == ours.version && theirs.rules != ours.rules);
    if other {
        complain(
            "compared by other rules than the service has: what it ignores may show as a change. Set \
             CONFIG_BACKUP_IGNORE_COMMENTS as the service has it",
        );
    }
    other
}

/// Tells, beside a text, what is missing in it; for several, of which device.
fn warn_of_gaps(subject: Option<&Subject>, version: &Version) {
    if version.incomplete_menus.is_empty() {
        return;
    }
    let name = subject.map_or_else(String::new, |subject| format!("{}: ", subject.name));
    let menus = version.incomplete_menus.join(", ");
    complain(&format!(
        "{name}incomplete: the router could not export {menus}"
    ));
}

fn no_version(subject: &Subject) -> AppError {
    AppError::Failed(anyhow!(
        "no version of {} is archived; a first backup makes one",
        subject.name
    ))
}
