//! How long a database lives, and of which kind it is: what its settings, its group's and its
//! organisation's say, and what follows.
//!
//! ```text
//! ttl_s=3600 idle_ttl_s=900 max_spend=5000000 max_statements=1000 on_end=1 class=1 on_missing=1
//! ```
//!
//! For each part the nearest that says something is heard: the database, its group, its
//! organisation. 0 is said too: of a time or number it means without end, whatever is said above.
//! All are whole numbers: seconds, parts of a million of a request unit, statements, and the places
//! of words in [`Part::words`].
//!
//! **Times are the wall's clock's**, in whole seconds: a database ends in the second after the last
//! that it was given, and not before its clock has said so. Where that clock is set forward, what is
//! due by then ends at once; where it is set back, what is not due any more waits again.

use crate::budget::Unreadable;

/// One part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Seconds from its creation.
    Ttl,
    /// Seconds from its last use.
    IdleTtl,
    /// What its statements may cost in its life, in parts of a million of a request unit.
    MaxSpend,
    /// Statements that may begin in its life.
    MaxStatements,
    /// What happens at its end: see [`OnEnd`].
    OnEnd,
    /// Of a group or organisation: the class of databases that are created in it.
    Class,
    /// Of a group, an organisation or the machine: whether a database is made when a request names
    /// one that is not there.
    OnMissing,
}

/// Number of [`Part`]s.
pub const PARTS: usize = 7;

/// The longest time that may be said, in seconds: a hundred years. So sums of times fit.
pub const SECONDS_MAX: u64 = 100 * 366 * 86_400;

/// The largest number that may be said: what SQLite and JSON's readers agree on.
const NUMBER_MAX: u64 = i64::MAX as u64;

impl Part {
    /// All parts, in the order in which they are written down.
    pub const ALL: [Part; PARTS] = [
        Part::Ttl,
        Part::IdleTtl,
        Part::MaxSpend,
        Part::MaxStatements,
        Part::OnEnd,
        Part::Class,
        Part::OnMissing,
    ];

    /// As the catalogue writes it down: with its unit.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::Ttl => "ttl_s",
            Part::IdleTtl => "idle_ttl_s",
            Part::MaxSpend => "max_spend",
            Part::MaxStatements => "max_statements",
            Part::OnEnd => "on_end",
            Part::Class => "class",
            Part::OnMissing => "on_missing",
        }
    }

    /// What its numbers are called, from 0 on, if they are words.
    #[must_use]
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Part::OnEnd => &["drop", "freeze"],
            Part::Class => &["durable", "memory"],
            Part::OnMissing => &["refuse", "create"],
            _ => &[],
        }
    }

    /// The largest number that may be said.
    #[must_use]
    pub fn most(self) -> u64 {
        match self {
            Part::Ttl | Part::IdleTtl => SECONDS_MAX,
            Part::MaxSpend | Part::MaxStatements => NUMBER_MAX,
            Part::OnEnd | Part::Class | Part::OnMissing => 1,
        }
    }
}

/// What one database, group or organisation says, or what holds for a database after all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life([Option<u64>; PARTS]);

/// What becomes of what is said; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LifeChange([Option<Option<u64>>; PARTS]);

/// What happens to a database at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// It is dropped.
    Drop,
    /// It stays and can be read; what writes is refused.
    Freeze,
}

/// Where a database is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// In the commit log and a file.
    #[default]
    Durable,
    /// In memory only, and gone at the server's end.
    Memory,
}

/// Why a database has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Its time is over.
    Ttl,
    /// Nobody has used it for as long as it may be idle.
    Idle,
    /// Its statements have cost what they may cost together.
    Spend,
    /// As many statements have begun as may.
    Statements,
}

impl Ending {
    /// All of them, as the catalogue numbers them from 1 on.
    const ALL: [Ending; 4] = [Ending::Ttl, Ending::Idle, Ending::Spend, Ending::Statements];

    /// As the catalogue numbers it.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The one of this number.
    #[must_use]
    pub fn of_number(number: i64) -> Option<Ending> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Ending::ALL.get(index).copied()
    }

    /// The setting that ended it, as the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Ending::Ttl => "ttl",
            Ending::Idle => "idle_ttl",
            Ending::Spend => "max_spend",
            Ending::Statements => "max_statements",
        }
    }
}

impl LifeChange {
    /// Say a part, or leave it to those above.
    ///
    /// # Panics
    /// If the number is none that the part may have: the caller has checked it.
    pub fn set(&mut self, part: Part, number: Option<u64>) {
        assert!(number.is_none_or(|number| number <= part.most()));
        self.0[part as usize] = Some(number);
    }

