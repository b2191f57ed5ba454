//! What work has cost, in units that depend on the database's state, the SQL and its parameters, and
//! on nothing else: not on caches, neighbours, evictions or restarts.

use std::ops::AddAssign;

/// A cost vector. All parts only grow while work goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Steps of SQLite's virtual machine.
    pub vm_steps: u64,
    /// Pages that statements asked the pager for, wherever they were found.
    pub pages_read: u64,
    /// Distinct pages of the transactions that were committed.
    pub pages_written: u64,
    /// Bytes that those take in the commit log, headers included, shared ones not.
    pub log_bytes: u64,
    /// Bytes of rows that were handed out, as SQLite holds them.
    pub result_bytes: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.vm_steps += other.vm_steps;
        self.pages_read += other.pages_read;
        self.pages_written += other.pages_written;
        self.log_bytes += other.log_bytes;
        self.result_bytes += other.result_bytes;
    }
}
