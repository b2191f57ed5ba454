//! Receipts of drops as JSON.

use serde_json::{Map, Value, json};
use storage::ledger::KIND_NAMES;
use tenant::Receipt;

/// What was taken and what was returned: bytes by the ledger's kinds, but for `descriptor`, which
/// counts open files; then files and pages of the database itself.
pub(crate) fn answer(receipt: &Receipt) -> Value {
    let side = |kinds: &[u64], files: u64, pages: u64| {
        let kinds = KIND_NAMES.iter().zip(kinds);
        let mut side: Map<String, Value> =
            kinds.map(|(&name, &number)| (name.to_owned(), number.into())).collect();
        side.insert("files".to_owned(), files.into());
        side.insert("pages".to_owned(), pages.into());
        Value::Object(side)
    };
    json!({
        "taken": side(&receipt.taken, receipt.files_taken, receipt.pages_taken),
        "returned": side(&receipt.returned, receipt.files_returned, receipt.pages_returned),
        "even": receipt.is_even(),
    })
}
