//! FAIR-4 and a part of BOUND: what budgets allow is not passed, as counted apart from the server's
//! own buckets.
//!
//! A second set of token buckets is kept here, of every open database and of every group and
//! organisation above one. It is filled by the simulated clock and emptied by what the server says
//! that it served (`Served`), turn by turn, so that each of these holds:
//!
//! - FAIR-4: work that a ceiling may hold back (turns at the processor, transfers) begins only while
//!   there is something in each bucket on its way up; at most one slice makes it negative. So in every
//!   window such work is at most rate x window + burst + one slice, less all that nobody holds back
//!   (checkpoints, commits), which is charged as well.
//! - FAIR-4 too: what goes first because of a reservation is at most what was reserved.
//! - BOUND: streams, clients' requests and memory of a database, and the memory of a group, are within
//!   their limits, or were greater already when those were lowered, and have not grown since. Memory
//!   may pass its limit by what a checkpoint may, while there is one.
//! - MEM-1: of groups and organisations those have an account that have an open database.
//!
//! Where the order of a turn is not known (limits that change, databases that move), the buckets here
//! are the fuller ones: nothing is claimed that was not so.

use std::collections::{BTreeMap, BTreeSet};

use storage::TenantId;
use storage::io::Instant;
use storage::ledger::{self, MEMORY_KINDS};
use tenant::budget::Limits;
use tenant::limits::{CHECKPOINT_EXTRA_BYTES, IO_UNLIMITED, QUANTUM_NS, RESERVATION_BURST_NS};
use tenant::{NodeId, Served, TenantView};

use super::model::Violation;

/// Most nanoseconds of one run at the processor: a quantum, and what its last statement goes on for
/// until it looks.
const SLICE_NS: u64 = 2 * QUANTUM_NS;

/// Most bytes of one transfer: a group of pages.
const SLICE_BYTES: u64 = 256 * 1024;

const MEMORY: &str = "bytes of memory";

const SECOND_NS: i128 = 1_000_000_000;

/// Units a second, and how many may be saved up.
type Rate = (u64, u64);

/// A bucket, in parts of a thousand million of a unit.
#[derive(Clone, Copy, Debug)]
struct Shadow {
    rate: Rate,
    level: i128,
    at: Instant,
}

/// A bucket, if there is a ceiling.
#[derive(Clone, Copy, Debug, Default)]
struct Ceiling(Option<Shadow>);

/// What one turn took of a bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// What the ceiling may hold back.
    held_back: u64,
    aside: u64,
}

/// A place in the tree: a database, or what is above it.
#[derive(Clone, Debug, Default)]
struct Place {
    limits: Option<Limits>,
    processor: Ceiling,
    disk: Ceiling,
    reserved: Ceiling,
    memory_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Leaf {
    place: Place,
    served: Served,
    chain: Vec<NodeId>,
    streams: usize,
    requests: usize,
    checkpointing: bool,
}

/// A group or organisation, and the databases with a place below it.
#[derive(Clone, Debug, Default)]
struct Branch {
    place: Place,
    below: BTreeSet<TenantId>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Ceilings {
    leaves: BTreeMap<TenantId, Leaf>,
    branches: BTreeMap<NodeId, Branch>,
}

impl Shadow {
    fn full(rate: Rate, at: Instant) -> Shadow {
        Shadow { rate, level: i128::from(rate.1) * SECOND_NS, at }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed_ns = i128::from(now.since(self.at));
        self.at = self.at.max(now);
        let full = i128::from(self.rate.1) * SECOND_NS;
        self.level = (self.level + elapsed_ns * i128::from(self.rate.0)).min(full);
    }
}

impl Ceiling {
    /// Another rate, or none, since this turn: whether before or after what the turn took, nobody
    /// knows, so nothing is taken.
    fn change(&mut self, rate: Option<Rate>, now: Instant) {
        match (&mut self.0, rate) {
            (Some(shadow), Some(rate)) => {
                shadow.fill(now);
                shadow.rate = rate;
                shadow.level = shadow.level.min(i128::from(rate.1) * SECOND_NS);
            }
            (shadow, rate) => *shadow = rate.map(|rate| Shadow::full(rate, now)),
        }
    }

