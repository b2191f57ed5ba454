//! HTTP, Hrana and the control API over tenants.

pub mod baton;
pub mod hrana;
pub mod http;
pub mod limits;
pub mod problem;
