//! What a world is made of: sizes, rates and times, drawn from its seed before it begins.
//!
//! Owns the numbers only. What happens in the world is drawn when it happens, by the clients and by
//! the world's loop.

use std::fmt;
use std::str::FromStr;

use server::ServerOptions;
use server::auth::AuthOptions;
use storage::log::LogOptions;
use tenant::EngineOptions;

use super::mix::{Kind, ScenarioSet, USUAL, Weights};
use super::{caster, copyist, fleet, locksmith, mortals};
use crate::draws::{Draws, Span, Stream};
use crate::faults::Faults;
use crate::settings::{Field, Settings};

/// Which faults a world has; a greater one has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Steady times, no faults, but crashes.
    Calm,
    /// Times, short counts and segmentation are drawn; no errors, but crashes.
    Drawn,
    /// As drawn, and each class of errors is on in half the seeds.
    Swarm,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Profile; 3] = [Profile::Calm, Profile::Drawn, Profile::Swarm];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Calm => "calm",
            Profile::Drawn => "drawn",
            Profile::Swarm => "swarm",
        })
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Profile, String> {
        let named = Profile::ALL.into_iter().find(|profile| profile.to_string() == text);
        named.ok_or_else(|| format!("{text:?} is no profile: use calm, drawn or swarm"))
    }
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed that all of it was drawn from.
    pub seed: u64,
    /// Which faults there are.
    pub profile: Profile,
    /// Their rates.
    pub faults: Faults,
    /// Databases, by number.
    pub tenants: usize,
    /// Clients that write and read; one more works the admin address.
    pub clients: usize,
    /// Requests that the clients begin, together, before the world calms down.
    pub operations: u64,
    /// Time between a client's requests while it visits.
    pub think_ns: Span,
    /// Time between its visits.
    pub pause_ns: Span,
    /// Requests of a visit.
    pub visit_requests: Span,
    /// Exponent of the databases' popularity, in hundredths.
    pub zipf_hundredths: u64,
    /// How often each kind of visit comes.
    pub weights: Weights,
    /// What happens besides the random mix.
    pub scenarios: ScenarioSet,
    /// Most words of 8 bytes in a row's padding.
    pub pad_words_max: u64,
    /// Most rows of a transaction.
    pub rows_max: u64,
    /// Ends of the server before the last one, by a crash or a clean stop.
    pub crashes: u32,
    /// Events between such ends, at most.
    pub crash_events_max: u64,
    /// Share of connections that a client breaks before the answer has come.
    pub break_per_million: u64,
    /// Simulated time of one VM step.
    pub step_cost_ns: u64,
    /// The server's memory for all tenants and for one.
    pub memory_bytes: [u64; 2],
    /// Whether a first request creates its database.
    pub create_on_first_use: bool,
    /// The commit log's shape.
    pub log: LogOptions,
    /// Fail on purpose once so many requests were answered; 0 is never, and what every seed has. The
    /// tools for failures are tried on it.
    pub canary_requests: u64,
    /// Hostile and clumsy clients.
    pub strangers: usize,
    /// Changes of budgets while it runs; 0 is a world without any.
    pub budgets: u64,
    /// Orders of the copyist; 0 is a world without any.
    pub copies: u64,
    /// Orders of the caster; 0 is a world without any.
    pub casts: u64,
    /// Pages of the largest copy that goes into the commit log.
    pub logged_copy_pages: u32,
    /// Orders about databases that end; 0 is a world without any.
    pub mortals: u64,
    /// Clients that take what they can get, in a world with budgets.
    pub gluttons: usize,
    /// Fleet jobs; 0 is a world without any.
    pub jobs: u64,
    /// Uploads, looks at them and drops; 0 is a world without any.
    pub imports: u64,
    /// Orders of the locksmith; 0 is a world in which nobody is asked for a key.
    pub keys: u64,
    /// What was set by hand after the draw, as `name=value`.
    pub changed: Vec<String>,
}

