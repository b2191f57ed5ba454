//! What all clients of a world share: its options, the model, which names exist, and the counts.
//!
//! Owns DUR-4's part about names and ERR-1: which refusals a client may see. A world without disk
//! errors has no excuse for an I/O error, a fence or a failed call.

use std::collections::{BTreeMap, BTreeSet};

use storage::io::Instant;

use super::landlord::Grants;
use super::mix::{Mix, Moment, Popularity};
use super::model::{Asked, Model, Violation, tenant_name};
use super::options::Options;
use super::speech::Refused;
use crate::draws::Draws;

/// Databases that the probe asks, at most.
const PROBED_MAX: usize = 40;

/// Requests and their ends.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Answered as asked.
    pub ok: u64,
    /// Refused or failed, by code.
    pub refused: BTreeMap<String, u64>,
    /// Never answered.
    pub unknown: u64,
    /// Transactions acknowledged.
    pub acknowledged: u64,
    /// Reads judged.
    pub reads: u64,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    exists: Option<bool>,
    /// Moves whenever `exists` may have changed.
    version: u64,
    /// When that was, on the model's count.
    changed_at: u64,
    /// Creates and drops without an answer.
    in_flight: u32,
    /// A create or drop of this epoch, whose answer is lost, may still come.
    murky: Option<u64>,
    /// The tables are there, as far as anyone has heard.
    ready: bool,
    fenced: bool,
    /// It lives with a damage that reads still meet.
    damaged: bool,
}

/// A name as it was when a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameSeen {
    /// Whether it existed, where that was known.
    pub exists: Option<bool>,
    version: u64,
    changed_at: u64,
    /// Nothing was under way that could change it.
    alone: bool,
}

impl NameSeen {
    /// Whether this was so before `asked` already.
    #[must_use]
    pub fn settled_before(self, asked: Asked) -> bool {
        self.changed_at < asked.at
    }
}

/// See the head of the file.
#[derive(Debug)]
pub struct Ground {
    /// The world's.
    pub options: Options,
    /// Contents.
    pub model: Model,
    /// Counts.
    pub counts: Counts,
    /// Operations that may still be begun.
    pub operations_left: u64,
    /// How often each of the drawn tenants is asked.
    pub popularity: Popularity,
    /// Bulk loads begun.
    pub bulk_loads: u64,
    /// Fences that clients heard of since the last look, for the world to judge.
    pub fences: Vec<(usize, NameSeen)>,
    /// I/O errors of the same kind.
    pub io_errors: Vec<(usize, NameSeen)>,
    mix: Mix,
    names: Vec<Name>,
    /// What databases were given by budgets.
    pub grants: Grants,
    /// The disk was full for a while.
    pub disk_was_full: bool,
    /// An operator has given the server less memory than the options say.
    pub memory_was_cut: bool,
    /// Tenants whose file was changed while nobody ran: they are to be fenced, until dropped.
    pub swapped: BTreeSet<usize>,
    /// When the end of the answer in hand was given to a send.
    pub answered_at: Option<Instant>,
    /// The name that it is about, as it was when it was asked.
    pub asked: Option<NameSeen>,
    /// Marks of acknowledged transactions for the monitor, and when their answers left.
    pub acknowledged: Vec<(String, Instant)>,
}

impl Ground {
    /// The ground of a new world.
    #[must_use]
    pub fn new(options: Options) -> Ground {
        let exists = (!options.create_on_first_use).then_some(false);
        let Options { scenarios, weights, operations, tenants, .. } = options;
        let mut draws = Draws::new(options.seed);
        Ground {
            model: Model::default(),
            counts: Counts::default(),
            operations_left: operations,
            popularity: Popularity::zipf(tenants, options.zipf_hundredths),
            bulk_loads: 0,
            fences: Vec::new(),
            io_errors: Vec::new(),
            mix: Mix::new(&mut draws, scenarios, weights, operations, tenants),
            names: vec![Name { exists, ..Name::default() }; tenants],
            grants: Grants::default(),
            disk_was_full: false,
            memory_was_cut: false,
            swapped: BTreeSet::new(),
            answered_at: None,
            asked: None,
            acknowledged: Vec::new(),
            options,
        }
    }

    /// What clients do at this moment.
    pub fn moment(&mut self, now: Instant) -> Moment {
        self.mix.now(now, self.operations_left)
    }

