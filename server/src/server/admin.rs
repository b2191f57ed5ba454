//! Requests on the admin address: who asks, what the engine is asked, and what each answer becomes.

use storage::io::{Clock, Io};
use storage::sometimes;
use tenant::access::{Access, Credential};
use tenant::{ControlCall, ControlReply, Gauge, Key, RequestId, Secret};

use super::{Server, key_of, request_id};
use crate::auth::{self, Claimed, Place, rights};
use crate::control::keys::{TokenWanted, Wanted};
use crate::control::top::Top;
use crate::control::{self, AdminRequest};
use crate::http::UploadStep;
use crate::metrics::{Gauges, metrics};
use crate::openapi;
use crate::platform::Shape;

/// The request of the server itself that makes its first key; no connection's has this number.
pub(super) const FIRST_KEY: RequestId = u64::MAX;

/// Requests of the server itself whose answers it does not wait for; no connection's has this number, and
/// no job's.
const NOBODY: RequestId = FIRST_KEY & !(1 << 31);

/// What a request on the admin address waits for.
pub(super) enum Pending {
    /// A call's answer.
    Call(Box<ControlCall>),
    /// The end of a call about many databases.
    Bulk,
    /// A step of a draft, with the size that it announces: whether it may be taken; and then, what comes of it.
    Draft(UploadStep, u64),
    /// A key, with its secret.
    Key(String),
    /// A token.
    Token(TokenWanted),
    /// Leave to see everything.
    Metrics,
    /// The same.
    Top(Top),
    /// The same.
    Diagnostics,
    /// One of these, in another tool's form.
    Shaped(Shape, Box<Pending>),
}

impl Pending {
    /// Whether it shows everything, as it is at the moment.
    pub(super) fn is_overview(&self) -> bool {
        matches!(self, Pending::Metrics | Pending::Top(_) | Pending::Diagnostics)
    }
}