impl Options {
    /// The options of a seed.
    #[must_use]
    pub fn draw(seed: u64, profile: Profile) -> Options {
        let faults = match profile {
            Profile::Calm => Faults::calm(),
            Profile::Drawn => Faults::drawn(seed),
            Profile::Swarm => Faults::swarm(seed),
        };
        let mut draws = Draws::new(seed);
        let scenarios = ScenarioSet::draw(&mut draws, 230);
        let weights = draw_weights(&mut draws);
        let zipf_hundredths = [0, 60, 99, 130][draws.index(Stream::Options, 231, 4)];
        // Half of the clients' visits come as people come, an eighth without any pause.
        let busy = draws.below(Stream::Options, 232, 8) == 0;
        let mut number = |entity: u64, low: u64, high: u64| {
            draws.logarithmic(Stream::Options, 200 + entity, Span::new(low, high))
        };
        let segment_bytes = number(0, 1 << 20, 2 << 20) & !0xffff;
        let batch_bytes_max = [64 << 10, 128 << 10, 256 << 10][number(1, 1, 3) as usize - 1];
        let segment_count = if scenarios.has('G') { 4 } else { number(2, 4, 6) as u32 };
        let think_ns = number(3, 1_000_000, 4_000_000_000);
        let pause_ns = if busy { think_ns } else { number(16, 5_000_000_000, 600_000_000_000) };
        let tenants_max = if scenarios.has('C') { 1_000 } else { 200 };
        let tenants_max = if scenarios.has('Q') { 10 } else { tenants_max };
        let operations_max = if scenarios.has('Q') { 300 } else { 900 };
        let options = Options {
            seed,
            profile,
            faults,
            tenants: number(4, 1, tenants_max) as usize,
            clients: number(5, 1, 16) as usize,
            operations: number(6, 40, operations_max) + scenarios.operations(),
            think_ns: Span::new(think_ns / 100, think_ns),
            pause_ns: Span::new(pause_ns / 20, pause_ns),
            visit_requests: Span::new(1, number(17, 1, 40)),
            zipf_hundredths,
            weights,
            scenarios,
            pad_words_max: number(7, 4, 4_000),
            rows_max: number(8, 1, 300),
            crashes: number(9, 1, 6) as u32 - 1,
            crash_events_max: number(10, 200, 30_000),
            break_per_million: number(11, 1, 60_000),
            step_cost_ns: number(12, 5, 50),
            memory_bytes: match number(18, 1, 4) {
                1 => AMPLE_MEMORY_BYTES,
                _ => [number(13, 4 << 20, 64 << 20), number(14, 4 << 20, 16 << 20)],
            },
            create_on_first_use: number(15, 1, 2) == 1,
            log: LogOptions {
                segment_bytes,
                segment_count,
                batch_bytes_max,
                system_reserve_bytes: 1 << 19,
            },
            canary_requests: 0,
            strangers: (number(50, 1, 2) as usize - 1) * number(51, 1, 8) as usize,
            budgets: draw_budgets(seed),
            gluttons: 1 + Draws::new(seed).index(Stream::Budgets, 12, 3),
            jobs: fleet::draw_jobs(seed),
            imports: draw_imports(seed),
            casts: caster::draw_casts(seed),
            copies: copyist::draw_copies(seed),
            logged_copy_pages: copyist::draw_logged_pages(seed),
            mortals: mortals::draw_mortals(seed),
            keys: locksmith::draw_keys(seed),
            changed: Vec::new(),
        };
        options.log.check();
        options
    }

    /// Set what `assignment`, a `name=value`, says; the way to run the world again will say so too.
    ///
    /// # Errors
    /// If it is none, or there is no such option.
    pub fn change(&mut self, assignment: &str) -> Result<(), String> {
        let (name, value) =
            assignment.split_once('=').ok_or_else(|| format!("{assignment:?} is no name=value"))?;
        self.set(name, value)?;
        let prefix = format!("{name}=");
        self.changed.retain(|changed| !changed.starts_with(&prefix));
        self.changed.push(assignment.to_owned());
        Ok(())
    }

