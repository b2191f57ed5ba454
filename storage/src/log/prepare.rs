//! Making segment files: one ahead of the log's head, in small steps beside the commits.
//!
//! A segment that never existed is created, allocated, filled with zeros (so that later writes
//! change no metadata), synced, and its name synced, all before its first batch. Whether the
//! zeros arrived decides nothing in recovery. A disk that refuses (full, mostly) is no failure of
//! the log: it stays smaller, reservations see that, and `retry` tries again. A failed sync is
//! one: after it, what the kernel says about that file or folder proves nothing.

use super::limits::ZERO_STEP_BYTES;
use super::transfer::{Progress, Writing};
use super::{LogFile, LogOperation, LogReply, mismatched};
use crate::io::Buffer;

/// What is known of one segment file.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotState {
    /// The caller has it open.
    pub opened: bool,
    /// Batches may be written to it.
    pub ready: bool,
}

#[derive(Debug)]
enum Step {
    Open,
    Allocate,
    Zero { written: u64, writing: Writing },
    Sync,
    SyncDirectory,
}

/// The segment files, and the one being made.
#[derive(Debug)]
pub struct Slots {
    states: Vec<SlotState>,
    segment_bytes: u64,
    making: Option<(u32, Step)>,
    in_flight: bool,
    refused: Option<String>,
}

impl Slots {
    /// The files as a scan found them.
    pub fn new(states: Vec<SlotState>, segment_bytes: u64) -> Slots {
        Slots { states, segment_bytes, making: None, in_flight: false, refused: None }
    }

    /// Whether batches may be written to the slot.
    pub fn ready(&self, slot: u32) -> bool {
        self.states[slot as usize].ready
    }

    /// Why the disk refused the newest file, if it did.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Try a refused file again when it is wanted next.
    pub fn retry(&mut self) {
        self.refused = None;
    }

    /// Make the slot unless it is there, another one is being made, or the disk refuses.
    pub fn want(&mut self, slot: u32) {
        let state = self.states[slot as usize];
        if state.ready || self.making.is_some() || self.refused.is_some() {
            return;
        }
        let step = if state.opened { Step::Allocate } else { Step::Open };
        self.making = Some((slot, step));
    }

    /// The next operation, if one is due.
    pub fn operation(&mut self) -> Option<LogOperation> {
        if self.in_flight {
            return None;
        }
        let (slot, step) = self.making.as_mut()?;
        let file = LogFile::Segment(*slot);
        let operation = match step {
            Step::Open => LogOperation::Open { file, create: true },
            Step::Allocate => LogOperation::Allocate { file, bytes: self.segment_bytes },
            Step::Zero { writing, .. } => writing.operation()?,
            Step::Sync => LogOperation::Sync { file },
            Step::SyncDirectory => LogOperation::SyncDirectory,
        };
        self.in_flight = true;
        Some(operation)
    }

    /// The operation in flight ended.
    ///
    /// # Errors
    /// A sync failed: fatal for the log.
    pub fn complete(&mut self, reply: LogReply) -> Result<(), String> {
        assert!(self.in_flight);
        self.in_flight = false;
        let (slot, step) = self.making.take().expect("a file is being made");
        let file = LogFile::Segment(slot);
        let next = match (step, reply) {
            (Step::Open, LogReply::Opened(Ok(_))) => {
                self.states[slot as usize].opened = true;
                Step::Allocate
            }
            (Step::Open, LogReply::Opened(Err(error)))
            | (Step::Allocate, LogReply::Allocated(Err(error))) => {
                self.refused = Some(format!("making {}: {error}", file.name()));
                return Ok(());
            }
            (Step::Allocate, LogReply::Allocated(Ok(()))) => self.zero_step(file, 0, None),
            (Step::Zero { written, writing }, LogReply::Written(buffer, result)) => {
                match self.zeroed(file, written, writing, buffer, result) {
                    Some(step) => step,
                    None => return Ok(()),
                }
            }
            (Step::Sync, LogReply::Synced(Ok(()))) => Step::SyncDirectory,
            (Step::SyncDirectory, LogReply::DirectorySynced(Ok(()))) => {
                self.states[slot as usize].ready = true;
                return Ok(());
            }
            (Step::Sync, LogReply::Synced(Err(error)))
            | (Step::SyncDirectory, LogReply::DirectorySynced(Err(error))) => {
                return Err(format!("making {} durable: {error}", file.name()));
            }
            (_, reply) => mismatched(&reply),
        };
        self.making = Some((slot, next));
        Ok(())
    }

    fn zeroed(
        &mut self,
        file: LogFile,
        written: u64,
        mut writing: Writing,
        buffer: Buffer,
        result: std::io::Result<usize>,
    ) -> Option<Step> {
        match writing.complete(buffer, result) {
            Progress::More => Some(Step::Zero { written, writing }),
            Progress::Done(buffer) if written == self.segment_bytes => {
                drop(buffer);
                Some(Step::Sync)
            }
            Progress::Done(buffer) => Some(self.zero_step(file, written, Some(buffer))),
            Progress::Refused => {
                self.refused = writing.refused().map(str::to_owned);
                None
            }
            Progress::Failed(reason) => {
                self.refused = Some(reason);
                None
            }
        }
    }

    fn zero_step(&self, file: LogFile, offset: u64, buffer: Option<Buffer>) -> Step {
        let left = self.segment_bytes - offset;
        let bytes = left.min(ZERO_STEP_BYTES as u64) as usize;
        let mut buffer = buffer.unwrap_or_else(|| Buffer::zeroed(bytes));
        buffer.set_len(bytes);
        let writing = Writing::new(file, offset, buffer);
        Step::Zero { written: offset + bytes as u64, writing }
    }
}
