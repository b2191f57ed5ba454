//! What the clients say and hear: SQL, Hrana bodies, and what their answers mean.
//!
//! Written apart from the server's protocol code. Pure: values in, bytes out, and back.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::journal::{ACCOUNTS, BALANCE, Change, Found, Shape, Transfer};
use super::model::{Snapshot, TransactionId as Id, Violation, mark, parse_mark, tenant_name};
use crate::client::{Response, request};

/// One transaction in one statement: the trigger inserts, deletes, moves money and writes the
/// journal.
const ENTER: &str = "CREATE TRIGGER IF NOT EXISTS enter INSTEAD OF INSERT ON entry BEGIN \
     INSERT INTO rows(id, mark, pad) SELECT new.first + i, new.mark, \
     replace(hex(zeroblob(new.words)), '00', printf('%08x', new.first + i)) FROM \
     (WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < new.count) \
     SELECT i FROM n) WHERE new.count > 0; \
     DELETE FROM rows WHERE mark = new.victim; \
     UPDATE accounts SET balance = balance + CASE id WHEN new.source THEN -new.amount \
     ELSE new.amount END WHERE id IN (new.source, new.target); \
     INSERT INTO journal(n, mark) SELECT coalesce(max(n), 0) + 1, new.mark FROM journal; END";

/// Makes the tables in one transaction; may come twice: the first one's mark stays.
fn setup_sql(mark: &str) -> String {
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {BALANCE})")).collect();
    format!(
        "BEGIN IMMEDIATE; \
         CREATE TABLE IF NOT EXISTS rows(id INTEGER PRIMARY KEY, mark TEXT NOT NULL, \
         pad TEXT NOT NULL); CREATE INDEX IF NOT EXISTS marks ON rows(mark); \
         CREATE TABLE IF NOT EXISTS journal(n INTEGER PRIMARY KEY, mark TEXT NOT NULL); \
         CREATE TABLE IF NOT EXISTS accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL); \
         CREATE VIEW IF NOT EXISTS entry AS SELECT '' AS mark, 0 AS first, 0 AS count, 0 AS words, \
         '' AS victim, 0 AS source, 0 AS target, 0 AS amount; {ENTER}; \
         INSERT OR IGNORE INTO accounts VALUES {}; \
         INSERT OR IGNORE INTO journal VALUES (0, '{mark}'); COMMIT",
        accounts.join(", ")
    )
}

/// Rows `?1` to `?1 + ?3 - 1`, with padding that is the row's id in hexadecimal, `?4` times.
const INSERT: &str = "INSERT INTO rows(id, mark, pad) WITH RECURSIVE n(i) AS \
     (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?3) SELECT ?1 + i, ?2, \
     replace(hex(zeroblob(?4)), '00', printf('%08x', ?1 + i)) FROM n";

/// The journal from `?1` on, with its first and last entry; a line per mark, whose last number
/// counts the rows with padding as `INSERT` made it; accounts; schema.
pub const READ_MARKS: &str = concat!(
    "SELECT 'rows', mark, count(*), min(id), max(id), sum(length(pad)), \
     sum(pad = replace(hex(zeroblob(length(pad) / 8)), '00', printf('%08x', id))) \
     FROM rows GROUP BY mark",
    " UNION ALL SELECT 'journal', mark, n, 0, 0, 0, 0 FROM journal \
     WHERE n = 0 OR n >= min(?1, (SELECT max(n) FROM journal)) \
     UNION ALL SELECT 'account', '', id, balance, 0, 0, 0 FROM accounts \
     UNION ALL SELECT 'schema', sql, 0, 0, 0, 0, 0 FROM sqlite_schema \
     WHERE name IN ('extra', 'extra_index')"
);

