//! Tests of the configuration as a whole.

use std::io::Write as _;

use proptest::prelude::*;

use super::settings::{Setting, settings};
use super::*;

/// Base64 of 32 bytes that are neither sequence nor pattern.
const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJE=";

fn cluster() -> Vec<(&'static str, String)> {
    vec![
        (
            "DATABASE_URL",
            "postgres://svc:pw-database@db.example/fleet".into(),
        ),
        ("REDIS_URL", "redis://:pw-redis@redis.example:6379/0".into()),
        (
            "NATS_URL",
            "nats://pw-nats@nats.example:4222,tls://other.example".into(),
        ),
        ("CREDENTIAL_ENCRYPTION_KEY", KEY.into()),
    ]
}

fn with(extra: &[(&'static str, &str)]) -> Environment {
    let extra = extra
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Environment::from_pairs(cluster().into_iter().chain(extra))
}

fn only(pairs: &[(&str, &str)]) -> Environment {
    Environment::from_pairs(pairs.iter().copied())
}

fn problems(need: Need, environment: &Environment) -> Vec<String> {
    let error = Config::load(need, environment).expect_err("a configuration that is wrong");
    error.problems.iter().map(ToString::to_string).collect()
}

/// The names of the variables that are complained about.
fn blamed(need: Need, environment: &Environment) -> Vec<String> {
    let error = Config::load(need, environment).expect_err("a configuration that is wrong");
    error
        .problems
        .into_iter()
        .map(|problem| problem.variable)
        .collect()
}

#[test]
fn an_empty_environment_is_embedded_mode_with_the_documented_defaults() {
    let config = Config::load(Need::Run, &Environment::default()).unwrap();
    let Mode::Embedded { data_dir, key } = &config.mode else {
        panic!("{:?}", config.mode);
    };
    assert_eq!(data_dir, &PathBuf::from("./data"));
    assert!(key.is_none());
    assert_eq!(config.environment, "dev");
    assert_eq!(config.interval, Duration::from_secs(6 * 3600));
    assert_eq!(config.max_concurrent, 10);
    assert_eq!(config.command_timeout, Duration::from_secs(60));
    assert_eq!(config.jitter_min, Duration::from_secs(30));
    assert_eq!(config.jitter_max, Duration::from_secs(300));
    assert_eq!(config.http_addr, "127.0.0.1:9091".parse().unwrap());
    assert_eq!(config.log.level, Level::INFO);
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.migrate_on_start);
    assert!(config.api_token.is_none());
    assert_eq!(config.replica, "mikrotik-backup");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn a_database_makes_a_cluster_that_listens_everywhere() {
    let config = Config::load(Need::Run, &with(&[("HOSTNAME", "pod-7")])).unwrap();
    assert_eq!(config.http_addr, "0.0.0.0:9091".parse().unwrap());
    assert_eq!(config.replica, "pod-7");
    let Mode::Cluster(cluster) = &config.mode else {
        panic!("{:?}", config.mode);
    };
    assert!(cluster.redis_url().is_ok() && cluster.nats_url().is_ok());
    assert_eq!(cluster.key().unwrap().expose()[..2], [0xab, 0xcd]);
}

#[test]
fn every_problem_is_listed_at_once_with_name_value_and_what_is_allowed() {
    let environment = with(&[
        ("CONFIG_BACKUP_INTERVAL", "six hours"),
        ("CONFIG_BACKUP_MAX_CONCURRENT", "0"),
        ("CONFIG_BACKUP_MAX_EXPORT_BYTES", "2147483648"),
        ("MIGRATE_ON_START", "yes"),
        ("HTTP_ADDR", ":9091"),
        ("LOG_LEVEL", "verbose"),
        ("LOG_FORMAT", ""),
    ]);
    assert_eq!(
        problems(Need::Run, &environment),
        [
            "CONFIG_BACKUP_INTERVAL=\"six hours\" must be a whole number of seconds from 1 to 31622400",
            "CONFIG_BACKUP_MAX_CONCURRENT=\"0\" must be a whole number from 1 to 10000",
            "CONFIG_BACKUP_MAX_EXPORT_BYTES=\"2147483648\" must be a whole number of bytes from 1 to 2147483647",
            "MIGRATE_ON_START=\"yes\" must be true or false",
            "HTTP_ADDR=\":9091\" must be an IP address and a port, such as 0.0.0.0:9091, 127.0.0.1:9091 or [::]:9091",
            "LOG_LEVEL=\"verbose\" must be one of error, warn, info, debug, trace",
            "LOG_FORMAT is set but empty; give it a value or unset it",
        ]
    );
    let error = Config::load(Need::Run, &environment)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("invalid configuration, 7 problems:\n  - CONFIG"),
        "{error}"
    );
}

#[test]
fn the_largest_values_allowed_are_accepted() {
    let largest = with(&[("CONFIG_BACKUP_MAX_EXPORT_BYTES", "2147483647")]);
    let config = Config::load(Need::Run, &largest).unwrap();
    assert_eq!(config.max_export_bytes, i32::MAX as usize);
    let none = with(&[
        ("CONFIG_BACKUP_JITTER_MIN", "0"),
        ("CONFIG_BACKUP_JITTER_MAX", "0"),
    ]);
    assert!(Config::load(Need::Run, &none).is_ok());
}

#[test]
fn numbers_are_digits_and_nothing_else() {
    for wrong in [
        "+5",
        "-5",
        " 5",
        "5 ",
        "5.0",
        "5s",
        "0x5",
        "５",
        "99999999999999999999",
    ] {
        let environment = only(&[("CONFIG_BACKUP_INTERVAL", wrong)]);
        assert_eq!(
            blamed(Need::Run, &environment),
            ["CONFIG_BACKUP_INTERVAL"],
            "{wrong:?}"
        );
    }
}

#[test]
fn each_command_requires_what_it_needs_and_no_more() {
    let cases: &[(Need, &[&str])] = &[
        (
            Need::Run,
            &["REDIS_URL", "NATS_URL", "CREDENTIAL_ENCRYPTION_KEY"],
        ),
        (Need::Archive, &["NATS_URL", "CREDENTIAL_ENCRYPTION_KEY"]),
        (Need::Migrate, &[]),
        (Need::Check, &[]),
        (Need::Read, &[]),
        (Need::Nothing, &[]),
    ];
    let database = only(&[("DATABASE_URL", "postgresql:///fleet?host=/run/postgresql")]);
    for (need, missing) in cases {
        if missing.is_empty() {
            assert!(Config::load(*need, &database).is_ok(), "{need:?}");
        } else {
            assert_eq!(blamed(*need, &database), *missing, "{need:?}");
        }
        assert!(Config::load(*need, &with(&[])).is_ok(), "{need:?}");
    }
    let nothing = Environment::default();
    assert_eq!(blamed(Need::Migrate, &nothing), ["DATABASE_URL"]);
    assert_eq!(
        blamed(Need::Archive, &nothing),
        ["DATABASE_URL", "NATS_URL", "CREDENTIAL_ENCRYPTION_KEY"]
    );
    for need in [Need::Run, Need::Check, Need::Read, Need::Nothing] {
        assert!(Config::load(need, &nothing).is_ok(), "{need:?}");
    }
}

#[test]
fn half_a_cluster_is_no_embedded_mode() {
    let environment = only(&[
        ("NATS_URL", "nats://nats.example"),
        ("REDIS_URL", "redis://r.example"),
    ]);
    assert_eq!(blamed(Need::Run, &environment), ["REDIS_URL", "NATS_URL"]);
    // A secret that went missing must not start an empty embedded service.
    assert_eq!(
        blamed(Need::Run, &only(&[("DATABASE_URL", "")]))
            .first()
            .unwrap(),
        "DATABASE_URL"
    );
}

#[test]
fn urls_need_a_scheme_that_we_speak() {
    for (name, wrong) in [
        ("DATABASE_URL", "mysql://db.example/x"),
        ("DATABASE_URL", "sqlite://file"),
        ("DATABASE_URL", "db.example/x"),
        ("DATABASE_URL", "postgres://u:p#w@db.example:x/fleet"),
        ("REDIS_URL", "http://redis.example"),
        ("REDIS_URL", "redis://"),
        ("NATS_URL", "nats://a.example, nats://b.example"),
        ("NATS_URL", "nats://a.example,"),
        ("OPENBAO_ADDR", "bao.example:8200"),
    ] {
        let pairs = cluster().into_iter().filter(|(set, _)| *set != name);
        let environment = Environment::from_pairs(pairs.chain([(name, wrong.to_owned())]));
        let blamed = blamed(Need::Run, &environment);
        assert!(
            blamed.iter().any(|variable| variable == name),
            "{name}={wrong}: {blamed:?}"
        );
    }
}

#[test]
fn jitter_must_be_a_range() {
    let environment = only(&[("CONFIG_BACKUP_JITTER_MIN", "600")]);
    assert_eq!(
        problems(Need::Run, &environment),
        [
            "CONFIG_BACKUP_JITTER_MIN=\"600\" must not be more than CONFIG_BACKUP_JITTER_MAX, which is 300"
        ]
    );
}

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
fn the_log_suits_a_terminal() {
    let log = |environment| Config::load(Need::Run, &environment).unwrap().log;
    let on = log(Environment::default().on_terminal());
    assert_eq!((on.format, on.color), (LogFormat::Text, true));
    let plain = log(only(&[("NO_COLOR", "1")]).on_terminal());
    assert_eq!((plain.format, plain.color), (LogFormat::Text, false));
    let json = log(only(&[("LOG_FORMAT", "json"), ("LOG_LEVEL", "TRACE")]).on_terminal());
    assert_eq!((json.format, json.level), (LogFormat::Json, Level::TRACE));
}

#[test]
fn the_machine_names_the_replica_unless_it_is_named() {
    let replica = |environment| Config::load(Need::Run, &environment).unwrap().replica;
    assert_eq!(
        replica(Environment::default().on_machine("edge-pop-1")),
        "edge-pop-1"
    );
    assert_eq!(
        replica(only(&[("HOSTNAME", "r-2")]).on_machine("edge-pop-1")),
        "r-2"
    );
}

#[cfg(unix)]
#[test]
fn a_value_that_is_no_text_is_a_problem() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = OsString::from_vec(b"gar\xffbage".to_vec());
    for name in ["LOG_LEVEL", "API_TOKEN"] {
        let environment = Environment::from_pairs([(name, bytes.clone())]);
        assert_eq!(blamed(Need::Run, &environment), [name]);
    }
    let name = OsString::from_vec(b"\xff".to_vec());
    let strange = Environment::from_pairs([(name, bytes)]);
    assert!(Config::load(Need::Run, &strange).is_ok());
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

#[test]
fn the_listing_has_every_setting_once() {
    for environment in [
        Environment::default(),
        with(&[("CONFIG_BACKUP_INTERVAL", "x")]),
    ] {
        let effective = Config::inspect(Need::Run, &environment).effective;
        let mut listed: Vec<_> = effective.iter().map(|setting| setting.name).collect();
        let mut known: Vec<_> = settings().iter().map(|setting| setting.name).collect();
        listed.sort_unstable();
        known.sort_unstable();
        if environment.names().next().is_some() {
            listed.dedup();
        }
        assert_eq!(listed, known);
    }
}

#[test]
fn the_help_has_every_setting_and_fits_a_terminal() {
    let help = settings_help();
    for setting in settings() {
        assert!(
            help.contains(&format!("  {} [", setting.name)),
            "{}",
            setting.name
        );
    }
    assert!(
        help.contains("CONFIG_BACKUP_INTERVAL [default 21600 s]"),
        "{help}"
    );
    assert!(help.contains("DATABASE_URL [unset, secret]"), "{help}");
    let widest = help.lines().max_by_key(|line| line.len()).unwrap();
    assert!(widest.len() <= 80, "{widest}");
}

/// The rows of the contract's table: names, and defaults as they are written there.
fn contract() -> Option<Vec<(Vec<String>, String)>> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/reference/contract.md"
    );
    let text = std::fs::read_to_string(path).ok()?;
    let section = text
        .split("## Environment variables")
        .nth(1)?
        .split("\n## ")
        .next()?;
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let names = cells.next().unwrap_or_default().split(',');
        let names = names.map(|name| name.trim().trim_matches('`').to_owned());
        (names.collect(), cells.next().unwrap_or_default().to_owned())
    };
    Some(rows.map(row).collect())
}

