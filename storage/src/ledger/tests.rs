//! Tests of the ledger alone; with pages in it, `pagecache_tests.rs`.

use super::*;

#[test]
fn limit_counts_all_memory_kinds_but_not_files() {
    let id = open(100, None);
    // Nothing of this is storage's own memory, so that the count of that stays what is booked.
    assert!(charge(id, Kind::Buffer, 60));
    assert!(charge(id, Kind::Stack, 40));
    assert!(!charge(id, Kind::Buffer, 1));
    assert!(charge(id, Kind::Temporary, 1000));
    assert!(charge(id, Kind::File, 1 << 50));
    assert!(charge(id, Kind::Descriptor, 3));
    assert_eq!((refused(id), memory_held(id)), (1, 100));
    assert_eq!(held(id), [0, 0, 0, 0, 0, 0, 60, 40, 1000, 1 << 50, 3]);
    assert_closed();
    for (kind, bytes) in [
        (Kind::Buffer, 60),
        (Kind::Stack, 40),
        (Kind::Temporary, 1000),
        (Kind::File, 1 << 50),
        (Kind::Descriptor, 3),
    ] {
        credit(id, kind, bytes);
    }
    close(id);
    assert_eq!(total(), [0; KINDS]);
}

#[test]
fn a_charge_must_fit_into_every_node_above() {
    set_machine_limit(1000, 0);
    let organisation = open_node(Level::Organisation, 500, None);
    let group = open_node(Level::Group, 300, Some(organisation));
    let first = open(200, Some(group));
    let second = open(200, Some(group));
    let other = open(u64::MAX, Some(organisation));
    let outside = open(u64::MAX, None);
    assert_eq!(open_accounts(), 4);
    for (id, bytes, by) in [
        (first, 201, Some((Level::Database, 200, 0))),
        (first, 200, None),
        (second, 101, Some((Level::Group, 300, 200))),
        (second, 100, None),
        (other, 201, Some((Level::Organisation, 500, 300))),
        (other, 200, None),
        (outside, 501, Some((Level::Machine, 1000, 500))),
        (outside, 500, None),
        (AccountId::STACKS, 70, None),
    ] {
        assert_eq!(charge(id, Kind::Buffer, bytes), by.is_none(), "{id:?} {bytes}");
        if let Some((level, limit, held)) = by {
            let kind = Kind::Buffer;
            let refused = last_refusal(id).expect("just refused");
            assert_eq!(refused, Refused { level, kind, limit, held, wanted: bytes });
            assert_eq!(refused.missing(), 1);
        }
        assert_closed();
    }
    assert_eq!(memory_held(organisation), 500);
    assert_eq!(memory_held(AccountId::MACHINE), 1000);
    assert_eq!(total()[Kind::Buffer as usize], 1070);
    let left = [(first, 200), (second, 100), (other, 200), (outside, 500), (AccountId::STACKS, 70)];
    for (id, bytes) in left {
        credit(id, Kind::Buffer, bytes);
        assert_closed();
    }
    for id in [first, second, other, outside, group, organisation] {
        close(id);
    }
    assert_eq!((open_accounts(), memory_held(AccountId::MACHINE)), (0, 0));
    set_machine_limit(u64::MAX, 0);
}

#[test]
fn a_database_moves_with_what_it_holds() {
    let groups = [100, 50].map(|limit| open_node(Level::Group, limit, None));
    let id = open(u64::MAX, Some(groups[0]));
    assert!(charge(id, Kind::Buffer, 80));
    set_parent(id, Some(groups[1]));
    assert_eq!(groups.map(memory_held), [0, 80]);
    assert_eq!(groups.map(databases_below), [0, 1]);
    assert_eq!(groups.map(memory_bound), [100, 80]);
    assert_closed();
    assert!(!charge(id, Kind::Buffer, 1));
    credit(id, Kind::Buffer, 31);
    assert!(charge(id, Kind::Buffer, 1));
    set_parent(id, None);
    assert_closed();
    for group in groups {
        let _ = close(group);
    }
    credit(id, Kind::Buffer, 50);
    close(id);
}

