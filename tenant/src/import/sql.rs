//! SQL text without running it: tokens, names, and where a statement ends in a text that comes in pieces.
//!
//! Pure. Knows of SQLite's grammar what a dump needs: quotes, comments, and that a trigger holds
//! semicolons of its own, until `END` behind one of them.

/// A piece of SQL that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A word or a number, as it stands there.
    Word(&'a str),
    /// A name or text in quotes, with them.
    Quoted(&'a str),
    /// Anything else.
    Symbol(char),
}

impl<'a> Token<'a> {
    /// It is this word, whatever its case.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text.eq_ignore_ascii_case(word))
    }

    /// The name or text that it stands for, without quotes; nothing for a symbol.
    pub fn name(&self) -> Option<String> {
        match self {
            Token::Word(text) => Some((*text).to_owned()),
            Token::Quoted(text) => {
                let (close, inner) = match text.as_bytes()[0] {
                    b'[' => (']', &text[1..]),
                    quote => (quote as char, &text[1..]),
                };
                let inner = inner.strip_suffix(close).unwrap_or(inner);
                let doubled: String = [close, close].iter().collect();
                Some(inner.replace(&doubled, close.encode_utf8(&mut [0; 4])))
            }
            Token::Symbol(_) => None,
        }
    }
}

/// The tokens of a text, one after the other.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// Of this text.
    pub fn of(sql: &'a str) -> Tokens<'a> {
        Tokens { sql, at: 0 }
    }

    /// Where the next one is looked for, in bytes from the start.
    pub fn offset(&self) -> usize {
        self.at
    }

    fn skip_space(&mut self) {
        let bytes = self.sql.as_bytes();
        loop {
            let rest = &bytes[self.at..];
            if rest.starts_with(b"--") {
                self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            } else if rest.starts_with(b"/*") {
                let end = self.sql[self.at + 2..].find("*/");
                self.at += end.map_or(rest.len(), |end| end + 4);
            } else if rest.first().is_some_and(|byte| byte.is_ascii_whitespace()) {
                self.at += 1;
            } else {
                return;
            }
        }
    }
}

/// The bytes of which words and numbers consist.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let rest = &self.sql[self.at..];
        let first = *rest.as_bytes().first()?;
        let quoted = |close: u8| {
            let mut at = 1;
            loop {
                let Some(found) = rest.as_bytes()[at..].iter().position(|&byte| byte == close)
                else {
                    return rest.len();
                };
                at += found + 1;
                // A doubled quote is one in the text; brackets know no such thing.
                if close == b']' || rest.as_bytes().get(at) != Some(&close) {
                    return at;
                }
                at += 1;
            }
        };
        let (length, quote) = match first {
            b'\'' | b'"' | b'`' => (quoted(first), true),
            b'[' => (quoted(b']'), true),
            byte if is_word(byte) => {
                (rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len()), false)
            }
            _ => {
                let symbol = rest.chars().next()?;
                self.at += symbol.len_utf8();
                return Some(Token::Symbol(symbol));
            }
        };
        self.at += length;
        let text = &rest[..length];
        Some(if quote { Token::Quoted(text) } else { Token::Word(text) })
    }
}

/// A name as SQL writes it, whatever is in it.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What `CREATE VIRTUAL TABLE` says of its module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, in lower case.
    pub name: String,
    /// Its arguments, trimmed, as they stand there.
    pub arguments: Vec<String>,
}

