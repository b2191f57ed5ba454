//! Canaries: an oracle that is shown what cannot be must say so, and nothing else.

use super::super::journal::{ACCOUNTS, BALANCE, Transfer};
use super::*;

/// A model of one tenant whose tables are made, by transaction 0.
fn fresh() -> Model {
    let mut model = Model::default();
    setup(&mut model, 0);
    model
}

fn setup(model: &mut Model, tenant: usize) -> TransactionId {
    let id = model.begin(tenant, Change::Setup);
    model.commit_sent(id);
    model.committed(id, None, None).expect("nothing is wrong");
    id
}

/// What the simplest database shows that took these transactions in this order.
fn shown(model: &Model, ids: &[TransactionId]) -> Snapshot {
    let mut journal = Journal::default();
    for (n, id) in (0..).zip(ids) {
        journal.place(n, *id);
        journal.apply(*id, 0, model.transactions[id].change);
    }
    let state = journal.state(journal.len() - 1);
    let tenant = |id: &TransactionId| model.transactions[id].tenant;
    Snapshot {
        journal: (0..).zip(ids.iter().map(|id| mark(tenant(id), *id))).collect(),
        marks: state
            .rows
            .iter()
            .map(|(id, found)| (mark(tenant(id), *id), found.clone()))
            .collect(),
        balances: state.balances.to_vec(),
        extra_table: state.extras.table.map(|id| id.0),
        extra_index: state.extras.index,
    }
}

fn insert(model: &mut Model, tenant: usize) -> TransactionId {
    let shape = model.shape(3, 2);
    model.begin(tenant, Change::Insert(shape))
}

fn sent(model: &mut Model, tenant: usize) -> TransactionId {
    let id = insert(model, tenant);
    model.commit_sent(id);
    id
}

fn committed(model: &mut Model, tenant: usize) -> TransactionId {
    let id = sent(model, tenant);
    model.committed(id, None, None).expect("nothing is wrong");
    id
}

fn commit(model: &mut Model, change: Change) -> TransactionId {
    let id = model.begin(0, change);
    model.commit_sent(id);
    model.committed(id, None, None).expect("nothing is wrong");
    id
}

/// Read tenant 0 now; the violated property, or `ok`.
fn read(model: &mut Model, found: &Snapshot) -> &'static str {
    let asked = model.ask();
    judged(model.judge_read(0, asked, 0, Some(found)))
}

fn read_nothing(model: &mut Model) -> &'static str {
    let asked = model.ask();
    judged(model.judge_read(0, asked, 0, None))
}

fn judged(result: Result<(), Violation>) -> &'static str {
    result.map_or_else(|violation| violation.property, |()| "ok")
}

fn deleted_rows(model: &Model, id: TransactionId) -> Found {
    match model.transactions[&id].change {
        Change::Insert(shape) => shape.found(),
        other => unreachable!("{other:?} has no rows"),
    }
}

const BEGIN: TransactionId = TransactionId(0);

#[test]
fn a_lost_transaction_is_seen() {
    let mut model = fresh();
    let kept = committed(&mut model, 0);
    let lost = committed(&mut model, 0);
    let both = shown(&model, &[BEGIN, kept, lost]);
    let one = shown(&model, &[BEGIN, kept]);
    let mut unread = fresh();
    let never_read = committed(&mut unread, 0);
    assert_eq!(never_read, kept);
    assert_eq!(read(&mut model, &both), "ok");
    assert_eq!(read(&mut model, &one), "DUR-1");
    let empty = shown(&unread, &[BEGIN]);
    assert_eq!(read(&mut unread, &empty), "DUR-1");
    assert_eq!(read_nothing(&mut model), "DUR-1");
}

#[test]
fn a_read_without_tables_after_they_were_made_is_seen() {
    let mut model = fresh();
    assert_eq!(read_nothing(&mut model), "DUR-1");
}

#[test]
fn rows_from_nowhere_and_from_others_are_seen() {
    let mut model = fresh();
    let other = committed(&mut model, 1);
    let mut foreign = shown(&model, &[BEGIN]);
    foreign.marks.insert(mark(1, other), Found::default());
    assert_eq!(read(&mut model, &foreign), "TEN-1");
    let mut invented = shown(&model, &[BEGIN]);
    invented.marks.insert("mark:tenant-0:99".to_owned(), Found::default());
    assert_eq!(read(&mut model, &invented), "DUR-1");
}

