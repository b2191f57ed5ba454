//! From what everybody says to what holds. Pure.
//!
//! For each part the nearest level that says something is heard (its own budget before its plan),
//! and never beyond what a farther level or the machine says: the least of them holds. Two parts
//! are a node's own and not inherited: the weight, which compares it with its siblings, and the
//! reservation, which would multiply. A weight is not bounded by the ancestors' either.

use super::{Budget, Limits, PARTS, Part, Priority};
use crate::limits;

/// What one level of the tree says.
#[derive(Clone, Copy, Debug)]
pub struct Level<'a> {
    /// Its own budget.
    pub own: &'a Budget,
    /// Its plan's, which its own comes before.
    pub plan: Option<&'a Budget>,
}

impl Level<'_> {
    fn says(&self, part: Part) -> Option<(u64, bool)> {
        let own = self.own.get(part).map(|number| (number, false));
        own.or_else(|| self.plan?.get(part).map(|number| (number, true)))
    }
}

/// Where a part of the limits comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything, or more than the machine has.
    Machine,
    /// A level, counted from the nearest.
    Level {
        /// Which one: 0 is the node itself.
        level: usize,
        /// Its plan says so.
        plan: bool,
    },
}

/// Limits, and where each comes from, in the order of [`Part::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What holds.
    pub limits: Limits,
    /// Who said so.
    pub sources: [Source; PARTS],
}

impl Limits {
    /// What the machine allows one database where nobody wrote anything down.
    #[must_use]
    pub fn of_machine(memory_bytes: u64) -> Limits {
        const UNLIMITED: u64 = u64::MAX;
        Limits {
            memory_bytes,
            storage_bytes: limits::STORAGE_BYTES_MAX,
            temporary_bytes: storage::limits::TEMPORARY_BYTES_MAX,
            cpu_per_million: UNLIMITED,
            cpu_burst_ns: limits::SECOND_NS,
            io_bytes_per_second: UNLIMITED,
            io_burst_bytes: UNLIMITED,
            weight: limits::WEIGHT,
            cpu_reserved_per_million: 0,
            priority: Priority::Normal,
            requests: limits::REQUESTS as u64,
            streams: limits::STREAMS as u64,
            connections: limits::CONNECTIONS as u64,
            request_bytes: UNLIMITED,
            response_bytes: UNLIMITED,
            request_ns: limits::REQUEST_NS,
            transaction_idle_ns: limits::TRANSACTION_IDLE_NS,
        }
    }
}

/// What the machine gives where nobody says anything, and the most that it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    default: Limits,
    most: Limits,
}

impl Machine {
    /// A machine that gives databases `memory_bytes` together, and each `tenant_memory_bytes` unless
    /// its budget says otherwise.
    #[must_use]
    pub fn new(memory_bytes: u64, tenant_memory_bytes: u64) -> Machine {
        let default = Limits::of_machine(tenant_memory_bytes);
        let most = Limits {
            // A machine smaller than one database's default: the ledger sees to it.
            memory_bytes: memory_bytes.max(tenant_memory_bytes),
            temporary_bytes: u64::MAX,
            cpu_burst_ns: u64::MAX,
            weight: limits::WEIGHT_MAX,
            cpu_reserved_per_million: 1_000_000,
            priority: Priority::Interactive,
            requests: limits::REQUESTS_MAX as u64,
            streams: limits::STREAMS_MAX as u64,
            connections: limits::CONNECTIONS_MAX as u64,
            request_ns: limits::REQUEST_NS_MAX,
            transaction_idle_ns: limits::TRANSACTION_IDLE_NS_MAX,
            ..default
        };
        Machine { default, most }
    }

