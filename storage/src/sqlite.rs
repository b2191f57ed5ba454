//! SQLite itself: process configuration, connections and statements, as safe values.
//!
//! Owns the calls into the C library and nothing of policy: limits, the authorizer's verdicts and
//! the texts of errors come from above. Written on the C interface (`rusqlite::ffi`) and not on
//! rusqlite's safe layer, because that one asserts that a TEXT value has an address: under a memory
//! limit it may not, and no client may stop the process.
//!
//! Every connection and statement lives on fibers of one tenant: calls may suspend. SQLite's
//! mutexes do not keep two fibers of one thread apart, so `busy` asserts one fiber per connection.

#![allow(unsafe_code)]

mod mark;
mod quarantine;
mod watch;

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Once;
use std::{ptr, slice};

use rusqlite::ffi;

use crate::fiber::{self, Answer, Wait, suspend, with_volume};
use crate::functions;
use crate::vfs;
use crate::volume::{ConnectionId, WriterFor};
use crate::{allocator, fiber::PROGRESS_STEPS, pagecache};

use watch::{Watch, on_action};

pub use quarantine::QuarantineUse;
pub use rusqlite::ffi as codes;
pub use rusqlite::ffi::{SQLITE_BUSY, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_INTERRUPT, SQLITE_NOMEM};
pub use watch::{Action, Authorizer, Learnt, Verdict};

/// Pragmas that may reach SQLite at all. The authorizer has the same list and checks arguments
/// too; the VFS is asked first, before SQLite acts on a pragma.
pub const PRAGMAS: &[&str] = &[
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "collation_list",
    "page_count",
    "page_size",
    "freelist_count",
    "data_version",
    "schema_version",
    "encoding",
    "integrity_check",
    "quick_check",
    "application_id",
    "user_version",
    "foreign_keys",
    "defer_foreign_keys",
    "recursive_triggers",
    "reverse_unordered_selects",
    "case_sensitive_like",
    "legacy_alter_table",
    "optimize",
    "compile_options",
    "journal_mode",
    "synchronous",
    "read_uncommitted",
    "busy_timeout",
    "cell_size_check",
    "max_page_count",
];

/// A result code that is not OK, with SQLite's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteError {
    /// Extended result code; the primary one is its low byte.
    pub code: i32,
    /// SQLite's message.
    pub message: String,
    /// Byte offset in the SQL text, where SQLite knows one.
    pub offset: Option<usize>,
}

impl SqliteError {
    /// The primary result code.
    #[must_use]
    pub fn primary(&self) -> i32 {
        self.code & 0xff
    }

    /// What SQLite says where an account has no room.
    #[must_use]
    pub fn out_of_memory() -> SqliteError {
        SqliteError::of(ffi::SQLITE_NOMEM)
    }

    fn of(code: c_int) -> SqliteError {
        // SAFETY: the function returns a constant string for every code.
        let text = unsafe { CStr::from_ptr(ffi::sqlite3_errstr(code)) };
        SqliteError { code, message: text.to_string_lossy().into_owned(), offset: None }
    }
}

/// A value in a result row, borrowed until the next step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// SQL NULL.
    Null,
    /// 64-bit integer.
    Integer(i64),
    /// 64-bit float.
    Real(f64),
    /// Text as stored; UTF-8 unless the writer cheated.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}

/// Configure and initialise the library, once per process; checks that it was built as designed.
///
/// # Panics
/// If it was not (F6): a wrong build would share caches between tenants or load extensions.
pub fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        configure();
        // SAFETY: called once, after configuration.
        assert!(unsafe { ffi::sqlite3_initialize() } == ffi::SQLITE_OK);
        // SAFETY: before any connection is there to call them.
        unsafe {
            myriad_stretch = Some(on_stretch);
            myriad_depth = Some(on_depth);
            myriad_function = Some(functions::answer);
        }
        vfs::register();
        assert_build();
    });
}

