//! The page cache against a model, and under budgets, without SQLite; with it, `tests/vfs.rs`.

use std::collections::BTreeMap;

use super::cache::{Link, PLACES_MIN};
use super::*;
use crate::allocator::{self, Failing, fail_allocations};
use crate::ledger::{self, Kind, Level};

const PAGE_BYTES: usize = 512;
const EXTRA_BYTES: usize = 40;

fn cache(account: AccountId, pages_max: usize) -> CacheRef {
    let cache = create_for(account, PAGE_BYTES, EXTRA_BYTES, true).expect("memory for a cache");
    cache.pages_max.set(pages_max);
    cache
}

/// SQLite's calls, with keys for pages.
impl CacheRef {
    fn get(self, key: u32, create: c_int) -> Option<PageRef> {
        // SAFETY: a cache that lives.
        let handle = unsafe { fetch(self.0.as_ptr().cast(), key, create) };
        // SAFETY: not null, and so a page's.
        (!handle.is_null()).then(|| unsafe { PageRef::of(handle) })
    }

    fn release(self, page: PageRef, discard: bool) {
        // SAFETY: a cache that lives, and a pinned page of it.
        unsafe { unpin(self.0.as_ptr().cast(), page.handle(), c_int::from(discard)) };
    }

    fn destroy(self) {
        // SAFETY: a cache that lives, and is not used any more.
        unsafe { super::destroy(self.0.as_ptr().cast()) };
    }

    fn holds(self, key: u32) -> bool {
        self.find(key).is_some()
    }

    /// Fetch and unpin pages of these keys.
    fn fill(self, keys: std::ops::Range<u32>) {
        for key in keys {
            let page = self.get(key, 2).expect("room for a page");
            self.release(page, false);
        }
    }
}

impl PageRef {
    fn bytes(self) -> *mut u64 {
        self.handle.pBuf.cast()
    }

    fn read(self) -> (u64, u64) {
        // SAFETY: a page and its extra bytes are longer than 8.
        unsafe { (self.bytes().read(), self.handle.pExtra.cast::<u64>().read()) }
    }

    /// Mark a page as SQLite does: its content, and that the extra bytes are in use.
    fn write(self, value: u64) {
        // SAFETY: a page and its extra bytes are longer than 8.
        unsafe {
            self.bytes().write(value);
            self.handle.pExtra.cast::<u64>().write(value);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    page: PageRef,
    value: u64,
    pinned: bool,
    stamp: u64,
}

impl std::fmt::Debug for PageRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "page {}", self.key.get())
    }
}

/// What a cache should hold: pages by key.
struct Model {
    cache: CacheRef,
    pages_max: usize,
    pages: BTreeMap<u32, Known>,
}

impl Model {
    fn pinned(&self) -> usize {
        self.pages.values().filter(|known| known.pinned).count()
    }

    /// Key and stamp of the page that goes first.
    fn oldest(&self) -> Option<(u32, u64)> {
        let unpinned = self.pages.iter().filter(|(_, known)| !known.pinned);
        unpinned.map(|(key, known)| (*key, known.stamp)).min_by_key(|(_, stamp)| *stamp)
    }

    fn cut(&mut self, pages: usize) {
        while self.pages.len() > pages {
            let Some((key, _)) = self.oldest() else { break };
            self.pages.remove(&key);
        }
    }

    fn fetch(&mut self, key: u32, create: c_int, value: u64) {
        let got = self.cache.get(key, create);
        if let Some(known) = self.pages.get_mut(&key) {
            assert_eq!(got, Some(known.page), "the page is there");
            known.pinned = true;
            return;
        }
        let is_hard = self.pinned() >= self.pages_max * 9 / 10;
        if create == 0 || create == 1 && is_hard {
            assert_eq!(got, None);
            return;
        }
        if self.pages.len() + 1 >= self.pages_max
            && let Some((oldest, _)) = self.oldest()
        {
            self.pages.remove(&oldest);
        }
        let page = got.expect("there is room");
        assert_eq!(page.read().1, 0, "a page of another key is not known to SQLite");
        page.write(value);
        self.pages.insert(key, Known { page, value, pinned: true, stamp: 0 });
    }

