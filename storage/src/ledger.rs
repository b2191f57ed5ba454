//! Closed books: every byte that storage holds for somebody is booked on exactly one account.
//!
//! Owns the accounts of one loop (one thread): what each holds now, by kind, and its limit. The
//! machine's total is kept beside the accounts, so that their sum can be checked at any moment.
//! Leaves to others: what a budget should be, and what to do when one is used up.
//!
//! Invariant: for each kind, the sum over accounts equals the machine's total. An account is closed
//! only when everything on it is zero.

use std::cell::RefCell;

/// What bytes are held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQLite's allocations, headers and rounding included.
    Heap = 0,
    /// The in-memory WAL image.
    Wal = 1,
    /// The wal-index.
    WalIndex = 2,
    /// Temporary objects of SQLite (sorts, statement journals), the part in memory.
    Scratch = 3,
    /// Bytes in unnamed temporary files: WAL spill and scratch spill.
    Temporary = 4,
}

/// Number of [`Kind`]s.
pub const KINDS: usize = 5;

/// Names of the kinds in order, as metrics and reports print them.
pub const KIND_NAMES: [&str; KINDS] = ["heap", "wal", "wal_index", "scratch", "temporary"];

/// Key of an account in this thread's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(u32);

impl AccountId {
    /// What runs on behalf of nobody: SQLite's own process-wide allocations.
    pub const SYSTEM: AccountId = AccountId(0);

    pub(crate) fn index(self) -> u32 {
        self.0
    }

