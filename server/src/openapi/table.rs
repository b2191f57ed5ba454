//! One line a route. A name in braces is a parameter of the path; it, the words of `query` and the
//! schemas of bodies and answers are in `schemas.json`.

mod copies;
mod jobs;
mod life;
mod uploads;

use crate::http::Method;

/// One route.
pub(super) struct Route {
    pub tag: &'static str,
    pub method: Method,
    pub path: &'static str,
    pub summary: &'static str,
    pub query: &'static [&'static str],
    /// A schema; empty for none.
    pub body: &'static str,
    /// A schema; `text`, `file`, or empty for no body.
    pub answer: &'static str,
}

pub(super) const GET: Method = Method::Get;
pub(super) const POST: Method = Method::Post;
const PUT: Method = Method::Put;
const PATCH: Method = Method::Patch;
pub(super) const DELETE: Method = Method::Delete;

pub(super) const fn route(
    tag: &'static str,
    method: Method,
    path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    body: &'static str,
    answer: &'static str,
) -> Route {
    Route { tag, method, path, summary, query, body, answer }
}

/// All routes: one table a file.
pub(super) fn routes() -> impl Iterator<Item = &'static Route> {
    [TABLE, copies::TABLE, jobs::JOBS, life::TABLE, uploads::TABLE].into_iter().flatten()
}

