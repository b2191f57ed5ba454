//! The log in service: filling one batch while another is written, and knowing what is durable.
//!
//! Owns batches, header copies and the segments' circle; `batch` fills, `space` counts, `prepare`
//! makes files. Leaves to the caller: carrying out requests, waiting, and what a tenant still needs
//! (`set_redo_from`).

use super::batch::{Filling, PagePosition, Said};
use super::limits::SLOT_BYTES;
use super::located::Located;
use super::prepare::{SlotState, Slots};
use super::ring::{fill_copy, slot_index, slot_offset};
use super::space::{Class, LogFull, free_bytes, page_charge, transaction_bytes, usable_bytes};
use super::transfer::{Progress, Writing};
use super::{
    LogFile, LogOperation, LogOptions, LogReply, LogRequest, LogRequestId, PageCheck, PageLocation,
    Place, Sequence, mismatched,
};
use crate::identity::TenantId;
use crate::io::{BLOCK_BYTES, Buffer};
use crate::sometimes;
use std::collections::{BTreeMap, VecDeque};

/// The filling batch has no room for the page. Wait until [`Log::has_room`], then push it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFull {
    /// The batch that is full.
    pub sequence: Sequence,
}

/// A transaction on its way into the log. Ends in [`Log::finish`] or [`Log::abandon`].
#[derive(Debug)]
#[must_use]
pub struct Transaction {
    id: u64,
    tenant: TenantId,
    txid: u64,
    database_pages: u32,
    page_count: u32,
    pushed: u32,
    fragments: u32,
    reserved: u64,
    first: Sequence,
    last: Sequence,
}

/// Where a transaction lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The batch of its first fragment: the tenant needs the log from here on until its checkpoint.
    pub first: Sequence,
    /// The batch of its last fragment: the transaction is durable when this batch is.
    pub last: Sequence,
}

/// What a scan hands over to a log in service.
pub struct LogStart {
    pub sequence: Sequence,
    pub place: Place,
    pub previous: [u8; 32],
    /// What the last good header says.
    pub redo_from: Sequence,
    /// Likewise.
    pub catalogue_stamp: u64,
    pub segments: VecDeque<(u64, Sequence)>,
    pub slots: Vec<SlotState>,
}

/// The batch being written.
struct Flight {
    sequence: Sequence,
    redo_from: Sequence,
    writing: Writing,
    copy: Buffer,
}

/// The header copies: one being written, at most one behind it.
struct Copies {
    spare: Vec<Buffer>,
    /// The copy's `redo_from`, and its write.
    writing: Option<(Sequence, Writing)>,
    behind: Option<Copy>,
}

/// A header copy that waits for its turn.
struct Copy {
    sequence: Sequence,
    redo_from: Sequence,
    buffer: Buffer,
}

/// What a request in flight belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Batch,
    Copy,
    Slots,
}

/// The commit log in service.
pub struct Log {
    options: LogOptions,
    /// Most bytes that a page can cost.
    page_charge: u64,
    slots: Slots,
    filling: Filling,
    next_place: Place,
    spare: Option<Buffer>,
    flight: Option<Flight>,
    copies: Copies,
    previous: [u8; 32],
    catalogue_stamp: u64,
    durable: Sequence,
    redo_wanted: Sequence,
    /// What the newest sealed header says.
    redo_sealed: Sequence,
    /// What the newest durable header copy says: segments below it are free.
    redo_durable: Sequence,
    /// Live segments and the first batch in each, oldest first.
    segments: VecDeque<(u64, Sequence)>,
    reserved: u64,
    /// See [`Log::set_owed`].
    owed: u64,
    /// See [`Log::track`].
    located: Located,
    /// Transactions that have pages in the log and are not finished: id and first batch.
    open: Vec<(u64, Sequence)>,
    transactions: u64,
    requests: u64,
    in_flight: Vec<(LogRequestId, Owner)>,
    /// Nothing more is committed: see `say_last_word`.
    ending: bool,
    failed: Option<String>,
}

