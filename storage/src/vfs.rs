//! SQLite's file system: a table of C functions over the volume that the running fiber was lent.
//!
//! Owns the translation between SQLite's calls and the volume: names, offsets, result codes, and
//! the loops that suspend. No path ever comes from SQL: the main database is called `main`, its
//! WAL `main-wal`, temporary objects have no name, and everything else is refused. Nothing here
//! touches a file; whoever resumes the fiber does (`fiber::Wait`).
//!
//! No borrow of the volume is held over a suspension (`fiber::with_volume` asserts it), so another
//! fiber of the same tenant may have changed it when this one goes on: every loop looks again.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::ErrorKind;
use std::{mem, ptr, slice};

use rusqlite::ffi;

use crate::extent::{Extent, Place};
use crate::fiber::{self, Answer, Wait, suspend, with_volume};
use crate::io::{BLOCK_BYTES, Buffer, FileId};
use crate::ledger::Kind;
use crate::limits;
use crate::page::{self, PAGE_BYTES};
use crate::volume::{
    Checkpoint, ConnectionId, FRAME_BYTES, FRAME_HEADER_BYTES, Frame, LOCKS, PageSource,
    REGION_BYTES, Volume, WAL_HEADER_BYTES, WRITER_LOCK,
};

/// Name of this VFS, and of the main database file in it.
pub const VFS_NAME: &CStr = c"myriad";
/// The one name that a database may be opened under.
pub const MAIN_NAME: &CStr = c"main";
/// The schema that it is in every connection.
pub const MAIN_SCHEMA: &CStr = c"main";
const WAL_NAME: &[u8] = b"main-wal";
/// Bytes of the header that SQLite reads before any page.
const FILE_HEADER_BYTES: usize = 100;
/// SQLite's `WAL_READ_LOCK(0)`: a checkpoint holds it while it writes, until it has said how far.
const CHECKPOINT_READ_LOCK: usize = 3;
/// Locks of `aReadMark`, in the shared-lock mask: bits 3 to 7.
const READ_LOCKS: u8 = 0b1111_1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Main,
    Wal,
    Scratch(usize),
}

/// What SQLite allocates `szOsFile` bytes for and hands to every call.
#[repr(C)]
pub(crate) struct File {
    base: ffi::sqlite3_file,
    role: Role,
    pub(crate) connection: ConnectionId,
    shared: u8,
    exclusive: u8,
    /// The connection held a read lock when its statement started, so a writer lock is an upgrade:
    /// SQLite will not call the busy handler for it.
    upgrade: bool,
}

impl File {
    /// Note that a statement starts on the connection of this main file.
    pub(crate) fn mark_statement(&mut self) {
        self.upgrade = self.shared & READ_LOCKS != 0;
    }
}

type Code = Result<(), c_int>;

fn code(result: Code) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
}

/// # Safety
/// `file` is a file that `open` set up and SQLite has not closed.
unsafe fn file_of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut File {
    // SAFETY: SQLite passes back what `open` wrote, one call at a time.
    unsafe { &mut *file.cast::<File>() }
}

fn offset_of(offset: i64) -> Result<u64, c_int> {
    u64::try_from(offset).map_err(|_| ffi::SQLITE_IOERR)
}

// ---- extents: WAL image and temporary objects ----

fn with_extent<R>(role: Role, body: impl FnOnce(&mut Extent) -> R) -> R {
    with_volume(|volume| match role {
        Role::Wal => body(&mut volume.wal),
        Role::Scratch(key) => body(&mut volume.scratch[key]),
        Role::Main => unreachable!("the main file is no extent"),
    })
}

/// Read `out.len()` bytes; `false` if the end came first (the rest is zeros).
fn read_extent(role: Role, offset: u64, out: &mut [u8]) -> Result<bool, c_int> {
    let size = with_extent(role, |extent| extent.size());
    let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
    let (out, rest) = out.split_at_mut(there);
    rest.fill(0);
    let mut done = 0;
    while done < out.len() {
        let at = offset + done as u64;
        let wanted = out.len() - done;
        let from_file = with_extent(role, |extent| match extent.locate(at, wanted) {
            Place::Memory(length) => {
                match extent.memory(at, length) {
                    Some(bytes) => out[done..done + length].copy_from_slice(bytes),
                    None => out[done..done + length].fill(0),
                }
                done += length;
                None
            }
            Place::File(at, _) => Some((extent.file(), at)),
        });
        let Some((file, file_offset)) = from_file else {
            continue;
        };
        let Some(file) = file else {
            out[done..].fill(0);
            break;
        };
        let moved = read_file(file, file_offset, &mut out[done..])?;
        out[done + moved..].fill(0);
        done = out.len();
    }
    Ok(rest.is_empty())
}

