//! What the world itself knows to judge: who may be fenced, and that all ends once the faults do.
//!
//! - COR-1: a database is fenced only if the disk's ledger says that its file, or its pages in the
//!   log, were struck.
//! - LIVE-1: with the faults off, every request that was accepted ends within a bound that follows
//!   from the limits and from what is queued.

use server::limits::RESPONSE_BYTES_MAX;
use storage::TenantId;
use storage::io::Clock;
use tenant::limits::{LOG_WAIT_NS, REQUEST_NS, STREAM_IDLE_NS, WRITER_WAIT_NS};

use super::World;
use super::ground::NameSeen;
use super::model::{Violation, tenant_name};

/// Longest time of a dead connection, and of the last disk spikes: 60 s without a request, 30 s of a
/// response that nobody takes, and some seconds more.
const CONNECTION_NS: u64 = 120_000_000_000;

impl World {
    /// COR-1: the fences that clients have just heard of; and who cannot be read.
    pub(super) fn judge_fences(&mut self) -> Result<(), Violation> {
        for (tenant, seen) in std::mem::take(&mut self.ground.fences) {
            let Some(id) = self.id_of(tenant, seen) else { continue };
            if !self.io.disk().ledger().concerns(id) {
                let name = tenant_name(tenant);
                let text = format!("{name} ({}) is fenced, and nothing of it was struck", id.0);
                return Err(Violation::new("COR-1", text));
            }
        }
        for (tenant, seen) in std::mem::take(&mut self.ground.io_errors) {
            let Some(id) = self.id_of(tenant, seen) else { continue };
            let mut damages = self.io.disk().ledger().active();
            if damages.any(|damage| damage.tenants.contains(&id)) {
                self.ground.set_damaged(tenant);
            }
        }
        Ok(())
    }

    /// The id of an open database. Meanwhile it may be closed, or another one have its name: then
    /// there is nothing to say.
    fn id_of(&self, tenant: usize, seen: NameSeen) -> Option<TenantId> {
        let server = self.server.as_ref().filter(|_| self.ground.name(tenant) == seen)?;
        server.engine().tenant_id(&tenant_name(tenant))
    }

    /// Longest time of the largest response on the slowest network of this world: a window at a time,
    /// there and back, each at most five times the mean.
    fn transfer_ns(&self) -> u64 {
        let faults = &self.ground.options.faults;
        let windows = RESPONSE_BYTES_MAX as u64 / faults.window_bytes.low + 1;
        windows * 10 * faults.network_latency_mean_ns.high
    }

    /// Go on without faults until something is done; `what` is not, if that takes longer (LIVE-1).
    pub(super) fn go_on_until(
        &mut self,
        limit_ns: u64,
        is_done: impl Fn(&World) -> bool,
        what: impl Fn(&World) -> String,
    ) -> Result<(), Violation> {
        let begun = self.io.now();
        while !is_done(self) {
            self.tick()?;
            if self.io.now().since(begun) > limit_ns {
                let text = format!("without faults, {}", what(self));
                return Err(Violation::new("LIVE-1", text));
            }
        }
        Ok(())
    }

    /// LIVE-1: what was asked before the faults ended is answered.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        let waiting = |world: &World| world.clients.iter().map(|it| it.waiting()).sum::<usize>();
        // Each may wait for the log, for the writer, for one idle in a transaction, and then run;
        // at worst they are all of one database, and go one after the other.
        let each_ns =
            LOG_WAIT_NS + WRITER_WAIT_NS + STREAM_IDLE_NS + REQUEST_NS + self.transfer_ns();
        let (count, begun) = (waiting(self), self.io.now());
        let limit_ns = CONNECTION_NS + (count as u64 + 1) * each_ns;
        while waiting(self) > 0 {
            self.tick()?;
            if self.io.now().since(begun) > limit_ns {
                let oldest = self.clients.iter().find_map(|client| client.oldest());
                let text = format!("without faults, {count} waited; still waiting: {oldest:?}");
                return Err(Violation::new("LIVE-1", text));
            }
        }
        for client in &mut self.clients {
            client.leave(&mut self.io);
        }
        self.routes.clear();
        Ok(())
    }
}
