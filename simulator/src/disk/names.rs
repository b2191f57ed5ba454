//! Names of files and directories: what lookups see, what is durable, and the operations between.
//!
//! Directories and files are numbered nodes; a name is a pair (directory, text). Every change is an
//! operation that waits for a directory sync. At a power loss some operations are kept: a prefix of
//! them (ext4), or each by itself (posix), except that an operation is undone with an earlier one
//! on the same name, because a slot of a directory holds one entry at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::CrashMode;
use crate::draws::{Draws, Stream};
use crate::faults::NamespaceModel;

/// A file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub u64);

/// The data folder.
pub(crate) const ROOT: NodeId = NodeId(0);

/// A name in a directory.
pub(crate) type Name = (NodeId, String);

#[derive(Clone, Debug)]
enum Change {
    Link { name: Name, node: NodeId },
    Unlink { name: Name },
    Rename { from: Name, to: Name, node: NodeId },
}

#[derive(Clone, Debug)]
struct Operation {
    stamp: u64,
    change: Change,
}

/// All names of a disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    view: BTreeMap<Name, NodeId>,
    durable: BTreeMap<Name, NodeId>,
    pending: Vec<Operation>,
}

impl Names {
    pub fn lookup(&self, name: &Name) -> Option<NodeId> {
        self.view.get(name).copied()
    }

    /// What a name refers to after a power loss that keeps nothing else.
    pub fn lookup_durable(&self, name: &Name) -> Option<NodeId> {
        self.durable.get(name).copied()
    }

    /// Names in a directory, as lookups see them.
    pub fn list(&self, directory: NodeId) -> impl Iterator<Item = (&str, NodeId)> {
        let start = (directory, String::new());
        let entries = self.view.range(start..);
        let inside = entries.take_while(move |((parent, _), _)| *parent == directory);
        inside.map(|((_, text), node)| (text.as_str(), *node))
    }

    pub fn link(&mut self, name: Name, node: NodeId, stamp: u64) {
        self.change(Change::Link { name, node }, stamp);
    }

    pub fn unlink(&mut self, name: Name, stamp: u64) {
        self.change(Change::Unlink { name }, stamp);
    }

    pub fn rename(&mut self, from: Name, to: Name, stamp: u64) {
        let node = self.view[&from];
        self.change(Change::Rename { from, to, node }, stamp);
    }

    /// Link a name durably: furniture of a test, not an operation.
    pub fn plant(&mut self, name: Name, node: NodeId) {
        self.view.insert(name.clone(), node);
        self.durable.insert(name, node);
    }

    fn change(&mut self, change: Change, stamp: u64) {
        apply(&mut self.view, &change);
        self.pending.push(Operation { stamp, change });
    }

    /// Whether a power loss could change a name.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Make every operation up to `stamp` durable (ext4: any sync commits the journal).
    pub fn sync_all(&mut self, stamp: u64) {
        let operations = std::mem::take(&mut self.pending);
        for operation in operations {
            if operation.stamp <= stamp {
                apply(&mut self.durable, &operation.change);
            } else {
                self.pending.push(operation);
            }
        }
    }

    /// Make the operations of one directory up to `stamp` durable, and those earlier ones on other
    /// directories that share a name with them.
    pub fn sync_directory(&mut self, directory: NodeId, stamp: u64) {
        let mut tied: BTreeSet<Name> = BTreeSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (index, operation) in self.pending.iter().enumerate().rev() {
            let names = operation.change.names();
            let inside = names.iter().any(|name| name.0 == directory);
            if operation.stamp <= stamp && (inside || names.iter().any(|n| tied.contains(*n))) {
                chosen[index] = true;
                tied.extend(names.into_iter().cloned());
            }
        }
        let operations = std::mem::take(&mut self.pending);
        for (operation, chosen) in operations.into_iter().zip(chosen) {
            if chosen {
                apply(&mut self.durable, &operation.change);
            } else {
                self.pending.push(operation);
            }
        }
    }

    /// What a power loss leaves; afterwards view and durable names are equal. Gives how many
    /// changes were undone.
    pub fn lose_power(&mut self, mode: CrashMode, model: NamespaceModel, draws: &mut Draws) -> u64 {
        let operations = std::mem::take(&mut self.pending);
        let count = operations.len() as u64;
        let independent = model == NamespaceModel::Posix
            && matches!(mode, CrashMode::PowerSectors | CrashMode::PowerGarbage);
        let prefix = match mode {
            CrashMode::Kill | CrashMode::PowerAllLost => 0,
            CrashMode::PowerAllKept => count,
            _ if independent => count,
            _ => draws.below(Stream::CrashNames, 0, count + 1),
        };
        let mut lost = count - prefix;
        let mut undone: BTreeSet<Name> = BTreeSet::new();
        for operation in operations.into_iter().take(prefix as usize) {
            let names = operation.change.names();
            let blocked = names.iter().any(|name| undone.contains(*name));
            let kept = !independent || draws.below(Stream::CrashNames, 1, 2) == 0;
            if kept && !blocked {
                apply(&mut self.durable, &operation.change);
            } else {
                lost += 1;
                undone.extend(names.into_iter().cloned());
            }
        }
        self.view = self.durable.clone();
        lost
    }

    /// Nodes that any name, durable, seen or pending, refers to.
    pub fn referenced(&self) -> BTreeSet<NodeId> {
        let named = self.view.values().chain(self.durable.values()).copied();
        let pending = self.pending.iter().filter_map(|operation| operation.change.node());
        named.chain(pending).collect()
    }

    /// Nodes that lookups can reach from the root.
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        let mut reached = BTreeSet::from([ROOT]);
        let mut waiting = vec![ROOT];
        while let Some(directory) = waiting.pop() {
            for (_, node) in self.list(directory) {
                if reached.insert(node) {
                    waiting.push(node);
                }
            }
        }
        reached
    }

    /// Forget names in directories that nobody can reach.
    pub fn prune(&mut self, reachable: &BTreeSet<NodeId>) {
        assert!(self.pending.is_empty());
        self.view.retain(|name, _| reachable.contains(&name.0));
        self.durable.retain(|name, _| reachable.contains(&name.0));
    }
}

impl Change {
    fn names(&self) -> Vec<&Name> {
        match self {
            Change::Link { name, .. } | Change::Unlink { name } => vec![name],
            Change::Rename { from, to, .. } => vec![from, to],
        }
    }

    fn node(&self) -> Option<NodeId> {
        match self {
            Change::Link { node, .. } | Change::Rename { node, .. } => Some(*node),
            Change::Unlink { .. } => None,
        }
    }
}

fn apply(names: &mut BTreeMap<Name, NodeId>, change: &Change) {
    match change {
        Change::Link { name, node } => {
            names.insert(name.clone(), *node);
        }
        Change::Unlink { name } => {
            names.remove(name);
        }
        Change::Rename { from, to, node } => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}
