//! Shares, ceilings, reservations, priorities and the bound, on drawn courses of work.

use super::*;

const UNIT: Share = Share { weight: 1, ceiling: None, reservation: None };

/// A fixed sequence of pseudo-random numbers: splitmix64.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Always busy leaves, a processor, and what each leaf got.
struct Rig {
    scheduler: Scheduler<usize>,
    leaves: Vec<Key>,
    got: Vec<u64>,
    now: Instant,
    draws: Draws,
}

impl Rig {
    fn new(quantum: u64) -> Rig {
        let scheduler = Scheduler::new(quantum);
        Rig { scheduler, leaves: vec![], got: vec![], now: Instant(0), draws: Draws(7) }
    }

    fn leaf(&mut self, parent: Key, share: Share) -> usize {
        let number = self.leaves.len();
        self.leaves.push(self.scheduler.add(parent, share, self.now));
        self.got.push(0);
        number
    }

    fn busy(&mut self, number: usize, priority: Priority) {
        self.scheduler.push(self.leaves[number], priority, number, self.now);
    }

    /// Serve for a time: each turn costs up to `cost_max`, and its leaf wants another.
    fn serve(&mut self, units: u64, cost_max: u64) {
        let until = self.now.after(units);
        while self.now < until {
            let Some(turn) = self.scheduler.next(self.now) else {
                let at = self.scheduler.ready_at(self.now).expect("somebody has work");
                assert!(at > self.now, "nobody is served, though somebody could be");
                self.now = at.min(until);
                continue;
            };
            let cost = 1 + self.draws.below(cost_max);
            self.now = self.now.after(cost);
            self.got[turn.work] += cost;
            self.scheduler.push(turn.leaf, turn.priority, turn.work, self.now);
            self.scheduler.charge(&turn, cost, self.now);
        }
    }

    fn share(&self, number: usize) -> f64 {
        self.got[number] as f64 / self.got.iter().sum::<u64>() as f64
    }
}

#[track_caller]
fn assert_near(found: f64, wanted: f64, tolerance: f64) {
    assert!((found / wanted - 1.0).abs() < tolerance, "{found}, not {wanted}");
}

#[test]
fn shares_are_the_weights_over_any_second() {
    let mut rig = Rig::new(1_000);
    let root = rig.scheduler.root();
    for weight in [100, 200, 400] {
        let number = rig.leaf(root, Share { weight, ..UNIT });
        rig.busy(number, Priority::Normal);
    }
    for _ in 0..50 {
        rig.got.fill(0);
        rig.serve(1_000_000_000, 300_000);
        for (number, weight) in [(0, 1.0), (1, 2.0), (2, 4.0)] {
            assert_near(rig.share(number), weight / 7.0, 0.02);
        }
    }
    assert_eq!(rig.scheduler.violations(), 0);
}

#[test]
fn a_group_shares_what_it_gets() {
    let mut rig = Rig::new(1_000);
    let root = rig.scheduler.root();
    let group = rig.scheduler.add(root, Share { weight: 100, ..UNIT }, Instant(0));
    let alone = rig.leaf(root, Share { weight: 100, ..UNIT });
    let of_group: Vec<usize> =
        (0..10).map(|_| rig.leaf(group, Share { weight: 50, ..UNIT })).collect();
    rig.busy(alone, Priority::Normal);
    for &number in &of_group {
        rig.busy(number, Priority::Normal);
    }
    rig.serve(3_000_000_000, 200_000);
    assert_near(rig.share(alone), 0.5, 0.02);
    for number in of_group {
        assert_near(rig.share(number), 0.05, 0.05);
    }
    assert_eq!(rig.scheduler.violations(), 0);
}

#[test]
fn a_ceiling_delays_and_a_group_has_one_too() {
    let mut rig = Rig::new(1_000);
    let root = rig.scheduler.root();
    let rate = |per_second| Some(Rate { per_second, burst: 1_000_000 });
    let group = rig.scheduler.add(
        root,
        Share { weight: 100, ceiling: rate(300_000_000), ..UNIT },
        Instant(0),
    );
    let slow = rig.leaf(root, Share { weight: 100, ceiling: rate(100_000_000), ..UNIT });
    let first = rig.leaf(group, Share { weight: 100, ..UNIT });
    let second = rig.leaf(group, Share { weight: 100, ..UNIT });
    for number in [slow, first, second] {
        rig.busy(number, Priority::Normal);
    }
    rig.serve(10_000_000_000, 50_000);
    assert_near(rig.got[slow] as f64, 1e9, 0.01);
    assert_near(rig.got[first] as f64, 1.5e9, 0.02);
    assert_near(rig.got[second] as f64, 1.5e9, 0.02);
    // It was delayed for most of the time, and is free when the ceiling goes.
    assert!(rig.scheduler.throttled_ns(rig.leaves[slow], rig.now) > 8_000_000_000);
    rig.scheduler.set_share(rig.leaves[slow], Share { weight: 100, ..UNIT }, rig.now);
    rig.got.fill(0);
    rig.serve(1_000_000_000, 50_000);
    assert_near(rig.got[slow] as f64, 0.7e9, 0.02);
}

#[test]
fn a_reservation_holds_under_a_hundred_attackers() {
    let mut rig = Rig::new(1_000);
    let root = rig.scheduler.root();
    let reservation = Some(Rate { per_second: 200_000_000, burst: 1_000_000 });
    let ours = rig.leaf(root, Share { weight: 1, reservation, ..UNIT });
    rig.busy(ours, Priority::Normal);
    for _ in 0..100 {
        let attacker = rig.leaf(root, Share { weight: 10_000, ..UNIT });
        rig.busy(attacker, Priority::Interactive);
    }
    rig.serve(5_000_000_000, 100_000);
    assert!(rig.got[ours] >= 990_000_000, "{}", rig.got[ours]);
    assert_near(rig.got[ours] as f64, 1e9, 0.03);
    assert_eq!(rig.scheduler.violations(), 0);
}

