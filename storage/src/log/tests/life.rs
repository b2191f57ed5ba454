//! Ordinary life: round trips, fragments, circles, refusals, failures.

use super::device::Random;
use super::world::{OPTIONS, World, scan};
use crate::identity::TenantId;
use crate::io::BLOCK_BYTES;
use crate::log::{Class, LogFile, LogOperation, LogReply, RecoveryError, Sequence, describe_batch};
use std::io;

#[test]
fn commits_come_back() {
    let mut world = World::new(OPTIONS, 1);
    for tenant in 1..=3 {
        world.commit(tenant, 2).expect("room");
    }
    world.commit(1, 1).expect("room");
    world.settle();
    assert!(world.log.durable_sequence() >= Sequence(1));
    let recovered = world.recover();
    assert_eq!(recovered.tenants.len(), 3);
    assert_eq!(recovered.tenants[&TenantId(1)].last_txid, 2);
    assert_eq!(recovered.torn, None);
}

#[test]
fn one_write_serves_many_tenants() {
    let mut world = World::new(OPTIONS, 2);
    world.settle();
    for tenant in 1..=5 {
        world.commit(tenant, 1).expect("room");
    }
    assert_eq!(world.log.filling_sequence(), Sequence(1));
    world.log.flush();
    world.collect();
    let batch = world.batch_in_flight().expect("a batch is in flight");
    assert_eq!(batch.len(), 6 * BLOCK_BYTES);
    let text = describe_batch(batch);
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.starts_with("batch 1 segment 0 offset 0 blocks 6 records 5 pages 5"), "{text}");
    assert!(text.contains("tenant 5 txid 1 fragment 0 last pages 1"), "{text}");
    assert!(!text.contains("bad 1"), "{text}");
    world.settle();
    assert_eq!(world.log.durable_sequence(), Sequence(1));
}

#[test]
fn a_big_transaction_spans_batches_and_segments() {
    let mut world = World::new(OPTIONS, 3);
    let committed = world.commit(7, 40).expect("room");
    assert!(committed.last.0 - committed.first.0 >= 5);
    assert!(world.log.durable_sequence() < committed.last);
    world.settle();
    let recovered = world.recover();
    assert_eq!(recovered.tenants[&TenantId(7)].first_sequence, committed.first);
}

#[test]
fn an_unfinished_transaction_never_happened() {
    let mut world = World::new(OPTIONS, 4);
    world.commit(1, 1).expect("room");
    let (mut transaction, entry) = world.begin(2, 20, Class::Tenant).expect("room");
    for index in 0..19 {
        while world.push(&mut transaction, &entry, index).is_err() {
            world.step();
        }
    }
    world.settle();
    let reserved = world.log.reserved_bytes();
    world.log.abandon(transaction);
    assert!(world.log.reserved_bytes() < reserved);
    assert_eq!(world.log.reserved_bytes(), 0);
    // The same transaction id again, right behind the abandoned pages: only these count.
    world.txids.remove(&TenantId(2));
    world.commit(2, 1).expect("room");
    world.settle();
    let recovered = world.recover();
    assert_eq!(recovered.tenants[&TenantId(2)].last_txid, 1);
    assert!(recovered.tenants[&TenantId(2)].pages.len() <= 1);
}

#[test]
fn the_log_goes_round_while_it_is_trimmed() {
    let mut world = World::new(OPTIONS, 5);
    for round in 0..300 {
        world.commit(1 + round % 5, 1 + (round % 4) as u32).expect("room");
        world.settle();
        if round % 7 == 6 {
            let next = world.log.filling_sequence();
            world.log.set_redo_from(next);
        }
        if round % 50 == 49 {
            world.recover();
        }
    }
    assert!(world.log.filling_sequence() > Sequence(300));
    assert_eq!(world.device.files.len(), 5);
}

