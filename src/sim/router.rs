//! One simulated router: its listener, its settings that can be changed while it runs, its counts.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use russh::keys::PublicKey;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::configuration::Configuration;
use super::console::{self, Edit, Facts, Reply};
use super::door::Door;
use super::fault::Fault;
use super::host_key::{HostKeyKind, fingerprint, host_key};
use super::profile::SshProfile;
use super::stats::{Counters, Ends, LoginAttempt, Served, Stats, lock};
use super::text::Version;
use super::{PASSWORD, USERNAME, session};
use crate::clock::Clock;
use crate::domain::host_key::Fingerprint;

/// Between two tries to listen again on an address that somebody else has.
const LISTEN_AGAIN: Duration = Duration::from_millis(50);

/// How one router starts.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// Its name, also its `/system identity`.
    pub name: String,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Its RouterOS version.
    pub version: String,
    /// About how large its export is; 0 for a small one of some kilobytes.
    pub size_bytes: u64,
    /// How long it thinks before the first byte of an answer.
    pub delay: Duration,
    /// Host key and configuration follow from it.
    pub seed: u64,
    /// Dates its exports.
    pub clock: Clock,
    /// The login name.
    pub username: String,
    /// The password.
    pub password: String,
    /// A key that may log in. As on RouterOS the password is refused as long as there is one.
    pub authorized_key: Option<PublicKey>,
    /// The algorithms that it offers.
    pub profile: SshProfile,
    /// The type of its host key; profiles of RouterOS 6 always have RSA.
    pub host_key: HostKeyKind,
    /// The export is this text, with a fresh date; `version` and `size_bytes` do not count then.
    pub fixture: Option<String>,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            name: "sim-0001".to_owned(),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            version: "7.16.2".to_owned(),
            size_bytes: 0,
            delay: Duration::ZERO,
            seed: 1,
            clock: Clock::System,
            username: USERNAME.to_owned(),
            password: PASSWORD.to_owned(),
            authorized_key: None,
            profile: SshProfile::default(),
            host_key: HostKeyKind::default(),
            fixture: None,
        }
    }
}

/// A running router. Clones are the same router; it stops when the last one is dropped.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

