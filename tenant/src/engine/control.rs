//! The catalogue's calls: who asked, one transaction for many of them, and what follows.

use std::collections::{BTreeMap, VecDeque};

use storage::TenantId;
use storage::io::Instant;
use storage::log::Class;

use super::budgets::{BudgetView, UsageView};
use super::bulk::{Bulk, BulkProgress};
use super::context::Job;
use super::copy::CopyProgress;
use super::drops::{Dropper, Receipt};
use super::keys::Waiting;
use super::patron::Patron;
use super::tasks::{Kind, Work};
use super::{Engine, Event, Failure, Phase, Refusal, RequestId, Timer};
use crate::access::{Access, Credential, Denial, Needs, Scope};
use crate::budget::periods::Range;
use crate::budget::{Budget, Usage};
use crate::catalogue::jobs::{JobCall, JobReply};
use crate::catalogue::{
    Build, Call, Change, DatabaseRow, KeyRow, KeyScope, NewKey, NodeId, NodePath, NodeRow, Outcome,
    Plan, Said, Secret, Signing, Sum,
};
use crate::import::{ImportFormat, Imported};
use crate::limits;
use crate::pool::Key;
use crate::settings::SettingsChange;

/// A call for nobody that failed waits this long.
const CATALOGUE_RETRY_NS: u64 = limits::SECOND_NS;

/// What the control API may ask; answered by [`Event::Control`] or [`Event::Refused`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlCall {
    /// Create a database, with its place in the tree and its budget.
    Create(String, Change),
    /// A new database, made from what the request's body brings: [`Event::Wants`] asks for it. Answered
    /// with [`ControlReply::Imported`] when all of it is there.
    Import {
        /// Its name.
        name: String,
        /// Its place and budget.
        change: Change,
        /// What is sent.
        format: ImportFormat,
    },
    /// A new database that is a copy of another as it is at some moment from now on; answered with its
    /// row when all of it is there.
    Fork {
        /// What is copied.
        from: String,
        /// The copy's name.
        to: String,
        /// The copy's place and budget; it stands in the same group unless this says another.
        change: Change,
    },
    /// Give a database another place or budget; answered as [`ControlCall::Budget`].
    Place(String, Change),
    /// Show what a database says, and what holds for it.
    Budget(String),
    /// Show what a database has used, and holds now.
    Usage(String),
    /// A new plan, or another budget for one that is there.
    PutPlan(Plan),
    /// Show one plan.
    Plan(String),
    /// Show all plans.
    Plans,
    /// Remove a plan that nobody has.
    DropPlan(String),
    /// A new organisation or group, or another budget for one that is there.
    PutNode(NodePath, Said),
    /// Show an organisation or group.
    Node(NodePath),
    /// Remove an organisation without groups, or a group without databases.
    DropNode(NodePath),
    /// Show a database's settings, in its row.
    Settings(String),
    /// Show the settings of an organisation or group.
    NodeSettings(NodePath),
    /// Change a database's settings; answered with its row.
    Set(String, SettingsChange),
    /// Change the settings of an organisation or group.
    SetNode(NodePath, SettingsChange),
    /// A new key. Its maker has its secret; the catalogue is given a hash of it.
    CreateKey(Box<NewKey>),
    /// Up to `limit` keys with ids after `after`, in order: of one scope, or all.
    Keys {
        /// Whose, if not all.
        scope: Option<KeyScope>,
        /// Ids behind this one.
        after: u64,
        /// At most so many, and never more than [`limits::LIST_PAGE_MAX`].
        limit: usize,
    },
    /// Revoke the key with this public part: what runs with it ends at once.
    RevokeKey(Box<str>),
    /// Revoke the keys of this name that are not of single databases.
    RevokeNamed(Box<str>),
    /// Show the key with this public part.
    ShowKey(Box<str>),
    /// What is needed to sign a token for a database, organisation or group; answered by
    /// [`ControlReply::Signing`]. The secret becomes the server's own if there is none yet.
    Sign(KeyScope, Secret),
    /// A new organisation or group that says nothing; answered as [`ControlCall::Node`].
    CreateNode(NodePath),
    /// Another name for a group; answered as [`ControlCall::Node`].
    RenameGroup(NodePath, Box<str>),
    /// Up to `limit` organisations, or groups of one, with names after `after`, in order.
    Nodes {
        /// Whose groups; `None` for organisations.
        of: Option<Box<str>>,
        /// Names behind this one.
        after: Box<str>,
        /// At most so many, and never more than [`limits::LIST_PAGE_MAX`].
        limit: usize,
    },
    /// Up to `limit` databases of an organisation or group, in the order of their groups and names.
    Members {
        /// Whose.
        path: NodePath,
        /// The group and name that they stand behind.
        after: (Box<str>, Box<str>),
        /// At most so many, and never more than [`limits::LIST_PAGE_MAX`].
        limit: usize,
    },
    /// What all databases of an organisation or group have used together.
    Sum(NodePath),
    /// As [`ControlCall::Usage`], and what of it in a time.
    UsageIn(String, Range),
    /// As [`ControlCall::Sum`], and what of it in a time.
    SumIn(NodePath, Range),
    /// Begin a checkpoint of a database, if it is open and has something to write; answered with its row.
    Checkpoint(String),
    /// A call on a database, if that is in this organisation; else there is none of that name.
    Within(Box<str>, Box<ControlCall>),
    /// Create or drop many; answered by [`Event::Bulk`] again and again, and [`ControlReply::Bulk`] at
    /// the end.
    Bulk(Box<Bulk>),
    /// About fleet jobs; answered by [`ControlReply::Job`].
    Job(JobCall),
    /// Nothing: whether it would be allowed.
    Permit,
    /// Drop a database.
    Drop(String),
    /// Show one database.
    Show(String),
    /// Up to `limit` databases with names after `after` that start with `prefix`, in order.
    List {
        /// Names behind this one; empty for the first page.
        after: String,
        /// Names that begin so.
        prefix: String,
        /// At most so many, and never more than [`limits::LIST_PAGE_MAX`].
        limit: usize,
    },
}