    /// What holds for a database. `levels`: its own, its group's, its organisation's.
    #[must_use]
    pub fn resolve(&self, levels: &[Level<'_>]) -> Resolved {
        resolve(levels, &self.default, &self.most)
    }

    /// What holds for a group or organisation as a whole: what it does not say does not bound it.
    #[must_use]
    pub fn resolve_node(&self, levels: &[Level<'_>]) -> Resolved {
        let default = Limits {
            memory_bytes: u64::MAX,
            weight: limits::WEIGHT,
            cpu_reserved_per_million: 0,
            ..self.most
        };
        resolve(levels, &default, &self.most)
    }
}

/// A node's own, not its children's.
fn is_inherited(part: Part) -> bool {
    !matches!(part, Part::Weight | Part::CpuReservedPerMillion)
}

fn resolve(levels: &[Level<'_>], default: &Limits, most: &Limits) -> Resolved {
    let mut resolved = Resolved { limits: *default, sources: [Source::Machine; PARTS] };
    for (part, source) in Part::ALL.into_iter().zip(&mut resolved.sources) {
        let (number, from) = resolve_part(levels, part, default.get(part), most.get(part));
        resolved.limits.set(part, number);
        *source = from;
    }
    resolved
}

fn resolve_part(levels: &[Level<'_>], part: Part, default: u64, most: u64) -> (u64, Source) {
    let mut heard = None;
    for (level, said) in levels.iter().enumerate() {
        if level > 0 && !is_inherited(part) && (heard.is_none() || part == Part::Weight) {
            break;
        }
        if let Some((number, plan)) = said.says(part)
            && heard.is_none_or(|(least, _)| number < least)
        {
            heard = Some((number, Source::Level { level, plan }));
        }
    }
    match heard {
        Some((number, _)) if number > most => (most, Source::Machine),
        Some(heard) => heard,
        None => (default, Source::Machine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Budgets of one part, as `(own, plan)` from the nearest level on, and what comes out:
    /// the number and who said it.
    fn check(part: Part, said: &[(Option<u64>, Option<u64>)], expected: (u64, Source)) {
        let machine = Machine::new(1 << 30, 16 << 20);
        let budget = |number| {
            let mut budget = Budget::default();
            budget.set(part, number);
            budget
        };
        let budgets: Vec<_> =
            said.iter().map(|&(own, plan)| (budget(own), plan.map(|n| budget(Some(n))))).collect();
        let levels: Vec<_> =
            budgets.iter().map(|(own, plan)| Level { own, plan: plan.as_ref() }).collect();
        let Resolved { limits, sources } = machine.resolve(&levels);
        let place = Part::ALL.iter().position(|other| *other == part).expect("all are there");
        assert_eq!((limits.get(part), sources[place]), expected, "{part:?} {said:?}");
        let others = Part::ALL.into_iter().zip(sources).filter(|(other, _)| *other != part);
        for (other, source) in others {
            assert_eq!(source, Source::Machine, "{other:?}");
            assert_eq!(limits.get(other), machine.default.get(other));
        }
    }

    const NONE: (Option<u64>, Option<u64>) = (None, None);
    const MIB: u64 = 1 << 20;

    fn own(number: u64) -> (Option<u64>, Option<u64>) {
        (Some(number), None)
    }

    fn plan(number: u64) -> (Option<u64>, Option<u64>) {
        (None, Some(number))
    }

    fn from(level: usize, plan: bool) -> Source {
        Source::Level { level, plan }
    }

    #[test]
    fn the_nearest_is_heard_and_the_least_holds() {
        use Part::MemoryBytes as Memory;
        check(Memory, &[], (16 * MIB, Source::Machine));
        check(Memory, &[NONE, NONE, NONE], (16 * MIB, Source::Machine));
        check(Memory, &[own(4 * MIB), NONE, NONE], (4 * MIB, from(0, false)));
        check(Memory, &[own(64 * MIB), NONE, NONE], (64 * MIB, from(0, false)));
        check(Memory, &[plan(64 * MIB), NONE, NONE], (64 * MIB, from(0, true)));
        // One's own comes before one's plan, whichever is more.
        check(Memory, &[(Some(64 * MIB), Some(8 * MIB))], (64 * MIB, from(0, false)));
        check(Memory, &[(Some(8 * MIB), Some(64 * MIB))], (8 * MIB, from(0, false)));
        // Inherited, from the nearest of equals.
        check(Memory, &[NONE, plan(8 * MIB), NONE], (8 * MIB, from(1, true)));
        check(Memory, &[NONE, NONE, own(8 * MIB)], (8 * MIB, from(2, false)));
        check(Memory, &[own(8 * MIB), own(8 * MIB)], (8 * MIB, from(0, false)));
        // Never beyond an ancestor's, nor the machine's.
        check(Memory, &[own(64 * MIB), own(32 * MIB)], (32 * MIB, from(1, false)));
        check(Memory, &[own(64 * MIB), own(48 * MIB), plan(2 * MIB)], (2 * MIB, from(2, true)));
        check(Memory, &[own(1 << 40), NONE, NONE], (1 << 30, Source::Machine));
    }

    #[test]
    fn a_priority_is_a_limit_too() {
        check(Part::Priority, &[NONE], (1, Source::Machine));
        check(Part::Priority, &[own(2)], (2, from(0, false)));
        check(Part::Priority, &[own(2), own(0)], (0, from(1, false)));
        check(Part::Priority, &[NONE, own(2)], (2, from(1, false)));
    }

    #[test]
    fn weight_and_reservation_are_a_node_s_own() {
        check(Part::Weight, &[own(300), own(2), own(1)], (300, from(0, false)));
        check(Part::Weight, &[plan(300), own(2)], (300, from(0, true)));
        check(Part::Weight, &[NONE, own(2)], (limits::WEIGHT, Source::Machine));
        let reserved = Part::CpuReservedPerMillion;
        check(reserved, &[NONE, own(500_000)], (0, Source::Machine));
        check(reserved, &[own(10_000), NONE], (10_000, from(0, false)));
        check(reserved, &[own(700_000), own(500_000)], (500_000, from(1, false)));
    }

    #[test]
    fn a_node_is_not_bounded_by_what_it_does_not_say() {
        let machine = Machine::new(1 << 30, 16 << 20);
        let nothing = Budget::default();
        let empty = Level { own: &nothing, plan: None };
        let node = machine.resolve_node(&[empty]).limits;
        assert_eq!(node.memory_bytes, u64::MAX);
        assert_eq!((node.weight, node.cpu_reserved_per_million), (limits::WEIGHT, 0));
        let budget = Budget { memory_bytes: Some(32 << 20), ..Budget::default() };
        let node = machine.resolve_node(&[empty, Level { own: &budget, plan: None }]);
        assert_eq!(node.limits.memory_bytes, 32 << 20);
    }
}
