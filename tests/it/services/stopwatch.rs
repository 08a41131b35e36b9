//! How long tests of faults take: noted in a file, from which `.ci/run` makes one figure.

use std::fs::OpenOptions;
use std::io::Write as _;

use mikrotik_backup::clock::Clock;

/// Where `.ci/run` looks.
const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/fault-times");

/// Runs until it is dropped, however the test ends; then there is a line more: begin and end in
/// milliseconds since 1970, and the test.
#[must_use]
pub struct Stopwatch {
    began: i128,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self {
            began: milliseconds(),
        }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("?");
        let line = format!("{} {} {test}\n", self.began, milliseconds());
        // One write, so that lines of tests that run at once do not mix. Whoever wants no figure
        // may have no such folder.
        let file = OpenOptions::new().create(true).append(true).open(FILE);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

fn milliseconds() -> i128 {
    Clock::System.now().unix_timestamp_nanos() / 1_000_000
}
