//! From an unread log to serving.
//!
//! Folders are made, the log is scanned, the catalogue is opened on what the scan found of it, and
//! the rows of the tenants that the log names are read. Their pages are not written to their files
//! here: a recovered tenant opens with its pages read from the log (`volume`, overlay), and a
//! checkpoint in the background brings them into its file. So a start costs one pass over the log,
//! whatever the number of tenants.

use std::io::ErrorKind;

use storage::io::{Clock, OpenOptions};
use storage::log::{Log, LogOptions, LogReply, LogRequestId, Recovered, RecoveryError, Scan};
use storage::sometimes;
use storage::{TEMPORARY_FOLDER, TENANTS_FOLDER, TenantId};

use super::context::Job;
use super::control::Asker;
use super::disk::{DiskOperation, DiskReply, LOG_FOLDER, Operation};
use super::life::Tenant;
use super::{Engine, Event, Failure, Phase};
use crate::catalogue::{Call, DatabaseRow, Outcome, RowState, Started};

/// See the head of the file.
pub(super) struct Startup {
    stage: Stage,
    options: LogOptions,
}

enum Stage {
    /// Before the first turn.
    New,
    /// Making folders: this many are left.
    Folders(usize),
    Scan(Box<Scan>),
    /// Looking whether the catalogue has a file.
    CatalogueFile(Vec<storage::log::Damage>),
    /// Reading rows.
    Rows(Vec<storage::log::Damage>),
}

const FOLDERS: [&str; 3] = [LOG_FOLDER, TENANTS_FOLDER, TEMPORARY_FOLDER];

impl Startup {
    pub fn new(options: LogOptions) -> Startup {
        Startup { stage: Stage::New, options }
    }
}

impl<J: Job> Engine<J> {
    pub(super) fn pump_startup(&mut self) {
        if self.phase != Phase::Starting {
            return;
        }
        let Some(startup) = &mut self.startup else { return };
        match &mut startup.stage {
            Stage::New => {
                startup.stage = Stage::Folders(FOLDERS.len());
                for folder in FOLDERS {
                    self.ask_disk(Operation::Startup, DiskOperation::MakeDirectory(folder.into()));
                }
            }
            Stage::Scan(scan) => {
                if let Some(request) = scan.next_request() {
                    return self.submit_log(request);
                }
                if let Some(outcome) = scan.outcome() {
                    self.scanned(outcome);
                }
            }
            Stage::Folders(_) | Stage::CatalogueFile(_) | Stage::Rows(_) => {}
        }
    }

