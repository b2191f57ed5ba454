//! One connection: what it reads, what it is doing, what it has to send. Values only; the server
//! does the I/O.

use storage::io::{Instant, SocketId};
use storage::ledger::{self, AccountId, Booking, Kind};

use crate::http::{Head, Method, Multipart, RequestReader, TenantName, Version};
use crate::limits;
use crate::peers::PeerAddress;
use crate::problem::Problem;
use crate::server::Chunk;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading a request, or waiting for one.
    Reading,
    /// Its request is with the engine.
    Running,
    /// Its refusal is known, and leaves when its time has come.
    Withholding,
    /// Its response is being sent and is complete.
    Responding,
    /// Its request was refused for load: for a while nothing is read.
    Pausing,
    /// After a protocol error: the answer was sent, what still comes is thrown away.
    Draining,
}

/// What of the request is needed to write its response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Version of the request.
    pub version: Version,
    /// The connection stays open after the response.
    pub keep_alive: bool,
    /// HEAD: headers only.
    pub is_head: bool,
    /// It was refused for load.
    pub pauses: bool,
    /// A part of the response was sent already.
    pub streamed: bool,
    /// The engine waits for this part to leave.
    pub flushing: bool,
    /// Content type of a streamed response.
    pub content_type: &'static str,
    /// When the request for the engine was complete.
    pub began: Instant,
    /// The database that SQL is for; a refusal names it.
    pub tenant: Option<TenantName>,
}

impl Exchange {
    /// The exchange that this head begins.
    #[must_use]
    pub fn of(head: &Head<'_>) -> Exchange {
        Exchange {
            version: head.version(),
            keep_alive: head.keep_alive(),
            is_head: head.method() == Method::Head,
            pauses: false,
            streamed: false,
            flushing: false,
            content_type: "application/json",
            began: Instant(0),
            tenant: None,
        }
    }

    /// For an answer to what was not even a head.
    #[must_use]
    pub fn unknown() -> Exchange {
        Exchange {
            version: Version::Http11,
            keep_alive: false,
            is_head: false,
            pauses: false,
            streamed: false,
            flushing: false,
            content_type: "application/json",
            began: Instant(0),
            tenant: None,
        }
    }
}

/// See the head of the file.
pub struct Connection {
    /// Its socket.
    pub socket: SocketId,
    /// It came in on the admin address.
    pub admin: bool,
    /// Whose stranger it is: until a request on it has shown a good key, where one is asked for.
    pub stranger: Option<PeerAddress>,
    /// The database that its last request was for: it counts as a connection to that.
    pub database: Option<TenantName>,
    /// Its requests.
    pub reader: RequestReader,
    /// What it is doing.
    pub phase: Phase,
    /// The request being answered.
    pub exchange: Exchange,
    /// A receive is in flight.
    pub receiving: bool,
    /// A send is in flight.
    pub sending: bool,
    /// The peer sends no more.
    pub ended: bool,
    /// Received while a request ran: look at it when that is answered.
    pub waiting_bytes: bool,
    /// Bytes to send, if no send is in flight.
    pub out: Vec<u8>,
    /// How many of them have left.
    pub out_sent: usize,
    /// Bytes to send after those.
    pub next_out: Vec<u8>,
    /// Close once everything is sent.
    pub close_after: bool,
    /// What is still thrown away when draining, in bytes.
    pub drain_bytes: usize,
    /// When it is closed if nothing happens.
    pub deadline: Instant,
    /// When the server's timer looks at it.
    pub timer_at: Option<Instant>,
    /// Some of a head has come: what the reader holds is with the Io meanwhile.
    pub in_head: bool,
    /// The body has begun: another limit applies to it.
    pub in_body: bool,
    /// When it began.
    pub body_began: Instant,
    /// Bytes of the buffers that are with the Io: received into, and being sent.
    pub lent_bytes: [usize; 2],
    /// Bytes of the request that the engine has, and of the buffer that it writes the answer into.
    pub running_bytes: usize,
    /// Of them, those of the request.
    pub request_bytes: usize,
    /// Bytes of what is being sent that are booked on the database that they are from.
    pub tenant_bytes: usize,
    /// Those of a whole answer, until it has left. A part's are its fiber's.
    pub booking: Option<Booking>,
    /// Bytes that are booked for it.
    pub booked_bytes: u64,
    /// Its request's body is handed to the engine in pieces.
    pub upload: Option<Box<Upload>>,
    /// Lines are wanted about how far an upload is, and when the last one was sent.
    pub upload_lines: Option<Instant>,
    /// The answer to one who may not know what is there, until its time comes.
    pub held: Option<Box<Problem>>,
    /// What was wrong with that, to be told instead of what the engine makes of it.
    pub broken_upload: Option<Problem>,
}

