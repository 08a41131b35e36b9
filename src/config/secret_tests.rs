//! Tests of secrets: where they may come from, which are refused, and that none is shown.

use std::io::Write as _;

use super::settings::settings;
use super::tests::{KEY, blamed, only, problems, with};
use super::*;

#[test]
fn openbao_needs_its_token() {
    let address = ("OPENBAO_ADDR", "https://bao.example:8200");
    assert_eq!(blamed(Need::Run, &with(&[address])), ["OPENBAO_TOKEN"]);
    let config = Config::load(Need::Run, &with(&[address, ("OPENBAO_TOKEN", "s.abcdef")])).unwrap();
    assert_eq!(config.openbao.unwrap().address, address.1);
    let alone = Config::load(Need::Run, &with(&[("OPENBAO_TOKEN", "s.abcdef")])).unwrap();
    assert!(alone.openbao.is_none());
    assert!(
        alone.warnings[0].contains("OPENBAO_ADDR"),
        "{:?}",
        alone.warnings
    );
}

#[test]
fn keys_that_everybody_knows_are_only_for_dev() {
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let change_me = "postgres://svc:CHANGE_ME@db.example/fleet";
    let weak = [
        ("CREDENTIAL_ENCRYPTION_KEY", zero),
        ("DATABASE_URL", change_me),
        ("API_TOKEN", "CHANGE_ME-please"),
        ("OPENBAO_ADDR", "http://bao.example"),
        ("OPENBAO_TOKEN", "root"),
    ];
    let config = Config::load(Need::Run, &with(&weak)).expect("dev allows them");
    assert_eq!(config.warnings.len(), 4, "{:?}", config.warnings);
    let outside: Vec<_> = weak
        .into_iter()
        .chain([("ENVIRONMENT", "production")])
        .collect();
    assert_eq!(
        blamed(Need::Run, &with(&outside)),
        [
            "CREDENTIAL_ENCRYPTION_KEY",
            "DATABASE_URL",
            "OPENBAO_TOKEN",
            "API_TOKEN"
        ]
    );
    assert!(Config::load(Need::Run, &with(&[("ENVIRONMENT", "production")])).is_ok());
    // It is no base64 at all, which not even dev allows.
    let text = only(&[("CREDENTIAL_ENCRYPTION_KEY", "CHANGE_ME")]);
    assert_eq!(blamed(Need::Run, &text), ["CREDENTIAL_ENCRYPTION_KEY"]);
}

#[test]
fn a_secret_can_come_from_a_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{KEY}").unwrap();
    let path = file.path().to_str().unwrap();
    let config = Config::load(
        Need::Run,
        &only(&[("CREDENTIAL_ENCRYPTION_KEY_FILE", path)]),
    )
    .unwrap();
    let Mode::Embedded { key, .. } = config.mode else {
        panic!("{:?}", config.mode);
    };
    assert_eq!(key.unwrap().expose()[..2], [0xab, 0xcd]);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);

    let both = only(&[
        ("CREDENTIAL_ENCRYPTION_KEY_FILE", path),
        ("CREDENTIAL_ENCRYPTION_KEY", KEY),
    ]);
    let problems = problems(Need::Run, &both);
    assert_eq!(
        problems,
        [
            "CREDENTIAL_ENCRYPTION_KEY and CREDENTIAL_ENCRYPTION_KEY_FILE are both set; unset one of them"
        ]
    );
}

#[test]
fn files_that_cannot_be_a_secret_are_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let long = vec![b'x'; 70_000];
    for (path, reason) in [
        (write("empty", b"\n"), "is empty"),
        (write("binary", b"\xff\xfe"), "is not UTF-8"),
        (write("long", &long), "is longer than 65536 bytes"),
        (
            directory.path().to_str().unwrap().to_owned(),
            "cannot be read",
        ),
        (
            "/nonexistent/secret".to_owned(),
            "cannot be read (No such file",
        ),
    ] {
        let problems = problems(Need::Run, &only(&[("API_TOKEN_FILE", &path)]));
        assert!(problems[0].starts_with("API_TOKEN_FILE="), "{problems:?}");
        assert!(problems[0].contains(reason), "{problems:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_secret_that_everybody_may_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "some-token").unwrap();
    let path = file.path().to_str().unwrap();
    for (mode, warnings) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let config = Config::load(Need::Run, &only(&[("API_TOKEN_FILE", path)])).unwrap();
        assert_eq!(
            config.warnings.len(),
            warnings,
            "{mode:o}: {:?}",
            config.warnings
        );
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let secrets = [
        "pw-database",
        "pw-redis",
        "pw-nats",
        KEY,
        "tok-api",
        "tok-bao",
    ];
    let environment = with(&[
        ("API_TOKEN", "tok-api"),
        ("OPENBAO_TOKEN", "tok-bao"),
        ("OPENBAO_ADDR", "https://bao.example"),
    ]);
    let inspection = Config::inspect(Need::Run, &environment);
    let listing = effective_listing(&inspection.effective);
    let config = format!("{:?}", inspection.config.unwrap());
    for secret in secrets {
        assert!(!listing.contains(secret), "{listing}");
        assert!(!config.contains(secret), "{config}");
    }
    assert!(
        listing.contains("postgres://***@db.example/fleet"),
        "{listing}"
    );
    assert!(
        listing.contains("nats://***@nats.example:4222,tls://other.example"),
        "{listing}"
    );

    // Whatever is wrong with a secret, the message does without it.
    for name in settings().into_iter().filter(|s| s.secret).map(|s| s.name) {
        for wrong in [
            "hunter2 hunter2",
            "hunter2\n",
            "x://u:hunter2@h",
            "nats://u:hunter2@h:p",
        ] {
            let environment = only(&[(name, wrong)]);
            if let Err(error) = Config::load(Need::Migrate, &environment) {
                assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            }
        }
    }
    let user = only(&[("OPENBAO_ADDR", "https://u:hunter2@bao.example")]);
    let error = Config::load(Need::Run, &user).unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    let shown = effective_listing(&Config::inspect(Need::Run, &user).effective);
    assert!(!shown.contains("hunter2"), "{shown}");
}
