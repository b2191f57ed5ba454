//! What is held now beside the limit that bounds it, and white-box numbers for oracles and metrics.
//!
//! Reads only; O(open tenants) a call.

use storage::TenantId;
use storage::fiber::{Answer, Input};
use storage::ledger;
use storage::log::Sequence;
use storage::volume::Volume;

use super::Engine;
use super::bulk::Running;
use super::context::Job;
use super::disk::{DiskOperation, Operation, Step};
use crate::limits;

/// Something that can grow, and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// What it is, with its unit last.
    pub name: &'static str,
    /// How much there is now; of the tenant with least left where each has a limit of its own.
    pub used: u64,
    /// How much there may be.
    pub limit: u64,
}

impl Gauge {
    /// A gauge.
    #[must_use]
    pub fn new(name: &'static str, used: usize, limit: usize) -> Gauge {
        Gauge { name, used: used as u64, limit: limit as u64 }
    }

    /// Take this one's numbers if less is left of it.
    fn take_fuller(&mut self, used: u64, limit: u64) {
        if limit.saturating_sub(used) < self.limit.saturating_sub(self.used) {
            *self = Gauge { used, limit, ..*self };
        }
    }
}

impl<J: Job> Engine<J> {
    /// Everything countable that a limit bounds.
    #[must_use]
    pub fn gauges(&self) -> Vec<Gauge> {
        let mut streams = Gauge::new("tenant_streams", 0, usize::MAX);
        let mut requests = Gauge::new("tenant_requests_waiting", 0, usize::MAX);
        let mut idle = 0;
        let mut account = Gauge::new("tenant_memory_bytes", 0, usize::MAX);
        let mut wal_bytes = 0;
        for key in self.tenants.keys() {
            let Some(tenant) = self.tenants.get(key) else { continue };
            streams.take_fuller(tenant.streams as u64, tenant.limits.streams);
            requests.take_fuller(tenant.waiting_requests() as u64, tenant.limits.requests);
            idle = idle.max(tenant.idle.len());
            let Some(volume) = &tenant.volume else { continue };
            let (held, limit) =
                (ledger::memory_held(volume.account()), ledger::memory_bound(volume.account()));
            account.take_fuller(held, limit);
            wal_bytes = wal_bytes.max(ledger::held(volume.account())[ledger::Kind::Wal as usize]);
        }
        let (log_used, log_capacity) = self.log_bytes();
        let reserved = self.log.as_ref().map_or(0, |log| log.reserved_bytes());
        vec![
            Gauge::new("keys_remembered", self.keys.counts().0, limits::KEYS_REMEMBERED),
            Gauge::new("endings_waiting", self.mortality.entries().0, self.mortality.entries().1),
            Gauge::new("key_waiters", self.keys.counts().1, limits::KEY_WAITERS_MAX),
            Gauge::new("client_fibers", self.by_request.len(), limits::FIBERS_CLIENTS_MAX),
            Gauge::new("fibers", self.stacks.taken(), limits::FIBERS_MAX),
            streams,
            requests,
            Gauge::new("tenant_connections_idle", idle, limits::IDLE_CONNECTIONS_MAX),
            Gauge::new("imports", self.imports.len(), limits::IMPORTS_MAX),
            Gauge::new("forks", self.forks.counts().1, limits::FORKS_MAX),
            Gauge::new("forks_waiting", self.forks.counts().0, limits::FORKS_WAITING_MAX),
            Gauge::new("checkpoints", self.checkpoints_running, limits::CHECKPOINTS_MAX),
            account,
            Gauge {
                name: "tenant_wal_bytes",
                used: wal_bytes,
                limit: storage::limits::WAL_MEMORY_BYTES_MAX,
            },
            Gauge { name: "log_used_bytes", used: log_used, limit: log_capacity },
            Gauge { name: "log_reserved_bytes", used: reserved, limit: log_capacity },
        ]
    }

