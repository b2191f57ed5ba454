//! The script's steps on files and their names.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::{Answer, ConformanceWorld, Peer, Script, on_done, on_opened, on_transferred};
use crate::io::{BLOCK_BYTES, Buffer, Create, FileId, Io, OpenOptions, Transferred};

/// Read and write, created if missing.
pub(super) const READ_WRITE: OpenOptions =
    OpenOptions { create: Create::IfMissing, write: true, ..OpenOptions::READ };

/// The same; the steps say so where the file is new.
pub(super) const FRESH: OpenOptions = READ_WRITE;

/// Bytes that tell their place and their file.
pub(super) fn pattern(seed: u32, length_bytes: usize) -> Vec<u8> {
    let byte = |index: usize| ((index * 31 + index / 251) as u32 ^ seed.wrapping_mul(97)) as u8;
    (0..length_bytes).map(byte).collect()
}

impl<I: Io<ConformanceWorld>, P: Peer<I>> Script<I, P> {
    pub(super) fn open(&mut self, path: &str, options: OpenOptions) -> io::Result<(FileId, u64)> {
        let token = self.submit(|io, token| io.open(token, Path::new(path), options, on_opened));
        match self.answer(token) {
            Answer::Opened(opened) => opened.result,
            other => panic!("another operation's answer: {other:?}"),
        }
    }

    fn read(&mut self, file: FileId, offset: u64, buffer: Buffer) -> Transferred {
        let token = self.submit(|io, token| io.read(token, file, offset, buffer, on_transferred));
        match self.answer(token) {
            Answer::Transferred(moved) => moved,
            other => panic!("another operation's answer: {other:?}"),
        }
    }

    fn write(&mut self, file: FileId, offset: u64, buffer: Buffer) -> Transferred {
        let token = self.submit(|io, token| io.write(token, file, offset, buffer, on_transferred));
        match self.answer(token) {
            Answer::Transferred(moved) => moved,
            other => panic!("another operation's answer: {other:?}"),
        }
    }

    /// Read until `length_bytes` or the end of the file.
    pub(super) fn read_all(&mut self, file: FileId, offset: u64, length_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length_bytes {
            let wanted_bytes = length_bytes - bytes.len();
            let mut buffer = Buffer::zeroed(wanted_bytes);
            buffer.set_len(wanted_bytes);
            let moved = self.read(file, offset + bytes.len() as u64, buffer);
            assert_eq!(moved.buffer.len(), wanted_bytes, "the buffer comes back as it was lent");
            let count = moved.result.expect("read");
            assert!(count <= wanted_bytes);
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&moved.buffer[..count]);
        }
        bytes
    }

    /// Write all of `bytes`, however short the counts are.
    pub(super) fn write_all(&mut self, file: FileId, offset: u64, bytes: &[u8]) {
        let mut written_bytes = 0;
        while written_bytes < bytes.len() {
            let rest = &bytes[written_bytes..];
            let mut buffer = Buffer::zeroed(rest.len());
            buffer.set_len(rest.len());
            buffer.copy_from_slice(rest);
            let moved = self.write(file, offset + written_bytes as u64, buffer);
            assert!(moved.buffer[..] == *rest, "a write leaves the buffer alone");
            let count = moved.result.expect("written");
            assert!((1..=rest.len()).contains(&count), "at least one byte, at most all");
            written_bytes += count;
        }
    }

    fn size(&mut self, path: &str) -> u64 {
        let (file, size_bytes) = self.open(path, OpenOptions::READ).expect("it exists");
        self.io.close_file(file);
        size_bytes
    }
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.expect_err("it should fail").kind()
}

pub(super) fn open_creates_and_measures<I: Io<ConformanceWorld>, P: Peer<I>>(
    script: &mut Script<I, P>,
) {
    assert_eq!(kind(script.open("file", OpenOptions::READ)), ErrorKind::NotFound);
    let absent = OpenOptions { create: Create::Never, ..READ_WRITE };
    assert_eq!(kind(script.open("file", absent)), ErrorKind::NotFound);
    assert_eq!(kind(script.open("nowhere/file", FRESH)), ErrorKind::NotFound);

    let (file, size_bytes) = script.open("file", FRESH).expect("created");
    assert_eq!(size_bytes, 0);
    script.write_all(file, 0, b"12345");
    let (again, size_bytes) = script.open("file", READ_WRITE).expect("opened again");
    assert_eq!(size_bytes, 5, "opening neither truncates nor forgets");
    assert!(file != again, "each open has an id of its own");
    assert_eq!(script.read_all(again, 0, 100), b"12345");

    let (readable, _) = script.open("file", OpenOptions::READ).expect("opened to read");
    let moved = script.write(readable, 0, Buffer::zeroed(BLOCK_BYTES));
    assert!(moved.result.is_err(), "opened to read only");
    assert_eq!(moved.buffer.len(), BLOCK_BYTES, "the buffer comes back with an error");
    for file in [file, again, readable] {
        script.io.close_file(file);
    }
}

