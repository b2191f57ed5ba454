//! For whom a database is built, and how they hear what came of it.
//!
//! A fork or an upload is built for the request that asked for it. Where a group has a template, a create
//! is a fork too, and so is a first use and each name of a call about many: the catalogue answers those
//! with a row that is to be filled ([`Outcome::Build`](crate::catalogue::Outcome::Build)), and whoever
//! asked waits until it is.

use super::building::Unbuilt;
use super::context::Job;
use super::{Engine, Event, Refusal, RequestId};
use crate::catalogue::{DatabaseRow, Missing};
use crate::pool::Key;

/// See the head of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patron {
    /// A caller's request.
    Request(RequestId),
    /// A request to create a database in a group with a template.
    Creation(RequestId),
    /// Requests that wait for a database of this name, which their use makes.
    Opening(Key),
    /// A call about many, for the name at this place.
    Bulk(RequestId, usize),
}

impl Patron {
    /// The caller's request that is for this database alone.
    pub fn request(self) -> Option<RequestId> {
        match self {
            Patron::Request(request) | Patron::Creation(request) => Some(request),
            Patron::Opening(_) | Patron::Bulk(..) => None,
        }
    }
}

impl<J: Job> Engine<J> {
    /// The database is there.
    pub(super) fn tell_built(&mut self, patron: Patron, row: DatabaseRow) {
        match patron {
            Patron::Request(request) | Patron::Creation(request) => {
                let reply = self.import_reply(request, row);
                self.emit_gated(self.catalogue_key, Event::Control(request, reply));
            }
            Patron::Opening(key) => self.find_in_catalogue(key, row.name, false),
            Patron::Bulk(request, _) => self.bulk_built(request, None),
        }
    }

    /// There will be none.
    pub(super) fn tell_unbuilt(&mut self, patron: Patron, refusal: Refusal) {
        let refusal = match (patron, refusal) {
            // What is not there is the template, whose name nobody has said.
            (Patron::Creation(_) | Patron::Opening(_), Refusal::NotFound) => {
                Refusal::Missing(Missing::Template)
            }
            (_, refusal) => refusal,
        };
        match patron {
            Patron::Request(request) | Patron::Creation(request) => {
                self.imports.remove(&request);
                self.emit_gated(self.catalogue_key, Event::Refused(request, refusal));
            }
            Patron::Opening(key) => self.refuse_waiting(key, &refusal),
            Patron::Bulk(request, index) => {
                self.bulk_built(request, Some((index, word_of(&refusal))));
            }
        }
    }
}

/// Why a copy of a template was not made, as an answer about many says it.
fn word_of(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotFound | Refusal::Missing(_) => "TEMPLATE_NOT_FOUND",
        Refusal::Fenced(_) => "DATABASE_DAMAGED",
        Refusal::Exceeded(_) => "DATABASE_FULL",
        Refusal::Unbuilt(Unbuilt::Dropped) => "DATABASE_DROPPED",
        Refusal::Unbuilt(Unbuilt::Overtaken) => "COPY_OVERTAKEN",
        Refusal::Unbuilt(Unbuilt::DiskFull) => "DISK_FULL",
        Refusal::Unbuilt(Unbuilt::NoMemory) => "MEMORY_FULL",
        Refusal::Unbuilt(Unbuilt::TooMany(_)) => "TOO_MANY_COPIES",
        Refusal::LogFull => "LOG_FULL",
        _ => "UNAVAILABLE",
    }
}

/// All that [`word_of`] says.
pub(super) const WORDS: [&str; 10] = [
    "TEMPLATE_NOT_FOUND",
    "DATABASE_DAMAGED",
    "DATABASE_FULL",
    "DATABASE_DROPPED",
    "COPY_OVERTAKEN",
    "DISK_FULL",
    "MEMORY_FULL",
    "TOO_MANY_COPIES",
    "LOG_FULL",
    "UNAVAILABLE",
];
