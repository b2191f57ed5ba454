//! The catalogue: which databases exist, under which name, what is known of their files, and who may
//! use how much.
//!
//! It is itself a tenant (id 0) with a file and the same log, so create and drop are commits like
//! any other. One row a database, found by name or id through an index: a database that nobody uses
//! costs its row and nothing in memory, and a start reads none of them. Plans are few and all read.
//!
//! ```sql
//! CREATE TABLE databases(
//!   id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again
//!   name TEXT UNIQUE,                      -- NULL once dropped: the name is free, the id is not
//!   state INTEGER NOT NULL,                -- 0 live, 1 dropped (its file is being removed), 2 fenced;
//!                                          -- 1 with a name: it is being built, see building.rs
//!   reason TEXT,                           -- why it is fenced
//!   created_s INTEGER NOT NULL,            -- wall-clock seconds since 1970
//!   file INTEGER NOT NULL,                 -- 1: a checkpoint has made its file (F1)
//!   stamp INTEGER NOT NULL,                -- what that checkpoint wrote into page 1 (F10)
//!   txid INTEGER NOT NULL,                 -- the last transaction that it covered
//!   group_id INTEGER,                      -- its group; NULL: directly under the machine
//!   plan TEXT,                             -- its plan, if it has one
//!   budget TEXT,                           -- its own budget, as budget/text.rs writes it
//!   usage TEXT,                            -- what it has used, as of the last checkpoint or close
//!   settings TEXT,                         -- its settings, as settings.rs writes them
//!   bytes INTEGER,                         -- its size, as of the last checkpoint
//!   ends_s INTEGER,                        -- when to look whether its time is over; NULL: never
//!   used_s INTEGER,                        -- its last use, as of the last checkpoint or close
//!   ended INTEGER                          -- why it is frozen, as life.rs numbers it; NULL: it is not
//! );
//! CREATE INDEX unsettled ON databases(state) WHERE state = 1;
//! CREATE INDEX grouped ON databases(group_id, name) WHERE group_id IS NOT NULL;
//! CREATE INDEX planned ON databases(plan) WHERE plan IS NOT NULL;
//! CREATE INDEX mortal ON databases(ends_s, id) WHERE ends_s IS NOT NULL;
//! CREATE TABLE plans(name TEXT PRIMARY KEY, budget TEXT NOT NULL) WITHOUT ROWID;
//! CREATE TABLE nodes(
//!   id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again
//!   parent INTEGER NOT NULL,               -- a group's organisation; 0: it is an organisation
//!   name TEXT NOT NULL,
//!   plan TEXT,
//!   budget TEXT,
//!   settings TEXT,                         -- as a database's
//!   created_s INTEGER,                     -- NULL: nobody has noted it
//!   rearm TEXT,                            -- its databases behind this name have an old ends_s
//!   UNIQUE(parent, name)
//! );
//! CREATE INDEX rearming ON nodes(id) WHERE rearm IS NOT NULL;
//! CREATE TABLE machine(                    -- at most one row
//!   id INTEGER PRIMARY KEY,
//!   settings TEXT                          -- as a database's
//! );
//! CREATE TABLE bulk(                       -- creates and drops of many, by the caller's key
//!   key TEXT PRIMARY KEY,
//!   digest BLOB NOT NULL,                  -- of what was asked
//!   created_s INTEGER NOT NULL,
//!   done INTEGER NOT NULL,                 -- names that have been gone through
//!   outcome TEXT NOT NULL                  -- what came of them, as bulk.rs writes it
//! ) WITHOUT ROWID;
//! CREATE INDEX bulk_age ON bulk(created_s);
//! CREATE TABLE periods(                    -- see periods.rs
//!   id INTEGER PRIMARY KEY,                -- a database's; of an organisation or group, below 0
//!   buckets BLOB NOT NULL                  -- as budget/periods.rs writes them
//! );
//! CREATE TABLE jobs(                       -- see jobs.rs
//!   id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again
//!   mark BLOB NOT NULL,                    -- what its transactions leave in databases
//!   node_id INTEGER,                       -- its organisation or group; NULL: the machine
//!   kind INTEGER NOT NULL,                 -- 0 all databases there, 1 of a prefix, 2 listed ones
//!   which TEXT,                            -- that prefix, or the names, one a line
//!   last_id INTEGER NOT NULL,              -- databases with larger ids came later
//!   total INTEGER NOT NULL,                -- how many there were when it was made
//!   script TEXT NOT NULL,                  -- what to run, as the server has written it
//!   options TEXT NOT NULL,                 -- how, the same
//!   created_s INTEGER NOT NULL,
//!   ended_s INTEGER,
//!   state INTEGER NOT NULL,                -- 0 running, 1 paused, 2 cancelled, 3 completed, 4 deleting
//!   reason TEXT,
//!   open INTEGER NOT NULL,                 -- 1: a database may have been migrated without its result
//!   retries INTEGER NOT NULL,              -- 1: it goes through those that failed; 2: it was cancelled before
//!   position TEXT NOT NULL,                -- up to where all have their results
//!   canary_passed INTEGER NOT NULL,
//!   forgiven INTEGER NOT NULL,             -- failures up to when somebody let it go on
//!   results INTEGER NOT NULL,              -- numbers of results that are given
//!   done INTEGER NOT NULL, failed INTEGER NOT NULL, skipped INTEGER NOT NULL,
//!   cost INTEGER NOT NULL                  -- in parts of a million of a request unit
//! );
//! CREATE INDEX jobs_open ON jobs(id) WHERE open = 1;
//! CREATE INDEX jobs_of ON jobs(node_id);
//! CREATE TABLE job_results(
//!   id INTEGER PRIMARY KEY,                -- the job's id in the upper half, a number in the lower
//!   database INTEGER NOT NULL,             -- its id
//!   status INTEGER NOT NULL,               -- 0 done, 1 failed, 2 skipped
//!   at_s INTEGER NOT NULL,
//!   txid INTEGER, cost INTEGER, code TEXT, message TEXT
//! );
//! CREATE INDEX job_failures ON job_results(id) WHERE status = 1;
//! CREATE TABLE keys(
//!   id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again
//!   public TEXT NOT NULL UNIQUE,           -- what of the key may be seen
//!   hash BLOB NOT NULL,                    -- of all of it; the key itself is nowhere
//!   name TEXT,                             -- for people
//!   scope INTEGER NOT NULL,                -- 0 machine, 1 organisation or group, 2 database
//!   scope_id INTEGER NOT NULL,             -- that one's id; 0 for the machine
//!   role INTEGER NOT NULL,                 -- 0 read, 1 write, 2 admin
//!   priority INTEGER,                      -- the most urgent that its requests may be
//!   created_s INTEGER NOT NULL,
//!   expires_s INTEGER,                     -- NULL: never
//!   request_cost INTEGER,                  -- what it may spend: see `key_budget`
//!   cost_per_second INTEGER,
//!   cost_burst INTEGER,
//!   revoked_s INTEGER                      -- NULL: it is good
//! );
//! CREATE INDEX keyed ON keys(scope, scope_id);
//! CREATE TABLE signing(id INTEGER PRIMARY KEY, secret BLOB NOT NULL, created_s INTEGER NOT NULL);
//! ```
//!
//! A key goes with what it is for; one that is revoked stays until then, so that lists show it. `signing`
//! has the secret with which the server signs tokens of its own, in at most one row.
//!
//! Version 1 of the schema had only the table of databases, up to `txid`; version 2 had no settings,
//! keys and signing, version 3 no sizes: they are NULL, and count as 0, until the next checkpoint. Version 4
//! had nothing of what begins with `ends_s`. A start adds what is missing, in the transaction of the
//! start itself.
//!
//! Runs on a fiber of tenant 0, many calls in one transaction, and knows nothing of who asked.
//!
//! - `rows`: the rows as values, and reading them. `nodes`: plans, organisations and groups; `members`:
//!   their databases together.
//! - `building`: databases that are made of others' bytes, and are not there before they are whole.
//! - `jobs`: fleet jobs and their results. `periods`: use by hour and day.
//! - `keys`: keys, and what signs tokens. `guard`: what somebody with less than all rights may ask.

