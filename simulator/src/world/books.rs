//! The books of a running server, looked at between its turns, and what it must have given back when
//! nobody wants anything of it any more.
//!
//! - MEM-1: each byte that SQLite and storage hold, by their allocators' own count, is on one account;
//!   each node of the tree of accounts holds the sum of those below it, and no more than its limit (or
//!   than it held when that was lowered); and there is one account per open volume: a cold tenant
//!   holds nothing (MEM-4).
//! - FD-1: the descriptions that the simulated disk has open for the server are those of its books, and
//!   each that a tenant holds is on its account.
//! - IO-3: operations in flight are those of its books.
//! - FAIR-2: no turn came later than the scheduler promises.
//! - LIVE-5: no writer is overtaken until it is told that the database is busy.
//! - FAIR-4: ceilings hold (`ceilings`).
//! - BOUND: what can grow stays within its limit (`Server::bounds`); what a budget bounds, where there
//!   are any, as `ceilings` says.
//! - MEM-6: with all clients gone there are no streams, tasks, queues, connections; only the catalogue
//!   is open, and the log keeps nothing for anybody else.

use server::limits::{ADMIN_CONNECTIONS_KEPT, CONNECTION_BYTES_MAX, CONNECTIONS_MAX};
use storage::io::{Clock, Io};
use storage::ledger;
use tenant::Gauge;

use super::ceilings::Ceilings;
use super::model::Violation;
use super::{EVENTS_MAX, World};

/// Open tenants up to which the books are looked at after every turn; beyond, every 64 turns, so
/// that a look stays a small part of a turn.
const TENANTS_PER_LOOK: usize = 48;

/// What a budget bounds, and may be beyond it since that was lowered.
const JUDGED_BY_CEILINGS: [&str; 2] = ["tenant_streams", "tenant_requests_waiting"];

/// Turns between two looks at the books of a server with more tenants.
const TURNS_PER_BOOK: u64 = 64;

/// Turns between two looks at who waits.
const TURNS_PER_LOOK: u64 = 256;

/// Longest simulated time that a request may wait for its answer while its connection lives. A
/// statement may run 30 s and wait 15 s for the writer, 5 s for the log; 16 clients queue up.
pub(super) const ANSWER_NS_MAX: u64 = 900_000_000_000;

/// Simulated time after which a server without clients is at rest: connections are kept for 60 s and
/// tenants for 60 s more, then they are checkpointed; disk spikes take up to 5 s.
const REST_NS_MAX: u64 = 400_000_000_000;

impl World {
    /// After a turn of a living server: do its books agree with the machine's?
    pub(super) fn check_books(&mut self) -> Result<(), Violation> {
        let server = self.server.as_ref().expect("a server runs");
        let engine = server.engine();
        if engine.open_tenants() > TENANTS_PER_LOOK && !self.turns.is_multiple_of(TURNS_PER_BOOK) {
            // What is served in between is not known.
            self.ceilings = Ceilings::default();
            return Ok(());
        }
        if let Some(text) = ledger::imbalance() {
            return Err(Violation::new("MEM-1", text));
        }
        let pairs = [
            ("MEM-1", "accounts", ledger::open_accounts(), "open volumes", engine.open_volumes()),
            (
                "FD-1",
                "descriptors on accounts",
                ledger::total()[ledger::Kind::Descriptor as usize] as usize,
                "open files of databases",
                engine.volume_files(),
            ),
            ("FD-1", "open files", self.io.server_file_count(), "booked", engine.open_files()),
            (
                "IO-3",
                "operations in flight",
                self.io.in_flight(),
                "booked",
                server.operations_in_flight(),
            ),
        ];
        for (property, what, count, other, booked) in pairs {
            if count != booked {
                let text = format!("{count} {what}, {booked} {other}");
                return Err(Violation::new(property, text));
            }
        }
        if engine.counters().late_turns > 0 {
            let text = "a turn came later than the scheduler promises".to_owned();
            return Err(Violation::new("FAIR-2", text));
        }
        if engine.counters().starved_writers > 0 {
            let text =
                "a writer was overtaken until it was told that the database is busy".to_owned();
            return Err(Violation::new("LIVE-5", text));
        }
        let budgets = self.ground.options.budgets > 0;
        let judged = |gauge: &Gauge| !(budgets && JUDGED_BY_CEILINGS.contains(&gauge.name));
        let passed = |gauge: &Gauge| gauge.used > gauge.limit && judged(gauge);
        match server.bounds().into_iter().find(passed) {
            None if budgets => self.ceilings.judge(&engine.tenant_views(), self.turn_at),
            None => Ok(()),
            Some(gauge) => {
                let text = format!("{}: {} of {}", gauge.name, gauge.used, gauge.limit);
                Err(Violation::new("BOUND", text))
            }
        }
    }

