//! The ends of the server: when and how each of its lives is over, and what is left behind.
//!
//! A fifth of the ends are clean stops, half of which are cut short by a crash. A quarter of the others
//! come early, while the log is read. Half of the rest, more where databases are copied or imported or jobs
//! run, wait for a moment where something can be lost: for half a second at most for unsynced bytes on the
//! disk, or for a checkpoint that is in its file and not yet in the catalogue; for minutes for a database
//! that is being filled, or for a job's script on one. The others come at a drawn event.

use server::{Exit, Server};
use storage::io::{Clock, Instant, Io};
use tenant::{Counters, Failure};

use super::model::Violation;
use super::{Options, REFUSED_STARTS_MAX, World};
use crate::disk::CrashMode;
use crate::draws::{Span, Stream};
use crate::faults::FaultKind;
use crate::host::{Host, STOP_NS_MAX};
use crate::io::Doom;

/// How long a crash that is due waits for its moment.
const BIAS_NS_MAX: u64 = 500_000_000;

/// The same for databases that are being filled, of which there are few.
const BUILDING_BIAS_NS_MAX: u64 = 60_000_000_000;

/// The same for jobs, which are rare.
const JOB_BIAS_NS_MAX: u64 = 300_000_000_000;

/// Events from its moment within which the crash comes then: the record of it is to be durable, perhaps.
const RARE_EVENTS_MAX: u64 = 100;

/// Most events that a start takes before it serves, for a crash inside of it.
const START_EVENTS_MAX: u64 = 200;

/// What a crash waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Bytes or names that a power loss could take.
    Unsynced,
    /// A checkpoint between its sync and its row in the log.
    Checkpoint,
    /// A copy or an import that is not whole; of a call about many, where there are such.
    Building,
    /// A job's script runs on a database.
    Job,
}

/// A crash to come at a moment of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ambush {
    /// Not before so many events.
    from: u64,
    moment: Moment,
    mode: CrashMode,
    /// Since when it waits.
    since: Option<Instant>,
}

impl World {
    /// Draw how and when this life of the server ends, if it is not the last.
    pub(super) fn plan_end(&mut self) {
        self.stop_at = None;
        self.ambush = None;
        if self.ends_left == 0 {
            return;
        }
        let draws = self.io.draws_mut();
        // A quarter of the ends come early, while the log is read.
        let early = draws.below(Stream::CrashTime, 0, 4) == 0;
        let high = if early { START_EVENTS_MAX } else { self.ground.options.crash_events_max };
        let events = draws.logarithmic(Stream::CrashTime, 1, Span::new(1, high));
        let mode = CrashMode::ALL[draws.index(Stream::CrashTime, 2, CrashMode::ALL.len())];
        let stops = draws.below(Stream::CrashTime, 3, 5) == 0;
        let bias = draws.below(Stream::CrashTime, 7, 4);
        let at = self.io.trace().sequence() + events;
        if stops {
            self.stop_at = Some(at);
            return;
        }
        self.ends_left -= 1;
        let Options { copies, casts, imports, jobs, .. } = self.ground.options;
        let moment = match bias {
            0 => Some(Moment::Unsynced),
            1 => Some(Moment::Checkpoint),
            2 if copies + casts + imports > 0 => Some(Moment::Building),
            3 if jobs > 0 => Some(Moment::Job),
            _ => None,
        };
        match moment.filter(|_| !early) {
            Some(moment) => self.ambush = Some(Ambush { from: at, moment, mode, since: None }),
            None => self.io.crash_at(at, mode),
        }
    }

    /// A crash that waits for its moment: has it come?
    pub(super) fn spring_ambush(&mut self) {
        let Some(mut ambush) = self.ambush else { return };
        let sequence = self.io.trace().sequence();
        if sequence < ambush.from || self.io.doom() != Doom::Alive {
            return;
        }
        let now = self.io.now();
        let since = *ambush.since.get_or_insert(now);
        let server = self.server.as_ref().expect("a server runs");
        let (come, patience_ns, events_max) = match ambush.moment {
            Moment::Unsynced => (self.io.disk().has_unsynced(), BIAS_NS_MAX, 8),
            Moment::Checkpoint => (server.engine().has_unsettled_checkpoint(), BIAS_NS_MAX, 8),
            Moment::Building => {
                let engine = server.engine();
                let come = match self.ground.options.casts {
                    0 => engine.is_building(),
                    _ => engine.is_building_many(),
                };
                (come, BUILDING_BIAS_NS_MAX, RARE_EVENTS_MAX)
            }
            Moment::Job => (server.job_runs() > 0, JOB_BIAS_NS_MAX, RARE_EVENTS_MAX),
        };
        self.ambush = Some(ambush);
        if come || now.since(since) > patience_ns {
            self.ambush = None;
            let span = Span::new(1, events_max);
            let events = self.io.draws_mut().logarithmic(Stream::CrashTime, 8, span) - 1;
            self.io.crash_at(sequence + events, ambush.mode);
        }
    }

