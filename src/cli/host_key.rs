//! `host-key`: which key of a router is trusted, and which one it showed.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::hand::{Hand, Missing, find, reading};
use super::output::say;
use super::reading::unreadable;
use crate::adapters::sqlite::SqliteStore;
use crate::app::AppError;
use crate::config::Config;
use crate::domain::host_key::Fingerprint;

/// The subcommands of `host-key`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A router whose key is not the trusted one gets no password, and waits for
you. Compare the fingerprint with what the router itself shows, then accept exactly that one."
)]
pub(super) enum HostKey {
    /// Show the trusted key and the one that the router offered last
    Show(DeviceArg),
    /// Trust this key from now on; lifts a block
    Accept(AcceptArgs),
    /// Trust whatever key the router shows next; lifts a block
    Reset(DeviceArg),
}

/// A device.
#[derive(Debug, Args)]
pub(super) struct DeviceArg {
    /// Its id, name or address
    device: String,
}

/// Arguments of `host-key accept`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  mikrotik-backup host-key accept edge-1 SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")]
pub(super) struct AcceptArgs {
    /// Its id, name or address
    device: String,
    /// The fingerprint, as `host-key show` and `ssh-keygen -lf` print it
    #[arg(value_parser = fingerprint)]
    fingerprint: Fingerprint,
}

/// Reads a fingerprint of the command line.
pub(super) fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text).ok_or_else(|| {
        "a fingerprint is SHA256: and 43 characters of base64, as ssh-keygen -lf prints it"
            .to_owned()
    })
}

/// Runs a subcommand of `host-key`.
pub(super) async fn host_key(config: &Config, command: HostKey) -> Result<ExitCode, AppError> {
    let (device, fingerprint) = match &command {
        HostKey::Show(args) => {
            let store = reading(config).await?;
            let shown = show(&store, &args.device).await;
            store.close().await;
            return shown.map(|()| ExitCode::SUCCESS);
        }
        HostKey::Accept(args) => (&args.device, Some(&args.fingerprint)),
        HostKey::Reset(args) => (&args.device, None),
    };
    let hand = Hand::open(config, Missing::Refuse).await?;
    let done = pin(&hand, device, fingerprint).await;
    hand.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn show(store: &SqliteStore, device: &str) -> Result<(), AppError> {
    let device = find(store, device).await?;
    let offered = store.offered_host_key(device.id).await;
    let offered = offered.map_err(unreadable)?;
    let pinned = device.pin.as_column();
    say(&format!("{} ({})", device.name, device.endpoint));
    say(&format!("trusted  {}", pinned.unwrap_or("none yet")));
    say(&format!(
        "offered  {}",
        offered.as_deref().unwrap_or("not seen yet")
    ));
    match (pinned, &offered) {
        (Some(pinned), Some(offered)) if pinned != offered => {
            say(&format!(
                "they differ: `mikrotik-backup host-key accept {} {offered}` trusts the new one",
                device.id
            ));
        }
        _ => {}
    }
    Ok(())
}

async fn pin(hand: &Hand, device: &str, pin: Option<&Fingerprint>) -> Result<(), AppError> {
    let device = hand.find(device).await?;
    hand.pin(device.id, pin).await?;
    let before = device.pin.as_column().unwrap_or("none");
    match pin {
        Some(pin) => say(&format!("{}: trusts {pin} (before: {before})", device.name)),
        None => say(&format!(
            "{}: trusts the next key that it shows (before: {before})",
            device.name
        )),
    }
    Ok(())
}
