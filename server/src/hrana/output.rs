//! A response being written: what is buffered, what has left, and when the next part leaves.
//!
//! Parts leave only between results. A result that fails half-way (a statement error after a
//! thousand rows, or a response over its limit) is taken back to its first byte and replaced by the
//! error, and bytes that have left cannot be taken back. So one result is held whole, and the limit
//! on a response is the limit on that memory.

use storage::fiber;
use storage::ledger::Booking;
use tenant::{Gone, JobHost, StatementError};

use crate::limits::{OUTPUT_FLUSH_BYTES, RESPONSE_BYTES_MAX, RESPONSE_UNBOOKED_BYTES};

/// What stands around a response: its head, the frame of a part, its end.
const AROUND_BYTES: usize = 1024;

/// The bytes of a response on the account of the database that it is from.
pub(super) fn booking() -> Booking {
    Booking::on(fiber::account())
}

/// Let `bytes` grow by so many, on the booking's account: `false` if that has no room. What is booked
/// follows from the response's length alone, not from the buffer that it was given.
pub(super) fn reserve(bytes: &mut Vec<u8>, booking: &mut Booking, growth_bytes: usize) -> bool {
    let length = bytes.len().saturating_add(growth_bytes);
    if is_reserved(booking, length) {
        return true;
    }
    // Steps of an eighth to a quarter: copies of it are few, and as little is held in vain.
    let step = (length.next_power_of_two() / 8).max(RESPONSE_UNBOOKED_BYTES);
    let rounded = length.next_multiple_of(step);
    if !booking.grow_to(rounded as u64) {
        return false;
    }
    bytes.reserve_exact(rounded + AROUND_BYTES - bytes.len());
    true
}

/// Whether a response of this length is booked.
pub(super) fn is_reserved(booking: &Booking, length: usize) -> bool {
    length <= RESPONSE_UNBOOKED_BYTES || length as u64 <= booking.bytes()
}

/// The response of a pipeline or a v1 call.
pub(super) struct Output {
    /// Not yet flushed.
    pub bytes: Vec<u8>,
    /// Those bytes, on the database's account until they have left.
    pub booking: Booking,
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
        let booking = booking();
        Output { bytes, booking, flushed_bytes: 0, flush_at_bytes: OUTPUT_FLUSH_BYTES, bytes_max }
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
        // It stays booked until it has left.
        self.bytes = host.flush(std::mem::take(&mut self.bytes))?;
        self.booking.clear();
        assert!(self.bytes.is_empty());
        Ok(())
    }
}
