//! What a job runs and how: from JSON, and back into it as the catalogue keeps it.
//!
//! ```text
//! "sql": "statements; with; semicolons"            or
//! "statements": ["statement", {"sql": …, "args": [value, …] | {"name": value, …}}, …]
//! ```
//!
//! A value is null, a number, a text, true or false (1 and 0), or `{"base64": …}`.
//!
//! A statement that cannot be in a transaction, or that would end it, is refused here by its first words,
//! and once more where it is compiled: this file spares a job that must fail on each database.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tenant::migration::{Mark, Script, Step};
use tenant::{Argument, Arguments};

use crate::limits;
use crate::problem::Problem;

/// Words that a statement of a job does not begin with, and why.
const REFUSED: [(&[&str], &str); 11] = [
    (&["BEGIN"], TRANSACTION),
    (&["COMMIT"], TRANSACTION),
    (&["END"], TRANSACTION),
    (&["ROLLBACK"], TRANSACTION),
    (&["SAVEPOINT"], TRANSACTION),
    (&["RELEASE"], TRANSACTION),
    (&["VACUUM"], "VACUUM cannot run inside a transaction"),
    (&["ATTACH"], "databases are not attached to each other here"),
    (&["DETACH"], "databases are not attached to each other here"),
    (
        &["PRAGMA", "FOREIGN_KEYS"],
        "the pragma has no effect inside a transaction: say \"foreign_keys\": false beside the statements",
    ),
    (&["PRAGMA", "JOURNAL_MODE"], "the pragma has no effect inside a transaction"),
];

const TRANSACTION: &str = "a job runs in one transaction of its own for each database";

/// The script in a body's `sql` and `statements`, as the catalogue keeps it.
///
/// # Errors
/// 400 with what is wrong, and with which statement.
pub(crate) fn read_body(
    sql: Option<&Value>,
    statements: Option<&Value>,
) -> Result<Box<str>, Problem> {
    let kept = match (sql, statements) {
        (Some(sql), None) => json!({ "sql": sql }),
        (None, Some(statements)) => json!({ "statements": statements }),
        _ => return Err(Problem::body("give either sql or statements")),
    };
    let text = kept.to_string();
    if text.len() > limits::JOB_SCRIPT_BYTES_MAX {
        let most = limits::JOB_SCRIPT_BYTES_MAX;
        return Err(Problem::body(format!("the statements have more than {most} bytes")));
    }
    let steps = steps_of(&kept).map_err(Problem::body)?;
    let mut count = 0;
    for step in &steps {
        let (Step::Sequence(sql) | Step::Statement(sql, _)) = step;
        let parts = statements_in(sql);
        if matches!(step, Step::Statement(..)) && parts.len() != 1 {
            let text = format!("statement {} is {} statements, not one", count + 1, parts.len());
            return Err(Problem::body(text));
        }
        for words in parts {
            count += 1;
            if let Some(reason) = refused(&words) {
                let what = words.join(" ");
                return Err(Problem::body(format!("statement {count} ({what}): {reason}")));
            }
        }
    }
    if count == 0 {
        return Err(Problem::body("there is no statement"));
    }
    Ok(text.into())
}

/// The script that [`read_body`] has kept.
///
/// # Errors
/// If it has not: what is wrong with it.
pub(crate) fn read_kept(text: &str, mark: Mark, foreign_keys: bool) -> Result<Script, String> {
    let kept: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(Script { mark, steps: steps_of(&kept)?, foreign_keys })
}

fn steps_of(kept: &Value) -> Result<Vec<Step>, String> {
    if let Some(sql) = kept.get("sql") {
        let sql = sql.as_str().ok_or("sql must be a text")?;
        return Ok(vec![Step::Sequence(sql.into())]);
    }
    let list = kept.get("statements").and_then(Value::as_array);
    let list = list.ok_or("statements must be a list")?;
    if list.len() > limits::JOB_STATEMENTS_MAX {
        return Err(format!("there are more than {} statements", limits::JOB_STATEMENTS_MAX));
    }
    list.iter().map(step_of).collect()
}

