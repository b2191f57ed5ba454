//! Dumps that are sent before the database is made that begins with them, as the `turso` CLI does.
//!
//! ```text
//! POST /v1/organizations/{o}/databases/dumps   a form with `file`, or SQL text   200 {"dump_url":…}
//! …/create  {"seed":{"type":"dump","url":…}}, or sqld's {"dump_url":…}           200 the database
//! ```
//!
//! A dump is run when it comes, as an upload of SQL text is: what is wrong with it is said then, by its
//! line. What it makes is a database of its organisation, in none of its groups, and with a name that no
//! request can say ([`PREFIX`]); it can be read by nobody and written by nobody. A create copies it, and it
//! is dropped when that is done; one that nobody wants ends by itself (`limits::DUMP_TTL_S`), whatever
//! happens to the server meanwhile.
//!
//! `dump_url` names it and is nothing that could be fetched. Addresses elsewhere never are: a server that
//! fetched what it is told to would reach whatever it can reach, for anybody.

use storage::io::Entropy;
use tenant::life::{LifeChange, Part};
use tenant::settings::SettingsChange;
use tenant::{Change, ControlCall, ImportFormat, NodePath, PRIVATE_NAME};

use super::uploads;
use crate::http::{Head, Method, Multipart, TenantName};
use crate::limits;
use crate::platform::Shape;
use crate::problem::Problem;

/// Begins the name of a dump's database; behind it stand 32 digits of chance.
const PREFIX: &str = "dump:";

/// Begins a dump's address; behind it stand the same digits.
const ADDRESS: &str = "myriad:dumps/";

/// Digits that tell one from another: 128 bits, so that nobody meets another one's by guessing.
const DIGITS: usize = 32;

const _: () = assert!(PREFIX.as_bytes()[PREFIX.len() - 1] == PRIVATE_NAME as u8);

/// An upload that begins.
pub struct Begun {
    /// What it asks for.
    pub call: ControlCall,
    /// The form of the answer, if it is another tool's.
    pub shape: Option<Shape>,
    /// The form that its body is, if it is one.
    pub form: Option<Multipart>,
}

/// The organisation for which a request sends a dump, if it is one.
fn organisation<'a>(head: &Head<'a>) -> Option<&'a str> {
    let mut segments = head.path().split('/').filter(|part| !part.is_empty());
    let (first, second) = (segments.next()?, segments.next()?);
    let organisation = segments.next()?;
    let rest = [segments.next(), segments.next(), segments.next()];
    let is_dump = (first, second) == ("v1", "organizations")
        && rest == [Some("databases"), Some("dumps"), None]
        && head.method() == Method::Post;
    is_dump.then_some(organisation)
}

/// Whether a request on the admin address brings a body that is not held.
#[must_use]
pub fn is_streamed(head: &Head<'_>) -> bool {
    uploads::is_upload(head) || organisation(head).is_some()
}

/// What a request asks for whose body is not held.
///
/// # Errors
/// As [`uploads::route`]; 400 for a form without a boundary.
pub fn begin(head: &Head<'_>, entropy: &mut impl Entropy) -> Result<Begun, Problem> {
    let form = Multipart::of(head.content_type().unwrap_or(""))?;
    let Some(organisation) = organisation(head) else {
        if form.is_some() {
            return Err(uploads::wrong_type());
        }
        return Ok(Begun { call: uploads::route(head)?, shape: None, form });
    };
    if form.is_none() && uploads::says_file(head)? {
        return Err(uploads::wrong_type());
    }
    let mut chance = [0; DIGITS / 2];
    entropy.fill(&mut chance);
    let call = call(organisation, &chance)?;
    Ok(Begun { call, shape: Some(Shape::Dump), form })
}

/// The call that keeps a dump for an organisation.
///
/// # Errors
/// 400 for a name that none can have.
pub(crate) fn call(organisation: &str, chance: &[u8; DIGITS / 2]) -> Result<ControlCall, Problem> {
    let digits: String = chance.iter().map(|byte| format!("{byte:02x}")).collect();
    let organisation = TenantName::new(organisation)?.as_str().into();
    let mut life = LifeChange::default();
    // Whatever the organisation says of its databases.
    for part in [Part::IdleTtl, Part::MaxSpend, Part::MaxStatements, Part::OnEnd] {
        life.set(part, Some(0));
    }
    life.set(Part::Ttl, Some(limits::DUMP_TTL_S));
    let settings = SettingsChange { life, ..SettingsChange::default() };
    let change = Change {
        group: Some(Some(NodePath { organisation, group: None })),
        settings: Some(Box::new(settings)),
        ..Change::default()
    };
    Ok(ControlCall::Import { name: format!("{PREFIX}{digits}"), change, format: ImportFormat::Sql })
}

/// The address of the dump that is kept under this name.
#[must_use]
pub fn address(name: &str) -> String {
    format!("{ADDRESS}{}", name.strip_prefix(PREFIX).unwrap_or(name))
}

/// The name under which the dump at this address is kept.
///
/// # Errors
/// 400 for every other address.
pub(super) fn at(address: &str) -> Result<String, Problem> {
    let digits = address.strip_prefix(ADDRESS).filter(|digits| {
        digits.len() == DIGITS
            && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    let digits = digits.ok_or_else(|| {
        Problem::detailed(
            400,
            "DUMP_URL_ELSEWHERE",
            "a dump is to be fetched from elsewhere",
            "nothing is fetched from elsewhere: send the dump to POST \
             /v1/organizations/{organization}/databases/dumps and give the dump_url of its answer, or make \
             the database of it by POST /v1/namespaces/{name}/upload",
        )
    })?;
    Ok(format!("{PREFIX}{digits}"))
}

/// Whether this is the name of a dump.
#[must_use]
pub fn is_dump(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The dump that a call has made a database of.
#[must_use]
pub fn used_by(call: &ControlCall) -> Option<&str> {
    match call {
        ControlCall::Within(_, call) => used_by(call),
        ControlCall::Fork { from, .. } => Some(from.as_str()).filter(|name| is_dump(name)),
        _ => None,
    }
}

/// A dump that is not there, or not for who asks.
#[must_use]
pub fn missing() -> Problem {
    Problem::new(
        404,
        "DUMP_NOT_FOUND",
        "there is no dump at this dump_url: it is its organization's alone, for one database and for an \
         hour; send it again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_an_address_and_nothing_else_has() {
        let Ok(ControlCall::Import { name, change, .. }) = call("Acme", &[0xa5; 16]) else {
            panic!("it is an import")
        };
        assert_eq!(name, format!("dump:{}", "a5".repeat(16)));
        assert!(TenantName::new(&name).is_err(), "no request can say it");
        assert_eq!(at(&address(&name)).as_deref(), Ok(name.as_str()));
        let path = change.group.flatten().expect("a place");
        assert_eq!((&*path.organisation, path.group), ("acme", None));
        let digits = "a5".repeat(16);
        for other in [
            "http://169.254.169.254/latest".to_owned(),
            "file:///etc/passwd".to_owned(),
            format!("https://example.com/{ADDRESS}{digits}"),
            format!("{ADDRESS}{}", digits.to_uppercase()),
            format!("{ADDRESS}{digits}0"),
            format!("{ADDRESS}../{digits}"),
            String::new(),
        ] {
            let problem = at(&other).expect_err(&other);
            assert_eq!((problem.status, problem.code), (400, "DUMP_URL_ELSEWHERE"), "{other}");
        }
        assert!(call("no name", &[0; 16]).is_err());
    }
}
