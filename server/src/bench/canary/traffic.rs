//! The next request, and what may come back for it.
//!
//! Each request is of one *asker*: a database's rightful client, a thief who holds another database's key
//! and tries this one, or nobody. What comes back may hold the asker's canary, and no other, whoever was
//! named in the path, the headers or the baton. Some have to be refused; some have to show the asker's
//! canary if they succeed, so that a run in which nothing was seen is told from one without leaks.

use serde_json::{Value, json};

use super::Chance;
use super::population::{Population, Tenant};
use super::watch::Owner;

/// What a database has, before anybody asks: its canary in the schema, in rows, in an index and in the
/// index of its texts.
#[must_use]
pub fn schema(canary: &str) -> Vec<String> {
    vec![
        format!(
            "CREATE TABLE notes(id INTEGER PRIMARY KEY, words TEXT DEFAULT '{canary}', bytes BLOB)"
        ),
        "CREATE INDEX by_words ON notes(words)".to_owned(),
        "CREATE VIRTUAL TABLE search USING fts5(words)".to_owned(),
        format!("INSERT INTO notes(bytes) VALUES (CAST('{canary}' AS BLOB)), (zeroblob(5000))"),
        format!("INSERT INTO search VALUES ('the {canary} sings')"),
    ]
}

/// Kinds of requests, for the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads rows in one of many ways.
    Select,
    /// Writes one.
    Insert,
    /// Several statements with conditions.
    Batch,
    /// Rows line by line.
    Cursor,
    /// A script.
    Sequence,
    /// The calls of version 1.
    Stateless,
    /// All of it as SQL.
    Dump,
    /// SQL that fails, with the canary in it.
    Failing,
    /// A body that is no call.
    Malformed,
    /// A stream is opened, with stored SQL and at times a transaction.
    Open,
    /// And gone on with.
    GoOn,
    /// A baton with a letter changed.
    Forged,
    /// One that was used before.
    Replayed,
    /// Another database's, here; or this one's, with another's key.
    Swapped,
    /// Of a database that was dropped, on the next one of its name.
    Buried,
    /// A key of another database.
    WrongKey,
    /// A key of a database that was dropped, on the next one of its name.
    BuriedKey,
    /// None.
    NoKey,
}

impl Kind {
    /// All, in the order of the report.
    pub const ALL: [Kind; 18] = [
        Kind::Select,
        Kind::Insert,
        Kind::Batch,
        Kind::Cursor,
        Kind::Sequence,
        Kind::Stateless,
        Kind::Dump,
        Kind::Failing,
        Kind::Malformed,
        Kind::Open,
        Kind::GoOn,
        Kind::Forged,
        Kind::Replayed,
        Kind::Swapped,
        Kind::Buried,
        Kind::WrongKey,
        Kind::BuriedKey,
        Kind::NoKey,
    ];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Select => "select",
            Kind::Insert => "insert",
            Kind::Batch => "batch",
            Kind::Cursor => "cursor",
            Kind::Sequence => "sequence",
            Kind::Stateless => "version 1",
            Kind::Dump => "dump",
            Kind::Failing => "failing SQL",
            Kind::Malformed => "malformed body",
            Kind::Open => "stream opened",
            Kind::GoOn => "stream gone on with",
            Kind::Forged => "forged baton",
            Kind::Replayed => "replayed baton",
            Kind::Swapped => "swapped baton",
            Kind::Buried => "dropped database's baton",
            Kind::WrongKey => "another's key",
            Kind::BuriedKey => "dropped database's key",
            Kind::NoKey => "no key",
        }
    }

    /// It is never to succeed.
    #[must_use]
    pub fn is_refused(self) -> bool {
        matches!(
            self,
            Kind::Malformed
                | Kind::Forged
                | Kind::Replayed
                | Kind::Swapped
                | Kind::Buried
                | Kind::WrongKey
                | Kind::BuriedKey
                | Kind::NoKey
        )
    }

    /// Where it succeeds, its asker's canary is in the answer.
    #[must_use]
    pub fn shows(self) -> bool {
        use Kind::{Batch, Cursor, Dump, GoOn, Insert, Open, Select, Stateless};
        matches!(self, Select | Insert | Batch | Cursor | Dump | GoOn | Open | Stateless)
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Whose canary may come back.
    pub asker: Option<Owner>,
    /// Whose stream a baton in the answer is.
    pub stream: Option<Owner>,
    /// The baton that it uses up.
    pub baton: Option<String>,
}

/// What a request is made of.
struct Draft<'a> {
    /// Who is named.
    name: &'a str,
    method: &'static str,
    path: &'static str,
    key: Option<&'a str>,
    body: String,
}