pub(super) fn bytes_read_back<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (file, _) = script.open("file", FRESH).expect("created");
    let bytes = pattern(1, 3 * BLOCK_BYTES + 123);
    script.write_all(file, 0, &bytes);
    assert!(script.read_all(file, 0, bytes.len()) == bytes);
    let offset = BLOCK_BYTES + 1;
    assert!(script.read_all(file, offset as u64, 500) == bytes[offset..offset + 500]);

    // The end of the file: a short read, then none.
    let tail = script.read_all(file, (bytes.len() - 10) as u64, BLOCK_BYTES);
    assert!(tail == bytes[bytes.len() - 10..]);
    for offset in [bytes.len() as u64, 1 << 40] {
        let moved = script.read(file, offset, Buffer::zeroed(BLOCK_BYTES));
        assert_eq!(moved.result.expect("no error at the end"), 0);
    }

    // Overwrite in the middle, and past the end: the gap reads as zeroes.
    script.write_all(file, 100, b"middle");
    assert_eq!(script.read_all(file, 99, 8)[1..7], *b"middle");
    let far = 10 * BLOCK_BYTES as u64;
    script.write_all(file, far, b"far");
    assert_eq!(script.read_all(file, far - 2, 100), b"\0\0far");
    script.done(|io, token| io.sync(token, file, on_done)).expect("synced");
    script.io.close_file(file);
    assert_eq!(script.size("file"), far + 3);
}

pub(super) fn sizes<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (file, _) = script.open("file", FRESH).expect("created");
    script.write_all(file, 0, &pattern(2, 1_000));
    script.done(|io, token| io.truncate(token, file, 10, on_done)).expect("cut");
    assert_eq!(script.size("file"), 10);
    script.done(|io, token| io.truncate(token, file, 20, on_done)).expect("grown");
    let mut expected = pattern(2, 10);
    expected.resize(20, 0);
    assert_eq!(script.read_all(file, 0, 100), expected, "what was cut reads as zeroes");

    let size_bytes = 64 * BLOCK_BYTES as u64;
    script.done(|io, token| io.allocate(token, file, size_bytes, on_done)).expect("reserved");
    assert_eq!(script.size("file"), size_bytes);
    assert_eq!(script.read_all(file, 0, 20), expected, "allocation keeps what is there");
    assert_eq!(script.read_all(file, size_bytes - 4, 100), [0; 4]);
    let smaller_bytes = 2 * BLOCK_BYTES as u64;
    script.done(|io, token| io.allocate(token, file, smaller_bytes, on_done)).expect("cut");
    assert_eq!(script.size("file"), smaller_bytes, "allocation sets the size");
    script.io.close_file(file);
}

pub(super) fn direct_and_data_sync<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let options = OpenOptions { direct: true, data_sync: true, ..FRESH };
    let file = match script.open("log", options) {
        Ok((file, _)) => file,
        // A file system without direct I/O says so, and no more can be checked on it.
        Err(error) => return assert_eq!(error.kind(), ErrorKind::InvalidInput),
    };
    let size_bytes = 16 * BLOCK_BYTES;
    script.done(|io, token| io.allocate(token, file, size_bytes as u64, on_done)).expect("space");
    let bytes = pattern(3, 4 * BLOCK_BYTES);
    let offset = 8 * BLOCK_BYTES as u64;
    script.write_all(file, offset, &bytes);
    assert!(script.read_all(file, offset, bytes.len()) == bytes, "direct reads back");
    assert_eq!(script.read_all(file, 0, BLOCK_BYTES), [0; BLOCK_BYTES]);
    let moved = script.read(file, size_bytes as u64, Buffer::zeroed(BLOCK_BYTES));
    assert_eq!(moved.result.expect("no error at the end"), 0);

    let (buffered, seen_bytes) = script.open("log", OpenOptions::READ).expect("opened");
    assert_eq!(seen_bytes, size_bytes as u64);
    assert!(script.read_all(buffered, offset, bytes.len()) == bytes, "the page cache agrees");
    script.io.close_file(buffered);
    script.io.close_file(file);
}

