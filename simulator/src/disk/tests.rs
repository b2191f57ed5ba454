//! The disk without an Io: what each crash mode keeps, names, locks, space.

use std::collections::BTreeSet;
use std::path::Path;

use storage::io::{Create, FileId, OpenOptions};

use super::{CrashMode, InFlightWrite, SimulatedDisk};
use crate::draws::Draws;
use crate::faults::{Faults, NamespaceModel};

const WRITE: OpenOptions =
    OpenOptions { create: Create::IfMissing, write: true, ..OpenOptions::READ };

const BLOCK: usize = super::BLOCK;

fn disk(model: NamespaceModel) -> SimulatedDisk {
    SimulatedDisk::new(&Faults { namespace_model: model, ..Faults::calm() })
}

fn open(disk: &mut SimulatedDisk, path: &str, options: OpenOptions) -> FileId {
    disk.open(Path::new(path), options).expect("it opens").0
}

fn crash(disk: &mut SimulatedDisk, mode: CrashMode, seed: u64) {
    let late = disk.crash(mode, Vec::new(), &BTreeSet::new(), &mut Draws::new(seed));
    assert!(late.is_empty());
}

fn sync(disk: &mut SimulatedDisk, file: FileId) {
    let stamp = disk.stamp();
    disk.sync(file, stamp).expect("synced");
}

fn sync_directory(disk: &mut SimulatedDisk, path: &str) {
    let stamp = disk.stamp();
    disk.sync_directory(Path::new(path), stamp).expect("synced");
}

fn bytes(disk: &SimulatedDisk, path: &str) -> Option<Vec<u8>> {
    disk.bytes(Path::new(path))
}

/// A file `f` of three durable blocks of 1s, over which 2s and then 3s were written, not synced.
fn overwritten() -> (SimulatedDisk, FileId) {
    let mut disk = disk(NamespaceModel::Posix);
    disk.plant(Path::new("f"), &[1; 3 * BLOCK]).expect("planted");
    let file = open(&mut disk, "f", WRITE);
    for byte in [2, 3] {
        for index in 0..3 {
            let offset = (index * BLOCK) as u64;
            disk.write(file, offset, &[byte; BLOCK]).expect("written");
        }
    }
    (disk, file)
}

#[test]
fn power_loss_loses_all_or_nothing_in_the_simple_modes() {
    let (mut lost, _) = overwritten();
    crash(&mut lost, CrashMode::PowerAllLost, 1);
    assert_eq!(bytes(&lost, "f"), Some(vec![1; 3 * BLOCK]));
    let (mut kept, _) = overwritten();
    crash(&mut kept, CrashMode::PowerAllKept, 1);
    assert_eq!(bytes(&kept, "f"), Some(vec![3; 3 * BLOCK]));
    let (mut killed, _) = overwritten();
    crash(&mut killed, CrashMode::Kill, 1);
    assert_eq!(bytes(&killed, "f"), Some(vec![3; 3 * BLOCK]));
    // After a kill the bytes are in the page cache, and no more durable than before.
    crash(&mut killed, CrashMode::PowerAllLost, 1);
    assert_eq!(bytes(&killed, "f"), Some(vec![1; 3 * BLOCK]));
}

#[test]
fn a_prefix_keeps_the_order_of_writes() {
    let mut found = BTreeSet::new();
    for seed in 0..100 {
        let (mut disk, _) = overwritten();
        crash(&mut disk, CrashMode::PowerPrefix, seed);
        let bytes = bytes(&disk, "f").expect("it is there");
        let blocks: Vec<u8> = bytes.chunks(BLOCK).map(|block| block[0]).collect();
        assert!(bytes.chunks(BLOCK).all(|block| block.iter().all(|byte| *byte == block[0])));
        found.insert(blocks);
    }
    let prefixes = [[1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2], [3, 2, 2], [3, 3, 2], [3, 3, 3]];
    assert_eq!(found, prefixes.map(|blocks| blocks.to_vec()).into());
}

