//! One cache and its pages: blocks of memory, the table of keys, the list of what may go.
//!
//! Layout of a page's block, in this order, as SQLite's own cache has it: the page's bytes; a guard
//! of 16 bytes, because SQLite may read (never write) so far past the end of a damaged page, and
//! must find the same there in every run; our header; SQLite's extra bytes; another guard. Both
//! guards are checked when the block is given back. A new block is zeros: no byte of one tenant is
//! ever in another one's page.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use rusqlite::ffi;

use crate::allocator;
use crate::fiber;
use crate::ledger::{self, AccountId, Counted, Kind};
use crate::meter::Meter;

/// Bytes behind the page and at the end of a block; SQLite's own cache says that a damaged page is
/// read no further.
const GUARD: [u8; 16] = *b"end of the page!";

/// Places of a new cache's table; it doubles when there are as many pages. A fresh connection uses
/// a handful of pages, and `cache_size` allows 120.
pub(super) const PLACES_MIN: usize = 32;

/// Alignment of a block and of the header in it.
const ALIGNMENT: usize = 16;

/// The header of a page's block.
#[repr(C)]
pub(super) struct Page {
    /// What SQLite sees; first, because it names the page by this address.
    pub(super) handle: ffi::sqlite3_pcache_page,
    pub(super) cache: CacheRef,
    /// The next page with the same place in the table.
    pub(super) chained: Link,
    /// The page that was unpinned next after this one.
    pub(super) newer: Link,
    /// The page that was unpinned last before this one.
    pub(super) older: Link,
    /// When it was unpinned, by this thread's counter.
    pub(super) stamp: Cell<u64>,
    pub(super) key: Cell<u32>,
    pub(super) pinned: Cell<bool>,
}

pub(super) type Link = Cell<Option<PageRef>>;

/// A page that lives. Made by [`Cache::allocate`], used up by [`Cache::free`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRef(pub(super) NonNull<Page>);

impl Deref for PageRef {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: this file's promise: no reference is kept of a page that was freed; everything
        // that changes in a page is a `Cell`.
        unsafe { self.0.as_ref() }
    }
}

impl PageRef {
    pub(super) fn handle(self) -> *mut ffi::sqlite3_pcache_page {
        self.0.as_ptr().cast()
    }

    /// # Safety
    /// `handle` came from [`PageRef::handle`] of a page that lives.
    pub(super) unsafe fn of(handle: *mut ffi::sqlite3_pcache_page) -> PageRef {
        // SAFETY: the caller's promise: the address of a header, and not null.
        PageRef(unsafe { NonNull::new_unchecked(handle.cast()) })
    }
}

/// One of SQLite's caches.
pub(super) struct Cache {
    pub(super) account: AccountId,
    pub(super) page_bytes: usize,
    pub(super) extra_bytes: usize,
    /// Its fetches count as reads: the cache of the tenant's database, or of a table that a statement
    /// makes for itself. Not that of the database of temporary tables: whether it is open depends on
    /// what else its connection did, and `BEGIN IMMEDIATE` looks at every open one.
    pub(super) counted: bool,
    /// Pages come and go; else they are the only copy, of a database in memory.
    pub(super) purgeable: bool,
    pub(super) pages_max: Cell<usize>,
    pub(super) pages: Cell<usize>,
    pub(super) unpinned: Cell<usize>,
    /// No page has a greater key.
    pub(super) key_max: Cell<u32>,
    pub(super) table: RefCell<Counted<Link>>,
    pub(super) newest: Link,
    pub(super) oldest: Link,
    /// The account's other caches.
    pub(super) next: Cell<Option<CacheRef>>,
    pub(super) previous: Cell<Option<CacheRef>>,
}

/// A cache that lives. Made by [`Cache::open`], used up by [`CacheRef::close`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheRef(pub(super) NonNull<Cache>);

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
    /// `cache` is the address of a cache that lives.
    pub(super) unsafe fn of(cache: *mut ffi::sqlite3_pcache) -> CacheRef {
        // SAFETY: the caller's promise: the address of a cache, and not null.
        CacheRef(unsafe { NonNull::new_unchecked(cache.cast()) })
    }

    /// Give the cache back with all its pages, pinned or not.
    ///
    /// # Safety
    /// Nobody else has it.
    pub(super) unsafe fn close(self) {
        self.truncate(0);
        assert!(self.pages.get() == 0 && self.unpinned.get() == 0);
        let account = self.account;
        let table_bytes = size_of_val(&**self.table.borrow());
        // SAFETY: `open` leaked this box; the caller has the only reference, and no page is left.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        ledger::count_given(size_of::<Cache>());
        ledger::credit(account, Kind::Cache, (size_of::<Cache>() + table_bytes) as u64);
    }
}

