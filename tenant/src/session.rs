//! A session: one SQL stream's connection, and running statements on it.
//!
//! Owns the connection, its cache of compiled statements, and the texts that a client stored. Runs
//! on a fiber of its tenant; between requests it is parked in the engine, or its connection goes
//! back to the tenant's idle ones.
//!
//! **Rows read** is what stock SQLite can tell without counting each step: rows that full scans
//! visited (`SQLITE_STMTSTATUS_FULLSCAN_STEP`, and the first row), or the rows returned if those are more. Rows
//! found through an index and then filtered away are not in it. **Rows written** are rows changed,
//! by triggers and foreign key actions too.
//!
//! **Costs** (`storage::meter`) must not depend on what a connection did before. Compiling is not in
//! them. What else a connection remembers is forgotten before a statement outside of a transaction,
//! if there is any of it: the planner's statistics, if somebody has changed them since, and what
//! modules of virtual tables keep in memory (FTS5 its index's structure, R-Tree its nodes), of which
//! their compiled statements tell.

mod mortal;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use storage::fiber::{self, with_volume};
use storage::ledger::{self, Booking};
use storage::sometimes;
use storage::sqlite::{Connection, Learnt, SqliteError, Statement, ValueRef, codes};

use crate::access::{Denials, Holder};
use crate::budget::RequestLimits;
use crate::failure::{
    Circumstances, ROLLED_BACK, cost_refused, memory_exceeded, memory_refused, name_of,
    statement_error,
};
use crate::limits;
use crate::policy;
use crate::statement::{
    Argument, Arguments, Ceiling, Column, Cost, Description, Executed, Row, RowSink, SqlStream,
    StatementError, StreamError,
};

/// A compiled statement and what was learnt when it was compiled.
struct Compiled {
    sql: Box<str>,
    statement: Statement,
    learnt: Learnt,
}

/// A connection and its compiled statements; outlives the session that uses it.
pub struct PooledConnection {
    // Statements first: they are finalised before the connection closes.
    cache: Vec<Compiled>,
    connection: Connection,
    /// Pages that the database may have, as this connection was last told.
    pub(crate) pages_max: u32,
    /// The planner's statistics that it has read, if it has read any.
    statistics: u64,
    /// Modules of virtual tables keep statements on it, and with them state of their own.
    has_inner: bool,
    /// Statistics were changed in the transaction that is open.
    changes_statistics: bool,
    temporary: Temporary,
}

/// The database of temporary tables, of which clients see nothing but what it costs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Temporary {
    /// Nothing was done about it.
    Untouched,
    /// It was made in the transaction that is open, and goes if that is rolled back.
    InTransaction,
    /// It has its first page.
    Made,
}

