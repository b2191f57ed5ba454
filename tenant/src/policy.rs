//! What a tenant's SQL may do: the authorizer, SQLite's limits, and nothing that runs.
//!
//! The lists are allow lists: a name that a later SQLite adds is refused until somebody has looked
//! at it. Reasons stand in the README of this crate; the list of pragmas that reach SQLite at all
//! is `storage::sqlite::PRAGMAS`, and every name here is in it.

use storage::sqlite::{Action, Connection, Verdict, codes};

/// Functions that SQL may call, lower case. Left out on purpose: `load_extension`, `fts3_tokenizer`,
/// `sqlite_log`, `sqlite_compileoption_*`, `rtreenode`, `rtreedepth`, `rtreecheck` (a whole index in
/// one call), `soundex`, `offsets`, `matchinfo`, `fts5`, `fts5_source_id`, `fts5_insttoken`.
const FUNCTIONS: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg",
    "bm25",
    "ceil",
    "ceiling",
    "changes",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "cos",
    "cosh",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "degrees",
    "dense_rank",
    "exp",
    "first_value",
    "floor",
    "format",
    "fts5_get_locale",
    "fts5_locale",
    "glob",
    "group_concat",
    "hex",
    "highlight",
    "if",
    "ifnull",
    "iif",
    "instr",
    "julianday",
    "lag",
    "last_insert_rowid",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "match",
    "max",
    "median",
    "min",
    "mod",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "pi",
    "pow",
    "power",
    "printf",
    "quote",
    "radians",
    "random",
    "randomblob",
    "rank",
    "regexp",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "sin",
    "sinh",
    "snippet",
    "sqlite_add_constraint",
    "sqlite_drop_column",
    "sqlite_drop_constraint",
    "sqlite_fail",
    "sqlite_find_constraint",
    "sqlite_rename_column",
    "sqlite_rename_quotefix",
    "sqlite_rename_table",
    "sqlite_rename_test",
    "sqlite_source_id",
    "sqlite_version",
    "sqrt",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "subtype",
    "sum",
    "tan",
    "tanh",
    "time",
    "timediff",
    "total",
    "total_changes",
    "trim",
    "trunc",
    "typeof",
    "unhex",
    "unicode",
    "unistr",
    "unistr_quote",
    "unixepoch",
    "unlikely",
    "upper",
    "zeroblob",
    "->",
    "->>",
];

/// Modules of virtual tables that SQL may create.
const MODULES: &[&str] = &["fts5", "fts5vocab", "rtree", "rtree_i32"];

/// What a pragma may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No argument: only asked.
    Ask,
    /// Nothing, or the name of a table or index.
    Name,
    /// Nothing, a name, or a number.
    NameOrNumber,
    /// Nothing or a whole number; stored in the file.
    Number,
    /// Nothing or exactly a boolean word; changes the connection.
    Switch,
}

const PRAGMAS: &[(&str, Kind)] = &[
    ("table_info", Kind::Name),
    ("table_xinfo", Kind::Name),
    ("table_list", Kind::Name),
    ("index_list", Kind::Name),
    ("index_info", Kind::Name),
    ("index_xinfo", Kind::Name),
    ("foreign_key_list", Kind::Name),
    ("foreign_key_check", Kind::Name),
    ("collation_list", Kind::Ask),
    ("compile_options", Kind::Ask),
    ("page_count", Kind::Ask),
    ("page_size", Kind::Ask),
    ("freelist_count", Kind::Ask),
    ("data_version", Kind::Ask),
    ("schema_version", Kind::Ask),
    ("encoding", Kind::Ask),
    ("integrity_check", Kind::NameOrNumber),
    ("quick_check", Kind::NameOrNumber),
    ("application_id", Kind::Number),
    ("user_version", Kind::Number),
    ("optimize", Kind::Number),
    ("foreign_keys", Kind::Switch),
    ("defer_foreign_keys", Kind::Switch),
    ("recursive_triggers", Kind::Switch),
    ("reverse_unordered_selects", Kind::Switch),
    ("case_sensitive_like", Kind::Switch),
    ("legacy_alter_table", Kind::Switch),
    // Asked by frameworks at connect; ours to set, not theirs.
    ("journal_mode", Kind::Ask),
    ("synchronous", Kind::Ask),
    ("read_uncommitted", Kind::Ask),
    ("busy_timeout", Kind::Ask),
];

