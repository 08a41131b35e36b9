//! What must hold of any input, one function per fuzz target. `tests/it/fuzz_corpora.rs` includes
//! this file and replays the corpora with it.

use mikrotik_backup::adapters::jetstream::{Flaw, Received, Rejection, SnapshotEvent, Text};
use mikrotik_backup::credentials::Login;
use mikrotik_backup::domain::snapshot::{ConfigText, Snapshot};
use mikrotik_backup::import::{Import, Secrets, from_csv, from_oxidized, router_db_path, to_csv};
use mikrotik_backup::routeros::{
    Answer, Dialogue, Normalizer, Redacted, Remembered, Verdict, commands, decode, diff, encode,
    normalize, normalize_text, suspicion,
};

use serde_json::Value;

#[path = "../../src/routeros/oracle.rs"]
mod oracle;

/// The bytes come back from the text, and reading it ends.
pub fn reader(input: &[u8]) {
    let text = decode(input);
    assert_eq!(encode(&text), input);
    let commands = commands(&text);
    let bytes: usize = commands.iter().map(|command| command.text.len()).sum();
    assert!(bytes <= text.len());
    // Line ends are no configuration: the reader sees none of them outside of quotes.
    if !input.contains(&b'\r') && !input.contains(&b'"') {
        let dos = text.replace('\n', "\r\n");
        assert_eq!(mikrotik_backup::routeros::commands(&dos), commands);
    }
}

/// Any text normalises to a fixed point that has the same commands.
pub fn normalizer(input: &[u8]) {
    let text = decode(input);
    let once = normalize_text(&text);
    assert_eq!(normalize_text(&once), once);
    assert!(once.ends_with('\n'));
    assert_eq!(commands(&once), commands(&text));
    let configuration = oracle::configuration(&text);
    assert_eq!(oracle::configuration(&once), configuration);
    // With every comment ignored that may be, no configuration goes either.
    for pattern in ["^# [^Z]", "^# .*[a-z]$", "^# the address .* removed$"] {
        let ignoring = Normalizer::ignoring(pattern).expect("a good pattern");
        let bare = ignoring.text(&text);
        assert_eq!(ignoring.text(&bare), bare);
        assert_eq!(oracle::configuration(&bare), configuration);
    }
    let masked = Redacted::new(&once);
    assert_eq!(commands(masked.text()).len(), commands(&once).len());
    assert!(diff(&once, &once, 3).is_empty());
}

/// Whatever a router answers, it is judged; what is taken for whole is whole, and its beginnings
/// are not taken for the rest of it. The first two bytes say how the answer ended.
pub fn completeness(input: &[u8]) {
    let Some(([how, at], stdout)) = input.split_first_chunk::<2>().map(|(a, b)| (*a, b)) else {
        return;
    };
    let answer = Answer {
        stdout,
        stderr: if how & 4 == 0 { b"" } else { b"failure: no" },
        exit_status: match how & 3 {
            0 | 1 => Some(0),
            2 => Some(1),
            _ => None,
        },
        closed: how & 8 == 0,
    };
    let mut dialogue = Dialogue::new(None);
    let mut verdict = dialogue.judge(&answer);
    for _ in 0..2 {
        if let Verdict::Ask(_) = verdict {
            verdict = dialogue.judge(&answer);
        }
    }
    match verdict {
        Verdict::Ask(_) => panic!("asks for ever"),
        Verdict::Refused(failure) => {
            assert!(!failure.message.contains(char::is_control));
            assert!(failure.message.len() < 20_000);
        }
        Verdict::Whole(export) => {
            assert!(answer.closed && answer.exit_status == Some(0));
            assert_eq!(encode(&export.text), stdout);
            let normalized = normalize(&export);
            assert_eq!(normalized.text.expose(), normalize_text(&export.text));
            assert_eq!(normalized.hash, normalized.text.digest());
            assert_eq!(suspicion((&normalized).into(), (&normalized).into()), None);
            cut(&stdout[..stdout.len() * usize::from(at) / 256], &normalized);
        }
    }
}

/// A beginning of a whole export is refused, or is a suspect, or has lost nothing.
fn cut(stdout: &[u8], whole: &mikrotik_backup::routeros::Normalized) {
    let answer = Answer {
        stdout,
        stderr: b"",
        exit_status: Some(0),
        closed: true,
    };
    let Verdict::Whole(export) = Dialogue::new(None).judge(&answer) else {
        return;
    };
    assert_eq!(stdout.last(), Some(&b'\n'), "cut inside a line");
    let beginning = normalize(&export);
    let mut menus = std::collections::BTreeSet::new();
    let ordered = whole
        .shape
        .menus
        .iter()
        .all(|menu| menus.insert(&menu.menu));
    let lost = commands(beginning.text.expose()).len() < commands(whole.text.expose()).len();
    let contiguous = contiguous(whole.text.expose());
    let remembered: Remembered<'_> = whole.into();
    if ordered && lost && contiguous {
        assert!(suspicion(remembered, (&beginning).into()).is_some());
    }
}

/// Whether every menu stands in one place, as in an export of RouterOS.
fn contiguous(text: &str) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    let mut last = None;
    commands(text).into_iter().all(|command| {
        let again = last.as_ref() == Some(&command.menu);
        let fine = again || seen.insert(command.menu.clone());
        last = Some(command.menu);
        fine
    })
}

