//! What databases of weight 1, 2 and 4, and one with a reservation, get of the processor and of the
//! disk while all want more, by the server's own books (`usage`), second by second.
//!
//! The kernel's page cache is no disk that anybody could saturate, so the disk is made one by a rate:
//! the three are in one organisation, whose ceiling is [`DISK_RATE`]. Whose bytes go next under it is
//! what is measured. Each keeps less in memory than it reads; what is written stays there, for a database has
//! one writer at a time, which a read would keep from wanting all that its weight allows.

use std::time::Duration;

use serde_json::Value;

use super::neighbours::{ATTACKERS, CLIENTS, COUNT_LONG, percent};
use super::{Bench, OK};
use crate::bench::crowd::Tally;
use crate::bench::load::Until;
use crate::bench::report::Table;
use crate::bench::request::{Choice, Order, ROW_FIRST, Template, VALUE_HOLE};

/// Of those who compete.
const WEIGHTS: [f64; 3] = [1.0, 2.0, 4.0];

/// Their databases: what a table calls them, their name, and their weight in a budget.
const COMPETITORS: [(&str, &str, u64); 3] = [
    ("weight 1", "share-one", 100),
    ("weight 2", "share-two", 200),
    ("weight 4", "share-four", 400),
];

/// What is reserved beside them: a fifth of the core.
const RESERVED_PER_MILLION: u64 = 200_000;

/// A fiftieth of that: 100 who do it are answered within the time of a request.
const COUNT_SHORT: &str = "WITH RECURSIVE number(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM number \
                           LIMIT 100000) SELECT count(*), max(x) FROM number";

/// What the three may read and write together in a second, and save up: little enough that all of them
/// always have requests that wait, also when the server had to wait for its core for some milliseconds.
const DISK_RATE: (&str, &str) = ("16MiB", "64KiB");

/// Connections of each of them: a page is read at a time on each.
const DISK_CLIENTS: u32 = 16;

/// What each of them may keep in memory, and its rows, of which one fills a page: four times as much.
const DISK_MEMORY: &str = "8MiB";
const DISK_ROWS: u32 = 8_000;

/// Reads 100 pages, somewhere.
const READ: &str =
    "SELECT sum(length(value)) FROM (SELECT value FROM bench WHERE id >= ? LIMIT 100)";

/// Writes four pages, somewhere among these rows.
const WRITE: &str = "UPDATE bench SET value = randomblob(3800) WHERE id IN (SELECT id FROM bench WHERE \
                     id >= ? LIMIT 4)";
const WRITE_ROWS: u32 = 1_000;

/// Counters of `usage` that are shared, and how their sum in a second is told.
#[derive(Clone, Copy)]
struct Books {
    counters: &'static [&'static str],
    total: fn(f64) -> String,
}

const PROCESSOR: Books = Books { counters: &["cpu_ns"], total: |total| percent(total / 1e9) };

const DISK: Books = Books {
    counters: &["io_read_bytes", "io_written_bytes"],
    total: |total| format!("{:.1} MiB", total / f64::from(1 << 20)),
};

