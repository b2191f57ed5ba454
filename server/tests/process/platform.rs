//! Organisations, groups and their databases through the Platform API and the lists and sums beside it,
//! and sqld's routes: on the real binary, over a restart.

use serde_json::{Value, json};

use crate::process::{Launch, Server, eventually, folder};

fn ask(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = server.admin().call(method, path, body.as_bytes()).expect("answered");
    (response.status, response.json())
}

fn call(server: &Server, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(server, method, path, body);
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

fn get(server: &Server, path: &str) -> Value {
    call(server, "GET", path, &Value::Null)
}

/// Status and code of what is refused.
fn refused(server: &Server, method: &str, path: &str, body: &Value) -> (u16, String) {
    let (status, answer) = ask(server, method, path, body);
    assert_eq!(answer["error"], answer["message"], "{method} {path}: {answer}");
    (status, answer["code"].as_str().expect("a code").to_owned())
}

/// Organisation `acme` with groups `app` and `web`, and `rival` with a group, each with some databases.
fn settle(server: &Server) {
    for name in ["acme", "rival"] {
        call(server, "POST", "/v1/organizations", &json!({ "name": name }));
    }
    for group in ["web", "app"] {
        call(server, "POST", "/v1/organizations/acme/groups", &json!({ "Name": group }));
    }
    for number in 0..5 {
        for group in ["web", "app"] {
            let body = json!({ "name": format!("{group}-{number}"), "group": group });
            call(server, "POST", "/v1/organizations/acme/databases", &body);
        }
        let body = json!({ "name": format!("rival-{number}") });
        call(server, "POST", "/v1/organizations/rival/databases", &body);
    }
}

/// All names, page by page, each of `limit`.
fn names(server: &Server, path: &str, limit: usize) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(server, &format!("{path}limit={limit}&cursor={cursor}"));
        let rows = page["databases"].as_array().expect("a list");
        assert!(rows.len() <= limit);
        names.extend(rows.iter().map(|row| row["Name"].as_str().expect("a name").to_owned()));
        match page["pagination"]["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return names,
        }
    }
}

#[test]
fn databases_are_listed_by_organisation_and_group_page_by_page() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    settle(&server);
    let of = |group: &str| (0..5).map(|number| format!("{group}-{number}")).collect::<Vec<_>>();
    let acme = [of("app"), of("web")].concat();
    let databases = "/v1/organizations/acme/databases?";
    for limit in [1, 2, 5, 7, 10, 1000] {
        assert_eq!(names(&server, databases, limit), acme, "{limit} a page");
        assert_eq!(names(&server, &format!("{databases}group=web&"), limit), of("web"));
    }
    assert_eq!(names(&server, "/v1/organizations/rival/databases?", 3), of("rival"));
    // Another's databases are not there, and their names are taken all the same.
    for (method, below) in
        [("GET", ""), ("DELETE", ""), ("POST", "/auth/rotate"), ("GET", "/usage")]
    {
        let path = format!("/v1/organizations/acme/databases/rival-0{below}");
        assert_eq!(refused(&server, method, &path, &Value::Null).0, 404, "{path}");
    }
    let taken = json!({ "name": "rival-0" });
    let path = "/v1/organizations/acme/databases";
    assert_eq!(refused(&server, "POST", path, &taken), (409, "DATABASE_EXISTS".into()));
    let missing = json!({ "name": "new", "group": "nothing" });
    assert_eq!(refused(&server, "POST", path, &missing), (404, "GROUP_NOT_FOUND".into()));
    // `default` was made by its first database, and not before it.
    let groups = |name: &str| get(&server, &format!("/v1/organisations/{name}/groups"));
    let rival = groups("rival");
    assert_eq!(rival["groups"].as_array().map(Vec::len), Some(1));
    assert_eq!(rival["groups"][0]["group"], "default");
    let page = get(&server, "/v1/organisations/acme/groups?limit=1");
    assert_eq!((&page["groups"][0]["group"], &page["next"]), (&json!("app"), &json!("app")));
    let page = get(&server, "/v1/organisations?after=acme");
    assert_eq!(page["organisations"][0]["organisation"], "rival");
    assert_eq!(page["organisations"].as_array().map(Vec::len), Some(1));
    let in_use = refused(&server, "DELETE", "/v1/organizations/acme/groups/web", &Value::Null);
    assert_eq!(in_use, (409, "IN_USE".into()));
    server.stop();
}

/// The sum of what databases say themselves is what their group and organisation say.
fn sums_agree(server: &Server) -> u64 {
    let own = |name: String| get(server, &format!("/v1/namespaces/{name}/usage"));
    let mut all = (0, 0);
    for group in ["web", "app"] {
        let (mut bytes, mut requests) = (0, 0);
        for number in 0..5 {
            let usage = own(format!("{group}-{number}"));
            bytes += usage["storage_bytes"].as_u64().expect("a number");
            requests += usage["total"]["requests"].as_u64().expect("a number");
        }
        let sum = get(server, &format!("/v1/organisations/acme/groups/{group}/usage"));
        assert_eq!(sum["storage_bytes"], bytes, "{group}: {sum}");
        assert_eq!(sum["total"]["requests"], requests, "{group}: {sum}");
        assert_eq!(sum["databases"], 5);
        all = (all.0 + bytes, all.1 + requests);
    }
    let sum = get(server, "/v1/organisations/acme/usage");
    assert_eq!((&sum["databases"], &sum["groups"]), (&json!(10), &json!(2)));
    assert_eq!((&sum["storage_bytes"], &sum["total"]["requests"]), (&json!(all.0), &json!(all.1)));
    let platform = get(server, "/v1/organizations/acme/usage");
    assert_eq!(platform["organization"]["usage"]["storage_bytes"], all.0);
    all.0
}

