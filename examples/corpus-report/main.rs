//! Reads a corpus of real exports and prints what the service makes of each: accepted or refused,
//! and for each pair what is expected of it and what came out.
//!
//! `cargo run --example corpus-report -- ../shared/corpus`
//!
//! Exit code 1 where something came out in another way than its label says.

mod report;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: corpus-report FOLDER, which holds INDEX.tsv and pairs/INDEX.tsv");
        return ExitCode::from(2);
    };
    match report::report(&folder) {
        Ok(report) => {
            print!("{}", report.text);
            match report.disagreements.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("read the corpus in {}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}
