//! The completing half: an operation takes effect, faults included, and becomes ready.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use storage::io::{
    Accepted, BLOCK_BYTES, Buffer, Callback, Create, Done, FileId, ListenerId, OpenOptions, Opened,
    Received, Sent, SocketId, Token, Transferred,
};

use super::operation::{Change, Operation, Pending, Ready};
use super::{INPUT_OUTPUT_ERROR, SimulatedIo, TOO_MANY_FILES};
use crate::draws::Stream;
use crate::faults::FaultKind;
use crate::trace::{Kind, hash_bytes};

/// What an accept answers.
type Acceptance = io::Result<(SocketId, SocketAddr)>;

/// Where a byte transfer of a file goes, without the buffer.
#[derive(Clone, Copy)]
struct Place {
    file: FileId,
    offset: u64,
}

impl<W> SimulatedIo<W> {
    /// An operation comes to its end.
    pub(super) fn finish(&mut self, pending: Pending<W>) {
        if let Some(kind) = pending.failure {
            self.finish_failed(pending, kind.into());
            return;
        }
        let Some(pending) = self.strike_planned(pending) else {
            return;
        };
        let token = pending.token;
        match pending.operation {
            Operation::Accept { listener, done } => self.finish_accept(token, listener, done),
            Operation::Receive { socket, buffer, done } => {
                self.finish_receive(token, socket, buffer, done)
            }
            Operation::Send { .. } => self.finish_send(pending),
            Operation::Open { path, options, done } => {
                let result = self.open_now(&path, options);
                let entity = result.as_ref().map_or(0, |opened| self.disk.entity(opened.0));
                let name = hash_bytes(path.as_os_str().as_encoded_bytes());
                self.monitor.opened(entity, &path, options);
                self.record(Kind::Open, entity, 0, name, result.is_err());
                self.ready.push_back(Ready::Opened(token, done, Opened { result }));
            }
            Operation::Transfer { file, offset, mut buffer, write_hash, done } => {
                let place = Place { file, offset };
                let result = match write_hash {
                    Some(hash) => self.write_now(place, &buffer, hash),
                    None => self.read_now(place, &mut buffer),
                };
                self.end_on(file);
                let transferred = Transferred { buffer, result };
                self.ready.push_back(Ready::Transferred(token, done, transferred));
            }
            Operation::Change { change, done } => {
                let result = self.change_now(&change);
                if let Some(file) = change.file() {
                    self.end_on(file);
                }
                self.ready.push_back(Ready::Done(token, done, Done { result }));
            }
        }
    }

    pub(super) fn finish_failed(&mut self, pending: Pending<W>, error: io::Error) {
        self.record(pending.operation.kind(), 0, 0, 0, true);
        let token = pending.token;
        let ready = match pending.operation {
            Operation::Accept { done, .. } => {
                let result = Err(error);
                Ready::Accepted(token, done, Accepted { result })
            }
            Operation::Receive { buffer, done, .. } => {
                let result = Err(error);
                Ready::Received(token, done, Received { buffer, result })
            }
            Operation::Send { buffer, done, .. } => {
                let result = Err(error);
                Ready::Sent(token, done, Sent { buffer, result })
            }
            Operation::Open { done, .. } => {
                let result = Err(error);
                Ready::Opened(token, done, Opened { result })
            }
            Operation::Transfer { buffer, done, .. } => {
                let result = Err(error);
                Ready::Transferred(token, done, Transferred { buffer, result })
            }
            Operation::Change { done, .. } => {
                let result = Err(error);
                Ready::Done(token, done, Done { result })
            }
        };
        self.ready.push_back(ready);
    }

    fn finish_accept(
        &mut self,
        token: Token,
        listener: ListenerId,
        done: Callback<W, Self, Accepted>,
    ) {
        let result = if self.network.is_listening(listener) {
            match self.accept_now(listener) {
                Some(result) => result,
                None => {
                    let parked = self.accepts.entry(listener).or_default();
                    parked.push_back(Pending {
                        token,
                        operation: Operation::Accept { listener, done },
                        failure: None,
                    });
                    return;
                }
            }
        } else {
            Err(io::ErrorKind::NotConnected.into())
        };
        let socket = result.as_ref().ok().map(|accepted| accepted.0);
        let connection = socket.and_then(|socket| self.network.connection_of(socket));
        self.record(Kind::Accept, connection.unwrap_or(0), 0, 0, result.is_err());
        self.ready.push_back(Ready::Accepted(token, done, Accepted { result }));
    }