#[test]
fn use_of_a_group_is_the_sum_of_its_databases_open_closed_and_after_a_restart() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    settle(&server);
    assert_eq!(sums_agree(&server), 0, "nothing was written yet");
    for name in ["web-0", "web-1", "app-3", "rival-0"] {
        server.database(name).rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES(zeroblob(9000))"]);
    }
    let before = sums_agree(&server);
    assert_eq!(before, 3 * 4 * 4096, "two pages, and two for the rest of a row");
    // A checkpoint changes where the bytes are, and not how many.
    call(&server, "POST", "/v1/namespaces/web-0/checkpoint", &json!({}));
    eventually(10, "the checkpoint has made a file", || {
        get(&server, "/v1/namespaces/web-0/usage")["now"]["held_bytes"]["file"] != 0
    });
    assert_eq!(sums_agree(&server), before);
    server.stop();
    let server = Launch::on(data.path()).start();
    assert_eq!(sums_agree(&server), before, "all are closed");
    server.database("web-0").rows(&["DROP TABLE t"]);
    sums_agree(&server);
    call(&server, "DELETE", "/v1/organizations/acme/databases/web-1", &Value::Null);
    let sum = get(&server, "/v1/organisations/acme/groups/web/usage");
    assert_eq!(sum["databases"], 4);
    server.stop();
}

#[test]
fn a_database_is_configured_as_sqld_s_are() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let namespace = "/v1/namespaces/shop";
    call(&server, "POST", &format!("{namespace}/create"), &json!({ "max_db_size": "1MB" }));
    server.database("shop").rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES(7)"]);
    let config = format!("{namespace}/config");
    let said = get(&server, &config);
    assert_eq!((&said["max_db_size"], &said["block_writes"]), (&json!("1000000B"), &json!(false)));
    call(&server, "POST", &config, &said);
    assert_eq!(get(&server, &config), said, "what it says can be sent back");
    let blocked =
        json!({ "block_reads": false, "block_writes": true, "block_reason": "moved away" });
    call(&server, "POST", &config, &blocked);
    let mut shop = server.database("shop");
    assert_eq!(shop.value("SELECT a FROM t"), "7");
    let trouble = shop.run(&["DELETE FROM t"]).expect_err("writes are blocked");
    assert_eq!(trouble.code(), "BLOCKED");
    let opened = json!({ "block_reads": false, "block_writes": false });
    call(&server, "POST", &config, &opened);
    let said = get(&server, &config);
    assert_eq!((&said["block_reason"], &said["max_db_size"]), (&Value::Null, &json!("1000000B")));
    server.database("shop").rows(&["DELETE FROM t"]);
    let stats = get(&server, &format!("{namespace}/stats"));
    assert!(stats["query_count"].as_u64() >= Some(4), "{stats}");
    assert!(stats["storage_bytes_used"].as_u64() >= Some(8192), "{stats}");
    call(&server, "POST", &format!("{namespace}/fork/other"), &Value::Null);
    assert_eq!(server.database("other").value("SELECT count(*) FROM t"), "0");
    let again = refused(&server, "POST", &format!("{namespace}/fork/other"), &Value::Null);
    assert_eq!(again, (400, "DATABASE_EXISTS".into()));
    let unknown = refused(&server, "GET", "/v1/namespaces/nothing/config", &Value::Null);
    assert_eq!(unknown, (404, "DATABASE_NOT_FOUND".into()));
    let lines = get(&server, "/v1/diagnostics");
    assert!(lines.as_array().is_some_and(|lines| lines.len() > 10), "{lines}");
    server.stop();
}

#[test]
fn a_group_has_another_name_and_keeps_what_is_in_it() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    settle(&server);
    let mut open = server.database("web-1");
    open.rows(&["CREATE TABLE t(a)"]);
    call(
        &server,
        "POST",
        "/v1/namespaces/brief/create",
        &json!({ "class": "memory", "group": "acme/web" }),
    );
    let path = "/v1/organizations/acme/groups/web/rename";
    let taken = refused(&server, "POST", path, &json!({ "Name": "app" }));
    assert_eq!(taken, (409, "NAME_TAKEN".into()));
    assert_eq!(refused(&server, "POST", path, &json!({ "Name": "no name" })).0, 400);
    let renamed = call(&server, "POST", path, &json!({ "Name": "shop" }));
    assert_eq!(renamed["group"]["name"], "shop");
    assert_eq!(refused(&server, "POST", path, &json!({ "Name": "x" })).0, 404);
    for name in ["web-1", "web-2", "brief"] {
        assert_eq!(get(&server, &format!("/v1/namespaces/{name}"))["group"], "acme/shop");
    }
    assert_eq!(names(&server, "/v1/organizations/acme/databases?group=shop&", 3).len(), 6);
    open.rows(&["INSERT INTO t VALUES(1)"]);
    server.stop();
    let server = Launch::on(data.path()).start();
    assert_eq!(names(&server, "/v1/organizations/acme/databases?group=shop&", 9).len(), 5);
    assert_eq!(server.database("web-1").value("SELECT a FROM t"), "1");
    server.stop();
}
