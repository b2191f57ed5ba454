//! SQLite on a fiber over a volume, with a loop of a few lines instead of the engine: files are
//! vectors, the log accepts everything at once.

#[path = "vfs/memory.rs"]
mod memory;
#[path = "vfs/search.rs"]
mod search;

use std::collections::BTreeMap;

use storage::TenantId;
use storage::allocator::{self, Failing, fail_allocations};
use storage::fiber::{Answer, Fiber, Input, Loan, StackPool, Step, Wait, with_volume};
use storage::io::{Clock, FileId, Instant, WallTime};
use storage::ledger::{self, AccountId, Kind};
use storage::log::Sequence;
use storage::sqlite::{self, CheckpointMode, Connection, ValueRef};
use storage::vfs;
use storage::volume::{Volume, VolumeOptions};

struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant(0)
    }
    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

#[derive(Default)]
struct World {
    files: BTreeMap<u32, Vec<u8>>,
    main: Option<u32>,
    next: u32,
    sealed: u64,
    log_is_full: bool,
    /// Turns given up, and the one after which the statement is interrupted.
    turns: u64,
    last_turn: Option<u64>,
    stacks: StackPool,
}

impl World {
    fn file(&mut self) -> (u32, FileId) {
        self.next += 1;
        self.files.insert(self.next, Vec::new());
        (self.next, FileId { index: self.next, generation: 0 })
    }

    fn answer(&mut self, volume: &mut Volume, wait: Wait) -> Answer {
        match wait {
            Wait::LogSpace { .. } if self.log_is_full => Answer::Full,
            Wait::Turn => {
                self.turns += 1;
                Answer::Ready
            }
            Wait::Sync(_) | Wait::LogSpace { .. } | Wait::Durable => Answer::Ready,
            Wait::Writer(_) => Answer::TimedOut,
            Wait::OpenTemporary => Answer::Opened(self.file().1, 0),
            Wait::OpenMain { .. } => {
                let index = *self.main.get_or_insert_with(|| {
                    self.next += 1;
                    self.files.insert(self.next, Vec::new());
                    self.next
                });
                let size = self.files[&index].len() as u64;
                Answer::Opened(FileId { index, generation: 0 }, size)
            }
            Wait::Read { file, offset, mut buffer } => {
                let bytes = &self.files[&file.index];
                let start = (offset as usize).min(bytes.len());
                let length = buffer.len().min(bytes.len() - start);
                buffer[..length].copy_from_slice(&bytes[start..start + length]);
                Answer::Moved(buffer, length)
            }
            Wait::Write { file, offset, buffer } => {
                let bytes = self.files.get_mut(&file.index).expect("an open file");
                let end = offset as usize + buffer.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[offset as usize..end].copy_from_slice(&buffer);
                let length = buffer.len();
                Answer::Moved(buffer, length)
            }
            Wait::Truncate(file, size) => {
                self.files.get_mut(&file.index).expect("an open file").truncate(size as usize);
                Answer::Ready
            }
            Wait::Seal => {
                let reserved = volume.reserved_pages.take();
                let sealing = volume.sealing.as_mut().expect("something is being sealed");
                if sealing.next == 0 && reserved.is_some() {
                    assert_eq!(reserved, Some(sealing.pages.len() as u32), "reserved, sealed");
                }
                while sealing.next < sealing.pages.len() {
                    let (_, frame) = sealing.pages[sealing.next];
                    let offset = Volume::frame_page_offset(frame);
                    let spilled =
                        matches!(volume.wal.locate(offset, 4096), storage::extent::Place::File(..));
                    if spilled && sealing.brought.take().is_none() {
                        return Answer::Bring(frame);
                    }
                    sealing.next += 1;
                }
                sealing.first_sequence = Some(Sequence(self.sealed + 1));
                self.sealed += 1;
                volume.end_sealing(Sequence(self.sealed));
                Answer::Ready
            }
            Wait::ReadLog(_) => panic!("nothing was recovered"),
        }
    }

    fn run<R: 'static>(&mut self, volume: &mut Volume, body: impl FnOnce() -> R + 'static) -> R {
        sqlite::initialise();
        let stack = self.stacks.take().expect("memory for a stack");
        let mut fiber: Fiber<(), (), R> = Fiber::new(stack, move |_| body());
        let mut input = Input::Start;
        loop {
            let slice_ends = Instant(u64::MAX);
            let interrupt = self.last_turn.is_some_and(|last| self.turns >= last);
            let loan = Loan { volume, clock: &Still, quantum_steps: 10_000, slice_ends, interrupt };
            match fiber.resume(loan, input).0 {
                Step::Waits(wait) => input = Input::Answer(self.answer(volume, wait)),
                Step::Asks(()) => input = Input::Host(()),
                Step::Ends(value) => {
                    self.stacks.give(fiber.into_stack());
                    return value;
                }
            }
        }
    }
}