    /// One try to accept; `None` if nobody is there.
    fn accept_now(&mut self, listener: ListenerId) -> Option<Acceptance> {
        let entity = u64::from(listener.0);
        let rate = self.faults.accept_error_per_million;
        if !self.fault(FaultKind::AcceptError, Stream::AcceptFault, entity, rate) {
            return self.with_network(|network, around| network.accept(listener, around));
        }
        if self.draws.below(Stream::AcceptFault, entity, 2) == 0 {
            return Some(Err(io::Error::from_raw_os_error(TOO_MANY_FILES)));
        }
        let taken = self.with_network(|network, around| network.accept(listener, around))?;
        if let Ok((socket, _)) = taken {
            self.with_network(|network, around| network.close(socket, around));
        }
        Some(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn finish_receive(
        &mut self,
        token: Token,
        socket: SocketId,
        mut buffer: Vec<u8>,
        done: Callback<W, Self, Received>,
    ) {
        let room = buffer.capacity() - buffer.len();
        let received = self.with_network(|network, around| network.receive(socket, room, around));
        let result = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let operation = Operation::Receive { socket, buffer, done };
                let pending = Pending { token, operation, failure: None };
                self.receives.insert(socket, pending);
                return;
            }
            Err(error) => Err(error),
            Ok(bytes) => {
                buffer.extend_from_slice(&bytes);
                Ok(bytes)
            }
        };
        let bytes = result.as_deref().unwrap_or(&[]);
        let (length, hash) = (bytes.len() as u64, hash_bytes(bytes));
        let connection = self.network.connection_of(socket).unwrap_or(0);
        self.record(Kind::Receive, connection, length, hash, result.is_err());
        let result = result.map(|bytes| bytes.len());
        self.ready.push_back(Ready::Received(token, done, Received { buffer, result }));
    }

    fn finish_send(&mut self, pending: Pending<W>) {
        let Operation::Send { socket, buffer, offset, hash, done } = pending.operation else {
            unreachable!("called for sends only");
        };
        let bytes = &buffer[offset..];
        assert!(hash_bytes(bytes) == hash, "a buffer in flight was changed");
        let result = self.with_network(|network, around| network.send(socket, bytes, around));
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::WouldBlock
        {
            let operation = Operation::Send { socket, buffer, offset, hash, done };
            let parked = Pending { operation, ..pending };
            self.sends.insert(socket, parked);
            return;
        }
        let count = *result.as_ref().unwrap_or(&0);
        let sent_hash = hash_bytes(&bytes[..count]);
        let connection = self.network.connection_of(socket).unwrap_or(0);
        self.monitor.sent(connection, count as u64);
        self.record(Kind::Send, connection, count as u64, sent_hash, result.is_err());
        self.ready.push_back(Ready::Sent(pending.token, done, Sent { buffer, result }));
    }

    /// Whether a fault of this rate strikes now; if so, it stands in the trace.
    fn fault(&mut self, kind: FaultKind, stream: Stream, entity: u64, per_million: u64) -> bool {
        let strikes = self.draws.chance(stream, entity, per_million);
        if strikes {
            self.injected(kind, entity);
        }
        strikes
    }

