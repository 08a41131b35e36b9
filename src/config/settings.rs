//! The table of settings: name, default, unit, range and meaning of every variable.

use std::fmt;

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
        "Where embedded mode keeps its database, key, archive and control.sock.";
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
    JOURNAL_DAYS: Number = "CONFIG_BACKUP_JOURNAL_DAYS" { unit: Unit::Days, default: 90, min: 1, max: 36_500 }
        "Attempts older than this are pruned from the journal.";
    CONNECTION_TIMEOUT: Number = "CONNECTION_TIMEOUT_SECONDS" { unit: Unit::Seconds, default: 10, min: 1, max: 300 }
        "Time for one TCP connection to a device to come about.";
    DEVICE_REFRESH: Number = "DEVICE_REFRESH_SECONDS" { unit: Unit::Seconds, default: 60, min: 1, max: DAY }
        "How often the running tasks are compared with the database. Notifications usually are faster; this is what they may miss.";
    MIGRATE_ON_START: Flag = "MIGRATE_ON_START" { default: true }
        "Whether run brings the database schema up to date, if it is behind and its role may.";
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
}
