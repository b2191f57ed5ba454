//! The quarantine as a file of SQLite's: pages of any size, no WAL, no journal.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};

use rusqlite::ffi;

use super::extents::{read_extent, truncate_extent, write_extent};
use super::{Code, QUARANTINE_NAME, Role};
use crate::fiber::with_volume;
use crate::quarantine::Unkept;

/// Where a file says that it is in WAL mode.
const VERSIONS: std::ops::Range<u64> = 18..20;

/// As of the other files, without a shared memory: so SQLite opens no WAL for it, whatever it says.
pub(super) static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xLock: Some(lock),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    ..super::METHODS
};

/// One fiber has it, and one connection at a time.
unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// It is the quarantine that SQLite opens, and there is one.
pub(super) fn is_asked_for(name: &CStr, flags: c_int) -> bool {
    name == QUARANTINE_NAME
        && flags & ffi::SQLITE_OPEN_MAIN_DB != 0
        && with_volume(|volume| volume.quarantine.is_some())
}

/// As it is, but never in WAL mode: its WAL did not come with it, and a file that was closed properly
/// needs none.
pub(super) fn read_page(offset: u64, out: &mut [u8]) -> Result<bool, c_int> {
    let whole = read_extent(Role::Quarantine, offset, out)?;
    for at in VERSIONS {
        let byte = at.checked_sub(offset).and_then(|at| out.get_mut(usize::try_from(at).ok()?));
        if let Some(byte @ 2) = byte {
            *byte = 1;
        }
    }
    Ok(whole)
}

/// What SQL of a stranger's makes may grow to the same bound as a file of his.
pub(super) fn write_page(offset: u64, bytes: &[u8]) -> Code {
    let bytes_max = with_volume(|volume| volume.quarantine.as_ref().map_or(0, |q| q.bytes_max()));
    if offset.saturating_add(bytes.len() as u64) > bytes_max {
        return Err(ffi::SQLITE_FULL);
    }
    write_extent(Role::Quarantine, offset, bytes)
}

fn unkept(code: c_int) -> Unkept {
    match code & 0xff {
        ffi::SQLITE_FULL => Unkept::Full,
        _ if code == ffi::SQLITE_IOERR_NOMEM => Unkept::Full,
        _ => Unkept::Failed,
    }
}

/// Bytes into it, at this offset.
pub(crate) fn quarantine_write(offset: u64, bytes: &[u8]) -> Result<(), Unkept> {
    write_extent(Role::Quarantine, offset, bytes).map_err(unkept)
}

/// All of `out` from it.
pub(crate) fn quarantine_read(offset: u64, out: &mut [u8]) -> Result<(), Unkept> {
    read_extent(Role::Quarantine, offset, out).map(drop).map_err(unkept)
}

/// Cut it to so many bytes.
pub(crate) fn quarantine_cut(size: u64) -> Result<(), Unkept> {
    truncate_extent(Role::Quarantine, size).map_err(unkept)
}
