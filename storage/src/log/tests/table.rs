//! Every row of the decision table with real bytes, and rot wherever it can strike.

use super::device::{Device, Random};
use super::world::{OPTIONS, World, scan};
use crate::identity::TenantId;
use crate::io::BLOCK_BYTES;
use crate::log::limits::{RING_SLOTS_OFFSET, SLOT_BYTES};
use crate::log::{
    Action, BatchState, CopyState, LogFile, Recovered, RecoveryError, Sequence, SuccessorState,
    decide,
};

const BLOCK: u64 = BLOCK_BYTES as u64;
const SEGMENT: LogFile = LogFile::Segment(0);

/// Batches 1 to 4 in segment 0, three blocks each: a header, a page of tenant 1, one of tenant 2.
/// Each batch writes its own page numbers: nothing is superseded.
fn world() -> World {
    let mut world = World::new(OPTIONS, 42);
    for number in 1..=4 {
        world.commit_page(1, number);
        world.commit_page(2, number);
        world.settle();
    }
    assert_eq!(world.log.durable_sequence(), Sequence(4));
    world
}

fn batch_offset(sequence: u64) -> u64 {
    (sequence - 1) * 3 * BLOCK
}

fn slot_offset(sequence: u64) -> u64 {
    RING_SLOTS_OFFSET as u64 + sequence * SLOT_BYTES as u64
}

fn run(device: &mut Device) -> Result<Recovered, RecoveryError> {
    scan(OPTIONS, device, &mut Random(0))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wound {
    None,
    Header,
    Page,
    HeaderAndPage,
    ZeroHeader,
    ZeroAll,
}

impl Wound {
    fn state(self) -> BatchState {
        match self {
            Wound::None => BatchState::Good,
            Wound::Header | Wound::Page | Wound::HeaderAndPage => BatchState::Bad,
            Wound::ZeroHeader | Wound::ZeroAll => BatchState::Absent,
        }
    }

    fn inflict(self, device: &mut Device, sequence: u64) {
        let start = batch_offset(sequence);
        match self {
            Wound::None => {}
            Wound::Header => device.rot(SEGMENT, start + 200),
            Wound::Page => device.rot(SEGMENT, start + BLOCK + 99),
            Wound::HeaderAndPage => {
                device.rot(SEGMENT, start + 200);
                device.rot(SEGMENT, start + BLOCK + 99);
            }
            Wound::ZeroHeader => device.zero(SEGMENT, start),
            Wound::ZeroAll => (0..3).for_each(|block| device.zero(SEGMENT, start + block * BLOCK)),
        }
    }

    /// Tenants whose page of this batch is gone.
    fn hurt(self) -> &'static [u64] {
        match self {
            Wound::None | Wound::Header | Wound::ZeroHeader => &[],
            Wound::Page | Wound::HeaderAndPage => &[1],
            Wound::ZeroAll => &[1, 2],
        }
    }
}

fn set_copy(device: &mut Device, sequence: u64, state: CopyState) {
    let start = slot_offset(sequence);
    match state {
        CopyState::Good => {}
        CopyState::Bad => {
            device.rot(LogFile::Ring, start + 300);
            device.rot(LogFile::Ring, start + BLOCK + 300);
        }
        CopyState::Absent => {
            device.zero(LogFile::Ring, start);
            device.zero(LogFile::Ring, start + BLOCK);
        }
    }
}

/// The table, row by row, as the plan wrote it down (but for its last row).
const ROWS: [(BatchState, CopyState, SuccessorState, Action); 18] = {
    use BatchState as B;
    use CopyState as C;
    use SuccessorState as S;
    [
        (B::Good, C::Good, S::Good, Action::Accept),
        (B::Good, C::Good, S::Absent, Action::Accept),
        (B::Good, C::Bad, S::Good, Action::Accept),
        (B::Good, C::Bad, S::Absent, Action::Accept),
        (B::Good, C::Absent, S::Good, Action::Accept),
        (B::Good, C::Absent, S::Absent, Action::Accept),
        (B::Bad, C::Good, S::Good, Action::FromCopy),
        (B::Bad, C::Good, S::Absent, Action::FromCopy),
        (B::Bad, C::Bad, S::Good, Action::FromHeader),
        (B::Bad, C::Bad, S::Absent, Action::FromHeader),
        (B::Bad, C::Absent, S::Good, Action::FromHeader),
        (B::Bad, C::Absent, S::Absent, Action::Truncate),
        (B::Absent, C::Good, S::Good, Action::FromCopy),
        (B::Absent, C::Good, S::Absent, Action::FromCopy),
        (B::Absent, C::Bad, S::Good, Action::Stop),
        (B::Absent, C::Bad, S::Absent, Action::Stop),
        (B::Absent, C::Absent, S::Good, Action::Stop),
        (B::Absent, C::Absent, S::Absent, Action::End),
    ]
};

