//! The ways in which this disk goes wrong behind everyone's back.
//!
//! Fault model, per kind: what happens, how often, and what the server owes in return.
//!
//! | kind | what happens | how often | owed |
//! |---|---|---|---|
//! | rot-file, -log, -ring | a clean block gets a flipped bit, another byte, zeros, ones, or the block of another file or place | a rate per disk operation, and per crash | the tenants of those bytes right or fenced; the ring: nothing seen |
//! | latent-sector | a block answers EIO until it is written again | as rot | as rot |
//! | lost-write | a whole write succeeds and never reaches the medium | a rate per write | tenant file: found by read-back; log: found by the hash chain |
//! | misdirected-write | one block of a write lands on another block of the file, or on the same block of another file of its sort | a rate per write | as rot, of both places |
//! | misdirected-read | a read gets another block, once | a rate per read | nothing seen |
//! | page-evicted | a clean page leaves the page cache: reads get what the medium has | a rate per disk operation | as of what caused it |
//!
//! All kinds that stay together strike at most `damage_max` times in a world, under the rule of
//! `atlas.rs`. A damage is a mask over pristine bytes (`ledger.rs`).
//!
//! Outside of the model: unnamed files (SQLite's spill files carry no checksum that is looked at),
//! rot of bytes that wait in the page cache to be written, damage of names and sizes, memory, and
//! disks that lie about every sync.

use std::io;
use std::path::Path;
use std::sync::Arc;

use storage::io::FileId;

use super::atlas::{RING, SEGMENTS, TENANTS};
use super::content::{BLOCK, Block};
use super::ledger::Ledger;
use super::names::NodeId;
use super::{Node, SimulatedDisk};
use crate::draws::{Draws, Stream};
use crate::faults::FaultKind;

/// Batches among which rot of the log chooses: older ones are mostly superseded.
const ROT_BATCHES: usize = 12;

/// What becomes of a rotten block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// One bit flips; its number in the block.
    Bit(usize),
    /// One byte gets another value: its offset, and what it is changed by (not 0).
    Byte(usize, u8),
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// The bytes of another block of the disk: the file's place in the list of paths, and the block.
    Other(usize, u64),
}

impl SimulatedDisk {
    /// Every damage done so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How often something was damaged so far.
    pub(crate) fn damage_count(&self) -> u64 {
        self.ledger.strikes()
    }

    /// Switch all damage off: reads get what was written. Errors that a late sync still has to
    /// report are forgotten.
    pub fn heal(&mut self) {
        self.ledger.heal(None);
        self.late_errors.clear();
    }

    /// As [`SimulatedDisk::heal`], for one file.
    pub fn heal_path(&mut self, path: &Path) {
        if let Ok(node) = self.resolve(path) {
            self.ledger.heal(Some(node));
            self.late_errors.remove(&node);
        }
    }

    /// Write down that an operation on a path failed.
    pub(crate) fn hit_path(&mut self, path: &Path, kind: FaultKind, transient: bool) {
        self.ledger.hit(path.to_string_lossy().into_owned(), kind, transient);
    }

    /// Write down that an operation on an open file failed; files without a name have no entry.
    pub(crate) fn hit_file(&mut self, file: FileId, kind: FaultKind, transient: bool) {
        let node = self.description(file).node;
        if let Some(path) = self.path_of(node) {
            self.ledger.hit(path, kind, transient);
        }
    }

    // ---- rot ----

    /// Let one block of a file rot. Whether it did: the rule of `atlas.rs` may forbid it, there may
    /// be no such block, or it waits to be written.
    pub fn rot(&mut self, path: &Path, block: u64, rot: Rot) -> bool {
        let kind = match path.to_string_lossy().as_ref() {
            RING => FaultKind::RotRing,
            text if text.starts_with(SEGMENTS) => FaultKind::RotLog,
            _ => FaultKind::RotFile,
        };
        let Ok(node) = self.resolve(path) else { return false };
        let bytes = self.rotten(node, block, rot);
        self.spoil(kind, path, node, block, Some(bytes))
    }

