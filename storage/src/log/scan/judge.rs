//! Batch after batch: what state it is in, and what `decide` makes of it.

use super::{Cursor, Found, Phase, Scan, Suspect};
use crate::io::{BLOCK_BYTES, Buffer};
use crate::log::decide::{Action, BatchState, CopyState, SuccessorState, decide};
use crate::log::header::{Header, claims, page_check};
use crate::log::limits::{HEADER_BYTES_MAX, SCAN_WINDOW_BYTES};
use crate::log::ring::{Slot, is_zero, slot_index};
use crate::log::transfer::Writing;
use crate::log::{LogFile, Place, RecoveryError, Sequence};
use crate::sometimes;

impl Scan {
    pub(super) fn judge(&mut self, again: bool) -> Result<(), RecoveryError> {
        let Cursor { place, sequence, .. } = self.cursor;
        let copy = self.copy_state();
        if !self.opened(place.segment) {
            if copy == CopyState::Good {
                return Err(RecoveryError::SegmentMissing { slot: self.slot(place.segment) });
            }
            let state = BatchState::Absent;
            self.suspect = Some(Suspect { state, copy, own: None, claims: false, blank: true });
            return self.search(self.options.segment_bytes);
        }
        let file = LogFile::Segment(self.slot(place.segment));
        let left = (self.options.segment_bytes - place.offset) as usize;
        let Some(bytes) = self.reader.slice(file, place.offset, left.min(HEADER_BYTES_MAX)) else {
            self.fetch_batch();
            return Ok(());
        };
        let header = Header::read(bytes);
        let blank = is_zero(&bytes[..BLOCK_BYTES]);
        let claims = claims(bytes, sequence);
        let older = header.as_ref().is_some_and(|header| header.fields.sequence < sequence);
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
            sometimes!("recovery: a good batch");
            self.accept(header.clone(), good);
            return Ok(());
        }
        if copy == CopyState::Good {
            match state {
                BatchState::Absent => sometimes!("recovery: no batch, but its copy"),
                _ => sometimes!("recovery: a bad batch and its copy"),
            }
            return self.judge_by_copy(own.is_none());
        }
        self.suspect = Some(Suspect { state, copy, own, claims, blank });
        self.found = None;
        self.phase = Phase::Search { offset: place.offset };
        Ok(())
    }

    /// Read from the cursor on, as much as the window takes.
    pub(super) fn fetch_batch(&mut self) {
        let place = self.cursor.place;
        let left = self.options.segment_bytes - place.offset;
        let bytes = left.min(SCAN_WINDOW_BYTES as u64) as usize;
        let file = LogFile::Segment(self.slot(place.segment));
        self.reader.fetch(file, place.offset, bytes, 0);
    }

    /// Whether this header is the one expected here.
    pub(super) fn continues(&self, header: &Header) -> bool {
        let Cursor { sequence, place, previous } = self.cursor;
        let fields = &header.fields;
        let bytes = (header.batch_blocks() * BLOCK_BYTES) as u64;
        fields.sequence == sequence
            && fields.place == place
            && previous.is_none_or(|previous| previous == fields.previous)
            && bytes <= self.options.segment_bytes - place.offset
    }

    /// Check the pages that a header lists; `Err` if they are not all in the window.
    pub(super) fn verify(&self, header: Header) -> Result<(Header, Vec<bool>), ()> {
        let place = self.cursor.place;
        let file = LogFile::Segment(self.slot(place.segment));
        let bytes = header.batch_blocks() * BLOCK_BYTES;
        let bytes = self.reader.slice(file, place.offset, bytes).ok_or(())?;
        let images = bytes[header.header_blocks() * BLOCK_BYTES..].chunks_exact(BLOCK_BYTES);
        let good = images.zip(&header.pages).map(|(image, page)| page_check(image) == page.check);
        let good: Vec<bool> = good.collect();
        assert_eq!(good.len(), header.pages.len());
        Ok((header, good))
    }

    pub(super) fn copy_state(&self) -> CopyState {
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

    pub(super) fn judge_by_copy(&mut self, repair: bool) -> Result<(), RecoveryError> {
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

    pub(super) fn accept(&mut self, header: Header, good: &[bool]) {
        let place = self.cursor.place;
        let sequence = self.cursor.sequence;
        let bytes = (header.batch_blocks() * BLOCK_BYTES) as u64;
        self.enter(place.segment, sequence);
        self.replay.apply(&header, good, self.options.slot(place.segment));
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

    pub(super) fn enter(&mut self, segment: u64, sequence: Sequence) {
        if self.segments.back().is_none_or(|(newest, _)| *newest != segment) {
            self.segments.push_back((segment, sequence));
        }
    }

    pub(super) fn search(&mut self, offset: u64) -> Result<(), RecoveryError> {
        let Cursor { place, sequence, .. } = self.cursor;
        let Some(mut found) = self.next_header(place.segment, offset, sequence)? else {
            return Ok(());
        };
        if found.is_none() {
            let next = self.first(place.segment + 1).filter(|first| first.sequence > sequence);
            found = next.map(|first| Found {
                sequence: first.sequence,
                place: Place { segment: first.segment, offset: 0 },
                previous: first.previous,
            });
        }
        if found.is_none() {
            let later = self.copies().filter(|copy| copy.fields.sequence > sequence);
            found = later.min_by_key(|copy| copy.fields.sequence).map(|copy| Found {
                sequence: copy.fields.sequence,
                place: copy.fields.place,
                previous: copy.fields.previous,
            });
        }
        self.found = found;
        self.decide()
    }

    pub(super) fn decide(&mut self) -> Result<(), RecoveryError> {
        let suspect = self.suspect.take().expect("a batch is under judgement");
        let found = self.found.take();
        let successor = if found.is_some() { SuccessorState::Good } else { SuccessorState::Absent };
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
    pub(super) fn skip_or_stop(&mut self, found: Option<Found>) -> Result<(), RecoveryError> {
        let known = self.copies().map(|copy| copy.fields.redo_from).max();
        let limit = known.map_or(self.redo_from, |known| known.max(self.redo_from));
        if let Some(found) = found.filter(|found| found.sequence <= limit) {
            sometimes!("recovery: a batch that nobody can read is superseded");
            self.enter(self.cursor.place.segment, self.cursor.sequence);
            self.cursor = Cursor { sequence: found.sequence, place: found.place, previous: None };
            self.phase = Phase::Batch { again: false };
            return Ok(());
        }
        let Cursor { sequence, place, .. } = self.cursor;
        let slot = self.slot(place.segment);
        if !self.opened(place.segment) {
            return Err(RecoveryError::SegmentMissing { slot });
        }
        let reason = match found {
            Some(found) => format!("batch {} was written after it", found.sequence.0),
            None => String::from("its header copy was written and is damaged too"),
        };
        Err(RecoveryError::Unreadable { slot, place, sequence: Some(sequence), reason })
    }
}