    /// The id of a database that is open, or being opened as that, under this name.
    #[must_use]
    pub fn tenant_id(&self, name: &str) -> Option<TenantId> {
        let tenant = self.tenants.get(*self.names.get(name)?)?;
        tenant.row.as_ref().map(|row| row.id)
    }

    /// Volumes that are open, the catalogue's included: each has an account.
    #[must_use]
    pub fn open_volumes(&self) -> usize {
        let keys = self.tenants.keys().into_iter();
        let tenants = keys.filter_map(|key| self.tenants.get(key));
        tenants.filter(|tenant| tenant.volume.is_some()).count()
    }

    /// Files that are open, or were opened for a task that does not know yet.
    #[must_use]
    pub fn open_files(&self) -> usize {
        let mut files = self.log_files.len();
        for key in self.tenants.keys() {
            let Some(tenant) = self.tenants.get(key) else { continue };
            files += tenant.volume.as_ref().map_or(0, |volume| volume.open_files());
        }
        for key in self.operations.keys() {
            if let Some(Operation::Task(_, Step::Main(open))) = self.operations.get(key) {
                files += usize::from(open.has_opened());
            }
        }
        for key in self.tasks.keys() {
            let Some(task) = self.tasks.get(key) else { continue };
            files += usize::from(matches!(task.input(), Some(Input::Answer(Answer::Opened(..)))));
        }
        let closes = |what: &DiskOperation| matches!(what, DiskOperation::Close(_));
        files + self.requests.iter().filter(|request| closes(&request.operation)).count()
    }

    /// Files that open databases have open themselves.
    #[must_use]
    pub fn volume_files(&self) -> usize {
        let tenants = self.tenants.keys().into_iter().filter_map(|key| self.tenants.get(key));
        tenants.filter_map(|tenant| tenant.volume.as_ref()).map(Volume::open_files).sum()
    }

    /// Disk operations that were handed out and have not ended.
    #[must_use]
    pub fn operations_in_flight(&self) -> usize {
        let closes = |what: &DiskOperation| matches!(what, DiskOperation::Close(_));
        let waiting = self.requests.iter().filter(|request| !closes(&request.operation)).count();
        self.operations.len() - waiting - self.transfers.operations_waiting()
    }

    /// The newest batch of the log that is durable, as the engine sees it.
    #[must_use]
    pub fn durable_sequence(&self) -> Sequence {
        self.durable()
    }

    /// Tenants that the log still keeps something for, the catalogue not counted.
    #[must_use]
    pub fn tenants_in_log(&self) -> usize {
        self.dirty.iter().filter(|(_, id)| *id != TenantId::CATALOGUE).count()
    }

    /// Of those, small copies that nobody has opened: no checkpoint hurries for them.
    #[must_use]
    pub fn unopened_copies(&self) -> usize {
        self.recovered.keys().filter(|&id| !self.recovered_rows.contains_key(id)).count()
    }

    /// Requests that wait for a fiber or for their database to open, and events for the server.
    #[must_use]
    pub fn queued(&self) -> usize {
        let waiting = |key| self.tenants.get(key).map_or(0, |tenant| tenant.waiting_requests());
        let tenants: usize = self.tenants.keys().into_iter().map(waiting).sum();
        tenants
            + self.admission.len()
            + self.events.len()
            + self.system.len()
            + self.schedule.waiting()
    }

    /// A checkpoint has ended in its file, and the catalogue does not know it durably yet.
    #[must_use]
    pub fn has_unsettled_checkpoint(&self) -> bool {
        self.catalogue.has_unsettled()
    }

    /// Copies of a call about many are being made.
    #[must_use]
    pub fn is_building_many(&self) -> bool {
        self.bulks.values().any(Running::is_building)
    }

    /// A database is being filled, and is not there yet.
    #[must_use]
    pub fn is_building(&self) -> bool {
        let building = |key| self.tenants.get(key).is_some_and(|it| it.building.is_some());
        self.tenants.keys().into_iter().any(building)
    }
}
