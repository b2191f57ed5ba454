//! A database as tests see it: SQL in, rows of text out, over the pipeline endpoint.

use std::fmt;
use std::io;

use serde_json::{Value, json};

use super::http::{Client, Response};

/// Rows of values as text: integers and floats in digits, text as it is, blobs in base64, `NULL`.
pub type Rows = Vec<Vec<String>>;

/// Why there are no rows.
#[derive(Debug)]
pub enum Trouble {
    /// The connection broke: nobody knows whether it was done.
    Lost(io::Error),
    /// The whole request was refused.
    Refused { status: u16, code: String, message: String },
    /// The statement failed.
    Sql { code: String, message: String },
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Lost(error) => write!(formatter, "lost: {error}"),
            Trouble::Refused { status, code, message } => {
                write!(formatter, "{status} {code}: {message}")
            }
            Trouble::Sql { code, message } => write!(formatter, "{code}: {message}"),
        }
    }
}

impl Trouble {
    /// The code for programs; empty if the connection broke.
    pub fn code(&self) -> &str {
        match self {
            Trouble::Lost(_) => "",
            Trouble::Refused { code, .. } | Trouble::Sql { code, .. } => code,
        }
    }

    /// The connection broke.
    pub fn is_lost(&self) -> bool {
        matches!(self, Trouble::Lost(_))
    }
}

/// A database on a connection of its own, with at most one stream.
#[derive(Debug)]
pub struct Database {
    pub client: Client,
    path: String,
    /// The claim on the open stream.
    pub baton: Option<String>,
}

/// The request that runs one statement.
pub fn execute(sql: &str) -> Value {
    json!({"type": "execute", "stmt": {"sql": sql}})
}

impl Database {
    /// The database of this name.
    pub fn of(client: Client, name: &str) -> Database {
        Database { client, path: format!("/db/{name}/v2/pipeline"), baton: None }
    }

    /// Run statements on a stream of their own, each in autocommit unless they say otherwise; the
    /// last one's rows, or the first failure.
    pub fn run(&mut self, statements: &[&str]) -> Result<Rows, Trouble> {
        let mut requests: Vec<Value> = statements.iter().map(|sql| execute(sql)).collect();
        requests.push(json!({"type": "close"}));
        let response = self.post(&json!({"requests": requests}))?;
        let mut last = Rows::new();
        for result in response["results"].as_array().expect("results") {
            if result["response"]["type"] != "close" {
                last = rows(result)?;
            }
        }
        Ok(last)
    }

    /// Run statements that cannot fail; the last one's rows.
    pub fn rows(&mut self, statements: &[&str]) -> Rows {
        self.run(statements).unwrap_or_else(|trouble| panic!("{statements:?}: {trouble}"))
    }

    /// The one value of statements that cannot fail.
    pub fn value(&mut self, statement: &str) -> String {
        let rows = self.rows(&[statement]);
        assert_eq!((rows.len(), rows[0].len()), (1, 1), "{statement}");
        rows[0][0].clone()
    }

    /// Run one statement on the open stream, or on a new one that stays open.
    pub fn step(&mut self, sql: &str) -> Result<Rows, Trouble> {
        let request = json!({"baton": self.baton.take(), "requests": [execute(sql)]});
        let response = self.post(&request)?;
        self.baton = response["baton"].as_str().map(str::to_owned);
        rows(&response["results"][0])
    }

    /// Close the open stream.
    pub fn finish(&mut self) {
        if let Some(baton) = self.baton.take() {
            let request = json!({"baton": baton, "requests": [{"type": "close"}]});
            self.post(&request).expect("a stream can be closed");
        }
    }

    /// Post to the pipeline: the decoded body of a 200.
    pub fn post(&mut self, body: &Value) -> Result<Value, Trouble> {
        let response = self.client.post(&self.path, body).map_err(Trouble::Lost)?;
        decoded(&response)
    }

    /// Send statements on a stream of their own and do not wait for the answer.
    pub fn send(&mut self, statements: &[&str]) {
        let mut requests: Vec<Value> = statements.iter().map(|sql| execute(sql)).collect();
        requests.push(json!({"type": "close"}));
        let body = json!({"requests": requests}).to_string();
        self.client.send("POST", &self.path, body.as_bytes()).expect("sent");
    }

    /// The answer to what was sent: the first statement's rows.
    pub fn answer(&mut self) -> Result<Rows, Trouble> {
        let response = self.client.receive().map_err(Trouble::Lost)?;
        rows(&decoded(&response)?["results"][0])
    }
}

fn decoded(response: &Response) -> Result<Value, Trouble> {
    if response.status == 200 {
        return Ok(response.json());
    }
    let (code, message) = super::problem(&response.body);
    Err(Trouble::Refused { status: response.status, code, message })
}

fn rows(result: &Value) -> Result<Rows, Trouble> {
    if result["type"] != "ok" {
        let word = |key: &str| result["error"][key].as_str().expect("a word").to_owned();
        return Err(Trouble::Sql { code: word("code"), message: word("message") });
    }
    let rows = result["response"]["result"]["rows"].as_array().expect("rows");
    let row = |row: &Value| row.as_array().expect("a row").iter().map(text).collect();
    Ok(rows.iter().map(row).collect())
}

fn text(value: &Value) -> String {
    match value["type"].as_str().expect("a type") {
        "null" => "NULL".to_owned(),
        "float" => value["value"].to_string(),
        "blob" => value["base64"].as_str().expect("base64").to_owned(),
        _ => value["value"].as_str().expect("a value").to_owned(),
    }
}
