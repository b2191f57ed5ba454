//! A response being written: what is buffered, what has left, and when the next part leaves.
//!
//! Parts leave only between results. A result that fails half-way (a statement error after a
//! thousand rows, or a response over its limit) is taken back to its first byte and replaced by the
//! error, and bytes that have left cannot be taken back. So one result is held whole, and the limit
//! on a response is the limit on that memory.

use tenant::{Gone, JobHost, StatementError};

use crate::limits::{OUTPUT_FLUSH_BYTES, RESPONSE_BYTES_MAX};

/// The response of a pipeline or a v1 call.
pub(super) struct Output {
    /// Not yet flushed.
    pub bytes: Vec<u8>,
    flushed_bytes: usize,
    flush_at_bytes: usize,
    bytes_max: usize,
}

/// The limit on a response that is held whole: the tenant's, and never beyond ours.
pub(super) fn bytes_max<H: JobHost>(host: &H) -> usize {
    let bytes = usize::try_from(host.response_bytes_max()).unwrap_or(usize::MAX);
    bytes.min(RESPONSE_BYTES_MAX)
}

impl Output {
    /// A response of at most `bytes_max` that leaves in parts.
    pub fn streamed(bytes: Vec<u8>, bytes_max: usize) -> Output {
        assert!(bytes.is_empty());
        Output { bytes, flushed_bytes: 0, flush_at_bytes: OUTPUT_FLUSH_BYTES, bytes_max }
    }

    /// A response that leaves as one, because its status is known only at its end.
    pub fn whole(bytes: Vec<u8>, bytes_max: usize) -> Output {
        Output { flush_at_bytes: usize::MAX, ..Output::streamed(bytes, bytes_max) }
    }

    /// Append constant bytes.
    pub fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// The length that `bytes` may grow to by rows.
    pub fn end(&self) -> usize {
        self.bytes_max.saturating_sub(self.flushed_bytes)
    }

    /// Why a result does not fit.
    pub fn too_large(&self) -> StatementError {
        let text = format!(
            "the response is over its limit of {} bytes (response_bytes); ask for fewer rows, or read \
             them by a cursor",
            self.bytes_max
        );
        StatementError::new("RESPONSE_TOO_LARGE", text)
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
