//! How results are printed: plainly, as JSON, in colour where that is wanted; and never with a
//! character that a terminal would obey.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde::Serialize;

use crate::app::AppError;
use crate::config::Config;
use crate::report::printable;

/// Whether what goes to standard output may be coloured.
pub(super) fn colored(config: &Config) -> bool {
    std::io::stdout().is_terminal() && !config.no_color
}

/// Prints `text` as it is: whoever made it has escaped what came from outside. A reader that went
/// away (`| head`) ends the output, not the program.
pub(super) fn emit(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

/// Prints `value` as JSON, over several lines, without a character that a terminal would obey.
pub(super) fn emit_json(value: &impl Serialize) -> Result<ExitCode, AppError> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| AppError::Failed(error.into()))?;
    // JSON escapes the C0 controls; DEL and the C1 ones are left as they are.
    if text.contains(|c: char| c.is_control() && c != '\n') {
        let escaped = |c: char| match c.is_control() && c != '\n' {
            true => format!("\\u{:04x}", u32::from(c)),
            false => c.to_string(),
        };
        text = text.chars().map(escaped).collect();
    }
    text.push('\n');
    Ok(emit(&text))
}

/// A line for people: control characters escaped.
pub(super) fn say(line: &str) {
    emit(&format!("{}\n", printable(line)));
}
