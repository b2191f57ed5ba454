//! One job: its window of databases, what came of them, and when it pauses or ends.
//!
//! The window is in the order of the walk. A database in it waits, runs, or has its result; it leaves
//! when its result is durable and so is that of each one before it, and the job's position is where it
//! stood. What waits when the job is told to pause is given up, and blocks the position until the
//! window is empty: then the job closes, or walks anew from its position.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage::TenantId;
use storage::io::Instant;
use storage::sometimes;
use tenant::jobs::{
    JobCall, JobResult, JobRow, JobState, Note, Page, ResultStatus, Target, TargetState,
    missing_text,
};
use tenant::limits::{JOB_WINDOW, JOB_WINDOW_MAX, SECOND_NS};
use tenant::migration::{Errand, Mark, MigrationEnd, Script};
use tenant::{Refusal, StatementError};

use super::live::{Live, Pace};
use super::options::{OnError, Options};
use super::{Migration, Run, script};
use crate::control;
use crate::limits;

/// What a job asks of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Walk,
    Note,
    Erase,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(super) enum RunEnd {
    /// As the fiber says.
    Ended(MigrationEnd),
    /// The engine did not begin it, or has lost the database under it.
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It can begin from this instant on.
    Waits(Instant),
    /// Something runs on it.
    Runs,
    /// Its result is to be kept.
    Ended,
    /// Its result is durable.
    Kept,
    /// It was not begun, and will not be by this walk.
    GivenUp,
}

/// A database of the window.
#[derive(Debug)]
struct Entry {
    target: Target,
    stage: Stage,
    /// It may have been migrated: its mark is asked for before anything else.
    looks: bool,
    tries: u32,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Job {
    row: JobRow,
    script: Result<Arc<Script>, String>,
    options: Options,
    canaries: u64,
    window: BTreeMap<u64, Entry>,
    next_place: u64,
    /// Where the walk is: behind everything in the window.
    walked: Box<str>,
    walk_ended: bool,
    walking: bool,
    /// It was going on when the server ended: the first page is asked for marks.
    looks: bool,
    /// Results to keep, with their places.
    results: Vec<(u64, JobResult)>,
    /// How many of them are being kept; `None` if the catalogue is not asked.
    noting: Option<usize>,
    /// When those that are there are kept at the latest.
    note_at: Option<Instant>,
    /// The catalogue had no room: not before this.
    retry_at: Instant,
    /// What it has found out by itself: it pauses or ends.
    ending: Option<(JobState, Option<Box<str>>)>,
    canary_passed: bool,
    /// Some of the window was given up.
    stale: bool,
    pub(super) erasing: bool,
    pace: Pace,
}

/// Databases of a page at least: fewer are not worth a call.
const PAGE_MIN: usize = JOB_WINDOW / 4;

const _: () = assert!(limits::JOB_NOTE_RESULTS <= JOB_WINDOW);
const _: () = assert!(limits::JOB_CONCURRENCY_MAX < JOB_WINDOW - PAGE_MIN);

impl Job {
    /// A job as the catalogue has it. With `looks` it may have been interrupted.
    pub(super) fn new(row: &JobRow, looks: bool) -> Job {
        let options = Options::read_kept(&row.options);
        let kept = row.script.as_deref().unwrap_or("");
        let script = script::read_kept(kept, row.mark, options.foreign_keys).map(Arc::new);
        let script =
            if row.mark == Mark::default() { Err("it has no mark".into()) } else { script };
        let mut job = Job {
            canaries: options.canaries(row.total),
            options,
            script,
            window: BTreeMap::new(),
            next_place: 0,
            walked: row.position.clone(),
            walk_ended: false,
            walking: false,
            looks: looks && row.state != JobState::Deleting,
            results: Vec::new(),
            noting: None,
            note_at: None,
            retry_at: Instant(0),
            ending: None,
            canary_passed: row.canary_passed,
            stale: false,
            erasing: false,
            pace: Pace::default(),
            row: JobRow { script: None, ..row.clone() },
        };
        job.pass_canary();
        job
    }

