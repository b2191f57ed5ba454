//! A tenant made at once, of pages that come from elsewhere, without SQLite. Whoever makes it sees to it
//! that nobody finds the tenant before it is whole, and that what there is of it is removed if it does not
//! become that.
//!
//! **A file**, as a checkpoint writes it, without the commit log: [`begin_build`], [`build_pages`],
//! [`end_build`].
//!
//! **One transaction in the commit log**, without a file: [`build_in_log`], for few pages. It is sealed as any
//! commit is, out of the WAL image, which is emptied after it. The tenant is closed then: whoever opens it
//! again finds its pages where a start would find them (`Volume`'s overlay), and its first checkpoint makes
//! its file.

use rusqlite::ffi;

use super::Role;
use super::checkpoint::{begin_checkpoint, checkpoint_page, end_checkpoint, sync_main};
use super::extents::{truncate_extent, write_extent};
use crate::fiber::{self, Answer, Wait, suspend, with_volume};
use crate::page::PAGE_BYTES;
use crate::volume::Volume;

/// Pages after which what was written is synced and read back: as many checks are held until then, and as
/// much is with the disk when the commit log wants it.
const SYNC_PAGES: usize = 512;

/// Begin to make the file of the running fiber's tenant, which has none, and no commit. That the tenant is
/// being built is durable before: else a crash would leave a file that nobody knows, under an id that is
/// given again.
///
/// # Errors
/// An SQLite result code.
pub fn begin_build() -> Result<(), i32> {
    if !matches!(suspend(Wait::Durable), Answer::Ready) {
        return Err(ffi::SQLITE_IOERR_FSYNC);
    }
    with_volume(Volume::begin_build);
    begin_checkpoint()
}

/// The next pages: `bytes` from page `first` on.
///
/// # Errors
/// An SQLite result code; the file cannot become whole then.
pub fn build_pages(first: u32, bytes: &[u8]) -> Result<(), i32> {
    for (number, page) in (first..).zip(bytes.chunks_exact(PAGE_BYTES)) {
        fiber::on_call();
        checkpoint_page(number, page)?;
    }
    let written = with_volume(|volume| {
        volume.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.written.len())
    });
    if written >= SYNC_PAGES { sync_main() } else { Ok(()) }
}

/// All pages were given: make them durable and read back what was not yet. Then the file is whole.
///
/// # Errors
/// An SQLite result code.
pub fn end_build() -> Result<(), i32> {
    end_checkpoint(None)
}

/// Make the database of the running fiber's tenant, which has neither file nor commit, of these pages, from
/// the first on: they are one transaction in the commit log. `false` if the log has no room for it; then
/// nothing was done.
///
/// # Errors
/// An SQLite result code.
pub fn build_in_log(bytes: &[u8]) -> Result<bool, i32> {
    let pages = u32::try_from(bytes.len() / PAGE_BYTES).expect("they are few");
    match suspend(Wait::LogSpace { pages }) {
        Answer::Ready => with_volume(|volume| volume.reserved_pages = Some(pages)),
        Answer::Full | Answer::TimedOut => return Ok(false),
        _ => return Err(ffi::SQLITE_IOERR_FSYNC),
    }
    let written = write_frames(bytes);
    if written.is_ok() && !fiber::is_interrupted() {
        with_volume(|volume| volume.begin_logged_build(pages));
        super::append_sealing();
    }
    with_volume(Volume::release_reservation);
    // Nobody opens it before it was closed.
    let emptied = truncate_extent(Role::Wal, 0);
    written.and(emptied)?;
    match with_volume(|volume| volume.logged_build.is_some_and(|build| build.is_whole())) {
        true => Ok(true),
        false => Err(ffi::SQLITE_INTERRUPT),
    }
}

/// Put the pages where those of a commit are.
fn write_frames(bytes: &[u8]) -> Result<(), i32> {
    for (frame, page) in (0..).zip(bytes.chunks_exact(PAGE_BYTES)) {
        fiber::on_call();
        write_extent(Role::Wal, Volume::frame_page_offset(frame), page)?;
    }
    Ok(())
}