    /// Take what a turn took; tells what is wrong with that.
    fn take(&mut self, taken: Taken, slice: u64, now: Instant) -> Option<String> {
        let shadow = self.0.as_mut()?;
        let mut full = *shadow;
        full.fill(now);
        let before = full.level;
        let took = i128::from(taken.held_back) * SECOND_NS;
        // What came aside may have come since the last turn, and been filled up again.
        shadow.level -= i128::from(taken.aside) * SECOND_NS;
        shadow.fill(now);
        shadow.level -= took;
        let late = before <= 0 || before - took < -i128::from(slice) * SECOND_NS;
        (taken.held_back > 0 && late).then(|| {
            let there = before.div_euclid(SECOND_NS);
            let (rate, burst) = shadow.rate;
            format!("took {} of {there} at {rate} a second, burst {burst}", taken.held_back)
        })
    }
}

impl Place {
    fn follow(&mut self, limits: &Limits, leaf: bool, now: Instant) {
        self.limits = Some(*limits);
        self.processor.change(processor_rate(limits), now);
        self.disk.change(disk_rate(limits), now);
        self.reserved.change(reserved_rate(limits).filter(|_| leaf), now);
    }
}

/// Nanoseconds a second; a whole core is no ceiling.
fn processor_rate(limits: &Limits) -> Option<Rate> {
    let per_million = limits.cpu_per_million;
    (per_million < 1_000_000).then(|| (per_million * 1_000, limits.cpu_burst_ns))
}

fn disk_rate(limits: &Limits) -> Option<Rate> {
    let rate = limits.io_bytes_per_second;
    (rate < IO_UNLIMITED).then(|| (rate, limits.io_burst_bytes.min(IO_UNLIMITED)))
}

fn reserved_rate(limits: &Limits) -> Option<Rate> {
    let per_million = limits.cpu_reserved_per_million;
    (per_million > 0).then(|| (per_million * 1_000, RESERVATION_BURST_NS))
}

impl Ceilings {
    /// By how much a database may have passed limits of memory.
    fn extra_of(&self, view: &TenantView) -> u64 {
        let was = self.leaves.get(&view.id).is_some_and(|leaf| leaf.checkpointing);
        if was || view.checkpointing { CHECKPOINT_EXTRA_BYTES } else { 0 }
    }

    /// Judge a turn that began at `now`, by what is open behind it.
    ///
    /// # Errors
    /// With what was passed.
    pub fn judge(&mut self, views: &[TenantView], now: Instant) -> Result<(), Violation> {
        let mut taken = BTreeMap::new();
        let mut leaves = BTreeMap::new();
        for view in views.iter().filter(|view| view.id != TenantId::CATALOGUE) {
            let leaf = self.leaves.remove(&view.id).filter(|leaf| is_same(leaf, view));
            let known = leaf.is_some();
            let mut leaf = leaf.unwrap_or_default();
            let [processor, disk, reserved] = difference(&leaf.served, &view.served);
            if !known || leaf.place.limits != Some(view.limits) {
                leaf.place.follow(&view.limits, true, now);
            } else {
                let name = || format!("database {}", view.name);
                judge_leaf(&leaf, view)?;
                judge(leaf.place.processor.take(processor, SLICE_NS, now), "processor", name)?;
                judge(leaf.place.disk.take(disk, SLICE_BYTES, now), "disk", name)?;
                judge(leaf.place.reserved.take(reserved, SLICE_NS, now), "reservation", name)?;
            }
            let chain: Vec<NodeId> = view.chain.iter().map(|node| node.id).collect();
            if known && leaf.chain == chain {
                taken.insert(view.id, [processor, disk]);
            }
            leaf.chain = chain;
            leaf.served = view.served;
            leaf.streams = view.streams;
            leaf.requests = view.client_requests;
            leaf.checkpointing = view.checkpointing;
            leaf.place.memory_bytes = memory_of(view);
            leaves.insert(view.id, leaf);
        }
        self.leaves = leaves;
        self.judge_branches(views, &taken, now)
    }