/// A message is a snapshot that the archive can keep, or is set aside for a reason that quotes nothing
/// of it; an event that can be read is written as it was read. Up to the first line feed is the subject,
/// up to the second the id; a subject or id of `=` is the one that belongs to the event.
pub fn event(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == b'\n');
    let mut word = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (subject, id) = (word(), word());
    let payload = parts.next().unwrap_or_default();
    let parsed: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    let text = |field: &str| parsed.as_ref()?.get(field)?.as_str().map(str::to_owned);
    let subject = match subject.as_str() {
        "=" => format!(
            "config.snapshot.create.{}",
            text("device_id").unwrap_or_default()
        ),
        _ => subject,
    };
    // A fuzzer finds no SHA-256.
    let mut payload = payload.to_vec();
    if let (Some(Value::Object(mut fields)), "=") = (parsed.clone(), id.as_str())
        && let Some(config) = text("config_text")
    {
        fields.insert(
            "sha256_hash".to_owned(),
            ConfigText::new(config).digest().to_string().into(),
        );
        payload = Value::Object(fields).to_string().into_bytes();
    }
    let received = Received {
        subject: subject.clone(),
        message_id: (!id.is_empty()).then_some(id),
        payload: payload.clone().into(),
    };
    let read = received.read();
    assert_eq!(
        read,
        received.read(),
        "what is read depends on the message alone"
    );
    match &read {
        Err(rejection) => refused(rejection, parsed.as_ref()),
        Ok(Text::Whole(snapshot)) => {
            assert_eq!(snapshot.text.digest(), snapshot.hash);
            kept(snapshot, &subject);
        }
        Ok(Text::Elsewhere(snapshot, reference)) => {
            assert_eq!(reference.sha256, snapshot.hash);
            assert!(snapshot.text.expose().is_empty());
            kept(snapshot, &subject);
        }
    }
    written(&payload);
}

/// What a database can keep.
fn kept(snapshot: &Snapshot, subject: &str) {
    let device = subject.rsplit('.').next().unwrap_or_default();
    let plain = |text: &str| text.replace('-', "").to_lowercase();
    let named = plain(
        device
            .trim_matches(['{', '}'])
            .trim_start_matches("urn:uuid:"),
    );
    assert_eq!(named, plain(&snapshot.device.to_string()));
    let texts = [&snapshot.routeros_version, &snapshot.normalization_rules];
    let texts = texts.into_iter().chain(&snapshot.incomplete_menus);
    assert!(
        texts
            .chain(snapshot.ledger.keys())
            .all(|text| !text.contains('\0'))
    );
    let machine = &snapshot.machine;
    let machine = [
        &machine.model,
        &machine.serial_number,
        &machine.software_id,
        &machine.system_id,
    ];
    assert!(
        machine
            .into_iter()
            .flatten()
            .all(|text| !text.contains('\0'))
    );
    let _ = mikrotik_backup::domain::archive::Version::of(snapshot);
}

/// Its reason is one line of words, without a text of the message that may be secret.
fn refused(rejection: &Rejection, parsed: Option<&Value>) {
    let reason = &rejection.reason;
    assert!(Flaw::ALL.contains(&rejection.flaw));
    assert!(!reason.is_empty() && reason.len() < 1_000, "{reason}");
    assert!(!reason.contains(char::is_control), "{reason:?}");
    let text = parsed.and_then(|fields| fields.get("config_text")?.as_str());
    if let Some(text) = text.filter(|text| text.len() > 200) {
        assert!(!reason.contains(text));
    }
}

fn written(payload: &[u8]) {
    let Ok(event) = serde_json::from_slice::<SnapshotEvent>(payload) else {
        return;
    };
    // Nothing of a text is shown but its length and its hash. (It may stand in another field as well.)
    if let Some(text) = &event.config_text {
        let other = ConfigText::new("x".repeat(text.expose().len()));
        let digests = [text.digest().to_string(), other.digest().to_string()];
        let shown = |event: &SnapshotEvent| {
            let shown = format!("{event:?}");
            digests
                .iter()
                .fold(shown, |shown, it| shown.replace(it, ""))
        };
        let masked = SnapshotEvent {
            config_text: Some(other.clone()),
            ..event.clone()
        };
        assert_eq!(shown(&event), shown(&masked));
    }
    let written = serde_json::to_vec(&event).expect("what was read can be written");
    let again: SnapshotEvent = serde_json::from_slice(&written).expect("and read again");
    // Fractions of seconds are not written.
    assert_eq!(serde_json::to_vec(&again).expect("as before"), written);
}

/// The `config` up to the first NUL, then the `router.db`.
pub fn router_db(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let config = decode(parts.next().unwrap_or_default());
    let _ = router_db_path(&config);
    fine(&from_oxidized(&config, parts.next().unwrap_or_default()));
}

/// An inventory that is accepted survives being written and read again.
pub fn csv(input: &[u8]) {
    let import = from_csv(input);
    fine(&import);
    if !import.problems.is_empty() {
        return;
    }
    let written = to_csv(&import.devices, Secrets::Include);
    let again = from_csv(written.as_bytes());
    assert!(again.problems.is_empty(), "{:?}", again.problems);
    let of = |import: &Import| -> Vec<_> {
        let devices = import.devices.iter();
        devices
            .map(|it| {
                (
                    it.name.clone(),
                    it.address.clone(),
                    it.port,
                    it.username.clone(),
                    it.tags.clone(),
                    it.host_key.clone(),
                    it.settings,
                )
            })
            .collect()
    };
    assert_eq!(of(&again), of(&import));
}

fn fine(import: &Import) {
    assert!(import.problems.is_empty() || import.devices.is_empty());
    for device in &import.devices {
        assert!(device.port > 0 && !device.name.is_empty() && !device.address.is_empty());
    }
}

/// Credentials that can be used have a user and something to prove it with.
pub fn credentials(input: &[u8]) {
    match Login::from_json(input) {
        Ok(login) => {
            assert!(!login.username.is_empty());
            assert!(login.password.is_some() || login.key_text().is_some());
            let _ = format!("{login:?}");
        }
        Err(error) => assert!(error.to_string().len() < 1000),
    }
}
