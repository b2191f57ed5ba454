//! The Io of a real host: `HostIo` keeps the books, a `Backend` does the work.
//!
//! Owns every descriptor, the operations in flight, the ids and the order of callbacks; so the
//! seam's promises are kept here, once, for both backends. Leaves to the backend how an operation
//! reaches the kernel and how one waits (`uring`, `poll`).
//!
//! Invariants:
//! - An operation sits in `operations` from submit until its callback is called. It has at most
//!   one entry in `ended`, and then the backend has let go of its buffer and paths.
//! - A descriptor is closed only after the last operation naming it has ended. `close_socket`
//!   only marks the socket, wakes its operations and cancels them; the last one closes.
//! - A refused operation (dead id, bad path) takes the same way through `ended`, so its callback
//!   is deferred like any other.

mod disk;
mod network;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

use slab::Slab;

use super::kernel;
use super::operation::{Call, Ended, Operation, OperationKey, Outcome, Request};
use super::table::Table;
use super::{
    Accepted, Clock, Done, Entropy, Instant, Io, Opened, Received, Sent, Token, Transferred,
    WallTime,
};
use disk::File;
use network::{Listener, Socket};

/// Callbacks of one `run`, so that the turn between two runs comes soon: 1,024 callbacks of about
/// 2 us are 2 ms.
const CALLBACKS_PER_RUN_MAX: usize = 1024;

/// Why a backend's wait came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something ended, or the time was up.
    Ready,
    /// A signal arrived, or the backend cannot tell that none did.
    Interrupted,
}

/// How operations reach the kernel.
pub trait Backend {
    /// Whether sockets must not block.
    const NONBLOCKING: bool;

    /// Take over an operation. What the request points to stays where it is until `ended` has it.
    fn start(&mut self, key: OperationKey, request: &mut Request, ended: &mut VecDeque<Ended>);

    /// End the operation soon, if it has not ended already.
    fn cancel(&mut self, key: OperationKey, request: &Request, ended: &mut VecDeque<Ended>);

    /// Close a descriptor that no operation names any more.
    fn close(&mut self, descriptor: OwnedFd);

    /// Submit what was started, wait until something ends or `timeout_ns` is over, and append
    /// what ended.
    fn wait<C>(
        &mut self,
        operations: &mut Slab<Operation<C>>,
        ended: &mut VecDeque<Ended>,
        timeout_ns: Option<u64>,
    ) -> Woken;

    /// What was started waits for `wait` to reach the kernel.
    fn has_queued(&mut self) -> bool;

    /// Wait until the kernel holds nothing of any operation. False if that cannot be had: then
    /// the operations must be leaked, for the kernel may still write into their buffers.
    fn drain<C>(&mut self, operations: &mut Slab<Operation<C>>) -> bool;
}

/// The Io of a real host, on one data folder. `UringIo` and `PollIo` are its two kinds.
pub struct HostIo<W, B: Backend> {
    backend: B,
    folder: OwnedFd,
    operations: Slab<Operation<Call<W, Self>>>,
    next_generation: u32,
    ended: VecDeque<Ended>,
    sockets: Table<Socket>,
    files: Table<File>,
    /// A handful, so they are searched in order; their ids are never used twice.
    listeners: Vec<Listener>,
    next_listener: u32,
}

impl<W, B: Backend> HostIo<W, B> {
    /// An Io with nothing open, on an existing folder.
    pub(super) fn new(backend: B, data_folder: &Path) -> io::Result<Self> {
        Ok(HostIo {
            backend,
            folder: kernel::open_folder(data_folder)?,
            operations: Slab::new(),
            next_generation: 0,
            ended: VecDeque::new(),
            sockets: Table::new(),
            files: Table::new(),
            listeners: Vec::new(),
            next_listener: 0,
        })
    }

    fn enter(&mut self, token: Token, request: Request, call: Call<W, Self>) -> OperationKey {
        let entry = self.operations.vacant_entry();
        let key = OperationKey::new(entry.key(), self.next_generation);
        self.next_generation = self.next_generation.wrapping_add(1);
        entry.insert(Operation { key, token, request, call });
        key
    }

    fn submit(&mut self, token: Token, request: Request, call: Call<W, Self>) -> OperationKey {
        let key = self.enter(token, request, call);
        self.start(key);
        key
    }

    fn start(&mut self, key: OperationKey) {
        let request = &mut self.operations[key.index()].request;
        self.backend.start(key, request, &mut self.ended);
    }

    fn refuse(&mut self, token: Token, request: Request, call: Call<W, Self>, error: io::Error) {
        let key = self.enter(token, request, call);
        let result = Err(error);
        self.ended.push_back(Ended { key, result });
    }

    fn cancel(&mut self, key: OperationKey) {
        let request = &self.operations[key.index()].request;
        self.backend.cancel(key, request, &mut self.ended);
    }

    /// Call the callbacks of what has ended until now, a bounded number. Returns how many ran.
    fn dispatch(&mut self, world: &mut W) -> usize {
        let mut called_count = 0;
        for _ in 0..self.ended.len().min(CALLBACKS_PER_RUN_MAX) {
            let Some(ended) = self.ended.pop_front() else {
                break;
            };
            let operation = &self.operations[ended.key.index()];
            assert!(operation.key == ended.key, "an operation ends once");
            if let Some(ended) = self.next_step(ended) {
                self.end(world, ended);
                called_count += 1;
            }
        }
        called_count
    }

