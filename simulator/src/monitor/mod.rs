//! The white-box monitor: it sits between the server and its simulated kernel, and looks at every
//! write and every send at the moment when it is asked for.
//!
//! It draws nothing and reads no byte through a fault: of the disk it reads what is durable.
//!
//! **DUR-3, the order of writes.**
//! - A page is written to a tenant's file only if a transaction that is whole and durable in the log
//!   holds the same bytes (the tail apart), and none that is older than what the log has let go of.
//!   (A checkpoint that failed late may leave newer pages than the next one writes: readers hold it
//!   back, and the log keeps all of them.)
//! - A batch says `redo_from = n` only if, when it is given to the disk, every page of every durable
//!   transaction in the batches below `n` is durable in its tenant's file, under a durable name, as
//!   of that transaction or a later one; or the file ends before it, durably, since a later
//!   transaction cut the database; or the catalogue durably says (with this batch at the latest)
//!   that the tenant is dropped or fenced.
//! - Log space is written again only if a durable header copy's `redo_from` is beyond every batch in
//!   it. A header copy is written only after its batch is durable. Batches follow one another
//!   without gaps, each naming the hash of the one before, also across a start.
//! - A tenant's file is removed only when the catalogue durably says that it is dropped.
//!
//! **DUR-2** and **TEN-1**: see `marks`.
//!
//! After a crash one batch may be whole that was in flight, at once or up to a second later; the
//! monitor looks for it before the first thing that follows from it. Where a fault makes the disk
//! lie (a lost or misdirected write, rot) the monitor judges no more what rests on it.

mod btree;
mod log;
mod marks;
mod pages;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use storage::TenantId;
use storage::io::{Create, Instant, OpenOptions};

use crate::disk::SimulatedDisk;
use crate::faults::FaultKind;
use crate::io::operation::{Change, Operation};
use crate::world::Violation;
pub use pages::catalogue_rows;

use log::{Adopted, LogWatch};
use marks::{Leak, MarkWatch};
use pages::PageWatch;

/// What a file is to the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ring,
    Segment(u32),
    Tenant(TenantId),
}

impl Role {
    fn of(path: &Path) -> Option<Role> {
        let text = path.to_str()?;
        if text == "log/ring" {
            return Some(Role::Ring);
        }
        if let Some(slot) = text.strip_prefix("log/segment-") {
            return slot.parse().ok().map(Role::Segment);
        }
        let name = text.strip_prefix("tenants/")?.rsplit('/').next()?;
        name.strip_suffix(".db")?.parse().ok().map(|id| Role::Tenant(TenantId(id)))
    }
}

/// How much was looked at: an oracle that saw nothing proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Batches that became durable.
    pub batches: u64,
    /// Pages written to tenants' files.
    pub pages_written: u64,
    /// Pages that the log let go of.
    pub pages_released: u64,
    /// Marks in sends.
    pub marks_sent: u64,
    /// Acknowledged transactions.
    pub acknowledged: u64,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Monitor {
    /// It has seen the disk from its beginning.
    judges: bool,
    /// A fault has made the disk lie.
    lied: bool,
    roles: BTreeMap<u64, Role>,
    log: LogWatch,
    pages: PageWatch,
    marks: MarkWatch,
    violation: Option<Violation>,
}

impl Monitor {
    /// A monitor of a world whose disk is empty.
    #[must_use]
    pub fn watching() -> Monitor {
        Monitor { judges: true, ..Monitor::default() }
    }

    /// What was violated since this was asked last.
    pub fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    /// How much was looked at.
    #[must_use]
    pub fn looked(&self) -> Looked {
        Looked {
            batches: self.log.durable,
            pages_written: self.pages.written,
            pages_released: self.pages.released,
            marks_sent: self.marks.seen,
            acknowledged: self.marks.acknowledged,
        }
    }

    /// An operator changed this tenant's file behind the server's back.
    pub fn excuse(&mut self, tenant: TenantId) {
        self.pages.excuse(tenant);
    }

    /// When the byte at `offset` of the responses of a connection was first given to a send.
    #[must_use]
    pub fn submitted_at(&self, connection: u64, offset: u64) -> Option<Instant> {
        self.marks.submitted_at(connection, offset)
    }

    /// A client heard that the transaction of `mark` is committed; its answer's end left then.
    pub fn acknowledged(&mut self, mark: &str, submitted_at: Instant) {
        if !self.judges {
            return;
        }
        if let Some(since) = self.marks.acknowledged(mark, submitted_at) {
            let since =
                since.map_or("is not at all".to_owned(), |at| format!("only since {}", at.0));
            let text = format!("{mark} is answered at {} and durable {since}", submitted_at.0);
            self.complain("DUR-2", text);
        }
    }

    fn complain(&mut self, property: &'static str, text: String) {
        if self.judges {
            self.violation.get_or_insert_with(|| Violation::new(property, text));
        }
    }

    fn judge(&mut self, verdict: Result<(), String>) {
        if let Err(text) = verdict
            && !self.lied
        {
            self.complain("DUR-3", text);
        }
    }

