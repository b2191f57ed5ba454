//! Tokens and keys on the real binary: what each opens and what it does not, and what ends when one is
//! revoked.

#[path = "process/mod.rs"]
mod process;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use process::sql::execute;
use process::{Database, Launch, Response, Server, Trouble, bare, create_path, folder};

const ROOT: &str = "0123456789abcdef0123456789abcdef";

const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// A server that asks for keys, with the root key above.
fn start(data: &std::path::Path, arguments: &[&str]) -> Server {
    let file = data.join("root.key");
    std::fs::write(&file, ROOT).unwrap();
    let file = file.to_str().expect("a temporary folder's name is text");
    Launch::on(data).with(&["--auth", "on", "--root-key-file", file]).with(arguments).start()
}

/// Ask the admin address with a token or key.
fn ask(server: &Server, token: &str, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut admin = server.admin().with_token(token);
    admin.call(method, path, body.as_bytes()).expect("answered")
}

/// Ask as root, for what succeeds.
fn call(server: &Server, method: &str, path: &str, body: &Value) -> Value {
    let response = ask(server, ROOT, method, path, body);
    assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
    response.json()
}

fn create(server: &Server, name: &str, body: &Value) {
    call(server, "POST", &create_path(name), body);
}

/// The database, for who comes with this token or key.
fn open(server: &Server, token: &str, name: &str) -> Database {
    Database::of(server.client().with_token(token), name)
}

fn jwt(server: &Server, name: &str, query: &str) -> String {
    let path = format!("/v1/namespaces/{name}/tokens?{query}");
    call(server, "POST", &path, &Value::Null)["jwt"].as_str().expect("a token").to_owned()
}

/// A new key: its secret and its public part.
fn key(server: &Server, scope: &str, role: &str) -> (String, String) {
    let made = call(server, "POST", "/v1/keys", &json!({"scope": scope, "role": role}));
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("key"), text("public"))
}

/// The status and code of a refused request.
fn refusal(trouble: Trouble) -> (u16, String) {
    match trouble {
        Trouble::Refused { status, code, .. } => (status, code),
        other => panic!("the request was not refused: {other}"),
    }
}

fn unauthorised() -> (u16, String) {
    (401, "UNAUTHORIZED".to_owned())
}

