//! The whole load generator against a responder in this process.

use clap::Parser;

use super::responder::{Answer, Responder, plain};
use super::*;

/// The options as they come from a command line.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn parse(arguments: &[&str]) -> Result<Options, String> {
    let arguments = ["myriad"].iter().chain(arguments);
    Arguments::try_parse_from(arguments)
        .map(|arguments| arguments.options)
        .map_err(|error| error.to_string())
}

/// Options that a command line gives.
pub(super) fn options(arguments: &[&str]) -> Options {
    parse(arguments).unwrap()
}

/// Answers as a server would: every pipeline finds a row.
fn answer(head: &str, body: &str) -> Answer {
    let reply = if head.contains("/pipeline ") {
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["requests"].as_array().unwrap().last().unwrap()["type"], "close");
        r#"{"results":[{"type":"ok","response":{"rows":[["value-1"]]}},{"type":"ok"}]}"#
    } else {
        ""
    };
    Answer::Bytes(plain("200 OK", reply), 1_000)
}

/// How many requests of each kind there were, the run's name left out.
fn summary(responder: &Responder) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for line in responder.first_lines() {
        // bench-<run>-<scenario>-<tenant>
        let kind = match line.split_once("bench-") {
            Some((before, name)) => {
                let (_, name) = name.split_once('-').unwrap();
                format!("{before}{name}")
            }
            None => line,
        };
        *counts.entry(kind.replace(" HTTP/1.1", "")).or_default() += 1;
    }
    counts.into_iter().collect()
}

