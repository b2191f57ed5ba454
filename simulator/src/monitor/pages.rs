//! What the commit log durably holds of each page, and whether a tenant's file holds it too.
//!
//! Fed with durable batches in their order. Keeps per page the versions that a file may rightly
//! hold: the newest one that the log has let go of, and all later ones. Of the catalogue it keeps the
//! newest images, so that it can say which databases are dropped or fenced *durably*, without asking
//! the server and without SQLite.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use storage::TenantId;
use storage::log::Header;
use storage::page::{self, PAGE_BYTES, USABLE_BYTES, verify_tail};

use super::btree::{Value, walk};
use super::marks::{Found, Mark, in_rows};
use crate::disk::SimulatedDisk;
use crate::trace::hash_bytes;

/// One page of one durable transaction.
#[derive(Clone, Copy, Debug)]
struct Version {
    txid: u64,
    hash: u64,
}

/// A transaction whose last fragment has not come yet.
#[derive(Debug)]
struct Open {
    instance: u64,
    txid: u64,
    fragments: u32,
    pages: Vec<(u32, u64)>,
    images: Vec<(u32, Box<[u8]>)>,
    marks: Vec<Mark>,
}

/// What is known of one tenant.
#[derive(Debug, Default)]
struct TenantWatch {
    versions: BTreeMap<u32, Vec<Version>>,
    /// Transactions after which the database was smaller than before: id and pages.
    cuts: Vec<(u64, u32)>,
    database_pages: u32,
    open: Option<Open>,
    /// Whose marks its pages hold.
    owner: Option<Box<str>>,
    /// Dropped or fenced, durably.
    gone: bool,
    /// Its file was changed behind the server's back.
    excused: bool,
    /// Its file is made at once, of pages that the log never had: they are the first transaction.
    built: bool,
}

/// A record of a batch: which transaction, which pages.
#[derive(Debug)]
pub struct Listed {
    tenant: u64,
    txid: u64,
    instance: u64,
    pages: Vec<u32>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct PageWatch {
    tenants: BTreeMap<u64, TenantWatch>,
    committed: BTreeSet<u64>,
    instances: u64,
    catalogue: BTreeMap<u32, Box<[u8]>>,
    /// All whose marks were found.
    owners: BTreeSet<Box<str>>,
    /// Pages of tenants' files that were judged when they were written.
    pub written: u64,
    /// Pages of records that were judged when the log let go of them.
    pub released: u64,
}

impl PageWatch {
    /// A batch is durable: `images` are its pages, in order. Gives its records, and the marks of the
    /// transactions that it ends.
    ///
    /// # Errors
    /// TEN-1 if a page holds another tenant's mark.
    pub fn add_batch(
        &mut self,
        header: &Header,
        images: &[u8],
    ) -> Result<(Vec<Listed>, Vec<Mark>), String> {
        let mut listed = Vec::new();
        let mut marks = Vec::new();
        let mut pages = header.pages.iter().zip(images.chunks_exact(PAGE_BYTES));
        for record in &header.records {
            let id = record.tenant.0;
            let tenant = self.tenants.entry(id).or_default();
            let goes_on = tenant
                .open
                .as_ref()
                .is_some_and(|open| open.txid == record.txid && open.fragments == record.fragment);
            if record.fragment == 0 || !goes_on {
                self.instances += 1;
                tenant.open = Some(Open {
                    instance: self.instances,
                    txid: record.txid,
                    fragments: record.fragment,
                    pages: Vec::new(),
                    images: Vec::new(),
                    marks: Vec::new(),
                });
            }
            let mut open = tenant.open.take().expect("made just now");
            open.fragments += 1;
            let from = open.pages.len();
            for (entry, image) in pages.by_ref().take(record.page_count as usize) {
                tenant.look_at(id, entry.number, image, &mut open);
                if let Some(stranger) = tenant.stranger(image, entry.number, &self.owners) {
                    let number = entry.number;
                    return Err(format!(
                        "a log record of tenant {id} holds a mark of {stranger} in page {number}"
                    ));
                }
                self.owners.extend(tenant.owner.clone());
            }
            listed.push(Listed {
                tenant: id,
                txid: record.txid,
                instance: open.instance,
                pages: open.pages[from..].iter().map(|page| page.0).collect(),
            });
            if record.last {
                self.committed.insert(open.instance);
                marks.append(&mut open.marks);
                self.catalogue.extend(std::mem::take(&mut open.images));
                tenant.commit(&open, record.database_pages);
            } else {
                tenant.open = Some(open);
            }
        }
        Ok((listed, marks))
    }

