//! The submitting half: each call of the seam becomes an operation in the queue or parked.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use storage::io::{
    Accepted, Buffer, Callback, Disk, Done, FileId, Instant, ListenerId, Network, OpenOptions,
    Opened, Received, Sent, SocketId, Token, Transferred,
};

use super::SimulatedIo;
use super::operation::{Change, Event, Operation, Pending};
use crate::draws::{Span, Stream};
use crate::faults::FaultKind;
use crate::limits::DOOMED_DELAY_MAX_NS;
use crate::trace::Kind;

/// What buffers in flight for reads are filled with, so that nobody reads old bytes by mistake.
const POISON: u8 = 0xa5;

/// What a doomed world hears.
pub(super) const DOOMED: io::ErrorKind = io::ErrorKind::Other;

impl<W> SimulatedIo<W> {
    /// Take an operation in, to end at `at`, or soon and badly if the world is doomed.
    fn submit_at(&mut self, token: Token, operation: Operation<W>, at: Instant) {
        let mut pending = self.pending(token, operation);
        if let Some(file) = pending.operation.file()
            && pending.failure.is_none()
        {
            if self.disk.is_open(file) {
                *self.busy_files.entry(file).or_default() += 1;
            } else {
                pending.failure = Some(io::ErrorKind::InvalidInput);
            }
        }
        if pending.failure.is_some() {
            self.schedule_failure(pending);
        } else {
            self.monitor.submitted(self.now, &self.disk, &pending.operation);
            self.schedule(at, Event::Operation(Box::new(pending)));
        }
    }

    fn pending(&mut self, token: Token, operation: Operation<W>) -> Pending<W> {
        self.in_flight += 1;
        self.submitted += 1;
        Pending { token, operation, failure: self.doomed_since.map(|_| DOOMED) }
    }

    pub(super) fn schedule_failure(&mut self, pending: Pending<W>) {
        assert!(pending.failure.is_some());
        let span = Span::new(1, DOOMED_DELAY_MAX_NS);
        let delay = self.draws.within(Stream::Doom, 0, span);
        let at = self.now.after(delay);
        self.schedule(at, Event::Operation(Box::new(pending)));
    }

    /// When a disk operation on `entity` ends.
    fn disk_end(&mut self, entity: u64) -> Instant {
        let stream = Stream::DiskLatency;
        let spike = self.faults.disk_spike_per_million;
        let nanoseconds = if self.draws.chance(stream, entity, spike) {
            self.injected(FaultKind::DiskSpike, entity);
            self.draws.within(stream, entity, self.faults.disk_spike_ns)
        } else {
            let mean = self.faults.disk_latency_mean_ns;
            self.draws.exponential(stream, entity, mean)
        };
        self.now.after(nanoseconds + 1)
    }

    /// The number that names a file in draws and trace; closed and doomed files have none.
    fn entity(&self, file: FileId) -> u64 {
        if self.doomed_since.is_some() || !self.disk.is_open(file) {
            return 0;
        }
        self.disk.entity(file)
    }

    fn submit_change(&mut self, token: Token, change: Change, done: Callback<W, Self, Done>) {
        let entity = change.file().map_or(0, |file| self.entity(file));
        let at = self.disk_end(entity);
        self.submit_at(token, Operation::Change { change, done }, at);
    }

    fn fail_closed(&mut self, mut pending: Pending<W>) {
        pending.failure = Some(io::ErrorKind::NotConnected);
        self.schedule_failure(pending);
    }
}

