//! Fleet jobs as they run: which database is next, what came of it, when the catalogue is told.
//!
//! A state machine without engine and clock: it is told what was answered, and gives [`Action`]s. The
//! catalogue has each job and every result (`tenant::jobs`); in memory are the jobs that are open, each
//! with a *window* of databases that come next in its walk.
//!
//! **Exactly once.** A database is migrated in one transaction of its own that leaves the job's mark in
//! it (`tenant::migration`), and a run begins by asking for the mark: so a job commits at most once on a
//! database, whenever the process dies. Its result is written with others, a little later, and the job
//! goes on from a position behind which some results may be missing. So a server that starts *looks*
//! first: it asks each database of the window of each open job for its mark, and begins on none before.
//! A mark hides the one before it: therefore no job begins on a database on which another one is, until
//! the other's result is durable.
//!
//! - `job`: one job. `options`, `script`: what it is told. `live`: how fast it goes.
//! - A database that somebody else writes to, or that has no room for one more request, is put aside and
//!   tried again later: it holds no place meanwhile.

mod job;
mod live;
pub(crate) mod options;
pub(crate) mod script;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use storage::TenantId;
use storage::io::Instant;
use storage::sometimes;
use tenant::jobs::{JobCall, JobId, JobReply, JobRow};
use tenant::limits::SECOND_NS;
use tenant::migration::{Errand, MigrationEnd, Script};
use tenant::{Refusal, RequestId};

use self::job::{Job, RunEnd};
use crate::limits;

pub(crate) use live::Live;

/// Set in the number of each request of a job's; no connection's has it.
const OWN: RequestId = 1 << 31;

/// What is to be asked of the engine.
#[derive(Debug)]
pub(crate) enum Action {
    /// Something of the catalogue.
    Ask(RequestId, JobCall),
    /// A run on a database.
    Run(RequestId, Box<Run>),
    /// That run need not go on.
    Cancel(RequestId),
}

/// A run on a database.
#[derive(Debug)]
pub(crate) struct Run {
    /// The database's name.
    pub name: Box<str>,
    /// Its id: another one of its name is not meant.
    pub database: TenantId,
    /// What to do.
    pub work: Migration,
}

/// What a run does on its fiber.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The statements.
    pub(crate) script: Arc<Script>,
    /// Run them, or look whether they were run.
    pub(crate) errand: Errand,
    /// How long it may take.
    pub(crate) run_ns: u64,
}

/// What was asked of the catalogue, and for which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Which are open.
    Open,
    /// Its next databases.
    Walk(JobId),
    /// To keep results.
    Note(JobId),
    /// To remove some of its results.
    Erase(JobId),
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: BTreeMap<JobId, Job>,
    /// Who is on which database, or may be.
    held: BTreeMap<TenantId, Vec<JobId>>,
    asked: BTreeMap<RequestId, Asked>,
    runs: BTreeMap<RequestId, (JobId, u64)>,
    requests: u64,
    actions: VecDeque<Action>,
    /// Open jobs were asked for when the server started, and are known.
    started: bool,
    stopped: bool,
    /// When to ask for them again, if that was refused.
    open_at: Option<Instant>,
    /// Something has happened since the last turn.
    touched: bool,
    /// When to look again without anything happening.
    deadline: Option<Instant>,
    /// The job that began on a database last.
    last: Option<JobId>,
}

/// Whether a request is a job's.
pub(crate) fn is_own(request: RequestId) -> bool {
    request & OWN != 0
}

impl Jobs {
    /// The engine serves: find out what was going on.
    pub(crate) fn start(&mut self, now: Instant) {
        self.touched = true;
        self.open_at = Some(now);
    }

