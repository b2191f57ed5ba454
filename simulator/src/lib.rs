//! A seeded world for Myriad: time, randomness, disk and network that a seed decides.
//!
//! Owns [`SimulatedIo`], an implementation of storage's `Io` seam that is harsher than a kernel
//! wherever the manual allows it, the disk and the network behind it, the fault options, and the
//! trace by which two runs of one seed are compared. Leaves to others: the server that runs on it,
//! what clients ask, and the judgement of what they saw.
//!
//! Invariants of the whole crate: nothing is decided by a float, an address, a thread, a clock of
//! the machine or the order of a `HashMap`; every decision is a draw from a named stream.

pub mod client;
pub mod coverage;
pub mod disk;
pub mod draws;
pub mod faults;
pub mod fuzz;
mod host;
pub mod io;
pub mod limits;
pub mod loops;
pub mod machine;
pub mod monitor;
pub mod network;
pub mod recorder;
pub mod settings;
pub mod trace;
pub mod world;

pub use disk::{CrashMode, Damage, Hit, Ledger, Rot, SimulatedDisk};
pub use draws::{Draws, Span, Stream};
pub use faults::{FaultCount, FaultCounts, FaultKind, Faults, NamespaceModel, SyncSemantics};
pub use io::{Doom, OperationClass, PlannedFault, SimulatedIo};
pub use machine::{Door, End, Machine, Stop};
pub use network::{ClientSocket, Wake};
pub use trace::{Checkpoint, Divergence, Kind, Trace};
