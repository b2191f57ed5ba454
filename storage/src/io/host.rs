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

use std::collections::VecDeque;
use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use slab::Slab;

use super::kernel;
use super::operation::{Call, Descriptor, Ended, Operation, OperationKey, Outcome, Request};
use super::table::Table;
use super::{
    Accepted, Callback, Clock, Create, Done, Entropy, FileId, Instant, Io, ListenerId, OpenOptions,
    Opened, Received, Sent, SocketId, Token, Transferred, WallTime,
};

/// Callbacks of one `run`, so that the turn between two runs comes soon: 1,024 callbacks of about
/// 2 us are 2 ms.
const CALLBACKS_PER_RUN_MAX: usize = 1024;

/// The kernel's offsets are signed, and io_uring takes -1 for "the file's own position".
const OFFSET_BYTES_MAX: u64 = i64::MAX as u64;

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

    /// Wait until the kernel holds nothing of any operation. False if that cannot be had: then
    /// the operations must be leaked, for the kernel may still write into their buffers.
    fn drain<C>(&mut self, operations: &mut Slab<Operation<C>>) -> bool;
}

struct Listener {
    id: ListenerId,
    descriptor: OwnedFd,
    accepts: u32,
    closing: bool,
}

struct Socket {
    descriptor: OwnedFd,
    receive: Option<OperationKey>,
    send: Option<OperationKey>,
    closing: bool,
}

struct File {
    descriptor: OwnedFd,
    operations: u32,
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
        entry.insert(Operation {
            key,
            token,
            request,
            call,
        });
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

    fn submit_names(
        &mut self,
        token: Token,
        request: io::Result<Request>,
        done: Callback<W, Self, Done>,
    ) {
        let call = Call::Names(done);
        match request {
            Ok(request) => {
                self.submit(token, request, call);
            }
            Err(error) => self.refuse(token, Request::Refused, call, error),
        }
    }

    fn folder(&self) -> Descriptor {
        Descriptor::of(&self.folder)
    }

    /// Note one more operation on a file; the dead descriptor if its id is dead.
    fn file_for_operation(&mut self, id: FileId) -> Descriptor {
        match self.files.find(id.index, id.generation) {
            Some(file) => {
                file.operations += 1;
                Descriptor::of(&file.descriptor)
            }
            None => Descriptor::DEAD,
        }
    }

    fn submit_on_file(
        &mut self,
        token: Token,
        file: Descriptor,
        request: Request,
        call: Call<W, Self>,
    ) {
        let beyond = match &request {
            Request::Read { offset, .. } | Request::Write { offset, .. } => {
                *offset > OFFSET_BYTES_MAX
            }
            _ => false,
        };
        if beyond {
            self.refuse(token, request, call, ErrorKind::InvalidInput.into());
        } else if file == Descriptor::DEAD {
            self.refuse(token, request, call, ErrorKind::NotFound.into());
        } else {
            self.submit(token, request, call);
        }
    }

