//! The fleet: fleet jobs under crashes and faults, and whether each ran exactly once (JOB-1).
//!
//! Fault model. In one world of four (`jobs` of them, none in the others) somebody has two to twelve
//! databases of her own, and runs migrations on them: all, or some by name, a name that nobody has among
//! them; several jobs at a time; with canaries, limits on failures, different speeds; pauses, resumes,
//! cancels and retries them; drops a database and makes another of its name; reads what is there. Each
//! migration inserts the job's number into `runs`, and then into `good`, a table that some databases
//! lack until she makes it: there it must fail as a whole.
//!
//! JOB-1, at any time: no database has a job's number twice. When the faults have ended, all jobs are let
//! go on or cancelled and must come to rest within a bounded time; then a database has a job's number if
//! and only if the job's results say so, no database has two results of a job, a job that was
//! acknowledged is there, and one that is completed has a result for each database that it was for.
//!
//! Outside: databases that the disk has struck, which may be fenced; and the landlord's budgets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::ground::Ground;
use super::link::{Answer, Asker, Link};
use super::model::Violation;
use super::options::{ADMIN, LISTEN, Options};
use super::speech;
use super::{Sim, World};
use crate::client::request;
use crate::draws::{Draws, Span, Stream};

/// Her number in timers; strangers and the landlord are below, gluttons above.
const ID: u64 = (1 << 21) + 1;

/// Time after which a request without an answer is given up.
const PATIENCE_NS: u64 = 90_000_000_000;

/// Longer than a request of somebody who has hung up is on its way.
const UNDER_WAY_NS: u64 = 60_000_000_000;

/// Simulated time in which all jobs come to rest without faults: a busy database is tried for minutes.
const REST_NS_MAX: u64 = 7_200_000_000_000;

/// What she asks while the world's work is done: a quiet world lasts for days, and each answer comes in pieces.
const ASKS_MAX: u64 = 2_000;

/// Jobs at a time that she has not seen at rest.
const JOBS_AT_A_TIME: usize = 3;

/// How many jobs the world of a seed has; from a stream of its own, so that the others are what they
/// were.
pub(super) fn draw_jobs(seed: u64) -> u64 {
    let mut draws = Draws::new(seed);
    let there = draws.below(Stream::Jobs, 10, 4) == 0;
    let jobs = draws.logarithmic(Stream::Jobs, 11, Span::new(1, 12));
    if there { jobs } else { 0 }
}

fn database(number: usize) -> String {
    format!("fleet-{number}")
}

/// What she asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    Create(usize),
    /// One that is there, and of which the id is not known.
    Find(usize),
    Drop(usize),
    /// The tables; with `true` the one that some lack, too.
    Tables(usize, bool),
    Job(u64, Value),
    Order(u64, &'static str),
    Read(usize),
    List,
    Show(u64),
    Results(u64, u64),
    /// The end: which databases there are.
    Look(usize),
}

/// A database of hers.
#[derive(Clone, Debug, Default)]
struct Owned {
    /// Its id, once it is known to be there.
    id: Option<u64>,
    /// There is one of this name.
    exists: bool,
    has_tables: bool,
    /// A drop of it was not answered, and may still come.
    may_go: bool,
    /// It is to have `good`.
    is_good: bool,
    /// When it was known to be there, by the count of her answers.
    since: u64,
    /// What it holds, in the end.
    found: Option<BTreeMap<u64, u64>>,
    /// It cannot be read any more.
    lost: bool,
}

/// A job of hers, as she knows it.
#[derive(Clone, Debug, Default)]
struct Known {
    id: u64,
    number: u64,
    /// When it was asked for.
    asked: u64,
    /// Names that it is for; empty for all.
    names: Vec<String>,
    at_rest: bool,
    shown: Value,
    /// Status by database id, and those without one.
    results: BTreeMap<u64, String>,
    missing: u64,
    read_to_end: bool,
}

/// See the head of the file.
pub(super) struct Fleet {
    jobs_left: u64,
    databases: Vec<Owned>,
    jobs: BTreeMap<u64, Known>,
    /// Numbers of jobs that were asked for: what for, and whether it was acknowledged.
    asked: BTreeMap<u64, (u64, Vec<String>, bool)>,
    link: Link<Ask>,
    asks: u64,
    answers: u64,
    listed: bool,
    /// The faults have ended: everything is brought to rest and judged.
    ending: bool,
    ended: bool,
}

