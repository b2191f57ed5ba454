//! The jobs that the server gives the engine: one request, from its body to its reply.

use tenant::access::{Proven, Scope};
use tenant::budget::Priority;
use tenant::migration::{MigrationEnd, migrate};
use tenant::settings::PublicKey;
use tenant::{Ceiling, ExportFormat, Job, JobContext};

use crate::auth::Foreign;
use crate::baton::BatonKey;
use crate::export;
use crate::hrana::{self, ProtocolVersion, Reply, V1Call};
use crate::http::Request;
use crate::jobs::Migration;

/// Which of Hrana's requests it is, or of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// A pipeline.
    Pipeline(ProtocolVersion),
    /// A cursor.
    Cursor,
    /// A call of version 1.
    V1(V1Call),
    /// The database as a file.
    Export(ExportFormat),
}

/// A job of the engine's.
pub enum Work {
    /// A client's request.
    Request(Box<Asked>),
    /// A fleet job's run on a database.
    Migration(Migration),
}

/// A request on its way through the engine, and back.
pub struct Asked {
    /// What it asks for.
    pub kind: WorkKind,
    /// Its bytes.
    pub request: Request,
    /// What it may cost.
    pub ceiling: Option<Box<Ceiling>>,
    /// How urgent it says that it is.
    pub priority: Option<Priority>,
    /// A token that a key of the database itself may have signed.
    pub foreign: Option<Box<Foreign>>,
    /// Connections to its database, if this one is new among them.
    pub connections: Option<u64>,
    /// Seals batons.
    pub batons: BatonKey,
    /// An empty buffer for the reply.
    pub out: Vec<u8>,
    /// The response, or the end of it, once it comes back.
    pub reply: Option<Reply>,
}

/// What comes back.
pub enum WorkReply {
    /// For a request, which has its reply; its box and its buffers are for others.
    Request(Box<Asked>),
    /// For a fleet job's run.
    Migration(MigrationEnd),
}

impl Work {
    fn asked(&self) -> Option<&Asked> {
        match self {
            Work::Request(asked) => Some(asked),
            Work::Migration(_) => None,
        }
    }
}

impl Job for Work {
    type Reply = WorkReply;

    fn request_bytes(&self) -> u64 {
        self.asked().map_or(0, |asked| asked.request.body().len() as u64)
    }

    fn connections(&self) -> Option<u64> {
        self.asked()?.connections
    }

    fn priority(&self) -> Option<Priority> {
        match self {
            Work::Request(_) if self.exports() => Some(Priority::Background),
            Work::Request(asked) => asked.priority,
            Work::Migration(_) => Some(Priority::Background),
        }
    }

    fn run_ns(&self) -> Option<u64> {
        match self {
            Work::Request(_) => None,
            Work::Migration(migration) => Some(migration.run_ns),
        }
    }

    fn exports(&self) -> bool {
        matches!(self, Work::Request(asked) if matches!(asked.kind, WorkKind::Export(_)))
    }

    fn foreign_token(&self) -> Option<&[u8; 32]> {
        self.asked()?.foreign.as_ref().map(|foreign| foreign.digest())
    }

    fn prove(&self, holder: Scope, keys: &[PublicKey]) -> Option<Proven> {
        self.asked()?.foreign.as_ref()?.prove(holder, keys)
    }

    fn run(self, host: &mut JobContext<'_>) -> WorkReply {
        let mut asked = match self {
            Work::Request(asked) => asked,
            Work::Migration(Migration { script, errand, .. }) => {
                return WorkReply::Migration(migrate(host, &script, errand));
            }
        };
        let out = std::mem::take(&mut asked.out);
        let ceiling = asked.ceiling.take();
        let (body, batons) = (asked.request.body(), &asked.batons);
        let reply = match asked.kind {
            WorkKind::Pipeline(version) => {
                hrana::run_pipeline(host, version, body, batons, ceiling, out)
            }
            WorkKind::Cursor => hrana::run_cursor(host, body, batons, ceiling, out),
            WorkKind::V1(call) => hrana::run_v1(host, call, body, ceiling, out),
            WorkKind::Export(format) => export::run(host, format, out),
        };
        asked.reply = Some(reply);
        WorkReply::Request(asked)
    }
}
