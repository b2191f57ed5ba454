//! What each open tenant is doing and holds, as plain values, for reports.

use storage::TenantId;
use storage::io::Instant;
use storage::ledger;
use storage::volume::Volume;

use super::Engine;
use super::budgets::Node;
use super::context::Job;
use super::life::Tenant;
use crate::budget::{Limits, Usage};

/// Where a tenant is in its life; one that is not listed is cold, or not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TenantState {
    /// Its row is being looked for, or its volume opened.
    Opening,
    /// Open, and nothing runs.
    Idle,
    /// Something runs on it.
    Running,
    /// A checkpoint is under way.
    Checkpointing,
    /// Its connections and files are being closed.
    Closing,
    /// It is damaged.
    Fenced,
    /// It was dropped, and is being ended.
    Dropped,
}

/// What a tenant was served since it was opened, counted apart from the schedulers. `aside`: what no
/// ceiling holds back, because others wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Nanoseconds of its turns.
    pub turns_ns: u64,
    /// Those of them that went first because of the tenant's own reservation.
    pub reserved_ns: u64,
    /// Nanoseconds aside of its turns.
    pub aside_ns: u64,
    /// Bytes of its reads and writes.
    pub transfer_bytes: u64,
    /// Bytes aside of those.
    pub aside_bytes: u64,
}

/// One open tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantView {
    /// Its id.
    pub id: TenantId,
    /// Its name; empty for the catalogue and for one that was dropped.
    pub name: Box<str>,
    /// Where it is in its life.
    pub state: TenantState,
    /// Its checkpoint runs: it may hold more memory than its budget, by
    /// [`limits::CHECKPOINT_EXTRA_BYTES`](crate::limits::CHECKPOINT_EXTRA_BYTES).
    pub checkpointing: bool,
    /// Bytes that it holds, by [`ledger::Kind`].
    pub held: [u64; ledger::KINDS],
    /// What it has used since it was created; counters that only grow.
    pub usage: Usage,
    /// Fibers that run on it, and requests that wait for it to open.
    pub requests: usize,
    /// Fibers that wait for its writer lock.
    pub writers_waiting: usize,
    /// Requests of its clients that wait or run.
    pub client_requests: usize,
    /// Streams in use or parked.
    pub streams: usize,
    /// What holds for it.
    pub limits: Limits,
    /// Its group and that one's organisation, if it has a place below them.
    pub chain: Vec<Node>,
    /// What it was served.
    pub served: Served,
    /// When a request last came or ended.
    pub last_used: Instant,
}

impl TenantView {
    /// Bytes of memory that it holds.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.held[..ledger::MEMORY_KINDS].iter().sum()
    }
}

impl<J: Job> Engine<J> {
    /// All tenants that are not cold, in the order of their places. Costs O(open tenants).
    #[must_use]
    pub fn tenant_views(&self) -> Vec<TenantView> {
        let keys = self.tenants.keys().into_iter();
        keys.filter_map(|key| Some(self.view(self.tenants.get(key)?))).collect()
    }

    /// Nanoseconds since the start that ceilings have delayed tenants' work. O(open tenants).
    #[must_use]
    pub fn throttled_ns_total(&self) -> u64 {
        let keys = self.tenants.keys().into_iter();
        let places = keys.filter_map(|key| self.tenants.get(key)?.place);
        let open: u64 = places.map(|place| self.throttled_ns(&place)).sum();
        self.counters.throttled_ns + open
    }

    pub(super) fn view(&self, tenant: &Tenant<J>) -> TenantView {
        let account = tenant.volume.as_ref().map(Volume::account);
        TenantView {
            id: tenant.id,
            name: tenant.name.clone(),
            state: tenant.state(),
            checkpointing: tenant.checkpointing,
            held: account.map_or([0; ledger::KINDS], ledger::held),
            usage: self.usage_of(tenant),
            requests: tenant.tasks + tenant.waiting_requests(),
            writers_waiting: tenant.writers.len(),
            client_requests: tenant.client_requests(),
            streams: tenant.streams,
            limits: tenant.limits,
            chain: if tenant.place.is_some() { tenant.chain.clone() } else { Vec::new() },
            served: tenant.served,
            last_used: tenant.last_used,
        }
    }
}
