//! `snapshots search`: which lines match, now or ever.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use futures_util::stream::{self, Stream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::{alike, subject, warn_of_rules};
use crate::adapters::archive::SealedArchive;
use crate::app::AppError;
use crate::archive;
use crate::cli::output::{emit_json, say};
use crate::cli::reading::{Reading, unreadable_archive};
use crate::cli::{complain, exit};
use crate::domain::Timestamp;
use crate::domain::archive::Version;
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::domain::snapshot::ConfigText;
use crate::ports::{Archive as _, ArchiveError, VersionPage};
use crate::report::moment;
use crate::routeros::{self, History, Matcher};

#[derive(Debug, Args)]
pub(in crate::cli) struct SearchArgs {
    /// A regular expression
    regex: String,
    /// Search every version, and tell when a matching line appeared and went
    #[arg(long)]
    history: bool,
    /// Only this device: its id, name or address
    #[arg(long)]
    device: Option<String>,
    /// Search and show passwords and keys, too
    #[arg(long)]
    secrets: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A matching line of a newest version.
#[derive(Serialize)]
struct Found {
    device: DeviceId,
    name: String,
    menu: String,
    line: usize,
    text: String,
}

/// A matching line through the versions of a device.
#[derive(Serialize)]
struct Stretch {
    device: DeviceId,
    name: String,
    menu: String,
    text: String,
    /// The first version that has it; the line may be older if it is the oldest one.
    #[serde(with = "time::serde::rfc3339")]
    since: Timestamp,
    in_oldest_version: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    gone_at: Option<Timestamp>,
}

pub(super) async fn search(reading: &Reading, args: &SearchArgs) -> Result<ExitCode, AppError> {
    let matcher = Matcher::new(&args.regex)
        .with_context(|| format!("{:?} is no pattern to search for", args.regex))
        .map_err(AppError::Usage)?;
    let archive = reading.archive().await?;
    let mut names = reading.names().await?;
    let mut only = None;
    if let Some(device) = &args.device {
        let subject = subject(reading, device).await?;
        only = Some(subject.id);
        names = BTreeMap::from([(subject.id, subject.name)]);
    }
    let search = Search {
        archive,
        only,
        matcher,
        names,
        secrets: args.secrets,
        normalizer: reading.normalizer.clone(),
    };
    match args.history {
        true => search.ever(args.json).await,
        false => search.now(args.json).await,
    }
}

/// A version with its text, either of which may be beyond reach.
type Newest = Result<(Version, Result<ConfigText, ArchiveError>), ArchiveError>;

struct Search {
    archive: SealedArchive,
    /// The one device that was asked for.
    only: Option<DeviceId>,
    matcher: Matcher,
    names: BTreeMap<DeviceId, String>,
    secrets: bool,
    normalizer: routeros::Normalizer,
}

impl Search {
    /// What is searched and shown of `text`.
    fn shown(&self, text: &ConfigText) -> String {
        match self.secrets {
            true => text.expose().to_owned(),
            false => routeros::redact(text.expose()),
        }
    }

    /// The newest version of each device.
    async fn now(&self, json: bool) -> Result<ExitCode, AppError> {
        let mut found = Vec::new();
        let mut unopened = false;
        let mut newest = match self.only {
            Some(device) => self.newest_of(device).boxed(),
            None => archive::newest(&self.archive).boxed(),
        };
        while let Some(item) = newest.next().await {
            let (version, text) = item.map_err(unreadable_archive)?;
            // One that has left the inventory has no current configuration.
            let Some(name) = self.names.get(&version.device) else {
                continue;
            };
            let text = match text {
                Ok(text) => self.shown(&text),
                Err(error) => {
                    unopened = true;
                    complain(&chain(&error));
                    continue;
                }
            };
            for hit in self.matcher.search(&text) {
                let hit = Found {
                    device: version.device,
                    name: name.clone(),
                    menu: hit.menu.into_owned(),
                    line: hit.line,
                    text: hit.text.into_owned(),
                };
                match json {
                    true => found.push(hit),
                    false => {
                        let Found {
                            name,
                            line,
                            menu,
                            text,
                            ..
                        } = &hit;
                        say(&format!("{name}:{line}: {menu} | {text}"));
                    }
                }
            }
        }
        if json {
            emit_json(&found)?;
        }
        Ok(code(unopened))
    }

    /// Like [`archive::newest`], of one device.
    fn newest_of(&self, device: DeviceId) -> impl Stream<Item = Newest> + '_ {
        let page = stream::once(self.archive.versions(device, VersionPage::first(1)));
        page.flat_map(|page| match page {
            Ok(versions) => stream::iter(versions.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        })
        .and_then(async |version| {
            let opened = self.archive.open(version.id).await;
            Ok((version, opened.map(|opened| opened.text)))
        })
    }

    /// Every version of each device.
    async fn ever(&self, json: bool) -> Result<ExitCode, AppError> {
        let mut found = Vec::new();
        let mut unopened = false;
        let mut warned = false;
        for (id, name) in &self.names {
            let mut history = History::new(&self.matcher);
            let versions = self.versions(*id).await?;
            let normalizer = alike(&self.normalizer, &versions);
            let mixed = versions.windows(2).any(|pair| {
                let [a, b] = pair else { return false };
                a.first.normalization != b.first.normalization
            });
            if mixed && !warned {
                warned = warn_of_rules(&normalizer, &versions);
            }
            let renormalize = normalizer.renormalize();
            for version in versions {
                match self.archive.open(version.id).await {
                    Ok(opened) => {
                        let text = renormalize.text(&version.first.normalization, &opened.text);
                        history.add(version.first.position.at, &self.shown(&text));
                    }
                    Err(error) => {
                        unopened = true;
                        complain(&chain(&error));
                    }
                }
            }
            for span in history.finish() {
                let stretch = Stretch {
                    device: *id,
                    name: name.clone(),
                    menu: span.menu,
                    text: span.text,
                    since: span.since,
                    in_oldest_version: span.from_start,
                    gone_at: span.gone,
                };
                match json {
                    true => found.push(stretch),
                    false => say(&stretch.line()),
                }
            }
        }
        if json {
            emit_json(&found)?;
        }
        Ok(code(unopened))
    }

    /// All versions of a device, oldest first.
    async fn versions(&self, device: DeviceId) -> Result<Vec<Version>, AppError> {
        let mut versions: Vec<Version> = Vec::new();
        let mut page = VersionPage::first(VersionPage::MAX);
        loop {
            let read = self.archive.versions(device, page).await;
            let read = read.map_err(unreadable_archive)?;
            let Some(last) = read.last() else { break };
            page = VersionPage::after(last, VersionPage::MAX);
            versions.extend(read);
        }
        versions.reverse();
        Ok(versions)
    }
}

impl Stretch {
    fn line(&self) -> String {
        let since = match self.in_oldest_version {
            true => format!("there since {} or longer", moment(self.since)),
            false => format!("appeared {}", moment(self.since)),
        };
        let gone = self
            .gone_at
            .map_or_else(String::new, |at| format!(", gone {}", moment(at)));
        let Self {
            name, menu, text, ..
        } = self;
        format!("{name}: {since}{gone}: {menu} | {text}")
    }
}

fn code(unopened: bool) -> ExitCode {
    match unopened {
        true => ExitCode::from(exit::FAILED),
        false => ExitCode::SUCCESS,
    }
}
