//! A tenant's file made at once, of pages that come from elsewhere: as a checkpoint writes them, without
//! the commit log and without SQLite. Whoever makes it sees to it that nobody finds the tenant before, and
//! that the file is removed if it does not become whole.

use rusqlite::ffi;

use super::checkpoint::{begin_checkpoint, checkpoint_page, end_checkpoint, sync_main};
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
