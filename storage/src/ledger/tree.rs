//! The tree of accounts as plain values: sums, limits, who is below whom.
//!
//! Knows no page cache, and refuses what does not fit; making room is `ledger.rs`'s.

use crate::limits::SMALL_MEMORY_BYTES;

use super::kind::{AccountId, KINDS, Kind, Level, MEMORY_KINDS, Refused, Turnover};

/// No node: past the root, or the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Nodes above a database at most: group, organisation, machine.
const ABOVE_MAX: usize = 3;

/// A charge is on the path of each of SQLite's allocations, so it follows no list from parent to
/// parent, and adds up above only what decides: `memory` and `cached`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// Bytes of memory held: of a leaf, the sum of the first [`MEMORY_KINDS`] of `held`; else of the
    /// children's.
    pub(super) memory: u64,
    pub(super) memory_limit: u64,
    /// The last bytes of the limit are only for leaves that hold no more than
    /// [`SMALL_MEMORY_BYTES`].
    pub(super) kept_for_small: u64,
    /// The nodes above, from the parent on; the first `above_count` of them.
    pub(super) above: [u32; ABOVE_MAX],
    pub(super) above_count: u32,
    pub(super) level: Level,
    pub(super) open: bool,
    /// How many accounts had this number before.
    pub(super) life: u32,
    /// What a leaf holds, by kind.
    pub(super) held: [u64; KINDS],
    /// What was ever booked on it, and what was taken off: counted apart.
    pub(super) turnover: Turnover,
    /// Bytes of [`Kind::Cache`] here or below.
    pub(super) cached: u64,
    pub(super) temporary_limit: u64,
    /// What it held when its limit was last lowered below that; 0 if it was not.
    pub(super) grace: u64,
    pub(super) refused: u64,
    pub(super) last_refusal: Option<Refused>,
    /// Databases among itself and what is below.
    pub(super) databases: u32,
    /// Where among the databases below the next page is looked for.
    pub(super) hand: usize,
    pub(super) first_child: u32,
    pub(super) last_child: u32,
    pub(super) next: u32,
    pub(super) previous: u32,
}

impl Account {
    pub(super) fn new(level: Level, memory_limit: u64, parent: Option<(u32, &Account)>) -> Account {
        let mut above = [NONE; ABOVE_MAX];
        let mut above_count = 0;
        if let Some((index, parent)) = parent {
            above[0] = index;
            above[1..].copy_from_slice(&parent.above[..ABOVE_MAX - 1]);
            above_count = parent.above_count + 1;
        }
        assert!(above_count as usize <= ABOVE_MAX);
        Account {
            memory: 0,
            memory_limit,
            kept_for_small: 0,
            above,
            above_count,
            level,
            open: true,
            life: 0,
            held: [0; KINDS],
            turnover: Turnover { taken: [0; KINDS], returned: [0; KINDS] },
            cached: 0,
            temporary_limit: u64::MAX,
            grace: 0,
            refused: 0,
            last_refusal: None,
            databases: 0,
            hand: 0,
            first_child: NONE,
            last_child: NONE,
            next: NONE,
            previous: NONE,
        }
    }

    /// What it may hold where a leaf of it would hold `grown` bytes.
    #[inline]
    fn limit_for(&self, grown: u64) -> u64 {
        let kept = if grown > SMALL_MEMORY_BYTES { self.kept_for_small } else { 0 };
        self.memory_limit.saturating_sub(kept)
    }

    pub(super) fn above(&self) -> impl Iterator<Item = u32> + use<> {
        self.above.into_iter().take(self.above_count as usize)
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) accounts: Vec<Account>,
    pub(super) free: Vec<u32>,
    /// What all leaves hold, by kind.
    pub(super) total: [u64; KINDS],
    /// See [`super::set_extra`].
    pub(super) extra: u64,
}

impl Ledger {
    pub(super) fn new() -> Ledger {
        let mut ledger =
            Ledger { accounts: Vec::new(), free: Vec::new(), total: [0; KINDS], extra: 0 };
        ledger.accounts.push(Account::new(Level::Machine, u64::MAX, None));
        for (id, _) in &AccountId::NAMED[1..] {
            assert!(ledger.accounts.len() == id.0 as usize);
            let root = *id == AccountId::CATALOGUE;
            let level = if root { Level::Machine } else { Level::System };
            ledger.accounts.push(Account::new(level, u64::MAX, None));
        }
        ledger
    }

