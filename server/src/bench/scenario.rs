//! What is measured: preparing the databases, the requests, restarts, cleaning up.
//!
//! Every scenario uses databases of its own, named after the scenario and the time of the run, so
//! that nothing from another run is met. On a server that is not ours they are removed afterwards
//! where there is an admin API; without one they stay, and have to be created on first use.

mod canary;
mod fork;
mod gaps;
mod life;
mod neighbours;
mod shares;
mod template;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::cores::{self, Cores, allow_descriptors};
use super::crowd::{self, Pace, Party};
use super::load::{self, Outcome, Phase, Until};
use super::progress::Progress;
use super::report::{Report, Row, Table};
use super::request::{Choice, Order, ROW_FIRST, TENANT_HOLE, Target, Template, VALUE_HOLE};
use super::spawned::{Launch, Server, Workspace};
use super::{Interface, Options, Scenario, plain};

/// Rows in each database that is read.
const ROWS: u32 = 1_000;

/// Connections that the scenarios about neighbours open at most, whatever the options say.
const CONNECTIONS_OTHER: u64 = 500;

/// Rows in each database that is read cold: a few pages, as thousands of them are filled first.
const ROWS_COLD: u32 = 100;

/// The table of all scenarios.
const CREATE_TABLE: &str = "CREATE TABLE bench (id INTEGER PRIMARY KEY, value TEXT)";

/// A point select by primary key.
const SELECT: &str = "SELECT value FROM bench WHERE id = ?";

/// A single-row insert.
const INSERT: &str = "INSERT INTO bench (value) VALUES (?)";

/// What every row's value begins with, so that a reply without its row is found out.
const VALUE_PREFIX: &str = "value-";

/// A pipeline's results say this; what says `"type":"error"` anywhere has failed.
const OK: &str = r#""type":"ok""#;

/// Measures everything that `options` asks for; `program` is the server's binary. If a scenario
/// cannot be finished, the report holds those before it, and why it ends there.
///
/// # Errors
/// A sentence for the person at the terminal: nothing was measured.
pub fn measure(options: &Options, program: PathBuf) -> Result<Report, String> {
    let scenarios = options.scenarios();
    let connections = u64::from(options.connections);
    let files = u64::from(options.tenants.min(plain::FILES_MAX)) * plain::DESCRIPTORS_PER_FILE;
    allow_descriptors(if scenarios.contains(&Scenario::Fsync) {
        connections.max(files)
    } else {
        connections.max(CONNECTIONS_OTHER)
    })?;
    for scenario in &scenarios {
        check_possible(*scenario, options)?;
    }
    let mut bench = Bench::open(options, program, &scenarios)?;
    let measured = scenarios.into_iter().try_for_each(|scenario| bench.run(scenario));
    bench.progress.clear();
    let cores = bench.cores.as_ref().map(|cores| cores.numbers);
    Ok(Report {
        rows: bench.rows,
        tables: bench.tables,
        seconds: options.seconds,
        rate: options.rate,
        cores,
        failure: measured.err(),
    })
}

/// Refuses before any work what a running server cannot be asked.
fn check_possible(scenario: Scenario, options: &Options) -> Result<(), String> {
    match scenario {
        Scenario::Cold if options.url.is_some() => {
            Err("cold restarts the server, so it cannot be measured with --url".to_owned())
        }
        Scenario::Neighbours
        | Scenario::Shares
        | Scenario::Memory
        | Scenario::Gaps
        | Scenario::Canary
            if options.url.is_some() =>
        {
            Err("this scenario starts a server of its own: leave --url out".to_owned())
        }
        Scenario::Create if options.url.is_some() && options.admin_url.is_none() => {
            Err("create needs the admin API: give --admin-url".to_owned())
        }
        _ => Ok(()),
    }
}

/// A run. The fields are dropped in this order: the server ends before its folder goes.
struct Bench<'a> {
    options: &'a Options,
    program: PathBuf,
    /// Ours; `None` with `--url`, and where no scenario needs a server.
    server: Option<Server>,
    workspace: Option<Workspace>,
    cores: Option<Cores>,
    target: Option<Target>,
    admin: Option<Target>,
    /// Makes this run's database names its own.
    run_name: String,
    progress: Progress,
    rows: Vec<Row>,
    tables: Vec<Table>,
}