#[test]
fn a_token_opens_its_own_database_and_no_other() {
    let data = folder();
    let server = start(data.path(), &[]);
    for name in ["shop", "bank"] {
        create(&server, name, &Value::Null);
    }
    let token = jwt(&server, "shop", "");
    let mut shop = open(&server, &token, "shop");
    shop.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (7)"]);
    assert_eq!(shop.value("SELECT a FROM t"), "7");
    // Cold, open, and not there: the same words.
    let mut answers = Vec::new();
    open(&server, ROOT, "bank").rows(&["SELECT 1"]);
    for name in ["bank", "nothing"] {
        let mut client = server.client().with_token(&token);
        let path = format!("/db/{name}/v2/pipeline");
        let response = client.post(&path, &json!({"requests": [execute("SELECT 1")]})).unwrap();
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        answers.push((response.status, response.text()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].0, 401);
    // Its stream cannot be gone on with by another, nor it with another's.
    shop.step("BEGIN").unwrap();
    let stolen = shop.baton.clone();
    let mut thief = open(&server, ROOT, "shop");
    thief.baton = stolen;
    assert_eq!(refusal(thief.step("SELECT 1").unwrap_err()), (400, "BATON_INVALID".into()));
    shop.step("COMMIT").unwrap();
    shop.finish();
    // A database that is dropped takes its tokens along: the next one of its name is another's.
    call(&server, "DELETE", "/v1/namespaces/shop", &Value::Null);
    assert_eq!(refusal(shop.run(&["SELECT 1"]).unwrap_err()), unauthorised());
    create(&server, "shop", &Value::Null);
    assert_eq!(refusal(shop.run(&["SELECT 1"]).unwrap_err()), unauthorised());
    open(&server, &jwt(&server, "shop", "expiration=1d"), "shop").rows(&["SELECT 1"]);
    server.stop();
}

/// Open, closed and not there were refused after 26, 77 and 73 us: who measured knew. Now each of them waits for
/// the same instant; `server/README.md` has the distributions.
#[test]
fn a_refusal_takes_as_long_whether_the_database_is_there() {
    let data = folder();
    let server = start(data.path(), &[]);
    for name in ["mine", "opened", "closed"] {
        create(&server, name, &Value::Null);
    }
    open(&server, ROOT, "opened").rows(&["SELECT 1"]);
    let token = jwt(&server, "mine", "");
    let foreign = format!("{}A", &token[..token.len() - 1]);
    let held = Duration::from_millis(10);
    for name in ["opened", "closed", "nothing"] {
        for token in [&token, &foreign] {
            let mut client = server.client().with_token(token);
            let body = json!({"requests": [execute("SELECT 1")]});
            let path = format!("/db/{name}/v3/pipeline");
            let asked = Instant::now();
            assert_eq!(client.post(&path, &body).unwrap().status, 401, "{name}");
            assert!(asked.elapsed() >= held, "{name}: {:?}", asked.elapsed());
            // The connection goes on.
            assert_eq!(client.post(&path, &body).unwrap().status, 401, "{name}");
        }
        let mut admin = server.admin().with_token(&token);
        let asked = Instant::now();
        let response = admin.call("GET", &format!("/v1/namespaces/{name}"), b"").unwrap();
        assert_eq!(response.status, 401, "{name}");
        assert!(asked.elapsed() >= held, "{name}: {:?}", asked.elapsed());
    }
    open(&server, &token, "mine").rows(&["SELECT 1"]);
    server.stop();
}

/// What was sent before (`100 Continue`) may leave while the refusal waits, and must not end that.
#[test]
fn a_refusal_comes_to_who_asks_for_leave_to_send_and_does_not_wait_for_it() {
    let data = folder();
    let server = start(data.path(), &[]);
    for name in ["mine", "other"] {
        create(&server, name, &Value::Null);
    }
    let token = jwt(&server, "mine", "");
    let body = json!({"requests": [execute("SELECT 1")]}).to_string();
    let request = format!(
        "POST /db/other/v3/pipeline HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         expect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for round in 0..10 {
        let mut stream = TcpStream::connect(server.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let end = stream.read_to_string(&mut answer);
        assert!(end.is_ok() && answer.contains("HTTP/1.1 401 "), "{round}: {end:?} {answer}");
    }
    server.stop();
}

#[test]
fn whatever_is_wrong_with_a_credential_is_told_in_the_same_words() {
    let data = folder();
    let server = start(data.path(), &[]);
    create(&server, "shop", &Value::Null);
    let token = jwt(&server, "shop", "");
    let (secret, _) = key(&server, "database:shop", "write");
    let mut typo = secret.clone();
    typo.pop();
    let other = "myr_aaaaaaaaaaaaaaaa0000000000000000000000000000000000000000000000000";
    let mut bodies = std::collections::BTreeSet::new();
    for bad in ["", "None", "x.y.z", &token[1..], &typo, other, &ROOT[1..], &format!("{token}.")] {
        let trouble = open(&server, bad, "shop").run(&["SELECT 1"]).unwrap_err();
        bodies.insert(trouble.to_string());
        let response = ask(&server, bad, "GET", "/v1/namespaces/shop", &Value::Null);
        assert_eq!(response.status, 401, "{bad}");
        assert_eq!(ask(&server, bad, "GET", "/metrics", &Value::Null).status, 401);
    }
    bodies.insert(server.database("shop").run(&["SELECT 1"]).unwrap_err().to_string());
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    // A large body is not waited for.
    let mut client = server.client();
    let head = "POST /db/shop/v2/pipeline HTTP/1.1\r\nhost: h\r\ncontent-length: 9000000\r\n\r\n";
    client.send_raw(head.as_bytes()).unwrap();
    assert_eq!(client.receive().unwrap().status, 401);
    let mut twice = server.client();
    let head = format!(
        "POST /db/shop/v2/pipeline HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\n\
         authorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"
    );
    twice.send_raw(head.as_bytes()).unwrap();
    assert_eq!(twice.receive().unwrap().status, 400);
    // What is for anybody.
    for path in ["/health", "/version", "/v2", "/v3"] {
        assert_eq!(server.client().call("GET", path, b"").unwrap().status, 200, "{path}");
    }
    assert_eq!(server.client().call("OPTIONS", "/db/x/v2/pipeline", b"").unwrap().status, 200);
    assert_eq!(server.admin().call("GET", "/health", b"").unwrap().status, 200);
    let said = server.stop();
    assert!(
        !said.contains(&secret) && !said.contains(&token) && !said.contains("warning"),
        "{said}"
    );
}

#[test]
fn who_may_only_read_cannot_write() {
    let data = folder();
    let server = start(data.path(), &[]);
    create(&server, "shop", &Value::Null);
    let mut writer = open(&server, ROOT, "shop");
    writer.rows(&[
        "CREATE TABLE t(a)",
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE seen(a)",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (new.a); END",
        "CREATE VIEW v AS SELECT a FROM t",
        "CREATE TRIGGER i INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a); END",
        "CREATE VIRTUAL TABLE words USING fts5(word)",
        "INSERT INTO words VALUES ('one')",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)",
        "INSERT INTO boxes VALUES (1, 0, 1)",
    ]);
    let (read_key, _) = key(&server, "database:shop", "read");
    for token in [&read_key, &jwt(&server, "shop", "authorization=read-only")] {
        let mut reader = open(&server, token, "shop");
        for sql in [
            "INSERT INTO t VALUES (2)",
            "INSERT INTO t VALUES (2) RETURNING a",
            "WITH x(a) AS (SELECT 1) INSERT INTO t SELECT a FROM x",
            "UPDATE t SET a = 2",
            "DELETE FROM t",
            "REPLACE INTO t(rowid, a) VALUES (1, 2)",
            "INSERT INTO v VALUES (3)",
            "INSERT INTO words(words) VALUES ('optimize')",
            "INSERT INTO words VALUES ('two')",
            "DELETE FROM boxes",
            "CREATE TABLE u(a)",
            "CREATE INDEX x ON t(a)",
            "ALTER TABLE t ADD COLUMN b",
            "DROP TABLE t",
            "DROP TRIGGER r",
            "REINDEX",
            "ANALYZE",
            "PRAGMA user_version = 7",
            "PRAGMA application_id(7)",
            "PRAGMA optimize",
            "BEGIN IMMEDIATE",
            "BEGIN EXCLUSIVE",
        ] {
            let trouble = reader.run(&[sql]).unwrap_err();
            assert_eq!(trouble.code(), "SQLITE_READONLY", "{sql}: {trouble}");
            // In a script, and in a transaction that a reader may have.
            let script =
                json!({"requests": [{"type": "sequence", "sql": format!("SELECT 1; {sql}")}]});
            let answer = reader.post(&script).unwrap();
            assert_eq!(answer["results"][0]["error"]["code"], "SQLITE_READONLY", "{sql}");
        }
        // What another had compiled on the connection that is used next.
        writer.rows(&["INSERT INTO t SELECT a FROM t WHERE a > 5"]);
        let trouble = reader.run(&["INSERT INTO t SELECT a FROM t WHERE a > 5"]).unwrap_err();
        assert_eq!(trouble.code(), "SQLITE_READONLY", "{trouble}");
        assert_eq!(reader.value("SELECT a FROM t"), "1");
        assert_eq!(reader.value("SELECT count(*) FROM words WHERE words MATCH 'one'"), "1");
        assert_eq!(reader.value("SELECT count(*) FROM boxes WHERE x1 > 0"), "1");
        assert_eq!(reader.value("PRAGMA user_version"), "0");
        reader.rows(&["BEGIN", "SELECT a FROM v", "SAVEPOINT s", "RELEASE s", "COMMIT"]);
        reader.rows(&["PRAGMA foreign_keys = off", "SELECT 1"]);
        // A shadow table is nobody's to change, so what R-Tree compiles for itself is let pass.
        assert!(reader.run(&["DELETE FROM boxes_node"]).is_err());
        writer.rows(&["CREATE TABLE tree_node(a)"]);
        let trouble = reader.run(&["INSERT INTO tree_node VALUES (1)"]).unwrap_err();
        assert_eq!(trouble.code(), "SQLITE_READONLY", "{trouble}");
        writer.rows(&["DROP TABLE tree_node"]);
        // And what it leaves behind does not keep others from writing.
        writer.rows(&["INSERT INTO t VALUES (9)", "DELETE FROM t WHERE a = 9"]);
    }
    server.stop();
}

#[test]
fn a_key_that_is_revoked_ends_what_runs_and_what_is_open() {
    let data = folder();
    let server = start(data.path(), &[]);
    create(&server, "shop", &Value::Null);
    let (secret, public) = key(&server, "database:shop", "write");
    let (other, _) = key(&server, "database:shop", "write");
    let mut staying = open(&server, &other, "shop");
    staying.rows(&["CREATE TABLE t(a)"]);
    let mut idle = open(&server, &secret, "shop");
    idle.step("BEGIN IMMEDIATE").unwrap();
    idle.step("INSERT INTO t VALUES ('lost')").unwrap();
    let mut running = open(&server, &secret, "shop");
    running.send(&[ENDLESS]);
    let mut waiting = open(&server, &secret, "shop");
    waiting.send(&["INSERT INTO t VALUES ('lost too')"]);
    process::eventually(10, "they run", || {
        let top = call(&server, "GET", "/v1/top", &Value::Null);
        top["tenants"].as_array().unwrap().iter().any(|t| t["requests"] == 2)
    });
    let begun = Instant::now();
    let revoked = call(&server, "DELETE", &format!("/v1/keys/{public}"), &Value::Null);
    assert!(revoked["revoked_at"].as_i64().is_some(), "{revoked}");
    assert_eq!(refusal(running.answer().unwrap_err()), unauthorised());
    assert_eq!(refusal(waiting.answer().unwrap_err()), unauthorised());
    assert_eq!(refusal(idle.step("SELECT 1").unwrap_err()), unauthorised());
    // The writer lock is free, as nobody has waited for anything.
    staying.rows(&["INSERT INTO t VALUES ('kept')"]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(staying.rows(&["SELECT a FROM t"]), [["kept"]]);
    let keys = call(&server, "GET", "/v1/keys?scope=database:shop", &Value::Null);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2, "{keys}");
    assert!(!keys.to_string().contains("hash") && !keys.to_string().contains(&secret[24..60]));
    server.stop();

    // It stays revoked, and the other one good.
    let server = start(data.path(), &[]);
    let trouble = open(&server, &secret, "shop").run(&["SELECT 1"]).unwrap_err();
    assert_eq!(refusal(trouble), unauthorised());
    open(&server, &other, "shop").rows(&["SELECT 1"]);
    assert_eq!(ask(&server, ROOT, "DELETE", "/v1/keys/none", &Value::Null).status, 404);
    server.stop();
}

#[test]
fn tokens_from_before_a_rotation_are_refused_and_keys_are_not() {
    let data = folder();
    let server = start(data.path(), &[]);
    create(&server, "shop", &Value::Null);
    let (secret, _) = key(&server, "database:shop", "write");
    for _ in 0..3 {
        let old = jwt(&server, "shop", "");
        let mut before = open(&server, &old, "shop");
        before.step("BEGIN").unwrap();
        let path = "/v1/namespaces/shop/tokens/rotate";
        assert_eq!(call(&server, "POST", path, &Value::Null), json!({}));
        assert_eq!(refusal(before.step("SELECT 1").unwrap_err()), unauthorised());
        assert_eq!(
            refusal(open(&server, &old, "shop").run(&["SELECT 1"]).unwrap_err()),
            unauthorised()
        );
        open(&server, &jwt(&server, "shop", ""), "shop").rows(&["SELECT 1"]);
        open(&server, &secret, "shop").rows(&["SELECT 1"]);
    }
    server.stop();
}

#[test]
fn keys_of_groups_reach_their_databases_and_nothing_above() {
    let data = folder();
    let server = start(data.path(), &[]);
    for path in ["acme", "acme/groups/web", "acme/groups/app", "rival"] {
        call(&server, "PUT", &format!("/v1/organisations/{path}"), &json!({}));
    }
    create(&server, "shop", &json!({"group": "acme/web"}));
    create(&server, "till", &json!({"group": "acme/app"}));
    create(&server, "alone", &Value::Null);
    let (organisation, _) = key(&server, "organisation:acme", "admin");
    let (group, group_public) = key(&server, "group:acme/web", "admin");
    let (writer, _) = key(&server, "group:acme/web", "write");
    for (token, opens) in [(&organisation, [true, true, false]), (&group, [true, false, false])] {
        for (name, opens) in ["shop", "till", "alone"].into_iter().zip(opens) {
            let opened = open(&server, token, name).run(&["SELECT 1"]);
            assert_eq!(opened.is_ok(), opens, "{name}");
        }
    }
    let group_web = json!({"group": "acme/web"});
    let budget = json!({"budget": {"weight": 5}});
    let new_key = |scope: &str| json!({"scope": scope, "role": "admin"});
    for (token, method, path, body, status) in [
        (&group, "GET", "/v1/namespaces/shop", Value::Null, 200),
        (&group, "GET", "/v1/namespaces/shop/usage", Value::Null, 200),
        (&group, "GET", "/v1/namespaces/till", Value::Null, 401),
        (&group, "GET", "/v1/namespaces/nothing", Value::Null, 401),
        (&group, "DELETE", "/v1/namespaces/till", Value::Null, 401),
        (&group, "POST", "/v1/namespaces/new/create", group_web.clone(), 200),
        (&group, "POST", "/v1/namespaces/new2/create", Value::Null, 403),
        (&group, "POST", "/v1/namespaces/new2/create", json!({"group": "acme/app"}), 401),
        (&group, "PUT", "/v1/namespaces/shop/budget", json!({"group": "acme/app"}), 401),
        (&group, "PUT", "/v1/namespaces/shop/budget", json!({"group": null}), 403),
        (&group, "PUT", "/v1/namespaces/shop/budget", budget.clone(), 200),
        (&group, "PUT", "/v1/organisations/acme/groups/web", budget.clone(), 403),
        (&group, "PUT", "/v1/organisations/acme/groups/more", json!({}), 401),
        (&group, "GET", "/v1/organisations/acme/groups/web", Value::Null, 200),
        (&group, "GET", "/v1/organisations/acme", Value::Null, 401),
        (&group, "POST", "/v1/keys", new_key("machine"), 401),
        (&group, "POST", "/v1/keys", new_key("organisation:acme"), 401),
        (&group, "POST", "/v1/keys", new_key("database:shop"), 200),
        (&group, "GET", "/v1/keys", Value::Null, 403),
        (&group, "GET", "/v1/keys?scope=group:acme/web", Value::Null, 200),
        (&group, "POST", "/v1/namespaces/shop/tokens", Value::Null, 200),
        (&group, "POST", "/v1/namespaces/till/tokens", Value::Null, 401),
        (&group, "GET", "/v1/namespaces", Value::Null, 403),
        (&group, "GET", "/v1/plans", Value::Null, 403),
        (&group, "GET", "/v1/top", Value::Null, 403),
        (&group, "GET", "/metrics", Value::Null, 403),
        (&organisation, "PUT", "/v1/organisations/acme/groups/more", json!({}), 200),
        (&organisation, "PUT", "/v1/organisations/acme", budget, 403),
        (&organisation, "PUT", "/v1/organisations/rival", json!({}), 401),
        (&organisation, "PUT", "/v1/namespaces/shop/budget", json!({"group": "acme/app"}), 200),
        (&writer, "GET", "/v1/namespaces/new", Value::Null, 200),
        (&writer, "DELETE", "/v1/namespaces/new", Value::Null, 403),
        (&writer, "POST", "/v1/namespaces/new/tokens", Value::Null, 403),
        (&writer, "POST", "/v1/keys", new_key("database:new"), 403),
    ] {
        let response = ask(&server, token, method, path, &body);
        assert_eq!(response.status, status, "{method} {path} {body}: {}", response.text());
    }
    // It has moved out of the group, which loses it.
    assert!(open(&server, &group, "shop").run(&["SELECT 1"]).is_err());
    assert!(open(&server, &organisation, "shop").run(&["SELECT 1"]).is_ok());
    let path = format!("/v1/keys/{group_public}");
    assert_eq!(ask(&server, &writer, "DELETE", &path, &Value::Null).status, 403);
    assert_eq!(ask(&server, &organisation, "DELETE", &path, &Value::Null).status, 200);
    assert_eq!(ask(&server, &group, "GET", "/v1/namespaces/new", &Value::Null).status, 401);
    server.stop();
}

#[test]
fn keys_have_a_role_an_expiry_and_a_priority() {
    let data = folder();
    let server = start(data.path(), &[]);
    create(&server, "shop", &Value::Null);
    let body = json!({"scope": "database:shop", "role": "write", "expires": "1s", "name": "ci"});
    let made = call(&server, "POST", "/v1/keys", &body);
    let secret = made["key"].as_str().unwrap();
    let lifetime = made["expires_at"].as_i64().unwrap() - made["created_at"].as_i64().unwrap();
    assert_eq!((lifetime, &made["name"]), (1, &json!("ci")));
    process::eventually(5, "it expires", || {
        let run = open(&server, secret, "shop").run(&["SELECT 1"]);
        run.is_err_and(|trouble| refusal(trouble) == unauthorised())
    });
    for body in [
        json!({"scope": "database:none", "role": "read"}),
        json!({"scope": "group:none/none", "role": "read"}),
    ] {
        assert_eq!(ask(&server, ROOT, "POST", "/v1/keys", &body).status, 404, "{body}");
    }
    let body = json!({"scope": "database:shop", "role": "write", "priority": "background"});
    let made = call(&server, "POST", "/v1/keys", &body);
    open(&server, made["key"].as_str().unwrap(), "shop").rows(&["SELECT 1"]);
    let overview = key(&server, "machine", "read").0;
    for (path, status) in
        [("/metrics", 200), ("/v1/top", 200), ("/v1/namespaces", 200), ("/v1/keys", 403)]
    {
        assert_eq!(ask(&server, &overview, "GET", path, &Value::Null).status, status, "{path}");
    }
    let path = create_path("new");
    assert_eq!(ask(&server, &overview, "POST", &path, &json!({})).status, 403);
    server.stop();
}

/// A token, signed by the key of this number; and that key's public half in base64url.
#[test]
fn keys_have_a_budget() {
    let data = folder();
    let server = start(data.path(), &[]);
    call(&server, "POST", "/v1/keys", &json!({"scope": "machine", "role": "read", "budget": {}}));
    call(&server, "PUT", "/v1/organisations/acme", &json!({}));
    call(&server, "PUT", "/v1/organisations/acme/groups/web", &json!({}));
    create(&server, "shop", &json!({"group": "acme/web"}));
    let with = |role: &str, budget: &Value| {
        let body = json!({"scope": "group:acme/web", "role": role, "budget": budget});
        let made = call(&server, "POST", "/v1/keys", &body);
        let said = made["budget"]["request_cost"].as_f64();
        assert_eq!(said, budget["request_cost"].as_f64(), "{made}");
        made["key"].as_str().expect("a text").to_owned()
    };
    // What one request may cost stops it, and a limit of its own does not help.
    let bounded = with("write", &json!({"request_cost": 0.01}));
    let mut shop = open(&server, &bounded, "shop");
    shop.rows(&["SELECT 1"]);
    let stopped = shop.run(&[ENDLESS]).unwrap_err().to_string();
    assert!(stopped.contains("COST_LIMIT"), "{stopped}");
    // What a second may cost is spent by one request, which ends as it would; the next one waits.
    let rated = with("write", &json!({"cost_per_second": "0.000001"}));
    let mut shop = open(&server, &rated, "shop");
    shop.rows(&["SELECT 1"]);
    let mut client = server.client().with_token(&rated);
    let response =
        client.post("/db/shop/v2/pipeline", &json!({"requests": [execute("SELECT 1")]})).unwrap();
    assert_eq!(response.status, 429, "{}", response.text());
    assert!(response.text().contains("KEY_BUDGET_EXCEEDED"), "{}", response.text());
    let seconds: u64 = response.header("retry-after").expect("it says when").parse().unwrap();
    assert!(seconds > 1);
    open(&server, ROOT, "shop").rows(&["SELECT 1"]);
    // Who has one makes no key or token without.
    let admin = with("admin", &json!({"request_cost": 1}));
    let body = json!({"scope": "database:shop", "role": "read"});
    assert_eq!(ask(&server, &admin, "POST", "/v1/keys", &body).status, 403);
    let path = "/v1/namespaces/shop/tokens";
    assert_eq!(ask(&server, &admin, "POST", path, &Value::Null).status, 403);
    let free = with("admin", &json!({}));
    assert_eq!(ask(&server, &free, "POST", path, &Value::Null).status, 200);
    server.stop();
}

fn signed(number: u8, payload: &Value) -> (String, String) {
    let signer = SigningKey::from_bytes(&[number; 32]);
    let text = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", text(r#"{"alg":"EdDSA"}"#), text(&payload.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).to_bytes());
    (format!("{signed}.{signature}"), URL_SAFE_NO_PAD.encode(signer.verifying_key().to_bytes()))
}

#[test]
fn a_database_s_own_keys_sign_for_it_alone() {
    let data = folder();
    let server = start(data.path(), &[]);
    for path in ["acme", "acme/groups/web"] {
        call(&server, "PUT", &format!("/v1/organisations/{path}"), &json!({}));
    }
    for name in ["shop", "bank", "till"] {
        create(&server, name, &json!({"group": "acme/web"}));
    }
    create(&server, "alone", &Value::Null);
    let may = |number, payload: Value, name: &str| {
        let mut database = open(&server, &signed(number, &payload).0, name);
        let read = database.run(&["SELECT 1"]).map_err(refusal);
        let wrote = database.run(&["PRAGMA user_version = 1"]);
        read.map(|_| wrote.is_ok())
    };
    assert_eq!(may(5, json!({}), "shop"), Err(unauthorised()));
    let keys = |number: u8| json!({"jwt_keys": [signed(number, &json!({})).1]});
    let own = "/v1/namespaces/shop/settings";
    assert_eq!(call(&server, "PUT", own, &keys(5))["jwt_keys"], keys(5)["jwt_keys"]);
    call(&server, "PUT", "/v1/organisations/acme/groups/web/settings", &keys(6));
    for _ in 0..2 {
        assert_eq!(may(5, json!({}), "shop"), Ok(true));
        assert_eq!(may(5, json!({"a": "ro"}), "shop"), Ok(false));
    }
    assert_eq!(may(5, json!({"id": "shop"}), "shop"), Ok(true));
    assert_eq!(may(5, json!({"id": "bank"}), "shop"), Err(unauthorised()));
    assert_eq!(may(5, json!({"id": "bank"}), "bank"), Err(unauthorised()), "not its key");
    assert_eq!(may(5, json!({}), "bank"), Err(unauthorised()));
    assert_eq!(may(6, json!({}), "bank"), Ok(true));
    assert_eq!(may(6, json!({"p": {"ro": {"ns": ["till"]}}}), "till"), Ok(false));
    assert_eq!(may(6, json!({"p": {"ro": {"ns": ["till"]}}}), "shop"), Err(unauthorised()));
    assert_eq!(may(6, json!({}), "alone"), Err(unauthorised()));
    assert_eq!(may(6, json!({}), "nothing"), Err(unauthorised()));
    // Such tokens are for SQL, whatever they say.
    let response = ask(&server, &signed(5, &json!({})).0, "GET", own, &Value::Null);
    assert_eq!(response.status, 401);
    // One that has no time of issue was issued before everything.
    call(&server, "POST", "/v1/namespaces/shop/tokens/rotate", &Value::Null);
    assert_eq!(may(5, json!({"id": "shop"}), "shop"), Err(unauthorised()));
    // Without the key, at once.
    assert_eq!(may(6, json!({"a": "ro"}), "bank"), Ok(false));
    call(&server, "PUT", "/v1/organisations/acme/groups/web/settings", &json!({"jwt_keys": []}));
    assert_eq!(may(6, json!({"a": "ro"}), "bank"), Err(unauthorised()));
    server.stop();
    // Settings are there after a restart.
    let server = start(data.path(), &[]);
    assert_eq!(call(&server, "GET", own, &Value::Null)["jwt_keys"], keys(5)["jwt_keys"]);
    server.stop();
}

#[test]
fn what_is_blocked_is_refused_statement_by_statement() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut shop = server.create("shop");
    shop.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
    let set = |body: Value| {
        let body = body.to_string();
        let path = "/v1/namespaces/shop/settings";
        let answer = server.admin().call("PUT", path, body.as_bytes()).expect("answered");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let blocked = |shop: &mut Database, sql: &str, words: &str| match shop.run(&[sql]) {
        Err(Trouble::Sql { code, message }) => {
            assert_eq!((code.as_str(), message.as_str()), ("BLOCKED", words), "{sql}");
        }
        other => panic!("{sql}: {other:?}"),
    };
    let mut holder = server.database("shop");
    holder.step("BEGIN").unwrap();
    holder.step("INSERT INTO t VALUES (2)").unwrap();
    set(json!({"block_writes": true, "block_reason": "moving house"}));
    for sql in
        ["INSERT INTO t VALUES (3)", "DROP TABLE t", "BEGIN IMMEDIATE", "PRAGMA user_version = 1"]
    {
        blocked(&mut shop, sql, "Operation was blocked: moving house");
    }
    assert_eq!(shop.value("SELECT count(*) FROM t"), "1");
    // What was begun before can be ended.
    assert_eq!(holder.step("INSERT INTO t VALUES (4)").unwrap_err().code(), "BLOCKED");
    holder.step("COMMIT").unwrap();
    holder.finish();
    assert_eq!(shop.value("SELECT count(*) FROM t"), "2");
    set(json!({"block_reads": true, "block_writes": false, "block_reason": null}));
    for sql in
        ["SELECT a FROM t", "INSERT INTO t VALUES (3)", "PRAGMA table_info(t)", "EXPLAIN SELECT 1"]
    {
        blocked(&mut shop, sql, "Operation was blocked");
    }
    set(json!({"block_reads": false, "delete_protection": true}));
    assert_eq!(shop.value("SELECT count(*) FROM t"), "2");
    let dropped = server.admin().call("DELETE", "/v1/namespaces/shop", b"").unwrap();
    assert_eq!((dropped.status, &dropped.json()["code"]), (409, &json!("DELETE_PROTECTED")));
    set(json!({"delete_protection": false}));
    server.drop_database("shop");
    server.stop();
}

#[test]
fn tokens_of_the_platform_are_read_as_sqld_reads_them() {
    let data = folder();
    let sign = |payload: Value| signed(7, &payload).0;
    let public = signed(7, &json!({})).1;
    let create_on_use = ["--jwt-key", &public, "--create-on-first-use"];
    let server = start(data.path(), &create_on_use);
    create(&server, "shop", &Value::Null);
    let may = |payload: Value, name: &str| {
        let mut database = open(&server, &sign(payload), name);
        let read = database.run(&["SELECT 1"]).map_err(refusal);
        let wrote = database.run(&["PRAGMA user_version = 1"]);
        read.map(|_| wrote.is_ok())
    };
    assert_eq!(may(json!({"id": "shop"}), "shop"), Ok(true));
    assert_eq!(may(json!({"id": "shop", "a": "ro"}), "shop"), Ok(false));
    assert_eq!(may(json!({"p": {"ro": {"ns": ["x", "shop"]}}}), "shop"), Ok(false));
    assert_eq!(may(json!({"p": {"rw": {"ns": ["shop"]}}}), "shop"), Ok(true));
    assert_eq!(may(json!({"id": "bank"}), "shop"), Err(unauthorised()));
    assert_eq!(may(json!({"id": "shop", "exp": 1}), "shop"), Err(unauthorised()));
    assert_eq!(may(json!({}), "shop"), Err(unauthorised()), "it names nothing");
    // Made when it is first named, by who is allowed to have it, and nobody else.
    assert_eq!(may(json!({"id": "other", "a": "ro"}), "made"), Err(unauthorised()));
    assert_eq!(may(json!({"id": "made"}), "made"), Ok(true));
    let list = |payload: Value| ask(&server, &sign(payload), "GET", "/v1/namespaces", &Value::Null);
    assert_eq!(list(json!({})).json()["namespaces"].as_array().unwrap().len(), 2);
    assert_eq!(list(json!({"id": "shop"})).status, 403);
    server.stop();
}

#[test]
fn keys_are_made_listed_and_revoked_at_the_command_line() {
    let data = folder();
    let server = start(data.path(), &[]);
    create(&server, "shop", &Value::Null);
    let url = format!("http://{}", server.admin);
    let run = |arguments: &[&str], key: &str| {
        let (action, rest) = arguments.split_at(1 + usize::from(arguments[0] == "key"));
        bare(&[action, &["--admin", &url, "--key", key], rest].concat())
    };
    let made = ["key", "create", "--scope", "database:shop", "--role", "read", "--name", "ci"];
    let ended = run(&made, ROOT);
    assert!(ended.status.success(), "{}", ended.stderr);
    let secret = ended.stdout.trim();
    open(&server, secret, "shop").rows(&["SELECT 1"]);
    let listed = run(&["key", "list", "--scope", "database:shop"], ROOT).stdout;
    assert!(listed.contains(&secret[4..20]) && listed.contains("good"), "{listed}");
    assert!(!listed.contains(&secret[20..]), "{listed}");
    let refused = run(&["key", "list"], secret);
    assert!(!refused.status.success() && refused.stderr.contains("--key"), "{}", refused.stderr);
    let ended = run(&["key", "revoke", secret], ROOT);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(open(&server, secret, "shop").run(&["SELECT 1"]).is_err());
    let ended = run(&["top", "--once", "--interval", "100ms"], ROOT);
    assert!(ended.status.success(), "{}", ended.stderr);
    server.stop();
}

#[test]
fn the_first_start_makes_a_key_and_says_it_once() {
    let data = folder();
    let launch = Launch::on(data.path()).with(&["--auth", "on"]);
    let server = launch.start();
    let mut server = server;
    let said = server.said();
    let key = said.split_once("shown only now: ").expect("it is said").1;
    let key = key.split_whitespace().next().unwrap().to_owned();
    let response = ask(&server, &key, "POST", &create_path("shop"), &json!({}));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(server.admin().post(&create_path("x"), &json!({})).unwrap().status, 401);
    server.stop();
    let server = launch.start();
    open(&server, &key, "shop").rows(&["SELECT 1"]);
    let said = server.stop();
    assert!(!said.contains("myr_"), "{said}");
}

#[test]
fn nobody_is_asked_on_loopback_and_everybody_elsewhere() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    server.create("open").rows(&["SELECT 1"]);
    // Whatever is sent with it.
    for token in ["", "None", "x.y.z"] {
        open(&server, token, "open").rows(&["SELECT 1"]);
    }
    let jwt = server.admin().post("/v1/namespaces/open/tokens", &Value::Null).unwrap();
    assert!(jwt.json()["jwt"].as_str().is_some(), "{}", jwt.text());
    let said = server.stop();
    assert_eq!(said.matches("nobody is asked for a key").count(), 1, "{said}");

    let folder_name = data.path().to_str().expect("a temporary folder's name is text");
    let refused = |arguments: &[&str], words: &str| {
        let ended = bare(&[&["serve", "--data", folder_name], arguments].concat());
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    };
    refused(&["--listen", "0.0.0.0:0", "--auth", "off"], "--auth off is for loopback");
    refused(&["--jwt-key", "nonsense"], "--jwt-key");
    refused(&["--jwt-key", "@/does/not/exist"], "cannot read");
    refused(&["--root-key-file", "/does/not/exist"], "cannot read");
    let server = Launch::on(data.path()).with(&["--listen", "0.0.0.0:0"]).start();
    assert_eq!(server.admin().call("GET", "/v1/namespaces", b"").unwrap().status, 401);
    let said = server.stop();
    assert!(said.contains("shown only now: myr_"), "{said}");
}

