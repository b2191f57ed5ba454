//! What people do to a server from outside: less memory at the next start, a full disk for a while,
//! a second process on the same folder, a tenant's file lost or replaced while nobody runs.
//!
//! Fault model. *Smaller budget* (`smaller-budget`): one start in four draws both memory budgets anew,
//! in the range that options may have; the commit log keeps the shape it was made with. *Full disk*
//! (`disk-full`): in one swarm world of eight the disk has no room from some event on, for 1 to 60
//! simulated seconds; writes are refused, reads go on, and afterwards everything works (O3). *Second
//! process* (`second-process`): in one world of six a process starts beside the one that serves; it
//! must refuse to start, and change no byte (N4). It runs on a copy of the disk, locks included, so
//! that one may compare. *Swapped file* (`file-swapped`): in one swarm world of two he stops the server
//! to do it, and in the others of these he does after three clean stops of four: a tenant's file is
//! deleted, cut, or replaced by an older copy of itself or by another tenant's; the tenant must be
//! fenced, never served from it (O1).
//!
//! Outside: what is done to the log (O2), to the catalogue's file, and to files of a server that runs.

use std::collections::BTreeMap;
use std::path::Path;

use server::{Exit, Server};
use storage::TenantId;
use storage::io::{Clock, Io};
use storage::page::{PAGE_BYTES, verify_tail};
use tenant::Failure;

use super::model::{Violation, parse_tenant_name};
use super::{Profile, Sim, World, files};
use crate::disk::SimulatedDisk;
use crate::draws::{Span, Stream};
use crate::faults::{FaultKind, Faults};
use crate::trace::hash_bytes;

/// Bytes that a full disk has left: some writes still find room, and the next does not.
const FULL_DISK_ROOM_BYTES: u64 = 64 * 1024;

/// Simulated time after which a second process must have given up: 40 tries of 50 ms for the lock.
const REFUSAL_NS_MAX: u64 = 10_000_000_000;

/// What the operator will do, drawn before the world begins, and what he knows.
#[derive(Debug, Default)]
pub(super) struct Operator {
    second_at: Option<u64>,
    full_at: Option<u64>,
    /// When he copies the files, and when he stops the server to swap one.
    backup_at: Option<u64>,
    swap_at: Option<u64>,
    /// He has stopped it, and swaps when it has ended well.
    swaps: bool,
    free_at_ns: Option<u64>,
    /// The memory budgets of this life.
    memory_bytes: Option<[u64; 2]>,
    /// Copies of tenants' files, from the last end of a server or since.
    backups: BTreeMap<String, Vec<u8>>,
}

impl Operator {
    /// The operator of a world.
    pub(super) fn draw(io: &mut Sim, profile: Profile) -> Operator {
        let draws = io.draws_mut();
        let mut event = |entity: u64, one_in: u64| {
            let comes = draws.below(Stream::Operator, entity, one_in) == 0;
            let at = draws.logarithmic(Stream::Operator, entity, Span::new(100, 20_000));
            comes.then_some(at)
        };
        let second_at = event(0, 6);
        let full_at = event(1, 8).filter(|_| profile == Profile::Swarm);
        let swap_at = event(15, 2).filter(|_| profile == Profile::Swarm);
        let backup_at = swap_at.map(|at| at / 2);
        Operator { second_at, full_at, backup_at, swap_at, ..Operator::default() }
    }

    /// The memory budgets of the life that begins, if they differ from the options'.
    pub(super) fn memory_bytes(&self) -> Option<[u64; 2]> {
        self.memory_bytes
    }
}

impl World {
    /// Between two lives: other budgets, perhaps.
    pub(super) fn between_lives(&mut self) {
        self.keep_backups();
        let draws = self.io.draws_mut();
        if draws.below(Stream::Operator, 2, 4) > 0 {
            return;
        }
        let mut bytes =
            |high: u64| draws.logarithmic(Stream::Operator, 3, Span::new(4 << 20, high));
        let drawn = [bytes(64 << 20), bytes(16 << 20)];
        let before = self.operator.memory_bytes.unwrap_or(self.ground.options.memory_bytes);
        self.operator.memory_bytes = Some(drawn);
        if drawn[0] < before[0] || drawn[1] < before[1] {
            self.io.injected(FaultKind::SmallerBudget, 0);
            self.ground.memory_was_cut = true;
        }
    }

