//! A file from the body of a request to the quarantine, and its header.

use storage::quarantine::header::{self, BadHeader, FileHeader, HEADER_BYTES};
use storage::quarantine::{self};
use storage::sometimes;

use super::{Blame, ImportError, ImportHost};

impl From<BadHeader> for ImportError {
    fn from(bad: BadHeader) -> ImportError {
        let message = bad.to_string();
        let (blame, code) = match bad {
            BadHeader::Compressed(_) => (Blame::Kind, "UPLOAD_COMPRESSED"),
            BadHeader::NotSqlite | BadHeader::TooShort(_) => (Blame::Content, "UPLOAD_NOT_SQLITE"),
            BadHeader::Truncated { .. } => (Blame::Content, "UPLOAD_TRUNCATED"),
            BadHeader::Field { .. } => (Blame::Content, "UPLOAD_DAMAGED"),
        };
        sometimes!("an upload is refused for its header");
        ImportError::new(blame, code, format!("the upload is no good: {message}"))
    }
}

/// Keep all that comes: its bytes. What its first bytes tell is judged before more is taken.
pub(super) fn file(host: &mut dyn ImportHost, bytes_max: u64) -> Result<u64, ImportError> {
    let (mut spare, mut judged) = (Vec::new(), false);
    while let Some(piece) = host.receive(spare).map_err(|_| ImportError::gone())? {
        quarantine::append(&piece).map_err(|unkept| ImportError::unkept(unkept, bytes_max))?;
        if !judged {
            judged = judge_start(bytes_max)?;
        }
        spare = piece;
        spare.clear();
    }
    Ok(quarantine::size())
}

/// Whether enough of the file has come to be judged, and it was.
fn judge_start(bytes_max: u64) -> Result<bool, ImportError> {
    let mut start = [0; HEADER_BYTES];
    let length = read_start(&mut start)?;
    header::check_start(&start[..length])?;
    if length < HEADER_BYTES {
        return Ok(false);
    }
    // As if all of it were there: what it claims is a size of its own.
    if let Err(BadHeader::Truncated { wants, .. }) = header::check(&start, quarantine::size())
        && wants > bytes_max
    {
        return Err(ImportError::too_large(wants, bytes_max));
    }
    Ok(true)
}

fn read_start(start: &mut [u8; HEADER_BYTES]) -> Result<usize, ImportError> {
    quarantine::read(0, start).map_err(|unkept| ImportError::unkept(unkept, 0))
}

/// What the whole file's header says.
pub(super) fn header() -> Result<FileHeader, ImportError> {
    let mut start = [0; HEADER_BYTES];
    let length = read_start(&mut start)?;
    Ok(header::check(&start[..length], quarantine::size())?)
}
