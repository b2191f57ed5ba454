//! The end of a scan: repairs, and the log that goes into service.

use super::{Cursor, Phase, Scan, Suspect};
use crate::io::{BLOCK_BYTES, Buffer};
use crate::log::append::LogStart;
use crate::log::decide::BatchState;
use crate::log::limits::SLOT_BYTES;
use crate::log::ring::{Slot, fill_copy, slot_index, slot_offset};
use crate::log::transfer::{Progress, Writing};
use crate::log::{Log, LogFile, LogOperation, Recovered, RecoveryError, Sequence, Torn};
use crate::sometimes;
use std::io;

impl Scan {
    pub(super) fn end(&mut self, suspect: &Suspect) -> Result<(), RecoveryError> {
        let Cursor { sequence, place, previous } = self.cursor;
        let slot = self.slot(place.segment);
        if previous.is_none() {
            let reason = String::from("it begins the oldest segment that is needed");
            let sequence = Some(sequence);
            return Err(RecoveryError::Unreadable { slot, place, sequence, reason });
        }
        if suspect.state == BatchState::Bad {
            if suspect.claims {
                self.torn = Some(Torn { sequence, place });
            }
            if !suspect.blank {
                let zeros = Buffer::zeroed(BLOCK_BYTES);
                self.writes.push_back(Writing::new(LogFile::Segment(slot), place.offset, zeros));
            }
        }
        self.queue_ring_repairs();
        self.phase = Phase::Repair;
        Ok(())
    }

    /// Bad slots must not stay: one that is bad when its next batch is torn would stop a start.
    pub(super) fn queue_ring_repairs(&mut self) {
        let last = self.last.as_ref().map(|header| slot_index(header.fields.sequence));
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
            sometimes!("recovery: a header copy is repaired");
            self.writes.push_back(Writing::new(LogFile::Ring, slot_offset(index), buffer));
            self.repaired += 1;
        }
    }

    pub(super) fn next_write(&mut self) {
        if let Some(writing) = self.writes.front_mut() {
            self.pending = writing.operation();
            assert!(self.pending.is_some());
        } else if self.phase == Phase::ZeroRing {
            self.phase = Phase::SyncRing;
            self.pending = Some(LogOperation::Sync { file: LogFile::Ring });
        } else {
            self.hand_over();
        }
    }

    pub(super) fn written(
        &mut self,
        buffer: Buffer,
        result: io::Result<usize>,
    ) -> Result<(), RecoveryError> {
        let writing = self.writes.front_mut().expect("a write is in flight");
        let file = writing.file();
        match writing.complete(buffer, result) {
            Progress::More => Ok(()),
            Progress::Done(_) => {
                self.writes.pop_front();
                Ok(())
            }
            Progress::Refused => {
                let reason = writing.refused().unwrap_or_default().to_owned();
                Err(RecoveryError::Io { file, reason })
            }
            Progress::Failed(reason) => Err(RecoveryError::Io { file, reason }),
        }
    }

    pub(super) fn hand_over(&mut self) {
        self.phase = Phase::Done;
        let last = self.last.as_ref().map(|last| last.fields);
        let redo_from = last.map_or(Sequence(1), |fields| fields.redo_from);
        let (tenants, damaged) = std::mem::take(&mut self.replay).finish(redo_from);
        match self.segments.len() {
            0 => sometimes!("recovery: of an empty log"),
            1 => sometimes!("recovery: of one segment"),
            _ => sometimes!("recovery: of several segments"),
        }
        if !damaged.is_empty() {
            sometimes!("recovery: a tenant's pages in the log are damaged");
        }
        let Cursor { sequence, place, previous } = self.cursor;
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
            catalogue_stamp: last.map_or(0, |fields| fields.catalogue_stamp),
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
}
