//! Every-fault loops: each short script, with every single fault of every kind, one after the other.
//!
//! For a script and a kind of fault: the first operation of the kind fails, then the second, and so
//! on, until the script passes untouched; once so that only that one fails, and once so that all
//! later ones do too. And a crash at every event of a script, in each mode, with a crash of the
//! recovery after some. After each run the faults end, a server that has ended is started, and all
//! must be as the model says: contents, a write to every tenant, a clean stop that leaves nothing
//! open, the files, the accounts.
//!
//! Fault model: exactly one fault, or one that stays; the kinds are `io::OperationClass`'s,
//! SQLite's allocations and `CrashMode`'s. What is expected: a fault of the network or of memory
//! costs its request; a fault of the disk costs a request, or the process with a named exit. A
//! tenant may be fenced only by a fault that stays. Outside of the model: two faults at a time
//! (`world`'s swarm), damage on the disk.
//!
//! - `scripts`: what is done. `caller`: who does it, and judges. `budgets`: what he says about those.
//!   This file: the loops.

mod budgets;
mod caller;
mod scripts;

pub use scripts::{SCRIPTS, Script};

use std::fmt;

use crate::disk::CrashMode;
use crate::io::{OperationClass, PlannedFault};
use crate::machine::Stop;
use crate::trace::Kind;
use crate::world::client::AdminCall;
use crate::world::{Options, Profile, Violation};
use caller::{Caller, Heard};
use scripts::TENANTS;

/// Events after a crash at which the recovery crashes too, at most: most recoveries take fewer.
const RECOVERY_EVENTS_MAX: u64 = 60;

/// Of so many crashes one has a recovery that crashes too.
const RECOVERY_CRASH_EVERY: u64 = 3;

/// Time for what clients left behind when they gave up.
const SETTLE_NS: u64 = 5_000_000_000;

/// What strikes in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// An allocation of SQLite on a tenant's account.
    Allocation {
        /// Which, from 1.
        nth: u64,
        /// And all later ones.
        forever: bool,
    },
    /// An operation of the server.
    Operation(PlannedFault),
    /// The process or the machine fails.
    Crash {
        /// After so many events of the script.
        event: u64,
        /// How.
        mode: CrashMode,
        /// The recovery crashes too, after so many events.
        again: Option<u64>,
    },
}

/// What a loop goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoopKind {
    /// Allocations.
    Allocations,
    /// Operations of a class.
    Operations(OperationClass),
    /// Crashes of a mode.
    Crashes(CrashMode),
}

impl LoopKind {
    /// All loops.
    pub fn all() -> impl Iterator<Item = LoopKind> {
        let operations = OperationClass::ALL.into_iter().map(LoopKind::Operations);
        let crashes = CrashMode::ALL.into_iter().map(LoopKind::Crashes);
        std::iter::once(LoopKind::Allocations).chain(operations).chain(crashes)
    }

    /// The `nth` fault of the loop.
    #[must_use]
    pub fn fault(self, nth: u64, forever: bool) -> Fault {
        match self {
            LoopKind::Allocations => Fault::Allocation { nth, forever },
            LoopKind::Operations(operation) => {
                Fault::Operation(PlannedFault { operation, nth, forever })
            }
            LoopKind::Crashes(mode) => {
                let again = nth.is_multiple_of(RECOVERY_CRASH_EVERY);
                let again = again.then(|| 1 + nth * 7 % RECOVERY_EVENTS_MAX);
                Fault::Crash { event: nth, mode, again }
            }
        }
    }

    /// Whether a fault may stay.
    #[must_use]
    pub fn may_stay(self) -> bool {
        !matches!(self, LoopKind::Crashes(_))
    }
}

impl fmt::Display for LoopKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            LoopKind::Allocations => "memory".to_owned(),
            LoopKind::Operations(class) => format!("{class:?}").to_lowercase(),
            LoopKind::Crashes(mode) => format!("{mode:?}").replace("Power", "-").to_lowercase(),
        })
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The fault struck.
    pub struck: bool,
    /// The process ended under it.
    pub ended: bool,
    /// A tenant was fenced.
    pub fenced: bool,
}

/// How often each kind of operation comes in a script that nothing interrupts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths {
    allocations: u64,
    events: u64,
    operations: [u64; OperationClass::ALL.len()],
}

impl Lengths {
    /// Events of the world.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// About how many faults the loop of a kind has.
    #[must_use]
    pub fn of(&self, kind: LoopKind) -> u64 {
        match kind {
            LoopKind::Allocations => self.allocations,
            LoopKind::Operations(class) => self.operations[class as usize],
            LoopKind::Crashes(_) => self.events,
        }
    }
}

/// A small machine: four segments of a megabyte, six tenants.
fn options(seed: u64) -> Options {
    let mut options = Options::draw(seed, Profile::Calm);
    options.tenants = TENANTS;
    options.create_on_first_use = false;
    options.memory_bytes = [64 << 20, 16 << 20];
    options.log.segment_bytes = 1 << 20;
    options.log.segment_count = 4;
    options.log.batch_bytes_max = 128 << 10;
    options.step_cost_ns = 5;
    options
}

