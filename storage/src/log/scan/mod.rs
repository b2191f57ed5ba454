//! A start: from files in an unknown state to a log in service, or a reason to stop.
//!
//! In order: open the ring and read its superblock; open the segments; read the ring's copies and
//! each segment's first header; choose where to begin; then batch after batch, each judged by
//! `decide`; at the end repair what a twin could repair, and hand over. A log without segments is
//! fresh: its ring is made here, its segments later by the log itself.
//!
//! Memory: one window of `SCAN_WINDOW_BYTES`, one piece of `READ_PIECE_BYTES`, and an entry per
//! live page. Nothing is written before all is decided, repairs are single writes over bytes that
//! are already useless, and each may be repeated: a scan can be interrupted anywhere.

mod begin;
mod files;
mod finish;
mod judge;

use crate::io::BLOCK_BYTES;
use crate::log::decide::{BatchState, CopyState};
use crate::log::header::Header;
use crate::log::limits::RING_BYTES;
use crate::log::prepare::SlotState;
use crate::log::reader::Reader;
use crate::log::replay::Replay;
use crate::log::ring::Slot;
use crate::log::transfer::Writing;
use crate::log::{
    LogFile, LogOperation, LogOptions, LogReply, LogRequest, LogRequestId, Place, Recovered,
    RecoveryError, Sequence, Torn, mismatched,
};
use std::collections::VecDeque;
use std::io;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Where a scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    OpenRing,
    Superblock { again: bool },
    OpenSegment { slot: u32 },
    SyncNames,
    Ring { again: bool },
    First { slot: u32, again: bool },
    Begin,
    FindFirst { segment: u64, offset: u64 },
    Batch { again: bool },
    Search { offset: u64 },
    Repair,
    CreateRing,
    AllocateRing,
    ZeroRing,
    SyncRing,
    SyncDirectory,
    Done,
}

/// What is known of the ring before its slots are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RingFound {
    Missing,
    Damaged,
    Intact,
}

/// A segment's first header.
#[derive(Clone, Copy, Debug)]
struct First {
    segment: u64,
    sequence: Sequence,
    redo_from: Sequence,
    previous: [u8; 32],
}

/// The next batch expected.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    sequence: Sequence,
    place: Place,
    previous: Option<[u8; 32]>,
}

/// A batch that is not good, while a successor is looked for.
#[derive(Debug)]
struct Suspect {
    state: BatchState,
    copy: CopyState,
    /// Its own intact header, and which of its pages are good.
    own: Option<(Header, Vec<bool>)>,
    claims: bool,
    blank: bool,
}

/// Proof of a later batch.
#[derive(Clone, Copy, Debug)]
struct Found {
    sequence: Sequence,
    place: Place,
    previous: [u8; 32],
}

/// The recovery state machine; requests as in [`Log`], one at a time.
pub struct Scan {
    options: LogOptions,
    phase: Phase,
    reader: Reader,
    requests: u64,
    in_flight: Option<LogRequestId>,
    pending: Option<LogOperation>,
    ring_found: RingFound,
    files: Vec<SlotState>,
    ring: Vec<Slot>,
    firsts: Vec<Option<First>>,
    cursor: Cursor,
    suspect: Option<Suspect>,
    found: Option<Found>,
    replay: Replay,
    redo_from: Sequence,
    segments: VecDeque<(u64, Sequence)>,
    last: Option<Header>,
    torn: Option<Torn>,
    batches: u64,
    bytes: u64,
    writes: VecDeque<Writing>,
    repaired: u64,
    outcome: Option<Result<Recovered, RecoveryError>>,
}

impl Scan {
    /// Begin a start. A log that exists keeps its shape; the options' shape is for a new one.
    ///
    /// # Panics
    /// If [`LogOptions::check`] does.
    #[must_use]
    pub fn new(options: LogOptions) -> Scan {
        options.check();
        Scan {
            options,
            phase: Phase::OpenRing,
            reader: Reader::new(),
            requests: 0,
            in_flight: None,
            pending: Some(LogOperation::Open { file: LogFile::Ring, create: false }),
            ring_found: RingFound::Missing,
            files: Vec::new(),
            ring: Vec::new(),
            firsts: Vec::new(),
            cursor: Cursor { sequence: Sequence(1), place: Place::default(), previous: None },
            suspect: None,
            found: None,
            replay: Replay::default(),
            redo_from: Sequence(1),
            segments: VecDeque::new(),
            last: None,
            torn: None,
            batches: 0,
            bytes: 0,
            writes: VecDeque::new(),
            repaired: 0,
            outcome: None,
        }
    }

