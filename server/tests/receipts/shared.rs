//! The script of `script.sql` and how its receipts are asked for, whoever carries the requests.

use serde_json::{Value as Json, json};

/// The script.
pub const SCRIPT: &str = include_str!("script.sql");

/// What its statements cost, a line each, as `MYRIAD_UPDATE_RECEIPTS=1` writes them.
pub const RECEIPTS: &str = include_str!("receipts.txt");

/// One request of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which of its streams.
    pub stream: usize,
    /// Value of `x-myriad-max-cost`.
    pub limit: Option<String>,
    /// Its statement.
    pub sql: String,
}

/// The lines of a script.
pub fn lines(script: &str) -> Vec<Line> {
    let lines = script.lines().filter(|line| !line.is_empty() && !line.starts_with("--"));
    lines
        .map(|line| {
            let (stream, rest) = line.split_once(' ').expect("a line has a stream");
            let limited = rest.strip_prefix('[').and_then(|rest| rest.split_once("] "));
            let (limit, sql) = match limited {
                Some((limit, sql)) => (Some(limit.to_owned()), sql),
                None => (None, rest),
            };
            let stream = stream.parse().expect("a stream is a number");
            Line { stream, limit, sql: sql.to_owned() }
        })
        .collect()
}

/// The request's body.
pub fn body(line: &Line, baton: Option<&str>) -> Vec<u8> {
    let request = json!({"type": "execute", "stmt": {"sql": line.sql}});
    let autocommit = json!({"type": "get_autocommit"});
    json!({"baton": baton, "requests": [request, autocommit]}).to_string().into_bytes()
}

/// What an answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The receipt, and the error's code if there was one.
    pub receipt: String,
    /// The stream's next baton.
    pub baton: Option<String>,
    /// No transaction is open.
    pub is_autocommit: bool,
}

/// Read an answer, given its receipt's header; one that leaves in parts has none.
pub fn told(header: Option<&str>, body: &[u8]) -> Told {
    let shown = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
    let body: Json = serde_json::from_slice(body).expect("an answer is JSON");
    let result = &body["results"][0];
    let cost = &result["response"]["result"]["cost"];
    let receipt = match (header, result["error"]["code"].as_str()) {
        (Some(header), Some(code)) => format!("{header}; {code}"),
        (header, None) if !cost.is_null() => {
            let receipt = written(cost);
            assert!(header.is_none_or(|header| header == receipt), "{header:?}, {receipt}");
            receipt
        }
        _ => panic!("an answer without a receipt: {shown}"),
    };
    let is_autocommit = body["results"][1]["response"]["is_autocommit"].as_bool();
    Told {
        receipt,
        baton: body["baton"].as_str().map(str::to_owned),
        is_autocommit: is_autocommit.unwrap_or_else(|| panic!("an answer: {shown}")),
    }
}

/// A statement's cost as the header writes it.
fn written(cost: &Json) -> String {
    let part = |name: &str| format!("{name}={}", cost[name]);
    let parts = ["vm_steps", "pages_read", "pages_written", "log_bytes", "result_bytes"];
    let ru = cost["ru"].as_f64().expect("a price");
    let mut text = format!("ru={ru:.6}");
    for name in parts {
        text.push_str("; ");
        text.push_str(&part(name));
    }
    text
}

/// Statement and receipt, a line each.
pub fn show(lines: &[Line], receipts: &[String]) -> String {
    let pairs = lines.iter().zip(receipts);
    pairs.map(|(line, receipt)| format!("{}\n    {receipt}\n", line.sql)).collect()
}
