//! Fleet jobs in the catalogue: one migration for many databases, and what came of it on each.
//!
//! A job is a row of `jobs`: what to run, on which databases, and how far it is. What came of a database
//! is a row of `job_results`, its key the job and a number in the order of the ends: 30 bytes for one
//! that went well, written with others in one transaction. The row's *position* says up to where every
//! database of the walk has its result; of those behind it some have theirs already, never more than
//! [`limits::JOB_WINDOW_MAX`]. So whoever goes on after a crash walks from the position and leaves out
//! what the last results name.
//!
//! A job is *open* while there may be a database on which it has run and whose result is not here.
//! Databases whose ids are larger than the job's `last_id` came later and are not walked to.
//!
//! - `walk`: which databases are next. Rights are judged by the job's group or organisation (`guard`).

mod walk;

use storage::TenantId;
use storage::fiber::with_volume;
use storage::page::{MARK_BYTES, Mark};
use storage::sqlite::{SqliteError, Statement, ValueRef};

use super::nodes::{self, NodePath};
use super::rows::{NodeId, blob_at, integer_at, read, run, text_at, text_or_null};
use super::{Missing, Outcome, now_s};
use crate::budget::Unreadable;
use crate::limits;
use crate::session::PooledConnection;

pub use walk::{Page, Target, TargetState, missing_text};

/// A job's id; never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// The highest job id: with a result's number it is that one's key.
const JOB_ID_MAX: u64 = (1 << 31) - 1;

/// What may be asked of the catalogue about jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobCall {
    /// A new job. It runs as soon as somebody asks which are open.
    Create(Box<NewJob>),
    /// A job, with its script.
    Show(JobId),
    /// Up to `limit` jobs with ids before `before`, the newest first: of one organisation or group, or all.
    List {
        /// Whose, if not all.
        node: Option<NodePath>,
        /// Ids before this one.
        before: u64,
        /// At most so many.
        limit: usize,
    },
    /// Up to `limit` results with numbers from `from` on, in order.
    Results {
        /// Of which job.
        id: JobId,
        /// Only these.
        status: Option<ResultStatus>,
        /// Numbers from this one on.
        from: u64,
        /// At most so many.
        limit: usize,
    },
    /// What somebody wants of a job.
    Order(JobId, Order),
    /// Jobs that are open, with their scripts.
    Open,
    /// The next databases of a job.
    Walk {
        /// Of which job.
        id: JobId,
        /// Behind this position; empty for the first.
        after: Box<str>,
        /// At most so many.
        limit: usize,
    },
    /// What came of databases, and how far the job is.
    Note(Box<Note>),
    /// Remove some of the results of a job that is being deleted; with the last of them, the job.
    Erase(JobId),
}

/// What somebody may want of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin on no further database.
    Pause,
    /// Go on.
    Resume,
    /// End: those that have not begun are left alone.
    Cancel,
    /// Try those again that failed.
    Retry,
    /// Forget the job and its results.
    Delete,
}

/// A job that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Of which organisation or group its databases are; `None`: of all.
    pub node: Option<NodePath>,
    /// Which of them.
    pub targets: Targets,
    /// What to run, as whoever runs it has written it.
    pub script: Box<str>,
    /// How to run it, the same.
    pub options: Box<str>,
}

/// Which databases of its organisation or group a job is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// All.
    All,
    /// Those whose names begin so.
    Prefix(Box<str>),
    /// These.
    Names(Vec<Box<str>>),
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It goes from database to database.
    Running,
    /// It begins on no further one until somebody says so.
    Paused,
    /// It will not go on.
    Cancelled,
    /// It has been on all.
    Completed,
    /// It is being removed.
    Deleting,
}

impl JobState {
    const ALL: [JobState; 5] = [
        JobState::Running,
        JobState::Paused,
        JobState::Cancelled,
        JobState::Completed,
        JobState::Deleting,
    ];
}

