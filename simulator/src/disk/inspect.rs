//! The disk seen and touched from outside: white-box readers for oracles, the operator's hand.
//!
//! Readers see the disk without faults and draw nothing.

use std::io;
use std::path::Path;

use super::{Node, SimulatedDisk};

impl SimulatedDisk {
    /// White box: the bytes that reads of this path see, `None` if there is no such file.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        match &self.nodes[&self.resolve(path).ok()?] {
            Node::File(file) => Some(file.state.view().to_vec()),
            Node::Directory => None,
        }
    }

    /// White box: the durable bytes of the file that this path names now.
    #[must_use]
    pub fn durable_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        match &self.nodes[&self.resolve(path).ok()?] {
            Node::File(file) => Some(file.state.durable().to_vec()),
            Node::Directory => None,
        }
    }

    /// White box: whether a path names a file or directory now.
    #[must_use]
    pub fn exists(&self, path: &Path) -> bool {
        self.resolve(path).is_ok()
    }

    /// White box: the paths of all files, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.files().into_iter().map(|(path, _)| path).collect()
    }

    /// The operator puts a file there, durable, parents included.
    ///
    /// # Errors
    /// If the path runs through a file or the disk is full.
    pub fn plant(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents.into_iter().skip(1) {
            if !self.exists(parent) {
                let name = self.resolve_name(parent)?;
                let node = self.add_node(Node::Directory)?;
                self.names.plant(name, node);
            }
        }
        let name = self.resolve_name(path)?;
        let node = match self.names.lookup(&name) {
            Some(node) => node,
            None => self.add_node(Node::File(Box::default()))?,
        };
        if matches!(self.nodes[&node], Node::Directory) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.names.plant(name, node);
        let file = self.file_mut(node);
        file.named = true;
        file.state.plant(bytes);
        self.ledger.heal(Some(node));
        self.count_blocks();
        Ok(())
    }

    /// Overwrite bytes of a file behind everyone's back, in what reads see and what is durable.
    ///
    /// # Errors
    /// If there is no such file, or it ends before the damage does.
    pub fn damage(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let node = self.resolve(path)?;
        let Some(Node::File(file)) = self.nodes.get_mut(&node) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let end = offset.saturating_add(bytes.len() as u64);
        if end > file.state.view().size_bytes() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.state.damage(offset, bytes);
        self.count_blocks();
        Ok(())
    }
}
