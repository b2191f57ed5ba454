//! Jobs without an engine.
