//! Keys that requests come with: looked up in the catalogue, remembered, and revoked.
//!
//! A bounded number is remembered, unknown ones too, so that who guesses costs the catalogue one look a
//! guess. A request whose key is not remembered waits for the catalogue, as one for a cold database does.
//! Changes come through the catalogue's answers, in the order of its transactions: what is remembered is
//! never older than what was answered.
//!
//! A key that is revoked takes with it what runs and what is parked with it: statements are interrupted,
//! streams closed, waiting requests refused. Tokens that were issued before a rotation go the same way.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;

use storage::io::Instant;
use storage::sometimes;

use super::context::Job;
use super::control::{Asker, ControlCall};
use super::{Engine, Event, Refusal, RequestId};
use crate::access::{Access, Claim, Denial, Holder, KeyProof, Needs, Scope};
use crate::catalogue::{Call, DatabaseRow, KeyRow, Outcome};
use crate::key_budget::{KeyBudget, Spenders};
use crate::limits;
use crate::pool::Key;
use crate::settings::Settings;

type PublicId = [u8; 16];

/// What is remembered of a key that the catalogue has.
struct Known {
    hash: [u8; 32],
    access: Access,
    expires_s: Option<i64>,
    revoked: bool,
    budget: KeyBudget,
}

impl Known {
    fn of(row: &KeyRow) -> Known {
        Known {
            hash: row.hash,
            access: Access {
                role: row.role,
                scope: row.scope,
                priority: row.priority,
                issued_s: None,
                key: Some(row.id),
            },
            expires_s: row.expires_s,
            revoked: row.revoked_s.is_some(),
            budget: row.budget,
        }
    }
}

/// What waits for its key to be looked up.
pub(super) enum Waiting<J> {
    Job(RequestId, Box<str>, J),
    Call(RequestId, Needs, Box<ControlCall>),
}

impl<J> Waiting<J> {
    fn request(&self) -> RequestId {
        match self {
            Waiting::Job(request, ..) | Waiting::Call(request, ..) => *request,
        }
    }
}

/// See the head of the file.
pub(super) struct Keys<J> {
    /// `None`: the catalogue has no such key.
    known: BTreeMap<PublicId, Option<Known>>,
    /// In the order in which they were looked up.
    order: VecDeque<PublicId>,
    waiting: BTreeMap<PublicId, Vec<(KeyProof, Waiting<J>)>>,
    waiters: usize,
    pub spenders: Spenders,
}

impl<J> Default for Keys<J> {
    fn default() -> Keys<J> {
        Keys {
            known: BTreeMap::new(),
            order: VecDeque::new(),
            waiting: BTreeMap::new(),
            waiters: 0,
            spenders: Spenders::default(),
        }
    }
}

/// Whether two hashes are the same, in a time that does not depend on where they differ.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let pairs = one.iter().zip(other);
    black_box(pairs.fold(0, |differs, (a, b)| black_box(differs | (a ^ b)))) == 0
}

impl<J> Keys<J> {
    /// What the key gives; `None` if it is not remembered.
    fn check(&self, proof: &KeyProof) -> Option<Result<Access, Denial>> {
        const NOBODYS: [u8; 32] = [0; 32];
        let known = self.known.get(&proof.public)?.as_ref();
        let same = is_same(known.map_or(&NOBODYS, |known| &known.hash), &proof.hash);
        let good = known.filter(|known| {
            let now_s = i64::try_from(proof.now_s).unwrap_or(i64::MAX);
            same && !known.revoked && known.expires_s.is_none_or(|expires_s| now_s < expires_s)
        });
        Some(good.map(|known| known.access).ok_or(Denial::Unauthorised))
    }

    fn remember(&mut self, public: PublicId, known: Option<Known>, now: Instant) {
        if let Some(Known { access: Access { key: Some(key), .. }, budget, .. }) = known {
            self.spenders.remember(key, budget, now);
        }
        if self.known.insert(public, known).is_none() {
            self.order.push_back(public);
        }
        if self.order.len() > limits::KEYS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            let forgotten = self.known.remove(&oldest).flatten();
            if let Some(key) = forgotten.and_then(|known| known.access.key) {
                self.spenders.forget(key);
            }
        }
        assert_eq!(self.known.len(), self.order.len());
    }

    /// Keys remembered, and requests that wait for one.
    pub fn counts(&self) -> (usize, usize) {
        (self.known.len(), self.waiters)
    }
}

/// Whether tokens may be good no more after this call.
fn rotates(call: &Call) -> bool {
    let change = match call {
        Call::Set(_, change) | Call::SetNode(_, change) => Some(change),
        Call::Place(_, change) => change.settings.as_deref(),
        _ => None,
    };
    change.is_some_and(|change| change.rotate_tokens)
}

impl<J: Job> Engine<J> {
    /// The rights of a key, or `None`: `waiting` waits for them now, or was refused.
    pub(super) fn access_of_key(
        &mut self,
        proof: KeyProof,
        waiting: Waiting<J>,
    ) -> Option<(Access, Waiting<J>)> {
        match self.keys.check(&proof) {
            Some(Ok(access)) => return Some((access, waiting)),
            Some(Err(denial)) => {
                sometimes!("a key that is not good is refused");
                self.refuse_denied(waiting.request(), denial);
                return None;
            }
            None => {}
        }
        if self.keys.waiters >= limits::KEY_WAITERS_MAX {
            self.emit(Event::Refused(waiting.request(), Refusal::Unavailable));
            return None;
        }
        self.keys.waiters += 1;
        let waiters = self.keys.waiting.entry(proof.public).or_default();
        waiters.push((proof, waiting));
        if waiters.len() == 1 {
            // Whatever is in a key's public part was checked to be ASCII.
            let public = String::from_utf8_lossy(&proof.public).into_owned();
            self.call_catalogue(Asker::Key(proof.public), Call::FindKey(public.into()));
        }
        None
    }

