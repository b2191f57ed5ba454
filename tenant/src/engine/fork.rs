//! Forks: which wait, which run, and what becomes of them. `copy` does the copying, `building` sees to it
//! that the copy is there when it is whole and not before.
//!
//! A fork begins with a row for the copy. Then its original is opened, if it is not open, and a task
//! copies it in the lowest class. Few run at a time: each holds a snapshot.

use std::collections::{BTreeMap, VecDeque};

use storage::TenantId;
use storage::io::Clock;
use storage::page::PAGE_BYTES;
use storage::sometimes;
use storage::volume::Volume;

use super::building::Unbuilt;
use super::context::Job;
use super::control::Form;
use super::copy::{CopyFailure, CopyOrder, CopyProgress};
use super::life::Tenant;
use super::patron::Patron;
use super::tasks::{Kind, Work};
use super::{Engine, Phase, Refusal};
use crate::budget::{Exceeded, Part, Priority};
use crate::catalogue::{DatabaseRow, Outcome, RowState};
use crate::limits;
use crate::pool::Key;

/// A copy that waits to be made.
struct Fork {
    patron: Patron,
    source: DatabaseRow,
    target: DatabaseRow,
}

/// See the head of the file.
#[derive(Default)]
pub(super) struct Forks {
    waiting: VecDeque<Fork>,
    /// What each copy holds, and how far it is, by what it is copied into.
    running: BTreeMap<Key, Held>,
}

/// A copy that is being made.
struct Held {
    bytes: u64,
    /// Pages copied, of so many.
    pages: (u32, u32),
}

impl Forks {
    /// Copies that wait and run.
    pub fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    /// One more that holds so many bytes may run.
    fn has_room(&self, bytes: u64) -> bool {
        let held: u64 = self.running.values().map(|held| held.bytes).sum();
        held + bytes <= limits::FORKS_BYTES_MAX && self.running.len() < limits::FORKS_MAX
    }
}

/// What the engine does next for a fork.
enum Next {
    /// Its original is open: copy it.
    Copy(Key),
    /// Its original is being opened or closed.
    Wait,
    /// Nobody has it open.
    Open,
    Refuse(Refusal),
}

impl<J: Job> Engine<J> {
    /// The catalogue has, or has not, a row for the copy.
    pub(super) fn fork_begun(&mut self, patron: Patron, outcome: Outcome) {
        let refusal = match outcome {
            Outcome::Build(rows) => {
                let (target, source) = *rows;
                let source = source.expect("a fork has its original");
                if self.forks.waiting.len() < limits::FORKS_WAITING_MAX {
                    return self.forks.waiting.push_back(Fork { patron, source, target });
                }
                let refusal = Refusal::Unbuilt(Unbuilt::TooMany(limits::FORKS_WAITING_MAX));
                return self.give_up(patron, target.id, refusal);
            }
            // The original, as it is.
            Outcome::Row(row) if row.state == RowState::Fenced => {
                Refusal::Fenced(row.reason.unwrap_or_default())
            }
            Outcome::Row(_) => Refusal::Building,
            outcome => match self.control_reply(Form::Row, outcome) {
                Ok(_) => unreachable!("a row was asked for"),
                Err(refusal) => refusal,
            },
        };
        self.tell_unbuilt(patron, refusal);
    }

    /// Begin what can begin, in the order in which they were asked for.
    pub(super) fn pump_forks(&mut self) {
        let mut at = 0;
        // Where one waits for its original, so do the next ones of the same.
        let mut waits_for = None;
        while let Some(fork) = self.forks.waiting.get(at) {
            if waits_for == Some(fork.source.id) {
                at += 1;
                continue;
            }
            if !self.forks.has_room(0) && self.is_serving() {
                return;
            }
            match self.next_for(fork) {
                Next::Copy(key) if !self.forks.has_room(self.copy_bytes(key)) => return,
                Next::Copy(key) => {
                    let fork = self.forks.waiting.remove(at).expect("looked at just now");
                    self.start_fork(key, fork);
                }
                Next::Wait => {
                    waits_for = Some(fork.source.id);
                    at += 1;
                }
                Next::Open => {
                    sometimes!("a fork opens its original");
                    let name = fork.source.name.clone();
                    let key = self.tenants.insert(Tenant::new(&name));
                    self.names.insert(name.as_str().into(), key);
                    self.find_in_catalogue(key, name, false);
                    at += 1;
                }
                Next::Refuse(refusal) => {
                    let fork = self.forks.waiting.remove(at).expect("looked at just now");
                    self.refuse_fork(fork, refusal);
                }
            }
        }
    }

