//! Databases of the class `memory`: in no row of the catalogue and no record of the log, and gone when
//! the server ends. They are open from their creation to their end; all that they hold is memory of
//! theirs.
//!
//! The catalogue is asked once, when one is created: whether its name is free, and where its group and
//! plan stand. A name is of one database, whatever its class: creates go through the catalogue's queue
//! in order, a name in memory is known here, and a name that is being asked for is kept until the
//! answer. Changes of groups, organisations and plans reach these databases as any that are open.
//!
//! Ids begin at a random number far beyond all that the catalogue gives, so that a token for one is
//! not good for another after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher as _};

use storage::TenantId;
use storage::log::Sequence;
use storage::sometimes;

use super::context::Job;
use super::control::{Asker, ControlCall, ControlReply};
use super::drops::Dropper;
use super::life::Tenant;
use super::tasks::Work;
use super::{Engine, Event, Refusal, RequestId};
use crate::access::{Access, Denial, Scope};
use crate::budget::Budget;
use crate::catalogue::{
    BudgetChange, Call, Change, DatabaseRow, ID_END, KeyScope, NodeId, NodePath, Outcome, Said,
    Signing, Sum,
};
use crate::life::{Class, Ending, OnEnd};
use crate::pool::Key;

/// The first id of a database in memory: no row of the catalogue has one from here on.
const FIRST_ID: u64 = ID_END;

/// Whether a database is only in memory.
#[must_use]
pub fn is_memory(id: TenantId) -> bool {
    // The catalogue before its row is known has the last of all.
    id.0 >= FIRST_ID && id.0 < FIRST_ID << 1
}

/// See the head of the file.
pub(super) struct Ephemeral {
    next_id: u64,
    names: BTreeMap<Box<str>, Key>,
    /// Names for which the catalogue is asked.
    asked: BTreeSet<Box<str>>,
}

impl Ephemeral {
    pub fn new(seed: &[u8; 32]) -> Ephemeral {
        // Of the seed no more is told than a hash of a few bits.
        let mut hasher = DefaultHasher::new();
        hasher.write(seed);
        let number = hasher.finish();
        // The lower half of the numbers to begin in, the upper to go on in.
        let next_id = FIRST_ID + number % (FIRST_ID / 2);
        Ephemeral { next_id, names: BTreeMap::new(), asked: BTreeSet::new() }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }
}

/// The name of the database that a call creates, and whether that is in memory by its own word.
fn created(call: &ControlCall) -> Option<(&str, bool)> {
    match call {
        ControlCall::Create(name, change) => Some((name, change.class == Some(Class::Memory))),
        ControlCall::Within(_, call) => created(call),
        ControlCall::Import { name, .. } | ControlCall::Fork { to: name, .. } => {
            Some((name, false))
        }
        _ => None,
    }
}

/// The database that a call copies.
fn copied(call: &ControlCall) -> Option<&str> {
    match call {
        ControlCall::Within(_, call) => copied(call),
        ControlCall::Fork { from, .. } => Some(from),
        _ => None,
    }
}

impl<J: Job> Engine<J> {
    /// A name is of a database in memory, or of one that is about to be.
    pub(super) fn is_memory_name(&self, name: &str) -> bool {
        self.ephemeral.names.contains_key(name) || self.ephemeral.asked.contains(name)
    }

    /// Databases in memory.
    #[must_use]
    pub fn memory_databases(&self) -> usize {
        self.ephemeral.len()
    }

    fn memory_key(&self, name: &str) -> Option<Key> {
        self.ephemeral.names.get(name).copied()
    }

