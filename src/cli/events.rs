//! `events`: prints the snapshots that are, and arrive, in JetStream, one line each, without their
//! text.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::context::GetStreamByNameErrorKind as LookupErrorKind;
use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull::OrderedConfig};
use clap::Args;
use futures_util::StreamExt as _;
use time::format_description::well_known::Rfc3339;

use super::exit;
use crate::adapters::jetstream::{JetStreamSink, Settings, SnapshotEvent};
use crate::app::AppError;
use crate::config::Config;
use crate::ports::SnapshotSink as _;

/// What the poller publishes to.
const SUBJECTS: &str = "config.snapshot.create.>";

/// How long to wait for the connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks for a stream that is not there yet.
const STREAM_POLL: Duration = Duration::from_millis(250);

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup events                     what arrives from now on, until interrupted
  mikrotik-backup events --all --count 50    the first 50 that the stream holds, waiting for them

Reads NATS_URL. Each line: time of collection, device, RouterOS version, size, SHA-256, and the
menus that are missing; never the configuration.")]
pub(super) struct EventsArgs {
    /// Begin with the oldest message that the stream holds
    #[arg(long)]
    all: bool,
    /// Stop after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Give up, with exit code 1, when they have not come after so many seconds
    #[arg(long, value_name = "SECONDS", requires = "count")]
    timeout: Option<u64>,
}

/// Prints events until there are enough of them, the time is up, or the operator stops it.
pub(super) async fn events(config: &Config, args: &EventsArgs) -> Result<ExitCode, AppError> {
    let limit = args.timeout.map_or(Duration::MAX, Duration::from_secs);
    let mut printed = 0;
    let done = tokio::select! {
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        done = tokio::time::timeout(limit, print(config, args, &mut printed)) => done,
    };
    match done {
        Ok(result) => result.map_err(AppError::Failed).map(|()| ExitCode::SUCCESS),
        Err(_) => {
            let wanted = args.count.unwrap_or_default();
            let seconds = limit.as_secs();
            super::complain(&format!(
                "{printed} of {wanted} events came within {seconds} s"
            ));
            Ok(ExitCode::from(exit::FAILED))
        }
    }
}

/// The connection, once there is one; the client itself goes on trying for ever.
async fn connected(sink: &JetStreamSink) -> anyhow::Result<async_nats::Client> {
    let client = sink.client();
    until_connected(&client, async || Ok(sink.ready().await?)).await?;
    Ok(client)
}

/// Waits for the connection; when it has not come about in time, `why` tells the reason.
pub(super) async fn until_connected(
    client: &async_nats::Client,
    why: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let patience = tokio::time::Instant::now() + CONNECT_PATIENCE;
    while client.connection_state() != async_nats::connection::State::Connected {
        if tokio::time::Instant::now() > patience {
            why().await.context("failed to connect to NATS_URL")?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The stream that takes the events, and whether it had to be waited for: the first replica that
/// starts creates it.
async fn stream(js: &jetstream::Context) -> anyhow::Result<(jetstream::stream::Stream, bool)> {
    let mut waited = false;
    let name = loop {
        match js.stream_by_subject(SUBJECTS).await {
            Ok(name) => break name,
            Err(error) if error.kind() == LookupErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).context(
                    "failed to ask NATS for its streams; is JetStream enabled for this account?",
                );
            }
        }
        if !std::mem::replace(&mut waited, true) {
            super::complain(&format!(
                "no stream covers {SUBJECTS} yet; the service creates it when it starts: waiting"
            ));
        }
        tokio::time::sleep(STREAM_POLL).await;
    };
    let stream = js.get_stream(&name).await;
    let stream = stream.with_context(|| format!("failed to open stream {name}"))?;
    Ok((stream, waited))
}

/// One line without a secret in it.
fn summary(event: &SnapshotEvent) -> String {
    let size = match (&event.config_text, &event.config_ref) {
        (Some(text), _) => text.expose().len() as u64,
        (None, Some(reference)) => reference.size,
        (None, None) => 0,
    };
    let time = event.collected_at.format(&Rfc3339).unwrap_or_default();
    let incomplete = match event.incomplete_menus.as_slice() {
        [] => String::new(),
        menus => format!(" incomplete: no {}", menus.join(", ")),
    };
    format!(
        "{time} {} RouterOS {:<8} {size:>9} bytes sha256 {}{incomplete}",
        event.device_id, event.routeros_version, event.sha256_hash
    )
}

async fn print(config: &Config, args: &EventsArgs, printed: &mut u64) -> anyhow::Result<()> {
    let url = config.nats_url.as_ref().context("NATS_URL is not set")?;
    let sink = JetStreamSink::connect(url, Settings::default()).await?;
    let js = jetstream::new(connected(&sink).await?);
    let (stream, waited) = stream(&js).await?;
    let consumer = stream
        .create_consumer(OrderedConfig {
            filter_subject: SUBJECTS.to_owned(),
            // In a stream that came while we waited, everything is new.
            deliver_policy: if args.all || waited {
                DeliverPolicy::All
            } else {
                DeliverPolicy::New
            },
            ..OrderedConfig::default()
        })
        .await
        .context("failed to read from the stream")?;
    let mut messages = consumer
        .messages()
        .await
        .context("failed to read messages")?;
    while args.count.is_none_or(|count| *printed < count) {
        let Some(message) = messages.next().await else {
            break;
        };
        let message = message.context("failed to read a message")?;
        let line = match serde_json::from_slice::<SnapshotEvent>(&message.payload) {
            Ok(event) => summary(&event),
            Err(error) => format!("{}: not a snapshot event: {error}", message.subject),
        };
        if writeln!(std::io::stdout(), "{}", super::printable(&line)).is_err() {
            break; // the reader went away
        }
        *printed += 1;
    }
    Ok(())
}
