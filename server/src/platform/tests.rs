//! What `@tursodatabase/api` 2.0.5 and the `turso` CLI send, as it was recorded, and what they are answered.

use serde_json::{Value, json};
use storage::TenantId;
use tenant::access::{KeyId, Role, Scope};
use tenant::budget::periods::Range;
use tenant::settings::{Settings, SettingsChange};
use tenant::{
    BudgetChange, Change, ControlCall, ControlReply, DatabaseRow, KeyRow, KeyScope, NodeId,
    NodePath, NodeRow, Refusal,
};

use super::host::PublicHost;
use super::{Asked, Shape};
use crate::control::AdminRequest;
use crate::openapi::tests::route_text;

fn asked(method: &str, path: &str, body: &str) -> Asked {
    match route_text(method, path, body).unwrap_or_else(|problem| panic!("{path}: {problem:?}")) {
        AdminRequest::Shaped(asked) => *asked,
        other => panic!("{path}: {other:?}"),
    }
}

fn call(method: &str, path: &str, body: &str) -> ControlCall {
    match asked(method, path, body).request {
        AdminRequest::Call(call) => call,
        other => panic!("{path}: {other:?}"),
    }
}

fn refused(method: &str, path: &str, body: &str) -> (u16, &'static str) {
    let problem = route_text(method, path, body).expect_err(path);
    (problem.status, problem.code)
}

fn path(group: Option<&str>) -> NodePath {
    NodePath { organisation: "acme".into(), group: group.map(Into::into) }
}

const ACME: &str = "/v1/organizations/acme";

