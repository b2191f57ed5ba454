//! The `myriad` binary: arguments, an Io, a server, the loop. Everything else is in the library.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Parser, Subcommand};
use server::auth::{AuthOptions, jwt};
use server::memory::{Division, Watch};
use server::peers::PeerBudgets;
use server::platform::PublicHost;
use server::{Exit, Server, ServerOptions, inspect};
use storage::io::{Instant, Io, IoChoice, ListenerId, PollIo, uring_available};
use storage::log::LogOptions;
use storage::log::limits::{SEGMENT_COUNT_LEAST, SEGMENT_COUNT_MOST};
use tenant::{EngineOptions, Failure};

/// Longest wait of the loop: a signal that comes just before it is seen this late.
const WAIT_NS_MAX: u64 = 200_000_000;

/// Exit codes, as the operations notes have them.
mod exit_code {
    /// The start was refused: address, folder, log or catalogue; the message says why.
    pub const START: u8 = 1;
    /// Another process uses the data folder.
    pub const IN_USE: u8 = 3;
    /// Writing the commit log failed: durability of what was in flight is unknown. Start again.
    pub const LOG_FAILED: u8 = 4;
}

/// Millions of SQLite databases in one process, SQL over HTTP.
#[derive(Parser)]
#[command(name = "myriad", version, arg_required_else_help = true)]
#[command(after_help = "\
Try it:
  myriad serve
  curl -s http://127.0.0.1:8080/db/notes/v2/pipeline -d \\
    '{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT 1\"}},{\"type\":\"close\"}]}'

Exit codes of `serve`: 0 stopped, 1 start refused, 2 wrong arguments, 3 data folder in use,
4 the commit log could not be written.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(Serve),
    /// Measure: point selects, inserts, creates and cold starts, beside an empty reply and plain
    /// SQLite. Without options it starts a server of its own.
    Bench(server::bench::Options),
    /// Show which databases use most: processor, disk, memory, and what their budgets hold back.
    Top(server::top::Options),
    /// Make plans, organisations and groups what a JSON file says.
    Apply(server::apply::Options),
    /// Make, list and revoke keys of a running server.
    #[command(subcommand)]
    Key(server::keys::Command),
    /// Run a migration on many databases, and watch it.
    #[command(subcommand)]
    Job(server::fleet::Command),
    /// Print what is in a commit log or a tenant's file; reads only, best of a stopped server.
    Inspect {
        #[command(subcommand)]
        what: Inspect,
    },
}

#[derive(Subcommand)]
enum Inspect {
    /// A commit log: the folder `log` of a data folder.
    Log {
        /// The data folder, or its folder `log`.
        path: PathBuf,
    },
    /// A tenant's file.
    Tenant {
        /// The file: `<data>/tenants/<2 hex>/<2 hex>/<id>.db`.
        path: PathBuf,
    },
}

#[derive(Args)]
struct Serve {
    /// Folder of all data; made if it is missing.
    #[arg(long, env = "MYRIAD_DATA", default_value = "myriad-data")]
    data: PathBuf,
    /// Address for SQL over HTTP; port 0 picks one.
    #[arg(long, env = "MYRIAD_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of the control API.
    #[arg(long, env = "MYRIAD_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    admin_listen: SocketAddr,
    /// How to talk to the kernel: `uring`, `poll`, or `auto` for io_uring where it is allowed.
    #[arg(long, env = "MYRIAD_IO", default_value = "auto")]
    io: IoChoice,
    /// Memory of the process, in bytes or with KiB, MiB, GiB: log, stacks, catalogue and buffers
    /// take theirs, and databases may hold the rest together; idle ones are closed beyond it. The
    /// program itself takes 64 MiB more at most.
    #[arg(long, env = "MYRIAD_MEMORY", default_value = "1GiB", value_parser = parse_bytes)]
    memory: u64,
    /// Create a database when a request first names it. By default only on loopback addresses.
    #[arg(
        long,
        env = "MYRIAD_CREATE_ON_FIRST_USE",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    create_on_first_use: Option<bool>,
    /// Whether everybody is asked for a token or key: `on`, `off` (only where both addresses are
    /// loopback), or `auto`: off where both are, on elsewhere.
    #[arg(long, env = "MYRIAD_AUTH", default_value = "auto")]
    auth: Auth,
    /// Whose connections without a good key are counted by their address, where one is asked for: `auto`,
    /// those of other machines; `on`, everybody's; `off`, nobody's: behind a proxy on another machine.
    #[arg(long, env = "MYRIAD_PEER_BUDGETS", default_value = "auto")]
    peer_budgets: PeerBudgets,
    /// Where clients reach databases, for who asks the control API: a domain with a name below it for each
    /// (db.example.com: https://NAME.db.example.com), or one host for all (http://host:8080: /db/NAME on
    /// it). Without it, the address that is listened on.
    #[arg(long, env = "MYRIAD_PUBLIC_HOST", value_name = "HOST", value_parser = PublicHost::read)]
    public_host: Option<PublicHost>,
    /// A public key (Ed25519) whose signature is believed on tokens for every database: PEM, base64url of
    /// 32 bytes, or @FILE with one of these. May be given up to four times.
    #[arg(long, value_name = "KEY")]
    jwt_key: Vec<String>,
    /// A file with a key of the operator's choice that may everything, 24 characters at least; or the key
    /// itself in MYRIAD_ROOT_KEY.
    #[arg(long, env = "MYRIAD_ROOT_KEY_FILE", value_name = "FILE")]
    root_key_file: Option<PathBuf>,
    /// Let `GET /health` answer the longest stretch of processor time, in nanoseconds, that a statement ran
    /// without a look at its turn since the last such answer. For `myriad bench`.
    #[arg(long, hide = true)]
    measure_stretches: bool,
    /// Size of the commit log in bytes or with MiB, GiB; taken when the data folder is new.
    #[arg(long, env = "MYRIAD_LOG", default_value = "256MiB", value_parser = parse_log_bytes)]
    log: u64,
}

