//! Crashes at every place: torn writes, interrupted recoveries, and long seeded lives with both.

use super::device::{Device, Random};
use super::world::{Entry, OPTIONS, World, scan};
use crate::io::BLOCK_BYTES;
use crate::log::{Class, LogOptions, Scan, Sequence, Transaction};

/// A world with a batch of several tenants in flight, in a log that went round or did not.
fn with_batch_in_flight(seed: u64, rounds: u64) -> World {
    let mut world = World::new(OPTIONS, seed);
    for round in 0..rounds {
        world.commit(round % 3, 1 + (round % 5) as u32).expect("room");
        world.settle();
        if round % 4 == 3 {
            world.log.set_redo_from(world.log.filling_sequence());
        }
    }
    world.settle();
    for tenant in 10..14 {
        world.commit(tenant, 1).expect("room");
    }
    world.log.flush();
    world.collect();
    assert!(world.batch_in_flight().is_some());
    world
}

#[test]
fn a_batch_torn_anywhere_is_all_or_nothing() {
    for rounds in [0, 3, 60, 61, 62, 63] {
        let world = with_batch_in_flight(rounds, rounds);
        let durable = world.log.durable_sequence();
        let blocks = world.batch_in_flight().expect("in flight").len() / BLOCK_BYTES;
        assert!((2..12).contains(&blocks));
        let mut complete = 0;
        for mask in 0..1_u32 << blocks {
            let mut device = world.device.clone();
            for request in &world.in_flight {
                device.tear(request, BLOCK_BYTES, |block| mask >> block & 1 == 1);
            }
            let recovered =
                scan(OPTIONS, &mut device, &mut Random(0)).expect("a crash does no damage");
            let mut judge = World::new(OPTIONS, 0);
            judge.device = device;
            judge.entries.clone_from(&world.entries);
            judge.check(&recovered, durable);
            let torn = mask & 1 == 1 && mask + 1 != 1 << blocks;
            assert_eq!(recovered.torn.is_some(), torn, "{mask:b}");
            complete += u32::from(recovered.log.filling_sequence() > durable.next());
        }
        assert_eq!(complete, 1, "only the whole batch counts");
    }
}

#[test]
fn a_batch_torn_at_any_sector_is_all_or_nothing() {
    let mut random = Random(77);
    for round in 0..200 {
        let mut world = with_batch_in_flight(round, round % 70);
        let keep = random.below(101);
        world.crash(keep);
        world.recover();
        world.commit(1, 2).expect("room");
        world.settle();
        world.recover();
    }
}

/// Recover a copy of the disk with a crash at request `stop`, then to the end.
fn interrupted(
    device: &Device,
    options: LogOptions,
    stop: u64,
    random: &mut Random,
) -> Option<u64> {
    let mut device = device.clone();
    let whole = scan(options, &mut device.clone(), random).expect("damage-free");
    let mut scan_one = Scan::new(options);
    let mut count = 0;
    while let Some(request) = scan_one.next_request() {
        if count == stop {
            device.tear(&request, 512, |_| random.chance(50));
            let again = scan(options, &mut device, random).expect("damage-free");
            assert_eq!(again.tenants, whole.tenants);
            assert_eq!(again.log.filling_sequence(), whole.log.filling_sequence());
            return None;
        }
        let (id, reply) = device.carry_out(request, random);
        scan_one.complete(id, reply);
        count += 1;
    }
    Some(count)
}

#[test]
fn recovery_interrupted_at_every_request_recovers_the_same() {
    for seed in 0..12 {
        let mut world = with_batch_in_flight(seed, seed * 9);
        world.crash(60);
        let mut random = Random(seed);
        let mut stop = 0;
        while interrupted(&world.device, OPTIONS, stop, &mut random).is_none() {
            stop += 1;
        }
        assert!(stop > 8);
    }
}

#[test]
fn a_first_start_interrupted_at_every_request_starts_fresh() {
    let mut random = Random(3);
    let mut stop = 0;
    while interrupted(&Device::default(), OPTIONS, stop, &mut random).is_none() {
        stop += 1;
    }
    assert!(stop > 8);
}

/// A long life: interleaved transactions, trims, abandons, crashes.
fn live(seed: u64, steps: u32) -> (u32, u32) {
    let mut options = OPTIONS;
    let mut random = Random(seed ^ 0xabcdef);
    options.segment_bytes = (20 + random.below(20)) * BLOCK_BYTES as u64;
    options.batch_bytes_max = (4 + random.below(12) as usize) * BLOCK_BYTES;
    options.segment_count = 4 + random.below(3) as u32;
    let mut world = World::new(options, seed);
    world.device.short_percent = if random.chance(50) { 10 } else { 0 };
    let mut open: Vec<(Transaction, Entry, usize)> = Vec::new();
    let (mut crashes, mut torn) = (0, 0);
    for _ in 0..steps {
        match random.below(100) {
            0..20 => begin(&mut world, &mut random, &mut open),
            20..60 => push(&mut world, &mut random, &mut open),
            60..75 => world.log.flush(),
            75..92 => {
                world.collect();
                if !world.in_flight.is_empty() {
                    let index = random.below(world.in_flight.len() as u64) as usize;
                    world.complete(index);
                }
            }
            92..96 => {
                let next = world.log.filling_sequence();
                let back = random.below(4).min(next.0 - 1);
                world.log.set_redo_from(Sequence(next.0 - back));
            }
            96 => {
                if let Some((transaction, _, _)) = open.pop() {
                    world.log.abandon(transaction);
                }
            }
            97 if random.chance(20) => {
                open.clear();
                world.crash([0, 20, 50, 80, 100][random.below(5) as usize]);
                torn += u32::from(world.recover().torn.is_some());
                crashes += 1;
            }
            _ => {}
        }
        assert_eq!(world.log.failed(), None);
        assert!(world.log.used_bytes() <= world.log.capacity_bytes());
    }
    for (transaction, _, _) in open {
        world.log.abandon(transaction);
    }
    world.settle();
    assert_eq!(world.log.reserved_bytes(), 0);
    world.recover();
    (crashes, torn)
}

fn begin(world: &mut World, random: &mut Random, open: &mut Vec<(Transaction, Entry, usize)>) {
    let tenant = random.below(6);
    let count = 1 + if random.chance(10) { random.below(30) } else { random.below(4) };
    if open.iter().any(|(_, entry, _)| entry.tenant.0 == tenant) {
        return;
    }
    if let Ok((transaction, entry)) = world.begin(tenant, count as u32, Class::Tenant) {
        open.push((transaction, entry, 0));
    }
}

fn push(world: &mut World, random: &mut Random, open: &mut Vec<(Transaction, Entry, usize)>) {
    if open.is_empty() {
        return;
    }
    let which = random.below(open.len() as u64) as usize;
    let (transaction, entry, index) = &mut open[which];
    while *index < entry.pages.len() && world.push(transaction, entry, *index).is_ok() {
        *index += 1;
        if random.chance(30) {
            break;
        }
    }
    if *index == entry.pages.len() {
        let (transaction, entry, _) = open.swap_remove(which);
        world.finish(transaction, entry);
    }
}

#[test]
fn long_lives_lose_nothing_that_was_durable() {
    let (mut crashes, mut torn) = (0, 0);
    for seed in 0..60 {
        let (more_crashes, more_torn) = live(seed, 3_000);
        crashes += more_crashes;
        torn += more_torn;
    }
    assert!(crashes > 200, "{crashes}");
    assert!(torn > 20, "{torn}");
}
