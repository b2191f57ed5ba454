//! How long a fiber runs between two looks at its turn: what one statement can keep the loop from others.
//!
//! Off unless [`measure`] was called on the loop's thread (`myriad serve --measure-stretches`): a look then
//! costs a read of the thread's processor time, a system call. Processor time, so that what else the
//! machine does is not in it. A stretch begins where a fiber is resumed or looks, and ends where it looks,
//! waits or ends; only the longest since the last question is kept.

use std::cell::Cell;

use rustix::time::{ClockId, clock_gettime};

#[derive(Clone, Copy, Default)]
struct Stretches {
    on: bool,
    began_ns: u64,
    longest_ns: u64,
}

thread_local! {
    static STRETCHES: Cell<Stretches> = const {
        Cell::new(Stretches { on: false, began_ns: 0, longest_ns: 0 })
    };
}

fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, rest) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// From now on, on this thread.
pub fn measure() {
    STRETCHES.set(Stretches { on: true, ..Stretches::default() });
}

/// The longest since the last call, in nanoseconds; `None` where nobody measures.
#[must_use]
pub fn take_longest_ns() -> Option<u64> {
    let stretches = STRETCHES.get();
    STRETCHES.set(Stretches { longest_ns: 0, ..stretches });
    stretches.on.then_some(stretches.longest_ns)
}

/// A fiber is resumed.
pub(crate) fn begin() {
    let stretches = STRETCHES.get();
    if stretches.on {
        STRETCHES.set(Stretches { began_ns: processor_ns(), ..stretches });
    }
}

/// A fiber looks at its turn, or has given it up.
pub(crate) fn look() {
    let Stretches { on, began_ns, longest_ns } = STRETCHES.get();
    if on {
        let now_ns = processor_ns();
        let longest_ns = longest_ns.max(now_ns.saturating_sub(began_ns));
        STRETCHES.set(Stretches { on, began_ns: now_ns, longest_ns });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_kept() {
        begin();
        look();
        assert_eq!(take_longest_ns(), None);
        measure();
        begin();
        let mut sum = 0_u64;
        for number in 0..1_000_000_u64 {
            sum = std::hint::black_box(sum ^ number);
        }
        look();
        look();
        let longest_ns = take_longest_ns().expect("it measures");
        assert!(longest_ns > 10_000, "a million steps took {longest_ns} ns ({sum})");
        assert_eq!(take_longest_ns(), Some(0));
    }
}