impl PooledConnection {
    /// Open a connection under the policy. Must run on a fiber.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open() -> Result<PooledConnection, SqliteError> {
        let mut connection = Connection::open()?;
        policy::confine(&mut connection);
        Ok(PooledConnection {
            cache: Vec::new(),
            connection,
            pages_max: limits::PAGES_MAX,
            statistics: with_volume(|volume| volume.statistics()),
            has_inner: false,
            changes_statistics: false,
            temporary: Temporary::Untouched,
        })
    }

    /// As [`open`](Self::open), for the catalogue, whose statements are always the same.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open_catalogue() -> Result<PooledConnection, SqliteError> {
        let mut pooled = PooledConnection::open()?;
        pooled.connection.plan_without_values()?;
        Ok(pooled)
    }

    /// As [`open`](Self::open), for a client's stream.
    ///
    /// # Errors
    /// What a client is told: whose memory does not suffice, or that it cannot be opened.
    pub(crate) fn open_stream() -> Result<PooledConnection, StreamError> {
        let refused_before = ledger::refused(fiber::account());
        // Who has no memory left may ask often: that is told before the work of opening is begun.
        let opened = match ledger::has_room(fiber::account(), Connection::OPEN_BYTES_MIN) {
            true => PooledConnection::open(),
            false => Err(SqliteError::out_of_memory()),
        };
        opened.map_err(|error| match refused_now(refused_before) {
            Some(refused) if error.primary() == codes::SQLITE_NOMEM => {
                sometimes!("a stream does not fit into its tenant's memory");
                memory_exceeded(&refused)
            }
            _ => StreamError::Unavailable,
        })
    }

    /// The connection itself.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Its id in the volume.
    #[must_use]
    pub fn id(&self) -> storage::volume::ConnectionId {
        self.connection.id()
    }

    /// Another stream may use it: no transaction is open, nothing on it was changed for good.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.connection.is_autocommit() && !self.connection.is_tainted()
    }

    /// Let it compile nothing that writes, or everything again.
    pub(crate) fn set_read_only(&mut self, read_only: bool) {
        let authorizer = if read_only { policy::authorize_reading } else { policy::authorize };
        self.connection.change_authorizer(authorizer);
    }

    /// Roll back what is open. Must run on a fiber.
    pub fn roll_back(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        self.connection.mark_statement();
        if let Ok((Some(mut statement), _)) = self.connection.prepare("ROLLBACK", false) {
            let _ = statement.step(&self.connection);
        }
    }

    /// Run one statement of our own and look at each of its rows.
    ///
    /// # Errors
    /// SQLite's.
    pub fn for_each_row(
        &mut self,
        sql: &str,
        arguments: &[ValueRef<'_>],
        mut row: impl FnMut(&Statement),
    ) -> Result<(), SqliteError> {
        let plain = |error: StatementError| SqliteError {
            code: codes::SQLITE_ERROR,
            message: error.message,
            offset: None,
        };
        let mut compiled = self.take_compiled(sql).map_err(plain)?;
        self.connection.mark_statement();
        let result = (|| {
            for (index, &argument) in arguments.iter().enumerate() {
                compiled.statement.bind(index + 1, argument)?;
            }
            while compiled.statement.step(&self.connection)? {
                row(&compiled.statement);
            }
            Ok(())
        })();
        compiled.statement.reset(&self.connection);
        // A client may run the same text next.
        let _ = (compiled.statement.take_steps(), compiled.statement.take_scan_steps());
        self.give_compiled(compiled);
        result
    }

    /// The integer in the first row and column; 0 if there is none.
    ///
    /// # Errors
    /// SQLite's.
    pub fn query_integer(&mut self, sql: &str) -> Result<i64, SqliteError> {
        let mut value = 0;
        self.for_each_row(sql, &[], |statement| {
            if let Ok(ValueRef::Integer(integer)) = statement.column(0) {
                value = integer;
            }
        })?;
        Ok(value)
    }

    fn take_compiled(&mut self, sql: &str) -> Result<Compiled, StatementError> {
        let found = self.cache.iter().position(|compiled| &*compiled.sql == sql);
        if let Some(index) = found {
            return Ok(self.cache.remove(index));
        }
        let keep = sql.len() <= limits::STATEMENT_CACHED_BYTES_MAX;
        let (statement, learnt, end) = self.prepare(sql, keep)?;
        let Some(statement) = statement else {
            return Err(StatementError::new(
                "SQL_NO_STATEMENT",
                "SQL string contains no statement",
            ));
        };
        if is_more_than_space(&sql[end..]) {
            match self.connection.prepare(&sql[end..], false) {
                Ok((None, _)) => {}
                Ok((Some(_), _)) | Err(_) => {
                    return Err(StatementError::new(
                        "SQL_MANY_STATEMENTS",
                        "SQL string contains more than one statement",
                    ));
                }
            }
        }
        Ok(Compiled { sql: sql.into(), statement, learnt })
    }

    /// Compile the first statement of `sql`: what was learnt, and where it ends.
    fn prepare(
        &mut self,
        sql: &str,
        keep: bool,
    ) -> Result<(Option<Statement>, Learnt, usize), StatementError> {
        let _ = self.connection.take_learnt();
        let prepared = self.connection.prepare(sql, keep);
        let (statement, end) = prepared.map_err(|error| {
            let learnt = self.connection.take_learnt();
            match error.primary() == codes::SQLITE_AUTH {
                true if learnt.too_deep => return too_deep(),
                true if learnt.write_refused => return write_refused(),
                _ => {}
            }
            self.failure(&error)
        })?;
        let learnt = self.connection.take_learnt();
        if self.temporary == Temporary::Untouched
            && statement.is_some()
            // Nobody is asked about a DROP of what is not there.
            && (learnt.reads_temporary || !learnt.judged || self.connection.is_temporary_open())
        {
            self.make_temporary()?;
            return self.prepare(sql, keep);
        }
        // R-Tree compiles its statements when it is first named.
        self.has_inner |= self.take_inner_steps(statement.as_ref()).0 > 0;
        Ok((statement, learnt, end))
    }

    /// A statement meets the database of temporary tables: each such statement is to find it there.
    fn make_temporary(&mut self) -> Result<(), StatementError> {
        self.connection.open_temporary().map_err(|error| self.failure(&error))?;
        self.temporary = match self.connection.is_autocommit() {
            true => Temporary::Made,
            false => Temporary::InTransaction,
        };
        Ok(())
    }

    /// Statements that modules keep on the connection, and their steps since the last call.
    fn take_inner_steps(&self, running: Option<&Statement>) -> (usize, u64) {
        let cached = self.cache.iter().map(|compiled| &compiled.statement);
        let ours: Vec<&Statement> = cached.chain(running).collect();
        self.connection.take_inner_steps(&ours)
    }

    /// Before a statement: forget what the connection remembers and a new one would not know.
    fn refresh(&mut self) -> Result<(), StatementError> {
        let statistics = with_volume(|volume| volume.statistics());
        let starved = self.connection.is_starved();
        let is_current = statistics == self.statistics && !self.has_inner && !starved;
        if is_current || !self.connection.is_autocommit() {
            return Ok(());
        }
        sometimes!("a connection forgets what a new one would not know");
        if starved {
            sometimes!("a stream goes on after its connection had no memory");
        }
        self.cache.clear();
        self.connection.forget_schema().map_err(|error| self.failure(&error))?;
        self.statistics = statistics;
        self.has_inner = false;
        Ok(())
    }

    /// After a run: its cost, and what it means for this connection and others.
    fn end_run(&mut self, compiled: &mut Compiled) -> Cost {
        let mut steps = compiled.statement.take_steps();
        // Where the run failed, nobody has asked for it.
        let _ = compiled.statement.take_scan_steps();
        if self.has_inner | self.connection.take_inner() {
            let (count, inner_steps) = self.take_inner_steps(Some(&compiled.statement));
            self.has_inner = count > 0;
            steps += inner_steps;
        }
        self.changes_statistics |=
            compiled.learnt.statistics | self.connection.take_learnt().statistics;
        let is_over = compiled.learnt.rolls_back || self.connection.is_autocommit();
        if is_over && self.temporary == Temporary::InTransaction {
            self.temporary = Temporary::Untouched;
        }
        if self.changes_statistics && self.connection.is_autocommit() {
            self.changes_statistics = false;
            with_volume(|volume| volume.on_statistics());
        }
        fiber::end_run(steps)
    }

    /// Where a module keeps pages of its own until the commit, as FTS5 does, a statement that ended for
    /// want of memory may have left half of them: a COMMIT would write an index that does not fit its
    /// table (seen with SQLite 3.54.1). So the transaction goes, as it does where a statement that writes is
    /// interrupted. True if it has.
    fn end_starved(&mut self, compiled: &Compiled, error: &StatementError) -> bool {
        let at_risk = self.has_inner
            && error.code == name_of(codes::SQLITE_NOMEM)
            && self.connection.is_starved()
            && !self.connection.is_autocommit()
            && !compiled.statement.is_readonly();
        if at_risk {
            sometimes!("a transaction ends because a module had no memory in it");
            self.roll_back();
        }
        at_risk && self.connection.is_autocommit()
    }

    /// Let the next compilation of `sql` see the schema as it is now: describing takes no step that
    /// would notice that this or another connection has changed it. An explicit transaction is
    /// left alone, because reading would begin its snapshot.
    fn forget_schema_of(&mut self, sql: &str) -> Result<(), StatementError> {
        self.cache.retain(|compiled| &*compiled.sql != sql);
        if !self.connection.is_autocommit() {
            return Ok(());
        }
        let read = self.for_each_row("SELECT 1 FROM sqlite_schema LIMIT 1", &[], |_| ());
        read.map_err(|error| self.failure(&error))
    }

    /// Keep a statement that was reset.
    fn give_compiled(&mut self, compiled: Compiled) {
        if compiled.sql.len() > limits::STATEMENT_CACHED_BYTES_MAX {
            return;
        }
        // EXPLAIN lists its program without the check of the schema that running it begins with,
        // and the program points to tables that may be gone by then: SQLite reads freed memory.
        if compiled.statement.explain() != 0 {
            return;
        }
        // With another schema all that is kept must be compiled anew. That it must, SQLite finds out inside
        // of a step, behind what begins it: FTS5 has written then what a transaction kept in memory, and
        // this statement is charged for it. (Seen where the table is there already.)
        if compiled.learnt.schema {
            self.cache.clear();
            return;
        }
        // Pragmas may read the schema after they were judged, which would count if they were compiled
        // anew inside a step.
        if compiled.learnt.pragma || compiled.learnt.statistics {
            return;
        }
        if self.cache.len() == limits::STATEMENTS_CACHED_MAX {
            self.cache.remove(0);
        }
        self.cache.push(compiled);
    }

    pub(crate) fn failure(&self, error: &SqliteError) -> StatementError {
        statement_error(
            error,
            Circumstances { refused: refused_now(0), ..Circumstances::default() },
        )
    }
}

