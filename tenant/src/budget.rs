//! Budgets: what a node of the tree machine → organisation → group → database may use.
//!
//! A [`Budget`] is what somebody wrote down for one node or plan; what it leaves out is inherited.
//! [`Limits`] is what holds for one database after all: each part is there, and none is beyond an
//! ancestor's.

use crate::limits;

/// What one node, or one plan, says. `None`: inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of memory, all kinds together.
    pub memory_bytes: Option<u64>,
    /// Bytes of the database's file.
    pub storage_bytes: Option<u64>,
    /// Bytes of temporary files.
    pub temporary_bytes: Option<u64>,
    /// Processor time a second, in parts of a million of one core.
    pub cpu_per_million: Option<u64>,
    /// Processor time that may be saved up for a burst, in nanoseconds.
    pub cpu_burst_ns: Option<u64>,
    /// Bytes read and written a second.
    pub io_bytes_per_second: Option<u64>,
    /// Bytes that may be saved up for a burst.
    pub io_burst_bytes: Option<u64>,
    /// Share of what is contended, relative to siblings' weights.
    pub weight: Option<u64>,
    /// Processor time that is served before shares are, in parts of a million of one core.
    pub cpu_reserved_per_million: Option<u64>,
    /// The highest priority that its requests may have, and what they have unless they say less.
    pub priority: Option<Priority>,
    /// Requests that wait or run.
    pub requests: Option<u64>,
    /// Open streams.
    pub streams: Option<u64>,
    /// Bytes of one request's body.
    pub request_bytes: Option<u64>,
    /// Bytes of one response that is held whole.
    pub response_bytes: Option<u64>,
    /// How long one request may run, in nanoseconds.
    pub request_ns: Option<u64>,
    /// How long a transaction may sit idle while others want the writer lock, in nanoseconds.
    pub transaction_idle_ns: Option<u64>,
}

/// Whose turn it is first. Within one priority, shares decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// When nobody else wants anything.
    Background,
    /// Most requests.
    #[default]
    Normal,
    /// Somebody waits for it.
    Interactive,
}

/// What holds for one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`Budget::memory_bytes`].
    pub memory_bytes: u64,
    /// See [`Budget::storage_bytes`].
    pub storage_bytes: u64,
    /// See [`Budget::temporary_bytes`].
    pub temporary_bytes: u64,
    /// See [`Budget::cpu_per_million`].
    pub cpu_per_million: u64,
    /// See [`Budget::cpu_burst_ns`].
    pub cpu_burst_ns: u64,
    /// See [`Budget::io_bytes_per_second`].
    pub io_bytes_per_second: u64,
    /// See [`Budget::io_burst_bytes`].
    pub io_burst_bytes: u64,
    /// See [`Budget::weight`].
    pub weight: u64,
    /// See [`Budget::cpu_reserved_per_million`].
    pub cpu_reserved_per_million: u64,
    /// See [`Budget::priority`].
    pub priority: Priority,
    /// See [`Budget::requests`].
    pub requests: u64,
    /// See [`Budget::streams`].
    pub streams: u64,
    /// See [`Budget::request_bytes`].
    pub request_bytes: u64,
    /// See [`Budget::response_bytes`].
    pub response_bytes: u64,
    /// See [`Budget::request_ns`].
    pub request_ns: u64,
    /// See [`Budget::transaction_idle_ns`].
    pub transaction_idle_ns: u64,
}

impl Limits {
    /// What the machine allows one database where nobody wrote anything down.
    #[must_use]
    pub fn of_machine(memory_bytes: u64) -> Limits {
        const UNLIMITED: u64 = u64::MAX;
        Limits {
            memory_bytes,
            storage_bytes: limits::STORAGE_BYTES_MAX,
            temporary_bytes: storage::limits::TEMPORARY_BYTES_MAX,
            cpu_per_million: UNLIMITED,
            cpu_burst_ns: limits::SECOND_NS,
            io_bytes_per_second: UNLIMITED,
            io_burst_bytes: UNLIMITED,
            weight: limits::WEIGHT,
            cpu_reserved_per_million: 0,
            priority: Priority::Normal,
            requests: limits::REQUESTS_MAX as u64,
            streams: limits::STREAMS_MAX as u64,
            request_bytes: UNLIMITED,
            response_bytes: UNLIMITED,
            request_ns: limits::REQUEST_NS,
            transaction_idle_ns: limits::TRANSACTION_IDLE_NS,
        }
    }
}
