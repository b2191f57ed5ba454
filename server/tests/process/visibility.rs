//! What the operator sees of the real binary: the table of memory, metrics, `top`; and a request's
//! priority.

use serde_json::{Value, json};

use crate::process::sql::execute;
use crate::process::{Launch, Server, bare, eventually, folder};

const HEAVY: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 300000) \
                     SELECT count(*) FROM c";

fn get(server: &Server, path: &str) -> (u16, Value) {
    let response = server.admin().call("GET", path, b"").expect("answered");
    (response.status, response.json())
}

fn top(server: &Server, query: &str) -> Vec<Value> {
    let (status, answer) = get(server, &format!("/v1/top?{query}"));
    assert_eq!(status, 200, "{answer}");
    answer["tenants"].as_array().expect("a list").clone()
}

/// One statement, with a priority: status and code.
fn urgent(server: &Server, name: &str, priority: &str) -> (u16, String) {
    let body = json!({"requests": [execute("SELECT 1"), {"type": "close"}]}).to_string();
    let text = format!(
        "POST /db/{name}/v2/pipeline HTTP/1.1\r\nhost: x\r\nx-myriad-priority: {priority}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = server.client();
    client.send_raw(text.as_bytes()).expect("the server reads");
    let response = client.receive().expect("the server answers");
    (response.status, response.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn memory_is_divided_and_printed() {
    let data = folder();
    let ended = Launch::on(&data.path().join("d")).with(&["--memory", "100MiB"]).ended();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    for part in ["--memory 100 MiB is too little", "402MiB or more"] {
        assert!(ended.stderr.contains(part), "{part} is not in {}", ended.stderr);
    }
    assert!(!data.path().join("d").exists(), "a start that was refused made a folder");
    let server = Launch::on(data.path()).with(&["--memory", "402MiB"]).start();
    // Its database gets what is left.
    assert_eq!(server.create("d").value("SELECT 1 + 1"), "2");
    let (_, budget) = get(&server, "/v1/namespaces/d/budget");
    assert_eq!(budget["effective"]["memory_bytes"]["value"], 16 << 20);
    let said = server.stop();
    for part in ["memory 402 MiB:", "16 MiB  databases together", "64 MiB  catalogue"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn who_uses_most_is_seen() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut busy = server.create("busy");
    busy.rows(&["CREATE TABLE t(x)", "INSERT INTO t VALUES (1)", HEAVY]);
    assert_eq!(server.create("calm").value("SELECT 1"), "1");
    let tenants = top(&server, "by=cpu&limit=1");
    assert_eq!((tenants.len(), &tenants[0]["name"]), (1, &json!("busy")));
    assert!(tenants[0]["usage"]["cpu_ns"].as_u64().expect("a number") > 1_000_000);
    assert!(tenants[0]["memory_bytes"].as_u64().expect("a number") > 0);
    let names = |query: &str| -> Vec<Value> {
        top(&server, query).iter().map(|tenant| tenant["name"].clone()).collect()
    };
    assert!(names("by=memory").contains(&json!("calm")));
    // Nobody has used these since.
    let (_, answer) = get(&server, "/v1/top");
    let since = answer["now_ns"].as_u64().expect("a number") + 1;
    eventually(10, "the databases to be quiet", || {
        let names = names(&format!("since={since}"));
        !names.contains(&json!("busy")) && !names.contains(&json!("calm"))
    });
    assert_eq!(get(&server, "/v1/top?by=size").0, 400);

    let text = server.admin().call("GET", "/metrics", b"").expect("answered").text();
    for part in [
        "myriad_top_cpu_seconds_total{database=\"busy\"} ",
        "myriad_responses_total{status=\"200\"} ",
        "myriad_refusals_total{code=\"REQUEST_INVALID\"} 1\n",
        "myriad_request_seconds_bucket{le=\"+Inf\"} ",
        "myriad_ledger_account_bytes{account=\"catalogue\"} ",
        "\nmyriad_unbooked_bytes 0\n",
        "\nmyriad_late_turns_total 0\n",
        "\nmyriad_starved_writers_total 0\n",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(server.metric("io_written_bytes_total") > 0);
    server.stop();
}

#[test]
fn top_prints_the_difference_of_two_looks() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut busy = server.create("busy");
    assert_eq!(busy.value("SELECT 1"), "1");
    let admin = format!("http://{}", server.admin);
    let ended =
        bare(&["top", "--admin", &admin, "--once", "--interval", "100ms", "--by", "memory"]);
    assert!(ended.status.success(), "{}", ended.stderr);
    let mut lines = ended.stdout.lines();
    assert!(lines.next().expect("a head").starts_with("DATABASE "), "{}", ended.stdout);
    let line = lines.find(|line| line.starts_with("busy ")).expect("it is listed");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words.len(), words[1], words[6]), (7, "0.0", "idle"), "{line}");
    assert!(!ended.stdout.contains('\x1b'), "scripts want plain text");
    server.stop();
    let ended = bare(&["top", "--admin", &admin, "--once"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("cannot reach the control API"), "{}", ended.stderr);
}

#[test]
fn a_request_says_how_urgent_it_is() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    server.create("d");
    for priority in ["background", "normal", "interactive"] {
        assert_eq!(urgent(&server, "d", priority), (200, String::new()), "{priority}");
    }
    assert_eq!(urgent(&server, "d", "urgent"), (400, "PRIORITY_INVALID".to_owned()));
    server.stop();
}
