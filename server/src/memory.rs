//! Where `--memory` goes: one number at the start, divided once.
//!
//! What the process holds whatever databases do is taken first, each at its bound; databases may hold
//! the rest together. Beyond the number is only [`PROGRAM_BYTES`].
//!
//! **What is resident** is more than what is booked: freed pieces between blocks that are in use, which
//! nobody can book, and what the program keeps of its own. [`Watch`] asks the kernel a hundred times a
//! second. What is resident and what may still be booked stay together below the number and that
//! constant: if they would not, free memory is given back to the kernel, and where that is not
//! enough databases may hold less together until it is. What can come between two looks is what one
//! core can fill in that time, of what is still free of each part.

use storage::fiber::STACK_BYTES;
use storage::io::Instant;
use storage::ledger::{self, AccountId};
use storage::process::{self, Resident};

use crate::limits;

/// What the process may have resident beyond `--memory`: its code (6 MiB), its lists of open databases
/// (4 KiB each, 40 MiB for 10,000) and connections, and the rests of pages between blocks in use. What
/// the kernel holds for sockets and files is not the process's.
pub const PROGRAM_BYTES: u64 = 64 << 20;

/// Nanoseconds between two looks.
const LOOK_NS: u64 = 10_000_000;

/// Freed memory that is worth giving back.
const TRIM_BYTES: u64 = 32 << 20;

/// After giving memory back, so many times as long passes as that took: it stops everything else.
const TRIM_PAUSE: u64 = 20;

/// Databases may hold this part of theirs whatever is resident: one in so many bytes. With less nothing
/// would be answered any more, and what they free is what they fill next.
const LEAST_SHARE: u64 = 4;

/// Databases need so much together: one of the default budget, or a few small ones.
const DATABASES_BYTES_MIN: u64 = 16 << 20;

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// The parts of `--memory`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// All of it.
    pub total: u64,
    /// The commit log's two batches: one being filled, one being written.
    pub log_buffers: u64,
    /// Fibers' stacks, if all of them were used to the end.
    pub stacks: u64,
    /// The catalogue's cache, WAL and statements.
    pub catalogue: u64,
    /// Requests and responses on their way: beyond it new ones are refused.
    pub buffers: u64,
    /// What is left: the databases'.
    pub databases: u64,
}

impl Division {
    /// Divide `total` bytes, for a log with batches of so many bytes.
    ///
    /// # Errors
    /// The sentence for the operator, if too little would be left for databases.
    pub fn of(total: u64, batch_bytes: usize) -> Result<Division, String> {
        let log_buffers = 2 * batch_bytes as u64;
        let stacks = (tenant::limits::FIBERS_MAX * STACK_BYTES) as u64;
        let catalogue = tenant::limits::CATALOGUE_MEMORY_BYTES;
        let part = total / limits::BUFFERS_SHARE;
        let buffers = part.clamp(limits::BUFFERS_BYTES_MIN, limits::BUFFERS_BYTES_MAX);
        let taken = log_buffers + stacks + catalogue + buffers;
        let databases = total.saturating_sub(taken);
        if databases < DATABASES_BYTES_MIN {
            let least = (taken + DATABASES_BYTES_MIN).div_ceil(MIB);
            return Err(format!(
                "--memory {} is too little: log, stacks, catalogue and buffers take {}, and databases \
                 need {} at least; give {least}MiB or more",
                mebibytes(total),
                mebibytes(taken),
                mebibytes(DATABASES_BYTES_MIN),
            ));
        }
        Ok(Division { total, log_buffers, stacks, catalogue, buffers, databases })
    }

    /// The division as lines for people.
    #[must_use]
    pub fn table(&self) -> String {
        let fibers = tenant::limits::FIBERS_MAX;
        let stack = STACK_BYTES >> 10;
        let stacks =
            format!("{fibers} fiber stacks of {stack} KiB; resident is what was used of them");
        let mut text = format!("memory {}:\n", mebibytes(self.total));
        for (bytes, what) in [
            (self.databases, "databases together"),
            (self.stacks, &*stacks),
            (self.buffers, "requests and responses on their way"),
            (self.catalogue, "catalogue"),
            (self.log_buffers, "commit log, two batches"),
        ] {
            text.push_str(&format!("  {:>10}  {what}\n", mebibytes(bytes)));
        }
        let program = mebibytes(PROGRAM_BYTES);
        text.push_str(&format!("and beyond it at most {program} for the program itself\n"));
        text.truncate(text.trim_end().len());
        text
    }

    /// What databases may hold together while `resident` bytes of the process are.
    fn databases_now(&self, resident: u64, held: &Held) -> u64 {
        let to_come = self.buffers.saturating_sub(held.buffers)
            + self.catalogue.saturating_sub(held.catalogue)
            + self.stacks;
        let room = (self.total + PROGRAM_BYTES).saturating_sub(resident).saturating_sub(to_come);
        (room + held.databases).clamp(self.databases / LEAST_SHARE, self.databases)
    }
}

/// What is booked now, of the parts that are looked at.
#[derive(Clone, Copy, Debug)]
struct Held {
    databases: u64,
    catalogue: u64,
    buffers: u64,
}

