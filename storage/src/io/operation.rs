//! One operation, from submit to callback: what the kernel shall do, and whom to tell.
//!
//! Owns the buffers and paths that the kernel works on: they sit on the heap, so an operation may
//! move inside its slab while the kernel holds their addresses. Leaves the work to a `Backend`
//! and the bookkeeping to `HostIo`.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::OFlags;

use super::{
    Accepted, Buffer, Callback, Done, FileId, ListenerId, OpenOptions, Opened, Received, Sent,
    SocketId, Token, Transferred,
};

/// Names one occupant of the operations slab: generation in the high half, slab index in the low
/// half. io_uring carries it as `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationKey(pub u64);

impl OperationKey {
    /// The key of slab entry `index` with this `generation`.
    pub fn new(index: usize, generation: u32) -> OperationKey {
        let index = u32::try_from(index).expect("operations in flight are fewer than 2^32");
        OperationKey(u64::from(generation) << 32 | u64::from(index))
    }

    /// The slab index.
    pub fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// A descriptor that `HostIo` keeps open at least as long as an operation names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(RawFd);

impl Descriptor {
    /// Stands in a request that is refused before it reaches the kernel.
    pub const DEAD: Descriptor = Descriptor(-1);

    /// The descriptor that `owner` keeps open.
    pub fn of(owner: &OwnedFd) -> Descriptor {
        Descriptor(owner.as_raw_fd())
    }

    /// The descriptor's number.
    pub fn raw(self) -> RawFd {
        self.0
    }

    /// The descriptor for one system call.
    pub fn borrow(&self) -> BorrowedFd<'_> {
        assert!(self.0 >= 0, "a refused request never reaches the kernel");
        // SAFETY: `HostIo` closes a descriptor only after the last operation naming it has ended,
        // and the number is not that of the special values below zero.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// What the kernel shall do, with everything it needs to do it.
pub enum Request {
    /// Accept one connection.
    Accept { listener: Descriptor },
    /// Receive into the spare capacity.
    Receive { socket: Descriptor, buffer: Vec<u8> },
    /// Send `buffer[offset..]`.
    Send { socket: Descriptor, buffer: Vec<u8>, offset: usize },
    /// Open a path in the data folder.
    Open { folder: Descriptor, path: CString, flags: OFlags },
    /// Read `buffer.len()` bytes.
    Read { file: Descriptor, buffer: Buffer, offset: u64 },
    /// Write `buffer.len()` bytes.
    Write { file: Descriptor, buffer: Buffer, offset: u64 },
    /// Make bytes and size durable.
    Sync { file: Descriptor },
    /// Make a directory's names durable. Owns the descriptor: nobody else knows it.
    SyncDirectory { directory: OwnedFd },
    /// Set the size.
    Truncate { file: Descriptor, size_bytes: u64 },
    /// Reserve space.
    Allocate { file: Descriptor, size_bytes: u64 },
    /// Create a directory.
    MakeDirectory { folder: Descriptor, path: CString },
    /// Rename, replacing the target.
    Rename { folder: Descriptor, from: CString, to: CString },
    /// Remove a name.
    Remove { folder: Descriptor, path: CString },
    /// Refused before it reached the kernel, for a path that is none of ours.
    Refused,
}

impl Request {
    /// Whether it waits for a peer, so that only cancelling is sure to end it.
    pub fn waits_for_peer(&self) -> bool {
        matches!(self, Request::Accept { .. } | Request::Receive { .. } | Request::Send { .. })
    }
}

/// Whom to tell, and which table entry the operation belongs to.
pub enum Call<W, I> {
    /// For `accept`.
    Accept(ListenerId, Callback<W, I, Accepted>),
    /// For `receive`.
    Receive(SocketId, Callback<W, I, Received>),
    /// For `send`.
    Send(SocketId, Callback<W, I, Sent>),
    /// For `open`.
    Open(OpenOptions, Callback<W, I, Opened>),
    /// For `read` and `write`.
    Transfer(FileId, Callback<W, I, Transferred>),
    /// For `sync` and `truncate`.
    File(FileId, Callback<W, I, Done>),
    /// For `allocate`: when space is reserved, a larger file still has to be cut to this size.
    Allocate(FileId, u64, Callback<W, I, Done>),
    /// For operations on names.
    Names(Callback<W, I, Done>),
}

/// A submitted operation whose callback has not run yet. `C` is its [`Call`].
pub struct Operation<C> {
    /// Its own key, to recognise what the kernel says about an earlier occupant.
    pub key: OperationKey,
    /// The caller's name for it.
    pub token: Token,
    /// What the kernel shall do.
    pub request: Request,
    /// Whom to tell.
    pub call: C,
}

/// What the kernel answered.
#[derive(Debug)]
pub enum Outcome {
    /// Bytes moved, or 0.
    Count(usize),
    /// A new descriptor, of an open or an accept.
    Descriptor(OwnedFd),
}

/// An operation that ended and waits for its callback's turn.
#[derive(Debug)]
pub struct Ended {
    /// Which one.
    pub key: OperationKey,
    /// How.
    pub result: io::Result<Outcome>,
}