    /// Let one block of a file be unreadable until it is written again. Whether it did.
    pub fn lose_sector(&mut self, path: &Path, block: u64) -> bool {
        let Ok(node) = self.resolve(path) else { return false };
        self.spoil(FaultKind::LatentSector, path, node, block, None)
    }

    fn spoil(
        &mut self,
        kind: FaultKind,
        path: &Path,
        node: NodeId,
        block: u64,
        bytes: Option<Arc<Block>>,
    ) -> bool {
        let Node::File(file) = &self.nodes[&node] else { return false };
        let durable = file.state.durable();
        let inside = block * (BLOCK as u64) < durable.size_bytes();
        let dirty = file.state.has_pending_block(block);
        if !inside || dirty || bytes.as_ref().is_some_and(|bytes| **bytes == *durable.block(block))
        {
            return false;
        }
        let damage = self.describe(kind, &path.to_string_lossy(), node, block);
        if self.ledger.is_masked(node, block) || !self.permits(node, &damage, false) {
            return false;
        }
        self.ledger.begin_strike();
        self.ledger.add(node, damage, bytes, false);
        true
    }

    fn rotten(&self, node: NodeId, block: u64, rot: Rot) -> Arc<Block> {
        let mut bytes = self.on_medium(node, block);
        match rot {
            Rot::Bit(bit) => Arc::make_mut(&mut bytes)[bit / 8 % BLOCK] ^= 1 << (bit % 8),
            Rot::Byte(offset, change) => Arc::make_mut(&mut bytes)[offset % BLOCK] ^= change,
            Rot::Zeros => bytes = Arc::new([0; BLOCK]),
            Rot::Ones => bytes = Arc::new([0xff; BLOCK]),
            Rot::Other(index, other) => {
                let files = self.files();
                let (_, from) = &files[index % files.len()];
                bytes = self.file(*from).state.durable().block(other);
            }
        }
        bytes
    }

    /// What a read past the page cache gets, if it can be read; else what ought to be there.
    fn on_medium(&self, node: NodeId, block: u64) -> Arc<Block> {
        let masked = self.ledger.masked(node, block);
        masked.unwrap_or_else(|| self.file(node).state.durable().block(block))
    }

    /// Let something of a drawn place go bad. Whether it did: one try, which may hit nothing.
    pub(crate) fn strike(&mut self, kind: FaultKind, draws: &mut Draws) -> bool {
        let entity = kind as u64;
        let place = match kind {
            FaultKind::RotLog => self.place_in_log(entity, draws),
            FaultKind::RotRing => self.place_in_ring(entity, draws),
            FaultKind::RotFile => self.place_in_files(entity, draws),
            FaultKind::LatentSector => match draws.below(Stream::Rot, entity, 4) {
                0 => self.place_in_log(entity, draws),
                1 => self.place_in_ring(entity, draws),
                _ => self.place_in_files(entity, draws),
            },
            _ => unreachable!("{kind} strikes at operations"),
        };
        let Some((path, block)) = place else { return false };
        let path = Path::new(&path);
        if kind == FaultKind::LatentSector {
            return self.lose_sector(path, block);
        }
        let mut below = |bound: u64| draws.below(Stream::Rot, entity, bound);
        let rot = match below(6) {
            0 => Rot::Bit(below(8 * BLOCK as u64) as usize),
            // The head of a page or header is where most is decided.
            1 => Rot::Bit(below(8 * 128) as usize),
            2 => Rot::Byte(below(BLOCK as u64) as usize, below(255) as u8 + 1),
            3 => Rot::Zeros,
            4 => Rot::Ones,
            _ => {
                let index = below(self.files().len() as u64) as usize;
                let blocks = self.size_blocks(self.files()[index].1);
                Rot::Other(index, below(blocks.max(1)))
            }
        };
        self.rot(path, block, rot)
    }