    /// The process died, and the batch that was in flight has been looked at, which may have ended a
    /// transaction of earlier batches: what is not whole in the log now will never be.
    pub fn forget_open(&mut self) {
        for tenant in self.tenants.values_mut() {
            tenant.open = None;
        }
    }

    /// An operator changed the tenant's file.
    pub fn excuse(&mut self, tenant: TenantId) {
        self.tenants.entry(tenant.0).or_default().excused = true;
    }

    /// Bytes are about to be written to a tenant's file.
    ///
    /// # Errors
    /// If the log does not durably hold one of the whole pages, or let go of a later one already.
    pub fn file_write(&mut self, id: TenantId, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let unknown = self.tenants.get(&id.0).is_none_or(|tenant| tenant.versions.is_empty());
        let built = unknown && self.is_being_built(id.0);
        let tenant = self.tenants.entry(id.0).or_default();
        tenant.built |= built;
        // A checkpoint of a database that is dropped may run on: nobody will read what it writes.
        if tenant.excused || tenant.gone {
            return Ok(());
        }
        // What goes on after a short count in the middle of a page was judged with its beginning.
        let skip = (offset.next_multiple_of(PAGE_BYTES as u64) - offset) as usize;
        let first = offset.div_ceil(PAGE_BYTES as u64) as u32 + 1;
        let whole = bytes.get(skip..).unwrap_or_default();
        for (number, image) in (first..).zip(whole.chunks_exact(PAGE_BYTES)) {
            self.written += 1;
            let hash = hash_bytes(&image[..USABLE_BYTES]);
            if tenant.built && verify_tail(id, number, image) == Some(BUILT_TXID) {
                tenant.versions.insert(number, vec![Version { txid: BUILT_TXID, hash }]);
                continue;
            }
            let versions = tenant.versions.get(&number).map_or(&[][..], Vec::as_slice);
            if !versions.iter().any(|version| version.hash == hash) {
                let known: Vec<u64> = versions.iter().map(|version| version.txid).collect();
                return Err(format!(
                    "page {number} of tenant {} is written to its file, and no durable log record \
                     holds it so; known are the transactions {known:?}",
                    id.0
                ));
            }
            if verify_tail(id, number, image).is_none() {
                return Err(format!("page {number} of tenant {} is written without tail", id.0));
            }
        }
        Ok(())
    }

    /// The first page of a record that would be lost without it, unless its tenant is gone.
    pub fn missing(&mut self, record: &Listed, disk: &SimulatedDisk) -> Option<u32> {
        if !self.committed.contains(&record.instance) {
            return None;
        }
        let tenant = self.tenants.entry(record.tenant).or_default();
        if tenant.gone || tenant.excused {
            return None;
        }
        let path = TenantId(record.tenant).paths().file;
        let path = Path::new(&path);
        let mut image = [0; PAGE_BYTES];
        let mut durable = |number: u32| {
            let offset = u64::from(number - 1) * PAGE_BYTES as u64;
            let read = disk.durable_at(path, offset, &mut image);
            (read == Some(PAGE_BYTES)).then_some(image)
        };
        for number in &record.pages {
            self.released += 1;
            let hash = durable(*number).map(|image| hash_bytes(&image[..USABLE_BYTES]));
            let versions = tenant.versions.get_mut(number).expect("the record was added");
            let held = versions.iter().rev().find(|version| Some(version.hash) == hash);
            if let Some(held) = held.copied().filter(|held| held.txid >= record.txid) {
                versions.retain(|version| version.txid >= held.txid);
                continue;
            }
            let cut = tenant.cuts.iter().any(|cut| cut.0 > record.txid && cut.1 < *number);
            let mut shorter = || durable(1).is_some_and(|one| page::database_pages(&one) < *number);
            if !(cut && shorter()) {
                return Some(*number);
            }
        }
        None
    }

    /// Whether the catalogue durably says that there is no such database any more, or not yet, or that it
    /// is fenced.
    pub fn is_gone(&mut self, id: u64) -> bool {
        if id == TenantId::CATALOGUE.0 {
            return false;
        }
        let known = self.tenants.get(&id).is_some_and(|tenant| tenant.gone);
        if known {
            return true;
        }
        if self.is_being_built(id) {
            // Nothing was promised yet: it may be removed, or it may come to be there.
            return true;
        }
        let live = self.live_in_catalogue();
        let Some(live) = live else { return false };
        let gone = !live.contains(&id);
        if gone {
            // Ids are never given again: nothing of it matters any more but a transaction that is
            // on its way into the log, and may still be answered.
            let tenant = self.tenants.entry(id).or_default();
            let (open, owner) = (tenant.open.take(), tenant.owner.take());
            *tenant = TenantWatch { gone: true, open, owner, ..TenantWatch::default() };
        }
        gone
    }