    /// Somebody has let it go on behind its first databases, where failures had stopped it.
    fn pass_canary(&mut self) {
        self.canary_passed |= self.ended() >= self.canaries;
    }

    /// Its window is not known, and was in use when the server ended.
    pub(super) fn is_loading(&self) -> bool {
        self.looks
    }

    /// It may begin on databases.
    pub(super) fn may_begin(&self) -> bool {
        self.row.state == JobState::Running && self.ending.is_none() && !self.stale
    }

    pub(super) fn concurrency(&self) -> usize {
        self.options.concurrency
    }

    fn ended(&self) -> u64 {
        let tally = &self.row.tally;
        tally.done + tally.failed + tally.skipped
    }

    pub(super) fn live(&self, running: usize, now: Instant) -> Live {
        let per_second = self.pace.per_second(now, self.ended());
        Live { running, per_second: per_second.filter(|_| self.may_begin()) }
    }

    /// The catalogue has it so now; how far it is is known better here.
    pub(super) fn follow(&mut self, row: &JobRow) {
        let resumed = self.row.state == JobState::Paused && row.state == JobState::Running;
        self.row.state = row.state;
        self.row.reason.clone_from(&row.reason);
        self.row.forgiven = row.forgiven;
        if resumed || row.state != JobState::Running {
            self.ending = None;
        }
        if resumed {
            self.pass_canary();
        }
    }

    // ---- what it asks ----

    /// What the catalogue is to be asked now.
    pub(super) fn calls(&mut self, now: Instant) -> Vec<(Call, JobCall)> {
        let mut calls = Vec::new();
        if now < self.retry_at {
            return calls;
        }
        if self.row.state == JobState::Deleting {
            if !std::mem::replace(&mut self.erasing, true) {
                calls.push((Call::Erase, JobCall::Erase(self.row.id)));
            }
            return calls;
        }
        self.give_up();
        self.start_anew();
        if self.wants_page() {
            self.walking = true;
            // With room for those that have come in between since the server ended.
            let limit = if self.looks { JOB_WINDOW_MAX } else { JOB_WINDOW - self.window.len() };
            let after = self.walked.clone();
            calls.push((Call::Walk, JobCall::Walk { id: self.row.id, after, limit }));
        }
        if self.noting.is_none()
            && let Some(note) = self.note(now)
        {
            self.noting = Some(note.results.len());
            self.note_at = None;
            calls.push((Call::Note, JobCall::Note(Box::new(note))));
        }
        self.pace.note(now, self.ended());
        calls
    }

    /// What waits is not begun any more, if the job is to begin nothing.
    fn give_up(&mut self) {
        if self.may_begin() {
            return;
        }
        for entry in self.window.values_mut() {
            if matches!(entry.stage, Stage::Waits(_)) && !entry.looks {
                entry.stage = Stage::GivenUp;
            }
        }
        self.stale = true;
    }

    /// It was told to go on before it had come to rest: it walks from its position.
    fn start_anew(&mut self) {
        let goes_on = self.row.state == JobState::Running && self.ending.is_none();
        if goes_on && self.stale && self.is_at_rest() {
            sometimes!("a job goes on before it has come to rest");
            self.window.clear();
            self.walked = self.row.position.clone();
            (self.walk_ended, self.stale) = (false, false);
        }
    }

    /// Nothing runs, nothing is looked for, and all results are durable.
    fn is_at_rest(&self) -> bool {
        let rests = |entry: &Entry| matches!(entry.stage, Stage::Kept | Stage::GivenUp);
        let asks = self.walking || self.looks || self.noting.is_some();
        !asks && self.results.is_empty() && self.window.values().all(rests)
    }

    fn wants_page(&self) -> bool {
        if self.walking || self.walk_ended {
            return false;
        }
        self.looks || (self.may_begin() && self.window.len() + PAGE_MIN <= JOB_WINDOW)
    }

