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

mod build;
mod checkpoint;
mod extents;
mod main_file;
mod mark;
mod quarantine;
mod snapshot;

pub(crate) use mark::read_mark;

pub(crate) use quarantine::{quarantine_cut, quarantine_read, quarantine_write};

pub use build::{begin_build, build_in_log, build_pages, end_build};
pub use checkpoint::{abandon_checkpoint, begin_checkpoint, checkpoint_failure, end_checkpoint};
pub use snapshot::Snapshot;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::{mem, ptr, slice};

use rusqlite::ffi;

use self::checkpoint::{checkpoint_page, finish_pages, sync_main, truncate_main};
use self::extents::{read_extent, truncate_extent, with_extent, write_extent};
use self::main_file::{ensure_main_open, read_main};
use crate::extent::Extent;
use crate::fiber::{self, Answer, Wait, suspend, with_volume};
use crate::io::{BLOCK_BYTES, Buffer};
use crate::ledger::Kind;
use crate::limits;
use crate::meter::{Cost, Meter};
use crate::page::{self, PAGE_BYTES};
use crate::sometimes;
use crate::volume::{
    ConnectionId, FRAME_BYTES, FRAME_HEADER_BYTES, Frame, LOCKS, REGION_BYTES, Volume,
    WAL_HEADER_BYTES, WRITER_LOCK,
};

/// Name of this VFS, and of the main database file in it.
pub const VFS_NAME: &CStr = c"myriad";
/// The one name that a database may be opened under.
pub const MAIN_NAME: &CStr = c"main";
/// The name that the volume's quarantine is opened under.
pub const QUARANTINE_NAME: &CStr = c"quarantine";
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
    Quarantine,
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
    /// This crate runs a pragma of its own: one that is not in the list of allowed ones.
    own_pragma: bool,
}

impl File {
    /// Let pragmas through that are not allowed to clients, or not any more.
    pub(crate) fn set_own_pragma(&mut self, own: bool) {
        self.own_pragma = own;
    }

    /// Locks of the wal-index that it holds shared.
    pub(crate) fn shared_locks(&self) -> u8 {
        self.shared
    }

    /// Note that a statement starts on the connection of this main file.
    pub(crate) fn mark_statement(&mut self) {
        self.upgrade = self.shared & READ_LOCKS != 0;
    }
}

/// A result code that is not OK.
type Code = Result<(), c_int>;

