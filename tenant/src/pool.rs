//! A slab whose keys know which occupant they mean.

use slab::Slab;

/// Key of an entry: a dead one finds nothing, whoever lives in its place now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Slab index.
    pub index: u32,
    /// Which occupant.
    pub generation: u32,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Pool<T> {
    entries: Slab<(u32, T)>,
    next_generation: u32,
}

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool { entries: Slab::new(), next_generation: 0 }
    }
}

impl<T> Pool<T> {
    /// Put an entry in.
    pub fn insert(&mut self, value: T) -> Key {
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let index = self.entries.insert((generation, value));
        Key { index: u32::try_from(index).expect("entries fit in 32 bits"), generation }
    }

    /// The entry, if its occupant is still the one that the key means.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.entries.get(key.index as usize)?;
        (*generation == key.generation).then_some(value)
    }

    /// The entry for changing.
    #[must_use]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(key.index as usize)?;
        (*generation == key.generation).then_some(value)
    }

    /// Take the entry out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.entries.remove(key.index as usize).1)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry at this place or after it; from the beginning if there is none.
    #[must_use]
    pub fn next_from(&self, index: u32) -> Option<Key> {
        if self.entries.is_empty() {
            return None;
        }
        let capacity = self.entries.capacity();
        let start = (index as usize).min(capacity);
        (start..capacity).chain(0..start).find_map(|index| {
            let (generation, _) = self.entries.get(index)?;
            Some(Key { index: index as u32, generation: *generation })
        })
    }

    /// Keys of all entries, in order of their places.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let key = |(index, (generation, _)): (usize, &(u32, T))| Key {
            index: index as u32,
            generation: *generation,
        };
        self.entries.iter().map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_key_finds_nothing() {
        let mut pool = Pool::default();
        let first = pool.insert("a");
        assert_eq!(pool.remove(first), Some("a"));
        let second = pool.insert("b");
        assert_eq!(first.index, second.index);
        assert_eq!((pool.get(first), pool.get(second)), (None, Some(&"b")));
        assert_eq!(pool.remove(first), None);
        assert_eq!(pool.keys(), [second]);
    }
}
