//! Readiness (epoll, kqueue): the fallback where io_uring is refused or missing.
//!
//! Owns the poller and who waits for which socket. Leaves ids, buffers and callbacks to `HostIo`.
//! Sockets do not block: an operation is tried once, and again when its socket is ready. Disk
//! operations are plain system calls inside `wait`, so they block the loop; that is the price of
//! the fallback, and a thread pool would cost determinism for a case that production avoids.
//!
//! Invariants:
//! - An operation is in `queue`, or in one source's lists, or has ended: never in two of them.
//! - A source is armed for what its lists hold; readiness is reported once per arming.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use polling::{Event, Events, Poller};
use rustix::fs::{AtFlags, FallocateFlags, Mode};
use rustix::io::Errno;
use slab::Slab;

use super::host::{Backend, HostIo, Woken};
use super::kernel;
use super::operation::{Descriptor, Ended, Operation, OperationKey, Outcome, Request};

/// Operations tried in one wait, so that a burst of disk operations does not starve the sockets.
const ATTEMPTS_PER_WAIT_MAX: usize = 256;

/// The longest wait. The poller goes on waiting when a signal arrives, so a caller that watches
/// for signals is woken this often.
const WAIT_NS_MAX: u64 = 100_000_000;

/// The Io over epoll or kqueue, for the world `W`.
pub type PollIo<W> = HostIo<W, Poll>;

impl<W> HostIo<W, Poll> {
    /// Open the Io on an existing data folder; creates nothing.
    ///
    /// # Errors
    /// What opening the folder or the poller answers.
    pub fn open(data_folder: &Path) -> io::Result<Self> {
        HostIo::new(Poll::new()?, data_folder)
    }
}

/// Who waits for one socket or listener.
#[derive(Default)]
struct Source {
    registered: bool,
    /// A receive, or accepts in their order.
    reading: VecDeque<OperationKey>,
    writing: Option<OperationKey>,
}

/// The poller, and what waits for it.
pub struct Poll {
    poller: Poller,
    /// Out only while they are handled. Their storage is reused from wait to wait.
    events: Option<Events>,
    /// Started and not tried yet, in order.
    queue: VecDeque<OperationKey>,
    /// By descriptor number: these are small and dense.
    sources: Vec<Source>,
}

impl Poll {
    fn new() -> io::Result<Poll> {
        Ok(Poll {
            poller: Poller::new()?,
            events: Some(Events::new()),
            queue: VecDeque::new(),
            sources: Vec::new(),
        })
    }

    /// Try operations that were not tried yet.
    fn try_queue<C>(&mut self, operations: &mut Slab<Operation<C>>, ended: &mut VecDeque<Ended>) {
        for _ in 0..self.queue.len().min(ATTEMPTS_PER_WAIT_MAX) {
            let Some(key) = self.queue.pop_front() else {
                break;
            };
            if let Some(descriptor) = self.try_one(key, operations, ended) {
                self.arm_or_end(descriptor, key, ended);
            }
        }
    }