impl<'a> Bench<'a> {
    fn open(
        options: &'a Options,
        program: PathBuf,
        scenarios: &[Scenario],
    ) -> Result<Self, String> {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let milliseconds = since_epoch.map_or(0, |elapsed| elapsed.as_millis());
        let alone = |scenario: &Scenario| matches!(scenario, Scenario::Fsync | Scenario::Canary);
        let needs_server = !scenarios.iter().all(alone);
        let spawns = needs_server && options.url.is_none();
        let mut bench = Self {
            options,
            program,
            server: None,
            workspace: None,
            cores: if spawns { Cores::choose() } else { None },
            target: None,
            admin: None,
            run_name: format!("{milliseconds:x}"),
            progress: Progress::new(),
            rows: Vec::new(),
            tables: Vec::new(),
        };
        if spawns || scenarios.iter().any(alone) {
            let parent = options.data.as_deref().unwrap_or(Path::new("."));
            bench.workspace = Some(Workspace::create(parent)?);
        }
        if spawns {
            bench.set_server(Server::start(bench.launch("data"))?)?;
        } else if let Some(url) = &options.url {
            bench.target = Some(Target::resolve(url, options.authorization.as_deref())?);
            let authorization = options.admin_authorization.as_deref();
            let resolve = |url: &String| Target::resolve(url, authorization);
            bench.admin = options.admin_url.as_ref().map(resolve).transpose()?;
        }
        Ok(bench)
    }

    /// A server of our own, on a data folder of this name.
    fn launch(&self, data: &str) -> Launch {
        let folder = self.folder();
        let mut arguments: Vec<OsString> = vec!["serve".into(), "--data".into()];
        arguments.push(folder.join(data).into());
        let fixed = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        arguments.extend(fixed.map(OsString::from));
        arguments.push("--create-on-first-use".into());
        if self.options.scenario.contains(&Scenario::Memory) {
            arguments.extend(["--memory", neighbours::MEMORY].map(OsString::from));
        }
        if self.options.scenario.contains(&Scenario::Gaps) {
            arguments.push("--measure-stretches".into());
        }
        if let Some(interface) = self.options.io {
            let name = match interface {
                Interface::Uring => "uring",
                Interface::Poll => "poll",
            };
            arguments.extend(["--io", name].map(OsString::from));
        }
        let output = folder.join(format!("{data}-output"));
        Launch { program: self.program.clone(), arguments, output, cores: self.cores.clone() }
    }

    fn set_server(&mut self, server: Server) -> Result<(), String> {
        self.target = Some(Target::resolve(&server.url, None)?);
        self.admin = Some(Target::resolve(&server.admin_url, None)?);
        self.server = Some(server);
        Ok(())
    }

    fn run(&mut self, scenario: Scenario) -> Result<(), String> {
        let tenants = self.options.tenants;
        match scenario {
            Scenario::Empty => self.empty(),
            Scenario::Select => self.select("select", 1),
            Scenario::SelectMany => self.select("select-many", tenants),
            Scenario::InsertOne => self.insert("insert-one", 1),
            Scenario::InsertMany => self.insert("insert-many", tenants),
            Scenario::Fsync => self.fsync(),
            Scenario::Cold => self.cold(tenants),
            Scenario::Create => self.create(),
            Scenario::Neighbours => self.neighbours(),
            Scenario::Shares => self.shares(),
            Scenario::Memory => self.memory(),
            Scenario::Fork => self.fork(),
            Scenario::Gaps => self.gaps(),
            Scenario::Life => self.life(),
            Scenario::Canary => self.canary(),
        }
    }

    fn empty(&mut self) -> Result<(), String> {
        let template = Template::new(self.target(), "GET", "/health", "", "");
        let choice = Choice { order: Order::Spread, tenants: 1, rows: 1 };
        let outcome = self.load("empty", &template, choice, self.for_seconds())?;
        self.keep("empty", 0, outcome);
        Ok(())
    }

    fn select(&mut self, name: &'static str, tenants: u32) -> Result<(), String> {
        self.prepare(name, tenants, ROWS)?;
        let template = self.select_template(name);
        let choice = Choice { order: Order::Spread, tenants, rows: ROWS };
        let outcome = self.load(name, &template, choice, self.for_seconds())?;
        self.keep(name, tenants, outcome);
        self.remove(name, tenants)
    }

