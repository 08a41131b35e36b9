//! Moves what is held into the outbox as soon as Redis answers, and says so in the database while
//! it cannot.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use super::super::relay::give_up;
use super::folder::{Folder, ReadBack};
use super::{Hold, Queue, Text, report_strange};
use crate::domain::attempt::AttemptId;
use crate::domain::backoff::stretched;
use crate::domain::failure::{Failure, FailureKind, chain};
use crate::domain::hold::{Held, Place};
use crate::domain::outbox::PAUSE_JITTER;
use crate::fleet::attempt::on_a_thread;
use crate::fleet::{Context, draw};
use crate::ports::Letter;

/// Between two tries at a Redis that is away.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often the folders of processes that have ended are looked for.
const LOOK: Duration = Duration::from_secs(30);
/// How often the database is told that letters are still held, a part of
/// [`HELD_FOR`](crate::ports::HELD_FOR); and again after it did not answer.
const RENEW: Duration = Duration::from_secs(30);
const RENEW_AGAIN: Duration = Duration::from_secs(5);
/// How many attempts one statement is about.
const BATCH: usize = 500;
/// How long the end of the process waits for the database.
const LAST_WORDS: Duration = Duration::from_secs(2);

const ENDED: &str = "the snapshot was taken while neither NATS nor Redis could be reached, and was \
                     held in the memory of a process that has ended; give DATA_DIR a folder that can \
                     be written. The device is backed up again at once";

/// What came of one pass over what is held.
enum Pass {
    Empty,
    Stuck,
}

/// Moves what is held into the outbox whenever that can take it, until it is aborted. Whatever is
/// half done then is done once more, which does no harm.
pub async fn run(context: &Context) {
    let Some(queue) = &context.outbox else {
        return;
    };
    let mut renewal = Renewal::default();
    let mut pause = RETRY_FIRST;
    let mut looked = Instant::now();
    loop {
        if looked.elapsed() >= LOOK {
            queue.hold.adopt().await;
            looked = Instant::now();
        }
        let rest = match pass(context, queue).await {
            Pass::Empty => {
                pause = RETRY_FIRST;
                LOOK
            }
            Pass::Stuck => {
                renewal.renew(queue).await;
                let rest = stretched(pause, PAUSE_JITTER, draw());
                pause = (pause * 2).min(RETRY_MAX);
                rest
            }
        };
        tokio::select! {
            () = queue.hold.changed.notified() => {}
            () = sleep(rest) => {}
        }
    }
}

/// When the database is told next that letters are held. A letter's attempt is recorded as held for
/// longer than two of these periods.
#[derive(Default)]
struct Renewal(Option<Instant>);

impl Renewal {
    async fn renew(&mut self, queue: &Queue) {
        if self.0.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let held = queue.hold.state().shelf.attempts();
        let mut next = RENEW;
        for batch in held.chunks(BATCH) {
            if let Err(error) = queue.settlements.still_held(batch).await {
                let error = chain(&error);
                debug!(error, "the database does not know that snapshots are held");
                next = RENEW_AGAIN;
                break;
            }
        }
        self.0 = Some(Instant::now() + next);
    }
}

/// Offers letters to the outbox until none is left or one cannot go on.
async fn pass(context: &Context, queue: &Queue) -> Pass {
    let hold = &queue.hold;
    let mut gone_on = Vec::new();
    let end = loop {
        let Some((held, text)) = hold.next() else {
            break Pass::Empty;
        };
        let letter = match text_of(held.attempt, text).await {
            Ok(letter) => letter,
            Err(ReadBack::Io { file, source }) => {
                warn!(error = %source, file = %file.display(), "a held snapshot cannot be read now");
                hold.is_stuck(held.device);
                break Pass::Stuck;
            }
            Err(error) => {
                lost(context, queue, &held, &error).await;
                continue;
            }
        };
        if let Err(error) = queue.letters.append(&letter).await {
            debug!(error = chain(&error), "what is held stays held");
            hold.is_stuck(held.device);
            break Pass::Stuck;
        }
        hold.went_on(held.attempt).await;
        queue.added.notify_one();
        gone_on.push(held.attempt);
        if gone_on.len() >= BATCH {
            let_go(queue, &std::mem::take(&mut gone_on)).await;
        }
    };
    let_go(queue, &gone_on).await;
    hold.announce_end();
    end
}