    /// Operations of several steps go on here; what comes back has really ended.
    fn next_step(&mut self, ended: Ended) -> Option<Ended> {
        let Ended { key, result } = ended;
        let operation = &mut self.operations[key.index()];
        match result {
            Err(error) if goes_again(&error, &operation.request) => {
                self.start(key);
                None
            }
            Ok(Outcome::Descriptor(directory)) if matches!(operation.call, Call::Names(_)) => {
                operation.request = Request::SyncDirectory { directory };
                self.start(key);
                None
            }
            result => Some(Ended { key, result }),
        }
    }

    fn end(&mut self, world: &mut W, ended: Ended) {
        let operation = self.operations.remove(ended.key.index());
        let Operation { token, request, call, .. } = operation;
        let result = ended.result;
        match call {
            Call::Accept(listener, done) => {
                let result = self.end_accept(listener, result);
                done(world, self, token, Accepted { result });
            }
            Call::Receive(socket, done) => {
                let Request::Receive { buffer, .. } = request else {
                    unreachable!("a receive was submitted as one");
                };
                let result = self.end_on_socket(socket, ended.key, count(result));
                done(world, self, token, Received { buffer, result });
            }
            Call::Send(socket, done) => {
                let Request::Send { buffer, .. } = request else {
                    unreachable!("a send was submitted as one");
                };
                let result = self.end_on_socket(socket, ended.key, count(result));
                done(world, self, token, Sent { buffer, result });
            }
            Call::Open(options, done) => {
                let result = self.end_open(options, &request, result);
                done(world, self, token, Opened { result });
            }
            Call::Transfer(file, done) => {
                let (Request::Read { buffer, .. } | Request::Write { buffer, .. }) = request else {
                    unreachable!("a transfer was submitted as one");
                };
                self.end_on_file(file);
                let result = count(result);
                done(world, self, token, Transferred { buffer, result });
            }
            Call::Allocate(file, size_bytes, done) => {
                let result = self.end_allocate(file, size_bytes, result);
                done(world, self, token, Done { result });
            }
            Call::File(file, done) => {
                self.end_on_file(file);
                let result = count(result).map(drop);
                done(world, self, token, Done { result });
            }
            Call::Names(done) => {
                let result = count(result).map(drop);
                done(world, self, token, Done { result });
            }
        }
    }
}

/// Whether the kernel has done nothing and should be asked again: after a signal, or when io_uring
/// lets a file's internal "would block" slip out, which means nothing to a regular file.
fn goes_again(error: &io::Error, request: &Request) -> bool {
    let on_bytes = matches!(request, Request::Read { .. } | Request::Write { .. });
    match error.kind() {
        ErrorKind::Interrupted => true,
        ErrorKind::WouldBlock => on_bytes,
        _ => false,
    }
}

/// The count of an operation that makes no descriptor.
fn count(result: io::Result<Outcome>) -> io::Result<usize> {
    match result? {
        Outcome::Count(count) => Ok(count),
        Outcome::Descriptor(_) => Err(ErrorKind::InvalidData.into()),
    }
}

impl<W, B: Backend> Clock for HostIo<W, B> {
    fn now(&self) -> Instant {
        Instant(kernel::monotonic_ns())
    }

    fn wall(&self) -> WallTime {
        WallTime(kernel::wall_ns())
    }
}

impl<W, B: Backend> Entropy for HostIo<W, B> {
    fn fill(&mut self, bytes: &mut [u8]) {
        kernel::fill_entropy(bytes);
    }
}

impl<W, B: Backend> Io<W> for HostIo<W, B> {
    fn run(&mut self, world: &mut W, deadline: Option<Instant>) {
        loop {
            let timeout_ns = if self.ended.is_empty() {
                deadline.map(|deadline| deadline.since(self.now()))
            } else {
                Some(0)
            };
            let woken = self.backend.wait(&mut self.operations, &mut self.ended, timeout_ns);
            // What ended may be only a step of an operation; then nothing is called yet.
            if self.dispatch(world) > 0 || woken == Woken::Interrupted {
                return;
            }
            if deadline.is_some_and(|deadline| self.now() >= deadline) {
                return;
            }
        }
    }

    fn submit(&mut self) {
        if self.backend.has_queued() {
            // Whether a signal came is asked after the turn, as always.
            self.backend.wait(&mut self.operations, &mut self.ended, Some(0));
        }
    }

    fn in_flight(&self) -> usize {
        self.operations.len()
    }
}

impl<W, B: Backend> Drop for HostIo<W, B> {
    /// Ends what waits for peers, lets disk operations finish, and calls nobody.
    fn drop(&mut self) {
        for socket in self.sockets.iter() {
            kernel::shut_down(&socket.descriptor);
        }
        for listener in &self.listeners {
            kernel::shut_down(&listener.descriptor);
        }
        for (_, operation) in &self.operations {
            if operation.request.waits_for_peer() {
                let (key, request) = (operation.key, &operation.request);
                self.backend.cancel(key, request, &mut self.ended);
            }
        }
        if !self.backend.drain(&mut self.operations) {
            std::mem::forget(std::mem::take(&mut self.operations));
        }
    }
}
