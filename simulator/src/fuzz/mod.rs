//! Fuzzers: seeded functions that invent hostile bytes, feed them to one parser or to a whole server,
//! and judge what comes back.
//!
//! Owns the table of targets, their inputs and their oracles, and the loop that looks for inputs with a
//! behaviour that was not seen before. Everything follows from a seed: the same seed and the same number
//! of executions run the same inputs. No instrumentation: what counts as new is what a target notes of an
//! answer ([`Seen`]) and which marked places (`sometimes!`) were reached for the first time.
//!
//! An input is always bytes, so that one that fails is a file. Parsers take it as it is; targets that
//! damage a folder or a file read it as a list of edits ([`program`]), in which any bytes mean something.
//!
//! A target fails by its oracle's word, or by a panic; what found something stays in `tests/found`.

mod catalogue;
mod edits;
mod engine;
mod hrana;
mod http;
mod import;
mod log_batch;
mod page;
mod place;
mod plain;
mod program;
mod random;
mod recovery;
mod reference;
mod settings;
mod splitter;
mod token;

pub use engine::{Failure, Fuzzer};
pub use random::Random;

/// Longest input that a mutation makes, unless the target says otherwise.
const INPUT_BYTES_MAX: usize = 4096;

/// One thing to be fuzzed.
pub trait Target {
    /// A new input with the right shape, or nearly.
    fn invent(&mut self, random: &mut Random) -> Vec<u8>;

    /// Pieces that mutations put into inputs.
    fn words(&self) -> &'static [&'static str] {
        &[]
    }

    /// Longest input that a mutation makes.
    fn input_bytes_max(&self) -> usize {
        INPUT_BYTES_MAX
    }

    /// Feed it and judge the answers.
    ///
    /// # Errors
    /// What must not be.
    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String>;
}

/// A line of the table of targets.
pub struct Entry {
    /// Its name in commands and folders.
    pub name: &'static str,
    /// What is fed, and what must hold.
    pub about: &'static str,
    /// Executions of a smoke run in the tests.
    pub smoke_runs: u64,
    /// A new one.
    pub make: fn() -> Box<dyn Target>,
}

/// All targets.
pub const TARGETS: &[Entry] = &[
    Entry {
        name: "http-head",
        about: "pipelined requests: any pieces give the same answers; an accepted head means the same \
                to a plain reader of RFC 9112",
        smoke_runs: 6_000,
        make: || Box::new(http::Http::heads()),
    },
    Entry {
        name: "http-body",
        about: "chunked and counted bodies: the same whole, in pieces and streamed, and as a plain \
                decoder has them",
        smoke_runs: 6_000,
        make: || Box::new(http::Http::bodies()),
    },
    Entry {
        name: "hrana",
        about: "bodies of the five calls: an accepted one is JSON, means the same written anew, and \
                its floats are the nearest ones",
        smoke_runs: 6_000,
        make: || Box::new(hrana::Bodies),
    },
    Entry {
        name: "token",
        about: "JSON Web Tokens: what verifies is a text that was signed, and says what a plain reader \
                finds in it",
        smoke_runs: 1_500,
        make: || Box::new(token::Tokens::new()),
    },
    Entry {
        name: "log-batch",
        about: "batches of the commit log: they read back as written, and no changed bit is accepted",
        smoke_runs: 3_000,
        make: || Box::new(log_batch::Batches),
    },
    Entry {
        name: "page",
        about: "pages with tails: no other bit, tenant, place or stamp is accepted",
        smoke_runs: 6_000,
        make: || Box::new(page::Pages),
    },
    Entry {
        name: "settings",
        about: "texts in the catalogue's rows (budgets, usage, settings): what is read is written as \
                what is read again",
        smoke_runs: 10_000,
        make: || Box::new(settings::Texts),
    },
    Entry {
        name: "splitter",
        about: "SQL text of a dump: its statements are the same whole and in pieces, and nothing is lost",
        smoke_runs: 6_000,
        make: || Box::new(splitter::Dumps),
    },
    Entry {
        name: "recovery",
        about: "a killed server's folder with damaged files: the next one starts, refuses or fences, and \
                serves no other bytes",
        smoke_runs: 40,
        make: || Box::new(recovery::Recovery::new()),
    },
    Entry {
        name: "catalogue",
        about: "a catalogue with rows that nobody of ours would write: the server starts or refuses, and \
                a database shows its own rows or none",
        smoke_runs: 40,
        make: || Box::new(catalogue::Catalogue::new()),
    },
    Entry {
        name: "import",
        about: "edited database files sent as uploads: taken or refused, with the rows that plain SQLite \
                reads, and no harm to the neighbour",
        smoke_runs: 40,
        make: || Box::new(import::Import::new()),
    },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    TARGETS.iter().find(|entry| entry.name == name)
}

/// What one execution showed.
#[derive(Debug, Default)]
pub struct Seen {
    hashes: Vec<u64>,
}

impl Seen {
    /// It did this.
    pub fn note(&mut self, what: &str) {
        self.hashes.push(hash(what.as_bytes(), 0));
    }

    /// It did this so many times; counts of the same power of two are the same behaviour.
    pub fn count(&mut self, what: &str, count: usize) {
        self.hashes
            .push(hash(what.as_bytes(), 1 + u64::from(count.checked_ilog2().map_or(0, |n| n + 1))));
    }
}

/// FNV-1a, then mixed: only for sets and for how an input is cut, never for what is judged.
pub(crate) fn hash(bytes: &[u8], salt: u64) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    crate::draws::splitmix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold) ^ salt)
}

/// Cut an input into pieces that follow from it and `salt`: short ones, long ones, and single bytes.
pub(crate) fn pieces(input: &[u8], salt: u64) -> Vec<&[u8]> {
    let mut random = Random::new(hash(input, salt));
    let longest = [1, 3, 20, 200, 3_000][random.index(5)];
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + random.index(longest)).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
