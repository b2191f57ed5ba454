//! Request bodies: JSON in, requests out, borrowed from the body where they can be.
//!
//! The whole body is decoded before anything runs. Refused with 400: what is not JSON or not
//! UTF-8, control fields given twice, numbers of the wrong kind, unknown types, both or neither of
//! `sql` and `sql_id`, forward references in conditions, and more than the named limits. Unknown
//! fields are skipped, absent and null are the same.

use smallvec::SmallVec;
use std::borrow::Cow;
use std::cell::Cell;

use serde::de::{DeserializeSeed, Error, MapAccess};
use storage::ledger::Booking;
use tenant::{Argument, Arguments};

use super::ProtocolVersion;
use super::condition::{Condition, ConditionFields};
use super::fields::{Fields, Items, Object, Slot, Text};
use super::value::{Named, Positional};
use super::{output, stream};
use crate::limits::{
    DECODED_ITEM_BYTES_MAX, DECODED_ITEMS_BOOKED, DECODED_ITEMS_MAX, ERROR_MESSAGE_BYTES_MAX,
};
use crate::problem::Problem;

/// What the decoders of one body share.
pub(super) struct Context {
    /// `get_autocommit` and `is_autocommit` exist.
    pub has_autocommit: bool,
    items_left: Cell<u32>,
    /// The items, on the account of the database that is asked; `None` after that was refused.
    booking: Cell<Option<Booking>>,
}

impl Context {
    fn new(has_autocommit: bool) -> Context {
        let booking = Cell::new(Some(output::booking()));
        Context { has_autocommit, items_left: Cell::new(DECODED_ITEMS_MAX), booking }
    }

    /// Count one request, step or condition.
    pub fn take_item<E: Error>(&self) -> Result<(), E> {
        match self.items_left.get().checked_sub(1) {
            Some(items_left) => {
                self.items_left.set(items_left);
                self.book(DECODED_ITEMS_MAX - items_left)
            }
            None => Err(E::custom(format_args!(
                "the body holds more than {DECODED_ITEMS_MAX} requests, steps and conditions; \
                 send it in smaller pieces"
            ))),
        }
    }

    /// A body of 0.7 MB can be eight of them decoded, for as long as its first statement waits for a lock.
    fn book<E: Error>(&self, items: u32) -> Result<(), E> {
        if !items.is_multiple_of(DECODED_ITEMS_BOOKED) {
            return Ok(());
        }
        let booking = self.booking.take();
        let bytes = u64::from(items) * DECODED_ITEM_BYTES_MAX as u64;
        match booking.map(|mut booking| (booking.grow_to(bytes), booking)) {
            Some((true, booking)) => {
                self.booking.set(Some(booking));
                Ok(())
            }
            _ => Err(E::custom("the requests, steps and conditions do not fit into memory")),
        }
    }

    /// Decode with this.
    fn decode<'a, S>(&self, body: &'a [u8], seed: S) -> Result<S::Value, Problem>
    where
        S: DeserializeSeed<'a>,
    {
        let decoded = decode(body, seed);
        let booking = self.booking.take();
        let is_refused = booking.is_none();
        self.booking.set(booking);
        decoded.map_err(|problem| match is_refused {
            true => stream::refusal(tenant::request_refused()),
            false => problem,
        })
    }

    /// What is booked, for as long as what was decoded is there.
    fn into_booking(self) -> Booking {
        self.booking.into_inner().expect("a body that is refused is not used")
    }
}

/// Where a statement's text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SqlText<'a> {
    Inline(Cow<'a, str>),
    /// The stream keeps it.
    Stored(i32),
}

/// One statement with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement<'a> {
    pub text: SqlText<'a>,
    pub arguments: Arguments<'a>,
    pub want_rows: bool,
}

/// One step of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step<'a> {
    pub statement: Statement<'a>,
    pub condition: Option<Condition>,
}

