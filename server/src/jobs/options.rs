//! How a job runs: from JSON, and back into it as the catalogue keeps it and answers show it.

use serde_json::{Map, Value, json};

use crate::limits;
use crate::problem::Problem;

/// How many databases go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Canary {
    /// So many.
    Count(u64),
    /// So many of a hundred, at least one.
    Percent(u64),
}

/// What happens after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// The job goes on.
    Continue,
    /// It pauses.
    Pause,
    /// It ends.
    Cancel,
}

impl OnError {
    const ALL: [(&'static str, OnError); 3] =
        [("continue", OnError::Continue), ("pause", OnError::Pause), ("cancel", OnError::Cancel)];
}

/// See the head of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// After these it pauses.
    pub canary: Option<Canary>,
    /// It goes on by itself if none of them failed.
    pub canary_auto: bool,
    /// Databases at a time.
    pub concurrency: usize,
    /// What happens after `max_failures`.
    pub on_error: OnError,
    /// See `on_error`; counted since the job began or was let go on.
    pub max_failures: u64,
    /// Foreign keys are enforced statement by statement.
    pub foreign_keys: bool,
    /// How long it may take on one database.
    pub timeout_s: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            canary: None,
            canary_auto: false,
            concurrency: limits::JOB_CONCURRENCY,
            on_error: OnError::Pause,
            max_failures: 1,
            foreign_keys: true,
            timeout_s: limits::JOB_TIMEOUT_S,
        }
    }
}

impl Options {
    /// Take an option of a body; `false` if there is none of this name.
    ///
    /// # Errors
    /// 400 with what it may be.
    pub(crate) fn take(&mut self, name: &str, value: &Value) -> Result<bool, Problem> {
        let number = |range: std::ops::RangeInclusive<u64>| {
            let number = value.as_u64().filter(|number| range.contains(number));
            number.ok_or_else(|| {
                let (low, high) = (range.start(), range.end());
                Problem::body(format!("{name} must be a whole number from {low} to {high}"))
            })
        };
        let switch = || {
            let text = || Problem::body(format!("{name} must be true or false"));
            value.as_bool().ok_or_else(text)
        };
        match name {
            "canary" => self.canary = canary(value)?,
            "canary_auto" => self.canary_auto = switch()?,
            "concurrency" => {
                self.concurrency = number(1..=limits::JOB_CONCURRENCY_MAX as u64)? as usize;
            }
            "on_error" => {
                let known = value.as_str().and_then(on_error);
                let text = "on_error must be \"continue\", \"pause\" or \"cancel\"";
                self.on_error = known.ok_or_else(|| Problem::body(text))?;
            }
            "max_failures" => self.max_failures = number(1..=u64::from(u32::MAX))?,
            "foreign_keys" => self.foreign_keys = switch()?,
            "timeout_s" => self.timeout_s = number(1..=limits::JOB_TIMEOUT_S_MAX)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// As answers show them, and as the catalogue keeps them.
    pub(crate) fn to_json(self) -> Map<String, Value> {
        let canary = match self.canary {
            None => Value::Null,
            Some(Canary::Count(count)) => count.into(),
            Some(Canary::Percent(percent)) => format!("{percent}%").into(),
        };
        let word = OnError::ALL.iter().find(|(_, on_error)| *on_error == self.on_error);
        let members = json!({
            "canary": canary,
            "canary_auto": self.canary_auto,
            "concurrency": self.concurrency,
            "on_error": word.map(|(word, _)| word),
            "max_failures": self.max_failures,
            "foreign_keys": self.foreign_keys,
            "timeout_s": self.timeout_s,
        });
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// What [`to_json`](Self::to_json) has written, as far as it can be read.
    pub(crate) fn read_kept(text: &str) -> Options {
        let mut options = Options::default();
        if let Ok(Value::Object(members)) = serde_json::from_str(text) {
            for (name, value) in &members {
                let _ = options.take(name, value);
            }
        }
        options
    }

    /// How many of `total` databases go first; 0 if none do.
    pub(crate) fn canaries(&self, total: u64) -> u64 {
        match self.canary {
            None => 0,
            Some(Canary::Count(count)) => count,
            Some(Canary::Percent(percent)) => (total * percent).div_ceil(100).max(1),
        }
    }
}

fn canary(value: &Value) -> Result<Option<Canary>, Problem> {
    let percent =
        |text: &str| text.strip_suffix('%')?.parse().ok().filter(|p| (1..=100).contains(p));
    let read = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_u64().filter(|&count| count > 0).map(Canary::Count),
        Value::String(text) => percent(text).map(Canary::Percent),
        _ => None,
    };
    let text = "canary must be a number of databases, or a text such as \"5%\"";
    read.map(Some).ok_or_else(|| Problem::body(text))
}

fn on_error(word: &str) -> Option<OnError> {
    OnError::ALL.iter().find(|(known, _)| *known == word).map(|(_, on_error)| *on_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_catalogue() {
        let mut options = Options::default();
        for (name, value) in [
            ("canary", json!("5%")),
            ("canary_auto", json!(true)),
            ("concurrency", json!(9)),
            ("on_error", json!("cancel")),
            ("max_failures", json!(100)),
            ("foreign_keys", json!(false)),
            ("timeout_s", json!(7)),
        ] {
            assert_eq!(options.take(name, &value), Ok(true), "{name}");
        }
        let kept = Value::Object(options.to_json()).to_string();
        assert_eq!(Options::read_kept(&kept), options);
        assert_eq!((options.canaries(1000), options.canaries(3)), (50, 1));
        assert_eq!(Options::default().canaries(1000), 0);
        for (name, value) in [
            ("canary", json!(0)),
            ("canary", json!("0%")),
            ("canary", json!("101%")),
            ("concurrency", json!(0)),
            ("concurrency", json!(1000)),
            ("on_error", json!("stop")),
            ("max_failures", json!(0)),
            ("timeout_s", json!("1s")),
        ] {
            assert!(Options::default().take(name, &value).is_err(), "{name} {value}");
        }
        assert_eq!(Options::default().take("colour", &json!(1)), Ok(false));
    }
}
