//! Random SQL from a seed: a schema, rows, and statements that use them, after the manner of SQLancer.
//!
//! Pure: the same seed gives the same texts. What is made is nearly always valid: errors show little. It
//! knows nothing of right results; what it is for is work of every kind that a client's SQL can ask for:
//! functions on short and on very long values, joins, aggregates, windows, compounds, recursive CTEs,
//! JSON, full-text search, indexes on expressions, changes of rows and of the schema.

use super::mix;

/// Tables of a schema, each with these columns.
const TABLES: u64 = 3;
const COLUMNS: [&str; 6] = ["id", "number", "real", "words", "document", "bytes"];

/// Words of texts and of searches.
const WORDS: [&str; 8] = ["ab", "abc", "common", "word", "éa", "x_%", "zz", "the"];

/// Statements that work on values of up to a megabyte: one in so many.
const LONG_ONE_IN: u64 = 12;

/// A source of choices.
pub struct Generator {
    state: u64,
    depth: u32,
}

impl Generator {
    /// The one of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Generator {
        Generator { state: mix(seed ^ 0x6d79_7269_6164), depth: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(1);
        mix(self.state) % bound
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }

    /// A length between 1 and a million, short ones as likely as long ones.
    fn length(&mut self) -> u64 {
        let bits = self.below(20);
        (1 << bits) + self.below(1 << bits)
    }

    /// The statements that make a schema and its rows.
    #[must_use]
    pub fn schema(&mut self) -> Vec<String> {
        let mut made = Vec::new();
        for table in 0..TABLES {
            let key = self.pick(&["INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"]);
            let strict = self.pick(&["", "", " STRICT"]);
            made.push(format!(
                "CREATE TABLE t{table}(id {key}, number INTEGER, real REAL, words TEXT, document TEXT, \
                 bytes BLOB){strict}"
            ));
            let rows = 1 << self.below(9);
            let [first, second] = [self.pick(&WORDS), self.pick(&WORDS)];
            made.push(format!(
                "INSERT INTO t{table} WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT \
                 {rows}) SELECT i, i * 7919 % 1009, i / 3.0, '{first}' || i || ' {second} ' || i % 7, \
                 json_object('a', i, 'b', json_array(i, i + 1)), zeroblob(i % 50) FROM c"
            ));
            if self.below(2) == 0 {
                let column =
                    self.pick(&["number", "words", "document ->> 'a'", "length(words), real"]);
                made.push(format!("CREATE INDEX i{table} ON t{table}({column})"));
            }
        }
        let options = self.pick(&[
            "",
            ", tokenize='trigram'",
            ", detail=none",
            ", prefix='1 2'",
            ", tokenize='porter'",
        ]);
        made.push(format!("CREATE VIRTUAL TABLE f USING fts5(words{options})"));
        made.push("INSERT INTO f(rowid, words) SELECT id, words FROM t0".to_owned());
        made.push(
            "CREATE TABLE long(id INTEGER PRIMARY KEY, words TEXT, document TEXT)".to_owned(),
        );
        let word = self.pick(&WORDS);
        let (length, members) = (self.length(), self.length() / 8 + 1);
        made.push(format!(
            "INSERT INTO long VALUES (1, replace(printf('%.*c', {}, 'x'), 'x', '{word} '), '[' || \
             substr(replace(printf('%.*c', {members}, 'x'), 'x', ',{{\"a\":1}}'), 2) || ']')",
            length / 8 + 1
        ));
        made.push("CREATE VIEW v AS SELECT number, words FROM t0 WHERE number > 3".to_owned());
        made
    }