/// One more request.
///
/// # Panics
/// If there are fewer than two databases.
pub fn invent(chance: &mut Chance, population: &mut Population) -> Request {
    let number = chance.below(population.tenants.len());
    match chance.below(20) {
        0..=10 => plain(chance, population, number),
        11..=15 => stream(chance, population, number),
        _ => theft(chance, population, number),
    }
}

fn plain(chance: &mut Chance, population: &Population, number: usize) -> Request {
    let tenant = &population.tenants[number];
    let canary = &*tenant.canary;
    let pipeline = |requests: Value| json!({ "requests": requests }).to_string();
    let execute = |sql: &str| json!({"type": "execute", "stmt": {"sql": sql}});
    let close = json!({"type": "close"});
    let (kind, path, body) = match chance.below(24) {
        0..=7 => {
            let sql = select(chance, canary);
            (Kind::Select, "v2/pipeline", pipeline(json!([execute(&sql), close])))
        }
        8..=12 => {
            let insert = json!({"type": "execute", "stmt": insert(chance, canary)});
            (Kind::Insert, "v3/pipeline", pipeline(json!([insert, close])))
        }
        13..=14 => {
            let batch = json!({"type": "batch", "batch": steps(chance, canary)});
            (Kind::Batch, "v3/pipeline", pipeline(json!([batch, close])))
        }
        15..=17 => {
            let body = json!({ "batch": steps(chance, canary) }).to_string();
            (Kind::Cursor, "v3/cursor", body)
        }
        18 => {
            let sql = format!(
                "BEGIN; INSERT INTO notes(words) VALUES ('{canary}'); \
                 DELETE FROM notes WHERE id < (SELECT max(id) - 60 FROM notes); COMMIT"
            );
            let sequence = json!({"type": "sequence", "sql": sql});
            (Kind::Sequence, "v2/pipeline", pipeline(json!([sequence, close])))
        }
        19..=20 => {
            let body = json!({"stmt": {"sql": select(chance, canary)}}).to_string();
            (Kind::Stateless, "v1/execute", body)
        }
        21 => (Kind::Dump, "dump", String::new()),
        22 => {
            let sql = [
                format!("SELECT a FROM {canary}"),
                format!("INSERT INTO notes(id) VALUES ('{canary}'), (json('{canary}'))"),
                format!("SELECT {canary}"),
            ];
            let sql = chance.pick(&sql);
            (Kind::Failing, "v3/pipeline", pipeline(json!([execute(sql), close])))
        }
        _ => {
            let bodies = [
                format!("{{\"requests\":[{{\"type\":\"{canary}\"}}]}}"),
                format!("{{\"{canary}\""),
                format!("[\"{canary}\"]"),
            ];
            (Kind::Malformed, "v3/pipeline", chance.pick(&bodies).clone())
        }
    };
    let method = if kind == Kind::Dump { "GET" } else { "POST" };
    let (name, key) = (&*tenant.name, Some(&*tenant.key));
    let bytes = written(chance, population, &Draft { name, method, path, key, body });
    Request { bytes, kind, asker: Some(tenant.owner), stream: None, baton: None }
}

/// A statement that shows the canary, if it succeeds.
fn select(chance: &mut Chance, canary: &str) -> String {
    let by_words = format!("SELECT id, words FROM notes WHERE words = '{canary}' LIMIT 5");
    let found = format!("SELECT words FROM search WHERE search MATCH '\"{canary}\"'");
    let list = [
        "SELECT * FROM notes ORDER BY id LIMIT 20",
        "SELECT * FROM notes ORDER BY id DESC LIMIT 20",
        "SELECT words, bytes FROM notes ORDER BY random() LIMIT 10",
        "SELECT CAST(words AS BLOB) FROM notes LIMIT 5",
        "SELECT group_concat(words) FROM (SELECT words FROM notes LIMIT 30)",
        "SELECT json_group_array(words) FROM (SELECT words FROM notes LIMIT 30)",
        "SELECT sql, zeroblob(3000) FROM sqlite_schema",
        "SELECT a.words, b.words FROM notes AS a JOIN notes AS b USING (words) LIMIT 10",
        "SELECT DISTINCT words || hex(randomblob(2)) FROM notes LIMIT 9",
        &by_words,
        &found,
    ];
    // Many parts of a response, through buffers that others used before.
    match chance.one_in(40) {
        true => "SELECT replace(hex(zeroblob(1500)), '00', words) FROM notes LIMIT 2".to_owned(),
        false => (*chance.pick(&list)).to_owned(),
    }
}

/// A statement that writes a row and shows it.
fn insert(chance: &mut Chance, canary: &str) -> Value {
    let argument = json!([{"type": "text", "value": canary}]);
    let literal = format!("INSERT INTO notes(words) VALUES ('{canary}') RETURNING *");
    let list = [
        json!({"sql": "INSERT INTO notes(words, bytes) VALUES (?1, CAST(?1 AS BLOB)) RETURNING *",
               "args": argument}),
        json!({"sql": literal}),
        json!({"sql": "INSERT INTO notes(bytes) VALUES (zeroblob(2000)) RETURNING words"}),
        json!({"sql": "UPDATE notes SET words = ?1, bytes = zeroblob(100) \
                       WHERE id = (SELECT max(id) FROM notes) RETURNING words", "args": argument}),
    ];
    chance.pick(&list).clone()
}

