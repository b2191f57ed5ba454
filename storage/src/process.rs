//! What a server asks of its process once, at start.

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