/// A default as the contract writes it, as the number that it stands for.
fn plain(default: &str) -> String {
    let text = default.replace('`', "");
    let text = text.trim().trim_end_matches(" s");
    match text
        .strip_suffix(" GiB")
        .and_then(|count| count.parse::<u64>().ok())
    {
        Some(count) => (count << 30).to_string(),
        None => text.to_owned(),
    }
}

#[test]
fn the_table_is_the_contracts() {
    let Some(rows) = contract() else {
        eprintln!("skipped: the contract is not there");
        return;
    };
    let ours = settings();
    let find = |name: &str| -> &Setting {
        let found = ours.iter().find(|setting| setting.name == name);
        found.unwrap_or_else(|| panic!("{name} is missing"))
    };
    let mut names = vec!["HOSTNAME".to_owned()];
    for (of_row, defaults) in rows {
        let parts: Vec<_> = defaults.split(", ").map(plain).collect();
        for (index, name) in of_row.iter().enumerate() {
            let ours = find(name).default.as_deref();
            // One default for a row of several names is the default of each.
            let theirs = if parts.len() == of_row.len() {
                &parts[index]
            } else {
                &parts[0]
            };
            match ours {
                None => assert_eq!(theirs, "unset", "{name}"),
                Some(ours) => {
                    let first = ours.split([' ', ';']).next().unwrap();
                    let theirs = theirs.split([' ', '(']).next().unwrap();
                    assert_eq!(first, theirs, "{name}");
                }
            }
        }
        names.extend(of_row);
    }
    let known: Vec<_> = ours.iter().map(|setting| setting.name).collect();
    for name in &known {
        assert!(
            names.iter().any(|listed| listed == name),
            "{name} is not in the contract"
        );
    }
    assert_eq!(names.len(), known.len());
}

