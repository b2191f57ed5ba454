//! Who asks what, how often, and of which database: kinds of clients, popularity, scenarios.
//!
//! Owns the curves and the weights, as data. A scenario is a stretch of the run with another pace,
//! other weights and perhaps one database in the focus; everything else stays the random mix. No
//! choice is fixed at the start: kinds are drawn for every visit of a client.

use storage::io::Instant;

use crate::draws::{Draws, Stream};
use crate::settings::Setting;

/// What a visit of a client is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// Asks for a few rows by their mark.
    PointReader,
    /// Small transactions, one at a time.
    SmallWriter,
    /// Reads journal, rows, accounts and schema in one statement.
    JournalChecker,
    /// Moves money between accounts.
    Bank,
    /// Reads every row.
    Scanner,
    /// Transactions as large as the cache and larger; some roll back.
    BulkLoader,
    /// Changes the schema in transactions.
    SchemaChanger,
    /// Holds a transaction open between requests.
    Holder,
    /// Batches, and several requests at once.
    Batcher,
    /// Reads and writes with cursors.
    CursorStreamer,
    /// A short-lived database: made, used a little, dropped.
    Context,
    /// Creates, drops, lists.
    ControlPlane,
    /// Loses patience, and asks again.
    Retrier,
}

impl Kind {
    /// All kinds, in the order of their weights.
    pub const ALL: [Kind; 13] = [
        Kind::PointReader,
        Kind::SmallWriter,
        Kind::JournalChecker,
        Kind::Bank,
        Kind::Scanner,
        Kind::BulkLoader,
        Kind::SchemaChanger,
        Kind::Holder,
        Kind::Batcher,
        Kind::CursorStreamer,
        Kind::Context,
        Kind::ControlPlane,
        Kind::Retrier,
    ];

    /// The name of its weight.
    #[must_use]
    pub fn weight_name(self) -> &'static str {
        match self {
            Kind::PointReader => "weight_point_reader",
            Kind::SmallWriter => "weight_small_writer",
            Kind::JournalChecker => "weight_journal_checker",
            Kind::Bank => "weight_bank",
            Kind::Scanner => "weight_scanner",
            Kind::BulkLoader => "weight_bulk_loader",
            Kind::SchemaChanger => "weight_schema_changer",
            Kind::Holder => "weight_holder",
            Kind::Batcher => "weight_batcher",
            Kind::CursorStreamer => "weight_cursor_streamer",
            Kind::Context => "weight_context",
            Kind::ControlPlane => "weight_control_plane",
            Kind::Retrier => "weight_retrier",
        }
    }
}

/// A weight for each kind; 0 is never.
pub type Weights = [u64; Kind::ALL.len()];

/// Weights when all kinds are there: mostly small reads and writes.
pub const USUAL: Weights = [50, 30, 20, 10, 3, 1, 2, 8, 12, 6, 4, 3, 5];

/// Draw a kind.
///
/// # Panics
/// If all weights are 0.
pub fn draw_kind(draws: &mut Draws, entity: u64, weights: &Weights) -> Kind {
    let sum: u64 = weights.iter().sum();
    let mut at = draws.below(Stream::Workload, entity, sum);
    for (kind, weight) in Kind::ALL.into_iter().zip(weights) {
        if at < *weight {
            return kind;
        }
        at -= weight;
    }
    unreachable!("the draw is below the sum")
}

// ---- popularity ----

/// How often each database is asked, by a table of whole numbers.
#[derive(Clone, Debug)]
pub struct Popularity {
    /// Sums of the weights up to each database.
    sums: Vec<u64>,
}

/// Bits after the point of the numbers below.
const POINT: u32 = 16;
/// One, in the table of powers of two.
const ONE: u64 = 1 << 30;

impl Popularity {
    /// The `k`th of `count` databases weighs `1 / k ^ (hundredths / 100)`.
    #[must_use]
    pub fn zipf(count: usize, hundredths: u64) -> Popularity {
        let mut sum = 0;
        let weigh = |rank: u64| {
            sum += power_of_half(logarithm(rank) * hundredths / 100).max(1);
            sum
        };
        Popularity { sums: (1..=count as u64).map(weigh).collect() }
    }

    /// Draw one.
    pub fn draw(&self, draws: &mut Draws, entity: u64) -> usize {
        let sum = *self.sums.last().expect("there are databases");
        let at = draws.below(Stream::Workload, entity, sum);
        self.sums.partition_point(|sum| *sum <= at)
    }
}

/// Logarithm to the base 2 of a positive number, in units of `1 / 2^POINT`: squaring a number
/// between 1 and 2 gives one more bit of its logarithm.
fn logarithm(number: u64) -> u64 {
    let whole = u64::from(number.ilog2());
    let mut fraction = number << (31 - whole);
    let mut bits = whole;
    for _ in 0..POINT {
        fraction = (fraction * fraction) >> 31;
        bits <<= 1;
        if fraction >= 1 << 32 {
            fraction >>= 1;
            bits |= 1;
        }
    }
    bits
}