/// How many databases it has done, and what that cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Numbers of results that are given.
    pub results: u64,
    /// Migrated.
    pub done: u64,
    /// Tried in vain.
    pub failed: u64,
    /// Left alone, because they were not there or damaged.
    pub skipped: u64,
    /// The cost of all, in parts of a million of a request unit.
    pub cost_micro: u64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// What its transactions leave in databases.
    pub mark: Mark,
    /// Its organisation or group; `None`: the machine.
    pub node: Option<NodeId>,
    /// The same by its present name, if it is there.
    pub path: Option<NodePath>,
    /// The beginning of names that it is for, if it is for such.
    pub prefix: Option<Box<str>>,
    /// It is for names that were listed.
    pub named: bool,
    /// Databases that it was for when it was made.
    pub total: u64,
    /// What to run; in lists it is left out.
    pub script: Option<Box<str>>,
    /// How.
    pub options: Box<str>,
    /// When it was made, in seconds since 1970.
    pub created_s: i64,
    /// When it ended.
    pub ended_s: Option<i64>,
    /// Where it is in its life.
    pub state: JobState,
    /// Why it is there, if that is not plain.
    pub reason: Option<Box<str>>,
    /// See the head of the file.
    pub open: bool,
    /// It goes through those that failed, not through all.
    pub retries: bool,
    /// It was cancelled before that: it will be so again, for it was not on all.
    pub was_cancelled: bool,
    /// See the head of the file.
    pub position: Box<str>,
    /// The pause after its first databases is behind it.
    pub canary_passed: bool,
    /// Failures up to when somebody let it go on.
    pub forgiven: u64,
    /// How far it is.
    pub tally: Tally,
}

/// What came of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResultStatus {
    /// It was migrated.
    Done,
    /// It was not: its transaction was rolled back.
    Failed,
    /// It was left alone.
    Skipped,
}

impl ResultStatus {
    /// All; a status's place is its number in the catalogue.
    pub const ALL: [ResultStatus; 3] =
        [ResultStatus::Done, ResultStatus::Failed, ResultStatus::Skipped];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ResultStatus::Done => "done",
            ResultStatus::Failed => "failed",
            ResultStatus::Skipped => "skipped",
        }
    }
}

/// A row of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobResult {
    /// Its number in the job.
    pub number: u64,
    /// The database; 0 if there never was one of that name.
    pub database: TenantId,
    /// What came of it.
    pub status: ResultStatus,
    /// The database's transaction. `None` with `Done`: known by its mark only, after a crash.
    pub txid: Option<u64>,
    /// What it cost, in parts of a million of a request unit.
    pub cost_micro: Option<u64>,
    /// Why not, for programs.
    pub code: Option<Box<str>>,
    /// Why not, for people.
    pub message: Option<Box<str>>,
    /// When it was noted, in seconds since 1970; what a note says of it is not looked at.
    pub at_s: i64,
    /// The database's present name; what a note says of it is not looked at.
    pub name: Option<Box<str>>,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which job.
    pub id: JobId,
    /// New results, or other ones for their numbers.
    pub results: Vec<JobResult>,
    /// Up to where every database of the walk has its result.
    pub position: Box<str>,
    /// With these results.
    pub tally: Tally,
    /// It pauses or ends, if nobody has said anything else meanwhile.
    pub ends: Option<(JobState, Option<Box<str>>)>,
    /// The pause after its first databases is behind it.
    pub canary_passed: bool,
    /// Nothing of it runs, and all results are here.
    pub closes: bool,
}

/// Why a job is not made, or not told what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobRefusal {
    /// Its organisation, group or the machine has so many, the limit.
    TooMany(u64),
    /// So many of the machine's are not at their end, the limit.
    TooManyActive(u64),
    /// It has ended.
    Ended,
    /// It runs, or something of it does.
    Running,
    /// None of its databases has failed.
    NothingFailed,
    /// There have been as many jobs as there may be.
    NoIds,
}

/// What is answered about jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobReply {
    /// A job; for what changes it, as it is now.
    Job(Box<JobRow>),
    /// Jobs.
    Jobs(Vec<JobRow>),
    /// Results of a job.
    Results(Vec<JobResult>),
    /// Databases that are next.
    Page(Page),
    /// So many results are left to remove, or more.
    Left(u64),
}

impl JobCall {
    /// Whether it may change the catalogue.
    pub(super) fn writes(&self) -> bool {
        use JobCall::{Create, Erase, Note, Order};
        matches!(self, Create(_) | Order(..) | Note(_) | Erase(_))
    }

