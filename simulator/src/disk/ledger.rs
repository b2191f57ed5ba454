//! Every damage that this world has done to the disk, and every error that a path has met.
//!
//! A *damage* is one block of one file that says something else than what was written. The bytes
//! that should be there stay in the file (pristine); what reads get instead lies here, as a *mask*
//! per file node and block. A write over the whole block takes the mask away, a write over a part
//! of it goes into both; [`Ledger::heal`] takes all of them away. So oracles read the disk as it
//! ought to be, and any damage can be switched off.
//!
//! A mask is *cached over* while the page cache still holds the right bytes: then only direct reads
//! meet it, until an eviction or a power loss.
//!
//! A *hit* is an error that an operation on a path has met: nothing on the disk says so afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use storage::{TENANTS_FOLDER, TenantId};

use super::atlas::SEGMENTS;
use super::content::{BLOCK, Block};
use super::names::NodeId;
use crate::faults::FaultKind;

/// One damaged block, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What happened.
    pub kind: FaultKind,
    /// The file's name when it happened.
    pub path: String,
    /// The block of 4096 bytes.
    pub block: u64,
    /// Whose data the right bytes are. Of a log's block: the owner of the page image, or everybody
    /// in the batch for a header. Empty: nobody's, as far as one can tell.
    pub tenants: Vec<TenantId>,
    /// The batch of the log that the right bytes belong to.
    pub batch: Option<u64>,
    /// The batch cannot be read without its copy in the ring.
    pub header: bool,
    /// Written over, cut off, removed or healed: nobody meets it any more.
    pub cleared: bool,
    /// Reads that met it.
    pub reads: u64,
}

/// Errors of one kind that operations on one path have met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// How often.
    pub count: u64,
    /// The next try may work, and the design hides such errors or reports them once.
    pub transient: bool,
}

/// What reads of one block get.
#[derive(Clone, Debug)]
struct Mask {
    damage: usize,
    /// `None`: the sector cannot be read.
    bytes: Option<Arc<Block>>,
    /// The page cache has the right bytes still.
    cached: bool,
}

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    damages: Vec<Damage>,
    masks: BTreeMap<(NodeId, u64), Mask>,
    hits: BTreeMap<(String, FaultKind), Hit>,
    strikes: u64,
}

impl Ledger {
    /// All damages, oldest first, cleared ones included.
    pub fn iter(&self) -> impl Iterator<Item = &Damage> {
        self.damages.iter()
    }

    /// All errors met, by path and kind.
    pub fn hits(&self) -> impl Iterator<Item = (&str, FaultKind, Hit)> {
        self.hits.iter().map(|((path, kind), hit)| (path.as_str(), *kind, *hit))
    }

    /// Whether anything but a transient error ever struck this path, whatever became of it.
    #[must_use]
    pub fn was_hit(&self, path: &str) -> bool {
        let lasting = |(at, _, hit): (&str, FaultKind, Hit)| at == path && !hit.transient;
        self.damages.iter().any(|damage| damage.path == path) || self.hits().any(lasting)
    }

    /// Whether any error at all, transient ones too, ever struck this path.
    #[must_use]
    pub fn was_disturbed(&self, path: &str) -> bool {
        self.was_hit(path) || self.hits.keys().any(|(at, _)| at == path)
    }

    /// Whether some block of this path is damaged now.
    #[must_use]
    pub fn is_damaged(&self, path: &str) -> bool {
        self.active().any(|damage| damage.path == path)
    }

    /// The damages that reads may meet now or after an eviction.
    pub fn active(&self) -> impl Iterator<Item = &Damage> {
        self.damages.iter().filter(|damage| !damage.cleared)
    }

    /// Whether a damage or a lasting error ever struck this tenant's data: its file, or its pages
    /// in the log. Nothing else excuses that it is fenced.
    #[must_use]
    pub fn concerns(&self, tenant: TenantId) -> bool {
        let damaged = self.damages.iter().any(|damage| damage.tenants.contains(&tenant));
        let paths = tenant.paths();
        let places = [paths.file.as_str(), &paths.inner, &paths.outer, TENANTS_FOLDER];
        // A log that cannot be read any more may hold anybody's pages.
        let log_lost = self.hits().any(|(path, kind, hit)| {
            kind == FaultKind::ReadError && !hit.transient && path.starts_with(SEGMENTS)
        });
        damaged || log_lost || places.iter().any(|path| self.was_hit(path))
    }

    /// How often something struck; one strike may damage several blocks.
    pub(super) fn strikes(&self) -> u64 {
        self.strikes
    }

    /// What is added from now on belongs to another strike.
    pub(super) fn begin_strike(&mut self) {
        self.strikes += 1;
    }

    /// Write an error down.
    pub(super) fn hit(&mut self, path: String, kind: FaultKind, transient: bool) {
        let hit = self.hits.entry((path, kind)).or_default();
        hit.count += 1;
        hit.transient = transient;
    }

