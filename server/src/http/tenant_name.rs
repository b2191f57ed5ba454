//! A database's name as it stands in a URL: checked, lower-cased, without allocation.

use std::fmt;

use crate::limits::TENANT_NAME_BYTES_MAX;
use crate::problem::Problem;

/// 1 to 64 bytes of `a-z`, `0-9`, `-` and `_`; the first is a letter or a digit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName {
    // Bytes from `length_bytes` on are zero, so that the derived comparisons are right.
    bytes: [u8; TENANT_NAME_BYTES_MAX],
    length_bytes: u8,
}

impl TenantName {
    /// The tenant of a request that names none.
    pub const DEFAULT: &'static str = "default";

    /// `name` in lower case.
    ///
    /// # Errors
    /// 400 if it cannot be a name; the message says what can.
    pub fn new(name: &str) -> Result<TenantName, Problem> {
        TenantName::of_bytes(name.as_bytes())
    }

    /// The same of what may be no text.
    ///
    /// # Errors
    /// As [`TenantName::new`].
    pub fn of_bytes(name: &[u8]) -> Result<TenantName, Problem> {
        let mut bytes = [0; TENANT_NAME_BYTES_MAX];
        if name.is_empty() || name.len() > TENANT_NAME_BYTES_MAX {
            return Err(invalid());
        }
        for (index, byte) in name.iter().enumerate() {
            let byte = byte.to_ascii_lowercase();
            let first = byte.is_ascii_lowercase() || byte.is_ascii_digit();
            if !first && (index == 0 || !matches!(byte, b'-' | b'_')) {
                return Err(invalid());
            }
            bytes[index] = byte;
        }
        let length_bytes = u8::try_from(name.len()).expect("64 fits in 8 bits");
        Ok(TenantName { bytes, length_bytes })
    }

    /// The name for [`TenantName::DEFAULT`].
    ///
    /// # Panics
    /// Never: the default is a valid name.
    #[must_use]
    pub fn default_tenant() -> TenantName {
        TenantName::new(TenantName::DEFAULT).expect("the default is a valid name")
    }

    /// The name.
    ///
    /// # Panics
    /// Never: a name is ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length_bytes)];
        std::str::from_utf8(bytes).expect("a name is ASCII")
    }
}

impl fmt::Debug for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

fn invalid() -> Problem {
    Problem::new(
        400,
        "DATABASE_NAME_INVALID",
        "a database name is 1 to 64 characters of a-z, 0-9, '-' and '_', \
         and starts with a letter or a digit",
    )
}
