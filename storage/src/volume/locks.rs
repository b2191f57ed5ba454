//! The eight locks of a wal-index, and whose turn it is to write.
//!
//! SQLite takes and gives back the locks through the VFS; nobody waits in here. Owns the promise of
//! the writer lock: a connection that has it gets the lock before any other.

use crate::sometimes;

/// Number of wal-index locks, fixed by SQLite.
pub const LOCKS: usize = 8;
/// The lock that SQLite calls `WAL_WRITE_LOCK`.
pub const WRITER_LOCK: usize = 0;

/// A connection of this volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// What the writer lock is to a connection: [`Locks::writer_for`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriterFor {
    /// It has it.
    Held,
    /// Nobody else gets it before this connection.
    Promised,
    /// Somebody else has it or is promised it, or a copy holds writers.
    Others,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lock {
    shared: u32,
    exclusive: Option<ConnectionId>,
}

/// The locks of one volume's connections.
#[derive(Debug, Default)]
pub struct Locks {
    locks: [Lock; LOCKS],
    next_connection: u32,
    reserved_for: Option<ConnectionId>,
    /// So many copies of it fall behind what is written: nobody else is promised the writer lock.
    holds: u32,
    /// There were some at the last look.
    held_at_look: bool,
    /// Writers that were told that the database is busy although the lock was promised to them, since
    /// the last look: a bug.
    pub starved: u64,
}

impl Locks {
    /// Nobody holds any.
    #[must_use]
    pub fn are_free(&self) -> bool {
        self.locks.iter().all(|lock| lock.shared == 0 && lock.exclusive.is_none())
    }

    /// A new connection's id.
    pub fn connect(&mut self) -> ConnectionId {
        self.next_connection = self.next_connection.wrapping_add(1);
        ConnectionId(self.next_connection)
    }

    /// Take locks `first..first + count` shared (count is 1 then) or exclusive; `false` if another
    /// connection stands in the way.
    #[must_use]
    pub fn lock(
        &mut self,
        connection: ConnectionId,
        first: usize,
        count: usize,
        exclusive: bool,
        held_shared: u8,
    ) -> bool {
        let range = first..first + count;
        for index in range.clone() {
            let lock = &self.locks[index];
            let own_shared = u32::from(held_shared >> index & 1);
            let free = if exclusive {
                lock.exclusive.is_none() && lock.shared == own_shared
            } else {
                lock.exclusive.is_none()
            };
            if !free {
                return false;
            }
            let reserved = match self.reserved_for {
                Some(other) => other != connection,
                None => self.holds > 0,
            };
            if index == WRITER_LOCK && exclusive && reserved {
                return false;
            }
        }
        for index in range {
            let lock = &mut self.locks[index];
            if exclusive {
                lock.exclusive = Some(connection);
                if index == WRITER_LOCK {
                    self.reserved_for = None;
                }
            } else {
                lock.shared += 1;
            }
        }
        true
    }

    /// Give locks back.
    pub fn unlock(
        &mut self,
        connection: ConnectionId,
        first: usize,
        count: usize,
        exclusive: bool,
    ) {
        for lock in &mut self.locks[first..first + count] {
            if exclusive {
                assert!(lock.exclusive == Some(connection));
                lock.exclusive = None;
            } else {
                assert!(lock.shared > 0);
                lock.shared -= 1;
            }
        }
    }

    /// Who holds the writer lock.
    #[must_use]
    pub fn writer(&self) -> Option<ConnectionId> {
        self.locks[WRITER_LOCK].exclusive
    }

    /// The writer lock is neither held nor promised.
    #[must_use]
    pub fn writer_free(&self) -> bool {
        self.writer().is_none() && self.reserved_for.is_none() && self.holds == 0
    }

    /// What a connection that was told that the database is busy may do about the writer lock. A free
    /// one is promised to it: while it reads page 1 anew, which may take a disk, somebody else would
    /// commit, and its snapshot would be too old again and again.
    pub fn writer_for(&mut self, connection: ConnectionId) -> WriterFor {
        if self.writer() == Some(connection) {
            return WriterFor::Held;
        }
        if self.writer_free() {
            sometimes!("a statement whose snapshot was overtaken is promised the writer lock");
            self.reserve_writer(connection);
        }
        match self.reserved_for == Some(connection) {
            true => WriterFor::Promised,
            false => WriterFor::Others,
        }
    }

    /// A copy falls behind what is written: writers wait, but for who has the lock or its promise.
    pub fn hold_writers(&mut self) {
        self.holds += 1;
    }

    /// It does not any more.
    pub fn release_writers(&mut self) {
        self.holds = self.holds.saturating_sub(1);
        self.held_at_look &= self.holds > 0;
    }

    /// Look whether writers are held, now and then: who was at two looks in a row is held no more, as
    /// whoever holds them may itself have to wait. Whether there was such a one.
    pub fn end_old_holds(&mut self) -> bool {
        let old = self.held_at_look && self.holds > 0;
        if old {
            self.holds = 0;
        }
        self.held_at_look = self.holds > 0;
        old
    }

    /// Promise the writer lock to the connection that waited longest.
    pub fn reserve_writer(&mut self, connection: ConnectionId) {
        assert!(self.writer_free());
        self.reserved_for = Some(connection);
    }

    /// Take a promise back that its connection did not use.
    pub fn unreserve_writer(&mut self, connection: ConnectionId) {
        if self.reserved_for == Some(connection) {
            self.reserved_for = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Locks, WRITER_LOCK, WriterFor};

    #[test]
    fn an_overtaken_snapshot_is_promised_the_writer_lock() {
        let mut locks = Locks::default();
        let (slow, fast) = (locks.connect(), locks.connect());
        let write = |locks: &mut Locks, who| locks.lock(who, WRITER_LOCK, 1, true, 0);
        assert!(write(&mut locks, fast));
        assert_eq!(locks.writer_for(fast), WriterFor::Held);
        assert_eq!(locks.writer_for(slow), WriterFor::Others);
        locks.unlock(fast, WRITER_LOCK, 1, true);
        // It was free when the slow one was told that it was too late: now nobody is before it.
        assert_eq!(locks.writer_for(slow), WriterFor::Promised);
        assert!(!write(&mut locks, fast));
        assert_eq!(locks.writer_for(fast), WriterFor::Others);
        assert_eq!(locks.writer_for(slow), WriterFor::Promised);
        assert!(write(&mut locks, slow));
        locks.unlock(slow, WRITER_LOCK, 1, true);
        // A promise that was not used is taken back.
        assert_eq!(locks.writer_for(slow), WriterFor::Promised);
        locks.unreserve_writer(slow);
        assert!(write(&mut locks, fast));
        locks.unlock(fast, WRITER_LOCK, 1, true);
    }

    #[test]
    fn a_copy_that_holds_writers_lets_only_a_promise_pass() {
        let mut locks = Locks::default();
        let (first, second) = (locks.connect(), locks.connect());
        assert_eq!(locks.writer_for(first), WriterFor::Promised);
        locks.hold_writers();
        assert_eq!(locks.writer_for(second), WriterFor::Others);
        assert!(locks.lock(first, WRITER_LOCK, 1, true, 0));
        locks.unlock(first, WRITER_LOCK, 1, true);
        assert_eq!(locks.writer_for(first), WriterFor::Others);
        assert!(!locks.end_old_holds(), "it was not there at the look before");
        assert!(locks.end_old_holds());
        assert_eq!(locks.writer_for(second), WriterFor::Promised);
    }
}
