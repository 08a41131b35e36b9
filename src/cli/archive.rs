//! `archive`: the role that stores what arrives in JetStream, and what it has set aside.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use tokio::sync::Semaphore;

use super::output::{emit, emit_json, say};
use super::reading::{configuration, unreadable_archive};
use super::{exit, with_config};
use crate::adapters::archive::{Aside, AsideId, SealedArchive, SetAside};
use crate::adapters::jetstream::{Received, Settings, SnapshotSource};
use crate::adapters::postgres::{PostgresStore, SchemaState};
use crate::app::{self, AppError};
use crate::clock::Clock;
use crate::config::{Cluster, Config, Mode, Need};
use crate::intake::{Settler, Verdict};
use crate::ports::Archive;
use crate::report::{moment, printable, printable_line, table};

/// Arguments of `archive`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup archive                      the service, until SIGTERM
  mikrotik-backup archive set-aside            what could not be stored, and why
  mikrotik-backup archive show 7 > message     one of these, whole, with its passwords
  mikrotik-backup archive retry 7
  mikrotik-backup archive retry --all          once the cause is gone

Needs DATABASE_URL, NATS_URL and CREDENTIAL_ENCRYPTION_KEY. Read what is stored with
`mikrotik-backup snapshots`. Several may run: they share the work.")]
pub(super) struct ArchiveArgs {
    #[command(subcommand)]
    command: Option<ArchiveCommand>,
}