/// What a control call is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlReply {
    /// Done; nothing to tell.
    Done,
    /// Rows: one, unless a list was asked for.
    Databases(Vec<DatabaseRow>),
    /// The database that was dropped, and what it has given back.
    Dropped(Box<(DatabaseRow, Receipt)>),
    /// What a database says, and what holds for it.
    Budget(Box<BudgetView>),
    /// What a database has used, and holds now.
    Usage(Box<UsageView>),
    /// Plans: one, unless all were asked for.
    Plans(Vec<Plan>),
    /// An organisation or group, and what holds for it as a whole.
    Node(Box<(NodeRow, crate::budget::Resolved)>),
    /// Organisations, or the groups of one.
    Nodes(Vec<NodeRow>),
    /// What all databases of an organisation or group have used together.
    Sum(Box<Sum>),
    /// Keys: one, unless a list was asked for.
    Keys(Vec<KeyRow>),
    /// What a token is for, and what signs it.
    Signing(Box<Signing>),
    /// A database that is being made as a copy of another, and how far that is.
    Copying(Box<(DatabaseRow, CopyProgress)>),
    /// A database that was made from what was sent.
    Imported(Box<(DatabaseRow, Imported)>),
    /// What came of a call about many databases: all that was not done.
    Bulk(Box<BulkProgress>),
    /// About fleet jobs.
    Job(JobReply),
}

/// In which form a control call wants the row that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Row,
    /// As a row, with how far it is if it is a copy that is being made.
    Show,
    Budget,
    Usage,
    Checkpoint,
    Import(ImportFormat),
    Fork,
}

/// Who waits for a call.
#[derive(Clone, Debug)]
pub(super) enum Asker {
    Startup,
    Control(RequestId, Form),
    /// The tenant that is being opened.
    Opening(Key),
    /// Requests that wait for a key with this public part.
    Key([u8; 16]),
    /// The request that makes a database from what it sends.
    Import(RequestId, ImportFormat),
    /// The request for a copy of a database.
    Fork(RequestId),
    /// The request that had a database built.
    Built(Patron),
    /// The request that had one built which will not be whole, and why.
    GivenUp(Patron, Box<Refusal>),
    /// A call about many databases.
    Bulk(RequestId),
    /// The checkpoint of a database that is in the log and was not opened.
    Logged(TenantId),
    /// A checkpoint's end: the tenant and the last transaction in its file.
    Checkpoint(Key, u64, u64),
    Nobody,
}

