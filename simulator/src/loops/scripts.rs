//! The scripts: short lives of a server, each about one thing that can be interrupted.
//!
//! A script does not look at how an answer came out, unless its next step needs it: whatever a fault
//! makes of a request, the model knows, and the script goes on as a client would.

use serde_json::json;

use super::caller::{Caller, Heard};
use crate::disk::CrashMode;
use crate::machine::{Door, Stop};
use crate::world::client::AdminCall;
use crate::world::speech::ReadForm;

/// A second.
const SECOND_NS: u64 = 1_000_000_000;

/// Words of padding with which a row fills about a page.
const PAGE_WORDS: u64 = 450;

/// Tenants of a machine.
pub const TENANTS: usize = 6;

type Step = Result<(), Stop>;

/// See the head of the file.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Its name in tables and commands.
    pub name: &'static str,
    /// What is done before faults begin.
    pub prepare: fn(&mut Caller) -> Step,
    /// What they interrupt.
    pub run: fn(&mut Caller) -> Step,
}

/// All of them.
pub const SCRIPTS: &[Script] = &[
    Script { name: "first-start", prepare: nothing, run: Caller::start },
    Script { name: "create", prepare: Caller::start, run: create },
    Script { name: "insert", prepare: one_tenant, run: insert },
    Script { name: "big-rollback", prepare: one_tenant, run: big_rollback },
    Script { name: "batch", prepare: one_tenant, run: batch },
    Script { name: "cursor", prepare: one_tenant, run: cursor },
    Script { name: "delete", prepare: one_tenant, run: delete },
    Script { name: "interactive", prepare: one_tenant, run: interactive },
    Script { name: "abandoned", prepare: one_tenant, run: abandoned },
    Script { name: "two-writers", prepare: one_tenant, run: two_writers },
    Script { name: "pipelined", prepare: two_tenants, run: pipelined },
    Script { name: "many-tenants", prepare: all_tenants, run: many_tenants },
    Script { name: "schema", prepare: one_tenant, run: schema },
    Script { name: "spill", prepare: one_tenant, run: spill },
    Script { name: "checkpoint", prepare: one_tenant, run: checkpoint },
    Script { name: "log-wrap", prepare: two_tenants, run: log_wrap },
    Script { name: "evict", prepare: two_tenants, run: evict },
    Script { name: "drop", prepare: checkpointed, run: drop_once },
    Script { name: "drop-create", prepare: checkpointed, run: drop_create },
    Script { name: "crash", prepare: two_tenants, run: crash },
    Script { name: "stop-start", prepare: two_tenants, run: stop_start },
    Script { name: "nonsense", prepare: one_tenant, run: nonsense },
    Script { name: "admin", prepare: two_tenants, run: admin },
    Script { name: "budgets", prepare: two_tenants, run: budgets },
];

fn nothing(_: &mut Caller) -> Step {
    Ok(())
}

fn tenants(caller: &mut Caller, count: usize) -> Step {
    caller.start()?;
    for tenant in 0..count {
        caller.admin(AdminCall::Create(tenant))?;
        caller.setup(tenant)?;
        caller.write(tenant, 3, 40)?;
    }
    Ok(())
}

fn one_tenant(caller: &mut Caller) -> Step {
    tenants(caller, 1)
}

fn two_tenants(caller: &mut Caller) -> Step {
    tenants(caller, 2)
}

fn all_tenants(caller: &mut Caller) -> Step {
    tenants(caller, TENANTS)
}

/// Two tenants with files, from a life before.
fn checkpointed(caller: &mut Caller) -> Step {
    two_tenants(caller)?;
    caller.stop()?;
    caller.start()
}

fn create(caller: &mut Caller) -> Step {
    caller.admin(AdminCall::Create(0))?;
    caller.setup(0)?;
    caller.write(0, 2, 20)?;
    caller.read(0)?;
    Ok(())
}

fn insert(caller: &mut Caller) -> Step {
    for rows in [1, 5, 30] {
        caller.write(0, rows, 60)?;
    }
    caller.read_as(0, ReadForm::Rows)?;
    Ok(())
}

/// Half a megabyte is written and taken back, once by the client and once by its silence.
fn big_rollback(caller: &mut Caller) -> Step {
    let Some(mut session) = caller.begin(0, 0, 1_000)? else { return Ok(()) };
    for _ in 0..5 {
        caller.insert(&mut session, 200)?;
    }
    caller.roll_back(session)?;
    caller.read(0)?;
    caller.write(0, 2, 20)?;
    Ok(())
}

