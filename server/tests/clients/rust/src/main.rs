//! The crate libsql in remote mode: `POST /v3/pipeline` and `/v3/cursor`.
//!
//! Each step runs on all tenants at once. The driver `run` sets MYRIAD_URL, MYRIAD_ADMIN_URL,
//! MYRIAD_TENANTS and MYRIAD_VALUES, and reads one line per step: `PASS step` or
//! `FAIL step: reason`. Even tenants are named by the URL's path, odd ones by `x-namespace`.

mod steps;
mod values;

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use tokio::task::LocalSet;

/// Why a step failed.
pub type Failure = Box<dyn std::error::Error>;
/// What a step gives.
pub type Outcome = Result<(), Failure>;

/// Fail unless both are equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(format!("got {got:.100?}, not {expected:.100?}").into())
}

/// The result must be an error whose text has this code and these words.
pub fn fails<T, E: Display>(result: Result<T, E>, code: &str, words: &str) -> Outcome {
    let Err(error) = result else { return Err(format!("no error where {code} was expected").into()) };
    let text = error.to_string();
    if text.contains(code) && text.contains(words) {
        return Ok(());
    }
    Err(format!("{code} and {words:?} expected: {text}").into())
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the driver sets {name}"))
}

fn admin(method: &str, path: &str) -> Outcome {
    let url = variable("MYRIAD_ADMIN_URL");
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "{method} /v1/namespaces/{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: 2\r\n\r\n{{}}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let ok = answer.starts_with("HTTP/1.1 200 ");
    ok.then_some(()).ok_or_else(|| format!("{method} {path}: {answer:.200}").into())
}

async fn connect(tenant: &str, by_header: bool) -> Result<libsql::Database, Failure> {
    let url = variable("MYRIAD_URL");
    let builder = if by_header {
        libsql::Builder::new_remote(url, String::new()).namespace(tenant)
    } else {
        libsql::Builder::new_remote(format!("{url}/db/{tenant}"), String::new())
    };
    Ok(builder.connector(connector()).build().await?)
}

fn connector() -> hyper::client::HttpConnector {
    hyper::client::HttpConnector::new()
}

/// One tenant: its name, its database, its connection for the plain steps.
pub struct Tenant {
    name: String,
    database: libsql::Database,
    connection: libsql::Connection,
}

impl Tenant {
    async fn create(number: usize) -> Result<Tenant, Failure> {
        let name = format!("rust-{number}");
        admin("POST", &format!("{name}/create"))?;
        let database = connect(&name, number % 2 == 1).await?;
        let connection = database.connect()?;
        Ok(Tenant { name, database, connection })
    }
}

fn report(step: &str, started: Instant, outcomes: &[Outcome]) -> bool {
    let took = format!("{} tenants, {} ms", outcomes.len(), started.elapsed().as_millis());
    let bad: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    match bad.first() {
        None => println!("PASS {step} ({took})"),
        Some(first) => {
            let first = first.to_string().replace('\n', " ");
            println!("FAIL {step}: {} of {took}; first {first}", bad.len());
        }
    }
    bad.is_empty()
}

async fn run() -> bool {
    let count: usize = variable("MYRIAD_TENANTS").parse().expect("MYRIAD_TENANTS is a number");
    let values = Rc::new(values::read(&variable("MYRIAD_VALUES")));
    let started = Instant::now();
    let mut tenants = Vec::new();
    let mut outcomes = Vec::new();
    for number in 0..count {
        match Tenant::create(number).await {
            Ok(tenant) => tenants.push(Rc::new(tenant)),
            Err(failure) => outcomes.push(Err(failure)),
        }
    }
    outcomes.extend(tenants.iter().map(|_| Ok(())));
    let mut passed = report("create", started, &outcomes);
    for (step, work) in steps::STEPS {
        let started = Instant::now();
        let tasks: Vec<_> = tenants
            .iter()
            .map(|tenant| tokio::task::spawn_local(work(tenant.clone(), values.clone())))
            .collect();
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap_or_else(|panic| Err(panic.to_string().into())));
        }
        passed &= report(step, started, &outcomes);
    }
    let started = Instant::now();
    let outcomes: Vec<_> = tenants.iter().map(|tenant| admin("DELETE", &tenant.name)).collect();
    report("drop", started, &outcomes) && passed
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    if LocalSet::new().block_on(&runtime, run()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
