//! The few console commands that a simulated router understands, and RouterOS's words for the rest.

use super::text::Version;

/// What one command prints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// This text.
    Text(String),
    /// The export.
    Export {
        /// With secrets.
        secrets: bool,
    },
    /// Nothing, and this is done.
    Edit(Edit),
}

/// What a command changes of its router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Edit {
    /// `/system identity set name=…`
    Identity(String),
    /// `/system note set note=…`
    Note(String),
    /// `/ip ssh regenerate-host-key`
    HostKey,
}

/// What the console knows of its router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) version: &'a Version,
    pub(super) identity: &'a str,
}

/// The replies to a command line, which may have several commands with `;` between them. RouterOS
/// reads the whole line before it runs anything, so one error is all that comes of a wrong one.
pub(super) fn run(line: &str, facts: Facts<'_>) -> Vec<Reply> {
    let commands: Result<Vec<Vec<Reply>>, String> = split(line, |c| c == ';')
        .into_iter()
        .map(|(offset, command)| run_one(offset, command, facts))
        .collect();
    match commands {
        Ok(replies) => replies.concat(),
        Err(error) => vec![Reply::Text(format!("{error}\r\n"))],
    }
}

fn run_one(offset: usize, command: &str, facts: Facts<'_>) -> Result<Vec<Reply>, String> {
    let trimmed = command.trim_start();
    if let Some(argument) = trimmed.strip_prefix(":put ") {
        return Ok(vec![Reply::Text(format!(
            "{}\r\n",
            put(argument.trim(), facts)
        ))]);
    }
    let words: Vec<(usize, &str)> = split(command, |c| c == ' ' || c == '/')
        .into_iter()
        .map(|(at, word)| (offset + at, word))
        .filter(|(_, word)| !word.is_empty())
        .collect();
    let names: Vec<&str> = words.iter().map(|(_, word)| *word).collect();
    let bad = |index: usize| {
        let (at, word) = words[index];
        format!("bad command name {word} (line 1 column {})", at + 1)
    };
    match names.as_slice() {
        [] | ["quit"] | ["system"] | ["system", "resource" | "identity" | "note"] => Ok(Vec::new()),
        ["export", options @ ..] => {
            let hides = facts.version.hides_secrets();
            let mut secrets = !hides;
            for (index, option) in options.iter().enumerate() {
                match *option {
                    "compact" | "terse" | "verbose" => {}
                    "show-sensitive" if hides => secrets = true,
                    "hide-sensitive" if !hides => secrets = false,
                    _ => {
                        let column = words[index + 1].0 + 1;
                        return Err(format!("expected end of command (line 1 column {column})"));
                    }
                }
            }
            Ok(vec![Reply::Export { secrets }])
        }
        ["system", "resource", "print"] => Ok(vec![Reply::Text(resource(facts.version))]),
        ["system", "identity", "print"] => {
            Ok(vec![Reply::Text(format!("  name: {}\r\n", facts.identity))])
        }
        ["system", "identity", "set", _] => set(&words[3], "name", Edit::Identity),
        ["system", "note", "set", _] => set(&words[3], "note", Edit::Note),
        ["ip", "ssh", "regenerate-host-key"] => Ok(vec![Reply::Edit(Edit::HostKey)]),
        ["system", "resource" | "identity" | "note", ..] => Err(bad(2)),
        ["system", ..] => Err(bad(1)),
        _ => Err(bad(0)),
    }
}

/// `property=value`, the value quoted or not.
fn set(
    (at, argument): &(usize, &str),
    property: &str,
    edit: fn(String) -> Edit,
) -> Result<Vec<Reply>, String> {
    match argument.split_once('=') {
        Some((name, value)) if name == property => {
            let value = value.trim_matches('"').to_owned();
            Ok(vec![Reply::Edit(edit(value))])
        }
        _ => Err(format!(
            "expected end of command (line 1 column {})",
            at + 1
        )),
    }
}

fn put(argument: &str, facts: Facts<'_>) -> String {
    match argument {
        "[/system resource get version]" => long_version(facts.version),
        "[/system identity get name]" => facts.identity.to_owned(),
        other => other.trim_matches('"').to_owned(),
    }
}

fn long_version(version: &Version) -> String {
    format!("{} (stable)", version.as_str())
}

