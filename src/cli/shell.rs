//! `completions` and `man`: what a shell and `man` know of this program, made from its own arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};

use super::output::emit;
use super::{complain, exit};

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup completions bash > /etc/bash_completion.d/mikrotik-backup
  mikrotik-backup completions fish > ~/.config/fish/completions/mikrotik-backup.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup man | man -l -
  mikrotik-backup man snapshots diff | man -l -
  mikrotik-backup man --dir /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// The subcommand, and its own; the whole program without one
    #[arg(value_name = "SUBCOMMAND", conflicts_with = "dir")]
    path: Vec<String>,
    /// Write every page to this directory
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Prints the completions of `program`.
pub(super) fn completions(mut program: Command, args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(args.shell, &mut program, name, &mut script);
    emit(&String::from_utf8_lossy(&script))
}

/// Prints a page of `program`, or writes all of them.
pub(super) fn man(mut program: Command, args: &ManArgs) -> ExitCode {
    if let Some(dir) = &args.dir {
        let written =
            std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(program, dir));
        return match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("failed to write to {}: {error}", dir.display()));
                ExitCode::from(exit::FAILED)
            }
        };
    }
    // Gives every subcommand its whole name.
    program.build();
    let mut command = &program;
    for name in &args.path {
        match command.find_subcommand(name) {
            Some(found) => command = found,
            None => {
                complain(&format!("there is no subcommand {name:?}"));
                return ExitCode::from(exit::USAGE);
            }
        }
    }
    let mut page = Vec::new();
    match clap_mangen::Man::new(command.clone()).render(&mut page) {
        Ok(()) => emit(&String::from_utf8_lossy(&page)),
        Err(error) => {
            complain(&format!("failed to write the page: {error}"));
            ExitCode::from(exit::FAILED)
        }
    }
}
