//! Damage without an Io: who sees it, what clears it, what the ledger says, what is never struck.

use std::path::Path;

use storage::TenantId;
use storage::io::{BLOCK_BYTES, Create, FileId, OpenOptions};
use storage::log::limits::{RING_BYTES, RING_SLOTS_OFFSET, SLOT_BYTES};
use storage::log::{HeaderFields, PageEntry, Place, Record, Sequence, encode_header};

use super::ledger::Damage;
use super::{CrashMode, Rot, SimulatedDisk};
use crate::draws::Draws;
use crate::faults::{FaultKind, Faults, SyncSemantics};

const BLOCK: usize = BLOCK_BYTES;
const FILE: &str = "tenants/07/00/7.db";
const BUFFERED: OpenOptions =
    OpenOptions { create: Create::IfMissing, write: true, ..OpenOptions::READ };
const DIRECT: OpenOptions = OpenOptions { direct: true, ..OpenOptions::READ };
const LOG: OpenOptions = OpenOptions { direct: true, data_sync: true, ..BUFFERED };

fn open(disk: &mut SimulatedDisk, path: &str, options: OpenOptions) -> FileId {
    disk.open(Path::new(path), options).expect("it opens").0
}

/// The first bytes of so many blocks.
fn read(disk: &mut SimulatedDisk, file: FileId, blocks: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; blocks * BLOCK];
    disk.read(file, 0, &mut bytes).ok()?;
    Some(bytes.chunks(BLOCK).map(|block| block[0]).collect())
}

/// A tenant's file of three durable blocks of 1s, open through the page cache and past it.
fn tenant(semantics: SyncSemantics) -> (SimulatedDisk, FileId, FileId) {
    let mut disk = SimulatedDisk::new(&Faults { sync_semantics: semantics, ..Faults::calm() });
    disk.plant(Path::new(FILE), &[1; 3 * BLOCK]).expect("planted");
    let buffered = open(&mut disk, FILE, BUFFERED);
    let direct = open(&mut disk, FILE, DIRECT);
    (disk, buffered, direct)
}

fn crash(disk: &mut SimulatedDisk, mode: CrashMode) {
    let none = std::collections::BTreeSet::new();
    drop(disk.crash(mode, Vec::new(), &none, &mut Draws::new(1)));
}

fn only(disk: &SimulatedDisk) -> &Damage {
    let mut all = disk.ledger().iter();
    let damage = all.next().expect("there is a damage");
    assert!(all.next().is_none());
    damage
}

#[test]
fn rot_is_seen_until_it_is_written_over_or_healed() {
    let (mut disk, file, direct) = tenant(SyncSemantics::Kept);
    assert!(disk.rot(Path::new(FILE), 1, Rot::Byte(0, 8)));
    assert!(!disk.rot(Path::new(FILE), 2, Rot::Zeros), "one damage per file");
    assert_eq!(read(&mut disk, file, 3), Some(vec![1, 9, 1]));
    assert_eq!(read(&mut disk, direct, 3), Some(vec![1, 9, 1]));
    assert_eq!(
        disk.bytes(Path::new(FILE)),
        Some(vec![1; 3 * BLOCK]),
        "oracles see what ought to be"
    );
    let damage = only(&disk);
    assert_eq!((damage.kind, damage.block, damage.reads), (FaultKind::RotFile, 1, 2));
    assert_eq!(damage.tenants, [TenantId(7)]);
    assert!(disk.ledger().is_damaged(FILE) && disk.ledger().concerns(TenantId(7)));
    assert!(!disk.ledger().concerns(TenantId(8)));
    let mut healed = disk.clone();
    healed.heal();
    assert_eq!(read(&mut healed, file, 3), Some(vec![1; 3]));
    // A part of the block is written: the rest of it is still rotten.
    disk.write(file, BLOCK as u64 + 1, &[5; 10]).expect("written");
    assert_eq!(read(&mut disk, file, 3), Some(vec![1, 9, 1]));
    disk.write(file, BLOCK as u64, &[6; BLOCK]).expect("written");
    assert_eq!(read(&mut disk, file, 3), Some(vec![1, 6, 1]));
    assert!(!disk.ledger().is_damaged(FILE) && disk.ledger().was_hit(FILE));
}

