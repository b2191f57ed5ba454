//! The serial order of one database, as it tells it itself, and the simplest database that replays
//! it.
//!
//! Every transaction of our clients appends one row to the table `journal`: a number one larger
//! than the largest, and the transaction's mark. So the numbers are the order in which the
//! transactions took effect, and what a read finds must be what a map finds that takes them in this
//! order. Number 0 holds the mark of whoever made the tables: the name of this incarnation, for a
//! database that is dropped and made anew begins another journal.
//!
//! Owns the order and the states after each number. Who may stand where is the `model`'s.

use std::collections::BTreeMap;

use super::model::TransactionId;

/// Accounts of the bank in every database.
pub const ACCOUNTS: usize = 4;

/// What each of them holds at first.
pub const BALANCE: i64 = 1_000_000;

/// What a transaction inserts: rows `first` to `first + rows - 1`, each with so much padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Id of the first row.
    pub first: u64,
    /// How many rows.
    pub rows: u64,
    /// Words of 8 bytes of padding per row.
    pub pad_words: u64,
}

impl Shape {
    /// What a read shows of it.
    #[must_use]
    pub fn found(self) -> Found {
        Found {
            rows: self.rows,
            first: self.first,
            last: self.first + self.rows - 1,
            pad_bytes: self.rows * self.pad_words * 8,
            intact: self.rows,
        }
    }
}

/// What was found under one mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many rows.
    pub rows: u64,
    /// Smallest row id.
    pub first: u64,
    /// Largest row id.
    pub last: u64,
    /// Bytes of padding, together.
    pub pad_bytes: u64,
    /// Rows whose padding is what it should be.
    pub intact: u64,
}

/// An amount that goes from one account to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Index of the account that gives.
    pub source: usize,
    /// Index of the one that takes.
    pub target: usize,
    /// How much.
    pub amount: i64,
}

/// What a transaction changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make the tables, if there are none.
    Setup,
    /// Insert rows under its mark.
    Insert(Shape),
    /// Delete the rows of another.
    Delete(TransactionId),
    /// Move money.
    Transfer(Transfer),
    /// Make the table `extra` anew, with a column that names the transaction, and have an index on
    /// the rows or none.
    Schema {
        /// The index is to be there.
        index: bool,
    },
}

/// What the schema says besides the tables of everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Who made the table `extra`.
    pub table: Option<TransactionId>,
    /// Whether the index is there.
    pub index: bool,
}

/// Everything in a database at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Rows, by the transaction that inserted them.
    pub rows: BTreeMap<TransactionId, Found>,
    /// What the accounts hold.
    pub balances: [i64; ACCOUNTS],
    /// What the schema says.
    pub extras: Extras,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: TransactionId,
    /// The latest moment at which this one or one before it was asked for.
    asked_max: u64,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    shape: Shape,
    begins: u64,
    /// The number that deleted it.
    ends: u64,
}

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    entries: Vec<Entry>,
    /// Known numbers after a gap.
    ahead: BTreeMap<u64, TransactionId>,
    /// Rows that are there at the end.
    live: BTreeMap<TransactionId, Life>,
    /// Rows that were deleted, in the order of their deletion.
    ended: Vec<(TransactionId, Life)>,
    balances: Vec<(u64, [i64; ACCOUNTS])>,
    extras: Vec<(u64, Extras)>,
}

impl Journal {
    /// Numbers known without a gap, from 0 on.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Who stands at a number, if that is known.
    #[must_use]
    pub fn at(&self, n: u64) -> Option<TransactionId> {
        match self.entries.get(n as usize) {
            Some(entry) => Some(entry.id),
            None => self.ahead.get(&n).copied(),
        }
    }

    /// All known entries, the last one first.
    pub fn backwards(&self) -> impl Iterator<Item = (u64, TransactionId)> + '_ {
        let ahead = self.ahead.iter().rev().map(|(n, id)| (*n, *id));
        let entries = self.entries.iter().enumerate().rev();
        ahead.chain(entries.map(|(n, entry)| (n as u64, entry.id)))
    }

    /// The latest moment at which anyone before `n` was asked for.
    #[must_use]
    pub fn asked_before(&self, n: u64) -> u64 {
        n.checked_sub(1).map_or(0, |before| self.entries[before as usize].asked_max)
    }

    /// Remember who stands at a number that nobody is known to hold.
    pub fn place(&mut self, n: u64, id: TransactionId) {
        assert!(self.at(n).is_none(), "a number is taken once");
        self.ahead.insert(n, id);
    }

    /// The next entry without a gap, if it is known: it can be applied.
    #[must_use]
    pub fn next(&self) -> Option<TransactionId> {
        self.ahead.get(&self.len()).copied()
    }

    /// Replay the next entry. Gives the number of rows that a delete takes.
    pub fn apply(&mut self, id: TransactionId, asked_at: u64, change: Change) -> u64 {
        let n = self.len();
        assert_eq!(self.ahead.remove(&n), Some(id), "entries are applied in order");
        let asked_max = self.asked_before(n).max(asked_at);
        self.entries.push(Entry { id, asked_max });
        match change {
            Change::Setup => {
                self.balances.push((n, [BALANCE; ACCOUNTS]));
                self.extras.push((n, Extras::default()));
            }
            Change::Insert(shape) => {
                self.live.insert(id, Life { shape, begins: n, ends: u64::MAX });
            }
            Change::Delete(victim) => {
                if let Some(life) = self.live.remove(&victim) {
                    self.ended.push((victim, Life { ends: n, ..life }));
                    return life.shape.rows;
                }
            }
            Change::Transfer(Transfer { source, target, amount }) => {
                let mut balances = self.balances.last().expect("number 0 set them").1;
                balances[source] -= amount;
                balances[target] += amount;
                self.balances.push((n, balances));
            }
            Change::Schema { index } => self.extras.push((n, Extras { table: Some(id), index })),
        }
        0
    }

    /// The state after number `n`, which must be known without a gap.
    #[must_use]
    pub fn state(&self, n: u64) -> State {
        assert!(n < self.len());
        let later = self.ended.iter().rev().take_while(|(_, life)| life.ends > n);
        let all = self.live.iter().map(|(id, life)| (*id, *life)).chain(later.copied());
        let begun = all.filter(|(_, life)| life.begins <= n);
        State {
            rows: begun.map(|(id, life)| (id, life.shape.found())).collect(),
            balances: at(&self.balances, n),
            extras: at(&self.extras, n),
        }
    }

    /// How many rows of one transaction are there after number `n`.
    #[must_use]
    pub fn rows(&self, id: TransactionId, n: u64) -> u64 {
        let ended = self.ended.iter().rev().find(|(ended, _)| *ended == id).map(|(_, life)| *life);
        let life = self.live.get(&id).copied().or(ended);
        let there = life.filter(|life| life.begins <= n && n < life.ends);
        there.map_or(0, |life| life.shape.rows)
    }

    /// How many transactions have rows at the end.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// One of them, the `index`th modulo their number.
    #[must_use]
    pub fn victim(&self, index: u64) -> Option<TransactionId> {
        let count = self.live.len().max(1) as u64;
        self.live.keys().nth((index % count) as usize).copied()
    }
}

/// The newest value that is not newer than `n`.
fn at<T: Copy>(values: &[(u64, T)], n: u64) -> T {
    let after = values.partition_point(|(number, _)| *number <= n);
    values[after - 1].1
}
