//! Who asks, and what they may: the rights that a request comes with, judged against the row of the
//! database that it is for.
//!
//! Owns the last word: whoever has read a token or looked a key up says what it claims, and the engine
//! asks here again where the row is known. Knows no HTTP, no signatures and no secrets but their
//! hashes.
//!
//! - A [`Scope`] that does not cover a database is told what who has no rights at all is told: whether
//!   it exists is nobody's business.
//! - A [`Role`] is read < write < admin. Statements need read or write; calls of the control API, admin
//!   where they change something.

use storage::TenantId;

use crate::budget::Priority;
use crate::catalogue::{DatabaseRow, NodeId, NodeRow};
use crate::settings::Settings;

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Read,
    /// Reads and writes, the schema too.
    Write,
    /// Also says who else may, and how much.
    Admin,
}

impl Role {
    /// All, the least first; a role's place is its number in the catalogue.
    pub const ALL: [Role; 3] = [Role::Read, Role::Write, Role::Admin];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Admin => "admin",
        }
    }

    /// The role of this word.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Longest name that a scope can hold; no database has a longer one.
pub const NAME_BYTES_MAX: usize = 64;

/// A database's name, held in place: a request's rights are copied, and allocate nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name([u8; NAME_BYTES_MAX]);

impl Name {
    /// The name, if it is not too long and has no NUL.
    #[must_use]
    pub fn new(name: &str) -> Option<Name> {
        let mut bytes = [0; NAME_BYTES_MAX];
        let fits = !name.is_empty() && !name.bytes().any(|byte| byte == 0);
        bytes.get_mut(..name.len()).filter(|_| fits)?.copy_from_slice(name.as_bytes());
        Some(Name(bytes))
    }

    fn is(&self, name: &str) -> bool {
        Name::new(name).is_some_and(|other| other == *self)
    }
}

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    Machine,
    /// An organisation or group, and what is in it.
    Node(NodeId),
    /// One database, by its id: not the next one of that name.
    Database(TenantId),
    /// Whatever database has this name: what tokens say that others have signed.
    Name(Name),
}

/// Id of a key; never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub u64);

/// What a request may. Small, and copied to wherever it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// How much.
    pub role: Role,
    /// Of what.
    pub scope: Scope,
    /// Its requests are not more urgent than this.
    pub priority: Option<Priority>,
    /// When the token was issued, in seconds since 1970; `None` for what is no token and is not
    /// refused when tokens are rotated.
    pub issued_s: Option<u64>,
    /// The key in the catalogue that it came with: when that is revoked, its requests end.
    pub key: Option<KeyId>,
}

/// What something that is asked takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// This role at least.
    pub role: Role,
    /// Everything as its scope: it shows or changes what is everybody's.
    pub machine: bool,
}

/// A key that somebody has shown, to be compared with the catalogue's row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyProof {
    /// What of it may be seen.
    pub public: [u8; 16],
    /// Of all of it.
    pub hash: [u8; 32],
    /// When it was shown, in seconds since 1970.
    pub now_s: u64,
}

impl std::fmt::Debug for KeyProof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeyProof(..)")
    }
}

/// What a request comes with.
#[derive(Clone, Copy, Debug)]
pub enum Credential {
    /// Rights that were found good.
    Access(Access),
    /// A key.
    Key(KeyProof),
    /// A token that a key of the database itself may have signed: its job knows how to ask.
    Foreign,
}

/// What a request asks with, once its key is known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    /// These rights.
    Access(Access),
    /// Those that a key of the database gives its token.
    Foreign,
}

impl Claim {
    /// The same, but for no more than reading.
    pub fn to_read(self) -> Claim {
        match self {
            Claim::Access(access) => Claim::Access(Access { role: Role::Read, ..access }),
            Claim::Foreign => Claim::Foreign,
        }
    }
}

/// Rights that a database's own key gives.
#[derive(Clone, Copy, Debug)]
pub struct Proven {
    /// The rights.
    pub access: Access,
    /// For so long.
    pub good_for_ns: u64,
}