    /// Answer a control call without the catalogue, if it is about a database in memory; `None` if it
    /// is answered.
    pub(super) fn without_catalogue(
        &mut self,
        request: RequestId,
        access: &Access,
        call: ControlCall,
    ) -> Option<ControlCall> {
        if let Some(from) = copied(&call).filter(|from| self.is_memory_name(from)) {
            // Who has no rights to it hears the same of one that is not there.
            let row = self.memory_key(from).and_then(|key| self.tenants.get(key)?.row.as_ref());
            let known = row.is_some_and(|row| access.enter(row).is_ok());
            if !known {
                return self.deny(request);
            }
            self.emit(Event::Refused(request, Refusal::InMemory));
            return None;
        }
        if let Some((name, in_memory)) = created(&call) {
            let taken = self.is_memory_name(name)
                || (in_memory && (self.names.contains_key(name) || self.catalogue.creates(name)));
            if taken {
                self.emit(Event::Refused(request, Refusal::Exists));
                return None;
            }
            if in_memory {
                self.ephemeral.asked.insert(name.into());
            }
            return Some(call);
        }
        if let ControlCall::DropNode(path) = &call {
            let members = self.memory_members(path);
            if members > 0 {
                self.emit(Event::Refused(request, Refusal::InUse(members)));
                return None;
            }
            return Some(call);
        }
        let (within, inner) = match &call {
            ControlCall::Within(organisation, inner) => (Some(organisation.clone()), &**inner),
            call => (None, call),
        };
        let name = match inner {
            ControlCall::Place(name, _)
            | ControlCall::Budget(name)
            | ControlCall::Usage(name)
            | ControlCall::UsageIn(name, _)
            | ControlCall::Settings(name)
            | ControlCall::Set(name, _)
            | ControlCall::Checkpoint(name)
            | ControlCall::Drop(name)
            | ControlCall::Show(name)
            | ControlCall::Sign(KeyScope::Database(name), _) => name,
            _ => return Some(call),
        };
        let Some(key) = self.memory_key(name) else { return Some(call) };
        let row = self.tenants.get(key).and_then(|tenant| tenant.row.clone());
        let row = row.expect("a database in memory has its row");
        let is_within = within
            .is_none_or(|organisation| row.path.last().is_some_and(|o| o.name == organisation));
        let allowed = access.scope == Scope::Machine || access.enter(&row).is_ok();
        let result = match (allowed, is_within) {
            (false, _) => return self.deny(request),
            (_, false) => Err(Refusal::NotFound),
            _ => self.call_in_memory(request, key, row, inner.clone()),
        };
        match result {
            Ok(Some(reply)) => self.emit(Event::Control(request, reply)),
            Ok(None) => {}
            Err(refusal) => self.emit(Event::Refused(request, refusal)),
        }
        None
    }

    fn deny(&mut self, request: RequestId) -> Option<ControlCall> {
        self.refuse_denied(request, Denial::Unauthorised);
        None
    }

    fn call_in_memory(
        &mut self,
        request: RequestId,
        key: Key,
        row: DatabaseRow,
        call: ControlCall,
    ) -> Result<Option<ControlReply>, Refusal> {
        Ok(Some(match call {
            ControlCall::Show(_) | ControlCall::Settings(_) | ControlCall::Checkpoint(_) => {
                ControlReply::Databases(vec![row])
            }
            ControlCall::Budget(_) => ControlReply::Budget(Box::new(self.budget_view(row))),
            ControlCall::Usage(_) => ControlReply::Usage(Box::new(self.usage_view(row))),
            ControlCall::Set(name, change) => {
                let row = self.change_in_memory(key, row, Some(&change), None);
                let outcome = Outcome::Row(Box::new(row.clone()));
                self.keys_changed(&Call::Set(name, change), &outcome);
                ControlReply::Databases(vec![row])
            }
            // Its hours are those of its group; of its own it has only the total.
            ControlCall::UsageIn(..) => return Err(Refusal::InMemory),
            ControlCall::Place(_, Change { group: Some(_), .. } | Change { plan: Some(_), .. }) => {
                return Err(Refusal::InMemory);
            }
            ControlCall::Place(_, change) => {
                let row =
                    self.change_in_memory(key, row, change.settings.as_deref(), change.budget);
                ControlReply::Budget(Box::new(self.budget_view(row)))
            }
            ControlCall::Drop(name) => {
                let access = Access::MACHINE;
                self.drop_in_memory(&name, &access, Dropper::Control(request))?;
                return Ok(None);
            }
            ControlCall::Sign(..) => match self.catalogue.signing {
                Some(secret) => {
                    let path = row.path.clone();
                    let row = Some(Box::new(row));
                    ControlReply::Signing(Box::new(Signing { secret, row, path }))
                }
                None => return Err(Refusal::InMemory),
            },
            _ => unreachable!("the caller chose these"),
        }))
    }

