//! Where `--memory` goes: one number at the start, divided once.
//!
//! What the process holds whatever databases do is taken first, each at its bound; databases may hold
//! the rest together. Beyond the number is only what the program itself is: its code, its lists of
//! connections and tenants, and the kernel's side of sockets and files.

use storage::fiber::STACK_BYTES;

use crate::limits;

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
        text.truncate(text.trim_end().len());
        text
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
        let parts = table.lines().skip(1).map(|line| {
            let number = line.split_whitespace().next().expect("a number");
            number.parse::<u64>().expect("whole MiB")
        });
        assert_eq!(parts.sum::<u64>(), 1024);
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
