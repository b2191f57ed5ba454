//! `myriad job`: fleet jobs of a running server, made, watched and told what to do through its control API.
//!
//! A client program, as `top` is.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::caller::{Admin, call, get};

/// Results or jobs in one page.
const PAGE: usize = 100;

/// Time between two looks at a job.
const LOOK: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Run statements on many databases, each in one transaction and exactly once; wait for the end.
    Run(Box<Run>),
    /// List jobs, the newest first.
    List {
        /// Where it is.
        #[command(flatten)]
        admin: Admin,

        /// Of this organisation or group (acme or acme/web)
        #[arg(long)]
        group: Option<String>,
    },
    /// Show a job, and the databases that failed.
    Show {
        /// Where it is.
        #[command(flatten)]
        admin: Admin,

        /// The job
        job: u64,
    },
    /// Follow a job until it pauses or ends.
    Watch {
        /// Where it is.
        #[command(flatten)]
        admin: Admin,

        /// The job
        job: u64,
    },
    /// Begin on no further database.
    Pause(Of),
    /// Go on.
    Resume(Of),
    /// End: databases that have not begun are left alone.
    Cancel(Of),
    /// Try those again that failed.
    Retry(Of),
    /// Forget a job that has come to rest, and its results.
    Delete(Of),
}

/// Which job.
#[derive(Clone, Debug, clap::Args)]
pub struct Of {
    /// Where it is.
    #[command(flatten)]
    admin: Admin,

    /// The job
    job: u64,
}

/// A new job.
#[derive(Clone, Debug, clap::Args)]
pub struct Run {
    /// Where it is.
    #[command(flatten)]
    admin: Admin,

    /// The statements, with `;` between them
    #[arg(long, conflicts_with = "file", required_unless_present = "file")]
    sql: Option<String>,

    /// A file with them
    #[arg(long)]
    file: Option<PathBuf>,

    /// Databases of this organisation or group (acme or acme/web); all of the machine if it is left out
    #[arg(long)]
    group: Option<String>,

    /// Of them, those whose names begin so
    #[arg(long, conflicts_with = "names")]
    prefix: Option<String>,

    /// Of them, these
    #[arg(long, value_delimiter = ',')]
    names: Vec<String>,

    /// So many first (10, or 5%); then it pauses
    #[arg(long)]
    canary: Option<String>,

    /// It goes on by itself if none of those has failed
    #[arg(long)]
    canary_auto: bool,

    /// Databases at a time
    #[arg(long)]
    concurrency: Option<u64>,

    /// What happens after failures: continue, pause or cancel
    #[arg(long)]
    on_error: Option<String>,

    /// After how many
    #[arg(long)]
    max_failures: Option<u64>,

    /// Seconds that one database may take
    #[arg(long)]
    timeout: Option<u64>,

    /// Foreign keys are off while it runs, and looked at as a whole before each commit
    #[arg(long)]
    no_foreign_keys: bool,

    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

/// Do it.
///
/// # Errors
/// A sentence for the person at the terminal: the server does not answer, or refuses, or the job has not
/// gone over all its databases.
pub fn run(command: &Command) -> Result<(), String> {
    match command {
        Command::Run(run) => begin(run),
        Command::List { admin, group } => list(admin, group.as_deref()),
        Command::Show { admin, job } => show(admin, *job),
        Command::Watch { admin, job } => watch(admin, *job),
        Command::Pause(of) => order(of, "POST", "/pause"),
        Command::Resume(of) => order(of, "POST", "/resume"),
        Command::Cancel(of) => order(of, "POST", "/cancel"),
        Command::Retry(of) => order(of, "POST", "/retry-failed"),
        Command::Delete(of) => order(of, "DELETE", ""),
    }
}

fn asked(admin: &Admin, method: &str, path: &str, body: &str) -> Result<Value, String> {
    match call(&admin.target()?, method, path, body)? {
        (200, answer) => Ok(answer),
        (status, answer) => {
            let why = answer["message"].as_str().unwrap_or("it does not say why");
            Err(format!("refused with status {status}: {why}"))
        }
    }
}

fn begin(run: &Run) -> Result<(), String> {
    let sql = match (&run.sql, &run.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?,
        (None, None) => return Err("give --sql or --file".into()),
    };
    let answer = asked(&run.admin, "POST", "/v1/jobs", &body_of(run, &sql).to_string())?;
    let job = answer["id"].as_u64().unwrap_or_default();
    println!("job {job}: {} databases", answer["total"]);
    if run.detach { Ok(()) } else { watch(&run.admin, job) }
}

fn body_of(run: &Run, sql: &str) -> Value {
    let mut body = json!({ "sql": sql });
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            body[name] = value;
        }
    };
    put("group", run.group.clone().into());
    put("prefix", run.prefix.clone().into());
    put("names", if run.names.is_empty() { Value::Null } else { json!(run.names) });
    let canary = run.canary.as_ref().map(|text| match text.parse::<u64>() {
        Ok(count) => json!(count),
        Err(_) => json!(text),
    });
    put("canary", canary.unwrap_or_default());
    put("canary_auto", if run.canary_auto { json!(true) } else { Value::Null });
    put("concurrency", run.concurrency.into());
    put("on_error", run.on_error.clone().into());
    put("max_failures", run.max_failures.into());
    put("timeout_s", run.timeout.into());
    put("foreign_keys", if run.no_foreign_keys { json!(false) } else { Value::Null });
    body
}

