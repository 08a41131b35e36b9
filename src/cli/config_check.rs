//! `config check`: the settings as they are in effect, secrets masked, and what is wrong.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::exit;
use super::output::{emit, emit_json};
use crate::config::{Config, Effective, Environment, Inspection, Need, Source, effective_listing};
use crate::report::printable;

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the settings that are in effect, secrets masked, and everything that is wrong
    #[command(after_help = "Examples:
  mikrotik-backup config check
  mikrotik-backup config check --command archive

Nothing is connected to. Exit code 3 if something is wrong.")]
    Check(ConfigCheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct ConfigCheckArgs {
    /// The command whose needs are checked
    #[arg(long, value_enum, default_value_t = For::Run)]
    command: For,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum For {
    Run,
    Migrate,
    Archive,
    Status,
}

#[derive(Serialize)]
struct Checked {
    settings: Vec<Setting>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Setting {
    name: String,
    /// As it is shown: a secret is masked, and one that is not set is null.
    value: Option<String>,
    /// `default`, `variable` or the path of the file.
    source: String,
}

impl Setting {
    fn of(effective: &Effective) -> Self {
        Self {
            name: effective.name.to_string(),
            value: effective.value.clone(),
            source: match &effective.source {
                Source::Default => "default".into(),
                Source::Variable => "variable".into(),
                Source::File(path) => path.display().to_string(),
            },
        }
    }
}

/// Checks the configuration of this environment.
pub(super) fn config(command: &ConfigCommand) -> ExitCode {
    let ConfigCommand::Check(args) = command;
    let need = match args.command {
        For::Run => Need::Run,
        For::Migrate => Need::Migrate,
        For::Archive => Need::Archive,
        For::Status => Need::Read,
    };
    let Inspection {
        effective,
        warnings,
        config,
    } = Config::inspect(need, &Environment::of_process());
    let code = match &config {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit::CONFIGURATION),
    };
    if args.json {
        let problems = config.err().map_or_else(Vec::new, |error| error.problems);
        let checked = Checked {
            settings: effective.iter().map(Setting::of).collect(),
            warnings,
            problems: problems.iter().map(ToString::to_string).collect(),
        };
        return match emit_json(&checked) {
            Ok(_) => code,
            Err(_) => ExitCode::from(exit::FAILED),
        };
    }
    let mut text = effective_listing(&effective);
    for warning in &warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    match config {
        Ok(config) => text.push_str(&format!(
            "\nnothing is wrong; mode: {}",
            config.mode.as_str()
        )),
        Err(error) => text.push_str(&format!("\n{error}")),
    }
    let lines = text.lines().map(|line| printable(line) + "\n");
    emit(&lines.collect::<String>());
    code
}
