//! Places: where each open tenant, and its group and organisation, stand in the ledger and in the two
//! schedulers, and what the budgets say of them there.
//!
//! A group or organisation has a place while one of its databases is open: millions of them cost
//! nothing. What was left in the buckets of a place goes to `remains` with it.

use std::collections::BTreeMap;

use storage::TenantId;
use storage::ledger::{self, AccountId, Level};
use storage::sometimes;

use super::Engine;
use super::budgets::Node;
use super::context::Job;
use super::life::Tenant;
use super::remains::{Owner, Remainder, Remains};
use crate::budget::Limits;
use crate::catalogue::NodeId;
use crate::limits;
use crate::pool::Key;
use crate::schedule::{Rate, Share};

/// Where a tenant, or what is above it, takes turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// At the processor.
    pub turns: Key,
    /// At the disk.
    pub transfers: Key,
    /// What its account is below; the machine if nothing.
    pub account: Option<AccountId>,
}

/// An organisation's or group's place.
struct Branch {
    place: Place,
    account: AccountId,
    /// Groups and databases below it that have a place.
    children: usize,
}

/// See the head of the file.
#[derive(Default)]
pub(super) struct Places {
    branches: BTreeMap<NodeId, Branch>,
    remains: Remains,
}

impl<J: Job> Engine<J> {
    /// A place for a tenant with these limits, below these nodes, the nearest first.
    pub(super) fn take_place(&mut self, id: TenantId, of: &Limits, chain: &[Node]) -> Place {
        let above = self.branch_place(chain);
        self.add_place(Owner::Database(id), of, &above)
    }

    /// A place below another one, with what its owner had left in an earlier one.
    fn add_place(&mut self, owner: Owner, of: &Limits, above: &Place) -> Place {
        let now = self.now;
        let place = Place {
            turns: self.schedule.add(above.turns, processor_share(of), now),
            transfers: self.transfers.schedule.add(above.transfers, disk_share(of), now),
            account: above.account,
        };
        if let Some(left) = self.places.remains.take(owner) {
            sometimes!("a place is taken again with what was left in its buckets");
            self.schedule.restore(place.turns, left.turns, now);
            self.transfers.schedule.restore(place.transfers, left.transfers, now);
        }
        place
    }

    fn remove_place(&mut self, owner: Owner, place: &Place, dropped: bool) {
        let left = Remainder {
            turns: self.schedule.remove(place.turns),
            transfers: self.transfers.schedule.remove(place.transfers),
        };
        if !dropped {
            self.places.remains.keep(owner, left, self.now);
        }
    }

    /// The place below which children of the nearest of these nodes stand; made if it is not there.
    fn branch_place(&mut self, chain: &[Node]) -> Place {
        let Some((node, above)) = chain.split_first() else {
            let (turns, transfers) = (self.schedule.root(), self.transfers.schedule.root());
            return Place { turns, transfers, account: None };
        };
        if !self.places.branches.contains_key(&node.id) {
            let level = if above.is_empty() { Level::Organisation } else { Level::Group };
            let over = self.branch_place(above);
            let account = ledger::open_node(level, node.limits.memory_bytes, over.account);
            let place = self.add_place(Owner::Node(node.id), &node.limits, &over);
            self.places.branches.insert(node.id, Branch { place, account, children: 0 });
        }
        let branch = self.places.branches.get_mut(&node.id).expect("it is there now");
        branch.children += 1;
        Place { account: Some(branch.account), ..branch.place }
    }

    /// Nanoseconds that its work waited at its present place because of its ceilings, or of those
    /// above it.
    pub(super) fn throttled_ns(&self, place: &Place) -> u64 {
        let turns = self.schedule.throttled_ns(place.turns, self.now);
        turns + self.transfers.schedule.throttled_ns(place.transfers, self.now)
    }

    /// A tenant's place is free. Its account must be closed.
    pub(super) fn leave_place(&mut self, tenant: &Tenant<J>, place: &Place) {
        self.remove_place(Owner::Database(tenant.id), place, tenant.dropped);
        self.leave_branch(&tenant.chain);
    }

