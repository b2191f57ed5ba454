//! One file: what reads see, what is durable, and every version in between.
//!
//! A write adds one [`Version`] per touched block: the block after the write, and which of its
//! sectors the write touched. A sync moves the newest version of each sector, as of the moment the
//! sync was asked for, into the durable bytes. A power loss chooses, per sector, the durable bytes
//! or any version. Invariant: without pending versions and sizes, view and durable bytes are equal.
//!
//! A size is a version too. A shrink leaves versions of zeros that take part in nothing until that
//! shrink itself becomes durable, as a journal would have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::CrashMode;
use super::content::{BLOCK, Block, Content};
use crate::draws::{Draws, Stream};

/// One write's effect on one block.
#[derive(Clone, Debug)]
struct Version {
    stamp: u64,
    block: Arc<Block>,
    /// Bit `n`: the write touched sector `n`.
    sectors: u8,
    /// The crash came before the write was complete.
    in_flight: bool,
    /// A sync failed on it: the kernel believes it clean and no later sync will write it.
    clean: bool,
    /// Zeros left by a shrink.
    shrink: bool,
}

/// A size set since the last durable one.
#[derive(Clone, Copy, Debug)]
struct PendingSize {
    stamp: u64,
    size_bytes: u64,
    shrink: bool,
    clean: bool,
}

/// A file's bytes, durable and not.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileState {
    view: Content,
    durable: Content,
    pending: BTreeMap<u64, Vec<Version>>,
    pending_sizes: Vec<PendingSize>,
    /// Unnamed: nothing of it survives a crash, so no versions are kept.
    pub volatile: bool,
}

impl FileState {
    pub fn view(&self) -> &Content {
        &self.view
    }

    pub fn durable(&self) -> &Content {
        &self.durable
    }

