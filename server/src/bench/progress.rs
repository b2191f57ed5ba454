//! The line on a terminal's standard error that says what is going on.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line changes: often enough to look alive, rare enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(200);

/// One line that is written over and over. Silent when standard error is no terminal.
pub struct Progress {
    is_terminal: bool,
    shown_at: Option<Instant>,
}

impl Progress {
    /// Looks whether somebody is watching.
    #[must_use]
    pub fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), shown_at: None }
    }

    /// Shows `text` if the last one has stood long enough.
    pub fn show(&mut self, now: Instant, text: impl FnOnce() -> String) {
        let recent = |shown_at: Instant| now.saturating_duration_since(shown_at) < INTERVAL;
        if !self.is_terminal || self.shown_at.is_some_and(recent) {
            return;
        }
        self.shown_at = Some(now);
        self.write(&format!("\r\x1b[K{}", text()));
    }

    /// Removes the line, so that other output finds an empty one.
    pub fn clear(&mut self) {
        if self.is_terminal && self.shown_at.take().is_some() {
            self.write("\r\x1b[K");
        }
    }

    /// A terminal that has gone away is no reason to stop measuring.
    fn write(&mut self, text: &str) {
        let mut stderr = io::stderr();
        if stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_err() {
            self.is_terminal = false;
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
