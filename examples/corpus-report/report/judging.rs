//! A text judged as the answer of a router.

use mikrotik_backup::domain::failure::Failure;
use mikrotik_backup::routeros::{Answer, Dialogue, Export, Verdict};

/// The answer of a router that sent `stdout` and ended as RouterOS does.
pub fn answered(stdout: &[u8]) -> Answer<'_> {
    Answer {
        stdout,
        stderr: b"",
        exit_status: Some(0),
        closed: true,
    }
}

/// The verdict on `stdout`, as the answer to whatever is asked.
pub fn judge(stdout: &[u8]) -> Result<Export, Failure> {
    let mut dialogue = Dialogue::new(None);
    loop {
        match dialogue.judge(&answered(stdout)) {
            Verdict::Whole(export) => return Ok(export),
            Verdict::Refused(failure) => return Err(failure),
            // Each command is asked for once.
            Verdict::Ask(_) => {}
        }
    }
}