#[test]
fn rot_survives_crashes_and_leaves_with_its_file() {
    for mode in CrashMode::ALL {
        let (mut disk, ..) = tenant(SyncSemantics::Kept);
        assert!(disk.rot(Path::new(FILE), 0, Rot::Ones));
        crash(&mut disk, mode);
        let file = open(&mut disk, FILE, OpenOptions::READ);
        assert_eq!(read(&mut disk, file, 3), Some(vec![255, 1, 1]));
        disk.remove(Path::new(FILE)).expect("removed");
        assert!(!disk.ledger().is_damaged(FILE));
    }
}

#[test]
fn only_clean_blocks_inside_a_file_rot() {
    let (mut disk, file, _) = tenant(SyncSemantics::Kept);
    let path = Path::new(FILE);
    assert!(!disk.rot(path, 3, Rot::Ones), "past the end");
    assert!(!disk.rot(path, 0, Rot::Other(0, 1)), "the same bytes");
    assert!(!disk.rot(Path::new("nothing"), 0, Rot::Ones));
    disk.write(file, 0, &[2; BLOCK]).expect("written");
    assert!(!disk.rot(path, 0, Rot::Ones), "it is still to be written");
    assert!(disk.rot(path, 1, Rot::Bit(0)));
}

#[test]
fn a_latent_sector_cannot_be_read_until_it_is_written() {
    let (mut disk, file, direct) = tenant(SyncSemantics::Kept);
    assert!(disk.lose_sector(Path::new(FILE), 2));
    assert_eq!(read(&mut disk, file, 2), Some(vec![1; 2]));
    assert_eq!((read(&mut disk, file, 3), read(&mut disk, direct, 3)), (None, None));
    disk.write(file, 2 * BLOCK as u64, &[4; BLOCK]).expect("written");
    assert_eq!(read(&mut disk, file, 3), Some(vec![1, 1, 4]));
}

#[test]
fn a_lost_write_is_seen_past_the_page_cache_at_once_and_through_it_after_eviction() {
    let (mut disk, file, direct) = tenant(SyncSemantics::Kept);
    let lost = disk.lose_write(file, 0, &[2; 2 * BLOCK]).expect("it says so");
    assert_eq!(lost, (2 * BLOCK, true));
    let stamp = disk.stamp();
    disk.sync(file, stamp).expect("synced");
    assert_eq!(read(&mut disk, file, 3), Some(vec![2, 2, 1]));
    assert_eq!(read(&mut disk, direct, 3), Some(vec![1, 1, 1]));
    let mut draws = Draws::new(1);
    assert!(disk.evict_one(&mut draws) && disk.evict_one(&mut draws));
    assert!(!disk.evict_one(&mut draws), "nothing is left to evict");
    assert_eq!(read(&mut disk, file, 3), Some(vec![1, 1, 1]));
    crash(&mut disk, CrashMode::PowerAllLost);
    assert_eq!(disk.ledger().active().count(), 2, "what was synced is lost still");
    // Not synced, a power loss takes the write anyway: then nothing is damaged.
    let (mut disk, file, _) = tenant(SyncSemantics::Kept);
    disk.lose_write(file, 0, &[2; BLOCK]).expect("it says so");
    crash(&mut disk, CrashMode::PowerAllLost);
    assert!(!disk.ledger().is_damaged(FILE));
}

#[test]
fn a_misdirected_write_damages_two_places() {
    let mut found = [0; 2];
    for seed in 0..40 {
        let (mut disk, file, direct) = tenant(SyncSemantics::Kept);
        let other = "tenants/08/00/8.db";
        disk.plant(Path::new(other), &[3; 3 * BLOCK]).expect("planted");
        let other_direct = open(&mut disk, other, DIRECT);
        let mut draws = Draws::new(seed);
        let (count, astray) =
            disk.misdirect_write(file, 0, &[2; BLOCK], &mut draws).expect("it says so");
        assert_eq!(count, BLOCK);
        if !astray {
            assert_eq!(read(&mut disk, direct, 3), Some(vec![2, 1, 1]));
            continue;
        }
        assert_eq!(read(&mut disk, file, 3), Some(vec![2, 1, 1]), "the page cache knows better");
        let here = read(&mut disk, direct, 3).expect("readable");
        let there = read(&mut disk, other_direct, 3).expect("readable");
        assert_eq!(disk.ledger().active().count(), 2);
        let same = here != [1, 1, 1];
        found[usize::from(same)] += 1;
        assert_eq!(disk.ledger().concerns(TenantId(8)), !same);
        let expected = if same { vec![3, 3, 3] } else { vec![2, 3, 3] };
        assert_eq!((here[0], there), (1, expected));
    }
    assert!(found.iter().all(|count| *count > 3), "{found:?}");
}

