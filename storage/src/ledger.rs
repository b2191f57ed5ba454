//! Closed books: every byte that storage holds for somebody is booked on exactly one account.
//!
//! Owns the accounts of one loop (one thread): what each holds now, by kind, and its limits.
//! Accounts form a tree: the machine, organisations, groups, databases; named accounts of the system
//! stand beside them. Only leaves are charged; a node above holds the sum of what is below it, and
//! a charge must fit into the leaf and into every node above, or it is booked nowhere.
//! Leaves to others what a budget should be, and what to do when one is used up.
//!
//! **Own cache first.** Where memory does not fit, unpinned pages go before a charge is refused:
//! the account's own, then, if a group's or an organisation's budget is what is used up, those of
//! the other databases in it. No charge ever takes a page of somebody outside that budget; memory
//! of the machine is the engine's to make room in. A charge that would not fit without any of
//! those pages is refused at once, and leaves them.
//!
//! Invariants: a node holds the memory of its children, and of each kind all leaves together hold
//! what the machine does. A node holds no more memory than
//! its limit, or than it held when the limit was lowered below that. An account is closed only when
//! everything on it is zero. What storage's own allocators count, each where it asks the system for
//! memory, is what is booked ([`unbooked`]).

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

use crate::pagecache;

/// What is held. Bytes, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQLite's allocations, headers and rounding included.
    Heap = 0,
    /// SQLite's page cache, headers included.
    Cache = 1,
    /// The in-memory WAL image.
    Wal = 2,
    /// The wal-index.
    WalIndex = 3,
    /// Temporary objects of SQLite (sorts, statement journals), the part in memory.
    Scratch = 4,
    /// What sessions keep beside SQLite's heap.
    Session = 5,
    /// Bodies of requests.
    Request = 6,
    /// Responses that were not sent yet.
    Response = 7,
    /// Stacks of fibers.
    Stack = 8,
    /// Unnamed temporary files: WAL spill and scratch spill. From here on nothing is memory.
    Temporary = 9,
    /// The database's file, as far as it is known.
    File = 10,
    /// Open files: a count.
    Descriptor = 11,
}

/// Number of [`Kind`]s.
pub const KINDS: usize = 12;

/// Number of [`Kind`]s that are memory: the first ones.
pub const MEMORY_KINDS: usize = Kind::Temporary as usize;

/// Kinds that storage's own allocators hold: the first ones. Others are booked by who holds them.
const STORAGE_KINDS: usize = Kind::Session as usize;

/// Names of the kinds in order, as metrics and reports print them.
pub const KIND_NAMES: [&str; KINDS] = [
    "heap",
    "cache",
    "wal",
    "wal_index",
    "scratch",
    "session",
    "request",
    "response",
    "stack",
    "temporary",
    "file",
    "descriptor",
];

/// Bytes of pages at least that a group's databases lose at a time: looking through all of them for
/// each allocation of one would be slow.
const GROUP_SHED_BYTES: u64 = 64 * 1024;

/// Whose budget a node of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The root: everything that this loop holds.
    Machine,
    /// A named account of the system.
    System,
    /// An organisation.
    Organisation,
    /// A group of databases.
    Group,
    /// A database.
    Database,
}

impl Level {
    /// The word for it in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Machine => "machine",
            Level::System => "system",
            Level::Organisation => "organisation",
            Level::Group => "group",
            Level::Database => "database",
        }
    }
}

/// A charge that a limit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whose limit it was.
    pub level: Level,
    /// What was to be booked.
    pub kind: Kind,
    /// The limit in bytes.
    pub limit: u64,
    /// Bytes that it held, without pages of the refused account's own that could have gone.
    pub held: u64,
    /// Bytes that were asked for.
    pub wanted: u64,
}

impl Refused {
    /// By how many bytes the charge would have passed the limit.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.held.saturating_add(self.wanted).saturating_sub(self.limit)
    }
}

/// Key of an account in this thread's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(u32);

impl AccountId {
    /// The root of the tree: the sum of everything.
    pub const MACHINE: AccountId = AccountId(0);
    /// What runs on behalf of nobody: SQLite's own process-wide allocations.
    pub const SYSTEM: AccountId = AccountId(1);
    /// Buffers of connections that belong to no tenant yet.
    pub const CONNECTIONS: AccountId = AccountId(2);
    /// The commit log's batches.
    pub const LOG: AccountId = AccountId(3);
    /// Stacks of fibers that no tenant uses.
    pub const STACKS: AccountId = AccountId(4);