/// Measure a script.
///
/// # Errors
/// It does not pass without faults.
pub fn measure(script: &Script, seed: u64) -> Result<Lengths, Violation> {
    let mut caller = Caller::new(options(seed));
    let count = |caller: &Caller, kinds: &[Kind]| -> u64 {
        kinds.iter().map(|kind| caller.machine.io.trace().count(*kind).events).sum()
    };
    let counts = |caller: &Caller| OperationClass::ALL.map(|class| count(caller, kinds_of(class)));
    let measured = (|| {
        (script.prepare)(&mut caller)?;
        let before = (caller.machine.io.trace().sequence(), counts(&caller));
        // The number never comes: it only counts.
        caller.plan(Fault::Allocation { nth: u64::MAX, forever: false });
        (script.run)(&mut caller)?;
        let mut lengths = Lengths {
            allocations: storage::allocator::allocations(),
            events: caller.machine.io.trace().sequence() - before.0,
            operations: counts(&caller),
        };
        for (count, before) in lengths.operations.iter_mut().zip(before.1) {
            *count -= before;
        }
        Ok(lengths)
    })();
    let lengths = measured.map_err(violation)?;
    caller.calm_down();
    after(&mut caller).map_err(violation)?;
    Ok(lengths)
}

fn kinds_of(class: OperationClass) -> &'static [Kind] {
    match class {
        OperationClass::Read => &[Kind::Read],
        OperationClass::Write => &[Kind::Write],
        OperationClass::Sync => &[Kind::Sync, Kind::SyncDirectory],
        OperationClass::Open => &[Kind::Open],
        OperationClass::Rename => &[Kind::Rename, Kind::Remove, Kind::MakeDirectory],
        OperationClass::Allocate => &[Kind::Allocate, Kind::Truncate],
        OperationClass::Send => &[Kind::Send],
        OperationClass::Receive => &[Kind::Receive],
        OperationClass::Accept => &[Kind::Accept],
    }
}

fn violation(stop: Stop) -> Violation {
    match stop {
        Stop::Violated(violation) => violation,
        Stop::Ended(end) => Violation::new("EXIT", format!("without a fault: {end:?}")),
    }
}

/// Run a script with a fault, and judge what is left.
///
/// # Errors
/// The first violation.
pub fn run(script: &Script, seed: u64, fault: Fault) -> Result<Run, Violation> {
    let mut caller = Caller::new(options(seed));
    (script.prepare)(&mut caller).map_err(violation)?;
    caller.plan(fault);
    let mut run = Run::default();
    match (script.run)(&mut caller) {
        Ok(()) => {}
        Err(Stop::Ended(_)) => run.ended = true,
        Err(Stop::Violated(violation)) => return Err(violation),
    }
    run.struck = match fault {
        Fault::Crash { .. } => run.ended,
        _ => caller.struck(),
    };
    caller.calm_down();
    if let Fault::Crash { mode, again: Some(events), .. } = fault
        && run.ended
    {
        crash_recovery(&mut caller, events, mode)?;
    }
    after(&mut caller).map_err(violation)?;
    run.fenced = (0..TENANTS).any(|tenant| caller.is_fenced(tenant));
    Ok(run)
}

/// REC-1: the recovery crashes, and the next one finds what the first one should have.
fn crash_recovery(caller: &mut Caller, events: u64, mode: CrashMode) -> Result<(), Violation> {
    caller.plan(Fault::Crash { event: events, mode, again: None });
    let started = caller.start();
    caller.calm_down();
    match started {
        Ok(()) | Err(Stop::Ended(_)) => Ok(()),
        Err(Stop::Violated(violation)) => Err(violation),
    }
}

/// Faults are off: everything is there, everything works, nothing is left.
fn after(caller: &mut Caller) -> Result<(), Stop> {
    if caller.machine.server().is_none() {
        caller.start()?;
    }
    caller.forget_lines();
    // Requests that waited with connections nobody had accepted are carried out now, drops too.
    caller.pass(SETTLE_NS)?;
    for tenant in 0..TENANTS {
        caller.read(tenant)?;
    }
    for tenant in 0..TENANTS {
        if caller.is_fenced(tenant) {
            continue;
        }
        caller.admin(AdminCall::Create(tenant))?;
        must(caller.setup(tenant)?)?;
        must(caller.write(tenant, 2, 20)?)?;
        must(caller.read(tenant)?)?;
    }
    caller.judge_budgets()?;
    caller.stop()?;
    Ok(caller.judge_files()?)
}

/// LIVE-1: without a fault it is done.
fn must(heard: Heard) -> Result<(), Stop> {
    match heard {
        Heard::Done(_) => Ok(()),
        Heard::Refused(refused) if refused.code == "DATABASE_DAMAGED" => Ok(()),
        other => Err(Violation::new("LIVE-1", format!("after the fault: {other:?}")).into()),
    }
}
