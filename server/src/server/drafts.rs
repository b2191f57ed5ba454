//! Drafts: databases that are created first and sent afterwards, in several requests, as the `turso` CLI does.
//!
//! ```text
//! POST …/databases {"seed":{"type":"database_upload"}}   the database, which is being built from then on
//! PUT  /v2/upload/start {"db_size_bytes":N}              {"upload_id","chunk_size"}: on the address for SQL
//! PUT  /v2/upload/{id}/chunk/{n}                         {}: its n-th piece, from 0, in order
//! PUT  /v2/upload/{id}/finalize                          {}: it is checked, and there
//! ```
//!
//! A draft is an upload like any other (`uploads`), asked for by a request of the server's own, so that it
//! outlives each of the client's. Of its body the engine is handed what the chunk brings that comes at the
//! moment. A chunk that broke off is sent again from its beginning; what of it has arrived is passed over.
//! One that was taken already is taken again, and nothing is done with it.
//!
//! Each of these requests takes the role write on the database; the engine says so before a byte of a chunk
//! is read. A draft for which nothing comes for a while is given up, as an upload that broke off is: its
//! name is free then. Nothing of it outlives the server.

use std::collections::BTreeMap;

use storage::io::{Instant, Io};
use storage::sometimes;
use tenant::access::{Access, Credential};
use tenant::{ControlCall, ControlReply, DatabaseRow, Gone, Key, Refusal, RequestId, RowState};

use super::admin::Pending;
use super::{Server, buffers_full, free_bytes, request_id};
use crate::auth::{Place, rights};
use crate::connection::{Phase, Upload};
use crate::control::uploads;
use crate::http::response::CONTINUE;
use crate::http::{BodyFraming, Endpoint, TenantName, UploadStep, route};
use crate::limits;
use crate::problem::Problem;

/// Set in the number of each draft's request; no connection's and no job's has it.
const OWN: RequestId = 1 << 30;

/// Drafts by their requests, oldest first.
#[derive(Default)]
pub(super) struct Drafts {
    all: BTreeMap<RequestId, Draft>,
    requests: u64,
}

/// A database that is being sent.
struct Draft {
    name: TenantName,
    /// Tells this upload from others of the name.
    id: u128,
    /// Who has created it, and was not answered yet.
    creator: Option<Key>,
    /// The engine asks for the next piece.
    wants: bool,
    /// The chunk that is next, and how much of it has arrived.
    chunk: u64,
    chunk_bytes: u64,
    /// Who sends that.
    sender: Option<Key>,
    /// Who waits for its end.
    finalizer: Option<Key>,
    /// Its sender has said that it begins.
    started: bool,
    /// When it is given up, if nothing comes.
    deadline: Instant,
}

/// A chunk on its way.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// The draft's request.
    draft: RequestId,
    /// Bytes of it that have arrived before.
    passed_over: u64,
}

impl Drafts {
    fn find(&self, name: &str, id: u128) -> Option<RequestId> {
        let mut all = self.all.iter();
        let found = all.find(|(_, draft)| draft.name.as_str() == name && draft.id == id);
        found.map(|(request, _)| *request)
    }

    /// When the next one is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.all.values().filter(|draft| draft.waits());
        waiting.map(|draft| draft.deadline).min()
    }
}

impl Draft {
    /// It is its client's turn, and nothing comes.
    fn waits(&self) -> bool {
        self.wants && self.sender.is_none() && self.finalizer.is_none()
    }
}

/// Whether a request is a draft's.
pub(super) fn is_own(request: RequestId) -> bool {
    request & (OWN | 1 << 31) == OWN
}

impl Server {
    /// A database is created that is to be sent: the number of the request that asks for it.
    pub(super) fn begin_draft<I: Io<Server>>(
        &mut self,
        io: &mut I,
        creator: Key,
        name: &str,
    ) -> RequestId {
        let mut chance = [0; 16];
        io.fill(&mut chance);
        self.drafts.requests += 1;
        let request = (self.drafts.requests & u64::from(u32::MAX)) << 32 | OWN;
        let draft = Draft {
            name: TenantName::new(name).expect("it was read as one"),
            id: u128::from_be_bytes(chance),
            creator: Some(creator),
            wants: false,
            chunk: 0,
            chunk_bytes: 0,
            sender: None,
            finalizer: None,
            started: false,
            deadline: self.now.after(limits::DRAFT_STALL_NS),
        };
        self.drafts.all.insert(request, draft);
        request
    }

