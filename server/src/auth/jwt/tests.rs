//! Tokens, good and forged.

use super::*;

const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;
const NOW_S: u64 = 1_790_000_000;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// A token of anything, signed by a key of this number.
pub(crate) fn token(number: u8, header: &str, payload: &str) -> String {
    sign_raw(&key(number), header, payload)
}

fn read(text: &str) -> Option<Claims> {
    verify(text, [&key(1).verifying_key(), &key(2).verifying_key()], false)
}

fn of(payload: &str) -> Option<Claims> {
    read(&token(1, HEADER, payload))
}

fn names(of: &[(&str, Role)]) -> Option<Grant> {
    Some(Grant::Names(of.iter().map(|&(n, role)| (Name::new(n).unwrap(), role)).collect()))
}

#[test]
fn grants_of_sqld() {
    use Role::{Read, Write};
    for (payload, grant) in [
        ("{}", Some(Grant::All(Write))),
        (r#"{"a":"rw"}"#, Some(Grant::All(Write))),
        (r#"{"a":"ro"}"#, Some(Grant::All(Read))),
        (r#"{"a":"roa","id":"shop"}"#, names(&[("shop", Read)])),
        (r#"{"id":"shop","sub":"alice","iss":"us","jti":"7"}"#, names(&[("shop", Write)])),
        (r#"{"a":"admin"}"#, None),
        (r#"{"a":null}"#, None),
        (r#"{"a":["rw"]}"#, None),
        (r#"{"id":7}"#, None),
        (r#"{"id":""}"#, None),
        (r#"{"p":{}}"#, names(&[])),
        (r#"{"p":{},"id":"shop","a":"rw"}"#, names(&[])),
        (
            r#"{"p":{"rw":{"ns":["a","b"]},"ro":{"ns":["b","c"]}}}"#,
            names(&[("a", Write), ("b", Write), ("c", Read)]),
        ),
        (r#"{"p":{"ro":{"ns":["b"]},"ddl":{"ns":["b"]}}}"#, names(&[("b", Write)])),
        (r#"{"p":{"rw":{"tags":["group"]}}}"#, names(&[])),
        (r#"{"p":{"rwx":{"ns":["a"]}}}"#, names(&[])),
        (r#"{"p":{"rw":{"ns":["a"],"tables":["t"]}}}"#, names(&[])),
        (r#"{"p":{"rw":{"ns":"a"}}}"#, None),
        (r#"{"p":{"rw":["a"]}}"#, None),
        (r#"{"p":[]}"#, None),
        (r#"{"p":null}"#, None),
        // Only the server says these.
        (r#"{"database_id":7}"#, None),
        (r#"{"node_id":7,"a":"rw"}"#, None),
        // Narrower than can be enforced.
        (r#"{"id":"shop","aud":"others"}"#, None),
        (r#"{"id":"shop","t":["orders"]}"#, None),
        ("[]", None),
        ("null", None),
        ("", None),
        (r#"{"id":"shop"} {}"#, None),
        // A member twice, at any depth.
        (r#"{"id":"shop","id":"other"}"#, None),
        (r#"{"a":"ro","a":"rw"}"#, None),
        (r#"{"id":"shop","\u0069d":"other"}"#, None),
        (r#"{"p":{"rw":{"ns":["a"],"ns":["b"]}}}"#, None),
    ] {
        assert_eq!(of(payload).map(|claims| claims.grant), grant, "{payload}");
    }
}

#[test]
fn times_are_whole_numbers_or_the_token_is_none() {
    for name in ["exp", "nbf", "iat"] {
        for (value, good) in [
            ("1", true),
            ("0", true),
            ("1.0", true),
            ("1e3", true),
            ("9007199254740991", true),
            ("9007199254740992", false),
            ("1e300", false),
            ("1.5", false),
            ("-1", false),
            ("-0.5", false),
            ("\"1\"", false),
            ("null", false),
            ("true", false),
            ("[1]", false),
            ("{}", false),
            ("18446744073709551616", false),
            ("NaN", false),
        ] {
            let payload = format!("{{\"id\":\"shop\",\"{name}\":{value}}}");
            assert_eq!(of(&payload).is_some(), good, "{payload}");
        }
    }
}

#[test]
fn tokens_are_good_for_their_time() {
    let check = |payload: String, good: bool| {
        let claims = of(&payload).expect("it can be read");
        assert_eq!(claims.is_current(NOW_S), good, "{payload}");
    };
    check("{}".into(), true);
    for (offset_s, good) in [(-31_i64, false), (-30, false), (-29, true), (0, true), (60, true)] {
        check(format!("{{\"exp\":{}}}", NOW_S as i64 + offset_s), good);
    }
    for name in ["nbf", "iat"] {
        for (offset_s, good) in [(-60_i64, true), (0, true), (30, true), (31, false)] {
            check(format!("{{\"{name}\":{}}}", NOW_S as i64 + offset_s), good);
        }
    }
}

#[test]
fn headers_do_not_decide_how_they_are_verified() {
    let payload = r#"{"id":"shop"}"#;
    for (header, good) in [
        (HEADER, true),
        (r#"{"alg":"EdDSA"}"#, true),
        (r#"{"typ":"jwt","alg":"EdDSA","kid":"anything","cty":"x"}"#, true),
        (r#"{"alg":"none"}"#, false),
        (r#"{"alg":"None"}"#, false),
        (r#"{"alg":"HS256"}"#, false),
        (r#"{"alg":"RS256"}"#, false),
        (r#"{"alg":"ES256"}"#, false),
        (r#"{"alg":"eddsa"}"#, false),
        (r#"{"alg":"Ed25519"}"#, false),
        (r#"{"alg":["EdDSA"]}"#, false),
        (r#"{"alg":null}"#, false),
        (r#"{"typ":"JWT"}"#, false),
        (r#"{"alg":"none","alg":"EdDSA"}"#, false),
        (r#"{"alg":"EdDSA","alg":"none"}"#, false),
        (r#"{"alg":"EdDSA","typ":"at+jwt"}"#, false),
        (r#"{"alg":"EdDSA","typ":7}"#, false),
        (r#"{"alg":"EdDSA","kid":7}"#, false),
        (r#"{"alg":"EdDSA","kid":{"$ne":""}}"#, false),
        (r#"{"alg":"EdDSA","crit":["exp"]}"#, false),
        (r#"{"alg":"EdDSA","crit":[]}"#, false),
        (r#"{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"AA"}}"#, false),
        (r#"{"alg":"EdDSA","jku":"https://evil.example/keys"}"#, false),
        (r#"{"alg":"EdDSA","x5u":"https://evil.example/cert"}"#, false),
        (r#"{"alg":"EdDSA","x5c":["AA"]}"#, false),
        (r#"{"alg":"EdDSA","b64":false}"#, false),
        (r#"{"alg":"EdDSA","zip":"DEF"}"#, false),
        ("[]", false),
        ("", false),
        ("EdDSA", false),
    ] {
        assert_eq!(read(&token(1, header, payload)).is_some(), good, "{header}");
    }
}

#[test]
fn signatures_are_verified_over_the_bytes_that_came() {
    let payload = r#"{"id":"shop"}"#;
    let good = token(2, HEADER, payload);
    assert!(read(&good).is_some(), "any key of the place will do");
    assert!(read(&token(3, HEADER, payload)).is_none(), "another's key");
    let parts: Vec<&str> = good.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(r#"{"id":"bank"}"#);
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    // HMAC with the public key as its secret: what HS256 would make of the key.
    let public = key(1).verifying_key();
    let mac = URL_SAFE_NO_PAD.encode(blake3::keyed_hash(public.as_bytes(), b"x").as_bytes());
    let hs256 = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    for forged in [
        format!("{header}.{other}.{signature}"),
        format!("{header}.{claims}."),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{hs256}.{claims}.{mac}"),
        format!("{header}.{claims}.{mac}"),
        format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
        format!("{header}.{claims}.{}", &signature[..80]),
        format!("{header}.{claims}.{signature}AA"),
        format!("{header}.{claims}.{signature}=="),
        format!("{header}.{claims}.{signature}."),
        format!(".{header}.{claims}.{signature}"),
        format!("{header}.{claims}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header} .{claims}.{signature}"),
        format!("{header}.{claims}.{signature}\n"),
        good.replace('-', "+").replace('_', "/") + "+",
        "..".into(),
        String::new(),
    ] {
        assert!(read(&forged).is_none(), "{forged}");
    }
    for index in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(read(&changed).is_none(), "{changed}");
    }
}

#[test]
fn one_signature_has_one_text() {
    // 64 bytes are 86 digits with four bits left over: they must be 0.
    let good = token(1, HEADER, "{}");
    let last = good.as_bytes()[good.len() - 1];
    for digit in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
        let changed = format!("{}{}", &good[..good.len() - 1], char::from(*digit));
        assert_eq!(read(&changed).is_some(), *digit == last, "{changed}");
    }
}

#[test]
fn large_tokens_and_long_lists_are_refused() {
    let padding = "x".repeat(TOKEN_BYTES_MAX);
    assert!(of(&format!("{{\"sub\":\"{padding}\"}}")).is_none());
    let names = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("\"n{number}\"")).collect();
        format!("{{\"p\":{{\"rw\":{{\"ns\":[{}]}}}}}}", names.join(","))
    };
    assert!(of(&names(CLAIMED_NAMES_MAX)).is_some());
    assert!(of(&names(CLAIMED_NAMES_MAX + 1)).is_none());
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(900), "]".repeat(900));
    assert!(of(&deep).is_none());
}

#[test]
fn own_tokens_are_believed_only_of_the_own_key() {
    let issue = Issue {
        scope: Scope::Database(TenantId(7)),
        role: Role::Read,
        issued_s: NOW_S,
        expires_s: Some(NOW_S + 60),
    };
    let token_text = sign(&key(9), &issue);
    let own = |text: &str| verify(text, [&key(9).verifying_key()], true);
    let claims = own(&token_text).expect("it is ours");
    assert_eq!(claims.grant, Grant::Own(Scope::Database(TenantId(7)), Role::Read));
    assert!(claims.is_current(NOW_S + 60) && !claims.is_current(NOW_S + 90));
    assert_eq!(claims.issued_s, NOW_S);
    assert!(verify(&token_text, [&key(9).verifying_key()], false).is_none());
    assert!(own(&token(9, HEADER, "{}")).is_none());
    assert!(own(&token(9, HEADER, r#"{"id":"shop"}"#)).is_none());
    assert!(own(&token(9, HEADER, r#"{"database_id":1,"node_id":2}"#)).is_none());
    let node = Issue { scope: Scope::Node(NodeId(3)), expires_s: None, ..issue };
    let claims = own(&sign(&key(9), &node)).expect("it is ours");
    assert_eq!(claims.expires_s, u64::MAX);
}

#[test]
fn public_keys_in_both_forms() {
    let bytes = key(1).verifying_key().to_bytes();
    let pem = |bytes: &[u8; 32]| {
        let mut der = vec![0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        der.extend_from_slice(bytes);
        let digits = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{digits}\n-----END PUBLIC KEY-----\n")
    };
    let other = key(2).verifying_key().to_bytes();
    let two = format!("{}{}", pem(&bytes), pem(&other));
    assert_eq!(read_public_keys(&two), Ok(vec![bytes, other]));
    let plain = URL_SAFE_NO_PAD.encode(bytes);
    assert_eq!(read_public_keys(&format!(" {plain}\n")), Ok(vec![bytes]));
    // The neutral point: its signature of zeros fits every text.
    let mut weak = [0; 32];
    weak[0] = 1;
    for bad in [
        String::new(),
        "no key".into(),
        URL_SAFE_NO_PAD.encode([1; 31]),
        URL_SAFE_NO_PAD.encode(weak),
        pem(&weak),
        "-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----".into(),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".into(),
        "-----BEGIN PUBLIC KEY-----\nAAAA".into(),
    ] {
        assert!(read_public_keys(&bad).is_err(), "{bad}");
    }
}