    fn judge_branches(
        &mut self,
        views: &[TenantView],
        taken: &BTreeMap<TenantId, [Taken; 2]>,
        now: Instant,
    ) -> Result<(), Violation> {
        let mut found: BTreeMap<NodeId, (Limits, Vec<&TenantView>)> = BTreeMap::new();
        for view in views {
            for node in &view.chain {
                let entry = found.entry(node.id).or_insert_with(|| (node.limits, Vec::new()));
                entry.1.push(view);
            }
        }
        let open = ledger::open_branches();
        if open != found.len() {
            let text = format!("{open} nodes have accounts, {} have databases open", found.len());
            return Err(Violation::new("MEM-1", text));
        }
        let mut branches = BTreeMap::new();
        for (id, (limits, views)) in found {
            let below: BTreeSet<TenantId> = views.iter().map(|view| view.id).collect();
            // Without a common child it may be another place of the same node, with full buckets.
            let old = self.branches.remove(&id).filter(|old| !old.below.is_disjoint(&below));
            let steady = old.as_ref().is_some_and(|old| old.below == below);
            let mut branch = old.unwrap_or_default();
            let held: u64 = views.iter().map(|view| memory_of(view)).sum();
            if branch.place.limits == Some(limits) {
                let mut sums = [Taken::default(); 2];
                for each in below.iter().filter_map(|id| taken.get(id)) {
                    for (sum, one) in sums.iter_mut().zip(each) {
                        sum.held_back += one.held_back;
                        sum.aside += one.aside;
                    }
                }
                let name = || format!("node {}", id.0);
                let [processor, disk] = sums;
                judge(branch.place.processor.take(processor, SLICE_NS, now), "processor", name)?;
                judge(branch.place.disk.take(disk, SLICE_BYTES, now), "disk", name)?;
                let extra: u64 = views.iter().map(|view| self.extra_of(view)).sum();
                let bound =
                    limits.memory_bytes.max(branch.place.memory_bytes).saturating_add(extra);
                if steady && held > bound {
                    let text = format!("{}: {held} bytes of {}", name(), limits.memory_bytes);
                    return Err(Violation::new("BOUND", text));
                }
            } else {
                branch.place.follow(&limits, false, now);
            }
            branch.below = below;
            branch.place.memory_bytes = held;
            branches.insert(id, branch);
        }
        self.branches = branches;
        Ok(())
    }
}

/// It was open at the last look already, and was not closed since.
fn is_same(leaf: &Leaf, view: &TenantView) -> bool {
    let (old, new) = (&leaf.served, &view.served);
    old.turns_ns <= new.turns_ns
        && old.reserved_ns <= new.reserved_ns
        && old.aside_ns <= new.aside_ns
        && old.transfer_bytes <= new.transfer_bytes
        && old.aside_bytes <= new.aside_bytes
}

/// What a turn took of the processor, the disk and the reservation.
fn difference(old: &Served, new: &Served) -> [Taken; 3] {
    let since = |old: u64, new: u64| new.saturating_sub(old);
    let reserved = since(old.reserved_ns, new.reserved_ns);
    [
        Taken {
            held_back: since(old.turns_ns, new.turns_ns),
            aside: since(old.aside_ns, new.aside_ns),
        },
        Taken {
            held_back: since(old.transfer_bytes, new.transfer_bytes),
            aside: since(old.aside_bytes, new.aside_bytes),
        },
        Taken { held_back: reserved, aside: 0 },
    ]
}

fn memory_of(view: &TenantView) -> u64 {
    view.held[..MEMORY_KINDS].iter().sum()
}

/// BOUND of one database whose limits have not changed.
fn judge_leaf(leaf: &Leaf, view: &TenantView) -> Result<(), Violation> {
    let limits = &view.limits;
    let bounds = [
        ("streams", leaf.streams as u64, view.streams as u64, limits.streams),
        ("requests", leaf.requests as u64, view.client_requests as u64, limits.requests),
        (MEMORY, leaf.place.memory_bytes, memory_of(view), limits.memory_bytes),
    ];
    let may_pass = leaf.checkpointing || view.checkpointing;
    for (what, before, now, limit) in bounds {
        let extra = if may_pass && what == MEMORY { CHECKPOINT_EXTRA_BYTES } else { 0 };
        if now > limit.max(before).saturating_add(extra) {
            let text = format!("database {} has {now} {what} of {limit}, had {before}", view.name);
            return Err(Violation::new("BOUND", text));
        }
    }
    Ok(())
}

fn judge(wrong: Option<String>, bucket: &str, name: impl Fn() -> String) -> Result<(), Violation> {
    match wrong {
        None => Ok(()),
        Some(text) => Err(Violation::new("FAIR-4", format!("{}, {bucket}: {text}", name()))),
    }
}
