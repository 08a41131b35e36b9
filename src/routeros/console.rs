//! Owns what the RouterOS console prints instead of an export, and how it is quoted.

/// How much of the device's own words goes into an error, in characters.
const QUOTED: usize = 200;

/// What output that is not an export turns out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// `… (line 1 column 9)`: the parser did not take the command, from this column on.
    Syntax {
        /// Where the parser stopped.
        column: u32,
    },
    /// `not enough permissions (9)`.
    NotPermitted,
    /// Another error of the console.
    Error,
    /// The licence question of the first login.
    LicencePrompt,
    /// The demand for a new password.
    PasswordPrompt,
    /// The nag screen of a router without a licence.
    DemoPrompt,
    /// Markup: a web server answers there, or a proxy.
    Html,
    /// Nothing that we know.
    Other,
}

/// Texts at the start of a console error line. From the facts sheet, §3.
const ERRORS: [&str; 11] = [
    "no such item",
    "input does not match any value",
    "invalid value",
    "invalid user input",
    "value of ",
    "ambiguous value",
    "failure: ",
    "std failure: ",
    "action timed out",
    "interrupted",
    "error creating backup file",
];

/// How the console says that a policy is missing.
const NOT_PERMITTED: [&str; 2] = [
    "not enough permissions",
    "action failed - not enough permissions",
];

/// Texts at the start of the parser's errors, which end in `(line N column M)`.
const SYNTAX_ERRORS: [&str; 5] = [
    "expected ",
    "bad command name ",
    "bad parameter ",
    "syntax error",
    "unknown parameter ",
];

/// What one line is, if it is an error of the console.
pub(super) fn error_line(line: &str) -> Option<Reply> {
    let line = line.trim();
    if let Some(column) = syntax_column(line)
        && SYNTAX_ERRORS.iter().any(|text| line.starts_with(text))
    {
        return Some(Reply::Syntax { column });
    }
    if NOT_PERMITTED.iter().any(|text| line.starts_with(text)) {
        return Some(Reply::NotPermitted);
    }
    ERRORS
        .iter()
        .any(|text| line.starts_with(text))
        .then_some(Reply::Error)
}

/// What `output` is, given that it does not begin as an export does, and the line to quote.
pub(super) fn recognize(output: &str) -> (Reply, &str) {
    let first = first_line(output);
    let last = last_line(output);
    for line in [first, last] {
        if let Some(reply) = error_line(line) {
            return (reply, line.trim());
        }
    }
    let top = head(output);
    for (text, reply) in [
        ("software license", Reply::LicencePrompt),
        ("Change your password", Reply::PasswordPrompt),
        ("new password>", Reply::PasswordPrompt),
        ("Please press \"Enter\"", Reply::DemoPrompt),
    ] {
        if let Some(line) = top.lines().find(|line| line.contains(text)) {
            return (reply, line.trim());
        }
    }
    if first.trim_start().starts_with('<') {
        return (Reply::Html, first.trim());
    }
    (Reply::Other, first.trim())
}

/// `line` for an error text: at most 200 characters, control characters escaped. A line that may
/// be configuration is described instead.
pub(super) fn quote(line: &str) -> String {
    let line = line.trim();
    if may_be_configuration(line) {
        return "(a line that may be configuration, not shown)".to_owned();
    }
    format!("\"{}\"", escape(line))
}

/// `text` cut at 200 characters, control characters and quotes escaped.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars().take(QUOTED) {
        if character.is_control() || character == '"' {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    if text.chars().nth(QUOTED).is_some() {
        escaped.push('…');
    }
    escaped
}

/// Console errors carry no configuration; anything else with a property or in the place of a
/// command may.
fn may_be_configuration(line: &str) -> bool {
    if matches!(error_line(line), Some(reply) if reply != Reply::Error) {
        return false;
    }
    // What an export says of itself: the path of a menu or a version, at most. Another release may
    // print another header, and this line is then all that tells of it.
    let told = ["#error exporting", "#interrupted"];
    let header = line.starts_with('#') && line.contains("by RouterOS");
    if header || told.iter().any(|start| line.starts_with(start)) {
        return line.contains('=');
    }
    let command = ["/", "add ", "set ", ":", "#"];
    line.contains('=') || command.iter().any(|start| line.starts_with(start))
}

