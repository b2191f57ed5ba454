//! How answers leave: parts, whole ones, problems; what has been sent, and buffers that come back.

use storage::io::{Instant, Io};
use storage::ledger::{self, AccountId, Kind};
use storage::sometimes;
use tenant::budget::Part;
use tenant::{Key, KeyScope, Refusal, RequestId};

use super::admin::{FIRST_KEY, Pending};
use super::{Server, key_of, on_received, on_sent, request_id, token_of};
use crate::connection::{Exchange, Phase};
use crate::control;
use crate::control::keys::TokenWanted;
use crate::control::uploads;
use crate::http::response::{CrossOrigin, ResponseHead, write_problem};
use crate::http::{TenantName, Version, chunked};
use crate::limits;
use crate::problem::Problem;
use crate::work::Asked;

impl Server {
    pub(super) fn on_part<I: Io<Server>>(&mut self, io: &mut I, key: Key, mut part: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(key) else {
            sometimes!("a part of an answer comes too late for its client");
            // It went while its request still waited for the database to open: there was no job to
            // cancel then, and now there is one that waits for this part to leave.
            self.engine.cancel(request_id(key));
            return self.recycle(part);
        };
        // Its fiber waits until it has left, and has it booked: the first bytes here, the rest there.
        connection.tenant_bytes = part.capacity();
        let exchange = &mut connection.exchange;
        if exchange.version == Version::Http11 {
            chunked::frame(&mut part);
        }
        if !exchange.streamed {
            self.traffic.note_response(200, self.now.since(exchange.began));
            let mut head = ResponseHead::streamed(exchange.content_type, exchange.version);
            head.cross_origin = cross_origin(connection.admin);
            exchange.keep_alive &= exchange.version == Version::Http11 && self.stopping.is_none();
            head.keep_alive = exchange.keep_alive;
            head.prepend_to(&mut part, false, &mut self.scratch);
        }
        exchange.streamed = true;
        exchange.flushing = true;
        self.send(io, key, part);
    }