/// The module of a `CREATE VIRTUAL TABLE`; nothing for any other statement.
pub fn module_of(sql: &str) -> Option<Module> {
    let mut tokens = Tokens::of(sql);
    for word in ["create", "virtual", "table"] {
        if !tokens.next()?.is(word) {
            return None;
        }
    }
    // A name may be `using`, in quotes; the word itself cannot be one.
    tokens.find(|token| token.is("using"))?;
    let name = tokens.next()?.name()?.to_ascii_lowercase();
    let mut arguments = Vec::new();
    if tokens.next() == Some(Token::Symbol('(')) {
        let (mut depth, mut start) = (1, tokens.offset());
        while let Some(token) = tokens.next() {
            let end = tokens.offset() - 1;
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth -= 1,
                Token::Symbol(',') if depth == 1 => {
                    arguments.push(sql[start..end].trim().to_owned());
                    start = end + 1;
                }
                _ => {}
            }
            if depth == 0 {
                arguments.push(sql[start..end].trim().to_owned());
                break;
            }
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    Some(Module { name, arguments })
}

impl Module {
    /// The value of an argument `key = value`, without quotes.
    pub fn option(&self, key: &str) -> Option<String> {
        self.arguments.iter().find_map(|argument| {
            let mut tokens = Tokens::of(argument);
            let named = tokens.next()?.is(key) && tokens.next()? == Token::Symbol('=');
            let value = tokens.next().and_then(|token| token.name()).unwrap_or_default();
            named.then_some(value)
        })
    }
}

/// Where the scan is within a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Nothing,
    Word(usize),
    Quote(u8),
    Line,
    Block,
}

/// What kind of statement the words so far begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Start,
    Explain,
    Create,
    Plain,
    /// In a trigger's body.
    Trigger,
    /// Behind a semicolon in it.
    TriggerSemicolon,
    /// Behind an `END` behind that.
    TriggerEnd,
}

/// Finds the statements of a text that comes in pieces.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
    within: Within,
    shape: Shape,
    line: u64,
}

impl Default for Splitter {
    fn default() -> Splitter {
        Splitter {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            within: Within::Nothing,
            shape: Shape::Start,
            line: 1,
        }
    }
}

impl Splitter {
    /// More of the text.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        if let Within::Word(at) = &mut self.within {
            *at -= self.start;
        }
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes of the statement that has begun and not ended.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// The line on which [`Splitter::pending`] begins, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next whole statement, if it is there: where it ends, from [`Splitter::pending`]'s start.
    pub fn next_end(&mut self) -> Option<usize> {
        while self.scanned < self.buffer.len() {
            let at = self.scanned;
            let byte = self.buffer[at];
            let next = self.buffer.get(at + 1).copied();
            if matches!(byte, b'-' | b'/' | b'*') && next.is_none() {
                // What it is, the next byte tells.
                return None;
            }
            self.scanned += 1;
            match self.within {
                Within::Quote(close) => {
                    if byte == close {
                        self.within = Within::Nothing;
                    }
                }
                Within::Line => {
                    if byte == b'\n' {
                        self.within = Within::Nothing;
                    }
                }
                Within::Block => {
                    if byte == b'*' && next == Some(b'/') {
                        self.scanned += 1;
                        self.within = Within::Nothing;
                    }
                }
                Within::Word(_) if is_word(byte) => {}
                Within::Word(_) | Within::Nothing => {
                    if self.look(at, byte, next) {
                        return Some(self.scanned - self.start);
                    }
                }
            }
        }
        None
    }

    /// A byte outside of quotes and comments; `true` if it ends the statement.
    fn look(&mut self, at: usize, byte: u8, next: Option<u8>) -> bool {
        if let Within::Word(start) = self.within {
            self.shape = self.shape.after(&self.buffer[start..at]);
            self.within = Within::Nothing;
        }
        match byte {
            b'\'' | b'"' | b'`' => self.within = Within::Quote(byte),
            b'[' => self.within = Within::Quote(b']'),
            b'-' if next == Some(b'-') => self.within = Within::Line,
            b'/' if next == Some(b'*') => {
                self.scanned += 1;
                self.within = Within::Block;
            }
            b';' => {
                self.shape = match self.shape {
                    Shape::Trigger | Shape::TriggerSemicolon => Shape::TriggerSemicolon,
                    _ => return true,
                };
                return false;
            }
            byte if byte.is_ascii_whitespace() => return false,
            byte if is_word(byte) => {
                self.within = Within::Word(at);
                return false;
            }
            _ => {}
        }
        if !matches!(self.within, Within::Line | Within::Block) {
            self.shape = self.shape.after(b"");
        }
        false
    }

    /// What has come and was not taken.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Go on behind the first so many bytes of [`Splitter::pending`].
    pub fn take(&mut self, bytes: usize) {
        let taken = &self.buffer[self.start..self.start + bytes];
        self.line += taken.iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.start += bytes;
        self.scanned = self.scanned.max(self.start);
        self.within = Within::Nothing;
        self.shape = Shape::Start;
    }
}