/// One request of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum StreamRequest<'a> {
    Close,
    Execute(Statement<'a>),
    Batch(Vec<Step<'a>>),
    Sequence(SqlText<'a>),
    Describe(SqlText<'a>),
    StoreSql { sql_id: i32, sql: Cow<'a, str> },
    CloseSql { sql_id: i32 },
    GetAutocommit,
}

const _: () = assert!(size_of::<StreamRequest<'_>>() <= DECODED_ITEM_BYTES_MAX);
const _: () = assert!(size_of::<Step<'_>>() <= DECODED_ITEM_BYTES_MAX);
const _: () = assert!(size_of::<Condition>() <= DECODED_ITEM_BYTES_MAX);

/// The body of a pipeline request.
pub(super) struct PipelineBody<'a> {
    /// What the rest takes, booked while it is there.
    _booking: Booking,
    pub baton: Option<Cow<'a, str>>,
    pub requests: SmallVec<[StreamRequest<'a>; 2]>,
}

/// The body of a cursor request.
pub(super) struct CursorBody<'a> {
    /// What the rest takes, booked while it is there.
    _booking: Booking,
    pub baton: Option<Cow<'a, str>>,
    pub steps: Vec<Step<'a>>,
}

/// Decode a pipeline's body.
pub(super) fn pipeline(body: &[u8], version: ProtocolVersion) -> Result<PipelineBody<'_>, Problem> {
    let context = Context::new(version == ProtocolVersion::V3);
    let mut fields = BodyFields::new(&context);
    context.decode(body, Object(&mut fields))?;
    let requests = fields.requests.required("requests").map_err(problem)?;
    let close = |request: &StreamRequest<'_>| *request == StreamRequest::Close;
    if let Some(at) = requests.iter().position(close)
        && at + 1 < requests.len()
    {
        return Err(Problem::new(400, "STREAM_CLOSED", "Stream for this baton was closed"));
    }
    let baton = fields.baton.into_option().map(|text| text.0);
    Ok(PipelineBody { _booking: context.into_booking(), baton, requests })
}

/// Decode a cursor's body.
pub(super) fn cursor(body: &[u8]) -> Result<CursorBody<'_>, Problem> {
    let context = Context::new(true);
    let mut fields = BodyFields::new(&context);
    context.decode(body, Object(&mut fields))?;
    let baton = fields.baton.into_option().map(|text| text.0);
    let steps = fields.batch.required("batch").map_err(problem)?;
    Ok(CursorBody { _booking: context.into_booking(), baton, steps })
}

/// Decode the body of a v1 execute call.
pub(super) fn v1_execute(body: &[u8]) -> Result<Statement<'_>, Problem> {
    let context = Context::new(false);
    let mut fields = BodyFields::new(&context);
    context.decode(body, Object(&mut fields))?;
    fields.statement.required("stmt").map_err(problem)
}

/// Decode the body of a v1 batch call.
pub(super) fn v1_batch(body: &[u8]) -> Result<(Vec<Step<'_>>, Booking), Problem> {
    let context = Context::new(false);
    let mut fields = BodyFields::new(&context);
    context.decode(body, Object(&mut fields))?;
    let steps = fields.batch.required("batch").map_err(problem)?;
    Ok((steps, context.into_booking()))
}

fn decode<'a, S: DeserializeSeed<'a>>(body: &'a [u8], seed: S) -> Result<S::Value, Problem> {
    // Also what stands in fields that are skipped must be UTF-8.
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Problem::body(format!("the body is not UTF-8 at byte {at}"))
    })?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer).map_err(problem)?;
    deserializer.end().map_err(problem)?;
    Ok(value)
}

fn problem(error: serde_json::Error) -> Problem {
    let mut message = format!("the body was not understood: {error}");
    // It may quote the body.
    message.truncate(message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX));
    Problem::body(message)
}

/// The outermost object of every call; each call uses its own fields of it.
struct BodyFields<'c, 'a> {
    context: &'c Context,
    baton: Slot<Text<'a>>,
    requests: Slot<SmallVec<[StreamRequest<'a>; 2]>>,
    batch: Slot<Vec<Step<'a>>>,
    statement: Slot<Statement<'a>>,
}

impl<'c, 'a> BodyFields<'c, 'a> {
    fn new(context: &'c Context) -> BodyFields<'c, 'a> {
        BodyFields {
            context,
            baton: Slot::default(),
            requests: Slot::default(),
            batch: Slot::default(),
            statement: Slot::default(),
        }
    }
}

impl<'a> Fields<'a> for &mut BodyFields<'_, 'a> {
    type Output = ();

    fn field<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let context = self.context;
        match name {
            "baton" => self.baton.read("baton", map),
            "requests" => self.requests.read_list("requests", map, Requests { context }),
            "batch" => {
                let batch = Object(BatchFields::new(context));
                self.batch.read_by("batch", map, batch)
            }
            "stmt" => {
                let statement = Object(StatementFields::default());
                self.statement.read_by("stmt", map, statement)
            }
            _ => Ok(false),
        }
    }

    fn finish<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

struct Requests<'c> {
    context: &'c Context,
}

impl<'c, 'a: 'c> Items<'a> for Requests<'c> {
    type Seed = Object<RequestFields<'c, 'a>>;
    type Output = SmallVec<[StreamRequest<'a>; 2]>;

    fn seed<E: Error>(&mut self, _index: usize) -> Result<Self::Seed, E> {
        Ok(Object(RequestFields {
            context: self.context,
            kind: Slot::default(),
            statement: Slot::default(),
            batch: Slot::default(),
            sql: Slot::default(),
            sql_id: Slot::default(),
        }))
    }
}

struct RequestFields<'c, 'a> {
    context: &'c Context,
    kind: Slot<Text<'a>>,
    statement: Slot<Statement<'a>>,
    batch: Slot<Vec<Step<'a>>>,
    sql: Slot<Text<'a>>,
    sql_id: Slot<i32>,
}

impl<'a> Fields<'a> for RequestFields<'_, 'a> {
    type Output = StreamRequest<'a>;