    /// The server stops: what runs ends, and is looked for at the next start.
    pub(crate) fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.actions.clear();
        for &request in self.runs.keys() {
            sometimes!("a job is interrupted because the server stops");
            self.actions.push_back(Action::Cancel(request));
        }
    }

    /// What is to be asked next.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When the next turn is due if nothing happens.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        if self.touched || !self.actions.is_empty() { Some(now) } else { self.deadline }
    }

    /// Databases on which something of a job runs now.
    pub(crate) fn running(&self) -> usize {
        self.runs.len()
    }

    /// How fast a job goes, if it is in memory.
    pub(crate) fn live(&self, id: JobId, now: Instant) -> Option<Live> {
        let running = self.runs.values().filter(|(job, _)| *job == id).count();
        self.jobs.get(&id).map(|job| job.live(running, now))
    }

    fn request(&mut self) -> RequestId {
        let number = self.requests;
        self.requests += 1;
        (number >> 31) << 32 | OWN | (number & (OWN - 1))
    }

    fn ask(&mut self, asked: Asked, call: JobCall) {
        let request = self.request();
        self.asked.insert(request, asked);
        self.actions.push_back(Action::Ask(request, call));
    }

    // ---- what is told ----

    /// Somebody has made a job, or told one what to do: this is its row now.
    pub(crate) fn on_changed(&mut self, row: &JobRow) {
        self.touched = true;
        if let Some(job) = self.jobs.get_mut(&row.id) {
            job.follow(row);
        } else if row.open && self.started {
            self.load(row, false);
        }
    }

    /// A call to the catalogue is answered.
    pub(crate) fn on_reply(&mut self, request: RequestId, reply: &JobReply, now: Instant) {
        self.touched = true;
        match (self.asked.remove(&request), reply) {
            (Some(Asked::Open), JobReply::Jobs(rows)) => {
                self.started = true;
                for row in rows {
                    sometimes!("a job goes on after a start");
                    self.load(row, true);
                }
            }
            (Some(Asked::Walk(id)), JobReply::Page(page)) => {
                let Some(job) = self.jobs.get_mut(&id) else { return };
                for database in job.on_page(page, now) {
                    self.held.entry(database).or_default().push(id);
                }
            }
            (Some(Asked::Note(id)), JobReply::Job(row)) => {
                let Some(job) = self.jobs.get_mut(&id) else { return };
                job.follow(row);
                for database in job.on_noted() {
                    self.release(database, id);
                }
                if !row.open {
                    self.jobs.remove(&id);
                }
            }
            (Some(Asked::Erase(id)), JobReply::Left(left)) => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.erasing = false;
                }
                if *left == 0 {
                    self.jobs.remove(&id);
                }
            }
            _ => {}
        }
    }

    /// A call to the catalogue, or a run, was refused.
    pub(crate) fn on_refused(&mut self, request: RequestId, refusal: &Refusal, now: Instant) {
        self.touched = true;
        if let Some((id, place)) = self.runs.remove(&request) {
            return self.on_end(id, place, RunEnd::Refused(refusal.clone()), now);
        }
        let id = match self.asked.remove(&request) {
            Some(Asked::Open) => return self.open_at = Some(now.after(SECOND_NS)),
            Some(Asked::Walk(id) | Asked::Note(id) | Asked::Erase(id)) => id,
            _ => return,
        };
        if matches!(refusal, Refusal::Missing(_)) {
            return self.forget(id);
        }
        sometimes!("the catalogue has no room for a job's results");
        if let Some(job) = self.jobs.get_mut(&id) {
            job.on_call_refused(now);
        }
    }

    /// A run has ended.
    pub(crate) fn on_finished(&mut self, request: RequestId, end: MigrationEnd, now: Instant) {
        self.touched = true;
        if let Some((id, place)) = self.runs.remove(&request) {
            self.on_end(id, place, RunEnd::Ended(end), now);
        }
    }

    fn on_end(&mut self, id: JobId, place: u64, end: RunEnd, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(database) = job.on_end(place, end, now) {
            self.release(database, id);
        }
    }

    fn release(&mut self, database: TenantId, id: JobId) {
        if let Some(holders) = self.held.get_mut(&database) {
            if let Some(index) = holders.iter().position(|&holder| holder == id) {
                holders.swap_remove(index);
            }
            if holders.is_empty() {
                self.held.remove(&database);
            }
        }
    }

    fn load(&mut self, row: &JobRow, looks: bool) {
        self.jobs.insert(row.id, Job::new(row, looks));
    }

    /// The job is not in the catalogue any more.
    fn forget(&mut self, id: JobId) {
        self.jobs.remove(&id);
        self.held.retain(|_, holders| {
            holders.retain(|&holder| holder != id);
            !holders.is_empty()
        });
    }

    // ---- what follows ----

    /// Decide what is next.
    pub(crate) fn turn(&mut self, now: Instant) {
        let due = self.deadline.is_some_and(|deadline| deadline <= now);
        if self.stopped || !(self.touched || due) {
            return;
        }
        self.touched = false;
        if self.open_at.is_some_and(|at| at <= now) {
            self.open_at = None;
            self.ask(Asked::Open, JobCall::Open);
        }
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            for (asked, call) in job.calls(now) {
                let asked = match asked {
                    job::Call::Walk => Asked::Walk(id),
                    job::Call::Note => Asked::Note(id),
                    job::Call::Erase => Asked::Erase(id),
                };
                self.ask(asked, call);
            }
        }
        self.begin_runs(now);
        let jobs = self.jobs.values().filter_map(|job| job.deadline(now));
        self.deadline = jobs.chain(self.open_at).min();
    }

    /// Begin on as many databases as may be at a time, one job after the other.
    fn begin_runs(&mut self, now: Instant) {
        // Until each window is known, only marks are asked for.
        let looking = self.jobs.values().any(|job| job.is_loading());
        let mut idle = 0;
        while self.runs.len() < limits::JOB_RUNS_MAX && idle < self.jobs.len() {
            let after = self.last.map_or(0, |id| id.0 + 1);
            let next = self.jobs.range(JobId(after)..).next().or_else(|| self.jobs.iter().next());
            let Some((&id, _)) = next else { return };
            self.last = Some(id);
            idle = if self.begin_one(id, looking, now) { 0 } else { idle + 1 };
        }
    }

    fn begin_one(&mut self, id: JobId, looking: bool, now: Instant) -> bool {
        let running = self.runs.values().filter(|(job, _)| *job == id).count();
        let held = &self.held;
        let free = |database: TenantId| {
            held.get(&database).is_none_or(|holders| holders.iter().all(|&holder| holder == id))
        };
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        if running >= job.concurrency() {
            return false;
        }
        let Some((place, run)) = job.begin(looking, free, running, now) else { return false };
        if run.work.errand == Errand::Run {
            self.held.entry(run.database).or_default().push(id);
        }
        let request = self.request();
        self.runs.insert(request, (id, place));
        self.actions.push_back(Action::Run(request, Box::new(run)));
        true
    }
}

#[cfg(test)]
mod tests;
