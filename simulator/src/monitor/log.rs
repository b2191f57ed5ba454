//! The log as the disk has it: the chain of durable batches, and which of them it has let go of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use storage::io::BLOCK_BYTES;
use storage::log::{Header, page_check};

use super::pages::{Listed, PageWatch};
use crate::disk::SimulatedDisk;

/// Where the ring's superblock keeps the number of segments (storage's README).
const SEGMENT_COUNT_OFFSET: u64 = 12;
/// Where the ring's first slot begins, and how long each is.
const RING_SLOTS_OFFSET: u64 = 8192;
const RING_SLOT_BYTES: u64 = 65_536;
const RING_SLOTS: u64 = 16;
/// Longest header.
const HEADER_BYTES_MAX: usize = 8 * BLOCK_BYTES;

/// A durable batch.
#[derive(Debug)]
struct Batch {
    sequence: u64,
    bytes: u64,
    /// Its records, until the log lets go of them.
    records: Vec<Listed>,
}

/// The newest durable batch.
#[derive(Clone, Copy, Debug)]
struct Newest {
    sequence: u64,
    hash: [u8; 32],
    segment: u64,
    /// Where it ends in its segment.
    end: u64,
}

/// A batch that is being written.
#[derive(Debug)]
struct Flight {
    slot: u32,
    start: u64,
    bytes: u64,
    done: u64,
    hash: [u8; 32],
    /// Tenants that had pages in what this batch lets go of, and not in their file.
    suspects: BTreeMap<u64, String>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct LogWatch {
    /// By slot and offset.
    batches: BTreeMap<(u32, u64), Batch>,
    newest: Option<Newest>,
    flight: Option<Flight>,
    /// Batches below this one were let go of, and judged.
    redo_judged: u64,
    segments: Option<u64>,
    /// The disk has been compared with what is known since the last crash.
    settled: bool,
    /// Batches that became durable.
    pub durable: u64,
}

/// A batch that became durable.
pub struct Adopted {
    /// Its header.
    pub header: Header,
    /// Its page images.
    pub images: Vec<u8>,
    slot: u32,
    start: u64,
}

impl LogWatch {
    /// The process died; the batch in flight may be whole, or may become it within a second.
    pub fn crashed(&mut self) {
        self.flight = None;
        self.settled = false;
    }

    /// Since a crash nobody has looked whether the batch in flight landed.
    pub fn needs_settling(&self) -> bool {
        !self.settled
    }

    /// The batch behind the newest one that is known, if it is whole on the disk: recovery takes it
    /// for a commit then. Asked once after a crash, before anything is done that follows from it.
    pub fn settle(&mut self, disk: &SimulatedDisk) -> Option<Adopted> {
        self.settled = true;
        let places = match self.newest {
            None => vec![(0, 0)],
            Some(newest) => vec![(newest.segment, newest.end), (newest.segment + 1, 0)],
        };
        let next = self.newest.map_or(1, |newest| newest.sequence + 1);
        places.into_iter().find_map(|(segment, offset)| {
            let slot = self.slot(disk, segment)?;
            let header = header_at(disk, &segment_path(slot), offset)?;
            let fields = &header.fields;
            let fits = fields.sequence.0 == next
                && fields.place.segment == segment
                && fields.previous == self.newest.map_or([0; 32], |newest| newest.hash);
            fits.then(|| read_batch(disk, slot, offset, header.hash))?
        })
    }

    fn slot(&mut self, disk: &SimulatedDisk, segment: u64) -> Option<u32> {
        if self.segments.is_none() {
            let mut count = [0; 4];
            let read = disk.durable_at(Path::new("log/ring"), SEGMENT_COUNT_OFFSET, &mut count);
            let count = u64::from(u32::from_le_bytes(count));
            self.segments = (read == Some(4) && count > 0).then_some(count);
        }
        Some((segment % self.segments?) as u32)
    }

    /// Whether these bytes are a header that is known already: a start writes it again where the
    /// disk has spoiled it.
    fn is_known(&self, slot: u32, offset: u64, header: &Header) -> bool {
        let known = self.batches.get(&(slot, offset));
        known.is_some_and(|batch| batch.sequence == header.fields.sequence.0)
    }

