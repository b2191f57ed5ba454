//! What all clients of a world share: its options, the model, which names exist, and the counts.
//!
//! Owns DUR-4's part about names and ERR-1: which refusals a client may see. A world without disk
//! errors has no excuse for an I/O error, a fence or a failed call.

use std::collections::{BTreeMap, BTreeSet};

use storage::io::Instant;

use super::model::{Asked, Model, Violation, tenant_name};
use super::options::Options;
use super::speech::Refused;

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
    /// An unanswered create or drop of this epoch may still come.
    murky: Option<u64>,
}

/// A name as it was when a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameSeen {
    /// Whether it existed, where that was known.
    pub exists: Option<bool>,
    version: u64,
    changed_at: u64,
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
    names: Vec<Name>,
    /// Tenants in which the table was missed.
    pub bare: BTreeSet<usize>,
    fenced: Vec<bool>,
    /// The disk was full for a while.
    pub disk_was_full: bool,
    /// Tenants whose file was changed while nobody ran: they are to be fenced, until dropped.
    pub swapped: BTreeSet<usize>,
    /// When the end of the answer in hand was given to a send.
    pub answered_at: Option<Instant>,
    /// Marks of acknowledged transactions for the monitor, and when their answers left.
    pub acknowledged: Vec<(String, Instant)>,
}

impl Ground {
    /// The ground of a new world.
    #[must_use]
    pub fn new(options: Options) -> Ground {
        let exists = (!options.create_on_first_use).then_some(false);
        Ground {
            model: Model::default(),
            counts: Counts::default(),
            operations_left: options.operations,
            names: vec![Name { exists, ..Name::default() }; options.tenants],
            bare: BTreeSet::new(),
            fenced: vec![false; options.tenants],
            disk_was_full: false,
            swapped: BTreeSet::new(),
            answered_at: None,
            acknowledged: Vec::new(),
            options,
        }
    }

    // ---- names ----

    /// What is known of a name now.
    #[must_use]
    pub fn name(&self, tenant: usize) -> NameSeen {
        let name = self.names[tenant];
        NameSeen { exists: name.exists, version: name.version, changed_at: name.changed_at }
    }

    /// A create or drop is sent.
    pub fn name_asked(&mut self, tenant: usize) {
        let name = self.change(tenant);
        name.exists = None;
    }

    /// It was answered, or something else told whether the name exists.
    pub fn name_told(&mut self, tenant: usize, asked: Asked, exists: Option<bool>) {
        let by_use = self.options.create_on_first_use;
        let name = self.change(tenant);
        let murky = name.murky.is_some_and(|epoch| epoch >= asked.epoch);
        // A first use may create the name again at any moment.
        let exists = exists.filter(|exists| *exists || !by_use);
        name.exists = exists.filter(|_| !murky);
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
        name.murky = Some(asked.epoch);
    }

    /// DUR-4: a request found the name, or not, and that can be.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check_name(&self, tenant: usize, seen: NameSeen, there: bool) -> Result<(), Violation> {
        let steady = self.names[tenant].version == seen.version;
        match seen.exists {
            Some(exists) if steady && exists != there => Err(misnamed(tenant, exists, there)),
            _ => Ok(()),
        }
    }

    /// As [`Ground::check_name`], for the one who changes names.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn check_change(tenant: usize, seen: NameSeen, there: bool) -> Result<(), Violation> {
        match seen.exists {
            Some(exists) if exists != there => Err(misnamed(tenant, exists, there)),
            _ => Ok(()),
        }
    }

    /// Whether a tenant was seen fenced.
    #[must_use]
    pub fn is_fenced(&self, tenant: usize) -> bool {
        self.fenced[tenant]
    }

    /// The damaged tenant was dropped.
    pub fn unfence(&mut self, tenant: usize) {
        self.fenced[tenant] = false;
        self.swapped.remove(&tenant);
    }

    // ---- refusals ----

    /// Count a refusal, and judge whether it may be.
    ///
    /// # Errors
    /// ERR-1 or COR-1 if nothing in this world excuses it.
    pub fn judge_refusal(&mut self, tenant: usize, refused: &Refused) -> Result<(), Violation> {
        *self.counts.refused.entry(refused.code.clone()).or_default() += 1;
        let errors = self.options.has_disk_errors();
        let full = self.options.has_full_disk() || self.disk_was_full;
        let excused = match refused.code.as_str() {
            // Load, limits and timeouts; sessions that a restart or their age ended.
            "SQLITE_BUSY"
            | "SQLITE_FULL"
            | "SQLITE_NOMEM"
            | "SQLITE_INTERRUPT"
            | "TRANSACTION_TIMEOUT"
            | "STREAM_EXPIRED"
            | "BATON_INVALID"
            | "BATON_USED"
            | "TOO_MANY_STREAMS"
            | "TOO_MANY_REQUESTS"
            | "UNAVAILABLE"
            | "DATABASE_UNAVAILABLE"
            | "RESPONSE_TOO_LARGE"
            | "DATABASE_NOT_FOUND"
            | "DATABASE_EXISTS" => true,
            "SQLITE_IOERR" => errors,
            "INTERNAL" => errors || full || self.options.is_out_of_memory(&refused.message),
            "DATABASE_DAMAGED" => {
                self.fenced[tenant] = true;
                if !errors && !self.swapped.contains(&tenant) {
                    return Err(Violation::new("COR-1", describe(tenant, refused)));
                }
                true
            }
            _ => {
                let bare = refused.is_no_table();
                if bare {
                    self.bare.insert(tenant);
                }
                bare
            }
        };
        if excused {
            return Ok(());
        }
        Err(Violation::new("ERR-1", describe(tenant, refused)))
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
