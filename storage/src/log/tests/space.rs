//! What was reserved can be appended, and a full log drains.

use super::device::Random;
use super::world::{OPTIONS, World};
use crate::io::BLOCK_BYTES;
use crate::log::{Class, LogOptions, Sequence};

fn options(random: &mut Random) -> LogOptions {
    let segment_blocks = 16 + random.below(40);
    let batch_blocks = (4 + random.below(30)).min(segment_blocks);
    LogOptions {
        segment_bytes: segment_blocks * BLOCK_BYTES as u64,
        segment_count: 4 + random.below(3) as u32,
        batch_bytes_max: batch_blocks as usize * BLOCK_BYTES,
        system_reserve_bytes: 6 * BLOCK_BYTES as u64,
    }
}

/// Fill the log with reservations taken all at once, then append them page by page in any order,
/// writing as often as the chance says: the worst that a caller can do to a batch.
fn fill_and_drain(seed: u64) {
    let mut random = Random(seed);
    let mut world = World::new(options(&mut random), seed);
    let settle_percent = [0, 10, 50, 100][random.below(4) as usize];
    for _ in 0..6 {
        let mut open = Vec::new();
        loop {
            let big = u64::from(random.chance(40));
            let pages = 1 + random.below(1 + 20 * big);
            match world.begin(open.len() as u64, pages as u32, Class::Tenant) {
                Ok((transaction, entry)) => open.push((transaction, entry, 0)),
                Err(full) => {
                    assert!(full.used + full.wanted > full.capacity);
                    break;
                }
            }
        }
        assert!(!open.is_empty());
        while !open.is_empty() {
            let which = random.below(open.len() as u64) as usize;
            let (transaction, entry, index) = &mut open[which];
            if world.push(transaction, entry, *index).is_ok() {
                *index += 1;
            } else {
                world.step();
            }
            if *index == entry.pages.len() {
                let (transaction, entry, _) = open.swap_remove(which);
                world.finish(transaction, entry);
            }
            if random.chance(settle_percent) {
                world.settle();
            }
        }
        world.settle();
        assert_eq!(world.log.reserved_bytes(), 0);
        let last = world.entries.last().expect("committed").committed.last;
        assert!(world.log.durable_sequence() >= last);
        drain(&mut world);
    }
    world.recover();
}

/// The system's reserve is still there; then everything is checkpointed and the space comes back.
fn drain(world: &mut World) {
    let reserve = world.log.options().system_reserve_bytes;
    world.log.reserve(reserve, Class::System).expect("the last reserve");
    world.log.unreserve(reserve);
    world.log.set_redo_from(world.log.filling_sequence());
    world.settle();
    assert!(world.log.used_bytes() <= world.log.options().segment_bytes);
}

#[test]
fn a_reserved_append_never_fails_for_space() {
    for seed in 0..150 {
        fill_and_drain(seed);
    }
}

#[test]
fn the_default_options_hold_together() {
    let options = LogOptions::default();
    options.check();
    let usable = crate::log::space::usable_bytes(&options);
    let capacity = options.segment_bytes * u64::from(options.segment_count);
    assert!(usable > capacity / 100 * 99);
    let page = crate::log::space::page_charge(&options);
    assert!(page < BLOCK_BYTES as u64 + 80, "{page}");
}

#[test]
fn tenants_leave_the_last_reserve_alone() {
    let mut world = World::new(OPTIONS, 1);
    while world.commit(1, 1).is_ok() {
        world.settle();
    }
    let refused = world.commit(1, 1).expect_err("full");
    assert!(!refused.disk_refused);
    assert!(refused.to_string().starts_with("the commit log is full"));
    let bytes = world.log.transaction_bytes(1);
    world.log.reserve(bytes, Class::System).expect("the system may");
    world.log.unreserve(bytes);
    assert_eq!(world.log.reserved_bytes(), 0);
}

#[test]
fn pressure_names_a_sequence_that_relieves_it() {
    let mut world = World::new(OPTIONS, 2);
    assert_eq!(world.log.sequence_at_pressure(50), None);
    while world.log.used_bytes() <= world.log.capacity_bytes() * 70 / 100 {
        world.commit(1, 2).expect("room");
        world.settle();
    }
    assert_eq!(world.log.oldest_sequence(), Sequence(1));
    let from = world.log.sequence_at_pressure(50).expect("over half");
    assert!(from > Sequence(1) && from <= world.log.filling_sequence());
    world.log.set_redo_from(from);
    world.settle();
    assert_eq!(world.log.sequence_at_pressure(50), None);
    assert!(world.log.oldest_sequence() <= from);
    world.recover();
}
