//! A whole folder, damaged between two lives of a server: it starts, refuses or fences, and never serves
//! other bytes.
//!
//! The folder is that of a server that was killed: databases with files, newer transactions in the log.
//! An input is a list of edits of its files. Expected:
//! - What a database answers is a state that it once had; the newest one if a single block was hurt.
//! - A single block hurts at most its owner: the server starts, unless the catalogue's own page was hit.
//! - What still serves takes a write, and shows it.

use std::path::Path;

use storage::page::PAGE_BYTES;

use super::place::{Answer, Place};
use super::program::Program;
use super::{Random, Seen, Target};
use crate::disk::{CrashMode, SimulatedDisk};
use crate::machine::{End, Stop};

const NAMES: [&str; 4] = ["north", "east", "south", "west"];

/// Edits of one input.
const EDITS_MAX: usize = 8;

/// Bytes of an edit in an input.
const EDIT_BYTES: usize = 10;

/// Bytes at a log segment's start in which the edits mostly fall: what was written.
const WRITTEN_BYTES: usize = 256 << 10;

/// Time in which what was acknowledged settles: header copies follow their batches.
const SETTLE_NS: u64 = 1_000_000_000;

const READ: &str = "SELECT k, v FROM t ORDER BY k";

/// The rows of a database after each of its transactions; no table before the first.
type States = Vec<Option<Vec<Vec<String>>>>;

/// See the head of the file.
pub struct Recovery {
    disk: SimulatedDisk,
    paths: Vec<String>,
    states: Vec<States>,
}

/// What an edit did.
struct Edit {
    path: String,
    /// Only bytes of one block.
    is_local: bool,
}

impl Recovery {
    /// With a folder made anew.
    ///
    /// # Panics
    /// If a server without faults does not do what it is asked for.
    pub fn new() -> Recovery {
        let mut place = Place::new();
        let mut states = vec![vec![None]; NAMES.len()];
        let prepared = prepare(&mut place, &mut states);
        prepared.expect("a folder is made without faults");
        let disk = place.machine.io.disk().clone();
        let paths = disk.paths();
        Recovery { disk, paths, states }
    }
}

fn prepare(place: &mut Place, states: &mut [States]) -> Result<(), Stop> {
    place.machine.start()?;
    for (tenant, name) in NAMES.iter().enumerate() {
        place.create(name)?;
        place.sql(name, &["CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT)"])?;
        states[tenant].push(Some(Vec::new()));
        for serial in 0..3 {
            write(place, tenant, serial, states)?;
        }
    }
    place.machine.stop()?;
    place.machine.start()?;
    for serial in 3..7 {
        // The last one has nothing in the log.
        for tenant in 0..NAMES.len() - 1 {
            write(place, tenant, serial, states)?;
        }
    }
    place.machine.pass(SETTLE_NS)?;
    place.machine.crash(CrashMode::Kill)?;
    Ok(())
}

fn write(place: &mut Place, tenant: usize, serial: u64, states: &mut [States]) -> Result<(), Stop> {
    let name = NAMES[tenant];
    let sql = format!(
        "INSERT INTO t(v) VALUES('{name}-{serial}-' || hex(zeroblob(400))), ('{name}-{serial}'), \
         ('{name}-{serial}-' || hex(zeroblob(900)))"
    );
    place.sql(name, &[&sql])?;
    match place.sql(name, &[READ])? {
        Answer::Rows(rows) => states[tenant].push(Some(rows)),
        other => panic!("{name} cannot be read: {other:?}"),
    }
    Ok(())
}

impl Target for Recovery {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let edits = if random.one_in(2) { 1 } else { 1 + random.index(EDITS_MAX) };
        random.bytes(edits * EDIT_BYTES)
    }

    fn input_bytes_max(&self) -> usize {
        EDITS_MAX * EDIT_BYTES
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let mut disk = self.disk.clone();
        let mut program = Program::of(input);
        let mut edits = Vec::new();
        for _ in 0..EDITS_MAX {
            if program.is_over() {
                break;
            }
            edits.extend(edit(&mut program, &mut disk, &self.paths));
        }
        let mut place = Place::on(disk);
        match self.live(&mut place, &edits, seen) {
            Ok(()) => Ok(()),
            Err(Stop::Violated(violation)) => Err(format!("{violation:?}")),
            Err(Stop::Ended(End::Failed(failure))) if !edits.is_empty() => {
                let text: String =
                    format!("{failure:?}").chars().filter(|l| !l.is_ascii_digit()).collect();
                seen.note(text.get(..80).unwrap_or(&text));
                let excused = edits.len() > 1 || !edits[0].is_local || {
                    let path = &edits[0].path;
                    // The catalogue's pages are in both; all that the ring says is there twice.
                    path.starts_with("log/segment-")
                        || *path == storage::TenantId::CATALOGUE.paths().file
                };
                if excused { Ok(()) } else { Err(format!("{failure:?}")) }
            }
            Err(Stop::Ended(end)) => Err(format!("the server ended: {end:?}")),
        }
    }
}

