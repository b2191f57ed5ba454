//! Bytes by offset: the first part in memory, the rest in an unnamed temporary file.
//!
//! Holds the WAL image and SQLite's temporary objects. Owns where a byte is and what is booked for
//! it; leaves the file's I/O to its caller, who runs on a fiber and can wait (`vfs.rs`).
//!
//! Offsets below `boundary` live in chunks of [`CHUNK_BYTES`], the others in the file at
//! `offset - boundary`. The boundary is fixed once the file is in use. It starts at the bound given
//! and comes down early when the account's memory limit refuses a chunk: then the rest spills.

use crate::io::FileId;
use crate::ledger::{self, AccountId, Counted, Kind};

/// Bytes of a chunk: four pages, so that a tenant of one small write holds 16 KiB of WAL.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// See the head of the file.
#[derive(Debug)]
pub struct Extent {
    account: AccountId,
    kind: Kind,
    chunks: Vec<Option<Counted<u8>>>,
    boundary: u64,
    /// It has no file: what memory has no room for is refused.
    only_memory: bool,
    size: u64,
    file: Option<FileId>,
    file_bytes: u64,
}

/// Where a range begins, and how many of its bytes are there in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory.
    Memory(usize),
    /// In the temporary file at this offset.
    File(u64, usize),
}

