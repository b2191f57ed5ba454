//! Hrana as text in, text out, on an engine of in-memory databases.
//!
//! Batons are shown as `B`, unless a test needs the real one; receipts are left out, but for theirs.

mod engine;

use engine::Engine;
use serde_json::{Value, json};
use server::hrana::{ProtocolVersion, Reply, V1Call, encode, run_cursor, run_pipeline, run_v1};
use tenant::{JobHost as _, ValueRef};

fn pipeline(engine: &mut Engine, version: ProtocolVersion, body: &[u8]) -> Reply {
    let batons = engine.batons.clone();
    run_pipeline(engine, version, body, &batons, None, Vec::new())
}

fn cursor(engine: &mut Engine, body: &str) -> Reply {
    let batons = engine.batons.clone();
    run_cursor(engine, body.as_bytes(), &batons, None, Vec::new())
}

/// All that was sent: parts and the rest.
fn sent(engine: &mut Engine, reply: &Reply) -> String {
    let mut all: Vec<u8> = std::mem::take(&mut engine.parts).concat();
    all.extend_from_slice(&reply.body);
    String::from_utf8(all).expect("responses are UTF-8")
}

/// Status and body, with the baton as `B`.
fn shown(engine: &mut Engine, reply: &Reply) -> String {
    let text = without_costs(sent(engine, reply));
    let text = match text.split_once("\"baton\":\"") {
        Some((before, rest)) => format!("{before}\"baton\":\"B{}", &rest[64..]),
        None => text,
    };
    match reply.status {
        200 => text,
        status => {
            let body: Value = serde_json::from_str(&text).expect("a problem is JSON");
            assert_eq!(body["message"], body["error"]);
            assert_eq!(reply.content_type, "application/json");
            format!("{status} {} {}", text_of(&body["code"]), text_of(&body["message"]))
        }
    }
}

/// A receipt of the engine of these tests: each statement takes seven steps.
const RECEIPT: &str = r#","cost":{"ru":0.000140,"vm_steps":7,"pages_read":0,"pages_written":0,"log_bytes":0,"result_bytes":0}"#;

fn without_costs(text: String) -> String {
    text.replace(RECEIPT, "")
}

fn text_of(value: &Value) -> &str {
    value.as_str().expect("it is a string")
}

fn baton(engine: &mut Engine, reply: &Reply) -> String {
    assert_eq!(reply.status, 200);
    let text = sent(engine, reply);
    let (_, rest) = text.split_once("\"baton\":\"").expect("there is a baton");
    rest[..64].to_owned()
}

/// The results of a v3 pipeline of these requests, on a fresh engine.
#[track_caller]
fn check(requests: &str, expected: &str) {
    let body = format!("{{\"requests\":[{requests}]}}");
    let mut engine = Engine::new();
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    let expected = match reply.status {
        200 => format!("{{\"results\":[{expected}],\"baton\":\"B\",\"base_url\":null}}"),
        _ => expected.to_owned(),
    };
    assert_eq!(shown(&mut engine, &reply), expected);
}

/// The values of `SELECT <expressions>` with these arguments.
#[track_caller]
fn check_values(expressions: &str, arguments: &str, expected: &str) {
    let body = format!(
        "{{\"requests\":[{{\"type\":\"execute\",\"stmt\":\
         {{\"sql\":\"SELECT {expressions}\",\"args\":[{arguments}]}}}}]}}"
    );
    let mut engine = Engine::new();
    let reply = pipeline(&mut engine, ProtocolVersion::V2, body.as_bytes());
    let text = shown(&mut engine, &reply);
    if reply.status != 200 {
        let (found, _) = text.split_at(expected.len().min(text.len()));
        assert_eq!(found, expected, "{text}");
        return;
    }
    let (_, rows) = text.split_once("\"rows\":[[").unwrap_or_else(|| panic!("{text}"));
    let (row, _) = rows.split_once("]],").expect("a row ends");
    assert_eq!(row, expected);
}

#[test]
fn results_are_written_as_specified() {
    let rest =
        r#""replication_index":null,"rows_read":1,"rows_written":0,"query_duration_ms":0.11}"#;
    check(
        r#"{"type":"execute","stmt":{"sql":"SELECT 1 AS a, 'x' AS a"}}"#,
        &format!(
            r#"{{"type":"ok","response":{{"type":"execute","result":{{"cols":[{{"name":"a","decltype":null}},{{"name":"a","decltype":null}}],"rows":[[{{"type":"integer","value":"1"}},{{"type":"text","value":"x"}}]],"affected_row_count":0,"last_insert_rowid":null,{rest}}}}}"#
        ),
    );
    check(
        r#"{"type":"sequence","sql":"CREATE TABLE t (a int PRIMARY KEY, b FURRY BUNNY); -- x"},
           {"type":"execute","stmt":{"sql":"INSERT INTO t VALUES (5, 6);"}},
           {"type":"execute","stmt":{"sql":"SELECT * FROM t","want_rows":false}}"#,
        concat!(
            r#"{"type":"ok","response":{"type":"sequence"}},"#,
            r#"{"type":"ok","response":{"type":"execute","result":{"cols":[],"rows":[],"affected_row_count":1,"last_insert_rowid":"1","replication_index":null,"rows_read":0,"rows_written":1,"query_duration_ms":0.11}}},"#,
            r#"{"type":"ok","response":{"type":"execute","result":{"cols":[{"name":"a","decltype":"INT"},{"name":"b","decltype":"FURRY BUNNY"}],"rows":[],"affected_row_count":0,"last_insert_rowid":null,"replication_index":null,"rows_read":1,"rows_written":0,"query_duration_ms":0.11}}}"#,
        ),
    );
    check(
        r#"{"type":"describe","sql":"SELECT ?1, :b AS c"},{"type":"get_autocommit"},{"type":"sequence","sql":"BEGIN"},{"type":"get_autocommit"}"#,
        concat!(
            r#"{"type":"ok","response":{"type":"describe","result":{"params":[{"name":"?1"},{"name":":b"}],"cols":[{"name":"?1","decltype":null},{"name":"c","decltype":null}],"is_explain":false,"is_readonly":true}}},"#,
            r#"{"type":"ok","response":{"type":"get_autocommit","is_autocommit":true}},"#,
            r#"{"type":"ok","response":{"type":"sequence"}},"#,
            r#"{"type":"ok","response":{"type":"get_autocommit","is_autocommit":false}}"#,
        ),
    );
    check("", "");
}

