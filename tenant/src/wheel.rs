//! A hierarchical timer wheel: what is due when, in whole seconds.
//!
//! Six levels of 64 slots: a slot of the lowest is a second, of the next 64 seconds, and so on, up
//! to 2,177 years. An entry is in the level of the highest group of six bits in which its time
//! differs from the wheel's, in the slot that this group of its time names; so where it is follows
//! from the two times, and it can be taken out again. When the wheel's time comes to a slot of a
//! higher level, its entries move down. (Varghese and Lauck, "Hashed and hierarchical timing
//! wheels", 1987.)
//!
//! Cost: an entry is touched when it is put in, at most once for each level, and when it is due. What
//! is far away costs nothing meanwhile, and a jump of any length costs 384 looks beside the entries
//! that it passes.
//!
//! Invariant: an entry is in once, in its slot, or among those that are due once its time has come.

use std::collections::{BTreeMap, BTreeSet};

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;

/// Beyond this the wheel does not reach: such an entry is due then.
const LAST_S: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    now_s: u64,
    slots: Vec<BTreeSet<T>>,
    /// Which slots of each level hold something.
    taken: [u64; LEVELS],
    /// When each is due.
    due_s: BTreeMap<T, u64>,
    /// Those that are due.
    due: BTreeSet<T>,
}