    /// Bytes are about to be written to a segment.
    ///
    /// # Errors
    /// If they go over batches that a start may still want, or do not follow from the batch before.
    pub fn segment_write(
        &mut self,
        disk: &SimulatedDisk,
        pages: &mut PageWatch,
        (slot, offset): (u32, u64),
        bytes: &[u8],
    ) -> Result<(), String> {
        if let Some(flight) = &self.flight
            && flight.slot == slot
            && offset > flight.start
            && offset + bytes.len() as u64 == flight.start + flight.bytes
        {
            return Ok(());
        }
        let header = Header::read(bytes);
        if let Some(header) = &header
            && self.is_known(slot, offset, header)
        {
            return Ok(());
        }
        self.check_overwrite(disk, slot, offset, bytes.len() as u64)?;
        let Some(header) = header else {
            let zeros = bytes.iter().all(|byte| *byte == 0);
            let what = || format!("what is written to segment {slot} at {offset} is no batch");
            return if zeros { Ok(()) } else { Err(what()) };
        };
        let sequence = header.fields.sequence.0;
        let newest = self.newest.map_or(0, |newest| newest.sequence);
        if sequence != newest + 1 {
            return Err(format!("batch {sequence} is written, though batch {newest} is durable"));
        }
        if header.fields.previous != self.newest.map_or([0; 32], |newest| newest.hash) {
            return Err(format!("batch {sequence} does not follow from the one before"));
        }
        let suspects = self.judge_redo(disk, pages, &header);
        let bytes = bytes.len() as u64;
        let hash = header.hash;
        self.flight = Some(Flight { slot, start: offset, bytes, done: 0, hash, suspects });
        Ok(())
    }

    /// A write to a segment is complete: the batch that is durable with it, or a complaint.
    pub fn segment_written(
        &mut self,
        disk: &SimulatedDisk,
        (slot, offset): (u32, u64),
        count: u64,
    ) -> Option<Result<Adopted, String>> {
        let flight = self.flight.as_mut()?;
        let ours =
            flight.slot == slot && (flight.start..=flight.start + flight.done).contains(&offset);
        if !ours {
            return None;
        }
        flight.done = flight.done.max(offset + count - flight.start);
        if flight.done < flight.bytes {
            return None;
        }
        let adopted = read_batch(disk, slot, flight.start, flight.hash);
        let lost =
            || format!("the batch in segment {slot} at {} is written, not durable", flight.start);
        Some(adopted.ok_or_else(lost))
    }

    /// A batch is durable, and its records are added.
    ///
    /// # Errors
    /// If it lets go of something that a start would miss.
    pub fn adopt(
        &mut self,
        disk: &SimulatedDisk,
        pages: &mut PageWatch,
        adopted: &Adopted,
        records: Vec<Listed>,
    ) -> Result<(), String> {
        let Adopted { header, slot, start, .. } = adopted;
        self.durable += 1;
        let bytes = (header.batch_blocks() * BLOCK_BYTES) as u64;
        let sequence = header.fields.sequence.0;
        self.forget(*slot, *start, bytes);
        self.batches.insert((*slot, *start), Batch { sequence, bytes, records });
        self.newest = Some(Newest {
            sequence,
            hash: header.hash,
            segment: header.fields.place.segment,
            end: start + bytes,
        });
        let flight = self.flight.take();
        let suspects = match flight {
            Some(flight) => flight.suspects,
            None => self.judge_redo(disk, pages, header),
        };
        self.redo_judged = self.redo_judged.max(header.fields.redo_from.0);
        for batch in self.batches.values_mut().filter(|batch| batch.sequence < self.redo_judged) {
            batch.records.clear();
        }
        let lost = suspects.into_iter().find(|(tenant, _)| !pages.is_gone(*tenant));
        match lost {
            Some((_, text)) => Err(text),
            None => Ok(()),
        }
    }

