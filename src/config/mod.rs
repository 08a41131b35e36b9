//! Every setting: type, default, unit, check. The one reader of the environment and of files.
//!
//! A variable that is set must be right, whichever subcommand runs; what must be set depends on
//! the subcommand ([`Need`]). A variable that is set to nothing counts as wrong, not as unset.

mod environment;
mod help;
mod key;
mod near_miss;
mod parts;
mod problem;
mod reader;
pub mod settings;
mod urls;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub use environment::Environment;
pub use help::{effective_listing, settings_help};
pub use problem::{ConfigError, Problem};
pub use reader::{Effective, Source};
pub use values::{Cluster, Log, LogFormat, Mode, OpenBao, OutboxLimits, StreamLimits};

use crate::domain::contact::Bound;
use crate::domain::session::SshAlgorithms;
use crate::routeros::Normalizer;

use parts::{
    no_color, read_bound, read_log, read_normalizer, read_openbao, read_replica, read_token, word,
};
use reader::Reader;
use settings as table;

/// Which kind of command asks for its configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// `run`: a whole cluster (database, Redis, NATS, key), or nothing of it.
    Run,
    /// `migrate`: the PostgreSQL database.
    Migrate,
    /// `archive`: database, NATS and key.
    Archive,
    /// `check`: whatever is there; a database, if one is named, to look devices up.
    Check,
    /// Commands that read: a database, or the folder of embedded mode.
    Read,
    /// Commands that act on the folder of embedded mode, or ask the service that runs on it. They
    /// tell what came of it themselves.
    Act,
    /// `events`: NATS.
    Nats,
    /// Commands that need nothing but a log: `healthcheck`, `simulate`, `demo`.
    Nothing,
}

/// The whole configuration. Each field is documented, with range and default, in
/// [`settings::settings`].
#[derive(Clone, Debug)]
pub struct Config {
    /// `ENVIRONMENT`.
    pub environment: String,
    /// Cluster or embedded.
    pub mode: Mode,
    /// `DATA_DIR`, whatever the mode.
    pub data_dir: PathBuf,
    /// `NATS_URL`; always there with [`Need::Nats`].
    pub nats_url: Option<SecretString>,
    /// `GIT_ARCHIVE_DIR`.
    pub git_archive_dir: Option<PathBuf>,
    /// `OPENBAO_ADDR` and `OPENBAO_TOKEN`.
    pub openbao: Option<OpenBao>,
    /// `CONFIG_BACKUP_INTERVAL`.
    pub interval: Duration,
    /// `CONFIG_BACKUP_MAX_CONCURRENT`.
    pub max_concurrent: usize,
    /// `CONFIG_BACKUP_COMMAND_TIMEOUT`.
    pub command_timeout: Duration,
    /// `CONFIG_BACKUP_JITTER_MIN`; never more than `jitter_max`.
    pub jitter_min: Duration,
    /// `CONFIG_BACKUP_JITTER_MAX`.
    pub jitter_max: Duration,
    /// `CONFIG_BACKUP_OFFLINE_RECHECK`.
    pub offline_recheck: Duration,
    /// `CONFIG_BACKUP_MAX_EXPORT_BYTES`.
    pub max_export_bytes: usize,
    /// The normalisation with `CONFIG_BACKUP_IGNORE_COMMENTS`.
    pub normalizer: Normalizer,
    /// `CONFIG_BACKUP_JOURNAL_DAYS`.
    pub journal_days: u64,
    /// `CONFIG_BACKUP_IDLE_TIMEOUT`.
    pub idle_timeout: Duration,
    /// `SSH_ALGORITHMS`.
    pub ssh_algorithms: SshAlgorithms,
    /// `CONNECTION_TIMEOUT_SECONDS`.
    pub connect_timeout: Duration,
    /// `CONFIG_BACKUP_CONNECTION_LIMIT`.
    pub connections: Option<Bound>,
    /// `DEVICE_REFRESH_SECONDS`.
    pub refresh: Duration,
    /// `MIGRATE_ON_START`.
    pub migrate_on_start: bool,
    /// `NATS_STREAM_…`.
    pub stream: StreamLimits,
    /// `OUTBOX_…`.
    pub outbox: OutboxLimits,
    /// `HTTP_ADDR`.
    pub http_addr: SocketAddr,
    /// `API_TOKEN`.
    pub api_token: Option<SecretString>,
    /// `LOG_LEVEL`, `LOG_FORMAT`.
    pub log: Log,
    /// `NO_COLOR`: what goes to a terminal is not coloured (<https://no-color.org>).
    pub no_color: bool,
    /// The name of this replica: `HOSTNAME`, else the machine's name. Processes that share a
    /// machine and a database should each be given a `HOSTNAME` of their own.
    pub replica: String,
    /// What works but is doubtful, to be logged once logging works.
    pub warnings: Vec<String>,
}