#[derive(Default)]
pub(super) struct Catalogue {
    queue: VecDeque<(Asker, Call)>,
    running: Vec<(Asker, Call)>,
    /// Since when creates and drops wait for room in the log.
    pub(super) held_since: Option<Instant>,
    /// Checkpoints whose rows are committed but not durable: (batch, tenant, txid, stamp).
    pub(super) unsettled: Vec<(storage::log::Sequence, Key, u64, u64)>,
    /// Files to remove once the tombstones of their tenants are durable: (batch, tenant).
    pub(super) removals: Vec<(storage::log::Sequence, TenantId)>,
    /// Fences that the catalogue does not hold durably yet.
    fences: BTreeMap<TenantId, Fence>,
    /// Calls for nobody that failed: they are tried again.
    later: Vec<Call>,
    /// How often they were since the server stops.
    stop_tries: u32,
    /// All plans.
    pub(super) plans: BTreeMap<Box<str>, Budget>,
    /// What closed databases have used, and when last, not yet in their rows.
    pub(super) used: BTreeMap<TenantId, (Usage, u64)>,
    /// What databases of these organisations and groups had used that are gone, not yet counted.
    pub(super) spent: BTreeMap<NodeId, (Usage, u64)>,
    /// What signs the server's own tokens, once there is one.
    pub(super) signing: Option<Secret>,
    /// At the start there was a key that may everything.
    pub(super) has_admin: bool,
}

/// Until its row is durable, only this keeps a damaged tenant from being opened, and what the log
/// holds of the damage from being given up.
struct Fence {
    reason: String,
    /// The batch that holds the row.
    recorded: Option<storage::log::Sequence>,
}

impl Catalogue {
    /// A checkpoint's row is asked for, or committed and not durable.
    pub(super) fn has_unsettled(&self) -> bool {
        let ends = |(asker, _): &(Asker, Call)| matches!(asker, Asker::Checkpoint(..));
        !self.unsettled.is_empty() || self.queue.iter().chain(&self.running).any(ends)
    }

    /// Take the calls that go into one transaction: those that need log space for their own sake are
    /// not mixed with those that make some, and are overtaken by them while there is no room.
    /// `room` is how many creates and drops the log has room for.
    fn take_batch(&mut self, room: usize) -> Vec<(Asker, Call)> {
        let calls = || self.queue.iter().map(|(_, call)| call).take(limits::CATALOGUE_BATCH);
        if room > 0 {
            let grows = calls().find(|call| call.writes()).is_some_and(Call::grows);
            let calls = || calls().take(if grows { room } else { limits::CATALOGUE_BATCH });
            let fits = |call: &&Call| !call.writes() || call.grows() == grows;
            let count = calls().take_while(fits).count();
            return self.queue.drain(..count).collect();
        }
        let queue = std::mem::take(&mut self.queue);
        let mut batch = Vec::new();
        for (asker, call) in queue {
            if call.grows() || batch.len() == limits::CATALOGUE_BATCH {
                self.queue.push_back((asker, call));
            } else {
                batch.push((asker, call));
            }
        }
        batch
    }

    /// A database of this name is about to be created in a row of the catalogue, and that waits for room
    /// in the log: others may come before it.
    pub(super) fn creates(&self, name: &str) -> bool {
        fn one(call: &Call, name: &str) -> bool {
            match call.inner() {
                Call::Create { name: own, .. } | Call::Make(own, _) | Call::Remake(own, _) => {
                    own == name
                }
                Call::Build(build) => build.name == name,
                Call::Bulk(_, calls) => calls.iter().any(|call| one(call, name)),
                _ => false,
            }
        }
        self.held_since.is_some() && self.queue.iter().any(|(_, call)| one(call, name))
    }

