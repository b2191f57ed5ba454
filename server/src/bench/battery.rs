//! The attack battery's files, as text: what `server/tests/attacks` runs and `scenario/gaps.rs` measures.
//!
//! A file is a list of cases. A case begins with `== name: why`; lines that begin with `#` are comments.
//! What the other lines mean is the reader's. In all of them:
//!
//! - `«300*text»` stands for `text` 300 times, one behind the other; it may stand in another. Inside,
//!   `{i}` is the number of the repetition, from 1, and `{p}` is one less.
//! - With [`bytes`], `\r`, `\n`, `\t`, `\\`, `\0` and `\x7f` stand for single bytes.

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case<'a> {
    /// Its name, unique in its file.
    pub name: &'a str,
    /// What is attacked, and where that is written.
    pub why: &'a str,
    /// The line of its name.
    pub line: usize,
    /// The lines below it, comments left out.
    pub lines: Vec<&'a str>,
}

impl<'a> Case<'a> {
    /// What follows this word at the start of a line, if such a line is there.
    #[must_use]
    pub fn setting(&self, word: &str) -> Option<&'a str> {
        self.lines.iter().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
    }
}

/// A statement of a case, and how it is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attack<'a> {
    /// SQL, or a text of many statements.
    pub sql: String,
    /// It is run as one.
    pub is_sequence: bool,
    /// What follows `->`; `ok` where nothing is said.
    pub answer: &'a str,
}

/// The cases of a file.
///
/// # Panics
/// If a name is there twice, or text stands before the first: the file is ours.
#[must_use]
pub fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            let (name, why) = title.split_once(": ").unwrap_or((title, ""));
            assert!(cases.iter().all(|case| case.name != name), "{name} is there twice");
            cases.push(Case { name, why, line: index + 1, lines: Vec::new() });
        } else if let Some(case) = cases.last_mut() {
            case.lines.push(line);
        } else {
            assert!(line.is_empty(), "line {} is before the first case", index + 1);
        }
    }
    cases
}

/// The statements of a case: a line each, an answer below it where it is not `ok`. `with` and `cost` begin
/// lines about how the case is run.
///
/// # Panics
/// If the file, which is ours, is malformed.
#[must_use]
pub fn attacks<'a>(case: &Case<'a>) -> Vec<Attack<'a>> {
    let mut attacks: Vec<Attack<'a>> = Vec::new();
    for line in case.lines.iter().filter(|line| !line.is_empty()) {
        if line.starts_with("with ") || line.starts_with("cost ") {
            continue;
        }
        if let Some(answer) = line.strip_prefix("-> ") {
            let last = attacks.last_mut().expect("an answer has a statement");
            last.answer = answer;
            continue;
        }
        let (is_sequence, sql) = match line.strip_prefix("sequence ") {
            Some(sql) => (true, sql),
            None => (false, *line),
        };
        attacks.push(Attack { sql: expand(sql), is_sequence, answer: "ok" });
    }
    attacks
}

/// The text with all repetitions written out.
///
/// # Panics
/// If the text, which is ours, is malformed.
#[must_use]
pub fn expand(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('«') {
        out.push_str(before);
        let end = closing(after);
        let (count, inner) = after[..end].split_once('*').expect("a count stands before `*`");
        let count: usize = count.parse().expect("a count is a number");
        let inner = expand(inner);
        match inner.contains("{i}") || inner.contains("{p}") {
            false => out.extend(std::iter::repeat_n(inner.as_str(), count)),
            true => {
                for number in 1..=count {
                    let numbered = inner.replace("{i}", &number.to_string());
                    out.push_str(&numbered.replace("{p}", &(number - 1).to_string()));
                }
            }
        }
        rest = &after[end + '»'.len_utf8()..];
    }
    out.push_str(rest);
    out
}

/// Where the repetition ends whose inside `text` begins with.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '«' => depth += 1,
            '»' if depth == 0 => return at,
            '»' => depth -= 1,
            _ => {}
        }
    }
    panic!("a repetition does not end: {text}")
}

/// The bytes of a line, repetitions and escapes written out.
///
/// # Panics
/// If the line, which is ours, is malformed.
#[must_use]
pub fn bytes(line: &str) -> Vec<u8> {
    let text = expand(line);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let (&kind, after) = rest.split_first().expect("something follows a backslash");
        rest = after;
        out.push(match kind {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                let digits = std::str::from_utf8(digits).expect("digits are ASCII");
                u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
            }
            other => panic!("no such escape: {}", char::from(other)),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_and_escapes() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a«3*xy»b", "axyxyxyb"),
            ("«2*(«2*.»)»", "(..)(..)"),
            ("«3*c{i} from c{p};»", "c1 from c0;c2 from c1;c3 from c2;"),
            ("«0*x»", ""),
        ] {
            assert_eq!(expand(text), expected);
        }
        assert_eq!(bytes("«2*\\x00»\\r\\n\\\\\\t\\0é"), b"\0\0\r\n\\\t\0\xc3\xa9");
    }

    #[test]
    fn a_file_has_cases() {
        let text = "# about\n\n== one: why (2.4)\ncost ru=1\nSELECT 1\n# no\n\nSELECT '«2*x»'\n\
                    -> = xx\n== two\nsequence a;b\n";
        let cases = cases(text);
        let told: Vec<_> = cases.iter().map(|case| (case.name, case.why, case.line)).collect();
        assert_eq!(told, [("one", "why (2.4)", 3), ("two", "", 10)]);
        assert_eq!(cases[0].setting("cost"), Some("ru=1"));
        assert_eq!(cases[1].setting("cost"), None);
        let plain = |sql: &str, answer| Attack { sql: sql.into(), is_sequence: false, answer };
        assert_eq!(attacks(&cases[0]), [plain("SELECT 1", "ok"), plain("SELECT 'xx'", "= xx")]);
        assert!(attacks(&cases[1])[0].is_sequence);
    }
}
