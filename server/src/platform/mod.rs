//! The Platform API: what `@tursodatabase/api` and the `turso` CLI send and parse, over what is here.
//!
//! Their organisation is ours, and a database's place is its group. Success is 200 with a JSON body,
//! always. An error has `error` and `code`, as every problem here. What has no meaning on a server of one's
//! own (billing, members, several locations) is 404 with a sentence that says so.
//!
//! - A database is found only below its own organisation; but its name is unique in the whole server,
//!   because clients of SQL name no organisation.
//! - The group `default` is made when a database is first put into it.
//! - `rows_read` and `rows_written` are **pages** that statements have read and written: rows are not
//!   counted. `usage` has all that is counted under its own names too. With `from`, `to` or both it is of the hours
//!   (or days, if they are older than two) that this time touches, which `period` says; else of all.
//! - API tokens are keys of the machine, or of an organisation or group: `/v1/keys` shows them too.
//!
//! Pure: heads and bodies in, calls out (`route`, `inside`, `bodies`); replies in, JSON out (`answers`,
//! `forms`). `host` says where databases are reached.

mod answers;
mod bodies;
mod forms;
pub mod host;
mod inside;
mod route;
#[cfg(test)]
mod tests;

use tenant::{ControlReply, KeyRow, Refusal};

use crate::control::{self, AdminRequest, dumps};
use crate::problem::Problem;

pub(crate) use forms::rfc_3339;
pub use host::PublicHost;
pub(crate) use route::route;

/// A request in another tool's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is asked for.
    pub request: AdminRequest,
    /// The organisation in which the database must be that it is about.
    pub within: Option<Box<str>>,
    /// In which form it is answered.
    pub shape: Shape,
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// What is the same for everybody: the body.
    Fixed(&'static str),
    /// `{}`: it is done.
    Done,
    /// `{"organizations":[…]}`.
    Organisations {
        /// At most so many a page.
        limit: usize,
    },
    /// `{"organization":{…}}`, or under this other name.
    Organisation(&'static str),
    /// `{"groups":[…]}`.
    Groups {
        /// At most so many a page.
        limit: usize,
    },
    /// `{"group":{…}}`.
    Group,
    /// A group's settings.
    GroupConfiguration,
    /// `{"databases":[…],"pagination":{…}}`.
    Databases {
        /// At most so many a page.
        limit: usize,
    },
    /// The same, without any.
    NoDatabases,
    /// `{"database":{…}}`.
    Database,
    /// `{"database":{"DbId",…}}`.
    Created,
    /// `{"dump_url":…}`.
    Dump,
    /// `{"database":"name"}`.
    Dropped,
    /// A database's settings.
    Configuration,
    /// What a database has used.
    Usage,
    /// What an organisation's or group's databases have used together.
    Sum,
    /// `{"instances":[…]}`.
    Instances,
    /// `{"instance":{…}}`.
    Instance,
    /// `{"tokens":[…]}`.
    Tokens,
    /// `{"id","name","token"}`, or in an object `token` as the CLI reads it.
    Token {
        /// In an object.
        nested: bool,
    },
    /// `{"token":"name"}`.
    Revoked(Box<str>),
    /// `{"exp":…}` of a key.
    Expiry,
    /// The same, known already.
    ExpiryOf(u64),
    /// A token for a database or group.
    Jwt,
    /// `{}`: the copy is there. sqld's words for what went wrong.
    Forked,
    /// sqld's configuration of a database.
    SqldConfig,
    /// sqld's statistics of a database.
    SqldStats,
}

impl Shape {
    /// The answer to a call that succeeded.
    #[must_use]
    pub fn answer(&self, reply: &ControlReply, host: &PublicHost) -> Vec<u8> {
        answers::answer(self, reply, host).to_string().into_bytes()
    }

    /// The answer to a key that was made.
    #[must_use]
    pub fn created(&self, row: &KeyRow, secret: &str) -> Vec<u8> {
        answers::api_token(self, row, secret).to_string().into_bytes()
    }

    /// What a refusal of the engine is to a tool.
    #[must_use]
    pub fn problem(&self, refusal: &Refusal, name: &str) -> Problem {
        let is_sqld = matches!(self, Shape::Forked | Shape::SqldConfig | Shape::SqldStats);
        match refusal {
            Refusal::NotFound if dumps::is_dump(name) => dumps::missing(),
            Refusal::NotFound if !is_sqld => Problem::detailed(
                404,
                "DATABASE_NOT_FOUND",
                "no such database",
                format!("the organization has no database `{name}`"),
            ),
            Refusal::Exists if *self == Shape::Created => Problem::detailed(
                409,
                "DATABASE_EXISTS",
                "the database exists",
                format!(
                    "there is a database `{name}` already: names are unique in the whole server, \
                     not only in an organization; choose another"
                ),
            ),
            Refusal::Exists if !is_sqld => Problem::new(
                409,
                "NAME_TAKEN",
                "there is an organization or group of this name already; choose another",
            ),
            _ => control::problem(refusal, name),
        }
    }
}
