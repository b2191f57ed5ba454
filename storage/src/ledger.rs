//! Closed books: every byte that storage holds for somebody is booked on exactly one account.
//!
//! Owns the accounts of one loop (one thread): what each holds now, by kind, and its limits.
//! Accounts form a tree: the machine, organisations, groups, databases. Named accounts of the system
//! stand beside it, each with a limit of its own. Only leaves are charged; a node above holds the sum of
//! what is below it, and a charge must fit into the leaf and into every node above, or it is booked
//! nowhere. Leaves to others what a budget should be, and what to do when one is used up.
//!
//! **Own cache first.** Where memory does not fit, unpinned pages go before a charge is refused:
//! the account's own, then, if a group's or an organisation's budget is what is used up, those of
//! the other databases in it. No charge ever takes a page of somebody outside that budget; memory
//! of the machine is the engine's to make room in. A charge that would not fit without any of
//! those pages is refused at once, and leaves them.
//!
//! Invariants: a node holds the memory of its children, and of each kind all leaves together hold
//! what [`total`] says. A node holds no more memory than its limit, or than it held when the limit
//! was lowered below that. An account is closed only when everything on it is zero. What storage's own
//! allocators count, each where it asks the system for memory, is what is booked ([`unbooked`]).

mod booking;
mod counted;
mod kind;
mod tree;

use std::cell::RefCell;

use crate::pagecache;

use tree::{Account, Ledger, NONE};

pub use booking::Booking;
pub(crate) use counted::{Counted, count_given, count_taken};
pub use kind::{AccountId, KIND_NAMES, KINDS, Kind, Level, MEMORY_KINDS, Refused, Turnover};

/// Bytes of pages at least that a group's databases lose at a time: looking through all of them for
/// each allocation of one would be slow.
const GROUP_SHED_BYTES: u64 = 64 * 1024;

thread_local! {
    static LEDGER: RefCell<Ledger> = RefCell::new(Ledger::new());
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
        assert!(level.may_stand_below(above));
        let above = Some((parent.0, &ledger.accounts[parent.0 as usize]));
        let index = ledger.insert(Account::new(level, memory_limit, above));
        if level == Level::Database {
            ledger.count_database(index, true);
        }
        AccountId(index)
    })
}

/// Put a database's account below another node, or right below the machine. What it holds moves with
/// it, even where a limit of the new place is passed: there, charges are refused until it fits.
///
/// # Panics
/// If it is no database's, or the parent is closed or not of a level that may stand above.
pub fn set_parent(id: AccountId, parent: Option<AccountId>) {
    LEDGER.with_borrow_mut(|ledger| {
        let parent = parent.unwrap_or(AccountId::MACHINE);
        let above = ledger.accounts[parent.0 as usize].level;
        assert!(Level::Database.may_stand_below(above));
        ledger.set_parent(id.0, parent.0);
    });
}

/// Close an account. Buffers that a [`Booking`] still holds on it are the connections' from now on.
///
/// # Panics
/// If it still holds anything, or something below it is open: that is a leak, and a bug.
pub fn close(id: AccountId) -> Turnover {
    LEDGER.with_borrow_mut(|ledger| {
        let account = &ledger.accounts[id.0 as usize];
        assert!(account.open && id.name().is_none());
        let buffers = account.held[Kind::Buffer as usize];
        ledger.credit(id, Kind::Buffer, buffers);
        assert!(ledger.try_charge(AccountId::CONNECTIONS, Kind::Buffer, buffers));
        let account = &mut ledger.accounts[id.0 as usize];
        account.life += 1;
        assert!(account.held == [0; KINDS], "account closed holding {:?}", account.held);
        assert!(account.first_child == NONE, "account closed with others below it");
        assert!(account.memory == 0 && account.cached == 0);
        if account.level == Level::Database {
            ledger.count_database(id.0, false);
        }
        ledger.remove_child(id.0);
        ledger.accounts[id.0 as usize].open = false;
        ledger.free.push(id.0);
        ledger.accounts[id.0 as usize].turnover
    })
}

// ---- charging ----

/// Whether the account and those above it hold no more than their limits, whatever charges may pass now.
#[must_use]
pub fn is_within(id: AccountId) -> bool {
    LEDGER.with_borrow(|ledger| {
        let mut chain = ledger.accounts[id.0 as usize].above().chain([id.0]);
        chain.all(|index| {
            let account = &ledger.accounts[index as usize];
            account.memory <= account.memory_limit
        })
    })
}