    /// All tenants that were ever named.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.names.len()
    }

    /// Those that the probe asks, evenly spread: each costs some milliseconds here.
    pub fn probed(&self) -> impl Iterator<Item = usize> + use<> {
        let step = self.names.len().div_ceil(PROBED_MAX);
        (0..self.names.len()).step_by(step)
    }

    /// A name that nobody has used.
    pub fn new_tenant(&mut self) -> usize {
        let exists = (!self.options.create_on_first_use).then_some(false);
        self.names.push(Name { exists, ..Name::default() });
        self.names.len() - 1
    }

    /// Whether the tables are there, as far as anyone has heard.
    #[must_use]
    pub fn is_ready(&self, tenant: usize) -> bool {
        self.names[tenant].ready
    }

    /// Someone has heard whether the tables are there.
    pub fn set_ready(&mut self, tenant: usize, ready: bool) {
        self.names[tenant].ready = ready;
    }

    // ---- names ----

    /// What is known of a name now.
    #[must_use]
    pub fn name(&self, tenant: usize) -> NameSeen {
        let Name { exists, version, changed_at, in_flight, murky, .. } = self.names[tenant];
        let alone = in_flight == 0 && murky.is_none_or(|epoch| epoch < self.model.epoch);
        NameSeen { exists, version, changed_at, alone }
    }

    /// A create or drop is sent.
    pub fn name_asked(&mut self, tenant: usize) {
        let name = self.change(tenant);
        name.exists = None;
        name.in_flight += 1;
    }

    /// It was answered: so the name existed, or not, if nothing else was under way.
    pub fn name_told(&mut self, tenant: usize, seen: NameSeen, exists: Option<bool>) {
        let by_use = self.options.create_on_first_use;
        let steady = self.is_own_change(tenant, seen);
        let name = self.change(tenant);
        name.in_flight -= 1;
        // A first use may create the name again at any moment.
        let exists = exists.filter(|exists| *exists || !by_use);
        name.exists = exists.filter(|_| steady && seen.alone);
    }

    /// Whether the name moved only because a change was asked for at `seen`.
    fn is_own_change(&self, tenant: usize, seen: NameSeen) -> bool {
        self.names[tenant].version == seen.version + 1
    }

    fn change(&mut self, tenant: usize) -> &mut Name {
        let changed_at = self.model.ask().at;
        let name = &mut self.names[tenant];
        name.version += 1;
        name.changed_at = changed_at;
        name
    }

    /// Its answer is lost.
    pub fn name_lost(&mut self, tenant: usize, asked: Asked) {
        let name = self.change(tenant);
        name.exists = None;
        name.in_flight -= 1;
        name.murky = name.murky.max(Some(asked.epoch));
    }

    /// DUR-4: a request found the name, or not, and that can be. If nothing changed it meanwhile,
    /// then this is known from now on.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check_name(
        &mut self,
        tenant: usize,
        seen: NameSeen,
        there: bool,
    ) -> Result<(), Violation> {
        let by_use = self.options.create_on_first_use;
        let now = self.model.ask().at;
        let name = &mut self.names[tenant];
        let steady = name.version == seen.version;
        match seen.exists {
            Some(exists) if steady && exists != there => Err(misnamed(tenant, exists, there)),
            None if steady && seen.alone && (there || !by_use) => {
                name.exists = Some(there);
                name.changed_at = now;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// As [`Ground::check_name`], for the one who changes names.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn check_change(
        &self,
        tenant: usize,
        seen: NameSeen,
        there: bool,
    ) -> Result<(), Violation> {
        match seen.exists {
            Some(exists) if exists != there && self.is_own_change(tenant, seen) => {
                Err(misnamed(tenant, exists, there))
            }
            _ => Ok(()),
        }
    }

    /// Whether a tenant was seen fenced, or cannot be read where the disk is damaged.
    #[must_use]
    pub fn is_fenced(&self, tenant: usize) -> bool {
        self.names[tenant].fenced || self.names[tenant].damaged
    }

    /// The ledger says that something of the tenant cannot be read.
    pub fn set_damaged(&mut self, tenant: usize) {
        self.names[tenant].damaged = true;
    }

    /// The damaged tenant was dropped.
    pub fn unfence(&mut self, tenant: usize) {
        self.names[tenant].fenced = false;
        self.swapped.remove(&tenant);
        self.names[tenant].damaged = false;
    }

    /// Whether the name changed while the request was under way whose answer is in hand: what runs
    /// on a database that is dropped is interrupted.
    fn may_be_dropped(&self, tenant: usize) -> bool {
        let version = self.names[tenant].version;
        self.asked.is_some_and(|seen| !seen.alone || seen.version != version)
    }

    // ---- refusals ----

    /// Count a refusal, and judge whether it may be.
    ///
    /// # Errors
    /// ERR-1 or COR-1 if nothing in this world excuses it.
    pub fn judge_refusal(&mut self, tenant: usize, refused: &Refused) -> Result<(), Violation> {
        *self.counts.refused.entry(refused.code.clone()).or_default() += 1;
        let options = &self.options;
        let errors = options.has_disk_errors();
        let full = options.has_full_disk() || self.disk_was_full;
        // The answer may have been long on its way, and the name be another database's by now.
        let seen = self.asked.unwrap_or_else(|| self.name(tenant));
        let excused = match refused.code.as_str() {
            // Load and timeouts; sessions that a restart or their age ended.
            "SQLITE_BUSY"
            | "TRANSACTION_TIMEOUT"
            | "STREAM_EXPIRED"
            | "BATON_INVALID"
            | "BATON_USED"
            | "TOO_MANY_STREAMS"
            | "TOO_MANY_REQUESTS"
            | "UNAVAILABLE"
            | "DATABASE_UNAVAILABLE"
            | "RESPONSE_TOO_LARGE"
            | "DATABASE_EXISTS" => true,
            "SQLITE_FULL" | "LOG_FULL" => full || options.has_small_log(),
            "MEMORY_FULL" | "BUDGET_EXCEEDED" => options.has_small_memory() || self.memory_was_cut,
            // A database that many use at once needs more than its budget, however large.
            "SQLITE_NOMEM" => {
                options.has_small_memory()
                    || self.memory_was_cut
                    || refused.message.contains("memory budget of")
            }
            // The first who reads of a file that is another's, before it is fenced.
            "SQLITE_CORRUPT" => self.swapped.contains(&tenant),
            "HTTP_TIMEOUT" => options.has_slow_network(),
            "SQLITE_INTERRUPT" => options.has_slow_statements() || self.may_be_dropped(tenant),
            "DATABASE_NOT_FOUND" => {
                self.names[tenant].ready = false;
                true
            }
            "SQLITE_IOERR" | "SQLITE_CANTOPEN" => {
                self.io_errors.push((tenant, seen));
                errors
            }
            "INTERNAL" => errors || full || self.options.is_out_of_memory(&refused.message),
            "DATABASE_DAMAGED" => {
                self.names[tenant].fenced |= seen == self.name(tenant);
                self.fences.push((tenant, seen));
                if !errors && !self.swapped.contains(&tenant) {
                    return Err(Violation::new("COR-1", describe(tenant, refused)));
                }
                true
            }
            _ if refused.is_no_table() => {
                self.names[tenant].ready = false;
                true
            }
            _ => false,
        };
        if excused || self.grants.excuse(tenant, &refused.code) {
            return Ok(());
        }
        Err(Violation::new("ERR-1", describe(tenant, refused)))
    }

    /// The same for a copy of this client's database, whose name and file are its own.
    ///
    /// # Errors
    /// ERR-1 or COR-1 if nothing in this world excuses it.
    pub fn judge_copy_refusal(&mut self, of: usize, refused: &Refused) -> Result<(), Violation> {
        let struck = matches!(
            refused.code.as_str(),
            "DATABASE_DAMAGED" | "SQLITE_CORRUPT" | "SQLITE_IOERR" | "SQLITE_CANTOPEN"
        );
        if !struck {
            return self.judge_refusal(of, refused);
        }
        *self.counts.refused.entry(refused.code.clone()).or_default() += 1;
        match self.options.has_disk_errors() {
            true => Ok(()),
            false => Err(Violation::new("COR-1", format!("a copy answers {refused:?}"))),
        }
    }
}

fn describe(tenant: usize, refused: &Refused) -> String {
    let Refused { status, code, message } = refused;
    format!("{}: status {status} {code}: {message}", tenant_name(tenant))
}

fn misnamed(tenant: usize, exists: bool, there: bool) -> Violation {
    let name = tenant_name(tenant);
    Violation::new("DUR-4", format!("{name} exists: {exists}, but the server says {there}"))
}