fn read_file(file: FileId, offset: u64, out: &mut [u8]) -> Result<usize, c_int> {
    let mut buffer = Buffer::zeroed(out.len());
    buffer.set_len(out.len());
    match suspend(Wait::Read { file, offset, buffer }) {
        Answer::Moved(buffer, moved) => {
            out[..moved].copy_from_slice(&buffer[..moved]);
            Ok(moved)
        }
        _ => Err(ffi::SQLITE_IOERR_READ),
    }
}

fn write_file(file: FileId, offset: u64, buffer: Buffer) -> Code {
    let wanted = buffer.len();
    match suspend(Wait::Write { file, offset, buffer }) {
        Answer::Moved(_, moved) if moved == wanted => Ok(()),
        Answer::Full => Err(ffi::SQLITE_FULL),
        _ => Err(ffi::SQLITE_IOERR_WRITE),
    }
}

fn write_extent(role: Role, offset: u64, bytes: &[u8]) -> Code {
    enum Next {
        Again(usize),
        File(Option<FileId>, u64),
        NoMemory,
    }
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let rest = &bytes[done..];
        let next = with_extent(role, |extent| match extent.locate(at, rest.len()) {
            Place::Memory(length) => match extent.memory_mut(at, length) {
                Ok(Some(room)) => {
                    room.copy_from_slice(&rest[..length]);
                    extent.wrote(at + length as u64);
                    Next::Again(length)
                }
                Ok(None) => Next::Again(0),
                Err(_) => Next::NoMemory,
            },
            Place::File(at, _) => Next::File(extent.file(), at),
        });
        match next {
            Next::Again(length) => done += length,
            Next::NoMemory => return Err(ffi::SQLITE_IOERR_NOMEM),
            Next::File(None, _) => open_temporary(role)?,
            Next::File(Some(file), file_offset) => {
                let used = with_volume(|volume| volume.temporary_bytes());
                if used + rest.len() as u64 > limits::TEMPORARY_BYTES_MAX {
                    return Err(ffi::SQLITE_FULL);
                }
                let mut buffer = Buffer::zeroed(rest.len());
                buffer.set_len(rest.len());
                buffer.copy_from_slice(rest);
                write_file(file, file_offset, buffer)?;
                with_extent(role, |extent| extent.wrote(offset + bytes.len() as u64));
                done = bytes.len();
            }
        }
    }
    Ok(())
}

fn open_temporary(role: Role) -> Code {
    match suspend(Wait::OpenTemporary) {
        Answer::Opened(file, _) => {
            with_extent(role, |extent| extent.set_file(file));
            Ok(())
        }
        Answer::Full => Err(ffi::SQLITE_FULL),
        _ => Err(ffi::SQLITE_CANTOPEN),
    }
}

fn truncate_extent(role: Role, size: u64) -> Code {
    let cut = with_extent(role, |extent| {
        let before = extent.file_bytes();
        extent.truncate(size);
        extent.file().filter(|_| extent.file_bytes() < before).map(|f| (f, extent.file_bytes()))
    });
    match cut {
        Some((file, bytes)) => match suspend(Wait::Truncate(file, bytes)) {
            Answer::Ready => Ok(()),
            _ => Err(ffi::SQLITE_IOERR_TRUNCATE),
        },
        None => Ok(()),
    }
}

// ---- the main file ----

/// Open the tenant's file if it has one and it is not open; check its age and length (F1, F10).
fn ensure_main_open() -> Code {
    if with_volume(|volume| !volume.main.exists || volume.main.handle.is_some()) {
        return Ok(());
    }
    let (file, size) = match suspend(Wait::OpenMain { create: false, direct: false }) {
        Answer::Opened(file, size) => (file, size),
        Answer::Failed(ErrorKind::NotFound) => {
            with_volume(|volume| volume.set_damage("its file is missing".into()));
            return Err(ffi::SQLITE_CORRUPT);
        }
        _ => return Err(ffi::SQLITE_IOERR),
    };
    let ours = with_volume(|volume| {
        if volume.main.handle.is_some() {
            volume.closing.push(file);
            return false;
        }
        volume.main.handle = Some(file);
        volume.main.pages = u32::try_from(size / PAGE_BYTES as u64).unwrap_or(u32::MAX);
        true
    });
    if ours { check_age(file) } else { Ok(()) }
}

