//! Who may use how much, and running their SQL.
//!
//! Owns tenants' lives, the catalogue, sessions and statements, the scheduler and the gate. Knows no
//! HTTP, no JSON and no file names; everything it wants done outside it asks for as values.

pub mod access;
pub mod budget;
mod catalogue;
pub mod engine;
mod export;
mod failure;
mod import;
mod key_budget;
pub mod life;
pub mod limits;
pub mod migration;
mod policy;
mod pool;
mod room;
pub mod schedule;
mod session;
pub mod settings;
mod statement;
mod wheel;

pub use catalogue::jobs;
pub use catalogue::{
    BudgetChange, Change, DEFAULT_GROUP, DatabaseRow, KeyRow, KeyScope, Missing, NewKey, NodeId,
    NodePath, NodeRow, PRIVATE_NAME, Plan, RowState, Said, Secret, Signing, Sum,
};
pub use engine::is_memory;
pub use engine::{
    BudgetView, Bulk, BulkProgress, BulkWork, ControlCall, ControlReply, CopyProgress, Counters,
    DiskOperation, DiskReply, DiskRequest, Engine, EngineOptions, Event, Failure, Gauge, Job,
    JobContext, Node, Receipt, Refusal, RequestId, Served, TenantState, TenantView, Unbuilt,
    UsageView,
};
pub use export::{ExportError, ExportFormat};
pub use failure::{RequestUnits, request_refused, response_refused};
#[doc(hidden)]
pub use import::probe as import_probe;
pub use import::{Blame, ImportError, ImportFormat, ImportHost, Imported, Progress};
pub use key_budget::KeyBudget;
pub use limits::{PRICES, request_units_micro};
pub use pool::{Key, Pool};
pub use session::Session;
pub use statement::{
    Argument, Arguments, Ceiling, Column, Cost, Description, Executed, Gone, JobHost, Row, RowSink,
    SqlStream, StatementError, StreamError, Ticket, ValueRef,
};
