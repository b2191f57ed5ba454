//! Jobs without an engine: a small catalogue, databases that know their last mark, drawn ends and
//! crashes, and two jobs at a time on the same databases.

use std::collections::{BTreeMap, BTreeSet};

use tenant::jobs::{
    JobResult, JobState, Note, Order, Page, ResultStatus, Tally, Target, TargetState,
};
use tenant::limits::JOB_WINDOW_MAX;
use tenant::migration::Mark;
use tenant::{Cost, StatementError};

use super::*;

const DATABASES: usize = 700;

struct Draws(u64);

impl Draws {
    /// A number below `bound`: splitmix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Default)]
struct Database {
    mark: Mark,
    ran: BTreeMap<Mark, u32>,
}

struct World {
    draws: Draws,
    now: Instant,
    jobs: Jobs,
    rows: BTreeMap<JobId, JobRow>,
    results: BTreeMap<(JobId, u64), JobResult>,
    databases: Vec<Database>,
    asks: Vec<(RequestId, JobCall)>,
    runs: Vec<(RequestId, Box<Run>)>,
}

fn row(id: u64, options: &str) -> JobRow {
    JobRow {
        id: JobId(id),
        mark: Mark([id as u8; 16]),
        node: None,
        path: None,
        prefix: None,
        named: false,
        total: DATABASES as u64,
        script: Some(r#"{"sql":"SELECT 1"}"#.into()),
        options: options.into(),
        created_s: 0,
        ended_s: None,
        state: JobState::Running,
        reason: None,
        open: true,
        retries: false,
        was_cancelled: false,
        position: "".into(),
        canary_passed: false,
        forgiven: 0,
        tally: Tally::default(),
    }
}

impl World {
    fn new(seed: u64) -> World {
        let options =
            [r#"{"concurrency":16,"on_error":"pause","max_failures":20,"canary":9}"#, "{}"];
        let options = options[(seed % 2) as usize];
        let rows = (1..=2).map(|id| (JobId(id), row(id, options))).collect();
        let mut world = World {
            draws: Draws(seed),
            now: Instant(0),
            jobs: Jobs::default(),
            rows,
            results: BTreeMap::new(),
            databases: (0..DATABASES).map(|_| Database::default()).collect(),
            asks: Vec::new(),
            runs: Vec::new(),
        };
        world.jobs.start(world.now);
        world
    }

    fn turn(&mut self) {
        self.jobs.turn(self.now);
        while let Some(action) = self.jobs.next_action() {
            match action {
                Action::Ask(request, call) => self.asks.push((request, call)),
                Action::Run(request, run) => self.runs.push((request, run)),
                Action::Cancel(_) => unreachable!("nobody stops the server"),
            }
        }
    }

    /// What the catalogue makes of a call.
    fn carry_out(&mut self, call: &JobCall) -> JobReply {
        match call {
            JobCall::Open => {
                let open = self.rows.values().filter(|row| row.open);
                JobReply::Jobs(open.cloned().collect())
            }
            JobCall::Walk { id, after, limit } => JobReply::Page(self.walk(*id, after, *limit)),
            JobCall::Note(note) => self.note(note),
            _ => unreachable!("jobs do not ask for it"),
        }
    }

    fn walk(&self, id: JobId, after: &str, limit: usize) -> Page {
        let first = after.parse().map_or(0, |last: usize| last + 1);
        let from = self.rows[&id].tally.results.saturating_sub(2 * JOB_WINDOW_MAX as u64);
        let recent = self.results.range((id, from)..(id, u64::MAX));
        let known: BTreeSet<TenantId> = recent.map(|(_, result)| result.database).collect();
        let targets: Vec<Target> = (first..DATABASES)
            .take(limit)
            .map(|index| {
                let database = TenantId(index as u64 + 1);
                let is_known = known.contains(&database);
                let state = if is_known { TargetState::Known } else { TargetState::Live };
                let position: Box<str> = index.to_string().into();
                Target { id: database, name: position.clone(), state, number: None, position }
            })
            .collect();
        let position = targets.last().map_or(after.into(), |target| target.position.clone());
        Page { ended: targets.len() < limit, targets, position }
    }

    fn note(&mut self, note: &Note) -> JobReply {
        for result in &note.results {
            let before = self.results.insert((note.id, result.number), result.clone());
            assert!(before.is_none(), "a number is given once");
        }
        let row = self.rows.get_mut(&note.id).expect("it is there");
        row.position.clone_from(&note.position);
        row.tally = note.tally;
        row.canary_passed |= note.canary_passed;
        if let (Some((state, reason)), JobState::Running) = (&note.ends, row.state) {
            (row.state, row.reason) = (*state, reason.clone());
        }
        row.open &= !(note.closes && row.state != JobState::Running);
        JobReply::Job(Box::new(row.clone()))
    }

    /// What a run does to its database.
    fn run(&mut self, run: &Run) -> MigrationEnd {
        let index = run.database.0 as usize - 1;
        let database = &mut self.databases[index];
        let mark = run.work.script.mark;
        if database.mark == mark {
            return MigrationEnd::DoneBefore;
        }
        let error = StatementError::new("SQLITE_BUSY", "busy");
        if self.draws.below(200) == 0 {
            return MigrationEnd::Busy(error);
        }
        if run.work.errand == Errand::Look {
            return MigrationEnd::NotDone;
        }
        if index % 50 == 17 {
            return MigrationEnd::Failed { error, cost: Cost::default() };
        }
        database.mark = mark;
        let count = database.ran.entry(mark).or_default();
        *count += 1;
        assert_eq!(*count, 1, "job {mark:?} ran twice on {index}");
        MigrationEnd::Done { txid: 1, cost: Cost::default() }
    }

    fn step(&mut self, faults: bool) {
        self.turn();
        match self.draws.below(1000) {
            0..3 if faults => self.crash(),
            3..6 if faults => self.order(),
            6..300 if !self.asks.is_empty() => {
                let (request, call) = self.asks.remove(0);
                if faults && self.draws.below(20) == 0 {
                    return self.jobs.on_refused(request, &Refusal::LogFull, self.now);
                }
                let reply = self.carry_out(&call);
                self.jobs.on_reply(request, &reply, self.now);
            }
            _ if !self.runs.is_empty() => {
                let index = self.draws.below(self.runs.len() as u64) as usize;
                let (request, run) = self.runs.swap_remove(index);
                let end = self.run(&run);
                self.jobs.on_finished(request, end, self.now);
            }
            _ => self.now = self.now.after(50_000_000),
        }
    }

    /// What was under way may have happened or not, and nobody hears of it.
    fn crash(&mut self) {
        for (_, run) in std::mem::take(&mut self.runs) {
            if self.draws.below(2) == 0 {
                self.run(&run);
            }
        }
        for (_, call) in std::mem::take(&mut self.asks) {
            if self.draws.below(2) == 0 {
                self.carry_out(&call);
            }
        }
        self.jobs = Jobs::default();
        self.jobs.start(self.now);
    }

    /// Somebody pauses a job, or lets it go on.
    fn order(&mut self) {
        let id = JobId(1 + self.draws.below(2));
        let order = if self.draws.below(2) == 0 { Order::Pause } else { Order::Resume };
        self.give(id, order);
    }

    fn give(&mut self, id: JobId, order: Order) {
        // In the order of the calls, as the catalogue has it.
        for (request, call) in std::mem::take(&mut self.asks) {
            let reply = self.carry_out(&call);
            self.jobs.on_reply(request, &reply, self.now);
        }
        let row = self.rows.get_mut(&id).expect("it is there");
        match (order, row.state) {
            (Order::Pause, JobState::Running) => row.state = JobState::Paused,
            (Order::Resume, JobState::Paused) => {
                (row.state, row.open, row.forgiven) = (JobState::Running, true, row.tally.failed);
            }
            _ => {}
        }
        let row = row.clone();
        self.jobs.on_changed(&row);
    }

    fn judge(&self) {
        for (&id, row) in &self.rows {
            assert_eq!((row.state, row.open), (JobState::Completed, false));
            let of = self.results.range((id, 0)..(id, u64::MAX));
            let statuses: BTreeMap<TenantId, ResultStatus> =
                of.clone().map(|(_, result)| (result.database, result.status)).collect();
            assert_eq!((statuses.len(), of.count()), (DATABASES, DATABASES), "{id:?}");
            for (index, database) in self.databases.iter().enumerate() {
                let done = statuses[&TenantId(index as u64 + 1)] == ResultStatus::Done;
                assert_eq!(done, database.ran.contains_key(&row.mark), "{id:?} on {index}");
                assert_eq!(done, index % 50 != 17);
            }
            assert_eq!(row.tally.done + row.tally.failed, DATABASES as u64);
        }
    }
}

#[test]
fn two_jobs_run_exactly_once_whatever_happens() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        for _ in 0..3000 {
            world.step(true);
        }
        for step in 0.. {
            assert!(step < 500_000, "seed {seed}: the jobs do not end");
            world.step(false);
            let paused = world.rows.values().find(|row| row.state == JobState::Paused && !row.open);
            if let Some(id) = paused.map(|row| row.id) {
                world.give(id, Order::Resume);
            }
            if world.rows.values().all(|row| row.state == JobState::Completed && !row.open) {
                break;
            }
        }
        world.judge();
    }
}