impl Router {
    /// Starts a router by itself. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start_one(options: RouterOptions) -> io::Result<Self> {
        Self::start(options, Arc::default(), &CancellationToken::new())
    }

    pub(super) fn start(
        options: RouterOptions,
        fleet: Arc<Counters>,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let stop = stop.child_token();
        let door = Door::open(options.address)?;
        let configuration = match &options.fixture {
            Some(text) => Configuration::fixture(text),
            None => Configuration::generate(
                options.name.clone(),
                Version::new(options.version),
                options.size_bytes,
                options.seed,
            ),
        };
        let shared = Arc::new(Shared {
            name: options.name,
            seed: options.seed,
            clock: options.clock,
            exports: AtomicU64::new(0),
            counters: Counters::default(),
            fleet,
            door,
            runtime: Handle::current(),
            stop: stop.clone(),
            behaviour: Mutex::new(Behaviour {
                configuration,
                delay: options.delay,
                username: options.username,
                password: options.password,
                authorized_key: options.authorized_key,
                profile: options.profile,
                host_key: options.host_key,
                key_generation: 0,
                keep: false,
                answers: VecDeque::new(),
                fault: None,
            }),
        });
        tokio::spawn(accept(Arc::clone(&shared)));
        Ok(Self {
            shared,
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.door.address()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its login name.
    pub fn username(&self) -> String {
        self.shared.behaviour().username.clone()
    }

    /// Its password.
    pub fn password(&self) -> String {
        self.shared.behaviour().password.clone()
    }

    /// The fingerprint of its host key as it is without faults.
    pub fn fingerprint(&self) -> Fingerprint {
        let behaviour = self.shared.behaviour();
        let kind = behaviour.profile.host_key_kind(behaviour.host_key);
        fingerprint(&host_key(kind, self.shared.seed, behaviour.key_generation))
    }

    /// Every connection from now on has `fault`, until it is cleared.
    pub fn set_fault(&self, fault: Fault) {
        self.fault(Some((fault, None)));
    }

    /// The next `connections` have `fault`. [`Fault::Refuse`] lasts until it is cleared: a refused
    /// connection is never seen here.
    pub fn set_fault_for(&self, fault: Fault, connections: u32) {
        self.fault(Some((fault, Some(connections))));
    }

    /// Connections from now on have no fault.
    pub fn clear_fault(&self) {
        self.fault(None);
    }

    fn fault(&self, fault: Option<(Fault, Option<u32>)>) {
        self.shared.behaviour().fault = fault;
        if matches!(fault, Some((Fault::Refuse, _))) {
            self.shared.door.shut();
        } else {
            self.shared.reopen();
        }
    }

    /// Edits the configuration: the next export shows it.
    pub fn change<T>(&self, edit: impl FnOnce(&mut Configuration) -> T) -> T {
        edit(&mut self.shared.behaviour().configuration)
    }

    /// Upgrades (or downgrades) RouterOS.
    pub fn upgrade(&self, version: &str) {
        self.change(|configuration| configuration.version = Version::new(version));
    }

    /// Changes the password.
    pub fn set_password(&self, password: impl Into<String>) {
        self.shared.behaviour().password = password.into();
    }

    /// Imports a key for the user, or removes it.
    pub fn set_authorized_key(&self, key: Option<PublicKey>) {
        self.shared.behaviour().authorized_key = key;
    }

    /// Replaces the host key, and tells the new fingerprint.
    pub fn rotate_host_key(&self) -> Fingerprint {
        self.shared.behaviour().key_generation += 1;
        self.fingerprint()
    }

    /// Sets how long it thinks before the first byte of an answer.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.behaviour().delay = delay;
    }

    /// From now on export commands are answered with these bytes, one after the other and the last
    /// of them for good; with none, by the configuration again.
    pub fn answer_exports_with(&self, answers: impl IntoIterator<Item = Vec<u8>>) {
        let answers = answers.into_iter().map(Arc::from).collect();
        self.shared.behaviour().answers = answers;
    }

    /// From now on its exports are numbered in `/system note`, so that no two are the same, and
    /// those that it sends whole are kept for [`Self::served`].
    pub fn keep_exports(&self) {
        let mut behaviour = self.shared.behaviour();
        behaviour.keep = true;
        behaviour.configuration.numbered = true;
    }

    /// The exports that it sent whole since [`Self::keep_exports`], oldest first.
    pub fn served(&self) -> Vec<Served> {
        self.shared.counters.all_served()
    }

    /// Its counts now.
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// The last login attempts, oldest first, at most 64.
    pub fn logins(&self) -> Vec<LoginAttempt> {
        self.shared.counters.logins()
    }

    /// Address and source port of the clients that are connected now.
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.shared.counters.clients()
    }

    /// Closes its listener and all its connections.
    pub fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.door.shut();
    }
}

/// What a router's tasks share.
pub(super) struct Shared {
    name: String,
    pub(super) seed: u64,
    pub(super) clock: Clock,
    pub(super) exports: AtomicU64,
    counters: Counters,
    fleet: Arc<Counters>,
    door: Door,
    runtime: Handle,
    stop: CancellationToken,
    behaviour: Mutex<Behaviour>,
}

/// What can be changed while the router runs.
pub(super) struct Behaviour {
    configuration: Configuration,
    delay: Duration,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) authorized_key: Option<PublicKey>,
    pub(super) profile: SshProfile,
    pub(super) host_key: HostKeyKind,
    pub(super) key_generation: u64,
    keep: bool,
    answers: VecDeque<Arc<[u8]>>,
    fault: Option<(Fault, Option<u32>)>,
}