    /// Pages that each waiting call may change that grows, in order, as far as they go into one
    /// transaction.
    fn growing(&self) -> Vec<u32> {
        let growing = self.queue.iter().filter(|(_, call)| call.grows());
        growing.map(|(_, call)| call.pages()).take(limits::CATALOGUE_BATCH).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.running.is_empty()
            && self.unsettled.is_empty()
            && self.removals.is_empty()
            && (self.has_given_up() || self.fences.is_empty() && self.later.is_empty())
            && self.used.is_empty()
            && self.spent.is_empty()
    }

    /// What failed again and again while the server stops is left: the catalogue, or its disk, does not
    /// take it. The next start comes to it again: to tombstones and ends by their rows, and to damage
    /// because a fence that is not durable keeps the log from letting go of it.
    fn has_given_up(&self) -> bool {
        self.stop_tries >= limits::STOP_RETRIES_MAX
    }

    /// Why this tenant is fenced, if its row does not durably say so yet.
    pub(super) fn fence_under_way(&self, id: TenantId) -> Option<&str> {
        self.fences.get(&id).map(|fence| fence.reason.as_str())
    }

    pub(super) fn has_fences_under_way(&self) -> bool {
        !self.fences.is_empty()
    }
}

/// What of the catalogue a call of the control API is, and in which form its row is wanted.
fn catalogue_call(call: ControlCall) -> (Form, Call) {
    match call {
        ControlCall::Create(name, change) => {
            (Form::Row, Call::Create { name, exists_ok: false, change })
        }
        ControlCall::Import { name, change, format } => {
            (Form::Import(format), Call::Build(Box::new(Build { name, from: None, change })))
        }
        ControlCall::Fork { from, to, change } => {
            let build = Build { name: to, from: Some(from), change };
            (Form::Fork, Call::Build(Box::new(build)))
        }
        ControlCall::Drop(name) => (Form::Row, Call::Drop(name)),
        ControlCall::Show(name) => (Form::Show, Call::Find(name)),
        ControlCall::List { after, prefix, limit } => {
            let limit = limit.min(limits::LIST_PAGE_MAX);
            (Form::Row, Call::List { after, prefix, limit })
        }
        ControlCall::Place(name, change) => (Form::Budget, Call::Place(name, change)),
        ControlCall::Budget(name) => (Form::Budget, Call::Find(name)),
        ControlCall::Usage(name) => (Form::Usage, Call::Find(name)),
        ControlCall::PutPlan(plan) => (Form::Row, Call::PutPlan(plan)),
        ControlCall::Plan(name) => (Form::Row, Call::FindPlan(name.into())),
        ControlCall::Plans => (Form::Row, Call::Plans),
        ControlCall::DropPlan(name) => (Form::Row, Call::DropPlan(name.into())),
        ControlCall::PutNode(path, said) => (Form::Row, Call::PutNode(path, said)),
        ControlCall::Node(path) => (Form::Row, Call::FindNode(path)),
        ControlCall::DropNode(path) => (Form::Row, Call::DropNode(path)),
        ControlCall::Settings(name) => (Form::Row, Call::Find(name)),
        ControlCall::NodeSettings(path) => (Form::Row, Call::FindNode(path)),
        ControlCall::Set(name, change) => (Form::Row, Call::Set(name, change)),
        ControlCall::SetNode(path, change) => (Form::Row, Call::SetNode(path, change)),
        ControlCall::CreateKey(key) => (Form::Row, Call::CreateKey(key)),
        ControlCall::Keys { scope, after, limit } => {
            let limit = limit.min(limits::LIST_PAGE_MAX);
            (Form::Row, Call::Keys { scope, after, limit })
        }
        ControlCall::RevokeKey(public) => (Form::Row, Call::RevokeKey(public)),
        ControlCall::RevokeNamed(name) => (Form::Row, Call::RevokeNamed(name)),
        ControlCall::ShowKey(public) => (Form::Row, Call::FindKey(public)),
        ControlCall::Sign(scope, secret) => (Form::Row, Call::Sign(scope, secret)),
        ControlCall::CreateNode(path) => (Form::Row, Call::CreateNode(path)),
        ControlCall::RenameGroup(path, name) => (Form::Row, Call::RenameGroup(path, name)),
        ControlCall::Nodes { of, after, limit } => {
            let limit = limit.min(limits::LIST_PAGE_MAX);
            (Form::Row, Call::Nodes { of, after, limit })
        }
        ControlCall::Members { path, after, limit } => {
            let limit = limit.min(limits::LIST_PAGE_MAX);
            (Form::Row, Call::Members { path, after, limit })
        }
        ControlCall::Sum(path) => (Form::Row, Call::Sum(path)),
        ControlCall::UsageIn(name, range) => (Form::Usage, Call::FindIn(name, range)),
        ControlCall::SumIn(path, range) => (Form::Row, Call::SumIn(path, range)),
        ControlCall::Checkpoint(name) => (Form::Checkpoint, Call::Find(name)),
        ControlCall::Within(organisation, call) => {
            let (form, call) = catalogue_call(*call);
            (form, Call::Within(organisation, Box::new(call)))
        }
        ControlCall::Job(call) => (Form::Row, Call::Job(call)),
        ControlCall::Permit | ControlCall::Bulk(_) => {
            unreachable!("the catalogue is not asked for it as such")
        }
    }
}

