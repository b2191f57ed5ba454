//! One caller's way to the server: a request at a time, and what comes of it.
//!
//! Everybody in a world who asks one thing after the other, and waits for each answer, has a `Link`. It
//! owns the connection, the request in hand, and the timer that says when to ask again and when to give up.
//! What to ask, and what an answer means, is its owner's.
//!
//! ```text
//!   resting --(timer)--> Due --ask--> asking --(answer)------------------------> Answer
//!      ^                                |  `--(end, refusal, patience is over)--> Lost
//!      `-----------------rest-----------+<-------------------------------------------'
//! ```
//!
//! Whoever hears `Due`, `Answer` or `Lost` asks, rests, or is done ([`Asker`]). At most one request is in
//! hand, and an answer to none is an error (HTTP-1). A connection serves one request, unless it is to be kept.
//!
//! A connection is of one life of the server, and so is each answer that comes by it. That need not be the
//! life in which it was asked for: who connects while one ends is heard by the next.

use std::fmt::Debug;
use std::io::ErrorKind;

use memchr::memmem;
use storage::io::Clock;

use super::Sim;
use super::ground::Ground;
use super::model::Violation;
use crate::client::{Response, ResponseReader};
use crate::draws::{Span, Stream};
use crate::network::{ClientSocket, Wake};

/// Bits of a timer's tag that count the timers; those above are the owner's number.
const TIMER_BITS: u32 = 32;

/// Time between two requests.
const REST_NS: Span = Span::new(10_000_000, 10_000_000_000);

/// The same for who is in a hurry.
const HURRIED_REST_NS: u64 = 1_000_000_000;

const RECEIVE_BYTES: usize = 64 * 1024;

/// See the head of the file; `A` is what was asked.
pub(super) struct Link<A> {
    who: &'static str,
    id: u64,
    stream: Stream,
    /// The connection outlives an answer.
    keeps: bool,
    hurries: bool,
    timer: u32,
    wire: Option<Wire>,
    asked: Option<A>,
}

struct Wire {
    socket: ClientSocket,
    /// In which life of the server it was established, once it is.
    life: Option<u64>,
    outbox: Vec<u8>,
    reader: ResponseReader,
}

/// What a wake meant.
enum News<A> {
    /// It was somebody else's.
    Elsewhere,
    /// There is nothing to do.
    Nothing,
    /// It is time to ask.
    Due,
    /// What was asked was answered.
    Answer(Answer<A>),
    /// What was asked will not be answered.
    Lost(A),
}

/// An answer to a request of a [`Link`].
pub(super) struct Answer<A> {
    pub asked: A,
    pub response: Response,
    /// Which life of the server it is of.
    pub life: u64,
}

/// Who asks by a [`Link`], and what it makes of the answers.
pub(super) trait Asker {
    /// What is asked for, and what must be known of that when the answer comes.
    type Asked: Debug;

    /// By which it asks.
    fn link(&mut self) -> &mut Link<Self::Asked>;

    /// The time for the next request has come. Who asks nothing now is done.
    ///
    /// # Errors
    /// If what was heard up to its end cannot be.
    fn act(&mut self, sim: &mut Sim, ground: &mut Ground) -> Result<(), Violation>;

    /// There will be no answer: what was asked for may have been done, or be done yet.
    fn lose(&mut self, sim: &mut Sim, asked: Self::Asked);

    /// An answer has come; it may ask for something else at once.
    ///
    /// # Errors
    /// If the server answered what it must not.
    fn hear(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        answer: &Answer<Self::Asked>,
    ) -> Result<(), Violation>;

    /// Take a wake; whether it was this one's.
    ///
    /// # Errors
    /// As [`Asker::act`] and [`Asker::hear`].
    fn heed(&mut self, sim: &mut Sim, ground: &mut Ground, wake: Wake) -> Result<bool, Violation> {
        match self.link().heed(sim, wake)? {
            News::Elsewhere => return Ok(false),
            News::Nothing => {}
            News::Due => self.act(sim, ground)?,
            News::Lost(asked) => {
                self.lose(sim, asked);
                self.link().rest(sim);
            }
            News::Answer(answer) => {
                judge_damage(ground, &answer)?;
                self.hear(sim, ground, &answer)?;
                if self.link().asked.is_none() {
                    self.link().rest(sim);
                }
            }
        }
        Ok(true)
    }

    /// The faults have ended: from now on rests are short, and what was asked for before is lost. Whether
    /// there was something.
    fn hurry(&mut self, sim: &mut Sim) -> bool {
        let link = self.link();
        link.hang_up(sim);
        link.hurries = true;
        let asked = link.asked.take();
        let had = asked.is_some();
        if let Some(asked) = asked {
            self.lose(sim, asked);
        }
        self.link().rest(sim);
        had
    }
}

/// COR-1, of databases that no model knows: nothing is damaged where nothing is struck.
fn judge_damage<A: Debug>(ground: &Ground, answer: &Answer<A>) -> Result<(), Violation> {
    let said = memmem::find(&answer.response.body, b"\"DATABASE_DAMAGED\"").is_some();
    let struck = ground.options.has_disk_errors() || !ground.swapped.is_empty();
    match said && !struck {
        true => {
            let text = format!("{:?} hears of damage, and nothing was struck", answer.asked);
            Err(Violation::new("COR-1", text))
        }
        false => Ok(()),
    }
}

