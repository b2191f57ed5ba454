//! The attack battery against the real process, on both Ios: what strangers send, the one right answer to
//! each, and what the neighbours see of it.
//!
//! `attacks/statements.txt`, `attacks/http.txt` and `attacks/tokens.txt` are lists for people to read and add
//! to; `calls` makes its cases from lists of fields. After every case a neighbour's point select is answered within
//! [`CONTROL_MAX`], the process lives, and it has no more resident than its `--memory` and what the
//! program may have beside that. `MYRIAD_ATTACK=word` runs only cases whose name has the word in it;
//! `MYRIAD_ATTACK_LEARN=1` says what is answered instead of failing.

#[path = "attacks/calls.rs"]
mod calls;
#[path = "attacks/forge.rs"]
mod forge;
#[path = "attacks/ground.rs"]
mod ground;
#[path = "attacks/peers.rs"]
mod peers;
#[path = "process/mod.rs"]
mod process;
#[path = "attacks/statements.rs"]
mod statements;
#[path = "attacks/tokens.rs"]
mod tokens;
#[path = "attacks/wire.rs"]
mod wire;
