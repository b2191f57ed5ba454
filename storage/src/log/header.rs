//! The batch header: its bytes, and the proof that they are whole.
//!
//! Integers are little-endian. `hash` covers every other byte of the header, padding included.
//!
//! ```text
//!   0  magic            ff ff ff ff 'M' 'Y' 'L' 'G'
//!   8  version          u32, 1
//!  12  header blocks    u32, 1..=8
//!  16  sequence         u64, from 1
//!  24  segment number   u64, from 0; it lies in slot `number % segment_count`
//!  32  offset           u64, of this header in its segment
//!  40  redo_from        u64: batches below it are not needed any more
//!  48  record count     u32
//!  52  page count       u32
//!  56  catalogue stamp  u64: what page 1 of the catalogue's file carries at least (F10)
//!  64  previous         hash of the previous batch's header, zeros for sequence 1
//!  96  hash             blake3 of bytes 0..96 and 128..end
//! 128  records          32 bytes each: tenant u64, txid u64, fragment u32, page count u32,
//!                       database pages u32, flags u32 (bit 0: the transaction's last fragment)
//!   …  pages            20 bytes each, in the order of the records: number u32, then the first
//!                       16 bytes of the page image's blake3
//!   …  zeros up to a whole block; then the page images, one block each, in the same order
//! ```
//!
//! Why page images start at blocks and carry no bytes of ours: a header is looked for at block
//! starts, and no SQLite page can begin with the magic: read as the number of the next overflow or
//! freelist page it is 2^32 - 1, one more than SQLite's greatest; as a b-tree flag or pointer-map
//! type it does not exist. So no tenant can forge a header inside its pages.

use super::limits::{
    BATCH_BYTES_LIMIT, HEADER_BLOCKS_MAX, HEADER_FIXED_BYTES, PAGE_ENTRY_BYTES, RECORD_ENTRY_BYTES,
};
use super::{Place, Sequence};
use crate::identity::TenantId;
use crate::io::BLOCK_BYTES;
use std::fmt::Write;

/// First bytes of every header.
pub const MAGIC: [u8; 8] = *b"\xff\xff\xff\xffMYLG";

/// The format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

const HASH_OFFSET: usize = 96;
const FLAG_LAST: u32 = 1;

/// One fragment of one transaction, as the header lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose pages they are.
    pub tenant: TenantId,
    /// The tenant's transaction.
    pub txid: u64,
    /// Which fragment of the transaction, from 0.
    pub fragment: u32,
    /// Pages in this fragment.
    pub page_count: u32,
    /// Pages of the database after the commit.
    pub database_pages: u32,
    /// The transaction ends here: with this fragment it is committed.
    pub last: bool,
}

/// First 16 bytes of the blake3 of a page image.
pub type PageCheck = [u8; 16];

/// One page, as the header lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEntry {
    /// SQLite's page number, from 1.
    pub number: u32,
    /// Of its image.
    pub check: PageCheck,
}

/// What a header says besides its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// Number of the batch.
    pub sequence: Sequence,
    /// Where the batch starts.
    pub place: Place,
    /// Batches below this one are superseded.
    pub redo_from: Sequence,
    /// Stamp of the catalogue's last checkpoint: page 1 of its file carries this one or a newer.
    pub catalogue_stamp: u64,
    /// Hash of the header before.
    pub previous: [u8; 32],
}

/// An intact header, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The fixed part.
    pub fields: HeaderFields,
    /// Its own hash.
    pub hash: [u8; 32],
    /// Fragments, in the order of their pages.
    pub records: Vec<Record>,
    /// Pages, in the order of their images.
    pub pages: Vec<PageEntry>,
}

impl Header {
    /// Blocks of the header itself.
    #[must_use]
    pub fn header_blocks(&self) -> usize {
        header_blocks(self.records.len(), self.pages.len())
    }

    /// Blocks of the whole batch.
    #[must_use]
    pub fn batch_blocks(&self) -> usize {
        self.header_blocks() + self.pages.len()
    }

    /// Write the header to the first [`Header::header_blocks`] blocks of `out`.
    pub fn write(&self, out: &mut [u8]) {
        let hash = encode(&self.fields, &self.records, &self.pages, out);
        assert_eq!(hash, self.hash);
    }

