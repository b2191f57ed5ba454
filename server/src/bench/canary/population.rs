//! The databases of a run: whose name, key, canary and batons are whose, now and before.

use std::collections::VecDeque;

use super::watch::Owner;

/// Streams of a database that are parked here; the server lets it have more.
const STREAMS_MAX: usize = 3;

/// Batons that were good once, of each database.
const USED_MAX: usize = 4;

/// Dropped databases whose keys and batons are tried again.
const GHOSTS_MAX: usize = 64;

/// A stream that the server keeps for its database.
#[derive(Clone, Debug)]
pub struct Parked {
    /// Whose it is.
    pub owner: Owner,
    /// What it is gone on with.
    pub baton: String,
}

/// A database.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its number and generation.
    pub owner: Owner,
    /// Its name, the same in all generations.
    pub name: String,
    /// What opens it: a token, or an opaque key.
    pub key: String,
    /// Its word.
    pub canary: String,
    parked: Vec<Parked>,
    used: VecDeque<String>,
}

/// What is left of a database that was dropped.
#[derive(Clone, Debug)]
pub struct Ghost {
    /// Which it was.
    pub owner: Owner,
    /// What opened it.
    pub key: String,
    /// Of its streams.
    pub batons: Vec<String>,
}

impl Tenant {
    /// A database that was just made.
    #[must_use]
    pub fn new(owner: Owner, name: String, key: String, canary: String) -> Tenant {
        Tenant { owner, name, key, canary, parked: Vec::new(), used: VecDeque::new() }
    }

    /// Take the stream that was parked last, to go on with it.
    pub fn take(&mut self) -> Option<Parked> {
        self.parked.pop()
    }

    /// A baton that is good now, and stays so.
    #[must_use]
    pub fn baton(&self) -> Option<&str> {
        self.parked.last().map(|parked| &*parked.baton)
    }

    /// A baton that was good once.
    #[must_use]
    pub fn used_baton(&self) -> Option<&str> {
        self.used.front().map(|baton| &**baton)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Population {
    /// By number.
    pub tenants: Vec<Tenant>,
    /// Those that were dropped last.
    pub ghosts: VecDeque<Ghost>,
}

impl Population {
    /// Keep a stream that an answer has parked, if its database is still the same.
    pub fn park(&mut self, parked: Parked) {
        let tenant = &mut self.tenants[parked.owner.number as usize];
        if tenant.owner != parked.owner {
            return;
        }
        if tenant.parked.len() == STREAMS_MAX {
            // Nobody goes on with it: the server ends it in its time.
            tenant.parked.remove(0);
        }
        tenant.parked.push(parked);
    }

    /// What was asked with this baton was answered: it is used up.
    pub fn answered(&mut self, owner: Owner, baton: String) {
        let tenant = &mut self.tenants[owner.number as usize];
        if tenant.owner == owner {
            if tenant.used.len() == USED_MAX {
                tenant.used.pop_front();
            }
            tenant.used.push_back(baton);
        }
    }

    /// Put another generation in its place; what is left of it is tried again later.
    ///
    /// # Panics
    /// If it is not the next one.
    pub fn replace(&mut self, tenant: Tenant) {
        let place = &mut self.tenants[tenant.owner.number as usize];
        assert_eq!(tenant.owner.generation, place.owner.generation + 1);
        let gone = std::mem::replace(place, tenant);
        let batons = gone.parked.into_iter().map(|parked| parked.baton).chain(gone.used);
        if self.ghosts.len() == GHOSTS_MAX {
            self.ghosts.pop_front();
        }
        let batons = batons.collect();
        self.ghosts.push_back(Ghost { owner: gone.owner, key: gone.key, batons });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_database_is_kept_apart_from_the_next_one() {
        let owner = |generation| Owner { number: 0, generation };
        let tenant = |generation| {
            let key = format!("key {generation}");
            Tenant::new(owner(generation), "d".into(), key, "canary".into())
        };
        let mut population = Population::default();
        population.tenants.push(tenant(0));
        let baton =
            |text: &str, generation| Parked { owner: owner(generation), baton: text.into() };
        for text in ["a", "b", "c", "d"] {
            population.park(baton(text, 0));
        }
        let taken = population.tenants[0].take().expect("three are parked").baton;
        assert_eq!((&*taken, population.tenants[0].used_baton()), ("d", None));
        population.answered(owner(0), taken);
        let first = &population.tenants[0];
        assert_eq!((first.baton(), first.used_baton()), (Some("c"), Some("d")));
        population.replace(tenant(1));
        assert_eq!(population.tenants[0].baton(), None);
        assert_eq!(population.ghosts[0].batons, ["b", "c", "d"]);
        assert_eq!(population.ghosts[0].key, "key 0");
        // The answer of a request from before comes late.
        population.park(baton("late", 0));
        assert_eq!(population.tenants[0].baton(), None);
    }
}
