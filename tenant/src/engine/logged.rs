//! Small databases that are built in the commit log, and have no file before their first checkpoint.
//!
//! What fills one (`copy`) appends all its pages as one transaction of it, and closes it again without a
//! checkpoint. From then on it is what a start finds in the log of a database that has no file: its pages
//! are in [`Engine`]'s `recovered`, an entry in `dirty` keeps the log from letting go of them, and who opens
//! it reads them there. It differs from what a start has found in one thing: no row of it is in memory, and
//! no checkpoint hurries. Where the log fills or the server stops, the catalogue is asked for its row, and it
//! goes the way of what a start has found.
//!
//! **What a crash finds.** Three transactions are appended in this order: the catalogue's row that says
//! *being built* (`B`), the pages (`P`), the catalogue's row that says *there* (`L`). The log is durable
//! in its order, so a start finds one of four things:
//!
//! - nothing: the id was never given, and may be given to another. No page of it is in the log as a whole
//!   transaction, since `P` comes behind `B`; fragments without their end never happened.
//! - `B`: a start removes what was being built. There is no file, which is no mistake there.
//! - `B`, `P`: the same. Pages of an id that the catalogue does not show as there are let go of unread, as
//!   those of dropped databases are; and as `B` has used the id up, no later database's pages are mixed with
//!   them.
//! - all three: the database is there, with all its pages, or its damage is found by their checks.
//!
//! So nothing waits for the disk on the way but the answer, for `L`. The row of `L` says transaction 1 and no
//! file: should the log ever lose `P` in silence, the volume refuses to open (`Volume::open`), and the
//! database is fenced rather than empty. `P` is needed until a checkpoint's row says that there is a
//! file, as with any commit.
//!
//! Between `L`'s commit and the moment when `P` is durable its places in the log are not to be read: who asks
//! for the database by then waits for that. Its maker has no answer yet.

use std::collections::{BTreeMap, BTreeSet};

use storage::TenantId;
use storage::log::RecoveredTenant;
use storage::sometimes;
use storage::volume::LoggedBuild;

use super::context::Job;
use super::control::Asker;
use super::{Engine, Phase, Timer};
use crate::catalogue::{Call, DatabaseRow, Outcome, RowState};
use crate::limits;
use crate::pool::Key;

/// One whose pages are not durable yet.
struct Fresh {
    build: LoggedBuild,
    /// Who opens it, and waits.
    openers: Vec<Key>,
}

/// See the head of the file.
#[derive(Default)]
pub(super) struct Logged {
    fresh: BTreeMap<TenantId, Fresh>,
    /// Those whose rows the catalogue was asked for, that they may be checkpointed.
    asked: BTreeSet<TenantId>,
}

impl<J: Job> Engine<J> {
    /// The volume of one that was built in the log is closed.
    pub(super) fn keep_logged(&mut self, id: TenantId, build: LoggedBuild) {
        assert!(build.is_whole() && !self.recovered.contains_key(&id));
        self.logged.fresh.insert(id, Fresh { build, openers: Vec::new() });
        self.settle_logged();
    }

    /// Those whose pages are durable now can be opened.
    pub(super) fn settle_logged(&mut self) {
        if self.logged.fresh.is_empty() {
            return;
        }
        let durable = self.durable();
        let is_durable = |fresh: &Fresh| fresh.build.last().is_some_and(|last| last <= durable);
        let fresh = std::mem::take(&mut self.logged.fresh);
        let (settled, left) = fresh.into_iter().partition(|(_, fresh)| is_durable(fresh));
        self.logged.fresh = left;
        for (id, Fresh { build, openers }) in settled {
            let committed = build.committed.expect("it is whole");
            let log = self.log.as_mut().expect("it is in the log");
            let number = build.number.expect("it is whole");
            let pages = log.take_located(number).expect("what is durable has its place");
            assert!(pages.len() == build.pages as usize);
            let recovered = RecoveredTenant {
                first_txid: 1,
                last_txid: 1,
                database_pages: build.pages,
                first_sequence: committed.first,
                pages,
            };
            self.recovered.insert(id, recovered);
            self.find_again(openers);
        }
    }

    /// Whoever opens this database has to wait until its pages are durable. It is told then what the
    /// catalogue says by then.
    pub(super) fn waits_for_pages(&mut self, key: Key, row: &DatabaseRow) -> bool {
        let Some(fresh) = self.logged.fresh.get_mut(&row.id) else { return false };
        sometimes!("a copy is opened before its pages are durable");
        fresh.openers.push(key);
        true
    }

    fn find_again(&mut self, openers: Vec<Key>) {
        for key in openers {
            let Some(tenant) = self.tenants.get(key) else { continue };
            let name = tenant.name.clone().into();
            self.find_in_catalogue(key, name, false);
        }
    }

    /// It is dropped, or was not finished: the log need not keep what there is of it.
    pub(super) fn forget_logged(&mut self, id: TenantId) {
        self.logged.asked.remove(&id);
        let first = if let Some(Fresh { build, openers }) = self.logged.fresh.remove(&id) {
            self.forget_places(&build);
            self.find_again(openers);
            build.committed.map(|committed| committed.first)
        } else {
            self.recovered.remove(&id).map(|recovered| recovered.first_sequence)
        };
        let Some(first) = first else { return };
        sometimes!("a copy in the log is dropped before it was opened");
        self.dirty.remove(&(first, id));
        self.trim_log();
    }

    /// Nobody will ask where its pages are.
    pub(super) fn forget_places(&mut self, build: &LoggedBuild) {
        if let (Some(log), Some(number)) = (&mut self.log, build.number) {
            let _ = log.take_located(number);
        }
    }

    /// Some of them are neither open nor about to be.
    pub(super) fn has_logged(&self) -> bool {
        !self.logged.fresh.is_empty() || !self.recovered.is_empty()
    }

    /// One that nobody has opened is to be checkpointed: ask for its row.
    pub(super) fn ask_logged(&mut self, id: TenantId) {
        if self.recovered.contains_key(&id) && self.logged.asked.insert(id) {
            self.call_catalogue(Asker::Logged(id), Call::FindId(id));
        }
    }

    /// The row of one that is to be checkpointed.
    pub(super) fn logged_found(&mut self, id: TenantId, outcome: Outcome) {
        match outcome {
            // Somebody may have opened it meanwhile.
            Outcome::Row(row)
                if row.state == RowState::Live && self.recovered.contains_key(&id) =>
            {
                sometimes!("a copy in the log is opened for its checkpoint");
                self.recovered_rows.insert(id, *row);
            }
            Outcome::Failed(_) | Outcome::Full if self.phase == Phase::Stopping => {
                // What keeps the log for the next start stays.
                self.recovered.remove(&id);
                self.counters.left_to_log += 1;
            }
            Outcome::Failed(_) | Outcome::Full => {
                self.set_timer(limits::CHECKPOINT_RETRY_NS, Timer::LoggedRetry(id));
            }
            // It is being built, or was dropped: who does that sees to it.
            _ => drop(self.logged.asked.remove(&id)),
        }
    }

    /// It is opened: whether its row was asked for because its checkpoint was due.
    pub(super) fn was_asked(&mut self, id: TenantId) -> bool {
        self.logged.asked.remove(&id)
    }
}
