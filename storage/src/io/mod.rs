//! The seam: everything Myriad asks of a kernel, by submit and callback.
//!
//! Owns the traits, their value types and their promises. `uring` and `poll` plug in a kernel, the
//! simulator plugs in a seeded world; no code above this file knows which one runs.
//!
//! Promises of every implementation (`conformance` checks them on each):
//! - A submit only queues. No callback runs inside a submit; callbacks run inside [`Io::run`].
//! - Each submitted operation calls its callback exactly once, unless the Io itself is dropped.
//! - A buffer belongs to the Io from submit to callback, and always comes back, errors included.
//! - Counts may be short (at least 1 byte unless end of file or peer); the caller goes on.
//! - Operations in flight are not ordered among each other; a caller that needs order waits.
//! - After `close_socket` or `close_file` the id is dead. Operations in flight on a closed socket
//!   end soon with an error (or had already succeeded); a file is closed only once idle.
//! - Paths are relative to the data folder that the Io was opened on; `..` never appears.

mod buffer;
mod choice;
pub mod conformance;
mod host;
mod kernel;
mod operation;
mod poll;
mod table;
#[cfg(target_os = "linux")]
mod uring;

pub use buffer::{BLOCK_BYTES, Buffer};
pub use choice::IoChoice;
#[cfg(not(target_os = "linux"))]
pub use choice::uring_available;
pub use poll::PollIo;
#[cfg(target_os = "linux")]
pub use uring::{UringIo, uring_available};

use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Monotonic time in nanoseconds since an arbitrary start. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The instant `nanoseconds` later; saturates at the end of time.
    #[must_use]
    pub fn after(self, nanoseconds: u64) -> Instant {
        Instant(self.0.saturating_add(nanoseconds))
    }

    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time in nanoseconds since 1970-01-01 00:00 UTC. May step; never used for timeouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

/// The caller's name for one operation, handed back to its callback untouched.
///
/// `index` addresses a slab entry of the caller's, `generation` tells its occupants apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Slab index.
    pub index: u32,
    /// Which occupant of that entry.
    pub generation: u32,
}

/// What an operation calls when it is done: a named function, never a closure.
/// `W` is the world (the server), `I` the Io, `R` the result.
pub type Callback<W, I, R> = fn(&mut W, &mut I, Token, R);

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// A connected socket. Ids of closed sockets are not given out again while anything refers to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    /// Slab index.
    pub index: u32,
    /// Which occupant of that entry.
    pub generation: u32,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Slab index.
    pub index: u32,
    /// Which occupant of that entry.
    pub generation: u32,
}

/// Result of [`Network::accept`]: the connection and its peer.
#[derive(Debug)]
pub struct Accepted {
    /// The new socket and the peer's address.
    pub result: io::Result<(SocketId, SocketAddr)>,
}

/// Result of [`Network::receive`].
#[derive(Debug)]
pub struct Received {
    /// The buffer that was lent, with the received bytes appended.
    pub buffer: Vec<u8>,
    /// Bytes appended; 0 means that the peer sends no more.
    pub result: io::Result<usize>,
}

/// Result of [`Network::send`].
#[derive(Debug)]
pub struct Sent {
    /// The buffer that was lent, unchanged.
    pub buffer: Vec<u8>,
    /// Bytes sent, counted from the offset of the call.
    pub result: io::Result<usize>,
}

/// Result of [`Disk::open`].
#[derive(Debug)]
pub struct Opened {
    /// The file and its size in bytes when it was opened.
    pub result: io::Result<(FileId, u64)>,
}

/// Result of [`Disk::read`] and [`Disk::write`].
#[derive(Debug)]
pub struct Transferred {
    /// The buffer that was lent.
    pub buffer: Buffer,
    /// Bytes read or written from the buffer's start; a read of 0 means end of file.
    pub result: io::Result<usize>,
}

/// Result of the disk operations that move no bytes.
#[derive(Debug)]
pub struct Done {
    /// Whether it took effect.
    pub result: io::Result<()>,
}

/// Whether [`Disk::open`] may or must create the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// The file must exist.
    Never,
    /// Create it if it is missing.
    IfMissing,
    /// Create an unnamed file in the folder that the path names; it vanishes with its handle.
    Unnamed,
}

/// How [`Disk::open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Whether the file may be created.
    pub create: Create,
    /// Open for writing too.
    pub write: bool,
    /// Bypass the page cache (`O_DIRECT`): buffers, offsets and lengths are multiples of
    /// [`BLOCK_BYTES`]. Fails with `InvalidInput` where the file system cannot.
    pub direct: bool,
    /// Every write is durable when its callback runs (`O_DSYNC`).
    pub data_sync: bool,
    /// Take an exclusive `flock` on this open description; fails with `WouldBlock` if another
    /// process, or an in-flight request of a killed one, still holds it.
    pub lock: bool,
}