fn step_of(statement: &Value) -> Result<Step, String> {
    match statement {
        Value::String(sql) => Ok(Step::Statement(sql.as_str().into(), Arguments::default())),
        Value::Object(members) => {
            let unknown = members.keys().find(|key| !matches!(key.as_str(), "sql" | "args"));
            if let Some(key) = unknown {
                return Err(format!("a statement has sql and args, not {key:?}"));
            }
            let sql =
                members.get("sql").and_then(Value::as_str).ok_or("a statement lacks its sql")?;
            let arguments = match members.get("args") {
                None | Some(Value::Null) => Arguments::default(),
                Some(Value::Array(values)) => Arguments {
                    positional: values.iter().map(argument).collect::<Result<_, _>>()?,
                    named: Vec::new(),
                },
                Some(Value::Object(values)) => {
                    Arguments { positional: Default::default(), named: named(values)? }
                }
                Some(_) => return Err("args must be a list or an object".into()),
            };
            Ok(Step::Statement(sql.into(), arguments))
        }
        _ => Err("a statement is a text, or an object with sql and args".into()),
    }
}

fn named(
    values: &Map<String, Value>,
) -> Result<Vec<(std::borrow::Cow<'static, str>, Argument<'static>)>, String> {
    values.iter().map(|(name, value)| Ok((name.clone().into(), argument(value)?))).collect()
}

fn argument(value: &Value) -> Result<Argument<'static>, String> {
    Ok(match value {
        Value::Null => Argument::Null,
        Value::Bool(bool) => Argument::Integer(i64::from(*bool)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Argument::Integer(integer),
            (None, Some(real)) => Argument::Real(real),
            (None, None) => return Err(format!("{number} is no number of SQLite's")),
        },
        Value::String(text) => Argument::Text(text.clone().into()),
        Value::Object(members) => {
            let digits =
                members.get("base64").and_then(Value::as_str).filter(|_| members.len() == 1);
            let digits = digits.ok_or("an argument's object is {\"base64\": text}")?;
            let bytes = STANDARD.decode(digits).map_err(|error| format!("base64: {error}"))?;
            Argument::Blob(bytes.into())
        }
        Value::Array(_) => return Err("a list is no argument".into()),
    })
}

fn refused(words: &[String]) -> Option<&'static str> {
    let begins = |with: &[&str]| {
        with.len() <= words.len() && with.iter().zip(words).all(|(with, word)| with == word)
    };
    REFUSED.iter().find(|(with, _)| begins(with)).map(|(_, reason)| *reason)
}

/// A part of SQL, as far as it matters where statements end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// `;`.
    End,
    /// A word, in capitals.
    Word(String),
    /// Anything else that is not space.
    Other,
}

/// The first two words of each statement in a text, as SQLite would part it: a trigger's body has
/// semicolons of its own and ends with `; END ;` (as `sqlite3_complete` sees it).
fn statements_in(sql: &str) -> Vec<Vec<String>> {
    let (mut found, mut words, mut any) = (Vec::new(), Vec::new(), false);
    // Of a trigger: how much of `; END` has been seen.
    let (mut trigger, mut ending) = (false, 0);
    let tokens = Tokens { sql: sql.as_bytes(), at: 0 };
    for token in tokens {
        if token == Token::End && (!trigger || ending == 2) {
            if any {
                found.push(std::mem::take(&mut words));
            }
            (any, trigger, ending) = (false, false, 0);
            continue;
        }
        any |= token != Token::End;
        ending = match (&token, ending) {
            (Token::End, _) => 1,
            (Token::Word(word), 1) if word == "END" => 2,
            _ => 0,
        };
        match token {
            Token::Word(word) if word == "EXPLAIN" && words.is_empty() => {}
            Token::Word(word) if words.len() < 2 => {
                let temporary = matches!(word.as_str(), "TEMP" | "TEMPORARY");
                if !(temporary && words.len() == 1) {
                    words.push(word);
                }
            }
            _ => {}
        }
        trigger |= words.len() == 2 && words[0] == "CREATE" && words[1] == "TRIGGER";
    }
    if any {
        found.push(words);
    }
    found
}

struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
}