    /// The next thing to do; none while one is in flight, and none once there is an outcome.
    pub fn next_request(&mut self) -> Option<LogRequest> {
        if self.in_flight.is_some() {
            return None;
        }
        while self.outcome.is_none() && self.phase != Phase::Done {
            let operation = self.pending.take().or_else(|| self.reader.operation());
            if let Some(operation) = operation {
                self.requests += 1;
                let id = LogRequestId(self.requests);
                self.in_flight = Some(id);
                return Some(LogRequest { id, operation });
            }
            if let Err(error) = self.step() {
                self.outcome = Some(Err(error));
            }
        }
        None
    }

    /// A request ended.
    ///
    /// # Panics
    /// If it is not the one in flight, or the reply is of another kind.
    pub fn complete(&mut self, id: LogRequestId, reply: LogReply) {
        assert_eq!(self.in_flight.take(), Some(id));
        let result = match (self.phase, reply) {
            (Phase::OpenRing, LogReply::Opened(result)) => self.ring_opened(result),
            (Phase::OpenSegment { slot }, LogReply::Opened(result)) => {
                self.segment_opened(slot, result)
            }
            (Phase::SyncNames, LogReply::DirectorySynced(result)) => self.names_synced(result),
            (Phase::CreateRing, LogReply::Opened(result)) => {
                let bytes = RING_BYTES as u64;
                let next = LogOperation::Allocate { file: LogFile::Ring, bytes };
                self.ring_step(result.map(|_| ()), Phase::AllocateRing, Some(next))
            }
            (Phase::AllocateRing, LogReply::Allocated(result)) => {
                self.queue_zeros();
                self.ring_step(result, Phase::ZeroRing, None)
            }
            (Phase::SyncRing, LogReply::Synced(result)) => {
                self.ring_step(result, Phase::SyncDirectory, Some(LogOperation::SyncDirectory))
            }
            (Phase::SyncDirectory, LogReply::DirectorySynced(result)) => {
                self.queue_superblocks();
                self.ring_step(result, Phase::Repair, None)
            }
            (Phase::ZeroRing | Phase::Repair, LogReply::Written(buffer, result)) => {
                self.written(buffer, result)
            }
            (_, LogReply::Read(buffer, result)) => {
                self.reader.complete(buffer, result);
                Ok(())
            }
            (_, reply) => mismatched(&reply),
        };
        if let Err(error) = result {
            self.outcome = Some(Err(error));
        }
    }

    /// The outcome, once: when `next_request` has nothing and nothing is in flight.
    pub fn outcome(&mut self) -> Option<Result<Recovered, RecoveryError>> {
        if self.in_flight.is_some() {
            return None;
        }
        self.outcome.take()
    }

    /// Decide what comes next; called when no read is under way.
    fn step(&mut self) -> Result<(), RecoveryError> {
        match self.phase {
            Phase::Superblock { again } => self.superblock(again),
            Phase::Ring { again } => self.read_ring(again),
            Phase::First { slot, again } => {
                self.read_first(slot, again);
                Ok(())
            }
            Phase::Begin => self.begin(),
            Phase::FindFirst { segment, offset } => self.find_first(segment, offset),
            Phase::Batch { again } => self.judge(again),
            Phase::Search { offset } => self.search(offset),
            Phase::ZeroRing | Phase::Repair => {
                self.next_write();
                Ok(())
            }
            _ => unreachable!("this phase waits for a reply"),
        }
    }

    fn slot(&self, segment: u64) -> u32 {
        self.options.slot(segment)
    }

    fn opened(&self, segment: u64) -> bool {
        self.files[self.slot(segment) as usize].opened
    }
}

fn io_error(file: LogFile, action: &str, error: &io::Error) -> RecoveryError {
    RecoveryError::Io { file, reason: format!("{action}: {error}") }
}