    /// Unpin one of the pinned pages, by a draw.
    fn unpin(&mut self, draw: usize, discard: bool, stamp: u64) {
        let pinned = self.pinned();
        if pinned == 0 {
            return;
        }
        let mut keys = self.pages.iter().filter(|(_, known)| known.pinned).map(|(key, _)| *key);
        let key = keys.nth(draw % pinned).expect("one of the pinned pages");
        self.cache.release(self.pages[&key].page, discard);
        if discard || self.pages.len() > self.pages_max {
            self.pages.remove(&key);
        } else {
            let known = self.pages.get_mut(&key).expect("just found");
            (known.pinned, known.stamp) = (false, stamp);
        }
    }

    fn rekey(&mut self, draw: usize, new: u32) {
        let free = self.pages.get(&new).is_none_or(|known| !known.pinned);
        let pinned = self.pinned();
        if pinned == 0 || !free {
            return;
        }
        let mut keys = self.pages.iter().filter(|(_, known)| known.pinned).map(|(key, _)| *key);
        let key = keys.nth(draw % pinned).expect("one of the pinned pages");
        let known = self.pages.remove(&key).expect("just found");
        // SAFETY: a cache that lives, a pinned page of it.
        unsafe { rekey(self.cache.0.as_ptr().cast(), known.page.handle(), key, new) };
        self.pages.insert(new, known);
    }

    fn check(&self) {
        assert_eq!(self.cache.pages.get(), self.pages.len());
        assert_eq!(self.cache.pinned(), self.pinned());
        for (key, known) in &self.pages {
            assert_eq!(self.cache.find(*key), Some(known.page));
            assert_eq!((known.page.read().0, known.page.key.get()), (known.value, *key));
            assert_eq!(known.page.pinned.get(), known.pinned);
        }
    }
}

struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn step(draws: &mut Draws, models: &mut [Model; 2], account: AccountId, round: u64) {
    let number = draws.below(2) as usize;
    let key = 1 + draws.below(400) as u32;
    let draw = draws.below(1 << 20) as usize;
    let model = &mut models[number];
    match draws.below(64) {
        0..24 => model.fetch(key, draws.below(3) as c_int, round),
        24..50 => model.unpin(draw, draws.below(8) == 0, round),
        50..58 => model.rekey(draw, key),
        58 => {
            model.cache.truncate(key);
            model.pages.retain(|other, _| *other < key);
        }
        59 => {
            model.pages_max = draws.below(120) as usize;
            // SAFETY: a cache that lives.
            unsafe { set_size(model.cache.0.as_ptr().cast(), model.pages_max as c_int) };
            model.cut(model.pages_max);
        }
        60 if draws.below(4) == 0 => {
            // SAFETY: a cache that lives.
            unsafe { shrink(model.cache.0.as_ptr().cast()) };
            model.cut(0);
        }
        _ => {
            let size = model.cache.layout().size() as u64;
            let wanted = draws.below(6);
            let mut there = 0;
            for _ in 0..wanted {
                let both = [0, 1].map(|number| models[number].oldest());
                let Some(number) = (0..2)
                    .filter(|&number| both[number].is_some())
                    .min_by_key(|&number| both[number].map(|(_, stamp)| stamp))
                else {
                    break;
                };
                models[number].pages.remove(&both[number].expect("just filtered").0);
                there += 1;
            }
            assert_eq!(shed(account, wanted * size), there * size);
        }
    }
}

