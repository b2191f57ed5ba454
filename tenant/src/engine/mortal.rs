//! Databases that end: by their time, by their last use, or by what they have used up.
//!
//! The catalogue's rows say when each is to be looked at. Those of the next minutes are in a timer
//! wheel, read from an index in pages; so what it costs follows what ends, not what exists, and a
//! start looks at none but those that are due. What is due is looked at again before anything
//! happens: one that is open knows its last use better than its row, and the wall's clock may have
//! been set. The transaction that ends a database looks for a last time.
//!
//! **What holds**: a database with `ttl` does not end before that many seconds of the wall's clock
//! have passed since its creation, one with `idle_ttl` not before that many without a request, nor
//! before that many since the server's start: when a database that was open was last used is not
//! known after a crash. Both end within a second or two of then, or as fast as tombstones are
//! written where thousands end together. The wheel goes by the wall's clock; the loop's timer only
//! wakes it, at the latest after [`LOOK_S`].
//!
//! `max_spend` and `max_statements` are counted by the volume (`storage::allowance`), which is
//! looked at after each run of a fiber.

use std::collections::{BTreeMap, BTreeSet};

use storage::TenantId;
use storage::allowance::UsedUp;
use storage::io::{Clock, Instant};
use storage::sometimes;

use super::context::Job;
use super::control::Asker;
use super::drops::Dropper;
use super::ephemeral::is_memory;
use super::life::Tenant;
use super::{Engine, Event, Phase, Refusal, RequestId, Timer};
use crate::access::Claim;
use crate::catalogue::{Call, DatabaseRow, Outcome};
use crate::life::{Ending, Part};
use crate::limits;
use crate::pool::Key;
use crate::wheel::Wheel;

/// Seconds ahead for which the wheel is filled from the catalogue.
const WINDOW_S: u64 = 600;

/// Entries that one look into the catalogue brings.
const PAGE: usize = 1_024;

/// Entries of the wheel, some 100 bytes each: what comes after them is left to the catalogue.
const ENTRIES_MAX: usize = 65_536;

/// Databases that are looked at in one turn.
const PER_TURN: usize = 64;

/// Databases of which the catalogue is asked at a time whether they end.
const ASKED_MAX: usize = 256;

/// The longest that the wall's clock is not looked at, in seconds: it may be set.
const LOOK_S: u64 = 60;

/// Databases that have ended while somebody had a stream there, and of which that is told.
const TOLD_MAX: usize = 1_024;

/// See the head of the file.
pub(super) struct Mortality {
    /// The wall's clock as of this turn.
    wall_ns: u64,
    /// The same when the server began to serve.
    started_s: u64,
    wheel: Wheel<TenantId>,
    /// What the wheel has of the catalogue: all up to here.
    horizon: (u64, TenantId),
    /// The catalogue is asked for more.
    loading: bool,
    /// The catalogue is asked whether these end.
    asked: BTreeSet<TenantId>,
    /// When the loop's timer wakes this.
    look_at: Option<Instant>,
    /// Databases of a group are being given other times.
    rearming: bool,
    /// Databases that have ended, and how many requests are told so.
    told: BTreeMap<Box<str>, Told>,
    told_order: Vec<Box<str>>,
    /// Databases in memory that have used up what they may.
    used_up: Vec<(Key, Ending)>,
}

struct Told {
    row: DatabaseRow,
    ending: Ending,
    left: usize,
}

impl Default for Mortality {
    fn default() -> Mortality {
        Mortality {
            wall_ns: 0,
            started_s: 0,
            wheel: Wheel::new(),
            horizon: (0, TenantId(0)),
            loading: false,
            asked: BTreeSet::new(),
            look_at: None,
            rearming: false,
            told: BTreeMap::new(),
            told_order: Vec::new(),
            used_up: Vec::new(),
        }
    }
}

impl Mortality {
    fn wall_s(&self) -> u64 {
        self.wall_ns / limits::SECOND_NS
    }

    /// Something is to be ended in the next turn.
    pub fn is_pressing(&self) -> bool {
        !self.used_up.is_empty()
    }