/// Compiling it takes more stack than there is.
fn too_deep() -> StatementError {
    let name = crate::failure::name_of(codes::SQLITE_ERROR);
    let text = "SQLite error: the statement is nested too deeply: it has too many terms, subqueries or views";
    StatementError::new(name, text)
}

/// Who may only read wants to write.
fn write_refused() -> StatementError {
    sometimes!("a statement that writes is refused to who may only read");
    let name = crate::failure::name_of(codes::SQLITE_READONLY);
    let text = "SQLite error: attempt to write a readonly database: the token or key has the right to \
                read only";
    StatementError::new(name, text)
}

fn is_more_than_space(tail: &str) -> bool {
    tail.bytes().any(|byte| !byte.is_ascii_whitespace() && byte != b';')
}

/// What a budget refused last, if it refused more than `before` times.
fn refused_now(before: u64) -> Option<ledger::Refused> {
    let account = fiber::account();
    if ledger::refused(account) > before { ledger::last_refusal(account) } else { None }
}

/// See the head of the file.
pub struct Session {
    /// `None` only while the connection is being replaced.
    pub(crate) pooled: PooledConnection,
    stored: BTreeMap<i32, Box<str>>,
    /// Those texts, on the database's account.
    stored_booking: Booking,
    /// The engine took the writer lock away: told once, with the next statement.
    pub(crate) timed_out: bool,
    /// The ticket promised to a cursor's client.
    pub(crate) promised: Option<crate::statement::Ticket>,
    /// What held for the database when the present request began.
    pub(crate) limits: RequestLimits,
    /// Who holds the rights of the present request.
    pub(crate) holder: Holder,
    /// What its statements may not do, if anything.
    pub(crate) denials: Option<Box<Denials>>,
    /// Its statements may not end the transaction that they are in, nor begin one inside.
    pub(crate) keeps_transaction: bool,
    /// What the present request has cost, and what it may.
    cost: Cost,
    ceiling: Option<Box<Ceiling>>,
    /// The highest price of any request of its holder.
    cost_max: Option<u64>,
}