/// Why a request is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It has no rights here at all: 401, whatever there is.
    Unauthorised,
    /// It has rights here, and not this one: 403.
    Forbidden,
}

impl Access {
    /// May everything: who asks where nobody is asked for a key.
    pub const MACHINE: Access = Access {
        role: Role::Admin,
        scope: Scope::Machine,
        priority: None,
        issued_s: None,
        key: None,
    };

    /// Whether the role suffices, and the scope where everything is needed.
    ///
    /// # Errors
    /// [`Denial::Forbidden`].
    pub fn meets(&self, needs: Needs) -> Result<(), Denial> {
        let everywhere = !needs.machine || self.scope == Scope::Machine;
        if self.role >= needs.role && everywhere { Ok(()) } else { Err(Denial::Forbidden) }
    }

    /// Whether it may know that there is no database of this name.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        match self.scope {
            Scope::Machine => true,
            Scope::Name(own) => own.is(name),
            Scope::Node(_) | Scope::Database(_) => false,
        }
    }

    /// Whether the scope covers the database of this row.
    #[must_use]
    pub fn covers(&self, row: &DatabaseRow) -> bool {
        match self.scope {
            Scope::Machine => true,
            Scope::Node(id) => row.path.iter().any(|node| node.id == id),
            Scope::Database(id) => row.id == id,
            Scope::Name(name) => name.is(&row.name),
        }
    }

    /// Whether the scope covers an organisation or group: the named one first, then what it is in.
    #[must_use]
    pub fn covers_node(&self, path: &[NodeRow]) -> bool {
        match self.scope {
            Scope::Machine => true,
            Scope::Node(id) => path.iter().any(|node| node.id == id),
            Scope::Database(_) | Scope::Name(_) => false,
        }
    }

    /// Whether a database that is not there may be made for it: it must be allowed to have that one, by
    /// a name that says so.
    #[must_use]
    pub fn may_make(&self, name: &str) -> bool {
        self.knows(name) && self.role >= Role::Write
    }

    /// Whether the database of this row may be told of at all.
    ///
    /// # Errors
    /// [`Denial::Unauthorised`]: it is of another, or the token is older than a rotation.
    pub fn enter(&self, row: &DatabaseRow) -> Result<(), Denial> {
        if self.covers(row) && !self.holder().is_older_than(row) {
            Ok(())
        } else {
            Err(Denial::Unauthorised)
        }
    }

    /// As [`enter`](Self::enter), for an organisation or group.
    ///
    /// # Errors
    /// [`Denial::Unauthorised`].
    pub fn enter_node(&self, path: &[NodeRow]) -> Result<(), Denial> {
        let is_old = self.holder().is_older(path.iter().map(NodeRow::settings));
        if self.covers_node(path) && !is_old { Ok(()) } else { Err(Denial::Unauthorised) }
    }

    /// Who holds it.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder { key: self.key, issued_s: self.issued_s }
    }

    /// What statements may not do under this access in a database of these settings; `None` where they
    /// may everything.
    #[must_use]
    pub fn denials(&self, settings: &Settings) -> Option<Box<Denials>> {
        let denials = Denials {
            read_only: self.role < Role::Write,
            block_reads: settings.block_reads,
            block_writes: settings.block_writes || settings.block_reads,
            reason: settings.block_reason.clone().unwrap_or_default(),
        };
        let any = denials.read_only || denials.block_writes;
        any.then(|| Box::new(denials))
    }
}

/// What of an access can be taken away while a request runs: a few words, as they are moved with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// See [`Access::key`].
    pub key: Option<KeyId>,
    /// See [`Access::issued_s`].
    pub issued_s: Option<u64>,
}

impl Holder {
    /// Whether it is a token that was issued before a rotation of the database's, its group's or its
    /// organisation's.
    #[must_use]
    pub fn is_older_than(&self, row: &DatabaseRow) -> bool {
        let above = row.path.iter().map(NodeRow::settings);
        self.is_older(std::iter::once(row.settings()).chain(above))
    }

