//! Whose turn it is: hierarchical deficit round robin with ceilings, reservations and priorities.
//!
//! A pure state machine over a tree of nodes. Inner nodes are the machine (the root), organisations and
//! groups; leaves are databases, and only they hold work. Units are the caller's: nanoseconds of the
//! processor in one scheduler, bytes in another. What a piece of work costs is told after it was done
//! ([`Scheduler::charge`]).
//!
//! - **Shares.** Each class of each inner node has a ring of children with work. The child at its head is
//!   served while its *deficit* is positive, then goes to the end with one *quantum* more, which is
//!   proportional to its weight (Shreedhar and Varghese, "Efficient fair queuing using deficit round
//!   robin", SIGCOMM 1995). Costs are known afterwards, so a deficit may become negative: the debt
//!   stays with the node, also while it has no work. What it did not use while it had none is gone.
//!   A child that was out of the ring and owes nothing comes first, for what it has of one quantum;
//!   then it takes its place at the end, where it stays for a round also if it has no work left, so
//!   nobody comes first twice in a round (Høiland-Jørgensen and others, "The Flow Queue CoDel packet
//!   scheduler and active queue management algorithm", RFC 8290, section 4).
//! - **Ceilings.** A token bucket per node. One that is empty takes its node out of the ring until it has
//!   something again: work is delayed, never refused here.
//! - **Reservations.** A token bucket per node. While it has something, work below the node is served
//!   before all shares, in order of arrival among the nodes of which that is true; below it its
//!   children share what it gets, a child's own reservation is a part of it. A reservation is a floor,
//!   nothing on top: what a node gets as its share counts too, though for no longer than
//!   [`RESERVATION_MEMORY_NS`], and what it gets because of its reservation is not held against its
//!   share.
//! - **Priorities.** Three classes with rings of their own. A higher one goes first, but for one part in
//!   [`LOWER_SHARE`] that the lower ones get.
//!
//! **The bound.** A leaf without debt that gets work waits, counted in service to others of its class,
//! at most `bound(leaf)`, where for a node with parent p and active siblings s
//!
//! ```text
//! bound(root) = 0
//! siblings(node) = sum over s of (quantum(s) + slice), twice that for a node that does not come first
//! bound(node) = siblings(node) + (siblings(node) / quantum(p) + 2) * bound(p)
//! ```
//!
//! and `slice` is the most that one piece of work cost lately. Right under the root this is the
//! `N_active * quantum + ε` that a tenant is promised. Each wait is compared with it
//! ([`Scheduler::violations`]).

mod bucket;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use storage::io::Instant;

use crate::budget::Priority;
use crate::pool::{Key, Pool};

pub use bucket::{Bucket, Rate};

/// Number of [`Priority`]s.
const CLASSES: usize = 3;

/// Of so much service to higher classes the lower ones with work get one part.
pub const LOWER_SHARE: u64 = 20;

/// What a node got as its share is held against its reservation for so long, in nanoseconds of its
/// rate: who had an idle machine for itself is within its reservation as soon as others come.
pub const RESERVATION_MEMORY_NS: u64 = 100_000_000;

/// How long the largest slice is remembered for the bound, in nanoseconds; at least that, at most twice.
const SLICE_WINDOW_NS: u64 = 10_000_000_000;

/// What a node may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Relative to its siblings; at least 1.
    pub weight: u64,
    /// Not more than this.
    pub ceiling: Option<Rate>,
    /// This before all shares.
    pub reservation: Option<Rate>,
}

/// A node's ring and its place in its parent's, for one class.
#[derive(Debug)]
struct Class<T> {
    /// Work, of a leaf.
    work: VecDeque<T>,
    /// Children with work, of an inner node. A child may have lost its work since: it is taken out when
    /// its turn comes.
    ring: VecDeque<Key>,
    /// Children that come before the ring, in the order in which they got work.
    fresh: VecDeque<Key>,
    /// It is in its parent's ring, or before it.
    queued: bool,
    /// It comes before its parent's ring.
    is_fresh: bool,
    deficit: i64,
    /// Sum of quanta of the children in the ring and before it.
    ring_quanta: u64,
    /// Since when work waits, for the bound.
    waiting: Option<Waiting>,
}