impl<T: Copy + Ord> Wheel<T> {
    pub fn new() -> Wheel<T> {
        Wheel {
            now_s: 0,
            slots: std::iter::repeat_with(BTreeSet::new).take(LEVELS * SLOTS).collect(),
            taken: [0; LEVELS],
            due_s: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.due_s.len()
    }

    /// Where an entry of this time is; `None`: it is due.
    fn place(&self, due_s: u64) -> Option<(usize, usize)> {
        if due_s <= self.now_s {
            return None;
        }
        let differs = due_s ^ self.now_s;
        let level = (u64::BITS - 1 - differs.leading_zeros()) / SLOT_BITS;
        let slot = (due_s >> (level * SLOT_BITS)) as usize % SLOTS;
        Some((level as usize, slot))
    }

    /// Put an entry in, or change when it is due.
    pub fn insert(&mut self, entry: T, due_s: u64) {
        self.remove(entry);
        let due_s = due_s.min(LAST_S);
        self.due_s.insert(entry, due_s);
        self.put(entry, due_s);
    }

    fn put(&mut self, entry: T, due_s: u64) {
        match self.place(due_s) {
            None => assert!(self.due.insert(entry)),
            Some((level, slot)) => {
                self.taken[level] |= 1 << slot;
                assert!(self.slots[level * SLOTS + slot].insert(entry));
            }
        }
    }

    /// Take an entry out, if it is in.
    pub fn remove(&mut self, entry: T) {
        let Some(due_s) = self.due_s.remove(&entry) else { return };
        if self.due.remove(&entry) {
            return;
        }
        let (level, slot) = self.place(due_s).expect("what is not due is in a slot");
        let entries = &mut self.slots[level * SLOTS + slot];
        assert!(entries.remove(&entry));
        if entries.is_empty() {
            self.taken[level] &= !(1 << slot);
        }
    }

    /// When the wheel has something to do: an entry is due, or moves down.
    pub fn next_s(&self) -> Option<u64> {
        if !self.due.is_empty() {
            return Some(self.now_s);
        }
        self.next_slot_s()
    }

    /// When the next slot begins that holds something.
    fn next_slot_s(&self) -> Option<u64> {
        // Entries of a level are before those of all higher ones.
        let level = (0..LEVELS).find(|&level| self.taken[level] != 0)?;
        let slot = u64::from(self.taken[level].trailing_zeros());
        let shift = level as u32 * SLOT_BITS;
        let above = self.now_s >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        Some(above | slot << shift)
    }

    /// The time is `now_s`. Where that is before the last time, everything is put in anew: O(entries).
    pub fn advance(&mut self, now_s: u64) {
        let now_s = now_s.min(LAST_S);
        if now_s < self.now_s {
            self.slots.iter_mut().for_each(BTreeSet::clear);
            self.taken = [0; LEVELS];
            self.due.clear();
            self.now_s = now_s;
            for (entry, due_s) in self.due_s.clone() {
                self.put(entry, due_s);
            }
            return;
        }
        // What is due waits apart, so that the slots behind it are gone through as ever.
        let mut due = std::mem::take(&mut self.due);
        while let Some(next_s) = self.next_slot_s().filter(|&next_s| next_s <= now_s) {
            self.turn_to(next_s);
            due.append(&mut self.due);
        }
        self.turn_to(now_s);
        self.due.append(&mut due);
    }

    /// Go on to a time up to which no slot begins that holds something.
    fn turn_to(&mut self, now_s: u64) {
        let before = self.now_s;
        self.now_s = now_s;
        for level in 1..LEVELS {
            let shift = level as u32 * SLOT_BITS;
            if before >> shift == now_s >> shift {
                break;
            }
            self.empty(level, (now_s >> shift) as usize % SLOTS);
        }
        self.empty(0, now_s as usize % SLOTS);
    }

    /// Put the entries of a slot to where they belong now.
    fn empty(&mut self, level: usize, slot: usize) {
        if self.taken[level] & 1 << slot == 0 {
            return;
        }
        self.taken[level] &= !(1 << slot);
        for entry in std::mem::take(&mut self.slots[level * SLOTS + slot]) {
            let due_s = self.due_s[&entry];
            self.put(entry, due_s);
        }
    }

    /// Take one that is due.
    pub fn pop_due(&mut self) -> Option<T> {
        let entry = self.due.pop_first()?;
        self.due_s.remove(&entry);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wheel beside a list that is looked through each time.
    #[test]
    fn it_does_what_a_list_would() {
        let mut seed = 7u64;
        let mut draw = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for round in 0..200 {
            let mut wheel = Wheel::new();
            let mut list: BTreeMap<u64, u64> = BTreeMap::new();
            let mut now_s = draw(1 << 31);
            wheel.advance(now_s);
            for _ in 0..400 {
                match draw(8) {
                    0..=3 => {
                        let far = [3, 70, 5_000, 1 << 20, 1 << 30][draw(5) as usize];
                        let (entry, due_s) = (draw(50), now_s + draw(far));
                        wheel.insert(entry, due_s);
                        list.insert(entry, due_s);
                    }
                    4 => {
                        let entry = draw(50);
                        wheel.remove(entry);
                        list.remove(&entry);
                    }
                    5 if round % 4 == 0 => {
                        now_s -= draw(100).min(now_s);
                        wheel.advance(now_s);
                    }
                    _ => {
                        let far = [2, 70, 5_000, 1 << 22][draw(4) as usize];
                        now_s += draw(far);
                        wheel.advance(now_s);
                    }
                }
                let next_s = list.values().min().copied();
                assert_eq!(wheel.len(), list.len());
                assert!(wheel.next_s().is_some() == next_s.is_some());
                assert!(wheel.next_s() <= next_s.map(|next_s| next_s.max(now_s)));
                if draw(3) == 0 {
                    continue;
                }
                let mut popped = BTreeSet::new();
                while let Some(entry) = wheel.pop_due() {
                    assert!(popped.insert(entry));
                }
                let due: BTreeSet<u64> =
                    list.iter().filter(|&(_, &s)| s <= now_s).map(|(&entry, _)| entry).collect();
                assert_eq!(popped, due, "round {round} at {now_s}");
                list.retain(|_, due_s| *due_s > now_s);
            }
        }
    }

    #[test]
    fn a_far_jump_looks_at_slots_and_not_at_seconds() {
        let mut wheel = Wheel::new();
        wheel.advance(1_790_000_000);
        wheel.insert(1, 1_790_000_000 + 86_400 * 365 * 50);
        let mut steps = 0;
        while wheel.pop_due().is_none() {
            wheel.advance(wheel.next_s().expect("one is in"));
            steps += 1;
        }
        assert!(steps <= LEVELS + 1, "{steps}");
        assert_eq!((wheel.len(), wheel.next_s()), (0, None));
    }

    #[test]
    fn beyond_its_reach_is_its_last_second() {
        let mut wheel = Wheel::new();
        wheel.insert(1, u64::MAX);
        assert!(wheel.next_s().is_some_and(|next_s| next_s <= LAST_S));
        wheel.advance(u64::MAX);
        assert_eq!(wheel.pop_due(), Some(1));
    }
}