fn volume(file_exists: bool, stamp_min: u64) -> Volume {
    Volume::open(VolumeOptions {
        tenant: TenantId(5),
        memory_limit: 16 << 20,
        temporary_limit: 512 << 20,
        parent: None,
        file_exists,
        stamp_min,
        last_txid: stamp_min,
        recovered: None,
        memory: false,
        seed: [1; 32],
        nonce: 0,
    })
    .expect("nothing to contradict")
}

fn run(connection: &mut Connection, sql: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut rest = sql;
    loop {
        connection.mark_statement();
        let (statement, consumed) = connection.prepare(rest, false).expect(sql);
        rest = &rest[consumed..];
        let Some(mut statement) = statement else {
            return rows;
        };
        while statement.step(connection).expect(sql) {
            let row = (0..statement.column_count())
                .map(|index| match statement.column(index).expect("memory") {
                    ValueRef::Null => "NULL".into(),
                    ValueRef::Integer(value) => value.to_string(),
                    ValueRef::Real(value) => value.to_string(),
                    ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    ValueRef::Blob(blob) => format!("{} bytes", blob.len()),
                })
                .collect();
            rows.push(row);
        }
        if rest.is_empty() {
            return rows;
        }
    }
}

/// The first statement finds that something is wrong: opening reads nothing.
fn assert_unreadable() {
    let mut connection = Connection::open().expect("opening reads nothing");
    assert!(connection.prepare("SELECT * FROM t", false).is_err());
}

fn checkpoint() -> Result<(), i32> {
    vfs::begin_checkpoint()?;
    let mut connection = Connection::open().map_err(|error| error.code)?;
    run(&mut connection, "SELECT count(*) FROM sqlite_schema");
    let (frames, written) =
        connection.checkpoint(CheckpointMode::Passive).map_err(|error| error.code)?;
    assert_eq!(frames, written);
    drop(connection);
    vfs::end_checkpoint(Some(written))
}

#[test]
fn a_tenant_lives_from_the_empty_page_over_a_checkpoint_to_a_second_open() {
    let mut world = World::default();
    let mut first = volume(false, 0);
    let rows = world.run(&mut first, || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t(b) VALUES('x'), (zeroblob(5000))");
        run(&mut connection, "SELECT a, b FROM t; PRAGMA integrity_check")
    });
    assert_eq!(rows, [vec!["1", "x"], vec!["2", "5000 bytes"], vec!["ok"]]);
    assert_eq!(first.last_txid(), 2);
    world.run(&mut first, checkpoint).expect("the checkpoint works");
    assert!(first.main.exists);
    let stamp = first.last_txid();
    assert!(first.close().0.len() <= 2);

    let mut second = volume(true, stamp);
    let rows = world.run(&mut second, || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, "SELECT a, b FROM t; PRAGMA integrity_check")
    });
    assert_eq!(rows.len(), 3);
    let _ = second.close();

    // An older copy than the catalogue knows is damage (F10).
    let mut third = volume(true, stamp + 1);
    world.run(&mut third, assert_unreadable);
    assert!(third.damage().expect("an old copy").contains("old copy"));
    let _ = third.close();

    // So is one flipped bit, and nothing of the page is shown.
    let main = world.main.expect("the checkpoint made a file");
    world.files.get_mut(&main).expect("it is there")[4096 + 7] ^= 4;
    let mut fourth = volume(true, stamp);
    world.run(&mut fourth, || {
        let mut connection = Connection::open().expect("page 1 is sound");
        let statement = connection.prepare("SELECT * FROM t", false).expect("the schema is").0;
        let mut statement = statement.expect("there is a statement");
        assert_eq!(
            statement.step(&connection).expect_err("damage").primary(),
            sqlite::SQLITE_CORRUPT
        );
        drop(statement);
    });
    assert_eq!(fourth.damage(), Some("page 2 of its file is damaged"));
    let _ = fourth.close();
}

/// What is asked for before a connection is opened is nearly what it then takes.
#[test]
fn opening_a_connection_takes_what_is_said() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    let account = volume.account();
    let taken = world.run(&mut volume, move || {
        let before = ledger::memory_held(account);
        let connection = Connection::open().expect("opens");
        let taken = ledger::memory_held(account) - before;
        drop(connection);
        taken
    });
    let least = Connection::OPEN_BYTES_MIN;
    assert!(
        (least..=least * 11 / 10).contains(&taken),
        "{taken} bytes, at least {least} were said"
    );
    let _ = volume.close();
}

