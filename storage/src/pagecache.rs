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
//! holds for connections whose fibers are suspended. In this file no reference to a page that is
//! not pinned, and no place in a table, is kept over a charge: [`Cache::fetch`] asks for memory
//! first and looks for the place after that.
//!
//! Layout of a page's block, in this order, as SQLite's own cache has it: the page's bytes; a guard
//! of 16 bytes, because SQLite may read (never write) so far past the end of a damaged page, and
//! must find the same there in every run; our header; SQLite's extra bytes; another guard. Both
//! guards are checked when the block is given back. A new block is zeros: no byte of one tenant is
//! ever in another one's page.
//!
//! Deterministic: places come from page numbers alone, orders from a counter, and nothing here asks
//! for time, addresses or draws.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_uint, c_void};
use std::ops::Deref;
use std::ptr::{self, NonNull};

use rusqlite::ffi;

use crate::allocator;
use crate::fiber;
use crate::ledger::{self, AccountId, Counted, Kind};
use crate::meter::Meter;
use crate::sometimes;

/// Bytes behind the page and at the end of a block; SQLite's own cache says that a damaged page is
/// read no further.
const GUARD: [u8; 16] = *b"end of the page!";

/// Places of a new cache's table; it doubles when there are as many pages. A fresh connection uses
/// a handful of pages, and `cache_size` allows 120.
const PLACES_MIN: usize = 32;

/// Alignment of a block and of the header in it.
const ALIGNMENT: usize = 16;

/// The header of a page's block.
#[repr(C)]
struct Page {
    /// What SQLite sees; first, because it names the page by this address.
    handle: ffi::sqlite3_pcache_page,
    cache: CacheRef,
    /// The next page with the same place in the table.
    chained: Link,
    /// The page that was unpinned next after this one.
    newer: Link,
    /// The page that was unpinned last before this one.
    older: Link,
    /// When it was unpinned, by this thread's counter.
    stamp: Cell<u64>,
    key: Cell<u32>,
    pinned: Cell<bool>,
}

type Link = Cell<Option<PageRef>>;

/// A page that lives. Made by [`Cache::allocate`], used up by [`Cache::free`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct PageRef(NonNull<Page>);

impl Deref for PageRef {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: this file's promise: no reference is kept of a page that was freed; everything
        // that changes in a page is a `Cell`.
        unsafe { self.0.as_ref() }
    }
}

impl PageRef {
    fn handle(self) -> *mut ffi::sqlite3_pcache_page {
        self.0.as_ptr().cast()
    }

    /// # Safety
    /// `handle` came from [`PageRef::handle`] of a page that lives.
    unsafe fn of(handle: *mut ffi::sqlite3_pcache_page) -> PageRef {
        // SAFETY: the caller's promise: the address of a header, and not null.
        PageRef(unsafe { NonNull::new_unchecked(handle.cast()) })
    }
}

/// One of SQLite's caches.
struct Cache {
    account: AccountId,
    page_bytes: usize,
    extra_bytes: usize,
    /// Its fetches count as reads: the cache of the tenant's database, or of a table that a statement
    /// makes for itself. Not that of the database of temporary tables: whether it is open depends on
    /// what else its connection did, and `BEGIN IMMEDIATE` looks at every open one.
    counted: bool,
    /// Pages come and go; else they are the only copy, of a database in memory.
    purgeable: bool,
    pages_max: Cell<usize>,
    pages: Cell<usize>,
    unpinned: Cell<usize>,
    /// No page has a greater key.
    key_max: Cell<u32>,
    table: RefCell<Counted<Link>>,
    newest: Link,
    oldest: Link,
    /// The account's other caches.
    next: Cell<Option<CacheRef>>,
    previous: Cell<Option<CacheRef>>,
}

/// A cache that lives. Made by [`create`], used up by [`destroy`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct CacheRef(NonNull<Cache>);

impl Deref for CacheRef {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        // SAFETY: this file's promise: SQLite uses no cache that it destroyed, and neither do pages
        // and lists of ours; everything that changes in a cache is behind a `Cell` or `RefCell`.
        unsafe { self.0.as_ref() }
    }
}

impl CacheRef {
    /// # Safety
    /// `cache` came from [`create`] and was not destroyed.
    unsafe fn of(cache: *mut ffi::sqlite3_pcache) -> CacheRef {
        // SAFETY: the caller's promise: the address of a cache, and not null.
        CacheRef(unsafe { NonNull::new_unchecked(cache.cast()) })
    }
}