    /// What is due while the server runs.
    pub(super) fn let_operator_act(&mut self) -> Result<(), Violation> {
        let sequence = self.io.trace().sequence();
        if self.operator.full_at.is_some_and(|at| sequence >= at) {
            self.operator.full_at = None;
            self.fill_disk();
        }
        if self.operator.free_at_ns.is_some_and(|at| self.io.now().0 >= at) {
            self.free_disk();
        }
        let ready = self.server.as_ref().is_some_and(Server::is_ready);
        if ready && self.operator.backup_at.is_some_and(|at| sequence >= at) {
            self.operator.backup_at = None;
            self.keep_backups();
        }
        if ready && self.operator.swap_at.is_some_and(|at| sequence >= at) {
            (self.operator.swap_at, self.operator.swaps) = (None, true);
            self.io.trace_mut().remark(|| "the operator stops the server".to_owned());
            self.server_mut().stop();
            self.io.injected(FaultKind::CleanStop, 0);
        }
        if ready && self.operator.second_at.is_some_and(|at| sequence >= at) {
            self.operator.second_at = None;
            return self.start_second_process();
        }
        Ok(())
    }

    fn fill_disk(&mut self) {
        let span = Span::new(1_000_000_000, 60_000_000_000);
        let lasts = self.io.draws_mut().logarithmic(Stream::Operator, 4, span);
        let until = self.io.now().after(lasts);
        let size = self.io.disk().used_bytes() + FULL_DISK_ROOM_BYTES;
        self.io.disk_mut().set_size(size);
        self.io.injected(FaultKind::DiskFull, 0);
        self.io.wake_at(until, 0);
        self.ground.disk_was_full = true;
        self.operator.free_at_ns = Some(until.0);
    }

    /// There is room again.
    pub(super) fn free_disk(&mut self) {
        self.operator.full_at = None;
        if self.operator.free_at_ns.take().is_some() {
            let size = self.io.faults_mut().disk_bytes_max;
            self.io.disk_mut().set_size(size);
        }
    }

    /// N4: a second process on the same folder refuses to start, and changes no byte.
    fn start_second_process(&mut self) -> Result<(), Violation> {
        self.io.injected(FaultKind::SecondProcess, 0);
        let disk = self.io.disk().clone();
        let before = fingerprint(&disk);
        let seed = self.ground.options.seed.wrapping_add(1);
        let faults = Faults { disk_bytes_max: u64::MAX >> 1, ..self.copy_faults() };
        let mut io = Sim::on_disk(seed, faults, disk);
        let options = self.ground.options.server([[2; 32]; 2]);
        let bad = |text: String| Violation::new("N4", text);
        let mut server = Server::start(&mut io, options)
            .map_err(|(_, error)| bad(format!("a second process cannot listen: {error}")))?;
        let patience = io.now().after(REFUSAL_NS_MAX);
        // Once it has the log it would go on to open databases: that is too late to stop it.
        let has_log = |server: &Server| server.engine().log().is_some();
        while server.exit().is_none() && !has_log(&server) && io.now() < patience {
            server.turn(&mut io);
            let deadline = server.deadline().unwrap_or(patience).min(patience);
            io.run(&mut server, Some(deadline));
        }
        let exit = server.exit().cloned();
        if has_log(&server) {
            return Err(bad("a second process gets the log that another one has".to_owned()));
        }
        while io.in_flight() > 0 && io.now() < patience.after(REFUSAL_NS_MAX) {
            io.run(&mut server, Some(patience.after(REFUSAL_NS_MAX)));
        }
        drop(server);
        if exit != Some(Exit::Failed(Failure::InUse)) {
            return Err(bad(format!("a second process ends with {exit:?}")));
        }
        if fingerprint(io.disk()) != before {
            return Err(bad("a second process changed the disk".to_owned()));
        }
        Ok(())
    }

    /// The faults of a copied machine: none, on a disk of the same kind.
    pub(super) fn copy_faults(&mut self) -> Faults {
        let Faults { sector_bytes, namespace_model, .. } = *self.io.faults_mut();
        Faults { sector_bytes, namespace_model, ..Faults::calm() }
    }