#[test]
fn a_failed_sync_does_what_its_world_says() {
    for semantics in [SyncSemantics::Kept, SyncSemantics::Late, SyncSemantics::Reverted] {
        let (mut disk, file, direct) = tenant(semantics);
        disk.write(file, 0, &[2; BLOCK]).expect("written");
        let stamp = disk.stamp();
        disk.write(file, BLOCK as u64, &[3; BLOCK]).expect("written");
        let reported = disk.fail_sync(file, stamp);
        assert_eq!(reported, semantics != SyncSemantics::Late);
        let seen = if semantics == SyncSemantics::Reverted { 1 } else { 2 };
        assert_eq!(read(&mut disk, file, 3), Some(vec![seen, 3, 1]));
        // Past the page cache the clean page is not there; the dirty one is written back first.
        assert_eq!(read(&mut disk, direct, 3), Some(vec![1, 3, 1]));
        let stamp = disk.stamp();
        assert_eq!(disk.sync(file, stamp).is_err(), semantics == SyncSemantics::Late);
        assert!(disk.sync(file, stamp).is_ok(), "it is reported once");
        let mut evicted = disk.clone();
        let gone = evicted.evict_one(&mut Draws::new(1));
        assert_eq!(gone, semantics != SyncSemantics::Reverted);
        assert_eq!(read(&mut evicted, file, 3), Some(vec![1, 3, 1]));
        crash(&mut disk, CrashMode::PowerAllLost);
        let durable = disk.bytes(Path::new(FILE)).expect("there");
        assert_eq!([durable[0], durable[BLOCK]], [1, 3]);
    }
}

#[test]
fn a_size_that_a_failed_sync_refused_goes_along_with_the_next_write() {
    let (mut disk, file, _) = tenant(SyncSemantics::Kept);
    disk.write(file, 3 * BLOCK as u64, &[2; BLOCK]).expect("written");
    let stamp = disk.stamp();
    assert!(disk.fail_sync(file, stamp));
    disk.write(file, 3 * BLOCK as u64, &[2; BLOCK]).expect("written again");
    let stamp = disk.stamp();
    disk.sync(file, stamp).expect("synced");
    crash(&mut disk, CrashMode::PowerAllLost);
    assert_eq!(disk.bytes(Path::new(FILE)).map(|bytes| bytes.len()), Some(4 * BLOCK));
}

/// Bytes of a batch with one page for each of `tenants`.
fn batch(sequence: u64, offset: u64, tenants: &[u64]) -> Vec<u8> {
    let record = |tenant: &u64| Record {
        tenant: TenantId(*tenant),
        txid: sequence,
        fragment: 0,
        page_count: 1,
        database_pages: 1,
        last: true,
    };
    let records: Vec<Record> = tenants.iter().map(record).collect();
    let fields = HeaderFields {
        sequence: Sequence(sequence),
        place: Place { segment: 0, offset },
        redo_from: Sequence(1),
        previous: [0; 32],
        catalogue_stamp: 0,
    };
    let pages = vec![PageEntry { number: 1, check: [0; 16] }; tenants.len()];
    let mut bytes = vec![sequence as u8; (1 + tenants.len()) * BLOCK];
    encode_header(&fields, &records, &pages, &mut bytes);
    bytes
}

/// A log with a batch of tenants 5 and 6 in blocks 0 to 2, one of the catalogue and tenant 5 in
/// blocks 3 to 5, and one of tenant 6 in blocks 6 and 7; the first two have their copies.
fn log() -> SimulatedDisk {
    let mut disk = SimulatedDisk::new(&Faults::calm());
    let batches = [(0, &[5, 6][..]), (3, &[0, 5][..]), (6, &[6][..])];
    let mut segment = vec![0; 16 * BLOCK];
    let mut ring = vec![0; RING_BYTES];
    for (sequence, (block, tenants)) in (1..).zip(batches) {
        let start = block as usize * BLOCK;
        let bytes = batch(sequence, start as u64, tenants);
        segment[start..start + bytes.len()].copy_from_slice(&bytes);
        if sequence < 3 {
            let slot = RING_SLOTS_OFFSET + sequence as usize * SLOT_BYTES;
            ring[slot..slot + BLOCK].copy_from_slice(&bytes[..BLOCK]);
            ring[slot + BLOCK..slot + 2 * BLOCK].copy_from_slice(&bytes[..BLOCK]);
        }
    }
    disk.plant(Path::new("log/segment-000"), &segment).expect("planted");
    disk.plant(Path::new("log/ring"), &ring).expect("planted");
    disk
}