    /// The arguments of `simulator run` that make this world again.
    #[must_use]
    pub fn arguments(&self) -> String {
        let mut text = format!("{} --profile {}", self.seed, self.profile);
        for changed in &self.changed {
            text.push_str(" --set ");
            text.push_str(changed);
        }
        text
    }

    /// The server's, with the random bytes that its process would draw.
    #[must_use]
    pub fn server(&self, random: [[u8; 32]; 2]) -> ServerOptions {
        ServerOptions {
            listen: LISTEN.parse().expect("an address"),
            admin_listen: ADMIN.parse().expect("an address"),
            buffers_bytes_max: server::limits::BUFFERS_BYTES_MAX,
            engine: EngineOptions {
                create_on_first_use: self.create_on_first_use,
                memory_bytes: self.memory_bytes[0],
                tenant_memory_bytes: self.memory_bytes[1],
                logged_copy_pages: self.logged_copy_pages,
                log: self.log,
                seed: random[0],
            },
            baton_key: random[1],
            auth: self.auth(),
            public_host: None,
        }
    }

    /// The operator's key, where everybody is asked for one.
    #[must_use]
    pub fn root_key(&self) -> Option<&'static str> {
        (self.keys > 0).then_some(ROOT_KEY)
    }

    fn auth(&self) -> AuthOptions {
        let root = self.root_key().map(|key| *blake3::hash(key.as_bytes()).as_bytes());
        AuthOptions { required: root.is_some(), root, ..AuthOptions::default() }
    }

    /// Whether a disk error may cost a tenant, or a start, by the design: the damaged tenant is
    /// fenced, and nobody else.
    #[must_use]
    pub fn has_disk_errors(&self) -> bool {
        self.faults.has_disk_errors()
    }

    /// Whether clients may fill the log.
    #[must_use]
    pub fn has_small_log(&self) -> bool {
        self.log.segment_bytes * u64::from(self.log.segment_count) < AMPLE_LOG_BYTES
    }

    /// Whether an allocation may fail.
    #[must_use]
    pub fn has_small_memory(&self) -> bool {
        let pairs = self.memory_bytes.iter().zip(AMPLE_MEMORY_BYTES);
        self.faults.allocation_failure_per_million > 0
            || pairs.into_iter().any(|(bytes, ample)| *bytes < ample)
    }

    /// Whether a statement may take its 30 s: by what one VM step costs, or a slow disk.
    #[must_use]
    pub fn has_slow_statements(&self) -> bool {
        self.profile != Profile::Calm
    }

    /// Whether a request may come at less than the rate that bodies must have.
    #[must_use]
    pub fn has_slow_network(&self) -> bool {
        const SLOW_NS: u64 = 20_000_000;
        let faults = &self.faults;
        faults.network_latency_mean_ns.high >= SLOW_NS
            || faults.clog_per_million > 0
            || faults.swizzle_per_million > 0
            || faults.clock_jumps > 0
    }

    /// Whether this text tells of an allocation that was made to fail.
    #[must_use]
    pub fn is_out_of_memory(&self, text: &str) -> bool {
        self.faults.allocation_failure_per_million > 0 && text.contains("out of memory")
    }

    /// Whether something else than what was asked may explain an answer with this status: budgets and
    /// limits of the machine, its disk, its log, a stop; a network that is too slow.
    #[must_use]
    pub fn excuses(&self, status: u16) -> bool {
        match status {
            408 | 429 | 503 | 507 => true,
            500 => self.has_disk_errors() || self.has_full_disk() || self.has_small_memory(),
            _ => false,
        }
    }

    /// Whether the disk may be full.
    #[must_use]
    pub fn has_full_disk(&self) -> bool {
        self.faults.no_space_per_million > 0
            || self.faults.disk_bytes_max < Faults::calm().disk_bytes_max
    }
}

/// Log bytes from which on no client of ours fills it: twice the largest transaction for each.
const AMPLE_LOG_BYTES: u64 = 1 << 28;