impl<J: Job> Engine<J> {
    /// What signs the server's own tokens, once there is one.
    #[must_use]
    pub fn signing(&self) -> Option<Secret> {
        self.catalogue.signing
    }

    /// Whether there was a key that may everything when the server started.
    #[must_use]
    pub fn has_admin_key(&self) -> bool {
        self.catalogue.has_admin
    }

    /// Carry out a control call that takes these rights, for somebody who comes with this. The scope is
    /// compared with what the call is about where that is looked up.
    pub fn control(
        &mut self,
        request: RequestId,
        credential: Credential,
        needs: Needs,
        call: ControlCall,
    ) {
        match credential {
            Credential::Access(access) => self.control_as(request, access, needs, call),
            Credential::Foreign => self.refuse_denied(request, Denial::Unauthorised),
            Credential::Key(_) if self.phase != Phase::Serving => {
                self.emit(Event::Refused(request, Refusal::Unavailable));
            }
            Credential::Key(proof) => {
                let waiting = Waiting::Call(request, needs, Box::new(call));
                if let Some((access, Waiting::Call(_, _, call))) =
                    self.access_of_key(proof, waiting)
                {
                    self.control_as(request, access, needs, *call);
                }
            }
        }
    }

    pub(super) fn control_as(
        &mut self,
        request: RequestId,
        access: Access,
        needs: Needs,
        call: ControlCall,
    ) {
        if let Err(denial) = access.meets(needs) {
            return self.refuse_denied(request, denial);
        }
        if self.phase != Phase::Serving {
            self.emit(Event::Refused(request, Refusal::Unavailable));
            return;
        }
        if call == ControlCall::Permit {
            return self.emit(Event::Control(request, ControlReply::Done));
        }
        if let ControlCall::Bulk(bulk) = call {
            return self.start_bulk(request, access, *bulk);
        }
        let Some(call) = self.without_catalogue(request, &access, call) else { return };
        self.note_before(&call);
        let (form, call) = catalogue_call(call);
        let call = match access.scope {
            Scope::Machine => call,
            _ => Call::Guarded(access, Box::new(call)),
        };
        let asker = match form {
            Form::Import(format) => {
                if let Err(refusal) = self.admit_import(request) {
                    return self.emit(Event::Refused(request, refusal));
                }
                Asker::Import(request, format)
            }
            Form::Fork => Asker::Fork(request),
            form => Asker::Control(request, form),
        };
        self.call_catalogue(asker, call);
    }

    pub(super) fn call_catalogue(&mut self, asker: Asker, call: Call) {
        self.catalogue.queue.push_back((asker, call));
    }

    /// Start the next transaction of the catalogue, if none runs.
    pub(super) fn pump_catalogue(&mut self) {
        let open = self.tenants.get(self.catalogue_key).is_some_and(|t| t.volume.is_some());
        if !open || !self.catalogue.running.is_empty() || self.catalogue.queue.is_empty() {
            return;
        }
        let room = self.room_to_grow();
        if room > 0 {
            self.catalogue.held_since = None;
        } else {
            self.hold_growth();
        }
        self.catalogue.running = self.catalogue.take_batch(room);
        let count = self.catalogue.running.len();
        if count == 0 {
            return;
        }
        let calls = self.catalogue.running.iter().map(|(_, call)| call.clone()).collect();
        let work = Work::Catalogue(calls);
        if self.start_task(self.catalogue_key, Kind::Catalogue, work).is_none() {
            let outcomes = vec![Outcome::Failed("no memory for a fiber".into()); count];
            self.catalogue_done(outcomes);
        }
    }

