//! What each open tenant is doing and holds, as plain values, for reports.

use storage::TenantId;
use storage::io::Instant;
use storage::ledger;

use super::Engine;
use super::context::Job;
use super::life::Tenant;

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
    /// Fibers that run on it, and requests that wait for it to open.
    pub requests: usize,
    /// Fibers that wait for its writer lock.
    pub writers_waiting: usize,
    /// Streams in use or parked.
    pub streams: usize,
    /// When a request last came or ended.
    pub last_used: Instant,
}

impl<J: Job> Engine<J> {
    /// All tenants that are not cold, in the order of their places. Costs O(open tenants).
    #[must_use]
    pub fn tenant_views(&self) -> Vec<TenantView> {
        let keys = self.tenants.keys().into_iter();
        keys.filter_map(|key| self.tenants.get(key).map(view)).collect()
    }
}

pub(super) fn view<J>(tenant: &Tenant<J>) -> TenantView {
    let held = tenant.volume.as_ref().map_or([0; ledger::KINDS], |v| ledger::held(v.account()));
    TenantView {
        id: tenant.id,
        name: tenant.name.clone(),
        state: tenant.state(),
        held,
        requests: tenant.tasks + tenant.waiting_requests(),
        writers_waiting: tenant.writers.len(),
        streams: tenant.streams,
        last_used: tenant.last_used,
    }
}
