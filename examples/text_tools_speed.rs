//! Prints how fast configurations are compared, masked and searched: MB of one text a second.
//!
//! `cargo run --release --example text_tools_speed -- [MB]`

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use mikrotik_backup::domain::archive::Lines;
use mikrotik_backup::routeros::{Matcher, Redacted, diff, redact};

/// A configuration of about `megabytes`: wrapped entries, most of whose physical lines are alike.
fn configuration(megabytes: usize, ticket: impl Fn(usize) -> usize) -> String {
    let mut text = String::from("/ip firewall address-list\n");
    let mut entry = 0;
    while text.len() < megabytes * 1_000_000 * 9 / 10 {
        let (a, b, c) = (18 + (entry >> 16) % 2, (entry >> 8) & 255, entry & 255);
        let list = ["blocked", "allowed"][(entry * 7 / 3) % 2];
        let _ = write!(
            text,
            "add address=198.{a}.{b}.{c} comment=\"ticket {:07}, see there\" list=\\\n    {list}\n",
            ticket(entry)
        );
        entry += 1;
    }
    text.push_str("/ppp secret\n");
    while text.len() < megabytes * 1_000_000 {
        let _ = writeln!(
            text,
            "add name=customer{entry} password=example-only-{entry} service=pppoe"
        );
        entry += 1;
    }
    text
}

fn measure<T>(what: &str, bytes: usize, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = black_box(work());
    let took = start.elapsed();
    let speed = bytes as f64 / 1e6 / took.as_secs_f64();
    println!(
        "{what:<58} {:>8.0} ms {speed:>8.0} MB/s",
        took.as_secs_f64() * 1e3
    );
    made
}

fn main() {
    let megabytes = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let old = configuration(megabytes.unwrap_or(100), |entry| entry);
    let size = old.len();
    println!("{} lines, {} MB", old.lines().count(), size / 1_000_000);

    let edited = old
        .replacen("ticket 0000777", "ticket 9999999", 1)
        .replacen("service=pppoe", "service=any", 1000);
    let renumbered = configuration(size / 1_000_000, |entry| entry + 5_000_000);
    let shifted = configuration(size / 1_000_000, |entry| entry + 1000);
    let mut lines: Vec<&str> = old.lines().collect();
    lines.sort_unstable_by_key(|line| {
        line.len() * 31 % 7 + line.bytes().map(usize::from).sum::<usize>() % 1009
    });
    let shuffled = lines.join("\n");
    let rest = "    blocked\n    allowed\n    blocked\n".repeat(size / 36);
    let other = "    allowed\n    blocked\n    allowed\n    allowed\n".repeat(size / 48);
    for (what, old, new) in [
        ("diff, equal", &old, &old),
        ("diff, some lines edited", &old, &edited),
        ("diff, every entry's first line another", &old, &renumbered),
        (
            "diff, every entry's comment moved to another",
            &old,
            &shifted,
        ),
        ("diff, lines in another order", &old, &shuffled),
        ("diff, two kinds of lines throughout", &rest, &other),
    ] {
        let made = measure(what, size, || diff(old, new, 3));
        println!("    {}", made.summary());
        measure("    its lines counted", size, || Lines::between(old, new));
    }
    measure("redact", size, || redact(&old));
    let masked = (Redacted::new(&old), Redacted::new(&edited));
    measure("diff of redacted texts", size, || {
        diff(&masked.0, &masked.1, 3)
    });
    let matcher = Matcher::new("customer.*7 service").expect("a constant pattern");
    let hits = measure("search", size, || matcher.search(&old).count());
    println!("    {hits} lines found");
}