#[derive(Debug, Subcommand)]
enum ArchiveCommand {
    /// List the messages that could not be stored, oldest first
    SetAside(ListArgs),
    /// Print the payload of one of them as it came; it may hold passwords
    Show(ShowArgs),
    /// Try some or all of them again; what is stored leaves the list
    Retry(RetryArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only those after this id, to read on
    #[arg(long, value_name = "ID", default_value_t = 0)]
    after: AsideId,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Its id in the list
    id: AsideId,
    /// Print it on a terminal, too
    #[arg(long)]
    secrets: bool,
}

#[derive(Debug, Args)]
struct RetryArgs {
    /// Their ids in the list
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Vec<AsideId>,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// Runs the role, or one of the commands about what lies aside.
pub(super) async fn archive(args: ArchiveArgs) -> ExitCode {
    match args.command {
        None => with_config(Need::Archive, run).await,
        Some(command) => {
            with_config(Need::Read, async |config| about(&config, &command).await).await
        }
    }
}

async fn run(config: Config) -> Result<ExitCode, AppError> {
    if let Mode::Cluster(cluster) = &config.mode.clone() {
        app::run_archive(config, cluster).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn about(config: &Config, command: &ArchiveCommand) -> Result<ExitCode, AppError> {
    let Mode::Cluster(cluster) = &config.mode else {
        return Err(configuration(anyhow!(
            "DATABASE_URL is not set: in embedded mode snapshots go straight into the archive, and \
             nothing is ever set aside"
        )));
    };
    let store = PostgresStore::connect(&cluster.database_url, Clock::System, &config.replica)
        .map_err(configuration)?;
    match store.schema_state().await.map_err(configuration)? {
        SchemaState::Current => {}
        state => {
            return Err(configuration(anyhow!(
                "the database schema is not up to date ({state}); run `mikrotik-backup migrate` as \
                 the schema's owner"
            )));
        }
    }
    let key = cluster.key().map_err(configuration)?;
    let set_aside = SetAside::new(store.pool().clone(), key.clone());
    let done = match command {
        ArchiveCommand::SetAside(args) => list(&set_aside, args).await,
        ArchiveCommand::Show(args) => show(&set_aside, args).await,
        ArchiveCommand::Retry(args) => retry(config, cluster, &store, &set_aside, args).await,
    };
    store.close().await;
    done
}

async fn list(set_aside: &SetAside, args: &ListArgs) -> Result<ExitCode, AppError> {
    let page = set_aside.page(args.after, args.limit).await;
    let page = page.map_err(unreadable_archive)?;
    if args.json {
        return emit_json(&page);
    }
    if page.is_empty() {
        return Ok(emit("nothing is set aside\n"));
    }
    let head = [
        "ID",
        "SET ASIDE",
        "PUBLISHED",
        "MESSAGE",
        "BYTES",
        "TRIES",
        "FLAW",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(page.iter().map(row));
    let mut lines = table(&rows);
    // Under each row, what does not fit into a column.
    let told = page.iter().map(|aside| {
        let subject = printable_line(&aside.subject);
        format!("    {subject}: {}", printable_line(&aside.reason))
    });
    let head = lines.remove(0);
    let both = lines.into_iter().zip(told);
    let text: String = both.map(|(row, told)| format!("{row}\n{told}\n")).collect();
    Ok(emit(&format!("{head}\n{text}")))
}

fn row(aside: &Aside) -> Vec<String> {
    vec![
        aside.id.to_string(),
        moment(aside.set_aside_at),
        moment(aside.published_at),
        format!("{} {}", printable(&aside.stream), aside.stream_sequence),
        aside.bytes.to_string(),
        aside.tries.to_string(),
        printable(&aside.flaw).into_owned(),
    ]
}

async fn opened(set_aside: &SetAside, id: AsideId) -> Result<(Aside, Vec<u8>), AppError> {
    let opened = set_aside.open(id).await.map_err(unreadable_archive)?;
    opened.ok_or_else(|| AppError::Failed(anyhow!("no message {id} is set aside")))
}

async fn show(set_aside: &SetAside, args: &ShowArgs) -> Result<ExitCode, AppError> {
    if std::io::stdout().is_terminal() && !args.secrets {
        return Err(AppError::Failed(anyhow!(
            "a payload may hold passwords: send it to a file, or give --secrets to see it here"
        )));
    }
    let (_, payload) = opened(set_aside, args.id).await?;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(&payload).and_then(|()| out.flush());
    Ok(ExitCode::SUCCESS)
}

async fn retry(
    config: &Config,
    cluster: &Cluster,
    store: &PostgresStore,
    set_aside: &SetAside,
    args: &RetryArgs,
) -> Result<ExitCode, AppError> {
    let key = cluster.key().map_err(configuration)?;
    let archive = SealedArchive::postgres(
        store.pool().clone(),
        key.clone(),
        config.normalizer.renormalize(),
    );
    archive.check_key().await.map_err(unreadable_archive)?;
    let source = match cluster.nats_url() {
        Ok(url) => Some(connected(url).await?),
        Err(_) => None,
    };
    let settler = Settler {
        archive: Arc::new(archive),
        source: source.clone(),
        limit: app::text_limit(config),
        room: Arc::new(Semaphore::new(1)),
        all_room: 1,
    };
    let (mut stored, mut left) = (0, 0);
    let mut count = |is_stored: bool| if is_stored { stored += 1 } else { left += 1 };
    for id in &args.id {
        count(again(&settler, set_aside, *id).await?);
    }
    let mut more = args.all.then_some(0);
    while let Some(after) = more {
        let page = set_aside
            .page(after, 100)
            .await
            .map_err(unreadable_archive)?;
        more = page.last().map(|last| last.id);
        for aside in &page {
            count(again(&settler, set_aside, aside.id).await?);
        }
    }
    if let Some(source) = source {
        source.close().await;
    }
    say(&format!("{stored} stored, {left} still set aside"));
    Ok(match left {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(exit::FAILED),
    })
}

async fn connected(url: &secrecy::SecretString) -> Result<Arc<SnapshotSource>, AppError> {
    let source = SnapshotSource::connect(url, Settings::default()).await;
    let source = source.map_err(configuration)?;
    super::events::until_connected(&source.client(), async || {
        source.reachable().map_err(anyhow::Error::from)
    })
    .await
    .map_err(AppError::Configuration)?;
    Ok(Arc::new(source))
}

/// Tries one again; whether it is stored now.
async fn again(settler: &Settler, set_aside: &SetAside, id: AsideId) -> Result<bool, AppError> {
    let (aside, payload) = opened(set_aside, id).await?;
    let received = Received {
        subject: aside.subject,
        message_id: aside.message_id,
        payload: payload.into(),
    };
    let (flaw, reason) = match settler.settle(received, u64::MAX, None).await {
        Verdict::Stored(_) => {
            set_aside.remove(id).await.map_err(unreadable_archive)?;
            say(&format!("{id}: stored"));
            return Ok(true);
        }
        Verdict::Bad(rejection) => (rejection.flaw.as_str().to_owned(), rejection.reason),
        Verdict::ArchiveAway(reason) => return Err(configuration(anyhow!(reason))),
        Verdict::TextAway(reason) => (aside.flaw, reason),
    };
    let noted = set_aside.tried(id, &flaw, &reason).await;
    noted.map_err(unreadable_archive)?;
    say(&format!("{id}: {reason}"));
    Ok(false)
}
