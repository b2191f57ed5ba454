//! The quarantine opened to be read: whether its pages are sound, what objects it has, and whether each of
//! them may be.

use std::collections::BTreeSet;

use storage::fiber;
use storage::quarantine;
use storage::quarantine::header::FileHeader;
use storage::sometimes;
use storage::sqlite::{Connection, QuarantineUse, SqliteError, Statement, ValueRef};

use super::ImportError;
use super::sql::{Module, module_of};
use crate::limits;
use crate::policy;
use crate::statement::{Ceiling, Cost};

/// What an object of a schema is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Index,
    View,
    Trigger,
}

/// A row of the schema's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub kind: Kind,
    pub name: String,
    /// The table that an index or trigger is of.
    pub table: String,
    /// What made it; SQLite's own objects have none.
    pub sql: String,
    /// Of a virtual table.
    pub module: Option<Module>,
}

impl Object {
    /// As messages speak of it.
    pub fn title(&self) -> String {
        let kind = match self.kind {
            Kind::Table => "table",
            Kind::Index => "index",
            Kind::View => "view",
            Kind::Trigger => "trigger",
        };
        format!("{kind} {}", self.name)
    }
}

/// What is in the quarantine.
pub(super) struct Source {
    pub connection: Connection,
    /// What is to be made, in the order of its making there. Shadow tables are not in it: their virtual
    /// tables make them.
    pub objects: Vec<Object>,
    /// It has `sqlite_sequence`, of tables with AUTOINCREMENT.
    pub has_sequence: bool,
    /// It has `sqlite_stat1`, of ANALYZE.
    pub has_statistics: bool,
    pub user_version: i64,
    pub application_id: i64,
}

/// Open the quarantine, judge it, and read its schema.
pub(super) fn open(header: &FileHeader) -> Result<Source, ImportError> {
    let mut connection = Connection::open_quarantine(QuarantineUse::Read)
        .map_err(|error| ImportError::quarantined("the upload", &error))?;
    policy::confine(&mut connection);
    connection.change_authorizer(policy::authorize_reading);
    let mut source = Source {
        connection,
        objects: Vec::new(),
        has_sequence: false,
        has_statistics: false,
        user_version: 0,
        application_id: 0,
    };
    let objects = source.read_objects()?;
    source.check_pages(header)?;
    let mut number = |sql| {
        let mut value = 0;
        let read = source.for_each(sql, |row| {
            if let Ok(ValueRef::Integer(number)) = row.column(0) {
                value = number;
            }
        });
        read.map(|()| value).map_err(|error| ImportError::quarantined("the header", &error))
    };
    let (user_version, application_id) =
        (number("PRAGMA user_version")?, number("PRAGMA application_id")?);
    let has = |name: &str| objects.iter().any(|object| object.name.eq_ignore_ascii_case(name));
    Ok(Source {
        has_sequence: has("sqlite_sequence"),
        has_statistics: has("sqlite_stat1"),
        user_version,
        application_id,
        objects: judge(objects)?,
        ..source
    })
}

impl Source {
    /// Run a statement of ours and look at each row.
    pub fn for_each(
        &mut self,
        sql: &str,
        mut row: impl FnMut(&Statement),
    ) -> Result<(), SqliteError> {
        let mut statement = self.prepare(sql)?;
        while statement.step(&self.connection)? {
            row(&statement);
        }
        Ok(())
    }

    /// Compile a statement of ours.
    pub fn prepare(&mut self, sql: &str) -> Result<Statement, SqliteError> {
        let (statement, _) = self.connection.prepare(sql, false)?;
        Ok(statement.expect("the text is a statement of ours"))
    }

