//! What the network and the clocks do to the little server.

use storage::io::{Clock, Instant, Io};

use super::{Echo, Talker, World, drive, speech, started};
use crate::draws::Span;
use crate::faults::{FaultKind, Faults};

const TALKERS: usize = 4;

fn talked(seed: u64, faults: Faults) -> (World, Echo, Vec<Talker>) {
    let (mut io, mut echo) = started(seed, faults);
    let address = echo.address.expect("listening");
    let mut talkers: Vec<Talker> =
        (0..TALKERS).map(|_| Talker::connect(&mut io, address, speech(3_000))).collect();
    let until = io.now().after(3_600_000_000_000);
    drive(&mut io, &mut echo, &mut talkers, until);
    (io, echo, talkers)
}

fn injected(io: &World, kind: FaultKind) -> u64 {
    io.fault_counts().of(kind).injected
}

#[test]
fn clogs_and_swizzles_delay_and_lose_nothing() {
    let (mut clogs, mut slower) = (0, 0);
    for seed in 0..20 {
        let calm = Faults::drawn(seed);
        let faults = Faults { clog_per_million: 20_000, swizzle_per_million: 5_000, ..calm };
        let (io, echo, talkers) = talked(seed, faults);
        for talker in &talkers {
            assert_eq!(talker.over, None, "seed {seed}");
            assert!(talker.heard == speech(3_000), "seed {seed}");
        }
        assert_eq!(echo.errors, 0);
        clogs += injected(&io, FaultKind::Clog);
        slower += u64::from(io.now() > talked(seed, calm).0.now());
    }
    assert!(clogs > 100 && slower >= 18, "{clogs} clogs, {slower} slower worlds");
}

#[test]
fn a_reset_under_way_reaches_both_ends_and_leaves_nothing() {
    let mut broken = 0;
    for seed in 0..20 {
        let faults = Faults { network_reset_per_million: 20_000, ..Faults::drawn(seed) };
        let (mut io, mut echo, mut talkers) = talked(seed, faults);
        let resets = injected(&io, FaultKind::Reset);
        let over = talkers.iter().filter(|talker| talker.over.is_some()).count() as u64;
        assert_eq!(over, resets, "seed {seed}");
        for talker in &talkers {
            match talker.over {
                None => assert!(talker.heard == speech(3_000)),
                Some(kind) => {
                    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
                    assert!(speech(3_000).starts_with(&talker.heard));
                }
            }
        }
        broken += resets;
        for talker in &talkers {
            io.client_close(talker.socket);
        }
        let until = io.now().after(60_000_000_000);
        drive(&mut io, &mut echo, &mut talkers, until);
        assert_eq!((io.server_socket_count(), io.connection_count()), (0, 0), "seed {seed}");
    }
    assert!(broken > 20, "{broken} resets");
}

#[test]
fn a_half_open_connection_stays_with_the_server_until_it_closes_it() {
    let mut lost = 0;
    for seed in 0..20 {
        let faults = Faults { half_open_per_million: 20_000, ..Faults::drawn(seed) };
        let (mut io, mut echo, mut talkers) = talked(seed, faults);
        let gone = injected(&io, FaultKind::HalfOpen);
        let over = talkers.iter().filter(|talker| talker.over.is_some()).count() as u64;
        assert_eq!(over, gone, "seed {seed}");
        for talker in &talkers {
            assert!(talker.over.is_none_or(|kind| kind == std::io::ErrorKind::NotConnected));
            io.client_close(talker.socket);
        }
        let until = io.now().after(60_000_000_000);
        drive(&mut io, &mut echo, &mut talkers, until);
        assert_eq!(io.server_socket_count() as u64, gone, "seed {seed}");
        assert_eq!(io.connection_count() as u64, gone, "seed {seed}");
        lost += gone;
    }
    assert!(lost > 20, "{lost} half-open connections");
}

#[test]
fn a_thousand_connects_fill_the_backlog_and_are_refused_or_served() {
    let (mut io, mut echo) = started(1, Faults::calm());
    let address = echo.address.expect("listening");
    let mut talkers: Vec<Talker> =
        (0..1_000).map(|_| Talker::connect(&mut io, address, speech(10))).collect();
    let until = io.now().after(60_000_000_000);
    drive(&mut io, &mut echo, &mut talkers, until);
    let served = talkers.iter().filter(|talker| talker.heard == speech(10)).count() as u64;
    assert_eq!(served + injected(&io, FaultKind::BacklogFull), 1_000);
    assert!((128..1_000).contains(&served), "{served} served");
}

/// Run the clocks of a world, and what they showed at each of 600 seconds awake.
fn clocks(faults: Faults) -> (World, Vec<(Instant, u64)>) {
    let (mut io, mut echo) = started(3, faults);
    let shown = (1..=600).map(|second| {
        let at = Instant(second * 1_000_000_000);
        while io.awake() < at {
            let left = at.since(io.awake());
            let deadline = io.now().after(left);
            io.run(&mut echo, Some(deadline));
        }
        (io.now(), io.wall().0)
    });
    let shown = shown.collect();
    (io, shown)
}

#[test]
fn the_monotonic_clock_sleeps_and_the_wall_clock_is_set() {
    let (steady, steady_shown) = clocks(Faults::calm());
    assert_eq!(steady.now(), steady.awake());
    let jumps = Faults { clock_jumps: 2, ..Faults::calm() };
    let (sleepy, sleepy_shown) = clocks(jumps);
    assert_eq!(injected(&sleepy, FaultKind::ClockJump), 2);
    assert!(sleepy_shown.is_sorted());
    assert!(sleepy.now() > sleepy.awake() && sleepy.now() > steady.now());
    let hour = Span::new(3_600_000_000_000, 3_600_000_000_000);
    let steps = Faults { wall_steps: 3, wall_step_ns: hour, ..Faults::calm() };
    let (set, set_shown) = clocks(steps);
    assert_eq!(injected(&set, FaultKind::WallStep), 3);
    // Nothing happened at another time than in the steady world but for the wall clock.
    assert_eq!(set.now(), set.awake());
    let off = set.wall().0.abs_diff(set.now().0 + Faults::calm().wall_offset_ns);
    assert!(off == hour.low || off == 3 * hour.low, "{off}");
    assert!(set_shown.iter().zip(&steady_shown).all(|(set, steady)| set.0 == steady.0));
    let drift = Faults { wall_drift_per_million: -500, ..Faults::calm() };
    let (drifting, _) = clocks(drift);
    let behind = drifting.now().0 + Faults::calm().wall_offset_ns - drifting.wall().0;
    assert_eq!(behind, drifting.now().0 / 2_000);
}
