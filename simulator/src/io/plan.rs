//! Planned faults: exactly the nth operation of a class fails, once or from then on.
//!
//! For loops that try every fault of a script, n = 1, 2, and so on, until the script ends untouched.
//! Model: the operation fails as a whole when it would have ended, and nothing of it happened; a
//! failed sync does to its pages what this world's syncs do. Operations of a doomed world are not
//! counted. Outside of the model: a planned write that happened in part (`WriteError` draws those).

use std::io;

use storage::io::Done;

use super::SimulatedIo;
use super::operation::{Change, Operation, Pending, Ready};
use crate::faults::FaultKind;
use crate::trace::Kind;

/// What a planned fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationClass {
    /// Reads of files: EIO.
    Read,
    /// Writes of files: EIO.
    Write,
    /// Syncs of files and directories: EIO.
    Sync,
    /// Opens: EMFILE.
    Open,
    /// Every change of a name (rename, remove, make a directory): EIO.
    Rename,
    /// Every change of a size (allocate, truncate): ENOSPC.
    Allocate,
    /// Sends: ECONNRESET.
    Send,
    /// Receives: ECONNRESET.
    Receive,
    /// Accepts: EMFILE.
    Accept,
}

impl OperationClass {
    /// All classes, in order.
    pub const ALL: [OperationClass; 9] = [
        OperationClass::Read,
        OperationClass::Write,
        OperationClass::Sync,
        OperationClass::Open,
        OperationClass::Rename,
        OperationClass::Allocate,
        OperationClass::Send,
        OperationClass::Receive,
        OperationClass::Accept,
    ];

    fn of<W>(operation: &Operation<W>) -> OperationClass {
        match operation {
            Operation::Accept { .. } => OperationClass::Accept,
            Operation::Receive { .. } => OperationClass::Receive,
            Operation::Send { .. } => OperationClass::Send,
            Operation::Open { .. } => OperationClass::Open,
            Operation::Transfer { writes: false, .. } => OperationClass::Read,
            Operation::Transfer { .. } => OperationClass::Write,
            Operation::Change { change, .. } => match change {
                Change::Sync { .. } | Change::SyncDirectory { .. } => OperationClass::Sync,
                Change::Truncate { .. } | Change::Allocate { .. } => OperationClass::Allocate,
                Change::MakeDirectory { .. } | Change::Rename { .. } | Change::Remove { .. } => {
                    OperationClass::Rename
                }
            },
        }
    }

    fn error(self) -> io::Error {
        match self {
            OperationClass::Read
            | OperationClass::Write
            | OperationClass::Sync
            | OperationClass::Rename => io::Error::from_raw_os_error(super::INPUT_OUTPUT_ERROR),
            OperationClass::Open | OperationClass::Accept => {
                io::Error::from_raw_os_error(super::TOO_MANY_FILES)
            }
            OperationClass::Allocate => io::ErrorKind::StorageFull.into(),
            OperationClass::Send | OperationClass::Receive => io::ErrorKind::ConnectionReset.into(),
        }
    }
}

/// One operation that will fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// What is counted.
    pub operation: OperationClass,
    /// Which of them fails, from 1, counted from the moment of planning.
    pub nth: u64,
    /// All later ones of the class fail too.
    pub forever: bool,
}

/// A plan under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    fault: PlannedFault,
    seen: u64,
}

impl<W> SimulatedIo<W> {
    /// Let a coming operation fail. Replaces an earlier plan.
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn plan_fault(&mut self, fault: PlannedFault) {
        assert!(fault.nth > 0, "operations are counted from 1");
        self.planned = Some(Plan { fault, seen: 0 });
    }

    /// Whether the plan has let an operation fail.
    #[must_use]
    pub fn planned_fault_struck(&self) -> bool {
        self.planned.is_some_and(|plan| plan.seen >= plan.fault.nth)
    }

    /// Forget the plan: from now on everything works again.
    pub fn clear_planned_fault(&mut self) {
        self.planned = None;
    }

    /// Write the failure down in the disk's ledger.
    fn note_hit(&mut self, operation: &Operation<W>, kind: FaultKind, forever: bool) {
        let transient = !forever
            && !matches!(
                kind,
                FaultKind::WriteError
                    | FaultKind::SyncKept
                    | FaultKind::SyncLate
                    | FaultKind::SyncReverted
            );
        if let Some(file) = operation.file() {
            self.disk.hit_file(file, kind, transient);
        }
        match operation {
            Operation::Open { path, .. } => self.disk.hit_path(path, kind, transient),
            Operation::Change { change, .. } => {
                if let Some(path) = change.path() {
                    self.disk.hit_path(path, kind, transient);
                }
            }
            _ => {}
        }
    }

    /// A sync fails, and nobody hears of it yet.
    fn finish_silent(&mut self, pending: Pending<W>) {
        let Operation::Change { change: Change::Sync { file, .. }, done } = pending.operation
        else {
            unreachable!("only syncs fail in silence");
        };
        let entity = self.disk.entity(file);
        self.record(Kind::Sync, entity, 0, 0, false);
        self.end_on(file);
        self.ready.push_back(Ready::Done(pending.token, done, Done { result: Ok(()) }));
    }

    /// Count an operation that comes to its end, and hand it back unless the plan lets it fail.
    pub(super) fn strike_planned(&mut self, pending: Pending<W>) -> Option<Pending<W>> {
        let class = OperationClass::of(&pending.operation);
        let Some(plan) = self.planned.as_mut().filter(|plan| plan.fault.operation == class) else {
            return Some(pending);
        };
        plan.seen += 1;
        let forever = plan.fault.forever;
        let strikes = match forever {
            true => plan.seen >= plan.fault.nth,
            false => plan.seen == plan.fault.nth,
        };
        if !strikes {
            return Some(pending);
        }
        let kind = match class {
            OperationClass::Read => FaultKind::ReadError,
            OperationClass::Write | OperationClass::Rename => FaultKind::WriteError,
            OperationClass::Sync => self.sync_failure(),
            OperationClass::Open => FaultKind::OpenError,
            OperationClass::Allocate => FaultKind::NoSpace,
            OperationClass::Send | OperationClass::Receive => FaultKind::Reset,
            OperationClass::Accept => FaultKind::AcceptError,
        };
        let file = pending.operation.file();
        let entity = file.map_or(0, |file| self.disk.entity(file));
        self.injected(kind, entity);
        let reported = match &pending.operation {
            Operation::Change { change: Change::Sync { file, stamp }, .. } => {
                self.disk.fail_sync(*file, *stamp)
            }
            _ => true,
        };
        self.note_hit(&pending.operation, kind, forever);
        if !reported {
            self.finish_silent(pending);
            return None;
        }
        if let Some(file) = file {
            self.end_on(file);
        }
        self.finish_failed(pending, class.error());
        None
    }
}