    /// Let reads of a block get `bytes` (`None`: an error) from now on.
    pub(super) fn add(
        &mut self,
        node: NodeId,
        damage: Damage,
        bytes: Option<Arc<Block>>,
        cached: bool,
    ) {
        let key = (node, damage.block);
        self.clear(key);
        self.masks.insert(key, Mask { damage: self.damages.len(), bytes, cached });
        self.damages.push(damage);
    }

    fn clear(&mut self, key: (NodeId, u64)) {
        if let Some(mask) = self.masks.remove(&key) {
            self.damages[mask.damage].cleared = true;
        }
    }

    fn clear_where(&mut self, gone: impl Fn(NodeId, u64) -> bool) {
        let keys = self.masks.keys().filter(|(node, block)| gone(*node, *block));
        for key in keys.copied().collect::<Vec<_>>() {
            self.clear(key);
        }
    }

    /// What is on the medium in place of a block, if it is damaged and can be read.
    pub(super) fn masked(&self, node: NodeId, block: u64) -> Option<Arc<Block>> {
        self.masks.get(&(node, block)).and_then(|mask| mask.bytes.clone())
    }

    /// Whether a block is damaged now.
    pub(super) fn is_masked(&self, node: NodeId, block: u64) -> bool {
        self.masks.contains_key(&(node, block))
    }

    /// Let a read of `target` at `offset` meet what is damaged; `false` if it cannot be read.
    pub(super) fn meet(
        &mut self,
        node: NodeId,
        offset: u64,
        target: &mut [u8],
        direct: bool,
    ) -> bool {
        if self.masks.is_empty() || target.is_empty() {
            return true;
        }
        let end = offset + target.len() as u64;
        let blocks = (node, offset / BLOCK as u64)..(node, end.div_ceil(BLOCK as u64));
        for ((_, block), mask) in self.masks.range(blocks) {
            if mask.cached && !direct {
                continue;
            }
            self.damages[mask.damage].reads += 1;
            let Some(bytes) = &mask.bytes else {
                return false;
            };
            let start = block * BLOCK as u64;
            let (from, to) = (start.max(offset), (start + BLOCK as u64).min(end));
            let source = &bytes[(from - start) as usize..(to - start) as usize];
            target[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
        true
    }

    /// Bytes were written.
    pub(super) fn written(&mut self, node: NodeId, offset: u64, bytes: &[u8]) {
        if self.masks.is_empty() || bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        for block in offset / BLOCK as u64..end.div_ceil(BLOCK as u64) {
            let start = block * BLOCK as u64;
            let (from, to) = (start.max(offset), (start + BLOCK as u64).min(end));
            if to - from == BLOCK as u64 {
                self.clear((node, block));
            } else if let Some(mask) = self.masks.get_mut(&(node, block))
                && let Some(masked) = &mut mask.bytes
            {
                let source = &bytes[(from - offset) as usize..(to - offset) as usize];
                let target = &mut Arc::make_mut(masked);
                target[(from - start) as usize..(to - start) as usize].copy_from_slice(source);
            }
        }
    }

    /// A file was cut: blocks that lie beyond its end are gone.
    pub(super) fn cut(&mut self, node: NodeId, size_bytes: u64) {
        self.clear_where(|at, block| at == node && block * BLOCK as u64 >= size_bytes);
    }

    /// These nodes are all that is left.
    pub(super) fn retain_nodes(&mut self, left: &BTreeSet<NodeId>) {
        self.clear_where(|node, _| !left.contains(&node));
    }

    /// Undo damages: those of `node`, or all.
    pub(super) fn heal(&mut self, node: Option<NodeId>) {
        self.clear_where(|at, _| node.is_none_or(|node| node == at));
    }

    /// Undo the damages that `gone` picks, as if they had never been.
    pub(super) fn undo(&mut self, gone: impl Fn(&Damage) -> bool) {
        let chosen = self.masks.iter().filter(|(_, mask)| gone(&self.damages[mask.damage]));
        for key in chosen.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.clear(key);
        }
    }

    /// Blocks that the page cache still hides.
    pub(super) fn cached_over(&self) -> Vec<(NodeId, u64)> {
        let cached = self.masks.iter().filter(|(_, mask)| mask.cached);
        cached.map(|(key, _)| *key).collect()
    }

    /// The page cache lets go of one block.
    pub(super) fn evict(&mut self, node: NodeId, block: u64) {
        if let Some(mask) = self.masks.get_mut(&(node, block)) {
            mask.cached = false;
        }
    }

    /// The page cache is gone, and the disk has what `durable` says under the masks: those that
    /// say the same are no damage.
    pub(super) fn lose_power(&mut self, durable: impl Fn(NodeId, u64) -> Arc<Block>) {
        let mut same = Vec::new();
        for ((node, block), mask) in &mut self.masks {
            mask.cached = false;
            if mask.bytes.as_ref().is_some_and(|bytes| **bytes == *durable(*node, *block)) {
                same.push((*node, *block));
            }
        }
        for key in same {
            self.clear(key);
        }
    }
}
