//! Prints how fast an export is read and normalised, beside SHA-256 of the same bytes: MB a second.
//!
//! `cargo run --release --example normalize_speed -- [MB]`
//!
//! With everything, the hash is taken on a second thread: on one core, or two busy ones, it counts in full.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::routeros::{
    Answer, Dialogue, Export, Verdict, decode, normalize, normalize_text,
};

/// A head of every form, and an end of one short menu.
const HEAD: &str = "# 2026-01-02 03:04:05 by RouterOS 7.20\r\n# software id = ABCD-EF12\r\n#\r\n";

/// Exports of about `bytes`, as they differ in what costs time.
fn exports(bytes: usize) -> Vec<(&'static str, String)> {
    let filled = |menu: &str, entry: &dyn Fn(usize, &mut String)| {
        let mut text = format!("{HEAD}{menu}\r\n");
        let mut number = 0;
        while text.len() < bytes {
            entry(number, &mut text);
            number += 1;
        }
        text
    };
    let octets = |n: usize| format!("198.{}.{}.{}", 18 + (n >> 16) % 2, (n >> 8) & 255, n & 255);
    let list = filled("/ip firewall address-list", &|n, text| {
        let _ = write!(text, "add address={} list=blocked\r\n", octets(n));
    });
    let wrapped = filled("/ip firewall filter", &|n, text| {
        let _ = write!(
            text,
            "add action=accept chain=forward comment=\"ticket {n:07}, see there\" dst-address=\\\r\n    \
             {} dst-port=443 in-interface-list=LAN log=yes log-prefix=\\\r\n    #web protocol=tcp\r\n",
            octets(n)
        );
    });
    let states = filled("/interface wireless", &|n, text| {
        let _ = write!(
            text,
            "# managed by CAPsMAN\r\n# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: Example {n}, CAPsMAN \
             forwarding\r\nset [ find default-name=wlan{n} ] disabled=no ssid=MikroTik\r\n"
        );
    });
    let secrets = filled("/ppp secret", &|n, text| {
        let _ = write!(
            text,
            "add name=customer{n} password=example-only-{n} profile=home service=pppoe\r\n"
        );
    });
    let scripts = filled("/system script", &|n, text| {
        let _ = write!(
            text,
            "add dont-require-permissions=no name=job{n} owner=admin source=\""
        );
        for line in 0..20 {
            let _ = write!(
                text,
                ":log info \\\"line {line}\\\"\\r\\\r\n    \\n# a comment of it\\r\\\r\n    \\n"
            );
        }
        text.push_str("\"\r\n");
    });
    vec![
        ("address list, short lines", list),
        ("firewall rules, wrapped", wrapped),
        ("state comments before every item", states),
        ("secrets", secrets),
        ("scripts, wrapped", scripts),
    ]
}

fn measure<T>(what: &str, bytes: usize, mut work: impl FnMut() -> T) -> f64 {
    // The best of three: the others measured what else the machine was doing.
    let mut best = f64::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        drop(black_box(work()));
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!(
        "  {what:<44} {:>7.0} ms {:>7.0} MB/s",
        best * 1e3,
        bytes as f64 / 1e6 / best
    );
    best
}

fn judged(stdout: &[u8]) -> Export {
    let answer = Answer {
        stdout,
        stderr: b"",
        exit_status: Some(0),
        closed: true,
    };
    match Dialogue::new(None).judge(&answer) {
        Verdict::Whole(export) => export,
        other => panic!("{other:?}"),
    }
}

fn main() {
    let megabytes = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let megabytes: usize = megabytes.unwrap_or(100);
    for (what, text) in exports(megabytes * 1_000_000) {
        let bytes = text.len();
        println!(
            "{what}: {} MB, {} lines",
            bytes / 1_000_000,
            text.lines().count()
        );
        let hash = measure("SHA-256", bytes, || Digest::of(text.as_bytes()));
        measure("decode", bytes, || decode(text.as_bytes()));
        measure("decode and judge whether it is whole", bytes, || {
            judged(text.as_bytes())
        });
        let plain = measure("normalise the text alone", bytes, || normalize_text(&text));
        let export = judged(text.as_bytes());
        let all = measure("normalise, hash, count secrets and menus", bytes, || {
            normalize(&export)
        });
        println!(
            "  in times of SHA-256: text alone {:.1}, with everything {:.1}",
            plain / hash,
            all / hash
        );
    }
}
