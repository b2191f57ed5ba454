//! Marks of places that a good test run must reach at least once.
//!
//! `sometimes!("torn tail truncated")` costs one thread-local flag. What was reached on a thread is
//! listed by [`reached`]; the simulator knows all the marks, and its coverage fails on one that no
//! seed reaches: a fault that never bites proves nothing. Names are sentences without a full stop.

use std::cell::RefCell;

thread_local! {
    static REACHED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// The marks reached on this thread so far, sorted.
#[must_use]
pub fn reached() -> Vec<&'static str> {
    let mut marks = REACHED.with_borrow(Clone::clone);
    marks.sort_unstable();
    marks.dedup();
    marks
}

/// How many marks were reached on this thread so far.
#[must_use]
pub fn reached_count() -> usize {
    REACHED.with_borrow(Vec::len)
}

/// What [`sometimes!`](crate::sometimes!) calls the first time.
#[doc(hidden)]
pub fn reach(mark: &'static str) {
    REACHED.with_borrow_mut(|reached| reached.push(mark));
}

/// Mark a place that a good test run must reach. See [`storage::sometimes`](crate::sometimes).
#[macro_export]
macro_rules! sometimes {
    ($mark:literal) => {{
        ::std::thread_local! {
            static REACHED: ::std::cell::Cell<bool> = const { ::std::cell::Cell::new(false) };
        }
        if !REACHED.replace(true) {
            $crate::sometimes::reach($mark);
        }
    }};
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_mark_is_listed_once() {
        for _ in 0..3 {
            sometimes!("a test ran");
        }
        let reached = super::reached();
        assert_eq!(reached.iter().filter(|mark| **mark == "a test ran").count(), 1);
    }
}