impl Shape {
    fn after(self, word: &[u8]) -> Shape {
        let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
        match self {
            Shape::Start if is("explain") => Shape::Explain,
            Shape::Start | Shape::Explain if is("create") => Shape::Create,
            Shape::Explain if is("query") || is("plan") => Shape::Explain,
            Shape::Create if is("temp") || is("temporary") => Shape::Create,
            Shape::Create if is("trigger") => Shape::Trigger,
            Shape::TriggerSemicolon if is("end") => Shape::TriggerEnd,
            Shape::Trigger | Shape::TriggerSemicolon | Shape::TriggerEnd => Shape::Trigger,
            Shape::Start | Shape::Explain | Shape::Create | Shape::Plain => Shape::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, piece: usize) -> Vec<(u64, String)> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            splitter.feed(bytes);
            while let Some(end) = splitter.next_end() {
                let sql = String::from_utf8(splitter.pending()[..end].to_vec()).expect("UTF-8");
                found.push((splitter.line(), sql));
                splitter.take(end);
            }
        }
        let rest = String::from_utf8(splitter.pending().to_vec()).expect("UTF-8");
        found.push((splitter.line(), rest));
        found
    }

    #[test]
    fn statements_end_where_sqlite_ends_them() {
        let text = "-- it's; a comment\nCREATE TABLE t(a);/* ; */INSERT INTO t VALUES('a;''b');\n\
                    CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; DELETE FROM t; END;\n\
                    create temp trigger \"y;\" after insert on [t;] begin select case 1 when 1 then 2 end; end;\
                    SELECT 1 - -1, `a;` ; explain query plan create trigger z insert on t begin select 1; end; rest";
        let whole = split(text, text.len());
        let lines: Vec<u64> = whole.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 2, 3, 4, 4, 4]);
        assert_eq!(whole[1].1, "/* ; */INSERT INTO t VALUES('a;''b');");
        assert!(whole[2].1.ends_with("DELETE FROM t; END;"));
        assert!(whole[3].1.ends_with("begin select case 1 when 1 then 2 end; end;"));
        assert_eq!(whole[6].1, " rest");
        for piece in [1, 2, 3, 7, 64] {
            assert_eq!(split(text, piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn names_and_modules_are_read() {
        let names = |sql| Tokens::of(sql).filter_map(|token| token.name()).collect::<Vec<_>>();
        assert_eq!(names("a 'b''c' \"d\"\"e\" [f]]"), ["a", "b'c", "d\"e", "f"]);
        let module = module_of(
            "CREATE VIRTUAL TABLE IF NOT EXISTS \"using (x\" /* c */ USING fts5(a, b UNINDEXED,\
             content = 'it''s, here', tokenize=\"unicode61 tokenchars '(,'\")",
        )
        .expect("it is one");
        assert_eq!(module.name, "fts5");
        assert_eq!(module.arguments.len(), 4);
        assert_eq!(module.option("content").as_deref(), Some("it's, here"));
        assert_eq!(module.option("tokenize").as_deref(), Some("unicode61 tokenchars '(,'"));
        assert_eq!(module.option("a"), None);
        assert_eq!(module_of("CREATE TABLE t(a)"), None);
        let empty =
            module_of("create virtual table t using fts5(a, content='')").expect("it is one");
        assert_eq!(empty.option("content").as_deref(), Some(""));
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
    }
}
