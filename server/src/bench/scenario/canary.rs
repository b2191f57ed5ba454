//! Whether one database's bytes ever reach another's client: random traffic of many, with every byte that
//! comes back looked through for canaries (`bench/canary`).
//!
//! The server asks for keys and has less memory than all databases would hold, so that databases, caches and
//! buffers go from one hand to the next all the time. It is stopped at the end, and what it has written to
//! its output is looked through too. The first leak ends the run with what was asked and what came back.
//!
//! **The check can fail**: at the beginning of each run a database is given another's canary by its own
//! client, and each way in which it then comes back (text, blob, error, rows line by line) has to be found.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bench;
use crate::bench::canary::Chance;
use crate::bench::canary::line::{Answer, Line};
use crate::bench::canary::population::{Parked, Population, Tenant};
use crate::bench::canary::traffic::{Kind, Request, invent, schema};
use crate::bench::canary::watch::{Leak, Owner, Watch};
use crate::bench::mix;
use crate::bench::report::Table;
use crate::bench::request::{Target, Template};
use crate::bench::spawned::{Launch, Server};

/// The server's `--memory`: the least that it starts with, and something for each database, of which an open
/// one takes 150 KiB, and each of its streams 50 more.
const MEMORY_KIB_MIN: u32 = 404 << 10;
const MEMORY_KIB_EACH: u32 = 100;

/// The operator's key. It is of a server that lives as long as the run, on loopback.
const ROOT_KEY: &str = "the-root-key-of-a-canary-run";

/// Requests that are sent one behind the other on a connection, at most.
const BURST_MAX: usize = 6;

/// After so many answers a database is dropped and made again.
const ANSWERS_PER_DROP: u64 = 150;

/// And so many connections are broken off: one in so many bursts, with answers on their way.
const BURSTS_PER_BREAK: usize = 40;

/// So often what the admin address shows is looked through.
const CONTROL_INTERVAL: Duration = Duration::from_secs(2);

/// An answer that takes longer does not come: statements run 30 s and wait 15 s for the writer.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two tries at a server that is full.
const BUSY_INTERVAL: Duration = Duration::from_millis(10);

/// Bytes of a request that are shown with its leak.
const SHOWN_BYTES: usize = 600;

/// What became of the requests of one kind.
#[derive(Clone, Copy, Default)]
struct Tally {
    sent: u64,
    answered: u64,
    refused: u64,
    own: u64,
}

/// A run.
struct Run<'t> {
    target: &'t Target,
    admin: Target,
    control: Line<()>,
    watch: Watch,
    chance: Chance,
    population: Population,
    run_name: String,
    tallies: [Tally; Kind::ALL.len()],
    answers: u64,
    broken: u64,
    ended: u64,
    drops: u64,
}

