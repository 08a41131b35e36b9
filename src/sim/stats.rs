//! What simulated routers count, so that tests can hold a client to its promises.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::Timestamp;

/// The login attempts that a router remembers.
const REMEMBERED_LOGINS: usize = 64;

/// How a client tried to log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoginMethod {
    /// `none`, with which clients ask for the list of methods.
    None,
    /// `password`.
    Password,
    /// A signature with a private key, which was verified.
    PublicKey,
    /// An answer to a keyboard-interactive prompt.
    KeyboardInteractive,
}

/// One login attempt, without what was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginAttempt {
    /// Address and source port of the client: tells clients apart.
    pub client: SocketAddr,
    /// The login name.
    pub user: String,
    /// How.
    pub method: LoginMethod,
    /// Whether it was let in.
    pub accepted: bool,
}

/// An export that a router sent whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// When its last byte was handed over.
    pub at: Timestamp,
    /// Address and source port of the client.
    pub client: SocketAddr,
    /// What was sent, with its CRLFs.
    pub text: String,
}

/// The counts of one router or of a whole fleet at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// TCP connections open now.
    pub open_connections: usize,
    /// The most TCP connections that were open at once.
    pub max_open_connections: usize,
    /// TCP connections accepted since the start.
    pub connections: u64,
    /// Connections over which a client sent something between the first and the last byte that
    /// came over another one to the same router: two clients talked to it at once. One that is
    /// open and silent does not count, whatever the kernel keeps of it.
    pub overlapping: u64,
    /// Connections that are logged in now.
    pub open_sessions: u64,
    /// Passwords received, by either method that carries one, right or wrong.
    pub password_attempts: u64,
    /// Login attempts of any method except `none`.
    pub login_attempts: u64,
    /// Exports begun.
    pub exports_begun: u64,
    /// Exports that were sent whole, from the header to CLOSE.
    pub exports_whole: u64,
    /// Bytes of channel data sent.
    pub bytes: u64,
}

/// Counts upwards for one router, and for the fleet that it belongs to.
#[derive(Debug, Default)]
pub(super) struct Counters {
    open: Gauge,
    talks: Mutex<Talks>,
    connections: AtomicU64,
    overlapping: AtomicU64,
    sessions: AtomicU64,
    password_attempts: AtomicU64,
    login_attempts: AtomicU64,
    exports_begun: AtomicU64,
    exports_whole: AtomicU64,
    bytes: AtomicU64,
    logins: Mutex<VecDeque<LoginAttempt>>,
    served: Mutex<Vec<Served>>,
}

/// A TCP connection: our end and the client's.
pub(super) type Ends = (SocketAddr, SocketAddr);

