//! What happens to the rows of one router: replicas that claim, dial, die, and what is stored of it.

use super::*;

impl World {
    /// `replicas` processes that have `rows` rows each.
    pub(super) fn new(
        interval: Duration,
        rows: usize,
        replicas: usize,
        fates: Vec<Fate>,
        draws: Vec<f64>,
    ) -> Self {
        let mut world = Self {
            policy: Policy {
                interval,
                jitter_min: Duration::ZERO,
                jitter_max: Duration::from_secs(300),
                recheck: Duration::from_secs(300),
            },
            bound: Bound::for_interval(interval, Duration::from_secs(10)),
            now: START,
            rows: Vec::new(),
            journal: Vec::new(),
            replicas: Vec::new(),
            fates,
            draws,
            ids: 0,
            counts: None,
            recipe: Recipe::default(),
            dials: Vec::new(),
            punished: false,
            longest_wait: Duration::ZERO,
        };
        for row in 0..rows {
            world.rows.push(Row {
                revision: revision(0),
                stored: None,
                mark: None,
                successes: 0,
            });
            for _ in 0..replicas {
                let replica = world.started(row);
                world.replicas.push(replica);
            }
        }
        world
    }

    fn draw(&mut self) -> Draw {
        self.draws.rotate_left(1);
        Draw::new(self.draws[0])
    }

    fn started(&mut self, row: usize) -> Replica {
        let (draw, last) = (self.draw(), self.rows[row].stored.as_ref());
        let (policy, revision, now) = (self.policy, self.rows[row].revision, self.now);
        Replica {
            row,
            schedule: Schedule::resume(policy, device(row), revision, last, now, draw),
            known: last.map(|last| last.id),
            running: None,
        }
    }

    fn tell(&mut self, n: usize, event: Event) {
        let (draw, now) = (self.draw(), self.now);
        self.replicas[n].schedule.handle(event, now, draw);
    }