#[test]
fn every_checkpoint_stamps_page_one_anew() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    world.run(&mut volume, || {
        let mut writer = Connection::open().expect("opens");
        run(&mut writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        assert!(with_volume(|volume| volume.page_one_pending()));
        // A reader of the newest state keeps the WAL from starting anew.
        let mut reader = Connection::open().expect("opens");
        run(&mut reader, "BEGIN; SELECT a FROM t");
        checkpoint().expect("the checkpoint works");
        run(&mut writer, "UPDATE t SET a = 2");
        assert!(with_volume(|volume| volume.logged_frame() > 2), "the WAL goes on");
        assert!(!with_volume(|volume| volume.page_one_pending()), "its frame was copied before");
        run(&mut reader, "COMMIT");
    });
    let _ = volume.close();
}

#[test]
fn a_file_that_was_cut_is_damage() {
    let mut world = World::default();
    let mut first = volume(false, 0);
    world.run(&mut first, || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, "CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(50000))");
    });
    world.run(&mut first, checkpoint).expect("the checkpoint works");
    let stamp = first.last_txid();
    let _ = first.close();
    let main = world.main.expect("the checkpoint made a file");
    world.files.get_mut(&main).expect("it is there").truncate(3 * 4096 + 10);
    let mut second = volume(true, stamp);
    world.run(&mut second, assert_unreadable);
    assert!(second.damage().expect("it was cut").contains("cut"), "{:?}", second.damage());
    let _ = second.close();
}

/// Found by a reader: the frames of a refused commit stayed, the next commit's sync took their commit
/// frame for its own, and room was reserved for fewer pages than were sealed.
#[test]
fn a_refused_commit_leaves_no_commit_frame_behind() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    world.run(&mut volume, || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
        run(
            &mut connection,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
             INSERT INTO t SELECT i, zeroblob(3000) FROM n",
        );
    });
    world.log_is_full = true;
    world.run(&mut volume, || {
        let mut connection = Connection::open().expect("opens");
        let sql = "UPDATE t SET b = randomblob(3000)";
        let mut statement = connection.prepare(sql, false).expect("compiles").0.expect("is there");
        let error = statement.step(&connection).expect_err("the log is full");
        assert_eq!(error.primary(), sqlite::SQLITE_FULL);
    });
    world.log_is_full = false;
    let rows = world.run(&mut volume, || {
        let mut connection = Connection::open().expect("opens");
        run(
            &mut connection,
            "WITH RECURSIVE n(i) AS (SELECT 61 UNION ALL SELECT i + 1 FROM n WHERE i < 110)
             INSERT INTO t SELECT i, zeroblob(3000) FROM n",
        );
        run(&mut connection, "SELECT count(*), sum(b = zeroblob(3000)) FROM t")
    });
    assert_eq!(rows, [vec!["110", "110"]]);
    let _ = volume.close();
}

#[test]
fn a_transaction_larger_than_the_wal_memory_spills_and_is_sealed() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    let rows = world.run(&mut volume, || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, "CREATE TABLE t(a, b)");
        run(
            &mut connection,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
             INSERT INTO t SELECT i, randomblob(1000) FROM n",
        );
        run(&mut connection, "BEGIN; DELETE FROM t WHERE a % 2; ROLLBACK");
        run(&mut connection, "CREATE INDEX i ON t(b)");
        run(&mut connection, "SELECT count(*), sum(length(b)) FROM t; PRAGMA integrity_check")
    });
    assert_eq!(rows, [vec!["6000", "6000000"], vec!["ok"]]);
    assert!(volume.wal_bytes() > storage::limits::WAL_MEMORY_BYTES_MAX);
    assert_eq!(volume.last_txid(), 3);
    world.run(&mut volume, checkpoint).expect("the checkpoint works");
    let files = volume.close().0;
    assert!(!files.is_empty());
}

/// Six hundred pages: five times what a connection's cache may hold.
const LARGE_TABLE: &str = "CREATE TABLE large(a INTEGER PRIMARY KEY, b);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
    INSERT INTO large SELECT i, zeroblob(3500) FROM n";

fn cache_bytes(account: AccountId) -> u64 {
    ledger::held(account)[Kind::Cache as usize]
}