#[test]
fn two_caches_do_as_a_model_says() {
    for seed in 0..20 {
        let account = ledger::open(u64::MAX, None);
        let mut draws = Draws(seed);
        let mut models = [40, 90].map(|pages_max| Model {
            cache: cache(account, pages_max),
            pages_max,
            pages: BTreeMap::new(),
        });
        for round in 1..4_000 {
            step(&mut draws, &mut models, account, round);
            models.iter().for_each(Model::check);
            let unpinned: usize =
                models.iter().map(|model| model.pages.len() - model.pinned()).sum();
            let size = models[0].cache.layout().size();
            assert_eq!(unpinned_bytes(account), (unpinned * size) as u64);
            ledger::assert_closed();
        }
        models.into_iter().for_each(|model| model.cache.destroy());
        ledger::close(account);
        ledger::assert_closed();
    }
}

#[test]
fn own_pages_go_before_a_charge_is_refused() {
    let account = ledger::open(u64::MAX, None);
    let (first, second) = (cache(account, 100), cache(account, 100));
    first.fill(1..5);
    second.fill(1..5);
    let pinned = first.get(1, 2).expect("room for a page");
    let page_bytes = first.layout().size() as u64;
    let held = ledger::memory_held(account);
    ledger::set_memory_limit(account, held);
    assert!(ledger::charge(account, Kind::Buffer, page_bytes + 1));
    assert!(!first.holds(2) && !first.holds(3), "two pages went, those unpinned first");
    assert!(first.holds(1) && first.holds(4) && second.holds(1));
    assert_eq!(ledger::refused(account), 0);
    // More than there would be without any page: nothing goes for nothing.
    let left = unpinned_bytes(account);
    assert_eq!(left, 5 * page_bytes);
    let free = held - ledger::memory_held(account);
    assert!(!ledger::charge(account, Kind::Buffer, left + free + 1));
    assert_eq!((unpinned_bytes(account), ledger::refused(account)), (left, 1));
    let refused = ledger::last_refusal(account).expect("just refused");
    assert_eq!((refused.missing(), refused.level), (1, Level::Database));
    assert!(ledger::charge(account, Kind::Buffer, left + free));
    assert_eq!((first.pages.get(), second.pages.get()), (1, 0));
    // A page that is fetched when nothing is left is refused, and then there is one to use again.
    assert!(second.get(9, 2).is_none());
    first.release(pinned, false);
    assert!(second.get(9, 2).is_some());
    assert!(!first.holds(1));
    ledger::credit(account, Kind::Buffer, page_bytes + 1 + left + free);
    first.destroy();
    second.destroy();
    ledger::close(account);
    ledger::assert_closed();
}

#[test]
fn a_smaller_limit_takes_pages_at_once() {
    let account = ledger::open(u64::MAX, None);
    let cache = cache(account, 100);
    cache.fill(1..11);
    let page_bytes = cache.layout().size() as u64;
    let held = ledger::memory_held(account);
    ledger::set_memory_limit(account, held - 3 * page_bytes);
    assert_eq!(cache.pages.get(), 7);
    assert_eq!(ledger::memory_bound(account), held - 3 * page_bytes);
    ledger::set_memory_limit(account, 0);
    assert_eq!(cache.pages.get(), 0);
    assert_eq!(ledger::memory_bound(account), held - 10 * page_bytes, "the cache itself stays");
    ledger::assert_closed();
    cache.destroy();
    ledger::close(account);
}

