//! A disk in memory: files as bytes, writes that may be torn, reads that may fail.

use crate::io::BLOCK_BYTES;
use crate::log::{LogFile, LogOperation, LogReply, LogRequest, LogRequestId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A seeded generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The disk. `short_percent` makes counts short and interrupts calls.
#[derive(Clone, Debug, Default)]
pub struct Device {
    pub files: BTreeMap<LogFile, Vec<u8>>,
    pub short_percent: u64,
    /// `Allocate` fails.
    pub full: bool,
    /// Writes fail for lack of room too, as on a copy-on-write file system.
    pub no_room: bool,
    /// Blocks that cannot be read.
    pub unreadable: BTreeSet<(LogFile, u64)>,
    /// Reads done.
    pub reads: u64,
}

impl Device {
    /// Carry out a request at once.
    pub fn carry_out(
        &mut self,
        request: LogRequest,
        random: &mut Random,
    ) -> (LogRequestId, LogReply) {
        let short = self.short_percent > 0 && random.chance(self.short_percent);
        let reply = match request.operation {
            LogOperation::Open { file, create } => LogReply::Opened(self.open(file, create)),
            LogOperation::Allocate { file, bytes } => LogReply::Allocated(if self.full {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                self.files.get_mut(&file).expect("open").resize(bytes as usize, 0);
                Ok(())
            }),
            LogOperation::Write { file, offset, buffer } => {
                if self.no_room {
                    let refused = Err(io::ErrorKind::StorageFull.into());
                    return (request.id, LogReply::Written(buffer, refused));
                }
                let mut count = buffer.len();
                if short && random.chance(30) {
                    return (
                        request.id,
                        LogReply::Written(buffer, Err(io::ErrorKind::Interrupted.into())),
                    );
                }
                if short {
                    count = 1 + random.below(count as u64) as usize;
                }
                self.write(file, offset, &buffer[..count]);
                LogReply::Written(buffer, Ok(count))
            }
            LogOperation::Read { file, offset, mut buffer } => {
                self.reads += 1;
                let first = offset / BLOCK_BYTES as u64;
                let blocks = first..first + (buffer.len() / BLOCK_BYTES) as u64;
                if blocks.clone().any(|block| self.unreadable.contains(&(file, block))) {
                    return (request.id, LogReply::Read(buffer, Err(io::Error::other("EIO"))));
                }
                let bytes = &self.files[&file];
                let start = (offset as usize).min(bytes.len());
                let mut count = buffer.len().min(bytes.len() - start);
                if short && count > 0 {
                    count = 1 + random.below(count as u64) as usize;
                }
                buffer[..count].copy_from_slice(&bytes[start..start + count]);
                LogReply::Read(buffer, Ok(count))
            }
            LogOperation::Sync { file } => {
                assert!(self.files.contains_key(&file));
                LogReply::Synced(Ok(()))
            }
            LogOperation::SyncDirectory => LogReply::DirectorySynced(Ok(())),
        };
        (request.id, reply)
    }

    fn open(&mut self, file: LogFile, create: bool) -> io::Result<u64> {
        if create {
            self.files.entry(file).or_default();
        }
        match self.files.get(&file) {
            Some(bytes) => Ok(bytes.len() as u64),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub fn write(&mut self, file: LogFile, offset: u64, bytes: &[u8]) {
        let target = self.files.get_mut(&file).expect("the file is open");
        let end = offset as usize + bytes.len();
        if target.len() < end {
            target.resize(end, 0);
        }
        target[offset as usize..end].copy_from_slice(bytes);
    }

    /// A write that a crash interrupted: each sector of `sector` bytes for which `keep` says so.
    pub fn tear(
        &mut self,
        request: &LogRequest,
        sector: usize,
        mut keep: impl FnMut(usize) -> bool,
    ) {
        let LogOperation::Write { file, offset, buffer } = &request.operation else {
            return;
        };
        for (index, bytes) in buffer.chunks(sector).enumerate() {
            if keep(index) {
                self.write(*file, offset + (index * sector) as u64, bytes);
            }
        }
    }

    /// Flip one bit.
    pub fn rot(&mut self, file: LogFile, offset: u64) {
        self.files.get_mut(&file).expect("the file exists")[offset as usize] ^= 0x10;
    }

    /// Zero one block.
    pub fn zero(&mut self, file: LogFile, offset: u64) {
        self.write(file, offset, &[0; BLOCK_BYTES]);
    }
}
