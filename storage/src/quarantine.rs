//! The quarantine: a stranger's file, or one that a stranger's SQL makes, between its arrival and its
//! end. Nothing of it is ever served: what is good in it is written anew into the tenant's own database.
//!
//! It lies beside the new tenant's own storage, in the same volume, as an extent: small ones in memory,
//! the rest in an unnamed file. So one fiber has both, a connection to each, and no row has to be carried
//! from one volume to another; what it holds is booked on the tenant that it will become. SQLite opens it
//! under a name of its own (`vfs::QUARANTINE_NAME`), without a WAL, a journal, page tails or a log.
//!
//! - `header`: what the file's first bytes must say.
//!
//! Everything but [`Quarantine`] itself runs on a fiber.

pub mod header;

use crate::extent::Extent;
use crate::fiber::with_volume;
use crate::io::FileId;
use crate::ledger::{AccountId, Kind};
use crate::limits;
use crate::vfs::{quarantine_cut, quarantine_read, quarantine_write};

/// See the head of the file.
#[derive(Debug)]
pub struct Quarantine {
    pub(crate) extent: Extent,
    /// Bytes that it may have.
    bytes_max: u64,
}

/// Why bytes do not go into a quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unkept {
    /// It would have more than it may: so many.
    TooLarge(u64),
    /// A budget or the disk has no room.
    Full,
    /// Reading or writing failed.
    Failed,
}

impl Quarantine {
    fn new(account: AccountId, bytes_max: u64) -> Quarantine {
        let memory_bytes = limits::SCRATCH_MEMORY_BYTES_MAX;
        Quarantine { extent: Extent::new(account, Kind::Scratch, memory_bytes), bytes_max }
    }

    /// Bytes that it may have.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Its bytes are given back; gives the file to close.
    #[must_use]
    pub fn clear(mut self) -> Option<FileId> {
        self.extent.clear()
    }
}

/// An empty one, of at most so many bytes, in the volume of the running fiber.
///
/// # Panics
/// If there is one.
pub fn begin(bytes_max: u64) {
    with_volume(|volume| {
        assert!(volume.quarantine.is_none(), "a volume has one quarantine");
        volume.quarantine = Some(Quarantine::new(volume.account(), bytes_max));
    });
}

/// Bytes that it has.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn size() -> u64 {
    with_volume(|volume| volume.quarantine.as_ref().expect("it was begun").extent.size())
}

/// Write bytes behind those that are there.
///
/// # Errors
/// [`Unkept`]; some of them may have been written.
///
/// # Panics
/// If there is none.
pub fn append(bytes: &[u8]) -> Result<(), Unkept> {
    let offset = size();
    let end = offset + bytes.len() as u64;
    let bytes_max =
        with_volume(|volume| volume.quarantine.as_ref().expect("it was begun").bytes_max());
    if end > bytes_max {
        return Err(Unkept::TooLarge(end));
    }
    quarantine_write(offset, bytes)
}

/// Read what is there from `offset` on: how many bytes of `out`.
///
/// # Errors
/// [`Unkept::Failed`].
///
/// # Panics
/// If there is none.
pub fn read(offset: u64, out: &mut [u8]) -> Result<usize, Unkept> {
    let there = size().saturating_sub(offset).min(out.len() as u64) as usize;
    quarantine_read(offset, &mut out[..there])?;
    Ok(there)
}

/// Throw it away, in steps: a kernel takes 40 ms and more to free a large unnamed file at once.
/// Connections to it are closed. Does nothing if there is none.
pub fn end() {
    loop {
        let left = with_volume(|volume| {
            let quarantine = volume.quarantine.as_ref()?;
            Some(quarantine.extent.size()).filter(|_| quarantine.extent.file().is_some())
        });
        let Some(size) = left.filter(|&size| size > limits::QUARANTINE_STEP_BYTES) else { break };
        if quarantine_cut(size - limits::QUARANTINE_STEP_BYTES).is_err() {
            break;
        }
    }
    with_volume(|volume| {
        let file = volume.quarantine.take().and_then(Quarantine::clear);
        volume.closing.extend(file);
    });
}