    /// The machine and the system's accounts, with the names that metrics print.
    pub const NAMED: [(AccountId, &'static str); 5] = [
        (AccountId::MACHINE, "machine"),
        (AccountId::SYSTEM, "system"),
        (AccountId::CONNECTIONS, "connections"),
        (AccountId::LOG, "log"),
        (AccountId::STACKS, "stacks"),
    ];

    /// The name, if it is the machine or an account of the system.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        AccountId::NAMED.get(self.0 as usize).map(|(_, name)| *name)
    }

    pub(crate) fn index(self) -> u32 {
        self.0
    }

    pub(crate) fn from_index(index: u32) -> AccountId {
        AccountId(index)
    }
}

/// No node: past the root, or the end of a list.
const NONE: u32 = u32::MAX;

/// Nodes above a database at most: group, organisation, machine.
const ABOVE_MAX: usize = 3;

/// A charge is on the path of each of SQLite's allocations, so it follows no list from parent to
/// parent, and adds up above only what decides: `memory` and `cached`.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// Bytes of memory held: of a leaf, the sum of the first [`MEMORY_KINDS`] of `held`; else of the
    /// children's.
    memory: u64,
    memory_limit: u64,
    /// The nodes above, from the parent on; the first `above_count` of them.
    above: [u32; ABOVE_MAX],
    above_count: u32,
    level: Level,
    open: bool,
    /// What a leaf holds, by kind.
    held: [u64; KINDS],
    /// Bytes of [`Kind::Cache`] here or below.
    cached: u64,
    temporary_limit: u64,
    /// What it held when its limit was last lowered below that; 0 if it was not.
    grace: u64,
    refused: u64,
    last_refusal: Option<Refused>,
    /// Databases among itself and what is below.
    databases: u32,
    /// Where among the databases below the next page is looked for.
    hand: usize,
    first_child: u32,
    last_child: u32,
    next: u32,
    previous: u32,
}

impl Account {
    fn new(level: Level, memory_limit: u64, parent: Option<(u32, &Account)>) -> Account {
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
            above,
            above_count,
            level,
            open: true,
            held: [0; KINDS],
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

    fn above(&self) -> impl Iterator<Item = u32> + use<> {
        self.above.into_iter().take(self.above_count as usize)
    }
}

#[derive(Debug)]
struct Ledger {
    accounts: Vec<Account>,
    free: Vec<u32>,
    /// What all leaves hold, by kind.
    total: [u64; KINDS],
}

thread_local! {
    static LEDGER: RefCell<Ledger> = RefCell::new(Ledger::new());
    /// What this thread's allocators hold, counted where they ask the system for memory.
    static COUNTED: Cell<u64> = const { Cell::new(0) };
}

impl Ledger {
    fn new() -> Ledger {
        let mut ledger = Ledger { accounts: Vec::new(), free: Vec::new(), total: [0; KINDS] };
        ledger.accounts.push(Account::new(Level::Machine, u64::MAX, None));
        for (id, _) in &AccountId::NAMED[1..] {
            let machine = &ledger.accounts[0];
            let index = ledger.insert(Account::new(Level::System, u64::MAX, Some((0, machine))));
            assert!(index == id.0);
        }
        ledger
    }

    fn insert(&mut self, account: Account) -> u32 {
        let index = if let Some(index) = self.free.pop() {
            self.accounts[index as usize] = account;
            index
        } else {
            self.accounts.push(account);
            u32::try_from(self.accounts.len() - 1).expect("accounts fit in 32 bits")
        };
        self.append_child(index);
        index
    }

