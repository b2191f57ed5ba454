//! An engine for protocol tests: each stream is an in-memory SQLite database of its own, parked
//! streams stand in a map, time stands still unless a test moves it.

use std::cell::Cell;
use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};
use server::baton::BatonKey;
use tenant::budget::{Exceeded, Part};
use tenant::{
    Argument, Arguments, Ceiling, Column, Cost, Description, Executed, Gone, JobHost, Row, RowSink,
    SqlStream, StatementError, StreamError, Ticket,
};

pub struct Engine {
    pub tenant_id: u64,
    pub now_ns: Cell<u64>,
    /// Each look at the clock moves it by this.
    pub tick_ns: u64,
    /// Streams that may be open, parked ones included.
    pub streams_max: usize,
    /// Parts that are taken before the reader goes away.
    pub parts_max: usize,
    /// What was flushed, a part each.
    pub parts: Vec<Vec<u8>>,
    pub parked: BTreeMap<Ticket, Stream>,
    pub batons: BatonKey,
    /// `open`, `resume`, `park`, `close`, in order.
    pub events: Vec<&'static str>,
    tickets: u64,
}

impl Engine {
    pub fn new() -> Engine {
        Engine {
            tenant_id: 7,
            now_ns: Cell::new(1_000_000_000_000),
            tick_ns: 0,
            streams_max: 10,
            parts_max: usize::MAX,
            parts: Vec::new(),
            parked: BTreeMap::new(),
            batons: BatonKey::new([9; 32]),
            events: Vec::new(),
            tickets: 0,
        }
    }

    fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

pub struct Stream {
    connection: Connection,
    stored: BTreeMap<i32, String>,
    promised: Option<Ticket>,
    cost: Cost,
}

impl JobHost for Engine {
    type Stream = Stream;

    fn open_stream(&mut self) -> Result<Stream, StreamError> {
        if self.parked.len() >= self.streams_max {
            let (used, limit) = (self.parked.len() as u64, self.streams_max as u64);
            let exceeded = Exceeded { part: Part::Streams, limit, used, wanted: 1 };
            return Err(StreamError::Exceeded(exceeded));
        }
        self.events.push("open");
        Ok(Stream {
            connection: Connection::open_in_memory().expect("memory is there"),
            stored: BTreeMap::new(),
            promised: None,
            cost: Cost::default(),
        })
    }

    fn resume_stream(&mut self, ticket: Ticket) -> Result<Stream, StreamError> {
        let stream = self.parked.remove(&ticket).ok_or(StreamError::Unknown)?;
        self.events.push("resume");
        Ok(stream)
    }

    fn promise(&mut self, stream: &mut Stream) -> Ticket {
        let ticket = self.next_ticket();
        stream.promised = Some(ticket);
        ticket
    }

    fn park(&mut self, mut stream: Stream) -> Ticket {
        self.events.push("park");
        let ticket = stream.promised.take();
        let ticket = ticket.unwrap_or_else(|| self.next_ticket());
        self.parked.insert(ticket, stream);
        ticket
    }

    fn close(&mut self, _stream: Stream) {
        self.events.push("close");
    }

    fn flush(&mut self, part: Vec<u8>) -> Result<Vec<u8>, Gone> {
        if self.parts.len() >= self.parts_max {
            return Err(Gone);
        }
        self.parts.push(part);
        Ok(Vec::new())
    }

    fn response_bytes_max(&self) -> u64 {
        u64::MAX
    }

    fn tenant_id(&self) -> u64 {
        self.tenant_id
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.replace(self.now_ns.get() + self.tick_ns)
    }
}

struct RowOf<'r>(&'r rusqlite::Row<'r>, usize);

impl Row for RowOf<'_> {
    fn column_count(&self) -> usize {
        self.1
    }

    fn value(&self, index: usize) -> tenant::ValueRef<'_> {
        match self.0.get_ref(index).expect("the column exists") {
            ValueRef::Null => tenant::ValueRef::Null,
            ValueRef::Integer(integer) => tenant::ValueRef::Integer(integer),
            ValueRef::Real(real) => tenant::ValueRef::Real(real),
            ValueRef::Text(text) => tenant::ValueRef::Text(text),
            ValueRef::Blob(blob) => tenant::ValueRef::Blob(blob),
        }
    }
}

