//! Databases that are being filled (`catalogue/building.rs`): open without a name, until what fills them
//! has ended.
//!
//! Whoever fills one calls [`Engine::open_building`] with its row, runs tasks on it, and says with
//! [`Engine::end_building`] what came of it. Then it is closed, with a checkpoint if the log has pages of
//! it (but for what is built in the log: see `logged`); only when its volume is closed the catalogue is told that it is there, so nobody opens it twice.
//! One that was not finished goes the way of a dropped one, and so does one that is dropped meanwhile.

use storage::TenantId;
use storage::sometimes;

use super::context::Job;
use super::control::Asker;
use super::life::Tenant;
use super::patron::Patron;
use super::{Engine, Refusal};
use crate::catalogue::{Built, Call, DatabaseRow, Outcome};
use crate::pool::Key;

/// Why a database could not be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unbuilt {
    /// It was dropped while it was being built.
    Dropped,
    /// So many bytes were written to its original meanwhile that its snapshot had to be given up: the
    /// original's write-ahead log, or the commit log, would have become full.
    Overtaken,
    /// The disk has no room for it.
    DiskFull,
    /// Memory was used up.
    NoMemory,
    /// As many are being built, or wait for it, as may.
    TooMany(usize),
    /// As many are being uploaded as may.
    TooManyImports(usize),
    /// The same, of one organisation.
    TooManyOfOne(usize),
}

/// What is being filled, and who waits for it.
pub(super) struct Building {
    patron: Patron,
    /// What came of it, once that is known.
    ended: Option<Result<(), Refusal>>,
}

impl<J: Job> Engine<J> {
    /// Open the database of this row, which [`Call::Build`] has made, for whoever fills it.
    pub(super) fn open_building(&mut self, patron: Patron, row: DatabaseRow) -> Key {
        let key = self.tenants.insert(Tenant::new(""));
        let tenant = self.tenants.get_mut(key).expect("made just now");
        tenant.building = Some(Building { patron, ended: None });
        self.open_row(key, row);
        key
    }

    /// What fills it has ended: close it, and answer its request then.
    pub(super) fn end_building(&mut self, key: Key, result: Result<(), Refusal>) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let building = tenant.building.as_mut().expect("it is being built");
        let failed = result.is_err();
        building.ended.get_or_insert(result);
        if failed {
            sometimes!("a database that was being built is given up");
            tenant.dropped = true;
            tenant.ending = true;
            self.note_redo(key);
            self.trim_log();
        }
        self.begin_closing(key);
        // It may have been about to close before.
        self.after_task(key);
    }

    /// Its volume is closed.
    pub(super) fn building_closed(
        &mut self,
        tenant: &Tenant<J>,
        building: Building,
        closed: Option<Built>,
    ) {
        let Building { patron, ended } = building;
        let result = match (ended, closed) {
            _ if tenant.fenced.is_some() => {
                Err(Refusal::Fenced(tenant.fenced.clone().unwrap_or_default()))
            }
            (Some(Err(refusal)), _) => Err(refusal),
            _ if tenant.dropped => Err(Refusal::Unbuilt(Unbuilt::Dropped)),
            (Some(Ok(())), Some(built)) => Ok(built),
            // The server stops.
            _ => Err(Refusal::Unavailable),
        };
        match result {
            Ok(built) => self.call_catalogue(Asker::Built(patron), Call::Built(built)),
            Err(refusal) => self.give_up(patron, tenant.id, refusal),
        }
    }

    /// It will not be whole: its request is told when its name is free.
    pub(super) fn give_up(&mut self, patron: Patron, id: TenantId, refusal: Refusal) {
        if let Some(request) = patron.request() {
            self.imports.remove(&request);
        }
        self.forget_logged(id);
        self.call_catalogue(Asker::GivenUp(patron, Box::new(refusal)), Call::GiveUp(id));
    }

    /// The catalogue has freed its name, or could not just now.
    pub(super) fn given_up(
        &mut self,
        patron: Patron,
        refusal: Refusal,
        call: Call,
        outcome: &Outcome,
    ) {
        let Call::GiveUp(id) = call else { unreachable!("it was asked for this") };
        self.nobody_answered(call, outcome);
        self.tell_unbuilt(patron, refusal);
        self.remove_dropped(id, true);
    }

    /// The catalogue has, or has not, made it one that is there.
    pub(super) fn built(&mut self, patron: Patron, call: &Call, outcome: Outcome) {
        let Call::Built(built) = call else { unreachable!("it was asked for this") };
        let refusal = match outcome {
            Outcome::Row(row) => return self.tell_built(patron, *row),
            // Whoever dropped it has seen to its file.
            Outcome::NotFound => {
                sometimes!("a database is dropped at the very end of its building");
                return self.tell_unbuilt(patron, Refusal::Unbuilt(Unbuilt::Dropped));
            }
            Outcome::Full => Refusal::LogFull,
            Outcome::Failed(text) => Refusal::Failed(text),
            _ => unreachable!("a row was asked for"),
        };
        self.give_up(patron, built.id, refusal);
    }
}
