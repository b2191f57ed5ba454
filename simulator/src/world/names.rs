//! Answers of the control API, and what they say about names (DUR-4).

use std::collections::BTreeSet;

use super::client::{AdminCall, Pending};
use super::ground::{Ground, NameSeen};
use super::model::{DropId, Violation, tenant_name};
use super::speech::{self, Refused};
use crate::client::Response;

/// Names in a page of the list, as the clients ask for it.
pub const LIST_PAGE: usize = 1000;

/// An answer came on the admin address.
///
/// # Errors
/// If it cannot be.
pub fn hear(
    ground: &mut Ground,
    pending: &Pending,
    call: AdminCall,
    drop: Option<DropId>,
    response: &Response,
) -> Result<(), Violation> {
    let (tenant, seen) = (pending.tenant, pending.name);
    if call == AdminCall::Metrics {
        ground.counts.ok += u64::from(response.status == 200);
        return Ok(());
    }
    let answer = speech::hear(response)?;
    match (call, &answer) {
        (AdminCall::Create(_), Ok(_)) => {
            ground.check_change(tenant, seen, false)?;
            ground.name_told(tenant, seen, Some(true));
        }
        (AdminCall::Create(_), Err(refused)) if refused.code == "DATABASE_EXISTS" => {
            ground.check_change(tenant, seen, true)?;
            ground.name_told(tenant, seen, Some(true));
        }
        (AdminCall::Drop(_), answer) => {
            let drop = drop.expect("a drop has a number");
            return hear_drop(ground, pending, drop, answer);
        }
        (AdminCall::Create(_), Err(_)) => ground.name_told(tenant, seen, seen.exists),
        (AdminCall::Show(_), Ok(_)) => ground.check_name(tenant, seen, true)?,
        (AdminCall::Show(_), Err(refused)) if refused.status == 404 => {
            ground.check_name(tenant, seen, false)?;
        }
        (AdminCall::List, Ok(body)) => check_list(ground, pending, body)?,
        (AdminCall::Show(_) | AdminCall::List, Err(_)) => {}
        (AdminCall::Metrics, _) => unreachable!("answered above"),
    }
    count(ground, tenant, &answer)
}

fn count<T>(
    ground: &mut Ground,
    tenant: usize,
    answer: &Result<T, Refused>,
) -> Result<(), Violation> {
    match answer {
        Ok(_) => {
            ground.counts.ok += 1;
            Ok(())
        }
        Err(refused) => ground.judge_refusal(tenant, refused),
    }
}

fn hear_drop<T>(
    ground: &mut Ground,
    pending: &Pending,
    drop: DropId,
    answer: &Result<T, Refused>,
) -> Result<(), Violation> {
    let (tenant, seen) = (pending.tenant, pending.name);
    match answer {
        Ok(_) => {
            ground.check_change(tenant, seen, true)?;
            ground.model.dropped(drop);
            ground.name_told(tenant, seen, Some(false));
            ground.unfence(tenant);
            ground.set_ready(tenant, false);
        }
        Err(refused) => {
            ground.model.drop_refused(drop);
            if refused.status == 404 {
                ground.check_change(tenant, seen, false)?;
                ground.name_told(tenant, seen, Some(false));
            } else {
                ground.name_told(tenant, seen, seen.exists);
            }
        }
    }
    count(ground, tenant, answer)
}

/// Every name that exists for sure is listed, and none that does not.
fn check_list(
    ground: &mut Ground,
    pending: &Pending,
    body: &serde_json::Value,
) -> Result<(), Violation> {
    let rows = body["namespaces"].as_array();
    let rows = rows.ok_or_else(|| Violation::new("HTTP-1", "a list without namespaces"))?;
    let listed: BTreeSet<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    // A full page may not be the last one.
    let all = if listed.len() < LIST_PAGE { ground.tenants() } else { 0 };
    for tenant in 0..all {
        let seen: NameSeen = ground.name(tenant);
        // Nothing is known of other names at the time of asking, so only settled ones are judged.
        if seen.settled_before(pending.asked) {
            let there = listed.contains(tenant_name(tenant).as_str());
            ground.check_name(tenant, seen, there)?;
        }
    }
    Ok(())
}
