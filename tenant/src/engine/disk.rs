//! Disk operations: what is in flight for whom, and how each goes on when it ends.
//!
//! Short counts are continued here, folders of a tenant are made here, and a refused lock on a log
//! file is tried again for a while: a killed process's last write may still hold it (F9).

use std::io::{self, ErrorKind};

use storage::TEMPORARY_FOLDER;
use storage::fiber::Answer;
use storage::io::{Buffer, Create, FileId, OpenOptions, Token};
use storage::log::{LogFile, LogOperation, LogReply, LogRequest, LogRequestId, PageLocation};
use storage::page::PAGE_BYTES;
use storage::sometimes;

use super::context::Job;
use super::{Engine, Failure, Timer};
use crate::pool::Key;

/// The folder of the commit log.
pub(super) const LOG_FOLDER: &str = "log";
/// Nanoseconds between two tries to lock a log file.
const LOCK_RETRY_NS: u64 = 50_000_000;
/// Tries to lock a log file: 2 s.
const LOCK_TRIES_MAX: u32 = 40;

/// A disk operation for the server to submit.
#[derive(Debug)]
pub struct DiskRequest {
    /// Comes back with the reply.
    pub token: Token,
    /// What to do.
    pub operation: DiskOperation,
}

/// What the engine may ask of the disk; paths are relative to the data folder. All but `Close`
/// are answered through [`Engine::on_disk`].
#[derive(Debug)]
pub enum DiskOperation {
    /// Open a file; answered by [`DiskReply::Opened`].
    Open(String, OpenOptions),
    /// Read; answered by [`DiskReply::Moved`].
    Read(FileId, u64, Buffer),
    /// Write; answered by [`DiskReply::Moved`].
    Write(FileId, u64, Buffer),
    /// Sync.
    Sync(FileId),
    /// Set the size in bytes.
    Truncate(FileId, u64),
    /// Reserve space and set the size in bytes.
    Allocate(FileId, u64),
    /// Make a folder.
    MakeDirectory(String),
    /// Make the names in a folder durable.
    SyncDirectory(String),
    /// Remove a file's name.
    Remove(String),
    /// Close; never answered.
    Close(FileId),
}

/// How a disk operation ended.
#[derive(Debug)]
pub enum DiskReply {
    /// A file and its size in bytes.
    Opened(io::Result<(FileId, u64)>),
    /// The buffer and the bytes moved.
    Moved(Buffer, io::Result<usize>),
    /// All others.
    Done(io::Result<()>),
}

/// An operation in flight.
pub(super) enum Operation {
    Task(Key, Step),
    Log(LogRequestId, LogStep),
    Startup,
    RemoveTenant(storage::TenantId, RemoveStep),
}

/// How a task's operation goes on.
pub(super) enum Step {
    Main(OpenMain),
    Temporary,
    Transfer(Transfer),
    LogPage(PageLocation, Buffer, usize, usize),
    Plain,
}