    /// Pages that it may change.
    pub(super) fn pages(&self) -> u32 {
        match self {
            JobCall::Create(job) => {
                let names = match &job.targets {
                    Targets::Names(names) => names.iter().map(|name| name.len() + 1).sum(),
                    _ => 0,
                };
                let bytes = job.script.len() + job.options.len() + names;
                3 + pages_of(bytes)
            }
            JobCall::Note(note) => {
                let texts = note.results.iter().map(|result| {
                    let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
                    64 + text(&result.code) + text(&result.message)
                });
                4 + pages_of(texts.sum())
            }
            JobCall::Order(..) => 3,
            JobCall::Erase(_) => 4 + pages_of(limits::JOB_ERASE_RESULTS * 32),
            _ => 0,
        }
    }
}

fn pages_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(storage::page::USABLE_BYTES)).unwrap_or(u32::MAX)
}

/// Key of a result.
fn result_key(id: JobId, number: u64) -> i64 {
    assert!(id.0 <= JOB_ID_MAX && number < 1 << 32);
    (id.0 << 32 | number) as i64
}

fn number(value: u64) -> ValueRef<'static> {
    ValueRef::Integer(value as i64)
}

fn optional(value: Option<u64>) -> ValueRef<'static> {
    value.map_or(ValueRef::Null, number)
}

/// The columns of [`job_at`], the script, and which rows of them.
macro_rules! select_jobs {
    ($script:literal, $rows:literal) => {
        concat!(
            "SELECT j.id, j.mark, j.node_id, n.name, o.name, j.kind, ",
            "CASE j.kind WHEN 1 THEN j.which END, j.total, j.options, j.created_s, j.ended_s, ",
            "j.state, j.reason, j.open, j.retries, j.position, j.canary_passed, j.forgiven, ",
            "j.results, j.done, j.failed, j.skipped, j.cost, ",
            $script,
            " FROM jobs j LEFT JOIN nodes n ON n.id = j.node_id ",
            "LEFT JOIN nodes o ON o.id = n.parent ",
            $rows
        )
    };
}

fn job_at(row: &Statement) -> Result<JobRow, Unreadable> {
    let text = |index| text_at(row, index).map(String::into_boxed_str);
    let count = |index| integer_at(row, index) as u64;
    let is_null = |index| matches!(row.column(index), Ok(ValueRef::Null));
    let path = text(3).map(|own| match text(4) {
        Some(organisation) => NodePath { organisation, group: Some(own) },
        None => NodePath { organisation: own, group: None },
    });
    let mark: [u8; MARK_BYTES] = blob_at(row, 1).ok_or("mark")?;
    Ok(JobRow {
        id: JobId(count(0)),
        mark: Mark(mark),
        node: (!is_null(2)).then(|| NodeId(count(2))),
        path,
        named: integer_at(row, 5) == 2,
        prefix: text(6),
        total: count(7),
        options: text(8).unwrap_or_default(),
        created_s: integer_at(row, 9),
        ended_s: (!is_null(10)).then(|| integer_at(row, 10)),
        state: *JobState::ALL.get(count(11) as usize).ok_or("state")?,
        reason: text(12),
        open: count(13) != 0,
        retries: count(14) != 0,
        was_cancelled: count(14) == 2,
        position: text(15).unwrap_or_default(),
        canary_passed: count(16) != 0,
        forgiven: count(17),
        tally: Tally {
            results: count(18),
            done: count(19),
            failed: count(20),
            skipped: count(21),
            cost_micro: count(22),
        },
        script: text(23),
    })
}

/// A job by its id; one that is being deleted is not there any more for anybody but who deletes it.
pub(super) fn find(
    pooled: &mut PooledConnection,
    id: JobId,
) -> Result<Option<JobRow>, SqliteError> {
    let sql = select_jobs!("j.script", "WHERE j.id = ?1");
    Ok(read(pooled, sql, &[number(id.0)], job_at)?.pop())
}

const MISSING: Outcome = Outcome::Missing(Missing::Job);

fn shown(row: Option<JobRow>) -> Outcome {
    let row = row.filter(|row| row.state != JobState::Deleting);
    row.map_or(MISSING, |row| Outcome::Job(JobReply::Job(Box::new(row))))
}

