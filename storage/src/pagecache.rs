//! SQLite's page cache (`SQLITE_CONFIG_PCACHE2`): pages booked on the account of whose they are.
//!
//! Owns the memory of cached pages, which of them are pinned, and in which order the others go.
//! Leaves to SQLite when a page is pinned, dirty or stale, and to the ledger how much there may be.
//!
//! SQLite makes one cache for each connection, and one for each of its temporary tables. A page that
//! it *fetches* is pinned, until it *unpins* it; dirty pages stay pinned, so an unpinned one is
//! always clean. A cache holds no more pages than SQLite said (`cache_size`), unless all are pinned:
//! at that number the page that was unpinned first is used again. Unpinned pages of all caches of
//! one account also go, in the order in which they were unpinned, when the account's memory is used
//! up ([`crate::ledger`]), and when the engine wants memory of whoever is idle ([`shed`]).
//!
//! **Why a page may go in the middle of an allocation.** The ledger is charged by SQLite's allocator,
//! and that is called from everywhere in SQLite: also by the pager, between fetching one page and
//! another. `sqlite3.h` says that a cache may drop unpinned pages at any time, and SQLite is written
//! for it: its own cache did so inside of `malloc` (`sqlite3_release_memory`) wherever it was built
//! with `SQLITE_ENABLE_MEMORY_MANAGEMENT`. Who keeps a pointer to a page keeps it pinned. The same
//! holds for connections whose fibers are suspended. Here no reference to a page that is not
//! pinned, and no place in a table, is kept over a charge: [`Cache::fetch`] asks for memory
//! first and looks for the place after that.
//!
//! Deterministic: places come from page numbers alone, orders from a counter, and nothing here asks
//! for time, addresses or draws.

#![allow(unsafe_code)]

mod cache;

use std::cell::RefCell;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use rusqlite::ffi;

use crate::fiber;
use crate::ledger::AccountId;
use crate::sometimes;

use cache::{Cache, CacheRef, PageRef};

thread_local! {
    /// The first cache of each account, by the account's index.
    static CACHES: RefCell<Vec<Option<CacheRef>>> = const { RefCell::new(Vec::new()) };
}

fn first_cache(account: AccountId) -> Option<CacheRef> {
    CACHES.with_borrow(|caches| caches.get(account.index() as usize).copied().flatten())
}

fn set_first_cache(account: AccountId, cache: Option<CacheRef>) {
    CACHES.with_borrow_mut(|caches| {
        let index = account.index() as usize;
        if caches.len() <= index {
            caches.resize(index + 1, None);
        }
        caches[index] = cache;
    });
}

fn caches_of(account: AccountId) -> impl Iterator<Item = CacheRef> {
    std::iter::successors(first_cache(account), |cache| cache.next.get())
}

/// Bytes of an account's pages that could go now.
#[must_use]
pub fn unpinned_bytes(account: AccountId) -> u64 {
    caches_of(account).map(|cache| (cache.unpinned.get() * cache.layout().size()) as u64).sum()
}

/// Take unpinned pages from an account, those first that were not used for longest, until at least
/// `bytes` are free or there are none. Gives how many bytes went.
pub fn shed(account: AccountId, bytes: u64) -> u64 {
    let mut freed = 0;
    while freed < bytes {
        let oldest = caches_of(account).filter_map(|cache| cache.oldest.get());
        let Some(page) = oldest.min_by_key(|page| page.stamp.get()) else { break };
        let cache = page.cache;
        cache.pin(page);
        cache.remove(page);
        freed += cache.layout().size() as u64;
        cache.free(page);
    }
    if freed > 0 {
        sometimes!("cached pages go because memory is wanted");
    }
    freed
}

// ---- SQLite's calls ----