fn batch(caller: &mut Caller) -> Step {
    caller.batch(0, true, false)?;
    caller.batch(0, false, false)?;
    caller.read(0)?;
    Ok(())
}

fn cursor(caller: &mut Caller) -> Step {
    caller.batch(0, true, true)?;
    caller.write(0, 60, PAGE_WORDS)?;
    caller.read_as(0, ReadForm::Cursor)?;
    Ok(())
}

fn delete(caller: &mut Caller) -> Step {
    caller.write(0, 20, PAGE_WORDS)?;
    caller.delete(0)?;
    caller.delete(0)?;
    caller.read(0)?;
    Ok(())
}

fn interactive(caller: &mut Caller) -> Step {
    for commits in [true, false] {
        let Some(mut session) = caller.begin(0, 0, 12)? else { continue };
        caller.insert(&mut session, 4)?;
        caller.peek(&mut session)?;
        caller.insert(&mut session, 8)?;
        match commits {
            true => caller.commit(session)?,
            false => caller.roll_back(session)?,
        };
    }
    caller.read(0)?;
    Ok(())
}

/// A transaction whose client is gone; the next writer waits for the lock and gets it.
fn abandoned(caller: &mut Caller) -> Step {
    for resets in [true, false] {
        if let Some(mut session) = caller.begin(1, 0, 30)? {
            caller.insert(&mut session, 10)?;
        }
        match resets {
            true => caller.reset(1),
            false => caller.hang_up(1),
        }
        caller.write(0, 2, 20)?;
    }
    caller.pass(15 * SECOND_NS)?;
    caller.read(0)?;
    Ok(())
}

/// One holds the lock and two wait for it; one of them goes away while it waits.
fn two_writers(caller: &mut Caller) -> Step {
    let session = caller.begin(1, 0, 5)?;
    caller.send_write(2, 0, 3, 20);
    caller.send_write(3, 0, 4, 20);
    caller.pass(SECOND_NS)?;
    caller.reset(3);
    if let Some(mut session) = session {
        caller.insert(&mut session, 5)?;
        caller.commit(session)?;
    }
    caller.hear(2)?;
    caller.read(0)?;
    Ok(())
}

fn pipelined(caller: &mut Caller) -> Step {
    caller.send_write(0, 0, 2, 20);
    caller.send_read(0, 0, ReadForm::Rows);
    caller.send_write(0, 1, 3, 20);
    caller.send_read(0, 0, ReadForm::Cursor);
    caller.send_read(0, 1, ReadForm::Marks);
    for _ in 0..5 {
        if matches!(caller.hear(0)?, Heard::Lost) {
            break;
        }
    }
    Ok(())
}

/// Commits of six tenants share a write of the log, twice.
fn many_tenants(caller: &mut Caller) -> Step {
    for rows in [2, 9] {
        for tenant in 0..TENANTS {
            caller.send_write(tenant, tenant, rows, 30);
        }
        for tenant in 0..TENANTS {
            caller.hear(tenant)?;
        }
    }
    for tenant in 0..TENANTS {
        caller.read(tenant)?;
    }
    Ok(())
}

fn schema(caller: &mut Caller) -> Step {
    for sql in [
        "CREATE INDEX IF NOT EXISTS pads ON rows(pad)",
        "ALTER TABLE rows ADD COLUMN extra DEFAULT 7",
        "CREATE TABLE other(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO other VALUES (1, 2)",
        "DROP INDEX pads",
        "DROP TABLE other",
    ] {
        caller.sequence(0, sql)?;
        caller.write(0, 2, 20)?;
    }
    caller.read(0)?;
    Ok(())
}

/// A transaction of more than the WAL keeps in memory, so that its end is in a temporary file, and a
/// sort of more than SQLite keeps there.
fn spill(caller: &mut Caller) -> Step {
    if let Some(mut session) = caller.begin(0, 0, 6_000)? {
        for _ in 0..6 {
            caller.insert(&mut session, 1_000)?;
        }
        caller.peek(&mut session)?;
        caller.roll_back(session)?;
    }
    caller.write(0, 150, PAGE_WORDS)?;
    caller.sequence(0, "CREATE INDEX pads ON rows(pad); DROP INDEX pads")?;
    caller.read(0)?;
    Ok(())
}

/// Past the bytes of WAL after which a tenant is checkpointed, and a writer meanwhile.
fn checkpoint(caller: &mut Caller) -> Step {
    for _ in 0..3 {
        caller.write(0, 300, PAGE_WORDS)?;
    }
    caller.write(0, 3, 20)?;
    caller.pass(3 * SECOND_NS)?;
    caller.read(0)?;
    caller.write(0, 3, 20)?;
    Ok(())
}