/// What a node has left of its ceiling and its reservation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buckets {
    ceiling: Option<Bucket>,
    reservation: Option<Bucket>,
}

/// A leaf's work waits for a turn of the leaf.
#[derive(Clone, Copy, Debug)]
struct Delay {
    since: Instant,
    /// The sum of what ceilings on its way up had delayed them then.
    before_ns: u64,
}

/// A leaf's wait for its turn.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Service of the class when it began.
    served: u64,
    /// The bound then.
    bound: u64,
}

impl<T> Default for Class<T> {
    fn default() -> Class<T> {
        Class {
            work: VecDeque::new(),
            ring: VecDeque::new(),
            fresh: VecDeque::new(),
            queued: false,
            is_fresh: false,
            deficit: 0,
            ring_quanta: 0,
            waiting: None,
        }
    }
}

impl<T> Class<T> {
    fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.ring.is_empty() || !self.fresh.is_empty()
    }

    /// Children in the ring and before it.
    fn children(&self) -> usize {
        self.ring.len() + self.fresh.len()
    }

    /// Take a child out.
    fn forget(&mut self, child: Key, quantum: u64) {
        self.ring.retain(|&other| other != child);
        self.fresh.retain(|&other| other != child);
        self.ring_quanta -= quantum;
    }
}

#[derive(Debug)]
struct Node<T> {
    parent: Key,
    children: usize,
    weight: u64,
    ceiling: Option<Bucket>,
    reservation: Option<Bucket>,
    classes: [Class<T>; CLASSES],
    /// Out of the rings until then, since that instant.
    throttled: Option<(Instant, Instant)>,
    throttled_ns: u64,
    /// Of a leaf: how long its work was delayed by ceilings on its way up, its own included.
    delayed_ns: u64,
    /// Of a leaf with work: its present wait.
    delay: Option<Delay>,
    /// It is in the list of nodes that are served first.
    reserved: bool,
    /// When its reservation has something again, if somebody waits for that.
    refill_at: Option<Instant>,
}

/// A piece of work whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<T> {
    /// Whose it is.
    pub leaf: Key,
    /// In which class it ran; [`Scheduler::charge`] wants it back.
    pub priority: Priority,
    /// It went first because of this node's reservation.
    pub reserved: Option<Key>,
    /// The work.
    pub work: T,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Scheduler<T> {
    nodes: Pool<Node<T>>,
    root: Key,
    /// Units of one turn of a node of weight 1.
    quantum: u64,
    /// Nodes out of the rings, by when they come back.
    throttled: BTreeSet<(Instant, Key)>,
    /// Nodes with work whose reservation has something, in order.
    reserved: VecDeque<Key>,
    /// Nodes with work whose reservation may be used later: when it has something again, or no
    /// ceiling delays the node any more.
    refills: BTreeSet<(Instant, Key)>,
    /// Service by class, reserved service not counted.
    served: [u64; CLASSES],
    /// What the lower classes may have of what the higher ones had.
    owed: [u64; CLASSES],
    /// Largest slices of this window and the one before, and when this one began.
    slices: [u64; 2],
    slices_since: Instant,
    violations: u64,
    worst_wait: u64,
}

impl<T> Scheduler<T> {
    /// A scheduler whose nodes get `quantum` units a turn for each unit of weight.
    #[must_use]
    pub fn new(quantum: u64) -> Scheduler<T> {
        assert!(quantum > 0);
        let mut nodes = Pool::default();
        let root = nodes.insert(Node {
            parent: Key::default(),
            children: 0,
            weight: 1,
            ceiling: None,
            reservation: None,
            classes: Default::default(),
            throttled: None,
            throttled_ns: 0,
            delayed_ns: 0,
            delay: None,
            reserved: false,
            refill_at: None,
        });
        Scheduler {
            nodes,
            root,
            quantum,
            throttled: BTreeSet::new(),
            reserved: VecDeque::new(),
            refills: BTreeSet::new(),
            served: [0; CLASSES],
            owed: [0; CLASSES],
            slices: [0; 2],
            slices_since: Instant(0),
            violations: 0,
            worst_wait: 0,
        }
    }

