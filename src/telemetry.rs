//! The tracing subscriber: our own modules at the chosen level, dependencies never below info.
//!
//! The log goes to standard error, so that a command's result on standard output stays clean.

use std::any::Any;
use std::fmt::{self, Write as _};
use std::io;
use std::panic::PanicHookInfo;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

/// Installs the subscriber and the panic hook for the whole process.
///
/// # Errors
/// When a subscriber is installed already.
pub fn install(log: Log) -> Result<(), TryInitError> {
    subscriber(log, io::stderr).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// The subscriber that [`install`] installs, writing to `writer`.
pub fn subscriber<W>(log: Log, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // A filter of the whole subscriber: one of a layer keeps the answer to a bare question (sqlx
    // asks before each statement whether to log it) for the next event, and swallows that.
    let registry = Registry::default().with(targets(log.level));
    match log.format {
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .fmt_fields(JsonFields::new())
                .event_format(FlatJson)
                .with_writer(writer);
            Box::new(registry.with(layer))
        }
        LogFormat::Text => {
            let layer = tracing_subscriber::fmt::layer()
                .with_ansi(log.color)
                .with_target(false)
                .with_writer(writer);
            Box::new(registry.with(layer))
        }
    }
}

/// What is logged: our own modules at `level`, everything else at info at most, because some
/// dependencies trace what they transport (async-nats prints whole payloads). The client of OpenBao
/// is silent: its spans name ciphertexts, and what it says of errors we say better.
pub fn targets(level: Level) -> Targets {
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target("vaultrs", LevelFilter::OFF)
        .with_target("rustify", LevelFilter::OFF)
        .with_default(LevelFilter::from_level(level).min(LevelFilter::INFO))
}

/// The message of a panic where it is a literal of the program. A formatted one may quote
/// anything, a slice of a configuration for example.
fn panic_message(payload: &dyn Any) -> &'static str {
    let literal = payload.downcast_ref::<&'static str>().copied();
    literal.unwrap_or("(not logged: it may hold data)")
}

/// Logs a panic: where it happened, and what may be told of its message.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        panic.location = panic.location().map(tracing::field::display),
        panic.thread = thread.name(),
        panic.message = panic_message(panic.payload()),
        "A task panicked; this is a fault of the program, please report it"
    );
}

/// One JSON object per line: time, level, message, target, the names of the spans, and the fields
/// of spans and event side by side. The event's own fields win, then those of inner spans.
struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Map::new();
        let mut spans = Vec::new();
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            spans.push(Value::from(span.name()));
            let extensions = span.extensions();
            let Some(formatted) = extensions.get::<FormattedFields<JsonFields>>() else {
                continue;
            };
            if let Ok(Value::Object(of_span)) = serde_json::from_str(&formatted.fields) {
                fields.extend(of_span);
            }
        }
        event.record(&mut Fields(&mut fields));

        let metadata = event.metadata();
        // Events of the `log` crate carry their real target in a field.
        let target = fields
            .get("log.target")
            .and_then(Value::as_str)
            .unwrap_or(metadata.target())
            .to_owned();
        let message = fields.remove("message").unwrap_or_default();
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;

        // The order in which people read; a map would sort by name.
        write!(writer, "{{\"timestamp\":{}", Value::from(timestamp))?;
        let level = metadata.level().as_str().to_ascii_lowercase();
        write!(writer, ",\"level\":{}", Value::from(level))?;
        write!(writer, ",\"message\":{message}")?;
        write!(writer, ",\"target\":{}", Value::from(target))?;
        if !spans.is_empty() {
            write!(writer, ",\"spans\":{}", Value::from(spans))?;
        }
        for (name, value) in fields {
            if !RESERVED.contains(&name.as_str()) && !name.starts_with("log.") {
                write!(writer, ",{}:{value}", Value::from(name))?;
            }
        }
        writeln!(writer, "}}")
    }
}

/// Names of the line itself: a field of the same name is left out, as a key must not come twice.
const RESERVED: &[&str] = &["timestamp", "level", "message", "target", "spans"];

