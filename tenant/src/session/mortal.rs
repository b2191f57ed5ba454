//! Statements of databases that end: what they are told when there is nothing left for them.

use storage::allowance::UsedUp;
use storage::fiber::{self, with_volume};
use storage::sometimes;

use super::PooledConnection;
use crate::failure::{ROLLED_BACK, RequestUnits};
use crate::life::Part;
use crate::statement::StatementError;

/// The database is no more: it has ended by its own settings while it was in use.
const EXPIRED: &str = "DATABASE_EXPIRED";

/// A statement is about to run: whether the database is still there for it, and may be written to.
pub(super) fn permit(writes: bool) -> Result<(), StatementError> {
    let allowance = with_volume(|volume| volume.allowance);
    if allowance.expired {
        return Err(expired());
    }
    if allowance.frozen && writes {
        sometimes!("a statement that writes is refused because its database is frozen");
        let text = "the database has ended by its settings (ttl, idle_ttl, max_spend or \
                    max_statements) and is frozen: it can be read and dropped; a later end makes it \
                    live again";
        return Err(StatementError::new("DATABASE_FROZEN", text));
    }
    Ok(())
}

/// Count a statement that is about to run.
pub(super) fn begin() -> Result<(), StatementError> {
    with_volume(|volume| volume.allowance.begin()).map_err(|used_up| {
        sometimes!("a statement does not begin because its database's allowance is used up");
        let mut error = used_up_error(used_up);
        error.message.push_str("; the statement did not run");
        error
    })
}

/// The error of a statement that failed just now, if its database's end is why.
pub(super) fn stopped(pooled: &PooledConnection) -> Option<StatementError> {
    let rolled_back = if pooled.is_clean() { ROLLED_BACK } else { "" };
    if fiber::is_overspent() {
        sometimes!("a statement is stopped because its database may not spend more");
        let mut error = used_up_error(UsedUp::Price);
        error.message.push_str("; the statement was stopped and has no effect");
        error.message.push_str(rolled_back);
        return Some(error);
    }
    let expired_now = fiber::is_interrupted() && with_volume(|volume| volume.allowance.expired);
    expired_now.then(expired)
}

fn expired() -> StatementError {
    sometimes!("a statement is told that its database has ended");
    let text = "the database has ended by its settings (ttl, idle_ttl, max_spend or max_statements) \
                and was dropped";
    StatementError::new(EXPIRED, text)
}

fn used_up_error(used_up: UsedUp) -> StatementError {
    let allowance = with_volume(|volume| volume.allowance);
    let (code, message) = match used_up {
        UsedUp::Price => {
            let (limit, used) =
                (RequestUnits(allowance.price_max), RequestUnits(allowance.price_used));
            let name = Part::MaxSpend.name();
            let text = format!(
                "the database may spend ru={limit} in its life ({name}), and is at ru={used}"
            );
            ("SPEND_LIMIT", text)
        }
        UsedUp::Statements => {
            let (limit, used) = (allowance.statements_max, allowance.statements_used);
            let name = Part::MaxStatements.name();
            let text = format!(
                "{limit} statements may run in the database's life ({name}), and {used} have"
            );
            ("STATEMENT_LIMIT", text)
        }
    };
    StatementError::new(code, message)
}
