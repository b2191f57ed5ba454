//! Keeping the server and the load generator on a core each, and room for their descriptors.
//!
//! Without that, the scheduler moves the two around, and the server's one loop pays for the load
//! generator's work. Only Linux lets a process choose; elsewhere nothing is pinned.
//!
//! A core of one's own is not a quiet one: another process on the load generator's core once made
//! an fsync of 0.13 ms look like 6.4 ms, and the ratio to it 50 times too good. So the time that
//! both wait for their cores is measured as well, where the kernel tells.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything but connections and files: standard ones, epoll, the output file.
const DESCRIPTORS_OTHER: u64 = 64;

/// Makes room for `needed` open connections and files.
///
/// # Errors
/// The hard limit is lower.
pub fn allow_descriptors(needed: u64) -> Result<(), String> {
    let needed = needed + DESCRIPTORS_OTHER;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    limit.current = Some(needed);
    setrlimit(Resource::Nofile, limit).map_err(|error| {
        let hard = limit.maximum.map_or("unknown".to_owned(), |maximum| maximum.to_string());
        format!(
            "{needed} open files are needed and the limit is {hard} ({error}): \
             raise it (ulimit -n), or use fewer connections or tenants"
        )
    })
}

/// How long a process's first thread was ready to run and had no core, since its start. `process`
/// is a number or `self`. `None` where the kernel does not say (`/proc/<process>/schedstat`,
/// Linux's `Documentation/scheduler/sched-stats.rst`: time on a core, time waiting, slices).
#[must_use]
pub fn core_wait(process: &str) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// The server's core and ours.
#[derive(Clone, Debug)]
pub struct Cores {
    #[cfg(target_os = "linux")]
    server: rustix::thread::CpuSet,
    #[cfg(target_os = "linux")]
    own: rustix::thread::CpuSet,
    /// The numbers of the two, the server's first.
    pub numbers: (usize, usize),
}

#[cfg(target_os = "linux")]
impl Cores {
    /// The first two cores that this process may use; `None` if there is only one.
    #[must_use]
    pub fn choose() -> Option<Self> {
        use rustix::thread::CpuSet;
        let allowed = rustix::thread::sched_getaffinity(None).ok()?;
        let mut numbers = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let numbers = (numbers.next()?, numbers.next()?);
        let only = |core: usize| {
            let mut set = CpuSet::new();
            set.set(core);
            set
        };
        Some(Self { server: only(numbers.0), own: only(numbers.1), numbers })
    }

    /// Runs `spawn` on the server's core, then stays on ours.
    ///
    /// # Errors
    /// The kernel does not let us.
    pub fn on_server_core<R>(&self, spawn: impl FnOnce() -> R) -> Result<R, String> {
        self.pin(&self.server)?;
        let result = spawn();
        self.pin(&self.own)?;
        Ok(result)
    }

    fn pin(&self, set: &rustix::thread::CpuSet) -> Result<(), String> {
        rustix::thread::sched_setaffinity(None, set)
            .map_err(|error| format!("cannot pin to core: {error}"))
    }
}

#[cfg(not(target_os = "linux"))]
impl Cores {
    /// No core can be chosen here.
    #[must_use]
    pub fn choose() -> Option<Self> {
        None
    }

    /// Runs `spawn` anywhere.
    ///
    /// # Errors
    /// Never.
    pub fn on_server_core<R>(&self, spawn: impl FnOnce() -> R) -> Result<R, String> {
        Ok(spawn())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_up_to_the_hard_limit() {
        allow_descriptors(10).unwrap();
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let error = allow_descriptors(1 << 60).unwrap_err();
            assert!(error.contains("open files are needed"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn waiting_for_a_core_only_grows() {
        let before = core_wait("self").unwrap();
        assert!(core_wait("self").unwrap() >= before);
        assert_eq!(core_wait("no-process"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_starts_on_the_servers_core() {
        let before = rustix::thread::sched_getaffinity(None).unwrap();
        let Some(cores) = Cores::choose() else { return };
        let seen = cores.on_server_core(|| rustix::thread::sched_getaffinity(None)).unwrap();
        assert_eq!(seen.unwrap(), cores.server);
        assert_eq!(rustix::thread::sched_getaffinity(None).unwrap(), cores.own);
        rustix::thread::sched_setaffinity(None, &before).unwrap();
    }
}
