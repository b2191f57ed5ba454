//! SQL text of a dump: where its statements end does not depend on how it arrives.

use tenant::import_probe as probe;

use super::{Random, Seen, Target, pieces};

const WORDS: &[&str] = &[
    ";",
    "'",
    "\"",
    "`",
    "[",
    "]",
    "--",
    "\n",
    "/*",
    "*/",
    "CREATE TRIGGER t AFTER INSERT ON a BEGIN ",
    "CREATE TEMP TRIGGER t ",
    "EXPLAIN QUERY PLAN ",
    "END;",
    "END ;",
    "; end;",
    "INSERT INTO t VALUES('a;''b');\n",
    "CREATE VIRTUAL TABLE f USING fts5(a, content='', tokenize=\"x,(\");",
    "create virtual table using using rtree(id,a,b)",
    "CREATE TABLE t(a);",
    "é",
    "\0",
    "$a",
];

/// See the head of the file.
pub struct Dumps;

impl Target for Dumps {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let words = (0..random.size(4)).map(|_| random.pick(WORDS));
        words.collect::<Vec<&str>>().join(random.pick(&["", " "])).into_bytes()
    }

    fn words(&self) -> &'static [&'static str] {
        WORDS
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let whole = probe::statements([input]);
        for salt in 0..2 {
            let cut = pieces(input, salt);
            let other = probe::statements(cut.iter().copied());
            if other != whole {
                return Err(format!("in {} pieces {other:?}, whole {whole:?}", cut.len()));
            }
        }
        let (last, before) = whole.split_last().ok_or("nothing was found")?;
        seen.count("statements", before.len());
        seen.note(if last.1.is_empty() { "all finished" } else { "unfinished" });
        let joined: Vec<u8> = whole.iter().flat_map(|(_, sql)| sql).copied().collect();
        if joined != input {
            return Err(format!("{whole:?} is not all"));
        }
        if let Some((_, sql)) = before.iter().find(|(_, sql)| !sql.ends_with(b";")) {
            return Err(format!("{sql:?} ends without a semicolon"));
        }
        let mut line = 1;
        for (at, sql) in &whole {
            if *at != line {
                return Err(format!("{sql:?} is said to be on line {at}, not {line}"));
            }
            line += sql.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.judge_tokens(sql, seen)?;
        }
        Ok(())
    }
}

impl Dumps {
    fn judge_tokens(&self, sql: &[u8], seen: &mut Seen) -> Result<(), String> {
        let Ok(sql) = std::str::from_utf8(sql) else { return Ok(()) };
        let tokens = probe::tokens(sql);
        let mut before = 0;
        for (end, token) in &tokens {
            if *end <= before || *end > sql.len() {
                return Err(format!("{token} ends at {end}, after {before}"));
            }
            before = *end;
        }
        seen.count("tokens", tokens.len());
        if let Some((_, arguments)) = probe::module(sql) {
            seen.count("arguments", arguments.len());
        }
        Ok(())
    }
}