    /// Entries of the wheel, and how many there may be.
    pub fn entries(&self) -> (usize, usize) {
        (self.wheel.len(), ENTRIES_MAX)
    }

    /// See to it that a database in memory is looked at: nobody else has its time.
    pub(super) fn arm_memory(&mut self, ends_s: Option<u64>, id: TenantId) {
        match ends_s {
            Some(ends_s) => self.wheel.insert(id, ends_s),
            None => self.wheel.remove(id),
        }
    }

    /// See to it that a row is looked at when it says so: by the wheel, or when the wheel gets there.
    fn arm(&mut self, ends_s: Option<u64>, id: TenantId) {
        self.wheel.remove(id);
        let Some(ends_s) = ends_s else { return };
        if (ends_s, id) > self.horizon {
            return;
        }
        if self.wheel.len() < ENTRIES_MAX {
            self.wheel.insert(id, ends_s);
        } else {
            // The catalogue has it, and all that is later.
            self.horizon = (ends_s, TenantId(id.0.saturating_sub(1)));
        }
    }
}

impl<J: Job> Engine<J> {
    /// The wall's clock, in seconds since 1970, as of this turn.
    pub(super) fn wall_s(&self) -> u64 {
        self.mortality.wall_s()
    }

    /// When the tenant was last used by a client, by the wall's clock.
    pub(super) fn used_s(&self, tenant: &Tenant<J>) -> u64 {
        if tenant.client_requests() > 0 || tenant.streams > 0 {
            return self.wall_s();
        }
        self.wall_s().saturating_sub(self.now.since(tenant.client_used) / limits::SECOND_NS)
    }

    /// The server serves: what is due is due from now on.
    pub(super) fn begin_mortality(&mut self, rearming: bool) {
        self.mortality.started_s = self.wall_s();
        self.mortality.wheel.advance(self.mortality.started_s);
        if rearming {
            sometimes!("a start goes on with databases of a group that says other times");
            self.rearm();
        }
    }

    pub(super) fn note_wall(&mut self, clock: &dyn Clock) {
        self.mortality.wall_ns = clock.wall().0;
    }

    /// One step: look at what is due, ask for what comes next, set the timer.
    pub(super) fn pump_endings(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        let now_s = self.wall_s();
        self.mortality.wheel.advance(now_s);
        for (key, ending) in std::mem::take(&mut self.mortality.used_up) {
            self.end_in_memory(key, ending);
        }
        for _ in 0..PER_TURN {
            if self.mortality.asked.len() >= ASKED_MAX {
                break;
            }
            let Some(id) = self.mortality.wheel.pop_due() else { break };
            self.look_at_end(id, now_s);
        }
        self.load_endings(now_s);
        let mortality = &self.mortality;
        let full = mortality.asked.len() >= ASKED_MAX;
        let due_s = mortality.wheel.next_s().filter(|_| !full);
        let load_s = mortality.horizon.0.saturating_sub(WINDOW_S / 2).max(now_s + 1);
        let next_s = due_s.unwrap_or(u64::MAX).min(load_s).min(now_s + LOOK_S);
        let next_ns = next_s.saturating_mul(limits::SECOND_NS);
        let left_ns = next_ns.saturating_sub(mortality.wall_ns);
        let at = self.now.after(left_ns);
        let later = self.mortality.look_at.is_none_or(|set| set <= self.now || at < set);
        if later && left_ns > 0 {
            self.mortality.look_at = Some(at);
            self.set_timer(left_ns, Timer::Endings);
        }
    }

    fn load_endings(&mut self, now_s: u64) {
        let Mortality { wheel, horizon, loading, .. } = &mut self.mortality;
        let soon = horizon.0 < now_s + WINDOW_S / 2;
        if *loading || !soon || wheel.len() > ENTRIES_MAX / 2 {
            return;
        }
        *loading = true;
        let call = Call::Endings { after: *horizon, until_s: now_s + WINDOW_S, limit: PAGE };
        self.call_catalogue(Asker::Nobody, call);
    }

    fn rearm(&mut self) {
        self.mortality.rearming = true;
        self.call_catalogue(Asker::Nobody, Call::Rearm);
    }