impl<W> Network<W> for SimulatedIo<W> {
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        if self.doomed_since.is_some() {
            return Err(DOOMED.into());
        }
        self.network.listen(address)
    }

    fn accept(&mut self, token: Token, listener: ListenerId, done: Callback<W, Self, Accepted>) {
        let pending = self.pending(token, Operation::Accept { listener, done });
        if pending.failure.is_some() {
            self.schedule_failure(pending);
            return;
        }
        if !self.network.is_listening(listener) {
            self.fail_closed(pending);
            return;
        }
        let parked = self.accepts.entry(listener).or_default();
        parked.push_back(pending);
        if self.network.has_backlog(listener) {
            self.unpark_accept(listener);
        }
    }

    fn receive(
        &mut self,
        token: Token,
        socket: SocketId,
        buffer: Vec<u8>,
        done: Callback<W, Self, Received>,
    ) {
        assert!(buffer.capacity() > buffer.len(), "a receive needs room");
        let operation = Operation::Receive { socket, buffer, done };
        let pending = self.pending(token, operation);
        if pending.failure.is_some() {
            self.schedule_failure(pending);
        } else if self.network.connection_of(socket).is_none() {
            self.fail_closed(pending);
        } else if self.network.is_receivable(socket) {
            self.schedule_ready(pending);
        } else {
            let other = self.receives.insert(socket, pending);
            assert!(other.is_none(), "one receive per socket");
        }
    }

    fn send(
        &mut self,
        token: Token,
        socket: SocketId,
        buffer: Vec<u8>,
        offset: usize,
        done: Callback<W, Self, Sent>,
    ) {
        assert!(offset < buffer.len(), "a send needs bytes");
        let connection = self.network.connection_of(socket);
        self.monitor.sending(self.now, &self.disk, connection, &buffer[offset..]);
        let operation = Operation::Send { socket, buffer, offset, done };
        let pending = self.pending(token, operation);
        if pending.failure.is_some() {
            self.schedule_failure(pending);
        } else if self.network.connection_of(socket).is_none() {
            self.fail_closed(pending);
        } else if self.network.is_sendable(socket) {
            self.schedule_ready(pending);
        } else {
            let other = self.sends.insert(socket, pending);
            assert!(other.is_none(), "one send per socket");
        }
    }

    fn shutdown(&mut self, socket: SocketId) {
        if self.doomed_since.is_none() {
            self.with_network(|network, around| network.shutdown(socket, around));
        }
    }

    fn close_socket(&mut self, socket: SocketId) {
        let connection = self.network.connection_of(socket);
        let Some(connection) = connection.filter(|_| self.doomed_since.is_none()) else {
            return;
        };
        self.record(Kind::CloseSocket, connection, 0, 0, false);
        self.with_network(|network, around| network.close(socket, around));
        let receive = self.receives.remove(&socket);
        let send = self.sends.remove(&socket);
        for pending in receive.into_iter().chain(send) {
            self.fail_closed(pending);
        }
    }

    fn close_listener(&mut self, listener: ListenerId) {
        if self.doomed_since.is_some() || !self.network.is_listening(listener) {
            return;
        }
        self.record(Kind::CloseSocket, u64::from(listener.0), 1, 0, false);
        self.with_network(|network, around| network.close_listener(listener, around));
        for pending in self.accepts.remove(&listener).unwrap_or_default() {
            self.fail_closed(pending);
        }
    }
}

impl<W> Disk<W> for SimulatedIo<W> {
    fn open(
        &mut self,
        token: Token,
        path: &Path,
        options: OpenOptions,
        done: Callback<W, Self, Opened>,
    ) {
        let operation = Operation::Open { path: path.to_owned(), options, done };
        let at = self.disk_end(0);
        self.submit_at(token, operation, at);
    }

    fn read(
        &mut self,
        token: Token,
        file: FileId,
        offset: u64,
        mut buffer: Buffer,
        done: Callback<W, Self, Transferred>,
    ) {
        buffer.fill(POISON);
        let at = self.transfer_end(file);
        let operation = Operation::Transfer { file, offset, buffer, writes: false, done };
        self.submit_at(token, operation, at);
    }

    fn write(
        &mut self,
        token: Token,
        file: FileId,
        offset: u64,
        buffer: Buffer,
        done: Callback<W, Self, Transferred>,
    ) {
        let at = self.transfer_end(file);
        let operation = Operation::Transfer { file, offset, buffer, writes: true, done };
        self.submit_at(token, operation, at);
    }

    fn sync(&mut self, token: Token, file: FileId, done: Callback<W, Self, Done>) {
        let stamp = self.disk.stamp();
        self.submit_change(token, Change::Sync { file, stamp }, done);
    }

    fn truncate(
        &mut self,
        token: Token,
        file: FileId,
        size_bytes: u64,
        done: Callback<W, Self, Done>,
    ) {
        self.submit_change(token, Change::Truncate { file, size_bytes }, done);
    }

    fn allocate(
        &mut self,
        token: Token,
        file: FileId,
        size_bytes: u64,
        done: Callback<W, Self, Done>,
    ) {
        self.submit_change(token, Change::Allocate { file, size_bytes }, done);
    }

    fn make_directory(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let path = path.to_owned();
        self.submit_change(token, Change::MakeDirectory { path }, done);
    }

    fn sync_directory(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let change = Change::SyncDirectory { path: path.to_owned(), stamp: self.disk.stamp() };
        self.submit_change(token, change, done);
    }

    fn rename(&mut self, token: Token, from: &Path, to: &Path, done: Callback<W, Self, Done>) {
        let change = Change::Rename { from: from.to_owned(), to: to.to_owned() };
        self.submit_change(token, change, done);
    }

    fn remove(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let path = path.to_owned();
        self.submit_change(token, Change::Remove { path }, done);
    }

    fn close_file(&mut self, file: FileId) {
        if self.doomed_since.is_some() || !self.disk.is_open(file) {
            return;
        }
        let busy = self.busy_files.contains_key(&file);
        assert!(!busy, "something is in flight on the file that is closed");
        let entity = self.disk.entity(file);
        self.record(Kind::CloseFile, entity, 0, 0, false);
        self.disk.close(file);
    }
}

impl<W> SimulatedIo<W> {
    /// An operation on a file is over.
    pub(super) fn end_on(&mut self, file: FileId) {
        let busy = self.busy_files.get_mut(&file).expect("the operation was counted");
        *busy -= 1;
        if *busy == 0 {
            self.busy_files.remove(&file);
        }
    }

    fn transfer_end(&mut self, file: FileId) -> Instant {
        let entity = self.entity(file);
        self.disk_end(entity)
    }
}
