//! What a crash leaves on the disk.
//!
//! A *kill* ends the process: the page cache survives, writes in flight land whole, in part or not
//! at all, and direct ones maybe up to a second later, when the next process already runs; until
//! then they keep their open description and its lock alive. A *power loss* ends the machine: per
//! sector the durable bytes or any version written since, per name likewise.

use std::collections::BTreeSet;

use storage::io::FileId;

use super::file::{Crash, Mark};
use super::{Node, NodeId, SimulatedDisk};
use crate::draws::{Draws, Stream};

/// How a process or its machine dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashMode {
    /// The process dies (kill -9, abort); kernel and page cache live on.
    Kill,
    /// Power loss: only what was durable is left.
    PowerAllLost,
    /// Power loss by luck: everything written is left, in-flight writes whole.
    PowerAllKept,
    /// Power loss: per file, a prefix of its writes.
    PowerPrefix,
    /// Power loss: per sector, any of its versions.
    PowerSectors,
    /// As [`CrashMode::PowerSectors`], and some sectors in flight are garbage.
    PowerGarbage,
}

impl CrashMode {
    /// All modes.
    pub const ALL: [CrashMode; 6] = [
        CrashMode::Kill,
        CrashMode::PowerAllLost,
        CrashMode::PowerAllKept,
        CrashMode::PowerPrefix,
        CrashMode::PowerSectors,
        CrashMode::PowerGarbage,
    ];
}

/// What a crash did, for the counts of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CrashCounts {
    /// Writes, or files with writes in flight, of which a part was kept.
    pub torn_writes: u64,
    /// Changes of names that were undone.
    pub names_lost: u64,
}

/// A write that was submitted and not complete when the crash came.
#[derive(Debug)]
pub(crate) struct InFlightWrite {
    pub file: FileId,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// A write of a killed process that will still land.
#[derive(Debug)]
pub(crate) struct LateWrite {
    pub file: FileId,
    pub pieces: Vec<(u64, Vec<u8>)>,
}

impl SimulatedDisk {
    /// Crash. Returns the writes that will land later; each keeps its own description open, as do
    /// the `held` ones of an earlier kill.
    pub(crate) fn crash(
        &mut self,
        mode: CrashMode,
        in_flight: Vec<InFlightWrite>,
        held: &BTreeSet<FileId>,
        draws: &mut Draws,
    ) -> Vec<LateWrite> {
        self.crash_counts = CrashCounts::default();
        let late = match mode {
            CrashMode::Kill => self.kill(in_flight, held, draws),
            _ => {
                self.lose_power(mode, in_flight, draws);
                Vec::new()
            }
        };
        self.enforce_single_faults();
        late
    }

    /// What the last crash did.
    pub(crate) fn crash_counts(&self) -> CrashCounts {
        self.crash_counts
    }

    fn kill(
        &mut self,
        in_flight: Vec<InFlightWrite>,
        held: &BTreeSet<FileId>,
        draws: &mut Draws,
    ) -> Vec<LateWrite> {
        let mut late: Vec<LateWrite> = Vec::new();
        for write in in_flight {
            let direct = self.options(write.file).direct;
            let choices = if direct { 5 } else { 3 };
            let choice = draws.below(Stream::CrashInFlight, 0, choices);
            let whole_bytes = write.bytes.len();
            let pieces = match choice {
                0 => Vec::new(),
                1 | 3 => vec![(write.offset, write.bytes)],
                _ => self.some_sectors(write.offset, &write.bytes, draws),
            };
            if pieces.is_empty() {
                continue;
            }
            let file = write.file;
            let kept_bytes: usize = pieces.iter().map(|piece| piece.1.len()).sum();
            self.crash_counts.torn_writes += u64::from(kept_bytes < whole_bytes);
            if choice < 3 {
                self.land(&LateWrite { file, pieces });
            } else {
                late.push(LateWrite { file, pieces });
            }
        }
        let kept: BTreeSet<FileId> = late.iter().map(|write| write.file).collect();
        for file in self.open_files() {
            if !kept.contains(&file) && !held.contains(&file) {
                self.close(file);
            }
        }
        late
    }

    /// The parts of a write that fall into a drawn half of its sectors.
    fn some_sectors(&self, offset: u64, bytes: &[u8], draws: &mut Draws) -> Vec<(u64, Vec<u8>)> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < bytes.len() {
            let position = offset + done as u64;
            let within = (position % self.sector_bytes as u64) as usize;
            let step = (self.sector_bytes - within).min(bytes.len() - done);
            if draws.below(Stream::CrashInFlight, 1, 2) == 0 {
                pieces.push((position, bytes[done..done + step].to_vec()));
            }
            done += step;
        }
        pieces
    }

    /// A write of a killed process reaches the disk. A full disk drops it.
    pub(crate) fn land(&mut self, write: &LateWrite) {
        for (offset, bytes) in &write.pieces {
            if self.write(write.file, *offset, bytes).is_err() {
                return;
            }
        }
    }

    /// Whether a description is open still: a power loss ends those of late writes.
    pub(crate) fn is_open(&self, file: FileId) -> bool {
        let slot = self.slots.get(file.index as usize);
        slot.is_some_and(|slot| slot.generation == file.generation && slot.description.is_some())
    }

    fn open_files(&self) -> Vec<FileId> {
        let slots = self.slots.iter().enumerate();
        let open = slots.filter(|(_, slot)| slot.description.is_some());
        open.map(|(index, slot)| FileId { index: index as u32, generation: slot.generation })
            .collect()
    }

    fn lose_power(&mut self, mode: CrashMode, in_flight: Vec<InFlightWrite>, draws: &mut Draws) {
        if mode != CrashMode::PowerAllLost {
            for write in &in_flight {
                self.write_in_flight(write);
            }
        }
        for file in self.open_files() {
            let node = self.description(file).node;
            let slot = &mut self.slots[file.index as usize];
            slot.description = None;
            slot.generation += 1;
            self.free_slots.push(file.index);
            let state = self.file_mut(node);
            state.open_count = 0;
            state.locked_by = None;
        }
        let names_lost = self.names.lose_power(mode, self.namespace_model, draws);
        self.crash_counts.names_lost = names_lost;
        self.late_errors.clear();
        let reachable = self.names.reachable();
        self.names.prune(&reachable);
        self.nodes.retain(|id, _| reachable.contains(id));
        self.ledger.retain_nodes(&reachable);
        self.orphan_count = 0;
        let sector_bytes = self.sector_bytes;
        for (NodeId(entity), node) in &mut self.nodes {
            let Node::File(file) = node else {
                continue;
            };
            assert!(!file.state.volatile);
            file.named = true;
            let mut crash = Crash {
                draws,
                entity: *entity,
                sector_bytes,
                in_flight_kept: 0,
                in_flight_lost: 0,
            };
            file.state.lose_power(mode, &mut crash);
            let torn = crash.in_flight_kept > 0 && crash.in_flight_lost > 0;
            self.crash_counts.torn_writes += u64::from(torn);
        }
        let nodes = &self.nodes;
        self.ledger.lose_power(|node, block| match &nodes[&node] {
            Node::File(file) => file.state.durable().block(block),
            Node::Directory => unreachable!("masks lie over files"),
        });
        self.count_blocks();
    }

    fn write_in_flight(&mut self, write: &InFlightWrite) {
        if write.bytes.is_empty() {
            return;
        }
        let node = self.description(write.file).node;
        let mark = Mark { in_flight: true, ..self.mark() };
        self.file_mut(node).state.write(write.offset, &write.bytes, mark);
    }
}