    /// The intact header at the start of `bytes`, if there is one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Header> {
        if bytes.len() < BLOCK_BYTES || bytes[..8] != MAGIC {
            return None;
        }
        let blocks = read_u32(bytes, 12) as usize;
        if read_u32(bytes, 8) != FORMAT_VERSION || !(1..=HEADER_BLOCKS_MAX).contains(&blocks) {
            return None;
        }
        let bytes = bytes.get(..blocks * BLOCK_BYTES)?;
        let hash: [u8; 32] = bytes[HASH_OFFSET..HASH_OFFSET + 32].try_into().ok()?;
        if header_hash(bytes) != hash {
            return None;
        }
        Header::take_apart(bytes, hash, blocks)
    }

    /// The hash holds, so our own code wrote these bytes; checked all the same, before any length
    /// or position in them is believed.
    fn take_apart(bytes: &[u8], hash: [u8; 32], blocks: usize) -> Option<Header> {
        let record_count = read_u32(bytes, 48) as usize;
        let page_count = read_u32(bytes, 52) as usize;
        let pages_max = BATCH_BYTES_LIMIT / BLOCK_BYTES;
        if record_count > page_count || page_count > pages_max {
            return None;
        }
        if header_blocks(record_count, page_count) != blocks || blocks + page_count > pages_max {
            return None;
        }
        let fields = HeaderFields {
            sequence: Sequence(read_u64(bytes, 16)),
            place: Place { segment: read_u64(bytes, 24), offset: read_u64(bytes, 32) },
            redo_from: Sequence(read_u64(bytes, 40)),
            catalogue_stamp: read_u64(bytes, 56),
            previous: bytes[64..96].try_into().ok()?,
        };
        let aligned = fields.place.offset.is_multiple_of(BLOCK_BYTES as u64);
        if fields.sequence.0 == 0 || fields.redo_from > fields.sequence || !aligned {
            return None;
        }
        let pages_offset = HEADER_FIXED_BYTES + record_count * RECORD_ENTRY_BYTES;
        let records: Vec<Record> =
            (0..record_count).map(|index| read_record(bytes, index)).collect();
        let pages: Vec<PageEntry> = (0..page_count)
            .map(|index| read_page(bytes, pages_offset + index * PAGE_ENTRY_BYTES))
            .collect();
        let listed: u64 = records.iter().map(|record| u64::from(record.page_count)).sum();
        if listed != page_count as u64 || pages.iter().any(|page| page.number == 0) {
            return None;
        }
        Some(Header { fields, hash, records, pages })
    }
}

/// Blocks of a header with so many records and pages.
#[must_use]
pub fn header_blocks(record_count: usize, page_count: usize) -> usize {
    let bytes =
        HEADER_FIXED_BYTES + record_count * RECORD_ENTRY_BYTES + page_count * PAGE_ENTRY_BYTES;
    bytes.div_ceil(BLOCK_BYTES)
}

/// Write a header to the start of `out`, padding included, and return its hash.
pub fn encode(
    fields: &HeaderFields,
    records: &[Record],
    pages: &[PageEntry],
    out: &mut [u8],
) -> [u8; 32] {
    let blocks = header_blocks(records.len(), pages.len());
    assert!(blocks <= HEADER_BLOCKS_MAX);
    let out = &mut out[..blocks * BLOCK_BYTES];
    out.fill(0);
    out[..8].copy_from_slice(&MAGIC);
    write_u32(out, 8, FORMAT_VERSION);
    write_u32(out, 12, blocks as u32);
    write_u64(out, 16, fields.sequence.0);
    write_u64(out, 24, fields.place.segment);
    write_u64(out, 32, fields.place.offset);
    write_u64(out, 40, fields.redo_from.0);
    write_u32(out, 48, records.len() as u32);
    write_u32(out, 52, pages.len() as u32);
    write_u64(out, 56, fields.catalogue_stamp);
    out[64..96].copy_from_slice(&fields.previous);
    let mut offset = HEADER_FIXED_BYTES;
    for record in records {
        write_record(out, offset, record);
        offset += RECORD_ENTRY_BYTES;
    }
    for page in pages {
        write_u32(out, offset, page.number);
        out[offset + 4..offset + PAGE_ENTRY_BYTES].copy_from_slice(&page.check);
        offset += PAGE_ENTRY_BYTES;
    }
    let hash = header_hash(out);
    out[HASH_OFFSET..HASH_OFFSET + 32].copy_from_slice(&hash);
    hash
}

