//! Choosing the batch to begin with, and looking for headers where none is expected.
//!
//! A segment is used again only once a header *copy* frees it, so the copies' newest `redo_from`
//! leads to a segment that is still whole. What the headers themselves say (a torn batch's too: it
//! speaks of tenant files, and that is true) helps only if the ring cannot.

use super::{BLOCK, Cursor, First, Found, Phase, Scan};
use crate::log::header::Header;
use crate::log::limits::{HEADER_BYTES_MAX, SCAN_WINDOW_BYTES};
use crate::log::ring::Slot;
use crate::log::{LogFile, Place, RecoveryError, Sequence};

impl Scan {
    pub(super) fn copies(&self) -> impl Iterator<Item = &Header> {
        self.ring.iter().filter_map(|slot| match slot {
            Slot::Holds(header) => Some(&**header),
            _ => None,
        })
    }

    pub(super) fn begin(&mut self) -> Result<(), RecoveryError> {
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
            return Err(RecoveryError::SegmentMissing { slot: self.slot(segment) });
        }
        self.redo_from = limits[1].unwrap_or_default();
        self.phase = Phase::FindFirst { segment, offset: 0 };
        Ok(())
    }

    pub(super) fn first(&self, segment: u64) -> Option<First> {
        self.firsts[self.slot(segment) as usize].filter(|first| first.segment == segment)
    }

    /// The newest segment whose first batch is not newer than `limit`.
    pub(super) fn newest_first(&self, newest: u64, limit: Sequence) -> Option<First> {
        let count = u64::from(self.options.segment_count);
        let segments = newest.saturating_sub(count - 1)..=newest;
        let mut firsts = segments.rev().filter_map(|segment| self.first(segment));
        firsts.find(|first| first.sequence <= limit)
    }

    pub(super) fn begin_at(
        &mut self,
        sequence: Sequence,
        segment: u64,
        newest: u64,
    ) -> Result<(), RecoveryError> {
        if let Some(missing) = (segment..=newest).find(|segment| !self.opened(*segment)) {
            return Err(RecoveryError::SegmentMissing { slot: self.slot(missing) });
        }
        self.start_at(sequence, Place { segment, offset: 0 });
        Ok(())
    }

    pub(super) fn start_at(&mut self, sequence: Sequence, place: Place) {
        let previous = (sequence == Sequence(1)).then_some([0; 32]);
        self.cursor = Cursor { sequence, place, previous };
        self.redo_from = Sequence(1);
        self.phase = Phase::Batch { again: false };
        self.reader.forget();
    }

    /// The oldest needed segment's first header cannot be read: its next one will do if
    /// everything before it is superseded, or a copy if one is left.
    pub(super) fn find_first(&mut self, segment: u64, offset: u64) -> Result<(), RecoveryError> {
        let Some(header) = self.next_header(segment, offset, Sequence(0))? else {
            return Ok(());
        };
        let slot = self.slot(segment);
        let place = Place { segment, offset: 0 };
        let limit = self.redo_from;
        let copy = self.copies().map(|copy| copy.fields).find(|fields| fields.place == place);
        match (header, copy) {
            (Some(found), _) if found.sequence <= limit => {
                self.start_at(found.sequence, found.place);
            }
            (_, Some(copy)) => self.start_at(copy.sequence, copy.place),
            _ if segment == 0 => self.start_at(Sequence(1), place),
            _ => {
                let reason = format!("batch {} is still needed", limit.0);
                return Err(RecoveryError::Unreadable { slot, place, sequence: None, reason });
            }
        }
        Ok(())
    }

    /// Look for an intact header newer than `above` from `offset` to the segment's end. `Ok(None)`:
    /// bytes are being read, come again. The phase keeps the offset.
    #[allow(clippy::type_complexity)]
    pub(super) fn next_header(
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
                return Ok(Some(Some(Found { sequence, place, previous })));
            }
            offset += BLOCK;
        }
        Ok(Some(None))
    }
}
