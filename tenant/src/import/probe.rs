//! A door for fuzzers: what this module reads in SQL text without running it.

use super::sql::{Splitter, Tokens, module_of};

/// The statements of a text that comes in pieces, each with its line; the last one may be unfinished.
#[must_use]
pub fn statements<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(u64, Vec<u8>)> {
    let mut splitter = Splitter::default();
    let mut found = Vec::new();
    for piece in pieces {
        splitter.feed(piece);
        while let Some(end) = splitter.next_end() {
            found.push((splitter.line(), splitter.pending()[..end].to_vec()));
            splitter.take(end);
        }
    }
    found.push((splitter.line(), splitter.pending().to_vec()));
    found
}

/// The tokens of a statement, each with where it ends.
#[must_use]
pub fn tokens(sql: &str) -> Vec<(usize, String)> {
    let mut tokens = Tokens::of(sql);
    let mut found = Vec::new();
    while let Some(token) = tokens.next() {
        found.push((tokens.offset(), format!("{token:?} {:?}", token.name())));
    }
    found
}

/// Name and arguments of the module of a `CREATE VIRTUAL TABLE`.
#[must_use]
pub fn module(sql: &str) -> Option<(String, Vec<String>)> {
    module_of(sql).map(|module| {
        let _ = module.option("content");
        (module.name, module.arguments)
    })
}