    /// Per tenant, what would be lost if a start began at this header's `redo_from`.
    fn judge_redo(
        &self,
        disk: &SimulatedDisk,
        pages: &mut PageWatch,
        header: &Header,
    ) -> BTreeMap<u64, String> {
        let mut suspects = BTreeMap::new();
        let redo_from = header.fields.redo_from.0;
        if redo_from <= self.redo_judged {
            return suspects;
        }
        let sequences = self.redo_judged..redo_from;
        for batch in self.batches.values().filter(|batch| sequences.contains(&batch.sequence)) {
            for record in &batch.records {
                let Some(page) = pages.missing(record, disk) else { continue };
                suspects.entry(record.tenant()).or_insert_with(|| {
                    format!(
                        "batch {} lets go of batch {}, and page {page} of tenant {} as of \
                         transaction {} is not durable in its file",
                        header.fields.sequence.0,
                        batch.sequence,
                        record.tenant(),
                        record.txid()
                    )
                });
            }
        }
        suspects
    }

    /// A header copy is about to be written to the ring.
    ///
    /// # Errors
    /// If its batch is not durable.
    pub fn ring_write(&self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        if offset < RING_SLOTS_OFFSET {
            return Ok(());
        }
        let Some(header) = Header::read(bytes) else { return Ok(()) };
        let sequence = header.fields.sequence.0;
        let newest = self.newest.map_or(0, |newest| newest.sequence);
        if sequence > newest {
            return Err(format!("the copy of batch {sequence} is written, {newest} is durable"));
        }
        Ok(())
    }

    /// Space of known batches is written again only when a durable header copy frees them.
    fn check_overwrite(
        &mut self,
        disk: &SimulatedDisk,
        slot: u32,
        offset: u64,
        bytes: u64,
    ) -> Result<(), String> {
        let newest = self.overlapping(slot, offset, bytes).into_iter();
        let newest = newest.map(|at| self.batches[&at].sequence).max();
        let Some(newest) = newest else { return Ok(()) };
        let copied = redo_copied(disk);
        if newest < copied {
            return Ok(());
        }
        Err(format!(
            "batch {newest} in segment {slot} is written over, and the durable header copies free \
             only those below {copied}"
        ))
    }

    fn overlapping(&self, slot: u32, offset: u64, bytes: u64) -> Vec<(u32, u64)> {
        let below = self.batches.range((slot, 0)..(slot, offset + bytes));
        let over = below.rev().take_while(|((_, start), batch)| start + batch.bytes > offset);
        over.map(|(at, _)| *at).collect()
    }

    fn forget(&mut self, slot: u32, offset: u64, bytes: u64) {
        let gone: BTreeSet<(u32, u64)> =
            self.overlapping(slot, offset, bytes).into_iter().collect();
        self.batches.retain(|at, _| !gone.contains(at));
    }
}

/// What the durable header copies free: the greatest `redo_from` in them.
fn redo_copied(disk: &SimulatedDisk) -> u64 {
    let slots = (0..RING_SLOTS).map(|slot| RING_SLOTS_OFFSET + slot * RING_SLOT_BYTES);
    let headers = slots.filter_map(|offset| header_at(disk, "log/ring", offset));
    headers.map(|header| header.fields.redo_from.0).max().unwrap_or(0)
}

fn segment_path(slot: u32) -> String {
    format!("log/{}", storage::log::LogFile::Segment(slot).name())
}

fn header_at(disk: &SimulatedDisk, path: &str, offset: u64) -> Option<Header> {
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    let count = disk.durable_at(Path::new(path), offset, &mut bytes)?;
    Header::read(&bytes[..count])
}

/// The batch at this place with this header, if the disk durably has all of it.
fn read_batch(disk: &SimulatedDisk, slot: u32, start: u64, hash: [u8; 32]) -> Option<Adopted> {
    let path = segment_path(slot);
    let header = header_at(disk, &path, start).filter(|header| header.hash == hash)?;
    let mut images = vec![0; header.pages.len() * BLOCK_BYTES];
    let offset = start + (header.header_blocks() * BLOCK_BYTES) as u64;
    let count = disk.durable_at(Path::new(&path), offset, &mut images)?;
    let whole = header.pages.iter().zip(images[..count].chunks_exact(BLOCK_BYTES));
    let good = whole.filter(|(page, image)| page_check(image) == page.check).count();
    (good == header.pages.len()).then_some(Adopted { header, images, slot, start })
}
