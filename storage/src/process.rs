//! What a server asks of its process: limits and the allocator's ways at start, and now and then how
//! much memory is resident, and that free memory goes back to the kernel.

#![allow(unsafe_code)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raise the limit on open files as far as the process may, and say what it is.
#[must_use]
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Keep every page of the process out of swap (F14): a swapped page has no checksum, and brings
/// latency that no budget knows. Pages are locked when they are first used, not before.
///
/// # Errors
/// A sentence if the kernel does not allow it; nothing is changed then.
#[cfg(target_os = "linux")]
pub fn lock_memory() -> Result<(), String> {
    let unlimited = Rlimit { current: None, maximum: None };
    // Under a limit, later allocations would fail: so it is all or nothing.
    setrlimit(Resource::Memlock, unlimited)
        .map_err(|_| "the limit on locked memory (ulimit -l) cannot be raised".to_owned())?;
    use rustix::mm::{MlockAllFlags, mlockall};
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(|error| format!("mlockall: {error}"))
}

/// As on Linux; elsewhere there is nothing to ask for.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn lock_memory() -> Result<(), String> {
    Err("not available on this system".to_owned())
}

/// How glibc's allocator is told to work: what the C library leaves to itself otherwise follows from
/// what was freed before, and is in the end that freed memory stays with the process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod heap {
    use std::ffi::c_int;

    /// See mallopt(3).
    pub const M_TRIM_THRESHOLD: c_int = -1;
    pub const M_TOP_PAD: c_int = -2;
    pub const M_MMAP_THRESHOLD: c_int = -3;
    pub const M_ARENA_MAX: c_int = -8;

    /// Blocks from here on are mappings of their own, that the kernel has back when they are freed:
    /// bodies, answers, SQLite's longest values. Smaller ones are many, and mappings are few (65,530 a
    /// process).
    pub const MAPPED_BYTES: c_int = 128 << 10;
    /// Free bytes at the heap's end from which on they go back: the C library's own choice, which it
    /// would give up.
    pub const TRIM_BYTES: c_int = 128 << 10;
    /// Bytes by which the heap grows at a time.
    pub const GROWTH_BYTES: c_int = 128 << 10;

    unsafe extern "C" {
        pub fn mallopt(parameter: c_int, value: c_int) -> c_int;
        pub fn malloc_trim(pad: usize) -> c_int;
    }
}

/// Let freed memory go back to the kernel where that costs little. Once, before there is much.
pub fn tune_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        (heap::M_MMAP_THRESHOLD, heap::MAPPED_BYTES),
        (heap::M_TRIM_THRESHOLD, heap::TRIM_BYTES),
        (heap::M_TOP_PAD, heap::GROWTH_BYTES),
        // One thread allocates.
        (heap::M_ARENA_MAX, 1),
    ] {
        // SAFETY: takes two numbers, and refuses what it does not know.
        let _ = unsafe { heap::mallopt(parameter, value) };
    }
}

/// Have the kernel give `bytes` of memory at `start` their pages now. Where a page is touched first it costs
/// a microsecond or two, here a fraction of that; long blocks are new mappings ([`tune_heap`]). What the
/// kernel does not do (before Linux 5.14) is done by the first touch.
#[cfg(target_os = "linux")]
pub(crate) fn populate(start: *mut u8, bytes: usize) {
    use rustix::mm::{Advice, madvise};
    let page_bytes = rustix::param::page_size();
    let inside = start.addr() % page_bytes;
    let whole = (inside + bytes) / page_bytes * page_bytes;
    // SAFETY: pages of a block of the heap's, whose contents stay as they are.
    let _ =
        unsafe { madvise(start.wrapping_sub(inside).cast(), whole, Advice::LinuxPopulateWrite) };
}

/// As on Linux; elsewhere the first touch does it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn populate(_: *mut u8, _: usize) {}

/// Give free memory back to the kernel, in whole pages, wherever in the heap it is: 8 to 40 ms for a
/// gigabyte. `locked`: [`lock_memory`] has locked it.
pub fn trim_heap(locked: bool) {
    // The kernel takes no page back that is locked.
    #[cfg(target_os = "linux")]
    if locked {
        let _ = rustix::mm::munlockall();
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: only pages go that are in no block.
    let _ = unsafe { heap::malloc_trim(0) };
    if locked {
        let _ = lock_memory();
    }
}

/// How much memory of the process is resident: a file that the kernel answers.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Resident {
    file: std::fs::File,
    page_bytes: u64,
}

#[cfg(target_os = "linux")]
impl Resident {
    /// `None` if there is no such file.
    #[must_use]
    pub fn open() -> Option<Resident> {
        let file = std::fs::File::open("/proc/self/statm").ok()?;
        Some(Resident { file, page_bytes: rustix::param::page_size() as u64 })
    }

    /// Bytes that are resident now, some pages off: the kernel adds up its cores' counts only
    /// sometimes. 2 us.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        use std::os::unix::fs::FileExt as _;
        let mut text = [0; 128];
        let count = self.file.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..count]).ok()?;
        let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(pages * self.page_bytes)
    }
}

/// As on Linux; elsewhere nobody says.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub struct Resident;

#[cfg(not(target_os = "linux"))]
impl Resident {
    /// `None`.
    #[must_use]
    pub fn open() -> Option<Resident> {
        None
    }

    /// `None`.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        None
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_goes_back() {
        tune_heap();
        let resident = Resident::open().expect("there is /proc");
        let blocks: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 8_000]).collect();
        let full = resident.bytes().expect("it is a number");
        assert!(full > 150_000_000, "{full}");
        // The last one stays: no free memory is at the heap's end.
        let kept: Vec<Vec<u8>> = blocks.into_iter().skip(19_999).collect();
        trim_heap(false);
        let rest = resident.bytes().expect("it is a number");
        assert!(rest + 140_000_000 < full, "{full} {rest}");
        drop(kept);
    }
}
