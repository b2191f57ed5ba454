//! SQLite files and SQL text with drawn rows, written by hand: the world's own SQLite is the server's.
//!
//! A file has pages of 4096 bytes: page 1 with the schema, then the leaves of one table, and a page
//! above them if they are several (SQLite's file format, sections 1.3, 1.6 and 2.1).

const PAGE_BYTES: usize = 4096;

/// The one table of an upload.
const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY, v TEXT)";

/// The rows of upload number `serial`: so many, their text of so many bytes or a few more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    pub serial: u64,
    pub rows: u64,
    pub text_bytes: u64,
}

impl Contents {
    fn text(&self, row: u64) -> String {
        let start = format!("{}-{row}-", self.serial);
        let fill = "abcdefghij".bytes().cycle().take((self.text_bytes + row % 7) as usize);
        start + &String::from_utf8(fill.collect()).expect("letters")
    }

    /// What `SELECT count(*), sum(n), sum(length(v)) FROM t` says of them.
    pub fn sums(&self) -> [u64; 3] {
        let rows = 1..=self.rows;
        [self.rows, rows.clone().sum(), rows.map(|row| self.text(row).len() as u64).sum()]
    }

    /// As SQL text.
    pub fn sql(&self) -> String {
        let mut sql = format!("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n{TABLE};\n");
        for row in 1..=self.rows {
            sql += &format!("INSERT INTO t VALUES({row},'{}');\n", self.text(row));
        }
        sql + &format!("PRAGMA user_version={};\nCOMMIT;\n", self.serial)
    }

    /// As a file.
    pub fn file(&self) -> Vec<u8> {
        let mut leaves: Vec<(u64, Vec<Vec<u8>>)> = Vec::new();
        let mut free = 0;
        for row in 1..=self.rows {
            let cell = cell(row, &[Value::Null, Value::Text(&self.text(row))]);
            if free < cell.len() + 2 {
                leaves.push((row, Vec::new()));
                free = PAGE_BYTES - 8;
            }
            free -= cell.len() + 2;
            let leaf = leaves.last_mut().expect("pushed just now");
            leaf.0 = row;
            leaf.1.push(cell);
        }
        if leaves.is_empty() {
            leaves.push((0, Vec::new()));
        }
        let single = leaves.len() == 1;
        let first_leaf = if single { 2 } else { 3 };
        let mut file = vec![0; PAGE_BYTES];
        let schema = [
            Value::Text("table"),
            Value::Text("t"),
            Value::Text("t"),
            Value::Small(2),
            Value::Text(TABLE),
        ];
        page(&mut file, 100, 0x0d, &[cell(1, &schema)], 0);
        if !single {
            let last = leaves.len() - 1;
            let cells: Vec<Vec<u8>> = leaves[..last]
                .iter()
                .enumerate()
                .map(|(index, (key, _))| {
                    let mut cell = (first_leaf + index as u32).to_be_bytes().to_vec();
                    varint(&mut cell, *key);
                    cell
                })
                .collect();
            let mut above = vec![0; PAGE_BYTES];
            page(&mut above, 0, 0x05, &cells, first_leaf + last as u32);
            file.extend(above);
        }
        for (_, cells) in &leaves {
            let mut leaf = vec![0; PAGE_BYTES];
            page(&mut leaf, 0, 0x0d, cells, 0);
            file.extend(leaf);
        }
        self.header(&mut file);
        file
    }

    fn header(&self, file: &mut [u8]) {
        let pages = (file.len() / PAGE_BYTES) as u32;
        file[..16].copy_from_slice(b"SQLite format 3\0");
        file[16..24].copy_from_slice(&[0x10, 0, 1, 1, 0, 64, 32, 32]);
        for (offset, number) in
            [(24, 1), (28, pages), (40, 1), (44, 4), (56, 1), (60, self.serial as u32), (92, 1)]
        {
            file[offset..offset + 4].copy_from_slice(&number.to_be_bytes());
        }
        file[96..100].copy_from_slice(&3_045_000u32.to_be_bytes());
    }
}

enum Value<'a> {
    Null,
    Small(u8),
    Text(&'a str),
}

fn varint(out: &mut Vec<u8>, value: u64) {
    let groups = (64 - value.leading_zeros()).div_ceil(7).max(1);
    assert!(groups < 9, "no number here is so large");
    for group in (0..groups).rev() {
        let more = if group > 0 { 0x80 } else { 0 };
        out.push((value >> (7 * group)) as u8 & 0x7f | more);
    }
}

/// A cell of a table's leaf: its length, its key, its record.
fn cell(key: u64, values: &[Value<'_>]) -> Vec<u8> {
    let (mut types, mut body) = (Vec::new(), Vec::new());
    for value in values {
        match value {
            Value::Null => types.push(0),
            Value::Small(number) => {
                types.push(1);
                body.push(*number);
            }
            Value::Text(text) => {
                varint(&mut types, 13 + 2 * text.len() as u64);
                body.extend_from_slice(text.as_bytes());
            }
        }
    }
    assert!(types.len() < 127, "its length takes one byte");
    let mut cell = Vec::new();
    varint(&mut cell, (1 + types.len() + body.len()) as u64);
    varint(&mut cell, key);
    cell.push(types.len() as u8 + 1);
    cell.extend(types);
    cell.extend(body);
    cell
}

/// Write a page of a tree: its header at `at`, the places of its cells, and they from the end on.
fn page(page: &mut [u8], at: usize, kind: u8, cells: &[Vec<u8>], right: u32) {
    page[at] = kind;
    page[at + 3..at + 5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
    let mut places = at + 8;
    if kind == 0x05 {
        page[at + 8..at + 12].copy_from_slice(&right.to_be_bytes());
        places += 4;
    }
    let mut end = PAGE_BYTES;
    for cell in cells {
        end -= cell.len();
        page[end..end + cell.len()].copy_from_slice(cell);
        page[places..places + 2].copy_from_slice(&(end as u16).to_be_bytes());
        places += 2;
    }
    assert!(places <= end, "the cells fit");
    page[at + 5..at + 7].copy_from_slice(&(end as u16).to_be_bytes());
}