impl Log {
    pub(super) fn start(options: LogOptions, start: LogStart) -> Log {
        options.check();
        assert_eq!(start.slots.len(), options.segment_count as usize);
        let mut filling = Filling::new(options.batch_bytes_max);
        filling.sequence = start.sequence;
        let mut log = Log {
            page_charge: page_charge(&options),
            options,
            slots: Slots::new(start.slots, options.segment_bytes),
            filling,
            next_place: start.place,
            spare: Some(Buffer::zeroed(options.batch_bytes_max)),
            flight: None,
            copies: Copies {
                spare: vec![Buffer::zeroed(SLOT_BYTES), Buffer::zeroed(SLOT_BYTES)],
                writing: None,
                behind: None,
            },
            previous: start.previous,
            catalogue_stamp: start.catalogue_stamp,
            durable: Sequence(start.sequence.0 - 1),
            redo_wanted: start.redo_from,
            redo_sealed: start.redo_from,
            redo_durable: start.redo_from,
            segments: start.segments,
            reserved: 0,
            owed: 0,
            located: Located::default(),
            open: Vec::new(),
            transactions: 0,
            requests: 0,
            in_flight: Vec::with_capacity(3),
            ending: false,
            failed: None,
        };
        log.free_segments();
        log.place_filling();
        log
    }

