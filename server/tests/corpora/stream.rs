//! Hrana in a few lines: one stream on one database, over whatever carries a request.

use std::io;

use serde_json::{Value as Json, json};

use super::outcome::{Failure, Outcome, Rows, Value};

/// Carries requests to a server and waits for their answers.
pub trait Post {
    /// POST on the address for SQL, and read the whole answer: status and body.
    ///
    /// # Errors
    /// No answer came, or what came is none.
    fn post(&mut self, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)>;
}

/// What happens between the requests of a script.
pub trait Course<P> {
    /// Most statements of the next request.
    fn statements_max(&mut self) -> usize;

    /// A request was answered; if `loses_nothing`, no later answer would change if the stream,
    /// its connection or the server ended here.
    fn between(&mut self, stream: &mut SqlStream<P>, loses_nothing: bool);
}

/// Nothing happens.
pub struct Undisturbed {
    /// Statements of a request.
    pub statements_max: usize,
}

impl<P> Course<P> for Undisturbed {
    fn statements_max(&mut self) -> usize {
        self.statements_max
    }

    fn between(&mut self, _: &mut SqlStream<P>, _: bool) {}
}

/// One Hrana stream on one database.
pub struct SqlStream<P> {
    carrier: P,
    database: String,
    baton: Option<String>,
}

impl<P: Post> SqlStream<P> {
    /// A stream on `database`; the first statements open it.
    pub fn new(carrier: P, database: &str) -> SqlStream<P> {
        SqlStream { carrier, database: database.to_owned(), baton: None }
    }

    /// What carries its requests.
    pub fn carrier(&mut self) -> &mut P {
        &mut self.carrier
    }

    /// The stream has ended, without a word to the server; the next statements open another.
    pub fn forget(&mut self) {
        self.baton = None;
    }

    /// Run statements in order, whatever the earlier ones did.
    ///
    /// # Errors
    /// What was wrong with the request as a whole.
    pub fn execute(&mut self, statements: &[&str]) -> Result<Vec<Outcome>, String> {
        let requests: Vec<_> =
            statements.iter().map(|sql| json!({"type": "execute", "stmt": {"sql": sql}})).collect();
        let results = self.pipeline(&requests)?;
        if results.len() != statements.len() {
            return Err(format!("{} results for {} statements", results.len(), statements.len()));
        }
        results
            .iter()
            .map(|result| outcome(result).ok_or_else(|| format!("result {result}")))
            .collect()
    }

    /// The same by a cursor, whose answer may be of any length.
    ///
    /// # Errors
    /// What was wrong with the request as a whole.
    pub fn execute_by_cursor(&mut self, statements: &[&str]) -> Result<Vec<Outcome>, String> {
        let steps: Vec<_> = statements.iter().map(|sql| json!({"stmt": {"sql": sql}})).collect();
        let body = json!({"baton": self.baton, "batch": {"steps": steps}});
        let body = self.post("cursor", &body)?;
        let mut lines = body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let mut entry = || lines.next().map(serde_json::from_slice::<Json>);
        let unreadable = |error| format!("an entry: {error}");
        let head = entry().ok_or("no entry")?.map_err(unreadable)?;
        self.baton = head["baton"].as_str().map(str::to_owned);
        let mut outcomes = vec![Ok(Rows::default()); statements.len()];
        let mut current = 0;
        while let Some(entry) = entry() {
            let entry = entry.map_err(unreadable)?;
            if let Some(step) = entry["step"].as_u64() {
                current = usize::try_from(step).map_err(|error| error.to_string())?;
            }
            let read = add_entry(&entry, outcomes.get_mut(current).ok_or("no such step")?);
            read.ok_or_else(|| format!("entry {entry}"))?;
        }
        if current + 1 != statements.len() {
            return Err(format!("{} of {} steps", current + 1, statements.len()));
        }
        Ok(outcomes)
    }

    /// Names of the columns that a statement would have.
    ///
    /// # Errors
    /// Whatever came instead.
    pub fn describe(&mut self, sql: &str) -> Result<Vec<String>, String> {
        let results = self.pipeline(&[json!({"type": "describe", "sql": sql})])?;
        let names = results.first().and_then(|result| names(&result["response"]["result"]));
        names.ok_or_else(|| format!("{results:?}"))
    }

    /// Close the stream.
    ///
    /// # Errors
    /// As for `execute`.
    pub fn close(&mut self) -> Result<(), String> {
        self.pipeline(&[json!({"type": "close"})]).map(drop)
    }

    fn pipeline(&mut self, requests: &[Json]) -> Result<Vec<Json>, String> {
        let body = self.post("pipeline", &json!({"baton": self.baton, "requests": requests}))?;
        let mut body: Json = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        self.baton = body["baton"].as_str().map(str::to_owned);
        match body["results"].take() {
            Json::Array(results) => Ok(results),
            other => Err(format!("results {other}")),
        }
    }

    fn post(&mut self, endpoint: &str, body: &Json) -> Result<Vec<u8>, String> {
        let path = format!("/db/{}/v3/{endpoint}", self.database);
        match self.carrier.post(&path, body.to_string().as_bytes()) {
            Ok((200, body)) => Ok(body),
            Ok((status, body)) => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn add_entry(entry: &Json, outcome: &mut Outcome) -> Option<()> {
    match (entry["type"].as_str()?, outcome) {
        ("step_begin", Ok(rows)) => rows.names = names(entry)?,
        ("row", Ok(rows)) => rows.rows.push(row(&entry["row"])?),
        ("step_end", Ok(_)) => {}
        ("step_error", outcome) => *outcome = Err(failure(entry)?),
        _ => return None,
    }
    Some(())
}

fn names(result: &Json) -> Option<Vec<String>> {
    let columns = result["cols"].as_array()?;
    columns.iter().map(|column| Some(column["name"].as_str()?.to_owned())).collect()
}

fn row(row: &Json) -> Option<Vec<Value>> {
    row.as_array()?.iter().map(value).collect()
}

fn failure(holder: &Json) -> Option<Failure> {
    let text = |key: &str| holder["error"][key].as_str().map(str::to_owned);
    Some(Failure { code: text("code")?, message: text("message")? })
}

fn outcome(result: &Json) -> Option<Outcome> {
    if result["type"] == "error" {
        return failure(result).map(Err);
    }
    let result = &result["response"]["result"];
    let rows = result["rows"].as_array()?.iter().map(row).collect::<Option<_>>()?;
    Some(Ok(Rows { names: names(result)?, rows }))
}

fn value(value: &Json) -> Option<Value> {
    Some(match value["type"].as_str()? {
        "null" => Value::Null,
        "integer" => Value::Integer(value["value"].as_str()?.parse().ok()?),
        // JSON has no word for an infinite number: it comes as null.
        "float" if value["value"].is_null() => Value::Real(f64::INFINITY),
        "float" => Value::Real(value["value"].as_f64()?),
        "text" => Value::Text(value["value"].as_str()?.to_owned()),
        "blob" => Value::Blob(decode_base64(value["base64"].as_str()?)?),
        _ => return None,
    })
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).ok()
}
