//! A database file of SQLite's: the pages of a snapshot one after the other, their reserved bytes zeros.
//!
//! Two numbers of its header differ from what is here. The versions of reading and writing say a rollback
//! journal and not a write-ahead log, so that it opens where nothing can be written beside it; and the
//! size is that of the snapshot, for the change that the file says it is of (file format, section 1.3).

use storage::page::{Mark, PAGE_BYTES, set_mark};

use super::{ExportError, Parts};
use crate::engine::begin_snapshot;
use crate::session::PooledConnection;

/// Pages of a part.
const PART_PAGES: u32 = (super::PART_BYTES / PAGE_BYTES) as u32;

pub(super) fn write(
    pooled: &mut PooledConnection,
    parts: &mut Parts<'_>,
) -> Result<(), ExportError> {
    let snapshot = begin_snapshot(pooled)?;
    parts.set_pages(snapshot.pages());
    let mut first = 1;
    while first <= snapshot.pages() {
        let count = PART_PAGES.min(snapshot.pages() - first + 1);
        let start = parts.out.len();
        parts.out.resize(start + count as usize * PAGE_BYTES, 0);
        let pages = &mut parts.out[start..];
        snapshot.read(first, pages).map_err(crate::engine::unreadable)?;
        if first == 1 {
            set_header(pages, snapshot.pages());
        }
        parts.flush_if_full()?;
        first += count;
    }
    Ok(())
}

fn set_header(page: &mut [u8], pages: u32) {
    page[18..20].fill(1);
    // What a fleet job has left there is nobody else's.
    if let Some(first) = page.first_chunk_mut() {
        set_mark(first, Mark::default());
    }
    let change: [u8; 4] = page[24..28].try_into().expect("4 bytes");
    page[28..32].copy_from_slice(&pages.to_be_bytes());
    page[92..96].copy_from_slice(&change);
}
