//! The table of settings: name, default, unit, range and meaning of every variable.

use std::fmt;

use crate::domain::session::SshAlgorithms;

/// The unit of a numeric setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Days of 24 hours.
    Days,
    /// Bytes.
    Bytes,
    /// A plain count.
    Count,
}

impl Unit {
    /// What stands behind a number of this unit, with its leading space.
    fn suffix(self) -> &'static str {
        match self {
            Self::Seconds => " s",
            Self::Days => " days",
            Self::Bytes => " bytes",
            Self::Count => "",
        }
    }

    /// What the number is a number of, for error messages.
    fn noun(self) -> &'static str {
        match self {
            Self::Seconds => "a whole number of seconds",
            Self::Days => "a whole number of days",
            Self::Bytes => "a whole number of bytes",
            Self::Count => "a whole number",
        }
    }
}

/// A whole number in a range.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// The variable.
    pub name: &'static str,
    /// What it does, and what raising or lowering it does.
    pub about: &'static str,
    /// The unit.
    pub unit: Unit,
    /// The value when the variable is not set.
    pub default: u64,
    /// The smallest value allowed.
    pub min: u64,
    /// The largest value allowed.
    pub max: u64,
}

impl Number {
    /// Reads decimal digits, and nothing else: no sign, blank, fraction or suffix.
    pub fn parse(&self, text: &str) -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = digits.then(|| text.parse::<u64>().ok()).flatten()?;
        (self.min..=self.max).contains(&value).then_some(value)
    }

    /// What is allowed.
    pub fn allowed(&self) -> String {
        format!("{} from {} to {}", self.unit.noun(), self.min, self.max)
    }

    /// A value with its unit.
    pub fn show(&self, value: u64) -> String {
        format!("{value}{}", self.unit.suffix())
    }
}

/// A yes or no.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The variable.
    pub name: &'static str,
    /// What `true` does.
    pub about: &'static str,
    /// The value when the variable is not set.
    pub default: bool,
}

impl Flag {
    /// What is allowed.
    pub const ALLOWED: &str = "true or false";

    /// Reads `true` or `false` in any case.
    pub fn parse(text: &str) -> Option<bool> {
        if text.eq_ignore_ascii_case("true") {
            Some(true)
        } else if text.eq_ignore_ascii_case("false") {
            Some(false)
        } else {
            None
        }
    }
}

/// A text with a form of its own.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The variable.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its form.
    pub form: Form,
    /// The default, as it is documented.
    pub default: Option<&'static str>,
    /// Whether the value must never be shown; it can then also come from a file.
    pub secret: bool,
}

/// The form of a text, for the help and for error messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A word of letters, digits, `-`, `_` and `.`.
    Word,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// A path of a directory.
    Directory,
    /// IP address and port.
    Socket,
    /// One URL with one of these schemes.
    Url(&'static [&'static str]),
    /// One or more URLs with one of these schemes, separated by commas.
    Urls(&'static [&'static str]),
    /// Base64 of 32 bytes.
    Key,
    /// Visible ASCII characters.
    Token,
    /// Regular expressions, one a line.
    Patterns,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word => f.write_str("a word of up to 64 letters, digits, '-', '_' and '.'"),
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::Directory => f.write_str("the path of a directory"),
            Self::Socket => f.write_str(
                "an IP address and a port, such as 0.0.0.0:9091, 127.0.0.1:9091 or [::]:9091",
            ),
            Self::Url(schemes) => write!(f, "a URL that begins with {}", prefixes(schemes)),
            Self::Urls(schemes) => write!(
                f,
                "a URL, or several separated by commas, each beginning with {}",
                prefixes(schemes)
            ),
            Self::Key => f.write_str(
                "the base64 (standard alphabet, 44 characters) of exactly 32 bytes; \
                 'openssl rand -base64 32' makes one",
            ),
            Self::Token => f.write_str("up to 4096 visible ASCII characters, without blanks"),
            Self::Patterns => f.write_str(
                "regular expressions of comments, one a line, such as '^# radar detected$'; '|' \
                 joins alternatives in one line",
            ),
        }
    }
}

fn prefixes(schemes: &[&str]) -> String {
    let prefixes: Vec<_> = schemes
        .iter()
        .map(|scheme| format!("{scheme}://"))
        .collect();
    prefixes.join(" or ")
}

/// One line of the table, whatever its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// The default as it is documented; `None` when there is none.
    pub default: Option<String>,
    /// What is allowed.
    pub allowed: String,
    /// What it does.
    pub about: &'static str,
    /// Whether its value must never be shown; it can then also come from `<name>_FILE`.
    pub secret: bool,
}

