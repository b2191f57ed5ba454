//! Tests of the commit log against a device in memory. Everything is seeded; nothing waits.

mod device;
mod life;
mod world;
