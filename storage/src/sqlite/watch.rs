//! What SQLite tells while it compiles a statement: the authorizer, and what is learnt beside it.
//!
//! Owns what one connection registered ([`Watch`]). The verdicts come from above, as a pure function.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};

use rusqlite::ffi;

use super::{borrowed_text, take_counter};
use crate::fiber;
use crate::meter::Meter;

/// What SQLite asks the authorizer (`sqlite3_set_authorizer`): an action code and up to four names.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// `SQLITE_READ`, `SQLITE_PRAGMA`, …
    pub code: i32,
    /// Third argument of the C callback.
    pub first: Option<&'a str>,
    /// Fourth.
    pub second: Option<&'a str>,
    /// The schema: `main`, `temp`.
    pub schema: Option<&'a str>,
    /// The innermost trigger or view, if any.
    pub inside: Option<&'a str>,
}

/// Says whether an action is allowed. Pure: it sees the action and nothing else.
pub type Authorizer = fn(Action<'_>) -> Verdict;

/// What the authorizer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The statement does not compile.
    Deny,
    /// It does not compile, because it writes and who asks may not.
    DenyWrite,
    /// Allowed.
    Allow,
    /// Allowed, and worth noting: the statement inserts rows.
    AllowInsert,
    /// Allowed, and it changes the connection itself: nobody else may use it after this stream.
    AllowTaint,
}

/// What compiling tells about a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// It inserts rows.
    pub inserts: bool,
    /// It rolls back, a transaction or to a savepoint.
    pub rolls_back: bool,
    /// It changes the planner's statistics.
    pub statistics: bool,
    /// It changes the schema.
    pub schema: bool,
    /// It is a pragma.
    pub pragma: bool,
    /// It reads the database of temporary tables if that is open, and does not open it.
    pub reads_temporary: bool,
    /// The authorizer was asked anything at all.
    pub judged: bool,
    /// It begins or ends a transaction or savepoint.
    pub controls: bool,
    /// It was not compiled, because it writes and who asks may not.
    pub write_refused: bool,
    /// It was not compiled, because it is nested too deeply.
    pub too_deep: bool,
}

/// What is registered with SQLite beside the authorizer.
pub(super) struct Watch {
    pub(super) authorizer: Cell<Authorizer>,
    pub(super) learnt: Cell<Learnt>,
    pub(super) tainted: Cell<bool>,
    /// Memory ran out since the schema was read last.
    pub(super) starved: Cell<bool>,
    /// Nothing is asked: this crate runs a statement of its own.
    pub(super) own: Cell<bool>,
    /// The client's statement that is inside `sqlite3_step`.
    pub(super) stepping: Cell<*mut ffi::sqlite3_stmt>,
    /// A module compiled a statement inside a step since the last look.
    pub(super) inner: Cell<bool>,
}

impl Watch {
    fn learn(&self, what: impl FnOnce(&mut Learnt)) {
        let mut learnt = self.learnt.get();
        what(&mut learnt);
        self.learnt.set(learnt);
    }
}

/// The authorizer callback of `sqlite3_set_authorizer`; its state is a [`Watch`].
pub(super) unsafe extern "C" fn on_action(
    state: *mut c_void,
    code: c_int,
    first: *const c_char,
    second: *const c_char,
    schema: *const c_char,
    inside: *const c_char,
) -> c_int {
    // SAFETY: `set_authorizer` registered a Watch that lives as long as the connection.
    let watch = unsafe { &*state.cast::<Watch>() };
    if !watch.stepping.get().is_null() {
        on_compiling_inside(watch);
    }
    // SQLite asks for each term of a compound SELECT before it goes deeper, and its own limit on them
    // does not hold where the last one is VALUES: 400 of those were deeper than a stack.
    if fiber::is_stack_short() {
        crate::sometimes!("a statement is refused because it is nested too deeply");
        watch.learn(|learnt| learnt.too_deep = true);
        return ffi::SQLITE_DENY;
    }
    if watch.own.get() {
        return ffi::SQLITE_OK;
    }
    let given = [first, second, schema, inside];
    let names = given.map(borrowed_text);
    // A name that is no UTF-8 cannot be judged.
    if given.iter().zip(names).any(|(raw, name)| !raw.is_null() && name.is_none()) {
        return ffi::SQLITE_DENY;
    }
    let [first, second, schema, inside] = names;
    note(watch, code, first);
    match (watch.authorizer.get())(Action { code, first, second, schema, inside }) {
        Verdict::Deny => return ffi::SQLITE_DENY,
        Verdict::DenyWrite => {
            watch.learn(|learnt| learnt.write_refused = true);
            return ffi::SQLITE_DENY;
        }
        Verdict::Allow => {}
        Verdict::AllowInsert => watch.learn(|learnt| learnt.inserts = true),
        Verdict::AllowTaint => watch.tainted.set(true),
    }
    ffi::SQLITE_OK
}