/// A body that is handed to the engine in pieces.
#[derive(Debug)]
pub struct Upload {
    /// The engine asks for a piece, and gives this buffer for it.
    pub wanted: Option<Vec<u8>>,
    /// All of it has arrived.
    pub complete: bool,
    /// The chunk of a draft that it is, if it is one and may be sent.
    pub chunk: Option<Chunk>,
    /// The form that it is, if it is one.
    pub form: Option<Multipart>,
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Since when the engine has asked.
    pub waits_since: Instant,
    /// For how long it has waited before, in nanoseconds.
    pub waited_ns: u64,
}

impl Upload {
    /// One that begins.
    #[must_use]
    pub fn at(now: Instant, form: Option<Multipart>) -> Upload {
        let (chunk, wanted) = (None, None);
        Upload { wanted, complete: false, chunk, form, bytes: 0, waits_since: now, waited_ns: 0 }
    }

    /// Leave of a piece of a form what is of its file; `complete` if it was the last one.
    ///
    /// # Errors
    /// What is wrong with the form.
    pub fn unpack(&mut self, piece: &mut Vec<u8>, complete: bool) -> Result<bool, Problem> {
        if let Some(form) = &mut self.form {
            form.strip(piece)?;
            if complete {
                form.finish()?;
            }
        }
        Ok(complete)
    }

    /// So long was waited for it that it should have brought more.
    #[must_use]
    pub fn is_too_slow(&self, waited_ns: u64) -> bool {
        let late_ns = waited_ns.saturating_sub(limits::UPLOAD_PATIENCE_NS);
        let least = u128::from(late_ns) * u128::from(limits::UPLOAD_BYTES_PER_S) / 1_000_000_000;
        u128::from(self.bytes) < least
    }
}

impl Connection {
    /// Bytes held for it now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let [received, sent] = self.lent_bytes;
        let leaving = (self.out.capacity() + sent).saturating_sub(self.tenant_bytes);
        let wanted = self.upload.as_ref().and_then(|upload| upload.wanted.as_ref());
        let buffers = self.reader.held_bytes()
            + self.next_out.capacity()
            + wanted.map_or(0, |wanted| wanted.capacity());
        buffers + received + leaving + self.running_bytes
    }

    /// When a body that has come so far is too slow.
    #[must_use]
    pub fn body_deadline(&self) -> Instant {
        let bytes = self.reader.body_bytes() as u64;
        let earned_ns = bytes.saturating_mul(1_000_000_000) / limits::BODY_BYTES_PER_S;
        let time_ns = limits::BODY_PATIENCE_NS.saturating_add(earned_ns).min(limits::BODY_NS);
        self.body_began.after(time_ns)
    }

    /// Nothing of what is with the connection is booked elsewhere any more.
    pub fn release_tenant(&mut self) {
        self.tenant_bytes = 0;
        self.booking = None;
    }

    /// Bring its account up to date with what it holds.
    pub fn book(&mut self) {
        let (held, booked) = (self.held_bytes() as u64, self.booked_bytes);
        let account = AccountId::CONNECTIONS;
        if held == booked {
            return;
        }
        if held > booked {
            let fits = ledger::charge(account, Kind::Buffer, held - booked);
            assert!(
                fits,
                "the account of connections has no limit: what is refused is refused before"
            );
        } else {
            ledger::credit(account, Kind::Buffer, booked - held);
        }
        self.booked_bytes = held;
    }

    /// A connection that was just accepted.
    #[must_use]
    pub fn new(
        socket: SocketId,
        stranger: Option<PeerAddress>,
        admin: bool,
        buffer: Vec<u8>,
        deadline: Instant,
    ) -> Connection {
        Connection {
            socket,
            admin,
            stranger,
            database: None,
            reader: RequestReader::new(buffer),
            phase: Phase::Reading,
            exchange: Exchange::unknown(),
            receiving: false,
            sending: false,
            ended: false,
            waiting_bytes: false,
            out: Vec::new(),
            out_sent: 0,
            next_out: Vec::new(),
            close_after: false,
            drain_bytes: 0,
            deadline,
            timer_at: None,
            in_head: false,
            in_body: false,
            body_began: Instant(0),
            lent_bytes: [0; 2],
            running_bytes: 0,
            request_bytes: 0,
            tenant_bytes: 0,
            booking: None,
            booked_bytes: 0,
            upload: None,
            held: None,
            broken_upload: None,
            upload_lines: None,
        }
    }
}