    /// What the catalogue is to be told, if it is time for that.
    fn note(&self, now: Instant) -> Option<Note> {
        let due = self.note_at.is_some_and(|at| at <= now);
        let many = self.results.len() >= limits::JOB_NOTE_RESULTS;
        let busy = |entry: &Entry| matches!(entry.stage, Stage::Runs | Stage::Waits(_));
        let idle = !self.looks && !self.walking && !self.window.values().any(busy);
        let at_end = idle && (self.walk_ended || !self.may_begin());
        // One that waits for nothing but to go on is not told of.
        let goes_on = self.row.state == JobState::Running && self.ending.is_none();
        let closes = at_end && !(goes_on && self.stale);
        if !(closes || (due || many || idle) && !self.results.is_empty()) {
            return None;
        }
        let ends = if self.may_begin() && closes {
            let completed = !self.row.was_cancelled;
            Some((if completed { JobState::Completed } else { JobState::Cancelled }, None))
        } else {
            self.ending.clone()
        };
        Some(Note {
            id: self.row.id,
            results: self.results.iter().map(|(_, result)| result.clone()).collect(),
            position: self.position_with_results(),
            tally: self.row.tally,
            ends,
            canary_passed: self.canary_passed,
            closes,
        })
    }

    /// The position, once all results that are here are durable.
    fn position_with_results(&self) -> Box<str> {
        let ended = |entry: &&Entry| matches!(entry.stage, Stage::Ended | Stage::Kept);
        let passed = self.window.values().take_while(ended).count();
        if passed == self.window.len() && !self.stale {
            return self.walked.clone();
        }
        let last = self.window.values().take(passed).next_back();
        last.map_or_else(|| self.row.position.clone(), |entry| entry.target.position.clone())
    }

