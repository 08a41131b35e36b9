//! The `mikrotik-backup` binary: arguments, runtime, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    mikrotik_backup::cli::main()
}
