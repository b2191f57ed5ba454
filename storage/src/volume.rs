//! One tenant's storage while it is open: WAL image, wal-index, locks, commits, checkpoint state.
//!
//! Owns what the VFS works on, as plain values: nothing here waits, calls C or knows the Io. The
//! VFS (`vfs.rs`) borrows the volume between suspensions; the engine owns it in between.
//!
//! **Where a page is**, in the order in which it is looked for: SQLite finds what is in the WAL
//! through the wal-index; then the *overlay*, pages that recovery found in the commit log and that
//! no checkpoint has written yet; then the tenant's file; a tenant without a file reads as the
//! constant empty database.
//!
//! **A database that is only in memory** has an extent instead of the file: nothing of it is in the
//! log, checkpoints write to the extent, and nothing of it spills. See `volume/memory.rs`.
//!
//! **What a commit is** (F8). Not a sync of the WAL: SQLite also syncs after a WAL restart and
//! before a checkpoint, and may still fail after a commit's sync. A commit is what the wal-index
//! header says when the writer lock is released: frames `(logged, mxFrame]` are then *sealed* into
//! one transaction of the commit log, the last version of each page. Space for it was reserved at
//! the WAL's sync, where a refusal still rolls back cleanly.
//!
//! Invariants: `logged_frame <= frames.len()`; a transaction id is given once, in order, without
//! gaps; `redo_from` is set while any commit is not in the file for good.

mod locks;
mod logged;
mod memory;
mod sealing;

use std::collections::{BTreeMap, VecDeque};

use slab::Slab;

use crate::allowance::Allowance;
use crate::extent::Extent;
use crate::identity::TenantId;
use crate::io::{Buffer, FileId};
use crate::ledger::{self, AccountId, Counted, Kind, Turnover};
use crate::limits;
use crate::log::{PageLocation, RecoveredTenant, Sequence, Transaction};
use crate::page::{self, Mark};
use crate::quarantine::Quarantine;
use crate::sometimes;

pub use locks::{ConnectionId, LOCKS, Locks, WRITER_LOCK, WriterFor};
pub use logged::LoggedBuild;
pub use sealing::Sealing;

/// Bytes of a WAL header.
pub const WAL_HEADER_BYTES: u64 = 32;
/// Bytes of a WAL frame header.
pub const FRAME_HEADER_BYTES: u64 = 24;
/// Bytes of a WAL frame.
pub const FRAME_BYTES: u64 = FRAME_HEADER_BYTES + page::PAGE_BYTES as u64;
/// Bytes of a wal-index region, fixed by SQLite.
pub const REGION_BYTES: usize = 32 * 1024;
/// Where SQLite's `WalCkptInfo` lies in the wal-index, behind two headers of 48 bytes.
const BACKFILL_OFFSET: usize = 96;

/// A frame of the WAL as its header describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The page that it holds.
    pub page_number: u32,
    /// Pages of the database after the commit that this frame ends; 0 if it ends none.
    pub database_pages: u32,
}

/// The tenant's main file.
#[derive(Debug, Default)]
pub struct MainFile {
    /// A checkpoint has made the file, durably.
    pub exists: bool,
    /// The open file.
    pub handle: Option<FileId>,
    /// The same file past the page cache, for read-back; open during a checkpoint.
    pub direct: Option<FileId>,
    /// Its size in pages.
    pub pages: u32,
    /// Stamp of page 1 in the file, once a checkpoint of this volume wrote it.
    pub stamp: u64,
    /// Stamp of page 1 that the catalogue knows; the file may be newer, never older (F10).
    pub stamp_min: u64,
}

/// The bytes of a page.
pub type MemoryPage = [u8; page::PAGE_BYTES];

/// A sealed commit that no checkpoint has covered yet.
#[derive(Clone, Copy, Debug)]
struct Commit {
    txid: u64,
    /// Its last frame; 0 once the WAL was started anew, which SQLite does only when every frame is
    /// in the file.
    last_frame: u32,
    first_sequence: Sequence,
}

