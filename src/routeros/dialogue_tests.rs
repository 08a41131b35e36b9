//! The export conversation, answer by answer.

use super::*;

const REJECTION: &[u8] = b"expected end of command (line 1 column 9)\r\n";

fn answer(stdout: &[u8], exit_status: Option<u32>, closed: bool) -> Answer<'_> {
    Answer {
        stdout,
        stderr: b"",
        exit_status,
        closed,
    }
}

fn good(stdout: &[u8]) -> Answer<'_> {
    answer(stdout, Some(0), true)
}

fn export_of(version: &str) -> String {
    format!(
        "# 2026-01-02 03:04:05 by RouterOS {version}\r\n/ppp secret\r\nadd name=a password=example-only\r\n"
    )
}

fn refusal(answer: &Answer) -> Failure {
    match Dialogue::new(None).judge(answer) {
        Verdict::Refused(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_remembered_version_chooses_the_first_command_only() {
    use ExportCommand::{Plain, ShowSensitive};
    for (version, first) in [
        (None, ShowSensitive),
        (Some("6.49.18"), Plain),
        (Some("7.0.3"), Plain),
        (Some("7.1beta6"), ShowSensitive),
        (Some("7.1"), ShowSensitive),
        (Some("garbage"), ShowSensitive),
    ] {
        assert_eq!(Dialogue::new(version).command(), first, "{version:?}");
    }
    assert_eq!(ShowSensitive.as_str(), "/export show-sensitive");
    assert_eq!(Plain.as_str(), "/export");
}

#[test]
fn the_word_is_rejected_by_its_text_whatever_the_exit_status() {
    for text in [
        REJECTION,
        b"bad parameter show-sensitive (line 1 column 9)\n",
        b"syntax error (line 1 column 9)\r\n",
        b"Authorised users only!\r\n\r\nexpected end of command (line 1 column 9)\r\n",
    ] {
        for status in [Some(0), Some(1), Some(255), None] {
            let mut dialogue = Dialogue::new(None);
            let verdict = dialogue.judge(&answer(text, status, true));
            assert_eq!(verdict, Verdict::Ask(ExportCommand::Plain), "{status:?}");
            assert_eq!(dialogue.command(), ExportCommand::Plain);
            let verdict = dialogue.judge(&good(export_of("6.49.18").as_bytes()));
            assert!(matches!(verdict, Verdict::Whole(_)), "{verdict:?}");
        }
    }
}

#[test]
fn a_rejection_of_the_command_itself_is_an_error() {
    for text in [
        "bad command name export (line 1 column 2)",
        "expected command name (line 1 column 1)",
    ] {
        let failure = refusal(&good(text.as_bytes()));
        assert_eq!(failure.kind, FailureKind::NotAnExport);
        assert!(failure.message.contains(text), "{failure}");
    }
    let lost = refusal(&answer(REJECTION, Some(0), false));
    assert_eq!(lost.kind, FailureKind::TruncatedOutput);
}

#[test]
fn a_plain_export_of_an_upgraded_router_is_discarded() {
    let plain = export_of("7.20.1");
    let mut dialogue = Dialogue::new(Some("6.49.18"));
    let verdict = dialogue.judge(&good(plain.as_bytes()));
    assert_eq!(verdict, Verdict::Ask(ExportCommand::ShowSensitive));
    let verdict = dialogue.judge(&good(plain.as_bytes()));
    assert!(
        matches!(verdict, Verdict::Whole(export) if export.header.routeros_version == "7.20.1")
    );
}

#[test]
fn secrets_hidden_for_good_are_refused() {
    let plain = export_of("7.20.1");
    let mut dialogue = Dialogue::new(None);
    dialogue.judge(&good(REJECTION));
    let first = dialogue.judge(&good(plain.as_bytes()));
    let mut dialogue = Dialogue::new(Some("6.49.18"));
    dialogue.judge(&good(plain.as_bytes()));
    let second = dialogue.judge(&good(REJECTION));
    for verdict in [first, second] {
        let Verdict::Refused(failure) = verdict else {
            panic!("{verdict:?}");
        };
        assert!(failure.message.contains("hides every secret"), "{failure}");
    }
}

#[test]
fn a_version_that_tells_nothing_is_asked_for_secrets_and_then_taken_plain() {
    let plain = export_of("7.1beta6");
    let mut dialogue = Dialogue::new(Some("6.48"));
    assert_eq!(
        dialogue.judge(&good(plain.as_bytes())),
        Verdict::Ask(ExportCommand::ShowSensitive)
    );
    assert!(matches!(
        dialogue.judge(&good(REJECTION)),
        Verdict::Whole(_)
    ));
    let mut dialogue = Dialogue::new(None);
    dialogue.judge(&good(REJECTION));
    assert!(matches!(
        dialogue.judge(&good(plain.as_bytes())),
        Verdict::Whole(_)
    ));
}

#[test]
fn an_end_that_is_not_routeros_is_truncated_output() {
    let text = export_of("7.20");
    for (status, closed) in [
        (None, true),
        (Some(1), true),
        (Some(0), false),
        (None, false),
    ] {
        let failure = refusal(&answer(text.as_bytes(), status, closed));
        assert_eq!(
            failure.kind,
            FailureKind::TruncatedOutput,
            "{status:?} {closed}"
        );
        assert!(!failure.message.contains("example-only"));
    }
    let nothing = refusal(&answer(b"", None, false));
    assert_eq!(nothing.kind, FailureKind::ConnectionLost);
}

#[test]
fn what_is_no_export_is_named_in_the_devices_own_words() {
    let long = "noise ".repeat(2_000_000);
    for (output, kind, words) in [
        ("", FailureKind::NotAnExport, "nothing"),
        ("\r\n \r\n", FailureKind::NotAnExport, "nothing"),
        (
            "not enough permissions (9)\r\n",
            FailureKind::PermissionDenied,
            "(9)",
        ),
        (
            "no such item\r\n",
            FailureKind::NotAnExport,
            "\"no such item\"",
        ),
        (
            "Authorised users only\r\n",
            FailureKind::NotAnExport,
            "\"Authorised users only\"",
        ),
        (
            "<html><body>hi</body></html>",
            FailureKind::NotAnExport,
            "web page",
        ),
        (
            "Do you want to see the software license? [Y/n]: ",
            FailureKind::NotAnExport,
            "licence",
        ),
        (
            "Change your password (Ctrl-C to skip)\r\nnew password> ",
            FailureKind::NotAnExport,
            "new password",
        ),
        (
            "# 2026-01-02 03:0",
            FailureKind::TruncatedOutput,
            "before an export header",
        ),
        (&long, FailureKind::NotAnExport, "noise noise"),
        (
            "\u{feff}# 2026-01-02 03:04:05 by RouterOS 7.20\r\n",
            FailureKind::NotAnExport,
            "begin",
        ),
    ] {
        let failure = refusal(&good(output.as_bytes()));
        let shown: String = output.chars().take(40).collect();
        assert_eq!(failure.kind, kind, "{shown}: {failure}");
        assert!(failure.message.contains(words), "{shown}: {failure}");
        assert!(failure.message.chars().count() < 500, "{shown}");
    }
}

#[test]
fn configuration_without_its_header_is_not_quoted() {
    let export = export_of("7.20");
    let body = export.split_once('\n').unwrap().1;
    for output in [body, body.split_once('\n').unwrap().1] {
        let failure = refusal(&good(output.as_bytes()));
        assert_eq!(failure.kind, FailureKind::NotAnExport);
        assert!(!failure.message.contains("secret") && !failure.message.contains("example-only"));
    }
}

#[test]
fn a_menu_that_timed_out_is_told_by_name() {
    let text = export_of("7.12") + "#error exporting \"/ipv6/route\" (timeout)\r\n";
    match Dialogue::new(None).judge(&good(text.as_bytes())) {
        Verdict::Whole(export) => {
            assert_eq!(export.incomplete_menus, ["/ipv6/route"]);
            let gap = export.gap().expect("a menu is missing");
            assert!(gap.ends_with("could not export /ipv6/route"), "{gap}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_on_the_error_channel_are_mentioned() {
    let text = export_of("7.20");
    let mut beside = good(text.as_bytes());
    beside.stderr = b"a warning\r\n";
    match Dialogue::new(None).judge(&beside) {
        Verdict::Whole(export) => assert!(export.remarks[0].contains("\"a warning\"")),
        other => panic!("{other:?}"),
    }
    let mut alone = good(b"");
    alone.stderr = b"no such item\n";
    assert!(refusal(&alone).message.contains("\"no such item\""));
}

#[test]
fn a_comment_at_the_end_that_the_operator_ignores_is_no_cut() {
    let ignoring = Normalizer::ignoring("^# radar detected$").expect("a pattern");
    let judged = |text: &str| {
        let mut dialogue = Dialogue::new(None).ignoring(ignoring.clone());
        dialogue.judge(&good(text.as_bytes()))
    };
    let head = "# 2026-01-02 03:04:05 by RouterOS 7.30\r\n";
    let body = "/interface wifi\r\nset a=b\r\n";
    let comment = "# radar detected \r\n";
    for tail in [
        comment.to_owned(),
        comment.repeat(2),
        format!("{comment}#error exporting /interface bridge calea\r\n\r\n"),
    ] {
        let text = format!("{head}{body}{tail}");
        let Verdict::Whole(export) = judged(&text) else {
            panic!("{tail:?}: {:?}", judged(&text));
        };
        let normalized = ignoring.normalize(&export);
        assert_eq!(normalized.text.expose(), "/interface wifi\nset a=b\n");
        let verdict = Dialogue::new(None).judge(&good(text.as_bytes()));
        assert!(matches!(verdict, Verdict::Refused(_)), "{tail:?}");
    }
    for (text, sign) in [
        (
            format!("{body}{comment}# another\r\n"),
            "state comment of an item",
        ),
        (
            format!("{body}# another\r\n{comment}"),
            "state comment of an item",
        ),
        (
            format!("{body}/ip address\r\n{comment}"),
            "a menu without an item",
        ),
        (format!("{body}{comment}#interrupted\r\n"), "#interrupted"),
        (
            format!("{body}{comment}").trim_end().to_owned(),
            "does not end",
        ),
    ] {
        match judged(&format!("{head}{text}")) {
            Verdict::Refused(failure) => assert!(failure.message.contains(sign), "{failure}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
}