impl Held {
    fn now() -> Held {
        Held {
            databases: ledger::memory_held(AccountId::MACHINE),
            catalogue: ledger::memory_held(AccountId::CATALOGUE),
            buffers: ledger::memory_held(AccountId::CONNECTIONS),
        }
    }

    fn sum(&self) -> u64 {
        self.databases + self.catalogue + self.buffers
    }
}

/// Keeps what is resident below the number: see the head of the file.
#[derive(Debug)]
pub struct Watch {
    division: Division,
    resident: Option<Resident>,
    locked: bool,
    next_look: Instant,
    /// No memory is given back before.
    next_trim: Instant,
    /// What was resident and not booked when it was least since memory was last given back.
    excess_after_trim: u64,
    databases: u64,
}

impl Watch {
    /// A watch over this division; `locked`: the process's memory is locked.
    #[must_use]
    pub fn new(division: Division, locked: bool) -> Watch {
        Watch {
            division,
            resident: Resident::open(),
            locked,
            next_look: Instant(0),
            next_trim: Instant(0),
            excess_after_trim: 0,
            databases: division.databases,
        }
    }

    /// If it is time, look. Says what databases may hold together, if that has changed. `clock` is
    /// asked before and after memory is given back.
    pub fn look(&mut self, clock: impl Fn() -> Instant) -> Option<u64> {
        let now = clock();
        if now < self.next_look {
            return None;
        }
        self.next_look = now.after(LOOK_NS);
        let mut resident = self.resident.as_ref()?.bytes()?;
        let held = Held::now();
        let mut allowed = self.division.databases_now(resident, &held);
        let excess = resident.saturating_sub(held.sum());
        self.excess_after_trim = self.excess_after_trim.min(excess);
        let is_worth_it = excess >= self.excess_after_trim + TRIM_BYTES;
        if allowed < self.division.databases && is_worth_it && now >= self.next_trim {
            process::trim_heap(self.locked);
            let after = clock();
            self.next_trim = after.after(TRIM_PAUSE * after.since(now));
            resident = self.resident.as_ref()?.bytes()?;
            self.excess_after_trim = resident.saturating_sub(held.sum());
            allowed = self.division.databases_now(resident, &held);
        }
        (allowed != self.databases).then(|| {
            self.databases = allowed;
            allowed
        })
    }
}

/// Bytes for people.
fn mebibytes(bytes: u64) -> String {
    if bytes.is_multiple_of(MIB) {
        return format!("{} MiB", bytes / MIB);
    }
    format!("{:.1} MiB", bytes as f64 / MIB as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 1 << 20;

    #[test]
    fn the_parts_are_the_whole() {
        let division = Division::of(1 << 30, BATCH).expect("the default is enough");
        let Division { total, log_buffers, stacks, catalogue, buffers, databases } = division;
        assert_eq!(log_buffers + stacks + catalogue + buffers + databases, total);
        assert_eq!((log_buffers, stacks), (2 << 20, 256 << 20));
        assert!(databases >= total / 2, "most of the default is for databases");
        let table = division.table();
        let parts = table.lines().skip(1).take(5).map(|line| {
            let number = line.split_whitespace().next().expect("a number");
            number.parse::<u64>().expect("whole MiB")
        });
        assert_eq!(parts.sum::<u64>(), 1024);
    }

    #[test]
    fn databases_make_room_for_what_nobody_booked() {
        let division = Division::of(1 << 30, BATCH).expect("the default is enough");
        let none = Held { databases: 0, catalogue: 0, buffers: 0 };
        assert_eq!(division.databases_now(10 << 20, &none), division.databases);
        let held = Held { databases: 500 << 20, catalogue: 1 << 20, buffers: 100 << 20 };
        // Exactly what was promised: log and constant are resident too.
        let most = held.sum() + division.log_buffers + PROGRAM_BYTES;
        assert_eq!(division.databases_now(most, &held), division.databases);
        for more in [1, 20 << 20] {
            assert_eq!(division.databases_now(most + more, &held), division.databases - more);
        }
        let least = division.databases / LEAST_SHARE;
        assert_eq!(division.databases_now(u64::MAX / 2, &none), least);
    }

    #[test]
    fn a_watch_looks_now_and_then() {
        let division = Division::of(1 << 30, BATCH).expect("the default is enough");
        let mut watch = Watch::new(division, false);
        // What this process holds is that of all tests that run now; what follows from it is tried above.
        watch.resident = None;
        assert_eq!(watch.look(|| Instant(1)), None);
        assert_eq!(watch.next_look, Instant(1 + LOOK_NS));
        assert_eq!(watch.look(|| Instant(LOOK_NS)), None);
        assert_eq!(watch.next_look, Instant(1 + LOOK_NS), "it is too early");
    }

    #[test]
    fn too_little_is_refused_with_what_is_enough() {
        let text = Division::of(64 << 20, BATCH).expect_err("too little");
        let (_, least) = text.rsplit_once("give ").expect("it says what to give");
        let least: u64 = least.split("MiB").next().and_then(|n| n.parse().ok()).expect("a number");
        let division = Division::of(least << 20, BATCH).expect("what it asked for is enough");
        assert_eq!(division.databases, DATABASES_BYTES_MIN);
        assert!(Division::of((least << 20) - 1, BATCH).is_err());
        assert!(Division::of(0, BATCH).is_err());
    }
}