    /// The node that all others are under.
    #[must_use]
    pub fn root(&self) -> Key {
        self.root
    }

    /// A new node under `parent`.
    ///
    /// # Panics
    /// If the parent is not there or has work of its own.
    pub fn add(&mut self, parent: Key, share: Share, now: Instant) -> Key {
        let over = self.nodes.get_mut(parent).expect("a parent is there before its children");
        assert!(over.classes.iter().all(|class| class.work.is_empty()));
        over.children += 1;
        assert!(share.weight > 0);
        self.nodes.insert(Node {
            parent,
            children: 0,
            weight: share.weight,
            ceiling: share.ceiling.map(|rate| Bucket::full(rate, now)),
            reservation: share.reservation.map(|rate| Bucket::full(rate, now)),
            classes: Default::default(),
            throttled: None,
            throttled_ns: 0,
            delayed_ns: 0,
            delay: None,
            reserved: false,
            refill_at: None,
        })
    }

    /// Another share for a node, from now on.
    pub fn set_share(&mut self, key: Key, share: Share, now: Instant) {
        assert!(share.weight > 0);
        let quantum = self.quantum;
        let node = self.node(key);
        let (parent, old) = (node.parent, node.weight);
        node.weight = share.weight;
        let queued: Vec<bool> = node.classes.iter().map(|class| class.queued).collect();
        set_bucket(&mut node.ceiling, share.ceiling, now);
        set_bucket(&mut node.reservation, share.reservation, now);
        let over = self.node(parent);
        for (class, queued) in over.classes.iter_mut().zip(queued) {
            if queued {
                class.ring_quanta = class.ring_quanta + share.weight * quantum - old * quantum;
            }
        }
        // A ceiling that is gone or higher lets it come back at once; else it is taken out again.
        self.release(key, now);
        self.reserve(key, now);
    }

    /// Give a new node what one that stood for the same had left: at most what its share allows.
    pub fn restore(&mut self, key: Key, buckets: Buckets, now: Instant) {
        let node = self.node(key);
        let pairs =
            [(&mut node.ceiling, buckets.ceiling), (&mut node.reservation, buckets.reservation)];
        for (bucket, left) in pairs {
            if let (Some(bucket), Some(mut left)) = (bucket, left) {
                left.set_rate(bucket.rate(), now);
                *bucket = left;
            }
        }
        self.throttle(key, now);
    }

    /// Put a node, with what is below it, under another parent.
    ///
    /// # Panics
    /// If the parent has work of its own.
    pub fn set_parent(&mut self, key: Key, parent: Key, now: Instant) {
        let over = self.node(parent);
        assert!(over.classes.iter().all(|class| class.work.is_empty()));
        over.children += 1;
        let (old, quantum) = (self.node(key).parent, self.quantum_of(key));
        self.end_delay(key, now);
        self.node(old).children -= 1;
        for index in 0..CLASSES {
            if std::mem::take(&mut self.node(key).classes[index].queued) {
                self.node(old).classes[index].forget(key, quantum);
            }
            self.node(key).classes[index].waiting = None;
        }
        self.node(key).parent = parent;
        for index in 0..CLASSES {
            if self.node(key).classes[index].has_work() {
                self.activate(key, index);
            }
        }
        self.reserve_up(key, now);
        self.begin_delay(key, now);
    }

    /// Take a node out that has neither children nor work. What it has left is returned.
    ///
    /// # Panics
    /// If it has some.
    pub fn remove(&mut self, key: Key) -> Buckets {
        let node = self.node(key);
        assert!(node.children == 0, "a node with children is removed");
        assert!(node.classes.iter().all(|class| class.work.is_empty()), "work is lost");
        let (parent, throttled) = (node.parent, node.throttled);
        let (reserved, refill_at) = (node.reserved, node.refill_at);
        let left = Buckets { ceiling: node.ceiling, reservation: node.reservation };
        let quantum = node.weight * self.quantum;
        for index in 0..CLASSES {
            if self.node(key).classes[index].queued {
                self.node(parent).classes[index].forget(key, quantum);
            }
        }
        self.node(parent).children -= 1;
        if let Some((until, _)) = throttled {
            self.throttled.remove(&(until, key));
        }
        if reserved {
            self.reserved.retain(|&leaf| leaf != key);
        }
        if let Some(at) = refill_at {
            self.refills.remove(&(at, key));
        }
        self.nodes.remove(key);
        left
    }