    pub(super) fn insert(&mut self, account: Account) -> u32 {
        let index = if let Some(index) = self.free.pop() {
            let life = self.accounts[index as usize].life;
            self.accounts[index as usize] = Account { life, ..account };
            index
        } else {
            self.accounts.push(account);
            u32::try_from(self.accounts.len() - 1).expect("accounts fit in 32 bits")
        };
        self.append_child(index);
        index
    }

    /// Make a node its parent's last child.
    pub(super) fn append_child(&mut self, index: u32) {
        let parent = self.accounts[index as usize].above[0] as usize;
        assert!(self.accounts[parent].open);
        let last = std::mem::replace(&mut self.accounts[parent].last_child, index);
        self.accounts[index as usize].previous = last;
        self.accounts[index as usize].next = NONE;
        match last {
            NONE => self.accounts[parent].first_child = index,
            last => self.accounts[last as usize].next = index,
        }
    }

    pub(super) fn remove_child(&mut self, index: u32) {
        let Account { above: [parent, ..], previous, next, .. } = self.accounts[index as usize];
        match previous {
            NONE => self.accounts[parent as usize].first_child = next,
            previous => self.accounts[previous as usize].next = next,
        }
        match next {
            NONE => self.accounts[parent as usize].last_child = previous,
            next => self.accounts[next as usize].previous = previous,
        }
    }

    /// Count one database more, or less, in this node and in those above.
    pub(super) fn count_database(&mut self, index: u32, more: bool) {
        for index in self.accounts[index as usize].above().chain([index]) {
            let databases = &mut self.accounts[index as usize].databases;
            *databases = if more { *databases + 1 } else { *databases - 1 };
        }
    }

    /// Put a database below another node, with all that it holds. A node above that has more than its
    /// limit by this keeps it, as if its limit had been lowered.
    pub(super) fn set_parent(&mut self, index: u32, parent: u32) {
        let account = self.accounts[index as usize];
        assert!(account.open && account.level == Level::Database);
        if account.above[0] == parent {
            return;
        }
        self.remove_child(index);
        for above in account.above() {
            let node = &mut self.accounts[above as usize];
            node.memory -= account.memory;
            node.cached -= account.cached;
            node.databases -= 1;
        }
        let above = &self.accounts[parent as usize];
        let chain = Account::new(account.level, 0, Some((parent, above)));
        let moved = &mut self.accounts[index as usize];
        (moved.above, moved.above_count) = (chain.above, chain.above_count);
        for above in chain.above() {
            let node = &mut self.accounts[above as usize];
            node.memory += account.memory;
            node.cached += account.cached;
            node.databases += 1;
            if node.memory > node.memory_limit {
                node.grace = node.grace.max(node.memory);
            }
        }
        self.append_child(index);
    }

    /// The node, this one or one above, of which a charge of memory would pass the limit.
    #[inline]
    pub(super) fn full_node(&self, index: u32, bytes: u64) -> Option<u32> {
        let account = &self.accounts[index as usize];
        let grown = account.memory.saturating_add(bytes);
        if grown > self.with_extra(account, account.memory_limit) {
            return Some(index);
        }
        account.above().find(|&above| {
            let node = &self.accounts[above as usize];
            node.memory.saturating_add(bytes) > self.with_extra(node, node.limit_for(grown))
        })
    }

    /// The limit that a node has for a charge to this leaf.
    pub(super) fn limit_for(&self, node: u32, leaf: u32, bytes: u64) -> u64 {
        let grown = self.accounts[leaf as usize].memory.saturating_add(bytes);
        let node = &self.accounts[node as usize];
        self.with_extra(node, node.limit_for(grown))
    }

    /// The limit as it is now, see [`super::begin_extra`].
    #[inline]
    fn with_extra(&self, account: &Account, limit: u64) -> u64 {
        match self.extra {
            0 => limit,
            extra => limit.max(account.grace).saturating_add(extra),
        }
    }

    #[inline]
    pub(super) fn try_charge(&mut self, id: AccountId, kind: Kind, bytes: u64) -> bool {
        let account = &self.accounts[id.0 as usize];
        assert!(account.open && account.first_child == NONE, "only leaves are charged");
        let fits = match kind {
            Kind::Temporary => {
                account.held[kind as usize].saturating_add(bytes) <= account.temporary_limit
            }
            Kind::File | Kind::Descriptor => true,
            _ => self.full_node(id.0, bytes).is_none(),
        };
        if fits {
            let account = &mut self.accounts[id.0 as usize];
            account.held[kind as usize] += bytes;
            account.turnover.taken[kind as usize] += bytes;
            self.total[kind as usize] += bytes;
            self.for_sums(id, kind, |sum| *sum += bytes);
        }
        fits
    }

