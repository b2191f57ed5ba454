//! The monitor's parts, each with what it must catch.

use storage::TenantId;
use storage::io::Instant;

use super::marks::{Found, Leak, Mark, MarkWatch, in_rows};
use super::pages::PageWatch;

fn mark(number: u64) -> Mark {
    Mark { owner: "tenant-3".into(), number }
}

/// A leaf of a table with one row: (7, `mark:tenant-3:17`, `0000`).
fn leaf() -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[0] = 0x0d;
    page[4] = 1;
    let text = b"mark:tenant-3:170000";
    let at = 4072 - (2 + 4 + text.len());
    page[8..10].copy_from_slice(&(at as u16).to_be_bytes());
    // Payload's length and row id; a header of 4: its length, NULL, a text of 16, a text of 4.
    let cell = [4 + text.len() as u8, 7, 4, 0, 13 + 2 * 16, 13 + 2 * 4];
    page[at..at + 6].copy_from_slice(&cell);
    page[at + 6..at + 6 + text.len()].copy_from_slice(text);
    page
}

#[test]
fn a_mark_in_a_row_ends_where_its_header_says() {
    assert_eq!(in_rows(&leaf(), 2), [mark(17)]);
    assert_eq!(in_rows(&[0; 4096], 2), []);
}

#[test]
fn a_mark_that_is_cut_off_has_no_number() {
    let numbers = |text: &str| -> Vec<String> {
        Found::in_bytes(text.as_bytes()).map(|found| found.owner.to_owned()).collect()
    };
    assert_eq!(numbers("kk mark:a:1\" mark:b:\" mark:c mark:"), ["a", "b"]);
}

#[test]
fn what_is_not_durable_may_not_leave_but_to_who_brought_it() {
    let mut marks = MarkWatch::default();
    let row = b"[\"mark:tenant-3:17\"]";
    assert!(matches!(marks.sending(1, row, Instant(5)), Some(Leak::NotDurable(_))));
    marks.asked(2, b"POST /db/tenant-3/v3/pipeline \"mark:ten");
    marks.asked(2, b"ant-3:17\"");
    assert!(marks.sending(2, row, Instant(6)).is_none());
    marks.became_durable(vec![mark(17)], Instant(7));
    assert!(marks.sending(1, row, Instant(8)).is_none());
    let stranger = marks.sending(2, b"\"mark:tenant-4:1\"", Instant(9));
    assert!(matches!(stranger, Some(Leak::Stranger(_))));
}

#[test]
fn an_answer_that_left_before_its_commit_was_durable_is_told() {
    let mut marks = MarkWatch::default();
    marks.became_durable(vec![mark(17)], Instant(7));
    assert_eq!(marks.acknowledged("mark:tenant-3:17", Instant(7)), None);
    assert_eq!(marks.acknowledged("mark:tenant-3:17", Instant(6)), Some(Some(Instant(7))));
    assert_eq!(marks.acknowledged("mark:tenant-3:18", Instant(9)), Some(None));
}

#[test]
fn the_end_of_an_answer_is_found_among_sends_that_were_short() {
    let mut marks = MarkWatch::default();
    assert!(marks.sending(1, &[b'x'; 10], Instant(1)).is_none());
    marks.sent(1, 4);
    assert!(marks.sending(1, &[b'x'; 6], Instant(2)).is_none());
    marks.sent(1, 6);
    assert!(marks.sending(1, &[b'x'; 5], Instant(3)).is_none());
    let at = |offset| marks.submitted_at(1, offset);
    assert_eq!((at(9), at(10), at(15)), (Some(Instant(1)), Some(Instant(3)), None));
}

#[test]
fn a_page_that_no_record_holds_is_told() {
    let mut pages = PageWatch::default();
    assert!(pages.file_write(TenantId(5), 0, &[0; 4096]).is_err());
    // The rest of a page, after a short count, was judged with its beginning.
    assert!(pages.file_write(TenantId(5), 100, &[0; 3996]).is_ok());
    pages.excuse(TenantId(5));
    assert!(pages.file_write(TenantId(5), 0, &[0; 4096]).is_ok());
}