    /// Whether a power loss could change it.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty() || !self.pending_sizes.is_empty()
    }

    /// Blocks that a write would have to allocate.
    pub fn blocks_missing(&self, offset: u64, length_bytes: usize) -> u64 {
        let end = offset + length_bytes as u64;
        let indexes = offset / BLOCK as u64..end.div_ceil(BLOCK as u64);
        indexes.filter(|index| !self.view.has_block(*index)).count() as u64
    }

    /// Whether a block has versions that are not durable.
    pub fn has_pending_block(&self, index: u64) -> bool {
        self.pending.contains_key(&index)
    }

    /// As a direct read sees it: dirty pages were written back just before, clean ones were not.
    pub fn read_direct(&self, offset: u64, target: &mut [u8]) -> usize {
        let count = self.view.read(offset, target);
        if self.pending.is_empty() || count == 0 {
            return count;
        }
        let end = offset + count as u64;
        for (index, versions) in
            self.pending.range(offset / BLOCK as u64..end.div_ceil(BLOCK as u64))
        {
            if is_clean(versions) {
                let start = index * BLOCK as u64;
                let (from, to) = (start.max(offset), (start + BLOCK as u64).min(end));
                let block = self.durable.block(*index);
                let source = &block[(from - start) as usize..(to - start) as usize];
                target[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        count
    }

    /// Blocks whose page is clean and not what the disk has.
    pub fn clean_blocks(&self) -> Vec<u64> {
        let clean = self.pending.iter().filter(|(_, versions)| is_clean(versions));
        clean.map(|(index, _)| *index).collect()
    }

    /// The page of a block leaves the page cache: if it was clean, reads get what the disk has.
    pub fn evict(&mut self, index: u64) {
        let Some(versions) = self.pending.get_mut(&index).filter(|versions| is_clean(versions))
        else {
            return;
        };
        versions.retain(|version| version.shrink);
        if versions.is_empty() {
            self.pending.remove(&index);
        }
        if self.view.has_block(index) {
            self.view.set_block(index, self.durable.block(index));
        }
    }

    /// Write to the view and remember the versions.
    pub fn write(&mut self, offset: u64, bytes: &[u8], mark: Mark) {
        assert!(!bytes.is_empty());
        self.dirty_size();
        let mut done = 0;
        while done < bytes.len() {
            let position = offset + done as u64;
            let index = position / BLOCK as u64;
            let within = (position % BLOCK as u64) as usize;
            let step = (BLOCK - within).min(bytes.len() - done);
            self.view.write_within(index, within, &bytes[done..done + step]);
            let sectors = sector_mask(within, step, mark.sector_bytes);
            self.add_version(index, sectors, mark, false);
            done += step;
        }
        let end = offset + bytes.len() as u64;
        if end > self.view.size_bytes() {
            self.add_size(end, mark.stamp);
        }
    }

    /// Set the size of the view.
    pub fn truncate(&mut self, size_bytes: u64, mark: Mark) {
        let old_bytes = self.view.size_bytes();
        if size_bytes == old_bytes {
            return;
        }
        self.dirty_size();
        self.add_size(size_bytes, mark.stamp);
        if size_bytes > old_bytes || self.volatile {
            return;
        }
        let within = (size_bytes % BLOCK as u64) as usize;
        let first = size_bytes / BLOCK as u64;
        let mut indexes = self.durable.indexes_from(first);
        indexes.extend(self.pending.range(first..).map(|(index, _)| *index));
        indexes.sort_unstable();
        indexes.dedup();
        for index in indexes {
            let from = if index == first { within } else { 0 };
            let sectors = sector_mask(from, BLOCK - from, mark.sector_bytes);
            self.add_version(index, sectors, mark, true);
        }
    }

    /// Reserve the blocks up to `size_bytes`, without touching the size.
    pub fn reserve(&mut self, size_bytes: u64) {
        self.view.reserve(size_bytes);
    }

    /// A change of the file takes its inode along: what a failed sync left clean is dirty again.
    fn dirty_size(&mut self) {
        for size in &mut self.pending_sizes {
            size.clean = false;
        }
    }

    fn add_size(&mut self, size_bytes: u64, stamp: u64) {
        let shrink = size_bytes < self.view.size_bytes();
        self.view.set_size(size_bytes);
        if !self.volatile {
            self.pending_sizes.push(PendingSize { stamp, size_bytes, shrink, clean: false });
        }
    }

    fn add_version(&mut self, index: u64, sectors: u8, mark: Mark, shrink: bool) {
        if self.volatile {
            return;
        }
        self.pending.entry(index).or_default().push(Version {
            stamp: mark.stamp,
            block: self.view.block(index),
            sectors,
            in_flight: mark.in_flight,
            clean: false,
            shrink,
        });
    }

    /// Make everything up to `stamp` durable.
    pub fn sync(&mut self, stamp: u64, sector_bytes: usize) {
        self.commit_sizes(stamp, sector_bytes, |size| !size.clean);
        let durable = &mut self.durable;
        self.pending.retain(|index, versions| {
            let wanted = |version: &Version| !version.clean && !version.shrink;
            commit_block(durable, *index, versions, stamp, sector_bytes, wanted);
            !versions.is_empty()
        });
    }

    /// Make one complete write durable, and the size with it.
    pub fn sync_write(&mut self, stamp: u64, offset: u64, length: usize, sector_bytes: usize) {
        self.commit_sizes(stamp, sector_bytes, |_| true);
        let end = offset + length as u64;
        for index in offset / BLOCK as u64..end.div_ceil(BLOCK as u64) {
            let Some(versions) = self.pending.get_mut(&index) else {
                continue;
            };
            let wanted = |version: &Version| version.stamp == stamp;
            commit_block(&mut self.durable, index, versions, stamp, sector_bytes, wanted);
            if versions.is_empty() {
                self.pending.remove(&index);
            }
        }
    }

    /// A sync failed: what it covered counts as clean and stays as it is on the disk.
    pub fn fail_sync(&mut self, stamp: u64) {
        let versions = self.pending.values_mut().flatten();
        for version in versions.filter(|version| version.stamp <= stamp) {
            version.clean = true;
        }
        for size in &mut self.pending_sizes {
            size.clean |= size.stamp <= stamp;
        }
    }

    /// As [`FileState::fail_sync`], and the pages go back to what the disk has.
    pub fn revert_sync(&mut self, stamp: u64, sector_bytes: usize) {
        for size in &mut self.pending_sizes {
            size.clean |= size.stamp <= stamp;
        }
        let (view, durable) = (&mut self.view, &self.durable);
        self.pending.retain(|index, versions| {
            let before = versions.len();
            versions.retain(|version| version.stamp > stamp || version.shrink);
            if versions.len() < before && view.has_block(*index) {
                let mut block = Content::default();
                block.set_block(*index, durable.block(*index));
                for version in versions.iter() {
                    copy_sectors(&mut block, *index, version, version.sectors, sector_bytes);
                }
                view.set_block(*index, block.block(*index));
            }
            !versions.is_empty()
        });
    }

    /// Commit the pending sizes up to `stamp` that are `wanted`, in order, shrinks with zeros.
    fn commit_sizes(
        &mut self,
        stamp: u64,
        sector_bytes: usize,
        wanted: impl Fn(&PendingSize) -> bool,
    ) {
        let commits = |size: &PendingSize| size.stamp <= stamp && wanted(size);
        let Some(last) = self.pending_sizes.iter().rposition(commits) else {
            return;
        };
        // A size that a failed sync refused goes along with the next one that is committed.
        for size in self.pending_sizes.drain(..=last).collect::<Vec<_>>() {
            self.durable.set_size(size.size_bytes);
            if size.shrink {
                self.commit_shrink(size.stamp, sector_bytes);
            }
        }
    }

    fn commit_shrink(&mut self, stamp: u64, sector_bytes: usize) {
        let durable = &mut self.durable;
        self.pending.retain(|index, versions| {
            let wanted = |version: &Version| version.stamp == stamp && version.shrink;
            commit_block(durable, *index, versions, stamp, sector_bytes, wanted);
            !versions.is_empty()
        });
    }

    /// What a power loss leaves; afterwards view and durable bytes are equal.
    pub fn lose_power(&mut self, mode: CrashMode, crash: &mut Crash<'_>) {
        assert!(mode != CrashMode::Kill);
        let newest = self.newest_stamp();
        let cut = match mode {
            CrashMode::Kill | CrashMode::PowerAllLost => 0,
            CrashMode::PowerAllKept => u64::MAX,
            CrashMode::PowerPrefix => crash.prefix(&self.stamps()),
            CrashMode::PowerSectors | CrashMode::PowerGarbage => {
                let choice = crash.below(self.pending_sizes.len() as u64 + 1) as usize;
                let chosen = choice.checked_sub(1).map(|index| self.pending_sizes[index]);
                chosen.map_or(0, |size| size.stamp)
            }
        };
        assert!(cut == u64::MAX || cut <= newest);
        self.commit_sizes(cut, crash.sector_bytes, |_| true);
        for (index, versions) in std::mem::take(&mut self.pending) {
            self.choose_sectors(index, &versions, mode, cut, crash);
        }
        self.pending_sizes.clear();
        // Sectors beyond the size that was kept are gone.
        let size_bytes = self.durable.size_bytes();
        self.durable.set_size(u64::MAX >> 1);
        self.durable.set_size(size_bytes);
        self.view = self.durable.clone();
    }

    fn choose_sectors(
        &mut self,
        index: u64,
        versions: &[Version],
        mode: CrashMode,
        cut: u64,
        crash: &mut Crash<'_>,
    ) {
        let bytes = crash.sector_bytes;
        for sector in 0..BLOCK / bytes {
            let holds = |version: &&Version| !version.shrink && version.sectors & 1 << sector != 0;
            let candidates: Vec<&Version> = versions.iter().filter(holds).collect();
            if candidates.is_empty() {
                continue;
            }
            let chosen = match mode {
                CrashMode::Kill | CrashMode::PowerAllLost => None,
                CrashMode::PowerAllKept | CrashMode::PowerPrefix => {
                    candidates.iter().rev().find(|version| version.stamp <= cut)
                }
                CrashMode::PowerSectors | CrashMode::PowerGarbage => {
                    let choice = crash.below(candidates.len() as u64 + 1) as usize;
                    choice.checked_sub(1).map(|index| &candidates[index])
                }
            };
            let newest = candidates.last().is_some_and(|version| version.in_flight);
            let kept = chosen.is_some_and(|version| version.in_flight);
            crash.in_flight_kept += u64::from(newest && kept);
            crash.in_flight_lost += u64::from(newest && !kept);
            let Some(version) = chosen else {
                continue;
            };
            let range = sector * bytes..(sector + 1) * bytes;
            let target = &mut self.durable.block_mut(index)[range.clone()];
            target.copy_from_slice(&version.block[range]);
            if mode == CrashMode::PowerGarbage && version.in_flight {
                crash.spoil(target);
            }
        }
    }

    fn stamps(&self) -> Vec<u64> {
        let versions = self.pending.values().flatten();
        let mut stamps: Vec<u64> = versions.map(|version| version.stamp).collect();
        stamps.extend(self.pending_sizes.iter().map(|size| size.stamp));
        stamps.sort_unstable();
        stamps.dedup();
        stamps
    }

    fn newest_stamp(&self) -> u64 {
        self.stamps().last().copied().unwrap_or(0)
    }

    /// Drop the bytes that reads see: the file has no name and no handle any more.
    pub fn release_view(&mut self) {
        self.view = Content::default();
    }

    /// Change the durable bytes and the view alike: damage by the world, not by a write.
    pub fn damage(&mut self, offset: u64, bytes: &[u8]) {
        for content in [&mut self.view, &mut self.durable] {
            for (index, byte) in bytes.iter().enumerate() {
                let position = offset + index as u64;
                let within = (position % BLOCK as u64) as usize;
                content.write_within(position / BLOCK as u64, within, &[*byte]);
            }
        }
    }

    /// Give the file exactly these bytes, durable.
    pub fn plant(&mut self, bytes: &[u8]) {
        let volatile = self.volatile;
        *self = FileState::default();
        self.volatile = true;
        if !bytes.is_empty() {
            let mark = Mark { stamp: 0, sector_bytes: BLOCK, in_flight: false };
            self.write(0, bytes, mark);
        }
        self.durable = self.view.clone();
        self.volatile = volatile;
    }
}

/// How a change is written down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub stamp: u64,
    pub sector_bytes: usize,
    pub in_flight: bool,
}

/// The draws of one file in one crash.
pub(crate) struct Crash<'a> {
    pub draws: &'a mut Draws,
    pub entity: u64,
    pub sector_bytes: usize,
    /// Sectors of writes in flight that the crash kept.
    pub in_flight_kept: u64,
    /// And those that it did not keep.
    pub in_flight_lost: u64,
}