/// A group says whether databases in it are made when somebody with rights there names them.
#[test]
fn a_group_says_whether_a_missing_database_is_made() {
    let data = folder();
    let server = start(data.path(), &[]);
    for path in ["/v1/organisations/acme", "/v1/organisations/acme/groups/web"] {
        call(&server, "PUT", path, &json!({}));
    }
    let settings = "/v1/organisations/acme/groups/web/settings";
    let (writer, _) = key(&server, "group:acme/web", "write");
    let (reader, _) = key(&server, "group:acme/web", "read");
    let (whole, _) = key(&server, "organisation:acme", "write");
    let refused = |token: &str, name: &str| {
        refusal(open(&server, token, name).run(&["SELECT 1"]).expect_err("it is not there"))
    };
    assert_eq!(refused(&writer, "first"), unauthorised());
    call(&server, "PATCH", settings, &json!({"on_missing": "create", "ttl": "1h"}));
    assert_eq!(refused(&reader, "first"), unauthorised(), "who may only read makes nothing");
    assert_eq!(refused(&whole, "first"), unauthorised(), "in which of its groups is not said");
    open(&server, &writer, "first").rows(&["CREATE TABLE t(a)"]);
    let shown = call(&server, "GET", "/v1/namespaces/first", &Value::Null);
    assert_eq!((&shown["group"], &shown["class"]), (&json!("acme/web"), &json!("durable")));
    assert!(shown["ends_at"].is_i64(), "{shown}");
    call(&server, "PATCH", settings, &json!({"class": "memory"}));
    open(&server, &writer, "second").rows(&["CREATE TABLE t(a)"]);
    assert_eq!(call(&server, "GET", "/v1/namespaces/second", &Value::Null)["class"], "memory");
    open(&server, &reader, "second").rows(&["SELECT * FROM t"]);
    // What is made so begins with the group's template, if it has one; all that come meanwhile find it.
    call(&server, "PATCH", settings, &json!({"class": null, "template": "first"}));
    open(&server, &writer, "first").rows(&["INSERT INTO t VALUES(7)"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (server, writer) = (&server, &writer);
            scope.spawn(move || {
                let found = open(server, writer, "copied").value("SELECT a FROM t");
                assert_eq!(found, "7");
            });
        }
    });
    // Who has only a group gives away nothing of another one.
    let (admin, _) = key(&server, "group:acme/web", "admin");
    call(&server, "PUT", "/v1/organisations/acme/groups/other", &json!({}));
    call(&server, "POST", "/v1/namespaces/theirs/create", &json!({"group": "acme/other"}));
    let set = |name: &str| {
        let body = json!({ "template": name }).to_string();
        let mut client = server.admin().with_token(&admin);
        client.call("PATCH", settings, body.as_bytes()).expect("answered").status
    };
    assert_eq!((set("theirs"), set("absent"), set("copied")), (401, 401, 200));
    call(&server, "PATCH", settings, &json!({"on_missing": "refuse"}));
    assert_eq!(refused(&writer, "third"), unauthorised());
    assert_eq!(refused(ROOT, "third").0, 404);
}