    /// What the monitor has seen; every few turns, who waits too long, and whether this ever ends.
    pub(super) fn look(&mut self) -> Result<(), Violation> {
        for (mark, at) in std::mem::take(&mut self.ground.acknowledged) {
            self.io.monitor_mut().acknowledged(&mark, at);
        }
        if let Some(violation) = self.io.monitor_mut().take_violation() {
            return Err(violation);
        }
        if !self.turns.is_multiple_of(TURNS_PER_LOOK) {
            return Ok(());
        }
        let now = self.io.awake();
        for client in &self.clients {
            if let Some(pending) = client.oldest()
                && now.since(pending.sent_at) > ANSWER_NS_MAX
            {
                let text = format!("client {} waits in vain: {pending:?}", client.id);
                return Err(Violation::new("LIVE-1", text));
            }
        }
        if self.io.trace().sequence() > EVENTS_MAX {
            return Err(Violation::new("LIVE-4", format!("more than {EVENTS_MAX} events")));
        }
        self.look_at_connections()
    }

    /// NET-1: connections are bounded in number, and each in what it holds.
    fn look_at_connections(&self) -> Result<(), Violation> {
        let Some(server) = &self.server else { return Ok(()) };
        let (count, bytes) = (server.connection_count(), server.connection_bytes_max());
        if count > CONNECTIONS_MAX + ADMIN_CONNECTIONS_KEPT {
            return Err(Violation::new("NET-1", format!("{count} connections")));
        }
        if bytes > CONNECTION_BYTES_MAX {
            return Err(Violation::new("NET-1", format!("a connection holds {bytes} bytes")));
        }
        Ok(())
    }

    /// MEM-6: all clients are gone; the server comes to rest, and is as if nobody had ever come.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        let begun = self.io.now();
        // Something must happen at the end of that time, or the clock would stand still. Client 0 has
        // no timer of number 0, so nobody heeds it.
        self.io.wake_at(begun.after(REST_NS_MAX + 1), 0);
        loop {
            let left = self.unrest();
            if left.iter().all(|(_, count)| *count == 0) {
                return Ok(());
            }
            if self.io.now().since(begun) > REST_NS_MAX {
                let left: Vec<_> = left.into_iter().filter(|(_, count)| *count > 0).collect();
                let text = format!("a server without clients still has {left:?}");
                return Err(Violation::new("MEM-6", text));
            }
            self.tick()?;
        }
    }

    fn unrest(&self) -> Vec<(&'static str, usize)> {
        let Some(server) = &self.server else { return Vec::new() };
        let engine = server.engine();
        vec![
            ("connections", server.connection_count()),
            ("streams", engine.parked_streams()),
            ("fibers", engine.running_tasks()),
            ("queued requests", engine.queued()),
            ("open databases beside the catalogue", engine.open_volumes().saturating_sub(1)),
            // A copy may stay in the log until the log wants its room.
            (
                "databases in the log beside the catalogue and unopened copies",
                engine.tenants_in_log().saturating_sub(engine.unopened_copies()),
            ),
            ("disk operations", engine.operations_in_flight()),
        ]
    }
}
