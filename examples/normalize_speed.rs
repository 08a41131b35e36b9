//! Prints how fast an export is read and normalised, beside SHA-256 of the same bytes: MB a second.
//!
//! `cargo run --release --example normalize_speed -- [MB]`
//!
//! Each kind is measured as one export of so many MB, and as exports of one MB, one after the other. Of a
//! large one, the memory of the result is new to the process, which costs about as much as hashing, and its
//! own hash is taken on a second thread: on one core, or two busy ones, it counts in full. Exports of
//! one MB are what routers with thousands of entries have. They are normalised on one thread, hash included;
//! what it takes without the hash is what is left when hashing the result is taken off.
//!
//! The last two kinds no router prints: they are made to cost as much as text can, by comments that many rules
//! may know together with the line behind them, and none does. What is configured beside the rules is measured
//! with [`PATTERNS`].

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::routeros::{
    Answer, Dialogue, Export, Normalizer, Verdict, decode, normalize, normalize_text,
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
    let quoted = filled("/interface vlan", &|n, text| {
        let _ = write!(
            text,
            "add comment=\"Customer {n}, see ticket\" interface=bridge1 name=\"vlan {n}\" vlan-id={}\r\n",
            n % 4094 + 1
        );
    });
    let terse = filled("/ip settings\r\nset rp-filter=strict", &|n, text| {
        let octets = octets(n);
        let _ = write!(
            text,
            "/ip firewall address-list add address={octets} list=blocked\r\n"
        );
    });
    let not_ready = filled("/ip firewall nat", &|n, text| {
        let _ = write!(
            text,
            "# pppoe-out{n} not ready\r\nadd action=masquerade chain=srcnat out-interface=pppoe-out{n}\r\n"
        );
    });
    let mut comments = filled("/interface wifi", &|n, text| {
        let _ = write!(
            text,
            "# mode: AP, SSID: Example {n}, channel: 5180/ax/Ceee\r\n"
        );
    });
    comments.push_str("set [ find ] disabled=no\r\n");
    let mut narrow = filled("/interface wifi", &|_, text| {
        text.push_str("# mode: A\r\nx\r\n# not read\r\ny\r\n# the licen\r\ne expires\r\n");
    });
    narrow.push_str("set [ find ] disabled=no\r\n");
    let mut wide = filled("/interface wifi", &|n, text| {
        let _ = write!(
            text,
            "# mode: {n:0>60}, SSID: Example, chan\r\n \"x, not read\"\r\n\
             # radar was seen by the access point {n:0>40} and so it\r\n is now elsewhere\r\n"
        );
    });
    wide.push_str("set [ find ] disabled=no\r\n");
    vec![
        ("address list, short lines", list),
        ("the same, terse", terse),
        ("quoted comments and names", quoted),
        ("firewall rules, wrapped", wrapped),
        ("secrets", secrets),
        ("scripts, wrapped", scripts),
        ("a state comment before every item", not_ready),
        ("two state comments before every item", states),
        ("nothing but state comments", comments),
        ("narrow comments with rests that no rule knows", narrow),
        ("wide comments with rests that no rule knows", wide),
    ]
}

/// What an operator may ignore beside the rules: texts that are whole, a beginning, and one that stands
/// anywhere in a comment.
const PATTERNS: &str = "^# radar was (?:seen|detected) on \\S+$\n^# the address .* was removed$\n\
    ^# firmware \nlicen[cs]e expires in \\d+ days";

/// How often everything is measured. The best time counts: the others measured what else the machine was
/// doing.
const ROUNDS: usize = 7;

/// Makes sure that `made` is made.
fn keep<T>(made: T) {
    black_box(made);
}

/// The best times of `works` in seconds, which are done in turn, so that a machine that is busy for a
/// while is busy for all of them.
fn measure<const N: usize>(mut works: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut best = [f64::MAX; N];
    for _ in 0..ROUNDS {
        for (best, work) in best.iter_mut().zip(&mut works) {
            let start = Instant::now();
            work();
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    best
}

fn judged(stdout: &[u8], normalizer: &Normalizer) -> Export {
    let answer = Answer {
        stdout,
        stderr: b"",
        exit_status: Some(0),
        closed: true,
    };
    match Dialogue::new(None)
        .ignoring(normalizer.clone())
        .judge(&answer)
    {
        Verdict::Whole(export) => export,
        other => panic!("{other:?}"),
    }
}

/// Measures one large export.
fn one(text: &str) {
    let default = Normalizer::default();
    let ignoring = Normalizer::ignoring(PATTERNS).expect("good patterns");
    let export = judged(text.as_bytes(), &default);
    let names = [
        "SHA-256",
        "decode",
        "decode and judge whether it is whole",
        "the same with patterns of an operator",
        "normalise the text alone",
        "the same with patterns of an operator",
        "normalise, hash, count secrets and menus",
    ];
    let best = measure([
        &mut || keep(Digest::of(text)),
        &mut || keep(decode(text.as_bytes())),
        &mut || keep(judged(text.as_bytes(), &default)),
        &mut || keep(judged(text.as_bytes(), &ignoring)),
        &mut || keep(normalize_text(text)),
        &mut || keep(ignoring.text(text)),
        &mut || keep(normalize(&export)),
    ]);
    for (name, best) in names.iter().zip(best) {
        let speed = text.len() as f64 / 1e6 / best;
        println!("  {name:<44} {:>7.0} ms {speed:>7.0} MB/s", best * 1e3);
    }
    let [hash, .., plain, _, all] = best;
    println!(
        "  in times of SHA-256: text alone {:.2}, with everything {:.2} (hash on a second thread)",
        plain / hash,
        all / hash
    );
}

/// Measures a small export, `times` times.
fn repeated(text: &str, times: usize) {
    let export = judged(text.as_bytes(), &Normalizer::default());
    let normal = normalize(&export).text;
    let times = 0..times;
    let [hash, own, plain, all] = measure([
        &mut || times.clone().for_each(|_| keep(Digest::of(text))),
        &mut || times.clone().for_each(|_| keep(normal.digest())),
        &mut || times.clone().for_each(|_| keep(normalize_text(text))),
        &mut || times.clone().for_each(|_| keep(normalize(&export))),
    ]);
    println!(
        "  in exports of one MB: text alone {:.2}, with everything but the hash {:.2}, with everything {:.2}",
        plain / hash,
        (all - own) / hash,
        all / hash
    );
}

fn main() {
    let megabytes = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let megabytes: usize = megabytes.unwrap_or(100);
    for ((what, text), (_, small)) in exports(megabytes * 1_000_000)
        .iter()
        .zip(exports(1_000_000))
    {
        let lines = text.lines().count();
        println!("{what}: {} MB, {lines} lines", text.len() / 1_000_000);
        one(text);
        repeated(&small, megabytes);
    }
}
