//! The settings as text: the table for `--help`, and what is in effect for `config check`.

use std::fmt::Write as _;

use super::reader::{Effective, Source};
use super::settings::settings;

/// How wide the table is, in characters.
const WIDTH: usize = 78;

/// Every setting with its default and meaning, for the end of `--help`.
pub fn settings_help() -> String {
    let mut help = String::from("Environment variables:\n");
    for setting in settings() {
        let default = match &setting.default {
            Some(default) => format!("default {default}"),
            None => "unset".to_owned(),
        };
        let secret = if setting.secret { ", secret" } else { "" };
        let _ = writeln!(help, "\n  {} [{default}{secret}]", setting.name);
        wrap(&mut help, setting.about);
        wrap(&mut help, &format!("Allowed: {}.", setting.allowed));
    }
    help.push('\n');
    wrap_at(
        &mut help,
        "",
        "Every variable X marked 'secret' can also be given as X_FILE, the path of a file that \
         holds the value. A variable that is set but empty is an error.",
    );
    help
}

fn wrap(to: &mut String, text: &str) {
    wrap_at(to, "      ", text);
}

fn wrap_at(to: &mut String, indent: &str, text: &str) {
    let mut line = indent.to_owned();
    for word in text.split(' ') {
        if line.len() > indent.len() && line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(to, "{line}");
            line = indent.to_owned();
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(to, "{line}");
}

/// What is in effect, one setting per line with where it comes from; secrets are masked already.
pub fn effective_listing(effective: &[Effective]) -> String {
    let mut listing = String::new();
    let width = effective.iter().map(|e| e.name.len()).max().unwrap_or(0);
    for Effective {
        name,
        value,
        source,
    } in effective
    {
        let value = value.as_deref().unwrap_or("(unset)");
        let _ = match source {
            Source::Default => writeln!(listing, "{name:width$}  {value}"),
            Source::Variable => writeln!(listing, "{name:width$}  {value}  (set)"),
            Source::File(path) => {
                writeln!(listing, "{name:width$}  {value}  (from {})", path.display())
            }
        };
    }
    listing
}
