//! Bodies of Hrana's calls: what is accepted is JSON and keeps its meaning however it is written.

use serde_json::Value;
use server::hrana::probe::{Call, decode};

use super::{Random, Seen, Target};

/// Numbers of one input whose value is compared with the nearest float.
const NUMBERS_MAX: usize = 4;

/// Words of bodies.
const WORDS: &[&str] = &[
    "{\"requests\":[",
    "{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT 1\"}}",
    "{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"x\"}}]}}",
    "{\"type\":\"sequence\",\"sql\":\"x\"}",
    "{\"type\":\"describe\",\"sql_id\":1}",
    "{\"type\":\"store_sql\",\"sql_id\":1,\"sql\":\"x\"}",
    "{\"type\":\"close_sql\",\"sql_id\":1}",
    "{\"type\":\"get_autocommit\"}",
    "{\"type\":\"close\"}",
    "\"stmt\":{\"sql\":\"x\",\"args\":[{\"type\":\"null\"}]}",
    "\"batch\":{\"steps\":[]}",
    "\"condition\":{\"type\":\"ok\",\"step\":0}",
    "\"condition\":{\"type\":\"not\",\"cond\":{\"type\":\"error\",\"step\":0}}",
    "\"condition\":{\"type\":\"and\",\"conds\":[]}",
    "{\"type\":\"is_autocommit\"}",
    "{\"type\":\"not\",\"cond\":",
    "\"named_args\":[{\"name\":\":a\",\"value\":{\"type\":\"integer\",\"value\":\"1\"}}]",
    "{\"type\":\"float\",\"value\":1.5}",
    "{\"type\":\"blob\",\"base64\":\"AAE=\"}",
    "{\"type\":\"text\",\"value\":\"\\u00e9\\ud83d\\ude00\"}",
    "\"baton\":null",
    "\"baton\":\"AAAA\"",
    "\"want_rows\":true",
    "\"\\u0073ql\":\"x\"",
    "\\ud800",
    "null",
    "[[[[[[[[",
    "{\"a\":",
    "\u{feff}",
    ",",
    ":",
];

/// See the head of the file.
pub struct Bodies;

impl Target for Bodies {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let steps = |random: &mut Random| {
            let steps: Vec<String> = (0..random.size(2)).map(|at| step(random, at)).collect();
            format!("{{\"steps\":[{}]}}", steps.join(","))
        };
        let text = match random.below(4) {
            0 => format!("{{\"stmt\":{}}}", statement(random)),
            1 => format!("{{\"baton\":null,\"batch\":{}}}", steps(random)),
            _ => {
                let requests = (0..random.size(3)).map(|_| match random.below(3) {
                    0 => format!("{{\"type\":\"execute\",\"stmt\":{}}}", statement(random)),
                    1 => format!("{{\"type\":\"batch\",\"batch\":{}}}", steps(random)),
                    _ => WORDS[1 + random.index(8)].to_owned(),
                });
                let requests: Vec<String> = requests.collect();
                format!("{{\"baton\":\"x\",\"requests\":[{}]}}", requests.join(","))
            }
        };
        text.into_bytes()
    }

    fn words(&self) -> &'static [&'static str] {
        WORDS
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        for call in Call::ALL {
            match decode(call, input) {
                Ok(decoded) => {
                    note(call, &decoded, seen);
                    judge(call, input, &decoded)?;
                }
                Err(problem) => {
                    let words: String =
                        problem.message.chars().filter(|letter| !letter.is_ascii_digit()).collect();
                    // Up to where it repeats the input, which is another one each time.
                    let words = words.split(['`', '"']).next().unwrap_or_default();
                    seen.note(&format!("{call:?} {} {words:.120}", problem.status));
                    if problem.status != 400 || problem.close {
                        return Err(format!("{call:?} is refused with {problem:?}"));
                    }
                }
            }
        }
        for number in numbers(input).into_iter().take(NUMBERS_MAX) {
            judge_number(&number)?;
        }
        Ok(())
    }
}

fn step(random: &mut Random, at: u64) -> String {
    let condition = match random.below(6) {
        0 => ",\"condition\":null".to_owned(),
        1 => format!(",\"condition\":{{\"type\":\"ok\",\"step\":{}}}", random.below(at + 1)),
        2 => ",\"condition\":{\"type\":\"is_autocommit\"}".to_owned(),
        3 => format!(
            ",\"condition\":{{\"type\":\"or\",\"conds\":[{{\"type\":\"not\",\"cond\":\
             {{\"type\":\"error\",\"step\":{}}}}}]}}",
            random.below(at + 2)
        ),
        _ => String::new(),
    };
    format!("{{\"stmt\":{}{condition}}}", statement(random))
}

