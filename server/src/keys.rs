//! `myriad key`: keys of a running server, made, listed and revoked through its control API.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::caller::{Admin, call, get};

/// Keys in one page of the list.
const PAGE: usize = 100;

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key. It is printed once and kept nowhere.
    Create {
        /// Where it is.
        #[command(flatten)]
        admin: Admin,

        /// What it is for: machine, organisation:acme, group:acme/web or database:shop
        #[arg(long)]
        scope: String,

        /// What it may: read, write or admin
        #[arg(long)]
        role: String,

        /// What people call it
        #[arg(long)]
        name: Option<String>,

        /// For how long it is good, such as 30d or 2w12h; for ever if it is left out
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,

        /// The most urgent that its requests may be: background, normal or interactive
        #[arg(long)]
        priority: Option<String>,

        /// What one of its requests may cost, in request units, such as 0.5
        #[arg(long, value_name = "UNITS")]
        request_cost: Option<String>,

        /// What its requests may cost in a second, in request units
        #[arg(long, value_name = "UNITS")]
        cost_per_second: Option<String>,

        /// What may be saved up of that; a second's worth if it is left out
        #[arg(long, value_name = "UNITS", requires = "cost_per_second")]
        cost_burst: Option<String>,
    },
    /// List keys, of one scope or all.
    List {
        /// Where it is.
        #[command(flatten)]
        admin: Admin,

        /// As for `create`
        #[arg(long)]
        scope: Option<String>,
    },
    /// Revoke a key: what runs with it ends at once.
    Revoke {
        /// Where it is.
        #[command(flatten)]
        admin: Admin,

        /// The public part of the key, as `list` shows it; the whole key will do
        public: String,
    },
}

/// Do it.
///
/// # Errors
/// A sentence for the person at the terminal: the server does not answer, or refuses.
pub fn run(command: &Command) -> Result<(), String> {
    match command {
        Command::Create {
            admin,
            scope,
            role,
            name,
            expires,
            priority,
            request_cost,
            cost_per_second,
            cost_burst,
        } => {
            let body = json!({
                "scope": scope, "role": role, "name": name, "expires": expires,
                "priority": priority, "budget": {
                    "request_cost": request_cost,
                    "cost_per_second": cost_per_second,
                    "cost_burst": cost_burst,
                },
            });
            let answer = asked(admin, "POST", "/v1/keys", &body.to_string())?;
            println!("{}", answer["key"].as_str().unwrap_or_default());
        }
        Command::Revoke { admin, public } => {
            if !public.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(format!("{public:?} is no public part of a key"));
            }
            // Of a whole key the rest stays here: who keeps a log of paths need not have it.
            let public = match public.strip_prefix("myr_") {
                Some(rest) => rest.get(..16).unwrap_or(rest),
                None => public,
            };
            asked(admin, "DELETE", &format!("/v1/keys/{public}"), "")?;
            println!("{public} is revoked");
        }
        Command::List { admin, scope } => list(admin, scope.as_deref())?,
    }
    Ok(())
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

fn list(admin: &Admin, scope: Option<&str>) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":/-_".contains(&byte);
    if scope.is_some_and(|scope| !scope.bytes().all(fits)) {
        return Err("scope must be machine, organisation:o, group:o/g or database:d".into());
    }
    let target = admin.target()?;
    let scope = scope.map_or_else(String::new, |scope| format!("&scope={scope}"));
    let mut after = 0;
    print!("{}", row(["PUBLIC", "ROLE", "SCOPE", "STATE", "NAME"]));
    loop {
        let page = get(&target, &format!("/v1/keys?limit={PAGE}&after={after}{scope}"))?;
        for key in page["keys"].as_array().into_iter().flatten() {
            print!("{}", line(key));
        }
        match page["next"].as_u64() {
            Some(next) if next > after => after = next,
            _ => return Ok(()),
        }
    }
}

fn row(columns: [&str; 5]) -> String {
    let [public, role, scope, state, name] = columns;
    let mut line = String::new();
    writeln!(line, "{public:<16}  {role:<5}  {scope:<28}  {state:<22}  {name}")
        .expect("a String takes every write");
    line
}

fn line(key: &Value) -> String {
    let text = |name: &str| key[name].as_str().unwrap_or("-");
    let state = match (key["revoked_at"].as_i64(), key["expires_at"].as_i64()) {
        (Some(at), _) => format!("revoked at {at}"),
        (None, Some(at)) => format!("expires at {at}"),
        (None, None) => "good".to_owned(),
    };
    row([text("public"), text("role"), text("scope"), &state, text("name")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let key = json!({"public": "abcdefghijklmnop", "role": "read", "scope": "database:shop",
            "name": null, "expires_at": 7, "revoked_at": null});
        let expected =
            "abcdefghijklmnop  read   database:shop                 expires at 7            -";
        assert_eq!(line(&key).trim_end(), expected);
        let revoked = json!({"public": "x", "revoked_at": 9});
        assert!(line(&revoked).contains("revoked at 9"));
    }
}