#[test]
fn a_limit_below_what_is_held_refuses_until_it_fits() {
    let id = open(100, None);
    assert!(charge(id, Kind::Buffer, 80));
    set_memory_limit(id, 50);
    assert_eq!((memory_limit(id), memory_bound(id)), (50, 80));
    assert_closed();
    assert!(!charge(id, Kind::Buffer, 1));
    credit(id, Kind::Buffer, 40);
    assert!(!charge(id, Kind::Buffer, 11));
    assert_eq!(last_refusal(id).expect("just refused").missing(), 1);
    assert!(charge(id, Kind::Buffer, 10));
    set_memory_limit(id, 60);
    assert_eq!(memory_bound(id), 60);
    credit(id, Kind::Buffer, 50);
    close(id);
}

#[test]
fn temporary_files_have_a_limit_of_their_own() {
    let id = open(0, None);
    set_temporary_limit(id, 10);
    assert!(charge(id, Kind::Temporary, 10));
    assert!(!charge(id, Kind::Temporary, 1));
    let refused = last_refusal(id).expect("just refused");
    assert_eq!((refused.kind, refused.limit, refused.held), (Kind::Temporary, 10, 10));
    set_temporary_limit(id, 5);
    credit(id, Kind::Temporary, 6);
    assert!(charge(id, Kind::Temporary, 1));
    assert!(!charge(id, Kind::Temporary, 1));
    credit(id, Kind::Temporary, 5);
    close(id);
}

#[test]
fn memory_that_nobody_booked_is_found() {
    let block = Counted::new(0_u64, 4);
    assert_eq!(unbooked(), 32);
    assert!(imbalance().expect("32 bytes too many").contains("32 bytes"));
    drop(block);
    assert_closed();
}

#[test]
fn named_accounts_have_their_names() {
    for (index, (id, name)) in AccountId::NAMED.into_iter().enumerate() {
        assert_eq!((id.index() as usize, id.name()), (index, Some(name)));
    }
    let id = open(0, None);
    assert_eq!(id.name(), None);
    close(id);
}

#[test]
#[should_panic(expected = "holding")]
fn closing_an_account_that_holds_bytes_is_a_bug() {
    let id = open(100, None);
    assert!(charge(id, Kind::Stack, 1));
    close(id);
}

#[test]
fn a_booking_gives_back_what_it_holds_wherever_that_is() {
    let id = open(100, None);
    let mut booking = Booking::on(id);
    assert!(booking.grow_to(60) && booking.grow_to(50));
    assert!(!booking.grow_to(101));
    assert_eq!((booking.bytes(), memory_held(id), refused(id)), (60, 60, 1));
    booking.shrink_to(70);
    booking.shrink_to(20);
    assert_eq!((booking.bytes(), memory_held(id)), (20, 20));
    booking.clear();
    assert_eq!(memory_held(id), 0);
    assert!(booking.grow_to(70));
    close(id);
    let next = open(100, None);
    assert_eq!(next, id, "the number is used again");
    assert_eq!((memory_held(next), memory_held(AccountId::CONNECTIONS)), (0, 70));
    assert_closed();
    drop(booking);
    assert_eq!(memory_held(AccountId::CONNECTIONS), 0);
    drop(Booking::on(next));
    close(next);
    assert_closed();
}

#[test]
#[should_panic(expected = "below it")]
fn closing_a_group_with_an_open_database_is_a_bug() {
    let group = open_node(Level::Group, 100, None);
    let _database = open(100, Some(group));
    close(group);
}

#[test]
fn the_last_of_the_machine_is_for_those_who_hold_little() {
    let (small, mebibyte) = (crate::limits::SMALL_MEMORY_BYTES, 1 << 20);
    set_machine_limit(20 * mebibyte, 2 * mebibyte);
    let large = open(u64::MAX, None);
    let little = open(u64::MAX, None);
    assert!(charge(large, Kind::Buffer, 18 * mebibyte));
    assert!(!charge(large, Kind::Buffer, 1));
    let refusal = last_refusal(large).expect("it was refused just now");
    assert_eq!((refusal.level, refusal.limit), (Level::Machine, 18 * mebibyte));
    assert!(charge(little, Kind::Buffer, small));
    assert!(!charge(little, Kind::Buffer, 1), "it is not small any more");
    let others = open(u64::MAX, None);
    assert!(charge(others, Kind::Buffer, 2 * mebibyte - small));
    let last = open(u64::MAX, None);
    assert!(!charge(last, Kind::Buffer, 1), "everything is used up");
    assert_closed();
    credit(large, Kind::Buffer, 18 * mebibyte);
    credit(little, Kind::Buffer, small);
    credit(others, Kind::Buffer, 2 * mebibyte - small);
    for id in [large, little, others, last] {
        close(id);
    }
    set_machine_limit(u64::MAX, 0);
}