    pub(crate) fn from_index(index: u32) -> AccountId {
        AccountId(index)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    held: [u64; KINDS],
    memory_limit: u64,
    refused: u64,
    open: bool,
}

impl Account {
    /// Bytes of memory held; the temporary kind is on disk.
    fn memory(&self) -> u64 {
        self.held[..Kind::Temporary as usize].iter().sum()
    }
}

#[derive(Debug)]
struct Ledger {
    accounts: Vec<Account>,
    free: Vec<u32>,
    total: [u64; KINDS],
}

thread_local! {
    static LEDGER: RefCell<Ledger> = const {
        RefCell::new(Ledger { accounts: Vec::new(), free: Vec::new(), total: [0; KINDS] })
    };
}

impl Ledger {
    fn ensure_system(&mut self) {
        if self.accounts.is_empty() {
            self.accounts.push(Account {
                memory_limit: u64::MAX,
                open: true,
                ..Account::default()
            });
        }
    }
}

/// Open an account that may hold `memory_limit` bytes of memory.
#[must_use]
pub fn open(memory_limit: u64) -> AccountId {
    LEDGER.with_borrow_mut(|ledger| {
        ledger.ensure_system();
        let account = Account { memory_limit, open: true, ..Account::default() };
        if let Some(index) = ledger.free.pop() {
            ledger.accounts[index as usize] = account;
            return AccountId(index);
        }
        ledger.accounts.push(account);
        AccountId(u32::try_from(ledger.accounts.len() - 1).expect("accounts fit in 32 bits"))
    })
}

/// Close an account.
///
/// # Panics
/// If it still holds anything: that is a leak, and a bug.
pub fn close(id: AccountId) {
    LEDGER.with_borrow_mut(|ledger| {
        assert!(id != AccountId::SYSTEM);
        let account = &mut ledger.accounts[id.0 as usize];
        assert!(account.open);
        assert!(account.held == [0; KINDS], "account closed holding {:?}", account.held);
        account.open = false;
        ledger.free.push(id.0);
    });
}

/// Book `bytes` more of `kind`, unless that passes the account's memory limit.
#[must_use]
pub fn charge(id: AccountId, kind: Kind, bytes: u64) -> bool {
    LEDGER.with_borrow_mut(|ledger| {
        ledger.ensure_system();
        let account = &mut ledger.accounts[id.0 as usize];
        assert!(account.open);
        if kind != Kind::Temporary && account.memory() + bytes > account.memory_limit {
            account.refused += 1;
            return false;
        }
        account.held[kind as usize] += bytes;
        ledger.total[kind as usize] += bytes;
        true
    })
}

/// Book `bytes` of `kind` as given back.
///
/// # Panics
/// If the account does not hold that much.
pub fn credit(id: AccountId, kind: Kind, bytes: u64) {
    LEDGER.with_borrow_mut(|ledger| {
        let account = &mut ledger.accounts[id.0 as usize];
        assert!(account.open);
        assert!(account.held[kind as usize] >= bytes);
        account.held[kind as usize] -= bytes;
        ledger.total[kind as usize] -= bytes;
    });
}

/// The account's memory limit in bytes.
#[must_use]
pub fn memory_limit(id: AccountId) -> u64 {
    LEDGER.with_borrow(|ledger| ledger.accounts[id.0 as usize].memory_limit)
}

/// Let the account hold `bytes` of memory from now on. Less than it holds is allowed: it gets no more
/// until what it holds fits.
pub fn set_memory_limit(id: AccountId, bytes: u64) {
    LEDGER.with_borrow_mut(|ledger| {
        let account = &mut ledger.accounts[id.0 as usize];
        assert!(account.open && id != AccountId::SYSTEM);
        account.memory_limit = bytes;
    });
}

/// Bytes of memory held now, all kinds together.
#[must_use]
pub fn memory_held(id: AccountId) -> u64 {
    LEDGER.with_borrow(|ledger| ledger.accounts[id.0 as usize].memory())
}

/// Bytes held now, by kind.
#[must_use]
pub fn held(id: AccountId) -> [u64; KINDS] {
    LEDGER.with_borrow_mut(|ledger| {
        ledger.ensure_system();
        ledger.accounts[id.0 as usize].held
    })
}

/// How many allocations the limit refused.
#[must_use]
pub fn refused(id: AccountId) -> u64 {
    LEDGER.with_borrow(|ledger| ledger.accounts[id.0 as usize].refused)
}

/// Bytes held by everybody, by kind.
#[must_use]
pub fn total() -> [u64; KINDS] {
    LEDGER.with_borrow(|ledger| ledger.total)
}

/// Number of open accounts, the system's not counted.
#[must_use]
pub fn open_accounts() -> usize {
    LEDGER.with_borrow(|ledger| ledger.accounts.iter().skip(1).filter(|a| a.open).count())
}

/// What is wrong with the books, if they do not close: the sum over accounts is not the total.
#[must_use]
pub fn imbalance() -> Option<String> {
    LEDGER.with_borrow(|ledger| {
        let sums = ledger.accounts.iter().fold([0; KINDS], |mut sums, account| {
            for (sum, held) in sums.iter_mut().zip(account.held) {
                *sum += held;
            }
            sums
        });
        let kinds = KIND_NAMES.iter().zip(sums.iter().zip(ledger.total));
        let mut wrong = kinds.filter(|(_, (sum, total))| *sum != total);
        wrong.next().map(|(name, (sum, total))| {
            format!("books of {name} do not close: accounts hold {sum}, all together {total}")
        })
    })
}

/// Check the invariant: the sum over accounts equals the total, kind by kind.
///
/// # Panics
/// If the books do not close.
pub fn assert_closed() {
    let wrong = imbalance();
    assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_counts_all_memory_kinds_but_not_temporary_files() {
        let id = open(100);
        assert!(charge(id, Kind::Heap, 60));
        assert!(charge(id, Kind::Wal, 40));
        assert!(!charge(id, Kind::Heap, 1));
        assert!(charge(id, Kind::Temporary, 1000));
        assert_eq!(refused(id), 1);
        assert_eq!(held(id), [60, 40, 0, 0, 1000]);
        assert_closed();
        credit(id, Kind::Heap, 60);
        credit(id, Kind::Wal, 40);
        credit(id, Kind::Temporary, 1000);
        close(id);
    }

    #[test]
    #[should_panic(expected = "holding")]
    fn closing_an_account_that_holds_bytes_is_a_bug() {
        let id = open(100);
        assert!(charge(id, Kind::Heap, 1));
        close(id);
    }
}