    pub(super) fn on_startup_disk(&mut self, reply: DiskReply) {
        let Some(startup) = &mut self.startup else { return };
        match (&mut startup.stage, reply) {
            (Stage::Folders(left), DiskReply::Done(result)) => {
                *left -= 1;
                let last = *left == 0;
                if let Err(error) = result
                    && error.kind() != ErrorKind::AlreadyExists
                {
                    let text = format!("the data folder cannot be written: {error}");
                    return self.fail(Failure::Start(text));
                }
                if last {
                    startup.stage = Stage::Scan(Box::new(Scan::new(startup.options)));
                    self.pump_startup();
                }
            }
            (Stage::CatalogueFile(damaged), DiskReply::Opened(result)) => {
                let damaged = std::mem::take(damaged);
                let exists = match result {
                    // An empty one is a first checkpoint that a crash cut short: it makes the file
                    // before it waits for the log, and writes to it after.
                    Ok((file, size_bytes)) => {
                        self.close_file(file);
                        size_bytes > 0
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => false,
                    Err(error) => {
                        let text = format!("the catalogue's file cannot be opened: {error}");
                        return self.fail(Failure::Start(text));
                    }
                };
                self.open_catalogue(exists, damaged);
            }
            _ => panic!("the disk's reply is of another kind than its request"),
        }
    }

    /// A log request ended, of the scan or of the log in service.
    pub(super) fn complete_log(&mut self, id: LogRequestId, reply: LogReply) {
        if let Some(log) = &mut self.log {
            log.complete(id, reply);
            self.settle_logged();
            self.open_gate();
            self.settle_checkpoints();
            self.settle_removals();
            self.retry_batch_waiters();
            self.retry_log_waiters();
            return;
        }
        if let Some(Startup { stage: Stage::Scan(scan), .. }) = &mut self.startup {
            scan.complete(id, reply);
            self.pump_startup();
        }
    }

    fn scanned(&mut self, outcome: Result<Recovered, RecoveryError>) {
        let recovered = match outcome {
            Ok(recovered) => recovered,
            Err(error) => {
                let text = format!("the commit log cannot be recovered: {error}");
                return self.fail(Failure::Start(text));
            }
        };
        self.log = Some(recovered.log);
        self.recovered = recovered.tenants;
        for (&id, tenant) in &self.recovered {
            self.dirty.insert((tenant.first_sequence, id));
        }
        if let Some(damage) = recovered.damaged.iter().find(|d| d.tenant == TenantId::CATALOGUE) {
            let text = format!("the catalogue is damaged in the commit log: {}", damage.reason);
            return self.fail(Failure::Start(text));
        }
        let startup = self.startup.as_mut().expect("the start goes on");
        startup.stage = Stage::CatalogueFile(recovered.damaged);
        let path = TenantId::CATALOGUE.paths().file;
        self.ask_disk(Operation::Startup, DiskOperation::Open(path, OpenOptions::READ));
    }

    fn open_catalogue(&mut self, exists: bool, damaged: Vec<storage::log::Damage>) {
        let stamp = self.log.as_ref().map_or(0, Log::catalogue_stamp);
        let first = self.recovered.get(&TenantId::CATALOGUE).map(|tenant| tenant.first_txid);
        // Never checkpointed, it is all in the log; with no transaction there it was never made. A first
        // start may have ended between two batches of the one that makes it.
        let fresh = stamp == 0 && first.is_none();
        if fresh && self.log.as_ref().is_some_and(|log| log.filling_sequence().0 > 1) {
            sometimes!("a first start ends before the catalogue is made");
        }
        if !exists && !fresh && first != Some(1) {
            let text = "the catalogue's file (tenants/00/00/0.db) is missing and the commit log \
                        does not hold all of it: restore the data folder from a backup";
            return self.fail(Failure::Start(text.into()));
        }
        let key = self.tenants.insert(Tenant::catalogue());
        self.catalogue_key = key;
        self.open_row(
            key,
            DatabaseRow { file: exists, stamp, ..DatabaseRow::new(TenantId::CATALOGUE, "", 0) },
        );
        let mut ids: Vec<TenantId> = self.recovered.keys().copied().collect();
        ids.extend(damaged.iter().map(|damage| damage.tenant));
        let startup = self.startup.as_mut().expect("the start goes on");
        startup.stage = Stage::Rows(damaged);
        self.call_catalogue(Asker::Startup, Call::Start(ids));
        self.pump_catalogue();
    }

    /// The rows of tenants in the log, and of those whose files are still to be removed.
    pub(super) fn startup_rows(&mut self, outcome: Outcome) {
        if self.phase != Phase::Starting {
            // It was told to stop meanwhile.
            return;
        }
        let Started { rows, plans, signing, has_admin, rearming } = match outcome {
            Outcome::Started(started) => *started,
            Outcome::Failed(text) => return self.fail(Failure::Start(text)),
            Outcome::Full => {
                let text = "there is no room for the catalogue in the commit log or on its disk";
                return self.fail(Failure::Start(text.into()));
            }
            _ => unreachable!("rows were asked for"),
        };
        let Some(Startup { stage: Stage::Rows(damaged), .. }) = self.startup.take() else {
            unreachable!("the start reads rows last")
        };
        if self.phase == Phase::Failed {
            return;
        }
        self.phase = Phase::Serving;
        self.catalogue.signing = signing;
        self.catalogue.has_admin = has_admin;
        self.catalogue.plans = plans.into_iter().map(|plan| (plan.name, plan.budget)).collect();
        // What is left of a tenant that is damaged in the log is not to be opened, nor to be
        // brought into its file: without its damaged pages it is another database.
        for damage in &damaged {
            self.recovered.remove(&damage.tenant);
        }
        let mut dropped = Vec::new();
        for row in rows {
            match row.state {
                RowState::Building => {
                    sometimes!("a start removes what was being built");
                    // Whoever asks for the name from now on finds it free, however long the rest takes.
                    self.call_catalogue(Asker::Nobody, Call::GiveUp(row.id));
                    dropped.push(row.id);
                }
                RowState::Dropped => {
                    sometimes!("a start removes what was dropped before");
                    dropped.push(row.id);
                }
                RowState::Live if self.recovered.contains_key(&row.id) => {
                    self.recovered_rows.insert(row.id, row);
                }
                RowState::Live | RowState::Fenced => {}
            }
        }
        // What the log holds of dropped, fenced or never committed tenants is of no use.
        let keep = &self.recovered_rows;
        self.recovered.retain(|id, _| keep.contains_key(id));
        self.dirty.retain(|(_, id)| *id == TenantId::CATALOGUE || keep.contains_key(id));
        for id in dropped {
            // It may have a file that the catalogue never heard of.
            self.remove_dropped(id, true);
        }
        for damage in damaged {
            sometimes!("a start fences a tenant");
            self.counters.fences += 1;
            self.fence_in_catalogue(damage.tenant, damage.reason);
        }
        self.begin_mortality(rearming);
        self.emit(Event::Ready);
    }

    /// End a doomed world (a simulated crash): every wait fails, every fiber runs to its end,
    /// everything is given back.
    ///
    /// # Panics
    /// If a fiber does not end, or something is left on an account: leaks are bugs.
    pub fn doom(mut self, clock: &dyn Clock) {
        if self.phase == Phase::Starting {
            sometimes!("a crash interrupts a start");
        }
        if self.checkpoints_running > 0 {
            sometimes!("a crash interrupts a checkpoint");
        }
        if self.phase == Phase::Stopping {
            sometimes!("a crash interrupts a stop");
        }
        if self.tenants.keys().iter().any(|key| self.is_sealing(*key)) {
            sometimes!("a crash interrupts a commit that is being sealed");
        }
        self.doomed = true;
        self.phase = Phase::Failed;
        for key in std::mem::take(&mut self.admission) {
            if let Some(tenant) = self.tenants.get_mut(key) {
                tenant.tasks -= tenant.queue.len();
                tenant.queue.clear();
            }
        }
        self.pump_aside();
        self.finish_fibers(clock);
        for (tenant, pooled) in self.take_parked() {
            self.discard_doomed(tenant, vec![pooled]);
        }
        for key in self.tenants.keys() {
            let tenant = self.tenants.get_mut(key).expect("listed just now");
            let idle = std::mem::take(&mut tenant.idle);
            if !idle.is_empty() {
                self.discard_doomed(key, idle);
            }
        }
        self.finish_fibers(clock);
        self.close_doomed();
        assert_eq!(self.stacks.taken(), 0, "a fiber is left over");
    }

    /// The log, for reports.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }
}