    fn node(&mut self, key: Key) -> &mut Node<T> {
        self.nodes.get_mut(key).expect("a node in the tree")
    }

    fn quantum_of(&self, key: Key) -> u64 {
        self.nodes.get(key).expect("a node in the tree").weight * self.quantum
    }

    // ---- work comes ----

    /// Work for a leaf.
    ///
    /// # Panics
    /// If the node has children.
    pub fn push(&mut self, leaf: Key, priority: Priority, work: T, now: Instant) {
        let index = priority as usize;
        let node = self.node(leaf);
        assert!(node.children == 0, "only leaves have work");
        let first = node.classes[index].work.is_empty();
        node.classes[index].work.push_back(work);
        if !first {
            return;
        }
        self.begin_delay(leaf, now);
        self.activate(leaf, index);
        self.reserve_up(leaf, now);
        self.begin_wait(leaf, index);
    }

    /// Take the first piece of a leaf's work back for which that holds.
    pub fn take(&mut self, leaf: Key, now: Instant, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let node = self.node(leaf);
        let found = node.classes.iter_mut().find_map(|class| {
            let index = class.work.iter().position(&is_it)?;
            let work = class.work.remove(index);
            if class.work.is_empty() {
                class.waiting = None;
            }
            work
        });
        if found.is_some() && node.work_is_empty() {
            self.end_delay(leaf, now);
        }
        found
    }

    /// Put a node with work into its parent's ring, and so on upwards.
    fn activate(&mut self, mut key: Key, index: usize) {
        while key != self.root {
            let quantum = self.quantum_of(key);
            let node = self.node(key);
            if node.classes[index].queued || node.throttled.is_some() {
                return;
            }
            let class = &mut node.classes[index];
            class.queued = true;
            class.deficit = class.deficit.min(0).saturating_add_unsigned(quantum);
            class.is_fresh = class.deficit > 0;
            let (parent, is_fresh) = (node.parent, class.is_fresh);
            let over = &mut self.node(parent).classes[index];
            let place = if is_fresh { &mut over.fresh } else { &mut over.ring };
            place.push_back(key);
            over.ring_quanta += quantum;
            key = parent;
        }
    }

    /// Let a node and those above it go first where they have work and their reservations something.
    fn reserve_up(&mut self, mut key: Key, now: Instant) {
        while key != self.root {
            self.reserve(key, now);
            key = self.node(key).parent;
        }
    }

    /// Let a node with work go first if its reservation has something, else when it has.
    fn reserve(&mut self, key: Key, now: Instant) {
        let node = self.node(key);
        let Some(bucket) = &mut node.reservation else { return };
        if node.reserved || !node.classes.iter().any(Class::has_work) {
            return;
        }
        match bucket.ready_at(now) {
            None => {
                node.reserved = true;
                self.reserved.push_back(key);
            }
            Some(at) => self.reserve_at(key, at),
        }
    }

    /// Look at a node's reservation again then.
    fn reserve_at(&mut self, key: Key, at: Instant) {
        if let Some(old) = self.node(key).refill_at.replace(at) {
            self.refills.remove(&(old, key));
        }
        self.refills.insert((at, key));
    }

    // ---- whose turn ----

    /// The next piece of work, if anybody has some who may be served now.
    pub fn next(&mut self, now: Instant) -> Option<Turn<T>> {
        self.wake(now);
        if let Some(turn) = self.next_reserved(now) {
            return Some(turn);
        }
        let root = self.node(self.root);
        let has_work = root.classes.each_ref().map(Class::has_work);
        if has_work == [false; CLASSES] {
            return None;
        }
        for index in self.order() {
            if !has_work[index] {
                continue;
            }
            if let Some((leaf, work)) = self.next_of(self.root, index) {
                self.end_delay(leaf, now);
                self.end_wait(leaf, index);
                let priority = PRIORITIES[index];
                return Some(Turn { leaf, priority, reserved: None, work });
            }
        }
        None
    }