    /// A small copy waits for nothing between its row, its pages, and the row that says that it is there: all
    /// of it is appended before the log is written, or it would wait for two batches more than it must.
    pub(super) fn hurry_forks(&mut self, clock: &dyn Clock) {
        for _ in 0..limits::FORK_STEPS {
            let is_small = |held: &Held| held.bytes < limits::FORK_BYTES;
            let has_small = self.forks.running.values().any(is_small) || self.has_fresh();
            if self.forks.waiting.is_empty() && !has_small {
                return;
            }
            self.pump_forks();
            self.pump_catalogue();
            self.run_tasks(clock, false);
        }
    }

    fn next_for(&self, fork: &Fork) -> Next {
        if self.phase != Phase::Serving {
            return Next::Refuse(Refusal::Unavailable);
        }
        let Some(&key) = self.ids.get(&fork.source.id) else {
            let asked = self.names.contains_key(fork.source.name.as_str());
            return if asked { Next::Wait } else { Next::Open };
        };
        let Some(tenant) = self.tenants.get(key) else { return Next::Wait };
        if tenant.dropped {
            return Next::Refuse(Refusal::NotFound);
        }
        if let Some(reason) = &tenant.fenced {
            return Next::Refuse(Refusal::Fenced(reason.clone()));
        }
        if tenant.volume.is_none() || tenant.is_closing() {
            return Next::Wait;
        }
        // A small copy takes less than the opening of another connection.
        if tenant.idle.is_empty() && tenant.copies > 0 && self.is_small(key) {
            return Next::Wait;
        }
        Next::Copy(key)
    }

    /// As far as is known, its copy will be a transaction in the log.
    fn is_small(&self, key: Key) -> bool {
        let most = u64::from(self.options.logged_copy_pages) * PAGE_BYTES as u64;
        self.tenants.get(key).is_some_and(|tenant| tenant.bytes() <= most)
    }

    /// What its copy holds while it is made: a small one its pages twice.
    fn copy_bytes(&self, key: Key) -> u64 {
        let bytes = self.tenants.get(key).map_or(0, Tenant::bytes);
        if self.is_small(key) { 2 * bytes } else { limits::FORK_BYTES }
    }

    fn refuse_fork(&mut self, fork: Fork, refusal: Refusal) {
        self.give_up(fork.patron, fork.target.id, refusal);
    }

    /// Somebody has dropped a copy: it is not begun if it was not yet, or would leave a file.
    pub(super) fn fork_target_dropped(&mut self, id: TenantId) {
        let waiting = &mut self.forks.waiting;
        let Some(index) = waiting.iter().position(|fork| fork.target.id == id) else { return };
        let fork = waiting.remove(index).expect("found just now");
        self.tell_unbuilt(fork.patron, Refusal::Unbuilt(Unbuilt::Dropped));
    }

    /// The catalogue has told of a database that is being opened: whether a fork waits for it. One whose
    /// original is not there any more, or cannot be told of, ends.
    pub(super) fn fork_source_found(&mut self, key: Key, outcome: &Outcome) -> bool {
        if self.forks.waiting.is_empty() {
            return false;
        }
        let Some(name) = self.tenants.get(key).map(|tenant| tenant.name.clone()) else {
            return false;
        };
        let mut found = false;
        for fork in std::mem::take(&mut self.forks.waiting) {
            if fork.source.name != *name {
                self.forks.waiting.push_back(fork);
                continue;
            }
            let refusal = match outcome {
                Outcome::Row(row) if row.id == fork.source.id => {
                    found = true;
                    self.forks.waiting.push_back(fork);
                    continue;
                }
                Outcome::Failed(text) => Refusal::Failed(text.clone()),
                Outcome::Full => Refusal::LogFull,
                _ => Refusal::NotFound,
            };
            sometimes!("the original of a fork is gone before it begins");
            self.refuse_fork(fork, refusal);
        }
        found
    }

