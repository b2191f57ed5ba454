//! Marks on their way: put into page 1 as SQLite writes it to the WAL, and read from wherever it is.
//!
//! SQLite's checksum in the frame's header is of the page without its mark. It looks at checksums only
//! when it recovers a WAL that it did not write, and ours begin empty with each volume.

use std::ffi::c_int;

use rusqlite::ffi;

use super::Role;
use super::extents::read_extent;
use super::main_file::read_page;
use crate::fiber::with_volume;
use crate::page::{self, Mark, PAGE_BYTES};
use crate::volume::{FRAME_BYTES, FRAME_HEADER_BYTES, Volume, WAL_HEADER_BYTES};

/// The page as it is to be written, if these bytes of the WAL are page 1 and its transaction leaves a mark.
pub(super) fn marked(offset: u64, bytes: &[u8]) -> Option<[u8; PAGE_BYTES]> {
    let at = offset.checked_sub(WAL_HEADER_BYTES + FRAME_HEADER_BYTES)?;
    let mut page: [u8; PAGE_BYTES] = bytes.try_into().ok()?;
    if !at.is_multiple_of(FRAME_BYTES) {
        return None;
    }
    let mark = with_volume(|volume| volume.mark_of_frame((at / FRAME_BYTES) as usize))?;
    page::set_mark(&mut page, mark);
    Some(page)
}

/// The mark in page 1 as of the last commit. Who asks holds the writer lock: nobody else starts the WAL
/// anew, and a checkpoint writes page 1 only from a frame that is read here instead.
pub(crate) fn read_mark() -> Result<Mark, c_int> {
    let mut page = [0; PAGE_BYTES];
    let whole = match with_volume(|volume| volume.page_one_frame()) {
        Some(frame) => read_extent(Role::Wal, Volume::frame_page_offset(frame), &mut page)?,
        None => read_page(1, &mut page)?,
    };
    if whole { Ok(page::mark(&page)) } else { Err(ffi::SQLITE_IOERR_SHORT_READ) }
}