impl Fleet {
    /// The fleet of a world.
    pub fn new(sim: &mut Sim, options: &Options) -> Fleet {
        let mut fleet = Fleet {
            jobs_left: options.jobs,
            databases: Vec::new(),
            jobs: BTreeMap::new(),
            asked: BTreeMap::new(),
            link: Link::new("the fleet", ID, Stream::Jobs),
            asks: 0,
            answers: 0,
            listed: false,
            ending: false,
            ended: false,
        };
        if options.jobs > 0 {
            let draws = sim.draws_mut();
            let count = 2 + draws.index(Stream::Jobs, 1, 11);
            for _ in 0..count {
                let is_good = draws.below(Stream::Jobs, 1, 4) > 0;
                fleet.databases.push(Owned { is_good, ..Owned::default() });
            }
            fleet.link.rest(sim);
        }
        fleet
    }

    fn unmade(&self) -> Option<Ask> {
        let index =
            self.databases.iter().position(|owned| owned.id.is_none() || !owned.has_tables)?;
        let owned = &self.databases[index];
        Some(match owned.id {
            None if owned.exists => Ask::Find(index),
            None => Ask::Create(index),
            Some(_) => Ask::Tables(index, owned.is_good),
        })
    }

    fn draw(&mut self, sim: &mut Sim) -> Ask {
        if let Some(ask) = self.unmade() {
            return ask;
        }
        let draws = sim.draws_mut();
        let what = draws.below(Stream::Jobs, 2, 16);
        let index = draws.index(Stream::Jobs, 3, self.databases.len());
        let moving: Vec<u64> =
            self.jobs.values().filter(|job| !job.at_rest).map(|job| job.id).collect();
        let known: Vec<u64> = self.jobs.keys().copied().collect();
        let of = |draws: &mut Draws, list: &[u64]| {
            let at = draws.index(Stream::Jobs, 4, list.len().max(1));
            list.get(at).copied()
        };
        match what {
            0..5 if self.jobs_left > 0 && moving.len() < JOBS_AT_A_TIME => self.draw_job(sim),
            5..7 => of(draws, &moving).map_or(Ask::List, Ask::Show),
            7..11 => {
                let word = ["pause", "resume", "cancel", "resume"][draws.index(Stream::Jobs, 5, 4)];
                of(draws, &moving).map_or(Ask::List, |id| Ask::Order(id, word))
            }
            11 => of(draws, &known).map_or(Ask::List, |id| Ask::Order(id, "retry-failed")),
            12 => {
                self.databases[index].is_good = true;
                Ask::Tables(index, true)
            }
            13 if draws.below(Stream::Jobs, 6, 4) == 0 => {
                self.databases[index].id = None;
                Ask::Drop(index)
            }
            _ => Ask::Read(index),
        }
    }

    fn draw_job(&mut self, sim: &mut Sim) -> Ask {
        self.jobs_left -= 1;
        let number = self.jobs_left + 1;
        let draws = sim.draws_mut();
        let mut pick = |bound: usize| draws.index(Stream::Jobs, 7, bound);
        let sql = format!("INSERT INTO runs VALUES({number}); INSERT INTO good VALUES({number})");
        let on_error = ["continue", "pause", "cancel"][pick(3)];
        let mut body = json!({
            "sql": sql, "on_error": on_error, "max_failures": 1 + pick(3),
            "concurrency": 1 + pick(8),
        });
        if pick(3) == 0 {
            body["canary"] = json!(1 + pick(4));
            body["canary_auto"] = json!(pick(2) == 0);
        }
        let mut names = Vec::new();
        if pick(3) == 0 {
            let some: BTreeSet<usize> =
                (0..1 + pick(4)).map(|_| pick(self.databases.len() + 1)).collect();
            names = some.into_iter().map(database).collect();
            body["names"] = json!(names);
        } else {
            body["prefix"] = json!("fleet-");
        }
        self.asked.insert(number, (self.answers, names, false));
        Ask::Job(number, body)
    }