/// Whether everybody is asked for a token or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Auth {
    /// Where an address is not loopback.
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

/// The key that the operator has chosen, by its hash.
fn root_key(serve: &Serve) -> Result<Option<[u8; 32]>, String> {
    let text = match (&serve.root_key_file, std::env::var("MYRIAD_ROOT_KEY")) {
        (Some(path), _) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        (None, Ok(text)) => text,
        (None, Err(_)) => return Ok(None),
    };
    let text = text.trim();
    let least = server::limits::ROOT_KEY_BYTES_MIN;
    if text.len() < least || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "the root key must have {least} characters at least, ASCII and without spaces; make one \
             with: openssl rand -hex 32"
        ));
    }
    Ok(Some(*blake3::hash(text.as_bytes()).as_bytes()))
}

/// What the arguments say about keys.
fn auth_of(serve: &Serve) -> Result<AuthOptions, String> {
    let loopback = serve.listen.ip().is_loopback() && serve.admin_listen.ip().is_loopback();
    let required = match serve.auth {
        Auth::On => true,
        Auth::Auto => !loopback,
        Auth::Off if loopback => false,
        Auth::Off => {
            return Err(
                "--auth off is for loopback addresses: anybody who reaches the others could \
                        read and change everything; use --auth on"
                    .into(),
            );
        }
    };
    let mut platform_keys = Vec::new();
    for text in &serve.jwt_key {
        let text = match text.strip_prefix('@') {
            None => text.clone(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read --jwt-key {path}: {error}"))?,
        };
        let keys = jwt::read_public_keys(&text);
        platform_keys.extend(keys.map_err(|error| format!("--jwt-key: {error}"))?);
    }
    if platform_keys.len() > server::limits::PLATFORM_KEYS_MAX {
        return Err(format!("--jwt-key: {} keys at most", server::limits::PLATFORM_KEYS_MAX));
    }
    Ok(AuthOptions { required, root: root_key(serve)?, platform_keys, peers: serve.peer_budgets })
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        unit => return Err(format!("{unit:?} is no unit: use KiB, MiB or GiB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("{digits:?} is no number"))?;
    number.checked_mul(factor).ok_or_else(|| "the number is too large".to_owned())
}

/// A log has 4 segments at least, and as many as the log's format has names for at most.
fn parse_log_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    let segment = LogOptions::default().segment_bytes;
    let (least, most) = (u64::from(SEGMENT_COUNT_LEAST), u64::from(SEGMENT_COUNT_MOST));
    if (least * segment..=most * segment).contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = ((least * segment) >> 20, (most * segment) >> 20);
    Err(format!("the commit log can have {least}MiB to {most}MiB"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("MYRIAD_LOG_FILTER")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match arguments.command {
        Command::Serve(serve) => return run_serve(&serve),
        Command::Bench(options) => server::bench::run(options),
        Command::Top(options) => server::top::run(&options),
        Command::Apply(options) => server::apply::run(&options),
        Command::Key(command) => server::keys::run(&command),
        Command::Job(command) => server::fleet::run(&command),
        Command::Inspect { what: Inspect::Log { path } } => inspect::log(&path),
        Command::Inspect { what: Inspect::Tenant { path } } => inspect::tenant(&path),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => fail(exit_code::START, &text),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("myriad: {text}");
    ExitCode::from(code)
}

fn run_serve(serve: &Serve) -> ExitCode {
    let memory = match Division::of(serve.memory, LogOptions::default().batch_bytes_max) {
        Ok(memory) => memory,
        Err(text) => return fail(exit_code::START, &text),
    };
    let auth = match auth_of(serve) {
        Ok(auth) => auth,
        Err(text) => return fail(exit_code::START, &text),
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            return fail(exit_code::START, &format!("cannot listen for signals: {error}"));
        }
    }
    if let Err(error) = std::fs::create_dir_all(&serve.data) {
        let data = serve.data.display();
        let text = format!("cannot make the data folder {data}: {error}; choose another --data");
        return fail(exit_code::START, &text);
    }
    let _ = storage::process::raise_open_files();
    storage::process::tune_heap();
    let locked = storage::process::lock_memory();
    if let Err(reason) = &locked {
        tracing::info!("memory is not locked, so it may be swapped: {reason}");
    }
    let watch = Watch::new(memory, locked.is_ok());
    if serve.measure_stretches {
        storage::stretch::measure();
    }
    let refused = match serve.io {
        IoChoice::Poll => None,
        IoChoice::Auto | IoChoice::Uring => uring_available().err(),
    };
    match (serve.io, refused) {
        (IoChoice::Poll, _) => {
            serve_on(serve, (&memory, watch), &auth, &stop, PollIo::open(&serve.data))
        }
        (IoChoice::Uring, Some(reason)) => {
            let text = format!("io_uring is not available: {reason}; use --io auto or poll");
            fail(exit_code::START, &text)
        }
        (_, Some(reason)) => {
            eprintln!("myriad: io_uring is not available ({reason}); using poll instead");
            serve_on(serve, (&memory, watch), &auth, &stop, PollIo::open(&serve.data))
        }
        #[cfg(target_os = "linux")]
        (_, None) => {
            let io = storage::io::UringIo::open(&serve.data);
            serve_on(serve, (&memory, watch), &auth, &stop, io)
        }
        #[cfg(not(target_os = "linux"))]
        (_, None) => serve_on(serve, (&memory, watch), &auth, &stop, PollIo::open(&serve.data)),
    }
}

fn options_of<I: Io<Server>>(
    serve: &Serve,
    memory: &Division,
    auth: &AuthOptions,
    io: &mut I,
) -> ServerOptions {
    let (mut seed, mut baton_key) = ([0; 32], [0; 32]);
    io.fill(&mut seed);
    io.fill(&mut baton_key);
    let segment_bytes = LogOptions::default().segment_bytes;
    let segment_count = u32::try_from(serve.log / segment_bytes).expect("checked when parsed");
    let loopback = serve.listen.ip().is_loopback();
    ServerOptions {
        listen: serve.listen,
        buffers_bytes_max: memory.buffers,
        admin_listen: serve.admin_listen,
        engine: EngineOptions {
            create_on_first_use: serve.create_on_first_use.unwrap_or(loopback),
            memory_bytes: memory.databases,
            tenant_memory_bytes: storage::limits::TENANT_MEMORY_BYTES,
            logged_copy_pages: tenant::limits::LOGGED_COPY_PAGES_MAX,
            log: LogOptions { segment_count, ..LogOptions::default() },
            seed,
        },
        baton_key,
        auth: auth.clone(),
        public_host: serve.public_host.clone(),
    }
}

fn serve_on<I: Io<Server>>(
    serve: &Serve,
    (memory, mut watch): (&Division, Watch),
    auth: &AuthOptions,
    stop: &AtomicBool,
    io: std::io::Result<I>,
) -> ExitCode {
    let data = serve.data.display();
    let mut io = match io {
        Ok(io) => io,
        Err(error) => {
            let text = format!("cannot use the data folder {data}: {error}");
            return fail(exit_code::START, &text);
        }
    };
    let options = options_of(serve, memory, auth, &mut io);
    let creates = options.engine.create_on_first_use;
    let mut server = match start(&mut io, &options) {
        Ok(server) => server,
        Err((address, error)) => {
            let text = format!(
                "cannot listen on {address}: {error}; choose another with --listen or --admin-listen"
            );
            return fail(exit_code::START, &text);
        }
    };
    let announce = |server: &mut Server| {
        eprintln!("{}", memory.table());
        announce(server, &serve.data, auth.required, creates);
    };
    let exit = run(&mut server, &mut io, &mut watch, stop, announce);
    let counters = server.engine().counters();
    let (left, undone) = (counters.left_to_log, counters.left_undone);
    drop(io);
    // After a failure fibers may be suspended inside SQLite, and connections open: they end with
    // the process.
    std::mem::forget(server);
    match exit {
        Exit::Stopped => {
            if left > 0 {
                eprintln!(
                    "myriad: warning: the files of {left} databases cannot be written; their last \
                     commits stay in the commit log, and the next start writes them: check the disk"
                );
            }
            if undone > 0 {
                eprintln!(
                    "myriad: warning: {undone} changes of the catalogue (databases that end, are damaged or \
                     were dropped) cannot be written; the next start tries again: check the disk, and the \
                     catalogue with: myriad inspect tenant {data}/tenants/00/00/0.db"
                );
            }
            ExitCode::SUCCESS
        }
        Exit::Failed(Failure::InUse) => {
            let text = format!("another process uses the data folder {data}: stop it first");
            fail(exit_code::IN_USE, &text)
        }
        Exit::Failed(Failure::Start(text)) => fail(exit_code::START, &text),
        Exit::Failed(Failure::Log(text)) => {
            let text = format!(
                "the commit log cannot be written: {text}; what was not acknowledged may be lost; \
                 check the disk and start again"
            );
            fail(exit_code::LOG_FAILED, &text)
        }
    }
}

/// Listen on both addresses and start.
fn start<I: Io<Server>>(
    io: &mut I,
    options: &ServerOptions,
) -> Result<Server, (SocketAddr, std::io::Error)> {
    let public = listen_soon(io, options.listen)?;
    let admin = listen_soon(io, options.admin_listen)?;
    Ok(Server::on(io, options.clone(), public, admin))
}

/// Listen, and for a moment try again where the address is in use: the kernel may still be closing
/// the sockets of a process that was killed just now.
fn listen_soon<I: Io<Server>>(
    io: &mut I,
    address: SocketAddr,
) -> Result<(ListenerId, SocketAddr), (SocketAddr, std::io::Error)> {
    const TRIES: u32 = 20;
    let mut tries = 0;
    loop {
        match io.listen(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries < TRIES => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            result => return result.map_err(|error| (address, error)),
        }
    }
}

fn run<I: Io<Server>>(
    server: &mut Server,
    io: &mut I,
    watch: &mut Watch,
    stop: &AtomicBool,
    announce: impl FnOnce(&mut Server),
) -> Exit {
    let mut announce = Some(announce);
    loop {
        server.turn(io);
        if let Some(exit) = server.exit() {
            return exit.clone();
        }
        if server.is_ready()
            && let Some(announce) = announce.take()
        {
            announce(server);
        }
        if let Some(bytes) = watch.look(|| io.now()) {
            server.limit_memory(bytes);
        }
        if stop.load(Ordering::Relaxed) {
            server.stop();
        }
        let latest = io.now().after(WAIT_NS_MAX);
        let deadline = server.deadline().map_or(latest, |deadline: Instant| deadline.min(latest));
        io.run(server, Some(deadline));
    }
}

fn announce(server: &mut Server, data: &Path, asks: bool, creates: bool) {
    let (public, admin) = server.addresses();
    if !asks {
        eprintln!(
            "myriad: warning: nobody is asked for a key: whoever reaches the addresses may use it"
        );
    }
    if let Some(key) = server.take_first_key() {
        eprintln!("a key that may everything, shown only now: {key}");
    }
    eprintln!("listening on http://{public}");
    eprintln!("admin on http://{admin}");
    eprintln!("data in {}", data.display());
    if creates && !asks {
        eprintln!("{}", first_steps(public));
    }
}

/// A first query and a client's first lines, as they work right now.
fn first_steps(address: SocketAddr) -> String {
    format!(
        r#"
try it (a database is made when it is first named):
  curl -s http://{address}/db/notes/v2/pipeline -d '{{"requests":[{{"type":"execute","stmt":{{"sql":"SELECT 1 + 1"}}}},{{"type":"close"}}]}}'

or, after npm install @libsql/client, in a file notes.mjs:
  import {{ createClient }} from "@libsql/client";
  const db = createClient({{ url: "http://{address}/db/notes/" }});
  console.log((await db.execute("SELECT sqlite_version()")).rows);
"#
    )
}
