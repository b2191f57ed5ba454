//! What a job sees of the engine from its fiber.

use storage::fiber::{self, Handle};

use crate::access::{Denials, Holder, Proven, Scope};
use crate::budget::{Priority, RequestLimits};
use crate::export::{self, ExportError, ExportFormat};
use crate::import::Progress;
use crate::session::{PooledConnection, Session};
use crate::settings::PublicKey;
use crate::statement::{Gone, JobHost, StreamError, Ticket};

/// Work for a tenant, run on a fiber. The server's jobs decode a request, run its statements and
/// encode the reply.
pub trait Job: 'static {
    /// What the job ends with.
    type Reply: 'static;
    /// Bytes of the request that it comes from.
    fn request_bytes(&self) -> u64;
    /// Clients' connections to its tenant, if the one that it came by is new among them.
    fn connections(&self) -> Option<u64> {
        None
    }
    /// What the request says of its own urgency. It cannot rise above its tenant's, which it has
    /// where it says nothing.
    fn priority(&self) -> Option<Priority> {
        None
    }
    /// It writes the database to a client from one snapshot, for as long as that takes.
    fn exports(&self) -> bool {
        false
    }
    /// How long it may run, if not as long as its tenant's budget gives a request: the engine's own work
    /// for a tenant may take longer than any client waits.
    fn run_ns(&self) -> Option<u64> {
        None
    }
    /// The hash of a token that a key of the database itself may have signed, if it comes with one.
    fn foreign_token(&self) -> Option<&[u8; 32]> {
        None
    }
    /// What that token may, if one of these keys has signed it. The rights' scope is `holder`, whose keys
    /// they are.
    fn prove(&self, holder: Scope, keys: &[PublicKey]) -> Option<Proven> {
        let _ = (holder, keys);
        None
    }
    /// Do it. May suspend in every call to `host` and to its streams.
    fn run(self, host: &mut JobContext<'_>) -> Self::Reply;
}

/// What a fiber asks its engine.
pub enum Ask {
    /// A connection for a new stream.
    Open,
    /// The new stream's connection could not be opened: it does not count.
    OpenFailed,
    /// The stream parked under a ticket.
    Resume(Ticket),
    /// A ticket for the stream in use.
    Promise,
    /// Keep a stream for later.
    Park(Box<Session>),
    /// A stream has ended; its connection is free. Comes back if it must be closed.
    Close(PooledConnection, Option<Ticket>),
    /// Send a part of the response.
    Flush(Vec<u8>),
    /// The next piece of the request's body, into this empty buffer.
    Receive(Vec<u8>),
    /// Wait for a checkpoint, if one is due.
    Pause,
    /// Tell who asked how far it is.
    Tell(Progress),
    /// So many pages of so many are in the copy.
    Copied(u32, u32),
    /// From now on, the volume of the other database: the copy's, or again the original's.
    Switch,
}

/// What the engine answers.
pub enum Reply {
    /// To [`Ask::Open`]: an idle connection, or none: open one.
    Connection(Result<Option<PooledConnection>, StreamError>),
    /// To [`Ask::Resume`].
    Stream(Result<Box<Session>, StreamError>),
    /// To [`Ask::Promise`] and [`Ask::Park`].
    Ticket(Ticket),
    /// To [`Ask::Close`]: the connection, if nobody wants it.
    Closed(Option<PooledConnection>),
    /// To [`Ask::Flush`].
    Flushed(Result<Vec<u8>, Gone>),
    /// To [`Ask::Receive`].
    Received(Result<Option<Vec<u8>>, Gone>),
    /// To [`Ask::OpenFailed`], [`Ask::Switch`], [`Ask::Pause`], [`Ask::Tell`] and
    /// [`Ask::Copied`].
    Done,
}

/// The engine as a running job sees it.
pub struct JobContext<'a> {
    handle: &'a Handle<'a, Ask, Reply>,
    tenant_id: u64,
    /// What held for the tenant when the job began.
    limits: RequestLimits,
    permit: Permit,
}

