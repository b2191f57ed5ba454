//! Which facts lie where in the commit log, so that one fault at a time strikes one of them.
//!
//! The design promises to survive or to detect one damaged copy. A *fact* is what the disk has
//! twice or once, and must not lose twice:
//!
//! - a batch of the log and its header's copy in the ring (`decide.rs` in storage): with one of
//!   them every acknowledged batch is found; without both a start may stop, or, for the newest
//!   batch, take it for a torn tail;
//! - the twins in a slot of the ring, and the ring's two superblocks;
//! - the catalogue: its file, and its pages in the log. Neither can stand in for the other, so only
//!   the file is ever struck, and only while no batch is damaged.
//!
//! The rule: a block is struck only if its fact is whole; a batch's header only if its copy is
//! there; a page image only if the copy or a later batch says that its batch was durable; never a
//! page image of the catalogue. Copies grow old (16 slots) and crashes come between a batch and its
//! copy, so [`SimulatedDisk::enforce_single_faults`] looks again at each crash, and undoes what
//! would have become a second fault. With `double_faults` on there are no rules.

use storage::TenantId;
use storage::log::Header;
use storage::log::limits::{BATCH_BYTES_LIMIT, RING_SLOTS, RING_SLOTS_OFFSET, SLOT_BLOCKS};

use super::content::{BLOCK, Content};
use super::ledger::Damage;
use super::names::NodeId;
use super::{Node, SimulatedDisk};

/// Name of the ring.
pub(super) const RING: &str = "log/ring";
/// How the segments' names begin.
pub(super) const SEGMENTS: &str = "log/segment-";
/// How the names of tenants' files begin.
pub(super) const TENANTS: &str = "tenants/";

/// First block of the ring's slots.
const SLOTS_START: u64 = (RING_SLOTS_OFFSET / BLOCK) as u64;

/// A batch of the log, found by its header.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub path: String,
    pub first_block: u64,
    pub header: Header,
}

impl Batch {
    fn sequence(&self) -> u64 {
        self.header.fields.sequence.0
    }

    /// Whose data a block of the batch is.
    fn tenants_of(&self, block: u64) -> Vec<TenantId> {
        let within = (block - self.first_block) as usize;
        let records = &self.header.records;
        let mut tenants: Vec<TenantId> = match within.checked_sub(self.header.header_blocks()) {
            None => records.iter().map(|record| record.tenant).collect(),
            Some(page) => {
                let mut end = 0;
                let mut owners = records.iter().skip_while(|record| {
                    end += record.page_count as usize;
                    end <= page
                });
                owners.next().map(|record| record.tenant).into_iter().collect()
            }
        };
        tenants.sort_unstable();
        tenants.dedup();
        tenants
    }

    fn is_header(&self, block: u64) -> bool {
        block - self.first_block < self.header.header_blocks() as u64
    }
}

/// The header at a block, in the durable bytes.
fn header_at(content: &Content, block: u64) -> Option<Header> {
    let first = content.block(block);
    let blocks = u64::from(u32::from_le_bytes([first[12], first[13], first[14], first[15]]));
    // Cheap to refuse: `Header::read` looks at the magic first, and needs all blocks otherwise.
    if first[..8] != *b"\xff\xff\xff\xffMYLG" || blocks > SLOT_BLOCKS as u64 {
        return None;
    }
    let mut bytes = Vec::new();
    for index in block..block + blocks.max(1) {
        bytes.extend_from_slice(&content.block(index)[..]);
    }
    Header::read(&bytes)
}

impl SimulatedDisk {
    /// Files with their paths, in order of the paths.
    pub(super) fn files(&self) -> Vec<(String, NodeId)> {
        let mut files = Vec::new();
        let mut waiting = vec![(super::names::ROOT, String::new())];
        while let Some((directory, prefix)) = waiting.pop() {
            for (text, node) in self.names.list(directory) {
                let path = format!("{prefix}{text}");
                match &self.nodes[&node] {
                    Node::Directory => waiting.push((node, format!("{path}/"))),
                    Node::File(_) => files.push((path, node)),
                }
            }
        }
        files.sort_unstable();
        files
    }

    pub(super) fn path_of(&self, node: NodeId) -> Option<String> {
        self.files().into_iter().find(|(_, at)| *at == node).map(|(path, _)| path)
    }

    /// All batches whose headers are intact in the durable bytes, those of earlier lives of a
    /// segment included, by sequence.
    pub(super) fn batches(&self) -> Vec<Batch> {
        let mut batches = Vec::new();
        for (path, node) in self.files() {
            if !path.starts_with(SEGMENTS) {
                continue;
            }
            let content = self.file(node).state.durable();
            for block in content.indexes_from(0) {
                if let Some(header) = header_at(content, block)
                    && header.fields.place.offset == block * BLOCK as u64
                {
                    batches.push(Batch { path: path.clone(), first_block: block, header });
                }
            }
        }
        batches.sort_by_key(Batch::sequence);
        batches
    }

