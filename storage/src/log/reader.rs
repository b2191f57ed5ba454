//! A window on one log file, filled by reads that go on after short counts and errors.
//!
//! Bytes that cannot be read count as damage, not as a reason to stop: they become 0xff, which is
//! no zero block, no header and no page's check. What lies past the end of a file becomes what the
//! caller says: zeros for a segment (never written), 0xff for the ring (it has a fixed size).

use super::limits::{READ_ATTEMPTS, READ_PIECE_BYTES};
use super::{LogFile, LogOperation};
use crate::io::{BLOCK_BYTES, Buffer};
use std::io;

/// What unreadable bytes become.
pub const UNREADABLE: u8 = 0xff;

/// Bytes of one file in memory.
#[derive(Debug)]
pub struct Reader {
    file: LogFile,
    start: u64,
    bytes: usize,
    filled: usize,
    past_end: u8,
    window: Vec<u8>,
    buffer: Option<Buffer>,
    in_flight: bool,
    piece_bytes: usize,
    attempts: u32,
    /// Blocks that could not be read, in all.
    pub unreadable_blocks: u64,
}

impl Reader {
    /// A reader with nothing in its window.
    pub fn new() -> Reader {
        Reader {
            file: LogFile::Ring,
            start: 0,
            bytes: 0,
            filled: 0,
            past_end: 0,
            window: Vec::new(),
            buffer: None,
            in_flight: false,
            piece_bytes: READ_PIECE_BYTES,
            attempts: 0,
            unreadable_blocks: 0,
        }
    }

    /// Point the window at these bytes; they arrive by `operation` and `complete`.
    pub fn fetch(&mut self, file: LogFile, start: u64, bytes: usize, past_end: u8) {
        assert!(!self.in_flight);
        assert!(start.is_multiple_of(BLOCK_BYTES as u64) && bytes.is_multiple_of(BLOCK_BYTES));
        self.file = file;
        self.start = start;
        self.bytes = bytes;
        self.filled = 0;
        self.past_end = past_end;
        self.piece_bytes = READ_PIECE_BYTES;
        self.attempts = 0;
        self.window.clear();
    }

    /// Forget the window, so that its bytes are read again.
    pub fn forget(&mut self) {
        assert!(!self.in_flight);
        self.bytes = 0;
        self.filled = 0;
    }

    /// The bytes at `start`, if the window has them all.
    pub fn slice(&self, file: LogFile, start: u64, bytes: usize) -> Option<&[u8]> {
        if file != self.file || start < self.start || self.filled < self.bytes {
            return None;
        }
        let offset = usize::try_from(start - self.start).ok()?;
        self.window.get(offset..offset.checked_add(bytes)?)
    }

    /// The next read, if bytes are missing and none is in flight.
    pub fn operation(&mut self) -> Option<LogOperation> {
        if self.in_flight || self.filled == self.bytes {
            return None;
        }
        self.in_flight = true;
        let bytes = self.piece_bytes.min(self.bytes - self.filled);
        let buffer = self.buffer.take().filter(|buffer| buffer.capacity() >= bytes);
        let mut buffer = buffer.unwrap_or_else(|| Buffer::zeroed(bytes));
        buffer.set_len(bytes);
        let offset = self.start + self.filled as u64;
        Some(LogOperation::Read { file: self.file, offset, buffer })
    }

    /// The read in flight ended.
    pub fn complete(&mut self, buffer: Buffer, result: io::Result<usize>) {
        assert!(self.in_flight);
        self.in_flight = false;
        match result {
            Ok(0) => self.append_filling(self.past_end, self.bytes - self.filled),
            Ok(count) => {
                let whole = count.min(buffer.len()) / BLOCK_BYTES * BLOCK_BYTES;
                self.window.extend_from_slice(&buffer[..whole]);
                self.filled += whole;
                self.attempts = if whole > 0 { 0 } else { self.attempts + 1 };
            }
            Err(_) => self.attempts += 1,
        }
        if self.attempts >= READ_ATTEMPTS {
            self.attempts = 0;
            self.give_way();
        }
        self.buffer = Some(buffer);
    }

    /// A read keeps failing: go on block by block, and past the block that fails alone.
    fn give_way(&mut self) {
        if self.piece_bytes > BLOCK_BYTES {
            self.piece_bytes = BLOCK_BYTES;
            return;
        }
        self.unreadable_blocks += 1;
        self.append_filling(UNREADABLE, BLOCK_BYTES);
    }

    fn append_filling(&mut self, value: u8, bytes: usize) {
        self.window.resize(self.window.len() + bytes, value);
        self.filled += bytes;
    }
}
