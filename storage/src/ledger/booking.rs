//! Buffers of one owner, booked for as long as their booking lives.

use super::kind::{AccountId, Kind};
use super::{LEDGER, charge, credit};

/// Bytes of [`Kind::Buffer`] on one account, given back when this is dropped. An account may be closed
/// before: what is left then is booked on [`AccountId::CONNECTIONS`].
#[derive(Debug)]
pub struct Booking {
    account: AccountId,
    /// Which of the accounts that had this number.
    life: u32,
    bytes: u64,
}

impl Booking {
    /// No bytes yet.
    #[must_use]
    pub fn on(account: AccountId) -> Booking {
        Booking { account, life: life(account), bytes: 0 }
    }

    /// Bytes that are booked.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Book so many bytes altogether, if they are more than now; `false` if a limit refuses it.
    #[must_use]
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let growth = bytes.saturating_sub(self.bytes);
        if growth > 0 && !charge(self.holder(), Kind::Buffer, growth) {
            return false;
        }
        self.bytes += growth;
        true
    }

    /// Give back what is more than so many bytes.
    pub fn shrink_to(&mut self, bytes: u64) {
        let given = self.bytes.saturating_sub(bytes);
        if given > 0 {
            credit(self.holder(), Kind::Buffer, given);
            self.bytes -= given;
        }
    }

    /// Give everything back.
    pub fn clear(&mut self) {
        self.shrink_to(0);
    }

    fn holder(&self) -> AccountId {
        if life(self.account) == self.life { self.account } else { AccountId::CONNECTIONS }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        self.clear();
    }
}

fn life(account: AccountId) -> u32 {
    LEDGER.with_borrow(|ledger| ledger.accounts[account.index() as usize].life)
}