    /// The batch that a block of a segment belongs to, in the durable bytes.
    fn batch_over(&self, path: &str, node: NodeId, block: u64) -> Option<Batch> {
        let content = self.file(node).state.durable();
        let lowest = block.saturating_sub((BATCH_BYTES_LIMIT / BLOCK) as u64);
        for first_block in (lowest..=block).rev() {
            let Some(header) = header_at(content, first_block) else { continue };
            let over = first_block + header.batch_blocks() as u64 > block;
            let batch = Batch { path: path.to_owned(), first_block, header };
            return over.then_some(batch);
        }
        None
    }

    /// What a damage of this block would concern.
    pub(super) fn describe(
        &self,
        kind: crate::faults::FaultKind,
        path: &str,
        node: NodeId,
        block: u64,
    ) -> Damage {
        let mut damage = Damage {
            kind,
            path: path.to_owned(),
            block,
            tenants: Vec::new(),
            batch: None,
            header: false,
            cleared: false,
            reads: 0,
        };
        if path.starts_with(SEGMENTS) {
            if let Some(batch) = self.batch_over(path, node, block) {
                damage.tenants = batch.tenants_of(block);
                damage.batch = Some(batch.sequence());
                damage.header = batch.is_header(block);
            }
        } else if path == RING {
            damage.batch = self.copy_in(node, slot_of(block));
        } else {
            damage.tenants.extend(tenant_of(path));
        }
        damage
    }

    /// The newest batch that a slot of the ring holds a copy of, whatever masks lie over it.
    fn copy_in(&self, ring: NodeId, slot: Option<u64>) -> Option<u64> {
        let start = SLOTS_START + slot? * SLOT_BLOCKS as u64;
        let content = self.file(ring).state.durable();
        let headers = (start..start + SLOT_BLOCKS as u64).filter_map(|block| {
            let header = header_at(content, block)?;
            Some(header.fields.sequence.0)
        });
        headers.max()
    }

    /// Whether the ring has an undamaged copy of this batch.
    fn has_copy(&self, ring: Option<NodeId>, sequence: u64) -> bool {
        let Some(ring) = ring else { return false };
        let slot = sequence % RING_SLOTS as u64;
        self.copy_in(ring, Some(slot)) == Some(sequence) && !self.is_slot_masked(ring, Some(slot))
    }

    fn is_slot_masked(&self, ring: NodeId, slot: Option<u64>) -> bool {
        let blocks = match slot {
            None => 0..SLOTS_START,
            Some(slot) => {
                let start = SLOTS_START + slot * SLOT_BLOCKS as u64;
                start..start + SLOT_BLOCKS as u64
            }
        };
        blocks.into_iter().any(|block| self.ledger.is_masked(ring, block))
    }

    fn ring(&self) -> Option<NodeId> {
        self.resolve(std::path::Path::new(RING)).ok()
    }

    /// Whether the rule at the head of the file lets this happen. A `fresh` batch is being written:
    /// its copy is still to come, and the next crash looks whether it came.
    pub(super) fn permits(&self, node: NodeId, damage: &Damage, fresh: bool) -> bool {
        if self.double_faults {
            return true;
        }
        let catalogue = damage.tenants.contains(&TenantId::CATALOGUE);
        if damage.path == RING {
            let twin_free = !self.is_slot_masked(node, slot_of(damage.block));
            return twin_free && !self.is_batch_damaged(damage.batch);
        }
        if damage.path.starts_with(SEGMENTS) {
            let Some(sequence) = damage.batch else { return true };
            let newest = self.batches().last().map(Batch::sequence);
            let copied = self.has_copy(self.ring(), sequence);
            let proved = fresh || copied || (!damage.header && newest > Some(sequence));
            return proved && !catalogue && !self.is_batch_damaged(damage.batch);
        }
        if catalogue && self.ledger.active().any(|damage| damage.batch.is_some()) {
            return false;
        }
        !self.ledger.is_damaged(&damage.path)
    }

    fn is_batch_damaged(&self, batch: Option<u64>) -> bool {
        batch.is_some() && self.ledger.active().any(|damage| damage.batch == batch)
    }

    /// At a crash: undo damages of batches that nothing else on the disk speaks of any more.
    pub(super) fn enforce_single_faults(&mut self) {
        let in_log = |damage: &Damage| damage.batch.is_some() && damage.path != RING;
        if self.double_faults || !self.ledger.active().any(in_log) {
            return;
        }
        let newest = self.batches().last().map(Batch::sequence);
        let ring = self.ring();
        let lost: Vec<u64> = self
            .ledger
            .active()
            .filter(|damage| in_log(damage))
            .filter_map(|damage| Some((damage.batch?, damage.header)))
            .filter(|(sequence, header)| {
                let copied = self.has_copy(ring, *sequence);
                !copied && (*header || newest <= Some(*sequence))
            })
            .map(|(sequence, _)| sequence)
            .collect();
        self.ledger.undo(|damage| {
            in_log(damage) && damage.batch.is_some_and(|batch| lost.contains(&batch))
        });
    }
}

/// The slot of a ring's block; `None` for the superblocks.
fn slot_of(block: u64) -> Option<u64> {
    block.checked_sub(SLOTS_START).map(|block| block / SLOT_BLOCKS as u64)
}

/// The tenant whose file this is.
pub(super) fn tenant_of(path: &str) -> Option<TenantId> {
    let name = path.strip_prefix(TENANTS)?.rsplit('/').next()?;
    name.strip_suffix(".db")?.parse().ok().map(TenantId)
}
