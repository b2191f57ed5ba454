//! The only crate that touches the kernel, and the only one with `unsafe`.

pub mod identity;
pub mod io;
pub mod log;