impl Bench<'_> {
    pub(super) fn shares(&mut self) -> Result<(), String> {
        let mut parties = Vec::new();
        for (party, name, weight) in COMPETITORS {
            let mut competitor = self.attacker(name, COUNT_LONG, CLIENTS)?;
            competitor.name = party;
            self.budget(name, &format!(r#"{{"weight":{weight}}}"#))?;
            parties.push(competitor);
        }
        parties.extend(COMPETITORS.map(|(party, name, _)| self.usage(party, name)));
        let (outcome, wait) = self.crowd("shares of processor time", &parties)?;
        let heads = ["second", "weight 1", "weight 2", "weight 4", "deviation", "core used"];
        let mut table = Table::new("shares of processor time", &heads);
        let worst = share_rows(&mut table, &outcome.tallies[3..], PROCESSOR, &WEIGHTS);
        table.notes.push(format!("worst deviation from 1:2:4 of any second: {}", percent(worst)));
        table.notes.push(format!("waiting for a core: {}", percent(wait)));
        for tally in &outcome.tallies {
            table.note_first_error("a competitor", tally);
        }
        self.tables.push(table);
        self.reservation()?;
        self.disk_shares("reads", "shares of the disk, reads", READ, DISK_ROWS)?;
        self.disk_shares("writes", "shares of the disk, writes", WRITE, WRITE_ROWS)
    }

    /// One connection with a reservation beside a hundred attackers.
    fn reservation(&mut self) -> Result<(), String> {
        let mut reserved = self.attacker("reserved", COUNT_SHORT, 1)?;
        let budget = format!(r#"{{"cpu_reserved_per_million":{RESERVED_PER_MILLION}}}"#);
        self.budget("reserved", &budget)?;
        reserved.name = "with a reservation";
        self.prepare("attackers", ATTACKERS, 0)?;
        let template = self.statement("attackers", COUNT_SHORT);
        let attackers = self.party("attackers", template, ATTACKERS);
        let usage = self.usage("its use", "reserved");
        let parties = [reserved, attackers, usage];
        let (outcome, wait) = self.crowd("a reservation", &parties)?;
        let mut table = Table::new("a reservation", &["second", "of the core"]);
        let readings = readings(&outcome.tallies[2], PROCESSOR.counters);
        let shares: Vec<f64> = readings
            .windows(2)
            .map(|pair| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0) / 1e9)
            .collect();
        for (second, share) in shares.iter().enumerate() {
            table.rows.push(vec![(second + 1).to_string(), percent(*share)]);
        }
        let reserved = RESERVED_PER_MILLION as f64 / 1e6;
        table.notes.push(format!(
            "{} reserved, one connection in a closed loop, beside {ATTACKERS} attackers; least of \
             any second: {}; waiting for a core: {}",
            percent(reserved),
            percent(shares.iter().copied().fold(f64::INFINITY, f64::min)),
            percent(wait)
        ));
        for tally in &outcome.tallies {
            table.note_first_error("a competitor", tally);
        }
        self.tables.push(table);
        Ok(())
    }

    /// Three who read, or write, as much as they get of one organisation's rate.
    fn disk_shares(
        &mut self,
        what: &str,
        label: &'static str,
        sql: &str,
        rows: u32,
    ) -> Result<(), String> {
        let organisation = format!("/v1/organisations/disk-{what}");
        let (rate, burst) = DISK_RATE;
        self.put(&organisation, "{}")?;
        self.put(&format!("{organisation}/groups/three"), "{}")?;
        let mut parties = Vec::new();
        let names: Vec<String> =
            COMPETITORS.iter().map(|(_, name, _)| format!("{what}-{name}")).collect();
        for ((party, _, weight), name) in COMPETITORS.into_iter().zip(&names) {
            self.fill_pages(name)?;
            let path = format!("/v1/namespaces/{}-00000000/budget", self.base_name(name));
            let budget = format!(r#"{{"weight":{weight},"memory_bytes":"{DISK_MEMORY}"}}"#);
            self.put(&path, &format!(r#"{{"group":"disk-{what}/three","budget":{budget}}}"#))?;
            let argument = format!(r#"{{"type":"integer","value":"{VALUE_HOLE}"}}"#);
            let statements = [(sql, Some(argument.as_str()))];
            let template =
                Template::pipeline(self.target(), &self.base_name(name), &statements, OK);
            let mut competitor = self.party(party, template, DISK_CLIENTS);
            competitor.choice = Choice { order: Order::Spread, tenants: 1, rows };
            parties.push(competitor);
        }
        let budget = format!(r#"{{"io_bytes_per_second":"{rate}","io_burst_bytes":"{burst}"}}"#);
        self.put(&organisation, &format!(r#"{{"budget":{budget}}}"#))?;
        for ((party, _, _), name) in COMPETITORS.into_iter().zip(&names) {
            parties.push(self.usage(party, name));
        }
        let (outcome, wait) = self.crowd(label, &parties)?;
        let heads = ["second", "weight 1", "weight 2", "weight 4", "deviation", "together"];
        let mut table = Table::new(label, &heads);
        let tallies = &outcome.tallies[COMPETITORS.len()..];
        let worst = share_rows(&mut table, tallies, DISK, &WEIGHTS);
        table.notes.push(format!(
            "worst deviation from 1:2:4 of any second: {}; of all seconds together: {}; ceiling of \
             their organisation: {rate} a second; waiting for a core: {}",
            percent(worst),
            percent(share_of_all(tallies, DISK, &WEIGHTS)),
            percent(wait)
        ));
        for tally in &outcome.tallies {
            table.note_first_error("a competitor", tally);
        }
        self.tables.push(table);
        Ok(())
    }

    /// A database whose rows have a page each.
    fn fill_pages(&mut self, name: &str) -> Result<(), String> {
        /// Rows of one request: half a log batch or so.
        const ROWS_AT_ONCE: u32 = 200;
        self.prepare(name, 1, 0)?;
        for number in (1..=DISK_ROWS).step_by(ROWS_AT_ONCE as usize) {
            let first = ROW_FIRST + number - 1;
            let fill = format!(
                "INSERT INTO bench WITH RECURSIVE number(id) AS (SELECT {first} UNION ALL SELECT id + \
                 1 FROM number LIMIT {ROWS_AT_ONCE}) SELECT id, randomblob(3800) FROM number"
            );
            self.once(name, &fill)?;
        }
        Ok(())
    }

    /// A statement, once, on the first database of `name`.
    fn once(&mut self, name: &str, sql: &str) -> Result<(), String> {
        let template = self.statement(name, sql);
        let choice = Choice { order: Order::Sequential, tenants: 1, rows: 1 };
        let label = format!("{name}: preparing");
        let outcome = self.load(&label, &template, choice, Until::Requests(1))?;
        super::all_good(&label, &outcome)
    }
}

// ---- the books ----

/// Seconds since the start, and the sum of these counters then.
fn readings(tally: &Tally, counters: &[&str]) -> Vec<(f64, f64)> {
    let reading = |(at, body): &(Duration, Vec<u8>)| {
        let json: Value = serde_json::from_slice(body).ok()?;
        let count = |counter: &&str| json["total"][*counter].as_u64().unwrap_or(0) as f64;
        Some((at.as_secs_f64(), counters.iter().map(count).sum()))
    };
    tally.kept.iter().filter_map(reading).collect()
}

/// A row for each second: the shares of those who compete, by the books. The largest deviation of
/// a share from what its weight says, as a part of that, is returned.
fn share_rows(table: &mut Table, tallies: &[Tally], books: Books, weights: &[f64]) -> f64 {
    assert_eq!(tallies.len(), weights.len());
    let all: Vec<Vec<(f64, f64)>> =
        tallies.iter().map(|tally| readings(tally, books.counters)).collect();
    let seconds = all.iter().map(Vec::len).min().unwrap_or(0);
    let sum: f64 = weights.iter().sum();
    let mut worst: f64 = 0.0;
    for second in 1..seconds {
        // By the time between its own two readings, for the three are not read at once.
        let rate = |reads: &Vec<(f64, f64)>| {
            let (from, to) = (reads[second - 1], reads[second]);
            (to.1 - from.1) / (to.0 - from.0)
        };
        let rates: Vec<f64> = all.iter().map(rate).collect();
        let total: f64 = rates.iter().sum();
        let deviation = rates.iter().zip(weights).map(|(rate, weight)| {
            let due = weight / sum;
            ((rate / total - due) / due).abs()
        });
        let deviation = deviation.fold(0.0, f64::max);
        worst = worst.max(deviation);
        let mut row = vec![second.to_string()];
        row.extend(rates.iter().map(|rate| format!("{:.4}", rate / total * sum)));
        row.extend([percent(deviation), (books.total)(total)]);
        table.rows.push(row);
    }
    worst
}

/// The largest deviation of a share of everything between the first reading and the last.
fn share_of_all(tallies: &[Tally], books: Books, weights: &[f64]) -> f64 {
    let rate = |tally: &Tally| {
        let reads = readings(tally, books.counters);
        let (Some(from), Some(to)) = (reads.first(), reads.last()) else { return 0.0 };
        (to.1 - from.1) / (to.0 - from.0)
    };
    let rates: Vec<f64> = tallies.iter().map(rate).collect();
    let (total, sum): (f64, f64) = (rates.iter().sum(), weights.iter().sum());
    let deviations = rates.iter().zip(weights).map(|(rate, weight)| {
        let due = weight / sum;
        ((rate / total - due) / due).abs()
    });
    deviations.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_by_second() {
        let tally = |rate: u64| {
            let body = |second: u64| format!(r#"{{"total":{{"cpu_ns":{}}}}}"#, rate * second);
            let kept = (0..3).map(|n| (Duration::from_secs(n), body(n).into_bytes())).collect();
            Tally { kept, ..Tally::default() }
        };
        let mut table = Table::new("", &[]);
        let tallies = [tally(100_000_000), tally(200_000_000), tally(400_000_000)];
        assert!(share_rows(&mut table, &tallies, PROCESSOR, &[1.0, 2.0, 4.0]) < 1e-9);
        assert_eq!(table.rows[1], ["2", "1.0000", "2.0000", "4.0000", "0.0 %", "70.0 %"]);
        let worst = share_rows(&mut table, &tallies, PROCESSOR, &[1.0, 1.0, 1.0]);
        assert!((worst - 5.0 / 7.0).abs() < 1e-9, "{worst}");
    }
}