/// The same with all rows, padding included.
const READ_ROWS: &str = "SELECT * FROM (SELECT 'row', mark, id, pad FROM rows ORDER BY id DESC) \
     UNION ALL SELECT 'journal', mark, n, 0 FROM journal \
     WHERE n = 0 OR n >= min(?1, (SELECT max(n) FROM journal)) \
     UNION ALL SELECT 'account', '', id, balance FROM accounts \
     UNION ALL SELECT 'schema', sql, 0, 0 FROM sqlite_schema \
     WHERE name IN ('extra', 'extra_index')";

const DELETE: &str = "DELETE FROM rows WHERE mark = ?1";

/// Rows of the own mark, where the journal ends, how it begins.
const PEEK: &str = "SELECT (SELECT count(*) FROM rows WHERE mark = ?1), \
     (SELECT max(n) FROM journal), (SELECT mark FROM journal WHERE n = 0)";

/// The transaction's entry; gives its number and the incarnation.
const NOTE: &str = "INSERT INTO journal(n, mark) SELECT coalesce(max(n), 0) + 1, ?1 FROM journal \
     RETURNING n, (SELECT mark FROM journal WHERE n = 0)";

const ENTRY: &str = "INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

const ADD: &str = "UPDATE accounts SET balance = balance + ?2 WHERE id = ?1";

const SET: &str = "UPDATE accounts SET balance = ?2 WHERE id = ?1";

/// What all accounts hold, by number.
const BALANCES: &str = "SELECT balance FROM accounts ORDER BY id";

fn text(value: &str) -> Value {
    json!({ "type": "text", "value": value })
}

fn integer(value: impl ToString) -> Value {
    json!({ "type": "integer", "value": value.to_string() })
}

/// A statement without arguments.
pub fn plain(sql: &str) -> Value {
    json!({ "sql": sql })
}

/// Make the tables, as a pipeline's request.
pub fn setup(tenant: usize, id: Id) -> Value {
    json!({ "type": "sequence", "sql": setup_sql(&mark(tenant, id)) })
}

/// Insert rows of a transaction from its `from`th on.
pub fn insert(tenant: usize, id: Id, shape: Shape, from: u64, rows: u64) -> Value {
    assert!(rows > 0 && from + rows <= shape.rows);
    let mark = mark(tenant, id);
    let args = [integer(shape.first + from), text(&mark), integer(rows), integer(shape.pad_words)];
    json!({ "sql": INSERT, "args": args })
}

/// Delete a transaction's rows.
pub fn delete(tenant: usize, id: Id) -> Value {
    json!({ "sql": DELETE, "args": [text(&mark(tenant, id))] })
}

/// The transaction's entry in the journal.
pub fn note(tenant: usize, id: Id) -> Value {
    json!({ "sql": NOTE, "args": [text(&mark(tenant, id))] })
}

/// Count a transaction's rows, and look at the ends of the journal.
pub fn peek(tenant: usize, id: Id) -> Value {
    json!({ "sql": PEEK, "args": [text(&mark(tenant, id))] })
}

/// Ask what all accounts hold.
pub fn balances() -> Value {
    plain(BALANCES)
}

/// Add to an account.
pub fn add(account: usize, amount: i64) -> Value {
    json!({ "sql": ADD, "args": [integer(account), integer(amount)] })
}

/// Set an account.
pub fn set(account: usize, balance: i64) -> Value {
    json!({ "sql": SET, "args": [integer(account), integer(balance)] })
}

/// A whole transaction in one statement, the entry in the journal included.
///
/// # Panics
/// If the change is one that needs several statements.
pub fn entry(tenant: usize, id: Id, change: Change) -> Value {
    let mut shape = Shape::default();
    let (mut victim, mut accounts) = (json!({ "type": "null" }), [-1, -1, 0]);
    match change {
        Change::Insert(inserted) => shape = inserted,
        Change::Delete(id) => victim = text(&mark(tenant, id)),
        Change::Transfer(Transfer { source, target, amount }) => {
            accounts = [source as i64, target as i64, amount];
        }
        Change::Setup | Change::Schema { .. } => unreachable!("not in one statement"),
    }
    let [source, target, amount] = accounts;
    let args = [
        text(&mark(tenant, id)),
        integer(shape.first),
        integer(shape.rows),
        integer(shape.pad_words),
        victim,
        integer(source),
        integer(target),
        integer(amount),
    ];
    json!({ "sql": ENTRY, "args": args })
}