unsafe extern "C" fn initialise(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn create(
    page_bytes: c_int,
    extra_bytes: c_int,
    purgeable: c_int,
) -> *mut ffi::sqlite3_pcache {
    let (page_bytes, extra_bytes) = (page_bytes.max(0) as usize, extra_bytes.max(0) as usize);
    let cache = create_for(fiber::account(), page_bytes, extra_bytes, purgeable != 0);
    cache.map_or(ptr::null_mut(), |cache| cache.0.as_ptr().cast())
}

/// A new cache of an account, if there is memory for it.
fn create_for(
    account: AccountId,
    page_bytes: usize,
    extra_bytes: usize,
    purgeable: bool,
) -> Option<CacheRef> {
    let cache = Cache::open(account, page_bytes, extra_bytes, purgeable)?;
    let first = first_cache(account);
    cache.next.set(first);
    if let Some(first) = first {
        first.previous.set(Some(cache));
    }
    set_first_cache(account, Some(cache));
    Some(cache)
}

unsafe extern "C" fn set_size(cache: *mut ffi::sqlite3_pcache, pages: c_int) {
    // SAFETY: SQLite's cache, not destroyed.
    let cache = unsafe { CacheRef::of(cache) };
    if cache.purgeable {
        cache.pages_max.set(pages.max(0) as usize);
        cache.cut(cache.pages_max.get());
    }
}

unsafe extern "C" fn page_count(cache: *mut ffi::sqlite3_pcache) -> c_int {
    // SAFETY: SQLite's cache, not destroyed.
    let cache = unsafe { CacheRef::of(cache) };
    c_int::try_from(cache.pages.get()).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn fetch(
    cache: *mut ffi::sqlite3_pcache,
    key: c_uint,
    create: c_int,
) -> *mut ffi::sqlite3_pcache_page {
    // SAFETY: SQLite's cache, not destroyed.
    let cache = unsafe { CacheRef::of(cache) };
    let Some(page) = cache.fetch(cache, key, create) else {
        return ptr::null_mut();
    };
    if create != 0 && cache.counted {
        fiber::count_page_fetch();
    }
    page.handle()
}

unsafe extern "C" fn unpin(
    cache: *mut ffi::sqlite3_pcache,
    page: *mut ffi::sqlite3_pcache_page,
    discard: c_int,
) {
    // SAFETY: SQLite's cache, not destroyed.
    let cache = unsafe { CacheRef::of(cache) };
    // SAFETY: SQLite unpins a page that it fetched.
    let page = unsafe { PageRef::of(page) };
    assert!(page.cache == cache);
    // Too many pages, because all were pinned, become fewer again.
    let too_many = cache.purgeable && cache.pages.get() > cache.pages_max.get();
    if discard != 0 || too_many {
        cache.remove(page);
        cache.free(page);
    } else {
        cache.unpin(page);
    }
}

unsafe extern "C" fn rekey(
    cache: *mut ffi::sqlite3_pcache,
    page: *mut ffi::sqlite3_pcache_page,
    old: c_uint,
    new: c_uint,
) {
    // SAFETY: SQLite's cache, not destroyed.
    let cache = unsafe { CacheRef::of(cache) };
    // SAFETY: SQLite gives another number to a page that it fetched.
    let page = unsafe { PageRef::of(page) };
    assert!(page.cache == cache && page.key.get() == old);
    if let Some(other) = cache.find(new)
        && other != page
    {
        cache.pin(other);
        cache.remove(other);
        cache.free(other);
    }
    cache.remove(page);
    cache.insert(page, new);
}

unsafe extern "C" fn truncate(cache: *mut ffi::sqlite3_pcache, key: c_uint) {
    // SAFETY: SQLite's cache, not destroyed.
    unsafe { CacheRef::of(cache) }.truncate(key);
}

unsafe extern "C" fn shrink(cache: *mut ffi::sqlite3_pcache) {
    // SAFETY: SQLite's cache, not destroyed.
    unsafe { CacheRef::of(cache) }.cut(0);
}

unsafe extern "C" fn destroy(cache: *mut ffi::sqlite3_pcache) {
    // SAFETY: SQLite's cache, not destroyed.
    let cache = unsafe { CacheRef::of(cache) };
    match cache.previous.get() {
        Some(previous) => previous.next.set(cache.next.get()),
        None => set_first_cache(cache.account, cache.next.get()),
    }
    if let Some(next) = cache.next.get() {
        next.previous.set(cache.previous.get());
    }
    // SAFETY: SQLite has forgotten it, and no list knows it any more.
    unsafe { cache.close() };
}

/// The method table for `SQLITE_CONFIG_PCACHE2`.
pub(crate) fn methods() -> ffi::sqlite3_pcache_methods2 {
    ffi::sqlite3_pcache_methods2 {
        iVersion: 1,
        pArg: ptr::null_mut(),
        xInit: Some(initialise),
        xShutdown: None,
        xCreate: Some(create),
        xCachesize: Some(set_size),
        xPagecount: Some(page_count),
        xFetch: Some(fetch),
        xUnpin: Some(unpin),
        xRekey: Some(rekey),
        xTruncate: Some(truncate),
        xDestroy: Some(destroy),
        xShrink: Some(shrink),
    }
}

#[cfg(test)]
mod tests;
