//! Databases that are only in memory: their pages in an extent, and commits that no log has.
//!
//! SQLite works as ever: commits are frames of the WAL image, and a checkpoint brings them into the
//! main file, which is the extent. A commit is there for all as soon as its writer lets go of the
//! lock; nothing waits for durability, of which there is none. What memory has no room for is refused:
//! neither the extent, nor the WAL image, nor a temporary object goes to a file.

use super::{MemoryPage, PageSource, Volume};
use crate::extent::{Extent, NoMemory, Place};
use crate::ledger::{AccountId, Kind};
use crate::page::PAGE_BYTES;

/// The main file of a database that has none.
#[derive(Debug)]
pub(super) struct MemoryMain {
    extent: Extent,
}

impl MemoryMain {
    pub fn new(account: AccountId) -> MemoryMain {
        MemoryMain { extent: Extent::in_memory(account, Kind::Main) }
    }

    /// Its size in pages; 0 before the first checkpoint.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.extent.size() / PAGE_BYTES as u64).unwrap_or(u32::MAX)
    }

    pub fn source(&self, page_number: u32) -> PageSource {
        match (page_number <= self.pages(), page_number) {
            (true, _) => PageSource::Memory,
            (false, 1) => PageSource::Empty,
            (false, _) => PageSource::Beyond,
        }
    }
}

fn offset_of(page_number: u32) -> u64 {
    u64::from(page_number - 1) * PAGE_BYTES as u64
}

impl Volume {
    /// It is only in memory.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Read a page of which [`Volume::page_source`] says that it is in memory.
    pub fn read_memory_page(&self, page_number: u32, out: &mut MemoryPage) {
        let main = self.memory.as_ref().expect("it is only in memory");
        let whole = main.extent.copy_from_memory(offset_of(page_number), out);
        assert!(whole, "it has no file");
    }

    /// Write a page into memory, for a checkpoint.
    ///
    /// # Errors
    /// Its budget has no room for it.
    pub fn write_memory_page(&mut self, page_number: u32, bytes: &[u8]) -> Result<(), NoMemory> {
        let main = self.memory.as_mut().expect("it is only in memory");
        let offset = offset_of(page_number);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let Place::Memory(length) = main.extent.locate(at, bytes.len() - done) else {
                return Err(NoMemory);
            };
            let room = main.extent.memory_mut(at, length)?.ok_or(NoMemory)?;
            room.copy_from_slice(&bytes[done..done + length]);
            done += length;
            main.extent.wrote(at + length as u64);
        }
        Ok(())
    }

    /// Cut it to so many pages.
    pub fn truncate_memory(&mut self, pages: u32) {
        let main = self.memory.as_mut().expect("it is only in memory");
        main.extent.truncate(u64::from(pages) * PAGE_BYTES as u64);
    }

    /// What was committed is there for good: no log has it.
    pub fn end_sealing_in_memory(&mut self) {
        let sealing = self.sealing.take().expect("something is being sealed");
        assert!(self.is_memory() && sealing.last_frame > self.logged_frame);
        self.logged_frame = sealing.last_frame;
        self.frames.truncate(self.logged_frame as usize);
        self.last_txid += 1;
    }
}