impl Shared {
    pub(super) fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        lock(&self.behaviour)
    }

    pub(super) fn configuration(&self) -> Configuration {
        self.behaviour().configuration.clone()
    }

    /// What to answer to an export command, where that was set.
    pub(super) fn next_answer(&self) -> Option<Arc<[u8]>> {
        let answers = &mut self.behaviour().answers;
        match answers.len() {
            0 | 1 => answers.front().cloned(),
            _ => answers.pop_front(),
        }
    }

    /// Whether exports are kept.
    pub(super) fn keeps(&self) -> bool {
        self.behaviour().keep
    }

    /// Keeps an export that `client` has got whole.
    pub(super) fn keep(&self, client: SocketAddr, text: &[u8]) {
        self.counters.served(Served {
            at: self.clock.now(),
            client,
            text: String::from_utf8_lossy(text).into_owned(),
        });
    }

    /// Counts for this router and for its fleet.
    pub(super) fn count(&self, count: impl Fn(&Counters)) {
        count(&self.counters);
        count(&self.fleet);
    }

    /// The replies to a command line, whose edits are made, and how long they take.
    pub(super) fn ask(&self, line: &str) -> (Vec<Reply>, Duration) {
        let mut behaviour = self.behaviour();
        let facts = Facts {
            version: &behaviour.configuration.version,
            identity: &behaviour.configuration.identity,
        };
        let replies = console::run(line, facts);
        for reply in &replies {
            match reply {
                Reply::Edit(Edit::Identity(name)) => {
                    name.clone_into(&mut behaviour.configuration.identity);
                }
                Reply::Edit(Edit::Note(note)) => {
                    note.clone_into(&mut behaviour.configuration.note);
                }
                Reply::Edit(Edit::HostKey) => behaviour.key_generation += 1,
                Reply::Text(_) | Reply::Export { .. } => {}
            }
        }
        (replies, behaviour.delay)
    }

    /// The fault of a new connection.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        let mut behaviour = self.behaviour();
        let (fault, left) = behaviour.fault?;
        match left {
            None => Some(fault),
            Some(0) => {
                behaviour.fault = None;
                None
            }
            Some(left) => {
                behaviour.fault = (left > 1).then_some((fault, Some(left - 1)));
                Some(fault)
            }
        }
    }

    /// Listens again, and keeps trying if another process took the port meanwhile.
    fn reopen(self: &Arc<Self>) {
        let _runtime = self.runtime.enter();
        if self.stop.is_cancelled() || self.door.reopen().is_ok() {
            return;
        }
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let wanted = |shared: &Self| {
                let fault = shared.behaviour().fault;
                !shared.stop.is_cancelled() && !matches!(fault, Some((Fault::Refuse, _)))
            };
            while wanted(&shared) && shared.door.reopen().is_err() {
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        });
    }
}

async fn accept(shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => break,
            accepted = poll_fn(|cx| shared.door.poll_accept(cx)) => accepted,
        };
        let Ok((stream, client)) = accepted else {
            // Out of descriptors, most likely: some will come back.
            tokio::time::sleep(LISTEN_AGAIN).await;
            continue;
        };
        let counted = Counted::new(Arc::clone(&shared), (shared.door.address(), client));
        let gone = shared.stop.child_token();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            session::serve(shared, stream, counted, gone).await;
        });
    }
    shared.door.shut();
}

/// A connection that is counted as open for as long as this lives.
pub(super) struct Counted {
    shared: Arc<Shared>,
    ends: Ends,
}

impl Counted {
    /// Address and source port of the client.
    pub(super) fn client(&self) -> SocketAddr {
        self.ends.1
    }

    /// Takes in that the client sent something.
    pub(super) fn heard(&self) {
        if self.shared.counters.heard(self.ends) {
            self.shared.count(Counters::overlapped);
        }
    }

    fn new(shared: Arc<Shared>, ends: Ends) -> Self {
        shared.count(|counters| counters.opened(ends));
        Self { shared, ends }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.count(|counters| counters.closed(self.ends));
    }
}
