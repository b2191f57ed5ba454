//! What fibers wait for in this crate: their tenant's writer lock, room in the log, a commit's place in a
//! batch, and that it is durable. What they wait for at the disk is in `transfers` and `disk`.

use storage::fiber::{Answer, Wait};
use storage::log::{Class, Sequence, page_check};
use storage::sometimes;
use storage::volume::{ConnectionId, Volume};

use super::context::Job;
use super::disk::DiskOperation;
use super::tasks::Kind;
use super::{Engine, Failure, Phase, Timer, Unsealed};
use crate::limits;
use crate::pool::Key;

impl<J: Job> Engine<J> {
    /// What is answered at once is returned; else somebody will wake the task.
    pub(super) fn on_wait(&mut self, key: Key, tenant_key: Key, wait: Wait) -> Option<Answer> {
        if self.doomed {
            return Some(Answer::Failed(std::io::ErrorKind::Other));
        }
        let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
        let id = tenant.id;
        match wait {
            Wait::Turn => {
                self.answer(key, Answer::Ready);
                None
            }
            Wait::OpenMain { create, direct } => {
                self.ask_open_main(key, id, create, direct);
                None
            }
            Wait::OpenTemporary => {
                self.ask_temporary(key);
                None
            }
            Wait::Read { file, offset, buffer } => {
                self.ask_transfer(key, false, file, offset, buffer);
                None
            }
            Wait::Write { file, offset, buffer } => {
                self.ask_transfer(key, true, file, offset, buffer);
                None
            }
            Wait::Sync(file) => {
                self.ask_plain(key, DiskOperation::Sync(file));
                None
            }
            Wait::Truncate(file, size) => {
                self.ask_plain(key, DiskOperation::Truncate(file, size));
                None
            }
            Wait::ReadLog(location) => {
                self.ask_log_page(key, location);
                None
            }
            Wait::Writer(connection) => self.wait_for_writer(key, tenant_key, connection),
            Wait::LogSpace { pages } => self.ask_commit(key, pages),
            Wait::Seal => self.seal(key, tenant_key),
            Wait::Durable => self.wait_until_durable(key, tenant_key),
        }
    }

    /// For everything of the tenant that can be seen now: what a checkpoint is about to write must
    /// be in the log.
    pub(super) fn wait_until_durable(&mut self, key: Key, tenant_key: Key) -> Option<Answer> {
        if self.is_sealing(tenant_key) {
            self.unsealed.entry(tenant_key).or_default().push(Unsealed::Task(key));
            return None;
        }
        let durable = self.durable();
        match self.last_sequence(tenant_key) {
            Some(sequence) if sequence > durable => {
                self.durable_waiters.entry(sequence).or_default().push(key);
                None
            }
            _ => Some(Answer::Ready),
        }
    }

    /// The batch in which the catalogue said that the tenant exists, or the tenant's last commit.
    pub(super) fn last_sequence(&self, tenant: Key) -> Option<Sequence> {
        let tenant = self.tenants.get(tenant)?;
        let committed = tenant.volume.as_ref()?.last_sequence();
        committed.max(Some(tenant.known_since))
    }

    pub(super) fn wait_for_writer(
        &mut self,
        key: Key,
        tenant_key: Key,
        connection: ConnectionId,
    ) -> Option<Answer> {
        // Only checkpoints make log space: they do not wait for writers that wait for it.
        if !self.log_waiters.is_empty() && self.is_checkpoint(key) {
            return Some(Answer::TimedOut);
        }
        let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
        if tenant.dropped {
            return Some(Answer::TimedOut);
        }
        sometimes!("a statement waits for the writer lock");
        tenant.writers.push_back((key, connection));
        let idle_ns = tenant.limits.transaction_idle_ns;
        self.bound_wait(key, limits::WRITER_WAIT_NS, Timer::WriterWait(key));
        self.set_timer(idle_ns, Timer::TransactionIdle(tenant_key));
        None
    }

    /// Let the task's present wait end after a time.
    pub(super) fn bound_wait(&mut self, key: Key, after_ns: u64, timer: Timer) {
        self.tasks.get_mut(key).expect("the task runs").wait_ends = self.now.after(after_ns);
        self.set_timer(after_ns, timer);
    }

