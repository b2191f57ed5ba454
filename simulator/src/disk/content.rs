//! Bytes of one file as copy-on-write blocks of 4 KiB.
//!
//! Absent blocks read as zeros. Blocks are shared between the view, the durable state and the
//! versions in between, so copying a whole disk costs one reference per block.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Bytes of one block.
pub(crate) const BLOCK: usize = storage::io::BLOCK_BYTES;

/// One block.
pub(crate) type Block = [u8; BLOCK];

/// The block that all reserved and unwritten space shares.
static ZEROS: LazyLock<Arc<Block>> = LazyLock::new(|| Arc::new([0; BLOCK]));

/// A file's bytes at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    blocks: BTreeMap<u64, Arc<Block>>,
    size_bytes: u64,
}

impl Content {
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Blocks that hold data or are reserved.
    pub fn block_count(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub fn has_block(&self, index: u64) -> bool {
        self.blocks.contains_key(&index)
    }

    /// One block, zeros if absent.
    pub fn block(&self, index: u64) -> Arc<Block> {
        self.blocks.get(&index).unwrap_or(&ZEROS).clone()
    }

    /// One block to change.
    pub fn block_mut(&mut self, index: u64) -> &mut Block {
        let block = self.blocks.entry(index).or_insert_with(|| ZEROS.clone());
        Arc::make_mut(block)
    }

    pub fn set_block(&mut self, index: u64, block: Arc<Block>) {
        self.blocks.insert(index, block);
    }

    /// Copy bytes from `offset` into `target`; returns how many there were before the end.
    pub fn read(&self, offset: u64, target: &mut [u8]) -> usize {
        let available = self.size_bytes.saturating_sub(offset);
        let count = available.min(target.len() as u64) as usize;
        let mut done = 0;
        while done < count {
            let position = offset + done as u64;
            let within = (position % BLOCK as u64) as usize;
            let step = (BLOCK - within).min(count - done);
            let target = &mut target[done..done + step];
            match self.blocks.get(&(position / BLOCK as u64)) {
                Some(block) => target.copy_from_slice(&block[within..within + step]),
                None => target.fill(0),
            }
            done += step;
        }
        count
    }

    /// Put bytes into one block, without touching the size.
    pub fn write_within(&mut self, index: u64, within: usize, bytes: &[u8]) {
        assert!(within + bytes.len() <= BLOCK);
        if bytes.len() == BLOCK {
            let block: Block = bytes.try_into().expect("a whole block");
            self.blocks.insert(index, Arc::new(block));
        } else {
            self.block_mut(index)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Reserve the blocks up to `size_bytes`, reading as zeros.
    pub fn reserve(&mut self, size_bytes: u64) {
        for index in 0..size_bytes.div_ceil(BLOCK as u64) {
            self.blocks.entry(index).or_insert_with(|| ZEROS.clone());
        }
    }

    /// How many blocks up to `size_bytes` are not there yet.
    pub fn missing_blocks(&self, size_bytes: u64) -> u64 {
        let wanted = size_bytes.div_ceil(BLOCK as u64);
        wanted - self.blocks.range(..wanted).count() as u64
    }

    /// Set the size. What lay beyond it is gone: it reads as zeros if the file grows again.
    pub fn set_size(&mut self, size_bytes: u64) {
        if size_bytes < self.size_bytes {
            let first_gone = size_bytes.div_ceil(BLOCK as u64);
            drop(self.blocks.split_off(&first_gone));
            let within = (size_bytes % BLOCK as u64) as usize;
            let last = size_bytes / BLOCK as u64;
            if within > 0 && self.blocks.contains_key(&last) {
                self.block_mut(last)[within..].fill(0);
            }
        }
        self.size_bytes = size_bytes;
    }

    /// Indexes of the blocks from `first` on.
    pub fn indexes_from(&self, first: u64) -> Vec<u64> {
        self.blocks.range(first..).map(|(index, _)| *index).collect()
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size_bytes as usize];
        let count = self.read(0, &mut bytes);
        assert_eq!(count, bytes.len());
        bytes
    }
}