    /// How many creates and drops may go into one transaction: as many as wait, if the log has room
    /// for all, or a few, or none. Others may take that room before the transaction commits; then it
    /// takes as much of what is kept for checkpoints, and the next one waits.
    fn room_to_grow(&mut self) -> usize {
        let growing = self.catalogue.growing();
        let waiting = growing.len();
        if waiting == 0 {
            return limits::CATALOGUE_BATCH;
        }
        let few = waiting.min(limits::GROWTH_CALLS);
        self.count_owed();
        let Some(log) = &mut self.log else { return waiting };
        let fits = |calls: &usize| {
            let pages = limits::GROWTH_PAGES + growing[..*calls].iter().sum::<u32>();
            log.has_space(log.transaction_bytes(pages), Class::Tenant)
        };
        [waiting, few].into_iter().find(fits).unwrap_or(0)
    }

    /// Creates and drops wait for checkpoints to make room, as long as commits do.
    fn hold_growth(&mut self) {
        let Some(since) = self.catalogue.held_since else {
            self.catalogue.held_since = Some(self.now);
            self.set_timer(limits::LOG_WAIT_NS, Timer::CatalogueHeld);
            return self.release_checkpoints();
        };
        if self.now.since(since) < limits::LOG_WAIT_NS {
            return;
        }
        self.catalogue.held_since = None;
        let queue = std::mem::take(&mut self.catalogue.queue);
        let (refused, kept): (VecDeque<_>, _) =
            queue.into_iter().partition(|(_, call)| call.grows());
        self.catalogue.queue = kept;
        for (asker, call) in refused {
            self.catalogue_answered(asker, call, Outcome::Full);
        }
    }

    pub(super) fn catalogue_done(&mut self, outcomes: Vec<Outcome>) {
        let running = std::mem::take(&mut self.catalogue.running);
        assert_eq!(running.len(), outcomes.len());
        // First: SQLite's own words about it, in the outcomes, say less.
        if let Some(reason) = self.damage(self.catalogue_key) {
            self.fail_for_catalogue(&reason);
        }
        for ((asker, call), outcome) in running.into_iter().zip(outcomes) {
            self.catalogue_answered(asker, call, outcome);
        }
    }

    /// The catalogue is damaged: nothing can go on without it.
    pub(super) fn fail_for_catalogue(&mut self, reason: &str) {
        let text = format!(
            "the catalogue is damaged (tenants/00/00/0.db): {reason}; restore the data folder from \
             a backup"
        );
        self.fail(Failure::Start(text));
    }

