//! `snapshots export`: the newest versions as files that only their owner can read.

use std::collections::HashSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::which::{self, Which};
use super::{Subject, subject, warn_of_gaps};
use crate::app::AppError;
use crate::cli::output::say;
use crate::cli::reading::{Reading, unreadable_archive};
use crate::cli::{complain, exit};
use crate::domain::failure::chain;
use crate::ports::Archive;
use crate::report::count;
use crate::routeros;

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// Devices: their ids, names or addresses
    #[arg(required_unless_present = "all", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Every device of the inventory
    #[arg(long, conflicts_with = "devices")]
    all: bool,
    /// The directory to write to; made, for you alone, where there is none
    #[arg(long)]
    dir: PathBuf,
    /// Mask passwords and keys
    #[arg(long)]
    redact: bool,
}

pub(super) async fn export(reading: &Reading, args: &ExportArgs) -> Result<ExitCode, AppError> {
    let archive = reading.archive().await?;
    let subjects = match args.all {
        true => {
            let names = reading.names().await?;
            names
                .into_iter()
                .map(|(id, name)| Subject { id, name })
                .collect()
        }
        false => {
            let mut subjects = Vec::new();
            for device in &args.devices {
                subjects.push(subject(reading, device).await?);
            }
            subjects
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.dir)
        .with_context(|| format!("failed to make directory {}", args.dir.display()))
        .map_err(AppError::Failed)?;
    let mut taken = HashSet::new();
    let (mut written, mut failed) = (0, 0);
    for subject in &subjects {
        let mut file = file_name(&subject.name);
        // Names are unique within a tenant only, and some file systems ignore case.
        if !taken.insert(file.to_lowercase()) {
            file = format!("{file}-{}", subject.id);
        }
        let path = args.dir.join(format!("{file}.rsc"));
        match write_newest(&archive, subject, &path, args.redact).await {
            Ok(()) => {
                written += 1;
                say(&path.display().to_string());
            }
            Err(AppError::Failed(error)) => {
                failed += 1;
                complain(&chain(error.as_ref()));
            }
            Err(other) => return Err(other),
        }
    }
    if failed > 0 {
        let (written, failed) = (count(written, "file"), count(failed, "device"));
        complain(&format!("{written} written, {failed} left out"));
        return Ok(ExitCode::from(exit::FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

async fn write_newest(
    archive: &dyn Archive,
    subject: &Subject,
    path: &Path,
    redact: bool,
) -> Result<(), AppError> {
    let version = which::find(archive, subject, Which::Back(0)).await?;
    let opened = archive.open(version.id).await.map_err(unreadable_archive)?;
    let bytes = match redact {
        true => routeros::encode(&routeros::redact(opened.text.expose())),
        false => routeros::encode(opened.text.expose()),
    };
    replace(path, &bytes)
        .with_context(|| format!("failed to write {}", path.display()))
        .map_err(AppError::Failed)?;
    warn_of_gaps(Some(subject), &version);
    Ok(())
}

/// Puts a file in its place at once, closed to others from its first byte.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(new);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// `name` as a file can be called anywhere; never hidden, never a path.
fn file_name(name: &str) -> String {
    let safe = |c: char| match c {
        c if c.is_alphanumeric() || "-_.".contains(c) => c,
        _ => '_',
    };
    let mut file: String = name.chars().map(safe).take(60).collect();
    if file.starts_with('.') || file.is_empty() {
        file.insert(0, '_');
    }
    file
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn a_name_is_no_path() {
        assert_eq!(file_name("edge-7.core"), "edge-7.core");
        assert_eq!(file_name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(file_name("a b\n/c"), "a_b__c");
        assert_eq!(file_name(""), "_");
        assert!(file_name(&"ü".repeat(253)).len() <= 240);
    }
}
