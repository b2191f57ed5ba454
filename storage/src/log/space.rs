//! How much log space is left, and who may reserve it. Pure arithmetic.
//!
//! The promise: what was reserved can be appended, whatever else happens. A transaction of n pages
//! costs at most n blocks of images, n table entries, and headers. The log writes a batch early
//! (before it is full) only if a transaction ends in it, so each transaction pays for one header;
//! a full batch's header is shared by the pages that a full batch holds at least. What a segment
//! may lose is taken off its size (`SEGMENT_OVERHEAD_BYTES`).

use super::header::header_blocks;
use super::limits::{
    HEADER_CHARGE_BYTES, LAST_BYTES, PAGE_ENTRY_BYTES, RECORD_ENTRY_BYTES, SEGMENT_OVERHEAD_BYTES,
};
use super::{LogOptions, Place};
use crate::io::BLOCK_BYTES;

/// Who reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A tenant's transaction: leaves the last reserve alone.
    Tenant,
    /// The catalogue and checkpoints: what a full log needs to drain.
    System,
}

/// There is not enough log space for a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFull {
    /// Bytes used, reserved or lost to overhead, of `capacity`.
    pub used: u64,
    /// Bytes that this class may reserve in an empty log. If `wanted` is more, it never fits.
    pub capacity: u64,
    /// Bytes asked for.
    pub wanted: u64,
    /// The disk has no room: a write waits for it, or a segment file could not be made, so that the
    /// log is smaller than its options say.
    pub disk_refused: bool,
}

impl std::fmt::Display for LogFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LogFull { used, capacity, wanted, .. } = self;
        write!(f, "the commit log is full: {used} of {capacity} bytes used, {wanted} more wanted")?;
        if self.disk_refused {
            write!(f, "; the disk refused a write or a new log segment")?;
        }
        Ok(())
    }
}

impl std::error::Error for LogFull {}

/// Bytes that a transaction of so many pages takes by itself: its record, and image and table entry of
/// each page. Not its share of batch headers, which depends on who writes at the same moment.
#[must_use]
pub fn transaction_cost_bytes(page_count: u32) -> u64 {
    let page_bytes = (BLOCK_BYTES + PAGE_ENTRY_BYTES) as u64;
    RECORD_ENTRY_BYTES as u64 + u64::from(page_count) * page_bytes
}

/// Fewest pages in a batch that was sealed because the next page did not fit.
fn full_batch_pages(options: &LogOptions) -> u64 {
    let blocks = options.batch_bytes_max / BLOCK_BYTES;
    let mut pages = blocks - 1;
    while header_blocks(pages, pages) + pages > blocks {
        pages -= 1;
    }
    assert!(pages > 0);
    pages as u64
}

/// Most bytes that one page can cost, its share of a full batch's header included.
pub fn page_charge(options: &LogOptions) -> u64 {
    let entries = (RECORD_ENTRY_BYTES + PAGE_ENTRY_BYTES) as u64;
    BLOCK_BYTES as u64 + entries + HEADER_CHARGE_BYTES.div_ceil(full_batch_pages(options))
}

/// Most bytes that a transaction of so many pages can cost, each of which costs `page_charge` at most.
pub fn transaction_bytes(page_charge: u64, page_count: u32) -> u64 {
    HEADER_CHARGE_BYTES + u64::from(page_count) * page_charge
}

/// Bytes that can be reserved in an empty log, by [`Class::System`].
pub fn usable_bytes(options: &LogOptions) -> u64 {
    let segment = options.segment_bytes - SEGMENT_OVERHEAD_BYTES;
    u64::from(options.segment_count) * segment - LAST_BYTES
}

/// Bytes that can be reserved from `place` on, with `segments_after` whole segments behind it.
pub fn free_bytes(options: &LogOptions, place: Place, segments_after: u64) -> u64 {
    assert!(place.offset <= options.segment_bytes);
    let rest = (options.segment_bytes - place.offset).saturating_sub(SEGMENT_OVERHEAD_BYTES);
    let whole = segments_after * (options.segment_bytes - SEGMENT_OVERHEAD_BYTES);
    (rest + whole).saturating_sub(LAST_BYTES)
}
