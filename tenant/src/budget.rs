//! Budgets: what a node of the tree machine → organisation → group → database may use.
//!
//! A [`Budget`] is what somebody wrote down for one node or plan; what it leaves out is inherited.
//! [`Limits`] is what holds for one database after all: each part is there, and none is beyond an
//! ancestor's.
//!
//! Memory, processor time and I/O of an organisation or group are for all of its databases
//! together; the other parts are the most that each of its databases may have.
//!
//! - `resolve`: from what everybody says to what holds, and where each part comes from.
//! - `text`: budgets and usage as the catalogue keeps them.

pub mod periods;
mod resolve;
mod text;

use storage::meter::Cost;

use crate::limits;

pub use resolve::{Level, Machine, Resolved, Source};
pub use text::Unreadable;

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
    /// Connections of clients whose last request was for it.
    pub connections: Option<u64>,
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
    /// See [`Budget::connections`].
    pub connections: u64,
    /// See [`Budget::request_bytes`].
    pub request_bytes: u64,
    /// See [`Budget::response_bytes`].
    pub response_bytes: u64,
    /// See [`Budget::request_ns`].
    pub request_ns: u64,
    /// See [`Budget::transaction_idle_ns`].
    pub transaction_idle_ns: u64,
}

/// What of the limits one request needs on its way: a few words, as they are moved with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// See [`Budget::storage_bytes`].
    pub storage_bytes: u64,
    /// See [`Budget::response_bytes`].
    pub response_bytes: u64,
    /// See [`Budget::request_ns`].
    pub request_ns: u64,
}

impl From<&Limits> for RequestLimits {
    fn from(limits: &Limits) -> RequestLimits {
        RequestLimits {
            storage_bytes: limits.storage_bytes,
            response_bytes: limits.response_bytes,
            request_ns: limits.request_ns,
        }
    }
}

impl Priority {
    /// All of them, the least first.
    pub const ALL: [Priority; 3] = [Priority::Background, Priority::Normal, Priority::Interactive];

    /// As it is written down.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Priority::Background => "background",
            Priority::Normal => "normal",
            Priority::Interactive => "interactive",
        }
    }
}

/// What a part's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Nanoseconds,
    /// Parts of a million, requests, streams, connections, or nothing.
    Number,
    /// A [`Priority`], as its place in [`Priority::ALL`].
    Priority,
}

/// One part of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the field of the same name in Budget")]
pub enum Part {
    MemoryBytes,
    StorageBytes,
    TemporaryBytes,
    CpuPerMillion,
    CpuBurstNs,
    IoBytesPerSecond,
    IoBurstBytes,
    Weight,
    CpuReservedPerMillion,
    Priority,
    Requests,
    Streams,
    Connections,
    RequestBytes,
    ResponseBytes,
    RequestNs,
    TransactionIdleNs,
}

/// Number of [`Part`]s.
pub const PARTS: usize = 17;

/// Access by part: the field and its name, once.
macro_rules! parts {
    ($($part:ident $field:ident $unit:ident $range:expr),* $(,)?) => {
        impl Part {
            /// All parts, in the order in which they are written down.
            pub const ALL: [Part; PARTS] = [$(Part::$part),*];

            /// The part's name, its unit last.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Part::$part => stringify!($field),)*
                }
            }

            /// What its number counts.
            #[must_use]
            pub fn unit(self) -> Unit {
                match self {
                    $(Part::$part => Unit::$unit,)*
                }
            }

            /// The numbers that somebody may write down for it.
            #[must_use]
            pub fn range(self) -> std::ops::RangeInclusive<u64> {
                match self {
                    $(Part::$part => $range,)*
                }
            }
        }

        impl Budget {
            /// A budget without parts.
            pub const NOTHING: Budget = Budget { $($field: None),* };

            /// A part's number, if the budget says one.
            #[must_use]
            pub fn get(&self, part: Part) -> Option<u64> {
                match part {
                    $(Part::$part => self.$field.map(Number::into_number),)*
                }
            }

            /// Say a part's number, or leave the part out.
            ///
            /// # Panics
            /// If the number is none that the part may have: the caller has checked it.
            pub fn set(&mut self, part: Part, number: Option<u64>) {
                assert!(number.is_none_or(|number| part.range().contains(&number)));
                match part {
                    $(Part::$part => self.$field = number.map(Number::from_number),)*
                }
            }
        }

        impl Limits {
            /// A part's number.
            #[must_use]
            pub fn get(&self, part: Part) -> u64 {
                match part {
                    $(Part::$part => self.$field.into_number(),)*
                }
            }

            fn set(&mut self, part: Part, number: u64) {
                match part {
                    $(Part::$part => self.$field = Number::from_number(number),)*
                }
            }
        }
    };
}

