//! Tests of the masking: by example, and by generated configurations whose secrets are known.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn one(menu: &str, item: &str) -> String {
    let text = redact(&format!("{menu}\n{item}\n"));
    logical(&text).pop().unwrap()
}

#[test]
fn secret_values_are_masked_and_nothing_else() {
    for (menu, item, shown) in [
        (
            "/ppp secret",
            "add name=a password=x profile=b",
            "add name=a password=***** profile=b",
        ),
        (
            "/ppp secret",
            "add name=a password=\"two \\\"w\\\" \\\\\" profile=b",
            "add name=a password=***** profile=b",
        ),
        (
            "/ppp secret",
            "add name=a password=\"\" profile=b",
            "add name=a password=\"\" profile=b",
        ),
        (
            "/ppp secret",
            "add name=a password= profile=b",
            "add name=a password= profile=b",
        ),
        (
            "/interface wifi",
            "set a security.passphrase=x .eap-password=y",
            "set a security.passphrase=***** .eap-password=*****",
        ),
        (
            "/snmp community",
            "set [ find default=yes ] name=x",
            "set [ find default=yes ] name=*****",
        ),
        (
            "/snmp/community",
            "add name=x security=private",
            "add name=***** security=private",
        ),
        (
            "/snmp",
            "set trap-community=x trap-version=2",
            "set trap-community=***** trap-version=2",
        ),
        (
            "/container envs",
            "add key=DB name=a value=x",
            "add key=DB name=a value=*****",
        ),
        (
            "/interface wireguard",
            "add name=a private-key=\"x=\"",
            "add name=a private-key=*****",
        ),
        (
            "/interface wireguard peers",
            "add public-key=\"x=\" preshared-key=\"y=\"",
            "add public-key=\"x=\" preshared-key=*****",
        ),
        (
            "/routing ospf interface",
            "add authentication-key=x",
            "add authentication-key=*****",
        ),
        (
            "/ip ssh",
            "set always-allow-password-login=yes",
            "set always-allow-password-login=yes",
        ),
        ("/system identity", "set name=password", "set name=password"),
        (
            "/ip hotspot user profile",
            "add name=a shared-users=2",
            "add name=a shared-users=2",
        ),
    ] {
        assert_eq!(one(menu, item), shown, "{menu} {item}");
    }
    let terse = "/ppp secret add name=a password=x\n/ip pool add name=b\n";
    assert_eq!(redact(terse), terse.replace("password=x", "password=*****"));
}