impl Recovery {
    fn live(&self, place: &mut Place, edits: &[Edit], seen: &mut Seen) -> Result<(), Stop> {
        let wrong = |text: String| Stop::Violated(crate::world::Violation::new("COR-1", text));
        let single = edits.len() <= 1 && edits.iter().all(|edit| edit.is_local);
        place.machine.start()?;
        let mut refused = 0;
        for (tenant, name) in NAMES.iter().enumerate() {
            let answer = place.sql(name, &[READ])?;
            seen.note(&format!("read: {}", answer.shape()));
            let states = &self.states[tenant];
            let state = match &answer {
                Answer::Rows(rows) => Some(rows.clone()),
                Answer::Refused(_, _, message) if message.contains("no such table") => None,
                Answer::Refused(..) if edits.is_empty() => {
                    return Err(wrong(format!("{name} is refused: {answer:?}")));
                }
                Answer::Refused(_, code, _) if single && code != "DATABASE_DAMAGED" => {
                    return Err(wrong(format!("{name} is hurt, and says {answer:?}")));
                }
                Answer::Refused(..) => {
                    refused += 1;
                    continue;
                }
                Answer::Nothing => return Err(wrong(format!("{name} gives no answer"))),
            };
            let Some(at) = states.iter().position(|other| *other == state) else {
                return Err(wrong(format!("{name} never was {answer:?}")));
            };
            seen.note(&format!("state {}", states.len() - 1 - at));
            if single && at + 1 < states.len() {
                return Err(wrong(format!(
                    "{name} is as it was {} writes ago",
                    states.len() - 1 - at
                )));
            }
            if let Some(rows) = state {
                self.write_on(place, name, rows, seen)?;
            }
        }
        seen.count("refused", refused);
        let in_catalogue =
            edits.iter().any(|edit| edit.path == storage::TenantId::CATALOGUE.paths().file);
        if single && refused > 1 && !in_catalogue {
            let what: Vec<&str> = edits.iter().map(|edit| &edit.path[..]).collect();
            return Err(wrong(format!("one block of {what:?} hurts {refused}")));
        }
        place.machine.stop()
    }

    /// What serves also takes a write, and shows it.
    fn write_on(
        &self,
        place: &mut Place,
        name: &str,
        mut rows: Vec<Vec<String>>,
        seen: &mut Seen,
    ) -> Result<(), Stop> {
        let wrong = |text: String| Stop::Violated(crate::world::Violation::new("COR-1", text));
        let written = place.sql(name, &["INSERT INTO t(v) VALUES('after') RETURNING k, v"])?;
        seen.note(&format!("write: {}", written.shape()));
        let new = match written {
            Answer::Rows(new) => new,
            Answer::Refused(_, code, _) if code == "DATABASE_DAMAGED" => return Ok(()),
            other => return Err(wrong(format!("{name} takes no write: {other:?}"))),
        };
        rows.extend(new);
        match place.sql(name, &[READ])? {
            Answer::Rows(found) if found == rows => Ok(()),
            Answer::Refused(_, code, _) if code == "DATABASE_DAMAGED" => Ok(()),
            other => Err(wrong(format!("{name} shows {other:?} after a write"))),
        }
    }
}

/// One edit; nothing if it changes nothing.
fn edit(program: &mut Program<'_>, disk: &mut SimulatedDisk, paths: &[String]) -> Option<Edit> {
    let kind = program.byte();
    let path = paths[program.below(paths.len())].clone();
    let place = program.below(usize::from(u16::MAX));
    let within = program.below(PAGE_BYTES);
    let value = program.byte();
    let count = 1 + usize::from(program.byte());
    let old = disk.bytes(Path::new(&path)).filter(|bytes| !bytes.is_empty())?;
    let mut new = old.clone();
    let reach = if kind & 0x80 == 0 { old.len().min(WRITTEN_BYTES) } else { old.len() };
    let block = place % reach.div_ceil(PAGE_BYTES) * PAGE_BYTES;
    let end = (block + PAGE_BYTES).min(old.len());
    let at = (block + within).min(end - 1);
    let mut is_local = true;
    match kind % 12 {
        0..=2 => new[at] ^= 1 << (value % 8),
        3 => new[at..(at + count).min(end)].fill(value),
        4 => new[block..end].fill(0),
        5 => {
            let garbage = Random::new(value.into()).bytes(end - block);
            new[block..end].copy_from_slice(&garbage);
        }
        6 | 7 => {
            // A block from elsewhere, of this file or another: what a lost or misdirected write leaves.
            let other = if kind % 12 == 6 { &path } else { &paths[count % paths.len()] };
            let other = disk.bytes(Path::new(other))?;
            let from = within * PAGE_BYTES % (other.len().max(PAGE_BYTES));
            let from = &other[from.min(other.len())..];
            let length = from.len().min(end - block);
            new[block..block + length].copy_from_slice(&from[..length]);
        }
        8 => {
            new.truncate(at);
            is_local = false;
        }
        9 => {
            disk.remove_durably(Path::new(&path)).ok()?;
            return Some(Edit { path, is_local: false });
        }
        10 => {
            let other = &paths[count % paths.len()];
            let bytes = disk.bytes(Path::new(other))?;
            disk.plant(Path::new(other), &old).ok()?;
            new = bytes;
            is_local = false;
        }
        _ => {
            new.extend_from_slice(&old[block..end]);
            is_local = false;
        }
    }
    if new == old {
        return None;
    }
    match is_local {
        true => disk.damage(Path::new(&path), block as u64, &new[block..end]).ok()?,
        false => disk.plant(Path::new(&path), &new).ok()?,
    }
    Some(Edit { path, is_local })
}
