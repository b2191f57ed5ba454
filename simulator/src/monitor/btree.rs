//! Just enough of SQLite's file format to read rows in page images: leaf cells and their columns.
//!
//! Written from the format's description (file format, sections 1.6 and 2.1), apart from SQLite, so
//! that an oracle needs no connection. Pure: bytes that are no such page give nothing. Only the part
//! of a payload that lies on its own page is read.

use storage::page::USABLE_BYTES;

const TABLE_LEAF: u8 = 0x0d;
const TABLE_INTERIOR: u8 = 0x05;
const INDEX_LEAF: u8 = 0x0a;

/// Levels of a tree that are followed: a tree of 2^32 pages has fewer.
const DEPTH_MAX: u32 = 16;

/// A row of a table, or an entry of an index.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// The row's id; 0 in an index.
    pub row: u64,
    payload: &'a [u8],
}

/// A column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(&'a [u8]),
    /// Anything else.
    Other,
}

impl<'a> Cell<'a> {
    /// The columns, as far as they lie on this page.
    pub fn columns(self) -> impl Iterator<Item = Value<'a>> {
        let header = varint(self.payload, 0).map_or((0, 0), |(bytes, at)| (bytes as usize, at));
        let (end, mut at, mut body) = (header.0, header.1, header.0);
        let payload = self.payload;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (serial, next) = varint(payload, at)?;
            at = next;
            let bytes = serial_bytes(serial);
            let content = payload.get(body..body.checked_add(bytes)?)?;
            body += bytes;
            Some(value(serial, content))
        })
    }
}

fn serial_bytes(serial: u64) -> usize {
    match serial {
        0 | 8..=11 => 0,
        1..=4 => serial as usize,
        5 => 6,
        6 | 7 => 8,
        _ => usize::try_from((serial - 12) / 2).unwrap_or(usize::MAX),
    }
}

fn value(serial: u64, content: &[u8]) -> Value<'_> {
    match serial {
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        1..=6 => {
            let negative = content[0] & 0x80 != 0;
            let start = if negative { -1 } else { 0 };
            let number = content.iter().fold(start, |n: i64, byte| n << 8 | i64::from(*byte));
            Value::Integer(number)
        }
        13.. if serial % 2 == 1 => Value::Text(content),
        _ => Value::Other,
    }
}

/// A number of 1 to 9 bytes at `at`, and where it ends.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for index in 0..9 {
        let byte = *bytes.get(at + index)?;
        if index == 8 {
            return Some((number << 8 | u64::from(byte), at + 9));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, at + index + 1));
        }
    }
    None
}

fn big_endian(bytes: &[u8], at: usize, count: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + count)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn header_at(number: u32) -> usize {
    if number == 1 { 100 } else { 0 }
}

/// Bytes of a payload that lie on its own page.
fn local_bytes(payload: usize, index: bool) -> usize {
    let least = (USABLE_BYTES - 12) * 32 / 255 - 23;
    let most = if index { (USABLE_BYTES - 12) * 64 / 255 - 23 } else { USABLE_BYTES - 35 };
    if payload <= most {
        return payload;
    }
    let wanted = least + (payload - least) % (USABLE_BYTES - 4);
    if wanted <= most { wanted } else { least }
}

/// Where the cells of a page begin.
fn cell_offsets(page: &[u8], header: usize, header_bytes: usize) -> Vec<usize> {
    let count = big_endian(page, header + 3, 2).unwrap_or(0);
    let offset = |index| big_endian(page, header + header_bytes + 2 * index, 2);
    (0..count).map_while(offset).collect()
}

/// The cells of a leaf, of a table or an index; none if the page is no leaf.
#[must_use]
pub fn leaf_cells(page: &[u8], number: u32) -> Vec<Cell<'_>> {
    let header = header_at(number);
    let kind = page[header];
    if !matches!(kind, TABLE_LEAF | INDEX_LEAF) {
        return Vec::new();
    }
    let cell = |at: usize| {
        let (payload, at) = varint(page, at)?;
        let (row, at) = if kind == TABLE_LEAF { varint(page, at)? } else { (0, at) };
        let bytes = local_bytes(usize::try_from(payload).ok()?, kind == INDEX_LEAF);
        Some(Cell { row, payload: page.get(at..at.checked_add(bytes)?)? })
    };
    cell_offsets(page, header, 8).into_iter().filter_map(cell).collect()
}

/// Visit all rows of the table whose root is `root`; `page` gives the pages' images. `None` if the
/// tree has a page that is none of a table.
pub fn walk<'a>(
    page: &impl Fn(u32) -> Option<&'a [u8]>,
    root: u32,
    visit: &mut impl FnMut(Cell<'a>),
) -> Option<()> {
    walk_below(page, root, DEPTH_MAX, visit)
}

fn walk_below<'a>(
    page: &impl Fn(u32) -> Option<&'a [u8]>,
    number: u32,
    depth: u32,
    visit: &mut impl FnMut(Cell<'a>),
) -> Option<()> {
    let bytes = page(number)?;
    let header = header_at(number);
    match bytes[header] {
        TABLE_LEAF => {
            leaf_cells(bytes, number).into_iter().for_each(visit);
            Some(())
        }
        TABLE_INTERIOR if depth > 0 => {
            let mut children: Vec<usize> = Vec::new();
            for at in cell_offsets(bytes, header, 12) {
                children.push(big_endian(bytes, at, 4)?);
            }
            children.push(big_endian(bytes, header + 8, 4)?);
            for child in children {
                walk_below(page, u32::try_from(child).ok()?, depth - 1, visit)?;
            }
            Some(())
        }
        _ => None,
    }
}