#[test]
fn a_finished_log_has_nothing_to_recover() {
    let mut world = World::new(OPTIONS, 13);
    for tenant in 1..=3 {
        world.commit(tenant, 2).expect("room");
    }
    world.settle();
    let next = world.log.filling_sequence();
    world.log.set_redo_from(next);
    world.log.flush();
    world.settle();
    assert_eq!(world.log.filling_sequence(), next, "alone it is not worth a batch");
    world.log.say_last_word();
    world.log.flush();
    world.settle();
    assert_eq!(world.log.durable_sequence(), next);
    assert_eq!(world.log.redo_from_durable(), next);
    world.log.flush();
    world.settle();
    assert_eq!(world.log.filling_sequence(), next.next(), "it is said once");
    assert!(world.recover().tenants.is_empty());
}

#[test]
fn a_segment_is_free_only_once_a_header_copy_says_so() {
    let mut world = World::new(OPTIONS, 12);
    while world.log.used_bytes() < 3 * OPTIONS.segment_bytes {
        world.commit(1, 3).expect("room");
        world.settle();
    }
    assert_eq!(world.log.oldest_sequence(), Sequence(1));
    let next = world.log.filling_sequence();
    world.log.set_redo_from(next);
    world.log.flush();
    world.collect();
    assert_eq!(world.in_flight.len(), 1);
    world.complete(0);
    assert_eq!(world.log.durable_sequence(), next);
    assert_eq!(world.log.oldest_sequence(), Sequence(1), "the batch alone frees nothing");
    world.collect();
    assert_eq!(world.in_flight.len(), 1);
    world.complete(0);
    assert!(world.log.oldest_sequence() > Sequence(1));
    assert_eq!(world.log.redo_from_durable(), next);
    world.log.flush();
    assert!(world.log.next_request().is_none(), "one empty batch is enough");
}

#[test]
fn an_open_transaction_holds_the_trim_back() {
    let mut world = World::new(OPTIONS, 6);
    let (mut transaction, entry) = world.begin(2, 2, Class::Tenant).expect("room");
    world.push(&mut transaction, &entry, 0).expect("room");
    for _ in 0..20 {
        world.commit(1, 1).expect("room");
        world.settle();
    }
    world.log.set_redo_from(world.log.filling_sequence());
    world.commit(1, 1).expect("room");
    world.settle();
    assert_eq!(world.log.redo_from_durable(), Sequence(1));
    world.push(&mut transaction, &entry, 1).expect("room");
    let committed = world.finish(transaction, entry);
    assert_eq!(committed.first, Sequence(1));
    // Ended, but the trim was asked for by somebody who did not know of it.
    world.settle();
    world.commit(1, 1).expect("room");
    world.settle();
    assert_eq!(world.log.redo_from_durable(), Sequence(1));
    let recovered = world.recover();
    assert!(recovered.tenants.contains_key(&TenantId(2)), "an acknowledged commit is lost");
}

#[test]
fn short_counts_and_interruptions_change_nothing() {
    for seed in 0..20 {
        let mut world = World::new(OPTIONS, seed);
        world.device.short_percent = 30;
        for round in 0..40 {
            world.commit(round % 3, 1 + (round % 9) as u32).expect("room");
            if round % 3 == 0 {
                world.settle();
                world.log.set_redo_from(world.log.filling_sequence());
            }
        }
        world.settle();
        world.recover();
    }
}

#[test]
fn a_failed_write_is_final() {
    let mut world = World::new(OPTIONS, 8);
    world.settle();
    world.commit(1, 1).expect("room");
    world.log.flush();
    let request = world.log.next_request().expect("a batch");
    let LogOperation::Write { buffer, .. } = request.operation else {
        panic!("a batch is a write");
    };
    world.log.complete(request.id, LogReply::Written(buffer, Err(io::Error::other("EIO"))));
    assert!(world.log.failed().expect("failed").contains("segment-000"));
    assert_eq!(world.log.durable_sequence(), Sequence(0));
    assert!(world.log.next_request().is_none());
    assert!(!world.log.has_room());
    world.log.flush();
    assert!(world.log.next_request().is_none());
}

#[test]
fn a_full_disk_makes_the_log_smaller_not_broken() {
    let mut world = World::new(OPTIONS, 9);
    world.settle();
    world.device.full = true;
    let mut committed = 0;
    let refused = loop {
        match world.commit(1, 3) {
            Ok(_) => committed += 1,
            Err(refused) => break refused,
        }
        world.settle();
    };
    assert!(refused.disk_refused);
    assert!(refused.to_string().contains("disk refused"));
    assert!(committed > 4);
    assert!(world.log.disk_refused().expect("refused").contains("segment-002"));
    world.log.retry_disk();
    world.settle();
    assert!(world.log.disk_refused().is_some());
    world.device.full = false;
    world.log.retry_disk();
    world.settle();
    assert_eq!(world.log.disk_refused(), None);
    world.commit(1, 3).expect("room again");
    world.settle();
    world.recover();
}

