//! Requests that become jobs: who asks, whose connection it is, and the buffers that go along.

use storage::io::Io;
use storage::sometimes;
use tenant::budget::Priority;
use tenant::{Ceiling, ExportFormat, Key};

use super::{Server, buffers_full, free_bytes, request_id};
use crate::auth::Claimed;
use crate::export;
use crate::http::TenantName;
use crate::work::{Asked, Work, WorkKind};

/// A job that is to be made of a request that has been read.
pub(super) struct Order {
    pub name: TenantName,
    pub kind: WorkKind,
    pub claimed: Claimed,
    /// What it may cost.
    pub ceiling: Option<Box<Ceiling>>,
    /// How urgent it says that it is.
    pub priority: Option<Priority>,
}

impl Server {
    /// Give the engine a request's job.
    pub(super) fn submit_work<I: Io<Server>>(&mut self, io: &mut I, key: Key, order: Order) {
        let Order { name, kind, claimed, ceiling, priority } = order;
        let Claimed { credential, principal, foreign } = claimed;
        let connection = self.connections.get_mut(key).expect("its request was read");
        connection.exchange.tenant = Some(name);
        // The admin address' connections are nobody's.
        let moves = connection.database != Some(name) && !connection.admin;
        connection.exchange.began = self.now;
        match kind {
            WorkKind::Cursor => connection.exchange.content_type = "text/plain",
            WorkKind::Export(format) => {
                connection.exchange.content_type = export::content_type(format);
            }
            WorkKind::Pipeline(_) | WorkKind::V1(_) => {}
        }
        let spare = self.spare.pop().unwrap_or_default();
        let out = self.spare.pop().unwrap_or_default();
        if free_bytes(self.buffers_bytes_max) == 0 {
            sometimes!("a request is refused because buffers are used up");
            connection.reader.finish();
            return self.answer_problem(io, key, &buffers_full());
        }
        let request = connection.reader.take(spare);
        connection.request_bytes = request.held_bytes();
        connection.running_bytes = connection.request_bytes + out.capacity();
        connection.book();
        let batons = match &principal {
            Some(principal) => self.batons.for_principal(principal),
            None => self.batons.clone(),
        };
        let connections = if moves { Some(self.count_for(key, name)) } else { None };
        let reply = None;
        let asked =
            Asked { kind, request, ceiling, priority, foreign, connections, batons, out, reply };
        let boxed = match self.spare_asked.pop() {
            Some(mut spare) => {
                *spare = asked;
                spare
            }
            None => Box::new(asked),
        };
        let work = Work::Request(boxed);
        self.engine.submit(request_id(key), name.as_str(), credential, work);
        self.watch(io, key);
    }

    /// A database as a file, on the admin address.
    pub(super) fn export<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        claimed: Claimed,
        (name, format): (TenantName, ExportFormat),
    ) {
        let kind = WorkKind::Export(format);
        self.submit_work(io, key, Order { name, kind, claimed, ceiling: None, priority: None });
    }
}
