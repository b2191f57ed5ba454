//! SQLite's allocator: books every byte on the account of whoever asked for it.
//!
//! Layout of a block: a 16-byte header {size u64, account u32, canary u32}, the caller's bytes
//! rounded up to 8, and 16 spare bytes. The spare bytes hold a canary that is checked at free:
//! SQLite 3.54.1 reads one byte past a string in `sqlite3Fts5ExprPattern`, and whatever else reads
//! or writes a little too far must not reach another tenant's block unseen.
//!
//! `free` credits the account that was charged, whoever runs then. Over the account's limit malloc
//! answers NULL, and SQLite answers `SQLITE_NOMEM`.
//!
//! A simulation may let allocations of its thread fail without that reason ([`fail_allocations`]):
//! in a drawn rate, or the Nth one. Only what a tenant's account pays for fails: what runs on
//! behalf of nobody is SQLite's start, which no request can repeat. Pages of the cache fail with the
//! same draws (`pagecache.rs`). Switched off, as it is in every server, the hook costs the look at one
//! thread-local flag.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use rusqlite::ffi;

use crate::fiber;
use crate::ledger::{self, AccountId, Kind};
use crate::process;

/// A block of so many bytes is about to be filled, which takes a while: a turn that is over ends
/// before. VM steps do not show that: a hundred of them can make eight strings of a megabyte, 40 ms.
/// SQLite holds nothing here that other connections share (no MEMSTATUS, no shared cache).
const CALL_BYTES: usize = 64 * 1024;

/// Longer blocks are mappings of their own, whose pages are all new.
const POPULATED_BYTES_MIN: usize = 128 * 1024;

const HEADER_BYTES: usize = 16;
const SPARE_BYTES: usize = 16;
const ALIGNMENT: usize = 16;
const CANARY: u32 = 0x4d59_5241;
const SPARE: [u8; SPARE_BYTES] = *b"end of the block";

/// Parts of a million: the unit of [`Failing::PerMillion`].
const PER_MILLION: u64 = 1_000_000;

/// Which allocations on tenants' accounts fail, counted on this thread since it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// None, and nothing is counted.
    Never,
    /// Each by a draw of its own, a pure function of the seed and the allocation's number.
    PerMillion {
        /// How many of a million fail.
        rate: u64,
        /// What the draws follow from.
        seed: u64,
    },
    /// The one of this number, the first is 0. A number that never comes counts and fails none.
    Nth {
        /// The number.
        n: u64,
        /// All later ones fail too.
        forever: bool,
    },
}

impl Failing {
    /// Whether the allocation of number `count` fails.
    fn strikes(self, count: u64) -> bool {
        match self {
            Failing::Never => false,
            Failing::PerMillion { rate, seed } => {
                let drawn = splitmix(splitmix(seed).wrapping_add(count));
                (u128::from(drawn) * u128::from(PER_MILLION)) >> 64 < u128::from(rate)
            }
            Failing::Nth { n, forever } => count == n || forever && count > n,
        }
    }
}

/// The output function of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
fn splitmix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

