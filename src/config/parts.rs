//! Reads those parts of the configuration for which one line of the table is not enough.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tracing::Level;

use super::problem::Problem;
use super::reader::Reader;
use super::values::{Log, LogFormat, OpenBao};
use super::{Environment, Need, key, settings as table};
use crate::domain::contact::Bound;
use crate::routeros::Normalizer;

pub(super) fn read_openbao(reader: &mut Reader<'_>, strict: bool) -> Option<OpenBao> {
    let address = reader.url(&table::OPENBAO_ADDR);
    if address
        .as_ref()
        .is_some_and(|url| url.expose_secret().contains('@'))
    {
        reader.problem(Problem::of(
            table::OPENBAO_ADDR.name,
            "must not carry a user or password; OPENBAO_TOKEN is the credential",
        ));
    }
    let token = read_token(reader, &table::OPENBAO_TOKEN, strict);
    let (with_address, with_token) = (
        reader.mentions(&table::OPENBAO_ADDR),
        reader.mentions(&table::OPENBAO_TOKEN),
    );
    if with_address && !with_token {
        reader.problem(Problem::of(
            table::OPENBAO_TOKEN.name,
            "is not set, and must be when OPENBAO_ADDR is",
        ));
    }
    if with_token && !with_address {
        reader
            .warnings
            .push("OPENBAO_TOKEN is set without OPENBAO_ADDR and has no effect".to_owned());
    }
    Some(OpenBao {
        address: address?.expose_secret().to_owned(),
        token: token?,
    })
}

pub(super) fn read_normalizer(reader: &mut Reader<'_>) -> Normalizer {
    let read = |list: &str| {
        let form = table::IGNORE_COMMENTS.form;
        Normalizer::ignoring(list).map_err(|error| format!("must be {form}: {error}"))
    };
    let shown = |list: &str| list.lines().collect::<Vec<_>>().join(" ⏎ ");
    let normalizer = reader.text(&table::IGNORE_COMMENTS, read, shown);
    let normalizer = normalizer.unwrap_or_default();
    let name = table::IGNORE_COMMENTS.name;
    let remarks = normalizer.remarks().into_iter();
    let remarks = remarks.map(|remark| format!("{name}: {remark}"));
    reader.warnings.extend(remarks);
    normalizer
}

/// How often a device may be connected to.
pub(super) fn read_bound(
    need: Need,
    interval: Duration,
    connect_timeout: Duration,
    reader: &mut Reader<'_>,
) -> Option<Bound> {
    let limit = &table::CONNECTION_LIMIT;
    let words = [("recipe", true), ("none", false)];
    let limited = reader.or_default(limit, (true, "recipe".to_owned()), |raw| one_of(raw, words));
    let shortest = Bound::new(connect_timeout).shortest_interval();
    if limited && interval < shortest && need == Need::Run {
        reader.warnings.push(format!(
            "{interval} is below {shortest} s, so regular backups alone are more connections than \
             MikroTik's brute-force recipe tolerates, and a router that has it locks this address out \
             for a day. Raise it, or have the routers accept this address before that recipe and say \
             so with {limit}=none",
            interval = table::INTERVAL.name,
            shortest = shortest.as_secs(),
            limit = limit.name,
        ));
    }
    limited.then(|| Bound::for_interval(interval, connect_timeout))
}

pub(super) fn read_token(
    reader: &mut Reader<'_>,
    setting: &table::Text,
    strict: bool,
) -> Option<SecretString> {
    let token = reader.token(setting)?;
    let weakness = key::token_weakness(token.expose_secret());
    reader.judge(setting.name, weakness, strict);
    Some(token)
}

pub(super) fn read_log(need: Need, surroundings: &Environment, reader: &mut Reader<'_>) -> Log {
    // A command whose output is its result says only what is wrong, unless asked for more.
    let default = match need {
        Need::Run | Need::Migrate | Need::Archive => (Level::INFO, "info".to_owned()),
        Need::Act => (Level::ERROR, "error".to_owned()),
        Need::Check | Need::Read | Need::Nats | Need::Nothing => (Level::WARN, "warn".to_owned()),
    };
    let level = reader.or_default(&table::LOG_LEVEL, default, |raw| {
        let levels = [
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ];
        one_of(raw, levels)
    });
    let terminal = surroundings.terminal();
    let default = if terminal {
        (LogFormat::Text, "text".to_owned())
    } else {
        (LogFormat::Json, "json".to_owned())
    };
    let format = reader.or_default(&table::LOG_FORMAT, default, |raw| {
        one_of(raw, [("json", LogFormat::Json), ("text", LogFormat::Text)])
    });
    Log {
        level,
        format,
        color: terminal && !no_color(surroundings),
    }
}

pub(super) fn no_color(surroundings: &Environment) -> bool {
    let value = surroundings.get("NO_COLOR");
    value.is_some_and(|value| !value.is_empty())
}

fn one_of<T: Copy, const N: usize>(raw: &str, words: [(&str, T); N]) -> Option<T> {
    let found = words
        .iter()
        .find(|(word, _)| raw.eq_ignore_ascii_case(word));
    found.map(|(_, value)| *value)
}

pub(super) fn read_replica(surroundings: &Environment, reader: &mut Reader<'_>) -> String {
    let machine = surroundings.hostname().and_then(word);
    let default = machine.unwrap_or_else(|| "mikrotik-backup".to_owned());
    reader.or_default(&table::HOSTNAME, (default.clone(), default), word)
}

pub(super) fn word(raw: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ((1..=64).contains(&raw.len()) && raw.chars().all(allowed)).then(|| raw.to_owned())
}