fn configure() {
    let methods = allocator::methods();
    let cache_methods = pagecache::methods();
    // SAFETY: before initialisation, with the argument types that the manual gives for each option;
    // SQLite copies the method tables.
    unsafe {
        let no: c_int = 0;
        let ok = ffi::SQLITE_OK;
        assert!(ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) == ok);
        assert!(ffi::sqlite3_config(ffi::SQLITE_CONFIG_PCACHE2, &raw const cache_methods) == ok);
        assert!(ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, no) == ok);
        assert!(ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, no, no) == ok);
        assert!(ffi::sqlite3_config(ffi::SQLITE_CONFIG_URI, no) == ok);
    }
}

unsafe extern "C" {
    /// See sqlite/myriad_hooks.h.
    static mut myriad_stretch: Option<unsafe extern "C" fn() -> c_int>;
    /// See sqlite/myriad_hooks.h.
    static mut myriad_depth: Option<unsafe extern "C" fn() -> c_int>;
    /// See sqlite/myriad_hooks.h.
    static mut myriad_function: Option<OnFunction>;
    /// See sqlite/myriad_hooks.h.
    fn myriad_reset();
}

type OnFunction = unsafe extern "C" fn(
    c_int,
    *mut ffi::sqlite3_context,
    c_int,
    *mut *mut ffi::sqlite3_value,
) -> c_int;

unsafe extern "C" fn on_stretch() -> c_int {
    c_int::from(fiber::on_stretch())
}

unsafe extern "C" fn on_depth() -> c_int {
    c_int::from(fiber::is_stack_short())
}

fn assert_build() {
    let has = |option: &CStr| {
        // SAFETY: the option is a NUL-terminated string.
        unsafe { ffi::sqlite3_compileoption_used(option.as_ptr()) != 0 }
    };
    assert!(!has(c"ENABLE_MEMORY_MANAGEMENT"), "one page-cache group for all tenants");
    assert!(has(c"THREADSAFE=2"), "the thread mode is not the designed one");
    assert!(has(c"OMIT_LOAD_EXTENSION"), "extensions could be loaded");
    assert!(has(c"OMIT_SHARED_CACHE"), "caches could be shared");
    assert!(has(c"MAX_ATTACHED=0"), "databases could be attached");
    assert!(has(c"ENABLE_OVERSIZE_CELL_CHECK"), "a damaged cell could be read past its page");
    assert!(has(c"TEMP_STORE=1"), "sorts would be unbounded in memory");
    // SAFETY: no arguments.
    assert!(unsafe { ffi::sqlite3_libversion_number() } >= 3_054_000, "known CVEs are open");
}

/// Forget what SQLite keeps from one connection to the next, for simulated runs that must repeat: the state of
/// its random generator, which the next draw seeds anew, and how far it is to the next look at the turn.
pub fn reset() {
    // SAFETY: zero bytes and a null buffer ask for exactly this; the other has no arguments.
    unsafe {
        ffi::sqlite3_randomness(0, ptr::null_mut());
        myriad_reset();
    }
}

unsafe extern "C" {
    /// In the library, but not in the bindings.
    fn sqlite3_close_v2(db: *mut ffi::sqlite3) -> c_int;
}

/// How far [`Connection::checkpoint`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointMode {
    /// As far as readers allow; nobody waits.
    Passive,
    /// All of it, and give the WAL image back; fails if somebody reads or writes.
    Truncate,
}

/// A connection to the tenant whose volume the running fiber was lent.
pub struct Connection {
    db: *mut ffi::sqlite3,
    id: ConnectionId,
    watch: Option<Box<Watch>>,
    busy: Cell<bool>,
}

/// Marks a connection as used by the running fiber (F6), for the length of a C call.
struct Entered<'a>(&'a Cell<bool>);

