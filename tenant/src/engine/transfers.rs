//! Reads and writes of tenants' files take turns as their tasks do: so many bytes are with the disk at
//! a time, and whose request is next is decided as late as that.
//!
//! What the engine does for itself is not held up here, but a checkpoint's bytes count for its tenant,
//! and so do those of its commits, which share the log's writes with others.

use storage::io::Instant;

use super::Engine;
use super::context::Job;
use super::disk::{DiskOperation, DiskRequest, Operation, Step};
use super::tasks::Kind;
use crate::limits;
use crate::pool::Key;
use crate::schedule::Scheduler;

/// Requests that wait for the disk, and what is with it.
pub(super) struct Transfers {
    pub schedule: Scheduler<Transfer>,
    bytes_in_flight: u64,
}

/// A task's request that waits for its turn.
pub(super) struct Transfer {
    task: Key,
    bytes: u64,
    request: DiskRequest,
}

impl Default for Transfers {
    fn default() -> Transfers {
        Transfers {
            schedule: Scheduler::new(limits::IO_QUANTUM_BYTES / limits::WEIGHT),
            bytes_in_flight: 0,
        }
    }
}

impl Transfers {
    /// When the next one can be submitted.
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        let room = self.bytes_in_flight < limits::IO_BYTES_IN_FLIGHT;
        if room { self.schedule.ready_at(now) } else { None }
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
        let writes = matches!(what, DiskOperation::Write(..));
        let request = self.disk_request(Operation::Task(task, step), what);
        let entry = self.tasks.get(task).expect("a task asks");
        let tenant = self.tenants.get_mut(entry.tenant).expect("a task keeps its tenant");
        match writes {
            true => {
                tenant.usage.io_written_bytes += bytes;
                self.counters.io_written_bytes += bytes;
            }
            false => {
                tenant.usage.io_read_bytes += bytes;
                self.counters.io_read_bytes += bytes;
            }
        }
        let priority = entry.priority;
        let leaf = tenant.place.expect("a tenant with tasks has its place").transfers;
        if matches!(entry.kind, Kind::Client(_)) && !self.doomed {
            let transfer = Transfer { task, bytes, request };
            self.transfers.schedule.push(leaf, priority, transfer, self.now);
            return;
        }
        tenant.served.aside_bytes += bytes;
        self.transfers.schedule.charge_aside(leaf, priority, bytes, self.now);
        self.requests.push_back(request);
    }

    /// Hand requests to the disk while it may have more.
    pub(super) fn pump_transfers(&mut self) {
        while self.transfers.bytes_in_flight < limits::IO_BYTES_IN_FLIGHT {
            let Some(turn) = self.transfers.schedule.next(self.now) else { return };
            self.transfers.schedule.charge(&turn, turn.work.bytes, self.now);
            let Transfer { task, bytes, request } = turn.work;
            if let Some(task) = self.tasks.get_mut(task) {
                task.transfer_bytes = bytes;
                self.transfers.bytes_in_flight += bytes;
                if let Some(tenant) = self.tenants.get_mut(task.tenant) {
                    tenant.served.transfer_bytes += bytes;
                }
            }
            self.requests.push_back(request);
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
        let Some(task) = self.tasks.get(task) else { return };
        let Some(tenant) = self.tenants.get_mut(tenant) else { return };
        tenant.usage.io_written_bytes += bytes;
        self.counters.io_written_bytes += bytes;
        tenant.served.aside_bytes += bytes;
        let place = tenant.place.expect("a tenant with tasks has its place");
        let schedule = &mut self.transfers.schedule;
        schedule.charge_aside(place.transfers, task.priority, bytes, self.now);
    }
}