    /// Undo [`Scheduler::next`]: the piece of work waits in its place, as if it had not been taken.
    pub fn put_back(&mut self, turn: Turn<T>, now: Instant) {
        let index = turn.priority as usize;
        self.node(turn.leaf).classes[index].work.push_front(turn.work);
        if let Some(key) = turn.reserved
            && !std::mem::replace(&mut self.node(key).reserved, true)
        {
            self.reserved.push_front(key);
        }
        self.activate(turn.leaf, index);
        self.begin_delay(turn.leaf, now);
        self.begin_wait(turn.leaf, index);
    }

    /// When somebody can be served: now, later, or (`None`) when work comes.
    #[must_use]
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        let root = self.nodes.get(self.root).expect("the root is there");
        if !self.reserved.is_empty() || root.classes.iter().any(Class::has_work) {
            return Some(now);
        }
        self.throttled.first().map(|&(at, _)| at)
    }

    /// The classes in the order of their turn.
    fn order(&self) -> [usize; CLASSES] {
        let due = |index: usize| self.owed[index] >= LOWER_SHARE * self.quantum * 100;
        match (due(0), due(1)) {
            (false, false) => [2, 1, 0],
            (false, true) => [1, 2, 0],
            (true, _) => [0, 2, 1],
        }
    }

    fn next_reserved(&mut self, now: Instant) -> Option<Turn<T>> {
        while let Some(key) = self.reserved.pop_front() {
            self.node(key).reserved = false;
            // What it had when it was put here may have been spent since.
            let bucket = self.node(key).reservation.as_mut();
            let refilled = bucket.and_then(|bucket| bucket.ready_at(now));
            if let Some(until) = self.delayed_until(key).max(refilled) {
                self.reserve_at(key, until);
                continue;
            }
            for index in (0..CLASSES).rev() {
                let Some((leaf, work)) = self.next_of(key, index) else { continue };
                self.end_delay(leaf, now);
                self.node(leaf).classes[index].waiting = None;
                let priority = PRIORITIES[index];
                return Some(Turn { leaf, priority, reserved: Some(key), work });
            }
        }
        None
    }

    /// The next work below a node, or of it.
    fn next_of(&mut self, top: Key, index: usize) -> Option<(Key, T)> {
        let mut key = top;
        loop {
            let node = self.node(key);
            if let Some(work) = node.classes[index].work.pop_front() {
                return Some((key, work));
            }
            match self.head(key, index) {
                Some(child) => key = child,
                // Nothing is left under it: from the top again, where it will be taken out.
                None if key == top => return None,
                None => key = top,
            }
        }
    }

    /// A child that comes first, if there is one; who has used up what it had goes to the ring's end, and
    /// so does who has no work left.
    fn first_fresh(&mut self, key: Key, index: usize) -> Option<Key> {
        loop {
            let child = *self.node(key).classes[index].fresh.front()?;
            let node = self.node(child);
            let class = &mut node.classes[index];
            if node.throttled.is_none() && class.deficit > 0 && class.has_work() {
                return Some(child);
            }
            class.is_fresh = false;
            let over = &mut self.node(key).classes[index];
            over.fresh.pop_front();
            over.ring.push_back(child);
        }
    }

    /// The child whose turn it is; children without work leave the ring.
    fn head(&mut self, key: Key, index: usize) -> Option<Key> {
        if let Some(child) = self.first_fresh(key, index) {
            return Some(child);
        }
        let mut passed = 0;
        loop {
            let ring = &mut self.node(key).classes[index].ring;
            let length = ring.len();
            let child = *ring.front()?;
            let node = self.node(child);
            let is_throttled = node.throttled.is_some();
            let class = &mut node.classes[index];
            if class.has_work() && !is_throttled && class.deficit > 0 {
                return Some(child);
            }
            let quantum = self.quantum_of(child);
            let class = &mut self.node(child).classes[index];
            if !class.has_work() || is_throttled {
                class.queued = false;
                let over = &mut self.node(key).classes[index];
                over.ring.pop_front();
                over.ring_quanta -= quantum;
                continue;
            }
            if length == 1 {
                // Nobody to wait for: as many rounds as it takes.
                let debt = class.deficit.saturating_sub(1).unsigned_abs();
                let rounds = debt.div_ceil(quantum);
                class.deficit = class.deficit.saturating_add_unsigned(rounds * quantum);
                return Some(child);
            }
            class.deficit = class.deficit.saturating_add_unsigned(quantum);
            let ring = &mut self.node(key).classes[index].ring;
            ring.rotate_left(1);
            passed += 1;
            if passed > length {
                self.skip_rounds(key, index);
                passed = 0;
            }
        }
    }

    /// All children are in debt: let as many rounds pass at once as it takes for one to be out of it.
    fn skip_rounds(&mut self, key: Key, index: usize) {
        let children: Vec<Key> = self.node(key).classes[index].ring.iter().copied().collect();
        let rounds_of = |child: &Key| {
            let node = self.nodes.get(*child).expect("a child in the ring");
            let debt = (1 - node.classes[index].deficit).max(0).unsigned_abs();
            debt.div_ceil(node.weight * self.quantum)
        };
        let rounds = children.iter().map(rounds_of).min().unwrap_or(0).saturating_sub(1);
        for child in children {
            let more = rounds.saturating_mul(self.quantum_of(child));
            let class = &mut self.node(child).classes[index];
            class.deficit = class.deficit.saturating_add_unsigned(more);
        }
    }

    // ---- what it cost ----

    /// A turn has cost so many units. The leaf may be gone by now.
    pub fn charge<U>(&mut self, turn: &Turn<U>, units: u64, now: Instant) {
        let index = turn.priority as usize;
        self.note_slice(units, now);
        if turn.reserved.is_none() {
            self.served[index] += units;
            self.owe(index, units);
        }
        // Below the node whose reservation it was, its children share; above, this is no share.
        let (mut key, mut shared) = (turn.leaf, true);
        while key != self.root {
            shared &= turn.reserved != Some(key);
            let Some(node) = self.nodes.get_mut(key) else { return };
            let parent = node.parent;
            if shared {
                let class = &mut node.classes[index];
                class.deficit = class.deficit.saturating_sub_unsigned(units);
            }
            if let Some(bucket) = &mut node.reservation {
                spend_reservation(bucket, units, turn.reserved.is_some(), now);
            }
            if let Some(bucket) = &mut node.ceiling {
                bucket.spend(units, now);
            }
            self.throttle(key, now);
            key = parent;
        }
        self.reserve_up(turn.leaf, now);
        self.begin_delay(turn.leaf, now);
        // What came while it was served was promised on deficits of before.
        for other in 0..CLASSES {
            if other == index || self.node(turn.leaf).classes[other].waiting.is_none() {
                self.begin_wait(turn.leaf, other);
            }
        }
    }

    /// Charge a node for what it did outside of its turns.
    pub fn charge_aside(&mut self, leaf: Key, priority: Priority, units: u64, now: Instant) {
        let mut key = leaf;
        while key != self.root {
            let Some(node) = self.nodes.get_mut(key) else { return };
            let parent = node.parent;
            let class = &mut node.classes[priority as usize];
            class.deficit = class.deficit.saturating_sub_unsigned(units);
            if let Some(bucket) = &mut node.reservation {
                spend_reservation(bucket, units, false, now);
            }
            if let Some(bucket) = &mut node.ceiling {
                bucket.spend(units, now);
            }
            self.throttle(key, now);
            key = parent;
        }
    }

    fn owe(&mut self, index: usize, units: u64) {
        let root = self.nodes.get(self.root).expect("the root is there");
        for lower in 0..CLASSES {
            let has_work = root.classes[lower].has_work();
            self.owed[lower] = match lower.cmp(&index) {
                std::cmp::Ordering::Less if has_work => self.owed[lower].saturating_add(units),
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => {
                    self.owed[lower].saturating_sub(units.saturating_mul(LOWER_SHARE))
                }
                std::cmp::Ordering::Greater => self.owed[lower],
            };
        }
    }

    /// Take a node out of the rings if its ceiling is reached.
    fn throttle(&mut self, key: Key, now: Instant) {
        let node = self.node(key);
        let until = node.ceiling.as_mut().and_then(|bucket| bucket.ready_at(now));
        let Some(until) = until else { return };
        let since = node.throttled.map_or(now, |(_, since)| since);
        if let Some((old, _)) = node.throttled.replace((until, since)) {
            self.throttled.remove(&(old, key));
        }
        self.throttled.insert((until, key));
    }

    /// Put back whose time has come.
    fn wake(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.throttled.first() {
            if at > now {
                break;
            }
            self.release(key, now);
        }
        while let Some(&(at, key)) = self.refills.first() {
            if at > now {
                break;
            }
            self.refills.pop_first();
            self.node(key).refill_at = None;
            self.reserve(key, now);
        }
    }

    /// Put a throttled node back, unless its ceiling is still reached.
    fn release(&mut self, key: Key, now: Instant) {
        let node = self.node(key);
        let Some((until, since)) = node.throttled.take() else { return };
        self.throttled.remove(&(until, key));
        let node = self.node(key);
        if let Some(at) = node.ceiling.as_mut().and_then(|bucket| bucket.ready_at(now)) {
            node.throttled = Some((at, since));
            self.throttled.insert((at, key));
            return;
        }
        node.throttled_ns += now.since(since);
        for index in 0..CLASSES {
            if self.node(key).classes[index].has_work() {
                self.activate(key, index);
            }
        }
        self.reserve_up(key, now);
        if self.node(key).children == 0 {
            for index in 0..CLASSES {
                self.begin_wait(key, index);
            }
        }
    }

    // ---- the bound ----

    fn note_slice(&mut self, units: u64, now: Instant) {
        if now.since(self.slices_since) > SLICE_WINDOW_NS {
            self.slices = [0, self.slices[0]];
            self.slices_since = now;
        }
        self.slices[0] = self.slices[0].max(units);
    }

    /// The bound for a node: see the head of the file.
    fn bound(&self, key: Key, index: usize) -> u64 {
        if key == self.root {
            return 0;
        }
        let node = self.nodes.get(key).expect("a node in the tree");
        let over = self.nodes.get(node.parent).expect("a parent is there");
        let ring = &over.classes[index];
        let slice = self.slices[0].max(self.slices[1]);
        let others = ring.ring_quanta.saturating_sub(node.weight * self.quantum)
            + ring.children() as u64 * slice;
        let others = if node.classes[index].is_fresh { others } else { 2 * others };
        let rounds = others / (over.weight * self.quantum) + 2;
        others.saturating_add(rounds.saturating_mul(self.bound(node.parent, index)))
    }

    /// A leaf with work waits for its turn from now on; only one without debt on its way up is promised
    /// anything, and none that is delayed by a ceiling.
    fn begin_wait(&mut self, leaf: Key, index: usize) {
        let mut key = leaf;
        let mut promised = !self.node(leaf).classes[index].work.is_empty();
        while key != self.root && promised {
            let node = self.node(key);
            promised = node.classes[index].deficit > 0 && node.throttled.is_none();
            key = node.parent;
        }
        let served = self.served[index];
        let waiting = promised.then(|| Waiting { served, bound: self.bound(leaf, index) });
        self.node(leaf).classes[index].waiting = waiting;
    }

    fn end_wait(&mut self, leaf: Key, index: usize) {
        let Some(waiting) = self.node(leaf).classes[index].waiting.take() else { return };
        let waited = self.served[index] - waiting.served;
        self.worst_wait = self.worst_wait.max(waited);
        // Others may have come, or slices grown, in between.
        if waited > waiting.bound.saturating_add(self.bound(leaf, index)) {
            self.violations += 1;
        }
    }

    /// Waits that were longer than promised: any is a bug.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// The longest wait so far, in units of service to others of the class.
    #[must_use]
    pub fn worst_wait(&self) -> u64 {
        self.worst_wait
    }

    // ---- delays ----

    /// Nanoseconds that ceilings have delayed the nodes from here up, together.
    fn throttled_up(&self, mut key: Key, now: Instant) -> u64 {
        let mut sum_ns = 0;
        while key != self.root {
            let Some(node) = self.nodes.get(key) else { break };
            let current = node.throttled.map_or(0, |(_, since)| now.since(since));
            sum_ns += node.throttled_ns + current;
            key = node.parent;
        }
        sum_ns
    }

    /// A leaf has work; from now on it waits for its next turn.
    fn begin_delay(&mut self, leaf: Key, now: Instant) {
        let node = self.node(leaf);
        if node.delay.is_none() && !node.work_is_empty() {
            let before_ns = self.throttled_up(leaf, now);
            self.node(leaf).delay = Some(Delay { since: now, before_ns });
        }
    }

    /// A leaf has its turn.
    fn end_delay(&mut self, leaf: Key, now: Instant) {
        let Some(delay) = self.node(leaf).delay.take() else { return };
        let delayed_ns = self.delay_ns(leaf, delay, now);
        self.node(leaf).delayed_ns += delayed_ns;
    }

    /// What ceilings have to do with a wait: not more than all of it, where several overlap.
    fn delay_ns(&self, leaf: Key, delay: Delay, now: Instant) -> u64 {
        let throttled_ns = self.throttled_up(leaf, now).saturating_sub(delay.before_ns);
        throttled_ns.min(now.since(delay.since))
    }

    /// Nanoseconds that a leaf's work waited while a ceiling on its way up, its own included, was
    /// reached.
    #[must_use]
    pub fn throttled_ns(&self, leaf: Key, now: Instant) -> u64 {
        let Some(node) = self.nodes.get(leaf) else { return 0 };
        let current = node.delay.map_or(0, |delay| self.delay_ns(leaf, delay, now));
        node.delayed_ns + current
    }

    /// Until when a ceiling on its way up delays a node.
    #[must_use]
    pub fn delayed_until(&self, mut key: Key) -> Option<Instant> {
        let mut latest = None;
        while key != self.root {
            let node = self.nodes.get(key)?;
            latest = latest.max(node.throttled.map(|(until, _)| until));
            key = node.parent;
        }
        latest
    }

    /// A ceiling delays somebody, or would.
    #[must_use]
    pub fn has_delays(&self) -> bool {
        !self.throttled.is_empty()
    }

    /// Pieces of work that wait. Costs O(nodes).
    #[must_use]
    pub fn waiting(&self) -> usize {
        let work = |key| self.nodes.get(key).map_or(0, |node: &Node<T>| node.work_count());
        self.nodes.keys().into_iter().map(work).sum()
    }
}

