//! What all runners of the corpora share: reading archives and scripts, talking SQL to a server over
//! anything that carries requests, plain SQLite beside it, and the judgement of what both gave.
//!
//! `server/tests/corpora.rs` runs them on the real binary, `simulator/tests/corpora.rs` on simulated
//! machines; each includes this file by its path.

#![allow(dead_code, reason = "each of the two uses a part of it")]

pub mod archive;
pub mod differences;
pub mod logic_test;
pub mod md5;
pub mod outcome;
pub mod plain;
pub mod recorded;
pub mod stream;
