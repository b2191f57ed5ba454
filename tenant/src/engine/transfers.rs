//! Reads and writes of tenants' files take turns as their tasks do: so many bytes are with the disk at
//! a time, and whose request is next is decided as late as that. A commit takes its turn before it
//! asks for room in the log, unless nobody waits; its bytes share the log's writes with others'.
//!
//! A checkpoint takes turns for its tenant too, unless others wait for it: for room in the log, for the
//! tenant's memory or end, or its writers for long. Nor is a request held up whose time is over. What
//! goes ahead like that is charged as well, and so are the bytes of the catalogue.

use storage::TenantId;
use storage::fiber::Answer;
use storage::io::Instant;
use storage::sometimes;

use super::Engine;
use super::context::Job;
use super::disk::{DiskOperation, DiskRequest, Operation, Step};
use super::life::Tenant;
use super::tasks::{Kind, Task};
use crate::limits;
use crate::pool::Key;
use crate::schedule::Scheduler;

/// Requests that wait for the disk, and what is with it.
pub(super) struct Transfers {
    pub schedule: Scheduler<Transfer>,
    bytes_in_flight: u64,
    commits_waiting: usize,
}

/// What a task waits to do.
pub(super) struct Transfer {
    task: Key,
    bytes: u64,
    act: Act,
}

enum Act {
    Operation(DiskRequest),
    /// A commit of so many pages.
    Commit(u32),
}

impl Default for Transfers {
    fn default() -> Transfers {
        Transfers {
            schedule: Scheduler::new(limits::IO_QUANTUM_BYTES / limits::WEIGHT),
            bytes_in_flight: 0,
            commits_waiting: 0,
        }
    }
}

impl Transfers {
    /// Disk operations that wait for their turn.
    pub fn operations_waiting(&self) -> usize {
        self.schedule.waiting() - self.commits_waiting
    }

    /// Nobody waits for a turn that could be had now, and no ceiling delays this leaf.
    fn is_free_for(&self, leaf: Key, now: Instant) -> bool {
        self.schedule.ready_at(now).is_none_or(|at| at > now)
            && self.schedule.delayed_until(leaf).is_none()
    }

    /// When the next one can be submitted.
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        let at = self.schedule.ready_at(now)?;
        // What is ready and has no room is looked at again when something has ended.
        (self.has_room() || self.commits_waiting > 0 && at > now).then_some(at)
    }

    fn has_room(&self) -> bool {
        self.bytes_in_flight < limits::IO_BYTES_IN_FLIGHT
    }
}

impl<J: Job> Engine<J> {
    /// A read or write for a task.
    pub(super) fn ask_transfer_of(
        &mut self,
        task: Key,
        step: Step,
        what: DiskOperation,
        bytes: u64,
    ) {
        let request = self.disk_request(Operation::Task(task, step), what);
        let entry = self.tasks.get(task).expect("a task asks");
        let tenant = self.tenants.get(entry.tenant).expect("a task keeps its tenant");
        let (priority, kind, key) = (entry.priority, entry.kind, entry.tenant);
        let leaf = tenant.place.expect("a tenant with tasks has its place").transfers;
        let takes_turns = match kind {
            Kind::Client(_) | Kind::Copy | Kind::Import(_) => true,
            Kind::Checkpoint => !self.is_checkpoint_urgent(key),
            _ => false,
        };
        if takes_turns && !self.doomed {
            let transfer = Transfer { task, bytes, act: Act::Operation(request) };
            self.transfers.schedule.push(leaf, priority, transfer, self.now);
            return;
        }
        self.transfers.schedule.charge_aside(leaf, priority, bytes, self.now);
        let tenant = self.submit_transfer(key, request, bytes);
        tenant.served.aside_bytes += bytes;
    }

    /// A transfer goes to the disk: only now it counts as its tenant's.
    fn submit_transfer(&mut self, tenant: Key, request: DiskRequest, bytes: u64) -> &mut Tenant<J> {
        let tenant = self.tenants.get_mut(tenant).expect("a task keeps its tenant");
        let (of_tenant, of_all) = match request.operation {
            DiskOperation::Write(..) => {
                (&mut tenant.usage.io_written_bytes, &mut self.counters.io_written_bytes)
            }
            _ => (&mut tenant.usage.io_read_bytes, &mut self.counters.io_read_bytes),
        };
        *of_tenant += bytes;
        *of_all += bytes;
        self.requests.push_back(request);
        tenant
    }

    /// Others wait for a tenant's checkpoint, or will soon.
    pub(super) fn is_checkpoint_urgent(&self, key: Key) -> bool {
        let Some(tenant) = self.tenants.get(key) else { return true };
        let pressure = limits::LOG_PRESSURE_PERCENT as u32;
        let log = self.log.as_ref();
        let log_fills = log.is_none_or(|log| log.sequence_at_pressure(pressure).is_some())
            || self.has_log_waiters();
        let writer_waits = tenant.writers.front().is_some_and(|&(writer, _)| {
            let until = self.tasks.get(writer).map_or(self.now, Task::wait_ends);
            let left_ns = until.since(self.now);
            left_ns < limits::WRITER_WAIT_NS - limits::CHECKPOINT_PATIENCE_NS
        });
        let serving = self.is_serving() && tenant.id != TenantId::CATALOGUE;
        !serving || tenant.is_ended() || tenant.is_closing() || log_fills || writer_waits
    }