    pub(super) fn refuse_denied(&mut self, request: RequestId, denial: Denial) {
        let refusal = match denial {
            Denial::Unauthorised => Refusal::Unauthorised,
            Denial::Forbidden => Refusal::Forbidden,
        };
        self.emit(Event::Refused(request, refusal));
    }

    /// The catalogue's answer to who waits for a key.
    pub(super) fn on_key_found(&mut self, public: PublicId, outcome: Outcome) {
        let waiting = self.keys.waiting.remove(&public).unwrap_or_default();
        self.keys.waiters -= waiting.len();
        let refusal = match outcome {
            Outcome::Keys(rows) => {
                self.keys.remember(public, rows.first().map(Known::of), self.now);
                None
            }
            Outcome::Failed(text) => Some(Refusal::Failed(text)),
            _ => Some(Refusal::Unavailable),
        };
        for (proof, waiting) in waiting {
            if let Some(refusal) = &refusal {
                self.emit(Event::Refused(waiting.request(), refusal.clone()));
                continue;
            }
            match waiting {
                // It is remembered now, if only as unknown.
                waiting if self.keys.known.contains_key(&public) => {
                    let Some((access, waiting)) = self.access_of_key(proof, waiting) else {
                        continue;
                    };
                    match waiting {
                        Waiting::Job(request, name, job) => {
                            self.submit_as(request, &name, Claim::Access(access), job);
                        }
                        Waiting::Call(request, needs, call) => {
                            self.control_as(request, access, needs, *call);
                        }
                    }
                }
                waiting => self.emit(Event::Refused(waiting.request(), Refusal::Unavailable)),
            }
        }
    }

    /// The catalogue has carried out a call: what was remembered of keys may have changed, and what runs
    /// by what is not good any more ends.
    pub(super) fn keys_changed(&mut self, call: &Call, outcome: &Outcome) {
        match (call, outcome) {
            (
                Call::CreateKey(_) | Call::RevokeKey(_) | Call::RevokeNamed(_),
                Outcome::Keys(rows),
            ) => {
                for row in rows {
                    let public = PublicId::try_from(row.public.as_bytes());
                    if let Ok(public) = public
                        && let Some(known) = self.keys.known.get_mut(&public)
                    {
                        *known = Some(Known::of(row));
                    }
                    if row.revoked_s.is_some() {
                        let id = row.id;
                        self.end_requests(|holder, _| holder.key == Some(id));
                    }
                }
            }
            (call, Outcome::Row(_) | Outcome::Node(_)) if rotates(call) => {
                let old = |holder: &Holder, row: Option<&DatabaseRow>| {
                    row.is_some_and(|row| holder.is_older_than(row))
                };
                self.end_requests(old);
            }
            _ => {}
        }
    }

    /// End what runs, waits or is parked with rights that `ends` says are no more. O(open tenants, tasks
    /// and streams).
    fn end_requests(&mut self, ends: impl Fn(&Holder, Option<&DatabaseRow>) -> bool) {
        for key in self.tenants.keys() {
            for request in self.take_waiting(key, &ends) {
                self.refuse_denied(request, Denial::Unauthorised);
            }
        }
        for key in self.tasks.keys() {
            let Some(task) = self.tasks.get(key) else { continue };
            let row = self.tenants.get(task.tenant).and_then(|tenant| tenant.row.as_ref());
            if task.holder.is_some_and(|holder| ends(&holder, row)) {
                sometimes!("a request ends because its key is revoked");
                self.revoke_task(key);
            }
        }
        for ticket in self.parked_by(&ends) {
            sometimes!("a stream ends because its key is revoked");
            self.stream_expired(ticket);
        }
    }

    /// Take requests out of a tenant's lines.
    pub(super) fn take_waiting(
        &mut self,
        key: Key,
        ends: &impl Fn(&Holder, Option<&DatabaseRow>) -> bool,
    ) -> Vec<RequestId> {
        let mut taken = Vec::new();
        let Some(tenant) = self.tenants.get_mut(key) else { return taken };
        let row = tenant.row.as_ref();
        // Those that wait for the volume are judged again when it is there; a key is not.
        tenant.waiting.retain(|(request, claim, _)| {
            let ended = matches!(claim, Claim::Access(access) if ends(&access.holder(), row));
            taken.extend(ended.then_some(*request));
            !ended
        });
        let waiting = tenant.queue.len();
        tenant.queue.retain(|(request, access, _)| {
            let ended = ends(&access.holder(), row);
            taken.extend(ended.then_some(*request));
            !ended
        });
        tenant.tasks -= waiting - tenant.queue.len();
        if tenant.queue.is_empty() && std::mem::replace(&mut tenant.queued, false) {
            self.admission.retain(|&other| other != key);
        }
        taken
    }
}

/// The settings that hold for a row, the nearest first, each with whose they are.
pub(super) fn holders(row: &DatabaseRow) -> impl Iterator<Item = (Scope, &Settings)> {
    let own = (Scope::Database(row.id), row.settings());
    let above = row.path.iter().map(|node| (Scope::Node(node.id), node.settings()));
    std::iter::once(own).chain(above)
}
