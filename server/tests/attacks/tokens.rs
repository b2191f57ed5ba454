//! Tokens and keys of attackers: `tokens.txt`, and keys that no server is to be given.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use server::bench::battery::{self, Case};

use super::forge::{self, SMALL_ORDER};
use super::ground::Ground;
use super::process::{IOS, Launch, Server, create_path, eventually, folder};

const FILE: &str = include_str!("tokens.txt");

/// Cases of the file at least.
const CASES_MIN: usize = 140;

const ROOT_KEY: &str = "a-root-key-for-the-attacks";

/// Open, not open, not there.
const NAMES: [&str; 3] = ["d", "cold", "nothing"];

const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;
const CLAIMS: &str = r#"{"p":{"rw":{"ns":["d","cold","nothing"]}},"jti":"~~~???"}"#;

/// What every refusal of a token says.
const REFUSAL: &str = "Unauthorized: a valid token or key for this is needed";

const ANSWER_MAX: Duration = Duration::from_secs(5);

/// `sql` or `admin`, and where that is.
type Door = (&'static str, SocketAddr);

fn signer(name: &str) -> SigningKey {
    let number = match name {
        "platform" => 1,
        "database" => 2,
        "other" => 3,
        _ => panic!("no key is called {name}"),
    };
    SigningKey::from_bytes(&[number; 32])
}

fn public(name: &str) -> [u8; 32] {
    signer(name).verifying_key().to_bytes()
}

/// Opaque keys, by their names in the file.
struct Keys(Vec<(&'static str, String)>);

#[test]
fn tokens_and_keys_of_attackers() {
    let cases = battery::cases(FILE);
    assert!(cases.len() >= CASES_MIN, "the file has {} cases", cases.len());
    for io in IOS {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), ROOT_KEY).expect("written");
        let path = file.path().display().to_string();
        let platform = URL_SAFE_NO_PAD.encode(public("platform"));
        let arguments = ["--auth", "on", "--root-key-file", &path, "--jwt-key", &platform];
        let mut ground = Ground::with_key(io, &arguments, Some(ROOT_KEY));
        let keys = prepare(&ground.server);
        for case in cases.iter().filter(|case| !Ground::skips(case.name)) {
            if let Err(what) = judge(&ground.server, case, &keys) {
                let (name, line) = (case.name, case.line);
                ground.fail(format!("{name} (line {line}): {what}"));
            }
            ground.check(case.name);
        }
        ground.finish(&format!("tokens, {io}"));
    }
}

fn prepare(server: &Server) -> Keys {
    let ask = |method: &str, path: &str, body: Value| -> Value {
        let mut admin = server.admin().with_token(ROOT_KEY);
        let answer = admin.call(method, path, body.to_string().as_bytes()).expect("answered");
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    };
    for name in ["d", "cold", "else"] {
        ask("POST", &create_path(name), json!({}));
    }
    let own = URL_SAFE_NO_PAD.encode(public("database"));
    ask("PUT", "/v1/namespaces/d/settings", json!({"jwt_keys": [own]}));
    let key = |scope: &str, expires: &str| {
        let body = json!({"scope": scope, "role": "write", "expires": expires});
        let made = ask("POST", "/v1/keys", body);
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        (text("key"), text("public"))
    };
    let (good, _) = key("database:d", "1h");
    let (revoked, revoked_public) = key("database:d", "1h");
    let (expired, _) = key("database:d", "1s");
    let (elsewhere, _) = key("database:else", "1h");
    let opens = |key: &str| status_of(&exchange(("sql", server.address), "d", &bearer(key))) == 200;
    assert!(opens(&good) && opens(&revoked));
    ask("DELETE", &format!("/v1/keys/{revoked_public}"), json!({}));
    eventually(10, "a key expires", || !opens(&expired));
    // Another secret behind the same public part, with the check that belongs to it.
    let mut guessed = good[..good.len() - 6].to_owned();
    let last = guessed.pop().expect("it is longer");
    guessed.push(if last == '0' { '1' } else { '0' });
    let check = base62(forge::crc32(guessed.as_bytes()));
    assert_eq!(base62(forge::crc32(&good.as_bytes()[..good.len() - 6])), good[good.len() - 6..]);
    guessed += &check;
    let root = ROOT_KEY.to_owned();
    Keys(vec![
        ("key", good),
        ("revoked", revoked),
        ("expired", expired),
        ("elsewhere", elsewhere),
        ("guessed", guessed),
        ("root", root),
    ])
}

fn base62(mut number: u32) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = [b'0'; 6];
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    String::from_utf8(text.to_vec()).expect("ASCII")
}