    /// Try an operation. If it has to wait, returns the descriptor that its source needs armed.
    fn try_one<C>(
        &mut self,
        key: OperationKey,
        operations: &mut Slab<Operation<C>>,
        ended: &mut VecDeque<Ended>,
    ) -> Option<Descriptor> {
        let operation = &mut operations[key.index()];
        assert!(operation.key == key, "a waiting operation has not ended");
        let result = attempt(&mut operation.request);
        let blocked = matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock);
        let Some(descriptor) = peer_descriptor(&operation.request).filter(|_| blocked) else {
            ended.push_back(Ended { key, result });
            return None;
        };
        let source = self.source(descriptor);
        if matches!(operation.request, Request::Send { .. }) {
            assert!(source.writing.is_none(), "one send per socket");
            source.writing = Some(key);
        } else {
            source.reading.push_back(key);
        }
        Some(descriptor)
    }

    /// Arm a source; if the poller cannot, end the operation that waits on it.
    fn arm_or_end(
        &mut self,
        descriptor: Descriptor,
        key: OperationKey,
        ended: &mut VecDeque<Ended>,
    ) {
        if let Err(error) = self.arm(descriptor) {
            assert!(self.forget(descriptor, key), "it waits here");
            let result = Err(error);
            ended.push_back(Ended { key, result });
        }
    }

    fn source(&mut self, descriptor: Descriptor) -> &mut Source {
        let index = usize::try_from(descriptor.raw()).expect("a live descriptor");
        if index >= self.sources.len() {
            self.sources.resize_with(index + 1, Source::default);
        }
        &mut self.sources[index]
    }

    /// Ask for what the source's lists wait for.
    fn arm(&mut self, descriptor: Descriptor) -> io::Result<()> {
        let source = self.source(descriptor);
        let (reads, writes) = (!source.reading.is_empty(), source.writing.is_some());
        let registered = std::mem::replace(&mut source.registered, true);
        let index = usize::try_from(descriptor.raw()).expect("a live descriptor");
        let interest = Event::new(index, reads, writes);
        if registered {
            return self.poller.modify(descriptor.borrow(), interest);
        }
        // SAFETY: `close` takes the descriptor out of the poller before closing it.
        let added = unsafe { self.poller.add(descriptor.raw(), interest) };
        if added.is_err() {
            self.source(descriptor).registered = false;
        }
        added
    }

    /// Take an operation out of its source. True if it was there.
    fn forget(&mut self, descriptor: Descriptor, key: OperationKey) -> bool {
        let source = self.source(descriptor);
        if source.writing == Some(key) {
            source.writing = None;
            return true;
        }
        let position = source.reading.iter().position(|&reading| reading == key);
        position.and_then(|position| source.reading.remove(position)).is_some()
    }

    /// A source is ready: its operations are tried again, and wait again if that was wrong.
    fn on_ready<C>(
        &mut self,
        event: Event,
        operations: &mut Slab<Operation<C>>,
        ended: &mut VecDeque<Ended>,
    ) {
        let Some(source) = self.sources.get_mut(event.key) else {
            return;
        };
        let reading_count = if event.readable { source.reading.len() } else { 0 };
        let writing = if event.writable { source.writing.take() } else { None };
        for _ in 0..reading_count {
            if let Some(key) = self.sources[event.key].reading.pop_front() {
                self.try_one(key, operations, ended);
            }
        }
        if let Some(key) = writing {
            self.try_one(key, operations, ended);
        }
        // The event disarmed both directions, so whoever waits still needs arming.
        let source = &self.sources[event.key];
        if let Some(waiting) = source.reading.front().copied().or(source.writing) {
            let descriptor = peer_descriptor(&operations[waiting.index()].request);
            let descriptor = descriptor.expect("only operations with a peer wait");
            self.arm_or_end(descriptor, waiting, ended);
        }
    }
}

/// The socket or listener that a request waits on.
fn peer_descriptor(request: &Request) -> Option<Descriptor> {
    match request {
        Request::Accept { listener } => Some(*listener),
        Request::Receive { socket, .. } | Request::Send { socket, .. } => Some(*socket),
        _ => None,
    }
}

/// Do it, without waiting for a peer.
fn attempt(request: &mut Request) -> io::Result<Outcome> {
    match request {
        Request::Accept { listener } => accept(listener.borrow()).map(Outcome::Descriptor),
        Request::Receive { socket, buffer } => {
            let spare = rustix::buffer::spare_capacity(buffer);
            let flags = rustix::net::RecvFlags::empty();
            let (_, received) = rustix::net::recv(socket.borrow(), spare, flags)?;
            Ok(Outcome::Count(received))
        }
        Request::Send { socket, buffer, offset } => {
            let sent = rustix::net::send(socket.borrow(), &buffer[*offset..], SEND_FLAGS)?;
            Ok(Outcome::Count(sent))
        }
        Request::Open { folder, path, flags } => {
            let mode = Mode::from_raw_mode(kernel::FILE_MODE as _);
            let opened = rustix::fs::openat(folder.borrow(), path.as_c_str(), *flags, mode)?;
            Ok(Outcome::Descriptor(opened))
        }
        Request::Read { file, buffer, offset } => {
            Ok(Outcome::Count(rustix::io::pread(file.borrow(), &mut buffer[..], *offset)?))
        }
        Request::Write { file, buffer, offset } => {
            Ok(Outcome::Count(rustix::io::pwrite(file.borrow(), buffer, *offset)?))
        }
        request => attempt_without_bytes(request).map(|()| Outcome::Count(0)).map_err(Into::into),
    }
}