#[test]
fn a_statement_that_needs_heap_gets_what_the_cache_holds() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    let account = volume.account();
    world.run(&mut volume, move || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, LARGE_TABLE);
        run(&mut connection, "SELECT sum(length(b)) FROM large");
        let (full, refused) = (cache_bytes(account), ledger::refused(account));
        assert!((480 << 10..560 << 10).contains(&full), "{full} bytes of cache");
        // Room for a small page of heap, and the rest only out of the cache.
        ledger::set_memory_limit(account, ledger::memory_held(account) + 4096);
        let rows = run(&mut connection, "SELECT length(hex(zeroblob(120000)))");
        assert_eq!(rows, [vec!["240000"]]);
        assert_eq!(ledger::refused(account), refused, "the cache went, and nothing was refused");
        assert!(cache_bytes(account) + (200 << 10) < full);
        // What the cache has lost comes back, and what would not help leaves it.
        run(&mut connection, "SELECT sum(length(b)) FROM large");
        let before = cache_bytes(account);
        let sql = "SELECT length(hex(zeroblob(1000000)))";
        let mut statement = connection.prepare(sql, false).expect("compiles").0.expect("is there");
        let error = statement.step(&connection).expect_err("too large");
        assert_eq!(error.primary(), sqlite::SQLITE_NOMEM);
        let refused = ledger::last_refusal(account).expect("a charge was refused");
        assert!(refused.missing() > 0 && refused.wanted > 1_000_000);
        assert!(cache_bytes(account) + 16 * 4096 > before);
    });
    let _ = volume.close();
    ledger::assert_closed();
}

/// A limit that leaves a cache of a few pages: slower, and nothing else.
#[test]
fn a_scan_goes_on_with_the_pages_that_the_budget_leaves() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    let account = volume.account();
    let rows = world.run(&mut volume, move || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, LARGE_TABLE);
        run(&mut connection, "SELECT count(*) FROM large");
        ledger::set_memory_limit(account, 0);
        assert!(cache_bytes(account) < 32 << 10, "a smaller limit took {}", cache_bytes(account));
        ledger::set_memory_limit(account, ledger::memory_held(account) + (64 << 10));
        run(&mut connection, "SELECT sum(length(b)), max(a) FROM large")
    });
    assert_eq!(rows, [vec!["2100000", "600"]]);
    let _ = volume.close();
    ledger::assert_closed();
}

/// Memory runs out at each place in turn, the page cache's among them; nothing is lost or left over.
#[test]
fn every_allocation_may_fail_and_the_books_close() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    world.run(&mut volume, || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    });
    let mut n = 0;
    loop {
        fail_allocations(Failing::Nth { n, forever: n % 2 == 1 });
        world.run(&mut volume, || {
            let Ok(mut connection) = Connection::open() else { return };
            let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
                 INSERT INTO t(b) SELECT zeroblob(2000) FROM n";
            connection.mark_statement();
            let Ok((Some(mut statement), _)) = connection.prepare(sql, false) else { return };
            if let Err(error) = statement.step(&connection) {
                assert!(matches!(error.primary(), sqlite::SQLITE_NOMEM | 10), "{error:?}");
            }
        });
        let failed = allocator::failed_allocations();
        fail_allocations(Failing::Never);
        ledger::assert_closed();
        if failed == 0 {
            break;
        }
        n += 1;
    }
    assert!(n > 100, "{n} allocations");
    let rows = world.run(&mut volume, || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, "SELECT count(*) % 40, count(*) > 0 FROM t; PRAGMA integrity_check")
    });
    assert_eq!(rows, [vec!["0", "1"], vec!["ok"]]);
    assert_eq!(volume.damage(), None);
    let _ = volume.close();
    ledger::assert_closed();
}

#[test]
fn temporary_files_stay_within_the_accounts_limit() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    let account = volume.account();
    ledger::set_temporary_limit(account, 1 << 20);
    world.run(&mut volume, move || {
        let mut connection = Connection::open().expect("opens");
        run(&mut connection, "CREATE TABLE t(a)");
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000)
             INSERT INTO t SELECT zeroblob(1000) FROM n";
        let mut statement = connection.prepare(sql, false).expect("compiles").0.expect("is there");
        connection.mark_statement();
        let error = statement.step(&connection).expect_err("more than memory and files hold");
        assert_eq!(error.primary(), sqlite::SQLITE_FULL);
        drop(statement);
        let refused = ledger::last_refusal(account).expect("a charge was refused");
        assert_eq!((refused.kind, refused.limit), (Kind::Temporary, 1 << 20));
        assert!(refused.held <= 1 << 20 && refused.missing() > 0);
        run(&mut connection, "INSERT INTO t VALUES(1)");
        assert_eq!(run(&mut connection, "SELECT count(*) FROM t"), [vec!["1"]]);
    });
    assert!(!volume.close().0.is_empty());
    ledger::assert_closed();
}

