//! JSON and Hrana: every field missing, null, of another type, twice and huge; batons forged, replayed and
//! swapped; texts stored without end; cursors that nobody reads. `tests/hrana.rs` has the same protocol
//! without a process, value by value.

use serde_json::{Value, json};

use super::ground::Ground;
use super::process::{Client, IOS, create_path, eventually, problem};

/// A call that is right: its path below the database, and its body.
struct Call {
    path: &'static str,
    body: &'static str,
    fields: &'static [Field],
}

/// A field of a body: where it is, what may stand there, and whether it must.
struct Field {
    pointer: &'static str,
    kind: Kind,
    required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Switch,
    /// 32 bits, as a JSON integer.
    Number,
    List,
    Object,
}

const fn must(pointer: &'static str, kind: Kind) -> Field {
    Field { pointer, kind, required: true }
}

const fn may(pointer: &'static str, kind: Kind) -> Field {
    Field { pointer, kind, required: false }
}

const CALLS: &[Call] = &[
    Call {
        path: "v3/pipeline",
        body: r#"{"baton":null,"requests":[{"type":"execute","stmt":{"sql":"SELECT 1","args":[],"named_args":[],"want_rows":true}}]}"#,
        fields: &[
            may("/baton", Kind::Text),
            must("/requests", Kind::List),
            must("/requests/0/type", Kind::Text),
            must("/requests/0/stmt", Kind::Object),
            must("/requests/0/stmt/sql", Kind::Text),
            may("/requests/0/stmt/args", Kind::List),
            may("/requests/0/stmt/named_args", Kind::List),
            may("/requests/0/stmt/want_rows", Kind::Switch),
        ],
    },
    Call {
        path: "v2/pipeline",
        body: r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT :a","named_args":[{"name":"a","value":{"type":"text","value":"x"}}]}}]}"#,
        fields: &[
            must("/requests/0/stmt/named_args/0/name", Kind::Text),
            must("/requests/0/stmt/named_args/0/value", Kind::Object),
            must("/requests/0/stmt/named_args/0/value/type", Kind::Text),
            must("/requests/0/stmt/named_args/0/value/value", Kind::Text),
        ],
    },
    Call {
        path: "v2/pipeline",
        body: r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT ?, ?","args":[{"type":"integer","value":"7"},{"type":"blob","base64":"AP8="}]}}]}"#,
        fields: &[
            must("/requests/0/stmt/args/0/type", Kind::Text),
            must("/requests/0/stmt/args/0/value", Kind::Text),
            must("/requests/0/stmt/args/1/base64", Kind::Text),
        ],
    },
    Call {
        path: "v3/pipeline",
        body: r#"{"requests":[{"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"},"condition":null},{"stmt":{"sql":"SELECT 2"},"condition":{"type":"not","cond":{"type":"ok","step":0}}},{"stmt":{"sql":"SELECT 3"},"condition":{"type":"and","conds":[{"type":"is_autocommit"}]}}]}}]}"#,
        fields: &[
            must("/requests/0/batch", Kind::Object),
            must("/requests/0/batch/steps", Kind::List),
            must("/requests/0/batch/steps/0/stmt", Kind::Object),
            must("/requests/0/batch/steps/0/stmt/sql", Kind::Text),
            may("/requests/0/batch/steps/0/condition", Kind::Object),
            must("/requests/0/batch/steps/1/condition/type", Kind::Text),
            must("/requests/0/batch/steps/1/condition/cond", Kind::Object),
            must("/requests/0/batch/steps/1/condition/cond/step", Kind::Number),
            must("/requests/0/batch/steps/2/condition/conds", Kind::List),
        ],
    },
    Call {
        path: "v3/pipeline",
        body: r#"{"requests":[{"type":"sequence","sql":"SELECT 1; SELECT 2"}]}"#,
        fields: &[must("/requests/0/sql", Kind::Text)],
    },
    Call {
        path: "v3/pipeline",
        body: r#"{"requests":[{"type":"describe","sql":"SELECT 1"}]}"#,
        fields: &[must("/requests/0/sql", Kind::Text)],
    },
    Call {
        path: "v3/pipeline",
        body: r#"{"requests":[{"type":"store_sql","sql_id":7,"sql":"SELECT 1"},{"type":"close_sql","sql_id":7}]}"#,
        fields: &[
            must("/requests/0/sql_id", Kind::Number),
            must("/requests/0/sql", Kind::Text),
            must("/requests/1/sql_id", Kind::Number),
        ],
    },
    Call {
        path: "v3/pipeline",
        body: r#"{"requests":[{"type":"get_autocommit"},{"type":"close"}]}"#,
        fields: &[must("/requests/0/type", Kind::Text), must("/requests/1/type", Kind::Text)],
    },
    Call {
        path: "v3/cursor",
        body: r#"{"baton":null,"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}}]}}"#,
        fields: &[
            may("/baton", Kind::Text),
            must("/batch", Kind::Object),
            must("/batch/steps", Kind::List),
            must("/batch/steps/0/stmt", Kind::Object),
            must("/batch/steps/0/stmt/sql", Kind::Text),
        ],
    },
    Call {
        path: "v1/execute",
        body: r#"{"stmt":{"sql":"SELECT 1"}}"#,
        fields: &[must("/stmt", Kind::Object), must("/stmt/sql", Kind::Text)],
    },
    Call {
        path: "v1/batch",
        body: r#"{"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}}]}}"#,
        fields: &[must("/batch", Kind::Object), must("/batch/steps", Kind::List)],
    },
];