#[test]
fn a_reservation_does_not_pass_its_groups_ceiling() {
    let mut rig = Rig::new(1_000);
    let root = rig.scheduler.root();
    let ceiling = Some(Rate { per_second: 100_000_000, burst: 1_000_000 });
    let group = rig.scheduler.add(root, Share { weight: 100, ceiling, ..UNIT }, Instant(0));
    let reservation = Some(Rate { per_second: 500_000_000, burst: 1_000_000 });
    let ours = rig.leaf(group, Share { weight: 100, reservation, ..UNIT });
    let other = rig.leaf(root, Share { weight: 100, ..UNIT });
    rig.busy(ours, Priority::Normal);
    rig.busy(other, Priority::Normal);
    rig.serve(5_000_000_000, 50_000);
    assert_near(rig.got[ours] as f64, 0.5e9, 0.03);
}

#[test]
fn a_higher_priority_goes_first_and_the_lower_ones_do_not_starve() {
    let mut rig = Rig::new(1_000);
    let root = rig.scheduler.root();
    for priority in PRIORITIES {
        let number = rig.leaf(root, Share { weight: 100, ..UNIT });
        rig.busy(number, priority);
    }
    rig.serve(5_000_000_000, 100_000);
    let rest = 1.0 / (LOWER_SHARE as f64 + 1.0);
    assert!(rig.share(2) > 1.0 - 3.0 * rest, "{}", rig.share(2));
    assert!(rig.share(1) > 0.7 * rest && rig.share(0) > 0.7 * rest, "{:?}", rig.got);
}

#[test]
fn a_debt_outlives_idleness_and_savings_do_not() {
    let mut rig = Rig::new(1_000);
    let root = rig.scheduler.root();
    let debtor = rig.leaf(root, Share { weight: 100, ..UNIT });
    let other = rig.leaf(root, Share { weight: 100, ..UNIT });
    rig.busy(debtor, Priority::Normal);
    // One turn of 50 quanta, then nothing more of it for a while.
    let turn = rig.scheduler.next(Instant(0)).expect("it has work");
    rig.scheduler.charge(&turn, 5_000_000, Instant(5_000_000));
    rig.now = Instant(5_000_000);
    rig.busy(other, Priority::Normal);
    rig.serve(1_000, 100_000);
    rig.busy(debtor, Priority::Normal);
    rig.got.fill(0);
    rig.serve(4_500_000, 100_000);
    assert_eq!(rig.got[debtor], 0, "it has had its share before");
    rig.serve(10_000_000, 100_000);
    assert!(rig.got[debtor] > 0);
}

/// Leaves come, go, get work at drawn moments and have drawn shares: no promise is broken, no work is
/// lost, and nobody waits while somebody could be served.
#[test]
fn drawn_courses_keep_the_bound_and_lose_nothing() {
    for seed in 0..200 {
        let mut draws = Draws(seed);
        let mut scheduler: Scheduler<u64> = Scheduler::new(1_000);
        let mut now = Instant(0);
        let groups: Vec<Key> = (0..3)
            .map(|_| {
                let share = Share { weight: 1 + draws.below(400), ..UNIT };
                scheduler.add(scheduler.root(), share, now)
            })
            .collect();
        let mut leaves: Vec<(Key, u64)> = Vec::new();
        let (mut pushed, mut served) = (0_u64, 0_u64);
        for _ in 0..3_000 {
            match draws.below(8) {
                0 if leaves.len() < 40 => {
                    let parent = match draws.below(4) {
                        3 => scheduler.root(),
                        group => groups[group as usize],
                    };
                    let rate = |draws: &mut Draws| {
                        let per_second = 1 + draws.below(500_000_000);
                        (draws.below(3) == 0).then_some(Rate { per_second, burst: 1_000_000 })
                    };
                    let share = Share {
                        weight: 1 + draws.below(400),
                        ceiling: rate(&mut draws),
                        reservation: rate(&mut draws),
                    };
                    leaves.push((scheduler.add(parent, share, now), 0));
                }
                1 => {
                    let idle = leaves.iter().position(|&(_, waiting)| waiting == 0);
                    if let Some(index) = idle {
                        scheduler.remove(leaves.swap_remove(index).0);
                    }
                }
                2..=4 if !leaves.is_empty() => {
                    let index = draws.below(leaves.len() as u64) as usize;
                    let priority = PRIORITIES[draws.below(3) as usize];
                    leaves[index].1 += 1;
                    scheduler.push(leaves[index].0, priority, pushed, now);
                    pushed += 1;
                }
                _ => {
                    let Some(turn) = scheduler.next(now) else {
                        match scheduler.ready_at(now) {
                            Some(at) => {
                                assert!(at > now, "seed {seed}: nobody is served");
                                now = at;
                            }
                            None => assert_eq!(served, pushed, "seed {seed}: work is lost"),
                        }
                        continue;
                    };
                    let cost = 1 + draws.below(200_000);
                    now = now.after(cost);
                    served += 1;
                    let found = leaves.iter_mut().find(|(leaf, _)| *leaf == turn.leaf);
                    found.expect("work of a leaf that is there").1 -= 1;
                    scheduler.charge(&turn, cost, now);
                }
            }
            assert_eq!(scheduler.waiting() as u64, pushed - served, "seed {seed}");
        }
        assert_eq!(scheduler.violations(), 0, "seed {seed}: worst {}", scheduler.worst_wait());
    }
}