    /// Make a node its parent's last child.
    fn append_child(&mut self, index: u32) {
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

    fn remove_child(&mut self, index: u32) {
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
    fn count_database(&mut self, index: u32, more: bool) {
        for index in self.accounts[index as usize].above().chain([index]) {
            let databases = &mut self.accounts[index as usize].databases;
            *databases = if more { *databases + 1 } else { *databases - 1 };
        }
    }

    /// The node, this one or one above, of which a charge of memory would pass the limit.
    #[inline]
    fn full_node(&self, index: u32, bytes: u64) -> Option<u32> {
        let is_full =
            |account: &Account| account.memory.saturating_add(bytes) > account.memory_limit;
        let account = &self.accounts[index as usize];
        if is_full(account) {
            return Some(index);
        }
        account.above().find(|&index| is_full(&self.accounts[index as usize]))
    }

    #[inline]
    fn try_charge(&mut self, id: AccountId, kind: Kind, bytes: u64) -> bool {
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
            self.accounts[id.0 as usize].held[kind as usize] += bytes;
            self.total[kind as usize] += bytes;
            self.for_sums(id, kind, |sum| *sum += bytes);
        }
        fits
    }

    #[inline]
    fn credit(&mut self, id: AccountId, kind: Kind, bytes: u64) {
        let account = &mut self.accounts[id.0 as usize];
        assert!(account.open);
        assert!(account.held[kind as usize] >= bytes);
        account.held[kind as usize] -= bytes;
        self.total[kind as usize] -= bytes;
        self.for_sums(id, kind, |sum| *sum -= bytes);
    }

    /// Change the sums, of an account and of the nodes above it, that a kind counts for.
    #[inline]
    fn for_sums(&mut self, id: AccountId, kind: Kind, change: impl Fn(&mut u64)) {
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
    fn refuse(&mut self, id: AccountId, kind: Kind, wanted: u64, evictable: u64) {
        let (node, limit, held) = if kind == Kind::Temporary {
            let account = &self.accounts[id.0 as usize];
            (id.0, account.temporary_limit, account.held[kind as usize])
        } else {
            let node = self.full_node(id.0, wanted).expect("it does not fit");
            let account = &self.accounts[node as usize];
            (node, account.memory_limit, account.memory.saturating_sub(evictable))
        };
        let level = self.accounts[node as usize].level;
        let account = &mut self.accounts[id.0 as usize];
        account.refused += 1;
        account.last_refusal = Some(Refused { level, kind, limit, held, wanted });
    }

    fn children(&self, index: u32) -> impl Iterator<Item = u32> {
        let some = |index: u32| (index != NONE).then_some(index);
        let first = some(self.accounts[index as usize].first_child);
        std::iter::successors(first, move |&child| some(self.accounts[child as usize].next))
    }

    /// Databases here or below, in the order of the tree.
    fn databases_below(&self, index: u32, found: &mut Vec<AccountId>) {
        if self.accounts[index as usize].level == Level::Database {
            found.push(AccountId(index));
        }
        for child in self.children(index) {
            self.databases_below(child, found);
        }
    }

    /// What is held here or below, by kind.
    fn held(&self, index: u32) -> [u64; KINDS] {
        let mut sums = self.accounts[index as usize].held;
        for child in self.children(index) {
            sums.iter_mut().zip(self.held(child)).for_each(|(sum, held)| *sum += held);
        }
        sums
    }

    /// What is wrong with one node: its sums, or its limit.
    fn wrong(&self, index: u32) -> Option<String> {
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

// ---- opening and closing ----

/// Open a database's account that may hold `memory_limit` bytes of memory, below an organisation or
/// group, or right below the machine.
#[must_use]
pub fn open(memory_limit: u64, parent: Option<AccountId>) -> AccountId {
    open_node(Level::Database, memory_limit, parent)
}

/// Open a node of the tree; what it holds is the sum of what will be below it.
///
/// # Panics
/// If the parent is closed, or not of a level that may stand above.
#[must_use]
pub fn open_node(level: Level, memory_limit: u64, parent: Option<AccountId>) -> AccountId {
    LEDGER.with_borrow_mut(|ledger| {
        let parent = parent.unwrap_or(AccountId::MACHINE);
        let above = ledger.accounts[parent.0 as usize].level;
        assert!(match level {
            Level::Machine | Level::System => false,
            Level::Organisation => above == Level::Machine,
            Level::Group => matches!(above, Level::Machine | Level::Organisation),
            Level::Database => !matches!(above, Level::System | Level::Database),
        });
        let above = Some((parent.0, &ledger.accounts[parent.0 as usize]));
        let index = ledger.insert(Account::new(level, memory_limit, above));
        if level == Level::Database {
            ledger.count_database(index, true);
        }
        AccountId(index)
    })
}

/// Close an account.
///
/// # Panics
/// If it still holds anything, or something below it is open: that is a leak, and a bug.
pub fn close(id: AccountId) {
    LEDGER.with_borrow_mut(|ledger| {
        let account = &ledger.accounts[id.0 as usize];
        assert!(account.open && id.name().is_none());
        assert!(account.held == [0; KINDS], "account closed holding {:?}", account.held);
        assert!(account.first_child == NONE, "account closed with others below it");
        assert!(account.memory == 0 && account.cached == 0);
        if account.level == Level::Database {
            ledger.count_database(id.0, false);
        }
        ledger.remove_child(id.0);
        ledger.accounts[id.0 as usize].open = false;
        ledger.free.push(id.0);
    });
}

// ---- charging ----

/// Book `bytes` more of `kind`, unless that passes a limit of the account or of a node above it
/// even without cached pages (see the head of the file).
#[must_use]
#[inline]
pub fn charge(id: AccountId, kind: Kind, bytes: u64) -> bool {
    LEDGER.with_borrow_mut(|ledger| ledger.try_charge(id, kind, bytes))
        || charge_without_cache(id, kind, bytes)
}

#[cold]
fn charge_without_cache(id: AccountId, kind: Kind, bytes: u64) -> bool {
    let may_evict = (kind as usize) < MEMORY_KINDS;
    while may_evict && make_room(id, bytes) {
        if LEDGER.with_borrow_mut(|ledger| ledger.try_charge(id, kind, bytes)) {
            return true;
        }
    }
    let evictable = pagecache::unpinned_bytes(id);
    LEDGER.with_borrow_mut(|ledger| ledger.refuse(id, kind, bytes, evictable));
    false
}

/// Take pages out of caches for a charge that does not fit; `false` if none were, or if that would
/// not help.
fn make_room(id: AccountId, bytes: u64) -> bool {
    let (node, missing, cached) = LEDGER.with_borrow(|ledger| {
        let node = ledger.full_node(id.0, bytes).expect("it did not fit just now");
        let account = &ledger.accounts[node as usize];
        let missing = account.memory.saturating_add(bytes) - account.memory_limit;
        (node, missing, account.cached)
    });
    let own = pagecache::unpinned_bytes(id);
    let others = LEDGER.with_borrow(|ledger| match ledger.accounts[node as usize].level {
        Level::Organisation | Level::Group => cached - ledger.accounts[id.0 as usize].cached,
        Level::Machine | Level::System | Level::Database => 0,
    });
    if missing > own + others {
        return false;
    }
    let mut freed = pagecache::shed(id, missing);
    if freed < missing && others > 0 {
        freed += shed_below(AccountId(node), (missing - freed).max(GROUP_SHED_BYTES));
    }
    freed > 0
}

/// Take at least `bytes` of unpinned pages from databases below `node`, one after the other, as far
/// as there are; how many bytes went. Who begins is another one each time.
fn shed_below(node: AccountId, bytes: u64) -> u64 {
    let (databases, hand) = LEDGER.with_borrow(|ledger| {
        let mut databases = Vec::new();
        ledger.databases_below(node.0, &mut databases);
        (databases, ledger.accounts[node.0 as usize].hand)
    });
    let start = hand % databases.len().max(1);
    let (mut freed, mut visited) = (0, 0);
    for id in databases[start..].iter().chain(&databases[..start]) {
        if freed >= bytes {
            break;
        }
        freed += pagecache::shed(*id, bytes - freed);
        visited += 1;
    }
    LEDGER.with_borrow_mut(|ledger| ledger.accounts[node.0 as usize].hand = start + visited);
    freed
}

/// Book `bytes` of `kind` as given back.
///
/// # Panics
/// If the account does not hold that much.
#[inline]
pub fn credit(id: AccountId, kind: Kind, bytes: u64) {
    LEDGER.with_borrow_mut(|ledger| ledger.credit(id, kind, bytes));
}

/// Book what is held now of a kind that no limit refuses, instead of what was.
///
/// # Panics
/// If it is another kind.
pub fn rebook(id: AccountId, kind: Kind, now: u64) {
    assert!(matches!(kind, Kind::File | Kind::Descriptor));
    LEDGER.with_borrow_mut(|ledger| {
        let before = ledger.accounts[id.0 as usize].held[kind as usize];
        if now > before {
            assert!(ledger.try_charge(id, kind, now - before));
        } else {
            ledger.credit(id, kind, before - now);
        }
    });
}

// ---- limits ----

/// Set how many bytes of memory an account, or everything below a node, may hold. If it holds more,
/// its unpinned pages go, and what still is too much stays: charges are refused until it fits.
pub fn set_memory_limit(id: AccountId, bytes: u64) {
    let (excess, level) = LEDGER.with_borrow_mut(|ledger| {
        let account = &mut ledger.accounts[id.0 as usize];
        assert!(account.open);
        account.memory_limit = bytes;
        (account.memory.saturating_sub(bytes), account.level)
    });
    if excess > 0 {
        match level {
            Level::Database | Level::System => pagecache::shed(id, excess),
            Level::Group | Level::Organisation => shed_below(id, excess),
            // Whose pages go first is the engine's to say: it knows who is idle.
            Level::Machine => 0,
        };
    }
    LEDGER.with_borrow_mut(|ledger| {
        let account = &mut ledger.accounts[id.0 as usize];
        account.grace = if account.memory > bytes { account.memory } else { 0 };
    });
}

/// Set how many bytes everybody may hold together.
pub fn set_machine_limit(bytes: u64) {
    set_memory_limit(AccountId::MACHINE, bytes);
}

/// Set how many bytes of temporary files an account may hold. What is too much stays until it is
/// given back; more is refused.
pub fn set_temporary_limit(id: AccountId, bytes: u64) {
    LEDGER.with_borrow_mut(|ledger| {
        let account = &mut ledger.accounts[id.0 as usize];
        assert!(account.open);
        account.temporary_limit = bytes;
    });
}

fn look<R>(id: AccountId, body: impl FnOnce(&Account) -> R) -> R {
    LEDGER.with_borrow(|ledger| body(&ledger.accounts[id.0 as usize]))
}

/// The account's memory limit in bytes.
#[must_use]
pub fn memory_limit(id: AccountId) -> u64 {
    look(id, |account| account.memory_limit)
}

/// What the account can not hold more than: its memory limit, or what it held when that was lowered
/// below it.
#[must_use]
pub fn memory_bound(id: AccountId) -> u64 {
    look(id, |account| account.memory_limit.max(account.grace))
}

/// The account's limit of temporary files in bytes.
#[must_use]
pub fn temporary_limit(id: AccountId) -> u64 {
    look(id, |account| account.temporary_limit)
}

/// Bytes of memory held now, all kinds together.
#[must_use]
pub fn memory_held(id: AccountId) -> u64 {
    look(id, |account| account.memory)
}

/// What is held now, by kind: of a node, what is held below it, added up for this call.
#[must_use]
pub fn held(id: AccountId) -> [u64; KINDS] {
    LEDGER.with_borrow(|ledger| ledger.held(id.0))
}

/// How many charges a limit refused.
#[must_use]
pub fn refused(id: AccountId) -> u64 {
    look(id, |account| account.refused)
}

/// The last charge that a limit refused.
#[must_use]
pub fn last_refusal(id: AccountId) -> Option<Refused> {
    look(id, |account| account.last_refusal)
}

/// What everybody holds, by kind.
#[must_use]
pub fn total() -> [u64; KINDS] {
    LEDGER.with_borrow(|ledger| ledger.total)
}

/// Number of open accounts of databases.
#[must_use]
pub fn open_accounts() -> usize {
    look(AccountId::MACHINE, |account| account.databases as usize)
}

// ---- checking ----

/// What is wrong with the books, if they do not close: a sum, a limit, or bytes that nobody booked.
#[must_use]
pub fn imbalance() -> Option<String> {
    let wrong = LEDGER.with_borrow(|ledger| {
        let open = |index: &u32| ledger.accounts[*index as usize].open;
        let mut nodes = (0..ledger.accounts.len() as u32).filter(open);
        nodes.find_map(|index| ledger.wrong(index)).or_else(|| {
            let kinds = KIND_NAMES.iter().zip(ledger.held(0).into_iter().zip(ledger.total));
            let mut wrong = kinds.filter(|(_, (sum, total))| sum != total);
            wrong.next().map(|(name, (sum, total))| {
                format!("books of {name} do not close: accounts hold {sum}, all together {total}")
            })
        })
    });
    let unbooked = unbooked();
    wrong.or_else(|| (unbooked != 0).then(|| format!("{unbooked} bytes are held and not booked")))
}

/// Bytes of memory that storage's allocators hold, by their own count, less what is booked for them.
/// Anything but 0 is a bug.
#[must_use]
pub fn unbooked() -> i64 {
    let booked: u64 = total()[..STORAGE_KINDS].iter().sum();
    COUNTED.get() as i64 - booked as i64
}

/// Check the invariants: sums, limits, nothing unbooked.
///
/// # Panics
/// If the books do not close.
pub fn assert_closed() {
    let wrong = imbalance();
    assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
}

/// Memory was taken from the system.
#[inline]
pub(crate) fn count_taken(bytes: usize) {
    COUNTED.set(COUNTED.get() + bytes as u64);
}

/// Memory was given back to the system.
#[inline]
pub(crate) fn count_given(bytes: usize) {
    COUNTED.set(COUNTED.get() - bytes as u64);
}

/// Memory of storage's own, counted for as long as it lives; booking it is its owner's part.
#[derive(Debug)]
pub(crate) struct Counted<T>(Box<[T]>);

impl<T: Clone> Counted<T> {
    /// `count` times the same value.
    pub(crate) fn new(value: T, count: usize) -> Counted<T> {
        count_taken(count * size_of::<T>());
        Counted(vec![value; count].into_boxed_slice())
    }
}

impl<T> Deref for Counted<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Counted<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        count_given(size_of_val(&*self.0));
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