mod building;
mod bulk;
mod guard;
pub mod jobs;
mod keys;
mod life;
mod members;
mod nodes;
mod periods;
mod rows;

use storage::TenantId;
use storage::fiber;
use storage::sometimes;
use storage::sqlite::{SQLITE_FULL, SqliteError, ValueRef, codes};

use crate::access::{Access, Denial, Scope};
use crate::budget::periods::{PeriodUse, Range};
use crate::budget::{Budget, Usage};
use crate::life::Ending;
use crate::session::PooledConnection;
use crate::settings::SettingsChange;

pub use building::{Build, Built};
pub(crate) use bulk::failures;
pub use bulk::{BulkKey, BulkRecord};
pub use keys::{KeyRow, KeyScope, NewKey, Secret};
pub use nodes::{BudgetChange, Change, DEFAULT_GROUP, NodePath};
pub use rows::{DatabaseRow, ID_END, NodeId, NodeRow, PRIVATE_NAME, Plan, RowState, Said};

use jobs::{JobCall, JobRefusal, JobReply};
use nodes::Columns;
use rows::{read, run, select};

/// The version of the schema above, kept in `user_version`.
const SCHEMA_VERSION: i64 = 5;

/// Each version's step from the one before.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize] = [
    "
CREATE TABLE databases(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT UNIQUE,
  state INTEGER NOT NULL,
  reason TEXT,
  created_s INTEGER NOT NULL,
  file INTEGER NOT NULL,
  stamp INTEGER NOT NULL,
  txid INTEGER NOT NULL
);
CREATE INDEX unsettled ON databases(state) WHERE state = 1;
PRAGMA user_version = 1;
",
    "