fn check_age(file: FileId) -> Code {
    let mut bytes = [0; PAGE_BYTES];
    let moved = read_file(file, 0, &mut bytes)?;
    with_volume(|volume| {
        let stamp =
            if moved == PAGE_BYTES { page::verify_tail(volume.tenant(), 1, &bytes) } else { None };
        match stamp {
            // A checkpoint that was cut short may have grown page 1 first; the log has the rest.
            Some(stamp) if stamp >= volume.main.stamp_min && volume.has_overlay() => Ok(()),
            Some(stamp) if stamp >= volume.main.stamp_min => {
                let (pages, wanted) = (volume.main.pages, page::database_pages(&bytes));
                if pages >= wanted {
                    return Ok(());
                }
                let text = format!("its file was cut: it has {pages} of {wanted} pages");
                volume.set_damage(text);
                Err(ffi::SQLITE_CORRUPT)
            }
            Some(stamp) => {
                let known = volume.main.stamp_min;
                let text = format!("its file is an old copy: transaction {stamp}, not {known}");
                volume.set_damage(text);
                Err(ffi::SQLITE_CORRUPT)
            }
            // A checkpoint that was cut short may have torn page 1; the log then has it.
            None if matches!(volume.page_source(1), PageSource::Log(_)) => Ok(()),
            None => {
                volume.set_damage("page 1 of its file is damaged".into());
                Err(ffi::SQLITE_CORRUPT)
            }
        }
    })
}

fn read_page(page_number: u32, out: &mut [u8; PAGE_BYTES]) -> Result<bool, c_int> {
    ensure_main_open()?;
    match with_volume(|volume| volume.page_source(page_number)) {
        PageSource::Empty => {
            *out = page::empty_database();
            Ok(true)
        }
        PageSource::Beyond => {
            out.fill(0);
            Ok(false)
        }
        PageSource::Log(location) => match suspend(Wait::ReadLog(location)) {
            Answer::Moved(buffer, moved) if moved == PAGE_BYTES => {
                out.copy_from_slice(&buffer);
                Ok(true)
            }
            Answer::Moved(..) => {
                let text = format!("page {page_number} is damaged in the commit log");
                with_volume(|volume| volume.set_damage(text));
                Err(ffi::SQLITE_CORRUPT)
            }
            _ => Err(ffi::SQLITE_IOERR_READ),
        },
        PageSource::File => read_page_from_file(page_number, out),
    }
}

fn read_page_from_file(page_number: u32, out: &mut [u8; PAGE_BYTES]) -> Result<bool, c_int> {
    let offset = u64::from(page_number - 1) * PAGE_BYTES as u64;
    // A second try tells a misdirected read from rot.
    for _ in 0..2 {
        let (file, pages) = with_volume(|volume| (volume.main.handle, volume.main.pages));
        let file = file.ok_or(ffi::SQLITE_IOERR_READ)?;
        if page_number > pages {
            out.fill(0);
            return Ok(false);
        }
        let moved = read_file(file, offset, out)?;
        let good = with_volume(|volume| {
            moved == PAGE_BYTES && page::verify_tail(volume.tenant(), page_number, out).is_some()
        });
        if good {
            return Ok(true);
        }
    }
    let text = format!("page {page_number} of its file is damaged");
    with_volume(|volume| volume.set_damage(text));
    Err(ffi::SQLITE_CORRUPT)
}

fn read_main(offset: u64, out: &mut [u8]) -> Result<bool, c_int> {
    let mut page_bytes = [0; PAGE_BYTES];
    let mut done = 0;
    let mut complete = true;
    while done < out.len() {
        let at = offset + done as u64;
        let number = u32::try_from(at / PAGE_BYTES as u64 + 1).map_err(|_| ffi::SQLITE_IOERR)?;
        let start = (at % PAGE_BYTES as u64) as usize;
        let length = (PAGE_BYTES - start).min(out.len() - done);
        complete &= read_page(number, &mut page_bytes)?;
        out[done..done + length].copy_from_slice(&page_bytes[start..start + length]);
        done += length;
    }
    Ok(complete)
}

// ---- checkpoints ----

