//! Clocks that do not run evenly. The fault model:
//!
//! - **Jump**: the machine sleeps. The monotonic clock is up to an hour later at once, 0-2 times a
//!   run; what was in flight ends after that. Expected: what waited too long is refused, streams
//!   and transactions may have expired, connections may be closed. Nothing else.
//! - **Wall step**: the wall clock is set forward or back by up to an hour, 0-3 times a run.
//!   Expected: SQL's `now` says so, and no timeout changes.
//! - **Drift**: the wall clock runs up to 500 parts per million faster or slower. Expected: as with
//!   a step.
//!
//! The moments are drawn before the world begins, from a stream of their own. Whoever judges how
//! long something took measures by [`SimulatedIo::awake`], which does not count sleep. Outside of
//! the model: a monotonic clock that runs backwards (Linux promises that it does not), coarse ones.

use std::collections::VecDeque;

use storage::io::{Instant, WallTime};

use super::{Doom, SimulatedIo};
use crate::draws::{Draws, PER_MILLION, Span, Stream};
use crate::faults::{FaultKind, Faults};

/// When a disturbance comes, in nanoseconds after the start: most runs take some minutes.
const MOMENT_NS: Span = Span::new(50_000_000, 300_000_000_000);

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Jump(u64),
    WallStep(i64),
}

/// What is still to come, and what has come.
#[derive(Debug)]
pub(super) struct ClockFaults {
    plan: VecDeque<(Instant, Disturbance)>,
    slept_ns: u64,
    wall_step_ns: i64,
}

impl ClockFaults {
    pub fn draw(draws: &mut Draws, faults: &Faults) -> ClockFaults {
        let s = Stream::Clock;
        let mut plan = Vec::new();
        for _ in 0..faults.clock_jumps {
            let at = Instant(draws.logarithmic(s, 0, MOMENT_NS));
            plan.push((at, Disturbance::Jump(draws.logarithmic(s, 1, faults.clock_jump_ns))));
        }
        for _ in 0..faults.wall_steps {
            let at = Instant(draws.logarithmic(s, 2, MOMENT_NS));
            let step = draws.logarithmic(s, 3, faults.wall_step_ns) as i64;
            let back = draws.below(s, 4, 2) == 0;
            plan.push((at, Disturbance::WallStep(if back { -step } else { step })));
        }
        plan.sort_by_key(|(at, _)| *at);
        ClockFaults { plan: plan.into(), slept_ns: 0, wall_step_ns: 0 }
    }

    pub fn wall(&self, now: Instant, faults: &Faults) -> WallTime {
        let drift = i128::from(now.0) * i128::from(faults.wall_drift_per_million);
        let drift_ns = (drift / i128::from(PER_MILLION)) as i64;
        let wall = faults.wall_offset_ns.saturating_add(now.0);
        WallTime(wall.saturating_add_signed(drift_ns).saturating_add_signed(self.wall_step_ns))
    }
}

impl<W> SimulatedIo<W> {
    /// The monotonic clock without the time that the machine has slept.
    #[must_use]
    pub fn awake(&self) -> Instant {
        Instant(self.now.0 - self.clock.slept_ns)
    }

    /// Step the wall clock; the monotonic clock does not notice.
    pub fn step_wall(&mut self, nanoseconds: i64) {
        self.clock.wall_step_ns = self.clock.wall_step_ns.saturating_add(nanoseconds);
    }

    /// Do what is due to the clocks. A doomed server's last moments are not disturbed.
    pub(super) fn disturb_clock(&mut self) {
        while let Some(&(at, disturbance)) = self.clock.plan.front()
            && at <= self.awake()
            && self.doom() == Doom::Alive
        {
            self.clock.plan.pop_front();
            match disturbance {
                Disturbance::Jump(nanoseconds) if self.faults.clock_jumps > 0 => {
                    self.charge(nanoseconds);
                    self.clock.slept_ns += nanoseconds;
                    self.injected(FaultKind::ClockJump, 0);
                }
                Disturbance::WallStep(nanoseconds) if self.faults.wall_steps > 0 => {
                    self.step_wall(nanoseconds);
                    self.injected(FaultKind::WallStep, 0);
                }
                Disturbance::Jump(_) | Disturbance::WallStep(_) => {}
            }
        }
    }
}
