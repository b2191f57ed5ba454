//! Batches of the commit log: the header's hash and the pages' checks vouch for every bit.

use storage::TenantId;
use storage::io::BLOCK_BYTES;
use storage::log::{
    Header, HeaderFields, PageEntry, Place, Record, Sequence, describe_batch, encode_header,
    page_check,
};

use super::program::Program;
use super::{Random, Seen, Target};

/// Where the header's own hash stands, and where what it covers goes on.
const HASH: std::ops::Range<usize> = 96..128;

/// Transactions, pages of each, and edits of one input.
const RECORDS_MAX: usize = 6;
const PAGES_MAX: usize = 3;
const EDITS_MAX: usize = 12;

/// See the head of the file.
pub struct Batches;

impl Target for Batches {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let count = 60 + random.index(200);
        random.bytes(count)
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let mut program = Program::of(input);
        let written = write(&mut program);
        let header = Header::read(&written).ok_or("the batch is refused as it was written")?;
        let header_bytes = header.header_blocks() * BLOCK_BYTES;
        let mut anew = vec![0; header_bytes];
        header.write(&mut anew);
        if anew != written[..header_bytes] || !images_are_good(&header, &written) {
            return Err("the batch does not read as it was written".to_owned());
        }
        let mut batch = written.clone();
        let mut edits = 0;
        while !program.is_over() && edits < EDITS_MAX {
            edits += 1;
            edit(&mut program, &mut batch, header_bytes);
        }
        seen.count("edits", edits);
        let read = Header::read(&batch);
        let header_differs = batch[..header_bytes] != written[..header_bytes];
        match &read {
            Some(_) if header_differs => return Err("an edited header is accepted".to_owned()),
            None if !header_differs => return Err("the header is refused as it was".to_owned()),
            _ => {}
        }
        let images_differ = batch[header_bytes..] != written[header_bytes..];
        if images_are_good(&header, &batch) == images_differ {
            return Err(format!("pages that differ: {images_differ}, and the checks say no"));
        }
        seen.note(if images_differ { "other pages" } else { "the same pages" });
        forge(&mut batch, seen)
    }
}

/// A batch of what the input says.
fn write(program: &mut Program<'_>) -> Vec<u8> {
    let sequence = program.long().max(1);
    let block = BLOCK_BYTES as u64;
    let fields = HeaderFields {
        sequence: Sequence(sequence),
        place: Place { segment: program.long(), offset: program.long() / block * block },
        redo_from: Sequence(program.long().min(sequence)),
        catalogue_stamp: program.long(),
        previous: [program.byte(); 32],
    };
    let (mut records, mut pages, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..program.below(RECORDS_MAX + 1) {
        let page_count = 1 + program.below(PAGES_MAX);
        records.push(Record {
            tenant: TenantId(u64::from(program.short())),
            txid: program.long(),
            fragment: u32::from(program.byte()),
            page_count: page_count as u32,
            database_pages: u32::from(program.short()),
            last: program.byte().is_multiple_of(2),
        });
        for _ in 0..page_count {
            let image = Random::new(u64::from(program.short())).bytes(BLOCK_BYTES);
            let number = 1 + u32::from(program.short());
            pages.push(PageEntry { number, check: page_check(&image) });
            images.extend(image);
        }
    }
    let mut batch = vec![0; 8 * BLOCK_BYTES];
    encode_header(&fields, &records, &pages, &mut batch);
    let blocks = u32::from_le_bytes(batch[12..16].try_into().expect("4 bytes")) as usize;
    batch.truncate(blocks * BLOCK_BYTES);
    batch.extend(images);
    batch
}

fn images_are_good(header: &Header, batch: &[u8]) -> bool {
    let images = batch[header.header_blocks() * BLOCK_BYTES..].chunks_exact(BLOCK_BYTES);
    header.pages.iter().zip(images).all(|(page, image)| page_check(image) == page.check)
}

fn edit(program: &mut Program<'_>, batch: &mut [u8], header_bytes: usize) {
    let kind = program.byte();
    // Half of the edits where the numbers are.
    let end = if kind & 0x80 == 0 { 256.min(header_bytes) } else { batch.len() };
    let at = program.below(end);
    let value = program.byte();
    match kind % 5 {
        0 => batch[at] ^= 1 << (value % 8),
        1 => batch[at] = value,
        2 => batch[at..(at + 8).min(end)].fill(if value & 1 == 0 { 0 } else { 0xff }),
        3 => batch[at / 4 * 4] = value,
        _ => {
            let from = program.below(batch.len() - 7);
            let number: [u8; 8] = batch[from..from + 8].try_into().expect("8 bytes");
            let at = at.min(batch.len() - 8);
            batch[at..at + 8].copy_from_slice(&number);
        }
    }
}

/// With a hash that fits, nothing of what a header says is believed before it was looked at.
fn forge(batch: &mut [u8], seen: &mut Seen) -> Result<(), String> {
    let blocks = u32::from_le_bytes(batch[12..16].try_into().expect("4 bytes")) as usize;
    let Some(end) = blocks.checked_mul(BLOCK_BYTES).filter(|end| (1..=batch.len()).contains(end))
    else {
        seen.note("blocks that are not there");
        return Ok(());
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&batch[..HASH.start]);
    hasher.update(&batch[HASH.end..end]);
    batch[HASH].copy_from_slice(hasher.finalize().as_bytes());
    let told = describe_batch(batch);
    let Some(header) = Header::read(batch) else {
        seen.note("a forged header is refused");
        return match told.contains("no intact header") {
            true => Ok(()),
            false => Err(format!("refused, and described as {told}")),
        };
    };
    seen.count("forged records", header.records.len());
    seen.count("forged pages", header.pages.len());
    let listed: u64 = header.records.iter().map(|record| u64::from(record.page_count)).sum();
    if listed != header.pages.len() as u64 || header.header_blocks() != blocks {
        return Err(format!("a header at odds with itself: {told}"));
    }
    Ok(())
}