#[test]
fn databases_are_created_in_their_group() {
    let create = |group: &str, budget| {
        let change = Change { group: Some(Some(path(Some(group)))), budget, ..Change::default() };
        ControlCall::Create("shop".into(), change)
    };
    let databases = format!("{ACME}/databases");
    assert_eq!(call("POST", &databases, r#"{"name":"shop"}"#), create("default", None));
    let of_cli = r#"{"name":"shop","location":"","image":"","extensions":"","group":"web"}"#;
    assert_eq!(call("POST", &databases, of_cli), create("web", None));
    for (size, bytes) in [("\"256mb\"", 256_000_000), ("\"1GB\"", 1_000_000_000), ("65536", 65536)]
    {
        let body = format!(r#"{{"name":"shop","group":"web","size_limit":{size},"seed":null}}"#);
        let budget = tenant::budget::Budget { storage_bytes: Some(bytes), ..Default::default() };
        let expected = create("web", Some(BudgetChange::Replace(Box::new(budget))));
        assert_eq!(call("POST", &databases, &body), expected);
    }
    let fork = r#"{"name":"copy","group":"web","seed":{"type":"database","value":"shop"}}"#;
    let asked_for = asked("POST", &databases, fork);
    assert_eq!(asked_for.within.as_deref(), Some("acme"), "of its own organisation only");
    let change = Change { group: Some(Some(path(Some("web")))), ..Change::default() };
    let expected = ControlCall::Fork { from: "shop".into(), to: "copy".into(), change };
    assert_eq!(asked_for.request, AdminRequest::Call(expected));
    let sent = r#"{"name":"copy","group":"web","seed":{"type":"database_upload"}}"#;
    let change = Change { group: Some(Some(path(Some("web")))), ..Change::default() };
    let format = tenant::ImportFormat::File;
    let expected = ControlCall::Import { name: "copy".into(), change, format };
    assert_eq!(call("POST", &databases, sent), expected);
    for body in [
        r#"{"name":"shop","seed":{"type":"dump","url":"https://example.com/x.sql"}}"#,
        r#"{"name":"shop","is_schema":true}"#,
        r#"{"name":"shop","schema":"parent"}"#,
        r#"{"name":"shop","use_tursodb":true}"#,
        r#"{"name":"shop","size_limit":"large"}"#,
        r#"{"name":"no such name!"}"#,
        r#"{"group":"web"}"#,
        "[]",
    ] {
        assert_eq!(refused("POST", &databases, body).0, 400, "{body}");
    }
}

#[test]
fn databases_are_listed_with_filters_and_a_cursor() {
    let list = |query: &str| asked("GET", &format!("{ACME}/databases{query}"), "");
    let members = |group, after: (&str, &str), limit| ControlCall::Members {
        path: path(group),
        after: (after.0.into(), after.1.into()),
        limit,
    };
    for (query, expected) in [
        ("", members(None, ("", ""), 1000)),
        ("?group=web&limit=2", members(Some("web"), ("", ""), 2)),
        ("?cursor=web.shop&type=logical", members(None, ("web", "shop"), 1000)),
    ] {
        assert_eq!(list(query).request, AdminRequest::Call(expected), "{query}");
    }
    assert_eq!(list("?schema=parent").shape, Shape::NoDatabases);
    for query in ["?limit=0", "?limit=x", "?cursor=x", "?group=no%20name", "?group=%ff"] {
        assert_eq!(refused("GET", &format!("{ACME}/databases{query}"), "").0, 400, "{query}");
    }
}

#[test]
fn a_database_is_looked_for_in_its_organisation() {
    // To the end of the year 9999.
    let range = Range { from_s: 1_767_225_600, to_s: 253_402_300_799 };
    for (method, below, body, expected) in [
        ("GET", "", "", ControlCall::Show("shop".into())),
        ("DELETE", "", "", ControlCall::Drop("shop".into())),
        ("GET", "/configuration", "", ControlCall::Show("shop".into())),
        ("GET", "/usage?", "", ControlCall::Usage("shop".into())),
        (
            "GET",
            "/usage?from=2026-01-01T00%3A00%3A00.000Z",
            "",
            ControlCall::UsageIn("shop".into(), range),
        ),
        ("GET", "/instances", "", ControlCall::Show("shop".into())),
        ("GET", "/instances/primary", "", ControlCall::Show("shop".into())),
        ("POST", "/update", "", ControlCall::Show("shop".into())),
    ] {
        let asked = asked(method, &format!("{ACME}/databases/Shop{below}"), body);
        assert_eq!(asked.within.as_deref(), Some("acme"), "{below}");
        assert_eq!(asked.request, AdminRequest::Call(expected), "{below}");
    }
    let configuration = format!("{ACME}/databases/shop/configuration");
    let body = r#"{"allow_attach":null,"delete_protection":true,"block_writes":false}"#;
    let settings = SettingsChange {
        delete_protection: Some(true),
        block_writes: Some(false),
        ..SettingsChange::default()
    };
    let change = Change { settings: Some(Box::new(settings)), ..Change::default() };
    assert_eq!(call("PATCH", &configuration, body), ControlCall::Place("shop".into(), change));
    for body in [
        r#"{"allow_attach":true}"#,
        r#"{"allowed_ips":["10.0.0.1"]}"#,
        r#"{"delete_protection":1}"#,
    ] {
        assert_eq!(refused("PATCH", &configuration, body).0, 400, "{body}");
    }
}

#[test]
fn tokens_are_asked_for_as_both_tools_do() {
    // A sends it with content type text/plain.
    let of_api = r#"{"permissions":{"read_attach":{"databases":[]}}}"#;
    let of_cli = r#"{"permissions":null,"fine_grained_permissions":[]}"#;
    for (below, scope) in [
        ("databases/shop", KeyScope::Database("shop".into())),
        ("groups/web", KeyScope::Node(path(Some("web")))),
    ] {
        let tokens =
            format!("{ACME}/{below}/auth/tokens?expiration=2w1d30m&authorization=read-only");
        for body in [of_api, of_cli, "", "{}"] {
            let AdminRequest::Token(wanted) = asked("POST", &tokens, body).request else {
                panic!("{tokens} {body}");
            };
            assert_eq!((wanted.role, wanted.lifetime_s), (Role::Read, Some(1_297_800)));
            assert_eq!(wanted.scope, scope);
        }
        for body in [
            r#"{"permissions":{"read_attach":{"databases":["other"]}}}"#,
            r#"{"fine_grained_permissions":[{"t":"a"}]}"#,
        ] {
            assert_eq!(refused("POST", &tokens, body).0, 400, "{body}");
        }
        let wrong = format!("{ACME}/{below}/auth/tokens?expiration=soon");
        assert_eq!(refused("POST", &wrong, of_api).0, 400);
    }
    let rotate = SettingsChange { rotate_tokens: true, ..SettingsChange::default() };
    assert_eq!(
        call("POST", &format!("{ACME}/databases/shop/auth/rotate"), ""),
        ControlCall::Set("shop".into(), rotate.clone())
    );
    assert_eq!(
        call("POST", &format!("{ACME}/groups/web/auth/rotate"), ""),
        ControlCall::SetNode(path(Some("web")), rotate)
    );
}

#[test]
fn groups_are_created_with_names_in_either_case() {
    let groups = format!("{ACME}/groups");
    let expected = ControlCall::CreateNode(path(Some("web")));
    assert_eq!(call("POST", &groups, r#"{"name":"web","location":"fra"}"#), expected);
    assert_eq!(call("POST", &groups, r#"{"Name":"web","Location":"fra","Version":""}"#), expected);
    assert_eq!(
        call("DELETE", &format!("{groups}/web"), ""),
        ControlCall::DropNode(path(Some("web")))
    );
    assert_eq!(refused("POST", &groups, "{}").0, 400);
}

#[test]
fn api_tokens_are_keys_by_their_names() {
    let created = asked("POST", "/v1/auth/api-tokens/my%20laptop", "");
    assert!(matches!(created.request, AdminRequest::CreateKey(_)));
    let revoked = call("DELETE", "/v1/auth/api-tokens/my%20laptop", "");
    assert_eq!(revoked, ControlCall::RevokeNamed("my laptop".into()));
    assert_eq!(refused("POST", "/v1/auth/api-tokens/%ff", "").0, 400);
    let scoped = r#"{"organization":"acme","group":"web"}"#;
    assert!(matches!(
        asked("POST", "/v2/auth/api-tokens/ci", scoped).shape,
        Shape::Token { nested: true }
    ));
}

#[test]
fn what_has_no_meaning_says_so() {
    for (method, below) in [
        ("GET", "members"),
        ("POST", "members/somebody"),
        ("GET", "invoices"),
        ("GET", "subscription"),
        ("GET", "audit-logs"),
        ("POST", "databases/shop/transfer"),
        ("POST", "groups/web/transfer"),
        ("GET", "databases/shop/usage/queries"),
    ] {
        assert_eq!(refused(method, &format!("{ACME}/{below}"), ""), (404, "NOT_HERE"), "{below}");
    }
    assert_eq!(refused("GET", "/v2/organizations/acme/invites", ""), (404, "NOT_HERE"));
    assert_eq!(refused("PUT", ACME, "").0, 405);
    assert_eq!(refused("PATCH", ACME, r#"{"overages":true}"#).0, 400);
    assert_eq!(refused("GET", &format!("{ACME}/databases/shop/instances/second"), "").0, 404);
}

fn row() -> DatabaseRow {
    let node = |id, name: &str| NodeRow::new(NodeId(id), name);
    let mut row = DatabaseRow::new(TenantId(7), "shop", 0);
    row.path = vec![node(5, "web"), node(2, "acme")];
    row.set_settings(Settings { block_writes: true, ..Settings::NOTHING });
    row
}

fn answered(shape: &Shape, reply: &ControlReply) -> Value {
    let host = PublicHost::Names("db.example.com".into());
    serde_json::from_slice(&shape.answer(reply, &host)).expect("it is JSON")
}

#[test]
fn answers_have_the_names_that_tools_parse() {
    let rows = ControlReply::Databases(vec![row()]);
    let id = "00000000-0000-8003-8000-000000000007";
    let created = answered(&Shape::Created, &rows);
    assert_eq!(created["database"]["DbId"], id);
    assert_eq!(created["database"]["Hostname"], "shop.db.example.com");
    let shown = answered(&Shape::Database, &rows);
    assert_eq!(shown["database"]["group"], "web");
    assert_eq!(shown["database"]["block_writes"], true);
    let list = answered(&Shape::Databases { limit: 1 }, &rows);
    assert_eq!(list["pagination"]["next"], "web.shop");
    assert_eq!(answered(&Shape::Databases { limit: 2 }, &rows)["pagination"]["next"], Value::Null);
    assert_eq!(answered(&Shape::Dropped, &rows), json!({ "database": "shop" }));
    assert_eq!(answered(&Shape::Instances, &rows)["instances"][0]["type"], "primary");
    assert_eq!(answered(&Shape::Done, &rows), json!({}));
    let nodes = ControlReply::Nodes(vec![NodeRow::new(NodeId(2), "acme")]);
    let organisations = answered(&Shape::Organisations { limit: 10 }, &nodes);
    assert_eq!(organisations["organizations"][0]["slug"], "acme");
    let groups = answered(&Shape::Groups { limit: 10 }, &nodes);
    assert_eq!(groups["groups"][0]["primary"], "local");
}

#[test]
fn api_tokens_are_listed_without_those_of_databases() {
    let key = |scope_name, revoked_s| KeyRow {
        id: KeyId(1),
        public: "abc".into(),
        hash: [0; 32],
        name: Some("ci".into()),
        scope: Scope::Machine,
        scope_name: Some(scope_name),
        role: Role::Admin,
        priority: None,
        created_s: 0,
        expires_s: Some(1_790_000_000),
        revoked_s,
        budget: tenant::KeyBudget::default(),
    };
    let rows = vec![
        key(KeyScope::Machine, None),
        key(KeyScope::Machine, Some(5)),
        key(KeyScope::Database("shop".into()), None),
    ];
    let answer = Shape::Token { nested: false }.created(&rows[0], "myr_x");
    let made: Value = serde_json::from_slice(&answer).expect("it is JSON");
    assert_eq!((&made["name"], &made["token"]), (&json!("ci"), &json!("myr_x")));
    let reply = ControlReply::Keys(rows);
    let tokens = answered(&Shape::Tokens, &reply);
    assert_eq!(tokens["tokens"].as_array().map(Vec::len), Some(1));
    assert_eq!(tokens["tokens"][0]["created_at"], "1970-01-01T00:00:00Z");
    assert_eq!(answered(&Shape::Expiry, &reply), json!({ "exp": 1_790_000_000 }));
    let unknown = ControlReply::Keys(Vec::new());
    assert_eq!(answered(&Shape::Expiry, &unknown), json!({ "exp": -1 }));
}

#[test]
fn names_that_are_taken_are_409() {
    let problem = Shape::Created.problem(&Refusal::Exists, "shop");
    assert_eq!((problem.status, problem.code), (409, "DATABASE_EXISTS"));
    assert!(problem.message.contains("whole server"));
    assert_eq!(Shape::Group.problem(&Refusal::Exists, "").code, "NAME_TAKEN");
    assert_eq!(Shape::Database.problem(&Refusal::NotFound, "shop").status, 404);
    assert_eq!(Shape::Dropped.problem(&Refusal::Protected, "shop").code, "DELETE_PROTECTED");
}