ALTER TABLE databases ADD COLUMN group_id INTEGER;
ALTER TABLE databases ADD COLUMN plan TEXT;
ALTER TABLE databases ADD COLUMN budget TEXT;
ALTER TABLE databases ADD COLUMN usage TEXT;
CREATE INDEX grouped ON databases(group_id) WHERE group_id IS NOT NULL;
CREATE INDEX planned ON databases(plan) WHERE plan IS NOT NULL;
CREATE TABLE plans(name TEXT PRIMARY KEY, budget TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE nodes(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  parent INTEGER NOT NULL,
  name TEXT NOT NULL,
  plan TEXT,
  budget TEXT,
  UNIQUE(parent, name)
);
PRAGMA user_version = 2;
",
    "
ALTER TABLE databases ADD COLUMN settings TEXT;
ALTER TABLE nodes ADD COLUMN settings TEXT;
ALTER TABLE nodes ADD COLUMN created_s INTEGER;
CREATE TABLE keys(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  public TEXT NOT NULL UNIQUE,
  hash BLOB NOT NULL,
  name TEXT,
  scope INTEGER NOT NULL,
  scope_id INTEGER NOT NULL,
  role INTEGER NOT NULL,
  priority INTEGER,
  created_s INTEGER NOT NULL,
  expires_s INTEGER,
  revoked_s INTEGER
);
CREATE INDEX keyed ON keys(scope, scope_id);
CREATE TABLE signing(id INTEGER PRIMARY KEY, secret BLOB NOT NULL, created_s INTEGER NOT NULL);
PRAGMA user_version = 3;
",
    "
ALTER TABLE databases ADD COLUMN bytes INTEGER;
DROP INDEX grouped;
CREATE INDEX grouped ON databases(group_id, name) WHERE group_id IS NOT NULL;
PRAGMA user_version = 4;
",
    "
ALTER TABLE databases ADD COLUMN ends_s INTEGER;
ALTER TABLE databases ADD COLUMN used_s INTEGER;
ALTER TABLE databases ADD COLUMN ended INTEGER;
ALTER TABLE keys ADD COLUMN request_cost INTEGER;
ALTER TABLE keys ADD COLUMN cost_per_second INTEGER;
ALTER TABLE keys ADD COLUMN cost_burst INTEGER;
CREATE INDEX mortal ON databases(ends_s, id) WHERE ends_s IS NOT NULL;
ALTER TABLE nodes ADD COLUMN rearm TEXT;
CREATE INDEX rearming ON nodes(id) WHERE rearm IS NOT NULL;
CREATE TABLE machine(id INTEGER PRIMARY KEY, settings TEXT);
CREATE TABLE bulk(
  key TEXT PRIMARY KEY,
  digest BLOB NOT NULL,
  created_s INTEGER NOT NULL,
  done INTEGER NOT NULL,
  outcome TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX bulk_age ON bulk(created_s);
CREATE TABLE periods(id INTEGER PRIMARY KEY, buckets BLOB NOT NULL);
CREATE TABLE jobs(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  mark BLOB NOT NULL,
  node_id INTEGER,
  kind INTEGER NOT NULL,
  which TEXT,
  last_id INTEGER NOT NULL,
  total INTEGER NOT NULL,
  script TEXT NOT NULL,
  options TEXT NOT NULL,
  created_s INTEGER NOT NULL,
  ended_s INTEGER,
  state INTEGER NOT NULL,
  reason TEXT,
  open INTEGER NOT NULL,
  retries INTEGER NOT NULL,
  position TEXT NOT NULL,
  canary_passed INTEGER NOT NULL,
  forgiven INTEGER NOT NULL,
  results INTEGER NOT NULL,
  done INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  skipped INTEGER NOT NULL,
  cost INTEGER NOT NULL
);
CREATE INDEX jobs_open ON jobs(id) WHERE open = 1;
CREATE INDEX jobs_of ON jobs(node_id);
CREATE TABLE job_results(
  id INTEGER PRIMARY KEY,
  database INTEGER NOT NULL,
  status INTEGER NOT NULL,
  at_s INTEGER NOT NULL,
  txid INTEGER,
  cost INTEGER,
  code TEXT,
  message TEXT
);
CREATE INDEX job_failures ON job_results(id) WHERE status = 1;
PRAGMA user_version = 5;
",
];

/// What may be asked of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Make the schema if it is missing; answer with the rows of these ids, and of all that are
    /// dropped and not yet removed.
    Start(Vec<TenantId>),
    /// The row of a name.
    Find(String),
    /// The row of an id, if that is in use.
    FindId(TenantId),
    /// A new database; with `exists_ok` the row that is there will do.
    Create {
        /// Its name.
        name: String,
        /// Do not fail if there is one.
        exists_ok: bool,
        /// Its place in the tree, and its budget.
        change: Change,
    },
    /// A new database that is still to be filled; answered by [`Outcome::Build`].
    Build(Box<Build>),
    /// A database that was being built is whole: it is there from now on.
    Built(Built),
    /// The row of a name, made in this group if there is none and the group says that it is to be.
    Make(String, NodeId),
    /// In a call about many that goes on after a crash: what was asked for is not whole if it is not there.
    Remake(String, Change),
    /// A database that was being built will not be whole: its name is free.
    GiveUp(TenantId),
    /// Give a database another place or budget.
    Place(String, Change),
    /// Drop by name.
    Drop(String),
    /// A new plan, or a plan's new budget.
    PutPlan(Plan),
    /// A plan.
    FindPlan(Box<str>),
    /// All plans, in order of their names.
    Plans,
    /// Remove a plan that nobody has.
    DropPlan(Box<str>),
    /// A new organisation or group, or what it says from now on.
    PutNode(NodePath, Said),
    /// An organisation or group.
    FindNode(NodePath),
    /// Remove an organisation or group that has no children.
    DropNode(NodePath),
    /// Change a database's settings.
    Set(String, SettingsChange),
    /// Change the settings of an organisation or group.
    SetNode(NodePath, SettingsChange),
    /// A new key.
    CreateKey(Box<NewKey>),
    /// The key with this public part.
    FindKey(Box<str>),
    /// Up to `limit` keys with ids after `after`, in order: of one scope, or all.
    Keys {
        /// Whose, if not all.
        scope: Option<KeyScope>,
        /// Ids behind this one.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// Revoke the key with this public part.
    RevokeKey(Box<str>),
    /// Revoke the keys of this name that are the machine's, an organisation's or a group's.
    RevokeNamed(Box<str>),
    /// What a token for a database, organisation or group needs: its row, and the secret that signs
    /// tokens, which is this one if there is none yet.
    Sign(KeyScope, Secret),
    /// What a database has used, at its close, and when it was used last, in seconds since 1970.
    Used(TenantId, Usage, u64),
    /// The time of a database is over, or its limit reached: end it as it says; where no limit is given
    /// and its time is not over, say when that is.
    End {
        /// Whose.
        id: TenantId,
        /// When it was used last, as far as the caller knows: not before that.
        used_s: u64,
        /// Which limit it has reached, if it has.
        ending: Option<Ending>,
    },
    /// Up to `limit` databases that are to be looked at by `until_s`, those behind `after`, in order.
    Endings {
        /// The last one of the page before.
        after: (u64, TenantId),
        /// Up to this time.
        until_s: u64,
        /// At most so many.
        limit: usize,
    },
    /// The record of a bulk call's key.
    FindBulk(BulkKey),
    /// A part of a bulk call, with how far it was before, if it has a key.
    Bulk(Option<Box<BulkRecord>>, Vec<Call>),
    /// In a part of a bulk call: nothing is done here, because a database of this name is in memory, or
    /// because what was said of the name before stays so.
    Elsewhere(Box<str>),
    /// The bulk call of this key has ended, and this came of it.
    EndBulk(BulkKey, Box<str>),
    /// Give some databases of a group that says other times now their own: a bounded step.
    Rearm,
    /// A new organisation or group that says nothing.
    CreateNode(NodePath),
    /// Another name for a group.
    RenameGroup(NodePath, Box<str>),
    /// Up to `limit` organisations, or groups of one, with names after `after`, in order.
    Nodes {
        /// Whose groups; `None` for organisations.
        of: Option<Box<str>>,
        /// Names behind this one.
        after: Box<str>,
        /// At most so many.
        limit: usize,
    },
    /// Up to `limit` databases of an organisation or group, in the order of their groups and names.
    Members {
        /// Whose.
        path: NodePath,
        /// The group and name that they stand behind.
        after: (Box<str>, Box<str>),
        /// At most so many.
        limit: usize,
    },
    /// What all databases of an organisation or group have used, by their rows.
    Sum(NodePath),
    /// A database, and what it has used in a time.
    FindIn(String, Range),
    /// As `Sum`, and what they have used in a time.
    SumIn(NodePath, Range),
    /// Databases of an organisation or group that are gone have used so much, not counted yet.
    Spent(NodeId, Usage, u64),
    /// A call on a database, if that is in this organisation; else there is none of that name.
    Within(Box<str>, Box<Call>),
    /// Up to `limit` live rows with names after `after`, starting with `prefix`, in order.
    List {
        /// Names behind this one.
        after: String,
        /// Names that begin so.
        prefix: String,
        /// At most so many.
        limit: usize,
    },
    /// A checkpoint has made the tenant's file complete.
    Checkpointed {
        /// Whose file.
        id: TenantId,
        /// What it wrote into page 1.
        stamp: u64,
        /// The last transaction that it covered.
        txid: u64,
        /// What the tenant has used until now.
        usage: Usage,
        /// The database's size.
        bytes: u64,
        /// When it was used last, in seconds since 1970.
        used_s: u64,
    },
    /// The tenant is damaged.
    Fence(TenantId, String),
    /// The dropped tenant's file is gone: remove its row.
    Forget(TenantId),
    /// About fleet jobs.
    Job(JobCall),
    /// A call of somebody whose rights are not everything: it is carried out only on what they cover.
    Guarded(Access, Box<Call>),
}

impl Call {
    /// The call that is guarded or bound to an organisation, or the call itself.
    #[must_use]
    pub fn inner(&self) -> &Call {
        match self {
            Call::Guarded(_, call) | Call::Within(_, call) => call.inner(),
            call => call,
        }
    }

    /// As [`inner`](Self::inner).
    #[must_use]
    pub fn into_inner(self) -> Call {
        match self {
            Call::Guarded(_, call) | Call::Within(_, call) => call.into_inner(),
            call => call,
        }
    }

    /// The database that it is about, if it is one that a name tells.
    fn database(&self) -> Option<&str> {
        match self {
            Call::FindIn(name, _)
            | Call::Find(name)
            | Call::Drop(name)
            | Call::Place(name, _)
            | Call::Set(name, _) => Some(name),
            Call::Sign(KeyScope::Database(name), _) => Some(name),
            Call::Build(build) => build.from.as_deref(),
            Call::Guarded(_, call) | Call::Within(_, call) => call.database(),
            _ => None,
        }
    }

    /// Whether it may change the catalogue.
    #[must_use]
    pub fn writes(&self) -> bool {
        let call = self.inner();
        if let Call::Job(call) = call {
            return call.writes();
        }
        if let Call::Create { change, .. } = call
            && change.is_in_memory()
        {
            return false;
        }
        !matches!(
            call,
            Call::Find(_)
                | Call::FindId(_)
                | Call::List { .. }
                | Call::FindPlan(_)
                | Call::Plans
                | Call::FindNode(_)
                | Call::FindKey(_)
                | Call::Keys { .. }
                | Call::Nodes { .. }
                | Call::Members { .. }
                | Call::Sum(_)
                | Call::FindIn(..)
                | Call::SumIn(..)
                | Call::Endings { .. }
                | Call::FindBulk(_)
                | Call::Elsewhere(_)
        )
    }

    /// Whether it needs log space and makes none: it must leave what checkpoints and fences need.
    #[must_use]
    pub fn grows(&self) -> bool {
        let settles =
            matches!(self.inner(), Call::Start(_) | Call::Checkpointed { .. } | Call::Fence(..));
        self.writes() && !settles
    }

    /// Pages that it may change beside those of its transaction: a leaf of each table and index.
    #[must_use]
    pub fn pages(&self) -> u32 {
        match self {
            Call::Create { change, .. } if change.is_empty() => 2,
            Call::Guarded(_, call) | Call::Within(_, call) => call.pages(),
            // A leaf of each of the keys' table and indexes too, and three of periods.
            Call::Drop(_) => 11,
            Call::End { .. } => 12,
            Call::Rearm => life::REARM_PAGES,
            Call::FindBulk(_) | Call::Elsewhere(_) => 0,
            Call::Bulk(record, calls) => bulk::pages(record.as_deref(), calls),
            Call::EndBulk(_, outcome) => 4 + outcome.len() as u32 / 2048,
            Call::Forget(_) => 4,
            // With the group `default`, if that has to be made.
            Call::Create { .. }
            | Call::Make(..)
            | Call::Remake(..)
            | Call::Place(..)
            | Call::Build(_) => 9,
            Call::Built(_) => 2,
            Call::GiveUp(_) => 10,
            // With a leaf of periods for it, its group and its organisation.
            Call::Used(..) => 4,
            Call::Spent(..) | Call::PutPlan(_) | Call::DropPlan(_) => 1,
            Call::PutNode(..) | Call::CreateNode(_) | Call::RenameGroup(..) | Call::SetNode(..) => {
                2
            }
            Call::Set(..) => 4,
            Call::Job(call) => call.pages(),
            Call::CreateKey(_) => 4,
            Call::DropNode(_) => 6,
            Call::RevokeKey(_) | Call::RevokeNamed(_) | Call::Sign(..) => 1,
            Call::FindKey(_) | Call::Keys { .. } => 0,
            Call::FindIn(..) | Call::SumIn(..) => 0,
            Call::Nodes { .. } | Call::Members { .. } | Call::Sum(_) | Call::Endings { .. } => 0,
            Call::Start(_) | Call::Checkpointed { .. } | Call::Fence(..) => 1,
            Call::Find(_) | Call::FindId(_) | Call::List { .. } => 0,
            Call::FindPlan(_) | Call::Plans | Call::FindNode(_) => 0,
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// What a start needs.
    Started(Box<Started>),
    /// The row; for a create or a change the new one, for a drop the one that was.
    Row(Box<DatabaseRow>),
    /// The row of a database that is to be filled, and that of what it is to be filled from.
    Build(Box<(DatabaseRow, Option<DatabaseRow>)>),
    /// Rows.
    Rows(Vec<DatabaseRow>),
    /// Plans.
    Plans(Vec<Plan>),
    /// An organisation or group; behind it, for a group, its organisation.
    Node(Vec<NodeRow>),
    /// Organisations, or groups of one.
    Nodes(Vec<NodeRow>),
    /// What all databases of an organisation or group have used.
    Sum(Box<Sum>),
    /// A row, and what it has used in a time.
    RowIn(Box<(DatabaseRow, PeriodUse)>),
    /// The database has ended: it is dropped, or its row says that it is frozen.
    Ended(Box<DatabaseRow>, Ending),
    /// Not yet: its row says when to look again.
    NotYet(Box<DatabaseRow>),
    /// Which databases are to be looked at when, and whether there may be more.
    Endings(Vec<(u64, TenantId)>, bool),
    /// The record of a bulk call's key, if there is one.
    BulkRecord(Option<Box<BulkRecord>>),
    /// The database is to be in memory, and nothing stands against it: its row, without an id.
    Memory(Box<DatabaseRow>),
    /// What came of each call of a part.
    Many(Vec<Outcome>),
    /// There is no such database.
    NotFound,
    /// There is one of that name already.
    Exists,
    /// Something that the call names is not there.
    Missing(Missing),
    /// It cannot be removed: so many use it.
    InUse(u64),
    /// There are as many plans as there may be.
    TooManyPlans,
    /// Keys; the one, if one was asked for and is there.
    Keys(Vec<KeyRow>),
    /// What a token needs: what it is for, and what signs it.
    Signing(Signing),
    /// The scope has as many keys as it may have.
    TooManyKeys,
    /// It is protected against being deleted.
    Protected,
    /// About fleet jobs.
    Job(JobReply),
    /// A job is not made, or not where that can be done to it.
    JobRefused(JobRefusal),
    /// Who asked may not.
    Denied(Denial),
    /// SQLite refused; the transaction was rolled back, so no call of it took effect.
    Failed(String),
    /// As `Failed`, for lack of room in the commit log or on its disk.
    Full,
}

/// What a start needs of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The rows that were asked for.
    pub rows: Vec<DatabaseRow>,
    /// All plans.
    pub plans: Vec<Plan>,
    /// What signs tokens, if there is one.
    pub signing: Option<Secret>,
    /// There is a key that may everything, neither revoked nor expired.
    pub has_admin: bool,
    /// Databases of a group have times that it does not say any more.
    pub rearming: bool,
}

/// What all databases of an organisation or group have used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The organisation or group; behind a group, its organisation.
    pub path: Vec<NodeRow>,
    /// The sum of what they have used since they were created.
    pub usage: Usage,
    /// The sum of their sizes.
    pub bytes: u64,
    /// How many there are.
    pub databases: u64,
    /// In how many groups.
    pub groups: u64,
    /// What was used in a time, if that was asked for.
    pub period: Option<PeriodUse>,
}

/// What a token is for, and what signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// What signs it.
    pub secret: Secret,
    /// The database, if it is for one.
    pub row: Option<Box<DatabaseRow>>,
    /// The organisation or group, if it is for one; behind a group, its organisation.
    pub path: Vec<NodeRow>,
}

