//! Pages of a tenant file: the checked tail, and the page of an empty database.
//!
//! A page has 4096 bytes; SQLite uses the first 4072, the last 24 are reserved bytes of the file
//! format (header offset 20) and ours:
//!
//! ```text
//! 0     4072  SQLite's part
//! 4072  8     stamp: transaction id of the checkpoint that wrote the page, little endian
//! 4080  16    first 16 bytes of blake3, keyed with tenant id and page number, over bytes 0..4080
//! ```
//!
//! Page 1 has one thing more of ours: a *mark*, 16 bytes at 72, among those that SQLite reserves and
//! never looks at (file format, section 1.3: 72..92, zeros in every file of its own). See `sqlite/mark.rs`.
//!
//! The tail is set when a page is written to the file and checked when it is read from it: bit
//! rot, a page of another tenant and a page at the wrong place are all found.

use crate::identity::TenantId;

/// Bytes of a page; SQLite's page size in every file of ours.
pub const PAGE_BYTES: usize = 4096;
/// Reserved bytes at the end of each page.
pub const TAIL_BYTES: usize = 24;
/// Bytes of a page that SQLite uses.
pub const USABLE_BYTES: usize = PAGE_BYTES - TAIL_BYTES;
const CHECKED_BYTES: usize = USABLE_BYTES + 8;
/// Bytes of the check in a page's tail.
pub const CHECK_BYTES: usize = PAGE_BYTES - CHECKED_BYTES;

/// What a transaction may leave in page 1 of its database, for whoever asks later whether it was
/// committed. Zeros: nothing was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub [u8; MARK_BYTES]);

/// Bytes of a mark.
pub const MARK_BYTES: usize = 16;
const MARK_OFFSET: usize = 72;

const _: () = assert!(MARK_OFFSET + MARK_BYTES <= 92, "what SQLite reserves ends there");

/// The mark in page 1 of a database.
#[must_use]
pub fn mark(page_one: &[u8; PAGE_BYTES]) -> Mark {
    let bytes = &page_one[MARK_OFFSET..MARK_OFFSET + MARK_BYTES];
    Mark(bytes.try_into().expect("16 bytes"))
}

/// Put a mark into page 1; the default one makes it a page as SQLite writes it.
pub fn set_mark(page_one: &mut [u8; PAGE_BYTES], mark: Mark) {
    page_one[MARK_OFFSET..MARK_OFFSET + MARK_BYTES].copy_from_slice(&mark.0);
}

const _: () = assert!(PAGE_BYTES == crate::io::BLOCK_BYTES, "a page is a unit of direct I/O");
const _: () = assert!(USABLE_BYTES >= 480, "SQLite's minimum of usable bytes");

fn check(tenant: TenantId, page_number: u32, page: &[u8]) -> [u8; CHECK_BYTES] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&tenant.0.to_le_bytes());
    key[8..12].copy_from_slice(&page_number.to_le_bytes());
    key[12..].copy_from_slice(b"myriad page tail v1\0");
    let hash = blake3::keyed_hash(&key, &page[..CHECKED_BYTES]);
    hash.as_bytes()[..CHECK_BYTES].try_into().expect("16 of 32 bytes")
}

/// Set the tail of a page that is about to be written to the tenant's file.
pub fn set_tail(tenant: TenantId, page_number: u32, stamp: u64, page: &mut [u8]) {
    assert!(page.len() == PAGE_BYTES);
    assert!(page_number > 0);
    page[USABLE_BYTES..CHECKED_BYTES].copy_from_slice(&stamp.to_le_bytes());
    let check = check(tenant, page_number, page);
    page[CHECKED_BYTES..].copy_from_slice(&check);
}

/// Check the tail of a page that was read from the tenant's file; gives its stamp.
#[must_use]
pub fn verify_tail(tenant: TenantId, page_number: u32, page: &[u8]) -> Option<u64> {
    assert!(page.len() == PAGE_BYTES);
    if page[CHECKED_BYTES..] != check(tenant, page_number, page) {
        return None;
    }
    let stamp = page[USABLE_BYTES..CHECKED_BYTES].try_into().expect("8 bytes");
    Some(u64::from_le_bytes(stamp))
}

/// The check in a page's tail: equal for equal pages of one place only.
///
/// # Panics
/// If these are not the bytes of a page.
#[must_use]
pub fn tail_check(page: &[u8]) -> [u8; CHECK_BYTES] {
    assert!(page.len() == PAGE_BYTES);
    page[CHECKED_BYTES..].try_into().expect("the rest of a page")
}

/// Pages of the database as its page 1 says (file format, section 1.3.7).
#[must_use]
pub fn database_pages(page_one: &[u8; PAGE_BYTES]) -> u32 {
    u32::from_be_bytes(page_one[28..32].try_into().expect("4 bytes"))
}

/// Page 1 of an empty database, as SQLite itself would write it (file format, sections 1.3 and
/// 1.6): an empty leaf of the schema table, WAL mode, 24 reserved bytes.
#[must_use]
pub fn empty_database() -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&(PAGE_BYTES as u16).to_be_bytes());
    page[18] = 2; // write version: WAL
    page[19] = 2; // read version: WAL
    page[20] = TAIL_BYTES as u8;
    page[21..24].copy_from_slice(&[64, 32, 32]); // payload fractions, fixed by the format
    page[24..28].copy_from_slice(&1u32.to_be_bytes()); // change counter
    page[28..32].copy_from_slice(&1u32.to_be_bytes()); // pages in the file
    page[44..48].copy_from_slice(&4u32.to_be_bytes()); // schema format
    page[56..60].copy_from_slice(&1u32.to_be_bytes()); // encoding: UTF-8
    page[92..96].copy_from_slice(&1u32.to_be_bytes()); // the page count is valid for change 1
    page[96..100].copy_from_slice(&3_054_000u32.to_be_bytes()); // written by, at least
    page[100] = 13; // leaf of a table tree, no cells
    page[105..107].copy_from_slice(&(USABLE_BYTES as u16).to_be_bytes()); // cell content starts
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_knows_tenant_place_and_every_bit() {
        let tenant = TenantId(7);
        let mut page = empty_database();
        set_tail(tenant, 1, 42, &mut page);
        assert_eq!(verify_tail(tenant, 1, &page), Some(42));
        assert_eq!(verify_tail(TenantId(8), 1, &page), None);
        assert_eq!(verify_tail(tenant, 2, &page), None);
        for bit in (0..PAGE_BYTES * 8).step_by(97) {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify_tail(tenant, 1, &page), None, "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
