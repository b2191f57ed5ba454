//! The real binary on the real kernel: its manners, budgets, damaged files, a full disk, the
//! Platform API, fleet jobs, streams in time,
//! readers that do not read, memory, and what an operator sees. Each subject has its file below `process`.

#[path = "process/budgets.rs"]
mod budgets;
#[path = "process/damage.rs"]
mod damage;
#[path = "process/full_disk.rs"]
mod full_disk;
#[path = "process/jobs.rs"]
mod jobs;
#[path = "process/manners.rs"]
mod manners;
#[path = "process/memory.rs"]
mod memory;
#[path = "process/periods.rs"]
mod periods;
#[path = "process/platform.rs"]
mod platform;
#[path = "process/mod.rs"]
mod process;
#[path = "process/receipts.rs"]
mod receipts;
#[path = "process/slow_reader.rs"]
mod slow_reader;
#[path = "process/starved.rs"]
mod starved;
#[path = "process/streams.rs"]
mod streams;
#[path = "process/visibility.rs"]
mod visibility;