fn failed(error: &rusqlite::Error) -> StatementError {
    match error {
        rusqlite::Error::MultipleStatement => StatementError::new(
            "SQL_MANY_STATEMENTS",
            "SQL string contains more than one statement",
        ),
        rusqlite::Error::SqliteFailure(cause, message) => {
            let code = match cause.code {
                rusqlite::ErrorCode::ConstraintViolation => "SQLITE_CONSTRAINT",
                _ => "SQLITE_UNKNOWN",
            };
            let message = message.clone().unwrap_or_default();
            StatementError::new(code, format!("SQLite error: {message}"))
        }
        rusqlite::Error::SqlInputError { msg, .. } => {
            StatementError::new("SQL_INPUT_ERROR", format!("SQL input error: {msg}"))
        }
        other => StatementError::new("SQLITE_UNKNOWN", other.to_string()),
    }
}

struct Bound<'a>(&'a Argument<'a>);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Argument::Null => ValueRef::Null,
            Argument::Integer(integer) => ValueRef::Integer(*integer),
            Argument::Real(real) => ValueRef::Real(*real),
            Argument::Text(text) => ValueRef::Text(text.as_bytes()),
            Argument::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn bind(
    statement: &mut rusqlite::Statement<'_>,
    arguments: &Arguments<'_>,
) -> Result<(), StatementError> {
    let invalid = |text: &str| StatementError::new("ARGS_INVALID", text);
    for (index, argument) in arguments.positional.iter().enumerate() {
        let bound = statement.raw_bind_parameter(index + 1, Bound(argument));
        bound.map_err(|_| invalid("too many parameters"))?;
    }
    for (name, argument) in &arguments.named {
        let names = ["", ":", "@", "$"].map(|prefix| format!("{prefix}{name}"));
        let index = names.iter().find_map(|name| statement.parameter_index(name).ok().flatten());
        let index = index.ok_or_else(|| invalid("no such parameter"))?;
        let bound = statement.raw_bind_parameter(index, Bound(argument));
        bound.map_err(|error| failed(&error))?;
    }
    Ok(())
}

impl SqlStream for Stream {
    fn begin_request(&mut self, _: Option<Box<Ceiling>>) {
        self.cost = Cost::default();
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
        let changes_before = self.connection.total_changes();
        let mut statement = self.connection.prepare(sql).map_err(|e| failed(&e))?;
        bind(&mut statement, arguments)?;
        let column_count = statement.column_count();
        {
            let columns: Vec<_> = statement.columns().collect();
            let mut columns = columns
                .iter()
                .map(|column| Column { name: column.name(), declared_type: column.decl_type() });
            sink.columns(&mut columns)?;
        }
        let mut rows = statement.raw_query();
        let mut rows_read = 0;
        while let Some(row) = rows.next().map_err(|e| failed(&e))? {
            rows_read += 1;
            if want_rows {
                sink.row(&RowOf(row, column_count))?;
            }
        }
        drop(rows);
        drop(statement);
        let rows_written = self.connection.total_changes() - changes_before;
        let is_insert = sql.trim_start().to_ascii_lowercase().starts_with("insert");
        let cost = Cost { vm_steps: 7, ..Cost::default() };
        self.cost += cost;
        Ok(Executed {
            affected_rows: rows_written,
            last_insert_rowid: is_insert.then(|| self.connection.last_insert_rowid()),
            rows_read,
            rows_written,
            duration_ns: 110_000,
            cost,
        })
    }

    fn sequence(&mut self, sql: &str) -> Result<(), StatementError> {
        self.connection.execute_batch(sql).map_err(|e| failed(&e))
    }

    fn describe(&mut self, sql: &str) -> Result<Description, StatementError> {
        let statement = self.connection.prepare(sql).map_err(|e| failed(&e))?;
        let parameters = (1..=statement.parameter_count())
            .map(|index| statement.parameter_name(index).map(str::to_owned))
            .collect();
        let columns = statement.columns();
        let columns =
            columns.map(|column| (column.name().to_owned(), column.decl_type().map(str::to_owned)));
        Ok(Description {
            parameters,
            columns: columns.collect(),
            is_explain: statement.is_explain() != 0,
            is_readonly: statement.readonly(),
        })
    }

    fn is_autocommit(&self) -> bool {
        self.connection.is_autocommit()
    }

    fn store_sql(&mut self, sql_id: i32, sql: &str) -> Result<(), StatementError> {
        if sql.len() > 5000 {
            return Err(StatementError::new("SQL_STORE_TOO_LARGE", "the text is too long"));
        }
        let before = self.stored.insert(sql_id, sql.to_owned());
        assert_eq!(before, None, "the protocol checks ids");
        Ok(())
    }

    fn close_sql(&mut self, sql_id: i32) {
        self.stored.remove(&sql_id);
    }

    fn stored_sql(&self, sql_id: i32) -> Option<&str> {
        self.stored.get(&sql_id).map(String::as_str)
    }
}