parts! {
    MemoryBytes memory_bytes Bytes limits::MEMORY_BYTES_MIN..=MOST,
    StorageBytes storage_bytes Bytes limits::STORAGE_BYTES_MIN..=MOST,
    TemporaryBytes temporary_bytes Bytes 0..=MOST,
    CpuPerMillion cpu_per_million Number limits::CPU_PER_MILLION_MIN..=MOST,
    CpuBurstNs cpu_burst_ns Nanoseconds limits::CPU_BURST_NS_MIN..=MOST,
    IoBytesPerSecond io_bytes_per_second Bytes limits::IO_BYTES_MIN..=MOST,
    IoBurstBytes io_burst_bytes Bytes limits::IO_BYTES_MIN..=MOST,
    Weight weight Number 1..=limits::WEIGHT_MAX,
    CpuReservedPerMillion cpu_reserved_per_million Number 0..=1_000_000,
    Priority priority Priority 0..=2,
    Requests requests Number 0..=MOST,
    Streams streams Number 0..=MOST,
    Connections connections Number 0..=MOST,
    RequestBytes request_bytes Bytes 0..=MOST,
    ResponseBytes response_bytes Bytes 0..=MOST,
    RequestNs request_ns Nanoseconds limits::REQUEST_NS_MIN..=MOST,
    TransactionIdleNs transaction_idle_ns Nanoseconds 0..=MOST,
}

/// The largest number that can be written down: SQLite's and JSON's readers agree up to here.
const MOST: u64 = i64::MAX as u64;

trait Number {
    fn into_number(self) -> u64;
    fn from_number(number: u64) -> Self;
}

impl Number for u64 {
    fn into_number(self) -> u64 {
        self
    }
    fn from_number(number: u64) -> u64 {
        number
    }
}

impl Number for Priority {
    fn into_number(self) -> u64 {
        self as u64
    }
    fn from_number(number: u64) -> Priority {
        Priority::ALL[number.min(2) as usize]
    }
}

impl Budget {
    /// Nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Budget::default()
    }

    /// A text of the budget's parts, one JSON object without spaces: what the catalogue keeps.
    #[must_use]
    pub fn to_text(&self) -> String {
        text::write_budget(self)
    }

    /// The budget that [`Budget::to_text`] has written.
    ///
    /// # Errors
    /// If it has not: what is wrong with the text.
    pub fn from_text(text: &str) -> Result<Budget, Unreadable> {
        text::read_budget(text)
    }
}

/// A budget that does not allow something, and by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which part.
    pub part: Part,
    /// What it allows.
    pub limit: u64,
    /// How much of it is in use.
    pub used: u64,
    /// How much more was asked for.
    pub wanted: u64,
}

/// What a database has used since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The cost of its statements.
    pub cost: Cost,
    /// Processor time, measured, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes read from files and the log for it.
    pub io_read_bytes: u64,
    /// Bytes written to files and the log for it.
    pub io_written_bytes: u64,
    /// Requests that were begun.
    pub requests: u64,
    /// Statements that were begun, but for ROLLBACK.
    pub statements: u64,
    /// Time that requests waited for their budgets, in nanoseconds.
    pub throttled_ns: u64,
}

impl Usage {
    /// Add another's counters.
    pub fn add(&mut self, other: &Usage) {
        let others = other.counters();
        for ((_, counter), (_, more)) in text::counters(self).into_iter().zip(others) {
            *counter = counter.saturating_add(more);
        }
    }

    /// What was used since `earlier`, which is of the same database.
    #[must_use]
    pub fn since(&self, earlier: &Usage) -> Usage {
        let mut since = *self;
        let before = earlier.counters();
        for ((_, counter), (_, less)) in text::counters(&mut since).into_iter().zip(before) {
            *counter = counter.saturating_sub(less);
        }
        since
    }

    /// The counters by name, in the order in which they are written down.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); text::COUNTERS] {
        let mut copy = *self;
        text::counters(&mut copy).map(|(name, counter)| (name, *counter))
    }

    /// A text of the counters that are not zero, one JSON object: what the catalogue keeps.
    #[must_use]
    pub fn to_text(&self) -> String {
        text::write_usage(self)
    }

    /// The usage that [`Usage::to_text`] has written.
    ///
    /// # Errors
    /// If it has not: what is wrong with the text.
    pub fn from_text(text: &str) -> Result<Usage, Unreadable> {
        text::read_usage(text)
    }
}
