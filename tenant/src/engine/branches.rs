//! Organisations and groups that have an open database: their accounts in the ledger.
//!
//! A branch is there from the first of its databases that opens to the last that closes, so that
//! millions of groups cost nothing. Its account holds what its databases hold together.

use storage::ledger::{self, AccountId, Level};
use storage::sometimes;

use super::Engine;
use super::budgets::Node;
use super::context::Job;
use crate::pool::Key;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Branch {
    account: AccountId,
    /// Open databases and other branches right below.
    below: usize,
}

impl<J: Job> Engine<J> {
    /// One more database is open below `chain` (the nearest first): the account that its own goes
    /// below. Nothing for one directly under the machine.
    pub(super) fn join_branches(&mut self, chain: &[Node]) -> Option<AccountId> {
        let mut parent = None;
        for (index, node) in chain.iter().enumerate().rev() {
            let is_organisation = index + 1 == chain.len();
            let level = if is_organisation { Level::Organisation } else { Level::Group };
            let mut is_new = false;
            let branch = self.branches.entry(node.id).or_insert_with(|| {
                is_new = true;
                let account = ledger::open_node(level, node.limits.memory_bytes, parent);
                Branch { account, below: 0 }
            });
            parent = Some(branch.account);
            branch.below += usize::from(index == 0);
            if is_new && let Some(above) = chain.get(index + 1) {
                self.branches.get_mut(&above.id).expect("joined just now").below += 1;
            }
        }
        parent
    }

    /// A database below `chain` has closed its account, or moved it.
    pub(super) fn leave_branches(&mut self, chain: &[Node]) {
        for node in chain {
            let branch = self.branches.get_mut(&node.id).expect("a database has joined it");
            branch.below -= 1;
            if branch.below > 0 {
                return;
            }
            ledger::close(branch.account);
            self.branches.remove(&node.id);
        }
    }

    /// The limits of an open tenant's organisation and group may be others now, and they may be others
    /// themselves: `before` is where it was.
    pub(super) fn renew_branches(&mut self, key: Key, before: &[Node]) {
        let Some(tenant) = self.tenants.get(key) else { return };
        let Some(account) = tenant.volume.as_ref().map(|volume| volume.account()) else { return };
        let chain = tenant.chain.clone();
        if !before.iter().map(|node| node.id).eq(chain.iter().map(|node| node.id)) {
            sometimes!("an open database moves to another group");
            let parent = self.join_branches(&chain);
            ledger::move_below(account, parent);
            self.leave_branches(before);
        }
        for node in &chain {
            let branch = self.branches.get(&node.id).expect("a database has joined it");
            if ledger::memory_limit(branch.account) != node.limits.memory_bytes {
                ledger::set_memory_limit(branch.account, node.limits.memory_bytes);
            }
        }
    }
}
