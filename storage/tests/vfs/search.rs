//! FTS5 over documents of many tokens: it gives up its turn where SQLite's virtual machine shows nothing,
//! can be interrupted, and finds what is there (`sqlite/myriad_hooks_fts5.h`).

use storage::sqlite::Connection;

use super::{World, run, turns_of, volume};

/// What a test works on: a document of 20,000 different words, one of few, and one that is all gaps.
const PREPARE: &str = "\
CREATE VIRTUAL TABLE f USING fts5(a); CREATE VIRTUAL TABLE n USING fts5(a, detail=none); \
CREATE TABLE t(a); \
INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 20000) \
SELECT group_concat('w' || (x * 7919 % 20011), ' ') FROM c; \
INSERT INTO t SELECT replace(hex(zeroblob(30000)), '00', 'a b '); \
INSERT INTO t SELECT replace(hex(zeroblob(90000)), '00', '€');";

/// Each of them costs no allocation a token, or one behind which nothing looked: a table that is sorted,
/// freed, read and merged.
#[test]
fn many_tokens_give_up_their_turn_and_can_be_interrupted() {
    let filled = format!(
        "{PREPARE} INSERT INTO f SELECT a FROM t; INSERT INTO n SELECT a FROM t; \
         INSERT INTO f SELECT 'w' || rowid FROM t;"
    );
    let cases = [
        (PREPARE.to_owned(), "INSERT INTO f SELECT a FROM t WHERE rowid = 1", 10),
        (PREPARE.to_owned(), "INSERT INTO f SELECT a FROM t WHERE rowid = 2", 25),
        (PREPARE.to_owned(), "INSERT INTO n SELECT a FROM t WHERE rowid = 1", 10),
        (filled.clone(), "UPDATE f SET a = a WHERE rowid = 2", 50),
        (filled.clone(), "INSERT INTO f(f) VALUES ('integrity-check')", 35),
        (filled.clone(), "INSERT INTO n(n) VALUES ('integrity-check')", 35),
        (filled, "INSERT INTO f(f) VALUES ('rebuild')", 35),
    ];
    for (prepare, sql, turns_min) in cases {
        let turns = turns_of(prepare.leak(), sql);
        println!("{turns} turns: {sql}");
        assert!(turns > turns_min, "{turns} turns: {sql}");
    }
}

/// Words of 12 pairs of letters, `ab` or `hc`: in FTS5's hash, h = h * 9 without carries, exclusive or with
/// the letter, a pair of either kind leaves the same, so they are all in one chain.
fn meeting(words: u32, times: usize) -> String {
    let pair = |word: u32, bit: u32| if word >> bit & 1 == 0 { "ab" } else { "hc" };
    let word = |word: u32| (0..12).map(|bit| pair(word, bit)).collect::<String>();
    (0..words).map(word).collect::<Vec<String>>().join(" ").repeat(times)
}

/// A token in a chain of thousands costs a walk over them, and a document is one step.
#[test]
fn a_document_whose_words_meet_in_one_chain_is_interrupted() {
    for detail in ["full", "none"] {
        let prepare = format!("CREATE VIRTUAL TABLE f USING fts5(a, detail={detail})");
        let sql = format!("INSERT INTO f VALUES ('{}')", meeting(1500, 12));
        let turns = turns_of(prepare.leak(), sql.leak());
        assert!(turns > 9, "{turns} turns");
    }
}

/// What our own sort and looks are part of gives what SQLite's would, as FTS5's own check says, and a search
/// for all words that begin with each letter; also before the table is written.
#[test]
fn what_is_indexed_is_found() {
    for detail in ["full", "column", "none"] {
        let mut world = World::default();
        let mut volume = volume(false, 0);
        let prepare = PREPARE.replace("fts5(a)", &format!("fts5(a, prefix='2', detail={detail})"));
        world.run(&mut volume, move || {
            let mut connection = Connection::open().expect("opens");
            run(&mut connection, &prepare);
            run(&mut connection, "BEGIN; INSERT INTO f(rowid, a) SELECT rowid, a FROM t");
            run(&mut connection, "INSERT INTO f(rowid, a) VALUES (11, 'w1'), (12, 'w19999')");
            let found = |connection: &mut Connection, query: &str| {
                let order = "SELECT group_concat(rowid) FROM (SELECT rowid FROM f";
                run(connection, &format!("{order}('{query}') ORDER BY rowid DESC)"))
            };
            for is_written in [false, true] {
                if is_written {
                    run(&mut connection, "COMMIT");
                    run(&mut connection, "INSERT INTO f(f) VALUES ('integrity-check')");
                    run(&mut connection, "INSERT INTO f(f) VALUES ('optimize')");
                    run(&mut connection, "INSERT INTO f(f) VALUES ('integrity-check')");
                }
                assert_eq!(found(&mut connection, "w*"), [["12,11,1"]], "{detail} {is_written}");
                assert_eq!(found(&mut connection, "w1999*"), [["12,1"]], "{detail} {is_written}");
                assert_eq!(found(&mut connection, "w20009"), [["1"]], "{detail} {is_written}");
                assert_eq!(found(&mut connection, "a*"), [["2"]], "{detail} {is_written}");
            }
            run(&mut connection, "DELETE FROM f WHERE rowid < 12");
            run(&mut connection, "INSERT INTO f(f) VALUES ('integrity-check')");
            assert_eq!(found(&mut connection, "w*"), [["12"]], "{detail}");
        });
        drop(volume.close());
    }
}