/// Pages that recovery found in the commit log.
#[derive(Debug)]
struct Overlay {
    pages: Vec<(u32, PageLocation)>,
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub struct Checkpoint {
    /// Transaction id in the tail of every page that it writes.
    pub stamp: u64,
    /// Pages written since the last sync of the file, with the checks in their tails: their stamp does
    /// not tell them from what the same checkpoint brought from the log before.
    pub written: BTreeMap<u32, [u8; page::CHECK_BYTES]>,
    /// Consecutive pages not written yet, tails set.
    pub run: Option<(u32, Buffer, usize)>,
    /// The file was cut since its last sync.
    pub cut: bool,
    /// SQLite's result code of what went wrong after SQLite's last look at results.
    pub failed: Option<i32>,
}

/// Where a page of the main file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSource {
    /// In the commit log, found by recovery.
    Log(PageLocation),
    /// In the tenant's file.
    File,
    /// The constant page 1 of an empty database.
    Empty,
    /// In memory: it has no file.
    Memory,
    /// Past the end: zeros.
    Beyond,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Volume {
    tenant: TenantId,
    account: AccountId,
    /// The tenant's main file.
    pub main: MainFile,
    /// What it has instead, if it is only in memory.
    memory: Option<memory::MemoryMain>,
    overlay: Option<Overlay>,
    /// The log batch that the overlay's pages begin in, until a checkpoint of them is known to the
    /// catalogue.
    recovered_from: Option<Sequence>,
    database_pages: u32,
    /// The WAL image.
    pub wal: Extent,
    frames: Vec<Frame>,
    logged_frame: u32,
    backfilled_frame: u32,
    regions: Vec<Counted<u64>>,
    /// The locks of its connections.
    pub locks: Locks,
    /// SQLite's temporary objects.
    pub scratch: Slab<Extent>,
    /// A stranger's file, while the database is made from it.
    pub quarantine: Option<Quarantine>,
    /// Files to close: [`Volume::take_closing`].
    pub closing: Vec<FileId>,
    last_txid: u64,
    last_sequence: Option<Sequence>,
    commits: VecDeque<Commit>,
    /// Pages for which the transaction that is about to commit has room in the log.
    pub reserved_pages: Option<u32>,
    /// Pages reserved by a transaction that did not commit after all: the engine gives them back.
    pub unused_pages: Vec<u32>,
    /// The whole database is one transaction in the log, which nothing else was done to.
    pub logged_build: Option<LoggedBuild>,
    /// The transaction that is being appended to the log.
    pub sealing: Option<Sealing>,
    /// A transaction that was given up half way into the log.
    pub abandoned: Option<Transaction>,
    /// Times that the VFS had no room for something: with any other `SQLITE_FULL` the database has
    /// as many pages as it may have.
    pub full_answers: u64,
    /// The checkpoint that is being written.
    pub checkpoint: Option<Checkpoint>,
    /// What its statements may still do in its life.
    pub allowance: Allowance,
    damage: Option<String>,
    statistics: u64,
    /// What the transaction of this connection, which holds the writer lock, leaves in page 1.
    mark: Option<(ConnectionId, Mark)>,
    /// The last transaction that left a mark since the open.
    marked_txid: Option<u64>,
    random: blake3::OutputReader,
}

/// What opens a volume.
#[derive(Debug)]
pub struct VolumeOptions {
    /// Whose it is.
    pub tenant: TenantId,
    /// Bytes of memory it may hold.
    pub memory_limit: u64,
    /// Bytes of temporary files it may hold.
    pub temporary_limit: u64,
    /// The account of its group or organisation, if it is in one.
    pub parent: Option<AccountId>,
    /// The catalogue says that the tenant has a file.
    pub file_exists: bool,
    /// Stamp of the last checkpoint, from the catalogue.
    pub stamp_min: u64,
    /// The last transaction that it covered, from the catalogue.
    pub last_txid: u64,
    /// What recovery found in the commit log.
    pub recovered: Option<RecoveredTenant>,
    /// It is only in memory.
    pub memory: bool,
    /// Seed of tenants' random generators (F13), and a number that this seed has not been used with:
    /// a tenant that is opened again must not draw what it drew before.
    pub seed: [u8; 32],
    /// See `seed`.
    pub nonce: u64,
}

impl Volume {
    /// An open volume; touches no file.
    ///
    /// # Errors
    /// A sentence if the tenant cannot be opened safely: it has commits in the log that stand on
    /// a file which never was.
    pub fn open(options: VolumeOptions) -> Result<Volume, String> {
        let mut last_txid = options.last_txid.max(options.stamp_min);
        let mut database_pages = if options.file_exists { 0 } else { 1 };
        if options.recovered.is_none() && !options.file_exists && last_txid > 0 {
            return Err(format!(
                "its first {last_txid} transactions are neither in a file nor in the log"
            ));
        }
        let mut overlay = None;
        let mut recovered_from = None;
        if let Some(recovered) = options.recovered {
            if !options.file_exists && recovered.first_txid != 1 {
                return Err(format!(
                    "its first {} transactions are neither in a file nor in the log",
                    recovered.first_txid - 1
                ));
            }
            last_txid = last_txid.max(recovered.last_txid);
            database_pages = recovered.database_pages;
            overlay = Some(Overlay { pages: recovered.pages.into_iter().collect() });
            recovered_from = Some(recovered.first_sequence);
        }
        let account = ledger::open(options.memory_limit, options.parent);
        ledger::set_temporary_limit(account, options.temporary_limit);
        let mut random = blake3::Hasher::new_keyed(&options.seed);
        random.update(&options.tenant.0.to_le_bytes());
        random.update(&options.nonce.to_le_bytes());
        Ok(Volume {
            tenant: options.tenant,
            account,
            main: MainFile {
                exists: options.file_exists,
                stamp_min: options.stamp_min,
                stamp: options.stamp_min,
                ..MainFile::default()
            },
            memory: options.memory.then(|| memory::MemoryMain::new(account)),
            overlay,
            recovered_from,
            database_pages,
            wal: match options.memory {
                true => Extent::in_memory(account, Kind::Wal),
                false => Extent::new(account, Kind::Wal, limits::WAL_MEMORY_BYTES_MAX),
            },
            frames: Vec::new(),
            logged_frame: 0,
            backfilled_frame: 0,
            regions: Vec::new(),
            locks: Locks::default(),
            scratch: Slab::new(),
            quarantine: None,
            closing: Vec::new(),
            last_txid,
            last_sequence: None,
            commits: VecDeque::new(),
            reserved_pages: None,
            unused_pages: Vec::new(),
            logged_build: None,
            sealing: None,
            abandoned: None,
            full_answers: 0,
            checkpoint: None,
            allowance: Allowance::default(),
            damage: None,
            statistics: 0,
            mark: None,
            marked_txid: None,
            random: random.finalize_xof(),
        })
    }

