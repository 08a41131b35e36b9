//! A newcomer's path: the commands of the README, typed as they stand there, on a terminal.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mikrotik_backup::sim::PASSWORD;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::cluster::harness::binary;
use crate::services::process;

const SECTIONS: [&str; 2] = ["\n## See it work\n", "\n## A first router\n"];
const BUILT_BY: &str = "cargo run --release --";
/// Where the README has its router listen.
const ROUTER: &str = "127.0.0.1:2222";

/// The blocks of shell commands in the sections, in their order.
fn blocks() -> Vec<String> {
    let readme = include_str!("../../../README.md");
    let section = |heading: &&str| {
        let (_, section) = readme.split_once(*heading).expect("the section is there");
        section.split("\n## ").next().unwrap_or_default().to_owned()
    };
    let text: String = SECTIONS.iter().map(section).collect();
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// Somebody at a terminal: types, reads, and gives the password where it is asked for.
struct Newcomer {
    child: Child,
    screen: Arc<Mutex<String>>,
    answered: usize,
}

impl Newcomer {
    fn sits_down(folder: &std::path::Path, script: &std::path::Path) -> Self {
        // `script` is not the file here, but the program that makes a terminal.
        let mut command = Command::new("script");
        let bash = format!("bash --noprofile --norc {}", script.display());
        let ours = binary();
        let ours = ours.parent().expect("a directory").display().to_string();
        let mut path = std::ffi::OsString::from(format!("{ours}:"));
        path.push(process::variable("PATH"));
        let mut child = command
            .args([
                "--quiet",
                "--flush",
                "--return",
                "--command",
                &bash,
                "/dev/null",
            ])
            .current_dir(folder)
            .env("PATH", path)
            .env("TMPDIR", folder)
            .env("TERM", "dumb")
            .env_remove("DATA_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start a terminal");
        let screen = Arc::new(Mutex::new(String::new()));
        let mut output = child.stdout.take().expect("a pipe");
        std::thread::spawn({
            let screen = Arc::clone(&screen);
            move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut bytes) {
                    let text = String::from_utf8_lossy(&bytes[..count]).replace('\r', "");
                    screen.lock().expect("the screen").push_str(&text);
                }
            }
        });
        Self {
            child,
            screen,
            answered: 0,
        }
    }

    fn screen(&self) -> String {
        self.screen.lock().expect("the screen").clone()
    }

    /// Works until `done` appears.
    fn works_until(&mut self, done: &str) {
        let give_up = Instant::now() + Duration::from_secs(120);
        loop {
            let screen = self.screen();
            if screen.contains(done) {
                return;
            }
            // `devices add` and ssh ask in words of their own.
            let asked =
                screen.matches("Password of ").count() + screen.matches("'s password:").count();
            if asked > self.answered {
                self.answered += 1;
                let stdin = self.child.stdin.as_mut().expect("a pipe");
                writeln!(stdin, "{PASSWORD}").expect("type the password");
            }
            let ended = self.child.try_wait().expect("look at the terminal");
            assert!(ended.is_none(), "{ended:?} before {done:?}:\n{screen}");
            assert!(Instant::now() < give_up, "no {done:?}:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().try_into().expect("a process id"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[test]
fn a_newcomer_types_the_readme_and_sees_what_it_describes() {
    if ["bash", "ssh", "script"]
        .iter()
        .any(|program| process::require(program).is_none())
    {
        return;
    }
    if TcpStream::connect(ROUTER).is_ok() {
        println!("skipped: something else listens on {ROUTER}, where the README has its router");
        return;
    }
    let blocks = blocks();
    assert!(
        blocks.len() >= 7 && blocks[0].starts_with(BUILT_BY),
        "{blocks:?}"
    );
    let place = tempfile::tempdir().expect("a temporary folder");
    let script = place.path().join("script");
    // Job control, as where somebody types. Behind each block, whether its last command succeeded.
    let mut text = String::from("set -m\n");
    for (number, block) in blocks.iter().enumerate() {
        let block = block.replace(BUILT_BY, "mikrotik-backup");
        text.push_str(&format!("{block}echo \"block {number} ended with $?\"\n"));
        if block.contains(" simulate ") {
            // Whoever types has seen by now that it is there.
            text.push_str(&format!(
                "until (: </dev/tcp/{}) 2>/dev/null; do sleep 0.05; done\n",
                ROUTER.replace(':', "/")
            ));
        }
    }
    std::fs::write(&script, text).expect("write the script");

    let mut newcomer = Newcomer::sits_down(place.path(), &script);
    let last = blocks.len() - 1;
    newcomer.works_until(&format!("block {last} ended with 0"));
    let screen = newcomer.screen();
    let mut rest = screen.as_str();
    let shown: Vec<(&str, &str)> = (0..blocks.len())
        .map(|number| {
            let end = format!("block {number} ended with ");
            let (block, after) = rest.split_once(&end).expect("each block ends");
            let (status, after) = after.split_once('\n').expect("its exit code");
            rest = after;
            (block, status)
        })
        .collect();
    let promised: [(usize, &str, &[&str]); 7] = [
        (0, "0", &["25 of 25 backed up", "host_key_mismatch"]),
        (2, "0", &["added edge-1", "backed up for the first time"]),
        (
            3,
            "0",
            &[
                "edge-1: changed, +3 -1 lines",
                "/system identity, /system note",
                "+set name=core-1",
                "+set note=\"moved to rack 7\"",
            ],
        ),
        (4, "1", &["edge-1: failed: host_key_mismatch"]),
        (
            5,
            "0",
            &[
                "blocked until an operator acts",
                "they differ: `mikrotik-backup host-key accept",
            ],
        ),
        (
            6,
            "0",
            &[
                "edge-1: trusts SHA256:",
                "edge-1: unchanged",
                "nothing has failed",
            ],
        ),
        (7, "0", &[]),
    ];
    for (number, status, wanted) in promised {
        let (block, ended) = shown[number];
        assert_eq!(ended, status, "block {number}:\n{screen}");
        for wanted in wanted {
            assert!(
                block.contains(wanted),
                "no {wanted:?} in block {number}:\n{screen}"
            );
        }
    }
    assert_eq!(
        shown.len(),
        promised.len() + 1,
        "what every block shows is looked at"
    );
    assert!(!screen.contains(PASSWORD), "{screen}");
    let give_up = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(ROUTER).is_ok() {
        assert!(Instant::now() < give_up, "the router is not stopped");
        std::thread::sleep(Duration::from_millis(20));
    }
    let left: Vec<_> = std::fs::read_dir(place.path())
        .expect("list it")
        .flatten()
        .collect();
    assert_eq!(left.len(), 1, "the script alone: {left:?}");
}
