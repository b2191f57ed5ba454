//! The WAL image and SQLite's temporary objects: loops over memory and the unnamed file behind it.

use std::ffi::c_int;

use rusqlite::ffi;

use super::{Code, Role};
use crate::extent::{Extent, Place};
use crate::fiber::{Answer, Wait, suspend, with_volume};
use crate::io::{Buffer, FileId};
use crate::sometimes;

pub(super) fn with_extent<R>(role: Role, body: impl FnOnce(&mut Extent) -> R) -> R {
    with_volume(|volume| match role {
        Role::Wal => body(&mut volume.wal),
        Role::Scratch(key) => body(&mut volume.scratch[key]),
        Role::Quarantine => {
            let quarantine = volume.quarantine.as_mut().expect("who uses it has begun it");
            body(&mut quarantine.extent)
        }
        Role::Main => unreachable!("the main file is no extent"),
    })
}

/// Tries to read a file: errors that pass by themselves last up to three.
pub(super) const READ_TRIES: u32 = 4;

/// Read `out.len()` bytes; `false` if the end came first (the rest is zeros).
pub(super) fn read_extent(role: Role, offset: u64, out: &mut [u8]) -> Result<bool, c_int> {
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

/// Read what is there of a file. A read that fails has lost nothing, and may work the next time.
pub(super) fn read_file(file: FileId, offset: u64, out: &mut [u8]) -> Result<usize, c_int> {
    for _ in 0..READ_TRIES {
        let mut buffer = Buffer::zeroed(out.len());
        buffer.set_len(out.len());
        if let Answer::Moved(buffer, moved) = suspend(Wait::Read { file, offset, buffer }) {
            out[..moved].copy_from_slice(&buffer[..moved]);
            return Ok(moved);
        }
        sometimes!("a read of a tenant's file fails");
    }
    Err(ffi::SQLITE_IOERR_READ)
}

pub(super) fn write_file(file: FileId, offset: u64, buffer: Buffer) -> Code {
    let wanted = buffer.len();
    match suspend(Wait::Write { file, offset, buffer }) {
        Answer::Moved(_, moved) if moved == wanted => Ok(()),
        Answer::Full => Err(ffi::SQLITE_FULL),
        _ => Err(ffi::SQLITE_IOERR_WRITE),
    }
}

pub(super) fn write_extent(role: Role, offset: u64, bytes: &[u8]) -> Code {
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
                let end = offset + bytes.len() as u64;
                if !with_extent(role, |extent| extent.reserve_file(end)) {
                    return Err(ffi::SQLITE_FULL);
                }
                let mut buffer = Buffer::zeroed(rest.len());
                buffer.set_len(rest.len());
                buffer.copy_from_slice(rest);
                if let Err(code) = write_file(file, file_offset, buffer) {
                    with_extent(role, Extent::release_file);
                    return Err(code);
                }
                with_extent(role, |extent| extent.wrote(end));
                done = bytes.len();
            }
        }
    }
    Ok(())
}

pub(super) fn open_temporary(role: Role) -> Code {
    match suspend(Wait::OpenTemporary) {
        Answer::Opened(file, _) => {
            match role {
                Role::Wal => sometimes!("a WAL spills to a file"),
                Role::Quarantine => sometimes!("a stranger's file goes to the disk"),
                _ => sometimes!("a temporary object spills to a file"),
            }
            with_extent(role, |extent| extent.set_file(file));
            Ok(())
        }
        Answer::Full => Err(ffi::SQLITE_FULL),
        _ => Err(ffi::SQLITE_CANTOPEN),
    }
}

pub(super) fn truncate_extent(role: Role, size: u64) -> Code {
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
