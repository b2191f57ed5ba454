//! Heads and bodies of HTTP requests: see the target http-body of the simulator.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simulator::fuzz::{Seen, find};

fuzz_target!(|input: &[u8]| {
    let entry = find("http-body").expect("it is in the table");
    if let Err(reason) = (entry.make)().run(input, &mut Seen::default()) {
        panic!("{reason}");
    }
});