fn listed(list: &[&str], name: Option<&str>) -> bool {
    name.is_some_and(|name| list.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)))
}

fn function_allowed(name: Option<&str>) -> bool {
    let json = |name: &str| {
        let lower = name.to_ascii_lowercase();
        lower == "json"
            || lower == "jsonb"
            || lower.starts_with("json_")
            || lower.starts_with("jsonb_")
    };
    listed(FUNCTIONS, name) || name.is_some_and(json)
}

fn pragma_verdict(name: Option<&str>, argument: Option<&str>) -> Verdict {
    let found = PRAGMAS
        .iter()
        .find(|(allowed, _)| name.is_some_and(|name| allowed.eq_ignore_ascii_case(name)));
    let Some((_, kind)) = found else { return Verdict::Deny };
    let Some(argument) = argument else { return Verdict::Allow };
    let number = argument.parse::<i64>().is_ok()
        || argument.strip_prefix("0x").is_some_and(|hex| i64::from_str_radix(hex, 16).is_ok());
    let switch = ["on", "off", "true", "false", "yes", "no", "0", "1"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(argument));
    match kind {
        Kind::Name | Kind::NameOrNumber => Verdict::Allow,
        Kind::Number if number => Verdict::Allow,
        Kind::Switch if switch => Verdict::AllowTaint,
        Kind::Ask | Kind::Number | Kind::Switch => Verdict::Deny,
    }
}

/// The authorizer of every connection that runs a client's SQL.
#[must_use]
pub fn authorize(action: Action<'_>) -> Verdict {
    // For ALTER TABLE the schema is the first argument.
    let schema =
        if action.code == codes::SQLITE_ALTER_TABLE { action.first } else { action.schema };
    let is_schema_table = listed(
        &["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"],
        action.first,
    );
    let asks = matches!(action.code, codes::SQLITE_READ | codes::SQLITE_UPDATE) && is_schema_table
        || action.code == codes::SQLITE_PRAGMA
        || action.code == codes::SQLITE_SELECT;
    let home = schema.is_none_or(|name| name.is_empty() || name.eq_ignore_ascii_case("main"));
    let temp = schema.is_some_and(|name| name.eq_ignore_ascii_case("temp"));
    let allowed_place = home || (temp && asks);
    if !allowed_place {
        return Verdict::Deny;
    }
    match action.code {
        codes::SQLITE_INSERT if action.inside.is_none() && !is_schema_table => Verdict::AllowInsert,
        codes::SQLITE_SELECT
        | codes::SQLITE_RECURSIVE
        | codes::SQLITE_READ
        | codes::SQLITE_TRANSACTION
        | codes::SQLITE_SAVEPOINT
        | codes::SQLITE_INSERT
        | codes::SQLITE_UPDATE
        | codes::SQLITE_DELETE
        | codes::SQLITE_CREATE_TABLE
        | codes::SQLITE_CREATE_INDEX
        | codes::SQLITE_CREATE_VIEW
        | codes::SQLITE_CREATE_TRIGGER
        | codes::SQLITE_DROP_TABLE
        | codes::SQLITE_DROP_INDEX
        | codes::SQLITE_DROP_VIEW
        | codes::SQLITE_DROP_TRIGGER
        | codes::SQLITE_ALTER_TABLE
        | codes::SQLITE_REINDEX
        | codes::SQLITE_ANALYZE => Verdict::Allow,
        codes::SQLITE_CREATE_VTABLE | codes::SQLITE_DROP_VTABLE
            if listed(MODULES, action.second) =>
        {
            Verdict::Allow
        }
        codes::SQLITE_FUNCTION if function_allowed(action.second) => Verdict::Allow,
        codes::SQLITE_PRAGMA => pragma_verdict(action.first, action.second),
        _ => Verdict::Deny,
    }
}