/// A batch: a step that writes, one that reads, one that fails at times, and what follows from that.
fn steps(chance: &mut Chance, canary: &str) -> Value {
    let fails = chance.one_in(3);
    let middle = if fails { format!("SELECT {canary}") } else { select(chance, canary) };
    json!({"steps": [
        {"stmt": insert(chance, canary)},
        {"stmt": {"sql": middle}},
        {"stmt": {"sql": select(chance, canary)}, "condition": {"type": "ok", "step": 1}},
        {"stmt": {"sql": "SELECT words FROM notes LIMIT 3"}, "condition": {"type": "error", "step": 1}},
    ]})
}

/// A stream is opened, or gone on with where one is parked.
fn stream(chance: &mut Chance, population: &mut Population, number: usize) -> Request {
    let tenant = &mut population.tenants[number];
    let parked = if chance.one_in(3) { None } else { tenant.take() };
    let tenant = &population.tenants[number];
    let canary = &*tenant.canary;
    let execute = |sql: &str| json!({"type": "execute", "stmt": {"sql": sql}});
    let stored = json!({"type": "execute", "stmt": {"sql_id": 1}});
    let write = format!("INSERT INTO notes(words) VALUES ('{canary}') RETURNING words");
    let (kind, baton, mut requests) = match parked {
        None => {
            let sql = format!("SELECT words, '{canary}' FROM notes LIMIT 3");
            let store = json!({"type": "store_sql", "sql_id": 1, "sql": sql});
            let mut requests = vec![store, stored];
            match chance.below(9) {
                0 => {
                    requests.extend([execute("BEGIN"), execute("SELECT words FROM notes LIMIT 2")])
                }
                1 => requests.extend([execute("BEGIN IMMEDIATE"), execute(&write)]),
                _ => {}
            }
            (Kind::Open, None, requests)
        }
        Some(parked) => {
            let requests = match chance.below(6) {
                0 => vec![execute(&write), stored],
                1 => vec![stored, execute("COMMIT")],
                2 => vec![stored, execute("ROLLBACK")],
                3 => vec![stored, json!({"type": "describe", "sql": "SELECT * FROM notes"})],
                4 => vec![stored, execute(&format!("SELECT {canary}"))],
                _ => vec![stored, execute("SELECT * FROM notes LIMIT 5")],
            };
            (Kind::GoOn, Some(parked.baton), requests)
        }
    };
    let closes = chance.one_in(4);
    if closes {
        requests.push(json!({"type": "close"}));
    }
    let body = json!({"baton": baton, "requests": requests}).to_string();
    let (name, key) = (&*tenant.name, Some(&*tenant.key));
    let draft = Draft { name, method: "POST", path: "v3/pipeline", key, body };
    let owner = tenant.owner;
    let bytes = written(chance, population, &draft);
    Request { bytes, kind, asker: Some(owner), stream: (!closes).then_some(owner), baton }
}

/// Somebody wants what is another's. The asker is who holds the key.
fn theft(chance: &mut Chance, population: &Population, number: usize) -> Request {
    let count = population.tenants.len();
    let victim = &population.tenants[number];
    let thief = &population.tenants[(number + 1 + chance.below(count - 1)) % count];
    let ghost = population.ghosts.get(chance.below(population.ghosts.len().max(1)));
    let heir = ghost.map(|ghost| &population.tenants[ghost.owner.number as usize]);
    let buried = ghost.and_then(|ghost| ghost.batons.first());
    // Where it goes, whose key it has, and with which baton.
    let (kind, at, asker, baton) = match chance.below(8) {
        0 if victim.baton().is_some() => {
            (Kind::Swapped, thief, Some(as_asker(thief)), victim.baton().map(str::to_owned))
        }
        1 if victim.baton().is_some() => {
            (Kind::Swapped, victim, Some(as_asker(thief)), victim.baton().map(str::to_owned))
        }
        2 if victim.baton().is_some() => {
            let forged = victim.baton().map(|baton| forged(chance, baton));
            (Kind::Forged, victim, Some(as_asker(victim)), forged)
        }
        3 if victim.used_baton().is_some() => {
            let used = victim.used_baton().map(str::to_owned);
            (Kind::Replayed, victim, Some(as_asker(victim)), used)
        }
        4 if buried.is_some() => {
            let heir = heir.expect("a baton is of a ghost");
            (Kind::Buried, heir, Some(as_asker(heir)), buried.cloned())
        }
        5 if ghost.is_some() => {
            let (ghost, heir) = ghost.zip(heir).expect("just looked");
            (Kind::BuriedKey, heir, Some((ghost.owner, &*ghost.key, "")), None)
        }
        6 => (Kind::NoKey, victim, None, None),
        _ => (Kind::WrongKey, victim, Some(as_asker(thief)), None),
    };
    let canary = asker.map_or("", |(_, _, canary)| canary);
    let body = json!({"baton": baton, "requests": [
        {"type": "execute", "stmt": {"sql": "SELECT * FROM notes"}},
        {"type": "execute", "stmt": {"sql_id": 1}},
        {"type": "execute", "stmt": {"sql": format!("SELECT '{canary}'")}},
    ]});
    let draft = Draft {
        name: &at.name,
        method: "POST",
        path: "v3/pipeline",
        key: asker.map(|(_, key, _)| key),
        body: body.to_string(),
    };
    let bytes = written(chance, population, &draft);
    Request { bytes, kind, asker: asker.map(|(owner, ..)| owner), stream: None, baton: None }
}