/// What a call names and the catalogue does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A plan.
    Plan,
    /// An organisation.
    Organisation,
    /// A group.
    Group,
    /// A key.
    Key,
    /// A job.
    Job,
    /// The database that a group has as its template.
    Template,
}

/// Carry out calls in one transaction, in order.
pub fn carry_out(pooled: &mut PooledConnection, calls: &[Call]) -> Vec<Outcome> {
    match try_all(pooled, calls) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            pooled.roll_back();
            let full = error.primary() == SQLITE_FULL;
            let outcome = if full { Outcome::Full } else { Outcome::Failed(error.message) };
            vec![outcome; calls.len()]
        }
    }
}

fn try_all(pooled: &mut PooledConnection, calls: &[Call]) -> Result<Vec<Outcome>, SqliteError> {
    let writes = calls.iter().any(Call::writes);
    run(pooled, if writes { "BEGIN IMMEDIATE" } else { "BEGIN" }, &[])?;
    let outcomes =
        calls.iter().map(|call| carry_out_one(pooled, call)).collect::<Result<_, _>>()?;
    run(pooled, "COMMIT", &[])?;
    Ok(outcomes)
}

fn find(pooled: &mut PooledConnection, name: &str) -> Result<Option<DatabaseRow>, SqliteError> {
    let sql = select!("WHERE d.name = ?1");
    Ok(read(pooled, sql, &[ValueRef::Text(name.as_bytes())], rows::database)?.pop())
}