    /// Drop one, for somebody with this access.
    pub(super) fn drop_in_memory(
        &mut self,
        name: &str,
        access: &Access,
        dropper: Dropper,
    ) -> Result<(), Refusal> {
        let key = self.memory_key(name).ok_or(Refusal::NotFound)?;
        let row = self.tenants.get(key).and_then(|tenant| tenant.row.clone());
        let row = row.ok_or(Refusal::NotFound)?;
        access.enter(&row).map_err(|_| Refusal::Unauthorised)?;
        if row.settings().delete_protection {
            return Err(Refusal::Protected);
        }
        self.on_dropped(name, &row, dropper);
        Ok(())
    }

    /// Change what a database in memory says of itself.
    fn change_in_memory(
        &mut self,
        key: Key,
        mut row: DatabaseRow,
        settings: Option<&crate::settings::SettingsChange>,
        budget: Option<BudgetChange>,
    ) -> DatabaseRow {
        if let Some(change) = settings {
            row.set_settings(row.settings().changed(change, self.wall_s()));
            if !change.life.is_empty() {
                row.ended = None;
            }
        }
        if let Some(change) = budget {
            row.said = Said::new(row.said.plan.clone(), change.applied(row.said.budget()));
        }
        row.ends_s = self.memory_end(&row, row.used_s);
        let tenant = self.tenants.get_mut(key).expect("the caller has it");
        tenant.end_asked = false;
        tenant.row = Some(row.clone());
        self.mortality.arm_memory(row.ends_s, row.id);
        self.renew_limits(key);
        row
    }

    fn memory_end(&self, row: &DatabaseRow, used_s: u64) -> Option<u64> {
        let ends = row.life().ends_s(row.created_s as u64, used_s);
        ends.filter(|_| row.ended.is_none()).map(|(ends_s, _)| ends_s)
    }

    // ---- creation ----

    /// The catalogue has answered a create: its name is not kept any more.
    pub(super) fn memory_answered(&mut self, call: &Call) {
        if let Call::Create { name, .. } = call {
            self.ephemeral.asked.remove(name.as_str());
        }
    }

    /// The catalogue knows nothing against a database in memory: make it.
    pub(super) fn make_in_memory(&mut self, row: DatabaseRow) -> Result<DatabaseRow, Refusal> {
        if self.names.contains_key(row.name.as_str()) {
            sometimes!("a database in memory is not made because its name is asked for");
            return Err(Refusal::Exists);
        }
        if self.is_overloaded("") {
            return Err(Refusal::Overloaded);
        }
        let key = self.tenants.insert(Tenant::new(&row.name));
        self.names.insert(row.name.as_str().into(), key);
        Ok(self.open_in_memory(key, row))
    }

