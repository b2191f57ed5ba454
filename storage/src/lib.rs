//! The only crate that touches the kernel, and the only one with `unsafe`.
//!
//! Owns the `Io` seam, fibers, SQLite's VFS and allocator, tenants' volumes and the commit log.
//! Leaves to others who may use how much, what SQL is allowed, and every protocol.

pub mod allocator;
pub mod allowance;
pub mod counting;
pub mod extent;
pub mod fiber;
mod functions;
mod identity;
pub mod io;
pub mod ledger;
pub mod limits;
pub mod log;
pub mod meter;
pub mod page;
pub mod pagecache;
pub mod process;
pub mod quarantine;
pub mod sometimes;
pub mod sqlite;
pub mod stretch;
pub mod vfs;
pub mod volume;

pub use identity::{TEMPORARY_FOLDER, TENANTS_FOLDER, TenantId, TenantPaths};