    /// What is still to be done when the faults have ended.
    fn next_in_the_end(&self) -> Option<Ask> {
        if !self.listed {
            return Some(Ask::List);
        }
        for job in self.jobs.values() {
            match job.shown["state"].as_str() {
                Some("completed" | "cancelled") => {}
                Some("paused") if job.id % 2 == 0 => return Some(Ask::Order(job.id, "cancel")),
                Some("paused") => return Some(Ask::Order(job.id, "resume")),
                _ => return Some(Ask::Show(job.id)),
            }
        }
        if let Some(job) = self.jobs.values().find(|job| !job.read_to_end) {
            let read = job.results.len() as u64 + job.missing;
            return Some(Ask::Results(job.id, read));
        }
        let unread = |owned: &Owned| owned.id.is_some() && owned.found.is_none() && !owned.lost;
        self.databases.iter().position(unread).map(Ask::Look)
    }

    // ---- what she hears ----

    fn on_refusal(
        &mut self,
        options: &Options,
        ask: &Ask,
        status: u16,
        code: &str,
        text: &str,
    ) -> Result<(), Violation> {
        match (ask, code) {
            // It was made, and the answer was lost: it is shown what it is.
            (Ask::Create(index), "DATABASE_EXISTS") => {
                self.databases[*index].exists = true;
                return Ok(());
            }
            (Ask::Find(index), "DATABASE_NOT_FOUND") => {
                self.databases[*index].exists = false;
                return Ok(());
            }
            (Ask::Read(index) | Ask::Look(index) | Ask::Tables(index, _), "DATABASE_NOT_FOUND") => {
                let owned = &mut self.databases[*index];
                if owned.id.is_some() && !owned.may_go {
                    let text = format!("{} is gone: {ask:?}: {text}", database(*index));
                    return Err(Violation::new("DUR-4", text));
                }
                (owned.id, owned.has_tables) = (None, false);
                return Ok(());
            }
            (Ask::Look(index), "DATABASE_DAMAGED") if options.has_disk_errors() => {
                self.databases[*index].lost = true;
                return Ok(());
            }
            (Ask::Tables(index, _), "DATABASE_DAMAGED") if options.has_disk_errors() => {
                // She does without it.
                (self.databases[*index].has_tables, self.databases[*index].lost) = (true, true);
                return Ok(());
            }
            _ => {}
        }
        if let Ask::Drop(index) = ask {
            self.databases[*index].may_go |= status != 404;
        }
        let excused = match status {
            404 => matches!(ask, Ask::Drop(_) | Ask::Read(_)),
            409 => true,
            _ => options.excuses(status),
        };
        if excused {
            return Ok(());
        }
        Err(Violation::new("ERR-1", format!("the fleet's {ask:?}: {status} {text}")))
    }

    fn on_created(&mut self, index: usize, body: &Value) {
        let owned = &mut self.databases[index];
        owned.id = body["id"].as_u64();
        (owned.has_tables, owned.since) = (false, self.answers);
    }

    /// A job as the server shows it.
    fn learn(&mut self, shown: &Value) {
        let Some(id) = shown["id"].as_u64() else { return };
        let known = self.jobs.entry(id).or_insert_with(|| Known { id, ..Known::default() });
        if let Some(sql) = shown["sql"].as_str() {
            let digits = sql.trim_start_matches("INSERT INTO runs VALUES(");
            let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
            known.number = digits.parse().unwrap_or(0);
            if let Some((asked, names, _)) = self.asked.get(&known.number) {
                (known.asked, known.names) = (*asked, names.clone());
            }
        }
        let at_rest = matches!(shown["state"].as_str(), Some("completed" | "cancelled"));
        known.at_rest = at_rest;
        known.shown = shown.clone();
    }

    fn on_results(&mut self, id: u64, from: u64, body: &Value) -> Result<(), Violation> {
        let known = self.jobs.get_mut(&id).expect("it was asked for");
        if known.results.len() as u64 + known.missing != from {
            return Ok(());
        }
        for result in body["results"].as_array().into_iter().flatten() {
            let status = result["status"].as_str().unwrap_or("").to_owned();
            match result["database_id"].as_u64() {
                Some(0) | None => known.missing += 1,
                Some(database) => {
                    if known.results.insert(database, status).is_some() {
                        let text = format!("job {id} has two results of database {database}");
                        return Err(Violation::new("JOB-1", text));
                    }
                }
            }
        }
        known.read_to_end = body["next"].is_null();
        Ok(())
    }