/// Carry out one row with one wound and judge the outcome.
fn check_row(wound: Wound, copy: CopyState, successor: SuccessorState, action: Action) {
    let world = world();
    let mut device = world.device.clone();
    let sequence = if successor == SuccessorState::Good { 3 } else { 4 };
    wound.inflict(&mut device, sequence);
    set_copy(&mut device, sequence, copy);
    let before = device.files.clone();
    let result = run(&mut device);
    let own_header = matches!(wound, Wound::None | Wound::Page);
    let hurt: Vec<TenantId> = wound.hurt().iter().map(|tenant| TenantId(*tenant)).collect();
    let context = format!("{wound:?} {copy:?} {successor:?}: {action:?}");
    let stops = action == Action::Stop || action == Action::FromHeader && !own_header;
    if stops {
        let Err(RecoveryError::Unreadable { sequence: Some(found), .. }) = &result else {
            panic!("{context}: {result:?}");
        };
        assert_eq!(found.0, sequence, "{context}");
        assert!(result.expect_err("stopped").to_string().contains("segment-000"));
        assert_eq!(device.files, before, "{context}: a refused start changes nothing");
        return;
    }
    let recovered = result.expect(&context);
    let next = recovered.log.filling_sequence();
    if matches!(action, Action::Truncate | Action::End) {
        assert_eq!(next, Sequence(sequence), "{context}");
        assert!(recovered.damaged.is_empty(), "{context}");
        assert_eq!(recovered.torn.is_some(), action == Action::Truncate, "{context}");
    } else {
        assert_eq!(next, Sequence(5), "{context}");
        let damaged: Vec<TenantId> = recovered.damaged.iter().map(|one| one.tenant).collect();
        assert_eq!(damaged, hurt, "{context}");
        assert!(hurt.iter().all(|tenant| recovered.tenants[tenant].pages.is_empty()));
        assert_eq!(recovered.torn, None, "{context}");
    }
    let again = run(&mut device).expect("twice");
    assert_eq!(again.tenants, recovered.tenants, "{context}");
    assert_eq!(again.damaged, recovered.damaged, "{context}");
    assert_eq!(again.repaired, 0, "{context}");
}

#[test]
fn every_row_with_real_bytes() {
    let wounds = [
        Wound::None,
        Wound::Header,
        Wound::Page,
        Wound::HeaderAndPage,
        Wound::ZeroHeader,
        Wound::ZeroAll,
    ];
    for (batch, copy, successor, action) in ROWS {
        assert_eq!(decide(batch, copy, successor), action);
        let mut tried = 0;
        for wound in wounds.into_iter().filter(|wound| wound.state() == batch) {
            check_row(wound, copy, successor, action);
            tried += 1;
        }
        assert!(tried > 0);
    }
}

/// Compare with the undamaged outcome: tenants outside `damaged` must be whole.
fn others_are_whole(whole: &Recovered, hurt: &Recovered) {
    assert_eq!(whole.log.filling_sequence(), hurt.log.filling_sequence());
    let damaged: Vec<TenantId> = hurt.damaged.iter().map(|damage| damage.tenant).collect();
    for (tenant, recovered) in &whole.tenants {
        if !damaged.contains(tenant) {
            assert_eq!(recovered, &hurt.tenants[tenant]);
        }
    }
}