    fn leave_branch(&mut self, chain: &[Node]) {
        let Some((node, above)) = chain.split_first() else { return };
        let branch = self.places.branches.get_mut(&node.id).expect("its child had a place");
        branch.children -= 1;
        if branch.children > 0 {
            return;
        }
        let branch = self.places.branches.remove(&node.id).expect("looked at just now");
        ledger::close(branch.account);
        self.remove_place(Owner::Node(node.id), &branch.place, false);
        self.leave_branch(above);
    }

    /// An open tenant has other limits, or stands below others.
    pub(super) fn renew_place(&mut self, key: Key, of: Limits, chain: Vec<Node>) {
        let now = self.now;
        for node in &chain {
            self.renew_branch(node);
        }
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        tenant.limits = of;
        let old = std::mem::replace(&mut tenant.chain, chain.clone());
        let account = tenant.volume.as_ref().map(|volume| volume.account());
        let Some(mut place) = tenant.place else { return };
        if let Some(account) = account {
            ledger::set_memory_limit(account, of.memory_bytes);
            ledger::set_temporary_limit(account, of.temporary_bytes);
        }
        if !old.iter().map(|node| node.id).eq(chain.iter().map(|node| node.id)) {
            let above = self.branch_place(&chain);
            self.schedule.set_parent(place.turns, above.turns, now);
            self.transfers.schedule.set_parent(place.transfers, above.transfers, now);
            if let Some(account) = account {
                ledger::set_parent(account, above.account);
            }
            place.account = above.account;
            self.leave_branch(&old);
            self.tenants.get_mut(key).expect("looked at just now").place = Some(place);
        }
        self.schedule.set_share(place.turns, processor_share(&of), now);
        self.transfers.schedule.set_share(place.transfers, disk_share(&of), now);
    }

    fn renew_branch(&mut self, node: &Node) {
        let Some(branch) = self.places.branches.get(&node.id) else { return };
        let (place, account) = (branch.place, branch.account);
        ledger::set_memory_limit(account, node.limits.memory_bytes);
        let turns = processor_share(&node.limits);
        self.schedule.set_share(place.turns, turns, self.now);
        self.transfers.schedule.set_share(place.transfers, disk_share(&node.limits), self.now);
    }

    /// In a doomed world: nobody takes turns any more, but the accounts are closed.
    pub(super) fn close_branches(&mut self) {
        // Groups were made after their organisations, and have greater ids or not: so until none is left.
        while let Some((&id, _)) = self.places.branches.iter().find(|(_, branch)| {
            self.places.branches.values().all(|other| other.place.account != Some(branch.account))
        }) {
            let branch = self.places.branches.remove(&id).expect("found just now");
            ledger::close(branch.account);
        }
    }
}

/// Nanoseconds a second in parts of a million of one core.
const NS_PER_MILLIONTH: u64 = limits::SECOND_NS / 1_000_000;

fn processor_share(of: &Limits) -> Share {
    let rate = |per_million: u64, burst: u64| Rate {
        per_second: per_million.saturating_mul(NS_PER_MILLIONTH).max(1),
        burst: burst.max(1),
    };
    // What one core can do in all is no ceiling: there is one.
    let limited = of.cpu_per_million < 1_000_000;
    let reserved = of.cpu_reserved_per_million;
    Share {
        weight: of.weight.max(1),
        ceiling: limited.then(|| rate(of.cpu_per_million, of.cpu_burst_ns)),
        reservation: (reserved > 0).then(|| rate(reserved, limits::RESERVATION_BURST_NS)),
    }
}

fn disk_share(of: &Limits) -> Share {
    let limited = of.io_bytes_per_second < limits::IO_UNLIMITED;
    let rate = Rate {
        per_second: of.io_bytes_per_second.max(1),
        burst: of.io_burst_bytes.clamp(1, limits::IO_UNLIMITED),
    };
    Share { weight: of.weight.max(1), ceiling: limited.then_some(rate), reservation: None }
}