/// `2 ^ -exponent` in units of `1 / ONE`, the exponent in units of `1 / 2^POINT`.
fn power_of_half(exponent: u64) -> u64 {
    let mut power = ONE >> (exponent >> POINT).min(30);
    let mut root = ONE / 2;
    for bit in (0..POINT).rev() {
        root = (root * ONE).isqrt();
        if exponent >> bit & 1 == 1 {
            power = power * root / ONE;
        }
    }
    power
}

// ---- scenarios ----

/// How fast clients are while a scenario lasts, in thousandths of their usual pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// All the time the same.
    Flat(u64),
    /// Twice as fast every second up to a thousand times, and back.
    Ramp,
    /// A few in quick succession, then little.
    Bursts,
    /// Nothing until everything is cold, then all at once.
    Still,
}

/// A stretch of a run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// By which `--set scenarios=` names it.
    pub letter: char,
    pace: Pace,
    weights: Weights,
    /// One database gets most of it.
    focused: bool,
    /// Requests that a client sends at once, at most.
    width: u64,
    seconds: u64,
    /// Share of held transactions that are left alone, in percent.
    abandoned: u64,
    /// Requests that it adds to the run.
    operations: u64,
}

const fn weights(pairs: &[(Kind, u64)]) -> Weights {
    let mut weights = [0; Kind::ALL.len()];
    let mut index = 0;
    while index < pairs.len() {
        weights[pairs[index].0 as usize] = pairs[index].1;
        index += 1;
    }
    weights
}

const PLAIN: Scenario = Scenario {
    letter: '-',
    pace: Pace::Flat(1000),
    weights: USUAL,
    focused: false,
    width: 1,
    seconds: 60,
    abandoned: 30,
    operations: 0,
};

/// All scenarios.
pub const SCENARIOS: [Scenario; 9] = [
    // Creates in bursts, each with a first write.
    Scenario {
        letter: 'A',
        pace: Pace::Bursts,
        weights: weights(&[(Kind::Context, 10), (Kind::ControlPlane, 10), (Kind::SmallWriter, 3)]),
        seconds: 120,
        operations: 200,
        ..PLAIN
    },
    // A storm of short-lived databases.
    Scenario {
        letter: 'B',
        pace: Pace::Flat(20_000),
        weights: weights(&[(Kind::Context, 1)]),
        operations: 400,
        ..PLAIN
    },
    // All cold, then all asked in one moment.
    Scenario {
        letter: 'C',
        pace: Pace::Still,
        weights: weights(&[(Kind::PointReader, 5), (Kind::SmallWriter, 1)]),
        width: 48,
        seconds: 80,
        operations: 300,
        ..PLAIN
    },
    // One database grows a thousandfold in ten seconds, and back.
    Scenario {
        letter: 'D',
        pace: Pace::Ramp,
        focused: true,
        seconds: 70,
        operations: 600,
        ..PLAIN
    },
    // Big transactions while others commit.
    Scenario {
        letter: 'F',
        pace: Pace::Flat(4_000),
        weights: weights(&[(Kind::BulkLoader, 1), (Kind::SmallWriter, 12), (Kind::Bank, 4)]),
        operations: 100,
        ..PLAIN
    },
    // Writers at full pace: the log fills.
    Scenario {
        letter: 'G',
        pace: Pace::Flat(200_000),
        weights: weights(&[(Kind::SmallWriter, 10), (Kind::Batcher, 10), (Kind::BulkLoader, 1)]),
        width: 4,
        operations: 500,
        ..PLAIN
    },
    // Everybody sits idle in a transaction, one wants to write.
    Scenario {
        letter: 'K',
        weights: weights(&[(Kind::Holder, 10), (Kind::SmallWriter, 1)]),
        focused: true,
        abandoned: 90,
        operations: 60,
        ..PLAIN
    },
    // Dropped and created again under load, with old batons in use.
    Scenario {
        letter: 'M',
        pace: Pace::Flat(10_000),
        weights: weights(&[
            (Kind::ControlPlane, 4),
            (Kind::Holder, 6),
            (Kind::SmallWriter, 6),
            (Kind::JournalChecker, 4),
        ]),
        focused: true,
        operations: 200,
        ..PLAIN
    },
    // A quiet day: a request a minute, for hours.
    Scenario { letter: 'Q', pace: Pace::Flat(30), seconds: 86_400 * 3, ..PLAIN },
];

/// The scenarios of a world, by their index in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScenarioSet(u32);

