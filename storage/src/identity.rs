//! Names of things that cross every layer.

/// A tenant's id, from the catalogue: given once, never again, not even after a drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u64);

impl TenantId {
    /// The catalogue is itself a tenant.
    pub const CATALOGUE: TenantId = TenantId(0);

    /// Path of the tenant's file below the data folder, and of the two folders it lies in.
    #[must_use]
    pub fn paths(self) -> TenantPaths {
        let outer = format!("tenants/{:02x}", self.0 & 0xff);
        let inner = format!("{outer}/{:02x}", self.0 >> 8 & 0xff);
        let file = format!("{inner}/{}.db", self.0);
        TenantPaths { outer, inner, file }
    }
}

/// Where a tenant's file lies, relative to the data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPaths {
    /// `tenants/<2 hex>`
    pub outer: String,
    /// `tenants/<2 hex>/<2 hex>`
    pub inner: String,
    /// `tenants/<2 hex>/<2 hex>/<id>.db`
    pub file: String,
}

/// The folder that holds all tenants' folders.
pub const TENANTS_FOLDER: &str = "tenants";
/// The folder of unnamed temporary files.
pub const TEMPORARY_FOLDER: &str = "temporary";