fn resource(version: &Version) -> String {
    let rows = [
        ("uptime", "3w4d5h6m7s".to_owned()),
        ("version", long_version(version)),
        ("free-memory", "912.3MiB".to_owned()),
        ("total-memory", "1024.0MiB".to_owned()),
        ("cpu", "ARM64".to_owned()),
        ("cpu-count", "4".to_owned()),
        ("cpu-load", "1%".to_owned()),
        ("architecture-name", "arm64".to_owned()),
        ("platform", "MikroTik".to_owned()),
    ];
    let rows = rows.map(|(name, value)| format!("{name:>25}: {value}\r\n"));
    rows.concat()
}

/// Splits at separators outside double quotes, with the offset of every part.
fn split(text: &str, separator: impl Fn(char) -> bool) -> Vec<(usize, &str)> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        quoted ^= c == '"';
        if !quoted && separator(c) {
            parts.push((start, &text[start..at]));
            start = at + c.len_utf8();
        }
    }
    parts.push((start, &text[start..]));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(version: &str, line: &str) -> Vec<Reply> {
        let version = Version::new(version);
        run(
            line,
            Facts {
                version: &version,
                identity: "edge-1",
            },
        )
    }

    fn text(line: &str) -> Vec<Reply> {
        vec![Reply::Text(format!("{line}\r\n"))]
    }

    #[test]
    fn each_version_has_its_own_word_for_secrets() {
        let export = |secrets| vec![Reply::Export { secrets }];
        let refusal = text("expected end of command (line 1 column 9)");
        assert_eq!(ask("7.16.2", "/export show-sensitive"), export(true));
        assert_eq!(ask("7.16.2", "/export"), export(false));
        assert_eq!(ask("7.16.2", "/export hide-sensitive"), refusal);
        assert_eq!(ask("6.49.18", "/export show-sensitive"), refusal);
        assert_eq!(ask("6.49.18", "/export"), export(true));
        assert_eq!(ask("6.49.18", "/export hide-sensitive"), export(false));
    }

    #[test]
    fn a_wrong_line_runs_nothing_and_says_where() {
        assert_eq!(
            ask("7.16.2", "/exprot"),
            text("bad command name exprot (line 1 column 2)")
        );
        assert_eq!(
            ask("7.16.2", "bash -se"),
            text("bad command name bash (line 1 column 1)")
        );
        assert_eq!(
            ask("7.16.2", "/export; /system reboot"),
            text("bad command name reboot (line 1 column 18)")
        );
    }

    #[test]
    fn several_commands_fit_in_one_line() {
        assert_eq!(
            ask("7.16.2", "/export show-sensitive; :put \"end; of export\""),
            [
                vec![Reply::Export { secrets: true }],
                text("end; of export")
            ]
            .concat()
        );
        assert_eq!(
            ask("6.49.18", ":put [/system resource get version]"),
            text("6.49.18 (stable)")
        );
    }

    #[test]
    fn an_edit_is_made_only_when_the_whole_line_is_right() {
        let edit = |edit| vec![Reply::Edit(edit)];
        assert_eq!(
            ask(
                "7.16.2",
                "/system identity set name=core-2; /system/note/set note=\"rack 7; A/B\""
            ),
            [
                edit(Edit::Identity("core-2".into())),
                edit(Edit::Note("rack 7; A/B".into()))
            ]
            .concat()
        );
        assert_eq!(
            ask("7.16.2", "/ip ssh regenerate-host-key"),
            edit(Edit::HostKey)
        );
        assert_eq!(
            ask(
                "7.16.2",
                "/system identity set name=x; /system note set title=y"
            ),
            text("expected end of command (line 1 column 47)")
        );
        assert_eq!(
            ask("7.16.2", "/ip ssh set strong-crypto=yes"),
            text("bad command name ip (line 1 column 2)")
        );
    }

    #[test]
    fn resources_name_the_version() {
        let [Reply::Text(answer)] = &ask("6.49.18", "/system resource print")[..] else {
            panic!("one text")
        };
        assert!(answer.contains("version: 6.49.18 (stable)\r\n"), "{answer}");
        assert_eq!(ask("7.16", "/system/resource/print").len(), 1);
    }
}