fn code(result: Code) -> c_int {
    let code = result.err().unwrap_or(ffi::SQLITE_OK);
    if code == ffi::SQLITE_FULL {
        with_volume(|volume| volume.full_answers += 1);
    }
    code
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

// ---- commits ----

/// A sync of the WAL: before a commit, room in the log; before a checkpoint, durability (F8).
fn sync_wal(connection: ConnectionId) -> Code {
    if with_volume(|volume| volume.is_memory()) {
        return sync_memory_wal(connection);
    }
    let committing = with_volume(|volume| {
        let writes = volume.locks.writer() == Some(connection);
        if writes { volume.committing_pages() } else { None }
    });
    let Some(pages) = committing else {
        return match suspend(Wait::Durable) {
            Answer::Ready => Ok(()),
            _ => Err(ffi::SQLITE_IOERR_FSYNC),
        };
    };
    if fiber::with_meter(|meter| meter.is_beyond(Cost::of_commit(pages))) == Some(true) {
        sometimes!("a commit would cost more than its request may");
        return Err(ffi::SQLITE_FULL);
    }
    if fiber::overspends(Cost::of_commit(pages)) {
        sometimes!("a commit would cost more than its database may spend");
        return Err(ffi::SQLITE_FULL);
    }
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

/// The same of a database that is only in memory: nothing waits for a log, and limits hold.
fn sync_memory_wal(connection: ConnectionId) -> Code {
    let committing = with_volume(|volume| {
        let writes = volume.locks.writer() == Some(connection);
        if writes { volume.committing_pages() } else { None }
    });
    let Some(pages) = committing else { return Ok(()) };
    let cost = Cost::of_memory_commit(pages);
    let beyond = fiber::with_meter(|meter| meter.is_beyond(cost)) == Some(true);
    if beyond || fiber::overspends(cost) {
        sometimes!("a commit in memory would cost more than it may");
        return Err(ffi::SQLITE_FULL);
    }
    Ok(())
}

/// The writer lock is being released: append what was committed to the log.
fn seal() {
    if !with_volume(Volume::begin_sealing) {
        with_volume(Volume::release_reservation);
        return;
    }
    let pages = with_volume(|volume| volume.sealing.as_ref().map_or(0, |s| s.pages.len() as u32));
    if with_volume(|volume| volume.is_memory()) {
        with_volume(Volume::end_sealing_in_memory);
        return fiber::on_commit(Cost::of_memory_commit(pages));
    }
    if append_sealing() {
        fiber::on_commit(Cost::of_commit(pages));
    }
}

/// Append what is being sealed to the log: whether all of it is there. If not, nobody will be told of it.
fn append_sealing() -> bool {
    while with_volume(Volume::check_sealing) {
        fiber::on_call();
    }
    loop {
        match suspend(Wait::Seal) {
            Answer::Ready => return true,
            Answer::Bring(frame) => {
                sometimes!("a spilled page is brought for its commit");
                let mut buffer = Buffer::zeroed(PAGE_BYTES);
                let read = read_extent(Role::Wal, Volume::frame_page_offset(frame), &mut buffer);
                let there = matches!(read, Ok(true));
                with_volume(|volume| volume.bring(there.then_some(buffer)));
                if !there {
                    return false;
                }
            }
            _ => {
                with_volume(Volume::abandon_sealing);
                return false;
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
        with_volume(|volume| volume.locks.unreserve_writer(file.connection));
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
    fiber::on_call();
    let result = offset_of(offset).and_then(|offset| match role {
        // SQLite looks at the header once when it opens, without a lock and whatever the WAL holds:
        // a checkpoint may be writing page 1 just then, or a partial one may have left it out. What
        // it looks for is the same in every file of ours.
        Role::Main if offset == 0 && out.len() == FILE_HEADER_BYTES => {
            out.copy_from_slice(&page::empty_database()[..FILE_HEADER_BYTES]);
            Ok(true)
        }
        Role::Main => {
            // SQLite reads an overflow page past its cache if it is in the file and not in the WAL:
            // a page read like any other, wherever the page is.
            if out.len() < PAGE_BYTES && offset > 0 && offset % PAGE_BYTES as u64 == 0 {
                fiber::count_page_fetch();
            }
            read_main(offset, out)
        }
        Role::Wal | Role::Scratch(_) => read_extent(role, offset, out),
        Role::Quarantine => quarantine::read_page(offset, out),
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
    fiber::on_call();
    code(offset_of(offset).and_then(|offset| match role {
        Role::Main if bytes.len() == PAGE_BYTES && offset % PAGE_BYTES as u64 == 0 => {
            let number = u32::try_from(offset / PAGE_BYTES as u64 + 1);
            checkpoint_page(number.map_err(|_| ffi::SQLITE_IOERR_WRITE)?, bytes)
        }
        Role::Main => Err(ffi::SQLITE_IOERR_WRITE),
        Role::Wal => write_wal(offset, bytes),
        Role::Scratch(_) => write_extent(role, offset, bytes),
        Role::Quarantine => quarantine::write_page(offset, bytes),
    }))
}

fn write_wal(offset: u64, bytes: &[u8]) -> Code {
    if offset + bytes.len() as u64 > limits::WAL_BYTES_MAX {
        return Err(ffi::SQLITE_FULL);
    }
    match mark::marked(offset, bytes) {
        Some(page) => write_extent(Role::Wal, offset, &page)?,
        None => write_extent(Role::Wal, offset, bytes)?,
    }
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
        Role::Scratch(_) | Role::Quarantine => truncate_extent(role, size),
    }))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite's promise.
    let file = unsafe { file_of(file) };
    code(match file.role {
        Role::Main => sync_main(),
        Role::Wal => sync_wal(file.connection),
        Role::Scratch(_) | Role::Quarantine => Ok(()),
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
        Role::Wal | Role::Scratch(_) | Role::Quarantine => {
            with_extent(role, |extent| extent.size())
        }
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
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    if operation == ffi::SQLITE_FCNTL_CKPT_DONE {
        finish_pages();
    }
    if operation != ffi::SQLITE_FCNTL_PRAGMA {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: SQLite's promise.
    if unsafe { file_of(file) }.own_pragma {
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
    let try_lock = |shared| {
        with_volume(|volume| volume.locks.lock(connection, first, count, exclusive, shared))
    };
    if !try_lock(file.shared) {
        if first != WRITER_LOCK || !exclusive || !file.upgrade {
            return ffi::SQLITE_BUSY;
        }
        sometimes!("a reader that turns writer waits for the lock");
        match suspend(Wait::Writer(connection)) {
            Answer::Ready if try_lock(file.shared) => {}
            _ => return ffi::SQLITE_BUSY,
        }
    }
    if exclusive {
        file.exclusive |= mask;
    } else {
        file.shared |= mask;
        // A writer that starts the WAL anew takes a read lock too, in the middle of its transaction.
        if mask & READ_LOCKS != 0 && file.exclusive & (1 << WRITER_LOCK) == 0 {
            let _ = fiber::with_meter(Meter::on_read_begin);
        }
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
    with_volume(|volume| volume.locks.unlock(file.connection, first, count, exclusive));
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
            let extent = match volume.is_memory() {
                true => Extent::in_memory(account, Kind::Scratch),
                false => Extent::new(account, Kind::Scratch, bound),
            };
            room.then(|| volume.scratch.insert(extent))
        });
        let Some(key) = scratch else {
            return ffi::SQLITE_CANTOPEN;
        };
        (Role::Scratch(key), ConnectionId(0))
    } else {
        // SAFETY: SQLite passes a NUL-terminated name.
        let text = unsafe { CStr::from_ptr(name) };
        if text == MAIN_NAME && flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            (Role::Main, with_volume(|volume| volume.locks.connect()))
        } else if text.to_bytes() == WAL_NAME && flags & ffi::SQLITE_OPEN_WAL != 0 {
            // SAFETY: the name of a WAL that SQLite passes to xOpen is what this call asks for.
            let main = unsafe { ffi::sqlite3_database_file_object(name) };
            // SAFETY: that is the main file, which this VFS opened before.
            (Role::Wal, unsafe { file_of(main) }.connection)
        } else if quarantine::is_asked_for(text, flags) {
            (Role::Quarantine, with_volume(|volume| volume.locks.connect()))
        } else {
            return ffi::SQLITE_CANTOPEN;
        }
    };
    let methods = match role {
        Role::Quarantine => &raw const quarantine::METHODS,
        _ => &raw const METHODS,
    };
    let base = ffi::sqlite3_file { pMethods: methods };
    let opened =
        File { base, role, connection, shared: 0, exclusive: 0, upgrade: false, own_pragma: false };
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