fn find_by_id(
    pooled: &mut PooledConnection,
    id: TenantId,
) -> Result<Option<DatabaseRow>, SqliteError> {
    let sql = select!("WHERE d.id = ?1 AND d.state <> 1");
    Ok(read(pooled, sql, &[integer(id)], rows::database)?.pop())
}

fn found(row: Option<DatabaseRow>) -> Outcome {
    row.map_or(Outcome::NotFound, |row| Outcome::Row(Box::new(row)))
}

fn carry_out_one(pooled: &mut PooledConnection, call: &Call) -> Result<Outcome, SqliteError> {
    match call {
        Call::Guarded(access, call) => match guard::judge(pooled, access, call)? {
            Ok(()) => match &**call {
                Call::Nodes { of: None, .. } => guard::organisations(pooled, access),
                call => carry_out_one(pooled, call),
            },
            Err(denial) => Ok(Outcome::Denied(denial)),
        },
        Call::Within(organisation, call) => {
            let row = call.database().map(|name| find(pooled, name)).transpose()?.flatten();
            let holder = row.as_ref().and_then(|row| row.path.last());
            match holder.is_some_and(|node| node.name == *organisation) {
                true => carry_out_one(pooled, call),
                false => Ok(Outcome::NotFound),
            }
        }
        Call::Start(ids) => start(pooled, ids),
        Call::Find(name) => Ok(found(find(pooled, name)?)),
        Call::FindId(id) => Ok(found(find_by_id(pooled, *id)?)),
        Call::Make(name, group) => life::make(pooled, name, *group),
        Call::Remake(name, change) => building::remake(pooled, name, change),
        Call::Create { name, exists_ok, change } => create(pooled, name, *exists_ok, change),
        Call::Build(build) => building::begin(pooled, build),
        Call::Built(built) => building::finish(pooled, built),
        Call::GiveUp(id) => building::give_up(pooled, *id),
        Call::Place(name, change) => nodes::place(pooled, name, change),
        Call::Drop(name) => {
            let Some(row) = find(pooled, name)? else { return Ok(Outcome::NotFound) };
            if row.settings().delete_protection {
                return Ok(Outcome::Protected);
            }
            bury(pooled, row.id)?;
            Ok(Outcome::Row(Box::new(row)))
        }
        Call::End { id, used_s, ending } => life::end(pooled, *id, *used_s, *ending),
        Call::Endings { after, until_s, limit } => life::endings(pooled, *after, *until_s, *limit),
        Call::Rearm => life::rearm(pooled),
        Call::Elsewhere(_) => Ok(Outcome::Done),
        Call::FindBulk(key) => bulk::find(pooled, key),
        Call::Bulk(record, calls) => bulk::carry_out(pooled, record.as_deref(), calls),
        Call::EndBulk(key, outcome) => bulk::end(pooled, key, outcome),
        Call::List { after, prefix, limit } => {
            let sql = select!(
                "WHERE d.name > ?1 AND d.name >= ?2 AND d.name < ?2 || x'ff' \
                 ORDER BY d.name LIMIT ?3"
            );
            let arguments = [
                ValueRef::Text(after.as_bytes()),
                ValueRef::Text(prefix.as_bytes()),
                ValueRef::Integer(*limit as i64),
            ];
            Ok(Outcome::Rows(read(pooled, sql, &arguments, rows::database)?))
        }
        Call::PutPlan(plan) => nodes::put_plan(pooled, plan),
        Call::FindPlan(name) => nodes::find_plan(pooled, name),
        Call::Plans => Ok(Outcome::Plans(nodes::plans(pooled)?)),
        Call::DropPlan(name) => nodes::drop_plan(pooled, name),
        Call::PutNode(path, said) => nodes::put(pooled, path, said),
        Call::FindNode(path) => nodes::find(pooled, path),
        Call::DropNode(path) => nodes::drop(pooled, path),
        Call::CreateNode(path) => nodes::create(pooled, path),
        Call::RenameGroup(path, name) => nodes::rename(pooled, path, name),
        Call::Nodes { of, after, limit } => nodes::list(pooled, of.as_deref(), after, *limit),
        Call::Job(call) => jobs::carry_out(pooled, call),
        Call::Members { path, after, limit } => members::list(pooled, path, after, *limit),
        Call::Sum(path) => members::sum(pooled, path),
        Call::FindIn(name, range) => periods::of_database(pooled, name, *range),
        Call::SumIn(path, range) => periods::of_node(pooled, path, *range),
        Call::Spent(node, usage, at_s) => {
            periods::spent(pooled, *node, usage, *at_s)?;
            Ok(Outcome::Done)
        }
        Call::Set(name, change) => nodes::set(pooled, name, change),
        Call::SetNode(path, change) => nodes::set_node(pooled, path, change),
        Call::CreateKey(key) => keys::create(pooled, key),
        Call::FindKey(public) => Ok(Outcome::Keys(keys::find(pooled, public)?)),
        Call::Keys { scope, after, limit } => keys::list(pooled, scope.as_ref(), *after, *limit),
        Call::RevokeKey(public) => keys::revoke(pooled, public),
        Call::RevokeNamed(name) => keys::revoke_named(pooled, name),
        Call::Sign(scope, secret) => keys::sign(pooled, scope, secret),
        Call::Checkpointed { .. } | Call::Used(..) | Call::Fence(..) | Call::Forget(_) => {
            note(pooled, call)?;
            Ok(Outcome::Done)
        }
    }
}

