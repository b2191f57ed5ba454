//! HTTP/1.0 and 1.1 as pure code: bytes in, requests out; values in, bytes out.
//!
//! Owns the grammar, the framing and the routes. Leaves to the caller: sockets, timers (security
//! rules 8 and 12), authentication, when to send `100 Continue`, and draining a connection after a
//! protocol error. One request is read at a time; bytes of later ones wait in the buffer.
//!
//! The life of a request:
//!
//! ```text
//! lend_buffer → (receive) → return_buffer → advance ┐
//!      ▲                                            ├─ NeedMore
//!      └────────────────────────────────────────────┘
//!        Head      authorise head(), route() it, limit_body(), maybe CONTINUE; advance again
//!        Complete  body() is whole: take() it into a job, or use it and finish()
//!        Err       write the problem with `connection: close`, half-close, drain, close
//! ```
//!
//! A request that is refused by its head (401, 404) may still have a body to come: either close
//! after the answer, or advance to `Complete` and finish, which drops the body.

pub mod chunked;
mod head;
mod multipart;
mod reader;
pub mod response;
mod route;
mod target;
mod tenant_name;

pub use head::{BodyFraming, Head, Method, Version};
pub use multipart::Multipart;
pub use reader::{Progress, Request, RequestReader};
pub use route::{Endpoint, Routed, UploadStep, route};
pub(crate) use target::is_host;
pub use tenant_name::TenantName;