    fn field<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "type" => self.kind.read("type", map),
            "sql" => self.sql.read("sql", map),
            "sql_id" => self.sql_id.read("sql_id", map),
            "stmt" => {
                let statement = Object(StatementFields::default());
                self.statement.read_by("stmt", map, statement)
            }
            "batch" => {
                let batch = Object(BatchFields::new(self.context));
                self.batch.read_by("batch", map, batch)
            }
            _ => Ok(false),
        }
    }

    fn finish<E: Error>(self) -> Result<StreamRequest<'a>, E> {
        self.context.take_item()?;
        let kind = self.kind.required::<E>("type")?;
        match &*kind.0 {
            "close" => Ok(StreamRequest::Close),
            "execute" => Ok(StreamRequest::Execute(self.statement.required("stmt")?)),
            "batch" => Ok(StreamRequest::Batch(self.batch.required("batch")?)),
            "sequence" => Ok(StreamRequest::Sequence(sql_text(self.sql, self.sql_id)?)),
            "describe" => Ok(StreamRequest::Describe(sql_text(self.sql, self.sql_id)?)),
            "store_sql" => Ok(StreamRequest::StoreSql {
                sql_id: self.sql_id.required("sql_id")?,
                sql: self.sql.required("sql")?.0,
            }),
            "close_sql" => Ok(StreamRequest::CloseSql { sql_id: self.sql_id.required("sql_id")? }),
            "get_autocommit" if self.context.has_autocommit => Ok(StreamRequest::GetAutocommit),
            _ => Err(E::custom("unknown type of a request in this version")),
        }
    }
}

fn sql_text<'a, E: Error>(sql: Slot<Text<'a>>, sql_id: Slot<i32>) -> Result<SqlText<'a>, E> {
    match (sql.into_option(), sql_id.into_option()) {
        (Some(sql), None) => Ok(SqlText::Inline(sql.0)),
        (None, Some(sql_id)) => Ok(SqlText::Stored(sql_id)),
        (Some(_), Some(_)) => Err(E::custom("there must not be both `sql` and `sql_id`")),
        (None, None) => Err(E::custom("there must be `sql` or `sql_id`")),
    }
}

struct BatchFields<'c, 'a> {
    context: &'c Context,
    steps: Slot<Vec<Step<'a>>>,
}

impl<'c> BatchFields<'c, '_> {
    fn new(context: &'c Context) -> Self {
        BatchFields { context, steps: Slot::default() }
    }
}

impl<'a> Fields<'a> for BatchFields<'_, 'a> {
    type Output = Vec<Step<'a>>;

    fn field<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "steps" => self.steps.read_list("steps", map, Steps { context: self.context }),
            _ => Ok(false),
        }
    }

    fn finish<E: Error>(self) -> Result<Vec<Step<'a>>, E> {
        self.steps.required("steps")
    }
}

struct Steps<'c> {
    context: &'c Context,
}

impl<'c, 'a: 'c> Items<'a> for Steps<'c> {
    type Seed = Object<StepFields<'c, 'a>>;
    type Output = Vec<Step<'a>>;

    fn seed<E: Error>(&mut self, index: usize) -> Result<Self::Seed, E> {
        Ok(Object(StepFields {
            context: self.context,
            index,
            statement: Slot::default(),
            condition: Slot::default(),
        }))
    }
}

struct StepFields<'c, 'a> {
    context: &'c Context,
    index: usize,
    statement: Slot<Statement<'a>>,
    condition: Slot<Condition>,
}

impl<'a> Fields<'a> for StepFields<'_, 'a> {
    type Output = Step<'a>;

    fn field<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "stmt" => {
                let statement = Object(StatementFields::default());
                self.statement.read_by("stmt", map, statement)
            }
            "condition" => {
                let seed = ConditionFields::seed(self.context, self.index, 1)?;
                self.condition.read_by("condition", map, seed)
            }
            _ => Ok(false),
        }
    }

    fn finish<E: Error>(self) -> Result<Step<'a>, E> {
        self.context.take_item()?;
        Ok(Step {
            statement: self.statement.required("stmt")?,
            condition: self.condition.into_option(),
        })
    }
}

#[derive(Default)]
struct StatementFields<'a> {
    sql: Slot<Text<'a>>,
    sql_id: Slot<i32>,
    positional: Slot<SmallVec<[Argument<'a>; 2]>>,
    named: Slot<Vec<(Cow<'a, str>, Argument<'a>)>>,
    want_rows: Slot<bool>,
}

impl<'a> Fields<'a> for StatementFields<'a> {
    type Output = Statement<'a>;

    fn field<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "sql" => self.sql.read("sql", map),
            "sql_id" => self.sql_id.read("sql_id", map),
            "args" => self.positional.read_list("args", map, Positional),
            "named_args" => self.named.read_list("named_args", map, Named),
            "want_rows" => self.want_rows.read("want_rows", map),
            _ => Ok(false),
        }
    }

    fn finish<E: Error>(self) -> Result<Statement<'a>, E> {
        Ok(Statement {
            text: sql_text(self.sql, self.sql_id)?,
            arguments: Arguments {
                positional: self.positional.into_option().unwrap_or_default(),
                named: self.named.into_option().unwrap_or_default(),
            },
            want_rows: self.want_rows.into_option().unwrap_or(true),
        })
    }
}