/// Make the row of a database its tombstone; its keys go with it.
fn bury(pooled: &mut PooledConnection, id: TenantId) -> Result<(), SqliteError> {
    periods::bury(pooled, id)?;
    let sql = "UPDATE databases SET state = 1, name = NULL, group_id = NULL, plan = NULL, \
               ends_s = NULL WHERE id = ?1";
    run(pooled, sql, &[integer(id)])?;
    keys::forget(pooled, Scope::Database(id))
}

/// What the engine tells of a tenant, by its id.
fn note(pooled: &mut PooledConnection, call: &Call) -> Result<(), SqliteError> {
    let text = |usage: &Usage| (*usage != Usage::default()).then(|| usage.to_text());
    match call {
        Call::Checkpointed { id, stamp, txid, usage, bytes, used_s } => {
            let sql = "UPDATE databases SET file = 1, stamp = ?2, txid = ?3, usage = ?4, bytes = ?5, \
                 used_s = ?6 WHERE id = ?1";
            let usage = text(usage);
            let arguments = [
                integer(*id),
                ValueRef::Integer(*stamp as i64),
                ValueRef::Integer(*txid as i64),
                rows::text_or_null(usage.as_deref()),
                ValueRef::Integer(*bytes as i64),
                ValueRef::Integer(*used_s as i64),
            ];
            run(pooled, sql, &arguments)
        }
        Call::Used(id, usage, used_s) => {
            let sql = "UPDATE databases SET usage = ?2, used_s = ?3 WHERE id = ?1 AND state <> 1";
            let words = text(usage);
            let used = ValueRef::Integer(*used_s as i64);
            run(pooled, sql, &[integer(*id), rows::text_or_null(words.as_deref()), used])?;
            if pooled.connection().changes() == 0 {
                // It was dropped meanwhile.
                return Ok(());
            }
            periods::note(pooled, *id, usage, *used_s)
        }
        Call::Fence(id, reason) => {
            let sql = "UPDATE databases SET state = 2, reason = ?2 WHERE id = ?1 AND state = 0";
            run(pooled, sql, &[integer(*id), ValueRef::Text(reason.as_bytes())])
        }
        Call::Forget(id) => {
            run(pooled, "DELETE FROM databases WHERE id = ?1 AND state = 1", &[integer(*id)])
        }
        _ => unreachable!("the caller chose these"),
    }
}