    fn check_space(&mut self, entity: u64) -> io::Result<()> {
        let rate = self.faults.no_space_per_million;
        if self.fault(FaultKind::NoSpace, Stream::SpaceFault, entity, rate) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn open_now(&mut self, path: &Path, options: OpenOptions) -> io::Result<(FileId, u64)> {
        let creates = match options.create {
            Create::Never => false,
            Create::IfMissing => !self.disk.exists(path),
            Create::Unnamed => true,
        };
        if creates {
            self.check_space(0)?;
        }
        self.disk.open(path, options)
    }

    /// How many of `whole` bytes a transfer moves; direct ones end at a block.
    fn short_count(&mut self, file: FileId, whole: usize) -> usize {
        let entity = self.disk.entity(file);
        let unit = if self.disk.options(file).direct { BLOCK_BYTES } else { 1 };
        let rate = self.faults.disk_short_per_million;
        if whole <= unit || !self.draws.chance(Stream::DiskCount, entity, rate) {
            return whole;
        }
        let units = self.draws.index(Stream::DiskCount, entity, whole / unit) + 1;
        units * unit
    }

    fn read_now(&mut self, place: Place, buffer: &mut Buffer) -> io::Result<usize> {
        let Place { file, offset } = place;
        let entity = self.disk.entity(file);
        let result = self.try_read(place, buffer);
        let count = *result.as_ref().unwrap_or(&0);
        let hash = hash_bytes(&buffer[..count]) ^ offset;
        self.record(Kind::Read, entity, count as u64, hash, result.is_err());
        result
    }

    fn try_read(&mut self, place: Place, buffer: &mut Buffer) -> io::Result<usize> {
        let Place { file, offset } = place;
        self.disk.check_transfer(file, offset, buffer.len(), false)?;
        let entity = self.disk.entity(file);
        let rate = self.faults.read_error_per_million;
        if self.fault(FaultKind::ReadError, Stream::ReadFault, entity, rate) {
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
        }
        let limit = self.short_count(file, buffer.len());
        Ok(self.disk.read(file, offset, &mut buffer[..limit]))
    }

    fn write_now(&mut self, place: Place, buffer: &Buffer, hash: u64) -> io::Result<usize> {
        assert!(hash_bytes(buffer) == hash, "a buffer in flight was changed");
        let entity = self.disk.entity(place.file);
        let result = self.try_write(place, buffer);
        let count = *result.as_ref().unwrap_or(&0);
        self.monitor.written(self.now, &self.disk, (entity, place.offset), count as u64);
        let hash = hash ^ place.offset;
        self.record(Kind::Write, entity, count as u64, hash, result.is_err());
        result
    }

    fn try_write(&mut self, place: Place, bytes: &[u8]) -> io::Result<usize> {
        let Place { file, offset } = place;
        self.disk.check_transfer(file, offset, bytes.len(), true)?;
        let entity = self.disk.entity(file);
        self.check_space(entity)?;
        let rate = self.faults.write_error_per_million;
        if self.fault(FaultKind::WriteError, Stream::WriteFault, entity, rate) {
            // It failed, and some of its sectors are written all the same.
            let sectors = bytes.len().div_ceil(self.faults.sector_bytes);
            let kept = self.draws.index(Stream::WriteFault, entity, sectors + 1);
            let count = (kept * self.faults.sector_bytes).min(bytes.len());
            self.disk.write(file, offset, &bytes[..count])?;
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
        }
        let limit = self.short_count(file, bytes.len());
        self.disk.write(file, offset, &bytes[..limit])
    }

    fn change_now(&mut self, change: &Change) -> io::Result<()> {
        let entity = change.file().map_or(0, |file| self.disk.entity(file));
        let result = self.try_change(change, entity);
        let length = match change {
            Change::Truncate { size_bytes, .. } | Change::Allocate { size_bytes, .. } => {
                *size_bytes
            }
            _ => 0,
        };
        self.record(change.kind(), entity, length, change.names_hash(), result.is_err());
        result
    }

    fn try_change(&mut self, change: &Change, entity: u64) -> io::Result<()> {
        let rate = self.faults.sync_error_per_million;
        match change {
            Change::Sync { file, stamp } => {
                if self.fault(FaultKind::SyncKept, Stream::SyncFault, entity, rate) {
                    self.disk.fail_sync(*file, *stamp);
                    return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
                }
            }
            Change::SyncDirectory { .. } => {
                if self.fault(FaultKind::SyncKept, Stream::SyncFault, entity, rate) {
                    return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
                }
            }
            Change::Allocate { .. } | Change::MakeDirectory { .. } => self.check_space(entity)?,
            Change::Truncate { .. } | Change::Rename { .. } | Change::Remove { .. } => {}
        }
        self.apply(change)
    }
}