impl Tokens<'_> {
    /// Go on behind the next `end`, or to the end of the text.
    fn skip_past(&mut self, end: &[u8]) {
        let found = self.sql[self.at..].windows(end.len()).position(|window| window == end);
        self.at = found.map_or(self.sql.len(), |offset| self.at + offset + end.len());
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let rest = &self.sql[self.at..];
            let &first = rest.first()?;
            let second = rest.get(1).copied();
            match first {
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' => self.at += 1,
                b'-' if second == Some(b'-') => self.skip_past(b"\n"),
                b'/' if second == Some(b'*') => {
                    self.at += 2;
                    self.skip_past(b"*/");
                }
                b';' => {
                    self.at += 1;
                    return Some(Token::End);
                }
                // A quote inside is doubled: what is between two of them is one more such token.
                b'\'' | b'"' | b'`' | b'[' => {
                    self.at += 1;
                    self.skip_past(&[if first == b'[' { b']' } else { first }]);
                    return Some(Token::Other);
                }
                _ if first.is_ascii_alphanumeric() || first == b'_' || first >= 0x80 => {
                    let is_word = |byte: &&u8| {
                        byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80
                    };
                    let length = rest.iter().take_while(is_word).count();
                    self.at += length;
                    let word = String::from_utf8_lossy(&rest[..length]).to_ascii_uppercase();
                    return Some(Token::Word(word));
                }
                _ => {
                    self.at += 1;
                    return Some(Token::Other);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, wanted: &[&str]) {
        let found: Vec<String> = statements_in(sql).iter().map(|words| words.join(" ")).collect();
        assert_eq!(found, wanted, "{sql}");
    }

    #[test]
    fn statements_end_where_sqlite_ends_them() {
        check("", &[]);
        check(" ; -- nothing\n;/* ; */", &[]);
        check("alter table a add b; update a set b = ';'", &["ALTER TABLE", "UPDATE A"]);
        check("select 'it''s;'; select \";\"; select [;]", &["SELECT", "SELECT", "SELECT"]);
        check("select /* ; */ 1; -- ;\n commit", &["SELECT 1", "COMMIT"]);
        let trigger =
            "create temp trigger t after insert on a begin update a set b=1; delete from a; end;";
        check(&format!("{trigger} vacuum"), &["CREATE TRIGGER", "VACUUM"]);
        check(
            "create trigger t begin select case when 1 then 2 end; end; begin",
            &["CREATE TRIGGER", "BEGIN"],
        );
        check("explain begin", &["BEGIN"]);
    }

    #[test]
    fn what_a_transaction_cannot_hold_is_refused_by_its_number() {
        let read = |sql: &str| read_body(Some(&json!(sql)), None);
        assert!(read("CREATE TABLE a(b); INSERT INTO a VALUES('commit')").is_ok());
        for (sql, number) in [
            ("BEGIN; SELECT 1", 1),
            ("SELECT 1; /* x */ commit", 2),
            ("select 1; select 2; end transaction", 3),
            ("savepoint a", 1),
            ("Vacuum", 1),
            ("pragma foreign_keys=off", 1),
            ("PRAGMA journal_mode = delete", 1),
            ("attach 'x' as y", 1),
        ] {
            let problem = read(sql).expect_err(sql);
            assert!(
                problem.message.starts_with(&format!("statement {number} (")),
                "{}",
                problem.message
            );
        }
        assert!(read("--").is_err());
        assert!(read_body(None, None).is_err());
        assert!(read_body(Some(&json!("select 1")), Some(&json!([]))).is_err());
    }

    #[test]
    fn arguments_survive_the_catalogue() {
        let body = json!([
            "CREATE TABLE a(b)",
            {"sql": "INSERT INTO a VALUES(?),(?),(?),(?)", "args": [null, 1, 1.5, "x"]},
            {"sql": "INSERT INTO a VALUES(:v)", "args": {"v": {"base64": "AQI="}}},
        ]);
        let kept = read_body(None, Some(&body)).expect("it is good");
        let script = read_kept(&kept, Mark([7; 16]), true).expect("it was kept");
        assert_eq!(script.steps.len(), 3);
        let Step::Statement(_, arguments) = &script.steps[2] else { panic!("a statement") };
        assert_eq!(arguments.named[0].1, Argument::Blob(vec![1, 2].into()));
        for wrong in [
            json!("select 1"),
            json!([7]),
            json!([{"args": []}]),
            json!(["select 1; select 2"]),
            json!([{"sql": "select ?", "args": [[1]]}]),
            json!([{"sql": "select ?", "args": [{"base64": "!"}]}]),
            json!([{"sql": "select 1", "colour": 1}]),
        ] {
            assert!(read_body(None, Some(&wrong)).is_err(), "{wrong}");
        }
    }
}