impl ScenarioSet {
    /// None in four of ten seeds, one in nine of twenty, else two.
    pub fn draw(draws: &mut Draws, entity: u64) -> ScenarioSet {
        let count = match draws.below(Stream::Options, entity, 100) {
            0..40 => 0,
            40..85 => 1,
            _ => 2,
        };
        let mut set = ScenarioSet::default();
        for _ in 0..count {
            set.0 |= 1 << draws.index(Stream::Options, entity, SCENARIOS.len());
        }
        set
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Scenario> {
        let indexed = SCENARIOS.into_iter().enumerate();
        indexed.filter(move |(index, _)| self.0 >> index & 1 == 1).map(|(_, scenario)| scenario)
    }

    /// Whether the one of this letter is in it.
    #[must_use]
    pub fn has(self, letter: char) -> bool {
        self.iter().any(|scenario| scenario.letter == letter)
    }

    /// Requests that they add to the run.
    #[must_use]
    pub fn operations(self) -> u64 {
        self.iter().map(|scenario| scenario.operations).sum()
    }
}

impl Setting for ScenarioSet {
    fn show(&self) -> String {
        let letters: String = self.iter().map(|scenario| scenario.letter).collect();
        if letters.is_empty() { "none".to_owned() } else { letters }
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        let mut set = ScenarioSet::default();
        for letter in text.chars().filter(|_| text != "none") {
            let index = SCENARIOS.iter().position(|scenario| scenario.letter == letter);
            set.0 |= 1 << index.ok_or("letters of scenarios, or none, are expected")?;
        }
        *self = set;
        Ok(())
    }
}

/// What holds at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Thousandths of the usual pace; 0 is nothing at all.
    pub pace: u64,
    /// Of the kinds of visits.
    pub weights: Weights,
    /// The database that gets most of it.
    pub focus: Option<usize>,
    /// Requests that a client sends at once, at most.
    pub width: u64,
    /// Share of held transactions that are left alone, in percent.
    pub abandoned: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    scenario: Scenario,
    /// It begins when no more requests than these are left.
    operations_left: u64,
    began: Option<Instant>,
    focus: usize,
}

/// The scenarios of a world, as they come.
#[derive(Clone, Debug)]
pub struct Mix {
    weights: Weights,
    stretches: Vec<Stretch>,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Mix {
    /// Each scenario begins somewhere in the first two thirds of the run; a quiet day at once.
    pub fn new(
        draws: &mut Draws,
        set: ScenarioSet,
        weights: Weights,
        operations: u64,
        tenants: usize,
    ) -> Mix {
        let stretches = set.iter().map(|scenario| {
            let left = operations / 3 + draws.below(Stream::Options, 290, operations * 2 / 3 + 1);
            let quiet = scenario.letter == 'Q';
            Stretch {
                scenario,
                operations_left: if quiet { u64::MAX } else { left },
                began: None,
                focus: draws.index(Stream::Options, 291, tenants),
            }
        });
        let stretches = stretches.collect();
        Mix { weights, stretches }
    }

    /// What holds now: the first scenario that has begun and has not ended.
    pub fn now(&mut self, now: Instant, operations_left: u64) -> Moment {
        for stretch in &mut self.stretches {
            if operations_left > stretch.operations_left {
                continue;
            }
            let Scenario { pace, weights, focused, width, seconds, abandoned, .. } =
                stretch.scenario;
            let age_ns = now.since(*stretch.began.get_or_insert(now));
            if age_ns > seconds * SECOND_NS {
                continue;
            }
            let focus = focused.then_some(stretch.focus);
            // Whatever the seed leaves out stays out, unless the scenario is about it.
            let weights = if weights == USUAL { self.weights } else { weights };
            let pace = pace.at(age_ns / 1_000_000);
            return Moment { pace, weights, focus, width, abandoned };
        }
        let Scenario { width, abandoned, .. } = PLAIN;
        Moment { pace: 1_000, weights: self.weights, focus: None, width, abandoned }
    }
}

impl Pace {
    fn at(self, age_ms: u64) -> u64 {
        match self {
            Pace::Flat(pace) => pace,
            Pace::Ramp if age_ms < 60_000 => 1_000 << (age_ms / 1_000).min(10),
            Pace::Ramp => 1_000 << (70_000u64.saturating_sub(age_ms) / 1_000).min(10),
            Pace::Bursts if age_ms % 20_000 < 3_000 => 100_000,
            Pace::Bursts => 500,
            Pace::Still if age_ms < 65_000 => 0,
            Pace::Still => 1_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_logarithms_are_those_of_the_tables() {
        assert_eq!(logarithm(1), 0);
        assert_eq!(logarithm(8), 3 << POINT);
        // log2(10) = 3.321928 = 217,705 / 65,536.
        assert!(logarithm(10).abs_diff(217_705) < 3);
        assert_eq!(power_of_half(0), ONE);
        assert_eq!(power_of_half(2 << POINT), ONE / 4);
        // 1 / 10 of 2^30.
        assert!(power_of_half(logarithm(10)).abs_diff(ONE / 10) < 10_000);
    }

    #[test]
    fn the_first_database_is_as_popular_as_the_exponent_says() {
        for (hundredths, expected) in [(0, 100), (60, 398), (100, 1_000), (130, 1_995)] {
            let sums = Popularity::zipf(10, hundredths).sums;
            let (first, last) = (sums[0], sums[9] - sums[8]);
            assert!((first * 100 / last).abs_diff(expected) <= 2, "{hundredths}: {first} {last}");
        }
    }

    #[test]
    fn sets_of_scenarios_can_be_read_back() {
        for text in ["none", "AQ", "D", "CFG"] {
            let mut set = ScenarioSet::default();
            set.set(text).expect("letters of scenarios");
            assert_eq!(set.show(), text);
        }
        assert!(ScenarioSet::default().set("Z").is_err());
    }
}