fn bearer(token: &str) -> Vec<u8> {
    format!("Authorization: Bearer {token}\r\n").into_bytes()
}

/// Send a case everywhere, and compare.
fn judge(server: &Server, case: &Case<'_>, keys: &Keys) -> Result<(), String> {
    let expected = case.setting("->").expect("a case has an answer");
    let (status, rest) = expected.split_once(' ').unwrap_or((expected, ""));
    let status: u16 = status.parse().expect("a status");
    let fields = fields(case, keys);
    if status == 200 {
        let answer = exchange(("sql", server.address), "d", &fields);
        return match status_of(&answer) {
            200 => Ok(()),
            other => Err(format!("{other}, not 200: {}", String::from_utf8_lossy(&answer))),
        };
    }
    let admin = (rest != "sql").then_some(("admin", server.admin));
    for door in [Some(("sql", server.address)), admin].into_iter().flatten() {
        let answers = NAMES.map(|name| exchange(door, name, &fields));
        let first = String::from_utf8_lossy(&answers[0]).into_owned();
        if status_of(&answers[0]) != status {
            return Err(format!("not {status} at {}: {first}", door.0));
        }
        if status == 401 && !first.contains(REFUSAL) {
            return Err(format!("in other words: {first}"));
        }
        for (name, answer) in NAMES.iter().zip(&answers) {
            if *answer != answers[0] {
                let told = String::from_utf8_lossy(answer);
                return Err(format!("{name} is told\n{told}\nand d\n{first}"));
            }
        }
    }
    Ok(())
}

