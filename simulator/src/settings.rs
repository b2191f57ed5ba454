//! Options that have a name: one table serves the printed line and `--set name=value`.
//!
//! A struct of options lists its fields once, in [`Settings::fields`]. What a world prints about
//! itself is that list, so whatever is printed can be set, and shrinking can try any of it.

use crate::draws::Span;

/// A value that can be printed and read back.
pub trait Setting {
    /// As the line of options shows it, and as `--set` takes it.
    fn show(&self) -> String;

    /// Take what `text` says.
    ///
    /// # Errors
    /// What was expected instead.
    fn set(&mut self, text: &str) -> Result<(), String>;
}

macro_rules! parsed_settings {
    ($($kind:ty),*) => {$(
        impl Setting for $kind {
            fn show(&self) -> String {
                self.to_string()
            }

            fn set(&mut self, text: &str) -> Result<(), String> {
                let expected = concat!("a value of ", stringify!($kind), " is expected");
                *self = text.parse().map_err(|_| expected.to_owned())?;
                Ok(())
            }
        }
    )*};
}

parsed_settings!(u64, i64, u32, usize, bool);

impl Setting for Span {
    fn show(&self) -> String {
        format!("{}..{}", self.low, self.high)
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        let expected = || "a range such as 5..10 is expected".to_owned();
        let (low, high) = text.split_once("..").ok_or_else(expected)?;
        let low = low.parse().map_err(|_| expected())?;
        let high = high.parse().map_err(|_| expected())?;
        if low > high {
            return Err(expected());
        }
        *self = Span::new(low, high);
        Ok(())
    }
}

/// One field of a table: its name and itself.
pub type Field<'a> = (&'static str, &'a mut dyn Setting);

/// Options with names.
pub trait Settings: Clone {
    /// All of them, in the order in which they are printed.
    fn fields(&mut self) -> Vec<Field<'_>>;

    /// Give the option of this name another value.
    ///
    /// # Errors
    /// If there is none of this name, or the value is none of its kind.
    fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let mut fields = self.fields();
        let field = fields.iter_mut().find(|(known, _)| *known == name);
        let (_, field) = field.ok_or_else(|| format!("there is no option {name:?}"))?;
        field.set(text).map_err(|expected| format!("{name}={text}: {expected}"))
    }

    /// All names with their values, as printed.
    fn values(&self) -> Vec<(&'static str, String)> {
        let mut copy = self.clone();
        let fields = copy.fields();
        fields.into_iter().map(|(name, field)| (name, field.show())).collect()
    }

    /// One line of `name=value`.
    fn line(&self) -> String {
        let values = self.values().into_iter().map(|(name, value)| format!("{name}={value}"));
        values.collect::<Vec<String>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Faults;
    use crate::world::{Options, Profile};

    #[test]
    fn what_is_printed_can_be_set() {
        for seed in 0..50 {
            let drawn = Options::draw(seed, Profile::Swarm);
            let mut other = Options::draw(seed + 1_000, Profile::Calm);
            for (name, value) in drawn.values() {
                other.set(name, &value).expect("a printed value");
            }
            assert_eq!(other.line(), drawn.line());
        }
    }

    #[test]
    fn names_are_told_apart() {
        let values = Options::draw(1, Profile::Swarm).values();
        let mut names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), values.len());
    }

    #[test]
    fn wrong_names_and_values_are_refused() {
        let mut faults = Faults::calm();
        assert!(faults.set("no_such_rate", "1").is_err());
        assert!(faults.set("sync_error_per_million", "many").is_err());
        assert!(faults.set("disk_spike_ns", "9..5").is_err());
        assert!(faults.set("namespace_model", "fat").is_err());
        assert_eq!(faults, Faults::calm());
    }
}
