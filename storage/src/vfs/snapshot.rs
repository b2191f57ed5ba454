//! A database as it is at one moment, page by page, past SQLite: for copies and files of it.
//!
//! A connection holds SQLite's read lock, under which every frame of the WAL up to the lock's mark stays
//! where it is, and a checkpoint brings no later one into the file (SQLite's `wal.c`, on `aReadMark`). So
//! a page is its last frame up to the mark; else where recovery found it; else in the file. With the mark
//! 0 the file has everything and stays as it is.
//!
//! Pages that were never written are holes in the file: the page of the lock bytes at 1 GiB. They are
//! zeros, and no damage.

use std::ffi::c_int;

use rusqlite::ffi;

use super::extents::{read_extent, read_file};
use super::main_file::{ensure_main_open, read_page, read_page_from_file};
use super::{READ_LOCKS, Role};
use crate::fiber::{self, with_volume};
use crate::ledger::Booking;
use crate::page::{self, PAGE_BYTES, USABLE_BYTES};
use crate::volume::{PageSource, Volume};

/// The first of the locks of `aReadMark`.
const FIRST_READ_LOCK: u32 = READ_LOCKS.trailing_zeros();

/// See the head of the file. Good for as long as the transaction of the connection that it is of.
pub struct Snapshot {
    pages: u32,
    /// Frames of the WAL that count.
    mark: u32,
    /// Pages that are in the WAL, and the frame of each, in the order of pages.
    frames: Vec<(u32, u32)>,
    _booking: Booking,
}

impl Snapshot {
    /// What a connection may rely on that holds these locks, shared, in a transaction that has begun to
    /// read. `file_pages` is what it sees if all is in the file. (With all of SQLite's five marks in use
    /// a connection sees more than its mark says, and this shows less: see [`Snapshot::mark`].)
    pub(crate) fn of(shared: u8, file_pages: u32) -> Result<Snapshot, c_int> {
        let held = shared & READ_LOCKS;
        if held.count_ones() != 1 {
            return Err(ffi::SQLITE_MISUSE);
        }
        let mark = with_volume(|volume| volume.read_mark(held.trailing_zeros() - FIRST_READ_LOCK));
        let pages = match mark {
            0 => file_pages,
            mark => with_volume(|volume| volume.pages_at(mark)).ok_or(ffi::SQLITE_CORRUPT)?,
        };
        let mut booking = Booking::on(fiber::account());
        if !booking.grow_to(u64::from(mark) * size_of::<(u32, u32)>() as u64) {
            return Err(ffi::SQLITE_NOMEM);
        }
        let frames = with_volume(|volume| volume.last_frames(mark, pages));
        let frames = frames.ok_or(ffi::SQLITE_CORRUPT)?;
        Ok(Snapshot { pages, mark, frames, _booking: booking })
    }

    /// The last frame of the WAL that is in it; 0: it is the file, which has all that there was.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Pages of the database.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// The pages from `first` on, as many as `out` has room for, their reserved bytes zeros.
    ///
    /// # Errors
    /// An SQLite result code. What is damaged is noted in the volume.
    ///
    /// # Panics
    /// If these are not whole pages of the database.
    pub fn read(&self, first: u32, out: &mut [u8]) -> Result<(), i32> {
        assert!(first > 0 && out.len().is_multiple_of(PAGE_BYTES));
        let count = (out.len() / PAGE_BYTES) as u32;
        assert!(first + count - 1 <= self.pages);
        ensure_main_open()?;
        let mut number = first;
        while number < first + count {
            let rest = &mut out[(number - first) as usize * PAGE_BYTES..];
            let in_file = self.run_in_file(number, first + count - number);
            let pages = match in_file {
                0 => {
                    self.read_one(number, &mut rest[..PAGE_BYTES])?;
                    1
                }
                pages => {
                    read_run(number, &mut rest[..pages as usize * PAGE_BYTES])?;
                    pages
                }
            };
            number += pages;
        }
        for page in out.chunks_exact_mut(PAGE_BYTES) {
            page[USABLE_BYTES..].fill(0);
        }
        Ok(())
    }

    fn frame_of(&self, number: u32) -> Option<u32> {
        let found = self.frames.binary_search_by_key(&number, |&(number, _)| number);
        found.ok().map(|index| self.frames[index].1)
    }

    /// How many of the pages from here on, one after the other, are in the file.
    fn run_in_file(&self, first: u32, count: u32) -> u32 {
        let in_file = |&number: &u32| {
            self.frame_of(number).is_none()
                && with_volume(|volume| volume.page_source(number)) == PageSource::File
        };
        (first..first + count).take_while(in_file).count() as u32
    }

    fn read_one(&self, number: u32, out: &mut [u8]) -> Result<(), c_int> {
        fiber::on_call();
        match self.frame_of(number) {
            Some(frame) => {
                let there = read_extent(Role::Wal, Volume::frame_page_offset(frame), out)?;
                if there { Ok(()) } else { Err(ffi::SQLITE_IOERR_SHORT_READ) }
            }
            None => {
                let page = out.first_chunk_mut().expect("it is a page");
                read_page(number, page).map(drop)
            }
        }
    }
}

/// Pages of the file in one read.
fn read_run(first: u32, out: &mut [u8]) -> Result<(), c_int> {
    let (file, tenant) = with_volume(|volume| (volume.main.handle, volume.tenant()));
    let file = file.ok_or(ffi::SQLITE_IOERR_READ)?;
    let moved = read_file(file, u64::from(first - 1) * PAGE_BYTES as u64, out)?;
    out[moved..].fill(0);
    for (number, page) in (first..).zip(out.chunks_exact_mut(PAGE_BYTES)) {
        fiber::on_call();
        let whole = page::verify_tail(tenant, number, page).is_some();
        let hole = || number > 1 && page.iter().all(|byte| *byte == 0);
        if !whole && !hole() {
            // Once more, and then it is damage.
            let page = page.first_chunk_mut().expect("it is a page");
            read_page_from_file(number, page)?;
        }
    }
    Ok(())
}
