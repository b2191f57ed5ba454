//! What each open tenant is doing and holds, as plain values, for reports.

use storage::TenantId;
use storage::io::Instant;
use storage::ledger;
use storage::volume::Volume;

use super::Engine;
use super::context::Job;
use super::life::Tenant;
use crate::budget::Usage;

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

/// One open tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantView {
    /// Its id.
    pub id: TenantId,
    /// Its name; empty for the catalogue and for one that was dropped.
    pub name: Box<str>,
    /// Where it is in its life.
    pub state: TenantState,
    /// Bytes that it holds, by [`ledger::Kind`].
    pub held: [u64; ledger::KINDS],
    /// What it has used since it was created; counters that only grow.
    pub usage: Usage,
    /// Fibers that run on it, and requests that wait for it to open.
    pub requests: usize,
    /// Fibers that wait for its writer lock.
    pub writers_waiting: usize,
    /// Streams in use or parked.
    pub streams: usize,
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

    /// Nanoseconds since the start that tenants' own ceilings have delayed them. O(open tenants).
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
            held: account.map_or([0; ledger::KINDS], ledger::held),
            usage: self.usage_of(tenant),
            requests: tenant.tasks + tenant.waiting_requests(),
            writers_waiting: tenant.writers.len(),
            streams: tenant.streams,
            last_used: tenant.last_used,
        }
    }
}