#[test]
fn a_write_without_room_waits_and_is_not_lost() {
    let mut world = World::new(OPTIONS, 19);
    world.settle();
    let before = world.log.durable_sequence();
    world.commit(1, 3).expect("room");
    world.device.no_room = true;
    world.settle();
    assert_eq!(world.log.durable_sequence(), before);
    assert_eq!(world.log.failed(), None);
    assert!(world.log.write_refused().expect("refused").contains("segment-000"));
    assert!(world.commit(2, 1).expect_err("nothing more is taken").disk_refused);
    world.log.retry_disk();
    world.settle();
    assert!(world.log.write_refused().is_some());
    world.device.no_room = false;
    world.log.retry_disk();
    world.settle();
    assert_eq!(world.log.write_refused(), None);
    assert_eq!(world.log.durable_sequence(), before.next());
    world.commit(2, 1).expect("room again");
    world.settle();
    world.recover();
}

#[test]
fn the_disk_keeps_its_shape() {
    let mut world = World::new(OPTIONS, 10);
    world.commit(1, 3).expect("room");
    world.settle();
    let mut options = OPTIONS;
    options.segment_bytes *= 2;
    options.segment_count += 3;
    let recovered = scan(options, &mut world.device, &mut world.random).expect("readable");
    assert_eq!(recovered.log.options().segment_bytes, OPTIONS.segment_bytes);
    assert_eq!(recovered.log.options().segment_count, OPTIONS.segment_count);
    assert_eq!(recovered.tenants.len(), 1);
}

#[test]
fn missing_files_and_newer_versions_are_named() {
    let mut world = World::new(OPTIONS, 11);
    for _ in 0..6 {
        world.commit(1, 5).expect("room");
        world.settle();
    }
    let files = world.device.files.clone();
    let outcome = |world: &mut World| {
        let before = world.device.files.clone();
        let result = scan(OPTIONS, &mut world.device, &mut Random(0));
        assert_eq!(world.device.files, before, "a refused start changes nothing");
        result.map(|_| ())
    };
    world.device.files.remove(&LogFile::Ring);
    assert_eq!(outcome(&mut world), Err(RecoveryError::RingMissing));
    for slot in 0..2 {
        world.device.files = files.clone();
        world.device.files.remove(&LogFile::Segment(slot));
        assert_eq!(outcome(&mut world), Err(RecoveryError::SegmentMissing { slot }));
    }
    world.device.files = files.clone();
    world.device.zero(LogFile::Ring, 0);
    world.device.zero(LogFile::Ring, BLOCK_BYTES as u64);
    assert_eq!(outcome(&mut world), Err(RecoveryError::RingDamaged));
    world.device.files = files;
    for offset in [0, BLOCK_BYTES] {
        let block = &mut world.device.files.get_mut(&LogFile::Ring).expect("ring")
            [offset..offset + BLOCK_BYTES];
        block[8] = 9;
        let hash = blake3::hash(&block[..BLOCK_BYTES - 32]);
        block[BLOCK_BYTES - 32..].copy_from_slice(hash.as_bytes());
    }
    assert_eq!(outcome(&mut world), Err(RecoveryError::Version { found: 9 }));
}

/// A crash between its two writes, or one bad block: after the next start another one hurts nobody.
#[test]
fn a_superblock_is_repaired_from_its_twin() {
    let mut world = World::new(OPTIONS, 12);
    world.commit(1, 5).expect("room");
    world.settle();
    let files = world.device.files.clone();
    for twin in [0, BLOCK_BYTES as u64] {
        world.device.zero(LogFile::Ring, twin);
        let recovered = scan(OPTIONS, &mut world.device, &mut Random(0)).expect("one is left");
        assert_eq!(recovered.repaired, 1);
        assert_eq!(world.device.files, files);
    }
}