/// The account's limit refuses memory for a chunk that cannot be spilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl Extent {
    /// An empty extent that keeps up to `memory_bytes_max` in memory.
    #[must_use]
    pub fn new(account: AccountId, kind: Kind, memory_bytes_max: u64) -> Extent {
        assert!(memory_bytes_max.is_multiple_of(CHUNK_BYTES as u64));
        Extent {
            account,
            kind,
            chunks: Vec::new(),
            boundary: memory_bytes_max,
            only_memory: false,
            size: 0,
            file: None,
            file_bytes: 0,
        }
    }

    /// An empty extent that is never in a file.
    #[must_use]
    pub fn in_memory(account: AccountId, kind: Kind) -> Extent {
        let boundary = u64::MAX - u64::MAX % CHUNK_BYTES as u64;
        let mut extent = Extent::new(account, kind, boundary);
        extent.only_memory = true;
        extent
    }

    /// Size in bytes: one past the last byte written.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The temporary file, if the extent has spilled.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Bytes booked in the temporary file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Use `file` for what does not fit in memory.
    pub fn set_file(&mut self, file: FileId) {
        assert!(self.file.is_none());
        self.file = Some(file);
    }

    /// Where `offset` lives, and how many of `length` bytes from there on lie in one piece.
    #[must_use]
    pub fn locate(&self, offset: u64, length: usize) -> Place {
        if offset >= self.boundary {
            return Place::File(offset - self.boundary, length);
        }
        let in_chunk = CHUNK_BYTES - (offset % CHUNK_BYTES as u64) as usize;
        Place::Memory(length.min(in_chunk))
    }

    /// The bytes at `offset`, a range that [`Extent::locate`] said lies in memory; `None` if they
    /// were never written and read as zeros.
    #[must_use]
    pub fn memory(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let start = (offset % CHUNK_BYTES as u64) as usize;
        let chunk = self.chunks.get((offset / CHUNK_BYTES as u64) as usize)?.as_ref()?;
        Some(&chunk[start..start + length])
    }

    /// Copy `out.len()` bytes at `offset`, if all of them lie in memory.
    #[must_use]
    pub fn copy_from_memory(&self, offset: u64, out: &mut [u8]) -> bool {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let Place::Memory(length) = self.locate(at, out.len() - done) else { return false };
            match self.memory(at, length) {
                Some(bytes) => out[done..done + length].copy_from_slice(bytes),
                None => out[done..done + length].fill(0),
            }
            done += length;
        }
        true
    }

    /// Room for writing at `offset`, a range that [`Extent::locate`] said lies in memory. `Ok(None)`
    /// means that the boundary came down: locate again.
    ///
    /// # Errors
    /// [`NoMemory`] if the account's limit refuses a chunk that has chunks after it.
    pub fn memory_mut(
        &mut self,
        offset: u64,
        length: usize,
    ) -> Result<Option<&mut [u8]>, NoMemory> {
        let index = (offset / CHUNK_BYTES as u64) as usize;
        let start = (offset % CHUNK_BYTES as u64) as usize;
        if self.chunks.get(index).is_none_or(Option::is_none) {
            if !ledger::charge(self.account, self.kind, CHUNK_BYTES as u64) {
                if index < self.chunks.len() || self.file.is_some() || self.only_memory {
                    return Err(NoMemory);
                }
                self.boundary = (index * CHUNK_BYTES) as u64;
                return Ok(None);
            }
            if index >= self.chunks.len() {
                self.chunks.resize_with(index + 1, || None);
            }
            self.chunks[index] = Some(Counted::new(0, CHUNK_BYTES));
        }
        let chunk = self.chunks[index].as_mut().expect("allocated above");
        Ok(Some(&mut chunk[start..start + length]))
    }

    /// Book what the temporary file grows by when it is written up to byte `end` of the extent;
    /// `false` if the account may not hold that much. Comes before the write: other fibers of the
    /// account run while that waits.
    #[must_use]
    pub fn reserve_file(&mut self, end: u64) -> bool {
        let file_bytes = end.saturating_sub(self.boundary);
        if file_bytes > self.file_bytes {
            if !ledger::charge(self.account, Kind::Temporary, file_bytes - self.file_bytes) {
                return false;
            }
            self.file_bytes = file_bytes;
        }
        true
    }

    /// Take back what was reserved for a write that failed.
    pub fn release_file(&mut self) {
        let file_bytes = self.size.saturating_sub(self.boundary);
        assert!(file_bytes <= self.file_bytes);
        ledger::credit(self.account, Kind::Temporary, self.file_bytes - file_bytes);
        self.file_bytes = file_bytes;
    }

    /// Note that bytes up to `end` were written; what of them is in the file was reserved.
    pub fn wrote(&mut self, end: u64) {
        self.size = self.size.max(end);
        assert!(self.size.saturating_sub(self.boundary) <= self.file_bytes);
    }

    /// Cut to `size` bytes; what lay behind reads as zeros if the extent grows again (the part in
    /// the file: the caller truncates it to [`Extent::file_bytes`]).
    pub fn truncate(&mut self, size: u64) {
        if size >= self.size {
            return;
        }
        self.size = size;
        let keep = size.div_ceil(CHUNK_BYTES as u64) as usize;
        if keep < self.chunks.len() {
            let dropped = self.chunks.drain(keep..).flatten().count();
            ledger::credit(self.account, self.kind, (dropped * CHUNK_BYTES) as u64);
        }
        let start = (size % CHUNK_BYTES as u64) as usize;
        if start > 0
            && let Some(Some(chunk)) = self.chunks.get_mut(keep - 1)
        {
            chunk[start..].fill(0);
        }
        let file_bytes = size.saturating_sub(self.boundary);
        if file_bytes < self.file_bytes {
            ledger::credit(self.account, Kind::Temporary, self.file_bytes - file_bytes);
            self.file_bytes = file_bytes;
        }
    }

    /// Give everything back; returns the temporary file for closing.
    #[must_use]
    pub fn clear(&mut self) -> Option<FileId> {
        self.truncate(0);
        assert!(self.chunks.is_empty());
        self.file.take()
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        let file = self.clear();
        assert!(file.is_none(), "an extent was dropped with its temporary file open");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(extent: &mut Extent, offset: u64, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let Place::Memory(length) = extent.locate(at, bytes.len() - done) else {
                break;
            };
            let Ok(Some(room)) = extent.memory_mut(at, length) else {
                continue;
            };
            room.copy_from_slice(&bytes[done..done + length]);
            done += length;
            extent.wrote(at + length as u64);
        }
        done
    }

    #[test]
    fn a_range_over_chunks_and_the_boundary_is_split() {
        let account = ledger::open(u64::MAX, None);
        let mut extent = Extent::new(account, Kind::Scratch, 2 * CHUNK_BYTES as u64);
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES).map(|i| i as u8).collect();
        assert_eq!(write(&mut extent, 0, &bytes), 2 * CHUNK_BYTES);
        assert_eq!(extent.locate(2 * CHUNK_BYTES as u64 + 5, 9), Place::File(5, 9));
        assert_eq!(extent.memory(CHUNK_BYTES as u64, 4), Some(&bytes[CHUNK_BYTES..][..4]));
        extent.truncate(10);
        assert_eq!(extent.memory(8, 4), Some(&[8, 9, 0, 0][..]));
        assert_eq!(ledger::held(account)[Kind::Scratch as usize], CHUNK_BYTES as u64);
        drop(extent);
        ledger::close(account);
    }

    #[test]
    fn a_refused_chunk_brings_the_boundary_down() {
        let account = ledger::open(CHUNK_BYTES as u64, None);
        let mut extent = Extent::new(account, Kind::Wal, 8 * CHUNK_BYTES as u64);
        let bytes = vec![7; 2 * CHUNK_BYTES];
        assert_eq!(write(&mut extent, 0, &bytes), CHUNK_BYTES);
        assert_eq!(extent.locate(CHUNK_BYTES as u64, 4), Place::File(0, 4));
        drop(extent);
        ledger::close(account);
    }

    #[test]
    fn the_file_is_booked_before_it_is_written() {
        let temporary = || ledger::total()[Kind::Temporary as usize];
        let account = ledger::open(0, None);
        ledger::set_temporary_limit(account, 100);
        let mut extent = Extent::new(account, Kind::Wal, 0);
        assert!(extent.reserve_file(80));
        extent.wrote(80);
        assert!(extent.reserve_file(80), "written again in place");
        assert!(!extent.reserve_file(101));
        assert!(extent.reserve_file(100));
        assert_eq!((temporary(), extent.size()), (100, 80));
        extent.release_file();
        assert_eq!((temporary(), extent.file_bytes()), (80, 80));
        ledger::set_temporary_limit(account, 10);
        assert!(extent.reserve_file(80), "a smaller limit leaves what is there");
        extent.truncate(5);
        assert_eq!(temporary(), 5);
        drop(extent);
        assert_eq!(temporary(), 0);
        ledger::close(account);
    }
}