    fn insert(&mut self, name: &'static str, tenants: u32) -> Result<(), String> {
        self.prepare(name, tenants, 0)?;
        let argument = format!(r#"{{"type":"text","value":"{VALUE_PREFIX}{VALUE_HOLE}"}}"#);
        let statements = [(INSERT, Some(argument.as_str()))];
        let template = Template::pipeline(self.target(), &self.base_name(name), &statements, OK);
        let choice = Choice { order: Order::Spread, tenants, rows: ROWS };
        let outcome = self.load(name, &template, choice, self.for_seconds())?;
        self.keep(name, tenants, outcome);
        self.remove(name, tenants)
    }

    /// Waits for fsyncs alone, so one client is all there is.
    fn fsync(&mut self) -> Result<(), String> {
        let (warm_up, measured) = (self.options.warm_up(), self.options.measured());
        let many = self.options.tenants.min(plain::FILES_MAX);
        for (name, files) in [("fsync-one", 1), ("fsync-many", many)] {
            let folder = self.folder().join(name);
            std::fs::create_dir_all(&folder)
                .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
            let watch = Watch::start(None);
            let outcome = plain::run(&folder, files, warm_up, measured, &mut self.progress)?;
            let outcome = watch.end(None, outcome);
            self.rows.push(Row { name, databases: files, clients: 1, outcome });
        }
        Ok(())
    }

    /// The server forgets every database by ending; the kernel's cache of the files stays warm.
    fn cold(&mut self, tenants: u32) -> Result<(), String> {
        let name = "cold";
        self.prepare(name, tenants, ROWS_COLD)?;
        let server = self.server.take().expect("check_possible refuses --url");
        self.set_server(server.restart()?)?;
        let template = self.select_template(name);
        let choice = Choice { order: Order::Sequential, tenants, rows: ROWS_COLD };
        let until = Until::Requests(u64::from(tenants));
        let outcome = self.load(name, &template, choice, until)?;
        self.keep(name, tenants, outcome);
        Ok(())
    }

    fn create(&mut self) -> Result<(), String> {
        let name = "create";
        let template = self.create_template(name);
        // More names than can be created in any time allowed.
        let choice = Choice { order: Order::Sequential, tenants: 99_999_999, rows: 1 };
        let admin = self.admin.clone().expect("check_possible wants one");
        let outcome = self.load_on(name, &admin, &template, choice, self.for_seconds())?;
        let created = u32::try_from(outcome.sent).unwrap_or(u32::MAX);
        self.keep(name, created, outcome);
        self.remove(name, created)
    }

    /// Creates the tables, with rows if any are wanted; nothing of it is measured.
    fn prepare(&mut self, name: &str, tenants: u32, rows: u32) -> Result<(), String> {
        let until = Until::Requests(u64::from(tenants));
        let choice = Choice { order: Order::Sequential, tenants, rows: rows.max(1) };
        if self.options.url.is_some()
            && let Some(admin) = self.admin.clone()
        {
            let label = format!("{name}: creating databases");
            let template = self.create_template(name);
            let outcome = self.load_on(&label, &admin, &template, choice, until)?;
            all_good(&label, &outcome)?;
        }
        let label = format!("{name}: preparing databases");
        let fill = format!(
            "INSERT INTO bench WITH RECURSIVE number(id) AS (SELECT {ROW_FIRST} UNION ALL \
             SELECT id + 1 FROM number LIMIT {rows}) SELECT id, '{VALUE_PREFIX}' || id FROM number"
        );
        let statements = [(CREATE_TABLE, None), (fill.as_str(), None)];
        let wanted = if rows > 0 { &statements[..] } else { &statements[..1] };
        let template = Template::pipeline(self.target(), &self.base_name(name), wanted, OK);
        let outcome = self.load(&label, &template, choice, until)?;
        all_good(&label, &outcome)
    }

    /// Removes a scenario's databases from a server that is not ours.
    fn remove(&mut self, name: &str, tenants: u32) -> Result<(), String> {
        let Some(admin) = self.admin.clone().filter(|_| self.options.url.is_some()) else {
            return Ok(());
        };
        let label = format!("{name}: removing databases");
        let path = format!("/v1/namespaces/{}-{TENANT_HOLE}", self.base_name(name));
        let template = Template::new(&admin, "DELETE", &path, "{}", "");
        let choice = Choice { order: Order::Sequential, tenants, rows: 1 };
        let until = Until::Requests(u64::from(tenants));
        let outcome = self.load_on(&label, &admin, &template, choice, until)?;
        all_good(&label, &outcome)
    }

    fn load(
        &mut self,
        label: &str,
        template: &Template,
        choice: Choice,
        until: Until,
    ) -> Result<Outcome, String> {
        let target = self.target().clone();
        self.load_on(label, &target, template, choice, until)
    }

    /// Runs one phase; if it cannot go on, our server's output says why.
    fn load_on(
        &mut self,
        label: &str,
        target: &Target,
        template: &Template,
        choice: Choice,
        until: Until,
    ) -> Result<Outcome, String> {
        let connections = self.options.connections;
        let phase = Phase { label, target, template, choice, connections, until };
        let watch = Watch::start(self.server.as_ref());
        let result = match (self.options.rate, until) {
            (Some(rate), Until::Elapsed { warm_up, measured }) => {
                open_loop(phase, rate, (warm_up, measured), &mut self.progress)
            }
            _ => load::run(phase, &mut self.progress),
        };
        let server = self.server.as_ref();
        match result {
            Ok(outcome) => Ok(watch.end(server, outcome)),
            Err(error) => Err(server.map_or(error.clone(), |server| server.failure(&error))),
        }
    }

    fn keep(&mut self, name: &'static str, databases: u32, outcome: Outcome) {
        self.rows.push(Row { name, databases, clients: self.options.connections, outcome });
    }

    fn select_template(&self, name: &str) -> Template {
        let argument = format!(r#"{{"type":"integer","value":"{VALUE_HOLE}"}}"#);
        let statements = [(SELECT, Some(argument.as_str()))];
        Template::pipeline(self.target(), &self.base_name(name), &statements, VALUE_PREFIX)
    }

    fn create_template(&self, name: &str) -> Template {
        let admin = self.admin.as_ref().expect("only where there is an admin API");
        let path = format!("/v1/namespaces/{}-{TENANT_HOLE}/create", self.base_name(name));
        Template::new(admin, "POST", &path, "{}", "")
    }

    /// What a scenario's databases are called, before their number.
    fn base_name(&self, name: &str) -> String {
        format!("bench-{}-{name}", self.run_name)
    }

    fn for_seconds(&self) -> Until {
        Until::Elapsed { warm_up: self.options.warm_up(), measured: self.options.measured() }
    }

    fn target(&self) -> &Target {
        self.target.as_ref().expect("all scenarios but fsync have a server")
    }

    fn folder(&self) -> &Path {
        self.workspace.as_ref().expect("made where a scenario needs it").path()
    }
}

/// The phase with its requests at fixed times, `rate` of them a second.
fn open_loop(
    phase: Phase<'_>,
    rate: u32,
    times: (Duration, Duration),
    progress: &mut Progress,
) -> Result<Outcome, String> {
    let Phase { label, target, template, choice, connections, .. } = phase;
    let pace = Pace::Every(Duration::from_secs(1) * connections / rate);
    let (target, template) = (target.clone(), template.clone());
    let party =
        Party { name: "clients", target, template, choice, connections, pace, keeps: false };
    let mut outcome = crowd::run(label, &[party], times, progress)?;
    let tally = outcome.tallies.pop().expect("one party");
    let errors = tally.refused + tally.failed;
    Ok(Outcome {
        latencies: tally.latencies,
        errors,
        first_error: tally.first_error,
        elapsed: outcome.elapsed,
        sent: tally.sent,
        core_wait_share: 0.0,
    })
}

/// Watches how long the load generator and its server wait for their cores.
struct Watch {
    started: Instant,
    own_wait: Option<Duration>,
    server_wait: Option<Duration>,
}

impl Watch {
    fn start(server: Option<&Server>) -> Self {
        let (own_wait, server_wait) =
            (cores::core_wait("self"), server.and_then(Server::core_wait));
        Self { started: Instant::now(), own_wait, server_wait }
    }

    fn end(self, server: Option<&Server>, mut outcome: Outcome) -> Outcome {
        outcome.core_wait_share = self.share(server);
        outcome
    }

    /// The larger of both shares of the time since the start.
    fn share(self, server: Option<&Server>) -> f64 {
        let elapsed = self.started.elapsed().as_secs_f64();
        let share = |before: Option<Duration>, after: Option<Duration>| {
            let waited = after.zip(before).map(|(after, before)| after.saturating_sub(before));
            waited.map_or(0.0, |waited| waited.as_secs_f64() / elapsed)
        };
        let own = share(self.own_wait, cores::core_wait("self"));
        let server = share(self.server_wait, server.and_then(Server::core_wait));
        own.max(server)
    }
}

/// Preparation that failed in part would be measured as something else.
fn all_good(label: &str, outcome: &Outcome) -> Result<(), String> {
    match &outcome.first_error {
        None => Ok(()),
        Some(error) => {
            let (errors, sent) = (outcome.errors, outcome.sent);
            Err(format!("{label}: {errors} of {sent} requests failed; the first: {error}"))
        }
    }
}