/// Put a page, its tail set, behind the pages that wait to be written; write them when the run
/// ends or is long enough.
fn checkpoint_page(page_number: u32, bytes: &[u8]) -> Code {
    let full = with_volume(|volume| {
        let checkpoint = volume.checkpoint.as_ref()?;
        let run = checkpoint.run.as_ref();
        Some(run.is_some_and(|(first, _, pages)| {
            *first as usize + pages != page_number as usize
                || *pages == limits::CHECKPOINT_RUN_PAGES
        }))
    });
    // Only a checkpoint of ours may write to the main file.
    if full.ok_or(ffi::SQLITE_IOERR_WRITE)? {
        flush_run()?;
    }
    with_volume(|volume| {
        let tenant = volume.tenant();
        let checkpoint = volume.checkpoint.as_mut().ok_or(ffi::SQLITE_IOERR_WRITE)?;
        let (_, buffer, pages) = checkpoint.run.get_or_insert_with(|| {
            (page_number, Buffer::zeroed(limits::CHECKPOINT_RUN_PAGES * PAGE_BYTES), 0)
        });
        let place = &mut buffer[*pages * PAGE_BYTES..][..PAGE_BYTES];
        place.copy_from_slice(bytes);
        page::set_tail(tenant, page_number, checkpoint.stamp, place);
        *pages += 1;
        Ok(())
    })
}

fn flush_run() -> Code {
    let run = with_volume(|volume| {
        let run = volume.checkpoint.as_mut().and_then(|checkpoint| checkpoint.run.take());
        run.map(|run| (volume.main.handle, run))
    });
    let Some((file, (first, mut buffer, pages))) = run else {
        return Ok(());
    };
    let file = file.ok_or(ffi::SQLITE_IOERR_WRITE)?;
    buffer.set_len(pages * PAGE_BYTES);
    write_file(file, u64::from(first - 1) * PAGE_BYTES as u64, buffer)?;
    with_volume(|volume| {
        let last = first + u32::try_from(pages).expect("a run is short") - 1;
        volume.main.pages = volume.main.pages.max(last);
        if let Some(checkpoint) = &mut volume.checkpoint {
            checkpoint.written.extend(first..=last);
        }
    });
    Ok(())
}

/// SQLite has written all pages of its checkpoint, and will send readers to the file at once; it
/// syncs the file only where the checkpoint covers the whole WAL. So it is brought there now. What
/// fails here is remembered: SQLite does not look at this call's result.
fn finish_pages() {
    if with_volume(|volume| volume.checkpoint.is_none()) {
        return;
    }
    if let Err(code) = sync_main() {
        with_volume(|volume| {
            if let Some(checkpoint) = &mut volume.checkpoint {
                checkpoint.failed = Some(code);
            }
        });
    }
}

/// Make what the checkpoint wrote durable, and read it back past the page cache (F2).
fn sync_main() -> Code {
    if let Some(code) = checkpoint_failure() {
        return Err(code);
    }
    flush_run()?;
    let state = with_volume(|volume| {
        let checkpoint = volume.checkpoint.as_mut()?;
        let mut written = mem::take(&mut checkpoint.written);
        written.sort_unstable();
        written.dedup();
        let cut = mem::take(&mut checkpoint.cut);
        Some((volume.main.handle?, checkpoint.stamp, written, cut))
    });
    let Some((file, stamp, written, cut)) = state else { return Ok(()) };
    if written.is_empty() && !cut {
        return Ok(());
    }
    match suspend(Wait::Sync(file)) {
        Answer::Ready => {}
        Answer::Full => return Err(ffi::SQLITE_FULL),
        _ => return Err(ffi::SQLITE_IOERR_FSYNC),
    }
    if let Some(direct) = open_direct()? {
        read_back(direct, &written, stamp)?;
    }
    with_volume(|volume| volume.on_main_synced(stamp, written.first() == Some(&1)));
    Ok(())
}

/// Why the checkpoint in hand has failed already, if it has.
#[must_use]
pub fn checkpoint_failure() -> Option<i32> {
    with_volume(|volume| volume.checkpoint.as_ref().and_then(|checkpoint| checkpoint.failed))
}

fn read_back(direct: FileId, written: &[u32], stamp: u64) -> Code {
    let mut index = 0;
    while index < written.len() {
        let first = written[index];
        let length = written[index..]
            .iter()
            .enumerate()
            .take(limits::CHECKPOINT_RUN_PAGES)
            .take_while(|&(offset, &number)| number as usize == first as usize + offset)
            .count();
        read_back_run(direct, first, length, stamp)?;
        index += length;
    }
    Ok(())
}

