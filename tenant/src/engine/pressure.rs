//! Memory pressure: databases hold nearly as much as they may together.
//!
//! What nobody uses goes first, in SIEVE order (Zhang and others, "SIEVE is simpler than LRU", NSDI
//! 2024): a hand goes round over the open tenants; one that was used since it last came by loses its
//! mark, one that was not loses its cached pages at once, and is closed if it holds little else. So it
//! is, too, where little is held and yet somebody was refused memory for want of it: whoever needs
//! more than is free gets it from idle ones when it tries again. When nothing is left to take, new
//! requests are refused before anything breaks; what runs goes on. Those who hold much are refused
//! first: the last of the memory is kept for databases that are small ([`SMALL_MEMORY_BYTES`]), for
//! their requests here and for what they allocate in the ledger.

use storage::ledger::{self, AccountId};
use storage::limits::SMALL_MEMORY_BYTES;
use storage::sometimes;
use storage::{TenantId, pagecache};

use super::context::Job;
use super::ephemeral::is_memory;
use super::{Engine, Phase};
use crate::limits;

/// Parts of a hundred.
fn part(bytes: u64, percent: u64) -> u64 {
    bytes / 100 * percent
}

/// Of what all databases may hold together, so much is for small ones only.
pub(super) fn kept_for_small(memory_bytes: u64) -> u64 {
    part(memory_bytes, 100 - limits::MEMORY_LARGE_PERCENT)
}

impl<J: Job> Engine<J> {
    /// From now on databases may hold so much together, and never more than was said at the start:
    /// the process holds memory beside theirs that nobody could know before.
    pub fn limit_memory(&mut self, bytes: u64) {
        self.memory_bytes = bytes.min(self.options.memory_bytes);
        ledger::set_machine_limit(self.memory_bytes, kept_for_small(self.memory_bytes));
    }

    /// Bytes that databases may hold together now.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Bytes that databases may hold together before idle ones give something back.
    fn pressure_bytes(&self) -> u64 {
        part(self.memory_bytes, limits::MEMORY_PRESSURE_PERCENT)
    }

    /// Whether new requests for the database of this name are refused because of it.
    pub(super) fn is_overloaded(&self, name: &str) -> bool {
        let held = ledger::memory_held(AccountId::MACHINE);
        if held <= part(self.memory_bytes, limits::MEMORY_LARGE_PERCENT) {
            return false;
        }
        let tenant = self.names.get(name).and_then(|&key| self.tenants.get(key));
        let volume = tenant.and_then(|tenant| tenant.volume.as_ref());
        let own = volume.map_or(0, |volume| ledger::memory_held(volume.account()));
        own > SMALL_MEMORY_BYTES || held > part(self.memory_bytes, limits::MEMORY_OVERLOAD_PERCENT)
    }

    /// Take back what is not used while databases hold too much together.
    pub(super) fn relieve_pressure(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        let refused = ledger::refused(AccountId::MACHINE);
        let wanted = std::mem::replace(&mut self.refusals_heeded, refused) != refused;
        let mut enough = self.pressure_bytes();
        if wanted {
            let more = part(self.options.memory_bytes, limits::MEMORY_WANTED_PERCENT);
            enough = enough.min(ledger::memory_held(AccountId::MACHINE).saturating_sub(more));
        }
        let mut closing = 0;
        for _ in 0..limits::TENANTS_PER_SWEEP.min(2 * self.tenants.len()) {
            let held = ledger::memory_held(AccountId::MACHINE);
            if held <= enough || closing >= limits::CHECKPOINTS_MAX {
                return;
            }
            let Some(key) = self.tenants.next_from(self.evict_hand) else { return };
            self.evict_hand = key.index + 1;
            let tenant = self.tenants.get_mut(key).expect("found just now");
            closing += usize::from(tenant.is_closing());
            let Some(volume) = &tenant.volume else { continue };
            let account = volume.account();
            if tenant.id == TenantId::CATALOGUE || tenant.is_closing() {
                continue;
            }
            if !tenant.is_unused() {
                // It works; what it only keeps goes before anybody is refused.
                if held > part(self.memory_bytes, limits::MEMORY_LARGE_PERCENT) {
                    sometimes!("a busy tenant loses its cached pages");
                    pagecache::shed(account, u64::MAX);
                }
                continue;
            }
            if std::mem::take(&mut tenant.visited) {
                continue;
            }
            if is_memory(tenant.id) {
                pagecache::shed(account, u64::MAX);
                self.rest_in_memory(key);
                continue;
            }
            if pagecache::shed(account, u64::MAX) == 0 {
                sometimes!("an idle tenant is closed for its memory");
                closing += 1;
                self.begin_closing(key);
            }
        }
    }
}