impl From<Number> for Setting {
    fn from(number: Number) -> Self {
        Self {
            name: number.name,
            default: Some(number.show(number.default)),
            allowed: number.allowed(),
            about: number.about,
            secret: false,
        }
    }
}

impl From<Flag> for Setting {
    fn from(flag: Flag) -> Self {
        Self {
            name: flag.name,
            default: Some(flag.default.to_string()),
            allowed: Flag::ALLOWED.to_owned(),
            about: flag.about,
            secret: false,
        }
    }
}

impl From<Text> for Setting {
    fn from(text: Text) -> Self {
        Self {
            name: text.name,
            default: text.default.map(str::to_owned),
            allowed: text.form.to_string(),
            about: text.about,
            secret: text.secret,
        }
    }
}

/// The largest export that is possible at all: one signed 32-bit length.
pub const EXPORT_BYTES_LIMIT: u64 = (1 << 31) - 1;

const YEAR: u64 = 366 * DAY;
const DAY: u64 = 24 * 3600;
const GIB: u64 = 1 << 30;

/// Declares one constant per setting, and the table of all of them in the same order.
macro_rules! settings {
    ($($constant:ident: $type:ident = $name:literal { $($field:ident: $value:expr),* $(,)? } $about:literal;)*) => {
        $(
            #[doc = $about]
            pub const $constant: $type = $type { name: $name, about: $about, $($field: $value),* };
        )*

        /// Every setting, in the order in which the help lists them.
        pub fn settings() -> Vec<Setting> {
            vec![$($constant.into()),*]
        }
    };
}

