//! What the ledger's entries are called: kinds of what is held, levels of the tree, names of accounts.

/// What is held. Bytes, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQLite's allocations, headers and rounding included.
    Heap = 0,
    /// SQLite's page cache, headers included.
    Cache = 1,
    /// The in-memory WAL image.
    Wal = 2,
    /// The wal-index.
    WalIndex = 3,
    /// Temporary objects of SQLite (sorts, statement journals), the part in memory.
    Scratch = 4,
    /// The pages of a database that is only in memory.
    Main = 5,
    /// Requests and responses of connections.
    Buffer = 6,
    /// Stacks of fibers.
    Stack = 7,
    /// Unnamed temporary files: WAL spill and scratch spill. From here on nothing is memory.
    Temporary = 8,
    /// The database's file, as far as it is known.
    File = 9,
    /// Open files: a count.
    Descriptor = 10,
}

/// Number of [`Kind`]s.
pub const KINDS: usize = 11;

/// Number of [`Kind`]s that are memory: the first ones.
pub const MEMORY_KINDS: usize = Kind::Temporary as usize;

/// Kinds that storage's own allocators hold: the first ones. Others are booked by who holds them.
pub(super) const STORAGE_KINDS: usize = Kind::Buffer as usize;

/// Names of the kinds in order, as metrics and reports print them.
pub const KIND_NAMES: [&str; KINDS] = [
    "heap",
    "cache",
    "wal",
    "wal_index",
    "scratch",
    "main",
    "buffer",
    "stack",
    "temporary",
    "file",
    "descriptor",
];

/// Whose budget a node of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The root: all databases of this loop.
    Machine,
    /// A named account of the system.
    System,
    /// An organisation.
    Organisation,
    /// A group of databases.
    Group,
    /// A database.
    Database,
}

impl Level {
    /// Whether a node of this level may be a child of one of that.
    pub(super) fn may_stand_below(self, above: Level) -> bool {
        match self {
            Level::Machine | Level::System => false,
            Level::Organisation => above == Level::Machine,
            Level::Group => matches!(above, Level::Machine | Level::Organisation),
            Level::Database => !matches!(above, Level::System | Level::Database),
        }
    }

    /// The word for it in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Machine => "machine",
            Level::System => "system",
            Level::Organisation => "organisation",
            Level::Group => "group",
            Level::Database => "database",
        }
    }
}

/// What an account has ever been charged with, and what it was credited with, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turnover {
    /// Charged.
    pub taken: [u64; KINDS],
    /// Credited.
    pub returned: [u64; KINDS],
}

/// A charge that a limit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whose limit it was.
    pub level: Level,
    /// What was to be booked.
    pub kind: Kind,
    /// The limit in bytes.
    pub limit: u64,
    /// Bytes that it held, without pages of the refused account's own that could have gone.
    pub held: u64,
    /// Bytes that were asked for.
    pub wanted: u64,
}

impl Refused {
    /// By how many bytes the charge would have passed the limit.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.held.saturating_add(self.wanted).saturating_sub(self.limit)
    }
}

/// Key of an account in this thread's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub(super) u32);

impl AccountId {
    /// The root of the tree: the sum of all databases.
    pub const MACHINE: AccountId = AccountId(0);
    /// What runs on behalf of nobody: SQLite's own process-wide allocations.
    pub const SYSTEM: AccountId = AccountId(1);
    /// Buffers of connections.
    pub const CONNECTIONS: AccountId = AccountId(2);
    /// Stacks of fibers: their number is bounded, and whose runs on one now changes all the time.
    pub const STACKS: AccountId = AccountId(3);
    /// A root of its own: the catalogue's account stands below it, so that it has its part of memory
    /// whatever databases hold.
    pub const CATALOGUE: AccountId = AccountId(4);

    /// The machine and the system's accounts, with the names that metrics print.
    pub const NAMED: [(AccountId, &'static str); 5] = [
        (AccountId::MACHINE, "machine"),
        (AccountId::SYSTEM, "system"),
        (AccountId::CONNECTIONS, "connections"),
        (AccountId::STACKS, "stacks"),
        (AccountId::CATALOGUE, "catalogue"),
    ];

    /// The name, if it is the machine or an account of the system.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        AccountId::NAMED.get(self.0 as usize).map(|(_, name)| *name)
    }

    pub(crate) fn index(self) -> u32 {
        self.0
    }

    pub(crate) fn from_index(index: u32) -> AccountId {
        AccountId(index)
    }
}
