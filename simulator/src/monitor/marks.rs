//! Marks: whose they are, since when they are durable, and which bytes of which connection tell of
//! them.
//!
//! A mark is `mark:<owner>:<number>`, the text that clients give the rows of one transaction. In
//! answers it ends at the first byte that is no digit; in page images its length stands in the row's
//! header, because SQLite puts the next column right behind it.
//!
//! **DUR-2** in this world: when bytes leave in a send, every mark in them is durable in the log
//! already, unless that connection brought the mark itself: a transaction sees its own rows. And when
//! a client hears that its transaction is committed, its mark was durable before the answer's last
//! byte was given to a send. (The first byte of a cursor's answer leaves before the commit.)
//!
//! **TEN-1**: a log record of a tenant holds marks of one owner, for ever the same; an answer holds
//! only marks of those whom that connection asked about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

use memchr::memmem::{self, Finder};
use storage::io::Instant;

use super::btree::{Value, leaf_cells};

/// Longest owner's name that is looked for; the server allows 64.
const OWNER_BYTES_MAX: usize = 64;

/// What stands in front of a name in a request's target.
const ASKS: &[u8] = b"/db/";

/// What a target ends with that asks for a file.
const EXPORTS: &[u8] = b"/export ";

/// Bytes of requests that are looked at again with the next: more than a mark or a target's start.
const TAIL_BYTES: usize = 2 * OWNER_BYTES_MAX;

/// Sends of a connection that are remembered; an answer that came in more is not judged by time.
const SENDS_KEPT: usize = 1_024;

/// One mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Whose.
    pub owner: Box<str>,
    /// Which transaction's.
    pub number: u64,
}

/// What the server sent on one connection, and what was asked on it.
#[derive(Debug, Default)]
struct Stream {
    /// Bytes of the response stream that the network took.
    sent: u64,
    /// Offset, end and moment of each submission.
    sends: VecDeque<(u64, u64, Instant)>,
    asked: BTreeSet<Box<str>>,
    /// It asked for a file: in pages other columns stand right behind a mark, and what was deleted is
    /// still there. The model judges what a file holds.
    raw: bool,
    /// Marks in its requests.
    said: BTreeSet<Mark>,
    /// The last bytes that the client sent: a target may be cut anywhere.
    tail: Vec<u8>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct MarkWatch {
    durable: BTreeMap<Mark, Instant>,
    streams: BTreeMap<u64, Stream>,
    /// Marks that were looked at in sends.
    pub seen: u64,
    /// Acknowledgements that were judged.
    pub acknowledged: u64,
}

impl MarkWatch {
    /// These marks are in the log for good since `now`.
    pub fn became_durable(&mut self, marks: Vec<Mark>, now: Instant) {
        for mark in marks {
            self.durable.entry(mark).or_insert(now);
        }
    }

    /// A client sent these bytes.
    pub fn asked(&mut self, connection: u64, bytes: &[u8]) {
        let stream = self.streams.entry(connection).or_default();
        stream.tail.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = memmem::find(&stream.tail[from..], ASKS) {
            let start = from + at + ASKS.len();
            let name = name_at(&stream.tail[start..]);
            if start + name.len() == stream.tail.len() {
                // It may go on in the next bytes.
                break;
            }
            let name: Box<str> = String::from_utf8_lossy(name).into();
            stream.asked.insert(name);
            from = start;
        }
        stream.raw |= memmem::find(&stream.tail, EXPORTS).is_some();
        for found in Found::in_bytes(&stream.tail) {
            let number = found.number.into_iter();
            stream.said.extend(number.map(|number| Mark { owner: found.owner.into(), number }));
        }
        let gone = stream.tail.len().saturating_sub(TAIL_BYTES);
        stream.tail.drain(..gone);
    }

