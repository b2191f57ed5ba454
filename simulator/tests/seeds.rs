//! Whole worlds in the ordinary tests: fixed seeds twice, seeds that found something, and a canary.
//!
//! One test function runs one world after the other on one thread: SQLite's random generator is one
//! per process, and the books are one per thread.

use simulator::world::{Options, Outcome, Profile, run};

/// Seeds that found a bug once: the profile, the seed, and what it was. Draws move when a world learns
/// something new, so an old seed is another world today; what must not come back has a script too
/// (`loops/`, the tests of storage and server).
const FOUND: &[(Profile, u64, &str)] = &[
    (Profile::Calm, 1, "a stopping engine closed the log's files before its last batch"),
    (Profile::Calm, 76, "a partial checkpoint sent readers to pages not written yet"),
    (Profile::Drawn, 6, "a checkpoint told the catalogue a stamp that no page carried"),
    (Profile::Drawn, 14, "a segment's name was never synced after a kill while it was made"),
    (Profile::Drawn, 30, "an empty catalogue file refused every later start"),
    (Profile::Drawn, 32, "a checkpoint told the catalogue a stamp that no page carried"),
    (Profile::Drawn, 1010, "a stop during the start left the engine serving"),
    (Profile::Drawn, 2000, "the plain SQLite of an oracle reset the world's generator"),
    (Profile::Drawn, 2028, "the look at the header at open was judged as page 1"),
    (Profile::Drawn, 2059, "a dropped tenant kept the log full while its tasks waited for room"),
    (Profile::Swarm, 7121, "a drop of a fenced tenant left its file"),
    (Profile::Swarm, 20009, "a damaged tenant's next writer sealed a commit without a reservation"),
    (Profile::Swarm, 54, "a refused first segment was never tried again"),
    (Profile::Calm, 24, "a log full of creates had no room for the rows that end checkpoints"),
    (Profile::Drawn, 6, "the same, with many databases of one small commit each"),
    (Profile::Drawn, 8, "the same"),
    (Profile::Drawn, 56, "the same"),
    (Profile::Drawn, 26, "an answer told of a database whose creation was not durable"),
    (Profile::Swarm, 1, "an idle database that met sixteen checkpoints was never closed"),
    (Profile::Swarm, 16, "two reads that failed in one checkpoint fenced a healthy database"),
    (
        Profile::Swarm,
        21,
        "a second checkpoint pass wrote later commits under the first one's stamp",
    ),
    (Profile::Swarm, 31, "one sync that failed late fenced a healthy database"),
    (Profile::Swarm, 38, "one lost write of both superblocks made the log unreadable"),
    (Profile::Swarm, 59, "the checkpoint of a tenant being fenced wrote commits that no log held"),
    (Profile::Swarm, 1_306_010_894, "a stop on a full disk never ended"),
    (
        Profile::Swarm,
        71_099,
        "reading back took pages of the log, under the same stamp, for those of a lost sync",
    ),
    (Profile::Swarm, 3_318_064_868, "one read error of a spilled page fenced a healthy database"),
    (
        Profile::Swarm,
        1148,
        "a checkpoint without memory kept a transaction open: no later one could begin",
    ),
    (
        Profile::Drawn,
        52_033,
        "a memory budget full of frames left its checkpoint none, and the log full for ever",
    ),
    (
        Profile::Drawn,
        61_114,
        "a request of a dropped database was told of damage: its pages had left the log",
    ),
    (
        Profile::Drawn,
        410_035,
        "a first start that ended between two batches of the new catalogue allowed no second one",
    ),
    (Profile::Swarm, 51_059, "a commit's bytes were counted long after they were charged"),
    (Profile::Swarm, 1018, "a crash left one superblock of two, and no start wrote the other one"),
    (Profile::Drawn, 111_326_341, "a fleet asked on for as long as a quiet world lasts"),
    (
        Profile::Calm,
        900_000_813,
        "a bulk create, asked again, took copies that a start was giving up for copies that are there",
    ),
    (Profile::Swarm, 295, "a commit was reported as interrupted by a late look at the clock"),
];

fn world(seed: u64, profile: Profile) -> Outcome {
    run(Options::draw(seed, profile), Vec::new(), None)
}

#[track_caller]
fn check_passes(outcome: &Outcome) {
    let story = || format!("{}\n{}\n{}", outcome.line(), outcome.numbers, outcome.commands());
    assert!(outcome.violation.is_none(), "{}", story());
}

fn fixed_seeds_pass_twice_with_one_hash() {
    for seed in 100..120 {
        let profile = Profile::ALL[(seed % 3) as usize];
        let first = world(seed, profile);
        check_passes(&first);
        let second = run(Options::draw(seed, profile), first.checkpoints.clone(), None);
        assert_eq!(second.divergence, None, "seed {seed} {profile}");
        assert_eq!(second.hash, first.hash, "seed {seed} {profile}");
    }
}

fn seeds_that_found_something_pass() {
    for (profile, seed, _) in FOUND {
        check_passes(&world(*seed, *profile));
    }
}

#[test]
fn worlds() {
    fixed_seeds_pass_twice_with_one_hash();
    seeds_that_found_something_pass();
}
