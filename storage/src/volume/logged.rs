//! A database that is one transaction in the commit log and nothing else: how it comes to be.

use super::{Frame, Sealing, Volume};
use crate::log::{Committed, Sequence};

/// The transaction that a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedBuild {
    /// Its number in the log, once it has begun, which tells where its pages are.
    pub number: Option<u64>,
    /// Where it lies, once it is there.
    pub committed: Option<Committed>,
    /// Pages of the database.
    pub pages: u32,
}

impl LoggedBuild {
    /// All of it is in the log, on the way to the disk at least.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.committed.is_some()
    }

    /// The batch that has to be durable for it to be.
    #[must_use]
    pub fn last(&self) -> Option<Sequence> {
        self.committed.map(|committed| committed.last)
    }
}

impl Volume {
    /// So many pages, from the first on, lie in the WAL image, one a frame: begin to seal them as the first
    /// transaction, which is all that this volume does.
    ///
    /// # Panics
    /// If there is anything already.
    pub fn begin_logged_build(&mut self, pages: u32) {
        assert!(self.last_txid == 0 && !self.main.exists && self.overlay.is_none());
        assert!(self.frames.is_empty() && self.sealing.is_none() && self.regions.is_empty());
        assert!(pages > 0 && self.logged_build.is_none());
        self.frames = (1..=pages)
            .map(|page_number| Frame {
                page_number,
                database_pages: if page_number == pages { pages } else { 0 },
            })
            .collect();
        self.logged_build = Some(LoggedBuild { number: None, committed: None, pages });
        let images = (1..=pages).map(|number| (number, number - 1)).collect();
        self.sealing = Some(Sealing::new(images, pages, pages));
    }
}