thread_local! {
    /// The first cache of each account, by the account's index.
    static CACHES: RefCell<Vec<Option<CacheRef>>> = const { RefCell::new(Vec::new()) };
    /// Counts pages that were unpinned.
    static STAMP: Cell<u64> = const { Cell::new(0) };
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

impl Cache {
    fn layout(&self) -> Layout {
        let bytes = self.extra_offset() + self.extra_bytes + GUARD.len();
        Layout::from_size_align(bytes, ALIGNMENT).expect("a page is far below the address space")
    }

    fn header_offset(&self) -> usize {
        self.page_bytes + GUARD.len()
    }

    fn extra_offset(&self) -> usize {
        self.header_offset() + size_of::<Page>()
    }

    fn place(&self, key: u32) -> usize {
        key as usize & (self.table.borrow().len() - 1)
    }

    fn find(&self, key: u32) -> Option<PageRef> {
        let table = self.table.borrow();
        let mut next = table[key as usize & (table.len() - 1)].get();
        while let Some(page) = next {
            if page.key.get() == key {
                return Some(page);
            }
            next = page.chained.get();
        }
        None
    }

    /// Put a page into the table under a key that no page has.
    fn insert(&self, page: PageRef, key: u32) {
        page.key.set(key);
        let place = self.place(key);
        page.chained.set(self.table.borrow()[place].replace(Some(page)));
        self.pages.set(self.pages.get() + 1);
        self.key_max.set(self.key_max.get().max(key));
    }

    /// Take a pinned page out of the table.
    fn remove(&self, page: PageRef) {
        assert!(page.pinned.get());
        let table = self.table.borrow();
        let first = &table[page.key.get() as usize & (table.len() - 1)];
        if first.get() == Some(page) {
            first.set(page.chained.get());
        } else {
            let mut before = first.get().expect("the page is in the table");
            while before.chained.get() != Some(page) {
                before = before.chained.get().expect("the page is in the table");
            }
            before.chained.set(page.chained.get());
        }
        self.pages.set(self.pages.get() - 1);
    }

    /// Take an unpinned page off the list of those that may go.
    fn pin(&self, page: PageRef) {
        assert!(!page.pinned.replace(true));
        let (newer, older) = (page.newer.get(), page.older.get());
        match newer {
            Some(newer) => newer.older.set(older),
            None => self.newest.set(older),
        }
        match older {
            Some(older) => older.newer.set(newer),
            None => self.oldest.set(newer),
        }
        self.unpinned.set(self.unpinned.get() - 1);
    }

    /// Put a pinned page on the list of those that may go, as the last one.
    fn unpin(&self, page: PageRef) {
        assert!(page.pinned.replace(false));
        let older = self.newest.replace(Some(page));
        page.older.set(older);
        page.newer.set(None);
        match older {
            Some(older) => older.newer.set(Some(page)),
            None => self.oldest.set(Some(page)),
        }
        let stamp = STAMP.get() + 1;
        STAMP.set(stamp);
        page.stamp.set(stamp);
        self.unpinned.set(self.unpinned.get() + 1);
    }

    fn pinned(&self) -> usize {
        self.pages.get() - self.unpinned.get()
    }

    /// Take the page that was unpinned first out of the cache: its block is the caller's.
    fn take_oldest(&self) -> Option<PageRef> {
        let page = self.oldest.get()?;
        self.pin(page);
        self.remove(page);
        Some(page)
    }

    /// Free what could go, oldest first, until at most `pages` are left.
    fn cut(&self, pages: usize) {
        while self.pages.get() > pages {
            let Some(page) = self.take_oldest() else { break };
            self.free(page);
        }
    }

    /// Free pages with keys from `key` on, pinned or not.
    fn truncate(&self, key: u32) {
        if key > self.key_max.get() {
            return;
        }
        let places = self.table.borrow().len();
        // If the keys to go are fewer than places, only theirs are looked at.
        let count = ((self.key_max.get() - key) as usize).saturating_add(1).min(places);
        for number in 0..count {
            let place = (key as usize + number) & (places - 1);
            let mut next = self.table.borrow()[place].get();
            while let Some(page) = next {
                next = page.chained.get();
                if page.key.get() >= key {
                    if !page.pinned.get() {
                        self.pin(page);
                    }
                    self.remove(page);
                    self.free(page);
                }
            }
        }
        self.key_max.set(key.saturating_sub(1));
    }

    /// Double the table if there are as many pages as places. Without memory it stays, and is slower.
    fn grow(&self) {
        let places = self.table.borrow().len();
        if self.pages.get() < places || !self.charge(places * size_of::<Link>()) {
            return;
        }
        let table = Counted::new(Link::new(None), places * 2);
        let old = self.table.replace(table);
        for first in old.iter() {
            let mut next = first.get();
            while let Some(page) = next {
                next = page.chained.get();
                let place = self.place(page.key.get());
                page.chained.set(self.table.borrow()[place].replace(Some(page)));
            }
        }
    }

    fn charge(&self, bytes: usize) -> bool {
        !allocator::is_to_fail(self.account)
            && ledger::charge(self.account, Kind::Cache, bytes as u64)
    }

    /// A new page, all zeros, pinned and not in the table.
    fn allocate(&self, cache: CacheRef) -> Option<PageRef> {
        let layout = self.layout();
        if !self.charge(layout.size()) {
            return None;
        }
        // SAFETY: the layout's size is not zero.
        let Some(start) = NonNull::new(unsafe { System.alloc_zeroed(layout) }) else {
            ledger::credit(self.account, Kind::Cache, layout.size() as u64);
            return None;
        };
        ledger::count_taken(layout.size());
        // SAFETY: inside the block, as the layout has it.
        let (header, extra) = unsafe {
            (start.add(self.header_offset()).cast::<Page>(), start.add(self.extra_offset()))
        };
        for guard in self.guards(start) {
            // SAFETY: both guards are inside the block.
            unsafe { guard.cast::<[u8; GUARD.len()]>().write(GUARD) };
        }
        let handle =
            ffi::sqlite3_pcache_page { pBuf: start.as_ptr().cast(), pExtra: extra.as_ptr().cast() };
        let page = Page {
            handle,
            cache,
            chained: Link::new(None),
            newer: Link::new(None),
            older: Link::new(None),
            stamp: Cell::new(0),
            key: Cell::new(0),
            pinned: Cell::new(true),
        };
        // SAFETY: inside the block, aligned because page and guard are multiples of 16 bytes.
        unsafe { header.write(page) };
        Some(PageRef(header))
    }

    fn guards(&self, start: NonNull<u8>) -> [NonNull<u8>; 2] {
        let offsets = [self.page_bytes, self.extra_offset() + self.extra_bytes];
        // SAFETY: both offsets are inside the block, as the layout has it.
        offsets.map(|offset| unsafe { start.add(offset) })
    }

    /// Give a page back that is not in the table.
    fn free(&self, page: PageRef) {
        assert!(page.pinned.get());
        let start = NonNull::new(page.handle.pBuf.cast::<u8>()).expect("made by `allocate`");
        for guard in self.guards(start) {
            // SAFETY: both guards are inside the block, and were written with it.
            let bytes = unsafe { guard.cast::<[u8; GUARD.len()]>().read() };
            assert!(bytes == GUARD, "SQLite wrote past the end of a page");
        }
        ledger::credit(self.account, Kind::Cache, self.layout().size() as u64);
        ledger::count_given(self.layout().size());
        // SAFETY: the start of a block that was allocated with this layout; nobody has the page.
        unsafe { System.dealloc(start.as_ptr(), self.layout()) };
    }

    /// A page out of this cache for another key: its bytes are the same tenant's.
    fn recycle(&self) -> Option<PageRef> {
        let page = self.take_oldest()?;
        // SAFETY: SQLite's extra bytes, which it wants to find as zeros with a new key.
        unsafe { ptr::write_bytes(page.handle.pExtra.cast::<u8>(), 0, self.extra_bytes) };
        Some(page)
    }

    /// The page of this key, pinned. If there is none: `create` 0 makes none, 1 only if that is
    /// easy, 2 if at all possible. Easy means that nine tenths of the cache are not pinned yet;
    /// else SQLite writes dirty pages out and asks again, with 2.
    fn fetch(&self, this: CacheRef, key: u32, create: c_int) -> Option<PageRef> {
        if let Some(page) = self.find(key) {
            if !page.pinned.get() {
                self.pin(page);
            }
            return Some(page);
        }
        let pages_max = self.pages_max.get();
        if create == 0 || create == 1 && self.pinned() >= pages_max * 9 / 10 {
            return None;
        }
        self.grow();
        let is_full = self.purgeable && self.pages.get() + 1 >= pages_max;
        let recycled = if is_full { self.recycle() } else { None };
        let page = recycled.or_else(|| self.allocate(this))?;
        self.insert(page, key);
        Some(page)
    }
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
    assert!(page_bytes.is_multiple_of(ALIGNMENT), "a page size is a power of two");
    let table_bytes = PLACES_MIN * size_of::<Link>();
    let bytes = (size_of::<Cache>() + table_bytes) as u64;
    if allocator::is_to_fail(account) || !ledger::charge(account, Kind::Cache, bytes) {
        return None;
    }
    ledger::count_taken(size_of::<Cache>());
    let first = first_cache(account);
    let cache = Box::new(Cache {
        account,
        counted: fiber::with_meter(Meter::is_cache_counted).unwrap_or(true),
        page_bytes,
        extra_bytes: extra_bytes.next_multiple_of(8),
        purgeable,
        pages_max: Cell::new(0),
        pages: Cell::new(0),
        unpinned: Cell::new(0),
        key_max: Cell::new(0),
        table: RefCell::new(Counted::new(Link::new(None), PLACES_MIN)),
        newest: Link::new(None),
        oldest: Link::new(None),
        next: Cell::new(first),
        previous: Cell::new(None),
    });
    let cache = CacheRef(NonNull::from(Box::leak(cache)));
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
    cache.truncate(0);
    assert!(cache.pages.get() == 0 && cache.unpinned.get() == 0);
    match cache.previous.get() {
        Some(previous) => previous.next.set(cache.next.get()),
        None => set_first_cache(cache.account, cache.next.get()),
    }
    if let Some(next) = cache.next.get() {
        next.previous.set(cache.previous.get());
    }
    let account = cache.account;
    let table_bytes = size_of_val(&**cache.table.borrow());
    // SAFETY: `create` leaked this box; SQLite has forgotten it, no page and no list knows it.
    drop(unsafe { Box::from_raw(cache.0.as_ptr()) });
    ledger::count_given(size_of::<Cache>());
    ledger::credit(account, Kind::Cache, (size_of::<Cache>() + table_bytes) as u64);
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
#[path = "pagecache_tests.rs"]
mod tests;