async fn text_of(id: AttemptId, text: Text) -> Result<Arc<Letter>, ReadBack> {
    match text {
        Text::Memory(letter) => Ok(letter),
        Text::File(file) => on_a_thread(move || Folder::read(&file, id))
            .await
            .map(Arc::new),
    }
}

/// The letters are in the outbox: whoever looks for them there finds them. A database that is away
/// learns of it by time alone.
async fn let_go(queue: &Queue, attempts: &[AttemptId]) {
    if attempts.is_empty() {
        return;
    }
    if let Err(error) = queue.settlements.let_go(attempts).await {
        debug!(
            error = chain(&error),
            "attempts count as held for a while longer"
        );
    }
}

/// Somebody deleted the letter's file or changed it.
async fn lost(context: &Context, queue: &Queue, held: &Held, error: &ReadBack) {
    let text = chain(error);
    if let ReadBack::Damaged { file, reason } = error {
        let (hold, file, reason) = (Arc::clone(&queue.hold), file.clone(), reason.clone());
        let set_aside = move || hold.folder.as_ref().map(|it| it.set_aside(&file, reason));
        if let Some((file, reason)) = on_a_thread(set_aside).await {
            report_strange(&file, &reason);
        }
    }
    error!(
        attempt.id = %held.attempt, device.id = %held.device, error = text,
        "a snapshot that was held on disk is lost; its device is backed up again"
    );
    queue.hold.forget(held.attempt);
    let failure = Failure::new(
        FailureKind::SnapshotLost,
        format!(
            "the snapshot was taken and held on disk, but {text}; the device is backed up again"
        ),
    );
    let given_up = give_up(context, queue, held.attempt, held.device, &failure);
    if let Err(error) = given_up.await {
        // Whoever relays finds it when it does not count as held any more.
        debug!(error = chain(&error), "an attempt was not given up");
    }
}

/// At the stop, when all attempts have ended: goes on until nothing is held, or until the hard stop.
/// A disk is no reason to go earlier: that of a pod goes with it. What is only in memory is written
/// to disk if that works by now.
pub async fn drain(context: &Context) {
    let Some(queue) = &context.outbox else {
        return;
    };
    let mut renewal = Renewal::default();
    let work = async {
        while let Pass::Stuck = pass(context, queue).await {
            queue.hold.to_disk().await;
            renewal.renew(queue).await;
            sleep(RETRY_FIRST).await;
        }
    };
    tokio::select! {
        biased;
        () = context.shutdown.hard().cancelled() => {}
        () = work => {}
    }
}

/// The process ends: says what stays on disk, and gives up what cannot.
pub async fn leave(context: &Context) {
    let Some(queue) = &context.outbox else {
        return;
    };
    let (on_disk, lost) = left(&queue.hold);
    if on_disk > 0
        && let Some(folder) = &queue.hold.folder
    {
        warn!(
            snapshots = on_disk, folder = %folder.place().display(),
            "Snapshots stay on disk: the next process with this DATA_DIR publishes them"
        );
    }
    let failure = Failure::new(FailureKind::SnapshotLost, ENDED);
    let give_up_all = async {
        for held in &lost {
            error!(
                attempt.id = %held.attempt, device.id = %held.device,
                "a snapshot was held in memory only and ends with this process; its device is \
                 backed up again"
            );
            let given_up = give_up(context, queue, held.attempt, held.device, &failure);
            if let Err(error) = given_up.await {
                debug!(error = chain(&error), "an attempt was not given up");
            }
        }
    };
    // What is not given up here is by whoever relays, when it does not count as held any more.
    let _ = timeout(LAST_WORDS, give_up_all).await;
}

/// How many letters are in files, and those that are in none.
fn left(hold: &Hold) -> (usize, Vec<Held>) {
    let state = hold.state();
    let held = Place::ALL.map(|place| state.shelf.held_in(place)).concat();
    let (on_disk, lost): (Vec<_>, Vec<_>) = held
        .into_iter()
        .partition(|held| state.files.contains_key(&held.attempt));
    (on_disk.len(), lost)
}