    fn size_blocks(&self, node: NodeId) -> u64 {
        self.file(node).state.durable().size_bytes() / BLOCK as u64
    }

    fn place_in_files(&self, entity: u64, draws: &mut Draws) -> Option<(String, u64)> {
        let files = self.files().into_iter().filter(|(path, _)| path.starts_with(TENANTS));
        // The catalogue is one file among many, and without it nothing works: struck rarely.
        let catalogue = storage::TenantId::CATALOGUE.paths().file;
        let spared = draws.below(Stream::Rot, entity, 8) > 0;
        let files: Vec<_> = files
            .filter(|(path, node)| self.size_blocks(*node) > 0 && !(spared && *path == catalogue))
            .collect();
        let count = files.len() as u64;
        let (path, node) = &files[draws.below(Stream::Rot, entity, count.max(1)) as usize..]
            .first()
            .filter(|_| count > 0)?;
        Some((path.clone(), draws.below(Stream::Rot, entity, self.size_blocks(*node))))
    }

    fn place_in_log(&self, entity: u64, draws: &mut Draws) -> Option<(String, u64)> {
        let batches = self.batches();
        let recent = &batches[batches.len().saturating_sub(ROT_BATCHES)..];
        if recent.is_empty() {
            return None;
        }
        let batch = &recent[draws.index(Stream::Rot, entity, recent.len())];
        // One block more than the batch has: where the next one may be expected.
        let blocks = batch.header.batch_blocks() as u64 + 1;
        let block = batch.first_block + draws.below(Stream::Rot, entity, blocks);
        Some((batch.path.clone(), block))
    }

    fn place_in_ring(&self, entity: u64, draws: &mut Draws) -> Option<(String, u64)> {
        let blocks = self.size_blocks(self.resolve(Path::new(RING)).ok()?);
        let used = draws.below(Stream::Rot, entity, blocks.max(1));
        let block = match draws.below(Stream::Rot, entity, 4) {
            0 => used,
            // The head of a slot: the superblock is two blocks long, and a slot has sixteen.
            1 | 2 => (used.saturating_sub(2) / 16 * 16 + 2) + used % 2,
            _ => used % 2,
        };
        Some((RING.to_owned(), block))
    }

    // ---- writes ----

