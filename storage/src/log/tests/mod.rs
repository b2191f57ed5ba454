//! Tests of the commit log against a device in memory. Everything is seeded; nothing waits.

mod crash;
mod device;
mod life;
mod located;
mod space;
mod table;
mod world;