#[test]
fn a_dirty_read_is_seen() {
    let mut model = fresh();
    let open = insert(&mut model, 0);
    let dirty = shown(&model, &[BEGIN, open]);
    assert_eq!(read(&mut model, &dirty), "ATOM-1");
    let refused = sent(&mut model, 0);
    model.refused(refused).expect("nobody saw it");
    let undone = shown(&model, &[BEGIN, refused]);
    assert_eq!(read(&mut model, &undone), "ATOM-1");
}

#[test]
fn half_a_transaction_is_seen() {
    let mut model = fresh();
    let id = committed(&mut model, 0);
    let mut fewer = shown(&model, &[BEGIN, id]);
    fewer.marks.values_mut().for_each(|found| found.rows -= 1);
    assert_eq!(read(&mut model, &fewer), "ATOM-1");
    let mut none = shown(&model, &[BEGIN, id]);
    none.marks.clear();
    assert_eq!(read(&mut model, &none), "ATOM-1");
}

#[test]
fn a_phantom_row_is_seen() {
    let mut model = fresh();
    let (first, second) = (committed(&mut model, 0), sent(&mut model, 0));
    let mut phantom = shown(&model, &[BEGIN, first]);
    phantom.marks = shown(&model, &[BEGIN, first, second]).marks;
    assert_eq!(read(&mut model, &phantom), "ISO-1");
}

#[test]
fn a_lost_update_is_seen() {
    let mut model = fresh();
    let transfer = |amount| Change::Transfer(Transfer { source: 0, target: 1, amount });
    let (first, second) = (commit(&mut model, transfer(7)), commit(&mut model, transfer(5)));
    let right = shown(&model, &[BEGIN, first, second]);
    assert_eq!(right.balances, [BALANCE - 12, BALANCE + 12, BALANCE, BALANCE][..ACCOUNTS]);
    assert_eq!(read(&mut model, &right), "ok");
    let mut lost = right;
    lost.balances = vec![BALANCE - 5, BALANCE + 5, BALANCE, BALANCE];
    assert_eq!(read(&mut model, &lost), "ISO-1");
}

#[test]
fn write_skew_is_seen() {
    // Each of two deletes its own victim, and a serial order would let both be gone: here the
    // second to commit shows what it should have deleted.
    let mut model = fresh();
    let (one, other) = (committed(&mut model, 0), committed(&mut model, 0));
    let first = commit(&mut model, Change::Delete(one));
    let second = commit(&mut model, Change::Delete(other));
    let mut skewed = shown(&model, &[BEGIN, one, other, first, second]);
    skewed.marks.insert(mark(0, one), deleted_rows(&model, one));
    assert_eq!(read(&mut model, &skewed), "ISO-1");
}

#[test]
fn a_stale_read_is_seen_and_a_concurrent_one_is_not() {
    let mut model = fresh();
    let first = committed(&mut model, 0);
    let early = model.ask();
    let second = committed(&mut model, 0);
    let new = shown(&model, &[BEGIN, first, second]);
    let old = shown(&model, &[BEGIN, first]);
    assert_eq!(read(&mut model, &new), "ok");
    assert_eq!(judged(model.judge_read(0, early, 0, Some(&old))), "ok");
    assert_eq!(read(&mut model, &old), "DUR-1");
}

#[test]
fn an_order_against_real_time_is_seen() {
    let mut model = fresh();
    let first = committed(&mut model, 0);
    let second = committed(&mut model, 0);
    let turned = shown(&model, &[BEGIN, second, first]);
    assert_eq!(read(&mut model, &turned), "ISO-1");
    let mut model = fresh();
    let (first, second) = (sent(&mut model, 0), sent(&mut model, 0));
    let turned = shown(&model, &[BEGIN, second, first]);
    assert_eq!(read(&mut model, &turned), "ok");
}

#[test]
fn a_gap_and_another_order_are_seen() {
    let mut model = fresh();
    let (first, second) = (sent(&mut model, 0), sent(&mut model, 0));
    let mut gap = shown(&model, &[BEGIN, first, second]);
    gap.journal.remove(&1);
    assert_eq!(read(&mut model, &gap), "ISO-1");
    let early = model.ask();
    let one = shown(&model, &[BEGIN, first, second]);
    assert_eq!(read(&mut model, &one), "ok");
    let other = shown(&model, &[BEGIN, second, first]);
    assert_eq!(judged(model.judge_read(0, early, 0, Some(&other))), "ISO-1");
    assert_eq!(read(&mut model, &other), "DUR-1");
}