proptest! {
    #[test]
    fn whatever_is_set_loading_ends_with_a_configuration_or_an_error(
        values in proptest::collection::vec((0..settings().len(), "\\PC{0,40}|[0-9]{1,20}|(postgres|redis|nats)://\\PC{0,20}"), 0..12),
        need in 0..6_usize,
    ) {
        let table = settings();
        let need = [Need::Run, Need::Migrate, Need::Archive, Need::Check, Need::Read, Need::Nothing][need];
        let environment = Environment::from_pairs(
            values.iter().map(|(index, value)| (table[*index].name, value.replace('\0', "")))
        );
        let inspection = Config::inspect(need, &environment);
        match inspection.config {
            Ok(config) => {
                prop_assert!(config.jitter_min <= config.jitter_max);
                prop_assert!(config.max_concurrent > 0);
                prop_assert!(!config.interval.is_zero());
            }
            Err(error) => {
                prop_assert!(!error.problems.is_empty());
                for (index, value) in &values {
                    if table[*index].secret && value.len() > 12 {
                        prop_assert!(!error.to_string().contains(value.as_str()));
                    }
                }
            }
        }
    }

    #[test]
    fn every_number_in_range_is_taken_as_it_is(value in 1..=31_622_400_u64) {
        let text = value.to_string();
        let config = Config::load(Need::Run, &only(&[("CONFIG_BACKUP_INTERVAL", &text)])).unwrap();
        prop_assert_eq!(config.interval.as_secs(), value);
    }
}
