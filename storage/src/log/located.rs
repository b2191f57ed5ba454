//! Where the pages of some transactions come to lie, for who is going to read them in the log.
//!
//! A filling batch does not know where its images will be: they move up by a block when the tables in
//! front of them outgrow theirs. So a tracked transaction's pages are noted as they are pushed, by batch
//! and index, and get their places when the batch is sealed. A start finds the same places by reading the
//! headers (`replay`). What is read before the batch is durable may be anything: the caller waits.

use std::collections::BTreeMap;

use super::{PageLocation, Place, Sequence};
use crate::io::BLOCK_BYTES;

/// Pages of the transactions that are tracked, by the transactions' numbers.
#[derive(Debug, Default)]
pub struct Located {
    transactions: BTreeMap<u64, Vec<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u32,
    check: [u8; 16],
    at: At,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// In a batch that is being filled, behind so many other images.
    Filling(Sequence, usize),
    /// In this slot, at this offset.
    Sealed(u32, u64),
}

impl Located {
    /// Note the pages of this transaction from now on.
    pub fn track(&mut self, transaction: u64) {
        let known = self.transactions.insert(transaction, Vec::new());
        assert!(known.is_none(), "a transaction is tracked once");
    }

    /// The transaction's next page is the image behind `index` others in batch `sequence`.
    pub fn push(
        &mut self,
        transaction: u64,
        number: u32,
        check: [u8; 16],
        (sequence, index): (Sequence, usize),
    ) {
        if let Some(entries) = self.transactions.get_mut(&transaction) {
            entries.push(Entry { number, check, at: At::Filling(sequence, index) });
        }
    }

    /// Batch `sequence` is sealed: it lies in this slot at this place, and its header has so many blocks.
    pub fn seal(&mut self, sequence: Sequence, slot: u32, place: Place, header_blocks: usize) {
        for entry in self.transactions.values_mut().flatten() {
            if let At::Filling(filling, index) = entry.at
                && filling == sequence
            {
                let bytes = ((header_blocks + index) * BLOCK_BYTES) as u64;
                entry.at = At::Sealed(slot, place.offset + bytes);
            }
        }
    }

    /// Track the transaction no more: where its pages are, in their order, if all its batches are sealed.
    pub fn take(&mut self, transaction: u64) -> Option<BTreeMap<u32, PageLocation>> {
        let entries = self.transactions.remove(&transaction)?;
        let located = entries.into_iter().map(|Entry { number, check, at }| match at {
            At::Sealed(slot, offset) => Some((number, PageLocation { slot, offset, check })),
            At::Filling(..) => None,
        });
        located.collect()
    }
}