/// Turns that one step of this statement gives up, after what makes ready for it; then the same anew, with
/// the statement interrupted at the third turn.
fn turns_of(prepare: &'static str, sql: &'static str) -> u64 {
    let (result, turns, _) = step_of(prepare, sql, None);
    assert_eq!(result, Ok(()), "{sql}");
    let (result, interrupted, _) = step_of(prepare, sql, Some(3));
    assert_eq!(result, Err(sqlite::SQLITE_INTERRUPT), "{sql}");
    assert!(interrupted < 5, "interrupted at the third turn, ended at {interrupted}: {sql}");
    turns
}

/// What comes of one step of this statement, interrupted at that turn, and what is there to see then.
fn step_of(
    prepare: &'static str,
    sql: &'static str,
    last_turn: Option<u64>,
) -> (Result<(), i32>, u64, Vec<Vec<String>>) {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    world.run(&mut volume, move || run(&mut Connection::open().expect("opens"), prepare));
    (world.turns, world.last_turn) = (0, last_turn);
    let result = world.run(&mut volume, move || {
        let mut connection = Connection::open().expect("opens");
        let (statement, _) = connection.prepare(sql, false).expect(sql);
        let result = statement.expect("a statement").step(&connection);
        result.map(|_| ()).map_err(|error| error.primary())
    });
    let turns = world.turns;
    world.last_turn = None;
    let seen = world.run(&mut volume, || {
        let tables = "SELECT group_concat(name) FROM sqlite_schema WHERE rootpage > 0";
        let mut connection = Connection::open().expect("opens");
        let mut rows = run(&mut connection, tables);
        rows.extend(run(&mut connection, "PRAGMA integrity_check"));
        rows
    });
    drop(volume.close());
    (result, turns, seen)
}

/// One step goes through a table of 9,000 pages.
#[test]
fn what_goes_through_all_pages_gives_up_its_turn_and_can_be_interrupted() {
    let prepare = "CREATE TABLE t (x); WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n \
                   LIMIT 9000) INSERT INTO t SELECT zeroblob(3000) FROM n";
    for sql in ["SELECT count(*) FROM t", "DELETE FROM t", "DROP TABLE t"] {
        let turns = turns_of(prepare, sql);
        println!("{turns} turns: {sql}");
        assert!(turns > 3, "{turns} turns: {sql}");
        let (_, _, seen) = step_of(prepare, sql, Some(3));
        assert_eq!(seen, [["t"], ["ok"]], "{sql}: what was interrupted has changed nothing");
    }
}

/// The product of the sizes is what is limited: a small patch of a large target is none too many.
#[test]
fn a_patch_that_would_take_long_is_refused() {
    let mut world = World::default();
    let mut volume = volume(false, 0);
    world.run(&mut volume, || {
        let mut connection = Connection::open().expect("opens");
        let target = "json_object('a', hex(zeroblob(100000)))";
        let rows =
            run(&mut connection, &format!("SELECT length(json_patch({target}, '{{\"b\":1}}'))"));
        assert_eq!(rows, [["200014"]]);
        for function in ["json_patch", "jsonb_patch"] {
            let sql = format!("SELECT {function}({target}, {target})");
            let (statement, _) = connection.prepare(&sql, false).expect("compiles");
            let error = statement.expect("a statement").step(&connection).expect_err("refused");
            assert!(error.message.contains("exceed 1000000000"), "{}", error.message);
        }
    });
}

#[test]
fn long_functions_give_up_their_turn_and_can_be_interrupted() {
    let cases = [
        "SELECT sum(length(replace(hex(zeroblob(500000 - x)), '0', 'a'))) FROM t",
        "SELECT sum(instr(hex(zeroblob(500000 - x)), hex(zeroblob(200000 + x)) || 'b')) FROM t",
        "SELECT sum(length(trim(hex(zeroblob(20000 - x)), 'abcdefghijklmnopqrstuvwxyz0'))) FROM t",
        "SELECT sum(b LIKE '%0%1') FROM (SELECT hex(zeroblob(20000 - x)) AS b FROM t) AS t, t AS u",
        "SELECT snippet(f, 0, '', '', '', 60) FROM f('a')",
    ];
    let prepare = "CREATE TABLE t (x); WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n \
                   LIMIT 40) INSERT INTO t SELECT x FROM n; CREATE VIRTUAL TABLE f USING fts5(a); INSERT \
                   INTO f SELECT replace(hex(zeroblob(6000)), '00', 'a ')";
    for sql in cases {
        let turns = turns_of(prepare, sql);
        println!("{turns} turns: {sql}");
        assert!(turns > 5, "{turns} turns: {sql}");
    }
}
