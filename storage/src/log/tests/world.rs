//! A log, its device, and a model of what was committed.

use super::device::{Device, Random};
use crate::identity::TenantId;
use crate::io::{BLOCK_BYTES, Buffer};
use crate::log::{
    BatchFull, Class, Committed, Log, LogFull, LogOperation, LogOptions, LogRequest, Recovered,
    RecoveryError, Scan, Sequence, Transaction, page_check,
};
use std::collections::BTreeMap;

pub const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 24 * BLOCK_BYTES as u64,
    segment_count: 4,
    batch_bytes_max: 8 * BLOCK_BYTES,
    system_reserve_bytes: 8 * BLOCK_BYTES as u64,
};

/// A transaction as the model remembers it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub tenant: TenantId,
    pub txid: u64,
    pub database_pages: u32,
    pub pages: Vec<(u32, u64)>,
    pub committed: Committed,
}

/// The image of a page, from its seed.
pub fn image(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let words = (0..BLOCK_BYTES / 8).flat_map(|_| random.next().to_le_bytes());
    words.collect()
}

/// Run a scan on the device to its end.
pub fn scan(
    options: LogOptions,
    device: &mut Device,
    random: &mut Random,
) -> Result<Recovered, RecoveryError> {
    let mut scan = Scan::new(options);
    while let Some(request) = scan.next_request() {
        let (id, reply) = device.carry_out(request, random);
        scan.complete(id, reply);
    }
    scan.outcome().expect("the scan is over")
}

pub struct World {
    pub log: Log,
    pub device: Device,
    pub random: Random,
    pub in_flight: Vec<LogRequest>,
    pub entries: Vec<Entry>,
    pub txids: BTreeMap<TenantId, u64>,
}

impl World {
    pub fn new(options: LogOptions, seed: u64) -> World {
        let mut device = Device::default();
        let mut random = Random(seed);
        let recovered = scan(options, &mut device, &mut random).expect("a fresh log");
        assert_eq!(recovered.batches, 0);
        assert!(recovered.tenants.is_empty());
        World {
            log: recovered.log,
            device,
            random,
            in_flight: Vec::new(),
            entries: Vec::new(),
            txids: BTreeMap::new(),
        }
    }

    /// Take what the log asks for.
    pub fn collect(&mut self) {
        while let Some(request) = self.log.next_request() {
            self.in_flight.push(request);
        }
    }

    /// Carry out one request of those in flight.
    pub fn complete(&mut self, index: usize) {
        let request = self.in_flight.swap_remove(index);
        let (id, reply) = self.device.carry_out(request, &mut self.random);
        self.log.complete(id, reply);
    }

    /// Carry out everything.
    pub fn settle(&mut self) {
        loop {
            self.log.flush();
            self.collect();
            if self.in_flight.is_empty() {
                return;
            }
            let index = self.random.below(self.in_flight.len() as u64) as usize;
            self.complete(index);
        }
    }

    /// A transaction's pages: random numbers, seeds as contents.
    pub fn draw_pages(&mut self, count: u32) -> (u32, Vec<(u32, u64)>) {
        let database_pages = count + self.random.below(20) as u32;
        let numbers = u64::from(database_pages) + 2;
        let pages = (0..count)
            .map(|_| (1 + self.random.below(numbers) as u32, self.random.next()))
            .collect();
        (database_pages, pages)
    }

    pub fn begin(
        &mut self,
        tenant: u64,
        page_count: u32,
        class: Class,
    ) -> Result<(Transaction, Entry), LogFull> {
        self.log.reserve(self.log.transaction_bytes(page_count), class)?;
        let tenant = TenantId(tenant);
        let txid = self.txids.get(&tenant).map_or(1, |txid| txid + 1);
        self.txids.insert(tenant, txid);
        let (database_pages, pages) = self.draw_pages(page_count);
        let transaction = self.log.begin(tenant, txid, database_pages, page_count);
        let committed = Committed { first: Sequence(0), last: Sequence(0) };
        Ok((transaction, Entry { tenant, txid, database_pages, pages, committed }))
    }

    pub fn push(
        &mut self,
        transaction: &mut Transaction,
        entry: &Entry,
        index: usize,
    ) -> Result<(), BatchFull> {
        let (number, seed) = entry.pages[index];
        let image = image(seed);
        self.log.push_page(transaction, number, &image, page_check(&image))
    }

    pub fn finish(&mut self, transaction: Transaction, mut entry: Entry) -> Committed {
        entry.committed = self.log.finish(transaction);
        let committed = entry.committed;
        self.entries.push(entry);
        committed
    }

    /// Commit one transaction, waiting for room whenever there is none.
    pub fn commit(&mut self, tenant: u64, page_count: u32) -> Result<Committed, LogFull> {
        let (mut transaction, entry) = self.begin(tenant, page_count, Class::Tenant)?;
        for index in 0..entry.pages.len() {
            while self.push(&mut transaction, &entry, index).is_err() {
                self.step();
            }
        }
        Ok(self.finish(transaction, entry))
    }