    /// Nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == LifeChange::default()
    }

    /// What is said of a part, if that changes.
    #[must_use]
    pub fn get(&self, part: Part) -> Option<Option<u64>> {
        self.0[part as usize]
    }

    /// Take a part out of the change.
    pub fn take(&mut self, part: Part) -> Option<Option<u64>> {
        self.0[part as usize].take()
    }

    /// It changes until when somebody's databases live.
    #[must_use]
    pub fn changes_times(&self) -> bool {
        self.get(Part::Ttl).is_some() || self.get(Part::IdleTtl).is_some()
    }
}

impl Life {
    /// Nothing is said.
    pub const NOTHING: Life = Life([None; PARTS]);

    /// What is said of a part.
    #[must_use]
    pub fn get(&self, part: Part) -> Option<u64> {
        self.0[part as usize]
    }

    /// What is said of a time or number that is not without end.
    #[must_use]
    pub fn bound(&self, part: Part) -> Option<u64> {
        self.get(part).filter(|&number| number > 0)
    }

    /// What is said after a change.
    #[must_use]
    pub fn changed(&self, change: &LifeChange) -> Life {
        let mut changed = *self;
        for (said, change) in changed.0.iter_mut().zip(change.0) {
            *said = change.unwrap_or(*said);
        }
        changed
    }

    /// What holds where this says nothing and `above` may.
    #[must_use]
    pub fn or(&self, above: &Life) -> Life {
        let mut both = *self;
        for (said, above) in both.0.iter_mut().zip(above.0) {
            *said = said.or(above);
        }
        both
    }

    /// What happens at its end.
    #[must_use]
    pub fn on_end(&self) -> OnEnd {
        if self.get(Part::OnEnd) == Some(1) { OnEnd::Freeze } else { OnEnd::Drop }
    }

    /// The class of what is created under it, where the request says none.
    #[must_use]
    pub fn class(&self) -> Class {
        if self.get(Part::Class) == Some(1) { Class::Memory } else { Class::Durable }
    }

    /// Whether databases are made when a request names them, if that is said.
    #[must_use]
    pub fn makes_missing(&self) -> Option<bool> {
        self.get(Part::OnMissing).map(|create| create == 1)
    }

    /// When a database that was created and last used at these times ends, in seconds since 1970,
    /// and why.
    #[must_use]
    pub fn ends_s(&self, created_s: u64, used_s: u64) -> Option<(u64, Ending)> {
        let ttl = self.bound(Part::Ttl).map(|s| (created_s.saturating_add(s), Ending::Ttl));
        let used_s = used_s.max(created_s);
        let idle = self.bound(Part::IdleTtl).map(|s| (used_s.saturating_add(s), Ending::Idle));
        ttl.into_iter().chain(idle).min()
    }

    /// The entries of what is said, as the catalogue keeps them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let said = Part::ALL.into_iter().zip(self.0);
        said.filter_map(|(part, number)| Some((part.name(), number?)))
    }

    /// Read one entry; `None` if it is of something else.
    pub(crate) fn read(&mut self, name: &str, value: &str) -> Option<Result<(), Unreadable>> {
        let part = Part::ALL.into_iter().find(|part| part.name() == name)?;
        let number = value.parse().ok().filter(|&number| number <= part.most());
        let Some(number) = number else { return Some(Err(value.into())) };
        self.0[part as usize] = Some(number);
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(parts: &[(Part, u64)]) -> Life {
        let mut change = LifeChange::default();
        for &(part, number) in parts {
            change.set(part, Some(number));
        }
        Life::NOTHING.changed(&change)
    }

    #[test]
    fn the_nearest_that_says_something_is_heard() {
        let own = life(&[(Part::Ttl, 0), (Part::OnEnd, 1)]);
        let group = life(&[(Part::Ttl, 60), (Part::IdleTtl, 9), (Part::Class, 1)]);
        let holds = own.or(&group);
        assert_eq!(holds.bound(Part::Ttl), None, "0 is without end, whatever is said above");
        assert_eq!(holds.bound(Part::IdleTtl), Some(9));
        assert_eq!((holds.on_end(), holds.class()), (OnEnd::Freeze, Class::Memory));
        let mut change = LifeChange::default();
        change.set(Part::Ttl, None);
        assert_eq!(own.changed(&change).or(&group).bound(Part::Ttl), Some(60));
    }

    #[test]
    fn the_first_end_counts() {
        let both = life(&[(Part::Ttl, 100), (Part::IdleTtl, 10)]);
        assert_eq!(both.ends_s(1_000, 0), Some((1_010, Ending::Idle)));
        assert_eq!(both.ends_s(1_000, 1_085), Some((1_095, Ending::Idle)));
        assert_eq!(both.ends_s(1_000, 1_099), Some((1_100, Ending::Ttl)));
        assert_eq!(Life::NOTHING.ends_s(1, 1), None);
        for ending in Ending::ALL {
            assert_eq!(Ending::of_number(ending.number().into()), Some(ending));
        }
        assert_eq!((Ending::of_number(0), Ending::of_number(5)), (None, None));
    }
}
