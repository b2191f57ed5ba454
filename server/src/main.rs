//! The `myriad` binary: arguments, an Io, a server, the loop.

fn main() {}