/// What was found, whether or not it can be used.
pub struct Inspection {
    /// Every setting as it is in effect, secrets masked.
    pub effective: Vec<Effective>,
    /// What works but is doubtful.
    pub warnings: Vec<String>,
    /// The configuration, or everything that is wrong with it.
    pub config: Result<Config, ConfigError>,
}

impl Config {
    /// What is right, and may surprise: for whoever asks, not for the log.
    pub fn notes(&self) -> Vec<String> {
        let (idle, whole) = (self.idle_timeout, self.command_timeout);
        let never = (idle >= whole).then(|| {
            format!(
                "{idle_name} ({idle} s) is not below {whole_name} ({whole} s), which ends every \
                 session first: it matters only at devices whose own timeout is longer",
                idle_name = table::IDLE_TIMEOUT.name,
                idle = idle.as_secs(),
                whole_name = table::COMMAND_TIMEOUT.name,
                whole = whole.as_secs(),
            )
        });
        never.into_iter().collect()
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`] lists all problems at once.
    pub fn load(need: Need, environment: &Environment) -> Result<Self, ConfigError> {
        Self::inspect(need, environment).config
    }

    /// Like [`Config::load`], with everything that was found on the way.
    pub fn inspect(need: Need, environment: &Environment) -> Inspection {
        let mut reader = Reader::new(environment);
        let mut config = read(need, environment, &mut reader);
        reader.warnings.extend(near_miss::warnings(environment));
        config.warnings = reader.warnings.clone();
        let problems = reader.problems;
        Inspection {
            effective: reader.effective,
            warnings: reader.warnings,
            config: if problems.is_empty() {
                Ok(config)
            } else {
                Err(ConfigError { problems })
            },
        }
    }
}

/// Reads the table from top to bottom. What could not be read is a problem in `reader` and has its
/// default here; the caller throws the result away then.
fn read(need: Need, surroundings: &Environment, reader: &mut Reader<'_>) -> Config {
    let environment = reader.or_default(&table::ENVIRONMENT, ("dev".into(), "dev".into()), word);
    let strict = environment != "dev";

    let clustered = reader.mentions(&table::DATABASE_URL);
    let database_url = reader.url(&table::DATABASE_URL);
    let data_dir = reader.directory(&table::DATA_DIR);
    let git_archive_dir = reader.optional_directory(&table::GIT_ARCHIVE_DIR);
    let redis_url = reader.url(&table::REDIS_URL);
    let nats_url = reader.url(&table::NATS_URL);
    let key = reader.key(&table::CREDENTIAL_ENCRYPTION_KEY, strict);
    for (setting, url) in [
        (&table::DATABASE_URL, &database_url),
        (&table::REDIS_URL, &redis_url),
        (&table::NATS_URL, &nats_url),
    ] {
        reader.refuse_placeholder_password(setting, url.as_ref(), strict);
    }
    require(need, clustered, reader);
    warn_of_idle(need, clustered, surroundings, reader);

    let openbao = read_openbao(reader, strict);
    let interval = reader.seconds(&table::INTERVAL);
    let max_concurrent = reader.size(&table::MAX_CONCURRENT);
    let command_timeout = reader.seconds(&table::COMMAND_TIMEOUT);
    let jitter_min = reader.seconds(&table::JITTER_MIN);
    let jitter_max = reader.seconds(&table::JITTER_MAX);
    if jitter_min > jitter_max {
        reader.problem(
            Problem::of(
                table::JITTER_MIN.name,
                format!(
                    "must not be more than {}, which is {}",
                    table::JITTER_MAX.name,
                    jitter_max.as_secs()
                ),
            )
            .with_value(jitter_min.as_secs().to_string()),
        );
    }

    let connect_timeout = reader.seconds(&table::CONNECTION_TIMEOUT);
    let connections = read_bound(need, interval, connect_timeout, reader);

    let any = if clustered {
        [0, 0, 0, 0]
    } else {
        [127, 0, 0, 1]
    };
    let nats = nats_url.clone();
    let mode = match database_url {
        Some(database_url) => Mode::Cluster(Cluster {
            database_url,
            redis_url,
            nats_url,
            key,
        }),
        None => Mode::Embedded {
            data_dir: data_dir.clone(),
            key,
        },
    };
    Config {
        environment,
        mode,
        data_dir,
        nats_url: nats,
        git_archive_dir,
        openbao,
        interval,
        max_concurrent,
        command_timeout,
        jitter_min,
        jitter_max,
        offline_recheck: reader.seconds(&table::OFFLINE_RECHECK),
        max_export_bytes: reader.size(&table::MAX_EXPORT_BYTES),
        normalizer: read_normalizer(reader),
        journal_days: reader.number(&table::JOURNAL_DAYS),
        idle_timeout: reader.seconds(&table::IDLE_TIMEOUT),
        ssh_algorithms: reader.or_default(
            &table::SSH_ALGORITHMS,
            (
                SshAlgorithms::default(),
                SshAlgorithms::default().as_str().to_owned(),
            ),
            SshAlgorithms::from_name,
        ),
        connect_timeout,
        connections,
        refresh: reader.seconds(&table::DEVICE_REFRESH),
        migrate_on_start: reader.flag(&table::MIGRATE_ON_START),
        stream: StreamLimits {
            max_bytes: reader.number(&table::NATS_STREAM_MAX_BYTES),
            replicas: reader.number(&table::NATS_STREAM_REPLICAS),
        },
        outbox: OutboxLimits {
            retry_interval: reader.seconds(&table::OUTBOX_RETRY_INTERVAL),
            max_attempts: reader.number(&table::OUTBOX_MAX_ATTEMPTS),
            max_bytes: reader.number(&table::OUTBOX_MAX_BYTES),
        },
        http_addr: reader.socket(&table::HTTP_ADDR, SocketAddr::from((any, 9091))),
        api_token: read_token(reader, &table::API_TOKEN, strict),
        log: read_log(need, surroundings, reader),
        no_color: no_color(surroundings),
        replica: read_replica(surroundings, reader),
        warnings: Vec::new(),
    }
}

/// Notes what must be set for `need` and is not, and what must not be.
fn require(need: Need, clustered: bool, reader: &mut Reader<'_>) {
    let needed: &[&table::Text] = match need {
        Need::Run if clustered => &[
            &table::REDIS_URL,
            &table::NATS_URL,
            &table::CREDENTIAL_ENCRYPTION_KEY,
        ],
        Need::Migrate => &[&table::DATABASE_URL],
        Need::Archive => &[
            &table::DATABASE_URL,
            &table::NATS_URL,
            &table::CREDENTIAL_ENCRYPTION_KEY,
        ],
        Need::Nats => &[&table::NATS_URL],
        Need::Run | Need::Check | Need::Read | Need::Act | Need::Nothing => &[],
    };
    let why = match need {
        Need::Run => "must be set when DATABASE_URL is",
        _ => "must be set for this command",
    };
    for setting in needed {
        if !reader.mentions(setting) {
            let problem = Problem::of(
                setting.name,
                format!("is not set, and {why}: {}", setting.form),
            );
            reader.problem(problem);
        }
    }
    if need == Need::Run && !clustered {
        for setting in [&table::REDIS_URL, &table::NATS_URL] {
            if reader.mentions(setting) {
                reader.problem(Problem::of(
                    setting.name,
                    "is set without DATABASE_URL; set DATABASE_URL as well for a cluster, or unset \
                     both REDIS_URL and NATS_URL for embedded mode",
                ));
            }
        }
    }
}

/// Warns of what is set and has no effect: in embedded mode, or on the archive, which keeps everything
/// elsewhere. For a poller in a cluster everything has one.
fn warn_of_idle(need: Need, clustered: bool, surroundings: &Environment, reader: &mut Reader<'_>) {
    let data_dir = table::DATA_DIR.name;
    if need == Need::Archive && surroundings.get(data_dir).is_some() {
        reader.warnings.push(format!(
            "{data_dir} is set and has no effect on archive, which keeps everything in the database of \
             DATABASE_URL, and in GIT_ARCHIVE_DIR if that is set"
        ));
    }
    if need != Need::Run || clustered {
        return;
    }
    for name in [
        table::MIGRATE_ON_START.name,
        table::NATS_STREAM_MAX_BYTES.name,
        table::NATS_STREAM_REPLICAS.name,
        table::OUTBOX_RETRY_INTERVAL.name,
        table::OUTBOX_MAX_ATTEMPTS.name,
        table::OUTBOX_MAX_BYTES.name,
    ] {
        if surroundings.get(name).is_some() {
            reader.warnings.push(format!(
                "{name} is set and has no effect without DATABASE_URL"
            ));
        }
    }
}

#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod tests;