impl Session {
    pub(crate) fn new(pooled: PooledConnection, limits: &RequestLimits) -> Session {
        Session {
            pooled,
            stored: BTreeMap::new(),
            stored_booking: Booking::on(fiber::account()),
            timed_out: false,
            promised: None,
            limits: *limits,
            holder: Holder::default(),
            denials: None,
            keeps_transaction: false,
            cost: Cost::default(),
            ceiling: None,
            cost_max: None,
        }
    }

    /// The session, for a request under these limits and rights.
    pub(crate) fn under(
        mut self,
        limits: &RequestLimits,
        holder: Holder,
        denials: Option<Box<Denials>>,
        cost_max: Option<u64>,
    ) -> Session {
        let read_only = denials.as_ref().is_some_and(|denials| denials.read_only);
        self.pooled.set_read_only(read_only);
        Session { limits: *limits, holder, denials, cost_max, ..self }
    }

    /// Whether the request's rights suffice for a statement. It was compiled under them, or for another
    /// who had more: so what it writes is asked of SQLite too.
    fn permit(&self, compiled: &Compiled) -> Result<(), StatementError> {
        // What is asked below is asked after the last time that others had a turn.
        fiber::look();
        // A short statement runs to its end without a look at this: rights that were taken away while
        // the request waited for something are not for the next one.
        if self.holder != Holder::default() && fiber::is_interrupted() {
            sometimes!("a statement does not begin because its request is to end");
            let (code, message) = (codes::SQLITE_INTERRUPT, "interrupted".to_owned());
            let request_ns = self.limits.request_ns;
            let circumstances = Circumstances { request_ns, ..Circumstances::default() };
            return Err(statement_error(
                &SqliteError { code, message, offset: None },
                circumstances,
            ));
        }
        if self.keeps_transaction && compiled.learnt.controls {
            return Err(crate::migration::transaction_refused());
        }
        let writes = !compiled.statement.is_readonly();
        mortal::permit(writes)?;
        let Some(denials) = &self.denials else { return Ok(()) };
        if writes && denials.read_only {
            return Err(write_refused());
        }
        let blocked = match writes {
            true => denials.block_writes,
            // A transaction can be ended.
            false => denials.block_reads && !compiled.learnt.controls,
        };
        if !blocked {
            return Ok(());
        }
        sometimes!("a statement is refused because somebody has blocked it");
        let message = match &*denials.reason {
            "" => "Operation was blocked".to_owned(),
            reason => format!("Operation was blocked: {reason}"),
        };
        Err(StatementError::new("BLOCKED", message))
    }

