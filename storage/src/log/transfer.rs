//! One write that goes on after short counts and interruptions until all of it is done.
//!
//! A disk without room refuses a write for the time being (a copy-on-write file system does, even
//! into space that was reserved): it stays where it is, and is asked for again after [`Writing::retry`].

use super::limits::STALLS_MAX;
use super::{LogFile, LogOperation, is_full, is_interruption};
use crate::io::{BLOCK_BYTES, Buffer};
use std::io;

/// A write under way. Its buffer is lent out while a request is in flight.
#[derive(Debug)]
pub struct Writing {
    file: LogFile,
    offset: u64,
    bytes: usize,
    buffer: Option<Buffer>,
    stalls: u32,
    refused: Option<String>,
}

/// How a write goes on.
#[derive(Debug)]
pub enum Progress {
    /// Ask for another operation.
    More,
    /// All bytes are written; here is the buffer.
    Done(Buffer),
    /// The disk has no room for it now: [`Writing::refused`] says what it said.
    Refused,
    /// It failed, for this reason.
    Failed(String),
}

impl Writing {
    /// Write all of `buffer` at `offset`.
    pub fn new(file: LogFile, offset: u64, buffer: Buffer) -> Writing {
        assert!(!buffer.is_empty());
        assert!(buffer.len().is_multiple_of(BLOCK_BYTES));
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64));
        let bytes = buffer.len();
        Writing { file, offset, bytes, buffer: Some(buffer), stalls: 0, refused: None }
    }

    /// Which file it goes to.
    pub fn file(&self) -> LogFile {
        self.file
    }

    /// What the disk said when it had no room, until [`Writing::retry`].
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// There may be room now.
    pub fn retry(&mut self) {
        self.refused = None;
    }

    /// The next operation, unless one is in flight or the disk has no room.
    pub fn operation(&mut self) -> Option<LogOperation> {
        if self.refused.is_some() {
            return None;
        }
        let buffer = self.buffer.take()?;
        Some(LogOperation::Write { file: self.file, offset: self.offset, buffer })
    }

    /// The operation in flight ended. Counts are rounded down to blocks: direct I/O goes on only at
    /// one, and writing the same bytes twice is harmless.
    pub fn complete(&mut self, mut buffer: Buffer, result: io::Result<usize>) -> Progress {
        assert!(self.buffer.is_none());
        let written = match result {
            Ok(written) => written.min(self.bytes) / BLOCK_BYTES * BLOCK_BYTES,
            Err(error) if is_interruption(&error) => 0,
            Err(error) if is_full(&error) => {
                self.refused = Some(self.describe(&error.to_string()));
                self.buffer = Some(buffer);
                return Progress::Refused;
            }
            Err(error) => return Progress::Failed(self.describe(&error.to_string())),
        };
        if written == self.bytes {
            return Progress::Done(buffer);
        }
        if written == 0 {
            self.stalls += 1;
            if self.stalls > STALLS_MAX {
                return Progress::Failed(self.describe("no progress"));
            }
        } else {
            self.stalls = 0;
            buffer.copy_within(written..self.bytes, 0);
            self.bytes -= written;
            self.offset += written as u64;
            buffer.set_len(self.bytes);
        }
        self.buffer = Some(buffer);
        Progress::More
    }

    fn describe(&self, reason: &str) -> String {
        format!("writing {} bytes at {} of {}: {reason}", self.bytes, self.offset, self.file.name())
    }
}