#[test]
fn the_ledger_knows_whose_bytes_of_the_log_are_damaged() {
    for (block, tenants, header) in [(0, &[5, 6][..], true), (1, &[5], false), (2, &[6], false)] {
        let mut disk = log();
        assert!(disk.rot(Path::new("log/segment-000"), block, Rot::Zeros));
        let damage = only(&disk);
        let tenants: Vec<TenantId> = tenants.iter().map(|tenant| TenantId(*tenant)).collect();
        assert_eq!((&damage.tenants, damage.batch, damage.header), (&tenants, Some(1), header));
        assert_eq!(damage.kind, FaultKind::RotLog);
    }
    let mut disk = log();
    assert!(disk.rot(Path::new("log/segment-000"), 9, Rot::Ones), "nobody's block");
    assert_eq!((only(&disk).batch, only(&disk).tenants.len()), (None, 0));
}

#[test]
fn one_fact_is_struck_once() {
    let (segment, ring) = (Path::new("log/segment-000"), Path::new("log/ring"));
    let copy_of =
        |sequence: u64| (RING_SLOTS_OFFSET + sequence as usize * SLOT_BYTES) as u64 / 4096;
    let mut disk = log();
    assert!(!disk.rot(segment, 4, Rot::Zeros), "the catalogue's page has no other copy");
    assert!(!disk.rot(segment, 3, Rot::Zeros), "nor may its header go");
    assert!(!disk.rot(segment, 7, Rot::Zeros), "nothing else says that the newest was durable");
    assert!(disk.rot(segment, 1, Rot::Zeros));
    assert!(!disk.rot(segment, 0, Rot::Zeros), "its batch is damaged already");
    assert!(!disk.rot(ring, copy_of(1), Rot::Zeros), "the copy of a damaged batch");
    assert!(disk.rot(ring, copy_of(2), Rot::Ones), "another batch's copy");
    let mut disk = log();
    assert!(disk.rot(ring, copy_of(1), Rot::Ones));
    assert!(!disk.rot(ring, copy_of(1) + 1, Rot::Ones), "its twin");
    assert!(!disk.rot(segment, 0, Rot::Ones), "the header of a damaged copy");
    assert!(disk.rot(ring, 0, Rot::Ones), "another fact");
    assert!(!disk.rot(ring, 1, Rot::Ones), "its twin");
    let mut disk = SimulatedDisk { double_faults: true, ..log() };
    assert!(disk.rot(segment, 1, Rot::Zeros) && disk.rot(segment, 0, Rot::Zeros));
    assert!(disk.rot(ring, copy_of(1), Rot::Zeros) && disk.rot(ring, copy_of(1) + 1, Rot::Zeros));
}

#[test]
fn a_crash_before_the_copy_undoes_what_would_be_a_second_fault() {
    let mut disk = log();
    let file = open(&mut disk, "log/segment-000", LOG);
    let bytes = batch(4, 8 * BLOCK as u64, &[9]);
    let lost = disk.lose_write(file, 8 * BLOCK as u64, &bytes).expect("it says so");
    assert_eq!(lost, (2 * BLOCK, true));
    assert!(disk.ledger().iter().all(|damage| damage.header && damage.tenants == [TenantId(9)]));
    assert_eq!(disk.ledger().active().count(), 2);
    let mut copied = disk.clone();
    let ring = open(&mut copied, "log/ring", LOG);
    let mut copy = bytes[..BLOCK].to_vec();
    copy.extend_from_slice(&bytes[..BLOCK]);
    let slot = (RING_SLOTS_OFFSET + 4 * SLOT_BYTES) as u64;
    copied.write(ring, slot, &copy).expect("written");
    crash(&mut copied, CrashMode::PowerAllLost);
    assert!(copied.ledger().is_damaged("log/segment-000"), "its copy speaks of it");
    crash(&mut disk, CrashMode::PowerAllLost);
    assert!(!disk.ledger().is_damaged("log/segment-000"), "nothing would speak of it");
}

#[test]
fn errors_of_operations_stand_in_the_ledger() {
    let (mut disk, file, _) = tenant(SyncSemantics::Kept);
    disk.hit_file(file, FaultKind::ReadError, true);
    assert!(!disk.ledger().was_hit(FILE) && disk.ledger().was_disturbed(FILE));
    disk.hit_path(Path::new("tenants/07"), FaultKind::SyncKept, false);
    assert!(disk.ledger().concerns(TenantId(7)) && !disk.ledger().concerns(TenantId(8)));
    assert_eq!(disk.ledger().hits().count(), 2);
}
