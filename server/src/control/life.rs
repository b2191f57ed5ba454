//! How long databases live, through the control API.
//!
//! `{"ttl":S,"idle_ttl":S,"max_spend":RU,"max_statements":N,"on_end":"drop"|"freeze",
//! "class":"durable"|"memory","on_missing":"create"|"refuse"}`: S is a number of seconds or a text
//! such as `"15m"`, RU a number of request units, with up to six digits behind its point. 0 is
//! without end, whatever is said above; `null` leaves a part to the group and organisation.

use serde_json::{Map, Value};
use tenant::life::{Class, Life, LifeChange, Part, SECONDS_MAX};
use tenant::settings::SettingsChange;

use crate::problem::Problem;

/// Micro-units of a request unit.
const MICRO: f64 = 1e6;

/// As the API calls a part.
fn name_of(part: Part) -> &'static str {
    match part {
        Part::Ttl => "ttl",
        Part::IdleTtl => "idle_ttl",
        part => part.name(),
    }
}

/// Read one member of a body of settings; `false` if it is of something else.
///
/// # Errors
/// 400 for what cannot be meant.
pub(super) fn read(change: &mut LifeChange, name: &str, value: &Value) -> Result<bool, Problem> {
    let Some(part) = Part::ALL.into_iter().find(|&part| name_of(part) == name) else {
        return Ok(false);
    };
    let number = match value {
        Value::Null => None,
        value => Some(number(part, value).ok_or_else(|| {
            let may_be = match part {
                Part::Ttl | Part::IdleTtl => {
                    format!("seconds up to {SECONDS_MAX}, a text such as \"15m\"")
                }
                Part::MaxSpend => "a number of request units".to_owned(),
                Part::MaxStatements => "a whole number".to_owned(),
                _ => format!("{:?} or {:?}", part.words()[0], part.words()[1]),
            };
            Problem::body(format!("{name} must be {may_be}, or null"))
        })?),
    };
    change.set(part, number);
    Ok(true)
}

fn number(part: Part, value: &Value) -> Option<u64> {
    let number = match (part, value) {
        (Part::Ttl | Part::IdleTtl, Value::String(text)) => seconds(text),
        (Part::MaxSpend, Value::Number(number)) => {
            let micro = number.as_f64()? * MICRO;
            (0.0..9e18).contains(&micro).then_some(micro.round() as u64)
        }
        (Part::OnEnd | Part::Class | Part::OnMissing, Value::String(word)) => {
            part.words().iter().position(|known| known == word).map(|place| place as u64)
        }
        (Part::OnEnd | Part::Class | Part::OnMissing, _) => None,
        (_, Value::Number(number)) => number.as_u64(),
        _ => None,
    };
    number.filter(|&number| number <= part.most())
}

/// `90`, `90s`, `15m`, `2h`, `7d` or `1w`, in seconds.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Take the class out of what a create says: it is no setting.
pub(super) fn take_class(change: &mut LifeChange) -> Option<Class> {
    let said = change.take(Part::Class)?;
    said.map(|memory| if memory == 1 { Class::Memory } else { Class::Durable })
}

/// What of a life is no setting of a database: it is a group's to say.
///
/// # Errors
/// 400.
pub(super) fn of_database(change: &SettingsChange) -> Result<(), Problem> {
    if change.template.is_some() {
        let text =
            "template is said by groups and organisations; a database says `seed` at its create";
        return Err(Problem::body(text));
    }
    for part in [Part::Class, Part::OnMissing] {
        if change.life.get(part).is_some() {
            let name = name_of(part);
            let text = format!(
                "{name} is said by groups and organisations; a database has the class that it was \
                 created with"
            );
            return Err(Problem::body(text));
        }
    }
    Ok(())
}

/// Write what is said into an answer, as [`read`] takes it.
pub(super) fn answer(life: &Life, out: &mut Map<String, Value>) {
    for part in Part::ALL {
        let value = life.get(part).map_or(Value::Null, |number| match part {
            Part::MaxSpend => (number as f64 / MICRO).into(),
            Part::OnEnd | Part::Class | Part::OnMissing => part.words()[number as usize].into(),
            _ => number.into(),
        });
        out.insert(name_of(part).to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut change = LifeChange::default();
        for (name, value) in [
            ("ttl", json!("15m")),
            ("idle_ttl", json!(90)),
            ("max_spend", json!(0.25)),
            ("max_statements", json!(0)),
            ("on_end", json!("freeze")),
            ("class", json!("memory")),
            ("on_missing", json!("create")),
        ] {
            assert_eq!(read(&mut change, name, &value), Ok(true), "{name}");
        }
        let mut shown = Map::new();
        answer(&Life::NOTHING.changed(&change), &mut shown);
        let wanted = json!({
            "ttl": 900, "idle_ttl": 90, "max_spend": 0.25, "max_statements": 0,
            "on_end": "freeze", "class": "memory", "on_missing": "create",
        });
        assert_eq!(Value::Object(shown), wanted);
        assert_eq!(read(&mut change, "colour", &json!(1)), Ok(false));
        for (name, value) in [
            ("ttl", json!(-1)),
            ("ttl", json!("15x")),
            ("ttl", json!("99999999999999999999d")),
            ("ttl", json!(1.5)),
            ("max_spend", json!(-0.1)),
            ("max_spend", json!("1")),
            ("max_statements", json!(0.5)),
            ("on_end", json!("explode")),
            ("on_end", json!(1)),
        ] {
            assert_eq!(read(&mut change, name, &value).expect_err(name).status, 400);
        }
    }
}