impl<'a> Entered<'a> {
    fn new(busy: &'a Cell<bool>) -> Entered<'a> {
        assert!(!busy.replace(true), "two fibers in one connection");
        Entered(busy)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Connection {
    /// Bytes of its account's memory that it takes at least to open one.
    pub const OPEN_BYTES_MIN: u64 = 11 << 10;

    /// Open the tenant's database. Must run on a fiber.
    ///
    /// # Errors
    /// SQLite's: out of memory, corrupt, input/output.
    pub fn open() -> Result<Connection, SqliteError> {
        let mut connection = Connection::open_named(vfs::MAIN_NAME, ffi::SQLITE_OPEN_READWRITE)?;
        connection.harden()?;
        Ok(connection)
    }

    /// Open one of the VFS's databases, with `SQLITE_OPEN_READWRITE` or `SQLITE_OPEN_READONLY`.
    fn open_named(name: &CStr, access: c_int) -> Result<Connection, SqliteError> {
        let flags = access
            | ffi::SQLITE_OPEN_NOMUTEX
            | ffi::SQLITE_OPEN_EXRESCODE
            | ffi::SQLITE_OPEN_PRIVATECACHE;
        let mut db = ptr::null_mut();
        let _ = fiber::with_meter(|meter| meter.set_opening(true));
        // SAFETY: constant names, and a place for the handle.
        let code = unsafe {
            ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, vfs::VFS_NAME.as_ptr())
        };
        let _ = fiber::with_meter(|meter| meter.set_opening(false));
        if db.is_null() {
            return Err(SqliteError::out_of_memory());
        }
        let id = ConnectionId(0);
        let mut connection = Connection { db, id, watch: None, busy: Cell::new(false) };
        connection.check(code)?;
        // SAFETY: our VFS opened the main file as a File.
        connection.id = unsafe { (*connection.main_file()).connection };
        // SAFETY: our callbacks take what is registered with them: nothing, or the id as a number.
        unsafe {
            let id = connection.id.0 as usize as *mut c_void;
            ffi::sqlite3_busy_handler(db, Some(on_busy), id);
            let steps = PROGRESS_STEPS as c_int;
            ffi::sqlite3_progress_handler(db, steps, Some(on_progress), ptr::null_mut());
            ffi::sqlite3_wal_autocheckpoint(db, 0);
        }
        Ok(connection)
    }

    /// db_config of the confinement policy. (Cells' sizes are checked from the start by SQLite's build.)
    fn harden(&mut self) -> Result<(), SqliteError> {
        let switches = [
            (ffi::SQLITE_DBCONFIG_DEFENSIVE, 1),
            (ffi::SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
            (ffi::SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0),
            (ffi::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0),
            (ffi::SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
            (ffi::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, 0),
            (ffi::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, 0),
            (ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1),
            (ffi::SQLITE_DBCONFIG_ENABLE_FKEY, 1),
        ];
        for (switch, value) in switches {
            self.switch(switch, value)?;
        }
        Ok(())
    }

    /// Set one of `db_config`'s switches that take an int.
    fn switch(&mut self, switch: c_int, value: c_int) -> Result<(), SqliteError> {
        let out: *mut c_int = ptr::null_mut();
        // SAFETY: these switches take an int and a place for an int, which may be null.
        let code = unsafe { ffi::sqlite3_db_config(self.db, switch, value, out) };
        self.check(code)
    }

    /// Plans do not look at bound values (QPSG). Else a statement that compares a parameter with what a
    /// partial index asks for is compiled anew each time that it is bound.
    ///
    /// # Errors
    /// SQLite's.
    pub fn plan_without_values(&mut self) -> Result<(), SqliteError> {
        self.switch(ffi::SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    }

    fn run(&mut self, sql: &CStr) -> Result<(), SqliteError> {
        let _entered = Entered::new(&self.busy);
        let none = ptr::null_mut();
        // SAFETY: a NUL-terminated text, no row callback.
        let code = unsafe { ffi::sqlite3_exec(self.db, sql.as_ptr(), None, none, ptr::null_mut()) };
        self.check(code)
    }

    /// The VFS's file of the main database; lives as long as the connection.
    fn main_file(&self) -> *mut vfs::File {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        let operation = ffi::SQLITE_FCNTL_FILE_POINTER;
        let place = (&raw mut file).cast();
        // SAFETY: the operation writes a pointer to the main file to the place.
        unsafe { ffi::sqlite3_file_control(self.db, vfs::MAIN_SCHEMA.as_ptr(), operation, place) };
        file.cast()
    }

    /// Set one of SQLite's run-time limits (`SQLITE_LIMIT_*`).
    pub fn set_limit(&mut self, limit: i32, value: i32) {
        // SAFETY: unknown limits are ignored.
        unsafe { ffi::sqlite3_limit(self.db, limit, value) };
    }

    /// Ask `authorizer` about every action of every statement compiled from now on.
    pub fn set_authorizer(&mut self, authorizer: Authorizer) {
        let watch = Box::new(Watch {
            authorizer: Cell::new(authorizer),
            learnt: Cell::new(Learnt::default()),
            tainted: Cell::new(false),
            starved: Cell::new(false),
            own: Cell::new(false),
            stepping: Cell::new(ptr::null_mut()),
            inner: Cell::new(false),
        });
        let state = (&raw const *watch).cast_mut().cast();
        // SAFETY: the box lives in the connection, which outlives the registration.
        unsafe { ffi::sqlite3_set_authorizer(self.db, Some(on_action), state) };
        self.watch = Some(watch);
    }

    /// Ask another authorizer from now on. Statements that are compiled stay so: who runs them asks what
    /// they do.
    pub fn change_authorizer(&mut self, authorizer: Authorizer) {
        if let Some(watch) = &self.watch {
            watch.authorizer.set(authorizer);
        }
    }

    /// What compiling has told about the statements compiled since the last call.
    #[must_use]
    pub fn take_learnt(&self) -> Learnt {
        self.watch.as_ref().map_or_else(Learnt::default, |watch| watch.learnt.take())
    }

    /// Something was not compiled since then, because it is nested too deeply.
    #[must_use]
    pub fn was_too_deep(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.learnt.get().too_deep)
    }

    /// Whether a module compiled a statement of its own inside a step since the last call.
    #[must_use]
    pub fn take_inner(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.inner.take())
    }

    /// Forget the schema: the next statement reads it anew, with the planner's statistics, and
    /// modules of virtual tables begin with empty hands. No transaction is open.
    ///
    /// # Errors
    /// SQLite's: out of memory.
    pub fn forget_schema(&mut self) -> Result<(), SqliteError> {
        assert!(self.is_autocommit());
        self.set_own(true);
        let result = self.run(c"PRAGMA writable_schema=RESET");
        self.set_own(false);
        if let (Ok(()), Some(watch)) = (&result, &self.watch) {
            watch.starved.set(false);
        }
        result
    }

    /// The database of temporary tables is open. Clients have no such tables, but SQLite opens it when it
    /// compiles some statements, and from then on others read it too.
    #[must_use]
    pub fn is_temporary_open(&self) -> bool {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        let operation = ffi::SQLITE_FCNTL_FILE_POINTER;
        let place = (&raw mut file).cast();
        // SAFETY: the operation writes a pointer to the place, if there is such a database.
        let code =
            unsafe { ffi::sqlite3_file_control(self.db, c"temp".as_ptr(), operation, place) };
        code == ffi::SQLITE_OK
    }

    /// Open the database of temporary tables, and give it its first page.
    ///
    /// # Errors
    /// SQLite's: out of memory.
    pub fn open_temporary(&mut self) -> Result<(), SqliteError> {
        self.set_own(true);
        let result = self.run(c"PRAGMA temp.user_version=0");
        self.set_own(false);
        result
    }

    fn set_own(&self, own: bool) {
        if let Some(watch) = &self.watch {
            watch.own.set(own);
        }
        // SAFETY: our VFS opened the main file as a File; SQLite is not in a call on it now.
        unsafe { (*self.main_file()).set_own_pragma(own) };
    }

    /// Statements on this connection that are not among `ours`: modules keep them. Gives how many
    /// there are, and the steps that they took since the last call.
    #[must_use]
    pub fn take_inner_steps(&self, ours: &[&Statement]) -> (usize, u64) {
        let (mut count, mut steps) = (0, 0);
        let mut handle = ptr::null_mut();
        loop {
            // SAFETY: an open connection, and a statement on it or null for the first.
            handle = unsafe { ffi::sqlite3_next_stmt(self.db, handle) };
            if handle.is_null() {
                return (count, steps);
            }
            if ours.iter().all(|statement| statement.handle != handle) {
                count += 1;
                steps += take_counter(handle, ffi::SQLITE_STMTSTATUS_VM_STEP);
            }
        }
    }

    /// A statement that changes the connection itself was compiled on it, or memory ran out on it: nobody
    /// else is to use it.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.tainted.get())
    }

    /// Memory ran out on it, while compiling or in a step, and it has not forgotten its schema since. FTS5
    /// may keep then what it should have forgotten, and takes its index for malformed.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.starved.get())
    }

    fn note_starving(&self, code: c_int) {
        if let (ffi::SQLITE_NOMEM | ffi::SQLITE_IOERR_NOMEM, Some(watch)) = (code, &self.watch) {
            watch.tainted.set(true);
            watch.starved.set(true);
        }
    }

    /// Let the database have `pages` pages from now on, or as many as it has if those are more: what
    /// would make it larger gets `SQLITE_FULL`.
    ///
    /// # Errors
    /// SQLite's: it reads the database.
    pub fn limit_pages(&mut self, pages: u32) -> Result<(), SqliteError> {
        let text = format!("PRAGMA max_page_count={pages}");
        let text = CString::new(text).expect("a number has no NUL");
        self.set_own(true);
        let result = self.run(&text);
        self.set_own(false);
        result
    }

    /// Let SQL's `last_insert_rowid()` answer 0, as on a new connection.
    pub fn forget_insert(&mut self) {
        // SAFETY: an open connection.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.db, 0) };
    }

    /// The connection's id in its volume.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// No explicit transaction is open.
    #[must_use]
    pub fn is_autocommit(&self) -> bool {
        // SAFETY: an open connection.
        unsafe { ffi::sqlite3_get_autocommit(self.db) != 0 }
    }

    /// Rows changed by the last INSERT, UPDATE or DELETE itself.
    #[must_use]
    pub fn changes(&self) -> u64 {
        // SAFETY: an open connection.
        unsafe { ffi::sqlite3_changes64(self.db) }.max(0) as u64
    }

    /// Rows changed since the connection opened, triggers and foreign key actions included.
    #[must_use]
    pub fn total_changes(&self) -> u64 {
        // SAFETY: an open connection.
        unsafe { ffi::sqlite3_total_changes64(self.db) }.max(0) as u64
    }

    /// Rowid of the last row inserted.
    #[must_use]
    pub fn last_insert_rowid(&self) -> i64 {
        // SAFETY: an open connection.
        unsafe { ffi::sqlite3_last_insert_rowid(self.db) }
    }

    /// Note that a statement starts: whether the connection holds a snapshot already decides how a
    /// wait for the writer lock ends.
    pub fn mark_statement(&mut self) {
        fiber::on_statement();
        // SAFETY: our VFS opened the main file as a File; SQLite is not in a call on it now.
        unsafe { (*self.main_file()).mark_statement() };
    }

    /// What the connection sees, page by page: so many pages, as SQLite says. It must be in a transaction
    /// that has begun to read.
    ///
    /// # Errors
    /// An SQLite result code.
    pub fn snapshot(&self, pages: u32) -> Result<vfs::Snapshot, i32> {
        // SAFETY: our VFS opened the main file as a File; SQLite is not in a call on it now.
        let shared = unsafe { (*self.main_file()).shared_locks() };
        vfs::Snapshot::of(shared, pages)
    }

    /// Compile the first statement of `sql`. Gives it (`None` for white space and comments) and
    /// the byte offset behind it. `keep` tells SQLite that it will be used many times.
    ///
    /// # Errors
    /// SQLite's, with an offset where it knows one.
    pub fn prepare(
        &mut self,
        sql: &str,
        keep: bool,
    ) -> Result<(Option<Statement>, usize), SqliteError> {
        let _entered = Entered::new(&self.busy);
        let length = c_int::try_from(sql.len()).map_err(|_| SqliteError::of(ffi::SQLITE_TOOBIG))?;
        let flags = if keep { ffi::SQLITE_PREPARE_PERSISTENT } else { 0 };
        let mut handle = ptr::null_mut();
        let mut tail = ptr::null();
        let start = sql.as_ptr().cast::<c_char>();
        // SAFETY: the text and its length, and places for statement and tail.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(
                self.db,
                start,
                length,
                flags as _,
                &raw mut handle,
                &raw mut tail,
            )
        };
        if code != ffi::SQLITE_OK {
            self.note_starving(code);
            let mut error = self.error(code);
            // SAFETY: an open connection whose last call failed.
            let offset = unsafe { ffi::sqlite3_error_offset(self.db) };
            error.offset = usize::try_from(offset).ok();
            return Err(error);
        }
        let consumed = if tail.is_null() { sql.len() } else { tail as usize - start as usize };
        let statement = (!handle.is_null()).then_some(Statement { handle });
        Ok((statement, consumed.min(sql.len())))
    }

    /// Run SQLite's checkpoint. Gives the frames in the WAL and how many of them are in the file.
    ///
    /// # Errors
    /// SQLite's; `SQLITE_BUSY` if the mode asks for more than readers and writers allow.
    pub fn checkpoint(&mut self, mode: CheckpointMode) -> Result<(u32, u32), SqliteError> {
        let _entered = Entered::new(&self.busy);
        let mode = match mode {
            CheckpointMode::Passive => ffi::SQLITE_CHECKPOINT_PASSIVE,
            CheckpointMode::Truncate => ffi::SQLITE_CHECKPOINT_TRUNCATE,
        };
        let (mut frames, mut written) = (0, 0);
        // SAFETY: a constant schema name and places for two ints.
        let code = unsafe {
            ffi::sqlite3_wal_checkpoint_v2(
                self.db,
                vfs::MAIN_SCHEMA.as_ptr(),
                mode,
                &raw mut frames,
                &raw mut written,
            )
        };
        self.check(code)?;
        Ok((frames.max(0) as u32, written.max(0) as u32))
    }

    fn set_stepping(&self, statement: *mut ffi::sqlite3_stmt) {
        if let Some(watch) = &self.watch {
            watch.stepping.set(statement);
        }
    }

    fn check(&self, code: c_int) -> Result<(), SqliteError> {
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.error(code)) }
    }

    fn error(&self, code: c_int) -> SqliteError {
        error_of(self.db, code)
    }
}

