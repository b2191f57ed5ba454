//! The end of a process and the beginning of the next.

use std::io;

use super::SimulatedIo;
use super::operation::{Change, Event, Operation, Pending};
use super::submit::DOOMED;
use crate::disk::{CrashMode, InFlightWrite, LateWrite};
use crate::draws::{Span, Stream};
use crate::faults::FaultKind;
use crate::limits::LATE_LANDING_MAX_NS;
use crate::trace::Kind;

/// How far the end of a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// No crash: the world lives.
    Alive,
    /// Crashed; callbacks are still to come. Go on with turns and runs.
    Ending,
    /// Crashed, and nothing is in flight: the server may be dropped and the next one started.
    Ended,
    /// Crashed, and still submitting after the bound: some error path retries for ever. A failure.
    Overrun,
}

/// A crash at a moment that was chosen before.
#[derive(Clone, Copy, Debug)]
pub(super) struct CrashPlan {
    /// Crash once the trace has so many events.
    at_sequence: u64,
    mode: CrashMode,
}

impl<W> SimulatedIo<W> {
    /// Crash now. The disk keeps what `mode` says, clients lose their connections, and the world
    /// of the server is doomed.
    ///
    /// # Panics
    /// If the world is doomed already.
    pub fn crash(&mut self, mode: CrashMode) {
        assert!(self.doomed_since.is_none(), "a world dies once");
        self.record(Kind::Crash, mode as u64, 0, 0, false);
        let power = mode != CrashMode::Kill;
        self.injected(if power { FaultKind::PowerLoss } else { FaultKind::Kill }, 0);
        let (mut pending, in_flight) = self.collect_in_flight(mode);
        let held = self.late_files.keys().copied().collect();
        let late = self.disk.crash(mode, in_flight, &held, &mut self.draws);
        let counts = self.disk.crash_counts();
        if counts.torn_writes > 0 {
            self.injected(FaultKind::TornWrite, counts.torn_writes);
        }
        if counts.names_lost > 0 {
            self.injected(FaultKind::NameLost, counts.names_lost);
        }
        self.rot_at_crash();
        if mode != CrashMode::Kill {
            self.late_files.clear();
        }
        self.doomed_since = Some(self.submitted);
        self.monitor.crashed();
        self.busy_files.clear();
        self.crash_plan = None;
        for write in late {
            *self.late_files.entry(write.file).or_default() += 1;
            let span = Span::new(1, LATE_LANDING_MAX_NS);
            let delay = self.draws.within(Stream::CrashInFlight, 2, span);
            let at = self.now.after(delay);
            self.schedule(at, Event::LateLanding(write));
        }
        for parked in std::mem::take(&mut self.accepts).into_values() {
            pending.extend(parked);
        }
        pending.extend(std::mem::take(&mut self.receives).into_values());
        pending.extend(std::mem::take(&mut self.sends).into_values());
        for mut pending in pending {
            pending.failure = Some(DOOMED);
            self.schedule_failure(pending);
        }
        for ready in &mut self.ready {
            ready.fail(DOOMED);
        }
        self.with_network(|network, around| network.crash(power, around));
    }

    /// Crash as soon as the trace has `at_sequence` events; in the middle of a run if need be.
    pub fn crash_at(&mut self, at_sequence: u64, mode: CrashMode) {
        self.crash_plan = Some(CrashPlan { at_sequence, mode });
    }

    /// Forget a crash that was planned.
    pub fn cancel_crash(&mut self) {
        self.crash_plan = None;
    }

    pub(super) fn crash_if_planned(&mut self) {
        if let Some(plan) = self.crash_plan
            && self.doomed_since.is_none()
            && self.trace.sequence() >= plan.at_sequence
        {
            self.crash(plan.mode);
        }
    }

    /// Begin the next process on the same disk. The clients' side goes on as it was.
    ///
    /// # Panics
    /// If the last world has not ended.
    pub fn restart(&mut self) {
        assert!(self.doom() == Doom::Ended, "the doomed world has not ended");
        assert!(self.ready.is_empty());
        self.doomed_since = None;
        self.record(Kind::Restart, 0, 0, 0, false);
    }

    /// Take all operations out of the queue, and what they leave on the disk.
    fn collect_in_flight(&mut self, mode: CrashMode) -> (Vec<Pending<W>>, Vec<InFlightWrite>) {
        let mut operations = Vec::new();
        let mut writes = Vec::new();
        for (due, event) in std::mem::take(&mut self.queue) {
            match event {
                Event::Operation(pending) => {
                    if pending.failure.is_none() {
                        self.crash_during(&pending.operation, mode, &mut writes);
                    }
                    operations.push(*pending);
                }
                Event::LateLanding(write) if mode != CrashMode::Kill => {
                    let file = write.file;
                    let pieces = write.pieces.into_iter();
                    writes.extend(pieces.map(|(offset, bytes)| InFlightWrite {
                        file,
                        offset,
                        bytes,
                    }));
                }
                other => {
                    self.queue.insert(due, other);
                }
            }
        }
        (operations, writes)
    }

    /// One operation was in flight: a write goes to the disk's judgement, the others happen or not.
    fn crash_during(
        &mut self,
        operation: &Operation<W>,
        mode: CrashMode,
        writes: &mut Vec<InFlightWrite>,
    ) {
        if let Operation::Transfer { file, offset, buffer, writes: true, .. } = operation {
            let possible = self.disk.check_transfer(*file, *offset, buffer.len(), true);
            if possible.is_ok() {
                writes.push(InFlightWrite { file: *file, offset: *offset, bytes: buffer.to_vec() });
            }
            return;
        }
        let happens = match mode {
            CrashMode::PowerAllLost => false,
            CrashMode::PowerAllKept => true,
            _ => self.draws.below(Stream::CrashInFlight, 3, 2) == 0,
        };
        if !happens {
            return;
        }
        // Nobody hears of the result; a failure is as good as not having happened.
        let _unheard = match operation {
            Operation::Change { change, .. } => self.apply(change),
            Operation::Open { path, options, .. } => {
                let opened = self.disk.open(path, *options);
                opened.map(|(file, _)| self.disk.close(file))
            }
            _ => Ok(()),
        };
    }

    /// Let a change take effect on the disk.
    pub(super) fn apply(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Sync { file, stamp } => self.disk.sync(*file, *stamp),
            Change::Truncate { file, size_bytes } => self.disk.truncate(*file, *size_bytes),
            Change::Allocate { file, size_bytes } => self.disk.allocate(*file, *size_bytes),
            Change::MakeDirectory { path } => self.disk.make_directory(path),
            Change::SyncDirectory { path, stamp } => self.disk.sync_directory(path, *stamp),
            Change::Rename { from, to } => self.disk.rename(from, to),
            Change::Remove { path } => self.disk.remove(path),
        }
    }

    /// A write of a killed process reaches the disk, and lets go of its description.
    pub(super) fn land(&mut self, write: &LateWrite) {
        assert!(self.disk.is_open(write.file), "a power loss takes late writes along");
        let entity = self.disk.entity(write.file);
        let bytes: usize = write.pieces.iter().map(|piece| piece.1.len()).sum();
        self.record(Kind::LateLanding, entity, bytes as u64, 0, false);
        self.injected(FaultKind::LateLanding, entity);
        self.disk.land(write);
        let left = self.late_files.get_mut(&write.file).expect("it was counted");
        *left -= 1;
        if *left == 0 {
            self.late_files.remove(&write.file);
            self.disk.close(write.file);
        }
    }
}