    /// Whether the catalogue durably says that the database is being made of others' bytes.
    fn is_being_built(&self, id: u64) -> bool {
        let page = |number: u32| self.catalogue.get(&number).map(|image| &image[..]);
        let rows = rows_of_catalogue(&page).unwrap_or_default();
        rows.iter().any(|row| row.0 == id && is_building(row))
    }

    /// Ids of the databases that are in use; `None` if the catalogue cannot be read.
    fn live_in_catalogue(&self) -> Option<BTreeSet<u64>> {
        let page = |number: u32| self.catalogue.get(&number).map(|image| &image[..]);
        let rows = rows_of_catalogue(&page)?;
        Some(rows.into_iter().filter(|row| row.2 == 0).map(|row| row.0).collect())
    }
}

/// The transaction that a file's first pages are of which came from elsewhere.
const BUILT_TXID: u64 = 1;

/// A row of a database that is there only when all of it is: one with the state of a dropped one, and a
/// name.
fn is_building(row: &(u64, String, i64)) -> bool {
    row.2 == 1 && !row.1.is_empty()
}

/// Id, name and state of each database in the catalogue's file; `None` if it cannot be read.
#[must_use]
pub fn catalogue_rows(file: &[u8]) -> Option<Vec<(u64, String, i64)>> {
    let page = |number: u32| file.chunks_exact(PAGE_BYTES).nth((number as usize).checked_sub(1)?);
    rows_of_catalogue(&page)
}

fn rows_of_catalogue<'a>(
    page: &impl Fn(u32) -> Option<&'a [u8]>,
) -> Option<Vec<(u64, String, i64)>> {
    let mut root = None;
    walk(page, 1, &mut |cell| {
        let mut columns = cell.columns().skip(1);
        let named = columns.next() == Some(Value::Text(b"databases"));
        if let (true, Some(Value::Integer(number))) = (named, columns.nth(1)) {
            root = u32::try_from(number).ok();
        }
    })?;
    let mut rows = Vec::new();
    walk(page, root?, &mut |cell| {
        let mut columns = cell.columns().skip(1);
        let name = match columns.next() {
            Some(Value::Text(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        };
        if let Some(Value::Integer(state)) = columns.next() {
            rows.push((cell.row, name, state));
        }
    })?;
    Some(rows)
}

impl TenantWatch {
    /// One page of a record: what it holds.
    fn look_at(&mut self, id: u64, number: u32, image: &[u8], open: &mut Open) {
        open.pages.push((number, hash_bytes(&image[..USABLE_BYTES])));
        if id == TenantId::CATALOGUE.0 {
            open.images.push((number, image.into()));
        }
        open.marks.extend(in_rows(image, number));
    }

    /// Somebody else whose mark is in the page: in its rows, or anywhere in its bytes. What was
    /// overwritten in part may look like another name, but hardly like that of another tenant.
    fn stranger(
        &mut self,
        image: &[u8],
        number: u32,
        owners: &BTreeSet<Box<str>>,
    ) -> Option<Box<str>> {
        let mut rows = in_rows(image, number).into_iter().map(|mark| mark.owner);
        if self.owner.is_none() {
            self.owner = rows.next();
        }
        let own = self.owner.clone()?;
        let related = |other: &str| other.starts_with(&*own) || own.starts_with(other);
        rows.find(|other| *other != own).or_else(|| {
            let mut all = Found::in_bytes(image).map(|found| found.owner);
            all.find(|other| !related(other) && owners.contains(*other)).map(Into::into)
        })
    }

    fn commit(&mut self, open: &Open, database_pages: u32) {
        for &(number, hash) in &open.pages {
            let versions = self.versions.entry(number).or_default();
            versions.push(Version { txid: open.txid, hash });
        }
        if database_pages < self.database_pages {
            self.cuts.push((open.txid, database_pages));
        }
        self.database_pages = database_pages;
    }
}

impl Listed {
    /// Whose record it is.
    pub fn tenant(&self) -> u64 {
        self.tenant
    }

    /// Which transaction's.
    pub fn txid(&self) -> u64 {
        self.txid
    }
}
