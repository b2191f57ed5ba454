//! What a kernel Io costs: no allocation per operation once warm, no descriptor left behind.
//!
//! One test in a binary of its own: both counts are the whole process's.

#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::io::{
    Accepted, BLOCK_BYTES, Buffer, Create, FileId, Io, Network, OpenOptions, Opened, PollIo,
    Received, Sent, SocketId, Token, Transferred, UringIo, uring_available,
};

/// Rounds before counting: slabs and queues reach their size.
const WARM_ROUNDS: u32 = 50;

/// Rounds counted.
const COUNTED_ROUNDS: u32 = 500;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: hands everything to the system's allocator, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the callbacks bring back.
#[derive(Default)]
struct World {
    socket: Option<SocketId>,
    file: Option<FileId>,
    bytes: Option<Vec<u8>>,
    block: Option<Buffer>,
}

fn on_accepted<I>(world: &mut World, _: &mut I, _: Token, accepted: Accepted) {
    world.socket = Some(accepted.result.expect("accepted").0);
}

fn on_opened<I>(world: &mut World, _: &mut I, _: Token, opened: Opened) {
    world.file = Some(opened.result.expect("opened").0);
}

fn on_received<I: Network<World>>(_: &mut World, io: &mut I, token: Token, received: Received) {
    assert!(received.result.expect("received") > 0);
    let socket = SocketId { index: token.index, generation: token.generation };
    io.send(token, socket, received.buffer, 0, on_sent);
}

fn on_sent<I>(world: &mut World, _: &mut I, _: Token, sent: Sent) {
    sent.result.expect("sent");
    world.bytes = Some(sent.buffer);
}

fn on_transferred<I>(world: &mut World, _: &mut I, _: Token, moved: Transferred) {
    assert_eq!(moved.result.expect("moved"), BLOCK_BYTES);
    world.block = Some(moved.buffer);
}

/// One echo, one write and one read.
fn turn<I: Io<World>>(io: &mut I, world: &mut World, peer: &mut TcpStream) {
    let (socket, file) = (world.socket.expect("accepted"), world.file.expect("opened"));
    let token = Token { index: socket.index, generation: socket.generation };
    let mut bytes = world.bytes.take().expect("back");
    bytes.clear();
    io.receive(token, socket, bytes, on_received);
    io.run(world, Some(io.now()));
    peer.write_all(b"hello").expect("sent");
    while world.bytes.is_none() {
        io.run(world, None);
    }
    let mut echo = [0; 5];
    peer.read_exact(&mut echo).expect("received");
    assert_eq!(&echo, b"hello");
    let block = world.block.take().expect("back");
    io.write(token, file, 0, block, on_transferred);
    while world.block.is_none() {
        io.run(world, None);
    }
    let block = world.block.take().expect("back");
    io.read(token, file, 0, block, on_transferred);
    while world.block.is_none() {
        io.run(world, None);
    }
}

fn allocates_nothing_once_warm<I: Io<World>>(mut io: I) {
    let mut world = World {
        bytes: Some(Vec::with_capacity(BLOCK_BYTES)),
        block: Some(Buffer::zeroed(BLOCK_BYTES)),
        ..World::default()
    };
    let (listener, address) = io.listen("127.0.0.1:0".parse().expect("valid")).expect("listens");
    io.accept(Token::default(), listener, on_accepted);
    let mut peer = TcpStream::connect(address).expect("connected");
    let options = OpenOptions { create: Create::IfMissing, write: true, ..OpenOptions::READ };
    io.open(Token::default(), Path::new("file"), options, on_opened);
    while world.socket.is_none() || world.file.is_none() {
        io.run(&mut world, None);
    }
    for _ in 0..WARM_ROUNDS {
        turn(&mut io, &mut world, &mut peer);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..COUNTED_ROUNDS {
        turn(&mut io, &mut world, &mut peer);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    // A receive, an accept and open descriptors: the drop has to deal with them.
    io.accept(Token::default(), listener, on_accepted);
    let socket = world.socket.expect("accepted");
    let bytes = world.bytes.take().expect("back");
    io.receive(Token::default(), socket, bytes, on_received);
    io.run(&mut world, Some(io.now()));
}

fn open_descriptors() -> usize {
    Path::new("/proc/self/fd").read_dir().expect("Linux").count()
}

#[test]
fn a_warm_io_allocates_nothing_and_leaves_nothing_open() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let before = open_descriptors();
    allocates_nothing_once_warm(PollIo::open(folder.path()).expect("the Io opens"));
    assert_eq!(open_descriptors(), before);
    if let Err(reason) = uring_available() {
        println!("skipped: {reason}");
        return;
    }
    allocates_nothing_once_warm(UringIo::open(folder.path()).expect("the Io opens"));
    assert_eq!(open_descriptors(), before);
}