#[test]
fn who_may_write_sends_a_database_that_was_created_for_it() {
    let data = folder();
    let server = start(data.path(), &[]);
    for path in ["/v1/organisations/acme", "/v1/organisations/acme/groups/web"] {
        call(&server, "PUT", path, &json!({}));
    }
    let (admin, _) = key(&server, "group:acme/web", "admin");
    let body = json!({"name": "sent", "group": "web", "seed": {"type": "database_upload"}});
    let made = ask(&server, &admin, "POST", "/v1/organizations/acme/databases", &body);
    assert_eq!(made.status, 200, "{}", made.text());
    create(&server, "other", &json!({}));
    let tokens = |query: &str| {
        let path = format!("/v1/organizations/acme/databases/sent/auth/tokens{query}");
        let made = call(&server, "POST", &path, &json!({}));
        made["jwt"].as_str().expect("a token").to_owned()
    };
    let (writer, reader) = (tokens("?expiration=5m"), tokens("?authorization=read-only"));
    let other = jwt(&server, "other", "");
    let put = |token: &str, path: &str, body: &[u8]| {
        let mut client = server.client().with_token(token);
        client.call("PUT", &format!("/db/sent/v2/upload/{path}"), body).expect("answered")
    };
    let size = br#"{"db_size_bytes":8192}"#;
    for (token, status) in [(&*reader, 403), (&*other, 401), ("myr_x", 401), ("", 401)] {
        assert_eq!(put(token, "start", size).status, status);
    }
    let started = put(&writer, "start", size);
    assert_eq!(started.status, 200, "{}", started.text());
    let id = started.json()["upload_id"].as_str().expect("an id").to_owned();
    let chunk = format!("{id}/chunk/0");
    for (token, status) in [(&*reader, 403), (&*other, 401), ("myr_x", 401)] {
        assert_eq!(put(token, &chunk, &[0; 100]).status, status);
    }
    let made = folder();
    let path = made.path().join("f");
    let file = rusqlite::Connection::open(&path).expect("a new file");
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES(7)";
    file.execute_batch(sql).expect("made");
    file.close().expect("it closes");
    let bytes = std::fs::read(&path).expect("the file is there");
    assert_eq!(put(&writer, &chunk, &bytes).status, 200);
    assert_eq!(put(&reader, &format!("{id}/finalize"), b"").status, 403);
    assert_eq!(put(&writer, &format!("{id}/finalize"), b"").status, 200);
    // What was issued before is good after.
    assert_eq!(open(&server, &reader, "sent").value("SELECT a FROM t"), "7");
}