impl Crash<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.draws.below(Stream::CrashFile, self.entity, bound)
    }

    /// The last stamp of a drawn prefix, 0 for the empty one.
    fn prefix(&mut self, stamps: &[u64]) -> u64 {
        let length = self.below(stamps.len() as u64 + 1) as usize;
        length.checked_sub(1).map_or(0, |index| stamps[index])
    }

    /// In a third of the cases make the left half, the right half or all of a sector garbage.
    fn spoil(&mut self, sector: &mut [u8]) {
        if self.below(3) > 0 {
            return;
        }
        let half = sector.len() / 2;
        let part = match self.below(3) {
            0 => &mut sector[..half],
            1 => &mut sector[half..],
            _ => sector,
        };
        self.draws.fill(Stream::CrashFile, self.entity, part);
    }
}

/// Whether a block's page counts as written and is not.
fn is_clean(versions: &[Version]) -> bool {
    let mut written = versions.iter().filter(|version| !version.shrink).peekable();
    written.peek().is_some() && written.all(|version| version.clean)
}

/// Make the newest `wanted` version of each sector durable and forget what it overtook.
fn commit_block(
    durable: &mut Content,
    index: u64,
    versions: &mut Vec<Version>,
    stamp: u64,
    sector_bytes: usize,
    wanted: impl Fn(&Version) -> bool,
) {
    let mut covered = 0u8;
    for version in versions.iter_mut().rev().filter(|version| version.stamp <= stamp) {
        let taken = version.sectors & !covered;
        if wanted(version) {
            copy_sectors(durable, index, version, taken, sector_bytes);
            covered |= version.sectors;
        }
        version.sectors &= !covered;
    }
    versions.retain(|version| version.sectors != 0);
}

fn copy_sectors(
    durable: &mut Content,
    index: u64,
    version: &Version,
    sectors: u8,
    sector_bytes: usize,
) {
    if sectors == 0 {
        return;
    }
    if sectors == sector_mask(0, BLOCK, sector_bytes) {
        durable.set_block(index, version.block.clone());
        return;
    }
    let target = durable.block_mut(index);
    for sector in (0..BLOCK / sector_bytes).filter(|sector| sectors & 1 << sector != 0) {
        let range = sector * sector_bytes..(sector + 1) * sector_bytes;
        target[range.clone()].copy_from_slice(&version.block[range]);
    }
}

/// Bits of the sectors that `length` bytes at `within` touch.
fn sector_mask(within: usize, length: usize, sector_bytes: usize) -> u8 {
    assert!(length > 0 && within + length <= BLOCK);
    let first = within / sector_bytes;
    let last = (within + length - 1) / sector_bytes;
    (first..=last).fold(0, |mask, sector| mask | 1 << sector)
}
