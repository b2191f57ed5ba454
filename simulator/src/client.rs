//! What simulated clients need of HTTP.