    fn start_fork(&mut self, source: Key, fork: Fork) {
        let Fork { patron, target, .. } = fork;
        let target_key = self.open_building(patron, target);
        let tenant = self.tenants.get_mut(target_key).expect("opened just now");
        let (storage_bytes, is_small) = (tenant.limits.storage_bytes, self.is_small(source));
        let held_bytes = self.copy_bytes(source);
        let logged_pages = self.options.logged_copy_pages;
        let order = CopyOrder { storage_bytes, logged_pages, is_small };
        let pooled = self.tenants.get_mut(source).and_then(|tenant| tenant.idle.pop());
        let Some(task) = self.start_task(source, Kind::Copy, Work::Copy(order, pooled)) else {
            let refusal = Refusal::Failed("no memory for a fiber".into());
            return self.end_building(target_key, Err(refusal));
        };
        self.forks.running.insert(target_key, Held { bytes: held_bytes, pages: (0, 0) });
        self.tenants.get_mut(source).expect("it is copied").copies += 1;
        self.tasks.get_mut(task).expect("started just now").other = Some(target_key);
        self.tenants.get_mut(target_key).expect("opened just now").tasks += 1;
    }

    /// A copy is so far: a number that somebody may ask for.
    pub(super) fn note_copied(&mut self, key: Key, pages: (u32, u32)) {
        let target = self.tasks.get(key).and_then(|task| task.other);
        if let Some(held) = target.and_then(|target| self.forks.running.get_mut(&target)) {
            held.pages = pages;
        }
    }

    /// How far the copy is that this row is for, if it is being made or waits for that.
    pub(super) fn copy_progress(&self, row: &DatabaseRow) -> Option<CopyProgress> {
        if row.state != RowState::Building {
            return None;
        }
        let held = self.ids.get(&row.id).and_then(|key| self.forks.running.get(key));
        let waits = || self.forks.waiting.iter().any(|fork| fork.target.id == row.id);
        let (pages, pages_total) = match held {
            Some(held) => held.pages,
            None if waits() => (0, 0),
            // It is made of what somebody sends.
            None => return None,
        };
        let age_s = self.wall_s().saturating_sub(row.created_s.max(0) as u64);
        Some(CopyProgress { age_s, pages, pages_total })
    }

    /// Lend the task the other one of its two volumes from now on.
    pub(super) fn switch(&mut self, key: Key) {
        let task = self.tasks.get_mut(key).expect("the task runs");
        let other = task.other.as_mut().expect("only a copy has two");
        std::mem::swap(&mut task.tenant, other);
        self.hasten_snapshot(key);
        self.wake(key, storage::fiber::Input::Host(super::context::Reply::Done));
    }

    /// The longer a snapshot is needed, the more of the log it keeps: then it does not come last any more.
    pub(super) fn hasten_snapshot(&mut self, key: Key) {
        let Some(task) = self.tasks.get(key).filter(|task| task.holds_snapshot) else { return };
        let owners = [Some(task.tenant), task.other].into_iter().flatten();
        let volumes = owners.filter_map(|key| self.tenants.get(key)?.volume.as_ref());
        if volumes.map(Volume::wal_bytes).max() > Some(limits::SNAPSHOT_HURRY_BYTES) {
            sometimes!("a copy becomes more urgent");
            let task = self.tasks.get_mut(key).expect("looked at just now");
            task.priority = task.priority.max(Priority::Normal);
        }
    }

    /// Copies hold writers for a while only: see `pace`.
    pub(super) fn end_old_holds(&mut self) {
        for key in self.tasks.keys() {
            let Some(task) = self.tasks.get(key).filter(|task| task.holds_snapshot) else {
                continue;
            };
            for owner in [Some(task.tenant), task.other].into_iter().flatten() {
                let volume = self.tenants.get_mut(owner).and_then(|tenant| tenant.volume.as_mut());
                if volume.is_some_and(|volume| volume.locks.end_old_holds()) {
                    sometimes!("writers wait no longer for a copy that does not go on");
                    self.grant_writer(owner);
                }
            }
        }
    }

