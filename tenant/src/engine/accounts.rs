//! The ledger's accounts of groups and organisations: open while one of their databases is.

use std::collections::BTreeMap;

use storage::ledger::{self, AccountId, Level};

use super::budgets::Node;
use crate::catalogue::NodeId;

/// Accounts of nodes by the node's id. Millions of groups cost nothing: only those with an open
/// database are here.
#[derive(Debug, Default)]
pub(super) struct NodeAccounts {
    by_node: BTreeMap<NodeId, AccountId>,
}

impl NodeAccounts {
    /// The account right above a database with this chain of nodes, nearest first, if it has any.
    /// Opens what is not open, and gives every node its limit of now.
    pub(super) fn above(&mut self, chain: &[Node]) -> Option<AccountId> {
        let mut above = None;
        for (index, node) in chain.iter().enumerate().rev() {
            let limit = node.limits.memory_bytes;
            let level = if index + 1 == chain.len() { Level::Organisation } else { Level::Group };
            let account = self
                .by_node
                .entry(node.id)
                .or_insert_with(|| ledger::open_node(level, limit, above));
            if ledger::memory_limit(*account) != limit {
                ledger::set_memory_limit(*account, limit);
            }
            above = Some(*account);
        }
        above
    }

    /// Close accounts of this chain that have no open database any more.
    pub(super) fn close_unused(&mut self, chain: &[Node]) {
        for node in chain {
            let Some(&account) = self.by_node.get(&node.id) else { continue };
            if ledger::databases_below(account) == 0 {
                self.by_node.remove(&node.id);
                ledger::close(account);
            }
        }
    }

    /// No account is open.
    pub(super) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Limits;

    fn chain(group: u64, group_bytes: u64, organisation_bytes: u64) -> Vec<Node> {
        let node = |id, bytes| Node { id: NodeId(id), limits: Limits::of_machine(bytes) };
        vec![node(group, group_bytes), node(1, organisation_bytes)]
    }

    #[test]
    fn nodes_live_as_long_as_a_database_of_theirs() {
        let mut accounts = NodeAccounts::default();
        assert_eq!(accounts.above(&[]), None);
        let (first, second) = (chain(2, 100, 1000), chain(3, 200, 1000));
        let ids = [&first, &second].map(|chain| {
            let above = accounts.above(chain);
            (ledger::open(u64::MAX, above), above.expect("a group"))
        });
        assert_eq!(accounts.by_node.len(), 3);
        assert_eq!(ids.map(|(_, group)| ledger::memory_limit(group)), [100, 200]);
        assert_eq!(accounts.above(&chain(2, 50, 500)), Some(ids[0].1));
        assert_eq!(ledger::memory_limit(ids[0].1), 50);
        ledger::close(ids[0].0);
        accounts.close_unused(&first);
        assert_eq!(accounts.by_node.len(), 2);
        ledger::close(ids[1].0);
        accounts.close_unused(&second);
        assert!(accounts.is_empty());
    }
}