/// Collects the fields of an event.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A Debug that fails leaves what it had written.
        let _ = write!(text, "{value:?}");
        self.insert(field, text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(level: Level, format: LogFormat, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let log = Log {
            level,
            format,
            color: false,
        };
        tracing::subscriber::with_default(subscriber(log, move || writer.clone()), work);
        captured.text()
    }

    fn everybody_speaks() {
        tracing::trace!("ours at trace");
        tracing::debug!("ours at debug");
        tracing::info!("ours at info");
        tracing::warn!("ours at warn");
        tracing::trace!(target: "async_nats::connection", payload = "config-text");
        tracing::debug!(target: "async_nats", payload = "config-text");
        tracing::trace!(target: "russh::client", "config-text");
        tracing::debug!(target: "sqlx::query", "config-text");
        tracing::info!(target: "async_nats", "theirs at info");
        tracing::warn!(target: "async_nats", "theirs at warn");
    }

    #[test]
    fn dependencies_never_log_below_info_whatever_the_level() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let log = logged(Level::TRACE, format, everybody_speaks);
            assert!(log.contains("ours at trace"), "{log}");
            assert!(log.contains("theirs at info"), "{log}");
            assert!(!log.contains("config-text"), "{log}");
        }
    }

    /// Where a dependency asks whether its statements are logged.
    struct Question;

    impl tracing::Callsite for Question {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            static METADATA: tracing::Metadata<'static> = tracing::Metadata::new(
                "log record",
                "sqlx::query",
                Level::DEBUG,
                None,
                None,
                None,
                tracing::field::FieldSet::new(&[], tracing::callsite::Identifier(&Question)),
                tracing::metadata::Kind::EVENT,
            );
            &METADATA
        }
    }

    #[test]
    fn a_question_of_a_dependency_swallows_no_event() {
        use tracing::Callsite as _;
        // As `log::log_enabled!` asks, by which sqlx decides whether to log a statement.
        let log = logged(Level::DEBUG, LogFormat::Json, || {
            let asked = tracing::dispatcher::get_default(|it| it.enabled(Question.metadata()));
            assert!(!asked, "it would log the statement");
            tracing::info!("ours after the question");
        });
        assert!(log.contains("ours after the question"), "{log}");
    }

    #[test]
    fn a_dependency_that_asks_the_log_crate_takes_nothing_with_it() {
        let metadata = || tracing::debug_span!(target: "sqlx::query", "a record").metadata();
        let record = tracing::subscriber::with_default(Registry::default(), metadata);
        let record = record.expect("enabled there");
        // sqlx does so after every statement; the bridge asks like this, past all caches.
        let ask = || tracing::dispatcher::get_default(|ours| ours.enabled(record));
        let log = logged(Level::DEBUG, LogFormat::Json, || {
            ask();
            tracing::warn!("an event after it");
            ask();
            let span = tracing::info_span!("a span after it");
            span.in_scope(|| tracing::info!("within"));
        });
        for wanted in ["an event after it", "a span after it", "within"] {
            assert!(log.contains(wanted), "{wanted}: {log}");
        }
    }

    #[test]
    fn a_higher_level_holds_for_dependencies_too() {
        let log = logged(Level::WARN, LogFormat::Json, everybody_speaks);
        assert!(
            log.contains("ours at warn") && log.contains("theirs at warn"),
            "{log}"
        );
        assert!(!log.contains("at info"), "{log}");
    }

    #[test]
    fn fields_of_spans_and_event_stand_side_by_side() {
        let log = logged(Level::INFO, LogFormat::Json, || {
            let device = tracing::info_span!("worker", device.id = "d-1", size_bytes = 1);
            let _device = device.enter();
            let attempt = tracing::info_span!("attempt", attempt.id = %7, level = "no", late = tracing::field::Empty);
            let _attempt = attempt.enter();
            attempt.record("late", true);
            tracing::info!(
                size_bytes = 42_u64,
                ratio = 0.5,
                "Backed up {}",
                "edge-1 \"x\"\n"
            );
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        let line: Value = serde_json::from_str(&log).expect("one JSON object");
        assert_eq!(line["level"], "info");
        assert_eq!(line["message"], "Backed up edge-1 \"x\"\n");
        assert_eq!(line["target"], "mikrotik_backup::telemetry::tests");
        assert_eq!(line["spans"], serde_json::json!(["worker", "attempt"]));
        assert_eq!(line["device.id"], "d-1");
        assert_eq!(line["attempt.id"], "7");
        assert_eq!(line["late"], true);
        assert_eq!(line["size_bytes"], 42);
        assert_eq!(line["ratio"], 0.5);
        let stamp = line["timestamp"].as_str().unwrap();
        let format = &time::format_description::well_known::Rfc3339;
        assert!(
            time::OffsetDateTime::parse(stamp, format).is_ok(),
            "{stamp}"
        );
        assert_eq!(log.matches("\"level\"").count(), 1, "{log}");
    }

    #[test]
    fn only_literal_panic_messages_are_told() {
        let payload =
            |work: fn(&str)| std::panic::catch_unwind(|| work("secret text")).expect_err("a panic");
        let literal = payload(|_| panic!("the lock is poisoned"));
        assert_eq!(panic_message(&*literal), "the lock is poisoned");
        for formatted in [
            payload(|text| panic!("{text} is unexpected")),
            payload(|text| assert!(text[..text.len() + 1].is_empty())),
        ] {
            assert!(!panic_message(&*formatted).contains("secret"));
        }
    }
}