impl<T> Node<T> {
    fn work_count(&self) -> usize {
        self.classes.iter().map(|class| class.work.len()).sum()
    }

    fn work_is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.work.is_empty())
    }
}

impl Buckets {
    /// When all of it is full again; `None`: it is now.
    #[must_use]
    pub fn full_at(&self, now: Instant) -> Option<Instant> {
        let buckets = [self.ceiling, self.reservation].into_iter().flatten();
        buckets.filter_map(|mut bucket| bucket.full_at(now)).max()
    }
}

/// What a node got uses its reservation up; what it got as its share only for a while.
fn spend_reservation(bucket: &mut Bucket, units: u64, reserved: bool, now: Instant) {
    if reserved {
        return bucket.spend(units, now);
    }
    let debt_max = bucket.rate().per_second / (1_000_000_000 / RESERVATION_MEMORY_NS);
    bucket.spend_down_to(units, debt_max, now);
}

const PRIORITIES: [Priority; CLASSES] =
    [Priority::Background, Priority::Normal, Priority::Interactive];

fn set_bucket(bucket: &mut Option<Bucket>, rate: Option<Rate>, now: Instant) {
    match (bucket, rate) {
        (Some(bucket), Some(rate)) if bucket.rate() == rate => {}
        (Some(bucket), Some(rate)) => bucket.set_rate(rate, now),
        (bucket, rate) => *bucket = rate.map(|rate| Bucket::full(rate, now)),
    }
}