#[rustfmt::skip]
const TABLE: &[Route] = &[
    route(
        "Server", GET, "/health",
        "The server lives",
        &[], "", "",
    ),
    route(
        "Server", GET, "/version",
        "Which server it is",
        &[], "", "text",
    ),
    route(
        "Server", GET, "/metrics",
        "Measurements for Prometheus",
        &[], "", "text",
    ),
    route(
        "Server", GET, "/openapi.json",
        "This document",
        &[], "", "Document",
    ),
    route(
        "Server", GET, "/v1/diagnostics",
        "How full everything is, line by line",
        &[], "", "Lines",
    ),
    route(
        "Server", GET, "/v1/top",
        "Which open databases use most",
        &["by", "top_limit", "since"], "", "Top",
    ),
    route(
        "Databases", GET, "/v1/namespaces",
        "Databases in the order of their names",
        &["limit", "after", "prefix"], "", "Namespaces",
    ),
    route(
        "Databases", GET, "/v1/namespaces/{name}",
        "A database",
        &[], "", "Namespace",
    ),
    route(
        "Databases", DELETE, "/v1/namespaces/{name}",
        "Drop a database; the receipt says what it took and gave back",
        &[], "", "NamespaceDropped",
    ),
    route(
        "Databases", POST, "/v1/namespaces/{name}/create",
        "Create a database",
        &[], "NamespaceCreate", "Namespace",
    ),
    route(
        "Databases", GET, "/v1/namespaces/{name}/config",
        "Its configuration, as sqld says it",
        &[], "", "SqldConfig",
    ),
    route(
        "Databases", POST, "/v1/namespaces/{name}/config",
        "Change it: with both block_reads and block_writes, what is absent is reset",
        &[], "SqldConfigChange", "BudgetShown",
    ),
    route(
        "Databases", GET, "/v1/namespaces/{name}/stats",
        "Its statistics, as sqld says them; rows are pages",
        &[], "", "SqldStats",
    ),
    route(
        "Databases", DELETE, "/v1/namespaces/{name}/stats/top",
        "No text of a query is kept: nothing to forget",
        &[], "", "Done",
    ),
    route(
        "Databases", DELETE, "/v1/namespaces/{name}/stats/slowest",
        "No text of a query is kept: nothing to forget",
        &[], "", "Done",
    ),
    route(
        "Databases", POST, "/v1/namespaces/{name}/checkpoint",
        "Begin to write what was committed to its file",
        &[], "", "Done",
    ),
    route(
        "Databases", GET, "/v1/namespaces/{name}/budget",
        "Its budget: what it says, what holds, and who said so",
        &[], "", "BudgetShown",
    ),
    route(
        "Databases", PUT, "/v1/namespaces/{name}/budget",
        "Change its budget, plan or group",
        &[], "BudgetChange", "BudgetShown",
    ),
    route(
        "Databases", GET, "/v1/namespaces/{name}/usage",
        "What it has used, and holds now",
        &["from", "to"], "", "UsageShown",
    ),
    route(
        "Databases", GET, "/v1/namespaces/{name}/settings",
        "Its settings",
        &[], "", "Settings",
    ),
    route(
        "Databases", PUT, "/v1/namespaces/{name}/settings",
        "Change its settings; what is absent stays",
        &[], "SettingsChange", "Settings",
    ),
    route(
        "Databases", POST, "/v1/namespaces/{name}/tokens",
        "A token for it",
        &["expiration", "authorization"], "", "Jwt",
    ),
    route(
        "Databases", POST, "/v1/namespaces/{name}/tokens/rotate",
        "Refuse all tokens for it that were issued until now",
        &[], "", "Done",
    ),
    route(
        "Plans and places", GET, "/v1/plans",
        "All plans",
        &[], "", "Plans",
    ),
    route(
        "Plans and places", GET, "/v1/plans/{plan}",
        "A plan",
        &[], "", "Plan",
    ),
    route(
        "Plans and places", PUT, "/v1/plans/{plan}",
        "A new plan, or its new budget",
        &[], "Budget", "Plan",
    ),
    route(
        "Plans and places", DELETE, "/v1/plans/{plan}",
        "Remove a plan that nobody has",
        &[], "", "Done",
    ),
    route(
        "Plans and places", GET, "/v1/organisations",
        "Organisations in the order of their names",
        &["limit", "after"], "", "Organisations",
    ),
    route(
        "Plans and places", GET, "/v1/organisations/{organisation}",
        "An organisation: what it says",
        &[], "", "NodeShown",
    ),
    route(
        "Plans and places", PUT, "/v1/organisations/{organisation}",
        "A new organisation, or what it says from now on",
        &[], "Said", "NodeShown",
    ),
    route(
        "Plans and places", DELETE, "/v1/organisations/{organisation}",
        "Remove an organisation without groups",
        &[], "", "Done",
    ),
    route(
        "Plans and places", GET, "/v1/organisations/{organisation}/settings",
        "Its settings",
        &[], "", "Settings",
    ),
    route(
        "Plans and places", PUT, "/v1/organisations/{organisation}/settings",
        "Change its settings; what is absent stays",
        &[], "NodeSettingsChange", "Settings",
    ),
    route(
        "Plans and places", GET, "/v1/organisations/{organisation}/groups/{group}/settings",
        "Its settings",
        &[], "", "Settings",
    ),
    route(
        "Plans and places", PUT, "/v1/organisations/{organisation}/groups/{group}/settings",
        "Change its settings; what is absent stays",
        &[], "NodeSettingsChange", "Settings",
    ),
    route(
        "Plans and places", GET, "/v1/organisations/{organisation}/usage",
        "What all its databases have used together",
        &["from", "to"], "", "SumShown",
    ),
    route(
        "Plans and places", GET, "/v1/organisations/{organisation}/groups",
        "Its groups in the order of their names",
        &["limit", "after"], "", "Groups",
    ),
    route(
        "Plans and places", GET, "/v1/organisations/{organisation}/groups/{group}",
        "A group: what it says",
        &[], "", "NodeShown",
    ),
    route(
        "Plans and places", PUT, "/v1/organisations/{organisation}/groups/{group}",
        "A new group, or what it says from now on",
        &[], "Said", "NodeShown",
    ),
    route(
        "Plans and places", DELETE, "/v1/organisations/{organisation}/groups/{group}",
        "Remove a group without databases",
        &[], "", "Done",
    ),
    route(
        "Plans and places", GET, "/v1/organisations/{organisation}/groups/{group}/usage",
        "What all its databases have used together",
        &["from", "to"], "", "SumShown",
    ),
    route(
        "Keys", GET, "/v1/keys",
        "Keys, in the order in which they were made",
        &["scope", "limit", "key_after"], "", "Keys",
    ),
    route(
        "Keys", POST, "/v1/keys",
        "A new key; its secret is in this answer and nowhere else",
        &[], "KeyCreate", "KeyMade",
    ),
    route(
        "Keys", DELETE, "/v1/keys/{public}",
        "Revoke a key: what runs with it ends at once",
        &[], "", "Key",
    ),
    route(
        "Platform API", GET, "/v1/organizations",
        "Organizations",
        &["limit", "cursor"], "", "T_Organizations",
    ),
    route(
        "Platform API", GET, "/v2/organizations",
        "The same",
        &["limit", "cursor"], "", "T_Organizations",
    ),
    route(
        "Platform API", POST, "/v1/organizations",
        "A new organization",
        &[], "T_Name", "T_OrganizationMade",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}",
        "An organization",
        &[], "", "T_Organization",
    ),
    route(
        "Platform API", PATCH, "/v1/organizations/{organization}",
        "Nothing of an organization can be changed here but its budget, elsewhere",
        &[], "T_OrganizationChange", "T_Organization",
    ),
    route(
        "Platform API", DELETE, "/v1/organizations/{organization}",
        "Remove an organization without groups",
        &[], "", "Done",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/usage",
        "What all its databases have used together",
        &["from", "to"], "", "T_OrganizationUsage",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/groups",
        "Its groups",
        &["limit", "cursor"], "", "T_Groups",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/groups",
        "A new group",
        &[], "T_Name", "T_Group",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/groups/{group}",
        "A group",
        &[], "", "T_Group",
    ),
    route(
        "Platform API", DELETE, "/v1/organizations/{organization}/groups/{group}",
        "Remove a group without databases",
        &[], "", "Done",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/groups/{group}/configuration",
        "A group's settings",
        &[], "", "T_GroupConfiguration",
    ),
    route(
        "Platform API", PATCH, "/v1/organizations/{organization}/groups/{group}/configuration",
        "Change a group's settings",
        &[], "T_GroupConfigurationChange", "T_GroupConfiguration",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/groups/{group}/usage",
        "What all its databases have used together",
        &["from", "to"], "", "T_GroupUsage",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/groups/{group}/auth/tokens",
        "A token for all its databases",
        &["expiration", "authorization"], "T_Permissions", "Jwt",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/groups/{group}/auth/rotate",
        "Refuse all tokens for its databases that were issued until now",
        &[], "", "Done",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/groups/{group}/rename",
        "Another name for a group: its databases, keys and jobs stay",
        &[], "T_Name", "T_Group",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/groups/{group}/unarchive",
        "Nothing is ever archived",
        &[], "", "T_Group",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/groups/{group}/locations/local",
        "It is there already",
        &[], "", "T_Group",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/groups/{group}/locations/local/wait",
        "It is there already",
        &[], "", "T_Group",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/databases",
        "Its databases, by group and name",
        &["in_group", "limit", "database_cursor", "type", "schema", "parent"], "", "T_Databases",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/databases",
        "Create a database; the group `default` is made when it is first used",
        &[], "T_DatabaseCreate", "T_DatabaseMade",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/databases/{name}",
        "A database",
        &[], "", "T_Database",
    ),
    route(
        "Platform API", DELETE, "/v1/organizations/{organization}/databases/{name}",
        "Drop a database",
        &[], "", "T_Dropped",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/databases/{name}/configuration",
        "A database's settings",
        &[], "", "T_Configuration",
    ),
    route(
        "Platform API", PATCH, "/v1/organizations/{organization}/databases/{name}/configuration",
        "Change a database's settings",
        &[], "T_ConfigurationChange", "T_Configuration",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/databases/{name}/usage",
        "What it has used since it was created; rows are pages; periods are not kept",
        &["from", "to"], "", "T_Usage",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/databases/{name}/instances",
        "Its one instance",
        &[], "", "T_Instances",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/databases/{name}/instances/primary",
        "Its one instance",
        &[], "", "T_Instance",
    ),
    route(
        "Platform API", GET, "/v1/organizations/{organization}/databases/{name}/instances/primary/wait",
        "It is there already",
        &[], "", "T_Instance",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/databases/{name}/auth/tokens",
        "A token for it",
        &["expiration", "authorization"], "T_Permissions", "Jwt",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/databases/{name}/auth/rotate",
        "Refuse all tokens for it that were issued until now",
        &[], "", "Done",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/databases/{name}/update",
        "It is always as new as the server",
        &[], "", "Done",
    ),
    route(
        "Platform API", POST, "/v1/organizations/{organization}/databases/{name}/wakeup",
        "It is always awake",
        &[], "", "Done",
    ),
    route(
        "Platform API", GET, "/v1/locations",
        "The one location",
        &[], "", "T_Locations",
    ),
    route(
        "Platform API", GET, "/v1/locations/local",
        "The one location",
        &[], "", "T_Location",
    ),
    route(
        "Platform API", GET, "/v2/organizations/{organization}/locations",
        "The one location",
        &[], "", "T_LocationsByProvider",
    ),
    route(
        "Platform API", GET, "/v1/current-user",
        "Nobody in particular",
        &[], "", "T_User",
    ),
    route(
        "Platform API", GET, "/v1/auth/api-tokens",
        "Keys that are not of single databases",
        &[], "", "T_Tokens",
    ),
    route(
        "Platform API", POST, "/v1/auth/api-tokens/{token}",
        "A key that may everything; its secret is in this answer and nowhere else",
        &[], "", "T_TokenMade",
    ),
    route(
        "Platform API", POST, "/v2/auth/api-tokens/{token}",
        "The same, or one for an organization or group",
        &[], "T_TokenScope", "T_TokenMadeNested",
    ),
    route(
        "Platform API", DELETE, "/v1/auth/api-tokens/{token}",
        "Revoke all keys of this name that are not of single databases",
        &[], "", "T_TokenRevoked",
    ),
    route(
        "Platform API", DELETE, "/v2/auth/api-tokens/{token}",
        "Revoke all keys of this name that are not of single databases",
        &[], "", "T_TokenRevoked",
    ),
    route(
        "Platform API", GET, "/v1/auth/api-tokens/validate",
        "When the key or token of this request ends",
        &[], "", "T_Expiry",
    ),
    route(
        "Platform API", GET, "/v1/auth/validate",
        "The same",
        &[], "", "T_Expiry",
    ),
];