    #[inline]
    pub(super) fn credit(&mut self, id: AccountId, kind: Kind, bytes: u64) {
        let account = &mut self.accounts[id.0 as usize];
        assert!(account.open);
        assert!(account.held[kind as usize] >= bytes);
        account.held[kind as usize] -= bytes;
        account.turnover.returned[kind as usize] += bytes;
        self.total[kind as usize] -= bytes;
        self.for_sums(id, kind, |sum| *sum -= bytes);
    }

    /// Change the sums, of an account and of the nodes above it, that a kind counts for.
    #[inline]
    pub(super) fn for_sums(&mut self, id: AccountId, kind: Kind, change: impl Fn(&mut u64)) {
        if kind as usize >= MEMORY_KINDS {
            return;
        }
        let account = &mut self.accounts[id.0 as usize];
        change(&mut account.memory);
        if kind == Kind::Cache {
            change(&mut account.cached);
        }
        for index in account.above() {
            let account = &mut self.accounts[index as usize];
            change(&mut account.memory);
            if kind == Kind::Cache {
                change(&mut account.cached);
            }
        }
    }

    /// Write down why a charge does not fit.
    pub(super) fn refuse(&mut self, id: AccountId, kind: Kind, wanted: u64, evictable: u64) {
        let (node, limit, held) = if kind == Kind::Temporary {
            let account = &self.accounts[id.0 as usize];
            (id.0, account.temporary_limit, account.held[kind as usize])
        } else {
            let node = self.full_node(id.0, wanted).expect("it does not fit");
            let account = &self.accounts[node as usize];
            let limit = self.limit_for(node, id.0, wanted);
            (node, limit, account.memory.saturating_sub(evictable))
        };
        let level = self.accounts[node as usize].level;
        if node != id.0 {
            self.accounts[node as usize].refused += 1;
        }
        let account = &mut self.accounts[id.0 as usize];
        account.refused += 1;
        account.last_refusal = Some(Refused { level, kind, limit, held, wanted });
    }

    pub(super) fn children(&self, index: u32) -> impl Iterator<Item = u32> {
        let some = |index: u32| (index != NONE).then_some(index);
        let first = some(self.accounts[index as usize].first_child);
        std::iter::successors(first, move |&child| some(self.accounts[child as usize].next))
    }

    /// Databases here or below, in the order of the tree.
    pub(super) fn databases_below(&self, index: u32, found: &mut Vec<AccountId>) {
        if self.accounts[index as usize].level == Level::Database {
            found.push(AccountId(index));
        }
        for child in self.children(index) {
            self.databases_below(child, found);
        }
    }

    /// What is held here or below, by kind.
    pub(super) fn held(&self, index: u32) -> [u64; KINDS] {
        let mut sums = self.accounts[index as usize].held;
        for child in self.children(index) {
            sums.iter_mut().zip(self.held(child)).for_each(|(sum, held)| *sum += held);
        }
        sums
    }

    /// What is held by the tree and by the system's accounts, by kind.
    pub(super) fn all(&self) -> [u64; KINDS] {
        let mut sums = [0; KINDS];
        for (root, _) in AccountId::NAMED {
            sums.iter_mut().zip(self.held(root.0)).for_each(|(sum, held)| *sum += held);
        }
        sums
    }

    /// What is wrong with one node: its sums, or its limit.
    pub(super) fn wrong(&self, index: u32) -> Option<String> {
        let account = &self.accounts[index as usize];
        let held = self.held(index);
        let memory: u64 = held[..MEMORY_KINDS].iter().sum();
        let level = account.level.name();
        let bound = account.memory_limit.max(account.grace);
        for (what, is, says) in [
            ("memory", memory, account.memory),
            ("cached pages", held[Kind::Cache as usize], account.cached),
        ] {
            if is != says {
                return Some(format!("a {level} holds {is} bytes of {what}, and says {says}"));
            }
        }
        (memory > bound)
            .then(|| format!("a {level} holds {memory} bytes of memory, its limit is {bound}"))
    }
}