    /// The wait that a timer was set for is over, and is still the present one.
    pub(super) fn wait_is_over(&self, key: Key) -> bool {
        self.tasks.get(key).is_some_and(|task| task.wait_ends <= self.now)
    }

    /// The timer of a wait for the writer lock has fired.
    pub(super) fn writer_wait_over(&mut self, key: Key) {
        if self.wait_is_over(key) {
            self.writer_timed_out(key);
        }
    }

    /// Requests whose time is over, or that nobody waits for any more, do not wait for their budgets
    /// either: they run on and end. Nor do checkpoints that have become urgent.
    pub(super) fn hasten_ended(&mut self) {
        self.end_snapshots();
        self.end_old_holds();
        let stopping = self.is_stopping();
        let delays = self.schedule.has_delays() || self.transfers.schedule.has_delays();
        let tasks = if delays { self.tasks.keys() } else { Vec::new() };
        for key in tasks {
            let Some(task) = self.tasks.get(key) else { continue };
            let Some(tenant) = self.tenants.get(task.tenant) else { continue };
            let ended = task.overtaken
                || task.cancelled
                || tenant.ending
                || task.is_overdue(&tenant.limits, self.now);
            let hastens = match task.kind {
                Kind::Client(_) | Kind::Import(_) => ended || stopping,
                Kind::Checkpoint => self.is_checkpoint_urgent(task.tenant),
                Kind::Copy => ended || stopping || self.other_ends(key),
                _ => false,
            };
            if !hastens {
                continue;
            }
            let Some(place) = tenant.place else { continue };
            if self.schedule.delayed_until(place.turns).is_some()
                && self.schedule.take(place.turns, self.now, |&task| task == key).is_some()
            {
                sometimes!(
                    "a request that has ended does not wait for its budget of processor time"
                );
                self.system.push_back(key);
            }
            if self.transfers.schedule.delayed_until(place.transfers).is_some() {
                self.hasten_transfer(key);
            }
        }
        self.watch_tasks();
    }

    /// Look again in a while, as long as there are tasks.
    pub(super) fn watch_tasks(&mut self) {
        self.tasks_watched = !self.tasks.is_empty();
        if self.tasks_watched {
            self.set_timer(limits::OVERDUE_LOOK_NS, Timer::Overdue);
        }
    }

    fn is_copy(&self, key: Key) -> bool {
        self.tasks.get(key).is_some_and(|task| task.kind == Kind::Copy)
    }

    pub(super) fn is_checkpoint(&self, key: Key) -> bool {
        self.tasks.get(key).is_some_and(|task| task.kind == Kind::Checkpoint)
    }

    /// Somebody waits for log space: checkpoints that wait for a writer go on without.
    pub(super) fn release_checkpoints(&mut self) {
        for key in self.tasks.keys() {
            if self.is_checkpoint(key) {
                self.writer_timed_out(key);
                self.hasten_transfer(key);
            }
        }
    }

    /// Somebody waits for the writer lock for whom an idle transaction has to go: a client, or a
    /// checkpoint while the log is short of space or the server stops. Otherwise a checkpoint can
    /// wait, or be tried again: it must not cost a lone client its transaction.
    pub(super) fn is_writer_wanted(&self, tenant_key: Key) -> bool {
        let Some(tenant) = self.tenants.get(tenant_key) else { return false };
        let pressure = limits::LOG_PRESSURE_PERCENT as u32;
        let log = self.log.as_ref();
        let urgent = self.phase != Phase::Serving
            || log.is_some_and(|log| log.sequence_at_pressure(pressure).is_some());
        tenant.writers.iter().any(|&(waiter, _)| {
            let kind = self.tasks.get(waiter).map(|task| task.kind);
            urgent || !matches!(kind, Some(Kind::Checkpoint))
        })
    }

    /// Promise the writer lock to the longest waiter, if it is free.
    pub(super) fn grant_writer(&mut self, tenant_key: Key) {
        let Some(tenant) = self.tenants.get_mut(tenant_key) else { return };
        let Some(volume) = &mut tenant.volume else { return };
        if !volume.locks.writer_free() {
            return;
        }
        if let Some((task, connection)) = tenant.writers.pop_front() {
            sometimes!("the writer lock is handed to one who waits");
            volume.locks.reserve_writer(connection);
            self.answer(task, Answer::Ready);
        }
    }