/// Memory from which on no client of ours uses up a tenant's, and all of them the machine's.
const AMPLE_MEMORY_BYTES: [u64; 2] = [1 << 29, 1 << 26];

/// The usual weights in a quarter of the seeds; else each kind is absent in half of them, or weighs
/// as much as it likes. One at least is there.
fn draw_weights(draws: &mut Draws) -> Weights {
    let stream = Stream::Options;
    if draws.below(stream, 233, 4) == 0 {
        return USUAL;
    }
    let mut weights = USUAL.map(|usual| {
        let there = draws.below(stream, 234, 2);
        there * draws.logarithmic(stream, 235, Span::new(1, usual.max(4) * 4))
    });
    weights[draws.index(stream, 236, weights.len())] += 10;
    // A run of nothing but reads finds nothing.
    weights[Kind::SmallWriter as usize] += 1;
    weights
}

/// In one world of three; from a stream of its own, so that the others are what they were.
fn draw_budgets(seed: u64) -> u64 {
    let mut draws = Draws::new(seed);
    let there = draws.below(Stream::Budgets, 10, 3) == 0;
    let changes = draws.logarithmic(Stream::Budgets, 11, Span::new(5, 120));
    if there { changes } else { 0 }
}

/// In one world of three; from a stream of its own.
fn draw_imports(seed: u64) -> u64 {
    let mut draws = Draws::new(seed);
    let there = draws.below(Stream::Imports, 10, 3) == 0;
    let orders = draws.logarithmic(Stream::Imports, 11, Span::new(5, 60));
    if there { orders } else { 0 }
}

/// Where the server listens for SQL.
pub const LISTEN: &str = "10.0.0.1:8080";
/// Where it listens for the control API.
pub const ADMIN: &str = "10.0.0.1:8081";

/// The operator's key, where anybody is asked for one.
pub const ROOT_KEY: &str = "the-operators-own-as-long-as-one-should-be";

impl Settings for Options {
    fn fields(&mut self) -> Vec<Field<'_>> {
        let [memory_bytes, tenant_memory_bytes] = &mut self.memory_bytes;
        let mut fields: Vec<Field<'_>> = vec![
            ("tenants", &mut self.tenants),
            ("clients", &mut self.clients),
            ("operations", &mut self.operations),
            ("think_ns", &mut self.think_ns),
            ("pause_ns", &mut self.pause_ns),
            ("visit_requests", &mut self.visit_requests),
            ("zipf_hundredths", &mut self.zipf_hundredths),
            ("scenarios", &mut self.scenarios),
            ("pad_words_max", &mut self.pad_words_max),
            ("rows_max", &mut self.rows_max),
            ("crashes", &mut self.crashes),
            ("crash_events_max", &mut self.crash_events_max),
            ("break_per_million", &mut self.break_per_million),
            ("step_cost_ns", &mut self.step_cost_ns),
            ("memory_bytes", memory_bytes),
            ("tenant_memory_bytes", tenant_memory_bytes),
            ("create_on_first_use", &mut self.create_on_first_use),
            ("segment_bytes", &mut self.log.segment_bytes),
            ("segment_count", &mut self.log.segment_count),
            ("batch_bytes_max", &mut self.log.batch_bytes_max),
            ("canary_requests", &mut self.canary_requests),
            ("strangers", &mut self.strangers),
            ("budgets", &mut self.budgets),
            ("gluttons", &mut self.gluttons),
            ("jobs", &mut self.jobs),
            ("imports", &mut self.imports),
            ("copies", &mut self.copies),
            ("casts", &mut self.casts),
            ("logged_copy_pages", &mut self.logged_copy_pages),
            ("mortals", &mut self.mortals),
            ("keys", &mut self.keys),
        ];
        for (kind, weight) in Kind::ALL.into_iter().zip(&mut self.weights) {
            fields.push((kind.weight_name(), weight));
        }
        fields.extend(self.faults.fields());
        fields
    }
}

impl fmt::Display for Options {
    /// One line of `name=value`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profile={} {}", self.profile, self.line())
    }
}