    /// Whether it is a token that was issued before a rotation of this organisation or group itself.
    pub(crate) fn is_older_than_node(&self, node: &NodeRow) -> bool {
        self.is_older(std::iter::once(node.settings()))
    }

    fn is_older<'a>(&self, mut settings: impl Iterator<Item = &'a Settings>) -> bool {
        let Some(issued_s) = self.issued_s else { return false };
        settings.any(|settings| issued_s < settings.tokens_after_s)
    }
}

/// What statements of a request may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denials {
    /// Writing: it has only the right to read.
    pub read_only: bool,
    /// Reading: somebody has blocked it.
    pub block_reads: bool,
    /// Writing: somebody has blocked it.
    pub block_writes: bool,
    /// Why.
    pub reason: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> DatabaseRow {
        let node = |id, name: &str| NodeRow::new(NodeId(id), name);
        DatabaseRow {
            path: vec![node(5, "web"), node(2, "acme")],
            ..DatabaseRow::new(TenantId(7), "shop", 0)
        }
    }

    fn of(scope: Scope) -> Access {
        Access { scope, ..Access::MACHINE }
    }

    #[test]
    fn scopes_cover_what_is_in_them_and_nothing_else() {
        let name = |text| Scope::Name(Name::new(text).expect("it is short"));
        for (scope, covered) in [
            (Scope::Machine, true),
            (Scope::Node(NodeId(5)), true),
            (Scope::Node(NodeId(2)), true),
            (Scope::Node(NodeId(7)), false),
            (Scope::Database(TenantId(7)), true),
            (Scope::Database(TenantId(5)), false),
            (name("shop"), true),
            (name("sho"), false),
            (name("shops"), false),
        ] {
            assert_eq!(of(scope).covers(&row()), covered, "{scope:?}");
            let entered = of(scope).enter(&row());
            assert_eq!(entered, if covered { Ok(()) } else { Err(Denial::Unauthorised) });
        }
        let path = &row().path[..];
        assert!(of(Scope::Node(NodeId(2))).covers_node(path));
        assert!(!of(Scope::Node(NodeId(5))).covers_node(&path[1..]), "a group is not above");
        assert!(!of(Scope::Database(TenantId(7))).covers_node(path));
    }

    #[test]
    fn names_are_short_and_without_nul() {
        assert!(Name::new("").is_none());
        assert!(Name::new(&"a".repeat(64)).is_some());
        assert!(Name::new(&"a".repeat(65)).is_none());
        assert!(Name::new("a\0").is_none());
    }

    #[test]
    fn tokens_older_than_a_rotation_of_any_level_are_refused() {
        let rotated = |after_s| Settings { tokens_after_s: after_s, ..Settings::default() };
        let token = Access { issued_s: Some(100), ..Access::MACHINE };
        let mut row = row();
        assert!(token.enter(&row).is_ok());
        row.path[1].set_settings(rotated(101));
        assert_eq!(token.enter(&row), Err(Denial::Unauthorised));
        assert!(Access::MACHINE.enter(&row).is_ok(), "it is no token");
        row.path[1].set_settings(rotated(100));
        assert!(token.enter(&row).is_ok());
        row.set_settings(rotated(101));
        assert_eq!(token.enter(&row), Err(Denial::Unauthorised));
    }

    #[test]
    fn databases_are_made_only_for_who_may_have_them_by_name() {
        let name = Scope::Name(Name::new("shop").expect("it is short"));
        assert!(of(Scope::Machine).may_make("shop"));
        assert!(of(name).may_make("shop"));
        assert!(!of(name).may_make("other"));
        assert!(!of(Scope::Node(NodeId(1))).may_make("shop"));
        assert!(!Access { role: Role::Read, ..Access::MACHINE }.may_make("shop"));
    }

    #[test]
    fn blocked_reads_block_writes_too() {
        let settings = Settings { block_reads: true, ..Settings::default() };
        let denials = Access::MACHINE.denials(&settings).expect("something is denied");
        assert!(denials.block_writes && denials.block_reads && !denials.read_only);
        assert_eq!(Access::MACHINE.denials(&Settings::NOTHING), None);
    }
}
