//! Streams between requests: parked sessions, their tickets, expiry, and idle transactions.

use storage::fiber::Input;
use storage::io::Instant;
use storage::sometimes;

use super::context::{Job, Reply};
use super::tasks::{Kind, Work};
use super::{Engine, Timer};
use crate::access::Holder;
use crate::catalogue::DatabaseRow;
use crate::limits;
use crate::pool::Key;
use crate::session::{PooledConnection, Session};
use crate::statement::{SqlStream as _, StreamError, Ticket};

/// A ticket's stream.
pub(super) struct Stream {
    tenant: Key,
    state: State,
}

enum State {
    /// Nobody uses it, since then.
    Parked(Box<Session>, Instant),
    /// Somebody does, under a promised ticket; one more may wait for it.
    Busy(Option<Key>),
}

impl<J: Job> Engine<J> {
    fn new_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// A ticket for a stream that is in use.
    pub(super) fn promise_stream(&mut self, tenant: Key) -> Ticket {
        let ticket = self.new_ticket();
        self.streams.insert(ticket, Stream { tenant, state: State::Busy(None) });
        ticket
    }

    pub(super) fn park_stream(&mut self, tenant: Key, mut session: Box<Session>) -> Ticket {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.active -= 1;
        }
        let promised = session.promised.take();
        let ticket = promised.unwrap_or_else(|| self.new_ticket());
        let waiter = match self.streams.remove(&ticket) {
            Some(Stream { state: State::Busy(waiter), .. }) => waiter,
            Some(_) => unreachable!("a promised ticket's stream is busy"),
            None => None,
        };
        if let Some(task) = waiter
            && self.tasks.get(task).is_some()
        {
            sometimes!("a stream goes to the request that waits for it");
            self.take_up(tenant);
            self.wake(task, Input::Host(Reply::Stream(Ok(session))));
            return ticket;
        }
        let state = State::Parked(session, self.now);
        self.streams.insert(ticket, Stream { tenant, state });
        self.set_timer(limits::STREAM_IDLE_NS, Timer::StreamExpiry(ticket));
        let entry = self.tenants.get(tenant).filter(|tenant| !tenant.writers.is_empty());
        if let Some(idle_ns) = entry.map(|tenant| tenant.limits.transaction_idle_ns) {
            self.set_timer(idle_ns, Timer::TransactionIdle(tenant));
        }
        ticket
    }

    /// A parked stream is in use again.
    fn take_up(&mut self, tenant: Key) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.active += 1;
        }
    }

    /// The stream, or `None` if it is busy and the task waits for it.
    pub(super) fn resume_stream(
        &mut self,
        task: Key,
        tenant: Key,
        ticket: Ticket,
    ) -> Option<Result<Box<Session>, StreamError>> {
        let Some(stream) = self.streams.get_mut(&ticket) else {
            return Some(Err(StreamError::Unknown));
        };
        if stream.tenant != tenant {
            return Some(Err(StreamError::Unknown));
        }
        match &mut stream.state {
            State::Busy(waiter @ None) => {
                *waiter = Some(task);
                None
            }
            State::Busy(Some(_)) => Some(Err(StreamError::Unknown)),
            State::Parked(..) => match self.streams.remove(&ticket) {
                Some(Stream { state: State::Parked(session, _), .. }) => {
                    self.take_up(tenant);
                    Some(Ok(session))
                }
                _ => unreachable!("looked at just now"),
            },
        }
    }

    /// A stream in use is no more: who waits for it, under a promised ticket, waits in vain.
    fn end_stream(&mut self, tenant: Key, promised: Option<Ticket>) {
        if let Some(ticket) = promised
            && let Some(Stream { state: State::Busy(Some(task)), .. }) =
                self.streams.remove(&ticket)
        {
            self.wake(task, Input::Host(Reply::Stream(Err(StreamError::Unknown))));
        }
        let tenant = self.tenants.get_mut(tenant).expect("a task keeps its tenant");
        tenant.streams -= 1;
        tenant.active -= 1;
    }

    /// A stream has ended. Gives the connection back if the tenant has no use for it.
    pub(super) fn close_stream(
        &mut self,
        tenant_key: Key,
        pooled: PooledConnection,
        promised: Option<Ticket>,
    ) -> Option<PooledConnection> {
        self.end_stream(tenant_key, promised);
        let ending = self.doomed || self.is_stopping();
        let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
        if let Some(volume) = &mut tenant.volume {
            volume.locks.unreserve_writer(pooled.id());
        }
        let room = tenant.idle.len() < limits::IDLE_CONNECTIONS_MAX;
        if ending || tenant.ending || !room || !pooled.is_clean() {
            return Some(pooled);
        }
        let mut pooled = pooled;
        pooled.connection().forget_insert();
        pooled.set_read_only(false);
        while let Some(task) = tenant.openers.pop_front() {
            if self.tasks.get(task).is_some() {
                tenant.active += 1;
                let connection = Reply::Connection(Ok(Some(pooled)));
                self.wake(task, Input::Host(connection));
                return None;
            }
        }
        tenant.idle.push(pooled);
        None
    }

    /// Nobody came back for the stream.
    pub(super) fn stream_expired(&mut self, ticket: Ticket) {
        let parked =
            self.streams.get(&ticket).is_some_and(|s| matches!(s.state, State::Parked(..)));
        if parked {
            sometimes!("a stream expires");
            self.close_parked(ticket);
        }
    }

    /// Close a parked stream, on a fiber: it may have to roll back.
    fn close_parked(&mut self, ticket: Ticket) {
        let Some(Stream { tenant: key, state: State::Parked(session, _) }) =
            self.streams.remove(&ticket)
        else {
            unreachable!("the stream is parked")
        };
        if !session.is_autocommit() {
            sometimes!("a stream ends inside a transaction");
        }
        let Session { pooled, .. } = *session;
        self.start_aside(key, Work::Close(vec![pooled]));
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.streams -= 1;
        }
    }

    /// Take all parked streams' connections out, for a doomed world.
    pub(super) fn take_parked(&mut self) -> Vec<(Key, PooledConnection)> {
        let streams = std::mem::take(&mut self.streams);
        let parked = streams.into_values().filter_map(|stream| match stream.state {
            State::Parked(session, _) => {
                let Session { pooled, .. } = *session;
                Some((stream.tenant, pooled))
            }
            State::Busy(_) => None,
        });
        parked.collect()
    }

    /// Parked streams of rights that `ends` says are no more.
    pub(super) fn parked_by(
        &self,
        ends: &impl Fn(&Holder, Option<&DatabaseRow>) -> bool,
    ) -> Vec<Ticket> {
        let ended = |stream: &Stream| match &stream.state {
            State::Parked(session, _) => {
                let row = self.tenants.get(stream.tenant).and_then(|tenant| tenant.row.as_ref());
                ends(&session.holder, row)
            }
            State::Busy(_) => false,
        };
        let parked = self.streams.iter().filter(|(_, stream)| ended(stream));
        parked.map(|(&ticket, _)| ticket).collect()
    }

    /// Close every parked stream of the tenant.
    pub(super) fn close_streams_of(&mut self, tenant: Key) {
        let tickets: Vec<Ticket> = self
            .streams
            .iter()
            .filter(|(_, s)| s.tenant == tenant && matches!(s.state, State::Parked(..)))
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in tickets {
            self.close_parked(ticket);
        }
    }

    /// Somebody has waited for the writer lock for a while: if its holder is parked, it loses it.
    pub(super) fn transaction_idle(&mut self, tenant_key: Key) {
        if !self.is_writer_wanted(tenant_key) {
            return;
        }
        let Some(tenant) = self.tenants.get(tenant_key) else { return };
        let Some(volume) = &tenant.volume else { return };
        let holder = self.streams.iter().find_map(|(&ticket, stream)| match &stream.state {
            &State::Parked(ref session, since)
                if stream.tenant == tenant_key && Self::holds_writer(volume, session) =>
            {
                Some((ticket, since))
            }
            _ => None,
        });
        let Some((ticket, since)) = holder else { return };
        let idle_at = since.after(tenant.limits.transaction_idle_ns);
        if self.now < idle_at {
            // The timer is of somebody who waited for an earlier holder: this one is not idle yet.
            self.timers.insert((idle_at, Timer::TransactionIdle(tenant_key)));
            return;
        }
        let stream = self.streams.get_mut(&ticket).expect("found just now");
        let state = std::mem::replace(&mut stream.state, State::Busy(None));
        let State::Parked(session, _) = state else { unreachable!("found parked just now") };
        sometimes!("an idle transaction loses the writer lock");
        self.counters.transactions_timed_out += 1;
        self.take_up(tenant_key);
        let work = Work::RollBack(*session);
        let started = self.start_task(tenant_key, Kind::RollBack(ticket), work);
        assert!(started.is_some(), "no memory for the stack that rolls a transaction back");
    }

    /// `session` is `None` if its transaction could end only with its connection.
    pub(super) fn rolled_back(
        &mut self,
        tenant: Key,
        ticket: Ticket,
        session: Option<Box<Session>>,
    ) {
        let Some(mut session) = session else {
            sometimes!("a transaction ends only with its connection");
            return self.end_stream(tenant, Some(ticket));
        };
        session.timed_out = true;
        session.promised = Some(ticket);
        self.park_stream(tenant, session);
    }
}
