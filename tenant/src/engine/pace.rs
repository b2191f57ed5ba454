//! Who reads a database for long, and those who write to it meanwhile.
//!
//! What is written stays in the write-ahead log until the snapshot is let go, and that has a bound. So a copy
//! sets the pace once much is in there: the part of the bound that is used may not be larger than the part of
//! the database that is copied, else writers wait for the next run of pages. They are held in runs and not
//! for all of it; never while the copy waits for a client; and after two looks
//! ([`limits::OVERDUE_LOOK_NS`]) not any more, whatever the copy waits for.
//!
//! RocksDB delays writes in the same way while compactions fall behind.

use storage::fiber::with_volume;
use storage::sometimes;

use crate::limits;

/// See the head of the file. Its methods run on the original's volume.
pub(crate) struct Pace {
    /// Bytes that are to be copied.
    bytes: u64,
    /// Bytes that were in the write-ahead log before.
    wal_bytes: u64,
    holds: bool,
}

impl Pace {
    pub fn new(bytes: u64, wal_bytes: u64) -> Pace {
        Pace { bytes: bytes.max(1), wal_bytes, holds: false }
    }

    /// So many bytes are copied.
    pub fn at(&mut self, copied: u64) {
        let ahead = with_volume(|volume| volume.wal_bytes()) > self.allowed_bytes(copied);
        if ahead == self.holds {
            return;
        }
        if ahead {
            sometimes!("writers wait for a copy that falls behind");
            with_volume(|volume| volume.locks.hold_writers());
        } else {
            with_volume(|volume| volume.locks.release_writers());
        }
        self.holds = ahead;
    }

    /// Writers do not wait for it.
    pub fn let_go(&mut self) {
        if std::mem::take(&mut self.holds) {
            with_volume(|volume| volume.locks.release_writers());
        }
    }

    /// Bytes that the write-ahead log may have by then. What is left to the bound is for those who write
    /// already.
    fn allowed_bytes(&self, copied: u64) -> u64 {
        let at_once =
            self.wal_bytes.max(limits::SNAPSHOT_HURRY_BYTES / 2) + limits::SNAPSHOT_HURRY_BYTES / 2;
        let most = limits::SNAPSHOT_WAL_BYTES_MAX / 4 * 3;
        let part = most.saturating_sub(at_once).saturating_mul(copied.min(self.bytes));
        at_once + part / self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_written_follows_what_is_copied() {
        const MOST: u64 = limits::SNAPSHOT_WAL_BYTES_MAX / 4 * 3;
        let pace = Pace::new(1 << 30, 0);
        assert_eq!(pace.allowed_bytes(0), limits::SNAPSHOT_HURRY_BYTES);
        assert_eq!(pace.allowed_bytes(1 << 30), MOST);
        assert_eq!(pace.allowed_bytes(1 << 40), MOST);
        let half = pace.allowed_bytes(1 << 29);
        assert_eq!(2 * half, pace.allowed_bytes(0) + pace.allowed_bytes(1 << 30));
        assert_eq!(Pace::new(0, 0).allowed_bytes(0), limits::SNAPSHOT_HURRY_BYTES);
        // Much is there already.
        let late = Pace::new(1 << 30, MOST);
        assert!(
            late.allowed_bytes(0) > MOST && late.allowed_bytes(0) == late.allowed_bytes(1 << 30)
        );
    }
}
