//! Opening the log's files, reading the ring, and making a fresh one.
//!
//! A fresh ring is filled with zeros, synced and named, and only then gets its superblock, so that
//! an intact superblock means that the slots behind it are.

use super::{BLOCK, First, Phase, RingFound, Scan, io_error};
use crate::io::{BLOCK_BYTES, Buffer};
use crate::log::header::Header;
use crate::log::limits::{
    HEADER_BYTES_MAX, RING_BYTES, RING_SLOTS, RING_SLOTS_OFFSET, SEGMENT_BLOCKS_LEAST,
    SEGMENT_COUNT_LEAST, SEGMENT_COUNT_MOST, SLOT_BYTES,
};
use crate::log::prepare::SlotState;
use crate::log::reader::UNREADABLE;
use crate::log::ring::{Slot, Superblock, SuperblockRead, slot_offset};
use crate::log::transfer::Writing;
use crate::log::{LogFile, LogOperation, RecoveryError, space};
use crate::sometimes;
use std::io;

impl Scan {
    pub(super) fn ring_opened(&mut self, result: io::Result<u64>) -> Result<(), RecoveryError> {
        match result {
            Ok(_) => {
                self.ring_found = RingFound::Damaged;
                self.phase = Phase::Superblock { again: false };
                self.reader.fetch(LogFile::Ring, 0, RING_SLOTS_OFFSET, UNREADABLE);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_segment(0),
            Err(error) => return Err(io_error(LogFile::Ring, "opening", &error)),
        }
        Ok(())
    }

    pub(super) fn superblock(&mut self, again: bool) -> Result<(), RecoveryError> {
        let bytes = self.reader.slice(LogFile::Ring, 0, RING_SLOTS_OFFSET);
        let bytes = bytes.expect("the superblocks are in the window");
        match Superblock::read(bytes) {
            SuperblockRead::Intact(superblock) => {
                let damaged: Vec<usize> = Superblock::damaged_twins(bytes).collect();
                self.adopt(superblock)?;
                self.ring_found = RingFound::Intact;
                // A crash may have come between the two writes of a log that was being made.
                for twin in damaged {
                    sometimes!("recovery: a superblock is repaired");
                    self.queue_superblock(twin);
                    self.repaired += 1;
                }
            }
            SuperblockRead::Version(found) => return Err(RecoveryError::Version { found }),
            SuperblockRead::Damaged if !again => {
                self.phase = Phase::Superblock { again: true };
                self.reader.fetch(LogFile::Ring, 0, RING_SLOTS_OFFSET, UNREADABLE);
                return Ok(());
            }
            SuperblockRead::Damaged => {}
        }
        self.open_segment(0);
        Ok(())
    }

    pub(super) fn adopt(&mut self, superblock: Superblock) -> Result<(), RecoveryError> {
        let Superblock { segment_bytes, segment_count } = superblock;
        let sized = segment_bytes.is_multiple_of(BLOCK)
            && segment_bytes >= SEGMENT_BLOCKS_LEAST * BLOCK
            && segment_bytes <= i64::MAX as u64 / u64::from(SEGMENT_COUNT_MOST);
        if !sized || !(SEGMENT_COUNT_LEAST..=SEGMENT_COUNT_MOST).contains(&segment_count) {
            return Err(RecoveryError::Shape { segment_bytes, segment_count });
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

    pub(super) fn open_segment(&mut self, slot: u32) {
        self.phase = Phase::OpenSegment { slot };
        let file = LogFile::Segment(slot);
        self.pending = Some(LogOperation::Open { file, create: false });
    }

    pub(super) fn segment_opened(
        &mut self,
        slot: u32,
        result: io::Result<u64>,
    ) -> Result<(), RecoveryError> {
        self.files.push(match result {
            Ok(size) => SlotState { opened: true, ready: size == self.options.segment_bytes },
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
                self.pending = Some(LogOperation::Open { file: LogFile::Ring, create: true });
            }
            RingFound::Damaged => {
                self.phase = Phase::AllocateRing;
                let bytes = RING_BYTES as u64;
                self.pending = Some(LogOperation::Allocate { file: LogFile::Ring, bytes });
            }
            RingFound::Intact => {
                // A process that was killed while it made a segment has left one under a name
                // that no sync has covered: a power loss would take it with its batches.
                self.phase = Phase::SyncNames;
                self.pending = Some(LogOperation::SyncDirectory);
            }
        }
        Ok(())
    }

    pub(super) fn names_synced(&mut self, result: io::Result<()>) -> Result<(), RecoveryError> {
        result.map_err(|error| io_error(LogFile::Ring, "syncing the folder of", &error))?;
        self.phase = Phase::Ring { again: false };
        self.fetch_ring();
        Ok(())
    }

    pub(super) fn fetch_ring(&mut self) {
        let start = RING_SLOTS_OFFSET as u64;
        self.reader.fetch(LogFile::Ring, start, RING_SLOTS * SLOT_BYTES, UNREADABLE);
    }

    pub(super) fn read_ring(&mut self, again: bool) -> Result<(), RecoveryError> {
        self.ring.clear();
        for index in 0..RING_SLOTS {
            let bytes = self.reader.slice(LogFile::Ring, slot_offset(index), SLOT_BYTES);
            self.ring.push(Slot::read(bytes.expect("the ring is in the window"), index));
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

    pub(super) fn next_first(&mut self, from: u32) {
        let mut slots = from..self.options.segment_count;
        match slots.find(|slot| self.files[*slot as usize].opened) {
            Some(slot) => {
                self.phase = Phase::First { slot, again: false };
                self.reader.fetch(LogFile::Segment(slot), 0, HEADER_BYTES_MAX, 0);
            }
            None => self.phase = Phase::Begin,
        }
    }

    pub(super) fn read_first(&mut self, slot: u32, again: bool) {
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

    pub(super) fn ring_step(
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

    pub(super) fn queue_zeros(&mut self) {
        let zeros = Buffer::zeroed(RING_BYTES);
        self.writes.push_back(Writing::new(LogFile::Ring, 0, zeros));
    }

    pub(super) fn queue_superblocks(&mut self) {
        // Two writes: the disk may lose one, and a log without a superblock never starts again.
        for twin in 0..RING_SLOTS_OFFSET / BLOCK_BYTES {
            self.queue_superblock(twin);
        }
        self.cursor.previous = Some([0; 32]);
    }

    fn queue_superblock(&mut self, twin: usize) {
        let mut buffer = Buffer::zeroed(BLOCK_BYTES);
        Superblock::of(&self.options).write(&mut buffer);
        let offset = (twin * BLOCK_BYTES) as u64;
        self.writes.push_back(Writing::new(LogFile::Ring, offset, buffer));
    }
}