/// Who it is, its key and its canary.
fn as_asker(tenant: &Tenant) -> (Owner, &str, &str) {
    (tenant.owner, &tenant.key, &tenant.canary)
}

/// The baton with one letter changed.
fn forged(chance: &mut Chance, baton: &str) -> String {
    let at = chance.below(baton.len());
    let other = if &baton[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &baton[..at], &baton[at + 1..])
}

/// A request's bytes. A database can be named in three places, of which the first that names one is
/// heard: where it is not the last, the others name somebody else.
fn written(chance: &mut Chance, population: &Population, draft: &Draft<'_>) -> Vec<u8> {
    let Draft { name, method, path, key, body, .. } = draft;
    let mut other = || &*population.tenants[chance.below(population.tenants.len())].name;
    let (second, third) = (other(), other());
    let (prefix, namespace, host) = match chance.below(4) {
        0 => (format!("/db/{name}/"), Some(second), third),
        1 => ("/".to_owned(), Some(*name), third),
        2 => ("/".to_owned(), None, *name),
        _ => (format!("/db/{name}/"), None, third),
    };
    let mut head = format!("{method} {prefix}{path} HTTP/1.1\r\nHost: {host}.example.com\r\n");
    if let Some(namespace) = namespace {
        head += &format!("x-namespace: {namespace}\r\n");
    }
    if let Some(key) = key {
        head += &format!("authorization: Bearer {key}\r\n");
    }
    if *method == "GET" {
        return (head + "\r\n").into_bytes();
    }
    if !chance.one_in(4) {
        return format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes();
    }
    let mut bytes = (head + "transfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.as_bytes().chunks(1 + chance.below(200)) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::population::Parked;
    use super::super::watch::Watch;
    use super::*;

    /// Whatever a request's kind: no canary but its asker's is in it, so none but its asker's may come back.
    #[test]
    fn requests_hold_their_askers_canary_and_no_other() {
        let mut watch = Watch::new(3);
        let mut population = Population::default();
        let tenant = |watch: &Watch, number, generation| {
            let owner = Owner { number, generation };
            let key = format!("key-{number}-{generation}");
            Tenant::new(owner, format!("d{number}"), key, watch.canary(owner))
        };
        population.tenants.extend((0..5).map(|number| tenant(&watch, number, 0)));
        let mut chance = Chance::new(1);
        let mut met = [0; Kind::ALL.len()];
        let mut shown = 0;
        for round in 0..6_000_u32 {
            let mut request = invent(&mut chance, &mut population);
            met[Kind::ALL.iter().position(|kind| *kind == request.kind).expect("listed")] += 1;
            let text = String::from_utf8(request.bytes).expect("text");
            // Chunks cut it anywhere.
            shown += match text.contains("\r\ntransfer-encoding: ") {
                true => watch.look_at_rest(request.asker, text.as_bytes()).map(|()| 0),
                false => watch.look(request.asker, text.as_bytes()),
            }
            .expect("nobody else's");
            if let Some(asker) = request.asker {
                let key = format!("Bearer key-{}-{}\r\n", asker.number, asker.generation);
                assert!(text.contains(&key), "{text}");
            }
            if let Some(owner) = request.stream {
                let baton = format!("baton{round:05}{}", owner.number);
                population.park(Parked { owner, baton });
            }
            if let Some(baton) = request.baton.take() {
                population.answered(request.asker.expect("a stream is somebody's"), baton);
            }
            if round % 500 == 0 {
                let number = round / 500 % 5;
                let generation = population.tenants[number as usize].owner.generation + 1;
                population.replace(tenant(&watch, number, generation));
            }
        }
        assert!(met.iter().all(|count| *count > 0), "{met:?}");
        assert!(shown > 3_000, "{shown}");
    }
}