/// A value of each type, with the kinds of field that take it.
fn values() -> Vec<(Value, &'static [Kind])> {
    vec![
        (json!(true), &[Kind::Switch]),
        (json!(7), &[]),
        (json!(-1), &[]),
        (json!(1.5), &[]),
        (json!(1e300), &[]),
        (json!(99_999_999_999_i64), &[]),
        (json!("x"), &[Kind::Text]),
        (json!([[]]), &[]),
        (json!([1]), &[]),
        (json!({}), &[]),
    ]
}

/// Stands for a text that is written into the body afterwards.
const MARK: &str = "@@mark@@";

/// What a field is made, the body that has it, and whether it is still right.
fn variants(call: &Call) -> Vec<(String, String, bool)> {
    let right: Value = serde_json::from_str(call.body).expect("a body of ours is JSON");
    let mut variants = vec![("as it is".to_owned(), call.body.to_owned(), true)];
    for field in call.fields {
        let Field { pointer, kind, required } = field;
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let mut push = |what: &str, body: String, good: bool| {
            variants.push((format!("{pointer} {what}"), body, good));
        };
        let mut missing = right.clone();
        let object = missing.pointer_mut(parent).and_then(Value::as_object_mut);
        let was = object.expect("an object").remove(key).expect("it is there");
        push("missing", missing.to_string(), !required);
        let with = |value: Value| {
            let mut changed = right.clone();
            *changed.pointer_mut(pointer).expect("it is there") = value;
            changed.to_string()
        };
        push("null", with(Value::Null), !required);
        for (value, kinds) in values() {
            if kinds.contains(kind) || is_taken(pointer, &value) {
                continue;
            }
            push(&value.to_string(), with(value.clone()), false);
        }
        let marked = with(json!(MARK));
        let pair = format!("\"{key}\":\"{MARK}\"");
        let twice = marked.replace(&pair, &format!("\"{key}\":{was},\"{key}\":{was}"));
        push("twice", twice, false);
        let escaped: String = key.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        let hidden = format!("\"{escaped}\":{was},\"{key}\":{was}");
        push("twice, once escaped", marked.replace(&pair, &hidden), false);
        for huge in ["1e999", "99999999999999999999999999", "01", "+1", "0x1", "NaN", "'x'", "x"] {
            push(huge, marked.replace(&format!("\"{MARK}\""), huge), false);
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        push("deep", marked.replace(&format!("\"{MARK}\""), &deep), false);
    }
    variants
}

/// What a field of its kind takes although its type is another's.
fn is_taken(pointer: &str, value: &Value) -> bool {
    // An id of 32 bits; a step before its own; a list with nothing in it is one.
    pointer.ends_with("/sql_id") && (*value == json!(7) || *value == json!(-1))
}

/// Status and code of the answer.
fn ask(client: &mut Client, path: &str, body: &str) -> (u16, String) {
    let response = client.call("POST", path, body.as_bytes()).expect("it is answered");
    match response.status {
        200 => (200, String::new()),
        status => (status, problem(&response.body).0),
    }
}

#[test]
fn every_field_of_every_call() {
    for io in IOS {
        let mut ground = Ground::on(io, &[]);
        ground.server.create("d");
        let mut client = ground.server.client();
        for call in CALLS {
            let path = format!("/db/d/{}", call.path);
            for (what, body, good) in variants(call) {
                let name = format!("{} {what}", call.path);
                let (status, code) = ask(&mut client, &path, &body);
                let fits = match good {
                    true => status == 200,
                    false => status == 400 && code == "REQUEST_INVALID",
                };
                if !fits {
                    let shown: String = body.chars().take(300).collect();
                    ground.fail(format!("{name}: {status} {code} for {shown}"));
                }
                ground.check(&name);
            }
        }
        ground.finish(&format!("fields, {io}"));
    }
}

/// Bodies beyond what one may hold.
fn beyond() -> Vec<(&'static str, &'static str, String, &'static str)> {
    let pipeline = |requests: String| format!("{{\"requests\":[{requests}]}}");
    let nulls = vec![r#"{"type":"null"}"#; 32_767].join(",");
    let condition = format!(
        "{}{{\"type\":\"is_autocommit\"}}{}",
        r#"{"type":"not","cond":"#.repeat(17),
        "}".repeat(17)
    );
    let steps = vec![r#"{"stmt":{"sql":"SELECT 1"}}"#; 33_000].join(",");
    vec![
        (
            "requests",
            "v3/pipeline",
            pipeline(vec![r#"{"type":"get_autocommit"}"#; 33_000].join(",")),
            "REQUEST_INVALID",
        ),
        (
            "steps",
            "v3/pipeline",
            pipeline(format!(r#"{{"type":"batch","batch":{{"steps":[{steps}]}}}}"#)),
            "REQUEST_INVALID",
        ),
        (
            "arguments",
            "v3/pipeline",
            pipeline(format!(
                r#"{{"type":"execute","stmt":{{"sql":"SELECT 1","args":[{nulls}]}}}}"#
            )),
            "REQUEST_INVALID",
        ),
        (
            "conditions in conditions",
            "v3/pipeline",
            pipeline(format!(
                r#"{{"type":"batch","batch":{{"steps":[{{"stmt":{{"sql":"SELECT 1"}},"condition":{condition}}}]}}}}"#
            )),
            "REQUEST_INVALID",
        ),
        ("brackets", "v3/pipeline", "[".repeat(1_000_000), "REQUEST_INVALID"),
        ("braces", "v3/cursor", "{\"a\":".repeat(1_000_000), "REQUEST_INVALID"),
        (
            "a baton of a megabyte",
            "v3/pipeline",
            format!(r#"{{"baton":"{}","requests":[]}}"#, "A".repeat(1_000_000)),
            "BATON_INVALID",
        ),
        (
            "requests after a close",
            "v3/pipeline",
            pipeline(r#"{"type":"close"},{"type":"get_autocommit"}"#.to_owned()),
            "STREAM_CLOSED",
        ),
        (
            "calls of a later version",
            "v2/pipeline",
            pipeline(r#"{"type":"get_autocommit"}"#.to_owned()),
            "REQUEST_INVALID",
        ),
        (
            "a stored text where none is kept",
            "v1/execute",
            r#"{"stmt":{"sql_id":1}}"#.to_owned(),
            "SQL_ID_UNKNOWN",
        ),
    ]
}

#[test]
fn bodies_beyond_their_limits() {
    for io in IOS {
        let mut ground = Ground::on(io, &[]);
        ground.server.create("d");
        let mut client = ground.server.client();
        for (name, path, body, expected) in beyond() {
            let told = ask(&mut client, &format!("/db/d/{path}"), &body);
            if told != (400, expected.to_owned()) {
                ground.fail(format!("{name}: {told:?}, not {expected}"));
            }
            ground.check(name);
        }
        ground.finish(&format!("bodies beyond their limits, {io}"));
    }
}

/// Decoded, a body is eight times as long: 32,760 steps are 8 MiB for as long as they wait for their turn.
#[test]
fn steps_without_end_are_booked() {
    for io in IOS {
        let mut ground = Ground::on(io, &[]);
        let mut roomy = ground.server.create("roomy");
        roomy.rows(&["CREATE TABLE t(a)"]);
        let settings = json!({"budget": {"memory_bytes": "4MiB"}});
        let created = ground.server.admin().post(&create_path("narrow"), &settings);
        assert_eq!(created.expect("it is answered").status, 200);
        let mut client = ground.server.client();
        let step = json!({"stmt": {"sql": "SELECT 1"}});
        let batch = json!({"steps": vec![step; 32_760]});
        let body = json!({"requests": [{"type": "batch", "batch": batch}]}).to_string();
        for (name, expected) in
            [("roomy", (200, String::new())), ("narrow", (429, "BUDGET_EXCEEDED".into()))]
        {
            let told = ask(&mut client, &format!("/db/{name}/v3/pipeline"), &body);
            if told != expected {
                ground.fail(format!("{name}: {told:?}, not {expected:?}"));
            }
            ground.check(name);
        }
        ground.finish(&format!("steps without end, {io}"));
    }
}

/// One request on a stream: the results and the next baton, or the code of the refusal.
fn on_stream(
    client: &mut Client,
    name: &str,
    baton: &Value,
    requests: &Value,
) -> Result<(Value, Value), String> {
    let body = json!({"baton": baton, "requests": requests}).to_string();
    let path = format!("/db/{name}/v3/pipeline");
    let response = client.call("POST", &path, body.as_bytes()).expect("it is answered");
    if response.status != 200 {
        return Err(problem(&response.body).0);
    }
    let mut answer = response.json();
    Ok((answer["results"].take(), answer["baton"].take()))
}

fn execute(sql: &str) -> Value {
    json!([{"type": "execute", "stmt": {"sql": sql}}])
}

#[test]
fn batons_of_others() {
    for io in IOS {
        let mut ground = Ground::on(io, &[]);
        let mut victim = ground.server.create("victim");
        victim.rows(&["CREATE TABLE secret(a)"]);
        ground.server.create("thief");
        let mut client = ground.server.client();
        let begin = json!([
            {"type": "execute", "stmt": {"sql": "BEGIN IMMEDIATE"}},
            {"type": "execute", "stmt": {"sql": "INSERT INTO secret VALUES ('canary')"}}]);
        let (_, used) = on_stream(&mut client, "victim", &Value::Null, &begin).expect("it begins");
        let (_, baton) = on_stream(&mut client, "victim", &used, &json!([])).expect("it goes on");
        let text = baton.as_str().expect("a baton").to_owned();
        let mut attempts = vec![
            ("replayed", "victim", used.as_str().expect("a baton").to_owned(), "BATON_USED"),
            ("of another database", "thief", text.clone(), "BATON_INVALID"),
            ("empty", "victim", String::new(), "BATON_INVALID"),
            ("cut", "victim", text[..text.len() - 1].to_owned(), "BATON_INVALID"),
            ("longer", "victim", format!("{text}A"), "BATON_INVALID"),
            ("twice", "victim", format!("{text}{text}"), "BATON_INVALID"),
            ("padded", "victim", format!("{text}=="), "BATON_INVALID"),
            ("spaced", "victim", format!(" {text}"), "BATON_INVALID"),
            ("unknown", "victim", "A".repeat(text.len()), "BATON_INVALID"),
        ];
        // Every character of it changed, one at a time.
        for at in 0..text.len() {
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            attempts.push(("changed", "victim", changed, "BATON_INVALID"));
        }
        for (what, name, forged, expected) in attempts {
            let told = on_stream(&mut client, name, &json!(forged), &execute("SELECT 1"));
            if told.as_ref().err().map(String::as_str) != Some(expected) {
                ground.fail(format!("a baton {what}: {told:?}, not {expected}"));
            }
            let cursor = json!({"baton": forged, "batch": {"steps": []}}).to_string();
            let told = ask(&mut client, &format!("/db/{name}/v3/cursor"), &cursor);
            if told != (400, expected.to_owned()) {
                ground.fail(format!("a cursor's baton {what}: {told:?}, not {expected}"));
            }
            ground.check(what);
        }
        // The stream is as it was: its transaction commits.
        let (results, _) = on_stream(&mut client, "victim", &baton, &execute("COMMIT"))
            .expect("the owner's baton is still good");
        assert_eq!(results[0]["type"], "ok", "{results}");
        assert_eq!(victim.value("SELECT a FROM secret"), "canary");
        ground.finish(&format!("batons, {io}"));
    }
}

#[test]
fn texts_stored_without_end() {
    for io in IOS {
        let mut ground = Ground::on(io, &[]);
        ground.server.create("d");
        let mut client = ground.server.client();
        let store = |id: i64, sql: &str| json!({"type": "store_sql", "sql_id": id, "sql": sql});
        let many: Vec<Value> = (0..200).map(|id| store(id, "SELECT 1")).collect();
        let (results, baton) =
            on_stream(&mut client, "d", &Value::Null, &json!(many)).expect("it is answered");
        let codes: Vec<&str> = results.as_array().expect("results").iter().map(code).collect();
        assert_eq!(codes.iter().filter(|code| **code == "ok").count(), 150, "{codes:?}");
        assert!(codes[150..].iter().all(|code| *code == "SQL_STORE_TOO_MANY"), "{codes:?}");
        ground.check("many texts");
        // What was not stored is unknown, and what is there is not stored again.
        let unknown = json!([{"type": "execute", "stmt": {"sql_id": 9999}}]);
        assert_eq!(on_stream(&mut client, "d", &baton, &unknown), Err("SQL_ID_UNKNOWN".to_owned()));
        let again = json!([store(1, "SELECT 1"), store(1, "SELECT 2")]);
        assert_eq!(
            on_stream(&mut client, "d", &Value::Null, &again),
            Err("SQL_ID_IN_USE".to_owned())
        );
        let long = "x".repeat(64 * 1024 + 1);
        let large = json!([store(1, &long), store(i64::from(i32::MIN), &long[..64 * 1024])]);
        let (results, baton) =
            on_stream(&mut client, "d", &Value::Null, &large).expect("it is answered");
        assert_eq!(code(&results[0]), "SQL_STORE_TOO_LARGE");
        assert_eq!(code(&results[1]), "ok");
        // A text that is no SQL is kept, and fails when it runs.
        let run = json!([{"type": "sequence", "sql_id": i32::MIN}]);
        let (results, baton) = on_stream(&mut client, "d", &baton, &run).expect("it is answered");
        assert_eq!(code(&results[0]), "SQL_PARSE_ERROR");
        // Stored and closed, over and over: nothing grows.
        let mut baton = baton;
        let round: Vec<Value> = (0..100)
            .flat_map(|id| [store(id, &long[..4096]), json!({"type": "close_sql", "sql_id": id})])
            .collect();
        for _ in 0..20 {
            let (results, next) =
                on_stream(&mut client, "d", &baton, &json!(round)).expect("it is answered");
            assert!(results.as_array().expect("results").iter().all(|one| code(one) == "ok"));
            baton = next;
        }
        ground.check("texts stored and closed");
        ground.finish(&format!("stored texts, {io}"));
    }
}

fn code(result: &Value) -> &str {
    match result["type"].as_str() {
        Some("ok") => "ok",
        _ => result["error"]["code"].as_str().expect("a code"),
    }
}

#[test]
fn cursors_that_nobody_reads() {
    const CURSORS: usize = 40;
    for io in IOS {
        let mut ground = Ground::on(io, &[]);
        ground.server.create("d");
        let endless = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) \
                       SELECT i, printf('%.*c', 1000, 'x') FROM c";
        let body = json!({"batch": {"steps": [{"stmt": {"sql": endless}}]}}).to_string();
        let mut clients = Vec::new();
        for _ in 0..CURSORS {
            let mut client = ground.server.client();
            client.send("POST", "/db/d/v3/cursor", body.as_bytes()).expect("it is read");
            assert_eq!(client.receive_head().expect("it begins").status, 200);
            clients.push(client);
            ground.check("a cursor that nobody reads");
        }
        // They go, without a word, in the middle of a part.
        drop(clients);
        eventually(10, "their memory comes back", || {
            ground.server.metric("ledger_account_bytes{account=\"connections\"}") < 200_000
        });
        let dropped = ground.server.admin().call("DELETE", "/v1/namespaces/d", b"");
        let dropped = dropped.expect("answered").json();
        assert_eq!(dropped["receipt"]["even"], json!(true), "{dropped}");
        ground.finish(&format!("cursors, {io}"));
    }
}
