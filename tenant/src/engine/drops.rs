//! Drops: from the tombstone to the receipt.
//!
//! A drop is answered when everything that the database held has been given back: its fibers have
//! ended, its volume is closed, its file is removed and its folder synced. The receipt says what was
//! taken on each account since it was opened, and what was returned; the two are counted apart
//! (`storage::ledger`). Where they differ there is a bug: it is counted, and the simulator fails.

use std::io::ErrorKind;

use storage::TenantId;
use storage::ledger::{self, KINDS};
use storage::page::PAGE_BYTES;
use storage::sometimes;
use storage::volume::Volume;

use super::context::Job;
use super::control::{Asker, ControlReply};
use super::disk::{DiskOperation, DiskReply, Operation, RemoveStep};
use super::ephemeral::is_memory;
use super::tasks::Kind;
use super::{Engine, Event, Refusal, RequestId};
use crate::catalogue::{Call, DatabaseRow, RowState};
use crate::pool::Key;
use crate::statement::Gone;

/// What a database took and gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// What was booked on its account while it was last open, by [`storage::ledger::KIND_NAMES`]; all
    /// zero if it was not open when it was dropped.
    pub taken: [u64; KINDS],
    /// What was taken off again.
    pub returned: [u64; KINDS],
    /// Files that it may have had on disk: none or one.
    pub files_taken: u64,
    /// Files of it that are on disk no more.
    pub files_returned: u64,
    /// Pages of the database, as of its last commit or checkpoint.
    pub pages_taken: u64,
    /// Those that are no more.
    pub pages_returned: u64,
}

impl Receipt {
    /// Everything came back.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.taken == self.returned
            && self.files_taken == self.files_returned
            && self.pages_taken == self.pages_returned
    }

    /// Add another's.
    pub fn add(&mut self, other: &Receipt) {
        for kind in 0..KINDS {
            self.taken[kind] += other.taken[kind];
            self.returned[kind] += other.returned[kind];
        }
        self.files_taken += other.files_taken;
        self.files_returned += other.files_returned;
        self.pages_taken += other.pages_taken;
        self.pages_returned += other.pages_returned;
    }
}

/// Who waits for a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropper {
    /// Nobody: it ended by itself.
    Nobody,
    /// A request on the control API.
    Control(RequestId),
    /// One that drops many.
    Bulk(RequestId),
}

/// A drop whose database still holds something.
pub(super) struct Dropping {
    dropper: Dropper,
    row: DatabaseRow,
    receipt: Receipt,
}

impl<J: Job> Engine<J> {
    /// The tombstone is written: wait for what the database holds.
    pub(super) fn begin_drop(&mut self, row: &DatabaseRow, dropper: Dropper) {
        let dropping = Dropping { dropper, row: row.clone(), receipt: Receipt::default() };
        self.drops.insert(row.id, dropping);
    }

    /// What runs on a database that was dropped waits for nothing any more: not for a client that
    /// reads slowly, nor for a writer whose stream is parked.
    pub(super) fn hasten_drop(&mut self, key: Key) {
        for task in self.tasks.keys() {
            let of_it = self.tasks.get(task).filter(|task| task.tenant == key);
            match of_it.map(|task| task.kind) {
                Some(Kind::Client(_)) => self.release_task(task),
                // What its sender still has to send is not waited for.
                Some(Kind::Import(request)) => self.supply(request, Err(Gone)),
                _ => {}
            }
        }
    }

    /// The volume of a dropped database is closed: `pages` were in it, and its account is this.
    pub(super) fn note_returned(&mut self, id: TenantId, pages: u64, account: ledger::Turnover) {
        let Some(dropping) = self.drops.get_mut(&id) else { return };
        let receipt = &mut dropping.receipt;
        (receipt.taken, receipt.returned) = (account.taken, account.returned);
        receipt.pages_taken = pages;
    }

    /// What is left of a dropped database is its file, if it has one.
    pub(super) fn note_file(&mut self, id: TenantId, file: bool) {
        let Some(dropping) = self.drops.get_mut(&id) else { return };
        dropping.receipt.files_taken = u64::from(file);
        if dropping.receipt.pages_taken == 0 {
            dropping.receipt.pages_taken = dropping.row.bytes / PAGE_BYTES as u64;
        }
    }