    fn on_rows(
        &mut self,
        options: &Options,
        ask: &Ask,
        index: usize,
        body: &Value,
    ) -> Result<(), Violation> {
        let result = &body["results"][0];
        if result["type"] != "ok" {
            if let Ask::Look(_) = ask {
                let message = result["error"]["message"].as_str().unwrap_or("");
                if message.contains("no such table: runs") {
                    self.databases[index].found = Some(BTreeMap::new());
                } else if options.has_disk_errors() {
                    self.databases[index].lost = true;
                }
            }
            return Ok(());
        }
        let rows = result["response"]["result"]["rows"].as_array();
        let number = |cell: &Value| cell["value"].as_str().and_then(|text| text.parse().ok());
        let mut found = BTreeMap::new();
        for row in rows.into_iter().flatten() {
            let (Some(job), Some(count)) = (number(&row[0]), number(&row[1])) else { continue };
            if count != 1 {
                let name = database(index);
                let text = format!("the job with number {job} ran {count} times on {name}");
                return Err(Violation::new("JOB-1", text));
            }
            found.insert(job, count);
        }
        if matches!(ask, Ask::Look(_)) {
            self.databases[index].found = Some(found);
        }
        Ok(())
    }

    // ---- the end ----

    fn judge(&self) -> Result<(), Violation> {
        let wrong = |text: String| Err(Violation::new("JOB-1", text));
        for (number, (.., acknowledged)) in &self.asked {
            let there = self.jobs.values().any(|job| job.number == *number);
            if *acknowledged && !there {
                return wrong(format!(
                    "the job with number {number} was acknowledged and is not there"
                ));
            }
        }
        for job in self.jobs.values() {
            let (id, number) = (job.id, job.number);
            let tally = |name: &str| job.shown[name].as_u64().unwrap_or(0);
            for status in ["done", "failed"] {
                let count = job.results.values().filter(|found| *found == status).count() as u64;
                if count != tally(status) {
                    let counted = tally(status);
                    return wrong(format!(
                        "job {id} counts {counted} {status}, its results {count}"
                    ));
                }
            }
            for (index, owned) in self.databases.iter().enumerate() {
                let (Some(database_id), Some(found)) = (owned.id, &owned.found) else { continue };
                let name = database(index);
                let said = job.results.get(&database_id).map(String::as_str);
                let ran = found.contains_key(&number);
                if ran != (said == Some("done")) {
                    return wrong(format!("job {id} says {said:?} of {name}, which ran it: {ran}"));
                }
                let meant = job.names.is_empty() || job.names.contains(&name);
                let was_there = owned.since < job.asked;
                let completed = job.shown["state"] == "completed";
                if completed && meant && was_there && said.is_none() {
                    return wrong(format!("job {id} is completed, and says nothing of {name}"));
                }
            }
        }
        Ok(())
    }
}

impl Asker for Fleet {
    type Asked = Ask;

    fn link(&mut self) -> &mut Link<Ask> {
        &mut self.link
    }

    fn act(&mut self, sim: &mut Sim, _: &mut Ground) -> Result<(), Violation> {
        if !self.ending && self.asks == ASKS_MAX {
            return Ok(());
        }
        self.asks += 1;
        let ask = if self.ending { self.next_in_the_end() } else { Some(self.draw(sim)) };
        let Some(ask) = ask else {
            self.ended = true;
            return self.judge();
        };
        let (address, bytes) = bytes_of(&ask);
        self.link.ask(sim, address, &bytes, PATIENCE_NS, ask);
        Ok(())
    }

    /// What came of it she sees by looking.
    fn lose(&mut self, _: &mut Sim, ask: Ask) {
        if let Ask::Drop(index) = ask {
            self.databases[index].may_go = true;
        }
    }

