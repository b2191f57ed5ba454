//! Attack statements, each case on a database of its own.

use serde_json::{Value, json};
use server::bench::battery::{self, Attack, Case};

use super::ground::Ground;
use super::process::{Client, IOS, create_path, problem};

const FILE: &str = include_str!("statements.txt");

/// Statements of the file at least.
const STATEMENTS_MIN: usize = 400;

#[test]
fn statements() {
    let cases = battery::cases(FILE);
    let count: usize = cases.iter().map(|case| battery::attacks(case).len()).sum();
    assert!(count >= STATEMENTS_MIN, "the file has {count} statements");
    for io in IOS {
        let mut ground = Ground::on(io, &[]);
        for case in cases.iter().filter(|case| !Ground::skips(case.name)) {
            let started = std::time::Instant::now();
            run(&mut ground, case);
            ground.check(case.name);
            if started.elapsed().as_secs() > 0 {
                println!("{} takes {:?}, {io}", case.name, started.elapsed());
            }
        }
        ground.finish(&format!("statements, {io}"));
    }
}

fn run(ground: &mut Ground, case: &Case<'_>) {
    let mut admin = ground.server.admin();
    let settings: Value = serde_json::from_str(case.setting("with").unwrap_or("{}")).unwrap();
    let created = admin.post(&create_path("attacked"), &settings).unwrap();
    assert_eq!(created.status, 200, "{}: {}", case.name, created.text());
    let mut stream =
        Stream { client: ground.server.client(), cost: case.setting("cost"), baton: Value::Null };
    for attack in battery::attacks(case) {
        let answer = stream.run(&attack).unwrap_or_else(|error| {
            let sql: String = attack.sql.chars().take(200).collect();
            let said = ground.server.said();
            panic!("{} (line {}): {error} after {sql}; {said}", case.name, case.line)
        });
        if !answer.fits(attack.answer) {
            let sql: String = attack.sql.chars().take(100).collect();
            let (name, line, expected) = (case.name, case.line, attack.answer);
            ground.fail(format!("{name} (line {line}): {sql}\n   wanted {expected}\n-> {answer}"));
        }
    }
    // Half of the streams are left open: the drop ends them.
    if case.line.is_multiple_of(2) {
        let end = Attack { sql: "ROLLBACK".into(), is_sequence: false, answer: "ok" };
        stream.run(&end).expect("the server answers");
    }
    let dropped = admin.call("DELETE", "/v1/namespaces/attacked", b"").unwrap();
    assert_eq!(dropped.status, 200, "{}: {}", case.name, dropped.text());
    let receipt = &dropped.json()["receipt"];
    if receipt["even"] != json!(true) {
        ground.fail(format!("{}: what it held did not come back: {receipt}", case.name));
    }
}

/// What came of a statement.
enum Answer {
    /// Rows, and the first value.
    Rows(usize, Option<String>),
    Failed(String, String),
    Refused(u16, String, String),
}

impl Answer {
    fn fits(&self, expected: &str) -> bool {
        let (head, rest) = expected.split_once(' ').unwrap_or((expected, ""));
        match self {
            Answer::Rows(..) if expected == "ok" => true,
            Answer::Rows(_, first) if head == "=" => first.as_deref() == Some(rest),
            Answer::Rows(count, _) if rest == "rows" => head.parse() == Ok(*count),
            Answer::Rows(..) => false,
            Answer::Failed(code, message) => head == code && message.contains(rest),
            Answer::Refused(status, code, message) => {
                let (named, words) = rest.split_once(' ').unwrap_or((rest, ""));
                head.parse() == Ok(*status) && named == code && message.contains(words)
            }
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Rows(count, first) => {
                let first: String = first.as_deref().unwrap_or("").chars().take(60).collect();
                write!(formatter, "{count} rows, the first {first:?}")
            }
            Answer::Failed(code, message) => write!(formatter, "{code} {message:.150}"),
            Answer::Refused(status, code, message) => {
                write!(formatter, "{status} {code} {message:.150}")
            }
        }
    }
}

struct Stream<'a> {
    client: Client,
    cost: Option<&'a str>,
    baton: Value,
}

impl Stream<'_> {
    fn run(&mut self, attack: &Attack<'_>) -> std::io::Result<Answer> {
        let request = match attack.is_sequence {
            true => json!({"type": "sequence", "sql": attack.sql}),
            false => json!({"type": "execute", "stmt": {"sql": attack.sql}}),
        };
        let body = json!({"baton": self.baton.take(), "requests": [request]}).to_string();
        let cost = self.cost.map(|cost| format!("x-myriad-max-cost: {cost}\r\n"));
        let head = format!(
            "POST /db/attacked/v3/pipeline HTTP/1.1\r\nhost: a\r\n{}content-length: {}\r\n\r\n",
            cost.unwrap_or_default(),
            body.len()
        );
        self.client.send_raw(&[head.as_bytes(), body.as_bytes()].concat())?;
        let response = self.client.receive()?;
        if response.status != 200 {
            let (code, message) = problem(&response.body);
            return Ok(Answer::Refused(response.status, code, message));
        }
        let mut answer = response.json();
        self.baton = answer["baton"].take();
        let result = &answer["results"][0];
        if result["type"] == "error" {
            let word = |key: &str| result["error"][key].as_str().expect("a word").to_owned();
            return Ok(Answer::Failed(word("code"), word("message")));
        }
        let rows = result["response"]["result"]["rows"].as_array();
        let first = rows.and_then(|rows| rows.first()?.get(0));
        let count = rows.map_or(0, Vec::len);
        Ok(Answer::Rows(count, first.map(shown)))
    }
}

fn shown(value: &Value) -> String {
    match value["type"].as_str() {
        Some("null") => "NULL".to_owned(),
        Some("blob") => value["base64"].as_str().expect("base64").to_owned(),
        Some("float") => value["value"].to_string(),
        _ => value["value"].as_str().expect("a value").to_owned(),
    }
}