#[test]
fn one_rotten_or_unreadable_block_hurts_at_most_its_owner() {
    let world = world();
    let whole = run(&mut world.device.clone()).expect("whole");
    let segment_blocks = (0..24).map(|block| (SEGMENT, block));
    let ring_blocks = (0..100).map(|block| (LogFile::Ring, block));
    let mut fenced = 0;
    for (file, block) in segment_blocks.chain(ring_blocks) {
        for fault in 0..4 {
            let mut device = world.device.clone();
            match fault {
                0 => device.rot(file, block * BLOCK + 130),
                1 => device.zero(file, block * BLOCK),
                2 => device.write(file, block * BLOCK, &[0xff; BLOCK_BYTES]),
                _ => {
                    device.unreadable.insert((file, block));
                }
            }
            let hurt = run(&mut device).expect("nobody else is hurt");
            others_are_whole(&whole, &hurt);
            assert!(hurt.damaged.len() <= 1);
            fenced += hurt.damaged.len();
            assert_eq!(hurt.unreadable_blocks > 0, fault == 3 && device.reads > 0);
        }
    }
    assert!(fenced > 8, "{fenced}");
}

#[test]
fn bad_ring_slots_do_not_stay() {
    let mut world = world();
    set_copy(&mut world.device, 4, CopyState::Bad);
    for block in 0..2 {
        let offset = slot_offset(6) + block * BLOCK;
        world.device.write(LogFile::Ring, offset, &[0x5a; BLOCK_BYTES]);
    }
    let recovered = run(&mut world.device).expect("no batch needs them");
    assert_eq!(recovered.repaired, 2);
    // The last batch's copy is back, so its header may rot now.
    Wound::ZeroHeader.inflict(&mut world.device, 4);
    let mut recovered = run(&mut world.device).expect("the copy decides");
    assert!(recovered.damaged.is_empty());
    assert_eq!(recovered.repaired, 1);
    // Slot 6 is as new, so a batch 6 that never came is the log's end.
    std::mem::swap(&mut world.log, &mut recovered.log);
    world.commit_page(1, 5);
    world.settle();
    let recovered = run(&mut world.device).expect("the end of the log");
    assert_eq!(recovered.log.filling_sequence(), Sequence(6));
}

#[test]
fn superseded_damage_is_nobodys() {
    for wounded in [vec![1], vec![2], vec![1, 2, 3]] {
        let mut world = world();
        world.log.set_redo_from(Sequence(5));
        world.commit(1, 1).expect("room");
        world.settle();
        let mut device = world.device.clone();
        for sequence in &wounded {
            Wound::HeaderAndPage.inflict(&mut device, *sequence);
            set_copy(&mut device, *sequence, CopyState::Absent);
        }
        let recovered = run(&mut device).expect("superseded");
        assert!(recovered.damaged.is_empty(), "{wounded:?}");
        assert_eq!(recovered.log.filling_sequence(), Sequence(6));
        assert_eq!(recovered.tenants.len(), 1);
        assert_eq!(recovered.tenants[&TenantId(1)].first_sequence, Sequence(5));
    }
}

#[test]
fn the_oldest_header_lost_while_needed_is_a_stop() {
    let mut world = World::new(OPTIONS, 43);
    for _ in 0..30 {
        world.commit(1, 1).expect("room");
        world.settle();
        let next = world.log.filling_sequence();
        world.log.set_redo_from(Sequence(next.0.saturating_sub(25).max(1)));
    }
    // Too old for the ring, and still needed: batch 6 onwards.
    let mut device = world.device.clone();
    let oldest = world.log.oldest_sequence();
    assert_eq!(oldest, Sequence(1));
    device.rot(SEGMENT, 6 * 2 * BLOCK + 50);
    let error = run(&mut device).expect_err("needed");
    assert!(matches!(error, RecoveryError::Unreadable { sequence: Some(Sequence(7)), .. }));
}

#[test]
fn a_log_grows_on_after_repairs() {
    for wound in [Wound::Header, Wound::Page, Wound::ZeroAll] {
        let mut world = world();
        wound.inflict(&mut world.device, 4);
        let mut recovered = run(&mut world.device).expect("the copy decides");
        std::mem::swap(&mut world.log, &mut recovered.log);
        for _ in 0..25 {
            world.commit(3, 1).expect("room");
            world.settle();
            world.log.set_redo_from(Sequence(world.log.filling_sequence().0.min(4)));
        }
        let again = run(&mut world.device).expect("long after the ring forgot batch 4");
        let damaged: Vec<u64> = again.damaged.iter().map(|damage| damage.tenant.0).collect();
        assert_eq!(damaged, wound.hurt());
        assert_eq!(again.tenants[&TenantId(3)].last_txid, 25);
    }
}
