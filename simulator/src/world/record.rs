//! Samples of a world for its recording: everything is read from what is there anyway.

use std::rc::Rc;

use storage::io::{Clock as _, Instant};
use storage::ledger;
use tenant::TenantState;

use super::World;
use crate::faults::FaultKind;
use crate::io::Doom;
use crate::recorder::{Life, Moment, Recording, Sample, TenantSample};
use crate::trace::Kind;

/// The name in a recording of what has none: the catalogue.
const CATALOGUE: &str = "catalogue";

impl World {
    /// Take a sample if there is a recording and one is due.
    pub(super) fn record(&mut self) {
        let Some(recording) = self.recording.clone() else { return };
        let mut recording = recording.borrow_mut();
        if recording.is_due(self.io.trace().sequence()) {
            let sample = self.sample(&mut recording);
            recording.add(sample);
        }
    }

    fn sample(&self, recording: &mut Recording) -> Sample {
        let engine = self.server.as_ref().map(server::Server::engine);
        let views = engine.map_or_else(Vec::new, |engine| engine.tenant_views());
        let before = recording.samples.last().map_or(Instant(0), |sample| sample.at);
        let waiting = views.iter().map(|view| view.requests).sum();
        let writers = views.iter().map(|view| view.writers_waiting).sum();
        let tenants = views
            .iter()
            .filter(|view| view.state != TenantState::Dropped)
            .map(|view| TenantSample {
                name: recording.name(if view.name.is_empty() { CATALOGUE } else { &view.name }),
                // Most requests begin and end between two samples.
                state: match view.state {
                    TenantState::Idle if view.last_used >= before => TenantState::Running,
                    state => state,
                } as u8,
                memory_bytes: view.held[..ledger::Kind::Temporary as usize].iter().sum(),
            })
            .collect();
        let counts = &self.ground.counts;
        let faults = self.io.fault_counts();
        let log_bytes = engine.map_or((0, 0), |engine| engine.log_bytes());
        Sample {
            event: self.io.trace().sequence(),
            at: self.io.now(),
            life: self.life(),
            held: ledger::total(),
            log_bytes: [log_bytes.0, log_bytes.1],
            queues: [
                self.io.connection_count(),
                engine.map_or(0, |engine| engine.running_tasks()),
                engine.map_or(0, |engine| engine.parked_streams()),
                waiting,
                writers,
            ],
            counts: [counts.ok, counts.refused.values().sum(), counts.unknown, counts.acknowledged],
            faults: FaultKind::ALL.iter().map(|kind| faults.of(*kind).injected).collect(),
            tenants,
        }
    }

    fn life(&self) -> Life {
        match &self.server {
            None => Life::Down,
            _ if self.io.doom() != Doom::Alive => Life::Doomed,
            Some(server) if server.is_stopping() => Life::Stopping,
            Some(server) if server.is_ready() => Life::Serving,
            Some(_) => Life::Starting,
        }
    }

    /// The last sample, and all moments, when the verdict is there.
    pub(super) fn end_recording(&mut self, violation: Option<&super::Violation>) {
        let Some(recording) = self.recording.as_ref().map(Rc::clone) else { return };
        let mut recording = recording.borrow_mut();
        let sample = self.sample(&mut recording);
        let (event, at) = (sample.event, sample.at);
        recording.add(sample);
        recording.moments = self
            .io
            .trace()
            .moments()
            .iter()
            .map(|(event, at, moment)| Moment {
                event: *event,
                at: *at,
                text: match moment.kind {
                    Kind::Crash => crate::CrashMode::ALL
                        .into_iter()
                        .find(|mode| *mode as u64 == moment.entity)
                        .map_or_else(|| "crash".to_owned(), |mode| format!("{mode:?}")),
                    _ => "restart".to_owned(),
                },
            })
            .collect();
        if let Some(violation) = violation {
            let text = format!("{}: {}", violation.property, violation.detail);
            recording.moments.push(Moment { event, at, text });
        }
    }
}
