//! Virtual tables: made by their modules here, filled from what is in the quarantine.
//!
//! Their shadow tables are read there as ordinary ones, and only for what cannot be made anew: FTS5's
//! texts (`_content`: id and one column each) and settings (`_config`), R-Tree's boxes (leaves in `_node`,
//! found by `_rowid`). An index of FTS5 over another table is made from that table.
//!
//! A node of an R-Tree, as SQLite's `rtree.c` has it: 2 bytes, the tree's height in the root; 2 bytes, the
//! number of cells; then the cells, 8 bytes of the row's number and 4 a coordinate, all big-endian.

use storage::sometimes;
use storage::sqlite::{Statement, ValueRef};

use super::ImportError;
use super::rebuild::Target;
use super::schema::{Object, Source};
use super::sql::{Module, quote};

/// Settings of FTS5 that may be taken over: all but its own version number.
const SETTINGS: &[&str] = &[
    "automerge",
    "crisismerge",
    "deletemerge",
    "hashsize",
    "insttoken",
    "pgsz",
    "rank",
    "secure-delete",
    "usermerge",
];

/// Coordinates that an R-Tree has at most: two for each of five dimensions.
const COORDINATES_MAX: usize = 10;

/// It shows what another virtual table has.
pub(super) fn reads_others(module: &Module) -> bool {
    module.name == "fts5vocab"
}

/// Fill a virtual table that was just made.
pub(super) fn fill(
    source: &mut Source,
    target: &mut Target<'_>,
    object: &Object,
    module: &Module,
) -> Result<(), ImportError> {
    match module.name.as_str() {
        "fts5" => fill_fts5(source, target, object, module),
        "rtree" => fill_rtree(source, target, object, false),
        "rtree_i32" => fill_rtree(source, target, object, true),
        _ => Ok(()),
    }
}

/// The columns of the new table that can be written, in order.
fn columns(target: &mut Target<'_>, table: &str) -> Result<Vec<String>, ImportError> {
    let sql = format!(
        "SELECT name FROM pragma_table_xinfo('{}') WHERE hidden = 0 ORDER BY cid",
        table.replace('\'', "''")
    );
    let names = target.texts(&sql)?;
    Ok(names.into_iter().map(|name| String::from_utf8_lossy(&name).into_owned()).collect())
}

fn fill_fts5(
    source: &mut Source,
    target: &mut Target<'_>,
    object: &Object,
    module: &Module,
) -> Result<(), ImportError> {
    let title = format!("the {}", object.title());
    if module.option("locale").is_some_and(|value| value != "0") {
        return Err(ImportError::schema(format!(
            "{title}: FTS5's option locale is not taken over"
        )));
    }
    let table = quote(&object.name);
    let settings = format!("SELECT k, v FROM {}", quote(&format!("{}_config", object.name)));
    let set = format!("INSERT INTO {table}({table}, rank) VALUES(?1, ?2)");
    copy(source, target, &title, &settings, &set, |row| {
        matches!(row.column_utf8(0), Ok(ValueRef::Text(key))
            if SETTINGS.iter().any(|setting| setting.as_bytes() == key))
    })?;
    match module.option("content").as_deref() {
        Some("") => Err(ImportError::schema(format!(
            "{title}: a contentless FTS5 table has no texts to make its index from: drop it before the \
             upload, and make it anew afterwards"
        ))),
        Some(_) => {
            sometimes!("an index over another table is made anew");
            let sql = format!("INSERT INTO {table}({table}) VALUES('rebuild')");
            target.commit()?;
            target.run(&title, &sql)
        }
        None => {
            let names: Vec<String> =
                columns(target, &object.name)?.iter().map(|name| quote(name)).collect();
            let texts: String = (0..names.len()).map(|index| format!(", c{index}")).collect();
            let content = quote(&format!("{}_content", object.name));
            let select = format!("SELECT id{texts} FROM {content}");
            let places = vec!["?"; names.len() + 1].join(", ");
            let insert =
                format!("INSERT INTO {table}(rowid, {}) VALUES({places})", names.join(", "));
            copy(source, target, &title, &select, &insert, |_| true)
        }
    }
}

