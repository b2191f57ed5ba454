//! What recovery does at each place where a batch is expected. One function, total.
//!
//! Words: a *batch* is good when its header is intact, says this sequence and place, continues the
//! hash chain, and every page matches its check. It is absent when its first block is zeros or an
//! intact header of an earlier batch (the slot's earlier life). Anything else is bad.
//! A *copy* is good when its ring slot holds the intact header of this very batch; absent when the
//! slot holds an earlier one or was never written; bad when the slot was written and neither of
//! its twins can be read. The *successor* is good when anything intact says that a later batch was
//! written: a header further on in the log, or a copy in the ring.
//!
//! | batch  | copy        | successor | action     | because                                      |
//! |--------|-------------|-----------|------------|----------------------------------------------|
//! | good   | any         | any       | Accept     | it is all there                              |
//! | bad    | good        | any       | FromCopy   | a copy follows a durable batch: this is rot  |
//! | absent | good        | any       | FromCopy   | the same, and the write was lost or zeroed   |
//! | bad    | bad, absent | good      | FromHeader | one batch in flight: a successor proves it   |
//! | bad    | absent      | absent    | Truncate   | nothing says it was durable: a torn tail     |
//! | bad    | bad         | absent    | FromHeader | cannot be told apart: treat it as durable    |
//! | absent | bad, absent | good      | Stop       | it is gone, and nobody can say whose it was  |
//! | absent | absent      | absent    | End        | the log ends here                            |
//! | absent | bad         | absent    | Stop       | cannot be told apart, and nobody can say who |
//!
//! A copy is bad only by two faults, or torn by a write that follows the durable batch.
//! `FromCopy` and `FromHeader` verify each page with that header: a tenant loses only if a page
//! that it still needs is bad, so a rotten header with a good copy hurts nobody. `FromHeader`
//! without an intact header of the batch's own is a stop, unless the batch is superseded.
//!
//! The last row was "end of log" in the plan. It is a stop because a lost write and a torn copy
//! look like this too, and silence would then drop an acknowledged commit; without two faults it
//! cannot happen, since a slot keeps its header twice and recovery repairs bad slots.
//!
//! What stays open, by choice: acknowledgement follows the batch alone, so a crash before its copy
//! is written *and* rot of exactly that batch (the last one) reads as a torn tail.

use crate::sometimes;

/// State of the bytes where a batch is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// Header, chain and all pages hold.
    Good,
    /// Something is there, and it is not all right.
    Bad,
    /// Nothing of this batch is there.
    Absent,
}

/// State of the batch's header copy in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// The slot holds this batch's header.
    Good,
    /// The slot was written and cannot be read.
    Bad,
    /// The slot holds an earlier header, or none.
    Absent,
}

/// Whether anything intact proves that a later batch was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuccessorState {
    /// It does.
    Good,
    /// It does not.
    Absent,
}

/// What recovery does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Apply the batch.
    Accept,
    /// Apply it by its copy; tenants with bad pages lose.
    FromCopy,
    /// Apply it by its own intact header; tenants with bad pages lose. Stop if it has none.
    FromHeader,
    /// Drop it: it was never durable. The log ends before it.
    Truncate,
    /// The log ends here.
    End,
    /// Refuse to start.
    Stop,
}

/// The decision table.
#[must_use]
pub fn decide(batch: BatchState, copy: CopyState, successor: SuccessorState) -> Action {
    match (batch, copy, successor) {
        (BatchState::Good, _, _) => Action::Accept,
        (BatchState::Bad | BatchState::Absent, CopyState::Good, _) => Action::FromCopy,
        (BatchState::Bad, CopyState::Bad | CopyState::Absent, SuccessorState::Good) => {
            sometimes!("recovery: a bad batch without a copy, and a successor");
            Action::FromHeader
        }
        (BatchState::Bad, CopyState::Absent, SuccessorState::Absent) => {
            sometimes!("recovery: a torn tail");
            Action::Truncate
        }
        (BatchState::Bad, CopyState::Bad, SuccessorState::Absent) => {
            sometimes!("recovery: a bad batch and a bad copy at the end");
            Action::FromHeader
        }
        (BatchState::Absent, CopyState::Bad | CopyState::Absent, SuccessorState::Good) => {
            sometimes!("recovery: no batch, and a successor");
            Action::Stop
        }
        (BatchState::Absent, CopyState::Absent, SuccessorState::Absent) => {
            sometimes!("recovery: the end of the log");
            Action::End
        }
        (BatchState::Absent, CopyState::Bad, SuccessorState::Absent) => {
            sometimes!("recovery: no batch and a bad copy at the end");
            Action::Stop
        }
    }
}
