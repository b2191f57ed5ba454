//! Budgets in the engine: what holds for each open tenant, what changes it, and what it has used.
//!
//! The catalogue has what everybody says. In memory are the plans, and with each open tenant its
//! row, its group and organisation, and the limits that follow. A change is applied where the
//! catalogue's answers are: they come in the order of its transactions, so a tenant that is being
//! opened meanwhile sees it either in its row or here.
//!
//! **What a crash loses** of a tenant's use: what came since its last checkpoint, and for one that
//! was closed since without one, up to a second more. Where the log has no room for it for long, the
//! use of tenants that close is lost too.

use storage::TenantId;

use super::context::Job;
use super::control::Asker;
use super::ephemeral::is_memory;
use super::life::Tenant;
use super::views::TenantView;
use super::{Engine, Phase, Timer};
use crate::budget::periods::PeriodUse;
use crate::budget::{Level, Limits, Machine, Resolved, Usage};
use crate::catalogue::{Call, DatabaseRow, NodeId, NodeRow, Outcome, Said, Sum};
use crate::limits;
use crate::pool::Key;

/// An organisation or group, as the ledger and the scheduler see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What holds for it. Memory, processor time, I/O, weight and reservation are of all its
    /// databases together.
    pub limits: Limits,
}

/// What a database says, and what holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetView {
    /// Its row.
    pub row: DatabaseRow,
    /// What holds, and who said so.
    pub resolved: Resolved,
}

/// What a database has used, and holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageView {
    /// Its row.
    pub row: DatabaseRow,
    /// What it has used since it was created.
    pub total: Usage,
    /// Its size as of its last commit.
    pub bytes: u64,
    /// What it holds, if it is open.
    pub open: Option<TenantView>,
    /// What it has used in a time, if that was asked for.
    pub period: Option<PeriodUse>,
}

impl<J: Job> Engine<J> {
    fn machine(&self) -> Machine {
        Machine::new(self.options.memory_bytes, self.options.tenant_memory_bytes)
    }