    /// The server submits these bytes to a send: what is wrong about that?
    pub fn sending(&mut self, connection: u64, bytes: &[u8], now: Instant) -> Option<Leak> {
        let stream = self.streams.entry(connection).or_default();
        let end = stream.sent + bytes.len() as u64;
        stream.sends.push_back((stream.sent, end, now));
        if stream.sends.len() > SENDS_KEPT {
            stream.sends.pop_front();
        }
        for found in Found::in_bytes(bytes) {
            self.seen += 1;
            let stranger = !stream.asked.is_empty() && !stream.asked.contains(found.owner);
            // In a file, what was overwritten in part may look like a name that nobody has.
            let nobody = stream.raw && !self.durable.keys().any(|mark| *mark.owner == *found.owner);
            if stranger && !nobody {
                return Some(Leak::Stranger(found.owner.into()));
            }
            if stream.raw {
                continue;
            }
            let Some(number) = found.number else { continue };
            let mark = Mark { owner: found.owner.into(), number };
            if !self.durable.contains_key(&mark) && !stream.said.contains(&mark) {
                return Some(Leak::NotDurable(mark));
            }
        }
        None
    }

    /// The network took so many bytes of a send.
    pub fn sent(&mut self, connection: u64, bytes: u64) {
        self.streams.entry(connection).or_default().sent += bytes;
    }

    /// When the byte at `offset` of a connection's responses was first given to a send.
    pub fn submitted_at(&self, connection: u64, offset: u64) -> Option<Instant> {
        let sends = &self.streams.get(&connection)?.sends;
        let covers = |send: &&(u64, u64, Instant)| send.0 <= offset && offset < send.1;
        sends.iter().find(covers).map(|send| send.2)
    }

    /// A client heard that the transaction of this mark is committed, in an answer that was first
    /// submitted at that moment: since when is it durable, if that is too late?
    pub fn acknowledged(&mut self, mark: &str, submitted_at: Instant) -> Option<Option<Instant>> {
        let found = Found::in_bytes(mark.as_bytes()).next();
        let number = mark.rsplit(':').next().and_then(|digits| digits.parse().ok());
        let mark = Mark { owner: found?.owner.into(), number: number? };
        self.acknowledged += 1;
        match self.durable.get(&mark) {
            Some(since) if *since <= submitted_at => None,
            since => Some(since.copied()),
        }
    }
}

/// What may not leave.
#[derive(Debug)]
pub enum Leak {
    /// A mark of somebody whom the connection never asked about.
    Stranger(String),
    /// A mark that is not durable.
    NotDurable(Mark),
}

/// A mark in a stretch of bytes.
pub struct Found<'a> {
    /// Whose it is.
    pub owner: &'a str,
    /// Its number, unless it is cut off there.
    number: Option<u64>,
}

static MARK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"mark:"));

impl Found<'_> {
    /// All marks in the bytes.
    pub fn in_bytes(bytes: &[u8]) -> impl Iterator<Item = Found<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                // A long answer to a slow client is submitted, and looked through, many times.
                at += MARK.find(&bytes[at..])? + MARK.needle().len();
                let rest = &bytes[at..];
                let name = name_at(rest);
                if name.is_empty() || rest.get(name.len()) != Some(&b':') {
                    continue;
                }
                let digits = &rest[name.len() + 1..];
                let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let whole = (1..20).contains(&count) && count < digits.len();
                let number = str::from_utf8(&digits[..count]).ok().filter(|_| whole);
                let Ok(owner) = str::from_utf8(name) else { continue };
                return Some(Found { owner, number: number.and_then(|text| text.parse().ok()) });
            }
        })
    }
}

/// The marks in the rows of a page image.
#[must_use]
pub fn in_rows(page: &[u8], number: u32) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    let texts = leaf_cells(page, number).into_iter().flat_map(|cell| cell.columns());
    for text in texts {
        let Value::Text(text) = text else { continue };
        let Some(mark) = whole(text) else { continue };
        if marks.last() != Some(&mark) {
            marks.push(mark);
        }
    }
    marks
}

fn whole(text: &[u8]) -> Option<Mark> {
    let text = str::from_utf8(text.strip_prefix(b"mark:")?).ok()?;
    let (owner, number) = text.split_once(':')?;
    Some(Mark { owner: owner.into(), number: number.parse().ok()? })
}

fn name_at(bytes: &[u8]) -> &[u8] {
    let belongs = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let count = bytes.iter().take(OWNER_BYTES_MAX).take_while(belongs).count();
    &bytes[..count]
}
