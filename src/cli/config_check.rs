//! `config check`: the settings as they are in effect, secrets masked, and what is wrong with them
//! and with the folders that they name.

mod places;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use places::Place;

use super::exit;
use super::output::{emit, emit_json};
use crate::config::{Config, Effective, Environment, Inspection, Need, Source, effective_listing};
use crate::report::printable;

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the settings that are in effect, secrets masked, and everything that is wrong
    ///
    /// Also looks at DATA_DIR and GIT_ARCHIVE_DIR, where the command uses them: whether they can be
    /// used or made, and whether the key is the one that the database is sealed with.
    #[command(after_help = "Examples:
  mikrotik-backup config check
  mikrotik-backup config check --command archive

Nothing is connected to, and nothing is changed. Exit code 3 if something is wrong.")]
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
    /// The folders that are used.
    places: Vec<Place>,
    /// Of settings and folders.
    warnings: Vec<String>,
    /// What is right, and may surprise.
    notes: Vec<String>,
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
pub(super) async fn config(command: &ConfigCommand) -> ExitCode {
    let ConfigCommand::Check(args) = command;
    let need = match args.command {
        For::Run => Need::Run,
        For::Migrate => Need::Migrate,
        For::Archive => Need::Archive,
        For::Status => Need::Read,
    };
    let Inspection {
        effective,
        mut warnings,
        config,
    } = Config::inspect(need, &Environment::of_process());
    let places = match &config {
        Ok(config) => places::inspect(config, need).await,
        // What they are is not known for certain.
        Err(_) => Vec::new(),
    };
    warnings.extend(places.iter().flat_map(|place| place.warnings.clone()));
    let notes = match (&config, need) {
        (Ok(config), Need::Run) => config.notes(),
        _ => Vec::new(),
    };
    let (mode, mut problems) = match config {
        Ok(config) => (config.mode.as_str(), Vec::new()),
        Err(error) => ("", error.problems.iter().map(ToString::to_string).collect()),
    };
    for place in &places {
        let of = |problem: &String| format!("{}: {problem}", place.setting);
        problems.extend(place.problems.iter().map(of));
    }
    let code = match problems.as_slice() {
        [] => ExitCode::SUCCESS,
        _ => ExitCode::from(exit::CONFIGURATION),
    };
    if args.json {
        let checked = Checked {
            settings: effective.iter().map(Setting::of).collect(),
            places,
            warnings,
            notes,
            problems,
        };
        return match emit_json(&checked) {
            Ok(_) => code,
            Err(_) => ExitCode::from(exit::FAILED),
        };
    }
    let mut text = effective_listing(&effective);
    for place in &places {
        let path = place.path.display();
        text.push_str(&format!("\n{} is {path}", place.setting));
        if !place.found.is_empty() {
            text.push_str(&format!(": {}", place.found.join("; ")));
        }
    }
    for warning in &warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    for note in &notes {
        text.push_str(&format!("\nnote: {note}"));
    }
    match problems.as_slice() {
        [] => text.push_str(&format!("\nnothing is wrong; mode: {mode}")),
        [problem] => text.push_str(&format!("\ninvalid configuration: {problem}")),
        problems => {
            let count = problems.len();
            text.push_str(&format!("\ninvalid configuration, {count} problems:"));
            for problem in problems {
                text.push_str(&format!("\n  - {problem}"));
            }
        }
    }
    let lines = text.lines().map(|line| printable(line) + "\n");
    emit(&lines.collect::<String>());
    code
}