    fn hear(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        answer: &Answer<Ask>,
    ) -> Result<(), Violation> {
        self.answers += 1;
        let Answer { asked: ask, response, .. } = answer;
        let options = &ground.options;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let body = match speech::hear(response)? {
            Ok(body) => body,
            Err(refused) => {
                return self.on_refusal(options, ask, refused.status, &refused.code, &text);
            }
        };
        match *ask {
            Ask::Create(index) | Ask::Find(index) => self.on_created(index, &body),
            Ask::Drop(index) => {
                let Owned { is_good, may_go, .. } = self.databases[index];
                self.databases[index] = Owned { is_good, may_go, ..Owned::default() };
            }
            Ask::Tables(index, _) => {
                let good = |result: &Value| result["type"] == "ok";
                let results = body["results"].as_array();
                let all = results.is_some_and(|results| results.iter().all(good));
                self.databases[index].has_tables = all;
            }
            Ask::Job(number, _) => {
                if let Some(asked) = self.asked.get_mut(&number) {
                    asked.2 = true;
                }
                self.learn(&body);
            }
            Ask::Order(..) | Ask::Show(_) => self.learn(&body),
            Ask::List => {
                for job in body["jobs"].as_array().into_iter().flatten() {
                    // In a list the script is left out: the job is shown next.
                    let id = job["id"].as_u64().unwrap_or(0);
                    self.jobs.entry(id).or_insert_with(|| Known { id, ..Known::default() });
                }
                self.listed = true;
            }
            Ask::Results(id, from) => self.on_results(id, from, &body)?,
            Ask::Read(index) | Ask::Look(index) => self.on_rows(options, ask, index, &body)?,
        }
        // Before she has her databases no job can run: she makes one after the other.
        let makes = matches!(ask, Ask::Create(_) | Ask::Find(_) | Ask::Tables(..));
        if makes && !self.ending && self.unmade().is_some() {
            return self.act(sim, ground);
        }
        Ok(())
    }
}

fn bytes_of(ask: &Ask) -> (&'static str, Vec<u8>) {
    let sql = |index: &usize, statements: &[&str]| {
        let mut requests: Vec<Value> =
            statements.iter().map(|sql| speech::execute(speech::plain(sql))).collect();
        requests.push(json!({ "type": "close" }));
        let body = json!({ "baton": null, "requests": requests }).to_string();
        let path = format!("/db/{}/v3/pipeline", database(*index));
        (LISTEN, request("POST", &path, "sim", &[], body.as_bytes()))
    };
    let admin = |method: &str, path: &str, body: Option<&Value>| {
        (ADMIN, speech::admin_with(method, path, body))
    };
    let namespace = |index: &usize| format!("/v1/namespaces/{}", database(*index));
    match ask {
        Ask::Create(index) => {
            admin("POST", &format!("{}/create", namespace(index)), Some(&json!({})))
        }
        Ask::Find(index) => admin("GET", &namespace(index), None),
        Ask::Drop(index) => admin("DELETE", &namespace(index), None),
        Ask::Tables(index, good) => {
            let all =
                ["CREATE TABLE IF NOT EXISTS runs(job)", "CREATE TABLE IF NOT EXISTS good(job)"];
            sql(index, if *good { &all } else { &all[..1] })
        }
        Ask::Job(_, body) => admin("POST", "/v1/jobs", Some(body)),
        Ask::Order(id, word) => admin("POST", &format!("/v1/jobs/{id}/{word}"), None),
        Ask::Read(index) | Ask::Look(index) => {
            sql(index, &["SELECT job, count(*) FROM runs GROUP BY job"])
        }
        Ask::List => admin("GET", "/v1/jobs?limit=1000", None),
        Ask::Show(id) => admin("GET", &format!("/v1/jobs/{id}"), None),
        Ask::Results(id, from) => {
            admin("GET", &format!("/v1/jobs/{id}/results?limit=1000&cursor={from}"), None)
        }
    }
}

impl World {
    /// JOB-1: the faults have ended; jobs come to rest, and each has run exactly once.
    pub(super) fn bring_jobs_to_rest(&mut self) -> Result<(), Violation> {
        if self.ground.options.jobs == 0 {
            return Ok(());
        }
        let fleet = &mut self.fleet;
        fleet.hurry(&mut self.io);
        (fleet.ending, fleet.listed) = (true, false);
        // An order whose answer is lost, or that is still on its way, may have set a job in motion again.
        for job in fleet.jobs.values_mut() {
            job.shown = Value::Null;
        }
        fleet.link.rest_for(&mut self.io, UNDER_WAY_NS);
        let next = |world: &World| {
            format!("jobs do not come to rest: {:?}", world.fleet.next_in_the_end())
        };
        self.go_on_until(REST_NS_MAX, |world| world.fleet.ended, next)
    }
}
