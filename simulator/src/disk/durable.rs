//! What is durable: the bytes that a power loss would leave, under names that it would leave.
//!
//! For oracles: reads without faults, and draws nothing.

use std::io;
use std::path::Path;

use super::names::ROOT;
use super::{Node, SimulatedDisk, text_of};

impl SimulatedDisk {
    /// The operator removes a file, for good.
    ///
    /// # Errors
    /// As `Disk::remove`.
    pub fn remove_durably(&mut self, path: &Path) -> io::Result<()> {
        self.remove(path)?;
        self.sync_directory(path.parent().unwrap_or(Path::new("")), self.stamp())
    }

    /// White box: copy durable bytes from `offset` of the file that `path` durably names; returns
    /// how many there are before its durable end, `None` if there is no such file.
    #[must_use]
    pub fn durable_at(&self, path: &Path, offset: u64, target: &mut [u8]) -> Option<usize> {
        let mut node = ROOT;
        for component in path.components() {
            let name = (node, text_of(component).ok()?);
            node = self.names.lookup_durable(&name)?;
        }
        match self.nodes.get(&node)? {
            Node::File(file) => Some(file.state.durable().read(offset, target)),
            Node::Directory => None,
        }
    }
}