#[test]
fn errors_are_results_and_stop_nothing() {
    check(
        r#"{"type":"sequence","sql":"SELECT nope"},
           {"type":"execute","stmt":{"sql":"SELECT 1; SELECT 2"}},
           {"type":"describe","sql":"SELECT * FROM nope"},
           {"type":"get_autocommit"}"#,
        concat!(
            r#"{"type":"error","error":{"message":"SQL input error: no such column: nope","code":"SQL_INPUT_ERROR"}},"#,
            r#"{"type":"error","error":{"message":"SQL string contains more than one statement","code":"SQL_MANY_STATEMENTS"}},"#,
            r#"{"type":"error","error":{"message":"SQLite error: no such table: nope","code":"SQLITE_UNKNOWN"}},"#,
            r#"{"type":"ok","response":{"type":"get_autocommit","is_autocommit":true}}"#,
        ),
    );
    // Rows that were written before the error are taken back.
    check(
        r#"{"type":"execute","stmt":{"sql":"SELECT abs(value) FROM (SELECT 1 AS value UNION ALL SELECT -9223372036854775807 - 1)"}}"#,
        r#"{"type":"error","error":{"message":"SQLite error: integer overflow","code":"SQLITE_UNKNOWN"}}"#,
    );
}

#[test]
fn values_go_round() {
    for (argument, expected) in [
        (r#"{"type":"null"}"#, r#"{"type":"null"}"#),
        (r#"{"type":"null","value":null}"#, r#"{"type":"null"}"#),
        (r#"{"type":"integer","value":"-9223372036854775808"}"#, ""),
        (r#"{"type":"integer","value":"9223372036854775807"}"#, ""),
        (r#"{"value":"7","type":"integer"}"#, r#"{"type":"integer","value":"7"}"#),
        (r#"{"type":"float","value":1}"#, r#"{"type":"float","value":1.0}"#),
        (r#"{"type":"float","value":0.1}"#, ""),
        (r#"{"type":"float","value":-0.0}"#, ""),
        (r#"{"type":"float","value":5e-324}"#, ""),
        (r#"{"type":"float","value":1.7976931348623157e+308}"#, ""),
        (
            r#"{"type":"float","value":9007199254740993}"#,
            r#"{"type":"float","value":9007199254740992.0}"#,
        ),
        (r#"{"type":"float","value":0.30000000000000004}"#, ""),
        (r#"{"type":"text","value":""}"#, ""),
        (
            r#"{"type":"text","value":"é😀\u2028\"\\\u0001"}"#,
            "{\"type\":\"text\",\"value\":\"é😀\u{2028}\\\"\\\\\\u0001\"}",
        ),
        (r#"{"type":"text","value":"\ud83d\ude00"}"#, r#"{"type":"text","value":"😀"}"#),
        (r#"{"\u0074ype":"text","value":"x"}"#, r#"{"type":"text","value":"x"}"#),
        (r#"{"type":"text","value":"x","other":[{"a":1}]}"#, r#"{"type":"text","value":"x"}"#),
        (r#"{"type":"blob","base64":""}"#, ""),
        (r#"{"type":"blob","base64":"AP8"}"#, ""),
        (r#"{"type":"blob","base64":"AP8="}"#, r#"{"type":"blob","base64":"AP8"}"#),
        (r#"{"type":"blob","base64":"+/8A"}"#, ""),
        (r#"{"type":"integer","value":7}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"integer","value":"+7"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"integer","value":" 7"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"integer","value":""}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"integer","value":"7.0"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"integer","value":"9223372036854775808"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"integer"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"float","value":"1"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"float","value":null}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"float","value":1e999}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"float","value":NaN}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"text","value":1}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"text","value":true}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"text","value":["x"]}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"text","value":"\ud83d"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"text","value":"x","value":"y"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"text","value":"x","type":"text"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"blob","base64":"A"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"blob","base64":"-_8A"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"blob","value":"AP8"}"#, "400 REQUEST_INVALID"),
        (r#"{"type":"boolean","value":true}"#, "400 REQUEST_INVALID"),
        (r#"{"value":"x"}"#, "400 REQUEST_INVALID"),
        ("null", "400 REQUEST_INVALID"),
        ("1", "400 REQUEST_INVALID"),
    ] {
        check_values("?", argument, if expected.is_empty() { argument } else { expected });
    }
}

#[test]
fn what_json_lacks_is_replaced() {
    check_values(
        "9e999, -9e999",
        "",
        r#"{"type":"float","value":null},{"type":"float","value":null}"#,
    );
    check_values(
        "CAST(x'61ff62c3' AS TEXT)",
        "",
        "{\"type\":\"text\",\"value\":\"a\u{fffd}b\u{fffd}\"}",
    );
    check_values(
        "char(0), 2.0",
        "",
        r#"{"type":"text","value":"\u0000"},{"type":"float","value":2.0}"#,
    );
}

/// Floats that were made from random bits come back as the same bits, through both directions.
#[test]
fn floats_round_trip() {
    let mut state = 42_u64;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        let bits = state ^ (state >> 29);
        let float = f64::from_bits(bits);
        let mut out = Vec::new();
        encode::value(&mut out, ValueRef::Real(float));
        let value: Value = serde_json::from_slice(&out).expect("a value is JSON");
        match value["value"].as_f64() {
            Some(found) => assert_eq!(found.to_bits(), float.to_bits()),
            None => assert!(!float.is_finite()),
        }
    }
}

#[test]
fn named_arguments_and_stored_texts() {
    check(
        r#"{"type":"store_sql","sql_id":-1,"sql":"SELECT :a, @b"},
           {"type":"execute","stmt":{"sql_id":-1,"sql":null,"named_args":[{"name":"a","value":{"type":"text","value":"x"}},{"value":{"type":"null"},"name":"@b"}]}},
           {"type":"describe","sql_id":-1},
           {"type":"close_sql","sql_id":-1},
           {"type":"close_sql","sql_id":77}"#,
        concat!(
            r#"{"type":"ok","response":{"type":"store_sql"}},"#,
            r#"{"type":"ok","response":{"type":"execute","result":{"cols":[{"name":":a","decltype":null},{"name":"@b","decltype":null}],"rows":[[{"type":"text","value":"x"},{"type":"null"}]],"affected_row_count":0,"last_insert_rowid":null,"replication_index":null,"rows_read":1,"rows_written":0,"query_duration_ms":0.11}}},"#,
            r#"{"type":"ok","response":{"type":"describe","result":{"params":[{"name":":a"},{"name":"@b"}],"cols":[{"name":":a","decltype":null},{"name":"@b","decltype":null}],"is_explain":false,"is_readonly":true}}},"#,
            r#"{"type":"ok","response":{"type":"close_sql"}},"#,
            r#"{"type":"ok","response":{"type":"close_sql"}}"#,
        ),
    );
    let unknown = "400 SQL_ID_UNKNOWN the stream keeps no SQL text with id 3";
    check(r#"{"type":"sequence","sql":"x"},{"type":"sequence","sql_id":3}"#, unknown);
    check(r#"{"type":"batch","batch":{"steps":[{"stmt":{"sql_id":3}}]}}"#, unknown);
    check(
        r#"{"type":"store_sql","sql_id":3,"sql":"x"},{"type":"close_sql","sql_id":3},{"type":"describe","sql_id":3}"#,
        unknown,
    );
    check(
        r#"{"type":"store_sql","sql_id":3,"sql":"x"},{"type":"store_sql","sql_id":3,"sql":"y"}"#,
        "400 SQL_ID_IN_USE the stream keeps an SQL text with id 3 already",
    );
    // A text that could not be stored is missed when it is run.
    check(
        &format!(
            r#"{{"type":"store_sql","sql_id":3,"sql":"{}"}},{{"type":"sequence","sql_id":3}}"#,
            "x".repeat(5001)
        ),
        concat!(
            r#"{"type":"error","error":{"message":"the text is too long","code":"SQL_STORE_TOO_LARGE"}},"#,
            r#"{"type":"error","error":{"message":"the stream keeps no SQL text with id 3","code":"SQL_ID_UNKNOWN"}}"#,
        ),
    );
}

#[test]
fn bodies_that_are_refused() {
    let deep = format!(
        r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{{"stmt":{{"sql":""}},"condition":{}}}]}}}}]}}"#,
        r#"{"type":"not","cond":"#.repeat(5000)
    );
    let many = format!(r#"{{"requests":[{}]}}"#, vec!["{\"type\":\"close\"}"; 70_000].join(","));
    let arguments = vec!["{\"type\":\"null\"}"; 32_767].join(",");
    let arguments = format!(
        r#"{{"requests":[{{"type":"execute","stmt":{{"sql":"","args":[{arguments}]}}}}]}}"#
    );
    let nested = format!("{{\"other\":{}", "[".repeat(100_000));
    for body in [
        "",
        "{",
        "[]",
        "null",
        "1",
        "{}",
        r#"{"requests":null}"#,
        r#"{"requests":{}}"#,
        r#"{"requests":[]} x"#,
        r#"{"requests":[],"requests":[]}"#,
        r#"{"baton":null,"baton":null,"requests":[]}"#,
        r#"{"baton":1,"requests":[]}"#,
        r#"{"requests":[null]}"#,
        r#"{"requests":[{}]}"#,
        r#"{"requests":[{"type":"dance"}]}"#,
        r#"{"requests":[{"type":"Execute"}]}"#,
        r#"{"requests":[{"type":"execute"}]}"#,
        r#"{"requests":[{"type":"execute","stmt":{}}]}"#,
        r#"{"requests":[{"type":"execute","stmt":{"sql":"a","sql_id":1}}]}"#,
        r#"{"requests":[{"type":"execute","stmt":{"sql":1}}]}"#,
        r#"{"requests":[{"type":"execute","stmt":{"sql":"a","want_rows":1}}]}"#,
        r#"{"requests":[{"type":"execute","stmt":{"sql":"a","args":{}}}]}"#,
        r#"{"requests":[{"type":"execute","stmt":{"sql":"a","named_args":[{"name":"a"}]}}]}"#,
        r#"{"requests":[{"type":"sequence"}]}"#,
        r#"{"requests":[{"type":"store_sql","sql_id":1}]}"#,
        r#"{"requests":[{"type":"store_sql","sql_id":2147483648,"sql":""}]}"#,
        r#"{"requests":[{"type":"store_sql","sql_id":1.0,"sql":""}]}"#,
        r#"{"requests":[{"type":"store_sql","sql_id":"1","sql":""}]}"#,
        r#"{"requests":[{"type":"batch","batch":{}}]}"#,
        r#"{"requests":[{"type":"batch","batch":{"steps":[{}]}}]}"#,
        "{\"requests\":[{\"type\":\"sequence\",\"sql\":\"a\nb\"}]}",
        &deep,
        &many,
        &arguments,
        &nested,
    ] {
        let mut engine = Engine::new();
        let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
        let text = shown(&mut engine, &reply);
        let start = "400 REQUEST_INVALID the body was not understood: ";
        assert!(text.starts_with(start), "{} -> {text}", &body[..body.len().min(200)]);
        assert!(engine.events.is_empty(), "{body}");
        assert_eq!(reply.log, Some("a request body was refused"));
    }
    let mut engine = Engine::new();
    let body = b"{\"requests\":[],\"other\":\"\xff\"}";
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body);
    assert_eq!(shown(&mut engine, &reply), "400 REQUEST_INVALID the body is not UTF-8 at byte 24");
    check(
        r#"{"type":"close"},{"type":"close"}"#,
        "400 STREAM_CLOSED Stream for this baton was closed",
    );
    // Unknown fields may nest as deep as they like, in closed form.
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!("{{\"requests\":[],\"other\":{nested}}}");
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    assert_eq!(reply.status, 200);
}

#[test]
fn version_2_has_no_autocommit() {
    for request in [
        r#"{"type":"get_autocommit"}"#,
        r#"{"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"},"condition":{"type":"is_autocommit"}}]}}"#,
    ] {
        let body = format!("{{\"requests\":[{request}]}}");
        let mut engine = Engine::new();
        let reply = pipeline(&mut engine, ProtocolVersion::V2, body.as_bytes());
        assert_eq!(reply.status, 400);
        let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
        assert_eq!(reply.status, 200);
    }
}

/// Which steps of a batch ran: `1` result, `e` error, `-` neither.
#[track_caller]
fn check_batch(steps: &str, expected: &str) {
    let body = format!(r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{steps}]}}}}]}}"#);
    let mut engine = Engine::new();
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    assert_eq!(reply.status, 200, "{}", shown(&mut engine, &reply));
    let value: Value = serde_json::from_str(&sent(&mut engine, &reply)).expect("JSON");
    let result = &value["results"][0]["response"]["result"];
    let list = |name: &str| result[name].as_array().expect("a list").clone();
    let (results, errors) = (list("step_results"), list("step_errors"));
    assert_eq!(results.len(), errors.len());
    let told = |(result, error): (&Value, &Value)| match (result.is_null(), error.is_null()) {
        (false, true) => '1',
        (true, false) => 'e',
        (true, true) => '-',
        (false, false) => panic!("both a result and an error"),
    };
    let found: String = results.iter().zip(&errors).map(told).collect();
    assert_eq!(found, expected, "{steps}");
}

#[test]
fn batches_follow_their_conditions() {
    let good = r#"{"stmt":{"sql":"SELECT 1"}}"#;
    let bad = r#"{"stmt":{"sql":"SELECT nope"}}"#;
    // Step 0 succeeds, 1 fails, 2 is skipped; step 3 has the condition.
    let when = |condition: &str, expected: &str| {
        let never = r#"{"stmt":{"sql":"SELECT 1"},"condition":{"type":"or","conds":[]}}"#;
        let last = format!(r#"{{"stmt":{{"sql":"SELECT 1"}},"condition":{condition}}}"#);
        check_batch(&format!("{good},{bad},{never},{last}"), &format!("1e-{expected}"));
    };
    check_batch("", "");
    check_batch(&format!("{good},{bad},{good}"), "1e1");
    when("null", "1");
    when(r#"{"type":"ok","step":0}"#, "1");
    when(r#"{"step":1,"type":"ok"}"#, "-");
    when(r#"{"type":"ok","step":2}"#, "-");
    when(r#"{"type":"error","step":0}"#, "-");
    when(r#"{"type":"error","step":1}"#, "1");
    when(r#"{"type":"error","step":2}"#, "-");
    when(r#"{"type":"not","cond":{"type":"ok","step":2}}"#, "1");
    when(r#"{"type":"and","conds":[]}"#, "1");
    when(r#"{"type":"or","conds":[]}"#, "-");
    when(r#"{"type":"and","conds":[{"type":"ok","step":0},{"type":"error","step":1}]}"#, "1");
    when(r#"{"type":"and","conds":[{"type":"ok","step":0},{"type":"ok","step":1}]}"#, "-");
    when(r#"{"type":"or","conds":[{"type":"ok","step":1},{"type":"ok","step":0}]}"#, "1");
    when(r#"{"type":"is_autocommit"}"#, "1");
    // What clients make of batch("write"), with a failure inside.
    let step = |sql: &str, condition: &str| {
        format!(r#"{{"stmt":{{"sql":"{sql}"}},"condition":{condition}}}"#)
    };
    check_batch(
        &[
            step("BEGIN IMMEDIATE", "null"),
            step("CREATE TABLE t (a)", r#"{"type":"ok","step":0}"#),
            step("INSERT INTO nope VALUES (1)", r#"{"type":"ok","step":1}"#),
            step("COMMIT", r#"{"type":"ok","step":2}"#),
            step("ROLLBACK", r#"{"type":"not","cond":{"type":"ok","step":3}}"#),
            step("SELECT 1", r#"{"type":"is_autocommit"}"#),
        ]
        .join(","),
        "11e-11",
    );
    for (condition, reason) in [
        (r#"{"type":"ok","step":1}"#, "Invalid reference to step in a batch condition"),
        (r#"{"type":"error","step":9}"#, "Invalid reference to step in a batch condition"),
        (r#"{"type":"ok","step":-1}"#, "invalid value"),
        (r#"{"type":"ok"}"#, "missing field"),
        (r#"{"type":"not"}"#, "missing field"),
        (r#"{"type":"and"}"#, "missing field"),
        (r#"{"type":"xor","conds":[]}"#, "unknown type"),
        (r#"{"type":"ok","step":0,"step":0}"#, "duplicate field"),
    ] {
        let body = format!(
            r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{good},{}]}}}}]}}"#,
            step("SELECT 1", condition)
        );
        let mut engine = Engine::new();
        let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
        let text = shown(&mut engine, &reply);
        assert!(text.starts_with("400 ") && text.contains(reason), "{condition}: {text}");
    }
    // Sixteen levels are taken, seventeen are not.
    for (levels, status) in [(15, 200), (16, 400)] {
        let condition = format!(
            "{}{{\"type\":\"ok\",\"step\":0}}{}",
            r#"{"type":"and","conds":["#.repeat(levels),
            "]}".repeat(levels)
        );
        let body = format!(
            r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{good},{}]}}}}]}}"#,
            step("SELECT 1", &condition)
        );
        let reply = pipeline(&mut Engine::new(), ProtocolVersion::V3, body.as_bytes());
        assert_eq!(reply.status, status, "{levels} levels");
    }
}

/// A body that nests as deep as it may is decoded on a quarter of a fiber's stack, in a debug build.
#[test]
fn decoding_needs_little_stack() {
    let condition = format!(
        "{}{{\"type\":\"ok\",\"step\":0}}{}",
        r#"{"type":"and","conds":["#.repeat(15),
        "]}".repeat(15)
    );
    let good = r#"{"stmt":{"sql":"SELECT 1"}}"#;
    let steps = format!(r#"{good},{{"stmt":{{"sql":"x"}},"condition":{condition}}}"#);
    let batch = format!(r#"{{"type":"batch","batch":{{"steps":[{steps}]}}}}"#);
    // Refused at its end, so nothing but decoding is measured.
    let body = format!(r#"{{"requests":[{batch},{{"type":"x"}}]}}"#);
    let decode = move || {
        let mut engine = Engine::new();
        pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes()).status
    };
    let small = std::thread::Builder::new().stack_size(64 * 1024);
    let thread = small.spawn(decode).expect("a thread starts");
    assert_eq!(thread.join().expect("it ends"), 400);
}

fn next(engine: &mut Engine, baton: &str, requests: &str) -> Reply {
    let body = format!(r#"{{"baton":"{baton}","requests":[{requests}]}}"#);
    pipeline(engine, ProtocolVersion::V2, body.as_bytes())
}

#[test]
fn batons_are_good_for_one_use() {
    let mut engine = Engine::new();
    let begin = r#"{"requests":[{"type":"execute","stmt":{"sql":"BEGIN"}}]}"#;
    let reply = pipeline(&mut engine, ProtocolVersion::V3, begin.as_bytes());
    let first = baton(&mut engine, &reply);
    let reply = next(&mut engine, &first, "");
    let second = baton(&mut engine, &reply);
    assert_ne!(first, second);
    let used = "400 BATON_USED Received a baton that has already been used";
    let reply = next(&mut engine, &first, "");
    assert_eq!(shown(&mut engine, &reply), used);
    // The stream is unharmed: its transaction is still open.
    let reply = next(&mut engine, &second, r#"{"type":"execute","stmt":{"sql":"COMMIT"}}"#);
    let third = baton(&mut engine, &reply);
    let invalid = "400 BATON_INVALID Received an invalid baton";
    for wrong in ["", "x", &third[..63], &third.replace(&third[5..6], "?")] {
        let reply = next(&mut engine, wrong, "");
        assert_eq!(shown(&mut engine, &reply), invalid, "{wrong}");
    }
    engine.tenant_id = 8;
    let reply = next(&mut engine, &third, "");
    assert_eq!(shown(&mut engine, &reply), invalid);
    engine.tenant_id = 7;
    // A body that cannot be read does not touch the stream.
    let reply = next(&mut engine, &third, "{}");
    assert_eq!(reply.status, 400);
    // The engine let the idle stream go.
    let parked = std::mem::take(&mut engine.parked);
    engine.now_ns.set(engine.now_ns.get() + 10_000_000_001);
    let reply = next(&mut engine, &third, "");
    assert_eq!(
        shown(&mut engine, &reply),
        "400 STREAM_EXPIRED The stream has expired due to inactivity"
    );
    engine.parked = parked;
    let reply = next(&mut engine, &third, r#"{"type":"close"}"#);
    assert_eq!(
        shown(&mut engine, &reply),
        r#"{"results":[{"type":"ok","response":{"type":"close"}}],"baton":null,"base_url":null}"#
    );
    assert_eq!(engine.events.last(), Some(&"close"));
    assert!(engine.parked.is_empty());
}

#[test]
fn an_unknown_sql_id_costs_the_stream() {
    let mut engine = Engine::new();
    let body = r#"{"requests":[{"type":"store_sql","sql_id":1,"sql":"SELECT 1"}]}"#;
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    let first = baton(&mut engine, &reply);
    let reply = next(&mut engine, &first, r#"{"type":"sequence","sql_id":1}"#);
    let second = baton(&mut engine, &reply);
    let reply = next(&mut engine, &second, r#"{"type":"sequence","sql_id":2}"#);
    assert_eq!(reply.status, 400);
    assert_eq!(engine.events.last(), Some(&"close"));
    assert!(engine.parked.is_empty());
}

#[test]
fn streams_can_be_refused() {
    let mut engine = Engine::new();
    engine.streams_max = 0;
    let reply = pipeline(&mut engine, ProtocolVersion::V3, br#"{"requests":[]}"#);
    assert_eq!((reply.status, reply.retry_after_seconds), (429, Some(1)));
    assert!(shown(&mut engine, &reply).starts_with("429 TOO_MANY_STREAMS "));
    let reply = cursor(&mut engine, r#"{"batch":{"steps":[]}}"#);
    assert_eq!((reply.status, reply.content_type), (429, "application/json"));
}

/// `count` rows with a text of `bytes` each.
fn rows_sql(count: usize, bytes: usize) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         SELECT i, printf('%.*c', {bytes}, 'x') FROM n"
    )
}

#[test]
fn long_pipelines_leave_in_parts() {
    let request = json!({"type": "execute", "stmt": {"sql": rows_sql(20, 1000)}});
    let body = json!({"requests": vec![request; 10]}).to_string();
    let mut engine = Engine::new();
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    assert_eq!(engine.parts.len(), 5);
    for part in &engine.parts {
        assert!((32 * 1024..64 * 1024).contains(&part.len()));
    }
    let text = sent(&mut engine, &reply);
    let value: Value = serde_json::from_str(&text).expect("the parts join to one JSON value");
    let results = value["results"].as_array().expect("a list");
    assert_eq!(results.len(), 10);
    for result in results {
        assert_eq!(result["response"]["result"]["rows"].as_array().map(Vec::len), Some(20));
    }
    // The reader goes away: the rest does not run, the stream is closed.
    for batch in [false, true] {
        let mut engine = Engine::new();
        engine.parts_max = 1;
        let body = match batch {
            false => body.clone(),
            true => {
                let steps = vec![json!({"stmt": {"sql": rows_sql(20, 1000)}}); 10];
                json!({"requests": [{"type": "batch", "batch": {"steps": steps}}]}).to_string()
            }
        };
        let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(engine.events, ["open", "close"]);
    }
}

#[test]
fn a_response_over_its_limit_is_that_statements_error() {
    let requests = [
        json!({"type": "execute", "stmt": {"sql": rows_sql(6, 1_000_000)}}),
        json!({"type": "execute", "stmt": {"sql": rows_sql(6, 1_000_000)}}),
        json!({"type": "execute", "stmt": {"sql": rows_sql(3, 1_000_000)}}),
        json!({"type": "batch", "batch": {"steps": [
            {"stmt": {"sql": rows_sql(6, 1_000_000)}},
            {"stmt": {"sql": "SELECT 1"}}]}}),
        json!({"type": "execute", "stmt": {"sql": rows_sql(6, 1_000_000), "want_rows": false}}),
        json!({"type": "get_autocommit"}),
    ];
    let body = json!({"requests": requests}).to_string();
    let mut engine = Engine::new();
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    let text = sent(&mut engine, &reply);
    assert!(text.len() < 10 * 1024 * 1024 + 4096);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let results = &value["results"];
    let told = |index: usize| match results[index]["type"].as_str() {
        Some("error") => results[index]["error"]["code"].as_str(),
        other => other,
    };
    let told: Vec<_> = (0..6).map(told).collect();
    assert_eq!(
        told.iter().map(|told| told.unwrap_or("?")).collect::<Vec<_>>(),
        ["ok", "RESPONSE_TOO_LARGE", "ok", "ok", "ok", "ok"]
    );
    let batch = &results[3]["response"]["result"];
    assert_eq!(batch["step_errors"][0]["code"], "RESPONSE_TOO_LARGE");
    assert!(batch["step_results"][1].is_object());
    // Bytes that JSON makes six of are counted as such before they are written.
    let sql = "SELECT replace(hex(zeroblob(1000000)), '00', char(1)), \
               replace(hex(zeroblob(1000000)), '00', char(1))";
    let body = json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}]}).to_string();
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    assert!(sent(&mut engine, &reply).contains("RESPONSE_TOO_LARGE"));
    assert!(reply.body.capacity() < 12 * 1024 * 1024);
}

#[test]
fn a_full_response_can_still_commit() {
    let execute = |sql: &str| json!({"type": "execute", "stmt": {"sql": sql}});
    let mut requests = vec![execute("BEGIN"), execute(&rows_sql(10, 1_000_000))];
    requests.extend(vec![execute(&rows_sql(20, 1000)); 30]);
    requests.extend(vec![execute("SELECT 1"); 200]);
    requests.push(execute("CREATE TABLE t (a)"));
    requests.push(execute("COMMIT"));
    let body = json!({"requests": requests}).to_string();
    let mut engine = Engine::new();
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    let value: Value = serde_json::from_str(&sent(&mut engine, &reply)).expect("JSON");
    let results = value["results"].as_array().expect("a list");
    let [.., select, create, commit] = &results[..] else {
        panic!("there are 234 results");
    };
    assert_eq!(select["error"]["code"], "RESPONSE_TOO_LARGE");
    assert_eq!((&create["type"], &commit["type"]), (&json!("ok"), &json!("ok")));
}

#[test]
fn batch_errors_are_bounded() {
    let steps = vec![json!({"stmt": {"sql": format!("SELECT {}", "x".repeat(3000))}}); 1000];
    let body = json!({"requests": [{"type": "batch", "batch": {"steps": steps}}]}).to_string();
    let mut engine = Engine::new();
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    let text = sent(&mut engine, &reply);
    assert!(text.len() < 1_300_000, "{}", text.len());
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let errors = &value["results"][0]["response"]["result"]["step_errors"];
    assert_eq!(errors.as_array().map(Vec::len), Some(1000));
    assert_eq!(errors[999]["code"], "SQL_INPUT_ERROR");
}

#[test]
fn cursors_write_only_the_entries_of_the_specification() {
    let mut engine = Engine::new();
    let reply = cursor(
        &mut engine,
        r#"{"baton":null,"batch":{"steps":[
            {"stmt":{"sql":"CREATE TABLE t (a INT)"}},
            {"stmt":{"sql":"INSERT INTO t VALUES (1), (2)"}},
            {"stmt":{"sql":"SELECT a FROM t"}},
            {"stmt":{"sql":"SELECT nope"}},
            {"stmt":{"sql":"SELECT 1"},"condition":{"type":"ok","step":3}},
            {"stmt":{"sql":"SELECT abs(v) FROM (SELECT 1 AS v UNION ALL SELECT -9223372036854775807 - 1)"}},
            {"stmt":{"sql":"SELECT 1"},"condition":{"type":"error","step":5}}]}}"#,
    );
    assert_eq!((reply.status, reply.content_type), (200, "text/plain"));
    assert!(engine.parts.is_empty(), "a short batch leaves in one piece");
    let expected = r#"{"baton":"B","base_url":null}
{"type":"step_begin","step":0,"cols":[]}
{"type":"step_end","affected_row_count":0,"last_insert_rowid":null}
{"type":"step_begin","step":1,"cols":[]}
{"type":"step_end","affected_row_count":2,"last_insert_rowid":"2"}
{"type":"step_begin","step":2,"cols":[{"name":"a","decltype":"INT"}]}
{"type":"row","row":[{"type":"integer","value":"1"}]}
{"type":"row","row":[{"type":"integer","value":"2"}]}
{"type":"step_end","affected_row_count":0,"last_insert_rowid":null}
{"type":"step_error","step":3,"error":{"message":"SQL input error: no such column: nope","code":"SQL_INPUT_ERROR"}}
{"type":"step_begin","step":5,"cols":[{"name":"abs(v)","decltype":null}]}
{"type":"row","row":[{"type":"integer","value":"1"}]}
{"type":"step_error","step":5,"error":{"message":"SQLite error: integer overflow","code":"SQLITE_UNKNOWN"}}
{"type":"step_begin","step":6,"cols":[{"name":"1","decltype":null}]}
{"type":"row","row":[{"type":"integer","value":"1"}]}
{"type":"step_end","affected_row_count":0,"last_insert_rowid":null}
"#;
    assert_eq!(shown(&mut engine, &reply), expected);
    assert_eq!(engine.events, ["open", "park"]);
    for body in ["{}", r#"{"requests":[]}"#, r#"{"batch":{"steps":[{"stmt":{"sql_id":1}}]}}"#] {
        let reply = cursor(&mut engine, body);
        assert_eq!((reply.status, reply.content_type), (400, "application/json"));
    }
}

#[test]
fn long_cursors_stream_and_keep_their_stream() {
    let body = json!({"batch": {"steps": [
        {"stmt": {"sql": "BEGIN"}},
        {"stmt": {"sql": rows_sql(20_000, 1000)}}]}})
    .to_string();
    let mut engine = Engine::new();
    let reply = cursor(&mut engine, &body);
    // 20 MB: over the limit of a pipeline, in parts that stay small.
    assert!(engine.parts.len() > 500);
    assert!(engine.parts.iter().all(|part| part.len() < 34 * 1024));
    let first = String::from_utf8(engine.parts[0].clone()).expect("UTF-8");
    assert!(first.starts_with("{\"baton\":\""));
    let text = sent(&mut engine, &reply);
    assert!(text.ends_with("}\n"));
    assert_eq!(text.matches("\"type\":\"row\"").count(), 20_000);
    for line in text.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok());
    }
    // The reader goes away in the middle: the stream is parked under the first line's baton.
    let mut engine = Engine::new();
    engine.parts_max = 2;
    let reply = cursor(&mut engine, &body);
    assert!(reply.body.is_empty());
    assert_eq!(engine.events, ["open", "park"]);
    let first = baton(&mut engine, &reply);
    let reply = next(&mut engine, &first, r#"{"type":"execute","stmt":{"sql":"COMMIT"}}"#);
    assert!(shown(&mut engine, &reply).contains("\"type\":\"ok\""));
}

#[test]
fn a_slow_cursor_does_not_keep_its_first_line() {
    let mut engine = Engine::new();
    engine.tick_ns = 8_000_000;
    let steps = vec![json!({"stmt": {"sql": "SELECT 1", "want_rows": false}}); 8];
    let body = json!({"batch": {"steps": steps}}).to_string();
    let reply = cursor(&mut engine, &body);
    // At the third step's end 24 ms have passed; after that, only full parts leave.
    assert_eq!(engine.parts.len(), 1);
    let part = String::from_utf8(engine.parts[0].clone()).expect("UTF-8");
    assert_eq!(part.lines().count(), 1 + 2 * 3);
    assert_eq!(sent(&mut engine, &reply).lines().count(), 1 + 2 * 8);
}

#[test]
fn version_1_calls_stand_alone() {
    let run = |call, body: &str| {
        let mut engine = Engine::new();
        let reply = run_v1(&mut engine, call, body.as_bytes(), None, Vec::new());
        let closed = engine.events.iter().filter(|event| **event == "close").count();
        let opened = engine.events.iter().filter(|event| **event == "open").count();
        assert_eq!(opened, closed);
        shown(&mut engine, &reply)
    };
    let result = r#"{"cols":[{"name":"1","decltype":null}],"rows":[[{"type":"integer","value":"1"}]],"affected_row_count":0,"last_insert_rowid":null,"replication_index":null,"rows_read":1,"rows_written":0,"query_duration_ms":0.11}"#;
    assert_eq!(
        run(V1Call::Execute, r#"{"stmt":{"sql":"SELECT 1"}}"#),
        format!("{{\"result\":{result}}}")
    );
    assert_eq!(
        run(V1Call::Execute, r#"{"stmt":{"sql":"SELECT nope"}}"#),
        "400 SQL_INPUT_ERROR SQL input error: no such column: nope"
    );
    assert_eq!(
        run(
            V1Call::Batch,
            r#"{"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}},{"stmt":{"sql":"SELECT nope"}}]}}"#
        ),
        format!(
            "{{\"result\":{{\"step_results\":[{result},null],\"step_errors\":[null,\
             {{\"message\":\"SQL input error: no such column: nope\",\
             \"code\":\"SQL_INPUT_ERROR\"}}]}}}}"
        )
    );
    assert!(run(V1Call::Execute, "{}").starts_with("400 REQUEST_INVALID "));
    assert!(run(V1Call::Execute, r#"{"stmt":{"sql_id":1}}"#).starts_with("400 SQL_ID_UNKNOWN "));
    assert!(run(V1Call::Batch, r#"{"stmt":{"sql":""}}"#).starts_with("400 REQUEST_INVALID "));
}

/// Valid bodies with bytes changed: never a panic, and always a status and a JSON body.
#[test]
fn mutated_bodies_never_panic() {
    let seeds = [
        r#"{"baton":null,"requests":[{"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"blob","base64":"AP8="}]}},{"type":"close"}]}"#,
        r#"{"requests":[{"type":"store_sql","sql_id":1,"sql":"SELECT :a"},{"type":"execute","stmt":{"sql_id":1,"named_args":[{"name":"a","value":{"type":"float","value":1.5e3}}]}},{"type":"describe","sql_id":1}]}"#,
        r#"{"requests":[{"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"}},{"stmt":{"sql":"x"},"condition":{"type":"not","cond":{"type":"and","conds":[{"type":"ok","step":0}]}}}]}}]}"#,
    ];
    let alphabet = b"{}[]\",:\\u0190-+.eEnull \xff\x00";
    let mut engine = Engine::new();
    for seed in 0..4000_u64 {
        let mut state = seed;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % bound
        };
        let mut body = seeds[below(seeds.len())].as_bytes().to_vec();
        for _ in 0..=below(3) {
            let at = below(body.len());
            match below(3) {
                0 => body[at] = alphabet[below(alphabet.len())],
                1 => drop(body.remove(at)),
                _ => body.insert(at, alphabet[below(alphabet.len())]),
            }
        }
        let reply = pipeline(&mut engine, ProtocolVersion::V3, &body);
        assert!([200, 400].contains(&reply.status), "seed {seed}");
        assert!(serde_json::from_slice::<Value>(&reply.body).is_ok(), "seed {seed}");
        engine.parked.clear();
    }
    assert_eq!(engine.tenant_id(), 7);
}

#[test]
fn each_result_carries_its_receipt_and_the_reply_their_sum() {
    let statement = r#"{"type":"execute","stmt":{"sql":"SELECT 1"}}"#;
    let failing = r#"{"type":"execute","stmt":{"sql":"SELECT nope"}}"#;
    let body = format!(r#"{{"requests":[{statement},{failing},{statement},{{"type":"close"}}]}}"#);
    let mut engine = Engine::new();
    let reply = pipeline(&mut engine, ProtocolVersion::V3, body.as_bytes());
    assert_eq!(reply.cost.vm_steps, 14);
    assert_eq!(sent(&mut engine, &reply).matches(RECEIPT).count(), 2);

    let body = r#"{"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}},{"stmt":{"sql":"SELECT 2"}}]}}"#;
    let reply = cursor(&mut engine, body);
    assert_eq!(reply.cost.vm_steps, 14);
    let ends = format!("\"last_insert_rowid\":null{RECEIPT}}}\n");
    assert_eq!(sent(&mut engine, &reply).matches(&ends).count(), 2);

    let body = r#"{"stmt":{"sql":"SELECT 1"}}"#;
    let reply = run_v1(&mut engine, V1Call::Execute, body.as_bytes(), None, Vec::new());
    assert_eq!(reply.cost.vm_steps, 7);
}
