//! Recorded sessions of real routers, where they are there, through the export dialogue.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mikrotik_backup::routeros::{Answer, Dialogue, Verdict, decode, version_in_resource_print};

/// What each command printed. The recordings are YAML of one form: a quoted command, then a block
/// of its output, indented by four blanks and without its last line feed; leading and trailing
/// blanks of a line are written as `\x20`.
fn read(text: &str) -> BTreeMap<String, String> {
    let mut answers: BTreeMap<String, String> = BTreeMap::new();
    let mut command = None;
    for line in text.lines() {
        let begins = line
            .strip_prefix("  \"")
            .and_then(|rest| rest.strip_suffix("\\n\": |-"));
        if let Some(begun) = begins {
            command = Some(begun.to_owned());
        } else if let Some(command) = &command {
            let printed = line.strip_prefix("    ").unwrap_or(line);
            let answer = answers.entry(command.clone()).or_default();
            answer.push_str(&printed.replace("\\x20", " "));
            answer.push_str("\r\n");
        }
    }
    answers
}

#[test]
fn recorded_sessions_are_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/oxidized");
    let Ok(files) = fs::read_dir(&folder) else {
        eprintln!("skipped: no recordings at {}", folder.display());
        return;
    };
    let mut replayed = 0;
    for file in files {
        let file = file.expect("a recording").path();
        let name = file.to_string_lossy().into_owned();
        if !name.ends_with("_simulation.yaml") {
            continue;
        }
        let answers = read(&fs::read_to_string(&file).expect(&name));
        let resource = &answers["/system resource print"];
        let resource = decode(resource.as_bytes());
        let version = version_in_resource_print(&resource);
        let version = version.expect("a version").to_string();

        // Whatever is remembered of the router, the recorded command is the one that counts.
        for remembered in [None, Some(version.as_str()), Some("6.49.10")] {
            let mut dialogue = Dialogue::new(remembered);
            let mut asked = Vec::new();
            let export = loop {
                let command = dialogue.command().as_str();
                asked.push(command);
                assert!(asked.len() <= 2, "{name}: {asked:?}");
                let known = answers.get(command).cloned();
                // Without the word, RouterOS 7 answers the same without its secrets.
                let stdout = known.unwrap_or_else(|| answers["/export show-sensitive"].clone());
                let verdict = dialogue.judge(&Answer {
                    stdout: stdout.as_bytes(),
                    stderr: b"",
                    exit_status: Some(0),
                    closed: true,
                });
                match verdict {
                    Verdict::Whole(export) => break export,
                    Verdict::Ask(_) => {}
                    Verdict::Refused(failure) => panic!("{name}: {failure}"),
                }
            };
            assert_eq!(asked.last(), Some(&"/export show-sensitive"), "{name}");
            assert_eq!(export.header.routeros_version, version, "{name}");
            assert_eq!(export.gap(), None, "{name}");
        }
        replayed += 1;
    }
    assert!(replayed > 0, "no recording in {}", folder.display());
}
