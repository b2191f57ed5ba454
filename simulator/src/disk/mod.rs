//! The simulated disk: it outlives the servers that use it, and remembers what was durable.
//!
//! Owns nodes, names, open descriptions, locks and the space account. Knows no time: an operation
//! takes effect when the Io calls it, at the moment of its completion. Faults are the Io's too,
//! except what a crash keeps, which is decided here. White-box readers (`bytes`, `durable_bytes`,
//! `paths`) see the disk without faults and draw nothing, so oracles cannot disturb a run.
//!
//! Direct and buffered handles see the same bytes as long as nothing is damaged and no sync failed:
//! the kernel writes dirty pages back before a direct read. A page that counts as clean and is not
//! on the disk, and a mask of `ledger` over a cached page, are what direct reads see and buffered
//! ones do not. What also differs is what a kill does to a write in flight, see `crash`.

mod atlas;
mod content;
mod crash;
mod damage;
#[cfg(test)]
mod damage_tests;
mod durable;
mod file;
mod inspect;
mod ledger;
mod names;
#[cfg(test)]
mod tests;

pub use crash::CrashMode;
pub(crate) use crash::{InFlightWrite, LateWrite};
pub use damage::Rot;
pub use ledger::{Damage, Hit, Ledger};

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use storage::io::{BLOCK_BYTES, Create, FileId, OpenOptions};

use crate::faults::{Faults, NamespaceModel, SyncSemantics};
use crate::limits::{FILE_BYTES_MAX, NAME_BYTES_MAX};
use content::BLOCK;
use crash::CrashCounts;
use file::{FileState, Mark};
use names::{Name, Names, NodeId, ROOT};

/// Files and directories of one data folder.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    sector_bytes: usize,
    namespace_model: NamespaceModel,
    blocks_max: u64,
    blocks_used: u64,
    names: Names,
    nodes: BTreeMap<NodeId, Node>,
    next_node: u64,
    next_stamp: u64,
    orphan_count: usize,
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    sync_semantics: SyncSemantics,
    /// Files of which a sync failed in silence: the next one reports it.
    late_errors: BTreeSet<NodeId>,
    ledger: Ledger,
    /// Let one fact be struck twice, see `atlas`.
    double_faults: bool,
    crash_counts: CrashCounts,
}

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File(Box<FileNode>),
}

#[derive(Clone, Debug, Default)]
struct FileNode {
    state: FileState,
    /// Lookups find it.
    named: bool,
    /// Open descriptions.
    open_count: u32,
    /// Who holds the flock.
    locked_by: Option<FileId>,
}

#[derive(Clone, Debug)]
struct Slot {
    generation: u32,
    description: Option<Description>,
}

/// An open file as the kernel sees it.
#[derive(Clone, Copy, Debug)]
struct Description {
    node: NodeId,
    options: OpenOptions,
}

impl SimulatedDisk {
    /// An empty disk with the sector size, namespace model and size of `faults`.
    #[must_use]
    pub fn new(faults: &Faults) -> SimulatedDisk {
        faults.assert_sound();
        SimulatedDisk {
            sector_bytes: faults.sector_bytes,
            namespace_model: faults.namespace_model,
            blocks_max: faults.disk_bytes_max / BLOCK as u64,
            blocks_used: 1,
            names: Names::default(),
            nodes: BTreeMap::from([(ROOT, Node::Directory)]),
            next_node: ROOT.0 + 1,
            next_stamp: 1,
            orphan_count: 0,
            slots: Vec::new(),
            free_slots: Vec::new(),
            sync_semantics: faults.sync_semantics,
            late_errors: BTreeSet::new(),
            ledger: Ledger::default(),
            double_faults: faults.double_faults,
            crash_counts: CrashCounts::default(),
        }
    }

