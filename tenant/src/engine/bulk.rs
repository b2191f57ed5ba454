//! Creates and drops of many in one call: part after part, with word of how far it is.
//!
//! Each part is one transaction of the catalogue, and the next begins when the client has taken the
//! word of the last: other calls come in between, a client that reads slowly holds up nobody else,
//! and one that goes ends its call after the part that runs. Drops are counted as done when all that
//! their databases held has come back.
//!
//! With a key, a call that was broken off goes on where it was, and one that had ended is answered
//! again: see `catalogue/bulk.rs`. Only one call of a key runs at a time.

use std::collections::BTreeMap;

use storage::ledger::KINDS;
use storage::sometimes;

use super::context::Job;
use super::control::{Asker, ControlReply};
use super::drops::{Dropper, Receipt};
use super::patron::{self, Patron};
use super::{Engine, Event, Phase, Refusal, RequestId};
use crate::access::{Access, Scope};
use crate::catalogue::{BulkKey, BulkRecord, Call, Change, Missing, Outcome, failures};
use crate::limits;

/// What is done with each name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkWork {
    /// It is created, with this place and these settings.
    Create(Box<Change>),
    /// It is dropped.
    Drop,
}

/// A call about many databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// What is done.
    pub work: BulkWork,
    /// With which.
    pub names: Vec<Box<str>>,
    /// The caller's key: a second call with it goes on, or is answered as the first.
    pub key: Option<Box<str>>,
    /// Of all that is asked: another one with the same key is refused.
    pub digest: [u8; 32],
}

/// How far a call about many is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkProgress {
    /// Names gone through.
    pub done: usize,
    /// Of so many.
    pub of: usize,
    /// What was not done since the last word of it, by name, in the words of
    /// [`Outcome::failure_word`].
    pub failed: Vec<(Box<str>, &'static str)>,
    /// How many were not done until now.
    pub failures: usize,
    /// What dropped databases have given back.
    pub receipt: Option<Receipt>,
}

/// A call that runs.
pub(super) struct Running {
    bulk: Bulk,
    access: Access,
    /// The key with its caller.
    key: Option<BulkKey>,
    done: usize,
    failures: Vec<(usize, &'static str)>,
    /// Failures that were told.
    told: usize,
    receipt: Receipt,
    /// Drops of the part whose databases still hold something, and copies of it that are not whole.
    dropping: usize,
    /// Names up to here are of an earlier call with this key, which a crash may have ended while the last
    /// of them were being copied.
    again: usize,
    /// The client has the last word, and has not taken it yet.
    waiting: bool,
    /// Nobody waits for it any more.
    gone: bool,
    ended: bool,
}

impl Running {
    /// Copies of its part are not whole.
    pub fn is_building(&self) -> bool {
        self.dropping > 0 && matches!(self.bulk.work, BulkWork::Create(_))
    }
}

/// See the head of the file.
pub(super) type Bulks = BTreeMap<RequestId, Running>;

impl<J: Job> Engine<J> {
    pub(super) fn start_bulk(&mut self, request: RequestId, access: Access, bulk: Bulk) {
        let refuse = |engine: &mut Engine<J>, refusal| {
            engine.emit(Event::Refused(request, refusal));
        };
        if bulk.names.len() > limits::BULK_MAX {
            return refuse(self, Refusal::TooMany(bulk.names.len(), limits::BULK_MAX));
        }
        if self.bulks.len() >= limits::BULKS_MAX {
            return refuse(self, Refusal::Unavailable);
        }
        let key = bulk.key.clone().map(|text| BulkKey { scope: access.scope, text });
        if key.is_some() && self.bulks.values().any(|running| running.key == key) {
            return refuse(self, Refusal::KeyRuns);
        }
        let running = Running {
            bulk,
            access,
            key: key.clone(),
            done: 0,
            failures: Vec::new(),
            told: 0,
            receipt: Receipt::default(),
            dropping: 0,
            again: 0,
            waiting: false,
            gone: false,
            ended: false,
        };
        self.bulks.insert(request, running);
        match key {
            Some(key) => self.call_catalogue(Asker::Bulk(request), Call::FindBulk(key)),
            None => self.next_part(request),
        }
    }

