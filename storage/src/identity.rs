//! Who a byte belongs to. Owns the tenant's number; names and rights live in the catalogue above.

/// A tenant: the number that the catalogue gave it, never used twice. 0 is the catalogue itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u64);