settings! {
    ENVIRONMENT: Text = "ENVIRONMENT" { form: Form::Word, default: Some("dev"), secret: false }
        "Outside 'dev', keys and tokens that are known to be insecure are refused.";
    DATABASE_URL: Text = "DATABASE_URL" { form: Form::Url(&["postgres", "postgresql"]), default: None, secret: true }
        "The shared PostgreSQL database. Unset: embedded mode, with a database of its own in DATA_DIR.";
    DATA_DIR: Text = "DATA_DIR" { form: Form::Directory, default: Some("./data"), secret: false }
        "Where embedded mode keeps its database, key, archive and control.sock; in a cluster, where a poller holds sealed snapshots while neither NATS nor Redis can be reached (in memory where it cannot be written). archive does not use it.";
    GIT_ARCHIVE_DIR: Text = "GIT_ARCHIVE_DIR" { form: Form::Directory, default: None, secret: false }
        "A git repository that mirrors the archive, one file per device and one commit per change, as PLAIN TEXT WITH EVERY PASSWORD (folder 0700). Unset: none.";
    REDIS_URL: Text = "REDIS_URL" { form: Form::Url(&["redis", "rediss", "unix", "redis+unix"]), default: None, secret: true }
        "Presence, locks and outbox (Redis, Valkey or Dragonfly). Goes together with DATABASE_URL.";
    NATS_URL: Text = "NATS_URL" { form: Form::Urls(&["nats", "tls"]), default: None, secret: true }
        "JetStream, where snapshots are published. Goes together with DATABASE_URL.";
    CREDENTIAL_ENCRYPTION_KEY: Text = "CREDENTIAL_ENCRYPTION_KEY" { form: Form::Key, default: None, secret: true }
        "Opens the credentials of devices and seals outbox and archive. Required with DATABASE_URL by run and archive; embedded mode makes its own.";
    OPENBAO_ADDR: Text = "OPENBAO_ADDR" { form: Form::Url(&["https", "http"]), default: None, secret: false }
        "OpenBao or Vault, whose Transit engine opens credentials. Needs OPENBAO_TOKEN.";
    OPENBAO_TOKEN: Text = "OPENBAO_TOKEN" { form: Form::Token, default: None, secret: true }
        "The token for OPENBAO_ADDR.";
    INTERVAL: Number = "CONFIG_BACKUP_INTERVAL" { unit: Unit::Seconds, default: 21_600, min: 1, max: YEAR }
        "Time between backups of a device, start to start; a fixed phase per device spreads it by at most 5 %. Longer: fewer sessions, older backups.";
    MAX_CONCURRENT: Number = "CONFIG_BACKUP_MAX_CONCURRENT" { unit: Unit::Count, default: 10, min: 1, max: 10_000 }
        "SSH sessions at once in this process. More: a large fleet is done sooner, with more memory and load.";
    COMMAND_TIMEOUT: Number = "CONFIG_BACKUP_COMMAND_TIMEOUT" { unit: Unit::Seconds, default: 60, min: 1, max: 3600 }
        "Time for one whole SSH session, from dial to last byte; also the grace period when the process is told to stop. Raise it for slow routers.";
    JITTER_MIN: Number = "CONFIG_BACKUP_JITTER_MIN" { unit: Unit::Seconds, default: 30, min: 0, max: DAY }
        "A device never tried before waits at least so long.";
    JITTER_MAX: Number = "CONFIG_BACKUP_JITTER_MAX" { unit: Unit::Seconds, default: 300, min: 0, max: DAY }
        "A device never tried before waits at most so long. Longer: a new fleet starts more gently.";
    OFFLINE_RECHECK: Number = "CONFIG_BACKUP_OFFLINE_RECHECK" { unit: Unit::Seconds, default: 300, min: 1, max: DAY }
        "Time (jittered) until an offline or locked device is looked at again.";
    MAX_EXPORT_BYTES: Number = "CONFIG_BACKUP_MAX_EXPORT_BYTES" { unit: Unit::Bytes, default: 134_217_728, min: 1, max: EXPORT_BYTES_LIMIT }
        "A larger export is an error, never a silent cut.";
    IGNORE_COMMENTS: Text = "CONFIG_BACKUP_IGNORE_COMMENTS" { form: Form::Patterns, default: None, secret: false }
        "Comment lines of exports to leave out, with what the router wrapped of them, beside those that are known to tell momentary state; set it alike for every replica, for archive, and for the commands.";
    JOURNAL_DAYS: Number = "CONFIG_BACKUP_JOURNAL_DAYS" { unit: Unit::Days, default: 90, min: 1, max: 36_500 }
        "Attempts older than this are pruned from the journal.";
    IDLE_TIMEOUT: Number = "CONFIG_BACKUP_IDLE_TIMEOUT" { unit: Unit::Seconds, default: 120, min: 10, max: 3600 }
        "A router that prints nothing for so long while a command runs is given up. Busy routers pause for tens of seconds between menus. Matters where CONFIG_BACKUP_COMMAND_TIMEOUT, or a device's own, is longer.";
    SSH_ALGORITHMS: Text = "SSH_ALGORITHMS" { form: Form::OneOf(SshAlgorithms::NAMES), default: Some("compatible"), secret: false }
        "What is offered to routers: compatible also offers what RouterOS without strong-crypto needs, after everything better; modern does not, and signs no login with SHA-1.";
    CONNECTION_TIMEOUT: Number = "CONNECTION_TIMEOUT_SECONDS" { unit: Unit::Seconds, default: 10, min: 1, max: 300 }
        "Time for one TCP connection to a device to come about.";
    CONNECTION_LIMIT: Text = "CONFIG_BACKUP_CONNECTION_LIMIT" { form: Form::OneOf(&["recipe", "none"]), default: Some("recipe"), secret: false }
        "How often a router is connected to at most, over all rows with its address and port (each row by itself where CONFIG_BACKUP_INTERVAL is below what the recipe tolerates): recipe keeps within what MikroTik's own recipe against brute force tolerates, three in a row and then none for an hour, unless CONFIG_BACKUP_INTERVAL alone is more; none is for fleets whose firewalls accept this address before such rules, or have none.";
    DEVICE_REFRESH: Number = "DEVICE_REFRESH_SECONDS" { unit: Unit::Seconds, default: 60, min: 1, max: DAY }
        "How often the running tasks are compared with the database. Notifications usually are faster; this is what they may miss.";
    MIGRATE_ON_START: Flag = "MIGRATE_ON_START" { default: true }
        "Whether run and archive bring the database schema up to date, if it is behind and their role may.";
    NATS_STREAM_MAX_BYTES: Number = "NATS_STREAM_MAX_BYTES" { unit: Unit::Bytes, default: 10 * GIB, min: 1024, max: i64::MAX as u64 }
        "The size limit of a stream that we create; one that exists is never altered.";
    NATS_STREAM_REPLICAS: Number = "NATS_STREAM_REPLICAS" { unit: Unit::Count, default: 1, min: 1, max: 5 }
        "The replicas of a stream that we create.";
    OUTBOX_RETRY_INTERVAL: Number = "OUTBOX_RETRY_INTERVAL" { unit: Unit::Seconds, default: 30, min: 1, max: 3600 }
        "The first pause before a snapshot that could not be published is offered again.";
    OUTBOX_MAX_ATTEMPTS: Number = "OUTBOX_MAX_ATTEMPTS" { unit: Unit::Count, default: 5, min: 1, max: 1000 }
        "So many refusals for its own sake put a snapshot on the dead-letter list; an outage is no refusal.";
    OUTBOX_MAX_BYTES: Number = "OUTBOX_MAX_BYTES" { unit: Unit::Bytes, default: GIB, min: 1024, max: i64::MAX as u64 }
        "A fuller outbox stops new backups rather than lose taken ones.";
    HTTP_ADDR: Text = "HTTP_ADDR" { form: Form::Socket, default: Some("0.0.0.0:9091; embedded: 127.0.0.1:9091"), secret: false }
        "Where /metrics, health and API are served. Port 0 takes a free one.";
    API_TOKEN: Text = "API_TOKEN" { form: Form::Token, default: None, secret: true }
        "Bearer token for everything but /metrics and health. Unset: those routes answer only on a loopback HTTP_ADDR.";
    LOG_LEVEL: Text = "LOG_LEVEL" { form: Form::OneOf(&["error", "warn", "info", "debug", "trace"]), default: Some("info"), secret: false }
        "For our own modules; dependencies never log below info.";
    LOG_FORMAT: Text = "LOG_FORMAT" { form: Form::OneOf(&["json", "text"]), default: Some("json; text on a terminal"), secret: false }
        "The form of the log, which goes to standard error.";
    HOSTNAME: Text = "HOSTNAME" { form: Form::Word, default: Some("the machine's host name"), secret: false }
        "The name of this replica in logs and in the journal; Kubernetes sets it to the pod's name.";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variable with its documented default. Manifests, operators and the platform set them:
    /// a change here breaks somebody.
    const AGREED: &[(&str, Option<&str>)] = &[
        ("ENVIRONMENT", Some("dev")),
        ("DATABASE_URL", None),
        ("DATA_DIR", Some("./data")),
        ("GIT_ARCHIVE_DIR", None),
        ("REDIS_URL", None),
        ("NATS_URL", None),
        ("CREDENTIAL_ENCRYPTION_KEY", None),
        ("OPENBAO_ADDR", None),
        ("OPENBAO_TOKEN", None),
        ("CONFIG_BACKUP_INTERVAL", Some("21600 s")),
        ("CONFIG_BACKUP_MAX_CONCURRENT", Some("10")),
        ("CONFIG_BACKUP_COMMAND_TIMEOUT", Some("60 s")),
        ("CONFIG_BACKUP_JITTER_MIN", Some("30 s")),
        ("CONFIG_BACKUP_JITTER_MAX", Some("300 s")),
        ("CONFIG_BACKUP_OFFLINE_RECHECK", Some("300 s")),
        ("CONFIG_BACKUP_MAX_EXPORT_BYTES", Some("134217728 bytes")),
        ("CONFIG_BACKUP_IGNORE_COMMENTS", None),
        ("CONFIG_BACKUP_JOURNAL_DAYS", Some("90 days")),
        ("CONFIG_BACKUP_IDLE_TIMEOUT", Some("120 s")),
        ("SSH_ALGORITHMS", Some("compatible")),
        ("CONNECTION_TIMEOUT_SECONDS", Some("10 s")),
        ("CONFIG_BACKUP_CONNECTION_LIMIT", Some("recipe")),
        ("DEVICE_REFRESH_SECONDS", Some("60 s")),
        ("MIGRATE_ON_START", Some("true")),
        ("NATS_STREAM_MAX_BYTES", Some("10737418240 bytes")),
        ("NATS_STREAM_REPLICAS", Some("1")),
        ("OUTBOX_RETRY_INTERVAL", Some("30 s")),
        ("OUTBOX_MAX_ATTEMPTS", Some("5")),
        ("OUTBOX_MAX_BYTES", Some("1073741824 bytes")),
        ("HTTP_ADDR", Some("0.0.0.0:9091; embedded: 127.0.0.1:9091")),
        ("API_TOKEN", None),
        ("LOG_LEVEL", Some("info")),
        ("LOG_FORMAT", Some("json; text on a terminal")),
        ("HOSTNAME", Some("the machine's host name")),
    ];

    #[test]
    fn names_and_defaults_are_the_agreed_ones() {
        let ours = settings();
        let ours: Vec<_> = ours
            .iter()
            .map(|setting| (setting.name, setting.default.as_deref()))
            .collect();
        assert_eq!(ours, AGREED);
    }
}
