//! Imports: databases made from what a client sends (`crate::import`), while they are built.
//!
//! An import is a task of the new database, in the lowest class. What it reads comes from the server, a
//! piece at a time: it asks ([`Event::Wants`]) and waits until the server gives it
//! ([`Engine::supply`]). Between its transactions it waits for checkpoints, so that neither its write-ahead
//! log nor the commit log fills up. How it ends, `building.rs` carries on.

use std::collections::BTreeMap;

use storage::fiber::{Handle, Input};
use storage::ledger;
use storage::sometimes;

use super::building::Unbuilt;
use super::context::{Ask, Job, JobContext, Permit, Reply};
use super::control::{ControlReply, Form};
use super::patron::Patron;
use super::tasks::{Kind, WaitsFor, Work};
use super::{Engine, Event, Refusal, RequestId};
use crate::access::Holder;
use crate::budget::{Priority, RequestLimits};
use crate::catalogue::{DatabaseRow, NodeId, Outcome};
use crate::import::{
    ImportError, ImportFormat, ImportHost, ImportOrder, Imported, Progress, import,
};
use crate::limits;
use crate::pool::Key;
use crate::statement::{Gone, JobHost};

/// Imports that were asked for and not answered.
pub(super) type Imports = BTreeMap<RequestId, Import>;

/// What is known of one.
#[derive(Default)]
pub(super) struct Import {
    /// Whose database it is to be, once it has a row.
    organisation: Option<NodeId>,
    /// What it has made, once it has.
    imported: Option<Imported>,
}

impl ImportHost for JobContext<'_> {
    fn receive(&mut self, spare: Vec<u8>) -> Result<Option<Vec<u8>>, Gone> {
        match self.ask(Ask::Receive(spare)) {
            Reply::Received(piece) => piece,
            _ => unreachable!("a piece was asked for"),
        }
    }

    fn pause(&mut self) {
        self.ask(Ask::Pause);
    }

    fn progress(&mut self, progress: Progress) {
        self.ask(Ask::Tell(progress));
    }
}

/// The body of an import's fiber.
pub(super) fn run_import(
    handle: &Handle<'_, Ask, Reply>,
    order: ImportOrder,
    limits: RequestLimits,
) -> Result<Imported, ImportError> {
    let tenant = storage::fiber::with_volume(|volume| volume.tenant().0);
    let permit = Permit {
        holder: Holder::default(),
        priority: Some(Priority::Background),
        denials: None,
        cost_max: None,
    };
    let mut context = JobContext::new(handle, tenant, limits, permit);
    let mut session = context.open_stream().map_err(|_| ImportError::no_connection())?;
    let result = import(&mut context, &mut session, order);
    context.close(session);
    result
}

impl<J: Job> Engine<J> {
    /// Another import may begin.
    pub(super) fn admit_import(&mut self, request: RequestId) -> Result<(), Refusal> {
        if self.imports.len() >= limits::IMPORTS_MAX {
            sometimes!("there are as many imports as may be");
            return Err(Refusal::Unbuilt(Unbuilt::TooManyImports(limits::IMPORTS_MAX)));
        }
        self.imports.insert(request, Import::default());
        Ok(())
    }

    /// The catalogue has a row for what is to be made, or has not.
    pub(super) fn import_begun(
        &mut self,
        request: RequestId,
        format: ImportFormat,
        outcome: Outcome,
    ) {
        let row = match outcome {
            Outcome::Build(rows) => rows.0,
            other => {
                self.imports.remove(&request);
                let refusal = match self.control_reply(Form::Row, other) {
                    Ok(_) => Refusal::Exists,
                    Err(refusal) => refusal,
                };
                return self.emit_gated(self.catalogue_key, Event::Refused(request, refusal));
            }
        };
        let organisation = row.path.last().map(|node| node.id);
        let of_one = |import: &&Import| import.organisation == organisation;
        if organisation.is_some()
            && self.imports.values().filter(of_one).count() >= limits::IMPORTS_OF_ONE_MAX
        {
            sometimes!("an organisation has as many imports as it may");
            let refusal = Refusal::Unbuilt(Unbuilt::TooManyOfOne(limits::IMPORTS_OF_ONE_MAX));
            return self.give_up(Patron::Request(request), row.id, refusal);
        }
        self.imports.insert(request, Import { organisation, imported: None });
        let key = self.open_building(Patron::Request(request), row);
        let Some(tenant) = self.tenants.get(key).filter(|tenant| tenant.volume.is_some()) else {
            return;
        };
        // What is sent lies beside what is made of it until that is done.
        let upload_bytes = tenant.limits.storage_bytes.min(limits::IMPORT_BYTES_MAX);
        let temporary_bytes = tenant.limits.temporary_bytes.saturating_add(upload_bytes);
        let account = tenant.volume.as_ref().map(|volume| volume.account());
        ledger::set_temporary_limit(account.expect("it is open"), temporary_bytes);
        // A quarter of the log may be one transaction of one of them.
        let index_bytes = limits::IMPORT_INDEX_BYTES.min(self.log_bytes().1 / 4);
        let order = ImportOrder { format, index_bytes };
        let tenant = self.tenants.get(key).expect("looked at just now");
        let work = Work::Import(order, RequestLimits::from(&tenant.limits));
        if self.start_task(key, Kind::Import(request), work).is_none() {
            let refusal = Refusal::Failed("no memory for a fiber".into());
            self.end_building(key, Err(refusal));
        }
    }