    fn live_socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        let socket = self.sockets.find(id.index, id.generation)?;
        (!socket.closing).then_some(socket)
    }

    /// The socket's descriptor; the dead one if its id is dead.
    fn socket_for_operation(&mut self, id: SocketId) -> Descriptor {
        let socket = self.live_socket(id);
        socket.map_or(Descriptor::DEAD, |socket| {
            Descriptor::of(&socket.descriptor)
        })
    }

    fn listener_position(&self, id: ListenerId) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.id == id)
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
            match self.next_step(ended) {
                Some(ended) => {
                    self.end(world, ended);
                    called_count += 1;
                }
                None => continue,
            }
        }
        called_count
    }

    /// Operations of several steps go on here; what comes back has really ended.
    fn next_step(&mut self, ended: Ended) -> Option<Ended> {
        let Ended { key, result } = ended;
        let operation = &mut self.operations[key.index()];
        match result {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
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
        let Operation {
            token,
            request,
            call,
            ..
        } = operation;
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

    fn end_accept(
        &mut self,
        id: ListenerId,
        result: io::Result<Outcome>,
    ) -> io::Result<(SocketId, SocketAddr)> {
        // A refused accept names a listener that is gone.
        if let Some(position) = self.listener_position(id) {
            let listener = &mut self.listeners[position];
            let closing = listener.closing;
            assert!(listener.accepts > 0);
            listener.accepts -= 1;
            if closing {
                if listener.accepts == 0 {
                    let listener = self.listeners.swap_remove(position);
                    self.backend.close(listener.descriptor);
                }
                // A connection that came in meanwhile is closed here, with its outcome.
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
        let Outcome::Descriptor(descriptor) = result? else {
            return Err(ErrorKind::InvalidData.into());
        };
        let peer = kernel::prepare_connection(&descriptor)?;
        let (index, generation) = self.sockets.insert(Socket {
            descriptor,
            receive: None,
            send: None,
            closing: false,
        });
        Ok((SocketId { index, generation }, peer))
    }

    /// Note the end of a receive or a send, and close the socket if that was its last.
    fn end_on_socket(
        &mut self,
        id: SocketId,
        key: OperationKey,
        result: io::Result<usize>,
    ) -> io::Result<usize> {
        // A refused operation names a socket that is gone, or one that is closing without it.
        let Some(socket) = self.sockets.find(id.index, id.generation) else {
            return result;
        };
        if socket.receive == Some(key) {
            socket.receive = None;
        } else if socket.send == Some(key) {
            socket.send = None;
        }
        if !socket.closing {
            return result;
        }
        if socket.receive.is_none() && socket.send.is_none() {
            let socket = self.sockets.remove(id.index, id.generation);
            let socket = socket.expect("found a moment ago");
            self.backend.close(socket.descriptor);
        }
        match result {
            Ok(0) => Err(ErrorKind::ConnectionAborted.into()),
            Err(error) if error.kind() == ErrorKind::NotConnected => Err(error),
            Err(_) => Err(ErrorKind::ConnectionAborted.into()),
            Ok(count) => Ok(count),
        }
    }

    fn end_open(
        &mut self,
        options: OpenOptions,
        request: &Request,
        result: io::Result<Outcome>,
    ) -> io::Result<(FileId, u64)> {
        let unnamed = options.create == Create::Unnamed;
        let descriptor = match (result, request) {
            (Ok(Outcome::Descriptor(descriptor)), _) => descriptor,
            (Ok(Outcome::Count(_)), _) => return Err(ErrorKind::InvalidData.into()),
            (Err(error), Request::Open { path, .. })
                if unnamed && kernel::lacks_unnamed(&error) =>
            {
                kernel::create_then_remove(&self.folder, path, kernel::open_flags(options)?)?
            }
            (Err(error), _) => return Err(error),
        };
        let size_bytes = kernel::lock_and_measure(&descriptor, options)?;
        let operations = 0;
        let (index, generation) = self.files.insert(File {
            descriptor,
            operations,
        });
        Ok((FileId { index, generation }, size_bytes))
    }

    fn end_on_file(&mut self, id: FileId) {
        // A refused operation names a file that is gone.
        if let Some(file) = self.files.find(id.index, id.generation) {
            assert!(file.operations > 0);
            file.operations -= 1;
        }
    }

    fn end_allocate(
        &mut self,
        id: FileId,
        size_bytes: u64,
        result: io::Result<Outcome>,
    ) -> io::Result<()> {
        self.end_on_file(id);
        count(result)?;
        let file = self.files.find(id.index, id.generation);
        let file = file.ok_or(ErrorKind::NotFound)?;
        kernel::cut(&file.descriptor, size_bytes)
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

impl<W, B: Backend> super::Network<W> for HostIo<W, B> {
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        let (descriptor, bound) = kernel::listen(address, B::NONBLOCKING)?;
        let id = ListenerId(self.next_listener);
        self.next_listener = self
            .next_listener
            .checked_add(1)
            .expect("listeners are few");
        self.listeners.push(Listener {
            id,
            descriptor,
            accepts: 0,
            closing: false,
        });
        Ok((id, bound))
    }

    fn accept(&mut self, token: Token, listener: ListenerId, done: Callback<W, Self, Accepted>) {
        let call = Call::Accept(listener, done);
        let position = self.listener_position(listener);
        let open = position.filter(|&position| !self.listeners[position].closing);
        let Some(position) = open else {
            // Not counted on a closing listener, so it takes the name of one that never was.
            let call = Call::Accept(ListenerId(u32::MAX), done);
            return self.refuse(
                token,
                Request::Refused,
                call,
                ErrorKind::NotConnected.into(),
            );
        };
        self.listeners[position].accepts += 1;
        let listener = Descriptor::of(&self.listeners[position].descriptor);
        self.submit(token, Request::Accept { listener }, call);
    }

    fn receive(
        &mut self,
        token: Token,
        id: SocketId,
        buffer: Vec<u8>,
        done: Callback<W, Self, Received>,
    ) {
        assert!(buffer.capacity() > buffer.len(), "a receive needs room");
        let call = Call::Receive(id, done);
        let socket = self.socket_for_operation(id);
        let request = Request::Receive { socket, buffer };
        if socket == Descriptor::DEAD {
            return self.refuse(token, request, call, ErrorKind::NotConnected.into());
        }
        let key = self.submit(token, request, call);
        let receive = &mut self.live_socket(id).expect("found above").receive;
        assert!(receive.is_none(), "one receive per socket");
        *receive = Some(key);
    }

    fn send(
        &mut self,
        token: Token,
        id: SocketId,
        buffer: Vec<u8>,
        offset: usize,
        done: Callback<W, Self, Sent>,
    ) {
        assert!(offset <= buffer.len());
        let call = Call::Send(id, done);
        let socket = self.socket_for_operation(id);
        let request = Request::Send {
            socket,
            buffer,
            offset,
        };
        if socket == Descriptor::DEAD {
            return self.refuse(token, request, call, ErrorKind::NotConnected.into());
        }
        let key = self.submit(token, request, call);
        let send = &mut self.live_socket(id).expect("found above").send;
        assert!(send.is_none(), "one send per socket");
        *send = Some(key);
    }

    fn shutdown(&mut self, id: SocketId) {
        if let Some(socket) = self.live_socket(id) {
            kernel::shut_down_sending(&socket.descriptor);
        }
    }

    fn close_socket(&mut self, id: SocketId) {
        let Some(socket) = self.live_socket(id) else {
            return;
        };
        let (receive, send) = (socket.receive, socket.send);
        if receive.is_none() && send.is_none() {
            let socket = self.sockets.remove(id.index, id.generation);
            let socket = socket.expect("found above");
            return self.backend.close(socket.descriptor);
        }
        socket.closing = true;
        kernel::shut_down(&socket.descriptor);
        for key in [receive, send].into_iter().flatten() {
            self.cancel(key);
        }
    }

    fn close_listener(&mut self, id: ListenerId) {
        let Some(position) = self.listener_position(id) else {
            return;
        };
        let listener = &mut self.listeners[position];
        if listener.closing {
            return;
        }
        if listener.accepts == 0 {
            let listener = self.listeners.swap_remove(position);
            return self.backend.close(listener.descriptor);
        }
        listener.closing = true;
        kernel::shut_down(&listener.descriptor);
        for (_, operation) in &self.operations {
            if matches!(operation.call, Call::Accept(of, _) if of == id) {
                let (key, request) = (operation.key, &operation.request);
                self.backend.cancel(key, request, &mut self.ended);
            }
        }
    }
}

impl<W, B: Backend> super::Disk<W> for HostIo<W, B> {
    fn open(
        &mut self,
        token: Token,
        path: &Path,
        options: OpenOptions,
        done: Callback<W, Self, Opened>,
    ) {
        let call = Call::Open(options, done);
        let checked = checked_open(path, options);
        let (path, flags) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.refuse(token, Request::Refused, call, error),
        };
        let folder = self.folder();
        let mut request = Request::Open {
            folder,
            path,
            flags,
        };
        if options.create == Create::Unnamed {
            let (Some(unnamed), Request::Open { flags, .. }) = (kernel::UNNAMED, &mut request)
            else {
                let error = rustix::io::Errno::OPNOTSUPP.into();
                return self.refuse(token, request, call, error);
            };
            *flags |= unnamed;
        }
        self.submit(token, request, call);
    }

    fn read(
        &mut self,
        token: Token,
        id: FileId,
        offset: u64,
        buffer: super::Buffer,
        done: Callback<W, Self, Transferred>,
    ) {
        let file = self.file_for_operation(id);
        let request = Request::Read {
            file,
            buffer,
            offset,
        };
        self.submit_on_file(token, file, request, Call::Transfer(id, done));
    }

    fn write(
        &mut self,
        token: Token,
        id: FileId,
        offset: u64,
        buffer: super::Buffer,
        done: Callback<W, Self, Transferred>,
    ) {
        let file = self.file_for_operation(id);
        let request = Request::Write {
            file,
            buffer,
            offset,
        };
        self.submit_on_file(token, file, request, Call::Transfer(id, done));
    }

    fn sync(&mut self, token: Token, id: FileId, done: Callback<W, Self, Done>) {
        let file = self.file_for_operation(id);
        self.submit_on_file(token, file, Request::Sync { file }, Call::File(id, done));
    }

    fn truncate(
        &mut self,
        token: Token,
        id: FileId,
        size_bytes: u64,
        done: Callback<W, Self, Done>,
    ) {
        let file = self.file_for_operation(id);
        let request = Request::Truncate { file, size_bytes };
        self.submit_on_file(token, file, request, Call::File(id, done));
    }

    fn allocate(
        &mut self,
        token: Token,
        id: FileId,
        size_bytes: u64,
        done: Callback<W, Self, Done>,
    ) {
        let file = self.file_for_operation(id);
        let request = Request::Allocate { file, size_bytes };
        self.submit_on_file(token, file, request, Call::Allocate(id, size_bytes, done));
    }

    fn make_directory(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let folder = self.folder();
        let path = kernel::inner_path(path);
        let request = path.map(|path| Request::MakeDirectory { folder, path });
        self.submit_names(token, request, done);
    }

    fn sync_directory(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let folder = self.folder();
        let flags = kernel::DIRECTORY_FLAGS;
        let request = kernel::inner_directory(path).map(|path| Request::Open {
            folder,
            path,
            flags,
        });
        self.submit_names(token, request, done);
    }

    fn rename(&mut self, token: Token, from: &Path, to: &Path, done: Callback<W, Self, Done>) {
        let folder = self.folder();
        let paths =
            kernel::inner_path(from).and_then(|from| kernel::inner_path(to).map(|to| (from, to)));
        let request = paths.map(|(from, to)| Request::Rename { folder, from, to });
        self.submit_names(token, request, done);
    }

    fn remove(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let folder = self.folder();
        let request = kernel::inner_path(path).map(|path| Request::Remove { folder, path });
        self.submit_names(token, request, done);
    }

    fn close_file(&mut self, id: FileId) {
        let Some(file) = self.files.remove(id.index, id.generation) else {
            return;
        };
        assert!(file.operations == 0, "a file is closed only once idle");
        self.backend.close(file.descriptor);
    }
}

fn checked_open(path: &Path, options: OpenOptions) -> io::Result<(CString, rustix::fs::OFlags)> {
    let path = match options.create {
        Create::Unnamed => kernel::inner_directory(path)?,
        Create::Never | Create::IfMissing => kernel::inner_path(path)?,
    };
    Ok((path, kernel::open_flags(options)?))
}

impl<W, B: Backend> Io<W> for HostIo<W, B> {
    fn run(&mut self, world: &mut W, deadline: Option<Instant>) {
        loop {
            let timeout_ns = if self.ended.is_empty() {
                deadline.map(|deadline| deadline.since(self.now()))
            } else {
                Some(0)
            };
            let woken = self
                .backend
                .wait(&mut self.operations, &mut self.ended, timeout_ns);
            // What ended may be only a step of an operation; then nothing is called yet.
            if self.dispatch(world) > 0 || woken == Woken::Interrupted {
                return;
            }
            if deadline.is_some_and(|deadline| self.now() >= deadline) {
                return;
            }
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
