//! The `simulator` binary.

fn main() {}