/// The first line of `text` that is not blank.
pub(super) fn first_line(text: &str) -> &str {
    let text = text.trim_start();
    text.split(['\n', '\r']).next().unwrap_or(text)
}

fn last_line(text: &str) -> &str {
    let text = text.trim_end();
    text.rsplit(['\n', '\r']).next().unwrap_or(text)
}

/// The first few thousand bytes: prompts stand there or nowhere.
fn head(text: &str) -> &str {
    let mut end = text.len().min(8192);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The column of `… (line N column M)` at the end of `line`.
fn syntax_column(line: &str) -> Option<u32> {
    let (_, position) = line.strip_suffix(')')?.rsplit_once("(line ")?;
    let (row, column) = position.split_once(" column ")?;
    row.parse::<u32>().ok()?;
    column.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_consoles_errors_are_told_apart() {
        for (line, reply) in [
            (
                "expected end of command (line 1 column 9)",
                Reply::Syntax { column: 9 },
            ),
            (
                "bad command name exprot (line 1 column 2)",
                Reply::Syntax { column: 2 },
            ),
            (
                "bad parameter once (line 1 column 54)",
                Reply::Syntax { column: 54 },
            ),
            (
                "syntax error (line 1 column 10)",
                Reply::Syntax { column: 10 },
            ),
            ("not enough permissions (9)", Reply::NotPermitted),
            (
                "action failed - not enough permissions (9)",
                Reply::NotPermitted,
            ),
            ("no such item", Reply::Error),
            ("failure: already have such item", Reply::Error),
            ("std failure: timeout (13)", Reply::Error),
            ("interrupted", Reply::Error),
        ] {
            assert_eq!(recognize(&format!("\r\n{line}\r\n")), (reply, line));
            let behind_banner = format!("Authorised users only\r\n\r\n{line}\r\n");
            assert_eq!(recognize(&behind_banner), (reply, line));
        }
    }

    #[test]
    fn prompts_and_markup_are_named() {
        for (output, reply) in [
            (
                "Do you want to see the software license? [Y/n]: ",
                Reply::LicencePrompt,
            ),
            (
                "Change your password (Ctrl-C to skip)\r\n\r\nnew password> ",
                Reply::PasswordPrompt,
            ),
            (
                "ROUTER HAS NO SOFTWARE KEY\r\nPlease press \"Enter\" to continue!",
                Reply::DemoPrompt,
            ),
            (
                "<!DOCTYPE html>\n<html><body>401</body></html>\n",
                Reply::Html,
            ),
            ("Authorised users only\n", Reply::Other),
            ("", Reply::Other),
        ] {
            assert_eq!(recognize(output).0, reply, "{output}");
        }
    }

    #[test]
    fn quotes_are_short_escaped_and_free_of_configuration() {
        assert_eq!(quote("no such item"), "\"no such item\"");
        assert_eq!(quote("#interrupted"), "\"#interrupted\"");
        assert_eq!(quote("#error exporting /ip"), "\"#error exporting /ip\"");
        let header = "# 2030-01-02 03:04 by RouterOS 8.0";
        assert_eq!(quote(header), format!("\"{header}\""));
        assert_eq!(quote("\u{1b}[1mhello\u{7}"), "\"\\u{1b}[1mhello\\u{7}\"");
        assert_eq!(quote(&"x".repeat(9000)).chars().count(), QUOTED + 3);
        for line in [
            "add name=a password=example",
            "/ppp secret",
            "# note",
            ":global k",
            "a b=c",
            "#error exporting a=b",
            "# by RouterOS a=b",
        ] {
            assert!(!quote(line).contains(line), "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(output: String) {
            let (_, line) = recognize(&output);
            prop_assert!(quote(line).chars().count() <= 12 * QUOTED);
        }
    }
}
