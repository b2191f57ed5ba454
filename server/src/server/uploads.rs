//! Requests whose bodies are too large to be held: they are handed to the engine in pieces, each when it
//! asks for one, so that what has not been asked for waits in the kernel and in the client.
//!
//! Such a request begins with its head: who asks is judged before a byte of its body is taken. While
//! the engine works on a piece nothing is received. A client that is too slow, or breaks HTTP, is told so
//! when the engine has given up what it had begun.

use storage::io::Io;
use storage::sometimes;
use tenant::{Gone, Key, Progress, RequestId};

use super::admin::Pending;
use super::{Server, buffers_full, free_bytes, key_of, request_id};
use crate::auth::{Place, rights};
use crate::connection::{Phase, Upload};
use crate::control::dumps::{self, Begun};
use crate::control::uploads;
use crate::http::response::CONTINUE;
use crate::http::{BodyFraming, Method, Version, chunked};
use crate::limits;
use crate::problem::Problem;

impl Server {
    /// The head of a request on the admin address is there: if its body is to be streamed, begin.
    pub(super) fn begin_upload<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
    ) -> Result<bool, Problem> {
        let connection = self.connections.get_mut(key).expect("its head was read");
        let head = connection.reader.head();
        if !connection.admin {
            let may_be = head.method() == Method::Put;
            return if may_be { self.begin_chunk(io, key) } else { Ok(false) };
        }
        if !dumps::is_streamed(&head) {
            return Ok(false);
        }
        let closes = |problem| Problem { close: true, ..problem };
        let claimed = self.claimed(io, key, Place::Control).map_err(closes)?;
        let connection = self.connections.get_mut(key).expect("its head was read");
        let head = connection.reader.head();
        let Begun { call, shape, form } = dumps::begin(&head, io).map_err(closes)?;
        let lines = uploads::wants_lines(&head);
        let bytes = match head.framing() {
            BodyFraming::Length(bytes) => bytes,
            BodyFraming::Chunked => 0,
        };
        if bytes > tenant::limits::IMPORT_BYTES_MAX {
            return Err(uploads::too_large(bytes));
        }
        let invited = head.expects_continue() && head.framing() != BodyFraming::Length(0);
        connection.reader.stream_body(tenant::limits::IMPORT_BYTES_MAX)?;
        if invited {
            connection.out.extend_from_slice(CONTINUE);
        }
        connection.in_body = false;
        connection.phase = Phase::Running;
        connection.exchange.began = self.now;
        connection.upload = Some(Box::new(Upload::at(self.now, form)));
        connection.upload_lines = lines.then_some(storage::io::Instant(0));
        self.traffic.requests += 1;
        let needs = rights::of_call(&call);
        let pending = Pending::Call(Box::new(call.clone()));
        let pending = match shape {
            Some(shape) => Pending::Shaped(shape, Box::new(pending)),
            None => pending,
        };
        self.calls.insert(request_id(key), pending);
        self.set_deadline(key, storage::io::Instant(u64::MAX));
        self.engine.control(request_id(key), claimed.credential, needs, call);
        self.flush(io, key);
        Ok(true)
    }

    /// The engine asks for the next piece of a body.
    pub(super) fn on_wants<I: Io<Server>>(
        &mut self,
        io: &mut I,
        request: RequestId,
        spare: Vec<u8>,
    ) {
        let key = key_of(request);
        let now = self.now;
        let upload =
            self.connections.get_mut(key).and_then(|connection| connection.upload.as_mut());
        let Some(upload) = upload else {
            sometimes!("an upload's client has gone before its body was asked for");
            self.recycle(spare);
            return self.engine.supply(request, Err(Gone));
        };
        upload.wanted = Some(spare);
        upload.waits_since = now;
        self.feed_upload(io, key);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.book();
        }
    }

    /// An upload is so far: say so, if that is wanted and the last time was a while ago.
    pub(super) fn on_upload_progress<I: Io<Server>>(
        &mut self,
        io: &mut I,
        request: RequestId,
        progress: Progress,
    ) {
        let (key, now) = (key_of(request), self.now);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(last) = connection.upload_lines else { return };
        // What a slow reader has not taken is not added to.
        let waits = connection.sending || !connection.out.is_empty() || connection.upload.is_some();
        if waits || last.after(limits::UPLOAD_LINE_NS) > now {
            return;
        }
        connection.upload_lines = Some(now);
        connection.exchange.content_type = uploads::LINES;
        self.on_part(io, key, uploads::progress_line(progress));
    }

    /// The end of an answer that began with lines; gives the body back if it did not.
    pub(super) fn end_upload_lines<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        mut body: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let connection = self.connections.get_mut(key)?;
        let streamed = connection.exchange.streamed;
        if connection.upload_lines.take().is_none() || !streamed {
            return Some(body);
        }
        body.push(b'\n');
        if connection.exchange.version == Version::Http11 {
            chunked::frame_last(&mut body);
        }
        self.respond(io, key, body);
        None
    }

    /// Hand the engine what has arrived, if it asks for that; else receive more.
    pub(super) fn feed_upload<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(upload) = &mut connection.upload else { return };
        if upload.chunk.is_some() {
            return self.feed_chunk(io, key);
        }
        if connection.receiving || upload.wanted.is_none() {
            return;
        }
        let request = request_id(key);
        if upload.complete {
            upload.wanted = None;
            connection.upload = None;
            connection.reader.finish();
            self.set_deadline(key, storage::io::Instant(u64::MAX));
            self.engine.supply(request, Ok(None));
            return self.watch(io, key);
        }
        let mut piece = upload.wanted.take().expect("looked at just now");
        let taken = connection.reader.take_piece(&mut piece);
        upload.bytes += piece.len() as u64;
        let taken = taken.and_then(|complete| upload.unpack(&mut piece, complete));
        let mut problem = match taken {
            Ok(complete) => {
                upload.complete = complete;
                let waited_ns = upload.waited_ns + self.now.since(upload.waits_since);
                if !piece.is_empty() {
                    upload.waited_ns = waited_ns;
                    self.set_deadline(key, storage::io::Instant(u64::MAX));
                    return self.engine.supply(request, Ok(Some(piece)));
                }
                upload.wanted = Some(piece);
                if complete {
                    return self.feed_upload(io, key);
                }
                upload.is_too_slow(waited_ns).then(uploads::too_slow)
            }
            Err(problem) => Some(problem),
        };
        let growth_bytes = connection.reader.growth_bytes() as u64;
        if problem.is_none() && growth_bytes > free_bytes(self.buffers_bytes_max) {
            sometimes!("an upload is given up because buffers are used up");
            problem = Some(Problem { close: true, ..buffers_full() });
        }
        if problem.is_some() || connection.ended {
            sometimes!("the body of an upload breaks off");
            let connection = self.connections.get_mut(key).expect("looked at just now");
            connection.upload = None;
            connection.broken_upload = Some(problem.unwrap_or_else(uploads::broken_off));
            return self.engine.supply(request, Err(Gone));
        }
        let deadline = self.now.after(limits::UPLOAD_STALL_NS);
        self.set_deadline(key, deadline);
        self.receive(io, key);
    }

    /// Nothing has come of an upload in its time: it is given up. False if none is waited for.
    pub(super) fn stall_upload<I: Io<Server>>(&mut self, io: &mut I, key: Key) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        // What it does not take of an answer is another matter.
        let waits = |upload: &mut Box<Upload>| upload.chunk.is_some() || upload.wanted.is_some();
        let sending = connection.sending;
        let Some(upload) = connection.upload.take_if(|upload| !sending && waits(upload)) else {
            return false;
        };
        if upload.chunk.is_some() {
            self.break_chunk(io, key, &uploads::too_slow());
            return true;
        }
        connection.broken_upload = Some(uploads::too_slow());
        self.set_deadline(key, storage::io::Instant(u64::MAX));
        self.engine.supply(request_id(key), Err(Gone));
        true
    }
}