impl Bench<'_> {
    pub(super) fn canary(&mut self) -> Result<(), String> {
        let mut server = Server::start(self.canary_launch()?)?;
        let target = Target::resolve(&server.url, None)?;
        let admin = Target::resolve(&server.admin_url, Some(&format!("Bearer {ROOT_KEY}")))?;
        let mut run = Run::open(&target, admin, &self.run_name)?;
        self.canary_run(&mut run).map_err(|what| server.failure(&what))?;
        let closes = run.metric("tenant_closes_total").map_err(|what| server.failure(&what))?;
        server.stop()?;
        let output = server.output();
        run.look(None, output.as_bytes(), "the server's output")?;
        self.tables.push(run.table(closes));
        Ok(())
    }

    fn canary_launch(&self) -> Result<Launch, String> {
        let key = self.folder().join("root-key");
        let written = std::fs::write(&key, ROOT_KEY);
        written.map_err(|error| format!("cannot write {}: {error}", key.display()))?;
        let mut launch = self.launch("canary-data");
        let memory = MEMORY_KIB_MIN + MEMORY_KIB_EACH.saturating_mul(self.options.tenants);
        launch.arguments.extend(["--auth", "on", "--memory"].map(Into::into));
        launch.arguments.push(format!("{memory}KiB").into());
        launch.arguments.extend(["--root-key-file".into(), key.into()]);
        Ok(launch)
    }

    fn canary_run(&mut self, run: &mut Run<'_>) -> Result<(), String> {
        let tenants = self.options.tenants.max(2);
        for number in 0..tenants {
            self.progress.show(Instant::now(), || format!("canary: database {number}"));
            let tenant = run.made(Owner { number, generation: 0 })?;
            run.population.tenants.push(tenant);
        }
        run.can_fail()?;
        let mut lines = Vec::new();
        for _ in 0..self.options.connections {
            lines.push(run.connect()?);
        }
        let begun = Instant::now();
        let mut looked = begun;
        while begun.elapsed() < self.options.measured() {
            let mut moved = false;
            for line in &mut lines {
                moved |= run.turn(line)?;
            }
            if run.answers >= (run.drops + 1) * ANSWERS_PER_DROP {
                run.renew()?;
            }
            if looked.elapsed() >= CONTROL_INTERVAL {
                looked = Instant::now();
                run.look_at_control()?;
            }
            let (answers, own) = (run.answers, run.watch.own);
            self.progress.show(Instant::now(), || format!("canary: {answers} answers, {own} own"));
            if !moved {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        for mut line in lines {
            run.drain(&mut line)?;
        }
        run.look_at_control()
    }
}

impl<'t> Run<'t> {
    fn open(target: &'t Target, admin: Target, run_name: &str) -> Result<Run<'t>, String> {
        let control =
            Line::connect(&admin).map_err(|error| format!("no admin address: {error}"))?;
        Ok(Run {
            target,
            admin,
            control,
            watch: Watch::new(run_name.bytes().fold(0, |sum, byte| mix(sum ^ u64::from(byte)))),
            // The same choices each time, whatever databases are called.
            chance: Chance::new(1),
            population: Population::default(),
            run_name: run_name.to_owned(),
            tallies: [Tally::default(); Kind::ALL.len()],
            answers: 0,
            broken: 0,
            ended: 0,
            drops: 0,
        })
    }

    fn connect(&self) -> Result<Line<Request>, String> {
        Line::connect(self.target).map_err(|error| format!("cannot connect: {error}"))
    }

    /// One look at a connection: send if it is idle, take what has come, and judge it.
    fn turn(&mut self, line: &mut Line<Request>) -> Result<bool, String> {
        if line.is_idle() {
            let (_, rest) = line.rest();
            if !rest.is_empty() {
                return Err(format!("nobody has asked for {}", excerpt(&rest)));
            }
            for _ in 0..=self.chance.below(BURST_MAX) {
                let request = invent(&mut self.chance, &mut self.population);
                self.tally(request.kind).sent += 1;
                line.send(&request.bytes.clone(), request);
            }
            if self.chance.one_in(BURSTS_PER_BREAK) {
                line.cut(self.chance.below(line.unsent_bytes() + 1));
                line.advance();
                self.broken += 1;
                self.replace(line)?;
                return Ok(true);
            }
        }
        let moved = line.advance();
        self.take(line)?;
        if line.has_ended() {
            self.ended += 1;
            self.replace(line)?;
        }
        if line.waited() > PATIENCE {
            return Err(format!("no answer in {} s", PATIENCE.as_secs()));
        }
        Ok(moved)
    }

    /// Judge what has come whole.
    fn take(&mut self, line: &mut Line<Request>) -> Result<(), String> {
        while let Some(answer) = line.answer().map_err(|error| error.to_string())? {
            self.judge(answer)?;
        }
        Ok(())
    }

    /// Another connection in the place of this one; what has come on it behind the last whole answer is of
    /// the request that was next.
    fn replace(&mut self, line: &mut Line<Request>) -> Result<(), String> {
        self.take(line)?;
        let (asked, rest) = line.rest();
        if asked.is_none() && !rest.is_empty() {
            return Err(format!("nobody has asked for {}", excerpt(&rest)));
        }
        self.look_at_rest(asked, &rest)?;
        *line = self.connect()?;
        Ok(())
    }

    /// Take what is still to come.
    fn drain(&mut self, line: &mut Line<Request>) -> Result<(), String> {
        while !line.is_idle() && !line.has_ended() {
            let answer = line.wait(PATIENCE);
            match answer {
                Ok(answer) => self.judge(answer)?,
                Err(_) if line.has_ended() => {}
                Err(what) => return Err(what),
            }
        }
        self.replace(line)
    }

    fn judge(&mut self, answer: Answer<Request>) -> Result<(), String> {
        let Answer { asked, status, body, head } = answer;
        let asking = excerpt(&asked.bytes);
        let own =
            self.look(asked.asker, &head, &asking)? + self.look(asked.asker, &body, &asking)?;
        self.answers += 1;
        let tally = self.tally(asked.kind);
        match status {
            200 => tally.answered += 1,
            _ => tally.refused += 1,
        }
        tally.own += own;
        if asked.kind.is_refused() && status == 200 {
            let (name, told) = (asked.kind.name(), excerpt(&body));
            return Err(format!("{name} was let in: asked was {asking}; the answer is {told}"));
        }
        // What every error has, of a request, a statement or a step.
        let failed = memchr::memmem::find(&body, b"\"message\":").is_some();
        if asked.kind.shows() && status == 200 && own == 0 && !failed {
            let told = excerpt(&body);
            return Err(format!(
                "an answer lacks its own canary: asked was {asking}; it is {told}"
            ));
        }
        // Where the server had no room for the request, the baton is still good.
        if let (Some(owner), Some(baton), 200) = (asked.asker, asked.baton, status) {
            self.population.answered(owner, baton);
        }
        if let Some(owner) = asked.stream
            && let Ok(answer) = serde_json::from_slice::<Value>(&body)
            && let Some(baton) = answer["baton"].as_str()
        {
            self.population.park(Parked { owner, baton: baton.to_owned() });
        }
        Ok(())
    }

    fn tally(&mut self, kind: Kind) -> &mut Tally {
        let index = Kind::ALL.iter().position(|other| *other == kind);
        &mut self.tallies[index.expect("all kinds are listed")]
    }

    fn look(&mut self, asker: Option<Owner>, bytes: &[u8], asking: &str) -> Result<u64, String> {
        self.watch.look(asker, bytes).map_err(|Leak { of, excerpt }| {
            format!("LEAK: {asker:?} sees what is of {of:?}: {excerpt}\nasked was {asking}")
        })
    }

    fn look_at_rest(&mut self, asked: Option<Request>, rest: &[u8]) -> Result<(), String> {
        let asker = asked.as_ref().and_then(|request| request.asker);
        self.watch.look_at_rest(asker, rest).map_err(|Leak { of, excerpt: text }| {
            let asking = asked.map_or_else(String::new, |request| excerpt(&request.bytes));
            format!("LEAK: {asker:?} sees what is of {of:?}: {text}\nasked was {asking}")
        })
    }

    // ---- databases ----

    /// A call of the control API that is to succeed. What it answers holds nobody's rows.
    fn call(&mut self, method: &str, path: &str, body: &str) -> Result<Vec<u8>, String> {
        let request = Template::new(&self.admin, method, path, body, "");
        if self.control.has_ended() {
            self.control =
                Line::connect(&self.admin).map_err(|error| format!("no admin address: {error}"))?;
        }
        self.control.send(request.bytes(), ());
        let answer = self.control.wait(PATIENCE);
        let answer = answer.map_err(|what| format!("{method} {path}: {what}"))?;
        let what = format!("{method} {path}");
        self.look(None, &answer.head, &what)?;
        self.look(None, &answer.body, &what)?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(format!("{what}: {status} {}", excerpt(&answer.body))),
        }
    }

    /// Make a database of this number and generation, give it a key, and fill it.
    fn made(&mut self, owner: Owner) -> Result<Tenant, String> {
        let name = format!("canary-{}-{:05}", self.run_name, owner.number);
        self.call("POST", &format!("/v1/namespaces/{name}/create"), "{}")?;
        let field = |answer: &[u8], field: &str| {
            let value: Value = serde_json::from_slice(answer).unwrap_or(Value::Null);
            value[field].as_str().map(str::to_owned).ok_or_else(|| format!("no {field}"))
        };
        let key = match owner.number % 2 {
            0 => {
                let path = format!("/v1/namespaces/{name}/tokens");
                field(&self.call("POST", &path, "")?, "jwt")?
            }
            _ => {
                let body = json!({"scope": format!("database:{name}"), "role": "write"});
                field(&self.call("POST", "/v1/keys", &body.to_string())?, "key")?
            }
        };
        let tenant = Tenant::new(owner, name, key, self.watch.canary(owner));
        // All of it or nothing, so that it can be tried again.
        let sql = format!("BEGIN; {}; COMMIT", schema(&tenant.canary).join("; "));
        let requests = json!([{"type": "sequence", "sql": sql}, {"type": "close"}]);
        let (status, body) = self.ask(&tenant, "v3/pipeline", &json!({ "requests": requests }))?;
        if status != 200 || memchr::memmem::find(&body, b"\"error\"").is_some() {
            return Err(format!("{} is not filled: {status} {}", tenant.name, excerpt(&body)));
        }
        Ok(tenant)
    }

    /// Ask a database on a connection of its own, as its client, until the server has room for it; nobody
    /// looks at what comes back.
    fn ask(&self, tenant: &Tenant, path: &str, body: &Value) -> Result<(u16, Vec<u8>), String> {
        let body = body.to_string();
        let begun = Instant::now();
        loop {
            let (status, answer) = self.ask_once(tenant, path, &body)?;
            let full = memchr::memmem::find(&answer, b"\"SQLITE_NOMEM\"").is_some();
            if !(status == 503 || full) || begun.elapsed() > PATIENCE {
                return Ok((status, answer));
            }
            std::thread::sleep(BUSY_INTERVAL);
        }
    }

    fn ask_once(&self, tenant: &Tenant, path: &str, body: &str) -> Result<(u16, Vec<u8>), String> {
        let mut line = Line::connect(self.target).map_err(|error| error.to_string())?;
        let Tenant { name, key, .. } = tenant;
        let request = format!(
            "POST /db/{name}/{path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        line.send(request.as_bytes(), ());
        let answer = line.wait(PATIENCE)?;
        Ok((answer.status, answer.body))
    }

    /// Drop a database, and make another of its name.
    fn renew(&mut self) -> Result<(), String> {
        let number = self.chance.below(self.population.tenants.len());
        self.renew_number(number)
    }

    fn renew_number(&mut self, number: usize) -> Result<(), String> {
        let Tenant { owner, name, .. } = self.population.tenants[number].clone();
        self.call("DELETE", &format!("/v1/namespaces/{name}"), "{}")?;
        let next = Owner { generation: owner.generation + 1, ..owner };
        let tenant = self.made(next)?;
        self.population.replace(tenant);
        self.drops += 1;
        Ok(())
    }

    /// What one database's client has put there of another's canary is found in every form.
    fn can_fail(&mut self) -> Result<(), String> {
        let [first, second] = [0, 1].map(|number| self.population.tenants[number].clone());
        let planted = &second.canary;
        let insert = format!("INSERT INTO notes(words, bytes) VALUES ('{planted}', x'00')");
        let execute = |sql: &str| json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}]});
        self.ask(&first, "v3/pipeline", &execute(&insert))?;
        let blob = "SELECT CAST('..' || words AS BLOB) FROM notes";
        let failing = format!("SELECT * FROM {planted}");
        let cursor = json!({"batch": {"steps": [{"stmt": {"sql": "SELECT words FROM notes"}}]}});
        for (path, body) in [
            ("v3/pipeline", execute("SELECT words FROM notes")),
            ("v3/pipeline", execute(blob)),
            ("v3/pipeline", execute(&failing)),
            ("v3/cursor", cursor),
        ] {
            let (_, answer) = self.ask(&first, path, &body)?;
            match self.watch.look(Some(first.owner), &answer) {
                Err(leak) if leak.of == Some(second.owner) => {}
                other => {
                    let told = excerpt(&answer);
                    return Err(format!(
                        "the check does not see what it is to see: {other:?} in {told}"
                    ));
                }
            }
        }
        self.renew_number(0)
    }

    fn look_at_control(&mut self) -> Result<(), String> {
        for path in ["/metrics", "/v1/top?by=memory&limit=50", "/v1/namespaces?limit=100"] {
            self.call("GET", path, "")?;
        }
        Ok(())
    }

    fn metric(&mut self, name: &str) -> Result<u64, String> {
        let text = self.call("GET", "/metrics", "")?;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find_map(|line| line.strip_prefix("myriad_")?.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim().parse().ok());
        number.ok_or_else(|| format!("no metric {name}"))
    }

    fn table(&self, closes: u64) -> Table {
        let heads = ["requests", "sent", "200", "refused", "own canaries", "foreign"];
        let mut table = Table::new("canaries: what came back, and whose it was", &heads);
        let row = |name: &str, tally: Tally| {
            let Tally { sent, answered, refused, own } = tally;
            let numbers = [sent, answered, refused, own, 0].map(|number| number.to_string());
            [&[name.to_owned()][..], &numbers].concat()
        };
        let mut sum = Tally::default();
        for (kind, tally) in Kind::ALL.into_iter().zip(self.tallies) {
            table.rows.push(row(kind.name(), tally));
            sum.sent += tally.sent;
            sum.answered += tally.answered;
            sum.refused += tally.refused;
            sum.own += tally.own;
        }
        table.rows.push(row("all", sum));
        let Run { watch, broken, ended, drops, population, .. } = self;
        let (tenants, bytes) = (population.tenants.len(), watch.bytes);
        table.notes = vec![
            format!("{tenants} databases, {drops} of them dropped and made again, {closes} closed"),
            format!(
                "{bytes} bytes looked through, with the admin address's and the server's output"
            ),
            format!("{broken} connections broken off by the client, {ended} ended by the server"),
            "a canary that was put in the wrong place on purpose was found in all four forms"
                .into(),
        ];
        table
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
    text.escape_debug().to_string()
}