impl OpenOptions {
    /// Read only, buffered, must exist.
    pub const READ: OpenOptions = OpenOptions {
        create: Create::Never,
        write: false,
        direct: false,
        data_sync: false,
        lock: false,
    };
}

/// Time.
pub trait Clock {
    /// Monotonic time. In one callback or turn it may stand still.
    fn now(&self) -> Instant;
    /// Wall-clock time.
    fn wall(&self) -> WallTime;
}

/// Randomness fit for secrets (in the simulator: seeded).
pub trait Entropy {
    /// Fill `bytes` with random bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// Byte streams.
pub trait Network<W>: Sized {
    /// Bind and listen, at once. Returns the address really bound (port 0 picks one).
    ///
    /// # Errors
    /// What `bind` and `listen` answer: address in use, not available, permission.
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)>;
    /// Accept one connection.
    fn accept(&mut self, token: Token, listener: ListenerId, done: Callback<W, Self, Accepted>);
    /// Receive up to the buffer's spare capacity (at least 1 byte of it) and append.
    /// At most one receive per socket is in flight.
    fn receive(
        &mut self,
        token: Token,
        socket: SocketId,
        buffer: Vec<u8>,
        done: Callback<W, Self, Received>,
    );
    /// Send `buffer[offset..]`. At most one send per socket is in flight. Never raises SIGPIPE.
    fn send(
        &mut self,
        token: Token,
        socket: SocketId,
        buffer: Vec<u8>,
        offset: usize,
        done: Callback<W, Self, Sent>,
    );
    /// Send no more (half-close); takes effect at once, errors are ignored.
    fn shutdown(&mut self, socket: SocketId);
    /// Close; operations in flight on it end soon with an error.
    fn close_socket(&mut self, socket: SocketId);
    /// Stop listening; an accept in flight ends with an error.
    fn close_listener(&mut self, listener: ListenerId);
}

/// Files.
pub trait Disk<W>: Sized {
    /// Open or create a file.
    fn open(
        &mut self,
        token: Token,
        path: &Path,
        options: OpenOptions,
        done: Callback<W, Self, Opened>,
    );
    /// Read `buffer.len()` bytes at `offset`.
    fn read(
        &mut self,
        token: Token,
        file: FileId,
        offset: u64,
        buffer: Buffer,
        done: Callback<W, Self, Transferred>,
    );
    /// Write `buffer.len()` bytes at `offset`.
    fn write(
        &mut self,
        token: Token,
        file: FileId,
        offset: u64,
        buffer: Buffer,
        done: Callback<W, Self, Transferred>,
    );
    /// Make the file's bytes and size durable (`fdatasync`).
    fn sync(&mut self, token: Token, file: FileId, done: Callback<W, Self, Done>);
    /// Set the file's size in bytes.
    fn truncate(
        &mut self,
        token: Token,
        file: FileId,
        size_bytes: u64,
        done: Callback<W, Self, Done>,
    );
    /// Reserve space for `size_bytes` and set that size (`fallocate`); fails when the disk is full.
    fn allocate(
        &mut self,
        token: Token,
        file: FileId,
        size_bytes: u64,
        done: Callback<W, Self, Done>,
    );
    /// Create a directory; its parent must exist. `AlreadyExists` is an error like any other.
    fn make_directory(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>);
    /// Make the names in a directory durable. The empty path is the data folder itself.
    fn sync_directory(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>);
    /// Rename, replacing the target.
    fn rename(&mut self, token: Token, from: &Path, to: &Path, done: Callback<W, Self, Done>);
    /// Remove a file's name.
    fn remove(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>);
    /// Close. Nothing may be in flight on the file; errors have nobody to tell and are ignored.
    fn close_file(&mut self, file: FileId);
}

/// All of it, and the wheel that turns it.
pub trait Io<W>: Clock + Entropy + Network<W> + Disk<W> {
    /// Submit what is queued, wait until something completes or `deadline` has come (`None`: no
    /// deadline; a past one: do not wait), then run the callbacks of what completed: a bounded
    /// number. Returns early when a signal arrives.
    fn run(&mut self, world: &mut W, deadline: Option<Instant>);
    /// Submit what is queued now instead of with the next `run`. Waits for nothing and calls nobody.
    fn submit(&mut self);
    /// Operations submitted whose callbacks have not run yet.
    fn in_flight(&self) -> usize;
}
