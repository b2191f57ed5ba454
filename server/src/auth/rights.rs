//! What each thing that may be asked takes: the one table of rights.
//!
//! A role is compared with it here, in numbers; whether the scope covers what is asked for is decided
//! where that is looked up: in the engine for a database (`tenant::access`), in the catalogue's own
//! transaction for calls of the control API.

use tenant::ControlCall;
use tenant::access::{Needs, Role};
use tenant::jobs::JobCall;

/// What a statement takes at least; writing takes [`Role::Write`], judged statement by statement.
pub const STATEMENTS: Needs = Needs { role: Role::Read, machine: false };

/// What each request takes that sends a part of a draft.
pub const UPLOAD: Needs = Needs { role: Role::Write, machine: false };

/// What `/metrics` and `/v1/top` take: they show neighbours to each other.
pub const OVERVIEW: Needs = Needs { role: Role::Read, machine: true };

/// What it takes to be shown what is the same for everybody.
pub const ANYBODY: Needs = Needs { role: Role::Read, machine: false };

/// What a call of the control API takes.
#[must_use]
pub fn of_call(call: &ControlCall) -> Needs {
    let (role, machine) = match call {
        // What there is, of what one has.
        ControlCall::Show(_)
        | ControlCall::Budget(_)
        | ControlCall::Usage(_)
        | ControlCall::UsageIn(..)
        | ControlCall::SumIn(..)
        | ControlCall::Nodes { .. }
        | ControlCall::Members { .. }
        | ControlCall::Sum(_)
        | ControlCall::Settings(_)
        | ControlCall::NodeSettings(_)
        | ControlCall::Node(_) => (Role::Read, false),
        ControlCall::ShowKey(_) => (Role::Read, false),
        ControlCall::RevokeNamed(_) => (Role::Admin, true),
        ControlCall::Within(_, call) => return of_call(call),
        // What there is at all.
        ControlCall::Permit => (Role::Read, true),
        ControlCall::List { .. } | ControlCall::Plans | ControlCall::Plan(_) => (Role::Read, true),
        // Changes within what one has; and keys, which are rights to it.
        ControlCall::Create(..)
        | ControlCall::Import { .. }
        | ControlCall::Fork { .. }
        | ControlCall::Place(..)
        | ControlCall::Set(..)
        | ControlCall::Drop(_)
        | ControlCall::PutNode(..)
        | ControlCall::SetNode(..)
        | ControlCall::DropNode(_)
        | ControlCall::CreateNode(_)
        | ControlCall::RenameGroup(..)
        | ControlCall::Checkpoint(_)
        | ControlCall::Bulk(_)
        | ControlCall::CreateKey(_)
        | ControlCall::RevokeKey(_)
        | ControlCall::Sign(..) => (Role::Admin, false),
        // What a job runs may be anything, and what came of it tells of it.
        ControlCall::Job(call) => (Role::Admin, is_of_machine(call)),
        ControlCall::Keys { scope, .. } => (Role::Admin, scope.is_none()),
        // Plans are everybody's.
        ControlCall::PutPlan(_) | ControlCall::DropPlan(_) => (Role::Admin, true),
    };
    Needs { role, machine }
}