#[test]
fn secrets_in_scripts_are_masked() {
    for (script, shown) in [
        (
            r#"/tool fetch user=a password=x; :put 1"#,
            r#"/tool fetch user=a password=*****; :put 1"#,
        ),
        (
            r#"/tool fetch password=\"x y\" url=\$u"#,
            r#"/tool fetch password=\"*****\" url=\$u"#,
        ),
        (r#"a\r\npassword=x\r\nb"#, r#"a\r\npassword=*****\r\nb"#),
        (r#"[set password=x]"#, r#"[set password=*****]"#),
        (r#"set password=\$p"#, r#"set password=\$p"#),
        (
            r#"set password=[:pick \$p 1]"#,
            r#"set password=[:pick \$p 1]"#,
        ),
        (
            r#"set password=(\"x\" . \$p)\r\nb"#,
            r#"set password=*****\r\nb"#,
        ),
        (
            r#"set password=\"x\\\"y\\\\\" z=1"#,
            r#"set password=\"*****\" z=1"#,
        ),
        (
            r#"a=\"set password=\\\"x\\\" z=1\""#,
            r#"a=\"set password=\\\"*****\\\" z=1\""#,
        ),
        (r#"set password=\"x"#, r#"set password=\"*****"#),
        (r#":log info \"password=\""#, r#":log info \"password=\""#),
    ] {
        let item = format!("add name=s source=\"{script}\" owner=a");
        let wanted = format!("add name=s source=\"{shown}\" owner=a");
        assert_eq!(one("/system script", &item), wanted);
    }
}

#[test]
fn wrapped_values_are_masked_whole_and_line_ends_stay() {
    let text = "/ppp secret\r\nadd name=a pass\\\r\n    word=\"first\\\r\n    \\_second\" profile=\\\r\n    b\r\n# c\r\n";
    assert_eq!(
        redact(text),
        "/ppp secret\r\nadd name=a password=***** profile=b\r\n# c\r\n"
    );
    let long = format!(
        "/ppp secret\nadd name={} password=x profile=default\n",
        "n".repeat(50)
    );
    assert_eq!(
        redact(&long),
        format!(
            "/ppp secret\nadd name={} password=***** \\\n    profile=default\n",
            "n".repeat(50)
        )
    );
    let script = "add name=s source=\"a password=x\\r\\\n    \\nb \\\n    c\\r\\\n    \\n\"\n";
    let shown = "add name=s source=\"a password=*****\\r\\\n    \\nb c\\r\\\n    \\n\"\n";
    for menu in ["/system script\n", "/system script "] {
        assert_eq!(redact(&format!("{menu}{script}")), format!("{menu}{shown}"));
    }
    let cut = redact("/ppp secret\nadd name=a password=\"half\n# of it");
    assert_eq!(cut, "/ppp secret\nadd name=a password=*****");
}

#[test]
fn fixtures_lose_their_secrets_and_only_those() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/routeros");
    let mut masked = 0;
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path().join("export.rsc");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let redacted = Redacted::new(&text);
        masked += redacted.secrets.len();
        assert!(
            !redacted.text.contains("example-only"),
            "{}",
            path.display()
        );
        if redacted.secrets.is_empty() {
            assert_eq!(redacted.text, text);
        }
        for secret in &redacted.secrets {
            assert!(redacted.text[secret.at..].starts_with(MASK));
        }
    }
    assert!(masked > 3, "{masked}");
}

#[test]
fn debug_shows_no_secret() {
    let redacted = Redacted::new("/ppp secret\nadd password=x\n");
    assert_eq!(format!("{redacted:?}"), "Redacted(31 bytes, 1 secrets)");
}

/// A value as RouterOS writes it.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric();
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    let escaped = escaped.replace('$', "\\$").replace('\n', "\\r\\n");
    format!("\"{escaped}\"")
}

/// Breaks a line at `width`, anywhere but in an escape.
fn wrapped(line: &str, width: usize) -> String {
    let mut out = String::new();
    let (mut column, mut escaped) = (0, false);
    for character in line.chars() {
        if column >= width && !escaped {
            out.push_str("\\\n    ");
            column = 4;
        }
        escaped = character == '\\' && !escaped;
        out.push(character);
        column += 1;
    }
    out
}

fn logical(text: &str) -> Vec<String> {
    reader::lines(text)
        .map(|line| line.logical().into_owned())
        .collect()
}

/// Items with secrets: menu, text before, property, secret, text behind.
type Made = (usize, String, usize, String, String);

fn made() -> impl Strategy<Value = Vec<Made>> {
    let item = (
        0..4_usize,
        "[a-z ,;\"\\\\$\n]{0,40}",
        0..4_usize,
        "[A-Z0-9 =\"\\\\$;\n]{1,60}",
        "[a-z \"\\\\\n]{0,90}",
    );
    prop::collection::vec(item, 1..6)
}

fn config(items: &[Made], secret: impl Fn(&Made) -> String, width: usize) -> String {
    let menus = [
        "/ppp secret",
        "/radius",
        "/interface wifi security",
        "/system script",
    ];
    let keys = ["password", "secret", "passphrase", "pre-shared-key"];
    let mut text = String::new();
    for item in items {
        let (menu, before, key, _, behind) = item;
        let value = quoted(&secret(item));
        let (before, behind) = (quoted(before), quoted(behind));
        let line = match menu {
            3 => {
                let script = format!("/tool fetch {}={value} ;", keys[*key]);
                let script = script.replace('\\', "\\\\").replace('"', "\\\"");
                format!("add name={before} source=\"{script}\" comment={behind}")
            }
            _ => format!("add comment={before} {}={value} name={behind}", keys[*key]),
        };
        text.push_str(menus[*menu]);
        text.push('\n');
        text.push_str(&wrapped(&line, width));
        text.push('\n');
    }
    text
}

#[test]
fn line_feeds_at_the_end_of_an_open_quote_are_no_reason_to_wrap_in_another_way() {
    let text = "#\\\n    /ppp secret    source=\"    password=/ppp secretsource=\"source=\"x/ppp \
                secreté\n\\\n    ";
    let masked = redact(text);
    assert_ne!(masked, text);
    assert_eq!(redact(&masked), masked);
}

proptest! {
    #[test]
    fn what_is_shown_does_not_depend_on_the_secrets(
        items in made(),
        widths in (20..100_usize, 20..100_usize),
    ) {
        let text = config(&items, |item| item.3.clone(), widths.0);
        let shown = redact(&text);
        prop_assert_eq!(redact(&shown), shown.clone(), "idempotent");
        prop_assert_eq!(logical(&text).len(), logical(&shown).len());
        for (line, masked) in logical(&text).iter().zip(logical(&shown)) {
            prop_assert_eq!(line.starts_with('/'), masked.starts_with('/'));
        }
        for physical in shown.lines() {
            prop_assert!(physical.len() <= WIDTH, "{physical:?}");
        }
        prop_assert!(!shown.contains(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit()));
        // No byte of it does: other secrets of other lengths, other wraps, the same text. A script
        // quotes in another way what has to be quoted, so the other one has to be, too.
        let plain = |value: &str| value.chars().all(|c| c.is_ascii_alphanumeric());
        let other = |item: &Made| if plain(&item.3) { "Q".to_owned() } else { "Q Q\"".repeat(9) };
        prop_assert_eq!(redact(&config(&items, other, widths.1)), shown);
    }

    #[test]
    fn text_without_secrets_stays_as_it_is(text in "(/ip pool\n|add|[ab]=|[xy\"\\\\ ]|\r?\n|#){0,60}") {
        prop_assert_eq!(redact(&text), text);
    }

    #[test]
    fn any_text_is_masked_once_and_keeps_its_lines(
        text in "(/ppp secret|password=|source=\"|[xy\"\\\\ =(;é]|\\\\\n    |\r?\n|#|=|    ){0,60}",
    ) {
        let redacted = Redacted::new(&text);
        prop_assert_eq!(redact(&redacted.text), redacted.text.clone());
        prop_assert_eq!(logical(&text).len(), logical(&redacted.text).len());
        for secret in &redacted.secrets {
            prop_assert!(redacted.text[secret.at..].starts_with(MASK));
        }
    }
}
