//! Turns: which task runs next, for how long, and who gets a fiber.
//!
//! What the engine does for itself (the catalogue, checkpoints, closing, and commits that hold room in
//! the log) has a queue of its own and at most every other turn; clients' tasks take turns by
//! `schedule`. A turn of the loop is bounded, so that what arrives meanwhile is never far away.

use storage::io::{Clock, Instant};
use storage::sometimes;

use super::context::{Job, Permit};
use super::tasks::{Kind, Work};
use super::{Engine, Event, Refusal, RequestId};
use crate::access::Access;
use crate::budget::RequestLimits;
use crate::limits;
use crate::pool::Key;

impl<J: Job> Engine<J> {
    /// A task can go on.
    pub(super) fn enqueue(&mut self, key: Key) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(tenant) = self.tenants.get(task.tenant) else { return };
        // Whoever waits for log space waits for those who have some.
        let commits = tenant
            .volume
            .as_ref()
            .is_some_and(|volume| volume.reserved_pages.is_some() || volume.sealing.is_some());
        match task.kind {
            Kind::Client(_) | Kind::Copy | Kind::Import(_) if !commits => {
                let place = tenant.place.expect("a tenant with tasks has its place");
                self.schedule.push(place.turns, task.priority, key, self.now);
            }
            _ => self.system.push_back(key),
        }
    }

    /// Run tasks for about [`limits::TURN_NS`], or until one of them has used up its slice: whoever runs
    /// long is looked away from after each, so that answers leave and requests come meanwhile. If it is
    /// the turn of one that has done so before, it is *held* until `with_long`: what the others have
    /// answered leaves first.
    pub(super) fn run_tasks(&mut self, clock: &dyn Clock, with_long: bool) {
        let mut spent_ns = 0;
        let mut last_ns = 0;
        self.holds_long = false;
        for _ in 0..limits::RESUMES_PER_TURN {
            if spent_ns >= limits::TURN_NS || last_ns >= limits::QUANTUM_NS {
                return;
            }
            self.system_next = !self.system_next;
            let first = if self.system_next { self.system.pop_front() } else { None };
            if let Some(key) = first {
                last_ns = self.run_system(key, clock);
            } else if let Some(turn) = self.schedule.next(self.now) {
                let task = self.tasks.get(turn.work);
                if !with_long && task.is_some_and(|task| task.is_long) {
                    self.holds_long = true;
                    return self.schedule.put_back(turn, self.now);
                }
                let tenant = task.map(|task| task.tenant);
                let (cost_ns, ended) = self.run_task(turn.work, clock);
                self.note_processor_time(tenant, cost_ns);
                if let Some(tenant) = tenant.and_then(|key| self.tenants.get_mut(key)) {
                    tenant.served.turns_ns += cost_ns;
                    let own = turn.reserved == Some(turn.leaf);
                    tenant.served.reserved_ns += if own { cost_ns } else { 0 };
                }
                self.schedule.charge(&turn, cost_ns, ended);
                last_ns = cost_ns;
            } else if let Some(key) = self.system.pop_front() {
                last_ns = self.run_system(key, clock);
            } else {
                return;
            }
            spent_ns += last_ns;
        }
    }

    fn run_system(&mut self, key: Key, clock: &dyn Clock) -> u64 {
        let task = self.tasks.get(key).map(|task| (task.tenant, task.priority));
        let tenant = task.map(|(tenant, _)| tenant);
        let (cost_ns, ended) = self.run_task(key, clock);
        self.note_processor_time(tenant, cost_ns);
        // A checkpoint is its tenant's work, though it does not wait for its tenant's turn.
        let tenant = tenant.and_then(|tenant| self.tenants.get_mut(tenant));
        let place = tenant.and_then(|tenant| {
            tenant.served.aside_ns += cost_ns;
            tenant.place
        });
        if let (Some(place), Some((_, priority))) = (place, task) {
            self.schedule.charge_aside(place.turns, priority, cost_ns, ended);
        }
        cost_ns
    }

    fn note_processor_time(&mut self, tenant: Option<Key>, cost_ns: u64) {
        self.counters.cpu_ns += cost_ns;
        if let Some(tenant) = tenant.and_then(|key| self.tenants.get_mut(key)) {
            tenant.usage.cpu_ns += cost_ns;
        }
    }

    /// When a task can run: now, later, or when something happens.
    pub(super) fn turn_at(&self) -> Option<Instant> {
        if self.system.is_empty() { self.schedule.ready_at(self.now) } else { Some(self.now) }
    }

    // ---- fibers ----

    /// Start the job's fiber, or let it wait for one.
    pub(super) fn admit(&mut self, key: Key, request: RequestId, access: Access, job: J) {
        let free = self.free_fibers();
        let tenant = self.tenants.get_mut(key).expect("the caller has it");
        if tenant.queue.is_empty() && tenant.fibers < free {
            return self.start_client(key, request, access, job);
        }
        sometimes!("a request waits for a fiber");
        tenant.tasks += 1;
        tenant.queue.push_back((request, access, job));
        if !std::mem::replace(&mut tenant.queued, true) {
            self.admission.push_back(key);
        }
    }

    /// Fibers that are left, and so many may each tenant have: however many want more than their part,
    /// some are always left for the next one (Choudhury and Hahne, "Dynamic queue length thresholds for
    /// shared-memory packet switches", 1998).
    fn free_fibers(&self) -> usize {
        limits::FIBERS_CLIENTS_MAX.saturating_sub(self.stacks.taken())
    }

    /// Close connections of a tenant on a fiber, now or when fewer run.
    pub(super) fn start_aside(&mut self, key: Key, work: Work<J>) {
        if self.stacks.taken() >= limits::FIBERS_CLOSING_MAX && !self.doomed {
            sometimes!("connections wait for a fiber to be closed");
            // Whoever waits for its tasks to end waits for this one too.
            self.tenants.get_mut(key).expect("it has connections").tasks += 1;
            return self.aside.push_back((key, work));
        }
        let started = self.start_task(key, Kind::Close, work);
        assert!(started.is_some(), "no memory for the stack that closes a connection");
    }

    /// Begin what waits to be closed.
    pub(super) fn pump_aside(&mut self) {
        while self.stacks.taken() < limits::FIBERS_CLOSING_MAX || self.doomed {
            let Some((key, work)) = self.aside.pop_front() else { return };
            self.tenants.get_mut(key).expect("a task keeps its tenant").tasks -= 1;
            self.start_aside(key, work);
        }
    }

    fn start_client(&mut self, key: Key, request: RequestId, access: Access, job: J) {
        let cost_max = match self.keys.spenders.admit(access.key, self.now) {
            Ok(cost_max) => cost_max,
            Err(again_at) => {
                let refusal = Refusal::KeySpent { again_ns: again_at.since(self.now) };
                return self.emit(Event::Refused(request, refusal));
            }
        };
        let tenant = self.tenants.get_mut(key).expect("the caller has it");
        tenant.usage.requests += 1;
        let row = tenant.row.as_ref().expect("a tenant with a volume has its row");
        let denials = access.denials(row.settings());
        let holder = access.holder();
        let permit = Permit { holder, priority: access.priority, denials, cost_max };
        let mut request_limits = RequestLimits::from(&tenant.limits);
        request_limits.request_ns = job.run_ns().unwrap_or(request_limits.request_ns);
        let work = Work::Client(job, request_limits, permit);
        if self.start_task(key, Kind::Client(request), work).is_none() {
            let refusal = Refusal::Failed("no memory for a fiber".into());
            self.emit(Event::Refused(request, refusal));
        }
    }

    /// Give fibers to those who wait for one, one tenant after the other.
    pub(super) fn pump_admission(&mut self) {
        let mut passed = 0;
        while passed < self.admission.len() && self.free_fibers() > 0 {
            let free = self.free_fibers();
            let key = self.admission.pop_front().expect("it is not empty");
            let tenant = self.tenants.get_mut(key).expect("a waiting job keeps its tenant");
            let ended = tenant.volume.is_none() || tenant.dropped || tenant.fenced.is_some();
            if !ended && tenant.fibers >= free {
                self.admission.push_back(key);
                passed += 1;
                continue;
            }
            passed = 0;
            let (request, access, job) = tenant.queue.pop_front().expect("it waits for something");
            tenant.tasks -= 1;
            tenant.queued = !tenant.queue.is_empty();
            if tenant.queued {
                self.admission.push_back(key);
            }
            if ended {
                self.emit(Event::Refused(request, Refusal::Unavailable));
                self.after_task(key);
            } else {
                self.start_client(key, request, access, job);
            }
        }
    }
}