/// The check of a page image.
#[must_use]
pub fn page_check(page: &[u8]) -> PageCheck {
    let mut check = [0; 16];
    check.copy_from_slice(&blake3::hash(page).as_bytes()[..16]);
    check
}

/// Whether the bytes claim to be the header of this batch, intact or not. For messages only.
pub fn claims(bytes: &[u8], sequence: Sequence) -> bool {
    bytes.len() >= BLOCK_BYTES && bytes[..8] == MAGIC && read_u64(bytes, 16) == sequence.0
}

/// A batch in words, one line and one line per record: for people who look into a log.
///
/// `bytes` starts at a block that may hold a header; pages that it does not reach are not judged.
#[must_use]
pub fn describe_batch(bytes: &[u8]) -> String {
    let Some(header) = Header::read(bytes) else {
        return String::from("no intact header\n");
    };
    let fields = &header.fields;
    let mut text = format!(
        "batch {} segment {} offset {} blocks {} records {} pages {} redo_from {} hash {}\n",
        fields.sequence.0,
        fields.place.segment,
        fields.place.offset,
        header.batch_blocks(),
        header.records.len(),
        header.pages.len(),
        fields.redo_from.0,
        short_hex(&header.hash),
    );
    let mut offset = header.header_blocks() * BLOCK_BYTES;
    let mut pages = header.pages.iter();
    for record in &header.records {
        let mut bad = 0;
        let mut unread = 0;
        for page in pages.by_ref().take(record.page_count as usize) {
            match bytes.get(offset..offset + BLOCK_BYTES) {
                None => unread += 1,
                Some(image) if page_check(image) != page.check => bad += 1,
                Some(_) => {}
            }
            offset += BLOCK_BYTES;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  tenant {} txid {} fragment {}{} pages {} database_pages {} bad {bad} \
             unread {unread}",
            record.tenant.0,
            record.txid,
            record.fragment,
            if record.last { " last" } else { "" },
            record.page_count,
            record.database_pages,
        );
    }
    text
}

fn short_hex(bytes: &[u8]) -> String {
    bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header_hash(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..HASH_OFFSET]);
    hasher.update(&bytes[HEADER_FIXED_BYTES..]);
    *hasher.finalize().as_bytes()
}

fn write_record(out: &mut [u8], offset: usize, record: &Record) {
    write_u64(out, offset, record.tenant.0);
    write_u64(out, offset + 8, record.txid);
    write_u32(out, offset + 16, record.fragment);
    write_u32(out, offset + 20, record.page_count);
    write_u32(out, offset + 24, record.database_pages);
    write_u32(out, offset + 28, if record.last { FLAG_LAST } else { 0 });
}

fn read_record(bytes: &[u8], index: usize) -> Record {
    let offset = HEADER_FIXED_BYTES + index * RECORD_ENTRY_BYTES;
    Record {
        tenant: TenantId(read_u64(bytes, offset)),
        txid: read_u64(bytes, offset + 8),
        fragment: read_u32(bytes, offset + 16),
        page_count: read_u32(bytes, offset + 20),
        database_pages: read_u32(bytes, offset + 24),
        last: read_u32(bytes, offset + 28) & FLAG_LAST != 0,
    }
}

fn read_page(bytes: &[u8], offset: usize) -> PageEntry {
    let mut check = [0; 16];
    check.copy_from_slice(&bytes[offset + 4..offset + PAGE_ENTRY_BYTES]);
    PageEntry { number: read_u32(bytes, offset), check }
}

pub(super) fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(value)
}

pub(super) fn read_u64(bytes: &[u8], offset: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(value)
}

pub(super) fn write_u32(out: &mut [u8], offset: usize, value: u32) {
    out[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn write_u64(out: &mut [u8], offset: usize, value: u64) {
    out[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}
