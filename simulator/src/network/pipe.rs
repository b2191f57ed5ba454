//! One direction of a connection: bytes under way and bytes arrived, under one window.

use std::collections::VecDeque;

use storage::io::Instant;

/// What travels.
#[derive(Debug)]
pub(crate) enum Segment {
    Bytes(Vec<u8>),
    /// No more bytes follow.
    Fin,
    /// The connection is gone.
    Reset,
}

/// Bytes towards one end. Invariant: bytes under way plus bytes arrived never exceed the window,
/// so a reader that does not read stops the writer.
#[derive(Debug)]
pub(crate) struct Pipe {
    transit: VecDeque<Segment>,
    transit_bytes: usize,
    arrived: VecDeque<u8>,
    window_bytes: usize,
    /// Segments keep their order: none arrives before this instant.
    pub last_arrival: Instant,
    pub fin_arrived: bool,
    pub reset_arrived: bool,
}

impl Pipe {
    pub fn new(window_bytes: usize) -> Pipe {
        assert!(window_bytes > 0);
        Pipe {
            transit: VecDeque::new(),
            transit_bytes: 0,
            arrived: VecDeque::new(),
            window_bytes,
            last_arrival: Instant(0),
            fin_arrived: false,
            reset_arrived: false,
        }
    }

    /// Bytes that fit.
    pub fn space(&self) -> usize {
        let held = self.transit_bytes + self.arrived.len();
        assert!(held <= self.window_bytes);
        self.window_bytes - held
    }

    pub fn arrived_bytes(&self) -> usize {
        self.arrived.len()
    }

    pub fn in_transit(&self) -> bool {
        !self.transit.is_empty()
    }

    /// Whether a read would not wait.
    pub fn is_readable(&self) -> bool {
        !self.arrived.is_empty() || self.fin_arrived || self.reset_arrived
    }

    pub fn depart(&mut self, segment: Segment) {
        if let Segment::Bytes(bytes) = &segment {
            assert!(!bytes.is_empty() && bytes.len() <= self.space());
            self.transit_bytes += bytes.len();
        }
        self.transit.push_back(segment);
    }

    /// The next segment arrives: its bytes leave the way.
    pub fn arrive(&mut self) -> Option<Segment> {
        let segment = self.transit.pop_front()?;
        if let Segment::Bytes(bytes) = &segment {
            self.transit_bytes -= bytes.len();
        }
        Some(segment)
    }

    /// Keep arrived bytes for the reader.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.arrived.extend(bytes);
        assert!(self.transit_bytes + self.arrived.len() <= self.window_bytes);
    }

    /// Take up to `limit` arrived bytes.
    pub fn take(&mut self, limit: usize) -> Vec<u8> {
        let count = limit.min(self.arrived.len());
        self.arrived.drain(..count).collect()
    }

    /// A reset throws away what was not read.
    pub fn reset(&mut self) {
        self.arrived.clear();
        self.reset_arrived = true;
    }
}