/// Wall-clock seconds since 1970.
fn now_s() -> i64 {
    fiber::wall().map_or(0, |wall| (wall.0 / 1_000_000_000) as i64)
}

fn integer(id: TenantId) -> ValueRef<'static> {
    ValueRef::Integer(id.0 as i64)
}

fn create(
    pooled: &mut PooledConnection,
    name: &str,
    exists_ok: bool,
    change: &Change,
) -> Result<Outcome, SqliteError> {
    if let Some(row) = find(pooled, name)? {
        return Ok(if exists_ok { Outcome::Row(Box::new(row)) } else { Outcome::Exists });
    }
    let created_s = now_s();
    let said = match nodes::look_up(pooled, change, &Budget::default())? {
        Ok(said) => said,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    if let Some(row) = life::in_memory(pooled, name, change, &said, created_s)? {
        if said.template.is_some() {
            sometimes!("a database in memory is no copy of its group's template");
        }
        return Ok(Outcome::Memory(Box::new(row)));
    }
    match &said.template {
        // The template itself may be made where it is to be one.
        Some(template) if *template.name != *name => {
            building::of_template(pooled, template, (name, change), &said)
        }
        _ => insert(pooled, (name, created_s), change, &said),
    }
}

/// A new row, by this name and as of this second.
fn insert(
    pooled: &mut PooledConnection,
    (name, created_s): (&str, i64),
    change: &Change,
    said: &Columns,
) -> Result<Outcome, SqliteError> {
    let sql = "INSERT INTO databases(name, state, created_s, file, stamp, txid, group_id, plan, budget) \
               VALUES(?1, 0, ?2, 0, 0, 0, ?3, ?4, ?5)";
    let arguments = [
        ValueRef::Text(name.as_bytes()),
        ValueRef::Integer(created_s),
        said.group_id.map_or(ValueRef::Null, |id| ValueRef::Integer(id.0 as i64)),
        rows::text_or_null(said.plan.as_deref()),
        rows::text_or_null(said.budget.as_deref()),
    ];
    run(pooled, sql, &arguments)?;
    let id = TenantId(pooled.connection().last_insert_rowid() as u64);
    if id.0 >= ID_END {
        run(pooled, "DELETE FROM databases WHERE id = ?1", &[integer(id)])?;
        return Ok(Outcome::Failed("the catalogue has no id left for a database".into()));
    }
    if let Some(settings) = &change.settings {
        nodes::set(pooled, name, settings)?;
    }
    if change.says_nothing() {
        return Ok(Outcome::Row(Box::new(DatabaseRow::new(id, name, created_s))));
    }
    life::settled(pooled, name)
}

fn start(pooled: &mut PooledConnection, ids: &[TenantId]) -> Result<Outcome, SqliteError> {
    let version = pooled.query_integer("PRAGMA user_version")?;
    let Some(missing) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..))
    else {
        let message = format!(
            "the data folder's catalogue has version {version}, this program knows version \
             {SCHEMA_VERSION}: use a newer program"
        );
        return Err(SqliteError { code: codes::SQLITE_ERROR, message, offset: None });
    };
    for migration in missing {
        for statement in migration.split_inclusive(';').filter(|text| text.trim() != "") {
            run(pooled, statement, &[])?;
        }
    }
    let mut found = read(pooled, select!("WHERE d.state = 1"), &[], rows::database)?;
    for id in ids {
        let sql = select!("WHERE d.id = ?1 AND d.state <> 1");
        found.extend(read(pooled, sql, &[integer(*id)], rows::database)?);
    }
    Ok(Outcome::Started(Box::new(Started {
        rows: found,
        plans: nodes::plans(pooled)?,
        signing: keys::signing(pooled)?,
        has_admin: keys::has_admin(pooled)?,
        rearming: life::is_rearming(pooled)?,
    })))
}