/// The authorizer for who may only read: nothing that writes is compiled. What is compiled already, or
/// slips through here, is asked of SQLite itself before it runs (`sqlite3_stmt_readonly`).
#[must_use]
pub fn authorize_reading(action: Action<'_>) -> Verdict {
    match authorize(action) {
        Verdict::Deny => Verdict::Deny,
        _ if writes(action) => Verdict::DenyWrite,
        verdict => verdict,
    }
}

fn writes(action: Action<'_>) -> bool {
    // R-Tree compiles what would change its shadow tables when one of it is first read; nobody else may
    // change those (`SQLITE_DBCONFIG_DEFENSIVE`).
    let is_shadow = || {
        let ends = |end| action.first.is_some_and(|name: &str| name.ends_with(end));
        ["_node", "_rowid", "_parent"].into_iter().any(ends)
    };
    match action.code {
        codes::SQLITE_INSERT | codes::SQLITE_UPDATE | codes::SQLITE_DELETE => !is_shadow(),
        codes::SQLITE_SELECT
        | codes::SQLITE_RECURSIVE
        | codes::SQLITE_READ
        | codes::SQLITE_TRANSACTION
        | codes::SQLITE_SAVEPOINT
        | codes::SQLITE_FUNCTION => false,
        codes::SQLITE_PRAGMA => {
            let named = |name: &str| action.first.is_some_and(|own| own.eq_ignore_ascii_case(name));
            let stored = named("application_id") || named("user_version");
            (stored && action.second.is_some()) || named("optimize")
        }
        _ => true,
    }
}