    /// Run a compiled statement to its end and reset it; whatever comes of it, it is paid for.
    fn run_metered(
        &mut self,
        compiled: &mut Compiled,
        arguments: &Arguments<'_>,
        want_rows: bool,
        sink: &mut dyn RowSink,
    ) -> Result<Executed, StatementError> {
        // Who is beyond the ceiling may still end the transaction.
        if !compiled.learnt.rolls_back
            && let Some(exceeded) =
                self.ceiling.as_ref().and_then(|ceiling| ceiling.exceeded(&self.cost))
        {
            return Err(cost_refused(&exceeded));
        }
        let bounded = !compiled.learnt.rolls_back;
        if bounded {
            mortal::begin()?;
        }
        let ceiling = self.ceiling.as_deref().filter(|_| bounded);
        fiber::start_run(self.cost, ceiling.copied(), bounded);
        let mut failed_at_once = false;
        let mut result = self.run(compiled, arguments, want_rows, sink, &mut failed_at_once);
        // A statement that was stopped ends here, and may commit here.
        compiled.statement.reset(&self.pooled.connection);
        // It may have met a new schema and not compile any more: then it is told, and paid for, as if
        // it had been compiled now.
        if failed_at_once && let Err(error) = self.pooled.connection.prepare(&compiled.sql, false) {
            sometimes!("a compiled statement does not compile any more");
            fiber::void_run();
            let _ = compiled.statement.take_steps();
            result = Err(self.pooled.failure(&error));
        }
        let stopped = mortal::stopped(&self.pooled);
        let cost = self.pooled.end_run(compiled);
        self.cost += cost;
        if result.is_err() {
            result = result.map_err(|error| stopped.unwrap_or(error));
        }
        if let Err(error) = &mut result
            && self.pooled.end_starved(compiled, error)
        {
            error.message.push_str(ROLLED_BACK);
        }
        result.map(|executed| Executed { cost, ..executed })
    }