    /// The options in force: the shape is the one on disk.
    #[must_use]
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Heap bytes of the log's buffers: two batches and two header copies, for ever.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        2 * self.options.batch_bytes_max + 2 * SLOT_BYTES
    }

    // Space.

    /// Most log bytes that a transaction of so many pages can cost: what to reserve for it.
    #[must_use]
    pub fn transaction_bytes(&self, page_count: u32) -> u64 {
        transaction_bytes(self.page_charge, page_count)
    }

    /// Reserve log space. What is reserved can be appended for sure, once the disk works.
    ///
    /// # Errors
    /// Nothing is reserved if there is not enough space for this class.
    pub fn reserve(&mut self, bytes: u64, class: Class) -> Result<(), LogFull> {
        self.place_filling();
        let (kept, owed) = match class {
            Class::Tenant => (self.options.system_reserve_bytes, self.owed),
            Class::System => (0, 0),
        };
        let free = self.free_bytes().saturating_sub(self.reserved);
        let available = free.saturating_sub(kept).saturating_sub(owed);
        if bytes > available || self.write_refused().is_some() {
            sometimes!("the log has no room for a transaction");
            let capacity = usable_bytes(&self.options) - kept;
            return Err(LogFull {
                used: capacity.saturating_sub(available),
                capacity,
                wanted: bytes,
                disk_refused: self.disk_refused().is_some(),
            });
        }
        self.reserved += bytes;
        Ok(())
    }

    /// What it will cost in this log to free the log, beyond the options' reserve: nothing of
    /// [`Class::Tenant`] may take that space. Whoever brings pages into the log owes it the
    /// checkpoint that lets go of them.
    pub fn set_owed(&mut self, bytes: u64) {
        self.owed = bytes;
    }

    /// Whether so many bytes could be reserved now.
    #[must_use]
    pub fn has_space(&mut self, bytes: u64, class: Class) -> bool {
        let fits = self.reserve(bytes, class).is_ok();
        if fits {
            self.unreserve(bytes);
        }
        fits
    }

    /// Give back reserved space that no transaction took over.
    pub fn unreserve(&mut self, bytes: u64) {
        assert!(bytes <= self.reserved);
        self.reserved -= bytes;
    }

    /// Bytes reserved and not used yet.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved
    }

    /// Bytes from the start of the oldest live segment to the end of the filling batch.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let place = self.filling.place.unwrap_or(self.next_place);
        let oldest = self.oldest_segment();
        let end = place.offset + self.filling.batch_bytes();
        let used = (place.segment - oldest) * self.options.segment_bytes + end;
        assert!(used <= self.capacity_bytes());
        used
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        u64::from(self.options.segment_count) * self.options.segment_bytes
    }

    /// If more than `percent` of the log is used, or owed for what is in it: the sequence that `redo_from` must reach to get
    /// under it. Checkpoint the tenants whose first needed batch is older.
    #[must_use]
    pub fn sequence_at_pressure(&self, percent: u32) -> Option<Sequence> {
        let target = self.capacity_bytes() / 100 * u64::from(percent);
        let spoken_for = self.used_bytes() + self.owed;
        let over = spoken_for.checked_sub(target).filter(|over| *over > 0)?;
        sometimes!("the log passes its high mark");
        // One block more: the batch that makes the new `redo_from` durable.
        let over = over + BLOCK_BYTES as u64;
        let segments = over.div_ceil(self.options.segment_bytes) as usize;
        let from = self.segments.get(segments).map_or(self.filling.sequence, |(_, first)| *first);
        Some(from)
    }

    /// Why the disk refuses, if it does: it has no room for a write, or the newest segment file
    /// could not be made. Without that file the log works on in those it has; a refused write waits
    /// where it is, and what it holds does not become durable before [`Log::retry_disk`].
    #[must_use]
    pub fn disk_refused(&self) -> Option<&str> {
        self.write_refused().or(self.slots.refused())
    }

    /// Why a batch or a header copy waits for room on the disk, if one does. Nothing of it is lost,
    /// and nothing more can be reserved.
    #[must_use]
    pub fn write_refused(&self) -> Option<&str> {
        let batch = self.flight.as_ref().and_then(|flight| flight.writing.refused());
        let copy = self.copies.writing.as_ref().and_then(|(_, writing)| writing.refused());
        batch.or(copy)
    }

    /// Try again what the disk refused. For a timer, about once a second.
    pub fn retry_disk(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.writing.retry();
        }
        if let Some((_, writing)) = &mut self.copies.writing {
            writing.retry();
        }
        self.slots.retry();
        self.want_segments();
    }

    // Appending.

    /// Begin a transaction of `page_count` pages (at least one), after which the database has
    /// `database_pages`. Takes over [`Log::transaction_bytes`] of what was reserved.
    pub fn begin(
        &mut self,
        tenant: TenantId,
        txid: u64,
        database_pages: u32,
        page_count: u32,
    ) -> Transaction {
        assert!(page_count > 0);
        let reserved = self.transaction_bytes(page_count);
        assert!(reserved <= self.reserved, "a transaction takes over what was reserved for it");
        self.transactions += 1;
        Transaction {
            id: self.transactions,
            tenant,
            txid,
            database_pages,
            page_count,
            pushed: 0,
            fragments: 0,
            reserved,
            first: Sequence(0),
            last: Sequence(0),
        }
    }

    /// Append the next page, which has this [`page_check`](super::page_check). The last one commits the
    /// transaction.
    ///
    /// # Errors
    /// The page was not taken: wait for [`Log::has_room`] and push it again. A failed log never
    /// has room again; see [`Log::failed`].
    pub fn push_page(
        &mut self,
        transaction: &mut Transaction,
        number: u32,
        image: &[u8],
        check: PageCheck,
    ) -> Result<(), BatchFull> {
        assert!(transaction.pushed < transaction.page_count);
        assert!(number > 0);
        self.place_filling();
        let sequence = self.filling.sequence;
        let position = PagePosition {
            tenant: transaction.tenant,
            txid: transaction.txid,
            database_pages: transaction.database_pages,
            fragment: transaction.fragments,
            last: transaction.pushed + 1 == transaction.page_count,
        };
        let fits = self.filling.fits(!self.filling.continues(&position));
        if self.failed.is_some() || !fits {
            sometimes!("a batch is full");
            self.filling.full |= self.filling.place.is_some();
            return Err(BatchFull { sequence });
        }
        if self.filling.push(&position, number, image, check) {
            transaction.fragments += 1;
        }
        let index = self.filling.newest();
        self.located.push(transaction.id, number, check, (sequence, index));
        if transaction.pushed == 0 {
            transaction.first = sequence;
            self.open.push((transaction.id, sequence));
        }
        transaction.pushed += 1;
        transaction.last = sequence;
        let charge = self.page_charge;
        assert!(charge <= transaction.reserved);
        transaction.reserved -= charge;
        self.unreserve(charge);
        Ok(())
    }

    /// Remember where the pages of this transaction, of which none is pushed yet, come to lie. Its number
    /// is for [`Log::take_located`].
    pub fn track(&mut self, transaction: &Transaction) -> u64 {
        assert!(transaction.pushed == 0);
        self.located.track(transaction.id);
        transaction.id
    }

    /// Forget a tracked transaction: where its pages are, once all its batches are on their way to the disk.
    /// They can be read there when they are durable, until `redo_from` passes them.
    pub fn take_located(&mut self, number: u64) -> Option<BTreeMap<u32, PageLocation>> {
        self.located.take(number)
    }

    /// End a transaction whose pages are all pushed: where it lies.
    pub fn finish(&mut self, transaction: Transaction) -> Committed {
        assert_eq!(transaction.pushed, transaction.page_count);
        self.close(&transaction);
        Committed { first: transaction.first, last: transaction.last }
    }

    /// End a transaction whose pages are not all pushed: it never happened. Its unused space is
    /// given back; pages already pushed stay as ballast until the log is trimmed.
    pub fn abandon(&mut self, transaction: Transaction) {
        assert!(transaction.pushed < transaction.page_count);
        self.located.take(transaction.id);
        self.close(&transaction);
    }

    fn close(&mut self, transaction: &Transaction) {
        self.unreserve(transaction.reserved);
        self.open.retain(|(id, _)| *id != transaction.id);
    }

    /// Whether a push that found no room may find some now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.failed.is_none() && !self.filling.full && self.filling.fits(true)
    }

    /// Write what is committed as soon as nothing is in flight. Once per turn.
    pub fn flush(&mut self) {
        self.seal_if_due(true);
    }

    /// The newest batch that is durable, and with it all before it.
    #[must_use]
    pub fn durable_sequence(&self) -> Sequence {
        self.durable
    }

    /// The batch that takes pages now.
    #[must_use]
    pub fn filling_sequence(&self) -> Sequence {
        self.filling.sequence
    }

    /// The first batch of the oldest live segment.
    #[must_use]
    pub fn oldest_sequence(&self) -> Sequence {
        self.segments.front().map_or(self.filling.sequence, |(_, first)| *first)
    }

    /// What a start would find as `redo_from` if the process ended now, or older than that.
    #[must_use]
    pub fn redo_from_durable(&self) -> Sequence {
        self.redo_durable
    }

    /// Batches below `sequence` are not needed any more: every tenant's pages in them are in its
    /// file for sure. Segments become free once a header that says so is durable; `flush` writes
    /// an empty batch for that if there is nothing else to write. Never goes back.
    ///
    /// A transaction that is still open keeps the batch of its first fragment, also when it has ended:
    /// the caller does not know of it yet, and only its next word here takes that into account.
    pub fn set_redo_from(&mut self, sequence: Sequence) {
        assert!(sequence <= self.filling.sequence);
        let open = self.open.iter().map(|(_, first)| *first).min();
        self.redo_wanted = self.redo_wanted.max(sequence.min(open.unwrap_or(sequence)));
    }

    /// The catalogue's file holds its checkpoint with this stamp for sure. Each header says so from
    /// now on, those that let go of the log's own copy included: an older file is then known as
    /// such (F10).
    pub fn set_catalogue_stamp(&mut self, stamp: u64) {
        assert!(stamp >= self.catalogue_stamp);
        self.catalogue_stamp = stamp;
    }

    /// The stamp that the catalogue's file must have at least.
    #[must_use]
    pub fn catalogue_stamp(&self) -> u64 {
        self.catalogue_stamp
    }

    /// Nothing more will be committed. From now on `flush` writes an empty batch also when that only
    /// moves `redo_from`, so that the next start has nothing to recover: after a clean stop what
    /// counts is in the tenants' files alone, and damage to one of them is found, not papered over
    /// with pages of the log.
    pub fn say_last_word(&mut self) {
        self.ending = true;
    }

    /// Why the log failed, if it did. Durability is unknown then: end the process, say nothing.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    // Requests.

    /// The next thing to do, if any. Several may be in flight, never two of one kind.
    pub fn next_request(&mut self) -> Option<LogRequest> {
        if self.failed.is_some() {
            return None;
        }
        self.seal_if_due(false);
        let batch = self.flight.as_mut().and_then(|flight| flight.writing.operation());
        if let Some(operation) = batch {
            return Some(self.request(Owner::Batch, operation));
        }
        let copy = self.copies.writing.as_mut().and_then(|(_, writing)| writing.operation());
        if let Some(operation) = copy {
            return Some(self.request(Owner::Copy, operation));
        }
        let operation = self.slots.operation()?;
        Some(self.request(Owner::Slots, operation))
    }

    /// Requests handed out and not completed.
    #[must_use]
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A request ended.
    ///
    /// # Panics
    /// If there is no such request, or the reply is of another kind.
    pub fn complete(&mut self, id: LogRequestId, reply: LogReply) {
        let index = self.in_flight.iter().position(|(waiting, _)| *waiting == id);
        let (_, owner) = self.in_flight.swap_remove(index.expect("the request is in flight"));
        if self.failed.is_some() {
            return;
        }
        match (owner, reply) {
            (Owner::Batch, LogReply::Written(buffer, result)) => self.batch_written(buffer, result),
            (Owner::Copy, LogReply::Written(buffer, result)) => self.copy_written(buffer, result),
            (Owner::Slots, reply) => {
                if let Err(reason) = self.slots.complete(reply) {
                    self.failed = Some(reason);
                }
                self.want_segments();
            }
            (_, reply) => mismatched(&reply),
        }
    }

    fn request(&mut self, owner: Owner, operation: LogOperation) -> LogRequest {
        assert!(self.in_flight.iter().all(|(_, other)| *other != owner));
        self.requests += 1;
        let id = LogRequestId(self.requests);
        self.in_flight.push((id, owner));
        LogRequest { id, operation }
    }

    fn batch_written(&mut self, buffer: Buffer, result: std::io::Result<usize>) {
        let mut flight = self.flight.take().expect("a batch is in flight");
        match flight.writing.complete(buffer, result) {
            Progress::More | Progress::Refused => self.flight = Some(flight),
            Progress::Failed(reason) => {
                sometimes!("a batch cannot be written");
                self.failed = Some(reason);
            }
            Progress::Done(buffer) => {
                assert_eq!(flight.sequence, self.durable.next());
                assert!(self.copies.behind.is_none());
                self.durable = flight.sequence;
                self.spare = Some(buffer);
                self.copies.behind = Some(Copy {
                    sequence: flight.sequence,
                    redo_from: flight.redo_from,
                    buffer: flight.copy,
                });
                self.start_copy();
            }
        }
    }

    fn copy_written(&mut self, buffer: Buffer, result: std::io::Result<usize>) {
        let (redo_from, mut writing) = self.copies.writing.take().expect("a copy is in flight");
        match writing.complete(buffer, result) {
            Progress::More | Progress::Refused => {
                self.copies.writing = Some((redo_from, writing));
            }
            Progress::Failed(reason) => self.failed = Some(reason),
            Progress::Done(buffer) => {
                self.copies.spare.push(buffer);
                self.redo_durable = self.redo_durable.max(redo_from);
                self.free_segments();
                self.place_filling();
                self.start_copy();
            }
        }
    }

    fn start_copy(&mut self) {
        if self.copies.writing.is_some() {
            return;
        }
        let Some(copy) = self.copies.behind.take() else {
            return;
        };
        assert!(copy.sequence <= self.durable, "a copy follows its batch");
        let offset = slot_offset(slot_index(copy.sequence));
        let writing = Writing::new(LogFile::Ring, offset, copy.buffer);
        self.copies.writing = Some((copy.redo_from, writing));
    }

    // Batches and segments.

    /// Write the filling batch if nothing is in flight and it is worth it. Only a full batch, one
    /// in which a transaction ends, or one that frees a segment is: `space` counts on that. (The
    /// last word of a log that is ending takes what nobody needs any more.)
    fn seal_if_due(&mut self, asked: bool) {
        if self.failed.is_some() || self.flight.is_some() || self.copies.behind.is_some() {
            return;
        }
        self.place_filling();
        let Some(place) = self.filling.place else {
            return;
        };
        if !self.filling.full && self.filling.commits == 0 && self.redo_wanted <= self.redo_sealed {
            // Most turns: nothing to write, and nothing new to say.
            return;
        }
        let redo_from = self.redo_from();
        let sealed = self.redo_sealed;
        let frees = self.segments.iter().skip(1).any(|(_, at)| sealed < *at && *at <= redo_from);
        let last_word = self.ending && sealed < redo_from;
        let wanted = asked && (self.filling.commits > 0 || frees || last_word);
        if !(self.filling.full || wanted) || !self.slots.ready(self.options.slot(place.segment)) {
            return;
        }
        let spare = self.spare.take().expect("a buffer is spare while nothing is in flight");
        let mut copy = self.copies.spare.pop().expect("two copies are enough");
        let sequence = self.filling.sequence;
        let (catalogue_stamp, previous) = (self.catalogue_stamp, self.previous);
        let said = Said { redo_from, catalogue_stamp, previous };
        let (buffer, header_bytes, hash) = self.filling.seal(said);
        fill_copy(&mut copy, &buffer[..header_bytes]);
        self.previous = hash;
        self.redo_sealed = redo_from;
        let slot = self.options.slot(place.segment);
        self.located.seal(sequence, slot, place, header_bytes / BLOCK_BYTES);
        self.next_place = place.after(buffer.len() as u64, self.options.segment_bytes);
        let file = LogFile::Segment(self.options.slot(place.segment));
        let writing = Writing::new(file, place.offset, buffer);
        self.flight = Some(Flight { sequence, redo_from, writing, copy });
        self.filling.reset(sequence.next(), spare);
        self.place_filling();
    }

    /// What a header may say now.
    fn redo_from(&self) -> Sequence {
        assert!(self.open.iter().all(|(_, first)| self.redo_wanted <= *first));
        self.redo_wanted.max(self.redo_sealed)
    }

    fn oldest_segment(&self) -> u64 {
        self.segments.front().map_or(self.next_place.segment, |(segment, _)| *segment)
    }

    fn free_segments(&mut self) {
        while self.segments.get(1).is_some_and(|(_, first)| *first <= self.redo_durable) {
            self.segments.pop_front();
        }
    }

    /// Give the filling batch its place as soon as its segment is free.
    fn place_filling(&mut self) {
        let place = self.next_place;
        let count = u64::from(self.options.segment_count);
        if self.filling.place.is_some() || place.segment >= self.oldest_segment() + count {
            return;
        }
        let left = (self.options.segment_bytes - place.offset) as usize;
        self.filling.place = Some(place);
        self.filling.blocks_max = left.min(self.options.batch_bytes_max) / BLOCK_BYTES;
        if place.offset == 0 {
            if place.segment >= count {
                sometimes!("a segment is used again");
            }
            self.segments.push_back((place.segment, self.filling.sequence));
        }
        assert!(self.segments.len() as u64 <= count);
        self.want_segments();
    }

    fn want_segments(&mut self) {
        let segment = self.next_place.segment;
        self.slots.want(self.options.slot(segment));
        self.slots.want(self.options.slot(segment + 1));
    }

    fn free_bytes(&self) -> u64 {
        let Some(place) = self.filling.place else {
            return 0;
        };
        let end = self.oldest_segment() + u64::from(self.options.segment_count);
        let ready = |segment: u64| self.slots.ready(self.options.slot(segment));
        let mut after = end - place.segment - 1;
        if self.slots.refused().is_some() {
            after = (place.segment + 1..end).take_while(|segment| ready(*segment)).count() as u64;
            if !ready(place.segment) {
                return 0;
            }
        }
        let offset = place.offset + self.filling.batch_bytes();
        free_bytes(&self.options, Place { segment: place.segment, offset }, after)
    }
}