    /// Nothing is left of a dropped database, or its file cannot be removed now.
    pub(super) fn end_drop(&mut self, id: TenantId, removed: bool) {
        let Some(Dropping { dropper, row, mut receipt }) = self.drops.remove(&id) else { return };
        if removed {
            receipt.files_returned = receipt.files_taken;
            receipt.pages_returned = receipt.pages_taken;
        }
        self.counters.drops += 1;
        if receipt.taken != receipt.returned {
            self.counters.uneven_receipts += 1;
        }
        if !removed {
            sometimes!("a drop is answered although its file stays for now");
        }
        match dropper {
            Dropper::Nobody => {}
            Dropper::Bulk(request) => self.bulk_dropped(request, &receipt),
            Dropper::Control(request) => {
                let reply = ControlReply::Dropped(Box::new((row, receipt)));
                self.emit_gated(self.catalogue_key, Event::Control(request, reply));
            }
        }
    }
}

impl<J: Job> Engine<J> {
    /// The catalogue has the tombstone: end the tenant's life.
    pub(super) fn on_dropped(&mut self, name: &str, row: &DatabaseRow, dropper: Dropper) {
        self.begin_drop(row, dropper);
        if is_memory(row.id) {
            self.free_name_in_memory(row);
        }
        self.fork_target_dropped(row.id);
        let started = self.recovered_rows.remove(&row.id).is_some();
        self.catalogue.used.remove(&row.id);
        // A first checkpoint that failed for good leaves a file that the row does not tell of.
        let mut file = row.file || matches!(row.state, RowState::Fenced | RowState::Building);
        // A first checkpoint of an earlier life may have made it.
        file |= started && self.recovered.contains_key(&row.id);
        self.forget_logged(row.id);
        let open = self.ids.get(&row.id).copied();
        let Some(key) = open else { return self.remove_dropped(row.id, file) };
        sometimes!("a tenant is dropped while it is open");
        // Of one that is being built nobody has found the name; one that asks for it now is told.
        if self.names.get(name) == Some(&key) {
            self.names.remove(name);
        }
        let tenant = self.tenants.get_mut(key).expect("an id in use has its tenant");
        // Free the name at once: the entry keeps one that nobody can ask for.
        tenant.name = "".into();
        tenant.dropped = true;
        tenant.ending = true;
        let waiting = std::mem::take(&mut tenant.waiting);
        for (request, ..) in waiting {
            self.emit(Event::Refused(request, Refusal::NotFound));
        }
        self.hasten_drop(key);
        self.note_redo(key);
        self.trim_log();
        self.go_on_closing(key);
    }

    pub(super) fn remove_dropped(&mut self, id: TenantId, file: bool) {
        self.note_file(id, file);
        if is_memory(id) {
            return self.end_drop(id, true);
        }
        if !file {
            self.end_drop(id, true);
            return self.call_catalogue(Asker::Nobody, Call::Forget(id));
        }
        let catalogue = self.tenants.get(self.catalogue_key).and_then(|t| t.volume.as_ref());
        let tombstone = catalogue.and_then(Volume::last_sequence).unwrap_or_default();
        self.catalogue.removals.push((tombstone, id));
        self.settle_removals();
    }

    /// Remove the files whose tombstones are durable. Not before: after a crash a row that lives on
    /// without its file would be a damaged database.
    pub(super) fn settle_removals(&mut self) {
        let durable = self.durable();
        let removals = std::mem::take(&mut self.catalogue.removals);
        let (settled, left): (Vec<_>, Vec<_>) =
            removals.into_iter().partition(|&(tombstone, _)| tombstone <= durable);
        self.catalogue.removals = left;
        for (_, id) in settled {
            let what = DiskOperation::Remove(id.paths().file);
            self.ask_disk(Operation::RemoveTenant(id, RemoveStep::Remove), what);
        }
    }

    pub(super) fn on_removed(&mut self, id: TenantId, step: RemoveStep, reply: DiskReply) {
        let DiskReply::Done(result) = reply else { panic!("nothing was to be opened or moved") };
        match (step, result) {
            (RemoveStep::Remove, Ok(())) => {
                let what = DiskOperation::SyncDirectory(id.paths().inner);
                self.ask_disk(Operation::RemoveTenant(id, RemoveStep::Sync), what);
            }
            (RemoveStep::Remove, Err(error)) if error.kind() == ErrorKind::NotFound => {
                self.end_drop(id, true);
                self.call_catalogue(Asker::Nobody, Call::Forget(id));
            }
            (RemoveStep::Sync, Ok(())) => {
                self.end_drop(id, true);
                self.call_catalogue(Asker::Nobody, Call::Forget(id));
            }
            // The tombstone stays: the next start tries again.
            (_, Err(_)) => {
                sometimes!("a dropped tenant's file cannot be removed");
                self.end_drop(id, false);
            }
        }
    }
}
