//! A wall clock that is set, or runs unevenly, changes what SQL says of the time, for how many hours of
//! the calendar use is counted, when a database's days are over, and nothing else.

use simulator::draws::Span;
use simulator::world::{Options, Outcome, Profile, run};

/// The same world, but for how far its wall clock is off.
fn world(seed: u64, step_ns: u64, drift_per_million: i64) -> Outcome {
    let mut options = Options::draw(seed, Profile::Swarm);
    // Ends of databases are dates.
    options.mortals = 0;
    options.keys = 0;
    options.faults.clock_jumps = 1;
    options.faults.wall_steps = 3;
    options.faults.wall_step_ns = Span::new(step_ns, step_ns);
    options.faults.wall_drift_per_million = drift_per_million;
    run(options, Vec::new(), None)
}

#[test]
fn a_wall_step_changes_no_timeout() {
    // In these, the same databases have used something in as many hours.
    for seed in [2, 11, 14] {
        let even = world(seed, 1, 0);
        let uneven = world(seed, 3_600_000_000_000, 500);
        for outcome in [&even, &uneven] {
            assert!(outcome.violation.is_none(), "{}", outcome.line());
            assert!(outcome.numbers.contains(" wall-step="), "seed {seed} has no step");
        }
        assert_eq!((even.events, even.at), (uneven.events, uneven.at), "seed {seed}");
        assert_eq!(even.numbers, uneven.numbers, "seed {seed}");
    }
}
