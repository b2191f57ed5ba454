//! Bodies of Hrana's calls: see the target hrana of the simulator.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simulator::fuzz::{Seen, find};

fuzz_target!(|input: &[u8]| {
    let entry = find("hrana").expect("it is in the table");
    if let Err(reason) = (entry.make)().run(input, &mut Seen::default()) {
        panic!("{reason}");
    }
});
