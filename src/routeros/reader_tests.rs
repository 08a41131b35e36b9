//! What a line of an export is, case by case, and laws for any text.

use super::*;
use proptest::prelude::*;

fn read(text: &str) -> Vec<(LineKind, String)> {
    lines(text)
        .map(|line| (line.kind, line.logical().into_owned()))
        .collect()
}

#[test]
fn wrapped_lines_are_one_and_a_hash_in_them_is_configuration() {
    use LineKind::*;
    for newline in ["\n", "\r\n", "\r\r\n"] {
        let text = "add log-prefix=\\\n    #SMB protocol=tcp  \n# state\n\nset a=1\n";
        let expected = [
            (Config, "add log-prefix=#SMB protocol=tcp".to_owned()),
            (Comment, "# state".to_owned()),
            (Blank, String::new()),
            (Config, "set a=1".to_owned()),
        ];
        assert_eq!(read(&text.replace('\n', newline)), expected);
    }
    // A hash at column 0 behind a wrap continues, too.
    assert_eq!(read("a=\\\n#b\n"), [(Config, "a=#b".to_owned())]);
}

#[test]
fn a_wrap_inside_quotes_takes_four_blanks_and_no_more() {
    let text = "set source=\"one\\r\\\n    \\n  two\\\\\\\n      three\"\n";
    assert_eq!(
        read(text),
        [(
            LineKind::Config,
            "set source=\"one\\r\\n  two\\\\  three\"".to_owned()
        )]
    );
}

#[test]
fn escapes_are_followed_to_the_end_of_the_line() {
    // An escaped backslash at the end of a quoted string is no continuation.
    let kinds: Vec<_> = lines("a=\"x\\\\\"\n# c\nb=\"\\\"\"\n# d\n")
        .map(|l| l.kind)
        .collect();
    use LineKind::*;
    assert_eq!(kinds, [Config, Comment, Config, Comment]);
}

#[test]
fn the_state_at_the_end_of_the_text_is_told() {
    let last = |text: &'static str| lines(text).last().unwrap();
    assert!(last("a=\"b\n").open_quote);
    assert!(
        last("a=\"b\n# c\n").open_quote,
        "a quoted line may begin with a hash"
    );
    assert!(last("a=b \\\n").dangling);
    assert!(last("a=b \\").dangling);
    assert!(!last("a=b \\\n    c\n").dangling);
    assert!(!last("a=b").terminated);
    assert!(last("a=b\r\n").terminated);
    assert!(!last("a=b\r").terminated);
}

#[test]
fn blanks_go_where_nobody_means_them() {
    let normal = |text: &str| {
        let mut out = Copied::of(text);
        lines(text).for_each(|line| line.write_normalized(&mut out));
        out.finish()
    };
    assert_eq!(normal("a \t\r\n"), "a\n");
    assert_eq!(normal("# software id = \r\n"), "# software id =\n");
    assert_eq!(
        normal("a=\"b  \n c \"  \n"),
        "a=\"b  \n c \"\n",
        "inside quotes they stay"
    );
    assert_eq!(
        normal("a=b\\ \nc\n"),
        "a=b\\ \nc\n",
        "no continuation is made of none"
    );
    assert_eq!(
        normal("a=\\\n\nb\n"),
        "a=\\\n\nb\n",
        "an empty continuation is one"
    );
    assert_eq!(
        normal("a\rb\r\n"),
        "a\rb\n",
        "a carriage return inside is content"
    );
}

#[test]
fn a_line_end_is_one_inside_quotes_too_and_a_lone_carriage_return_is_content() {
    for (text, expected) in [
        ("a=\"b\r\nc\" d=\\\r\n    e\r\n", "a=\"b\nc\" d=\\\n    e\n"),
        ("a=\"b\rc\r\r\nd\"\r\n", "a=\"b\rc\nd\"\n"),
        ("a=\"b\\r\\\r\n    \\nc\"\r\n", "a=\"b\\r\\\n    \\nc\"\n"),
    ] {
        let mut out = Copied::of(text);
        lines(text).for_each(|line| line.write_normalized(&mut out));
        assert_eq!(out.finish(), expected);
        assert_eq!(read(text), read(expected), "the same configuration");
    }
}

#[test]
fn the_rest_of_a_wrapped_comment_is_a_line_of_its_own() {
    let wide =
        "# the address of this interface was given up because another router claims it, or wa";
    let kinds = |text: &str| lines(text).map(|line| line.kind).collect::<Vec<_>>();
    use LineKind::*;
    for rest in [" s \"claimed", "s claimed", " s x \"y\" z=1"] {
        let text = format!("{wide}\n{rest}\r\nset a=\"b\"\n");
        assert_eq!(kinds(&text), [Comment, Rest, Config], "{rest}");
        let apart = format!("{wide}\n\n{rest}\n");
        assert_eq!(kinds(&apart), [Comment, Blank, Config], "{rest}");
        let narrow = format!("{}\n{rest}\n", &wide[..60]);
        assert_eq!(kinds(&narrow), [Comment, Config], "{rest}");
    }
    assert_eq!(kinds(&format!("{wide}\n \\\n  b\n")), [Comment, Config]);
}

proptest! {
    #[test]
    fn lines_cover_the_text_without_gap(text in "[ab#/\"\\\\ \r\n\t]{0,60}") {
        let mut at = 0;
        for line in lines(&text) {
            prop_assert_eq!(line.start, at);
            prop_assert!(line.end > line.start);
            prop_assert!(line.start + line.raw.len() <= line.end);
            at = line.end;
        }
        prop_assert_eq!(at, text.len());
    }
}
