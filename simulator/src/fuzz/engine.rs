//! The loop: take an input that showed something, change it, run it, keep it if it shows more.

use std::collections::BTreeSet;

use storage::sometimes;

use super::{Entry, Random, Seen, Target, edits};

/// Inputs that are kept to be changed. When there are more, one that was kept before goes.
const KEPT_MAX: usize = 2_000;

/// Runs that a failing input may take to get smaller.
const SHRINKING_RUNS_MAX: usize = 3_000;

/// An input that must not do what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What it did.
    pub reason: String,
}

/// A target, and what is known of it.
pub struct Fuzzer {
    target: Box<dyn Target>,
    random: Random,
    kept: Vec<Vec<u8>>,
    known: BTreeSet<u64>,
    marks: usize,
    /// The input that runs, or that ran last.
    input: Vec<u8>,
    /// Inputs run so far.
    pub executions: u64,
    /// The execution that showed something new last.
    pub newest_at: u64,
}

impl Fuzzer {
    /// A fuzzer that has run nothing.
    #[must_use]
    pub fn new(entry: &Entry, seed: u64) -> Fuzzer {
        Fuzzer {
            target: (entry.make)(),
            random: Random::new(seed),
            kept: Vec::new(),
            known: BTreeSet::new(),
            marks: sometimes::reached_count(),
            input: Vec::new(),
            executions: 0,
            newest_at: 0,
        }
    }

    /// Distinct behaviours so far.
    #[must_use]
    pub fn behaviours(&self) -> usize {
        self.known.len()
    }

    /// Inputs that each showed something new.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Make the next input. It can be looked at before it runs, for it may end the process.
    pub fn next_input(&mut self) -> &[u8] {
        let random = &mut self.random;
        if self.kept.is_empty() || random.one_in(4) {
            self.input = self.target.invent(random);
            if !random.one_in(3) {
                return &self.input;
            }
        } else {
            // Of two the newer one: what was found last leads further.
            let newer = random.index(self.kept.len()).max(random.index(self.kept.len()));
            self.input.clone_from(&self.kept[newer]);
        }
        let other = match self.kept.len() {
            0 => &[][..],
            count => &self.kept[random.index(count)],
        };
        let bytes_max = self.target.input_bytes_max().max(self.input.len());
        edits::mutate(&mut self.input, random, self.target.words(), other, bytes_max);
        &self.input
    }

    /// Run the input of [`Fuzzer::next_input`].
    ///
    /// # Errors
    /// It failed; the failure holds the smallest input that was found to fail.
    pub fn run(&mut self) -> Result<(), Failure> {
        let input = std::mem::take(&mut self.input);
        let mut seen = Seen::default();
        self.executions += 1;
        if let Err(reason) = self.target.run(&input, &mut seen) {
            return Err(self.shrink(Failure { input, reason }));
        }
        let marks = sometimes::reached_count();
        let mut is_new = std::mem::replace(&mut self.marks, marks) < marks;
        for hash in seen.hashes {
            is_new |= self.known.insert(hash);
        }
        if is_new {
            self.newest_at = self.executions;
            if self.kept.len() == KEPT_MAX {
                let victim = self.random.index(KEPT_MAX);
                self.kept.swap_remove(victim);
            }
            self.kept.push(input.clone());
        }
        self.input = input;
        Ok(())
    }

    /// Run this input alone.
    ///
    /// # Errors
    /// What it did.
    pub fn replay(&mut self, input: &[u8]) -> Result<(), String> {
        self.target.run(input, &mut Seen::default())
    }

    /// Leave out what is not needed to fail: halves, quarters, …, single bytes.
    fn shrink(&mut self, mut failure: Failure) -> Failure {
        let mut runs = 0;
        let mut piece = failure.input.len() / 2;
        while piece > 0 {
            let mut at = 0;
            while at + piece <= failure.input.len() && runs < SHRINKING_RUNS_MAX {
                runs += 1;
                let mut input = failure.input.clone();
                input.drain(at..at + piece);
                match self.target.run(&input, &mut Seen::default()) {
                    Err(reason) => failure = Failure { input, reason },
                    Ok(()) => at += piece,
                }
            }
            piece /= 2;
        }
        failure
    }
}