fn statement(random: &mut Random) -> String {
    let values: Vec<String> = (0..random.size(2)).map(|_| value(random)).collect();
    let named = values.iter().map(|value| format!("{{\"name\":\"a\",\"value\":{value}}}"));
    let arguments = match random.below(3) {
        0 => String::new(),
        1 => format!(",\"args\":[{}]", values.join(",")),
        _ => format!(",\"named_args\":[{}]", named.collect::<Vec<String>>().join(",")),
    };
    let source = random.pick(&["\"sql\":\"SELECT ?\"", "\"sql_id\":3", "\"sql\":\"\\\"\\u0000\""]);
    let rows = random.pick(&["", ",\"want_rows\":false", ",\"want_rows\":null", ",\"other\":[{}]"]);
    format!("{{{source}{arguments}{rows}}}")
}

fn value(random: &mut Random) -> String {
    match random.below(6) {
        0 => "{\"type\":\"null\"}".to_owned(),
        1 => format!("{{\"type\":\"integer\",\"value\":\"{}\"}}", random.size(64) as i64),
        2 => {
            let float = f64::from_bits(random.bits());
            let float = if float.is_finite() { float } else { 0.5 };
            format!("{{\"type\":\"float\",\"value\":{float:e}}}")
        }
        3 => format!("{{\"type\":\"float\",\"value\":{}}}", random.size(64)),
        4 => "{\"type\":\"blob\",\"base64\":\"AAECAw==\"}".to_owned(),
        _ => format!("{{\"value\":\"{}\",\"type\":\"text\"}}", "x".repeat(random.index(9))),
    }
}

/// The names of what was decoded, without its values: which shapes there are.
fn note(call: Call, decoded: &str, seen: &mut Seen) {
    let mut letters = std::collections::BTreeSet::new();
    let (mut within, mut escaped) = (false, false);
    for letter in decoded.chars() {
        within ^= letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        if !within && letter.is_ascii_uppercase() {
            letters.insert(letter);
        }
    }
    seen.count("size", decoded.len());
    seen.note(&format!("{call:?} {letters:?}"));
}

fn judge(call: Call, input: &[u8], decoded: &str) -> Result<(), String> {
    let refused = |bytes: &[u8], what: &str| match decode(call, bytes) {
        Err(_) => Ok(()),
        Ok(other) => Err(format!("{call:?} accepts {what}: {other}")),
    };
    refused(&[input, b"x"].concat(), "a body with something behind it")?;
    refused(&[input, b"\xff"].concat(), "a body that is not UTF-8")?;
    refused(&input[..input.len() - 1], "a body without its end").or_else(|text| {
        // What follows an object is blank.
        if input.ends_with(b"}") { Err(text) } else { Ok(()) }
    })?;
    let value: Value = match serde_json::from_slice(input) {
        Ok(value) => value,
        // What is skipped may be deeper than a reader without a loop can go.
        Err(error) if error.to_string().contains("recursion limit") => return Ok(()),
        // Escapes in what is skipped are not put together.
        Err(error) if error.to_string().contains("surrogate") => return Ok(()),
        Err(error) if error.to_string().contains("hex escape") => return Ok(()),
        Err(error) if error.to_string().contains("out of range") => return Ok(()),
        Err(error) => return Err(format!("{call:?} accepts what is no JSON: {error}")),
    };
    if call != Call::ExecuteV1 || value.get("baton").is_none() {
        let start = input.iter().position(|byte| *byte == b'{').ok_or("no object")?;
        let twice = [b"{\"baton\":null,\"baton\":null,", &input[start + 1..]].concat();
        refused(&twice, "a field twice")?;
    }
    for text in [value.to_string(), format!("{value:#}")] {
        match decode(call, text.as_bytes()) {
            Ok(other) if other == decoded => {}
            other => return Err(format!("{call:?}: {other:?} written anew, was {decoded}")),
        }
    }
    Ok(())
}

/// What looks like a JSON number in these bytes.
fn numbers(input: &[u8]) -> Vec<String> {
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"-+.eE".contains(byte);
    let words =
        input.split(|byte| !is_part(byte)).filter(|word| word.len() > 1 && word.len() < 400);
    let texts = words.filter_map(|word| String::from_utf8(word.to_vec()).ok());
    texts.filter(|text| serde_json::from_str::<serde_json::Number>(text).is_ok()).collect()
}

/// A float argument is the float that is nearest to its text.
fn judge_number(number: &str) -> Result<(), String> {
    let argument = format!("{{\"type\":\"float\",\"value\":{number}}}");
    let body = format!("{{\"stmt\":{{\"sql\":\"\",\"args\":[{argument}]}}}}");
    let nearest: f64 = number.parse().map_err(|_| format!("{number} is no number"))?;
    match decode(Call::ExecuteV1, body.as_bytes()) {
        Err(_) if nearest.is_infinite() => Ok(()),
        Ok(decoded) if decoded.contains(&format!("Real({nearest:?})")) => Ok(()),
        other => Err(format!("{number} is {nearest:?}, was read as {other:?}")),
    }
}