    /// When something is due without anything happening.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let waits = self.window.values().filter_map(|entry| match entry.stage {
            Stage::Waits(at) if at > now => Some(at),
            _ => None,
        });
        let retry = (self.retry_at > now).then_some(self.retry_at);
        let note = self.note_at.filter(|_| self.noting.is_none());
        let note = note.map(|at| at.max(self.retry_at));
        waits.chain(retry).chain(note).min()
    }

    // ---- what is answered ----

    /// The next databases; those that are to be looked at are given back.
    pub(super) fn on_page(&mut self, page: &Page, now: Instant) -> Vec<TenantId> {
        self.walking = false;
        let looks = std::mem::take(&mut self.looks);
        self.walk_ended = page.ended;
        self.walked = page.position.clone();
        let mut held = Vec::new();
        for target in &page.targets {
            let place = self.next_place;
            self.next_place += 1;
            let gone = match target.state {
                TargetState::Live | TargetState::Known => None,
                TargetState::Fenced => {
                    Some(("DATABASE_DAMAGED", "the database is damaged and fenced".to_owned()))
                }
                TargetState::Missing if target.name.is_empty() => {
                    Some((NOT_FOUND, "it was dropped".to_owned()))
                }
                TargetState::Missing => Some((NOT_FOUND, missing_text(&target.name))),
            };
            let looks = looks && target.state == TargetState::Live;
            if looks {
                held.push(target.id);
            }
            let known = target.state == TargetState::Known;
            let stage = if known { Stage::Kept } else { Stage::Waits(now) };
            let entry = Entry { target: target.clone(), stage, looks, tries: 0 };
            self.window.insert(place, entry);
            if let Some((code, text)) = gone {
                sometimes!("a job leaves a database alone");
                self.end(place, ResultStatus::Skipped, None, Some((code, text)), now);
            }
        }
        self.leave_behind();
        held
    }

    /// What is durable leaves the window, as far as nothing stands before it that is not.
    fn leave_behind(&mut self) {
        while let Some(first) = self.window.first_entry() {
            if first.get().stage != Stage::Kept {
                break;
            }
            self.row.position = first.remove().target.position;
        }
    }

    /// The catalogue has kept what it was told, durably: these databases are free again.
    pub(super) fn on_noted(&mut self) -> Vec<TenantId> {
        let count = self.noting.take().expect("it was told something");
        let kept: Vec<(u64, JobResult)> = self.results.drain(..count).collect();
        for (place, _) in &kept {
            let entry = self.window.get_mut(place).expect("it stays until its result is durable");
            entry.stage = Stage::Kept;
        }
        self.leave_behind();
        kept.into_iter().map(|(_, result)| result.database).collect()
    }

    /// The catalogue has no room, or is about to close.
    pub(super) fn on_call_refused(&mut self, now: Instant) {
        (self.walking, self.noting, self.erasing) = (false, None, false);
        self.retry_at = now.after(SECOND_NS);
        if !self.results.is_empty() {
            self.note_at = Some(self.retry_at);
        }
    }

    // ---- runs ----

    /// The next run, if one may begin: on a database that is `free`, or to look.
    pub(super) fn begin(
        &mut self,
        looking: bool,
        free: impl Fn(TenantId) -> bool,
        running: usize,
        now: Instant,
    ) -> Option<(u64, Run)> {
        let may_run = !looking && self.may_begin() && !self.is_canary_full(running);
        let script = match &self.script {
            Ok(script) => Arc::clone(script),
            Err(_) => return self.fail_all(now),
        };
        let ready = |entry: &Entry| {
            let due = matches!(entry.stage, Stage::Waits(at) if at <= now);
            due && (entry.looks || (may_run && free(entry.target.id)))
        };
        let (&place, entry) = self.window.iter_mut().find(|(_, entry)| ready(entry))?;
        entry.stage = Stage::Runs;
        let errand = if entry.looks { Errand::Look } else { Errand::Run };
        let run_ns = self.options.timeout_s * SECOND_NS;
        let (name, database) = (entry.target.name.clone(), entry.target.id);
        Some((place, Run { name, database, work: Migration { script, errand, run_ns } }))
    }

    /// The script in the catalogue cannot be read: an older version's, or damage.
    fn fail_all(&mut self, now: Instant) -> Option<(u64, Run)> {
        let text = self.script.as_ref().err().cloned().unwrap_or_default();
        let waits = |entry: &&Entry| matches!(entry.stage, Stage::Waits(_));
        let places: Vec<u64> =
            self.window.iter().filter(|(_, entry)| waits(entry)).map(|(&place, _)| place).collect();
        for place in places {
            self.end(
                place,
                ResultStatus::Failed,
                None,
                Some(("SCRIPT_UNREADABLE", text.clone())),
                now,
            );
        }
        None
    }

    /// The first databases are all under way.
    fn is_canary_full(&self, running: usize) -> bool {
        let first = self.canaries > 0 && !self.canary_passed && !self.row.retries;
        first && self.ended() + running as u64 >= self.canaries
    }

    /// A run has ended. Gives the database if nothing of it is left to keep.
    pub(super) fn on_end(&mut self, place: u64, end: RunEnd, now: Instant) -> Option<TenantId> {
        let entry = self.window.get_mut(&place)?;
        assert!(entry.stage == Stage::Runs);
        let database = entry.target.id;
        let looks = entry.looks;
        let (status, txid, reason) = match end {
            RunEnd::Ended(MigrationEnd::Done { txid, cost }) => {
                (ResultStatus::Done, Some((Some(txid), cost)), None)
            }
            RunEnd::Ended(MigrationEnd::DoneBefore) => {
                sometimes!("a job finds after a crash that it was done");
                (ResultStatus::Done, None, None)
            }
            RunEnd::Ended(MigrationEnd::NotDone) => {
                (entry.looks, entry.stage) = (false, Stage::Waits(now));
                return Some(database);
            }
            RunEnd::Ended(MigrationEnd::Failed { error, cost }) if !looks => {
                let StatementError { code, message } = error;
                (ResultStatus::Failed, Some((None, cost)), Some((code, message)))
            }
            RunEnd::Ended(MigrationEnd::Failed { error, .. } | MigrationEnd::Busy(error)) => {
                return self.put_aside(place, error.code, error.message, now);
            }
            RunEnd::Refused(Refusal::NotFound | Refusal::Unauthorised) => {
                sometimes!("a job finds a database dropped");
                (ResultStatus::Skipped, None, Some((NOT_FOUND, "it was dropped".into())))
            }
            RunEnd::Refused(Refusal::Fenced(reason)) => {
                (ResultStatus::Skipped, None, Some(("DATABASE_DAMAGED", reason)))
            }
            RunEnd::Refused(refusal) => {
                let problem = control::problem(&refusal, &entry.target.name);
                return self.put_aside(place, problem.code, problem.message.into_owned(), now);
            }
        };
        self.end(place, status, txid, reason, now);
        None
    }

    /// Nothing has begun: try again later, unless that was done often enough.
    fn put_aside(
        &mut self,
        place: u64,
        code: &'static str,
        message: String,
        now: Instant,
    ) -> Option<TenantId> {
        let entry = self.window.get_mut(&place)?;
        entry.tries += 1;
        if entry.tries >= limits::JOB_TRIES_MAX && !entry.looks {
            sometimes!("a job gives a busy database up");
            self.end(place, ResultStatus::Failed, None, Some((code, message)), now);
            return None;
        }
        sometimes!("a job puts a busy database aside");
        let delay_ns = (SECOND_NS << entry.tries.min(10)).min(limits::JOB_RETRY_NS_MAX);
        entry.stage = Stage::Waits(now.after(delay_ns));
        // One that may have been migrated stays with this job until that is known.
        (!entry.looks).then_some(entry.target.id)
    }

    /// A database has its result.
    fn end(
        &mut self,
        place: u64,
        status: ResultStatus,
        ran: Option<(Option<u64>, tenant::Cost)>,
        reason: Option<(&str, String)>,
        now: Instant,
    ) {
        let entry = self.window.get_mut(&place).expect("the caller has it");
        entry.stage = Stage::Ended;
        let tally = &mut self.row.tally;
        let number = entry.target.number.unwrap_or(tally.results);
        match entry.target.number {
            Some(_) => tally.failed -= 1,
            None => tally.results += 1,
        }
        match status {
            ResultStatus::Done => tally.done += 1,
            ResultStatus::Failed => tally.failed += 1,
            ResultStatus::Skipped => tally.skipped += 1,
        }
        let cost_micro = ran.map(|(_, cost)| tenant::request_units_micro(&cost));
        tally.cost_micro += cost_micro.unwrap_or(0);
        let (code, message) = reason.unzip();
        let result = JobResult {
            number,
            database: entry.target.id,
            status,
            txid: ran.and_then(|(txid, _)| txid),
            cost_micro,
            code: code.map(Into::into),
            message: message.map(|text| shortened(&text)),
            at_s: 0,
            name: None,
        };
        self.results.push((place, result));
        if self.note_at.is_none() {
            self.note_at = Some(now.after(limits::JOB_NOTE_NS));
        }
        self.judge();
    }

    /// Whether the job pauses or ends after the last result.
    fn judge(&mut self) {
        if !self.may_begin() {
            return;
        }
        let failed = self.row.tally.failed.saturating_sub(self.row.forgiven);
        let state = match self.options.on_error {
            OnError::Continue => None,
            OnError::Pause => Some(JobState::Paused),
            OnError::Cancel => Some(JobState::Cancelled),
        };
        if let Some(state) = state
            && failed >= self.options.max_failures
            && self.ended() < self.row.total
        {
            sometimes!("a job pauses or ends because of failures");
            self.ending = Some((state, Some("failures".into())));
            return;
        }
        let first = self.canaries > 0 && !self.canary_passed && !self.row.retries;
        if first && self.ended() >= self.canaries {
            self.canary_passed = true;
            let good = self.row.tally.failed == 0;
            if !(good && self.options.canary_auto) && self.ended() < self.row.total {
                sometimes!("a job pauses after its first databases");
                self.ending = Some((JobState::Paused, Some("canary".into())));
            }
        }
    }
}

const NOT_FOUND: &str = "DATABASE_NOT_FOUND";

/// As much of a message as is kept.
fn shortened(text: &str) -> Box<str> {
    let end = text.floor_char_boundary(limits::JOB_MESSAGE_BYTES_MAX);
    text[..end].into()
}
