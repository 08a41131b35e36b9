//! Tests of the configuration as a whole.

use std::path::PathBuf;

use proptest::prelude::*;
use tracing::Level;

use super::settings::settings;
use super::*;

/// Base64 of 32 bytes that are neither sequence nor pattern.
pub(super) const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJE=";

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

pub(super) fn with(extra: &[(&'static str, &str)]) -> Environment {
    let extra = extra
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Environment::from_pairs(cluster().into_iter().chain(extra))
}

pub(super) fn only(pairs: &[(&str, &str)]) -> Environment {
    Environment::from_pairs(pairs.iter().copied())
}

pub(super) fn problems(need: Need, environment: &Environment) -> Vec<String> {
    let error = Config::load(need, environment).expect_err("a configuration that is wrong");
    error.problems.iter().map(ToString::to_string).collect()
}

/// The names of the variables that are complained about.
pub(super) fn blamed(need: Need, environment: &Environment) -> Vec<String> {
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
fn an_interval_that_is_too_short_for_the_recipe_is_kept_and_warned_of() {
    let load = |pairs: &[(&str, &str)]| Config::load(Need::Run, &only(pairs)).unwrap();
    let recipe = Bound::new(Duration::from_secs(10));
    let usual = load(&[("CONFIG_BACKUP_INTERVAL", "385")]);
    assert_eq!(usual.connections, Some(recipe));
    assert!(usual.warnings.is_empty(), "{:?}", usual.warnings);

    let short = load(&[("CONFIG_BACKUP_INTERVAL", "384")]);
    assert_eq!(short.interval, Duration::from_secs(384));
    let bound = short.connections.expect("what comes on top is bounded");
    assert!(!bound.spans_rows());
    let [warning] = short.warnings.as_slice() else {
        panic!("{:?}", short.warnings);
    };
    for part in ["CONFIG_BACKUP_INTERVAL", "385 s", "for a day", "=none"] {
        assert!(warning.contains(part), "{part} is not in {warning}");
    }
    let accepted = load(&[
        ("CONFIG_BACKUP_INTERVAL", "60"),
        ("CONFIG_BACKUP_CONNECTION_LIMIT", "none"),
    ]);
    assert_eq!(accepted.connections, None);
    assert!(accepted.warnings.is_empty(), "{:?}", accepted.warnings);
}

#[test]
fn a_silence_that_the_whole_session_cannot_outlast_is_noted() {
    let notes = |pairs: &[(&str, &str)]| Config::load(Need::Run, &only(pairs)).unwrap().notes();
    for pairs in [
        [].as_slice(),
        &[("CONFIG_BACKUP_COMMAND_TIMEOUT", "120")],
        &[("CONFIG_BACKUP_IDLE_TIMEOUT", "60")],
    ] {
        let notes = notes(pairs);
        assert_eq!(notes.len(), 1, "{pairs:?}: {notes:?}");
        assert!(notes[0].contains("CONFIG_BACKUP_IDLE_TIMEOUT"), "{notes:?}");
    }
    assert!(notes(&[("CONFIG_BACKUP_COMMAND_TIMEOUT", "121")]).is_empty());
    assert!(notes(&[("CONFIG_BACKUP_IDLE_TIMEOUT", "59")]).is_empty());
}

#[test]
fn patterns_of_comments_are_checked_at_the_start() {
    let name = "CONFIG_BACKUP_IGNORE_COMMENTS";
    let config = Config::load(Need::Run, &with(&[(name, "^# a$\n^# b, c$")])).unwrap();
    assert_eq!(
        config.normalizer.text("/ip\n# a\n# b, c\nset x\n"),
        "/ip\nset x\n"
    );
    let wrong = problems(Need::Run, &with(&[(name, "^# a$\n^# (b")]));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(
        wrong[0].starts_with("CONFIG_BACKUP_IGNORE_COMMENTS="),
        "{wrong:?}"
    );
    let config = Config::load(Need::Run, &with(&[(name, "^# a$\n^/ip")])).unwrap();
    let told: Vec<_> = config
        .warnings
        .iter()
        .filter(|it| it.contains(name))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("\"^/ip\" can match no comment"),
        "{told:?}"
    );
    for part in ["one a line", "pattern 2 (\"^# (b\")", "unclosed group"] {
        assert!(wrong[0].contains(part), "{part} is not in {wrong:?}");
    }
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
    for need in [Need::Run, Need::Check, Need::Read, Need::Act, Need::Nothing] {
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
fn what_has_no_effect_in_a_mode_is_warned_of() {
    let warnings = |environment| Config::load(Need::Run, &environment).unwrap().warnings;
    let outbox = ("OUTBOX_MAX_BYTES", "4096");
    assert_eq!(
        warnings(only(&[outbox, ("MIGRATE_ON_START", "false")])),
        [
            "MIGRATE_ON_START is set and has no effect without DATABASE_URL",
            "OUTBOX_MAX_BYTES is set and has no effect without DATABASE_URL",
        ]
    );
    assert_eq!(warnings(with(&[outbox])), [""; 0]);
    assert_eq!(warnings(with(&[("DATA_DIR", "/srv/fleet")])), [""; 0]);

    let archive = |environment| Config::load(Need::Archive, &environment).unwrap();
    assert_eq!(archive(with(&[])).warnings, [""; 0]);
    let warnings = archive(with(&[("DATA_DIR", "/srv/fleet")])).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("DATA_DIR is set"), "{warnings:?}");
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