/// Insert what a statement gives in the quarantine, as far as it is wanted.
fn copy(
    source: &mut Source,
    target: &mut Target<'_>,
    title: &str,
    select: &str,
    insert: &str,
    wanted: impl Fn(&Statement) -> bool,
) -> Result<(), ImportError> {
    let damaged = |error| ImportError::quarantined(title, &error);
    let mut select = source.prepare(select).map_err(damaged)?;
    let count = select.column_count();
    let mut insert = target.prepare(title, insert)?;
    while select.step(&source.connection).map_err(damaged)? {
        if wanted(&select) {
            let values = (0..count).map(|index| select.column_utf8(index));
            target.write(|| title.to_owned(), &mut insert, values)?;
        }
    }
    Ok(())
}

/// The coordinates of a row in its leaf.
fn coordinates(node: &[u8], number: i64, count: usize) -> Option<Vec<[u8; 4]>> {
    let cells = usize::from(u16::from_be_bytes(node.get(2..4)?.try_into().ok()?));
    let cell_bytes = 8 + 4 * count;
    (0..cells).find_map(|index| {
        let start = 4 + index * cell_bytes;
        let cell = node.get(start..start + cell_bytes)?;
        if cell[..8] != number.to_be_bytes() {
            return None;
        }
        Some(cell[8..].chunks_exact(4).map(|four| four.try_into().expect("chunks of 4")).collect())
    })
}

fn fill_rtree(
    source: &mut Source,
    target: &mut Target<'_>,
    object: &Object,
    integers: bool,
) -> Result<(), ImportError> {
    let title = format!("the {}", object.title());
    let damaged = |error| ImportError::quarantined(&title, &error);
    let names: Vec<String> =
        columns(target, &object.name)?.iter().map(|name| quote(name)).collect();
    let shadow = |ending: &str| quote(&format!("{}_{ending}", object.name));
    let sql = format!(
        "SELECT n.data, r.* FROM {} AS r LEFT JOIN {} AS n ON n.nodeno = r.nodeno",
        shadow("rowid"),
        shadow("node")
    );
    let mut select = source.prepare(&sql).map_err(damaged)?;
    // The node, then the row's number, its node's, and what it carries beside its box.
    let carried = select.column_count().saturating_sub(3);
    let count = names.len().saturating_sub(1 + carried);
    if count == 0 || count > COORDINATES_MAX {
        return Err(ImportError::damaged(format!("{title}: its tables do not fit together")));
    }
    let places = vec!["?"; names.len()].join(", ");
    let insert =
        format!("INSERT INTO {}({}) VALUES({places})", quote(&object.name), names.join(", "));
    let mut insert = target.prepare(&title, &insert)?;
    while select.step(&source.connection).map_err(damaged)? {
        let number = match select.column(1) {
            Ok(ValueRef::Integer(number)) => Some(number),
            _ => None,
        };
        let found = number.and_then(|number| match select.column(0) {
            Ok(ValueRef::Blob(node)) => Some((number, coordinates(node, number, count)?)),
            _ => None,
        });
        let Some((number, found)) = found else {
            sometimes!("an uploaded R-Tree has lost an entry");
            let row = number.unwrap_or_default();
            return Err(ImportError::damaged(format!("{title}: its tree does not have row {row}")));
        };
        let boxed = found.into_iter().map(|four| match integers {
            true => ValueRef::Integer(i32::from_be_bytes(four).into()),
            false => ValueRef::Real(f32::from_be_bytes(four).into()),
        });
        let beside = (3..3 + carried).map(|index| select.column_utf8(index));
        let values = std::iter::once(ValueRef::Integer(number)).chain(boxed).map(Ok).chain(beside);
        target.write(|| format!("{title}, row {number}"), &mut insert, values)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_found_or_not_whatever_the_bytes() {
        let mut node = vec![0, 0, 0, 2];
        for (number, low, high) in [(7i64, 1.5f32, 2.0f32), (-1, 3.0, 4.0)] {
            node.extend(number.to_be_bytes());
            node.extend(low.to_be_bytes());
            node.extend(high.to_be_bytes());
        }
        let found = coordinates(&node, -1, 2).expect("it is there");
        let found: Vec<f32> = found.into_iter().map(f32::from_be_bytes).collect();
        assert_eq!(found, [3.0, 4.0]);
        assert_eq!(coordinates(&node, 8, 2), None);
        assert_eq!(coordinates(&node, 7, 10), None, "a cell is longer than the node");
        assert_eq!(coordinates(&node[..10], 7, 2), None);
        assert_eq!(coordinates(&[], 7, 2), None);
        assert_eq!(coordinates(&[0, 0, 255, 255], 7, 2), None);
    }
}