    /// A write that succeeds and never reaches the medium. The count, and whether anything was lost.
    pub(crate) fn lose_write(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<(usize, bool)> {
        let blocks = whole_blocks(offset, bytes.len());
        let node = self.description(file).node;
        let old: Vec<Arc<Block>> = blocks.clone().map(|at| self.on_medium(node, at)).collect();
        let count = self.write(file, offset, bytes)?;
        let path = self.path_of(node);
        let Some(path) = path.filter(|_| count == bytes.len() && !blocks.is_empty()) else {
            return Ok((count, false));
        };
        let kind = FaultKind::LostWrite;
        let whole: Vec<_> = blocks.clone().map(|at| self.describe(kind, &path, node, at)).collect();
        if !whole.iter().all(|damage| self.permits(node, damage, true)) {
            return Ok((count, false));
        }
        let mut lost = false;
        for ((block, old), mut damage) in blocks.zip(old).zip(whole) {
            if *old != *self.file(node).state.view().block(block) {
                // Without its header nothing of a batch can be read.
                damage.header |= damage.batch.is_some() && path != RING;
                self.mask_written(file, damage, old);
                lost = true;
            }
        }
        if lost {
            self.ledger.begin_strike();
        }
        Ok((count, lost))
    }

    /// A write of which one block lands elsewhere. The count, and whether that happened.
    pub(crate) fn misdirect_write(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
        draws: &mut Draws,
    ) -> io::Result<(usize, bool)> {
        let blocks = whole_blocks(offset, bytes.len());
        let node = self.description(file).node;
        let path = self.path_of(node).filter(|_| !blocks.is_empty());
        let Some(path) = path else {
            return Ok((self.write(file, offset, bytes)?, false));
        };
        let mut below = |bound: u64| draws.below(Stream::MisdirectedWrite, node.0, bound);
        let block = blocks.start + below(blocks.end - blocks.start);
        let (other_path, other) = match below(2) {
            0 => (path.clone(), node),
            _ => {
                let sort = if path.starts_with(TENANTS) { TENANTS } else { "log/" };
                let mut files = self.files();
                files.retain(|(path, at)| path.starts_with(sort) && *at != node);
                match files.len() as u64 {
                    0 => (path.clone(), node),
                    count => files.swap_remove(below(count) as usize),
                }
            }
        };
        let same = other == node;
        let other_blocks = self.size_blocks(other);
        let target = if same && other_blocks > 0 { below(other_blocks) } else { block };
        let old = self.on_medium(node, block);
        let count = self.write(file, offset, bytes)?;
        let astray = self.file(node).state.view().block(block);
        let outside = target >= other_blocks || self.file(other).state.has_pending_block(target);
        let in_write = same && blocks.contains(&target);
        let kind = FaultKind::MisdirectedWrite;
        let here = self.describe(kind, &path, node, block);
        let there = self.describe(kind, &other_path, other, target);
        let one_fact = here.batch.is_some() && here.batch == there.batch;
        let masked = self.ledger.is_masked(other, target);
        let possible = count == bytes.len() && !outside && !in_write && !masked && !one_fact;
        let permitted = self.permits(node, &here, true) && self.permits(other, &there, false);
        if !possible || !permitted || *old == *astray {
            return Ok((count, false));
        }
        self.ledger.begin_strike();
        self.mask_written(file, here, old);
        let direct = self.description(file).options.direct;
        self.ledger.add(other, there, Some(astray), !direct);
        Ok((count, true))
    }

    /// A block was written through `file` and the medium has `old` in its place. The page cache has
    /// the new bytes if the write went through it.
    fn mask_written(&mut self, file: FileId, damage: super::Damage, old: Arc<Block>) {
        let super::Description { node, options } = self.description(file);
        self.ledger.add(node, damage, Some(old), !options.direct);
    }

    // ---- the page cache ----

    /// A clean page leaves the page cache, if there is one whose going makes a difference.
    pub(crate) fn evict_one(&mut self, draws: &mut Draws) -> bool {
        let mut pages = self.ledger.cached_over();
        for (node, entry) in &self.nodes {
            if let Node::File(file) = entry {
                let clean = file.state.clean_blocks().into_iter();
                pages.extend(clean.map(|block| (*node, block)));
            }
        }
        if pages.is_empty() {
            return false;
        }
        let (node, block) = pages[draws.index(Stream::Eviction, 0, pages.len())];
        self.evict(node, block);
        true
    }

    pub(super) fn evict(&mut self, node: NodeId, block: u64) {
        self.ledger.evict(node, block);
        self.file_mut(node).state.evict(block);
    }

    /// A block that a misdirected read would bring in place of the first one asked for.
    pub(crate) fn astray(
        &self,
        file: FileId,
        offset: u64,
        draws: &mut Draws,
    ) -> Option<Arc<Block>> {
        let node = self.description(file).node;
        let state = &self.file(node).state;
        let blocks = self.size_blocks(node);
        if blocks < 2 || state.volatile || !offset.is_multiple_of(BLOCK as u64) {
            return None;
        }
        let other = draws.below(Stream::MisdirectedRead, node.0, blocks);
        Some(state.view().block(other)).filter(|_| other != offset / BLOCK as u64)
    }
}

/// The blocks that a write covers whole.
fn whole_blocks(offset: u64, length: usize) -> std::ops::Range<u64> {
    let block = BLOCK as u64;
    let (start, end) = (offset.div_ceil(block), (offset + length as u64) / block);
    start..end.max(start)
}