    fn catalogue_answered(&mut self, asker: Asker, call: Call, outcome: Outcome) {
        let call = call.into_inner();
        if let Asker::Bulk(request) = asker {
            return self.on_bulk(request, call, outcome);
        }
        self.memory_answered(&call);
        if let Outcome::Memory(row) = outcome {
            return match asker {
                Asker::Opening(key) => self.on_found(key, Outcome::Memory(row)),
                asker => self.memory_made(asker, *row),
            };
        }
        let outcome = self.with_memory(&call, outcome);
        self.catalogue_changed(&call, &outcome);
        if let (Call::Drop(name), Outcome::Row(row)) = (&call, &outcome) {
            let dropper = match asker {
                Asker::Control(request, _) => Dropper::Control(request),
                _ => Dropper::Nobody,
            };
            return self.on_dropped(name, row, dropper);
        }
        match asker {
            // Where there is a template, what is created is to be filled first.
            Asker::Control(request, Form::Row) if matches!(outcome, Outcome::Build(_)) => {
                self.fork_begun(Patron::Creation(request), outcome);
            }
            Asker::Opening(key) if matches!(outcome, Outcome::Build(_)) => {
                self.fork_begun(Patron::Opening(key), outcome);
            }
            Asker::Startup => self.startup_rows(outcome),
            Asker::Control(request, form) => {
                let event = match self.control_reply(form, outcome) {
                    Ok(reply) => Event::Control(request, reply),
                    Err(refusal) => Event::Refused(request, refusal),
                };
                self.emit_gated(self.catalogue_key, event);
            }
            Asker::Opening(key) => self.on_found(key, outcome),
            Asker::Key(public) => self.on_key_found(public, outcome),
            Asker::Checkpoint(key, txid, stamp) => match outcome {
                Outcome::Done => {
                    if let Call::Checkpointed { usage, bytes, .. } = call {
                        self.usage_saved(key, usage, bytes);
                    }
                    let sequence = self.catalogue_sequence();
                    self.catalogue.unsettled.push((sequence, key, txid, stamp));
                    self.settle_checkpoints();
                }
                _ => self.checkpoint_failed(key),
            },
            Asker::Import(request, format) => self.import_begun(request, format, outcome),
            Asker::Fork(request) => self.fork_begun(Patron::Request(request), outcome),
            Asker::Logged(id) => self.logged_found(id, outcome),
            Asker::Built(patron) => self.built(patron, &call, outcome),
            Asker::GivenUp(patron, refusal) => self.given_up(patron, *refusal, call, &outcome),
            Asker::Bulk(_) => unreachable!("it was told above"),
            Asker::Nobody => self.nobody_answered(call, &outcome),
        }
    }

    /// What follows from a call, whoever asked for it.
    pub(super) fn catalogue_changed(&mut self, call: &Call, outcome: &Outcome) {
        self.budgets_changed(call, outcome);
        self.keys_changed(call, outcome);
        self.lives_changed(call, outcome);
        if let Outcome::Signing(signing) = outcome {
            self.catalogue.signing = Some(signing.secret);
        }
    }

    pub(super) fn control_reply(
        &mut self,
        form: Form,
        outcome: Outcome,
    ) -> Result<ControlReply, Refusal> {
        Ok(match outcome {
            Outcome::Row(row) => match form {
                Form::Row | Form::Import(_) => ControlReply::Databases(vec![*row]),
                Form::Show => match self.copy_progress(&row) {
                    Some(progress) => ControlReply::Copying(Box::new((*row, progress))),
                    None => ControlReply::Databases(vec![*row]),
                },
                Form::Budget => ControlReply::Budget(Box::new(self.budget_view(*row))),
                Form::Usage => ControlReply::Usage(Box::new(self.usage_view(*row))),
                Form::Fork => unreachable!("it has an asker of its own"),
                Form::Checkpoint => {
                    self.checkpoint_now(&row);
                    ControlReply::Databases(vec![*row])
                }
            },
            Outcome::Build(_) => unreachable!("it has an asker of its own"),
            Outcome::Rows(rows) => ControlReply::Databases(rows),
            Outcome::Plans(plans) => ControlReply::Plans(plans),
            Outcome::Node(path) => ControlReply::Node(Box::new(self.node_view(path))),
            Outcome::Nodes(nodes) => ControlReply::Nodes(nodes),
            Outcome::RowIn(row) => ControlReply::Usage(Box::new(self.usage_in(row.0, row.1))),
            Outcome::Sum(sum) => ControlReply::Sum(Box::new(self.sum_now(*sum))),
            Outcome::Keys(keys) => ControlReply::Keys(keys),
            Outcome::Signing(signing) => ControlReply::Signing(Box::new(signing)),
            Outcome::Done | Outcome::Started(..) => ControlReply::Done,
            Outcome::Ended(..)
            | Outcome::NotYet(_)
            | Outcome::Endings(..)
            | Outcome::BulkRecord(_)
            | Outcome::Memory(_)
            | Outcome::Many(_) => unreachable!("only the engine asks for it"),
            Outcome::NotFound => return Err(Refusal::NotFound),
            Outcome::Exists => return Err(Refusal::Exists),
            Outcome::Missing(missing) => return Err(Refusal::Missing(missing)),
            Outcome::InUse(users) => return Err(Refusal::InUse(users)),
            Outcome::TooManyPlans => return Err(Refusal::TooManyPlans),
            Outcome::TooManyKeys => return Err(Refusal::TooManyKeys),
            Outcome::Job(reply) => ControlReply::Job(reply),
            Outcome::JobRefused(refusal) => return Err(Refusal::Job(refusal)),
            Outcome::Protected => return Err(Refusal::Protected),
            Outcome::Denied(Denial::Unauthorised) => return Err(Refusal::Unauthorised),
            Outcome::Denied(Denial::Forbidden) => return Err(Refusal::Forbidden),
            Outcome::Failed(text) => return Err(Refusal::Failed(text)),
            Outcome::Full => return Err(Refusal::LogFull),
        })
    }