    /// The other one of a task's two databases is to end.
    pub(super) fn other_ends(&self, key: Key) -> bool {
        let other = self.tasks.get(key).and_then(|task| task.other);
        other.and_then(|other| self.tenants.get(other)).is_some_and(|tenant| tenant.ending)
    }

    /// A copy's task has ended.
    pub(super) fn copied(
        &mut self,
        source: Key,
        target: Key,
        overtaken: bool,
        result: Result<(), CopyFailure>,
    ) {
        self.forks.running.remove(&target);
        self.tenants.get_mut(source).expect("a task keeps its tenant").copies -= 1;
        let tenant = self.tenants.get_mut(target).expect("a task keeps its tenant");
        tenant.tasks -= 1;
        self.settle(target);
        if self.doomed {
            return;
        }
        let result = match result {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.copy_refusal(source, target, overtaken, failure)),
        };
        self.end_building(target, result);
    }

    fn copy_refusal(
        &self,
        source: Key,
        target: Key,
        overtaken: bool,
        failure: CopyFailure,
    ) -> Refusal {
        use storage::sqlite::SQLITE_FULL;
        if let Some(reason) = self.damage(source) {
            return Refusal::Fenced(reason);
        }
        let dropped = |key| self.tenants.get(key).is_none_or(|tenant: &Tenant<J>| tenant.dropped);
        match failure {
            CopyFailure::Interrupted if overtaken => Refusal::Unbuilt(Unbuilt::Overtaken),
            CopyFailure::Interrupted if dropped(source) => Refusal::NotFound,
            CopyFailure::Interrupted if dropped(target) => Refusal::Unbuilt(Unbuilt::Dropped),
            CopyFailure::Interrupted => Refusal::Unavailable,
            CopyFailure::Overtaken => Refusal::Unbuilt(Unbuilt::Overtaken),
            CopyFailure::TooLarge(wanted) => {
                let limit = self.tenants.get(target).map_or(0, |t| t.limits.storage_bytes);
                Refusal::Exceeded(Exceeded { part: Part::StorageBytes, limit, used: 0, wanted })
            }
            failure if failure.is_out_of_memory() => Refusal::Unbuilt(Unbuilt::NoMemory),
            CopyFailure::Write(code) if code & 0xff == SQLITE_FULL => {
                Refusal::Unbuilt(Unbuilt::DiskFull)
            }
            CopyFailure::Read(code, text) => Refusal::Failed(format!(
                "the original cannot be read: {text} (SQLite result {code})"
            )),
            CopyFailure::Write(code) => {
                Refusal::Failed(format!("the copy cannot be written (SQLite result {code})"))
            }
        }
    }

    /// Snapshots that keep logs from being let go are given up before those are full: what they are for can
    /// be asked for again, and commits cannot wait. So are those that somebody reads from for too long.
    pub(super) fn end_snapshots(&mut self) {
        let percent = limits::SNAPSHOT_LOG_PERCENT as u32;
        let until = self.log.as_ref().and_then(|log| log.sequence_at_pressure(percent));
        for key in self.tasks.keys() {
            let Some(task) = self.tasks.get(key).filter(|task| task.holds_snapshot) else {
                continue;
            };
            // The other one of a copy has nothing in the logs, or came just now.
            let owners = [Some(task.tenant), task.other].into_iter().flatten();
            let volumes = owners.filter_map(|key| self.tenants.get(key)?.volume.as_ref());
            let too_long = self.now.since(task.began()) > limits::SNAPSHOT_NS_MAX;
            let is_over = |volume: &Volume| {
                volume.wal_bytes() > limits::SNAPSHOT_WAL_BYTES_MAX
                    || volume
                        .redo_from()
                        .is_some_and(|redo| until.is_some_and(|until| redo < until))
            };
            if too_long || volumes.into_iter().any(is_over) {
                sometimes!("a snapshot is given up because logs fill");
                self.overtake_task(key);
            }
        }
    }
}