/// Carry out a call.
pub(super) fn carry_out(
    pooled: &mut PooledConnection,
    call: &JobCall,
) -> Result<Outcome, SqliteError> {
    match call {
        JobCall::Create(job) => create(pooled, job),
        JobCall::Show(id) => Ok(shown(find(pooled, *id)?)),
        JobCall::List { node, before, limit } => list(pooled, node.as_ref(), *before, *limit),
        JobCall::Results { id, status, from, limit } => {
            if find(pooled, *id)?.is_none_or(|row| row.state == JobState::Deleting) {
                return Ok(MISSING);
            }
            results(pooled, *id, *status, *from, *limit)
        }
        JobCall::Order(id, order) => give(pooled, *id, *order),
        JobCall::Open => {
            let sql = select_jobs!("j.script", "WHERE j.open = 1 ORDER BY j.id");
            Ok(Outcome::Job(JobReply::Jobs(read(pooled, sql, &[], job_at)?)))
        }
        JobCall::Walk { id, after, limit } => match find(pooled, *id)? {
            Some(row) => walk::walk(pooled, &row, after, *limit),
            None => Ok(MISSING),
        },
        JobCall::Note(note) => take(pooled, note),
        JobCall::Erase(id) => erase(pooled, *id),
    }
}

fn create(pooled: &mut PooledConnection, job: &NewJob) -> Result<Outcome, SqliteError> {
    let node = match &job.node {
        Some(path) => match nodes::find_path(pooled, path)? {
            Ok(found) => found.first().map(|node| node.id),
            Err(missing) => return Ok(Outcome::Missing(missing)),
        },
        None => None,
    };
    let count = |pooled: &mut PooledConnection, sql: &str, arguments: &[ValueRef<'_>]| {
        let rows = read(pooled, sql, arguments, |row| Ok(integer_at(row, 0) as u64));
        rows.map(|rows| rows.first().copied().unwrap_or(0))
    };
    let node_id = optional(node.map(|node| node.0));
    let own = count(pooled, "SELECT count(*) FROM jobs WHERE node_id IS ?1", &[node_id])?;
    if own >= limits::JOBS_MAX {
        return Ok(Outcome::JobRefused(JobRefusal::TooMany(own)));
    }
    let active = count(pooled, "SELECT count(*) FROM jobs WHERE open = 1", &[])?;
    if active >= limits::JOBS_ACTIVE_MAX {
        return Ok(Outcome::JobRefused(JobRefusal::TooManyActive(active)));
    }
    let last_id = count(pooled, "SELECT seq FROM sqlite_sequence WHERE name = 'databases'", &[])?;
    let (kind, which) = match &job.targets {
        Targets::All => (0, None),
        Targets::Prefix(prefix) => (1, Some(prefix.to_string())),
        Targets::Names(names) => (2, Some(names.join("\n"))),
    };
    let total = match &job.targets {
        Targets::Names(names) => names.len() as u64,
        _ => walk::count(pooled, node, which.as_deref().unwrap_or(""))?,
    };
    let mut mark = [0; MARK_BYTES];
    with_volume(|volume| volume.random(&mut mark));
    let sql = "INSERT INTO jobs(mark, node_id, kind, which, last_id, total, script, options, created_s, \
               state, open, retries, position, canary_passed, forgiven, results, done, failed, skipped, \
               cost) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, 1, 0, '', 0, 0, 0, 0, 0, 0, 0)";
    let arguments = [
        ValueRef::Blob(&mark),
        node_id,
        ValueRef::Integer(kind),
        text_or_null(which.as_deref()),
        number(last_id),
        number(total),
        ValueRef::Text(job.script.as_bytes()),
        ValueRef::Text(job.options.as_bytes()),
        ValueRef::Integer(now_s()),
    ];
    run(pooled, sql, &arguments)?;
    let id = JobId(pooled.connection().last_insert_rowid() as u64);
    if id.0 > JOB_ID_MAX {
        run(pooled, "DELETE FROM jobs WHERE id = ?1", &[number(id.0)])?;
        return Ok(Outcome::JobRefused(JobRefusal::NoIds));
    }
    Ok(shown(find(pooled, id)?))
}

