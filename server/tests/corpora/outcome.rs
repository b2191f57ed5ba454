//! What a statement gave, from either side, and what makes two of them equal.

/// One value of a row.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Integer(i64),
    /// Infinite values have lost their sign on the way through JSON.
    Real(f64),
    /// Bytes that are not UTF-8 became U+FFFD.
    Text(String),
    Blob(Vec<u8>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Integer(one), Value::Integer(two)) => one == two,
            (Value::Real(one), Value::Real(two)) => {
                one.to_bits() == two.to_bits() || one.is_infinite() && two.is_infinite()
            }
            (Value::Text(one), Value::Text(two)) => one == two,
            (Value::Blob(one), Value::Blob(two)) => one == two,
            _ => false,
        }
    }
}

/// Column names and rows.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub names: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

impl PartialEq for Rows {
    fn eq(&self, other: &Rows) -> bool {
        let same = |(one, two): (&String, &String)| same_name(one, two);
        let same_row = |(one, two): (&Vec<Value>, &Vec<Value>)| self.same_row(one, two);
        self.rows.len() == other.rows.len()
            && self.rows.iter().zip(&other.rows).all(same_row)
            && self.names.len() == other.names.len()
            && self.names.iter().zip(&other.names).all(same)
    }
}

impl Rows {
    /// Equal, but for the number in EXPLAIN's `Transaction` that says how often the connection has
    /// read its schema anew.
    fn same_row(&self, one: &[Value], two: &[Value]) -> bool {
        let explained = self.names.first().is_some_and(|name| name == "addr")
            && self.names.get(5).is_some_and(|name| name == "p4")
            && one.get(1) == Some(&Value::Text("Transaction".into()));
        let differ = |index: &usize| one.get(*index) != two.get(*index);
        one.len() == two.len() && (0..one.len()).filter(differ).all(|index| explained && index == 5)
    }
}

/// Equal but for the numbers that SQLite draws for a name that stands there for the fourth time.
fn same_name(one: &str, two: &str) -> bool {
    let stem = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let drawn = one.contains(':') && one[..stem(one)].ends_with(':');
    one == two || drawn && one[..stem(one)] == two[..stem(two)]
}

/// An error: its code by the name that libSQL servers give it, and its text.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Failure {
    /// The primary result code of SQLite behind the name; several stand for `SQLITE_ERROR`.
    pub fn primary(&self) -> &str {
        match self.code.as_str() {
            "SQL_PARSE_ERROR" | "SQL_INPUT_ERROR" | "SQLITE_UNKNOWN" => "SQLITE_ERROR",
            code => code,
        }
    }
}

/// What a statement gave.
pub type Outcome = Result<Rows, Failure>;

/// Both sides gave the same; what differs, if not.
pub fn difference(served: &Outcome, plain: &Outcome) -> Option<String> {
    match (served, plain) {
        (Err(served), Err(plain)) if served.primary() == plain.primary() => None,
        (Ok(served), Ok(plain)) if served == plain => None,
        _ => Some(format!("served {}, plain {}", show(served), show(plain))),
    }
}

fn show(outcome: &Outcome) -> String {
    const SHOWN_BYTES_MAX: usize = 300;
    let mut text = match outcome {
        Err(failure) => format!("{} {:?}", failure.code, failure.message),
        Ok(rows) => format!("{} rows {:?} {:?}", rows.rows.len(), rows.names, rows.rows),
    };
    let end = (0..=SHOWN_BYTES_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}