    /// Hand requests to the disk while it may have more. A commit whose turn it is waits for no room: it
    /// goes into the log's next batch, whatever is with the disk for others.
    pub(super) fn pump_transfers(&mut self) {
        while self.transfers.has_room() || self.transfers.commits_waiting > 0 {
            let Some(turn) = self.transfers.schedule.next(self.now) else { return };
            if matches!(turn.work.act, Act::Operation(_)) && !self.transfers.has_room() {
                return self.transfers.schedule.put_back(turn, self.now);
            }
            self.transfers.schedule.charge(&turn, turn.work.bytes, self.now);
            let Transfer { task, bytes, act } = turn.work;
            let request = match act {
                Act::Operation(request) => request,
                Act::Commit(pages) => {
                    self.begin_commit(task, bytes, pages);
                    continue;
                }
            };
            let Some(task) = self.tasks.get_mut(task) else { continue };
            task.transfer_bytes = bytes;
            self.transfers.bytes_in_flight += bytes;
            let key = task.tenant;
            let tenant = self.submit_transfer(key, request, bytes);
            tenant.served.transfer_bytes += bytes;
        }
    }

    /// A task is about to commit so many pages: it may ask for room in the log, or waits for its turn.
    pub(super) fn ask_commit(&mut self, key: Key, pages: u32) -> Option<Answer> {
        let task = self.tasks.get_mut(key).expect("the task runs");
        task.commit_charged_bytes = 0;
        let tenant = self.tenants.get(task.tenant).expect("a task keeps its tenant");
        let leaf = tenant.place.expect("a tenant with tasks has its place").transfers;
        let takes_turns = matches!(task.kind, Kind::Client(_) | Kind::Import(_) | Kind::Copy);
        if !takes_turns || self.transfers.is_free_for(leaf, self.now) {
            return self.wait_for_log_space(key, pages);
        }
        sometimes!("a commit waits for its turn at the disk");
        let log = self.log.as_ref().expect("nothing runs before the log is open");
        let bytes = log.transaction_bytes(pages);
        let transfer = Transfer { task: key, bytes, act: Act::Commit(pages) };
        self.transfers.commits_waiting += 1;
        self.transfers.schedule.push(leaf, task.priority, transfer, self.now);
        None
    }

    /// A commit has had its turn, and has been charged.
    fn begin_commit(&mut self, key: Key, bytes: u64, pages: u32) {
        self.transfers.commits_waiting -= 1;
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.commit_charged_bytes = bytes;
        // Counted when it is charged: what is filled up until it is written would be lost otherwise.
        if let Some(tenant) = self.tenants.get_mut(task.tenant) {
            tenant.served.aside_bytes += bytes;
        }
        if let Some(answer) = self.wait_for_log_space(key, pages) {
            self.answer(key, answer);
        }
    }

    /// Let what a task waits to do go ahead, although it is not its turn.
    pub(super) fn hasten_transfer(&mut self, key: Key) {
        let Some(task) = self.tasks.get(key) else { return };
        let (tenant_key, priority) = (task.tenant, task.priority);
        let Some(place) = self.tenants.get(tenant_key).and_then(|tenant| tenant.place) else {
            return;
        };
        let schedule = &mut self.transfers.schedule;
        let asked = schedule.take(place.transfers, self.now, |transfer| transfer.task == key);
        let Some(Transfer { bytes, act, .. }) = asked else { return };
        schedule.charge_aside(place.transfers, priority, bytes, self.now);
        match act {
            Act::Operation(request) => {
                let tenant = self.submit_transfer(tenant_key, request, bytes);
                tenant.served.aside_bytes += bytes;
            }
            Act::Commit(pages) => self.begin_commit(key, bytes, pages),
        }
    }

    /// A task's operation has ended.
    pub(super) fn transfer_ended(&mut self, task: Key) {
        if let Some(task) = self.tasks.get_mut(task) {
            self.transfers.bytes_in_flight -= std::mem::take(&mut task.transfer_bytes);
        }
    }

    /// Bytes of a commit in the log: they have been written with others'.
    pub(super) fn charge_commit(&mut self, task: Key, tenant: Key, bytes: u64) {
        let Some(task) = self.tasks.get_mut(task) else { return };
        let Some(tenant) = self.tenants.get_mut(tenant) else { return };
        tenant.usage.io_written_bytes += bytes;
        self.counters.io_written_bytes += bytes;
        let place = tenant.place.expect("a tenant with tasks has its place");
        let bytes = bytes.saturating_sub(std::mem::take(&mut task.commit_charged_bytes));
        tenant.served.aside_bytes += bytes;
        let schedule = &mut self.transfers.schedule;
        schedule.charge_aside(place.transfers, task.priority, bytes, self.now);
    }
}