    pub(super) fn writer_timed_out(&mut self, key: Key) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(tenant) = self.tenants.get_mut(task.tenant) else { return };
        let Some(index) = tenant.writers.iter().position(|&(waiter, _)| waiter == key) else {
            return;
        };
        tenant.writers.remove(index);
        self.answer(key, Answer::TimedOut);
    }

    pub(super) fn log_class(&self, key: Key) -> Class {
        match self.tasks.get(key).map(|task| task.kind) {
            Some(Kind::Catalogue | Kind::Checkpoint) => Class::System,
            _ => Class::Tenant,
        }
    }

    /// Tell the log what its tenants owe it: the checkpoint of each that has pages in it, or is
    /// about to bring some, takes log space too. Without that a full log could not drain (LOG-2).
    pub(super) fn count_owed(&mut self) {
        let tenants = (self.dirty.len() + self.tasks.len()) as u64;
        if let Some(log) = &mut self.log {
            let each = log.transaction_bytes(limits::CHECKPOINT_ROW_PAGES)
                + log.transaction_bytes(limits::CHECKPOINT_STAMP_PAGES);
            log.set_owed(tenants * each);
        }
    }

    pub(super) fn wait_for_log_space(&mut self, key: Key, pages: u32) -> Option<Answer> {
        let class = self.log_class(key);
        self.count_owed();
        let bytes = self.log.as_ref()?.transaction_bytes(pages);
        // Small commits do not overtake a large one that waits; what makes space overtakes all.
        let log = self.log.as_mut()?;
        let in_turn = class == Class::System || self.log_waiters.is_empty();
        let refused = if in_turn { log.reserve(bytes, class).err() } else { None };
        match refused {
            None if in_turn => return Some(Answer::Ready),
            Some(full) if full.wanted > full.capacity => return Some(Answer::Full),
            // It has another way.
            _ if self.is_copy(key) => return Some(Answer::Full),
            Some(_) | None => {}
        }
        self.release_checkpoints();
        self.tasks.get_mut(key).expect("the task runs").log_pages = Some(pages);
        match class {
            Class::System => self.log_waiters.push_front(key),
            Class::Tenant => self.log_waiters.push_back(key),
        }
        self.bound_wait(key, limits::LOG_WAIT_NS, Timer::LogWait(key));
        None
    }

    /// Space may have become free: serve the waiters in order, those first on whom it depends that
    /// more becomes free.
    pub(super) fn retry_log_waiters(&mut self) {
        self.log_waiters.retain(|&key| self.tasks.get(key).is_some());
        self.count_owed();
        for class in [Class::System, Class::Tenant] {
            if class == Class::Tenant && self.catalogue.held_since.is_some() {
                self.pump_catalogue();
            }
            let waiting = self.log_waiters.iter().copied();
            let keys: Vec<Key> = waiting.filter(|&key| self.log_class(key) == class).collect();
            for key in keys {
                if !self.grant_log_space(key, class) {
                    break;
                }
            }
        }
    }

    pub(super) fn grant_log_space(&mut self, key: Key, class: Class) -> bool {
        let Some(task) = self.tasks.get_mut(key) else { return true };
        let pages = task.log_pages.expect("a waiter says what it waits for");
        let Some(log) = &mut self.log else { return false };
        if log.reserve(log.transaction_bytes(pages), class).is_err() {
            return false;
        }
        sometimes!("a wait for log space ends well");
        task.log_pages = None;
        self.log_waiters.retain(|&waiter| waiter != key);
        self.answer(key, Answer::Ready);
        true
    }

    pub(super) fn log_wait_timed_out(&mut self, key: Key) {
        if !self.wait_is_over(key) {
            return;
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.log_pages.take().is_some() {
            sometimes!("a wait for log space ends in vain");
            self.log_waiters.retain(|&waiter| waiter != key);
            self.answer(key, Answer::TimedOut);
            self.retry_log_waiters();
        }
    }

    pub(super) fn retry_log_disk(&mut self) {
        self.disk_retry = false;
        let Some(log) = &mut self.log else { return };
        if self.phase == Phase::Stopping
            && let Some(reason) = log.write_refused()
        {
            self.stop_retries += 1;
            if self.stop_retries > limits::STOP_RETRIES_MAX {
                let text = format!("the disk has no room for the end of the log: {reason}");
                return self.fail(Failure::Log(text));
            }
        }
        if log.disk_refused().is_some() {
            log.retry_disk();
        }
        self.retry_log_waiters();
    }

    /// Append the volume's sealing transaction to the log, as far as it goes.
    pub(super) fn seal(&mut self, key: Key, tenant_key: Key) -> Option<Answer> {
        let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
        let volume = tenant.volume.as_mut().expect("a tenant with tasks has a volume");
        let log = self.log.as_mut().expect("nothing runs before the log is open");
        match append(volume, log) {
            Appended::All(bytes) => {
                self.counters.commits += 1;
                self.charge_commit(key, tenant_key, bytes);
                Some(Answer::Ready)
            }
            Appended::Bring(frame) => Some(Answer::Bring(frame)),
            Appended::BatchFull => {
                self.batch_waiters.push_back(key);
                None
            }
        }
    }

    /// A batch was written: those whose pages did not fit go on.
    pub(super) fn retry_batch_waiters(&mut self) {
        for _ in 0..self.batch_waiters.len() {
            let Some(key) = self.batch_waiters.pop_front() else { return };
            let Some(tenant_key) = self.tasks.get(key).map(|task| task.tenant) else { continue };
            if let Some(answer) = self.seal(key, tenant_key) {
                self.answer(key, answer);
                self.settle(tenant_key);
            }
        }
    }
}