/// The file past the page cache, or `None` where the file system has no direct I/O.
fn open_direct() -> Result<Option<FileId>, c_int> {
    if let Some(direct) = with_volume(|volume| volume.main.direct) {
        return Ok(Some(direct));
    }
    match suspend(Wait::OpenMain { create: false, direct: true }) {
        Answer::Opened(file, _) => {
            with_volume(|volume| volume.main.direct = Some(file));
            Ok(Some(file))
        }
        Answer::Failed(ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(None),
        _ => Err(ffi::SQLITE_IOERR_READ),
    }
}

fn read_back_run(direct: FileId, first: u32, pages: usize, stamp: u64) -> Code {
    let mut buffer = Buffer::zeroed(pages * PAGE_BYTES);
    buffer.set_len(pages * PAGE_BYTES);
    let offset = u64::from(first - 1) * PAGE_BYTES as u64;
    let Answer::Moved(buffer, moved) = suspend(Wait::Read { file: direct, offset, buffer }) else {
        return Err(ffi::SQLITE_IOERR_READ);
    };
    with_volume(|volume| {
        for (number, page_bytes) in (first..).zip(buffer[..moved].chunks_exact(PAGE_BYTES)) {
            if page::verify_tail(volume.tenant(), number, page_bytes) != Some(stamp) {
                return Err(ffi::SQLITE_IOERR_WRITE);
            }
        }
        if moved == buffer.len() { Ok(()) } else { Err(ffi::SQLITE_IOERR_WRITE) }
    })
}

/// Start a checkpoint: make the tenant's file if it has none, and bring the pages that recovery
/// found in the log into it. Runs on a fiber; SQLite's own checkpoint comes next.
///
/// # Errors
/// An SQLite result code.
pub fn begin_checkpoint() -> Result<(), i32> {
    let missing = with_volume(|volume| {
        assert!(volume.checkpoint.is_none());
        volume.checkpoint = Some(Checkpoint {
            stamp: volume.last_txid(),
            written: Vec::new(),
            run: None,
            cut: false,
            failed: None,
        });
        !volume.main.exists && volume.main.handle.is_none()
    });
    if missing {
        match suspend(Wait::OpenMain { create: true, direct: false }) {
            Answer::Opened(file, size) => with_volume(|volume| {
                volume.main.handle = Some(file);
                volume.main.pages = u32::try_from(size / PAGE_BYTES as u64).unwrap_or(u32::MAX);
            }),
            Answer::Full => return Err(ffi::SQLITE_FULL),
            _ => return Err(ffi::SQLITE_CANTOPEN),
        }
    }
    ensure_main_open()?;
    let mut bytes = [0; PAGE_BYTES];
    let overlay = with_volume(|volume| volume.overlay_pages());
    for (number, _) in &overlay {
        read_page(*number, &mut bytes)?;
        checkpoint_page(*number, &bytes)?;
    }
    if with_volume(|volume| volume.has_overlay()) {
        let pages = with_volume(|volume| volume.main_pages());
        truncate_main(pages)?;
    }
    Ok(())
}

/// SQLite's checkpoint has brought the first `frames` frames of the WAL into the file (`None`: all,
/// and the WAL was cut): end the checkpoint. Where the WAL was empty there is still the overlay to
/// sync.
///
/// # Errors
/// An SQLite result code.
pub fn end_checkpoint(frames: Option<u32>) -> Result<(), i32> {
    sync_main()?;
    with_volume(|volume| {
        let checkpoint = volume.checkpoint.take().expect("a checkpoint was begun");
        assert!(checkpoint.run.is_none() && checkpoint.written.is_empty());
        if let Some(frames) = frames {
            volume.on_backfill(frames);
        }
        volume.closing.extend(volume.main.direct.take());
    });
    Ok(())
}

/// Give a failed checkpoint up; the pages it wrote are still in WAL or log.
pub fn abandon_checkpoint() {
    with_volume(|volume| {
        volume.checkpoint = None;
        volume.closing.extend(volume.main.direct.take());
    });
}

fn truncate_main(pages: u32) -> Code {
    flush_run()?;
    let file = with_volume(|volume| {
        volume.checkpoint.as_ref()?;
        volume.main.handle.filter(|_| volume.main.pages > pages)
    });
    let Some(file) = file else { return Ok(()) };
    match suspend(Wait::Truncate(file, u64::from(pages) * PAGE_BYTES as u64)) {
        Answer::Ready => {
            with_volume(|volume| {
                volume.main.pages = pages;
                if let Some(checkpoint) = &mut volume.checkpoint {
                    checkpoint.written.retain(|&number| number <= pages);
                    checkpoint.cut = true;
                }
            });
            Ok(())
        }
        _ => Err(ffi::SQLITE_IOERR_TRUNCATE),
    }
}

// ---- commits ----

/// A sync of the WAL: before a commit, room in the log; before a checkpoint, durability (F8).
fn sync_wal(connection: ConnectionId) -> Code {
    let committing = with_volume(|volume| {
        let writes = volume.writer() == Some(connection);
        if writes { volume.committing_pages() } else { None }
    });
    let Some(pages) = committing else {
        return match suspend(Wait::Durable) {
            Answer::Ready => Ok(()),
            _ => Err(ffi::SQLITE_IOERR_FSYNC),
        };
    };
    if with_volume(|volume| volume.reserved_pages == Some(pages)) {
        return Ok(());
    }
    with_volume(Volume::release_reservation);
    match suspend(Wait::LogSpace { pages }) {
        Answer::Ready => {
            with_volume(|volume| volume.reserved_pages = Some(pages));
            Ok(())
        }
        Answer::Full | Answer::TimedOut => Err(ffi::SQLITE_FULL),
        _ => Err(ffi::SQLITE_IOERR_FSYNC),
    }
}

/// The writer lock is being released: append what was committed to the log.
fn seal() {
    if !with_volume(Volume::begin_sealing) {
        with_volume(Volume::release_reservation);
        return;
    }
    loop {
        match suspend(Wait::Seal) {
            Answer::Ready => return,
            Answer::Bring(frame) => {
                let mut buffer = Buffer::zeroed(PAGE_BYTES);
                let read = read_extent(Role::Wal, Volume::frame_page_offset(frame), &mut buffer);
                let there = matches!(read, Ok(true));
                with_volume(|volume| volume.bring(there.then_some(buffer)));
                if !there {
                    return;
                }
            }
            _ => {
                with_volume(Volume::abandon_sealing);
                return;
            }
        }
    }
}

// ---- sqlite3_io_methods ----

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite's promise.
    let file = unsafe { file_of(file) };
    if let Role::Scratch(key) = file.role {
        with_volume(|volume| {
            let spilled = volume.scratch[key].clear();
            volume.closing.extend(spilled);
            drop(volume.scratch.remove(key));
        });
    }
    if file.role == Role::Main {
        with_volume(|volume| volume.unreserve_writer(file.connection));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite's promise.
    let role = unsafe { file_of(file) }.role;
    // SAFETY: SQLite lends `amount` bytes at `out` for the length of this call.
    let out = unsafe { slice::from_raw_parts_mut(out.cast::<u8>(), amount.max(0) as usize) };
    let result = offset_of(offset).and_then(|offset| match role {
        // SQLite looks at the header once when it opens, without a lock and whatever the WAL holds:
        // a checkpoint may be writing page 1 just then, or a partial one may have left it out. What
        // it looks for is the same in every file of ours.
        Role::Main if offset == 0 && out.len() == FILE_HEADER_BYTES => {
            out.copy_from_slice(&page::empty_database()[..FILE_HEADER_BYTES]);
            Ok(true)
        }
        Role::Main => read_main(offset, out),
        Role::Wal | Role::Scratch(_) => read_extent(role, offset, out),
    });
    match result {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(code) => code,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite's promise.
    let role = unsafe { file_of(file) }.role;
    // SAFETY: SQLite lends `amount` bytes at `bytes` for the length of this call.
    let bytes = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), amount.max(0) as usize) };
    code(offset_of(offset).and_then(|offset| match role {
        Role::Main if bytes.len() == PAGE_BYTES && offset % PAGE_BYTES as u64 == 0 => {
            let number = u32::try_from(offset / PAGE_BYTES as u64 + 1);
            checkpoint_page(number.map_err(|_| ffi::SQLITE_IOERR_WRITE)?, bytes)
        }
        Role::Main => Err(ffi::SQLITE_IOERR_WRITE),
        Role::Wal => write_wal(offset, bytes),
        Role::Scratch(_) => write_extent(role, offset, bytes),
    }))
}