    /// Close: give back all memory. Temporary and main files to close are returned, and all that was
    /// booked on its account.
    ///
    /// # Panics
    /// If a connection or a checkpoint still uses the volume.
    #[must_use]
    pub fn close(mut self) -> (Vec<FileId>, Turnover) {
        assert!(self.scratch.is_empty());
        assert!(self.sealing.is_none());
        assert!(self.locks.are_free());
        let mut files = std::mem::take(&mut self.closing);
        files.extend(self.wal.clear());
        files.extend(self.quarantine.take().and_then(Quarantine::clear));
        files.extend(self.main.handle.take());
        files.extend(self.main.direct.take());
        self.main.pages = 0;
        self.memory = None;
        self.book_files();
        let index_bytes = (self.regions.len() * REGION_BYTES) as u64;
        self.regions.clear();
        ledger::credit(self.account, Kind::WalIndex, index_bytes);
        let account = self.account;
        drop(self);
        (files, ledger::close(account))
    }

    /// Whose volume this is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Files that it has open, or that are about to be closed for it.
    #[must_use]
    pub fn open_files(&self) -> usize {
        let main =
            usize::from(self.main.handle.is_some()) + usize::from(self.main.direct.is_some());
        let scratch = self.scratch.iter().filter(|(_, extent)| extent.file().is_some()).count();
        let quarantine = self.quarantine.as_ref().is_some_and(|q| q.extent.file().is_some());
        let extents = scratch + usize::from(self.wal.file().is_some()) + usize::from(quarantine);
        main + extents + self.closing.len()
    }

    /// Files that a fiber has left to be closed. Also books what it left open, and the file's size:
    /// called after each time that a fiber of the tenant ran.
    #[must_use]
    pub fn take_closing(&mut self) -> Vec<FileId> {
        let closing = std::mem::take(&mut self.closing);
        self.book_files();
        closing
    }

    /// Whoever opens, closes, cuts or writes a file does it within one run of a fiber, at the end of
    /// which this finds out what has changed: it leaves nothing to be forgotten there.
    fn book_files(&mut self) {
        let file_bytes = u64::from(self.main.pages) * page::PAGE_BYTES as u64;
        ledger::rebook(self.account, Kind::File, file_bytes);
        ledger::rebook(self.account, Kind::Descriptor, self.open_files() as u64);
    }

