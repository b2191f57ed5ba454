//! The names of everything that a world can do to a server, and how often it did.
//!
//! Owns the list and the counts. A fault is *injected* when our code meets it or when the disk is
//! changed behind its back; it is *recovered* when requests are served again after it: each episode
//! (one or more injections, then a served request) counts once. Coverage fails on a kind that no
//! seed injects, so a kind stands here only if something injects it.

use std::fmt;

macro_rules! fault_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What can go wrong. The order of the variants is part of every trace hash.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// All kinds, in order.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$kind,)*];

            /// The name in tables and traces.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(FaultKind::$kind => $name,)*
                }
            }
        }
    };
}

fault_kinds! {
    // ---- disk: time and counts ----
    /// A disk operation takes a tenth of a second to five seconds.
    DiskSpike = "disk-spike",
    /// A transfer of a file moves fewer bytes than asked for.
    DiskShort = "disk-short",
    // ---- disk: errors ----
    /// EIO of a read, once.
    ReadError = "read-error",
    /// EIO of every read of a sector until it is written again.
    LatentSector = "latent-sector",
    /// A read returns another block, once.
    MisdirectedRead = "misdirected-read",
    /// EIO of a write that may have happened in part.
    WriteError = "write-error",
    /// ENOSPC or EDQUOT without reason.
    NoSpace = "no-space",
    /// ENOSPC because the disk is full.
    DiskFull = "disk-full",
    /// EMFILE, ENFILE or EACCES of an open.
    OpenError = "open-error",
    /// EROFS of everything that writes, from some moment on.
    ReadOnlyDisk = "read-only-disk",
    // ---- disk: syncs ----
    /// A sync fails; pages count as clean and keep their new bytes.
    SyncKept = "sync-failed-kept",
    /// A sync fails, and only the next one says so.
    SyncLate = "sync-failed-late",
    /// A sync fails; pages go back to what the disk has.
    SyncReverted = "sync-failed-reverted",
    /// A page that is clean and not durable leaves the page cache: reads turn old.
    PageEvicted = "page-evicted",
    // ---- disk: damage ----
    /// Rot of bytes in a tenant's file.
    RotFile = "rot-file",
    /// Rot of bytes in a log segment.
    RotLog = "rot-log",
    /// Rot of bytes in the header ring.
    RotRing = "rot-ring",
    /// A write lands elsewhere.
    MisdirectedWrite = "misdirected-write",
    /// A write that succeeded was never done.
    LostWrite = "lost-write",
    // ---- ends ----
    /// The process is killed.
    Kill = "kill",
    /// The machine loses its power.
    PowerLoss = "power-loss",
    /// Either, while the server starts.
    CrashInRecovery = "crash-in-recovery",
    /// A crash keeps a part of a write in flight.
    TornWrite = "torn-write",
    /// A killed process's write lands while the next one runs.
    LateLanding = "late-landing",
    /// A power loss undoes a name that was not synced.
    NameLost = "name-lost",
    /// The server is told to stop.
    CleanStop = "clean-stop",
    /// The next process gets less memory or a smaller log.
    SmallerBudget = "smaller-budget",
    /// A second process starts on the same folder.
    SecondProcess = "second-process",
    /// The operator removes, cuts or replaces a tenant's file.
    FileSwapped = "file-swapped",
    // ---- network ----
    /// A connection whose bytes come in tiny segments.
    TinySegments = "tiny-segments",
    /// A send or receive of the server moves fewer bytes than it could.
    NetworkShort = "network-short",
    /// A connection stands still for a while.
    Clog = "clog",
    /// A connection is reset under way.
    Reset = "reset",
    /// A client sends its end and still reads.
    HalfClose = "half-close",
    /// A client is gone without a word.
    HalfOpen = "half-open",
    /// A client that takes its answer slowly.
    SlowReader = "slow-reader",
    /// A client that sends its request slowly.
    SlowWriter = "slow-writer",
    /// A client that breaks the protocol.
    Malformed = "malformed",
    /// A client that sends a request again because the answer is late.
    Retry = "retry",
    /// An accept fails with ECONNABORTED or EMFILE.
    AcceptError = "accept-error",
    /// A connect finds the backlog full.
    BacklogFull = "backlog-full",
    // ---- memory, clock ----
    /// SQLite's allocation fails.
    AllocationFailure = "allocation-failure",
    /// The monotonic clock jumps forward: the machine slept.
    ClockJump = "clock-jump",
    /// The wall clock is set.
    WallStep = "wall-step",
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often one kind came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCount {
    /// Times.
    pub injected: u64,
    /// Episodes after which a request was served.
    pub recovered: u64,
}

/// How often each kind came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultCounts {
    counts: [FaultCount; FaultKind::ALL.len()],
    open: [bool; FaultKind::ALL.len()],
}

impl Default for FaultCounts {
    fn default() -> FaultCounts {
        let kinds = FaultKind::ALL.len();
        assert_eq!(FaultKind::ALL.last().map(|kind| *kind as usize), Some(kinds - 1));
        FaultCounts {
            counts: [FaultCount::default(); FaultKind::ALL.len()],
            open: [false; FaultKind::ALL.len()],
        }
    }
}

impl FaultCounts {
    /// It struck.
    pub fn injected(&mut self, kind: FaultKind) {
        self.counts[kind as usize].injected += 1;
        self.open[kind as usize] = true;
    }

    /// A request was served: whatever struck before is recovered from.
    pub fn served(&mut self) {
        for (open, count) in self.open.iter_mut().zip(&mut self.counts) {
            count.recovered += u64::from(std::mem::take(open));
        }
    }

    /// The counts of one kind.
    #[must_use]
    pub fn of(&self, kind: FaultKind) -> FaultCount {
        self.counts[kind as usize]
    }

    /// The kinds that came, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, FaultCount)> + '_ {
        let all = FaultKind::ALL.iter().map(|kind| (*kind, self.of(*kind)));
        all.filter(|(_, count)| count.injected > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_is_recovered_once() {
        let mut counts = FaultCounts::default();
        counts.injected(FaultKind::Kill);
        counts.injected(FaultKind::Kill);
        counts.served();
        counts.served();
        counts.injected(FaultKind::Kill);
        assert_eq!(counts.of(FaultKind::Kill), FaultCount { injected: 3, recovered: 1 });
        assert_eq!(counts.iter().count(), 1);
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FaultKind::ALL.len());
    }
}