    /// One statement on such a schema.
    #[must_use]
    pub fn statement(&mut self) -> String {
        self.depth = 0;
        if self.below(LONG_ONE_IN) == 0 {
            return self.long();
        }
        match self.below(20) {
            0 => self.insert(),
            1 => format!("UPDATE {} AS a SET {}", self.table(), self.change()),
            2 => format!("DELETE FROM {} AS a WHERE {}", self.table(), self.condition()),
            3 => self.change_of_schema(),
            4..=5 => self.search(),
            6 => self.recursion(),
            7..=8 => self.windows(),
            9 => {
                let (first, second) = (self.plain_select(), self.plain_select());
                let by = self.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]);
                format!("{first} {by} {second} ORDER BY 1 LIMIT 50")
            }
            10 => self.members(),
            11..=13 => self.aggregates(),
            _ => self.select(),
        }
    }

    fn table(&mut self) -> &'static str {
        ["t0", "t1", "t2"][self.below(TABLES) as usize]
    }

    fn column(&mut self) -> &'static str {
        self.pick(&COLUMNS)
    }

    fn select(&mut self) -> String {
        let [one, two] = [self.expression(), self.expression()];
        let from = self.from();
        let condition = self.condition();
        let order = self.column();
        let limit = 1 + self.below(200);
        let distinct = self.pick(&["", "", "DISTINCT "]);
        format!(
            "SELECT {distinct}{one}, {two} FROM {from} WHERE {condition} ORDER BY a.{order} LIMIT {limit}"
        )
    }

    fn plain_select(&mut self) -> String {
        let expression = self.expression();
        format!("SELECT {expression} FROM {} AS a WHERE {}", self.table(), self.condition())
    }

    fn from(&mut self) -> String {
        let first = self.table();
        let second = self.table();
        let by = self.column();
        match self.below(6) {
            0 => format!("{first} AS a JOIN {second} AS b ON a.number = b.id"),
            1 => format!("{first} AS a LEFT JOIN {second} AS b USING ({by})"),
            2 => format!("{first} AS a, {second} AS b"),
            3 => format!("(SELECT * FROM {first} WHERE number > 10 LIMIT 100) AS a"),
            4 => format!("{first} AS a FULL JOIN {second} AS b ON a.id = b.number"),
            _ => format!("{first} AS a"),
        }
    }

    fn aggregates(&mut self) -> String {
        let names =
            ["count", "sum", "avg", "min", "max", "total", "group_concat", "json_group_array"];
        let name = self.pick(&names);
        let distinct = self.pick(&["", "DISTINCT "]);
        let column = self.pick(&["number", "real", "words", "id"]);
        let by = self.expression();
        let filter = self.condition();
        let table = self.table();
        format!(
            "SELECT {by} AS k, {name}({distinct}a.{column}), count(*) FILTER (WHERE {filter}) FROM {table} \
             AS a GROUP BY k HAVING count(*) > 0 ORDER BY 2 LIMIT 100"
        )
    }

    fn windows(&mut self) -> String {
        let names =
            ["row_number()", "rank()", "lag(number)", "sum(number)", "ntile(4)", "max(words)"];
        let name = self.pick(&names);
        let frame = self.pick(&[
            "",
            " ROWS BETWEEN 3 PRECEDING AND CURRENT ROW",
            " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            " GROUPS BETWEEN 1 PRECEDING AND 2 FOLLOWING EXCLUDE TIES",
        ]);
        let by = self.column();
        let order = self.column();
        format!(
            "SELECT id, {name} OVER (PARTITION BY {by} ORDER BY {order}{frame}) FROM {} LIMIT 100",
            self.table()
        )
    }

    fn recursion(&mut self) -> String {
        let limit = 1 << self.below(15);
        let step = self.pick(&["i + 1", "(i * 7919 + 1) % 65537", "i + (SELECT count(*) FROM t0)"]);
        let all = self.pick(&["UNION", "UNION ALL"]);
        let what = self.pick(&["count(*)", "max(i)", "sum(length(i))", "count(DISTINCT i % 100)"]);
        format!(
            "WITH RECURSIVE c(i) AS (SELECT 1 {all} SELECT {step} FROM c LIMIT {limit}) SELECT {what} FROM c"
        )
    }

    fn search(&mut self) -> String {
        let [one, two] = [self.pick(&WORDS), self.pick(&WORDS)];
        let query = match self.below(6) {
            0 => format!("\"{one} {two}\""),
            1 => format!("\"{one}\" OR \"{two}\" *"),
            2 => format!("\"{one}\" NOT \"{two}\""),
            3 => format!("NEAR(\"{one}\" \"{two}\", 3)"),
            4 => format!("^ \"{one}\""),
            _ => format!("\"{one}\" *"),
        };
        match self.below(4) {
            0 => format!("SELECT count(*) FROM f WHERE words LIKE '%{one}%{two}%'"),
            1 => format!(
                "SELECT snippet(f, 0, '[', ']', '…', 8) FROM f('{query}') ORDER BY rank LIMIT 9"
            ),
            2 => format!("SELECT highlight(f, 0, '[', ']'), bm25(f) FROM f('{query}') LIMIT 20"),
            _ => {
                format!("SELECT rowid FROM f WHERE f MATCH '{query}' ORDER BY rowid DESC LIMIT 50")
            }
        }
    }

    fn members(&mut self) -> String {
        let each = self.pick(&["json_each", "json_tree"]);
        let path = self.pick(&["'$'", "'$.b'", "'$.b[0]'", "'$.none'"]);
        format!(
            "SELECT j.key, j.value, j.type FROM {} AS a, {each}(a.document, {path}) AS j WHERE {} LIMIT 100",
            self.table(),
            self.condition()
        )
    }

    fn insert(&mut self) -> String {
        let table = self.table();
        let (number, length) = (self.below(1000), self.length() / 64);
        let word = self.pick(&WORDS);
        let conflict = self.pick(&["", "OR IGNORE ", "OR REPLACE "]);
        let id = self.pick(&["NULL", "7", "(SELECT max(id) FROM t0)"]);
        format!(
            "INSERT {conflict}INTO {table} VALUES ({id}, {number}, {number}.5, '{word}', \
             '{{\"a\":{number}}}', zeroblob({length})) ON CONFLICT DO NOTHING RETURNING id"
        )
    }

    fn change(&mut self) -> String {
        let condition = self.condition();
        match self.below(4) {
            0 => format!("number = number + 1 WHERE {condition}"),
            1 => format!("words = words || 'x' WHERE {condition}"),
            2 => format!("document = json_set(document, '$.c', number) WHERE {condition}"),
            _ => format!("bytes = randomblob(20), real = real * 2 WHERE {condition} RETURNING id"),
        }
    }

    fn change_of_schema(&mut self) -> String {
        let table = self.table();
        match self.below(7) {
            0 => format!("CREATE INDEX IF NOT EXISTS j{table} ON {table}(real, words)"),
            1 => format!("DROP INDEX IF EXISTS j{table}"),
            2 => "ANALYZE".to_owned(),
            3 => format!("CREATE TABLE IF NOT EXISTS copied AS SELECT * FROM {table}"),
            4 => "DROP TABLE IF EXISTS copied".to_owned(),
            5 => "PRAGMA integrity_check".to_owned(),
            _ => "INSERT INTO f(f) VALUES ('optimize')".to_owned(),
        }
    }

    fn condition(&mut self) -> String {
        let column = self.column();
        let word = self.pick(&WORDS);
        let number = self.below(1000);
        match self.below(8) {
            0 => format!("a.number > {number}"),
            1 => format!("a.words LIKE '%{word}%'"),
            2 => format!("a.words GLOB '*{word}*[0-9]'"),
            3 => format!("a.{column} IN (SELECT {column} FROM {})", self.table()),
            4 => format!("a.{column} IS NOT NULL"),
            5 => format!("a.id BETWEEN {number} AND {number} + 50"),
            6 => format!("EXISTS (SELECT 1 FROM {} AS z WHERE z.id = a.number)", self.table()),
            _ => format!("{} IS NOT NULL", self.expression()),
        }
    }

    fn expression(&mut self) -> String {
        self.depth += 1;
        let deep = self.depth > 4;
        let choice = if deep { self.below(3) } else { self.below(16) };
        let made = match choice {
            0 => format!("a.{}", self.column()),
            1 => self.below(1_000_000).to_string(),
            2 => format!("'{}'", self.pick(&WORDS)),
            3..=5 => self.call(),
            6 => {
                let by =
                    self.pick(&["+", "-", "*", "/", "%", "||", "&", "|", "<<", "=", "<", "IS"]);
                let (left, right) = (self.expression(), self.expression());
                format!("({left} {by} {right})")
            }
            7 => {
                let (when, then, other) = (self.condition(), self.expression(), self.expression());
                format!("CASE WHEN {when} THEN {then} ELSE {other} END")
            }
            8 => {
                let kind = self.pick(&["INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC"]);
                format!("CAST({} AS {kind})", self.expression())
            }
            9 => format!("(SELECT max(number) FROM {} WHERE id < a.id)", self.table()),
            10 => format!("json_extract(a.document, '$.b[{}]')", self.below(3)),
            11 => format!("(a.document ->> '{}')", self.pick(&["a", "$.b", "none"])),
            12 => format!("json_set(a.document, '$.d', {})", self.expression()),
            13 => format!("strftime('%Y-%m-%d', {}, 'unixepoch')", self.below(2_000_000_000)),
            14 => format!("printf('%s %08.3f %q', {}, a.real, a.words)", self.expression()),
            _ => format!("{} COLLATE NOCASE", self.expression()),
        };
        self.depth -= 1;
        made
    }

    fn call(&mut self) -> String {
        const ONE: [&str; 18] = [
            "abs",
            "length",
            "lower",
            "upper",
            "hex",
            "quote",
            "typeof",
            "unicode",
            "trim",
            "sign",
            "round",
            "json_quote",
            "sqrt",
            "ceil",
            "octet_length",
            "json_valid",
            "soundless",
            "rtrim",
        ];
        const TWO: [&str; 9] =
            ["instr", "coalesce", "nullif", "max", "min", "ifnull", "ltrim", "mod", "concat"];
        let name = self.pick(&ONE);
        // One that is not there, now and then.
        let name = if name == "soundless" && self.below(8) > 0 { "length" } else { name };
        match self.below(4) {
            0 | 1 => format!("{name}({})", self.expression()),
            2 => {
                let name = self.pick(&TWO);
                let (first, second) = (self.expression(), self.expression());
                format!("{name}({first}, {second})")
            }
            _ => {
                let (text, from, to) = (self.expression(), self.below(10), self.below(10));
                match self.below(2) {
                    0 => format!("substr({text}, {from}, {to})"),
                    _ => format!("replace({text}, '{from}', '{to}')"),
                }
            }
        }
    }

    /// Work on a long value.
    fn long(&mut self) -> String {
        let word = self.pick(&WORDS);
        let length = self.length();
        let text = match self.below(6) {
            0 => format!("printf('%.*c', {length}, 'a')"),
            1 => format!("hex(zeroblob({}))", length / 2 + 1),
            2 => format!("replace(printf('%.*c', {}, 'x'), 'x', '{word} ')", length / 8 + 1),
            3 => format!("CAST(randomblob({length}) AS TEXT)"),
            _ => "(SELECT words FROM long)".to_owned(),
        };
        let json = "(SELECT document FROM long)";
        let what = match self.below(24) {
            0 => format!("{text} LIKE '%{word}%z{word}%'"),
            1 => format!("{text} GLOB '*[a-z]*{word}[!x]*'"),
            2 => format!("length(replace({text}, 'a', 'bb'))"),
            3 => format!("instr({text}, '{word}z')"),
            4 => format!("length(trim({text}, '{word} '))"),
            5 => format!("length(quote({text}))"),
            6 => format!("length(upper({text}))"),
            7 => format!("CAST({text} AS REAL)"),
            8 => format!("{text} = {text} COLLATE NOCASE"),
            9 => format!("length(json_quote({text}))"),
            10 => format!("json_extract({json}, '$[#-1]')"),
            11 => format!("json_array_length({json})"),
            12 => format!("length(json_set({json}, '$[#]', 7))"),
            13 => format!("length(jsonb({json}))"),
            14 => format!("json_valid({json}, 6)"),
            15 => format!("length(json_pretty({json}))"),
            16 => format!("length(substr({text}, -{}))", length / 2 + 1),
            17 => format!("unicode(substr({text}, {}))", length / 2 + 1),
            18 => format!("length(printf('%q%s', {text}, {text}))"),
            19 => format!("(SELECT count(*) FROM json_each({json}))"),
            20 => format!("(SELECT sum(value ->> 'a') FROM json_each({json}))"),
            21 => format!("length(json_patch({json}, {json}))"),
            22 => format!("length(unistr({text}))"),
            _ => format!("hex(substr({text}, 1, 10)) || {text}"),
        };
        match self.below(8) {
            0 => format!("INSERT INTO f(words) SELECT {text}"),
            1 => format!("INSERT INTO long(words) SELECT {text} RETURNING id"),
            2 => format!("SELECT {text} AS x UNION SELECT words FROM long ORDER BY x LIMIT 3"),
            _ => format!("SELECT {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite itself takes nearly all of it, and the same seed gives the same again.
    #[test]
    fn what_is_made_is_valid() {
        let (mut good, mut bad) = (0, Vec::new());
        for seed in 0..20 {
            let (mut generator, mut again) = (Generator::new(seed), Generator::new(seed));
            let connection = rusqlite::Connection::open_in_memory().unwrap();
            let schema = generator.schema();
            assert_eq!(schema, again.schema());
            for sql in schema {
                connection.execute_batch(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            for _ in 0..100 {
                let sql = generator.statement();
                assert_eq!(sql, again.statement());
                match connection.prepare(&sql) {
                    Ok(_) => good += 1,
                    Err(error) => bad.push(format!("{error}: {sql}")),
                }
            }
        }
        bad.truncate(9);
        assert!(good >= 1800, "{good} of 2000 compile; others: {bad:#?}");
    }
}
