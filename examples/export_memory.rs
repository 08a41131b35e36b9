//! Prints how much memory one export takes at most, from the router's answer into the archive: first
//! seen, unchanged, and edited in its first and last line. Every case is a process of its own.
//!
//! ```text
//! cargo run --release --example export_memory -- [MB [CASE]]
//! ```

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::adapters::sqlite::SqliteStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::Key;
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::{DeviceId, TenantId};
use mikrotik_backup::domain::snapshot::Snapshot;
use mikrotik_backup::ports::{Archive as _, VersionPage};
use mikrotik_backup::routeros::{self, Answer, Dialogue, Normalizer, Verdict};
use time::OffsetDateTime;
use uuid::Uuid;

const HEADER: &str = "# 2026-01-02 03:04:05 by RouterOS 7.18\n# model = X\n";

/// The kinds of export.
const CASES: [&str; 6] = [
    "address list",
    "renumbered",
    "reversed",
    "menus",
    "wraps",
    "unexported menu",
];

/// An export of about `bytes` bytes, before or after it was `edited`.
fn export(case: &str, bytes: usize, edited: bool) -> anyhow::Result<String> {
    let mut text = String::with_capacity(bytes + 1000);
    text.push_str(HEADER);
    if case == "unexported menu" {
        text.push_str("#error exporting \"/ipv6/route\" (timeout)\n");
    }
    let edit = if edited { "edited" } else { "original" };
    let _ = write!(text, "/ip pool\nadd name={edit}\n");
    match case {
        "menus" => {
            let mut menu = 0;
            while text.len() < bytes {
                let _ = write!(
                    text,
                    "/ip firewall filter{menu}\nset a=b\nset edited={menu}\n"
                );
                menu += 1;
            }
        }
        "wraps" | "unexported menu" => {
            text.push_str("/ip address\nadd comment=");
            while text.len() < bytes {
                text.push_str("\\\n");
            }
            text.push_str("b\n");
        }
        _ => {
            text.push_str("/ip firewall address-list\n");
            let lines = bytes / 50;
            for line in 0..lines {
                let number = match (case, edited) {
                    ("renumbered", true) => line + lines,
                    ("reversed", true) => lines - line,
                    _ => line,
                };
                let _ = writeln!(
                    text,
                    "add address=192.0.2.1 list=blocked comment={number:09}"
                );
            }
        }
    }
    let _ = write!(text, "/system identity\nset name={edit}\n");
    Ok(text)
}

/// The most resident memory of this process since the last call, in MiB.
fn peak() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read the memory used")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    // https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
    std::fs::write("/proc/self/clear_refs", "5").context("begin to measure anew")?;
    Ok(kib.context("the kernel does not tell")? / 1024.0)
}

/// What a backup does with an answer, step by step.
struct Backup {
    archive: SealedArchive,
    collected_at: OffsetDateTime,
}

impl Backup {
    async fn of(&mut self, what: &str, stdout: Vec<u8>) -> anyhow::Result<()> {
        let (start, _) = (Instant::now(), peak()?);
        let verdict = Dialogue::new(None).judge(&Answer {
            stdout: &stdout,
            stderr: b"",
            exit_status: Some(0),
            closed: true,
        });
        drop(stdout);
        let Verdict::Whole(export) = verdict else {
            bail!("{what}: refused");
        };
        let read = peak()?;
        let normalizer = Normalizer::default();
        self.collected_at += time::Duration::hours(1);
        let normalized = normalizer.normalize(&export);
        let _ = routeros::counts_connections(normalized.text.expose());
        let snapshot = Snapshot {
            attempt: AttemptId(Uuid::now_v7()),
            device: DeviceId(Uuid::from_u128(1)),
            tenant: TenantId(Uuid::from_u128(2)),
            machine: export.header.machine,
            routeros_version: export.header.routeros_version,
            collected_at: self.collected_at,
            hash: normalized.hash,
            text: normalized.text,
            normalization_version: routeros::NORMALIZATION_VERSION,
            normalization_rules: normalizer.fingerprint(),
            incomplete_menus: export.incomplete_menus,
            ledger: normalized.ledger,
            shape: normalized.shape,
        };
        drop(export.text);
        let made = peak()?;
        let stored = self.archive.store(&snapshot).await?;
        let kept = peak()?;
        let page = self
            .archive
            .versions(snapshot.device, VersionPage::first(1));
        let lines = page.await?.first().and_then(|version| version.lines);
        println!(
            "    {what:<10} read {read:>6.0} MiB, normalised {made:>6.0}, stored {kept:>6.0}; {:>5.1} s, \
             {:?}, {lines:?}",
            start.elapsed().as_secs_f64(),
            stored.arrived,
        );
        Ok(())
    }
}

async fn measure(case: &str, bytes: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path(), None, Clock::System).await?;
    let pool = store.writer().context("a store for writing")?.clone();
    let renormalize = Normalizer::default().renormalize();
    let mut backup = Backup {
        archive: SealedArchive::sqlite(pool, Key::from_bytes([7; 32]), renormalize),
        collected_at: Clock::System.now(),
    };
    for (what, edited) in [("first", false), ("unchanged", false), ("edited", true)] {
        let stdout = export(case, bytes, edited)?.into_bytes();
        backup.of(what, stdout).await?;
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let megabytes: usize = args.next().map_or(Ok(120), |text| text.parse())?;
    let bytes = megabytes * 1_000_000;
    if let Some(case) = args.next() {
        println!("{case}, {megabytes} MB");
        let runtime = tokio::runtime::Runtime::new()?;
        return runtime.block_on(measure(&case, bytes));
    }
    for case in CASES {
        let mut child = Command::new(std::env::current_exe()?);
        let status = child.args([&megabytes.to_string(), case]).status()?;
        anyhow::ensure!(status.success(), "{case}: {status}");
    }
    Ok(())
}