/// The lines of the head that say who asks.
fn fields(case: &Case<'_>, keys: &Keys) -> Vec<u8> {
    let part = |word: &str, otherwise: &str| -> Vec<u8> {
        let line = case.lines.iter().find_map(|line| line.strip_prefix(word));
        let text = line.map_or(otherwise, |rest| rest.strip_prefix(' ').unwrap_or(""));
        battery::bytes(&with_times(text))
    };
    let header = URL_SAFE_NO_PAD.encode(part("header", HEADER));
    let claims = URL_SAFE_NO_PAD.encode(part("claims", CLAIMS));
    let signed = format!("{header}.{claims}");
    let signature = signature(case.setting("sign").unwrap_or("platform"), signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(signature);
    let token = format!("{signed}.{signature}");
    let standard = token.replace('-', "+").replace('_', "/");
    let differs = standard != token;
    assert!(differs || case.setting("text") != Some("{standard}"), "the alphabets differ");
    let mut known = vec![
        ("header", header),
        ("claims", claims),
        ("signature", signature),
        ("standard", standard),
        ("token", token.clone()),
    ];
    known.extend(keys.0.iter().cloned());
    let text = case.setting("text").map_or(token, |text| filled(text, &known));
    let mut lines: Vec<String> = Vec::new();
    for line in case.lines.iter().filter_map(|line| line.strip_prefix("send ")) {
        lines.push(filled(line, &known));
    }
    if lines.is_empty() {
        lines.push(format!("Authorization: Bearer {text}"));
    }
    lines.iter().flat_map(|line| [battery::bytes(line), b"\r\n".to_vec()].concat()).collect()
}

/// `{name}`, `{name:20}` the first so many letters, `{name:-1}` all but the last so many, `{name:upper}`.
fn filled(text: &str, known: &[(&str, String)]) -> String {
    let mut text = text.to_owned();
    for (name, value) in known {
        let start = format!("{{{name}");
        while let Some(at) = text.find(&format!("{start}}}")).or(text.find(&format!("{start}:"))) {
            let end = at + text[at..].find('}').expect("it ends");
            let how = text[at + start.len()..end].trim_start_matches(':');
            let value = match (how, how.parse::<i64>()) {
                ("", _) => value.clone(),
                ("upper", _) => value.to_ascii_uppercase(),
                ("lower", _) => value.to_ascii_lowercase(),
                (_, Ok(count)) if count >= 0 => value[..count as usize].to_owned(),
                (_, Ok(count)) => value[..value.len() - count.unsigned_abs() as usize].to_owned(),
                (_, Err(_)) => panic!("no such part: {how}"),
            };
            text.replace_range(at..=end, &value);
        }
    }
    text
}

/// `{now+30}` as a number.
fn with_times(text: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let mut text = text.to_owned();
    while let Some(at) = text.find("{now") {
        let end = at + text[at..].find('}').expect("it ends");
        let offset: i64 = text[at + 4..end].parse().expect("seconds");
        text.replace_range(at..=end, &(now.as_secs() as i64 + offset).to_string());
    }
    text
}

fn signature(how: &str, text: &[u8]) -> Vec<u8> {
    let key = signer("platform");
    match how.split_once(' ').unwrap_or((how, "")) {
        ("empty", _) => Vec::new(),
        ("bytes", bytes) => battery::bytes(bytes),
        ("malleated", _) => forge::malleated(&key, text),
        ("neutral", _) => forge::neutral(&key, text),
        ("hmac", form) => {
            let public = public("platform");
            let secret = match form {
                "raw" => public.to_vec(),
                "base64" => URL_SAFE_NO_PAD.encode(public).into_bytes(),
                "pem" => server::auth::jwt::write_public_keys(&[public]).into_bytes(),
                "empty" => Vec::new(),
                _ => panic!("no such form of a secret: {form}"),
            };
            forge::hmac(&secret, text)
        }
        (name, _) => signer(name).sign(text).to_bytes().to_vec(),
    }
}

/// One request on a connection of its own; all that comes back until the server ends it.
fn exchange((door, address): Door, name: &str, fields: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(ANSWER_MAX)).expect("a socket");
    let (line, body) = match door {
        // No stream stays open.
        "sql" => (format!("POST /db/{name}/v2/pipeline"), r#"{"requests":[{"type":"close"}]}"#),
        _ => (format!("GET /v1/namespaces/{name}"), ""),
    };
    let length = body.len();
    let head =
        format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n");
    // Whoever refuses a head need not read the rest.
    let _ = stream.write_all(&[head.as_bytes(), fields, b"\r\n", body.as_bytes()].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn status_of(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let digits = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Whoever has a key of small order has a signature for every text: no server takes one.
#[test]
fn keys_that_sign_anything_are_refused() {
    let data = folder();
    let file = data.path().join("root.key");
    std::fs::write(&file, ROOT_KEY).expect("written");
    let file = file.to_str().expect("a temporary folder's name is text");
    let launch = Launch::on(data.path()).with(&["--auth", "on", "--root-key-file", file]);
    let server = launch.start();
    let mut admin = server.admin().with_token(ROOT_KEY);
    let created = admin.post(&create_path("d"), &json!({})).expect("answered");
    assert_eq!(created.status, 200, "{}", created.text());
    let texts: Vec<String> =
        SMALL_ORDER.iter().map(|digits| URL_SAFE_NO_PAD.encode(hex(digits))).collect();
    for text in &texts {
        let body = json!({ "jwt_keys": [text] }).to_string();
        let set = admin.call("PUT", "/v1/namespaces/d/settings", body.as_bytes());
        let set = set.expect("answered");
        assert_eq!(set.status, 400, "{text}: {}", set.text());
    }
    server.stop();
    for text in &texts[..3] {
        let ended = launch.clone().with(&["--jwt-key", text]).ended();
        assert!(!ended.status.success() && ended.stderr.contains("--jwt-key"), "{}", ended.stderr);
    }
}

fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
}