    /// A clean stop begins; half of them are interrupted by a crash.
    pub(super) fn begin_stop(&mut self) {
        self.stop_at = None;
        self.ends_left -= 1;
        self.server_mut().stop();
        self.io.injected(FaultKind::CleanStop, 0);
        let draws = self.io.draws_mut();
        if draws.below(Stream::CrashTime, 4, 2) == 0 {
            let events = draws.logarithmic(Stream::CrashTime, 5, Span::new(1, 2_000));
            let mode = CrashMode::ALL[draws.index(Stream::CrashTime, 6, CrashMode::ALL.len())];
            let at = self.io.trace().sequence() + events;
            self.io.crash_at(at, mode);
        }
    }

    /// The crash came inside of a run: end this life and begin the next.
    pub(super) fn on_crash(&mut self) -> Result<(), Violation> {
        if !self.server.as_ref().is_some_and(Server::is_ready) {
            self.totals.crashed_starting += 1;
            self.io.injected(FaultKind::CrashInRecovery, 0);
        }
        self.end_process()?;
        self.rehearse_recovery()?;
        self.between_lives();
        self.start()
    }

    /// The server has ended by itself, or as it was told.
    pub(super) fn on_exit(&mut self, exit: Exit) -> Result<(), Violation> {
        let options = &self.ground.options;
        let errors = options.has_disk_errors();
        let full = options.has_full_disk() || self.ground.disk_was_full;
        // A start that is told to stop has promised nothing yet.
        let clean = exit == Exit::Stopped && self.server.as_ref().is_some_and(Server::is_ready);
        match exit {
            Exit::Stopped if clean => {
                self.totals.clean_stops += 1;
                self.settle_leftovers()?;
            }
            Exit::Stopped => {}
            Exit::Failed(Failure::Log(_)) if errors => self.totals.failed_exits += 1,
            Exit::Failed(Failure::Start(text))
                if errors || full || self.ground.options.is_out_of_memory(&text) =>
            {
                self.totals.refused_starts += 1;
                self.refused_starts += 1;
                self.bring_catalogue_back();
            }
            Exit::Failed(failure) => {
                return Err(Violation::new("EXIT", format!("the server ended: {failure:?}")));
            }
        }
        if self.refused_starts > REFUSED_STARTS_MAX {
            self.calm_down();
            if self.refused_starts > 2 * REFUSED_STARTS_MAX {
                let text = "the server does not start, though its disk works again";
                return Err(Violation::new("LIVE-1", text));
            }
        }
        if self.io.doom() == Doom::Alive {
            self.io.crash(CrashMode::Kill);
        }
        let left = self.end_process()?.left_to_log;
        self.left_to_log = left;
        if clean && left == 0 {
            self.judge_files()?;
            self.swap_a_file();
        }
        self.between_lives();
        self.start()
    }

    /// Let the doomed server run to its end, and take the machine back.
    fn end_process(&mut self) -> Result<Counters, Violation> {
        self.ground.model.epoch = self.io.lives();
        let counters = self.end_server()?;
        self.add_up(counters);
        Ok(counters)
    }

    fn add_up(&mut self, counters: Counters) {
        let totals = &mut self.totals;
        totals.commits += counters.commits;
        totals.checkpoints += counters.checkpoints;
        totals.fences += counters.fences;
        totals.gated += counters.gated;
    }

    pub(super) fn stop_for_good(&mut self) -> Result<(), Violation> {
        self.server_mut().stop();
        let begun: Instant = self.io.now();
        let stops = self.totals.clean_stops;
        while self.totals.clean_stops == stops {
            self.tick()?;
            if self.io.now().since(begun) > STOP_NS_MAX {
                return Err(Violation::new("LIVE-1", "the server does not stop"));
            }
        }
        match self.left_to_log {
            0 => Ok(()),
            left => {
                let text = format!("{left} databases are left to the log on a disk that works");
                Err(Violation::new("LIVE-1", text))
            }
        }
    }

    /// After a violation: end the process, so that nothing of it is left for the next world.
    pub(super) fn tear_down(&mut self) {
        if self.server.is_none() {
            return;
        }
        if self.io.doom() == Doom::Alive {
            self.io.cancel_crash();
            self.io.crash(CrashMode::Kill);
        }
        self.clients.clear();
        self.routes.clear();
        let mut server = self.server.take().expect("looked at just now");
        while self.io.doom() == Doom::Ending {
            let deadline = server.deadline();
            self.io.run(&mut server, deadline);
            while self.io.next_wake().is_some() {}
        }
        if self.io.doom() == Doom::Ended {
            server.doom(&self.io);
        }
    }
}