fn list(
    pooled: &mut PooledConnection,
    node: Option<&NodePath>,
    before: u64,
    limit: usize,
) -> Result<Outcome, SqliteError> {
    let before = number(before.min(i64::MAX as u64));
    let rows = match node {
        None => {
            let sql = select_jobs!(
                "NULL",
                "WHERE j.id < ?1 AND j.state <> 4 ORDER BY j.id DESC LIMIT ?2"
            );
            read(pooled, sql, &[before, number(limit as u64)], job_at)?
        }
        Some(path) => {
            let found = match nodes::find_path(pooled, path)? {
                Ok(found) => found,
                Err(missing) => return Ok(Outcome::Missing(missing)),
            };
            let node = found.first().map_or(0, |node| node.id.0);
            let sql = select_jobs!(
                "NULL",
                "WHERE j.id < ?1 AND j.state <> 4 AND (j.node_id = ?3 OR n.parent = ?3) \
                 ORDER BY j.id DESC LIMIT ?2"
            );
            read(pooled, sql, &[before, number(limit as u64), number(node)], job_at)?
        }
    };
    Ok(Outcome::Job(JobReply::Jobs(rows)))
}

fn result_at(row: &Statement) -> Result<JobResult, Unreadable> {
    let text = |index| text_at(row, index).map(String::into_boxed_str);
    let count = |index| match row.column(index) {
        Ok(ValueRef::Integer(value)) => Some(value as u64),
        _ => None,
    };
    let status = ResultStatus::ALL.get(integer_at(row, 2) as usize);
    Ok(JobResult {
        number: integer_at(row, 0) as u64 & u64::from(u32::MAX),
        database: TenantId(integer_at(row, 1) as u64),
        status: *status.ok_or("status")?,
        at_s: integer_at(row, 3),
        txid: count(4),
        cost_micro: count(5),
        code: text(6),
        message: text(7),
        name: text(8),
    })
}

fn results(
    pooled: &mut PooledConnection,
    id: JobId,
    status: Option<ResultStatus>,
    from: u64,
    limit: usize,
) -> Result<Outcome, SqliteError> {
    macro_rules! select {
        ($index:literal, $condition:literal) => {
            concat!(
                "SELECT r.id, r.database, r.status, r.at_s, r.txid, r.cost, r.code, r.message, d.name ",
                "FROM job_results r ",
                $index,
                " LEFT JOIN databases d ON d.id = r.database ",
                "WHERE r.id >= ?1 AND r.id <= ?2 ",
                $condition,
                " ORDER BY r.id LIMIT ?3"
            )
        };
    }
    // Failures have an index of their own; of the others there are few, or most are wanted.
    let sql = match status {
        None => select!("", ""),
        Some(ResultStatus::Done) => select!("", "AND r.status = 0"),
        Some(ResultStatus::Failed) => select!("INDEXED BY job_failures", "AND r.status = 1"),
        Some(ResultStatus::Skipped) => select!("", "AND r.status = 2"),
    };
    let last = u64::from(u32::MAX);
    let arguments = [
        ValueRef::Integer(result_key(id, from.min(last))),
        ValueRef::Integer(result_key(id, last)),
        number(limit as u64),
    ];
    Ok(Outcome::Job(JobReply::Results(read(pooled, sql, &arguments, result_at)?)))
}