#[test]
fn a_number_that_another_has_is_seen() {
    let mut model = fresh();
    let begin = mark(0, BEGIN);
    let (first, second) = (sent(&mut model, 0), sent(&mut model, 0));
    model.committed(first, Some((&begin, 1)), None).expect("the first");
    let twice = model.committed(second, Some((&begin, 1)), None);
    assert_eq!(judged(twice), "ISO-1");
}

#[test]
fn a_wrong_count_of_deleted_rows_is_seen() {
    for (affected, expected) in [(3, "ok"), (0, "ATOM-1"), (2, "ATOM-1")] {
        let mut model = fresh();
        let begin = mark(0, BEGIN);
        let victim = committed(&mut model, 0);
        let there = shown(&model, &[BEGIN, victim]);
        assert_eq!(read(&mut model, &there), "ok");
        let delete = model.begin(0, Change::Delete(victim));
        model.commit_sent(delete);
        let place = Some((begin.as_str(), 2));
        assert_eq!(judged(model.committed(delete, place, Some(affected))), expected);
    }
}

#[test]
fn a_schema_of_the_past_is_seen() {
    let mut model = fresh();
    let first = commit(&mut model, Change::Schema { index: true });
    let second = commit(&mut model, Change::Schema { index: false });
    let mut old = shown(&model, &[BEGIN, first, second]);
    assert_eq!(read(&mut model, &old), "ok");
    old.extra_table = Some(first.0);
    assert_eq!(read(&mut model, &old), "ISO-1");
}

#[test]
fn a_wrong_count_of_one_transactions_rows_is_seen() {
    let mut model = fresh();
    let id = committed(&mut model, 0);
    let there = shown(&model, &[BEGIN, id]);
    assert_eq!(read(&mut model, &there), "ok");
    let begin = mark(0, BEGIN);
    for (last, rows, expected) in [(1, 3, "ok"), (1, 0, "ISO-1"), (0, 0, "DUR-1")] {
        let asked = model.ask();
        let point = model.judge_point(0, asked, (&begin, last), (id, rows));
        assert_eq!(judged(point), expected);
    }
}

#[test]
fn an_unknown_outcome_stays_as_it_was_read() {
    for happened in [false, true] {
        let mut model = fresh();
        let asked = model.ask();
        let id = sent(&mut model, 0);
        model.lost(id, asked);
        model.epoch += 1;
        let (there, nothing) = (shown(&model, &[BEGIN, id]), shown(&model, &[BEGIN]));
        let (first, second) = if happened { (&there, &nothing) } else { (&nothing, &there) };
        assert_eq!(read(&mut model, first), "ok");
        let expected = if happened { "DUR-1" } else { "ATOM-1" };
        assert_eq!(read(&mut model, second), expected);
    }
}

#[test]
fn what_was_dropped_stays_away_and_what_overtook_the_drop_may_stay() {
    let mut model = fresh();
    let old = committed(&mut model, 0);
    let before = shown(&model, &[BEGIN, old]);
    assert_eq!(read(&mut model, &before), "ok");
    let asked = model.ask();
    let drop = model.drop_sent(0, asked);
    let again = setup(&mut model, 0);
    let new = committed(&mut model, 0);
    model.dropped(drop);
    let after = shown(&model, &[again, new]);
    assert_eq!(read(&mut model, &after), "ok");
    assert_eq!(read(&mut model, &before), "DUR-4");
    assert_eq!(read_nothing(&mut model), "DUR-1");
}

#[test]
fn a_drop_that_nobody_answered_may_have_happened() {
    for there in [false, true] {
        let mut model = fresh();
        let id = committed(&mut model, 0);
        let before = shown(&model, &[BEGIN, id]);
        assert_eq!(read(&mut model, &before), "ok");
        let asked = model.ask();
        let drop = model.drop_sent(0, asked);
        model.drop_lost(drop, asked);
        model.epoch += 1;
        if there {
            assert_eq!(read(&mut model, &before), "ok");
            assert_eq!(read_nothing(&mut model), "DUR-1");
        } else {
            assert_eq!(read_nothing(&mut model), "ok");
            assert_eq!(read(&mut model, &before), "DUR-4");
        }
    }
}