    /// The account that pays for it.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// Id of the last sealed transaction; 0 if there never was one.
    #[must_use]
    pub fn last_txid(&self) -> u64 {
        self.last_txid
    }

    /// The log batch that ends the last sealed transaction, if any was sealed since the open.
    #[must_use]
    pub fn last_sequence(&self) -> Option<Sequence> {
        self.last_sequence
    }

    /// The oldest log batch that the tenant still needs.
    #[must_use]
    pub fn redo_from(&self) -> Option<Sequence> {
        let commit = self.commits.front().map(|commit| commit.first_sequence);
        [self.recovered_from, commit].into_iter().flatten().min()
    }

    /// Bytes of the WAL image.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.wal.size()
    }

    /// Why the tenant must be fenced, once something is found to be damaged.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Note damage; the first one stays.
    pub fn set_damage(&mut self, reason: String) {
        self.damage.get_or_insert(reason);
    }

    /// Which statistics of the planner are in force: a connection that has read others plans by them.
    #[must_use]
    pub fn statistics(&self) -> u64 {
        self.statistics
    }

    /// The planner's statistics have changed: connections read them anew.
    pub fn on_statistics(&mut self) {
        self.statistics += 1;
    }

    /// Fill from the tenant's own random generator (F13).
    pub fn random(&mut self, bytes: &mut [u8]) {
        self.random.fill(bytes);
    }

    // ---- the main file ----

    /// Where a page of the main file is now.
    #[must_use]
    pub fn page_source(&self, page_number: u32) -> PageSource {
        assert!(page_number > 0);
        if let Some(main) = &self.memory {
            return main.source(page_number);
        }
        if let Some(overlay) = &self.overlay {
            if page_number > self.database_pages {
                return PageSource::Beyond;
            }
            let found = overlay.pages.binary_search_by_key(&page_number, |&(number, _)| number);
            if let Ok(index) = found {
                sometimes!("a page is read from the log");
                return PageSource::Log(overlay.pages[index].1);
            }
        }
        if self.main.exists {
            return PageSource::File;
        }
        sometimes!("a database without a file is read");
        if page_number == 1 { PageSource::Empty } else { PageSource::Beyond }
    }

    /// Size of the main file in pages as SQLite should see it.
    #[must_use]
    pub fn main_pages(&self) -> u32 {
        if let Some(main) = &self.memory {
            return main.pages().max(1);
        }
        match (&self.overlay, self.main.exists) {
            (Some(_), _) => self.database_pages,
            (None, true) => self.main.pages,
            (None, false) => 1,
        }
    }

    /// Bytes of the database as of its last commit; `None` where only its file knows and nobody has
    /// looked. 0 before anything was written.
    #[must_use]
    pub fn database_bytes(&self) -> Option<u64> {
        let logged = &self.frames[..self.logged_frame as usize];
        let committed = logged.iter().rev().find(|frame| frame.database_pages != 0);
        let pages = match (committed, &self.overlay, self.main.exists) {
            (Some(frame), ..) => frame.database_pages,
            (None, ..) if self.memory.is_some() => self.memory.as_ref().map_or(0, |m| m.pages()),
            (None, Some(_), _) => self.database_pages,
            (None, None, true) if self.main.pages == 0 => return None,
            (None, None, true) => self.main.pages,
            (None, None, false) => 0,
        };
        Some(u64::from(pages) * page::PAGE_BYTES as u64)
    }

    /// Recovered pages that no checkpoint has written yet, in order.
    #[must_use]
    pub fn overlay_pages(&self) -> Vec<(u32, PageLocation)> {
        self.overlay.as_ref().map_or_else(Vec::new, |overlay| overlay.pages.clone())
    }

    /// What the checkpoint wrote is in the file for good, the overlay with it, page 1 perhaps. SQLite
    /// may now send readers to the file.
    pub fn on_main_synced(&mut self, stamp: u64, wrote_page_one: bool) {
        if wrote_page_one {
            self.main.stamp = stamp;
        }
        self.main.exists = true;
        self.overlay = None;
    }

    /// SQLite's checkpoint has brought the first `frame` frames of the WAL into the file.
    pub fn on_backfill(&mut self, frame: u32) {
        assert!(frame <= self.logged_frame);
        self.backfilled_frame = frame;
    }

