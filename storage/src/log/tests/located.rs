//! Where tracked transactions lie is where a start finds them.

use super::world::{OPTIONS, World};
use crate::identity::TenantId;
use crate::io::BLOCK_BYTES;
use crate::log::{Class, LogOptions};

/// Batches whose headers outgrow a block, so that images move while they are filled.
const LONG: LogOptions = LogOptions {
    segment_bytes: 512 * BLOCK_BYTES as u64,
    batch_bytes_max: 256 * BLOCK_BYTES,
    ..OPTIONS
};

/// Commit one tracked transaction; its number.
fn commit_tracked(world: &mut World, tenant: u64, page_count: u32) -> u64 {
    let (mut transaction, entry) = world.begin(tenant, page_count, Class::Tenant).expect("room");
    let number = world.log.track(&transaction);
    for index in 0..entry.pages.len() {
        while world.push(&mut transaction, &entry, index).is_err() {
            world.step();
        }
    }
    world.finish(transaction, entry);
    number
}

#[test]
fn a_tracked_transaction_is_found_where_a_start_finds_it() {
    let mut compared = 0;
    for (options, tenants, others) in [(OPTIONS, 3, 2), (LONG, 6, 60)] {
        for seed in 0..20 {
            let mut world = World::new(options, seed);
            let numbers: Vec<u64> = (1..=tenants)
                .map(|tenant| {
                    for other in 0..(seed * 7) % (others + 1) {
                        world.commit(100 + other, 1).expect("room");
                    }
                    commit_tracked(&mut world, tenant, 1 + (seed as u32 + tenant as u32) % 9)
                })
                .collect();
            world.settle();
            let located: Vec<_> = numbers
                .into_iter()
                .map(|number| world.log.take_located(number).expect("all is durable"))
                .collect();
            let recovered = world.recover();
            for (tenant, located) in (1..).zip(located) {
                let found = &recovered.tenants[&TenantId(tenant)];
                for (page, location) in &found.pages {
                    assert_eq!(located.get(page), Some(location), "seed {seed}, page {page}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100);
}

#[test]
fn what_is_not_sealed_or_was_abandoned_has_no_place() {
    let mut world = World::new(OPTIONS, 1);
    world.settle();
    let number = commit_tracked(&mut world, 1, 2);
    assert_eq!(world.log.take_located(number), None, "its batch is being filled");
    let (mut transaction, entry) = world.begin(2, 3, Class::Tenant).expect("room");
    let number = world.log.track(&transaction);
    world.push(&mut transaction, &entry, 0).expect("room");
    world.log.abandon(transaction);
    world.log.flush();
    world.settle();
    assert_eq!(world.log.take_located(number), None);
}