thread_local! {
    static FAILING: Cell<Failing> = const { Cell::new(Failing::Never) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static FAILED: Cell<u64> = const { Cell::new(0) };
}

/// For simulations: which of this thread's allocations fail from now on. Both counts begin anew.
pub fn fail_allocations(failing: Failing) {
    FAILING.set(failing);
    ALLOCATIONS.set(0);
    FAILED.set(0);
}

/// Allocations (and growths of blocks) on tenants' accounts since [`fail_allocations`] was called;
/// 0 while it says [`Failing::Never`].
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// How many of those failed because they were to fail.
#[must_use]
pub fn failed_allocations() -> u64 {
    FAILED.get()
}

/// Whether this allocation fails because a simulation wants it.
#[inline]
pub(crate) fn is_to_fail(account: AccountId) -> bool {
    let failing = FAILING.get();
    failing != Failing::Never && account != AccountId::SYSTEM && count_one(failing)
}

#[cold]
fn count_one(failing: Failing) -> bool {
    let count = ALLOCATIONS.get();
    ALLOCATIONS.set(count + 1);
    let fails = failing.strikes(count);
    FAILED.set(FAILED.get() + u64::from(fails));
    fails
}

#[repr(C)]
struct Header {
    size_bytes: u64,
    account: u32,
    canary: u32,
}

fn rounded(size: c_int) -> usize {
    usize::try_from(size).expect("SQLite asks for a positive size").max(1).next_multiple_of(8)
}

fn layout(size_bytes: usize) -> Layout {
    Layout::from_size_align(HEADER_BYTES + size_bytes + SPARE_BYTES, ALIGNMENT)
        .expect("SQLITE_MAX_ALLOCATION_SIZE is far below the address space")
}

fn booked(size_bytes: usize) -> u64 {
    layout(size_bytes).size() as u64
}

/// Give the part of a long block from `from` on its pages, bit by bit: all at once they could take longer
/// than a turn.
///
/// # Safety
/// `start` is a block of `layout(size_bytes)`.
unsafe fn populate(start: *mut u8, from: usize, size_bytes: usize) {
    if size_bytes < POPULATED_BYTES_MIN {
        return;
    }
    for offset in (from..size_bytes).step_by(CALL_BYTES) {
        // SAFETY: inside the block.
        process::populate(unsafe { start.add(offset) }, CALL_BYTES.min(size_bytes - offset));
        fiber::on_call();
    }
}

/// Write header and spare bytes around a block of `size_bytes`; returns the caller's address.
///
/// # Safety
/// `start` is a block of `layout(size_bytes)`.
unsafe fn dress(start: *mut u8, size_bytes: usize, account: AccountId) -> *mut c_void {
    let header = Header { size_bytes: size_bytes as u64, account: account.index(), canary: CANARY };
    // SAFETY: the block begins with room for a header, at its alignment.
    unsafe { start.cast::<Header>().write(header) };
    // SAFETY: header and bytes are followed by SPARE_BYTES inside the block.
    unsafe {
        ptr::copy_nonoverlapping(SPARE.as_ptr(), start.add(HEADER_BYTES + size_bytes), SPARE_BYTES)
    };
    // SAFETY: inside the block.
    unsafe { start.add(HEADER_BYTES).cast() }
}

/// The start, size and account of a block, its canaries checked.
///
/// # Safety
/// `memory` came from `dress` and was not freed.
unsafe fn undress(memory: *mut c_void) -> (*mut u8, usize, AccountId) {
    // SAFETY: `dress` returned an address HEADER_BYTES into the block.
    let start = unsafe { memory.cast::<u8>().sub(HEADER_BYTES) };
    // SAFETY: the block begins with a header that `dress` wrote.
    let header = unsafe { start.cast::<Header>().read() };
    assert!(header.canary == CANARY, "SQLite freed what was not allocated, or wrote before it");
    let size_bytes = header.size_bytes as usize;
    let mut spare = [0; SPARE_BYTES];
    // SAFETY: the spare bytes follow the caller's bytes.
    unsafe {
        let end = start.add(HEADER_BYTES + size_bytes);
        ptr::copy_nonoverlapping(end, spare.as_mut_ptr(), SPARE_BYTES);
    };
    assert!(spare == SPARE, "SQLite wrote past the end of a block");
    (start, size_bytes, AccountId::from_index(header.account))
}

/// Before a block of so many bytes is given.
fn look(size_bytes: usize) {
    if size_bytes >= CALL_BYTES {
        fiber::on_call();
    } else {
        fiber::on_allocation();
    }
}

unsafe extern "C" fn malloc(size: c_int) -> *mut c_void {
    if size <= 0 {
        return ptr::null_mut();
    }
    let size_bytes = rounded(size);
    look(size_bytes);
    let account = fiber::account();
    if is_to_fail(account) || !ledger::charge(account, Kind::Heap, booked(size_bytes)) {
        return ptr::null_mut();
    }
    // SAFETY: the layout's size is not zero.
    let start = unsafe { System.alloc(layout(size_bytes)) };
    if start.is_null() {
        ledger::credit(account, Kind::Heap, booked(size_bytes));
        return ptr::null_mut();
    }
    ledger::count_taken(layout(size_bytes).size());
    // SAFETY: just allocated with this layout.
    unsafe {
        populate(start, 0, size_bytes);
        dress(start, size_bytes, account)
    }
}

unsafe extern "C" fn free(memory: *mut c_void) {
    if memory.is_null() {
        return;
    }
    // SAFETY: SQLite frees what `malloc` or `resize` gave it, once.
    let (start, size_bytes, account) = unsafe { undress(memory) };
    if size_bytes >= POPULATED_BYTES_MIN {
        // Its pages go back to the kernel, which takes a while too.
        fiber::on_call();
    } else {
        // A hash table of FTS5's is freed token by token: 300,000 of them took 12 ms.
        fiber::on_allocation();
    }
    ledger::credit(account, Kind::Heap, booked(size_bytes));
    ledger::count_given(layout(size_bytes).size());
    // SAFETY: `undress` returned the block's start and the size it was allocated with.
    unsafe {
        start.cast::<Header>().write(Header { size_bytes: 0, account: 0, canary: 0 });
        System.dealloc(start, layout(size_bytes));
    }
}

unsafe extern "C" fn resize(memory: *mut c_void, size: c_int) -> *mut c_void {
    // SAFETY: SQLite resizes what `malloc` or `resize` gave it.
    let (start, old_bytes, account) = unsafe { undress(memory) };
    let new_bytes = rounded(size);
    look(new_bytes);
    let (old_booked, new_booked) = (booked(old_bytes), booked(new_bytes));
    if new_booked > old_booked {
        let growth = new_booked - old_booked;
        if is_to_fail(account) || !ledger::charge(account, Kind::Heap, growth) {
            return ptr::null_mut();
        }
    }
    // SAFETY: allocated with this layout, and the new size is not zero.
    let moved = unsafe { System.realloc(start, layout(old_bytes), layout(new_bytes).size()) };
    if moved.is_null() {
        ledger::credit(account, Kind::Heap, new_booked.saturating_sub(old_booked));
        return ptr::null_mut();
    }
    ledger::credit(account, Kind::Heap, old_booked.saturating_sub(new_booked));
    ledger::count_given(layout(old_bytes).size());
    ledger::count_taken(layout(new_bytes).size());
    // SAFETY: just reallocated to this layout.
    unsafe {
        populate(moved, old_bytes, new_bytes);
        dress(moved, new_bytes, account)
    }
}

unsafe extern "C" fn size_of(memory: *mut c_void) -> c_int {
    if memory.is_null() {
        return 0;
    }
    // SAFETY: SQLite asks about what `malloc` or `resize` gave it.
    let (_, size_bytes, _) = unsafe { undress(memory) };
    c_int::try_from(size_bytes).expect("SQLite's allocations fit in an int")
}

unsafe extern "C" fn round_up(size: c_int) -> c_int {
    c_int::try_from(rounded(size)).expect("SQLite's allocations fit in an int")
}

unsafe extern "C" fn initialise(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn shut_down(_: *mut c_void) {}

/// The method table for `SQLITE_CONFIG_MALLOC`.
pub(crate) fn methods() -> ffi::sqlite3_mem_methods {
    ffi::sqlite3_mem_methods {
        xMalloc: Some(malloc),
        xFree: Some(free),
        xRealloc: Some(resize),
        xSize: Some(size_of),
        xRoundup: Some(round_up),
        xInit: Some(initialise),
        xShutdown: Some(shut_down),
        pAppData: ptr::null_mut(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allocate and free `count` small blocks for a tenant; which of them failed.
    fn fails_of(failing: Failing, count: u64) -> Vec<u64> {
        fail_allocations(failing);
        let account = ledger::open(1 << 20, None);
        let fails = |number: &u64| {
            assert_eq!(allocations(), *number);
            is_to_fail(account)
        };
        let failed: Vec<u64> = (0..count).filter(fails).collect();
        assert_eq!(failed_allocations(), failed.len() as u64);
        fail_allocations(Failing::Never);
        ledger::close(account);
        failed
    }

    #[test]
    fn the_nth_fails_once_or_from_then_on() {
        assert_eq!(fails_of(Failing::Nth { n: 3, forever: false }, 6), [3]);
        assert_eq!(fails_of(Failing::Nth { n: 3, forever: true }, 6), [3, 4, 5]);
        assert!(fails_of(Failing::Nth { n: u64::MAX, forever: true }, 100).is_empty());
    }

    #[test]
    fn a_rate_is_kept_and_follows_from_its_seed() {
        let some = fails_of(Failing::PerMillion { rate: 1_000, seed: 7 }, 1_000_000);
        assert!((850..1_150).contains(&some.len()), "{} of a million", some.len());
        assert_eq!(some, fails_of(Failing::PerMillion { rate: 1_000, seed: 7 }, 1_000_000));
        let other = fails_of(Failing::PerMillion { rate: 1_000, seed: 8 }, 1_000_000);
        assert_ne!(some, other);
        assert!(fails_of(Failing::PerMillion { rate: 0, seed: 7 }, 1_000).is_empty());
        let all = fails_of(Failing::PerMillion { rate: 1_000_000, seed: 7 }, 1_000);
        assert_eq!(all.len(), 1_000);
    }

    #[test]
    fn what_nobody_pays_for_never_fails_and_is_not_counted() {
        fail_allocations(Failing::Nth { n: 0, forever: true });
        assert!(!is_to_fail(AccountId::SYSTEM));
        assert_eq!((allocations(), failed_allocations()), (0, 0));
        fail_allocations(Failing::Never);
        assert!(!is_to_fail(ledger::open(100, None)));
        assert_eq!(allocations(), 0);
    }
}