impl<A: Debug> Link<A> {
    /// A link of `who`, whose timers carry the number `id` and whose rests come from `stream`.
    pub fn new(who: &'static str, id: u64, stream: Stream) -> Link<A> {
        Link { who, id, stream, keeps: false, hurries: false, timer: 0, wire: None, asked: None }
    }

    /// The same, whose connection is kept while it can be.
    pub fn kept(who: &'static str, id: u64, stream: Stream) -> Link<A> {
        Link { keeps: true, ..Link::new(who, id, stream) }
    }

    /// Nothing is under way, and there is no connection.
    pub fn is_idle(&self) -> bool {
        self.asked.is_none() && self.wire.is_none()
    }

    /// Ask again after a drawn time, or soon if it hurries.
    pub fn rest(&mut self, sim: &mut Sim) {
        let rest_ns = match self.hurries {
            false => sim.draws_mut().logarithmic(self.stream, 0, REST_NS),
            true => HURRIED_REST_NS,
        };
        self.rest_for(sim, rest_ns);
    }

    /// Ask again after this time.
    pub fn rest_for(&mut self, sim: &mut Sim, rest_ns: u64) {
        assert!(self.asked.is_none(), "an answer is awaited");
        self.set_timer(sim, rest_ns);
    }

    /// Send a request, and wait this long for its answer.
    pub fn ask(&mut self, sim: &mut Sim, address: &str, bytes: &[u8], patience_ns: u64, asked: A) {
        assert!(self.asked.is_none(), "one request at a time");
        sim.trace_mut().remark(|| format!("{} asks {asked:?}", self.who));
        let wire = self.wire.get_or_insert_with(|| Wire {
            socket: sim.client_connect(address.parse().expect("an address")),
            life: None,
            outbox: Vec::new(),
            reader: ResponseReader::default(),
        });
        wire.outbox.extend_from_slice(bytes);
        wire.reader.expect(false);
        self.asked = Some(asked);
        self.set_timer(sim, patience_ns);
        self.push(sim);
    }

    /// Take a wake: whose it is, and what follows from it.
    ///
    /// # Errors
    /// If the server's bytes are no answer.
    fn heed(&mut self, sim: &mut Sim, wake: Wake) -> Result<News<A>, Violation> {
        let socket = match wake {
            Wake::Timer(tag) if tag >> TIMER_BITS != self.id => return Ok(News::Elsewhere),
            Wake::Timer(tag) if tag as u32 != self.timer => return Ok(News::Nothing),
            Wake::Timer(_) => return Ok(self.lose(sim).map_or(News::Due, News::Lost)),
            Wake::Connected(socket)
            | Wake::Refused(socket)
            | Wake::Readable(socket)
            | Wake::Writable(socket) => socket,
        };
        let Some(wire) = self.wire.as_mut().filter(|wire| wire.socket == socket) else {
            return Ok(News::Elsewhere);
        };
        match wake {
            Wake::Refused(_) => return Ok(self.lose(sim).map_or(News::Nothing, News::Lost)),
            Wake::Connected(_) => wire.life = sim.life_of(socket),
            _ => {}
        }
        self.push(sim);
        self.pull(sim)
    }

    /// Let go of the connection.
    pub fn hang_up(&mut self, sim: &mut Sim) {
        if let Some(wire) = self.wire.take() {
            sim.client_close(wire.socket);
        }
    }

    fn set_timer(&mut self, sim: &mut Sim, after_ns: u64) {
        self.timer = self.timer.wrapping_add(1);
        let at = sim.now().after(after_ns);
        sim.wake_at(at, self.id << TIMER_BITS | u64::from(self.timer));
    }

    fn push(&mut self, sim: &mut Sim) {
        let Some(wire) = &mut self.wire else { return };
        while wire.life.is_some() && !wire.outbox.is_empty() {
            match sim.client_send(wire.socket, &wire.outbox) {
                Ok(count) => drop(wire.outbox.drain(..count)),
                // Full for now, or broken: receiving tells which.
                Err(_) => return,
            }
        }
    }

    fn pull(&mut self, sim: &mut Sim) -> Result<News<A>, Violation> {
        let mut answer = None;
        let life = self.wire.as_ref().and_then(|wire| wire.life);
        while let Some(wire) = &mut self.wire {
            let ended = match sim.client_receive(wire.socket, RECEIVE_BYTES) {
                Ok(bytes) if bytes.is_empty() => true,
                Ok(bytes) => {
                    wire.reader.push(&bytes);
                    false
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => true,
            };
            let response = wire.reader.next_response();
            let response = response.map_err(|error| Violation::new("HTTP-1", error.to_string()))?;
            let is_over = response.as_ref().is_some_and(|it| !self.keeps || it.closes);
            answer = response.or(answer);
            if ended || is_over {
                self.hang_up(sim);
            }
        }
        let Some(response) = answer else {
            return match self.wire {
                Some(_) => Ok(News::Nothing),
                None => Ok(self.asked.take().map_or(News::Nothing, News::Lost)),
            };
        };
        let asked = self.asked.take().expect("the reader takes no answer to nothing");
        let (who, status) = (self.who, response.status);
        sim.trace_mut().remark(|| {
            let text = String::from_utf8_lossy(&response.body);
            format!("{who} hears {status} to {asked:?}: {text:.300}")
        });
        let life = life.expect("an answer comes by a connection");
        Ok(News::Answer(Answer { asked, response, life }))
    }

    /// The connection is gone, and the answer with it.
    fn lose(&mut self, sim: &mut Sim) -> Option<A> {
        self.hang_up(sim);
        self.asked.take()
    }
}
