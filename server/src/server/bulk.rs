//! Calls about many databases: their answers leave line by line.

use storage::io::Io;
use storage::sometimes;
use tenant::{BulkProgress, Key, RequestId};

use super::{Server, key_of};
use crate::control::bulk;
use crate::http::{Version, chunked};

/// The media type of one JSON object a line.
const NDJSON: &str = "application/x-ndjson";

impl Server {
    /// A part is done: the next one begins when this line has left.
    pub(super) fn on_bulk<I: Io<Server>>(
        &mut self,
        io: &mut I,
        request: RequestId,
        progress: &BulkProgress,
    ) {
        let key = key_of(request);
        let Some(connection) = self.connections.get_mut(key) else {
            sometimes!("a call about many databases goes on when its client has gone");
            return self.engine.cancel(request);
        };
        connection.exchange.content_type = NDJSON;
        self.on_part(io, key, bulk::progress_line(progress));
    }

    /// All is done.
    pub(super) fn on_bulk_end<I: Io<Server>>(
        &mut self,
        io: &mut I,
        key: Key,
        progress: &BulkProgress,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut body = bulk::last_line(progress);
        if !connection.exchange.streamed {
            return self.answer(io, key, NDJSON, body);
        }
        if connection.exchange.version == Version::Http11 {
            chunked::frame_last(&mut body);
        }
        self.respond(io, key, body);
    }
}