    /// A database may be at its end by its time.
    fn look_at_end(&mut self, id: TenantId, now_s: u64) {
        let started_s = self.mortality.started_s;
        let tenant = self.ids.get(&id).and_then(|&key| self.tenants.get(key));
        let mut used_s = started_s;
        if let Some(tenant) = tenant
            && let Some(row) = &tenant.row
        {
            if tenant.is_ended() {
                return;
            }
            used_s = used_s.max(self.used_s(tenant));
            let ends = row.life().ends_s(row.created_s as u64, used_s.max(row.used_s));
            if is_memory(id) {
                let key = self.ids[&id];
                return match ends {
                    Some((ends_s, _)) if ends_s > now_s => self.mortality.wheel.insert(id, ends_s),
                    Some((_, ending)) => self.end_in_memory(key, ending),
                    None => {}
                };
            }
            // Moved on without a word to the catalogue, unless that would be asked of it later.
            if let Some((ends_s, _)) = ends
                && ends_s > now_s
                && (ends_s, id) <= self.mortality.horizon
                && self.mortality.wheel.len() < ENTRIES_MAX
            {
                sometimes!("a database that is in use has its end moved on");
                return self.mortality.wheel.insert(id, ends_s);
            }
        }
        if let Some(&(_, unsaved_s)) = self.catalogue.used.get(&id) {
            used_s = used_s.max(unsaved_s);
        }
        self.ask_end(id, used_s, None);
    }

    fn ask_end(&mut self, id: TenantId, used_s: u64, ending: Option<Ending>) {
        if self.mortality.asked.insert(id) || ending.is_some() {
            self.call_catalogue(Asker::Nobody, Call::End { id, used_s, ending });
        }
    }

    // ---- limits ----