/// SQLite's run-time limits for a client's connection, with the reasons where they are not plain.
const LIMITS: &[(i32, i32)] = &[
    // Every linear function stays under 13 ms at 1 MiB.
    (codes::SQLITE_LIMIT_LENGTH, 1_048_576),
    // Compiling is quadratic in names: 5,000 CTEs in 190 KB take 75 ms.
    (codes::SQLITE_LIMIT_SQL_LENGTH, 262_144),
    (codes::SQLITE_LIMIT_COLUMN, 200),
    // 63 KB of stack.
    (codes::SQLITE_LIMIT_EXPR_DEPTH, 100),
    // 0.85 KB of stack a term.
    (codes::SQLITE_LIMIT_COMPOUND_SELECT, 50),
    // Straight-line code reaches no progress handler.
    (codes::SQLITE_LIMIT_VDBE_OP, 25_000),
    (codes::SQLITE_LIMIT_FUNCTION_ARG, 100),
    (codes::SQLITE_LIMIT_ATTACHED, 0),
    (codes::SQLITE_LIMIT_WORKER_THREADS, 0),
    // Recursion on each `%`.
    (codes::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
    (codes::SQLITE_LIMIT_VARIABLE_NUMBER, 32_766),
    // 1.8 KB of stack a level.
    (codes::SQLITE_LIMIT_TRIGGER_DEPTH, 20),
    (LIMIT_PARSER_DEPTH, 500),
    (LIMIT_SCHEMA, 2_000),
    (LIMIT_TRIGGER_STEPS, 100),
];

/// `SQLITE_LIMIT_PARSER_DEPTH`, newer than the bindings.
const LIMIT_PARSER_DEPTH: i32 = 12;
/// `SQLITE_LIMIT_SCHEMA`, newer than the bindings.
const LIMIT_SCHEMA: i32 = 13;
/// `SQLITE_LIMIT_TRIGGER_STEPS`, newer than the bindings.
const LIMIT_TRIGGER_STEPS: i32 = 14;

/// Put a fresh connection under the policy: limits first, the authorizer last.
pub fn confine(connection: &mut Connection) {
    for &(limit, value) in LIMITS {
        connection.set_limit(limit, value);
    }
    connection.set_authorizer(authorize);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action<'a>(code: i32, first: &'a str, second: &'a str, schema: &'a str) -> Action<'a> {
        let some = |text: &'a str| (!text.is_empty()).then_some(text);
        Action {
            code,
            first: some(first),
            second: some(second),
            schema: some(schema),
            inside: None,
        }
    }

    #[test]
    fn every_pragma_of_the_policy_reaches_sqlite() {
        for (name, _) in PRAGMAS {
            assert!(storage::sqlite::PRAGMAS.contains(name), "{name}");
        }
    }

    #[test]
    fn who_may_only_read_compiles_nothing_that_writes() {
        use Verdict::{Allow, AllowTaint, Deny, DenyWrite};
        for (code, first, second, verdict) in [
            (codes::SQLITE_SELECT, "", "", Allow),
            (codes::SQLITE_READ, "t", "a", Allow),
            (codes::SQLITE_TRANSACTION, "BEGIN", "", Allow),
            (codes::SQLITE_INSERT, "t", "", DenyWrite),
            (codes::SQLITE_UPDATE, "t", "a", DenyWrite),
            (codes::SQLITE_DELETE, "sqlite_master", "", DenyWrite),
            (codes::SQLITE_DELETE, "boxes_node", "", Allow),
            (codes::SQLITE_CREATE_TABLE, "t", "", DenyWrite),
            (codes::SQLITE_DROP_TABLE, "t", "", DenyWrite),
            (codes::SQLITE_CREATE_VTABLE, "f", "fts5", DenyWrite),
            (codes::SQLITE_REINDEX, "i", "", DenyWrite),
            (codes::SQLITE_ANALYZE, "t", "", DenyWrite),
            (codes::SQLITE_ATTACH, "x", "", Deny),
            (codes::SQLITE_PRAGMA, "user_version", "", Allow),
            (codes::SQLITE_PRAGMA, "user_version", "7", DenyWrite),
            (codes::SQLITE_PRAGMA, "Application_Id", "7", DenyWrite),
            (codes::SQLITE_PRAGMA, "optimize", "", DenyWrite),
            (codes::SQLITE_PRAGMA, "foreign_keys", "off", AllowTaint),
        ] {
            let action = action(code, first, second, "main");
            assert_eq!(authorize_reading(action), verdict, "{action:?}");
        }
    }

    #[test]
    fn verdicts() {
        use Verdict::{Allow, AllowInsert, AllowTaint, Deny};
        for (code, first, second, schema, verdict) in [
            (codes::SQLITE_ATTACH, "/etc/passwd", "", "", Deny),
            (codes::SQLITE_DETACH, "main", "", "", Deny),
            (codes::SQLITE_CREATE_TABLE, "t", "", "main", Allow),
            (codes::SQLITE_CREATE_TABLE, "t", "", "temp", Deny),
            (codes::SQLITE_CREATE_TEMP_TABLE, "t", "", "temp", Deny),
            (codes::SQLITE_ALTER_TABLE, "main", "t", "", Allow),
            (codes::SQLITE_ALTER_TABLE, "temp", "t", "", Deny),
            (codes::SQLITE_READ, "sqlite_temp_master", "name", "temp", Allow),
            (codes::SQLITE_READ, "t", "a", "temp", Deny),
            (codes::SQLITE_INSERT, "t", "", "main", AllowInsert),
            (codes::SQLITE_INSERT, "sqlite_master", "", "main", Allow),
            (codes::SQLITE_FUNCTION, "", "LENGTH", "", Allow),
            (codes::SQLITE_FUNCTION, "", "json_extract", "", Allow),
            (codes::SQLITE_FUNCTION, "", "load_extension", "", Deny),
            (codes::SQLITE_CREATE_VTABLE, "f", "FTS5", "main", Allow),
            (codes::SQLITE_CREATE_VTABLE, "f", "dbstat", "main", Deny),
            (codes::SQLITE_PRAGMA, "user_version", "7", "", Allow),
            (codes::SQLITE_PRAGMA, "user_version", "seven", "", Deny),
            (codes::SQLITE_PRAGMA, "Foreign_Keys", "off", "", AllowTaint),
            (codes::SQLITE_PRAGMA, "foreign_keys", "offside", "", Deny),
            (codes::SQLITE_PRAGMA, "journal_mode", "", "", Allow),
            (codes::SQLITE_PRAGMA, "journal_mode", "delete", "", Deny),
            (codes::SQLITE_PRAGMA, "hard_heap_limit", "1", "", Deny),
            (codes::SQLITE_PRAGMA, "table_info_extra", "t", "", Deny),
            (99, "", "", "", Deny),
        ] {
            let action = action(code, first, second, schema);
            assert_eq!(authorize(action), verdict, "{action:?}");
        }
    }
}
