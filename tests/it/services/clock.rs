//! A wrong clock for one process: a library, loaded before any other, that moves the wall clock.
//!
//! The kernel has no wall clock per process (time namespaces move the monotonic clock only), and a
//! service that can be told a wrong time in production would be another one than is tested. The
//! monotonic clock stays as it is, as on a machine whose wall clock was set wrong.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::require;

const SOURCE: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += OFFSET_SECONDS;
    return failed;
}
";

/// Makes the library for a clock that is `seconds` ahead (behind, where negative) in `directory`:
/// the value for `LD_PRELOAD`. `None` where there is no C compiler.
pub fn wrong_by(seconds: i32, directory: &Path) -> Option<PathBuf> {
    let compiler = require("cc")?;
    let source = directory.join("wrong-clock.c");
    std::fs::write(&source, SOURCE).expect("write the source of the wrong clock");
    let library = directory.join(format!("wrong-clock{seconds}.so"));
    let output = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1"])
        .arg(format!("-DOFFSET_SECONDS={seconds}"))
        .arg("-o")
        .arg(&library)
        .arg(&source)
        .output()
        .expect("run the C compiler");
    assert!(
        output.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(library)
}

#[test]
fn a_process_with_the_wrong_clock_is_off_by_as_much() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = wrong_by(-60, directory.path()) else {
        return;
    };
    let epoch = |preload: &str| -> i64 {
        let mut date = Command::new("date");
        let output = date.arg("+%s").env("LD_PRELOAD", preload).output();
        let output = output.expect("run date");
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .expect("a number of seconds")
    };
    let off = epoch(&library.display().to_string()) - epoch("");
    assert!((-61..=-58).contains(&off), "{off} s");
}
