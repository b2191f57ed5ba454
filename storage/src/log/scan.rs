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
//!
//! Where to begin: a segment is used again only once a header *copy* frees it, so the copies'
//! newest `redo_from` leads to a segment that is still whole. Headers' own `redo_from` (a torn
//! batch's too: it says what is in tenant files, and that is true) help only if the ring cannot.

use super::append::LogStart;
use super::decide::{Action, BatchState, CopyState, SuccessorState, decide};
use super::header::{Header, claims, page_check};
use super::limits::{
    HEADER_BYTES_MAX, RING_BYTES, RING_SLOTS, RING_SLOTS_OFFSET, SCAN_WINDOW_BYTES,
    SEGMENT_BLOCKS_LEAST, SEGMENT_COUNT_LEAST, SEGMENT_COUNT_MOST, SLOT_BYTES,
};
use super::prepare::SlotState;
use super::reader::{Reader, UNREADABLE};
use super::replay::Replay;
use super::ring::{Slot, Superblock, SuperblockRead, fill_copy, is_zero, slot_index, slot_offset};
use super::transfer::{Progress, Writing};
use super::{
    Log, LogFile, LogOperation, LogOptions, LogReply, LogRequest, LogRequestId, Place, Recovered,
    RecoveryError, Sequence, Torn, mismatched, space,
};
use crate::io::{BLOCK_BYTES, Buffer};
use std::collections::VecDeque;
use std::io;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Where a scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    OpenRing,
    Superblock { again: bool },
    OpenSegment { slot: u32 },
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
            pending: Some(LogOperation::Open {
                file: LogFile::Ring,
                create: false,
            }),
            ring_found: RingFound::Missing,
            files: Vec::new(),
            ring: Vec::new(),
            firsts: Vec::new(),
            cursor: Cursor {
                sequence: Sequence(1),
                place: Place::default(),
                previous: None,
            },
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
            (Phase::CreateRing, LogReply::Opened(result)) => {
                let bytes = RING_BYTES as u64;
                let next = LogOperation::Allocate {
                    file: LogFile::Ring,
                    bytes,
                };
                self.ring_step(result.map(|_| ()), Phase::AllocateRing, Some(next))
            }
            (Phase::AllocateRing, LogReply::Allocated(result)) => {
                self.queue_zeros();
                self.ring_step(result, Phase::ZeroRing, None)
            }
            (Phase::SyncRing, LogReply::Synced(result)) => self.ring_step(
                result,
                Phase::SyncDirectory,
                Some(LogOperation::SyncDirectory),
            ),
            (Phase::SyncDirectory, LogReply::DirectorySynced(result)) => {
                self.queue_superblock();
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

    // Files.

    fn ring_opened(&mut self, result: io::Result<u64>) -> Result<(), RecoveryError> {
        match result {
            Ok(_) => {
                self.ring_found = RingFound::Damaged;
                self.phase = Phase::Superblock { again: false };
                self.reader
                    .fetch(LogFile::Ring, 0, RING_SLOTS_OFFSET, UNREADABLE);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_segment(0),
            Err(error) => return Err(io_error(LogFile::Ring, "opening", &error)),
        }
        Ok(())
    }

    fn superblock(&mut self, again: bool) -> Result<(), RecoveryError> {
        let bytes = self.reader.slice(LogFile::Ring, 0, RING_SLOTS_OFFSET);
        match Superblock::read(bytes.expect("the superblocks are in the window")) {
            SuperblockRead::Intact(superblock) => {
                self.adopt(superblock)?;
                self.ring_found = RingFound::Intact;
            }
            SuperblockRead::Version(found) => return Err(RecoveryError::Version { found }),
            SuperblockRead::Damaged if !again => {
                self.phase = Phase::Superblock { again: true };
                self.reader
                    .fetch(LogFile::Ring, 0, RING_SLOTS_OFFSET, UNREADABLE);
                return Ok(());
            }
            SuperblockRead::Damaged => {}
        }
        self.open_segment(0);
        Ok(())
    }

    fn adopt(&mut self, superblock: Superblock) -> Result<(), RecoveryError> {
        let Superblock {
            segment_bytes,
            segment_count,
        } = superblock;
        let sized = segment_bytes.is_multiple_of(BLOCK)
            && segment_bytes >= SEGMENT_BLOCKS_LEAST * BLOCK
            && segment_bytes <= i64::MAX as u64 / u64::from(SEGMENT_COUNT_MOST);
        if !sized || !(SEGMENT_COUNT_LEAST..=SEGMENT_COUNT_MOST).contains(&segment_count) {
            return Err(RecoveryError::Shape {
                segment_bytes,
                segment_count,
            });
        }
        let options = &mut self.options;
        options.segment_bytes = segment_bytes;
        options.segment_count = segment_count;
        let batch_bytes_max = options.batch_bytes_max as u64;
        options.batch_bytes_max = batch_bytes_max.min(segment_bytes) as usize;
        let usable = space::usable_bytes(options);
        options.system_reserve_bytes = options.system_reserve_bytes.min(usable / 2);
        options.check();
        Ok(())
    }

    fn open_segment(&mut self, slot: u32) {
        self.phase = Phase::OpenSegment { slot };
        let file = LogFile::Segment(slot);
        self.pending = Some(LogOperation::Open {
            file,
            create: false,
        });
    }

    fn segment_opened(&mut self, slot: u32, result: io::Result<u64>) -> Result<(), RecoveryError> {
        self.files.push(match result {
            Ok(size) => SlotState {
                opened: true,
                ready: size == self.options.segment_bytes,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => SlotState::default(),
            Err(error) => return Err(io_error(LogFile::Segment(slot), "opening", &error)),
        });
        if slot + 1 < self.options.segment_count {
            self.open_segment(slot + 1);
            return Ok(());
        }
        self.firsts = vec![None; self.files.len()];
        let any = self.files.iter().any(|file| file.opened);
        match self.ring_found {
            RingFound::Missing if any => return Err(RecoveryError::RingMissing),
            RingFound::Damaged if any => return Err(RecoveryError::RingDamaged),
            RingFound::Missing => {
                self.phase = Phase::CreateRing;
                self.pending = Some(LogOperation::Open {
                    file: LogFile::Ring,
                    create: true,
                });
            }
            RingFound::Damaged => {
                self.phase = Phase::AllocateRing;
                let bytes = RING_BYTES as u64;
                self.pending = Some(LogOperation::Allocate {
                    file: LogFile::Ring,
                    bytes,
                });
            }
            RingFound::Intact => {
                self.phase = Phase::Ring { again: false };
                self.fetch_ring();
            }
        }
        Ok(())
    }

    fn fetch_ring(&mut self) {
        let start = RING_SLOTS_OFFSET as u64;
        self.reader
            .fetch(LogFile::Ring, start, RING_SLOTS * SLOT_BYTES, UNREADABLE);
    }

    fn read_ring(&mut self, again: bool) -> Result<(), RecoveryError> {
        self.ring.clear();
        for index in 0..RING_SLOTS {
            let bytes = self
                .reader
                .slice(LogFile::Ring, slot_offset(index), SLOT_BYTES);
            self.ring
                .push(Slot::read(bytes.expect("the ring is in the window"), index));
        }
        let bad = self.ring.iter().any(|slot| matches!(slot, Slot::Bad));
        if bad && !again {
            self.phase = Phase::Ring { again: true };
            self.fetch_ring();
        } else {
            self.next_first(0);
        }
        Ok(())
    }

    fn next_first(&mut self, from: u32) {
        let mut slots = from..self.options.segment_count;
        match slots.find(|slot| self.files[*slot as usize].opened) {
            Some(slot) => {
                self.phase = Phase::First { slot, again: false };
                self.reader
                    .fetch(LogFile::Segment(slot), 0, HEADER_BYTES_MAX, 0);
            }
            None => self.phase = Phase::Begin,
        }
    }

    fn read_first(&mut self, slot: u32, again: bool) {
        let file = LogFile::Segment(slot);
        let bytes = self.reader.slice(file, 0, HEADER_BYTES_MAX);
        let header = Header::read(bytes.expect("the first header is in the window"));
        let fields = header.map(|header| header.fields);
        let first = fields.filter(|fields| {
            fields.place.offset == 0 && self.options.slot(fields.place.segment) == slot
        });
        self.firsts[slot as usize] = first.map(|fields| First {
            segment: fields.place.segment,
            sequence: fields.sequence,
            redo_from: fields.redo_from,
            previous: fields.previous,
        });
        if first.is_none() && !again {
            self.phase = Phase::First { slot, again: true };
            self.reader.fetch(file, 0, HEADER_BYTES_MAX, 0);
            return;
        }
        self.next_first(slot + 1);
    }

    // Where to begin.

    fn copies(&self) -> impl Iterator<Item = &Header> {
        self.ring.iter().filter_map(|slot| match slot {
            Slot::Holds(header) => Some(&**header),
            _ => None,
        })
    }

    fn begin(&mut self) -> Result<(), RecoveryError> {
        let firsts = self.firsts.iter().flatten();
        let by_first = firsts.clone().map(|first| first.segment).max();
        let by_copy = self.copies().map(|copy| copy.fields.place.segment).max();
        let Some(newest) = by_first.max(by_copy) else {
            self.start_at(Sequence(1), Place::default());
            return Ok(());
        };
        let copied = self.copies().map(|copy| copy.fields.redo_from).max();
        let listed = firsts.map(|first| first.redo_from).max();
        let one = Some(Sequence(1));
        let limits = [copied.max(one), copied.max(listed).max(one)];
        for limit in limits.into_iter().flatten() {
            if let Some(first) = self.newest_first(newest, limit) {
                return self.begin_at(first.sequence, first.segment, newest);
            }
        }
        let count = u64::from(self.options.segment_count);
        let lowest = (newest.saturating_sub(count - 1)..=newest)
            .find(|segment| self.first(*segment).is_some())
            .unwrap_or(newest + 1);
        let segment = lowest.saturating_sub(1);
        if !self.opened(segment) {
            return Err(RecoveryError::SegmentMissing {
                slot: self.slot(segment),
            });
        }
        self.redo_from = limits[1].unwrap_or_default();
        self.phase = Phase::FindFirst { segment, offset: 0 };
        Ok(())
    }

    fn first(&self, segment: u64) -> Option<First> {
        self.firsts[self.slot(segment) as usize].filter(|first| first.segment == segment)
    }

    /// The newest segment whose first batch is not newer than `limit`.
    fn newest_first(&self, newest: u64, limit: Sequence) -> Option<First> {
        let count = u64::from(self.options.segment_count);
        let segments = newest.saturating_sub(count - 1)..=newest;
        let mut firsts = segments.rev().filter_map(|segment| self.first(segment));
        firsts.find(|first| first.sequence <= limit)
    }

    fn begin_at(
        &mut self,
        sequence: Sequence,
        segment: u64,
        newest: u64,
    ) -> Result<(), RecoveryError> {
        if let Some(missing) = (segment..=newest).find(|segment| !self.opened(*segment)) {
            return Err(RecoveryError::SegmentMissing {
                slot: self.slot(missing),
            });
        }
        self.start_at(sequence, Place { segment, offset: 0 });
        Ok(())
    }

    fn start_at(&mut self, sequence: Sequence, place: Place) {
        let previous = (sequence == Sequence(1)).then_some([0; 32]);
        self.cursor = Cursor {
            sequence,
            place,
            previous,
        };
        self.redo_from = Sequence(1);
        self.phase = Phase::Batch { again: false };
        self.reader.forget();
    }

    /// The oldest needed segment's first header cannot be read: its next one will do if
    /// everything before it is superseded, or a copy if one is left.
    fn find_first(&mut self, segment: u64, offset: u64) -> Result<(), RecoveryError> {
        let Some(header) = self.next_header(segment, offset, Sequence(0))? else {
            return Ok(());
        };
        let slot = self.slot(segment);
        let place = Place { segment, offset: 0 };
        let limit = self.redo_from;
        let copy = self
            .copies()
            .map(|copy| copy.fields)
            .find(|fields| fields.place == place);
        match (header, copy) {
            (Some(found), _) if found.sequence <= limit => {
                self.start_at(found.sequence, found.place);
            }
            (_, Some(copy)) => self.start_at(copy.sequence, copy.place),
            _ if segment == 0 => self.start_at(Sequence(1), place),
            _ => {
                let reason = format!("batch {} is still needed", limit.0);
                return Err(RecoveryError::Unreadable {
                    slot,
                    place,
                    sequence: None,
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Look for an intact header newer than `above` from `offset` to the segment's end. `Ok(None)`:
    /// bytes are being read, come again. The phase keeps the offset.
    #[allow(clippy::type_complexity)]
    fn next_header(
        &mut self,
        segment: u64,
        mut offset: u64,
        above: Sequence,
    ) -> Result<Option<Option<Found>>, RecoveryError> {
        let file = LogFile::Segment(self.slot(segment));
        while offset < self.options.segment_bytes {
            let left = self.options.segment_bytes - offset;
            let header_bytes = left.min(HEADER_BYTES_MAX as u64) as usize;
            let Some(bytes) = self.reader.slice(file, offset, header_bytes) else {
                let window = left.min(SCAN_WINDOW_BYTES as u64) as usize;
                self.reader.fetch(file, offset, window, 0);
                match &mut self.phase {
                    Phase::FindFirst { offset: at, .. } | Phase::Search { offset: at } => {
                        *at = offset;
                    }
                    _ => unreachable!("only these phases look for headers"),
                }
                return Ok(None);
            };
            let place = Place { segment, offset };
            let header = Header::read(bytes)
                .filter(|header| header.fields.place == place && header.fields.sequence > above);
            if let Some(Header { fields, .. }) = header {
                let (sequence, previous) = (fields.sequence, fields.previous);
                return Ok(Some(Some(Found {
                    sequence,
                    place,
                    previous,
                })));
            }
            offset += BLOCK;
        }
        Ok(Some(None))
    }

    // Batch after batch.

    fn judge(&mut self, again: bool) -> Result<(), RecoveryError> {
        let Cursor {
            place, sequence, ..
        } = self.cursor;
        let copy = self.copy_state();
        if !self.opened(place.segment) {
            if copy == CopyState::Good {
                return Err(RecoveryError::SegmentMissing {
                    slot: self.slot(place.segment),
                });
            }
            let state = BatchState::Absent;
            self.suspect = Some(Suspect {
                state,
                copy,
                own: None,
                claims: false,
                blank: true,
            });
            return self.search(self.options.segment_bytes);
        }
        let file = LogFile::Segment(self.slot(place.segment));
        let left = (self.options.segment_bytes - place.offset) as usize;
        let Some(bytes) = self
            .reader
            .slice(file, place.offset, left.min(HEADER_BYTES_MAX))
        else {
            self.fetch_batch();
            return Ok(());
        };
        let header = Header::read(bytes);
        let blank = is_zero(&bytes[..BLOCK_BYTES]);
        let claims = claims(bytes, sequence);
        let older = header
            .as_ref()
            .is_some_and(|header| header.fields.sequence < sequence);
        let own = header.filter(|header| self.continues(header));
        let Ok(own) = own.map(|header| self.verify(header)).transpose() else {
            self.fetch_batch();
            return Ok(());
        };
        let state = match &own {
            Some((_, good)) if good.iter().all(|good| *good) => BatchState::Good,
            None if blank || older => BatchState::Absent,
            _ => BatchState::Bad,
        };
        if state != BatchState::Good && !again {
            self.phase = Phase::Batch { again: true };
            self.reader.forget();
            return Ok(());
        }
        if let (BatchState::Good, Some((header, good))) = (state, &own) {
            self.accept(header.clone(), good);
            return Ok(());
        }
        if copy == CopyState::Good {
            return self.judge_by_copy(own.is_none());
        }
        self.suspect = Some(Suspect {
            state,
            copy,
            own,
            claims,
            blank,
        });
        self.found = None;
        self.phase = Phase::Search {
            offset: place.offset,
        };
        Ok(())
    }

    /// Read from the cursor on, as much as the window takes.
    fn fetch_batch(&mut self) {
        let place = self.cursor.place;
        let left = self.options.segment_bytes - place.offset;
        let bytes = left.min(SCAN_WINDOW_BYTES as u64) as usize;
        let file = LogFile::Segment(self.slot(place.segment));
        self.reader.fetch(file, place.offset, bytes, 0);
    }

    /// Whether this header is the one expected here.
    fn continues(&self, header: &Header) -> bool {
        let Cursor {
            sequence,
            place,
            previous,
        } = self.cursor;
        let fields = &header.fields;
        let bytes = (header.batch_blocks() * BLOCK_BYTES) as u64;
        fields.sequence == sequence
            && fields.place == place
            && previous.is_none_or(|previous| previous == fields.previous)
            && bytes <= self.options.segment_bytes - place.offset
    }

    /// Check the pages that a header lists; `Err` if they are not all in the window.
    fn verify(&self, header: Header) -> Result<(Header, Vec<bool>), ()> {
        let place = self.cursor.place;
        let file = LogFile::Segment(self.slot(place.segment));
        let bytes = header.batch_blocks() * BLOCK_BYTES;
        let bytes = self.reader.slice(file, place.offset, bytes).ok_or(())?;
        let images = bytes[header.header_blocks() * BLOCK_BYTES..].chunks_exact(BLOCK_BYTES);
        let good = images
            .zip(&header.pages)
            .map(|(image, page)| page_check(image) == page.check);
        let good: Vec<bool> = good.collect();
        assert_eq!(good.len(), header.pages.len());
        Ok((header, good))
    }

    fn copy_state(&self) -> CopyState {
        match self.ring.get(slot_index(self.cursor.sequence)) {
            None | Some(Slot::Empty) => CopyState::Absent,
            Some(Slot::Bad) => CopyState::Bad,
            Some(Slot::Holds(copy)) if self.continues(copy) => CopyState::Good,
            Some(Slot::Holds(copy)) if copy.fields.sequence == self.cursor.sequence => {
                CopyState::Bad
            }
            Some(Slot::Holds(_)) => CopyState::Absent,
        }
    }

    fn judge_by_copy(&mut self, repair: bool) -> Result<(), RecoveryError> {
        let Slot::Holds(copy) = &self.ring[slot_index(self.cursor.sequence)] else {
            unreachable!("a good copy is held");
        };
        let Ok((header, good)) = self.verify((**copy).clone()) else {
            self.fetch_batch();
            return Ok(());
        };
        if repair {
            let mut buffer = Buffer::zeroed(header.header_blocks() * BLOCK_BYTES);
            header.write(&mut buffer);
            let Place { segment, offset } = self.cursor.place;
            let file = LogFile::Segment(self.slot(segment));
            self.writes.push_back(Writing::new(file, offset, buffer));
            self.repaired += 1;
        }
        self.accept(header, &good);
        Ok(())
    }

    fn accept(&mut self, header: Header, good: &[bool]) {
        let place = self.cursor.place;
        let sequence = self.cursor.sequence;
        let bytes = (header.batch_blocks() * BLOCK_BYTES) as u64;
        self.enter(place.segment, sequence);
        self.replay
            .apply(&header, good, self.options.slot(place.segment));
        self.redo_from = self.redo_from.max(header.fields.redo_from);
        self.batches += 1;
        self.bytes += bytes;
        self.cursor = Cursor {
            sequence: sequence.next(),
            place: place.after(bytes, self.options.segment_bytes),
            previous: Some(header.hash),
        };
        self.last = Some(header);
        self.phase = Phase::Batch { again: false };
    }

    fn enter(&mut self, segment: u64, sequence: Sequence) {
        if self
            .segments
            .back()
            .is_none_or(|(newest, _)| *newest != segment)
        {
            self.segments.push_back((segment, sequence));
        }
    }

    fn search(&mut self, offset: u64) -> Result<(), RecoveryError> {
        let Cursor {
            place, sequence, ..
        } = self.cursor;
        let Some(mut found) = self.next_header(place.segment, offset, sequence)? else {
            return Ok(());
        };
        if found.is_none() {
            let next = self
                .first(place.segment + 1)
                .filter(|first| first.sequence > sequence);
            found = next.map(|first| Found {
                sequence: first.sequence,
                place: Place {
                    segment: first.segment,
                    offset: 0,
                },
                previous: first.previous,
            });
        }
        if found.is_none() {
            let later = self.copies().filter(|copy| copy.fields.sequence > sequence);
            found = later
                .min_by_key(|copy| copy.fields.sequence)
                .map(|copy| Found {
                    sequence: copy.fields.sequence,
                    place: copy.fields.place,
                    previous: copy.fields.previous,
                });
        }
        self.found = found;
        self.decide()
    }

    fn decide(&mut self) -> Result<(), RecoveryError> {
        let suspect = self.suspect.take().expect("a batch is under judgement");
        let found = self.found.take();
        let successor = if found.is_some() {
            SuccessorState::Good
        } else {
            SuccessorState::Absent
        };
        match decide(suspect.state, suspect.copy, successor) {
            Action::Accept | Action::FromCopy => unreachable!("no search for these"),
            Action::End | Action::Truncate => self.end(&suspect),
            Action::FromHeader => {
                let next = self.cursor.sequence.next();
                let denied = |hash| {
                    found.is_some_and(|found| found.sequence == next && found.previous != hash)
                };
                match suspect.own {
                    Some((header, good)) if !denied(header.hash) => {
                        self.accept(header, &good);
                        Ok(())
                    }
                    _ => self.skip_or_stop(found),
                }
            }
            Action::Stop => self.skip_or_stop(found),
        }
    }

    /// Nobody knows what was in the batch: go on only if it is superseded, and all up to `found`.
    fn skip_or_stop(&mut self, found: Option<Found>) -> Result<(), RecoveryError> {
        let known = self.copies().map(|copy| copy.fields.redo_from).max();
        let limit = known.map_or(self.redo_from, |known| known.max(self.redo_from));
        if let Some(found) = found.filter(|found| found.sequence <= limit) {
            self.enter(self.cursor.place.segment, self.cursor.sequence);
            self.cursor = Cursor {
                sequence: found.sequence,
                place: found.place,
                previous: None,
            };
            self.phase = Phase::Batch { again: false };
            return Ok(());
        }
        let Cursor {
            sequence, place, ..
        } = self.cursor;
        let slot = self.slot(place.segment);
        if !self.opened(place.segment) {
            return Err(RecoveryError::SegmentMissing { slot });
        }
        let reason = match found {
            Some(found) => format!("batch {} was written after it", found.sequence.0),
            None => String::from("its header copy was written and is damaged too"),
        };
        Err(RecoveryError::Unreadable {
            slot,
            place,
            sequence: Some(sequence),
            reason,
        })
    }

    // The end.

    fn end(&mut self, suspect: &Suspect) -> Result<(), RecoveryError> {
        let Cursor {
            sequence,
            place,
            previous,
        } = self.cursor;
        let slot = self.slot(place.segment);
        if previous.is_none() {
            let reason = String::from("it begins the oldest segment that is needed");
            let sequence = Some(sequence);
            return Err(RecoveryError::Unreadable {
                slot,
                place,
                sequence,
                reason,
            });
        }
        if suspect.state == BatchState::Bad {
            if suspect.claims {
                self.torn = Some(Torn { sequence, place });
            }
            if !suspect.blank {
                let zeros = Buffer::zeroed(BLOCK_BYTES);
                self.writes
                    .push_back(Writing::new(LogFile::Segment(slot), place.offset, zeros));
            }
        }
        self.queue_ring_repairs();
        self.phase = Phase::Repair;
        Ok(())
    }

    /// Bad slots must not stay: one that is bad when its next batch is torn would stop a start.
    fn queue_ring_repairs(&mut self) {
        let last = self
            .last
            .as_ref()
            .map(|header| slot_index(header.fields.sequence));
        for (index, slot) in self.ring.iter().enumerate() {
            let mut buffer = match (slot, &self.last) {
                (Slot::Holds(copy), Some(header)) if copy.hash == header.hash => continue,
                (_, Some(_)) if last == Some(index) => Buffer::zeroed(SLOT_BYTES),
                (Slot::Bad, _) => Buffer::zeroed(SLOT_BYTES),
                _ => continue,
            };
            if let Some(header) = self.last.as_ref().filter(|_| last == Some(index)) {
                let mut image = vec![0; header.header_blocks() * BLOCK_BYTES];
                header.write(&mut image);
                fill_copy(&mut buffer, &image);
            }
            self.writes
                .push_back(Writing::new(LogFile::Ring, slot_offset(index), buffer));
            self.repaired += 1;
        }
    }

    fn next_write(&mut self) {
        if let Some(writing) = self.writes.front_mut() {
            self.pending = writing.operation();
            assert!(self.pending.is_some());
        } else if self.phase == Phase::ZeroRing {
            self.phase = Phase::SyncRing;
            self.pending = Some(LogOperation::Sync {
                file: LogFile::Ring,
            });
        } else {
            self.hand_over();
        }
    }

    fn written(&mut self, buffer: Buffer, result: io::Result<usize>) -> Result<(), RecoveryError> {
        let writing = self.writes.front_mut().expect("a write is in flight");
        let file = writing.file();
        match writing.complete(buffer, result) {
            Progress::More => Ok(()),
            Progress::Done(_) => {
                self.writes.pop_front();
                Ok(())
            }
            Progress::Failed(reason) => Err(RecoveryError::Io { file, reason }),
        }
    }

    fn hand_over(&mut self) {
        self.phase = Phase::Done;
        let redo_from = self
            .last
            .as_ref()
            .map_or(Sequence(1), |last| last.fields.redo_from);
        let (tenants, damaged) = std::mem::take(&mut self.replay).finish(redo_from);
        let Cursor {
            sequence,
            place,
            previous,
        } = self.cursor;
        let mut slots = self.files.clone();
        // A segment with live batches is in use, whatever its size: never fill it with zeros.
        for (segment, _) in &self.segments {
            slots[self.options.slot(*segment) as usize].ready = true;
        }
        let start = LogStart {
            sequence,
            place,
            previous: previous.unwrap_or_default(),
            redo_from,
            segments: std::mem::take(&mut self.segments),
            slots,
        };
        self.outcome = Some(Ok(Recovered {
            log: Log::start(self.options, start),
            tenants,
            damaged,
            torn: self.torn,
            batches: self.batches,
            bytes: self.bytes,
            repaired: self.repaired,
            unreadable_blocks: self.reader.unreadable_blocks,
        }));
    }

    // A fresh ring: zeros, synced and named, and only then the superblock, so that an intact
    // superblock means that the slots below it are.

    fn ring_step(
        &mut self,
        result: io::Result<()>,
        next: Phase,
        operation: Option<LogOperation>,
    ) -> Result<(), RecoveryError> {
        result.map_err(|error| io_error(LogFile::Ring, "making", &error))?;
        if next == Phase::SyncDirectory || next == Phase::AllocateRing {
            assert!(operation.is_some());
        }
        self.phase = next;
        self.pending = operation;
        Ok(())
    }

    fn queue_zeros(&mut self) {
        let zeros = Buffer::zeroed(RING_BYTES);
        self.writes.push_back(Writing::new(LogFile::Ring, 0, zeros));
    }

    fn queue_superblock(&mut self) {
        let mut buffer = Buffer::zeroed(RING_SLOTS_OFFSET);
        for twin in buffer.chunks_exact_mut(BLOCK_BYTES) {
            Superblock::of(&self.options).write(twin);
        }
        self.writes
            .push_back(Writing::new(LogFile::Ring, 0, buffer));
        self.cursor.previous = Some([0; 32]);
    }
}

fn io_error(file: LogFile, action: &str, error: &io::Error) -> RecoveryError {
    RecoveryError::Io {
        file,
        reason: format!("{action}: {error}"),
    }
}