    /// What a row says, and its group and organisation, the nearest first.
    fn levels<'a>(&'a self, said: Option<&'a Said>, path: &'a [NodeRow]) -> Vec<Level<'a>> {
        let all = said.into_iter().chain(path.iter().map(|node| &node.said));
        all.map(|said| said.level(|plan| self.catalogue.plans.get(plan))).collect()
    }

    fn resolve(&self, row: &DatabaseRow) -> Resolved {
        self.machine().resolve(&self.levels(Some(&row.said), &row.path))
    }

    /// What holds for the database of this row, and for its group and organisation.
    pub(super) fn limits_of(&self, row: &DatabaseRow) -> (Limits, Vec<Node>) {
        if row.id == TenantId::CATALOGUE {
            return (Limits::of_machine(limits::CATALOGUE_MEMORY_BYTES), Vec::new());
        }
        let machine = self.machine();
        let node = |(index, node): (usize, &NodeRow)| Node {
            id: node.id,
            limits: machine.resolve_node(&self.levels(None, &row.path[index..])).limits,
        };
        (self.resolve(row).limits, row.path.iter().enumerate().map(node).collect())
    }

    pub(super) fn budget_view(&self, row: DatabaseRow) -> BudgetView {
        BudgetView { resolved: self.resolve(&row), row }
    }

    /// `path`: the node, and its organisation behind it if it is a group.
    pub(super) fn node_view(&self, path: Vec<NodeRow>) -> (NodeRow, Resolved) {
        let resolved = self.machine().resolve_node(&self.levels(None, &path));
        (path.into_iter().next().expect("a path has a node"), resolved)
    }

    // ---- changes ----

    /// The catalogue has carried out a call: give every open tenant that it concerns its limits
    /// anew.
    pub(super) fn budgets_changed(&mut self, call: &Call, outcome: &Outcome) {
        match (call, outcome) {
            (Call::Place(..), Outcome::Row(row)) => self.change_rows(|other| {
                let concerned = other.id == row.id;
                if concerned {
                    other.said = row.said.clone();
                    other.path.clone_from(&row.path);
                    other.set_settings(row.settings().clone());
                    (other.ended, other.ends_s) = (row.ended, row.ends_s);
                }
                concerned
            }),
            (Call::PutPlan(plan), Outcome::Plans(_)) => {
                self.catalogue.plans.insert(plan.name.clone(), plan.budget);
                let has = |said: &Said| said.plan.as_deref() == Some(&plan.name);
                self.change_rows(|row| {
                    has(&row.said) || row.path.iter().any(|node| has(&node.said))
                });
            }
            (Call::DropPlan(name), Outcome::Done) => {
                self.catalogue.plans.remove(name);
            }
            (Call::Set(..), Outcome::Row(row)) => self.change_rows(|other| {
                let concerned = other.id == row.id;
                if concerned {
                    other.set_settings(row.settings().clone());
                    (other.ended, other.ends_s) = (row.ended, row.ends_s);
                }
                concerned
            }),
            (
                Call::PutNode(..) | Call::SetNode(..) | Call::RenameGroup(..),
                Outcome::Node(path),
            ) => {
                let Some(changed) = path.first() else { return };
                self.change_rows(|row| {
                    let node = row.path.iter_mut().find(|node| node.id == changed.id);
                    node.map(|node| node.clone_from(changed)).is_some()
                });
            }
            _ => {}
        }
    }

    /// Change the rows that are in memory; `change` says which it concerns. O(open tenants).
    fn change_rows(&mut self, mut change: impl FnMut(&mut DatabaseRow) -> bool) {
        for row in self.recovered_rows.values_mut() {
            change(row);
        }
        for key in self.tenants.keys() {
            let tenant = self.tenants.get_mut(key).expect("listed just now");
            if tenant.row.as_mut().is_some_and(&mut change) {
                self.renew_limits(key);
            }
        }
    }

    /// Give an open tenant the limits that follow from its row now. What it holds beyond them stays;
    /// it gets no more until it fits.
    pub(super) fn renew_limits(&mut self, key: Key) {
        // Its own keys may be others now.
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        tenant.proven.clear();
        let Some(row) = self.tenants.get(key).and_then(|tenant| tenant.row.as_ref()) else {
            return;
        };
        let (limits, chain) = self.limits_of(row);
        self.renew_place(key, limits, chain);
        self.renew_allowance(key);
    }

    // ---- use ----

    pub(super) fn usage_view(&self, row: DatabaseRow) -> UsageView {
        let open = self.ids.get(&row.id).and_then(|&key| self.tenants.get(key));
        let unsaved = self.catalogue.used.get(&row.id).map(|&(usage, _)| usage);
        let total = open.map(|tenant| self.usage_of(tenant)).or(unsaved).unwrap_or(row.usage);
        let bytes = open.map_or(row.bytes, Tenant::bytes);
        UsageView { total, bytes, open: open.map(|tenant| self.view(tenant)), period: None, row }
    }

    /// What the catalogue's rows say that all databases of a node have used, with what those have used
    /// since that are open. O(open tenants).
    pub(super) fn sum_now(&self, mut sum: Sum) -> Sum {
        let node = sum.path.first().map(|node| node.id);
        for key in self.tenants.keys() {
            let Some(tenant) = self.tenants.get(key) else { continue };
            let Some(row) = tenant.row.as_ref() else { continue };
            if tenant.dropped || !row.path.iter().any(|above| Some(above.id) == node) {
                continue;
            }
            sum.usage.add(&self.usage_of(tenant).since(&row.usage));
            sum.bytes = (sum.bytes + tenant.bytes()).saturating_sub(row.bytes);
        }
        self.add_open_to(&mut sum);
        sum
    }

    /// What a tenant has used, with the delays at its present place.
    pub(super) fn usage_of(&self, tenant: &Tenant<J>) -> Usage {
        let throttled_ns = tenant.place.map_or(0, |place| self.throttled_ns(&place));
        let before_ns = tenant.usage.throttled_ns;
        Usage { throttled_ns: before_ns + throttled_ns, ..tenant.usage }
    }

    /// A tenant's row is known to hold this use and size.
    pub(super) fn usage_saved(&mut self, key: Key, usage: Usage, bytes: u64) {
        let row = self.tenants.get_mut(key).and_then(|tenant| tenant.row.as_mut());
        if let Some(row) = row {
            row.bytes = bytes;
            row.usage = usage;
        }
    }

    /// A tenant closes: what it used since its last checkpoint is written soon, with others'.
    pub(super) fn note_use(&mut self, tenant: &Tenant<J>) {
        let saved = tenant.row.is_none() || tenant.noted == tenant.usage;
        if (tenant.dropped || is_memory(tenant.id)) && !self.doomed {
            self.note_spent(tenant);
        }
        let lives = !tenant.is_ended() && tenant.id != TenantId::CATALOGUE && !is_memory(tenant.id);
        if saved || !lives || self.doomed {
            return;
        }
        if self.catalogue.used.is_empty() {
            self.set_timer(limits::USED_WAIT_NS, Timer::UsageDue);
        }
        let used_s = self.used_s(tenant);
        self.catalogue.used.insert(tenant.id, (tenant.usage, used_s));
        if self.catalogue.used.len() >= limits::USED_BATCH {
            self.write_usage();
        }
    }

    /// Hand the catalogue what closed tenants have used.
    pub(super) fn write_usage(&mut self) {
        if !matches!(self.phase, Phase::Serving | Phase::Stopping) {
            return;
        }
        for (node, (usage, at_s)) in std::mem::take(&mut self.catalogue.spent) {
            self.call_catalogue(Asker::Nobody, Call::Spent(node, usage, at_s));
        }
        for (id, (usage, used_s)) in std::mem::take(&mut self.catalogue.used) {
            self.call_catalogue(Asker::Nobody, Call::Used(id, usage, used_s));
        }
    }
}