/// Something is being compiled inside a step. Either a module compiles a statement of its own: then
/// the client's runs on meanwhile. Or SQLite compiles the client's anew, because the schema has
/// changed: then that one has halted, and the steps of the attempt that found out do not count. (Its
/// counters are handed on to the new program when that is ready.)
fn on_compiling_inside(watch: &Watch) {
    let statement = watch.stepping.get();
    // SAFETY: it is inside `sqlite3_step`, so it lives.
    if unsafe { ffi::sqlite3_stmt_busy(statement) } != 0 {
        watch.inner.set(true);
        let _ = fiber::with_meter(Meter::on_inner_statement);
    } else {
        let _ = take_counter(statement, ffi::SQLITE_STMTSTATUS_VM_STEP);
        let _ = fiber::with_meter(Meter::start_again);
    }
}

/// Actions of statements that change the schema.
const SCHEMA_CHANGES: [c_int; 11] = [
    ffi::SQLITE_CREATE_INDEX,
    ffi::SQLITE_CREATE_TABLE,
    ffi::SQLITE_CREATE_TRIGGER,
    ffi::SQLITE_CREATE_VIEW,
    ffi::SQLITE_CREATE_VTABLE,
    ffi::SQLITE_DROP_INDEX,
    ffi::SQLITE_DROP_TABLE,
    ffi::SQLITE_DROP_TRIGGER,
    ffi::SQLITE_DROP_VIEW,
    ffi::SQLITE_DROP_VTABLE,
    ffi::SQLITE_ALTER_TABLE,
];

/// What others will want to know of the statement that is being compiled.
fn note(watch: &Watch, code: c_int, first: Option<&str>) {
    let starts = |name: &str, with: &str| {
        name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    watch.learn(|learnt| {
        learnt.judged = true;
        learnt.controls |= matches!(code, ffi::SQLITE_TRANSACTION | ffi::SQLITE_SAVEPOINT);
        learnt.schema |= SCHEMA_CHANGES.contains(&code);
    });
    match code {
        ffi::SQLITE_TRANSACTION | ffi::SQLITE_SAVEPOINT if first == Some("ROLLBACK") => {
            watch.learn(|learnt| learnt.rolls_back = true);
        }
        ffi::SQLITE_PRAGMA => watch.learn(|learnt| {
            learnt.pragma = true;
            // The numbers in the file's header need no schema.
            let is_number = first.is_some_and(|name| name.ends_with("_version"));
            learnt.reads_temporary |= !is_number;
        }),
        ffi::SQLITE_ALTER_TABLE => watch.learn(|learnt| learnt.reads_temporary = true),
        ffi::SQLITE_READ if first.is_some_and(|name| starts(name, "pragma_")) => {
            watch.learn(|learnt| learnt.reads_temporary = true);
        }
        ffi::SQLITE_ANALYZE => watch.learn(|learnt| learnt.statistics = true),
        ffi::SQLITE_INSERT | ffi::SQLITE_UPDATE | ffi::SQLITE_DELETE
            if first.is_some_and(|name| starts(name, "sqlite_stat")) =>
        {
            watch.learn(|learnt| learnt.statistics = true);
        }
        _ => {}
    }
}