pub(super) struct OpenMain {
    stage: Stage,
    create: bool,
    direct: bool,
    paths: storage::TenantPaths,
    new_outer: bool,
    new_inner: bool,
    opened: Option<(FileId, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Outer,
    Inner,
    Open,
    SyncInner,
    SyncOuter,
    SyncTenants,
    Done,
}

impl OpenMain {
    /// The file is open already; folders are being synced.
    pub fn has_opened(&self) -> bool {
        self.opened.is_some()
    }
}

/// A read or write that may take several operations.
pub(super) struct Transfer {
    write: bool,
    file: FileId,
    offset: u64,
    done: usize,
    /// The caller's buffer, while a smaller one is in flight for the rest.
    whole: Option<Buffer>,
}

pub(super) enum LogStep {
    Open(LogOpen),
    Allocate,
    Write,
    Read,
    Sync,
    SyncFolder,
    SyncParent,
}

/// A log file that is being opened and locked.
#[derive(Clone, Copy)]
pub(super) struct LogOpen {
    id: LogRequestId,
    file: LogFile,
    create: bool,
    tries: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RemoveStep {
    Remove,
    Sync,
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn answer_of(error: &io::Error) -> Answer {
    if is_full(error) { Answer::Full } else { Answer::Failed(error.kind()) }
}

impl<J: Job> Engine<J> {
    pub(super) fn ask_disk(&mut self, operation: Operation, what: DiskOperation) {
        let request = self.disk_request(operation, what);
        self.requests.push_back(request);
    }

    pub(super) fn disk_request(
        &mut self,
        operation: Operation,
        what: DiskOperation,
    ) -> DiskRequest {
        let key = self.operations.insert(operation);
        let token = Token { index: key.index, generation: key.generation };
        DiskRequest { token, operation: what }
    }

    pub(super) fn close_file(&mut self, file: FileId) {
        let operation = DiskOperation::Close(file);
        self.requests.push_back(DiskRequest { token: Token::default(), operation });
    }

    /// A disk operation has ended.
    ///
    /// # Panics
    /// If the token is unknown or the reply of another kind: a bug of the caller.
    pub fn on_disk(&mut self, token: Token, reply: DiskReply) {
        let key = Key { index: token.index, generation: token.generation };
        let operation = self.operations.remove(key).expect("the operation is in flight");
        match operation {
            Operation::Task(task, step) => self.on_task_disk(task, step, reply),
            Operation::Log(id, step) => self.on_log_disk(id, step, reply),
            Operation::Startup => self.on_startup_disk(reply),
            Operation::RemoveTenant(tenant, step) => self.on_removed(tenant, step, reply),
        }
    }

    // ---- for tasks ----

    fn on_task_disk(&mut self, task: Key, step: Step, reply: DiskReply) {
        self.transfer_ended(task);
        let answer = match (step, reply) {
            (Step::Main(open), reply) => self.on_open_main(task, open, reply),
            (Step::Temporary, DiskReply::Opened(result)) => Some(match result {
                Ok((file, size)) => Answer::Opened(file, size),
                Err(error) => answer_of(&error),
            }),
            (Step::Transfer(transfer), DiskReply::Moved(buffer, result)) => {
                self.on_transfer(task, transfer, buffer, result)
            }
            (Step::LogPage(location, page, skip, bytes), DiskReply::Moved(buffer, result)) => {
                Some(log_page(&location, page, skip, bytes, &buffer, result))
            }
            (Step::Plain, DiskReply::Done(result)) => Some(match result {
                Ok(()) => Answer::Ready,
                Err(error) => answer_of(&error),
            }),
            _ => panic!("the disk's reply is of another kind than its request"),
        };
        if let Some(answer) = answer {
            self.answer(task, answer);
        }
    }

    pub(super) fn ask_open_main(
        &mut self,
        task: Key,
        id: storage::TenantId,
        create: bool,
        direct: bool,
    ) {
        let open = OpenMain {
            stage: if create { Stage::Outer } else { Stage::Open },
            create,
            direct,
            paths: id.paths(),
            new_outer: false,
            new_inner: false,
            opened: None,
        };
        self.next_open_step(task, open);
    }

    fn next_open_step(&mut self, task: Key, open: OpenMain) {
        let paths = &open.paths;
        let what = match open.stage {
            Stage::Outer => DiskOperation::MakeDirectory(paths.outer.clone()),
            Stage::Inner => DiskOperation::MakeDirectory(paths.inner.clone()),
            Stage::Open => {
                let options = OpenOptions {
                    create: if open.create { Create::IfMissing } else { Create::Never },
                    write: !open.direct,
                    direct: open.direct,
                    data_sync: false,
                    lock: false,
                };
                DiskOperation::Open(paths.file.clone(), options)
            }
            Stage::SyncInner => DiskOperation::SyncDirectory(paths.inner.clone()),
            Stage::SyncOuter => DiskOperation::SyncDirectory(paths.outer.clone()),
            Stage::SyncTenants => DiskOperation::SyncDirectory(storage::TENANTS_FOLDER.into()),
            Stage::Done => unreachable!("nothing is left to do"),
        };
        self.ask_disk(Operation::Task(task, Step::Main(open)), what);
    }

    fn on_open_main(&mut self, task: Key, mut open: OpenMain, reply: DiskReply) -> Option<Answer> {
        let error = match reply {
            DiskReply::Opened(Ok(opened)) => {
                open.opened = Some(opened);
                None
            }
            DiskReply::Opened(Err(error)) | DiskReply::Done(Err(error)) => Some(error),
            DiskReply::Done(Ok(())) => {
                open.new_outer |= open.stage == Stage::Outer;
                open.new_inner |= open.stage == Stage::Inner;
                None
            }
            DiskReply::Moved(..) => panic!("nothing was to be moved"),
        };
        let folder = matches!(open.stage, Stage::Outer | Stage::Inner);
        if let Some(error) = error
            && !(folder && error.kind() == ErrorKind::AlreadyExists)
        {
            if let Some((file, _)) = open.opened {
                self.close_file(file);
            }
            return Some(answer_of(&error));
        }
        // A new name is durable only when its folder is synced, up to the first old one (F1). A
        // folder found there may be new and not durable yet (a crash came between): it is synced
        // too, and its parent costs little more.
        open.stage = match open.stage {
            Stage::Outer => Stage::Inner,
            Stage::Inner => Stage::Open,
            Stage::Open if open.create => Stage::SyncInner,
            Stage::SyncInner => Stage::SyncOuter,
            Stage::SyncOuter => Stage::SyncTenants,
            Stage::Open | Stage::SyncTenants | Stage::Done => Stage::Done,
        };
        if open.stage == Stage::Done {
            let (file, size) = open.opened.expect("the file was opened on the way");
            return Some(Answer::Opened(file, size));
        }
        self.next_open_step(task, open);
        None
    }

    pub(super) fn ask_temporary(&mut self, task: Key) {
        let options = OpenOptions {
            create: Create::Unnamed,
            write: true,
            direct: false,
            data_sync: false,
            lock: false,
        };
        let what = DiskOperation::Open(TEMPORARY_FOLDER.into(), options);
        self.ask_disk(Operation::Task(task, Step::Temporary), what);
    }

    pub(super) fn ask_transfer(
        &mut self,
        task: Key,
        write: bool,
        file: FileId,
        offset: u64,
        buffer: Buffer,
    ) {
        let transfer = Transfer { write, file, offset, done: 0, whole: None };
        self.transfer(task, transfer, buffer);
    }

    fn transfer(&mut self, task: Key, transfer: Transfer, buffer: Buffer) {
        let offset = transfer.offset + transfer.done as u64;
        let bytes = buffer.len() as u64;
        let what = if transfer.write {
            DiskOperation::Write(transfer.file, offset, buffer)
        } else {
            DiskOperation::Read(transfer.file, offset, buffer)
        };
        self.ask_transfer_of(task, Step::Transfer(transfer), what, bytes);
    }

    fn on_transfer(
        &mut self,
        task: Key,
        mut transfer: Transfer,
        buffer: Buffer,
        result: io::Result<usize>,
    ) -> Option<Answer> {
        let moved = match result {
            Ok(moved) => moved,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.transfer(task, transfer, buffer);
                return None;
            }
            Err(error) => return Some(answer_of(&error)),
        };
        let mut whole = match transfer.whole.take() {
            Some(mut whole) => {
                if !transfer.write {
                    whole[transfer.done..][..moved].copy_from_slice(&buffer[..moved]);
                }
                whole
            }
            None => buffer,
        };
        transfer.done += moved;
        if transfer.done == whole.len() || moved == 0 {
            return Some(Answer::Moved(whole, transfer.done));
        }
        sometimes!("a short transfer is continued");
        let rest = whole.len() - transfer.done;
        let mut part = Buffer::zeroed(rest);
        part.set_len(rest);
        if transfer.write {
            part.copy_from_slice(&whole[transfer.done..]);
        }
        let length = whole.len();
        whole.set_len(length);
        transfer.whole = Some(whole);
        self.transfer(task, transfer, part);
        None
    }

    pub(super) fn ask_plain(&mut self, task: Key, what: DiskOperation) {
        self.ask_disk(Operation::Task(task, Step::Plain), what);
    }

    pub(super) fn ask_log_page(&mut self, task: Key, location: PageLocation) {
        let plan = location.read_plan();
        let Some(&file) = self.log_files.get(&plan.file) else {
            self.answer(task, Answer::Failed(ErrorKind::NotFound));
            return;
        };
        let mut buffer = Buffer::zeroed(plan.bytes);
        buffer.set_len(plan.bytes);
        let step = Step::LogPage(location, Buffer::zeroed(PAGE_BYTES), plan.skip, plan.bytes);
        let what = DiskOperation::Read(file, plan.offset, buffer);
        self.ask_transfer_of(task, step, what, plan.bytes as u64);
    }

    // ---- for the log ----

    pub(super) fn submit_log(&mut self, request: LogRequest) {
        let LogRequest { id, operation } = request;
        let file_of = |engine: &Engine<J>, file: LogFile| engine.log_files[&file];
        let (step, what) = match operation {
            LogOperation::Open { file, create } => {
                return self.open_log_file(LogOpen { id, file, create, tries: 0 });
            }
            LogOperation::Allocate { file, bytes } => {
                (LogStep::Allocate, DiskOperation::Allocate(file_of(self, file), bytes))
            }
            LogOperation::Write { file, offset, buffer } => {
                (LogStep::Write, DiskOperation::Write(file_of(self, file), offset, buffer))
            }
            LogOperation::Read { file, offset, buffer } => {
                (LogStep::Read, DiskOperation::Read(file_of(self, file), offset, buffer))
            }
            LogOperation::Sync { file } => {
                (LogStep::Sync, DiskOperation::Sync(file_of(self, file)))
            }
            LogOperation::SyncDirectory => {
                (LogStep::SyncFolder, DiskOperation::SyncDirectory(LOG_FOLDER.into()))
            }
        };
        self.ask_disk(Operation::Log(id, step), what);
    }

    pub(super) fn open_log_file(&mut self, open: LogOpen) {
        let options = OpenOptions {
            create: if open.create { Create::IfMissing } else { Create::Never },
            write: true,
            direct: true,
            data_sync: true,
            lock: true,
        };
        let what = DiskOperation::Open(format!("{LOG_FOLDER}/{}", open.file.name()), options);
        self.ask_disk(Operation::Log(open.id, LogStep::Open(open)), what);
    }

    pub(super) fn retry_log_open(&mut self) {
        for open in std::mem::take(&mut self.log_opens) {
            self.open_log_file(open);
        }
    }

    fn on_log_disk(&mut self, id: LogRequestId, step: LogStep, reply: DiskReply) {
        let reply = match (step, reply) {
            (LogStep::Open(open), DiskReply::Opened(Err(error)))
                if error.kind() == ErrorKind::WouldBlock =>
            {
                sometimes!("a log file is still locked");
                if open.tries >= LOCK_TRIES_MAX {
                    return self.fail(Failure::InUse);
                }
                self.log_opens.push(LogOpen { tries: open.tries + 1, ..open });
                return self.set_timer(LOCK_RETRY_NS, Timer::LogOpen);
            }
            (LogStep::Open(open), DiskReply::Opened(result)) => {
                LogReply::Opened(result.map(|(handle, size)| {
                    self.log_files.insert(open.file, handle);
                    size
                }))
            }
            (LogStep::Write, DiskReply::Moved(buffer, result)) => LogReply::Written(buffer, result),
            (LogStep::Read, DiskReply::Moved(buffer, result)) => LogReply::Read(buffer, result),
            (LogStep::Allocate, DiskReply::Done(result)) => LogReply::Allocated(result),
            (LogStep::Sync, DiskReply::Done(result)) => LogReply::Synced(result),
            (LogStep::SyncFolder, DiskReply::Done(Ok(()))) => {
                let what = DiskOperation::SyncDirectory(String::new());
                return self.ask_disk(Operation::Log(id, LogStep::SyncParent), what);
            }
            (LogStep::SyncFolder | LogStep::SyncParent, DiskReply::Done(result)) => {
                LogReply::DirectorySynced(result)
            }
            _ => panic!("the disk's reply is of another kind than its request"),
        };
        self.complete_log(id, reply);
    }
}

fn log_page(
    location: &PageLocation,
    mut page: Buffer,
    skip: usize,
    bytes: usize,
    block: &Buffer,
    result: io::Result<usize>,
) -> Answer {
    match result {
        Err(error) => answer_of(&error),
        Ok(moved) if moved < bytes => Answer::Failed(ErrorKind::UnexpectedEof),
        Ok(_) => {
            page.copy_from_slice(&block[skip..skip + PAGE_BYTES]);
            let moved = if location.verify(&page) { PAGE_BYTES } else { 0 };
            Answer::Moved(page, moved)
        }
    }
}