    /// Begin the next part, or end the call.
    fn next_part(&mut self, request: RequestId) {
        let Some(running) = self.bulks.get(&request) else { return };
        if running.done == running.bulk.names.len() {
            return self.end_bulk(request);
        }
        if running.gone || self.phase != Phase::Serving {
            sometimes!("a call about many databases is broken off");
            return self.refuse_bulk(request, Refusal::Unavailable);
        }
        let room = self.log_bytes().1 / limits::BULK_LOG_PARTS / limits::BULK_LOG_BYTES;
        let part = usize::try_from(room).unwrap_or(usize::MAX).clamp(1, limits::BULK_PART);
        // What is looked at again is no part of what is new: the two are told apart by their place.
        let part = if running.done < running.again {
            part.min(running.again - running.done)
        } else {
            part
        };
        let names = running.bulk.names.iter().enumerate().skip(running.done).take(part);
        let calls = names.map(|(index, name)| {
            if self.is_memory_name(name) || running.has_failed_before(index) {
                return Call::Elsewhere(name.clone());
            }
            let name = name.to_string();
            let call = match &running.bulk.work {
                BulkWork::Create(change) if index < running.again => {
                    Call::Remake(name, (**change).clone())
                }
                BulkWork::Create(change) => {
                    Call::Create { name, exists_ok: false, change: (**change).clone() }
                }
                BulkWork::Drop => Call::Drop(name),
            };
            match running.access.scope {
                Scope::Machine => call,
                _ => Call::Guarded(running.access, Box::new(call)),
            }
        });
        let record = running.key.clone().map(|key| {
            let outcome = failures::write(&running.failures).into();
            BulkRecord { key, digest: running.bulk.digest, done: running.done, outcome }
        });
        let call = Call::Bulk(record.map(Box::new), calls.collect());
        self.call_catalogue(Asker::Bulk(request), call);
    }

    /// The catalogue's answer to a part, or about the key.
    pub(super) fn on_bulk(&mut self, request: RequestId, call: Call, outcome: Outcome) {
        if !self.bulks.contains_key(&request) {
            return;
        }
        match outcome {
            Outcome::BulkRecord(None) => self.next_part(request),
            Outcome::BulkRecord(Some(record)) => self.resume_bulk(request, &record),
            Outcome::Many(outcomes) => {
                let Call::Bulk(_, calls) = call else { unreachable!("it was answered as one") };
                self.part_done(request, calls, outcomes);
            }
            Outcome::Done => {}
            Outcome::Full => self.refuse_bulk(request, Refusal::LogFull),
            Outcome::Failed(text) => self.refuse_bulk(request, Refusal::Failed(text)),
            _ => unreachable!("a part was carried out"),
        }
    }

    fn resume_bulk(&mut self, request: RequestId, record: &BulkRecord) {
        let running = self.bulks.get_mut(&request).expect("the caller has looked");
        if record.digest != running.bulk.digest {
            return self.refuse_bulk(request, Refusal::KeyReused);
        }
        sometimes!("a call about many databases is made again with its key");
        let (failures, receipt) = read_outcome(&record.outcome);
        running.done = record.done.min(running.bulk.names.len());
        if receipt.is_none() && matches!(running.bulk.work, BulkWork::Create(_)) {
            running.again = running.done;
            running.done = running.done.saturating_sub(limits::BULK_PART);
        }
        running.failures = failures;
        running.receipt = receipt.unwrap_or_default();
        running.ended = receipt.is_some();
        self.tell_bulk(request);
    }

    fn part_done(&mut self, request: RequestId, calls: Vec<Call>, outcomes: Vec<Outcome>) {
        let running = self.bulks.get_mut(&request).expect("the caller has looked");
        let first = running.done;
        running.done += outcomes.len();
        // Some have nothing to give back: nothing is told before all of the part are gone through.
        running.dropping += 1;
        let again = running.again;
        for (index, outcome) in outcomes.iter().enumerate() {
            if let Some(word) = outcome.failure_word() {
                running.failures.push((first + index, word));
            }
        }
        for (index, (call, outcome)) in (first..).zip(calls.into_iter().zip(outcomes)) {
            let call = call.into_inner();
            if let Outcome::Memory(row) = outcome {
                if self.make_in_memory(*row).is_err() {
                    let running = self.bulks.get_mut(&request).expect("it runs");
                    running.failures.push((index, "DATABASE_EXISTS"));
                }
            } else if index < again && matches!(call, Call::Elsewhere(_)) {
                // What came of it was said before the crash.
            } else if let Outcome::Build(_) = outcome {
                let running = self.bulks.get_mut(&request).expect("it runs");
                running.dropping += 1;
                self.fork_begun(Patron::Bulk(request, index), outcome);
            } else if let Call::Elsewhere(name) = &call {
                self.in_memory_part(request, index, name);
            } else if let (Call::Drop(name), Outcome::Row(row)) = (&call, &outcome) {
                let running = self.bulks.get_mut(&request).expect("it runs");
                running.dropping += 1;
                self.catalogue_changed(&call, &outcome);
                self.on_dropped(name, row, Dropper::Bulk(request));
            } else {
                self.catalogue_changed(&call, &outcome);
            }
        }
        let running = self.bulks.get_mut(&request).expect("it runs");
        running.dropping -= 1;
        running.failures.sort_unstable();
        self.tell_if_settled(request);
    }