pub(super) fn unnamed_files<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let unnamed = OpenOptions { create: Create::Unnamed, ..READ_WRITE };
    script.done(|io, token| io.make_directory(token, Path::new("spill"), on_done)).expect("made");
    let (first, size_bytes) = script.open("spill", unnamed).expect("an unnamed file");
    assert_eq!(size_bytes, 0);
    let (second, _) = script.open("spill", unnamed).expect("another");
    script.write_all(first, 0, b"first");
    script.write_all(second, 0, b"second");
    assert_eq!(script.read_all(first, 0, 100), b"first");
    assert_eq!(script.read_all(second, 0, 100), b"second");
    assert_eq!(kind(script.open("absent", unnamed)), ErrorKind::NotFound);
    script.io.close_file(first);
    script.io.close_file(second);
}

pub(super) fn lock_is_exclusive<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let locked = OpenOptions { lock: true, ..READ_WRITE };
    let (file, _) = script.open("lock", locked).expect("the first lock");
    assert_eq!(kind(script.open("lock", locked)), ErrorKind::WouldBlock);
    let (unlocked, _) = script.open("lock", READ_WRITE).expect("who asks for no lock gets in");
    script.io.close_file(unlocked);
    assert_eq!(kind(script.open("lock", locked)), ErrorKind::WouldBlock);
    script.io.close_file(file);
    // A close is told to nobody, so the lock goes soon rather than at once.
    for _ in 0..super::ROUNDS_MAX {
        match script.open("lock", locked) {
            Ok((file, _)) => return script.io.close_file(file),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        script.round();
    }
    panic!("closing the file does not release the lock");
}

pub(super) fn names<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (folder, inner) = (Path::new("00"), Path::new("00/ff"));
    let made = script.done(|io, token| io.make_directory(token, inner, on_done));
    assert_eq!(kind(made), ErrorKind::NotFound, "the parent must exist");
    for path in [folder, inner] {
        script.done(|io, token| io.make_directory(token, path, on_done)).expect("made");
        let made = script.done(|io, token| io.make_directory(token, path, on_done));
        assert_eq!(kind(made), ErrorKind::AlreadyExists);
    }
    let (old, new) = (Path::new("00/ff/old"), Path::new("00/new"));
    for (path, bytes) in [("00/ff/old", "old"), ("00/new", "replaced")] {
        let (file, _) = script.open(path, FRESH).expect("created");
        script.write_all(file, 0, bytes.as_bytes());
        script.io.close_file(file);
    }
    script.done(|io, token| io.rename(token, old, new, on_done)).expect("renamed");
    assert_eq!(script.size("00/new"), 3, "a rename replaces the target");
    assert_eq!(kind(script.open("00/ff/old", OpenOptions::READ)), ErrorKind::NotFound);
    let renamed = script.done(|io, token| io.rename(token, old, new, on_done));
    assert_eq!(kind(renamed), ErrorKind::NotFound);

    for path in ["", "00", "00/ff"] {
        script.done(|io, token| io.sync_directory(token, Path::new(path), on_done)).expect(path);
    }
    let synced = script.done(|io, token| io.sync_directory(token, Path::new("absent"), on_done));
    assert_eq!(kind(synced), ErrorKind::NotFound);
    script.done(|io, token| io.remove(token, new, on_done)).expect("removed");
    let removed = script.done(|io, token| io.remove(token, new, on_done));
    assert_eq!(kind(removed), ErrorKind::NotFound);
    assert_eq!(kind(script.open("00/new", OpenOptions::READ)), ErrorKind::NotFound);
}

pub(super) fn dead_file_ids<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (dead, _) = script.open("file", FRESH).expect("created");
    script.io.close_file(dead);
    // The next file may take the dead one's place, and must not be mistaken for it.
    let (alive, _) = script.open("file", FRESH).expect("opened");
    assert!(dead != alive);
    let moved = script.read(dead, 0, Buffer::zeroed(BLOCK_BYTES));
    assert!(moved.result.is_err());
    assert_eq!(moved.buffer.len(), BLOCK_BYTES);
    let moved = script.write(dead, 0, Buffer::zeroed(2 * BLOCK_BYTES));
    assert!(moved.result.is_err());
    assert_eq!(moved.buffer.len(), 2 * BLOCK_BYTES);
    script.done(|io, token| io.sync(token, dead, on_done)).expect_err("dead");
    script.done(|io, token| io.truncate(token, dead, 1, on_done)).expect_err("dead");
    script.done(|io, token| io.allocate(token, dead, 1, on_done)).expect_err("dead");
    script.io.close_file(dead);
    assert_eq!(script.size("file"), 0, "nothing reached the living file");
    script.write_all(alive, 0, b"alive");
    script.io.close_file(alive);
}