fn error_of(db: *mut ffi::sqlite3, code: c_int) -> SqliteError {
    // SAFETY: an open connection; the text is copied before the next call.
    let text = unsafe { ffi::sqlite3_errmsg(db) };
    if text.is_null() {
        return SqliteError::of(code);
    }
    // SAFETY: SQLite's messages are NUL-terminated.
    let message = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    SqliteError { code, message, offset: None }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: closed once; statements that still live keep what they need (`close_v2`).
        unsafe { sqlite3_close_v2(self.db) };
    }
}

/// A compiled statement.
pub struct Statement {
    handle: *mut ffi::sqlite3_stmt,
}

impl Statement {
    /// Number of the largest parameter.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        // SAFETY: a live statement.
        unsafe { ffi::sqlite3_bind_parameter_count(self.handle) }.max(0) as usize
    }

    /// Name of parameter `number` (from 1) with its prefix; `None` for `?` and for holes.
    #[must_use]
    pub fn parameter_name(&self, number: usize) -> Option<&str> {
        // SAFETY: a live statement; out of range gives null.
        let name = unsafe { ffi::sqlite3_bind_parameter_name(self.handle, number as c_int) };
        borrowed_text(name)
    }

    /// Number of result columns.
    #[must_use]
    pub fn column_count(&self) -> usize {
        // SAFETY: a live statement.
        unsafe { ffi::sqlite3_column_count(self.handle) }.max(0) as usize
    }

    /// Name of result column `index` (from 0).
    #[must_use]
    pub fn column_name(&self, index: usize) -> &str {
        // SAFETY: a live statement; out of range or out of memory gives null.
        let name = unsafe { ffi::sqlite3_column_name(self.handle, index as c_int) };
        borrowed_text(name).unwrap_or("")
    }

    /// Declared type of the table column behind result column `index`.
    #[must_use]
    pub fn column_declared_type(&self, index: usize) -> Option<&str> {
        // SAFETY: a live statement; an expression gives null.
        let name = unsafe { ffi::sqlite3_column_decltype(self.handle, index as c_int) };
        borrowed_text(name)
    }

    /// The statement does not write to the database.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        // SAFETY: a live statement.
        unsafe { ffi::sqlite3_stmt_readonly(self.handle) != 0 }
    }

    /// 1 for EXPLAIN, 2 for EXPLAIN QUERY PLAN, else 0.
    #[must_use]
    pub fn explain(&self) -> i32 {
        // SAFETY: a live statement.
        unsafe { ffi::sqlite3_stmt_isexplain(self.handle) }
    }

    /// Bind a value to parameter `number` (from 1); SQLite copies it.
    ///
    /// # Errors
    /// `SQLITE_RANGE`, `SQLITE_TOOBIG`, `SQLITE_NOMEM`.
    pub fn bind(&mut self, number: usize, value: ValueRef<'_>) -> Result<(), SqliteError> {
        let number = c_int::try_from(number).map_err(|_| SqliteError::of(ffi::SQLITE_RANGE))?;
        let copy = ffi::SQLITE_TRANSIENT();
        // SAFETY: a live statement; text and blobs are copied during the call.
        let code = unsafe {
            match value {
                ValueRef::Null => ffi::sqlite3_bind_null(self.handle, number),
                ValueRef::Integer(value) => ffi::sqlite3_bind_int64(self.handle, number, value),
                ValueRef::Real(value) => ffi::sqlite3_bind_double(self.handle, number, value),
                ValueRef::Text(text) => {
                    let start = text.as_ptr().cast();
                    let length = text.len() as u64;
                    let utf8 = ffi::SQLITE_UTF8 as u8;
                    ffi::sqlite3_bind_text64(self.handle, number, start, length, copy, utf8)
                }
                ValueRef::Blob([]) => ffi::sqlite3_bind_zeroblob(self.handle, number, 0),
                ValueRef::Blob(blob) => {
                    let start = blob.as_ptr().cast();
                    ffi::sqlite3_bind_blob64(self.handle, number, start, blob.len() as u64, copy)
                }
            }
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.error(code)) }
    }

    /// Run to the next row (`true`) or to the end (`false`).
    ///
    /// # Errors
    /// The statement's.
    pub fn step(&mut self, connection: &Connection) -> Result<bool, SqliteError> {
        let _entered = Entered::new(&connection.busy);
        connection.set_stepping(self.handle);
        let _ = fiber::with_meter(|meter| meter.set_stepping(true));
        // SAFETY: a live statement.
        let code = unsafe { ffi::sqlite3_step(self.handle) };
        let _ = fiber::with_meter(|meter| meter.set_stepping(false));
        connection.set_stepping(ptr::null_mut());
        if code != ffi::SQLITE_ROW && fiber::running() {
            // A promise of the writer lock that the statement did not use goes to the next waiter.
            with_volume(|volume| volume.locks.unreserve_writer(connection.id));
        }
        match code {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            // How a function of FTS5 is left, see sqlite/myriad_hooks.h.
            ffi::SQLITE_RANGE if fiber::is_interrupted() => {
                Err(SqliteError::of(ffi::SQLITE_INTERRUPT))
            }
            code => {
                connection.note_starving(code);
                Err(self.error(code))
            }
        }
    }

    /// The value in result column `index` of the current row.
    ///
    /// # Errors
    /// `SQLITE_NOMEM` if SQLite has no memory to show it.
    pub fn column(&self, index: usize) -> Result<ValueRef<'_>, SqliteError> {
        let index = index as c_int;
        // SAFETY: a live statement. The bytes stay until the next step or reset, which need `&mut`.
        // `column_blob` of a text gives its bytes without asking for a terminator, so it needs
        // memory only to write out a zeroblob.
        unsafe {
            Ok(match ffi::sqlite3_column_type(self.handle, index) {
                ffi::SQLITE_INTEGER => {
                    ValueRef::Integer(ffi::sqlite3_column_int64(self.handle, index))
                }
                ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_column_double(self.handle, index)),
                kind @ (ffi::SQLITE_TEXT | ffi::SQLITE_BLOB) => {
                    let start = ffi::sqlite3_column_blob(self.handle, index);
                    let length = ffi::sqlite3_column_bytes(self.handle, index).max(0) as usize;
                    if start.is_null() && length > 0 {
                        return Err(SqliteError::out_of_memory());
                    }
                    let bytes = if length == 0 {
                        &[]
                    } else {
                        slice::from_raw_parts(start.cast::<u8>(), length)
                    };
                    if kind == ffi::SQLITE_TEXT {
                        ValueRef::Text(bytes)
                    } else {
                        ValueRef::Blob(bytes)
                    }
                }
                _ => ValueRef::Null,
            })
        }
    }

    /// Make it ready to run again, its parameters unbound. The error of the last run is forgotten.
    pub fn reset(&mut self, connection: &Connection) {
        let _entered = Entered::new(&connection.busy);
        // SAFETY: a live statement. The result repeats the last step's error, which was returned.
        unsafe {
            ffi::sqlite3_reset(self.handle);
            ffi::sqlite3_clear_bindings(self.handle);
        }
    }

    /// Rows that full scans stepped over since the last call, and rows that sorts handled are not
    /// counted: `SQLITE_STMTSTATUS_FULLSCAN_STEP`.
    #[must_use]
    pub fn take_scan_steps(&mut self) -> u64 {
        take_counter(self.handle, ffi::SQLITE_STMTSTATUS_FULLSCAN_STEP)
    }

    /// Steps of the virtual machine since the last call, modulo 2^32: `SQLITE_STMTSTATUS_VM_STEP`.
    /// An attempt that found the schema changed is not in it.
    #[must_use]
    pub fn take_steps(&mut self) -> u64 {
        take_counter(self.handle, ffi::SQLITE_STMTSTATUS_VM_STEP)
    }

    fn error(&self, code: c_int) -> SqliteError {
        // SAFETY: a live statement's connection is open (`close_v2`).
        error_of(unsafe { ffi::sqlite3_db_handle(self.handle) }, code)
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: finalised once.
        unsafe { ffi::sqlite3_finalize(self.handle) };
    }
}