/// Whether a call about jobs is for the whole machine's; of one that its number names, the row says.
fn is_of_machine(call: &JobCall) -> bool {
    match call {
        JobCall::Create(job) => job.node.is_none(),
        JobCall::List { node, .. } => node.is_none(),
        JobCall::Show(_) | JobCall::Results { .. } | JobCall::Order(..) => false,
        JobCall::Open | JobCall::Walk { .. } | JobCall::Note(_) | JobCall::Erase(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use storage::TenantId;
    use tenant::access::{Access, Name, Scope};
    use tenant::budget::Budget;
    use tenant::budget::periods::Range;
    use tenant::jobs::{JobId, NewJob, Order, Targets};
    use tenant::settings::SettingsChange;
    use tenant::{Bulk, BulkWork, Change, KeyScope, NodeId, NodePath, Plan, Said, Secret};

    use super::*;

    /// Each call with who may make it: `r`, `w`, `a` are the roles; first on the machine, then on a part
    /// of it.
    #[test]
    fn the_table() {
        let name = || "shop".to_owned();
        let path = || NodePath { organisation: "acme".into(), group: None };
        let plan = Plan { name: "free".into(), budget: Budget::default() };
        let bulk = || Bulk { work: BulkWork::Drop, names: Vec::new(), key: None, digest: [0; 32] };
        let list = ControlCall::List { after: name(), prefix: name(), limit: 1 };
        let range = Range { from_s: 0, to_s: 1 };
        let job = |node| {
            let (script, options) = ("{}".into(), "{}".into());
            let job = NewJob { node, targets: Targets::All, script, options };
            ControlCall::Job(JobCall::Create(Box::new(job)))
        };
        let jobs = |node| ControlCall::Job(JobCall::List { node, before: 9, limit: 1 });
        let keys = |scope| ControlCall::Keys { scope, after: 0, limit: 1 };
        for (call, machine, part) in [
            (ControlCall::Bulk(Box::new(bulk())), "a", "a"),
            (ControlCall::Show(name()), "rwa", "rwa"),
            (ControlCall::Budget(name()), "rwa", "rwa"),
            (ControlCall::Usage(name()), "rwa", "rwa"),
            (ControlCall::Node(path()), "rwa", "rwa"),
            (ControlCall::Settings(name()), "rwa", "rwa"),
            (ControlCall::NodeSettings(path()), "rwa", "rwa"),
            (ControlCall::Nodes { of: None, after: "".into(), limit: 1 }, "rwa", "rwa"),
            (
                ControlCall::Members { path: path(), after: Default::default(), limit: 1 },
                "rwa",
                "rwa",
            ),
            (ControlCall::Sum(path()), "rwa", "rwa"),
            (ControlCall::SumIn(path(), range), "rwa", "rwa"),
            (ControlCall::UsageIn(name(), range), "rwa", "rwa"),
            (ControlCall::ShowKey("key".into()), "rwa", "rwa"),
            (ControlCall::RevokeNamed("ci".into()), "a", ""),
            (ControlCall::CreateNode(path()), "a", "a"),
            (ControlCall::RenameGroup(path(), "web".into()), "a", "a"),
            (ControlCall::Checkpoint(name()), "a", "a"),
            (ControlCall::Within("acme".into(), Box::new(ControlCall::Drop(name()))), "a", "a"),
            (job(None), "a", ""),
            (job(Some(path())), "a", "a"),
            (jobs(None), "a", ""),
            (jobs(Some(path())), "a", "a"),
            (ControlCall::Job(JobCall::Show(JobId(1))), "a", "a"),
            (ControlCall::Job(JobCall::Order(JobId(1), Order::Pause)), "a", "a"),
            (ControlCall::Job(JobCall::Open), "a", ""),
            (ControlCall::Permit, "rwa", ""),
            (list, "rwa", ""),
            (ControlCall::Plans, "rwa", ""),
            (ControlCall::Plan(name()), "rwa", ""),
            (ControlCall::PutPlan(plan), "a", ""),
            (ControlCall::DropPlan(name()), "a", ""),
            (ControlCall::Create(name(), Change::default()), "a", "a"),
            (ControlCall::Fork { from: name(), to: name(), change: Change::default() }, "a", "a"),
            (
                ControlCall::Import {
                    name: name(),
                    change: Change::default(),
                    format: tenant::ImportFormat::File,
                },
                "a",
                "a",
            ),
            (ControlCall::Place(name(), Change::default()), "a", "a"),
            (ControlCall::Set(name(), SettingsChange::default()), "a", "a"),
            (ControlCall::Drop(name()), "a", "a"),
            (ControlCall::PutNode(path(), Said::default()), "a", "a"),
            (ControlCall::SetNode(path(), SettingsChange::default()), "a", "a"),
            (ControlCall::DropNode(path()), "a", "a"),
            (ControlCall::RevokeKey("key".into()), "a", "a"),
            (ControlCall::Sign(KeyScope::Machine, Secret([0; 32])), "a", "a"),
            (keys(None), "a", ""),
            (keys(Some(KeyScope::Database(name()))), "a", "a"),
        ] {
            let needs = of_call(&call);
            let allowed = |scope| -> String {
                let may = |role: &Role| {
                    let access = Access { role: *role, scope, ..Access::MACHINE };
                    access.meets(needs).is_ok()
                };
                Role::ALL.iter().filter(|role| may(role)).map(|role| &role.name()[..1]).collect()
            };
            assert_eq!(allowed(Scope::Machine), machine, "{call:?}");
            let short = Name::new("shop").expect("it is short");
            for scope in [Scope::Node(NodeId(1)), Scope::Database(TenantId(1)), Scope::Name(short)]
            {
                assert_eq!(allowed(scope), part, "{call:?} {scope:?}");
            }
        }
        assert!(Access::MACHINE.meets(OVERVIEW).is_ok());
        assert!(Access::MACHINE.meets(STATEMENTS).is_ok());
        let reader = Access { role: Role::Read, ..Access::MACHINE };
        assert!(reader.meets(UPLOAD).is_err(), "who may only read sends nothing");
    }
}