    /// The engine asks for more of a draft.
    pub(super) fn on_draft_wants<I: Io<Server>>(&mut self, io: &mut I, request: RequestId) {
        let Some(draft) = self.drafts.all.get_mut(&request) else {
            return self.engine.supply(request, Err(Gone));
        };
        draft.wants = true;
        draft.deadline = self.now.after(limits::DRAFT_STALL_NS);
        let name = draft.name;
        if let Some(creator) = draft.creator.take() {
            // It has a row now: that is what its creator is answered with.
            let call = ControlCall::Show(name.as_str().to_owned());
            let credential = Credential::Access(Access::MACHINE);
            let needs = rights::of_call(&call);
            self.engine.control(request_id(creator), credential, needs, call);
        } else if let Some(sender) = draft.sender {
            self.feed_chunk(io, sender);
        } else if draft.finalizer.is_some() {
            draft.wants = false;
            self.engine.supply(request, Ok(None));
        }
    }

    /// A draft will be no database.
    pub(super) fn on_draft_refused<I: Io<Server>>(
        &mut self,
        io: &mut I,
        request: RequestId,
        refusal: &Refusal,
    ) {
        let Some(draft) = self.drafts.all.remove(&request) else { return };
        if let Some(creator) = draft.creator {
            return self.on_refused(io, request_id(creator), refusal);
        }
        for key in [draft.sender, draft.finalizer].into_iter().flatten() {
            self.on_refused(io, request_id(key), refusal);
        }
    }

    /// A draft is a database.
    pub(super) fn on_draft_made<I: Io<Server>>(
        &mut self,
        io: &mut I,
        request: RequestId,
        reply: &ControlReply,
    ) {
        let Some(draft) = self.drafts.all.remove(&request) else { return };
        sometimes!("a database is made of chunks");
        let Some(key) = draft.finalizer else { return };
        self.calls.remove(&request_id(key));
        let imported = match reply {
            ControlReply::Imported(made) => uploads::imported(&made.1),
            _ => serde_json::Value::Null,
        };
        let body = serde_json::json!({ "imported": imported });
        self.answer(io, key, "application/json", body.to_string().into_bytes());
    }

    /// Drafts for which nothing has come for too long end. So do all when the server stops.
    pub(super) fn end_drafts(&mut self, all: bool) {
        for (request, draft) in &mut self.drafts.all {
            let late = draft.waits() && draft.deadline <= self.now;
            if !all && !late {
                continue;
            }
            if late {
                sometimes!("a draft is given up because nothing comes");
            }
            self.engine.cancel(*request);
            if std::mem::take(&mut draft.wants) {
                self.engine.supply(*request, Err(Gone));
            }
        }
    }

    /// A connection goes that sent a chunk or waited for an end.
    pub(super) fn leave_drafts(&mut self, key: Key) {
        for draft in self.drafts.all.values_mut() {
            let roles = [&mut draft.creator, &mut draft.sender, &mut draft.finalizer];
            for role in roles {
                if role.take_if(|other| *other == key).is_some() {
                    draft.deadline = self.now.after(limits::DRAFT_STALL_NS);
                }
            }
        }
    }

    // ---- requests ----