    fn run(
        &mut self,
        compiled: &mut Compiled,
        arguments: &Arguments<'_>,
        want_rows: bool,
        sink: &mut dyn RowSink,
        failed_at_once: &mut bool,
    ) -> Result<Executed, StatementError> {
        let started = fiber::now();
        let refused_before = ledger::refused(fiber::account());
        let autocommit_before = self.pooled.connection.is_autocommit();
        let changes_before = self.pooled.connection.total_changes();
        let failure = |session: &Session, error: &SqliteError| {
            if error.primary() == codes::SQLITE_AUTH && session.pooled.connection.was_too_deep() {
                // What a module compiled inside of the step.
                return too_deep();
            }
            let rolled_back = !autocommit_before && session.pooled.connection.is_autocommit();
            let circumstances = Circumstances {
                refused: refused_now(refused_before),
                rolled_back,
                in_transaction: !session.pooled.connection.is_autocommit(),
                cost: fiber::exceeded(),
                request_ns: session.limits.request_ns,
            };
            statement_error(error, circumstances)
        };
        let statement = &mut compiled.statement;
        bind(statement, arguments).map_err(|error| match error {
            BindError::Arguments(error) => error,
            BindError::Sqlite(error) => failure(self, &error),
        })?;
        self.pooled.connection.mark_statement();
        // A statement with columns takes its first step before they are told: if the schema has
        // changed since it was compiled, here or on another connection, this step compiles it
        // anew, and its columns may be others. One without is told before it has an effect.
        let step = |statement: &mut Statement| {
            statement.step(&self.pooled.connection).map_err(|error| failure(self, &error))
        };
        let mut first_step = |statement: &mut Statement| {
            statement.step(&self.pooled.connection).map_err(|error| {
                *failed_at_once = error.primary() == codes::SQLITE_ERROR;
                failure(self, &error)
            })
        };
        let has_columns = statement.column_count() > 0;
        let mut has_row = has_columns && first_step(statement)?;
        sink.columns(&mut (0..statement.column_count()).map(|index| Column {
            name: statement.column_name(index),
            declared_type: statement.column_declared_type(index),
        }))?;
        if !has_columns {
            has_row = first_step(statement)?;
        }
        let mut rows = 0;
        while has_row {
            rows += 1;
            if want_rows {
                let row = CurrentRow::of(statement);
                let taken = sink.row(&row);
                fiber::count_result_bytes(row.bytes.get());
                taken?;
                if let Some(code) = row.failed.get() {
                    let error = SqliteError { code, message: "out of memory".into(), offset: None };
                    return Err(failure(self, &error));
                }
            }
            has_row = step(statement)?;
        }
        let written = self.pooled.connection.total_changes() - changes_before;
        let scanned = statement.take_scan_steps();
        Ok(Executed {
            affected_rows: if written == 0 { 0 } else { self.pooled.connection.changes() },
            last_insert_rowid: compiled
                .learnt
                .inserts
                .then(|| self.pooled.connection.last_insert_rowid()),
            rows_read: rows.max(if scanned > 0 { scanned + 1 } else { 0 }),
            rows_written: written,
            duration_ns: fiber::now().since(started),
            cost: Cost::default(),
        })
    }

    fn give_stored(&mut self, sql: &str) {
        self.stored_booking.shrink_to(self.stored_booking.bytes() - stored_bytes(sql));
    }

    fn check_timed_out(&mut self) -> Result<(), StatementError> {
        if std::mem::take(&mut self.timed_out) {
            return Err(StatementError::new("TRANSACTION_TIMEOUT", "Transaction timed out"));
        }
        Ok(())
    }
}

