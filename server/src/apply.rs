//! `myriad apply`: plans, organisations and groups as a file says.
//!
//! ```json
//! { "plans": { "free": B, … },
//!   "organisations": { "acme": { "plan": …, "budget": B, "groups": { "web": { "plan": …, "budget": B } } } } }
//! ```
//!
//! B is a budget as the control API takes it. What the file names is made or replaced, in an order in
//! which everything that is named is there; what it does not name stays. Applying it twice changes
//! nothing. The whole file is looked at before the first call; a call that the server refuses ends it,
//! with what was applied before it told.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::caller::{Admin, call};

/// Makes plans, organisations and groups what a JSON file says. What it does not name stays.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
A file to begin with is deploy/plans.json. Then, for example:
  myriad apply deploy/plans.json
  curl -X POST http://127.0.0.1:8081/v1/namespaces/shop/create -d '{\"plan\":\"free\"}'")]
pub struct Options {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Where it is.
    #[command(flatten)]
    pub admin: Admin,

    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A call: what it is about in words, its path and its body.
#[derive(Debug, PartialEq)]
struct Step {
    about: String,
    path: String,
    body: Value,
}

/// Do what the file says.
///
/// # Errors
/// A sentence for the person at the terminal: the file cannot be read or says something else, the
/// server does not answer or refuses a call.
pub fn run(options: &Options) -> Result<(), String> {
    let file = options.file.display();
    let text = std::fs::read_to_string(&options.file)
        .map_err(|error| format!("cannot read {file}: {error}"))?;
    let value =
        serde_json::from_str(&text).map_err(|error| format!("{file} is no JSON: {error}"))?;
    let steps = steps(&value).map_err(|error| format!("{file}: {error}"))?;
    if options.dry_run {
        for step in &steps {
            println!("{}: PUT {} {}", step.about, step.path, step.body);
        }
        return Ok(());
    }
    let target = options.admin.target()?;
    for step in &steps {
        let (status, answer) = call(&target, "PUT", &step.path, &step.body.to_string())?;
        if status != 200 {
            let why = answer["message"].as_str().unwrap_or("it does not say why");
            return Err(format!("{} was refused with status {status}: {why}", step.about));
        }
        println!("{} is set", step.about);
    }
    Ok(())
}

fn steps(file: &Value) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let file = object(file, "the file")?;
    only(file, &["plans", "organisations"], "the file")?;
    for (name, budget) in entries(file, "plans")? {
        object(budget, &format!("plan {name}"))?;
        let path = format!("/v1/plans/{}", part(name)?);
        steps.push(Step { about: format!("plan {name}"), path, body: budget.clone() });
    }
    for (name, organisation) in entries(file, "organisations")? {
        let about = format!("organisation {name}");
        let organisation = object(organisation, &about)?;
        only(organisation, &["plan", "budget", "groups"], &about)?;
        let path = format!("/v1/organisations/{}", part(name)?);
        steps.push(Step { about, path: path.clone(), body: said(organisation) });
        for (group, said_of) in entries(organisation, "groups")? {
            let about = format!("group {name}/{group}");
            let said_of = object(said_of, &about)?;
            only(said_of, &["plan", "budget"], &about)?;
            let path = format!("{path}/groups/{}", part(group)?);
            steps.push(Step { about, path, body: said(said_of) });
        }
    }
    if steps.is_empty() { Err("it names nothing".to_owned()) } else { Ok(steps) }
}

/// What a node says, as the control API takes it.
fn said(node: &Map<String, Value>) -> Value {
    let of = |key: &str| node.get(key).cloned().unwrap_or(Value::Null);
    json!({ "plan": of("plan"), "budget": of("budget") })
}

/// A name as a part of a path: the server has the rules, but what would change the path is not sent.
fn part(name: &str) -> Result<&str, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    if !name.is_empty() && name.bytes().all(fits) {
        Ok(name)
    } else {
        Err(format!("{name:?} is not a name"))
    }
}

fn object<'a>(value: &'a Value, about: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{about} is not an object"))
}

fn entries<'a>(
    object: &'a Map<String, Value>,
    key: &str,
) -> Result<Vec<(&'a String, &'a Value)>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(entries)) => Ok(entries.iter().collect()),
        Some(_) => Err(format!("{key:?} is not an object")),
    }
}

fn only(object: &Map<String, Value>, known: &[&str], about: &str) -> Result<(), String> {
    let unknown = object.keys().find(|key| !known.contains(&key.as_str()));
    match unknown {
        None => Ok(()),
        Some(key) => Err(format!("{about} has {key:?}; known are {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(file: Value, why: &str) {
        let error = steps(&file).expect_err("refused");
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_is_named_comes_before_what_names_it() {
        let file = json!({
            "organisations": { "acme": {
                "plan": "pro",
                "groups": { "web": { "plan": "free" }, "jobs": { "budget": { "weight": 10 } } },
            } },
            "plans": { "pro": { "weight": 100 }, "free": { "weight": 10 } },
        });
        let paths: Vec<String> = steps(&file).expect("fits").into_iter().map(|s| s.path).collect();
        let expected = [
            "/v1/plans/free",
            "/v1/plans/pro",
            "/v1/organisations/acme",
            "/v1/organisations/acme/groups/jobs",
            "/v1/organisations/acme/groups/web",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn a_file_that_says_something_else_is_refused_whole() {
        refused(json!([]), "the file is not an object");
        refused(json!({}), "names nothing");
        refused(json!({ "plan": {} }), "has \"plan\"; known are plans, organisations");
        refused(json!({ "plans": { "a/b": {} } }), "not a name");
        refused(json!({ "plans": { "free": 1 } }), "plan free is not an object");
        refused(
            json!({ "organisations": { "a": { "grops": {} } } }),
            "known are plan, budget, groups",
        );
    }

    #[test]
    fn the_template_fits() {
        let text = include_str!("../../deploy/plans.json");
        let steps = steps(&serde_json::from_str(text).expect("JSON")).expect("fits");
        for step in steps {
            let name = step.path.strip_prefix("/v1/plans/").expect("only plans");
            crate::control::plan_of(name, step.body.to_string().as_bytes()).expect("a plan");
        }
    }
}