#[test]
fn a_short_run_of_everything_that_needs_no_server_of_ours() {
    let (server, admin) = (Responder::start(answer), Responder::start(answer));
    let folder = tempfile::tempdir().unwrap();
    let (url, admin_url) = (server.url(), admin.url());
    let data = folder.path().to_str().unwrap();
    let arguments = ["--url", &url, "--admin-url", &admin_url, "--data", data];
    let sizes = ["--seconds", "0.02", "--tenants", "3", "--connections", "4"];
    let options = parse(&[&arguments[..], &sizes[..]].concat()).unwrap();
    let report = scenario::measure(&options, PathBuf::new()).unwrap();
    assert_eq!(report.verdict(), Ok(()));
    let names: Vec<_> = report.rows.iter().map(|row| row.name).collect();
    let expected =
        ["empty", "select", "insert-one", "insert-many", "fsync-one", "fsync-many", "create"];
    assert_eq!(names, expected);
    for row in &report.rows {
        assert!(row.outcome.latencies.count() > 0, "{}", row.name);
    }
    assert_eq!(report.json()["ratios"].as_object().unwrap().len(), 3);
    // All that was created was removed, and the folder is empty again.
    let asked = summary(&admin);
    let of = |method: &str| asked.iter().filter(|(kind, _)| kind.starts_with(method)).count();
    assert_eq!(of("POST "), of("DELETE "));
    assert!(asked.iter().any(|(kind, _)| kind == "DELETE /v1/namespaces/insert-many-00000002"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_rate_is_kept_whatever_the_answers_take() {
    let server = Responder::start(answer);
    let folder = tempfile::tempdir().unwrap();
    let (url, data) = (server.url(), folder.path().to_str().unwrap());
    let arguments = ["--url", &url, "--data", data, "--scenario", "empty", "--connections", "4"];
    let options = options(&[&arguments[..], &["--seconds", "0.5", "--rate", "200"]].concat());
    let report = scenario::measure(&options, PathBuf::new()).unwrap();
    assert_eq!(report.verdict(), Ok(()));
    let row = &report.rows[0];
    // Half a second of warm-up, and half a second that is measured.
    assert!((190..=200).contains(&row.outcome.sent), "{} sent", row.outcome.sent);
    assert!((90..=105).contains(&row.outcome.latencies.count()));
    assert_eq!(report.json()["loop"], "open");
    assert!(report.table().contains("open loop: 200 requests a second"), "{}", report.table());
}

#[test]
fn databases_are_prepared_once_each() {
    let server = Responder::start(answer);
    let url = server.url();
    let arguments = ["--url", &url, "--scenario", "select-many", "--tenants", "3"];
    let options = parse(&[&arguments[..], &["--seconds", "0.01"]].concat()).unwrap();
    let report = scenario::measure(&options, PathBuf::new()).unwrap();
    assert_eq!(report.verdict(), Ok(()));
    let asked = summary(&server);
    let total: usize = asked.iter().map(|(_, count)| count).sum();
    let databases: Vec<_> = asked.iter().map(|(kind, _)| kind.as_str()).collect();
    let expected = [0, 1, 2].map(|n| format!("POST /db/select-many-{n:08}/v2/pipeline"));
    assert_eq!(databases, expected);
    assert_eq!(total as u64, 3 + report.rows[0].outcome.sent);
}

#[test]
fn a_failure_keeps_what_was_measured_before() {
    let server = Responder::start(|head, _| {
        let status = if head.starts_with("GET") { "200 OK" } else { "404 Not Found" };
        Answer::Bytes(plain(status, "hm"), 1_000)
    });
    let url = server.url();
    let arguments = ["--url", &url, "--scenario", "empty,select", "--seconds", "0.01"];
    let report = scenario::measure(&parse(&arguments).unwrap(), PathBuf::new()).unwrap();
    assert_eq!(report.rows.len(), 1);
    assert_eq!(
        report.verdict().unwrap_err(),
        "select: preparing databases: 1 of 1 requests failed; the first: HTTP 404: hm"
    );
}

/// The binary under test is not the server here, so a script is.
#[test]
fn the_server_is_started_with_its_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let options = ["--data", data, "--scenario", "empty", "--io", "poll"];
    let options = parse(&options).unwrap();
    let error = scenario::measure(&options, "/bin/echo".into()).map(|_| ()).unwrap_err();
    let (what, wrote) = error.split_once("; it wrote:\n").unwrap();
    assert_eq!(what, "the server did not start (exit status: 0)");
    let (before, after) = wrote.split_once(data).unwrap();
    assert_eq!(before, "serve --data ");
    let (_, after) = after.split_once("/data ").unwrap();
    let expected =
        "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --create-on-first-use --io poll";
    assert_eq!(after, expected);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The server process is a script that points at the responder, which so outlives a restart.
#[test]
fn a_cold_run_restarts_the_server() {
    let responder = Responder::start(answer);
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("server");
    let url = responder.url();
    let script = format!(
        "#!/bin/sh\\necho started >> {}/starts\\n\
         echo listening on {url}\\necho admin on {url}\\nexec sleep 600\\n",
        folder.path().display()
    );
    // Written by another process: a descriptor of ours that is open for writing while another
    // test forks would make the script busy.
    let write = format!("printf '{script}' > \"$0\" && chmod +x \"$0\"");
    let written = std::process::Command::new("/bin/sh").args(["-c", &write]).arg(&program).status();
    assert!(written.unwrap().success());
    let data = folder.path().to_str().unwrap();
    let arguments = ["--data", data, "--scenario", "cold", "--tenants", "5"];
    let report = scenario::measure(&parse(&arguments).unwrap(), program).unwrap();
    assert_eq!(report.verdict(), Ok(()));
    assert_eq!(report.rows[0].outcome.latencies.count(), 5);
    let expected: Vec<_> =
        (0..5).map(|n| (format!("POST /db/cold-{n:08}/v2/pipeline"), 2)).collect();
    assert_eq!(summary(&responder), expected, "prepared, then asked once");
    let starts = std::fs::read_to_string(folder.path().join("starts")).unwrap();
    assert_eq!(starts.lines().count(), 2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the folder is gone");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let check = |arguments: &[&str], expected: &str| {
        let options = parse(arguments);
        let result = options
            .and_then(|options| scenario::measure(&options, PathBuf::new()))
            .and_then(|report| report.verdict());
        let error = result.unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let url = ["--url", "http://127.0.0.1:1"];
    check(&[url[0], url[1], "--scenario", "cold"], "cold restarts the server");
    check(&[url[0], url[1], "--scenario", "create"], "give --admin-url");
    check(&[url[0], url[1], "--scenario", "empty"], "empty: cannot connect to 127.0.0.1:1");
    check(&[url[0], url[1], "--scenario", "shares"], "starts a server of its own");
    check(&["--scenario", "nothing"], "invalid value 'nothing'");
    check(&["--seconds", "nan"], "must be between");
    check(&["--seconds", "0"], "must be between");
    check(&["--connections", "0"], "0 is not in 1..=10000");
    check(&["--admin-url", "http://127.0.0.1:1"], "--url <URL>");
    check(&[url[0], url[1], "--io", "uring"], "cannot be used with");
}
