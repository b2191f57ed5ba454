//! REC-1: recovery may be interrupted anywhere, any number of times, and ends with the same contents.
//!
//! After one crash of twenty the disk is copied. One copy is recovered straight: started, stopped,
//! and its files are hashed. Others crash at a drawn event of that and are recovered again, and must
//! end with the same hash. The copies have no other faults, draws of their own, and leave no trace in
//! the world. The hash is over the catalogue's rows (id, name, state) and over each tenant's pages, but
//! for the tails and the two counters of page 1 that every checkpoint moves.

use std::collections::BTreeMap;
use std::path::Path;

use server::{Exit, Server};
use storage::TenantId;
use storage::allocator::{self, Failing};
use storage::io::{Clock, Io};
use storage::page::{PAGE_BYTES, USABLE_BYTES};

use super::model::Violation;
use super::{Sim, World};
use crate::disk::{CrashMode, SimulatedDisk};
use crate::draws::{Span, Stream};
use crate::io::Doom;
use crate::monitor::catalogue_rows;
use crate::trace::hash_bytes;

/// Of so many crashes one is rehearsed.
const REHEARSED_ONE_IN: u64 = 20;

/// Copies that are interrupted.
const INTERRUPTED: u64 = 3;

/// Simulated time for a start and a stop on a working disk.
const RECOVERY_NS_MAX: u64 = 600_000_000_000;

/// The change counter in page 1, and the number for which the page count is valid.
const COUNTERS: [std::ops::Range<usize>; 2] = [24..28, 92..96];

/// What a stopped server leaves: rows of the catalogue, and a hash per tenant's file.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    rows: Vec<(u64, String, i64)>,
    files: BTreeMap<String, u64>,
}

/// How a copy's life ended.
enum Ended {
    /// Stopped, after so many events.
    Stopped(u64),
    Crashed,
    Refused(String),
}

impl World {
    /// A crash is over and the next life has not begun: try its beginning on copies.
    pub(super) fn rehearse_recovery(&mut self) -> Result<(), Violation> {
        let chosen = self.io.draws_mut().below(Stream::Operator, 10, REHEARSED_ONE_IN) == 0;
        // A late write of the dead process keeps its file locked: it belongs to the real machine.
        if !chosen || self.io.disk().open_count() > 0 {
            return Ok(());
        }
        allocator::fail_allocations(Failing::Never);
        let verdict = self.rehearse();
        self.fail_allocations();
        verdict
    }

    fn rehearse(&mut self) -> Result<(), Violation> {
        let disk = self.io.disk().clone();
        let seed = self.io.draws_mut().below(Stream::Operator, 11, u64::MAX);
        let mut straight = self.copy(seed, disk.clone());
        let Ended::Stopped(events) = self.live_once(&mut straight, None)? else {
            // Damage that was done before, which the real start will judge.
            return Ok(());
        };
        let expected = contents(straight.disk());
        for number in 0..INTERRUPTED {
            let draws = self.io.draws_mut();
            let at = draws.within(Stream::Operator, 12, Span::new(1, events));
            let mode = CrashMode::ALL[draws.index(Stream::Operator, 13, CrashMode::ALL.len())];
            let again = draws.within(Stream::Operator, 14, Span::new(1, events));
            let mut io = self.copy(seed.wrapping_add(number + 1), disk.clone());
            let what = format!("interrupted at event {at} and {again} by {mode:?}");
            self.live_once(&mut io, Some((at, mode)))?;
            self.live_once(&mut io, Some((again, mode)))?;
            let ended = self.live_once(&mut io, None)?;
            if let Ended::Refused(text) = ended {
                return Err(Violation::new("REC-1", format!("{what}, a start ends: {text}")));
            }
            let found = contents(io.disk());
            if found != expected {
                let text = format!("{what}, recovery ends with {found:?}, not {expected:?}");
                return Err(Violation::new("REC-1", text));
            }
            self.totals.rehearsals += 1;
        }
        Ok(())
    }

    fn copy(&mut self, seed: u64, mut disk: SimulatedDisk) -> Sim {
        let faults = self.copy_faults();
        // A full disk would keep every copy in the log, and there would be nothing to compare.
        disk.set_size(faults.disk_bytes_max);
        Sim::on_disk(seed, faults, disk)
    }

    /// One life of a server on a copy: start, then stop; a crash after so many events, perhaps.
    fn live_once(
        &mut self,
        io: &mut Sim,
        crash: Option<(u64, CrashMode)>,
    ) -> Result<Ended, Violation> {
        let bad = |text: String| Violation::new("REC-1", text);
        let begun = io.trace().sequence();
        if let Some((events, mode)) = crash {
            io.crash_at(begun + events, mode);
        }
        let options = self.ground.options.server([[1; 32]; 2]);
        let mut server = Server::start(io, options)
            .map_err(|(_, error)| bad(format!("a copy cannot listen: {error}")))?;
        let patience = io.now().after(RECOVERY_NS_MAX);
        let mut late = false;
        while server.exit().is_none() && io.doom() == Doom::Alive && !late {
            server.turn(io);
            if server.is_ready() {
                server.stop();
            }
            let deadline = server.deadline().unwrap_or(patience).min(patience);
            io.run(&mut server, Some(deadline));
            late = io.now() >= patience;
        }
        let events = io.trace().sequence() - begun;
        let ended = match server.exit().cloned() {
            _ if io.doom() != Doom::Alive => Ended::Crashed,
            Some(Exit::Stopped) => Ended::Stopped(events),
            exit => Ended::Refused(format!("{exit:?}")),
        };
        io.cancel_crash();
        if io.doom() == Doom::Alive {
            io.crash(CrashMode::Kill);
        }
        while io.doom() == Doom::Ending {
            if server.exit().is_none() {
                server.turn(io);
            }
            let deadline = server.deadline();
            io.run(&mut server, deadline);
        }
        server.doom(io);
        io.restart();
        if late {
            return Err(bad("a copy neither starts nor stops".to_owned()));
        }
        Ok(ended)
    }
}

fn contents(disk: &SimulatedDisk) -> Contents {
    let catalogue = TenantId::CATALOGUE.paths().file;
    let bytes = disk.bytes(Path::new(&catalogue)).unwrap_or_default();
    let rows = catalogue_rows(&bytes).unwrap_or_default();
    let paths = disk.paths().into_iter().filter(|path| path.starts_with("tenants/"));
    let others = paths.filter(|path| *path != catalogue);
    let files = others.map(|path| {
        let hash = content_hash(&disk.bytes(Path::new(&path)).unwrap_or_default());
        (path, hash)
    });
    Contents { rows, files: files.collect() }
}

fn content_hash(bytes: &[u8]) -> u64 {
    let mut kept = Vec::with_capacity(bytes.len());
    for (index, page) in bytes.chunks_exact(PAGE_BYTES).enumerate() {
        let start = kept.len();
        kept.extend_from_slice(&page[..USABLE_BYTES]);
        if index == 0 {
            for counter in COUNTERS {
                kept[start + counter.start..start + counter.end].fill(0);
            }
        }
    }
    hash_bytes(&kept)
}