/// Make the table `extra` anew by steps that end with a column named after the transaction, and
/// have the index or not.
pub fn schema(id: Id, index: bool) -> Vec<Value> {
    let mut statements = vec![
        plain("DROP TABLE IF EXISTS extra"),
        plain("CREATE TABLE extra(a INTEGER PRIMARY KEY, b TEXT)"),
        plain("INSERT INTO extra(b) VALUES ('one'), ('two')"),
        plain("ALTER TABLE extra ADD COLUMN c INTEGER NOT NULL DEFAULT 7"),
        plain(&format!("ALTER TABLE extra RENAME COLUMN c TO by{}", id.0)),
        plain("ALTER TABLE extra DROP COLUMN b"),
    ];
    statements.push(plain(match index {
        true => "CREATE INDEX IF NOT EXISTS extra_index ON rows(length(pad))",
        false => "DROP INDEX IF EXISTS extra_index",
    }));
    statements
}

/// Which way a read asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadForm {
    /// A line per mark, counted by the server.
    Marks,
    /// All rows as one result.
    Rows,
    /// All rows as a cursor.
    Cursor,
}

impl ReadForm {
    /// The statement, with the journal from there on.
    pub fn statement(self, from: u64) -> Value {
        let sql = if self == ReadForm::Marks { READ_MARKS } else { READ_ROWS };
        json!({ "sql": sql, "args": [integer(from)] })
    }
}

/// A pipeline's request for a statement.
pub fn execute(statement: Value) -> Value {
    json!({ "type": "execute", "stmt": statement })
}

/// A transaction as one batch: begin, statements while all goes well, commit or roll back.
pub fn batch(statements: Vec<Value>, commits: bool) -> Value {
    let ok = |step: usize| json!({ "type": "ok", "step": step });
    let mut steps = vec![json!({ "stmt": plain("BEGIN IMMEDIATE") })];
    for statement in statements {
        steps.push(json!({ "stmt": statement, "condition": ok(steps.len() - 1) }));
    }
    let end = steps.len();
    if commits {
        steps.push(json!({ "stmt": plain("COMMIT"), "condition": ok(end - 1) }));
    } else {
        steps.push(json!({ "stmt": plain("SELECT 1") }));
    }
    let left_open = json!({ "type": "not", "cond": { "type": "is_autocommit" } });
    steps.push(json!({ "stmt": plain("ROLLBACK"), "condition": left_open }));
    json!({ "steps": steps })
}

fn post(tenant: usize, path: &str, body: &Value) -> Vec<u8> {
    let path = format!("/db/{}{path}", tenant_name(tenant));
    request("POST", &path, "sim", &[], body.to_string().as_bytes())
}

/// A pipeline; `closes` ends its stream.
pub fn pipeline(
    tenant: usize,
    baton: Option<&str>,
    mut requests: Vec<Value>,
    closes: bool,
) -> Vec<u8> {
    if closes {
        requests.push(json!({ "type": "close" }));
    }
    post(tenant, "/v3/pipeline", &json!({ "baton": baton, "requests": requests }))
}

/// A cursor over a batch.
pub fn cursor(tenant: usize, batch: &Value) -> Vec<u8> {
    post(tenant, "/v3/cursor", &json!({ "baton": null, "batch": batch }))
}

/// A call of the control API.
pub fn admin(method: &str, path: &str) -> Vec<u8> {
    admin_with(method, path, None)
}

/// A call of the control API with a body.
pub fn admin_with(method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
    let body = body.map(Value::to_string).unwrap_or_default();
    request(method, path, "sim", &[], body.as_bytes())
}