impl Server {
    pub(super) fn on_admin_request<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let connection = self.connections.get_mut(key).expect("its request was read");
        let claimed = match control::is_open(&connection.reader.head()) {
            true => Ok(Claimed::OPEN),
            false => self.claimed(io, key, Place::Control),
        };
        let connection = self.connections.get_mut(key).expect("its request was read");
        let head = connection.reader.head();
        let routed = claimed
            .and_then(|claimed| Ok((claimed, control::route(&head, connection.reader.body())?)));
        if let Ok((claimed, AdminRequest::Export(name, format))) = routed {
            return self.export(io, key, claimed, (name, format));
        }
        let routed = routed.map(|(claimed, request)| (claimed.credential, request));
        connection.reader.finish();
        match routed {
            Ok((_, AdminRequest::Health)) => self.answer(io, key, "text/plain", Vec::new()),
            Ok((_, AdminRequest::Version)) => {
                self.answer(io, key, "text/plain", VERSION_TEXT.as_bytes().to_vec());
            }
            Ok((_, AdminRequest::OpenApi)) => {
                self.answer(io, key, "application/json", openapi::document());
            }
            Ok((credential, request)) => self.ask_engine(io, key, credential, request),
            Err(problem) => self.answer_problem(io, key, &problem),
        }
    }

    /// Let the engine say whether a request on the admin address may, and carry it out.
    pub(super) fn ask_engine<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        credential: Credential,
        request: AdminRequest,
    ) {
        let (request, form, within) = match request {
            AdminRequest::Shaped(asked) => (asked.request, Some(asked.shape), asked.within),
            request => (request, None, None),
        };
        let (pending, call) = match request {
            AdminRequest::Call(call @ ControlCall::Bulk(_)) => (Pending::Bulk, call),
            AdminRequest::Call(call) => (Pending::Call(Box::new(call.clone())), call),
            AdminRequest::CreateKey(wanted) => {
                let made = auth::key::make(io);
                (Pending::Key(made.text), wanted.call(made.shown))
            }
            AdminRequest::Token(wanted) => {
                let mut candidate = [0; 32];
                io.fill(&mut candidate);
                let call = wanted.call(Secret(candidate));
                (Pending::Token(wanted), call)
            }
            AdminRequest::Metrics => (Pending::Metrics, ControlCall::Permit),
            AdminRequest::Top(top) => (Pending::Top(top), ControlCall::Permit),
            AdminRequest::Diagnostics => (Pending::Diagnostics, ControlCall::Permit),
            AdminRequest::Health | AdminRequest::Version | AdminRequest::OpenApi => {
                unreachable!("these were answered")
            }
            AdminRequest::Export(..) => unreachable!("it is a job"),
            AdminRequest::Shaped(_) => unreachable!("a form has no form"),
        };
        let call = match within {
            Some(organisation) => ControlCall::Within(organisation, Box::new(call)),
            None => call,
        };
        let overview = pending.is_overview();
        let needs = match call {
            ControlCall::Permit if overview => rights::OVERVIEW,
            ControlCall::Permit => rights::ANYBODY,
            _ => rights::of_call(&call),
        };
        let pending = match form {
            Some(shape) => Pending::Shaped(shape, Box::new(pending)),
            None => pending,
        };
        // Seen also while the engine does not serve.
        if overview
            && let Credential::Access(access) = credential
            && access.meets(needs).is_ok()
        {
            return self.answer_overview(io, key, &pending);
        }
        let is_created = matches!(pending, Pending::Shaped(Shape::Created, _));
        self.calls.insert(request_id(key), pending);
        let request = match &call {
            // Its body comes in requests of its own.
            ControlCall::Import { name, .. } if is_created => self.begin_draft(io, key, name),
            _ => request_id(key),
        };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.exchange.began = self.now;
        }
        self.engine.control(request, credential, needs, call);
        self.watch(io, key);
    }

    pub(super) fn answer_overview<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        pending: &Pending,
    ) {
        let views = self.engine.tenant_views();
        match pending {
            Pending::Top(top) => {
                let body = control::top::answer(top, self.now, &views);
                self.answer(io, key, "application/json", body);
            }
            Pending::Diagnostics => {
                let body = diagnostics(&self.engine.gauges());
                self.answer(io, key, "application/json", body);
            }
            _ => {
                let text = metrics(&self.gauges(), &self.traffic, &views);
                self.answer(io, key, "text/plain; version=0.0.4", text);
            }
        }
    }

    /// A request on the admin address is answered.
    pub(super) fn on_control<I: Io<Server>>(
        &mut self,
        io: &mut I,
        request: RequestId,
        reply: &ControlReply,
    ) {
        let Some(pending) = self.calls.remove(&request) else { return };
        let key = key_of(request);
        self.release_stranger(key);
        let (shape, pending) = match pending {
            Pending::Shaped(shape, pending) => (Some(shape), *pending),
            pending => (None, pending),
        };
        if let Pending::Draft(step, bytes) = pending {
            let row = match reply {
                ControlReply::Databases(rows) => rows.first(),
                _ => None,
            };
            return self.on_draft_judged(io, key, (step, bytes), row);
        }
        if let (Pending::Call(call), ControlReply::Databases(_)) = (&pending, reply) {
            self.drop_used_dump(call);
        }
        let body = match (pending, reply) {
            (Pending::Bulk, ControlReply::Bulk(progress)) => {
                return self.on_bulk_end(io, key, progress);
            }
            (Pending::Key(secret), _) if request == FIRST_KEY => {
                self.first_key = Some(secret);
                self.ready = true;
                return;
            }
            (Pending::Call(call), ControlReply::Job(reply)) => self.answer_about_jobs(&call, reply),
            (Pending::Call(call), reply) => match &shape {
                Some(shape) => shape.answer(reply, &self.public_host),
                None => control::answer(&call, reply),
            },
            (Pending::Key(secret), ControlReply::Keys(rows)) => {
                let row = rows.first().expect("a key that was made is there");
                match &shape {
                    Some(shape) => shape.created(row, &secret),
                    None => control::keys::created_answer(row, &secret),
                }
            }
            (Pending::Token(wanted), ControlReply::Signing(signing)) => {
                let TokenWanted { role, lifetime_s, .. } = wanted;
                let jwt = self.auth.mint(signing, role, lifetime_s, wall_s(io));
                control::keys::token_answer(&jwt)
            }
            (pending, _) if pending.is_overview() => {
                return self.answer_overview(io, key, &pending);
            }
            _ => unreachable!("a call is answered in its own kind"),
        };
        let Some(body) = self.end_upload_lines(io, key, body) else { return };
        self.answer(io, key, "application/json", body);
    }

    /// A database is there that was made of a dump: that is not needed any more.
    fn drop_used_dump(&mut self, call: &ControlCall) {
        let Some(name) = control::dumps::used_by(call) else { return };
        sometimes!("a dump is dropped when a database was made of it");
        let call = ControlCall::Drop(name.to_owned());
        let credential = Credential::Access(Access::MACHINE);
        self.engine.control(NOBODY, credential, rights::of_call(&call), call);
    }

    /// The engine serves: so does the server, once there is somebody who may administer it.
    pub(super) fn on_ready<I: Io<Server>>(&mut self, io: &mut I) {
        if let Some(secret) = self.engine.signing() {
            self.auth.set_own(secret);
        }
        self.jobs.start(self.now);
        let known = self.auth.has_operator() || self.engine.has_admin_key();
        if known || !self.auth.is_required() {
            self.ready = true;
            return;
        }
        let made = auth::key::make(io);
        let call = Wanted::first().call(made.shown);
        self.calls.insert(FIRST_KEY, Pending::Key(made.text));
        let credential = Credential::Access(Access::MACHINE);
        self.engine.control(FIRST_KEY, credential, rights::of_call(&call), call);
    }

    pub(super) fn gauges(&self) -> Gauges {
        let (log_used_bytes, log_capacity_bytes) = self.engine.log_bytes();
        Gauges {
            counters: self.engine.counters(),
            memory_bytes: self.engine.memory_bytes(),
            connections: self.connections.len(),
            open_tenants: self.engine.open_tenants(),
            parked_streams: self.engine.parked_streams(),
            log_used_bytes,
            log_capacity_bytes,
            throttled_ns: self.engine.throttled_ns_total(),
        }
    }
}

/// How full everything is, as JSON: a list of lines.
fn diagnostics(gauges: &[Gauge]) -> Vec<u8> {
    let line = |gauge: &Gauge| format!("{}: {} of {}", gauge.name, gauge.used, gauge.limit);
    let lines: Vec<String> = gauges.iter().map(line).collect();
    serde_json::Value::from(lines).to_string().into_bytes()
}

/// The time by the wall's clock, in seconds since 1970.
pub(super) fn wall_s(clock: &impl Clock) -> u64 {
    clock.wall().0 / 1_000_000_000
}

pub(super) const VERSION_TEXT: &str = concat!("myriad ", env!("CARGO_PKG_VERSION"), "\n");