impl Counters {
    pub(super) fn opened(&self, ends: Ends) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        self.open.enter(ends);
    }

    pub(super) fn closed(&self, ends: Ends) {
        self.open.leave(ends);
        lock(&self.talks).over(ends);
    }

    /// Takes in that the client sent something, and tells whether this makes the connection one
    /// that overlaps with another.
    pub(super) fn heard(&self, ends: Ends) -> bool {
        lock(&self.talks).heard(ends)
    }

    pub(super) fn overlapped(&self) {
        self.overlapping.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn served(&self, served: Served) {
        lock(&self.served).push(served);
    }

    pub(super) fn all_served(&self) -> Vec<Served> {
        lock(&self.served).clone()
    }

    pub(super) fn session_began(&self) {
        self.sessions.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn session_ended(&self) {
        self.sessions.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn login(&self, attempt: LoginAttempt) {
        match attempt.method {
            LoginMethod::None => {}
            LoginMethod::Password | LoginMethod::KeyboardInteractive => {
                self.password_attempts.fetch_add(1, Ordering::SeqCst);
                self.login_attempts.fetch_add(1, Ordering::SeqCst);
            }
            LoginMethod::PublicKey => {
                self.login_attempts.fetch_add(1, Ordering::SeqCst);
            }
        }
        let mut logins = lock(&self.logins);
        if logins.len() == REMEMBERED_LOGINS {
            logins.pop_front();
        }
        logins.push_back(attempt);
    }

    pub(super) fn export_begun(&self) {
        self.exports_begun.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn export_whole(&self) {
        self.exports_whole.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn logins(&self) -> Vec<LoginAttempt> {
        lock(&self.logins).iter().cloned().collect()
    }

    pub(super) fn clients(&self) -> Vec<SocketAddr> {
        lock(&self.open.ends).iter().map(|ends| ends.1).collect()
    }

    pub(super) fn snapshot(&self) -> Stats {
        Stats {
            open_connections: lock(&self.open.ends).len(),
            max_open_connections: self.open.peak.load(Ordering::SeqCst),
            connections: self.connections.load(Ordering::SeqCst),
            overlapping: self.overlapping.load(Ordering::SeqCst),
            open_sessions: self.sessions.load(Ordering::SeqCst),
            password_attempts: self.password_attempts.load(Ordering::SeqCst),
            login_attempts: self.login_attempts.load(Ordering::SeqCst),
            exports_begun: self.exports_begun.load(Ordering::SeqCst),
            exports_whole: self.exports_whole.load(Ordering::SeqCst),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Who talks to one router: for each connection the place of its first and its last byte in the
/// order in which bytes were read from all of them.
#[derive(Debug, Default)]
struct Talks {
    reads: u64,
    open: HashMap<Ends, Talk>,
    /// The last byte of any connection that is over.
    over: u64,
}

#[derive(Clone, Copy, Debug)]
struct Talk {
    first: u64,
    last: u64,
    overlaps: bool,
}

impl Talks {
    fn heard(&mut self, ends: Ends) -> bool {
        self.reads += 1;
        let now = self.reads;
        let talk = self.open.entry(ends).or_insert(Talk {
            first: now,
            last: now,
            overlaps: false,
        });
        talk.last = now;
        if talk.overlaps {
            return false;
        }
        let first = talk.first;
        // Ours goes from `first` to now: any other that ended after `first` lies within it.
        let mut others = self.open.iter().filter(|(other, _)| **other != ends);
        let overlaps = self.over > first || others.any(|(_, other)| other.last > first);
        if let (true, Some(talk)) = (overlaps, self.open.get_mut(&ends)) {
            talk.overlaps = true;
        }
        overlaps
    }

    fn over(&mut self, ends: Ends) {
        if let Some(talk) = self.open.remove(&ends) {
            self.over = self.over.max(talk.last);
        }
    }
}

/// The connections open now and the most there ever were.
#[derive(Debug, Default)]
struct Gauge {
    ends: Mutex<HashSet<Ends>>,
    peak: AtomicUsize,
}

impl Gauge {
    fn enter(&self, ends: Ends) {
        let mut open = lock(&self.ends);
        open.insert(ends);
        let known = self.peak.load(Ordering::SeqCst);
        if open.len() > known {
            // A client may have closed a connection before it opened this one, and we have not
            // read the end of it yet. The kernel knows, but takes its time with many sockets, so
            // it is only asked when there is a doubt.
            let now = match open.len() {
                1 => 1,
                more => established(&open).unwrap_or(more),
            };
            self.peak.fetch_max(now, Ordering::SeqCst);
        }
    }

    fn leave(&self, ends: Ends) {
        lock(&self.ends).remove(&ends);
    }
}

/// How many of `open` the kernel calls established, that is, closed by neither end. `None` where
/// the kernel does not tell.
fn established(open: &HashSet<Ends>) -> Option<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let ends = (address(fields.next()?)?, address(fields.next()?)?);
        (fields.next()? == "01").then_some(ends)
    });
    // Sockets that come and go while the kernel writes its table can make it repeat a row.
    let rows: HashSet<Ends> = rows.filter(|ends| open.contains(ends)).collect();
    Some(rows.len())
}

/// Reads `0100007F:1F90`: an IPv4 address in the byte order of the machine, and a port.
fn address(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((ip, port).into())
}

/// Locks a mutex whose data stays sound even if a holder panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(port: u16) -> Ends {
        let router = SocketAddr::from(([127, 0, 0, 1], 22));
        (router, ([127, 0, 0, 1], port).into())
    }

    #[test]
    fn talks_overlap_when_neither_is_over_before_the_other_begins() {
        // Each letter is a byte of a connection, in small where the connection ends after it.
        for (order, overlapping) in [
            ("AaBb", 0),
            ("AAAa", 0),
            // B talks within A, which notices when it goes on.
            ("ABbAa", 1),
            ("ABAB", 2),
            // A was silent from before B began until B was over: still one talk around the other.
            ("ABba", 1),
            // Open and silent.
            ("ABBb", 0),
            ("AABCBC", 2),
        ] {
            let mut talks = Talks::default();
            let mut found = 0;
            for letter in order.bytes() {
                let ends = ends(letter.to_ascii_uppercase().into());
                found += u32::from(talks.heard(ends));
                if letter.is_ascii_lowercase() {
                    talks.over(ends);
                }
            }
            assert_eq!(found, overlapping, "{order}");
        }
    }

    #[test]
    fn reads_the_addresses_of_the_kernel() {
        let little_endian = cfg!(target_endian = "little");
        let expected = if little_endian {
            "127.0.0.1:8080"
        } else {
            "1.0.0.127:8080"
        };
        assert_eq!(address("0100007F:1F90"), expected.parse().ok());
        assert_eq!(address("x"), None);
    }
}