    /// O1: nobody runs, and a tenant's file is changed behind the server's back.
    pub(super) fn swap_a_file(&mut self) {
        let disk = self.io.disk();
        let names = files::names(disk);
        let candidates: Vec<(TenantId, usize)> = names
            .into_iter()
            .filter_map(|(id, name)| Some((TenantId(id), parse_tenant_name(&name)?)))
            .filter(|(id, tenant)| {
                let known =
                    *tenant < self.ground.options.tenants && !self.ground.is_fenced(*tenant);
                known && disk.exists(Path::new(&id.paths().file))
            })
            .collect();
        let swarm = self.ground.options.profile == Profile::Swarm;
        // Once the work is done, nothing more is broken.
        let ends = self.ground.operations_left == 0;
        let wants = std::mem::take(&mut self.operator.swaps);
        let draws = self.io.draws_mut();
        let strikes = (wants || draws.below(Stream::Operator, 5, 4) > 0) && swarm && !ends;
        if strikes && !candidates.is_empty() {
            let (id, tenant) = candidates[draws.index(Stream::Operator, 6, candidates.len())];
            let (other, _) = candidates[draws.index(Stream::Operator, 7, candidates.len())];
            let how = draws.below(Stream::Operator, 8, 6);
            self.swap(id, tenant, other, how);
        }
    }

    /// From now on every file stays what it is.
    pub(super) fn swap_nothing(&mut self) {
        (self.operator.swap_at, self.operator.swaps) = (None, false);
    }

    /// The operator copies all tenants' files.
    fn keep_backups(&mut self) {
        let disk = self.io.disk();
        let paths = disk.paths().into_iter().filter(|path| path.starts_with("tenants/"));
        let copies = paths.filter_map(|path| Some((path.clone(), disk.bytes(Path::new(&path))?)));
        self.operator.backups = copies.collect();
    }

    fn swap(&mut self, id: TenantId, tenant: usize, other: TenantId, how: u64) {
        let path = id.paths().file;
        let now = self.io.disk().bytes(Path::new(&path)).unwrap_or_default();
        // A copy that was taken in the middle of a checkpoint may have this page 1 already, and
        // older pages behind it: nobody can tell that.
        let old = self.operator.backups.get(&path).cloned();
        let old = old.filter(|old| stamp(id, old) < stamp(id, &now));
        let new = match (how, old) {
            (0, _) => None,
            (1, _) if other != id => self.io.disk().bytes(Path::new(&other.paths().file)),
            (2.., Some(old)) => Some(old),
            _ => {
                let pages = now.len() / PAGE_BYTES;
                let kept = self.io.draws_mut().index(Stream::Operator, 9, pages.max(1));
                Some(now[..kept * PAGE_BYTES].to_vec())
            }
        };
        if new.as_ref() == Some(&now) {
            return;
        }
        self.io.trace_mut().remark(|| format!("the operator swaps {path}, way {how}"));
        let disk = self.io.disk_mut();
        let done = match new {
            None => disk.remove_durably(Path::new(&path)),
            Some(bytes) => disk.plant(Path::new(&path), &bytes),
        };
        if done.is_ok() {
            self.io.injected(FaultKind::FileSwapped, id.0);
            let disk = self.io.disk_mut();
            disk.hit_path(Path::new(&path), FaultKind::FileSwapped, false);
            self.io.monitor_mut().excuse(id);
            self.ground.swapped.insert(tenant);
        }
    }
}

/// The stamp of page 1, if that is whole.
fn stamp(id: TenantId, file: &[u8]) -> Option<u64> {
    verify_tail(id, 1, file.get(..PAGE_BYTES)?)
}

/// A hash of everything on a disk: names, what reads see, what is durable.
fn fingerprint(disk: &SimulatedDisk) -> Vec<(String, u64, u64)> {
    let hash = |bytes: Option<Vec<u8>>| hash_bytes(&bytes.unwrap_or_default());
    let file = |path: String| {
        let (seen, durable) = (disk.bytes(Path::new(&path)), disk.durable_bytes(Path::new(&path)));
        (path, hash(seen), hash(durable))
    };
    disk.paths().into_iter().map(file).collect()
}