/// A counter of a live statement, of 32 bits; it begins anew.
fn take_counter(handle: *mut ffi::sqlite3_stmt, counter: c_int) -> u64 {
    // SAFETY: the callers' promise: a live statement.
    u64::from(unsafe { ffi::sqlite3_stmt_status(handle, counter, 1) } as u32)
}

/// A text that SQLite owns, borrowed from its statement; SQLite's names are UTF-8 or we drop them.
fn borrowed_text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: SQLite's texts are NUL-terminated and live as long as the statement they belong to,
    // to which every caller's signature binds the lifetime.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

unsafe extern "C" fn on_busy(connection: *mut c_void, count: c_int) -> c_int {
    /// Tries before a busy database is reported. The first may find the lock taken, the second has its
    /// promise: a third is a bug.
    const TRIES_MAX: c_int = 2;
    if !fiber::running() {
        return 0;
    }
    let id = ConnectionId(connection as usize as u32);
    let writer_for = with_volume(|volume| {
        let starves = count > TRIES_MAX && volume.locks.writer() != Some(id);
        volume.locks.starved += u64::from(starves);
        volume.locks.writer_for(id)
    });
    if count > TRIES_MAX {
        return 0;
    }
    match writer_for {
        // It can only be waiting for readers: it does not.
        WriterFor::Held => 0,
        WriterFor::Promised => 1,
        WriterFor::Others => c_int::from(matches!(suspend(Wait::Writer(id)), Answer::Ready)),
    }
}

unsafe extern "C" fn on_progress(_: *mut c_void) -> c_int {
    c_int::from(fiber::on_progress())
}