    /// There are recovered pages that no checkpoint has written yet.
    #[must_use]
    pub fn has_overlay(&self) -> bool {
        self.overlay.is_some()
    }

    /// There are pages that the file does not have: in the overlay, or in frames of the WAL that no
    /// checkpoint has copied.
    #[must_use]
    pub fn has_pending_pages(&self) -> bool {
        self.overlay.is_some() || self.backfilled_frame < self.logged_frame
    }

    /// Page 1 is in the overlay or in frames of the WAL that are not in the file yet, so the next
    /// checkpoint stamps it. (Frames that an earlier checkpoint copied are not copied again, even
    /// where readers kept the WAL from starting anew: with them, files of different age had the
    /// same stamp.)
    #[must_use]
    pub fn page_one_pending(&self) -> bool {
        // SQLite's own count, `nBackfill` (byte 96), is ahead of ours if a checkpoint failed late.
        let copied = self.index_word(24).unwrap_or(0).max(self.backfilled_frame);
        let copied = copied.min(self.logged_frame) as usize;
        matches!(self.page_source(1), PageSource::Log(_))
            || self.frames[copied..self.logged_frame as usize].iter().any(|f| f.page_number == 1)
    }

    /// The file is about to be made of pages from elsewhere: they are the first transaction.
    pub fn begin_build(&mut self) {
        assert!(self.last_txid == 0 && !self.main.exists && self.overlay.is_none());
        assert!(self.frames.is_empty());
        self.last_txid = 1;
    }

    // ---- marks ----

    /// The transaction of this connection, which holds the writer lock, leaves this in page 1.
    pub fn set_mark(&mut self, connection: ConnectionId, mark: Mark) {
        assert!(self.locks.writer() == Some(connection));
        self.mark = Some((connection, mark));
    }

    /// What is to be left in the page of this frame, if it is page 1 of a transaction that leaves a mark.
    #[must_use]
    pub fn mark_of_frame(&self, index: usize) -> Option<Mark> {
        let (connection, mark) = self.mark?;
        let is_first_page = self.frames.get(index).is_some_and(|frame| frame.page_number == 1);
        (is_first_page && self.locks.writer() == Some(connection)).then_some(mark)
    }

    /// The last transaction that left a mark, if any has since the open.
    #[must_use]
    pub fn marked_txid(&self) -> Option<u64> {
        self.marked_txid
    }

    /// The last frame of the WAL that holds page 1, of what was committed.
    #[must_use]
    pub fn page_one_frame(&self) -> Option<u32> {
        let logged = &self.frames[..self.logged_frame as usize];
        let found = logged.iter().rposition(|frame| frame.page_number == 1)?;
        Some(u32::try_from(found).expect("frames fit in 32 bits"))
    }

    // ---- the WAL ----

    /// The WAL is being started anew: its header was written, or it was cut to nothing.
    pub fn on_wal_header(&mut self) {
        assert!(self.sealing.is_none());
        self.frames.clear();
        self.logged_frame = 0;
        self.backfilled_frame = 0;
        for commit in &mut self.commits {
            commit.last_frame = 0;
        }
    }