// ---- answers ----

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status; 200 for a statement's error.
    pub status: u16,
    /// The error's code.
    pub code: String,
    /// Its message.
    pub message: String,
}

impl Refused {
    fn of(status: u16, error: &Value) -> Refused {
        let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        Refused { status, code: part("code"), message: part("message") }
    }

    /// The tables are not there.
    pub fn is_no_table(&self) -> bool {
        self.message.contains("no such table: ")
    }
}

fn strange(what: &str, response: &Response) -> Violation {
    let body = String::from_utf8_lossy(&response.body);
    let start: String = body.chars().take(200).collect();
    Violation::new("HTTP-1", format!("{what}: status {} body {start:?}", response.status))
}

/// The body of a response with status 200, or the refusal.
///
/// # Errors
/// HTTP-1 if the response is neither.
pub fn hear(response: &Response) -> Result<Result<Value, Refused>, Violation> {
    let Ok(body) = serde_json::from_slice::<Value>(&response.body) else {
        return Err(strange("a body that is no JSON", response));
    };
    if response.status == 200 {
        return Ok(Ok(body));
    }
    let refused = Refused::of(response.status, &body);
    if refused.code.is_empty() {
        return Err(strange("a refusal without a code", response));
    }
    Ok(Err(refused))
}

/// The results of a pipeline's requests.
///
/// # Errors
/// HTTP-1 if there are not `count`.
pub fn results(
    body: &Value,
    count: usize,
    response: &Response,
) -> Result<Vec<Result<Value, Refused>>, Violation> {
    let results = body["results"].as_array().filter(|results| results.len() == count);
    let results = results.ok_or_else(|| strange("another number of results", response))?;
    let read = |result: &Value| match result["type"].as_str() {
        Some("ok") => Ok(Ok(result["response"]["result"].clone())),
        Some("error") => Ok(Err(Refused::of(200, &result["error"]))),
        _ => Err(strange("a result of no type", response)),
    };
    results.iter().map(read).collect()
}

/// Each step of a batch: its result, its error, or nothing if it was skipped.
pub fn steps(result: &Value) -> Vec<Option<Result<Value, Refused>>> {
    let results = result["step_results"].as_array().cloned().unwrap_or_default();
    let errors = result["step_errors"].as_array().cloned().unwrap_or_default();
    let step = |(result, error): (Value, Value)| match (result, error) {
        (Value::Null, Value::Null) => None,
        (Value::Null, error) => Some(Err(Refused::of(200, &error))),
        (result, _) => Some(Ok(result)),
    };
    results.into_iter().zip(errors).map(step).collect()
}

/// A cursor's entries as the steps of a batch; rows under `rows`.
///
/// # Errors
/// HTTP-1 if a line is no entry.
pub fn entries(
    response: &Response,
    count: usize,
) -> Result<Vec<Option<Result<Value, Refused>>>, Violation> {
    let mut steps: Vec<Option<Result<Value, Refused>>> = vec![None; count];
    let (mut current, mut rows) = (0, Vec::new());
    let whole = response.body.ends_with(b"\n");
    let text = str::from_utf8(&response.body).ok().filter(|_| whole);
    let text = text.ok_or_else(|| strange("a cursor that is no text", response))?;
    for line in text.lines().skip(1) {
        let entry: Value =
            serde_json::from_str(line).map_err(|_| strange("a line that is no JSON", response))?;
        let step = entry["step"].as_u64().unwrap_or(current as u64) as usize;
        if step >= count {
            return Err(strange("an entry of no step", response));
        }
        current = step;
        match entry["type"].as_str() {
            Some("step_begin") => rows.clear(),
            Some("row") => rows.push(entry["row"].clone()),
            Some("step_end") => {
                steps[step] = Some(Ok(json!({
                    "rows": std::mem::take(&mut rows),
                    "affected_row_count": entry["affected_row_count"],
                })));
            }
            Some("step_error") => steps[step] = Some(Err(Refused::of(200, &entry["error"]))),
            _ => return Err(strange("an entry of no type", response)),
        }
    }
    Ok(steps)
}

fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value["value"].as_str()?.parse().ok()
}

/// The numbers of a result's first column.
pub fn column(result: &Value) -> Option<Vec<i64>> {
    result["rows"].as_array()?.iter().map(|row| number(&row[0])).collect()
}

/// What a peek gives: own rows, the last number, the incarnation's mark.
pub fn peeked(result: &Value) -> Option<(u64, u64, &str)> {
    let row = &result["rows"][0];
    Some((number(&row[0])?, number(&row[1])?, row[2]["value"].as_str()?))
}

/// What a note gives: the incarnation's mark and the number.
pub fn noted(result: &Value) -> Option<(&str, u64)> {
    let row = &result["rows"][0];
    Some((row[1]["value"].as_str()?, number(&row[0])?))
}

/// What a read found; `None` if the rows are not what was asked for.
pub fn found(result: &Value) -> Option<Snapshot> {
    let mut snapshot = Snapshot::default();
    for row in result["rows"].as_array()? {
        let word = row[1]["value"].as_str()?.to_owned();
        match row[0]["value"].as_str()? {
            "rows" => {
                let found = Found {
                    rows: number(&row[2])?,
                    first: number(&row[3])?,
                    last: number(&row[4])?,
                    pad_bytes: number(&row[5])?,
                    intact: number(&row[6])?,
                };
                snapshot.marks.insert(word, found);
            }
            "row" => {
                add_row(&mut snapshot.marks, number(&row[2])?, word, row[3]["value"].as_str()?);
            }
            kind => add_line(&mut snapshot, kind, word, number(&row[2])?, number(&row[3])?)?,
        }
    }
    Some(snapshot)
}

/// Take a line of a read that is about no row; `None` if there is no such line.
pub fn add_line(
    snapshot: &mut Snapshot,
    kind: &str,
    word: String,
    number: u64,
    balance: i64,
) -> Option<()> {
    match kind {
        "journal" => drop(snapshot.journal.insert(number, word)),
        "account" => snapshot.balances.push(balance),
        "schema" if word.starts_with("CREATE INDEX") => snapshot.extra_index = true,
        "schema" => {
            let by = word.split_once(" by")?.1;
            let digits = by.find(|c: char| !c.is_ascii_digit()).unwrap_or(by.len());
            snapshot.extra_table = Some(by[..digits].parse().ok()?);
        }
        _ => return None,
    }
    Some(())
}

/// Count one row under its mark.
pub fn add_row(marks: &mut BTreeMap<String, Found>, id: u64, mark: String, pad: &str) {
    let word = format!("{id:08x}");
    let intact = pad.as_bytes().chunks(8).all(|chunk| chunk == word.as_bytes());
    let found = marks.entry(mark).or_default();
    found.first = if found.rows == 0 { id } else { found.first.min(id) };
    found.last = found.last.max(id);
    found.rows += 1;
    found.pad_bytes += pad.len() as u64;
    found.intact += u64::from(intact);
}

/// TEN-1: every mark in the bytes of a response to `tenant` names it.
///
/// # Errors
/// With the first that does not.
pub fn check_marks(tenant: usize, body: &[u8]) -> Result<(), Violation> {
    let name = tenant_name(tenant);
    for start in positions(body, b"\"mark:") {
        let rest = &body[start + 1..];
        let end = rest.iter().position(|byte| *byte == b'"').unwrap_or(rest.len());
        let mark = String::from_utf8_lossy(&rest[..end]);
        if parse_mark(&mark).is_none_or(|(owner, _)| owner != name) {
            let text = format!("an answer for {name} holds {mark:?}");
            return Err(Violation::new("TEN-1", text));
        }
    }
    Ok(())
}

fn positions<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let starts = bytes.windows(wanted.len()).enumerate();
    starts.filter(move |(_, window)| *window == wanted).map(|(start, _)| start)
}
