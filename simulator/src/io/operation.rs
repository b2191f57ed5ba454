//! Operations of the server: from submit, through the event queue, to their callback.

use std::io;
use std::path::{Path, PathBuf};

use storage::io::{
    Accepted, Buffer, Callback, Done, FileId, ListenerId, OpenOptions, Opened, Received, Sent,
    SocketId, Token, Transferred,
};

use super::SimulatedIo;
use crate::disk::LateWrite;
use crate::network::Packet;
use crate::trace::{Kind, hash_bytes};

/// A submitted operation.
pub(crate) struct Pending<W> {
    pub token: Token,
    pub operation: Operation<W>,
    /// It will fail, whatever it is: the world is doomed or its socket was closed.
    pub failure: Option<io::ErrorKind>,
}

type Call<W, R> = Callback<W, SimulatedIo<W>, R>;

/// What was asked, with the buffer that travels along.
pub(crate) enum Operation<W> {
    Accept {
        listener: ListenerId,
        done: Call<W, Accepted>,
    },
    Receive {
        socket: SocketId,
        buffer: Vec<u8>,
        done: Call<W, Received>,
    },
    Send {
        socket: SocketId,
        buffer: Vec<u8>,
        offset: usize,
        done: Call<W, Sent>,
    },
    Open {
        path: PathBuf,
        options: OpenOptions,
        done: Call<W, Opened>,
    },
    Transfer {
        file: FileId,
        offset: u64,
        buffer: Buffer,
        /// The bytes are to be written, not read.
        writes: bool,
        done: Call<W, Transferred>,
    },
    Change {
        change: Change,
        done: Call<W, Done>,
    },
}

/// The disk operations that move no bytes.
pub(crate) enum Change {
    Sync { file: FileId, stamp: u64 },
    Truncate { file: FileId, size_bytes: u64 },
    Allocate { file: FileId, size_bytes: u64 },
    MakeDirectory { path: PathBuf },
    SyncDirectory { path: PathBuf, stamp: u64 },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

impl Change {
    pub fn kind(&self) -> Kind {
        match self {
            Change::Sync { .. } => Kind::Sync,
            Change::Truncate { .. } => Kind::Truncate,
            Change::Allocate { .. } => Kind::Allocate,
            Change::MakeDirectory { .. } => Kind::MakeDirectory,
            Change::SyncDirectory { .. } => Kind::SyncDirectory,
            Change::Rename { .. } => Kind::Rename,
            Change::Remove { .. } => Kind::Remove,
        }
    }

    /// Hash of the names that it is about, 0 if none.
    pub fn names_hash(&self) -> u64 {
        let hash = |path: &Path| hash_bytes(path.as_os_str().as_encoded_bytes());
        match self {
            Change::MakeDirectory { path }
            | Change::SyncDirectory { path, .. }
            | Change::Remove { path } => hash(path),
            Change::Rename { from, to } => hash(from) ^ hash(to).rotate_left(1),
            Change::Sync { .. } | Change::Truncate { .. } | Change::Allocate { .. } => 0,
        }
    }

    pub fn file(&self) -> Option<FileId> {
        match self {
            Change::Sync { file, .. }
            | Change::Truncate { file, .. }
            | Change::Allocate { file, .. } => Some(*file),
            _ => None,
        }
    }

    /// The name that it works on; the old one of a rename.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Change::MakeDirectory { path }
            | Change::SyncDirectory { path, .. }
            | Change::Rename { from: path, .. }
            | Change::Remove { path } => Some(path),
            _ => None,
        }
    }
}

impl<W> Operation<W> {
    /// The socket that it works on.
    pub fn socket(&self) -> Option<SocketId> {
        match self {
            Operation::Receive { socket, .. } | Operation::Send { socket, .. } => Some(*socket),
            _ => None,
        }
    }

    /// The open file that it works on.
    pub fn file(&self) -> Option<FileId> {
        match self {
            Operation::Transfer { file, .. } => Some(*file),
            Operation::Change { change, .. } => change.file(),
            _ => None,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Operation::Accept { .. } => Kind::Accept,
            Operation::Receive { .. } => Kind::Receive,
            Operation::Send { .. } => Kind::Send,
            Operation::Open { .. } => Kind::Open,
            Operation::Transfer { writes: true, .. } => Kind::Write,
            Operation::Transfer { writes: false, .. } => Kind::Read,
            Operation::Change { change, .. } => change.kind(),
        }
    }
}

/// An operation that is over and whose callback has not run yet.
pub(crate) enum Ready<W> {
    Accepted(Token, Call<W, Accepted>, Accepted),
    Received(Token, Call<W, Received>, Received),
    Sent(Token, Call<W, Sent>, Sent),
    Opened(Token, Call<W, Opened>, Opened),
    Transferred(Token, Call<W, Transferred>, Transferred),
    Done(Token, Call<W, Done>, Done),
}

impl<W> Ready<W> {
    /// Run the callback.
    pub fn deliver(self, world: &mut W, io: &mut SimulatedIo<W>) {
        match self {
            Ready::Accepted(token, done, result) => done(world, io, token, result),
            Ready::Received(token, done, result) => done(world, io, token, result),
            Ready::Sent(token, done, result) => done(world, io, token, result),
            Ready::Opened(token, done, result) => done(world, io, token, result),
            Ready::Transferred(token, done, result) => done(world, io, token, result),
            Ready::Done(token, done, result) => done(world, io, token, result),
        }
    }

    /// It brings an open file that its owner has not heard of.
    pub fn has_opened(&self) -> bool {
        matches!(self, Ready::Opened(_, _, opened) if opened.result.is_ok())
    }

    /// The world died before it heard of this: it gets an error, though it may have happened.
    pub fn fail(&mut self, kind: io::ErrorKind) {
        match self {
            Ready::Accepted(_, _, accepted) => accepted.result = Err(kind.into()),
            Ready::Received(_, _, received) => received.result = Err(kind.into()),
            Ready::Sent(_, _, sent) => sent.result = Err(kind.into()),
            Ready::Opened(_, _, opened) => opened.result = Err(kind.into()),
            Ready::Transferred(_, _, transferred) => transferred.result = Err(kind.into()),
            Ready::Done(_, _, done) => done.result = Err(kind.into()),
        }
    }
}

/// What waits in the event queue.
pub(crate) enum Event<W> {
    /// An operation of the server comes to its end.
    Operation(Box<Pending<W>>),
    /// A packet arrives.
    Packet(Packet),
    /// A client asked to be woken.
    Timer(u64),
    /// A write of a killed process reaches the disk.
    LateLanding(LateWrite),
}
