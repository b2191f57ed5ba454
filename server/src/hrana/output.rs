//! A response being written: what is buffered, what has left, and when the next part leaves.
//!
//! Parts leave only between results. A result that fails half-way (a statement error after a
//! thousand rows, or a response over its limit) is taken back to its first byte and replaced by the
//! error, and bytes that have left cannot be taken back. So one result is held whole, and the limit
//! on a response is the limit on that memory.

use tenant::{Gone, JobHost};

use crate::limits::{OUTPUT_FLUSH_BYTES, RESPONSE_BYTES_MAX};

/// The response of a pipeline or a v1 call.
pub(super) struct Output {
    /// Not yet flushed.
    pub bytes: Vec<u8>,
    flushed_bytes: usize,
    flush_at_bytes: usize,
}

impl Output {
    /// A response that leaves in parts.
    pub fn streamed(bytes: Vec<u8>) -> Output {
        assert!(bytes.is_empty());
        Output { bytes, flushed_bytes: 0, flush_at_bytes: OUTPUT_FLUSH_BYTES }
    }

    /// A response that leaves as one, because its status is known only at its end.
    pub fn whole(bytes: Vec<u8>) -> Output {
        Output { flush_at_bytes: usize::MAX, ..Output::streamed(bytes) }
    }

    /// Append constant bytes.
    pub fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// The length that `bytes` may grow to by rows.
    pub fn end(&self) -> usize {
        RESPONSE_BYTES_MAX.saturating_sub(self.flushed_bytes)
    }

    /// Between two results: let a part leave if there is enough for one.
    pub fn flush_if_full<H: JobHost>(&mut self, host: &mut H) -> Result<(), Gone> {
        if self.bytes.len() < self.flush_at_bytes {
            return Ok(());
        }
        self.flushed_bytes = self.flushed_bytes.saturating_add(self.bytes.len());
        self.bytes = host.flush(std::mem::take(&mut self.bytes))?;
        assert!(self.bytes.is_empty());
        Ok(())
    }
}
