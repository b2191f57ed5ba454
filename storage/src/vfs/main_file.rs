//! The tenant's main file: opened once and judged by its age and length, read page by page from
//! wherever the page is now.

use std::ffi::c_int;
use std::io::ErrorKind;

use rusqlite::ffi;

use super::Code;
use super::extents::{READ_TRIES, read_file};
use crate::fiber::{self, Answer, Wait, suspend, with_volume};
use crate::io::FileId;
use crate::log::PageLocation;
use crate::page::{self, PAGE_BYTES};
use crate::sometimes;
use crate::volume::PageSource;

/// Reads of a page before it counts as damaged: the second tells a misdirected read from rot.
const READS_MAX: usize = 2;

/// Open the tenant's file if it has one and it is not open; check its age and length (F1, F10).
pub(super) fn ensure_main_open() -> Code {
    if with_volume(|volume| !volume.main.exists || volume.main.handle.is_some()) {
        return Ok(());
    }
    let (file, size) = match suspend(Wait::OpenMain { create: false, direct: false }) {
        Answer::Opened(file, size) => (file, size),
        Answer::Failed(ErrorKind::NotFound) => {
            sometimes!("a tenant's file is missing");
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

pub(super) fn check_age(file: FileId) -> Code {
    let mut bytes = [0; PAGE_BYTES];
    let mut stamp = None;
    for _ in 0..READS_MAX {
        let moved = read_file(file, 0, &mut bytes)?;
        let whole = moved == PAGE_BYTES;
        stamp = with_volume(|volume| page::verify_tail(volume.tenant(), 1, &bytes));
        stamp = stamp.filter(|_| whole);
        if stamp.is_some() {
            break;
        }
    }
    with_volume(|volume| {
        match stamp {
            // A checkpoint that was cut short may have grown page 1 first; the log has the rest.
            Some(stamp) if stamp >= volume.main.stamp_min && volume.has_overlay() => Ok(()),
            Some(stamp) if stamp >= volume.main.stamp_min => {
                let (pages, wanted) = (volume.main.pages, page::database_pages(&bytes));
                if pages >= wanted {
                    return Ok(());
                }
                sometimes!("a tenant's file was cut");
                let text = format!("its file was cut: it has {pages} of {wanted} pages");
                volume.set_damage(text);
                Err(ffi::SQLITE_CORRUPT)
            }
            Some(stamp) => {
                sometimes!("a tenant's file is an old copy");
                let known = volume.main.stamp_min;
                let text = format!("its file is an old copy: transaction {stamp}, not {known}");
                volume.set_damage(text);
                Err(ffi::SQLITE_CORRUPT)
            }
            // A checkpoint that was cut short may have torn page 1; the log then has it.
            None if matches!(volume.page_source(1), PageSource::Log(_)) => {
                sometimes!("page 1 of a file is torn, and the log has it");
                Ok(())
            }
            None => {
                sometimes!("page 1 of a tenant's file is damaged");
                volume.set_damage("page 1 of its file is damaged".into());
                Err(ffi::SQLITE_CORRUPT)
            }
        }
    })
}

pub(super) fn read_page(page_number: u32, out: &mut [u8; PAGE_BYTES]) -> Result<bool, c_int> {
    ensure_main_open()?;
    match with_volume(|volume| volume.page_source(page_number)) {
        PageSource::Empty => {
            *out = page::empty_database();
            Ok(true)
        }
        PageSource::Memory => {
            with_volume(|volume| volume.read_memory_page(page_number, out));
            Ok(true)
        }
        PageSource::Beyond => {
            out.fill(0);
            Ok(false)
        }
        PageSource::Log(location) => {
            read_page_from_log(location, page_number, out)?;
            Ok(true)
        }
        PageSource::File => read_page_from_file(page_number, out),
    }
}

fn read_page_from_log(
    location: PageLocation,
    page_number: u32,
    out: &mut [u8; PAGE_BYTES],
) -> Code {
    let (mut bad, mut failed) = (0, 0);
    while bad < READS_MAX {
        match suspend(Wait::ReadLog(location)) {
            Answer::Moved(buffer, moved) if moved == PAGE_BYTES => {
                out.copy_from_slice(&buffer);
                return Ok(());
            }
            Answer::Moved(..) => bad += 1,
            _ if failed + 1 == READ_TRIES => return Err(ffi::SQLITE_IOERR_READ),
            _ => failed += 1,
        }
    }
    if fiber::is_interrupted() {
        // Of a dropped database the log keeps nothing: other pages may be in that place by now.
        return Err(ffi::SQLITE_INTERRUPT);
    }
    sometimes!("a page that is read from the log is damaged");
    let text = format!("page {page_number} is damaged in the commit log");
    with_volume(|volume| volume.set_damage(text));
    Err(ffi::SQLITE_CORRUPT)
}

pub(super) fn read_page_from_file(
    page_number: u32,
    out: &mut [u8; PAGE_BYTES],
) -> Result<bool, c_int> {
    let offset = u64::from(page_number - 1) * PAGE_BYTES as u64;
    for attempt in 0..READS_MAX {
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
            if attempt > 0 {
                sometimes!("a page is good at the second reading");
            }
            return Ok(true);
        }
    }
    sometimes!("a page of a tenant's file is damaged");
    let text = format!("page {page_number} of its file is damaged");
    with_volume(|volume| volume.set_damage(text));
    Err(ffi::SQLITE_CORRUPT)
}

pub(super) fn read_main(offset: u64, out: &mut [u8]) -> Result<bool, c_int> {
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