    /// When replica `n` has something to do.
    fn due(&self, n: usize) -> Timestamp {
        let replica = &self.replicas[n];
        match (replica.running, replica.schedule.next()) {
            (Some(running), _) => match running.dials {
                Some(dials) if !running.dialled => dials,
                _ => running.ends,
            },
            (None, Next::Attempt { at, .. } | Next::Skip { at, .. }) => at,
            (None, Next::Wait | Next::Done) => unreachable!("nothing runs and nothing is removed"),
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = later(self.now, time);
        loop {
            let all = 0..self.replicas.len();
            let next = all.min_by_key(|n| self.due(*n)).expect("a replica");
            if self.due(next) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(self.due(next));
            self.act(next);
        }
    }

    fn act(&mut self, n: usize) {
        if let Some(mut running) = self.replicas[n].running {
            if running.dialled || running.dials.is_none() {
                return self.end(n, running.result);
            }
            running.dialled = true;
            self.replicas[n].running = Some(running);
            self.dials.push(self.now);
            self.punished |= self.recipe.connection(self.now);
            return;
        }
        let Next::Attempt { cause, .. } = self.replicas[n].schedule.next() else {
            return self.tell(n, Event::Skipped);
        };
        self.tell(n, Event::Began);
        match self.claim(n, cause) {
            Ok(running) => self.replicas[n].running = Some(running),
            Err(deferral) => self.tell(n, Event::Finished(Finish::Deferred(deferral))),
        }
    }

    /// What lease and store say.
    fn claim(&mut self, n: usize, cause: Cause) -> Result<Running, Deferral> {
        let row = self.replicas[n].row;
        let running = |replica: &Replica| {
            replica.row == row && replica.running.is_some_and(|running| running.leased)
        };
        if self.replicas.iter().any(running) {
            return Err(Deferral::Contended);
        }
        if let Some(last) = &self.rows[row].stored
            && Some(last.id) != self.replicas[n].known
            && cause != Cause::Manual
        {
            let last = last.clone();
            self.replicas[n].known = Some(last.id);
            return Err(Deferral::Superseded(Box::new(last)));
        }
        self.ids += 1;
        let id = AttemptId(Uuid::from_u128(self.ids));
        if let Some((id, permitted)) = self.rows[row].mark.take() {
            let ended = None;
            let dial = Dial { permitted, ended };
            self.journal.push(Entry {
                id,
                dial,
                dialled: true,
            });
        }
        let room = Room::of(cause, self.counts);
        if let Some(until) = self.bound.not_before(&self.counted(), room, self.now) {
            let wait = Duration::try_from(until - self.now).expect("it lies ahead");
            self.longest_wait = self.longest_wait.max(wait);
            return Err(Deferral::RateLimited { until, wait });
        }
        self.rows[row].mark = Some((id, self.now));
        self.fates.rotate_left(1);
        let fate = self.fates[0];
        let slack = |part| later(self.now, self.bound.slack.mul_f64(part));
        let dials = fate.dials_after.map(slack);
        Ok(Running {
            id,
            revision: self.rows[row].revision,
            claimed: self.now,
            dials,
            dialled: false,
            ends: later(dials.unwrap_or(self.now), fate.takes),
            result: match fate.dials_after {
                Some(_) => fate.result,
                None => Made::Failed(FailureKind::CredentialsUnreadable),
            },
            leased: true,
        })
    }

    /// What is stored of connections, whichever row they were for.
    pub(super) fn counted(&self) -> Vec<Dial> {
        let dialled = self.journal.iter().filter(|entry| entry.dialled);
        let marked = self.rows.iter().filter_map(Row::marked);
        dialled.map(|entry| entry.dial).chain(marked).collect()
    }

    /// The attempt of replica `n` ends and is recorded.
    fn end(&mut self, n: usize, result: Made) {
        let Some(running) = self.replicas[n].running.take() else {
            return;
        };
        let Running {
            id,
            revision,
            claimed,
            dialled,
            ..
        } = running;
        let finish = Finish::Made {
            started_at: claimed,
            revision,
            result,
        };
        self.tell(n, Event::Finished(finish));
        let row = self.replicas[n].row;
        self.journal.retain(|entry| entry.id != id);
        let dial = Dial {
            permitted: claimed,
            ended: Some(self.now),
        };
        self.journal.push(Entry { id, dial, dialled });
        self.rows[row].mark.take_if(|(marked, _)| *marked == id);
        let schedule = &self.replicas[n].schedule;
        let standing = schedule.standing_failure();
        let (status, failed) = match result {
            Made::Taken => (Status::Success, None),
            Made::Failed(kind) => (Status::Failed, Some(kind)),
            Made::Interrupted => (Status::Interrupted, None),
        };
        let succeeded = (result == Made::Taken).then_some(claimed);
        let stored = &mut self.rows[row];
        stored.successes += usize::from(succeeded.is_some());
        let before = stored.stored.as_ref().and_then(|last| last.last_success_at);
        stored.stored = Some(LastAttempt {
            id,
            started_at: claimed,
            finished_at: self.now,
            status,
            failure: standing.map(|(kind, _)| kind).or(failed),
            consecutive_failures: schedule.consecutive_failures(),
            revision: standing.map_or(revision, |(_, revision)| revision),
            last_success_at: succeeded.or(before),
            deaths: 0,
        });
        self.replicas[n].known = Some(id);
    }

    /// Replica `n` gives back a claim under which it has not dialled.
    fn give_back(&mut self, n: usize) {
        if let Some(running) = self.replicas[n].running.take_if(|running| !running.dialled) {
            let row = self.replicas[n].row;
            self.rows[row]
                .mark
                .take_if(|(marked, _)| *marked == running.id);
            let reason = "the credentials could not be opened in time".to_owned();
            let away = Finish::Deferred(Deferral::Unavailable { reason });
            self.tell(n, Event::Finished(away));
        }
    }

    /// The snapshot of the last attempt at a row's device, which was to be published later, is lost.
    fn lose_the_snapshot(&mut self, row: usize) {
        let Some(last) = &mut self.rows[row].stored else {
            return;
        };
        if last.status != Status::Success {
            return;
        }
        last.status = Status::Failed;
        last.failure = Some(FailureKind::SnapshotLost);
        last.consecutive_failures = 1;
        let last = last.clone();
        for n in self.replicas_of(row) {
            self.replicas[n].known = Some(last.id);
            self.tell(n, Event::Revised(Box::new(last.clone())));
        }
    }

    fn replicas_of(&self, row: usize) -> Vec<usize> {
        let all = 0..self.replicas.len();
        all.filter(|n| self.replicas[*n].row == row).collect()
    }

    pub(super) fn edit(&mut self, row: usize, edition: usize) {
        let revision = revision(edition);
        self.rows[row].revision = revision;
        for n in self.replicas_of(row) {
            self.tell(n, Event::Edited(revision));
        }
    }

    pub(super) fn does(&mut self, doing: &Do, edition: usize) {
        let replicas = self.replicas.len();
        match *doing {
            Do::Wait(time) => self.run_for(time),
            Do::Ask(n) => {
                let n = n % replicas;
                // What runs already is shared.
                if self.replicas[n].schedule.condition() != Some(Condition::Running) {
                    self.tell(n, Event::Requested);
                    self.run_for(Duration::ZERO);
                }
            }
            Do::Edit(n) => self.edit(n % self.rows.len(), edition),
            Do::Kill(n) => {
                let n = n % replicas;
                self.replicas[n] = self.started(self.replicas[n].row);
            }
            Do::Stop(n) => {
                let n = n % replicas;
                self.end(n, Made::Interrupted);
                self.replicas[n] = self.started(self.replicas[n].row);
            }
            Do::GiveBack(n) => self.give_back(n % replicas),
            Do::LoseLease => {
                for replica in &mut self.replicas {
                    if let Some(running) = &mut replica.running {
                        running.leased = false;
                    }
                }
            }
            Do::LoseSnapshot(n) => self.lose_the_snapshot(n % self.rows.len()),
        }
    }
}
