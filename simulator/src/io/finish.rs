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
use crate::faults::{FaultKind, SyncSemantics};
use crate::trace::{Kind, hash_bytes};

/// ENFILE and EACCES, the same numbers on every Unix.
const TABLE_FULL: i32 = 23;
const NO_PERMISSION: i32 = 13;

/// EROFS, the same number on every Unix.
const READ_ONLY: i32 = 30;

/// The entity of draws about rot at a crash: no kind of fault has this number.
const AT_CRASH: u64 = 1_000;

/// Places that a rot tries before it gives up.
const STRIKES_MAX: usize = 8;

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
        let of_disk = !matches!(
            pending.operation,
            Operation::Accept { .. } | Operation::Receive { .. } | Operation::Send { .. }
        );
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
            Operation::Transfer { file, offset, mut buffer, writes, done } => {
                let place = Place { file, offset };
                let result = match writes {
                    true => self.write_now(place, &buffer),
                    false => self.read_now(place, &mut buffer),
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
        if of_disk {
            self.weather();
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
        let Operation::Send { socket, buffer, offset, done } = pending.operation else {
            unreachable!("called for sends only");
        };
        let bytes = &buffer[offset..];
        let result = self.with_network(|network, around| network.send(socket, bytes, around));
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::WouldBlock
        {
            let operation = Operation::Send { socket, buffer, offset, done };
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

    /// Refuse what writes, once the disk is read-only.
    fn check_writable(&mut self, entity: u64) -> io::Result<()> {
        let at = self.faults.read_only_at_ns;
        if at == 0 || self.now.0 < at {
            return Ok(());
        }
        self.injected(FaultKind::ReadOnlyDisk, entity);
        Err(io::Error::from_raw_os_error(READ_ONLY))
    }

    /// Count a refusal of a disk that is really full.
    fn note_full<T>(&mut self, entity: u64, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            self.injected(FaultKind::DiskFull, entity);
        }
        result
    }

    fn open_now(&mut self, path: &Path, options: OpenOptions) -> io::Result<(FileId, u64)> {
        let creates = match options.create {
            Create::Never => false,
            Create::IfMissing => !self.disk.exists(path),
            Create::Unnamed => true,
        };
        if options.write || creates {
            self.check_writable(0)?;
        }
        let rate = self.faults.open_error_per_million;
        if self.fault(FaultKind::OpenError, Stream::OpenFault, 0, rate) {
            self.disk.hit_path(path, FaultKind::OpenError, true);
            let errors = [TOO_MANY_FILES, TABLE_FULL, NO_PERMISSION];
            let error = errors[self.draws.index(Stream::OpenFault, 0, errors.len())];
            return Err(io::Error::from_raw_os_error(error));
        }
        if creates {
            self.check_space(0)?;
        }
        let result = self.disk.open(path, options);
        self.note_full(0, result)
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
        if units * unit < whole {
            self.injected(FaultKind::DiskShort, entity);
        }
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
            self.disk.hit_file(file, FaultKind::ReadError, true);
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
        }
        let limit = self.short_count(file, buffer.len());
        let count = self.disk.read(file, offset, &mut buffer[..limit])?;
        let rate = self.faults.misdirected_read_per_million;
        if count >= BLOCK_BYTES
            && self.draws.chance(Stream::MisdirectedRead, entity, rate)
            && let Some(block) = self.disk.astray(file, offset, &mut self.draws)
        {
            self.injected(FaultKind::MisdirectedRead, entity);
            self.disk.hit_file(file, FaultKind::MisdirectedRead, true);
            buffer[..BLOCK_BYTES].copy_from_slice(&block[..]);
        }
        Ok(count)
    }

    fn write_now(&mut self, place: Place, buffer: &Buffer) -> io::Result<usize> {
        let entity = self.disk.entity(place.file);
        let result = self.try_write(place, buffer);
        let count = *result.as_ref().unwrap_or(&0);
        self.monitor.written(self.now, &self.disk, (entity, place.offset), count as u64);
        let hash = hash_bytes(buffer) ^ place.offset;
        self.record(Kind::Write, entity, count as u64, hash, result.is_err());
        result
    }

    fn try_write(&mut self, place: Place, bytes: &[u8]) -> io::Result<usize> {
        let Place { file, offset } = place;
        self.disk.check_transfer(file, offset, bytes.len(), true)?;
        let entity = self.disk.entity(file);
        self.check_writable(entity)?;
        self.check_space(entity)?;
        let rate = self.faults.write_error_per_million;
        if self.fault(FaultKind::WriteError, Stream::WriteFault, entity, rate) {
            self.disk.hit_file(file, FaultKind::WriteError, false);
            // It failed, and some of its sectors are written all the same.
            let sectors = bytes.len().div_ceil(self.faults.sector_bytes);
            let kept = self.draws.index(Stream::WriteFault, entity, sectors + 1);
            let count = (kept * self.faults.sector_bytes).min(bytes.len());
            self.disk.write(file, offset, &bytes[..count])?;
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
        }
        let limit = self.short_count(file, bytes.len());
        let result = self.write_somewhere(place, &bytes[..limit]);
        self.note_full(entity, result)
    }

    /// Write, unless the write is lost or goes astray.
    fn write_somewhere(&mut self, place: Place, bytes: &[u8]) -> io::Result<usize> {
        let Place { file, offset } = place;
        let entity = self.disk.entity(file);
        let may_damage = self.disk.damage_count() < self.faults.damages_max;
        let lost = self.faults.lost_write_per_million;
        if may_damage && self.draws.chance(Stream::LostWrite, entity, lost) {
            let (count, lost) = self.disk.lose_write(file, offset, bytes)?;
            if lost {
                self.injected(FaultKind::LostWrite, entity);
            }
            return Ok(count);
        }
        let astray = self.faults.misdirected_write_per_million;
        if may_damage && self.draws.chance(Stream::MisdirectedWrite, entity, astray) {
            let draws = &mut self.draws;
            let (count, astray) = self.disk.misdirect_write(file, offset, bytes, draws)?;
            if astray {
                self.injected(FaultKind::MisdirectedWrite, entity);
            }
            return Ok(count);
        }
        self.disk.write(file, offset, bytes)
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
                let kind = self.sync_failure();
                if self.fault(kind, Stream::SyncFault, entity, rate) {
                    self.disk.hit_file(*file, kind, false);
                    if !self.disk.fail_sync(*file, *stamp) {
                        return Ok(());
                    }
                    return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
                }
            }
            Change::SyncDirectory { path, .. } => {
                if self.fault(FaultKind::SyncKept, Stream::SyncFault, entity, rate) {
                    self.disk.hit_path(path, FaultKind::SyncKept, false);
                    return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
                }
            }
            Change::Allocate { .. } | Change::MakeDirectory { .. } => {
                self.check_writable(entity)?;
                self.check_space(entity)?;
            }
            Change::Truncate { .. } | Change::Rename { .. } | Change::Remove { .. } => {
                self.check_writable(entity)?;
            }
        }
        let result = self.apply(change);
        self.note_full(entity, result)
    }

    /// The kind of this world's failed syncs.
    pub(super) fn sync_failure(&self) -> FaultKind {
        match self.faults.sync_semantics {
            SyncSemantics::Kept => FaultKind::SyncKept,
            SyncSemantics::Late => FaultKind::SyncLate,
            SyncSemantics::Reverted => FaultKind::SyncReverted,
        }
    }

    /// A moment of the disk has passed: something may have gone bad.
    fn weather(&mut self) {
        for (kind, rate) in self.rot_rates() {
            if self.disk.damage_count() < self.faults.damages_max
                && self.draws.chance(Stream::Rot, kind as u64, rate)
            {
                self.strike(kind);
            }
        }
        let rate = self.faults.page_evicted_per_million;
        if self.draws.chance(Stream::Eviction, 1, rate) && self.disk.evict_one(&mut self.draws) {
            self.injected(FaultKind::PageEvicted, 0);
        }
    }

    /// The machine was off for a while: something may have rotted.
    pub(super) fn rot_at_crash(&mut self) {
        let rate = self.faults.rot_at_crash_per_million;
        let mut kinds = self.rot_rates().to_vec();
        kinds.retain(|(_, rate)| *rate > 0);
        if kinds.is_empty() || self.disk.damage_count() >= self.faults.damages_max {
            return;
        }
        if self.draws.chance(Stream::Rot, AT_CRASH, rate) {
            let (kind, _) = kinds[self.draws.index(Stream::Rot, AT_CRASH, kinds.len())];
            self.strike(kind);
        }
    }

    fn rot_rates(&self) -> [(FaultKind, u64); 4] {
        [
            (FaultKind::RotFile, self.faults.rot_file_per_million),
            (FaultKind::RotLog, self.faults.rot_log_per_million),
            (FaultKind::RotRing, self.faults.rot_ring_per_million),
            (FaultKind::LatentSector, self.faults.latent_sector_per_million),
        ]
    }

    /// Try a few places; the rule of one fault per fact may forbid some.
    fn strike(&mut self, kind: FaultKind) {
        for _ in 0..STRIKES_MAX {
            if self.disk.strike(kind, &mut self.draws) {
                return self.injected(kind, 0);
            }
        }
    }
}