    /// Open one for which there is an entry.
    pub(super) fn open_in_memory(&mut self, key: Key, mut row: DatabaseRow) -> DatabaseRow {
        sometimes!("a database in memory is made");
        row.id = TenantId(self.ephemeral.next_id);
        self.ephemeral.next_id += 1;
        row.ends_s = self.memory_end(&row, 0);
        self.ephemeral.names.insert(row.name.as_str().into(), key);
        self.mortality.arm_memory(row.ends_s, row.id);
        self.open_row(key, row.clone());
        // What a crash takes of the catalogue it takes of this too.
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.known_since = Sequence::default();
        }
        row
    }

    pub(super) fn memory_made(&mut self, asker: Asker, row: DatabaseRow) {
        let made = self.make_in_memory(row);
        let Asker::Control(request, form) = asker else {
            unreachable!("only the control API asks for one")
        };
        match made.map(|row| self.control_reply(form, Outcome::Row(Box::new(row)))) {
            Ok(Ok(reply)) => self.emit(Event::Control(request, reply)),
            Ok(Err(refusal)) | Err(refusal) => self.emit(Event::Refused(request, refusal)),
        }
    }

    // ---- life and end ----

    /// Nobody has used one for a while: it keeps its data, and no connections.
    pub(super) fn rest_in_memory(&mut self, key: Key) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        tenant.resting = true;
        let idle = std::mem::take(&mut tenant.idle);
        if !idle.is_empty() {
            sometimes!("a database in memory gives its connections back");
            self.start_aside(key, Work::Discard(idle));
        }
    }

    /// One is at its end.
    pub(super) fn end_in_memory(&mut self, key: Key, ending: Ending) {
        let Some(tenant) = self.tenants.get(key).filter(|tenant| !tenant.is_ended()) else {
            return;
        };
        let Some(mut row) = tenant.row.clone() else { return };
        if row.life().on_end() == OnEnd::Freeze || row.settings().delete_protection {
            row.ended = Some(ending);
        }
        self.on_ended(&row, ending);
    }

    /// Its volume is closed.
    pub(super) fn forget_in_memory(&mut self, tenant: &Tenant<J>) {
        let name = tenant.row.as_ref().map_or("", |row| row.name.as_str());
        let own = self.memory_key(name).and_then(|key| self.tenants.get(key));
        // The name may be another's by now: this one was taken out before.
        if own.is_none() {
            self.ephemeral.names.remove(name);
        }
    }

    /// A database in memory is dropped: its name is free.
    pub(super) fn free_name_in_memory(&mut self, row: &DatabaseRow) {
        self.mortality.arm_memory(None, row.id);
        self.ephemeral.names.remove(row.name.as_str());
    }

    // ---- among others ----

    fn memory_rows(&self) -> impl Iterator<Item = &DatabaseRow> {
        let tenants = self.ephemeral.names.values().filter_map(|&key| self.tenants.get(key));
        tenants.filter_map(|tenant| tenant.row.as_ref())
    }

    fn memory_members(&self, path: &NodePath) -> u64 {
        self.memory_rows().filter(|row| is_below(row, path)).count() as u64
    }

    /// Group or organisation say other times now: those of its databases that are in memory have them
    /// at once. O(databases in memory).
    pub(super) fn rearm_memory(&mut self, node: NodeId) {
        let rows: Vec<DatabaseRow> = self
            .memory_rows()
            .filter(|row| row.path.iter().any(|above| above.id == node))
            .cloned()
            .collect();
        for row in rows {
            let ends_s = self.memory_end(&row, self.wall_s());
            let key = self.memory_key(&row.name).expect("listed just now");
            if let Some(own) = self.tenants.get_mut(key).and_then(|tenant| tenant.row.as_mut()) {
                own.ends_s = ends_s;
            }
            self.mortality.arm_memory(ends_s, row.id);
        }
    }

    /// Put the databases in memory among the catalogue's that answer `call`. O(databases in memory).
    pub(super) fn with_memory(&self, call: &Call, outcome: Outcome) -> Outcome {
        if self.ephemeral.names.is_empty() {
            return outcome;
        }
        match (call, outcome) {
            (Call::List { after, prefix, limit }, Outcome::Rows(mut rows)) => {
                let more = self.memory_rows();
                let more = more.filter(|row| row.name > *after && row.name.starts_with(&**prefix));
                rows.extend(more.take(*limit).cloned());
                rows.sort_by(|a, b| a.name.cmp(&b.name));
                rows.truncate(*limit);
                Outcome::Rows(rows)
            }
            (Call::Members { path, after: (group, name), limit }, Outcome::Rows(mut rows)) => {
                fn place(row: &DatabaseRow) -> (&str, &str) {
                    (row.path.first().map_or("", |group| &*group.name), &*row.name)
                }
                let more = self.memory_rows().filter(|row| is_below(row, path));
                rows.extend(more.filter(|row| place(row) > (&**group, &**name)).cloned());
                rows.sort_by(|a, b| place(a).cmp(&place(b)));
                rows.truncate(*limit);
                Outcome::Rows(rows)
            }
            (Call::Sum(path), Outcome::Sum(sum)) => {
                let databases = sum.databases + self.memory_members(path);
                Outcome::Sum(Box::new(Sum { databases, ..*sum }))
            }
            (_, outcome) => outcome,
        }
    }
}

/// Whether the database of this row is in a group or organisation.
fn is_below(row: &DatabaseRow, path: &NodePath) -> bool {
    let organisation = row.path.last().is_some_and(|o| o.name == path.organisation);
    let group = path.group.as_ref();
    organisation && group.is_none_or(|name| row.path.first().is_some_and(|g| g.name == *name))
}

impl BudgetChange {
    /// The budget after it.
    pub(crate) fn applied(&self, before: &Budget) -> Budget {
        match self {
            BudgetChange::Replace(budget) => **budget,
            BudgetChange::Set(part, number) => {
                let mut budget = *before;
                budget.set(*part, *number);
                budget
            }
        }
    }
}