fn write_wal(offset: u64, bytes: &[u8]) -> Code {
    if offset + bytes.len() as u64 > limits::WAL_BYTES_MAX {
        return Err(ffi::SQLITE_FULL);
    }
    write_extent(Role::Wal, offset, bytes)?;
    let word = |at: usize| {
        u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes of a longer slice"))
    };
    if offset == 0 && bytes.len() == WAL_HEADER_BYTES as usize {
        with_volume(Volume::on_wal_header);
    } else if bytes.len() == FRAME_HEADER_BYTES as usize
        && offset >= WAL_HEADER_BYTES
        && (offset - WAL_HEADER_BYTES).is_multiple_of(FRAME_BYTES)
    {
        let index = ((offset - WAL_HEADER_BYTES) / FRAME_BYTES) as usize;
        let frame = Frame { page_number: word(0), database_pages: word(4) };
        with_volume(|volume| {
            volume.on_frame_header(index, frame).map_err(|text| {
                volume.set_damage(format!("its WAL image is inconsistent: {text}"));
                ffi::SQLITE_IOERR_WRITE
            })
        })?;
    }
    Ok(())
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite's promise.
    let role = unsafe { file_of(file) }.role;
    code(offset_of(size).and_then(|size| match role {
        Role::Main => {
            let pages = u32::try_from(size / PAGE_BYTES as u64);
            truncate_main(pages.map_err(|_| ffi::SQLITE_IOERR_TRUNCATE)?)
        }
        Role::Wal => {
            if size == 0 {
                with_volume(Volume::on_wal_header);
            }
            truncate_extent(role, size)
        }
        Role::Scratch(_) => truncate_extent(role, size),
    }))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite's promise.
    let file = unsafe { file_of(file) };
    code(match file.role {
        Role::Main => sync_main(),
        Role::Wal => sync_wal(file.connection),
        Role::Scratch(_) => Ok(()),
    })
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite's promise.
    let role = unsafe { file_of(file) }.role;
    let bytes = match role {
        Role::Main => match ensure_main_open() {
            Ok(()) => with_volume(|volume| u64::from(volume.main_pages()) * PAGE_BYTES as u64),
            Err(code) => return code,
        },
        Role::Wal | Role::Scratch(_) => with_extent(role, |extent| extent.size()),
    };
    // SAFETY: SQLite lends the place for the result.
    unsafe { *size = i64::try_from(bytes).unwrap_or(i64::MAX) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // WAL mode needs the main file's locks only to keep it from other processes, which the lock on
    // the commit log does. The exclusive level would be a step out of WAL mode.
    if level >= ffi::SQLITE_LOCK_EXCLUSIVE { ffi::SQLITE_BUSY } else { ffi::SQLITE_OK }
}

unsafe extern "C" fn unlock(_: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite lends the place for the result.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(
    _: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    if operation == ffi::SQLITE_FCNTL_CKPT_DONE {
        finish_pages();
    }
    if operation != ffi::SQLITE_FCNTL_PRAGMA {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: for this operation the argument is an array of three strings, the second the name.
    let name = unsafe { CStr::from_ptr(*argument.cast::<*const c_char>().add(1)) };
    let allowed = name.to_str().is_ok_and(|name| {
        crate::sqlite::PRAGMAS.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    });
    if allowed { ffi::SQLITE_NOTFOUND } else { ffi::SQLITE_AUTH }
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    BLOCK_BYTES as c_int
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // Without POWERSAFE_OVERWRITE SQLite pads every commit to a sector (F8).
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN
}

unsafe extern "C" fn shm_map(
    _: *mut ffi::sqlite3_file,
    region: c_int,
    region_bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    if region_bytes as usize != REGION_BYTES || region < 0 {
        return ffi::SQLITE_IOERR_SHMMAP;
    }
    match with_volume(|volume| volume.region(region as usize, extend != 0)) {
        Ok(address) => {
            let address = address.map_or(ptr::null_mut(), <*mut u64>::cast);
            // SAFETY: SQLite lends the place for the result.
            unsafe { *out = address };
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_NOMEM,
    }
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite's promise.
    let file = unsafe { file_of(file) };
    let (first, count) = (first as usize, count as usize);
    if count == 0 || first + count > LOCKS {
        return ffi::SQLITE_IOERR_SHMLOCK;
    }
    let mask = (((1u16 << count) - 1) << first) as u8;
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        shm_unlock(file, first, count, mask, exclusive);
        return ffi::SQLITE_OK;
    }
    // SQLite may ask again for what it holds.
    if (if exclusive { file.exclusive } else { file.shared }) & mask == mask {
        return ffi::SQLITE_OK;
    }
    let connection = file.connection;
    let try_lock =
        |shared| with_volume(|volume| volume.lock(connection, first, count, exclusive, shared));
    if !try_lock(file.shared) {
        if first != WRITER_LOCK || !exclusive || !file.upgrade {
            return ffi::SQLITE_BUSY;
        }
        match suspend(Wait::Writer(connection)) {
            Answer::Ready if try_lock(file.shared) => {}
            _ => return ffi::SQLITE_BUSY,
        }
    }
    if exclusive {
        file.exclusive |= mask;
    } else {
        file.shared |= mask;
    }
    ffi::SQLITE_OK
}

fn shm_unlock(file: &mut File, first: usize, count: usize, mask: u8, exclusive: bool) {
    let held = if exclusive { &mut file.exclusive } else { &mut file.shared };
    if *held & mask != mask {
        return;
    }
    if exclusive && first == WRITER_LOCK {
        seal();
    }
    if exclusive && first == CHECKPOINT_READ_LOCK && checkpoint_failure().is_some() {
        with_volume(Volume::withdraw_backfill);
    }
    let held = if exclusive { &mut file.exclusive } else { &mut file.shared };
    *held &= !mask;
    with_volume(|volume| volume.unlock(file.connection, first, count, exclusive));
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: SQLite's promise.
    let file = unsafe { file_of(file) };
    for index in 0..LOCKS {
        shm_unlock(file, index, 1, 1 << index, false);
        shm_unlock(file, index, 1, 1 << index, true);
    }
    ffi::SQLITE_OK
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

// ---- sqlite3_vfs ----

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite lends szOsFile bytes; a null method table tells it not to call xClose.
    unsafe { (*file).pMethods = ptr::null() };
    if !fiber::running() {
        return ffi::SQLITE_CANTOPEN;
    }
    let (role, connection) = if name.is_null() {
        let scratch = with_volume(|volume| {
            let room = volume.scratch.len() < limits::SCRATCH_MAX;
            let bound = limits::SCRATCH_MEMORY_BYTES_MAX;
            let account = volume.account();
            room.then(|| volume.scratch.insert(Extent::new(account, Kind::Scratch, bound)))
        });
        let Some(key) = scratch else {
            return ffi::SQLITE_CANTOPEN;
        };
        (Role::Scratch(key), ConnectionId(0))
    } else {
        // SAFETY: SQLite passes a NUL-terminated name.
        let text = unsafe { CStr::from_ptr(name) };
        if text == MAIN_NAME && flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            (Role::Main, with_volume(Volume::connect))
        } else if text.to_bytes() == WAL_NAME && flags & ffi::SQLITE_OPEN_WAL != 0 {
            // SAFETY: the name of a WAL that SQLite passes to xOpen is what this call asks for.
            let main = unsafe { ffi::sqlite3_database_file_object(name) };
            // SAFETY: that is the main file, which this VFS opened before.
            (Role::Wal, unsafe { file_of(main) }.connection)
        } else {
            return ffi::SQLITE_CANTOPEN;
        }
    };
    let base = ffi::sqlite3_file { pMethods: &raw const METHODS };
    let opened = File { base, role, connection, shared: 0, exclusive: 0, upgrade: false };
    // SAFETY: SQLite lends szOsFile bytes, the size of a File.
    unsafe { file.cast::<File>().write(opened) };
    if !out_flags.is_null() {
        // SAFETY: SQLite lends the place for the result.
        unsafe { *out_flags = flags };
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    // Names are not SQLite's to remove: the only one it ever wants to is a journal that is not there.
    ffi::SQLITE_IOERR_DELETE_NOENT
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    // The WAL is always there, if empty: so SQLite opens it with the first read.
    let there = name == MAIN_NAME || name.to_bytes() == WAL_NAME;
    // SAFETY: SQLite lends the place for the result.
    unsafe { *out = c_int::from(there) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    out_bytes: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if name.len() > out_bytes as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: SQLite lends `out_bytes` bytes, at least as many as are copied.
    unsafe { ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(
    _: *mut ffi::sqlite3_vfs,
    amount: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite lends `amount` bytes.
    let out = unsafe { slice::from_raw_parts_mut(out.cast::<u8>(), amount.max(0) as usize) };
    if fiber::running() {
        with_volume(|volume| volume.random(out));
    } else {
        out.fill(0x5a);
    }
    amount
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    if fiber::running() {
        let _ = suspend(Wait::Turn);
    }
    microseconds
}

unsafe extern "C" fn current_time_int64(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    /// 1970-01-01 as a Julian day, in milliseconds.
    const UNIX_EPOCH_MS: i64 = 210_866_760_000_000;
    let now_ms = fiber::wall().map_or(0, |wall| (wall.0 / 1_000_000) as i64);
    // SAFETY: SQLite lends the place for the result.
    unsafe { *out = UNIX_EPOCH_MS + now_ms };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    let mut now_ms = 0;
    // SAFETY: the place is ours.
    unsafe { current_time_int64(vfs, &raw mut now_ms) };
    // SAFETY: SQLite lends the place for the result.
    unsafe { *out = now_ms as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

/// Register this VFS as the default one: SQLite seeds its process-wide generator from the default.
///
/// # Panics
/// If SQLite refuses, which it does only without memory.
pub(crate) fn register() {
    let vfs = Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: mem::size_of::<File>() as c_int,
        mxPathname: 64,
        pNext: ptr::null_mut(),
        zName: VFS_NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    });
    // SAFETY: the table is leaked, so it outlives every use; SQLite links it into its list.
    let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(vfs), 1) };
    assert!(code == ffi::SQLITE_OK);
}