/// Ask for many with an idempotency key: the last line of the answer.
fn bulk_create(server: &Server, token: &str, body: &Value, key: &str) -> Value {
    let (body, mut client) = (body.to_string(), server.admin());
    let head = format!(
        "POST /v1/bulk/create HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send_raw((head + &body).as_bytes()).expect("sent");
    let text = client.receive().expect("answered").text();
    serde_json::from_str(text.lines().last().expect("a line")).expect("a line is JSON")
}

/// Records of calls, and places for uploads, are shared by all: nobody takes another organisation's.
#[test]
fn one_organisation_takes_no_place_of_anothers() {
    let data = folder();
    let server = start(data.path(), &[]);
    let admin = |organisation: &str| {
        for path in ["", "/groups/default"] {
            let path = format!("/v1/organisations/{organisation}{path}");
            call(&server, "PUT", &path, &json!({}));
        }
        key(&server, &format!("group:{organisation}/default"), "admin").0
    };
    let (ours, theirs) = (admin("o1"), admin("o2"));

    let body = json!({"prefix": "a-", "count": 3, "group": "o1/default"});
    let first = bulk_create(&server, &ours, &body, "once");
    assert_eq!(first["succeeded"], json!(3), "{first}");
    for number in 0..120 {
        let body = json!({"prefix": format!("b{number}-"), "count": 1, "group": "o2/default"});
        let last = bulk_create(&server, &theirs, &body, &format!("key-{number}"));
        assert_eq!(last["succeeded"], json!(1), "{last}");
    }
    assert_eq!(bulk_create(&server, &ours, &body, "once"), first, "it is remembered");
    // Their own oldest is not.
    let body = json!({"prefix": "b0-", "count": 1, "group": "o2/default"});
    assert_eq!(bulk_create(&server, &theirs, &body, "key-0")["succeeded"], json!(0));

    let upload = |token: &str, organisation: &str, name: &str| {
        let body = json!({"name": name, "group": "default", "seed": {"type": "database_upload"}});
        let path = format!("/v1/organizations/{organisation}/databases");
        let response = ask(&server, token, "POST", &path, &body);
        (response.status, response.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    for number in 0..4 {
        assert_eq!(upload(&theirs, "o2", &format!("u-{number}")).0, 200);
    }
    for _ in 0..20 {
        assert_eq!(upload(&theirs, "o2", "u-4"), (429, "TOO_MANY_UPLOADS".to_owned()));
    }
    assert_eq!(upload(&ours, "o1", "sent").0, 200);
}