    /// The name is, or was just now, of a database in memory: it is dropped, or in the way.
    fn in_memory_part(&mut self, request: RequestId, index: usize, name: &str) {
        let running = self.bulks.get_mut(&request).expect("it runs");
        let failed = match running.bulk.work {
            BulkWork::Create(_) => Err(Refusal::Exists),
            BulkWork::Drop => {
                running.dropping += 1;
                let access = running.access;
                self.drop_in_memory(name, &access, Dropper::Bulk(request))
            }
        };
        let running = self.bulks.get_mut(&request).expect("it runs");
        let word = match failed {
            Ok(()) => return,
            Err(Refusal::Exists) => "DATABASE_EXISTS",
            Err(Refusal::Protected) => "DELETE_PROTECTED",
            Err(Refusal::Unauthorised) => "UNAUTHORIZED",
            Err(_) => "DATABASE_NOT_FOUND",
        };
        running.dropping -= usize::from(running.bulk.work == BulkWork::Drop);
        running.failures.push((index, word));
    }

    /// A database of the part has given back what it held.
    pub(super) fn bulk_dropped(&mut self, request: RequestId, receipt: &Receipt) {
        let Some(running) = self.bulks.get_mut(&request) else { return };
        running.dropping -= 1;
        running.receipt.add(receipt);
        self.tell_if_settled(request);
    }

    /// A copy of the part is whole, or will not be.
    pub(super) fn bulk_built(&mut self, request: RequestId, failed: Option<(usize, &'static str)>) {
        let Some(running) = self.bulks.get_mut(&request) else { return };
        running.dropping -= 1;
        if let Some((index, word)) = failed {
            // What was told stands in front.
            let told = running.told;
            running.failures.push((index, word));
            running.failures[told..].sort_unstable();
        }
        self.tell_if_settled(request);
    }

    fn tell_if_settled(&mut self, request: RequestId) {
        if self.bulks.get(&request).is_some_and(|running| running.dropping == 0) {
            self.tell_bulk(request);
        }
    }

    /// Say how far it is. The next part begins when that has left.
    fn tell_bulk(&mut self, request: RequestId) {
        let running = self.bulks.get_mut(&request).expect("it runs");
        let progress = running.progress();
        if running.gone {
            return self.next_part(request);
        }
        running.waiting = true;
        let event = Event::Bulk(request, Box::new(progress));
        self.emit_gated(self.catalogue_key, event);
    }

    /// The client has taken the last word, or has gone.
    pub(super) fn bulk_flushed(&mut self, request: RequestId, gone: bool) -> bool {
        let Some(running) = self.bulks.get_mut(&request) else { return false };
        running.gone |= gone;
        if std::mem::replace(&mut running.waiting, false) {
            self.next_part(request);
        }
        true
    }

    fn end_bulk(&mut self, request: RequestId) {
        let running = self.bulks.remove(&request).expect("it runs");
        if let (Some(key), false) = (&running.key, running.ended) {
            let call = Call::EndBulk(key.clone(), running.outcome().into());
            self.call_catalogue(Asker::Nobody, call);
        }
        let reply = ControlReply::Bulk(Box::new(BulkProgress {
            failed: running.named(0),
            ..running.progress_of(running.failures.len())
        }));
        self.emit_gated(self.catalogue_key, Event::Control(request, reply));
    }

    fn refuse_bulk(&mut self, request: RequestId, refusal: Refusal) {
        self.bulks.remove(&request);
        self.emit_gated(self.catalogue_key, Event::Refused(request, refusal));
    }
}

impl Running {
    /// It was not carried out before the crash, and whoever asked may have been told so.
    fn has_failed_before(&self, index: usize) -> bool {
        index < self.again && self.failures.iter().any(|&(failed, _)| failed == index)
    }