    // ---- what the world's kernel tells ----

    /// A fault strikes.
    pub(crate) fn injected(&mut self, kind: FaultKind) {
        self.lied |= matches!(
            kind,
            FaultKind::LostWrite
                | FaultKind::MisdirectedWrite
                | FaultKind::RotFile
                | FaultKind::RotLog
                | FaultKind::RotRing
                | FaultKind::LatentSector
        );
    }

    /// A file was opened.
    pub(crate) fn opened(&mut self, node: u64, path: &Path, options: OpenOptions) {
        if options.create == Create::Unnamed {
            return;
        }
        if let Some(role) = Role::of(path) {
            self.roles.insert(node, role);
        }
    }

    /// The server asks for a disk operation.
    pub(crate) fn submitted<W>(
        &mut self,
        now: Instant,
        disk: &SimulatedDisk,
        operation: &Operation<W>,
    ) {
        if !self.judges {
            return;
        }
        match operation {
            Operation::Transfer { file, offset, buffer, writes: true, .. } => {
                let role = self.roles.get(&disk.entity(*file)).copied();
                self.write_asked(now, disk, role, *offset, buffer);
            }
            Operation::Change { change: Change::Remove { path }, .. } => {
                self.settle(now, disk);
                if let Some(Role::Tenant(id)) = Role::of(path)
                    && !self.pages.is_gone(id.0)
                {
                    let text = format!("{} is removed, and the catalogue has it", path.display());
                    self.judge(Err(text));
                }
            }
            _ => {}
        }
    }

    fn write_asked(
        &mut self,
        now: Instant,
        disk: &SimulatedDisk,
        role: Option<Role>,
        offset: u64,
        bytes: &[u8],
    ) {
        let verdict = match role {
            None => return,
            Some(Role::Tenant(id)) => {
                self.settle(now, disk);
                self.pages.file_write(id, offset, bytes)
            }
            Some(Role::Segment(slot)) => {
                self.settle(now, disk);
                self.log.segment_write(disk, &mut self.pages, (slot, offset), bytes)
            }
            Some(Role::Ring) => {
                self.settle(now, disk);
                self.log.ring_write(offset, bytes)
            }
        };
        self.judge(verdict);
    }

    /// A write took effect, with so many bytes.
    pub(crate) fn written(
        &mut self,
        now: Instant,
        disk: &SimulatedDisk,
        place: (u64, u64),
        count: u64,
    ) {
        let (node, offset) = place;
        let Some(Role::Segment(slot)) = self.roles.get(&node).copied() else { return };
        if !self.judges {
            return;
        }
        match self.log.segment_written(disk, (slot, offset), count) {
            None => {}
            Some(Ok(adopted)) => self.adopt(now, disk, &adopted),
            // What rests on it cannot be judged: the server does not know yet.
            Some(Err(_)) if self.lied => self.judges = false,
            Some(Err(text)) => self.judge(Err(text)),
        }
    }

    /// After a crash: look whether the batch in flight is whole.
    fn settle(&mut self, now: Instant, disk: &SimulatedDisk) {
        if !self.log.needs_settling() {
            return;
        }
        if let Some(adopted) = self.log.settle(disk) {
            self.adopt(now, disk, &adopted);
        }
        self.pages.forget_open();
    }

    fn adopt(&mut self, now: Instant, disk: &SimulatedDisk, adopted: &Adopted) {
        match self.pages.add_batch(&adopted.header, &adopted.images) {
            Ok((records, marks)) => {
                self.marks.became_durable(marks, now);
                let verdict = self.log.adopt(disk, &mut self.pages, adopted, records);
                self.judge(verdict);
            }
            Err(text) => self.complain("TEN-1", text),
        }
    }

    /// The process died.
    pub(crate) fn crashed(&mut self) {
        self.log.crashed();
    }

    /// A client sent bytes.
    pub(crate) fn asked(&mut self, connection: u64, bytes: &[u8]) {
        if self.judges {
            self.marks.asked(connection, bytes);
        }
    }

    /// The server gives bytes to a send.
    pub(crate) fn sending(
        &mut self,
        now: Instant,
        disk: &SimulatedDisk,
        connection: Option<u64>,
        bytes: &[u8],
    ) {
        let Some(connection) = connection.filter(|_| self.judges) else { return };
        self.settle(now, disk);
        match self.marks.sending(connection, bytes, now) {
            None => {}
            Some(Leak::Stranger(owner)) => {
                let text = format!("connection {connection} gets a mark of {owner}, not asked for");
                self.complain("TEN-1", text);
            }
            Some(Leak::NotDurable(mark)) => {
                let text =
                    format!("connection {connection} is sent {mark:?}, which is not durable");
                self.complain("DUR-2", text);
            }
        }
    }

    /// The network took bytes of a send.
    pub(crate) fn sent(&mut self, connection: u64, bytes: u64) {
        if self.judges {
            self.marks.sent(connection, bytes);
        }
    }
}