/// More than the log holds: space is freed by checkpoints, segments are written again.
fn log_wrap(caller: &mut Caller) -> Step {
    for round in 0..9 {
        caller.write(round % 2, 200, PAGE_WORDS)?;
    }
    caller.pass(3 * SECOND_NS)?;
    caller.read(0)?;
    caller.read(1)?;
    Ok(())
}

/// Nobody asks for a tenant for so long that it is checkpointed and closed; then it is opened again.
fn evict(caller: &mut Caller) -> Step {
    caller.write(0, 40, PAGE_WORDS)?;
    caller.pass(75 * SECOND_NS)?;
    caller.read(0)?;
    caller.write(1, 4, 20)?;
    caller.pass(75 * SECOND_NS)?;
    caller.write(0, 4, 20)?;
    caller.read(1)?;
    Ok(())
}

fn drop_once(caller: &mut Caller) -> Step {
    caller.write(0, 4, 20)?;
    caller.admin(AdminCall::Drop(0))?;
    caller.admin(AdminCall::Show(0))?;
    caller.read(0)?;
    caller.admin(AdminCall::Drop(1))?;
    caller.pass(SECOND_NS)?;
    Ok(())
}

/// A database that is dropped and created again is empty, also after the next start.
fn drop_create(caller: &mut Caller) -> Step {
    caller.admin(AdminCall::Drop(0))?;
    caller.admin(AdminCall::Create(0))?;
    caller.read(0)?;
    caller.setup(0)?;
    caller.write(0, 5, 20)?;
    caller.pass(SECOND_NS)?;
    caller.read(0)?;
    Ok(())
}

/// The process is killed, then the machine loses its power; each time it starts again.
fn crash(caller: &mut Caller) -> Step {
    for mode in [CrashMode::Kill, CrashMode::PowerSectors] {
        caller.write(0, 60, PAGE_WORDS)?;
        caller.write(1, 3, 20)?;
        caller.crash(mode)?;
        caller.start()?;
        caller.read(0)?;
        caller.read(1)?;
    }
    caller.write(0, 3, 20)?;
    Ok(())
}

fn stop_start(caller: &mut Caller) -> Step {
    caller.write(0, 60, PAGE_WORDS)?;
    caller.stop()?;
    caller.start()?;
    caller.read(0)?;
    caller.write(1, 3, 20)?;
    caller.read(1)?;
    Ok(())
}

/// What is no request, or none that can be met, between requests that can.
fn nonsense(caller: &mut Caller) -> Step {
    let long = format!("GET /{} HTTP/1.1\r\nHost: sim\r\n\r\n", "a".repeat(20_000));
    let body = b"POST /db/tenant-0/v3/pipeline HTTP/1.1\r\nHost: sim\r\nContent-Length: 9\r\n\r\n{\"requ\":[";
    for bytes in [
        b"GET /nowhere HTTP/1.1\r\nHost: sim\r\n\r\n".as_slice(),
        b"BREW /db/tenant-0/v3/pipeline HTTP/1.1\r\nHost: sim\r\n\r\n",
        b"nonsense\r\n\r\n",
        body,
        long.as_bytes(),
    ] {
        caller.nonsense(Door::Public, bytes)?;
        caller.nonsense(Door::Admin, bytes)?;
    }
    caller.write(0, 2, 20)?;
    Ok(())
}

fn admin(caller: &mut Caller) -> Step {
    caller.admin(AdminCall::List)?;
    caller.admin(AdminCall::Create(2))?;
    caller.admin(AdminCall::Create(0))?;
    caller.admin(AdminCall::Show(1))?;
    caller.admin(AdminCall::Show(3))?;
    caller.admin(AdminCall::Drop(1))?;
    caller.admin(AdminCall::Metrics)?;
    caller.admin(AdminCall::List)?;
    Ok(())
}

/// A tree of budgets, a tenant that moves in it while it is open, and one whose use is written when
/// it closes without a checkpoint.
fn budgets(caller: &mut Caller) -> Step {
    caller.plant_budgets()?;
    caller.write(0, 4, 20)?;
    let out = json!({ "group": null, "budget": null });
    let shows = json!({ "group": null, "plan": "free", "budget": {} });
    caller.put_budget("/v1/namespaces/tenant-0/budget", &out, shows)?;
    caller.write(0, 4, 20)?;
    caller.read(1)?;
    caller.pass(75 * SECOND_NS)?;
    caller.plant_budgets()?;
    Ok(())
}
