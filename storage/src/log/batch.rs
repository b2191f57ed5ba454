//! The batch being filled: page images in their final place, tables beside them.
//!
//! Images start right behind the header. When the tables outgrow it, the images move up by one
//! block: rare (a header block lists some 80 one-page commits), and cheaper than a second write.

use super::header::{
    HeaderFields, PageCheck, PageEntry, Record, encode, header_blocks, page_check,
};
use super::{Place, Sequence};
use crate::identity::TenantId;
use crate::io::{BLOCK_BYTES, Buffer};
use crate::sometimes;

/// A batch that takes pages.
pub struct Filling {
    /// Number that it will have.
    pub sequence: Sequence,
    /// Where it will be written; none while the next segment is not free yet.
    pub place: Option<Place>,
    /// Blocks it may have: the options' limit, or what its segment has left.
    pub blocks_max: usize,
    /// Transactions that end in it.
    pub commits: u32,
    /// A page did not fit: write it as soon as possible.
    pub full: bool,
    buffer: Option<Buffer>,
    records: Vec<Record>,
    pages: Vec<PageEntry>,
    header_blocks: usize,
}

/// What a header says of the log around it.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    pub redo_from: Sequence,
    pub catalogue_stamp: u64,
    pub previous: [u8; 32],
}

/// Which transaction a page belongs to, and where it stands in it.
#[derive(Clone, Copy, Debug)]
pub struct PagePosition {
    pub tenant: TenantId,
    pub txid: u64,
    pub database_pages: u32,
    /// Number of the next fragment, should this page begin one.
    pub fragment: u32,
    /// The transaction ends with this page.
    pub last: bool,
}

impl Filling {
    /// An empty batch that has no number and no place yet.
    pub fn new(batch_bytes_max: usize) -> Filling {
        let pages_max = batch_bytes_max / BLOCK_BYTES;
        Filling {
            sequence: Sequence(0),
            place: None,
            blocks_max: 0,
            commits: 0,
            full: false,
            buffer: Some(Buffer::zeroed(batch_bytes_max)),
            records: Vec::with_capacity(pages_max),
            pages: Vec::with_capacity(pages_max),
            header_blocks: 1,
        }
    }

    /// Begin a new batch in the same memory.
    pub fn reset(&mut self, sequence: Sequence, mut buffer: Buffer) {
        self.sequence = sequence;
        self.place = None;
        self.blocks_max = 0;
        self.commits = 0;
        self.full = false;
        buffer.set_len(buffer.capacity());
        self.buffer = Some(buffer);
        self.records.clear();
        self.pages.clear();
        self.header_blocks = 1;
    }

    /// No page is in it.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Bytes it would have if it were written now; 0 if it is empty.
    pub fn batch_bytes(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        ((self.header_blocks + self.pages.len()) * BLOCK_BYTES) as u64
    }

    /// Whether the page at `position` would extend the newest record rather than begin one. The
    /// fragment's number tells a transaction from an abandoned one with the same id.
    pub fn continues(&self, position: &PagePosition) -> bool {
        self.records.last().is_some_and(|record| {
            let same = record.tenant == position.tenant && record.txid == position.txid;
            same && !record.last && record.fragment + 1 == position.fragment
        })
    }

    /// Whether one more page fits, as a record of its own if `new_record`.
    pub fn fits(&self, new_record: bool) -> bool {
        let records = self.records.len() + usize::from(new_record);
        let pages = self.pages.len() + 1;
        self.place.is_some() && header_blocks(records, pages) + pages <= self.blocks_max
    }

    /// Add one page that fits, of this check. Returns whether it began a new record.
    pub fn push(
        &mut self,
        position: &PagePosition,
        number: u32,
        image: &[u8],
        check: PageCheck,
    ) -> bool {
        let new_record = !self.continues(position);
        assert!(self.fits(new_record));
        assert_eq!(image.len(), BLOCK_BYTES);
        debug_assert_eq!(check, page_check(image), "the check is this image's");
        if new_record {
            self.records.push(Record {
                tenant: position.tenant,
                txid: position.txid,
                fragment: position.fragment,
                page_count: 0,
                database_pages: position.database_pages,
                last: false,
            });
        }
        let record = self.records.last_mut().expect("a page belongs to a record");
        record.page_count += 1;
        record.last = position.last;
        self.commits += u32::from(position.last);
        self.pages.push(PageEntry { number, check });
        self.make_room_for_header();
        let end = (self.header_blocks + self.pages.len()) * BLOCK_BYTES;
        let buffer = self.buffer.as_mut().expect("a filling batch has its buffer");
        buffer[end - BLOCK_BYTES..end].copy_from_slice(image);
        new_record
    }

    /// How many images lie before that of the page that was added last.
    pub fn newest(&self) -> usize {
        self.pages.len() - 1
    }

    fn make_room_for_header(&mut self) {
        let wanted = header_blocks(self.records.len(), self.pages.len());
        if wanted == self.header_blocks {
            return;
        }
        assert_eq!(wanted, self.header_blocks + 1);
        let start = self.header_blocks * BLOCK_BYTES;
        let images = (self.pages.len() - 1) * BLOCK_BYTES;
        let buffer = self.buffer.as_mut().expect("a filling batch has its buffer");
        buffer.copy_within(start..start + images, start + BLOCK_BYTES);
        self.header_blocks = wanted;
    }

    /// Write the header in front of the images, with what the log says in it: `sequence` and `place`
    /// are the batch's own. Returns the bytes to write, the header's length and its hash; `reset`
    /// must follow.
    pub fn seal(&mut self, said: Said) -> (Buffer, usize, [u8; 32]) {
        let place = self.place.expect("a batch is sealed where it has a place");
        if self.records.iter().any(|record| record.tenant != self.records[0].tenant) {
            sometimes!("a batch of several tenants");
        }
        if self.records.windows(2).any(|pair| pair[0].tenant == pair[1].tenant) {
            sometimes!("a batch with several transactions of one tenant");
        }
        if self.records.iter().any(|record| record.fragment > 0) {
            sometimes!("a transaction of several batches");
        }
        if self.records.is_empty() {
            sometimes!("an empty batch, to free a segment");
        }
        let Said { redo_from, catalogue_stamp, previous } = said;
        let sequence = self.sequence;
        let fields = HeaderFields { sequence, place, redo_from, catalogue_stamp, previous };
        let mut buffer = self.buffer.take().expect("a filling batch has its buffer");
        let hash = encode(&fields, &self.records, &self.pages, &mut buffer);
        let blocks = self.header_blocks + self.pages.len();
        assert!(blocks <= self.blocks_max);
        buffer.set_len(blocks * BLOCK_BYTES);
        (buffer, self.header_blocks * BLOCK_BYTES, hash)
    }
}