fn attempt_without_bytes(request: &Request) -> Result<(), Errno> {
    use rustix::fs;
    match request {
        Request::Sync { file } => sync_data(file.borrow()),
        Request::SyncDirectory { directory } => fs::fsync(directory),
        Request::Truncate { file, size_bytes } => fs::ftruncate(file.borrow(), *size_bytes),
        Request::Allocate { file, size_bytes } => {
            fs::fallocate(file.borrow(), FallocateFlags::empty(), 0, *size_bytes)
        }
        Request::MakeDirectory { folder, path } => {
            let mode = Mode::from_raw_mode(kernel::DIRECTORY_MODE as _);
            fs::mkdirat(folder.borrow(), path.as_c_str(), mode)
        }
        Request::Rename { folder, from, to } => {
            let folder = folder.borrow();
            fs::renameat(folder, from.as_c_str(), folder, to.as_c_str())
        }
        Request::Remove { folder, path } => {
            fs::unlinkat(folder.borrow(), path.as_c_str(), AtFlags::empty())
        }
        _ => unreachable!("`attempt` has the others, and a refused request is never started"),
    }
}

/// `fsync` on macOS stops at the drive's cache.
#[cfg(target_vendor = "apple")]
fn sync_data(file: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fcntl_fullfsync(file)
}

#[cfg(not(target_vendor = "apple"))]
fn sync_data(file: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fdatasync(file)
}

/// Where this flag is missing, the socket carries `SO_NOSIGPIPE`.
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: rustix::net::SendFlags = rustix::net::SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: rustix::net::SendFlags = rustix::net::SendFlags::empty();

#[cfg(target_os = "linux")]
fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    Ok(rustix::net::accept_with(listener, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let socket = rustix::net::accept(listener)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

impl Backend for Poll {
    const NONBLOCKING: bool = true;

    fn start(&mut self, key: OperationKey, _request: &mut Request, _ended: &mut VecDeque<Ended>) {
        self.queue.push_back(key);
    }

    fn cancel(&mut self, key: OperationKey, request: &Request, ended: &mut VecDeque<Ended>) {
        let position = self.queue.iter().position(|&queued| queued == key);
        let queued = position.and_then(|position| self.queue.remove(position)).is_some();
        let descriptor = peer_descriptor(request);
        if queued || descriptor.is_some_and(|descriptor| self.forget(descriptor, key)) {
            let result = Err(Errno::CANCELED.into());
            ended.push_back(Ended { key, result });
        }
    }

    fn close(&mut self, descriptor: OwnedFd) {
        let index = usize::try_from(descriptor.as_raw_fd()).expect("a live descriptor");
        let Some(source) = self.sources.get_mut(index) else {
            return;
        };
        assert!(source.reading.is_empty(), "nobody reads from a closed descriptor");
        assert!(source.writing.is_none(), "nobody writes to a closed descriptor");
        if std::mem::take(&mut source.registered) {
            // The close takes it out as well, unless a child process holds a copy.
            let _gone = self.poller.delete(descriptor.as_fd());
        }
    }

    fn wait<C>(
        &mut self,
        operations: &mut Slab<Operation<C>>,
        ended: &mut VecDeque<Ended>,
        timeout_ns: Option<u64>,
    ) -> Woken {
        self.try_queue(operations, ended);
        let timeout_ns = timeout_ns.unwrap_or(u64::MAX);
        let busy = !ended.is_empty() || !self.queue.is_empty();
        let wait_ns = if busy { 0 } else { timeout_ns.min(WAIT_NS_MAX) };
        let mut events = self.events.take().expect("back since the last wait");
        events.clear();
        let answer = self.poller.wait(&mut events, Some(Duration::from_nanos(wait_ns)));
        for event in events.iter() {
            self.on_ready(event, operations, ended);
        }
        let silent = events.is_empty();
        self.events = Some(events);
        match answer {
            Err(error) => panic!("the poller is broken: {error}"),
            // Cut short: some signal may have come.
            Ok(_) if silent && !busy && wait_ns < timeout_ns => Woken::Interrupted,
            Ok(_) => Woken::Ready,
        }
    }

    fn has_queued(&mut self) -> bool {
        !self.queue.is_empty()
    }

    /// Nothing is ever left in the kernel.
    fn drain<C>(&mut self, _operations: &mut Slab<Operation<C>>) -> bool {
        true
    }
}