    /// A frame header was written at `index` (from 0).
    ///
    /// # Errors
    /// If SQLite leaves a gap, which it never does.
    pub fn on_frame_header(&mut self, index: usize, frame: Frame) -> Result<(), String> {
        if index < self.frames.len() {
            if (index as u64) < u64::from(self.logged_frame) {
                return Err("a logged frame was written again".into());
            }
            self.frames[index] = frame;
            return Ok(());
        }
        if index > self.frames.len() {
            return Err("a frame was left out".into());
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Distinct pages of the commit that ends in the last frames written, if a commit frame is
    /// among them: what the log must have room for.
    #[must_use]
    pub fn committing_pages(&self) -> Option<u32> {
        let new = &self.frames[self.logged_frame as usize..];
        let end = new.iter().rposition(|frame| frame.database_pages != 0)?;
        let database_pages = new[end].database_pages;
        let mut pages: Vec<u32> = new[..=end]
            .iter()
            .map(|frame| frame.page_number)
            .filter(|&number| number <= database_pages)
            .collect();
        pages.sort_unstable();
        pages.dedup();
        Some(u32::try_from(pages.len()).expect("frames fit in 32 bits"))
    }

    /// The writer lock is being released: begin to seal what was committed under it, if anything.
    #[must_use]
    pub fn begin_sealing(&mut self) -> bool {
        let marks = self.mark.take().is_some();
        let committed = self.find_commit();
        if let Some(sealing) = &mut self.sealing {
            assert!(!marks || sealing.pages.first().is_some_and(|&(number, _)| number == 1));
            sealing.marks = marks;
        }
        if !committed {
            if self.frames.len() > self.logged_frame as usize {
                sometimes!("a spilled transaction is rolled back");
            }
            // Frames of a transaction that did not commit: the next one writes over them, and must
            // not find their commit frame.
            self.frames.truncate(self.logged_frame as usize);
        }
        committed
    }

    /// What the wal-index says was committed since the last sealed frame becomes `sealing`.
    fn find_commit(&mut self) -> bool {
        assert!(self.sealing.is_none());
        if self.damage.is_some() {
            // A commit before this one may be missing in the log, and nobody will be told of any.
            return false;
        }
        let Some((max_frame, database_pages)) = self.index_header() else {
            return false;
        };
        if max_frame <= self.logged_frame || max_frame as usize > self.frames.len() {
            return false;
        }
        let first = self.logged_frame as usize;
        let mut pages: Vec<(u32, u32)> = self.frames[first..max_frame as usize]
            .iter()
            .enumerate()
            .filter(|(_, frame)| frame.page_number <= database_pages)
            .map(|(offset, frame)| (frame.page_number, (first + offset) as u32))
            .collect();
        pages.sort_unstable();
        // The last version of each page: of equal page numbers the largest frame.
        let mut kept = 0;
        for index in 0..pages.len() {
            if index + 1 < pages.len() && pages[index + 1].0 == pages[index].0 {
                continue;
            }
            pages[kept] = pages[index];
            kept += 1;
        }
        pages.truncate(kept);
        self.sealing = Some(Sealing::new(pages, database_pages, max_frame));
        true
    }

    /// The sealing transaction is in the log, ending in batch `sequence`.
    pub fn end_sealing(&mut self, sequence: Sequence) {
        let sealing = self.sealing.take().expect("something is being sealed");
        assert!(sealing.next == sealing.pages.len());
        assert!(sealing.last_frame > self.logged_frame);
        self.logged_frame = sealing.last_frame;
        self.frames.truncate(self.logged_frame as usize);
        self.last_txid += 1;
        if sealing.marks {
            self.marked_txid = Some(self.last_txid);
        }
        self.last_sequence = Some(sequence);
        self.commits.push_back(Commit {
            txid: self.last_txid,
            last_frame: sealing.last_frame,
            first_sequence: sealing.first_sequence.expect("a finished transaction has begun"),
        });
    }

    /// What was reserved in the log is not needed: the transaction did not commit.
    pub fn release_reservation(&mut self) {
        self.unused_pages.extend(self.reserved_pages.take());
    }

    /// The fiber brought a spilled page that the log asked for; without it the commit can not be
    /// logged, and the tenant is fenced: nothing of it was acknowledged.
    pub fn bring(&mut self, page: Option<Buffer>) {
        match (page, &mut self.sealing) {
            (Some(page), Some(sealing)) => sealing.brought = Some(page),
            _ => {
                self.set_damage("its spilled WAL cannot be read back".into());
                self.abandon_sealing();
            }
        }
    }

    /// Give the sealing transaction up: the world ends, or the tenant is fenced.
    pub fn abandon_sealing(&mut self) {
        if let Some(sealing) = self.sealing.take() {
            self.abandoned = sealing.transaction;
        }
        self.release_reservation();
    }

    /// Byte offset of a frame's page in the WAL image.
    #[must_use]
    pub fn frame_page_offset(frame: u32) -> u64 {
        WAL_HEADER_BYTES + u64::from(frame) * FRAME_BYTES + FRAME_HEADER_BYTES
    }

    /// mxFrame and nPage of the wal-index header (SQLite's `WalIndexHdr`, in the machine's byte
    /// order: isInit at byte 12, mxFrame at 16, nPage at 20).
    fn index_header(&self) -> Option<(u32, u32)> {
        let initialised = self.index_word(3)?.to_ne_bytes()[0] != 0;
        initialised.then_some((self.index_word(4)?, self.index_word(5)?))
    }

    /// The 32-bit word of this index in the first region of the wal-index.
    fn index_word(&self, index: usize) -> Option<u32> {
        let bytes = self.regions.first()?[index / 2].to_ne_bytes();
        let half = (index % 2) * 4;
        Some(u32::from_ne_bytes(bytes[half..half + 4].try_into().expect("4 bytes")))
    }

    /// A checkpoint has failed, and SQLite did not notice: take back its word (`nBackfill`, byte 96
    /// of the wal-index) that readers may go to the file for more than before. No other fiber has
    /// run since SQLite gave it, and a smaller number is always right.
    pub fn withdraw_backfill(&mut self) {
        let backfilled = self.backfilled_frame;
        let Some(region) = self.regions.first_mut() else { return };
        let word = &mut region[BACKFILL_OFFSET / 8];
        let mut bytes = word.to_ne_bytes();
        let mut number = [0; 4];
        number.copy_from_slice(&bytes[..4]);
        if u32::from_ne_bytes(number) > backfilled {
            sometimes!("SQLite's word for a failed checkpoint is taken back");
            bytes[..4].copy_from_slice(&backfilled.to_ne_bytes());
            *word = u64::from_ne_bytes(bytes);
        }
    }

    /// SQLite's `aReadMark` (behind `nBackfill`): the last frame that a reader with this lock may see.
    #[must_use]
    pub(crate) fn read_mark(&self, lock: u32) -> u32 {
        self.index_word(BACKFILL_OFFSET / 4 + 1 + lock as usize).unwrap_or(0)
    }

    /// Which life of the WAL it is (its salts), and its last frame.
    #[must_use]
    pub fn wal_position(&self) -> ([Option<u32>; 2], u32) {
        let salts = [self.index_word(8), self.index_word(9)];
        (salts, self.index_header().map_or(0, |(max_frame, _)| max_frame))
    }

    /// Pages of the database after the commit that this frame ends.
    #[must_use]
    pub(crate) fn pages_at(&self, mark: u32) -> Option<u32> {
        let frame = self.frames.get((mark as usize).checked_sub(1)?)?;
        Some(frame.database_pages).filter(|pages| *pages > 0)
    }

    /// Of the first `mark` frames, the last one of each page up to `pages`, in the order of pages; `None`
    /// if there are not so many, which would be a promise of SQLite's that is not kept.
    pub(crate) fn last_frames(&self, mark: u32, pages: u32) -> Option<Vec<(u32, u32)>> {
        let seen = self.frames.get(..mark as usize)?;
        let numbered = (0u32..).zip(seen).filter(|(_, frame)| frame.page_number <= pages);
        let mut found: Vec<(u32, u32)> =
            numbered.map(|(index, frame)| (frame.page_number, index)).collect();
        found.sort_unstable();
        // Of equal pages the last one stays.
        found.reverse();
        found.dedup_by_key(|(page, _)| *page);
        found.reverse();
        Some(found)
    }

    /// The last transaction of which every frame is among the first `frame` of the WAL: what a
    /// checkpoint that wrote them covers. `None` if it covers nothing new.
    #[must_use]
    pub fn covered_txid(&self, frame: u32) -> Option<u64> {
        self.commits.iter().take_while(|c| c.last_frame <= frame).last().map(|c| c.txid)
    }

    /// The file holds every transaction up to `txid` for good, with `stamp` in page 1, and the
    /// catalogue knows it: the log is not needed for them any more.
    pub fn forget_commits(&mut self, txid: u64, stamp: u64) {
        self.recovered_from = None;
        self.main.stamp_min = stamp;
        while self.commits.front().is_some_and(|commit| commit.txid <= txid) {
            self.commits.pop_front();
        }
    }

    /// Frames of the WAL that are sealed.
    #[must_use]
    pub fn logged_frame(&self) -> u32 {
        self.logged_frame
    }

    // ---- the wal-index ----

    /// Address of a wal-index region, made if `extend`; `None` if it is not there.
    ///
    /// # Errors
    /// [`crate::extent::NoMemory`] if the account's limit refuses it.
    pub fn region(
        &mut self,
        index: usize,
        extend: bool,
    ) -> Result<Option<*mut u64>, crate::extent::NoMemory> {
        while extend && self.regions.len() <= index {
            if !ledger::charge(self.account, Kind::WalIndex, REGION_BYTES as u64) {
                return Err(crate::extent::NoMemory);
            }
            self.regions.push(Counted::new(0, REGION_BYTES / 8));
        }
        Ok(self.regions.get_mut(index).map(|region| region.as_mut_ptr()))
    }
}