thread_local! {
    /// Counts pages that were unpinned.
    static STAMP: Cell<u64> = const { Cell::new(0) };
}

impl Cache {
    /// A new cache of an account, if there is memory for it.
    pub(super) fn open(
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
        let cache = Box::new(Cache {
            account,
            page_bytes,
            extra_bytes: extra_bytes.next_multiple_of(8),
            counted: fiber::with_meter(Meter::is_cache_counted).unwrap_or(true),
            purgeable,
            pages_max: Cell::new(0),
            pages: Cell::new(0),
            unpinned: Cell::new(0),
            key_max: Cell::new(0),
            table: RefCell::new(Counted::new(Link::new(None), PLACES_MIN)),
            newest: Link::new(None),
            oldest: Link::new(None),
            next: Cell::new(None),
            previous: Cell::new(None),
        });
        Some(CacheRef(NonNull::from(Box::leak(cache))))
    }

    pub(super) fn layout(&self) -> Layout {
        let bytes = self.extra_offset() + self.extra_bytes + GUARD.len();
        Layout::from_size_align(bytes, ALIGNMENT).expect("a page is far below the address space")
    }

    pub(super) fn header_offset(&self) -> usize {
        self.page_bytes + GUARD.len()
    }

    pub(super) fn extra_offset(&self) -> usize {
        self.header_offset() + size_of::<Page>()
    }

    pub(super) fn place(&self, key: u32) -> usize {
        key as usize & (self.table.borrow().len() - 1)
    }

    pub(super) fn find(&self, key: u32) -> Option<PageRef> {
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
    pub(super) fn insert(&self, page: PageRef, key: u32) {
        page.key.set(key);
        let place = self.place(key);
        page.chained.set(self.table.borrow()[place].replace(Some(page)));
        self.pages.set(self.pages.get() + 1);
        self.key_max.set(self.key_max.get().max(key));
    }

    /// Take a pinned page out of the table.
    pub(super) fn remove(&self, page: PageRef) {
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
    pub(super) fn pin(&self, page: PageRef) {
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
    pub(super) fn unpin(&self, page: PageRef) {
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

    pub(super) fn pinned(&self) -> usize {
        self.pages.get() - self.unpinned.get()
    }

    /// Take the page that was unpinned first out of the cache: its block is the caller's.
    pub(super) fn take_oldest(&self) -> Option<PageRef> {
        let page = self.oldest.get()?;
        self.pin(page);
        self.remove(page);
        Some(page)
    }

    /// Free what could go, oldest first, until at most `pages` are left.
    pub(super) fn cut(&self, pages: usize) {
        while self.pages.get() > pages {
            let Some(page) = self.take_oldest() else { break };
            self.free(page);
        }
    }

    /// Free pages with keys from `key` on, pinned or not.
    pub(super) fn truncate(&self, key: u32) {
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
    pub(super) fn grow(&self) {
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

    pub(super) fn charge(&self, bytes: usize) -> bool {
        !allocator::is_to_fail(self.account)
            && ledger::charge(self.account, Kind::Cache, bytes as u64)
    }

    /// A new page, all zeros, pinned and not in the table.
    pub(super) fn allocate(&self, cache: CacheRef) -> Option<PageRef> {
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

    pub(super) fn guards(&self, start: NonNull<u8>) -> [NonNull<u8>; 2] {
        let offsets = [self.page_bytes, self.extra_offset() + self.extra_bytes];
        // SAFETY: both offsets are inside the block, as the layout has it.
        offsets.map(|offset| unsafe { start.add(offset) })
    }

    /// Give a page back that is not in the table.
    pub(super) fn free(&self, page: PageRef) {
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
    pub(super) fn recycle(&self) -> Option<PageRef> {
        let page = self.take_oldest()?;
        // SAFETY: SQLite's extra bytes, which it wants to find as zeros with a new key.
        unsafe { ptr::write_bytes(page.handle.pExtra.cast::<u8>(), 0, self.extra_bytes) };
        Some(page)
    }

    /// The page of this key, pinned. If there is none: `create` 0 makes none, 1 only if that is
    /// easy, 2 if at all possible. Easy means that nine tenths of the cache are not pinned yet;
    /// else SQLite writes dirty pages out and asks again, with 2.
    pub(super) fn fetch(&self, this: CacheRef, key: u32, create: c_int) -> Option<PageRef> {
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
