//! HTTP, Hrana and the control API over tenants.

pub mod apply;
pub mod auth;
pub mod baton;
pub mod bench;
mod caller;
mod connection;
pub mod control;
pub mod cost;
pub mod export;
pub mod fleet;
pub mod hrana;
pub mod http;
pub mod inspect;
pub mod jobs;
pub mod keys;
pub mod limits;
pub mod memory;
mod metrics;
pub mod openapi;
pub mod peers;
pub mod platform;
pub mod problem;
mod server;
pub mod top;
mod work;

pub use server::{Exit, Server, ServerOptions};
pub use work::{Asked, Work, WorkKind, WorkReply};