impl SqlStream for Session {
    fn begin_request(&mut self, ceiling: Option<Box<Ceiling>>) {
        self.cost = Cost::default();
        self.ceiling = ceiling;
        if let Some(most) = self.cost_max {
            let ceiling = self.ceiling.get_or_insert_default();
            ceiling.price = ceiling.price.min(most);
            ceiling.prices = limits::PRICES;
        }
    }

    fn request_cost(&self) -> Cost {
        self.cost
    }

    fn execute(
        &mut self,
        sql: &str,
        arguments: &Arguments<'_>,
        want_rows: bool,
        sink: &mut dyn RowSink,
    ) -> Result<Executed, StatementError> {
        self.check_timed_out()?;
        self.pooled.refresh()?;
        let room = self.limit_room()?;
        let mut compiled = self.pooled.take_compiled(sql)?;
        if let Err(error) = self.permit(&compiled) {
            self.pooled.give_compiled(compiled);
            return Err(error);
        }
        let result = self.run_metered(&mut compiled, arguments, want_rows, sink);
        self.pooled.give_compiled(compiled);
        result.map_err(|error| self.explain_full(error, room))
    }

    fn sequence(&mut self, sql: &str) -> Result<(), StatementError> {
        self.check_timed_out()?;
        let mut rest = sql;
        while !rest.is_empty() {
            self.pooled.refresh()?;
            let (statement, learnt, end) = self.pooled.prepare(rest, false)?;
            let sql = &rest[..end];
            rest = &rest[end..];
            let Some(statement) = statement else { continue };
            let mut compiled = Compiled { sql: sql.into(), statement, learnt };
            self.permit(&compiled)?;
            let room = self.limit_room()?;
            let result = self.run_metered(&mut compiled, &Arguments::default(), false, &mut NoRows);
            result.map_err(|error| self.explain_full(error, room))?;
        }
        Ok(())
    }

    fn describe(&mut self, sql: &str) -> Result<Description, StatementError> {
        self.check_timed_out()?;
        self.pooled.refresh()?;
        self.pooled.forget_schema_of(sql)?;
        let compiled = self.pooled.take_compiled(sql)?;
        let statement = &compiled.statement;
        let description = Description {
            parameters: (1..=statement.parameter_count())
                .map(|number| statement.parameter_name(number).map(str::to_owned))
                .collect(),
            columns: (0..statement.column_count())
                .map(|index| {
                    let declared_type = statement.column_declared_type(index);
                    (statement.column_name(index).to_owned(), declared_type.map(str::to_owned))
                })
                .collect(),
            is_explain: statement.explain() != 0,
            is_readonly: statement.is_readonly(),
        };
        self.pooled.give_compiled(compiled);
        Ok(description)
    }

    fn is_autocommit(&self) -> bool {
        self.pooled.connection.is_autocommit()
    }

    fn store_sql(&mut self, sql_id: i32, sql: &str) -> Result<(), StatementError> {
        if sql.len() > limits::STORED_SQL_BYTES_MAX {
            let message = format!(
                "SQL text of {} bytes is larger than the limit of {} bytes for stored texts",
                sql.len(),
                limits::STORED_SQL_BYTES_MAX
            );
            return Err(StatementError::new("SQL_STORE_TOO_LARGE", message));
        }
        if self.stored.len() >= limits::STORED_SQL_MAX {
            let message = format!(
                "the stream already stores {} SQL texts, its limit",
                limits::STORED_SQL_MAX
            );
            return Err(StatementError::new("SQL_STORE_TOO_MANY", message));
        }
        if !self.stored_booking.grow_to(self.stored_booking.bytes() + stored_bytes(sql)) {
            sometimes!("a stored text exceeds its tenant's memory");
            return Err(memory_refused("the stored SQL text", ""));
        }
        if let Some(before) = self.stored.insert(sql_id, sql.into()) {
            self.give_stored(&before);
        }
        Ok(())
    }

    fn close_sql(&mut self, sql_id: i32) {
        if let Some(sql) = self.stored.remove(&sql_id) {
            self.give_stored(&sql);
        }
    }

    fn stored_sql(&self, sql_id: i32) -> Option<&str> {
        self.stored.get(&sql_id).map(|sql| &**sql)
    }
}