    /// Commit one page of a database of 100.
    pub fn commit_page(&mut self, tenant: u64, number: u32) {
        let (mut transaction, mut entry) = self.begin(tenant, 1, Class::Tenant).expect("room");
        self.log.abandon(transaction);
        entry.database_pages = 100;
        entry.pages[0].0 = number;
        let bytes = self.log.transaction_bytes(1);
        self.log.reserve(bytes, Class::Tenant).expect("room");
        transaction = self.log.begin(entry.tenant, entry.txid, 100, 1);
        self.push(&mut transaction, &entry, 0).expect("room");
        self.finish(transaction, entry);
    }

    /// Let the log make progress; it must be able to.
    pub fn step(&mut self) {
        self.collect();
        assert!(!self.in_flight.is_empty(), "the log waits for nothing");
        let index = self.random.below(self.in_flight.len() as u64) as usize;
        self.complete(index);
    }

    /// A crash: writes in flight are kept sector by sector, with this likelihood.
    pub fn crash(&mut self, keep_percent: u64) {
        self.collect();
        let requests = std::mem::take(&mut self.in_flight);
        let sector = if self.random.chance(50) { 512 } else { BLOCK_BYTES };
        for request in &requests {
            let random = &mut self.random;
            if let LogOperation::Open { file, create: true } = request.operation
                && random.chance(50)
            {
                self.device.files.entry(file).or_default();
            }
            self.device.tear(request, sector, |_| random.chance(keep_percent));
        }
    }

    /// Recover, compare with the model, and go on with the recovered log. Two scans must agree.
    pub fn recover(&mut self) -> Recovered {
        let durable = self.log.durable_sequence();
        let options = *self.log.options();
        let mut recovered =
            scan(options, &mut self.device, &mut self.random).expect("a crash does no damage");
        self.check(&recovered, durable);
        let again = scan(options, &mut self.device, &mut self.random).expect("twice");
        assert_eq!(again.tenants, recovered.tenants);
        assert_eq!(again.log.filling_sequence(), recovered.log.filling_sequence());
        assert_eq!(again.torn, None);
        assert_eq!(again.repaired, 0);
        std::mem::swap(&mut self.log, &mut recovered.log);
        let next = self.log.filling_sequence();
        self.entries.retain(|entry| entry.committed.last < next);
        self.txids.clear();
        for entry in &self.entries {
            self.txids.insert(entry.tenant, entry.txid);
        }
        recovered
    }

    /// The recovered state is the committed prefix, exactly, and nothing durable is missing.
    pub fn check(&self, recovered: &Recovered, durable: Sequence) {
        let next = recovered.log.filling_sequence();
        assert!(next > durable, "batch {durable:?} was durable, the log ends before {next:?}");
        assert!(recovered.damaged.is_empty(), "{:?}", recovered.damaged);
        let expected = self.expected(recovered.log.redo_from_durable(), next);
        assert!(expected.keys().eq(recovered.tenants.keys()));
        for (tenant, (database_pages, first, pages)) in &expected {
            let found = &recovered.tenants[tenant];
            assert_eq!(found.database_pages, *database_pages);
            assert_eq!(found.first_sequence, *first);
            assert!(found.pages.keys().eq(pages.keys()), "{tenant:?}");
            for (number, seed) in pages {
                let location = &found.pages[number];
                let plan = location.read_plan();
                let start = plan.offset as usize + plan.skip;
                let bytes = &self.device.files[&plan.file][start..start + BLOCK_BYTES];
                assert!(location.verify(bytes));
                assert_eq!(bytes, image(*seed));
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn expected(
        &self,
        redo_from: Sequence,
        next: Sequence,
    ) -> BTreeMap<TenantId, (u32, Sequence, BTreeMap<u32, u64>)> {
        let mut tenants = BTreeMap::new();
        for entry in &self.entries {
            if entry.committed.first < redo_from || entry.committed.last >= next {
                continue;
            }
            let first = entry.committed.first;
            let tenant = tenants.entry(entry.tenant).or_insert((0, first, BTreeMap::new()));
            tenant.0 = entry.database_pages;
            tenant.2.extend(entry.pages.iter().copied());
            tenant.2.retain(|number, _| *number <= entry.database_pages);
        }
        tenants
    }

    /// Bytes of the batch that would be written now.
    pub fn batch_in_flight(&self) -> Option<&Buffer> {
        self.in_flight.iter().find_map(|request| match &request.operation {
            LogOperation::Write { file: crate::log::LogFile::Segment(_), buffer, .. }
                if crate::log::Header::read(buffer).is_some() =>
            {
                Some(buffer)
            }
            _ => None,
        })
    }
}
