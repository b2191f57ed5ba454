//! Who has shown no good key yet: what is asked of them first, and when they are strangers no more.

use storage::io::Io;
use storage::sometimes;
use tenant::Key;

use super::Server;
use crate::auth::{Claimed, Place};
use crate::connection::Phase;
use crate::limits;
use crate::problem::Problem;

impl Server {
    /// What the request claims whose head was read.
    ///
    /// # Errors
    /// 401, in the same words whatever was wrong; 429 where too much was wrong from the same peer.
    pub(super) fn claimed<I: Io<Server>>(
        &mut self,
        io: &I,
        key: Key,
        place: Place<'_>,
    ) -> Result<Claimed, Problem> {
        let when = self.auth.when(self.now, io);
        let connection = self.connections.get(key).expect("its head was read");
        if let Some(peer) = connection.stranger
            && !self.peers.may_try(peer, self.now)
        {
            sometimes!("a stranger is not heard because of failures from the same peer");
            return Err(too_many_failures());
        }
        let claimed = self.auth.claimed(&connection.reader.head(), place, when);
        if claimed.is_err() {
            self.on_failed_key(key);
        }
        claimed
    }

    /// A key or token that this connection has shown is none.
    pub(super) fn on_failed_key(&mut self, key: Key) {
        let stranger = self.connections.get(key).and_then(|connection| connection.stranger);
        if let Some(peer) = stranger {
            self.peers.fail(peer, self.now);
        }
    }

    /// Who may not be told what is there is answered a fixed time after it has asked; true: later. What the
    /// engine looks at before it refuses differs: an open database is judged from memory, another one by a row
    /// of the catalogue that is there or not, and its keys may have to be tried.
    pub(super) fn hold_refusal(&mut self, key: Key, problem: &Problem) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let at = connection.exchange.began.after(limits::REFUSAL_NS);
        if at <= self.now {
            return false;
        }
        connection.held = Some(Box::new(problem.clone()));
        connection.phase = Phase::Withholding;
        self.set_deadline(key, at);
        true
    }

    /// The time of a refusal that was held back has come.
    pub(super) fn release_refusal<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let connection = self.connections.get_mut(key);
        let problem = connection.and_then(|connection| connection.held.take());
        self.answer_refusal(io, key, &problem.expect("it is withheld"));
    }

    /// This connection has shown a key or token that is good, or it goes.
    pub(super) fn release_stranger(&mut self, key: Key) {
        let stranger = self.connections.get_mut(key).and_then(|other| other.stranger.take());
        if let Some(peer) = stranger {
            self.peers.release(peer, self.now);
        }
    }
}

fn too_many_failures() -> Problem {
    Problem::new(
        429,
        "TOO_MANY_FAILURES",
        "too many requests from this address came without a valid token or key; try again later",
    )
    .retry_after(1)
}
