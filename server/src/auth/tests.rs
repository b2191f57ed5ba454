//! What requests claim.

use storage::TenantId;
use tenant::DatabaseRow;
use tenant::settings::Settings;

use super::jwt::tests::token;
use super::key::tests::Fixed;
use super::*;

const HEADER: &str = r#"{"alg":"EdDSA"}"#;
const ROOT: &str = "a root key that nobody guesses";

fn when(now_s: u64) -> When {
    When { now: Instant(now_s * 1_000_000_000), now_s }
}

/// The public half of the key that `token` signs with.
fn public(number: u8) -> PublicKey {
    SigningKey::from_bytes(&[number; 32]).verifying_key().to_bytes()
}

fn authenticator() -> Authenticator {
    Authenticator::new(&AuthOptions {
        required: true,
        root: Some(*blake3::hash(ROOT.as_bytes()).as_bytes()),
        platform_keys: vec![public(1)],
        ..AuthOptions::default()
    })
}

fn access_of(claimed: Option<Claimed>) -> Option<(Role, Scope)> {
    match claimed?.credential {
        Credential::Access(access) => Some((access.role, access.scope)),
        _ => None,
    }
}

#[test]
fn schemes_and_places() {
    let mut auth = authenticator();
    let shop = Place::Database("shop");
    let mut check =
        |authorization: Option<&str>, place| access_of(auth.judge(authorization, place, when(100)));
    let all = Some((Role::Admin, Scope::Machine));
    for (text, place, expected) in [
        (format!("Bearer {ROOT}"), shop, all),
        (format!("bEaReR {ROOT}"), Place::Control, all),
        (format!("Basic {ROOT}"), Place::Control, all),
        (format!("basic {ROOT}"), shop, None),
        (ROOT.to_owned(), shop, None),
        (format!("Bearer {ROOT}x"), shop, None),
        (format!("Bearer {}", &ROOT[1..]), shop, None),
        (format!("Token {ROOT}"), shop, None),
        ("Bearer ".into(), shop, None),
        ("Bearer".into(), shop, None),
        ("Bearer None".into(), shop, None),
        (String::new(), shop, None),
    ] {
        assert_eq!(check(Some(&text), place), expected, "{text}");
    }
    assert_eq!(check(None, shop), None);
    let name = |name| Scope::Name(Name::new(name).unwrap());
    for (payload, on_shop, on_control) in [
        ("{}", None, all),
        (r#"{"a":"ro"}"#, None, Some((Role::Read, Scope::Machine))),
        (r#"{"id":"shop"}"#, Some((Role::Write, name("shop"))), Some((Role::Write, name("shop")))),
        (r#"{"id":"shops"}"#, None, Some((Role::Write, name("shops")))),
        (r#"{"p":{"ro":{"ns":["a","shop"]}}}"#, Some((Role::Read, name("shop"))), None),
        (r#"{"p":{}}"#, None, None),
        (r#"{"id":"shop","exp":70}"#, None, None),
        (r#"{"id":"shop","nbf":131}"#, None, None),
    ] {
        let text = format!("Bearer {}", token(1, HEADER, payload));
        assert_eq!(check(Some(&text), shop), on_shop, "{payload}");
        assert_eq!(check(Some(&text), Place::Control), on_control, "{payload}");
    }
}

#[test]
fn nobody_is_asked_where_nobody_need_be() {
    let auth = Authenticator::new(&AuthOptions::default());
    assert!(!auth.is_required() && !auth.has_operator());
}

#[test]
fn what_was_found_good_is_good_for_a_minute_and_not_longer_than_it_says() {
    let mut auth = authenticator();
    let shop = Place::Database("shop");
    let text = format!("Bearer {}", token(1, HEADER, r#"{"id":"shop","exp":110}"#));
    for (now_s, good) in [(100, true), (120, true), (139, true), (140, false), (200, false)] {
        assert_eq!(auth.judge(Some(&text), shop, when(now_s)).is_some(), good, "{now_s}");
    }
    assert_eq!(auth.proofs(), 1);
    let bad = format!("Bearer {}", token(1, HEADER, r#"{"id":7}"#));
    assert!(access_of(auth.judge(Some(&bad), shop, when(100))).is_none());
    assert_eq!(auth.proofs(), 1, "what is not good is not kept");
    for number in 0..limits::PROOFS_MAX + 10 {
        let key = key::make(&mut Fixed((number % 251) as u8));
        let text = format!("Bearer {}", key.text);
        assert!(auth.judge(Some(&text), shop, when(100)).is_some());
    }
    assert!(auth.proofs() <= limits::PROOFS_MAX);
}

#[test]
fn keys_are_handed_on_by_their_hash() {
    let mut auth = authenticator();
    let made = key::make(&mut Fixed(5));
    let text = format!("Bearer {}", made.text);
    for _ in 0..2 {
        let claimed = auth.judge(Some(&text), Place::Control, when(7)).expect("it is one");
        let Credential::Key(proof) = claimed.credential else { panic!("it is a key") };
        assert!(proof.public == made.shown.public && proof.hash == made.shown.hash);
        assert_eq!(proof.now_s, 7);
        assert!(claimed.principal.is_some());
    }
    let typo = format!("{text}0");
    assert!(auth.judge(Some(&typo), Place::Control, when(7)).is_none());
}

#[test]
fn keys_of_a_database_are_believed_for_it_alone() {
    let mut auth = authenticator();
    let mut foreign = |payload: &str, name: &str| {
        let text = format!("Bearer {}", token(2, HEADER, payload));
        let claimed = auth.judge(Some(&text), Place::Database(name), when(100));
        claimed.expect("its form is good").foreign.expect("nobody knows its key")
    };
    let holder = Scope::Database(TenantId(7));
    let role = |foreign: &Foreign, keys: &[PublicKey]| {
        let proven = foreign.prove(holder, keys)?;
        assert_eq!(proven.access.scope, holder);
        Some(proven.access.role)
    };
    let keys = [public(3), public(2)];
    assert_eq!(role(&foreign("{}", "shop"), &keys), Some(Role::Write));
    assert_eq!(role(&foreign(r#"{"a":"ro"}"#, "shop"), &keys), Some(Role::Read));
    assert_eq!(role(&foreign(r#"{"id":"shop"}"#, "shop"), &keys), Some(Role::Write));
    assert_eq!(role(&foreign(r#"{"id":"bank"}"#, "shop"), &keys), None);
    assert_eq!(role(&foreign(r#"{"p":{"ro":{"ns":["bank"]}}}"#, "shop"), &keys), None);
    assert_eq!(role(&foreign(r#"{"exp":50}"#, "shop"), &keys), None);
    assert_eq!(role(&foreign(r#"{"database_id":7}"#, "shop"), &keys), None);
    assert_eq!(role(&foreign("{}", "shop"), &[public(3)]), None);
    assert_eq!(role(&foreign("{}", "shop"), &[]), None);
    let text = format!("Bearer {}", token(2, HEADER, "{}"));
    assert!(auth.judge(Some(&text), Place::Control, when(100)).is_none());
}

#[test]
fn minted_tokens_are_current_after_a_rotation_in_the_same_second() {
    let mut auth = authenticator();
    let mut row = DatabaseRow::new(TenantId(7), "shop", 0);
    let signing = |row: &DatabaseRow| Signing {
        secret: Secret([9; 32]),
        row: Some(Box::new(row.clone())),
        path: Vec::new(),
    };
    let enters = |auth: &mut Authenticator, token: &str, row: &DatabaseRow| {
        let text = format!("Bearer {token}");
        let claimed = auth.judge(Some(&text), Place::Database("shop"), when(100)).unwrap();
        let Credential::Access(access) = claimed.credential else { panic!("it is a token") };
        assert_eq!((access.role, access.scope), (Role::Read, Scope::Database(TenantId(7))));
        access.enter(row).is_ok()
    };
    let before = auth.mint(&signing(&row), Role::Read, Some(60), 100);
    assert!(enters(&mut auth, &before, &row));
    row.set_settings(Settings { tokens_after_s: 101, ..Settings::default() });
    assert!(!enters(&mut auth, &before, &row));
    let after = auth.mint(&signing(&row), Role::Read, None, 100);
    assert!(enters(&mut auth, &after, &row));
    assert_ne!(before, after);
}