    fn named(&self, from: usize) -> Vec<(Box<str>, &'static str)> {
        let name = |&(index, word): &(usize, &'static str)| (self.bulk.names[index].clone(), word);
        self.failures[from..].iter().map(name).collect()
    }

    fn progress(&mut self) -> BulkProgress {
        let told = std::mem::replace(&mut self.told, self.failures.len());
        self.progress_of(told)
    }

    fn progress_of(&self, told: usize) -> BulkProgress {
        BulkProgress {
            done: self.done,
            of: self.bulk.names.len(),
            failed: self.named(told),
            failures: self.failures.len(),
            receipt: (self.bulk.work == BulkWork::Drop).then_some(self.receipt),
        }
    }

    /// What came of all, as its record keeps it: failures, and behind a stroke the receipt's numbers.
    fn outcome(&self) -> String {
        let Receipt { taken, returned, files_taken, files_returned, .. } = &self.receipt;
        let pages = [self.receipt.pages_taken, self.receipt.pages_returned];
        let numbers = taken.iter().chain(returned).chain([files_taken, files_returned]);
        let numbers = numbers.chain(&pages).map(u64::to_string);
        format!(
            "{}|{}",
            failures::write(&self.failures),
            numbers.collect::<Vec<String>>().join(",")
        )
    }
}

/// What [`Running::outcome`] has written, or as much of it as is there before the end.
fn read_outcome(text: &str) -> (Vec<(usize, &'static str)>, Option<Receipt>) {
    let (failures, numbers) =
        text.split_once('|').map_or((text, None), |(failures, numbers)| (failures, Some(numbers)));
    let receipt = numbers.map(|numbers| {
        let mut numbers = numbers.split(',').map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let mut kinds = [0; 2 * KINDS];
        kinds.iter_mut().for_each(|kind| *kind = next());
        let mut receipt = Receipt::default();
        receipt.taken.copy_from_slice(&kinds[..KINDS]);
        receipt.returned.copy_from_slice(&kinds[KINDS..]);
        receipt.files_taken = next();
        receipt.files_returned = next();
        receipt.pages_taken = next();
        receipt.pages_returned = next();
        receipt
    });
    (failures::read(failures), receipt)
}

/// Every word of a failure. Records keep their places here, so a new one goes to the end of all: behind the
/// copies' ([`patron::WORDS`]).
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    FAILURE_WORDS.into_iter().chain(patron::WORDS)
}

const FAILURE_WORDS: [&str; 8] = [
    "DATABASE_EXISTS",
    "DATABASE_NOT_FOUND",
    "PLAN_NOT_FOUND",
    "ORGANISATION_NOT_FOUND",
    "GROUP_NOT_FOUND",
    "DELETE_PROTECTED",
    "UNAUTHORIZED",
    "FORBIDDEN",
];

impl Outcome {
    /// Why a create or drop of one was not carried out, as the API says it.
    #[must_use]
    pub fn failure_word(&self) -> Option<&'static str> {
        use crate::access::Denial;
        match self {
            Outcome::Exists => Some("DATABASE_EXISTS"),
            Outcome::NotFound => Some("DATABASE_NOT_FOUND"),
            Outcome::Missing(Missing::Plan | Missing::Key) => Some("PLAN_NOT_FOUND"),
            Outcome::Missing(Missing::Organisation) => Some("ORGANISATION_NOT_FOUND"),
            Outcome::Missing(Missing::Group) => Some("GROUP_NOT_FOUND"),
            Outcome::Missing(Missing::Template) => Some("TEMPLATE_NOT_FOUND"),
            Outcome::Protected => Some("DELETE_PROTECTED"),
            Outcome::Denied(Denial::Unauthorised) => Some("UNAUTHORIZED"),
            Outcome::Denied(Denial::Forbidden) => Some("FORBIDDEN"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_it_is_read_as_it_was_written() {
        let mut receipt = Receipt { files_taken: 3, pages_returned: 9, ..Receipt::default() };
        receipt.taken[1] = 77;
        receipt.returned[KINDS - 1] = 5;
        let failures =
            vec![(3, "DATABASE_EXISTS"), (4, "UNAVAILABLE"), (9_999, "DELETE_PROTECTED")];
        let running = Running {
            bulk: Bulk { work: BulkWork::Drop, names: Vec::new(), key: None, digest: [0; 32] },
            access: Access::MACHINE,
            key: None,
            done: 0,
            failures: failures.clone(),
            told: 0,
            receipt,
            dropping: 0,
            again: 0,
            waiting: false,
            gone: false,
            ended: false,
        };
        assert_eq!(read_outcome(&running.outcome()), (failures.clone(), Some(receipt)));
        assert_eq!(read_outcome(&failures::write(&failures)), (failures, None));
        assert_eq!(read_outcome(""), (Vec::new(), None));
    }
}