#[test]
fn a_group_takes_from_its_databases_and_from_nobody_else() {
    let group = ledger::open_node(Level::Group, u64::MAX, None);
    let ids = [0; 3].map(|_| ledger::open(u64::MAX, Some(group)));
    let stranger = ledger::open(u64::MAX, None);
    let caches = ids.map(|id| cache(id, 100));
    let other = cache(stranger, 100);
    caches.iter().chain([&other]).for_each(|cache| cache.fill(1..11));
    let page_bytes = other.layout().size() as u64;
    ledger::set_memory_limit(group, ledger::memory_held(group));
    // Its own ten pages first, then others' of the group.
    assert!(ledger::charge(ids[1], Kind::Buffer, 12 * page_bytes));
    let left = caches.map(|cache| cache.pages.get());
    assert!(left[1] == 0 && left[0] + left[2] <= 18, "{left:?}");
    let free = ledger::memory_limit(group) - ledger::memory_held(group);
    let most = free + (left[0] + left[2]) as u64 * page_bytes;
    assert!(!ledger::charge(ids[1], Kind::Buffer, most + page_bytes * 8));
    assert_eq!(caches.map(|cache| cache.pages.get()), left, "nothing goes for nothing");
    assert_eq!(ledger::last_refusal(ids[1]).map(|refused| refused.level), Some(Level::Group));
    assert!(ledger::charge(ids[1], Kind::Buffer, most));
    assert_eq!(caches.map(|cache| cache.pages.get()), [0; 3]);
    assert_eq!(other.pages.get(), 10);
    ledger::set_memory_limit(group, u64::MAX);
    // Nor does the machine take pages from others for a charge.
    ledger::set_machine_limit(ledger::memory_held(AccountId::MACHINE), 0);
    assert!(!ledger::charge(ids[0], Kind::Buffer, 1));
    assert_eq!(ledger::last_refusal(ids[0]).map(|refused| refused.level), Some(Level::Machine));
    assert_eq!(other.pages.get(), 10);
    assert_eq!(shed(stranger, 1), page_bytes);
    assert!(ledger::charge(ids[0], Kind::Buffer, page_bytes));
    ledger::set_machine_limit(u64::MAX, 0);
    ledger::assert_closed();
    ledger::credit(ids[0], Kind::Buffer, page_bytes);
    ledger::credit(ids[1], Kind::Buffer, 12 * page_bytes + most);
    caches.into_iter().chain([other]).for_each(CacheRef::destroy);
    for id in ids.into_iter().chain([stranger, group]) {
        let _ = ledger::close(id);
    }
    ledger::assert_closed();
}

#[test]
fn each_page_and_cache_may_fail_and_nothing_is_lost() {
    for n in 0..30 {
        let account = ledger::open(u64::MAX, None);
        fail_allocations(Failing::Nth { n, forever: false });
        let cache = create_for(account, PAGE_BYTES, EXTRA_BYTES, true);
        let mut got = 0;
        if let Some(cache) = cache {
            cache.pages_max.set(100);
            got = (1..21).filter_map(|key| cache.get(key, 2)).count();
            cache.destroy();
        }
        let expected = match n {
            0 => 0,
            1..=20 => 19,
            _ => 20,
        };
        assert_eq!((got, allocator::failed_allocations()), (expected, u64::from(n <= 20)));
        fail_allocations(Failing::Never);
        ledger::close(account);
        ledger::assert_closed();
    }
}

#[test]
fn a_table_that_cannot_grow_still_finds_every_page() {
    let account = ledger::open(u64::MAX, None);
    let cache = cache(account, 1000);
    for key in 1..33 {
        assert!(cache.get(key, 2).is_some());
    }
    let page_bytes = cache.layout().size() as u64;
    let table_bytes = (PLACES_MIN * size_of::<Link>()) as u64;
    // Room for a page, and not for a table beside it.
    ledger::set_memory_limit(account, ledger::memory_held(account) + table_bytes - 1);
    cache.grow();
    assert_eq!(cache.table.borrow().len(), PLACES_MIN);
    ledger::set_memory_limit(account, ledger::memory_held(account) + 2 * table_bytes + page_bytes);
    assert!(cache.get(40, 2).is_some());
    assert_eq!(cache.table.borrow().len(), 2 * PLACES_MIN);
    assert!((1..33).all(|key| cache.holds(key)) && cache.holds(40));
    cache.destroy();
    ledger::close(account);
    ledger::assert_closed();
}

#[test]
#[should_panic(expected = "past the end of a page")]
fn a_write_past_the_end_of_a_page_is_found() {
    let cache = cache(ledger::open(u64::MAX, None), 10);
    let page = cache.get(1, 2).expect("room for a page");
    // SAFETY: the guard behind the page is inside the block.
    unsafe { page.handle.pBuf.cast::<u8>().add(PAGE_BYTES).write(0) };
    // `unpin` is a C function, out of which no panic comes: what it calls.
    cache.remove(page);
    cache.free(page);
}