    pub(super) fn on_finished<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        mut asked: Box<Asked>,
    ) {
        let reply = asked.reply.take().expect("a request that has run has its reply");
        self.release_stranger(key);
        self.recycle(asked.request.take_buffer());
        if self.spare_asked.len() < limits::SPARE_BUFFERS_MAX {
            // Whose token it was is told nobody any more.
            asked.foreign = None;
            self.spare_asked.push(asked);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return self.recycle(reply.body);
        };
        connection.running_bytes = 0;
        let mut body = reply.body;
        let booked_bytes = usize::try_from(reply.booking.bytes()).unwrap_or(usize::MAX);
        connection.tenant_bytes = booked_bytes.min(body.capacity());
        connection.booking = Some(reply.booking);
        if connection.exchange.streamed && reply.status != 200 {
            sometimes!("an export breaks off after its status");
            return self.close(io, key);
        }
        if connection.exchange.streamed {
            if connection.exchange.version == Version::Http11 {
                chunked::frame_last(&mut body);
            }
        } else {
            let took_ns = self.now.since(connection.exchange.began);
            self.traffic.note_response(reply.status, took_ns);
            let mut head = ResponseHead::new(reply.status, reply.content_type, body.len());
            connection.exchange.keep_alive &= self.stopping.is_none();
            connection.exchange.pauses = is_for_load(reply.status);
            head.keep_alive = connection.exchange.keep_alive;
            head.retry_after_seconds = reply.retry_after_seconds;
            head.cross_origin = cross_origin(connection.admin);
            head.cost = Some(reply.cost);
            head.prepend_to(&mut body, connection.exchange.is_head, &mut self.scratch);
        }
        self.respond(io, key, body);
    }

    pub(super) fn on_refused<I: Io<Server>>(
        &mut self,
        io: &mut I,
        request: RequestId,
        refusal: &Refusal,
    ) {
        let key = key_of(request);
        let call = self.calls.remove(&request);
        if request == FIRST_KEY {
            tracing::error!("no first key could be made: give one with --root-key-file");
            self.ready = true;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.running_bytes = 0;
        let tenant = connection.exchange.tenant.as_ref();
        let (shape, call) = match call {
            Some(Pending::Shaped(shape, pending)) => (Some(shape), Some(*pending)),
            call => (None, call),
        };
        let name = match &call {
            Some(Pending::Call(call)) => control::refused(call, refusal).unwrap_or_default(),
            Some(Pending::Token(TokenWanted { scope: KeyScope::Database(name), .. })) => name,
            Some(Pending::Draft(..)) => tenant.map_or("", TenantName::as_str),
            Some(_) => "",
            None => tenant.map_or("", TenantName::as_str),
        };
        let problem = match &shape {
            Some(shape) => shape.problem(refusal, name),
            None => control::problem(refusal, name),
        };
        let broken = connection.broken_upload.take();
        if broken.is_some() || connection.upload.take().is_some() {
            sometimes!("an upload is refused before its end");
            connection.exchange.keep_alive = false;
            connection.drain_bytes = limits::UPLOAD_DRAIN_BYTES_MAX;
        }
        let problem = broken.unwrap_or(problem);
        if connection.upload_lines.is_some() && connection.exchange.streamed {
            let line = uploads::problem_line(&problem);
            drop(self.end_upload_lines(io, key, line));
            return;
        }
        connection.upload_lines = None;
        let not_its_own = match refusal {
            Refusal::Exceeded(exceeded) => exceeded.part == Part::Connections,
            // A stranger's connections are not the database's.
            Refusal::Unauthorised => true,
            _ => false,
        };
        if not_its_own {
            self.uncount(key);
        }
        if matches!(refusal, Refusal::Unauthorised) {
            self.on_failed_key(key);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.exchange.streamed {
            sometimes!("an answer breaks off after its status");
            // The status has left: only a broken end can say that this is not all.
            return self.close(io, key);
        }
        if matches!(refusal, Refusal::Unauthorised) && self.hold_refusal(key, &problem) {
            return;
        }
        self.answer_refusal(io, key, &problem);
    }

    /// Answer a request that the engine has refused.
    pub(super) fn answer_refusal<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        problem: &Problem,
    ) {
        let Some(connection) = self.connections.get(key) else { return };
        if !connection.admin {
            let took_ns = self.now.since(connection.exchange.began);
            self.traffic.note_response(problem.status, took_ns);
        }
        self.answer_problem(io, key, problem);
    }

    pub(super) fn answer_text<I: Io<Server>>(&mut self, io: &mut I, key: Key, text: &'static str) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.reader.finish();
        let mut body = self.spare.pop().unwrap_or_default();
        body.extend_from_slice(text.as_bytes());
        self.answer(io, key, "text/plain", body);
    }

    /// The same of each database, and of one that is not there.
    pub(super) fn answer_generation<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.reader.finish();
        self.answer(io, key, "application/json", br#"{"current_generation":1}"#.to_vec());
    }

    /// It lives; and where somebody measures, the longest stretch since the last question.
    pub(super) fn answer_health<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(longest_ns) = storage::stretch::take_longest_ns() else {
            return self.answer_text(io, key, "");
        };
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.reader.finish();
        self.answer(io, key, "text/plain", longest_ns.to_string().into_bytes());
    }

    pub(super) fn answer<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        content_type: &'static str,
        mut body: Vec<u8>,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut head = ResponseHead::new(200, content_type, body.len());
        connection.exchange.keep_alive &= self.stopping.is_none();
        head.keep_alive = connection.exchange.keep_alive;
        head.cross_origin = cross_origin(connection.admin);
        head.prepend_to(&mut body, connection.exchange.is_head, &mut self.scratch);
        self.respond(io, key, body);
    }

    pub(super) fn answer_preflight<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut body = self.spare.pop().unwrap_or_default();
        let request_head = connection.reader.head();
        let mut head = ResponseHead::new(200, "text/plain", 0);
        connection.exchange.keep_alive &= self.stopping.is_none();
        head.keep_alive = connection.exchange.keep_alive;
        head.cross_origin = CrossOrigin::Preflight(request_head.requested_headers());
        head.prepend_to(&mut body, false, &mut self.scratch);
        connection.reader.finish();
        self.respond(io, key, body);
    }

    pub(super) fn answer_problem<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        problem: &Problem,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.exchange.keep_alive &= !problem.close && self.stopping.is_none();
        connection.exchange.pauses = is_for_load(problem.status);
        let Exchange { keep_alive, is_head, .. } = connection.exchange;
        let mut out = self.spare.pop().unwrap_or_default();
        write_problem(&mut out, problem, keep_alive, is_head, cross_origin(connection.admin));
        self.traffic.note_refusal(problem.code);
        tracing::debug!(status = problem.status, code = problem.code, "{}", problem.log);
        self.respond(io, key, out);
    }

    /// Answer a violation of the protocol; nothing after it can be read.
    pub(super) fn refuse<I: Io<Server>>(&mut self, io: &mut I, key: Key, problem: &Problem) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        sometimes!("a violation of the protocol is refused");
        if !connection.reader.has_head() {
            connection.exchange = Exchange::unknown();
        }
        connection.exchange.keep_alive = false;
        connection.drain_bytes = limits::DRAIN_BYTES_MAX;
        self.answer_problem(io, key, problem);
    }

    /// The rest of the response.
    pub(super) fn respond<I: Io<Server>>(&mut self, io: &mut I, key: Key, bytes: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.phase = Phase::Responding;
        connection.close_after = !connection.exchange.keep_alive;
        self.send(io, key, bytes);
    }

    pub(super) fn send<I: Io<Server>>(&mut self, io: &mut I, key: Key, bytes: Vec<u8>) {
        self.set_deadline(key, self.now.after(limits::SEND_STALL_NS));
        let Some(connection) = self.connections.get_mut(key) else { return };
        if bytes.is_empty() && !connection.sending && connection.out.is_empty() {
            return self.all_sent(io, key, bytes);
        }
        if connection.sending || !connection.out.is_empty() {
            // Only a `100 Continue` can still be on its way.
            connection.next_out.extend_from_slice(&bytes);
            return self.recycle(bytes);
        }
        connection.out = bytes;
        connection.out_sent = 0;
        self.flush(io, key);
    }

    /// Send what is there, if nothing is being sent.
    pub(super) fn flush<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.sending {
            return;
        }
        if connection.out_sent < connection.out.len() {
            connection.sending = true;
            let bytes = std::mem::take(&mut connection.out);
            connection.lent_bytes[1] = bytes.capacity();
            let offset = connection.out_sent;
            connection.book();
            io.send(token_of(key), connection.socket, bytes, offset, on_sent::<I>);
            return;
        }
        if connection.out_sent > 0 {
            let mut done =
                std::mem::replace(&mut connection.out, std::mem::take(&mut connection.next_out));
            connection.out_sent = 0;
            done.clear();
            if !connection.out.is_empty() {
                self.recycle(done);
                return self.flush(io, key);
            }
            self.all_sent(io, key, done);
        }
    }

    /// Everything that was to be sent has left.
    pub(super) fn all_sent<I: Io<Server>>(&mut self, io: &mut I, key: Key, mut buffer: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.release_tenant();
        if connection.phase == Phase::Running {
            buffer.shrink_to(limits::RECEIVE_BYTES_KEPT);
            connection.running_bytes = connection.request_bytes + buffer.capacity();
            self.set_deadline(key, Instant(u64::MAX));
            let connection = self.connections.get_mut(key).expect("looked at just now");
            if std::mem::take(&mut connection.exchange.flushing) {
                self.engine.flushed(request_id(key), buffer);
            }
            return;
        }
        self.recycle(buffer);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase != Phase::Responding {
            return;
        }
        if connection.close_after {
            if connection.drain_bytes == 0 {
                return self.close(io, key);
            }
            io.shutdown(connection.socket);
            connection.phase = Phase::Draining;
            self.set_deadline(key, self.now.after(limits::DRAIN_NS));
            self.touched.push_back(key);
            return;
        }
        if connection.exchange.pauses {
            sometimes!("a connection whose request was refused for load is not read for a while");
            connection.phase = Phase::Pausing;
            return self.set_deadline(key, self.now.after(limits::REFUSED_PAUSE_NS));
        }
        self.read_on(key);
    }

    /// The next request may come.
    pub(super) fn read_on(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.phase = Phase::Reading;
        connection.waiting_bytes = false;
        self.set_deadline(key, self.now.after(limits::KEEP_ALIVE_NS));
        self.touched.push_back(key);
    }

    pub(super) fn drain<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.receiving {
            return;
        }
        if connection.ended || connection.drain_bytes == 0 {
            return self.close(io, key);
        }
        connection.receiving = true;
        let buffer = Vec::with_capacity(limits::RECEIVE_BYTES);
        connection.lent_bytes[0] = buffer.capacity();
        connection.book();
        io.receive(token_of(key), connection.socket, buffer, on_received::<I>);
    }

    /// A buffer of a closed connection has come back from the Io.
    pub(super) fn on_orphan(&mut self, buffer: Vec<u8>) {
        self.orphans -= 1;
        ledger::credit(AccountId::CONNECTIONS, Kind::Buffer, buffer.capacity() as u64);
        self.recycle(buffer);
    }

    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < limits::SPARE_BUFFERS_MAX && buffer.capacity() > 0 {
            buffer.clear();
            buffer.shrink_to(limits::RECEIVE_BYTES_KEPT);
            self.spare.push(buffer);
        }
    }
}

/// A budget or an overload is why.
fn is_for_load(status: u16) -> bool {
    matches!(status, 429 | 503)
}

pub(super) fn cross_origin(admin: bool) -> CrossOrigin<'static> {
    if admin { CrossOrigin::Refused } else { CrossOrigin::Allowed }
}
