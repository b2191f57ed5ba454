//! Entries addressed by index and generation, so that a dead id is recognised and never reaches
//! the entry's next occupant. Leaves to its users what an entry is and when it may go.

use slab::Slab;

/// A slab whose keys carry a generation.
pub struct Table<T> {
    entries: Slab<(u32, T)>,
    /// Counts every insertion; wraps after 2^32 of them, when no id that old is still about.
    next_generation: u32,
}

impl<T> Table<T> {
    /// An empty table.
    pub fn new() -> Table<T> {
        Table { entries: Slab::new(), next_generation: 1 }
    }

    /// Add an entry; returns its index and generation.
    pub fn insert(&mut self, entry: T) -> (u32, u32) {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let index = self.entries.insert((generation, entry));
        let index = u32::try_from(index).expect("descriptors are fewer than 2^31");
        (index, generation)
    }

    /// The entry, unless this occupant is gone.
    pub fn find(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        match self.entries.get_mut(index as usize) {
            Some((current, entry)) if *current == generation => Some(entry),
            _ => None,
        }
    }

    /// Take the entry out, unless this occupant is gone already.
    pub fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        self.find(index, generation)?;
        Some(self.entries.remove(index as usize).1)
    }

    /// All entries, in index order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, (_, entry))| entry)
    }
}
