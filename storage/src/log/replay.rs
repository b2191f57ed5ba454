//! From batches in order to the newest committed image of each page, per tenant.
//!
//! Fragments wait until their transaction's last one; what never ends never happened. A bad page
//! hurts its tenant only if it is still the page's newest image at the end: a later transaction
//! may have written it again, shrunk the database below it, or `redo_from` may have passed it.

use super::header::Header;
use super::{Damage, PageLocation, RecoveredTenant, Sequence};
use crate::identity::TenantId;
use crate::io::BLOCK_BYTES;
use std::collections::BTreeMap;

/// A page image as the log has it.
#[derive(Clone, Copy, Debug)]
struct Image {
    location: PageLocation,
    /// Batch of its transaction's first fragment.
    first: Sequence,
    /// Batch that holds it.
    sequence: Sequence,
    good: bool,
}

/// A transaction whose last fragment has not come.
#[derive(Debug)]
struct Pending {
    txid: u64,
    fragments: u32,
    first: Sequence,
    images: Vec<(u32, Image)>,
}

/// A committed transaction.
#[derive(Clone, Copy, Debug)]
struct Ended {
    txid: u64,
    first: Sequence,
}

#[derive(Debug, Default)]
struct Tenant {
    ended: Vec<Ended>,
    database_pages: u32,
    images: BTreeMap<u32, Image>,
}

/// The tenants so far.
#[derive(Debug, Default)]
pub struct Replay {
    pending: BTreeMap<TenantId, Pending>,
    tenants: BTreeMap<TenantId, Tenant>,
}

impl Replay {
    /// Apply one batch; `good` says which of its pages can be trusted.
    pub fn apply(&mut self, header: &Header, good: &[bool], slot: u32) {
        assert_eq!(good.len(), header.pages.len());
        let sequence = header.fields.sequence;
        let mut index = 0;
        for record in &header.records {
            let end = index + record.page_count as usize;
            if record.fragment == 0 {
                let images = Vec::new();
                let pending = Pending { txid: record.txid, fragments: 0, first: sequence, images };
                self.pending.insert(record.tenant, pending);
            }
            let pending = self.pending.get_mut(&record.tenant);
            let pending = pending.filter(|pending| {
                pending.txid == record.txid && pending.fragments == record.fragment
            });
            // A fragment without its beginning: that lies before the first batch needed, so the
            // transaction is superseded.
            let Some(pending) = pending else {
                index = end;
                continue;
            };
            pending.fragments += 1;
            let images = header.pages.iter().zip(good).enumerate();
            for (place, (page, good)) in images.take(end).skip(index) {
                let blocks = header.header_blocks() + place;
                let location = PageLocation {
                    slot,
                    offset: header.fields.place.offset + (blocks * BLOCK_BYTES) as u64,
                    check: page.check,
                };
                let first = pending.first;
                let image = Image { location, first, sequence, good: *good };
                pending.images.push((page.number, image));
            }
            if record.last {
                self.commit(record.tenant, record.database_pages);
            }
            index = end;
        }
    }

    fn commit(&mut self, tenant: TenantId, database_pages: u32) {
        let pending = self.pending.remove(&tenant).expect("the transaction is pending");
        let tenant = self.tenants.entry(tenant).or_default();
        tenant.ended.push(Ended { txid: pending.txid, first: pending.first });
        tenant.database_pages = database_pages;
        tenant.images.extend(pending.images);
        if let Some(beyond) = database_pages.checked_add(1) {
            tenant.images.split_off(&beyond);
        }
    }

    /// The result, without what lies below `redo_from`.
    pub fn finish(self, redo_from: Sequence) -> (BTreeMap<TenantId, RecoveredTenant>, Vec<Damage>) {
        let mut tenants = BTreeMap::new();
        let mut damaged = Vec::new();
        for (id, tenant) in self.tenants {
            let mut needed = tenant.ended.iter().filter(|ended| ended.first >= redo_from);
            let Some(first) = needed.next() else {
                continue;
            };
            let last = tenant.ended.last().expect("a tenant has a transaction");
            let images = tenant.images.iter().filter(|(_, image)| image.first >= redo_from);
            let bad = images.clone().find(|(_, image)| !image.good);
            let mut recovered = RecoveredTenant {
                first_txid: first.txid,
                last_txid: last.txid,
                database_pages: tenant.database_pages,
                first_sequence: first.first,
                pages: BTreeMap::new(),
            };
            match bad {
                Some((number, image)) => damaged.push(Damage {
                    tenant: id,
                    reason: format!(
                        "page {number} in batch {} of the commit log is damaged (segment slot {}, \
                         offset {})",
                        image.sequence.0, image.location.slot, image.location.offset
                    ),
                }),
                None => {
                    recovered.pages =
                        images.map(|(number, image)| (*number, image.location)).collect();
                }
            }
            tenants.insert(id, recovered);
        }
        (tenants, damaged)
    }
}
