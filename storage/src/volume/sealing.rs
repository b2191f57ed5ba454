//! A commit on its way into the log: which pages, and their checks.

use super::Volume;
use crate::io::Buffer;
use crate::log::{PageCheck, Sequence, Transaction, page_check};
use crate::page::PAGE_BYTES;

/// A transaction on its way into the commit log.
#[derive(Debug)]
pub struct Sealing {
    /// Frames that hold the last version of each page, with the page numbers.
    pub pages: Vec<(u32, u32)>,
    /// Checks of their images, as far as they were in memory: made on the fiber, bit by bit, because
    /// appending is one step of the engine's.
    pub checks: Vec<Option<PageCheck>>,
    /// How many are in the log already.
    pub next: usize,
    /// Pages of the database after the commit.
    pub database_pages: u32,
    /// Last frame of the commit.
    pub last_frame: u32,
    /// The log's part, once begun.
    pub transaction: Option<Transaction>,
    /// The batch in which the transaction begins.
    pub first_sequence: Option<Sequence>,
    /// A spilled page that the fiber brought.
    pub brought: Option<Buffer>,
    /// The transaction left a mark in page 1.
    pub marks: bool,
}

impl Sealing {
    /// One of which nothing is in the log yet.
    pub(super) fn new(pages: Vec<(u32, u32)>, database_pages: u32, last_frame: u32) -> Sealing {
        Sealing {
            checks: Vec::with_capacity(pages.len()),
            pages,
            next: 0,
            database_pages,
            last_frame,
            transaction: None,
            first_sequence: None,
            brought: None,
            marks: false,
        }
    }
}

impl Volume {
    /// Make the check of the sealing transaction's next page; `false` if all are made.
    ///
    /// # Panics
    /// If nothing is being sealed.
    pub fn check_sealing(&mut self) -> bool {
        let sealing = self.sealing.as_mut().expect("something is being sealed");
        let Some(&(_, frame)) = sealing.pages.get(sealing.checks.len()) else { return false };
        let mut page = [0; PAGE_BYTES];
        let there = self.wal.copy_from_memory(Volume::frame_page_offset(frame), &mut page);
        sealing.checks.push(there.then(|| page_check(&page)));
        true
    }
}
