//! Use by hour and day: when what databases have used is counted for an hour.
//!
//! A database's use is noted when it closes, when an hour is over (some databases at a time, so that
//! nobody waits: what they use until their turn still counts for that hour), before it moves to another
//! group, and when it is dropped; of one in memory only its group's hours are counted. The cost follows who
//! is open. A crash loses of an hour what it loses of the totals; what their rows have and no hour, counts
//! for the hour in which it is next noted.

use storage::TenantId;

use super::budgets::UsageView;
use super::context::Job;
use super::control::{Asker, ControlCall};
use super::ephemeral::is_memory;
use super::life::Tenant;
use super::{Engine, Phase, Timer};
use crate::budget::Usage;
use crate::budget::periods::{HOUR_S, PeriodUse, hour_of};
use crate::catalogue::{Call, DatabaseRow, NodeId, Sum};
use crate::limits;

/// Where the look at open databases is, and for which second their use counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    after: TenantId,
    at_s: u64,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Hours {
    /// The hour of the last look at the clock; 0 before the first.
    hour: u64,
    sweep: Option<Sweep>,
}

impl<J: Job> Engine<J> {
    /// Whether an hour is over.
    pub(super) fn look_at_hour(&mut self) {
        let hour = hour_of(self.wall_s());
        let before = std::mem::replace(&mut self.hours.hour, hour);
        if hour <= before || before == 0 || self.phase != Phase::Serving {
            return;
        }
        let idle = self.hours.sweep.is_none();
        self.hours.sweep = Some(Sweep { after: TenantId(0), at_s: hour * HOUR_S - 1 });
        if idle {
            self.set_timer(0, Timer::HourOver);
        }
    }

    /// Note what some more open databases have used.
    pub(super) fn sweep_hour(&mut self) {
        let Some(sweep) = self.hours.sweep.take().filter(|_| self.phase == Phase::Serving) else {
            return;
        };
        let behind = (std::ops::Bound::Excluded(sweep.after), std::ops::Bound::Unbounded);
        let next = self.ids.range(behind).take(limits::USED_SWEEP);
        let ids: Vec<TenantId> = next.map(|(&id, _)| id).collect();
        for &id in &ids {
            self.note_open(id, sweep.at_s);
        }
        if let (Some(&after), true) = (ids.last(), ids.len() == limits::USED_SWEEP) {
            self.hours.sweep = Some(Sweep { after, ..sweep });
            self.set_timer(limits::USED_SWEEP_NS, Timer::HourOver);
        }
    }

    /// Note what an open database has used, until this second at the latest.
    fn note_open(&mut self, id: TenantId, until_s: u64) {
        let Some(tenant) = self.ids.get(&id).and_then(|&key| self.tenants.get(key)) else { return };
        let usage = self.usage_of(tenant);
        let lives = !tenant.is_ended() && tenant.row.is_some() && id != TenantId::CATALOGUE;
        if !lives || usage == tenant.noted {
            return;
        }
        if is_memory(id) {
            let since = usage.since(&tenant.noted);
            let nodes = tenant.row.as_ref().map_or(&[][..], |row| &row.path);
            let nodes: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
            self.spend(&nodes, &since, until_s);
            if let Some(tenant) = self.ids.get(&id).and_then(|&key| self.tenants.get_mut(key)) {
                tenant.noted = usage;
            }
        } else {
            let used_s = self.used_s(tenant).min(until_s);
            self.call_catalogue(Asker::Nobody, Call::Used(id, usage, used_s));
        }
    }

    /// The catalogue has counted it.
    pub(super) fn usage_noted(&mut self, id: TenantId, usage: Usage) {
        let key = self.ids.get(&id).copied();
        let Some(tenant) = key.and_then(|key| self.tenants.get_mut(key)) else { return };
        tenant.noted = usage;
        if let Some(row) = &mut tenant.row {
            row.usage = usage;
        }
    }

    /// What a dropped database has used since its row was written counts for where it stood.
    pub(super) fn note_spent(&mut self, tenant: &Tenant<J>) {
        let Some(row) = &tenant.row else { return };
        // One in memory has no row that could have been written.
        let before = if is_memory(tenant.id) { tenant.noted } else { row.usage };
        let nodes: Vec<NodeId> = row.path.iter().map(|node| node.id).collect();
        self.spend(&nodes, &tenant.usage.since(&before), self.used_s(tenant));
    }

    /// So much was used in these places at this second, and no row has it.
    fn spend(&mut self, nodes: &[NodeId], since: &Usage, at_s: u64) {
        if *since == Usage::default() {
            return;
        }
        if !nodes.is_empty() && self.catalogue.used.is_empty() && self.catalogue.spent.is_empty() {
            self.set_timer(limits::USED_WAIT_NS, Timer::UsageDue);
        }
        for &node in nodes {
            let (usage, last_s) = self.catalogue.spent.entry(node).or_default();
            usage.add(since);
            *last_s = at_s;
        }
    }

    /// What must be noted before a call is carried out.
    pub(super) fn note_before(&mut self, call: &ControlCall) {
        match call {
            ControlCall::Within(_, call) => self.note_before(call),
            // What closed databases have used is in their rows then.
            ControlCall::Sum(_) | ControlCall::SumIn(..) | ControlCall::UsageIn(..) => {
                self.write_usage();
            }
            ControlCall::Place(name, change) if change.group.is_some() => {
                self.write_usage();
                let key = self.names.get(name.as_str()).copied();
                let id = key.and_then(|key| self.tenants.get(key)).map(|tenant| tenant.id);
                let now_s = self.wall_s();
                if let Some(id) = id {
                    self.note_open(id, now_s);
                }
            }
            _ => {}
        }
    }

    /// What a database has used in a time, with what it has used since its row was written.
    pub(super) fn usage_in(&self, row: DatabaseRow, mut period: PeriodUse) -> UsageView {
        let saved = row.usage;
        let view = self.usage_view(row);
        period.add_if_within(&view.total.since(&saved), hour_of(self.wall_s()));
        UsageView { period: Some(period), ..view }
    }

    /// The same of an organisation or group. O(open tenants).
    pub(super) fn add_open_to(&self, sum: &mut Sum) {
        let node = sum.path.first().map(|node| node.id);
        let Some(period) = &mut sum.period else { return };
        let hour = hour_of(self.wall_s());
        for tenant in self.tenants.keys().into_iter().filter_map(|key| self.tenants.get(key)) {
            let Some(row) = tenant.row.as_ref().filter(|_| !tenant.dropped) else { continue };
            if row.path.iter().any(|above| Some(above.id) == node) {
                period.add_if_within(&self.usage_of(tenant).since(&tenant.noted), hour);
            }
        }
    }
}
