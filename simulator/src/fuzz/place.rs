//! A small server on a simulated machine, for targets that need a whole one.

use serde_json::{Value, json};

use crate::client::{Response, request};
use crate::disk::SimulatedDisk;
use crate::machine::{Door, Machine, Stop};
use crate::world::{Options, Profile, Violation};

/// The seed of all machines: inputs, not seeds, make the difference.
const SEED: u64 = 7;

/// A machine, and what is asked of it.
pub struct Place {
    pub machine: Machine,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The rows of its last statement, each value as text.
    Rows(Vec<Vec<String>>),
    /// Status, code, and message.
    Refused(u16, String, String),
    /// The connection broke.
    Nothing,
}

impl Answer {
    /// What a behaviour is made of: no numbers, no names.
    pub fn shape(&self) -> String {
        match self {
            Answer::Rows(rows) if rows.is_empty() => "no rows".to_owned(),
            Answer::Rows(_) => "rows".to_owned(),
            Answer::Refused(status, code, message) => {
                let message: String =
                    message.chars().filter(|letter| !letter.is_ascii_digit()).take(60).collect();
                format!("{status} {code} {message}")
            }
            Answer::Nothing => "nothing".to_owned(),
        }
    }
}

fn options() -> Options {
    let mut options = Options::draw(SEED, Profile::Calm);
    options.create_on_first_use = false;
    options.memory_bytes = [64 << 20, 16 << 20];
    options.log.segment_bytes = 1 << 20;
    options.log.segment_count = 4;
    options.log.batch_bytes_max = 128 << 10;
    options.step_cost_ns = 5;
    options
}

impl Place {
    /// A machine with an empty disk; no server runs.
    pub fn new() -> Place {
        Place { machine: Machine::new(options()) }
    }

    /// A machine with this disk.
    pub fn on(disk: SimulatedDisk) -> Place {
        Place { machine: Machine::on_disk(options(), disk) }
    }

    /// Run SQL statements on a database.
    pub fn sql(&mut self, name: &str, statements: &[&str]) -> Result<Answer, Stop> {
        let execute = |sql: &&str| json!({ "type": "execute", "stmt": { "sql": sql } });
        let mut requests: Vec<Value> = statements.iter().map(execute).collect();
        requests.push(json!({ "type": "close" }));
        let body = json!({ "requests": requests }).to_string();
        let path = format!("/db/{name}/v3/pipeline");
        let bytes = request("POST", &path, "sim", &[], body.as_bytes());
        let Some(response) = self.machine.ask(0, Door::Public, &bytes)? else {
            return Ok(Answer::Nothing);
        };
        Ok(answer(&response, statements.len()))
    }

    /// A call of the control API.
    pub fn admin(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<Option<Response>, Stop> {
        let bytes = request(method, path, "sim", &[("content-type", kind)], body);
        self.machine.ask(1, Door::Admin, &bytes)
    }

    /// Create a database.
    pub fn create(&mut self, name: &str) -> Result<(), Stop> {
        let path = format!("/v1/namespaces/{name}/create");
        match self.admin("POST", &path, "application/json", b"{}")? {
            Some(response) if response.status == 200 => Ok(()),
            other => Err(Violation::new("START", format!("no {name}: {other:?}")).into()),
        }
    }
}

/// Status, code and message of a refusal, or the rows of the last statement.
fn answer(response: &Response, statements: usize) -> Answer {
    let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if response.status != 200 {
        return Answer::Refused(response.status, text(&value["code"]), text(&value["message"]));
    }
    for index in 0..statements {
        let error = &value["results"][index]["error"];
        if !error.is_null() {
            return Answer::Refused(200, text(&error["code"]), text(&error["message"]));
        }
    }
    let result = &value["results"][statements - 1]["response"]["result"]["rows"];
    let value_of = |value: &Value| match (&value["value"], &value["base64"]) {
        (Value::String(text), _) => text.clone(),
        (Value::Null, Value::String(base64)) => format!("x{base64}"),
        (Value::Null, _) => "NULL".to_owned(),
        (other, _) => other.to_string(),
    };
    let row_of = |row: &Value| row.as_array().map(|row| row.iter().map(value_of).collect());
    Answer::Rows(result.as_array().into_iter().flatten().filter_map(row_of).collect())
}