/// Until [`end_extra`], charges may pass each limit by so many bytes, or what was held when the limit
/// was lowered: for work that no budget may stop, because others wait for it.
pub fn begin_extra(bytes: u64) {
    LEDGER.with_borrow_mut(|ledger| ledger.extra = bytes);
}

/// Charges are limited again. Where this account or one above holds more than its limit, it is as if
/// the limit had been lowered.
pub fn end_extra(id: AccountId) {
    LEDGER.with_borrow_mut(|ledger| {
        ledger.extra = 0;
        for index in ledger.accounts[id.0 as usize].above().chain([id.0]) {
            let account = &mut ledger.accounts[index as usize];
            let is_within = account.memory <= account.memory_limit;
            account.grace = if is_within { 0 } else { account.grace.max(account.memory) };
        }
    });
}

/// Book `bytes` more of `kind`, unless that passes a limit of the account or of a node above it
/// even without cached pages (see the head of the file).
#[must_use]
#[inline]
pub fn charge(id: AccountId, kind: Kind, bytes: u64) -> bool {
    LEDGER.with_borrow_mut(|ledger| ledger.try_charge(id, kind, bytes))
        || charge_without_cache(id, kind, bytes)
}

/// Whether that many bytes more of memory could be booked now. What stands in the way and may go has gone
/// then, and a refusal is remembered like any other.
#[must_use]
pub fn has_room(id: AccountId, bytes: u64) -> bool {
    let fits = charge(id, Kind::Heap, bytes);
    if fits {
        credit(id, Kind::Heap, bytes);
    }
    fits
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
        let limit = ledger.limit_for(node, id.0, bytes);
        let missing = account.memory.saturating_add(bytes) - limit;
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

/// Set how many bytes of memory all databases may hold together, and how many of these only those
/// of them may have that are small ([`crate::limits::SMALL_MEMORY_BYTES`]): so a few that hold much
/// do not keep out the many that need little.
pub fn set_machine_limit(bytes: u64, kept_for_small: u64) {
    LEDGER.with_borrow_mut(|ledger| {
        ledger.accounts[AccountId::MACHINE.0 as usize].kept_for_small = kept_for_small;
    });
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

/// How many charges of an account a limit refused; of a node, those that its own limit refused.
#[must_use]
pub fn refused(id: AccountId) -> u64 {
    look(id, |account| account.refused)
}

/// The last charge that a limit refused.
#[must_use]
pub fn last_refusal(id: AccountId) -> Option<Refused> {
    look(id, |account| account.last_refusal)
}

/// What everybody holds, databases and the system's accounts, by kind.
#[must_use]
pub fn total() -> [u64; KINDS] {
    LEDGER.with_borrow(|ledger| ledger.total)
}

/// Number of open accounts of databases.
#[must_use]
pub fn open_accounts() -> usize {
    databases_below(AccountId::MACHINE) + databases_below(AccountId::CATALOGUE)
}

/// Number of open accounts of databases below a node.
#[must_use]
pub fn databases_below(id: AccountId) -> usize {
    look(id, |account| account.databases as usize)
}

/// Number of open nodes of groups and organisations.
#[must_use]
pub fn open_branches() -> usize {
    LEDGER.with_borrow(|ledger| {
        let branch = |account: &&Account| {
            account.open && matches!(account.level, Level::Group | Level::Organisation)
        };
        ledger.accounts.iter().filter(branch).count()
    })
}

// ---- checking ----

/// What is wrong with the books, if they do not close: a sum, a limit, or bytes that nobody booked.
#[must_use]
pub fn imbalance() -> Option<String> {
    let wrong = LEDGER.with_borrow(|ledger| {
        let open = |index: &u32| ledger.accounts[*index as usize].open;
        let mut nodes = (0..ledger.accounts.len() as u32).filter(open);
        nodes.find_map(|index| ledger.wrong(index)).or_else(|| {
            let kinds = KIND_NAMES.iter().zip(ledger.all().into_iter().zip(ledger.total));
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
    let booked: u64 = total()[..kind::STORAGE_KINDS].iter().sum();
    counted::bytes() as i64 - booked as i64
}

/// Check the invariants: sums, limits, nothing unbooked.
///
/// # Panics
/// If the books do not close.
pub fn assert_closed() {
    let wrong = imbalance();
    assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
}

#[cfg(test)]
mod tests;
