//! Prints what a commit to the git mirror costs, and how large the repository gets, among 10, 1,000
//! and 10,000 devices: it should be about the same.
//!
//! `cargo run --release --example git_mirror_scale -- [DEVICES…]`
//!
//! One folder has all devices, each with 10 KB of its own. The first commits make them; then 200 of
//! them change, one after the other.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use mikrotik_backup::adapters::git::{Change, FilePath, GitMirror};
use mikrotik_backup::domain::device::DeviceId;
use time::OffsetDateTime;
use uuid::Uuid;

const CHANGES: u32 = 200;

fn configuration(device: u32, version: u32) -> String {
    let mut text = format!("/system identity\nset name=edge-{device}-{version}\n/ip route\n");
    for n in 0..220 {
        let _ = writeln!(
            text,
            "add dst-address=198.51.{n}.0/24 gateway=192.0.2.{}",
            device % 256
        );
    }
    text
}

fn commit(mirror: &GitMirror, device: u32, version: u32) -> anyhow::Result<Duration> {
    let id = DeviceId(Uuid::from_u128(u128::from(device) + 1));
    let text = configuration(device, version);
    let path = FilePath::new("default", &format!("edge-{device}"), id);
    let began = Instant::now();
    mirror.commit(Change {
        device: id,
        path: &path,
        text: &text,
        message: "1 line added, 1 removed in /system identity",
        at: OffsetDateTime::UNIX_EPOCH + time::Duration::hours(i64::from(version)),
    })?;
    Ok(began.elapsed())
}

/// Bytes that the files below `place` take, in whole blocks as a file system gives them.
fn size(place: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    for entry in std::fs::read_dir(place)? {
        let entry = entry?;
        total += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.blocks() * 512,
        };
    }
    Ok(total)
}

fn main() -> anyhow::Result<()> {
    let asked: Result<Vec<u32>, _> = std::env::args().skip(1).map(|text| text.parse()).collect();
    let mut sizes = asked?;
    if sizes.is_empty() {
        sizes = vec![10, 1_000, 10_000];
    }
    println!("devices   first commits      a change: median   slowest    it adds");
    for devices in sizes {
        let place = tempfile::tempdir()?;
        let mirror = GitMirror::new(place.path().join("mirror"), "example");
        mirror.prepare()?;
        let began = Instant::now();
        for device in 0..devices {
            commit(&mirror, device, 0)?;
        }
        let first = began.elapsed();
        let before = size(mirror.folder())?;
        let mut times = Vec::new();
        for change in 0..CHANGES {
            times.push(commit(&mirror, change * 7919 % devices, change + 1)?);
        }
        times.sort_unstable();
        let added = (size(mirror.folder())? - before) / u64::from(CHANGES) / 1024;
        println!(
            "{devices:>7}   {:>9.1} s        {:>9.1} ms   {:>6.1} ms   {added:>4} KiB",
            first.as_secs_f64(),
            times[times.len() / 2].as_secs_f64() * 1e3,
            times[times.len() - 1].as_secs_f64() * 1e3,
        );
    }
    Ok(())
}