#[test]
fn random_sectors_mix_all_versions_within_a_block() {
    let (mut disk, _) = overwritten();
    crash(&mut disk, CrashMode::PowerSectors, 3);
    let bytes = bytes(&disk, "f").expect("it is there");
    let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
    assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
    let seen: BTreeSet<u8> = sectors.into_iter().collect();
    assert_eq!(seen, BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_sync_survives_every_mode_and_covers_only_what_was_before() {
    for mode in CrashMode::ALL {
        for seed in 0..20 {
            let (mut disk, file) = overwritten();
            let stamp = disk.stamp();
            disk.write(file, 0, &[4; BLOCK]).expect("written");
            disk.sync(file, stamp).expect("synced");
            let durable = disk.durable_bytes(Path::new("f")).expect("durable");
            assert!(durable.iter().all(|byte| *byte == 3));
            crash(&mut disk, mode, seed);
            let bytes = bytes(&disk, "f").expect("it is there");
            assert!(bytes[BLOCK..].iter().all(|byte| *byte == 3));
            assert!(bytes[..BLOCK].iter().all(|byte| *byte == 3 || *byte == 4));
        }
    }
}

#[test]
fn a_data_sync_write_is_durable_with_its_size_and_nothing_else_is() {
    for mode in CrashMode::ALL {
        let (mut disk, _) = overwritten();
        let synced = OpenOptions { data_sync: true, ..WRITE };
        let file = open(&mut disk, "f", synced);
        let end = 3 * BLOCK as u64;
        disk.write(file, end, &[9; 700]).expect("written");
        crash(&mut disk, mode, 5);
        let bytes = bytes(&disk, "f").expect("it is there");
        assert_eq!(bytes.len(), 3 * BLOCK + 700);
        assert_eq!(bytes[3 * BLOCK..], [9; 700]);
        if mode == CrashMode::PowerAllLost {
            assert!(bytes[..3 * BLOCK].iter().all(|byte| *byte == 1));
        }
    }
}

#[test]
fn a_failed_sync_leaves_pages_clean_and_not_durable() {
    let (mut disk, file) = overwritten();
    let stamp = disk.stamp();
    assert!(disk.fail_sync(file, stamp));
    sync(&mut disk, file);
    crash(&mut disk, CrashMode::PowerAllLost, 1);
    assert_eq!(bytes(&disk, "f"), Some(vec![1; 3 * BLOCK]));
    // Written again and synced again, they are durable.
    let (mut disk, file) = overwritten();
    let stamp = disk.stamp();
    assert!(disk.fail_sync(file, stamp));
    disk.write(file, 0, &[4; BLOCK]).expect("written");
    sync(&mut disk, file);
    crash(&mut disk, CrashMode::PowerAllLost, 1);
    let bytes = bytes(&disk, "f").expect("it is there");
    assert!(bytes[..BLOCK].iter().all(|byte| *byte == 4));
    assert!(bytes[BLOCK..].iter().all(|byte| *byte == 1));
}

#[test]
fn sizes_are_old_or_new_after_a_power_loss() {
    let mut found = BTreeSet::new();
    for seed in 0..60 {
        let (mut disk, file) = overwritten();
        sync(&mut disk, file);
        disk.truncate(file, 100).expect("cut");
        disk.truncate(file, 2 * BLOCK as u64).expect("grown");
        crash(&mut disk, CrashMode::PowerSectors, seed);
        let bytes = bytes(&disk, "f").expect("it is there");
        found.insert(bytes.len());
        let old_bytes = if bytes.len() == 3 * BLOCK { bytes.len() } else { 100 };
        assert!(bytes[..old_bytes].iter().all(|byte| *byte == 3));
        assert!(bytes[old_bytes..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(found, BTreeSet::from([100, 2 * BLOCK, 3 * BLOCK]));
}

#[test]
fn writes_in_flight_tear_and_turn_into_garbage() {
    let mut torn = 0;
    let mut garbage = 0;
    for seed in 0..50 {
        let (mut disk, file) = overwritten();
        sync(&mut disk, file);
        let write = InFlightWrite { file, offset: 0, bytes: vec![7; BLOCK] };
        let mode = CrashMode::PowerGarbage;
        disk.crash(mode, vec![write], &BTreeSet::new(), &mut Draws::new(seed));
        let bytes = bytes(&disk, "f").expect("it is there");
        assert!(bytes[BLOCK..].iter().all(|byte| *byte == 3));
        let first: BTreeSet<u8> = bytes[..BLOCK].iter().copied().collect();
        torn += u32::from(first == BTreeSet::from([3, 7]));
        garbage += u32::from(first.len() > 2);
    }
    assert!(garbage > 10, "{garbage} of 50");
    assert!(torn > 0, "{torn} of 50");
}

#[test]
fn a_killed_process_keeps_its_lock_while_a_direct_write_is_in_flight() {
    let locked = OpenOptions { direct: true, lock: true, ..WRITE };
    let mut late_count = 0;
    for seed in 0..50 {
        let mut disk = disk(NamespaceModel::Posix);
        let file = open(&mut disk, "log", locked);
        disk.write(file, 0, &[1; BLOCK]).expect("written");
        let refused = disk.open(Path::new("log"), locked).expect_err("it is locked");
        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
        let write = InFlightWrite { file, offset: 0, bytes: vec![2; BLOCK] };
        let mut draws = Draws::new(seed);
        let none = BTreeSet::new();
        let late = disk.crash(CrashMode::Kill, vec![write], &none, &mut draws);
        let Some(late) = late.first() else {
            assert!(disk.open(Path::new("log"), locked).is_ok());
            continue;
        };
        late_count += 1;
        assert!(disk.open(Path::new("log"), locked).is_err());
        assert_eq!(bytes(&disk, "log"), Some(vec![1; BLOCK]));
        disk.land(late);
        disk.close(late.file);
        assert_ne!(bytes(&disk, "log"), Some(vec![1; BLOCK]));
        assert!(disk.open(Path::new("log"), locked).is_ok());
        assert_eq!(disk.open_count(), 1);
    }
    assert!((10..=35).contains(&late_count), "{late_count} of 50");
}

#[test]
fn posix_names_need_their_directory_synced() {
    for (synced, left) in [(false, None), (true, Some(vec![5; 10]))] {
        let mut disk = disk(NamespaceModel::Posix);
        disk.make_directory(Path::new("d")).expect("made");
        sync_directory(&mut disk, "");
        let file = open(&mut disk, "d/f", WRITE);
        disk.write(file, 0, &[5; 10]).expect("written");
        sync(&mut disk, file);
        if synced {
            sync_directory(&mut disk, "d");
        } else {
            sync_directory(&mut disk, "");
        }
        crash(&mut disk, CrashMode::PowerAllLost, 1);
        assert!(disk.exists(Path::new("d")));
        assert_eq!(bytes(&disk, "d/f"), left);
    }
}

#[test]
fn an_ext4_sync_commits_all_names_before_it() {
    let mut disk = disk(NamespaceModel::Ext4);
    disk.make_directory(Path::new("d")).expect("made");
    let first = open(&mut disk, "d/first", WRITE);
    sync(&mut disk, first);
    open(&mut disk, "d/second", WRITE);
    crash(&mut disk, CrashMode::PowerAllLost, 1);
    assert_eq!(disk.paths(), ["d/first"]);
}

#[test]
fn posix_loses_any_subset_of_names_and_ext4_a_tail() {
    let survivors = |model| {
        let mut found = BTreeSet::new();
        for seed in 0..200 {
            let mut disk = disk(model);
            for path in ["a", "b", "c"] {
                open(&mut disk, path, WRITE);
            }
            crash(&mut disk, CrashMode::PowerSectors, seed);
            found.insert(disk.paths().concat());
        }
        found
    };
    assert_eq!(survivors(NamespaceModel::Posix).len(), 8);
    let tails = ["", "a", "ab", "abc"].map(String::from);
    assert_eq!(survivors(NamespaceModel::Ext4), tails.into());
}

#[test]
fn a_rename_is_atomic_and_never_loses_both_files() {
    for model in [NamespaceModel::Posix, NamespaceModel::Ext4] {
        let mut found = BTreeSet::new();
        for seed in 0..100 {
            let mut disk = disk(model);
            disk.plant(Path::new("old"), b"old").expect("planted");
            disk.plant(Path::new("new"), b"new").expect("planted");
            disk.rename(Path::new("new"), Path::new("old")).expect("renamed");
            let again = open(&mut disk, "new", WRITE);
            disk.write(again, 0, b"again").expect("written");
            crash(&mut disk, CrashMode::PowerSectors, seed);
            let old = bytes(&disk, "old").expect("one of them");
            match old.as_slice() {
                b"old" => assert_eq!(bytes(&disk, "new"), Some(b"new".to_vec())),
                rest => assert_eq!(rest, b"new"),
            }
            found.insert(old);
        }
        assert_eq!(found.len(), 2);
    }
}

#[test]
fn a_removed_file_comes_back_with_its_durable_bytes() {
    let (mut disk, file) = overwritten();
    disk.remove(Path::new("f")).expect("removed");
    disk.close(file);
    assert_eq!(disk.used_bytes(), BLOCK as u64);
    crash(&mut disk, CrashMode::PowerAllLost, 1);
    assert_eq!(bytes(&disk, "f"), Some(vec![1; 3 * BLOCK]));
    disk.remove(Path::new("f")).expect("removed");
    sync_directory(&mut disk, "");
    crash(&mut disk, CrashMode::PowerAllLost, 1);
    assert_eq!(disk.paths(), [""; 0]);
}

#[test]
fn unnamed_files_vanish_with_their_handle_and_with_any_crash() {
    for mode in CrashMode::ALL {
        let mut disk = disk(NamespaceModel::Posix);
        let unnamed = OpenOptions { create: Create::Unnamed, ..WRITE };
        let first = open(&mut disk, "", unnamed);
        let second = open(&mut disk, "", unnamed);
        disk.write(first, 0, &[1; BLOCK]).expect("written");
        disk.write(second, 0, &[2; BLOCK]).expect("written");
        disk.close(first);
        assert_eq!(disk.used_bytes(), 3 * BLOCK as u64);
        crash(&mut disk, mode, 1);
        assert_eq!((disk.used_bytes(), disk.open_count()), (BLOCK as u64, 0));
    }
}

#[test]
fn a_full_disk_writes_short_then_refuses() {
    let mut disk =
        SimulatedDisk::new(&Faults { disk_bytes_max: 6 * BLOCK as u64, ..Faults::calm() });
    let file = open(&mut disk, "f", WRITE);
    let count = disk.write(file, 0, &[1; 6 * BLOCK]).expect("a part fits");
    assert_eq!(count, 4 * BLOCK);
    let full = disk.write(file, 4 * BLOCK as u64, &[1; 10]).expect_err("full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    disk.write(file, 0, &[2; BLOCK]).expect("overwriting needs no space");
    assert!(disk.allocate(file, 5 * BLOCK as u64).is_err());
    assert!(disk.open(Path::new("g"), WRITE).is_err());
    disk.truncate(file, BLOCK as u64).expect("cut");
    assert_eq!(disk.used_bytes(), 3 * BLOCK as u64);
    disk.allocate(file, 4 * BLOCK as u64).expect("there is room");
    assert_eq!(disk.used_bytes(), 6 * BLOCK as u64);
}

#[test]
fn damage_reaches_reads_and_the_durable_bytes() {
    let (mut disk, _) = overwritten();
    disk.damage(Path::new("f"), 4_095, &[8, 8]).expect("damaged");
    assert_eq!(bytes(&disk, "f").expect("there")[4_094..4_098], [3, 8, 8, 3]);
    let durable = disk.durable_bytes(Path::new("f")).expect("there");
    assert_eq!(durable[4_094..4_098], [1, 8, 8, 1]);
    assert!(disk.damage(Path::new("f"), 3 * BLOCK as u64, &[8]).is_err());
}

#[test]
fn a_shrink_that_a_failed_sync_refused_goes_along_with_the_next_size() {
    let (mut disk, file) = overwritten();
    sync(&mut disk, file);
    disk.truncate(file, 0).expect("cut");
    let stamp = disk.stamp();
    assert!(disk.fail_sync(file, stamp));
    sync(&mut disk, file);
    let durable = disk.durable_bytes(Path::new("f")).expect("there");
    assert_eq!(durable, vec![3; 3 * BLOCK], "the kernel believes it is done");
    disk.truncate(file, 100).expect("grown");
    sync(&mut disk, file);
    crash(&mut disk, CrashMode::PowerAllLost, 1);
    assert_eq!(bytes(&disk, "f"), Some(vec![0; 100]));
}

/// All files with their bytes, as reads see them.
fn contents(disk: &SimulatedDisk) -> Vec<(String, Vec<u8>)> {
    let paths = disk.paths().into_iter();
    paths
        .map(|path| (bytes(disk, &path).expect("it is listed"), path))
        .map(|(bytes, path)| (path, bytes))
        .collect()
}

/// One drawn operation on a few names, through a handle that is closed again, errors included.
fn act(disk: &mut SimulatedDisk, draws: &mut Draws) {
    let mut below = |bound| draws.below(crate::draws::Stream::Workload, 0, bound);
    let paths = ["a", "b", "d/a", "d/b", "d/e/a"].map(Path::new);
    let (path, other) = (paths[below(5) as usize], paths[below(5) as usize]);
    let choice = below(10);
    let (offset, length) = (below(5 * BLOCK as u64), below(3 * BLOCK as u64) + 1);
    let stamp = disk.stamp();
    let directories = ["d", "d/e", ""].map(Path::new);
    let directory = directories[below(3) as usize];
    match choice {
        0 => drop(disk.make_directory(directory)),
        1 => drop(disk.rename(path, other)),
        2 => drop(disk.remove(path)),
        3 => drop(disk.sync_directory(directory, stamp)),
        _ => {
            let options = OpenOptions { data_sync: below(4) == 0, ..WRITE };
            let Ok((file, _)) = disk.open(path, options) else {
                return;
            };
            match choice {
                4 => drop(disk.truncate(file, offset)),
                5 => drop(disk.allocate(file, offset)),
                6 => drop(disk.sync(file, stamp)),
                7 => assert!(disk.fail_sync(file, stamp)),
                _ => drop(disk.write(file, offset, &vec![offset as u8 | 1; length as usize])),
            }
            disk.close(file);
        }
    }
}

#[test]
fn drawn_operations_keep_the_books_and_what_a_crash_owes() {
    for seed in 0..120 {
        let model = [NamespaceModel::Posix, NamespaceModel::Ext4][seed as usize % 2];
        let mut disk = SimulatedDisk::new(&Faults {
            namespace_model: model,
            disk_bytes_max: 24 * BLOCK as u64,
            sector_bytes: [512, 4096][seed as usize / 2 % 2],
            ..Faults::calm()
        });
        let mut draws = Draws::new(seed);
        for step in 0..120 {
            act(&mut disk, &mut draws);
            let booked = disk.used_bytes();
            disk.count_blocks();
            assert_eq!(disk.used_bytes(), booked, "seed {seed} step {step}");
            assert!(booked <= 24 * BLOCK as u64);
            if step % 40 == 39 {
                let mode = CrashMode::ALL[draws.index(crate::draws::Stream::Workload, 1, 6)];
                crash(&mut disk, mode, seed);
            }
        }
        let before = contents(&disk);
        let mut kept = disk.clone();
        crash(&mut kept, CrashMode::Kill, seed);
        assert_eq!(contents(&kept), before, "a kill with nothing in flight loses nothing");
        crash(&mut kept, CrashMode::PowerAllKept, seed);
        assert_eq!(contents(&kept), before, "seed {seed}: all was kept");
        // Synced, it survives the worst.
        for (path, _) in &before {
            let file = open(&mut kept, path, WRITE);
            sync(&mut kept, file);
        }
        for mode in CrashMode::ALL {
            crash(&mut kept, mode, seed);
            assert_eq!(contents(&kept), before, "seed {seed} {mode:?}");
            assert!(!kept.has_unsynced());
        }
    }
}
