//! Canaries: an oracle that is shown what cannot be must say so, and nothing else.

use super::*;

/// What a read of these transactions shows.
fn shown(model: &Model, ids: &[TransactionId]) -> BTreeMap<String, Found> {
    let one = |id: &TransactionId| {
        let shape = model.transactions[id].shape;
        let found = Found {
            rows: shape.rows,
            first: shape.first,
            last: shape.first + shape.rows - 1,
            pad_bytes: shape.rows * shape.pad_words * 8,
            intact: shape.rows,
        };
        (mark(shape.tenant, *id), found)
    };
    ids.iter().map(one).collect()
}

fn sent(model: &mut Model, tenant: usize) -> TransactionId {
    let (id, _) = model.begin(tenant, 3, 2);
    model.commit_sent(id);
    id
}

fn committed(model: &mut Model, tenant: usize) -> TransactionId {
    let id = sent(model, tenant);
    model.committed(id);
    id
}

/// Read tenant 0 now; the violated property, or `ok`.
fn read(model: &mut Model, found: &BTreeMap<String, Found>) -> &'static str {
    let asked = model.ask();
    judged(model.judge_read(0, asked, found))
}

fn judged(result: Result<(), Violation>) -> &'static str {
    result.map_or_else(|violation| violation.property, |()| "ok")
}

#[test]
fn a_lost_row_is_seen() {
    let mut model = Model::default();
    let kept = committed(&mut model, 0);
    let lost = committed(&mut model, 0);
    let both = shown(&model, &[kept, lost]);
    assert_eq!(read(&mut model, &both), "ok");
    let one = shown(&model, &[kept]);
    assert_eq!(read(&mut model, &one), "DUR-1");
}

#[test]
fn rows_from_nowhere_and_from_others_are_seen() {
    let mut model = Model::default();
    let other = committed(&mut model, 1);
    let foreign = shown(&model, &[other]);
    assert_eq!(read(&mut model, &foreign), "TEN-1");
    let invented = BTreeMap::from([("mark:tenant-0:99".to_owned(), Found::default())]);
    assert_eq!(read(&mut model, &invented), "DUR-1");
}

#[test]
fn half_a_transaction_and_an_undone_one_are_seen() {
    let mut model = Model::default();
    let id = committed(&mut model, 0);
    let mut half = shown(&model, &[id]);
    half.values_mut().for_each(|found| found.rows -= 1);
    assert_eq!(read(&mut model, &half), "ATOM-1");
    let (open, _) = model.begin(0, 1, 0);
    let early = shown(&model, &[id, open]);
    assert_eq!(read(&mut model, &early), "ATOM-1");
}

#[test]
fn an_unknown_outcome_stays_as_it_was_read() {
    for happened in [false, true] {
        let mut model = Model::default();
        let asked = model.ask();
        let id = sent(&mut model, 0);
        model.lost(id, asked);
        model.epoch += 1;
        let (there, nothing) = (shown(&model, &[id]), BTreeMap::new());
        let (first, second) = if happened { (&there, &nothing) } else { (&nothing, &there) };
        assert_eq!(read(&mut model, first), "ok");
        let expected = if happened { "DUR-1" } else { "ATOM-1" };
        assert_eq!(read(&mut model, second), expected);
    }
}

#[test]
fn what_was_dropped_stays_away_and_what_overtook_the_drop_may_stay() {
    let mut model = Model::default();
    let old = committed(&mut model, 0);
    let asked = model.ask();
    let drop = model.drop_sent(0, asked);
    let new = sent(&mut model, 0);
    model.committed(new);
    model.erased(drop);
    let late = shown(&model, &[new]);
    assert_eq!(read(&mut model, &late), "ok");
    let mut model = Model::default();
    let id = committed(&mut model, 0);
    assert_eq!(id, old);
    let asked = model.ask();
    let drop = model.drop_sent(0, asked);
    model.erased(drop);
    let back = shown(&model, &[id]);
    assert_eq!(read(&mut model, &back), "DUR-4");
}

#[test]
fn a_read_that_was_sent_before_may_show_what_another_saw_gone() {
    let mut model = Model::default();
    let id = committed(&mut model, 0);
    let early = model.ask();
    let asked = model.ask();
    let delete = model.delete_sent(id, asked);
    assert_eq!(read(&mut model, &BTreeMap::new()), "ok");
    let there = shown(&model, &[id]);
    assert_eq!(judged(model.judge_read(0, early, &there)), "ok");
    assert_eq!(judged(model.check_deleted(id, delete, 3)), "ok");
    assert_eq!(judged(model.check_deleted(id, delete, 1)), "ATOM-1");
    assert_eq!(read(&mut model, &there), "DUR-1");
}