    /// Let the volume know what holds for it now.
    pub(super) fn renew_allowance(&mut self, key: Key) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let (Some(row), Some(volume)) = (&tenant.row, &mut tenant.volume) else { return };
        let life = row.life();
        let most = |part| life.bound(part).unwrap_or(u64::MAX);
        let (price, statements) = (most(Part::MaxSpend), most(Part::MaxStatements));
        volume.allowance.limit(price, statements, row.ended.is_some());
        self.note_allowance(key);
    }

    /// A fiber of the tenant has run: count its statements, and end it if nothing is left.
    pub(super) fn note_allowance(&mut self, key: Key) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let Some(volume) = &tenant.volume else { return };
        tenant.usage.statements = volume.allowance.statements_used;
        let Some(used_up) = volume.allowance.used_up() else { return };
        if std::mem::replace(&mut tenant.end_asked, true) || tenant.is_ended() {
            return;
        }
        let ending = match used_up {
            UsedUp::Price => Ending::Spend,
            UsedUp::Statements => Ending::Statements,
        };
        let id = tenant.id;
        if is_memory(id) {
            // Its task runs just now.
            return self.mortality.used_up.push((key, ending));
        }
        self.ask_end(id, self.wall_s(), Some(ending));
    }

    // ---- what the catalogue has said ----

    /// The catalogue has carried out a call: databases may have other ends, or have ended.
    pub(super) fn lives_changed(&mut self, call: &Call, outcome: &Outcome) {
        match (call, outcome) {
            (Call::End { id, .. }, Outcome::Ended(..) | Outcome::NotYet(_) | Outcome::NotFound) => {
                self.mortality.asked.remove(id);
                match outcome {
                    Outcome::Ended(row, ending) => self.on_ended(row, *ending),
                    Outcome::NotYet(row) => self.mortality.arm(row.ends_s, row.id),
                    _ => {}
                }
            }
            (Call::Endings { until_s, .. }, Outcome::Endings(rows, more)) => {
                self.mortality.loading = false;
                let all = (*until_s, TenantId(u64::MAX));
                let last = rows.last().filter(|_| *more).copied();
                self.mortality.horizon = last.unwrap_or(all);
                for &(ends_s, id) in rows {
                    if !self.mortality.asked.contains(&id) {
                        self.mortality.arm(Some(ends_s), id);
                    }
                }
            }
            (Call::Rearm, Outcome::Endings(rows, more)) => {
                for &(ends_s, id) in rows {
                    self.mortality.arm(Some(ends_s), id);
                }
                self.mortality.rearming = false;
                if *more {
                    self.rearm();
                }
            }
            (Call::SetNode(_, change), Outcome::Node(path)) if change.life.changes_times() => {
                if let Some(node) = path.first() {
                    self.rearm_memory(node.id);
                }
                if !self.mortality.rearming {
                    self.rearm();
                }
            }
            (
                Call::Create { .. }
                | Call::Make(..)
                | Call::Built(_)
                | Call::Place(..)
                | Call::Set(..),
                Outcome::Row(row),
            ) => {
                self.mortality.arm(row.ends_s, row.id);
                // Limits may be others, and what had ended by them may live again.
                if let Some(key) = self.ids.get(&row.id).copied() {
                    let tenant = self.tenants.get_mut(key).expect("an id in use has its tenant");
                    tenant.end_asked = false;
                    self.renew_allowance(key);
                }
            }
            (Call::Drop(_), Outcome::Row(row)) => self.mortality.wheel.remove(row.id),
            _ => {}
        }
    }

    /// A database has ended: it is frozen, or dropped as by somebody who asked for it, but that those
    /// who use it are told why.
    pub(super) fn on_ended(&mut self, row: &DatabaseRow, ending: Ending) {
        self.mortality.wheel.remove(row.id);
        self.counters.ended += 1;
        let key = self.ids.get(&row.id).copied();
        if row.ended.is_some() {
            sometimes!("a database ends and is frozen");
            if let Some(recovered) = self.recovered_rows.get_mut(&row.id) {
                recovered.ended = row.ended;
            }
            let Some(key) = key else { return };
            let tenant = self.tenants.get_mut(key).expect("an id in use has its tenant");
            if let Some(own) = &mut tenant.row {
                own.ended = row.ended;
                own.ends_s = None;
            }
            return self.renew_allowance(key);
        }
        sometimes!("a database ends and is dropped");
        if let Some(key) = key {
            self.tell_end(key, row, ending);
        }
        self.on_dropped(&row.name, row, Dropper::Nobody);
    }

    /// Those who use a database that has ended are told so, once each: who waits, at once; what runs, in
    /// its statement's error; who has a stream, when he comes back.
    fn tell_end(&mut self, key: Key, row: &DatabaseRow, ending: Ending) {
        let tenant = self.tenants.get_mut(key).expect("an id in use has its tenant");
        if let Some(volume) = &mut tenant.volume {
            volume.allowance.expired = true;
        }
        let left = tenant.streams.saturating_sub(tenant.active);
        for request in self.take_waiting(key, &|_, _| true) {
            sometimes!("a request that waits is told that its database has ended");
            self.emit_gated(self.catalogue_key, Event::Refused(request, Refusal::Expired(ending)));
        }
        if left == 0 {
            return;
        }
        let name: Box<str> = row.name.as_str().into();
        let mortality = &mut self.mortality;
        if mortality.told.insert(name.clone(), Told { row: row.clone(), ending, left }).is_none() {
            mortality.told_order.push(name);
        }
        if mortality.told_order.len() > TOLD_MAX {
            let oldest = mortality.told_order.remove(0);
            mortality.told.remove(&oldest);
        }
    }

    /// Whether a request is told that its database has ended, which it may have had a stream of.
    pub(super) fn is_told_of_end(&mut self, request: RequestId, name: &str, claim: &Claim) -> bool {
        let Some(told) = self.mortality.told.get_mut(name) else { return false };
        let known = matches!(claim, Claim::Access(access) if access.enter(&told.row).is_ok());
        let free = !self.names.contains_key(name);
        if !known || !free {
            return false;
        }
        let ending = told.ending;
        told.left -= 1;
        if told.left == 0 {
            self.mortality.told.remove(name);
            self.mortality.told_order.retain(|other| &**other != name);
        }
        sometimes!("somebody who had a stream is told that the database has ended");
        self.emit_gated(self.catalogue_key, Event::Refused(request, Refusal::Expired(ending)));
        true
    }
}