/// Carry out an order, if the job is where it can be.
fn give(pooled: &mut PooledConnection, id: JobId, order: Order) -> Result<Outcome, SqliteError> {
    let Some(row) = find(pooled, id)?.filter(|row| row.state != JobState::Deleting) else {
        return Ok(MISSING);
    };
    let ended = matches!(row.state, JobState::Cancelled | JobState::Completed);
    let refused = match order {
        Order::Pause | Order::Resume | Order::Cancel if ended => Some(JobRefusal::Ended),
        Order::Retry if !ended || row.open => Some(JobRefusal::Running),
        Order::Retry if row.tally.failed == 0 => Some(JobRefusal::NothingFailed),
        Order::Delete if row.open || row.state == JobState::Running => Some(JobRefusal::Running),
        _ => None,
    };
    if let Some(refusal) = refused {
        return Ok(Outcome::JobRefused(refusal));
    }
    let arguments = [number(id.0), ValueRef::Integer(now_s())];
    let (sql, count) = match order {
        Order::Pause => {
            ("UPDATE jobs SET state = 1, reason = 'asked' WHERE id = ?1 AND state = 0", 1)
        }
        Order::Resume => {
            let sql = "UPDATE jobs SET state = 0, reason = NULL, open = 1, forgiven = failed \
                       WHERE id = ?1 AND state = 1";
            (sql, 1)
        }
        Order::Cancel => {
            let sql = "UPDATE jobs SET state = 2, reason = 'asked', ended_s = ?2 WHERE id = ?1";
            (sql, 2)
        }
        Order::Retry => {
            let sql = "UPDATE jobs SET state = 0, reason = NULL, ended_s = NULL, open = 1, \
                       retries = CASE state WHEN 2 THEN 2 ELSE 1 END, position = '', forgiven = failed WHERE id = ?1";
            (sql, 1)
        }
        Order::Delete => ("UPDATE jobs SET state = 4, open = 1 WHERE id = ?1", 1),
    };
    run(pooled, sql, &arguments[..count])?;
    let row = find(pooled, id)?;
    Ok(row.map_or(MISSING, |row| Outcome::Job(JobReply::Job(Box::new(row)))))
}

fn take(pooled: &mut PooledConnection, note: &Note) -> Result<Outcome, SqliteError> {
    let at_s = now_s();
    for result in &note.results {
        let sql = "INSERT OR REPLACE INTO job_results(id, database, status, at_s, txid, cost, code, \
                   message) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let arguments = [
            ValueRef::Integer(result_key(note.id, result.number)),
            number(result.database.0),
            ValueRef::Integer(result.status as i64),
            ValueRef::Integer(at_s),
            optional(result.txid),
            optional(result.cost_micro),
            text_or_null(result.code.as_deref()),
            text_or_null(result.message.as_deref()),
        ];
        run(pooled, sql, &arguments)?;
    }
    let sql = "UPDATE jobs SET position = ?2, results = ?3, done = ?4, failed = ?5, skipped = ?6, \
               cost = ?7, canary_passed = canary_passed OR ?8 WHERE id = ?1";
    let Tally { results, done, failed, skipped, cost_micro } = note.tally;
    let arguments = [
        number(note.id.0),
        ValueRef::Text(note.position.as_bytes()),
        number(results),
        number(done),
        number(failed),
        number(skipped),
        number(cost_micro),
        ValueRef::Integer(i64::from(note.canary_passed)),
    ];
    run(pooled, sql, &arguments)?;
    if let Some((state, reason)) = &note.ends {
        let ended_s =
            if *state == JobState::Paused { ValueRef::Null } else { ValueRef::Integer(at_s) };
        let sql =
            "UPDATE jobs SET state = ?2, reason = ?3, ended_s = ?4 WHERE id = ?1 AND state = 0";
        let state = ValueRef::Integer(*state as i64);
        run(pooled, sql, &[number(note.id.0), state, text_or_null(reason.as_deref()), ended_s])?;
    }
    if note.closes {
        // Somebody may have let it go on meanwhile.
        let sql = "UPDATE jobs SET open = 0 WHERE id = ?1 AND state IN (1, 2, 3)";
        run(pooled, sql, &[number(note.id.0)])?;
    }
    let row = find(pooled, note.id)?;
    Ok(row.map_or(MISSING, |row| Outcome::Job(JobReply::Job(Box::new(row)))))
}

fn erase(pooled: &mut PooledConnection, id: JobId) -> Result<Outcome, SqliteError> {
    let (first, last) = (result_key(id, 0), result_key(id, u64::from(u32::MAX)));
    let step = limits::JOB_ERASE_RESULTS as u64;
    let sql = "DELETE FROM job_results WHERE id IN \
               (SELECT id FROM job_results WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3)";
    let (first, last) = (ValueRef::Integer(first), ValueRef::Integer(last));
    run(pooled, sql, &[first, last, number(step)])?;
    let gone = pooled.connection().changes();
    if gone < step {
        run(pooled, "DELETE FROM jobs WHERE id = ?1 AND state = 4", &[number(id.0)])?;
    }
    Ok(Outcome::Job(JobReply::Left(if gone < step { 0 } else { 1 })))
}
