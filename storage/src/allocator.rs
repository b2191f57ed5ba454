//! SQLite's allocator: books every byte on the account of whoever asked for it.
//!
//! Layout of a block: a 16-byte header {size u64, account u32, canary u32}, the caller's bytes
//! rounded up to 8, and 16 spare bytes. The spare bytes hold a canary that is checked at free:
//! SQLite 3.54.1 reads one byte past a string in `sqlite3Fts5ExprPattern`, and whatever else reads
//! or writes a little too far must not reach another tenant's block unseen.
//!
//! `free` credits the account that was charged, whoever runs then. Over the account's limit malloc
//! answers NULL, and SQLite answers `SQLITE_NOMEM`.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_void};
use std::ptr;

use rusqlite::ffi;

use crate::fiber;
use crate::ledger::{self, AccountId, Kind};

const HEADER_BYTES: usize = 16;
const SPARE_BYTES: usize = 16;
const ALIGNMENT: usize = 16;
const CANARY: u32 = 0x4d59_5241;
const SPARE: [u8; SPARE_BYTES] = *b"end of the block";

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

unsafe extern "C" fn malloc(size: c_int) -> *mut c_void {
    if size <= 0 {
        return ptr::null_mut();
    }
    let account = fiber::account();
    let size_bytes = rounded(size);
    if !ledger::charge(account, Kind::Heap, booked(size_bytes)) {
        return ptr::null_mut();
    }
    // SAFETY: the layout's size is not zero.
    let start = unsafe { System.alloc(layout(size_bytes)) };
    if start.is_null() {
        ledger::credit(account, Kind::Heap, booked(size_bytes));
        return ptr::null_mut();
    }
    // SAFETY: just allocated with this layout.
    unsafe { dress(start, size_bytes, account) }
}

unsafe extern "C" fn free(memory: *mut c_void) {
    if memory.is_null() {
        return;
    }
    // SAFETY: SQLite frees what `malloc` or `resize` gave it, once.
    let (start, size_bytes, account) = unsafe { undress(memory) };
    ledger::credit(account, Kind::Heap, booked(size_bytes));
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
    let (old_booked, new_booked) = (booked(old_bytes), booked(new_bytes));
    if new_booked > old_booked && !ledger::charge(account, Kind::Heap, new_booked - old_booked) {
        return ptr::null_mut();
    }
    // SAFETY: allocated with this layout, and the new size is not zero.
    let moved = unsafe { System.realloc(start, layout(old_bytes), layout(new_bytes).size()) };
    if moved.is_null() {
        ledger::credit(account, Kind::Heap, new_booked.saturating_sub(old_booked));
        return ptr::null_mut();
    }
    ledger::credit(account, Kind::Heap, old_booked.saturating_sub(new_booked));
    // SAFETY: just reallocated to this layout.
    unsafe { dress(moved, new_bytes, account) }
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