    /// Fences and tombstones must not be lost with a failed transaction: it has other calls too,
    /// and memory, the disk or the log may be short only now.
    pub(super) fn nobody_answered(&mut self, call: Call, outcome: &Outcome) {
        match (call, outcome) {
            // A later one says more; see `budgets.rs` for what is lost.
            (Call::Used(id, usage, _), Outcome::Done) => self.usage_noted(id, usage),
            (Call::Used(..), _) => {}
            (call, Outcome::Failed(_) | Outcome::Full) => {
                if self.catalogue.later.is_empty() {
                    self.set_timer(CATALOGUE_RETRY_NS, Timer::CatalogueRetry);
                }
                self.catalogue.later.push(call);
            }
            (Call::Fence(id, _), _) => {
                let recorded = self.catalogue_sequence();
                if let Some(fence) = self.catalogue.fences.get_mut(&id) {
                    fence.recorded = Some(recorded);
                }
                self.settle_fences();
            }
            _ => {}
        }
    }

    pub(super) fn retry_catalogue(&mut self) {
        if self.phase == Phase::Stopping {
            self.catalogue.stop_tries += 1;
            if self.catalogue.has_given_up() {
                storage::sometimes!("a stop leaves a call of the catalogue to the next start");
                self.counters.left_undone += self.catalogue.later.len() as u64;
                return;
            }
        }
        for call in std::mem::take(&mut self.catalogue.later) {
            storage::sometimes!("a fence or a tombstone is written at a second try");
            self.call_catalogue(Asker::Nobody, call);
        }
    }

    /// The batch that holds the catalogue's last commit.
    pub(super) fn catalogue_sequence(&self) -> storage::log::Sequence {
        let volume = self.tenants.get(self.catalogue_key).and_then(|t| t.volume.as_ref());
        volume.and_then(|volume| volume.last_sequence()).unwrap_or_default()
    }

    /// Fences whose rows are durable now.
    fn settle_fences(&mut self) {
        if self.catalogue.fences.is_empty() {
            return;
        }
        let durable = self.durable();
        let fences = &mut self.catalogue.fences;
        fences.retain(|_, fence| fence.recorded.is_none_or(|sequence| sequence > durable));
        if fences.is_empty() {
            self.trim_log();
        }
    }

    /// Checkpoints whose row is durable now: the log need not keep what they cover.
    pub(super) fn settle_checkpoints(&mut self) {
        self.settle_fences();
        let durable = self.durable();
        let unsettled = std::mem::take(&mut self.catalogue.unsettled);
        let (settled, left): (Vec<_>, Vec<_>) =
            unsettled.into_iter().partition(|&(sequence, ..)| sequence <= durable);
        self.catalogue.unsettled = left;
        for (_, key, txid, stamp) in settled {
            self.checkpoint_settled(key, txid, stamp);
        }
    }

    pub(super) fn fence_in_catalogue(&mut self, id: TenantId, reason: String) {
        let fence = Fence { reason: reason.clone(), recorded: None };
        self.catalogue.fences.insert(id, fence);
        self.call_catalogue(Asker::Nobody, Call::Fence(id, reason));
    }

    /// Ask for the row of a tenant that is being opened, for somebody who may have it made if it is not
    /// there.
    pub(super) fn find_in_catalogue(&mut self, key: Key, name: String, make: bool) {
        let call = if make {
            Call::Create { name, exists_ok: true, change: Change::default() }
        } else {
            Call::Find(name)
        };
        self.call_catalogue(Asker::Opening(key), call);
    }
}