    /// The head of a request on the address for SQL is there: if it brings a chunk, its body is not held.
    pub(super) fn begin_chunk<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
    ) -> Result<bool, Problem> {
        let connection = self.connections.get_mut(key).expect("its head was read");
        let head = connection.reader.head();
        let Ok(routed) = route(&head) else { return Ok(false) };
        let (Endpoint::Upload(step @ UploadStep::Chunk(..)), Some(name)) =
            (routed.endpoint, routed.tenant)
        else {
            return Ok(false);
        };
        let closes = |problem| Problem { close: true, ..problem };
        let place = Place::Database(name.as_str());
        let claimed = self.claimed(io, key, place).map_err(closes)?;
        let connection = self.connections.get_mut(key).expect("its head was read");
        let head = connection.reader.head();
        let invited = head.expects_continue() && head.framing() != BodyFraming::Length(0);
        connection.reader.stream_body(limits::DRAFT_CHUNK_BYTES)?;
        if invited {
            connection.out.extend_from_slice(CONTINUE);
        }
        connection.in_body = false;
        connection.phase = Phase::Running;
        connection.upload = Some(Box::new(Upload::at(self.now, None)));
        self.traffic.requests += 1;
        self.judge_step(key, name, claimed.credential, Pending::Draft(step, 0));
        self.flush(io, key);
        Ok(true)
    }

    /// A request about a draft that is whole.
    pub(super) fn on_draft_step<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        step: UploadStep,
        name: TenantName,
    ) {
        let claimed = self.claimed(io, key, Place::Database(name.as_str()));
        let connection = self.connections.get_mut(key).expect("its request was read");
        let read = claimed.and_then(|claimed| {
            let body = connection.reader.body();
            Ok((claimed, if step == UploadStep::Start { size_of(body)? } else { 0 }))
        });
        connection.reader.finish();
        match read {
            Ok((claimed, bytes)) => {
                self.judge_step(key, name, claimed.credential, Pending::Draft(step, bytes));
            }
            Err(problem) => self.answer_problem(io, key, &problem),
        }
    }

    /// Ask the engine whether who asks has the database.
    fn judge_step(&mut self, key: Key, name: TenantName, credential: Credential, pending: Pending) {
        let connection = self.connections.get_mut(key).expect("its head was read");
        connection.exchange.tenant = Some(name);
        connection.exchange.began = self.now;
        self.set_deadline(key, Instant(u64::MAX));
        self.calls.insert(request_id(key), pending);
        let call = ControlCall::Show(name.as_str().to_owned());
        self.engine.control(request_id(key), credential, rights::UPLOAD, call);
    }

    /// Who asks has the database of this row.
    pub(super) fn on_draft_judged<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        (step, bytes): (UploadStep, u64),
        row: Option<&DatabaseRow>,
    ) {
        let done = match row.filter(|row| row.state == RowState::Building) {
            Some(row) => self.take_step(io, key, step, bytes, &row.name),
            None => Err(no_draft()),
        };
        match done {
            Ok(Some(body)) => self.answer(io, key, "application/json", body.into_bytes()),
            Ok(None) => {}
            Err(problem) => {
                let connection = self.connections.get_mut(key).expect("it asks");
                let problem = match connection.upload.take() {
                    Some(_) => {
                        connection.drain_bytes = limits::UPLOAD_DRAIN_BYTES_MAX;
                        Problem { close: true, ..problem }
                    }
                    None => problem,
                };
                self.answer_problem(io, key, &problem);
            }
        }
    }

    fn take_step<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        step: UploadStep,
        bytes: u64,
        name: &str,
    ) -> Result<Option<String>, Problem> {
        if step == UploadStep::Start {
            let draft = self.drafts.all.values_mut().find(|draft| draft.name.as_str() == name);
            let draft = draft.ok_or_else(no_draft)?;
            if bytes > tenant::limits::IMPORT_BYTES_MAX {
                return Err(Problem { close: false, ..uploads::too_large(bytes) });
            }
            if draft.chunk + draft.chunk_bytes > 0 {
                return Err(begun());
            }
            // Once: bytes keep it, words do not.
            if !std::mem::replace(&mut draft.started, true) {
                draft.deadline = self.now.after(limits::DRAFT_STALL_NS);
            }
            let chunk_size = limits::DRAFT_CHUNK_BYTES;
            let answer = serde_json::json!({ "upload_id": format!("{:032x}", draft.id), "chunk_size": chunk_size });
            return Ok(Some(answer.to_string()));
        }
        let (UploadStep::Chunk(id, _) | UploadStep::Finalize(id)) = step else {
            unreachable!("a start was looked at")
        };
        let request = self.drafts.find(name, id).ok_or_else(no_draft)?;
        let draft = self.drafts.all.get_mut(&request).expect("found just now");
        if draft.sender.is_some() || draft.finalizer.is_some() {
            return Err(busy());
        }
        let passed_over = match step {
            UploadStep::Chunk(_, number) if number == draft.chunk => draft.chunk_bytes,
            // Its answer was lost.
            UploadStep::Chunk(_, number) if number < draft.chunk => u64::MAX,
            UploadStep::Chunk(..) => return Err(out_of_order(draft.chunk)),
            _ => {
                draft.finalizer = Some(key);
                if std::mem::take(&mut draft.wants) {
                    self.engine.supply(request, Ok(None));
                }
                // A refusal finds its way by this.
                self.calls.insert(request_id(key), Pending::Draft(step, 0));
                self.watch(io, key);
                return Ok(None);
            }
        };
        match passed_over {
            0 => {}
            u64::MAX => sometimes!("a chunk that is there already comes again"),
            _ => sometimes!("a chunk goes on where it broke off"),
        }
        draft.sender = Some(key);
        self.calls.insert(request_id(key), Pending::Draft(step, 0));
        let connection = self.connections.get_mut(key).expect("it asks");
        let upload = connection.upload.as_mut().expect("a chunk is streamed");
        upload.chunk = Some(Chunk { draft: request, passed_over });
        upload.waits_since = self.now;
        self.feed_chunk(io, key);
        Ok(None)
    }

    /// Hand the engine what has arrived of a chunk, if it asks for that; else receive more.
    pub(super) fn feed_chunk<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            let Some(upload) = &mut connection.upload else { return };
            let Some(chunk) = &mut upload.chunk else { return };
            let request = chunk.draft;
            let Some(draft) = self.drafts.all.get_mut(&request) else { return };
            if connection.receiving || !draft.wants {
                return;
            }
            if upload.complete {
                if chunk.passed_over != u64::MAX {
                    draft.chunk += 1;
                    draft.chunk_bytes = 0;
                }
                draft.sender = None;
                connection.upload = None;
                connection.reader.finish();
                self.calls.remove(&request_id(key));
                return self.answer(io, key, "application/json", b"{}".to_vec());
            }
            let mut piece = self.spare.pop().unwrap_or_default();
            let taken = connection.reader.take_piece(&mut piece);
            let arrived = piece.len() as u64;
            upload.bytes += arrived;
            upload.complete = taken == Ok(true);
            let known = chunk.passed_over.min(arrived);
            piece.drain(..known as usize);
            if chunk.passed_over != u64::MAX {
                chunk.passed_over -= known;
            }
            if !piece.is_empty() {
                draft.chunk_bytes += piece.len() as u64;
                draft.wants = false;
                draft.deadline = self.now.after(limits::DRAFT_STALL_NS);
                self.set_deadline(key, Instant(u64::MAX));
                return self.engine.supply(request, Ok(Some(piece)));
            }
            let complete = upload.complete;
            let too_slow = upload.is_too_slow(self.now.since(upload.waits_since));
            let ended = connection.ended;
            let growth_bytes = connection.reader.growth_bytes() as u64;
            self.recycle(piece);
            let problem = match taken {
                Err(problem) => Some(problem),
                Ok(_) if complete => continue,
                Ok(_) if ended => Some(uploads::broken_off()),
                Ok(_) if growth_bytes > free_bytes(self.buffers_bytes_max) => {
                    Some(Problem { close: true, ..buffers_full() })
                }
                Ok(_) => too_slow.then(uploads::too_slow),
            };
            if let Some(problem) = problem {
                return self.break_chunk(io, key, &problem);
            }
            self.set_deadline(key, self.now.after(limits::UPLOAD_STALL_NS));
            return self.receive(io, key);
        }
    }

    /// What comes of a chunk ends here; it may be sent again.
    pub(super) fn break_chunk<I: Io<Server>>(&mut self, io: &mut I, key: Key, problem: &Problem) {
        self.leave_drafts(key);
        self.calls.remove(&request_id(key));
        let connection = self.connections.get_mut(key).expect("it sends a chunk");
        connection.upload = None;
        connection.drain_bytes = limits::UPLOAD_DRAIN_BYTES_MAX;
        self.answer_problem(io, key, problem);
    }
}

/// The size that a body announces.
fn size_of(body: &[u8]) -> Result<u64, Problem> {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = "the body must be an object with db_size_bytes, a number";
    value["db_size_bytes"].as_u64().ok_or_else(|| Problem::body(text))
}

fn no_draft() -> Problem {
    Problem::new(
        404,
        "UPLOAD_NOT_FOUND",
        "nothing is to be sent to this database, or not under this upload_id: create one with a seed of type \
         database_upload, and send it within two minutes",
    )
}

fn begun() -> Problem {
    Problem::new(
        409,
        "UPLOAD_BEGUN",
        "the upload has begun: go on with its chunks, or drop the database",
    )
}

fn busy() -> Problem {
    Problem::new(409, "UPLOAD_BUSY", "another request of this upload has not ended yet")
        .retry_after(1)
}

fn out_of_order(next: u64) -> Problem {
    let text = format!("chunks come in order, and the next one is {next}");
    Problem::detailed(409, "UPLOAD_OUT_OF_ORDER", "a chunk comes before its turn", text)
}
