//! Checkpoints, the part below SQLite's own: pages written to the main file in runs, synced, read
//! back, and SQLite's word for it taken back where that failed.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::io::ErrorKind;
use std::mem;

use rusqlite::ffi;

use super::Code;
use super::extents::write_file;
use super::main_file::{ensure_main_open, read_page};
use crate::fiber::{self, Answer, Wait, suspend, with_volume};
use crate::io::{Buffer, FileId};
use crate::limits;
use crate::page::{self, PAGE_BYTES};
use crate::sometimes;
use crate::volume::Checkpoint;

/// Put a page, its tail set, behind the pages that wait to be written; write them when the run
/// ends or is long enough.
pub(super) fn checkpoint_page(page_number: u32, bytes: &[u8]) -> Code {
    if with_volume(|volume| volume.is_memory()) {
        return with_volume(|volume| match &volume.checkpoint {
            Some(_) => {
                volume.write_memory_page(page_number, bytes).map_err(|_| ffi::SQLITE_IOERR_NOMEM)
            }
            None => Err(ffi::SQLITE_IOERR_WRITE),
        });
    }
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
        if volume.damage().is_some() {
            // What commits now is not in the log, and is not to be in the file.
            return Err(ffi::SQLITE_CORRUPT);
        }
        let (tenant, last_txid) = (volume.tenant(), volume.last_txid());
        let checkpoint = volume.checkpoint.as_mut().ok_or(ffi::SQLITE_IOERR_WRITE)?;
        if checkpoint.run.is_none() && checkpoint.written.is_empty() {
            // SQLite waited for its locks, and others committed meanwhile. With the stamp of the
            // checkpoint before, reading back would not tell these pages from older ones.
            checkpoint.stamp = last_txid;
        }
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

pub(super) fn flush_run() -> Code {
    let run = with_volume(|volume| {
        let run = volume.checkpoint.as_mut().and_then(|checkpoint| checkpoint.run.take());
        run.map(|run| (volume.main.handle, run))
    });
    let Some((file, (first, mut buffer, pages))) = run else {
        return Ok(());
    };
    let file = file.ok_or(ffi::SQLITE_IOERR_WRITE)?;
    buffer.set_len(pages * PAGE_BYTES);
    let checks: Vec<_> =
        (first..).zip(buffer.chunks_exact(PAGE_BYTES).map(page::tail_check)).collect();
    write_file(file, u64::from(first - 1) * PAGE_BYTES as u64, buffer)?;
    with_volume(|volume| {
        let last = first + u32::try_from(pages).expect("a run is short") - 1;
        volume.main.pages = volume.main.pages.max(last);
        if let Some(checkpoint) = &mut volume.checkpoint {
            checkpoint.written.extend(checks);
        }
    });
    Ok(())
}

/// SQLite has written all pages of its checkpoint, and will send readers to the file at once; it
/// syncs the file only where the checkpoint covers the whole WAL. So it is brought there now. What
/// fails here is remembered: SQLite does not look at this call's result.
pub(super) fn finish_pages() {
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
pub(super) fn sync_main() -> Code {
    if let Some(code) = checkpoint_failure() {
        return Err(code);
    }
    flush_run()?;
    let state = with_volume(|volume| {
        let checkpoint = volume.checkpoint.as_mut()?;
        let written = mem::take(&mut checkpoint.written);
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
        _ => {
            sometimes!("a sync of a tenant's file fails");
            return Err(ffi::SQLITE_IOERR_FSYNC);
        }
    }
    if let Some(direct) = open_direct()? {
        read_back(direct, &written)?;
    }
    with_volume(|volume| volume.on_main_synced(stamp, written.contains_key(&1)));
    Ok(())
}

/// Why the checkpoint in hand has failed already, if it has.
#[must_use]
pub fn checkpoint_failure() -> Option<i32> {
    with_volume(|volume| volume.checkpoint.as_ref().and_then(|checkpoint| checkpoint.failed))
}

type Written = BTreeMap<u32, [u8; page::CHECK_BYTES]>;

fn read_back(direct: FileId, written: &Written) -> Code {
    let mut next = written.keys().next().copied();
    while let Some(first) = next {
        let run = written
            .range(first..)
            .zip(first..)
            .take(limits::CHECKPOINT_RUN_PAGES)
            .take_while(|&((&number, _), expected)| number == expected);
        let checks: Vec<_> = run.map(|((_, check), _)| *check).collect();
        read_back_run(direct, first, &checks)?;
        next = written.range(first + checks.len() as u32..).next().map(|(number, _)| *number);
    }
    Ok(())
}

/// The file past the page cache, or `None` where the file system has no direct I/O.
pub(super) fn open_direct() -> Result<Option<FileId>, c_int> {
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

fn read_back_run(direct: FileId, first: u32, checks: &[[u8; page::CHECK_BYTES]]) -> Code {
    let pages = checks.len();
    let mut buffer = Buffer::zeroed(pages * PAGE_BYTES);
    buffer.set_len(pages * PAGE_BYTES);
    let offset = u64::from(first - 1) * PAGE_BYTES as u64;
    let Answer::Moved(buffer, moved) = suspend(Wait::Read { file: direct, offset, buffer }) else {
        return Err(ffi::SQLITE_IOERR_READ);
    };
    let tenant = with_volume(|volume| volume.tenant());
    let read = buffer[..moved].chunks_exact(PAGE_BYTES).zip(checks);
    for (number, (page_bytes, check)) in (first..).zip(read) {
        fiber::on_call();
        let whole = page::verify_tail(tenant, number, page_bytes).is_some();
        if !whole || page::tail_check(page_bytes) != *check {
            sometimes!("reading back finds a page that was not written");
            return Err(ffi::SQLITE_IOERR_WRITE);
        }
    }
    if moved == buffer.len() { Ok(()) } else { Err(ffi::SQLITE_IOERR_WRITE) }
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
            written: BTreeMap::new(),
            run: None,
            cut: false,
            failed: None,
        });
        !volume.is_memory() && !volume.main.exists && volume.main.handle.is_none()
    });
    if missing {
        sometimes!("a tenant's first checkpoint makes its file");
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
        sometimes!("a checkpoint brings recovered pages into the file");
        read_page(*number, &mut bytes)?;
        checkpoint_page(*number, &bytes)?;
    }
    if with_volume(|volume| volume.has_overlay()) {
        let pages = with_volume(|volume| volume.main_pages());
        truncate_main(pages)?;
        // What SQLite writes next has a stamp of its own.
        sync_main()?;
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

pub(super) fn truncate_main(pages: u32) -> Code {
    if with_volume(|volume| volume.is_memory() && volume.checkpoint.is_some()) {
        with_volume(|volume| volume.truncate_memory(pages));
        return Ok(());
    }
    flush_run()?;
    let file = with_volume(|volume| {
        volume.checkpoint.as_ref()?;
        volume.main.handle.filter(|_| volume.main.pages > pages)
    });
    let Some(file) = file else { return Ok(()) };
    sometimes!("a checkpoint cuts the file");
    match suspend(Wait::Truncate(file, u64::from(pages) * PAGE_BYTES as u64)) {
        Answer::Ready => {
            with_volume(|volume| {
                volume.main.pages = pages;
                if let Some(checkpoint) = &mut volume.checkpoint {
                    checkpoint.written.retain(|&number, _| number <= pages);
                    checkpoint.cut = true;
                }
            });
            Ok(())
        }
        _ => Err(ffi::SQLITE_IOERR_TRUNCATE),
    }
}
