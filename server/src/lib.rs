//! HTTP, Hrana and the control API over tenants.

pub mod bench;