fn order(of: &Of, method: &str, word: &str) -> Result<(), String> {
    let answer = asked(&of.admin, method, &format!("/v1/jobs/{}{word}", of.job), "")?;
    println!("{}", line(&answer));
    Ok(())
}

fn list(admin: &Admin, group: Option<&str>) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte);
    if group.is_some_and(|group| !group.bytes().all(fits)) {
        return Err("group must be organisation or organisation/group".into());
    }
    let group = group.map_or_else(String::new, |group| format!("&group={group}"));
    let target = admin.target()?;
    let mut cursor = String::new();
    loop {
        let page = get(&target, &format!("/v1/jobs?limit={PAGE}{group}{cursor}"))?;
        for job in page["jobs"].as_array().into_iter().flatten() {
            println!("{}", line(job));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(()),
        }
    }
}

fn show(admin: &Admin, job: u64) -> Result<(), String> {
    let target = admin.target()?;
    println!("{}", line(&get(&target, &format!("/v1/jobs/{job}"))?));
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/jobs/{job}/results?status=failed&limit={PAGE}{cursor}");
        let page = get(&target, &path)?;
        for result in page["results"].as_array().into_iter().flatten() {
            let text = |name: &str| result[name].as_str().unwrap_or("-");
            println!("{:<32}  {}: {}", text("database"), text("code"), text("message"));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(()),
        }
    }
}

fn watch(admin: &Admin, job: u64) -> Result<(), String> {
    let target = admin.target()?;
    loop {
        let shown = get(&target, &format!("/v1/jobs/{job}"))?;
        let state = shown["state"].as_str().unwrap_or("");
        // A line of its own would be one too many for each look.
        print!("\r{:<100}", line(&shown));
        std::io::stdout().flush().map_err(|error| format!("cannot print: {error}"))?;
        match state {
            "running" | "pausing" | "cancelling" => std::thread::sleep(LOOK),
            "completed" if shown["failed"] == 0 => {
                println!();
                return Ok(());
            }
            _ => {
                println!();
                return Err(match state {
                    "completed" => format!("some have failed: myriad job show {job}"),
                    _ => format!("it is {state}: myriad job show {job}"),
                });
            }
        }
    }
}

/// A job in one line.
fn line(job: &Value) -> String {
    let number = |name: &str| job[name].as_u64().unwrap_or(0);
    let mut line = format!(
        "job {}  {}  {}/{} done, {} failed, {} skipped, {} running",
        number("id"),
        job["state"].as_str().unwrap_or("-"),
        number("done"),
        number("total"),
        number("failed"),
        number("skipped"),
        number("running"),
    );
    if let Some(reason) = job["reason"].as_str() {
        write!(line, " ({reason})").expect("a String takes every write");
    }
    if let (Some(rate), Some(left)) = (job["per_second"].as_f64(), job["seconds_left"].as_f64()) {
        write!(line, ", {rate}/s, {left} s left").expect("a String takes every write");
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn what_is_asked_for() {
        let arguments = [
            "job",
            "run",
            "--sql",
            "SELECT 1",
            "--names",
            "a,b",
            "--canary",
            "5%",
            "--no-foreign-keys",
        ];
        let parsed = Arguments::try_parse_from(arguments).expect("they are good");
        let Command::Run(run) = parsed.command else { panic!("a run") };
        let expected = json!({
            "sql": "SELECT 1", "names": ["a", "b"], "canary": "5%", "foreign_keys": false,
        });
        assert_eq!(body_of(&run, "SELECT 1"), expected);
    }

    #[test]
    fn lines() {
        let job = json!({
            "id": 3, "state": "running", "total": 9, "done": 4, "failed": 1, "skipped": 0,
            "running": 2, "reason": null, "per_second": 2.5, "seconds_left": 2.0,
        });
        let expected = "job 3  running  4/9 done, 1 failed, 0 skipped, 2 running, 2.5/s, 2 s left";
        assert_eq!(line(&job), expected);
    }
}
