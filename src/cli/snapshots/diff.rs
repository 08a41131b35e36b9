//! `snapshots diff`: what changed from one version to another.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Args;

use super::which::{self, Which};
use super::{Subject, alike, subject, warn_of_rules};
use crate::app::AppError;
use crate::cli::output::{colored, emit};
use crate::cli::reading::{Reading, unreadable_archive};
use crate::config::Config;
use crate::domain::archive::Version;
use crate::ports::Archive as _;
use crate::report::moment;
use crate::routeros::{self, Redacted, Side, Style};

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// A device: its id, name or address
    device: String,
    /// The old version: its id, `latest~N`, or a time (UTC)
    #[arg(value_name = "OLD", default_value = "latest~1")]
    old: Which,
    /// The new one
    #[arg(value_name = "NEW", default_value = "latest")]
    new: Which,
    /// Unchanged lines to show around each change
    #[arg(short = 'U', long, value_name = "LINES", default_value_t = 3)]
    unified: u16,
    /// Show passwords and keys
    #[arg(long)]
    secrets: bool,
}

pub(super) async fn diff(
    config: &Config,
    reading: &Reading,
    args: &DiffArgs,
) -> Result<ExitCode, AppError> {
    let subject = subject(reading, &args.device).await?;
    let archive = reading.archive().await?;
    let mut sides = Vec::new();
    for which in [args.old, args.new] {
        let version = which::find(&archive, &subject, which).await?;
        sides.push(archive.open(version.id).await.map_err(unreadable_archive)?);
    }
    let [old, new] = &sides[..] else {
        return Ok(ExitCode::SUCCESS);
    };
    let normalizer = alike(&config.normalizer, [&old.version, &new.version]);
    if old.version.first.normalization != new.version.first.normalization {
        warn_of_rules(&normalizer, [&old.version, &new.version]);
    }
    let (before, after) = normalizer.renormalize().comparable(
        (&old.version.first.normalization, &old.text),
        (&new.version.first.normalization, &new.text),
    );
    let labels = [&old.version, &new.version].map(|version| label(&subject, version));
    let style = Style {
        color: colored(config),
        escape_controls: std::io::stdout().is_terminal() || !args.secrets,
        labels: (&labels[0], &labels[1]),
    };
    let show = |a: Side<'_>, b: Side<'_>| {
        let a = a.incomplete(&old.version.incomplete_menus);
        let b = b.incomplete(&new.version.incomplete_menus);
        let diff = routeros::diff(a, b, args.unified.into());
        match diff.is_empty() {
            true => format!("no difference between {} and {}\n", labels[0], labels[1]),
            false => format!(
                "{}\n{}\n",
                routeros::render(&diff, &style).trim_end(),
                diff.summary()
            ),
        }
    };
    let text = match args.secrets {
        true => show((&before).into(), (&after).into()),
        false => {
            let [a, b] = [&before, &after].map(|text| Redacted::new(text.expose()));
            show((&a).into(), (&b).into())
        }
    };
    Ok(emit(&text))
}

fn label(subject: &Subject, version: &Version) -> String {
    let name = crate::report::printable(&subject.name);
    format!(
        "{name} {} {}",
        moment(version.first.position.at),
        version.id
    )
}