    /// An import's task has ended.
    pub(super) fn import_ended(
        &mut self,
        tenant: Key,
        request: RequestId,
        result: Result<Imported, ImportError>,
    ) {
        if self.doomed {
            // Nobody is told, and `close_doomed` closes everything.
            return;
        }
        match result {
            Ok(imported) => {
                self.imports.entry(request).or_default().imported = Some(imported);
                self.end_building(tenant, Ok(()));
            }
            Err(error) => {
                sometimes!("an import is given up");
                let dropped = self.tenants.get(tenant).is_some_and(|tenant| tenant.dropped);
                let refusal = match dropped {
                    true => Refusal::Unbuilt(Unbuilt::Dropped),
                    false => Refusal::Import(error),
                };
                self.end_building(tenant, Err(refusal));
            }
        }
    }

    /// What answers a request whose database is there now.
    pub(super) fn import_reply(&mut self, request: RequestId, row: DatabaseRow) -> ControlReply {
        match self.imports.remove(&request).and_then(|import| import.imported) {
            Some(imported) => ControlReply::Imported(Box::new((row, imported))),
            None => ControlReply::Databases(vec![row]),
        }
    }

    // ---- what it asks ----

    /// It wants the next piece.
    pub(super) fn on_receive(&mut self, key: Key, spare: Vec<u8>) -> Option<Reply> {
        let now = self.now;
        let task = self.tasks.get_mut(key).expect("the task runs");
        let Kind::Import(request) = task.kind else { unreachable!("only an import asks for more") };
        let ending = self.tenants.get(task.tenant).is_none_or(|tenant| tenant.ending);
        if task.cancelled || ending || self.doomed {
            return Some(Reply::Received(Err(Gone)));
        }
        task.waits_for = WaitsFor::Body;
        task.flushing_since = now;
        self.emit(Event::Wants(request, spare));
        None
    }

    /// The next piece of what `request` sends, or its end, or that it will not come.
    pub fn supply(&mut self, request: RequestId, piece: Result<Option<Vec<u8>>, Gone>) {
        let Some(key) = self.task_of(request) else { return };
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.waits_for == WaitsFor::Body && task.is_waiting() {
            task.started = task.started.after(self.now.since(task.flushing_since));
            self.wake(key, Input::Host(Reply::Received(piece)));
        }
    }

    /// It is between two transactions: if a checkpoint is due, it waits for that.
    pub(super) fn on_pause(&mut self, key: Key, tenant_key: Key) -> Option<Reply> {
        let large = self.tenants.get(tenant_key).is_some_and(|tenant| {
            tenant.volume.as_ref().is_some_and(|v| v.wal_bytes() > limits::CHECKPOINT_WAL_BYTES)
        });
        if !large || self.doomed {
            return Some(Reply::Done);
        }
        self.start_checkpoint(tenant_key);
        let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
        if !tenant.checkpointing {
            return Some(Reply::Done);
        }
        sometimes!("a long job waits for a checkpoint");
        self.tasks.get_mut(key).expect("the task runs").waits_for = WaitsFor::Checkpoint;
        self.paused.push(key);
        None
    }

    /// A checkpoint of the tenant has ended, well or not: long jobs that wait for it go on.
    pub(super) fn checkpoint_over(&mut self, tenant: Key) {
        for key in std::mem::take(&mut self.paused) {
            let Some(task) = self.tasks.get(key) else { continue };
            if task.waits_for != WaitsFor::Checkpoint || !task.is_waiting() {
                continue;
            }
            if task.tenant == tenant {
                self.wake(key, Input::Host(Reply::Done));
            } else {
                self.paused.push(key);
            }
        }
    }

    /// It says how far it is.
    pub(super) fn on_progress(&mut self, key: Key, progress: Progress) -> Reply {
        let task = self.tasks.get(key).expect("the task runs");
        if let Kind::Import(request) = task.kind {
            self.emit(Event::Progress(request, progress));
        }
        Reply::Done
    }
}