/// What a stored text is booked with: itself, and its place in the list.
fn stored_bytes(sql: &str) -> u64 {
    sql.len() as u64 + 64
}

pub(crate) struct NoRows;

impl RowSink for NoRows {
    fn columns(&mut self, _: &mut dyn Iterator<Item = Column<'_>>) -> Result<(), StatementError> {
        Ok(())
    }
    fn row(&mut self, _: &dyn Row) -> Result<(), StatementError> {
        Ok(())
    }
}

struct CurrentRow<'a> {
    statement: &'a Statement,
    failed: Cell<Option<i32>>,
    /// Of the values that were looked at.
    bytes: Cell<u64>,
}

impl<'a> CurrentRow<'a> {
    fn of(statement: &'a Statement) -> CurrentRow<'a> {
        CurrentRow { statement, failed: Cell::new(None), bytes: Cell::new(0) }
    }
}

impl Row for CurrentRow<'_> {
    fn column_count(&self) -> usize {
        self.statement.column_count()
    }
    fn value(&self, index: usize) -> ValueRef<'_> {
        let value = self.statement.column(index).unwrap_or_else(|error| {
            self.failed.set(Some(error.code));
            ValueRef::Null
        });
        self.bytes.set(self.bytes.get() + bytes_of(value));
        value
    }
}

/// Bytes of a value as SQLite holds it: 8 for a number, 1 for NULL, the length of a text or blob.
fn bytes_of(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() as u64,
    }
}

enum BindError {
    Arguments(StatementError),
    Sqlite(SqliteError),
}

impl From<SqliteError> for BindError {
    fn from(error: SqliteError) -> BindError {
        BindError::Sqlite(error)
    }
}

fn invalid(text: impl std::fmt::Display) -> BindError {
    let message = format!("Arguments do not match SQL parameters: {text}");
    BindError::Arguments(StatementError::new("ARGS_INVALID", message))
}

fn value_of<'a>(argument: &'a Argument<'_>) -> ValueRef<'a> {
    match argument {
        Argument::Null => ValueRef::Null,
        Argument::Integer(value) => ValueRef::Integer(*value),
        Argument::Real(value) => ValueRef::Real(*value),
        Argument::Text(text) => ValueRef::Text(text.as_bytes()),
        Argument::Blob(blob) => ValueRef::Blob(blob),
    }
}

/// Bind as libSQL servers do: positional arguments fill `?` and `?NNN`, named ones `:a`, `@a` and
/// `$a` with or without their sign; a parameter without a value is an error, and so are more
/// positional arguments than parameters.
fn bind(statement: &mut Statement, arguments: &Arguments<'_>) -> Result<(), BindError> {
    let count = statement.parameter_count();
    let Arguments { positional, named } = arguments;
    if positional.len() > count {
        return Err(invalid("too many parameters"));
    }
    if !positional.is_empty() && !named.is_empty() {
        return Err(BindError::Arguments(StatementError::new(
            "ARGS_BOTH_POSITIONAL_AND_NAMED",
            "Specifying both positional and named arguments is not supported",
        )));
    }
    for number in 1..=count {
        let name = statement.parameter_name(number).map(Cow::Borrowed);
        let is_named = name.as_ref().is_some_and(|name| !name.starts_with('?'));
        let by_name = name.as_ref().and_then(|name| {
            let bare = &name[1..];
            named.iter().find(|(given, _)| given == name || given == bare)
        });
        if let Some((_, argument)) = by_name {
            statement.bind(number, value_of(argument))?;
            continue;
        }
        match positional.get(number - 1) {
            Some(argument) if !is_named => statement.bind(number, value_of(argument))?,
            // A number that the text leaves out (`?1, ?3`) may go without.
            None if name.is_none() && !named.is_empty() => {}
            _ => {
                let name = name.map_or_else(|| number.to_string(), Cow::into_owned);
                return Err(invalid(format_args!("value for parameter {name} not found")));
            }
        }
    }
    Ok(())
}