enum Appended {
    /// So many bytes, with what is written beside the pages.
    All(u64),
    Bring(u32),
    BatchFull,
}

fn append(volume: &mut Volume, log: &mut storage::log::Log) -> Appended {
    let tenant = volume.tenant();
    let txid = volume.last_txid() + 1;
    let reserved = volume.reserved_pages;
    let Volume { sealing, wal, reserved_pages, logged_build, .. } = volume;
    let sealing = sealing.as_mut().expect("something is being sealed");
    if sealing.transaction.is_none() {
        let pages = u32::try_from(sealing.pages.len()).expect("pages fit in 32 bits");
        let reserved = reserved.expect("a commit has reserved its space");
        assert!(pages > 0 && pages <= reserved);
        log.unreserve(log.transaction_bytes(reserved) - log.transaction_bytes(pages));
        *reserved_pages = None;
        let transaction = log.begin(tenant, txid, sealing.database_pages, pages);
        if let Some(build) = logged_build {
            build.number = Some(log.track(&transaction));
        }
        sealing.transaction = Some(transaction);
    }
    let transaction = sealing.transaction.as_mut().expect("begun above");
    while let Some(&(number, frame)) = sealing.pages.get(sealing.next) {
        let offset = Volume::frame_page_offset(frame);
        let pushed = match sealing.brought.take() {
            Some(page) => {
                let pushed = log.push_page(transaction, number, &page, page_check(&page));
                if pushed.is_err() {
                    sealing.brought = Some(page);
                }
                pushed
            }
            None => {
                let mut page = [0; storage::page::PAGE_BYTES];
                if !wal.copy_from_memory(offset, &mut page) {
                    return Appended::Bring(frame);
                }
                let check = sealing.checks[sealing.next].unwrap_or_else(|| page_check(&page));
                log.push_page(transaction, number, &page, check)
            }
        };
        if pushed.is_err() {
            return Appended::BatchFull;
        }
        sealing.next += 1;
    }
    let transaction = sealing.transaction.take().expect("begun above");
    let bytes = log.transaction_bytes(sealing.pages.len() as u32);
    let committed = log.finish(transaction);
    sealing.first_sequence = Some(committed.first);
    if let Some(build) = logged_build {
        build.committed = Some(committed);
    }
    volume.end_sealing(committed.last);
    Appended::All(bytes)
}