    fn read_objects(&mut self) -> Result<Vec<Object>, ImportError> {
        let mut rows: Vec<Option<Object>> = Vec::new();
        let sql = "SELECT type, name, sql, tbl_name FROM sqlite_schema ORDER BY rowid";
        let read = self.for_each(sql, |row| {
            let text = |index| match row.column_utf8(index) {
                Ok(ValueRef::Text(bytes)) => String::from_utf8(bytes.to_vec()).ok(),
                Ok(ValueRef::Null) if index == 2 => Some(String::new()),
                _ => None,
            };
            rows.push((|| {
                let kind = match text(0)?.as_str() {
                    "table" => Kind::Table,
                    "index" => Kind::Index,
                    "view" => Kind::View,
                    "trigger" => Kind::Trigger,
                    _ => return None,
                };
                let (name, sql, table) = (text(1)?, text(2)?, text(3)?);
                let module = if kind == Kind::Table { module_of(&sql) } else { None };
                Some(Object { kind, name, table, sql, module })
            })());
        });
        read.map_err(|error| ImportError::quarantined("the schema", &error))?;
        let count = rows.len();
        let known: Vec<Object> = rows.into_iter().flatten().collect();
        if known.len() < count {
            return Err(ImportError::damaged(
                "the schema: it has a row that is no object of SQLite's",
            ));
        }
        Ok(known)
    }

    /// All pages are what they should be: SQLite's own check, with bounded work. Indexes are not compared
    /// with their tables (`integrity_check` would): they are made anew.
    fn check_pages(&mut self, header: &FileHeader) -> Result<(), ImportError> {
        let prepared = self.prepare("PRAGMA quick_check(1)");
        let mut statement =
            prepared.map_err(|error| ImportError::quarantined("the upload", &error))?;
        let kibibytes = (quarantine::size() / 1024).max(u64::from(header.pages));
        let steps = limits::CHECK_STEPS + kibibytes.saturating_mul(limits::CHECK_STEPS_PER_KIB);
        let mut ceiling = Ceiling::NONE;
        ceiling.parts[0] = steps;
        fiber::start_run(Cost::default(), Some(ceiling), false);
        let mut found = None;
        let result = loop {
            match statement.step(&self.connection) {
                Ok(true) => {
                    let text = match statement.column_utf8(0) {
                        Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).into_owned(),
                        _ => String::new(),
                    };
                    if text != "ok" && found.is_none() {
                        found = Some(text);
                    }
                }
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        fiber::end_run(statement.take_steps());
        result.map_err(|error| ImportError::quarantined("the upload", &error))?;
        match found {
            None => Ok(()),
            Some(text) => {
                sometimes!("a check finds an upload damaged");
                Err(ImportError::damaged(format!("the upload is damaged: {}", text.trim())))
            }
        }
    }
}

/// The shadow tables of a module's table, whether it has each or not.
fn shadows(object: &Object, module: &Module) -> Option<Vec<String>> {
    let endings: &[&str] = match module.name.as_str() {
        "fts5" => &["data", "idx", "content", "docsize", "config"],
        "rtree" | "rtree_i32" => &["node", "rowid", "parent"],
        "fts5vocab" => &[],
        _ => return None,
    };
    let name = object.name.to_ascii_lowercase();
    Some(endings.iter().map(|ending| format!("{name}_{ending}")).collect())
}

/// What is to be made of these objects.
fn judge(objects: Vec<Object>) -> Result<Vec<Object>, ImportError> {
    let mut hidden = BTreeSet::new();
    for object in &objects {
        let Some(module) = &object.module else { continue };
        match shadows(object, module) {
            Some(names) => hidden.extend(names),
            None => {
                sometimes!("an upload has a table of an unknown module");
                return Err(ImportError::schema(format!(
                    "{}: its module {} is not here: virtual tables may be of fts5, fts5vocab, rtree and \
                     rtree_i32",
                    object.title(),
                    module.name
                )));
            }
        }
    }
    let mut wanted = Vec::new();
    for object in objects {
        let lower = object.name.to_ascii_lowercase();
        if object.sql.is_empty() {
            // SQLite makes the indexes of constraints with their tables.
            if object.kind == Kind::Index && lower.starts_with("sqlite_autoindex_") {
                continue;
            }
            return Err(ImportError::damaged(format!("the {} has no SQL", object.title())));
        }
        let own = ["sqlite_sequence", "sqlite_stat1", "sqlite_stat4"].contains(&lower.as_str());
        match object.kind {
            Kind::Table if own => {}
            Kind::Table if hidden.contains(&lower) && object.module.is_none() => {}
            _ if lower.starts_with("sqlite_") || hidden.contains(&lower) => {
                return Err(ImportError::schema(format!(
                    "the {}: its name is reserved",
                    object.title()
                )));
            }
            _ => wanted.push(object),
        }
    }
    Ok(wanted)
}