    /// Bytes of the disk in use: data blocks, and one block for each file and directory.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.blocks_used * BLOCK as u64
    }

    /// Change the size of the disk: an operator fills it up or frees it.
    pub fn set_size(&mut self, bytes_max: u64) {
        self.blocks_max = bytes_max / BLOCK as u64;
    }

    /// Open descriptions, those of killed processes' in-flight writes included.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    /// Whether a power loss could lose something.
    #[must_use]
    pub fn has_unsynced(&self) -> bool {
        let unsynced = |node: &Node| match node {
            Node::File(file) => file.state.has_pending(),
            Node::Directory => false,
        };
        self.names.has_pending() || self.nodes.values().any(unsynced)
    }

    /// The moment of the last change; a sync asked for now covers everything up to it.
    pub(crate) fn stamp(&self) -> u64 {
        self.next_stamp - 1
    }

    fn mark(&mut self) -> Mark {
        self.next_stamp += 1;
        Mark { stamp: self.next_stamp - 1, sector_bytes: self.sector_bytes, in_flight: false }
    }

    /// The number of an open file's node, for draws and the trace.
    pub(crate) fn entity(&self, file: FileId) -> u64 {
        self.description(file).node.0
    }

    pub(crate) fn options(&self, file: FileId) -> OpenOptions {
        self.description(file).options
    }

    fn description(&self, file: FileId) -> Description {
        let slot = &self.slots[file.index as usize];
        assert!(slot.generation == file.generation, "the file is closed");
        slot.description.expect("the file is open")
    }

    fn file(&self, node: NodeId) -> &FileNode {
        match &self.nodes[&node] {
            Node::File(file) => file,
            Node::Directory => unreachable!("descriptions refer to files"),
        }
    }

    fn file_mut(&mut self, node: NodeId) -> &mut FileNode {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => file,
            _ => unreachable!("descriptions refer to files"),
        }
    }

    /// The node of a path, which must exist.
    fn resolve(&self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for component in path.components() {
            if !matches!(self.nodes[&node], Node::Directory) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            let name = (node, text_of(component)?);
            node = self.names.lookup(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    /// The directory and last component of a path; the directory must exist.
    fn resolve_name(&self, path: &Path) -> io::Result<Name> {
        let last = path.components().next_back();
        let text = text_of(last.ok_or(io::ErrorKind::InvalidInput)?)?;
        let directory = self.resolve(path.parent().unwrap_or(Path::new("")))?;
        match self.nodes[&directory] {
            Node::Directory => Ok((directory, text)),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn take_blocks(&mut self, count: u64) -> io::Result<()> {
        if self.blocks_used + count > self.blocks_max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.blocks_used += count;
        Ok(())
    }

    fn add_node(&mut self, node: Node) -> io::Result<NodeId> {
        self.take_blocks(1)?;
        let id = NodeId(self.next_node);
        self.next_node += 1;
        self.nodes.insert(id, node);
        Ok(id)
    }

    /// As `Disk::open`.
    pub(crate) fn open(&mut self, path: &Path, options: OpenOptions) -> io::Result<(FileId, u64)> {
        let node = match options.create {
            Create::Unnamed => self.create_unnamed(path)?,
            Create::Never => self.resolve(path)?,
            Create::IfMissing => {
                let name = self.resolve_name(path)?;
                match self.names.lookup(&name) {
                    Some(node) => node,
                    None => self.create_named(name)?,
                }
            }
        };
        if matches!(self.nodes[&node], Node::Directory) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if options.lock && self.file(node).locked_by.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let file = self.add_description(Description { node, options });
        let state = self.file_mut(node);
        state.open_count += 1;
        if options.lock {
            state.locked_by = Some(file);
        }
        Ok((file, state.state.view().size_bytes()))
    }

    fn create_unnamed(&mut self, directory: &Path) -> io::Result<NodeId> {
        let directory = self.resolve(directory)?;
        if !matches!(self.nodes[&directory], Node::Directory) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut file = FileNode::default();
        file.state.volatile = true;
        self.add_node(Node::File(Box::new(file)))
    }

    fn create_named(&mut self, name: Name) -> io::Result<NodeId> {
        let file = FileNode { named: true, ..FileNode::default() };
        let node = self.add_node(Node::File(Box::new(file)))?;
        let stamp = self.mark().stamp;
        self.names.link(name, node, stamp);
        Ok(node)
    }

    fn add_description(&mut self, description: Description) -> FileId {
        let index = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, description: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.description.is_none());
        slot.description = Some(description);
        FileId { index, generation: slot.generation }
    }

    /// As `Disk::close_file`.
    pub(crate) fn close(&mut self, file: FileId) {
        let node = self.description(file).node;
        let slot = &mut self.slots[file.index as usize];
        slot.description = None;
        slot.generation += 1;
        self.free_slots.push(file.index);
        let state = self.file_mut(node);
        assert!(state.open_count > 0);
        state.open_count -= 1;
        if state.locked_by == Some(file) {
            state.locked_by = None;
        }
        self.release_if_unused(node);
    }

    /// Free the space of a file without name and handle. Its durable bytes stay until the removal
    /// of its name is durable: a power loss may bring it back.
    fn release_if_unused(&mut self, node: NodeId) {
        let file = self.file_mut(node);
        if file.named || file.open_count > 0 {
            return;
        }
        let blocks = file.state.view().block_count() + 1;
        let volatile = file.state.volatile;
        file.state.release_view();
        self.blocks_used -= blocks;
        if volatile {
            self.nodes.remove(&node);
        } else {
            self.orphan_count += 1;
        }
    }

    /// As `Disk::read`; the alignment of direct handles was checked by `check_transfer`. Fails on a
    /// sector that cannot be read.
    pub(crate) fn read(
        &mut self,
        file: FileId,
        offset: u64,
        target: &mut [u8],
    ) -> io::Result<usize> {
        let Description { node, options } = self.description(file);
        let state = &self.file(node).state;
        let count = match options.direct {
            true => state.read_direct(offset, target),
            false => state.view().read(offset, target),
        };
        if self.ledger.meet(node, offset, &mut target[..count], options.direct) {
            return Ok(count);
        }
        Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR))
    }

    /// Whether the kernel would take this transfer at all.
    pub(crate) fn check_transfer(
        &self,
        file: FileId,
        offset: u64,
        length: usize,
        write: bool,
    ) -> io::Result<()> {
        let options = self.description(file).options;
        if write && !options.write {
            return Err(io::Error::from_raw_os_error(BAD_DESCRIPTOR));
        }
        let block = BLOCK_BYTES as u64;
        let aligned = offset.is_multiple_of(block) && (length as u64).is_multiple_of(block);
        if options.direct && !aligned {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let end = offset.checked_add(length as u64);
        match end {
            Some(end) if end <= FILE_BYTES_MAX || !write => Ok(()),
            None => Err(io::ErrorKind::InvalidInput.into()),
            Some(_) => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    /// As `Disk::write`: all of `bytes`, or, when the disk fills up, as many as there is room for.
    pub(crate) fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let Description { node, options } = self.description(file);
        let mut count = bytes.len();
        let room = self.blocks_max.saturating_sub(self.blocks_used);
        while self.file(node).state.blocks_missing(offset, count) > room {
            let end = offset + count as u64;
            let over = (end - 1) % BLOCK as u64 + 1;
            count = count.saturating_sub(over as usize);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let missing = self.file(node).state.blocks_missing(offset, count);
        self.take_blocks(missing)?;
        let mark = self.mark();
        let sector_bytes = self.sector_bytes;
        let state = &mut self.file_mut(node).state;
        state.write(offset, &bytes[..count], mark);
        if options.data_sync {
            state.sync_write(mark.stamp, offset, count, sector_bytes);
        }
        self.ledger.written(node, offset, &bytes[..count]);
        Ok(count)
    }

    /// As `Disk::sync`, covering what was written up to `stamp`. Fails if an earlier one failed in
    /// silence; what is dirty now becomes durable all the same.
    pub(crate) fn sync(&mut self, file: FileId, stamp: u64) -> io::Result<()> {
        let node = self.description(file).node;
        let sector_bytes = self.sector_bytes;
        self.file_mut(node).state.sync(stamp, sector_bytes);
        if self.namespace_model == NamespaceModel::Ext4 {
            self.names.sync_all(stamp);
        }
        if self.late_errors.remove(&node) {
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
        }
        Ok(())
    }

    /// A sync that failed: what it covered counts as clean and is not durable. Whether the caller
    /// hears of it now, by this world's [`SyncSemantics`]; a data-sync handle always does.
    pub(crate) fn fail_sync(&mut self, file: FileId, stamp: u64) -> bool {
        let Description { node, options } = self.description(file);
        let (semantics, sector_bytes) = (self.sync_semantics, self.sector_bytes);
        let state = &mut self.file_mut(node).state;
        match semantics {
            SyncSemantics::Reverted => state.revert_sync(stamp, sector_bytes),
            SyncSemantics::Kept | SyncSemantics::Late => state.fail_sync(stamp),
        }
        let late = semantics == SyncSemantics::Late && !options.data_sync;
        if late {
            self.late_errors.insert(node);
        }
        !late
    }

    /// As `Disk::truncate`.
    pub(crate) fn truncate(&mut self, file: FileId, size_bytes: u64) -> io::Result<()> {
        self.check_resize(file, size_bytes)?;
        let node = self.description(file).node;
        let mark = self.mark();
        let state = &mut self.file_mut(node).state;
        let before = state.view().block_count();
        state.truncate(size_bytes, mark);
        let after = state.view().block_count();
        assert!(after <= before);
        self.blocks_used -= before - after;
        self.ledger.cut(node, size_bytes);
        Ok(())
    }

    /// As `Disk::allocate`.
    pub(crate) fn allocate(&mut self, file: FileId, size_bytes: u64) -> io::Result<()> {
        self.check_resize(file, size_bytes)?;
        let node = self.description(file).node;
        let missing = self.file(node).state.view().missing_blocks(size_bytes);
        self.take_blocks(missing)?;
        let mark = self.mark();
        let state = &mut self.file_mut(node).state;
        state.reserve(size_bytes);
        if size_bytes > state.view().size_bytes() {
            state.truncate(size_bytes, mark);
            return Ok(());
        }
        self.truncate(file, size_bytes)
    }

    fn check_resize(&self, file: FileId, size_bytes: u64) -> io::Result<()> {
        if !self.description(file).options.write {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if size_bytes > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(())
    }

    /// As `Disk::make_directory`.
    pub(crate) fn make_directory(&mut self, path: &Path) -> io::Result<()> {
        let name = self.resolve_name(path)?;
        if self.names.lookup(&name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.add_node(Node::Directory)?;
        let stamp = self.mark().stamp;
        self.names.link(name, node, stamp);
        Ok(())
    }

    /// As `Disk::sync_directory`, covering what was done up to `stamp`.
    pub(crate) fn sync_directory(&mut self, path: &Path, stamp: u64) -> io::Result<()> {
        let directory = self.resolve(path)?;
        if !matches!(self.nodes[&directory], Node::Directory) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        match self.namespace_model {
            NamespaceModel::Posix => self.names.sync_directory(directory, stamp),
            NamespaceModel::Ext4 => self.names.sync_all(stamp),
        }
        // Amortised: a pass over all names only when a good part of the nodes may be garbage.
        if self.orphan_count > 64 + self.nodes.len() / 4 {
            self.collect_orphans();
        }
        Ok(())
    }

    /// As `Disk::rename`.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let from_name = self.resolve_name(from)?;
        let to_name = self.resolve_name(to)?;
        let node = self.names.lookup(&from_name);
        let node = node.ok_or(io::ErrorKind::NotFound)?;
        if from_name == to_name {
            return Ok(());
        }
        let source_is_directory = matches!(self.nodes[&node], Node::Directory);
        if source_is_directory && to.starts_with(from) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let replaced = self.names.lookup(&to_name);
        if let Some(replaced) = replaced {
            let target_is_directory = matches!(self.nodes[&replaced], Node::Directory);
            match (source_is_directory, target_is_directory) {
                (false, true) => return Err(io::ErrorKind::IsADirectory.into()),
                (true, false) => return Err(io::ErrorKind::NotADirectory.into()),
                (true, true) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (false, false) => {}
            }
        }
        let stamp = self.mark().stamp;
        self.names.rename(from_name, to_name, stamp);
        if let Some(replaced) = replaced {
            self.file_mut(replaced).named = false;
            self.ledger.heal(Some(replaced));
            self.release_if_unused(replaced);
        }
        Ok(())
    }

    /// As `Disk::remove`.
    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let name = self.resolve_name(path)?;
        let node = self.names.lookup(&name).ok_or(io::ErrorKind::NotFound)?;
        if matches!(self.nodes[&node], Node::Directory) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let stamp = self.mark().stamp;
        self.names.unlink(name, stamp);
        self.file_mut(node).named = false;
        self.ledger.heal(Some(node));
        self.release_if_unused(node);
        Ok(())
    }

    /// Drop nodes that no name, durable, seen or pending, can bring back.
    fn collect_orphans(&mut self) {
        let referenced = self.names.referenced();
        self.nodes.retain(|id, node| match node {
            Node::Directory => true,
            Node::File(file) => file.open_count > 0 || referenced.contains(id),
        });
        let left = self.nodes.keys().copied().collect();
        self.ledger.retain_nodes(&left);
        self.orphan_count = 0;
    }

    /// Count the used blocks afresh, after changes outside of the ordinary operations.
    fn count_blocks(&mut self) {
        let blocks = |node: &Node| match node {
            Node::Directory => 1,
            Node::File(file) if file.named || file.open_count > 0 => {
                1 + file.state.view().block_count()
            }
            Node::File(_) => 0,
        };
        self.blocks_used = self.nodes.values().map(blocks).sum();
    }
}

/// EIO, the same number on every Unix.
const INPUT_OUTPUT_ERROR: i32 = 5;

/// EBADF, the same number on every Unix.
const BAD_DESCRIPTOR: i32 = 9;

fn text_of(component: Component<'_>) -> io::Result<String> {
    let Component::Normal(text) = component else {
        // The seam promises relative paths without `..`; a kernel would not mind, we do.
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let text = text.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    if text.len() > NAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    Ok(text.to_owned())
}
