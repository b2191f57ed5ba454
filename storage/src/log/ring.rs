//! The ring file: what the log's shape is, and a second copy of recent batch headers.
//!
//! ```text
//!     0  superblock, and the same again at 4096:
//!        0 magic ff ff ff ff 'M' 'Y' 'R' 'G'   8 version u32, 1   12 segment count u32
//!        16 segment bytes u64   24 zeros   4064 blake3 of bytes 0..4064
//!  8192  16 slots of 16 blocks; batch s has slot s % 16: its header, and right behind it the same
//!        again, in one write
//! ```
//!
//! The superblock's magic, version and hash stay where they are in every later format, so that an
//! older program can refuse a newer log by name.
//!
//! A slot can be read as long as one twin is intact, so no single fault makes it bad. A slot that
//! was ever written has other bytes than zeros in its blocks 0 and 1 (twins of one block, or a
//! longer header, whose last block is never only padding); so a zero block 0 or 1 and no intact
//! header mean that it was never written, or that two faults hit it.

use super::header::{Header, read_u32, read_u64, write_u32, write_u64};
use super::limits::{HEADER_BLOCKS_MAX, RING_SLOTS, RING_SLOTS_OFFSET, SLOT_BLOCKS, SLOT_BYTES};
use super::{LogOptions, Sequence};
use crate::io::{BLOCK_BYTES, Buffer};

const MAGIC: [u8; 8] = *b"\xff\xff\xff\xffMYRG";
const VERSION: u32 = 1;
const HASH_OFFSET: usize = BLOCK_BYTES - 32;

/// The log's shape as the disk has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Bytes of each segment file.
    pub segment_bytes: u64,
    /// Number of segment slots.
    pub segment_count: u32,
}

/// What reading a superblock said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuperblockRead {
    /// Intact, of our version.
    Intact(Superblock),
    /// Intact, of another version.
    Version(u32),
    /// Not intact.
    Damaged,
}

impl Superblock {
    /// The shape that the options ask for.
    pub fn of(options: &LogOptions) -> Superblock {
        Superblock { segment_bytes: options.segment_bytes, segment_count: options.segment_count }
    }

    /// Write it to the first block of `out`.
    pub fn write(&self, out: &mut [u8]) {
        let out = &mut out[..BLOCK_BYTES];
        out.fill(0);
        out[..8].copy_from_slice(&MAGIC);
        write_u32(out, 8, VERSION);
        write_u32(out, 12, self.segment_count);
        write_u64(out, 16, self.segment_bytes);
        let hash = blake3::hash(&out[..HASH_OFFSET]);
        out[HASH_OFFSET..].copy_from_slice(hash.as_bytes());
    }

    /// Read the ring's first two blocks: either twin will do.
    pub fn read(bytes: &[u8]) -> SuperblockRead {
        let twins = bytes.chunks_exact(BLOCK_BYTES).take(2).map(Superblock::read_one);
        let mut found = SuperblockRead::Damaged;
        for twin in twins {
            if found == SuperblockRead::Damaged {
                found = twin;
            }
        }
        found
    }

    /// Which of the ring's first two blocks hold no superblock: another write of it mends them.
    pub fn damaged_twins(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
        let twins = bytes.chunks_exact(BLOCK_BYTES).take(2).enumerate();
        twins
            .filter(|(_, twin)| Superblock::read_one(twin) == SuperblockRead::Damaged)
            .map(|(index, _)| index)
    }

    fn read_one(block: &[u8]) -> SuperblockRead {
        let hash = blake3::hash(&block[..HASH_OFFSET]);
        if block[..8] != MAGIC || block[HASH_OFFSET..] != *hash.as_bytes() {
            return SuperblockRead::Damaged;
        }
        let version = read_u32(block, 8);
        if version != VERSION {
            return SuperblockRead::Version(version);
        }
        SuperblockRead::Intact(Superblock {
            segment_bytes: read_u64(block, 16),
            segment_count: read_u32(block, 12),
        })
    }
}

/// What a ring slot holds.
#[derive(Clone, Debug)]
pub enum Slot {
    /// It was never written.
    Empty,
    /// The newest intact header in it.
    Holds(Box<Header>),
    /// It was written, and neither twin can be read.
    Bad,
}

impl Slot {
    /// Read slot `index` from its bytes.
    pub fn read(bytes: &[u8], index: usize) -> Slot {
        assert_eq!(bytes.len(), SLOT_BYTES);
        let mut newest: Option<Header> = None;
        for block in 0..=HEADER_BLOCKS_MAX {
            let Some(header) = Header::read(&bytes[block * BLOCK_BYTES..]) else {
                continue;
            };
            let sequence = header.fields.sequence;
            let newer = newest.as_ref().is_none_or(|held| held.fields.sequence < sequence);
            if slot_index(sequence) == index && newer {
                newest = Some(header);
            }
        }
        if let Some(header) = newest {
            return Slot::Holds(Box::new(header));
        }
        let zero = |block: usize| is_zero(&bytes[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES]);
        if zero(0) || zero(1) { Slot::Empty } else { Slot::Bad }
    }
}

/// Which slot a batch's copy goes to.
pub fn slot_index(sequence: Sequence) -> usize {
    (sequence.0 % RING_SLOTS as u64) as usize
}

/// Where a slot starts in the ring file.
pub fn slot_offset(index: usize) -> u64 {
    (RING_SLOTS_OFFSET + index * SLOT_BYTES) as u64
}

/// Fill `copy` with a header and its twin.
pub fn fill_copy(copy: &mut Buffer, header: &[u8]) {
    let bytes = header.len();
    assert!(bytes.is_multiple_of(BLOCK_BYTES) && bytes <= HEADER_BLOCKS_MAX * BLOCK_BYTES);
    assert!(2 * bytes <= SLOT_BLOCKS * BLOCK_BYTES);
    copy.set_len(2 * bytes);
    copy[..bytes].copy_from_slice(header);
    copy[bytes..].copy_from_slice(header);
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
