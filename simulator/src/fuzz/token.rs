//! JSON Web Tokens: an attacker who has some good tokens and any number of tries.
//!
//! An input is the text of a token, or `!` and then a header and a payload, a line each, that the owner of
//! the key signs: so what the server reads behind a good signature is reached, too.

use serde_json::{Map, Value};
use server::auth::probe;

use super::{Random, Seen, Target};

/// The keys of the place, and one that is not.
const SECRETS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

/// From here on readers of JSON disagree about whole numbers.
const NATURAL_END: f64 = 9_007_199_254_740_992.0;

const WORDS: &[&str] = &[
    "!",
    "\n",
    ".",
    "eyJhbGciOiJFZERTQSJ9",
    "eyJhbGciOiJub25lIn0",
    "eyJhbGciOiJIUzI1NiJ9",
    "e30",
    "=",
    "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}",
    "{\"alg\":\"none\"}",
    "\"alg\":\"HS256\"",
    "\"kid\":\"1\"",
    "\"crit\":[]",
    "\"jwk\":{}",
    "\"b64\":false",
    "\"zip\":\"DEF\"",
    "\"exp\":1",
    "\"exp\":1e3",
    "\"exp\":-1",
    "\"exp\":\"1\"",
    "\"exp\":null",
    "\"nbf\":1.5",
    "\"iat\":0.0",
    "\"id\":\"a\"",
    "\"a\":\"ro\"",
    "\"a\":\"rw\"",
    "\"p\":{\"rw\":{\"ns\":[\"a\"]}}",
    "\"ro\":{\"ns\":[\"b\"]}",
    "\"aud\":\"x\"",
    "\"database_id\":7",
    "\"node_id\":7",
    "\\u0061",
    ",",
];

/// See the head of the file.
pub struct Tokens {
    keys: [[u8; 32]; 2],
    /// Good ones, which anybody may have.
    issued: Vec<String>,
}

impl Tokens {
    /// With a few tokens issued.
    pub fn new() -> Tokens {
        let keys = [probe::public_key(&SECRETS[0]), probe::public_key(&SECRETS[1])];
        let payloads = ["{}", "{\"id\":\"a\",\"a\":\"ro\",\"exp\":1790000000}", "{\"p\":{}}"];
        let header = "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}";
        let signed = payloads.iter().flat_map(|payload| {
            SECRETS[..2].iter().map(|secret| probe::sign(secret, header, payload))
        });
        Tokens { keys, issued: signed.collect() }
    }
}

impl Target for Tokens {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        if random.one_in(3) {
            return self.issued[random.index(self.issued.len())].clone().into_bytes();
        }
        let member = |random: &mut Random| random.pick(&WORDS[16..31]);
        let members: Vec<&str> = (0..random.size(2)).map(|_| member(random)).collect();
        let header = random.pick(&[
            "{\"alg\":\"EdDSA\"}",
            "{\"alg\":\"EdDSA\",\"typ\":\"jwt\",\"kid\":\"x\"}",
            "{\"typ\":\"JWT\",\"alg\":\"EdDSA\",\"crit\":[\"exp\"]}",
            "{\"alg\":\"EdDSA\",\"alg\":\"none\"}",
        ]);
        format!("!{header}\n{{{}}}", members.join(",")).into_bytes()
    }

    fn words(&self) -> &'static [&'static str] {
        WORDS
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
        match text.strip_prefix('!') {
            Some(text) => {
                let (header, payload) = text.split_once('\n').unwrap_or((text, ""));
                self.signed(header, payload, seen)
            }
            None => self.forged(text, seen),
        }
    }
}

impl Tokens {
    /// Nothing verifies that was not issued to the letter.
    fn forged(&self, token: &str, seen: &mut Seen) -> Result<(), String> {
        let is_issued = self.issued.iter().any(|issued| issued == token);
        let parts: Vec<&str> = token.split('.').collect();
        seen.note(&format!("{} parts, {is_issued}", parts.len().min(5)));
        for own in [false, true] {
            let found = probe::verify(token, &self.keys, own);
            match (found, is_issued) {
                (Some(claims), false) => return Err(format!("{token} is forged: {claims}")),
                (None, true) if !own => return Err(format!("{token} was issued")),
                _ => {}
            }
        }
        Ok(())
    }

    /// What is behind a good signature.
    fn signed(&self, header: &str, payload: &str, seen: &mut Seen) -> Result<(), String> {
        let token = probe::sign(&SECRETS[0], header, payload);
        let claims = probe::verify(&token, &self.keys, false);
        let own = probe::verify(&token, &self.keys, true);
        let told: String = claims.iter().flat_map(|claims| claims.chars()).collect();
        let told = told.split(|letter: char| !letter.is_ascii_alphabetic()).collect::<Vec<_>>();
        seen.note(&format!("{told:.200?} {}", own.is_some()));
        let other = probe::sign(&SECRETS[2], header, payload);
        if probe::verify(&other, &self.keys, false).is_some() {
            return Err("a key of somebody else is taken".to_owned());
        }
        if claims.is_none() && own.is_none() {
            return Ok(());
        }
        let found = claims.iter().chain(&own).cloned().collect::<Vec<String>>().join(" and ");
        self.one_letter_off(&token)?;
        judge_header(header).map_err(|text| format!("{text}, yet {found}"))?;
        judge_payload(payload, claims.is_some()).map_err(|text| format!("{text}, yet {found}"))
    }

    /// The token is exactly the text that was signed: each letter counts.
    fn one_letter_off(&self, token: &str) -> Result<(), String> {
        let at = super::hash(token.as_bytes(), 0) as usize % token.len();
        let mut other = token.as_bytes().to_vec();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(other).map_err(|error| error.to_string())?;
        match probe::verify(&text, &self.keys, false).or(probe::verify(&text, &self.keys, true)) {
            None => Ok(()),
            Some(_) => Err(format!("{text} is taken for {token}")),
        }
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    value.as_object().cloned().ok_or_else(|| "it is no object".to_owned())
}

fn judge_header(text: &str) -> Result<(), String> {
    let header = object(text)?;
    if header.get("alg").and_then(Value::as_str) != Some("EdDSA") {
        return Err("another algorithm".to_owned());
    }
    match ["crit", "jwk", "jku", "x5u", "x5c", "b64", "zip"]
        .iter()
        .find(|name| header.contains_key(**name))
    {
        Some(name) => Err(format!("the header has {name}")),
        None => Ok(()),
    }
}

fn judge_payload(text: &str, foreign: bool) -> Result<(), String> {
    let payload = object(text)?;
    for name in ["exp", "nbf", "iat"] {
        let Some(value) = payload.get(name) else { continue };
        let number = value.as_f64().ok_or_else(|| format!("{name} is no number"))?;
        if number.fract() != 0.0 || !(0.0..NATURAL_END).contains(&number) {
            return Err(format!("{name} is {number}"));
        }
    }
    if payload.contains_key("aud") || payload.contains_key("perm") {
        return Err("it is narrower than can be enforced".to_owned());
    }
    if foreign && (payload.contains_key("database_id") || payload.contains_key("node_id")) {
        return Err("only the server says that".to_owned());
    }
    match payload.get("a") {
        None => Ok(()),
        Some(_) if payload.contains_key("p") => Ok(()),
        Some(Value::String(word)) if ["rw", "ro", "roa"].contains(&word.as_str()) => Ok(()),
        Some(other) => Err(format!("its right is {other}")),
    }
}
