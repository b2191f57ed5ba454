//! Two builds side by side: the same scenarios in turn with this binary's server and with another's.
//!
//! The load comes from this binary in both cases. What the machine does meanwhile falls on both, round by
//! round; the medians of the rounds are compared, and the ratio of each round is shown beside them.

use std::path::Path;

use serde_json::{Value, json};

use super::Options;
use super::report::{Report, Row, Table};
use super::scenario;

/// What one scenario came to, in requests a second: this build's and the other's, a pair for each round.
struct Pairs {
    name: &'static str,
    rates: Vec<(f64, f64)>,
}

/// Measures `rounds` rounds of both programs.
///
/// # Errors
/// A sentence for the person at the terminal: one of them could not be measured, or requests failed.
pub fn measure(options: &Options, this: &Path, other: &Path) -> Result<Table, String> {
    let mut all: Vec<Pairs> = Vec::new();
    for round in 1..=options.rounds {
        // Who comes second finds the machine as the first has left it: so they take turns at that, too.
        let order = if round % 2 == 1 { [this, other] } else { [other, this] };
        let reports = order.map(|program| measured(options, program));
        let [first, second] = reports;
        let (first, second) = (first?, second?);
        let (ours, theirs) = if round % 2 == 1 { (first, second) } else { (second, first) };
        for (ours, theirs) in ours.rows.iter().zip(&theirs.rows) {
            assert_eq!(ours.name, theirs.name);
            let pair = (per_second(ours), per_second(theirs));
            match all.iter_mut().find(|pairs| pairs.name == ours.name) {
                Some(pairs) => pairs.rates.push(pair),
                None => all.push(Pairs { name: ours.name, rates: vec![pair] }),
            }
        }
    }
    if all.is_empty() {
        return Err("these scenarios have no rate to compare".to_owned());
    }
    Ok(table(&all, options, other))
}

fn measured(options: &Options, program: &Path) -> Result<Report, String> {
    let said = |error: String| format!("{}: {error}", program.display());
    let report = scenario::measure(options, program.to_path_buf()).map_err(said)?;
    report.verdict().map_err(said)?;
    Ok(report)
}

fn per_second(row: &Row) -> f64 {
    row.outcome.per_second()
}

fn table(all: &[Pairs], options: &Options, other: &Path) -> Table {
    let heads =
        ["scenario", "this, requests/s", "other, requests/s", "ratio", "ratios of the rounds"];
    let mut table = Table::new("against another build", &heads);
    for pairs in all {
        let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.rates.iter().copied().unzip();
        let (ours, theirs) = (median(ours), median(theirs));
        let rounds = pairs.rates.iter().map(|(ours, theirs)| format!("{:.3}", ours / theirs));
        table.rows.push(vec![
            pairs.name.to_owned(),
            format!("{ours:.0}"),
            format!("{theirs:.0}"),
            format!("{:.3}", ours / theirs),
            rounds.collect::<Vec<String>>().join(" "),
        ]);
    }
    table.notes.push(format!(
        "medians of {} rounds of {} s in turn; the other is {}",
        options.rounds,
        options.seconds,
        other.display()
    ));
    table
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    let middle = rates.len() / 2;
    match rates.len() % 2 {
        0 => f64::midpoint(rates[middle - 1], rates[middle]),
        _ => rates[middle],
    }
}

/// The table as JSON, alone.
#[must_use]
pub fn json(table: &Table) -> Value {
    json!({ "tables": [table.json()] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_lie_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_of_the_medians_and_of_each_round() {
        let rates = vec![(90.0, 100.0), (110.0, 100.0), (95.0, 50.0)];
        let options = crate::bench::tests::options(&["--rounds", "3"]);
        let table = table(&[Pairs { name: "select", rates }], &options, Path::new("old"));
        assert_eq!(table.rows, [["select", "95", "100", "0.950", "0.900 1.100 1.900"]]);
        assert!(table.notes[0].contains("3 rounds"), "{}", table.notes[0]);
    }
}