/// What a job was let in with.
pub struct Permit {
    /// Who holds its rights.
    pub(super) holder: Holder,
    /// The most urgent that it may be.
    pub(super) priority: Option<Priority>,
    /// What its statements may not do, if anything.
    pub(super) denials: Option<Box<Denials>>,
    /// What it may cost, in parts of a million of a request unit, whatever it asks for.
    pub(super) cost_max: Option<u64>,
}

impl<'a> JobContext<'a> {
    pub(super) fn new(
        handle: &'a Handle<'a, Ask, Reply>,
        tenant_id: u64,
        limits: RequestLimits,
        permit: Permit,
    ) -> JobContext<'a> {
        JobContext { handle, tenant_id, limits, permit }
    }

    pub(super) fn ask(&self, ask: Ask) -> Reply {
        self.handle.ask(ask)
    }

    /// The stream for this job, under its limits and rights.
    fn lend(&self, session: Session) -> Session {
        let Permit { holder, denials, cost_max, .. } = &self.permit;
        session.under(&self.limits, *holder, denials.clone(), *cost_max)
    }
}

impl JobContext<'_> {
    /// Write the database to the client, part by part: what is left at the end. `out` is an empty buffer.
    ///
    /// # Errors
    /// Why it ends before it is whole.
    pub fn export(&mut self, format: ExportFormat, out: Vec<u8>) -> Result<Vec<u8>, ExportError> {
        // What is in the write-ahead log now would stay there for as long as this takes.
        self.ask(Ask::Pause);
        let mut session = self.open_stream().map_err(ExportError::Stream)?;
        let denials = self.permit.denials.clone();
        let mut flush = |part| self.flush(part);
        let pooled = &mut session.pooled;
        let written = export::export(pooled, format, denials.as_deref(), out, &mut flush);
        self.close(session);
        written
    }
}

impl JobHost for JobContext<'_> {
    type Stream = Session;

    fn open_stream(&mut self) -> Result<Session, StreamError> {
        let Reply::Connection(connection) = self.handle.ask(Ask::Open) else {
            unreachable!("a connection was asked for")
        };
        if let Some(pooled) = connection? {
            return Ok(self.lend(Session::new(pooled, &self.limits)));
        }
        PooledConnection::open_stream().map_or_else(
            |error| {
                self.handle.ask(Ask::OpenFailed);
                Err(error)
            },
            |pooled| Ok(self.lend(Session::new(pooled, &self.limits))),
        )
    }

    fn resume_stream(&mut self, ticket: Ticket) -> Result<Session, StreamError> {
        match self.handle.ask(Ask::Resume(ticket)) {
            Reply::Stream(stream) => stream.map(|stream| self.lend(*stream)),
            _ => unreachable!("a stream was asked for"),
        }
    }

    fn promise(&mut self, stream: &mut Session) -> Ticket {
        if let Some(ticket) = stream.promised {
            return ticket;
        }
        match self.handle.ask(Ask::Promise) {
            Reply::Ticket(ticket) => {
                stream.promised = Some(ticket);
                ticket
            }
            _ => unreachable!("a ticket was asked for"),
        }
    }

    fn park(&mut self, stream: Session) -> Ticket {
        match self.handle.ask(Ask::Park(Box::new(stream))) {
            Reply::Ticket(ticket) => ticket,
            _ => unreachable!("a ticket was asked for"),
        }
    }

    fn close(&mut self, stream: Session) {
        let Session { mut pooled, promised, .. } = stream;
        pooled.roll_back();
        match self.handle.ask(Ask::Close(pooled, promised)) {
            Reply::Closed(unwanted) => drop(unwanted),
            _ => unreachable!("a stream was closed"),
        }
    }

    fn flush(&mut self, part: Vec<u8>) -> Result<Vec<u8>, Gone> {
        match self.handle.ask(Ask::Flush(part)) {
            Reply::Flushed(result) => result,
            _ => unreachable!("a part was flushed"),
        }
    }

    fn tenant_id(&self) -> u64 {
        self.tenant_id
    }

    fn response_bytes_max(&self) -> u64 {
        self.limits.response_bytes
    }

    fn now_ns(&self) -> u64 {
        fiber::now().0
    }
}
